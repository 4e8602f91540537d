"""``stereo adapt``: its gate, its inputs, and scenes in the appearance of a rig."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stereo.data.augmentation.training_pair import TrainingPair
from stereo.data.finding.sources import find_sources
from stereo.data.io.disparities import write_disparity
from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.models.checkpoint import load_checkpoint
from stereo.system.bundled import DEFAULT_MODEL, bundled_weights
from stereo.training import adapt as module
from stereo.training.adapt_data import AdaptPairs
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
    ("after", "better"),
    [
        (AFTER, True),
        (BEFORE, False),
        (AFTER | {"photometric": 4.05}, True),  # two of three, and the third within 2 %
        (AFTER | {"photometric": 4.2}, False),
        (BEFORE | {"agreement": 0.9}, False),  # one of three
    ],
)
def test_two_measures_must_improve_and_none_may_get_much_worse(after, better):
    assert module.is_better(BEFORE, after) is better


def write_labels(_start, sources, folder, _end):
    folder.mkdir()
    for source in sources:
        write_disparity(folder / f"{source.name}.pfm", np.full((96, 192), 5.0, np.float32))


@pytest.fixture
def quick(monkeypatch):
    """Let training end at once with the weights it began with, and measures be as told."""

    def prepared(*values):
        told = iter(values)
        monkeypatch.setattr(module, "measure", lambda *_: dict(next(told)))
        monkeypatch.setattr(module, "_label", write_labels)
        monkeypatch.setattr(module, "STATISTICS_PAIRS", 1)
        monkeypatch.setattr(
            module,
            "train",
            lambda run, folder, **_: shutil.copy(
                bundled_weights(DEFAULT_MODEL), last_path(folder, 1)
            ),
        )

    return prepared


def test_better_weights_are_written_with_their_provenance(stereo, folders, quick):
    quick(BEFORE, BEFORE, AFTER)
    output = folders / "mine.safetensors"
    result = stereo("adapt", folders / "left", folders / "right", "--output", output)
    assert (result.status, result.errors) == (0, [])
    found = load_checkpoint(output)
    about = found.training["adapted"]
    assert (about["before"], about["after"]) == (BEFORE, AFTER)
    assert (about["from"], len(about["pairs"])) == (DEFAULT_MODEL, 10)
    assert found.confidence is not None
    assert not (folders / "mine.run").exists()


def test_an_interrupted_call_resumes_from_existing_files(stereo, folders, quick, monkeypatch):
    def call(*options):
        output = folders / "mine.safetensors"
        return stereo("adapt", folders / "left", folders / "right", "--output", output, *options)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    quick(BEFORE, BEFORE)
    monkeypatch.setattr(module, "train", interrupted)
    assert call().status == 130
    quick(BEFORE, AFTER)  # not measured before again
    monkeypatch.setattr(module, "_label", None)  # nor labelled
    other = call("--seed", "1")
    assert other.status == 1
    (line,) = other.errors
    assert "holds work on other pairs, weights or another seed" in line
    assert call().status == 0
    about = load_checkpoint(folders / "mine.safetensors").training["adapted"]
    assert (about["before"], about["after"]) == (BEFORE, AFTER)


def test_nothing_is_written_if_held_out_pairs_do_not_improve(stereo, folders, quick):
    quick(BEFORE, BEFORE, BEFORE)
    output = folders / "mine.safetensors"
    result = stereo("adapt", folders / "left", folders / "right", "--output", output)
    assert result.status == 1
    assert "the pairs held out (2 of 10) are matched no better" in result.out
    assert {path.name for path in folders.iterdir()} == {"left", "right"}


SAMPLE = Path("datasets/samples/FlyingThings3D/frames_cleanpass/TEST/A/0000")


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
    return "checked pairs cannot be matched"


@pytest.mark.parametrize("kind", ["few", "unrectified", "unrelated", "one colour"])
def test_faulty_pairs_are_one_line_and_leave_the_weights(stereo, folders, kind):
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
        (("--output", folders / "m.safetensors", "--weights", "nobody"), "nobody"),
    ):
        result = stereo("adapt", folders / "left", folders / "right", *options)
        assert result.status == 2
        (line,) = result.errors
        assert told in line


def test_a_rendered_scene_takes_on_the_appearance_of_a_rig(scenes):
    rng = np.random.default_rng(0)
    rig = []
    for scene in scenes:
        views = []
        for view in (scene.clean_left, scene.clean_right):
            dark = 60 * (view.mean(axis=2) / 255) * np.linspace(0.4, 1.6, view.shape[1])
            dark += 6 * rng.standard_normal(dark.shape)
            views.append(np.repeat(dark.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))
        rig.append((views[0], views[1]))
    appearance = Appearance.of(rig)
    assert appearance.grey
    assert appearance.noise[:, 0] == pytest.approx(6, rel=0.35)
    assert appearance.light[0, :, -1].mean() > 1.5 * appearance.light[0, :, 0].mean()
    transferred = appearance.transfer(TrainingPair.from_sample(scenes[0].sample()), rng)
    assert np.ptp(transferred.left, axis=2).max() == 0
    assert transferred.left.mean() == pytest.approx(np.mean([left for left, _ in rig]), rel=0.5)
    assert transferred.disparity is not None and np.array_equal(
        transferred.disparity, scenes[0].disparity
    )


def test_one_sample_in_four_is_a_labelled_pair_and_scenes_come_again_in_other_noise(folders):
    sources = find_sources(str(folders / "left"), str(folders / "right"))[:2]
    write_labels(None, sources, folders / "labels", None)
    labelled = [(each, folders / "labels" / f"{each.name}.pfm") for each in sources]
    views = [(sample.left, sample.right) for sample in (each.read() for each in sources)]
    scenes = SyntheticScenes(SyntheticConfig(height=96, width=192, max_disparity=48, seed=9))
    pairs = AdaptPairs(scenes, Appearance.of(views), labelled, 3)
    taken = [pairs.pair(0, index) for index in range(len(pairs))]
    assert len(taken) == 8
    assert [pair.name for pair in taken[::4]] == [each.name for each in sources]
    assert (taken[0].disparity == 5).all()
    first, again = taken[2], taken[5]
    assert np.array_equal(first.disparity, again.disparity)
    assert not np.array_equal(first.left, again.left)
    assert not np.array_equal(first.disparity, taken[1].disparity)


def test_the_steps_that_fit_a_time_stay_when_a_call_is_repeated(tmp_path):
    effort = module._Effort(seconds=4.0, pixels=2_000_000)
    steps = effort.steps(tmp_path, 600.0)
    assert 100 < steps < 1000
    assert effort.steps(tmp_path, 50.0) == steps
