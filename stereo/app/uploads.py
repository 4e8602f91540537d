"""Visitors' files: bounded, private to their sender, removed after an hour."""

import contextlib
import re
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from stereo.app import limits
from stereo.errors import InputError


class Uploads:
    """The files that visitors may name: their own uploads and the bundled ones.

    Args:
        root: the folder; what lies there already is for all, each visitor gets a folder in it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._shared = set(_files(root))
        self._tidying = threading.Lock()  # of the files, for long: never taken by the event loop
        self._lock = threading.Lock()  # of the two counts
        self._kept: Counter[str] = Counter()  # bytes, by visitor
        self._arriving = 0
        self.expire()

    def find(self, visitor: str, name: Any) -> Path | None:
        """Return the file at this path if this visitor may name it.

        The path is compared with those of the files that there are, and never opened.
        """
        own = _files(self._root / visitor) if visitor else []
        return next((path for path in (*own, *self._shared) if str(path) == name), None)

    @contextlib.contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves quota for arriving bytes of one upload.

        Raises:
            InputError: by that function: the upload, or all files together, would be too large.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            with self._lock:
                taken += size
                self._arriving += size
                if taken > limits.MAX_BYTES + limits.FORM_BYTES:
                    raise InputError(f"this page takes files of {limits.MAX_BYTES >> 20} MiB")
                if self._kept.total() + self._arriving > limits.ALL_UPLOADS:
                    raise InputError("this page's storage for uploads is full; try again later")

        try:
            yield take
        finally:
            with self._lock:
                self._arriving -= taken

    def keep(self, visitor: str, name: str, content: BinaryIO) -> Path:
        """Keep a file, deleting the visitor's oldest ones if they exceed the quota."""
        folder = self._root / visitor / secrets.token_hex(8)
        with self._tidying:
            folder.mkdir(parents=True)
        path = folder / (re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[-100:].lstrip(".") or "file")
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(content, file)
        except OSError:
            _remove(path)
            raise
        with self._tidying:
            own = sorted(_files(self._root / visitor), key=_age)
            kept = sum(map(_charge, own))
            while kept > limits.VISITOR_UPLOADS:
                oldest = own.pop()
                kept -= _charge(oldest)
                _remove(oldest)
            with self._lock:
                self._kept[visitor] = kept
        return path

    def expire(self) -> None:
        """Remove what visitors sent more than an hour ago."""
        kept: Counter[str] = Counter()
        with self._tidying:
            for path in _files(self._root):
                if path not in self._shared and _age(path) > limits.UPLOADS_KEPT:
                    _remove(path)
                else:
                    kept[path.relative_to(self._root).parts[0]] += _charge(path)
            for visitor in self._kept.keys() - kept.keys():
                with contextlib.suppress(OSError):
                    (self._root / visitor).rmdir()
            with self._lock:
                self._kept = kept


def _files(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [path for path in folder.rglob("*") if path.is_file()]
    return []


def _charge(path: Path) -> int:
    """Return a file's size for the quota; a minimum bounds the number of small files."""
    with contextlib.suppress(OSError):
        return max(path.stat().st_size, limits.MIN_CHARGE)
    return 0


def _age(path: Path) -> float:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime
    return 0.0


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
        path.parent.rmdir()
