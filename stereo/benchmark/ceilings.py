"""The machine's peak throughput, and the share of it that a call reaches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from stereo.benchmark import measure
from stereo.errors import unknown_name
from stereo.matching.engine import computing_in
from stereo.system.machine import machine
from stereo.system.runtime import has_bf16, pick_dtype

SECONDS = 1.0  # of each measurement
REPEATS = 200
SIDES = {"cpu": 2048, "cuda": 8192}  # of the matrices
CHANNELS, VOLUME = 32, (24, 68, 120)
COPIED_BYTES = 2**28
EMULATED = (
    "bf16 is emulated on this processor: its ceiling is not measured, and its rows only where "
    "--precisions names it"
)


def pick_precisions(precisions: Sequence[str] | None, device: torch.device) -> list[str]:
    """Return the named precisions, fp32 first, or fp32, plus bf16 if the hardware supports it.

    Raises:
        UsageError: an unknown precision, or one that the device does not have.
    """
    if precisions is None:
        return ["fp32", "bf16"] if has_bf16(device) else ["fp32"]
    for precision in precisions:
        if precision == "auto":  # no row could say which it was
            raise unknown_name("precision", precision, ["fp32", "bf16", "fp16"])
        pick_dtype(precision, device)
    return sorted(dict.fromkeys(precisions), key=lambda name: name != "fp32")


def measure_ceilings(device: torch.device, precisions: Sequence[str]) -> dict[str, Any]:
    """Measure the fastest matrix product, 3x3x3 convolution and copy, each for a second.

    Returns:
        ``macs_per_second`` by precision, with ``product`` and ``convolution``, or None where bf16
        is emulated; ``copy_bytes_per_second``, read and written; ``shapes`` of all three.
    """
    side = SIDES.get(device.type, SIDES["cpu"])
    rates: dict[str, dict[str, float] | None] = {}
    for precision in dict.fromkeys(["fp32", "bf16", *precisions]):
        if precision == "bf16" and not has_bf16(device):
            rates[precision] = None
            continue
        dtype = pick_dtype(precision, device)
        with torch.inference_mode(), computing_in(dtype, device):
            rates[precision] = _compute_rates(side, device, dtype)
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device=device)
    copy = torch.empty_like(source)
    return {
        "macs_per_second": rates,
        "copy_bytes_per_second": 2 * COPIED_BYTES / _fastest(lambda: copy.copy_(source), device),
        "shapes": {
            "product": [side, side, side],
            "convolution": [1, CHANNELS, *VOLUME],
            "copied_bytes": COPIED_BYTES,
        },
    }


def _compute_rates(side: int, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    left, right = torch.randn(2, side, side, device=device).to(dtype)
    volume = torch.randn(1, CHANNELS, *VOLUME, device=device).to(dtype)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, 3, device=device).to(dtype)
    volume, weight = (t.to(memory_format=torch.channels_last_3d) for t in (volume, weight))
    calls: dict[str, Callable[[], object]] = {
        "product": lambda: left @ right,
        "convolution": lambda: F.conv3d(volume, weight, padding=1),
    }
    return {
        name: measure.count_macs(call)[1] / _fastest(call, device) for name, call in calls.items()
    }


def _fastest(function: Callable[[], object], device: torch.device) -> float:
    function()
    return measure.seconds(function, device, repeats=REPEATS, limit=SECONDS)["min"]


def add_share(row: dict[str, Any], macs: int, ceilings: dict[str, Any]) -> None:
    """Add to a row the multiply-accumulates of its call, their rate, and its share of the ceiling.

    The ceiling of a precision is the faster of its product and its convolution. Without counted
    operations or a ceiling the entries are None.
    """
    rate = macs / row["seconds"]["median"] if macs else None
    rates = ceilings["macs_per_second"].get(row["precision"])
    row["macs"] = macs or None
    row["macs_per_second"] = rate
    row["share_of_ceiling"] = rate / max(rates.values()) if rate and rates else None


SHARE_HEADER = ("GMAC", "GMAC/s", "% of ceiling")


def share_columns(row: dict[str, Any]) -> list[str]:
    """Return a row's cells under ``SHARE_HEADER``."""
    figures = (row["macs"], row["macs_per_second"], row["share_of_ceiling"])
    units = (1e9, 1e9, 0.01)
    texts = ("{:,.1f}", "{:,.1f}", "{:.0f}")
    return [
        "" if figure is None else text.format(figure / unit)
        for figure, unit, text in zip(figures, units, texts, strict=True)
    ]


def ceilings_text(ceilings: dict[str, Any], device: torch.device) -> str:
    """Return the measured ceilings and the device as text."""
    facts, shapes = machine(device), ceilings["shapes"]
    side, channels = shapes["product"][0], shapes["convolution"][1]
    lines = [f"ceilings of {facts['name']}, {facts['threads']} threads, torch {facts['torch']}:"]
    for precision, rates in ceilings["macs_per_second"].items():
        if rates is None:
            lines.append(EMULATED)
            continue
        product, convolution = (rates[key] / 1e9 for key in ("product", "convolution"))
        lines.append(
            f"{precision}: {product:,.1f} GMAC/s in products of {side}x{side} matrices, "
            f"{convolution:,.1f} in 3x3x3 convolutions of {channels} channels"
        )
    lines.append(f"copies: {ceilings['copy_bytes_per_second'] / 1e9:,.1f} GB/s, read and written")
    return "\n".join(lines)
