"""``stereo adapt``: its gate, its inputs, and scenes in the appearance of a rig."""

import dataclasses
import json
import math
import pickle
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image

from stereo.data.augmentation.training_pair import TrainingPair
from stereo.data.finding.sources import find_sources
from stereo.data.io.disparities import read_disparity, write_disparity
from stereo.data.io.videos import write_video
from stereo.data.sets.fingerprints import fingerprints_of
from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.errors import InputError
from stereo.geometry.check import Findings
from stereo.matching.confidence import ConfidenceMaps
from stereo.matching.loading import load
from stereo.models import NetworkConfig, build_network
from stereo.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stereo.system import heap
from stereo.system.bundled import DEFAULT_MODEL, SGBM, bundled_weights
from stereo.system.locks import locked
from stereo.training import adapt as module
from stereo.training import adapt_judge, adapt_stages
from stereo.training.adapt_data import AdaptPairs
from stereo.training.adapt_state import RunFolder
from stereo.training.appearance import Appearance
from stereo.training.state import last_path

BEFORE = {"photometric": 4.0, "agreement": 0.7, "confidence": 0.8}
AFTER = {"photometric": 3.9, "agreement": 0.75, "confidence": 0.85}


@pytest.fixture(scope="module")
def scenes():
    made = SyntheticScenes(SyntheticConfig(height=96, width=192, max_disparity=48, seed=8))
    few = [made.render(index) for index in range(3)]
    return [few[index % 3] for index in range(10)]


@pytest.fixture
def folders(tmp_path, scenes):
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        for k, scene in enumerate(scenes):
            Image.fromarray(getattr(scene, side)).save(tmp_path / side / f"{k}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("after", "pairs", "better"),
    [
        (AFTER, 5, True),
        (BEFORE, 5, False),
        (AFTER | {"photometric": 4.05}, 5, True),  # two of three, and the third within 2 %
        (AFTER | {"photometric": 4.2}, 5, False),
        (BEFORE | {"agreement": 0.9}, 5, False),  # one of three
        (BEFORE | {"agreement": 0.704, "confidence": 0.806}, 5, True),
        (BEFORE | {"agreement": 0.704, "confidence": 0.806}, 4, False),  # chance
        (BEFORE | {"agreement": 0.703, "confidence": 0.806}, 5, False),
    ],
)
def test_two_measures_must_improve_and_none_may_get_much_worse(after, pairs, better):
    assert adapt_judge.is_better(BEFORE, after, pairs) is better


def test_the_photometric_error_is_least_at_the_true_disparity(rng):
    wide = rng.integers(0, 256, (40, 105, 3), np.uint8)
    maps = [np.full((40, 100), disparity, np.float32) for disparity in (5, 0, -5)]
    errors = [adapt_judge._photometric(wide[:, :-5], wide[:, 5:], each) for each in maps]
    assert errors[0] < 0.3 * min(errors[1:])


def test_what_the_right_view_does_not_show_is_no_photometric_error(rng):
    wide = rng.integers(0, 256, (40, 200, 3), np.uint8)
    disparity = np.full((40, 120), 80, np.float32)  # two thirds match outside
    there = adapt_judge._photometric(wide[:, :120], wide[:, 80:], disparity)
    assert there < 0.3 * adapt_judge._photometric(wide[:, :120], wide[:, 80:], disparity - 5)


def test_the_measures_of_real_matches_prefer_the_range_that_fits(folders):
    sources = find_sources(str(folders / "left"), str(folders / "right"))[:3]
    good, bad = (
        adapt_judge.mean_of(adapt_judge.measure(load(SGBM, max_disparity=most), sources))
        for most in (48, 16)
    )
    assert adapt_judge.is_better(bad, good, 5)
    assert not adapt_judge.is_better(good, bad, 5)


def test_measures_of_nothing_are_compared_all_the_same():
    nothing = dict.fromkeys(BEFORE, 0.0)
    assert adapt_judge.is_better(nothing, nothing, 9) is False


def write_labels(_start, sources, folder, _end):
    folder.mkdir()
    for source in sources:
        write_disparity(folder / f"{source.name}.pfm", np.full((96, 192), 5.0, np.float32))


def one_each(values, sources):
    return values if isinstance(values, list) else [dict(values)] * len(sources)


def end_at_once(_run, folder, **_):
    folder.mkdir()
    shutil.copy(bundled_weights(DEFAULT_MODEL), last_path(folder, 1))


@pytest.fixture
def quick(monkeypatch):
    """Find no faults, end training at once with the initial weights, and measure what is told."""
    copy = bundled_weights(DEFAULT_MODEL)
    monkeypatch.setattr(adapt_judge, "check_pair", lambda *_, **__: Findings())
    monkeypatch.setattr(module, "time_step", lambda _: 1.0)
    monkeypatch.setattr(module, "take_statistics", lambda *to: shutil.copy(copy, to[-1]))
    monkeypatch.setattr(module, "training_run", lambda *_: None)
    monkeypatch.setattr(module, "write_labels", write_labels)
    monkeypatch.setattr(module, "train", end_at_once)

    def prepared(*values):
        told = iter(values)
        monkeypatch.setattr(
            adapt_judge, "measure", lambda _, sources: one_each(next(told), sources)
        )

    return prepared


@pytest.fixture
def adapt(stereo, folders):
    """Call ``stereo adapt`` with the pairs of ``folders``."""

    def call(*options, output=folders / "mine.safetensors"):
        return stereo("adapt", folders / "left", folders / "right", "--output", output, *options)

    return call


def refusal(result, status=1):
    assert result.status == status
    (line,) = result.errors
    return line


def test_better_weights_are_written_with_their_provenance(adapt, folders, quick, monkeypatch):
    quick(BEFORE, BEFORE, AFTER)
    monkeypatch.setattr(adapt_stages, "STATISTICS_PAIRS", 1)
    monkeypatch.setattr(module, "take_statistics", adapt_stages.take_statistics)
    monkeypatch.setattr(module, "training_run", adapt_stages.training_run)
    result = adapt()
    assert (result.status, result.errors) == (0, [])
    assert (
        "better on the pairs held out (2 of 10) after training; so few prove little" in result.out
    )
    found = load_checkpoint(folders / "mine.safetensors")
    about = found.training["adapted"]
    assert (about["before"], about["after"]) == (BEFORE, AFTER)
    assert (about["from"], len(about["pairs"])) == (DEFAULT_MODEL, 10)
    assert (about["stage"], about["held_out"]) == ("trained", ["2", "7"])
    assert about["folders"] == ["left", "right"]
    assert str(folders) not in json.dumps(about)
    own = [path for side in about["folders"] for path in (folders / side).iterdir()]
    assert found.trained_on >= fingerprints_of(own)  # which ``evaluate --unseen`` leaves out
    assert found.confidence is not None
    assert not (folders / "mine.run").exists()


@pytest.fixture
def interrupted(adapt, quick, monkeypatch):
    """Interrupt a call in training."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    quick(BEFORE, BEFORE)
    monkeypatch.setattr(module, "train", interrupt)
    result = adapt()
    assert result.status == 130
    assert "the same command goes on" in result.out


def test_a_damaged_count_of_steps_is_one_line(tmp_path):
    (tmp_path / "steps").write_text("1e")
    with pytest.raises(InputError, match="damaged; remove"):
        RunFolder(tmp_path).steps(100)


@pytest.mark.usefixtures("interrupted")
def test_an_interrupted_call_resumes_from_existing_files(adapt, folders, quick, monkeypatch):
    quick(BEFORE, AFTER)  # not measured before again
    monkeypatch.setattr(module, "train", end_at_once)
    monkeypatch.setattr(module, "write_labels", None)  # nor labelled
    assert adapt().status == 0
    about = load_checkpoint(folders / "mine.safetensors").training["adapted"]
    assert (about["before"], about["after"]) == (BEFORE, AFTER)


@pytest.mark.usefixtures("interrupted")
def test_an_interrupted_call_resumes_with_nothing_changed(adapt, stereo, folders):
    mine = folders / "mine.safetensors"
    assert "an interrupted run with --seed 0;" in refusal(adapt("--seed", "1"))
    assert "an interrupted run with --max-time 600s;" in refusal(adapt("--max-time", "5s"))
    other = folders / "other.safetensors"
    known = load_checkpoint(bundled_weights(DEFAULT_MODEL))
    save_checkpoint(other, dataclasses.replace(known, training={}))
    assert "run with other initial weights;" in refusal(adapt("--weights", other))
    swapped = stereo("adapt", folders / "right", folders / "left", "--output", mine)
    assert "with other pairs" in refusal(swapped)
    shutil.copy(folders / "left" / "1.png", folders / "left" / "3.png")  # of the same name
    assert "or images that have changed" in refusal(adapt())
    notes = folders / "mine.run" / "adapt.json"
    notes.write_text("[]")
    assert "is no record of this version's adapt" in refusal(adapt())


def test_a_read_that_fails_once_loses_nothing(adapt, folders, quick, monkeypatch):
    def fails(*_):
        raise InputError("9.png: Stale file handle")

    quick(BEFORE, BEFORE)
    monkeypatch.setattr(module, "write_labels", fails)
    assert "Stale file handle" in refusal(adapt())
    quick(BEFORE, AFTER)  # the statistics that are there, and the trained weights
    monkeypatch.setattr(module, "write_labels", write_labels)
    assert adapt().status == 0
    assert not (folders / "mine.run").exists()


def test_of_a_film_the_last_fifth_is_held_out(adapt, folders, quick, stereo):
    quick(BEFORE, BEFORE, AFTER)
    mine = folders / "mine.safetensors"
    views = [folders / side / "%d.png" for side in ("left", "right")]
    assert stereo("adapt", *views, "--output", mine).status == 0
    assert load_checkpoint(mine).training["adapted"]["held_out"] == ["8", "9"]


def test_of_many_held_out_pairs_some_are_judged_and_none_is_taught(
    adapt, folders, quick, stereo, monkeypatch
):
    taught = []

    def label(_start, sources, folder, _end):
        taught.extend(source.name for source in sources)
        write_labels(_start, sources, folder, _end)

    quick(BEFORE, BEFORE, AFTER)
    monkeypatch.setattr(module, "write_labels", label)
    monkeypatch.setattr(adapt_judge, "JUDGED", 1)
    mine = folders / "mine.safetensors"
    views = [folders / side / "%d.png" for side in ("left", "right")]
    result = stereo("adapt", *views, "--output", mine)
    assert "better on the pairs held out (2 of 10, 1 of them judged)" in result.out
    about = load_checkpoint(mine).training["adapted"]
    assert [about[key] for key in ("held_out", "judged", "left_out")] == [["8", "9"], ["8"], []]
    assert taught == [str(number) for number in range(8)]


def test_labels_are_spread_over_a_film_and_need_no_video_in_training(
    folders, tmp_path, monkeypatch
):
    videos = []
    for side in ("left", "right"):
        pictures = [folders / side / f"{k}.png" for k in range(10)]
        write_video(tmp_path / f"{side}.avi", [*pictures, *pictures], 25.0, side)
        videos.append(str(tmp_path / f"{side}.avi"))
    frames = find_sources(*videos)
    clock = iter([0.0, 0.0, 0.0, 9.0])
    monkeypatch.setattr(adapt_stages.time, "monotonic", lambda: next(clock))
    labels = tmp_path / "labels"
    adapt_stages.write_labels(bundled_weights(DEFAULT_MODEL), frames, labels, 1.0)
    found = adapt_stages.labelled(frames, labels)
    assert [source.name for source, _ in found] == ["left_000000", "left_000008", "left_000016"]
    for (source, _), frame in zip(pickle.loads(pickle.dumps(found)), frames[::8], strict=True):
        assert np.array_equal(source.read().left, frame.read().left)
        assert np.array_equal(source.read().right, frame.read().right)


def test_labels_are_where_the_maps_are_both_sure_and_consistent(folders, monkeypatch):
    confidence, agreement = np.float32([[0.9, 0.9, 0.7, 0.7]]), np.float32([[-0.5, -2, -0.5, -2]])
    result = SimpleNamespace(
        disparity=np.full((1, 4), 5, np.float32),
        confidence_maps=ConfidenceMaps(confidence, {"left_right": agreement}),
    )
    teacher = SimpleNamespace(both=lambda *_: (result, result))
    monkeypatch.setattr(adapt_stages, "load", lambda _: teacher)
    sources = find_sources(str(folders / "left"), str(folders / "right"))[:1]
    adapt_stages.write_labels(folders / "it", sources, folders / "labels", math.inf)
    assert read_disparity(folders / "labels/0.pfm").tolist() == [[5, math.inf, math.inf, math.inf]]


def test_statistics_are_the_mean_over_pairs(folders):
    config = NetworkConfig("ea_stereo_fast", 32)
    start = folders / "start.safetensors"
    save_checkpoint(start, Checkpoint(config, build_network(config).state_dict()))
    sources = find_sources(str(folders / "left"), str(folders / "right"))[:2]
    found = []
    for chosen in (sources[:1], sources[1:], sources):
        adapt_stages.take_statistics(start, chosen, folders / "found.safetensors")
        found.append(load_checkpoint(folders / "found.safetensors").weights)
    one, two, both = found
    names = [name for name in both if name.endswith("running_mean")]
    assert not torch.allclose(one[names[0]], two[names[0]])
    for name in names:
        torch.testing.assert_close(both[name], (one[name] + two[name]) / 2)


def test_a_folder_of_the_user_stays(adapt, folders, quick, monkeypatch):
    quick(BEFORE, BEFORE, BEFORE)
    kept = folders / "mine.run" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    assert "it holds others (notes.txt); rename it" in refusal(adapt())

    kept.unlink()

    def train(run, folder, **_):
        end_at_once(run, folder)
        kept.write_text("mine")

    monkeypatch.setattr(module, "train", train)
    assert adapt().status == 1
    assert [path.name for path in kept.parent.iterdir()] == ["notes.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_training_keeps_freed_memory(adapt, folders, quick, monkeypatch):
    """Also after the pairs were matched, where large blocks go back."""
    quick(BEFORE, BEFORE, BEFORE)
    held = []

    def train(run, folder, **_):
        held.append(heap._kept["memory"])
        end_at_once(run, folder)

    monkeypatch.setattr(module, "train", train)
    adapt()
    assert held == ["all"]


def test_nothing_is_written_if_held_out_pairs_do_not_improve(adapt, folders, quick):
    quick(BEFORE, BEFORE, BEFORE)
    result = adapt()
    assert result.status == 1
    assert "the pairs held out (2 of 10) are matched no better" in result.errors[-1]
    assert {path.name for path in folders.iterdir()} == {"left", "right"}


def test_views_that_hardly_agree_carry_no_verdict(adapt, folders, quick):
    quick(BEFORE | {"agreement": 0.06}, AFTER, AFTER)
    line = refusal(adapt())
    assert "the views agree on 6.0 % of the pixels held out" in line and "check-pair" in line
    assert {path.name for path in folders.iterdir()} == {"left", "right"}


@pytest.fixture
def found(monkeypatch):
    """Let the checks of pairs find so many faults, then notes, then nothing."""

    def check(fault, faults, unclear=0):
        lines = iter(
            [Findings(faults=[fault])] * faults
            + [Findings(notes=["texture: too little"])] * unclear
        )
        monkeypatch.setattr(adapt_judge, "check_pair", lambda *_, **__: next(lines, Findings()))

    return check


def test_faulty_pairs_are_left_out_and_named(adapt, folders, quick, found):
    quick(BEFORE, BEFORE, AFTER)
    found("vertical: rectify", 3)
    result = adapt()
    assert result.status == 0
    assert [line for line in result.errors if "2 is left out: vertical: rectify" in line]
    about = load_checkpoint(folders / "mine.safetensors").training["adapted"]
    assert (about["left_out"], about["held_out"]) == (["0", "1", "2"], ["5"])


@pytest.mark.parametrize(("faults", "unclear", "judged"), [(4, 0, 10), (3, 6, 8)])
def test_a_third_of_the_pairs_judged_stops(adapt, found, faults, unclear, judged, monkeypatch):
    found("swapped: 100 %", faults, unclear)
    monkeypatch.setattr(adapt_judge, "_misarranged", lambda *_: {})
    told = f"{faults} of {judged} checked pairs cannot be matched; the first, 0: swapped"
    assert told in refusal(adapt())


def test_few_features_are_a_fault_only_if_the_maps_do_not_agree(adapt, folders, quick, found):
    found("unrelated: only 9 features agree", 2)
    quick([BEFORE, BEFORE | {"agreement": 0.04}], [BEFORE] * 4, BEFORE, BEFORE, AFTER)
    assert adapt().status == 0
    about = load_checkpoint(folders / "mine.safetensors").training["adapted"]
    assert about["left_out"] == ["1"]


@pytest.mark.parametrize(
    ("swap", "rows", "told"),
    [(True, 0, "swapped; give them in the other order"), (False, 4, "4 px higher; rectify")],
)
def test_where_features_tell_nothing_the_maps_find_the_arrangement(
    adapt, folders, scenes, found, swap, rows, told, monkeypatch
):
    monkeypatch.setattr(adapt_judge, "ARRANGED", 2)
    found("", 0, unclear=10)
    deep = scenes[1]  # in shallow ones the maps agree in either order
    for k in range(len(scenes)):
        views = deep.left, np.roll(deep.right, rows, axis=0)
        for side, view in zip(("left", "right"), views[::-1] if swap else views, strict=True):
            Image.fromarray(view).save(folders / side / f"{k}.png")
    assert told in refusal(adapt())


def test_held_out_pairs_without_texture_are_left_out_and_named(adapt, folders, quick):
    empty = BEFORE | {"photometric": 0.0}
    quick([empty, BEFORE], BEFORE, AFTER)
    result = adapt()
    assert result.status == 0
    assert [line for line in result.errors if "2 is left out: without texture" in line]
    about = load_checkpoint(folders / "mine.safetensors").training["adapted"]
    assert (about["left_out"], about["held_out"], about["before"]) == (["2"], ["7"], BEFORE)
    quick(empty)
    assert "no pair held out has a texture" in adapt().errors[-1]


def test_a_time_too_short_to_train_judges_the_statistics_alone(adapt, folders, quick, monkeypatch):
    quick(BEFORE, AFTER)
    monkeypatch.setattr(module, "write_labels", None)
    result = adapt("--max-time", "0.1s")
    assert result.status == 0
    assert "no time is left to train: 0 s, and 10 steps take 13; raise --max-time" in result.out
    assert "with batch-norm statistics of these pairs" in result.out
    assert (
        load_checkpoint(folders / "mine.safetensors").training["adapted"]["stage"] == "statistics"
    )


def test_an_output_that_cannot_be_is_refused_at_once(adapt, folders, monkeypatch):
    monkeypatch.setattr(adapt_judge, "check_pair", None)
    output = folders / "mine.safetensors"
    output.mkdir()
    assert "is not a regular file" in refusal(adapt(), 2)
    output.rmdir()
    shutil.copy(bundled_weights(DEFAULT_MODEL), output)
    before = output.read_bytes()
    assert "is the file of the initial weights" in refusal(adapt("--weights", output), 2)
    assert output.read_bytes() == before
    assert "cannot write" in refusal(adapt(output=folders / "left" / "0.png" / "m.safetensors"))
    (folders / "mine.run").mkdir()
    with locked(folders / "mine.run"):
        assert "is writing to" in refusal(adapt())


SAMPLE = REPOSITORY / "datasets/samples/FlyingThings3D/frames_cleanpass/TEST/A/0000"


def spoil(folders, kind):
    """Make the pairs unfit; return what the error says."""
    for side in ("left", "right"):  # larger ones, whose features can be matched
        for path in folders.glob(f"{side}/*.png"):
            shutil.copy(SAMPLE / side / "0006.png", path)
    if kind == "few":
        for path in [*folders.glob("*/[2-9].png")]:
            path.unlink()
        return "adapt needs at least 5 pairs, got 2"
    for path in sorted(folders.glob("right/*.png")):
        view = np.asarray(Image.open(path))
        if kind == "unrectified":
            view = np.roll(view, 6, axis=0)
        elif kind == "unrelated":
            view = np.random.default_rng(int(path.stem)).integers(0, 255, view.shape, np.uint8)
        else:
            view = np.full_like(view, 90)
        Image.fromarray(view).save(path)
    if kind == "one colour":
        return "10 of the 10 cannot be used; the first, 0: the image is blank"
    return "checked pairs cannot be matched"


@pytest.mark.parametrize("kind", ["few", "unrectified", "unrelated", "one colour"])
def test_faulty_pairs_are_one_line_and_leave_the_weights(stereo, folders, kind, monkeypatch):
    monkeypatch.setattr(adapt_judge, "CHECKED", 10 if kind == "one colour" else 3)
    told = spoil(folders, kind)
    output = folders / "mine.safetensors"
    output.write_bytes(b"as it was")
    result = stereo("adapt", folders / "left", folders / "right", "--output", output)
    assert result.status == 1
    (line,) = result.errors
    assert told in line
    assert output.read_bytes() == b"as it was"
    assert not (folders / "mine.run").exists()


def test_impossible_options_are_one_line(stereo, folders):
    for options, told in (
        (("--output", folders / "mine.pt"), "expected a .safetensors file"),
        (("--output", folders / "m.safetensors", "--max-time", "soon"), "write 90s, 50m or 2.5h"),
        (("--output", folders / "m.safetensors", "--max-time", "1e9h"), "at most 24h"),
        (("--output", folders / "m.safetensors", "--weights", "nobody"), "nobody"),
        (("--output", folders / "m.safetensors", "--seed", "-1"), "seed -1: expected 0 to"),
    ):
        result = stereo("adapt", folders / "left", folders / "right", *options)
        assert result.status == 2
        (line,) = result.errors
        assert told in line


@pytest.mark.parametrize("channels", [1, 3])
def test_a_rendered_scene_takes_on_the_appearance_of_a_rig(scenes, channels):
    rng = np.random.default_rng(0)
    rig = []
    for scene in scenes:
        views = []
        for view, gain in ((scene.clean_left, 60), (scene.clean_right, 120)):
            grey = view.mean(axis=2, keepdims=True) if channels == 1 else view
            dark = gain * (grey / 255) * np.linspace(0.4, 1.6, view.shape[1])[None, :, None]
            dark = dark + 6 * rng.standard_normal(dark.shape)
            views.append(np.broadcast_to(dark.clip(0, 255).astype(np.uint8), view.shape))
        rig.append((views[0], views[1]))
    appearance = Appearance.of(rig)
    assert appearance.grey == (channels == 1)
    assert appearance.noise[:, 0] == pytest.approx(6 / channels**0.5, rel=0.35)
    assert appearance.light[0, :, -1].mean() > 1.5 * appearance.light[0, :, 0].mean()
    transferred = appearance.transfer(TrainingPair.from_sample(scenes[0].sample()), rng)
    again = Appearance.of([(transferred.left, transferred.right)])
    assert again.grey == (channels == 1)
    # In the brighter view: in the darker one the noise is cut off at 0.
    usual = appearance.noise[1].mean()
    assert again.noise[1].mean() == pytest.approx(usual, rel=0.35)
    pairs = [appearance.transfer(TrainingPair.from_sample(scene.sample()), rng) for scene in scenes]
    for side in range(2):
        shown = [(pair.left, pair.right)[side] for pair in pairs]
        wanted = [pair[side] for pair in rig]
        assert np.mean(shown) == pytest.approx(np.mean(wanted), rel=0.1)
        contrast = np.mean([view.std() for view in shown])
        assert contrast == pytest.approx(np.mean([view.std() for view in wanted]), rel=0.2)
    assert transferred.disparity is not None and np.array_equal(
        transferred.disparity, scenes[0].disparity
    )


def test_one_sample_in_four_is_a_labelled_pair_and_every_scene_another(folders):
    sources = find_sources(str(folders / "left"), str(folders / "right"))[:2]
    write_labels(None, sources, folders / "labels", None)
    labelled = [(each, folders / "labels" / f"{each.name}.pfm") for each in sources]
    views = [(sample.left, sample.right) for sample in (each.read() for each in sources)]
    scenes = SyntheticScenes(SyntheticConfig(height=96, width=192, max_disparity=48, seed=9))
    pairs = AdaptPairs(scenes, Appearance.of(views), labelled)
    taken = [pairs.pair(0, index) for index in range(len(pairs))]
    assert len(taken) == 8
    assert [pair.name for pair in taken[::4]] == [each.name for each in sources]
    assert (taken[0].disparity == 5).all()
    assert not np.array_equal(taken[1].disparity, taken[2].disparity)
    again = pairs.pair(0, 2)
    assert np.array_equal(taken[2].left, again.left)
    assert not np.array_equal(taken[2].disparity, pairs.pair(1, 2).disparity)


def test_the_steps_that_fit_a_time_stay_when_a_call_is_repeated(tmp_path):
    effort = adapt_stages.Effort(judging=4.0, step=2.0)
    folder = RunFolder(tmp_path)
    steps = folder.steps(effort.steps(600.0))
    assert steps == 300
    assert folder.steps(effort.steps(50.0)) == steps
