"""What ``stereo adapt`` trains and validates on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stereo.data.augmentation.training_pair import TrainingPair
from stereo.data.finding.sources import Source
from stereo.data.io.disparities import read_disparity
from stereo.data.sets.sample import Sample
from stereo.data.synthetic import SyntheticScenes
from stereo.training.appearance import Appearance

LABELLED = 4  # every so many samples is a labelled pair, the others are rendered


class AdaptPairs:
    """Mixes rendered scenes in the appearance of the pairs with pseudo-labelled pairs.

    Args:
        scenes: the rendered scenes.
        appearance: of the pairs.
        labelled: pairs and the files of their labels.
    """

    def __init__(
        self,
        scenes: SyntheticScenes,
        appearance: Appearance,
        labelled: Sequence[tuple[Source, Path]],
    ) -> None:
        self.scenes, self.appearance, self.labelled = scenes, appearance, labelled

    def __len__(self) -> int:
        return LABELLED * len(self.labelled)

    def pair(self, epoch: int, index: int) -> TrainingPair:
        """Return a pair: labelled where ``LABELLED`` divides ``index``."""
        if index % LABELLED:
            return self.transferred(epoch * len(self) + index)
        source, path = self.labelled[index // LABELLED]
        sample, truth = source.read(), read_disparity(path)
        return TrainingPair(source.name, sample.left, sample.right, truth, np.isfinite(truth))

    def transferred(self, number: int) -> TrainingPair:
        """Return a rendered scene in the appearance of the pairs."""
        rendered = TrainingPair.from_sample(self.scenes.render(number).sample())
        rng = np.random.default_rng((self.scenes.config.seed, number))
        return self.appearance.transfer(rendered, rng)


@dataclass(frozen=True)
class TransferredScene:
    """A rendered scene in the appearance of the pairs, to validate on."""

    pairs: AdaptPairs
    number: int
    has_truth = True

    @property
    def name(self) -> str:
        """Its number."""
        return f"scene-{self.number}"

    def read(
        self, *, disparity: bool = True, disparity_right: bool = False, nonoccluded: bool = False
    ) -> Sample:
        """Render it."""
        pair = self.pairs.transferred(self.number)
        return Sample(self.name, pair.left, pair.right, pair.disparity, pair.valid)
