"""Calibrations of camera pairs: checked parameters that turn disparities into metres."""

import dataclasses
import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stereo.errors import InputError, UsageError
from stereo.geometry.parameters import (
    FORMAT,
    Camera,
    StereoParameters,
    check_camera,
    check_pose,
    check_size,
)
from stereo.geometry.readers import read_parameters
from stereo.system.files import staged

POSSIBLE_BASELINES = (1e-5, 1e5)  # metres; beyond them a number is damaged
BASELINES = (0.002, 20.0)  # metres, of pairs that people have; beyond them a unit is likely wrong
SHORTEST_FOCAL_LENGTH = 40.0  # pixels; less is likely a focal length in millimetres
LONGEST_FOCAL_LENGTH = 50_000.0  # pixels, where the images' width is unknown
FOCAL_WIDTHS = (0.2, 10.0)  # of the images, where known: fields of view of 136 and 6 degrees
OFF_CENTRE = (1.1, 1.4, 1.5)
"""Limits of the ratio of a principal point to the image's centre, or of its inverse: along x warned
of, refused; along y warned of. KITTI's differ by 1.02, its crops' by 1.2 along y."""
SQUARE_PIXELS = (1.1, 1.5)  # ratio of fx and fy, or fy and fx: warned of, refused
WORTH_A_WARNING = 0.05  # of a map's pixels
BEHIND_INFINITY = 0.02  # of the focal length: how negative doffs may be, a degree between the axes
RECTIFIED_TOLERANCE = 1e-3  # of focal lengths, and of the baseline across the rows
RECTIFIED_PIXELS = 0.25  # that an angle between the cameras or other rows may move a point
SMALLEST_DISPARITY = 1 / 512  # pixels from infinity: less rounds to 0 in PNGs of 1/256 px
ROUNDING = 1.0  # pixels, of a resized image's sides; FFmpeg makes them even
MOST_ROLL = 45.0  # degrees


@dataclass(frozen=True)
class Calibration(StereoParameters):
    """A calibrated pair of cameras, checked.

    Attributes:
        left: the left camera.
        right: the right camera.
        translation: metres; a point X of the left camera's frame is ``rotation @ X + translation``
            in the right one's, so that a rectified pair has (-baseline, 0, 0).
        rotation: rows of a 3x3 matrix.
        size: width and height of the images in pixels; None if unknown.
        uncut: of images that the file says are cut out, the calibration of the whole ones.

    Raises:
        InputError: numbers that cannot be: focal lengths, lenses, pose, size.
    """

    uncut: "Calibration | None" = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_size(self.size)
        for name, camera in (("left", self.left), ("right", self.right)):
            check_camera(name, camera)
            _warn_of_focal_length(name, camera.fx, None if self.size is None else self.size[0])
        check_pose(self.rotation, self.translation)
        if self.baseline == 0:
            raise InputError("the baseline is 0: the cameras stand at the same place")
        if not POSSIBLE_BASELINES[0] <= self.baseline <= POSSIBLE_BASELINES[1]:
            raise InputError(f"the baseline is {self.baseline:g} m, which no pair of cameras has")
        # -rotation^T translation is the right camera's place; a rectified one's has no rotation.
        across, down, _ = -np.array(self.rotation).T @ self.translation
        if across < -abs(down):
            raise InputError(
                f"the baseline is negative (the right camera stands {self.baseline:g} m to the "
                "left of the left one): the cameras are swapped, or a sign is wrong"
            )
        if not BASELINES[0] <= self.baseline <= BASELINES[1]:
            hint = "metres read as millimetres" if self.baseline < 1 else "millimetres as metres"
            warnings.warn(
                f"the baseline is {self.baseline:g} m, which is unlikely: {hint}? "
                "Depth is proportional to it",
                stacklevel=3,
            )

    def check_plausible(self) -> None:
        """Warn of parameters that are possible but unlikely: oblong pixels, diverging axes.

        Raises:
            InputError: fx and fy differ by more than those of any usual camera.
        """
        for name, camera in (("left", self.left), ("right", self.right)):
            ratio = max(camera.fx, camera.fy) / min(camera.fx, camera.fy)
            text = (
                f"the {name} focal lengths are {camera.fx:g} px along x and {camera.fy:g} along y, "
                "but pixels are square in nearly all images: "
            )
            if ratio > SQUARE_PIXELS[1]:
                raise InputError(
                    f"{text}correct the wrong one; if the images were squeezed, resize them and "
                    "the calibration so that fx and fy agree"
                )
            if ratio > SQUARE_PIXELS[0]:
                warnings.warn(f"{text}is one wrong? Depth is proportional to fx", stacklevel=3)
            if self.size is not None and not (
                -1 <= camera.cx <= self.size[0] and -1 <= camera.cy <= self.size[1]
            ):
                warnings.warn(
                    f"the {name} principal point ({camera.cx:g}, {camera.cy:g}) lies outside "
                    f"images of {self.size[0]}x{self.size[1]}, which only crops have: if these "
                    "are not crops, it is wrong, and so are points in space",
                    stacklevel=3,
                )
        if self.is_rectified and self.doffs < -BEHIND_INFINITY * self.fx:
            warnings.warn(
                f"doffs (cx1 - cx0) is {self.doffs:g} px, so disparities below {-self.doffs:g} px "
                "lie behind infinity and have no depth, though cameras hardly look away from each "
                "other: are cx0 and cx1, or the cameras, swapped?",
                stacklevel=3,
            )

    @property
    def fx(self) -> float:
        """Focal length of the left camera along x, pixels."""
        return self.left.fx

    @property
    def fy(self) -> float:
        """Focal length of the left camera along y, pixels."""
        return self.left.fy

    @property
    def cx0(self) -> float:
        """Principal point of the left camera along x, pixels."""
        return self.left.cx

    @property
    def cx1(self) -> float:
        """Principal point of the right camera along x, pixels."""
        return self.right.cx

    @property
    def cy(self) -> float:
        """Principal point of the left camera along y, pixels."""
        return self.left.cy

    @property
    def doffs(self) -> float:
        """Disparity of points at infinity with the sign changed, cx1 - cx0, pixels."""
        return self.cx1 - self.cx0

    @property
    def is_rectified(self) -> bool:
        """Whether rows correspond, so that disparities can become depths."""
        away = np.abs(np.array(self.rotation) - np.eye(3)).max()
        along = max(abs(self.translation[1]), abs(self.translation[2])) / self.baseline
        same = abs(self.left.fx - self.right.fx) + abs(self.left.fy - self.right.fy)
        rows = abs(self.left.cy - self.right.cy)
        cameras = (self.left, self.right)
        straight = all(each.lens == "pinhole" and not any(each.distortion) for each in cameras)
        near = max(away * self.left.fx, rows) < RECTIFIED_PIXELS
        return straight and bool(near and max(along, same / self.left.fx) < RECTIFIED_TOLERANCE)

    def depth(self, disparity: np.ndarray) -> np.ndarray:
        """Return fx * baseline / (disparity + doffs).

        Args:
            disparity: (H, W) float, pixels of the left image; any shape is taken.

        Returns:
            float32 of that shape, metres along the optical axis; 0 for a disparity that is not
            finite, within 1/512 px of infinity (which files cannot tell from it), or beyond.

        Raises:
            InputError: the calibration is not that of a rectified pair.
        """
        self.check_rectified()
        disparity = np.asarray(disparity)
        height, width = disparity.shape[-2:] if disparity.ndim >= 2 else (0, 0)
        if self.size is not None and self._is_resized(width, height):
            warnings.warn(
                f"the calibration is for {self.size[0]}x{self.size[1]} pixels, the disparity has "
                f"{width}x{height}: 'fitted' gives the calibration that fits it",
                stacklevel=2,
            )
        beyond = disparity.astype(np.float64) + self.doffs
        known = np.isfinite(beyond)
        behind = np.count_nonzero(known & (beyond < 0))
        if 2 * behind > np.count_nonzero(known):
            warnings.warn(
                f"{100 * behind / np.count_nonzero(known):.0f} % of the disparities lie behind "
                f"infinity by the calibration (doffs {self.doffs:g} px) and have no depth: is the "
                "sign of doffs wrong, or is it of other images?",
                stacklevel=2,
            )
        self._warn_of_far_end(disparity[known])
        return self.depth_of(disparity)

    def _warn_of_far_end(self, disparity: np.ndarray) -> None:
        """Warn if many points seem to lie beyond 0, where searches begin by default."""
        if self.doffs < 1 or not disparity.size or disparity.min() < -1:
            return
        share = float(np.mean(disparity < 1))
        if share > WORTH_A_WARNING:
            farthest = self.fx * self.baseline / self.doffs
            warnings.warn(
                f"{share:.0%} of the disparities are about 0, where searches begin by default, but "
                f"by the calibration infinity is at {-self.doffs:g} px: what is farther than "
                f"{farthest:.3g} m is put there; use --min-disparity {-math.ceil(self.doffs)}",
                stacklevel=3,
            )

    def depth_of(self, values: np.ndarray) -> np.ndarray:
        """As ``depth``, for disparities that are no map: no warning tells of their size or sign.

        Raises:
            InputError: the calibration is not that of a rectified pair.
        """
        self.check_rectified()
        with np.errstate(divide="ignore", invalid="ignore"):
            beyond = values.astype(np.float64) + self.doffs
            depth = self.fx * self.baseline / beyond
        known = (beyond >= SMALLEST_DISPARITY) & (depth > 0) & (depth <= np.finfo(np.float32).max)
        return np.where(known, depth, 0).astype(np.float32)

    def check_side_by_side(self) -> None:
        """Raise ``InputError`` if one camera is above or before the other, or rolled."""
        turn = np.array(self.rotation)
        roll = math.degrees(math.atan2(turn[1, 0], turn[0, 0]))
        if abs(roll) > MOST_ROLL:
            raise InputError(
                f"one camera is rolled by {abs(roll):.0f} degrees against the other: turn its "
                "images and calibrate again"
            )
        x, y, z = (abs(part) for part in turn.T @ self.translation)
        if y > x:
            raise InputError(
                "the cameras stand above each other (a vertical rig): turn the images by 90 "
                "degrees and calibrate again"
            )
        if z > x:
            raise InputError(
                "the baseline lies mostly along the optical axis, so the pair cannot be rectified: "
                "check the order and the signs of the translation"
            )

    def check_rectified(self) -> None:
        """Raise ``InputError`` unless rows correspond."""
        self.check_side_by_side()
        if not self.is_rectified:
            raise InputError(
                "the calibration is that of a raw pair, whose rows do not correspond: run "
                "'stereo rectify' first, and use the calibration that it writes"
            )

    def scaled(self, x: float, y: float) -> "Calibration":
        """Return the calibration of images resized by two factors; pixels keep their corners.

        Raises:
            InputError: a factor that is not positive.
        """
        if not (0 < x < math.inf and 0 < y < math.inf):
            raise InputError(f"images cannot be scaled by {x:g} and {y:g}")

        def scale(camera: Camera) -> Camera:
            return dataclasses.replace(
                camera,
                fx=camera.fx * x,
                fy=camera.fy * y,
                cx=(camera.cx + 0.5) * x - 0.5,
                cy=(camera.cy + 0.5) * y - 0.5,
            )

        size = None if self.size is None else (round(self.size[0] * x), round(self.size[1] * y))
        return dataclasses.replace(
            self, left=scale(self.left), right=scale(self.right), size=size, uncut=None
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> "Calibration":
        """Return the calibration of images cut to a box of pixels, the same one in both.

        Raises:
            InputError: a box that does not lie within the images.
        """
        right, bottom = (math.inf, math.inf) if self.size is None else self.size
        if min(left, top) < 0 or min(width, height) < 1:
            raise InputError(f"a box of {width}x{height} at ({left}, {top}) does not fit an image")
        if left + width > right or top + height > bottom:
            raise InputError(f"a box of {width}x{height} at ({left}, {top}) goes beyond the image")

        def move(camera: Camera) -> Camera:
            return dataclasses.replace(camera, cx=camera.cx - left, cy=camera.cy - top)

        return dataclasses.replace(
            self, left=move(self.left), right=move(self.right), size=(width, height), uncut=None
        )

    def fitted(self, width: int, height: int) -> "Calibration":
        """Return the calibration for an image size, scaled if they were resized uniformly.

        Where the file says that its images are cut out of larger ones, those can be meant, too.

        Raises:
            InputError: the images have another shape than the calibration's, or, where it knows
                no size, a principal point far from their middle; or whether they are cut out
                cannot be told.
        """
        if self.size is None:
            self._check_centre(width, height)
            for name, camera in (("left", self.left), ("right", self.right)):
                _warn_of_focal_length(name, camera.fx, width)
            return self
        if self.size == (width, height):
            return self
        if self.uncut is not None and self.uncut.size == (width, height):
            warnings.warn(
                f"the calibration is for {self.size[0]}x{self.size[1]} pixels cut out of "
                f"{width}x{height} (its roi); the images have {width}x{height}, so they are "
                "taken as uncut",
                stacklevel=2,
            )
            return self.uncut
        if self.uncut is not None and self.uncut._is_resized(width, height):
            assert self.uncut.size is not None
            raise InputError(
                f"the calibration is for {self.size[0]}x{self.size[1]} pixels cut out of "
                f"{self.uncut.size[0]}x{self.uncut.size[1]} (its roi), the images have "
                f"{width}x{height}, which could be either of them resized: give the calibration "
                "that fits them"
            )
        if not self._is_resized(width, height):
            raise InputError(
                f"the calibration is for {self.size[0]}x{self.size[1]} pixels, the images have "
                f"{width}x{height}: a crop or other cameras; give the calibration that fits them"
            )
        warnings.warn(
            f"the calibration is for {self.size[0]}x{self.size[1]} pixels and is scaled to the "
            f"images' {width}x{height}; if they were cropped, give the crop's own",
            stacklevel=2,
        )
        return self.scaled(width / self.size[0], height / self.size[1])

    def _is_resized(self, width: int, height: int) -> bool:
        """Return whether images have the calibration's aspect ratio but another size."""
        if self.size in (None, (width, height)) or min(width, height) < 1:
            return False
        assert self.size is not None
        if width == self.size[0] or height == self.size[1]:
            return False  # a crop
        sides = list(zip((width, height), self.size, strict=True))
        least = max((new - ROUNDING) / old for new, old in sides)
        return least <= min((new + ROUNDING) / old for new, old in sides)

    def _check_centre(self, width: int, height: int) -> None:
        """Detect resized or cropped images where the calibration states no size."""
        across = _off_centre(self.left.cx, width)
        down = _off_centre(self.left.cy, height)
        if across <= OFF_CENTRE[0] and down <= OFF_CENTRE[2]:
            return
        text = (
            f"the principal point ({self.left.cx:g}, {self.left.cy:g}) lies far from the middle of "
            f"images of {width}x{height}, and the calibration knows no size: were they resized "
            "or cropped? "
        )
        if across > OFF_CENTRE[1]:  # a crop of rows alone leaves depths right
            raise InputError(
                f"{text}Give the calibration of these images; if it is, say their size in it "
                '("size": [width, height] in this program\'s JSON)'
            )
        warnings.warn(f"{text}If they were resized, depths are wrong by that factor", stacklevel=3)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        raw: bool = False,
        lens: str | None = None,
        pictures: str | Path | None = None,
    ) -> "Calibration":
        """Read a calibration file of any known kind; ``stereo.geometry.readers`` lists them.

        Args:
            path: the file.
            raw: of files that hold both, the cameras as they are instead of the rectified ones.
            lens: ``pinhole`` or ``fisheye``, for raw cameras of files that do not say; None to
                take a pinhole, with a warning where it is a guess.
            pictures: the left image or its folder: KITTI's tell the grey pair from the other.

        Raises:
            InputError: unreadable, of no known kind, or with numbers that cannot be.
            UsageError: what is no path.
        """
        if not isinstance(path, str | Path):
            raise UsageError(
                f"calibration {path!r}: expected a Calibration or the path of its file"
            )
        left = None if pictures is None else Path(pictures).absolute()
        found = read_parameters(Path(path), raw=raw, lens=lens, pictures=left)
        try:
            uncut = None if found.uncut is None else cls(**vars(found.uncut))
            calibration = cls(**(vars(found) | {"uncut": uncut}))
            calibration.check_plausible()
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return calibration

    def write(self, path: str | Path, **more: Any) -> None:
        """Write as JSON, which ``read`` reads, with entries of ``more`` that it ignores.

        Raises:
            OutputError: the file cannot be written.
        """
        with staged(Path(path)) as (temporary,):
            text = json.dumps(self.to_dict() | more, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        fields = dataclasses.asdict(self)
        del fields["uncut"]
        return {"format": FORMAT, **fields}


def _off_centre(point: float, side: int) -> float:
    """Return how far off-centre a principal point is, as a ratio of at least 1."""
    ratio = (point + 0.5) / (side / 2)
    return max(ratio, 1 / ratio) if ratio > 0 else math.inf


def _warn_of_focal_length(name: str, focal: float, width: int | None) -> None:
    """Warn of a focal length that is likely in another unit or has a digit too many or too few."""
    least, most = SHORTEST_FOCAL_LENGTH, LONGEST_FOCAL_LENGTH
    wide = ""
    if width is not None:
        least, most = (widths * width for widths in FOCAL_WIDTHS)
        wide = f" for images {width} px wide"
    if focal < max(least, SHORTEST_FOCAL_LENGTH):
        warnings.warn(
            f"the {name} focal length is {focal:g} px, which is very short{wide}: "
            "it must be in pixels, not millimetres; depth is proportional to it",
            stacklevel=4,
        )
    if focal > most:
        warnings.warn(
            f"the {name} focal length is {focal:.7g} px, which is very long{wide}: it must be "
            "in pixels; is its decimal point lost? Depth is proportional to it",
            stacklevel=4,
        )
