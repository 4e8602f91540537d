"""Linear Attention Mechanism (Li et al., 2020): the first-order Taylor form of softmax attention.

sum_j (1 + q_i . k_j) v_j / sum_j (1 + q_i . k_j) with q and k of unit L2 norm, so that no weight is
negative. Where all keys oppose a query the sums cancel: what divides is at least 1e-4 times the
number of keys. O(N K V) time.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.attention.linearized import linearized_attention
from stereo.attention.reference import weighted_average
from stereo.attention.volume import Size, VolumeAttention

FLOOR = 1e-4  # a thousand times the rounding errors of the sums


class TaylorAttention(VolumeAttention):
    """First-order Taylor attention, without the original's epsilon in the denominator."""

    weights_sum_to_one = True
    permutation_equivariant = True
    mask_equals_removal = True

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        queries, keys = F.normalize(queries, dim=3), F.normalize(keys, dim=3)
        one = queries.new_ones(1).expand(*queries.shape[:3], 1)
        queries, keys = torch.cat([one, queries], dim=3), torch.cat([one, keys], dim=3)
        return linearized_attention(queries, keys, values, key_mask, floor=FLOOR)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        cosine = F.normalize(queries, dim=3) @ F.normalize(keys, dim=3).transpose(2, 3)
        return weighted_average(1 + cosine, values, key_mask)
