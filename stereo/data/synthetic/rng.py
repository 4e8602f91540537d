"""Random choices as functions of whole numbers: the same on every machine, thread and worker."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_WORD = 2**64 - 1


def mixed(*numbers: int) -> int:
    """Hash whole numbers to one of 64 bits (splitmix64's finaliser, chained)."""
    state = 0
    for number in numbers:
        state = (state ^ (number & _WORD)) + 0x9E3779B97F4A7C15 & _WORD
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _WORD
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _WORD
        state ^= state >> 31
    return state


class SceneRng:
    """A stream of choices that starts from whole numbers such as (seed, index).

    Results of roots and powers are rounded to nine digits, where mathematics libraries may differ
    in the last of sixteen.
    """

    def __init__(self, *key: int) -> None:
        self._key = mixed(*key)
        self._draws = 0

    def word(self) -> int:
        """Return a whole number of 64 bits."""
        self._draws += 1
        return mixed(self._key, self._draws)

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
        """Return numbers from [0, 1), float32, on the default device but drawn on the CPU."""
        generator = torch.Generator().manual_seed(self.word() >> 1)
        drawn = torch.rand(shape, generator=generator, device="cpu")
        return drawn.to(torch.get_default_device())


def rounded(value: float) -> float:
    """Return a number with nine digits."""
    return float(f"{value:.9g}")
