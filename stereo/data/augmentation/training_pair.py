"""A training pair, its exact geometric transforms, and its tensors."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stereo.data.augmentation.image_transforms import resize_image
from stereo.data.sets.sample import Sample
from stereo.errors import InputError


@dataclass(frozen=True, eq=False)
class TrainingPair:
    """A pair in memory whose left ground truth is known.

    Disparities are positive, in pixels of this pair's own images. Where a validity mask is false
    the value beside it means nothing.
    """

    name: str
    """What tells it from the others of its data set."""
    left: np.ndarray
    """(H, W, 3) uint8 RGB."""
    right: np.ndarray
    """(H, W, 3) uint8 RGB."""
    disparity: np.ndarray
    """(H, W) float32, pixels, of the left view."""
    valid: np.ndarray
    """(H, W) bool, true where there is ground truth for the left view."""
    right_disparity: np.ndarray | None = None
    """(H, W) float32, pixels, of the right view; None if unknown."""
    right_valid: np.ndarray | None = None
    """(H, W) bool, true where there is ground truth for the right view; None if unknown."""

    def __post_init__(self) -> None:
        assert self.left.shape == self.right.shape == (*self.size, 3), self.left.shape
        assert self.left.dtype == self.right.dtype == np.uint8, self.left.dtype
        assert (self.right_disparity is None) == (self.right_valid is None)
        for array, dtype in (
            (self.disparity, np.float32),
            (self.valid, np.bool_),
            (self.right_disparity, np.float32),
            (self.right_valid, np.bool_),
        ):
            if array is not None:
                assert array.shape == self.size and array.dtype == dtype, (array.shape, array.dtype)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return self.disparity.shape[0], self.disparity.shape[1]

    @classmethod
    def from_sample(cls, sample: Sample) -> "TrainingPair":
        """Make a training pair from a sample.

        Raises:
            InputError: the sample has no ground truth.
        """
        if sample.disparity is None or sample.valid is None:
            raise InputError(
                f"{sample.name}: no ground truth, so there is nothing to train on; "
                "choose a split that has it"
            )
        return cls(
            name=sample.name,
            left=sample.left,
            right=sample.right,
            disparity=sample.disparity,
            valid=sample.valid,
            right_disparity=sample.disparity_right,
            right_valid=sample.valid_right,
        )


def resize_pair(pair: TrainingPair, height: int, width: int) -> TrainingPair:
    """Resize a pair; disparities grow with the width.

    Images are interpolated. Ground truth takes the nearest pixel's, so that no value arises between
    two surfaces or across pixels without ground truth.
    """
    old_height, old_width = pair.size
    if (height, width) == (old_height, old_width):
        return pair
    rows = _nearest(height, old_height)[:, None]
    columns = _nearest(width, old_width)[None]
    factor = np.float32(width / old_width)
    maps = _changed_maps(pair, lambda array: array[rows, columns])
    for name in ("disparity", "right_disparity"):
        if maps[name] is not None:
            maps[name] = maps[name] * factor
    return dataclasses.replace(
        pair,
        left=resize_image(pair.left, height, width),
        right=resize_image(pair.right, height, width),
        **maps,
    )


def flip_pair(pair: TrainingPair) -> TrainingPair:
    """Mirror a pair left to right and swap its views, which keeps disparities positive."""
    if pair.right_disparity is None or pair.right_valid is None:
        raise ValueError(f"{pair.name}: cannot be flipped without the right view's disparity")
    maps = _changed_maps(pair, _mirror)
    return dataclasses.replace(
        pair,
        left=_mirror(pair.right),
        right=_mirror(pair.left),
        disparity=maps["right_disparity"],
        valid=maps["right_valid"],
        right_disparity=maps["disparity"],
        right_valid=maps["valid"],
    )


def pad_pair(pair: TrainingPair, height: int, width: int) -> TrainingPair:
    """Pad a pair to a size, at the top and right, by repeating its border.

    These are the sides on which networks are padded too. The new pixels have no ground truth.
    """
    top, right = max(0, height - pair.size[0]), max(0, width - pair.size[1])
    if not top and not right:
        return pair
    margins = ((top, 0), (0, right))
    return dataclasses.replace(
        pair,
        left=np.pad(pair.left, (*margins, (0, 0)), mode="edge"),
        right=np.pad(pair.right, (*margins, (0, 0)), mode="edge"),
        **_changed_maps(pair, lambda array: np.pad(array, margins)),
    )


def crop_pair(pair: TrainingPair, top: int, left: int, height: int, width: int) -> TrainingPair:
    """Crop both views alike."""
    window = (slice(top, top + height), slice(left, left + width))
    return dataclasses.replace(
        pair,
        left=np.ascontiguousarray(pair.left[window]),
        right=np.ascontiguousarray(pair.right[window]),
        **_changed_maps(pair, lambda array: np.ascontiguousarray(array[window])),
    )


def to_tensors(
    pair: TrainingPair, mean: Sequence[float], std: Sequence[float]
) -> dict[str, torch.Tensor]:
    """Return the training tensors, ready for PyTorch's default collate function.

    Args:
        pair: of any size.
        mean: subtracted from RGB in 0..1.
        std: divides RGB after the mean is subtracted.

    Returns:
        ``left`` and ``right`` (3, H, W) float32; ``disparity`` (H, W) float32, pixels, 0 where
        there is no ground truth; ``valid`` (H, W) bool.
    """
    scale = (1 / (255 * np.asarray(std, np.float64))).astype(np.float32)
    offset = (np.asarray(mean, np.float64) / np.asarray(std, np.float64)).astype(np.float32)

    def normalised(image: np.ndarray) -> torch.Tensor:
        planes = image.transpose(2, 0, 1) * scale[:, None, None] - offset[:, None, None]
        return torch.from_numpy(np.ascontiguousarray(planes))

    return {
        "left": normalised(pair.left),
        "right": normalised(pair.right),
        "disparity": torch.from_numpy(np.where(pair.valid, pair.disparity, np.float32(0))),
        "valid": torch.from_numpy(pair.valid.copy()),
    }


def _changed_maps(pair: TrainingPair, change: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Return every (H, W) array of the pair, changed, by its field's name."""
    names = ("disparity", "valid", "right_disparity", "right_valid")
    maps = {name: getattr(pair, name) for name in names}
    return {name: None if value is None else change(value) for name, value in maps.items()}


def _mirror(array: np.ndarray) -> np.ndarray:
    # A copy even where one column counts as contiguous: PyTorch takes no negative strides.
    return array[:, ::-1].copy()


def _nearest(count: int, old_count: int) -> np.ndarray:
    """Return, for ``count`` pixels over the span of ``old_count``, the nearest old index."""
    return (2 * np.arange(count) + 1) * old_count // (2 * count)
