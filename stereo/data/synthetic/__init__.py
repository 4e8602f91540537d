"""Rendered scenes with exact ground truth, made on demand and the same on every machine.

A scene (``scene.py``, ``things.py``) is a list of surfaces (``surface.py``), each with a disparity
that is a function of left pixel coordinates, an outline and a look. ``trace.py`` finds what either
view shows and what both see, ``shade.py`` colours it from the textures of ``textures.py``, and
``camera.py`` adds what sensors do. ``render.py`` puts them in a row; ``dice.py`` makes every choice
a function of (seed, index).
"""

from stereo.data.synthetic.config import DISTRIBUTIONS, SyntheticConfig
from stereo.data.synthetic.render import RenderedPair, SyntheticScenes

__all__ = ["DISTRIBUTIONS", "RenderedPair", "SyntheticConfig", "SyntheticScenes"]
