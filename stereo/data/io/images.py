"""Images in: an image file, an array or a PIL image becomes (H, W, 3) uint8 RGB.

Cameras store 10, 12 or 14 bits in samples of 16. How many they are is found from the largest sample
of both views together, so that one shift brings both to 8 bits.
"""

import logging
import multiprocessing
import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from stereo.data.io.picture_file import (
    NotAPictureError,
    check_one_frame,
    frames,
    holds_both_views,
    is_deep_colour,
    largest_of_ppm,
    open_picture,
)
from stereo.errors import InputError
from stereo.system.limits import check_file, check_pixels
from stereo.system.opencv import import_cv2, quiet_opencv

ImageLike: TypeAlias = "np.ndarray | Image.Image | str | Path"

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints what it logs

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "ppm"),
        *("pgm", "pnm", "gif", "jp2", "avif", "mpo"),
    )
)
DEPTHS = (8, 10, 12, 14, 16)
"""Bits per sample that cameras have."""
_ORIENTATION = 0x0112
_PAM = re.compile(
    rb"P7\n(?:#.*\n|WIDTH (?P<width>\d{1,9})\n|HEIGHT (?P<height>\d{1,9})\n|DEPTH [1-4]\n"
    rb"|MAXVAL \d{1,5}\n|TUPLTYPE \w+\n)+ENDHDR\n"
)


def read_image(path: str | Path) -> np.ndarray:
    """Read an image upright (EXIF orientation applied).

    Grey is repeated to three channels, palettes are expanded, transparency is dropped and samples
    of 16 bits are brought to 8 as by ``to_8_bits``; ``as_images`` does so for both views of a pair
    together.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        InputError: the file is missing, empty, damaged, larger than ``stereo.system.limits``
            allows, holds several frames, or is not an 8- or 16-bit image.
    """
    return to_8_bits([read_samples(path)])[0]


def as_images(
    images: Sequence[ImageLike], names: Sequence[str], least_depth: int = 8
) -> list[np.ndarray]:
    """Convert the views of one pair to (H, W, 3) uint8 RGB, with one scale.

    Args:
        images: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8 or uint16 arrays, PIL images or
            paths.
        names: what to call each in an error.
        least_depth: bits that 16-bit samples have at least.

    Raises:
        InputError: wrong shape or type.
    """
    return to_8_bits([as_samples(*each) for each in zip(images, names, strict=True)], least_depth)


def as_samples(image: ImageLike, name: str) -> np.ndarray:
    """As ``as_images``, but at the stored depth: (H, W, 1) or (H, W, 3), uint8 or uint16."""
    if isinstance(image, str | Path):
        return read_samples(image)
    if isinstance(image, Image.Image):
        if isinstance(image, ImageFile):  # perhaps not decoded yet
            check_pixels(*image.size, name)
        return _from_pillow(image, name)
    if not isinstance(image, np.ndarray):
        raise InputError(f"{name}: expected an array, a PIL image or a path, got {type(image)}")
    return _from_array(image, name)


def read_samples(path: str | Path) -> np.ndarray:
    """As ``read_image``, but at the stored depth: (H, W, 1) or (H, W, 3), uint8 or uint16."""
    path, name = Path(path), str(path)
    check_file(path)
    try:
        with open_picture(path, name) as image:
            check_one_frame(image, name)
            if holds_both_views(image):
                warnings.warn(
                    f"{name}: holds both views in two frames, of which the first is used; 'stereo "
                    "infer' uses both if it is the only argument",
                    stacklevel=2,
                )
            return _decode(image, path, name)
    except NotAPictureError:
        with path.open("rb") as file:
            pam = _PAM.match(file.read(1000))
        if pam is None or None in pam.groups():
            raise
        check_pixels(int(pam["width"]), int(pam["height"]), name)
        return _decode_with_opencv(path.read_bytes(), name)


def read_both_views(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the two frames of an MPO, the left view and the right one, (H, W, 3) uint8 RGB each.

    Raises:
        InputError: as ``read_image``, or the file does not hold two views.
    """
    path, name = Path(path), str(path)
    check_file(path)
    with open_picture(path, name) as image:
        if not holds_both_views(image):
            raise InputError(f"{name}: does not hold both views, as an MPO's two frames would")
        size, views = image.size, []
        for frame in frames(image):
            image.seek(frame)
            if image.size == size:
                views.append(_from_pillow(image, name))
    left, right = to_8_bits(views)
    return left, right


def has_both_views(path: Path) -> bool:
    """Return whether a file is an MPO that holds the left and the right view."""
    try:
        with open_picture(path, str(path)) as image:
            return holds_both_views(image)
    except InputError:
        return False


def depth_of(views: Sequence[np.ndarray]) -> int:
    """Return the bit depth of 16-bit views: the smallest sufficient one of ``DEPTHS``.

    Returns:
        16 where all are 0; 8 where no view has 16-bit samples.
    """
    deep = [view for view in views if view.dtype != np.uint8]
    if not deep:
        return 8
    largest = max(int(view.max()) for view in deep)
    return next(bits for bits in DEPTHS if largest < 2**bits) if largest else 16


def to_8_bits(views: Sequence[np.ndarray], least: int = 8) -> list[np.ndarray]:
    """Reduce the views of one pair to 8 bits by one shift, set by their largest sample.

    A shift gives back the 8 bits that were stored in more, whether times 2^n or stretched to the
    full range. Where the samples have fewer than 16 bits a warning says so.

    Args:
        views: as ``as_samples`` returns them.
        least: of ``DEPTHS``; the samples have at least so many bits.

    Returns:
        (H, W, 3) uint8 each.
    """
    bits = max(least, depth_of(views))
    deep = any(view.dtype != np.uint8 for view in views)
    if deep and bits < 16 and multiprocessing.parent_process() is None:  # not from each worker
        warnings.warn(
            f"the 16-bit samples of both views stay below {2**bits}: read as {bits}-bit ones",
            stacklevel=1,  # one place, so that Python says it once
        )
    return [_three_channels(_shifted(view, bits - 8)) for view in views]


def is_picture(path: Path) -> bool:
    """Return whether a file is an image, by its suffix or first bytes."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with open_picture(path, str(path)):
            return True
    except NotAPictureError:
        with quiet_opencv():
            return bool(import_cv2().haveImageReader(str(path)))
    except InputError:  # damaged, or too large
        return True


def is_hidden(path: Path, folder: Path) -> bool:
    """Return whether a path below a folder is hidden: thumbnails, or what a Mac puts beside files.

    Args:
        path: below ``folder``, whose own name does not matter.
        folder: the one that is looked through.
    """
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _decode(image: ImageFile, path: Path, name: str) -> np.ndarray:
    if image.format == "JPEG2000":  # Pillow overflows in its 16-bit colours
        return _decode_with_opencv(path.read_bytes(), name)
    if is_deep_colour(image):  # Pillow keeps only the high bytes
        turn = image.getexif().get(_ORIENTATION, 1)
        data = path.read_bytes() + b"\n"  # which OpenCV's reader of plain PPM needs
        if image.format == "TIFF":
            data = _upright_tiff(data)
        return _turned(_decode_with_opencv(data, name), turn)
    return _from_pillow(image, name)


def _from_pillow(image: Image.Image, name: str) -> np.ndarray:
    deep_pgm = isinstance(image, ImageFile) and image.format == "PPM" and image.mode == "I"
    most = largest_of_ppm(image) if deep_pgm else 0  # type: ignore[arg-type]
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise InputError(f"{name}: floating-point image of unknown range; save it with 8 bits")
    if upright.mode.startswith("I"):
        samples = np.asarray(upright)
        if most:  # to which Pillow stretches the samples
            samples = np.rint(samples * (most / 65535)).astype(np.uint16)
        return _from_array(samples, name)
    return _from_array(np.asarray(upright.convert("RGB")), name)


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(
            f"{name}: expected (H, W), (H, W, 3) or (H, W, 4) samples, got shape {array.shape}"
        )
    if _is_16_bit(array):
        array = array.astype(np.uint16)
    elif array.dtype != np.uint8:
        remedy = ""
        if array.dtype.kind == "f":
            first = "" if array.max() > 1 else "multiply the samples of 0 to 1 by 255 and "
            remedy = f"; {first}round and convert them"
        raise InputError(f"{name}: expected uint8 or uint16 samples, got {array.dtype}{remedy}")
    return np.array(array[..., :3], order="C")  # a copy: callers use their buffers again


def _is_16_bit(array: np.ndarray) -> bool:
    if array.dtype.kind == "i" and array.dtype.itemsize in (2, 4):  # as some images are stored
        return bool(array.min() >= 0 and array.max() <= 65535)
    return array.dtype.kind == "u" and array.dtype.itemsize == 2


def _shifted(samples: np.ndarray, shift: int) -> np.ndarray:
    if samples.dtype == np.uint8:
        return samples
    return (samples >> shift).astype(np.uint8)


def _three_channels(samples: np.ndarray) -> np.ndarray:
    return samples if samples.shape[2] == 3 else np.repeat(samples, 3, axis=2)


def _decode_with_opencv(data: bytes, name: str) -> np.ndarray:
    """Decode an image whose size has been checked; its orientation is left as stored."""
    cv2 = import_cv2()
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    with quiet_opencv():
        try:
            bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            bgr = None
    if bgr is None:
        raise InputError(f"{name}: damaged, or not an image that OpenCV can read")
    return _from_array(np.ascontiguousarray(bgr[..., ::-1]), name)


def _turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate a stored image upright by its EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        picture = picture.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _upright_tiff(data: bytes) -> bytes:
    """Set the orientation to 1, because OpenCV releases treat the others differently."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)
    changed = bytearray(data)
    for entry in range(count):
        at = start + (8 + 20 * entry if big else 2 + 12 * entry)
        if struct.unpack_from(f"{order}H", data, at)[0] == _ORIENTATION:
            struct.pack_into(f"{order}H", changed, at + (12 if big else 8), 1)
    return bytes(changed)
