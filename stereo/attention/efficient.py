"""Efficient Attention: Attention with Linear Complexities (Shen et al., WACV 2021)."""

import torch
from torch import Tensor

from stereo.attention.volume import VolumeAttention


class EfficientAttention(VolumeAttention):
    """Softmax normalisation: rho_q(Q) (rho_k(K)^T V), O(N K V) time, O(K V) memory per head.

    ``rho_q`` is a softmax over the channels of one head, ``rho_k`` a softmax over positions. The
    implied N x N map rho_q(Q) rho_k(K)^T has rows that sum to one, but it is not the softmax of
    Q K^T. As in the authors' module there is no scale and no position code. Unlike theirs, the
    reprojection starts at zero unless ``zero_init=False``.
    """

    def attend(  # noqa: D102
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        key_mask: Tensor | None,
    ) -> Tensor:
        # A softmax over a million positions has weights near 1e-6: half precision loses them.
        with torch.autocast(queries.device.type, enabled=False):
            dtype = torch.promote_types(queries.dtype, torch.float32)
            return efficient_attention(
                queries.to(dtype), keys.to(dtype), values.to(dtype), key_mask
            ).to(values.dtype)


def efficient_attention(
    queries: Tensor,  # (B, heads, N, K)
    keys: Tensor,  # (B, heads, N, K)
    values: Tensor,  # (B, heads, N, V)
    key_mask: Tensor | None = None,  # (B, 1, N, 1) bool
) -> Tensor:  # (B, heads, N, V)
    """Return softmax_K(Q) (softmax_N(K)^T V). With no key left by the mask the result is zero."""
    if key_mask is not None:
        keys = keys.masked_fill(~key_mask, -torch.inf)
        keys = torch.where(key_mask.any(dim=2, keepdim=True), keys, 0)
        values = values.masked_fill(~key_mask, 0)
    context = keys.softmax(dim=2).transpose(2, 3) @ values  # (B, heads, K, V)
    return queries.softmax(dim=3) @ context
