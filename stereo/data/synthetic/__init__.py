"""Rendered scenes with exact ground truth, made on demand and the same on every machine.

A scene (``scene.py``: looks; ``room.py`` and ``things.py``: geometry) is a list of surfaces
(``surface.py``), each with a disparity that is a function of left pixel coordinates, and an
outline. ``trace.py`` finds what either view shows and what both see; ``shade.py`` colours it from
an ``atlas.py`` of ``textures.py`` and ``photographs.py``; ``camera.py`` adds what sensors do.
``render.py`` puts them in a row, ``dice.py`` makes every choice a function of (seed, index), and
``noise.py`` keeps to arithmetic that is alike on every processor.
"""

from stereo.data.synthetic.config import DISTRIBUTIONS, SyntheticConfig
from stereo.data.synthetic.render import RenderedPair, SyntheticScenes

__all__ = ["DISTRIBUTIONS", "RenderedPair", "SyntheticConfig", "SyntheticScenes"]
