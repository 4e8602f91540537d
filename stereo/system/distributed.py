"""Several processes, started by torchrun, that share the pairs of one command."""

import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

from stereo.errors import StereoError

T = TypeVar("T")
MAIN_SPEAKS_WITHIN = 30.0  # seconds


def process_count() -> int:
    """Return how many processes there are; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE") or "1")


def process_index() -> int:
    """Return this process's rank, from 0."""
    return int(os.environ.get("RANK") or "0")


def is_main() -> bool:
    """Return whether this is the main process, which prints and writes for all."""
    return process_index() == 0


def own_share(items: Sequence[T]) -> list[tuple[int, T]]:
    """Return this process's items, each with its place in the whole."""
    return list(enumerate(items))[process_index() :: process_count()]


def gather(values: list[T]) -> list[T]:
    """Return the values of all processes; a collective that every process must call."""
    if process_count() == 1:
        return values
    from accelerate import PartialState
    from accelerate.utils import gather_object

    # Objects travel over the CPU, and processes may be hours apart; in training accelerate has
    # joined them before, in its own way.
    state = PartialState(cpu=True, timeout=timedelta(days=30))
    check_joined(state.num_processes)
    return gather_object(values)


def let_main_speak() -> None:
    """Return at once on the main process; elsewhere only if the main process is alive.

    For an error that all processes meet alike: the main one reports it, and torchrun ends the
    others. It ends the main one too if another leaves first, so they wait. One that is still
    alive after ``MAIN_SPEAKS_WITHIN`` seconds met the error alone.
    """
    if not is_main():
        time.sleep(MAIN_SPEAKS_WITHIN)


def wait_for_all() -> None:
    """Wait for all processes; torchrun ends all of them if one fails."""
    gather([0])


def leave() -> None:
    """Close the process group at the end: its threads must not outlive Python."""
    if process_count() > 1:
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()


def check_joined(count: int) -> None:
    """Raise ``StereoError`` unless ``count`` processes joined; else each would do all the work."""
    if count != process_count():
        raise StereoError(
            f"only {count} of {process_count()} processes joined; check that torch.distributed is "
            "available and that every process has a CUDA device"
        )
