"""``--steady``: maps stand still where the image does, and nowhere else."""

import dataclasses

import numpy as np
import pytest
from conftest import REPOSITORY

import stereo
from stereo.matching import steady as module
from stereo.matching.steady import Steady

SHAPE = (60, 80)


def frames(rng, picture, truth, spread=0.3, noise=2.0, count=12):
    """Return noisy results of a still scene."""
    return [
        stereo.Result(
            (truth + spread * rng.standard_normal(SHAPE)).astype(np.float32),
            0.1,
            image=np.rint(picture + noise * rng.standard_normal(picture.shape))
            .clip(0, 255)
            .astype(np.uint8),
        )
        for _ in range(count)
    ]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def picture(rng):
    return np.repeat(rng.integers(40, 200, SHAPE)[..., None], 3, axis=2)


def flicker(results):
    return np.abs(np.diff([each.disparity for each in results[3:]], axis=0)).mean()


def test_flicker_of_a_static_image_is_halved_and_the_error_falls(rng, picture):
    raw, steady = frames(rng, picture, 20.0), Steady()
    calm = [steady(each) for each in raw]
    assert calm[0] is raw[0]
    assert flicker(calm) < flicker(raw) / 2
    assert np.abs(calm[-1].disparity - 20).mean() < np.abs(raw[-1].disparity - 20).mean() / 2


def test_moving_regions_keep_the_map_of_their_frame(rng, picture):
    steady = Steady()
    for each in frames(rng, picture, 20.0):
        steady(each)
    moved = picture.copy()
    moved[:, 40:] = rng.integers(40, 200, (SHAPE[0], 40))[..., None]
    (now,) = frames(rng, moved, 35.0, count=1)
    found = steady(now).disparity
    assert np.array_equal(found[:, 40:], now.disparity[:, 40:])
    assert np.abs(found[:, :25] - 20).mean() < 0.2  # one frame of another surface is outvoted


def rendered(rng, gain):
    """Return a dark picture of uniform shapes."""
    coarse = rng.integers(40, 200, (6, 8)).repeat(10, 0).repeat(10, 1)
    return np.repeat((gain * coarse)[..., None], 3, axis=2)


@pytest.mark.parametrize(("gain", "noise"), [(0.4, 17), (0.2, 9), (0.06, 0)])
def test_a_cut_in_the_dark_leaves_no_ghost(rng, gain, noise):
    steady = Steady()
    for each in frames(rng, rendered(rng, gain), 20.0, noise=noise):
        steady(each)
    for index, each in enumerate(frames(rng, rendered(rng, gain), 35.0, noise=noise, count=4)):
        ghost = np.abs(steady(each).disparity - each.disparity) > 2
        assert ghost.mean() < 0.01, index


def test_a_cut_in_half_of_the_image_leaves_no_ghost_there(rng):
    steady, picture = Steady(), rendered(rng, 0.2)
    for each in frames(rng, picture, 20.0, noise=9):
        steady(each)
    picture[:, 40:] = rendered(rng, 0.2)[:, 40:]
    (now,) = frames(rng, picture, 35.0, noise=9, count=1)
    found = steady(now).disparity
    assert np.mean(found[:, 45:] == now.disparity[:, 45:]) > 0.9
    assert np.abs(found[:, :15] - 20).mean() < 0.2


@pytest.mark.parametrize("gain", [0, 0.05, 0.2])
def test_noise_in_the_dark_is_averaged(rng, gain):
    raw, steady = frames(rng, 20 + rendered(rng, gain), 20.0, noise=6), Steady()
    assert flicker([steady(each) for each in raw]) < flicker(raw) / 2


def test_the_noise_is_that_of_the_difference_of_two_images(rng):
    one, other = 120 + 5 * rng.standard_normal((2, *SHAPE)).astype(np.float32)
    assert module._noise(one) == pytest.approx(np.abs(one - other).mean(), rel=0.05)


def test_what_changes_are_told_from_is_the_mean_of_the_images(rng):
    steady, raw = Steady(), frames(rng, np.full((*SHAPE, 3), 120), 20.0, count=4)
    for each in raw:
        steady(each)
    assert np.allclose(steady._image, np.mean([each.image for each in raw], axis=(0, 3)), atol=0.01)


def test_a_change_invisible_in_the_image_is_adopted_after_some_frames(rng, picture):
    steady = Steady()
    for each in frames(rng, picture, 20.0):
        steady(each)
    found = [steady(each).disparity.mean() for each in frames(rng, picture, 30.0)]
    assert abs(found[0] - 20) < 1
    assert abs(found[-1] - 30) < 0.5
    assert not any(22 < mean < 28 for mean in found)


def test_a_long_rest_weighs_no_more_than_a_short_one(rng, picture):
    steady = Steady()
    for each in [*frames(rng, picture, 20.0, count=60), *frames(rng, picture, 20.2, count=16)]:
        found = steady(each).disparity
    assert found.mean() > 20.16  # without a cap of the weight 20.12


@pytest.mark.parametrize("rate", [1.005, 1.01, 1.02])
def test_what_approaches_is_followed_where_the_image_hardly_changes(rng, picture, rate):
    steady = Steady()
    for frame in range(60):
        truth = 40 * rate**frame
        (each,) = frames(rng, picture, truth, count=1)
        found = steady(each).disparity
    assert np.abs(found - truth).mean() < 0.5  # 0.24 before it


def test_a_map_that_jumps_with_every_frame_is_followed_after_a_while(rng, picture):
    steady, behind = Steady(), []
    for frame in range(30):
        (each,) = frames(rng, picture, 20.0 + 6 * frame, count=1)
        behind.append(np.abs(steady(each).disparity - each.disparity).mean())
    assert max(behind) < 60  # 174 if the first were kept
    assert min(behind[10:]) < 1


def test_an_uncertain_frame_moves_the_map_little(rng, picture):
    def found(certainty):
        steady = Steady()
        for each in frames(rng, picture, 20.0):
            before = steady(each).disparity.mean()
        (last,) = frames(rng, picture, 21.0, count=1)
        sure = np.full((2, *SHAPE), certainty, np.float32)
        sure[1] = 1 - certainty  # of the entropy, which does not count
        return steady(dataclasses.replace(last, certainty=sure)).disparity.mean() - before

    assert found(0.01) < 0.05 < 0.1 < found(1.0)


def test_frames_of_another_size_begin_anew(rng, picture):
    steady = Steady()
    for each in frames(rng, picture, 20.0, count=3):
        steady(each)
    (each,) = frames(rng, picture, 35.0, count=1)
    cut = dataclasses.replace(each, disparity=each.disparity[:50], image=each.image[:50])
    assert np.array_equal(steady(cut).disparity, cut.disparity)


def test_unordered_images_are_refused_in_one_line(stereo, tmp_path):
    sample = REPOSITORY / "datasets/samples/FlyingThings3D/frames_cleanpass/TEST/A/0000"
    result = stereo(
        *("infer", f"{sample}/left/0006.png", f"{sample}/right/0006.png", "--steady"),
        *("--model", "sgbm", "--output", tmp_path / "out"),
    )
    assert result.status == 2
    (line,) = result.errors
    assert "--steady is for the frames of one video" in line
