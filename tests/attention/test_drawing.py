"""What ``scripts/draw_attention.py`` calls templates is what the attention computes with."""

import runpy

import pytest
import torch
from conftest import REPOSITORY

from stereo.attention.efficient import EfficientAttention


@pytest.mark.parametrize("heads", [1, 2])
def test_templates_and_their_mixture_are_the_attention(heads):
    script = runpy.run_path(str(REPOSITORY / "scripts" / "draw_attention.py"))
    torch.manual_seed(0)
    attention = EfficientAttention(16, heads=heads, zero_init=False).eval()
    volume = torch.randn(1, 16, 3, 4, 5)
    shares, mixture, amount = script["templates"](attention, volume)
    assert torch.allclose(shares.sum(dim=(1, 2, 3)), torch.ones(len(shares)), atol=1e-5)
    assert amount.sum() == pytest.approx(1)
    with torch.inference_mode():
        values = attention.values(volume)[0].unflatten(0, (heads, -1))
        attended = [
            torch.einsum("kdyx,khwz,vhwz->vdyx", mix, share, own)
            for mix, share, own in zip(
                mixture.chunk(heads), shares.chunk(heads), values, strict=True
            )
        ]
        expected = attention(volume)
    found = volume + attention.reprojection(torch.cat(attended)[None])
    assert torch.allclose(found, expected, atol=1e-4)
