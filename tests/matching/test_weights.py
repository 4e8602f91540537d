"""The weights that ship: what their maps must obey, and semi-global matching as the measure."""

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY, shared

import stereo
from stereo.data.sets.datasets import open_dataset
from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.evaluation.evaluate import evaluate
from stereo.matching.loading import load
from stereo.models import NETWORK_NAMES
from stereo.system.bundled import SGBM, bundled_weights, samples_root

BUNDLED = [name for name in NETWORK_NAMES if bundled_weights(name)]
LARGEST = 25 * 2**20
SHIFTS = (1, 2, 3, 5, 8, 16)


@pytest.fixture(scope="module", params=BUNDLED)
def matcher(request):
    return load(request.param)


@pytest.fixture(scope="module")
def pairs():
    data = open_dataset("sceneflow", samples_root(), split="test", render_pass="final")
    pairs = [item.read() for item in data.samples]
    return [(pair.left, pair.right) for pair in pairs]


@pytest.fixture(scope="module")
def maps(matcher, pairs):
    return [matcher(left, right).disparity for left, right in pairs]


def test_the_default_model_has_bundled_weights():
    assert stereo.DEFAULT_MODEL == "ea_stereo"
    assert stereo.DEFAULT_MODEL in BUNDLED
    assert load().description["weights"].startswith("sha256:")


@pytest.mark.parametrize("name", BUNDLED)
def test_the_wheel_contains_the_weights(name):
    shipped = f"checkpoints/{bundled_weights(name).name}"
    assert bundled_weights(name).stat().st_size < LARGEST
    assert (
        f'"{shipped}" = "stereo_bundled/{shipped}"' in (REPOSITORY / "pyproject.toml").read_text()
    )


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_weights_name_no_local_folder(name):
    path = bundled_weights(name)
    header = path.read_bytes()[: 2**20].split(b"}}}")[0]
    assert b'root": "/' not in header.replace(b"\\", b"")
    assert b'textures": "/' not in header.replace(b"\\", b"")


@pytest.mark.parametrize("index, shift", list(enumerate(SHIFTS)))
def test_a_shift_of_the_right_view_shifts_the_map(matcher, pairs, maps, index, shift):
    (left, right), before = pairs[index % 3], maps[index % 3]
    moved = np.roll(right, -shift, axis=1)
    moved[:, -shift:] = moved[:, -shift - 1 : -shift]
    after = matcher(left, moved).disparity
    inside = np.arange(before.shape[1]) - before >= 17  # what left the frame has no match
    assert np.median(np.abs(after - before - shift)[inside]) < 0.25


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("reach", [16, 48, 96, 256])
def test_every_range_is_searched_to_its_end_and_no_map_leaves_it(name, reach, rng):
    noise = rng.integers(0, 256, (24, 150, 3), np.uint8)
    texture = cv2.resize(noise, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC)
    matcher = load(name, device="cpu", precision="fp32", max_disparity=reach)
    for shift in (reach - 8, reach - 2, reach + 30):
        left, right = texture[:, :-300], texture[:, shift : shift - 300 or None]
        found = matcher(left, right).disparity
        assert found.max() <= reach
        if shift < reach:  # beyond it there is no right answer
            seen = found[:, shift + 8 :]
            assert (np.abs(seen - shift) > 1).mean() < 0.05


def test_swapped_and_mirrored_views_give_the_right_views_map(matcher):
    scenes = SyntheticScenes(SyntheticConfig(height=192, width=384, max_disparity=96, seed=77))
    errors = {"left": [], "right": []}
    for index in range(2):
        pair = scenes.render(index)
        left = matcher(pair.left, pair.right).disparity
        right = matcher(pair.right[:, ::-1], pair.left[:, ::-1]).disparity[:, ::-1]
        errors["left"].append(np.abs(left - pair.disparity)[pair.nonoccluded])
        errors["right"].append(np.abs(right - pair.right_disparity)[pair.right_nonoccluded])
    epe = {view: np.concatenate(each).mean() for view, each in errors.items()}
    assert epe["right"] < 1.3 * epe["left"] + 0.1, epe
    assert np.median(np.concatenate(errors["right"])) < 0.5


@pytest.mark.parametrize("side", [0, 1], ids=["left", "right"])
@pytest.mark.parametrize("contrast, brightness", [(1, 0.8), (1, 1.2), (0.8, 1), (1.2, 1)])
def test_brightness_and_contrast_of_one_view_have_little_effect(
    matcher, pairs, maps, side, contrast, brightness
):
    views = list(pairs[side])
    pixels = views[side].astype(np.float32)
    middle = 0 if contrast == 1 else pixels.mean()
    changed = (pixels - middle) * contrast + middle * brightness
    views[side] = np.clip(changed.round(), 0, 255).astype(np.uint8)
    after = matcher(*views).disparity
    assert abs(np.median(after) - np.median(maps[side])) < 0.5
    assert np.median(np.abs(after - maps[side])) < 0.5


@pytest.mark.slow
def test_precision_has_little_effect(matcher, pairs):
    exact, low = (load(matcher.description["name"], precision=p) for p in ("fp32", "bf16"))
    difference = np.stack([low(*p).disparity - exact(*p).disparity for p in pairs])
    assert 0 < np.median(np.abs(difference)) < 0.05
    assert np.abs(difference).mean() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("model", BUNDLED)
def test_bundled_weights_beat_semi_global_matching_on_real_pairs(tmp_path, model):
    real = shared("real")
    reports = {
        name: evaluate(load(name), "manifest", real, tmp_path / name)[0] for name in (model, SGBM)
    }
    ours, theirs = (reports[name]["summary"] for name in (model, SGBM))
    for figure in ("epe_image", "bad_2_image", "bad_3_image"):
        assert ours[figure] < theirs[figure], figure
    for group in ("ft3d", "kitti", "mid"):
        figures = {
            name: [image for image in report["images"] if image["name"].startswith(group)]
            for name, report in reports.items()
        }
        for figure in ("epe", "bad_3"):
            mean = {n: np.mean([image[figure] for image in f]) for n, f in figures.items()}
            assert mean[model] < mean[SGBM], (group, figure)
