"""Time, peak memory and operation counts of calls, and the files that hold them."""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stereo.errors import UsageError
from stereo.models.convolution import direct_convolutions
from stereo.system import console
from stereo.system.files import output_folder, staged
from stereo.system.heap import keep_freed_memory, stop_keeping_freed_memory
from stereo.system.machine import PeakMemory

T = TypeVar("T")
BUSY = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"


def report_path(output: str | Path) -> Path:
    """Return the path of a benchmark's JSON file, beside which the table and the plot go.

    Raises:
        UsageError: it has the name of one of those, or is a folder.
        StereoError: its folder cannot be written to.
    """
    path = Path(output)
    if path.suffix in (".md", ".png") or path.is_dir():
        raise UsageError(f"--output {path}: is the JSON file; end its name in .json")
    output_folder(path.parent)
    return path


def publish(
    path: Path,
    report: dict[str, Any],
    text: str,
    plot: Callable[[Path, dict[str, Any]], None] | None = None,
) -> None:
    """Write a report as JSON, its text and its image, if any, beside it; print the text."""
    beside = [path.with_suffix(suffix) for suffix in ((".md", ".png") if plot else (".md",))]
    with staged(path, *beside) as (data, table, *picture):
        data.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        table.write_text(text + "\n", encoding="utf-8")
        if plot is not None:
            plot(picture[0], report)
    console.say(text)


def seconds(
    function: Callable[[], object],  # what to time
    device: torch.device,  # where it runs
    *,
    repeats: int = 5,  # timed calls
    limit: float = math.inf,  # seconds after which no further call is started; one is always made
) -> dict[str, float]:
    """Time a call, the device synchronised inside; the caller has warmed it up.

    Returns:
        ``median``, ``min`` and ``max`` in seconds, and ``repeats``, the calls made.
    """
    times: list[float] = []
    while len(times) < repeats and (not times or sum(times) < limit):
        times.append(elapsed(function, device))
    return _spread(times)


def in_turns(timers: Mapping[str, Callable[[], float]], repeats: int) -> list[dict[str, float]]:
    """Run timers in rounds, so that a slow minute of the machine slows all of them.

    Returns:
        For each timer what ``seconds`` returns.
    """
    times: dict[str, list[float]] = {label: [] for label in timers}
    for turn in range(repeats):
        for label, timer in timers.items():
            times[label].append(timer())
            console.say(f"turn {turn + 1}: {label} {times[label][-1]:.3g} s")
    return [_spread(own) for own in times.values()]


def elapsed(function: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call, the device synchronised inside."""
    _synchronize(device)
    start = time.perf_counter()
    function()
    _synchronize(device)
    return time.perf_counter() - start


def _spread(times: Sequence[float]) -> dict[str, float]:
    return {
        "median": statistics.median(times),
        "min": min(times),
        "max": max(times),
        "repeats": len(times),
    }


def peak_bytes(function: Callable[[], object], device: torch.device) -> int | None:
    """Return a call's peak memory above the level before it.

    As measured by ``stereo.system.machine.PeakMemory``; None where it is unknown.
    """
    return weigh(function, device)[1]


def weigh(function: Callable[[], T], device: torch.device) -> tuple[T, int | None]:
    """Return a call's result and its ``peak_bytes``."""
    peak = PeakMemory(device)
    found = function()
    return found, peak.bytes_above_start()


def count_macs(function: Callable[[], T]) -> tuple[T, int]:
    """Return a call's result and the multiply-accumulates of its products and convolutions."""
    with (
        direct_convolutions(),
        sdpa_kernel(SDPBackend.MATH),  # the counter knows not all fused kernels
        FlopCounterMode(display=False) as counter,
    ):
        found = function()
    return found, counter.get_total_flops() // 2


@contextlib.contextmanager
def freed_memory_kept(
    function: Callable[[], object], *, large: bool, enabled: bool
) -> Iterator[None]:
    """Keep freed memory within the context, filled by an untimed call of ``function``."""
    if not enabled:
        yield
        return
    keep_freed_memory(large=large)
    try:
        function()
        yield
    finally:
        stop_keeping_freed_memory()


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run busy processes within the block; they end with this process in any case."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", BUSY, str(os.getpid())])
            stack.enter_context(process)
            stack.callback(process.kill)
        yield


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
