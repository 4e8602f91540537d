"""Writing: files appear whole and together, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stereo.errors import OutputError


@contextmanager
def staged(*targets: Path) -> Iterator[list[Path]]:
    """Give a temporary path beside each target; rename them all when the block succeeds.

    On any exception, Ctrl-C included, the temporary files are removed and the targets are left as
    they were. An ``OSError`` inside the block (a full disk, say) becomes an ``OutputError``.

    Args:
        targets: final paths; the temporary ones keep their suffix, since writers go by it.
    """
    temporary = [t.with_name(f".{t.stem}.partial-{os.getpid()}{t.suffix}") for t in targets]
    try:
        yield temporary
        for path in temporary:
            _flush_to_disk(path)
        for path, target in zip(temporary, targets, strict=True):
            path.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write {_name_all(targets)}: {reason}; nothing was written, "
            "free some space or choose another output"
        ) from error
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


def output_folder(folder: Path) -> Path:
    """Create ``folder`` and prove that files can be written there, before any work is done.

    Raises:
        OutputError: the folder cannot be created or written.
    """
    probe = folder / f".write-test-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write to the output folder {folder}: {reason}; choose another --output"
        ) from error
    return folder


def _flush_to_disk(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _name_all(targets: tuple[Path, ...]) -> str:
    return str(targets[0]) if len(targets) == 1 else f"{targets[0]} and {len(targets) - 1} more"
