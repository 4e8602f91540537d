"""Solids in space: boxes and what is built of them, as surfaces in disparity.

A point in space is (X, Y, Z) = ((x - cx) / d, (y - cy) / d, f / d) for left pixel (x, y) of
disparity d: the unit is the baseline, Y points down and Z away, f is the width of the view, and
(cx, cy) its middle. Planes in space are planes in disparity.
"""

from dataclasses import dataclass

import numpy as np

from stereo.data.synthetic.backdrop import View
from stereo.data.synthetic.rng import SceneRng, rounded
from stereo.data.synthetic.surface import Outline, Surface

Vector = tuple[float, float, float]
Part = tuple[np.ndarray, str]
"""The corners (N, 3) of a flat convex face, counterclockwise from outside, and its style."""

_FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))


@dataclass(frozen=True, eq=False)
class Pose:
    """Where a solid or mesh is: a point p of its own frame (y down) goes to turn p + place."""

    turn: np.ndarray
    """(3, 3) float64, rotation times scale."""
    place: np.ndarray
    """(3,) float64, baselines."""

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Return points (..., 3) in space."""
        return points @ self.turn.T + self.place


def point(view: View, x: float, y: float, d: float) -> np.ndarray:
    """Return the point in space at left (x, y) with a disparity, pixels."""
    return np.array([(x - view.width / 2) / d, (y - view.height / 2) / d, view.width / d])


def normal(plane: Vector, view: View) -> np.ndarray:
    """Return n with n . P = 1 on a plane d = a x + b y + c."""
    a, b, c = plane
    return np.array([a, b, (a * view.width / 2 + b * view.height / 2 + c) / view.width])


def rotation(down: np.ndarray, cos: float, sin: float) -> np.ndarray:
    """Return the rotation that takes y to ``down`` after a turn about it."""
    down = down / np.linalg.norm(down)
    side = np.cross(down, (0.0, 0.0, 1.0) if abs(down[2]) < 0.9 else (1.0, 0.0, 0.0))
    side = side / np.linalg.norm(side)
    upright = np.stack([side, down, np.cross(side, down)], 1)
    return upright @ np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def standing(
    view: View, rng: SceneRng, foot: tuple[float, float], size: float, quarter: bool
) -> Pose:
    """Return the pose of what stands on the floor.

    Args:
        view: a frame with a floor.
        rng: for the turn about the upright.
        foot: left (x, y) where it touches the floor, pixels.
        size: of its unit, in heights of the camera above the floor.
        quarter: whether it is turned by quarters of a circle, nearly, as houses along a road.
    """
    assert view.floor is not None
    down = normal(view.floor, view)
    a, b, c = view.floor
    cos, sin = rng.direction()
    if quarter:
        cos, sin = rng.pick([(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)])
    turn = rotation(down, cos, sin) * (size / float(np.linalg.norm(down)))
    d = a * foot[0] + b * foot[1] + c
    return Pose(turn, point(view, *foot, d))


def floating(
    view: View, rng: SceneRng, at: tuple[float, float, float], size: float, points: np.ndarray
) -> Pose:
    """Return a pose, turned at random, whose nearest point has a given disparity.

    Args:
        view: the frame.
        rng: for the turn.
        at: left (x, y) of the middle and least disparity of the nearest point, pixels.
        size: of its unit, pixels there.
        points: (N, 3), those of the object in its own frame.
    """
    x, y, d = at
    (c, s), (u, v) = rng.direction(), rng.direction()
    turn = rotation(np.array([c * v + 1e-3, u, s * v]), *rng.direction()) * (size / d)
    middle = turn @ ((points.min(0) + points.max(0)) / 2)
    nearest = float((points @ turn.T - middle)[:, 2].min())
    ray = point(view, x, y, d)
    return Pose(turn, ray * (1.0 - nearest / ray[2]) - middle)


def surfaces_of(parts: list[Part], pose: Pose, view: View) -> list[tuple[Surface, str]]:
    """Return the faces that either view may see, with their styles; none if one is too near."""
    shown = []
    for corners, style in parts:
        corners = pose.apply(corners)
        if corners[:, 2].min() * view.high < view.width:
            return []
        n = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        offset = float(n @ corners[0])
        if min(offset, offset - float(n[0])) >= 0 or abs(offset) < 1e-9 * np.abs(n).max():
            continue  # both views see its back, or the left one its edge
        n = n / offset
        d = view.width / corners[:, 2]
        flat = np.stack(
            [corners[:, 0] * d + view.width / 2, corners[:, 1] * d + view.height / 2], 1
        )
        a, b = rounded(n[0]), rounded(n[1])
        c = rounded(n[2] * view.width - n[0] * view.width / 2 - n[1] * view.height / 2)
        outline = polygon([(float(x), float(y)) for x, y in flat])
        if outline is not None and abs(1.0 - a) > 1e-3:
            shown.append((Surface((a, b, c), outline=outline), style))
    return shown


def polygon(corners: list[tuple[float, float]]) -> Outline | None:
    """Return a convex outline through corners, pixels; None where it is thinner than a hair."""
    x = sum(p[0] for p in corners) / len(corners)
    y = sum(p[1] for p in corners) / len(corners)
    sides = []
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        nx, ny = y1 - y0, x0 - x1
        length = (nx * nx + ny * ny) ** 0.5
        if length < 1e-6:
            continue
        nx, ny = nx / length, ny / length
        offset = nx * (x0 - x) + ny * (y0 - y)
        if offset < 0:
            nx, ny, offset = -nx, -ny, -offset
        sides.append((rounded(nx), rounded(ny), rounded(offset)))
    if len(sides) < 3 or max(offset for _, _, offset in sides) < 0.2:
        return None
    along = rounded(max(abs(p[0] - x) for p in corners))
    across = rounded(max(abs(p[1] - y) for p in corners))
    return Outline("polygon", rounded(x), rounded(y), along, across, sides=tuple(sides))


def block(low: Vector, high: Vector, style: str, taper: float = 0.0) -> list[Part]:
    """Return a box between two corners; ``taper`` narrows its top (least y) by a share."""
    parts, corners = [], []
    for i in range(8):
        p = [high[k] if i >> k & 1 else low[k] for k in range(3)]
        if not i >> 1 & 1:
            p[0] += ((low[0] + high[0]) / 2 - p[0]) * taper
            p[2] += ((low[2] + high[2]) / 2 - p[2]) * taper
        corners.append(p)
    cube = np.array(corners)
    middle = cube.mean(0)
    for face in _FACES:
        outward = cube[list(face)]
        n = np.cross(outward[1] - outward[0], outward[2] - outward[0])
        if n @ (outward[0] - middle) < 0:
            outward = outward[::-1]
        parts.append((outward, style))
    return parts


def _pane(low: Vector, high: Vector, share: float, style: str, taper: float) -> list[Part]:
    """Return windows on the four upright faces of a block, a hair before them."""
    panes = []
    for corners, _ in block(low, high, style, taper):
        middle = corners.mean(0)
        n = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        n = n / np.linalg.norm(n)
        if abs(n[1]) < 0.8:
            panes.append((middle + (corners - middle) * share + n * 0.004, style))
    return panes


def car(rng: SceneRng) -> list[Part]:
    """A car of unit height with panes and wheels: y down, on the ground at 0."""
    long, wide = rng.uniform(2.3, 3.2), rng.uniform(1.1, 1.3)
    x, z, waist, floor = long / 2, wide / 2, -rng.uniform(0.5, 0.62), -rng.uniform(0.1, 0.2)
    nose, tail = rng.uniform(0.2, 0.6), rng.uniform(-0.1, 0.5)
    taper = rng.uniform(0.12, 0.35)
    roof = (-x + tail * x, -1.0, -z * 0.95), (x - nose * x, waist, z * 0.95)
    parts = block((-x, waist, -z), (x, floor, z), "paint", 0.05)
    parts += block(*roof, "paint", taper) + _pane(*roof, rng.uniform(0.75, 0.88), "pane", taper)
    wheel = rng.uniform(0.17, 0.24)
    for at in (-0.6 * x, 0.62 * x):
        for side in (-1.0, 1.0):
            angles = np.arange(8) * (np.pi / 4) * side
            rim = np.stack([at + wheel * np.cos(angles), wheel * np.sin(angles) - wheel], 1)
            face = np.insert(rim, 2, side * (z + 0.01), axis=1)
            parts.append((face[::-1], "dark"))
    lamp = (-x * 1.003, waist * 0.95, -z * 0.9), (x * 1.003, waist * 0.75, z * 0.9)
    return parts + block(*lamp, rng.pick(["line", "dark", "paint"]))


def table(rng: SceneRng) -> list[Part]:
    """A table of unit height."""
    x, z, thick = rng.uniform(0.5, 1.4), rng.uniform(0.4, 0.8), rng.uniform(0.03, 0.1)
    parts = block((-x, -1.0, -z), (x, -1.0 + thick, z), rng.pick(["plain", "object"]))
    leg = rng.uniform(0.04, 0.09)
    for u in (-x + leg, x - leg):
        for v in (-z + leg, z - leg):
            parts += block((u - leg, -1.0 + thick, v - leg), (u + leg, 0.0, v + leg), "plain")
    return parts


def cabinet(rng: SceneRng) -> list[Part]:
    """A cabinet, shelf or counter of unit height, its doors a hair before it."""
    x, z = rng.log_uniform(0.25, 1.6), rng.uniform(0.15, 0.4)
    parts = block((-x, -1.0, -z), (x, 0.0, z), rng.pick(["plain", "plain", "object"]))
    style, columns, rows = rng.pick(["plain", "object", "dark"]), rng.whole(1, 3), rng.whole(1, 4)
    if rng.chance(0.4):
        return parts
    for i in range(columns):
        for j in range(rows):
            left, top = -x + 2 * x * (i + 0.06) / columns, -1.0 + (j + 0.06) / rows
            right, low = -x + 2 * x * (i + 0.94) / columns, -1.0 + (j + 0.94) / rows
            parts += block((left, top, -z - 0.02), (right, low, -z), style)[4:5]
    return parts


def house(rng: SceneRng) -> list[Part]:
    """A house or wall of unit height, without a roof that is seen from below."""
    x, z = rng.log_uniform(0.4, 3.0), rng.log_uniform(0.3, 1.5)
    parts = block((-x, -1.0, -z), (x, 0.0, z), rng.pick(["facade", "facade", "plain", "object"]))
    if rng.chance(0.5):
        over = rng.uniform(1.02, 1.15)
        roof = (-x * over, -1.0 - rng.uniform(0.05, 0.4), -z * over), (x * over, -1.0, z * over)
        parts += block(*roof, "object", rng.uniform(0.0, 0.6))
    return parts


def post(rng: SceneRng) -> list[Part]:
    """A pole or sign of unit height."""
    thin = rng.uniform(0.015, 0.05)
    parts = block((-thin, -1.0, -thin), (thin, 0.0, thin), "plain")
    if rng.chance(0.6):
        x, y = rng.uniform(0.06, 0.25), rng.uniform(0.1, 0.3)
        parts += block((-x, -1.0, -thin * 1.2), (x, -1.0 + y, thin * 1.2), "object")
    return parts


def crate(rng: SceneRng) -> list[Part]:
    """A box about the origin, half as wide as it is long or less."""
    x, y, z = (rng.uniform(0.25, 1.0) / 2 for _ in range(3))
    style = rng.pick(["object", "object", "plain", "paint"])
    return block((-x, -y, -z), (x, y, z), style, rng.pick([0.0, 0.0, 0.0, 0.5, 1.0 - 1e-3]))
