"""What all networks share: features, then their match; and the outputs in training mode."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from stereo.models.config import STRIDE
from stereo.models.cost_volume import check_views


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


class StereoNetwork(nn.Module):
    """A network for normalised pairs whose H and W are multiples of 16.

    Attributes:
        stride: what H and W are multiples of.
        feature_factors: pixels per sample of each tensor that ``extract`` returns.
        coarsest_factor: pixels per cell where cells are largest.
        max_disparity: pixels, a multiple of 16. It may be changed on a built network, since no
            weight depends on it.
    """

    stride = STRIDE
    feature_factors: tuple[int, ...]
    coarsest_factor: int
    max_disparity: int

    def forward(
        self,
        left: Tensor,  # (B, 3, H, W)
        right: Tensor,  # (B, 3, H, W)
    ) -> Tensor | TrainingOutputs:  # (B, H, W)
        """Match a pair.

        Returns:
            Disparity in pixels; in training mode every supervised output.

        Raises:
            ValueError: the shapes differ, or do not fit.
        """
        check_views(left, right)
        return self.match(self.extract(left), self.extract(right))

    def extract(self, view: Tensor) -> tuple[Tensor, ...]:  # (B, 3, H, W)
        """Return a view's features, one tensor per entry of ``feature_factors``."""
        raise NotImplementedError

    def match(
        self,
        left: Sequence[Tensor],  # (B, C, H / k, W / k) for each k of `feature_factors`
        right: Sequence[Tensor],
    ) -> Tensor | TrainingOutputs:  # (B, H, W)
        """Match the features of two views; ``forward`` after ``extract``."""
        raise NotImplementedError

    def estimate(
        self, left: Sequence[Tensor], right: Sequence[Tensor], max_disparity: int | None = None
    ) -> Tensor:  # (B, 3, H, W)
        """Match the features of two views; return disparity and certainty, for inference.

        Args:
            left: what ``extract`` gives.
            right: the same.
            max_disparity: pixels, a multiple of 16; None for the network's own.
        """
        raise NotImplementedError
