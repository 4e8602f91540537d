"""Steady maps of a film: where the picture stands still, the map does."""

import dataclasses

import numpy as np

from stereo.matching.result import Result
from stereo.system.opencv import import_cv2

MOST = 8.0  # weight of a mean, in frames of full certainty
JUMP = 4.0  # pixels; disparities further apart are of two surfaces, whose mean is none
WINDOW = 7  # pixels, in which pictures are compared
MOVING = 3.0  # times the noise: the picture moves where it changes by more
LEAST_NOISE = 0.7  # steps of 8 bits
MARGIN = 9  # pixels about what moves that are free as well


class Steady:
    """A recursive mean of a film's maps, weighted by certainty, without delay.

    At each pixel the mean m of weight w takes in the disparity d of the next frame with a weight c,
    the probability about its likeliest plane (``stereo.models.certainty``; 1 of an engine without):
    m + (d - m) c / (w + c). Where d and m are more than ``JUMP`` apart they are not mixed: m stays
    while w > c and pays for it, w - c; then d takes its place. Where the picture differs from the
    recursive mean of the pictures by more than noise, m is d.

    One object serves one view of one film; call it with the frames in their order.
    """

    def __init__(self) -> None:
        self._picture: np.ndarray | None = None
        self._mean = self._weight = np.zeros(0, np.float32)

    def __call__(self, result: Result) -> Result:
        """Return the result of the next frame with the steady map."""
        assert result.image is not None
        picture = result.image.astype(np.float32).mean(axis=2)
        found = result.disparity
        certainty = np.ones_like(found) if result.certainty is None else result.certainty[0]
        if self._picture is None or self._picture.shape != picture.shape:
            self._picture, self._mean, self._weight = picture, found, certainty
            return result
        held = np.where(_moving(picture, self._picture), 0, self._weight)
        near = np.abs(found - self._mean) <= JUMP
        total = held + certainty
        part = np.where(near, certainty / np.maximum(total, 1e-6), held <= certainty)
        self._mean = (self._mean + part * (found - self._mean)).astype(np.float32)
        outvoted = np.where(held > certainty, held - certainty, certainty)
        self._weight = np.where(near, total, outvoted).clip(max=MOST)
        part = np.where(held > 0, 1 / (1 + held), 1)
        self._picture = (self._picture + part * (picture - self._picture)).astype(np.float32)
        return dataclasses.replace(result, disparity=self._mean)


def _moving(picture: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return where a picture, (H, W) grey, differs from the mean of those before it, or near it.

    Its noise is taken from the calmest fifth of the differences.
    """
    cv2 = import_cv2()
    change = cv2.blur(np.abs(picture - mean), (WINDOW, WINDOW))
    noise = max(float(np.percentile(change, 20)), LEAST_NOISE)
    moved = (change > MOVING * min(noise, _noise(picture))).astype(np.uint8)
    return np.asarray(cv2.dilate(moved, np.ones((MARGIN, MARGIN), np.uint8))) > 0


def _noise(picture: np.ndarray) -> float:
    """Return the mean difference that noise makes between two pictures, or more (Immerkaer, 1996).

    Texture counts as noise here, motion does not; in the differences it is the other way round.
    """
    cv2 = import_cv2()
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    spread = np.sqrt(np.pi / 2) / 6 * np.abs(cv2.filter2D(picture, -1, mask)).mean()
    return max(2 / np.sqrt(np.pi) * float(spread), LEAST_NOISE)
