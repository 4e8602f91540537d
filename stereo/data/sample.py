"""One stereo pair with its ground truth: the files, and what they hold once read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stereo.data.disparities import read_disparity
from stereo.data.images import check_readable, read_image
from stereo.errors import InputError


@dataclass(frozen=True)
class Sample:
    """A pair in memory.

    Attributes:
        name: what tells it from the others of its data set.
        left: (H, W, 3) uint8 RGB.
        right: (H, W, 3) uint8 RGB.
        disparity: (H, W) float32, pixels of the left image; None without ground truth. Where
            ``valid`` is false its value means nothing.
        valid: (H, W) bool, true where there is ground truth; None without it.
        nonoccluded: (H, W) bool, true where the right view sees the pixel too; None if unknown.
    """

    name: str
    left: np.ndarray
    right: np.ndarray
    disparity: np.ndarray | None = None
    valid: np.ndarray | None = None
    nonoccluded: np.ndarray | None = None


@dataclass(frozen=True)
class SampleFiles:
    """The files of one pair, and how its ground truth is to be read.

    Attributes:
        name: what tells it from the others of its data set.
        left: left image.
        right: right image.
        disparity: ground truth for the left image, or None.
        scale: stored value per pixel, for integer pictures; None for the format's own.
        zero_is_missing: whether a stored 0 means "no ground truth". Scene Flow's zeros are real.
        nonoccluded: Middlebury-style mask, 255 where both views see the pixel, or None.
    """

    name: str
    left: Path
    right: Path
    disparity: Path | None = None
    scale: float | None = None
    zero_is_missing: bool = True
    nonoccluded: Path | None = None

    def read(self) -> Sample:
        """Read and check everything.

        Raises:
            InputError: a file cannot be read, or the sizes differ.
        """
        left, right = read_pair(self.left, self.right)
        if self.disparity is None:
            return Sample(self.name, left, right)
        disparity = read_disparity(self.disparity, self.scale)
        _check_size(self.disparity, disparity, self.left, left, "ground truth")
        valid = np.isfinite(disparity)
        if self.zero_is_missing:
            valid &= disparity != 0
        nonoccluded = None
        if self.nonoccluded is not None:
            nonoccluded = _read_mask(self.nonoccluded)
            _check_size(self.nonoccluded, nonoccluded, self.left, left, "occlusion mask")
        return Sample(self.name, left, right, disparity, valid, nonoccluded)


def read_pair(left: Path, right: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read two views and check that their sizes agree.

    Returns:
        left and right, (H, W, 3) uint8 RGB each.
    """
    left_image, right_image = read_image(left), read_image(right)
    check_same_size(left_image, right_image, str(left), str(right))
    return left_image, right_image


def check_same_size(left: np.ndarray, right: np.ndarray, left_name: str, right_name: str) -> None:
    """Raise ``InputError`` unless both (H, W, 3) views have one size."""
    if left.shape != right.shape:
        raise InputError(
            f"{left_name} is {_size(left)} and {right_name} is {_size(right)}: the two views of a "
            "rectified pair have the same size"
        )


def _check_size(
    path: Path, array: np.ndarray, left_path: Path, left: np.ndarray, role: str
) -> None:
    if array.shape[:2] != left.shape[:2]:
        raise InputError(
            f"{path} is {_size(array)} and {left_path} is {_size(left)}: "
            f"the {role} must have the left image's size"
        )


def _read_mask(path: Path) -> np.ndarray:
    check_readable(path)
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L")) == 255
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: damaged or not a mask ({error})") from error


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
