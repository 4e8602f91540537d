"""Attention over a cost volume (B, C, D, H, W), one class per paper, interchangeable by name."""

from stereo.attention.efficient import EfficientAttention
from stereo.attention.volume import VolumeAttention

ATTENTIONS: dict[str, type[VolumeAttention]] = {
    "efficient": EfficientAttention,
}

__all__ = ["ATTENTIONS", "EfficientAttention", "VolumeAttention"]
