"""Match one pair or many: any size, any engine, one interface."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.bundled import DEFAULT_MAX_DISPARITY, DEFAULT_MODEL, SGBM, bundled_weights
from stereo.checkpoint import file_sha256, load_checkpoint, restore_network
from stereo.data.images import ImageLike, as_image
from stereo.data.sample import check_same_size
from stereo.errors import InputError, StereoError, UsageError, unknown_name
from stereo.model import NETWORK_NAMES, NetworkConfig, StereoNetwork, build_network
from stereo.model.config import BF16_NETWORKS, ENLARGED_PIXELS, STRIDE, check_max_disparity
from stereo.model.folding import fold_batch_norms
from stereo.opencv import import_cv2
from stereo.runtime import pick_device, pick_dtype, to_channels_last
from stereo.sgbm import SGBM_LIMIT, semi_global_matching
from stereo.version import __version__

SCALES = ("auto", "1", "2")
RANGE_MARGIN = 32  # pixels searched beyond the largest disparity found at the smaller size
Engine = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Result:
    """What a match gives.

    Attributes:
        disparity: (H, W) float32, pixels of the left image; finite, never negative.
        seconds: time of the match, without reading the images.
    """

    disparity: np.ndarray
    seconds: float


class Matcher:
    """A model ready to match; made by ``stereo.load``.

    Args:
        engine: lists of (H, W, 3) uint8 views of one size to a list of (H, W) float32 disparities.
        network: the network behind the engine; None for semi-global matching.
        description: what ``metrics.json`` stores about the model.
    """

    def __init__(
        self, engine: Engine, network: StereoNetwork | None, description: dict[str, Any]
    ) -> None:
        self._engine = engine
        self.network = network
        self.description = description

    def __call__(self, left: ImageLike, right: ImageLike) -> Result:
        """Match one rectified pair of any size.

        Args:
            left: (H, W, 3) uint8 array (RGB), PIL image or path; grey, RGBA and uint16 are
                converted.
            right: the same.

        Raises:
            InputError: unreadable, or of different sizes.
        """
        return self.batch([left], [right])[0]

    def batch(self, lefts: Sequence[ImageLike], rights: Sequence[ImageLike]) -> list[Result]:
        """Match several pairs at once.

        Args:
            lefts: left views as in ``__call__``; all of one size.
            rights: as many right views.

        Returns:
            One result per pair; ``seconds`` is the batch's time divided by its size.

        Raises:
            InputError: unreadable, or of different sizes.
            StereoError: the network's output is not finite.
        """
        left_images = [as_image(image, _name_of(image, "left image")) for image in lefts]
        right_images = [as_image(image, _name_of(image, "right image")) for image in rights]
        for left, right in zip(left_images, right_images, strict=True):
            check_same_size(left, right, "the left image", "the right image")
            if left.shape != left_images[0].shape:
                raise InputError("the pairs of a batch differ in size; match them one by one")
        if not left_images:
            return []
        start = time.perf_counter()
        try:
            disparities = self._engine(left_images, right_images)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            height, width = left_images[0].shape[:2]
            raise StereoError(
                f"out of memory matching {width}x{height} pixels with "
                f"{self.description['name']}; use smaller images or a smaller --max-disparity"
            ) from error
        seconds = (time.perf_counter() - start) / len(disparities)
        for disparity in disparities:
            if not np.isfinite(disparity).all():
                raise StereoError(
                    f"{self.description['name']} gave disparities that are not finite: damaged "
                    "weights, or too little range in this precision; try --precision fp32"
                )
        return [Result(disparity, seconds) for disparity in disparities]


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: str = "auto",
    max_disparity: int | None = None,
    scale: str = "auto",
    allow_untrained: bool = False,
) -> Matcher:
    """Load a model by name or file.

    Args:
        model: ``sgbm``, a network's name, or the path of a ``.safetensors`` checkpoint.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 for ``ea_stereo_fast`` where the
            hardware is fast at it, fp32 for the others.
        max_disparity: pixels, a multiple of 16; None for the checkpoint's own, or 192.
        scale: ``2`` matches at the pair's size, then at twice that over the range found: finer, for
            several times the time. ``1`` does not; ``auto`` does so with ``ea_stereo_fast`` and
            pictures of up to 0.4 megapixels. The map is always of the pair's own size and pixels.
            Semi-global matching knows ``1`` alone.
        allow_untrained: run a network by name even where no weights ship for it. They are then
            random, always the same, and its map means nothing.

    Raises:
        UsageError: an unknown name, device, precision or scale, or no weights.
        InputError: a checkpoint that cannot be used.
    """
    if max_disparity is not None:
        check_max_disparity(max_disparity)
    if str(model) == SGBM:
        pick_device(device)
        if scale not in ("auto", "1"):
            raise UsageError(f"sgbm matches at scale 1, not '{scale}'; leave --scale out")
        return _load_sgbm(max_disparity or DEFAULT_MAX_DISPARITY)
    name = str(model)
    weights = "untrained"
    is_file = name not in NETWORK_NAMES and (name.endswith(".safetensors") or Path(name).is_file())
    if not is_file and name not in NETWORK_NAMES:
        raise unknown_name("model", name, [SGBM, *NETWORK_NAMES, "a .safetensors file"])
    path = Path(model) if is_file else bundled_weights(name)
    if path is not None:
        checkpoint = load_checkpoint(path)
        network = restore_network(checkpoint, str(path))
        config, weights = checkpoint.config, f"sha256:{file_sha256(path)}"
    elif not allow_untrained:
        raise UsageError(
            f"'{name}' has no trained weights yet: give a checkpoint with --model "
            "FILE.safetensors, use --model sgbm, or add --allow-untrained for random weights"
        )
    else:
        config = NetworkConfig(name)
        network = _untrained_network(config)
    network.max_disparity = max_disparity or config.max_disparity
    prepare(network)
    engine = NetworkEngine(network, config, pick_device(device), precision, scale)
    description = {
        "name": Path(name).stem if is_file else name,
        "network": config.to_dict(),
        "weights": weights,
        "max_disparity": network.max_disparity,
        "device": str(engine.device),
        "precision": str(engine.dtype).removeprefix("torch."),
        "scale": scale,
        "version": __version__,
    }
    return Matcher(engine, network, description)


def prepare(network: StereoNetwork) -> None:
    """Make a network as fast as it gets without changing its maps, in place; not for training."""
    fold_batch_norms(network.eval())
    to_channels_last(network)


class NetworkEngine:
    """Runs a network on images of any size: normalise, pad, match, crop.

    Args:
        network: the network.
        config: its conventions.
        device: where to run.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        scale: the size to match at, over the size of the pair: ``auto``, ``1`` or ``2``.
    """

    def __init__(
        self,
        network: StereoNetwork,
        config: NetworkConfig,
        device: torch.device,
        precision: str,
        scale: str = "1",
    ) -> None:
        self.network = network.eval().to(device)
        self.config = config
        self.device = device
        self.dtype = pick_dtype(precision, device, bf16_serves=config.name in BF16_NETWORKS)
        if scale not in SCALES:
            raise unknown_name("scale", scale, SCALES)
        self.scale = scale

    @torch.inference_mode()
    def __call__(
        self, lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Match views of one size, (H, W, 3) uint8 each; return (H, W) float32 maps."""
        left, right = self._normalise(lefts), self._normalise(rights)
        fp32 = self.dtype is torch.float32
        with (
            torch.autocast(self.device.type, self.dtype, enabled=not fp32),
            # On CUDA convolutions would else run in TF32, with ten bits of precision.
            torch.backends.cudnn.flags(enabled=True, allow_tf32=not fp32),
        ):
            disparity = self._match(left, right)
            if self._enlarges(left):
                disparity = self._match_enlarged(left, right, disparity)
        return list(disparity.cpu().numpy())

    def _enlarges(self, view: Tensor) -> bool:
        if self.scale != "auto":
            return self.scale == "2"
        return view.shape[2] * view.shape[3] <= ENLARGED_PIXELS.get(self.config.name, 0)

    def _match(self, left: Tensor, right: Tensor) -> Tensor:  # (B, H, W)
        height, width = left.shape[2:]
        multiple, padding = self.network.stride, self.config.padding
        disparity = self.network(
            pad_to_multiple(left, multiple, padding), pad_to_multiple(right, multiple, padding)
        )
        return disparity[:, -height:, :width].float().clamp(min=0)

    def _match_enlarged(self, left: Tensor, right: Tensor, found: Tensor) -> Tensor:
        """Match at twice the size, over the range that was found at the size itself."""
        most = self.network.max_disparity
        needed = 2 * float(found.max()) + RANGE_MARGIN
        self.network.max_disparity = min(2 * most, STRIDE * math.ceil(needed / STRIDE))
        try:
            double = [
                F.interpolate(view, scale_factor=2, mode="bicubic", align_corners=False)
                for view in (left, right)
            ]
            fine = self._match(*double)
        finally:
            self.network.max_disparity = most
        four = F.pixel_unshuffle(fine[:, None], 2)  # (B, 4, H, W)
        # Not the mean of all: where an edge runs through a pixel, that is no surface's.
        return four.sort(dim=1).values[:, 1:3].mean(dim=1) / 2

    def _normalise(self, views: Sequence[np.ndarray]) -> Tensor:  # (B, 3, H, W)
        pixels = torch.from_numpy(np.stack(views)).to(self.device).permute(0, 3, 1, 2)
        mean = torch.tensor(self.config.mean, device=self.device).view(3, 1, 1)
        std = torch.tensor(self.config.std, device=self.device).view(3, 1, 1)
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


def _load_sgbm(max_disparity: int) -> Matcher:
    import_cv2()
    if max_disparity > SGBM_LIMIT:
        raise UsageError(f"sgbm searches at most {SGBM_LIMIT} px, not {max_disparity}")

    def engine(lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [
            semi_global_matching(left, right, max_disparity)
            for left, right in zip(lefts, rights, strict=True)
        ]

    description = {
        "name": SGBM,
        "max_disparity": max_disparity,
        "device": "cpu",
        "precision": "int16",
        "version": __version__,
    }
    return Matcher(engine, None, description)


def _untrained_network(config: NetworkConfig) -> StereoNetwork:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        return build_network(config)


def _name_of(image: ImageLike, role: str) -> str:
    return str(image) if isinstance(image, str | Path) else f"the {role}"
