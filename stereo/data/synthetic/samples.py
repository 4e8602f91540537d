"""Held-out scenes: rendered when they are read, like the pairs of a data set on disk."""

import dataclasses
from dataclasses import dataclass

from stereo.data.sets.sample import Sample
from stereo.data.synthetic.config import SyntheticConfig
from stereo.data.synthetic.render import SyntheticScenes

HELD_OUT_PAIRS = 200
_HELD_OUT_SEED = 1_000_000_007


@dataclass(frozen=True)
class RenderedSample:
    """One rendered pair.

    Attributes:
        scenes: the set.
        index: which of its pairs.
    """

    scenes: SyntheticScenes
    index: int

    has_truth = True

    @property
    def name(self) -> str:
        """``synthetic/SEED/INDEX``."""
        return self.scenes.name(self.index)

    def read(
        self, *, disparity: bool = True, disparity_right: bool = False, nonoccluded: bool = False
    ) -> Sample:
        """Render it; the ground truth costs nothing, so that all of it is given."""
        return self.scenes.render(self.index).sample()


def held_out(
    config: SyntheticConfig | None = None, count: int = HELD_OUT_PAIRS
) -> list[RenderedSample]:
    """Return pairs that no training sees: another endless set than the one of ``config``."""
    config = config or SyntheticConfig()
    scenes = SyntheticScenes(dataclasses.replace(config, seed=config.seed + _HELD_OUT_SEED))
    return [RenderedSample(scenes, index) for index in range(count)]
