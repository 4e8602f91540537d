"""Procedural textures of many statistics: clouds, wood, bricks, print, repeated patterns."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stereo.data.synthetic.dice import Dice
from stereo.data.synthetic.noise import clouds, doubled


def _painted(dice: Dice, share: Tensor) -> Tensor:
    """Colour a (S, S) share of 0..1 with two or three colours, as (3, S, S)."""
    first, second, third = (_hue(dice)[:, None, None] for _ in range(3))
    if dice.chance(0.5):
        return first + (second - first) * share
    low, high = (share * 2.0).clamp(max=1.0), (share * 2.0 - 1.0).clamp(min=0.0)
    return first + (second - first) * low + (third - second) * high


def _hue(dice: Dice) -> Tensor:
    """Return one colour (3,) in 0..1, more often dull than bright."""
    grey, strength = dice.uniform(0.05, 0.95), dice.uniform() ** 1.5 * 1.1
    return (grey + strength * (dice.field(3) - 0.5)).clamp(0.02, 0.98)


def _axes(size: int, dice: Dice) -> tuple[Tensor, Tensor]:
    """Return turned coordinates (S, S) over a texture, texels."""
    x, y = torch.arange(size).float()[None], torch.arange(size).float()[:, None]
    cos, sin = dice.direction() if dice.chance(0.5) else (1.0, 0.0)
    return x * cos + y * sin, y * cos - x * sin


def _folded(u: Tensor) -> Tensor:
    return (u - u.floor() - 0.5).abs() * 2.0


def _clouds(dice: Dice, size: int) -> Tensor:
    fade, coarsest = dice.uniform(0.45, 0.95), 2 ** dice.whole(1, 5)
    if dice.chance(0.3):
        return clouds(dice, size, 3, coarsest, fade)
    return _painted(dice, clouds(dice, size, 1, coarsest, fade)[0])


def _stripes(dice: Dice, size: int) -> Tensor:
    u, v = _axes(size, dice)
    period = dice.log_uniform(5, 60)
    sharp = dice.log_uniform(1.2, period / 2 + 1)
    share = (0.5 + (_folded(u / period) - dice.uniform(0.3, 0.7)) * sharp).clamp(0, 1)
    if dice.chance(0.3):  # plaid
        share = (share + (0.5 + (_folded(v / period) - 0.5) * sharp).clamp(0, 1)) / 2
    return _painted(dice, share)


def _wood(dice: Dice, size: int) -> Tensor:
    u, _ = _axes(size, dice)
    warp = clouds(dice, size, 1, 2 ** dice.whole(1, 3), dice.uniform(0.4, 0.7))[0]
    share = _folded(u * dice.log_uniform(0.01, 0.1) + warp * dice.uniform(1, 8))
    return _painted(dice, share)


def _checks(dice: Dice, size: int) -> Tensor:
    u, v = _axes(size, dice)
    cell = dice.log_uniform(4, 50)
    odd = ((u / cell).floor() + (v / cell).floor()) * 0.5
    return _painted(dice, (odd - odd.floor()) * 2.0)


def _bricks(dice: Dice, size: int) -> Tensor:
    u, v = _axes(size, dice)
    tall = dice.log_uniform(8, 40)
    wide = tall * dice.uniform(1.0, 8.0)
    row = (v / tall).floor()
    over = u / wide + row * dice.pick([0.0, 0.5, 0.37])
    gap = dice.uniform(1.0, 3.0)
    joint = (_folded(over) > 1 - 2 * gap / wide) | (_folded(v / tall) > 1 - 2 * gap / tall)
    tones = dice.field(64, 64)
    tone = tones[row.long() & 63, over.floor().long() & 63] * dice.uniform(0.1, 0.7)
    return _painted(dice, torch.where(joint, 1.0, tone))


def _dots(dice: Dice, size: int) -> Tensor:
    u, v = _axes(size, dice)
    cell = dice.log_uniform(6, 40)
    radius = (_folded(u / cell) ** 2 + _folded(v / cell) ** 2).sqrt()
    return _painted(dice, (0.5 + (dice.uniform(0.3, 0.9) - radius) * cell / 2).clamp(0, 1))


def _text(dice: Dice, size: int) -> Tensor:
    pixel = 2 ** dice.whole(0, 2)
    cells = size // pixel
    ink = (dice.field(cells, cells) < 0.55).float()
    rows, columns = torch.arange(cells) % dice.pick([7, 8, 10]), torch.arange(cells) % 5
    ink *= (rows < 5).float()[:, None] * (columns < 4).float()[None]
    words = dice.field(cells // 5 + 1, cells // 5 + 1) < 0.8
    lines = torch.arange(cells) // 7 % words.shape[0]
    ink *= words[lines][:, torch.arange(cells) // 5].float()
    ink = ink.repeat_interleave(pixel, 0).repeat_interleave(pixel, 1)
    return _painted(dice, ink)


def _blocks(dice: Dice, size: int) -> Tensor:
    total = torch.zeros(3, size, size)
    for _ in range(dice.whole(1, 3)):
        cells = 2 ** dice.whole(1, 6)
        grid = dice.field(1, 3, cells, cells)
        layer = F.interpolate(grid, size=(size, size), mode="nearest")[0]
        mask = F.interpolate(dice.field(1, 1, cells, cells), size=(size, size), mode="nearest")[0]
        total = torch.where(mask < 0.7, layer, total)
    return total


def _pebbles(dice: Dice, size: int) -> Tensor:
    field = clouds(dice, size, 1, 2 ** dice.whole(2, 5), dice.uniform(0.3, 0.6))[0]
    steps = dice.whole(2, 7)
    return _painted(dice, ((field * steps).floor() / (steps - 1)).clamp(0, 1))


def _speckle(dice: Dice, size: int) -> Tensor:
    enlarged = dice.whole(0, 2)
    field = dice.field(1, size >> enlarged, size >> enlarged)
    for _ in range(enlarged):
        field = doubled(field)
    level = dice.uniform(0.5, 0.95)
    return _painted(dice, ((field[0] - level) * dice.uniform(2, 8) + 0.5).clamp(0, 1))


def _flat(dice: Dice, size: int) -> Tensor:
    field = clouds(dice, size, 1, 2, 0.6)[0]
    colour = _hue(dice)[:, None, None]
    return (colour + (field - 0.5) * dice.uniform(0.0, 0.12)).clamp(0, 1)


PAINTERS: dict[Callable[[Dice, int], Tensor], float] = {
    _clouds: 5,
    _wood: 2,
    _pebbles: 2,
    _speckle: 1.5,
    _bricks: 1.5,
    _stripes: 1.2,
    _checks: 0.8,
    _dots: 0.8,
    _text: 1.2,
    _blocks: 1.2,
    _flat: 2.5,
}
REPEATED = (_stripes, _checks, _dots, _bricks)


def paint(dice: Dice, size: int, *, repeated: bool = False) -> Tensor:
    """Return a procedural texture (3, size, size) in 0..1.

    Args:
        dice: the source of chance.
        size: side, a power of two, texels.
        repeated: a strictly periodic one, the same every period.
    """
    if repeated:
        return dice.pick(REPEATED)(dice, size)
    picture = dice.weighted(PAINTERS)(dice, size)
    if dice.chance(0.5):  # weathered
        wear = clouds(dice, size, 1, 2 ** dice.whole(1, 6), dice.uniform(0.6, 0.95))
        picture = picture * (1.0 + (wear - 0.5) * dice.uniform(0.2, 1.2))
    return picture.clamp(0, 1)
