"""Time, peak memory and operation counts of one call."""

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from stereo.errors import UsageError
from stereo.machine import PeakMemory


def report_path(output: str | Path) -> Path:
    """Return the path of a benchmark's JSON file, beside which the table and the plot go.

    Raises:
        UsageError: it has the name of one of those.
    """
    path = Path(output)
    if path.suffix in (".md", ".png"):
        raise UsageError(f"--output {path}: is the JSON file; end its name in .json")
    return path


def seconds(
    function: Callable[[], object],
    device: torch.device,
    *,
    repeats: int = 5,
    limit: float = math.inf,
) -> dict[str, float]:
    """Time a call, the device synchronised inside; the caller has warmed it up.

    Args:
        function: what to time.
        device: where it runs.
        repeats: timed calls.
        limit: seconds after which no further call is started; one is always made.

    Returns:
        ``median``, ``min`` and ``max`` in seconds, and ``repeats``, the calls made.
    """
    times: list[float] = []
    while len(times) < repeats and (not times or sum(times) < limit):
        _synchronize(device)
        start = time.perf_counter()
        function()
        _synchronize(device)
        times.append(time.perf_counter() - start)
    return {
        "median": statistics.median(times),
        "min": min(times),
        "max": max(times),
        "repeats": len(times),
    }


def peak_bytes(function: Callable[[], object], device: torch.device) -> int | None:
    """Return the memory that a call needs at its peak above what was there before it.

    It is what ``stereo.machine.PeakMemory`` measures; None where that is not known.
    """
    peak = PeakMemory(device)
    function()
    return peak.bytes_above_start()


def macs(function: Callable[[], object]) -> int:
    """Count the multiply-accumulates of a call's matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() // 2


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
