"""Disparities in and out: PFM, KITTI uint16 PNG, npy, npz, float TIFF, scaled 8-bit PNG.

In memory a disparity is (H, W) float32, positive, in pixels of the left image. NaN and infinity
mean that there is none; in PNG files 0 does.
"""

import io
import math
import re
import warnings
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from stereo.data.io.picture_file import check_one_frame, largest_of_ppm, open_picture
from stereo.errors import InputError, UsageError
from stereo.system.limits import check_file, check_pixels

DISPARITY_SUFFIXES = frozenset([".pfm", ".png", ".npy", ".npz", ".tif", ".tiff", ".pgm"])
PNG16_SCALE = 256.0
MAX_SCALE = 2.0**32  # stored value per pixel, and one over it the least
_PICTURE_FORMATS = ("PNG", "TIFF", "PPM")
_NUMPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_MAX_HEADER_BYTES = 2**17  # of a NumPy array or a PFM
# White space or comments between the fields; after the last one exactly one line end.
_GAP = rb"(?:\s|(?<=\s)#[^\n]*\n)+"
_PFM = re.compile(
    rb"(?P<kind>P[fF])"
    + _GAP
    + rb"(?P<width>\d{1,9})"
    + _GAP
    + rb"(?P<height>\d{1,9})"
    + _GAP
    + rb"(?P<scale>[-+.\w]{1,40})"
)
_PFM_LAST_GAP = re.compile(rb"[ \t]*\r?\n|\s")
_PFM_LONG_GAP = re.compile(rb"(?:\s|#[ -~\t]*[\r\n])+")


def read_disparity(path: str | Path, scale: float | None = None) -> np.ndarray:
    """Read a disparity map as it was stored.

    Args:
        path: the file; its suffix names the format.
        scale: stored value per pixel of disparity, for integers: the map is value / scale. 16-bit
            PNG defaults to KITTI's 256; other integers have no default, and floats take none.

    Returns:
        (H, W) float32, pixels. Floats come back bit for bit; the scale that a PFM's header names is
        left aside, as Middlebury's files and tools do. Of integers 0 means that there is no
        disparity and becomes NaN.

    Raises:
        InputError: missing, empty, damaged, larger than ``stereo.system.limits`` allows, of another
            kind, or with a scale missing or misplaced.
        UsageError: a scale with which all disparities would be 0 or none.
    """
    path = Path(path)
    if scale is not None and not 1 / MAX_SCALE <= scale <= MAX_SCALE:
        raise UsageError(
            f"disparity scale {scale:g}: expected a positive number such as 256, the stored value "
            "per pixel"
        )
    check_file(path)
    suffix = path.suffix.lower()
    if suffix not in DISPARITY_SUFFIXES:
        known = ", ".join(sorted(DISPARITY_SUFFIXES))
        raise InputError(f"{path}: unknown disparity format '{suffix}'; known: {known}")
    if suffix == ".pfm":
        values = _read_pfm(path)
    elif suffix in (".npy", ".npz"):
        values = _read_numpy(path)
    else:
        values = _read_picture(path)
    if values.dtype.kind == "f":
        if scale is not None:
            raise InputError(f"{path}: holds pixels; a scale is for integers only")
        with np.errstate(over="ignore"):
            return values.astype(np.float32)
    return _from_integers(values, scale, path)


def stored_scale(path: Path, scale: float | None = None) -> float | None:
    """Return the scale that ``read_disparity`` uses for a file; None if it holds pixels."""
    return scale or (PNG16_SCALE if path.suffix.lower() == ".png" else None)


def write_disparity(path: str | Path, disparity: np.ndarray) -> None:
    """Write a disparity map in the format that the suffix of ``path`` names.

    PFM (little-endian), npy, npz and TIFF store float32 bit for bit. PNG stores
    ``round(disparity * 256)`` as uint16 (KITTI): pixels without a disparity become 0, and what does
    not fit is clamped with a warning.

    Args:
        path: target; the caller sees to its appearing whole (``stereo.system.files.staged``).
        disparity: (H, W) float, pixels.

    Raises:
        UsageError: unknown suffix, not (H, W), or not floating point.
    """
    clamped = store_disparity(path, disparity)
    if clamped is not None:
        warnings.warn(clamped, stacklevel=2)


def store_disparity(path: str | Path, disparity: np.ndarray) -> str | None:
    """As ``write_disparity``, but return a note of what was clamped instead of warning.

    Warnings are not for threads: catching them in one catches those of all.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if disparity.ndim != 2:
        raise UsageError(f"{path}: a disparity map is (H, W), got shape {disparity.shape}")
    if disparity.dtype.kind != "f":
        raise UsageError(f"{path}: a disparity map is floating point, got {disparity.dtype}")
    values = np.ascontiguousarray(disparity, dtype=np.float32)
    clamped = None
    if suffix == ".png":
        stored, clamped = _to_integers(values)
        Image.fromarray(stored).save(path)
    elif suffix in (".pfm", ".tif", ".tiff"):
        # Through memory: Pillow overlooks that a full disk takes only a part of what it writes.
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, "PPM" if suffix == ".pfm" else "TIFF")
        path.write_bytes(buffer.getvalue())
    elif suffix in (".npy", ".npz"):
        with path.open("wb") as file:  # given a name, NumPy would append its suffix to .NPY
            if suffix == ".npy":
                np.save(file, values)
            else:
                np.savez_compressed(file, disparity=values)
    else:
        raise UsageError(f"{path}: unknown disparity format '{suffix}'")
    return clamped


def _read_picture(path: Path) -> np.ndarray:
    with open_picture(path, str(path), _PICTURE_FORMATS) as image:
        check_one_frame(image, str(path))
        if image.mode == "P" and _is_grey(image):
            return np.asarray(image.convert("L"))
        if image.mode not in ("L", "F") and not image.mode.startswith("I"):
            raise InputError(f"{path}: a {image.mode} image, expected one channel of disparities")
        if image.format != "PPM" or image.mode == "F":
            return np.asarray(image)
        largest = largest_of_ppm(image)
        values = np.asarray(image)
    full = 255 if values.dtype == np.uint8 else 65535
    return np.rint(values * (largest / full)).astype(values.dtype)  # as stored


def _read_pfm(path: Path) -> np.ndarray:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_MAX_HEADER_BYTES)
        found = _PFM.match(head)
        if found is None:
            raise InputError(f"{path}: not a PFM file, or a damaged header")
        if found["kind"] == b"PF":
            raise InputError(f"{path}: colour PFM (optical flow?); expected one channel")
        width, height = int(found["width"]), int(found["height"])
        check_pixels(width, height, str(path))
        try:
            scale = float(found["scale"])
        except ValueError:
            scale = math.nan
        if not math.isfinite(scale) or scale == 0:
            raise InputError(
                f"{path}: its header gives '{found['scale'].decode()}' as scale; expected a number "
                "whose sign is the byte order"
            )
        start = size - 4 * width * height  # only the size tells white space from values
        between = head[found.end() : max(start, found.end())]
        if start > len(head) or not _PFM_LAST_GAP.fullmatch(between):
            expected = found.end() + 1 + 4 * width * height
            if size >= expected and _PFM_LONG_GAP.fullmatch(between):
                raise InputError(
                    f"{path}: {len(between)} bytes of blanks or a comment between the scale and "
                    "the values, where a PFM has one line end; write it again without them"
                )
            why = (
                "truncated"
                if size < expected
                else "changed by a text-mode copy, or with bytes to spare"
            )
            raise InputError(
                f"{path}: a PFM of {width}x{height} with its header takes {expected} bytes, this "
                f"file has {size}; {why}"
            )
        file.seek(start)
        values = np.fromfile(file, "<f4" if scale < 0 else ">f4", width * height)
    return values.reshape(height, width)[::-1]


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)
    return bool((red == green).all() and (green == blue).all())


def _read_numpy(path: Path) -> np.ndarray:
    try:
        if path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                return _read_array(file, path.stat().st_size, path)
        with zipfile.ZipFile(path) as archive:
            members = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if "disparity" not in members and len(members) != 1:
                names = ", ".join(list(members)[:9]) or "no array"
                raise InputError(f"{path}: holds {names}; name one 'disparity'")
            entry = members["disparity"] if "disparity" in members else members.popitem()[1]
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(
                    f"{path}: compressed in a way that NumPy does not use; save it with np.savez"
                )
            with archive.open(entry) as member:
                return _read_array(member, entry.file_size, path)
    except (InputError, UsageError):
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        told = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: damaged or not a NumPy file ({told})") from error


def _read_array(file: IO[bytes], size: int, path: Path) -> np.ndarray:
    """Read an array from a file of ``size`` bytes after checking its header."""
    head = io.BytesIO(file.read(_MAX_HEADER_BYTES))
    version = np.lib.format.read_magic(head)
    if version not in _NUMPY_HEADERS:
        raise InputError(f"{path}: NumPy format {version[0]}.{version[1]}; save it as 1.0")
    try:
        shape, fortran, dtype = _NUMPY_HEADERS[version](head)
    except MemoryError as error:  # of Python's parser, at an expression nested too deeply
        raise InputError(f"{path}: damaged NumPy header") from error
    if dtype.kind not in "fiu":
        raise InputError(f"{path}: expected numbers, got {dtype}")
    height, width = _map_size(shape, path)
    check_pixels(width, height, str(path))
    needed = height * width * dtype.itemsize
    file.seek(head.tell())
    data = file.read(needed) if needed <= size - head.tell() else b""
    if len(data) < needed:
        raise InputError(f"{path}: truncated: its header says {width}x{height} of {dtype}")
    return np.frombuffer(data, dtype).reshape(height, width, order="F" if fortran else "C")


def _map_size(shape: tuple[int, ...], path: Path) -> tuple[int, int]:
    """Return height and width, ignoring leading and trailing axes of length 1."""
    sides = list(shape)
    while len(sides) > 2 and sides[0] == 1:
        del sides[0]
    while len(sides) > 2 and sides[-1] == 1:
        del sides[-1]
    if len(sides) != 2 or min(sides) < 1:
        raise InputError(f"{path}: expected one (H, W) disparity map, got shape {shape}")
    return sides[0], sides[1]


def _from_integers(values: np.ndarray, scale: float | None, path: Path) -> np.ndarray:
    if scale is None:
        if path.suffix.lower() != ".png" or values.dtype == np.uint8:
            raise InputError(
                f"{path}: {values.dtype} disparity of unknown scale; give the stored value per "
                "pixel (--ground-truth-scale, or 'gt_scale' in a manifest; 1 for whole pixels)"
            )
        scale = PNG16_SCALE
    disparity = values.astype(np.float32) / np.float32(scale)
    disparity[values == 0] = np.nan
    return disparity


def _to_integers(values: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Return the (H, W) uint16 to store in PNG, and a note of what was clamped."""
    largest = np.iinfo(np.uint16).max
    with np.errstate(over="ignore", invalid="ignore"):
        stored = np.rint(values.astype(np.float64) * PNG16_SCALE)
    stored[~np.isfinite(values)] = 0
    outside = int(((stored > largest) | (stored < 0)).sum())
    clamped = None
    if outside:
        clamped = f"{outside} disparities outside 0..{largest / PNG16_SCALE:.3f} px were clamped"
        if below := int((stored < 0).sum()):
            clamped += f": {below} negative ones to 0, which means none; pfm and npy keep them"
    return np.clip(stored, 0, largest).astype(np.uint16), clamped
