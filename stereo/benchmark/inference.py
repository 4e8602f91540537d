"""Networks on one pair: as shipped, in their plain form, and semi-global matching beside them."""

import contextlib
import functools
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stereo import console
from stereo.benchmark import measure
from stereo.benchmark.plot import bars_plot, require_matplotlib
from stereo.benchmark.reference import ReferencePSMNet
from stereo.benchmark.subjects import plain_form, see, shipped_form, trained_like
from stereo.bundled import SGBM
from stereo.data.synthetic import RenderedPair, SyntheticConfig, SyntheticScenes
from stereo.engine import NetworkEngine
from stereo.errors import StereoError, UsageError, unknown_name
from stereo.files import output_folder, staged
from stereo.machine import machine
from stereo.matcher import load, own_max_disparity
from stereo.model import NETWORK_NAMES
from stereo.model.config import check_max_disparity
from stereo.runtime import (
    keep_for_matching,
    pick_device,
    pick_dtype,
    return_freed_memory,
)

MODELS = ("psmnet", "ea_psmnet", "ea_stereo_fast", SGBM)
TOLERANCE = 1e-3  # pixels, mean over the map
ORIGINAL, PLAIN, OURS = "original", "plain", "ours"
Matching = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Subject:
    """One line of the benchmark.

    Attributes:
        model: a network's name, or ``sgbm``.
        form: ``original`` (the authors' code), ``plain`` (ours, every volume whole, batch norms
            apart) or ``ours``, as ``stereo.load`` runs it.
        precision: ``fp32``, ``bf16``, ``fp16``; ``int16`` for ``sgbm``.
        match: gives the map.
        keeps: the dtype for which freed memory is kept from call to call meanwhile, as the commands
            do; None to keep none.
    """

    model: str
    form: str
    precision: str
    match: Matching
    keeps: str | None = None

    @property
    def label(self) -> str:
        """Name, form and precision in words."""
        return f"{self.model} {self.form} {self.precision}"


def benchmark_inference(
    output: str | Path,
    *,
    models: Sequence[str] = MODELS,
    size: tuple[int, int] = (544, 960),
    max_disparity: int | None = None,
    precisions: Sequence[str] = ("fp32", "bf16"),
    device: str = "auto",
    repeats: int = 3,
    reference_psmnet: str | Path | None = None,
) -> dict[str, Any]:
    """Time networks on a rendered pair and write ``OUTPUT`` (JSON), a table and a plot beside it.

    The yardstick of a network is the original, if it is there, or its plain form, in the first
    precision. Maps in fp32 must first be the yardstick's within 1e-3 px on average, else nothing is
    timed. Then all take turns, so that a slow minute of the machine slows all of them.

    Networks with shipped weights run with them. The others have random ones, of the original if it
    is there, with batch norms that have seen the pair once and attention that does something.

    Args:
        output: the JSON file; the plot takes its name with ``.png``, the table with ``.md``.
        models: networks' names, and ``sgbm``.
        size: height and width of the pair.
        max_disparity: pixels; None for the largest of the models' own.
        precisions: of ``fp32``, ``bf16`` and ``fp16``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        repeats: timed calls of each.
        reference_psmnet: folder of the original PSMNet.

    Returns:
        What was written to the JSON file.

    Raises:
        UsageError: an unknown model, precision or device.
        InputError: a reference that cannot be used.
        StereoError: a map that is not that of the plain form.
    """
    require_matplotlib()
    models = list(dict.fromkeys(models))
    for name in models:
        if name not in (*NETWORK_NAMES, SGBM):
            raise unknown_name("model", name, (*NETWORK_NAMES, SGBM))
    if max_disparity is None:
        max_disparity = max(own_max_disparity(name) for name in models)
    check_max_disparity(max_disparity)
    where = pick_device(device)
    precisions = list(dict.fromkeys(precisions))
    for precision in precisions:
        pick_dtype(precision, where)
    if repeats < 1:
        raise UsageError(f"--repeats {repeats}: must be at least 1")
    path = measure.report_path(output)
    output_folder(path.parent)
    height, width = size
    scene = SyntheticConfig(height=height, width=width, max_disparity=max_disparity)
    pair = SyntheticScenes(scene).render(0)

    original = None
    if reference_psmnet is not None:
        original = ReferencePSMNet(reference_psmnet, max_disparity, where)
        see(original, original, pair, where)
    subjects: list[Subject] = []
    weights: dict[str, str] = {}
    for name in models:
        if name == SGBM:
            subjects.append(Subject(name, "OpenCV", "int16", _sgbm(pair, max_disparity)))
            continue
        network, config, weights[name] = trained_like(name, max_disparity, original, pair, where)
        forms = {PLAIN: plain_form(network), OURS: shipped_form(network)}
        for precision in precisions:
            if name == "psmnet" and original is not None:
                dtype = pick_dtype(precision, where)
                match = functools.partial(original.match, pair, config, dtype)
                subjects.append(Subject(name, ORIGINAL, precision, match))
            for form, own in forms.items():
                kernels = "auto" if form == OURS else "torch"
                engine = NetworkEngine(own, config, where, precision, kernels=kernels)
                match = functools.partial(_first_map, engine, pair)
                keeps = str(engine.dtype).removeprefix("torch.") if form == OURS else None
                subjects.append(Subject(name, form, precision, match, keeps))

    differences = _compare(subjects)
    rows = _measure(subjects, where, repeats)
    for row, difference in zip(rows, differences, strict=True):
        row |= difference
    _add_ratios(rows)
    report = {
        "benchmark": "inference",
        "machine": machine(where),
        "settings": {
            "height": height,
            "width": width,
            "max_disparity": max_disparity,
            "pair": pair.name,
            "repeats": repeats,
            "weights": weights,
            "equality_gate": f"fp32 maps within {TOLERANCE} px of the yardstick on average",
        },
        "rows": rows,
    }
    text = _table(report)
    with staged(path, path.with_suffix(".md"), path.with_suffix(".png")) as (data, table, plot):
        data.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        table.write_text(text + "\n", encoding="utf-8")
        bars_plot(plot, report)
    console.say(text)
    return report


def _first_map(engine: NetworkEngine, pair: RenderedPair) -> np.ndarray:
    return engine([pair.left], [pair.right])[0].disparity


def _sgbm(pair: RenderedPair, max_disparity: int) -> Matching:
    matcher = load(SGBM, max_disparity=max_disparity)
    return lambda: matcher(pair.left, pair.right).disparity


def _compare(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """Return how far each map is from its yardstick's.

    Raises:
        StereoError: too far, or not finite.
    """
    yardsticks: dict[str, np.ndarray] = {}
    found: list[dict[str, Any]] = []
    for subject in subjects:
        disparity = subject.match()
        if not np.isfinite(disparity).all():
            raise StereoError(f"{subject.label}: a map that is not finite; nothing is timed")
        if subject.form == "OpenCV":
            found.append({})
            continue
        yardstick = yardsticks.setdefault(subject.model, disparity)
        difference = np.abs(disparity - yardstick)
        mean, largest = float(difference.mean()), float(difference.max())
        console.say(f"{subject.label}: {mean:.2g} px from its yardstick, at most {largest:.2g} px")
        if subject.precision == "fp32" and mean > TOLERANCE:
            raise StereoError(
                f"{subject.label} is {mean:.2g} px from its yardstick on average, more than "
                f"{TOLERANCE}; nothing is timed"
            )
        found.append({"mean_difference_px": mean, "largest_difference_px": largest})
    return found


def _measure(
    subjects: Sequence[Subject], device: torch.device, repeats: int
) -> list[dict[str, Any]]:
    """Weigh and time all subjects in turns."""
    rows: list[dict[str, Any]] = []
    for subject in subjects:
        facts = {"model": subject.model, "form": subject.form, "precision": subject.precision}
        with _memory_of(subject, device):
            rows.append(facts | {"peak_bytes": measure.peak_bytes(subject.match, device)})
    times: list[list[float]] = [[] for _ in subjects]
    for turn in range(repeats):
        for subject, own in zip(subjects, times, strict=True):
            with _memory_of(subject, device):
                own.append(measure.seconds(subject.match, device, repeats=1)["median"])
            console.say(f"turn {turn + 1}: {subject.label} {own[-1]:.3g} s")
    for row, own in zip(rows, times, strict=True):
        row["seconds"] = {
            "median": statistics.median(own),
            "min": min(own),
            "max": max(own),
            "repeats": repeats,
        }
    return rows


@contextlib.contextmanager
def _memory_of(subject: Subject, device: torch.device) -> Iterator[None]:
    """Keep freed memory for one subject alone, filled by a call that does not count."""
    if subject.keeps is None:
        yield
        return
    keep_for_matching(device.type, subject.keeps)
    try:
        subject.match()
        yield
    finally:
        return_freed_memory()


def _add_ratios(rows: Sequence[dict[str, Any]]) -> None:
    """Add how many times as fast each row is as its model's first one, the yardstick."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        yardstick = first.setdefault(row["model"], row)
        row["yardstick"] = f"{yardstick['form']} {yardstick['precision']}"
        row["times_as_fast"] = yardstick["seconds"]["median"] / row["seconds"]["median"]


def _table(report: dict[str, Any]) -> str:
    header = ["model", "form", "precision", "s, median", "s, spread", "times as fast as", ""]
    header += ["peak MiB", "px, mean difference", "px, largest"]
    body = []
    for row in report["rows"]:
        seconds, peak = row["seconds"], row["peak_bytes"]
        body.append(
            [
                *(row["model"], row["form"], row["precision"]),
                f"{seconds['median']:.3g}",
                f"{seconds['min']:.3g} to {seconds['max']:.3g}",
                row["yardstick"],
                f"{row['times_as_fast']:.2f}",
                "" if peak is None else f"{peak / 2**20:,.0f}",
                *(
                    f"{row[key]:.2g}" if key in row else ""
                    for key in ("mean_difference_px", "largest_difference_px")
                ),
            ]
        )
    return console.table(header, body)
