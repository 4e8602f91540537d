"""Run a network on images of any size, within the memory that is there."""

import contextlib
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.attention import VolumeAttention
from stereo.errors import StereoError, UsageError, unknown_name
from stereo.matching.memory import bytes_needed, largest_core
from stereo.matching.windows import OVERLAP, SMALLEST_CORE, match_in_windows
from stereo.models import NetworkConfig, StereoNetwork
from stereo.models.config import BF16_NETWORKS, ENLARGED_PIXELS, STRIDE
from stereo.models.folding import fold_batch_norms
from stereo.models.kernels import pick_kernels, use_kernels
from stereo.system.runtime import (
    exact_fp32,
    free_bytes,
    give_back_freed_memory,
    is_out_of_memory,
    large_blocks_kept,
    pick_dtype,
    to_channels_last,
)

SCALES = ("auto", "1", "2")
RANGE_MARGIN = 32  # pixels searched beyond the largest disparity found at the smaller size
NOT_FINITE = (
    "the network gave values that are not finite: damaged weights, or too little range in this "
    "precision; try --precision fp32"
)
FREE_SHARE = 0.9  # of the free memory that a match may plan with


@dataclass(frozen=True, eq=False)
class Estimate:
    """What an engine gives for a pair.

    Attributes:
        disparity: (H, W) float32, pixels.
        certainty: (2, H, W) float32, see ``stereo.models.certainty``; None of an engine without a
            distribution of disparities.
        again: seconds of the second match, at twice the size; 0 where there was none.
    """

    disparity: np.ndarray
    certainty: np.ndarray | None = None
    again: float = 0.0


@dataclass(frozen=True)
class Manner:
    """How a network is applied to a pair; ``stereo.load`` says more of each."""

    scale: str = "1"
    """``auto``, ``1`` or ``2``."""
    tile: str = "off"
    """``auto``, ``off``, or the height and width of a tile's core in pixels."""
    coarse_to_fine: bool = False
    """Whether to search only the range that was found at half the size."""

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise unknown_name("scale", self.scale, SCALES)
        if self.tile in ("auto", "off"):
            return
        if not self.tile.isdecimal() or int(self.tile) < SMALLEST_CORE or int(self.tile) % STRIDE:
            raise UsageError(
                f"tile '{self.tile}': expected auto, off, or pixels, "
                f"a multiple of {STRIDE} from {SMALLEST_CORE} on"
            )


def prepare(network: StereoNetwork) -> None:
    """Make a network as fast as it gets without changing its maps, in place; not for training."""
    fold_batch_norms(network.eval())
    to_channels_last(network)
    for module in network.modules():
        if isinstance(module, VolumeAttention):
            module.overwrites = True


class NetworkEngine:
    """Runs a network on images of any size: normalise, pad, match, crop.

    Args:
        network: the network.
        config: its conventions.
        device: where to run.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        manner: at which size, over which range and in which pieces.
        kernels: ``auto``, ``torch`` or ``triton``.
        added_columns: how many columns of the views are padding that ``scale`` shall not count.
    """

    def __init__(
        self,
        network: StereoNetwork,
        config: NetworkConfig,
        device: torch.device,
        precision: str,
        manner: Manner = Manner(),
        kernels: str = "torch",
        added_columns: int = 0,
    ) -> None:
        self.network = network.eval().to(device)
        self.config = config
        self.device = device
        self.dtype = pick_dtype(precision, device, bf16_serves=config.name in BF16_NETWORKS)
        self.manner = manner
        self.added_columns = added_columns
        # In fp32 the volumes of 3D networks would not fit the gaps that others leave.
        compact = self.dtype is not torch.float32 or config.name in BF16_NETWORKS
        self.keeps_large = compact and device.type == "cpu"
        self.kernels = pick_kernels(kernels, device)
        use_kernels(self.network, self.kernels)

    @torch.inference_mode()
    def __call__(self, lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]) -> list[Estimate]:
        """Match views of one size, (H, W, 3) uint8 each."""
        left, right = (normalise(views, self.config, self.device) for views in (lefts, rights))
        again = 0.0
        keeping = large_blocks_kept(enabled=self.keeps_large)
        with keeping, computing_in(self.dtype, self.device):
            found = self._match(left, right, self._range(left, right))
            if self._enlarges(left):
                most = _range_beyond(found, 2 * self.network.max_disparity)
                start = time.perf_counter()
                found = self._match_enlarged(left, right, most).cpu()
                again = (time.perf_counter() - start) / len(lefts)
        return [Estimate(each[0], each[1:], again) for each in found.cpu().numpy()]

    def _enlarges(self, view: Tensor) -> bool:
        if self.manner.scale != "auto":
            return self.manner.scale == "2"
        pixels = view.shape[2] * (view.shape[3] - self.added_columns)
        return pixels <= ENLARGED_PIXELS.get(self.config.name, 0)

    def _range(self, left: Tensor, right: Tensor) -> int:
        """Return the range to search at the views' own size."""
        most = self.network.max_disparity
        if not self.manner.coarse_to_fine or min(left.shape[2:]) < 2:
            return most
        left, right = (F.interpolate(v, scale_factor=0.5, mode="area") for v in (left, right))
        return _range_beyond(self._match(left, right, _whole_planes(most / 2)), most)

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
        usual = self.network.max_disparity
        self.network.max_disparity = max_disparity
        try:
            found = self._match_within_memory(left, right)
        finally:
            self.network.max_disparity = usual
        # Before it says which range to search next.
        if not found.isfinite().all():
            raise StereoError(NOT_FINITE)
        return found[..., -height:, :width].clamp(min=0)

    def _match_within_memory(self, left: Tensor, right: Tensor) -> Tensor:
        """Match whole or in tiles; in smaller ones where the memory proves too small."""
        height, width = left.shape[2:]
        core = self._core(left)
        while True:
            try:
                if core is None:
                    extract = self.network.extract
                    return self.network.estimate(extract(left), extract(right))
                return match_in_windows(self.network, left, right, (core, core), OVERLAP)
            except (MemoryError, RuntimeError) as error:
                smaller = (core or max(height, width)) // 2 // STRIDE * STRIDE
                can_go_smaller = self.manner.tile == "auto" and smaller >= SMALLEST_CORE
                if not (can_go_smaller and is_out_of_memory(error)):
                    raise
            core = smaller
            warnings.warn(
                f"out of memory matching {width}x{height} pixels: matched in tiles of {core} px",
                stacklevel=2,
            )

    def _core(self, view: Tensor) -> int | None:
        """Return the size of the tiles' cores, or None to match whole."""
        if self.manner.tile == "off":
            return None
        batch, _, height, width = view.shape
        if self.manner.tile != "auto":
            return int(self.manner.tile)
        candidates = self.network.max_disparity
        needed = bytes_needed(self.config, batch, (height, width), candidates, self.dtype)
        if needed > FREE_SHARE * free_bytes(self.device):
            give_back_freed_memory()
        free = int(FREE_SHARE * free_bytes(self.device))
        if needed <= free:
            return None
        core = largest_core(self.config, batch, (height, width), candidates, self.dtype, free)
        warnings.warn(
            f"{width}x{height} pixels and {candidates} disparities would take about "
            f"{needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free: matched in tiles of "
            f"{core} px; see --tile",
            stacklevel=2,
        )
        return core


@contextlib.contextmanager
def computing_in(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Run a network in a precision: under autocast, and in fp32 without shortcuts."""
    fp32 = dtype is torch.float32
    with torch.autocast(device.type, dtype, enabled=not fp32), exact_fp32(enabled=fp32):
        yield


def normalise(
    views: Sequence[np.ndarray], config: NetworkConfig, device: torch.device
) -> Tensor:  # (B, 3, H, W)
    """Turn (H, W, 3) uint8 views of one size into what a network takes."""
    pixels = torch.from_numpy(np.stack(views)).to(device).permute(0, 3, 1, 2)
    mean = torch.tensor(config.mean, device=device).view(3, 1, 1)
    std = torch.tensor(config.std, device=device).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std


def pad_to_multiple(image: Tensor, multiple: int, padding: str) -> Tensor:
    """Fill an image up at the top and right, PSMNet's sides, so that x - d keeps its meaning.

    Args:
        image: (B, C, H, W).
        multiple: of which the result's height and width are.
        padding: ``replicate`` or ``zeros``.

    Returns:
        (B, C, H', W'); the input is ``result[..., -H:, :W]``.
    """
    height, width = image.shape[2:]
    right, top = -width % multiple, -height % multiple
    if padding == "zeros":
        return F.pad(image, (0, right, top, 0))
    return F.pad(image, (0, right, top, 0), mode="replicate")


def _range_beyond(found: Tensor, most: int) -> int:
    """Return the range to search at twice the size at which a map was found."""
    return min(most, _whole_planes(2 * float(found[:, 0].max()) + RANGE_MARGIN))


def _whole_planes(pixels: float) -> int:
    return STRIDE * math.ceil(pixels / STRIDE)
