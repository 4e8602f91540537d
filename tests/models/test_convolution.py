"""The project's convolutions against PyTorch's: values, gradients, and when they step aside."""

import math

import pytest
import torch
from torch.nn import functional as F

from stereo.models import convolution
from stereo.models.convolution import Conv2d, Conv3d, ConvTranspose3d
from stereo.models.winograd import convolve_by_planes
from stereo.system.runtime import to_channels_last


@pytest.fixture(autouse=True)
def _whatever_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch.backends.cpu.get_cpu_capability()
    monkeypatch.setattr(convolution, "FASTER_ON", (here,))


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_a_2d_convolution_has_pytorchs_gradients(dilation: int, bias: bool) -> None:
    torch.manual_seed(0)
    conv = Conv2d(5, 7, 3, padding=dilation, dilation=dilation, bias=bias).double()
    to_channels_last(conv)
    x = torch.randn(2, 5, 9, 6, dtype=torch.float64, requires_grad=True)
    _same_gradients(conv, x, F.conv2d(x, conv.weight, conv.bias, 1, dilation, dilation))


@pytest.mark.parametrize("depth", [1, 3, 4, 10])
def test_a_3d_convolution_has_pytorchs_gradients(
    depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "FEWEST_CHANNELS", 1)
    monkeypatch.setattr(convolution, "FEWEST_VALUES", 1)
    torch.manual_seed(0)
    conv = Conv3d(3, 5, 3, padding=1, bias=False).double()
    to_channels_last(conv)
    x = torch.randn(2, 3, depth, 7, 6, dtype=torch.float64, requires_grad=True)
    assert conv.by_planes(x)
    _same_gradients(conv, x, F.conv3d(x, conv.weight, None, 1, 1))


def _same_gradients(conv: torch.nn.Module, x: torch.Tensor, expected: torch.Tensor) -> None:
    own = conv(x)
    assert "Convolve" in type(own.grad_fn).__name__  # not PyTorch's
    into = torch.randn_like(expected)
    assert torch.allclose(own, expected, rtol=0, atol=1e-12)
    inputs = (x, *conv.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(own, inputs, into),
        torch.autograd.grad(expected, inputs, into),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("channels", [20, 24, 32, 40])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_in_bf16_hold_nothing_uninitialised(
    channels: int, dilation: int, autocast: bool
) -> None:
    torch.manual_seed(0)
    conv = Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
    conv = conv.to(memory_format=torch.channels_last)
    x = torch.randn(2, channels, 64, 104).to(memory_format=torch.channels_last)
    upstream = torch.randn_like(x)
    (expected,) = torch.autograd.grad(conv(x), conv.weight, upstream)
    if not autocast:
        conv, x, upstream = conv.bfloat16(), x.bfloat16(), upstream.bfloat16()
    for _ in range(4):
        rubbish = [torch.full((size,), math.nan) for size in (10**3, 10**4, 10**5, 10**6)]
        del rubbish  # what the next allocations are likely to find
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = conv(x)
        (gradient,) = torch.autograd.grad(out, conv.weight, upstream.bfloat16())
        torch.testing.assert_close(gradient.float(), expected, rtol=0.05, atol=2.0)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_in_bf16_of_shallow_volumes_are_right(depth: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = Conv3d(32, 32, 3, stride, 1, bias=False).to(memory_format=torch.channels_last_3d)
    x = torch.randn(2, 32, depth, 10, 26).to(memory_format=torch.channels_last_3d)
    expected = conv(x)
    upstream = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, conv.weight, upstream)
    for _ in range(4):
        rubbish = [torch.full((2**k,), math.nan) for k in range(8, 20) for _ in range(4)]
        del rubbish
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(x)
        assert out.shape == expected.shape
        (gradient,) = torch.autograd.grad(out, conv.weight, upstream.bfloat16())
        assert (gradient.float() - wanted).norm() < 0.02 * wanted.norm()


def test_some_planes_in_strips_with_a_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stereo.models.winograd.STRIP_ELEMENTS", 4 * 6 * 3)  # rows: 3
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 7, 6, dtype=torch.float64)
    weight, bias = torch.randn(4, 3, 3, 3, 3).double(), torch.randn(4).double()
    expected = F.conv3d(x, weight, bias, padding=1)
    assert torch.allclose(convolve_by_planes(x, weight, bias), expected, rtol=0, atol=1e-12)
    some = convolve_by_planes(x, weight, bias, range(2, 8))
    assert torch.allclose(some, expected[:, :, 2:8], rtol=0, atol=1e-12)


@pytest.mark.parametrize("conv", [Conv3d(8, 16, 3, 2, 1), ConvTranspose3d(8, 16, 3, 2, 1, 1)])
def test_a_single_volume_is_not_left_to_the_slow_path(conv: torch.nn.Module) -> None:
    to_channels_last(conv)
    volume = torch.randn(1, 8, 4, 9, 10)
    expected = conv(volume).detach()  # with gradients: PyTorch's
    with torch.no_grad(), torch.profiler.profile() as found:
        own = conv(volume)
    assert not any("slow_conv" in row.key for row in found.key_averages())
    assert torch.allclose(own, expected, rtol=0, atol=1e-5)


def test_rounding_stays_that_of_fp32() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 32, 8, 16, 64), torch.randn(32, 32, 3, 3, 3)
    exact = F.conv3d(x.double(), weight.double(), padding=1)
    error = (convolve_by_planes(x, weight) - exact).square().mean().sqrt() / exact.std()
    assert error < 3e-6


def test_the_direct_form_is_used_if_faster_or_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = Conv3d(32, 32, 3, padding=1, bias=False)
    volume = torch.zeros(1, 32, 4, 32, 32)
    assert not conv.by_planes(volume)  # not laid out: the plain form
    to_channels_last(conv)
    assert conv.by_planes(volume)
    assert not conv.by_planes(volume[..., :8, :8])
    with torch.autocast("cpu", torch.bfloat16):
        assert not conv.by_planes(volume)
    strided = Conv3d(32, 32, 3, 2, 1, bias=False)
    to_channels_last(strided)
    assert not strided.by_planes(volume)
    monkeypatch.setattr(convolution, "FASTER_ON", ())
    assert not conv.by_planes(volume)
