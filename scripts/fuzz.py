"""Damage valid files of every kind that is read, and see that nothing but our own errors comes out.

    python scripts/fuzz.py --minutes 10 --seed 0

Needs the extra ``dev`` and Linux or macOS. Each file is read in a worker process that may take 6 GB
of address space and ten seconds of its processor, so that crashes, hangs and bombs are found as
well as wrong exceptions. Images may have 16 megapixels. A finding is kept under
``--output`` and read again, with its traceback, by ``--replay FILE``. Exit status 1 with findings.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from multiprocessing.connection import Connection, wait
from pathlib import Path

from fuzz_damage import damage
from fuzz_readers import Read, readers

if __name__ in ("__main__", "__mp_main__"):  # the workers' name of this file
    for variable, value in {"OMP_NUM_THREADS": "1", "STEREO_MAX_MEGAPIXELS": "16"}.items():
        os.environ.setdefault(variable, value)
MEMORY = 6 * 2**30  # bytes of address space
SECONDS = 10  # of processor time for a file
WALL = 12 * SECONDS  # for one that sleeps


def attempt(read: Read, path: Path) -> tuple[str, str]:
    """Read a file; return ``read``, ``refused`` or ``found`` and what was found."""
    from stereo.errors import StereoError

    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            read(path)
    except StereoError as error:
        lines = len(str(error).splitlines())
        return ("refused", "") if lines == 1 else ("found", f"a message of {lines} lines: {error}")
    except SystemExit as error:
        return ("refused", "") if error.code == 2 else ("found", f"exit status {error.code}")
    except BaseException:
        return "found", traceback.format_exc()
    return "read", ""


def work(connection: Connection, folder: Path, seed: int) -> None:
    """Read damaged files, one for each number that comes, in this process."""
    import resource  # of POSIX: the tests import this file anywhere

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    known = {}
    with contextlib.redirect_stdout(io.StringIO()):
        made = list(readers(folder))
    for name, paths, read in made:
        for path in paths:
            outcome, told = attempt(read, path)
            assert outcome == "read", f"{path}: {outcome} {told}"
        known[name] = paths, read, [path.read_bytes() for path in paths]
    connection.send(list(known))
    while (task := connection.recv()) is not None:
        name, number = task
        paths, read, valid = known[name]
        (folder / "current").unlink(missing_ok=True)
        dice = random.Random(f"{seed} {name} {number}")
        chosen = dice.randrange(len(paths))
        data = damage(valid[chosen], valid, dice)
        paths[chosen].write_bytes(data)
        (folder / "current").write_text(str(paths[chosen]))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process, native code too
        outcome, told = attempt(read, paths[chosen])
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send((outcome, told))
        if outcome != "found":
            paths[chosen].write_bytes(valid[chosen])
        else:
            connection.recv()  # once the finding is kept
            paths[chosen].write_bytes(valid[chosen])


class Worker:
    """A process that reads damaged files, started anew after each that ends it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.start()

    def start(self) -> None:
        """Start it; it takes seconds to say which readers there are."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.folder, self.seed))
        self.process.start()
        theirs.close()
        self.names = self.connection.recv()

    def ended(self, late: bool) -> str:
        """Return why the process has ended, or is ended now."""
        if late:
            self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        slow = late or code == -signal.SIGPROF
        return f"took more than {SECONDS} s" if slow else f"the process ended with {code}"


def fuzz(minutes: float, seed: int, workers: int, output: Path) -> dict[str, Counter[str]]:
    """Read damaged files for so long; return the outcomes by reader."""
    counts: dict[str, Counter[str]] = {}
    number = 0
    with tempfile.TemporaryDirectory() as home:
        pool = [Worker(Path(home) / str(each), seed) for each in range(workers)]
        end = time.monotonic() + 60 * minutes
        tasks: dict[Worker, tuple[str, int, float]] = {}
        while tasks or time.monotonic() < end:
            for worker in pool:
                if worker not in tasks and time.monotonic() < end:
                    name = worker.names[number % len(worker.names)]
                    tasks[worker] = name, number, time.monotonic()
                    worker.connection.send((name, number))
                    number += 1
            wait([worker.connection for worker in tasks], timeout=1)
            for worker, (name, at, since) in list(tasks.items()):
                late = time.monotonic() - since > WALL
                if not (worker.connection.poll() or late):
                    continue
                try:
                    if late:
                        raise EOFError
                    outcome, told = worker.connection.recv()
                except EOFError:
                    outcome, told = "found", worker.ended(late)
                counts.setdefault(name, Counter())[outcome] += 1
                del tasks[worker]
                if outcome == "found":
                    keep(output, name, at, worker.folder, told)
                    if worker.process.is_alive():
                        worker.connection.send(None)
                    else:
                        worker.start()
        for worker in pool:
            worker.connection.send(None)
            worker.process.join()
    return counts


def keep(output: Path, name: str, number: int, folder: Path, told: str) -> None:
    """Keep a finding: the file, and beside it what came out."""
    if not (folder / "current").exists():
        raise SystemExit(f"{name} {number}: this script failed before anything was read: {told}")
    path = Path((folder / "current").read_text())
    place = output / f"{name}--{number}" / path.relative_to(folder / name)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, place)
    place.with_name(place.name + ".txt").write_text(told)
    print(f"{name}: {place}: {told.strip().splitlines()[-1][:200]}", flush=True)


def replay(finding: Path) -> int:
    """Read the file of a finding again, in this process."""
    part = next(each for each in finding.resolve().parents if "--" in each.name)
    with tempfile.TemporaryDirectory() as home:
        for name, _, read in readers(Path(home)):
            if name == part.name.rpartition("--")[0]:
                path = Path(home) / name / finding.resolve().relative_to(part)
                shutil.copy(finding, path)
                outcome, told = attempt(read, path)
                print(outcome, told)
                return outcome == "found"
    raise SystemExit(f"{finding}: of no reader")


def main() -> int:
    """Fuzz or replay; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("fuzz"), help="of findings")
    parser.add_argument("--replay", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(arguments.replay)
    found = fuzz(arguments.minutes, arguments.seed, arguments.workers, arguments.output)
    print(
        "| reader | files | read | refused by our errors | found |\n| --- | --: | --: | --: | --: |"
    )
    for name, outcomes in [*sorted(found.items()), ("all", sum(found.values(), Counter()))]:
        cells = [outcomes[each] for each in ("read", "refused", "found")]
        print(f"| {name} | " + " | ".join(f"{each:,}" for each in (sum(cells), *cells)) + " |")
    return int(any(each["found"] for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
