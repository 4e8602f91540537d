"""Compare an exported file with its network on rendered pairs."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stereo.data.synthetic import RenderedPair, SyntheticConfig, SyntheticScenes
from stereo.errors import StereoError
from stereo.export.graph import Exportable
from stereo.matching.matcher import Matcher
from stereo.matching.onnx_engine import OnnxEngine
from stereo.models import NetworkConfig

MAX_MEAN_ERROR, MAX_ERROR = 1e-3, 0.05  # pixels by which a map may differ from PyTorch's
MAX_CERTAINTY_ERROR = 1e-3  # on average
TIMES = 4
UNSEEN = ((1, 240, 400), (3, 121, 203))
"""Batch, height and width of what an export is checked at: none that was traced, and one that is
no multiple of the stride."""
_SEED = 20_260_000


@dataclass(frozen=True)
class Difference:
    """How far two matchers' maps lie apart, pixels."""

    mean: float
    largest: float
    certainty: float
    """How far their certainties lie apart on average, 0 to 1."""
    rounding: float | None = None
    """How far apart the maps of PyTorch in fp32 and in float64 lie, where that was asked."""

    def within(self, mean: float, largest: float, certainty: float) -> bool:
        """Return whether it is within a limit; False for NaN."""
        return self.mean <= mean and self.largest <= largest and self.certainty <= certainty


def rendered(
    height: int, width: int, max_disparity: int, count: int, first: int = 0
) -> list[RenderedPair]:
    """Return pairs whose disparities lie below ``max_disparity`` and half their width."""
    within = min(max_disparity, width // 2)
    config = SyntheticConfig(height=height, width=width, max_disparity=within, seed=_SEED)
    scenes = SyntheticScenes(config)
    return [scenes.render(first + index) for index in range(count)]


def check_against_pytorch(
    reference: Matcher, config: NetworkConfig, exported: OnnxEngine
) -> list[Difference]:
    """Match rendered pairs of each size in ``UNSEEN`` by both.

    Where a network's own rounding in fp32 moves its map by more than the tolerances, as random
    weights do whose logits run into the thousands, it may differ by ``TIMES`` as much as PyTorch in
    fp32 does from PyTorch in float64. Of untrained weights only the mean counts: their planes tie.

    Raises:
        StereoError: the maps differ by more.
    """
    untrained = reference.description["weights"] == "untrained"
    differences = []
    for batch, height, width in UNSEEN:
        pairs = rendered(height, width, reference.description["max_disparity"], batch)
        lefts, rights = [pair.left for pair in pairs], [pair.right for pair in pairs]
        ours = _stacked(reference.batch(lefts, rights))
        found = _difference(ours, _stacked(exported(lefts, rights)))
        most = np.inf if untrained else MAX_ERROR
        if found.within(MAX_MEAN_ERROR, most, MAX_CERTAINTY_ERROR):
            differences.append(found)
            continue
        assert reference.network is not None
        exact = Exportable(reference.network, config).double().eval()
        with torch.inference_mode():
            whole = exact(*(exported.padded(views).double() for views in (lefts, rights)))
        own = _difference([each.numpy()[..., -height:, :width] for each in whole], ours)
        found = dataclasses.replace(found, rounding=own.largest)
        if not found.within(
            max(MAX_MEAN_ERROR, TIMES * own.mean),
            max(MAX_ERROR, TIMES * own.largest),
            max(MAX_CERTAINTY_ERROR, TIMES * own.certainty),
        ):
            raise StereoError(
                f"at {width}x{height} the exported network differs from PyTorch by "
                f"{found.mean:.2g} px on average and {found.largest:.2g} px at most, and by "
                f"{found.certainty:.2g} in certainty; PyTorch's own error in fp32 is "
                f"{own.mean:.2g}, {own.largest:.2g} and {own.certainty:.2g}; nothing was "
                "written; please report this"
            )
        differences.append(found)
    return differences


def _stacked(found: Sequence[Any]) -> list[np.ndarray]:  # (B, H, W), (B, 2, H, W)
    return [np.stack([getattr(e, name) for e in found]) for name in ("disparity", "certainty")]


def _difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Difference:
    """Compare disparities and certainties."""
    apart, unsure = (np.abs(a.astype(np.float64) - b) for a, b in zip(ours, theirs, strict=True))
    return Difference(float(apart.mean()), float(apart.max()), float(unsure.mean()))


def mean_error(matcher: Matcher, pairs: Sequence[RenderedPair]) -> float:
    """Return the EPE over all pixels of pairs of one size, pixels."""
    truth = np.stack([pair.disparity for pair in pairs])
    return float(np.abs(maps_of(matcher, pairs) - truth).mean())


def maps_of(matcher: Matcher, pairs: Sequence[RenderedPair]) -> np.ndarray:  # (B, H, W)
    """Match pairs of one size at once."""
    results = matcher.batch([pair.left for pair in pairs], [pair.right for pair in pairs])
    return np.stack([result.disparity for result in results])
