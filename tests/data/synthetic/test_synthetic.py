"""Rendered scenes: the same everywhere, geometrically exact, as varied as configured."""

import json
import shutil
import zlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from stereo.data.sets.datasets import detect_dataset, open_dataset
from stereo.data.synthetic import RenderedPair, SyntheticConfig, SyntheticScenes, render, sensor
from stereo.data.synthetic.noise import white_noise
from stereo.data.synthetic.rng import SceneRng
from stereo.data.synthetic.scene import REPEATED
from stereo.data.synthetic.sensor import draw_sensors, shifted_truth
from stereo.data.synthetic.surface import (
    DISTANCES,
    Outline,
    Surface,
    disparity,
    left_column,
    signed_distance,
)
from stereo.data.synthetic.synthesize import VERSION, pair_files, synthesize
from stereo.data.synthetic.trace import footprint
from stereo.errors import InputError, UsageError
from stereo.matching.sgbm import semi_global_matching

SMALL = SyntheticConfig(height=96, width=160, max_disparity=64, objects=(4, 10))
FAULTLESS = dict.fromkeys(
    (*("shine", "reflections", "photometric", "noise", "blur", "vignetting"), "misalignment"), 0.0
)
ARRAYS = [name for name in RenderedPair.__dataclass_fields__ if name != "name"]


@cache
def rendered(config, index):
    """A pair that several tests look at; rendering takes most of their time."""
    return SyntheticScenes(config).render(index)


def same(first, second):
    return all(np.array_equal(getattr(first, n), getattr(second, n)) for n in ARRAYS)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, which stall each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pairs():
    config = replace(SMALL, shine=0.0, reflections=0.0)
    return [rendered(config, index) for index in range(8)]


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for k in range(2):
        noise = np.random.default_rng(k).integers(0, 256, (40, 60, 3)).astype(np.uint8)
        noise[..., 1 + k] = 0  # a colour that painted textures do not have everywhere
        Image.fromarray(noise).save(folder / f"{k}.png")
    return folder


def test_an_index_gives_the_same_bytes_whatever_came_before(pairs):
    config = replace(SMALL, shine=0.0, reflections=0.0)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            torch.manual_seed(count)
            assert same(SyntheticScenes(config).render(7), pairs[7])
    finally:
        torch.set_num_threads(threads)


def test_bytes_change_only_with_the_renderer_version(pairs):
    # The same on every machine. If you meant to change what is rendered, raise VERSION.
    checksum = 0
    for pair in pairs[:4]:
        for name in ARRAYS:
            checksum = zlib.crc32(getattr(pair, name).tobytes(), checksum)
    assert (VERSION, checksum) == (6, 2902177786)


def test_index_and_seed_make_different_pairs(pairs):
    assert not np.array_equal(pairs[0].left, pairs[1].left)
    other = SyntheticScenes(replace(SMALL, seed=1)).render(0)
    assert not np.array_equal(pairs[0].disparity, other.disparity)


def test_the_global_random_state_is_not_touched():
    before = torch.random.get_rng_state()
    SyntheticScenes(SMALL).render(0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_pairs_have_the_documented_types(pairs):
    for pair in pairs:
        for name in ARRAYS:
            array = getattr(pair, name)
            colour = "left" in name or ("right" in name and name in ("right", "clean_right"))
            assert array.shape == ((96, 160, 3) if colour else (96, 160)), name
        assert pair.left.dtype == pair.clean_right.dtype == np.uint8
        assert pair.disparity.dtype == pair.right_disparity.dtype == np.float32
        assert pair.nonoccluded.dtype == pair.right_nonoccluded.dtype == bool
    sample = pairs[0].sample()
    assert sample.valid.all() and sample.valid_right.all()
    for name in ("left", "right", "disparity", "nonoccluded"):
        assert getattr(sample, name) is getattr(pairs[0], name)
    assert sample.disparity_right is pairs[0].right_disparity


def at_match(values, columns):
    """Take (H, W, ...) values at fractional columns, linearly; also the two neighbours' gap."""
    rows = np.arange(values.shape[0])[:, None]
    first = np.clip(np.floor(columns).astype(int), 0, values.shape[1] - 2)
    part = np.clip(columns - first, 0, 1)
    values = values.astype(np.float32)
    if values.ndim == 3:
        part = part[..., None]
    low, high = values[rows, first], values[rows, first + 1]
    return low + (high - low) * part, np.abs(high - low)


@pytest.mark.parametrize("side", ["left", "right"])
def test_both_views_show_the_same_surfaces(side):
    agree, alike, total = 0, 0, 0
    straight = replace(SMALL, **FAULTLESS)
    for pair in (rendered(straight, index) for index in range(6)):
        columns = np.arange(160, dtype=np.float32)[None]
        if side == "left":
            own, other, seen, sign = (
                *(pair.disparity, pair.right_disparity),
                *(pair.nonoccluded, -1),
            )
            colour, other_colour = pair.clean_left, pair.clean_right
        else:
            own, other, seen, sign = (
                *(pair.right_disparity, pair.disparity),
                *(pair.right_nonoccluded, 1),
            )
            colour, other_colour = pair.clean_right, pair.clean_left
        match = columns + sign * own
        # Where the two neighbours of the match lie on two surfaces nothing can be interpolated.
        warped, gap = at_match(other, match)
        inside = seen & (match >= 0) & (match <= 159) & (gap < 1.0)
        agree += (np.abs(warped - own)[inside] < 0.05).sum()
        shown, rough = at_match(other_colour, match)
        near = np.abs(shown - colour) <= 12 + 0.6 * rough
        alike += near.all(axis=2)[inside].sum()
        total += inside.sum()
    assert total > 0.4 * 6 * 96 * 160
    assert agree / total > 0.99  # the rest: two surfaces less than a pixel apart
    assert alike / total > 0.97


def test_disparities_stay_between_the_limits(pairs):
    for pair in pairs:
        for values in (pair.disparity, pair.right_disparity):
            assert np.isfinite(values).all()
            assert values.min() > SMALL.min_disparity
            assert values.max() < SMALL.max_disparity


@pytest.mark.slow
@pytest.mark.parametrize("distribution", ["mixed", "uniform", "log"])
def test_disparities_cover_the_whole_range(distribution):
    config = replace(SMALL, distribution=distribution)
    counts = np.zeros(16)
    for index in range(16):
        counts += np.histogram(rendered(config, index).disparity, 16, (0, 64))[0]
    assert (counts / counts.sum() > 5e-5).all(), counts


@pytest.mark.slow
def test_log_draws_smaller_disparities_than_uniform():
    means = [
        np.mean([rendered(replace(SMALL, distribution=d), i).disparity.mean() for i in range(8)])
        for d in ("log", "uniform")
    ]
    assert means[0] < means[1]


def brute_force_view(layers, limits, x_view, y, noise, *, right):
    """Ask every surface at (1, N) points; return the nearest layers and their disparities."""
    nearest, best = torch.zeros(x_view.shape, dtype=torch.int64), torch.zeros(x_view.shape)
    for k, layer in enumerate(layers):
        surface = layer.surface
        x = x_view
        if right:  # bisection of x - d(x, y) = x_view, which grows with x
            low, high = x_view.double() - 1000.0, x_view.double() + 1000.0
            for _ in range(60):
                x = (low + high) / 2
                beyond = x - disparity(surface, x, y) > x_view
                low, high = torch.where(beyond, low, x), torch.where(beyond, x, high)
        d = disparity(surface, x, y)
        ahead = (d > limits[0]) & (d < limits[1]) & (d > best)
        if surface.outline is not None:
            ahead &= signed_distance(surface.outline, x.float(), y, noise) < 0
        nearest, best = nearest.masked_fill(ahead, k), torch.where(ahead, d.float(), best)
    return nearest, best


@pytest.mark.slow
def test_occlusion_masks_equal_a_search_point_by_point():
    config = SyntheticConfig(height=32, width=64, max_disparity=32, objects=(6, 10))
    scenes = SyntheticScenes(config)
    limits, wrong, asked, hidden = (config.min_disparity, 32.0), 0, 0, 0
    columns = torch.arange(1.0, 64.0, 3.0)[None]
    for index in (0, 1, 2):
        scene, pair = scenes.compose(index), scenes.render(index)
        atlas = scenes._paint(scene, SceneRng(config.seed, index, 1))
        for row in range(3, 32, 9):
            y = torch.full_like(columns, row)
            own, d = brute_force_view(scene.layers, limits, columns, y, atlas.noise, right=False)
            assert np.abs(d[0].numpy() - pair.disparity[row, 1::3]).max() < 1e-3
            match = columns - d
            other, _ = brute_force_view(scene.layers, limits, match, y, atlas.noise, right=True)
            seen = (other == own) & (match >= -0.5) & (match <= 63.5)
            wrong += (seen[0].numpy() != pair.nonoccluded[row, 1::3]).sum()
            hidden += (~seen).sum()
            asked += seen.numel()
    assert hidden > 10
    assert wrong <= 0.01 * asked  # rounding at an outline


def test_inverse_is_exact_on_curved_surfaces():
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(120.0), indexing="ij")
    steep = Surface((0.3, 0.1, 5.0), wave=(0.02, 0.01, 0.3, 4.0))
    ball = Surface((0.0, 0.0, 30.0), bump=(60.0, 40.0, 1 / 30, 1 / 30, 0.48 * 30 / 3.7))
    for surface in (steep, ball):
        back = left_column(surface, x - disparity(surface, x, y), y)
        assert (back - x).abs().max() < 1e-3


def test_footprints_hold_all_of_their_surfaces():
    y, x = torch.meshgrid(torch.arange(-60.0, 160.0), torch.arange(-60.0, 160.0), indexing="ij")
    noise = torch.rand(256, 256, generator=torch.Generator().manual_seed(0))
    for kind in DISTANCES:
        outline = Outline(
            *(kind, 50.0, 45.0, 30.0, 18.0, 0.6, 0.8),
            period=12.0,
            width=3.0,
            rough=0.4,
            sides=((1.0, 0.0, 12.0), (-0.6, 0.8, 9.0), (-0.6, -0.8, 9.0)),
        )
        inside = signed_distance(outline, x, y, noise) < 0
        assert inside.any(), kind
        foot = footprint(Surface((0.0, 0.0, 5.0), outline=outline), (0.5, 64.0))
        assert foot.x[0] < x[inside].min() and x[inside].max() < foot.x[1], kind
        assert foot.y[0] < y[inside].min() and y[inside].max() < foot.y[1], kind


@pytest.mark.parametrize("effect", ["photometric", "noise", "blur", "vignetting", "misalignment"])
def test_each_camera_artefact_differs_between_the_views(effect):
    plain = replace(SMALL, **FAULTLESS)
    faulty = SyntheticScenes(replace(plain, **{effect: 3.0}))
    left, right, between = 0, 0, 0
    for index in range(6):
        clean, pair = rendered(plain, index), faulty.render(index)
        assert np.array_equal(clean.clean_left, pair.clean_left)
        assert np.array_equal(clean.disparity, pair.disparity)
        off_left = pair.left.astype(float) - clean.left
        off_right = pair.right.astype(float) - clean.right
        left, right = left + np.abs(off_left).mean(), right + np.abs(off_right).mean()
        between += np.abs(np.abs(off_left).mean() - np.abs(off_right).mean())
    assert right > 0.1
    assert (left == 0) == (effect == "misalignment")  # the left view is the reference
    assert between > 0.02


def test_the_right_views_truth_is_askew_as_its_picture_is(monkeypatch):
    straight = rendered(replace(SMALL, **FAULTLESS), 0)

    def askew(config, rng):
        left, right = draw_sensors(config, rng)
        return left, replace(right, offset=2.0)

    monkeypatch.setattr(render, "draw_sensors", askew)
    pair = SyntheticScenes(replace(SMALL, **FAULTLESS)).render(0)
    assert not np.array_equal(pair.right, straight.right)
    for name in ARRAYS:
        before, after = getattr(straight, name), getattr(pair, name)
        if name in ("right", "right_disparity", "right_nonoccluded"):
            before, after = before[2:], after[:-2]
        assert np.array_equal(before, after), name


def test_truth_is_interpolated_on_surfaces_and_nearest_at_their_edges():
    rows = torch.arange(8.0)[:, None].expand(8, 4)
    seen = rows < 5
    disparity = torch.where(seen, 0.5 * rows, 20.0 + 0.5 * rows)
    _, camera = draw_sensors(replace(SMALL, **FAULTLESS), SceneRng(0))
    found, visible = shifted_truth(disparity, seen, replace(camera, offset=0.25))
    assert torch.equal(found[:4], 0.5 * rows[:4] + 0.125)
    assert torch.equal(found[4], disparity[4])
    assert torch.equal(visible, seen)


@pytest.mark.parametrize("deviation", [0.6, 1.5, 4.0])
def test_blur_has_the_deviation_asked_for(deviation):
    point = torch.zeros(81, 81, 3)
    point[40, 40] = 1.0
    across = sensor._blurred(point, deviation)[..., 0].sum(dim=0)
    variance = float((across * (torch.arange(81.0) - 40.0) ** 2).sum())
    assert variance == pytest.approx(deviation**2, rel=1e-3)


@pytest.mark.parametrize("effect", ["shine", "reflections"])
def test_shine_and_reflections_move_against_the_surface(effect):
    config = replace(SMALL, **FAULTLESS)
    with_effect = SyntheticScenes(replace(config, **{effect: 3.0}))
    moved = 0
    for index in range(6):
        plain, pair = rendered(config, index), with_effect.render(index)
        added = pair.clean_left.astype(np.float32) - plain.clean_left
        added_right = pair.clean_right.astype(np.float32) - plain.clean_right
        match = np.arange(160, dtype=np.float32)[None] - plain.disparity
        warped, _ = at_match(added_right, match)
        moved += (np.abs(warped - added).max(axis=2) > 8)[plain.nonoccluded].sum()
    assert moved > 500


def test_mirrored_pictures_move_by_their_own_disparity(monkeypatch):
    scenes = SyntheticScenes(replace(SMALL, **FAULTLESS))
    scene = scenes.compose(0)
    layers = tuple(
        replace(layer, look=replace(layer.look, tint=(0, 0, 0), mirror=(0.0, 1.0, 7.0, 1.0)))
        for layer in scene.layers
    )
    monkeypatch.setattr(scenes, "compose", lambda _: replace(scene, layers=layers))
    pair = scenes.render(0)
    assert pair.clean_left.std() > 10
    assert np.abs(pair.clean_left[:, 7:].astype(int) - pair.clean_right[:, :-7]).mean() < 1


def test_plain_repeated_and_large_surfaces_match_the_requested_shares():
    def looks(**shares):
        scenes = SyntheticScenes(replace(SMALL, places=("room", "heap"), **shares))
        return [scenes.compose(index) for index in range(12)]

    def share(scenes, true):
        return np.mean([true(layer.look) for scene in scenes for layer in scene.layers])

    usual, plain, periodic = looks(), looks(plain=1.0), looks(repetition=1.0)
    assert share(usual, lambda look: look.contrast > 0.3) > 0.3
    assert share(plain, lambda look: look.contrast > 0.3) < 0.05
    assert share(usual, lambda look: look.texture in REPEATED) < 0.2
    assert share(periodic, lambda look: look.texture in REPEATED) == 1.0
    large = [sum(len(scene.layers) for scene in looks(cabinets=k)) for k in (0.0, 1.0)]
    assert large[0] < large[1]


def test_haze_fades_what_is_far_towards_one_colour():
    thick = SyntheticScenes(replace(SMALL, **FAULTLESS, haze=1.0))
    far, near = [], []
    for index in range(4):
        clear, hazy = rendered(replace(SMALL, **FAULTLESS), index), thick.render(index)
        assert np.array_equal(hazy.disparity, clear.disparity)
        assert np.array_equal(hazy.nonoccluded, clear.nonoccluded)
        for ratios, where in ((far, clear.disparity < 2), (near, clear.disparity > 8)):
            if where.sum() > 500:
                spread = [each.clean_left[where].std(0).mean() for each in (hazy, clear)]
                ratios.append(spread[0] / spread[1])
    assert np.mean(far) < 0.6 * np.mean(near), (far, near)


def test_noise_has_the_moments_it_promises():
    noise = white_noise((200, 300), 12345)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    shifted = (noise[:, 1:] * noise[:, :-1]).mean()
    assert abs(shifted) < 0.02


def test_random_choices_are_unbiased():
    rng = SceneRng(0, 1)
    values = np.array([rng.uniform() for _ in range(4000)])
    assert abs(values.mean() - 0.5) < 0.02
    assert (np.histogram(values, 10, (0, 1))[0] > 320).all()
    assert SceneRng(0, 1).word() != SceneRng(1, 0).word()


def test_semi_global_matching_finds_neither_all_nor_nothing():
    scenes = SyntheticScenes(replace(SMALL, height=128, width=256, max_disparity=64))
    rates = []
    for index in range(6):
        pair = scenes.render(index)
        error = np.abs(semi_global_matching(pair.left, pair.right, 64)[0] - pair.disparity)
        rates.append((error > 3)[pair.nonoccluded].mean())
    assert 0.02 < np.mean(rates) < 0.4, rates


def test_photographs_are_used(photographs):
    plain = SyntheticScenes(SMALL)
    covered = SyntheticScenes(replace(SMALL, textures=str(photographs), photographs=1.0))
    first, second = plain.render(3), covered.render(3)
    assert not np.array_equal(first.clean_left, second.clean_left)
    assert same(second, SyntheticScenes(covered.config).render(3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"height": 8}, "height"),
        ({"width": 20}, "width"),
        ({"max_disparity": 161}, "max disparity 161"),
        ({"min_disparity": 0.0}, "min disparity"),
        ({"distribution": "flat"}, "mixed, uniform, log"),
        ({"noise": -1.0}, "strength of noise"),
        ({"objects": (5, 2)}, "objects"),
        ({"photographs": 1.5}, "photographs"),
        ({"plain": -0.1}, "share of plain"),
        ({"haze": 5.0}, "strength of haze"),
    ],
)
def test_impossible_configurations_are_refused(change, words):
    with pytest.raises(UsageError, match=words):
        replace(SMALL, **change)


def test_texture_folders_without_images_are_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        SyntheticScenes(replace(SMALL, textures=str(tmp_path / "none")))
    with pytest.raises(InputError, match="holds no pictures"):
        SyntheticScenes(replace(SMALL, textures=str(tmp_path)))
    (tmp_path / "._bad.png").write_text("what a Mac puts beside bad.png")
    with pytest.raises(InputError, match="holds no pictures"):
        SyntheticScenes(replace(SMALL, textures=str(tmp_path)))
    (tmp_path / "bad.png").write_text("not a picture")
    with pytest.raises(InputError, match=r"bad\.png"):
        SyntheticScenes(replace(SMALL, textures=str(tmp_path)))


def test_synthesize_writes_what_is_rendered_and_datasets_read_it(tmp_path):
    assert synthesize(tmp_path, SMALL, 12) == (12, 0)
    final = open_dataset("flyingthings3d", tmp_path, split="train")
    clean = open_dataset("flyingthings3d", tmp_path, split="train", render_pass="clean")
    assert [s.name for s in final.samples][9:11] == [
        "FlyingThings3D/TRAIN/A/0000/0015",
        "FlyingThings3D/TRAIN/A/0001/0006",
    ]
    assert len(final.samples) == len(clean.samples) == 12
    for index in (0, 11):
        pair, read = rendered(SMALL, index), final.samples[index].read()
        assert np.array_equal(read.left, pair.left)
        assert np.array_equal(read.right, pair.right)
        assert np.array_equal(read.disparity, pair.disparity)
        ideal = clean.samples[index].read()
        assert np.array_equal(ideal.left, pair.clean_left)
        assert np.array_equal(ideal.right, pair.clean_right)
        files = pair_files(tmp_path, "train", index)
        assert np.array_equal(np.asarray(Image.open(files[5])), pair.right_disparity)
        assert np.array_equal(np.asarray(Image.open(files[6])) == 255, pair.nonoccluded)
        assert np.array_equal(np.asarray(Image.open(files[7])) == 255, pair.right_nonoccluded)


def test_synthesize_continues_after_an_interruption(tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    synthesize(whole, SMALL, 3, split="test")

    def interrupt(self, index):
        if index == 2:
            raise KeyboardInterrupt
        return render(self, index)

    render = SyntheticScenes.render
    monkeypatch.setattr(SyntheticScenes, "render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        synthesize(broken, SMALL, 3, split="test")
    monkeypatch.undo()
    pair_files(broken, "test", 0)[3].unlink()  # one file of a pair is no pair
    times = {path: path.stat().st_mtime_ns for path in pair_files(broken, "test", 1)}
    assert synthesize(broken, SMALL, 3, split="test") == (2, 1)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(broken) for p in broken.rglob("*") if p.is_file())
    assert all((whole / f).read_bytes() == (broken / f).read_bytes() for f in files)


@pytest.mark.slow
def test_processes_write_the_same_bytes_from_the_command_line(tmp_path, stereo, photographs):
    common = ["--count", 3, "--seed", 5, "--height", 64, "--width", 96, "--max-disparity", 32]
    common += ["--textures", photographs]
    for root, workers in (("one", 1), ("two", 2)):
        done = stereo(
            *("data", "synthesize", "--root", tmp_path / root, "--workers", workers), *common
        )
        assert done.status == 0, done.errors
    files = [p for p in (tmp_path / "one").rglob("*") if p.is_file()]
    assert len(files) == 3 * 8 + 1
    for path in files:
        twin = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == twin.read_bytes()
    # The other split with the same seed would be the same scenes.
    done = stereo("data", "synthesize", "--root", tmp_path / "one", "--split", "test", *common)
    assert (done.status, len(done.errors)) == (1, 1)
    assert "its train split has scenes of this seed; give another --seed" in done.errors[0]
    # The same folder with another seed would be a mixture of two sets.
    done = stereo("data", "synthesize", "--root", tmp_path / "one", "--count", 9)
    assert done.status == 1
    assert len(done.errors) == 1
    assert "another" in done.errors[0]
    moved = shutil.move(photographs, tmp_path / "moved")
    common[-1] = moved
    done = stereo("data", "synthesize", "--root", tmp_path / "one", *common)
    assert done.status == 0, done.errors
    assert "seed" in json.loads((tmp_path / "one" / "synthetic.json").read_text())["train"]


def test_a_rendered_set_has_one_name(tmp_path, capsys):
    synthesize(tmp_path, SMALL, 1, split="test")
    name = detect_dataset(tmp_path)
    assert f"--dataset {name} --split test" in capsys.readouterr().out
    assert len(open_dataset(name, tmp_path, split="test").samples) == 1


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--count", 0], 2, "--count 0"),
        (["--count", 1, "--workers", 0], 2, "--workers 0"),
        (["--count", 1, "--height", 4], 2, "height"),
        (["--count", 1, "--max-disparity", 1000], 2, "max disparity 1000"),
        (["--count", 1, "--textures", "nowhere"], 1, "nowhere: no such folder"),
    ],
)
def test_wrong_calls_get_one_line(tmp_path, stereo, options, status, words):
    done = stereo("data", "synthesize", "--root", tmp_path / "set", *options)
    assert done.status == status
    assert len(done.errors) == 1
    assert words in done.errors[0]
    assert not (tmp_path / "set").exists()


def test_unwritable_or_foreign_roots_get_one_line(tmp_path, stereo):
    (tmp_path / "file").write_text("")
    done = stereo("data", "synthesize", "--root", tmp_path / "file" / "set", "--count", 1)
    assert (done.status, len(done.errors)) == (1, 1)
    assert "--root" in done.errors[0]
    frame = tmp_path / "FlyingThings3D/disparity/TRAIN/A/0000/left/0006.pfm"
    frame.parent.mkdir(parents=True)
    frame.write_bytes(b"")
    done = stereo("data", "synthesize", "--root", tmp_path, "--count", 1)
    assert (done.status, len(done.errors)) == (1, 1)
    assert "not rendered here" in done.errors[0]
    assert frame.read_bytes() == b""


@pytest.mark.parametrize("distribution", ["mixed", "uniform", "log"])
@pytest.mark.parametrize("least", [12.0, 16.0])
def test_scenes_of_a_high_least_disparity_have_a_surface_everywhere(distribution, least):
    config = SyntheticConfig(
        height=48, width=96, max_disparity=64, min_disparity=least, distribution=distribution,
        places=("room", "heap"), seed=3,
    )  # fmt: skip
    scenes = SyntheticScenes(config)
    for index in range(14):
        disparity = scenes.render(index).disparity
        assert least <= disparity.min() <= disparity.max() < 64
