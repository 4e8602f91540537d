"""Line charts as SVG: no script, colours from the page's style sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 370, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 26, 42
TICKS = 5


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    label: str  # what the legend says
    x: Sequence[float]  # values along the horizontal axis
    y: Sequence[float]  # as many values
    style: str = "main"  # `main`, `second`, `third` or `faint`, classes of the style sheet
    dots: bool = False  # whether each point is marked

    def points(self) -> list[tuple[float, float]]:
        """Return the finite points."""
        pairs = zip(self.x, self.y, strict=True)
        return [(float(x), float(y)) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def line_chart(
    title: str,  # for screen readers
    lines: Sequence[Line],  # the first stands in front
    x_label: str,  # of the horizontal axis, with its unit
    y_label: str,  # of the vertical axis, with its unit
    *,
    y_end: float | None = None,  # the vertical axis' end; None for the largest value
) -> Markup:
    """Draw lines over one pair of axes, from 0 up.

    Returns:
        An ``svg`` element, or nothing where there is not a point to draw.
    """
    drawn = [(line, points) for line in lines if (points := line.points())]
    if not drawn:
        return Markup("")
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    x_ticks = ticks(min(0.0, *xs), max(xs))
    if len(x_ticks) > 2 and x_ticks[-1] > max(xs):  # end with the lines, not with a round number
        x_ticks.pop()
    x_end = max(x_ticks[-1], *xs)
    y_ticks = ticks(min(0.0, *ys), y_end or max(ys))

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * _share(x, x_ticks[0], x_end)

    def down(y: float) -> float:
        share = _share(y, y_ticks[0], y_ticks[-1])
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, 0.0), 1.0)

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
    ]
    for y in y_ticks:
        parts.append(
            f'<path class="grid" d="M{LEFT} {down(y):.1f}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 8}" y="{down(y) + 4:.1f}" text-anchor="end">{short(y)}</text>'
        )
    for x in x_ticks:
        parts.append(
            f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
            f"{short(x)}</text>"
        )
    parts.append(
        f'<text class="axis" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">'
        f"{escape(x_label)}</text>"
        f'<text class="axis" x="{LEFT}" y="{TOP - 12}">{escape(y_label)}</text>'
    )
    for line, points in reversed(drawn):
        path = "L".join(f"{across(x):.1f} {down(y):.1f}" for x, y in points)
        parts.append(f'<path class="line {escape(line.style)}" d="M{path}"/>')
        if line.dots or len(points) == 1:
            parts += [
                f'<circle class="{escape(line.style)}" cx="{across(x):.1f}" cy="{down(y):.1f}" '
                'r="3.5"/>'
                for x, y in points
            ]
    return Markup("".join(parts) + "</svg>")


def ticks(low: float, high: float) -> list[float]:
    """Return some five round numbers from at most ``low`` to at least ``high``."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * TICKS >= span)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.9g}") for i in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """Write a tick: few digits, no trailing zeros."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:.3g}"


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low)
