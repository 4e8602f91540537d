"""Metrics against a plain numpy reference and figures worked by hand."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo.metrics import ImageScore, error_sums, figures, image_record, score_image, summarise
from stereo.protocols import PROTOCOLS, get_protocol
from stereo.torch_metric import DisparityMetric


def scored(estimate, truth, protocol="pooled", index=0, valid=None, nonoccluded=None):
    estimate, truth = (np.atleast_2d(np.asarray(a, np.float32)) for a in (estimate, truth))
    valid = np.isfinite(truth) if valid is None else valid
    rules = get_protocol(protocol)
    return score_image(f"image {index}", index, estimate, truth, valid, rules, nonoccluded)


def test_d1_needs_both_the_3_px_and_the_5_percent_error():
    # errors 4, 4, 2, 10; 5 % of the truth: 5, 2, 0.5, 5 -> only the second and fourth count
    score = scored([104, 44, 12, 90], [100, 40, 10, 100])
    assert figures(score.sums["all"])["d1"] == 50.0


def test_figures_worked_by_hand():
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


@settings(max_examples=60, deadline=None)
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
    summary = summarise(scores, "pixel")
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
    assert summarise(scores, "group8")["epe"] == pytest.approx(expected)
    assert summarise(scores[::-1], "group8") == summarise(scores, "group8")


def test_gwcnet_protocol_crops_and_skips_images_with_little_truth():
    truth = np.full((540, 960), 10.0, np.float32)
    estimate = truth.copy()
    estimate[:28] = 100  # the rows that the crop leaves out
    assert figures(scored(estimate, truth, "gwcnet").sums["all"])["epe"] == 0
    truth[40:] = np.nan
    score = scored(np.nan_to_num(truth), truth, "gwcnet")
    assert score.skipped
    assert summarise([score], "image")["skipped_names"] == ["image 0"]


def test_raft_protocol_takes_the_400_images_of_seed_1000():
    chosen = PROTOCOLS["raft"].choose_images(4370)
    expected = np.random.RandomState(1000).permutation(4370)[:400]
    assert chosen == sorted(expected)
    assert PROTOCOLS["raft"].choose_images(21) == list(range(21))


@pytest.mark.parametrize(
    ("protocol", "counted"),
    [
        ("pooled", [False, False, True, True, False]),
        ("psmnet", [True, True, True, True, False]),
        ("gwcnet", [False, False, True, True, False]),
        ("raft", [True, True, True, True, False]),
        ("kitti", [False, False, True, True, True]),
        ("middlebury", [False, False, True, True, True]),
        ("eth3d", [False, False, True, True, True]),
    ],
)
def test_protocol_masks(protocol, counted):
    truth = np.array([[-5, 0, 0.5, 191.9, 192]], np.float32)
    valid = np.ones_like(truth, bool)
    assert get_protocol(protocol).valid_pixels(truth, valid).tolist() == [counted]
    assert not get_protocol(protocol).valid_pixels(truth * np.nan, valid).any()


def test_occluded_and_nonoccluded_are_told_apart():
    nonoccluded = np.array([[True, True, False, False]])
    truth, estimate = [10, 10, 10, 10], [10, 12, 14, 18]
    score = scored(estimate, truth, nonoccluded=nonoccluded)
    record = image_record(score)
    assert (record["epe"], record["nonoccluded"]["epe"], record["occluded"]["epe"]) == (3.5, 1, 6)
    score = scored(estimate, truth, "middlebury", nonoccluded=nonoccluded)
    assert figures(score.sums["all"])["epe"] == 1
    assert summarise([score], "image")["occluded"]["epe_pixel"] == 6


def test_an_image_without_valid_pixels_is_never_a_zero():
    scores = [scored([5.0], [np.nan], index=0), scored([11.0], [10.0], index=1)]
    summary = summarise(scores, "pixel")
    assert (summary["epe_image"], summary["images"], summary["skipped"]) == (1.0, 1, 1)
    assert summary["skipped_names"] == ["image 0"]


def test_an_estimate_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        error_sums(np.array([[np.nan]]), np.ones((1, 1)), np.ones((1, 1), bool))


@pytest.mark.parametrize("protocol", ["pooled", "psmnet", "gwcnet"])
def test_metric_does_not_depend_on_batches_or_processes(rng, protocol):
    rules = get_protocol(protocol)
    truth = torch.from_numpy(rng.uniform(0, 200, (19, 6, 7)).astype(np.float32))
    estimate = truth + torch.from_numpy(rng.normal(0, 3, truth.shape).astype(np.float32))
    valid = torch.from_numpy(rng.random(truth.shape) < 0.8)
    index = torch.arange(19)
    expected = summarise(
        [
            score_image(str(i), i, estimate[i].numpy(), truth[i].numpy(), valid[i].numpy(), rules)
            for i in range(19)
        ],
        rules.averaging,
    )
    for size in (1, 4, 8, 19):
        metric = DisparityMetric(rules)
        for part in index.split(size):
            metric.update(estimate[part], truth[part], valid[part], part)
        assert metric.compute() == expected
    # Two processes with every second image each, one image handed out twice to even the shares.
    gathered = DisparityMetric(rules)
    for part in (index[0::2], torch.cat([index[1::2], index[:1]])):
        gathered.update(estimate[part], truth[part], valid[part], part)
    assert gathered.compute() == expected


def test_skipped_images_are_counted_by_the_metric():
    metric = DisparityMetric(get_protocol("pooled"))
    metric.update(
        torch.ones(2, 3, 3), torch.ones(2, 3, 3), torch.zeros(2, 3, 3).bool(), torch.arange(2)
    )
    summary = metric.compute()
    assert (summary["images"], summary["skipped"]) == (0, 2)


def test_records_keep_their_numbers_of_pixels():
    score = ImageScore("a", 0, {"all": error_sums(*np.ones((2, 2, 3)), np.ones((2, 3), bool))})
    assert image_record(score)["valid_pixels"] == 6


def gather(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    metric = DisparityMetric(get_protocol("pooled"))
    truth = torch.arange(1.0, 25).view(2, 3, 4)
    if rank == 0:  # the other process has no image at all
        metric.update(truth + 1, truth, torch.ones_like(truth).bool(), torch.arange(2))
    summary = metric.compute()
    assert (summary["epe"], summary["images"]) == (1.0, 2)
    dist.destroy_process_group()


def test_metric_gathers_over_processes_even_from_one_without_images(tmp_path):
    torch.multiprocessing.spawn(gather, (tmp_path,), nprocs=2)
