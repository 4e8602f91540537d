"""Procedural textures of many statistics: clouds, wood, bricks, print, repeated patterns."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stereo.data.synthetic.noise import clouds, doubled, square_root
from stereo.data.synthetic.rng import SceneRng


def _painted(rng: SceneRng, share: Tensor) -> Tensor:
    """Colour a (S, S) share of 0..1 with two or three colours, as (3, S, S)."""
    first, second, third = (_hue(rng)[:, None, None] for _ in range(3))
    if rng.chance(0.5):
        return first + (second - first) * share
    low, high = (share * 2.0).clamp(max=1.0), (share * 2.0 - 1.0).clamp(min=0.0)
    return first + (second - first) * low + (third - second) * high


def _hue(rng: SceneRng) -> Tensor:
    """Return one colour (3,) in 0..1, more often dull than bright."""
    grey, strength = rng.uniform(0.05, 0.95), rng.uniform() ** 1.5 * 1.1
    return (grey + strength * (rng.field(3) - 0.5)).clamp(0.02, 0.98)


def _axes(size: int, rng: SceneRng) -> tuple[Tensor, Tensor]:
    """Return turned coordinates (S, S) over a texture, texels."""
    x, y = torch.arange(size).float()[None], torch.arange(size).float()[:, None]
    cos, sin = rng.direction() if rng.chance(0.5) else (1.0, 0.0)
    return x * cos + y * sin, y * cos - x * sin


def _folded(u: Tensor) -> Tensor:
    return (u - u.floor() - 0.5).abs() * 2.0


def _clouds(rng: SceneRng, size: int) -> Tensor:
    fade, coarsest = rng.uniform(0.45, 0.95), 2 ** rng.whole(1, 5)
    if rng.chance(0.3):
        return clouds(rng, size, 3, coarsest, fade)
    return _painted(rng, clouds(rng, size, 1, coarsest, fade)[0])


def _stripes(rng: SceneRng, size: int) -> Tensor:
    u, v = _axes(size, rng)
    period = rng.log_uniform(5, 60)
    sharp = rng.log_uniform(1.2, period / 2 + 1)
    share = (0.5 + (_folded(u / period) - rng.uniform(0.3, 0.7)) * sharp).clamp(0, 1)
    if rng.chance(0.3):  # plaid
        share = (share + (0.5 + (_folded(v / period) - 0.5) * sharp).clamp(0, 1)) / 2
    return _painted(rng, share)


def _wood(rng: SceneRng, size: int) -> Tensor:
    u, _ = _axes(size, rng)
    warp = clouds(rng, size, 1, 2 ** rng.whole(1, 3), rng.uniform(0.4, 0.7))[0]
    share = _folded(u * rng.log_uniform(0.01, 0.1) + warp * rng.uniform(1, 8))
    return _painted(rng, share)


def _checks(rng: SceneRng, size: int) -> Tensor:
    u, v = _axes(size, rng)
    cell = rng.log_uniform(4, 50)
    odd = ((u / cell).floor() + (v / cell).floor()) * 0.5
    return _painted(rng, (odd - odd.floor()) * 2.0)


def _bricks(rng: SceneRng, size: int) -> Tensor:
    u, v = _axes(size, rng)
    tall = rng.log_uniform(8, 40)
    wide = tall * rng.uniform(1.0, 8.0)
    row = (v / tall).floor()
    over = u / wide + row * rng.pick([0.0, 0.5, 0.37])
    gap = rng.uniform(1.0, 3.0)
    joint = (_folded(over) > 1 - 2 * gap / wide) | (_folded(v / tall) > 1 - 2 * gap / tall)
    tones = rng.field(64, 64)
    tone = tones[row.long() & 63, over.floor().long() & 63] * rng.uniform(0.1, 0.7)
    return _painted(rng, torch.where(joint, 1.0, tone))


def _dots(rng: SceneRng, size: int) -> Tensor:
    u, v = _axes(size, rng)
    cell = rng.log_uniform(6, 40)
    radius = square_root(_folded(u / cell) ** 2 + _folded(v / cell) ** 2)
    return _painted(rng, (0.5 + (rng.uniform(0.3, 0.9) - radius) * cell / 2).clamp(0, 1))


def _print(rng: SceneRng, size: int) -> Tensor:
    u, v = _axes(size, rng)
    across, down = rng.log_uniform(6, 50), rng.log_uniform(6, 50)
    row = (v / down).floor()
    over = u / across + row * rng.pick([0.0, 0.5])
    motif = rng.field(16, 16)
    cells = rng.whole(3, 16)
    i, j = ((over - over.floor()) * cells).long(), ((v / down - row) * cells).long()
    return _painted(rng, motif[j.clamp(max=15), i.clamp(max=15)])


def _text(rng: SceneRng, size: int) -> Tensor:
    pixel = 2 ** rng.whole(0, 2)
    cells = size // pixel
    ink = (rng.field(cells, cells) < 0.55).float()
    rows, columns = torch.arange(cells) % rng.pick([7, 8, 10]), torch.arange(cells) % 5
    ink *= (rows < 5).float()[:, None] * (columns < 4).float()[None]
    words = rng.field(cells // 5 + 1, cells // 5 + 1) < 0.8
    lines = torch.arange(cells) // 7 % words.shape[0]
    ink *= words[lines][:, torch.arange(cells) // 5].float()
    ink = ink.repeat_interleave(pixel, 0).repeat_interleave(pixel, 1)
    return _painted(rng, ink)


def _blocks(rng: SceneRng, size: int) -> Tensor:
    total = torch.zeros(3, size, size)
    for _ in range(rng.whole(1, 3)):
        cells = 2 ** rng.whole(1, 6)
        grid = rng.field(1, 3, cells, cells)
        layer = F.interpolate(grid, size=(size, size), mode="nearest")[0]
        mask = F.interpolate(rng.field(1, 1, cells, cells), size=(size, size), mode="nearest")[0]
        total = torch.where(mask < 0.7, layer, total)
    return total


def _pebbles(rng: SceneRng, size: int) -> Tensor:
    field = clouds(rng, size, 1, 2 ** rng.whole(2, 5), rng.uniform(0.3, 0.6))[0]
    steps = rng.whole(2, 7)
    return _painted(rng, ((field * steps).floor() / (steps - 1)).clamp(0, 1))


def _speckle(rng: SceneRng, size: int) -> Tensor:
    enlarged = rng.whole(0, 2)
    field = rng.field(1, size >> enlarged, size >> enlarged)
    for _ in range(enlarged):
        field = doubled(field)
    level = rng.uniform(0.5, 0.95)
    return _painted(rng, ((field[0] - level) * rng.uniform(2, 8) + 0.5).clamp(0, 1))


def _flat(rng: SceneRng, size: int) -> Tensor:
    field = clouds(rng, size, 1, 2, 0.6)[0]
    colour = _hue(rng)[:, None, None]
    return (colour + (field - 0.5) * rng.uniform(0.0, 0.12)).clamp(0, 1)


PAINTERS: dict[Callable[[SceneRng, int], Tensor], float] = {
    _clouds: 5,
    _wood: 2,
    _pebbles: 2,
    _speckle: 1.5,
    _bricks: 1.5,
    _stripes: 1.2,
    _checks: 0.8,
    _dots: 0.8,
    _print: 1.5,
    _text: 1.2,
    _blocks: 1.2,
    _flat: 2.5,
}
REPEATED = (_stripes, _checks, _dots, _bricks, _print)


def paint(rng: SceneRng, size: int, *, repeated: bool = False) -> Tensor:
    """Return a procedural texture (3, size, size) in 0..1.

    Args:
        rng: the source of chance.
        size: side, a power of two, texels.
        repeated: a periodic one; half of them are weathered, as all textures are, so that what
            repeats can be told apart.
    """
    picture = rng.pick(REPEATED)(rng, size) if repeated else rng.weighted(PAINTERS)(rng, size)
    if rng.chance(0.5):  # weathered
        wear = clouds(rng, size, 1, 2 ** rng.whole(1, 6), rng.uniform(0.6, 0.95))
        picture = picture * (1.0 + (wear - 0.5) * rng.uniform(0.2, 1.2))
    return picture.clamp(0, 1)
