"""From pairs on disk, or rendered on the fly, to the tensors of a training step."""

import contextlib
import math
import signal
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from stereo.data.augmentation.augment import augment
from stereo.data.augmentation.config import AugmentationConfig
from stereo.data.augmentation.training_pair import TrainingPair, pad_pair, to_tensors
from stereo.data.sets.sample import Readable
from stereo.errors import InputError, StereoError, UsageError
from stereo.models.config import STRIDE
from stereo.system.console import show_warnings_as_lines, warn
from stereo.training.order import SampleKey

TRIES = 20


class PairSource(Protocol):
    """Pairs with ground truth, by index."""

    def __len__(self) -> int:
        """Return the number of pairs per epoch."""

    def pair(self, epoch: int, index: int) -> TrainingPair:
        """Return a pair, as a pure function of the arguments."""


class DiskPairs:
    """The pairs of a data set."""

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


Item = dict[str, Tensor] | StereoError


class TrainingSet(Dataset[Item]):
    """Augmented pairs as tensors, by (epoch, index)."""

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

    def __getitem__(self, key: SampleKey) -> Item:
        """Return a pair's tensors: views (3, H, W), ground truth (H, W), and what was skipped.

        Returns:
            ``left``, ``right``, ``disparity``, ``valid``, and ``skipped``, the number of damaged
            pairs that this one stands in for. Or the error, where the pair cannot be read (with
            ``skip_damaged``, twenty in a row): raised in a loader's process it would reach the
            loop as the text of a traceback.
        """
        epoch, index = key
        try:
            pair, skipped = self._read(epoch, index)
        except StereoError as error:
            return error
        pair = augment(pair, self.augmentation, (self.seed, epoch, index))
        height, width = (math.ceil(side / STRIDE) * STRIDE for side in pair.size)
        pair = pad_pair(pair, height, width)
        return to_tensors(pair, self.mean, self.std) | {"skipped": torch.tensor(skipped)}

    def _read(self, epoch: int, index: int) -> tuple[TrainingPair, int]:
        """Return a pair, and how many were skipped before it."""
        for place in range(TRIES):
            try:
                return self.source.pair(epoch, (index + place) % len(self)), place
            except InputError as error:
                if not self.skip_damaged:
                    raise
                warn(f"warning: skipped: {error}")
        raise InputError(f"{TRIES} pairs in a row cannot be read; see 'stereo data check'")


def collate(items: Sequence[Item]) -> Item:
    """Stack the tensors of several pairs, or return the first error among them."""
    tensors = []
    for item in items:
        if isinstance(item, StereoError):
            return item
        tensors.append(item)
    if len({item["left"].shape for item in tensors}) > 1:
        return UsageError(
            "the pairs of a batch differ in size; set --augmentation.crop, or --trainer.batch_size "
            "1 to train on whole pairs"
        )
    return default_collate(tensors)


@contextlib.contextmanager
def batches_of(loader: DataLoader[Item]) -> Iterator[Iterator[Item]]:
    """Iterate, and always stop the loader's processes, which ignore SIGTERM."""
    batches = iter(loader)
    try:
        yield batches
    finally:
        if loader.num_workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]
            for worker in batches._workers:  # type: ignore[attr-defined]
                worker.kill()


def begin_loader(_worker: int) -> None:
    """Let a loader's process print warnings as lines, and ignore signals sent to the whole group.

    The loop saves, then stops.
    """
    show_warnings_as_lines()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
