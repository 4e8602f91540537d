"""The geometry of rooms and of the things in them: surfaces with outlines, drawn at random."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from stereo.data.synthetic.config import SyntheticConfig
from stereo.data.synthetic.dice import Dice, rounded
from stereo.data.synthetic.surface import STEEPEST, Outline, Surface


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
    room: tuple[Surface, ...] = ()
    """What stands behind all things."""

    @staticmethod
    def draw(config: SyntheticConfig, dice: Dice) -> "View":
        """Draw range, law and floor of a scene."""
        low, high, law = config.min_disparity, 0.985 * config.max_disparity, config.distribution
        if law == "mixed":
            law = dice.pick(["uniform", "log"])
            if dice.chance(0.6):
                high = dice.log_uniform(max(0.06 * high, 4.0 * low), high)
        floor = None
        if dice.chance(0.65):
            horizon = dice.uniform(-0.6, 0.7) * config.height
            nearest = high * dice.uniform(0.35, 0.95)
            slope = nearest / (config.height - horizon)
            roll = dice.uniform(-0.03, 0.03) if dice.chance(0.4) else 0.0
            floor = (roll, slope, -slope * horizon - roll * config.width / 2)
        return View(config.height, config.width, low, high, law, floor)

    def disparity(self, dice: Dice) -> float:
        """Draw the disparity of a thing, pixels."""
        if self.law == "log":
            return dice.log_uniform(self.low * 1.2, self.high)
        return dice.uniform(self.low * 1.2, self.high)


def room(view: View, dice: Dice) -> list[Surface]:
    """Return a backdrop that is everywhere, and walls, floor and ceiling."""
    far = dice.log_uniform(view.low * 1.3, max(view.low * 2.0, 0.3 * view.high))
    surfaces = [Surface((0.0, 0.0, far))]
    if dice.chance(0.6):  # a slanted wall
        c = dice.uniform(far, max(far, 0.45 * view.high))
        a = _slope(c, view.width / 2, dice) if dice.chance(0.7) else 0.0
        b = _slope(c, view.height / 2, dice) if dice.chance(0.3) else 0.0
        wall = Surface((a, b, c - a * view.width / 2 - b * view.height / 2))
        if dice.chance(0.3):
            wall = Surface(wall.plane, wave=_wave(dice, c))
        surfaces.append(wall)
    if view.floor is not None:
        surfaces.append(Surface(view.floor))
        if dice.chance(0.3):  # a ceiling
            a, b, _ = view.floor
            beam = dice.uniform(-0.5, 0.25) * view.height
            surfaces.append(Surface((a, -b, b * (view.height * 0.6 + beam))))
    for side in (-1.0, 1.0):
        if dice.chance(0.3):  # a wall along the line of sight
            vanish = dice.uniform(0.25, 0.75) * view.width
            reach = view.width - vanish if side > 0 else vanish
            a = min(view.high * dice.uniform(0.3, 0.95) / reach, 0.6) * side
            surfaces.append(Surface((a, 0.0, -a * vanish)))
    return surfaces


def thing(view: View, dice: Dice) -> list[Surface]:
    """Return the surfaces of one thing."""
    return dice.weighted(THINGS)(view, dice)


def perspective(
    plane: tuple[float, float, float],
    view: View,
    at: tuple[float, float],
    disparity: float,
    density: float,
    dice: Dice,
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
        dice: for turn and origin.
    """
    a, b, c = plane
    cx, cy, focal = view.width / 2, view.height / 2, float(view.width)
    normal = _unit((a, b, (a * cx + b * cy + c) / focal))
    up = (0.0, 1.0, 0.0) if abs(normal[1]) < 0.9 else (0.0, 0.0, 1.0)
    first = _unit(_cross(up, normal))
    second = _cross(normal, first)
    cos, sin = dice.direction() if dice.chance(0.4) else (1.0, 0.0)
    scale = density * disparity
    rows: list[float] = []
    for p, q in ((cos, sin), (-sin, cos)):
        e = [(p * f + q * s) * scale for f, s in zip(first, second, strict=True)]
        row = [e[0], e[1], e[2] * focal - e[0] * cx - e[1] * cy]
        there = (row[0] * at[0] + row[1] * at[1] + row[2]) / disparity
        move = dice.uniform(100.0, 412.0) - there
        rows += [rounded(r + move * p) for r, p in zip(row, plane, strict=True)]
    return (rows[0], rows[1], rows[2], rows[3], rows[4], rows[5])


def _slope(disparity: float, reach: float, dice: Dice) -> float:
    """Draw a slope of disparity that keeps it positive within a reach, pixels per pixel."""
    return dice.sign() * dice.uniform() * min(0.35, 0.85 * disparity / max(reach, 1.0))


def _wave(dice: Dice, disparity: float) -> tuple[float, float, float, float]:
    cos, sin = dice.direction() if dice.chance(0.3) else (1.0, 0.0)
    cycles = 1.0 / dice.log_uniform(25.0, 200.0)
    height = min(0.1 / cycles, 0.3 * disparity) * dice.uniform(0.3, 1.0)
    return (cycles * cos, cycles * sin, dice.uniform(), height)


def _place(view: View, dice: Dice) -> tuple[float, float, float, float]:
    """Draw (x, y, disparity, size) of a thing; half of them stand on the floor if there is one."""
    d = view.disparity(dice)
    size = dice.log_uniform(0.03, 0.45) * view.height
    size *= 0.6 + 0.8 * d / view.high  # nearer things look larger, more often than not
    # What lies beyond the left rim by its disparity is seen by neither view.
    x, y = dice.uniform(-0.05, 1.15) * view.width, dice.uniform(-0.05, 1.05) * view.height
    if view.floor is not None and dice.chance(0.5):
        a, b, c = view.floor
        foot = (d - c - a * x) / b
        if -size < foot - size < view.height * 1.1:
            y = foot - size * 0.9
    planes = [surface.plane for surface in view.room]
    wall = max((a * x + b * y + c for a, b, c in planes), default=0.0)
    if d < wall < view.high and dice.chance(0.9):  # it would stand behind the wall
        d = wall + (view.high - wall) * dice.uniform(0.02, 1.0) ** 1.5
    return x, y, d, size


def _plane(
    x: float, y: float, d: float, size: float, dice: Dice, *, upright: bool = False
) -> tuple[float, float, float]:
    a = _slope(d, 1.5 * size, dice) if dice.chance(0.6) else 0.0
    b = _slope(d, 1.5 * size, dice) if dice.chance(0.4) and not upright else 0.0
    return (a, b, d - a * x - b * y)


def _card(view: View, dice: Dice) -> list[Surface]:
    x, y, d, size = _place(view, dice)
    kind = dice.weighted({"polygon": 4, "box": 4, "ellipse": 3, "blob": 3})
    cos, sin = dice.direction() if dice.chance(0.5) else (1.0, 0.0)
    across = size * dice.uniform(0.3, 1.0)
    outline = Outline(kind, x, y, size, across, cos, sin)
    if kind == "polygon":
        outline = Outline(kind, x, y, size, size, cos, sin, sides=_convex(dice, size))
    if kind == "blob":
        rough, grain = dice.uniform(0.2, 0.9), dice.log_uniform(0.5, 3.0) / size
        outline = Outline(kind, x, y, size, across, cos, sin, rough=rough, grain=grain)
    wave = _wave(dice, d) if dice.chance(0.1) else (0.0, 0.0, 0.0, 0.0)
    return [Surface(_plane(x, y, d, size, dice), wave=wave, outline=outline)]


def _convex(dice: Dice, size: float) -> tuple[tuple[float, float, float], ...]:
    count = dice.whole(3, 7)
    start = dice.uniform(0.0, 2.0 * math.pi)
    sides = []
    for k in range(count):
        angle = start + (k + dice.uniform(-0.3, 0.3)) * 2.0 * math.pi / count
        offset = size * dice.uniform(0.4, 0.6)
        sides.append((rounded(math.cos(angle)), rounded(math.sin(angle)), offset))
    return tuple(sides)


def _round_thing(view: View, dice: Dice) -> list[Surface]:
    """A ball, an egg or a standing or lying pillar."""
    x, y, d, size = _place(view, dice)
    # The slope at the outline stays under a half, so that the right view's inverse converges.
    height = min(0.48 * size / STEEPEST, 0.5 * d) * dice.uniform(0.4, 1.0)
    if dice.chance(0.5):
        tall = size * dice.uniform(0.7, 1.4)
        bump = (x, y, 1.0 / size, 1.0 / max(tall, size), height)
        outline = Outline("ellipse", x, y, size, max(tall, size))
    elif dice.chance(0.7):
        length = size * dice.uniform(1.5, 8.0)
        bump = (x, y, 1.0 / size, 0.0, height)
        outline = Outline("box", x, y, size, length)
    else:
        length = size * dice.uniform(1.5, 6.0)
        bump = (x, y, 0.0, 1.0 / size, height)
        outline = Outline("box", x, y, length, size)
    return [Surface((0.0, 0.0, max(d - height, 0.4 * d)), bump=bump, outline=outline)]


def _crate(view: View, dice: Dice) -> list[Surface]:
    """Two sides of a box that meet in an upright edge, in perspective, and sometimes a lid."""
    x, y, d, size = _place(view, dice)
    tall = size * dice.uniform(0.3, 1.6)
    faces = []
    for side in (-1.0, 1.0):
        wide = size * dice.uniform(0.2, 1.2)
        slope = -side * min(0.45, 0.7 * d / wide) * dice.uniform(0.1, 1.0)
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
        faces.append(Surface((slope, 0.0, d - slope * x), outline=_from_corners(corners)))
    return faces


def _from_corners(corners: list[tuple[float, float]]) -> Outline:
    x = sum(p[0] for p in corners) / len(corners)
    y = sum(p[1] for p in corners) / len(corners)
    sides = []
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        nx, ny = y1 - y0, x0 - x1
        length = math.sqrt(nx * nx + ny * ny)
        nx, ny = nx / length, ny / length
        offset = nx * (x0 - x) + ny * (y0 - y)
        if offset < 0:
            nx, ny, offset = -nx, -ny, -offset
        sides.append((nx, ny, offset))
    along = max(abs(p[0] - x) for p in corners)
    across = max(abs(p[1] - y) for p in corners)
    return Outline("polygon", x, y, along, across, sides=tuple(sides))


def _bar(view: View, dice: Dice) -> list[Surface]:
    """A thin bar, upright, lying or leaning."""
    x, y, d, _ = _place(view, dice)
    long = dice.log_uniform(0.1, 1.0) * view.height
    thin = dice.log_uniform(0.6, 6.0)
    turned = {(0.0, 1.0): 5.0, (1.0, 0.0): 2.0, dice.direction(): 4.0}
    cos, sin = dice.weighted(turned)
    outline = Outline("box", x, y, long, thin, cos, sin)
    return [Surface(_plane(x, y, d, long, dice), outline=outline)]


def _cable(view: View, dice: Dice) -> list[Surface]:
    x, y, d, size = _place(view, dice)
    cos, sin = dice.direction()
    long, thin = size * dice.uniform(2.0, 6.0), dice.log_uniform(1.2, 5.0)
    sway = thin + long * dice.uniform(0.02, 0.3)
    period = long * dice.uniform(0.8, 3.0)
    outline = Outline("cable", x, y, long, sway, cos, sin, period=period, width=thin)
    return [Surface(_plane(x, y, d, long, dice), outline=outline)]


def _fence(view: View, dice: Dice) -> list[Surface]:
    """Railings, gratings and wire: the same bar again and again."""
    x, y, d, size = _place(view, dice)
    size *= 1.5
    kind = dice.weighted({"bars": 3, "lattice": 2})
    period = dice.log_uniform(6.0, max(8.0, min(50.0, size)))
    width = max(1.0, period * dice.uniform(0.1, 0.5))
    cos, sin = dice.weighted({(1.0, 0.0): 4.0, (0.0, 1.0): 1.0, dice.direction(): 3.0})
    across = size * dice.uniform(0.4, 1.2)
    outline = Outline(kind, x, y, size, across, cos, sin, period=period, width=width)
    return [Surface(_plane(x, y, d, size, dice, upright=True), outline=outline)]


def _pierced(view: View, dice: Dice) -> list[Surface]:
    """A screen with holes, a frame or a ring: what is behind shows through."""
    x, y, d, size = _place(view, dice)
    kind = dice.pick(["holes", "frame", "ring"])
    cos, sin = dice.direction() if dice.chance(0.3) else (1.0, 0.0)
    across = size * dice.uniform(0.5, 1.3)
    period = size * dice.uniform(0.25, 1.0)
    width = period * dice.uniform(0.2, 0.42) if kind == "holes" else size * dice.uniform(0.06, 0.4)
    outline = Outline(kind, x, y, size, across, cos, sin, period=period, width=width)
    return [Surface(_plane(x, y, d, size, dice), outline=outline)]


def _shelf(view: View, dice: Dice) -> list[Surface]:
    """Books or boxes side by side, nearly at one depth."""
    x, y, d, size = _place(view, dice)
    books: list[Surface] = []
    base = y + size * 0.5
    while len(books) < dice.whole(3, 9):
        wide, tall = size * dice.uniform(0.08, 0.3), size * dice.uniform(0.4, 0.8)
        depth = d * dice.uniform(0.92, 1.08)
        slope = _slope(depth, 2.0 * size, dice) if dice.chance(0.3) else 0.0
        plane = (slope, 0.0, depth - slope * x)
        outline = Outline("box", x, base - tall, wide, tall)
        books.append(Surface(plane, outline=outline))
        x += wide * 2.0 + dice.uniform(0.0, 2.0)
    return books


def _foliage(view: View, dice: Dice) -> list[Surface]:
    """Leaves in two sheets, one behind the other."""
    x, y, d, size = _place(view, dice)
    size *= 1.3
    sheets = []
    for depth in (1.0, dice.uniform(0.75, 0.97)):
        cos, sin = dice.direction()
        outline = Outline(
            *("leaves", x, y, size, size * dice.uniform(0.5, 1.0), cos, sin),
            rough=dice.uniform(0.3, 0.65),
            grain=1.0 / dice.log_uniform(4.0, max(6.0, 0.5 * size)),
        )
        sheets.append(Surface(_plane(x, y, max(d * depth, 0.3), size, dice), outline=outline))
    return sheets


THINGS: dict[Callable[[View, Dice], list[Surface]], float] = {
    _card: 5,
    _shelf: 0.8,
    _round_thing: 3,
    _crate: 3,
    _bar: 2,
    _fence: 1.2,
    _pierced: 1.3,
    _foliage: 1.2,
    _cable: 0.7,
}


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
