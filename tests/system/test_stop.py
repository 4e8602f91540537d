"""Ctrl-C and SIGTERM end a command wherever they find it."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import REPOSITORY, posix_only, slow_but
from PIL import Image

from stereo.commands.cli import run
from stereo.data.io.disparities import read_disparity
from stereo.system.distributed import MAIN_SPEAKS_WITHIN
from stereo.system.stop import heed_signals

SWALLOWED = """
import os, signal, sys, weakref
from stereo.commands.cli import main
from stereo.commands import COMMANDS
import stereo.commands.cli
from stereo.system.console import progress

class Thing: pass

def command(config):
    if sys.argv[2] == "before the first step":
        lose_signal()
    for step in progress(range(100), "steps"):
        print(step, flush=True)
        if step == 3 and sys.argv[2] == "in a step":
            lose_signal()
    if sys.argv[2] == "after the last step":
        lose_signal()
    return 0

def lose_signal():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(getattr(signal, sys.argv[1])))
    del thing

(index,) = (i for i, each in enumerate(COMMANDS) if each.name == "demo")
object.__setattr__(COMMANDS[index], "function", command)
main(["demo"])
"""


@pytest.mark.parametrize(
    "where",
    slow_but("in a step", of=["before the first step", "in a step", "after the last step"]),
)
@pytest.mark.parametrize("name, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_lost_by_python_stops_the_command_at_the_next_step(where, name, status):
    call = [sys.executable, "-c", SWALLOWED, name, where]
    done = subprocess.run(call, capture_output=True, text=True)
    assert "Exception ignored" in done.stderr  # it was dropped
    assert done.returncode == status, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "each file written so far is whole" in last
    steps = {"before the first step": 0, "in a step": 4, "after the last step": 100}
    assert len(done.stdout.splitlines()) == steps[where]


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("part", range(4))
def test_infer_leaves_complete_files_whenever_sigterm_arrives_to_stop_it(tmp_path, part):
    frames = REPOSITORY / "datasets" / "samples" / "FlyingThings3D" / "frames_finalpass" / "TEST"
    for side in ("left", "right"):
        view = Image.open(sorted(frames.glob(f"A/*/{side}/*.png"))[0]).crop((0, 0, 320, 160))
        (tmp_path / side).mkdir()
        for number in range(30):
            view.save(tmp_path / side / f"{number:03d}.png")
    out = tmp_path / "out"
    options = ["--model", "sgbm", "--formats", "color,npy", "--output", out, "--resume"]
    call = [sys.executable, "-m", "stereo", "infer", tmp_path / "left", tmp_path / "right"]
    process = subprocess.Popen([*call, *options], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / f"{6 * part:03d}_disparity.npy").exists():
        time.sleep(0.001)
    time.sleep(0.01 * part)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 143, errors
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    maps = sorted(out.glob("*.npy"))
    assert maps and all(np.isfinite(read_disparity(path)[0]).all() for path in maps)
    noted = [json.loads(line) for line in (out / "infer.jsonl").read_text().splitlines()][1:]
    assert len(noted) == len(maps) < 30


def test_errors_are_reported_by_the_main_process(monkeypatch, capsys):
    """torchrun ends the main process as soon as another leaves: it would never get to say it."""
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, expected in (("0", []), ("1", [MAIN_SPEAKS_WITHIN])):
        monkeypatch.setenv("RANK", rank)
        assert (
            run(["evaluate", "--dataset", "sceneflow", "--root", "nowhere", "--output", "o"]) != 0
        )
        assert slept == expected
        assert capsys.readouterr().err.count("stereo evaluate: error") == 1


def test_ctrl_c_that_the_shell_ignores_stays_ignored():
    """As in ``stereo train ... &`` of a script: Ctrl-C is meant for what is in the foreground."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        heed_signals()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
