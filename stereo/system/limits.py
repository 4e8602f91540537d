"""How large a file may be, checked from its size or header before anything is decoded.

A file of a few kilobytes can unpack to gigabytes. Every reader asks here first, so that such a file
is refused in one line, whichever command reads it.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from stereo.errors import InputError, UsageError

MAX_MEGAPIXELS_VARIABLE = "STEREO_MAX_MEGAPIXELS"
"""Set by ``--max-megapixels``; an environment variable, so that processes started later have it."""
DEFAULT_MAX_MEGAPIXELS = 128.0
MAX_SIDE = 65_535  # pixels; far above what cameras produce


class TooLargeError(InputError):
    """More pixels than an image or a map may have."""


def max_pixels() -> int:
    """Return how many pixels an image or a map may have.

    Raises:
        UsageError: ``STEREO_MAX_MEGAPIXELS`` is no number between 0 and a million.
    """
    text = os.environ.get(MAX_MEGAPIXELS_VARIABLE)
    if text is None:
        return int(DEFAULT_MAX_MEGAPIXELS * 1e6)
    try:
        megapixels = float(text)
        if not 0 < megapixels < 1e6:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--max-megapixels or {MAX_MEGAPIXELS_VARIABLE} is '{text}'; expected a number above 0 "
            "and below 1,000,000"
        ) from None
    return int(megapixels * 1e6)


@contextlib.contextmanager
def picture_limit(megapixels: float | None) -> Iterator[None]:
    """Set the limit, for processes started in the block too; None leaves it.

    Pillow's own limit, which readers raise, is restored afterwards.

    Raises:
        UsageError: not a positive number.
    """
    from PIL import Image

    before, pillows = os.environ.get(MAX_MEGAPIXELS_VARIABLE), Image.MAX_IMAGE_PIXELS
    if megapixels is not None:
        os.environ[MAX_MEGAPIXELS_VARIABLE] = str(megapixels)
    try:
        max_pixels()
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = pillows
        if before is not None:
            os.environ[MAX_MEGAPIXELS_VARIABLE] = before
        elif megapixels is not None:
            del os.environ[MAX_MEGAPIXELS_VARIABLE]


def check_pixels(width: int, height: int, name: str) -> None:
    """Raise ``InputError`` unless an image of this size may be decoded."""
    if width < 1 or height < 1:
        raise InputError(f"{name}: its header says {width}x{height} pixels; damaged; get it again")
    if max(width, height) > MAX_SIDE:
        raise TooLargeError(
            f"{name}: {width}x{height} pixels; make it smaller, {MAX_SIDE} are the most of a side"
        )
    most = max_pixels()
    if width * height > most:
        raise TooLargeError(
            f"{name}: {width}x{height} pixels are more than the limit of {most / 1e6:g} megapixels"
            "; if the file is to be trusted, raise it with --max-megapixels (or "
            f"{MAX_MEGAPIXELS_VARIABLE})"
        )


def check_file(
    path: Path, most: int | None = None, what: str = "a file", *, may_be_empty: bool = False
) -> None:
    """Raise ``InputError`` unless ``path`` is a file that can be read.

    Opening a pipe may take forever, and reading a device does.

    Args:
        path: the path.
        most: bytes that it may have.
        what: what such a file is called.
        may_be_empty: whether an empty one is right.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise InputError(f"{path}: is a folder, expected a file")
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path}: is a pipe or a device, expected a file")
        path.open("rb").close()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if found.st_size == 0 and not may_be_empty:
        raise InputError(f"{path}: the file is empty")
    if most is not None and found.st_size > most:
        raise InputError(
            f"{path}: {found.st_size / 2**20:.1f} MiB, more than the {most / 2**20:g} MiB that "
            f"{what} may have"
        )
