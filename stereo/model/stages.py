"""What networks give in training mode."""

from typing import NamedTuple

from torch import Tensor


class Stages(NamedTuple):
    """Every supervised output of a network.

    Attributes:
        disparities: (B, H, W) each, pixels; the best last.
        logits: (B, D, h, w) of the volume behind the first of them, plane k standing for a
            disparity of k W / w pixels and each cell for a block of pixels; None where the network
            is supervised through its disparities alone.
    """

    disparities: tuple[Tensor, ...]
    logits: Tensor | None = None
