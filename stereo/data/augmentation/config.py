"""How training pairs are changed: strengths and probabilities, checked when they are made."""

import math
from dataclasses import dataclass

from stereo.errors import UsageError


@dataclass(frozen=True)
class AugmentationConfig:
    """What ``stereo.data.augmentation.augment.augment`` does, in the order of the fields.

    By default nothing but the crop happens, which is PSMNet's recipe. Each change is drawn on its
    own: at probability 0 never, at 1 always.
    """

    scale_probability: float = 0.0
    """Of another size at the same shape. Disparities are multiplied by the horizontal factor."""
    scale: tuple[float, float] = (0.8, 1.4)
    """Smallest and largest factor, drawn evenly in their logarithm. A size that would fall below
    the crop's stops there."""
    stretch_probability: float = 0.0
    """Of another shape at the same area."""
    stretch: float = 1.2
    """The largest factor from height to width, at least 1; its inverse is the smallest."""
    flip_probability: float = 0.0
    """Of a mirrored pair with swapped views; skipped where the right disparity is unknown."""
    crop: tuple[int, int] | None = (256, 512)
    """Height and width of the window, pixels, at a random place; smaller pairs are padded at the
    top and right. None for whole pairs."""
    color_probability: float = 0.0
    """Of other colours: brightness, contrast, saturation and hue together."""
    brightness: float = 0.4
    """The factor lies between 1 less and 1 plus this, 0 to 1; likewise for the next two."""
    contrast: float = 0.4
    """See ``brightness``."""
    saturation: float = 0.4
    """See ``brightness``."""
    hue: float = 0.08
    """Largest turn of the colour circle in either direction, 0 to 0.5 (half the circle)."""
    gamma_probability: float = 0.0
    """Of another brightness curve, samples to the power gamma."""
    gamma: tuple[float, float] = (0.75, 1.35)
    """Smallest and largest exponent, drawn evenly in their logarithm."""
    asymmetry: float = 0.5
    """Probability that colour, and likewise gamma, is drawn for each view apart; otherwise both
    views change alike."""
    vertical_shift_probability: float = 0.0
    """Of a right view that lies higher or lower than the left, as in imperfect rectification. The
    ground truth stays that of the true pair, here and in the next."""
    vertical_shift: float = 1.5
    """Largest shift in either direction, pixels."""
    rotation_probability: float = 0.0
    """Of a right view that is turned about its centre."""
    rotation: float = 0.1
    """Largest angle in either direction, degrees. It also moves points sideways, up to sin(angle)
    times half the height: at 0.1 degrees and 256 rows the ground truth is off by 0.22 px at the
    top and bottom."""
    eraser_probability: float = 0.0
    """Of rectangles in the right view that are replaced: nothing there matches."""
    eraser_elsewhere: float = 0.0
    """Probability that a rectangle shows another part of the right view, not its mean colour."""
    eraser_rectangles: int = 2
    """Largest number of rectangles; at least one is drawn."""
    eraser_side: tuple[int, int] = (50, 100)
    """Smallest and largest side of a rectangle, pixels, before it is cut at the border."""
    warp_probability: float = 0.0
    """Of a vertical offset of the right view that varies smoothly over it, as lenses leave it."""
    warp: float = 2.0
    """Largest offset in either direction, pixels."""
    blur_probability: float = 0.0
    """Of one view, either of them, that is less sharp than the other."""
    blur: float = 1.5
    """Largest deviation of the blur, pixels; the smallest is a fifth of it."""

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


CROP_ONLY = AugmentationConfig()
"""PSMNet's recipe: a random crop of 256x512 and no other change."""

MODERN = AugmentationConfig(
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
"""Everything, for networks that must work on pictures unlike those they are trained on."""

PRESETS = {"crop_only": CROP_ONLY, "modern": MODERN}
