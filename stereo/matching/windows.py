"""Volumes in windows: any picture in bounded memory.

Features are computed once, of the whole picture, since pooling sees all of it. Volumes, their
aggregation and what follows are computed window by window; each window looks beyond its core by an
overlap, and further to the left by the largest disparity. Attention over the volume stays global:
its softmax statistics are accumulated over the cores of all windows in a separate pass.
"""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stereo.attention import VolumeAttention
from stereo.attention.volume import AttentionState, tile_hook
from stereo.models.certainty import CERTAINTIES
from stereo.models.config import STRIDE

SEAM = 32  # pixels over which one window fades into the next
OVERLAP = 192  # pixels that a window sees around its core: about what a cell of the volume sees
SMALLEST_CORE = 64


@dataclass(frozen=True)
class Span:
    """Pixels along one axis: the core a window answers for, and what it looks at around it."""

    first: int
    last: int
    outer_first: int
    outer_last: int

    def ramp(self, size: int) -> Tensor:
        """Return the window's weight over its outer pixels: 1, fading out across its seams."""
        at = torch.arange(self.outer_first, self.outer_last) + 0.5
        weight = torch.ones(len(at))
        if self.first > 0:
            weight = weight.minimum((at - self.first + SEAM / 2) / SEAM)
        if self.last < size:
            weight = weight.minimum((self.last - at + SEAM / 2) / SEAM)
        return weight.clamp(0, 1)


def spans(size: int, most: int, overlap: int, reach: int = 0, grid: int = STRIDE) -> list[Span]:
    """Cut an axis into cores of about one size.

    Args:
        size: pixels, a multiple of 16.
        most: the largest core.
        overlap: pixels that a window sees on either side of its core; at least half a seam.
        reach: further pixels before it.
        grid: of what windows begin at multiples, so that the coarsest cells of the network are the
            same ones in a window as in the whole.
    """
    count = 1 if most >= size else -(-size // max(most // grid * grid, grid))
    edges = [grid * round(size * i / count / grid) for i in range(count)] + [size]
    return [
        Span(a, b, max((a - overlap - reach) // grid * grid, 0), min(b + overlap, size))
        for a, b in itertools.pairwise(edges)
    ]


@torch.inference_mode()
def match_in_windows(
    network: nn.Module,
    left: Tensor,  # (B, 3, H, W)
    right: Tensor,  # (B, 3, H, W)
    most: tuple[int, int],
    overlap: int,
    max_disparity: int | None = None,
) -> Tensor:  # (B, 3, H, W)
    """As ``network.estimate``, window by window.

    Args:
        network: of ``stereo.models``, in evaluation mode.
        left: normalised; H and W are multiples of 16.
        right: the same.
        most: height and width of the largest core.
        overlap: pixels that a window sees around its core, a multiple of 16.
        max_disparity: pixels, a multiple of 16; None for the network's own.
    """
    height, width = left.shape[2:]
    grid: int = network.coarsest_factor  # type: ignore[assignment]
    reach: int = max_disparity or network.max_disparity  # type: ignore[assignment]
    rows = spans(height, most[0], overlap, grid=grid)
    columns = spans(width, most[1], overlap, reach, grid)
    windows = list(itertools.product(rows, columns))
    features = [network.extract(view) for view in (left, right)]  # type: ignore[operator]

    def match(row: Span, column: Span) -> Tensor:
        cut = [_cut(each, network.feature_factors, row, column) for each in features]  # type: ignore[arg-type]
        return network.estimate(*cut, reach)  # type: ignore[operator]

    hook = _TileHook()
    token = tile_hook.set(hook)
    try:
        for attention in network.modules():
            if not (isinstance(attention, VolumeAttention) and attention.streams):
                continue
            hook.accumulates = attention
            for hook.window in windows:
                with contextlib.suppress(_Accumulated):
                    match(*hook.window)
        hook.accumulates = None
        total = left.new_zeros(len(left), 1 + CERTAINTIES, height, width, dtype=torch.float32)
        weight = torch.zeros_like(total[:1, :1])
        for row, column in windows:
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
    """The attention has this window's statistics; the rest of the pass is not needed yet."""


class _TileHook:
    """Lets one attention after the other accumulate over all windows; earlier ones are applied.

    Attributes:
        window: the one being matched.
        accumulates: the attention whose turn it is; None after the last.
    """

    def __init__(self) -> None:
        self.window: tuple[Span, Span] | None = None
        self.accumulates: VolumeAttention | None = None
        self._states: dict[VolumeAttention, AttentionState] = {}

    def __call__(self, attention: VolumeAttention, volume: Tensor, mask: Tensor | None) -> Tensor:
        if attention is not self.accumulates:
            return attention.apply_context(volume, self._states[attention])
        core = self._core(volume)
        kept = core if mask is None else core & mask
        state = self._states.get(attention)
        self._states[attention] = attention.accumulate(volume, kept, state)
        raise _Accumulated

    def _core(self, volume: Tensor) -> Tensor:  # (B, 1, D, H, W) bool
        """Return which cells of a window's volume are of its core."""
        assert self.window is not None
        core = volume.new_zeros(volume.shape[0], 1, *volume.shape[2:], dtype=torch.bool)
        inside: list[slice] = []
        for span, cells in zip(self.window, volume.shape[3:], strict=True):
            factor = (span.outer_last - span.outer_first) // cells
            start = (span.first - span.outer_first) // factor
            inside.append(slice(start, start + (span.last - span.first) // factor))
        core[:, :, :, inside[0], inside[1]] = True
        return core


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
