"""Softmax attention without its map: the fused kernel, in slices of queries, with masks."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

MAP_ELEMENTS = 2**24
"""Entries of the attention map that may exist at once: 64 MiB in float32."""

MANY_QUERIES = 256
"""Queries of all sequences from which the fused kernel is the faster one."""

MAX_SEQUENCES = 4096
"""Windows or lines attended at once: CUDA kernels take 65,535 sequences times heads at most."""


def softmax_attention(
    queries: Tensor,  # (B, heads, N, K)
    keys: Tensor,  # (B, heads, M, K)
    values: Tensor,  # (B, heads, M, V)
    key_mask: Tensor | None = None,  # (B, 1, M, 1) bool
    *,
    scale: float | None = None,
    bias: Tensor | None = None,  # (heads, N, M)
) -> Tensor:  # (B, heads, N, V)
    """Return softmax(scale * Q K^T + bias) V; zero where the mask leaves no key.

    Args:
        queries: any number of them.
        keys: any number of them.
        values: as many as keys.
        key_mask: true where a key takes part.
        scale: factor of the logits; 1 / sqrt(K) by default.
        bias: added to the logits.
    """
    if key_mask is None:
        attn_mask = None if bias is None else bias.to(queries.dtype)[None]
        return _fused(queries, keys, values, attn_mask, scale)
    some = key_mask.any(dim=2, keepdim=True)
    # A row without any key would be NaN, and its gradient too: attend to all keys, then zero it.
    attn_mask = (key_mask | ~some).transpose(2, 3)  # (B, 1, 1, M)
    if bias is not None:
        attn_mask = torch.where(attn_mask, bias.to(queries.dtype), -torch.inf)
    return _fused(queries, keys, values, attn_mask, scale) * some


def _fused(
    queries: Tensor, keys: Tensor, values: Tensor, attn_mask: Tensor | None, scale: float | None
) -> Tensor:
    """Attend by PyTorch's fused kernels, which take contiguous tensors of one width alone.

    The narrower ones are zero-padded, which changes no product. Otherwise PyTorch holds the map,
    which is faster where few queries attend to all cells.
    """
    key_width, value_width = queries.shape[3], values.shape[3]
    if not torch.compiler.is_exporting() and queries.shape[:3].numel() >= MANY_QUERIES:
        width = max(key_width, value_width)
        queries, keys, values = (
            F.pad(each, (0, width - each.shape[3])).contiguous() for each in (queries, keys, values)
        )
    scale = key_width**-0.5 if scale is None else scale
    attended = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=attn_mask, scale=scale
    )
    return attended[..., :value_width]


def in_slices(
    function: Callable[..., Tensor],
    *tensors: Tensor,
    dim: int,
    elements_each: int,
    limit: int,
    longest: int | None = None,
) -> Tensor:
    """Apply a function to slices along one axis and join the results along it.

    With gradients each slice is computed again in the backward pass, so that the map of only one
    exists at a time there too.

    Args:
        function: takes one slice of each tensor.
        tensors: all of one length along ``dim``.
        dim: the axis.
        elements_each: intermediate elements per unit of that axis.
        limit: intermediate elements allowed at once.
        longest: longest slice, or None.
    """
    if torch.compiler.is_exporting():  # a graph without loops
        return function(*tensors)
    step = max(1, limit // max(1, elements_each))
    step = step if longest is None else min(step, longest)
    if step >= tensors[0].shape[dim]:
        return function(*tensors)
    recompute = torch.is_grad_enabled()
    parts = []
    for slices in zip(*(t.split(step, dim) for t in tensors), strict=True):
        part = (
            checkpoint(function, *slices, use_reentrant=False) if recompute else function(*slices)
        )
        parts.append(part)
    return torch.cat(parts, dim)
