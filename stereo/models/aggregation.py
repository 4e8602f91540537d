"""3D aggregation of the cost volume: logits over disparity planes, at a quarter of the size."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.models.blocks import ConvNorm3d, UpConvNorm3d, add, he_normal_, relu
from stereo.models.convolution import Conv3d
from stereo.models.cost_volume import valid_cells
from stereo.models.first_convolution import convolve_views, convolve_volume
from stereo.models.recompute import Recomputable
from stereo.models.winograd import convolve_by_planes

WIDTH = 32
SLAB = 4  # planes


class VolumeStem(Recomputable):
    """Two 3x3x3 convolutions over the concatenation volume of two views' features.

    On a CPU the volume itself is never made, unless ``plain`` is set, which gives the same values;
    on a GPU the many small steps of that cost more than they save.
    """

    plain = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm3d(2 * channels, WIDTH)
        self.second = ConvNorm3d(WIDTH, WIDTH)

    def forward(
        self,
        left: Tensor,  # (B, C, H, W)
        right: Tensor,  # (B, C, H, W)
        planes: int,
    ) -> Tensor:  # (B, 32, planes, H, W)
        """Convolve; both ways in ``stereo.models.first_convolution``."""
        convolve = convolve_volume if self.plain or left.is_cuda else convolve_views
        conv = self.first.conv
        volume = convolve(left, right, planes, conv.weight, conv.bias)
        return self.second(self.first.activation(self.first.norm(volume)))


class ResidualBlock3d(Recomputable):
    """Two 3x3x3 convolutions added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm3d(channels, channels)
        self.second = ConvNorm3d(channels, channels, activate=False)

    def forward(self, volume: Tensor) -> Tensor:  # (B, C, D, H, W), shape kept
        """Return input plus both convolutions."""
        return add(self.second(self.first(volume)), volume)


class LogitHead(Recomputable):
    """32 channels to one logit per cell."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = ConvNorm3d(WIDTH, WIDTH)
        self.project = nn.Conv3d(WIDTH, 1, 3, padding=1, bias=False)
        he_normal_(self.project)

    def forward(self, volume: Tensor) -> Tensor:  # (B, 32, D, H, W) -> (B, D, H, W)
        """Return the logits; larger is likelier."""
        by_slabs = volume.device.type == "cpu" and not torch.compiler.is_exporting()
        norm = self.hidden.norm
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training:
            by_slabs = False  # its statistics are of the whole volume
        if torch.is_grad_enabled() or not by_slabs:
            return self.project(self.hidden(volume)).squeeze(1)
        return project_by_slabs(self.hidden, volume, self.project.weight)


class Hourglass(Recomputable):
    """One encoder-decoder of the stack, with attention at 1/8 and 1/16 where it is given.

    Args:
        attentions: site name -> module on a 64-channel volume.
        mask_invalid: leave out as keys the cells whose match lies outside the right view.
    """

    def __init__(self, attentions: Mapping[str, nn.Module], mask_invalid: bool = False) -> None:
        super().__init__()
        self.mask_invalid = mask_invalid
        self.to_eighth = ConvNorm3d(WIDTH, 2 * WIDTH, stride=2)
        self.eighth = ConvNorm3d(2 * WIDTH, 2 * WIDTH, activate=False)
        self.to_sixteenth = ConvNorm3d(2 * WIDTH, 2 * WIDTH, stride=2)
        self.sixteenth = ConvNorm3d(2 * WIDTH, 2 * WIDTH)
        self.up_to_eighth = UpConvNorm3d(2 * WIDTH, 2 * WIDTH)
        self.up_to_quarter = UpConvNorm3d(2 * WIDTH, WIDTH)
        self.attention_eighth = attentions.get("eighth")
        self.attention_sixteenth = attentions.get("sixteenth")

    def forward(
        self,
        volume: Tensor,  # (B, 64, D / 2, H / 2, W / 2)
        encoded_skip: Tensor | None = None,  # (B, 64, D / 2, H / 2, W / 2)
        decoded_skip: Tensor | None = None,  # (B, 64, D / 2, H / 2, W / 2)
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Aggregate once.

        Args:
            volume: what ``to_eighth`` makes of the input at a quarter of the image size; apart from
                it, so that the input need not live as long as this pass.
            encoded_skip: the first hourglass's encoder output; joins this decoder.
            decoded_skip: the previous hourglass's decoder output; joins this encoder.

        Returns:
            Output (B, 32, D, H, W); at half of that size, the encoder's output, unless one was
            given, and the decoder's.
        """
        encoded = self.eighth(volume)
        if decoded_skip is not None:
            encoded = add(encoded, decoded_skip)
        encoded = attend_at_site(self.attention_eighth, relu(encoded), self.mask_invalid)
        coarse = self.sixteenth(self.to_sixteenth(encoded))
        coarse = attend_at_site(self.attention_sixteenth, coarse, self.mask_invalid)
        own = encoded if encoded_skip is None else None
        del encoded  # or it lives, unused, until the decoder is done
        skip = own if encoded_skip is None else encoded_skip
        assert skip is not None
        decoded = relu(add(self.up_to_eighth(coarse), skip))
        return self.up_to_quarter(decoded), own, decoded


class StackedHourglass(nn.Module):
    """PSMNet's stacked hourglass: three hourglasses, three supervised outputs.

    Args:
        in_channels: channels of one view's features.
        attentions: site name -> module; ``quarter`` acts on the volume before the first hourglass,
            the others inside the first hourglass.
        mask_invalid: leave out as keys the cells whose match lies outside the right view.
    """

    def __init__(
        self,
        in_channels: int,
        attentions: Mapping[str, nn.Module] | None = None,
        mask_invalid: bool = False,
    ) -> None:
        super().__init__()
        attentions = attentions or {}
        self.mask_invalid = mask_invalid
        self.enter = VolumeStem(in_channels)
        self.refine = ResidualBlock3d(WIDTH)
        self.attention_quarter = attentions.get("quarter")
        first = Hourglass(attentions, mask_invalid)
        self.hourglasses = nn.ModuleList([first, Hourglass({}), Hourglass({})])
        self.heads = nn.ModuleList(LogitHead() for _ in range(3))

    def forward(
        self,
        left: Tensor,  # (B, C, H, W)
        right: Tensor,  # (B, C, H, W)
        planes: int,
    ) -> list[Tensor]:  # 3 x (B, planes, H, W)
        """Return the logits after each hourglass, the last being the best."""
        cost = self.refine(self.enter(left, right, planes))
        cost = attend_at_site(self.attention_quarter, cost, self.mask_invalid)
        current, encoded, decoded = cost, None, None
        logits: list[Tensor] = []
        for hourglass, head in zip(self.hourglasses, self.heads, strict=True):
            current = hourglass.to_eighth(current)  # type: ignore[operator]
            current, own, decoded = hourglass(current, encoded, decoded)
            encoded = own if encoded is None else encoded  # the first one's, for all others
            current = add(current, cost)
            logits.append(head(current) + logits[-1] if logits else head(current))
        return logits


def project_by_slabs(hidden: ConvNorm3d, volume: Tensor, weight: Tensor) -> Tensor:
    """Convolve twice, the second time to one channel, holding few planes in between.

    The second is a matrix product and 27 shifted sums: CPU libraries compute blocks of output
    channels and would throw all but one away.

    Args:
        hidden: the first convolution, its norm folded or in evaluation mode.
        volume: (B, C, D, H, W).
        weight: (1, C, 3, 3, 3), of the second.

    Returns:
        (B, D, H, W), float32 or more: only the products are in the volume's precision.
    """
    batch, _, planes, height, width = volume.shape
    dtype = torch.promote_types(volume.dtype, torch.float32)
    out = volume.new_zeros(batch, planes + 2, height + 2, width + 2, dtype=dtype)
    for first in range(0, planes, SLAB):
        last = min(first + SLAB, planes)
        slab = _convolve_planes(hidden.conv, volume, range(first, last))
        slab = hidden.activation(hidden.norm(slab))
        for plane in range(first, last):
            cells = slab[:, :, plane - first].movedim(1, -1).flatten(0, 2)
            taps = weight[0].flatten(1).to(cells.dtype)  # (C, 27)
            products = (taps.t() @ cells.t()).unflatten(1, (batch, height, width))
            for product, (kd, ky, kx) in zip(
                products, itertools.product(range(3), repeat=3), strict=True
            ):
                out[:, plane + 2 - kd, 2 - ky : 2 - ky + height, 2 - kx : 2 - kx + width] += product
    return out[:, 1:-1, 1:-1, 1:-1]


def _convolve_planes(conv: Conv3d, volume: Tensor, planes: range) -> Tensor:
    """Convolve with padding 1; return some planes of the result."""
    if conv.by_planes(volume):
        return convolve_by_planes(volume, conv.weight, conv.bias, planes)
    ends = (int(planes.start == 0), int(planes.stop == volume.shape[2]))
    slab = volume[:, :, max(planes.start - 1, 0) : planes.stop + 1]
    slab = F.pad(slab, (0, 0, 0, 0, *ends)) if any(ends) else slab
    return F.conv3d(slab, conv.weight, conv.bias, padding=(0, 1, 1))


def attend_at_site(attention: nn.Module | None, volume: Tensor, mask_invalid: bool) -> Tensor:
    """Attend over a (B, C, D, H, W) volume, if there is an attention at this site."""
    if attention is None:
        return volume
    return attention(volume, valid_cells(volume) if mask_invalid else None)


class ResidualStack(nn.Module):
    """PSMNet's basic aggregation: residual blocks at one resolution, one output."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.enter = VolumeStem(in_channels)
        self.residuals = nn.Sequential(*(ResidualBlock3d(WIDTH) for _ in range(4)))
        self.head = LogitHead()

    def forward(
        self,
        left: Tensor,  # (B, C, H, W)
        right: Tensor,  # (B, C, H, W)
        planes: int,
    ) -> list[Tensor]:  # 1 x (B, planes, H, W)
        """Return the logits, in a list for one signature with ``StackedHourglass``."""
        return [self.head(self.residuals(self.enter(left, right, planes)))]
