"""The files written per pair, by format; all of a pair appear together or not at all."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stereo.data.io import colors
from stereo.data.io.disparities import store_disparity
from stereo.errors import UsageError, unknown_name
from stereo.geometry import Calibration
from stereo.geometry.points import POINT_WRITERS, colored_points
from stereo.system.files import staged

MAX_MILLIMETRES = 65535
WORTH_A_NOTE = 0.01  # of a map


@dataclass(frozen=True, eq=False)
class PointCloudContext:
    """Parameters that turn disparities into depths and points."""

    calibration: Calibration  # of the rectified pair, for its size
    picture: np.ndarray  # (H, W, 3) uint8, RGB, the view of the map, which colours the points
    # whether that is the right view. Points lie in the left camera's frame either way.
    is_right: bool = False
    # metres, the depth of the furthest point; None for 100 baselines
    max_depth: float | None = None
    keep_flying_points: bool = False  # whether flying points stay
    min_confidence: float = 0.0  # the least confidence of a point, 0..1


@dataclass(frozen=True, eq=False)
class PairOutput:
    """Inputs of a pair's output files."""

    disparity: np.ndarray  # (H, W) float32, pixels
    truth: np.ndarray | None = None  # (H, W) float32, pixels, or None
    valid: np.ndarray | None = None  # (H, W) bool, true where ground truth counts, or None
    cloud: PointCloudContext | None = None  # for depths and points, or None
    confidence: np.ndarray | None = None  # (H, W) float32, 0..1, or None
    # both ends of the colour scale, pixels; None for the ground truth's or the map's own
    scale: tuple[float, float] | None = None
    certainty: np.ndarray | None = None  # (2, H, W) float32, of a network, or None

    @functools.cached_property
    def depth(self) -> np.ndarray:
        """(H, W) float32, metres; 0 for none."""
        assert self.cloud is not None
        return self.cloud.calibration.depth(self.disparity)

    @functools.cached_property
    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) float32, metres, and (N, 3) uint8 RGB, as ``colored_points`` returns them."""
        assert self.cloud is not None
        return colored_points(
            self.disparity,
            self.cloud.picture,
            self.cloud.calibration,
            is_right=self.cloud.is_right,
            max_depth=self.cloud.max_depth,
            keep_flying_points=self.cloud.keep_flying_points,
            certainty=self.certainty,
            confidence=self.confidence,
            min_confidence=self.cloud.min_confidence,
        )


def _write_color(path: Path, output: PairOutput) -> None:
    # With ground truth the scale is its own, so that the maps of several models compare.
    shown = output.disparity
    if output.truth is not None and output.valid is not None and output.valid.any():
        shown = np.where(output.valid, output.truth, np.nan)
    low, limit = output.scale or colors.disparity_scale(shown)
    _write_picture(path, colors.disparity_picture(output.disparity, limit, low=low))


def _write_error(path: Path, output: PairOutput) -> None:
    assert output.truth is not None and output.valid is not None
    _write_picture(path, colors.error_picture(output.disparity, output.truth, output.valid))


def _write_confidence(path: Path, output: PairOutput) -> None:
    assert output.confidence is not None
    _write_picture(path, np.rint(255 * output.confidence).astype(np.uint8))


def _write_map(path: Path, output: PairOutput) -> str | None:
    return store_disparity(path, output.disparity)


def _write_picture(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path)


def _write_depth(path: Path, output: PairOutput) -> None:
    with path.open("wb") as file:
        np.save(file, output.depth)


def _write_millimetres(path: Path, output: PairOutput) -> str | None:
    stored = np.rint(1000 * output.depth.astype(np.float64))
    too_far = stored > MAX_MILLIMETRES
    Image.fromarray(np.where(too_far, 0, stored).astype(np.uint16)).save(path)
    if not too_far.any():
        return None
    return f"{int(too_far.sum())} depths beyond {MAX_MILLIMETRES / 1000} m are 0 in the PNG"


def _write_points(path: Path, output: PairOutput) -> str | None:
    points, colors = output.points
    POINT_WRITERS[path.suffix](path, points, colors)
    if len(points):
        return None
    return "no point is near and sure enough to be kept; see --max-depth and --min-confidence"


def _behind_infinity(output: PairOutput) -> str | None:
    """Note how much of a map has no depth because its disparities lie at or beyond infinity."""
    assert output.cloud is not None
    at_infinity = 0.0 - output.cloud.calibration.doffs
    share = float(np.mean(output.disparity <= at_infinity))
    if share <= WORTH_A_NOTE:
        return None
    return (
        f"{100 * share:.1f} % of the map lies at or behind infinity (disparity of at most "
        f"{at_infinity:g} px) and has neither depth nor points"
    )


# Format -> end of the file name -> the writer, which returns a warning or None.
FORMATS: dict[str, dict[str, Callable[[Path, PairOutput], str | None]]] = {
    "color": {"_color.png": _write_color},
    "pfm": {"_disparity.pfm": _write_map},
    "png16": {"_disparity.png": _write_map},
    "npy": {"_disparity.npy": _write_map},
    "confidence": {"_confidence.png": _write_confidence},
    "depth": {"_depth.npy": _write_depth, "_depth.png": _write_millimetres},
    "ply": {".ply": _write_points},
    "glb": {".glb": _write_points},
    "error": {"_error.png": _write_error},
    "video": {},  # of all frames, once they are there
}
OF_POINTS = ("ply", "glb")
IN_METRES = ("depth", *OF_POINTS)


def parse_formats(text: str | None, *, has_truth: bool, has_calibration: bool) -> list[str]:
    """Split a comma-separated list of format names.

    With ground truth, ``color`` brings the error map along.

    Args:
        text: the list; None for ``color,pfm``, and with a calibration ``depth,ply``.
        has_truth: whether ground truth is given.
        has_calibration: whether a calibration is given.

    Raises:
        UsageError: an unknown or missing name, or one that needs what is not given.
    """
    if text is None:
        text = "color,pfm,depth,ply" if has_calibration else "color,pfm"
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--formats '{text}' names none; known: {', '.join(sorted(FORMATS))}")
    for name in names:
        if name not in FORMATS:
            raise unknown_name("format", name, FORMATS)
        if name in IN_METRES and not has_calibration:
            raise UsageError(f"the format '{name}' needs --calibration")
    if "error" in names and not has_truth:
        raise UsageError("the format 'error' needs --ground-truth")
    if "color" in names and has_truth:
        names.append("error")
    if "video" in names:
        names.append("color")
    return list(dict.fromkeys(names))


def pair_targets(folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Return the files that ``write_pair`` writes."""
    return [folder / f"{name}{end}" for f in formats for end in FORMATS[f]]


def write_pair(folder: Path, name: str, formats: Sequence[str], output: PairOutput) -> list[str]:
    """Write the chosen files of one pair.

    Returns:
        What is worth a warning, in words.

    Raises:
        OutputError: one of them cannot be written; then none of them is.
    """
    with staged(*pair_targets(folder, name, formats)) as temporary:
        writers = [writer for f in formats for writer in FORMATS[f].values()]
        notes = [writer(path, output) for writer, path in zip(writers, temporary, strict=True)]
    if set(formats) & set(IN_METRES):
        notes.append(_behind_infinity(output))
    return [f"{name}: {note}" for note in dict.fromkeys(notes) if note]
