"""Attention over a cost volume (B, C, D, H, W), one class per paper, interchangeable by name."""

from stereo.attention.aft import AFTConvAttention, AFTSimpleAttention
from stereo.attention.disparity import DisparityAttention
from stereo.attention.dot_product import DotProductAttention
from stereo.attention.efficient import EfficientAttention, EfficientScalingAttention
from stereo.attention.factorized import FactorizedAttention
from stereo.attention.focused import FocusedAttention
from stereo.attention.lambda_layer import LambdaAttention
from stereo.attention.linear import LinearAttention
from stereo.attention.linformer import LinformerAttention
from stereo.attention.local_global import LocalGlobalAttention
from stereo.attention.perceiver import PerceiverAttention
from stereo.attention.performer import PerformerAttention
from stereo.attention.reformer import ReformerAttention
from stereo.attention.taylor import TaylorAttention
from stereo.attention.volume import VolumeAttention
from stereo.attention.window import WindowAttention

ATTENTIONS: dict[str, type[VolumeAttention]] = {
    "efficient": EfficientAttention,
    "efficient_scaling": EfficientScalingAttention,
    "factorized": FactorizedAttention,
    "dot_product": DotProductAttention,
    "linear": LinearAttention,
    "taylor": TaylorAttention,
    "focused": FocusedAttention,
    "performer": PerformerAttention,
    "linformer": LinformerAttention,
    "aft_simple": AFTSimpleAttention,
    "aft_conv": AFTConvAttention,
    "local_global": LocalGlobalAttention,
    "lambda": LambdaAttention,
    "reformer": ReformerAttention,
    "window": WindowAttention,
    "disparity": DisparityAttention,
    "perceiver": PerceiverAttention,
}

__all__ = ["ATTENTIONS", "EfficientAttention", "VolumeAttention"]
