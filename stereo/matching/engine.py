"""Run a network on images of any size within the available memory."""

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.attention import VolumeAttention
from stereo.errors import StereoError
from stereo.matching.estimate import Estimate
from stereo.matching.memory import bytes_needed, largest_tile
from stereo.matching.options import MatchOptions
from stereo.matching.tiles import CONTEXT, MIN_TILE, match_in_tiles
from stereo.models import NetworkConfig, StereoNetwork
from stereo.models.config import EA_STEREOS, STRIDE
from stereo.models.folding import fold_batch_norms
from stereo.models.kernels import pick_kernels, use_kernels
from stereo.system.heap import large_blocks_kept, trim_heap
from stereo.system.runtime import (
    exact_fp32,
    free_bytes,
    is_out_of_memory,
    pick_device,
    pick_dtype,
    to_channels_last,
)

RANGE_MARGIN = 32  # pixels searched beyond the largest disparity found at the smaller size
NOT_FINITE = (
    "the network gave values that are not finite: damaged weights, or too little range in this "
    "precision; try --precision fp32"
)
FREE_SHARE = 0.9  # of the free memory that a match may plan with


def optimize_for_inference(network: StereoNetwork) -> None:
    """Fold batch norms, use channels-last and in-place attention; outputs are unchanged."""
    fold_batch_norms(network.eval())
    to_channels_last(network)
    for module in network.modules():
        if isinstance(module, VolumeAttention):
            module.inplace = True


class NetworkEngine:
    """Runs a network on images of any size: normalise, pad, match, crop.

    Args:
        network: the network.
        config: its conventions.
        options: how it matches. The search range is the network's.
    """

    fixed_range = False

    def __init__(
        self, network: StereoNetwork, config: NetworkConfig, options: MatchOptions
    ) -> None:
        device = pick_device(options.device)
        self.network = network.eval().to(device)
        self.config = config
        self.options = options
        self.device = device
        self.dtype = pick_dtype(options.precision, device, bf16_by_default=config.bf16_by_default)
        # In fp32 the volumes of 3D networks would not fit the gaps that others leave.
        compact = self.dtype is not torch.float32 or config.name in EA_STEREOS
        self.keeps_large = compact and device.type == "cpu"
        self.kernels = pick_kernels(options.kernels, device)
        use_kernels(self.network, self.kernels)

    @torch.inference_mode()
    def __call__(self, lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]) -> list[Estimate]:
        """Match views of one size, (H, W, 3) uint8 each."""
        enlarges = self.options.scale == "2"
        if len(lefts) > 1 and (enlarges or self.options.coarse_to_fine):
            # A first match tells the range of the second one, for each pair its own.
            return [self([one], [two])[0] for one, two in zip(lefts, rights, strict=True)]
        left, right = (
            normalise(views, self.config.mean, self.config.std, self.device)
            for views in (lefts, rights)
        )
        keeping = large_blocks_kept(enabled=self.keeps_large)
        with keeping, computing_in(self.dtype, self.device):
            found = self._match(left, right, self._range(left, right))
            if enlarges:
                limit = _range_beyond(found, 2 * self.network.max_disparity)
                found = self._match_enlarged(left, right, limit)
        return [Estimate(each[0].copy(), each[1:].copy()) for each in found.cpu().numpy()]

    def _range(self, left: Tensor, right: Tensor) -> int:
        """Return the range to search at the views' own size."""
        limit = self.network.max_disparity
        if not self.options.coarse_to_fine or min(left.shape[2:]) < 2:
            return limit
        left, right = (F.interpolate(v, scale_factor=0.5, mode="area") for v in (left, right))
        return _range_beyond(self._match(left, right, _whole_planes(limit / 2)), limit)

    def _match_enlarged(self, left: Tensor, right: Tensor, max_disparity: int) -> Tensor:
        """Match at twice the size, over a range in pixels of that size."""
        left, right = (
            F.interpolate(view, scale_factor=2, mode="bicubic", align_corners=False)
            for view in (left, right)
        )
        fine = self._match(left, right, max_disparity)
        four = F.pixel_unshuffle(fine[:, :1], 2)  # (B, 4, H, W)
        # Not the mean of all: where an edge runs through a pixel, that is no surface's.
        disparity = four.sort(dim=1).values[:, 1:3].mean(dim=1, keepdim=True) / 2
        return torch.cat([disparity, F.avg_pool2d(fine[:, 1:], 2)], dim=1)

    def _match(self, left: Tensor, right: Tensor, max_disparity: int) -> Tensor:  # (B, 3, H, W)
        height, width = left.shape[2:]
        left, right = (
            pad_to_multiple(view, self.network.stride, self.config.padding)
            for view in (left, right)
        )
        found = self._match_within_memory(left, right, max_disparity)
        # Before it says which range to search next.
        if not found.isfinite().all():
            raise StereoError(NOT_FINITE)
        return found[..., -height:, :width].clamp(min=0)

    def _match_within_memory(self, left: Tensor, right: Tensor, max_disparity: int) -> Tensor:
        """Match whole or in tiles; retry in smaller ones if memory runs out."""
        height, width = left.shape[2:]
        tile = self._tile(left, max_disparity)
        while True:
            try:
                if tile is None:
                    extract = self.network.extract
                    return self.network.estimate(extract(left), extract(right), max_disparity)
                return match_in_tiles(
                    self.network, left, right, (tile, tile), CONTEXT, max_disparity
                )
            except (MemoryError, RuntimeError) as error:
                smaller = (tile or max(height, width)) // 2 // STRIDE * STRIDE
                can_go_smaller = self.options.tile == "auto" and smaller >= MIN_TILE
                if not (can_go_smaller and is_out_of_memory(error)):
                    raise
            tile = smaller
            warnings.warn(
                f"out of memory matching {width}x{height} pixels: matched in tiles of {tile} px",
                stacklevel=2,
            )

    def _tile(self, view: Tensor, max_disparity: int) -> int | None:
        """Return the size of tiles in pixels, or None to match the whole image."""
        if self.options.tile == "off":
            return None
        batch, _, height, width = view.shape
        if self.options.tile != "auto":
            return int(self.options.tile)
        needed = bytes_needed(self.config, batch, (height, width), max_disparity, self.dtype)
        if needed > FREE_SHARE * free_bytes(self.device):
            trim_heap()
        free = int(FREE_SHARE * free_bytes(self.device))
        if needed <= free:
            return None
        tile = largest_tile(self.config, batch, (height, width), max_disparity, self.dtype, free)
        warnings.warn(
            f"{width}x{height} pixels and {max_disparity} disparities would take about "
            f"{needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free: matched in tiles of "
            f"{tile} px; see --tile",
            stacklevel=2,
        )
        return tile


@contextlib.contextmanager
def computing_in(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Run a network in a precision: under autocast, and in fp32 without shortcuts."""
    fp32 = dtype is torch.float32
    with torch.autocast(device.type, dtype, enabled=not fp32), exact_fp32(enabled=fp32):
        yield


def normalise(
    views: Sequence[np.ndarray], mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Tensor:  # (B, 3, H, W)
    """Turn (H, W, 3) uint8 views of one size into (RGB / 255 - mean) / std."""
    pixels = torch.from_numpy(np.stack(views)).to(device).permute(0, 3, 1, 2)
    shift, scale = (
        torch.tensor(each, dtype=torch.float32, device=device).view(3, 1, 1) for each in (mean, std)
    )
    return (pixels.float() / 255 - shift) / scale


def pad_to_multiple(image: Tensor, multiple: int, padding: str) -> Tensor:
    """Pad an image at the top and right, as PSMNet does, so that x - d keeps its meaning.

    Args:
        image: (B, C, H, W).
        multiple: the result's height and width are multiples of it.
        padding: ``replicate`` or ``zeros``.

    Returns:
        (B, C, H', W'); the input is ``result[..., -H:, :W]``.
    """
    height, width = image.shape[2:]
    right, top = -width % multiple, -height % multiple
    if padding == "zeros":
        return F.pad(image, (0, right, top, 0))
    return F.pad(image, (0, right, top, 0), mode="replicate")


def _range_beyond(found: Tensor, limit: int) -> int:
    """Return the range to search at twice the size at which a map was found."""
    return min(limit, _whole_planes(2 * float(found[:, 0].max()) + RANGE_MARGIN))


def _whole_planes(pixels: float) -> int:
    return STRIDE * math.ceil(pixels / STRIDE)
