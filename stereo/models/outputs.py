"""The outputs of networks in training mode."""

from typing import NamedTuple

from torch import Tensor


class TrainingOutputs(NamedTuple):
    """Every supervised output of a network.

    Attributes:
        disparities: (B, H, W) each, pixels; the best last.
        logits: (B, D, h, w) of the volume behind the first of them.
        spacing: pixels of disparity from one plane of the logits to the next.
        centred: whether cell i stands for the pixels around H / h i, rather than for those from it
            to the next cell's.
    """

    disparities: tuple[Tensor, ...]
    logits: Tensor
    spacing: int
    centred: bool = False
