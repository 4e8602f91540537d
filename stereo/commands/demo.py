"""The bundled pairs through the default model and through semi-global matching."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stereo.data.io import colors
from stereo.data.sets.datasets import open_dataset
from stereo.evaluation import tables
from stereo.evaluation.evaluate import metrics_report, score_result, write_metrics
from stereo.evaluation.metrics import NOC, ImageScore, summaries
from stereo.evaluation.protocols import get_protocol
from stereo.matching.loading import load
from stereo.system import console
from stereo.system.bundled import DEFAULT_MODEL, SGBM, samples_root
from stereo.system.files import output_folder, staged, writes_alone


@writes_alone
def demo(output: str | Path = "stereo-demo") -> None:
    """Map the bundled pairs, write images and ``metrics.json``, print a table.

    ``metrics.json`` describes the default model; the other models' summaries stand beside it under
    ``baselines``.

    Args:
        output: folder for images and figures.

    Raises:
        OutputError: the output cannot be written.
    """
    folder = output_folder(Path(output), alone=True)
    rules = get_protocol("pooled")
    data = open_dataset("sceneflow", samples_root(), split="test", render_pass="final")
    matchers = {name: load(name) for name in dict.fromkeys([DEFAULT_MODEL, SGBM])}
    scores: dict[str, list[ImageScore]] = {name: [] for name in matchers}
    facts = rules.to_dict() | {"split": data.split, "pass": data.render_pass, "dataset": "samples"}
    console.say(tables.protocol_line(facts))
    for index, item in enumerate(data.samples):
        sample = item.read(nonoccluded=True)
        assert sample.disparity is not None and sample.valid is not None  # for the type checker
        limit = colors.disparity_limit(sample.disparity)
        panels = [sample.left, colors.disparity_picture(sample.disparity, limit, sample.valid)]
        for name, matcher in matchers.items():
            result = matcher(sample.left, sample.right)
            scores[name].append(score_result(sample, result, index, rules))
            console.say(f"{name}  {tables.score_line(scores[name][-1])}")
            panels.append(colors.disparity_picture(result.disparity, limit))
            panels.append(colors.error_picture(result.disparity, sample.disparity, sample.valid))
        rows = [colors.side_by_side(*panels[i : i + 2]) for i in range(0, len(panels), 2)]
        _save(folder / f"{item.name.replace('/', '_')}.png", colors.stack(*rows))
    report: dict[str, Any] = metrics_report(
        matchers[DEFAULT_MODEL], facts, rules, scores[DEFAULT_MODEL]
    )
    found = {name: summaries(each, rules.averaging) for name, each in scores.items()}
    report["baselines"] = {
        name: each["summary"] | {NOC: each[NOC]}
        for name, each in found.items()
        if name != DEFAULT_MODEL
    }
    write_metrics(folder / "metrics.json", report)
    console.say(tables.summary_table(list(found.items())))
    console.say(
        f"images (left, truth / map, error) and metrics.json are in {folder}\n"
        "next: stereo infer LEFT RIGHT --output DIR"
    )


def _save(path: Path, picture: np.ndarray) -> None:
    with staged(path) as (temporary,):
        Image.fromarray(picture).save(temporary)
