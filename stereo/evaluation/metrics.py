"""Disparity errors: counted per image as sums, then averaged by a protocol.

With e = |estimate - truth| over the counted pixels:

* EPE, the end-point error: mean of e, in pixels.
* bad-t: share of pixels with e > t px, in percent.
* D1 (KITTI 2015): share of pixels with e > 3 px and e > 5 % of the true disparity, in percent.

Each figure is given twice: over all pixels that a protocol counts, and over the non-occluded ones
among them (``noc``), by the data set's mask or, without one, the ground truth's own geometry.

Everything is kept as one row of sums per image, so no figure depends on the batch size, on the
order of work or on the number of processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stereo.evaluation.protocols import Averaging, Protocol
from stereo.evaluation.regions import REGIONS, regions, seen_by_right
from stereo.evaluation.sparsification import ConfidenceScore, score_confidence, summarize_confidence
from stereo.evaluation.truth_scale import Ratio, ratio_to_map

THRESHOLDS_PX = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
METRICS = ("epe", "bad_0.5", "bad_1", "bad_2", "bad_3", "bad_4", "bad_5", "d1")
COLUMNS = ("pixels", *METRICS)
GROUP = 8
MAX_PIXELS = 2**53  # that a file may count, so that sums stay whole numbers
ALL, NOC, OCCLUDED = "all", "noc", "occluded"
PARTS = (*REGIONS, OCCLUDED)
REGION_METRICS = ("epe", "bad_3")  # of a region in one image; those of all images have every one


@dataclass(eq=False)
class ImageScore:
    """The sums of one image."""

    name: str  # the image's name
    index: int  # its place in the list of images
    # region -> (9,) float64: pixel count, sum of errors, counts of bad pixels as in `COLUMNS`.
    # `all` is what the protocol counts, occluded or not; `noc` and `occluded` are its two halves,
    # `stereo.evaluation.regions` names the parts of `own`.
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    own: str = ALL  # the region of the protocol's own figures, `all` or `noc`
    # source of the non-occluded mask, `data set` or `geometry`; None without `noc`
    mask: str | None = None
    seconds: float | None = None  # time of the match, or None
    skipped: bool = False  # whether the image has too few valid pixels to count
    # sparsification and calibration of the confidence, where it was asked for
    confidence: ConfidenceScore | None = None
    # how the ground truth compares with the map, where there is enough of both
    ratio: Ratio | None = None

    def has(self, region: str) -> bool:
        """Return whether any pixel of a region counts."""
        return region in self.sums and self.sums[region][0] > 0

    def counts(self, region: str) -> bool:
        """Return whether the image takes part in a region's averages.

        One that a protocol of non-occluded pixels skips still has its pixels of ``all``.
        """
        return self.has(region) and not (self.skipped and region in (self.own, NOC, OCCLUDED))


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
        nonoccluded: (H, W) bool, the data set's mask; None for the truth's own geometry.
        seconds: time of the match.
        left: (H, W, 3) uint8, the left view, which tells flat areas from textured ones; or None.
        measures: ``confidence`` and others beside it, (H, W) each; more is surer.
    """
    own = NOC if protocol.nonoccluded_only else ALL
    told_by = "geometry" if nonoccluded is None else "data set"
    score = ImageScore(name, index, own=own, mask=told_by, seconds=seconds)
    if nonoccluded is None:
        nonoccluded = seen_by_right(truth, valid & np.isfinite(truth))
    counted = protocol.valid_pixels(truth, valid)
    error, true = _errors(estimate, truth, counted)
    seen = nonoccluded[counted]
    score.sums = {
        ALL: _sums(error, true),
        NOC: _sums(error[seen], true[seen]),
        OCCLUDED: _sums(error[~seen], true[~seen]),
    }
    if own == NOC:
        counted, error, true = counted & nonoccluded, error[seen], true[seen]
    for region, mask in regions(truth, valid, left).items():
        inside = mask[counted]
        score.sums[region] = _sums(error[inside], true[inside])
    score.skipped = not protocol.enough_valid(counted, truth, valid)
    score.ratio = ratio_to_map(estimate, truth, valid)
    if measures is not None and counted.any():
        error = np.abs(estimate[counted] - truth[counted])
        others = {name: each[counted] for name, each in measures.items()}
        score.confidence = score_confidence(error, others.pop("confidence"), others)
    return score


def score_all_pixels(
    name: str,  # the image's name
    index: int,  # its place in the list of images
    estimate: np.ndarray,  # (H, W) float32, pixels
    truth: np.ndarray,  # (H, W) float32, pixels
    valid: np.ndarray,  # (H, W) bool, true where the data set has ground truth
    protocol: Protocol,
) -> ImageScore:
    """Score one image without regions, as validation in training does."""
    counted = protocol.valid_pixels(truth, valid)
    sums = {ALL: _sums(*_errors(estimate, truth, counted))}
    skipped, ratio = not protocol.enough_valid(counted, truth, valid), None
    if not skipped:
        ratio = ratio_to_map(estimate, truth, valid)
    return ImageScore(name, index, sums, skipped=skipped, ratio=ratio)


def figures(sums: np.ndarray) -> dict[str, float]:
    """Turn (9,) sums into EPE in pixels and rates in percent, by metric name."""
    means = sums[1:] / sums[0]
    return {
        name: float(m) * (1 if name == "epe" else 100)
        for name, m in zip(METRICS, means, strict=True)
    }


def image_record(score: ImageScore) -> dict[str, object]:
    """Return an image's entry in ``metrics.json``."""
    record: dict[str, object] = {"name": score.name, "index": score.index}
    record |= _entry(score.sums[score.own])
    record["seconds"] = score.seconds
    if score.skipped:
        record["skipped"] = True
    if NOC in score.sums:
        record[NOC] = _entry(score.sums[NOC]) | {"mask": score.mask}
    if score.own != ALL:
        record[ALL] = _entry(score.sums[ALL])
    parts = {region: score.sums[region] for region in PARTS if score.has(region)}
    if parts:
        record["regions"] = {
            region: {name: figures(sums)[name] for name in REGION_METRICS}
            | {"valid_pixels": int(sums[0])}
            for region, sums in parts.items()
        }
    if score.confidence is not None:
        record["confidence"] = score.confidence.ause()
    return record


def score_of_record(record: Mapping[str, Any], index: int) -> ImageScore:
    """Rebuild a score from its entry in ``metrics.json``.

    ``index`` is its place in the file, for entries of older versions without a place in the list.
    Of the parts that ``stereo.evaluation.regions`` names, the sums that an entry does not keep
    are NaN.

    Raises:
        KeyError, TypeError, ValueError: an entry that lacks a figure.
    """
    index = record.get("index", index)
    if type(index) is not int or not 0 <= index < MAX_PIXELS:
        raise ValueError(f"index {index}")
    score = ImageScore(str(record["name"]), index, seconds=record.get("seconds"))
    score.own = NOC if ALL in record else ALL
    score.sums = {region: _sums_of(record[region]) for region in (ALL, NOC) if region in record}
    score.sums[score.own] = _sums_of(record)
    score.mask = record.get(NOC, {}).get("mask")
    score.skipped = bool(record.get("skipped", False)) or not score.has(score.own)
    for region, entry in record.get("regions", {}).items():
        if region in PARTS:
            score.sums[region] = _sums_of(entry)
    return score


def _entry(sums: np.ndarray) -> dict[str, object]:
    return {**(figures(sums) if sums[0] else {}), "valid_pixels": int(sums[0])}


def _sums_of(entry: Mapping[str, Any]) -> np.ndarray:
    pixels = entry["valid_pixels"]
    if type(pixels) is not int or not 0 <= pixels < MAX_PIXELS:
        raise ValueError(f"valid_pixels {pixels}")
    if not pixels:
        return np.zeros(len(COLUMNS))
    shares = [float(entry.get(name, np.nan)) / (1 if name == "epe" else 100) for name in METRICS]
    return np.array([1.0, *shares]) * pixels


def summarize(scores: Sequence[ImageScore], averaging: Averaging) -> dict[str, object]:
    """Average the scores of all images over the protocol's own pixels.

    Args:
        scores: one per image, in any order; skipped ones are counted but take no part.
        averaging: the protocol's own; it gives the keys without a suffix.

    Returns:
        ``epe``, ``bad_1`` and so on under the protocol's own averaging; ``epe_pixel`` pooled over
        pixels; ``epe_image`` the mean over images; under ``regions`` the same for the parts that
        ``stereo.evaluation.regions`` names; ``images``, ``skipped`` and ``valid_pixels``.
    """
    counting = [s for s in _ordered(scores) if not s.skipped]
    summary = summarize_region(scores, averaging, scores[0].own if scores else ALL)
    parts = {region: [s for s in counting if s.has(region)] for region in PARTS}
    if any(parts.values()):
        summary["regions"] = {
            region: _both_averages(having, region) | _size(having, region)
            for region, having in parts.items()
            if having
        }
    scored = [s.confidence for s in counting if s.confidence is not None]
    if scored:
        summary["confidence"] = summarize_confidence(scored)
    return summary


def summarize_region(
    scores: Sequence[ImageScore], averaging: Averaging, region: str
) -> dict[str, object]:
    """Average one region of ``ImageScore.sums`` over the images that have any pixel of it.

    Returns:
        The keys of ``summarize`` but ``regions`` and ``confidence``.
    """
    ordered = _ordered(scores)
    counting = [s for s in ordered if s.counts(region)]
    left_out = [s.name for s in ordered if not s.counts(region)]
    summary: dict[str, object] = {}
    if counting:
        summary |= _average(counting, region, averaging)
        summary |= _both_averages(counting, region)
    summary |= _size(counting, region)
    return summary | {"skipped": len(left_out), "skipped_names": left_out}


def summaries(scores: Sequence[ImageScore], averaging: Averaging) -> dict[str, dict[str, object]]:
    """Return the summaries of ``metrics.json`` by key.

    Returns:
        ``summary`` over the protocol's own pixels; ``noc`` over the non-occluded ones, with
        ``mask``, what tells them; ``all``, where the protocol's own are not all.
    """
    found = {"summary": summarize(scores, averaging)}
    masks = [s.mask for s in scores if s.mask is not None]
    if masks:
        kinds = [f"{kind} ({masks.count(kind)} images)" for kind in sorted(set(masks))]
        mask = masks[0] if len(kinds) == 1 else " and ".join(kinds)
        found[NOC] = summarize_region(scores, averaging, NOC) | {"mask": mask}
    if any(s.own != ALL for s in scores):
        found[ALL] = summarize_region(scores, averaging, ALL)
    return found


def _ordered(scores: Sequence[ImageScore]) -> list[ImageScore]:
    return sorted(scores, key=lambda s: s.index)


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


def _both_averages(scores: Sequence[ImageScore], region: str) -> dict[str, object]:
    return {
        f"{name}_{kind}": value
        for kind in ("pixel", "image")
        for name, value in _average(scores, region, kind).items()
    }


def _size(scores: Sequence[ImageScore], region: str) -> dict[str, object]:
    pixels = sum(s.sums[region][0] for s in scores)
    return {"images": len(scores), "valid_pixels": int(pixels)}


def _average(scores: Sequence[ImageScore], region: str, kind: str) -> Mapping[str, float]:
    rows = np.stack([s.sums[region] for s in scores])
    if kind == "pixel":
        return figures(rows.sum(axis=0))
    if kind == "group8":
        groups = np.array([s.index // GROUP for s in scores])
        rows = np.stack([rows[groups == g].sum(axis=0) for g in np.unique(groups)])
    per_row = [figures(row) for row in rows]
    means = {name: float(np.mean([f[name] for f in per_row])) for name in METRICS}
    return figures(rows.sum(axis=0)) | {"epe": means["epe"]} if kind == "mixed" else means
