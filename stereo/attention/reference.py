"""Explicit quadratic forms: the definition of each attention, written for reading, for tests."""

import torch
from torch import Tensor


def efficient_attention_map(
    queries: Tensor,  # (B, heads, N, K)
    keys: Tensor,  # (B, heads, N, K)
) -> Tensor:  # (B, heads, N, N)
    """Return the implied map rho_q(Q) rho_k(K)^T of efficient attention; rows sum to one."""
    return torch.softmax(queries, dim=3) @ torch.softmax(keys, dim=2).transpose(2, 3)
