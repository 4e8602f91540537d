"""Convolution, batch norm and activation: the bricks of all networks."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.models.convolution import Conv2d, Conv3d, ConvTranspose3d


class ConvNorm2d(nn.Module):
    """Conv2d without bias, batch norm, and ReLU unless ``activate`` is false."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel - 1) // 2
        self.conv = Conv2d(in_channels, out_channels, kernel, stride, padding, dilation, bias=False)
        he_normal_(self.conv)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = nn.ReLU(inplace=True) if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H / stride, W / stride)
        """Apply the three in order."""
        return self.activation(self.norm(self.conv(x)))


class ConvNorm3d(nn.Module):
    """Conv3d 3x3x3 without bias, batch norm, and ReLU unless ``activate`` is false."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, activate: bool = True
    ) -> None:
        super().__init__()
        self.conv = Conv3d(in_channels, out_channels, 3, stride, 1, bias=False)
        he_normal_(self.conv)
        self.norm = nn.BatchNorm3d(out_channels)
        self.activation = nn.ReLU(inplace=True) if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:  # (B, C, D, H, W) -> (B, C', D / stride, ...)
        """Apply the three in order."""
        return self.activation(self.norm(self.conv(x)))


class UpConvNorm3d(nn.Module):
    """ConvTranspose3d that doubles D, H and W, then batch norm; no activation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvTranspose3d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False
        )
        self.norm = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, D, H, W) -> (B, C', 2D, 2H, 2W)
        """Apply both in order."""
        return self.norm(self.conv(x))


class ResidualBlock2d(nn.Module):
    """Two 3x3 convolutions and a shortcut. As in PSMNet there is no ReLU after the sum."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.first = ConvNorm2d(in_channels, out_channels, stride=stride, dilation=dilation)
        self.second = ConvNorm2d(out_channels, out_channels, dilation=dilation, activate=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = ConvNorm2d(
                in_channels, out_channels, kernel=1, stride=stride, activate=False
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output plus its (projected) input."""
        return add(self.second(self.first(x)), self.shortcut(x))


def add(own: Tensor, other: Tensor) -> Tensor:
    """Return the sum, in place in ``own`` if no gradients are needed."""
    return own + other if torch.is_grad_enabled() else own.add_(other)


def relu(own: Tensor) -> Tensor:
    """Return the positive part, in place in ``own`` if no gradients are needed."""
    return F.relu(own, inplace=not torch.is_grad_enabled())


def he_normal_(conv: nn.Conv2d | nn.Conv3d) -> None:
    """Draw weights as PSMNet does: normal with variance 2 / (kernel size * out channels).

    Its transposed convolutions keep PyTorch's default.
    """
    fan_out = conv.out_channels * math.prod(conv.kernel_size)
    if not conv.weight.is_meta:  # where it would import PyTorch's compiler, for seconds
        nn.init.normal_(conv.weight, 0.0, math.sqrt(2.0 / fan_out))
