"""A run's checkpoints in the loop: resume, save, keep the best."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from torch import Tensor

from stereo.data.sets.fingerprints import packed, unpacked
from stereo.errors import InputError, OutputError, StereoError, UsageError
from stereo.models.checkpoint import Checkpoint, load_weights, save_checkpoint
from stereo.system import console
from stereo.system.distributed import is_main
from stereo.system.files import staged
from stereo.training.learner import Learner
from stereo.training.run import TrainingRun
from stereo.training.state import (
    RunState,
    best_of_run,
    best_path,
    blamed_on,
    check_moments,
    find_resume,
    last_path,
    random_state,
    remove_old,
    restore_random_state,
    save_run,
    set_aside_later,
    set_aside_others,
)

SPARE_CHECKPOINTS = 2  # the best one, and the one being written


class Saver:
    """Writes a run's checkpoints, and resumes from them.

    Attributes:
        best_epe: the smallest EPE of validation so far, px; None before the first one.
    """

    def __init__(self, folder: Path, run: TrainingRun, learner: Learner) -> None:
        self.folder = folder
        self.run = run
        self.learner = learner
        self.best_epe: float | None = None

    def resume(self, choice: str) -> bool:
        """Restore the run's latest checkpoint, if any.

        Returns:
            Whether a validation is due: the run was killed before it.

        Raises:
            StereoError: a checkpoint that cannot be used, or that not every process sees.
        """
        found = self._found_alike(choice)
        if found is None:
            return False
        path, checkpoint, state = found
        learner, trainer, facts = self.learner, self.run.trainer, self.run.facts
        _compare_settings(path, checkpoint, self.run)
        before, now = len(state.random), learner.accelerator.num_processes
        if before != now and is_main():
            console.warn(
                f"warning: the run resumes with another number of processes: {before} -> {now}; on "
                "a CPU each normalises its own share of a batch"
            )
        facts |= {name: checkpoint.training.get(name) for name in ("weights", "weights_sha256")}
        facts["trained_on"] = packed(checkpoint.trained_on | unpacked(facts.get("trained_on")))
        load_weights(learner.network, state.network, str(path))
        learner.average.load(checkpoint.weights, state.step)
        accelerator = learner.accelerator
        with blamed_on(path):
            learner.optimizer.load_state_dict(state.optimizer)
            check_moments(learner.optimizer)
            if accelerator.scaler is not None and state.scaler:
                accelerator.scaler.load_state_dict(state.scaler)
            if accelerator.process_index < len(state.random):
                restore_random_state(state.random[accelerator.process_index], learner.device)
        learner.configure_optimizer(self.run.optimizer)  # those loaded are the earlier run's
        step = learner.step = state.step
        if step > trainer.max_steps:
            raise UsageError(
                f"{path} is of step {step}, beyond --trainer.max_steps {trainer.max_steps}; "
                "raise it, or name another --output"
            )
        learner.epe = checkpoint.training.get("validation_epe_px")
        learner.epe_step = checkpoint.training.get("validation_step")
        due = trainer.validates_at(step) and learner.epe_step != step
        if accelerator.is_main_process and path.parent.resolve() != self.folder.resolve():
            set_aside_others(self.folder, path)
        accelerator.wait_for_everyone()
        self.best_epe = best_of_run(
            self.folder, self.run.network_config, facts.get("validation_sha256"), step
        )
        if accelerator.is_main_process:
            set_aside_later(self.folder, step)
        done = step == trainer.max_steps and not due
        console.say(f"resumed from step {step}{', the last: nothing to do' if done else ''}")
        return due

    def _found_alike(self, choice: str) -> tuple[Path, Checkpoint, RunState] | None:
        """Return what ``find_resume`` finds, the same in all processes; else all of them stop."""
        found, failure = None, None
        try:
            found = find_resume(self.folder, choice)
        except StereoError as error:
            failure = error
        own = "an error" if failure else "none" if found is None else f"step {found[2].step}"
        all_found = dict.fromkeys(gather_object([own]))
        if failure is not None:
            raise failure
        if len(all_found) > 1:
            told = " and ".join(all_found)
            raise UsageError(
                f"{self.folder}: the processes see different checkpoints ({told}); --output must "
                "be a folder that all machines share"
            )
        return found

    def save(self) -> None:
        """Write ``last-STEP.safetensors``; every process must call it."""
        learner = self.learner
        accelerator = learner.accelerator
        generators = gather_object([random_state(learner.device)])
        if not accelerator.is_main_process:
            return
        scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
        raw = {name: tensor.detach() for name, tensor in learner.network.state_dict().items()}
        state = RunState(learner.step, raw, learner.optimizer.state_dict(), scaler, generators)
        save_run(last_path(self.folder, learner.step), self._inference_checkpoint(), state)
        remove_old(self.folder, learner.step, self.run.trainer.keep_last)

    def keep_best(self) -> None:
        """Write ``best.safetensors`` if the latest validation is the best so far."""
        epe = self.learner.epe
        assert epe is not None
        if self.best_epe is None or epe < self.best_epe:
            self.best_epe = epe
            if self.learner.accelerator.is_main_process:
                save_checkpoint(best_path(self.folder), self._inference_checkpoint())

    def _inference_checkpoint(self) -> Checkpoint:
        learner = self.learner
        facts = {
            "step": learner.step,
            "validation_epe_px": learner.epe,
            "validation_step": learner.epe_step,
            "precision": learner.precision,
        }
        return Checkpoint(
            self.run.network_config, learner.average.weights(), self.run.facts | facts
        )

    def save_batch(self, batches: Sequence[dict[str, Tensor]]) -> Path:
        """Write the batches of the next step to an archive of NumPy's, and return its path."""
        name = f"not-finite-step-{self.learner.step + 1}"
        path = self.folder / f"{name}-process-{self.learner.accelerator.process_index}.npz"
        arrays: dict[str, np.ndarray] = {}
        for turn, batch in enumerate(batches):
            arrays |= {f"{name}_{turn}": tensor.cpu().numpy() for name, tensor in batch.items()}
        with staged(path) as (temporary,):
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        return path

    def check_disk(self) -> None:
        """Raise ``OutputError`` if the disk has no room for the run's checkpoints."""
        if not self.learner.accelerator.is_main_process:
            return
        tensors = self.learner.network.state_dict().values()
        one = 4 * sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        needed = (self.run.trainer.keep_last + SPARE_CHECKPOINTS) * one
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OutputError(
                f"{self.folder}: {free / 2**20:,.0f} MiB free, the run's checkpoints need "
                f"{needed / 2**20:,.0f} MiB; free space or name another --output"
            )


def _compare_settings(path: Path, checkpoint: Checkpoint, run: TrainingRun) -> None:
    """Refuse to resume with another network, and warn of other settings."""
    ours, theirs = run.network_config.to_dict(), checkpoint.config.to_dict()
    apart = _differences(theirs, ours)
    if apart:
        raise InputError(f"{path} is a run of another network ({apart}); name another --output")
    before, now = (f.get("recipe", {}) for f in (checkpoint.training, run.facts))
    apart = _differences(before, json.loads(json.dumps(now)))
    if apart and is_main():
        console.warn(f"warning: the run resumes with changed settings: {apart}")
    pairs = {facts.get("training_sha256") for facts in (checkpoint.training, run.facts)} - {None}
    if len(pairs) > 1 and is_main():
        console.warn("warning: the run resumes with a different set of training pairs")
    given = run.facts.get("weights_sha256")
    if given not in (None, checkpoint.training.get("weights_sha256")) and is_main():
        console.warn(
            f"warning: --weights {run.facts['weights']} is not used: the run goes on from {path}; "
            "to start from it, name another --output"
        )


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> str:
    """Return "name: before -> now" for all fields that differ, nested ones included."""
    texts = []
    for key in now:
        one, two = before.get(key), now[key]
        if isinstance(one, dict) and isinstance(two, dict):
            texts.append(_differences(one, two, f"{prefix}{key}."))
        elif one != two:
            texts.append(f"{prefix}{key}: {one} -> {two}")
    return ", ".join(text for text in texts if text)
