"""Evaluation protocols by name: which pixels of which images count, and how they are averaged.

The same disparities score differently under the protocols of different papers, so every figure
this package prints or stores names its protocol.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stereo.errors import unknown_name

Averaging = Literal["pixel", "image", "group8"]

AVERAGING_TEXT: dict[Averaging, str] = {
    "pixel": "pooled over all valid pixels",
    "image": "mean over images",
    "group8": "mean over groups of 8 images in list order, pixels pooled within a group",
}


@dataclass(frozen=True)
class Protocol:
    """Which pixels count and how they are averaged.

    Attributes:
        name: what the command line calls it.
        mask: the rule for valid pixels, in words.
        is_valid: the same rule on a ground-truth map (H, W) in pixels; finiteness and the data
            set's own "no ground truth" come on top.
        averaging: how the headline figures are formed.
        images: which images take part, in words.
        render_pass: the pass of rendered data that the protocol's users score.
        nonoccluded_only: whether the headline leaves out occluded pixels, where a mask exists.
        bottom_right_crop: (rows, columns) kept at the bottom right, or None for the whole frame.
        min_valid_share: images with a smaller share of valid pixels are skipped.
        subset: (count, seed) of a random subset of the image list, or None for all.
    """

    name: str
    mask: str
    is_valid: Callable[[np.ndarray], np.ndarray]
    averaging: Averaging
    images: str = "all"
    render_pass: str = "final"
    nonoccluded_only: bool = False
    bottom_right_crop: tuple[int, int] | None = None
    min_valid_share: float = 0.0
    subset: tuple[int, int] | None = None

    def valid_pixels(self, disparity: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Return the (H, W) bool mask of pixels that count, before any occlusion mask.

        Args:
            disparity: (H, W) float32 ground truth, pixels.
            valid: (H, W) bool, true where the data set has ground truth.
        """
        with np.errstate(invalid="ignore"):
            counted = valid & np.isfinite(disparity) & self.is_valid(disparity)
        if self.bottom_right_crop is not None:
            rows, columns = self.bottom_right_crop
            inside = np.zeros_like(counted)
            inside[-rows:, -columns:] = True
            counted &= inside
        return counted

    def enough_valid(self, counted: np.ndarray) -> bool:
        """Tell whether an image with these (H, W) counted pixels takes part."""
        region = counted.size
        if self.bottom_right_crop is not None:
            rows, columns = self.bottom_right_crop
            region = min(rows, counted.shape[0]) * min(columns, counted.shape[1])
        return bool(counted.any() and counted.sum() >= self.min_valid_share * region)

    def choose_images(self, count: int) -> list[int]:
        """Return the indices of the images that take part, in list order."""
        if self.subset is None or count <= self.subset[0]:
            return list(range(count))
        size, seed = self.subset
        # The published choice was drawn with NumPy's legacy generator.
        chosen = np.random.RandomState(seed).permutation(count)[:size]
        return sorted(int(i) for i in chosen)

    def describe(self) -> dict[str, object]:
        """Return what ``metrics.json`` and checkpoints store."""
        return {
            "name": self.name,
            "mask": self.mask,
            "averaging": AVERAGING_TEXT[self.averaging],
            "images": self.images,
            "region": "non-occluded where a mask exists" if self.nonoccluded_only else "all",
        }


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol("pooled", "0 < d < 192", lambda d: (d > 0) & (d < 192), "pixel"),
        # PSMNet main.py: `disp < maxdisp`, so zeros count; test batches of 8; clean pass.
        Protocol("psmnet", "d < 192", lambda d: d < 192, "group8", render_pass="clean"),
        # GwcNet: the bottom right 960x512, images with under 10 % valid pixels skipped.
        Protocol(
            "gwcnet",
            "0 < d < 192 in the bottom right 960x512",
            lambda d: (d > 0) & (d < 192),
            "image",
            images="all with at least 10 % valid pixels",
            bottom_right_crop=(512, 960),
            min_valid_share=0.1,
        ),
        # RAFT-Stereo: 400 random images of the list, NumPy seed 1000.
        Protocol(
            "raft",
            "|d| < 192",
            lambda d: np.abs(d) < 192,
            "image",
            images="400 at random, seed 1000; all where there are fewer",
            subset=(400, 1000),
        ),
        Protocol("kitti", "d > 0", lambda d: d > 0, "pixel"),
        Protocol("middlebury", "d > 0", lambda d: d > 0, "image", nonoccluded_only=True),
        Protocol("eth3d", "d > 0", lambda d: d > 0, "image", nonoccluded_only=True),
    )
}


def get_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        UsageError: the name is unknown; the message lists the known ones.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
