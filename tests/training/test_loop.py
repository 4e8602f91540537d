"""The loop: signals, validation, processes, damaged pairs, data that teach nothing."""

import dataclasses
import json
import os
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import PartialState
from conftest import posix_only
from safetensors.torch import load_file
from training_runs import (
    best_of,
    command,
    curve,
    events_of,
    finish,
    samples,
    tiny_run,
    wait_for,
)

from stereo.commands import cli
from stereo.data.io.disparities import read_disparity, write_disparity
from stereo.errors import FolderInUseError, InputError, StereoError
from stereo.models import AttentionConfig, NetworkConfig
from stereo.models.checkpoint import load_checkpoint
from stereo.models.fast import FastFeatures
from stereo.system.locks import locked
from stereo.training import data, interrupt, loop
from stereo.training.config import LossConfig, OptimizerConfig, TrainerConfig
from stereo.training.learner import Learner
from stereo.training.log import RunLog
from stereo.training.loop import train
from stereo.training.prepare import prepare
from stereo.training.recipe import Recipe
from stereo.training.saver import Saver
from stereo.training.schedule import learning_rate
from stereo.training.state import best_path, last_path
from stereo.training.validation import validate

pytest_plugins = ["training_runs"]


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (0.0, "has ground truth"),  # 0 is none in a manifest
        (-5.0, " to -5 px) are 100 % negative"),
        (500.0, "100 % at 32 px or beyond; correct the scale"),
        (np.inf, "has ground truth"),
    ],
)
def test_training_without_truth_stops_with_a_reason_and_leaves_nothing(
    tiny, scripted, tmp_path, truth, words
):
    run, out = tiny_run(tiny(truth), max_steps=30), tmp_path / "run"
    scripted(9.0)
    with pytest.raises(InputError, match="no pixel of the first 10 steps") as error:
        train(run, out)
    assert words in str(error.value)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("weights", [None, "some"])
def test_training_without_truth_leaves_nothing_however_often_it_saves(
    tiny, scripted, tmp_path, weights
):
    run = tiny_run(tiny(32.0), max_steps=12, validate_every=1, checkpoint_every=1)
    run, out = dataclasses.replace(run, facts={"weights": weights}), tmp_path / "run"
    for _ in range(2):  # again it does no better
        scripted(*[9.0] * 20)
        with pytest.raises(InputError, match=r"100 % at 32 px or beyond; .*max_disparity 48"):
            train(run, out)
        assert list(out.iterdir()) == []


def test_a_run_without_truth_cannot_be_resumed(tiny, scripted, tmp_path):
    scripted(9.0, 8.0)
    train(tiny_run(tiny(), max_steps=2), tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")}
    scripted(*[9.0] * 20)
    with pytest.raises(InputError, match="no pixel of the next 3 steps counts"):
        train(tiny_run(tiny(40.0, "beyond"), max_steps=5, checkpoint_every=1), tmp_path / "run")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*")} == before


def test_one_usable_pair_among_many_is_enough(tiny, scripted, tmp_path):
    root = tiny(500.0)
    run = tiny_run(root, max_steps=2)
    last = run.training_set.source.files[1].name
    np.save(root / f"{last}.npy", np.full((32, 64), 5, np.float32))
    scripted(9.0, 8.0)
    assert train(run, tmp_path / "run") == 2


def test_what_is_not_positive_trains_only_if_it_counts(tiny, scripted, tmp_path):
    scripted(9.0, 8.0)
    run = dataclasses.replace(tiny_run(tiny(-5.0), max_steps=1), loss=LossConfig(zero_counts=True))
    train(run, tmp_path / "run")
    assert curve(tmp_path / "run", "train/loss")[1][0] > 0


@pytest.mark.parametrize("reach, counts", [(32, False), (256, True)])
def test_validation_counts_the_same_pixels_as_training(tiny, tmp_path, reach, counts):
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


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [(signal.SIGTERM, 143, "stereo: terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_stops_training_like_other_commands(
    tiny, tmp_path, monkeypatch, capsys, number, status, words
):
    run, out = tiny_run(tiny(), max_steps=9, validate_every=1), tmp_path / "run"

    def validate(*_, **__):
        if last_path(out, 1).exists():  # in the loop
            signal.raise_signal(number)
            signal.raise_signal(number)  # torchrun and a queue may both pass it on
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


def test_a_second_signal_ends_training_at_once_if_it_comes_later(monkeypatch):
    with interrupt.StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        monkeypatch.setattr(interrupt, "AGAIN", -1.0)
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("truth", [0.0, -5.0, 500.0])
def test_validation_without_truth_stops_before_the_first_step(tiny, tmp_path, truth):
    run = dataclasses.replace(
        tiny_run(tiny()), validation_set=tiny_run(tiny(truth, "other")).validation_set
    )
    with pytest.raises(InputError, match="no pixel of the validation pairs"):
        train(run, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_validation_pairs_that_cannot_be_read_are_not_blamed_on_their_truth(tiny, tmp_path):
    run = dataclasses.replace(tiny_run(tiny()), skip_damaged=True)
    for pair in run.validation_set:
        pair.left.write_bytes(pair.left.read_bytes()[:40])
    with pytest.raises(InputError, match="none of the validation pairs could be read"):
        train(run, tmp_path / "run")


def test_a_network_that_is_not_finite_is_no_damaged_pair(tiny, tmp_path):
    run = dataclasses.replace(tiny_run(tiny()), skip_damaged=True)
    for parameter in run.network.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(StereoError, match="values that are not finite"):
        train(run, tmp_path / "run")


def test_a_second_run_in_a_folder_leaves_the_first_ones_curves(tiny, tmp_path):
    events = tmp_path / "run" / "tensorboard" / "events.out.tfevents.1"
    events.parent.mkdir(parents=True)
    events.touch()
    with locked(tmp_path / "run"), pytest.raises(FolderInUseError):
        train(tiny_run(tiny()), tmp_path / "run")
    assert events.exists()


def test_a_batch_that_cannot_be_stacked_says_why(monkeypatch):
    def fails(_):
        raise RuntimeError("unable to allocate shared memory")

    monkeypatch.setattr(data, "default_collate", fails)
    items = [{"left": torch.zeros(3, 4, 8)}, {"left": torch.zeros(3, 4, 8)}]
    with pytest.raises(RuntimeError, match="shared memory"):
        data.collate(items)
    assert "differ in size" in str(data.collate([*items, {"left": torch.zeros(3, 4, 9)}]))


def test_a_loss_that_is_not_finite_keeps_the_last_scalars(tiny, scripted, monkeypatch, tmp_path):
    run, out = tiny_run(tiny(), validate_every=100, checkpoint_every=100), tmp_path / "run"
    scripted(9.0)
    losses = iter([1.0, 1.0, float("nan")])
    monkeypatch.setattr(
        loop, "loss_sum", lambda outputs, *_: outputs.disparities[0].mean() * 0 + next(losses)
    )
    with pytest.raises(StereoError, match="step 3 is not finite"):
        train(run, out)
    assert curve(out, "train/loss")[0] == [1, 2]


def test_fp16_that_takes_no_step_at_all_stops(tiny, scripted, monkeypatch, tmp_path):
    skips = iter([True] * 5 + [False] + [True] * 40)
    monkeypatch.setattr(AcceleratedOptimizer, "step_was_skipped", property(lambda _: next(skips)))
    scripted(9.0)
    run = tiny_run(tiny(), max_steps=50, validate_every=100, checkpoint_every=100)
    with pytest.raises(StereoError, match="30 steps in a row, to step 36, were not finite"):
        train(run, tmp_path / "run")


def test_every_step_follows_the_settings_of_the_optimizer(tiny, scripted, monkeypatch, tmp_path):
    settings = OptimizerConfig(
        betas=(0.8, 0.9), weight_decay=0.02, schedule="steps", milestones=(0.5,), clip_norm=1e-3
    )
    groups, norms, end_step = [], [], Learner.end_step

    def watched(learner):
        groups.extend(dict(group) for group in learner.optimizer.param_groups)
        gradients = [p.grad for p in learner.network.parameters() if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
        end_step(learner)

    monkeypatch.setattr(Learner, "end_step", watched)
    scripted(9.0, 8.0)
    run = dataclasses.replace(tiny_run(tiny(), max_steps=2), optimizer=settings)
    train(run, tmp_path / "run")
    assert [group["lr"] for group in groups] == [learning_rate(n, 2, settings) for n in (0, 1)]
    assert groups[0]["lr"] != groups[1]["lr"]
    assert {(group["betas"], group["weight_decay"]) for group in groups} == {((0.8, 0.9), 0.02)}
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-4)


def test_weight_decay_is_apart_from_the_gradient(tiny):
    settings = OptimizerConfig(learning_rate=0.1, weight_decay=0.5)
    learner = Learner(dataclasses.replace(tiny_run(tiny()), optimizer=settings))
    weights = list(learner.network.parameters())
    expected = [(1 - 0.1 * 0.5) * weight.detach() for weight in weights]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    learner.begin_step()
    learner.end_step()
    assert all(torch.allclose(*each) for each in zip(weights, expected, strict=True))


def test_the_average_is_what_is_validated_and_shipped(tiny, tmp_path):
    run = tiny_run(tiny(), ema_decay=0.9)
    learner = Learner(run)
    average = {name: tensor.clone() for name, tensor in learner.average.weights().items()}
    for parameter in learner.network.parameters():
        parameter.data.fill_(float("nan"))
    summary, _ = validate(run, learner, run.validation_set)
    learner.epe = summary["epe_image"]
    Saver(tmp_path, run, learner).keep_best()
    shipped = load_checkpoint(best_path(tmp_path)).weights
    assert shipped.keys() == average.keys()
    assert all(torch.equal(shipped[name], average[name]) for name in average)


def test_a_resumed_run_is_read_and_reported_without_noise(tiny, scripted, tmp_path, capfd):
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
    assert "validation EPE 5.000 px at step 2" in captured.out
    assert curve(out, "validation/epe_image") == ([0, 2, 4], [9, 5, 4.5])


def test_tensorboard_shows_images_recipe_data_and_machine(tiny, tmp_path):
    out = tmp_path / "run"
    train(tiny_run(tiny(), max_steps=1), out)
    events = events_of(out)
    assert events.Tags()["images"] == ["validation/0: left, map, truth, error"]
    (text,) = events.Tensors("run/text_summary")[0].tensor_proto.string_val
    for words in ("trained on 2 pairs of manifest", '"max_steps": 1', '"threads":'):
        assert words in text.decode()


def test_speed_is_in_pairs_and_waiting_a_share_of_the_time(monkeypatch, tmp_path, capsys):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    log = RunLog(tmp_path, TrainerConfig(batch_size=4, log_every=2), active=True)
    for step in (1, 2):
        with log.waiting_for_data():
            clock[0] += 1
        clock[0] += 3
        log.step(SimpleNamespace(step=step, epe=None), loss=1.0, rate=1.0, norm=1.0)
    log.close()
    assert "1.00 pairs/s  waiting for data 25.0 %" in capsys.readouterr().out


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
    options += ("--trainer.workers", 0)
    for processes in (1, 2):
        output = finish(command(tmp_path / str(processes), *options, processes=processes))
        assert "Grad strides" not in output  # DistributedDataParallel's warning
    one, two = (load_file(tmp_path / n / "last-00000003.safetensors") for n in ("1", "2"))
    assert_close_but_for_rounding(one, two)
    # One pair to validate on: the second process gathers no score of its own.
    best = [best_of(tmp_path / n)[1] for n in ("1", "2")]
    assert best[1] == pytest.approx(best[0], rel=1e-3)


def test_a_frozen_performer_keeps_its_projection():
    attention = AttentionConfig("performer", options={"redraw_every": 1})
    config = NetworkConfig("ea_psmnet", 32, attention=attention)
    for freeze in ((), ("aggregation",)):
        trainer = TrainerConfig(freeze=freeze, device="cpu", precision="fp32")
        learner = Learner(prepare(Recipe(network=config, trainer=trainer)))
        before = {name: tensor.clone() for name, tensor in learner.network.named_buffers()}
        learner.step = 1
        learner.begin_step()
        after = dict(learner.network.named_buffers())
        kept = all(torch.equal(before[name], after[name]) for name in before)
        assert kept == bool(freeze)


def test_accumulation_equals_one_large_batch_with_batch_norm_frozen(here, tmp_path):
    data = shutil.copytree(samples(), tmp_path / "data")
    path = min(data.glob("FlyingThings3D/disparity/TEST/*/*/left/*.pfm"))
    truth = read_disparity(path)
    truth[:, ::2] = np.inf  # the pixels of both count alike, not the pairs
    write_disparity(path, truth)
    for turns in (1, 2):
        options = ("--trainer.max_steps", 2, "--trainer.accumulation", turns, "--data.root", data)
        here(tmp_path / str(turns), *options, "--trainer.freeze_batch_norm", "true")
    one, two = (load_file(tmp_path / n / "last-00000002.safetensors") for n in ("1", "2"))
    assert_close_but_for_rounding(one, two)


def test_frozen_parts_keep_weights_and_statistics(here, tmp_path):
    here(
        tmp_path,
        "--trainer.max_steps",
        2,
        "--trainer.checkpoint_every",
        1,
        "--trainer.freeze",
        "[features]",
    )
    one, two = (load_file(tmp_path / f"last-0000000{n}.safetensors") for n in (1, 2))
    changed = {
        n.split(".")[2]
        for n in one
        if n.startswith("state.network") and not torch.equal(one[n], two[n])
    }
    assert changed == {"aggregation", "guide", "refinement"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("[backbone]", "known: aggregation, features, guide, refinement"),
        ("[features,aggregation,guide,refinement]", "leave one out"),
    ],
)
def test_parts_that_cannot_be_frozen_are_one_line(here, tmp_path, parts, message):
    assert message in here(tmp_path / "run", "--trainer.freeze", parts, status=2)
    assert not (tmp_path / "run").exists()


# 143 and 130 as of every other command: a cluster tells its own SIGTERM from a failure by them.
@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
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


@pytest.mark.parametrize(
    "pause, seconds, stops_at",
    [
        (0, 250, 19),  # before the fourth validation, which would not end in time
        (100, 290, 9),
        (0, 150, 4),  # a match of one pair tells before the first one how long it takes
    ],
)
def test_the_time_left_fits_steps_and_validations_each(
    tiny, scripted, tmp_path, monkeypatch, pause, seconds, stops_at
):
    """A step takes 1 s, every fifth is validated in 30 s, and the third is paused."""
    clock = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    scripted(*[9.0] * 20)
    step, validate = loop._step, loop.validate

    def stepped(run, learner, *rest):
        step(run, learner, *rest)
        clock[0] += 1 + pause * (learner.step == 3)

    def validated(*pairs, **options):
        clock[0] += 30
        return validate(*pairs, **options)

    monkeypatch.setattr(loop, "_step", stepped)
    monkeypatch.setattr(loop, "validate", validated)
    run = tiny_run(tiny(), max_steps=100, validate_every=5)
    assert train(run, tmp_path / "run", max_seconds=seconds) == stops_at


def test_a_run_that_ends_before_its_first_validation_has_best_weights(tiny, tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(clock)))
    run = tiny_run(tiny(), max_steps=1000, validate_every=1000)
    step = train(run, tmp_path / "run", max_seconds=60)
    assert 1 < step < 60
    best = load_checkpoint(tmp_path / "run" / "best.safetensors").training
    assert best["validation_step"] == step
    assert load_checkpoint(last_path(tmp_path / "run", step)).training == best


def test_a_damaged_pair_is_named_and_optionally_skipped_and_counted(here, tmp_path):
    shutil.copytree(samples(), tmp_path / "data")
    (damaged,) = (tmp_path / "data").glob("*/frames_finalpass/TEST/A/0001/right/*.png")
    damaged.write_bytes(damaged.read_bytes()[:1000])
    options = ("--data.root", tmp_path / "data", "--trainer.max_steps", 3)
    output = here(tmp_path / "run", *options, status=1)
    assert str(damaged) in output
    output = here(tmp_path / "run", *options, "--data.skip_damaged", "true")
    assert f"warning: skipped: {damaged}" in output
    assert (
        "damaged pairs were drawn 3 times and skipped;" in output
    )  # three steps of two: the one of two, each time


def test_written_checkpoints_can_match_and_be_fine_tuned(here, stereo, tmp_path):
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


@pytest.mark.slow
def test_a_pair_damaged_for_one_process_is_named_once_and_the_run_saved(tmp_path):
    shutil.copytree(samples(), tmp_path / "data")
    (damaged,) = (tmp_path / "data").glob("*/frames_finalpass/TEST/A/0001/right/*.png")
    damaged.write_bytes(b"")
    options = ("--data.root", tmp_path / "data", "--data.validation.root", samples())
    options += ("--data.validation.split", "test")
    output = finish(
        command(tmp_path / "run", *options, "--trainer.max_steps", 9, processes=2), status=1
    )
    assert output.count(f"stereo train: error: {damaged}") == 1
    assert "gloo" not in output
    assert list((tmp_path / "run").glob("last-*.safetensors"))


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


def test_the_backward_pass_is_not_under_autocast(here, tmp_path, monkeypatch):
    seen = set()
    loss_sum = loop.loss_sum

    def watched(*args):
        error = loss_sum(*args)
        error.register_hook(lambda _: seen.add(torch.is_autocast_enabled("cpu")))
        return error

    monkeypatch.setattr(loop, "loss_sum", watched)
    here(tmp_path / "run", "--trainer.max_steps", 1, "--trainer.precision", "bf16")
    assert seen == {False}


def test_a_second_run_in_one_process_has_its_own_device(here, tmp_path):
    here(tmp_path / "first", "--trainer.max_steps", 1)
    PartialState._shared_state["device"] = torch.device("cuda", 0)  # as a run on a GPU leaves it
    here(tmp_path / "second", "--trainer.max_steps", 1, "--trainer.device", "cpu:0")
    assert list((tmp_path / "second").glob("last-*.safetensors"))


@pytest.mark.slow
def test_two_processes_validate_the_network_that_is_saved(stereo, tmp_path):
    """Each process has running statistics of its own pairs; those of the first are saved."""
    options = ("--data.validation.root", samples(), "--data.validation.split", "test")
    options += ("--data.validation.limit", 3, "--trainer.max_steps", 6)
    finish(command(tmp_path / "run", *options, "--trainer.workers", 1, processes=2))
    data = ("--dataset", "sceneflow", "--root", samples(), "--precision", "fp32")
    model = ("--model", tmp_path / "run/best.safetensors", "--output", tmp_path / "figures")
    assert stereo("evaluate", *data, *model).status == 0
    figures = json.loads((tmp_path / "figures/metrics.json").read_text())["summary"]
    assert best_of(tmp_path / "run") == (6, pytest.approx(figures["epe_image"], abs=1e-5))
