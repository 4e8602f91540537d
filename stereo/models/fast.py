"""EA-Stereo-Fast: the family for CPUs and small devices.

Features at 1/4 and 1/8; group-wise correlation (GwcNet, Guo et al., CVPR 2019) of unit features at
both; a small 3D encoder-decoder with attention over the volume at 1/8; left features predict
per-pixel weights that upsample each cell's logits 2x2; refinement at 1/4 that looks up the
correlation around the current disparity, and convex upsampling (RAFT, Teed and Deng, ECCV 2020).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.models.aggregation import attend_at_site
from stereo.models.blocks import ConvNorm2d, ConvNorm3d, ResidualBlock2d, UpConvNorm3d, add, relu
from stereo.models.certainty import with_certainty
from stereo.models.config import SPARE
from stereo.models.convolution import Conv3d
from stereo.models.correlation import (
    convex_upsample,
    group_correlation,
    local_soft_argmax,
    lookup_correlation,
    upsample_logits,
)
from stereo.models.network import StereoNetwork, TrainingOutputs
from stereo.models.recompute import Recomputable

GROUPS = 8
FINE_GROUPS = 4
VOLUME_WIDTH = 16
VOLUME_FACTOR = 8
FINE_FACTOR = 4
EVIDENCE = 8  # channels of the volume that the left view weights into logits
SEARCH = 4  # cells of 4 px to either side, for the refinement
ITERATIONS = 2


class FastFeatures(Recomputable):
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

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:  # (B, 3, H, W)
        """Return (B, 32, H / 4, W / 4) and (B, 64, H / 8, W / 8)."""
        quarter = self.to_quarter(self.to_half(image))
        eighth = self.to_eighth(quarter)
        coarse = self.to_coarse(torch.cat([upsample2x(self.to_sixteenth(eighth)), eighth], dim=1))
        return self.to_fine(torch.cat([upsample2x(coarse), quarter], dim=1)), coarse


class FastAggregation(Recomputable):
    """3D encoder-decoder over the correlation volumes at 1/8 and 1/4.

    Args:
        attentions: ``eighth``: on the volume; ``sixteenth``: on its encoding at half the size.
        mask_invalid: leave out as keys the cells whose match lies outside the right view.
    """

    def __init__(self, attentions: Mapping[str, nn.Module], mask_invalid: bool = False) -> None:
        super().__init__()
        self.mask_invalid = mask_invalid
        self.enter_coarse = ConvNorm3d(GROUPS, VOLUME_WIDTH, activate=False)
        self.enter_fine = ConvNorm3d(FINE_GROUPS, VOLUME_WIDTH, stride=2, activate=False)
        self.enter = ConvNorm3d(VOLUME_WIDTH, VOLUME_WIDTH)
        self.excite_eighth: nn.Module | None = None
        self.attention_eighth = attentions.get("eighth")
        self.down = nn.Sequential(
            ConvNorm3d(VOLUME_WIDTH, 2 * VOLUME_WIDTH, stride=2),
            ConvNorm3d(2 * VOLUME_WIDTH, 2 * VOLUME_WIDTH),
        )
        self.excite_sixteenth: nn.Module | None = None
        self.attention_sixteenth = attentions.get("sixteenth")
        self.bottom = nn.Sequential(
            ConvNorm3d(2 * VOLUME_WIDTH, 4 * VOLUME_WIDTH, stride=2),
            ConvNorm3d(4 * VOLUME_WIDTH, 4 * VOLUME_WIDTH),
        )
        self.up_to_sixteenth = UpConvNorm3d(4 * VOLUME_WIDTH, 2 * VOLUME_WIDTH)
        self.merge = ConvNorm3d(2 * VOLUME_WIDTH, 2 * VOLUME_WIDTH)
        self.up_to_eighth = UpConvNorm3d(2 * VOLUME_WIDTH, VOLUME_WIDTH)
        self.leave = nn.Sequential(
            ConvNorm3d(VOLUME_WIDTH, VOLUME_WIDTH),
            Conv3d(VOLUME_WIDTH, EVIDENCE, 3, padding=1),
        )

    def forward(
        self,
        volume: Tensor,  # (B, 8, D, H, W)
        fine: Tensor,  # (B, 4, 2 D, 2 H, 2 W)
        left: Tensor,  # (B, 64, H, W)
    ) -> Tensor:  # (B, 8, D, H, W)
        """Return the evidence for each cell, of which ``upsample_logits`` makes logits."""
        volume = self.enter(relu(add(self.enter_coarse(volume), self.enter_fine(fine))))
        if self.excite_eighth is not None:
            volume = self.excite_eighth(volume, left)
        volume = attend_at_site(self.attention_eighth, volume, self.mask_invalid)
        coarse = self.down(volume)
        if self.excite_sixteenth is not None:
            coarse = self.excite_sixteenth(coarse, F.avg_pool2d(left, 2, ceil_mode=True))
        coarse = attend_at_site(self.attention_sixteenth, coarse, self.mask_invalid)
        coarse = self.merge(add_enlarged(coarse, self.through_bottom(coarse)))
        return self.leave(add_enlarged(volume, self.up_to_eighth(coarse)))

    def through_bottom(self, coarse: Tensor) -> Tensor:
        """Return the encoding at 1/32, decoded; it may be one cell too large along odd sides."""
        if self.training and coarse.device.type == "cpu":
            # Gradients of bf16 3D convolutions over a few cells are not finite there (torch 2.15).
            with torch.autocast("cpu", enabled=False):
                dtype = torch.promote_types(coarse.dtype, torch.float32)
                return self.up_to_sixteenth(self.bottom(coarse.to(dtype)))
        return self.up_to_sixteenth(self.bottom(coarse))


class Refinement(Recomputable):
    """Corrects a quarter-size disparity from the correlation around it.

    Args:
        channels: of the left view's features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        evidence = FINE_GROUPS * (2 * SEARCH + 1)
        self.correct = nn.Sequential(
            ConvNorm2d(channels + evidence + 1, 48),
            ResidualBlock2d(48, 48),
            ResidualBlock2d(48, 48, dilation=2),
            ResidualBlock2d(48, 48, dilation=4),
            ResidualBlock2d(48, 48),
        )
        self.residual = nn.Conv2d(48, 1, 3, padding=1, bias=False)
        nn.init.zeros_(self.residual.weight)
        self.weights = nn.Sequential(ConvNorm2d(48, 64), nn.Conv2d(64, 9 * FINE_FACTOR**2, 1))

    def forward(
        self,
        left: Tensor,  # (B, C, H / 4, W / 4)
        volume: Tensor,  # (B, 4, D / 4, H / 4, W / 4), correlation
        disparity: Tensor,  # (B, H / 4, W / 4), in units of 4 px
    ) -> tuple[Tensor, Tensor]:
        """Return the corrected disparity (B, H / 4, W / 4) and the state (B, 48, H / 4, W / 4)."""
        evidence = lookup_correlation(volume, disparity.detach(), SEARCH)
        scaled = disparity[:, None].to(left.dtype) / 16  # about the size of the other inputs
        state = self.correct(torch.cat([left, evidence.to(left.dtype), scaled], dim=1))
        corrected = torch.relu(disparity + self.residual(state).squeeze(1).to(disparity.dtype))
        return corrected, state

    def convex_upsample(self, disparity: Tensor, state: Tensor) -> Tensor:
        """Return the disparity in pixels at full size, (B, H, W), by weights of the state."""
        return convex_upsample(disparity, self.weights(state), FINE_FACTOR)


class FastStereo(StereoNetwork):
    """Features, correlation, aggregation at 1/8, refinement at 1/4, convex upsampling.

    Args:
        attentions: site name -> module, as in ``FastAggregation``.
        max_disparity: pixels; a multiple of 16, the range it is trained with. It may be changed on
            a built network.
        mask_invalid: see ``FastAggregation``.
    """

    features_type: type[FastFeatures] = FastFeatures
    aggregation_type: type[FastAggregation] = FastAggregation
    refinement_type: Any = Refinement
    feature_factors: tuple[int, ...] = (FINE_FACTOR, VOLUME_FACTOR)
    coarsest_factor = 32

    def __init__(
        self,
        attentions: Mapping[str, nn.Module],
        max_disparity: int,
        mask_invalid: bool = False,
    ) -> None:
        super().__init__()
        self.features = self.features_type()
        self.aggregation = self.aggregation_type(attentions, mask_invalid)
        self.guide = upsampling_weights()
        self.refinement = self.refinement_type(self.features_type.fine_channels)
        self.max_disparity = self.trained_disparity = max_disparity

    def extract(self, view: Tensor) -> tuple[Tensor, ...]:  # noqa: D102
        return self.features(view)

    def match(  # noqa: D102
        self,
        left: Sequence[Tensor],
        right: Sequence[Tensor],
    ) -> Tensor | TrainingOutputs:
        stages, best, logits = self._match(left, right, self.max_disparity)
        if not self.training:
            return best.clamp(max=self.max_disparity)
        outputs = [upsample_disparity(each, best.shape[-1] // each.shape[-1]) for each in stages]
        return TrainingOutputs((*outputs, best), logits, VOLUME_FACTOR)

    def estimate(  # noqa: D102
        self, left: Sequence[Tensor], right: Sequence[Tensor], max_disparity: int | None = None
    ) -> Tensor:
        reach = max_disparity or self.max_disparity
        _, best, logits = self._match(left, right, reach)
        return with_certainty(best.clamp(max=reach), logits)

    def _match(
        self, left: Sequence[Tensor], right: Sequence[Tensor], max_disparity: int
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return earlier disparities at their own sizes, the map and the volume's logits."""
        volume, logits, disparity = self._initial(left, right, max_disparity)
        stages = []
        for _ in range(ITERATIONS):
            stages.append(disparity)
            disparity, state = self.refinement(left[-2], volume, disparity)
        return stages, self.refinement.convex_upsample(disparity, state), logits

    def _initial(
        self, left: Sequence[Tensor], right: Sequence[Tensor], max_disparity: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the correlation at 1/4, the logits and their disparity in units of 4 px."""
        left_fine, left_coarse = left[-2:]
        right_fine, right_coarse = right[-2:]
        searched = max_disparity + (SPARE if max_disparity != self.trained_disparity else 0)
        planes = searched // VOLUME_FACTOR
        coarse_volume = group_correlation(left_coarse, right_coarse, planes, GROUPS)
        volume = group_correlation(left_fine, right_fine, 2 * planes, FINE_GROUPS)
        evidence = self.aggregation(coarse_volume, volume, left_coarse)
        view = torch.cat([left_coarse, F.pixel_unshuffle(left_fine, 2)], dim=1)
        logits = upsample_logits(evidence, self.guide(view))  # (B, D / 8, H / 4, W / 4)
        return volume, logits, 2 * local_soft_argmax(logits)


def upsampling_weights() -> nn.Module:
    """Return the layers that predict the weights of ``upsample_logits`` from the left view."""
    channels = FastFeatures.coarse_channels + 4 * FastFeatures.fine_channels
    return nn.Sequential(ConvNorm2d(channels, 64), nn.Conv2d(64, 4 * EVIDENCE, 1))


def add_enlarged(volume: Tensor, doubled: Tensor) -> Tensor:
    """Return relu of the sum; ``doubled`` is one cell too large along odd sides."""
    depth, height, width = volume.shape[2:]
    return relu(add(volume, doubled[:, :, :depth, :height, :width]))


def upsample2x(features: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, 2 H, 2 W)
    """Enlarge features."""
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


def upsample_disparity(
    disparity: Tensor, factor: int
) -> Tensor:  # (B, H, W) -> (B, factor H, factor W)
    """Return a disparity in the pixels of a larger size."""
    larger = F.interpolate(
        disparity[:, None], scale_factor=factor, mode="bilinear", align_corners=False
    )
    return factor * larger[:, 0]
