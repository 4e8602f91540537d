"""Detect ground truth in another unit than pixels from its ratio to the map.

KITTI's PNGs hold pixels x 256, other files x 16, x 64 or x 100, and some truth is divided by the
image's width. Read as pixels, such truth silently spoils every metric. A correct map reveals it:
truth / map is then constant over the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SPREAD = 0.2  # largest interquartile range of log(truth / map) of a constant ratio
FAR = 1.5  # smallest ratio, or one over it, that is worth a word
NEAR = 0.03  # of the logarithm: how close to a usual factor counts as that factor
USUAL = (16, 32, 64, 100, 128, 256, 512, 1000, 1024, 65535)
MIN_PIXELS = 100
SAMPLE = 20_000  # pixels


@dataclass(frozen=True)
class Ratio:
    """How an image's ground truth compares with its map."""

    median: float  # of log(truth / map)
    spread: float  # interquartile range of the same
    variation: float  # interquartile range of log(map)
    width: int  # of the image, pixels


def ratio_to_map(estimate: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> Ratio | None:
    """Compare truth and map over all valid pixels.

    Args:
        estimate: (H, W) float, pixels; those of at most 1 px say too little.
        truth: (H, W) float; what is not positive has no ratio.
        valid: (H, W) bool, true where there is ground truth.

    Returns:
        None where fewer than ``MIN_PIXELS`` can be compared.
    """
    with np.errstate(invalid="ignore"):
        known = valid & np.isfinite(truth) & (truth > 0) & np.isfinite(estimate) & (estimate > 1)
    places = np.flatnonzero(known)
    if len(places) < MIN_PIXELS:
        return None
    places = places[:: -(-len(places) // SAMPLE)]
    own = np.log(estimate.ravel()[places].astype(np.float64))
    ratio = np.log(truth.ravel()[places].astype(np.float64)) - own
    low, median, high = np.percentile(ratio, (25, 50, 75))
    variation = np.subtract(*np.percentile(own, (75, 25)))
    return Ratio(float(median), float(high - low), float(variation), truth.shape[1])


def constant_ratio(ratios: Sequence[Ratio], stored: float = 1.0) -> float | None:
    """Return the ratio of truth to map that all images share, if there is one far from 1.

    The map must vary more than the ratio does, or the ratio must be a usual one: a flat map, as
    networks without training give, has a constant ratio to a flat truth as well.
    """
    if not ratios:
        return None
    low, median, high = np.percentile([ratio.median for ratio in ratios], (25, 50, 75))
    spread = max(high - low, float(np.median([ratio.spread for ratio in ratios])))
    if spread > SPREAD or abs(median) < np.log(FAR):
        return None
    ratio = float(np.exp(median))
    usual = [_usual(1 / ratio, [r.width for r in ratios]), _usual(ratio), _usual(ratio * stored)]
    varies = float(np.median([ratio.variation for ratio in ratios])) > 2 * spread
    return ratio if varies or any(usual) else None


def scale_hint(ratios: Sequence[Ratio], option: str, stored: float | None = None) -> str | None:
    """Return a line that the ground truth seems to be stored in another unit than pixels.

    Returns:
        None unless ``constant_ratio`` finds one.
    """
    ratio = constant_ratio(ratios, stored or 1.0)
    if ratio is None:
        return None
    widths = [each.width for each in ratios]
    factor = _rounded(max(ratio, 1 / ratio), () if ratio > 1 else widths)
    said = f"{factor:g} times" if ratio > 1 else f"1/{factor:g} of"
    of_width = ratio < 1 and factor in widths
    width = ", divided by the image's width" if of_width else ""
    if stored is None:
        verb = "divide" if ratio > 1 else "multiply"
        mend = f"{verb} it by {factor:g} to have pixels ({option} is for integer images)"
    else:
        mend = f"give {option} {_rounded(stored * ratio):g}"
    return (
        f"ground truth is about {said} the map everywhere: stored with a scale{width}? {mend}; "
        "the errors mean nothing until then"
    )


def _usual(factor: float, others: Sequence[int] = ()) -> int | None:
    """Return the common factor within ``NEAR`` of this one."""
    closest = min((*USUAL, *others), key=lambda usual: abs(np.log(usual / factor)))
    return closest if abs(np.log(closest / factor)) < NEAR else None


def _rounded(factor: float, others: Sequence[int] = ()) -> float:
    return float(_usual(factor, others) or f"{factor:.2g}")
