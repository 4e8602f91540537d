"""From pairs on disk, or rendered on the spot, to the tensors of a training step."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor
from torch.utils.data import Dataset

from stereo.console import complain
from stereo.data.augment import AugmentationConfig, augment, to_tensors
from stereo.data.sample import Readable
from stereo.data.training_pair import TrainingPair
from stereo.errors import InputError
from stereo.training.order import SampleKey

TRIES = 20


class PairSource(Protocol):
    """Pairs with ground truth, by index."""

    def __len__(self) -> int:
        """Return how many there are in an epoch."""

    def pair(self, epoch: int, index: int) -> TrainingPair:
        """Return one; the same for the same arguments, always."""


class DiskPairs:
    """The pairs of a data set.

    Args:
        files: what ``stereo.data.datasets.open_dataset`` listed.
        right: read the right view's disparity too, which the flip needs.
    """

    def __init__(self, files: Sequence[Readable], *, right: bool = False) -> None:
        self.files = files
        self.right = right

    def __len__(self) -> int:
        return len(self.files)

    def pair(self, epoch: int, index: int) -> TrainingPair:
        """Read one pair.

        Raises:
            InputError: it cannot be read, or has no ground truth.
        """
        return TrainingPair.from_sample(self.files[index].read(disparity_right=self.right))


class TrainingSet(Dataset[dict[str, Tensor]]):
    """Augmented pairs as tensors, by (epoch, index).

    Args:
        source: where the pairs come from.
        augmentation: what happens to them.
        seed: of the augmentation.
        mean: subtracted from RGB in 0..1.
        std: divides it after that.
        skip_damaged: name a pair that cannot be read and take the next one instead of stopping.
    """

    def __init__(
        self,
        source: PairSource,
        augmentation: AugmentationConfig,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        skip_damaged: bool = False,
    ) -> None:
        self.source = source
        self.augmentation = augmentation
        self.seed = seed
        self.mean = mean
        self.std = std
        self.skip_damaged = skip_damaged

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: SampleKey) -> dict[str, Tensor]:
        """Return ``left``, ``right`` (3, H, W), ``disparity`` and ``valid`` (H, W).

        Raises:
            InputError: the pair cannot be read; with ``skip_damaged``, twenty in a row.
        """
        epoch, index = key
        pair = self._read(epoch, index)
        return to_tensors(
            augment(pair, self.augmentation, (self.seed, epoch, index)), self.mean, self.std
        )

    def _read(self, epoch: int, index: int) -> TrainingPair:
        for place in range(TRIES):
            try:
                return self.source.pair(epoch, (index + place) % len(self))
            except InputError as error:
                if not self.skip_damaged:
                    raise
                complain(f"warning: skipped: {error}")
        raise InputError(f"{TRIES} pairs in a row cannot be read; see 'stereo data check'")
