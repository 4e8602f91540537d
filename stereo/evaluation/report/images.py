"""Single images in the report of an evaluation: cards with pictures, rows of the table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stereo.evaluation.metrics import NOC, REGION_METRICS
from stereo.evaluation.report.page import NONE, data_uri, number
from stereo.evaluation.report.pictures import KINDS, SAMPLED, WORST, read_picture
from stereo.evaluation.report.runs import EvaluationRun, Key, is_number, smallest

PICTURE_BUDGET = 20 * 2**20  # bytes, before their text form makes a third more of them
RATES = {"bad_1": "bad-1", "bad_2": "bad-2", "bad_3": "bad-3", "d1": "D1"}


def image_cards(
    runs: Sequence[EvaluationRun], worst_first: list[Key]
) -> tuple[list[dict[str, Any]], int]:
    """Return the images shown with pictures, the worst first, and how many are not."""
    having = [key for key in worst_first if any("pictures" in run.images[key] for run in runs)]
    chosen, rest = having[:WORST], having[WORST:]
    if rest:
        count = min(SAMPLED, len(rest))
        chosen += [rest[round(i * (len(rest) - 1) / max(count - 1, 1))] for i in range(count)]
    place = {key: number for number, key in enumerate(worst_first, start=1)}
    cards: list[dict[str, Any]] = []
    spent = 0
    for key in dict.fromkeys(chosen):
        panels, size, limits = _panels(runs, key)
        spent += size
        if not panels or (cards and spent > PICTURE_BUDGET):
            continue
        cards.append(
            {
                "key": key,
                "anchor": f"image-{place[key]}",
                "place": place[key],
                "name": key[0],
                "figures": [(run.label, number(run.epe(key), 2)) for run in runs],
                "rates": [
                    (label, number(runs[0].images[key].get(name), 1))
                    for name, label in RATES.items()
                ],
                "noc": number(runs[0].images[key].get(NOC, {}).get("epe"), 2),
                "panels": panels,
                **limits,
            }
        )
    return cards, len(worst_first) - len(cards)


def _panels(
    runs: Sequence[EvaluationRun], key: Key
) -> tuple[list[dict[str, Any]], int, dict[str, str]]:
    """Return an image's pictures, their size in bytes, and the ends of its scales."""
    several = len(runs) > 1
    wanted = [("left", runs), ("truth", runs)]
    wanted += [(kind, [run]) for run in runs for kind in ("disparity", "error")]
    words = {"left": "Left view", "truth": "Ground truth", "disparity": "Disparity"}
    panels, size = [], 0
    limits = {"disparity_low": "0", "disparity_limit": NONE, "error_limit": NONE}
    for kind, sources in wanted:
        for run in sources:
            facts = run.images[key].get("pictures")
            picture = _read_picture(run.folder, facts, kind)
            if facts is None or picture is None:
                continue
            owner = run.label if several and kind in ("disparity", "error") else ""
            panels.append(
                {
                    "label": words.get(kind, "Error"),
                    "owner": owner,
                    "kind": kind,
                    "src": data_uri(picture),
                    "width": int(facts["width"]),
                    "height": int(facts["height"]),
                }
            )
            low = facts.get("disparity_low_px")
            limits = {
                "disparity_low": f"{float(low) if is_number(low) else 0:g}",
                "disparity_limit": f"{float(facts['disparity_limit_px']):g}",
                "error_limit": f"{float(facts['error_limit_px']):g}",
            }
            size += len(picture)
            break
    return panels, size, limits


def _read_picture(folder: Path, facts: Any, kind: str) -> bytes | None:
    """Read a picture that ``metrics.json`` names, if it lies below the run's folder."""
    assert kind in KINDS
    if not isinstance(facts, dict) or not isinstance(facts.get(kind), str):
        return None
    if not all(is_number(facts.get(k)) for k in ("width", "height", "disparity_limit_px")):
        return None
    try:
        return read_picture(folder, facts[kind])
    except (OSError, ValueError):  # they may have been left behind: figures still make a report
        return None


def image_row(runs: Sequence[EvaluationRun], key: Key, anchor: str | None) -> dict[str, Any]:
    """One line of the table of all images; several runs show fewer metrics each."""
    records = [run.images[key] for run in runs]
    nocs = [record.get(NOC, {}) for record in records]
    skipped = any(record.get("skipped") for record in records)
    several = len(runs) > 1
    shown = [(name, records) for name in (REGION_METRICS if several else ("epe", *RATES))]
    shown += [(name, nocs) for name in (("epe",) if several else ("epe", "bad_2"))]
    cells = []
    for name, sources in shown:
        values = [source.get(name) for source in sources]
        texts = [number(value, 3 if name == "epe" else 2) for value in values]
        best = smallest(texts, values)
        cells += [
            (text, value if is_number(value) else "", i in best)
            for i, (text, value) in enumerate(zip(texts, values, strict=True))
        ]
    pixels = records[0].get("valid_pixels")
    cells.append((number(pixels, 0), pixels if is_number(pixels) else "", False))
    for record in records:
        time = record.get("seconds")
        cells.append((number(time, 2), time if is_number(time) else "", False))
    return {"name": key[0], "anchor": anchor, "skipped": skipped, "cells": cells}
