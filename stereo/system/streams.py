"""Overlap reading, matching and writing over many pairs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from stereo.errors import StereoError
from stereo.system.stop import check_stop

Item = TypeVar("Item")
Read = TypeVar("Read")
Matched = TypeVar("Matched")
AHEAD = 2  # pairs that wait to be matched, and to be written


@dataclass
class Outcome(Generic[Item, Read, Matched]):
    """Result of one item."""

    item: Item  # what was to be done
    read: Read | None = None  # what the first step gave
    matched: Matched | None = None  # what the second step gave
    written: Any = None  # what the third step gave
    error: StereoError | None = None  # why the item got no further


def overlap(
    items: Iterable[Item],  # in order
    read: Callable[[Item], Read],  # first step
    match: Callable[[Item, Read], Matched],  # second step
    write: Callable[[Item, Read, Matched], Any],  # third step
) -> Iterator[Outcome[Item, Read, Matched]]:
    """Run items through three steps, the first and the last in threads of their own.

    While one item is matched, on the caller's thread, the next ones are read and those before it
    written. A ``StereoError`` in a step ends only its item.

    Yields:
        An outcome per item, in order, once the item is through.
    """
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        pending: deque[tuple[Outcome[Item, Read, Matched], Future[Any] | None]] = deque()
        coming: deque[tuple[Item, Future[Read]]] = deque()
        source = iter(items)
        try:
            while True:
                check_stop()
                while len(coming) <= AHEAD and (item := next(source, _END)) is not _END:
                    coming.append((item, reader.submit(read, item)))
                if not coming:
                    break
                item, reading = coming.popleft()
                outcome: Outcome[Item, Read, Matched] = Outcome(item)
                writing = None
                try:
                    outcome.read = reading.result()
                    outcome.matched = match(item, outcome.read)
                    writing = writer.submit(write, item, outcome.read, outcome.matched)
                except StereoError as error:
                    outcome.error = error
                pending.append((outcome, writing))
                while pending and (len(pending) > AHEAD or _is_through(pending[0][1])):
                    yield _finished(*pending.popleft())
            while pending:
                yield _finished(*pending.popleft())
        finally:
            reader.shutdown(cancel_futures=True)


_END: Any = object()


def _is_through(writing: Future[Any] | None) -> bool:
    return writing is None or writing.done()


def _finished(
    outcome: Outcome[Item, Read, Matched], writing: Future[Any] | None
) -> Outcome[Item, Read, Matched]:
    if writing is not None:
        try:
            outcome.written = writing.result()
        except StereoError as error:
            outcome.error = error
    return outcome
