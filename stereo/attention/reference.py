"""Explicit quadratic forms, written for reading: building blocks of the oracles."""

import itertools

import torch
from torch import Tensor

from stereo.attention.volume import Size


def weighted_average(
    weights: Tensor,  # (B, heads, N, N), not negative
    values: Tensor,  # (B, heads, N, V)
    key_mask: Tensor | None,  # (B, 1, N, 1) bool
) -> Tensor:  # (B, heads, N, V)
    """Return sum_j w_ij v_j / sum_j w_ij over the keys of the mask; zero where there is none."""
    if key_mask is not None:
        weights = weights * key_mask.transpose(2, 3)
    total = weights.sum(dim=3, keepdim=True)
    return torch.where(total > 0, weights @ values / torch.where(total > 0, total, 1), 0)


def softmax_map(
    logits: Tensor,  # (B, heads, N, M)
    key_mask: Tensor | None,  # (B, 1, M, 1) bool
) -> Tensor:  # (B, heads, N, M)
    """Return the softmax over the keys of the mask; rows of zeros where there is none."""
    if key_mask is None:
        return logits.softmax(dim=3)
    allowed = key_mask.transpose(2, 3)
    largest = logits.masked_fill(~allowed, -torch.inf).amax(dim=3, keepdim=True)
    largest = torch.where(largest.isfinite(), largest, 0)
    weights = torch.exp(logits.masked_fill(~allowed, -torch.inf) - largest)
    total = weights.sum(dim=3, keepdim=True)
    return weights / torch.where(total > 0, total, 1)


def neighbour_taps(size: Size, kernel: Size, device: torch.device) -> Tensor:  # (N, N) long
    """Return which tap of a centred kernel leads from position i to position j, or -1.

    Entry (i, j) indexes the flattened kernel of a ``Conv3d`` with padding kernel // 2.
    """
    positions = torch.tensor(list(itertools.product(*map(range, size))), device=device)
    reach = torch.tensor(kernel, device=device)
    offset = positions[None] - positions[:, None] + reach // 2  # (N, N, 3)
    inside = ((offset >= 0) & (offset < reach)).all(dim=2)
    flat = (offset[..., 0] * kernel[1] + offset[..., 1]) * kernel[2] + offset[..., 2]
    return torch.where(inside, flat, -1)


def convolution_map(
    weight: Tensor,  # (..., taps)
    taps: Tensor,  # (N, N) long
) -> Tensor:  # (..., N, N)
    """Return the matrix that mixes positions like a kernel with these weights."""
    return torch.where(taps >= 0, weight[..., taps.clamp(min=0)], 0)


def grid_positions(size: Size, device: torch.device) -> Tensor:  # (N, 3) long
    """Return the (d, y, x) of every position."""
    axes = [torch.arange(extent, device=device) for extent in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
