"""Rendered scenes with exact ground truth, made on demand and the same on every machine.

A scene (``scene.py``: looks; ``places.py``: what stands where) is a list of surfaces
(``surface.py``; drawn in ``backdrop.py``, ``objects.py`` and, as solids, ``space.py``), each with
a disparity that is a function of left pixel coordinates, and an outline, and perhaps of triangle
meshes (``meshes.py``). ``trace.py`` finds what either view shows and what both see;
``shade.py`` colours it from an ``atlas.py`` of ``textures.py`` and ``photographs.py``;
``sensor.py`` adds what sensors do; ``sequences.py`` moves it all from frame to frame. ``render.py``
puts them in a row, ``rng.py`` makes every choice a function of (seed, index), and ``noise.py``
keeps to arithmetic that is alike on every processor.
"""

import importlib
from typing import TYPE_CHECKING, Any

from stereo.data.synthetic.config import SyntheticConfig

if TYPE_CHECKING:
    from stereo.data.synthetic.render import RenderedPair, SyntheticScenes

__all__ = ["RenderedPair", "SyntheticConfig", "SyntheticScenes"]


def __getattr__(name: str) -> Any:  # without PyTorch until a scene is rendered
    if name in ("RenderedPair", "SyntheticScenes"):
        return getattr(importlib.import_module(f"{__name__}.render"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
