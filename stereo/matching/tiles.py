"""Matching in tiles: any image size in bounded memory.

Features are computed once for the whole image, because pooling sees all of it. The volume and all
later stages are computed tile by tile, each with context on every side and, on the left, the
largest disparity in addition. Attention over the volume stays global: its softmax statistics are
accumulated over all tiles in a separate pass.
"""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stereo.attention import VolumeAttention
from stereo.attention.volume import AttentionState, tile_hook
from stereo.models.certainty import CERTAINTIES
from stereo.models.config import STRIDE
from stereo.models.network import StereoNetwork

SEAM = 32  # pixels over which one tile blends into the next
CONTEXT = 192  # pixels around a tile: about the receptive field of a cell of the volume
MIN_TILE = 64


@dataclass(frozen=True)
class Span:
    """A tile along one axis, and with its context (``outer``), pixels."""

    first: int
    last: int
    outer_first: int
    outer_last: int

    def ramp(self, size: int) -> Tensor:
        """Return the blending weight of the outer pixels: 1, fading out across the seams."""
        at = torch.arange(self.outer_first, self.outer_last) + 0.5
        weight = torch.ones(len(at))
        if self.first > 0:
            weight = weight.minimum((at - self.first + SEAM / 2) / SEAM)
        if self.last < size:
            weight = weight.minimum((self.last - at + SEAM / 2) / SEAM)
        return weight.clamp(0, 1)


def spans(size: int, max_tile: int, context: int, reach: int = 0, grid: int = STRIDE) -> list[Span]:
    """Cut an axis into tiles of about equal size.

    Args:
        size: pixels, a multiple of 16.
        max_tile: the largest tile, pixels.
        context: pixels on either side of a tile; at least half a seam.
        reach: further pixels before it.
        grid: tiles and their context start at multiples of it, so that the network's coarsest cells
            are the same in a tile as in the whole image.
    """
    count = 1 if max_tile >= size else -(-size // max(max_tile // grid * grid, grid))
    edges = [grid * round(size * i / count / grid) for i in range(count)] + [size]
    return [
        Span(a, b, max((a - context - reach) // grid * grid, 0), min(b + context, size))
        for a, b in itertools.pairwise(edges)
    ]


@torch.inference_mode()
def match_in_tiles(
    network: StereoNetwork,
    left: Tensor,  # (B, 3, H, W)
    right: Tensor,  # (B, 3, H, W)
    max_tile: tuple[int, int],
    context: int,
    max_disparity: int | None = None,
) -> Tensor:  # (B, 3, H, W)
    """As ``network.estimate``, tile by tile.

    Args:
        network: in evaluation mode.
        left: normalised; H and W are multiples of 16.
        right: the same.
        max_tile: height and width of the largest tile.
        context: pixels around a tile, a multiple of 16.
        max_disparity: pixels, a multiple of 16; None for the network's own.
    """
    height, width = left.shape[2:]
    grid = network.coarsest_factor
    reach = max_disparity or network.max_disparity
    rows = spans(height, max_tile[0], context, grid=grid)
    columns = spans(width, max_tile[1], context, reach, grid)
    tiles = list(itertools.product(rows, columns))
    features = [network.extract(view) for view in (left, right)]

    def match(row: Span, column: Span) -> Tensor:
        cut = [_cut(each, network.feature_factors, row, column) for each in features]
        return network.estimate(cut[0], cut[1], reach)

    hook = _TileHook()
    token = tile_hook.set(hook)
    try:
        for attention in network.modules():
            if not (isinstance(attention, VolumeAttention) and attention.streams):
                continue
            hook.accumulates = attention
            for hook.tile in tiles:
                with contextlib.suppress(_Accumulated):
                    match(*hook.tile)
        hook.accumulates = None
        total = left.new_zeros(len(left), 1 + CERTAINTIES, height, width, dtype=torch.float32)
        weight = torch.zeros_like(total[:1, :1])
        for row, column in tiles:
            own = row.ramp(height)[:, None] * column.ramp(width)
            own = own.to(total.device)
            seen = slice(row.outer_first, row.outer_last)
            inside = (..., seen, slice(column.outer_first, column.outer_last))
            total[inside] += own * match(row, column)
            weight[inside] += own
    finally:
        tile_hook.reset(token)
    return total / weight


class _Accumulated(Exception):
    """The attention has this tile's statistics; the rest of the pass is not needed yet."""


class _TileHook:
    """Lets one attention after the other accumulate over all tiles; earlier ones are applied.

    Attributes:
        tile: rows and columns of the one being matched.
        accumulates: the attention whose turn it is; None after the last.
    """

    def __init__(self) -> None:
        self.tile: tuple[Span, Span] | None = None
        self.accumulates: VolumeAttention | None = None
        self._states: dict[VolumeAttention, AttentionState] = {}

    def __call__(self, attention: VolumeAttention, volume: Tensor, mask: Tensor | None) -> Tensor:
        if attention is not self.accumulates:
            return attention.apply_context(volume, self._states[attention])
        inside = self._inside(volume)
        kept = inside if mask is None else inside & mask
        state = self._states.get(attention)
        self._states[attention] = attention.accumulate(volume, kept, state)
        raise _Accumulated

    def _inside(self, volume: Tensor) -> Tensor:  # (B, 1, D, H, W) bool
        """Return which cells of a volume belong to the tile, not to its context."""
        assert self.tile is not None
        inside = volume.new_zeros(volume.shape[0], 1, *volume.shape[2:], dtype=torch.bool)
        cut: list[slice] = []
        for span, cells in zip(self.tile, volume.shape[3:], strict=True):
            factor = (span.outer_last - span.outer_first) // cells
            start = (span.first - span.outer_first) // factor
            cut.append(slice(start, start + (span.last - span.first) // factor))
        inside[:, :, :, cut[0], cut[1]] = True
        return inside


def _cut(
    features: Sequence[Tensor], factors: Sequence[int], row: Span, column: Span
) -> list[Tensor]:
    return [
        each[
            :,
            :,
            row.outer_first // factor : row.outer_last // factor,
            column.outer_first // factor : column.outer_last // factor,
        ]
        for each, factor in zip(features, factors, strict=True)
    ]
