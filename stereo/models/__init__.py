"""The networks; the configuration alone is known without PyTorch.

Shapes: B batch, C channels, D disparity planes at the volume's resolution, H W size of the image
or volume, N tokens, K key channels, V value channels.
"""

import importlib
from typing import TYPE_CHECKING, Any

from stereo.models.config import NETWORK_NAMES, AttentionConfig, NetworkConfig

if TYPE_CHECKING:
    from stereo.models.build import StereoNetwork, build_network
    from stereo.models.fast import FastStereo
    from stereo.models.psmnet import PSMNet

_HOME = {
    "FastStereo": "fast",
    "PSMNet": "psmnet",
    "StereoNetwork": "build",
    "build_network": "build",
}

__all__ = [
    "NETWORK_NAMES",
    "AttentionConfig",
    "FastStereo",
    "NetworkConfig",
    "PSMNet",
    "StereoNetwork",
    "build_network",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
