"""The training loop, top to bottom: load, forward, backward, step, log, validate, save."""

import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader

from stereo.errors import FolderInUseError, InputError, StereoError
from stereo.system import console
from stereo.system.distributed import is_main
from stereo.system.files import output_folder, writes_alone
from stereo.system.runtime import exact_fp32
from stereo.system.stop import end_by
from stereo.training.data import Item, batches_of, begin_loader, collate
from stereo.training.interrupt import StopRequest, explain_errors
from stereo.training.learner import Learner
from stereo.training.log import RunLog
from stereo.training.losses import loss_sum
from stereo.training.order import Share, StepSampler
from stereo.training.run import TrainingRun
from stereo.training.saver import Saver
from stereo.training.supervision import check_truth, counted_pixels
from stereo.training.validation import validate

FIRST_VALIDATION_PAIRS = 2
FEW_VALIDATION_PAIRS = 16
LEAVING = 4.0  # seconds of a time limit kept for starting Python, the last save, and leaving
MAX_NOT_TAKEN = 30  # fp16 halves the scale each time, from 65536: then no scale helps


@writes_alone
def train(
    run: TrainingRun, folder: str | Path, *, resume: str = "auto", max_seconds: float | None = None
) -> int:
    """Train until ``max_steps``, the time limit, or a signal; every way out saves first.

    Args:
        run: what to train.
        folder: receives ``last-STEP.safetensors``, ``best.safetensors`` and TensorBoard's files.
        resume: ``auto``, ``never`` or a checkpoint's path.
        max_seconds: stop cleanly before this time has passed.

    Returns:
        The steps done in all.

    Raises:
        StereoError: a loss that is not finite; the batch is saved before.
        KeyboardInterrupt: after saving, on Ctrl-C.
        SystemExit: after saving, on SIGTERM.
    """
    log = RunLog(Path(folder), run.trainer, is_main())
    try:
        return _train(run, Path(folder), log, resume, max_seconds)
    except BaseException as error:
        if not isinstance(error, FolderInUseError):  # whose files are another run's
            log.drop_failed_start()
        raise
    finally:
        log.close()


def _train(
    run: TrainingRun, folder: Path, log: RunLog, resume: str, max_seconds: float | None
) -> int:
    # Prepare.
    end = math.inf if max_seconds is None else time.monotonic() + max_seconds
    trainer = run.trainer
    learner = Learner(run)
    output_folder(folder, alone=True)
    saver = Saver(folder, run, learner)
    validation_due = saver.resume(resume)
    if learner.step < trainer.max_steps:
        check_truth(run, learner.step)  # before anything is written
    loader = _loader(run, learner)
    saver.check_disk()
    log.start(learner.step)
    log.note(run.facts, run.plan, learner.device)
    console.say(run.plan)
    validation = 0.0  # seconds
    with explain_errors():
        if validation_due:
            validation = _validate(run, learner, saver, log)
            saver.save()
        elif learner.step == 0:
            _validate_first(run, learner, saver, log)
        if max_seconds is not None and not validation:
            validation = _validation_seconds(run, learner)

    # Step and watch.
    steps: deque[float] = deque(maxlen=9)  # seconds; their median ignores a pause
    log.restart_watch()
    # A run that ends before its first validation is validated then, if that is not most of it.
    fits = max_seconds is not None and 2 * validation < end - time.monotonic()
    exact = exact_fp32(enabled=learner.precision == "fp32")
    with exact, StopRequest() as stop, explain_errors(), batches_of(loader) as batches:
        while learner.step < trainer.max_steps:
            began = time.monotonic()
            with log.waiting_for_data():
                read = [next(batches) for _ in range(trainer.accumulation)]
            _step(run, learner, _usable(read, learner, saver, log), saver, log)
            steps.append(time.monotonic() - began)

            done = learner.step == trainer.max_steps
            if trainer.validates_at(learner.step):
                saver.save()  # a validation that fails loses nothing
                validation = _validate(run, learner, saver, log)
                log.restart_watch()
            unjudged = saver.best_epe is None and fits
            validates_next = unjudged or trainer.validates_at(learner.step + 1)
            needed = 2 * (median(steps) + validation * validates_next) + LEAVING
            late = max_seconds is not None and time.monotonic() + needed > end
            signalled = learner.any_process(stop.signal is not None)
            stopping = signalled or learner.any_process(late)
            if learner.step % trainer.checkpoint_every == 0 or done or stopping:
                saver.save()
            if stopping:
                if learner.any_process(unjudged) and not signalled:
                    _validate(run, learner, saver, log)
                    saver.save()
                break

    log.finish(learner.step, saver.best_epe)
    if stop.signal is not None:
        end_by(stop.signal)
    return learner.step


def _step(
    run: TrainingRun,
    learner: Learner,
    batches: Sequence[dict[str, Tensor]],
    saver: Saver,
    log: RunLog,
) -> None:
    """Make one optimiser step on the batches of its backward passes, and log it."""
    learner.begin_step()
    rate = learner.rate
    accelerator, model = learner.accelerator, learner.model
    reach, zero_counts = run.network_config.max_disparity, run.loss.zero_counts
    masks = [
        counted_pixels(batch["disparity"], batch["valid"], reach, zero_counts=zero_counts)
        for batch in batches
    ]
    # One mean over all pixels of the step, however they lie over processes.
    pixels = accelerator.reduce(torch.stack([mask.sum() for mask in masks]).sum(), "sum")
    scale = accelerator.num_processes / pixels.clamp(min=1).float()
    total = torch.zeros((), device=learner.device)
    for turn, (batch, counted) in enumerate(zip(batches, masks, strict=True), start=1):
        with learner.accumulating(last=turn == len(batches)):
            with accelerator.autocast():
                outputs = model(batch["left"], batch["right"])
                error = loss_sum(outputs, batch["disparity"], counted, run.loss)
            accelerator.backward(error * scale)
        total += error.detach() * scale
    loss = float(accelerator.reduce(total, "mean"))
    norm = float(
        accelerator.clip_grad_norm_(model.parameters(), run.optimizer.clip_norm or math.inf)
    )
    # fp16's scaler skips infinite gradients by itself.
    bad_norm = accelerator.scaler is None and not math.isfinite(norm)
    if bad_norm or not math.isfinite(loss):
        saved = saver.save_batch(batches)
        raise StereoError(
            f"the {'gradient' if bad_norm else 'loss'} of step {learner.step + 1} is not finite; "
            f"its batch is saved as {saved} and the checkpoints before it are whole; lower "
            "the learning rate, use --trainer.precision fp32, or look at that batch"
        )
    learner.end_step()
    if learner.not_taken == MAX_NOT_TAKEN:
        raise StereoError(
            f"fp16: the gradients of {MAX_NOT_TAKEN} steps in a row, to step {learner.step}, were "
            "not finite at any scale, and the network no longer learns; use --trainer.precision "
            "bf16 or fp32, and --resume auto to begin from the last checkpoint"
        )
    log.step(learner, loss=loss, rate=rate, norm=norm)


def _usable(
    read: Sequence[Item], learner: Learner, saver: Saver, log: RunLog
) -> list[dict[str, Tensor]]:
    """Return a step's batches on the device."""
    damaged = [str(batch) for batch in read if isinstance(batch, StereoError)]
    if learner.any_process(bool(damaged)):
        saver.save()
        raise InputError(f"{gather_object(damaged)[0]}; saved at step {learner.step}")
    batches = [batch for batch in read if not isinstance(batch, StereoError)]
    log.skipped += sum(int(batch.pop("skipped").sum()) for batch in batches)
    return [{k: v.to(learner.device, non_blocking=True) for k, v in b.items()} for b in batches]


def _validate(run: TrainingRun, learner: Learner, saver: Saver, log: RunLog) -> float:
    """Validate on all pairs, log it, keep the weights if they are the best; return the seconds."""
    began = time.monotonic()
    summary, examples = validate(run, learner, run.validation_set)
    learner.epe, learner.epe_step = summary["epe_image"], learner.step
    log.validation(learner.step, summary, examples)
    saver.keep_best()
    return time.monotonic() - began


def _validate_first(run: TrainingRun, learner: Learner, saver: Saver, log: RunLog) -> None:
    """Fail in the first minute, not after the first epoch."""
    if run.facts.get("weights") is not None:
        _validate(run, learner, saver, log)  # these weights are the best until others are better
        return
    few = len(run.validation_set) <= FEW_VALIDATION_PAIRS
    pairs = run.validation_set[: None if few else FIRST_VALIDATION_PAIRS]
    summary, _ = validate(run, learner, pairs, all_of_them=few)
    learner.epe, learner.epe_step = summary.get("epe_image"), learner.step
    log.validation(learner.step, summary, [])


def _validation_seconds(run: TrainingRun, learner: Learner) -> float:
    """Return about how long a validation takes, from the second match of its first pair."""
    for _ in range(2):  # the first one warms up
        began = time.monotonic()
        validate(run, learner, run.validation_set[:1], all_of_them=False)
    each = -(-len(run.validation_set) // learner.accelerator.num_processes)
    return each * (time.monotonic() - began)


def _loader(run: TrainingRun, learner: Learner) -> DataLoader[Item]:
    """Return the loader of this process's batches from the next step on."""
    trainer, accelerator = run.trainer, learner.accelerator
    processes = (accelerator.process_index, accelerator.num_processes)
    share = Share(*processes, trainer.accumulation, learner.step)
    sampler = StepSampler(len(run.training_set), trainer.batch_size, run.seed, share)  # type: ignore[arg-type]
    return DataLoader(
        run.training_set,
        batch_sampler=sampler,
        num_workers=trainer.workers,
        persistent_workers=trainer.workers > 0,
        pin_memory=learner.device.type == "cuda",
        collate_fn=collate,
        worker_init_fn=begin_loader,
        generator=torch.Generator().manual_seed(run.seed),
    )


__all__ = ["train"]
