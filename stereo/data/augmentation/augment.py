"""Augmentation: a training pair changed at random, as a function of (seed, epoch, index)."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from stereo.data.augmentation.config import AugmentationConfig
from stereo.data.augmentation.image_transforms import (
    adjust_color,
    adjust_gamma,
    blur_image,
    misalign,
    warp_vertically,
)
from stereo.data.augmentation.training_pair import (
    TrainingPair,
    crop_pair,
    flip_pair,
    pad_pair,
    resize_pair,
)

# Each step has its own random stream, numbered by its place here: switching one step on or
# off leaves the others' choices as they were. Append only, so that old runs can be repeated.
_STREAMS = (
    *("scale", "stretch", "flip", "crop", "color", "gamma", "shift", "rotation", "eraser"),
    *("warp", "blur", "source"),
)


def augment(
    pair: TrainingPair, config: AugmentationConfig, seed: tuple[int, int, int]
) -> TrainingPair:
    """Change a pair at random for training.

    Geometry comes first and the crop before colours, which then cost less. Flipping precedes the
    disturbances of the right view. Scaling, flip and crop also change the ground truth; colours and
    disturbances do not.

    Args:
        pair: of any size; its arrays are not written to.
        config: what happens how often and how strongly.
        seed: seed of the run, epoch and index of the sample, none negative. Every choice is a
            function of these three: no global random state is read or changed.

    Returns:
        A pair of the crop's size, or of any size without a crop.
    """
    draws = _Draws(seed)
    pair = _change_size(pair, config, draws)
    if draws.happens("flip", config.flip_probability) and pair.right_disparity is not None:
        pair = flip_pair(pair)
    pair = _crop(pair, config, draws)
    pair = _change_colors(pair, config, draws)
    pair = _change_gamma(pair, config, draws)
    pair = _misalign_right(pair, config, draws)
    pair = _blur_one(pair, config, draws)
    return _erase_right(pair, config, draws)


class _Draws:
    """The random streams of one sample, by the name of the step."""

    def __init__(self, seed: tuple[int, int, int]) -> None:
        if len(seed) != 3 or min(seed) < 0:
            raise ValueError(f"seed {seed}: expected (seed, epoch, index), none negative")
        self._streams = {
            name: np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
            for number, name in enumerate(_STREAMS)
        }

    def __getitem__(self, step: str) -> np.random.Generator:
        return self._streams[step]

    def happens(self, step: str, probability: float) -> bool:
        """Draw from [0, 1): true never at probability 0 and always at 1."""
        return bool(self._streams[step].random() < probability)


def _change_size(pair: TrainingPair, config: AugmentationConfig, draws: _Draws) -> TrainingPair:
    scale = ratio = 1.0
    if draws.happens("scale", config.scale_probability):
        scale = _even_in_logarithm(draws["scale"], *config.scale)
    if draws.happens("stretch", config.stretch_probability):
        ratio = _even_in_logarithm(draws["stretch"], 1 / config.stretch, config.stretch)
    if scale == ratio == 1.0:
        return pair
    height, width = pair.size
    # No smaller than the crop, or than the pair where that is smaller already.
    least = 0.0
    if config.crop is not None:
        least = min(1.0, max(config.crop[0] / height, config.crop[1] / width))
    down = max(scale / math.sqrt(ratio), least)
    across = max(scale * math.sqrt(ratio), least)
    return resize_pair(pair, max(1, round(height * down)), max(1, round(width * across)))


def _crop(pair: TrainingPair, config: AugmentationConfig, draws: _Draws) -> TrainingPair:
    if config.crop is None:
        return pair
    height, width = config.crop
    pair = pad_pair(pair, height, width)
    top = int(draws["crop"].integers(pair.size[0] - height + 1))
    left = int(draws["crop"].integers(pair.size[1] - width + 1))
    return crop_pair(pair, top, left, height, width)


def _change_colors(pair: TrainingPair, config: AugmentationConfig, draws: _Draws) -> TrainingPair:
    if not draws.happens("color", config.color_probability):
        return pair
    strengths = (config.brightness, config.contrast, config.saturation)

    def draw() -> Callable[[np.ndarray], np.ndarray]:
        factors = [float(draws["color"].uniform(1 - s, 1 + s)) for s in strengths]
        brightness, contrast, saturation = factors
        hue = float(draws["color"].uniform(-config.hue, config.hue))
        return lambda image: adjust_color(image, brightness, contrast, saturation, hue)

    return _change_views(pair, config, draws["color"], draw)


def _change_gamma(pair: TrainingPair, config: AugmentationConfig, draws: _Draws) -> TrainingPair:
    if not draws.happens("gamma", config.gamma_probability):
        return pair

    def draw() -> Callable[[np.ndarray], np.ndarray]:
        gamma = _even_in_logarithm(draws["gamma"], *config.gamma)
        return lambda image: adjust_gamma(image, gamma)

    return _change_views(pair, config, draws["gamma"], draw)


def _change_views(
    pair: TrainingPair,
    config: AugmentationConfig,
    stream: np.random.Generator,
    draw: Callable[[], Callable[[np.ndarray], np.ndarray]],
) -> TrainingPair:
    """Apply one drawn change to both views or, if the draw says so, one to each."""
    asymmetric = stream.random() < config.asymmetry
    change_left = draw()
    change_right = draw() if asymmetric else change_left
    return dataclasses.replace(pair, left=change_left(pair.left), right=change_right(pair.right))


def _misalign_right(pair: TrainingPair, config: AugmentationConfig, draws: _Draws) -> TrainingPair:
    down = degrees = 0.0
    if draws.happens("shift", config.vertical_shift_probability):
        down = float(draws["shift"].uniform(-config.vertical_shift, config.vertical_shift))
    if draws.happens("rotation", config.rotation_probability):
        degrees = float(draws["rotation"].uniform(-config.rotation, config.rotation))
    if down or degrees:
        pair = dataclasses.replace(pair, right=misalign(pair.right, down, degrees))
    if draws.happens("warp", config.warp_probability):
        grid = draws["warp"].uniform(-config.warp, config.warp, draws["warp"].integers(2, 6, 2))
        pair = dataclasses.replace(pair, right=warp_vertically(pair.right, grid))
    return pair


def _blur_one(pair: TrainingPair, config: AugmentationConfig, draws: _Draws) -> TrainingPair:
    if not draws.happens("blur", config.blur_probability):
        return pair
    deviation = float(draws["blur"].uniform(0.2 * config.blur, config.blur))
    if draws["blur"].random() < 0.5:
        return dataclasses.replace(pair, left=blur_image(pair.left, deviation))
    return dataclasses.replace(pair, right=blur_image(pair.right, deviation))


def _erase_right(pair: TrainingPair, config: AugmentationConfig, draws: _Draws) -> TrainingPair:
    if not draws.happens("eraser", config.eraser_probability):
        return pair
    stream = draws["eraser"]
    height, width = pair.size
    right = pair.right.copy()
    mean = np.round(pair.right.mean(axis=(0, 1))).astype(np.uint8)
    for _ in range(stream.integers(1, config.eraser_rectangles + 1)):
        top, left = stream.integers(height), stream.integers(width)
        rows, columns = stream.integers(*config.eraser_side, endpoint=True, size=2)
        window = right[top : top + rows, left : left + columns]
        window[:] = mean
        if draws.happens("source", config.eraser_elsewhere):
            y = draws["source"].integers(height - window.shape[0] + 1)
            x = draws["source"].integers(width - window.shape[1] + 1)
            window[:] = pair.right[y : y + window.shape[0], x : x + window.shape[1]]
    return dataclasses.replace(pair, right=right)


def _even_in_logarithm(stream: np.random.Generator, low: float, high: float) -> float:
    return math.exp(stream.uniform(math.log(low), math.log(high)))
