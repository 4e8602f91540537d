"""Swin Transformer (Liu et al., ICCV 2021), in 3D: softmax attention inside shifted windows.

softmax(Q K^T / sqrt(K) + B) V in windows of M cells, B a learned bias by relative position. O(N M)
time. Instead of Swin's cyclic shift with a stored mask, the shifted grid of windows is laid over
the volume and cells outside are masked: the same result, computed for whatever size is at hand.
"""

from typing import Any

import torch
from torch import Tensor, nn

from stereo.attention.exact import MAP_ELEMENTS, MAX_SEQUENCES, in_slices, softmax_attention
from stereo.attention.reference import grid_positions, softmax_map
from stereo.attention.volume import (
    Size,
    VolumeAttention,
    check_counts,
    check_flags,
    check_size,
    clip_window,
    from_windows,
    to_windows,
)


class WindowAttention(VolumeAttention):
    """Attention inside 3D windows.

    Args:
        channels: C of the volume.
        window: cells (D, H, W) of a window; along an axis that is shorter, the whole axis.
        shift: move the grid of windows by half a window, as every second block of Swin does.
        map_elements: entries of the attention maps that may exist at once.
        options: see ``VolumeAttention``.
    """

    weights_sum_to_one = True
    mask_equals_removal = True

    def __init__(
        self,
        channels: int,
        *,
        window: Size = (4, 8, 8),
        shift: bool = True,
        map_elements: int = MAP_ELEMENTS,
        **options: Any,
    ) -> None:
        super().__init__(channels, **options)
        check_counts(map_elements=map_elements)
        check_flags(shift=shift)
        self.window = check_size("window", window)
        self.shift = shift
        self.map_elements = map_elements
        d, h, w = self.window
        self.bias = nn.Parameter(torch.zeros(self.heads, 2 * d - 1, 2 * h - 1, 2 * w - 1))
        nn.init.trunc_normal_(self.bias, std=0.02)

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        window, shift = clip_window(size, self.window, self.shift)
        positions = grid_positions(window, queries.device)
        bias = self._relative_bias(positions[:, None] - positions[None])
        return attend_in_windows(
            queries, keys, values, key_mask, size, window, shift, bias, self.map_elements
        )

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        same, offset = self._same_window(size, queries.device)
        bias = torch.where(same, self._relative_bias(offset * same[..., None]), -torch.inf)
        logits = queries @ keys.transpose(2, 3) / self.key_width**0.5 + bias
        return softmax_map(logits, key_mask) @ values

    def _same_window(self, size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return (N, N) bool, true within one window, and (N, N, 3) offsets i - j."""
        window, shift = clip_window(size, self.window, self.shift)
        positions = grid_positions(size, device)
        extent = torch.tensor(window, device=device)
        before = (extent - torch.tensor(shift, device=device)) % extent
        index = (positions + before) // extent  # (N, 3)
        same = (index[:, None] == index[None]).all(dim=2)
        return same, positions[:, None] - positions[None]

    def _relative_bias(self, offset: Tensor) -> Tensor:  # (M, M, 3) -> (heads, M, M)
        d, h, w = (offset + torch.tensor(self.window, device=offset.device) - 1).unbind(dim=-1)
        return self.bias[:, d, h, w]


def attend_in_windows(
    queries: Tensor,  # (B, heads, N, K)
    keys: Tensor,  # (B, heads, N, K)
    values: Tensor,  # (B, heads, N, V)
    key_mask: Tensor | None,  # (B, 1, N, 1) bool
    size: Size,
    window: Size,
    shift: Size,
    bias: Tensor | None,  # (heads, M, M)
    map_elements: int,
) -> Tensor:  # (B, heads, N, V)
    """Return scaled dot-product attention inside each window of the shifted grid."""
    if key_mask is None:
        key_mask = queries.new_ones(queries.shape[0], 1, queries.shape[2], 1, dtype=torch.bool)
    parts = [to_windows(t, size, window, shift) for t in (queries, keys, values)]
    inside = to_windows(key_mask.to(queries.dtype), size, window, shift) > 0

    def attend_some(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
        return softmax_attention(q, k, v, allowed, bias=bias)

    each = parts[0].shape[1] * parts[0].shape[2] ** 2
    attended = in_slices(
        attend_some,
        *parts,
        inside,
        dim=0,
        elements_each=each,
        limit=map_elements,
        longest=MAX_SEQUENCES,
    )
    return from_windows(attended, size, window, shift)
