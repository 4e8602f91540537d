"""Textures: pictures painted from noise or cut from photographs, as pyramids in one table."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stereo.data.images import IMAGE_SUFFIXES, read_image
from stereo.data.synthetic.dice import Dice
from stereo.data.synthetic.surface import NOISE_DENSITY
from stereo.errors import InputError

LARGEST_PHOTOGRAPH = 1024  # longer sides are reduced to it on reading, pixels
NOISE_CELLS = 64


@dataclass(frozen=True)
class Atlas:
    """The textures of a scene.

    Attributes:
        texels: (N, 3) float32 in 0..1, all levels of all textures one after the other.
        starts: (T,) int64, first texel of each texture.
        octaves: (T,) int32, log2 of each texture's side.
        levels: (11, 11) int64, where level l of a texture with octave n starts.
        noise: (S, S) float32 smooth periodic noise in 0..1, ``NOISE_DENSITY`` samples per
            cell.
    """

    texels: Tensor
    starts: Tensor
    octaves: Tensor
    levels: Tensor
    noise: Tensor

    def colour(self, texture: Tensor, level: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Return textures at points, bilinear within one level, mirrored beyond the rim.

        Args:
            texture: (P,) int64, which.
            level: (P,) int32, of the pyramid; clamped to those there are.
            s: (P,) float32, columns in texels of level 0.
            t: (P,) float32, rows in texels of level 0.

        Returns:
            (P, 3) float32 in 0..1.
        """
        octave = self.octaves.index_select(0, texture)
        level = torch.minimum(level.clamp(min=0), octave - 1)
        shift = octave - level
        side = torch.ones_like(shift) << shift
        # 2^-level, written as the exponent of a float.
        scale = ((127 - level) << 23).view(torch.float32)
        s, t = s * scale - 0.5, t * scale - 0.5
        i, j = s.floor(), t.floor()
        f, g = (s - i)[:, None], (t - j)[:, None]
        i, j = i.int(), j.int()
        start = self.starts.index_select(0, texture)
        start = start + self.levels.view(-1).index_select(0, octave * 11 + level)
        left, right = _mirrored(i, side), _mirrored(i + 1, side)
        upper = start + (_mirrored(j, side) << shift)
        lower = start + (_mirrored(j + 1, side) << shift)
        high = F.embedding(upper + left, self.texels)
        high = high + (F.embedding(upper + right, self.texels) - high) * f
        low = F.embedding(lower + left, self.texels)
        low = low + (F.embedding(lower + right, self.texels) - low) * f
        return high + (low - high) * g


def _mirrored(index: Tensor, side: Tensor) -> Tensor:
    """Fold whole numbers into 0..side-1, side a power of two, by reflection."""
    folded = index & (2 * side - 1)
    return torch.minimum(folded, 2 * side - 1 - folded)


def make_atlas(pictures: list[Tensor], dice: Dice, device: torch.device) -> Atlas:
    """Build the pyramids of (3, S, S) pictures, S a power of two up to 1024."""
    texels, starts, octaves, total = [], [], [], 0
    for picture in pictures:
        starts.append(total)
        octaves.append(picture.shape[1].bit_length() - 1)
        level = picture.to(device)[None]
        while True:
            texels.append(level[0].reshape(3, -1).t())
            total += texels[-1].shape[0]
            if level.shape[2] == 1:
                break
            rows = level[:, :, 0::2] + level[:, :, 1::2]
            level = (rows[..., 0::2] + rows[..., 1::2]) * 0.25
    table = torch.zeros(11, 11, dtype=torch.int64)
    for n in range(11):
        for k in range(n):
            table[n, k + 1] = table[n, k] + 4 ** (n - k)
    return Atlas(
        torch.cat(texels).contiguous(),
        torch.tensor(starts, device=device),
        torch.tensor(octaves, dtype=torch.int32, device=device),
        table.to(device),
        _smooth_noise(dice).to(device),
    )


def _smooth_noise(dice: Dice) -> Tensor:
    """Return periodic noise, (S, S) in 0..1, with ``NOISE_DENSITY`` samples per cell."""
    field, density = dice.field(1, NOISE_CELLS, NOISE_CELLS), 1
    while density < NOISE_DENSITY:
        field, density = doubled(field, wrap=True), density * 2
    return ((field[0] - 0.5) * 1.5 + 0.5).clamp(0.0, 1.0)


def doubled(field: Tensor, *, wrap: bool = False) -> Tensor:
    """Enlarge (C, S, S) to (C, 2 S, 2 S), linear between samples.

    It is torch's bilinear interpolation in plain sums and products, which are alike bit for bit
    whatever instructions a processor has.

    Args:
        field: what to enlarge.
        wrap: whether the first sample follows the last; otherwise the rim is repeated.
    """
    for dim in (1, 2):
        size = field.shape[dim]
        first, last = (0, size - 1) if not wrap else (size - 1, 0)
        before = torch.cat([field.narrow(dim, first, 1), field.narrow(dim, 0, size - 1)], dim)
        after = torch.cat([field.narrow(dim, 1, size - 1), field.narrow(dim, last, 1)], dim)
        most = field * 0.75
        field = torch.stack([most + before * 0.25, most + after * 0.25], dim + 1).flatten(
            dim, dim + 1
        )
    return field


def clouds(dice: Dice, size: int, channels: int, coarsest: int, fade: float) -> Tensor:
    """Return octaves of smooth noise, (channels, size, size), mean about 0.5.

    Args:
        dice: the source of chance.
        size: side, pixels.
        channels: how many independent ones.
        coarsest: cells along a side in the first octave.
        fade: loudness of each octave relative to the one before.
    """
    # Each doubling smooths what is there already, so coarse octaves lose their lattice.
    cells, loudness = min(coarsest, size), 1.0
    total = dice.field(channels, cells, cells) - 0.5
    while cells < size:
        cells, loudness = cells * 2, loudness * fade
        total = doubled(total) + (dice.field(channels, cells, cells) - 0.5) * loudness
    return (0.5 + total * (1.1 if fade < 0.75 else 0.8)).clamp(0, 1)


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


def find_photographs(folder: str) -> list[Path]:
    """Return the pictures below a folder in a fixed order.

    Raises:
        InputError: there is no such folder, or no picture in it, or one that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --textures names a folder of pictures")
    found = sorted(
        (p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()),
        key=lambda p: p.relative_to(root).as_posix(),
    )
    if not found:
        raise InputError(f"{root}: holds no pictures; --textures names a folder of pictures")
    for path in found:
        _check_opens(path)
    return found


def _check_opens(path: Path) -> None:
    try:
        with Image.open(path):
            return  # the header is enough here: what is damaged further on is named when it is read
    except Exception:  # a damaged file can raise nearly anything; the reader words the error
        read_image(path)


@lru_cache(maxsize=48)
def _photograph(path: Path) -> Image.Image:
    image = Image.fromarray(read_image(path))
    image.thumbnail((LARGEST_PHOTOGRAPH, LARGEST_PHOTOGRAPH), Image.Resampling.BOX)
    return image


def cut(dice: Dice, path: Path, size: int) -> Tensor:
    """Return a random square window of a photograph, (3, size, size) in 0..1."""
    image = _photograph(path)
    short = min(image.size)
    side = max(1, int(dice.uniform(min(0.3, size / short), 1.0) * short))
    left = dice.whole(0, image.width - side)
    top = dice.whole(0, image.height - side)
    window = image.resize(
        (size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
    )
    if dice.chance(0.5):
        window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(window)).permute(2, 0, 1).float() / 255.0
