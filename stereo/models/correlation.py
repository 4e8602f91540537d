"""Correlation of two views' features, its look-up, soft argmax and upsampling.

Group-wise correlation (GwcNet, Guo et al., CVPR 2019) of unit features; its look-up about a
disparity and convex upsampling (RAFT, Teed and Deng, ECCV 2020).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.models.cost_volume import shifted_planes

MODE_REACH = 2  # planes to either side of the likeliest one that make up a disparity


def group_correlation(
    left: Tensor,  # (B, C, H, W)
    right: Tensor,  # (B, C, H, W)
    planes: int,
    groups: int,
) -> Tensor:  # (B, groups, planes, H, W)
    """Return the cosine between left[x] and right[x - d] per group of channels; 0 where x < d.

    A cosine does not change with the contrast of either view.
    """
    left, right = (unit_groups(view, groups) for view in (left, right))
    # Equal, tested; the one is faster where gradients flow, the other where none do.
    way = _correlate_matmul if left.requires_grad else _correlate_by_planes
    if torch.compiler.is_exporting():
        way = _correlate_shifted
    return way(left, right, planes)


def _correlate_shifted(left: Tensor, right: Tensor, planes: int) -> Tensor:
    groups = left.shape[1]
    shifted = shifted_planes(right.flatten(1, 2), planes).unflatten(1, (groups, -1))
    products = [(left * each).mean(dim=2) for each in shifted.unbind(3)]
    return torch.stack(products, dim=2)


def _correlate_by_planes(left: Tensor, right: Tensor, planes: int) -> Tensor:
    batch, groups, _, height, width = left.shape
    volume = left.new_zeros(batch, groups, planes, height, width)
    for d in range(min(planes, width)):
        volume[:, :, d, :, d:] = (left[..., d:] * right[..., : width - d]).mean(dim=2)
    return volume


def _correlate_matmul(left: Tensor, right: Tensor, planes: int) -> Tensor:
    """Multiply whole rows of features as matrices, then take the diagonals that are disparities."""
    width = left.shape[-1]
    rows = left.permute(0, 1, 3, 4, 2) / left.shape[2]  # (B, G, H, W, C)
    mirrored = right.flip(-1).permute(0, 1, 3, 2, 4)  # (B, G, H, C, W)
    products = torch.matmul(rows, mirrored)  # left[x] with right[W - 1 - j] at [x, j]
    # In rows one shorter than they are stored, d = x - (W - 1 - j) is the same in every column.
    flat = F.pad(products, (0, planes)).flatten(3)
    flat = flat[..., width - 1 : width - 1 + width * (width + planes - 1)]
    volume = flat.unflatten(3, (width, -1))[..., :planes]  # [x, d]
    return volume.permute(0, 1, 4, 2, 3).contiguous()


def unit_groups(features: Tensor, groups: int) -> Tensor:  # (B, C, H, W) -> (B, G, C / G, H, W)
    """Scale each pixel's vector of a group to mean square 1, so that a mean product is a cosine."""
    features = features.unflatten(1, (groups, -1))
    exact = features.to(torch.promote_types(features.dtype, torch.float32))
    power = exact.square().mean(dim=2, keepdim=True)
    return features * torch.rsqrt(power + 1e-6).to(features.dtype)


def warp(
    right: Tensor,  # (B, C, H, W)
    disparity: Tensor,  # (B, H, W), pixels of this size
) -> Tensor:  # (B, C, H, W)
    """Return right[x - d], linear between columns and the edge's beyond it."""
    height, width = disparity.shape[1:]
    exact = torch.promote_types(disparity.dtype, torch.float32)
    with torch.autocast(right.device.type, enabled=False):
        column = torch.arange(width, device=right.device, dtype=exact) - disparity.to(exact)
        row = torch.arange(height, device=right.device, dtype=exact)[:, None].expand_as(column)
        grid = torch.stack([(2 * column + 1) / width - 1, (2 * row + 1) / height - 1], dim=-1)
        warped = F.grid_sample(right.to(exact), grid, padding_mode="border", align_corners=False)
    return warped.to(right.dtype)


def upsample_logits(
    evidence: Tensor,  # (B, E, D, H, W)
    weights: Tensor,  # (B, 4 E, H, W)
) -> Tensor:  # (B, D, 2 H, 2 W)
    """Return logits for each of the four pixels of a cell: its evidence under weights of its own.

    An edge within a cell thus has the near plane on one side and the far one on the other.
    """
    parts = [
        (evidence * own[:, :, None]).sum(dim=1)  # (B, D, H, W)
        for own in weights.unflatten(1, (4, -1)).unbind(1)
    ]
    return F.pixel_shuffle(torch.stack(parts, dim=2), 2).squeeze(2)


def local_soft_argmax(logits: Tensor) -> Tensor:  # (B, D, H, W) -> (B, H, W)
    """Return the mean plane index about the likeliest plane, in float32.

    The mean over all planes would put edges half-way between the near and the far side.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        index = torch.arange(logits.shape[1], device=logits.device)
        away = (index.view(-1, 1, 1) - logits.argmax(dim=1, keepdim=True)).abs()
        weights = logits.masked_fill(away > MODE_REACH, float("-inf")).softmax(dim=1)
        mean = torch.matmul(index.to(weights.dtype), weights.flatten(2))
        return mean.unflatten(1, logits.shape[2:])


def lookup_correlation(
    volume: Tensor,  # (B, G, D, H, W)
    disparity: Tensor,  # (B, H, W), planes
    reach: int,
) -> Tensor:  # (B, G * (2 reach + 1), H, W)
    """Return the volume at disparity - reach ... disparity + reach, linear between planes.

    Planes that the volume does not have count as 0.
    """
    batch, groups, planes, height, width = volume.shape
    below = disparity.floor()
    part = (disparity - below)[:, None, None].to(volume.dtype)
    steps = torch.arange(-reach, reach + 2, device=volume.device).view(-1, 1, 1)
    index = below.long()[:, None] + steps  # (B, 2 reach + 2, H, W)
    there = (index >= 0) & (index < planes)
    index = index.clamp(0, planes - 1)[:, None].expand(-1, groups, -1, -1, -1)
    values = volume.gather(2, index) * there[:, None]
    between = values[:, :, :-1] + (values[:, :, 1:] - values[:, :, :-1]) * part
    return between.reshape(batch, -1, height, width)


def convex_upsample(
    disparity: Tensor,  # (B, H, W), pixels of this size
    logits: Tensor,  # (B, 9 * factor^2, H, W)
    factor: int,
) -> Tensor:  # (B, factor * H, factor * W), pixels of the larger size
    """Let each fine pixel be a convex combination of the 3x3 coarse ones around it."""
    batch, height, width = disparity.shape
    with torch.autocast(disparity.device.type, enabled=False):
        values = disparity.to(torch.promote_types(disparity.dtype, torch.float32))
        weights = logits.to(values.dtype).view(batch, 9, factor**2, height, width).softmax(1)
        padded = F.pad(factor * values[:, None], (1, 1, 1, 1), mode="replicate")
        around = F.unfold(padded, 3).view(batch, 9, 1, height, width)
        fine = (weights * around).sum(dim=1)  # (B, factor^2, H, W)
        return F.pixel_shuffle(fine, factor)[:, 0]
