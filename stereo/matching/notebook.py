"""A result in a notebook: the view beside its map, with the scale below."""

import io

import numpy as np
from PIL import Image

from stereo.data.io import colors
from stereo.geometry import Calibration

PANEL_HEIGHT = 320  # at most, pixels
PANEL_WIDTH = 640


def result_picture(
    disparity: np.ndarray, image: np.ndarray | None, calibration: Calibration | None = None
) -> Image.Image:
    """Draw a view beside its colour map, with a scale in pixels, and metres if calibrated.

    Large images are averaged down, small ones enlarged by a whole factor; the scale stays that of
    the map's own pixels.

    Args:
        disparity: (H, W) float32, pixels.
        image: (H, W, 3) uint8 RGB, the view that the map is of; None for the map alone.
        calibration: of the rectified pair, for its size.

    Raises:
        InputError: the calibration is that of a raw pair.
    """
    height, width = disparity.shape
    zoom = min(PANEL_HEIGHT / height, PANEL_WIDTH / width)
    if zoom > 1:
        zoom = int(zoom)
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    shown = np.asarray(Image.fromarray(disparity).resize(size, Image.Resampling.BOX))
    depth = None if calibration is None else calibration.depth_of
    low, limit = colors.disparity_scale(disparity)
    panel = colors.disparity_picture(shown, limit, low=low, depth=depth)
    if image is not None:
        view = Image.fromarray(image).resize(size, Image.Resampling.BOX)
        panel = colors.side_by_side(np.asarray(view), panel)
    return Image.fromarray(panel)


def png(picture: Image.Image) -> bytes:
    """Return the bytes of a PNG file."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
