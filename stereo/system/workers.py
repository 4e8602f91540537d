"""Work in processes of their own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from stereo.errors import StereoError
from stereo.system.console import show_warnings_as_lines

T = TypeVar("T")
R = TypeVar("R")


def map_in_processes(
    job: Callable[[T], R], items: Sequence[T], workers: int, *, threads: int | None = None
) -> Generator[R, None, None]:
    """Call ``job`` with each item, in at most ``workers`` processes; yield the results in order.

    Args:
        job: can be pickled, as its items and results.
        items: at least one.
        workers: as many processes at most.
        threads: those of PyTorch in each process; None for its default.

    Raises:
        StereoError: a process died.
    """
    workers = min(workers, len(items))
    pool = ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),  # a fork would copy torch's locked threads
        initializer=begin_worker,
        initargs=(threads,),
    )
    try:
        yield from pool.map(job, items, chunksize=max(1, min(16, len(items) // (4 * workers))))
    except BrokenProcessPool as error:
        raise StereoError(
            "a worker process died, perhaps for lack of memory; use fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def begin_worker(threads: int | None = None) -> None:
    """Print warnings as lines, leave Ctrl-C to the parent, and end when the parent is killed."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    show_warnings_as_lines()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
