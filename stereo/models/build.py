"""From a configuration to a network with fresh weights."""

import inspect
from typing import Any

import torch
from torch import nn

from stereo.attention import ATTENTIONS, VolumeAttention
from stereo.errors import UsageError, unknown_name
from stereo.models import aggregation, fast
from stereo.models.aggregation import ResidualStack, StackedHourglass
from stereo.models.config import EA_STEREOS, NO_ATTENTION, AttentionConfig, NetworkConfig
from stereo.models.ea_stereo import EAStereo
from stereo.models.fast import FastStereo
from stereo.models.features import PyramidFeatures
from stereo.models.network import StereoNetwork
from stereo.models.psmnet import PSMNet

_PSMNET_CHANNELS = {
    "quarter": aggregation.WIDTH,
    "eighth": 2 * aggregation.WIDTH,
    "sixteenth": 2 * aggregation.WIDTH,
}
_FAST_CHANNELS = {"eighth": fast.VOLUME_WIDTH, "sixteenth": 2 * fast.VOLUME_WIDTH}


def build_network(config: NetworkConfig) -> StereoNetwork:
    """Build a network with fresh weights, in fp32.

    Raises:
        UsageError: an attention option that its class does not take.
    """
    attention = config.attention
    mask_invalid = attention is not None and attention.mask_invalid
    if config.name in EA_STEREOS:
        attentions = _build_attentions(attention, _FAST_CHANNELS)
        kind = EAStereo if config.name == "ea_stereo" else FastStereo
        return kind(attentions, config.max_disparity, mask_invalid=mask_invalid).float()
    features = PyramidFeatures(align_corners=config.upsampling == "align_corners")
    stack: nn.Module
    if config.name == "psmnet_basic":
        stack = ResidualStack(features.out_channels)
    else:
        attentions = _build_attentions(attention, _PSMNET_CHANNELS)
        stack = StackedHourglass(features.out_channels, attentions, mask_invalid=mask_invalid)
    return PSMNet(
        features=features,
        aggregation=stack,
        max_disparity=config.max_disparity,
        upsampling=config.upsampling,
    ).float()


def _build_attentions(
    config: AttentionConfig | None, channels: dict[str, int]
) -> dict[str, nn.Module]:
    if config is None or config.name == NO_ATTENTION:
        return {}
    build = ATTENTIONS[config.name]
    known = options_of(build)
    for option in config.options:
        if option not in known:
            unknown = unknown_name(f"{config.name} attention option", option, known)
            raise UsageError(f"{unknown} (--network.attention.options {{}} clears a recipe's)")
    try:
        with torch.random.fork_rng(devices=()):  # all other weights begin alike, whatever this is
            torch.manual_seed(int(torch.randint(2**31, (), device="cpu")))
            return {site: build(channels[site], **config.options) for site in config.sites or ()}
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        told = str(error).partition("\n")[0]  # PyTorch adds where in its code it was
        raise UsageError(
            f"attention '{config.name}' with options {config.options}: {told}"
        ) from error


def options_of(attention: type[VolumeAttention]) -> dict[str, Any]:
    """Return the keyword options of an attention's class, inherited ones too, and defaults."""
    found: dict[str, Any] = {}
    for each in attention.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = list(inspect.signature(vars(each)["__init__"]).parameters.values())[2:]
        found = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD} | found
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return found
