"""Sequences of rendered scenes: what moves, and that the geometry stays exact."""

from dataclasses import replace

import numpy as np
import pytest

from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.data.synthetic.rng import SceneRng
from stereo.data.synthetic.sequences import at_frame
from stereo.data.synthetic.synthesize import pair_files, synthesize

FRAMES = 5
SEQUENCE = SyntheticConfig(height=64, width=128, max_disparity=48, frames=FRAMES, seed=4)
SCENES = SyntheticScenes(SEQUENCE)


def places(sequence):
    """Return where the camera is in each frame."""
    scene = SCENES.compose(sequence)
    rngs = [SceneRng(SEQUENCE.seed, sequence, 3) for _ in range(FRAMES)]
    return [at_frame(scene, rng, k, FRAMES)[1] for k, rng in enumerate(rngs)]


STILL = next(sequence for sequence in range(20) if not any(places(sequence)))
SLIDING = next(sequence for sequence in range(20) if any(places(sequence)))


@pytest.mark.parametrize("sequence", [STILL, SLIDING])
def test_both_views_of_every_frame_agree(sequence):
    for frame in (0, FRAMES - 1):
        pair = SCENES.render(sequence * FRAMES + frame)
        y, x = np.nonzero(pair.nonoccluded)
        column = np.rint(x - pair.disparity[y, x]).astype(int)
        inside = (column >= 0) & (column < SEQUENCE.width)
        apart = pair.right_disparity[y[inside], column[inside]] - pair.disparity[y, x][inside]
        assert np.mean(np.abs(apart) < 1) > 0.95
        assert inside.mean() > 0.98


def test_a_translating_camera_moves_everything_by_its_disparity():
    first, last = places(SLIDING)[0], places(SLIDING)[-1]
    assert 0.05 < abs(last - first) <= 1
    before, after = (SCENES.render(SLIDING * FRAMES + k) for k in (0, FRAMES - 1))
    y, x = np.indices(before.disparity.shape)
    column = np.rint(x - (last - first) * before.disparity).astype(int).clip(0, SEQUENCE.width - 1)
    same = np.abs(after.disparity[y, column] - before.disparity) < 0.5
    assert same.mean() > 0.7  # the rest is hidden, left the frame or is an object that moves


def test_with_a_static_camera_only_objects_move():
    pairs = [SCENES.render(STILL * FRAMES + frame) for frame in range(FRAMES)]
    still = np.all([pair.disparity == pairs[0].disparity for pair in pairs], axis=0)
    assert 0.3 < still.mean() < 1
    clean = np.array([pair.clean_left.astype(int) for pair in pairs])
    assert np.median(np.ptp(clean, axis=0)[still]) <= 4  # exposure follows the frame
    assert not np.array_equal(pairs[0].left[still], pairs[1].left[still])  # other noise


def test_a_moving_object_takes_its_disparities_and_its_texture_along():
    moved, (x, y) = 0, (50, 20)
    for sequence in range(4):
        scene = SCENES.compose(sequence)
        waving = (
            replace(each, surface=replace(each.surface, wave=(0.01, 0.02, 0.3, 2.0)))
            for each in scene.layers
        )
        scene = replace(scene, layers=tuple(waving))
        first, last = (
            at_frame(scene, SceneRng(SEQUENCE.seed, sequence, 3), frame, FRAMES)[0].layers
            for frame in (0, FRAMES - 1)
        )
        for before, after in zip(first, last, strict=True):
            if before == after:
                continue
            outlines = before.surface.outline, after.surface.outline
            dx, dy = (getattr(outlines[1], at) - getattr(outlines[0], at) for at in "xy")
            for was, now in (
                (before.surface.plane, after.surface.plane),
                (before.surface.wave[:3], after.surface.wave[:3]),
                (before.look.mapping[:3], after.look.mapping[:3]),
                (before.look.mapping[3:], after.look.mapping[3:]),
            ):
                expected = was[0] * x + was[1] * y + was[2]
                assert now[0] * (x + dx) + now[1] * (y + dy) + now[2] == pytest.approx(expected)
            for was, now in (
                (before.surface.bump, after.surface.bump),
                (before.look.shine, after.look.shine),
            ):
                assert (now[0] - was[0], now[1] - was[1]) == pytest.approx((dx, dy))
            moved += abs(dx) > 1
    assert moved > 3


@pytest.mark.slow
def test_sequences_are_written_to_folders_and_resumed(tmp_path):
    assert synthesize(tmp_path, SEQUENCE, 2) == (2 * FRAMES, 0)
    assert synthesize(tmp_path, SEQUENCE, 2) == (0, 2 * FRAMES)
    for sequence, frame in ((0, 0), (1, FRAMES - 1)):
        path = pair_files(tmp_path, "train", sequence * FRAMES + frame, FRAMES)[0]
        assert path.parts[-3:] == (f"{sequence:04d}", "left", f"{6 + frame:04d}.png")
        assert path.is_file()
