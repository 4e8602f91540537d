"""Temporal smoothing: disparity is averaged where the image is static."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from stereo.matching.result import Result
from stereo.system.opencv import import_cv2

MAX_WEIGHT = 8.0  # of a mean, in frames of full certainty
JUMP = 4.0  # pixels; disparities further apart belong to two surfaces and are not averaged
WINDOW = 5  # pixels, over which changes of the image are averaged
MOVING = 3.0  # times the noise: the image moves where it changes by more
RATE = 0.15  # of the means of the signed and of the absolute error, from which drift is told
SMALLEST_DRIFT = 0.1  # pixels; the mean may lag behind by as much
PATIENCE = 8  # frames in a row beyond ``JUMP``, after which the mean is given up
MIN_NOISE = 0.7  # 8-bit grey levels
MARGIN = 5  # pixels, side of the square by which moving regions are dilated
STEP = 4  # pixels; structure is compared at every fourth row and column
FINE, COARSE = 7, 7 * STEP  # pixels, the box filters between which structure lies
REGION = 11 * STEP  # pixels, over which structure is compared
UNRELATED = 0.25  # correlation; the image shows something else where that of its structure is less
SIGNAL = 0.4  # times the noise: a difference of structure that noise does not explain
NOISE_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""Immerkaer's filter (1996): keeps the standard deviation of noise, removes smooth texture."""


class Steady:
    """A causal recursive mean of a video's maps, weighted by certainty.

    At each pixel the mean m of weight w is updated by the disparity d of the next frame, whose
    weight c is the probability about its likeliest plane (``stereo.models.certainty``; 1 for an
    engine without): m + (d - m) c / (w + c). If d and m differ by more than ``JUMP``, d joins a
    second mean, the rival, in the same way, or replaces it if that differs too; once the rival's
    weight exceeds w, the two change places. Where the image differs from its own recursive mean by
    more than noise, or its structure does not correlate with that of the mean, m is reset to d;
    after a cut, where this holds in most of the image, everywhere.

    What approaches changes its disparity, but a smooth image of it hardly. So the gain c / (w + c)
    is at least r^4, where r is Trigg and Leach's tracking signal (1967), the exponential mean of
    d - m over that of its absolute value; and m is given up where d stays further off than ``JUMP``
    for ``PATIENCE`` frames.

    One object serves one view of one video; call it with the frames in order.
    """

    def __init__(self) -> None:
        self._image: np.ndarray | None = None
        self._mean = self._rival = _Mean(np.zeros(0), np.zeros(0))
        self._signed = self._absolute = self._away = np.zeros(0)

    def __call__(self, result: Result) -> Result:
        """Return the result of the next frame with the smoothed map."""
        assert result.image is not None
        image = result.image.astype(np.float32).mean(axis=2)
        found = result.disparity
        certainty = np.ones_like(found) if result.certainty is None else result.certainty[0]
        if self._image is None or self._image.shape != image.shape:
            self._image, self._mean = image, _Mean(found, certainty)
            self._rival = _Mean(found, np.zeros_like(found))
            self._signed = self._absolute = self._away = np.zeros_like(found)
            return result
        moving = _moving(image, self._image)
        mean, rival = (each.without(moving) for each in (self._mean, self._rival))
        part = 1 / (1 + mean.weight)
        self._image = (self._image + part * (image - self._image)).astype(np.float32)
        mean = self._kept_up(mean, found, certainty)
        near = mean.is_near(found)
        rival = _select(near, rival, rival.without(~rival.is_near(found)).joined(found, certainty))
        mean = _select(near, mean.joined(found, certainty), mean)
        outvoted = rival.weight > mean.weight
        self._signed = np.where(moving | outvoted, 0, self._signed)
        self._absolute = np.where(moving | outvoted, 0, self._absolute)
        self._mean = _select(outvoted, rival, mean)
        self._rival = _select(outvoted, mean, rival)
        return dataclasses.replace(result, disparity=self._mean.disparity)

    def _kept_up(self, mean: "_Mean", found: np.ndarray, certainty: np.ndarray) -> "_Mean":
        """Return the mean with no more weight than its drift allows."""
        error = np.where(mean.weight > 0, found - mean.disparity, 0)
        near = np.abs(error) <= JUMP
        self._away = np.where(near, 0, self._away + 1)
        self._signed = self._signed + np.where(near, RATE * (error - self._signed), 0)
        self._absolute = self._absolute + np.where(near, RATE * (abs(error) - self._absolute), 0)
        gain = (self._signed / (self._absolute + SMALLEST_DRIFT)) ** 4
        most = certainty * (1 - gain) / np.maximum(gain, 1e-6)
        given_up = self._away >= PATIENCE
        self._away = np.where(given_up, 0, self._away)
        weight = np.where(given_up, 0, np.minimum(mean.weight, np.where(near, most, np.inf)))
        return _Mean(mean.disparity, weight.astype(np.float32))


@dataclass(frozen=True, eq=False)
class _Mean:
    """A mean map and its weight, (H, W) float32 each."""

    disparity: np.ndarray
    weight: np.ndarray

    def without(self, mask: np.ndarray) -> "_Mean":
        """Forget what lies under a mask, and cap the weight."""
        return _Mean(self.disparity, np.where(mask, 0, self.weight.clip(max=MAX_WEIGHT)))

    def is_near(self, found: np.ndarray) -> np.ndarray:
        """Return where a map may join it."""
        return (self.weight == 0) | (np.abs(found - self.disparity) <= JUMP)

    def joined(self, found: np.ndarray, certainty: np.ndarray) -> "_Mean":
        """Return the mean with one more map."""
        total = self.weight + certainty
        part = certainty / np.maximum(total, 1e-6)
        return _Mean(self.disparity + part * (found - self.disparity), total)


def _select(mask: np.ndarray, one: _Mean, other: _Mean) -> _Mean:
    return _Mean(
        np.where(mask, one.disparity, other.disparity), np.where(mask, one.weight, other.weight)
    )


def _moving(image: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return where a grey image, (H, W), differs from the mean of those before it, dilated.

    Its noise is taken from the calmest fifth of the differences.
    """
    cv2 = import_cv2()
    change = cv2.blur(np.abs(image - mean), (WINDOW, WINDOW))
    noise = min(max(float(np.percentile(change, 20)), MIN_NOISE), _noise(image))
    replaced = _is_unrelated(image, mean, noise)
    if replaced.mean() > 0.5:
        return np.ones(image.shape, bool)
    moved = ((change > MOVING * noise) | replaced).astype(np.uint8)
    return np.asarray(cv2.dilate(moved, np.ones((MARGIN, MARGIN), np.uint8))) > 0


def _is_unrelated(image: np.ndarray, mean: np.ndarray, noise: float) -> np.ndarray:
    """Return around which pixels the structure of the image is not that of the mean.

    In the dark, what another scene changes at a pixel is no more than noise; structure is what box
    filters leave of it.
    """
    cv2 = import_cv2()

    def mean_over(values: np.ndarray, side: int) -> np.ndarray:
        return np.asarray(cv2.blur(values, (side, side)))

    small = [mean_over(each, FINE)[::STEP, ::STEP] for each in (image, mean)]
    new, old = (each - mean_over(each, COARSE // STEP) for each in small)
    covariance, power, before, difference = (
        mean_over(each, REGION // STEP) for each in (new * old, new**2, old**2, (new - old) ** 2)
    )
    unlike = covariance < UNRELATED * np.sqrt(power * before)
    unlike &= difference > (SIGNAL * noise) ** 2
    height, width = image.shape
    return unlike.repeat(STEP, 0).repeat(STEP, 1)[:height, :width]


def _noise(image: np.ndarray) -> float:
    """Return an upper estimate of the mean difference that noise makes between two images.

    It counts texture as noise but not motion; for the differences the opposite holds.
    """
    cv2 = import_cv2()
    deviation = np.sqrt(np.pi / 2) * np.abs(cv2.filter2D(image, -1, NOISE_MASK)).mean()
    return max(2 / np.sqrt(np.pi) * float(deviation), MIN_NOISE)
