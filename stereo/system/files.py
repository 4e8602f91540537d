"""Atomic writing: files appear complete and together; one run per folder."""

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import ParamSpec, TypeVar

from stereo.errors import FolderInUseError, InputError, OutputError
from stereo.system.distributed import gather, is_main
from stereo.system.locks import locked

P = ParamSpec("P")
T = TypeVar("T")
_TEMPORARY = re.compile(r"\.stereo-([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}(?:\..*)?")


@contextlib.contextmanager
def staged(*targets: Path) -> Iterator[list[Path]]:
    """Yield a temporary path beside each target; rename all when the block succeeds.

    On any exception, Ctrl-C included, the temporary files are removed and the targets are left as
    they were. An ``OSError`` inside the block (a full disk, say) becomes an ``OutputError``.
    A kill between two renames leaves each file whole, but some of them new and others old or
    missing; its temporary files go when ``output_folder`` next sees the folder.

    Args:
        targets: final paths; the temporary ones keep their suffix, since writers go by it.
    """
    temporary = [_hidden_sibling(target) for target in targets]
    try:
        yield temporary
        for path, target in zip(temporary, targets, strict=True):
            if target.exists() and not target.is_file():
                raise OSError(errno.EEXIST, "not a regular file", str(target))
            _flush_to_disk(path)
            with contextlib.suppress(OSError):  # file systems without permissions
                path.chmod(_new_mode(path))  # some writers make theirs private
        _replace_all(temporary, targets)
    except BrokenPipeError:  # of what was printed meanwhile
        raise
    except OSError as error:
        culprit = next((str(t) for t in targets if str(t) == error.filename), _name_all(targets))
        raise OutputError(
            f"cannot write {culprit}: {why_not_written(error, *targets)}; nothing was written"
        ) from error
    finally:
        for path in temporary:
            _remove(path)


_made: list[Path] = []  # folders that output_folder created, outer ones first
_locks: ContextVar[contextlib.ExitStack] = ContextVar("_locks")


def writes_alone(function: Callable[P, T]) -> Callable[P, T]:
    """Release the locks of ``output_folder`` when the decorated function ends."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with contextlib.ExitStack() as stack:
            token = _locks.set(stack)
            try:
                return function(*args, **kwargs)
            finally:
                _locks.reset(token)

    return call


def output_folder(folder: Path, *, alone: bool = False) -> Path:
    """Create ``folder`` and prove that files can be written there, before any work is done.

    Temporary files that killed processes of this machine left in it are deleted.

    Args:
        folder: the folder.
        alone: lock it until the end of the enclosing function that ``writes_alone`` decorates.
            Of several processes the main one locks; all of them have to call this.

    Raises:
        FolderInUseError: another run has locked it.
        OutputError: the folder cannot be created or written.
    """
    probe = folder / f".write-test-{os.getpid()}"
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        _made.extend(reversed(missing))
        probe.write_bytes(b"")
        probe.unlink()
        if alone:
            _lock(folder)
        if is_main():
            remove_leftovers(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write to the output folder {folder}: {reason}; choose another --output"
        ) from error
    return folder


def refuse_overwriting(inputs: Iterable[Path], targets: Iterable[Path]) -> None:
    """Raise ``InputError`` if an output would replace an input."""
    kept = {path.resolve() for path in inputs}
    for target in targets:
        if target.resolve() in kept:
            raise InputError(
                f"{target}: is an input and would be overwritten; choose another --output"
            )


def _lock(folder: Path) -> None:
    refusal = None
    if is_main():
        try:
            _locks.get().enter_context(locked(folder))
        except FolderInUseError as error:
            refusal = str(error)
    for said in gather([refusal]):
        if said is not None:
            raise FolderInUseError(said)


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of ``staged`` whose process on this machine has ended."""
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        found = _TEMPORARY.fullmatch(name)
        if found and found[1] == _machine() and _started(int(found[2])) != found[3]:
            _remove(folder / name)


def remove_empty_folders() -> None:
    """Remove folders that ``output_folder`` created and that are still empty."""
    while _made:
        with contextlib.suppress(OSError):
            _made.pop().rmdir()


def _replace_all(temporary: list[Path], targets: tuple[Path, ...]) -> None:
    """Rename all, or restore all: a single rename is atomic, several need a way back."""
    if len(targets) == 1:
        temporary[0].replace(targets[0])
        return
    backups: list[tuple[Path, Path | None]] = []
    try:
        for path, target in zip(temporary, targets, strict=True):
            backup = _hidden_sibling(target) if target.exists() else None
            backups.append((target, backup))
            if backup is not None:
                _keep(target, backup)
            path.replace(target)
    except BaseException:
        for target, backup in backups:
            if backup is None:
                _remove(target)
            elif backup.exists():
                backup.replace(target)
        raise
    finally:
        for _, backup in backups:
            if backup is not None:
                _remove(backup)


def _keep(target: Path, backup: Path) -> None:
    try:
        backup.hardlink_to(target)
    except OSError:  # a file system without hard links
        try:
            shutil.copyfile(target, backup)
        except BaseException:  # a part of a copy is no way back
            _remove(backup)
            raise


def _hidden_sibling(target: Path) -> Path:
    own = os.getpid()
    name = f".stereo-{_machine()}-{own}-{_started(own) or 0}-{uuid.uuid4().hex[:8]}"
    return target.with_name(name + target.suffix[:16])


@functools.cache
def _machine() -> str:
    """Return an identifier of this machine or container: the scope of process numbers."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]


def _started(process: int) -> str | None:
    """Return a process's start time in system units; None if it has ended."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        fields = text.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    import psutil

    try:
        return str(int(psutil.Process(process).create_time()))
    except psutil.Error:
        return None


def _new_mode(path: Path) -> int:
    """Return the permissions of a new file beside ``path``; to read the umask is to set it."""
    probe = _hidden_sibling(path)
    try:
        probe.touch()
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        _remove(probe)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _flush_to_disk(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def why_not_written(error: OSError, *targets: Path) -> str:
    """Return why files could not be written, and the remedy."""
    for folder in (target.parent for target in targets):
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "does not exist"
            return f"the folder {folder} {what}; make it or choose another output"
    reason = error.strerror or str(error)
    # Writers that check the size themselves give no number.
    if error.errno in (None, errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return f"{reason}; free some space or choose another output"
    return f"{reason}; choose another output"


def _name_all(targets: tuple[Path, ...]) -> str:
    return str(targets[0]) if len(targets) == 1 else f"{targets[0]} and {len(targets) - 1} more"
