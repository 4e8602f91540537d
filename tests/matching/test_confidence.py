"""Confidence: its measures against brute force, what it must rise and fall with, and its worth."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import trimesh
from conftest import REPOSITORY, shared
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import stereo as package
from stereo.commands.cli import run
from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.errors import InputError, UsageError
from stereo.evaluation.sparsification import (
    COVERAGES,
    ORACLE,
    reliability,
    reliability_sums,
    score_confidence,
    summarize_confidence,
)
from stereo.matching.confidence import (
    ANY_MODEL,
    CERTAINTY,
    COMMON,
    ConfidenceMaps,
    ConfidenceModel,
    _deviation,
    confidence_features,
    confidence_model,
)
from stereo.matching.estimate import Estimate
from stereo.matching.matcher import Matcher
from stereo.models.checkpoint import load_checkpoint, save_checkpoint
from stereo.system.bundled import bundled_weights
from stereo.training import fit_confidence as fitting

SCENE = SyntheticConfig(height=128, width=256, max_disparity=64, seed=5)


@pytest.fixture(scope="module")
def pair():
    return SyntheticScenes(SCENE).render(0)


@pytest.fixture(scope="module")
def result(pair):
    return package.load(max_disparity=64)(pair.left, pair.right)


def plain_curve(risk, key):
    """Return the mean risk of the first pixels in order, over many random orders of ties."""
    rng = np.random.default_rng(0)
    curves = []
    for _ in range(400):
        order = np.lexsort((rng.random(len(key)), key))
        sums = np.cumsum(risk[order])
        kept = np.maximum(np.rint(COVERAGES * len(key)).astype(int), 1)
        curves.append(sums[kept - 1] / kept)
    return np.mean(curves, axis=0)


def test_risk_is_the_mean_over_the_most_confident_pixels_whatever_the_order_of_ties(rng):
    error = rng.exponential(2, 200)
    confidence = rng.random(200)
    ties = rng.integers(0, 4, 200).astype(float)
    curves = score_confidence(error, confidence, {"ties": ties}).curves
    assert np.allclose(curves["confidence"][0], plain_curve(error, -confidence))
    drawn = plain_curve(100.0 * (error > 3), -ties)  # of few pixels, its mean is still rough
    assert np.allclose(curves["ties"][1][20:], drawn[20:], atol=1.5)
    assert np.allclose(curves[ORACLE][0], plain_curve(error, error))
    assert np.allclose(curves["confidence"][0, -1], error.mean())


def test_an_error_of_3_px_is_within_3_px_in_both_figures():
    score = score_confidence(np.array([3.0, 3.5]), np.array([0.95, 0.95]), {})
    assert score.curves["confidence"][1, -1] == 50  # bad-3, percent
    (bin_of_both,) = reliability(score.bins)
    assert bin_of_both["within_3_px"] == 0.5


def test_ause_is_zero_for_the_order_of_the_error_itself_and_largest_for_its_reverse(rng):
    error = rng.exponential(2, 500)
    found = score_confidence(error, rng.random(500), {"best": -error, "worst": error}).ause()
    for risk in ("ause_epe", "ause_bad_3"):
        assert found[risk]["best"] == pytest.approx(0, abs=1e-9)
        assert 0 < found[risk]["confidence"] < found[risk]["worst"]


def test_confidence_is_averaged_over_images_and_its_reliability_pooled(rng):
    errors = [rng.exponential(2, count) for count in (50, 400)]
    scores = [score_confidence(error, rng.random(len(error)), {}) for error in errors]
    found = summarize_confidence(scores)
    for kind in ("epe", "bad_3"):
        own = [score.ause()[f"ause_{kind}"]["confidence"] for score in scores]
        assert found[f"ause_{kind}"]["confidence"] == pytest.approx(np.mean(own))
    ends = [error.mean() for error in errors]
    assert found["curves"]["epe"]["confidence"][-1] == pytest.approx(np.mean(ends))
    assert sum(each["pixels"] for each in found["reliability"]) == 450


def test_reliability_compares_predicted_with_observed():
    said = np.array([0.0, 0.05, 0.92, 0.94, 1.0], np.float32)
    within = np.array([False, True, True, False, True])
    low, high = reliability(reliability_sums(said, within))
    assert (low["low"], low["high"], low["pixels"], low["within_3_px"]) == (0.0, 0.1, 2, 0.5)
    assert low["confidence"] == pytest.approx(0.025)
    assert (high["pixels"], high["within_3_px"]) == (3, pytest.approx(2 / 3))


@pytest.mark.parametrize("count", CERTAINTY)
@given(seed=st.integers(0, 2**31), step=st.floats(0.01, 3))
def test_each_feature_moves_the_confidence_one_way(count, seed, step):
    names = (*COMMON, *CERTAINTY[count])
    torch.manual_seed(seed)
    model = ConfidenceModel(names)
    features = torch.randn(8, len(names))
    for i, name in enumerate(names):
        moved = features.clone()
        moved[:, i] += step
        gain = model(moved) - model(features)
        if name in ("texture", "matched", "about_plane", "negative_entropy"):
            gain = -gain
        assert (gain <= 1e-5).all(), name


def test_texture_is_that_of_the_left_view(rng):
    flat, noise = np.full((9, 12, 3), 90, np.uint8), rng.integers(0, 256, (9, 12, 3), np.uint8)
    still = np.zeros((9, 12), np.float32)
    without, much = (
        confidence_features(Estimate(still), still, left, right).values["texture"]
        for left, right in ((flat, noise), (noise, flat))
    )
    assert without.max() < -0.9
    assert much.min() > 0


@pytest.mark.parametrize("by", [3, -3])
def test_features_are_those_of_their_definition(rng, by):
    wide = rng.integers(0, 256, (9, 23, 3), np.uint8)
    left, right = (wide[:, :20], wide[:, 3:]) if by > 0 else (wide[:, 3:], wide[:, :20])
    disparity, other = np.full((2, 9, 20), by, np.float32)
    other[:, 5] += 4
    sure = np.stack([np.full((9, 20), 0.25, np.float32), np.full((9, 20), 0.75, np.float32)])
    found = confidence_features(Estimate(disparity, sure), other, left, right)
    columns = np.arange(20)
    outside = columns < 3 if by > 0 else columns > 16
    apart = np.where(outside, 32, np.where(columns == 5 + by, 4, 0))
    assert np.allclose(found.disagreement, apart)
    expected = {
        "disagreement": np.log(apart + 0.1) / 2,
        "outside": outside,
        "roughness": np.log(0.1) / 2,
        "disparity": np.log(max(by, 0) + 4) / 2 - 1,
        "about_plane": -0.5,
        "negative_entropy": 0.5,
    }
    for name, value in expected.items():
        assert np.allclose(found.values[name], value, atol=1e-3), name
    assert np.allclose(found.values["difference"][:, 4:16], -1)  # the views agree there
    assert found.values["difference"][:, outside].min() > 0


def test_the_other_map_is_read_between_its_pixels():
    disparity, other = np.full((3, 20), 2.5, np.float32), np.zeros((3, 20), np.float32)
    other[:] = np.arange(20)
    view = np.zeros((3, 20, 3), np.uint8)
    found = confidence_features(Estimate(disparity), other, view, view).disagreement
    assert np.allclose(found[:, 3:], np.abs(np.arange(3, 20) - 2.5 - 2.5))


def test_a_stored_model_predicts_the_same():
    model = ConfidenceModel(COMMON)
    again = ConfidenceModel.from_dict(json.loads(json.dumps(model.to_dict())))
    features = torch.randn(50, len(COMMON))
    assert (again(features) - model(features)).abs().max() < 1e-3
    stored = model.to_dict()
    stored["weights"]["out.bias"] = [float("nan")]
    with pytest.raises(InputError, match="not finite"):
        ConfidenceModel.from_dict(stored)


def test_confidence_is_a_map_of_probabilities_computed_once(result):
    confidence = result.confidence
    assert confidence.shape == result.disparity.shape
    assert confidence.dtype == np.float32
    assert 0 <= confidence.min() < confidence.max() <= 1
    assert result.confidence is confidence


@pytest.mark.parametrize("model", ["sgbm", "ea_stereo"])
def test_occluded_and_wrong_pixels_have_lower_confidence(model):
    matcher, scenes = package.load(model, max_disparity=64), SyntheticScenes(SCENE)
    confidence, right, seen = [], [], []
    for pair in map(scenes.render, range(2)):
        found = matcher(pair.left, pair.right)
        confidence.append(found.confidence)
        right.append(np.abs(found.disparity - pair.disparity) <= 3)
        seen.append(pair.nonoccluded)
    confidence = np.stack(confidence)
    for good in (np.stack(right), np.stack(seen)):
        assert confidence[good].mean() > confidence[~good].mean() + 0.1


def test_the_right_view_has_the_confidence_of_its_mirror(pair):
    matcher = package.load("sgbm", max_disparity=64)
    found = matcher(pair.left, pair.right, view="right")
    mirror = matcher(pair.right[:, ::-1], pair.left[:, ::-1])
    assert np.array_equal(found.confidence, mirror.confidence[:, ::-1])
    measures = found.confidence_maps.measures()
    assert np.array_equal(
        measures["left_right"], mirror.confidence_maps.baselines["left_right"][:, ::-1]
    )


def test_a_result_made_by_hand_has_no_confidence():
    with pytest.raises(UsageError, match="not returned by a matcher"):
        package.Result(np.zeros((2, 3), np.float32), 0.1).confidence  # noqa: B018


@pytest.mark.parametrize("model", ["sgbm", "ea_stereo"])
def test_both_views_equal_single_views_with_two_matches(pair, model, monkeypatch):
    matcher = package.load(model, max_disparity=64, precision="fp32")
    alone = [matcher(pair.left, pair.right, view=view) for view in ("left", "right")]
    estimate, calls = Matcher._estimate, []

    def counted(self, lefts, rights):
        calls.append(len(lefts))
        return estimate(self, lefts, rights)

    monkeypatch.setattr(Matcher, "_estimate", counted)
    both = matcher.both(pair.left, pair.right)
    confidences = [result.confidence for result in both]
    assert calls == [1, 1]
    for result, confidence, other in zip(both, confidences, alone, strict=True):
        assert np.array_equal(result.disparity, other.disparity)
        assert np.allclose(confidence, other.confidence, atol=1e-5)
        assert result.seconds > 0


def test_infer_matches_twice_for_both_views_with_confidence(files, tmp_path, monkeypatch):
    estimate, calls = Matcher._estimate, []

    def counted(self, lefts, rights):
        calls.append(len(lefts))
        return estimate(self, lefts, rights)

    monkeypatch.setattr(Matcher, "_estimate", counted)
    call = ["infer", *map(str, files[:2]), "--output", str(tmp_path / "out"), "--view", "both"]
    call += ["--model", "sgbm", "--max-disparity", "64", "--formats", "confidence"]
    assert run(call) == 0
    assert calls == [1, 1]
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_model_without_its_own_fit_triggers_a_warning(pair):
    matcher = package.load("ea_psmnet", max_disparity=16, allow_untrained=True)
    found = matcher(pair.left[:32, :64], pair.right[:32, :64])
    with pytest.warns(UserWarning, match="fit-confidence"):
        confidence = found.confidence
    assert confidence.shape == (32, 64)


@pytest.mark.parametrize("name", ["sgbm", ANY_MODEL, "ea_stereo", "ea_stereo_fast"])
def test_bundled_confidence_is_calibrated_on_held_out_pairs(name):
    path = bundled_weights(name)
    if path:
        checkpoint = load_checkpoint(path)
        model = ConfidenceModel.from_dict(checkpoint.confidence)
    else:
        model = confidence_model(name)
    bins = {each["low"]: each for each in model.facts["reliability"]}
    assert model.facts["held_out"] >= 96
    sure = bins[0.9]
    assert abs(sure["within_3_px"] - sure["confidence"]) < 0.03


@pytest.mark.parametrize("model", ["ea_stereo_fast", "sgbm"])
@pytest.mark.parametrize("view", ["left", "right"])
def test_nothing_is_sure_at_the_end_of_the_range(rng, view, model):
    noise = rng.integers(0, 256, (24, 150, 3), np.uint8)
    texture = cv2.resize(noise, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    matcher = package.load(model, max_disparity=64)
    for shift, least, most in ((40, 0.8, 1.0), (72, 0.0, 0.5)):
        result = matcher(texture[:, :-100], texture[:, shift : shift - 100], view=view)
        if shift < 64:
            assert abs(np.median(result.disparity[:, 100:-100]) - shift) < 0.5
        assert least <= np.median(result.confidence[:, 100:-100]) <= most


@pytest.mark.parametrize(
    ("upsampling", "low", "first", "last"),
    [("unbiased", 0, 63, 64), ("align_corners", 0, 59, 64), ("unbiased", -8, 55, 56)],
)
def test_confidence_is_limited_where_the_range_ends_and_nowhere_else(upsampling, low, first, last):
    def ramp(lefts, rights):
        return [Estimate(np.arange(each.shape[1], dtype=np.float32)[None]) for each in lefts]

    network = {"upsampling": upsampling}
    facts = {"name": "it", "network": network, "max_disparity": 64, "min_disparity": low}
    certain = SimpleNamespace(
        predict=lambda seen: ConfidenceMaps(np.ones(seen.disagreement.shape, np.float32), {})
    )
    view = np.zeros((1, 80, 3), np.uint8)
    result = Matcher(ramp, None, facts, certain)(view, view)
    limited = result.disparity[result.confidence < 1]
    assert limited.tolist() == list(range(first, last + 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ea_stereo", "ea_stereo_fast"])
def test_ninety_percent_sure_is_right_nine_times_in_ten(name):
    matcher = package.load(name)
    most = matcher.description["max_disparity"]
    sums = np.zeros((10, 3))
    for index in range(6):
        scene = SyntheticConfig(height=256, width=448, max_disparity=most, seed=4711)
        drawn = SyntheticScenes(scene).render(index)
        found = matcher(drawn.left, drawn.right)
        within = np.abs(found.disparity - drawn.disparity) <= 3
        sums += reliability_sums(found.confidence.ravel(), within.ravel())
    _, said, right = sums[7:].sum(axis=0)
    assert abs(right / said - 1) < 0.06


@pytest.mark.slow
def test_confidence_ranks_real_pixels_better_than_its_baselines(tmp_path):
    root = shared("real")
    call = ["evaluate", "--dataset", "manifest", "--root", str(root), "--output", str(tmp_path)]
    for model in ("ea_stereo", "sgbm"):
        assert run([*call, "--model", model, "--limit", "7", "--confidence"]) == 0
        report = json.loads((tmp_path / "metrics.json").read_text())
        trust = report["summary"]["confidence"]
        for risk in ("ause_epe", "ause_bad_3"):
            own, *others = trust[risk].values()
            assert own < min(others), (model, risk)
        assert len(others) == (1 if model == "sgbm" else 2)
        assert "confidence" in report["images"][0]
        assert trust["curves"]["epe"]["oracle"][-1] == pytest.approx(
            np.mean([image["epe"] for image in report["images"]])
        )


@pytest.fixture
def files(pair, tmp_path):
    paths = [tmp_path / name for name in ("left.png", "right.png", "calib.json")]
    for path, view in zip(paths, (pair.left, pair.right), strict=False):
        Image.fromarray(view).save(path)
    cameras = package.geometry.Calibration.rectified(
        fx=200, cx0=128, cy=64, baseline=0.1, size=(256, 128)
    )
    cameras.write(paths[2])
    return paths


def test_infer_writes_confidence_and_omits_points_below_the_limit(files, tmp_path):
    left, right, calibration = map(str, files)
    counts = []
    for least in ("0", "0.9"):
        output = tmp_path / least
        call = ["infer", left, right, "--output", str(output), "--calibration", calibration]
        call += ["--model", "sgbm", "--max-disparity", "64", "--formats", "confidence,ply"]
        assert run([*call, "--min-confidence", least]) == 0
        counts.append(len(trimesh.load(output / "left.ply").vertices))
        picture = Image.open(output / "left_confidence.png")
        assert picture.mode == "L"
        assert picture.size == (256, 128)
    assert 0 < counts[1] < counts[0]


@pytest.mark.parametrize("wrong", [["--min-confidence", "2"], ["--min-confidence", "-0.1"]])
def test_a_limit_that_is_not_a_probability_is_refused(files, tmp_path, capsys, wrong):
    left, right, calibration = map(str, files)
    call = ["infer", left, right, "--output", str(tmp_path / "out"), "--model", "sgbm"]
    assert run([*call, "--calibration", calibration, *wrong]) == 2
    assert run([*call, *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.slow
def test_a_fit_goes_into_a_copy_of_the_checkpoint(tmp_path, capsys):
    path = tmp_path / "fitted.safetensors"
    call = ["fit-confidence", "ea_stereo_fast", "--output", str(path)]
    assert run([*call, "--pairs", "2", "--held-out", "2"]) == 0
    assert "within 3 px" in capsys.readouterr().out
    before, after = (
        load_checkpoint(REPOSITORY / "checkpoints/ea_stereo_fast.safetensors"),
        load_checkpoint(path),
    )
    assert after.training == before.training
    assert all(torch.equal(after.weights[name], each) for name, each in before.weights.items())
    assert after.confidence["facts"]["pairs"] == 2
    assert isinstance(package.load(path), Matcher)


def test_a_fit_is_checked_on_pairs_that_it_was_not_fitted_to(tmp_path, monkeypatch):
    def observe(matcher, index, seed):  # all is right of the pairs to fit to, nothing of the others
        return {name: torch.rand(50) for name in COMMON}, torch.full((50,), index < 3)

    monkeypatch.setattr(fitting, "_observe", observe)
    monkeypatch.setattr(fitting, "STEPS", 50)
    path = tmp_path / "fit.json"
    facts = fitting.fit_confidence("sgbm", path, pairs=3, held_out=2)
    assert sum(each["pixels"] for each in facts["reliability"]) == 100
    assert {each["within_3_px"] for each in facts["reliability"]} == {0}
    model = ConfidenceModel.from_dict(json.loads(path.read_text()))
    with torch.inference_mode():
        assert model(torch.rand(50, len(COMMON))).sigmoid().mean() > 0.7


@pytest.mark.parametrize(
    "wrong",
    [
        ["sgbm", "--output", "a.safetensors"],
        ["sgbm", "--output", "a.txt"],
        ["psmnet", "--output", "a.safetensors"],
        ["sgbm", "--output", "a.json", "--pairs", "1"],
    ],
)
def test_impossible_fits_are_refused(tmp_path, monkeypatch, capsys, wrong):
    monkeypatch.chdir(tmp_path)
    assert run(["fit-confidence", *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_fit_that_cannot_be_written_is_refused_before_the_matches(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("stereo.training.fit_confidence.load", None)
    (tmp_path / "file").touch()
    assert run(["fit-confidence", "sgbm", "--output", str(tmp_path / "file" / "a.json")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("stored", [{}, [], "", {"cues": ["magic"], "facts": {}, "weights": {}}])
def test_a_damaged_fit_is_one_line(tmp_path, stored):
    checkpoint = load_checkpoint(REPOSITORY / "checkpoints/ea_stereo_fast.safetensors")
    path = tmp_path / "damaged.safetensors"
    whole = {name: getattr(checkpoint, name) for name in ("config", "weights", "training")}
    save_checkpoint(path, type(checkpoint)(**whole, confidence=stored))
    with pytest.raises(InputError, match="confidence model"):
        package.load(path)


@pytest.mark.parametrize("near", [192.0, 1500.0])
def test_roughness_is_exact_at_large_disparities(near):
    plane = torch.arange(64.0).expand(40, 64) * 0.01 + near
    plane = torch.cat([plane, torch.full((40, 64), 3.3)], dim=1)
    inside = _deviation(plane, 5)[3:-3, 3:60]
    assert torch.allclose(inside, torch.tensor(0.01 * 2**0.5), atol=1e-4)
