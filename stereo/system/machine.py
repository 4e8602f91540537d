"""Facts about the machine, and peak memory."""

import gc
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch

from stereo.system.heap import trim_heap
from stereo.system.runtime import cpu_facts
from stereo.version import __version__

CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Peak memory since this object was made.

    On CUDA it is allocated memory; on Linux CPUs the resident memory of the process, libraries
    included, whose high-water mark the kernel lets a process reset; elsewhere it is not known.
    """

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self._device = device
        self.kind: str | None = None
        self._start = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_allocated(device)
            self.kind = "allocated"
        elif device.type == "cpu" and _reset_resident_peak():
            self._start = _status_bytes("VmRSS")
            self.kind = "resident"

    def bytes(self) -> int | None:
        """Return the peak so far, or None if unknown."""
        if self.kind == "allocated":
            return torch.cuda.max_memory_allocated(self._device)
        return None if self.kind is None else _status_bytes("VmHWM")

    def bytes_above_start(self) -> int | None:
        """Return the peak above the memory in use at the start, or None."""
        peak = self.bytes()
        return None if peak is None else max(0, peak - self._start)


def machine(device: torch.device) -> dict[str, Any]:
    """Return the machine, the versions and the commit, for records of measurements."""
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
        "commit": commit(),
    }


def commit() -> str | None:
    """Return the commit of a clone, with ``+`` for uncommitted changes; None when installed."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():  # git would look further up, in a project around it
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name() -> str:
    facts = cpu_facts()
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    # Virtual machines name a whole line of processors alike: "AMD EPYC".
    numbers = ", ".join(f"{k} {facts[k]}" for k in ("cpu family", "model") if k in facts)
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{facts['model name']} ({', '.join(filter(None, (numbers, instructions)))})"


def _reset_resident_peak() -> bool:
    """Free unused memory and reset the kernel's peak; return whether that worked."""
    try:
        trim_heap()
        CLEAR_REFS.write_text("5")
    except OSError:  # another system, or a container that forbids it
        return False
    return True


def _status_bytes(key: str) -> int:
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {key} in {_STATUS}")
