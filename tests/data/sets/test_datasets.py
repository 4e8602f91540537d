"""Data sets by name, on small trees that the tests write."""

import json
import shutil

import numpy as np
import pytest
from conftest import REPOSITORY, shared
from PIL import Image

from stereo.data.io.disparities import write_disparity
from stereo.data.sets.datasets import detect_dataset, open_dataset
from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.data.synthetic.synthesize import synthesize
from stereo.errors import InputError, UsageError


def write_frame(root, part, below, stem, suffix=".png", passes=("clean", "final")):
    for render_pass in passes:
        for side in ("left", "right"):
            path = root / part / f"frames_{render_pass}pass" / below / side / f"{stem}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (6, 4), "white").save(path, lossless=True)
    path = root / part / "disparity" / below / "left" / f"{stem}.pfm"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6), 3.5, np.float32)).save(path)


@pytest.fixture
def sceneflow(tmp_path):
    write_frame(tmp_path, "FlyingThings3D", "TRAIN/A/0000", "0006")
    write_frame(tmp_path, "FlyingThings3D", "TEST/B/0003", "0007", suffix=".webp")
    write_frame(tmp_path, "FlyingThings3D", "TEST/A/0001", "0010")
    write_frame(tmp_path, "Monkaa", "a_rain_of_stones_x2", "0000")
    write_frame(tmp_path, "Driving", "15mm_focallength/scene_forwards/fast", "0001")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "split", "names"),
    [
        ("sceneflow", None, ["TEST/A/0001/0010", "TEST/B/0003/0007"]),
        (
            "sceneflow",
            "train",
            [
                "FlyingThings3D/TRAIN/A/0000/0006",
                "Monkaa/a_rain_of_stones_x2/0000",
                "Driving/15mm_focallength/scene_forwards/fast/0001",
            ],
        ),
        ("flyingthings3d", "train", ["TRAIN/A/0000/0006"]),
        ("monkaa", None, ["Monkaa/a_rain_of_stones_x2/0000"]),
        ("driving", None, ["Driving/15mm_focallength/scene_forwards/fast/0001"]),
    ],
)
def test_sceneflow_lists_each_part_and_split(sceneflow, name, split, names):
    data = open_dataset(name, sceneflow, split=split)
    assert len(data.samples) == len(names)
    for sample, end in zip(data.samples, names, strict=True):
        assert sample.name.endswith(end)
        assert sample.read().disparity.tolist() == [[3.5] * 6] * 4


def test_sceneflow_reads_the_chosen_pass(sceneflow):
    for render_pass in ("clean", "final"):
        sample = open_dataset("sceneflow", sceneflow, render_pass=render_pass).samples[0]
        assert f"frames_{render_pass}pass" in str(sample.left)


def test_sceneflow_zeros_are_disparities(sceneflow):
    sample = open_dataset("sceneflow", sceneflow).samples[0]
    Image.fromarray(np.zeros((4, 6), np.float32)).save(sample.disparity)
    assert sample.read().valid.all()


def test_sceneflow_names_a_missing_frame_and_shows_the_tree(sceneflow, tmp_path_factory):
    (sceneflow / "FlyingThings3D/frames_finalpass/TEST/A/0001/right/0010.png").unlink()
    with pytest.raises(InputError, match="0001/right/0010"):
        open_dataset("sceneflow", sceneflow)
    elsewhere = tmp_path_factory.mktemp("other")
    (elsewhere / "something").mkdir()
    with pytest.raises(
        InputError, match=r"FlyingThings3D/frames_finalpass/TEST/.*datasets/README.*found something"
    ):
        open_dataset("sceneflow", elsewhere)


@pytest.mark.parametrize("name", ["monkaa", "driving", "sceneflow"])
def test_test_frames_are_never_used_for_training(sceneflow, name):
    """A root that is FlyingThings3D's own folder holds no Monkaa and no Driving."""
    with pytest.raises(InputError, match=r"no pairs of (Monkaa|Driving)"):
        open_dataset(name, sceneflow / "FlyingThings3D", split="train")


def test_a_missing_part_of_sceneflow_is_named(sceneflow):
    shutil.rmtree(sceneflow / "Monkaa")
    with pytest.raises(InputError, match="Monkaa"):
        open_dataset("sceneflow", sceneflow, split="train")
    assert len(open_dataset("driving", sceneflow / "Driving").samples) == 1


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("scenflow", {}),
        ("sceneflow", {"split": "val"}),
        ("monkaa", {"split": "test"}),
        ("sceneflow", {"render_pass": "rough"}),
        ("manifest", {"split": "test"}),
    ],
)
def test_unknown_names_splits_and_passes_are_wrong_calls(sceneflow, name, choice):
    with pytest.raises(UsageError):
        open_dataset(name, sceneflow, **choice)


def test_manifest_keys(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "view.png")
    Image.fromarray(np.array([[0, 20, 30], [40, 50, 60]], np.uint8)).save(tmp_path / "gt.png")
    Image.fromarray(np.array([[255, 255, 128], [0, 255, 255]], np.uint8)).save(tmp_path / "m.png")
    entry = {"name": "a", "left": "view.png", "right": "view.png", "gt": "gt.png"}
    entry |= {"gt_scale": 10, "nonoccluded": "m.png", "anything": 1}
    (tmp_path / "manifest.json").write_text(json.dumps([entry]))
    sample = open_dataset("manifest", tmp_path).samples[0].read(nonoccluded=True)
    assert sample.disparity[sample.valid].tolist() == [2, 3, 4, 5, 6]
    assert sample.nonoccluded.tolist() == [[True, True, False], [False, True, True]]
    for key in ("nonoccluded", "gt_right"):
        (tmp_path / "manifest.json").write_text(json.dumps([entry | {key: ["m.png"]}]))
        with pytest.raises(InputError, match=f"entry 0: '{key}' must be a path"):
            open_dataset("manifest", tmp_path)


def test_manifest_of_the_real_pairs():
    data = open_dataset("manifest", shared("real"))
    assert len(data.samples) == 21
    facts = json.loads(shared("real/manifest.json").read_text())
    for sample, entry in zip(data.samples, facts, strict=True):
        read = sample.read()
        assert read.left.shape == (entry["height"], entry["width"], 3)
        assert read.valid.mean() == pytest.approx(entry["valid_fraction"], abs=1e-3)
        assert read.disparity[read.valid].max() == pytest.approx(entry["max_disparity"], abs=0.01)


def test_bundled_samples_are_three_pairs_of_at_most_4_mb():
    root = REPOSITORY / "datasets" / "samples"
    assert sum(p.stat().st_size for p in root.rglob("*") if p.is_file()) <= 4_000_000
    for render_pass in ("clean", "final"):
        data = open_dataset("sceneflow", root, render_pass=render_pass)
        assert len(data.samples) == 3
        for sample in data.samples:
            read = sample.read()
            assert read.valid.all()
            assert read.disparity.min() > 0


def test_bundled_truth_warps_the_right_view_onto_the_left():
    data = open_dataset("sceneflow", REPOSITORY / "datasets" / "samples", render_pass="clean")
    for sample in data.samples:
        read = sample.read()
        errors = [warp_error(read, offset) for offset in (-1.0, 0.0, 1.0)]
        assert errors[1] < 1.0
        assert errors[1] < 0.4 * min(errors[0], errors[2])


def warp_error(sample, offset):
    columns = np.arange(sample.left.shape[1])[None] - sample.disparity - offset
    inside = (columns >= 0) & (columns < sample.left.shape[1] - 1)
    low = np.clip(columns.astype(int), 0, sample.left.shape[1] - 2)
    part = (columns - low)[..., None]
    rows = np.arange(sample.left.shape[0])[:, None]
    warped = sample.right[rows, low] * (1 - part) + sample.right[rows, low + 1] * part
    return np.median(np.abs(warped - sample.left)[inside])


def test_rendered_scenes_are_a_data_set_without_a_root():
    data = open_dataset("synthetic", None)
    names = [sample.name for sample in data.samples]
    assert len(set(names)) == len(names) == 200
    sample = data.samples[1].read(nonoccluded=True)
    assert sample.name == names[1]
    assert sample.valid.all()
    assert 0 < sample.nonoccluded.mean() < 1
    training = SyntheticScenes(SyntheticConfig()).render(1)
    assert not np.array_equal(sample.left, training.left)  # held out: another set


def test_rendered_scenes_on_disk_are_the_same_data_set(tmp_path):
    synthesize(tmp_path, SyntheticConfig(height=32, width=64, max_disparity=32), 2)
    assert detect_dataset(tmp_path) == "synthetic"
    data = open_dataset("synthetic", tmp_path)
    assert (len(data.samples), data.split, data.render_pass) == (2, "train", "final")
    sample = data.samples[0].read(disparity_right=True, nonoccluded=True)
    assert sample.disparity_right is not None
    (mask,) = tmp_path.glob("FlyingThings3D/nonoccluded/TRAIN/A/0000/left/0006.png")
    assert (sample.nonoccluded == (np.asarray(Image.open(mask)) == 255)).all()
    with pytest.raises(InputError, match="synthetic"):
        open_dataset("synthetic", tmp_path, split="test")


@pytest.mark.parametrize("name, options", [("kitti2015", {}), ("synthetic", {"split": "train"})])
def test_a_missing_root_is_named(name, options):
    with pytest.raises(UsageError, match="--root"):
        open_dataset(name, None, **options)


def own_pairs(root, names=("b", "a"), truth=".pfm"):
    for name in names:
        for side in ("left", "right"):
            picture(root / side / f"{name}.png", np.full((4, 6, 3), 90, np.uint8))
        (root / "disp").mkdir(exist_ok=True)
        write_disparity(root / f"disp/{name}{truth}", np.full((4, 6), 2.5, np.float32))
    return root


def picture(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize("truth", [".pfm", ".npy", ".npz", ".tiff", ".png"])
def test_three_folders_are_a_data_set_matched_by_name(tmp_path, truth):
    data = open_dataset("folders", own_pairs(tmp_path, truth=truth))
    assert [sample.name for sample in data.samples] == ["a", "b"]
    assert data.samples[0].read().disparity.tolist() == [[2.5] * 6] * 4
    assert detect_dataset(tmp_path) == "folders"


def test_a_float_map_is_preferred_to_an_image_of_it(tmp_path):
    own_pairs(tmp_path)
    picture(tmp_path / "disp/a.png", np.zeros((4, 6, 3), np.uint8))
    assert open_dataset("folders", tmp_path).samples[0].disparity.name == "a.pfm"


@pytest.mark.parametrize("lost", ["left/a.png", "right/a.png", "disp/a.pfm"])
def test_missing_files_of_three_folders_are_named(tmp_path, stereo, lost):
    (own_pairs(tmp_path) / lost).unlink()
    out = ("--output", tmp_path / "out")
    for command in (
        ("evaluate", "--dataset", "folders", "--root", tmp_path, *out),
        ("train", "--config", "finetune", "--data.root", tmp_path, *out),
    ):
        result = stereo(*command)
        assert (result.status, len(result.errors)) == (1, 1), result.errors
        assert str(tmp_path / lost) in result.errors[0]
    assert stereo("data", "check", "--root", tmp_path, "--workers", 1).status == 1


def test_three_folders_work_without_ground_truth_if_none_is_needed(tmp_path):
    shutil.rmtree(own_pairs(tmp_path) / "disp")
    assert not open_dataset("folders", tmp_path, truth=False).samples[0].has_truth
    with pytest.raises(InputError, match=r"disp: no such folder, so 2 pairs .* holds left, right;"):
        open_dataset("folders", tmp_path)


@pytest.mark.parametrize("other", ["a_disp.pfm", "A.pfm", "a.exr", "a_ground_truth_disparity.pfm"])
def test_a_misnamed_file_is_reported(tmp_path, other):
    own_pairs(tmp_path)
    (tmp_path / "disp/a.pfm").rename(tmp_path / "disp" / other)
    with pytest.raises(InputError, match=r"no such file.*is incomplete.*nearest") as error:
        open_dataset("folders", tmp_path)
    assert f"the nearest name there is '{other}'" in str(error.value) or other.startswith("A")


@pytest.mark.parametrize(
    ("renames", "hint"),
    [
        ({"left": "Left", "right": "Right", "disp": "Disp"}, "/Left must be spelled 'left'"),
        ({"disp": "DISP"}, "disp: no such folder, so 2 pairs are incomplete; .* holds DISP, left"),
        ({"left": "a/b", "right": "x", "disp": "y"}, "found a, x, y"),
    ],
)
def test_misspelt_folders_are_reported(tmp_path, renames, hint):
    own_pairs(tmp_path)
    for old, new in renames.items():
        (tmp_path / new).parent.mkdir(exist_ok=True)
        (tmp_path / old).rename(tmp_path / new)
    with pytest.raises(InputError, match=hint):
        open_dataset("folders", tmp_path)


def test_pairs_nested_too_deep_are_reported(tmp_path):
    own_pairs(tmp_path)
    for side in ("left", "right", "disp"):
        (tmp_path / side).rename(tmp_path / "moved")
        (tmp_path / side / "street").mkdir(parents=True)
        (tmp_path / "moved").rename(tmp_path / side / "street" / "day")
    with pytest.raises(InputError, match="all one folder deeper") as error:
        open_dataset("folders", tmp_path)
    assert str(error.value).endswith("left is street/day/a.png")


def test_the_file_that_is_read_of_two_that_fit_is_named(tmp_path):
    own_pairs(tmp_path)
    shutil.copy(tmp_path / "left/a.png", tmp_path / "left/a.jpg")
    with pytest.warns(UserWarning, match=r"left/a\.png is read, not a\.jpg beside it$"):
        data = open_dataset("folders", tmp_path)
    assert data.samples[0].left.name == "a.png"


def test_integers_of_unknown_scale_suggest_a_manifest(tmp_path):
    own_pairs(tmp_path, names=["a"])
    (tmp_path / "disp/a.pfm").unlink()
    picture(tmp_path / "disp/a.png", np.full((4, 6), 9, np.uint8))
    with pytest.raises(InputError, match="'gt_scale' in a manifest"):
        open_dataset("folders", tmp_path).samples[0].read()


def test_three_folders_are_listed_checked_previewed_and_scored(tmp_path, stereo):
    own_pairs(tmp_path / "own")
    data = ("--dataset", "folders", "--root", tmp_path / "own")
    assert "left/<frame>" in stereo("data", "list").out
    checked = stereo("data", "check", "--root", tmp_path / "own", "--workers", 1)
    assert (checked.status, checked.errors) == (0, [])
    sheet = ("--output", tmp_path / "sheet.png")
    assert stereo("data", "preview", *data, *sheet, "--count", 1).status == 0
    for named in (data, data[2:]):  # or found by looking, as the check does
        scored = stereo("evaluate", *named, "--model", "sgbm", "--output", tmp_path / "out")
        assert (scored.status, scored.errors) == (0, [])
        assert "data set folders: 2 of 2 pairs" in scored.out
    neither = stereo("evaluate", "--model", "sgbm", "--output", tmp_path / "out")
    assert (neither.status, len(neither.errors)) == (2, 1)
    assert "--dataset" in neither.errors[0]


def test_an_incomplete_scene_flow_suggests_flyingthings3d(sceneflow):
    for part in ("Monkaa", "Driving"):
        shutil.rmtree(sceneflow / part)
    with pytest.raises(InputError, match="FlyingThings3D alone is 'flyingthings3d'"):
        open_dataset("sceneflow", sceneflow, split="train")


def test_a_root_of_another_data_set_is_recognised(tmp_path):
    with pytest.raises(InputError, match="it looks like 'folders'"):
        open_dataset("kitti2015", own_pairs(tmp_path))
