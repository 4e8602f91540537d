"""Sequences: how the camera and the objects of a scene move from frame to frame.

The camera slides to the right or left, and objects move parallel to the picture, each at a steady
pace; so the geometry stays exact. Half of the cameras stand still; meshes always do.
"""

from dataclasses import replace

from stereo.data.synthetic.rng import SceneRng
from stereo.data.synthetic.scene import Layer, Scene

CAMERA_STILL = 0.5  # share of the sequences
MOVING = 0.3  # share of a sequence's objects
PACE = (0.02, 0.08)  # of the camera, baselines per frame
SPAN = 1.0  # baselines that the camera moves at most, half to either side
SPEED = (0.5, 5.0)  # of objects, pixels per frame


def at_frame(scene: Scene, rng: SceneRng, frame: int, frames: int) -> tuple[Scene, float]:
    """Return a sequence's scene at one frame, and where the left camera is.

    Args:
        scene: as composed, which is how it is in the middle of the sequence.
        rng: the sequence's source of chance, the same for each of its frames.
        frame: 0 to ``frames`` - 1.
        frames: of the sequence.

    Returns:
        The scene, and the camera's place, baselines to the right of where it was composed for.
    """
    past = frame - (frames - 1) / 2
    pace = 0.0 if rng.chance(CAMERA_STILL) else rng.sign() * rng.log_uniform(*PACE)
    place = past * max(-SPAN / frames, min(pace, SPAN / frames))
    steps = [(0.0, 0.0)]  # what is no object stands still
    for _ in range(max(layer.thing for layer in scene.layers)):
        cos, sin = rng.direction()
        speed = rng.log_uniform(*SPEED) if rng.chance(MOVING) else 0.0
        steps.append((past * speed * cos, past * speed * sin))
    strength, cell, aside, reach = scene.dots
    layers = tuple(_moved(layer, *steps[layer.thing]) for layer in scene.layers)
    return replace(scene, layers=layers, dots=(strength, cell, aside + place, reach)), place


def _moved(layer: Layer, dx: float, dy: float) -> Layer:
    """Return a layer moved by columns and rows, pixels, at its disparity."""
    if not (dx or dy):
        return layer
    surface, look = layer.surface, layer.look
    a, b, c = surface.plane
    x, y, u, v, height = surface.bump
    kx, ky, phase, swing = surface.wave
    outline = surface.outline
    s0, s1, s2, t0, t1, t2 = look.mapping
    return replace(
        layer,
        surface=replace(
            surface,
            plane=(a, b, c - a * dx - b * dy),
            bump=(x + dx, y + dy, u, v, height),
            wave=(kx, ky, phase - kx * dx - ky * dy, swing),
            outline=outline and replace(outline, x=outline.x + dx, y=outline.y + dy),
        ),
        look=replace(
            look,
            mapping=(s0, s1, s2 - s0 * dx - s1 * dy, t0, t1, t2 - t0 * dx - t1 * dy),
            shine=(look.shine[0] + dx, look.shine[1] + dy, *look.shine[2:]),
        ),
    )
