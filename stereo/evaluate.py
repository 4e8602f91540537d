"""Metrics of a model over a data set, under a named protocol."""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stereo import console
from stereo.data.datasets import describe, open_dataset
from stereo.data.sample import Sample
from stereo.distributed import gather, is_main, own_share, wait_for_all
from stereo.errors import OutputError, StereoError, UsageError
from stereo.files import output_folder, staged
from stereo.machine import PeakMemory, machine
from stereo.matcher import Matcher, Result, loaded
from stereo.metrics import ImageScore, figures, image_record, score_image, summarise
from stereo.protocols import Protocol, get_protocol
from stereo.report import PictureKeeper, write_report

AGAINST = "against"


def evaluate(
    matcher: Matcher | Callable[[], Matcher],
    dataset: str,
    root: str | Path | None,
    output: str | Path,
    *,
    protocol: str = "pooled",
    split: str | None = None,
    render_pass: str | None = None,
    limit: int | None = None,
    layout: str | None = None,
    unused: str | Path | None = None,
    confidence: bool = False,
    against: Sequence[Matcher | Callable[[], Matcher]] = (),
) -> tuple[dict[str, Any], int]:
    """Match every pair of a data set, print the figures, write ``metrics.json`` and a report.

    A pair that cannot be read or matched is named and left out; the others go on. Processes
    started by torchrun share the pairs and give the figures of one process.

    Args:
        matcher: the model, or what loads it, which is called once all else is known to be right.
        dataset: a name of ``stereo.data.datasets.DATASETS``.
        root: its folder; None for ``synthetic`` rendered on the spot.
        output: folder for ``metrics.json``, ``report.html`` and the pictures it shows.
        protocol: a name of ``stereo.protocols.PROTOCOLS``.
        split: the data set's part; None for its default.
        render_pass: ``clean`` or ``final``; None for the protocol's own, where the choice exists.
        limit: match only the first N pairs.
        layout: the data set's tree by name; None to find it by looking.
        unused: Scene Flow's list of unusable frames; None to use all.
        confidence: whether to score the confidence too, which takes a second match per pair.
        against: further models for the same pairs, each with its files in ``OUTPUT/against/NAME``;
            the report has all models side by side.

    Returns:
        What was written to ``metrics.json``, and the number of pairs that failed, with any model.

    Raises:
        UsageError: an unknown name.
        InputError: the data set cannot be listed.
        OutputError: the output cannot be written.
    """
    rules = get_protocol(protocol)
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: expected at least 1")
    chosen_pass = render_pass or (rules.render_pass if describe(dataset).passes else None)
    data = open_dataset(
        dataset, root, split=split, render_pass=chosen_pass, layout=layout, unused=unused
    )
    if not any(item.has_truth for item in data.samples):
        raise UsageError(f"split '{data.split}' of '{dataset}' has no ground truth to score with")
    folder = output_folder(Path(output))
    model, others = loaded(matcher), [loaded(other) for other in against]
    files = [data.samples[i] for i in rules.choose_images(len(data.samples))][:limit]
    line = console.protocol_line(rules, data.split, data.render_pass)
    tree = f", layout {data.layout}" if data.layout else ""
    console.say(f"data set {dataset}: {len(files)} of {len(data.samples)} pairs{tree}")
    console.say(line)
    scores: list[ImageScore] = []
    failed: list[tuple[int, str]] = []
    shown = Shown(folder, len(files))
    peak = PeakMemory(torch.device(model.description["device"]))
    for index, item in console.progress(own_share(files), "evaluate"):
        try:
            sample = item.read(nonoccluded=True)
            result = model(sample.left, sample.right)
            measures = result.trusted.measures() if confidence else None
        except StereoError as error:
            console.complain(f"stereo evaluate: error: {item.name}: {error}")
            failed.append((index, item.name))
            continue
        scores.append(score_result(sample, result, index, rules, measures))
        console.say(console.score_line(scores[-1]), everyone=True)
        shown.keep(sample, result, scores[-1])
    protocol_facts = rules.describe() | {
        "split": data.split,
        "pass": data.render_pass,
        "dataset": dataset,
        "layout": data.layout,
        "unused_list": None if unused is None else Path(unused).name,
        "limit": limit,
    }
    scores, names = gather_scores(scores, failed)
    report = metrics_report(
        model, protocol_facts, rules, scores, names, shown.records(), run_facts(model, peak)
    )
    write_metrics(folder / "metrics.json", report)
    print_summary(report["summary"], scores, rules, line)
    failures = len(names)
    folders = against_folders(folder, model, others)
    rows = [(model.description["name"], report["summary"])]
    for other, other_folder in zip(others, folders, strict=True):
        console.say(f"against {other_folder.name}:")
        other_report, other_failures = evaluate(
            other,
            dataset,
            root,
            other_folder,
            protocol=protocol,
            split=split,
            render_pass=render_pass,
            limit=limit,
            layout=layout,
            unused=unused,
            confidence=confidence,
        )
        failures += other_failures
        rows.append((other_folder.name, other_report["summary"]))
    if others:
        console.say(console.summary_table(rows))
    make_report(folder, [folder, *folders])
    wait_for_all()
    return report, failures


def against_folders(folder: Path, matcher: Matcher, against: Sequence[Matcher]) -> list[Path]:
    """Return the folder of each further model: its name, with a number where names are alike."""
    taken = {matcher.description["name"]}
    names: list[str] = []
    for other in against:
        name, number = other.description["name"], 2
        while name in taken:
            name, number = f"{other.description['name']}_{number}", number + 1
        taken.add(name)
        names.append(name)
    return [folder / AGAINST / name for name in names]


class Shown:
    """Keeps the pictures that the report shows; a disk too full for them loses them alone.

    Args:
        folder: the run's folder.
        count: pairs in the list, those of other processes included.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._keeper = PictureKeeper(folder, count)
        self._full = False

    def keep(self, sample: Sample, result: Result, score: ImageScore) -> None:
        """Keep an image's pictures if it may be shown."""
        if self._full or not score.has("all"):
            return
        assert sample.disparity is not None and sample.valid is not None
        epe = figures(score.sums["all"])["epe"]
        maps = (sample.left, result.disparity, sample.disparity, sample.valid)
        try:
            self._keeper.keep(score.index, *maps, epe)
        except OutputError as error:
            self._full = True
            console.complain(f"warning: {error}; the report goes without further pictures")

    def records(self) -> dict[int, dict[str, Any]]:
        """Return what ``metrics.json`` says of the pictures of all processes, by place."""
        return dict(gather(list(self._keeper.records.items())))


def run_facts(matcher: Matcher, peak: PeakMemory) -> dict[str, Any]:
    """Say when and on what machine the figures were made, and with how much memory.

    Args:
        matcher: the model.
        peak: since before the first pair; of several processes the largest is told.
    """
    own = (peak.bytes(), peak.bytes_above_start())
    of_all = [each for each in gather([own]) if None not in each]
    most, above = max(of_all, default=(None, None))
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(torch.device(matcher.description["device"])),
        "memory": {"kind": peak.kind, "peak_bytes": most, "above_start_bytes": above},
    }


def make_report(folder: Path, folders: Sequence[Path]) -> None:
    """Write ``report.html`` from the runs in ``folders``, if this is the main process."""
    if is_main():
        write_report(folder, folders)
        console.say(f"report: {folder / 'report.html'}")


def gather_scores(
    scores: list[ImageScore], failed: list[tuple[int, str]]
) -> tuple[list[ImageScore], list[str]]:
    """Return all processes' scores and the names of their failed pairs, in the list's order.

    Args:
        scores: of this process.
        failed: place in the list and name, of this process.
    """
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
    """Return the contents of ``metrics.json``.

    Args:
        matcher: the model.
        protocol_facts: how the figures are made.
        rules: the protocol.
        scores: one per image.
        failed: names of the pairs without a score.
        pictures: an image's place in the list -> its pictures' files, for those that have any.
        run: when, where and with how much memory.
    """
    shown = pictures or {}
    return {
        "model": matcher.description,
        "protocol": protocol_facts,
        "images": [
            image_record(score) | ({"pictures": shown[score.index]} if score.index in shown else {})
            for score in scores
        ],
        "summary": summarise(scores, rules.averaging) | {"failed_names": list(failed)},
        **({} if run is None else {"run": run}),
    }


def write_metrics(path: Path, report: dict[str, Any]) -> None:
    """Write ``metrics.json``, whole or not at all; of several processes the main one does."""
    if not is_main():
        return
    with staged(path) as (temporary,):
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def print_summary(
    summary: dict[str, Any], scores: Sequence[ImageScore], rules: Protocol, line: str
) -> None:
    """Print the averages, per folder of the data set where there are several, and over all.

    Args:
        summary: the averages over all images.
        scores: one per image.
        rules: the protocol.
        line: what ``console.protocol_line`` says of it.
    """
    groups: dict[str, list[ImageScore]] = {}
    for score in scores:
        groups.setdefault(score.name.rpartition("/")[0], []).append(score)
    rows: list[tuple[str, dict[str, Any]]] = []
    if 1 < len(groups) <= 40:
        rows = [(name or ".", summarise(group, rules.averaging)) for name, group in groups.items()]
    console.say(console.summary_table([*rows, ("all", summary)]))
    if "confidence" in summary:
        console.say(console.trust_lines(summary["confidence"]))
    console.say(line)
