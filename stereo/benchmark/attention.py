"""Every attention of the family against the size of the volume: time, memory, operations."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stereo.attention import ATTENTIONS, VolumeAttention
from stereo.attention.volume import Size
from stereo.benchmark import measure
from stereo.benchmark.ceilings import pick_precisions
from stereo.benchmark.plot import growth_plot, require_matplotlib
from stereo.errors import StereoError, UsageError, unknown_name
from stereo.matching.engine import computing_in
from stereo.system import console
from stereo.system.machine import machine
from stereo.system.runtime import free_bytes, is_out_of_memory, pick_device, pick_dtype

# The quarter-resolution volume of a 544x960 image is 48x136x240; the last one is 4 times as large.
SIZES: tuple[Size, ...] = (
    (12, 16, 32),
    (24, 34, 60),
    (24, 68, 120),
    (48, 68, 120),
    (48, 136, 240),
    (48, 272, 480),
)
DIRECTIONS = ("forward", "backward")
CHANNELS = 32
TOLERANCE = 1e-10
MEMORY_SHARE = 0.8
FITTED_POINTS = 3
ASSUMED_MACS_PER_SECOND = 1e12
FITTED_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Case:
    """One line of the benchmark: what runs, at which precision, in which direction."""

    member: str
    direction: str  # "forward" or "backward", which includes the forward pass
    precision: str


def benchmark_attention(
    output: str | Path,
    *,
    members: Sequence[str] | None = None,
    sizes: Sequence[Size] | None = None,
    precisions: Sequence[str] | None = None,
    directions: Sequence[str] | None = None,
    device: str = "auto",
    time_limit: float = 60.0,
    repeats: int = 5,
) -> dict[str, Any]:
    """Measure the family and write ``OUTPUT`` (JSON), a table and a plot beside it.

    Each member must first equal its explicit form on a small volume, within 1e-10 in float64. A
    case that is expected to take longer than ``time_limit`` or more memory than is free is not run:
    its computed need stands in the JSON instead.

    Args:
        output: the JSON file; table (.md) and plot (.png) beside it.
        members: attentions by name (default: all).
        sizes: volumes such as 12x16x32,48x136x240 (default: six up to 48x272x480).
        precisions: of fp32, bf16 and fp16 (default: fp32, and bf16 where it is not emulated).
        directions: of forward and backward, which includes both (default: both).
        device: as in ``ComputeOptions``.
        time_limit: seconds; a call expected to take longer is not made.
        repeats: timed calls per case.

    Returns:
        What was written to the JSON file.

    Raises:
        UsageError: an unknown member, precision or device.
        StereoError: a member does not equal its explicit form.
    """
    require_matplotlib()
    names = list(members or ATTENTIONS)
    for name in names:
        if name not in ATTENTIONS:
            raise unknown_name("attention", name, ATTENTIONS)
    directions = list(dict.fromkeys(directions or DIRECTIONS))
    sizes = list(dict.fromkeys(SIZES if sizes is None else sizes))
    for direction in directions:
        if direction not in DIRECTIONS:
            raise unknown_name("direction", direction, DIRECTIONS)
    if not sizes or any(min(size) < 1 for size in sizes):
        raise UsageError("--sizes needs at least one volume such as 12x16x32")
    where = pick_device(device)
    precisions = pick_precisions(precisions, where)
    if repeats < 1 or not time_limit > 0:
        raise UsageError("--repeats and --time-limit must be positive")
    names = list(dict.fromkeys(names))
    path = measure.report_path(output)
    rows: list[dict[str, Any]] = []
    for name in names:
        check_against_definition(name)
        for precision in precisions:
            for direction in directions:
                case = Case(name, direction, precision)
                rows += _measure_case(
                    case, sorted(sizes, key=math.prod), where, time_limit, repeats
                )
    report = {
        "benchmark": "attention",
        "machine": machine(where),
        "settings": {
            "channels": CHANNELS,
            "batch": 1,
            "repeats": repeats,
            "time_limit_seconds": time_limit,
            "equality_gate": f"each member equals its explicit form within {TOLERANCE} in float64, "
            "in output and gradients",
        },
        "exponents": _exponents(rows),
        "rows": rows,
    }
    measure.publish(path, report, _table(report), growth_plot)
    return report


def check_against_definition(name: str) -> None:
    """Raise ``StereoError`` unless a member equals its explicit form on a small volume.

    Output and gradients are compared.
    """
    module = _build(name, 8).double().eval()
    generator = torch.Generator().manual_seed(0)
    volume, slope = torch.randn(2, 1, 8, 5, 6, 7, generator=generator, dtype=torch.float64)
    volume.requires_grad_()

    def with_gradients() -> list[Tensor]:
        out = module(volume)
        into = [volume, *module.parameters()]
        gradients = torch.autograd.grad(out, into, slope, materialize_grads=True)
        return [out.detach(), *gradients]

    with torch.inference_mode():
        streamed = module(volume)
    found = with_gradients()  # members that stream do not do so here
    module.attend = module.attend_explicitly  # type: ignore[method-assign]
    expected = with_gradients()
    pairs = [(streamed, expected[0]), *zip(found, expected, strict=True)]
    difference = max(float((one - other).abs().max()) for one, other in pairs)
    if not difference < TOLERANCE:
        raise StereoError(
            f"'{name}' differs from its explicit form by {difference:.1e}; nothing was timed"
        )


def _build(name: str, channels: int, **options: Any) -> VolumeAttention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ATTENTIONS[name](channels, zero_init=False, **options)


def _measure_case(
    case: Case, sizes: Sequence[Size], device: torch.device, time_limit: float, repeats: int
) -> list[dict[str, Any]]:
    module = _build(case.member, CHANNELS).to(device).eval()
    parameters = sum(p.numel() for p in module.parameters())
    rows: list[dict[str, Any]] = []
    for size in sizes:
        row: dict[str, Any] = {
            "member": case.member,
            "direction": case.direction,
            "precision": case.precision,
            "size": list(size),
            "cells": math.prod(size),
            "parameters": parameters,
        }
        if case.member == "dot_product":
            row |= _need_of_dot_product(size, parameters, module.key_width + module.value_width)
        last = next((each for each in reversed(rows) if "seconds" in each), None)
        reason = _reason_not_to_run(
            last,
            math.prod(size),
            row.get("computed_macs", 0),
            module.linear_cost,
            time_limit,
            device,
        )
        if reason is None:
            try:
                row |= _run(module, case, size, device, time_limit, repeats)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = "out of memory"
        if reason is not None:
            row["not_run"] = reason
        rows.append(row)
        console.say(_line(row))
    return rows


def _run(
    module: VolumeAttention,
    case: Case,
    size: Size,
    device: torch.device,
    time_limit: float,
    repeats: int,
) -> dict[str, Any]:
    dtype = pick_dtype(case.precision, device)
    volume = torch.randn(1, CHANNELS, *size, device=device)

    def forward() -> None:
        with torch.inference_mode(), computing_in(dtype, device):
            module(volume)

    def backward() -> None:
        module.zero_grad(set_to_none=True)
        leaf = volume.detach().requires_grad_()
        with computing_in(dtype, device):
            result: Tensor = module(leaf)
            result.backward(volume)

    function = forward if case.direction == "forward" else backward
    peak = measure.peak_bytes(function, device)  # the first call: it warms up, too
    timed = measure.seconds(function, device, repeats=repeats, limit=time_limit)
    # Counting takes another kernel: it must not be part of the timed or weighed call.
    macs = measure.count_macs(function)[1]
    return {"seconds": timed, "peak_bytes": peak, "macs": macs}


def _need_of_dot_product(size: Size, parameters: int, width: int) -> dict[str, int]:
    """Return the bytes of the float32 map and the forward multiply-accumulates, computed."""
    count = math.prod(size)
    return {"map_bytes": 4 * count**2, "computed_macs": count**2 * width + count * parameters}


def _reason_not_to_run(
    last: dict[str, Any] | None,
    count: int,
    need: int,
    linear: bool,
    time_limit: float,
    device: torch.device,
) -> str | None:
    """Return why a size is not run, from the largest one that was; None to run it."""
    if last is None:
        ratio, expected = 0.0, need / ASSUMED_MACS_PER_SECOND
    else:
        ratio = count / last["cells"]
        growth = ratio**2 if "map_bytes" in last else ratio if linear else 1.5 * ratio
        expected = last["seconds"]["median"] * growth
    if expected > time_limit:
        return f"expected to take {expected:,.0f} s, more than the limit of {time_limit:g} s"
    needed = ratio * (last["peak_bytes"] or 0) if last else 0
    free = MEMORY_SHARE * free_bytes(device)
    if needed > free:
        return f"expected to need {needed / 1e9:,.1f} GB, more than the {free / 1e9:,.1f} GB free"
    return None


def _exponents(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fit time and memory ~ N^e over the largest sizes that were run, by case."""
    cases: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if "seconds" in row:
            key = (row["member"], row["direction"], row["precision"])
            cases.setdefault(key, []).append(row)
    return [
        {
            "member": member,
            "direction": direction,
            "precision": precision,
            "cells": [row["cells"] for row in run[-FITTED_POINTS:]],
            "time": _slope([(r["cells"], r["seconds"]["median"]) for r in run]),
            # Below this the process's own noise is part of the figure.
            "memory": _slope(
                [
                    (r["cells"], r["peak_bytes"])
                    for r in run
                    if (r["peak_bytes"] or 0) > FITTED_BYTES
                ]
            ),
        }
        for (member, direction, precision), run in cases.items()
    ]


def _slope(points: Sequence[tuple[int, float | None]]) -> float | None:
    """Return the least-squares slope of log y over log x of the last points; None without two x."""
    logs = [(math.log(x), math.log(y)) for x, y in points[-FITTED_POINTS:] if y]
    if len({x for x, _ in logs}) < 2:
        return None
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def _line(row: dict[str, Any]) -> str:
    label = f"{row['member']} {row['direction']} {row['precision']} {_size_text(row['size'])}: "
    if "not_run" in row:
        need = ""
        if "map_bytes" in row:
            need = f"; its map would take {row['map_bytes'] / 1e9:,.1f} GB"
        return f"{label}not run, {row['not_run']}{need}"
    peak = "" if row["peak_bytes"] is None else f", {row['peak_bytes'] / 2**20:,.0f} MiB"
    return label + f"{row['seconds']['median']:.3g} s{peak}"


def _table(report: dict[str, Any]) -> str:
    """Return the largest size each case ran at, with its growth exponents, as Markdown."""
    exponents = {(e["member"], e["direction"], e["precision"]): e for e in report["exponents"]}
    body: list[list[object]] = []
    for (member, direction, precision), fitted in exponents.items():
        run = [
            row
            for row in report["rows"]
            if (row["member"], row["direction"], row["precision"]) == (member, direction, precision)
            and "seconds" in row
        ]
        last = run[-1]
        peak = "" if last["peak_bytes"] is None else f"{last['peak_bytes'] / 2**20:,.0f}"
        spread = f"{last['seconds']['min']:.3g} to {last['seconds']['max']:.3g}"
        body.append(
            [
                *(member, direction, precision, _size_text(last["size"])),
                *(f"{last['seconds']['median']:.3g}", spread, last["seconds"]["repeats"], peak),
                f"{last['macs'] / 1e9:.2f}",
                last["parameters"],
                *(_exponent_text(fitted["time"]), _exponent_text(fitted["memory"])),
            ]
        )
    header = ["attention", "direction", "precision", "largest volume run", "s, median", "s, spread"]
    header += ["calls", "peak MiB", "GMAC", "parameters", "time ~ N^", "memory ~ N^"]
    need = [
        f"{_size_text(row['size'])}: map {row['map_bytes'] / 1e9:,.1f} GB, "
        f"{row['computed_macs'] / 1e9:,.0f} GMAC"
        for row in report["rows"]
        if "map_bytes" in row and (row["direction"], row["precision"]) == _first_case(report)
    ]
    text = console.table(header, body)
    return text + ("\n\nDot product, computed need: " + "; ".join(need) if need else "")


def _first_case(report: dict[str, Any]) -> tuple[str, str]:
    first = report["rows"][0]
    return first["direction"], first["precision"]


def _exponent_text(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _size_text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
