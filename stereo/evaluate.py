"""Metrics of a model over a data set, under a named protocol."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stereo import console
from stereo.data.datasets import describe, open_dataset
from stereo.data.sample import Sample
from stereo.distributed import gather, is_main, own_share, wait_for_all
from stereo.errors import StereoError, UsageError
from stereo.files import output_folder, staged
from stereo.matcher import Matcher, Result
from stereo.metrics import ImageScore, image_record, score_image, summarise
from stereo.protocols import Protocol, get_protocol


def evaluate(
    matcher: Matcher,
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
) -> tuple[dict[str, Any], int]:
    """Match every pair of a data set, print the figures and write ``OUTPUT/metrics.json``.

    A pair that cannot be read or matched is named and left out; the others go on. Processes
    started by torchrun share the pairs and give the figures of one process.

    Args:
        matcher: the model.
        dataset: a name of ``stereo.data.datasets.DATASETS``.
        root: its folder; None for ``synthetic`` rendered on the spot.
        output: folder for ``metrics.json``.
        protocol: a name of ``stereo.protocols.PROTOCOLS``.
        split: the data set's part; None for its default.
        render_pass: ``clean`` or ``final``; None for the protocol's own, where the choice exists.
        limit: match only the first N pairs.
        layout: the data set's tree by name; None to find it by looking.
        unused: Scene Flow's list of unusable frames; None to use all.
        confidence: whether to score the confidence too, which takes a second match per pair.

    Returns:
        What was written to ``metrics.json``, and the number of pairs that failed.

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
    files = [data.samples[i] for i in rules.choose_images(len(data.samples))][:limit]
    line = console.protocol_line(rules, data.split, data.render_pass)
    tree = f", layout {data.layout}" if data.layout else ""
    console.say(f"data set {dataset}: {len(files)} of {len(data.samples)} pairs{tree}")
    console.say(line)
    scores: list[ImageScore] = []
    failed: list[tuple[int, str]] = []
    for index, item in console.progress(own_share(files), "evaluate"):
        try:
            sample = item.read(nonoccluded=True)
            result = matcher(sample.left, sample.right)
            measures = result.trusted.measures() if confidence else None
        except StereoError as error:
            console.complain(f"stereo evaluate: error: {item.name}: {error}")
            failed.append((index, item.name))
            continue
        scores.append(score_result(sample, result, index, rules, measures))
        console.say(console.score_line(scores[-1]), everyone=True)
    protocol_facts = rules.describe() | {
        "split": data.split,
        "pass": data.render_pass,
        "dataset": dataset,
        "layout": data.layout,
        "unused_list": None if unused is None else Path(unused).name,
        "limit": limit,
    }
    scores, names = gather_scores(scores, failed)
    report = metrics_report(matcher, protocol_facts, rules, scores, names)
    write_metrics(folder / "metrics.json", report)
    print_summary(report["summary"], scores, rules, line)
    wait_for_all()
    return report, len(names)


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
        measures,
    )


def metrics_report(
    matcher: Matcher,
    protocol_facts: dict[str, Any],
    rules: Protocol,
    scores: Sequence[ImageScore],
    failed: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the contents of ``metrics.json``."""
    return {
        "model": matcher.description,
        "protocol": protocol_facts,
        "images": [image_record(score) for score in scores],
        "summary": summarise(scores, rules.averaging) | {"failed_names": list(failed)},
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
