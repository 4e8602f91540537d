"""Cameras and stereo parameters as plain values: what the readers of calibration files return."""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.polynomial import Polynomial

from stereo.errors import InputError
from stereo.system.limits import MAX_SIDE

LENSES = ("pinhole", "fisheye")
POSSIBLE_FOCAL_LENGTHS = (1.0, 1e7)  # pixels; beyond them a number is damaged
POSSIBLE_POINT = 1e6  # pixels from the first one, of a principal point
POSSIBLE_COEFFICIENT = 1e6  # of a lens
LIKELY_METRES = 1.0  # of a baseline whose unit is not certain; more are likely centimetres
ORTHONORMAL = 0.01  # how far a rotation as printed may be from one
LENS_COUNTS = (0, 4, 5, 8, 12, 14)  # coefficients that OpenCV's pinhole model can have
FISHEYE_COUNT = 4
FORMAT = "stereo calibration, pixels and metres"
_Parameters = TypeVar("_Parameters", bound="StereoParameters")


@dataclass(frozen=True)
class Camera:
    """A camera with one of OpenCV's lens models."""

    fx: float  # focal length along x, pixels
    fy: float  # focal length along y, pixels
    cx: float  # principal point, pixels; the centre of the first pixel is 0
    cy: float  # the same along y
    # OpenCV's coefficients: k1, k2, p1, p2, k3, ... of a pinhole, empty for none; k1 to k4 of a
    # fisheye.
    distortion: tuple[float, ...] = ()
    # `pinhole`, or `fisheye` for the model of `cv2.fisheye` (Kannala and Brandt's, "equidistant" in
    # ROS and Kalibr)
    lens: str = "pinhole"

    def matrix(self) -> np.ndarray:
        """Return K, (3, 3) float64."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)

    def turning_point(self) -> tuple[float, float]:
        """Return where the lens' radial model turns back; what lies beyond has no direction.

        Returns:
            the tangent of the angle from the axis, and the distance from the principal point in
            pixels along x; infinities if it never does.
        """
        is_fisheye = self.lens == "fisheye"
        k = [0.0, *self.distortion, *[0.0] * len(LENS_COUNTS) * 2]  # k[1] is OpenCV's k1
        # OpenCV's distorted radius: above / below, of the angle for a fisheye, of its tangent else.
        above, below = Polynomial([0, 1, 0, k[1], 0, k[2], 0, k[5], 0]), Polynomial([1.0])
        if is_fisheye:
            above = Polynomial([0, 1, 0, k[1], 0, k[2], 0, k[3], 0, k[4]])
        else:
            below = Polynomial([1, 0, k[6], 0, k[7], 0, k[8]])
        turning = _least_positive_root(above.deriv() * below - above * below.deriv())
        if turning >= _least_positive_root(below):  # where the image would be infinitely large
            return math.inf, math.inf
        tangent = turning
        if is_fisheye:
            tangent = math.tan(turning) if turning < math.pi / 2 else math.inf
        return tangent, self.fx * float(above(turning) / below(turning))

    def sees_all(self, size: tuple[int, int], *, corners: bool = False) -> bool:
        """Return whether the lens' model reaches the middle of each side of an image.

        Args:
            size: width and height, pixels.
            corners: ask for the corners too.
        """
        width, height = size
        across, down = max(self.cx, width - 1 - self.cx), max(self.cy, height - 1 - self.cy)
        down *= self.fx / self.fy
        return self.turning_point()[1] > (math.hypot if corners else max)(across, down)


@dataclass(frozen=True)
class StereoParameters:
    """The parameters of a pair of cameras, unchecked; ``Calibration`` describes and checks them."""

    left: Camera
    right: Camera
    translation: tuple[float, float, float]
    rotation: tuple[tuple[float, ...], ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    size: tuple[int, int] | None = None
    uncut: "StereoParameters | None" = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def rectified(
        cls: "type[_Parameters]",
        *,
        fx: float,
        cx0: float,
        cy: float,
        baseline: float,
        fy: float | None = None,
        cx1: float | None = None,
        size: tuple[int, int] | None = None,
    ) -> _Parameters:
        """Make the calibration of a rectified pair.

        Args:
            fx: focal length, pixels.
            cx0: principal point of the left camera along x, pixels.
            cy: principal point of both along y, pixels.
            baseline: metres.
            fy: focal length along y; None for fx.
            cx1: principal point of the right camera along x; None for that of the left.
            size: width and height, pixels.
        """
        fy = fx if fy is None else fy
        left = Camera(fx, fy, cx0, cy)
        right = Camera(fx, fy, cx0 if cx1 is None else cx1, cy)
        return cls(left, right, (-baseline, 0.0, 0.0), size=size)

    @classmethod
    def from_dict(cls: "type[_Parameters]", data: dict[str, Any]) -> _Parameters:
        """Undo ``Calibration.to_dict``."""
        left, right = (_camera_from_dict(data[side]) for side in ("left", "right"))
        x, y, z = (number(each) for each in data["translation"])
        rotation = tuple(
            tuple(number(each) for each in np.atleast_1d(row)) for row in data["rotation"]
        )
        size = data.get("size")
        if size is not None:
            if not isinstance(size, list | tuple) or len(size) != 2:
                raise InputError(f"the size is {size}: expected width and height")
            size = picture_size(*size)
        return cls(left, right, (x, y, z), rotation, size)

    @property
    def baseline(self) -> float:
        """Distance of the cameras, metres."""
        return math.hypot(*self.translation)


def _least_positive_root(polynomial: Polynomial) -> float:
    roots = polynomial.trim().roots()
    return min(
        (float(z.real) for z in roots if abs(z.imag) < 1e-9 and z.real > 0), default=math.inf
    )


def check_camera(name: str, camera: Camera) -> None:
    """Raise ``InputError`` for an impossible camera; ``name`` is left or right."""
    for focal in (camera.fx, camera.fy):
        if not (math.isfinite(focal) and focal > 0):
            raise InputError(f"the {name} focal length is {focal:g} px: it must be positive")
        if not POSSIBLE_FOCAL_LENGTHS[0] <= focal <= POSSIBLE_FOCAL_LENGTHS[1]:
            raise InputError(
                f"the {name} focal length is {focal:g} px, which no camera has: it must be in "
                "pixels, neither in widths of the image nor in metres"
            )
    if not all(map(math.isfinite, (camera.cx, camera.cy, *camera.distortion))):
        raise InputError(f"the {name} camera has numbers that are not finite")
    if max(abs(camera.cx), abs(camera.cy)) > POSSIBLE_POINT:
        raise InputError(
            f"the {name} principal point ({camera.cx:g}, {camera.cy:g}) does not fit an image"
        )
    if any(abs(each) > POSSIBLE_COEFFICIENT for each in camera.distortion):
        raise InputError(
            f"the {name} lens has implausible distortion coefficients: check their order and scale"
        )
    if camera.lens not in LENSES:
        raise InputError(f"the {name} lens is '{camera.lens}'; known: {', '.join(LENSES)}")
    count = len(camera.distortion)
    if camera.lens == "fisheye" and count != FISHEYE_COUNT:
        raise InputError(
            f"the {name} fisheye lens has {count} coefficients; its model has {FISHEYE_COUNT} "
            "(k1 to k4)"
        )
    if count not in LENS_COUNTS:
        raise InputError(
            f"the {name} lens has {count} coefficients; OpenCV's model has "
            f"{', '.join(map(str, LENS_COUNTS[:-1]))} or {LENS_COUNTS[-1]} (k1, k2, p1, p2, k3, "
            "...): add zeros for those that are missing"
        )


def check_size(size: tuple[int, int] | None) -> None:
    """Raise ``InputError`` for an impossible width and height, pixels."""
    if size is not None and not 1 <= min(size) <= max(size) <= MAX_SIDE:
        raise InputError(
            f"the size is {size[0]}x{size[1]} pixels: both must be positive, at most {MAX_SIDE}"
        )


def check_pose(rotation: tuple[tuple[float, ...], ...], translation: tuple[float, ...]) -> None:
    """Raise ``InputError`` unless these are a rotation, (3, 3), and a translation, metres."""
    if [len(row) for row in rotation] != [3, 3, 3]:
        raise InputError("the rotation is not 3 rows of 3 numbers")
    turn = np.array(rotation, np.float64)
    if len(translation) != 3 or not (np.isfinite(turn).all() and np.isfinite(translation).all()):
        raise InputError("the translation or rotation has numbers that are missing or not finite")
    if np.abs(turn @ turn.T - np.eye(3)).max() > ORTHONORMAL or np.linalg.det(turn) < 0:
        raise InputError(
            "the rotation is invalid: its rows must have length 1, be at right angles to each "
            "other and not mirror"
        )


def number(value: Any) -> float:
    """Return a number of a file, in decimal ASCII digits.

    Raises:
        ValueError: not a number, or one such as 0700 that some programs read as octal.
    """
    try:
        text = str(value)
        if isinstance(value, bool) or "_" in text or not text.isascii():
            raise ValueError
        if re.fullmatch(r"[-+]?0[0-9]+", text):
            raise ValueError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"could not convert '{str(value)[:40]}' to a number: write it in plain decimal digits"
        ) from None


def picture_size(width: Any, height: Any) -> tuple[int, int]:
    """Return width and height as whole numbers; some files have them as 741.0.

    Raises:
        InputError: they are none.
    """
    sides = number(width), number(height)
    if not all(side.is_integer() for side in sides):
        raise InputError(f"the size is {width} x {height}: expected whole numbers of pixels")
    return int(sides[0]), int(sides[1])


def _camera_from_dict(data: dict[str, Any]) -> Camera:
    fx, fy, cx, cy = (number(data[key]) for key in ("fx", "fy", "cx", "cy"))
    distortion = tuple(number(each) for each in data["distortion"])
    return Camera(fx, fy, cx, cy, distortion, str(data.get("lens", "pinhole")))
