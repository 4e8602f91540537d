"""Writing: files appear whole and together, or not at all."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from stereo.errors import OutputError


@contextlib.contextmanager
def staged(*targets: Path) -> Iterator[list[Path]]:
    """Give a temporary path beside each target; rename them all when the block succeeds.

    On any exception, Ctrl-C included, the temporary files are removed and the targets are left as
    they were. An ``OSError`` inside the block (a full disk, say) becomes an ``OutputError``.

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
            path.chmod(0o666 & ~_umask())  # as any new file: some writers make theirs private
        _replace_all(temporary, targets)
    except OSError as error:
        reason = error.strerror or str(error)
        culprit = next((str(t) for t in targets if str(t) == error.filename), _name_all(targets))
        raise OutputError(
            f"cannot write {culprit}: {reason}; nothing was written, "
            "free some space or choose another output"
        ) from error
    finally:
        for path in temporary:
            _remove(path)


_made: list[Path] = []  # folders that output_folder created, outer ones first


def output_folder(folder: Path) -> Path:
    """Create ``folder`` and prove that files can be written there, before any work is done.

    Raises:
        OutputError: the folder cannot be created or written.
    """
    probe = folder / f".write-test-{os.getpid()}"
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        _made.extend(reversed(missing))
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write to the output folder {folder}: {reason}; choose another --output"
        ) from error
    return folder


def remove_empty_folders() -> None:
    """Remove the folders that ``output_folder`` has created, where nothing came into them."""
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
        shutil.copy2(target, backup)


def _hidden_sibling(target: Path) -> Path:
    return target.with_name(f".{uuid.uuid4().hex[:12]}{target.suffix[:16]}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _flush_to_disk(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _name_all(targets: tuple[Path, ...]) -> str:
    return str(targets[0]) if len(targets) == 1 else f"{targets[0]} and {len(targets) - 1} more"
