"""Time whole calls that match one pair, on an idle machine and beside busy processes.

    python scripts/time_calls.py LEFT RIGHT --busy 2 --repeats 5

A call is ``stereo infer``, or a Python script that imports ``stereo`` first, or PyTorch first; its
seconds count from start to end, loading PyTorch included, and those of the match alone stand
beside. The maps of all calls must be equal. OMP_WAIT_POLICY, GOMP_SPINCOUNT and OMP_NUM_THREADS are
taken out of the environment. Medians; the calls take turns.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from stereo.benchmark.measure import busy_processes
from stereo.system import console

SCRIPT = """
import sys
{imports}
matcher = stereo.load()
result = matcher(*sys.argv[1:3])
numpy.save(sys.argv[3], result.disparity)
print(f"map: {{result.seconds:.2f}} s")
"""
SCRIPTS = {
    "script, stereo first": "import stereo, numpy",
    "script, torch first": "import torch, stereo, numpy",
}
COMMAND = "stereo infer"


def main() -> None:
    """Check that the maps are equal; then time all calls, idle and beside others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("left")
    parser.add_argument("right")
    parser.add_argument("--busy", type=int, default=2, help="processes that keep a core busy each")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    missing = [path for path in (options.left, options.right) if not Path(path).is_file()]
    if missing or options.repeats < 1:
        parser.error(f"no such file: {missing[0]}" if missing else "--repeats must be at least 1")
    calls = (COMMAND, *SCRIPTS)
    maps = [one_call(name, options.left, options.right)[2] for name in calls]  # and files are read
    if not all(np.array_equal(each, maps[0]) for each in maps):
        sys.exit("the maps differ; nothing was timed")
    times: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    for _ in range(options.repeats):
        for count in (0, options.busy):
            with busy_processes(count):
                for name in calls:
                    found = one_call(name, options.left, options.right)[:2]
                    times.setdefault((name, count), []).append(found)
                    console.say(f"{count} busy: {name} {found[0]:.2f} s, match {found[1]:.2f} s")
    header = ["call", "s idle", f"s beside {options.busy} busy", "times", "of these the match", ""]
    rows = []
    for name in calls:
        (idle, match), (beside, slowed) = (
            map(statistics.median, zip(*times[name, count], strict=True))
            for count in (0, options.busy)
        )
        seconds = [f"{idle:.2f}", f"{beside:.2f}", f"{beside / idle:.2f}"]
        rows.append([name, *seconds, f"{match:.2f}", f"{slowed:.2f}"])
    console.say(console.table(header, rows))


def one_call(name: str, left: str, right: str) -> tuple[float, float, np.ndarray]:
    """Return the seconds of a whole call, those of its match, and the map (H, W)."""
    unset = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    with tempfile.TemporaryDirectory() as folder:
        if name == COMMAND:
            command = [sys.executable, "-m", "stereo", "infer", left, right]
            command += ["--formats", "npy", "--output", folder]
        else:
            script = SCRIPT.format(imports=SCRIPTS[name])
            command = [sys.executable, "-W", "ignore", "-c", script, left, right, f"{folder}/map"]
        start = time.perf_counter()
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        seconds = time.perf_counter() - start
        (path,) = Path(folder).glob("*.npy")
        match = re.search(rb": (?:.*, )?([\d.]+) s\n", done.stdout)
        assert match is not None
        return seconds, float(match[1]), np.load(path)


if __name__ == "__main__":
    console.run_script(main)
