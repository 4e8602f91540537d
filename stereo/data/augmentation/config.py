"""Strengths and probabilities of the augmentations."""

import math
from dataclasses import dataclass

from stereo.errors import UsageError


@dataclass(frozen=True)
class AugmentationConfig:
    """Settings of ``stereo.data.augmentation.augment.augment``, in the order of its steps.

    The default is PSMNet's recipe: only a random crop. Each step is drawn independently.
    """

    scale_probability: float = 0.0
    """Probability of rescaling at constant aspect ratio. Disparities are scaled by the horizontal
    factor."""
    scale: tuple[float, float] = (0.8, 1.4)
    """Smallest and largest factor, log-uniform. The result is never smaller than the crop."""
    stretch_probability: float = 0.0
    """Probability of changing the aspect ratio at constant area."""
    stretch: float = 1.2
    """Largest change of the aspect ratio, at least 1; its inverse is the smallest."""
    flip_probability: float = 0.0
    """Probability of mirroring the pair and swapping its views; pairs without ground truth of the
    right view stay as they are."""
    crop: tuple[int, int] | None = (256, 512)
    """Height and width of a random crop, pixels; smaller pairs are padded at the top and right.
    None for whole pairs, padded there to multiples of 16 pixels."""
    color_probability: float = 0.0
    """Probability of colour jitter: brightness, contrast, saturation and hue together."""
    brightness: float = 0.4
    """The factor is drawn from 1 - this to 1 + this, 0 to 1; likewise for the next two."""
    contrast: float = 0.4
    """See ``brightness``."""
    saturation: float = 0.4
    """See ``brightness``."""
    hue: float = 0.08
    """Largest hue shift in either direction, 0 to 0.5 (half the colour circle)."""
    gamma_probability: float = 0.0
    """Probability of gamma correction, samples to the power gamma."""
    gamma: tuple[float, float] = (0.75, 1.35)
    """Smallest and largest exponent, log-uniform."""
    asymmetry: float = 0.5
    """Probability that colour jitter, and likewise gamma, is drawn for each view separately."""
    vertical_shift_probability: float = 0.0
    """Probability of shifting the right view vertically, as in imperfect rectification. The ground
    truth is unchanged, here and for rotation."""
    vertical_shift: float = 1.5
    """Largest shift in either direction, pixels."""
    rotation_probability: float = 0.0
    """Probability of rotating the right view about its centre."""
    rotation: float = 0.1
    """Largest angle in either direction, degrees. It also moves points sideways, up to sin(angle)
    times half the height: at 0.1 degrees and 256 rows the ground truth is off by 0.22 px at the
    top and bottom."""
    warp_probability: float = 0.0
    """Probability of a smoothly varying vertical offset of the right view, as from lenses."""
    warp: float = 2.0
    """Largest offset in either direction, pixels."""
    blur_probability: float = 0.0
    """Probability of blurring one of the views."""
    blur: float = 1.5
    """Largest standard deviation of the blur, pixels; the smallest is a fifth of it."""
    eraser_probability: float = 0.0
    """Probability of erasing rectangles of the right view, so that nothing there matches."""
    eraser_elsewhere: float = 0.0
    """Probability that a rectangle shows another part of the right view, not its mean colour."""
    eraser_rectangles: int = 2
    """Largest number of rectangles; at least one is drawn."""
    eraser_side: tuple[int, int] = (50, 100)
    """Smallest and largest side of a rectangle, pixels, before it is cut at the border."""

    def __post_init__(self) -> None:
        for name in (
            *("scale", "stretch", "flip", "color", "gamma"),
            *("vertical_shift", "rotation", "eraser", "warp", "blur"),
        ):
            self._check_number(f"{name}_probability", 0, 1)
        self._check_number("asymmetry", 0, 1)
        self._check_number("eraser_elsewhere", 0, 1)
        self._check_number("warp", 0, 100)
        self._check_number("blur", 0, 20)
        for name in ("brightness", "contrast", "saturation"):
            self._check_number(name, 0, 1)
        self._check_number("hue", 0, 0.5)
        self._check_number("stretch", 1, 4)
        self._check_number("vertical_shift", 0, 100)
        self._check_number("rotation", 0, 45)
        self._check_range("scale", 0.1, 10)
        self._check_range("gamma", 0.1, 10)
        self._check_range("eraser_side", 1, 10_000, whole=True)
        if not _is_whole(self.eraser_rectangles) or not 1 <= self.eraser_rectangles <= 100:
            raise _wrong(
                "eraser_rectangles", self.eraser_rectangles, "a whole number from 1 to 100"
            )
        if self.crop is not None:
            object.__setattr__(self, "crop", _as_tuple(self.crop))
            values = self.crop
            if len(values) != 2 or not all(_is_whole(v) and v >= 1 for v in values):
                raise _wrong("crop", values, "a height and a width in pixels, such as (256, 512)")

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not _is_number(value) or not low <= value <= high:
            raise _wrong(name, value, f"a number from {low} to {high}")

    def _check_range(self, name: str, low: float, high: float, *, whole: bool = False) -> None:
        values = _as_tuple(getattr(self, name))
        object.__setattr__(self, name, values)
        fits = _is_whole if whole else _is_number
        if not (
            len(values) == 2 and all(map(fits, values)) and low <= values[0] <= values[1] <= high
        ):
            kind = "whole numbers" if whole else "numbers"
            raise _wrong(name, values, f"two {kind} from {low} to {high}, the smaller one first")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _as_tuple(value: object) -> tuple:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _wrong(name: str, value: object, expected: str) -> UsageError:
    return UsageError(f"augmentation: {name} is {value!r}; expected {expected}")


EVERY_STEP = AugmentationConfig(
    scale_probability=0.8,
    stretch_probability=0.8,
    flip_probability=0.5,
    color_probability=0.8,
    gamma_probability=0.5,
    vertical_shift_probability=0.5,
    rotation_probability=0.5,
    eraser_probability=0.5,
    eraser_elsewhere=0.5,
    warp_probability=0.3,
    blur_probability=0.3,
)
"""All augmentations, for networks that must generalise to other data."""
