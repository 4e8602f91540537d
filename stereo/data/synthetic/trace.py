"""Visibility: which surface each view shows at each pixel, and which pixels both views see."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stereo.data.synthetic.meshes import Triangles
from stereo.data.synthetic.surface import Surface, disparity, left_column, signed_distance


@dataclass(frozen=True)
class Footprint:
    """The part of the left view that a surface may cover, and its disparities there."""

    x: tuple[float, float]
    """First and last column, pixels."""
    y: tuple[float, float]
    """First and last row, pixels."""
    disparity: tuple[float, float]
    """Least and largest, pixels."""


@dataclass(frozen=True, eq=False)
class Hits:
    """What a view shows, each (H, W).

    Attributes:
        layer: int64, which surface holds the pixel's centre; after the surfaces come triangles.
        x: float32, the left column of what it shows there, pixels.
        disparity: float32, pixels.
        partner: int64, the surface that shares the pixel at an edge.
        partner_x: float32, its left column, pixels.
        partner_disparity: float32, pixels.
        share: float32, the partner's part of the pixel, 0 to 0.5.
    """

    layer: Tensor
    x: Tensor
    disparity: Tensor
    partner: Tensor
    partner_x: Tensor
    partner_disparity: Tensor
    share: Tensor


def footprint(surface: Surface, limits: tuple[float, float]) -> Footprint:
    """Return where a surface may be seen; ``limits`` are the least and largest disparity there."""
    outline = surface.outline
    if outline is None:
        far = 1e9
        return Footprint((-far, far), (-far, far), limits)
    if outline.kind == "polygon" or abs(outline.sin) > 1e-6 or outline.rough > 0:
        reach = (outline.along**2 + outline.across**2) ** 0.5
        wide = tall = reach * (1.0 + outline.rough)
    else:
        wide, tall = outline.along, outline.across
    x = (outline.x - wide - 1, outline.x + wide + 1)
    y = (outline.y - tall - 1, outline.y + tall + 1)
    a, b, c = surface.plane
    corners = [a * px + b * py + c for px in x for py in y]
    low = min(corners) + min(0.0, surface.bump[4]) + min(0.0, surface.wave[3])
    high = max(corners) + max(0.0, surface.bump[4]) + max(0.0, surface.wave[3])
    return Footprint(x, y, (max(low, limits[0]), min(high, limits[1])))


def _times(factor: float, span: tuple[float, float]) -> tuple[float, float]:
    first, last = sorted((factor * span[0], factor * span[1]))
    return first, last


def _plus(span: tuple[float, float], more: tuple[float, float]) -> tuple[float, float]:
    return span[0] + more[0], span[1] + more[1]


def _window(
    span: tuple[float, float], rows: tuple[float, float], shape: torch.Size
) -> tuple[slice, slice] | None:
    """Return slices of an (H, W) view that cover columns ``span`` and ``rows``, if any."""
    height, width = shape
    top, bottom = max(0, int(rows[0])), min(height, int(rows[1]) + 2)
    first, last = max(0, int(span[0])), min(width, int(span[1]) + 2)
    return None if top >= bottom or first >= last else (slice(top, bottom), slice(first, last))


def trace(
    surfaces: Sequence[Surface],
    limits: tuple[float, float],
    shape: tuple[int, int],
    noise: Tensor,
    *,
    place: float,
    triangles: Triangles | None = None,
) -> Hits:
    """Find what one view shows at each pixel centre: the surface of the largest disparity.

    Args:
        surfaces: far ones first; the first is a backdrop that is everywhere.
        limits: a surface is there only where its disparity lies between these, pixels.
        shape: (H, W) of the views.
        noise: for ragged outlines.
        place: of the camera, baselines to the right of the scene's left one: 0 for the left view,
            1 for the right one.
        triangles: those of the meshes, if any.
    """
    height, width = shape
    xs = torch.arange(width).float()[None].expand(height, width)
    ys = torch.arange(height).float()[:, None]
    best = torch.zeros(shape)
    x_hit, share, x_partner = xs.clone(), torch.zeros_like(best), xs.clone()
    d_partner = torch.zeros_like(best)
    layer = torch.zeros(shape, dtype=torch.int64)
    partner = torch.zeros_like(layer)
    for k, surface in enumerate(surfaces):
        foot = footprint(surface, limits)
        span = _plus(foot.x, _times(-place, foot.disparity))
        window = _window(span, foot.y, best.shape)
        if window is None:
            continue
        x, y = xs[window], ys[window[0]]
        x = left_column(surface, x, y, place)
        d = disparity(surface, x, y)
        ahead = (d > best[window]) & (d > limits[0]) & (d < limits[1])
        if surface.outline is None:
            held, edge, part = ahead, ahead, torch.zeros(())
        else:
            distance = signed_distance(surface.outline, x, y, noise)
            held = ahead & (distance < 0)
            part = (0.5 - distance.abs()).clamp(min=0)
            edge = held | (ahead & (part > 0))
        x_partner[window] = torch.where(
            held, x_hit[window], torch.where(edge, x, x_partner[window])
        )
        d_partner[window] = torch.where(held, best[window], torch.where(edge, d, d_partner[window]))
        partner[window] = torch.where(held, layer[window], partner[window].masked_fill(edge, k))
        share[window] = torch.where(edge, part, share[window])
        best[window] = torch.where(held, d, best[window])
        x_hit[window] = torch.where(held, x, x_hit[window])
        layer[window] = layer[window].masked_fill(held, k)
    hits = Hits(layer, x_hit, best, partner, x_partner, d_partner, share)
    return _with_meshes(hits, triangles, len(surfaces), limits, place) if triangles else hits


def _with_meshes(
    hits: Hits, triangles: Triangles, first: int, limits: tuple[float, float], place: float
) -> Hits:
    """Put triangles before the surfaces that they hide; a pixel at an edge asks four more rays."""
    height, width = hits.layer.shape
    ys, xs = torch.meshgrid(
        torch.arange(height).float(), torch.arange(width).float(), indexing="ij"
    )
    triangle, d = triangles.hit(xs, ys, place=place)
    front = (d > hits.disparity) & (d > limits[0]) & (d < limits[1])
    best = torch.where(front, d, hits.disparity)
    layer = torch.where(front, triangle + first, hits.layer)
    x_hit = torch.where(front, xs + place * d, hits.x)
    share = hits.share.masked_fill(front, 0.0)
    partner, x_partner, d_partner = (
        *(hits.partner.clone(), hits.partner_x.clone()),
        hits.partner_disparity.clone(),
    )
    spread = F.max_pool2d(best[None], 3, 1, 1) + F.max_pool2d(-best[None], 3, 1, 1)
    near = F.max_pool2d(front[None].float(), 3, 1, 1) > 0
    at = ((spread > 0.5) & near)[0].nonzero(as_tuple=True)
    if len(at[0]):
        y, x, centre, before = ys[at], xs[at], best[at], front[at]
        other, count = torch.full_like(at[0], -1), torch.zeros_like(y)
        d_other = torch.zeros_like(y)
        for u, v in ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)):
            tri, there = triangles.hit(x + u, y + v, place=place)
            ahead = (there > hits.disparity[at]) & (there > limits[0]) & (there < limits[1])
            apart = (ahead != before) | (ahead & ((there - centre).abs() > 0.75))
            fresh = apart & (count == 0)
            other = torch.where(fresh, torch.where(ahead, tri + first, hits.layer[at]), other)
            d_other = torch.where(fresh, torch.where(ahead, there, hits.disparity[at]), d_other)
            count += apart
        mixed = count > 0
        where = tuple(axis[mixed] for axis in at)
        partner[where], d_partner[where] = other[mixed], d_other[mixed]
        x_partner[where] = xs[where] + place * d_other[mixed]
        share[where] = (count[mixed] / 4).clamp(max=0.5)
    return Hits(layer, x_hit, best, partner, x_partner, d_partner, share)


def seen_by_both(
    surfaces: Sequence[Surface],
    limits: tuple[float, float],
    hits: Hits,
    noise: Tensor,
    *,
    place: float,
    other: float,
    triangles: Triangles | None = None,
) -> Tensor:
    """Return where the other view shows the same point of the same surface.

    Every surface is asked at the exact, fractional place of the match, not at the nearest pixel.

    Args:
        surfaces: as for ``trace``.
        limits: as for ``trace``.
        hits: what ``trace`` found for the view.
        noise: as for ``trace``.
        place: where the view of ``hits`` is, as for ``trace``.
        other: where the other view is, a baseline away.
        triangles: as for ``trace``.

    Returns:
        (H, W) bool.
    """
    height, width = hits.layer.shape
    ys = torch.arange(height).float()[:, None]
    match = hits.x - other * hits.disparity
    seen = (match >= -0.5) & (match <= width - 0.5)
    for k, surface in enumerate(surfaces):
        foot = footprint(surface, limits)
        # Columns of this view whose match may lie on the surface: what it hides is behind it.
        span = _plus(foot.x, _times(-other, foot.disparity))
        span = _plus(span, _times(other - place, (0.0, foot.disparity[1])))
        window = _window(span, foot.y, hits.layer.shape)
        if window is None or k == 0:
            continue
        x, y = match[window], ys[window[0]]
        x = left_column(surface, x, y, other)
        d = disparity(surface, x, y)
        hidden = (d > hits.disparity[window]) & (d > limits[0]) & (d < limits[1])
        hidden &= hits.layer[window] != k
        if surface.outline is not None:
            hidden &= signed_distance(surface.outline, x, y, noise) < 0
        seen[window] &= ~hidden
    if triangles:  # a point's own triangle is met again, at its disparity but for rounding
        _, d = triangles.hit(match, ys.expand(height, width), place=other)
        seen &= ~((d > hits.disparity * 1.0005 + 0.02) & (d > limits[0]) & (d < limits[1]))
    return seen
