"""The 4D cost volume: left features beside right features shifted by each hypothesis."""

from torch import Tensor


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
    volume = left.new_zeros(batch, 2 * channels, planes, height, width)
    for d in range(min(planes, width)):
        volume[:, :channels, d, :, d:] = left[..., d:]
        volume[:, channels:, d, :, d:] = right[..., : width - d]
    return volume
