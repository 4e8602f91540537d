"""PSMNet (Chang and Chen, CVPR 2018) and its relatives: one forward that names the stages."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from stereo.models.certainty import with_certainty
from stereo.models.config import SPARE, Upsampling
from stereo.models.network import StereoNetwork, TrainingOutputs
from stereo.models.regression import FACTOR, regress_disparity, regress_reference


class PSMNet(StereoNetwork):
    """Shared features, concatenation volume, 3D aggregation, regression.

    Args:
        features: image to (B, C, H / 4, W / 4).
        aggregation: two views' features and D to a list of logits (B, D, H / 4, W / 4), best last.
        max_disparity: pixels; a multiple of 16.
        upsampling: how logits are read at full resolution.
    """

    feature_factors = (FACTOR,)
    coarsest_factor = 16
    plain = False
    """Whether to make every volume whole, as the original does, for the same result."""

    regress: Callable[[Tensor, Upsampling], Tensor] = staticmethod(regress_disparity)
    """Logits (B, D, H / 4, W / 4) to disparity; ``stereo.models.kernels`` has another."""

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

    def extract(self, view: Tensor) -> tuple[Tensor, ...]:  # noqa: D102
        return (self.features(view),)

    def match(  # noqa: D102
        self,
        left: Sequence[Tensor],
        right: Sequence[Tensor],
    ) -> Tensor | TrainingOutputs:
        if not self.training:
            return self._search(left, right, self.max_disparity)[0]
        logits = self.aggregation(left[0], right[0], self._searched(self.max_disparity) // FACTOR)
        maps = tuple(self._regress(each) for each in logits)
        return TrainingOutputs(maps, logits[0], FACTOR, centred=True)

    def estimate(  # noqa: D102
        self, left: Sequence[Tensor], right: Sequence[Tensor], max_disparity: int | None = None
    ) -> Tensor:
        disparity, logits = self._search(left, right, max_disparity or self.max_disparity)
        return with_certainty(disparity, logits, self.upsampling)

    def _search(
        self, left: Sequence[Tensor], right: Sequence[Tensor], reach: int
    ) -> tuple[Tensor, Tensor]:
        """Return the map of the last stage, of at most ``reach`` pixels, and its logits."""
        logits = self.aggregation(left[0], right[0], self._searched(reach) // FACTOR)[-1]
        return self._regress(logits).clamp(max=reach), logits

    def _searched(self, reach: int) -> int:
        return reach + SPARE if self.upsampling == "unbiased" else reach

    def _regress(self, logits: Tensor) -> Tensor:
        regress = regress_reference if self.plain else self.regress
        return regress(logits, self.upsampling)
