"""One run per output folder, by a lock that the system releases when its process ends."""

import contextlib
import errno
import os
import platform
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from stereo.errors import FolderInUseError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".stereo.lock"
_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_held: set[Path] = set()
_changing = threading.Lock()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other runs, those of this process included.

    Where the file system knows no locks, that is a warning.

    Raises:
        FolderInUseError: another run is writing there.
        OSError: the lock file cannot be written.
    """
    key = folder.resolve()
    with _changing:
        if key in _held:
            raise _in_use(folder, str(os.getpid()))
        _held.add(key)
    try:
        file = _acquire(folder)
        try:
            yield
        finally:
            if file is not None:
                _release(folder / LOCK, file)
    finally:
        _held.discard(key)


def _acquire(folder: Path) -> BinaryIO | None:
    path = folder / LOCK
    while True:
        file = path.open("a+b")
        try:
            _lock(file)
            current = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except FileNotFoundError:
            current = False
        except OSError as error:
            holder = _holder(file)
            file.close()
            if error.errno in _BUSY:
                raise _in_use(folder, holder) from None
            with contextlib.suppress(OSError):
                path.unlink()
            warnings.warn(
                f"{folder}: its file system has no locks ({error.strerror}); see to it that no "
                "other run writes there",
                stacklevel=2,
            )
            return None
        if current:
            break
        file.close()  # removed by the run before
    file.truncate(0)
    file.write(f"{os.getpid()} {platform.node()}".encode())
    file.flush()
    return file


def _lock(file: BinaryIO) -> None:
    """Lock a byte far beyond the text, since Windows bars others from reading locked bytes."""
    if sys.platform == "win32":
        file.seek(2**20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        # Not flock: forked processes, such as a loader's, would share it and keep it alive.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 2**20)


def _release(path: Path, file: BinaryIO) -> None:
    if sys.platform == "win32":
        file.close()  # what is open cannot be removed, not even here
    with contextlib.suppress(OSError):
        path.unlink()
    file.close()  # last: once it is free, the file may be another's


def _holder(file: BinaryIO) -> str:
    with contextlib.suppress(OSError):
        file.seek(0)
        number, _, host = file.read(300).decode(errors="replace").partition(" ")
        if number.isdecimal():
            return number if host == platform.node() else f"{number} on {host}"
    return "unknown"


def _in_use(folder: Path, holder: str) -> FolderInUseError:
    return FolderInUseError(
        f"another run (process {holder}) is writing to {folder}; wait for it, or choose another "
        "--output"
    )
