"""Transformers are RNNs (Katharopoulos et al., ICML 2020): linear attention with elu + 1.

phi(q_i) . sum_j phi(k_j) v_j / phi(q_i) . sum_j phi(k_j), phi(x) = elu(x) + 1. O(N K V) time.
"""

from torch import Tensor
from torch.nn import functional as F

from stereo.attention.linearized import linearized_attention
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
        return linearized_attention(F.elu(queries) + 1, F.elu(keys) + 1, values, key_mask)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        weights = (F.elu(queries) + 1) @ (F.elu(keys) + 1).transpose(2, 3)
        return weighted_average(weights, values, key_mask)
