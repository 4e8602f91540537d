"""Metrics of a model over a data set, under a named protocol."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stereo import console
from stereo.data.datasets import open_dataset
from stereo.errors import StereoError, UsageError
from stereo.files import output_folder, staged
from stereo.matcher import Matcher
from stereo.metrics import ImageScore, image_record, score_image, summarise
from stereo.protocols import Protocol, get_protocol


def evaluate(
    matcher: Matcher,
    dataset: str,
    root: str | Path,
    output: str | Path,
    *,
    protocol: str = "pooled",
    split: str | None = None,
    render_pass: str | None = None,
    limit: int | None = None,
) -> tuple[dict[str, Any], int]:
    """Match every pair of a data set, print the figures and write ``OUTPUT/metrics.json``.

    A pair that cannot be read or matched is named and left out; the others go on.

    Args:
        matcher: the model.
        dataset: a name of ``stereo.data.datasets.DATASETS``.
        root: its folder.
        output: folder for ``metrics.json``.
        protocol: a name of ``stereo.protocols.PROTOCOLS``.
        split: the data set's part; None for its default.
        render_pass: ``clean`` or ``final``; None for the protocol's own, where the choice exists.
        limit: match only the first N pairs.

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
    chosen_pass = render_pass or (rules.render_pass if dataset != "manifest" else None)
    data = open_dataset(dataset, root, split=split, render_pass=chosen_pass)
    folder = output_folder(Path(output))
    files = [data.samples[i] for i in rules.choose_images(len(data.samples))][:limit]
    line = console.protocol_line(rules, data.split, data.render_pass)
    console.say(line)
    scores: list[ImageScore] = []
    failed: list[str] = []
    for index, item in enumerate(console.progress(files, "evaluate")):
        try:
            sample = item.read()
            assert sample.disparity is not None and sample.valid is not None
            result = matcher(sample.left, sample.right)
        except StereoError as error:
            console.complain(f"stereo evaluate: error: {item.name}: {error}")
            failed.append(item.name)
            continue
        score = score_image(
            item.name,
            index,
            result.disparity,
            sample.disparity,
            sample.valid,
            rules,
            sample.nonoccluded,
            result.seconds,
        )
        scores.append(score)
        console.say(console.score_line(score))
    protocol_facts = rules.describe() | {
        "split": data.split,
        "pass": data.render_pass,
        "dataset": dataset,
        "limit": limit,
    }
    report = metrics_report(matcher, protocol_facts, rules, scores, failed)
    write_metrics(folder / "metrics.json", report)
    print_summary(scores, rules, line)
    return report, len(failed)


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
    """Write ``metrics.json``, whole or not at all."""
    with staged(path) as (temporary,):
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def print_summary(scores: Sequence[ImageScore], rules: Protocol, line: str) -> None:
    """Print the averages, per folder of the data set where there are several, and over all."""
    groups: dict[str, list[ImageScore]] = {}
    for score in scores:
        groups.setdefault(score.name.rpartition("/")[0], []).append(score)
    summaries: list[tuple[str, dict[str, object]]] = []
    if 1 < len(groups) <= 40:
        summaries = [(name or ".", _summary(group, rules)) for name, group in groups.items()]
    summaries.append(("all", _summary(scores, rules)))
    console.say(console.summary_table(summaries))
    console.say(line)


def _summary(scores: Iterable[ImageScore], rules: Protocol) -> dict[str, object]:
    numbered = [dataclasses.replace(score, index=i) for i, score in enumerate(scores)]
    return summarise(numbered, rules.averaging)
