"""From logits at quarter resolution to disparity at full resolution: interpolate, softmax, mean.

PSMNet regresses sum_d d * softmax(logits)_d over trilinearly enlarged logits. Its two enlargements
put plane k at 4.0638 k (``align_corners``, 48 planes) or at 4k + 1.5 (``half_pixel``); ``unbiased``
puts it at 4k and looks at nothing beyond the last plane, and likewise rows and columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stereo.model.config import Upsampling

FACTOR = 4
STRIP_ELEMENTS = 2**24


def regress_disparity(
    logits: Tensor,  # (B, D, H / 4, W / 4)
    upsampling: Upsampling,
) -> Tensor:  # (B, H, W) float32 (float64 for float64), pixels
    """Interpolate the logits and return the mean disparity under their softmax.

    Outside training the full-resolution volume exists only strip by strip of rows, with the same
    result.

    Args:
        logits: one per cell of the volume; plane k stands for 4k px.
        upsampling: where plane k and sample i lie at full resolution.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return _regress(logits.to(torch.promote_types(logits.dtype, torch.float32)), upsampling)


def _regress(logits: Tensor, upsampling: Upsampling) -> Tensor:
    planes, rows, columns = logits.shape[1:]
    at_planes = sample_positions(planes, upsampling, past_last=upsampling != "unbiased")
    at_rows = sample_positions(rows, upsampling)
    at_columns = sample_positions(columns, upsampling)
    to_candidates = _interpolation_matrix(at_planes, planes).to(logits)  # (K, D)
    candidates = torch.arange(len(at_planes), device=logits.device, dtype=logits.dtype)

    strip = len(at_rows)
    if not torch.is_grad_enabled():
        strip_row = len(candidates) * len(at_columns) * logits.shape[0]
        strip = max(FACTOR, STRIP_ELEMENTS // strip_row)
    disparities = []
    for at in at_rows.split(strip):
        fine = _interpolate(logits, at, dim=2)
        fine = _interpolate(fine, at_columns, dim=3)  # (B, D, strip, W)
        weights = torch.matmul(to_candidates, fine.flatten(2)).softmax(dim=1)  # (B, K, strip * W)
        disparities.append(torch.matmul(candidates, weights).unflatten(1, fine.shape[2:]))
    return torch.cat(disparities, dim=1)


def sample_positions(size: int, upsampling: Upsampling, *, past_last: bool = True) -> Tensor:
    """Return where full-resolution samples fall on a quarter-resolution axis.

    Args:
        size: length of the quarter-resolution axis.
        upsampling: the convention.
        past_last: whether the axis goes on to ``4 * size`` samples, the last repeated, or ends at
            its last quarter-resolution sample, ``4 * (size - 1) + 1`` samples in all.

    Returns:
        (K,) float64 in 0..size - 1.
    """
    full = FACTOR * size if past_last else FACTOR * (size - 1) + 1
    at = torch.arange(full, dtype=torch.float64)
    if upsampling == "unbiased":
        at = at / FACTOR
    elif upsampling == "align_corners":
        at = at * (size - 1) / (full - 1)
    else:
        at = (at + 0.5) / FACTOR - 0.5
    return at.clamp(0, size - 1)


def _interpolation_matrix(at: Tensor, size: int) -> Tensor:  # (K,) -> (K, size)
    """Return the matrix of linear interpolation at positions ``at``."""
    distance = (at[:, None] - torch.arange(size, dtype=at.dtype)).abs()
    return (1 - distance).clamp(min=0)


def _interpolate(volume: Tensor, at: Tensor, *, dim: int) -> Tensor:
    """Interpolate linearly along one axis at positions ``at``."""
    below = at.long()
    above = (below + 1).clamp(max=volume.shape[dim] - 1)
    shape = [1] * volume.ndim
    shape[dim] = -1
    fraction = (at - below).to(volume.dtype).view(shape).to(volume.device)
    below, above = below.to(volume.device), above.to(volume.device)
    return torch.lerp(volume.index_select(dim, below), volume.index_select(dim, above), fraction)
