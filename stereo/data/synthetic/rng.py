"""Random choices as functions of whole numbers: the same on every machine, thread and worker."""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


class SceneRng:
    """A stream of choices that starts from whole numbers such as (seed, index).

    The bits are NumPy's Philox, whose stream every version of NumPy keeps; the distributions of its
    ``Generator`` may change from one to the next, so those used are here.
    Results of roots and powers are rounded to nine digits, where mathematics libraries may differ
    in the last of sixteen.
    """

    def __init__(self, *key: int) -> None:
        self._bits = np.random.Philox(np.random.SeedSequence(key))

    def word(self) -> int:
        """Return a whole number of 64 bits."""
        return int(self._bits.random_raw())

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number from [low, high)."""
        return low + (high - low) * ((self.word() >> 11) / 2.0**53)

    def log_uniform(self, low: float, high: float) -> float:
        """Return a number from [low, high) whose logarithm is uniform."""
        return rounded(low * (high / low) ** self.uniform())

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from low to high, both included."""
        return low + self.word() % (high - low + 1)

    def chance(self, probability: float) -> bool:
        """Return true with a probability."""
        return self.uniform() < probability

    def sign(self) -> float:
        """Return -1 or 1."""
        return 1.0 if self.chance(0.5) else -1.0

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.word() % len(items)]

    def weighted(self, weights: dict[T, float]) -> T:
        """Return a key with a probability in proportion to its value."""
        left = self.uniform(0.0, sum(weights.values()))
        for item, weight in weights.items():
            left -= weight
            if left < 0:
                return item
        return next(reversed(weights))

    def direction(self) -> tuple[float, float]:
        """Return the cosine and sine of a random angle."""
        angle = self.uniform(0.0, 2.0 * math.pi)
        return rounded(math.cos(angle)), rounded(math.sin(angle))

    def field(self, *shape: int) -> Tensor:
        """Return numbers from [0, 1), float32."""
        generator = torch.Generator().manual_seed(self.word() >> 1)
        return torch.rand(shape, generator=generator)


def rounded(value: float) -> float:
    """Return a number with nine digits."""
    return float(f"{value:.9g}")
