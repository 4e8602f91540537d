"""Stereo depth with efficient attention over the cost volume.

    import stereo
    matcher = stereo.load()
    result = matcher("left.png", "right.png")
    result.disparity  # (H, W) float32, pixels

Names are loaded on first use, so that ``import stereo`` costs nothing. Import it before PyTorch:
it then has OpenMP's threads sleep while they wait (``stereo.system.threads``).
"""

import importlib
from typing import TYPE_CHECKING, Any

from stereo.system.threads import prepare_threads
from stereo.version import __version__

prepare_threads()

if TYPE_CHECKING:
    from stereo import attention, geometry
    from stereo.geometry.check import check_pair
    from stereo.matching.loading import load
    from stereo.matching.matcher import Matcher
    from stereo.matching.result import Result
    from stereo.matching.wrap import wrap, wrap_network
    from stereo.system.bundled import DEFAULT_MODEL

_HOME = {
    "DEFAULT_MODEL": "stereo.system.bundled",
    "Matcher": "stereo.matching.matcher",
    "Result": "stereo.matching.result",
    "check_pair": "stereo.geometry.check",
    "load": "stereo.matching.loading",
    "wrap": "stereo.matching.wrap",
    "wrap_network": "stereo.matching.wrap",
}
_MODULES = ("attention", "geometry")

__all__ = [
    "DEFAULT_MODEL",
    "Matcher",
    "Result",
    "__version__",
    "attention",
    "check_pair",
    "geometry",
    "load",
    "wrap",
    "wrap_network",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"stereo.{name}")
    raise AttributeError(f"module 'stereo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
