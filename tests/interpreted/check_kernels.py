"""Triton kernels in Triton's interpreter, against the plain forms in float64.

Run by ``tests/test_kernels.py``, in a process of its own: the interpreter is chosen when Triton is
first imported.
"""

import pytest
import torch

from stereo.kernels import regression as kernel
from stereo.model.regression import regress_plainly

UPSAMPLINGS = ["unbiased", "half_pixel", "align_corners"]


def poisoned(values):
    """Return a copy that lies between NaNs: who reads beside it shows it."""
    count = values.numel()
    memory = torch.full((count + 512,), float("nan"), dtype=values.dtype)
    inside = memory[256 : 256 + count].view(values.shape)
    return inside.copy_(values)


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (2, 3, 2, 5)])
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_regression_and_its_gradient_are_the_plain_ones(monkeypatch, upsampling, shape):
    monkeypatch.setattr(kernel, "PIXELS", 16)
    torch.manual_seed(0)
    values = 4 * torch.randn(shape, dtype=torch.float64)
    exact = values.clone().requires_grad_()
    expected = regress_plainly(exact, upsampling)
    outside = torch.randn_like(expected)
    (slope,) = torch.autograd.grad(expected, exact, outside)
    logits = poisoned(values.float()).requires_grad_()
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    found = kernel.regress_disparity(logits, upsampling)
    (gradient,) = torch.autograd.grad(found, logits, poisoned(outside.float()))
    assert (found - expected).abs().max() < 2e-5
    assert (gradient - slope).abs().max() < 2e-5 * max(1.0, float(slope.abs().max()))
