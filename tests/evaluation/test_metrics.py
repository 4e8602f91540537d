"""Metrics against a plain numpy reference and figures worked by hand."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo.data.sets.datasets import open_dataset
from stereo.data.sets.sample import Sample
from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.errors import UsageError
from stereo.evaluation.evaluate import evaluate
from stereo.evaluation.metrics import (
    figures,
    image_record,
    score_all_pixels,
    score_image,
    score_of_record,
    summaries,
    summarize,
)
from stereo.evaluation.protocols import PROTOCOLS, get_protocol
from stereo.evaluation.regions import BINS, EDGE_REACH, is_flat, near_edges, regions, seen_by_right
from stereo.evaluation.tables import score_line, summary_table
from stereo.evaluation.truth_scale import constant_ratio, ratio_to_map, scale_hint
from stereo.matching.wrap import wrap
from stereo.system.bundled import samples_root


def scored(estimate, truth, protocol="pooled", index=0, valid=None, nonoccluded=None):
    estimate, truth = (np.atleast_2d(np.asarray(a, np.float32)) for a in (estimate, truth))
    valid = np.isfinite(truth) if valid is None else valid
    rules = get_protocol(protocol)
    return score_image(f"image {index}", index, estimate, truth, valid, rules, nonoccluded)


def test_d1_needs_both_the_3_px_and_the_5_percent_error():
    # errors 4, 4, 2, 10; 5 % of the truth: 5, 2, 0.5, 5 -> only the second and fourth count
    score = scored([104, 44, 12, 90], [100, 40, 10, 100])
    assert figures(score.sums["all"])["d1"] == 50.0


def test_d1_counts_neither_3_px_nor_5_percent_themselves():
    # 3 px are 30 % of 10 px; 5 px are 5 % of 100 px. KITTI's kit asks for more than each.
    assert figures(scored([13, 105], [10, 100]).sums["all"])["d1"] == 0.0


def test_metrics_equal_hand_computed_values():
    # errors 0, 0.5, 1.5, 2.5, 3.5, 8 -> EPE 16 / 6
    score = scored([10, 10.5, 11.5, 12.5, 13.5, 18], [10] * 6)
    result = figures(score.sums["all"])
    assert result["epe"] == pytest.approx(16 / 6)
    assert result["bad_1"] == pytest.approx(400 / 6)
    assert result["bad_2"] == pytest.approx(300 / 6)
    assert result["bad_3"] == pytest.approx(200 / 6)


def test_a_threshold_itself_is_not_bad():
    result = figures(scored([12, 13], [10, 10]).sums["all"])
    assert result["bad_2"] == 50.0
    assert result["bad_3"] == 0.0


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 7)), min_size=1, max_size=11),
)
def test_summary_equals_a_plain_reference(seed, sizes):
    rng = np.random.default_rng(seed)
    scores, errors = [], []
    for index, size in enumerate(sizes):
        truth = rng.uniform(-5, 250, size).astype(np.float32)
        truth[rng.random(size) < 0.2] = np.nan
        estimate = rng.uniform(0, 192, size).astype(np.float32)
        scores.append(scored(estimate, truth, index=index))
        pairs = [
            (abs(float(e) - float(t)), float(t))
            for e, t in zip(estimate.flat, truth.flat, strict=True)
            if 0 < t < 192
        ]
        errors.append(pairs)
    summary = summarize(scores, "pixel")
    counting = [pairs for pairs in errors if pairs]
    pooled = [pair for pairs in counting for pair in pairs]
    assert summary["images"] == len(counting)
    assert summary["skipped"] == len(errors) - len(counting)
    assert summary["valid_pixels"] == len(pooled)
    if not pooled:
        assert "epe_pixel" not in summary
        return
    rules = {
        "epe": lambda e, t: e,
        "bad_1": lambda e, t: 100.0 * (e > 1),
        "bad_2": lambda e, t: 100.0 * (e > 2),
        "bad_3": lambda e, t: 100.0 * (e > 3),
        "d1": lambda e, t: 100.0 * (e > 3 and e / t > 0.05),
    }
    for name, rule in rules.items():
        by_pixel = np.mean([rule(*p) for p in pooled])
        by_image = np.mean([np.mean([rule(*p) for p in pairs]) for pairs in counting])
        assert summary[f"{name}_pixel"] == pytest.approx(by_pixel)
        assert summary[f"{name}_image"] == pytest.approx(by_image)
        assert summary[name] == pytest.approx(by_pixel)


def test_psmnet_protocol_averages_groups_of_8_and_counts_zeros(rng):
    truth = rng.uniform(0, 190, (10, 4, 5))
    truth[:, 0, 0] = 0
    estimate = truth + rng.uniform(0, 5, truth.shape)
    scores = [scored(estimate[i], truth[i], "psmnet", i) for i in range(10)]
    error = np.abs(estimate.astype(np.float32).astype(np.float64) - truth.astype(np.float32))
    expected = (error[:8].mean() + error[8:].mean()) / 2
    assert summarize(scores, "group8")["epe"] == pytest.approx(expected)
    assert summarize(scores[::-1], "group8") == summarize(scores, "group8")


def test_gwcnet_protocol_matches_and_scores_the_bottom_right_alone(tmp_path, monkeypatch):
    """GwcNet's loader crops views and truth before the network sees them."""
    rules, seen = get_protocol("gwcnet"), []
    assert rules.bottom_right_crop == (512, 960)
    monkeypatch.setitem(PROTOCOLS, "gwcnet", dataclasses.replace(rules, bottom_right_crop=(64, 96)))

    def match(left, right):
        seen.append((left, right))
        return np.full(left.shape[:2], 20, np.float32)

    matcher = wrap(match, name="mine", max_disparity=192)
    evaluate(matcher, "sceneflow", samples_root(), tmp_path, protocol="gwcnet", limit=1)
    whole = open_dataset("sceneflow", samples_root()).samples[0].read()
    for view, own in zip((whole.left, whole.right), seen[-1], strict=True):
        assert np.array_equal(own, view[-64:, -96:])
    (image,) = json.loads((tmp_path / "metrics.json").read_bytes())["images"]
    truth = whole.disparity[-64:, -96:]
    assert image["valid_pixels"] == np.count_nonzero((truth > 0) & (truth < 192))


def test_pixels_that_match_outside_the_crop_are_occluded_in_it():
    disparity = np.full((512, 1000), 50, np.float32)
    view, seen = np.zeros((512, 1000, 3), np.uint8), np.ones((512, 1000), bool)
    cut = get_protocol("gwcnet").crop(Sample("a", view, view, disparity, seen, seen))
    assert cut.nonoccluded.shape == (512, 960)
    assert not cut.nonoccluded[:, :50].any()
    assert cut.nonoccluded[:, 50:].all()
    # What is given stays as it is, where nothing is cut off too.
    own = Sample(
        "a", *(each[:, :960] for each in (view, view, disparity, seen)), seen[:, :960].copy()
    )
    get_protocol("gwcnet").crop(own)
    assert own.nonoccluded.all()


def test_gwcnet_protocol_skips_images_with_little_truth():
    truth = np.full((540, 960), 10.0, np.float32)
    truth[40:] = np.nan
    assert not scored(
        np.nan_to_num(truth), truth, "gwcnet"
    ).skipped  # all that is known is in range
    truth[40:] = 192
    score = scored(truth, truth, "gwcnet")
    assert score.skipped
    assert summarize([score], "image")["skipped_names"] == ["image 0"]


def test_raft_protocol_pools_its_rates_but_not_epe():
    truth = np.full((2, 10, 100), 20.0)
    estimate = truth.copy()
    estimate[0, :1] += 5  # a tenth of a whole image
    truth[1, 1:], estimate[1, 0, :90] = np.inf, 25  # nine tenths of one with a tenth of the pixels
    scores = [scored(estimate[i], truth[i], "raft", i) for i in range(2)]
    found = summarize(scores, PROTOCOLS["raft"].averaging)
    assert found["epe"] == pytest.approx((0.5 + 4.5) / 2)
    assert found["bad_1"] == pytest.approx(100 * 190 / 1100)


def test_raft_protocol_takes_the_400_images_of_seed_1000():
    chosen = PROTOCOLS["raft"].choose_images(4370)
    expected = np.random.RandomState(1000).permutation(4370)[:400]
    assert chosen == sorted(expected)
    assert PROTOCOLS["raft"].choose_images(21) == list(range(21))


def test_a_tenth_in_range_is_enough_and_a_skipped_image_takes_no_part_as_a_record_too():
    truth = np.where(np.arange(100) < 90, 200, 20)
    assert not scored(truth, truth, "gwcnet").skipped  # 10 % exactly
    truth[90] = 200
    score = scored(truth, truth, "gwcnet")
    for each in (score, score_of_record(image_record(score), 0)):
        found = summaries([each], "image")
        assert found["summary"]["images"] == found["noc"]["images"] == 0


@pytest.mark.parametrize(
    ("protocol", "counted"),
    [
        ("pooled", [False, False, True, True, False]),
        ("psmnet", [True, True, True, True, False]),
        ("gwcnet", [False, False, True, True, False]),
        ("raft", [True, True, True, True, False]),
        ("kitti2012", [False, False, True, True, True]),
        ("kitti2015", [False, False, True, True, True]),
        ("middlebury", [False, False, True, True, True]),
        ("eth3d", [False, False, True, True, True]),
    ],
)
def test_protocol_masks(protocol, counted):
    truth = np.array([[-5, 0, 0.5, 191.9, 192]], np.float32)
    valid = np.ones_like(truth, bool)
    assert get_protocol(protocol).valid_pixels(truth, valid).tolist() == [counted]
    assert not get_protocol(protocol).valid_pixels(truth * np.nan, valid).any()


@pytest.mark.parametrize(
    ("protocol", "counted", "mask"),
    [
        ("pooled", [False, True, True, True, False], "-32 <= d < 192"),
        ("kitti2015", [False, True, True, True, True], "-32 <= d"),
        ("psmnet", [True, True, True, True, False], "d < 192"),
        ("raft", [True, True, True, True, False], "-192 < d < 192"),
    ],
)
def test_a_negative_range_moves_a_lower_bound_of_0(protocol, counted, mask):
    truth = np.array([[-33, -32, 0, 191.9, 192]], np.float32)
    rules = get_protocol(protocol)
    moved = rules.with_range(-32)
    assert moved.valid_pixels(truth, np.ones_like(truth, bool)).tolist() == [counted]
    assert moved.to_dict()["mask"] == mask
    assert moved.name == protocol
    assert rules.with_range(0) == rules.with_range(16) == rules


def test_kitti_2012_averages_over_images_and_2015_pools_over_pixels():
    # errors 4, 0 against 0, 0, 0, 6: outliers 1/2 and 1/4 of an image, 2/6 of all pixels
    pairs = (([104, 100], [100, 100]), ([10, 10, 10, 16], [10, 10, 10, 10]))
    expected = {
        "kitti2012": {"epe": (2 + 1.5) / 2, "bad_3": 37.5, "bad_5": 12.5},
        "kitti2015": {"epe": 10 / 6, "bad_3": 200 / 6, "d1": 100 / 6},  # 4 px of 100 is under 5 %
    }
    for name, figures_of in expected.items():
        scores = [scored(*pair, name, index) for index, pair in enumerate(pairs)]
        summary = summarize(scores, get_protocol(name).averaging)
        assert {key: summary[key] for key in figures_of} == pytest.approx(figures_of)
    with pytest.raises(UsageError, match=r"kitti2012.*kitti2015"):
        get_protocol("kitti")


def test_occluded_and_nonoccluded_are_scored_separately():
    nonoccluded = np.array([[True, True, False, False]])
    truth, estimate = [10, 10, 10, 10], [10, 12, 14, 18]
    score = scored(estimate, truth, nonoccluded=nonoccluded)
    record = image_record(score)
    assert (record["epe"], record["noc"]["epe"], record["regions"]["occluded"]["epe"]) == (
        3.5,
        1,
        6,
    )
    assert (record["valid_pixels"], record["noc"]["valid_pixels"]) == (4, 2)
    assert record["noc"]["mask"] == "data set"
    assert "all" not in record  # the protocol's own figures are those of all pixels
    found = summaries([score], "pixel")
    assert found["summary"].keys() - {"regions"} == found["noc"].keys() - {"mask"}
    assert (found["summary"]["epe"], found["noc"]["epe"]) == (3.5, 1)
    assert (found["noc"]["bad_2_image"], found["summary"]["bad_2_image"]) == (0, 50)


@pytest.mark.parametrize("protocol", ["middlebury", "eth3d"])
def test_benchmarks_of_nonoccluded_pixels_keep_all_beside_them(protocol):
    nonoccluded = np.array([[True, True, False, False]])
    score = scored([10, 12, 14, 18], [10] * 4, protocol, nonoccluded=nonoccluded)
    for figure in (image_record(score), image_record(score_of_record(image_record(score), 0))):
        assert (figure["epe"], figure["noc"]["epe"], figure["all"]["epe"]) == (1, 1, 3.5)
    found = summaries([score], "image")
    assert [found[key]["epe_pixel"] for key in ("summary", "noc", "all")] == [1, 1, 3.5]
    assert found["summary"]["regions"]["occluded"]["epe_pixel"] == 6
    assert get_protocol(protocol).to_dict()["region"] == "non-occluded"


def test_an_image_all_occluded_keeps_its_pixels_of_all():
    nonoccluded = np.zeros((1, 4), bool)
    hidden = scored([10, 12, 14, 18], [10] * 4, "middlebury", nonoccluded=nonoccluded)
    for score in (hidden, score_of_record(image_record(hidden), 0)):
        found = summaries([score], "image")
        assert found["summary"]["images"] == found["noc"]["images"] == 0
        assert (found["all"]["images"], found["all"]["epe_pixel"]) == (1, 3.5)


def test_a_pixel_is_occluded_by_a_nearer_one_on_its_column_or_outside_the_frame():
    # Columns 0 to 9; a wall of 2 px, before it a box of 5 px in columns 6 and 7 that lands on 1, 2.
    truth = np.array([[2, 2, 2, 2, 2, 2, 5, 5, 2, 2]], np.float32)
    known = np.ones_like(truth, bool)
    #                x - d: -2 -1  0  1  2  3  1  2  6  7
    seen = [False, False, True, False, False, True, True, True, True, True]
    assert seen_by_right(truth, known).tolist() == [seen]
    assert image_record(scored(truth, truth))["noc"]["mask"] == "geometry"
    assert image_record(scored(truth, truth))["noc"]["valid_pixels"] == 6
    for less, hidden in ((0.3, 0), (-0.3, -1)):  # beyond either side by less than half a pixel
        seen_there = seen_by_right(np.full((1, 4), less), np.ones((1, 4), bool))
        assert np.flatnonzero(~seen_there).tolist() == [hidden % 4]
    known[0, 6] = False  # what is not known hides nothing, and is not seen
    seen[3], seen[6] = True, False
    assert seen_by_right(truth, known).tolist() == [seen]


def test_a_slanted_surface_does_not_occlude_itself_and_negative_disparities_leave_on_the_right():
    columns = np.arange(60, dtype=np.float32)
    for slope in (-0.7, -0.3, 0.2, 0.45):
        truth = np.tile(30 + slope * (columns - 30), (3, 1))
        seen = seen_by_right(truth, np.ones_like(truth, bool))
        assert np.array_equal(seen, columns - truth >= 0), slope
    truth = np.full((1, 6), -2, np.float32)
    assert seen_by_right(truth, truth < 0).tolist() == [[True] * 4 + [False] * 2]


@pytest.mark.parametrize("fall", [0.6, 1.0])
def test_nothing_is_seen_through_the_columns_between_pixels_of_a_stretched_surface(fall):
    # From column 40 on a surface that falls from 30 px and lands on column 10 and on; left of it a
    # wall of 5 px, of which it hides columns 15 to 39.
    columns = np.arange(57, dtype=np.float32)
    truth = np.where(columns < 40, 5, 30 - fall * (columns - 40))[None].astype(np.float32)
    seen = seen_by_right(truth, np.ones_like(truth, bool))[0]
    assert seen[5:15].all() and seen[40:].all()
    assert not seen[:5].any() and not seen[15:40].any()
    # The same with the surface's first column out of the frame: its next one closes column 0.
    seen = seen_by_right(truth[:, 11:], np.ones_like(truth[:, 11:], bool))[0]
    assert not seen[4:29].any() and seen[30:].all()


def test_a_gap_between_two_surfaces_shows_what_lies_behind():
    # Two surfaces, 1.4 px apart, land on columns 0 to 10 and from 12 on; column 11 shows the wall.
    truth = np.where(np.arange(60) < 30, 5, 30)[None].astype(np.float32)
    truth[0, 41:] = 28.6
    seen = seen_by_right(truth, np.ones_like(truth, bool))[0]
    assert np.flatnonzero(seen[5:30]).tolist() == [11]  # x - d of column 16


def test_occluders_need_not_be_counted_pixels():
    truth = np.full((1, 400), 10, np.float32)
    truth[0, 300:350] = 250  # beyond the protocol's mask, and before columns 60 to 109
    score = scored(np.where(np.arange(400) < 110, 20, 10), truth)
    record = image_record(score)
    assert record["valid_pixels"] == 350
    assert record["noc"]["valid_pixels"] == 350 - 10 - 50
    assert record["noc"]["bad_2"] == pytest.approx(100 * 50 / 290)


def test_the_geometry_agrees_with_the_masks_of_rendered_pairs():
    scenes = SyntheticScenes(SyntheticConfig(height=128, width=384, seed=5))
    for index in range(2):
        pair = scenes.render(index)
        seen = seen_by_right(pair.disparity, np.ones_like(pair.nonoccluded))
        # What hides a pixel from the right view may itself lie beyond the left view's right rim.
        columns = np.arange(seen.shape[1])
        matched = (columns - pair.disparity).round().astype(int).clip(0)
        hiding = matched + np.take_along_axis(pair.right_disparity, matched, axis=1)
        inside = hiding < columns[-1]
        assert (seen != pair.nonoccluded)[inside].mean() < 0.02
        assert (pair.nonoccluded & ~seen).mean() < 0.01


def test_an_image_without_nonoccluded_pixels_counts_only_in_all():
    hidden = np.zeros((1, 2), bool)
    scores = [scored([5, 5], [4, 4], nonoccluded=hidden), scored([7, 5], [4, 4], index=1)]
    assert image_record(scores[0])["noc"] == {"valid_pixels": 0, "mask": "data set"}
    found = summaries(scores, "image")
    assert (found["summary"]["images"], found["noc"]["images"]) == (2, 0)
    assert found["noc"]["skipped_names"] == ["image 0", "image 1"]  # 4 px leave a frame of 2
    assert "epe_image" not in found["noc"]
    assert found["noc"]["mask"] == "data set (1 images) and geometry (1 images)"


SCALES = {"x256": 256, "x64": 64, "x100": 100, "x16": 16, "/256": 1 / 256, "/width": 1 / 200}


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_truth_in_another_unit_is_detected_by_its_ratio_to_the_map(rng, scale):
    disparity = rng.uniform(5, 60, (40, 200))
    estimate = disparity * rng.normal(1, 0.02, disparity.shape)
    estimate[rng.random(disparity.shape) < 0.2] = 1.5  # a fifth is wrong
    ratio = ratio_to_map(estimate, disparity * scale, disparity > 0)
    assert constant_ratio([ratio] * 3) == pytest.approx(scale, rel=0.02)
    hint = scale_hint([ratio], "--ground-truth-scale")
    factor = f"{scale:g} times" if scale > 1 else f"1/{1 / scale:g} of"
    assert f"about {factor} the map everywhere" in hint
    assert ("divide it by" if scale > 1 else "multiply it by") in hint
    assert ("width" in hint) == (scale == 1 / 200)


def test_the_ratio_of_a_large_image_is_that_of_all_its_parts(rng):
    disparity = rng.uniform(5, 60, (200, 400))  # four times the pixels that are compared
    truth = disparity * np.where(np.arange(200) < 60, 1, 4)[:, None]
    assert np.exp(ratio_to_map(disparity, truth, truth > 0).median) == pytest.approx(4)


def test_integer_maps_get_a_hint_with_their_scale(rng):
    disparity = rng.uniform(5, 60, (40, 200))
    ratio = ratio_to_map(disparity, disparity * 100 / 256, disparity > 0)
    hint = scale_hint([ratio], "--ground-truth-scale", stored=256.0)  # pixels x 100, read as x 256
    assert "give --ground-truth-scale 100;" in hint


def test_right_truth_and_wrong_maps_give_no_hint(rng):
    truth = rng.uniform(5, 60, (40, 200))
    known = np.ones_like(truth, bool)
    flat = np.full_like(truth, 24.0)
    for estimate, of in (
        (truth * rng.normal(1, 0.05, truth.shape), truth),
        (rng.uniform(0, 192, truth.shape), truth),
        (truth[:, ::-1], truth * 3),
        (np.full_like(truth, 95) + rng.normal(0, 2, truth.shape), truth),  # without training
        (np.full_like(truth, 95) + rng.normal(0, 2, truth.shape), flat),
        (np.minimum(truth * 4, 64), truth * 4),  # cut off by the range searched
        (np.zeros_like(truth), truth * 256),
        (truth, -truth),
    ):
        ratio = ratio_to_map(estimate, of, known)
        assert scale_hint([ratio] if ratio else [], "an option") is None
    assert ratio_to_map(truth, truth * np.nan, known) is None
    one = ratio_to_map(truth, truth * 256, known)
    other = ratio_to_map(truth, truth, known)
    assert scale_hint([one, other, other], "an option") is None


def test_an_image_without_valid_pixels_is_never_a_zero():
    scores = [scored([5.0], [np.nan], index=0), scored([11.0], [10.0], index=1)]
    summary = summarize(scores, "pixel")
    assert (summary["epe_image"], summary["images"], summary["skipped"]) == (1.0, 1, 1)
    assert summary["skipped_names"] == ["image 0"]


def test_an_estimate_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        scored([np.nan], [1.0])


@pytest.mark.parametrize("protocol", ["pooled", "psmnet", "gwcnet"])
def test_training_scores_as_evaluation_does_in_any_order(rng, protocol):
    rules = get_protocol(protocol)
    truth = rng.uniform(0, 200, (19, 6, 7)).astype(np.float32)
    estimate = truth + rng.normal(0, 3, truth.shape).astype(np.float32)
    valid = rng.random(truth.shape) < 0.8
    valid[7] = False
    images = [(f"image {i}", i, estimate[i], truth[i], valid[i], rules) for i in range(19)]
    expected = summarize([score_image(*image) for image in images], rules.averaging)
    expected.pop("regions")  # which training does not count
    scores = [score_all_pixels(*image) for image in images]
    assert expected["skipped_names"] == ["image 7"]
    assert summarize(scores[0::2] + scores[1::2], rules.averaging) == expected  # two processes


def test_confidence_is_scored_over_counted_pixels_alone():
    truth = np.array([[10, 10, 10, 0, 200]], np.float32)
    error = np.array([[1, 2, 4, 50, 50]], np.float32)
    measures = {"confidence": np.array([[0.9, 0.8, 0.1, 1, 1]]), "reverse": error}
    valid, rules = np.ones((1, 5), bool), get_protocol("pooled")
    score = score_image("a", 0, truth + error, truth, valid, rules, measures=measures)
    found = score.confidence.ause()["ause_epe"]
    assert found["confidence"] == pytest.approx(0, abs=1e-9)
    assert found["reverse"] > 0.1
    assert score.confidence.bins[:, 0].sum() == 3


def test_records_keep_their_numbers_of_pixels():
    assert image_record(scored(np.ones((2, 3)), np.ones((2, 3))))["valid_pixels"] == 6


def test_every_pixel_with_truth_lies_in_one_bin():
    truth = np.array([[-1, 0, 15.9, 16, 63.9, 64, 128, 191.9, 192, 900, np.inf]], np.float32)
    masks = regions(truth, np.isfinite(truth))
    found = [[i for i, name in enumerate(BINS) if masks[name][0, x]] for x in range(11)]
    assert found == [[0], [0], [0], [1], [2], [3], [4], [4], [5], [5], []]
    assert "flat" not in masks


def test_pixels_near_a_jump_of_the_disparity_are_near_an_edge():
    truth = np.full((30, 40), 10, np.float32)
    truth[:, 20:] = 20
    near = near_edges(truth, np.ones_like(truth, bool))
    columns = np.flatnonzero(near.all(axis=0))
    assert columns.tolist() == list(range(19 - EDGE_REACH, 21 + EDGE_REACH))
    assert (near.any(axis=0) == near.all(axis=0)).all()
    assert (near_edges(truth.T, np.ones_like(truth.T, bool)) == near.T).all()


def test_sparse_truth_has_edges_between_neighbours_but_none_on_slopes():
    truth = np.tile(np.arange(60, dtype=np.float32) * 0.9, (5, 1))  # a steep surface
    known = np.zeros_like(truth, bool)
    known[2, ::6] = True
    assert not near_edges(truth, known).any()
    assert not near_edges(truth, np.ones_like(known)).any()
    truth[:, 30:] += 20
    near = near_edges(np.where(known, truth, np.nan), known)
    assert np.flatnonzero(near[2]).tolist() == list(range(24 - EDGE_REACH, 31 + EDGE_REACH))
    known[2, 24] = False  # now 12 pixels lie between the known ones: too far to tell
    assert not near_edges(np.where(known, truth, np.nan), known).any()


@pytest.mark.parametrize(("apart", "there"), [(8, True), (9, False)])
def test_known_pixels_have_an_edge_between_them_up_to_eight_columns(apart, there):
    truth, known = np.zeros((1, 30), np.float32), np.zeros((1, 30), bool)
    truth[0, 10 + apart] = 50
    known[0, [10, 10 + apart]] = True
    assert near_edges(truth, known).any() == there


def test_texture_is_what_changes_along_the_rows():
    stripes = np.zeros((24, 24, 3), np.uint8)
    stripes[np.arange(24) % 4 < 2] = 200
    assert is_flat(stripes).all()  # matching has nothing to go by
    assert not is_flat(stripes.transpose(1, 0, 2)).any()


def test_walls_are_flat_and_noise_is_not(rng):
    left = np.full((20, 60, 3), 90, np.uint8)
    left[:, 30:] = rng.integers(0, 255, (20, 30, 3))
    flat = is_flat(left)
    assert flat[:, :26].all()
    assert not flat[:, 34:].any()
    assert is_flat(np.zeros((3, 1, 3), np.uint8)).all()


def test_regions_partition_counted_pixels_and_pool_alike(rng):
    truth = rng.uniform(0, 250, (4, 12, 20)).astype(np.float32)
    estimate = truth + rng.normal(0, 4, truth.shape).astype(np.float32)
    left = rng.integers(0, 255, (12, 20, 3), np.uint8)
    rules = get_protocol("pooled")
    valid = np.ones((12, 20), bool)
    scores = [
        score_image(str(i), i, estimate[i], truth[i], valid, rules, left=left) for i in range(4)
    ]
    summary = summarize(scores, "pixel")
    parts = summary["regions"]
    assert "disparity_192" not in parts  # the protocol counts none of them
    for group in (BINS[:-1], ("edges", "away_from_edges"), ("flat", "textured")):
        having = [parts[name] for name in group if name in parts]
        assert sum(part["valid_pixels"] for part in having) == summary["valid_pixels"]
        pooled = sum(part["valid_pixels"] * part["epe_pixel"] for part in having)
        assert pooled == pytest.approx(summary["valid_pixels"] * summary["epe_pixel"])


def test_a_score_round_trips_through_its_record(rng):
    truth = rng.uniform(1, 250, (2, 12, 20)).astype(np.float32)
    estimate = truth + rng.normal(0, 4, truth.shape).astype(np.float32)
    rules, valid = get_protocol("pooled"), np.ones((12, 20), bool)
    scores = [score_image(str(i), i, estimate[i], truth[i], valid, rules) for i in range(2)]
    again = [score_of_record(image_record(score), i) for i, score in enumerate(scores)]
    one, other = summarize(scores, "group8"), summarize(again, "group8")
    for key in ("epe", "bad_2_pixel", "d1_image", "valid_pixels", "images"):
        assert one[key] == pytest.approx(other[key])
    again_noc = summaries(again, "group8")["noc"]
    for key, value in summaries(scores, "group8")["noc"].items():
        assert again_noc[key] == (pytest.approx(value) if isinstance(value, float) else value)
    for region, part in one["regions"].items():
        for key in ("epe_pixel", "epe_image", "bad_3_pixel", "valid_pixels", "images"):
            assert part[key] == pytest.approx(other["regions"][region][key])


def test_the_table_has_the_mean_over_images_of_every_rate_beside_the_protocols_own():
    # errors 0, 1.5, 2.5, 3.5, 6 and, in another image, 6; 5 % of the truth are 5 px
    scores = [scored([100, 101.5, 102.5, 103.5, 106], [100] * 5), scored([106], [100], index=1)]
    rates = "bad-1 80.00 %  bad-2 60.00 %  bad-3 40.00 %  D1 20.00 %"
    assert score_line(scores[0]) == f"image 0: EPE 2.700 px  {rates}"
    header, _, row, *_ = summary_table([("both", summaries(scores, "pixel"))]).splitlines()
    shown = dict(
        zip(*([part.strip() for part in x.split("|")] for x in (header, row)), strict=True)
    )
    assert float(shown["EPE"]) == float(shown["EPE pixel"]) == 3.25
    assert float(shown["EPE image"]) == 4.35
    for metric, bad in (("bad-1", 5), ("bad-2", 4), ("bad-3", 3), ("D1", 2)):
        assert float(shown[metric]) == pytest.approx(100 * bad / 6, abs=0.01)
        if metric != "D1":
            assert float(shown[f"{metric} image"]) == 50 + 10 * (bad - 1)
