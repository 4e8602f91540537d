"""The files written per pair, by format name; all of a pair appear together or not at all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stereo import colors
from stereo.data.disparities import store_disparity
from stereo.errors import UsageError, unknown_name
from stereo.files import staged


@dataclass(frozen=True)
class PairOutput:
    """What a pair's files are made from.

    Attributes:
        disparity: (H, W) float32, pixels.
        truth: (H, W) float32, pixels, or None.
        valid: (H, W) bool, true where there is ground truth, or None.
    """

    disparity: np.ndarray
    truth: np.ndarray | None = None
    valid: np.ndarray | None = None


def _write_color(path: Path, output: PairOutput) -> None:
    # With ground truth the scale is its own, so that the maps of several models compare.
    shown = output.disparity
    if output.truth is not None and output.valid is not None and output.valid.any():
        shown = np.where(output.valid, output.truth, np.nan)
    limit = colors.disparity_limit(shown)
    _write_picture(path, colors.disparity_picture(output.disparity, limit))


def _write_error(path: Path, output: PairOutput) -> None:
    assert output.truth is not None and output.valid is not None
    _write_picture(path, colors.error_picture(output.disparity, output.truth, output.valid))


def _write_map(path: Path, output: PairOutput) -> str | None:
    return store_disparity(path, output.disparity)


def _write_picture(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path)


# File name's end, and the writer, which returns what is worth a warning.
FORMATS: dict[str, tuple[str, Callable[[Path, PairOutput], str | None]]] = {
    "color": ("_color.png", _write_color),
    "pfm": ("_disparity.pfm", _write_map),
    "png16": ("_disparity.png", _write_map),
    "npy": ("_disparity.npy", _write_map),
    "error": ("_error.png", _write_error),
}


def parse_formats(text: str, *, has_truth: bool) -> list[str]:
    """Split a comma-separated list of format names.

    With ground truth, ``color`` brings the error map along.

    Raises:
        UsageError: an unknown or missing name, or ``error`` without ground truth.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--formats '{text}' names none; known: {', '.join(sorted(FORMATS))}")
    for name in names:
        if name not in FORMATS:
            raise unknown_name("format", name, FORMATS)
    if "error" in names and not has_truth:
        raise UsageError("the format 'error' needs --ground-truth")
    if "color" in names and has_truth:
        names.append("error")
    return list(dict.fromkeys(names))


def pair_targets(folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Return the files that ``write_pair`` writes."""
    return [folder / f"{name}{FORMATS[f][0]}" for f in formats]


def write_pair(folder: Path, name: str, formats: Sequence[str], output: PairOutput) -> list[str]:
    """Write the chosen files of one pair.

    Returns:
        What is worth a warning, in words.

    Raises:
        OutputError: one of them cannot be written; then none of them is.
    """
    with staged(*pair_targets(folder, name, formats)) as temporary:
        notes = [
            FORMATS[format_name][1](path, output)
            for format_name, path in zip(formats, temporary, strict=True)
        ]
    return [f"{name}: {note}" for note in notes if note]
