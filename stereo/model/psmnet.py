"""PSMNet (Chang and Chen, CVPR 2018) and its relatives: one forward that names the stages."""

from torch import Tensor, nn

from stereo.model.config import STRIDE, Upsampling
from stereo.model.cost_volume import check_views, concatenation_volume
from stereo.model.regression import FACTOR, regress_disparity
from stereo.model.stages import Stages


class PSMNet(nn.Module):
    """Shared features, concatenation volume, 3D aggregation, regression.

    Args:
        features: image to (B, C, H / 4, W / 4).
        aggregation: volume to a list of logits (B, D, H / 4, W / 4), best last.
        max_disparity: pixels; a multiple of 16. It may be changed on a built network, since no
            weight depends on it.
        upsampling: how logits are read at full resolution.
    """

    stride = STRIDE

    def __init__(
        self,
        *,
        features: nn.Module,
        aggregation: nn.Module,
        max_disparity: int,
        upsampling: Upsampling,
    ) -> None:
        super().__init__()
        self.features = features
        self.aggregation = aggregation
        self.max_disparity = max_disparity
        self.upsampling = upsampling

    def forward(
        self,
        left: Tensor,  # (B, 3, H, W)
        right: Tensor,  # (B, 3, H, W)
    ) -> Tensor | Stages:  # (B, H, W)
        """Match a normalised pair; H and W are multiples of 16.

        Returns:
            Disparity in pixels; in training mode every supervised output's.

        Raises:
            ValueError: the shapes differ, or are not multiples of 16.
        """
        check_views(left, right)
        planes = self.max_disparity // FACTOR
        volume = concatenation_volume(self.features(left), self.features(right), planes)
        logits = self.aggregation(volume)
        if self.training:
            return Stages(tuple(regress_disparity(each, self.upsampling) for each in logits))
        return regress_disparity(logits[-1], self.upsampling)
