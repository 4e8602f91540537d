"""Runs of a small network, for the tests of training."""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stereo.data.augmentation.config import AugmentationConfig
from stereo.models import NetworkConfig
from stereo.models.checkpoint import load_checkpoint
from stereo.training import loop
from stereo.training.config import TrainerConfig
from stereo.training.prepare import prepare
from stereo.training.recipe import DataConfig, Recipe

SAMPLES = REPOSITORY / "datasets" / "samples"


@functools.cache
def samples():
    """The bundled pairs with every eighth row and column of theirs: 68x120 pixels."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for path in (path for path in SAMPLES.rglob("*") if path.is_file()):
        target = root / path.relative_to(SAMPLES)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            values = np.asarray(picture)[::8, ::8]
        Image.fromarray(values / np.float32(8) if path.suffix == ".pfm" else values).save(target)
    return root


# A small network on small crops of the bundled pairs: a step takes a fraction of a second.
SMALL = [
    *("--config", "quickstart", "--data.name", "sceneflow"),
    *("--data.split", "test", "--data.validation.limit", "1", "--network.max_disparity", "32"),
    *("--augmentation.crop", "[32, 48]", "--augmentation.color_probability", "0.5"),
    *("--trainer.batch_size", "2", "--trainer.validate_every", "1000"),
    *("--trainer.log_every", "10", "--trainer.workers", "2", "--trainer.precision", "fp32"),
]


def command(folder, *options, processes=1, largest_file=None):
    script = str(REPOSITORY / "scripts" / "train.py")
    launcher = [sys.executable, script]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
        launcher = [sys.executable, *torchrun, str(processes), script]
    call = [
        *launcher,
        *SMALL,
        "--data.root",
        str(samples()),
        "--output",
        str(folder),
        *map(str, options),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        call,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=largest_file and partial(limit_files, largest_file),
    )


@pytest.fixture
def here(stereo):
    """Train in this process, which spares loading PyTorch again."""

    def call(folder, *options, status=0, config="quickstart"):
        small = ["--config", config, *SMALL[2:], "--data.root", samples(), "--output", folder]
        result = stereo("train", *small, "--trainer.workers", 0, *options)
        output = "\n".join([result.out, *result.errors])
        assert result.status == status, output
        assert "Traceback" not in output
        return output

    return call


def limit_files(size):
    """Let every file that the process writes end at a size, in bytes, as on a full disk."""
    import resource  # of POSIX

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def finish(process, status=0):
    output = process.communicate(timeout=600)[0]
    assert process.returncode == status, output
    return output


def wait_for(path, process):
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def tiny(tmp_path, rng):
    """Three pairs of 32x64 pixels, 5 px apart, whose ground truth is near a given number."""

    def write(truth=5.0, name="data"):
        root = tmp_path / name
        root.mkdir()
        entries = []
        for number in range(3):
            wide = rng.integers(0, 256, (32, 69, 3), np.uint8)
            files = {side: f"{side}{number}.png" for side in ("left", "right")}
            for side, view in (("left", wide[:, :-5]), ("right", wide[:, 5:])):
                Image.fromarray(view).save(root / files[side])
            near = truth * (1 + 1e-5 * rng.random((32, 64), np.float32))
            np.save(root / f"{number}.npy", near)
            entries.append({"name": f"{number}", "gt": f"{number}.npy", **files})
        (root / "manifest.json").write_text(json.dumps(entries))
        return root

    return write


def tiny_run(root, **trainer):
    """A run of a small network on the pairs of ``tiny``: a step takes hundredths of a second."""
    steps = {"max_steps": 4, "batch_size": 2, "workers": 0, "precision": "fp32"}
    recipe = Recipe(
        network=NetworkConfig("ea_stereo_fast", 32),
        data=DataConfig("manifest", str(root)),
        augmentation=AugmentationConfig(crop=(32, 64)),
        trainer=TrainerConfig(**{"log_every": 1, **steps, **trainer}),
    )
    return prepare(recipe)


class Killed(BaseException):
    """Stands for a kill: nothing of the loop sees it coming."""


@pytest.fixture
def scripted(monkeypatch):
    """Let validation find given EPEs, or be killed where one is None; the loop does the rest."""

    def script(*epes):
        rest = list(epes)

        def validate(*_, **__):
            epe = rest.pop(0)
            if epe is None:
                raise Killed
            return {"epe_image": epe, "images": 1, "skipped": 0}, []

        monkeypatch.setattr(loop, "validate", validate)

    return script


def best_of(folder):
    training = load_checkpoint(folder / "best.safetensors").training
    return training["step"], training["validation_epe_px"]


def events_of(folder):
    """What a run's folder holds for TensorBoard."""
    events = EventAccumulator(str(folder / "tensorboard"))
    return events.Reload()


def curve(folder, tag):
    """Steps, and a value at each."""
    found = events_of(folder).Scalars(tag)
    return [event.step for event in found], [event.value for event in found]
