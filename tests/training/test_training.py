"""Training: the order of samples, losses, schedules, and a loop that comes back exactly."""

import atexit
import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import REPOSITORY, posix_only
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from test_datasets import write_frame

from stereo.commands import cli
from stereo.data.augmentation.config import AugmentationConfig
from stereo.data.synthetic import SyntheticConfig
from stereo.errors import InputError, StereoError, UsageError
from stereo.evaluation.report.training import _read_curves
from stereo.models import NetworkConfig, build_network
from stereo.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stereo.models.fast import FastFeatures
from stereo.models.outputs import TrainingOutputs
from stereo.system.bundled import bundled_weights
from stereo.training import loop, saver
from stereo.training.config import LossConfig, OptimizerConfig, TrainerConfig
from stereo.training.held_out import hold_out
from stereo.training.interrupt import explain_errors
from stereo.training.learner import MovingAverage
from stereo.training.loop import train
from stereo.training.losses import loss_sum, plane_cross_entropy_sum, smooth_l1_sum
from stereo.training.order import Share, StepSampler
from stereo.training.prepare import prepare
from stereo.training.recipe import RECIPES, DataConfig, Recipe, ValidationConfig, recipe_path
from stereo.training.schedule import learning_rate, parse_duration
from stereo.training.state import (
    RunState,
    checkpoints_of,
    find_resume,
    last_path,
    read_best_epe,
    remove_old,
    save_run,
    set_aside_later,
)
from stereo.training.truth import TruthCount, counted_pixels

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


def everything_in(path):
    """All tensors of a checkpoint, and the facts of its state, but for what differs by nature."""
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["state"])
    return load_file(path), facts


def assert_same(one, other):
    (tensors, facts), (others, other_facts) = everything_in(one), everything_in(other)
    assert tensors.keys() == others.keys()
    different = [name for name in tensors if not torch.equal(tensors[name], others[name])]
    assert not different
    assert facts == other_facts


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_comes_back_bit_for_bit(tmp_path, processes):
    options = ("--trainer.max_steps", 40, "--trainer.checkpoint_every", 20)
    whole = command(tmp_path / "whole", *options, processes=processes)
    finish(whole)
    killed = command(tmp_path / "killed", *options, processes=processes)
    wait_for(tmp_path / "killed" / "last-00000020.safetensors", killed)
    launcher = psutil.Process(killed.pid)
    for process in [*launcher.children(recursive=True), launcher]:
        process.kill()
    killed.communicate()
    assert not (tmp_path / "killed" / "last-00000040.safetensors").exists()
    assert "resumed from step 20" in finish(
        command(tmp_path / "killed", *options, processes=processes)
    )
    last = "last-00000040.safetensors"
    assert_same(tmp_path / "whole" / last, tmp_path / "killed" / last)


@pytest.fixture
def tiny(tmp_path, rng):
    """Three pairs of 32x64 pixels, 5 px apart, whose ground truth is a given number."""

    def write(truth=5.0, name="data"):
        root = tmp_path / name
        root.mkdir()
        entries = []
        for number in range(3):
            wide = rng.integers(0, 256, (32, 69, 3), np.uint8)
            files = {side: f"{side}{number}.png" for side in ("left", "right")}
            for side, view in (("left", wide[:, :-5]), ("right", wide[:, 5:])):
                Image.fromarray(view).save(root / files[side])
            np.save(root / f"{number}.npy", np.full((32, 64), truth, np.float32))
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


def test_a_kill_after_validation_does_not_forget_the_best(tiny, scripted, monkeypatch, tmp_path):
    run, out = tiny_run(tiny(), validate_every=2, checkpoint_every=100), tmp_path / "run"
    scripted(9.0, 5.0)
    save = saver.save_checkpoint

    def killed_once_written(*arguments):
        save(*arguments)
        raise Killed

    monkeypatch.setattr(saver, "save_checkpoint", killed_once_written)
    with pytest.raises(Killed):
        train(run, out)
    monkeypatch.setattr(saver, "save_checkpoint", save)
    scripted(5.0, 8.0)  # validated anew at step 2, since its state does not say that it was
    assert train(run, out) == 4
    assert best_of(out) == (2, 5.0)
    # A best of a later step than the one that is resumed from stays, too.
    last_path(out, 4).unlink()
    save(out / "best.safetensors", Checkpoint(*_weights(out), {"step": 4, "validation_epe_px": 3}))
    scripted(5.0, 8.0)
    assert train(run, out) == 4
    assert best_of(out) == (4, 3)


def _weights(folder):
    best = load_checkpoint(folder / "best.safetensors")
    return best.config, best.weights


def test_a_kill_in_the_last_validation_costs_no_best(tiny, scripted, tmp_path):
    run, out = tiny_run(tiny(), max_steps=2, checkpoint_every=100), tmp_path / "run"
    scripted(9.0, None)
    with pytest.raises(Killed):
        train(run, out)
    assert not (out / "best.safetensors").exists()
    scripted(4.0)
    assert train(run, out) == 2
    assert best_of(out) == (2, 4.0)
    scripted()  # and now there is nothing to do
    assert train(run, out) == 2


def test_a_damaged_best_is_replaced_with_a_warning(tiny, scripted, tmp_path, capsys):
    run, out = tiny_run(tiny(), max_steps=2, validate_every=1), tmp_path / "run"
    scripted(9.0, 5.0, 7.0)
    train(run, out)
    (out / "best.safetensors").write_bytes(b"damaged")
    assert read_best_epe(out) is None
    assert "the next validation replaces it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (0.0, "has ground truth"),  # 0 is none in a manifest
        (-5.0, "(-5 to -5 px) are 100 % negative"),
        (500.0, "100 % at 32 px or beyond; correct the scale"),
        (np.inf, "has ground truth"),
    ],
)
def test_training_on_nothing_stops_says_why_and_leaves_nothing(
    tiny, scripted, tmp_path, truth, words
):
    run, out = tiny_run(tiny(truth), max_steps=30), tmp_path / "run"
    scripted(9.0)
    with pytest.raises(InputError, match="no pixel of the first 10 steps") as error:
        train(run, out)
    assert words in str(error.value)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("weights", [None, "some"])
def test_training_on_nothing_leaves_nothing_however_often_it_saves(
    tiny, scripted, tmp_path, weights
):
    run = tiny_run(tiny(32.0), max_steps=12, validate_every=1, checkpoint_every=1)
    run, out = dataclasses.replace(run, facts={"weights": weights}), tmp_path / "run"
    for _ in range(2):  # again it does no better
        scripted(*[9.0] * 20)
        with pytest.raises(InputError, match=r"100 % at 32 px or beyond; .*max_disparity 32"):
            train(run, out)
        assert list(out.iterdir()) == []


def test_a_run_does_not_go_on_with_nothing(tiny, scripted, tmp_path):
    scripted(9.0, 8.0)
    train(tiny_run(tiny(), max_steps=2), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    scripted(*[9.0] * 20)
    with pytest.raises(InputError, match="no pixel of the next 3 steps counts"):
        train(tiny_run(tiny(40.0, "beyond"), max_steps=5, checkpoint_every=1), tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")} == before


def test_one_pair_among_many_is_enough(tiny, scripted, tmp_path):
    root = tiny(500.0)
    run = tiny_run(root, max_steps=2)
    last = run.training_set.source.files[1].name
    np.save(root / f"{last}.npy", np.full((32, 64), 5, np.float32))
    scripted(9.0, 8.0)
    assert train(run, tmp_path / "run") == 2


@pytest.mark.parametrize("reach, counts", [(32, False), (256, True)])
def test_validation_counts_the_pixels_that_training_does(tiny, tmp_path, reach, counts):
    other = tiny_run(tiny(40.0 if reach == 32 else 200.0, "other")).validation_set
    run = tiny_run(tiny(), max_steps=1)
    network = dataclasses.replace(run.network_config, max_disparity=reach)
    run = dataclasses.replace(run, network_config=network, validation_set=other)
    run.network.max_disparity = reach
    if counts:
        assert train(run, tmp_path / "run") == 1
        return
    with pytest.raises(InputError, match=r"validation pairs counts: .* 100 % at 32 px or beyond"):
        train(run, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_fewer_steps_than_are_done_are_refused(tiny, scripted, tmp_path):
    root = tiny()
    scripted(9.0, 8.0)
    train(tiny_run(root, max_steps=3), tmp_path / "run")
    with pytest.raises(UsageError, match=r"step 3, beyond --trainer\.max_steps 2; raise"):
        train(tiny_run(root, max_steps=2), tmp_path / "run")


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [(signal.SIGTERM, 143, "stereo: terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_ends_training_as_it_ends_other_commands(
    tiny, tmp_path, monkeypatch, capsys, number, status, words
):
    run, out = tiny_run(tiny(), max_steps=9, validate_every=1), tmp_path / "run"

    def validate(*_, **__):
        if last_path(out, 1).exists():  # in the loop
            signal.raise_signal(number)
        return {"epe_image": 9.0, "images": 1, "skipped": 0}, []

    monkeypatch.setattr(loop, "validate", validate)
    monkeypatch.setattr(cli, "run", lambda _: train(run, out))
    monkeypatch.setattr(cli, "heed_signals", lambda: None)
    monkeypatch.setattr(cli, "leave_to_system", lambda: None)
    with pytest.raises(SystemExit) as leaving:
        cli.main([])
    assert leaving.value.code == status
    captured = capsys.readouterr()
    assert "stopped at step 1 of 9" in captured.out
    assert words in captured.err


@pytest.mark.parametrize("truth", [0.0, -5.0, 500.0])
def test_validation_on_nothing_stops_before_the_first_step(tiny, tmp_path, truth):
    run = dataclasses.replace(
        tiny_run(tiny()), validation_set=tiny_run(tiny(truth, "other")).validation_set
    )
    with pytest.raises(InputError, match="no pixel of the validation pairs"):
        train(run, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_zeros_count_where_the_recipe_says_so():
    truth = torch.tensor([[-1.0, 0.0, 0.0, 40.0, 40.0, 40.0, np.inf]])
    count = TruthCount(32)
    count.add(truth, truth.isfinite())
    assert "of 6 with ground truth (-1 to 40 px) are 16.67 % negative, 33.33 % 0, 50 % at" in str(
        count.error("it")
    )


def test_a_loss_that_is_not_finite_keeps_the_last_scalars(tiny, scripted, monkeypatch, tmp_path):
    run, out = tiny_run(tiny(), validate_every=100, checkpoint_every=100), tmp_path / "run"
    scripted(9.0)
    losses = iter([1.0, 1.0, float("nan")])
    monkeypatch.setattr(
        loop, "loss_sum", lambda outputs, *_: outputs.disparities[0].mean() * 0 + next(losses)
    )
    with pytest.raises(StereoError, match="step 3 is not finite"):
        train(run, out)
    assert _read_curves(out / "tensorboard")["train/loss"][0] == [1, 2]


def test_a_resumed_run_is_read_and_told_without_noise(tiny, scripted, tmp_path, capfd, caplog):
    run, out = tiny_run(tiny(), validate_every=2, checkpoint_every=2), tmp_path / "run"
    scripted(9.0, 5.0, 4.0)
    train(run, out)
    said = capfd.readouterr().out
    assert "step 2/4" in said
    assert "validation EPE 9.000 px at step 0" in said
    assert "validation EPE 5.000 px at step 2" in said
    last_path(out, 4).unlink()
    scripted(4.5)
    train(run, out)
    captured = capfd.readouterr()
    assert "out of order" not in captured.out + captured.err + caplog.text
    assert "validation EPE 5.000 px at step 2" in captured.out
    steps, epes = _read_curves(out / "tensorboard")["validation/epe_image"]
    assert (steps, epes) == ([0, 2, 4], [9, 5, 4.5])


def assert_close_but_for_rounding(one, two):
    """Adam makes a full step of a gradient that is zero but for rounding: few may differ."""
    apart = total = 0
    for name in (n for n in one if n.startswith("state.network")):
        apart += int((~torch.isclose(one[name], two[name], rtol=1e-3, atol=1e-5)).sum())
        total += one[name].numel()
    assert apart < 1e-4 * total


@pytest.mark.slow
def test_two_processes_equal_one_with_batch_norm_frozen(tmp_path):
    options = ("--trainer.max_steps", 3, "--trainer.freeze_batch_norm", "true")
    for processes in (1, 2):
        finish(command(tmp_path / str(processes), *options, processes=processes))
    one, two = (load_file(tmp_path / n / "last-00000003.safetensors") for n in ("1", "2"))
    assert_close_but_for_rounding(one, two)
    # One pair to validate on: the second process gathers no score of its own.
    best = [read_best_epe(tmp_path / n) for n in ("1", "2")]
    assert best[1] == pytest.approx(best[0], rel=1e-3)


def test_accumulation_equals_one_large_batch_with_batch_norm_frozen(here, tmp_path):
    for turns in (1, 2):
        options = ("--trainer.max_steps", 2, "--trainer.accumulation", turns)
        here(tmp_path / str(turns), *options, "--trainer.freeze_batch_norm", "true")
    one, two = (load_file(tmp_path / n / "last-00000002.safetensors") for n in ("1", "2"))
    assert_close_but_for_rounding(one, two)


# 143 and 130 as of every other command: a cluster tells its own SIGTERM from a failure by them.
@posix_only
@pytest.mark.parametrize(
    "number, status",
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_stops(tmp_path, number, status):
    run = command(tmp_path, "--trainer.max_steps", 5000, "--trainer.checkpoint_every", 2)
    wait_for(tmp_path / "last-00000002.safetensors", run)
    os.killpg(run.pid, number)  # as a terminal and a cluster do: the loader's processes too
    output = finish(run, status)
    assert "Traceback" not in output
    assert "saved in" in output
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_the_time_limit_saves_and_stops_with_success(here, tmp_path):
    output = here(tmp_path, "--trainer.max_steps", 100_000, "--max-time", "2s")
    last = max(tmp_path.glob("last-*.safetensors"))
    assert f"stopped at step {int(last.stem.split('-')[1])} of 100000" in output


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(here, tmp_path):
    options = ("--trainer.max_steps", 4, "--trainer.checkpoint_every", 2)
    here(tmp_path, *options)
    last = tmp_path / "last-00000004.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    output = here(tmp_path, *options)
    assert "resumed from step 2" in output
    assert load_checkpoint(last).training["step"] == 4


@pytest.mark.slow
@posix_only
def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path):
    options = ("--trainer.max_steps", 4, "--trainer.checkpoint_every", 2)
    finish(command(tmp_path, "--trainer.max_steps", 2))
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.safetensors")}
    assert set(before) == {"last-00000002.safetensors", "best.safetensors"}
    output = finish(command(tmp_path, *options, largest_file=2**20), status=1)
    assert "Traceback" not in output
    assert "stereo train: error: cannot write" in output
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.safetensors")} == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert "resumed from step 2" in finish(command(tmp_path, *options))


def test_a_disk_without_room_is_refused_before_the_first_step(here, tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", tmp_path])
    if mounted.returncode:
        pytest.skip("mounting a small disk needs more rights")
    try:
        output = here(tmp_path / "run", "--trainer.max_steps", 2, status=1)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert "MiB free, the run's checkpoints need" in output


def test_a_damaged_pair_is_named_and_by_choice_skipped_and_counted(here, tmp_path):
    shutil.copytree(samples(), tmp_path / "data")
    (damaged,) = (tmp_path / "data").glob("*/frames_finalpass/TEST/A/0001/right/*.png")
    damaged.write_bytes(damaged.read_bytes()[:1000])
    options = ("--data.root", tmp_path / "data", "--trainer.max_steps", 3)
    output = here(tmp_path / "run", *options, status=1)
    assert str(damaged) in output
    output = here(tmp_path / "run", *options, "--data.skip_damaged", "true")
    assert f"warning: skipped: {damaged}" in output
    assert "damaged pairs skipped: 3;" in output  # three steps of two: the one of two, each time


def test_what_a_run_writes_is_matched_and_fine_tuned(here, stereo, tmp_path):
    here(tmp_path / "first", "--trainer.max_steps", 2)
    best = tmp_path / "first" / "best.safetensors"
    views = [
        samples() / "FlyingThings3D/frames_cleanpass/TEST/A/0000" / s / "0006.png"
        for s in ("left", "right")
    ]
    assert stereo("infer", *views, "--output", tmp_path / "maps", "--model", best).status == 0
    output = here(tmp_path / "second", "--trainer.max_steps", 1, "--weights", best)
    assert "resumed" not in output
    never = ("--trainer.max_steps", 1, "--resume", "never")
    assert "holds checkpoints" in here(tmp_path / "first", *never, status=2)


def test_a_loss_that_is_not_finite_stops_and_keeps_its_batch(here, tmp_path):
    options = ("--trainer.max_steps", 50, "--optimizer.learning_rate", 1e30)
    output = here(tmp_path, *options, "--optimizer.clip_norm", "null", status=1)
    assert "not finite" in output
    (saved,) = tmp_path.glob("not-finite-*.npz")
    assert np.load(saved)["left_0"].shape == (2, 3, 32, 48)


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(1, 40),
    each=st.integers(1, 4),
    processes=st.integers(1, 3),
    turns=st.integers(1, 3),
    first=st.integers(0, 30),
)
def test_every_split_of_the_work_sees_the_same_samples(count, each, processes, turns, first):
    batch = each * processes * turns
    whole = StepSampler(count, batch, 5, Share()).keys_of_step(first)
    parts = []
    for rank in range(processes):
        sampler = iter(StepSampler(count, batch, 5, Share(rank, processes, turns, first)))
        parts.append([next(sampler) for _ in range(turns)])
    together = [
        key for turn in range(turns) for rank in range(processes) for key in parts[rank][turn]
    ]
    assert together == whole


def test_an_epoch_holds_every_sample_once():
    sampler = StepSampler(10, 4, 0, Share())
    keys = [key for step in range(5) for key in sampler.keys_of_step(step)]
    for epoch in (0, 1):
        assert sorted(i for e, i in keys if e == epoch) == list(range(10))
    assert [i for e, i in keys if e == 0] != [i for e, i in keys if e == 1]


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UsageError, match="does not divide"):
        StepSampler(10, 5, 0, Share(world_size=2))


def test_loss_is_psmnets():
    truth = torch.tensor([[[1.0, 2.0, 50.0], [0.0, 200.0, 3.0]]])
    valid = torch.ones_like(truth).bool()
    counted = counted_pixels(truth, valid, 192)
    assert counted.tolist() == [[[True, True, True], [False, False, True]]]
    assert counted_pixels(truth, valid, 192, zero_counts=True).sum() == 5
    predictions = [truth + 0.5, truth + 2, truth - 3]
    total = smooth_l1_sum(predictions, truth, counted, (0.5, 0.7, 1.0)) / counted.sum()
    assert total == pytest.approx(0.5 * 0.125 + 0.7 * 1.5 + 2.5)
    assert smooth_l1_sum(predictions[-1:], truth, counted, (0.5, 0.7, 1.0)) == pytest.approx(10)


def test_schedules():
    constant = OptimizerConfig(learning_rate=2.0)
    assert learning_rate(99, 100, constant) == 2.0
    cycle = OptimizerConfig(learning_rate=2.0, schedule="one_cycle", warmup_share=0.1)
    rates = [learning_rate(step, 100, cycle) for step in range(100)]
    assert rates[9] == pytest.approx(2.0)
    assert rates[0] == pytest.approx(0.2)
    assert rates[99] < 0.01
    steps = OptimizerConfig(learning_rate=1.0, schedule="steps", milestones=(0.5, 0.9))
    assert [learning_rate(s, 10, steps) for s in (4, 5, 9)] == pytest.approx([1, 0.1, 0.01])


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("50m", 3000), ("2.5h", 9000)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds
    with pytest.raises(ValueError):
        parse_duration("soon")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--config", "quickstrat"],
        ["--config", "quickstart", "--trainer.max_steps", "0"],
        ["--config", "quickstart", "--trainer.steps", "5"],
        ["--config", "quickstart", "--network.name", "psmnt"],
        ["--config", "quickstart", "--network.max_disparity", "100"],
        ["--config", "quickstart", "--max-time", "soon"],
        ["--config", "quickstart", "--data.name", "sceneflow"],
    ],
    ids=lambda w: " ".join(w[2:]) or w[1],
)
def test_wrong_calls_are_one_line(stereo, tmp_path, wrong):
    result = stereo("train", *wrong, "--output", tmp_path / "run")
    assert result.status == 2
    assert len(result.errors) == 1, result.errors
    assert not (tmp_path / "run").exists()


ATTENTION_NAMES = "known: aft_conv, aft_simple, disparity"
FAST = "network: {name: ea_stereo_fast, "


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (FAST + "attention: {name: efficent}}", ATTENTION_NAMES),
        (FAST + "attention: {sites: [eigth]}}", "known: eighth, quarter, sixteenth"),
        (FAST + "attention: {sites: [quarter]}}", "known: eighth, sixteenth"),
        (FAST + "attention: {sites: 3}}", "sites"),
        (FAST + "attention: {nme: efficient}}", "fields: name, sites, options"),
        (FAST + "attention: efficient}", "--network.attention.name NAME"),
        (FAST + "attention: {options: {head: 3}}}", "known: heads, key_channels, temperature"),
        (FAST + "max_disparity: 1.5}", "'network.max_disparity' is 1.5; expected a whole number"),
        ("data: {root: 5}", "'data.root' is 5; expected a text (see 'stereo train -"),
        ("data: {name: kitti2012, root: nowhere}", "nowhere: no such folder; the root is"),
        ("data: {synthetic: {height: a}}", "'data.synthetic.height' is a; expected a whole"),
        ("data: {skip_damaged: maybe}", "'data.skip_damaged' is maybe; expected true or false"),
        ("network: null", "'network' is null; it has fields, such as 'network.name'"),
        ("optimizer: {learning_rate: nan}", "'optimizer.learning_rate' is nan; expected a number"),
        ("optimizer: {clip_norm: a}", "'optimizer.clip_norm' is a; expected a number"),
        ("trainer: {device: tpu}", "'trainer.device' is tpu; expected one of auto, cpu, cuda,"),
        (FAST + "attention: {name: null}}", "'name' is null"),
        (FAST + "mean: null}", "'network.mean' is null"),
        (FAST + "bogus: 1}", "network.bogus"),
        ("trainer: null", "'trainer' is null"),
        ("trainer: {max_steps: null}", "'trainer.max_steps' is null"),
        ("data: {validation: 3}", "'data.validation' is '3'"),
        ("optimizer: {learning_rate: .inf}", "learning rate inf"),
        ("loss: {weights: [a]}", "loss.weights"),
        ("weights: [1]", "'weights' is [1]"),
        ("a: b: c", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("- network", "YAML file of sections"),
        ("", "YAML file of sections"),
        (b"\xff\xfe\x00", "YAML file of sections"),
        (b"# " + b"a" * 2**19, "that a recipe may have"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:60],
)
def test_a_recipe_that_cannot_be_is_one_line(stereo, tmp_path, recipe, words):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(recipe if isinstance(recipe, bytes) else recipe.encode())
    network = () if b"network" in path.read_bytes() else ("--network.name", "ea_stereo_fast")
    result = stereo("train", "--config", path, *network, "--output", tmp_path / "run")
    status = 1 if "nowhere" in words else 2
    assert (result.status, len(result.errors)) == (status, 1), result.errors
    assert words in result.errors[0]
    assert "--root" not in result.errors[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", ["ea_stereo_fastt", "sgbm", "", "nowhere/run"])
def test_unknown_weights_list_those_that_ship(stereo, tmp_path, given):
    options = ("--config", "quickstart", "--weights", given, "--output", tmp_path / "run")
    result = stereo("train", *options)
    assert (result.status, len(result.errors)) == (2, 1), result.errors
    assert f"unknown --weights '{given}'; known: a .safetensors or" in result.errors[0]
    assert "ea_stereo_fast" in result.errors[0]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("name", "efficent", ATTENTION_NAMES),
        ("sites", "[eigth]", "known: eighth, quarter, sixteenth"),
        ("site", "eighth", "fields: name, sites, options"),
    ],
)
def test_a_misspelt_attention_on_the_command_line_is_one_line(
    stereo, tmp_path, option, value, words
):
    given = (f"--network.attention.{option}", value, "--output", tmp_path / "run")
    result = stereo("train", "--config", "quickstart", *given)
    assert (result.status, len(result.errors)) == (2, 1), result.errors
    assert words in result.errors[0]


def test_help_of_train_names_the_attentions_and_needs_no_pytorch():
    code = """
import contextlib, io, sys
from stereo.commands.cli import run
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    run(["train", "--help"])
heavy = {"torch", "torchvision", "accelerate", "cv2"} & set(sys.modules)
assert not heavy, heavy
print(" ".join(said.getvalue().split()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for words in ("--network.attention.name (aft_conv,", "window)", "--network.attention.sites"):
        assert words in done.stdout


def test_unknown_recipes_list_the_shipped_ones():
    with pytest.raises(UsageError, match="quickstart"):
        recipe_path("nothing")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_loads_and_takes_a_step(here, path, tmp_path):
    options = ("--data.validation.name", "sceneflow", "--data.validation.split", "test")
    # The network that ships searches 192 px, and its weights with it.
    options += ("--network.max_disparity", 192) if path.stem == "finetune" else ()
    output = here(tmp_path, "--trainer.max_steps", 1, *options, config=path.stem)
    assert "stopped at step 1 of 1" in output
    head = path.read_text().splitlines()
    assert any(f"stereo train --config {path.stem} " in line for line in head[:6])


def test_cross_entropy_of_planes_shares_each_pixel_between_its_two_planes():
    truth = torch.tensor([[[0.0, 1.0], [2.0, 99.0]]])  # a block of 2x2: planes 0, 0 and 1, 1, none
    counted = torch.tensor([[[True, True], [True, False]]])
    logits = torch.tensor([0.3, -0.5, 0.1]).view(1, 3, 1, 1)
    log = logits.flatten().log_softmax(dim=0)
    expected = -(1.5 * log[0] + 1.5 * log[1])
    assert plane_cross_entropy_sum(logits, truth, counted, 2) == pytest.approx(float(expected))
    wider = -(2.25 * log[0] + 0.75 * log[1])  # planes 4 px apart: 0, 0.25 and 0.5 of the way
    assert plane_cross_entropy_sum(logits, truth, counted, 4) == pytest.approx(float(wider))


def test_cross_entropy_of_planes_is_least_at_the_shares_of_the_pixels():
    truth = torch.full((1, 8, 8), 20.0)  # between planes 2 and 3 of 8 pixels
    truth[:, :, :2] = 4.0
    counted = torch.ones_like(truth).bool()
    shares = torch.tensor([0.125, 0.125, 0.375, 0.375, 1e-9]).view(1, 5, 1, 1)
    best = plane_cross_entropy_sum(shares.log(), truth, counted, 8)
    for k in range(4):
        other = shares.log().clone()
        other[0, k] += 0.1
        assert plane_cross_entropy_sum(other, truth, counted, 8) > best


def test_a_loss_on_planes_needs_a_network_that_shows_them():
    truth = torch.ones(1, 16, 16)
    outputs = TrainingOutputs((truth,))
    with pytest.raises(UsageError, match="planes"):
        loss_sum(outputs, truth, truth > 0, LossConfig(planes=1.0))
    assert loss_sum(outputs, truth, truth > 0, LossConfig()) == 0


@pytest.mark.parametrize("wrong", [{"weights": ()}, {"beta": 0.0}, {"planes": -1.0}])
def test_impossible_losses_say_so(wrong):
    with pytest.raises(UsageError, match="loss"):
        LossConfig(**wrong)


def test_the_average_starts_fast_and_forgets_its_first_weights():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = MovingAverage(network, 0.999)
    average.update(network)
    torch.nn.init.ones_(network.weight)
    for _ in range(30):
        average.update(network)
    assert float(average.network.weight.detach()) > 0.99  # a decay of 0.999 would give 0.03


@pytest.mark.parametrize(
    "wrong",
    [
        ("--seed", "-1"),
        ("--data.scenes", "0"),
        ("--data.validation.limit", "-1"),
        ("--augmentation.crop", "[33,49]"),
        ("--optimizer.betas", "[2,3]"),
        ("--optimizer.weight_decay", "-1"),
        ("--optimizer.milestones", "[0.5,2]"),
        ("--loss.weights", "[]"),
        ("--trainer.max_step", "3"),  # no abbreviations: a typo is no other option
    ],
)
def test_values_that_cannot_be_are_refused_before_any_work(stereo, tmp_path, wrong):
    result = stereo("train", "--config", "quickstart", "--output", tmp_path / "run", *wrong)
    assert result.status == 2
    assert len(result.errors) == 1
    assert wrong[0].split(".")[-1].replace("_", " ").strip("-").split()[-1] in result.errors[0]
    assert not (tmp_path / "run").exists()


def a_checkpoint(folder, step, value=1.0):
    network = build_network(NetworkConfig("ea_stereo_fast"))
    weights = {
        name: torch.full_like(tensor, value) if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    state = RunState(step, weights, {"state": {}, "param_groups": []}, {}, [])
    save_run(last_path(folder, step), Checkpoint(NetworkConfig("ea_stereo_fast"), weights), state)


def test_a_checkpoint_that_is_not_finite_falls_back_to_the_one_before(tmp_path):
    a_checkpoint(tmp_path, 3)
    a_checkpoint(tmp_path, 4, float("nan"))
    assert find_resume(tmp_path, "auto")[0] == last_path(tmp_path, 3)
    with pytest.raises(InputError, match="not finite"):
        find_resume(tmp_path, str(last_path(tmp_path, 4)))


def test_the_checkpoint_just_written_is_never_removed(tmp_path):
    for step in (2, 3, 9):
        last_path(tmp_path, step).write_bytes(b"")
    remove_old(tmp_path, 3, keep=1)
    assert [p.name for p in checkpoints_of(tmp_path)] == [
        "last-00000009.safetensors",
        "last-00000003.safetensors",
    ]


def test_checkpoints_of_a_way_not_taken_are_set_aside(tmp_path):
    for step in (2, 4):
        last_path(tmp_path, step).write_bytes(b"")
    set_aside_later(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "aside-last-00000004.safetensors",
        "last-00000002.safetensors",
    ]


@pytest.mark.slow
def test_a_pair_damaged_for_one_process_is_named_once_and_the_run_saved(tmp_path):
    shutil.copytree(samples(), tmp_path / "data")
    (damaged,) = (tmp_path / "data").glob("*/frames_finalpass/TEST/A/0001/right/*.png")
    damaged.write_bytes(b"")
    options = ("--data.root", tmp_path / "data", "--data.validation.root", samples())
    output = finish(
        command(tmp_path / "run", *options, "--trainer.max_steps", 9, processes=2), status=1
    )
    assert output.count(f"stereo train: error: {damaged}") == 1
    assert "gloo" not in output
    assert list((tmp_path / "run").glob("last-*.safetensors"))


@pytest.mark.parametrize(
    "message, said",
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "--trainer.workers"),
        ("[gloo/transport/tcp/pair.cc:544] Connection closed by peer", "another process"),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate", "batch_size"),
        ("Invalid buffer size: 20.00 GiB", "batch_size"),
    ],
)
def test_what_ends_a_run_from_outside_is_one_line(message, said, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(StereoError, match=said), explain_errors():
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="a defect"), explain_errors():
        raise RuntimeError("a defect")


def test_going_on_with_other_settings_is_said(here, tmp_path):
    here(tmp_path, "--trainer.max_steps", 1)
    output = here(tmp_path, "--trainer.max_steps", 2, "--optimizer.learning_rate", 5e-4)
    assert "warning: the run goes on with other settings:" in output
    assert "optimizer.learning_rate: 0.001 -> 0.0005" in output
    assert "trainer.max_steps: 1 -> 2" in output
    assert "nothing to do" in here(tmp_path, "--trainer.max_steps", 2)


def test_weights_of_other_conventions_are_warned_of(tmp_path, capsys):
    config = NetworkConfig("psmnet_basic", 48, upsampling="half_pixel", padding="zeros")
    weights = dict(build_network(config).state_dict())
    save_checkpoint(tmp_path / "it.safetensors", Checkpoint(config, weights))
    recipe = Recipe(network=NetworkConfig("psmnet_basic", 48))
    prepare(recipe, weights=str(tmp_path / "it.safetensors"))
    assert "--network.upsampling half_pixel --network.padding zeros" in capsys.readouterr().err
    prepare(dataclasses.replace(recipe, network=config), weights=str(tmp_path / "it.safetensors"))
    assert not capsys.readouterr().err


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_whole_scenes_are_held_out_by_their_names(share):
    names = [
        f"TRAIN/{letter}/{n:04d}/{f:04d}" for letter in "AB" for n in range(50) for f in (6, 7)
    ]
    held = hold_out(names, share)
    assert len(held) == share * len(names)
    assert held == hold_out(names[::-1], share)
    scenes = {name.rpartition("/")[0] for name in held}
    assert held == {name for name in names if name.rpartition("/")[0] in scenes}


@pytest.mark.parametrize(("count", "held"), [(2, 1), (10, 1), (30, 3), (95, 10)])
def test_the_last_frames_are_held_out_where_there_are_no_scenes(count, held):
    names = [f"{n:04d}" for n in range(count)]
    assert hold_out(names, 0.1) == set(names[-held:])
    with pytest.raises(UsageError, match="of which none can be held out"):
        hold_out(names[:1], 0.1)


def test_unless_other_data_are_named_training_pairs_are_held_out(tiny, capsys):
    root = str(tiny())
    for validation, held in (
        (ValidationConfig(), ["2"]),
        (ValidationConfig(share=0.6), ["1", "2"]),
    ):
        run = prepare(Recipe(data=DataConfig("manifest", root, validation=validation)))
        assert [pair.name for pair in run.validation_set] == held
        assert len(run.training_set) == 3 - len(held)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["psmnet_sceneflow", "ea_psmnet_sceneflow", "modern_sceneflow"])
def test_recipes_of_scene_flow_leave_its_test_pairs_alone(recipe, stereo, tmp_path, monkeypatch):
    for scene in range(60):
        write_frame(tmp_path, "FlyingThings3D", f"TRAIN/A/{scene:04d}", "0006")
    write_frame(tmp_path, "FlyingThings3D", "TEST/A/0000", "0006")
    runs = []
    monkeypatch.setattr(loop, "train", lambda run, *_, **__: runs.append(run))
    data = ("--data.root", tmp_path, "--output", tmp_path / "out")
    result = stereo("train", "--config", recipe, *data)
    assert result.status == 1
    assert "--data.name flyingthings3d" in result.errors[0]  # the one option that it takes
    alone = stereo("train", "--config", recipe, *data, "--data.name", "flyingthings3d")
    assert (alone.status, alone.errors) == (0, [])
    write_frame(tmp_path, "Monkaa", "a_rain_of_stones_x2", "0000")
    write_frame(tmp_path, "Driving", "15mm_focallength/scene_forwards/fast", "0001")
    assert stereo("train", "--config", recipe, *data).status == 0
    for run, count in zip(runs, (59, 61), strict=True):
        (held,) = run.validation_set
        names = [pair.name for pair in run.training_set.source.files]
        assert len(names) == count
        assert held.name not in names
        assert "FlyingThings3D/TRAIN" in held.name
        assert not any("TEST" in name for name in names)


def test_weights_are_named_as_models_are(tmp_path):
    network = NetworkConfig("ea_stereo_fast")
    run = prepare(Recipe(network=network), weights="ea_stereo_fast")
    shipped = load_checkpoint(bundled_weights("ea_stereo_fast")).weights
    assert all(torch.equal(run.network.state_dict()[n], t) for n, t in shipped.items())
    assert run.facts["weights"] == "ea_stereo_fast"
    with pytest.raises(UsageError, match="without weights; known: ea_stereo_fast"):
        prepare(Recipe(network=NetworkConfig("psmnet")), weights="psmnet")
    with pytest.raises(InputError, match="nothing"):
        prepare(Recipe(network=network), weights=str(tmp_path / "nothing.safetensors"))


def test_fine_tuning_keeps_the_first_weights_until_others_are_better(
    tiny, scripted, tmp_path, capsys
):
    run = dataclasses.replace(tiny_run(tiny(), validate_every=2), facts={"weights": "some"})
    scripted(3.0, 4.0, 5.0)
    train(run, tmp_path / "run")
    assert best_of(tmp_path / "run") == (0, 3.0)
    assert "best validation EPE 3.000 px" in capsys.readouterr().out


def test_a_batch_too_small_for_batch_norm_is_one_line():
    with pytest.raises(UsageError, match="freeze_batch_norm"), explain_errors():
        torch.nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))


def test_a_checkpoint_names_no_folder_of_the_machine(tiny, tmp_path):
    scenes = SyntheticConfig(textures=str(tmp_path / "pictures"), meshes=str(tmp_path / "things"))
    data = DataConfig("manifest", str(tiny()), synthetic=scenes)
    facts = prepare(Recipe(network=NetworkConfig("ea_stereo_fast", 32), data=data)).facts
    assert str(tmp_path) not in json.dumps(facts)
    assert facts["recipe"]["data"]["synthetic"]["meshes"] == "things"


def test_validation_on_the_training_pairs_is_warned_of(capsys):
    data = DataConfig("sceneflow", str(SAMPLES), "test", validation=ValidationConfig(split="test"))
    prepare(Recipe(network=NetworkConfig("psmnet_basic", 48), data=data))
    assert "3 of the 3 validation pairs are trained on too" in capsys.readouterr().err


def test_training_and_validation_compute_in_the_same_precision(here, tmp_path, monkeypatch):
    seen = {True: set(), False: set()}
    forward = FastFeatures.forward

    def watched(self, image):
        seen[self.training].add(torch.backends.cudnn.conv.fp32_precision)
        return forward(self, image)

    monkeypatch.setattr(FastFeatures, "forward", watched)
    before = torch.backends.cudnn.conv.fp32_precision
    here(tmp_path / "run", "--trainer.max_steps", 1)
    assert seen == {True: {"ieee"}, False: {"ieee"}}
    assert torch.backends.cudnn.conv.fp32_precision == before
