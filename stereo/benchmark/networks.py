"""The networks that the benchmarks run, and the forms they run them in."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from stereo.benchmark.reference import ReferencePSMNet
from stereo.data.synthetic import RenderedPair
from stereo.matching.engine import optimize_for_inference, pad_to_multiple
from stereo.models import AttentionConfig, NetworkConfig, StereoNetwork, build_network
from stereo.models.checkpoint import load_checkpoint, load_weights, restore_network
from stereo.models.convert import convert_state
from stereo.system.bundled import bundled_weights


def trained_like(
    name: str,
    max_disparity: int,
    original: ReferencePSMNet | None,
    pair: RenderedPair,
    device: torch.device,
) -> tuple[StereoNetwork, NetworkConfig, str]:
    """Return a network in evaluation mode, its configuration, and what its weights are."""
    path = bundled_weights(name)
    if path is not None:
        checkpoint = load_checkpoint(path)
        network = restore_network(checkpoint, str(path))
        network.max_disparity = max_disparity
        return network.eval().to(device), checkpoint.config, "shipped"
    attention = None
    if name.startswith("ea"):
        attention = AttentionConfig(options={"zero_init": False})
    conventions: dict[str, Any] = {}
    if original is not None and name in ("psmnet", "ea_psmnet"):
        conventions = {"upsampling": "half_pixel", "padding": "zeros"}
    config = NetworkConfig(name, max_disparity, attention=attention, **conventions)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        network = build_network(config)
    if conventions and original is not None:
        state = {key: tensor.cpu() for key, tensor in original.original.state_dict().items()}
        converted = convert_state(state, "the original", align_corners=False)
        load_weights(network, converted.weights, "the original", allow_new_attention=True)
        return network.eval().to(device), config, "random, the original's"
    network.to(device)
    calibrate_batch_norms(network, network, pair, device)
    return network.eval(), config, "random"


def calibrate_batch_norms(
    network: nn.Module, forward: Callable[..., object], pair: RenderedPair, device: torch.device
) -> None:
    """Set the statistics of batch norms to those of a part of the pair."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    views = []
    for image in (pair.left, pair.right):
        pixels = torch.from_numpy(image[:256, :512].copy()).to(device).permute(2, 0, 1)[None]
        view = pad_to_multiple(pixels.float() / 128 - 1, 16, "replicate")
        views.append(torch.cat([view, view.flip(2)]))  # two, for norms of one value per image
    with torch.no_grad():
        network.train()
        forward(*views)
        network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def plain_form(network: StereoNetwork) -> StereoNetwork:
    """Return a copy that makes every volume whole."""
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if hasattr(module, "plain"):
            module.plain = True  # type: ignore[assignment]
    return plain


def shipped_form(network: StereoNetwork) -> StereoNetwork:
    """Return a copy as ``stereo.load`` prepares it."""
    fast = copy.deepcopy(network)
    optimize_for_inference(fast)
    return fast
