"""What glibc's allocator does with freed memory."""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of malloc.h
_DEFAULT_MMAP_MAX = 65_536  # of malloc.c
_LARGE = 32 * 2**20  # malloc.c's largest threshold
_MALLOC_SETTINGS = re.compile("MALLOC_.*_|GLIBC_TUNABLES")  # of the user's environment
_kept = {"memory": "none"}  # or "small", "all"


def keep_freed_memory(*, large: bool = True) -> None:
    """Make glibc's allocator keep freed memory; with another allocator do nothing.

    Otherwise every large tensor is freshly mapped and zero-filled by the OS, although training and
    matching reuse the same sizes. malloc settings in the environment take precedence.

    Args:
        large: also keep blocks above 32 MiB, which fragment the heap.
    """
    if any(map(_MALLOC_SETTINGS.fullmatch, os.environ)):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_MAX, 0 if large else _DEFAULT_MMAP_MAX)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, -1)
        _kept["memory"] = "all" if large else "small"


@contextlib.contextmanager
def large_blocks_kept(*, enabled: bool) -> Iterator[None]:
    """Also keep large freed blocks within the context.

    It has no effect unless ``keep_freed_memory`` keeps the others. Memory that the program
    allocates outside still goes back to the system.
    """
    if not (enabled and _kept["memory"] == "small"):
        yield
        return
    keep_freed_memory(large=True)
    try:
        yield
    finally:
        keep_freed_memory(large=False)


def trim_heap() -> None:
    """Return kept memory to the system once; memory freed later is kept again."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def stop_keeping_freed_memory() -> None:
    """Undo ``keep_freed_memory``: set the thresholds to malloc's own maximum.

    Where nothing is kept it does nothing: malloc settings in the environment stay.
    """
    if _kept["memory"] == "none":
        return
    _kept["memory"] = "none"
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)
    trim_heap()
