"""Transformers are RNNs (Katharopoulos et al., ICML 2020): linear attention with elu + 1.

phi(q_i) . sum_j phi(k_j) v_j / phi(q_i) . sum_j phi(k_j), phi(x) = elu(x) + 1. O(N K V) time.
"""

import torch
from torch import Tensor

from stereo.attention.linearized import log_linearized_attention
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
        return log_linearized_attention(_log_phi(queries), _log_phi(keys), values, key_mask)

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
