"""The first convolution without the volume equals the convolution of the volume."""

import pytest
import torch

from stereo.models.first_convolution import convolve_views, convolve_volume


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("planes", "width"),
    [(1, 6), (2, 6), (3, 5), (4, 1), (4, 2), (4, 3), (6, 9), (9, 9), (12, 7), (16, 13)],
)
def test_value_and_gradients_are_those_of_the_volume(planes, width, biased, layout):
    torch.manual_seed(planes + width)
    views = [torch.randn(2, 3, 4, width, dtype=torch.float64) for _ in range(2)]
    views = [v.contiguous(memory_format=layout).requires_grad_() for v in views]
    weight = torch.randn(5, 6, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True) if biased else None
    inputs = [*views, weight, *([bias] if biased else [])]
    expected = convolve_volume(*views, planes, weight, bias)
    found = convolve_views(*views, planes, weight, bias)
    assert (found - expected).abs().max() < 1e-12
    outside = torch.randn_like(expected)
    gradients = [torch.autograd.grad(each, inputs, outside) for each in (found, expected)]
    for mine, theirs in zip(*gradients, strict=True):
        assert (mine - theirs).abs().max() < 1e-10
