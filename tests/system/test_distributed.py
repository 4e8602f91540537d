"""Processes that share the pairs of one command: the files and figures of one process."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from stereo.errors import StereoError
from stereo.system.distributed import check_joined

pytestmark = pytest.mark.slow  # two processes each load PyTorch

FRAMES = REPOSITORY / "datasets/samples/FlyingThings3D/frames_finalpass/TEST/A"
TRUTH = REPOSITORY / "datasets/samples/FlyingThings3D/disparity/TEST/A"
MODEL = ("--model", "ea_stereo_fast", "--allow-untrained", "--max-disparity", "32")


def call(script, *arguments, processes=1):
    launcher = [sys.executable]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
        launcher += [*torchrun, str(processes)]
    return subprocess.run(
        [*launcher, str(REPOSITORY / "scripts" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""},  # 1 is torchrun's
    )


def figures(folder):
    """What metrics.json says, but for times."""
    report = json.loads((folder / "metrics.json").read_text())
    for image in report["images"]:
        image.pop("seconds")
    report["summary"].pop("seconds", None)
    report.pop("run")  # when, where and with how much memory
    return report


@pytest.fixture
def pairs(tmp_path):
    """Five pairs, an odd number for two processes; the fourth cannot be read."""
    for i in range(5):
        for role, path in (("left", FRAMES), ("right", FRAMES), ("disparity", TRUTH)):
            folder = "left" if role == "disparity" else role
            (found,) = (path / f"{i % 3:04d}" / folder).glob("0006.*")
            target = tmp_path / role / f"{i}{found.suffix}"
            target.parent.mkdir(exist_ok=True)
            shutil.copy(found, target)
    (tmp_path / "right" / "3.png").write_bytes(b"not an image")
    return tmp_path


def test_infer_writes_the_files_of_one_process(pairs):
    for processes in (1, 2):
        result = call(
            *("infer.py", pairs / "left", pairs / "right", "--output", pairs / str(processes)),
            *("--ground-truth", pairs / "disparity", "--formats", "pfm,color", *MODEL),
            processes=processes,
        )
        assert result.stderr.count("stereo infer: error") == 1
        assert "4 of 5 pairs written" in result.stdout
        assert result.stdout.count(": EPE ") == 4  # one line for each pair
    one, two = (sorted(p for p in (pairs / n).rglob("*") if p.is_file()) for n in "12")
    assert [p.name for p in one] == [p.name for p in two]
    for first, second in zip(one, two, strict=True):
        assert first.suffix in (".json", ".html") or first.read_bytes() == second.read_bytes()
    assert figures(pairs / "1") == figures(pairs / "2")
    assert figures(pairs / "2")["summary"]["failed_names"] == ["3"]


def test_evaluate_gives_the_metrics_of_one_process(tmp_path):
    data = ("--dataset", "sceneflow", "--root", REPOSITORY / "datasets/samples")
    for processes in (1, 2):
        output = tmp_path / str(processes)
        result = call("evaluate.py", *data, "--output", output, *MODEL, processes=processes)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("| all images ") == 2  # all pixels, non-occluded ones
    assert figures(tmp_path / "1") == figures(tmp_path / "2")
    assert len(figures(tmp_path / "2")["images"]) == 3


def test_errors_of_all_processes_are_reported_once(tmp_path):
    arguments = ("--dataset", "sceneflow", "--root", tmp_path / "nowhere", "--output", tmp_path)
    result = call("evaluate.py", *arguments, "--model", "sgbm", processes=2)
    assert result.stderr.count("stereo evaluate: error") == 1


def test_processes_that_do_not_meet_are_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_joined(2)
    with pytest.raises(StereoError, match="only 1 of 2 processes joined"):
        check_joined(1)
