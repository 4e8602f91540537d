"""An exported file beside the network it came from, on rendered pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stereo.data.synthetic import RenderedPair, SyntheticConfig, SyntheticScenes
from stereo.errors import StereoError
from stereo.matcher import Matcher

MOST_MEAN, MOST = 1e-3, 0.05  # pixels by which a map may differ from PyTorch's
UNSEEN = ((1, 240, 400), (3, 121, 203))
"""Batch, height and width of what an export is checked at: none that was traced, and one that is
no multiple of the stride."""
_SEED = 20_260_000


@dataclass(frozen=True)
class Difference:
    """How far two matchers' maps lie apart, pixels."""

    mean: float
    largest: float


def rendered(
    height: int, width: int, max_disparity: int, count: int, first: int = 0
) -> list[RenderedPair]:
    """Return pairs whose disparities lie below ``max_disparity`` and half their width."""
    within = min(max_disparity, width // 2)
    config = SyntheticConfig(height=height, width=width, max_disparity=within, seed=_SEED)
    scenes = SyntheticScenes(config)
    return [scenes.render(first + index) for index in range(count)]


def compare(reference: Matcher, exported: Matcher) -> list[Difference]:
    """Match rendered pairs of each size in ``UNSEEN`` by both.

    Random weights are held to ``MOST_MEAN`` alone: their logits run into the millions, and where
    two planes tie, the order of a sum decides.

    Raises:
        StereoError: the maps differ by more than ``MOST_MEAN`` or ``MOST``.
    """
    most = np.inf if reference.description["weights"] == "untrained" else MOST
    differences = []
    for batch, height, width in UNSEEN:
        pairs = rendered(height, width, reference.description["max_disparity"], batch)
        ours, theirs = (maps_of(matcher, pairs) for matcher in (reference, exported))
        apart = np.abs(ours.astype(np.float64) - theirs)
        found = Difference(float(apart.mean()), float(apart.max()))
        if not (found.mean <= MOST_MEAN and found.largest <= most):
            raise StereoError(
                f"the exported network differs from PyTorch by {found.mean:.2g} px on average and "
                f"{found.largest:.2g} px at most at {width}x{height}, where {MOST_MEAN:g} and "
                f"{MOST:g} are allowed; nothing was written. Untrained weights, whose planes tie, "
                "differ so as well"
            )
        differences.append(found)
    return differences


def mean_error(matcher: Matcher, pairs: Sequence[RenderedPair]) -> float:
    """Return the EPE over all pixels of pairs of one size, pixels."""
    truth = np.stack([pair.disparity for pair in pairs])
    return float(np.abs(maps_of(matcher, pairs) - truth).mean())


def maps_of(matcher: Matcher, pairs: Sequence[RenderedPair]) -> np.ndarray:  # (B, H, W)
    """Match pairs of one size at once."""
    results = matcher.batch([pair.left for pair in pairs], [pair.right for pair in pairs])
    return np.stack([result.disparity for result in results])
