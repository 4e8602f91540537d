"""Triton kernels against the plain forms in float64, on a GPU or in Triton's interpreter.

Run by ``tests/models/test_kernels.py``, in a process of its own: the interpreter is chosen when
Triton is first imported. On a GPU, which ``conftest.py`` hides:
``python -m pytest --noconftest tests/models/interpreted/check_kernels.py``.
"""

import mmap
import os

import pytest
import torch

from stereo.attention import ATTENTIONS
from stereo.models.kernels import attention as attending
from stereo.models.kernels import attention_kernels as kernels
from stereo.models.kernels import regression as kernel
from stereo.models.regression import regress_reference

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
UPSAMPLINGS = ["unbiased", "half_pixel", "align_corners"]


@pytest.fixture(autouse=True)
def tensors_on_the_device():
    with torch.device(DEVICE):
        yield


def poisoned(values):
    """Return a copy that lies between NaNs: who reads beside it shows it."""
    count = values.numel()
    memory = torch.full((count + 512,), float("nan"), dtype=values.dtype)
    inside = memory[256 : 256 + count].view(values.shape)
    return inside.copy_(values)


@pytest.mark.parametrize("shape", [(1, 4, 2, 2), (2, 3, 1, 5)])
@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_regression_and_its_gradient_equal_the_reference(monkeypatch, upsampling, shape):
    monkeypatch.setattr(kernel, "PIXELS", 16)
    torch.manual_seed(0)
    values = 4 * torch.randn(shape, dtype=torch.float64)
    exact = values.clone().requires_grad_()
    expected = regress_reference(exact, upsampling)
    outside = torch.randn_like(expected)
    (slope,) = torch.autograd.grad(expected, exact, outside)
    logits = poisoned(values.float()).requires_grad_()
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
    found = kernel.regress_disparity(logits, upsampling)
    (gradient,) = torch.autograd.grad(found, logits, poisoned(outside.float()))
    assert (found - expected).abs().max() < 2e-5
    assert (gradient - slope).abs().max() < 2e-5 * max(1.0, float(slope.abs().max()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(
    ("channels", "heads", "masked", "options"),
    [
        (5, 1, False, {"key_channels": 3}),
        (32, 1, True, {}),
        (8, 2, True, {"temperature": True}),
        (18, 3, False, {"value_channels": 9}),
    ],
)
def test_attention_and_its_gradients_equal_the_reference(
    monkeypatch, channels, heads, masked, options, layout
):
    monkeypatch.setattr(attending, "CELLS", 16)
    monkeypatch.setattr(attending, "PROGRAMS", 3)
    torch.manual_seed(0)
    plain = ATTENTIONS["efficient"](channels, heads=heads, zero_init=False, **options).double()
    fused = ATTENTIONS["efficient"](channels, heads=heads, zero_init=False, **options)
    fused.load_state_dict(plain.state_dict())
    fused.fused = attending.attend
    values = 3 * torch.randn(3, channels, 3, 4, 5, dtype=torch.float64)
    mask = torch.rand(3, 1, 3, 4, 5) > 0.5 if masked else None
    if mask is not None:
        mask[1], mask[2, :, 1:] = False, False
    exact = values.clone().requires_grad_()
    expected = plain(exact, mask)
    outside = torch.randn_like(expected)
    expected.backward(outside)
    volume = poisoned(values.float()).contiguous(memory_format=layout).requires_grad_()
    empty, empty_like = torch.empty, torch.empty_like
    nan = float("nan")
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(nan))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty_like(*a, **k).fill_(nan))
    found = fused(volume, mask)
    found.backward(outside.float())
    assert found.is_contiguous(memory_format=layout)
    assert (found - expected).abs().max() < 2e-5
    assert (volume.grad - exact.grad).abs().max() < 2e-5 * exact.grad.abs().max()
    grads = dict(plain.named_parameters())
    for key, own in fused.named_parameters():
        scale = max(1.0, float(grads[key].grad.abs().max()))
        assert (own.grad - grads[key].grad).abs().max() < 5e-5 * scale, key


def test_attention_kernels_survive_logits_of_any_size_and_half_precision():
    torch.manual_seed(0)
    module = ATTENTIONS["efficient"](8, zero_init=False)
    module.fused = attending.attend
    for scale in (1e-4, 1.0, 1e4):
        volume = (scale * torch.randn(1, 8, 2, 4, 5)).requires_grad_()
        out = module(volume)
        out.sum().backward()
        assert out.isfinite().all()
        assert volume.grad.isfinite().all()
    with torch.autocast(DEVICE, torch.bfloat16):
        assert module(torch.randn(1, 8, 2, 4, 5).bfloat16()).dtype == torch.bfloat16


@pytest.fixture
def wide():
    """Give half precision memory whose middle is 2**31 values away from both ends."""
    if DEVICE == "cuda":
        yield torch.empty(2**32 + 2**19, dtype=torch.float16)
        return
    try:
        memory = mmap.mmap(-1, 2**33 + 2**20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        pytest.skip("this system does not promise memory that is not used")
    yield torch.frombuffer(memory, dtype=torch.float16)


def test_attention_reaches_offsets_beyond_32_bits(wide):
    cells, channels, stride = 3, 3, 2**30 + 8  # 2 * stride wraps to a place before the middle
    volume = wide[2**31 :]
    at = [[channel * stride + cell for cell in range(cells)] for channel in range(channels)]
    volume[torch.tensor(at)] = torch.ones(channels, cells, dtype=torch.float16)
    weight, none = torch.zeros(2, channels), torch.zeros(2)
    table, last = torch.ones(1, 2, channels), torch.zeros(channels)
    sizes = {"KEYS": 16, "CHANNELS": 16, "CELLS": 16}
    kernels.apply[(1, 1)](
        *(volume, weight, none, table, last, volume, cells, channels * stride, stride, 1),
        *(1.0, 2, channels),
        HEADS=1,
        **sizes,
    )
    assert (volume[torch.tensor(at)] == 2).all()
    kernels.apply_backward_volume[(1, 1)](
        *(volume, volume, weight, none, 0 * table, volume, cells, channels * stride, stride, 1),
        *(1.0, 2, channels),
        HEADS=1,
        **sizes,
    )
    assert (volume[torch.tensor(at)] == 2).all()
    into = torch.empty(1, 1, 2, channels)
    kernels.accumulate_backward[(1, 1)](
        *(volume, volume, weight, none, none, none + 1, 1 + 0 * table, none, volume, into),
        *(torch.empty(1, 1, 2), cells, channels * stride, stride, 1, 1.0, 2, channels),
        MASKED=False,
        **sizes,
    )
    assert (volume[torch.tensor(at)] == 2).all()


def test_regression_reaches_planes_beyond_32_bits(wide):
    logits = wide[2**31 :]
    rows, columns = 2**15, 2**15 + 1  # plane 2 begins beyond 2**31
    for row in (0, 1):
        logits[2 * rows * columns + row * columns :][:4] = 20
    disparity, denominator = torch.empty(4), torch.empty(4)
    zero = torch.zeros(1)
    at_columns = torch.arange(4).int(), torch.zeros(4)
    candidates = torch.arange(4).int(), torch.zeros(3)  # one at each of three planes
    kernel._forward[(1, 1, 1)](
        *(logits, disparity, denominator, zero.int(), zero, *at_columns, *candidates),
        *(3, rows, columns, 1, 4),
        PIXELS=16,
    )
    assert (disparity > 1.99).all()
