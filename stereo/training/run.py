"""What a training run is made of."""

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
    """Everything a run is made of.

    Attributes:
        network: the network to train, with its first weights.
        network_config: what it was built from.
        training_set: sample key (epoch, index) to the tensors ``left``, ``right`` (3, H, W),
            ``disparity`` and ``valid`` (H, W); has a length.
        validation_set: pairs to validate on.
        optimizer: optimiser and learning rate.
        trainer: how long, how large, how often.
        loss: what is minimised.
        seed: of the order of samples, and of everything random in training.
        facts: recipe, data and the like, stored in every checkpoint.
        data: what it is trained and validated on, in words, for its report.
        skip_damaged: whether a validation pair that cannot be read is left out.
    """

    network: StereoNetwork
    network_config: NetworkConfig
    training_set: Dataset[Item]
    validation_set: Sequence[Readable]
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    loss: LossConfig
    seed: int
    facts: dict[str, Any]
    data: str = ""
    skip_damaged: bool = False
