"""EA-Stereo: EA-Stereo-Fast with more context, a state, and a final refinement at half size.

Beside ``stereo.models.fast`` it has features at 1/32 and 1/2; weights of the volume's channels by
the left view (CoEx, Bangunharcana et al., IROS 2021); a refinement at 1/4 that hands a state on and
looks up the volume's logits beside the correlation; and one at 1/2 that compares the left view with
the right one warped to it, as HITNet does (Tankovich et al., CVPR 2021).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.models.blocks import ConvNorm2d, ResidualBlock2d
from stereo.models.convolution import Conv2d
from stereo.models.correlation import (
    convex_upsample,
    lookup_correlation,
    unit_groups,
    warp,
)
from stereo.models.fast import (
    FINE_FACTOR,
    FINE_GROUPS,
    SEARCH,
    VOLUME_FACTOR,
    VOLUME_WIDTH,
    FastAggregation,
    FastFeatures,
    FastStereo,
    upsample2x,
)
from stereo.models.recompute import Recomputable

HALF_FACTOR = 2
HALF_CHANNELS = 16
DEEPEST_WIDTH = 160
STATE = 48
PLANE_SEARCH = 2  # planes of the logits to either side
HALF_GROUPS = 2
HALF_SEARCH = 2  # cells of 2 px to either side
ITERATIONS = 3


class EAFeatures(FastFeatures):
    """Image to features at 1/2, 1/4 and 1/8 of its size, with context from 1/32."""

    def __init__(self) -> None:
        super().__init__()
        self.to_deepest = nn.Sequential(
            ResidualBlock2d(96, DEEPEST_WIDTH, stride=2),
            ResidualBlock2d(DEEPEST_WIDTH, DEEPEST_WIDTH),
        )
        self.from_deepest = nn.Conv2d(DEEPEST_WIDTH, 96, 1, bias=False)
        nn.init.zeros_(self.from_deepest.weight)
        self.fine_to_half = nn.Conv2d(self.fine_channels, 4 * HALF_CHANNELS, 1)
        self.to_output_half = nn.Sequential(
            ConvNorm2d(HALF_CHANNELS + 16, HALF_CHANNELS),
            nn.Conv2d(HALF_CHANNELS, HALF_CHANNELS, 1),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:  # (B, 3, H, W)
        """Return (B, 16, H / 2, W / 2), (B, 32, H / 4, W / 4) and (B, 64, H / 8, W / 8)."""
        half = self.to_half(image)
        quarter = self.to_quarter(half)
        eighth = self.to_eighth(quarter)
        sixteenth = self.to_sixteenth(eighth)
        deepest = self.from_deepest(self.to_deepest(sixteenth))
        deepest = F.interpolate(deepest, sixteenth.shape[2:], mode="bilinear", align_corners=False)
        coarse = self.to_coarse(torch.cat([upsample2x(sixteenth + deepest), eighth], dim=1))
        fine = self.to_fine(torch.cat([upsample2x(coarse), quarter], dim=1))
        enlarged = F.pixel_shuffle(self.fine_to_half(fine), 2)
        return self.to_output_half(torch.cat([enlarged, half], dim=1)), fine, coarse


class Excitation(nn.Module):
    """Weights a volume's channels, equally in all planes, by the left view's features.

    Args:
        channels: of the left view's features.
        width: channels of the volume.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.weights = nn.Conv2d(channels, width, 1)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)  # type: ignore[arg-type]

    def forward(
        self,
        volume: Tensor,  # (B, width, D, H, W)
        left: Tensor,  # (B, channels, H, W)
    ) -> Tensor:  # (B, width, D, H, W)
        """Return the volume times 0 to 2, 1 before training."""
        return volume * (2 * torch.sigmoid(self.weights(left)))[:, :, None]


class EAAggregation(FastAggregation):
    """``FastAggregation`` with excitation by the left view at 1/8 and 1/16."""

    def __init__(self, attentions: Mapping[str, nn.Module], mask_invalid: bool = False) -> None:
        super().__init__(attentions, mask_invalid)
        self.excite_eighth = Excitation(FastFeatures.coarse_channels, VOLUME_WIDTH)
        self.excite_sixteenth = Excitation(FastFeatures.coarse_channels, 2 * VOLUME_WIDTH)


class StateRefinement(Recomputable):
    """Corrects a quarter-size disparity from the correlation and logits around it.

    Args:
        channels: of the left view's features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.begin = ConvNorm2d(channels, STATE)
        evidence = FINE_GROUPS * (2 * SEARCH + 1) + 2 * PLANE_SEARCH + 1
        self.correct = nn.Sequential(
            ConvNorm2d(channels + evidence + 1 + STATE, STATE),
            ResidualBlock2d(STATE, STATE),
            ResidualBlock2d(STATE, STATE, dilation=2),
            ResidualBlock2d(STATE, STATE, dilation=4),
            ResidualBlock2d(STATE, STATE),
        )
        self.residual = nn.Conv2d(STATE, 1, 3, padding=1, bias=False)
        nn.init.zeros_(self.residual.weight)
        self.weights = nn.Sequential(ConvNorm2d(STATE, 48), nn.Conv2d(48, 9 * 2**2, 1))

    def forward(
        self,
        left: Tensor,  # (B, C, H / 4, W / 4)
        volume: Tensor,  # (B, 4, D / 4, H / 4, W / 4), correlation
        logits: Tensor,  # (B, D / 8, H / 4, W / 4)
        disparity: Tensor,  # (B, H / 4, W / 4), in units of 4 px
        state: Tensor,  # (B, 48, H / 4, W / 4)
    ) -> tuple[Tensor, Tensor]:
        """Return the corrected disparity and the state, with unchanged shapes."""
        at = disparity.detach()
        correlation = lookup_correlation(volume, at, SEARCH)
        logits_there = lookup_correlation(logits[:, None], at / 2, PLANE_SEARCH)
        planes = logits_there / 4  # about the size of the others
        scaled = disparity[:, None].to(left.dtype) / 16
        evidence = [correlation.to(left.dtype), scaled, planes.to(left.dtype), state]
        state = self.correct(torch.cat([left, *evidence], dim=1))
        corrected = torch.relu(disparity + self.residual(state).squeeze(1).to(disparity.dtype))
        return corrected, state

    def convex_upsample(self, disparity: Tensor, state: Tensor) -> Tensor:
        """Return the disparity in units of 2 px, (B, H / 2, W / 2), by weights of the state."""
        return convex_upsample(disparity, self.weights(state), 2)


class HalfRefinement(Recomputable):
    """Corrects a half-size disparity from the residual between the left and the warped right view.

    Args:
        channels: of a view's features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enlarge_state = nn.Conv2d(STATE, 4 * 16, 1)
        evidence = HALF_GROUPS * (2 * HALF_SEARCH + 1)
        self.correct = nn.Sequential(
            ConvNorm2d(channels + 16 + evidence + 2, 24),
            ResidualBlock2d(24, 24),
            ResidualBlock2d(24, 24, dilation=2),
        )
        self.residual = nn.Conv2d(24, 1, 3, padding=1, bias=False)
        nn.init.zeros_(self.residual.weight)
        self.weights = Conv2d(24, 9 * HALF_FACTOR**2, 3, padding=1)

    def forward(
        self,
        left: Tensor,  # (B, C, H / 2, W / 2)
        right: Tensor,  # (B, C, H / 2, W / 2)
        disparity: Tensor,  # (B, H / 2, W / 2), in units of 2 px
        state: Tensor,  # (B, 48, H / 4, W / 4)
    ) -> Tensor:  # (B, H, W)
        """Return the disparity in pixels at full size."""
        at = disparity.detach()
        similar = warped_correlation(left, warp(right, at), HALF_SEARCH)
        column = torch.arange(at.shape[-1], device=at.device)
        seen = ((column - at) / 8).clamp(-1, 1)[:, None].to(left.dtype)  # below 0: out of view
        smooth = F.avg_pool2d(disparity[:, None], 9, 1, 4, count_include_pad=False)
        relief = ((disparity[:, None] - smooth) / 4).to(left.dtype)
        state = F.pixel_shuffle(self.enlarge_state(state), 2)
        state = self.correct(torch.cat([left, state, similar, seen, relief], dim=1))
        corrected = torch.relu(disparity + self.residual(state).squeeze(1).to(disparity.dtype))
        return convex_upsample(corrected, self.weights(state), HALF_FACTOR)


def warped_correlation(
    left: Tensor,  # (B, C, H, W)
    warped: Tensor,  # (B, C, H, W)
    reach: int,
) -> Tensor:  # (B, 2 (2 reach + 1), H, W)
    """Return the cosine per half of the channels, the warped view moved by -reach to reach."""
    left = unit_groups(left, HALF_GROUPS)
    warped = unit_groups(warped, HALF_GROUPS)
    padded = F.pad(warped.flatten(1, 2), (reach, reach, 0, 0), mode="replicate")
    padded = padded.unflatten(1, (HALF_GROUPS, -1))
    width = left.shape[-1]
    moved = [padded[..., step : step + width] for step in range(2 * reach + 1)]
    return torch.cat([(left * each).mean(dim=2) for each in moved], dim=1)


class EAStereo(FastStereo):
    """Features, correlation, aggregation at 1/8, refinement at 1/4 and at 1/2.

    Args:
        arguments: those of ``FastStereo``.
    """

    features_type = EAFeatures
    aggregation_type = EAAggregation
    refinement_type = StateRefinement
    feature_factors = (HALF_FACTOR, FINE_FACTOR, VOLUME_FACTOR)

    def __init__(
        self,
        attentions: Mapping[str, nn.Module],
        max_disparity: int,
        mask_invalid: bool = False,
    ) -> None:
        super().__init__(attentions, max_disparity, mask_invalid)
        self.half_refinement = HalfRefinement(HALF_CHANNELS)

    def _match(
        self, left: Sequence[Tensor], right: Sequence[Tensor], max_disparity: int
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        volume, logits, disparity = self._initial(left, right, max_disparity)
        left_half, left_fine, _ = left
        state = self.refinement.begin(left_fine)
        stages = []
        for _ in range(ITERATIONS):
            stages.append(disparity)
            disparity, state = self.refinement(left_fine, volume, logits, disparity, state)
        disparity = self.refinement.convex_upsample(disparity, state)
        stages.append(disparity)
        return stages, self.half_refinement(left_half, right[0], disparity, state), logits
