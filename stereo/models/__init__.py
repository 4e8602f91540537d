"""The networks; the configuration alone is known without PyTorch.

Shapes: B batch, C channels, D disparity planes at the volume's resolution, H W size of the image
or volume, N tokens, K key channels, V value channels.
"""

import importlib
from typing import TYPE_CHECKING, Any

from stereo.models.config import NETWORK_NAMES, AttentionConfig, NetworkConfig

if TYPE_CHECKING:
    from stereo.models.build import StereoNetwork, build_network

_BUILD = ("StereoNetwork", "build_network")

__all__ = [
    "NETWORK_NAMES",
    "AttentionConfig",
    "NetworkConfig",
    "StereoNetwork",
    "build_network",
]


def __getattr__(name: str) -> Any:
    if name in _BUILD:
        return getattr(importlib.import_module(f"{__name__}.build"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
