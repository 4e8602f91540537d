"""Let waiting threads sleep: spinning ones slow a match beside other work many times.

By default OpenMP's threads spin between two parallel regions. Where another process needs the
core, the thread that has the work to do waits for one that only spins. The policy is read once,
when PyTorch loads OpenMP, so ``import stereo`` sets it, unless PyTorch came first. Processes that
are started from there, such as those of a loader, have it too.
"""

import os
import sys
import warnings

WAIT_POLICY = "OMP_WAIT_POLICY"
_SETTINGS = (WAIT_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_state = {"too_late": False}


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait; a setting of the user's own wins."""
    if any(name in os.environ for name in _SETTINGS):
        return
    if "torch" in sys.modules:
        _state["too_late"] = True
    else:
        os.environ[WAIT_POLICY] = "PASSIVE"


def warn_if_threads_spin() -> None:
    """Warn once where PyTorch was imported before ``stereo``."""
    if _state["too_late"]:
        _state["too_late"] = False
        warnings.warn(
            "PyTorch was imported before stereo, so its threads spin while they wait: beside other "
            f"work matching can take many times as long. Import stereo first, or set {WAIT_POLICY}"
            "=PASSIVE (ACTIVE keeps the spinning and silences this)",
            stacklevel=3,
        )


def share_cores() -> None:
    """Give each of torchrun's processes on this machine its share of the cores as threads.

    torchrun sets ``OMP_NUM_THREADS`` to 1 where it has no value, and so leaves all cores but one of
    each process idle. Another value is the user's own, and stays.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        import torch

        torch.set_num_threads(max(1, _cores() // processes))


def _cores() -> int:
    """Count the cores that this process may use; two hardware threads of a core are one."""
    import psutil

    affinity = getattr(os, "sched_getaffinity", None)
    usable = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)
