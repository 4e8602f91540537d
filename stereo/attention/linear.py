"""Transformers are RNNs (Katharopoulos et al., ICML 2020): linear attention with elu + 1.

phi(q_i) . sum_j phi(k_j) v_j / phi(q_i) . sum_j phi(k_j), phi(x) = elu(x) + 1. O(N K V) time.
"""

import torch
from torch import Tensor

from stereo.attention.linearized import leave_out, linearized_attention
from stereo.attention.reference import weighted_average
from stereo.attention.volume import Size, VolumeAttention


class LinearAttention(VolumeAttention):
    """Linear attention, without the original's epsilon in the denominator, as phi is positive."""

    weights_sum_to_one = True
    permutation_equivariant = True
    mask_equals_removal = True

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        # One factor per query, and one per key channel that its queries give back, leave the ratio
        # as it is, and no sum of products below the smallest number.
        keys = _log_phi(keys)
        known = keys if key_mask is None else leave_out(keys, key_mask)
        largest = known.detach().amax(dim=2, keepdim=True)
        queries = _log_phi(queries) + largest
        queries = queries - queries.detach().amax(dim=3, keepdim=True)
        return linearized_attention(queries.exp(), (keys - largest).exp(), values, key_mask)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        weights = _phi(queries) @ _phi(keys).transpose(2, 3)
        return weighted_average(weights, values, key_mask)


def _log_phi(tokens: Tensor) -> Tensor:
    return torch.where(tokens > 0, tokens.clamp(min=0).log1p(), tokens)


def _phi(tokens: Tensor) -> Tensor:
    """Return elu(x) + 1, which must not cancel to 0 where x is far below."""
    return torch.where(tokens > 0, tokens + 1, tokens.clamp(max=0).exp())
