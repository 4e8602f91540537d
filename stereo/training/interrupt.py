"""External causes that end a run: signals, memory, other processes."""

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from stereo.errors import StereoError, UsageError
from stereo.system.distributed import process_count
from stereo.system.runtime import is_out_of_memory
from stereo.system.stop import check_stop, end_by

AGAIN = 1.0  # seconds; torchrun and a queue may both pass on one signal


class StopRequest:
    """Remembers Ctrl-C and SIGTERM, so that a run saves before it stops.

    Attributes:
        signal: the number of the one that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        check_stop()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > AGAIN:
            end_by(number)  # asked twice: do not wait for the step to end


@contextlib.contextmanager
def explain_errors() -> Iterator[None]:
    """Turn errors with external causes into one line each."""
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
                "another process of this run was lost; the last checkpoint is whole, and the same "
                "command, on all machines, goes on from it"
            ) from error
        raise
