"""Let waiting threads sleep: spinning ones slow a match many times beside other work.

By default OpenMP's threads spin between two parallel regions. Where another process needs the
core, the thread that has the work to do waits for one that only spins. Threads that sleep at once,
on the other hand, are woken thousands of times a match, which costs an idle machine a third. So
GNU's OpenMP, PyTorch's on Linux, spins for the short gaps alone; others sleep at once. The
settings are read once, when PyTorch loads OpenMP, so ``import stereo`` makes them, unless PyTorch
came first. Processes that are started from there, such as those of a loader, have them too.

A container's CPU quota is another matter of threads: PyTorch starts one for each core of the host.
"""

import math
import os
import sys
import warnings

from stereo.system.cgroups import cpu_quota

WAIT_POLICY = "OMP_WAIT_POLICY"
SPIN_COUNT = "GOMP_SPINCOUNT"
COUNT = "OMP_NUM_THREADS"
SETTINGS = (WAIT_POLICY, SPIN_COUNT, "KMP_BLOCKTIME")
_SPINS = 3000  # some tens of microseconds
_state = {"too_late": False}


def prepare_threads() -> None:
    """Set OpenMP's variables before PyTorch loads.

    Idle threads sleep, and at most as many start as the CPU quota allows. The user's own settings
    take precedence.
    """
    own = [name for name in SETTINGS if os.environ.get(name)]
    if "torch" in sys.modules:
        _state["too_late"] = not own
        return
    if not own:
        os.environ[WAIT_POLICY] = "PASSIVE"
    if own in ([], [WAIT_POLICY]) and os.environ[WAIT_POLICY].upper() == "PASSIVE":
        os.environ[SPIN_COUNT] = str(_SPINS)
    quota = cpu_quota()
    if quota is not None and quota < _usable() and not os.environ.get(COUNT):
        os.environ[COUNT] = str(math.ceil(quota))


def warn_if_threads_spin() -> None:
    """Warn once if PyTorch was imported before ``stereo``."""
    if _state["too_late"]:
        _state["too_late"] = False
        warnings.warn(
            "PyTorch was imported before stereo, so its threads spin while they wait: beside other "
            f"work matching can take many times as long. Import stereo first, or set {WAIT_POLICY}"
            "=PASSIVE before Python starts (ACTIVE keeps the spinning and silences this)",
            stacklevel=3,
        )


def share_cores() -> None:
    """Give each of torchrun's processes on this machine its share of the cores as threads.

    torchrun sets ``OMP_NUM_THREADS`` to 1 where it has no value, and so leaves all cores but one of
    each process idle. Another value is the user's own, and stays.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > 1 and os.environ.get(COUNT, "1") == "1":
        import torch

        from stereo.system.opencv import import_cv2

        threads = max(1, _cores() // processes)
        torch.set_num_threads(threads)
        import_cv2().setNumThreads(threads)


def _cores() -> int:
    """Count the physical cores that this process may use."""
    import psutil

    usable, quota = _usable(), cpu_quota()
    limits = [usable, psutil.cpu_count(logical=False) or usable]
    return min(limits if quota is None else [*limits, math.ceil(quota)])


def _usable() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
