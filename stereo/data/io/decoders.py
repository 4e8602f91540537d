"""How data sets store disparities and occlusion: each function turns one file into arrays.

A decoder takes the file and the (H, W) of the left image and returns (H, W) float32 disparities in
pixels of that image, positive, not finite where there is none. It is a plain function (or a
``functools.partial`` of one), so that samples can be sent to other processes.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from stereo.data.io.disparities import read_disparity
from stereo.data.io.picture_file import check_one_frame, open_picture
from stereo.errors import InputError
from stereo.system.limits import check_file
from stereo.system.parsing import MAX_JSON_BYTES, parse_json

Shape: TypeAlias = tuple[int, int]
Decoder: TypeAlias = Callable[[Path, Shape], np.ndarray]
MaskReader: TypeAlias = Callable[[Path], np.ndarray]

# Middlebury 2005 and 2006 store pixels of the full size, whatever the size of the image.
_MIDDLEBURY_DIVISORS = {1110: 1, 555: 2, 370: 3}
_MIDDLEBURY_2003_HEIGHT = 375

_FALLING_THINGS_FACTOR = 600.0  # times the focal length in pixels
_TARTANAIR_FACTOR = 80.0  # pixels x metres
_VKITTI2_FACTOR = 0.532725 * 725.0087  # baseline in metres x focal length in pixels
_VKITTI2_UNITS_PER_METRE = 100.0


def decode_stored(path: Path, _shape: Shape, scale: float | None = None) -> np.ndarray:
    """Read a disparity in its format's own unit; integer images hold ``scale`` per pixel.

    Raises:
        InputError: as ``read_disparity``.
    """
    return read_disparity(path, scale)


def stored(scale: float | None = None) -> Decoder:
    """Return the decoder of integer images that hold ``scale`` units per pixel."""
    return partial(decode_stored, scale=scale)


def decode_either_sign(path: Path, _shape: Shape) -> np.ndarray:
    """Read a map stored with one sign for all its pixels, and make it positive as a whole.

    The left maps of the FlyingThings3D subset are negative. Single pixels of the other sign keep
    it, so that a mistake stays visible.
    """
    disparity = read_disparity(path)
    negative, positive = np.count_nonzero(disparity < 0), np.count_nonzero(disparity > 0)
    return -disparity if negative > positive else disparity


def decode_middlebury_full_pixels(path: Path, shape: Shape) -> np.ndarray:
    """Read Middlebury 2005/2006: stored values are pixels of the full-size image.

    A map of another of the published sizes than the image is brought to it (nearest neighbour).

    Raises:
        InputError: unreadable, or the image has none of the published heights.
    """
    divisor = _MIDDLEBURY_DIVISORS.get(shape[0])
    if divisor is None:
        known = ", ".join(map(str, sorted(_MIDDLEBURY_DIVISORS)))
        raise InputError(
            f"{path}: its image is {shape[0]} rows high; this data set comes in {known}, and "
            "the scale of its disparities follows from that"
        )
    values = read_disparity(path, 1.0)
    if values.shape != shape and values.shape[0] in _MIDDLEBURY_DIVISORS:
        values = np.asarray(Image.fromarray(values).resize(shape[::-1], Image.Resampling.NEAREST))
    return values / np.float32(divisor)


def decode_middlebury_2001(path: Path, shape: Shape) -> np.ndarray:
    """Read Middlebury 2001: 8 units per pixel.

    Raises:
        InputError: unreadable, or of the 2003 set, whose tree is the same and whose scale is not.
    """
    if shape[0] == _MIDDLEBURY_2003_HEIGHT:
        raise InputError(
            f"{path}: its image is {shape[0]} rows high, as in middlebury2003, which has another "
            "scale; name that data set"
        )
    return read_disparity(path, 8.0)


def decode_middlebury_2003(path: Path, shape: Shape) -> np.ndarray:
    """Read Middlebury 2003 at quarter size: 4 units per pixel.

    Raises:
        InputError: unreadable, or not the quarter-size version.
    """
    if shape[0] != _MIDDLEBURY_2003_HEIGHT:
        raise InputError(
            f"{path}: its image is {shape[0]} rows high; only the quarter size "
            f"({_MIDDLEBURY_2003_HEIGHT} rows) is known"
        )
    return read_disparity(path, 4.0)


def decode_sintel(path: Path, _shape: Shape) -> np.ndarray:
    """Read Sintel's disparities: pixels = 4 R + G / 64 + B / 16384.

    Raises:
        InputError: missing, damaged or not an 8-bit RGB image.
    """
    rgb = _read_picture(path)
    if rgb.ndim != 3 or rgb.shape[2] < 3 or rgb.dtype != np.uint8:
        raise InputError(f"{path}: expected an RGB image that codes a disparity")
    red, green, blue = np.moveaxis(rgb[..., :3].astype(np.float32), 2, 0)
    return red * np.float32(4) + green / np.float32(64) + blue / np.float32(16384)


def decode_falling_things(path: Path, _shape: Shape) -> np.ndarray:
    """Read Falling Things: 600 fx / stored depth, with fx from ``_camera_settings.json`` beside.

    Raises:
        InputError: missing or damaged depth or camera settings.
    """
    settings = path.with_name("_camera_settings.json")
    check_file(settings, MAX_JSON_BYTES, "camera settings")
    told = parse_json(settings.read_bytes(), str(settings))
    try:
        focal_px = float(told["camera_settings"][0]["intrinsic_settings"]["fx"])
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise InputError(f"{settings}: no fx of the first camera ({error})") from error
    if not 0 < focal_px < math.inf:
        raise InputError(f"{settings}: {focal_px:g} is no focal length in pixels")
    return _over_depth(_FALLING_THINGS_FACTOR * focal_px, _read_depth(path))


def decode_vkitti2(path: Path, _shape: Shape) -> np.ndarray:
    """Read Virtual KITTI 2: depth in centimetres, 0.532725 m x 725.0087 px / depth.

    Raises:
        InputError: missing or damaged depth.
    """
    return _over_depth(_VKITTI2_FACTOR * _VKITTI2_UNITS_PER_METRE, _read_depth(path))


def decode_tartanair(path: Path, _shape: Shape) -> np.ndarray:
    """Read TartanAir: 80 / depth in metres.

    Raises:
        InputError: missing or damaged depth.
    """
    return _over_depth(_TARTANAIR_FACTOR, read_disparity(path))


def _read_depth(path: Path) -> np.ndarray:
    depth = _read_picture(path)
    if depth.ndim != 2 or depth.dtype.kind not in "iu":
        raise InputError(f"{path}: expected one channel of integer depths")
    return depth


def _over_depth(factor: float, depth: np.ndarray) -> np.ndarray:
    """Return factor / depth, infinite where no depth is stored (0)."""
    with np.errstate(divide="ignore"):
        return (factor / depth.astype(np.float64)).astype(np.float32)


def mask_is_255(path: Path) -> np.ndarray:
    """Read a mask that is 255 where both views see the pixel: (H, W) bool, true there.

    Raises:
        InputError: unreadable, or of other values, such as 1.
    """
    values = _read_grey(path)
    highest = values.max(initial=0)
    if highest not in (0, 255):
        raise InputError(
            f"{path}: no mask of pixels that both views see: they must be 255, but its largest "
            f"value is {highest}"
        )
    return values == 255


def mask_is_zero(path: Path) -> np.ndarray:
    """Read a mask that marks occluded pixels: (H, W) bool, true where it is 0."""
    return _read_grey(path) == 0


def mask_is_not_zero(path: Path) -> np.ndarray:
    """Read KITTI's ``noc`` disparities as a mask: (H, W) bool, true where one is stored."""
    return _read_grey(path) != 0


def _read_grey(path: Path) -> np.ndarray:
    values = _read_picture(path)
    if values.ndim == 3:
        values = values[..., :3].max(axis=2)
    if values.ndim != 2:
        raise InputError(f"{path}: damaged or not a mask (shape {values.shape})")
    return values


def _read_picture(path: Path) -> np.ndarray:
    check_file(path)
    with open_picture(path, str(path)) as image:
        check_one_frame(image, str(path))
        plain = image.convert("RGB") if image.mode in ("P", "RGBA") else image
        if plain.mode in ("1", "LA"):
            plain = plain.convert("L")
        return np.asarray(plain)
