"""Rectification: two raw views to a pair whose rows correspond."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stereo.data.io.images import depth_of
from stereo.errors import InputError
from stereo.geometry.calibration import Calibration
from stereo.geometry.parameters import Camera
from stereo.system.opencv import import_cv2

LINE_EVERY = 32  # rows
LINE_COLOR = (0, 255, 0)


_NO_PAIR = (
    "this calibration gives no rectified pair{}: check its lenses (--lens), rotation and size"
)
LEAST_KEPT = 0.05
GOOD_KEPT = 0.5
WIDEST, WIDEST_OF_ALL = 120.0, 135.0  # degrees across that a fisheye's pair shows, with all kept
REMAP_LIMIT = 32767  # sides of this many pixels and more are beyond OpenCV's remap


@dataclass(frozen=True, eq=False)
class Rectification:
    """Maps from rectified to raw pixels for images of one size, and the new calibration."""

    calibration: Calibration  # of the rectified pair
    maps: tuple[Any, Any]  # for either view, OpenCV's two maps
    # for either view the rotation from the raw camera's frame to the rectified one, (3, 3) float64
    turns: tuple[np.ndarray, np.ndarray]
    border: int  # OpenCV's rule for what lies outside of the raw image

    def write(self, path: Path) -> None:
        """Write the calibration as JSON, and both rotations under ``rectification``."""
        turns = dict(zip(("left", "right"), (turn.tolist() for turn in self.turns), strict=True))
        self.calibration.write(path, rectification=turns)

    def apply(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rectify (H, W, C) uint8 or uint16 views of the calibration's size.

        The samples keep their bit depth: interpolation, which overshoots, is cut off there.
        """
        cv2 = import_cv2()
        one, other = (
            cv2.remap(view, *maps, cv2.INTER_CUBIC, borderMode=self.border)
            .reshape(view.shape)
            .clip(max=2 ** depth_of([view]) - 1)
            for view, maps in zip((left, right), self.maps, strict=True)
        )
        return one, other


def plan_rectification(
    calibration: Calibration, width: int, height: int, *, keep_all: bool = False
) -> Rectification:
    """Compute the rectification (Bouguet's method, OpenCV's ``stereoRectify``).

    Cameras with fisheye lenses are rectified to pinhole ones, by ``cv2.fisheye``, of at most 120
    degrees from left to right: of more, the middle would be left with few pixels.

    Args:
        calibration: of the raw pair; scaled to the images where they were resized as a whole.
        width: pixels.
        height: pixels.
        keep_all: keep every raw pixel, with black around them, instead of only valid pixels; of a
            fisheye's, those within 135 degrees.

    Raises:
        InputError: cameras above or before each other, a calibration that gives no pair, or
            images that it is not for.
    """
    if max(width, height) >= REMAP_LIMIT:
        raise InputError(
            f"{width}x{height} pixels: images to rectify may be {REMAP_LIMIT - 1} px a side at most"
        )
    raw, size = calibration.fitted(width, height), (width, height)
    raw.check_side_by_side()
    _check_lenses(raw, size, keep_all=keep_all)
    turns, (left, right), maps = _by_opencv(raw, size, keep_all=keep_all)
    cameras = {"left": raw.left, "right": raw.right}
    for (side, camera), turn, new, (across, _) in zip(
        cameras.items(), turns, (left, right), maps, strict=True
    ):
        unseen = _unseen(camera, new[:, :3] @ turn, size)
        if not keep_all and unseen.any():
            raise InputError(_model_ends(side, camera, "corners"))
        across[unseen] = -REMAP_LIMIT  # black
    if right[1, 3]:  # OpenCV took them for a vertical rig
        raise InputError(_NO_PAIR.format(" (the cameras stand rather above each other)"))
    if not keep_all:
        _check_kept(raw, min(_kept(each) for each in maps), size)
    try:
        rectified = Calibration.rectified(
            fx=float(left[0, 0]),
            fy=float(left[1, 1]),
            cx0=float(left[0, 2]),
            cx1=float(right[0, 2]),
            cy=float(left[1, 2]),
            baseline=-float(right[0, 3] / right[0, 0]),
            size=size,
        )
    except InputError as error:
        raise InputError(_NO_PAIR.format(f" ({error})")) from error
    # OpenCV's valid part is approximate: without the choice of black, a few pixels are repeated.
    cv2 = import_cv2()
    border = cv2.BORDER_CONSTANT if keep_all else cv2.BORDER_REPLICATE
    return Rectification(rectified, maps, turns, border)


_Two = tuple[np.ndarray, np.ndarray]


def _by_opencv(
    raw: Calibration, size: tuple[int, int], *, keep_all: bool
) -> tuple[_Two, _Two, tuple[Any, Any]]:
    """Return for either view the rotation, the projection (3, 4), and the maps."""
    cv2 = import_cv2()
    model = cv2.fisheye if raw.left.lens == "fisheye" else cv2
    cameras = raw.left, raw.right
    matrices = [camera.matrix() for camera in cameras]
    lenses = [np.array(camera.distortion or (0.0,) * 5, np.float64) for camera in cameras]
    free = {"balance": float(keep_all)} if model is not cv2 else {"alpha": float(keep_all)}
    try:
        turn_left, turn_right, *projections = model.stereoRectify(
            matrices[0],
            lenses[0],
            matrices[1],
            lenses[1],
            size,
            np.array(raw.rotation, np.float64),
            np.array(raw.translation, np.float64).reshape(3, 1),
            flags=cv2.CALIB_ZERO_DISPARITY,
            **free,
        )[:4]

        def maps_of(*projections: np.ndarray) -> tuple[Any, Any]:
            one, other = (
                model.initUndistortRectifyMap(matrix, lens, turn, new, size, cv2.CV_32FC1)
                for matrix, lens, turn, new in zip(
                    matrices, lenses, (turn_left, turn_right), projections, strict=True
                )
            )
            return one, other

        left, right = projections
        focal = _least_focal_length(size[0], keep_all=keep_all)
        if model is cv2 or left[0, 0] >= focal:  # not where it is NaN
            return (turn_left, turn_right), (left, right), maps_of(left, right)
        narrowed = _narrowed(focal, maps_of, size, raw.baseline, keep_all=keep_all)
        return (turn_left, turn_right), *narrowed
    except cv2.error as error:
        raise InputError(_NO_PAIR.format("")) from error


def _least_focal_length(width: int, *, keep_all: bool) -> float:
    """Return the focal length, pixels, of the widest field of view of a fisheye's pair."""
    degrees = WIDEST_OF_ALL if keep_all else WIDEST
    return width / 2 / math.tan(math.radians(degrees / 2))


def _narrowed(
    focal: float,
    maps_of: Callable[[np.ndarray, np.ndarray], tuple[Any, Any]],
    size: tuple[int, int],
    baseline: float,
    *,
    keep_all: bool,
) -> tuple[_Two, tuple[Any, Any]]:
    """Return projections of this focal length, pixels, and their maps.

    Without ``keep_all`` it is raised until they show nothing beyond a raw image.
    """
    while True:
        left = np.array(
            [[focal, 0, (size[0] - 1) / 2, 0], [0, focal, (size[1] - 1) / 2, 0], [0, 0, 1, 0]]
        )
        right = left.copy()
        right[0, 3] = -baseline * focal
        maps = maps_of(left, right)
        sides = (zip(each, size, strict=True) for each in maps)
        inside = all(m.min() >= -1 and m.max() <= side for view in sides for m, side in view)
        if keep_all or inside or focal > 2 * size[0]:
            return (left, right), maps
        focal *= 1.05


def _check_lenses(raw: Calibration, size: tuple[int, int], *, keep_all: bool) -> None:
    """Raise ``InputError`` for lenses of two kinds, or models that end within the image."""
    if raw.left.lens != raw.right.lens:
        raise InputError("one camera has a pinhole lens, the other a fisheye: not supported")
    corners = keep_all and raw.left.lens == "pinhole"  # OpenCV keeps the sides of a fisheye's image
    for side, camera in (("left", raw.left), ("right", raw.right)):
        if not camera.sees_all(size, corners=corners):
            raise InputError(_model_ends(side, camera, "corners" if corners else "sides"))


def _model_ends(side: str, camera: Camera, where: str) -> str:
    """Say that a lens' model ends within the image."""
    lens = "fisheye lens" if camera.lens == "fisheye" else "lens"
    return (
        f"the {side} {lens}' model ends {camera.turning_point()[1]:.0f} px from its centre, within "
        f"the image: calibrate it with the board near the {where} as well"
    )


def _unseen(camera: Camera, projection: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return which rectified pixels, (H, W), look where the raw lens' model does not reach.

    There the maps lead back into the raw image, which would be shown twice.

    Args:
        camera: the raw one.
        projection: (3, 3), from its frame to rectified pixels.
        size: width and height of the rectified image.
    """
    farthest, _ = camera.turning_point()
    if math.isinf(farthest):
        return np.zeros(size[::-1], bool)
    column, row = np.arange(size[0]), np.arange(size[1])[:, None]
    x, y, z = (a * column + b * row + c for a, b, c in np.linalg.inv(projection))
    return (z <= 0) | (np.hypot(x, y) > farthest * z)


def _kept(maps: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the share of the raw image's area that the rectified one shows."""
    ends = [np.concatenate([m[0], m[1:, -1], m[-1, -2::-1], m[-2:0:-1, 0]]) for m in maps]
    return import_cv2().contourArea(np.stack(ends, axis=1).astype(np.float32)) / maps[0].size


def _check_kept(raw: Calibration, share: float, size: tuple[int, int]) -> None:
    """Warn of a rectified pair that shows little of the raw one, or refuse it."""
    advice = "--keep-all keeps all of it"
    if raw.left.lens == "fisheye":
        advice = f"--keep-all keeps what lies within {WIDEST_OF_ALL:g} degrees"
    for side, camera in (("left", raw.left), ("right", raw.right)):
        if camera.lens == "pinhole" and not camera.sees_all(size, corners=True):
            advice = _model_ends(side, camera, "corners")  # which --keep-all would refuse
            break
    told = (
        f"the rectified pair shows only {share:.0%} of an image, the rectangle without black "
        f"around it: {advice}"
    )
    if not share >= LEAST_KEPT:
        raise InputError(told)
    if share < GOOD_KEPT:
        warnings.warn(told, stacklevel=4)


def with_lines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return both views side by side with horizontal lines to compare rows."""
    picture = np.concatenate([left, right], axis=1)
    picture[LINE_EVERY // 2 :: LINE_EVERY] = LINE_COLOR
    return picture
