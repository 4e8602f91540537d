"""A run's checkpoints: exact resume, kills, the best weights, a full disk."""

import dataclasses
import json
import random
import shutil
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from conftest import posix_only
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from training_runs import Killed, best_of, command, finish, samples, tiny_run, wait_for

from stereo.data.io.disparities import write_disparity
from stereo.data.sets.datasets import open_dataset
from stereo.data.sets.fingerprints import fingerprints, fingerprints_of, unpacked
from stereo.data.sets.sample import SampleFiles
from stereo.errors import InputError, OutputError, UsageError
from stereo.models import NetworkConfig, build_network
from stereo.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stereo.training import saver
from stereo.training.config import OptimizerConfig
from stereo.training.learner import Learner
from stereo.training.loop import train
from stereo.training.prepare import prepare
from stereo.training.recipe import DataConfig, Recipe, ValidationConfig
from stereo.training.state import (
    RunState,
    checkpoints_of,
    find_resume,
    last_path,
    load_run,
    random_state,
    remove_old,
    save_run,
    set_aside_later,
)

pytest_plugins = ["training_runs"]


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
    options = ("--trainer.max_steps", 28, "--trainer.checkpoint_every", 8)
    options += ("--trainer.workers", 2 // processes)
    whole = command(tmp_path / "whole", *options, processes=processes)
    finish(whole)
    killed = command(tmp_path / "killed", *options, processes=processes)
    wait_for(tmp_path / "killed" / "last-00000008.safetensors", killed)
    launcher = psutil.Process(killed.pid)
    for process in [*launcher.children(recursive=True), launcher]:
        process.kill()
    killed.communicate()
    assert not (tmp_path / "killed" / "last-00000028.safetensors").exists()
    assert "resumed from step 8" in finish(
        command(tmp_path / "killed", *options, processes=processes)
    )
    last = "last-00000028.safetensors"
    assert_same(tmp_path / "whole" / last, tmp_path / "killed" / last)


def test_a_kill_after_validation_keeps_the_best(tiny, scripted, monkeypatch, tmp_path):
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


def test_a_kill_in_the_last_validation_keeps_the_best(tiny, scripted, tmp_path):
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
    root = tiny()
    run, out = tiny_run(root, max_steps=2, validate_every=1), tmp_path / "run"
    scripted(9.0, 5.0, 7.0)
    train(run, out)
    (out / "best.safetensors").write_bytes(b"damaged")
    scripted(8.0)
    train(tiny_run(root, max_steps=3, validate_every=1), out)
    assert "the next validation replaces it" in capsys.readouterr().err
    assert best_of(out) == (3, 8.0)


def test_the_best_of_other_validation_pairs_is_set_aside(tiny, scripted, tmp_path, capsys):
    root = tiny()
    run = tiny_run(root, max_steps=2, validate_every=1)
    scripted(9.0, 5.0, 7.0)
    train(dataclasses.replace(run, facts={"validation_sha256": "one"}), tmp_path)
    assert best_of(tmp_path) == (1, 5.0)
    run = tiny_run(root, max_steps=3, validate_every=1)
    scripted(6.0)
    train(dataclasses.replace(run, facts={"validation_sha256": "other"}), tmp_path)
    assert "best.safetensors was chosen on other validation pairs" in capsys.readouterr().err
    assert best_of(tmp_path) == (3, 6.0)
    assert load_checkpoint(tmp_path / "aside-best.safetensors").training["step"] == 1


def test_the_best_of_another_run_is_set_aside(tiny, scripted, tmp_path, capsys):
    root = tiny()
    scripted(9.0, 3.0, 9.0, 5.0, 4.0)
    for name in ("other", "run"):
        train(tiny_run(root, max_steps=1), tmp_path / name)
    resumed = last_path(tmp_path / "run", 1)
    train(tiny_run(root, max_steps=2), tmp_path / "other", resume=str(resumed))
    told = capsys.readouterr().err
    for name in ("best", "last-00000001"):
        assert f"{name}.safetensors is of another run than {resumed}" in told
        assert (tmp_path / "other" / f"aside-{name}.safetensors").exists()
    assert best_of(tmp_path / "other") == (2, 4.0)
    train(
        tiny_run(root, max_steps=2),
        tmp_path / "other",
        resume=str(last_path(tmp_path / "other", 2)),
    )
    assert best_of(tmp_path / "other") == (2, 4.0)


def test_the_best_beyond_the_step_resumed_from_is_set_aside(tiny, scripted, tmp_path, capsys):
    root = tiny()
    scripted(9.0, 8.0, 7.0)
    train(tiny_run(root, max_steps=2, validate_every=1), tmp_path)
    scripted(7.6, 7.5)  # the first one at step 1, whose state is of before its validation
    run = tiny_run(root, max_steps=2, validate_every=1)
    train(run, tmp_path, resume=str(last_path(tmp_path, 1)))
    assert "best.safetensors is beyond step 1" in capsys.readouterr().err
    assert best_of(tmp_path) == (2, 7.5)


def test_validation_pairs_are_told_apart_by_a_hash(tmp_path):
    def digest(samples, **validation):
        data = DataConfig("sceneflow", str(samples), split="test")
        data = dataclasses.replace(data, validation=ValidationConfig(**validation))
        return prepare(Recipe(data=data)).facts["validation_sha256"]

    copy = shutil.copytree(samples(), tmp_path / "copy")
    assert digest(samples()) == digest(copy)
    assert digest(samples()) != digest(samples(), share=0.5)
    pair = prepare(Recipe(data=DataConfig("sceneflow", str(copy), split="test"))).validation_set[0]
    pair.left.write_bytes(pair.left.read_bytes() + bytes(9))
    assert digest(samples()) != digest(copy)


def test_a_resumed_run_keeps_what_it_started_from(tiny, scripted, tmp_path, capsys):
    root = tiny()

    def given(name, steps):
        facts = {"weights": name, "weights_sha256": f"hash of {name}"}
        return dataclasses.replace(tiny_run(root, max_steps=steps), facts=facts)

    scripted(9.0, 8.0)
    train(given("one.safetensors", 1), tmp_path)
    assert "not used" not in capsys.readouterr().err
    scripted(7.0)
    train(given("other.safetensors", 2), tmp_path)
    assert "--weights other.safetensors is not used" in capsys.readouterr().err
    training = load_checkpoint(last_path(tmp_path, 2)).training
    assert (training["weights"], training["precision"]) == ("one.safetensors", "fp32")


def test_fewer_steps_than_are_done_are_refused(tiny, scripted, tmp_path):
    root = tiny()
    scripted(9.0, 8.0)
    train(tiny_run(root, max_steps=3), tmp_path / "run")
    with pytest.raises(UsageError, match=r"step 3, beyond --trainer\.max_steps 2; raise"):
        train(tiny_run(root, max_steps=2), tmp_path / "run")


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before_bit_for_bit(here, tmp_path):
    options = ("--trainer.max_steps", 4, "--trainer.checkpoint_every", 2)
    here(tmp_path / "run", *options)
    last = tmp_path / "run" / "last-00000004.safetensors"
    whole = shutil.copy(last, tmp_path)
    last.write_bytes(last.read_bytes()[:-100])
    output = here(tmp_path / "run", *options)
    assert "resumed from step 2" in output
    assert load_checkpoint(last).training["step"] == 4
    assert_same(whole, last)


@pytest.mark.slow
@posix_only
def test_a_full_disk_leaves_the_checkpoint_before_it(here, tmp_path):
    options = ("--trainer.max_steps", 4, "--trainer.checkpoint_every", 2)
    here(tmp_path, "--trainer.max_steps", 2)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.safetensors")}
    assert set(before) == {"last-00000002.safetensors", "best.safetensors"}
    alone = ("--trainer.workers", 0)
    output = finish(command(tmp_path, *options, *alone, largest_file=2**20), status=1)
    assert "Traceback" not in output
    assert "stereo train: error: cannot write" in output
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.safetensors")} == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert "resumed from step 2" in here(tmp_path, *options)


def test_a_full_disk_is_refused_before_the_first_step(here, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=8 * 2**20))
    output = here(tmp_path / "run", "--trainer.max_steps", 2, status=1)
    assert "8 MiB free, the run's checkpoints need" in output
    assert not list((tmp_path / "run").glob("last-*"))


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


def test_checkpoints_of_an_abandoned_run_are_set_aside(tmp_path):
    for step in (2, 4):
        last_path(tmp_path, step).write_bytes(b"")
    set_aside_later(tmp_path, 2)
    last_path(tmp_path, 4).write_bytes(b"of another run")
    set_aside_later(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "aside-2-last-00000004.safetensors",
        "aside-last-00000004.safetensors",
        "last-00000002.safetensors",
    ]
    assert (tmp_path / "aside-last-00000004.safetensors").read_bytes() == b""


def test_resuming_with_other_settings_is_reported(here, tmp_path):
    here(tmp_path, "--trainer.max_steps", 1)
    output = here(tmp_path, "--trainer.max_steps", 2, "--optimizer.learning_rate", 5e-4)
    assert "warning: the run resumes with changed settings:" in output
    assert "optimizer.learning_rate: 0.001 -> 0.0005" in output
    assert "trainer.max_steps: 1 -> 2" in output


def test_resuming_from_what_is_no_choice_lists_the_choices(tiny, tmp_path):
    with pytest.raises(InputError, match="always: no such file; --resume takes auto, never or a"):
        train(tiny_run(tiny()), tmp_path / "run", resume="always")


def test_resuming_with_another_number_of_processes_is_reported(tiny, scripted, tmp_path, capsys):
    root = tiny()
    scripted(*[9.0] * 9)
    train(tiny_run(root, max_steps=1), tmp_path / "run")
    checkpoint, state = load_run(last_path(tmp_path / "run", 1))
    save_run(
        last_path(tmp_path / "run", 1),
        checkpoint,
        dataclasses.replace(state, random=state.random * 2),
    )
    train(tiny_run(root, max_steps=2), tmp_path / "run")
    assert "another number of processes: 2 -> 1" in capsys.readouterr().err


def test_weights_of_another_network_are_named(tiny, tmp_path):
    config = NetworkConfig("psmnet_basic", 32)
    weights = tmp_path / "basic.safetensors"
    save_checkpoint(weights, Checkpoint(config, build_network(config).state_dict()))
    recipe = Recipe(
        network=NetworkConfig("ea_stereo_fast", 32), data=DataConfig("manifest", str(tiny()))
    )
    with pytest.raises(InputError, match=r"holds a network .psmnet_basic., --network.name is"):
        prepare(recipe, weights=str(weights))


def test_resuming_on_other_pairs_is_reported(tiny, scripted, tmp_path, capsys):
    one, other = tiny(), tiny(name="other")
    scripted(*[9.0] * 9)
    train(tiny_run(one, max_steps=1), tmp_path / "run")
    train(tiny_run(one, max_steps=2), tmp_path / "run")
    assert "training pairs" not in capsys.readouterr().err
    train(tiny_run(other, max_steps=3), tmp_path / "run")
    assert "the run resumes with a different set of training pairs" in capsys.readouterr().err
    seen = load_checkpoint(last_path(tmp_path / "run", 3)).trained_on
    assert seen == fingerprints(
        pair for root in (one, other) for pair in open_dataset("manifest", root).samples[:2]
    )


def test_pairs_are_known_by_other_names_and_by_their_truth_alone(tiny, tmp_path):
    first, *_ = open_dataset("manifest", tiny()).samples
    copy = shutil.copytree(first.left.parent, tmp_path / "copy")
    again = copy / first.left.name
    renamed = again.rename(copy / "view.png")
    other = dataclasses.replace(first, name="other", left=renamed, disparity=None)
    assert fingerprints([other]) < fingerprints([first])
    renamed.write_bytes(b"another pass of the scene")
    other = dataclasses.replace(other, disparity=copy / first.disparity.name)
    assert len(fingerprints([other]) & fingerprints([first])) == 1


def test_evaluation_knows_the_pairs_that_were_trained_on(tiny, scripted, tmp_path, stereo):
    root = tiny()
    scripted(*[9.0] * 9)
    train(tiny_run(root, max_steps=1), tmp_path / "run")
    weights = last_path(tmp_path / "run", 1)
    copy = shutil.copytree(root, tmp_path / "copy")
    call = ("evaluate", "--dataset", "manifest", "--model", weights, "--output", tmp_path / "out")
    result = stereo(*call, "--root", copy)
    (line,) = [line for line in result.errors if "trained on" in line]
    assert line.startswith("warning: run-last-00000001 was trained on 2 of these 3 pairs")
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["protocol"]["trained_on"] == 2
    result = stereo(*call, "--root", copy, "--unseen")
    assert not [line for line in result.errors if "trained on" in line]
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert [image["name"] for image in metrics["images"]] == ["2"]
    assert metrics["protocol"]["trained_on"] == 0
    (copy / "2.npy").unlink()
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest[:2]))
    result = stereo(*call, "--root", copy, "--unseen")
    assert result.status == 2
    assert "all of these pairs were trained on" in result.errors[-1]


def test_fine_tuned_weights_know_the_pairs_of_those_they_began_with(tiny, scripted, tmp_path):
    one, other = tiny(), tiny(name="other")
    scripted(*[9.0] * 9)
    train(tiny_run(one, max_steps=1), tmp_path / "run")
    first = last_path(tmp_path / "run", 1)
    recipe = Recipe(NetworkConfig("ea_stereo_fast", 32), DataConfig("manifest", str(other)))
    tuned = unpacked(prepare(recipe, weights=str(first)).facts["trained_on"])
    assert tuned > load_checkpoint(first).trained_on
    assert len(tuned) == 8  # four images and their maps


def test_fingerprints_stay_those_that_earlier_checkpoints_hold(tmp_path):
    (tmp_path / "it").write_bytes(bytes(range(256)) * 40)
    assert fingerprints_of([tmp_path / "it"]) == {"cef7810f820d"}  # of seven parts of 512 bytes


@pytest.mark.parametrize("suffix", [".pfm", ".npy"])
def test_maps_of_one_rig_are_told_apart_by_more_than_their_borders(tmp_path, rng, suffix):
    pairs = []
    for number in range(3):  # rows that begin and end without ground truth
        disparity = rng.uniform(5, 50, (240, 384)).astype(np.float32)
        disparity[:, :140] = disparity[:, -32:] = np.inf
        write_disparity(tmp_path / f"{number}{suffix}", disparity)
        left = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (240, 384), np.uint8)).save(left)
        pairs.append(SampleFiles(str(number), left, left, tmp_path / f"{number}{suffix}"))
    assert not fingerprints(pairs[:1]) & fingerprints(pairs[1:])
    assert len(fingerprints(pairs)) == 3


def test_a_resumed_run_takes_other_settings_of_the_optimizer(tiny, scripted, tmp_path):
    root = tiny()
    scripted(*[9.0] * 3)
    train(tiny_run(root, max_steps=1), tmp_path)
    settings = OptimizerConfig(weight_decay=0.1, betas=(0.8, 0.9))
    run = dataclasses.replace(tiny_run(root, max_steps=2), optimizer=settings)
    train(run, tmp_path)
    optimizer = find_resume(tmp_path, "auto")[2].optimizer
    assert [group["weight_decay"] for group in optimizer["param_groups"]] == [0.1]
    assert [list(group["betas"]) for group in optimizer["param_groups"]] == [[0.8, 0.9]]


def test_a_resumed_run_draws_what_it_would_have_drawn(tiny, scripted, tmp_path):
    root = tiny()
    scripted(9.0, 8.0)
    train(tiny_run(root, max_steps=1), tmp_path)
    run = tiny_run(root, max_steps=2)
    learner = Learner(run)
    torch.rand(1)
    random.random()
    np.random.rand()  # noqa: NPY002
    saver.Saver(tmp_path, run, learner).resume("auto")
    assert [random_state(learner.device)] == find_resume(tmp_path, "auto")[2].random


def test_a_resumed_run_has_its_average_beside_its_weights(tiny, tmp_path):
    root = tiny()
    run = tiny_run(root, ema_decay=0.9)
    learner = Learner(run)
    for weight in learner.network.parameters():
        weight.data.add_(1)  # which the average has not seen
    saver.Saver(tmp_path, run, learner).save()
    run = tiny_run(root, ema_decay=0.9)
    resumed = Learner(run)
    saver.Saver(tmp_path, run, resumed).resume("auto")
    for of in (lambda each: each.network.state_dict(), lambda each: each.average.weights()):
        before, after = of(learner), of(resumed)
        assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_room_asked_for_is_that_of_the_checkpoints(tiny, monkeypatch, tmp_path):
    run = tiny_run(tiny(), keep_last=1)  # beside the best one, and the one being written
    learner = Learner(run)
    for weight in learner.network.parameters():
        weight.grad = torch.zeros_like(weight)
    learner.begin_step()
    learner.end_step()  # now there are moments
    own = saver.Saver(tmp_path, run, learner)
    own.save()
    size = last_path(tmp_path, 1).stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3.3 * size))
    own.check_disk()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2.7 * size))
    with pytest.raises(OutputError, match="free space or name another"):
        own.check_disk()


def test_processes_that_see_different_checkpoints_stop(here, tmp_path, monkeypatch):
    """Machines without a common folder: only the first one writes checkpoints."""
    here(tmp_path, "--trainer.max_steps", 1)
    monkeypatch.setattr(saver, "gather_object", lambda own: [*own, "none"])
    output = here(tmp_path, "--trainer.max_steps", 2, status=2)
    assert "see different checkpoints (step 1 and none)" in output


def test_a_finished_run_says_so(here, tmp_path):
    here(tmp_path, "--trainer.max_steps", 2)
    assert "nothing to do" in here(tmp_path, "--trainer.max_steps", 2)


def test_fine_tuning_keeps_the_initial_weights_until_others_are_better(
    tiny, scripted, tmp_path, capsys
):
    run = dataclasses.replace(tiny_run(tiny(), validate_every=2), facts={"weights": "some"})
    scripted(3.0, 4.0, 5.0)
    train(run, tmp_path / "run")
    assert best_of(tmp_path / "run") == (0, 3.0)
    assert "best validation EPE 3.000 px" in capsys.readouterr().out


def test_the_best_weights_of_another_run_are_not_taken_over(tiny, scripted, tmp_path):
    root = tiny()
    scripted(*[9.0] * 4)
    train(tiny_run(root, max_steps=1), tmp_path)
    for path in checkpoints_of(tmp_path):
        path.unlink()
    for resume in ("auto", "never"):
        with pytest.raises(UsageError, match="best weights of an earlier run"):
            train(tiny_run(root, max_steps=1), tmp_path, resume=resume)


def test_the_first_weights_of_a_run_killed_at_once_are_not_the_best(tiny, scripted, tmp_path):
    root = tiny()

    def given(name):
        return dataclasses.replace(tiny_run(root, max_steps=1), facts={"weights": name})

    scripted(1.0, None)
    with pytest.raises(Killed):
        train(given("one"), tmp_path)
    assert best_of(tmp_path) == (0, 1.0)
    for path in checkpoints_of(tmp_path):
        path.unlink()
    scripted(3.0, 2.0)
    train(given("other"), tmp_path)
    assert best_of(tmp_path) == (1, 2.0)
