"""Backdrops: the frame to fill, its floor and walls, and pictures in perspective on planes."""

import math
from dataclasses import dataclass

from stereo.data.synthetic.config import HEAP, OUTDOORS, ROOM, SyntheticConfig
from stereo.data.synthetic.rng import SceneRng, rounded
from stereo.data.synthetic.surface import Outline, Surface


@dataclass(frozen=True)
class View:
    """The frame that a scene has to fill, and the disparities it may have."""

    height: int
    """Rows, pixels."""
    width: int
    """Columns, pixels."""
    low: float
    """Least disparity, pixels."""
    high: float
    """Largest disparity of this scene, pixels."""
    law: str
    """``uniform`` or ``log``: how disparities are drawn between the two."""
    floor: tuple[float, float, float] | None = None
    """The plane of the floor, if there is one."""
    backdrop: tuple[Surface, ...] = ()
    """What stands behind all objects."""

    @staticmethod
    def draw(config: SyntheticConfig, place: str, rng: SceneRng) -> "View":
        """Draw range, law and floor of a scene of one kind of place."""
        least, high, law = config.min_disparity, 0.985 * config.max_disparity, config.distribution
        if law == "mixed":
            law = rng.pick(["uniform", "log"])
            if rng.chance(0.85):
                high = rng.log_uniform(min(max(0.04 * high, 8.0 * least), high), high)
        low = least
        if place != OUTDOORS:
            low = rng.log_uniform(max(least, 0.01 * high), max(least, 0.15 * high))
        floor = None
        if rng.chance({ROOM: 0.85, HEAP: 0.4, OUTDOORS: 1.0}[place]):
            horizon = rng.uniform(-0.6, 0.55) * config.height
            if place == OUTDOORS:
                horizon = rng.uniform(0.1, 0.6) * config.height
            nearest = high * rng.uniform(0.35, 0.95)
            slope = nearest / (config.height - horizon)
            roll = rng.uniform(-0.03, 0.03) * slope if rng.chance(0.4) else 0.0
            floor = (roll, slope, -slope * horizon - roll * config.width / 2)
        return View(config.height, config.width, low, high, law, floor)

    def disparity(self, rng: SceneRng) -> float:
        """Draw the disparity of an object, pixels."""
        if self.law == "log":
            return rng.log_uniform(self.low * 1.2, self.high)
        return rng.uniform(self.low * 1.2, self.high)


def draw_land(view: View, rng: SceneRng) -> list[tuple[Surface, str]]:
    """Return the sky, at a disparity of about 0, hills, and the ground."""
    surfaces = [(Surface((0.0, 0.0, view.low * 1.1)), "sky")]
    assert view.floor is not None
    roll, slope, c = view.floor
    horizon = -(c + roll * view.width / 2) / slope
    for _ in range(rng.whole(0, 3)):
        far = rng.log_uniform(view.low * 1.5, max(view.low * 2.0, 0.03 * view.high))
        size = rng.log_uniform(0.1, 0.5) * view.width
        outline = Outline(
            *("blob", rng.uniform() * view.width, horizon, size, size * rng.uniform(0.1, 0.6)),
            rough=rng.uniform(0.3, 0.9),
            grain=rng.log_uniform(2.0, 12.0) / size,
        )
        surfaces.append((Surface((0.0, 0.0, far), outline=outline), "leaves"))
    return [*surfaces, (Surface(view.floor), "object")]


def draw_room(view: View, rng: SceneRng) -> list[Surface]:
    """Return a backdrop that is everywhere, and walls, floor and ceiling."""
    far = rng.log_uniform(view.low * 1.3, max(view.low * 2.0, 0.3 * view.high))
    surfaces = [Surface((0.0, 0.0, far))]
    if rng.chance(0.6):  # a slanted wall
        c = rng.uniform(far, max(far, 0.45 * view.high))
        a = draw_slope(c, view.width / 2, rng) if rng.chance(0.7) else 0.0
        b = draw_slope(c, view.height / 2, rng) if rng.chance(0.3) else 0.0
        wall = Surface((a, b, c - a * view.width / 2 - b * view.height / 2))
        if rng.chance(0.3):
            wall = Surface(wall.plane, wave=draw_wave(rng, c))
        surfaces.append(wall)
    if view.floor is not None:
        surfaces.append(Surface(view.floor))
        if rng.chance(0.3):  # a ceiling
            a, b, _ = view.floor
            beam = rng.uniform(-0.5, 0.25) * view.height
            surfaces.append(Surface((a, -b, b * (view.height * 0.6 + beam))))
    for side in (-1.0, 1.0):
        if rng.chance(0.3):  # a wall along the line of sight
            vanish = rng.uniform(0.25, 0.75) * view.width
            reach = view.width - vanish if side > 0 else vanish
            a = min(view.high * rng.uniform(0.3, 0.95) / reach, 0.6) * side
            surfaces.append(Surface((a, 0.0, -a * vanish)))
    return surfaces


def perspective(
    plane: tuple[float, float, float],
    view: View,
    at: tuple[float, float],
    disparity: float,
    density: float,
    rng: SceneRng,
) -> tuple[float, float, float, float, float, float]:
    """Return the mapping of ``Look`` for a picture painted on a plane in space.

    With X = (x - cx) / d, Y = (y - cy) / d, Z = f / d a plane d = a x + b y + c is a plane in space
    with the normal (a, b, (a cx + b cy + c) / f).

    Args:
        plane: (a, b, c), pixels.
        view: the frame.
        at: left position of the reference point, pixels.
        disparity: there, pixels.
        density: texels per pixel there.
        rng: for turn and origin.
    """
    a, b, c = plane
    cx, cy, focal = view.width / 2, view.height / 2, float(view.width)
    normal = _unit((a, b, (a * cx + b * cy + c) / focal))
    up = (0.0, 1.0, 0.0) if abs(normal[1]) < 0.9 else (0.0, 0.0, 1.0)
    first = _unit(_cross(up, normal))
    second = _cross(normal, first)
    cos, sin = rng.direction() if rng.chance(0.4) else (1.0, 0.0)
    scale = density * disparity
    rows: list[float] = []
    for p, q in ((cos, sin), (-sin, cos)):
        e = [(p * f + q * s) * scale for f, s in zip(first, second, strict=True)]
        row = [e[0], e[1], e[2] * focal - e[0] * cx - e[1] * cy]
        there = (row[0] * at[0] + row[1] * at[1] + row[2]) / disparity
        move = rng.uniform(100.0, 412.0) - there
        rows += [rounded(r + move * p) for r, p in zip(row, plane, strict=True)]
    return (rows[0], rows[1], rows[2], rows[3], rows[4], rows[5])


def draw_slope(disparity: float, reach: float, rng: SceneRng) -> float:
    """Draw a slope of disparity that keeps it positive within a reach, pixels per pixel."""
    return rng.sign() * rng.uniform() * min(0.35, 0.85 * disparity / max(reach, 1.0))


def draw_wave(rng: SceneRng, disparity: float) -> tuple[float, float, float, float]:
    """Draw the wave of a curtain, gentle enough that the right view's inverse converges."""
    cos, sin = rng.direction() if rng.chance(0.3) else (1.0, 0.0)
    cycles = 1.0 / rng.log_uniform(25.0, 200.0)
    height = min(0.1 / cycles, 0.3 * disparity) * rng.uniform(0.3, 1.0)
    return (cycles * cos, cycles * sin, rng.uniform(), height)


def _unit(v: tuple[float, float, float]) -> tuple[float, float, float]:
    length = math.sqrt(v[0] ** 2 + v[1] ** 2 + v[2] ** 2)
    return (v[0] / length, v[1] / length, v[2] / length)


def _cross(
    v: tuple[float, float, float], w: tuple[float, float, float]
) -> tuple[float, float, float]:
    return (
        v[1] * w[2] - v[2] * w[1],
        v[2] * w[0] - v[0] * w[2],
        v[0] * w[1] - v[1] * w[0],
    )
