"""Time, peak memory and operation counts of one call, and the machine they belong to."""

import ctypes
import gc
import math
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from stereo.version import __version__

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


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

    On CUDA it is allocated memory; on Linux CPUs resident memory, whose high-water mark the kernel
    lets a process reset; elsewhere None.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu" or not _CLEAR_REFS.exists():
        return None
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    _CLEAR_REFS.write_text("5")
    before = _status_bytes("VmRSS")
    function()
    return max(0, _status_bytes("VmHWM") - before)


def macs(function: Callable[[], object]) -> int:
    """Count the multiply-accumulates of a call's matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() // 2


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine, the versions and the commit that figures belong to."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "version": __version__,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """Return the commit of a clone, with ``+`` for uncommitted changes; None when installed."""
    folder = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _status_bytes(key: str) -> int:
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {key} in {_STATUS}")


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
