"""Attention whose kernel factorises: phi(Q) (phi(K)^T V), in time and memory linear in N."""

import torch
from torch import Tensor


def linearized_attention(
    query_features: Tensor,  # (B, heads, N, F)
    key_features: Tensor,  # (B, heads, N, F); no product with a query is negative
    values: Tensor,  # (B, heads, N, V)
    key_mask: Tensor | None = None,  # (B, 1, N, 1) bool
    *,
    floor: float = 0.0,
) -> Tensor:  # (B, heads, N, V)
    """Return phi(q_i) . sum_j phi(k_j) v_j / phi(q_i) . sum_j phi(k_j).

    The denominator is at least ``floor`` times the sum of the first key feature.
    """
    if key_mask is not None:
        key_features = torch.where(key_mask, key_features, 0)
    context = key_features.transpose(2, 3) @ values  # (B, heads, F, V)
    total = key_features.sum(dim=2, keepdim=True).transpose(2, 3)  # (B, heads, F, 1)
    norm = query_features @ total  # (B, heads, N, 1)
    # Not the papers' added epsilon: that would keep constant values from coming back constant.
    if floor:
        norm = torch.maximum(norm, floor * total[:, :, :1])
    return (query_features @ context) / torch.where(norm > 0, norm, 1)


def log_linearized_attention(
    log_query_features: Tensor,  # (B, heads, N, F)
    log_key_features: Tensor,  # (B, heads, N, F)
    values: Tensor,  # (B, heads, N, V)
    key_mask: Tensor | None = None,  # (B, 1, N, 1) bool
) -> Tensor:  # (B, heads, N, V)
    """As ``linearized_attention``, of features given by logarithms, which may lie far apart.

    One factor per query, and one per key channel that its queries give back, leave the ratio as it
    is, and no sum of products below the smallest number.
    """
    known = log_key_features if key_mask is None else leave_out(log_key_features, key_mask)
    largest = known.detach().amax(dim=2, keepdim=True)
    log_query_features = log_query_features + largest
    log_query_features = log_query_features - log_query_features.detach().amax(dim=3, keepdim=True)
    return linearized_attention(log_query_features.exp(), (known - largest).exp(), values, key_mask)


def leave_out(
    logits: Tensor,  # (B, heads, N, F)
    key_mask: Tensor,  # (B, 1, N, 1) bool
) -> Tensor:  # (B, heads, N, F)
    """Return -infinity at masked positions; unchanged if no key would remain."""
    some = key_mask.any(dim=2, keepdim=True)
    return torch.where(key_mask | ~some, logits, -torch.inf)
