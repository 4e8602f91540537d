"""Metrics of a model over a data set, under a named protocol."""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stereo.data.sets.datasets import Dataset, chosen_dataset, get_description, open_dataset
from stereo.data.sets.fingerprints import fingerprints
from stereo.data.sets.sample import Readable, Sample
from stereo.errors import OutputError, StereoError, UsageError
from stereo.evaluation import tables
from stereo.evaluation.metrics import ImageScore, figures, image_record, score_image, summaries
from stereo.evaluation.protocols import Protocol, get_protocol
from stereo.evaluation.report import PictureKeeper, write_report
from stereo.evaluation.truth_scale import scale_hint
from stereo.matching.loading import loaded
from stereo.matching.matcher import Matcher
from stereo.matching.result import Result
from stereo.system import console
from stereo.system.distributed import gather, is_main, own_share, wait_for_all
from stereo.system.files import output_folder, staged, writes_alone
from stereo.system.machine import PeakMemory, machine

AGAINST = "against"
OUT_OF_REACH = 0.01  # of the ground truth: worth a note


@writes_alone
def evaluate(
    matcher: Matcher | Callable[[], Matcher],
    dataset: str | None,
    root: str | Path | None,
    output: str | Path,
    *,
    protocol: str = "pooled",
    split: str | None = None,
    render_pass: str | None = None,
    limit: int | None = None,
    unseen: bool = False,
    layout: str | None = None,
    unused: str | Path | None = None,
    confidence: bool = False,
    against: Sequence[Matcher | Callable[[], Matcher]] = (),
) -> tuple[dict[str, Any], int]:
    """Match every pair of a data set, print one table, write ``metrics.json`` and a report.

    A pair that cannot be read or matched is named and skipped. Processes started by torchrun share
    the pairs and give the metrics of one process.

    Args:
        matcher: the model, or a function that loads it, called after all other checks.
        dataset: its name (default: detected from the folder).
        root: the data set's folder; not needed for 'synthetic'.
        output: folder for metrics.json, report.html and the images it shows.
        protocol: pooled, psmnet, gwcnet, raft, kitti2012, kitti2015, middlebury or eth3d.
        split: a split of the data set, such as train or test (default: the data set's own).
        render_pass: clean or final, for rendered data (default: the protocol's).
        limit: match only the first N pairs.
        unseen: leave out the pairs that a model was trained on, known by images and ground truth.
        layout: the data set's tree by name (default: detected).
        unused: Scene Flow's all_unused_files.txt; its frames are skipped.
        confidence: also score the confidence: AUSE, reliability; takes a second match per pair.
        against: further models for the same pairs, in ``OUTPUT/against/NAME`` and the report.

    Returns:
        The contents of ``metrics.json``, and the number of failed pairs, added up over the models.

    Raises:
        UsageError: an unknown name.
        InputError: the data set cannot be listed.
        OutputError: the output cannot be written.
    """
    dataset = chosen_dataset(dataset, root)
    rules = get_protocol(protocol)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: expected at least 1")
    if root is not None and get_description(dataset).passes:
        render_pass = render_pass or rules.render_pass
    data = open_dataset(
        dataset, root, split=split, render_pass=render_pass, layout=layout, unused=unused
    )
    if not any(item.has_truth for item in data.samples):
        raise UsageError(f"split '{data.split}' of '{dataset}' has no ground truth to score with")
    folder = output_folder(Path(output), alone=True)
    model, others = loaded(matcher), [loaded(other) for other in against]
    rules = rules.with_range(model.min_disparity)
    files = [data.samples[i] for i in rules.choose_images(len(data.samples))]
    if unseen:
        files = _unseen(files, [model, *others])
    files = files[:limit]
    tree = f", layout {data.layout}" if data.layout else ""
    console.say(f"data set {dataset}: {len(files)} of {len(data.samples)} pairs{tree}")
    chosen = {"dataset": dataset, "limit": limit, "unseen": unseen}
    facts = rules.to_dict() | chosen | _facts(data, unused)
    console.say(line := tables.protocol_line(facts))
    folders = [folder, *against_folders(folder, model, others)]
    names = [model.description["name"], *(each.name for each in folders[1:])]
    runs: list[Scored] = []
    for name, each, own_folder in zip(names, [model, *others], folders, strict=True):
        if others:
            console.say(f"{name}:")
        own = facts | {"trained_on": _count_seen(name, each, files)}
        runs.append(_score(name, each, files, rules, own, output_folder(own_folder), confidence))
    print_summary(runs, rules, line)
    say_hint(runs, "'gt_scale' in manifest.json" if dataset == "manifest" else "a scale")
    make_report(folder, [f for f, run in zip(folders, runs, strict=True) if run.scores] or [folder])
    wait_for_all()
    return runs[0].report, sum(len(run.failed) for run in runs)


def _facts(data: Dataset, unused: str | Path | None) -> dict[str, Any]:
    return {
        "split": data.split,
        "pass": data.render_pass,
        "layout": data.layout,
        "unused_list": None if unused is None else Path(unused).name,
    }


def _unseen(files: Sequence[Readable], models: Sequence[Matcher]) -> list[Readable]:
    """Return the pairs that none of the models was trained on."""
    seen = frozenset[str]().union(*(model.trained_on for model in models))
    rest = [item for item in files if not seen & fingerprints([item])]
    if not rest:
        raise UsageError("--unseen: all of these pairs were trained on; name others")
    return rest


def _count_seen(name: str, model: Matcher, files: Sequence[Readable]) -> int:
    """Return how many of the pairs a model was trained on, and warn of them."""
    if not model.trained_on:  # then no image is opened for it
        return 0
    count = sum(bool(model.trained_on & fingerprints([item])) for item in files)
    if count and is_main():
        console.warn(
            f"warning: {name} was trained on {count} of these {len(files)} pairs, by their images "
            "and ground truth; --unseen leaves them out"
        )
    return count


@dataclass(frozen=True)
class Scored:
    """A model's metrics over a list of pairs."""

    name: str  # tells it from the other models of a command
    scores: list[ImageScore]  # one per image
    failed: list[str]  # names of the pairs without a score
    report: dict[str, Any]  # what was written to `metrics.json`


def _score(
    name: str,
    model: Matcher,
    files: Sequence[Readable],
    rules: Protocol,
    facts: dict[str, Any],
    folder: Path,
    confidence: bool,
) -> Scored:
    """Match the pairs with one model, and write its pictures and ``metrics.json``."""
    scores: list[ImageScore] = []
    failed: list[tuple[int, str]] = []
    keeper = PictureKeeper(folder, len(files))
    peak = PeakMemory(torch.device(model.description["device"]))
    reach = np.zeros(4, np.int64)
    for index, item in console.progress(own_share(files), "evaluate"):
        try:
            sample = rules.crop(item.read(nonoccluded=True))
            result = model(sample.left, sample.right)
            measures = result.confidence_maps.measures() if confidence else None
        except StereoError as error:
            console.warn(f"stereo evaluate: error: {item.name}: {error}")
            failed.append((index, item.name))
            continue
        scores.append(score_result(sample, result, index, rules, measures))
        reach += count_reach(sample, model, rules)
        console.say(tables.score_line(scores[-1]), everyone=True)
        keep_pictures(keeper, sample, result, scores[-1], rules)
    scores, names = gather_scores(scores, failed)
    say_out_of_reach(reach, model, rules)
    run = run_facts(model, peak)
    report = metrics_report(model, facts, rules, scores, names, keeper.records, run)
    write_metrics(folder / "metrics.json", report)
    return Scored(name, scores, names, report)


def count_reach(sample: Sample, model: Matcher, rules: Protocol) -> np.ndarray:
    """Count true disparities: all, below the search range, beyond it, beyond the protocol's bound.

    Beyond the range only those count that the protocol counts.
    """
    assert sample.disparity is not None and sample.valid is not None
    known = sample.valid & np.isfinite(sample.disparity)
    low, count = model.min_disparity, model.searched(sample.left.shape[1])
    counted = rules.valid_pixels(sample.disparity, sample.valid)
    below = known & (sample.disparity < low)
    beyond = counted & (sample.disparity >= low + count)
    ignored = known & (sample.disparity >= (np.inf if rules.below is None else rules.below))
    return np.array([known.sum(), below.sum(), beyond.sum(), ignored.sum()])


def say_out_of_reach(reach: np.ndarray, model: Matcher, rules: Protocol) -> None:
    """Report how much of the ground truth lies outside the search range."""
    for note in out_of_reach_notes(np.sum(gather([reach]), axis=0), model, rules):
        console.say(f"note: {note}")


def out_of_reach_notes(reach: np.ndarray, model: Matcher, rules: Protocol) -> list[str]:
    """Return the notes of ``say_out_of_reach`` for counts summed over processes."""
    notes = []
    low, count = model.min_disparity, model.description["max_disparity"]
    ends = (
        (f"below {low} px", "--min-disparity"),
        (f"from {low + count} px on", "--max-disparity"),
    )
    if model.description.get("fixed_size") is not None:  # whose range follows each image's width
        ends = (ends[0], ("beyond", ends[1][1]))
    for out, (where, option) in zip(reach[1:3], ends, strict=True):
        share = out / max(reach[0], 1)
        if share > OUT_OF_REACH:
            fixed = model.fixed_range and option == "--max-disparity"
            notes.append(
                f"{100 * share:.1f} % of the ground truth lies {where}, outside the range that "
                f"{model.description['name']} searched; "
                + ("it takes no other" if fixed else f"see {option}")
            )
    ignored = reach[3] / max(reach[0], 1)
    if ignored > OUT_OF_REACH:
        notes.append(
            f"{100 * ignored:.1f} % of the ground truth lies from {rules.below} px on, which the "
            f"protocol '{rules.name}' does not score"
        )
    return notes


def against_folders(folder: Path, matcher: Matcher, against: Sequence[Matcher]) -> list[Path]:
    """Return a folder per further model: its name, numbered if taken."""
    taken = {matcher.description["name"].casefold()}  # as file systems compare
    names: list[str] = []
    for other in against:
        name, number = other.description["name"], 2
        while name.casefold() in taken:
            name, number = f"{other.description['name']}_{number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return [folder / AGAINST / name for name in names]


def keep_pictures(
    keeper: PictureKeeper, sample: Sample, result: Result, score: ImageScore, rules: Protocol
) -> None:
    """Keep an image's pictures if it counts; a full disk costs the pictures, not the run."""
    if keeper.full or not score.has(score.own):
        return
    assert sample.disparity is not None and sample.valid is not None
    epe = figures(score.sums[score.own])["epe"]
    try:
        valid = rules.valid_pixels(sample.disparity, sample.valid)
        keeper.keep(score.index, sample.left, result.disparity, sample.disparity, valid, epe)
    except OutputError as error:
        keeper.full = True
        console.warn(f"warning: {error}; the report goes without further pictures")


def run_facts(matcher: Matcher, peak: PeakMemory) -> dict[str, Any]:
    """Return date, machine and peak memory of the run."""
    own = (peak.bytes(), peak.bytes_above_start())
    of_all = [each for each in gather([own]) if None not in each]
    most, above = max(of_all, default=(None, None))
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(torch.device(matcher.description["device"])),
        "memory": {"kind": peak.kind, "peak_bytes": most, "above_start_bytes": above},
    }


def make_report(folder: Path, folders: Sequence[Path]) -> None:
    """Write ``report.html`` of all runs in ``folders``, and one of each in a folder of its own.

    Only the main process writes.
    """
    if is_main():
        for own in folders:
            if own != folder:
                write_report(own, [own])
        write_report(folder, folders)
        console.say(f"report: {folder / 'report.html'}")


def gather_scores(
    scores: list[ImageScore], failed: list[tuple[int, str]]
) -> tuple[list[ImageScore], list[str]]:
    """Return all processes' scores and the names of their failed pairs, in the list's order."""
    together = sorted(gather(scores), key=lambda score: score.index)
    return together, [name for _, name in sorted(gather(failed))]


def score_result(
    sample: Sample,
    result: Result,
    index: int,
    rules: Protocol,
    measures: Mapping[str, np.ndarray] | None = None,
) -> ImageScore:
    """Score the match of a sample that has ground truth; ``index`` is its place in the list."""
    assert sample.disparity is not None and sample.valid is not None
    return score_image(
        sample.name,
        index,
        result.disparity,
        sample.disparity,
        sample.valid,
        rules,
        sample.nonoccluded,
        result.seconds,
        sample.left,
        measures,
    )


def metrics_report(
    matcher: Matcher,
    protocol_facts: dict[str, Any],
    rules: Protocol,
    scores: Sequence[ImageScore],
    failed: Sequence[str] = (),
    pictures: Mapping[int, dict[str, Any]] | None = None,
    run: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the contents of ``metrics.json``."""
    shown = dict(gather(list((pictures or {}).items())))
    found = summaries(scores, rules.averaging)
    found["summary"]["failed_names"] = list(failed)
    return {
        "model": matcher.description,
        "protocol": protocol_facts,
        "images": [
            image_record(score) | ({"pictures": shown[score.index]} if score.index in shown else {})
            for score in scores
        ],
        **found,
        **({} if run is None else {"run": run}),
    }


def write_metrics(path: Path, report: dict[str, Any]) -> None:
    """Write ``metrics.json`` atomically; only the main process writes."""
    if not is_main():
        return
    with staged(path) as (temporary,):
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def print_summary(runs: Sequence[Scored], rules: Protocol, line: str) -> None:
    """Print a table of averages, per folder if there are several, and overall."""
    several = len(runs) > 1
    groups = dict.fromkeys(_group(score) for run in runs for score in run.scores)
    rows: list[tuple[str, dict[str, Any]]] = []
    for group in groups if 1 < len(groups) <= 40 else ():
        for run in runs:
            scores = [score for score in run.scores if _group(score) == group]
            label = f"{group or '.'}, {run.name}" if several else group or "."
            rows.append((label, summaries(scores, rules.averaging)))
    rows += [(run.name if several else "all images", run.report) for run in runs]
    console.say(tables.summary_table(rows))
    for run in runs:
        if "confidence" in run.report["summary"]:
            if several:
                console.say(f"{run.name}:")
            console.say(tables.confidence_lines(run.report["summary"]["confidence"]))
    console.say(line)


def say_hint(runs: Sequence[Scored], option: str, stored: float | None = None) -> None:
    """Warn once if the ground truth seems to be stored in another unit than pixels."""
    for run in runs:
        ratios = [score.ratio for score in run.scores if score.ratio is not None]
        hint = scale_hint(ratios, option, stored)
        if hint is not None:
            if is_main():
                console.warn(f"warning: {hint}")
            return


def _group(score: ImageScore) -> str:
    return score.name.rpartition("/")[0]
