"""Estimate the memory of a match before it runs."""

from typing import NamedTuple

import torch

from stereo.attention import ATTENTIONS
from stereo.matching.tiles import CONTEXT, MIN_TILE
from stereo.models.config import NO_ATTENTION, SPARE, STRIDE, NetworkConfig


class _Rates(NamedTuple):
    """Upper bounds of peak memory in float32.

    Attributes:
        fixed: bytes, whatever the size.
        pixel: bytes per pixel, for the features.
        cell: bytes per pixel and disparity, for the volumes.
    """

    fixed: int
    pixel: float
    cell: float


# From measured peaks, rounded up; held by tests/matching/test_engine.py.
_PSMNET = _Rates(2**28, 400, 7.0)
_FAST = _Rates(3 * 2**26, 360, 0.6)
_RATES = {
    "psmnet": _PSMNET,
    "psmnet_basic": _PSMNET,
    "ea_psmnet": _PSMNET,
    "ea_stereo_fast": _FAST,
    "ea_stereo": _Rates(3 * 2**26, 500, 0.6),
}
_HALF_SHARE = 0.7  # of the float32 memory, in bf16 and fp16
_ATTENTION_VOLUMES = 12  # of its site, for attention that does not stream
_SITE_BYTES = {  # of one float32 volume, per pixel and disparity
    "quarter": 32 * 4 / 4**3,
    "eighth": 64 * 4 / 8**3,
    "sixteenth": 64 * 4 / 16**3,
}


def bytes_needed(
    config: NetworkConfig,
    batch: int,
    size: tuple[int, int],
    max_disparity: int,
    dtype: torch.dtype,
    tile: int | None = None,
) -> int:
    """Estimate the peak memory of a match, excluding the weights.

    Args:
        config: the network.
        batch: pairs.
        size: height and width in pixels.
        max_disparity: pixels.
        dtype: of autocast.
        tile: height and width of a tile in pixels; None to match the whole image.
    """
    fixed, pixel, cell = _RATES[config.name]
    height, width = size
    if tile is not None:
        height = min(height, tile + 2 * CONTEXT)
        width = min(width, tile + 2 * CONTEXT + max_disparity)
    for site in _sites_held_whole(config):
        cell += _ATTENTION_VOLUMES * _SITE_BYTES[site]
    needed = batch * (pixel * size[0] * size[1] + cell * (max_disparity + SPARE) * height * width)
    return int(fixed + needed * (1 if dtype is torch.float32 else _HALF_SHARE))


def largest_tile(
    config: NetworkConfig,
    batch: int,  # pairs
    size: tuple[int, int],  # height and width in pixels
    max_disparity: int,  # pixels
    dtype: torch.dtype,  # of autocast
    free: int,  # bytes
) -> int:
    """Return the largest tile with which a match fits, or the smallest tile."""
    sizes = range(max(size) // STRIDE * STRIDE, MIN_TILE, -STRIDE)
    fitting = (
        tile
        for tile in sizes
        if bytes_needed(config, batch, size, max_disparity, dtype, tile) <= free
    )
    return next(fitting, MIN_TILE)


def _sites_held_whole(config: NetworkConfig) -> tuple[str, ...]:
    """Return the sites of attention that needs memory for all positions at once."""
    attention = config.attention
    if attention is None or attention.name == NO_ATTENTION:
        return ()
    streams = ATTENTIONS[attention.name].streams_with(**attention.options)
    return () if streams else attention.sites or ()
