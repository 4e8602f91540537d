"""The report of a training run: its curves, its last pictures, its recipe, data and machine."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stereo.errors import InputError
from stereo.evaluation.report.charts import Line, line_chart
from stereo.evaluation.report.page import data_uri, flattened, number, write_page
from stereo.evaluation.report.pictures import FOLDER, KINDS, read_picture, write_pictures
from stereo.evaluation.report.runs import is_number
from stereo.system.files import output_folder, staged
from stereo.system.limits import read_json
from stereo.system.machine import machine

REPORT_FILE = "report.html"
EVENTS = "tensorboard"
PICTURES_FILE = f"{FOLDER}/validation.json"
SMOOTH_FROM = 40  # points of a noisy curve, from which its moving average is drawn as well
_WORDS = {"left": "Left view", "truth": "Ground truth", "disparity": "Disparity"}

Curve = tuple[list[float], list[float]]
"""Steps, and a value at each."""


def write_validation_pictures(
    folder: Path, step: int, examples: Sequence[Mapping[str, Any]]
) -> None:
    """Write the pictures of validation pairs over the earlier ones.

    Args:
        folder: the run's folder.
        step: steps done.
        examples: ``name``, and the arrays ``left``, ``disparity``, ``truth`` and ``valid``.

    Raises:
        OutputError: they cannot be written.
    """
    output_folder(folder / FOLDER)
    records = []
    for number_, example in enumerate(examples):
        maps = (example[key] for key in ("left", "disparity", "truth", "valid"))
        record = write_pictures(folder, f"validation_{number_}", *maps)
        error = np.abs(example["disparity"] - example["truth"])[example["valid"]]
        epe = float(error.mean()) if error.size else None
        records.append({"name": example["name"], "step": step, "epe": epe, **record})
    with staged(folder / PICTURES_FILE) as (temporary,):
        temporary.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")


def write_training_report(
    folder: Path, facts: Mapping[str, Any], data: str, max_steps: int, device: torch.device
) -> None:
    """Write a run's ``report.html`` from what TensorBoard's files and its folder hold.

    Args:
        folder: the run's folder.
        facts: what its checkpoints say of it: ``recipe``, ``weights`` and so on.
        data: what it is trained and validated on, in words.
        max_steps: steps in all.
        device: where it runs.

    Raises:
        StereoError: it cannot be written.
    """
    curves = _read_curves(folder / EVENTS)
    epe = curves.get("validation/epe_image", ([], []))
    steps = max((xs[-1] for xs, _ in curves.values() if xs), default=0)
    best = min(range(len(epe[1])), key=lambda i: epe[1][i], default=None)
    speed = curves.get("train/pairs_per_second", ([], []))[1]
    tiles = [("steps", f"{steps:,.0f}", f"of {max_steps:,}")]
    if best is not None:
        tiles += [
            ("validation EPE, last", number(epe[1][-1], 2), "px"),
            (f"best, at step {epe[0][best]:,.0f}", number(epe[1][best], 2), "px"),
        ]
    if speed:
        tiles.append(("speed, median", number(float(np.median(speed)), 1), "pairs/s"))
    recipe = dict(facts.get("recipe", {}))
    name = recipe.get("network", {}).get("name", "training")
    groups = [
        (section, flattened(fields))
        for section, fields in recipe.items()
        if isinstance(fields, dict)
    ]
    loose = {key: value for key, value in recipe.items() if not isinstance(value, dict)}
    loose |= {key: value for key, value in facts.items() if key != "recipe"}
    groups += [("run", flattened(loose)), ("machine", flattened(machine(device)))]
    context = {
        "title": name,
        "folder": folder.resolve().name,
        "data": data,
        "tiles": tiles,
        "charts": _charts(curves),
        "cards": _cards(folder),
        "facts": groups,
    }
    write_page(folder / REPORT_FILE, "training.html", context)


def _read_curves(folder: Path) -> dict[str, Curve]:
    """Read the scalars of TensorBoard's files; what a resumed run overtook is left out."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sizes = {"scalars": 0, "images": 1, "tensors": 1, "histograms": 1}  # 0: all of them
    # TensorBoard's own way of leaving them out warns of steps "out of order".
    events = EventAccumulator(str(folder), size_guidance=sizes, purge_orphaned_data=False)
    events.Reload()
    curves = {}
    for tag in events.Tags()["scalars"]:
        steps: list[float] = []
        values: list[float] = []
        for event in events.Scalars(tag):
            while steps and steps[-1] >= event.step:
                steps.pop()
                values.pop()
            steps.append(float(event.step))
            values.append(float(event.value))
        curves[tag] = steps, values
    return curves


def _charts(curves: Mapping[str, Curve]) -> list[tuple[Any, list[tuple[str, str]]]]:
    def lines(*wanted: tuple[str, str, str]) -> list[Line]:
        found = [(label, curves[tag], style) for label, tag, style in wanted if tag in curves]
        return [
            Line(label, *curve, style, dots=len(curve[0]) <= 30) for label, curve, style in found
        ]

    def noisy(tag: str) -> list[Line]:
        if tag not in curves:
            return []
        steps, values = curves[tag]
        if len(values) < SMOOTH_FROM:
            return [Line("each step logged", steps, values, "main")]
        width = max(5, len(values) // 25) | 1
        padded = np.pad(np.asarray(values), width // 2, mode="edge")
        smooth = np.convolve(padded, np.full(width, 1 / width), mode="valid")
        return [
            Line(f"mean of {width} points", steps, smooth.tolist(), "main"),
            Line("each step logged", steps, values, "faint"),
        ]

    errors = lines(("validation", "validation/epe_image", "main"))
    rates = lines(
        ("bad-1", "validation/bad_1_image", "third"),
        ("bad-2", "validation/bad_2_image", "second"),
        ("bad-3", "validation/bad_3_image", "main"),
    )
    drawn = [
        ("Loss of training, logarithmic", noisy("train/loss"), "loss", True),
        ("EPE of validation", errors, "EPE, px, mean over images", False),
        ("Bad pixels of validation", rates, "bad pixels, %", False),
        ("Learning rate", lines(("rate", "train/learning_rate", "main")), "learning rate", False),
        ("Norm of the gradient", noisy("train/gradient_norm"), "gradient norm", True),
        ("Speed", noisy("train/pairs_per_second"), "pairs per second", False),
    ]
    return [
        (line_chart(title, parts, "step", label, log=log), [(p.label, p.style) for p in parts])
        for title, parts, label, log in drawn
    ]


def _cards(folder: Path) -> list[dict[str, Any]]:
    """Return the pictures of the last validation that left any."""
    file = folder / PICTURES_FILE
    if not file.is_file():
        return []
    try:
        return [_card(folder, record) for record in read_json(file)]
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise InputError(f"{file}: not what a run writes; remove it") from error


def _card(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    panels = [
        {
            "label": _WORDS.get(kind, "Error"),
            "owner": "",
            "kind": kind,
            "src": data_uri(read_picture(folder, record[kind])),
            "width": int(record["width"]),
            "height": int(record["height"]),
        }
        for kind in KINDS
    ]
    return {
        "name": str(record["name"]),
        "step": f"{record['step']:,}",
        "epe": number(record["epe"] if is_number(record["epe"]) else None, 2),
        "panels": panels,
        "disparity_limit": f"{float(record['disparity_limit_px']):g}",
        "error_limit": f"{float(record['error_limit_px']):g}",
    }
