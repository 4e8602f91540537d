"""Exact softmax attention along the disparity axis, for every pixel on its own.

softmax(Q K^T / sqrt(K)) V over the D cells of a pixel: O(N D (K + V)) time. FoundationStereo (Wen
et al., CVPR 2025) filters its volume like this; its position encoding is omitted here.
"""

from typing import Any

import torch
from torch import Tensor

from stereo.attention.exact import MAP_ELEMENTS, MAX_SEQUENCES, in_slices, softmax_attention
from stereo.attention.reference import grid_positions, softmax_map
from stereo.attention.volume import Size, VolumeAttention, check_counts, from_lines, to_lines


class DisparityAttention(VolumeAttention):
    """Attention along D.

    Args:
        channels: C of the volume.
        map_elements: entries of the attention maps that may exist at once.
        options: see ``VolumeAttention``.
    """

    weights_sum_to_one = True
    linear_cost = False
    mask_equals_removal = True
    half_precision = True

    def __init__(self, channels: int, *, map_elements: int = MAP_ELEMENTS, **options: Any) -> None:
        super().__init__(channels, **options)
        check_counts(map_elements=map_elements)
        self.map_elements = map_elements

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        lines = [to_lines(t, size) for t in (queries, keys, values)]
        if key_mask is not None:
            lines.append(to_lines(key_mask, size))
        each = self.heads * size[0] ** 2
        attended = in_slices(
            softmax_attention,
            *lines,
            dim=0,
            elements_each=each,
            limit=self.map_elements,
            longest=MAX_SEQUENCES,
        )
        return from_lines(attended, size)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        pixel = grid_positions(size, queries.device)[:, 1:]
        same = (pixel[:, None] == pixel[None]).all(dim=2)  # (N, N)
        logits = queries @ keys.transpose(2, 3) / self.key_width**0.5
        return softmax_map(logits.masked_fill(~same, -torch.inf), key_mask) @ values
