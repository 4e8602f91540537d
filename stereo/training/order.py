"""Which samples a step sees: a pure function of the seed and the step, never of a worker.

A run that stops after step N and comes back, or that runs on two processes instead of one, sees the
same samples in the same steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch.utils.data import Sampler

from stereo.errors import UsageError

SampleKey: TypeAlias = tuple[int, int]
"""(epoch, index): all that a sample and its augmentation may depend on, besides the seed."""


@dataclass(frozen=True)
class Share:
    """The part of each step's batch that one process takes, and where it starts."""

    rank: int = 0  # number of this process
    world_size: int = 1  # number of processes
    accumulation: int = 1  # backward passes per step
    first_step: int = 0  # steps done before


class StepSampler(Sampler[list[SampleKey]]):
    """Endless batches of sample keys for one process.

    Raises:
        UsageError: the batch does not divide among processes and accumulations.
    """

    def __init__(self, count: int, batch_size: int, seed: int, share: Share) -> None:
        parts = share.world_size * share.accumulation
        if batch_size % parts:
            raise UsageError(
                f"--trainer.batch_size {batch_size} does not divide into {share.world_size} "
                f"processes times {share.accumulation} accumulations"
            )
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.share = share
        self._shuffled: tuple[int, list[int]] = (-1, [])  # the latest epoch's order

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Yield the keys of one backward pass after another."""
        each = self.batch_size // (self.share.world_size * self.share.accumulation)
        step = self.share.first_step
        while True:
            keys = self.keys_of_step(step)
            for turn in range(self.share.accumulation):
                first = (turn * self.share.world_size + self.share.rank) * each
                yield keys[first : first + each]
            step += 1

    def keys_of_step(self, step: int) -> list[SampleKey]:
        """Return the (epoch, index) of every sample of one optimiser step, 0 being the first."""
        first = step * self.batch_size
        keys: list[SampleKey] = []
        while len(keys) < self.batch_size:
            epoch, place = divmod(first + len(keys), self.count)
            order = self._order(epoch)
            taken = order[place : place + self.batch_size - len(keys)]
            keys += [(epoch, index) for index in taken]
        return keys

    def _order(self, epoch: int) -> list[int]:
        if self._shuffled[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._shuffled = (epoch, torch.randperm(self.count, generator=generator).tolist())
        return self._shuffled[1]
