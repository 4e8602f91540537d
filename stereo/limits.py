"""How large a file may be, checked from its size or header before anything is decoded.

A file of a few kilobytes can unpack to gigabytes. Every reader asks here first, so that such a file
is refused in one line, whichever command reads it.
"""

import json
import os
from pathlib import Path
from typing import Any

from stereo.errors import InputError, UsageError

MAX_MEGAPIXELS_VARIABLE = "STEREO_MAX_MEGAPIXELS"
"""Set by ``--max-megapixels``; an environment variable, so that processes started later have it."""
DEFAULT_MAX_MEGAPIXELS = 128.0
MAX_SIDE = 65_535  # pixels; what PNG, WebP and JPEG of cameras stay far below
MAX_JSON_BYTES = 2**26
MAX_JSON_DEPTH = 64


def max_pixels() -> int:
    """Return how many pixels a picture or a map may have.

    Raises:
        UsageError: ``STEREO_MAX_MEGAPIXELS`` is no positive number.
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
            f"{MAX_MEGAPIXELS_VARIABLE} is '{text}'; expected a positive number of megapixels"
        ) from None
    return int(megapixels * 1e6)


def check_pixels(width: int, height: int, name: str) -> None:
    """Raise ``InputError`` unless a picture of this size may be decoded.

    Args:
        width: pixels, from the header.
        height: pixels.
        name: what to call it in the error.
    """
    if width < 1 or height < 1:
        raise InputError(f"{name}: its header says {width}x{height} pixels; damaged, get it anew")
    most = max_pixels()
    if width * height > most or max(width, height) > MAX_SIDE:
        raise InputError(
            f"{name}: {width}x{height} pixels are more than the limit of {most / 1e6:g} megapixels "
            f"and {MAX_SIDE} a side; if the file is to be trusted, raise it with "
            f"--max-megapixels (or {MAX_MEGAPIXELS_VARIABLE})"
        )


def check_bytes(path: Path, most: int, what: str) -> None:
    """Raise ``InputError`` if a file is larger than files of its kind are.

    Args:
        path: the file.
        most: bytes.
        what: the kind, such as "a calibration file".
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if size > most:
        raise InputError(
            f"{path}: {size / 2**20:.1f} MiB, more than the {most / 2**20:g} MiB that {what} "
            "may have"
        )


def parse_json(text: str | bytes, name: str) -> Any:
    """Parse JSON from outside.

    Args:
        text: the document.
        name: what to call it in an error.

    Raises:
        InputError: not JSON, larger than ``MAX_JSON_BYTES`` or nested deeper than
            ``MAX_JSON_DEPTH``.
    """
    if len(text) > MAX_JSON_BYTES:
        raise InputError(f"{name}: more than {MAX_JSON_BYTES // 2**20} MiB of JSON")
    try:
        value = json.loads(text)
    except RecursionError:
        raise InputError(f"{name}: JSON nested too deeply") from None
    except ValueError as error:  # of JSON, of UTF-8, or a whole number of thousands of digits
        raise InputError(f"{name}: not valid JSON ({error})") from error
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return value
    raise InputError(f"{name}: JSON nested deeper than {MAX_JSON_DEPTH} levels")
