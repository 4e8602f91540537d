"""Perceiver (Jaegle et al., ICML 2021): latents attend to the volume, and the volume to them.

L = softmax(latents K^T / sqrt(K)) V over positions, then softmax(Q M^T / sqrt(K)) L over the
latents, M = keys(L) + latents, as Perceiver IO decodes. O(N M (K + V)) time for M latents. Added:
the latents in the keys, which tell them apart. Dropped: the latents' residual connection and
self-attention blocks, and the position code of the input.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.attention.exact import MAP_ELEMENTS, in_slices, softmax_attention
from stereo.attention.reference import softmax_map
from stereo.attention.volume import Size, VolumeAttention, check_counts


class PerceiverAttention(VolumeAttention):
    """Attention through latents.

    Args:
        channels: C of the volume.
        latents: number of latents M, per head.
        map_elements: entries of the attention maps that may exist at once.
        options: see ``VolumeAttention``.
    """

    weights_sum_to_one = True
    permutation_equivariant = True
    mask_equals_removal = True

    def __init__(
        self, channels: int, *, latents: int = 64, map_elements: int = MAP_ELEMENTS, **options: Any
    ) -> None:
        super().__init__(channels, **options)
        check_counts(latents=latents, map_elements=map_elements)
        self.map_elements = map_elements
        self.latents = nn.Parameter(torch.randn(self.heads, latents, self.key_width))
        self.latent_keys = nn.Linear(self.value_width, self.key_width)

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        latents = self.latents.to(keys.dtype)

        def read(some_latents: Tensor) -> Tensor:
            return softmax_attention(some_latents, keys, values, key_mask)

        reading = latents.expand(keys.shape[0], -1, -1, -1)
        each = queries.shape[0] * self.heads * keys.shape[2]
        context = in_slices(read, reading, dim=2, elements_each=each, limit=self.map_elements)
        context_keys = self._latent_keys(context) + latents

        def read_back(some_queries: Tensor) -> Tensor:
            return softmax_attention(some_queries, context_keys, context)

        each = queries.shape[0] * self.heads * latents.shape[1]
        return in_slices(read_back, queries, dim=2, elements_each=each, limit=self.map_elements)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        scale = self.key_width**-0.5
        latents = self.latents.to(keys.dtype)
        reading = softmax_map(latents @ keys.transpose(2, 3) * scale, key_mask)
        context_keys = self._latent_keys(reading @ values) + latents
        back = softmax_map(queries @ context_keys.transpose(2, 3) * scale, None)
        return (back @ reading) @ values

    def _latent_keys(self, context: Tensor) -> Tensor:  # (B, heads, M, V) -> (B, heads, M, K)
        linear = self.latent_keys
        return F.linear(context, linear.weight.to(context.dtype), linear.bias.to(context.dtype))
