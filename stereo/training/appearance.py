"""Appearance transfer: rendered scenes that look like a rig's images.

Rendered pairs with exact ground truth get the tones, illumination and noise of images without
ground truth.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stereo.data.augmentation.training_pair import TrainingPair
from stereo.matching.steady import NOISE_MASK
from stereo.system.opencv import import_cv2

LEVELS = 129  # of a tone curve
BINS = 8  # of brightness, for the noise
FIELD = 16  # cells of the light's grid along each side
CALM = 0.3  # the share of a bin's pixels that is taken to be free of texture
CALM_QUANTILE = 0.3853  # |z| below which a normal variable lies with that probability


@dataclass(frozen=True, eq=False)
class Appearance:
    """The appearance of a rig's images.

    Attributes:
        tones: (N, 2, 3, 129) float32, quantiles of each colour of each pair's views under even
            light, of about 0..255.
        light: (2, 16, 16) float32, the mean brightness over each view, 1 on average.
        noise: (2, 8) float32, its deviation by brightness, steps of 8 bits.
        grey: whether the images have no colours.
    """

    tones: np.ndarray
    light: np.ndarray
    noise: np.ndarray
    grey: bool

    @classmethod
    def of(cls, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> "Appearance":
        """Return the appearance of pairs of views, (H, W, 3) uint8 each."""
        cv2 = import_cv2()
        levels = np.linspace(0, 1, LEVELS)
        light, noise = [], []
        for side in range(2):
            views = [pair[side].mean(axis=2).astype(np.float32) for pair in pairs]
            shape = (FIELD, FIELD)
            cells = [cv2.resize(view, shape, interpolation=cv2.INTER_AREA) for view in views]
            mean = cv2.GaussianBlur(np.mean(cells, axis=0), (0, 0), 3)
            light.append(mean / max(float(mean.mean()), 1e-3))
            noise.append(_noise(views))
        tones = [
            [
                np.quantile(view / _spread(light[side], view), levels, axis=(0, 1)).T
                for side, view in enumerate(pair)
            ]
            for pair in pairs
        ]
        grey = all(np.ptp(view, axis=2).max() <= 2 for pair in pairs for view in pair)
        return cls(np.array(tones, np.float32), np.array(light), np.array(noise), grey)

    def transfer(self, pair: TrainingPair, rng: np.random.Generator) -> TrainingPair:
        """Return a pair with the tones of a random rig pair, its illumination and noise."""
        tones = self.tones[rng.integers(len(self.tones))]
        views = [
            self._transferred(view, side, tones[side], rng)
            for side, view in enumerate((pair.left, pair.right))
        ]
        return dataclasses.replace(pair, left=views[0], right=views[1])

    def _transferred(
        self, view: np.ndarray, side: int, tones: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        cv2 = import_cv2()
        if self.grey:
            view = np.repeat(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
        light = _spread(self.light[side], view)
        shown = np.empty(view.shape, np.float32)
        for k in range(3):
            own = np.quantile(view[..., k], np.linspace(0, 1, LEVELS))
            curve = np.interp(np.arange(256), own, tones[k]).astype(np.float32)
            shown[..., k] = curve[view[..., k]]
        shown *= light
        level = shown.mean(axis=2).clip(0, 255) / 256 * BINS
        deviation = np.interp(level, np.arange(BINS) + 0.5, self.noise[side])[..., None]
        # One draw for all colours: the deviation is that of their mean.
        shown += deviation * rng.standard_normal(deviation.shape, np.float32)
        return np.rint(shown).clip(0, 255).astype(np.uint8)


def _spread(light: np.ndarray, view: np.ndarray) -> np.ndarray:  # (H, W, 1) float32
    """Return the light over a view's pixels; never 0, as it is beside a fisheye's circle."""
    cv2 = import_cv2()
    size = view.shape[1], view.shape[0]
    return cv2.resize(light, size, interpolation=cv2.INTER_CUBIC).clip(0.05)[..., None]


def _noise(views: Sequence[np.ndarray]) -> np.ndarray:
    """Return the noise deviation by brightness, (8,), from the calmest pixels."""
    cv2 = import_cv2()
    rest = np.concatenate([np.abs(cv2.filter2D(view, -1, NOISE_MASK)).ravel() for view in views])
    level = np.concatenate([cv2.blur(view, (5, 5)).ravel() for view in views])
    places = (level / 256 * BINS).astype(int)
    found = np.full(BINS, np.nan)
    for place in range(BINS):
        own = rest[places == place]
        if len(own) > 1000:
            found[place] = np.quantile(own, CALM) / CALM_QUANTILE
    known = np.flatnonzero(np.isfinite(found))
    return np.interp(np.arange(BINS), known, found[known]) if len(known) else np.zeros(BINS)
