"""Surfaces: disparity as a function of left pixel coordinates, its inverse, and outlines.

A point of a surface at left (x, y) is seen at (x - d(x, y), y) on the right, and at
(x - t d(x, y), y) from t baselines to the right of the left camera. Coordinates are in pixels,
whole at pixel centres. Every function works elementwise on tensors of one broadcast shape.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from stereo.data.synthetic.noise import sample_noise, square_root

ROUND = 0.94  # of a bump, below 1 so that the slope of its disparity stays finite at the outline
STEEPEST = 3.7  # slope of a bump at its outline, in heights per radius
STEPS = 18  # of the fixed-point iteration; each at least halves the error


@dataclass(frozen=True)
class Outline:
    """Where a surface ends: a signed distance in pixels, negative inside.

    Local coordinates (u, v) have their origin at the centre and are turned.
    """

    kind: str
    """A key of ``DISTANCES``."""
    x: float
    """Left column of the centre, pixels."""
    y: float
    """Row of the centre, pixels."""
    along: float
    """Half the size along u, pixels."""
    across: float
    """Half the size along v, pixels."""
    cos: float = 1.0
    """Cosine of the turn."""
    sin: float = 0.0
    """Sine of the turn."""
    period: float = 0.0
    """Distance from bar to bar, hole to hole or wave to wave, pixels."""
    width: float = 0.0
    """Width of a bar, cable or rim, or radius of a hole, pixels."""
    rough: float = 0.0
    """Depth of a ragged outline relative to the size, or the share of leaves."""
    grain: float = 0.1
    """Cells of the noise per pixel."""
    sides: tuple[tuple[float, float, float], ...] = ()
    """Of a convex polygon: outward unit normal and offset of each side, in (u, v)."""


@dataclass(frozen=True)
class Surface:
    """Disparity over left coordinates: a plane, and on it a bump and a wave."""

    plane: tuple[float, float, float]
    """(a, b, c) of a x + b y + c, pixels."""
    bump: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    """(x, y, 1 / x radius, 1 / y radius, height), pixels: a sphere; a cylinder where one is 0."""
    wave: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """(cycles per column, cycles per row, phase, height in pixels): a curtain."""
    outline: Outline | None = field(default=None)
    """Its outline; None if it is unbounded."""

    @property
    def curved(self) -> bool:
        """Whether it is more than a plane."""
        return self.bump[4] != 0.0 or self.wave[3] != 0.0


def relief(surface: Surface, x: Tensor, y: Tensor) -> Tensor:
    """Return what bump and wave add to the plane's disparity at left (x, y), pixels."""
    total = torch.zeros(())
    if surface.bump[4] != 0.0:
        bx, by, u, v, height = surface.bump
        rim = (((x - bx) * u) ** 2 + ((y - by) * v) ** 2).clamp(max=1.0)
        total = height * square_root(1.0 - ROUND * rim)
    if surface.wave[3] != 0.0:
        kx, ky, phase, height = surface.wave
        total = total + height * smooth_wave(x * kx + (y * ky + phase))
    return total


def smooth_wave(cycles: Tensor) -> Tensor:
    """Return a wave between 0 and 1 of period 1; plain arithmetic, alike on all machines."""
    ramp = (cycles - cycles.floor() - 0.5).abs() * 2.0
    return ramp * ramp * (3.0 - 2.0 * ramp)


def disparity(surface: Surface, x: Tensor, y: Tensor) -> Tensor:
    """Return the disparity at left (x, y), pixels."""
    a, b, c = surface.plane
    flat = a * x + (b * y + c)
    return flat + relief(surface, x, y) if surface.curved else flat


def left_column(surface: Surface, column: Tensor, y: Tensor, place: float = 1.0) -> Tensor:
    """Return the left column of what the surface shows at (column, y) from another place, pixels.

    For the plane this is the closed form (x' + t (b y + c)) / (1 - t a), and bump and wave are
    iterated.

    Args:
        surface: which.
        column: in the other view, pixels.
        y: rows, pixels.
        place: t, baselines to the right of the left camera; 1 for the right view.
    """
    if place == 0:
        return column
    a, b, c = surface.plane
    share = 1.0 / ((1.0 - place * a) or 1e-9)
    flat = (column + place * (b * y + c)) * share
    if not surface.curved:
        return flat
    x = flat
    for _ in range(STEPS):
        x = flat + relief(surface, x, y) * (place * share)
    return x


def signed_distance(outline: Outline, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """Return the distance to an outline at left (x, y), pixels, negative inside.

    Args:
        outline: which.
        x: left columns, pixels.
        y: rows, pixels.
        noise: (S, S) smooth periodic noise in 0..1, for ragged outlines.
    """
    dx, dy = x - outline.x, y - outline.y
    u = dx * outline.cos + dy * outline.sin
    v = dy * outline.cos - dx * outline.sin
    return DISTANCES[outline.kind](outline, u, v, noise)


def _ellipse(o: Outline, u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    radius = square_root((u / o.along) ** 2 + (v / o.across) ** 2)
    return (radius - 1.0) * min(o.along, o.across)


def _box(o: Outline, u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    return torch.maximum(u.abs() - o.along, v.abs() - o.across)


def _polygon(o: Outline, u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    distance = _box(o, u, v, noise)  # sharp corners end there
    for nu, nv, offset in o.sides:
        distance = torch.maximum(distance, u * nu + v * nv - offset)
    return distance


def _bars(o: Outline, u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    return torch.maximum(_box(o, u, v, noise), _folded(u, o.period) - o.width / 2)


def _lattice(o: Outline, u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    bars = torch.minimum(_folded(u, o.period), _folded(v, o.period)) - o.width / 2
    return torch.maximum(_box(o, u, v, noise), bars)


def _holes(o: Outline, u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    hole = o.width - square_root(_folded(u, o.period) ** 2 + _folded(v, o.period) ** 2)
    return torch.maximum(_box(o, u, v, noise), hole)


def _frame(o: Outline, u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    outer = _box(o, u, v, noise)
    return torch.maximum(outer, -o.width - outer)


def _ring(o: Outline, u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    outer = _ellipse(o, u, v, noise)
    return torch.maximum(outer, -o.width - outer)


def _blob(o: Outline, u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    radius = square_root((u / o.along) ** 2 + (v / o.across) ** 2)
    ragged = sample_noise(noise, u * o.grain, v * o.grain)
    return (radius - 1.0 + o.rough * ragged) * min(o.along, o.across)


def _leaves(o: Outline, u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    # Where noise is above a level there are leaves; its slope is about 3 per cell.
    gaps = (1.0 - o.rough - sample_noise(noise, u * o.grain, v * o.grain)) / (3.0 * o.grain)
    return torch.maximum(_ellipse(o, u, v, noise), gaps)


def _cable(o: Outline, u: Tensor, v: Tensor, noise: Tensor) -> Tensor:
    sway = (smooth_wave(u / o.period) - 0.5) * (2.0 * (o.across - o.width))
    return torch.maximum(u.abs() - o.along, (v - sway).abs() - o.width / 2)


def _folded(u: Tensor, period: float) -> Tensor:
    """Return the distance to the nearest multiple of a period, pixels."""
    cycles = u * (1.0 / period)
    return (cycles - (cycles + 0.5).floor()).abs() * period


DISTANCES = {
    "ellipse": _ellipse,
    "box": _box,
    "polygon": _polygon,
    "bars": _bars,
    "lattice": _lattice,
    "holes": _holes,
    "frame": _frame,
    "ring": _ring,
    "blob": _blob,
    "leaves": _leaves,
    "cable": _cable,
}
