"""Fixtures: the reference data, the command line, the page; and threads, one for each worker."""

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

# Before PyTorch is loaded: workers of pytest-xdist share the cores, and so do their children.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # what is expected is what a CPU computes
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch
from hypothesis import settings

from stereo.commands.cli import run
from stereo.system.cgroups import cpu_quota
from stereo.system.stop import clear_stop

settings.register_profile("any time", deadline=None)
settings.load_profile("any time")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def shared(path: str) -> Path:
    """Return a path of the reference data, or skip the test where they are absent."""
    found = SHARED_DATA / path
    if not found.exists():
        pytest.skip(f"reference data {path} not at hand")
    return found


def pytest_configure():
    """Heed Ctrl-C, and so do children: in the background a shell has processes ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers():
    """One worker more than cores: tests of pages, signals and processes wait much of their time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return math.ceil(min(cores or 1, cpu_quota() or math.inf)) + 1


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc on this system")
posix_only = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and file size limits")

SLOW_FIXTURES = {"traced"}  # a minute to make, and so is each test that asks for one


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def slow_but(*fast, of):
    """Return values to parametrise by, each marked slow but those that stand for all."""
    return [each if each in fast else pytest.param(each, marks=pytest.mark.slow) for each in of]


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Random networks are the same in whatever order tests run."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_signals():
    """Signals and their handlers end with the test: scripts called in this process set both."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    clear_stop()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def stereo(capfd):
    """Call the command line in this process; give its status, output and lines on stderr."""

    def call(*arguments):
        try:
            status = run([str(argument) for argument in arguments])
        except SystemExit as error:
            status = error.code
        captured = capfd.readouterr()
        return SimpleNamespace(status=status, out=captured.out, errors=captured.err.splitlines())

    return call


@pytest.fixture(scope="session")
def page_server(tmp_path_factory):
    """Start the page once for the group "page"; see ``start_page``."""
    with start_page(tmp_path_factory.mktemp("app")) as started:
        yield started


@contextlib.contextmanager
def start_page(folder):
    """Start the page; give its process, its address and the folder of its temporary files."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stereo", "app", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=(folder / "stderr").open("w"),
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    try:
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found, (folder / "stderr").read_text()
        yield process, found[0], folder
    finally:
        process.kill()
        process.wait()
