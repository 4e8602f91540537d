"""Quality of a confidence measure: sparsification curves, and whether it is calibrated.

A sparsification curve keeps pixels in the order of a measure, the most confident first; at
coverage c it is the mean error of the share c that is kept. The oracle keeps them in the order of
the true error. AUSE, the area under the sparsification error (Ilg et al., ECCV 2018), is the mean
over all coverages of the measure's curve minus the oracle's: 0 is perfect. Pixels with the same
value count with their mean error, so that no figure depends on their order.

Reliability: the share of pixels within 3 px of the truth, in ten bins of confidence.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WITHIN = 3.0  # pixels: what confidence is the probability of
COVERAGES = np.arange(1, 101) / 100
ERRORS = ("epe", "bad_3")
ORACLE = "oracle"
BINS = 10


@dataclass(eq=False)
class ConfidenceScore:
    """Sparsification curves and reliability of an image's confidence measures."""

    # measure -> (2, 100) float64, EPE in pixels and bad-3 in percent at each coverage; `oracle`
    # among them
    curves: dict[str, np.ndarray]
    bins: np.ndarray  # (10, 3) float64, see `reliability_sums`

    def ause(self) -> dict[str, dict[str, float]]:
        """Return ``ause_epe`` and ``ause_bad_3``, for each measure; pixels and percent points."""
        return ause(self.curves)


def score_confidence(
    error: np.ndarray, confidence: np.ndarray, baselines: Mapping[str, np.ndarray]
) -> ConfidenceScore:
    """Score the measures of an image's pixels.

    Args:
        error: (N,) absolute errors, pixels; at least one.
        confidence: (N,) 0..1.
        baselines: other measures by name, (N,) each; more is surer.
    """
    errors = np.stack([error.astype(np.float64), 100.0 * (error > WITHIN)])
    measures = {"confidence": confidence, **baselines}
    curves = {name: _curve(errors, -measure) for name, measure in measures.items()}
    curves[ORACLE] = np.concatenate([_curve(each[None], each) for each in errors])
    return ConfidenceScore(curves, reliability_sums(confidence, error <= WITHIN))


def ause(curves: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return ``ause_epe`` and ``ause_bad_3`` for each measure of ``ConfidenceScore.curves``."""
    return {
        f"ause_{kind}": {
            name: float((curve[i] - curves[ORACLE][i]).mean())
            for name, curve in curves.items()
            if name != ORACLE
        }
        for i, kind in enumerate(ERRORS)
    }


def summarize_confidence(scores: Sequence[ConfidenceScore]) -> dict[str, object]:
    """Average over images, and pool the reliability over pixels.

    Returns:
        ``ause_epe``, ``ause_bad_3`` (measure -> value), ``curves`` (``coverage``, and kind ->
        measure -> values) and ``reliability`` (one entry per bin with pixels).
    """
    curves = {
        name: np.mean([score.curves[name] for score in scores], axis=0)
        for name in scores[0].curves
        if all(name in score.curves for score in scores)
    }
    by_error = {
        kind: {name: curve[i].tolist() for name, curve in curves.items()}
        for i, kind in enumerate(ERRORS)
    }
    bins = np.sum([score.bins for score in scores], axis=0)
    return {
        **ause(curves),
        "curves": {"coverage": COVERAGES.tolist(), **by_error},
        "reliability": reliability(bins),
    }


def reliability_sums(confidence: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Return (10, 3) float64, per bin of confidence: pixels, sum of confidences, count within 3 px.

    Args:
        confidence: (N,) 0..1.
        within: (N,) bool.
    """
    at = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return np.stack([np.bincount(at, each, BINS) for each in (None, confidence, within)], axis=1)


def reliability(sums: np.ndarray) -> list[dict[str, float]]:
    """Turn ``reliability_sums``, of one image or added up over many, into figures.

    Returns:
        For each bin that has pixels ``low``, ``high``, ``pixels``, and the means ``confidence`` and
        ``within_3_px``.
    """
    edges = np.linspace(0, 1, BINS + 1).round(6).tolist()
    return [
        {
            "low": low,
            "high": high,
            "pixels": int(pixels),
            "confidence": float(said / pixels),
            "within_3_px": float(right / pixels),
        }
        for (low, high), (pixels, said, right) in zip(itertools.pairwise(edges), sums, strict=True)
        if pixels
    ]


def _curve(errors: np.ndarray, key: np.ndarray) -> np.ndarray:  # (R, N), (N,) -> (R, 100)
    """Return the mean errors of the pixels of the smallest keys, at each coverage."""
    _, group, count = np.unique(key, return_inverse=True, return_counts=True)
    kept = np.maximum(np.rint(COVERAGES * len(key)).astype(int), 1)
    before = np.concatenate([[0], np.cumsum(count)])
    last = np.searchsorted(before, kept) - 1  # the group that the last kept pixel is of
    part = (kept - before[last]) / count[last]
    curves = []
    for error in errors:
        sums = np.bincount(group, error)
        through = np.concatenate([[0], np.cumsum(sums)])
        curves.append((through[last] + part * sums[last]) / kept)
    return np.stack(curves)
