"""Checkpoints of a run: the complete state for exact resume, in one file.

A run's ``last-STEP.safetensors`` is a checkpoint like any other (the weights that would ship, under
their plain names) with the state of training beside them under names that start with ``state.``.
One file is renamed into place, so a kill at any moment leaves the previous one whole.
"""

import contextlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from stereo.errors import InputError, StereoError, UsageError
from stereo.models import NetworkConfig
from stereo.models.checkpoint import (
    BEST,
    LAST,
    STATE_PREFIX,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from stereo.system.console import warn
from stereo.system.distributed import is_main
from stereo.system.parsing import parse_json


@dataclass(frozen=True, eq=False)
class RunState:
    """The state needed to resume a run."""

    step: int  # optimiser steps done
    network: dict[str, Tensor]  # the raw (not averaged) network's parameters and buffers
    optimizer: dict[str, Any]  # the optimiser's `state_dict`
    scaler: dict[str, Any]  # the fp16 gradient scaler's `state_dict`, or an empty dict
    random: list[dict[str, Any]]  # one entry per process, what `random_state` returned there


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of this process's generators as plain data."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "torch": torch.get_rng_state().tolist(),
        "python": [version, list(numbers), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device).tolist()
    return state


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Undo ``random_state``."""
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    legacy = (kind, np.array(keys, np.uint32), position, has_gauss, cached)
    np.random.set_state(legacy)  # noqa: NPY002
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8), device)


def save_run(path: Path, shipped: Checkpoint, state: RunState) -> None:
    """Write a checkpoint with the state of training."""
    tensors = {f"network.{name}": tensor for name, tensor in state.network.items()}
    for index, entry in state.optimizer["state"].items():
        for name, value in entry.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    facts = {
        "step": state.step,
        "param_groups": state.optimizer["param_groups"],
        "scaler": state.scaler,
        "random": state.random,
    }
    save_checkpoint(path, shipped, state=tensors, state_facts=facts)


def load_run(path: Path) -> tuple[Checkpoint, RunState]:
    """Read what ``save_run`` wrote.

    Raises:
        InputError: the file is damaged, or holds weights only.
    """
    checkpoint = load_checkpoint(path)
    with safe_open(path, framework="pt") as file:
        facts = parse_json((file.metadata() or {}).get("state", "null"), f"{path}: its state")
        if facts is None:
            raise InputError(f"{path}: holds weights only; start from them with --weights")
        _check_facts(facts, path)
        tensors = {
            name.removeprefix(STATE_PREFIX): file.get_tensor(name).clone()  # the file may go
            for name in file.keys()  # noqa: SIM118
            if name.startswith(STATE_PREFIX)
        }
    network: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "network":
            network[rest] = tensor
        else:
            index, _, key = rest.partition(".")
            if not (index.isdecimal() and len(index) < 10):
                raise InputError(f"{path}: '{name}' is no part of a run's state")
            moments.setdefault(int(index), {})[key] = tensor
    optimizer = {"state": moments, "param_groups": facts["param_groups"]}
    state = RunState(facts["step"], network, optimizer, facts["scaler"], facts["random"])
    return checkpoint, state


def _check_facts(facts: Any, path: Path) -> None:
    kinds = {"step": int, "param_groups": list, "scaler": dict, "random": list}
    for key, kind in kinds.items():
        value = facts.get(key) if isinstance(facts, dict) else None
        if not isinstance(value, kind) or (isinstance(value, int) and not 0 <= value < 2**53):
            raise InputError(f"{path}: the '{key}' of its state of training cannot be used")
    for entry in (*facts["param_groups"], *facts["random"]):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: its state of training cannot be used")


@contextlib.contextmanager
def blamed_on(path: Path) -> Iterator[None]:
    """Turn errors from restoring an untrusted state into an ``InputError``."""
    try:
        yield
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as e:
        told = str(e).partition("\n")[0]
        raise InputError(f"{path}: its state of training cannot be used ({told})") from e


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raise ``ValueError`` unless the moments of each weight have its shape."""
    for weight, moments in optimizer.state.items():
        for name, tensor in moments.items():
            if name != "step" and tensor.shape != weight.shape:
                raise ValueError(f"'{name}' of {tuple(tensor.shape)}, not {tuple(weight.shape)}")


def best_path(folder: Path) -> Path:
    """Return the file of the weights with the smallest validation EPE."""
    return folder / f"{BEST}.safetensors"


def best_of_run(
    folder: Path, config: NetworkConfig, validation: str | None, step: int
) -> float | None:
    """Return the validation EPE of a resumed run's best weights, px, or None.

    The file itself says so, not the run's state: a kill between the two would leave the state
    behind, and worse weights would replace the best. Best weights that this run cannot be compared
    with are set aside.

    Args:
        folder: the run's folder.
        config: the run's network.
        validation: the hash of its validation pairs.
        step: the step it goes on from.
    """
    path = best_path(folder)
    if not path.is_file():
        return None
    try:
        best = load_checkpoint(path)
    except StereoError as error:
        warn(f"warning: {error}; the next validation replaces it")
        return None
    facts = best.training
    if best.config != config:
        other = "is of another network"
    elif facts.get("validation_sha256") != validation:
        other = "was chosen on other validation pairs"
    elif not isinstance(facts.get("step"), int) or facts["step"] > step:
        other = f"is beyond step {step}"
    else:
        epe = facts.get("validation_epe_px")
        return float(epe) if isinstance(epe, int | float) and math.isfinite(epe) else None
    if is_main():
        _set_aside(path, other)
    return None


def checkpoints_of(folder: Path) -> list[Path]:
    """Return a run's ``last-STEP`` files, the latest first."""
    return sorted(folder.glob(f"{LAST}-*.safetensors"), reverse=True)


def last_path(folder: Path, step: int) -> Path:
    """Return the file of a step; names sort by step."""
    return folder / f"{LAST}-{step:08d}.safetensors"


def find_resume(folder: Path, resume: str) -> tuple[Path, Checkpoint, RunState] | None:
    """Choose the checkpoint to resume from.

    Args:
        folder: the run's folder.
        resume: ``auto``: the latest whole checkpoint, if any; ``never``; or a path.

    Raises:
        UsageError: ``never`` in a folder that holds checkpoints.
        InputError: the named checkpoint, or every one of the folder, cannot be read.
    """
    existing = checkpoints_of(folder)
    if resume == "never":
        if existing:
            raise UsageError(
                f"{folder} holds checkpoints of an earlier run ({existing[0].name}); name another "
                "--output, or go on with --resume auto"
            )
        _refuse_lone_best(folder)
        return None
    if resume != "auto" and not Path(resume).is_file():
        raise InputError(f"{resume}: no such file; --resume takes auto, never or a checkpoint")
    candidates: Sequence[Path] = existing if resume == "auto" else [Path(resume)]
    for path in candidates:
        try:
            checkpoint, state = load_run(path)
            for name, tensor in (checkpoint.weights | state.network).items():
                if not tensor.isfinite().all():
                    raise InputError(f"{path}: '{name}' holds values that are not finite")
            return path, checkpoint, state
        except StereoError as error:
            if resume != "auto":
                raise
            warn(f"warning: {error}; trying the checkpoint before it")
    if candidates:
        raise InputError(f"{folder}: none of its {len(candidates)} checkpoints can be read")
    _refuse_lone_best(folder)
    return None


def _refuse_lone_best(folder: Path) -> None:
    """Raise ``UsageError`` if trained weights would be replaced by those of another run."""
    try:
        step = load_checkpoint(best_path(folder)).training.get("step", 0)
    except StereoError:
        return
    if step != 0:  # step 0: what a run was given, and it was killed before its first checkpoint
        raise UsageError(
            f"{folder} holds the best weights of an earlier run, but none of its checkpoints; name "
            "another --output"
        )


def remove_old(folder: Path, step: int, keep: int) -> None:
    """Remove old checkpoints up to ``step``, the one just written."""
    done = [path for path in checkpoints_of(folder) if path <= last_path(folder, step)]
    for path in done[keep:]:
        path.unlink(missing_ok=True)


def set_aside_later(folder: Path, step: int) -> None:
    """Rename a run's checkpoints beyond ``step``: they are damaged, or of an abandoned run."""
    for path in checkpoints_of(folder):
        if path > last_path(folder, step):
            _set_aside(path, f"is beyond step {step}")


def set_aside_others(folder: Path, resumed: Path) -> None:
    """Rename the checkpoints of another run than the one of ``resumed``."""
    for path in (best_path(folder), *checkpoints_of(folder)):
        if path.is_file():
            _set_aside(path, f"is of another run than {resumed}")


def _set_aside(path: Path, reason: str) -> None:
    aside = path.with_name(f"aside-{path.name}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"aside-{number}-{path.name}")
    path.replace(aside)
    warn(f"warning: {path} {reason}; renamed to {aside.name}")
