"""PSMNet's shared feature extractor: a residual network and spatial pyramid pooling."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.models.blocks import ConvNorm2d, ResidualBlock2d, he_normal_
from stereo.models.recompute import Recomputable

POOL_SIZES = (64, 32, 16, 8)


class PyramidFeatures(Recomputable):
    """Image to a feature map at a quarter of its size; sample i is centred on pixel 4i.

    PSMNet (Chang and Chen, CVPR 2018), table 1, with the dilations of the authors' code.

    Args:
        align_corners: how pooled maps are enlarged; PSMNet's two conventions differ in it.
    """

    out_channels = 32

    def __init__(self, *, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.stem = nn.Sequential(
            ConvNorm2d(3, 32, stride=2), ConvNorm2d(32, 32), ConvNorm2d(32, 32)
        )
        self.stage1 = _stage(32, 32, blocks=3)
        self.stage2 = _stage(32, 64, blocks=16, stride=2)
        self.stage3 = _stage(64, 128, blocks=3)
        self.stage4 = _stage(128, 128, blocks=3, dilation=2)
        self.pyramid = nn.ModuleList(ConvNorm2d(128, 32, kernel=1) for _ in POOL_SIZES)
        self.fuse = ConvNorm2d(64 + 128 + 32 * len(POOL_SIZES), 128)
        self.project = nn.Conv2d(128, self.out_channels, 1, bias=False)
        he_normal_(self.project)

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 32, H / 4, W / 4)
        """Extract features; H and W are multiples of 4."""
        fine = self.stage2(self.stage1(self.stem(image)))
        coarse = self.stage4(self.stage3(fine))
        pooled = [self._pool(coarse, i) for i in reversed(range(len(POOL_SIZES)))]
        return self.project(self.fuse(torch.cat([fine, coarse, *pooled], dim=1)))

    def _pool(self, features: Tensor, level: int) -> Tensor:
        height, width = features.shape[2:]
        # PSMNet needs 256x256 images for its largest window; smaller ones are pooled whole.
        if torch.compiler.is_exporting():
            pooled = _averages(features, POOL_SIZES[level])
        else:
            window = (min(POOL_SIZES[level], height), min(POOL_SIZES[level], width))
            pooled = F.avg_pool2d(features, window, window)
        small = self.pyramid[level](pooled)
        return F.interpolate(
            small, (height, width), mode="bilinear", align_corners=self.align_corners
        )


def _averages(features: Tensor, window: int) -> Tensor:
    """Average in windows, or in one if the input is smaller, for traced sizes too."""
    height, width = features.shape[2:]
    missing: Any = (0, torch.sym_max(window - width, 0), 0, torch.sym_max(window - height, 0))
    inside = F.pad(torch.ones_like(features[:, :1]), missing)
    return F.avg_pool2d(F.pad(features, missing), window) / F.avg_pool2d(inside, window)


def _stage(
    in_channels: int, out_channels: int, *, blocks: int, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    first = ResidualBlock2d(in_channels, out_channels, stride=stride, dilation=dilation)
    rest = [
        ResidualBlock2d(out_channels, out_channels, dilation=dilation) for _ in range(blocks - 1)
    ]
    return nn.Sequential(first, *rest)
