"""The result of a match: map, confidence, depth, points and image."""

import functools
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stereo.errors import UsageError
from stereo.geometry import Calibration
from stereo.geometry.points import POINT_WRITERS, colored_points
from stereo.matching.confidence import ConfidenceMaps
from stereo.matching.notebook import png, result_picture
from stereo.system.files import staged


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a match."""

    # (H, W) float32, pixels of the left image; finite, never below the smallest that was searched,
    # 0 unless `min_disparity` says otherwise
    disparity: np.ndarray
    seconds: float  # time of the match, without reading the images
    # computes `confidence_maps`; None for one that no matcher returned
    compute_confidence: Callable[[], ConfidenceMaps] | None = None
    # (H, W, 3) uint8 RGB, the view that the map is of; None for one that no matcher returned
    image: np.ndarray | None = None
    path: Path | None = None  # of the left image; None if it was no file
    is_right: bool = False  # whether the map is of the right view
    # (2, H, W) float32, see `stereo.models.certainty`; None of an engine without a distribution
    certainty: np.ndarray | None = None

    def __repr__(self) -> str:
        height, width = self.disparity.shape
        low, high = self.disparity.min(), self.disparity.max()
        return (
            f"<Result {width}x{height}, disparity {low:.1f} to {high:.1f} px, {self.seconds:.2f} s>"
        )

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows: the image without a calibration."""
        return png(self.picture())

    @property
    def confidence(self) -> np.ndarray:
        """The probability that the disparity is within 3 px of the truth, (H, W) float32, 0..1.

        The first access matches the other view as well.
        """
        return self.confidence_maps.confidence

    @functools.cached_property
    def confidence_maps(self) -> ConfidenceMaps:
        """``confidence`` and the simpler measures beside it."""
        if self.compute_confidence is None:
            raise UsageError("this Result was not returned by a matcher, so it has no confidence")
        return self.compute_confidence()

    def depth(self, calibration: Calibration | str | Path) -> np.ndarray:
        """Return the depth along the optical axis.

        Args:
            calibration: of the rectified pair, or its file.

        Returns:
            (H, W) float32, metres; 0 for none.

        Raises:
            InputError: a calibration that cannot be used.
        """
        return self._fitted(calibration).depth(self.disparity)

    def points(
        self,
        calibration: Calibration | str | Path,
        *,
        max_depth: float | None = None,
        keep_flying_points: bool = False,
        min_confidence: float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the points in the left camera's frame, and their colours.

        Args:
            calibration: of the rectified pair, or its file.
            max_depth: metres, the depth of the furthest point; None for 100 baselines.
            keep_flying_points: whether to keep the points between the two surfaces at an
                edge; of an engine without a distribution over disparities, points at jumps.
            min_confidence: 0..1, the least ``confidence`` of a point; above 0 it is computed.

        Returns:
            (N, 3) float32, metres: x to the right, y down, z along the optical axis; and (N, 3)
            uint8 RGB. Pixels without a depth have no point.

        Raises:
            InputError: a calibration that cannot be used.
            UsageError: an option out of its range, what is neither a calibration nor a path, or a
                result that no matcher returned, without a view.
        """
        if self.image is None:
            raise UsageError(
                "this Result was not returned by a matcher, so it has no view to colour points with"
            )
        if max_depth is not None and not (isinstance(max_depth, numbers.Real) and max_depth > 0):
            raise UsageError(f"max_depth {max_depth}: expected a positive number of metres")
        if not (isinstance(min_confidence, numbers.Real) and 0 <= min_confidence <= 1):
            raise UsageError(f"min_confidence {min_confidence}: expected a number from 0 to 1")
        return colored_points(
            self.disparity,
            self.image,
            self._fitted(calibration),
            is_right=self.is_right,
            max_depth=max_depth,
            keep_flying_points=keep_flying_points,
            certainty=self.certainty,
            confidence=self.confidence if min_confidence > 0 else None,
            min_confidence=min_confidence,
        )

    def write_points(
        self, path: str | Path, calibration: Calibration | str | Path, **options: Any
    ) -> int:
        """Write the points to a ``.ply`` or ``.glb`` file, whole or not at all.

        Args:
            path: the file; its folder must be there.
            calibration: as in ``points``.
            options: those of ``points``.

        Returns:
            The number of points written.

        Raises:
            InputError: a calibration that cannot be used.
            UsageError: another suffix, or as in ``points``.
            OutputError: the file cannot be written.
        """
        path = Path(path)
        write = POINT_WRITERS.get(path.suffix.lower())
        if write is None:
            raise UsageError(f"{path}: the name of a file of points ends in .ply or .glb")
        points, tints = self.points(calibration, **options)
        with staged(path) as (temporary,):
            write(temporary, points, tints)
        return len(points)

    def picture(self, calibration: Calibration | str | Path | None = None) -> Image.Image:
        """Return the view beside its map in colours, at most 320 pixels high, with the scale.

        Args:
            calibration: of the rectified pair, or its file: the scale then says metres as well.

        Raises:
            InputError: a calibration that cannot be used.
        """
        fitted = None if calibration is None else self._fitted(calibration)
        return result_picture(self.disparity, self.image, fitted)

    def _fitted(self, calibration: Calibration | str | Path) -> Calibration:
        if not isinstance(calibration, Calibration):
            calibration = Calibration.read(calibration, pictures=self.path)
        height, width = self.disparity.shape
        return calibration.fitted(width, height)
