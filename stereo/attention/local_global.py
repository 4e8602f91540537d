"""Local heads beside linear heads (after lucidrains/linear-attention-transformer).

Some heads attend by softmax inside windows, the others by efficient attention over all positions
with queries divided by sqrt(K). O(N M + N K V) time for windows of M cells.
"""

from typing import Any

import torch
from torch import Tensor

from stereo.attention.exact import MAP_ELEMENTS
from stereo.attention.linearized import leave_out
from stereo.attention.reference import grid_positions, softmax_map
from stereo.attention.volume import Size, VolumeAttention, check_counts, check_size, clip_window
from stereo.attention.window import attend_in_windows


class LocalGlobalAttention(VolumeAttention):
    """Windowed softmax heads beside linear heads.

    Args:
        channels: C of the volume.
        heads: at least two.
        local_heads: how many of them are local; half by default.
        window: cells (D, H, W) of a window.
        map_elements: entries of the attention maps that may exist at once.
        options: see ``VolumeAttention``.

    Raises:
        ValueError: there is no local or no global head.
    """

    mask_equals_removal = True

    def __init__(
        self,
        channels: int,
        key_channels: int | None = None,
        value_channels: int | None = None,
        heads: int = 2,
        *,
        local_heads: int | None = None,
        window: Size = (4, 8, 8),
        map_elements: int = MAP_ELEMENTS,
        **options: Any,
    ) -> None:
        super().__init__(channels, key_channels, value_channels, heads, **options)
        if local_heads is not None:
            check_counts(local_heads=local_heads)
        self.local_heads = heads // 2 if local_heads is None else local_heads
        if not 0 < self.local_heads < heads:
            raise ValueError(
                f"{self.local_heads} local of {heads} heads; at least one must be local and one "
                "global, so take two heads or more"
            )
        check_counts(map_elements=map_elements)
        self.window = check_size("window", window)
        self.map_elements = map_elements

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        window, shift = clip_window(size, self.window, shift=False)
        (q, global_q), (k, global_k), (v, global_v) = map(self._split, (queries, keys, values))
        local = attend_in_windows(q, k, v, key_mask, size, window, shift, None, self.map_elements)
        if key_mask is not None:
            global_k = leave_out(global_k, key_mask)
            global_v = torch.where(key_mask, global_v, 0)
        context = global_k.softmax(dim=2).transpose(2, 3) @ global_v
        scaled = global_q.softmax(dim=3) * self.key_width**-0.5
        return torch.cat([local, scaled @ context], dim=1)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        (q, global_q), (k, global_k), (v, global_v) = map(self._split, (queries, keys, values))
        window, _ = clip_window(size, self.window, shift=False)
        index = grid_positions(size, q.device) // torch.tensor(window, device=q.device)
        same = (index[:, None] == index[None]).all(dim=2)  # (N, N)
        logits = q @ k.transpose(2, 3) / self.key_width**0.5
        local = softmax_map(logits.masked_fill(~same, -torch.inf), key_mask) @ v
        share = softmax_map(global_k.transpose(2, 3), key_mask)  # (B, heads, K, N)
        weights = global_q.softmax(dim=3) / self.key_width**0.5 @ share
        return torch.cat([local, weights @ global_v], dim=1)

    def _split(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return tokens[:, : self.local_heads], tokens[:, self.local_heads :]
