"""The networks.

Shapes: B batch, C channels, D disparity planes at the volume's resolution, H W size of the image
or volume, N tokens, K key channels, V value channels.
"""

from torch import nn

from stereo.attention import ATTENTIONS
from stereo.errors import UsageError
from stereo.model.aggregation import WIDTH, ResidualStack, StackedHourglass
from stereo.model.config import NETWORK_NAMES, AttentionConfig, NetworkConfig
from stereo.model.features import PyramidFeatures
from stereo.model.psmnet import PSMNet

SITE_CHANNELS = {"quarter": WIDTH, "eighth": 2 * WIDTH, "sixteenth": 2 * WIDTH}


def build_network(config: NetworkConfig) -> PSMNet:
    """Build a network with fresh weights.

    Raises:
        UsageError: an attention option that its class does not take.
    """
    features = PyramidFeatures(align_corners=config.upsampling == "align_corners")
    in_channels = 2 * features.out_channels
    aggregation: nn.Module
    if config.name == "psmnet_basic":
        aggregation = ResidualStack(in_channels)
    else:
        attention = config.attention
        aggregation = StackedHourglass(
            in_channels,
            _build_attentions(attention),
            mask_invalid=attention is not None and attention.mask_invalid,
        )
    return PSMNet(
        features=features,
        aggregation=aggregation,
        max_disparity=config.max_disparity,
        upsampling=config.upsampling,
    )


def _build_attentions(config: AttentionConfig | None) -> dict[str, nn.Module]:
    if config is None:
        return {}
    build = ATTENTIONS[config.name]
    try:
        return {site: build(SITE_CHANNELS[site], **config.options) for site in config.sites}
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"attention '{config.name}' with options {config.options}: {error}"
        ) from error


__all__ = ["NETWORK_NAMES", "AttentionConfig", "NetworkConfig", "PSMNet", "build_network"]
