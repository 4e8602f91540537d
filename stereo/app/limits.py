"""Limits on visitors' files, checked from the header before anything is decoded."""

import zipfile
from pathlib import Path

import torch
from PIL import ExifTags

from stereo.data.io.disparities import DISPARITY_SUFFIXES
from stereo.data.io.picture_file import NotAPictureError, check_one_frame, open_picture
from stereo.errors import InputError
from stereo.models.config import check_max_disparity
from stereo.system.bundled import SGBM
from stereo.system.limits import TooLargeError
from stereo.system.runtime import free_bytes

MAX_BYTES = 128 * 2**20  # of an uploaded file
FORM_BYTES = 2**16  # of what an upload wraps around its file
VISITOR_UPLOADS = 4 * MAX_BYTES  # of one visitor together: a pair, a calibration, ground truth
ALL_UPLOADS = 16 * MAX_BYTES  # of all visitors together
MIN_CHARGE = 2**20  # what a smaller file counts for
UPLOAD_SECONDS = 900  # that one may take to arrive
STALLED_SECONDS = 30  # without a byte, after which an upload is given up
UPLOADS_KEPT = 3600  # seconds
MAX_JSON_BYTES = 2**20  # of a request that is no upload
JSON_SECONDS = 10  # that it may take to arrive
DRAINED_BYTES = 2 * MAX_BYTES  # read of a refused request before the answer, or it would not arrive
DRAINED_SECONDS = 2  # without a byte, after which it is answered all the same
MAX_NUMBER = 1e9
MAX_REPORTED = 400  # letters of an error, which may quote a file
MAX_PIXELS = 12_000_000  # of an image: a phone's photograph
MAX_DISPARITY = 512  # pixels
MEMORY_SHARE = 0.8  # of what is free, that a match may plan with
SHOWN_BY_BROWSERS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF", "MPO")
SGBM_BYTES = 4  # per pixel and disparity: two volumes of 16 bits


def check_picture(path: Path, role: str) -> tuple[int, int, str]:
    """Return width, height and format of an image that is small enough to be decoded.

    Raises:
        InputError: not an image, or too large.
    """
    _check_bytes(path, role, MAX_BYTES)
    try:
        with open_picture(path, role) as image:
            check_one_frame(image, role)
            (width, height), kind = image.size, image.format or ""
            _check_pixels(width, height, role)
            if image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8):  # on its side
                width, height = height, width
    except TooLargeError:
        raise InputError(f"{role}: more pixels than this page takes; make it smaller") from None
    except NotAPictureError:
        raise InputError(
            f"{role}: not an image, or a damaged one; give PNG, JPEG, WebP, TIFF or the like"
        ) from None
    return width, height, kind


def _check_pixels(width: int, height: int, role: str) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{role}: {width}x{height} are {width * height / 1e6:.0f} megapixels, this page takes "
            f"{MAX_PIXELS // 10**6}; make both images smaller, or use 'stereo infer'"
        )


def check_sizes_agree(left: tuple[int, int], right: tuple[int, int]) -> None:
    """Raise ``InputError`` unless both (width, height) are equal."""
    if left != right:
        raise InputError(
            f"the images differ in size: left {left[0]}x{left[1]}, right {right[0]}x{right[1]}; "
            "a rectified pair has one size"
        )


def check_truth(path: Path, role: str) -> None:
    """Raise ``InputError`` unless a disparity file is small enough to be decoded."""
    suffix = path.suffix.lower()
    if suffix not in DISPARITY_SUFFIXES:
        known = ", ".join(sorted(DISPARITY_SUFFIXES))
        raise InputError(f"{role}: '{suffix}' is not a disparity format; known: {known}")
    if suffix == ".npz":
        _check_bytes(path, role, MAX_BYTES)
        try:
            with zipfile.ZipFile(path) as archive:
                total = sum(entry.file_size for entry in archive.infolist())
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise InputError(f"{role}: damaged or not a NumPy file") from None
        if total > MAX_BYTES:
            raise InputError(f"{role}: unpacks to {total / 2**20:.0f} MiB; give a smaller one")
    elif suffix == ".npy":
        _check_bytes(path, role, MAX_BYTES)
    else:
        check_picture(path, role)


def check_range(max_disparity: int, min_disparity: int = 0) -> None:
    """Raise an error unless the page allows this disparity range."""
    check_max_disparity(max_disparity)
    if max_disparity > MAX_DISPARITY:
        raise InputError(
            f"max disparity {max_disparity}: this page searches at most {MAX_DISPARITY} px"
        )
    if abs(min_disparity) > MAX_DISPARITY:
        raise InputError(
            f"min disparity {min_disparity}: this page starts at {-MAX_DISPARITY} to "
            f"{MAX_DISPARITY} px"
        )


def check_memory(model: str, size: tuple[int, int], max_disparity: int) -> None:
    """Raise ``InputError`` if semi-global matching would not fit in memory; networks use tiles."""
    needed = SGBM_BYTES * size[0] * size[1] * max_disparity
    free = free_bytes(torch.device("cpu"))
    if model == SGBM and needed > MEMORY_SHARE * free:
        raise InputError(
            f"not enough memory: sgbm would take about {needed / 2**30:.1f} GiB for "
            f"{size[0]}x{size[1]} pixels and {max_disparity} disparities, {free / 2**30:.1f} are "
            "free; choose another model, smaller images or a smaller max disparity"
        )


def _check_bytes(path: Path, role: str, most: int) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise InputError(f"{role}: no longer there; drop the file again") from None
    if size == 0:
        raise InputError(f"{role}: the file is empty")
    if size > most:
        raise InputError(
            f"{role}: {size / 2**20:.1f} MiB, this page takes at most {most / 2**20:.0f}"
        )
