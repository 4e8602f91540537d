"""The parts of a training run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from stereo.data.sets.sample import Readable
from stereo.models import NetworkConfig, StereoNetwork
from stereo.training.config import LossConfig, OptimizerConfig, TrainerConfig
from stereo.training.data import Item


@dataclass(frozen=True)
class TrainingRun:
    """The parts of a training run."""

    network: StereoNetwork  # the network to train, with its first weights
    network_config: NetworkConfig  # what it was built from
    # sample key (epoch, index) to the tensors `left`, `right` (3, H, W), `disparity` and `valid`
    # (H, W); has a length
    training_set: Dataset[Item]
    validation_set: Sequence[Readable]  # pairs to validate on
    optimizer: OptimizerConfig  # optimiser and learning rate
    trainer: TrainerConfig  # how long, how large, how often
    loss: LossConfig  # what is minimised
    seed: int  # of the order of samples, and of everything random in training
    facts: dict[str, Any]  # recipe, data and the like, stored in every checkpoint
    plan: str = ""  # what is trained, how long, and on what, in words
    skip_damaged: bool = False  # whether a validation pair that cannot be read is left out
