"""Disparity errors: counted per image as sums, then averaged by a protocol.

With e = |estimate - truth| over the counted pixels:

* EPE, the end-point error: mean of e, in pixels.
* bad-t: share of pixels with e > t px, in percent.
* D1 (KITTI 2015): share of pixels with e > 3 px and e > 5 % of the true disparity, in percent.

Everything is kept as one row of sums per image, so no figure depends on the batch size, on the
order of work or on the number of processes. ``stereo.torch_metric`` wraps the same rows as a
torchmetrics ``Metric``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stereo.protocols import Averaging, Protocol
from stereo.regions import REGIONS, regions
from stereo.risk import TrustScore, score_trust, summarise_trust

THRESHOLDS_PX = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
METRICS = ("epe", "bad_0.5", "bad_1", "bad_2", "bad_3", "bad_4", "bad_5", "d1")
COLUMNS = ("pixels", *METRICS)
GROUP = 8
OCCLUSIONS = ("nonoccluded", "occluded")
REGION_METRICS = ("epe", "bad_3")  # of a region in one image; those of all images have every one


@dataclass
class ImageScore:
    """The sums of one image.

    Attributes:
        name: the image's name.
        index: its place in the list of images.
        sums: region -> (9,) float64: pixel count, sum of errors, counts of bad pixels as in
            ``COLUMNS``. ``all`` is the protocol's own region; ``nonoccluded`` and ``occluded``
            come on top where a mask exists, and the parts of ``all`` that ``stereo.regions`` names.
        seconds: time of the match, or None.
        skipped: whether the image has too few valid pixels to count.
        trust: what the confidence is worth, where it was asked for.
    """

    name: str
    index: int
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float | None = None
    skipped: bool = False
    trust: TrustScore | None = None

    def has(self, region: str) -> bool:
        """Tell whether any pixel of a region counts."""
        return region in self.sums and self.sums[region][0] > 0


def error_sums(estimate: np.ndarray, truth: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Count the errors of one image.

    Args:
        estimate: (H, W) float, pixels.
        truth: (H, W) float, pixels.
        counted: (H, W) bool, the pixels that take part.

    Returns:
        (9,) float64: the columns of ``COLUMNS`` as sums over pixels.

    Raises:
        ValueError: the shapes differ, or an estimate that counts is not finite.
    """
    return _sums(*_errors(estimate, truth, counted))


def score_image(
    name: str,
    index: int,
    estimate: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray,
    protocol: Protocol,
    nonoccluded: np.ndarray | None = None,
    seconds: float | None = None,
    left: np.ndarray | None = None,
    measures: Mapping[str, np.ndarray] | None = None,
) -> ImageScore:
    """Score one image under a protocol.

    Args:
        name: the image's name.
        index: its place in the list of images.
        estimate: (H, W) float32, pixels.
        truth: (H, W) float32, pixels.
        valid: (H, W) bool, true where the data set has ground truth.
        protocol: the rules.
        nonoccluded: (H, W) bool, or None if unknown.
        seconds: time of the match.
        left: (H, W, 3) uint8, the left view, which tells flat areas from textured ones; or None.
        measures: ``confidence`` and others beside it, (H, W) each; more is surer.
    """
    counted = protocol.valid_pixels(truth, valid)
    score = ImageScore(name, index, seconds=seconds)
    if nonoccluded is not None:
        score.sums["nonoccluded"] = error_sums(estimate, truth, counted & nonoccluded)
        score.sums["occluded"] = error_sums(estimate, truth, counted & ~nonoccluded)
        if protocol.nonoccluded_only:
            counted = counted & nonoccluded
    error, true = _errors(estimate, truth, counted)
    score.sums["all"] = _sums(error, true)
    for region, mask in regions(truth, valid, left).items():
        inside = mask[counted]
        score.sums[region] = _sums(error[inside], true[inside])
    score.skipped = not protocol.enough_valid(counted)
    if measures is not None and counted.any():
        error = np.abs(estimate[counted] - truth[counted])
        others = {name: each[counted] for name, each in measures.items()}
        score.trust = score_trust(error, others.pop("confidence"), others)
    return score


def figures(sums: np.ndarray) -> dict[str, float]:
    """Turn (9,) sums into EPE in pixels and rates in percent, by metric name."""
    means = sums[1:] / sums[0]
    return {
        name: float(m) * (1 if name == "epe" else 100)
        for name, m in zip(METRICS, means, strict=True)
    }


def image_record(score: ImageScore) -> dict[str, object]:
    """Return an image's entry in ``metrics.json``."""
    record: dict[str, object] = {"name": score.name}
    if score.sums["all"][0] > 0:
        record |= figures(score.sums["all"])
    record["valid_pixels"] = int(score.sums["all"][0])
    record["seconds"] = score.seconds
    if score.skipped:
        record["skipped"] = True
    for region in OCCLUSIONS:
        if score.has(region):
            record[region] = figures(score.sums[region])
    parts = {region: score.sums[region] for region in REGIONS if score.has(region)}
    if parts:
        record["regions"] = {
            region: {name: figures(sums)[name] for name in REGION_METRICS}
            | {"valid_pixels": int(sums[0])}
            for region, sums in parts.items()
        }
    if score.trust is not None:
        record["confidence"] = score.trust.ause()
    return record


def score_of_record(record: Mapping[str, Any], index: int) -> ImageScore:
    """Return the score that an entry of ``metrics.json`` was made from; ``index`` is its place.

    Of the regions that ``stereo.regions`` names, the sums that an entry does not keep are NaN.

    Raises:
        KeyError, TypeError, ValueError: an entry that lacks a figure.
    """
    score = ImageScore(str(record["name"]), index, seconds=record.get("seconds"))
    pixels = int(record["valid_pixels"])
    score.sums["all"] = _sums_of(record, pixels) if pixels else np.zeros(len(COLUMNS))
    score.skipped = bool(record.get("skipped", False)) or not pixels
    for region, entry in record.get("regions", {}).items():
        if region in REGIONS:
            score.sums[region] = _sums_of(entry, int(entry["valid_pixels"]))
    return score


def _sums_of(entry: Mapping[str, Any], pixels: int) -> np.ndarray:
    shares = [entry.get(name, np.nan) / (1 if name == "epe" else 100) for name in METRICS]
    return np.array([1.0, *shares]) * pixels


def summarise(scores: Sequence[ImageScore], averaging: Averaging) -> dict[str, object]:
    """Average the scores of all images.

    Args:
        scores: one per image, in any order; skipped ones are counted but take no part.
        averaging: the protocol's own; it gives the keys without a suffix.

    Returns:
        ``epe``, ``bad_1`` and so on under the protocol's own averaging; ``epe_pixel`` pooled over
        pixels; ``epe_image`` the mean over images; the same for ``nonoccluded`` and ``occluded``
        where masks exist, and under ``regions`` for the parts that ``stereo.regions`` names;
        ``images``, ``skipped`` and ``valid_pixels``.
    """
    ordered = sorted(scores, key=lambda s: s.index)
    counting = [s for s in ordered if not s.skipped]
    summary: dict[str, object] = {}
    if counting:
        averages = {kind: _average(counting, "all", kind) for kind in ("pixel", "image", "group8")}
        summary |= averages[averaging]
        for kind in ("pixel", "image"):
            summary |= {f"{name}_{kind}": value for name, value in averages[kind].items()}
    for region in OCCLUSIONS:
        having = [s for s in counting if s.has(region)]
        if having:
            summary[region] = _part(having, region)
    parts = {region: [s for s in counting if s.has(region)] for region in REGIONS}
    if any(parts.values()):
        summary["regions"] = {
            region: _part(having, region) for region, having in parts.items() if having
        }
    trusts = [s.trust for s in counting if s.trust is not None]
    if trusts:
        summary["confidence"] = summarise_trust(trusts)
    summary["images"] = len(counting)
    summary["skipped"] = len(ordered) - len(counting)
    summary["skipped_names"] = [s.name for s in ordered if s.skipped]
    summary["valid_pixels"] = int(sum(s.sums["all"][0] for s in counting))
    return summary


def _errors(
    estimate: np.ndarray, truth: np.ndarray, counted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return absolute errors and true disparities of the counted pixels, (N,) float64 each."""
    if not estimate.shape == truth.shape == counted.shape:
        raise ValueError(
            f"estimate {estimate.shape}, truth {truth.shape} and mask {counted.shape} differ"
        )
    true = truth[counted].astype(np.float64)
    error = np.abs(estimate[counted].astype(np.float64) - true)
    if not np.isfinite(error).all():
        raise ValueError("the estimate is not finite at a pixel that counts")
    return error, true


def _sums(error: np.ndarray, true: np.ndarray) -> np.ndarray:
    bad = [(error > t).sum() for t in THRESHOLDS_PX]
    d1 = ((error > 3) & (error > 0.05 * np.abs(true))).sum()
    return np.array([error.size, error.sum(), *bad, d1], dtype=np.float64)


def _part(scores: Sequence[ImageScore], region: str) -> dict[str, object]:
    averages: dict[str, object] = {
        f"{name}_{kind}": value
        for kind in ("pixel", "image")
        for name, value in _average(scores, region, kind).items()
    }
    pixels = int(sum(s.sums[region][0] for s in scores))
    return averages | {"images": len(scores), "valid_pixels": pixels}


def _average(scores: Sequence[ImageScore], region: str, kind: str) -> Mapping[str, float]:
    rows = np.stack([s.sums[region] for s in scores])
    if kind == "pixel":
        return figures(rows.sum(axis=0))
    if kind == "group8":
        groups = np.array([s.index // GROUP for s in scores])
        rows = np.stack([rows[groups == g].sum(axis=0) for g in np.unique(groups)])
    per_row = [figures(row) for row in rows]
    return {name: float(np.mean([f[name] for f in per_row])) for name in METRICS}
