"""Result folders under unguessable names, removed when their page closes."""

import secrets
import shutil
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

KEPT = 24  # results on disk at one time, of all visitors together
IDLE = 3600.0  # seconds after which a result goes even if the visitor's page stays open


@dataclass
class _Entry:
    session: str  # of one page: its visitor, `_` and a signature
    folder: Path
    made: float = field(default_factory=time.monotonic)


class Store:
    """The results of all pages: one each, the newest."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def new(self, session: str) -> tuple[str, Path]:
        """Remove the session's results, and return the token and the empty folder of a new one."""
        with self._lock:
            for token in [t for t, entry in self._entries.items() if entry.session == session]:
                self._drop(token)
            while len(self._entries) >= KEPT:
                self._drop(next(iter(self._entries)))
            token = secrets.token_urlsafe(24)
            folder = self._root / token
            folder.mkdir(parents=True)
            self._entries[token] = _Entry(session, folder)
        return token, folder

    def leave(self, session: str) -> None:
        """Remove the results of a page that was closed."""
        with self._lock:
            for token in [t for t, entry in self._entries.items() if entry.session == session]:
                self._drop(token)

    def expire(self) -> None:
        """Remove the results that are too old."""
        with self._lock:
            for token, entry in list(self._entries.items()):
                if time.monotonic() - entry.made > IDLE:
                    self._drop(token)

    def discard(self, token: str) -> None:
        """Remove one result."""
        with self._lock:
            if token in self._entries:
                self._drop(token)

    def is_of(self, token: str, visitor: str) -> bool:
        """Return whether a result is there and this visitor's."""
        with self._lock:
            entry = self._entries.get(token)
        return entry is not None and entry.session.startswith(f"{visitor}_")

    def find(self, token: str, name: str) -> Path | None:
        """Return a file of a result, or None if the token or name is unknown."""
        with self._lock:
            entry = self._entries.get(token)
        if entry is None:
            return None
        # The name is looked up among the files, never joined to a path.
        try:
            return next((path for path in entry.folder.iterdir() if path.name == name), None)
        except OSError:
            return None

    def _drop(self, token: str) -> None:
        shutil.rmtree(self._entries.pop(token).folder, ignore_errors=True)
