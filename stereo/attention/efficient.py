"""Efficient Attention: Attention with Linear Complexities (Shen et al., WACV 2021).

Softmax form: rho_q(Q) (rho_k(K)^T V), rho_q a softmax over the channels of one head, rho_k one over
positions. Scaling form: Q (K^T V) / n. O(N K V) time and O(K V) memory beyond the activations.
"""

from typing import Any

import torch
from torch import Tensor

from stereo.attention.linearized import leave_out
from stereo.attention.volume import Size, VolumeAttention, check_flags


class EfficientAttention(VolumeAttention):
    """Efficient attention with softmax normalisation.

    The implied N x N map rho_q(Q) rho_k(K)^T has rows that sum to one, but it is not the softmax of
    Q K^T. As in the authors' module there is no position code; unlike theirs, the reprojection
    starts at zero unless ``zero_init=False``.

    Args:
        channels: C of the volume.
        temperature: divide both logits by K^(1/4), the counterpart of 1 / sqrt(K) in scaled dot
            products; off in the authors' module.
        options: see ``VolumeAttention``.
    """

    weights_sum_to_one = True
    permutation_equivariant = True
    deletes_keys = True

    def __init__(self, channels: int, *, temperature: bool = False, **options: Any) -> None:
        super().__init__(channels, **options)
        check_flags(temperature=temperature)
        self.temperature = self.key_width**-0.25 if temperature else 1.0

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        keys = keys * self.temperature if self.temperature != 1 else keys
        queries = queries * self.temperature if self.temperature != 1 else queries
        if key_mask is not None:
            keys = leave_out(keys, key_mask)
            values = torch.where(key_mask, values, 0)
        context = keys.softmax(dim=2).transpose(2, 3) @ values  # (B, heads, K, V)
        return queries.softmax(dim=3) @ context

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        share = torch.exp(keys * self.temperature)
        if key_mask is not None:
            share = share * key_mask
        share = share / share.sum(dim=2, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        weights = torch.softmax(queries * self.temperature, dim=3) @ share.transpose(2, 3)
        return weights @ values


class EfficientScalingAttention(VolumeAttention):
    """Efficient attention with scaling normalisation: (Q K^T / n) V, exactly.

    n is the number of keys, as in the paper; the authors' blog divides by sqrt(k) instead.
    """

    permutation_equivariant = True
    deletes_keys = True

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        count = keys.new_tensor(keys.shape[2])
        if key_mask is not None:
            keys = torch.where(key_mask, keys, 0)
            count = key_mask.sum(dim=2, keepdim=True).clamp(min=1).to(keys.dtype)
        return queries @ (keys.transpose(2, 3) @ values / count)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        weights = queries @ keys.transpose(2, 3)  # (B, heads, N, N)
        if key_mask is None:
            return weights @ values / values.shape[2]
        return (weights * key_mask.transpose(2, 3)) @ values / key_mask.sum(2, True).clamp(min=1)
