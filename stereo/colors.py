"""Pictures of disparities and errors: turbo colours, a scale that starts at 0, a colour bar."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stereo.opencv import import_cv2

INVALID_GREY = 128
BAR_HEIGHT = 34
MIN_WIDTH = 160
ERROR_LIMIT_PX = 8.0
_SCALE_ENDS = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def disparity_limit(*maps: np.ndarray) -> float:
    """Return the end of a colour scale that all these maps share, a round number of pixels.

    Args:
        maps: (H, W) float each; values that are not finite are left out.
    """
    finite = [m[np.isfinite(m)] for m in maps]
    high = max((float(np.percentile(f, 99.5)) for f in finite if f.size), default=1.0)
    return float(next((end for end in _SCALE_ENDS if end >= high), high))


def colorize(values: np.ndarray, limit: float, valid: np.ndarray | None = None) -> np.ndarray:
    """Map 0..limit to turbo colours; invalid pixels become grey.

    Args:
        values: (H, W) float.
        limit: value of the last colour; larger ones share it.
        valid: (H, W) bool, or None for all finite pixels.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    cv2 = import_cv2()
    shown = np.isfinite(values) if valid is None else valid & np.isfinite(values)
    level = np.clip(np.where(shown, values, 0) / limit * 255, 0, 255).astype(np.uint8)
    picture = np.ascontiguousarray(cv2.applyColorMap(level, cv2.COLORMAP_TURBO)[..., ::-1])
    picture[~shown] = INVALID_GREY
    return picture


def disparity_picture(
    disparity: np.ndarray, limit: float, valid: np.ndarray | None = None
) -> np.ndarray:
    """Return a disparity map in colours with its colour bar below.

    Args:
        disparity: (H, W) float, pixels.
        limit: end of the scale, pixels.
        valid: (H, W) bool, or None for all finite pixels.

    Returns:
        (H + 34, max(W, 160), 3) uint8 RGB.
    """
    return _with_bar(colorize(disparity, limit, valid), limit, "disparity, px")


def error_picture(estimate: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the absolute error in colours, 0 to 8 px and more, with its colour bar below.

    Args:
        estimate: (H, W) float, pixels.
        truth: (H, W) float, pixels.
        valid: (H, W) bool; the rest is grey.

    Returns:
        (H + 34, max(W, 160), 3) uint8 RGB.
    """
    with np.errstate(invalid="ignore"):
        error = np.abs(estimate - truth)
    return _with_bar(colorize(error, ERROR_LIMIT_PX, valid), ERROR_LIMIT_PX, "error, px", "+")


def side_by_side(*pictures: np.ndarray, gap: int = 6) -> np.ndarray:
    """Join (H, W, 3) uint8 pictures in a row on white; lower ones keep their top edge."""
    height = max(p.shape[0] for p in pictures)
    columns: list[np.ndarray] = []
    for picture in pictures:
        column = np.full((height, picture.shape[1], 3), 255, np.uint8)
        column[: picture.shape[0]] = picture
        columns += [column, np.full((height, gap, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def stack(*pictures: np.ndarray, gap: int = 6) -> np.ndarray:
    """Join (H, W, 3) uint8 pictures in a column on white; narrower ones keep their left edge."""
    turned = side_by_side(*(p.transpose(1, 0, 2) for p in pictures), gap=gap)
    return np.ascontiguousarray(turned.transpose(1, 0, 2))


def _with_bar(picture: np.ndarray, limit: float, label: str, suffix: str = "") -> np.ndarray:
    height, width = picture.shape[:2]
    canvas = np.full((height + BAR_HEIGHT, max(width, MIN_WIDTH), 3), 255, np.uint8)
    canvas[:height, :width] = picture
    margin = 14
    bar_width = canvas.shape[1] - 2 * margin
    ramp = np.linspace(0, limit, bar_width, dtype=np.float32)[None].repeat(10, axis=0)
    canvas[height + 5 : height + 15, margin : margin + bar_width] = colorize(ramp, limit)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(11)
    ticks = 4 if canvas.shape[1] >= 320 else 2
    for i in range(ticks + 1):
        end = suffix if i == ticks else ""
        text = f"{limit * i / ticks:g}{end}"
        x = margin + bar_width * i / ticks
        draw.text((x, height + 17), text, fill="black", font=font, anchor="ma")
    if canvas.shape[1] >= 320:
        x = margin + bar_width * 1.5 / ticks
        draw.text((x, height + 17), label, fill=(90, 90, 90), font=font, anchor="ma")
    return np.asarray(image)
