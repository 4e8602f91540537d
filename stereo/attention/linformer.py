"""Linformer (Wang et al., 2020): keys and values projected to a fixed length.

softmax(Q (E K)^T / sqrt(K)) (F V) with E and F of k rows. The original's E and F have one column
per position, so its length is fixed. Here keys and values are first averaged into a fixed grid of
cells (adaptive pooling) and E and F act on that grid, so that any size works; this is a change.
O(N k V) time.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.attention.exact import MAP_ELEMENTS, in_slices, softmax_attention
from stereo.attention.reference import softmax_map
from stereo.attention.volume import (
    Size,
    VolumeAttention,
    check_counts,
    check_size,
    drawn,
    to_tokens,
    to_volume,
)


class LinformerAttention(VolumeAttention):
    """Attention to a fixed number of projected keys.

    Args:
        channels: C of the volume.
        grid: cells (D, H, W) that keys and values are averaged into.
        projected: number k of projected keys; as many as cells by default.
        map_elements: entries of the map that may exist at once.
        options: see ``VolumeAttention``.
    """

    def __init__(
        self,
        channels: int,
        *,
        grid: Size = (4, 8, 8),
        projected: int | None = None,
        map_elements: int = MAP_ELEMENTS,
        **options: Any,
    ) -> None:
        super().__init__(channels, **options)
        self.grid = check_size("grid", grid)
        self.map_elements = map_elements
        count = math.prod(self.grid)
        projected = count if projected is None else projected
        check_counts(projected=projected, map_elements=map_elements)
        spread = 1 / math.sqrt(count)
        self.key_projection = drawn(projected, count, scale=spread)
        self.value_projection = drawn(projected, count, scale=spread)

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        keys = self.key_projection.to(keys.dtype) @ self._averaged(keys, key_mask, size)
        values = self.value_projection.to(values.dtype) @ self._averaged(values, key_mask, size)

        def attend_slice(some_queries: Tensor) -> Tensor:
            return softmax_attention(some_queries, keys, values)

        each = queries.shape[0] * queries.shape[1] * keys.shape[2]
        return in_slices(attend_slice, queries, dim=2, elements_each=each, limit=self.map_elements)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        averaging = self._averaging_matrix(size, queries)  # (cells, N)
        share = averaging if key_mask is None else averaging * key_mask[:, :, :, 0][:, :, None]
        share = share / share.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        keys = self.key_projection.to(keys.dtype) @ (share @ keys)
        values = self.value_projection.to(values.dtype) @ (share @ values)
        logits = queries @ keys.transpose(2, 3) / math.sqrt(self.key_width)
        return softmax_map(logits, None) @ values

    def _averaged(self, tokens: Tensor, key_mask: Tensor | None, size: Size) -> Tensor:
        """Average (B, heads, N, dim) tokens into the grid; a cell without any key is zero."""
        pool = _pool_by_matrices if torch.compiler.is_exporting() else F.adaptive_avg_pool3d
        if key_mask is None:
            return to_tokens(pool(to_volume(tokens, size), self.grid), self.heads)
        kept = to_volume(key_mask.to(tokens.dtype), size)
        share = to_tokens(pool(kept, self.grid), 1)
        total = to_volume(torch.where(key_mask, tokens, 0), size)
        total = to_tokens(pool(total, self.grid), self.heads)
        return torch.where(share > 0, total / torch.where(share > 0, share, 1), 0)

    def _averaging_matrix(self, size: Size, like: Tensor) -> Tensor:  # (cells, N)
        axes = []
        for extent, count in zip(size, self.grid, strict=True):
            rows = torch.zeros(count, extent, dtype=like.dtype, device=like.device)
            for i in range(count):
                rows[i, i * extent // count : -(-(i + 1) * extent // count)] = 1
            axes.append(rows)
        return torch.einsum("ad,bh,cw->abcdhw", *axes).reshape(math.prod(self.grid), -1)


def _pool_by_matrices(volume: Tensor, grid: Size) -> Tensor:  # (B, C, D, H, W) -> (B, C, *grid)
    """As ``adaptive_avg_pool3d``, for sizes that a trace leaves open."""
    for axis, count in zip((2, 3, 4), grid, strict=True):
        extent = volume.shape[axis]
        edges = torch.arange(count + 1, device=volume.device) * extent
        first, last = edges[:-1] // count, (edges[1:] + count - 1) // count
        at = torch.arange(extent, device=volume.device)[:, None]
        inside = ((at >= first) & (at < last)).to(volume.dtype)  # (extent, count)
        volume = (volume.movedim(axis, -1) @ (inside / inside.sum(dim=0))).movedim(-1, axis)
    return volume
