"""EA-Stereo-Fast: the family for CPUs and small devices.

Features at 1/4 and 1/8, group-wise correlation (GwcNet, Guo et al., CVPR 2019) at 1/8, a small 3D
encoder-decoder with attention, a warping refinement at 1/4 and convex upsampling (RAFT, Teed and
Deng, ECCV 2020).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.model.aggregation import attend_at_site
from stereo.model.blocks import ConvNorm2d, ConvNorm3d, ResidualBlock2d, UpConvNorm3d
from stereo.model.config import STRIDE
from stereo.model.cost_volume import check_views

GROUPS = 8
VOLUME_WIDTH = 16
VOLUME_FACTOR = 8
FINE_FACTOR = 4
SEARCH = 3  # refinement compares the views this many quarter pixels to either side


class FastFeatures(nn.Module):
    """Image to features at 1/4 and 1/8 of its size, the coarse ones enlarged into the fine."""

    fine_channels = 32
    coarse_channels = 64

    def __init__(self) -> None:
        super().__init__()
        self.to_half = ConvNorm2d(3, 16, stride=2)
        self.to_quarter = nn.Sequential(
            ResidualBlock2d(16, 32, stride=2), ResidualBlock2d(32, 32), ResidualBlock2d(32, 32)
        )
        self.to_eighth = nn.Sequential(ResidualBlock2d(32, 64, stride=2), ResidualBlock2d(64, 64))
        self.to_sixteenth = nn.Sequential(
            ResidualBlock2d(64, 96, stride=2), ResidualBlock2d(96, 96)
        )
        self.to_coarse = nn.Sequential(ConvNorm2d(96 + 64, 64), nn.Conv2d(64, 64, 1))
        self.to_fine = nn.Sequential(ConvNorm2d(64 + 32, 32), nn.Conv2d(32, 32, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:  # (B, 3, H, W)
        """Return (B, 32, H / 4, W / 4) and (B, 64, H / 8, W / 8)."""
        quarter = self.to_quarter(self.to_half(image))
        eighth = self.to_eighth(quarter)
        coarse = self.to_coarse(torch.cat([_double(self.to_sixteenth(eighth)), eighth], dim=1))
        return self.to_fine(torch.cat([_double(coarse), quarter], dim=1)), coarse


class FastAggregation(nn.Module):
    """3D encoder-decoder over the correlation volume; one logit per cell.

    Args:
        attentions: ``eighth``: on the volume; ``sixteenth``: on its encoding at half the size.
        mask_invalid: leave out as keys the cells whose match lies outside the right view.
    """

    def __init__(self, attentions: Mapping[str, nn.Module], mask_invalid: bool = False) -> None:
        super().__init__()
        self.mask_invalid = mask_invalid
        self.enter = nn.Sequential(
            ConvNorm3d(GROUPS, VOLUME_WIDTH), ConvNorm3d(VOLUME_WIDTH, VOLUME_WIDTH)
        )
        self.attention_eighth = attentions.get("eighth")
        self.down = nn.Sequential(
            ConvNorm3d(VOLUME_WIDTH, 2 * VOLUME_WIDTH, stride=2),
            ConvNorm3d(2 * VOLUME_WIDTH, 2 * VOLUME_WIDTH),
        )
        self.attention_sixteenth = attentions.get("sixteenth")
        self.up = UpConvNorm3d(2 * VOLUME_WIDTH, VOLUME_WIDTH)
        self.leave = nn.Sequential(
            ConvNorm3d(VOLUME_WIDTH, VOLUME_WIDTH), nn.Conv3d(VOLUME_WIDTH, 1, 3, padding=1)
        )

    def forward(self, volume: Tensor) -> Tensor:  # (B, 8, D, H, W) -> (B, D, H, W)
        """Return the logits; larger is likelier."""
        volume = attend_at_site(self.attention_eighth, self.enter(volume), self.mask_invalid)
        coarse = attend_at_site(self.attention_sixteenth, self.down(volume), self.mask_invalid)
        return self.leave(torch.relu(self.up(coarse) + volume)).squeeze(1)


class Refinement(nn.Module):
    """Corrects a quarter-size disparity by comparing the left view with the warped right one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        evidence = 2 * SEARCH + 1
        self.correct = nn.Sequential(
            ConvNorm2d(channels + evidence + 1, 48),
            ResidualBlock2d(48, 48),
            ResidualBlock2d(48, 48, dilation=2),
            ResidualBlock2d(48, 48, dilation=4),
            ResidualBlock2d(48, 48),
        )
        self.residual = nn.Conv2d(48, 1, 3, padding=1)
        self.weights = nn.Sequential(ConvNorm2d(48, 64), nn.Conv2d(64, 9 * FINE_FACTOR**2, 1))

    def forward(
        self,
        left: Tensor,  # (B, C, H / 4, W / 4)
        right: Tensor,  # (B, C, H / 4, W / 4)
        disparity: Tensor,  # (B, H / 4, W / 4), quarter pixels
    ) -> tuple[Tensor, Tensor]:
        """Return the corrected disparity (B, H / 4, W / 4) and upsampling logits (B, 144, ...)."""
        evidence = [
            (left * warp(right, disparity + offset)).mean(dim=1)
            for offset in range(-SEARCH, SEARCH + 1)
        ]
        scaled = disparity / 16  # about the size of the other inputs
        state = self.correct(torch.cat([left, torch.stack([*evidence, scaled], dim=1)], dim=1))
        corrected = torch.relu(disparity + self.residual(state).squeeze(1))
        return corrected, self.weights(state)


class FastStereo(nn.Module):
    """Features, correlation volume at 1/8, aggregation, refinement at 1/4, convex upsampling.

    Args:
        attentions: site name -> module, as in ``FastAggregation``.
        max_disparity: pixels; a multiple of 16. It may be changed on a built network.
        mask_invalid: see ``FastAggregation``.
    """

    stride = STRIDE

    def __init__(
        self,
        attentions: Mapping[str, nn.Module],
        max_disparity: int,
        mask_invalid: bool = False,
    ) -> None:
        super().__init__()
        self.features = FastFeatures()
        self.aggregation = FastAggregation(attentions, mask_invalid)
        self.refinement = Refinement(FastFeatures.fine_channels)
        self.max_disparity = max_disparity

    def forward(
        self,
        left: Tensor,  # (B, 3, H, W)
        right: Tensor,  # (B, 3, H, W)
    ) -> Tensor | tuple[Tensor, ...]:  # (B, H, W)
        """Match a normalised pair; H and W are multiples of 16.

        Returns:
            Disparity in pixels; in training mode also those of the two stages before, best last.
        """
        check_views(left, right)
        left_fine, left_coarse = self.features(left)
        right_fine, right_coarse = self.features(right)
        planes = self.max_disparity // VOLUME_FACTOR
        volume = group_correlation(left_coarse, right_coarse, planes)
        coarse = expected_plane(self.aggregation(volume))  # (B, H / 8, W / 8), eighth pixels
        enlarged = 2 * _double(coarse[:, None])[:, 0]
        refined, weights = self.refinement(left_fine, right_fine, enlarged)
        disparity = convex_upsample(refined, weights)
        if not self.training:
            return disparity
        stages = [(coarse, VOLUME_FACTOR), (refined, FINE_FACTOR)]
        return (*(factor * _enlarge(d, left) for d, factor in stages), disparity)


def group_correlation(
    left: Tensor,  # (B, C, H, W)
    right: Tensor,  # (B, C, H, W)
    planes: int,
    groups: int = GROUPS,
) -> Tensor:  # (B, groups, planes, H, W)
    """Return the mean product of left[x] and right[x - d] per group of channels; 0 where x < d."""
    batch, _, height, width = left.shape
    left, right = (view.unflatten(1, (groups, -1)) for view in (left, right))
    volume = left.new_zeros(batch, groups, planes, height, width)
    for d in range(min(planes, width)):
        volume[:, :, d, :, d:] = (left[..., d:] * right[..., : width - d]).mean(dim=2)
    return volume


def expected_plane(logits: Tensor) -> Tensor:  # (B, D, H, W) -> (B, H, W)
    """Return the mean plane index under the softmax of the logits, in float32."""
    with torch.autocast(logits.device.type, enabled=False):
        weights = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)
        index = torch.arange(logits.shape[1], device=logits.device, dtype=weights.dtype)
        return torch.matmul(index, weights.flatten(2)).unflatten(1, logits.shape[2:])


def warp(
    right: Tensor,  # (B, C, H, W)
    disparity: Tensor,  # (B, H, W), pixels of this size
) -> Tensor:  # (B, C, H, W)
    """Fetch right[x - d] with linear interpolation along the row; 0 outside."""
    height, width = right.shape[2:]
    columns = torch.arange(width, device=right.device, dtype=torch.float32)
    rows = torch.linspace(-1, 1, height, device=right.device)
    x = 2 * (columns - disparity.float()) / max(width - 1, 1) - 1
    grid = torch.stack([x, rows[:, None].expand_as(x)], dim=3)
    return F.grid_sample(right, grid.to(right.dtype), align_corners=True)


def convex_upsample(
    disparity: Tensor,  # (B, H, W), pixels of this size
    logits: Tensor,  # (B, 9 * 16, H, W)
) -> Tensor:  # (B, 4H, 4W), pixels of the larger size
    """Let each fine pixel be a convex combination of the 3x3 coarse ones around it."""
    batch, height, width = disparity.shape
    with torch.autocast(disparity.device.type, enabled=False):
        values = disparity.to(torch.promote_types(disparity.dtype, torch.float32))
        weights = logits.to(values.dtype).view(batch, 9, FINE_FACTOR**2, height, width).softmax(1)
        padded = F.pad(FINE_FACTOR * values[:, None], (1, 1, 1, 1), mode="replicate")
        around = F.unfold(padded, 3).view(batch, 9, 1, height, width)
        fine = (weights * around).sum(dim=1)  # (B, 16, H, W)
        return F.pixel_shuffle(fine, FINE_FACTOR)[:, 0]


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


def _enlarge(disparity: Tensor, image: Tensor) -> Tensor:
    size = image.shape[2:]
    return F.interpolate(disparity[:, None], size, mode="bilinear", align_corners=False)[:, 0]
