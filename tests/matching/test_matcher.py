"""The matcher: any size, padding and cropping, engines behind one interface."""

import dataclasses
import inspect
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import stereo
from stereo.data.sets.datasets import open_dataset
from stereo.errors import InputError, UsageError
from stereo.matching.engine import pad_to_multiple
from stereo.matching.estimate import Estimate
from stereo.matching.matcher import Matcher
from stereo.matching.options import MatchOptions
from stereo.matching.sgbm import fill_from_background, semi_global_matching
from stereo.models import AttentionConfig, NetworkConfig, build_network
from stereo.models.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def network_matcher():
    return stereo.load("ea_psmnet", max_disparity=32, allow_untrained=True)


@pytest.fixture(scope="module")
def shifted_pair():
    """A texture, and the same moved 7 px to the left, as a plane at disparity 7 appears."""
    texture = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    return texture[:, :-7], texture[:, 7:]


@settings(max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    multiple=st.integers(1, 20),
    padding=st.sampled_from(["replicate", "zeros"]),
)
def test_padding_then_cropping_gives_the_image_back(height, width, multiple, padding):
    image = torch.arange(3.0 * height * width).view(1, 3, height, width)
    padded = pad_to_multiple(image, multiple, padding)
    assert padded.shape[2] % multiple == padded.shape[3] % multiple == 0
    assert padded.shape[2] - height < multiple > padded.shape[3] - width
    assert torch.equal(padded[..., -height:, :width], image)
    rim = padded[..., :-height, :] if padded.shape[2] > height else padded[..., width:]
    assert padding == "replicate" or not rim.any()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("first/best", "first-best"),
        ("first/last-00000010", "first-last-00000010"),
        ("first/mine", "mine"),
    ],
)
def test_a_runs_files_are_named_after_its_folder(tmp_path, file, name):
    config = NetworkConfig("ea_stereo_fast", 32)
    path = tmp_path / f"{file}.safetensors"
    path.parent.mkdir()
    save_checkpoint(path, Checkpoint(config, build_network(config).state_dict()))
    assert stereo.load(path).description["name"] == name


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 31), (48, 64), (33, 16)])
@pytest.mark.parametrize("engine", ["sgbm", "network"])
def test_map_has_the_left_images_size(network_matcher, engine, size, rng):
    matcher = stereo.load("sgbm", max_disparity=32) if engine == "sgbm" else network_matcher
    left, right = rng.integers(0, 256, (2, *size, 3), np.uint8)
    disparity = matcher(left, right).disparity
    assert disparity.shape == size
    assert disparity.dtype == np.float32
    assert np.isfinite(disparity).all()
    assert (disparity >= 0).all()


def test_arrays_pil_images_and_paths_give_equal_maps(network_matcher, rng, tmp_path):
    left, right = rng.integers(0, 256, (2, 20, 30, 3), np.uint8)
    expected = network_matcher(left, right).disparity
    Image.fromarray(left).save(tmp_path / "left.png")
    Image.fromarray(right).save(tmp_path / "right.png")
    for pair in (
        (Image.fromarray(left), Image.fromarray(right)),
        (tmp_path / "left.png", str(tmp_path / "right.png")),
    ):
        assert np.array_equal(network_matcher(*pair).disparity, expected)


def test_a_batch_equals_its_pairs(network_matcher, rng):
    lefts, rights = rng.integers(0, 256, (2, 3, 20, 30, 3), np.uint8)
    batch = network_matcher.batch(list(lefts), list(rights))
    for left, right, result in zip(lefts, rights, batch, strict=True):
        assert np.abs(network_matcher(left, right).disparity - result.disparity).max() < 1e-3


@pytest.mark.parametrize("options", [{"scale": "2"}, {"coarse_to_fine": True}])
def test_a_pair_keeps_its_own_range_in_a_batch(options, rng):
    matcher = stereo.load(precision="fp32", max_disparity=192, **options)
    wide = rng.integers(0, 256, (48, 160, 3), np.uint8)
    lefts, rights = [wide[:, 40:], wide[:, :120]], [wide[:, 38:158], wide[:, 40:]]
    for left, right, result in zip(lefts, rights, matcher.batch(lefts, rights), strict=True):
        assert np.array_equal(matcher(left, right).disparity, result.disparity)


def ramp(lefts, rights):
    """An engine whose disparity, and certainty, is the column."""
    columns = np.arange(lefts[0].shape[1], dtype=np.float32)[None]
    return [Estimate(columns, np.stack([columns] * 2)) for _ in lefts]


def test_the_seconds_of_a_batch_are_those_of_a_pair(monkeypatch):
    clock = SimpleNamespace(perf_counter=iter([1.0, 7.0]).__next__)
    monkeypatch.setattr("stereo.matching.matcher.time", clock)
    views = [np.zeros((1, 30, 3), np.uint8)] * 3
    results = Matcher(ramp, None, {"name": "ramp", "max_disparity": 32}).batch(views, views)
    assert [each.seconds for each in results] == [2.0] * 3


def test_an_engines_other_errors_are_not_called_out_of_memory():
    def fails(lefts, rights):
        raise RuntimeError("a shape")

    view = np.zeros((1, 30, 3), np.uint8)
    with pytest.raises(RuntimeError, match=r"^a shape$"):
        Matcher(fails, None, {"name": "fails", "max_disparity": 32})(view, view)


def test_all_of_a_right_views_result_is_turned_back(tmp_path):
    left, right = tmp_path / "left.png", tmp_path / "right.png"
    for path in (left, right):
        Image.new("RGB", (30, 1)).save(path)
    matcher = Matcher(ramp, None, {"name": "ramp", "max_disparity": 32})
    for result in (matcher(left, right, view="right"), matcher.both(left, right)[1]):
        assert result.disparity[0].tolist() == [*range(29, -1, -1)]
        assert np.array_equal(result.certainty, np.stack([result.disparity] * 2))
        assert (result.is_right, result.path) == (True, left)  # whose calibration is sought


def test_the_right_view_is_named_as_it_was_given(network_matcher):
    left, right = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 31, 3), np.uint8)
    with pytest.raises(InputError, match=r"left image is 30x20 and the right image is 31x20"):
        network_matcher(left, right, view="right")


def test_a_range_in_which_no_pixel_has_a_match_is_refused():
    matcher = stereo.load("sgbm", min_disparity=-64, max_disparity=16)
    view = np.zeros((8, 49, 3), np.uint8)
    with pytest.raises(InputError, match="cannot be in images 49 pixels wide"):
        matcher(view, view)


def test_different_sizes_are_refused(network_matcher):
    with pytest.raises(InputError, match=r"30x20.*31x20"):
        network_matcher(np.zeros((20, 30, 3), np.uint8), np.zeros((20, 31, 3), np.uint8))


def test_untrained_weights_are_refused_and_repeatable():
    before = torch.random.get_rng_state()
    with pytest.raises(UsageError, match="--allow-untrained"):
        stereo.load("psmnet")
    first, second = (stereo.load("psmnet", allow_untrained=True).network for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    stereo.load("ea_stereo_fast")
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's own draws go on


@pytest.mark.parametrize(
    "call", [{"model": "psmnt"}, {"device": "tpu"}, {"precision": "int3"}, {"max_disparity": 100}]
)
def test_wrong_calls_list_the_known_names(call):
    with pytest.raises(UsageError, match=r"known|multiple of 16"):
        stereo.load(**{"model": "psmnet", "allow_untrained": True, **call})


def test_bf16_is_close_to_fp32(rng):
    left, right = rng.integers(0, 256, (2, 32, 48, 3), np.uint8)
    fp32, bf16 = (
        stereo.load("psmnet", precision=p, max_disparity=32, allow_untrained=True)(left, right)
        for p in ("fp32", "bf16")
    )
    assert not np.array_equal(fp32.disparity, bf16.disparity)
    assert np.abs(fp32.disparity - bf16.disparity).mean() < 1.0


def test_a_checkpoint_rebuilds_everything(tmp_path, rng):
    attention = AttentionConfig(sites=("eighth",), options={"heads": 2, "zero_init": False})
    config = NetworkConfig("ea_psmnet", 32, "half_pixel", "zeros", attention, mean=(0.1, 0.2, 0.3))
    network = build_network(config)
    path = tmp_path / "mine.safetensors"
    save_checkpoint(path, Checkpoint(config, network.state_dict(), {"recipe": "test"}))
    matcher = stereo.load(path)
    assert matcher.description["network"] == config.to_dict()
    assert matcher.description["max_disparity"] == 32
    left, right = rng.integers(0, 256, (2, 20, 30, 3), np.uint8)
    tensors = [
        pad_to_multiple(
            (torch.from_numpy(view).permute(2, 0, 1)[None] / 255 - mean) / std, 16, "zeros"
        )
        for mean, std in [(torch.tensor(m).view(3, 1, 1) for m in (config.mean, config.std))]
        for view in (left, right)
    ]
    with torch.inference_mode():
        expected = network.eval()(*tensors)[0, -20:, :30]
    apart = np.abs(matcher(left, right).disparity - expected.numpy())
    assert np.mean(apart < 1e-3) > 0.98  # random logits have near ties, which rounding decides


def test_sgbm_finds_a_known_shift(shifted_pair):
    disparity, _ = semi_global_matching(*shifted_pair, 32)
    assert np.median(disparity) == 7
    assert np.mean(np.abs(disparity - 7) < 1) > 0.9


def test_sgbm_finds_shifts_inside_the_left_band(shifted_pair):
    # OpenCV alone has no estimate in the first max_disparity columns.
    disparity, _ = semi_global_matching(*shifted_pair, 64)
    assert np.median(disparity[:, 8:64]) == 7


@pytest.mark.parametrize("axis", [0, 1])
def test_sgbm_has_edges_at_their_own_pixels(rng, axis):
    near = np.arange(60) < 30  # above or left of far; no pixel of the left view is hidden
    near = np.broadcast_to(near[:, None] if axis == 0 else near, (60, 60))
    right = rng.integers(0, 256, (60, 60, 3), np.uint8)
    rows, columns = np.indices((60, 60))
    at = columns - np.where(near, 12, 4)
    left = np.where((at >= 0)[..., None], right[rows, at], rng.integers(0, 256, right.shape))
    disparity, _ = semi_global_matching(left.astype(np.uint8), right, 32)
    found = np.moveaxis(disparity, axis, 0)[:, 20:] > 8
    assert found[29].mean() > 0.7 > 0.3 > found[30].mean()


def test_sgbm_keeps_the_settings_that_comparisons_rest_on():
    # P1 or P2 a third, no uniqueness or another mode each move a figure further than these bounds.
    sample = open_dataset("sceneflow", REPOSITORY / "datasets/samples").samples[0].read()
    disparity, matched = semi_global_matching(sample.left, sample.right, 192)
    error = np.abs(disparity - sample.disparity)[sample.disparity < 192]
    assert matched.mean() == pytest.approx(0.881, abs=0.004)
    assert error.mean() == pytest.approx(1.167, abs=0.04)
    assert np.mean(error > 3) == pytest.approx(0.055, abs=0.002)


def test_sgbm_matches_what_is_infinitely_far(rng):
    texture = rng.integers(0, 256, (40, 60, 3), np.uint8)
    disparity, matched = semi_global_matching(texture, texture, 32)
    assert np.median(disparity) == 0
    assert matched.mean() > 0.9


def test_the_right_view_has_its_own_map(shifted_pair):
    left, right = shifted_pair
    disparity = stereo.load("sgbm", max_disparity=32)(left, right, view="right").disparity
    assert np.median(disparity) == 7
    with pytest.raises(UsageError, match="unknown view 'top'"):
        stereo.load("sgbm")(left, right, view="top")


def test_holes_are_filled_from_the_background():
    nan = np.nan
    disparity = np.array([[nan, 5, nan, 3, nan], [nan] * 5, [1, 1, nan, 9, 9]], np.float32)
    filled = fill_from_background(disparity, np.isfinite(disparity))
    assert filled.tolist() == [[5, 5, 3, 3, 3], [5, 5, 3, 3, 3], [1, 1, 1, 9, 9]]
    assert not fill_from_background(disparity, np.zeros_like(disparity, bool)).any()
    rows = np.array([[nan], [nan], [1], [nan], [nan], [2], [nan]], np.float32)
    filled = fill_from_background(rows, np.isfinite(rows))
    assert filled[:, 0].tolist() == [1, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(("model", "most"), [("ea_stereo", 0.365), ("ea_stereo_fast", 0.68)])
def test_a_samples_error_is_that_of_the_bundled_weights(model, most):
    samples = open_dataset("sceneflow", REPOSITORY / "datasets/samples")
    sample = samples.samples[0].read()
    disparity = stereo.load(model, precision="fp32")(sample.left, sample.right).disparity
    assert np.abs(disparity - sample.disparity).mean() < most


def test_a_batch_of_several_sizes_is_refused(network_matcher):
    small, large = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)
    with pytest.raises(InputError, match="pairs of a batch differ in size"):
        network_matcher.batch([small, large], [small, large])


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_map(rng):
    # Not inductor, which takes minutes and a C++ compiler: only that the network can be captured.
    left, right = rng.integers(0, 256, (2, 32, 48, 3), np.uint8)
    options = {"max_disparity": 32, "precision": "fp32"}
    expected = stereo.load(**options)(left, right).disparity
    compiled = stereo.load(**options, compile="eager")
    assert np.abs(compiled(left, right).disparity - expected).max() < 1e-3
    assert compiled.description["compile"] == "eager"
    with pytest.raises(UsageError, match="backend 'gcc'"):
        stereo.load(compile="gcc")


def test_sgbm_takes_no_tiles():
    for manner in ({"tile": "512"}, {"coarse_to_fine": True}):
        with pytest.raises(UsageError, match="semi-global matching takes no"):
            stereo.load("sgbm", **manner)


def test_an_unknown_scale_is_refused():
    with pytest.raises(UsageError, match="scale"):
        stereo.load("sgbm", scale="2")
    with pytest.raises(UsageError, match="scale"):
        stereo.load("psmnet", allow_untrained=True, scale="3")
    with pytest.raises(UsageError, match="scale"):
        stereo.load(scale="auto")


def test_dir_shows_the_public_names_before_they_are_loaded():
    code = "import stereo; print(*dir(stereo))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert {*stereo.__all__} <= {*shown.stdout.split()}


@pytest.mark.parametrize("module", [stereo, stereo.attention], ids=["stereo", "attention"])
def test_dir_shows_no_names_but_the_public_ones(module):
    assert {name for name in dir(module) if not name.startswith("__")} <= {*module.__all__}
    assert {*module.__all__} <= {*dir(module)}


@pytest.mark.parametrize(
    "option",
    [
        *({"max_disparity": value} for value in ("a", 16.0, True, [16])),
        *({key: value} for key in ("device", "precision", "tile", "scale") for value in (3, [])),
        *({key: True} for key in ("tile", "scale")),
        *({key: None} for key in ("device", "precision", "tile", "scale", "kernels", "compile")),
        {"coarse_to_fine": "no"},
        {"allow_untrained": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", ["sgbm", "ea_stereo", "network.onnx"])
def test_options_of_another_type_are_refused_by_name(model, option):
    with pytest.raises(UsageError, match="|".join((*option, "max disparity"))):
        stereo.load(model, **option)


@pytest.mark.parametrize("number", [int, np.int64])
def test_a_scale_and_a_tile_may_be_numbers(number):
    asked = MatchOptions(scale=number(1), tile=number(128))
    assert asked == MatchOptions(scale="1", tile="128")
    assert stereo.load("sgbm", scale=number(1), max_disparity=32).description["name"] == "sgbm"


def test_load_takes_options_and_changes_to_them():
    asked = MatchOptions(max_disparity=32, min_disparity=-8)
    assert stereo.load("sgbm", asked).description["min_disparity"] == -8
    assert stereo.load("sgbm", asked, min_disparity=4).description["min_disparity"] == 4
    with pytest.raises(TypeError, match="max_disparty"):
        stereo.load("sgbm", max_disparty=32)


@pytest.mark.parametrize(
    ("model", "taken"),
    [
        ("sgbm", ("max_disparity", "min_disparity")),
        ("zoo:raft-stereo", ("min_disparity", "precision", "allow_untrained")),
        ("mine.py:match", ("min_disparity",)),
        ("mine.onnx", ("min_disparity",)),
        ("psmnet", ("max_disparity", "min_disparity", "precision", "allow_untrained", "scale")),
    ],
)
def test_a_further_model_gets_the_options_that_it_takes(model, taken):
    given = {"max_disparity": 64, "min_disparity": -8, "precision": "fp32", "scale": "2"}
    given["allow_untrained"] = True
    expected = MatchOptions(**{name: given[name] for name in taken})
    assert MatchOptions(**given).for_further(model) == expected


def test_the_signature_of_load_names_every_option():
    names = {each.name for each in dataclasses.fields(MatchOptions)}
    assert names < {*inspect.signature(stereo.load).parameters}


def test_a_largest_disparity_may_be_any_whole_number():
    assert type(stereo.load("sgbm", max_disparity=np.int64(32)).description["max_disparity"]) is int
