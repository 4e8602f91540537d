"""The report of an evaluation, of one model or of several side by side."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stereo.errors import InputError, UsageError
from stereo.evaluation import tables
from stereo.evaluation.metrics import NOC, OCCLUDED
from stereo.evaluation.protocols import AVERAGING_TEXT, Averaging
from stereo.evaluation.regions import BINS
from stereo.evaluation.report.charts import Line, line_chart
from stereo.evaluation.report.images import RATES, image_cards, image_row
from stereo.evaluation.report.page import NONE, flattened, memory, number, seconds, write_page
from stereo.evaluation.report.pictures import WORST
from stereo.evaluation.report.runs import (
    REPORT_FILE,
    Comparison,
    EvaluationRun,
    Key,
    differences,
    is_number,
    match_runs,
    read_run,
    smallest,
)
from stereo.system import console
from stereo.system.files import output_folder

INTERVALS = "Differences, means over images, with 95 % of their bootstrap over images"
OPEN_AT_FIRST = 6  # images; the others are one click away

# Region -> what it is called, and what it is.
_WHERE: dict[str, dict[str, tuple[str, str]]] = {
    "Edges": {
        "edges": ("Near depth edges", "within 5 px of a jump of the true disparity"),
        "away_from_edges": ("Away from them", ""),
    },
    "Texture": {
        "flat": ("Flat areas", "hardly any horizontal gradient in the left view"),
        "textured": ("Textured areas", ""),
    },
    "Visibility": {
        NOC: ("Visible in both views", ""),
        OCCLUDED: ("Occluded in the right view", ""),
    },
}
_RANKINGS = {
    "confidence": ("confidence", "main"),
    "left_right": ("left-right check", "second"),
    "entropy": ("entropy", "third"),
    "oracle": ("oracle", "faint"),
}


def write_report(output: Path, folders: Sequence[Path]) -> None:
    """Write ``report.html`` from the runs in some folders.

    Raises:
        InputError: figures that cannot be read or compared.
        OutputError: the report cannot be written.
    """
    comparison = match_runs([read_run(folder) for folder in folders])
    first = comparison.runs[0]
    ranking = f" of {first.label}" if len(comparison.runs) > 1 else ""
    _write(output, comparison, lambda key: first.epe(key), ranking)


def compare(paths: Sequence[str | Path], output: str | Path) -> Path:
    """Write one report from the figures of several runs, and print their table.

    Returns:
        The report.

    Raises:
        UsageError: no run.
        InputError: figures that cannot be read, or of different protocols, data or images.
        OutputError: the report cannot be written.
    """
    if not paths:
        raise UsageError("name the runs to compare: folders with metrics.json")
    comparison = match_runs([read_run(Path(path)) for path in paths])
    folder = output_folder(Path(output))

    def worst(key: Key) -> float | None:
        errors = [run.epe(key) for run in comparison.runs]
        return max((error for error in errors if error is not None), default=None)

    try:
        _write(folder, comparison, worst, " of any model" if len(paths) > 1 else "")
        rows = [(run.label, {"summary": run.all, NOC: run.noc or None}) for run in comparison.runs]
        console.say(tables.summary_table(rows))
        console.say(tables.protocol_line(comparison.runs[0].protocol))
        apart = differences(comparison)
        if apart:
            console.say(f"{INTERVALS}:")
        for line in apart:
            console.say(f"  {line}")
        for note in comparison.notes:
            console.say(f"note: {note}")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{' '.join(map(str, paths))}: figures that this version does not understand "
            f"({type(error).__name__}: {error}); evaluate again"
        ) from error
    return folder / REPORT_FILE


def _write(
    output: Path, found: Comparison, rank: Callable[[Key], float | None], ranking: str
) -> None:
    runs = found.runs
    ranks = {key: rank(key) for key in found.keys}
    worst_first = sorted(
        found.keys, key=lambda key: -1.0 if (value := ranks[key]) is None else value, reverse=True
    )
    cards, left_out = image_cards(runs, worst_first)
    anchors = {card["key"]: card["anchor"] for card in cards}
    protocol = runs[0].protocol
    dates = sorted({str(run.metrics.get("run", {}).get("date", ""))[:10] for run in runs} - {""})
    context = {
        "title": ", ".join(run.label for run in runs),
        "runs": [run.label for run in runs],
        "dataset": protocol.get("dataset"),
        "images": runs[0].summary.get("images", 0),
        "skipped": _skipped(runs),
        "date": " and ".join(dates[:1] + dates[1:][-1:]),
        "protocol_line": tables.protocol_line(protocol),
        "averaging": protocol["averaging"],
        "notes": found.notes,
        "intervals": INTERVALS,
        "differences": differences(found),
        "tiles": _tiles(runs, found.keys),
        "summary": _summary(runs, found.keys),
        "where": _where(runs),
        "confidence": [part for run in runs if (part := _confidence(run))],
        "confidence_elsewhere": any("confidence" in run.metrics["summary"] for run in runs),
        "costs": [_cost(run, found.keys) for run in runs],
        "cards": cards,
        "ranking": ranking,
        "open_at_first": OPEN_AT_FIRST,
        "worst_count": min(WORST, len(cards)),
        "left_out": left_out,
        "rows": [image_row(runs, key, anchors.get(key)) for key in worst_first],
        "facts": [(run.label, _facts(run)) for run in runs],
    }
    write_page(output / REPORT_FILE, "evaluation.html", context)


def _tiles(runs: Sequence[EvaluationRun], keys: Sequence[Key]) -> list[dict[str, Any]]:
    """The first run's figures in large, the others' below."""

    def tile(label: str, unit: str, values: list[str]) -> dict[str, Any]:
        others = [(run.label, value) for run, value in zip(runs[1:], values[1:], strict=True)]
        return {"label": label, "unit": unit, "value": values[0], "others": others}

    def error(label: str, unit: str, name: str, digits: int) -> dict[str, Any]:
        made = tile(label, unit, [number(run.summary.get(name), digits) for run in runs])
        if len(runs) == 1 and runs[0].noc:
            made["others"] = [("non-occluded", number(runs[0].noc.get(name), digits))]
        return made

    times = [run.times(keys) for run in runs]
    return [
        error("EPE", "px", "epe", 2),
        error("bad-2", "%", "bad_2", 1),
        error("bad-3", "%", "bad_3", 1),
        tile(
            "time per image", "s", [number(statistics.median(t), 2) if t else NONE for t in times]
        ),
    ]


def _summary(runs: Sequence[EvaluationRun], keys: Sequence[Key]) -> dict[str, Any]:
    """The table of models and metrics, the best of each marked."""
    columns: list[tuple[str, str, str]] = [("EPE", "px", "epe")]
    columns += [(label, "%", name) for name, label in RATES.items()]
    own = runs[0].protocol["averaging"]  # which the first columns have
    averages: dict[Averaging, str] = {"pixel": "over pixels", "image": "over images"}
    for kind, words in averages.items():
        if own != AVERAGING_TEXT[kind]:
            columns.append(("EPE", f"px, {words}", f"epe_{kind}"))
    regions = {"All pixels": [run.all for run in runs]}
    if any(run.noc for run in runs):
        masks = dict.fromkeys(str(run.noc["mask"]) for run in runs if "mask" in run.noc)
        by = f", by {' or '.join(masks)}" if masks else ""
        regions[f"Non-occluded pixels{by}"] = [run.noc for run in runs]
    costs = []
    for run in runs:
        times = run.times(keys)
        costs.append(
            (statistics.median(times) if times else None, run.memory.get("above_start_bytes"))
        )
    groups: list[tuple[str, list[Any]]] = []
    for title, parts in regions.items():
        values = [[part.get(name) for _, _, name in columns] for part in parts]
        texts = [
            [number(value, 3 if unit.startswith("px") else 2) for value, (_, unit, _) in pairs]
            for pairs in (zip(row, columns, strict=True) for row in values)
        ]
        for row, text, (time, peak) in zip(values, texts, costs, strict=True):
            row += [time, peak] if not groups else [None, None]
            text += [seconds(time), memory(peak)] if not groups else ["", ""]
        best = [
            smallest([text[i] for text in texts], [row[i] for row in values])
            for i in range(len(columns) + 2)
        ]
        rows = [
            (run.label, [(cell, i in best[n]) for n, cell in enumerate(text)])
            for i, (run, text) in enumerate(zip(runs, texts, strict=True))
        ]
        groups.append((title, rows))
    heads = [(label, unit) for label, unit, _ in columns]
    return {"columns": [*heads, ("Time", "median"), ("Memory", "working")], "groups": groups}


def _where(runs: Sequence[EvaluationRun]) -> list[dict[str, Any]]:
    """Errors by disparity, at edges, in flat areas, and where the right view does not see."""
    tables = [{NOC: run.noc} | run.summary.get("regions", {}) for run in runs]
    groups = {"Disparity": {name: (_bin_label(name), "") for name in BINS}} | _WHERE
    found: list[dict[str, Any]] = []
    largest = max(
        (
            table[name]["epe_pixel"]
            for table in tables
            for group in groups.values()
            for name in group
            if is_number(table.get(name, {}).get("epe_pixel"))
        ),
        default=0.0,
    )
    for title, group in groups.items():
        rows = []
        for name, (label, hint) in group.items():
            parts = [table.get(name, {}) for table in tables]
            epes = [part.get("epe_pixel") for part in parts]
            if not any(is_number(epe) for epe in epes):
                continue
            pixels = parts[0].get("valid_pixels")
            whole = runs[0].all if title == "Visibility" else runs[0].summary
            of = whole.get("valid_pixels")
            texts = [number(epe, 2) for epe in epes]
            best = smallest(texts, epes)
            cells = [
                {
                    "epe": texts[i],
                    "width": 100 * epe / largest if is_number(epe) and largest else 0,
                    "bad_3": number(part.get("bad_3_pixel"), 1),
                    "best": i in best,
                }
                for i, (epe, part) in enumerate(zip(epes, parts, strict=True))
            ]
            share = number(100 * pixels / of, 1) if pixels and of else NONE
            rows.append({"label": label, "hint": hint, "share": share, "cells": cells})
        if rows:
            found.append({"title": title, "rows": rows})
    return found


def _bin_label(name: str) -> str:
    low, _, high = name.removeprefix("disparity_").partition("_")
    if not high:
        return f"{low} px and more"
    return f"below {high} px" if low == "0" else f"{low} to {high} px"


def _confidence(run: EvaluationRun) -> dict[str, Any] | None:
    """Sparsification curves, reliability, and the area between a curve and the oracle's."""
    facts = run.summary.get("confidence")
    if not isinstance(facts, dict):
        return None
    curves = facts.get("curves", {})
    coverage = [100 * share for share in curves.get("coverage", [])]
    charts = []
    for metric, label in (("epe", "EPE of those pixels, px"), ("bad_3", "bad-3 of those, %")):
        lines = [
            Line(_RANKINGS[name][0], coverage, curves[metric][name], _RANKINGS[name][1])
            for name in _RANKINGS
            if name in curves.get(metric, {})
        ]
        charts.append(
            (
                line_chart(f"{label} against coverage", lines, "pixels kept, %", label),
                [(line.label, line.style) for line in lines],
            )
        )
    bins = [row for row in facts.get("reliability", []) if row.get("pixels")]
    if bins:
        sure = [100 * row["confidence"] for row in bins]
        right = [100 * row["within_3_px"] for row in bins]
        lines = [
            Line("measured", sure, right, "main", dots=True),
            Line("as promised", [0, 100], [0, 100], "faint"),
        ]
        charts.append(
            (
                line_chart(
                    "Reliability: share of right pixels against confidence",
                    lines,
                    "confidence, %",
                    "within 3 px, %",
                    y_end=100,
                ),
                [(line.label, line.style) for line in lines],
            )
        )
    areas = [
        (_RANKINGS[name][0], number(facts.get("ause_epe", {}).get(name), 3),
         number(facts.get("ause_bad_3", {}).get(name), 2))
        for name in _RANKINGS
        if name in facts.get("ause_epe", {})
    ]  # fmt: skip
    return {"label": run.label, "charts": charts, "areas": areas}


def _cost(run: EvaluationRun, keys: Sequence[Key]) -> dict[str, Any]:
    times, peak = run.times(keys), run.memory
    machine = run.metrics.get("run", {}).get("machine", {})
    model = run.metrics["model"]
    return {
        "label": run.label,
        "where": " ".join(str(model[k]) for k in ("device", "precision") if k in model),
        "median": seconds(statistics.median(times)) if times else NONE,
        "longest": seconds(max(times)) if times else NONE,
        "total": seconds(sum(times)) if times else NONE,
        "working": memory(peak.get("above_start_bytes")),
        "peak": memory(peak.get("peak_bytes")),
        "kind": peak.get("kind"),
        "machine": ", ".join(
            text
            for text in (
                str(machine.get("name", "")),
                f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
                if "threads" in machine
                else "",
                f"torch {machine['torch']}" if "torch" in machine else "",
            )
            if text
        ),
    }


def _facts(run: EvaluationRun) -> list[tuple[str, str]]:
    machine = run.metrics.get("run", {}).get("machine", {})
    return flattened(run.metrics["model"]) + flattened({"machine": machine} if machine else {})


def _skipped(runs: Sequence[EvaluationRun]) -> list[str]:
    """Return lines on the images that were skipped or failed."""
    lines = []
    for key, what in (
        ("skipped_names", "skipped, too few pixels count"),
        ("failed_names", "could not be read or matched"),
    ):
        for run in runs:
            names = [str(name) for name in run.summary.get(key, [])]
            if names:
                owner = f"{run.label}: " if len(runs) > 1 else ""
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                lines.append(f"{owner}{what}: {', '.join(names[:5])}{more}.")
    return lines
