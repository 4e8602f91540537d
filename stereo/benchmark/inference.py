"""Networks on one pair, optimised and in plain form, and semi-global matching."""

import functools
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stereo.benchmark import measure
from stereo.benchmark.bench import Bench, set_up
from stereo.benchmark.ceilings import SHARE_HEADER, add_share, share_columns
from stereo.benchmark.networks import plain_form, shipped_form, trained_like
from stereo.benchmark.plot import bars_plot, require_matplotlib
from stereo.data.synthetic import RenderedPair
from stereo.errors import StereoError, UsageError
from stereo.matching.engine import NetworkEngine
from stereo.matching.loading import load, searches_own_range
from stereo.matching.matcher import Matcher
from stereo.matching.options import MatchOptions, kind_of
from stereo.models import NETWORK_NAMES
from stereo.system import console
from stereo.system.bundled import SGBM
from stereo.system.heap import stop_keeping_freed_memory
from stereo.system.runtime import pick_dtype
from stereo.system.threads import SPIN_COUNT, WAIT_POLICY

MODELS = ("psmnet", "ea_psmnet", "ea_stereo_fast", "ea_stereo", SGBM)
TOLERANCE = 1e-3  # pixels, mean over the map
ORIGINAL, PLAIN, OURS, OPENCV, THEIRS = "original", "plain", "ours", "OpenCV", "theirs"
Matching = Callable[[], np.ndarray]


@dataclass(frozen=True)
class InferenceCase:
    """One line of the benchmark."""

    model: str  # as `stereo.load` takes it
    # `original` (the authors' code), `plain` (ours, every volume whole, batch norms apart), `ours`,
    # as `stereo.load` runs it, or `theirs`, any other model
    form: str
    precision: str  # `fp32`, `bf16`, `fp16`; `int16` for `sgbm`; `own` where that is not known
    match: Matching  # gives the map
    # whether freed memory is kept from call to call meanwhile, as `stereo.load` does
    keeps: bool = False
    on_cpu: bool = False  # whatever the device of the others

    @property
    def label(self) -> str:
        """Name, form and precision in words."""
        return f"{self.model} {self.form} {self.precision}"


def benchmark_inference(
    output: str | Path,
    *,
    models: Sequence[str] | None = None,
    size: tuple[int, int] = (544, 960),
    max_disparity: int | None = None,
    precisions: Sequence[str] | None = None,
    device: str = "auto",
    repeats: int = 3,
    busy: int = 0,
    reference_psmnet: str | Path | None = None,
) -> dict[str, Any]:
    """Time networks on a rendered pair and write ``OUTPUT`` (JSON), a table and a plot beside it.

    The reference of a network is the original, if it is there, else its plain form, in fp32 unless
    only others are named. Maps in fp32 must first be the reference's within 1e-3 px on average,
    else nothing was timed; maps in bf16 and fp16 are compared, but never stop it. Then all take
    turns, so that a slow minute of the machine slows all of them. The ceilings
    of the machine are measured before anything else, and each row has its share of them.

    Networks with shipped weights run with them. The others have random weights, the original's if
    given, with batch-norm statistics of this pair and attention whose output is not zero.
    Models that are not ours (``zoo:NAME``, ``FILE.py:FUNCTION``, ``.onnx`` files) search their own
    range; those of the zoo have random weights unless theirs are on this machine.

    Args:
        output: the JSON file; table (.md) and plot (.png) beside it.
        models: networks, sgbm and others, as --model takes them (default: all kinds of ours).
        size: of the pair, height and width in pixels.
        max_disparity: pixels, a multiple of 16 (default: the largest of the models' own).
        precisions: of fp32, bf16 and fp16 (default: fp32, and bf16 where it is not emulated).
        device: as in ``ComputeOptions``.
        repeats: timed rounds.
        busy: also time our form next to N busy processes.
        reference_psmnet: folder of the original PSMNet, to be timed beside ours.

    Returns:
        What was written to the JSON file.

    Raises:
        UsageError: an unknown model, precision or device.
        InputError: a reference that cannot be used.
        StereoError: a map that is not that of the plain form.
    """
    require_matplotlib()
    if busy < 0:
        raise UsageError(f"--busy {busy}: must be 0 or more")
    models = models or MODELS
    others = [name for name in models if searches_own_range(name)]
    for name in others:
        MatchOptions(device=device).check(name)
    bench = set_up(
        *(output, models, (*NETWORK_NAMES, SGBM, *others), size, max_disparity),
        *(precisions, device, repeats, reference_psmnet),
    )
    cases, weights = _cases(bench)
    rows = _compare(cases, bench.device)
    _time(cases, rows, bench.device, repeats, busy)
    for row in rows:
        add_share(row, row["macs"], bench.ceilings)
    settings = {
        "pair": bench.pair.name,
        "busy_processes": busy,
        "wait_policy": os.environ.get(WAIT_POLICY),
        "spin_count": os.environ.get(SPIN_COUNT),
        "weights": weights,
        "equality_gate": f"fp32 maps within {TOLERANCE} px of the reference on average",
    }
    return bench.publish("inference", rows, settings, _table, bars_plot)


def _cases(bench: Bench) -> tuple[list[InferenceCase], dict[str, str]]:
    """Return the cases, the reference of each model first, and what each network's weights are."""
    cases: list[InferenceCase] = []
    weights: dict[str, str] = {}
    pair, device, original = bench.pair, bench.device, bench.original
    for name in bench.models:
        if name == SGBM:
            cases.append(
                InferenceCase(name, OPENCV, "int16", _sgbm(pair, bench.max_disparity), on_cpu=True)
            )
            continue
        if searches_own_range(name):
            theirs, weights[name] = _theirs(name, bench)
            cases += theirs
            continue
        network, config, weights[name] = trained_like(
            name, bench.max_disparity, original, pair, device
        )
        beside = original if name == "psmnet" else None
        forms = {} if beside else {PLAIN: plain_form(network)}
        forms[OURS] = shipped_form(network)
        for precision in bench.precisions:
            if beside is not None:
                dtype = pick_dtype(precision, device)
                match = functools.partial(beside.match, pair, config, dtype)
                cases.append(InferenceCase(name, ORIGINAL, precision, match))
            for form, own in forms.items():
                options = MatchOptions(
                    device=str(device),
                    precision=precision,  # type: ignore[arg-type]
                    tile="off",
                    kernels="auto" if form == OURS else "torch",
                )
                engine = NetworkEngine(own, config, options)
                match = functools.partial(_first_map, engine, pair)
                cases.append(InferenceCase(name, form, precision, match, form == OURS))
    return cases, weights


def _theirs(name: str, bench: Bench) -> tuple[list[InferenceCase], str]:
    """Return the cases of a model that is not ours, and what its weights are."""
    cases: list[InferenceCase] = []
    # Files of code and of ONNX have a precision and a device of their own.
    in_zoo = kind_of(name) == "zoo"
    device = str(bench.device) if in_zoo else "auto"
    for precision in bench.precisions if in_zoo else ["auto"]:
        matcher = load(name, device=device, precision=precision, allow_untrained=True)
        match = functools.partial(_disparity, matcher, bench.pair)
        on_cpu = matcher.description.get("device", "cpu") == "cpu"
        known = precision.replace("auto", "own")
        cases.append(InferenceCase(name, THEIRS, known, match, on_cpu=on_cpu))
    stop_keeping_freed_memory()  # kept for ours alone, while they run
    weights = str(matcher.description.get("weights", "own"))
    return cases, "random" if weights == "untrained" else weights


def _disparity(matcher: Matcher, pair: RenderedPair) -> np.ndarray:
    return matcher(pair.left, pair.right).disparity


def _first_map(engine: NetworkEngine, pair: RenderedPair) -> np.ndarray:
    return engine([pair.left], [pair.right])[0].disparity


def _sgbm(pair: RenderedPair, max_disparity: int) -> Matching:
    matcher = load(SGBM, max_disparity=max_disparity)
    stop_keeping_freed_memory()  # kept for ours alone, while they run
    return functools.partial(_disparity, matcher, pair)


def _compare(cases: Sequence[InferenceCase], device: torch.device) -> list[dict[str, Any]]:
    """Return a row per case with its operations, peak memory and map difference."""
    references: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    for case in cases:
        row: dict[str, Any] = {"model": case.model, "form": case.form}
        row["precision"] = case.precision
        # Counting decomposes operations: the map that is compared is another call's.
        row["macs"] = measure.count_macs(case.match)[1]
        with _memory_of(case, device):
            own = torch.device("cpu") if case.on_cpu else device
            disparity, row["peak_bytes"] = measure.weigh(case.match, own)
        if not np.isfinite(disparity).all():
            raise StereoError(f"{case.label}: a map that is not finite; nothing was timed")
        rows.append(row)
        if case.form == OPENCV:
            continue
        reference = references.setdefault(case.model, disparity)
        difference = np.abs(disparity - reference)
        mean, largest = float(difference.mean()), float(difference.max())
        console.say(f"{case.label}: {mean:.2g} px from its reference, at most {largest:.2g} px")
        if case.precision == "fp32" and mean > TOLERANCE:
            raise StereoError(
                f"{case.label} is {mean:.2g} px from its reference on average, more than "
                f"{TOLERANCE}; nothing was timed"
            )
        row |= {"mean_difference_px": mean, "largest_difference_px": largest}
    return rows


def _time(
    cases: Sequence[InferenceCase],
    rows: Sequence[dict[str, Any]],
    device: torch.device,
    repeats: int,
    busy: int,
) -> None:
    """Time all cases in turns, then ours beside busy processes; add the ratios."""

    def seconds(case: InferenceCase) -> float:
        with _memory_of(case, device):
            return measure.elapsed(case.match, device)

    timers = {case.label: functools.partial(seconds, case) for case in cases}
    first: dict[str, dict[str, Any]] = {}
    for row, own in zip(rows, measure.in_turns(timers, repeats), strict=True):
        row["seconds"] = own
        reference = first.setdefault(row["model"], row)
        row["reference"] = f"{reference['form']} {reference['precision']}"
        row["times_as_fast"] = reference["seconds"]["median"] / own["median"]
    if not busy:
        return
    shipped = [row for row in rows if row["form"] in (OURS, OPENCV)]
    beside = {s.label: timers[s.label] for s in cases if s.form in (OURS, OPENCV)}
    console.say(f"beside {busy} busy processes:")
    with measure.busy_processes(busy):
        for row, own in zip(shipped, measure.in_turns(beside, repeats), strict=True):
            row["busy_seconds"] = own
            row["times_idle"] = own["median"] / row["seconds"]["median"]


def _memory_of(case: InferenceCase, device: torch.device) -> AbstractContextManager[None]:
    """Keep freed memory for the cases that ``stereo.load`` keeps it for."""
    enabled = case.keeps and device.type == "cpu"
    return measure.freed_memory_kept(case.match, large=False, enabled=enabled)


def _table(report: dict[str, Any]) -> str:
    busy = report["settings"]["busy_processes"]
    header = ["model", "form", "precision", "s, median", "s, spread", "times as fast as", ""]
    header += [*SHARE_HEADER, "peak MiB", "px, mean difference", "px, largest"]
    header += [f"s beside {busy} busy", "times idle"] if busy else []
    body = []
    for row in report["rows"]:
        seconds, peak = row["seconds"], row["peak_bytes"]
        cells = [
            *(row["model"], row["form"], row["precision"]),
            f"{seconds['median']:.3g}",
            f"{seconds['min']:.3g} to {seconds['max']:.3g}",
            row["reference"],
            f"{row['times_as_fast']:.2f}",
            *share_columns(row),
            "" if peak is None else f"{peak / 2**20:,.0f}",
            *(
                f"{row[key]:.2g}" if key in row else ""
                for key in ("mean_difference_px", "largest_difference_px")
            ),
        ]
        if busy:
            beside = "times_idle" in row
            cells.append(f"{row['busy_seconds']['median']:.3g}" if beside else "")
            cells.append(f"{row['times_idle']:.2f}" if beside else "")
        body.append(cells)
    return console.table(header, body)
