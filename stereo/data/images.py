"""Images in: any picture that Pillow or OpenCV reads becomes (H, W, 3) uint8 RGB."""

import warnings
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stereo.errors import InputError
from stereo.opencv import import_cv2, quiet_opencv

ImageLike: TypeAlias = "np.ndarray | Image.Image | str | Path"

# What matters in a damaged file becomes an error. Set once: the filters belong to all threads.
warnings.filterwarnings("ignore", module=r"PIL\..*")

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "ppm"),
        *("pgm", "pnm", "gif", "jp2", "avif"),
    )
)


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture upright (EXIF orientation applied).

    16-bit samples keep their high byte, grey is repeated to three channels, palettes are expanded,
    and transparency is dropped.

    Args:
        path: any file Pillow or OpenCV reads.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        InputError: the file is missing, empty, damaged or not an 8- or 16-bit picture.
    """
    path = Path(path)
    check_readable(path)
    if path.suffix.lower() == ".jp2":  # Pillow overflows in its 16-bit colours
        return _read_with_opencv(path)
    try:
        with Image.open(path) as image:
            image.load()
            return _from_pillow(image, str(path))
    except UnidentifiedImageError:
        return _read_with_opencv(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path}: damaged or truncated image ({error})") from error


def as_image(image: ImageLike, name: str) -> np.ndarray:
    """Bring an array, a PIL image or a path to (H, W, 3) uint8 RGB.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) uint8 or uint16 array, PIL image or path.
        name: what to call it in an error.

    Raises:
        InputError: wrong shape or type.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _from_pillow(image, name)
    if not isinstance(image, np.ndarray):
        raise InputError(f"{name}: expected an array, a PIL image or a path, got {type(image)}")
    return _from_array(image, name)


def is_picture(path: Path) -> bool:
    """Tell whether a file is a picture, by its suffix or by how it begins."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        with Image.open(path):
            return True
    except Exception:  # a damaged file can raise nearly anything
        with quiet_opencv():
            return bool(import_cv2().haveImageReader(str(path)))


def check_readable(path: Path) -> None:
    """Raise ``InputError`` unless ``path`` is a file with something in it."""
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, expected a file")
        if not path.exists():
            raise InputError(f"{path}: no such file")
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: the file is empty")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _from_pillow(image: Image.Image, name: str) -> np.ndarray:
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise InputError(f"{name}: floating-point picture of unknown range; save it with 8 bits")
    if upright.mode.startswith("I"):
        return _from_array(np.asarray(upright), name)
    return _from_array(np.asarray(upright.convert("RGB")), name)


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(
            f"{name}: expected (H, W), (H, W, 3) or (H, W, 4) samples, got shape {array.shape}"
        )
    if _is_16_bit(array):
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"{name}: expected uint8 or uint16 samples, got {array.dtype}")
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[..., :3])


def _is_16_bit(array: np.ndarray) -> bool:
    if array.dtype == np.int32:  # what Pillow makes of some 16-bit pictures
        return bool(array.min() >= 0 and array.max() <= 65535)
    return array.dtype.kind == "u" and array.dtype.itemsize == 2


def _read_with_opencv(path: Path) -> np.ndarray:
    cv2 = import_cv2()
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    with quiet_opencv():
        try:
            bgr = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
        except cv2.error:
            bgr = None
    if bgr is None:
        raise InputError(f"{path}: not a picture that Pillow or OpenCV can read")
    return _from_array(np.ascontiguousarray(bgr[..., ::-1]), str(path))
