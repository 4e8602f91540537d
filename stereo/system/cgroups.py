"""What a container may use: limits of Linux's control groups, of both versions."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def free_memory() -> Iterator[int]:
    """Yield the free bytes of each group that this process is in, where it has a limit.

    Pages of files that the kernel drops when memory is wanted count as free.
    """
    for group, version in _groups("memory"):
        if version == 2:
            limit, used, cached = "memory.max", "memory.current", "inactive_file"
        else:
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        most, now = _numbers(group / limit), _numbers(group / used)
        if most and now:
            yield most[0] - now[0] + _statistic(group / "memory.stat", cached)


def cpu_quota() -> float | None:
    """Return how many CPUs' time this process may use, or None without a limit."""
    shares = []
    for group, version in _groups("cpu"):
        if version == 2:
            quota = _numbers(group / "cpu.max")
        else:
            quota = _numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0] > 0 and quota[1] > 0:
            shares.append(quota[0] / quota[1])
    return min(shares, default=None)


def _groups(controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folders of this process's groups, the innermost first, and their version."""
    try:
        lines = OWN.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        version, root = (1, ROOT / controller) if controllers else (2, ROOT)
        own = root / path.strip("/")
        # A container without a cgroup namespace sees its own group at the root.
        for group in dict.fromkeys([own, *own.parents]):
            if group == root or root in group.parents:
                yield group, version


def _numbers(path: Path) -> list[int]:
    """Return the numbers of a file, or none where it says "max" or is not there."""
    try:
        return [int(word) for word in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return []


def _statistic(path: Path, key: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == key:
                return int(value)
    return 0
