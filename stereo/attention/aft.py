"""An Attention Free Transformer (Zhai et al., 2021): AFT-simple and AFT-conv.

y_i = sigmoid(q_i) * sum_j exp(k_j + w_ij) v_j / sum_j exp(k_j + w_ij), channel by channel. In
AFT-simple w is zero; in AFT-conv it depends on j - i inside a small kernel, one per head, and is
zero outside. O(N V) and O(N k^3 V) time.

Changed in AFT-conv: queries and keys have a channel per value, not keys one per head, and w is a
plain parameter, not gamma (w - mean w) / std w + beta.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.attention.exact import MAP_ELEMENTS, in_slices
from stereo.attention.linearized import leave_out
from stereo.attention.reference import convolution_map, neighbour_taps
from stereo.attention.volume import Size, VolumeAttention, check_counts, check_odd, drawn


class AFTSimpleAttention(VolumeAttention):
    """AFT-simple.

    Queries and keys act channel by channel on the values, so they have as many channels by
    default, as in the paper. With fewer, each serves several values: ``value_channels`` must be a
    multiple of ``key_channels``.

    Args:
        channels: C of the volume.
        key_channels: ``value_channels`` by default.
        value_channels: C by default.
        options: see ``VolumeAttention``.

    Raises:
        ValueError: ``value_channels`` is not a multiple of ``key_channels``.
    """

    permutation_equivariant = True
    mask_equals_removal = True

    def __init__(
        self,
        channels: int,
        key_channels: int | None = None,
        value_channels: int | None = None,
        **options: Any,
    ) -> None:
        value_channels = channels if value_channels is None else value_channels
        key_channels = value_channels if key_channels is None else key_channels
        super().__init__(channels, key_channels, value_channels, **options)
        if self.value_width % self.key_width:
            raise ValueError(
                f"{self.value_width} value channels per head are not a multiple of "
                f"{self.key_width} key channels, which act on them one by one"
            )
        self.repeats = self.value_width // self.key_width

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        queries, keys = self._per_value(queries), self._per_value(keys)
        weights = self._key_weights(keys, key_mask)
        average = (weights * values).sum(2, True) / _positive(weights.sum(2, True))
        return queries.sigmoid() * average

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        bias = self._position_bias(size, keys)  # (heads, N, N)
        logits = self._per_value(keys)[:, :, None] + bias[None, :, :, :, None]  # (B, h, N, N, V)
        weights = torch.exp(logits)
        if key_mask is not None:
            weights = weights * key_mask[:, :, None]
        average = (weights * values[:, :, None]).sum(3) / _positive(weights.sum(3))
        return self._per_value(queries).sigmoid() * average

    def _position_bias(self, size: Size, like: Tensor) -> Tensor:  # (heads, N, N)
        count = like.shape[2]
        return like.new_zeros(self.heads, count, count)

    def _per_value(self, tokens: Tensor) -> Tensor:  # (B, heads, N, K) -> (B, heads, N, V)
        return tokens if self.repeats == 1 else tokens.repeat_interleave(self.repeats, dim=3)

    @staticmethod
    def _key_weights(keys: Tensor, key_mask: Tensor | None) -> Tensor:
        """Return exp(k) up to a factor per channel that cancels in the average."""
        if key_mask is not None:
            keys = leave_out(keys, key_mask)
        weights = torch.exp(keys - keys.detach().amax(dim=2, keepdim=True))
        return weights if key_mask is None else torch.where(key_mask, weights, 0)


class AFTConvAttention(AFTSimpleAttention):
    """AFT-conv: the global term of AFT-simple plus a convolution with exp(w) - 1.

    In float32 the two cancel where a dominant key has a strongly negative w. With w = -8 everywhere
    and one key 30 above all others, outputs near 1 err by 2e-4; with -12 by 8e-3. It begins near 0.

    Args:
        channels: C of the volume.
        kernel: extent of the kernel, odd.
        map_elements: entries of the convolution's operands that may exist at once.
        options: see ``AFTSimpleAttention``.
    """

    permutation_equivariant = False
    mask_equals_removal = True

    def __init__(
        self,
        channels: int,
        key_channels: int | None = None,
        value_channels: int | None = None,
        *,
        kernel: int = 3,
        map_elements: int = 4 * MAP_ELEMENTS,
        **options: Any,
    ) -> None:
        super().__init__(channels, key_channels, value_channels, **options)
        check_odd(kernel=kernel)
        check_counts(map_elements=map_elements)
        self.map_elements = map_elements
        self.bias = drawn(self.heads, kernel, kernel, kernel, scale=0.02)

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        queries, keys = self._per_value(queries), self._per_value(keys)
        weights = self._key_weights(keys, key_mask)
        weighted = weights * values
        total = self._convolve(weighted, size) + weighted.sum(2, True)
        norm = self._convolve(weights, size) + weights.sum(2, True)
        return queries.sigmoid() * total / _positive(norm)

    def _convolve(self, tokens: Tensor, size: Size) -> Tensor:  # (B, heads, N, V), shape kept
        """Convolve every channel of a head with that head's exp(w) - 1."""
        kernel = torch.expm1(self.bias)[:, None].to(tokens.dtype)  # (heads, 1, k, k, k)

        def convolve(some: Tensor) -> Tensor:  # (B, heads, N, few), shape kept
            planes = some.permute(0, 3, 1, 2).flatten(0, 1).unflatten(2, size)
            mixed = F.conv3d(planes, kernel, padding=kernel.shape[-1] // 2, groups=self.heads)
            return mixed.flatten(2).unflatten(0, (some.shape[0], -1)).permute(0, 2, 3, 1)

        # Convolution libraries pad few channels to blocks of 16.
        each = 16 * tokens.shape[0] * self.heads * tokens.shape[2]
        return in_slices(convolve, tokens, dim=3, elements_each=each, limit=self.map_elements)

    def _position_bias(self, size: Size, like: Tensor) -> Tensor:
        extent = self.bias.shape[-1]
        taps = neighbour_taps(size, (extent, extent, extent), like.device)
        return convolution_map(self.bias.flatten(1), taps)


def _positive(norm: Tensor) -> Tensor:
    return torch.where(norm > 0, norm, 1)
