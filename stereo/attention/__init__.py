"""Attention over a cost volume (B, C, D, H, W), one class per paper, interchangeable by name.

Names are known without PyTorch; a class is imported when it is first asked for.
"""

import importlib
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stereo.attention.efficient import EfficientAttention
    from stereo.attention.volume import VolumeAttention


class _Attentions(MutableMapping[str, "type[VolumeAttention]"]):
    """Classes by name; one given as ``module.Class`` of this package is imported on first use."""

    def __init__(self, classes: "dict[str, str | type[VolumeAttention]]") -> None:
        self._classes = classes

    def __getitem__(self, name: str) -> "type[VolumeAttention]":
        found = self._classes[name]
        if isinstance(found, str):
            module, _, class_name = found.partition(".")
            found = getattr(importlib.import_module(f"{__name__}.{module}"), class_name)
            assert not isinstance(found, str)
            self._classes[name] = found
        return found

    def __setitem__(self, name: str, attention: "type[VolumeAttention]") -> None:
        self._classes[name] = attention

    def __delitem__(self, name: str) -> None:
        del self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes


ATTENTIONS: MutableMapping[str, "type[VolumeAttention]"] = _Attentions(
    {
        "efficient": "efficient.EfficientAttention",
        "efficient_scaling": "efficient.EfficientScalingAttention",
        "factorized": "factorized.FactorizedAttention",
        "dot_product": "dot_product.DotProductAttention",
        "linear": "linear.LinearAttention",
        "taylor": "taylor.TaylorAttention",
        "focused": "focused.FocusedAttention",
        "performer": "performer.PerformerAttention",
        "linformer": "linformer.LinformerAttention",
        "aft_simple": "aft.AFTSimpleAttention",
        "aft_conv": "aft.AFTConvAttention",
        "local_global": "local_global.LocalGlobalAttention",
        "lambda": "lambda_layer.LambdaAttention",
        "reformer": "reformer.ReformerAttention",
        "window": "window.WindowAttention",
        "disparity": "disparity.DisparityAttention",
        "perceiver": "perceiver.PerceiverAttention",
    }
)

_HOME = {"EfficientAttention": "efficient", "VolumeAttention": "volume"}

__all__ = ["ATTENTIONS", "EfficientAttention", "VolumeAttention"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
