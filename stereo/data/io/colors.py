"""Colour maps of disparities and errors: turbo, scaled from 0, with a colour bar."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stereo.system.opencv import import_cv2

INVALID_GREY = 128
MIN_WIDTH = 160
ERROR_LIMIT_PX = 8.0
_SCALE_ENDS = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def disparity_scale(disparity: np.ndarray) -> tuple[float, float]:
    """Return both ends of the colour scale for a map, round numbers of pixels.

    Scales start at 0 unless the map goes below it. Their ends are few, so that most maps of one
    camera share theirs.

    Args:
        disparity: (H, W) float; values that are not finite are left out.
    """
    finite = disparity[np.isfinite(disparity)]
    low, high = map(float, np.percentile(finite, [0.5, 99.5])) if finite.size else (0.0, 1.0)

    def beyond(value: float) -> float:
        return float(next((end for end in _SCALE_ENDS if end >= value), value))

    return (-beyond(-low) if low < 0 else 0.0), beyond(high)


def disparity_limit(disparity: np.ndarray) -> float:
    """Return the upper end of ``disparity_scale``."""
    return disparity_scale(disparity)[1]


def colorize(
    values: np.ndarray, limit: float, valid: np.ndarray | None = None, *, low: float = 0.0
) -> np.ndarray:
    """Map low..limit to turbo colours; invalid pixels become grey.

    Args:
        values: (H, W) float.
        limit: value of the last colour; larger ones share it.
        valid: (H, W) bool, or None for all finite pixels.
        low: value of the first colour; smaller ones share it.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    cv2 = import_cv2()
    shown = np.isfinite(values) if valid is None else valid & np.isfinite(values)
    level = (np.where(shown, values, low) - low) / (limit - low) * 255
    level = np.clip(level, 0, 255).astype(np.uint8)
    picture = np.ascontiguousarray(cv2.applyColorMap(level, cv2.COLORMAP_TURBO)[..., ::-1])
    picture[~shown] = INVALID_GREY
    return picture


def disparity_picture(
    disparity: np.ndarray,
    limit: float,
    valid: np.ndarray | None = None,
    *,
    low: float = 0.0,
    depth: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Return a disparity map in colours with its colour bar below.

    Args:
        disparity: (H, W) float, pixels.
        limit: end of the scale, pixels.
        valid: (H, W) bool, or None for all finite pixels.
        low: start of the scale, pixels.
        depth: pixels to metres, 0 for none; what the bar then says as well.

    Returns:
        (H + bar, max(W, 160), 3) uint8 RGB.
    """
    return _with_bar(colorize(disparity, limit, valid, low=low), limit, "", low=low, depth=depth)


def error_picture(estimate: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the absolute error in colours, 0 to 8 px, with its colour bar below.

    Args:
        estimate: (H, W) float, pixels.
        truth: (H, W) float, pixels.
        valid: (H, W) bool; the rest is grey.

    Returns:
        (H + bar, max(W, 160), 3) uint8 RGB.
    """
    with np.errstate(invalid="ignore"):
        error = np.abs(estimate - truth)
    return _with_bar(colorize(error, ERROR_LIMIT_PX, valid), ERROR_LIMIT_PX, "error", "+")


def side_by_side(*pictures: np.ndarray, gap: int = 6) -> np.ndarray:
    """Join (H, W, 3) uint8 images in a row on white; lower ones keep their top edge."""
    height = max(p.shape[0] for p in pictures)
    columns: list[np.ndarray] = []
    for picture in pictures:
        column = np.full((height, picture.shape[1], 3), 255, np.uint8)
        column[: picture.shape[0]] = picture
        columns += [column, np.full((height, gap, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def stack(*pictures: np.ndarray, gap: int = 6) -> np.ndarray:
    """Join (H, W, 3) uint8 images in a column on white; narrower ones keep their left edge."""
    turned = side_by_side(*(p.transpose(1, 0, 2) for p in pictures), gap=gap)
    return np.ascontiguousarray(turned.transpose(1, 0, 2))


def _with_bar(
    picture: np.ndarray,
    limit: float,
    label: str,
    suffix: str = "",
    low: float = 0.0,
    depth: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Put a colour bar below an image, with ticks; its size follows the image's width."""
    height, width = picture.shape[:2]
    canvas_width = max(width, MIN_WIDTH)
    unit = max(11, canvas_width // 60)  # height of the text, pixels
    bar_height = (3 if depth is None else 4) * unit
    canvas = np.full((height + bar_height, canvas_width, 3), 255, np.uint8)
    canvas[:height, :width] = picture
    margin = 2 * unit
    bar_width = canvas_width - 2 * margin
    ramp = np.linspace(low, limit, bar_width, dtype=np.float32)[None].repeat(unit, axis=0)
    top = height + unit // 2
    canvas[top : top + unit, margin : margin + bar_width] = colorize(ramp, limit, low=low)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(unit)
    ticks = 4 if bar_width >= 24 * unit else 2
    values = np.linspace(low, limit, ticks + 1)
    metres = None if depth is None else depth(values)
    for i, value in enumerate(values):
        lines = [f"{value:g}"] if metres is None else [f"{value:g}", _metres(float(metres[i]))]
        x, anchor = margin + bar_width * i / ticks, "ma"
        if i == ticks:
            lines[0] = f"{lines[0]}{suffix} px {label}".rstrip()
            lines[1:] = [f"{line} m" for line in lines[1:]]
            x, anchor = canvas_width - unit / 2, "ra"
        for row, text in enumerate(lines):
            at = (x, top + (1.2 + 1.1 * row) * unit)
            draw.text(at, text, fill="black", font=font, anchor=anchor)
    return np.asarray(image)


def _metres(depth: float) -> str:
    if depth == 0:
        return "far"
    return f"{depth:.3g}" if depth < 1000 else f"{depth:.0f}"
