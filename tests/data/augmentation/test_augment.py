import dataclasses
import hashlib
import json
import random
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate

from stereo.data.augmentation.augment import augment
from stereo.data.augmentation.config import EVERY_STEP, AugmentationConfig
from stereo.data.augmentation.image_transforms import (
    adjust_color,
    adjust_gamma,
    blur_image,
    misalign,
    resize_image,
    warp_vertically,
)
from stereo.data.augmentation.preview import residual, rows_for
from stereo.data.augmentation.training_pair import (
    TrainingPair,
    crop_pair,
    flip_pair,
    pad_pair,
    resize_pair,
    to_tensors,
)
from stereo.data.sets.sample import Sample
from stereo.errors import InputError, UsageError
from stereo.models.config import IMAGENET_MEAN, IMAGENET_STD

NOTHING = AugmentationConfig(crop=None)
MAPS = ("disparity", "valid", "right_disparity", "right_valid")
FIELDS = ("left", "right", *MAPS)
STEPS = (
    *("scale", "stretch", "flip", "color", "gamma", "vertical_shift", "rotation", "eraser"),
    *("warp", "blur"),
)
EVERYTHING = dataclasses.replace(NOTHING, **{f"{step}_probability": 1.0 for step in STEPS})
# One step alone, so strong that it cannot go unseen on a pair of noise.
STRONG = {
    "scale": {"scale": (1.5, 2.0)},
    "stretch": {"stretch": 4.0},
    "vertical_shift": {"vertical_shift": 5.0},
    "rotation": {"rotation": 30.0},
    "eraser": {"eraser_side": (5, 10)},
    "warp": {"warp": 5.0},
    "blur": {"blur": 5.0},
}


def only(step, probability=1.0, **options):
    return dataclasses.replace(NOTHING, **{f"{step}_probability": probability}, **options)


def texture(x, y):
    """A smooth image on the whole plane: (..., 3) uint8."""
    waves = [np.sin(x * a + y * b) + np.cos(x * c - y * a) for a, b, c in WAVES]
    return np.clip(np.stack(waves, axis=-1) * 60 + 128, 0, 255).round().astype(np.uint8)


WAVES = ((0.35, 0.21, 0.11), (0.17, 0.42, 0.29), (0.26, 0.12, 0.4))


def plane_pair(height=80, width=120, slope=0.05, tilt=0.03, offset=7.0):
    """A textured plane of disparity slope x + tilt y + offset, exact in both views."""
    y, x = np.mgrid[:height, :width].astype(float)
    disparity = slope * x + tilt * y + offset
    right_disparity = (slope * x + tilt * y + offset) / (1 - slope)
    return TrainingPair(
        name="plane",
        left=texture(x - disparity, y),
        right=texture(x, y),
        disparity=disparity.astype(np.float32),
        valid=np.ones((height, width), bool),
        right_disparity=right_disparity.astype(np.float32),
        right_valid=x + right_disparity <= width - 1,
    )


def noise_pair(height=24, width=32, seed=0, right_disparity=True):
    rng = np.random.default_rng(seed)
    size = (height, width)
    disparity = rng.uniform(0.1, 20, size).astype(np.float32)
    valid = rng.random(size) < 0.7
    disparity[~valid] = rng.choice([np.nan, np.inf, -1.0])
    pair = TrainingPair(
        name="noise",
        left=rng.integers(0, 256, (*size, 3), np.uint8),
        right=rng.integers(0, 256, (*size, 3), np.uint8),
        disparity=disparity,
        valid=valid,
    )
    if not right_disparity:
        return pair
    return dataclasses.replace(
        pair,
        right_disparity=rng.uniform(0.1, 20, size).astype(np.float32),
        right_valid=rng.random(size) < 0.7,
    )


def differing(one, other):
    """Names of the fields that differ."""
    return {
        name
        for name in FIELDS
        if not np.array_equal(
            np.asarray(getattr(one, name), float),
            np.asarray(getattr(other, name), float),
            equal_nan=True,
        )
    }


def misfit(pair, margin=3):
    """Greatest difference between left and the right view moved by the disparity."""
    height, width = pair.size
    x = np.arange(width)
    worst = 0.0
    for y in range(margin, height - margin):
        match = x - pair.disparity[y]
        use = pair.valid[y] & (match >= margin) & (match <= width - 1 - margin)
        use &= (x >= margin) & (x < width - margin)
        for channel in range(3):
            moved = np.interp(match[use], x, pair.right[y, :, channel])
            difference = np.abs(moved - pair.left[y, use, channel])
            worst = max(worst, difference.max(initial=0))
    return worst


# --- sizes


def test_the_plane_itself_fits_and_a_wrong_disparity_does_not():
    pair = plane_pair()
    assert misfit(pair) < 8
    assert misfit(dataclasses.replace(pair, disparity=pair.disparity * np.float32(1.2))) > 60


@pytest.mark.parametrize("size", [(80, 160), (120, 120), (100, 150), (64, 96), (80, 120)])
def test_after_resizing_the_disparity_still_carries_right_to_left(size):
    assert misfit(resize_pair(plane_pair(), *size)) < 12


@pytest.mark.parametrize("step", ["scale", "stretch"])
def test_after_scale_and_stretch_the_disparity_still_carries_right_to_left(step):
    sizes = set()
    for index in range(8):
        changed = augment(plane_pair(), only(step), (3, 0, index))
        assert misfit(changed) < 12
        sizes.add(changed.size)
    assert len(sizes) > 5


def test_scale_stays_in_its_range_and_keeps_the_shape():
    pair, heights = plane_pair(), []
    for index in range(40):
        height, width = augment(pair, only("scale", scale=(0.25, 4.0)), (0, 0, index)).size
        assert 20 <= height <= 320 and 30 <= width <= 480
        assert height / 80 == pytest.approx(width / 120, abs=0.02)
        heights.append(height)
    assert 13 < sum(height < 80 for height in heights) < 27  # as many below as above


def test_stretch_stays_in_its_range_and_keeps_the_area():
    pair = plane_pair()
    ratios = []
    for index in range(60):
        height, width = augment(pair, only("stretch", stretch=1.5), (0, 0, index)).size
        ratios.append(width / height / 1.5)
        assert height * width == pytest.approx(80 * 120, rel=0.02)
    assert 0.65 < min(ratios) < 0.75 and 1.35 < max(ratios) < 1.53


def test_sparse_truth_keeps_its_values_times_the_horizontal_factor():
    pair = noise_pair(40, 60)
    changed = resize_pair(pair, 50, 93)
    factor = np.float32(93 / 60)
    rows = np.floor((np.arange(50) + 0.5) * 40 / 50).astype(int)
    columns = np.floor((np.arange(93) + 0.5) * 60 / 93).astype(int)
    grid = np.ix_(rows, columns)
    assert np.array_equal(changed.valid, pair.valid[grid])
    assert np.array_equal(changed.right_valid, pair.right_valid[grid])
    valid = changed.valid
    assert np.array_equal(changed.disparity[valid], (pair.disparity[grid] * factor)[valid])
    assert np.array_equal(changed.right_disparity, pair.right_disparity[grid] * factor)
    assert set(changed.disparity[valid]) <= set(pair.disparity[pair.valid] * factor)


def test_only_the_width_scales_disparities():
    pair = plane_pair()
    assert set(resize_pair(pair, 200, 120).disparity[:, 5]) <= set(pair.disparity[:, 5])


def test_scaling_never_goes_below_the_crop_unless_pairs_are_smaller():
    config = dataclasses.replace(EVERYTHING, scale=(0.1, 0.5), crop=(60, 100))
    for index in range(10):
        changed = augment(plane_pair(), config, (0, 0, index))
        assert changed.size == (60, 100) and changed.valid.mean() > 0.8
    small = augment(plane_pair(20, 30, offset=1), config, (0, 0, 0))
    assert small.size == (60, 100) and 500 <= small.valid.sum() <= 700


# --- flip


def test_flip_equals_hand_computed_values():
    row = np.array([[10, 20, 30, 40]], np.uint8)
    pair = TrainingPair(
        name="row",
        left=np.repeat(row[..., None], 3, 2),
        right=np.repeat(row[..., None] + 100, 3, 2),
        disparity=np.array([[1, 2, 1, 1]], np.float32),
        valid=np.array([[0, 1, 1, 1]], bool),
        right_disparity=np.array([[5, 1, 1, 9]], np.float32),
        right_valid=np.array([[1, 1, 1, 0]], bool),
    )
    flipped = flip_pair(pair)
    assert flipped.left[0, :, 0].tolist() == [140, 130, 120, 110]
    assert flipped.right[0, :, 0].tolist() == [40, 30, 20, 10]
    assert flipped.disparity.tolist() == [[9, 1, 1, 5]]
    assert flipped.valid.tolist() == [[False, True, True, True]]
    assert flipped.right_disparity.tolist() == [[1, 1, 2, 1]]
    assert flipped.right_valid.tolist() == [[True, True, True, False]]


def test_flip_still_carries_right_to_left():
    assert misfit(augment(plane_pair(), only("flip"), (0, 0, 0))) < 8


@pytest.mark.parametrize("make", [plane_pair, noise_pair])
def test_flip_twice_is_the_identity(make):
    pair = make()
    assert not differing(pair, flip_pair(flip_pair(pair)))


def test_flip_without_the_right_disparity_is_skipped():
    pair = noise_pair(right_disparity=False)
    assert augment(pair, only("flip"), (0, 0, 0)) is pair
    with pytest.raises(ValueError, match="without the right view's disparity"):
        flip_pair(pair)


# --- crop


def positions_pair(height, width):
    """A pair whose left view says where each pixel comes from."""
    y, x = np.mgrid[:height, :width]
    pair = noise_pair(height, width)
    left = np.stack([y, x, np.full_like(x, 7)], axis=-1).astype(np.uint8)
    return dataclasses.replace(pair, left=left, right=left + np.uint8(1))


def test_crop_takes_the_same_window_of_every_map():
    pair = positions_pair(30, 50)
    for index in range(20):
        changed = augment(pair, AugmentationConfig(crop=(10, 20)), (0, 1, index))
        assert changed.size == (10, 20)
        top, left = (int(v) for v in changed.left[0, 0, :2])
        window = (slice(top, top + 10), slice(left, left + 20))
        for name in FIELDS:
            expected = getattr(pair, name)[window]
            assert np.array_equal(getattr(changed, name), expected, equal_nan="disp" in name)


def test_crop_reaches_every_place():
    pair = positions_pair(4, 5)
    config = AugmentationConfig(crop=(3, 3))
    corners = {tuple(augment(pair, config, (0, 0, i)).left[0, 0, :2]) for i in range(100)}
    assert corners == {(y, x) for y in range(2) for x in range(3)}


def test_crop_keeps_the_match():
    assert misfit(crop_pair(plane_pair(), 10, 30, 40, 60)) < 8


def test_a_pair_smaller_than_the_crop_is_padded_without_ground_truth():
    pair = plane_pair(20, 30, offset=2)
    padded = pad_pair(pair, 26, 37)
    assert padded.size == (26, 37)
    inner = (slice(6, None), slice(None, 30))
    for name in FIELDS:
        assert np.array_equal(getattr(padded, name)[inner], getattr(pair, name))
    assert np.array_equal(padded.left[0, :30], pair.left[0])
    assert np.array_equal(padded.right[6:, 36], pair.right[:, 29])
    for name in ("valid", "right_valid"):
        outside = getattr(padded, name).copy()
        outside[inner] = False
        assert not outside.any()


# --- one view and both


@pytest.mark.parametrize("step", ["vertical_shift", "rotation", "eraser", "warp"])
def test_disturbances_change_only_the_right_view(step):
    pair = noise_pair()
    for index in range(10):
        changed = augment(pair, only(step, **STRONG[step]), (0, 0, index))
        assert differing(pair, changed) == {"right"}


@pytest.mark.parametrize("step", ["color", "gamma"])
def test_colours_keep_the_ground_truth(step):
    pair = noise_pair()
    for index in range(10):
        assert differing(pair, augment(pair, only(step), (0, 0, index))) == {"left", "right"}


@pytest.mark.parametrize("step", ["color", "gamma"])
def test_asymmetric_differs_between_views_and_symmetric_does_not(step):
    pair = noise_pair()
    pair = dataclasses.replace(pair, right=pair.left)
    for asymmetry in (0.0, 0.5, 1.0):
        config = only(step, asymmetry=asymmetry)
        changed = [augment(pair, config, (0, 0, index)) for index in range(40)]
        share = np.mean([not np.array_equal(c.left, c.right) for c in changed])
        assert abs(share - asymmetry) < (0.25 if asymmetry == 0.5 else 1e-9)


# What a draw changes, of a right view whose two halves are two shades of red.
DRAWN = {
    "brightness": ("color", lambda right: right.mean()),
    "contrast": ("color", lambda right: right[:, :16].mean() - right[:, 16:].mean()),
    "saturation": ("color", lambda right: right[..., 0].mean() - right[..., 1:].mean()),
    "hue": ("color", lambda right: right[..., 1].mean() - right[..., 2].mean()),
    "vertical_shift": ("vertical_shift", lambda right: right.mean()),
    "rotation": ("rotation", lambda right: right[2].mean() - right[21].mean()),
}


@pytest.mark.parametrize("name", DRAWN)
def test_draws_go_either_way(name):
    step, measure = DRAWN[name]
    right = np.empty((24, 32, 3), np.uint8)
    right[:, :16], right[:, 16:] = (180, 120, 120), (90, 60, 60)
    if step == "vertical_shift":
        right[:] = 5 * np.arange(24, dtype=np.uint8)[:, None, None]
    pair = dataclasses.replace(noise_pair(), right=right)
    still = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    options = still | {name: 0.4 if step == "color" else 20.0}
    changes = []
    for index in range(30):
        changed = augment(pair, only(step, **options), (0, 0, index)).right
        changes.append(measure(changed.astype(float)) - measure(right.astype(float)))
    assert min(changes) < -8 and max(changes) > 8


def test_vertical_shift_equals_hand_computed_values():
    image = noise_pair().right
    rows = np.arange(24)
    assert np.array_equal(misalign(image, 2.0, 0.0), image[np.clip(rows - 2, 0, 23)])
    assert np.array_equal(misalign(image, -3.0, 0.0), image[np.clip(rows + 3, 0, 23)])
    half = (image[rows].astype(float) + image[np.clip(rows - 1, 0, 23)]) / 2
    assert np.abs(misalign(image, 0.5, 0.0) - half).max() <= 0.51


@pytest.mark.parametrize("degrees", [-3.0, 0.1, 2.0])
def test_rotation_equals_opencvs(degrees):
    image = plane_pair().right
    matrix = cv2.getRotationMatrix2D((119 / 2, 79 / 2), -degrees, 1.0)
    expected = cv2.warpAffine(image, matrix, (120, 80), borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(misalign(image, 0.0, degrees).astype(int) - expected).max() <= 3


def test_eraser_fills_rectangles_with_the_mean_colour():
    pair = noise_pair(60, 90)
    mean = pair.right.mean(axis=(0, 1)).round()
    counts = set()
    for index in range(40):
        config = only("eraser", eraser_rectangles=3, eraser_side=(6, 9))
        right = augment(pair, config, (0, 0, index)).right
        erased = (right != pair.right).any(axis=2)
        assert (right[erased] == mean).all()
        count, _, stats, _ = cv2.connectedComponentsWithStats((right == mean).all(2).astype("u1"))
        counts.add(count - 1)
        for left, top, width, height, area in stats[1:]:
            if area == width * height and left + width < 90 and top + height < 60:
                assert width >= 6 and height >= 6
        assert erased.sum() <= 3 * 81
    assert {1, 2, 3} <= counts


def test_eraser_copies_another_part_of_the_right_view():
    pair = positions_pair(60, 90)
    config = only("eraser", eraser_rectangles=1, eraser_side=(6, 9), eraser_elsewhere=1.0)
    moved = 0
    for index in range(20):
        right = augment(pair, config, (0, 0, index)).right.astype(int)
        erased = (right != pair.right).any(axis=2)
        rows, columns = erased.nonzero()
        if len(rows):  # one rigid move of a window
            moves = right[rows, columns] - pair.right[rows, columns]
            assert (moves == moves[0]).all() and moves[0, 2] == 0  # 8 in the right view alone
            moved += 1
    assert moved >= 15


def test_warp_moves_rows_smoothly_within_its_limit():
    y = np.repeat(np.arange(60, dtype=np.uint8)[:, None] * 4, 90, 1)
    image = np.stack([y] * 3, 2)
    grid = np.array([[2.0, 0.0], [-2.0, -1.0]])
    moved = (image.astype(int) - warp_vertically(image, grid))[3:-3, :, 0] / 4
    assert moved.min() >= -2 and moved.max() <= 2
    assert abs(moved[0, 0] - 1.8) < 0.2 and abs(moved[-1, -1] + 0.95) < 0.2
    assert np.abs(np.diff(moved, axis=1)).max() < 0.51
    assert np.array_equal(warp_vertically(image, np.ones((2, 2)))[1:], image[:-1])


def test_blur_changes_one_view_and_keeps_its_mean():
    pair, blurred = noise_pair(), set()
    for index in range(20):
        changed = augment(pair, only("blur", blur=3.0), (0, 0, index))
        names = differing(pair, changed)
        assert len(names) <= 1 and names <= {"left", "right"}
        blurred |= names
        for name in names:
            before, after = getattr(pair, name), getattr(changed, name)
            assert after.std() < before.std()
            assert abs(after.mean() - before.mean()) < 3
    assert blurred == {"left", "right"}
    assert blur_image(pair.left, 0.0) is pair.left


def test_input_arrays_are_never_written_to():
    pair = noise_pair()
    for name in FIELDS:
        getattr(pair, name).flags.writeable = False
    for index in range(5):
        augment(pair, dataclasses.replace(EVERYTHING, crop=(20, 20)), (0, 0, index))
        to_tensors(pair, IMAGENET_MEAN, IMAGENET_STD)


# --- images


def test_colours_equal_hand_computed_values():
    image = np.full((2, 2, 3), (100, 50, 200), np.uint8)
    assert adjust_color(image, 1.2, 1.0, 1.0, 0.0)[0, 0].tolist() == [120, 60, 240]
    grey = adjust_color(image, 1.0, 1.0, 0.0, 0.0)[0, 0]  # 0.299 R + 0.587 G + 0.114 B = 82.05
    assert grey.tolist() == [82, 82, 82]
    red = np.full((1, 1, 3), (255, 0, 0), np.uint8)
    assert adjust_color(red, 1.0, 1.0, 1.0, 0.5)[0, 0].tolist() == [0, 255, 255]
    two = np.array([[[50] * 3, [150] * 3]], np.uint8)  # mean 100
    assert adjust_color(two, 1.0, 0.5, 1.0, 0.0)[0, :, 0].tolist() == [75, 125]
    red_and_black = np.array([[[200, 0, 0], [0, 0, 0]]], np.uint8)  # mean grey 29.9
    half = adjust_color(red_and_black, 1.0, 0.5, 1.0, 0.0)[0]
    assert half.tolist() == [[114, 14, 14], [14, 14, 14]]
    assert adjust_gamma(two, 2.0)[0, :, 0].tolist() == [9, 88]  # 255 (v / 255)^2


def test_colours_equal_torchvisions():
    from torchvision.transforms.v2 import functional

    image = noise_pair().left
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for factor in (0.6, 1.0, 1.4):
        expected = functional.adjust_contrast(tensor, factor).permute(1, 2, 0).numpy()
        ours = adjust_color(image, 1.0, factor, 1.0, 0.0)
        assert np.abs(ours.astype(int) - expected).max() <= 1


def test_resizing_keeps_constants_and_the_centre():
    image = np.full((7, 9, 3), 93, np.uint8)
    assert (resize_image(image, 13, 4) == 93).all()
    ramp = np.broadcast_to(np.arange(0, 90, 10, dtype=np.uint8)[None, :, None], (7, 9, 3))
    double = resize_image(ramp, 14, 18)[0, :, 0].astype(float)
    assert np.abs(double[1:-1] - ((np.arange(1, 17) + 0.5) / 2 - 0.5) * 10).max() <= 0.5


# --- choices


@pytest.mark.parametrize("step", STEPS)
def test_probabilities_are_honoured_and_not_inverted(step):
    pair = noise_pair()
    for probability in (0.0, 0.5, 1.0):
        config = only(step, probability, **STRONG.get(step, {}))
        happened = []
        for index in range(100 if probability == 0.5 else 25):
            changed = augment(pair, config, (1, 2, index))
            happened.append(changed is not pair and bool(differing(pair, changed)))
        # A drawn stretch may be too small to change a size in whole pixels.
        allowed = 0.16 if probability == 0.5 else 0.0 if step != "stretch" else 0.1
        assert abs(np.mean(happened) - probability) <= allowed


def test_the_same_triple_gives_the_same_pair_in_any_order():
    pair = noise_pair()
    config = dataclasses.replace(EVERYTHING, crop=(20, 20))
    seeds = [(seed, epoch, index) for seed in (0, 7) for epoch in (0, 1) for index in (0, 5)]
    first = {seed: augment(pair, config, seed) for seed in seeds}
    for seed in reversed(seeds):
        assert not differing(first[seed], augment(pair, config, seed))
    for one in seeds:
        for other in seeds:
            assert one == other or differing(first[one], first[other])


def test_an_extra_step_does_not_change_other_steps_choices():
    pair = positions_pair(40, 50)
    crop = AugmentationConfig(crop=(10, 20))
    for index in range(10):
        plain = augment(pair, crop, (0, 0, index))
        more = augment(pair, dataclasses.replace(crop, flip_probability=1.0), (0, 0, index))
        top, left = plain.left[0, 0, :2]
        # The flipped view counts columns from the other end and rows from the same.
        assert more.left[0, 0, 0] - 1 == top
        assert 49 - (more.left[0, 0, 1] - 1) == left


class Pairs(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        config = dataclasses.replace(EVERYTHING, crop=(20, 24))
        changed = augment(plane_pair(40, 60), config, (5, 2, index))
        return to_tensors(changed, IMAGENET_MEAN, IMAGENET_STD) | {"index": index}


def test_any_number_of_workers_gives_the_same_samples():
    alone = [Pairs()[index] for index in range(6)]
    for workers in (0, 1, 2):
        order = [3, 1, 5, 0, 4, 2]
        loader = DataLoader(Pairs(), batch_size=2, sampler=order, num_workers=workers)
        for batch in loader:
            for row, index in enumerate(batch["index"].tolist()):
                for key in ("left", "right", "disparity", "valid"):
                    assert torch.equal(batch[key][row], alone[index][key])


def digest_of_everything():
    config = dataclasses.replace(EVERY_STEP, crop=(128, 200), color_probability=1.0)
    digest = hashlib.sha256()
    for index in range(3):
        changed = augment(plane_pair(200, 300), config, (9, 1, index))
        for name in FIELDS:
            digest.update(getattr(changed, name).tobytes())
    return digest.hexdigest()


@pytest.mark.slow
def test_other_processes_and_numbers_of_threads_give_the_same_bytes():
    folders = [str(REPOSITORY / each) for each in ("tests", "tests/data/augmentation")]
    code = (
        f"import sys, torch; sys.path[:0] = {folders!r};"
        "import test_augment as t;"
        "torch.set_num_threads(1); print(t.digest_of_everything());"
        "torch.set_num_threads(3); print(t.digest_of_everything())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.split() == [digest_of_everything()] * 2


def test_global_random_states_stay_untouched():
    def states():
        return (
            random.getstate(),
            torch.get_rng_state().tolist(),
            [str(part) for part in np.random.get_state()],  # noqa: NPY002
        )

    before = states()
    one = augment(noise_pair(), EVERYTHING, (0, 0, 0))
    assert states() == before
    random.seed(1)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert not differing(one, augment(noise_pair(), EVERYTHING, (0, 0, 0)))


@pytest.mark.parametrize("seed", [(0, 0), (-1, 0, 0), (0, 0, -3)])
def test_a_wrong_seed_is_refused(seed):
    with pytest.raises(ValueError, match="expected"):
        augment(noise_pair(), AugmentationConfig(), seed)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    crop=st.none() | st.tuples(st.integers(1, 50), st.integers(1, 50)),
    index=st.integers(0, 2**31),
    right=st.booleans(),
)
def test_any_size_and_crop_keep_the_invariants(height, width, crop, index, right):
    pair = noise_pair(height, width, index % 1000, right)
    changed = augment(pair, dataclasses.replace(EVERYTHING, crop=crop), (0, 0, index))
    assert crop is None or changed.size == crop
    assert (changed.disparity[changed.valid] > 0).all()
    assert np.isfinite(changed.disparity[changed.valid]).all()
    assert (changed.right_disparity is None) == (not right)
    tensors = to_tensors(changed, IMAGENET_MEAN, IMAGENET_STD)
    assert all(torch.isfinite(tensors[key]).all() for key in ("left", "right", "disparity"))
    assert (tensors["disparity"][~tensors["valid"]] == 0).all()


# --- configuration, tensors, samples


@pytest.mark.parametrize(
    "options",
    [
        *({f"{step}_probability": value} for step in STEPS[:2] for value in (-0.1, 1.1, "often")),
        {"flip_probability": float("nan")},
        {"flip_probability": True},
        {"asymmetry": 2},
        {"brightness": 1.5},
        {"hue": 0.6},
        {"stretch": 0.9},
        {"vertical_shift": -1},
        {"rotation": 90},
        {"scale": (0, 1)},
        {"scale": (1.5, 1.0)},
        {"scale": 1.5},
        {"gamma": (0.8, float("inf"))},
        {"eraser_side": (50.5, 100)},
        {"eraser_side": (0, 100)},
        {"eraser_rectangles": 0},
        {"crop": (0, 512)},
        {"crop": (256,)},
        {"crop": 256},
        {"crop": (256.0, 512)},
        {"crop": (256, True)},
    ],
    ids=str,
)
def test_a_bad_configuration_is_refused_in_one_line(options):
    with pytest.raises(UsageError) as error:
        AugmentationConfig(**options)
    assert str(error.value).count("\n") == 0
    assert next(iter(options)) in str(error.value) and "expected" in str(error.value)


def test_presets():
    default = AugmentationConfig()
    assert default.crop == (256, 512)
    assert all(getattr(default, f"{step}_probability") == 0 for step in STEPS)
    assert all(getattr(EVERY_STEP, f"{step}_probability") > 0 for step in STEPS)
    assert AugmentationConfig(crop=[8, 9], scale=[1, 2]).crop == (8, 9)  # lists, as YAML has them
    everything_stored = json.loads(json.dumps(dataclasses.asdict(EVERY_STEP)))
    assert AugmentationConfig(**everything_stored) == EVERY_STEP


def test_every_field_has_its_docstring():
    source = (REPOSITORY / "stereo" / "data" / "augmentation" / "config.py").read_text()
    for field in dataclasses.fields(AugmentationConfig):
        line = source.index(f"\n    {field.name}: ")
        assert source[source.index("\n", line + 1) + 1 :].startswith('    """'), field.name


def test_tensors_are_normalised_and_collate():
    pair = noise_pair()
    tensors = to_tensors(pair, IMAGENET_MEAN, IMAGENET_STD)
    for view in ("left", "right"):
        expected = (getattr(pair, view) / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
        assert tensors[view].dtype == torch.float32
        assert np.abs(tensors[view].numpy() - expected.transpose(2, 0, 1)).max() < 1e-5
    assert tensors["disparity"].dtype == torch.float32 and tensors["valid"].dtype == torch.bool
    assert np.array_equal(tensors["valid"].numpy(), pair.valid)
    assert np.array_equal(tensors["disparity"].numpy()[pair.valid], pair.disparity[pair.valid])
    assert not tensors["disparity"].numpy()[~pair.valid].any()
    batch = default_collate([tensors, tensors])
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "left": (2, 3, 24, 32),
        "right": (2, 3, 24, 32),
        "disparity": (2, 24, 32),
        "valid": (2, 24, 32),
    }


def test_a_sample_becomes_a_training_pair_if_it_has_ground_truth():
    pair = noise_pair(right_disparity=False)
    sample = Sample("a", pair.left, pair.right, pair.disparity, pair.valid)
    assert not differing(pair, TrainingPair.from_sample(sample))
    with pytest.raises(InputError, match="a: no ground truth"):
        TrainingPair.from_sample(Sample("a", pair.left, pair.right))


# --- the contact sheet


def test_every_row_of_the_sheet_but_the_last_is_one_augmentation():
    rows = rows_for(plane_pair())
    assert [title for title, _, _ in rows] == [
        *("original", "colour", "gamma", "eraser", "vertical shift", "rotation", "warp", "blur"),
        *("scale", "stretch", "flip", "crop", "all together"),
    ]
    for title, _, config in rows:
        happening = [getattr(config, f"{step}_probability") for step in STEPS]
        number = sum(happening) + (config.crop is not None)
        assert number == {"original": 0, "all together": len(STEPS) + 1}.get(title, 1)


def test_the_sheet_is_dark_where_the_disparity_fits():
    pair = plane_pair()
    valid = pair.valid.copy()
    valid[:, 60:] = False
    wrong = dataclasses.replace(pair, disparity=pair.disparity * np.float32(1.5), valid=valid)
    right, apart = residual(pair).astype(int), residual(wrong).astype(int)
    assert right[:, 15:].mean() < 10 < 40 < apart[:, 20:60].mean()
    unknown = apart[:, 60:].reshape(-1, 3)
    assert (unknown == unknown[0]).all() and (right[:, 0] == unknown[0]).all()


@pytest.fixture
def small_set(tmp_path):
    """A manifest of two small pairs; one ground truth is sparse."""
    root = tmp_path / "data"
    root.mkdir()
    entries = []
    for number, pair in enumerate((plane_pair(40, 60), noise_pair(30, 50))):
        names = {"left": f"l{number}.png", "right": f"r{number}.png", "gt": f"d{number}.npy"}
        Image.fromarray(pair.left).save(root / names["left"])
        Image.fromarray(pair.right).save(root / names["right"])
        np.save(root / names["gt"], np.where(pair.valid, pair.disparity, np.nan))
        entries.append({"name": f"pair {number}", **names})
    (root / "manifest.json").write_text(json.dumps(entries))
    return ("--dataset", "manifest", "--root", root)


def test_preview_writes_a_sheet(stereo, tmp_path, small_set):
    sheet = tmp_path / "new" / "sheet.png"
    sizes, pictures = [], []
    for more in ((), ("--count", 1), ("--count", 1, "--seed", 1)):
        done = stereo("data", "preview", *small_set, "--output", sheet, *more)
        assert done.status == 0 and not done.errors
        with Image.open(sheet) as image:
            sizes.append(image.height)
            pictures.append(np.asarray(image))
    assert sizes[0] > 1.5 * sizes[1]
    assert pictures[1].shape != pictures[2].shape or (pictures[1] != pictures[2]).any()
    assert [path.name for path in sheet.parent.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--output", "sheet.txt"), 2, "is a .png file"),
        (("--output", "sheet.png", "--count", "0"), 2, "1 to 50"),
        (("--output", "sheet.png", "--seed", "-1"), 2, "0 or more"),
        (("--output", "sheet.png", "--root", "nowhere"), 1, "no such folder"),
    ],
)
def test_preview_refuses_a_wrong_call_in_one_line(
    stereo, tmp_path, monkeypatch, options, status, said
):
    monkeypatch.chdir(tmp_path)
    root = REPOSITORY / "datasets" / "samples"
    done = stereo("data", "preview", "--dataset", "sceneflow", "--root", root, *options)
    assert done.status == status and len(done.errors) == 1 and said in done.errors[0]
    assert not list(tmp_path.iterdir())
