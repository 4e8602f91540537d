"""From logits at quarter resolution to disparity at full resolution: interpolate, softmax, mean.

PSMNet regresses sum_d d * softmax(logits)_d over trilinearly enlarged logits. Its two enlargements
put plane k at 4.0638 k (``align_corners``, 48 planes) or at 4k + 1.5 (``half_pixel``); ``unbiased``
puts it at 4k and looks at nothing beyond the last plane, and likewise rows and columns.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.models.config import Upsampling

FACTOR = 4
STRIP_ELEMENTS = 2**19  # of a strip's logits, so that it stays in a CPU's caches
GPU_STRIP_ELEMENTS = 2**24  # each strip starts some twenty kernels


def regress_disparity(
    logits: Tensor,  # (B, D, H / 4, W / 4)
    upsampling: Upsampling,
) -> Tensor:  # (B, H, W) float32 (float64 for float64), pixels
    """Interpolate the logits and return the mean disparity under their softmax.

    The full-resolution volume exists only strip by strip of rows, in the backward pass too, which
    computes each strip again.

    Args:
        logits: one per cell of the volume; plane k stands for 4k px.
        upsampling: where plane k and sample i lie at full resolution.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return _ByStrips.apply(logits, upsampling)


def regress_reference(
    logits: Tensor,  # (B, D, H / 4, W / 4)
    upsampling: Upsampling,
) -> Tensor:  # (B, H, W)
    """As ``regress_disparity``, with the whole volume at full resolution at once."""
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        for dim in (2, 3):
            logits = interpolate(logits, sample_positions(logits.shape[dim], upsampling), dim=dim)
        return _mean_candidate(logits, upsampling)


class _ByStrips(torch.autograd.Function):
    """Rows of the map, a strip at a time, in either direction."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, upsampling: Upsampling) -> Tensor:
        ctx.save_for_backward(logits)
        ctx.upsampling = upsampling
        strips = _strips(logits, upsampling)
        return torch.cat([_regress_strip(logits[:, :, r], at, upsampling) for at, r in strips], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (logits,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: second derivatives, without a saving in memory
            strips = _strips(logits, ctx.upsampling)
            maps = [_regress_strip(logits[:, :, r], at, ctx.upsampling) for at, r in strips]
            return *torch.autograd.grad(
                torch.cat(maps, 1), logits, gradients, create_graph=True
            ), None
        into = torch.zeros_like(logits)
        first = 0
        for at, rows in _strips(logits, ctx.upsampling):
            gradient = gradients[0][:, first : first + len(at)]
            first += len(at)
            with torch.enable_grad():
                strip = logits[:, :, rows].detach().requires_grad_()
                disparity = _regress_strip(strip, at, ctx.upsampling)
            into[:, :, rows] += torch.autograd.grad(disparity, strip, gradient)[0]
        return into, None


def _strips(logits: Tensor, upsampling: Upsampling) -> list[tuple[Tensor, slice]]:
    """Return for each strip where its rows lie, and the quarter-resolution rows around them."""
    batch, planes, rows, columns = logits.shape
    at_rows = sample_positions(rows, upsampling)
    elements = GPU_STRIP_ELEMENTS if logits.is_cuda else STRIP_ELEMENTS
    strip = max(FACTOR, elements // (batch * planes * FACTOR * columns))
    strips = []
    for at in at_rows.split(strip):
        first, last = int(at[0]), min(int(at[-1]) + 1, rows - 1)
        strips.append((at - first, slice(first, last + 1)))
    return strips


def _regress_strip(logits: Tensor, at: Tensor, upsampling: Upsampling) -> Tensor:
    fine = interpolate(logits, at, dim=2)
    if upsampling == "align_corners":
        fine = interpolate(fine, sample_positions(logits.shape[3], upsampling), dim=3)
        return _mean_candidate(fine, upsampling)
    fine = _enlarge_columns(fine, upsampling)
    return _mean_by_powers(fine, upsampling).unflatten(1, fine.shape[2:])


def _mean_candidate(
    logits: Tensor,  # (B, D, H, W)
    upsampling: Upsampling,
) -> Tensor:  # (B, H, W)
    """Interpolate along D and return the mean candidate under the softmax."""
    planes = logits.shape[1]
    at = sample_positions(planes, upsampling, past_last=upsampling != "unbiased")
    to_candidates = _interpolation_matrix(at, planes).to(logits)  # (K, D)
    weights = torch.matmul(to_candidates, logits.flatten(2)).softmax(dim=1)  # (B, K, H * W)
    candidates = torch.arange(len(at), device=logits.device, dtype=logits.dtype)
    return torch.matmul(candidates, weights).unflatten(1, logits.shape[2:])


def _mean_by_powers(
    logits: Tensor,  # (B, D, H, W)
    upsampling: Upsampling,  # not align_corners, whose candidates lie at uneven distances
) -> Tensor:  # (B, H * W)
    """As ``_mean_candidate``, with one or two exponentials per plane instead of four.

    Between planes k and k + 1 logits are linear, so that their exponentials are a geometric row:
    products of powers of a root of two of them. Nothing exceeds 1, and the largest is 1.
    """
    planes = logits.shape[1]
    logits = logits.flatten(2)  # (B, D, N)
    if upsampling == "unbiased":  # candidates 4k to 4k + 3, and 4 (D - 1)
        root = _exp(logits - logits.detach().amax(dim=1, keepdim=True), 4)
        square = root * root
        near, far, both = square[:, :-1], square[:, 1:], root[:, :-1] * root[:, 1:]
        row = (near * near, near * both, both * both, both * far)
        first = 0
        ends = {FACTOR * (planes - 1): square[:, -1] * square[:, -1]}
    else:  # 4k + 2 to 4k + 5; the first plane is two more candidates, the last as well
        near = torch.lerp(logits[:, :-1], logits[:, 1:], 0.125)
        far = torch.lerp(logits[:, :-1], logits[:, 1:], 0.875)
        outer = logits[:, [0, -1]]
        largest = torch.cat([near, far, outer], dim=1).detach().amax(dim=1, keepdim=True)
        near, far = _exp(near - largest, 3), _exp(far - largest, 3)
        row = (near * near * near, near * near * far, near * far * far, far * far * far)
        first = 2
        low, high = _exp(outer - largest, 1).unbind(1)
        ends = {0: low, 1: low, FACTOR * planes - 2: high, FACTOR * planes - 1: high}
    total = row[0] + row[1] + row[2] + row[3]
    steps = torch.arange(planes - 1, device=total.device, dtype=total.dtype) * FACTOR + first
    moment = torch.matmul(steps, total) + (row[1] + 2 * row[2] + 3 * row[3]).sum(dim=1)
    mass = total.sum(dim=1)
    for candidate, weight in ends.items():
        mass, moment = mass + weight, moment + candidate * weight
    return moment / mass


def _exp(values: Tensor, divisor: int) -> Tensor:
    """Return exp(values / divisor), as a power of two: on CPUs exp is slow where it underflows."""
    return torch.exp2(values * (math.log2(math.e) / divisor))


def _enlarge_columns(
    logits: Tensor,  # (B, D, H, W)
    upsampling: Upsampling,
) -> Tensor:  # (B, D, H, 4 W)
    """Interpolate along the columns at ``sample_positions``, four samples from each pair."""
    half_pixel = upsampling == "half_pixel"
    padded = F.pad(logits, (int(half_pixel), 1, 0, 0), mode="replicate")
    phases = (torch.arange(FACTOR, device=logits.device) + 0.5 * half_pixel) / FACTOR
    near, far = padded[..., :-1, None], padded[..., 1:, None]
    fine = torch.lerp(near, far, phases.to(logits.dtype)).flatten(3)
    return fine[..., 2:-2] if half_pixel else fine


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


def interpolate(volume: Tensor, at: Tensor, *, dim: int) -> Tensor:
    """Interpolate linearly along one axis at positions ``at``."""
    below = at.long()
    above = (below + 1).clamp(max=volume.shape[dim] - 1)
    shape = [1] * volume.ndim
    shape[dim] = -1
    fraction = (at - below).to(volume.dtype).view(shape).to(volume.device)
    below, above = below.to(volume.device), above.to(volume.device)
    return torch.lerp(volume.index_select(dim, below), volume.index_select(dim, above), fraction)
