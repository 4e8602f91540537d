"""Objects: surfaces with outlines, drawn at random."""

import math
from collections.abc import Callable

from stereo.data.synthetic.backdrop import View, draw_slope, draw_wave
from stereo.data.synthetic.rng import SceneRng, rounded
from stereo.data.synthetic.space import polygon
from stereo.data.synthetic.surface import STEEPEST, Outline, Surface


def draw_object(view: View, rng: SceneRng) -> list[Surface]:
    """Return the surfaces of one object."""
    return rng.weighted(OBJECTS)(view, rng)


def place_object(view: View, rng: SceneRng) -> tuple[float, float, float, float]:
    """Draw (x, y, disparity, size) of an object; half stand on the floor if there is one."""
    d = view.disparity(rng)
    size = rng.log_uniform(0.04, 0.45) * view.height
    size *= 0.6 + 0.8 * d / view.high  # nearer objects look larger, more often than not
    # What lies beyond the left rim by its disparity is seen by neither view.
    x, y = rng.uniform(-0.05, 1.15) * view.width, rng.uniform(-0.05, 1.05) * view.height
    if view.floor is not None and rng.chance(0.5):
        a, b, c = view.floor
        foot = (d - c - a * x) / b
        if -size < foot - size < view.height * 1.1:
            y = foot - size * 0.9
    planes = [surface.plane for surface in view.backdrop]
    wall = max((a * x + b * y + c for a, b, c in planes), default=0.0)
    if d < wall < view.high and rng.chance(0.9):  # it would stand behind the wall
        d = wall + (view.high - wall) * rng.uniform(0.02, 1.0) ** 1.5
    return x, y, d, size


def _plane(
    x: float, y: float, d: float, size: float, rng: SceneRng, *, upright: bool = False
) -> tuple[float, float, float]:
    a = draw_slope(d, 1.5 * size, rng) if rng.chance(0.6) else 0.0
    b = draw_slope(d, 1.5 * size, rng) if rng.chance(0.4) and not upright else 0.0
    return (a, b, d - a * x - b * y)


def _card(view: View, rng: SceneRng) -> list[Surface]:
    x, y, d, size = place_object(view, rng)
    kind = rng.weighted({"polygon": 4, "box": 4, "ellipse": 3, "blob": 3})
    cos, sin = rng.direction() if rng.chance(0.5) else (1.0, 0.0)
    across = size * rng.uniform(0.3, 1.0)
    outline = Outline(kind, x, y, size, across, cos, sin)
    if kind == "polygon":
        outline = Outline(kind, x, y, size, size, cos, sin, sides=_convex(rng, size))
    if kind == "blob":
        rough, grain = rng.uniform(0.2, 0.9), rng.log_uniform(0.5, 3.0) / size
        outline = Outline(kind, x, y, size, across, cos, sin, rough=rough, grain=grain)
    wave = draw_wave(rng, d) if rng.chance(0.1) else (0.0, 0.0, 0.0, 0.0)
    return [Surface(_plane(x, y, d, size, rng), wave=wave, outline=outline)]


def _convex(rng: SceneRng, size: float) -> tuple[tuple[float, float, float], ...]:
    count = rng.whole(3, 7)
    start = rng.uniform(0.0, 2.0 * math.pi)
    sides = []
    for k in range(count):
        angle = start + (k + rng.uniform(-0.3, 0.3)) * 2.0 * math.pi / count
        offset = size * rng.uniform(0.4, 0.6)
        sides.append((rounded(math.cos(angle)), rounded(math.sin(angle)), offset))
    return tuple(sides)


def _round(view: View, rng: SceneRng) -> list[Surface]:
    """A ball, an egg or a standing or lying pillar."""
    x, y, d, size = place_object(view, rng)
    # The slope at the outline stays under a half, so that the right view's inverse converges.
    height = min(0.48 * size / STEEPEST, 0.5 * d) * rng.uniform(0.4, 1.0)
    if rng.chance(0.5):
        tall = size * rng.uniform(0.7, 1.4)
        bump = (x, y, 1.0 / size, 1.0 / max(tall, size), height)
        outline = Outline("ellipse", x, y, size, max(tall, size))
    elif rng.chance(0.7):
        length = size * rng.uniform(1.5, 8.0)
        bump = (x, y, 1.0 / size, 0.0, height)
        outline = Outline("box", x, y, size, length)
    else:
        length = size * rng.uniform(1.5, 6.0)
        bump = (x, y, 0.0, 1.0 / size, height)
        outline = Outline("box", x, y, length, size)
    return [Surface((0.0, 0.0, max(d - height, 0.4 * d)), bump=bump, outline=outline)]


def _crate(view: View, rng: SceneRng) -> list[Surface]:
    """Two sides of a box that meet in an upright edge, in perspective, and sometimes a lid."""
    x, y, d, size = place_object(view, rng)
    tall = size * rng.uniform(0.3, 1.6)
    faces = []
    for side in (-1.0, 1.0):
        wide = size * rng.uniform(0.2, 1.2)
        slope = -side * min(0.45, 0.7 * d / wide) * rng.uniform(0.1, 1.0)
        # Heights shrink with disparity, about the horizon in the middle of the frame.
        far = (d + slope * side * wide) / d
        horizon = view.height / 2
        top, bottom = y - tall, y + tall
        corners = [
            (x, top),
            (x + side * wide, horizon + (top - horizon) * far),
            (x + side * wide, horizon + (bottom - horizon) * far),
            (x, bottom),
        ]
        outline = polygon(corners)
        if outline is not None:
            faces.append(Surface((slope, 0.0, d - slope * x), outline=outline))
    return faces


def _bar(view: View, rng: SceneRng) -> list[Surface]:
    """A thin bar, upright, lying or leaning."""
    x, y, d, _ = place_object(view, rng)
    long = rng.log_uniform(0.1, 1.0) * view.height
    thin = rng.log_uniform(1.5, 10.0)
    turned = {(0.0, 1.0): 5.0, (1.0, 0.0): 2.0, rng.direction(): 4.0}
    cos, sin = rng.weighted(turned)
    outline = Outline("box", x, y, long, thin, cos, sin)
    return [Surface(_plane(x, y, d, long, rng), outline=outline)]


def _cable(view: View, rng: SceneRng) -> list[Surface]:
    x, y, d, size = place_object(view, rng)
    cos, sin = rng.direction()
    long, thin = size * rng.uniform(2.0, 6.0), rng.log_uniform(1.5, 5.0)
    sway = thin + long * rng.uniform(0.02, 0.3)
    period = long * rng.uniform(0.8, 3.0)
    outline = Outline("cable", x, y, long, sway, cos, sin, period=period, width=thin)
    return [Surface(_plane(x, y, d, long, rng), outline=outline)]


def _fence(view: View, rng: SceneRng) -> list[Surface]:
    """Railings, gratings and wire: the same bar again and again."""
    x, y, d, size = place_object(view, rng)
    size *= 1.5
    kind = rng.weighted({"bars": 3, "lattice": 2})
    period = rng.log_uniform(6.0, max(8.0, min(50.0, size)))
    width = max(1.0, period * rng.uniform(0.1, 0.5))
    cos, sin = rng.weighted({(1.0, 0.0): 4.0, (0.0, 1.0): 1.0, rng.direction(): 3.0})
    across = size * rng.uniform(0.4, 1.2)
    outline = Outline(kind, x, y, size, across, cos, sin, period=period, width=width)
    return [Surface(_plane(x, y, d, size, rng, upright=True), outline=outline)]


def _pierced(view: View, rng: SceneRng) -> list[Surface]:
    """A screen with holes, a frame or a ring: what is behind shows through."""
    x, y, d, size = place_object(view, rng)
    kind = rng.pick(["holes", "frame", "ring"])
    cos, sin = rng.direction() if rng.chance(0.3) else (1.0, 0.0)
    across = size * rng.uniform(0.5, 1.3)
    period = size * rng.uniform(0.25, 1.0)
    width = period * rng.uniform(0.2, 0.42) if kind == "holes" else size * rng.uniform(0.06, 0.4)
    outline = Outline(kind, x, y, size, across, cos, sin, period=period, width=width)
    return [Surface(_plane(x, y, d, size, rng), outline=outline)]


def _shelf(view: View, rng: SceneRng) -> list[Surface]:
    """Books or boxes side by side, nearly at one depth."""
    x, y, d, size = place_object(view, rng)
    books: list[Surface] = []
    base = y + size * 0.5
    while len(books) < rng.whole(3, 9):
        wide, tall = size * rng.uniform(0.08, 0.3), size * rng.uniform(0.4, 0.8)
        depth = d * rng.uniform(0.92, 1.08)
        slope = draw_slope(depth, 2.0 * size, rng) if rng.chance(0.3) else 0.0
        plane = (slope, 0.0, depth - slope * x)
        outline = Outline("box", x, base - tall, wide, tall)
        books.append(Surface(plane, outline=outline))
        x += wide * 2.0 + rng.uniform(0.0, 2.0)
    return books


def _foliage(view: View, rng: SceneRng) -> list[Surface]:
    x, y, d, size = place_object(view, rng)
    return leaves(x, y, d, 1.3 * size, rng)


def leaves(x: float, y: float, d: float, size: float, rng: SceneRng) -> list[Surface]:
    """Return leaves in two or three sheets, one behind the other."""
    sheets = []
    for depth in [1.0] + [rng.uniform(0.75, 0.97) for _ in range(rng.whole(1, 2))]:
        cos, sin = rng.direction()
        outline = Outline(
            *("leaves", x, y, size, size * rng.uniform(0.5, 1.0), cos, sin),
            rough=rng.uniform(0.3, 0.65),
            grain=1.0 / rng.log_uniform(4.0, max(6.0, 0.5 * size)),
        )
        sheets.append(Surface(_plane(x, y, max(d * depth, 0.3), size, rng), outline=outline))
    return sheets


OBJECTS: dict[Callable[[View, SceneRng], list[Surface]], float] = {
    _card: 4,
    _shelf: 0.8,
    _round: 3,
    _crate: 3,
    _bar: 0.8,
    _fence: 0.5,
    _pierced: 0.8,
    _foliage: 0.8,
    _cable: 0.3,
}
