"""Runs read from ``metrics.json``, and checks that they can be compared."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from stereo.errors import InputError
from stereo.evaluation.metrics import ALL, NOC, ImageScore, score_of_record, summaries
from stereo.evaluation.protocols import AVERAGING_TEXT, Averaging
from stereo.evaluation.regions import BINS
from stereo.system.parsing import read_json

METRICS_FILE, REPORT_FILE = "metrics.json", "report.html"
_SAME = ("name", "mask", "averaging", "region", "dataset", "split", "pass")
_WORDS = {"name": "protocol", "dataset": "data set"}
_FEW = 5
FEWEST_IMAGES = 5  # of which an interval tells anything
RESAMPLES = 5_000

Key = tuple[str, int]
"""An image of a run: its name, and how many of that name stand before it."""


@dataclass
class EvaluationRun:
    """A model's figures over a list of images."""

    label: str  # tells it from the other runs of a report
    folder: Path  # where `metrics.json` and the pictures lie
    metrics: dict[str, Any]  # what `metrics.json` holds
    images: dict[Key, dict[str, Any]]  # its entries, in order
    # averages over the images that the report is about, of the protocol's own pixels
    summary: dict[str, Any]
    # those of the non-occluded pixels; empty where an older version scored none
    noc: dict[str, Any]
    all: dict[str, Any]  # those of all pixels

    @property
    def protocol(self) -> dict[str, Any]:
        """The protocol's facts."""
        return self.metrics["protocol"]

    @property
    def memory(self) -> dict[str, Any]:
        """Peak memory as ``metrics.json`` has it; empty where it was not measured."""
        return self.metrics.get("run", {}).get("memory", {})

    def epe(self, key: Key) -> float | None:
        """Return an image's end-point error, pixels; None if it has none."""
        value = self.images[key].get("epe")
        return float(value) if is_number(value) else None

    def times(self, keys: Sequence[Key]) -> list[float]:
        """Return the seconds that images took, of those that have a time."""
        values = (self.images[key].get("seconds") for key in keys if key in self.images)
        return [value for value in values if is_number(value)]


@dataclass
class Comparison:
    """Runs on the same images."""

    runs: list[EvaluationRun]  # at least one
    keys: list[Key]  # the images that all of them have, in the first run's order
    notes: list[str]  # what a reader has to know, in words


def read_run(path: Path) -> EvaluationRun:
    """Read a run's figures.

    Raises:
        InputError: it is missing, or not written by ``evaluate`` or ``infer``.
    """
    file = path / METRICS_FILE if path.is_dir() else path
    if not file.exists():
        raise InputError(
            f"{file}: no such file; name the folder that 'stereo evaluate --output' wrote"
        )
    metrics = read_json(file)
    try:
        _check(metrics)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{file}: not a run's metrics; name a file that 'stereo evaluate' or 'stereo infer "
            "--ground-truth' wrote"
        ) from error
    seen: Counter[str] = Counter()
    images: dict[Key, dict[str, Any]] = {}
    for record in metrics["images"]:
        images[record["name"], seen[record["name"]]] = record
        seen[record["name"]] += 1
    name, summary = str(metrics["model"]["name"]), metrics["summary"]
    noc, every = metrics.get(NOC, {}), metrics.get(ALL, summary)
    return EvaluationRun(name, file.parent, metrics, images, summary, noc, every)


def forget_run(folder: Path) -> None:
    """Remove an earlier run's figures and report before what they show is replaced."""
    for name in (METRICS_FILE, REPORT_FILE):
        (folder / name).unlink(missing_ok=True)


def match_runs(runs: Sequence[EvaluationRun]) -> Comparison:
    """Find the images that all runs have, and give each run a label of its own.

    Where the lists of images differ, the averages are computed again over the shared ones.

    Raises:
        InputError: figures of different protocols or data, or no image in common.
    """
    first = runs[0]
    for run in runs[1:]:
        for fact in _SAME:
            one, other = (r.protocol.get(fact) for r in (first, run))
            if one != other:
                raise InputError(
                    f"{run.folder}: {_WORDS.get(fact, fact)} {_said(other)}, but {first.folder}: "
                    f"{_said(one)}; such figures cannot be compared, evaluate one of them again"
                )
    _label(runs)
    keys = [key for key in first.images if all(key in run.images for run in runs)]
    if not keys and any(run.images for run in runs):
        raise InputError(
            f"{runs[-1].folder} and {first.folder} have no image in common, by name; "
            "evaluate both on the same data"
        )
    notes: list[str] = []
    apart = list(dict.fromkeys(key for run in runs for key in run.images if key not in set(keys)))
    if apart:
        names = ", ".join(name for name, _ in apart[:_FEW])
        more = f" and {len(apart) - _FEW} more" if len(apart) > _FEW else ""
        notes.append(
            f"{_count(len(apart), 'image is', 'images are')} not in every run and left out of all "
            f"figures on this page but memory: {names}{more}."
        )
        for run in runs:
            found = _average_again(run, keys)
            run.summary, run.noc = found["summary"], found.get(NOC, {})
            run.all = found.get(ALL, run.summary)
    other_pixels = [
        key
        for key in keys
        if len({_pixels(run.images[key]) for run in runs}) > 1
        # what counts is the data's; a run that differs has read other ground truth
    ]
    if other_pixels:
        notes.append(
            f"The runs counted different pixels in {_count(len(other_pixels), 'image', 'images')}, "
            f"{other_pixels[0][0]} among them: was it the same ground truth?"
        )
    masks = {run.label: run.noc["mask"] for run in runs if "mask" in run.noc}
    if len(set(masks.values())) > 1:
        each = ", ".join(f"{label} by {mask}" for label, mask in masks.items())
        notes.append(f"Non-occluded pixels come from different masks: {each}.")
    trees = [str(run.protocol.get("layout") or "") for run in runs]
    if len(set(trees) - {""}) > 1:
        each = ", ".join(f"{run.label} {tree}" for run, tree in zip(runs, trees, strict=True))
        notes.append(f"The runs read different layouts of the data set: {each}.")
    ranges = (("max_disparity", "largest disparities"), ("min_disparity", "smallest disparities"))
    for fact, words in (("scale", "scales"), *ranges):
        said = [str(run.metrics["model"].get(fact, "")) for run in runs]
        if len(set(said) - {""}) > 1:
            each = ", ".join(f"{run.label} {value}" for run, value in zip(runs, said, strict=True))
            notes.append(f"The runs matched at different {words}: {each}.")
    return Comparison(list(runs), keys, notes)


def _pixels(record: dict[str, Any]) -> tuple[object, ...]:
    """Return how many pixels of an image counted, in all and by true disparity."""
    regions = record.get("regions", {})
    bins = (regions.get(name, {}).get("valid_pixels") for name in BINS)
    return (record.get("valid_pixels"), *bins)


def differences(found: Comparison) -> list[str]:
    """Compare the runs with the first one image by image, in words.

    Per metric: the mean over images of a run's figure minus the first run's, and the middle 95 % of
    its bootstrap over images (Efron, 1979): how much other images would vary it. It says nothing of
    other seeds of training.
    """
    first, lines = found.runs[0], []
    for run in found.runs[1:]:
        parts = []
        for key, name, unit in (("epe", "EPE", "px"), ("bad_2", "bad-2", "%")):
            both = [[r.images[image] for r in (run, first)] for image in found.keys]
            # What the protocol skips is in no average of the tables either.
            pairs = ([r.get(key) for r in each] for each in both if not any(map(_skipped, each)))
            apart = [one - other for one, other in pairs if is_number(one) and is_number(other)]
            if len(apart) < FEWEST_IMAGES:
                continue
            mean, low, high = _bootstrap(np.array(apart))
            parts.append(f"{name} {mean:+.3f} {unit} ({low:+.3f} to {high:+.3f})")
        if parts:
            lines.append(f"{run.label} minus {first.label}: {', '.join(parts)}")
    return lines


def _skipped(record: dict[str, Any]) -> bool:
    return bool(record.get("skipped"))


def _bootstrap(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of values and the ends of its interval."""
    random = np.random.default_rng(0)
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value read from JSON is a number that can be shown."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check(metrics: dict[str, Any]) -> None:
    """Raise a Python error unless all parts that a report needs are there."""
    for part in ("model", "protocol", "summary", NOC, ALL):
        if not isinstance(metrics.get(part, {} if part in (NOC, ALL) else None), dict):
            raise TypeError(part)
        if not isinstance(metrics.get(part, {}).get("mask", ""), str):
            raise TypeError("mask")
    for fact in ("name", "mask", "averaging"):
        if not isinstance(metrics["protocol"][fact], str):
            raise TypeError(fact)
    metrics["model"]["name"], metrics["summary"]["images"]
    if not isinstance(metrics["images"], list):
        raise TypeError("images")
    for index, record in enumerate(metrics["images"]):
        if not isinstance(record["name"], str):
            raise TypeError("name")
        score_of_record(record, index)


def _label(runs: Sequence[EvaluationRun]) -> None:
    """Tell runs of one model apart by their folders."""
    count = Counter(run.label for run in runs)
    for run in runs:
        if count[run.label] > 1:
            run.label = f"{run.label} ({run.folder.resolve().name})"
    count = Counter(run.label for run in runs)
    for number, run in enumerate(runs, start=1):
        if count[run.label] > 1:
            run.label = f"{run.label} #{number}"


def _average_again(run: EvaluationRun, keys: Sequence[Key]) -> dict[str, dict[str, Any]]:
    text = run.protocol["averaging"]
    averaging: Averaging = next(
        (kind for kind in AVERAGING_TEXT if AVERAGING_TEXT[kind] == text), "pixel"
    )
    place = {key: index for index, key in enumerate(run.images)}
    scores: list[ImageScore] = [score_of_record(run.images[key], place[key]) for key in keys]
    return summaries(scores, averaging)


def _said(value: object) -> str:
    return "none" if value is None else f"'{value}'"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def smallest(texts: Sequence[str], values: Sequence[Any]) -> set[int]:
    """Return the indices of the smallest value, ties in its printed form included."""
    numbers = [value for value in values if is_number(value)]
    if len(numbers) < 2:
        return set()
    chosen = texts[list(values).index(min(numbers))]
    return {i for i, text in enumerate(texts) if text == chosen}
