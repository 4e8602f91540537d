"""A stereo pair with its ground truth: on disk, and in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from stereo.data.io.decoders import Decoder, MaskReader, decode_stored
from stereo.data.io.images import as_images
from stereo.errors import InputError


@dataclass(frozen=True, eq=False)
class Sample:
    """A pair in memory."""

    name: str  # unique within its data set
    left: np.ndarray  # (H, W, 3) uint8 RGB
    right: np.ndarray  # (H, W, 3) uint8 RGB
    # (H, W) float32, pixels of the left image; None without ground truth. Where `valid` is false
    # its value means nothing.
    disparity: np.ndarray | None = None
    # (H, W) bool, true where there is ground truth; None without it
    valid: np.ndarray | None = None
    # (H, W) bool, true where the right view sees the pixel too; None if unknown or not asked for
    nonoccluded: np.ndarray | None = None
    # (H, W) float32, pixels, positive: a pixel of the right view lies that far to the right in the
    # left one; None if unknown or not asked for
    disparity_right: np.ndarray | None = None
    valid_right: np.ndarray | None = None  # (H, W) bool, true where the right view has ground truth


class Readable(Protocol):
    """A pair that can be read, from disk or by rendering."""

    @property
    def name(self) -> str:
        """Unique name within its data set."""

    @property
    def has_truth(self) -> bool:
        """Whether the left view has ground truth."""

    def read(
        self, *, disparity: bool = True, disparity_right: bool = False, nonoccluded: bool = False
    ) -> Sample:
        """Read the views and, on request, ground truth."""


@dataclass(frozen=True)
class SampleFiles:
    """The files of one pair, and how its ground truth is read."""

    name: str  # unique within its data set
    left: Path  # left image
    right: Path  # right image
    disparity: Path | None = None  # ground truth for the left image, or None
    disparity_right: Path | None = None  # ground truth for the right image, or None
    # masks of the left image, each with its reader; a pixel counts as non-occluded when all say so.
    # Empty if unknown.
    nonoccluded: tuple[tuple[Path, MaskReader], ...] = ()
    decode: Decoder = decode_stored  # how disparities are stored
    # whether a disparity of 0 means "no ground truth". Scene Flow's are real.
    zero_is_missing: bool = True
    dense: bool = False  # whether every pixel has ground truth, so that NaN and infinity are faults
    subject: str = ""  # what it shows, PLACE/FRAME, where other pairs show the same place
    # bits that 16-bit samples of the images have at least, known from their series
    least_depth: int = 8

    @property
    def has_truth(self) -> bool:
        """Whether the left view has ground truth."""
        return self.disparity is not None

    def read(
        self, *, disparity: bool = True, disparity_right: bool = False, nonoccluded: bool = False
    ) -> Sample:
        """Read and check both images and whatever is requested; no other file is opened.

        Raises:
            InputError: a file cannot be read, or the sizes differ.
        """
        left, right = read_pair(self.left, self.right, self.least_depth)
        truth, valid = self.read_truth(self.disparity if disparity else None, left)
        truth_right, valid_right = self.read_truth(
            self.disparity_right if disparity_right else None, left
        )
        mask = self.read_nonoccluded(left) if nonoccluded else None
        return Sample(self.name, left, right, truth, valid, mask, truth_right, valid_right)

    def known(self, disparity: np.ndarray) -> np.ndarray:
        """Return where decoded disparities are ground truth: (H, W) bool."""
        valid = np.isfinite(disparity)
        return valid & (disparity != 0) if self.zero_is_missing else valid

    def read_truth(
        self, path: Path | None, left: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Read one view's disparities and their valid mask; None for both without a file.

        Returns:
            (H, W) float32 pixels, and (H, W) bool.

        Raises:
            InputError: the file cannot be read, or has another size.
        """
        if path is None:
            return None, None
        disparity = self.decode(path, (left.shape[0], left.shape[1]))
        _check_size(path, disparity, self.left, left, "ground truth")
        valid = self.known(disparity)
        return disparity, valid

    def read_nonoccluded(self, left: np.ndarray) -> np.ndarray | None:
        """Read the occlusion masks: (H, W) bool, true where both views see the pixel.

        Raises:
            InputError: a mask cannot be read, or has another size.
        """
        together = None
        for path, read_mask in self.nonoccluded:
            mask = read_mask(path)
            _check_size(path, mask, self.left, left, "occlusion mask")
            together = mask if together is None else together & mask
        return together


def read_pair(left: Path, right: Path, least_depth: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Read two views and check that their sizes agree.

    Returns:
        left and right, (H, W, 3) uint8 RGB each.
    """
    left_image, right_image = as_images([left, right], [str(left), str(right)], least_depth)
    check_same_size(left_image, right_image, str(left), str(right))
    return left_image, right_image


def check_same_size(left: np.ndarray, right: np.ndarray, left_name: str, right_name: str) -> None:
    """Raise ``InputError`` unless both (H, W, 3) views have one size."""
    if left.shape != right.shape:
        raise InputError(
            f"{left_name} is {size_text(left)} and {right_name} is {size_text(right)}: the two "
            "views of a rectified pair have the same size"
        )


def _check_size(
    path: Path, array: np.ndarray, left_path: Path, left: np.ndarray, role: str
) -> None:
    if array.shape[:2] != left.shape[:2]:
        raise InputError(
            f"{path} is {size_text(array)} and {left_path} is {size_text(left)}: "
            f"the {role} must have the left image's size"
        )


def size_text(array: np.ndarray) -> str:
    """Return an image's size for a message: width x height."""
    return f"{array.shape[1]}x{array.shape[0]}"
