"""``scripts/train_variants.py``: it stops whole, and refuses early what would fail late."""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import REPOSITORY, posix_only

from stereo.data.synthetic import SyntheticConfig
from stereo.data.synthetic.synthesize import synthesize
from stereo.errors import InputError, StereoError

SCRIPT = REPOSITORY / "scripts" / "train_variants.py"


@pytest.fixture
def script():
    return runpy.run_path(str(SCRIPT))


def test_the_end_of_a_study_ends_its_commands(script, monkeypatch):
    commands = script["Commands"](1)
    monkeypatch.setitem(commands.run.__globals__, "STEREO", (sys.executable, "-c"))
    failed = []

    def run():
        with pytest.raises(StereoError) as error:
            commands.run("import time; time.sleep(600)")
        failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not commands._running:
        time.sleep(0.01)
    commands.end()
    thread.join(60)
    assert len(failed) == 1
    with pytest.raises(StereoError, match="has ended"):
        commands.run("pass")


def test_pairs_of_another_split_are_refused_before_anything_is_trained(script, tmp_path):
    scenes = SyntheticConfig(height=32, width=64, max_disparity=16, objects=(1, 2))
    synthesize(tmp_path / "held", scenes, 1)
    with pytest.raises(InputError, match="--split test"):
        script["check_pairs"](tmp_path / "held")
    with pytest.raises(InputError, match="not a folder of 'stereo data synthesize'"):
        script["read_note"](tmp_path)


def test_a_region_without_pixels_is_left_out(script, tmp_path):
    def evaluated(*_):
        (tmp_path / "metrics.json").write_text(
            '{"summary": {"epe_image": 1.0, "bad_2_image": 2.0, "regions": {"textured": '
            '{"epe_image": 3.0}}}}'
        )

    found = script["judge"](tmp_path / "a.safetensors", tmp_path, tmp_path, evaluated)
    assert found == {"epe": 1.0, "bad_2": 2.0, "textured_epe": 3.0}


@pytest.mark.slow
@posix_only
def test_a_signal_leaves_no_training_behind(tmp_path):
    scenes = SyntheticConfig(height=128, width=256, max_disparity=32)
    synthesize(tmp_path / "scenes", scenes, 4)
    synthesize(tmp_path / "held", scenes, 1, split="test")
    words = ["paper", "--variants", "psmnet", "--seeds", "1", "--output", tmp_path / "paper.json"]
    folders = ["--data", tmp_path / "scenes", "--held-out", tmp_path / "held", "--runs"]
    command = [sys.executable, SCRIPT, *words, *folders, tmp_path / "runs"]
    study = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    run = tmp_path / "runs" / "psmnet-seed-0"
    deadline = time.monotonic() + 120
    while not run.is_dir() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(study.pid, signal.SIGTERM)
    errors = study.communicate(timeout=120)[1]
    assert study.returncode == 143, errors
    assert "train_variants.py: terminated" in errors
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(run) not in listed
