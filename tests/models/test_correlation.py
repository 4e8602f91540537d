"""Correlation, what is read of it and convex upsampling, each against its definition."""

import pytest
import torch
from torch.nn import functional as F

from stereo.models import NetworkConfig, build_network
from stereo.models.correlation import (
    _correlate_by_planes,
    _correlate_matmul,
    convex_upsample,
    group_correlation,
    local_soft_argmax,
    lookup_correlation,
    upsample_logits,
)
from stereo.system.runtime import to_channels_last


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("planes", [4, 12])
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_correlation_is_the_cosine_of_each_group(planes, training):
    left, right = torch.randn(2, 2, 6, 3, 9, dtype=torch.float64, requires_grad=training)
    volume = group_correlation(left, right, planes, 2)
    assert volume.shape == (2, 2, planes, 3, 9)
    for group in range(2):
        mine, theirs = (view[:, 3 * group : 3 * group + 3] for view in (left, right))
        for d in range(planes):
            assert not volume[:, group, d, :, :d].any()
            if d < 9:
                cosine = F.cosine_similarity(mine[..., d:], theirs[..., : 9 - d], dim=1)
                assert (volume[:, group, d, :, d:] - cosine).abs().max() < 1e-3


def test_both_ways_to_correlate_have_the_same_gradients():
    for planes in (5, 20):
        left, right = torch.randn(2, 2, 3, 4, 5, 11, dtype=torch.float64, requires_grad=True)
        volumes = [way(left, right, planes) for way in (_correlate_by_planes, _correlate_matmul)]
        outside = torch.randn_like(volumes[0])
        gradients = [torch.autograd.grad(v, (left, right), outside) for v in volumes]
        assert (volumes[0] - volumes[1]).abs().max() < 1e-12
        for first, second in zip(*gradients, strict=True):
            assert (first - second).abs().max() < 1e-12


def test_the_correlation_does_not_change_with_contrast():
    left, right = torch.randn(2, 1, 8, 4, 12, dtype=torch.float64)
    difference = group_correlation(left, right, 6, 4) - group_correlation(3 * left, right, 6, 4)
    assert difference.abs().max() < 1e-3


def test_each_pixel_of_a_cell_has_its_own_weights():
    evidence = torch.randn(2, 8, 5, 3, 4)
    weights = torch.randn(2, 32, 3, 4)
    logits = upsample_logits(evidence, weights)
    assert logits.shape == (2, 5, 6, 8)
    for row in range(2):
        for column in range(2):
            own = weights.view(2, 4, 8, 1, 3, 4)[:, 2 * row + column]
            expected = (own * evidence).sum(dim=1)
            assert torch.allclose(logits[:, :, row::2, column::2], expected, atol=1e-5)


def test_local_soft_argmax_ignores_a_lesser_peak():
    logits = torch.full((1, 24, 1, 2), -20.0)
    logits[0, 5, 0, 0], logits[0, 20, 0, 0] = 3.0, 2.9
    logits[0, 7, 0, 1] = logits[0, 8, 0, 1] = 3.0
    assert local_soft_argmax(logits).flatten().tolist() == pytest.approx([5.0, 7.5], abs=1e-4)


def test_local_soft_argmax_is_the_mean_over_two_planes_to_either_side():
    shares = torch.tensor([0.0, 0.1, 0.05, 0.15, 0.3, 0.15, 0.2, 0.05])
    expected = (shares * torch.arange(8))[2:7].sum() / shares[2:7].sum()
    found = local_soft_argmax(shares.log().view(1, 8, 1, 1))
    assert float(found) == pytest.approx(float(expected))


@pytest.mark.parametrize("disparity", [0.0, 3.25, 7.0, 11.5])
def test_lookup_interpolates_between_planes_and_is_zero_outside(disparity):
    volume = torch.randn(1, 2, 12, 2, 3)
    found = lookup_correlation(volume, torch.full((1, 2, 3), disparity), 2).view(1, 2, 5, 2, 3)
    for i, place in enumerate(range(-2, 3)):
        at = disparity + place
        below = int(at // 1)

        def plane(k):
            return volume[:, :, k] if 0 <= k < 12 else torch.zeros(1, 2, 2, 3)

        expected = plane(below) + (at - below) * (plane(below + 1) - plane(below))
        assert torch.allclose(found[:, :, i], expected, atol=1e-6)


def test_convex_upsampling_stays_between_its_neighbours_and_can_pick_one():
    disparity = torch.arange(12.0).view(1, 3, 4)
    free = convex_upsample(disparity, torch.randn(1, 9 * 16, 3, 4), 4)
    assert free.shape == (1, 12, 16)
    around = F.pad(disparity[None], (1, 1, 1, 1), mode="replicate")
    most = F.max_pool2d(around, 3, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)[0]
    least = -F.max_pool2d(-around, 3, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)[0]
    assert ((4 * least - 1e-4 <= free) & (free <= 4 * most + 1e-4)).all()
    centre = torch.full((1, 9, 16, 3, 4), -100.0)
    centre[:, 4] = 100.0
    picked = convex_upsample(disparity, centre.flatten(1, 2), 4)
    assert torch.equal(picked, 4 * disparity.repeat_interleave(4, 1).repeat_interleave(4, 2))


@pytest.mark.parametrize("name", ["psmnet", "ea_psmnet", "ea_stereo_fast"])
def test_channels_last_changes_no_value(name):
    network = build_network(NetworkConfig(name, 32)).double().eval()
    views = torch.randn(2, 1, 3, 32, 64, dtype=torch.float64)
    with torch.inference_mode():
        before = network(*views)
        to_channels_last(network)
        assert (network(*views) - before).abs().max() < 1e-6
    convolutions = [m for m in network.modules() if hasattr(m, "kernel_size")]
    assert any(not m.weight.is_contiguous() for m in convolutions)
