"""The training loop, top to bottom: load, forward, backward, step, log, validate, save."""

import contextlib
import dataclasses
import json
import math
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stereo.attention import VolumeAttention
from stereo.data.sets.sample import Readable
from stereo.errors import InputError, OutputError, StereoError, UsageError
from stereo.evaluation.metrics import ImageScore, score_all_pixels, summarise
from stereo.evaluation.protocols import get_protocol
from stereo.matching.engine import NetworkEngine
from stereo.matching.options import MatchOptions
from stereo.models import NetworkConfig, StereoNetwork
from stereo.models.checkpoint import Checkpoint, load_weights, save_checkpoint
from stereo.models.config import BF16_NETWORKS
from stereo.models.kernels import pick_kernels, use_kernels
from stereo.models.recompute import set_recompute
from stereo.system import console
from stereo.system.distributed import check_joined, is_main, process_count
from stereo.system.files import output_folder, staged, writes_alone
from stereo.system.runtime import (
    exact_fp32,
    is_out_of_memory,
    pick_device,
    pick_dtype,
    to_channels_last,
)
from stereo.system.stop import check_stop, end_by
from stereo.training.config import LossConfig, OptimizerConfig, TrainerConfig
from stereo.training.data import Item, collate
from stereo.training.log import RunLog, Stopwatch
from stereo.training.losses import TruthCount, counted_pixels, loss_sum
from stereo.training.order import Share, StepSampler
from stereo.training.schedule import learning_rate
from stereo.training.state import (
    RunState,
    best_path,
    blamed_on,
    check_moments,
    find_resume,
    last_path,
    random_state,
    read_best_epe,
    remove_old,
    restore_random_state,
    save_run,
    set_aside_later,
)

FIRST_VALIDATION_PAIRS = 2
FEW_VALIDATION_PAIRS = 16
SHOWN_PAIRS = 3
FIRST_STEPS = 10  # of which some pixel must count
CHECKPOINTS_OF_ROOM = 2  # the best one, and the one being written


@dataclass(frozen=True)
class Run:
    """Everything a run is made of.

    Attributes:
        network: the network to train, with its first weights.
        network_config: what it was built from.
        training_set: sample key (epoch, index) to the tensors ``left``, ``right`` (3, H, W),
            ``disparity`` and ``valid`` (H, W); has a length.
        validation_set: pairs to validate on.
        optimizer: optimiser and learning rate.
        trainer: how long, how large, how often.
        loss: what is minimised.
        seed: of the order of samples, and of everything random in training.
        facts: recipe, data and the like, stored in every checkpoint.
        data: what it is trained and validated on, in words, for its report.
        skip_damaged: whether a validation pair that cannot be read is left out.
    """

    network: StereoNetwork
    network_config: NetworkConfig
    training_set: Dataset[Item]
    validation_set: Sequence[Readable]
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    loss: LossConfig
    seed: int
    facts: dict[str, Any]
    data: str = ""
    skip_damaged: bool = False


class _StopRequest:
    """Remembers Ctrl-C and SIGTERM, so that a run saves before it goes."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_StopRequest":
        check_stop()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            end_by(number)  # asked twice: do not wait for the step to end
        self.signal = number


@writes_alone
def train(
    run: Run, folder: str | Path, *, resume: str = "auto", max_seconds: float | None = None
) -> int:
    """Train until ``max_steps``, the time limit, or a signal; every way out saves first.

    Args:
        run: what to train.
        folder: receives ``last-STEP.safetensors``, ``best.safetensors``, TensorBoard's files,
            ``report.html`` and the pictures it shows.
        resume: ``auto``, ``never`` or a checkpoint's path.
        max_seconds: stop cleanly before this time has passed.

    Returns:
        The steps done in all.

    Raises:
        StereoError: a loss that is not finite; the batch is saved before.
        KeyboardInterrupt: after saving, on Ctrl-C.
        SystemExit: after saving, on SIGTERM.
    """
    log = RunLog(Path(folder), run.trainer.max_steps, is_main())
    try:
        return _train(run, Path(folder), log, resume, max_seconds)
    except BaseException:
        log.drop_failed_start()
        raise
    finally:
        log.close()


def _train(run: Run, folder: Path, log: RunLog, resume: str, max_seconds: float | None) -> int:
    began = time.monotonic()
    trainer = run.trainer
    AcceleratorState._reset_state()  # of a run before in this process, maybe in another precision
    on_cpu = pick_device(trainer.device).type == "cpu"
    accelerator = Accelerator(mixed_precision=_mixed_precision(run), cpu=on_cpu)
    check_joined(accelerator.num_processes)
    device = accelerator.device
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    set_seed(run.seed, device_specific=True)

    network = run.network
    to_channels_last(network)
    set_recompute(network, trainer.recompute)
    kernels = pick_kernels(trainer.kernels, device)
    use_kernels(network, kernels)
    precision = accelerator.mixed_precision.replace("no", "fp32")
    console.say(f"device {device.type}, precision {precision}, kernels {kernels}")
    if accelerator.num_processes > 1 and device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=run.optimizer.learning_rate,
        betas=run.optimizer.betas,
        weight_decay=run.optimizer.weight_decay,
    )
    model, optimizer = accelerator.prepare(network, optimizer)
    network = accelerator.unwrap_model(model)
    average = _Average(network, trainer.ema_decay)

    step, validated = 0, True
    output_folder(folder, alone=True)
    found = find_resume(folder, resume)
    if found is not None:
        path, checkpoint, state = found
        _compare_with(path, checkpoint, run)
        load_weights(network, state.network, str(path))
        average.load(checkpoint.weights, state.step)
        with blamed_on(path):
            optimizer.load_state_dict(state.optimizer)
            check_moments(optimizer)
            if accelerator.scaler is not None and state.scaler:
                accelerator.scaler.load_state_dict(state.scaler)
            if accelerator.process_index < len(state.random):
                restore_random_state(state.random[accelerator.process_index], device)
        step = state.step
        if step > trainer.max_steps:
            raise UsageError(
                f"{path} is of step {step}, beyond --trainer.max_steps {trainer.max_steps}; "
                "raise it, or name another --output"
            )
        log.epe = checkpoint.training.get("validation_epe_px")
        log.epe_step = checkpoint.training.get("validation_step")
        due = step % trainer.validate_every == 0 or step == trainer.max_steps
        validated = not due or log.epe_step == step
        if accelerator.is_main_process:
            set_aside_later(folder, step)
        finished = ", which is all: nothing to do" if step >= trainer.max_steps else ""
        console.say(f"resumed from step {step}{finished if validated else ''}")
    if step < trainer.max_steps:
        _check_truth(run, step)  # before anything is written
    best_epe = read_best_epe(folder)
    log.start(step)

    share = Share(accelerator.process_index, accelerator.num_processes, trainer.accumulation, step)
    sampler = StepSampler(len(run.training_set), trainer.batch_size, run.seed, share)  # type: ignore[arg-type]
    loader = DataLoader(
        run.training_set,
        batch_sampler=sampler,
        num_workers=trainer.workers,
        persistent_workers=trainer.workers > 0,
        pin_memory=device.type == "cuda",
        collate_fn=collate,
        worker_init_fn=_leave_signals_to_the_loop,
        generator=torch.Generator().manual_seed(run.seed),
    )

    def save(best: bool = False) -> None:
        generators = gather_object([random_state(device)])
        if not accelerator.is_main_process:
            return
        facts = run.facts | {
            "step": step,
            "validation_epe_px": log.epe,
            "validation_step": log.epe_step,
        }
        shipped = Checkpoint(run.network_config, average.weights(), facts)
        if best:
            save_checkpoint(best_path(folder), shipped)
            return
        scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
        raw = {name: tensor.detach() for name, tensor in network.state_dict().items()}
        state = RunState(step, raw, optimizer.state_dict(), scaler, generators)
        save_run(last_path(folder, step), shipped, state)
        remove_old(folder, step, trainer.keep_last)

    def validate() -> None:
        nonlocal best_epe
        summary, examples = _validate(average.network, run, run.validation_set, accelerator)
        log.validation(step, summary, examples)
        log.report(run.facts, run.data, device)
        epe = summary["epe_image"]
        if best_epe is None or epe < best_epe:
            best_epe = epe
            save(best=True)

    # Fail in the first minute, not after the first epoch.
    if accelerator.is_main_process:
        _check_disk(folder, network, trainer.keep_last)
    if step == 0 and run.facts.get("weights") is not None:
        validate()  # the weights it starts from are the best until others are better
    elif step == 0:
        few = len(run.validation_set) <= FEW_VALIDATION_PAIRS
        first = run.validation_set[: None if few else FIRST_VALIDATION_PAIRS]
        summary, _ = _validate(average.network, run, first, accelerator, all_of_them=few)
        log.validation(step, summary, [])
    elif not validated:  # the run was killed before it could be
        validate()
        save()

    skipped = 0
    watch = Stopwatch()
    steps_in_watch, longest = 0, 0.0
    exact = exact_fp32(enabled=precision == "fp32")
    with exact, _StopRequest() as stop, _told_plainly(), _batches_of(loader) as batches:
        while step < trainer.max_steps:
            step_began = time.monotonic()
            rate = learning_rate(step, trainer.max_steps, run.optimizer)
            for group in optimizer.param_groups:
                group["lr"] = rate
            model.train()
            for module in network.modules():
                if isinstance(module, VolumeAttention):
                    module.begin_step(step)
            if trainer.freeze_batch_norm:
                _freeze_batch_norm(model)

            with watch.part("data"):
                read = [next(batches) for _ in range(trainer.accumulation)]
            micro = [batch for batch in read if not isinstance(batch, StereoError)]
            damaged = [str(batch) for batch in read if isinstance(batch, StereoError)]
            if _anyone(accelerator, bool(damaged)):
                save()
                raise InputError(f"{gather_object(damaged)[0]}; saved at step {step}")
            skipped += sum(int(batch.pop("skipped").sum()) for batch in micro)
            micro = [{k: v.to(device, non_blocking=True) for k, v in b.items()} for b in micro]
            masks = [
                counted_pixels(
                    b["disparity"],
                    b["valid"],
                    run.network_config.max_disparity,
                    zero_counts=run.loss.zero_counts,
                )
                for b in micro
            ]
            # One mean over all pixels of the step, however they lie over processes.
            pixels = accelerator.reduce(torch.stack([m.sum() for m in masks]).sum(), "sum")
            scale = accelerator.num_processes / pixels.clamp(min=1).float()
            total = torch.zeros((), device=device)
            for turn, (batch, counted) in enumerate(zip(micro, masks, strict=True)):
                last = turn == trainer.accumulation - 1
                with _gradients_meet(accelerator, model, last), accelerator.autocast():
                    stages = model(batch["left"], batch["right"])
                    error = loss_sum(stages, batch["disparity"], counted, run.loss)
                    accelerator.backward(error * scale)
                total += error.detach() * scale
            mean = accelerator.reduce(total, "mean")
            norm = accelerator.clip_grad_norm_(
                model.parameters(), run.optimizer.clip_norm or float("inf")
            )
            # A host-device sync, once per step. fp16's scaler skips infinite gradients by itself.
            bad_norm = accelerator.scaler is None and not math.isfinite(float(norm))
            if bad_norm or not torch.isfinite(mean):
                saved = _save_batch(folder, micro, step, accelerator)
                raise StereoError(
                    f"the {'gradient' if bad_norm else 'loss'} of step {step + 1} is not finite; "
                    f"its batch is saved as {saved} and the checkpoints before it are whole; lower "
                    "the learning rate, use --trainer.precision fp32, or look at that batch"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average.update(network)

            step += 1
            steps_in_watch += 1
            speak = step % trainer.log_every == 0 or step == trainer.max_steps
            seconds = watch.total()
            facts = {
                "loss": float(mean),
                "learning_rate": rate,
                "gradient_norm": float(norm),
                "pairs_per_second": steps_in_watch * trainer.batch_size / seconds,
                "data_waiting_percent": 100 * watch.parts.get("data", 0.0) / seconds,
            }
            log.step(step, facts, speak=speak)
            if speak:
                watch.reset()
                steps_in_watch = 0

            done = step == trainer.max_steps
            if step % trainer.validate_every == 0 or done:
                save()  # a validation that fails loses nothing
                validate()
                watch.reset()
                steps_in_watch = 0
            longest = max(longest, time.monotonic() - step_began)
            stopping = _anyone(accelerator, stop.signal is not None) or (
                max_seconds is not None
                and _anyone(accelerator, time.monotonic() - began + 2 * longest > max_seconds)
            )
            if step % trainer.checkpoint_every == 0 or done or stopping:
                save()
            if stopping:
                break
    log.report(run.facts, run.data, device)
    skipped = sum(gather_object([skipped]))
    if accelerator.is_main_process:
        if skipped:
            console.say(f"damaged pairs skipped: {skipped}; 'stereo data check' names them")
        best = "" if best_epe is None else f"; best validation EPE {best_epe:.3f} px"
        console.say(f"stopped at step {step} of {trainer.max_steps}{best}; saved in {folder}")
    if stop.signal is not None:
        end_by(stop.signal)
    return step


class _Average:
    """The moving average of a network, or the network itself when there is no decay."""

    def __init__(self, network: StereoNetwork, decay: float | None) -> None:
        self.decay = decay
        self.network = network
        if decay is not None:
            self._averaged = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=self._mix)
            self.network = self._averaged.module  # type: ignore[assignment]

    @torch.no_grad()
    def update(self, network: StereoNetwork) -> None:
        """Move towards the network's parameters; running statistics are copied."""
        if self.decay is None:
            return
        self._averaged.update_parameters(network)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)

    def _mix(self, mine: Any, theirs: Any, count: Tensor | int) -> None:
        assert self.decay is not None
        decay = min(self.decay, (1 + int(count)) / (10 + int(count)))  # forgets the first weights
        torch._foreach_lerp_(mine, theirs, 1 - decay)

    def load(self, weights: dict[str, Tensor], step: int) -> None:
        """Take up the average of an earlier run after so many steps."""
        if self.decay is not None:
            self.network.load_state_dict(weights)
            self._averaged.n_averaged.fill_(step)

    def weights(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name."""
        return dict(self.network.state_dict())


def _check_truth(run: Run, step: int) -> None:
    """Read the pairs of the next steps, up to the first of which a pixel counts.

    Every process reads the same ones, so that all agree. A damaged pair is left to the loop, unless
    there are no others.

    Raises:
        StereoError: no pixel of ``FIRST_STEPS`` steps counts; training would learn nothing.
    """
    count = TruthCount(run.network_config.max_disparity)
    sampler = StepSampler(len(run.training_set), run.trainer.batch_size, run.seed, Share())  # type: ignore[arg-type]
    steps = min(FIRST_STEPS, run.trainer.max_steps - step)
    damaged: StereoError | None = None
    for number in range(step, step + steps):
        for key in sampler.keys_of_step(number):
            item = run.training_set[key]
            if isinstance(item, StereoError):
                damaged = item
                continue
            truth, valid = item["disparity"], item["valid"]
            if counted_pixels(
                truth, valid, count.max_disparity, zero_counts=run.loss.zero_counts
            ).any():
                return
            count.add(truth, valid)
    if damaged is not None and not count.pixels:
        raise damaged
    raise count.error(
        f"the {'next' if step else 'first'} {steps} steps" if steps > 1 else "the step"
    )


def _validate(
    network: StereoNetwork,
    run: Run,
    pairs: Sequence[Readable],
    accelerator: Accelerator,
    *,
    all_of_them: bool = True,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score pairs, each on one of the processes.

    The pixels are those that training counts, above 0 and in the network's range, and their mean is
    the protocol ``pooled``'s.

    Args:
        network: what is scored.
        run: the run.
        pairs: what it is scored on.
        accelerator: of the run.
        all_of_them: whether these are all pairs there are, of which some pixel must count.

    Returns:
        The summary over all processes, and some pairs of this process to show.

    Raises:
        InputError: a pair that cannot be read, or no pixel that counts.
    """
    reach = run.network_config.max_disparity
    protocol = dataclasses.replace(get_protocol("pooled"), below=reach)
    scores: list[ImageScore] = []
    count = TruthCount(reach)
    own = range(accelerator.process_index, len(pairs), accelerator.num_processes)
    places = np.linspace(0, len(own) - 1, min(len(own), SHOWN_PAIRS)).round().astype(int)
    shown = {own[place] for place in places.tolist()}
    examples: list[dict[str, Any]] = []
    errors: list[str] = []
    training = network.training
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        options = MatchOptions(
            device=str(accelerator.device),
            precision=run.trainer.precision,
            scale="1",
            tile="off",
        )
        engine = NetworkEngine(network, run.network_config, options)
        for index in own:
            try:
                sample = pairs[index].read()
                if sample.disparity is None or sample.valid is None:
                    raise InputError(f"{sample.name}: no ground truth to validate on")
                disparity = engine([sample.left], [sample.right])[0].disparity
                if not np.isfinite(disparity).all():
                    raise StereoError(f"{sample.name}: a map that is not finite in validation")
            except StereoError as error:
                errors.append(str(error))
                continue
            truth, valid = sample.disparity, sample.valid
            count.add(torch.from_numpy(truth), torch.from_numpy(valid))
            scores.append(score_all_pixels(sample.name, index, disparity, truth, valid, protocol))
            if index in shown:
                examples.append(
                    {
                        "name": sample.name,
                        "left": sample.left,
                        "disparity": disparity,
                        "truth": sample.disparity,
                        "valid": sample.valid,
                    }
                )
        errors = gather_object(errors)
        if errors and not run.skip_damaged:
            raise InputError(errors[0])
        for message in errors if accelerator.is_main_process else ():
            console.warn(f"warning: left out of validation: {message}")
        summary = summarise(gather_object(scores), protocol.averaging)
    network.train(training)
    if all_of_them and "epe_image" not in summary:
        raise count.error("the validation pairs")
    return summary, examples


def _mixed_precision(run: Run) -> Literal["no", "bf16", "fp16"]:
    """Return what accelerate calls the precision of the run."""
    serves = run.network_config.name in BF16_NETWORKS
    dtype = pick_dtype(run.trainer.precision, pick_device(run.trainer.device), bf16_serves=serves)
    if dtype is torch.float32:
        return "no"
    return "bf16" if dtype is torch.bfloat16 else "fp16"


def _compare_with(path: Path, checkpoint: Checkpoint, run: Run) -> None:
    """Refuse to go on with another network, and say what else is not as it was.

    Raises:
        InputError: another network.
    """
    ours, theirs = run.network_config.to_dict(), checkpoint.config.to_dict()
    apart = _differences(theirs, ours)
    if apart:
        raise InputError(f"{path} is a run of another network ({apart}); name another --output")
    before, now = (f.get("recipe", {}) for f in (checkpoint.training, run.facts))
    apart = _differences(before, json.loads(json.dumps(now)))
    if apart and is_main():
        console.warn(f"warning: the run goes on with other settings: {apart}")


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> str:
    """Return "name: before -> now" for all fields that differ, those of fields included."""
    texts = []
    for key in now:
        one, two = before.get(key), now[key]
        if isinstance(one, dict) and isinstance(two, dict):
            texts.append(_differences(one, two, f"{prefix}{key}."))
        elif one != two:
            texts.append(f"{prefix}{key}: {one} -> {two}")
    return ", ".join(text for text in texts if text)


@contextlib.contextmanager
def _told_plainly() -> Iterator[None]:
    """Turn what ends a run from outside into one line."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(
            "batch norm has one value per channel to average; use a larger --trainer.batch_size or "
            "--augmentation.crop, or --trainer.freeze_batch_norm true"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise StereoError(
                "out of memory; use a smaller --trainer.batch_size or --augmentation.crop, more "
                "--trainer.accumulation, or --trainer.precision bf16; the last checkpoint is whole"
            ) from error
        if "DataLoader worker" in str(error):
            raise StereoError(
                "a loader process died, perhaps for lack of memory; use fewer --trainer.workers; "
                "the last checkpoint is whole"
            ) from error
        lost = ("Connection closed by peer", "Connection reset by peer", "NCCL", "gloo")
        if process_count() > 1 and any(text in str(error) for text in lost):
            raise StereoError(
                "another process of this run was lost; the last checkpoint is whole"
            ) from error
        raise


@contextlib.contextmanager
def _batches_of(loader: DataLoader[Item]) -> Iterator[Iterator[Item]]:
    """Iterate, and end the loader's processes whatever happens: they do not heed SIGTERM."""
    batches = iter(loader)
    try:
        yield batches
    finally:
        if loader.num_workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]
            for worker in batches._workers:  # type: ignore[attr-defined]
                worker.kill()


def _leave_signals_to_the_loop(_worker: int) -> None:
    """Ignore what a terminal or a cluster sends to the whole group: the loop saves, then stops."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _gradients_meet(accelerator: Accelerator, model: nn.Module, last: bool) -> Any:
    """Let processes exchange gradients in the last backward pass of a step only."""
    return contextlib.nullcontext() if last else accelerator.no_sync(model)


def _freeze_batch_norm(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _anyone(accelerator: Accelerator, mine: bool) -> bool:
    """Tell whether any process says so, so that all stop at the same step."""
    flag = torch.tensor(float(mine), device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum") > 0)


def _check_disk(folder: Path, network: nn.Module, keep_last: int) -> None:
    one = 4 * sum(t.numel() * t.element_size() for t in network.state_dict().values())
    free = shutil.disk_usage(folder).free
    count = keep_last + CHECKPOINTS_OF_ROOM
    if free < count * one:
        raise OutputError(
            f"{folder}: {free / 2**20:,.0f} MiB free, the run's checkpoints need "
            f"{count * one / 2**20:,.0f} MiB; free space or name another --output"
        )


def _save_batch(
    folder: Path, micro: Sequence[dict[str, Tensor]], step: int, accelerator: Accelerator
) -> Path:
    path = folder / f"not-finite-step-{step + 1}-process-{accelerator.process_index}.npz"
    arrays: dict[str, np.ndarray] = {}
    for turn, batch in enumerate(micro):
        arrays |= {f"{name}_{turn}": tensor.cpu().numpy() for name, tensor in batch.items()}
    with staged(path) as (temporary,):
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    return path


__all__ = ["Run", "train"]
