"""Noise: white, smooth and in octaves, in arithmetic that is alike on every processor."""

import math

import numpy as np
import torch
from torch import Tensor

from stereo.data.synthetic.rng import SceneRng

NOISE_CELLS = 64  # along a side of smooth noise, after which it repeats
NOISE_DENSITY = 8  # its samples per cell


def white_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return nearly normal noise of mean 0 and deviation 1, a hash of each element's place.

    Args:
        shape: of the result, fewer than 2^31 elements.
        seed: a whole number of 0 or more.

    Returns:
        float32 of that shape, within +-3.5.
    """
    count = math.prod(shape)
    h = torch.arange(count, dtype=torch.int32)
    h += _signed(SceneRng(seed).word() & 0xFFFFFFFF)
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        h ^= (h >> shift) & (2 ** (32 - shift) - 1)
        h *= factor
    h ^= (h >> 15) & (2**17 - 1)
    # The sum of four bytes: mean 510, variance 4 (256^2 - 1) / 12.
    total = (h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + ((h >> 24) & 255)
    return ((total.float() - 510.0) / 147.8).reshape(shape)


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


def smooth_noise(rng: SceneRng) -> Tensor:
    """Return periodic noise, (S, S) in 0..1, with ``NOISE_DENSITY`` samples per cell."""
    field, density = rng.field(1, NOISE_CELLS, NOISE_CELLS), 1
    while density < NOISE_DENSITY:
        field, density = doubled(field, wrap=True), density * 2
    return ((field[0] - 0.5) * 1.5 + 0.5).clamp(0.0, 1.0)


def sample_noise(noise: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """Return periodic noise between its samples.

    Args:
        noise: (S, S) float32, S a power of two, ``NOISE_DENSITY`` samples per cell.
        s: columns, cells.
        t: rows, cells.

    Returns:
        float32 of the shape of ``s``.
    """
    size = noise.shape[0]
    s, t = s * NOISE_DENSITY, t * NOISE_DENSITY
    i, j = s.floor(), t.floor()
    f, g = s - i, t - j
    i0, j0 = i.int() & (size - 1), (j.int() & (size - 1)) * size
    i1, j1 = (i0 + 1) & (size - 1), (j0 + size) & (size * size - 1)
    flat = noise.view(-1)

    def at(place: Tensor) -> Tensor:
        return flat.index_select(0, place.reshape(-1)).view(place.shape)

    low, high = at(j0 + i0), at(j1 + i0)
    low = low + (at(j0 + i1) - low) * f
    high = high + (at(j1 + i1) - high) * f
    return low + (high - low) * g


def square_root(x: Tensor) -> Tensor:
    """Return the correctly rounded root; PyTorch's own, by MKL, depends on the processor."""
    return torch.from_numpy(np.sqrt(x.numpy()))


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


def clouds(rng: SceneRng, size: int, channels: int, coarsest: int, fade: float) -> Tensor:
    """Return octaves of smooth noise, (channels, size, size), mean about 0.5.

    Args:
        rng: the source of chance.
        size: side, pixels.
        channels: how many independent ones.
        coarsest: cells along a side in the first octave.
        fade: loudness of each octave relative to the one before.
    """
    # Each doubling smooths what is there already, so coarse octaves lose their lattice.
    cells, loudness = min(coarsest, size), 1.0
    total = rng.field(channels, cells, cells) - 0.5
    while cells < size:
        cells, loudness = cells * 2, loudness * fade
        total = doubled(total) + (rng.field(channels, cells, cells) - 0.5) * loudness
    return (0.5 + total * (1.1 if fade < 0.75 else 0.8)).clamp(0, 1)
