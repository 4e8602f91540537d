"""What every engine returns: an estimate per pair."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stereo.models.certainty import CERTAINTIES


@dataclass(frozen=True, eq=False)
class Estimate:
    """What an engine returns for a pair."""

    disparity: np.ndarray  # (H, W) float32, pixels
    # (2, H, W) float32, see `stereo.models.certainty`; (1, H, W) of semi-global matching, 1 where
    # it found a match; None of an engine that tells neither
    certainty: np.ndarray | None = None

    @property
    def network_certainty(self) -> np.ndarray | None:
        """The certainty, if it is that of a network, else None."""
        known = self.certainty is not None and len(self.certainty) == CERTAINTIES
        return self.certainty if known else None


Engine = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[Estimate]]
"""Lists of left and right views of one size, (H, W, 3) uint8, to one estimate each, from 0 on."""
