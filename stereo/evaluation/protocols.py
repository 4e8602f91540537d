"""Evaluation protocols by name: which pixels of which images count, and how they are averaged.

The same disparities score differently under the protocols of different papers, so every figure
this package prints or stores names its protocol.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stereo.data.sets.sample import Sample
from stereo.errors import UsageError, unknown_name

Averaging = Literal["pixel", "image", "group8", "mixed"]

AVERAGING_TEXT: dict[Averaging, str] = {
    "pixel": "pooled over all valid pixels",
    "image": "mean over images",
    "group8": "mean over groups of 8 images in list order, pixels pooled within a group",
    "mixed": "EPE as the mean over images, rates pooled over all valid pixels",
}


@dataclass(frozen=True)
class Protocol:
    """Which pixels count and how they are averaged."""

    name: str  # what the command line calls it
    averaging: Averaging  # how the headline figures are formed
    # Pixels count if the data set has ground truth d there and above < d < below, in pixels. None
    # for no bound.
    above: float | None
    below: float | None = None
    least: float | None = None  # replaces `above` in `with_range`: least <= d
    images: str = "all"  # which images take part, in words
    render_pass: str = "final"  # the pass of rendered data that the protocol's users score
    nonoccluded_only: bool = False  # whether the headline leaves out occluded pixels
    # (rows, columns) at the bottom right that are matched and scored; None for the whole frame
    bottom_right_crop: tuple[int, int] | None = None
    # images are skipped of whose pixels with d > 0 a smaller share counts
    min_valid_share: float = 0.0
    # (count, seed) of a random subset of the image list, or None for all
    subset: tuple[int, int] | None = None

    @property
    def mask(self) -> str:
        """The rule for valid pixels, in words."""
        low = "" if self.above is None else f"{self.above:g} < "
        if self.least is not None:
            low = f"{self.least:g} <= "
        text = f"{low}d" + ("" if self.below is None else f" < {self.below:g}")
        if self.bottom_right_crop is not None:
            rows, columns = self.bottom_right_crop
            text += f", cropped to the bottom right {columns}x{rows} before matching"
        return text

    def with_range(self, min_disparity: int) -> "Protocol":
        """Return the protocol for a search that starts at ``min_disparity`` pixels.

        If that is negative, a lower bound of 0 is replaced by it, itself included.
        """
        if min_disparity >= 0 or self.above != 0:
            return self
        return dataclasses.replace(self, above=None, least=float(min_disparity))

    def crop(self, sample: Sample) -> Sample:
        """Return the part of a sample that is matched and scored."""
        if self.bottom_right_crop is None:
            return sample
        rows, columns = self.bottom_right_crop
        arrays: dict[str, Any] = {
            name: np.ascontiguousarray(value[-rows:, -columns:])
            for name, value in vars(sample).items()
            if isinstance(value, np.ndarray)
        }
        if sample.nonoccluded is not None and sample.disparity is not None:
            cut = arrays["disparity"]  # what matches left of the crop is occluded in it
            arrays["nonoccluded"] = arrays["nonoccluded"] & (cut <= np.arange(cut.shape[1]))
        return dataclasses.replace(sample, **arrays)

    def valid_pixels(self, disparity: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Return the (H, W) bool mask of pixels that count, before any occlusion mask.

        Args:
            disparity: (H, W) float32 ground truth, pixels.
            valid: (H, W) bool, true where the data set has ground truth.
        """
        counted = valid & np.isfinite(disparity)
        with np.errstate(invalid="ignore"):
            if self.above is not None:
                counted &= disparity > self.above
            if self.least is not None:
                counted &= disparity >= self.least
            if self.below is not None:
                counted &= disparity < self.below
        return counted

    def enough_valid(self, counted: np.ndarray, disparity: np.ndarray, valid: np.ndarray) -> bool:
        """Return whether an image takes part; the arrays are (H, W), as in ``valid_pixels``."""
        if not counted.any() or not self.min_valid_share:
            return bool(counted.any())
        positive = dataclasses.replace(self, above=0, below=None, least=None)
        known = positive.valid_pixels(disparity, valid).sum()
        return bool(counted.sum() >= self.min_valid_share * known)

    def choose_images(self, count: int) -> list[int]:
        """Return the indices of the images that take part, in list order."""
        if self.subset is None or count <= self.subset[0]:
            return list(range(count))
        size, seed = self.subset
        # The published choice was drawn with NumPy's legacy generator.
        chosen = np.random.RandomState(seed).permutation(count)[:size]
        return sorted(int(i) for i in chosen)

    def to_dict(self) -> dict[str, object]:
        """Return the facts that ``metrics.json`` and checkpoints store."""
        return {
            "name": self.name,
            "mask": self.mask,
            "averaging": AVERAGING_TEXT[self.averaging],
            "images": self.images,
            "region": "non-occluded" if self.nonoccluded_only else "all",
        }


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        Protocol("pooled", "pixel", above=0, below=192),
        # PSMNet main.py: `disp < maxdisp`, so zeros count; test batches of 8; clean pass.
        Protocol("psmnet", "group8", above=None, below=192, render_pass="clean"),
        # GwcNet, datasets/sceneflow_dataset.py: views and truth are cropped to the bottom right
        # 960x512 first; images are skipped with under 10 % of the pixels that have d > 0 in range.
        Protocol(
            "gwcnet",
            "image",
            above=0,
            below=192,
            images="all with at least 10 % of the pixels of d > 0 below 192",
            bottom_right_crop=(512, 960),
            min_valid_share=0.1,
        ),
        # RAFT-Stereo, validate_things: 400 random images of the list, NumPy seed 1000.
        Protocol(
            "raft",
            "mixed",
            above=-192,
            below=192,
            images="400 at random, seed 1000; all where there are fewer",
            subset=(400, 1000),
        ),
        # KITTI's development kits, read in copies of them in public repositories. Both interpolate
        # missing estimates from the background (maps here are dense), and score all pixels (`occ`)
        # and non-occluded ones (`noc`) apart.
        # 2012, evaluate_stereo.cpp: rates of e > 1, 2, 3, 4, 5 px and the mean error per image,
        # then the plain mean over images (statMean); no relative threshold.
        Protocol("kitti2012", "image", above=0),
        # 2015, evaluate_scene_flow.cpp: counts of outliers (e > 3 px and e > 5 %) and of pixels
        # are summed over images, then divided. Its background and foreground need `obj_map`.
        Protocol("kitti2015", "pixel", above=0),
        # At the size of the files, and without the weights of the table's average.
        Protocol("middlebury", "image", above=0, nonoccluded_only=True),
        Protocol("eth3d", "image", above=0, nonoccluded_only=True),
    )
}


def get_protocol(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        UsageError: the name is unknown; the message lists the known ones.
    """
    if name == "kitti":
        raise UsageError(
            "unknown protocol 'kitti': use 'kitti2012' (mean over images) or 'kitti2015' (pooled "
            "over pixels), as the two development kits differ"
        )
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
