"""The textures of a scene as pyramids in one table, and how they are looked up."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stereo.data.synthetic.noise import smooth_noise
from stereo.data.synthetic.rng import SceneRng


@dataclass(frozen=True, eq=False)
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


def make_atlas(pictures: list[Tensor], rng: SceneRng) -> Atlas:
    """Build the pyramids of (3, S, S) pictures, S a power of two up to 1024."""
    texels, starts, octaves, total = [], [], [], 0
    for picture in pictures:
        starts.append(total)
        octaves.append(picture.shape[1].bit_length() - 1)
        level = picture[None]
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
        torch.tensor(starts),
        torch.tensor(octaves, dtype=torch.int32),
        table,
        smooth_noise(rng),
    )
