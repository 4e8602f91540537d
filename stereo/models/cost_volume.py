"""The 4D cost volume: left features beside right features shifted by each hypothesis."""

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.models.config import STRIDE


def concatenation_volume(
    left: Tensor,  # (B, C, H, W)
    right: Tensor,  # (B, C, H, W)
    planes: int,
) -> Tensor:  # (B, 2C, planes, H, W)
    """Build PSMNet's concatenation volume.

    Plane d holds left[x] and right[x - d]; where x < d both halves are zero.

    Args:
        left: features of the left view.
        right: features of the right view.
        planes: number of hypotheses D, in feature pixels.
    """
    batch, channels, height, width = left.shape
    if torch.compiler.is_exporting():
        shifted = shifted_planes(right, planes)
        there = valid_cells(shifted).to(left.dtype)
        return torch.cat([left[:, :, None] * there, shifted], dim=1)
    volume = left.new_zeros(batch, 2 * channels, planes, height, width)
    for d in range(min(planes, width)):
        volume[:, :channels, d, :, d:] = left[..., d:]
        volume[:, channels:, d, :, d:] = right[..., : width - d]
    return volume


def shifted_planes(
    right: Tensor,  # (B, C, H, W)
    planes: int,
) -> Tensor:  # (B, C, planes, H, W)
    """Return right[x - d] in plane d, 0 where x < d, for widths that a trace leaves open too."""
    width = right.shape[-1]
    padded = F.pad(right, (planes - 1, 0))
    return torch.stack(
        [padded[..., planes - 1 - d : planes - 1 - d + width] for d in range(planes)], dim=2
    )


def valid_cells(volume: Tensor) -> Tensor:  # (B, C, D, H, W) -> (B, 1, D, H, W) bool
    """Return true where a cell's match x - d lies inside the right view; holds at any scale."""
    batch, _, planes, height, width = volume.shape
    column = torch.arange(width, device=volume.device)
    plane = torch.arange(planes, device=volume.device)[:, None, None]
    return (column >= plane).expand(batch, 1, planes, height, width)


def check_views(left: Tensor, right: Tensor) -> None:
    """Raise ``ValueError`` unless both views are (B, 3, H, W), B > 0, H and W multiples of 16."""
    fits = left.ndim == 4 and left.shape[1] == 3 and left.numel() > 0
    if left.shape != right.shape or not fits or any(side % STRIDE for side in left.shape[2:]):
        raise ValueError(
            f"left {tuple(left.shape)} and right {tuple(right.shape)} must be equal "
            f"(B, 3, H, W), not empty, with H and W multiples of {STRIDE}"
        )
