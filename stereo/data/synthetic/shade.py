"""Colours: what the surfaces that a view shows look like, in linear light."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stereo.data.synthetic.atlas import Atlas
from stereo.data.synthetic.noise import sample_noise
from stereo.data.synthetic.scene import Layer, Scene
from stereo.data.synthetic.surface import ROUND, signed_distance, smooth_wave
from stereo.data.synthetic.trace import Hits

LIGHT_GAIN = 1.6
CHUNK = 8192  # pixels at a time on a CPU: their parameters stay in its cache


def picture(scene: Scene, atlas: Atlas, hits: Hits, *, right: bool) -> Tensor:
    """Return one view without a camera's faults, edges blended.

    Args:
        scene: its layers as traced.
        atlas: its textures.
        hits: what the view shows.
        right: whether it is the right view, where highlights and mirrored pictures differ.

    Returns:
        (H, W, 3) float32, linear light, 1 for white; highlights may exceed it.
    """
    height, width = hits.layer.shape
    table = _table(scene.layers, hits.x.device)
    rows = torch.arange(height, device=hits.x.device).float()[:, None].expand(height, width)
    columns = torch.arange(width, device=hits.x.device).float()[None].expand(height, width)

    def shade(layer: Tensor, x: Tensor, y: Tensor, column: Tensor) -> Tensor:
        size = CHUNK if layer.device.type == "cpu" else max(1, len(layer))
        pieces = zip(*(v.split(size) for v in (layer, x, y, column)), strict=True)
        return torch.cat([_colours(table, atlas, *piece, right=right) for piece in pieces])

    colour = shade(*(v.reshape(-1) for v in (hits.layer, hits.x, rows, columns)))
    share = hits.share.reshape(-1)
    edge = share.nonzero()[:, 0]
    there = [
        v.reshape(-1).index_select(0, edge) for v in (hits.partner, hits.partner_x, rows, columns)
    ]
    part = share.index_select(0, edge)[:, None]
    own = colour.index_select(0, edge)
    colour[edge] = own + (shade(*there) - own) * part
    colour = colour.view(height, width, 3)
    return colour * _shadows(scene, atlas, hits)[..., None] if scene.sun[2] else colour


def _shadows(scene: Scene, atlas: Atlas, hits: Hits) -> Tensor:
    """Return the share of light, (H, W), that other layers' cast shadows leave.

    A shadow is the outline of the layer that casts it, moved by the difference of disparities:
    a function of the left position, hence the same in both views. It softens with the difference.
    """
    across, down, strength = scene.sun
    dark = torch.zeros_like(hits.x)
    rows = torch.arange(hits.x.shape[0], device=dark.device).float()[:, None]
    for k, layer in enumerate(scene.layers):
        outline, (a, b, c) = layer.surface.outline, layer.surface.plane
        if outline is None:
            continue
        depth = a * outline.x + b * outline.y + c
        reach = 1.5 * max(outline.along, outline.across)
        top = min(0.0, down * depth) + outline.y - reach
        bottom = max(0.0, down * depth) + outline.y + reach
        band = slice(max(0, int(top)), max(0, int(bottom) + 1))
        if band.start >= dark.shape[0] or band.start >= band.stop:
            continue
        gap = (depth - hits.disparity[band]).clamp(min=0.0)
        x, y = hits.x[band] - across * gap, rows[band] - down * gap
        distance = signed_distance(outline, x, y, atlas.noise)
        cast = (0.5 - distance / (1.0 + 0.3 * gap)).clamp(0.0, 1.0)
        cast = cast * gap.clamp(max=1.0) * (hits.layer[band] != k)
        dark[band] = torch.maximum(dark[band], cast)
    return 1.0 - strength * dark


def _table(layers: Sequence[Layer], device: torch.device) -> Tensor:
    """Return the parameters as columns per layer, (P, L) float32, in the order that is unpacked."""
    rows = []
    for layer in layers:
        s, k = layer.surface, layer.look
        light_x, light_y = k.light
        row = [*s.plane, *s.bump, *s.wave, *k.mapping, *k.tint, k.contrast, k.level, k.grain]
        row += [k.grain_scale, light_x, light_y, k.blotches, *k.shine, *k.mirror]
        rows.append([*row, float(k.texture)])
    return torch.tensor(rows, dtype=torch.float32).t().contiguous().to(device)


def _colours(
    table: Tensor,
    atlas: Atlas,
    layer: Tensor,
    x: Tensor,
    y: Tensor,
    column: Tensor,
    *,
    right: bool,
) -> Tensor:
    """Return (P, 3) linear colours of layers at left positions x, y, seen in a view's column."""
    p = iter(table.index_select(1, layer))
    a, b, c = next(p), next(p), next(p)
    bump_x, bump_y, bump_u, bump_v, bump_height = (next(p) for _ in range(5))
    wave_x, wave_y, wave_phase, wave_height = (next(p) for _ in range(4))
    s0, s1, s2, t0, t1, t2 = (next(p) for _ in range(6))
    tint = torch.stack([next(p), next(p), next(p)], dim=1)
    contrast, level, grain, grain_scale = (next(p) for _ in range(4))
    light_x, light_y, blotches = (next(p) for _ in range(3))
    shine_x, shine_y, shine_inverse, shine_strength, shine_shift = (next(p) for _ in range(5))
    mirror_texture, mirror, mirror_disparity, mirror_scale = (next(p) for _ in range(4))
    texture = next(p).long()

    # Disparity, and its slope over the plane's, which makes the shading.
    u, v = (x - bump_x) * bump_u, (y - bump_y) * bump_v
    root = (1.0 - ROUND * (u * u + v * v).clamp(max=1.0)).sqrt()
    cycles = x * wave_x + y * wave_y + wave_phase
    ramp = (cycles - cycles.floor()) * 2.0 - 1.0
    d = a * x + b * y + c + bump_height * root + wave_height * smooth_wave(cycles)
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
    fade = (1.5 - step.sqrt() * grain_scale * 2.0).clamp(0.0, 1.0) * grain
    light = 1.0 + fade * (sample_noise(atlas.noise, s * grain_scale, t * grain_scale) - 0.5) * 2.0
    soft = sample_noise(atlas.noise, x * 0.012 + d * 0.03, y * 0.012 + d * 0.02)
    light = light * (1.0 - blotches * ((soft - 0.5) * 3.0).clamp(0.0, 1.0) * 0.8)
    light = light * (1.0 + LIGHT_GAIN * (slope_x * light_x + slope_y * light_y)).clamp(0.15, 2.0)
    colour = albedo * albedo * (light[:, None] * tint)

    # Highlights move over the surface with the viewer.
    centre = shine_x + shine_shift if right else shine_x
    off = ((x - centre) * shine_inverse) ** 2 + ((y - shine_y) * shine_inverse) ** 2
    lobe = (1.0 - off).clamp(min=0.0)
    colour = colour + (shine_strength * lobe * lobe)[:, None]

    # A mirrored picture has its own disparity, the same whatever the surface's.
    glossy = mirror.nonzero()[:, 0]
    if len(glossy):
        behind = column + mirror_disparity if right else column
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
