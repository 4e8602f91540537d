"""Colours: what the surfaces that a view shows look like, in linear light."""

import torch
from torch import Tensor

from stereo.data.synthetic.atlas import Atlas
from stereo.data.synthetic.meshes import Triangles
from stereo.data.synthetic.noise import sample_noise, square_root
from stereo.data.synthetic.scene import Look, Scene
from stereo.data.synthetic.surface import ROUND, Surface, signed_distance
from stereo.data.synthetic.trace import Hits

LIGHT_GAIN = 1.6
AIRLIGHT = (0.70, 0.72, 0.75)
CHUNK = 8192  # pixels at a time on a CPU: their parameters stay in its cache


def picture(
    scene: Scene, atlas: Atlas, hits: Hits, *, place: float, triangles: Triangles | None = None
) -> Tensor:
    """Return one view without a camera's faults, edges blended.

    Args:
        scene: its layers as traced.
        atlas: its textures.
        hits: what the view shows.
        place: of its camera, baselines to the right of the left one; highlights and mirrored
            pictures move with it.
        triangles: those of the meshes, if any.

    Returns:
        (H, W, 3) float32, linear light, 1 for white; highlights may exceed it.
    """
    height, width = hits.layer.shape
    looks, facets = _tables(scene, triangles)
    rows = torch.arange(height).float()[:, None].expand(height, width)
    columns = torch.arange(width).float()[None].expand(height, width)

    def shade(*values: Tensor) -> Tensor:
        pieces = zip(*(v.split(CHUNK) for v in values), strict=True)
        return torch.cat([_colours(looks, facets, atlas, *piece, place=place) for piece in pieces])

    seen = (hits.layer, hits.x, hits.disparity, rows, columns)
    colour = shade(*(v.reshape(-1) for v in seen))
    share = hits.share.reshape(-1)
    edge = share.nonzero()[:, 0]
    beside = (hits.partner, hits.partner_x, hits.partner_disparity, rows, columns)
    there = [v.reshape(-1).index_select(0, edge) for v in beside]
    part = share.index_select(0, edge)[:, None]
    own = colour.index_select(0, edge)
    colour[edge] = own + (shade(*there) - own) * part
    colour = colour.view(height, width, 3)
    if scene.sun[2]:
        colour = colour * _shadows(scene, atlas, hits, place, triangles)[..., None]
    if scene.dots[0]:
        colour = colour + (_dots(scene, atlas, hits) * scene.dots[0])[..., None]
    if scene.haze:
        kept = (-scene.haze / hits.disparity).exp()[..., None]
        colour = colour * kept + (1.0 - kept) * colour.new_tensor(AIRLIGHT)
    if scene.grey is not None:
        red, green, blue = scene.grey
        grey = colour[..., :1] * red + colour[..., 1:2] * green + colour[..., 2:] * blue
        colour = grey.expand(height, width, 3).contiguous()
    return colour


def _dots(scene: Scene, atlas: Atlas, hits: Hits) -> Tensor:
    """Return what a projector beside the left camera adds, (H, W): dots that fade with depth."""
    _, cell, aside, reach = scene.dots
    rows = torch.arange(hits.x.shape[0]).float()[:, None]
    place = (hits.x - aside * hits.disparity) / cell
    dots = ((sample_noise(atlas.noise, place, rows / cell) - 0.8) * 8.0).clamp(0.0, 1.0)
    return dots * (hits.disparity / reach).clamp(max=1.0)


def _shadows(
    scene: Scene, atlas: Atlas, hits: Hits, place: float, triangles: Triangles | None
) -> Tensor:
    """Return the share of light, (H, W), that other layers' cast shadows leave.

    A shadow is the outline of the layer that casts it, moved by the difference of disparities:
    a function of the left position, hence the same in both views. It softens with the difference.
    In space these are the shadows of a lamp at X = -across, Y = -down and Z = 0, and so meshes cast
    theirs.
    """
    across, down, strength = scene.sun
    dark = torch.zeros_like(hits.x)
    rows = torch.arange(hits.x.shape[0]).float()[:, None]
    for k, layer in enumerate(scene.layers):
        outline, (a, b, c) = layer.surface.outline, layer.surface.plane
        if outline is None or not layer.casts:
            continue
        depth = a * outline.x + b * outline.y + c
        reach = 1.5 * max(outline.along, outline.across)
        left, right = sorted((0.0, across * depth))
        left, right = left - max(1.0, place) * depth, right - min(0.0, place) * depth
        top, bottom = sorted((0.0, down * depth))
        band = (
            slice(*(max(0, int(outline.y + e)) for e in (top - reach, bottom + reach + 1))),
            # A view has what is at x in a column between x - place * depth and x.
            slice(*(max(0, int(outline.x + e)) for e in (left - reach, right + reach + 1))),
        )
        gap = (depth - hits.disparity[band]).clamp(min=0.0)
        if not gap.numel():
            continue
        x, y = hits.x[band] - across * gap, rows[band[0]] - down * gap
        distance = signed_distance(outline, x, y, atlas.noise)
        cast = (0.5 - distance / (1.0 + 0.3 * gap)).clamp(0.0, 1.0)
        cast = cast * gap.clamp(max=1.0) * (hits.layer[band] != k)
        dark[band] = torch.maximum(dark[band], cast)
    if triangles is not None:
        ys = rows.expand_as(hits.x)
        shaded = triangles.shaded(hits.x, ys, hits.disparity, (-across, -down))
        dark = torch.maximum(dark, shaded.float())
    return 1.0 - strength * dark * hits.disparity.clamp(max=1.0)  # none on the sky


def _tables(scene: Scene, triangles: Triangles | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the parameters of looks, (P, K), and those of layers and then triangles.

    The latter are (5, N), slopes of disparity and light as in ``Triangles``, and (N,), their looks.
    """
    flat = Surface((0.0, 0.0, 0.0))
    rows = [_row(layer.surface, layer.look) for layer in scene.layers]
    rows += [_row(flat, look) for look in scene.mesh_looks]
    looks = torch.tensor(rows, dtype=torch.float32).t().contiguous()
    own = [[*layer.surface.plane[:2], 0.0, 0.0, layer.light] for layer in scene.layers]
    facets, numbers = torch.tensor(own).t(), torch.arange(len(own))
    if triangles is not None:
        facets = torch.cat([facets, triangles.shading], 1)
        numbers = torch.cat([numbers, triangles.looks + len(own)])
    return looks, (facets.contiguous(), numbers)


def _row(surface: Surface, look: Look) -> list[float]:
    """Return the parameters in the order in which ``_colours`` unpacks them."""
    k = look
    row = [*surface.bump, *surface.wave, *k.mapping, *k.tint, k.contrast, k.level, k.grain]
    return [*row, k.grain_scale, *k.light, k.blotches, *k.shine, *k.mirror, float(k.texture)]


def _colours(
    looks: Tensor,
    facets: tuple[Tensor, Tensor],
    atlas: Atlas,
    layer: Tensor,
    x: Tensor,
    d: Tensor,
    y: Tensor,
    column: Tensor,
    *,
    place: float,
) -> Tensor:
    """Return (P, 3) linear colours of layers at left positions x, y, seen in a view's column."""
    a, b, lit_x, lit_y, lit = facets[0].index_select(1, layer)
    p = iter(looks.index_select(1, facets[1].index_select(0, layer)))
    bump_x, bump_y, bump_u, bump_v, bump_height = (next(p) for _ in range(5))
    wave_x, wave_y, wave_phase, wave_height = (next(p) for _ in range(4))
    s0, s1, s2, t0, t1, t2 = (next(p) for _ in range(6))
    tint = torch.stack([next(p), next(p), next(p)], dim=1)
    contrast, level, grain, grain_scale = (next(p) for _ in range(4))
    light_x, light_y, blotches = (next(p) for _ in range(3))
    shine_x, shine_y, shine_inverse, shine_strength, shine_shift = (next(p) for _ in range(5))
    mirror_texture, mirror, mirror_disparity, mirror_scale = (next(p) for _ in range(4))
    texture = next(p).long()

    # The slope of disparity over the plane's, which makes the shading.
    u, v = (x - bump_x) * bump_u, (y - bump_y) * bump_v
    root = square_root(1.0 - ROUND * (u * u + v * v).clamp(max=1.0))
    cycles = x * wave_x + y * wave_y + wave_phase
    ramp = (cycles - cycles.floor()) * 2.0 - 1.0
    down = -ROUND * bump_height / root
    roll = wave_height * 12.0 * (ramp - ramp * ramp.abs())
    slope_x = down * u * bump_u + roll * wave_x
    slope_y = down * v * bump_v + roll * wave_y

    # The texture, from the level of its pyramid whose texels are about a pixel.
    near = 1.0 / d
    s, t = (s0 * x + s1 * y + s2) * near, (t0 * x + t1 * y + t2) * near
    s_x, s_y = (s0 - s * a) * near, (s1 - s * b) * near
    t_x, t_y = (t0 - t * a) * near, (t1 - t * b) * near
    step = torch.maximum(s_x * s_x + t_x * t_x, s_y * s_y + t_y * t_y)
    pyramid = (((step * 1.5).view(torch.int32) >> 23) - 127) >> 1
    albedo = atlas.colour(texture, pyramid, s, t)
    albedo = (level[:, None] + (albedo - level[:, None]) * contrast[:, None]).clamp(0.0, 1.0)

    # Grain finer than the texture, faded out where a pixel holds several.
    fade = (1.5 - square_root(step) * grain_scale * 2.0).clamp(0.0, 1.0) * grain
    light = 1.0 + fade * (sample_noise(atlas.noise, s * grain_scale, t * grain_scale) - 0.5) * 2.0
    soft = sample_noise(atlas.noise, x * 0.012 + d * 0.03, y * 0.012 + d * 0.02)
    light = light * (1.0 - blotches * ((soft - 0.5) * 3.0).clamp(0.0, 1.0) * 0.8)
    light = light * (1.0 + LIGHT_GAIN * (slope_x * light_x + slope_y * light_y)).clamp(0.15, 2.0)
    light = light * (lit_x * x + lit_y * y + lit).clamp(0.2, 1.3)
    colour = albedo * albedo * (light[:, None] * tint)

    # Highlights move over the surface with the viewer.
    centre = shine_x + place * shine_shift
    off = ((x - centre) * shine_inverse) ** 2 + ((y - shine_y) * shine_inverse) ** 2
    lobe = (1.0 - off).clamp(min=0.0)
    colour = colour + (shine_strength * lobe * lobe)[:, None]

    # A mirrored picture has its own disparity, the same whatever the surface's.
    glossy = mirror.nonzero()[:, 0]
    if len(glossy):
        behind = column + place * mirror_disparity
        pick = [
            v.index_select(0, glossy) for v in (behind, y, mirror_scale, mirror_texture, mirror)
        ]
        far = atlas.colour(
            pick[3].long(),
            torch.zeros_like(glossy, dtype=torch.int32),
            pick[0] * pick[2],
            pick[1] * pick[2],
        )
        colour[glossy] += far * far * pick[4][:, None]
    return colour
