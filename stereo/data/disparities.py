"""Disparities in and out: PFM, KITTI uint16 PNG, npy, npz, float TIFF, scaled 8-bit PNG.

In memory a disparity is (H, W) float32, positive, in pixels of the left image. NaN and infinity
mean that there is none; in PNG files 0 does.
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from stereo.data.images import check_readable
from stereo.errors import InputError, UsageError

DISPARITY_SUFFIXES = frozenset([".pfm", ".png", ".npy", ".npz", ".tif", ".tiff", ".pgm"])
PNG16_SCALE = 256.0


def read_disparity(path: str | Path, scale: float | None = None) -> np.ndarray:
    """Read a disparity map as it was stored.

    Args:
        path: the file; its suffix names the format.
        scale: stored value per pixel of disparity, for integer pictures: the map is value / scale.
            16-bit PNG defaults to KITTI's 256; other integer pictures have no default, and float
            formats take none.

    Returns:
        (H, W) float32, pixels. Float formats come back bit for bit; in integer pictures 0 means
        that there is no disparity and becomes NaN.

    Raises:
        InputError: missing, empty, damaged, of another kind, or with a scale missing or misplaced.
        UsageError: ``scale`` is not positive.
    """
    path = Path(path)
    if scale is not None and not scale > 0:
        raise UsageError(f"disparity scale {scale:g}: expected a positive number")
    check_readable(path)
    suffix = path.suffix.lower()
    if suffix not in DISPARITY_SUFFIXES:
        known = ", ".join(sorted(DISPARITY_SUFFIXES))
        raise InputError(f"{path}: unknown disparity format '{suffix}'; known: {known}")
    values = _read_numpy(path) if suffix in (".npy", ".npz") else _read_picture(path)
    values = _drop_single_axes(values, path)
    if values.dtype.kind == "f" or suffix in (".npy", ".npz"):
        if scale is not None:
            raise InputError(f"{path}: holds pixels; a scale is for integer pictures only")
        with np.errstate(over="ignore"):
            return values.astype(np.float32)
    return _from_integers(values, scale, path)


def write_disparity(path: str | Path, disparity: np.ndarray, *, scale: float | None = None) -> None:
    """Write a disparity map in the format that the suffix of ``path`` names.

    PFM (little-endian), npy, npz and TIFF store float32 bit for bit. PNG stores
    ``round(disparity * 256)`` as uint16 (KITTI); with ``scale`` it stores
    ``round(disparity * scale)`` as uint8. In PNG, pixels without a disparity become 0, and what
    does not fit is clamped with a warning.

    Args:
        path: target; the caller sees to its appearing whole (``stereo.files.staged``).
        disparity: (H, W) float, pixels.
        scale: 8-bit PNG only: stored value per pixel of disparity.

    Raises:
        UsageError: unknown suffix, not (H, W), or not floating point.
    """
    clamped = store_disparity(path, disparity, scale=scale)
    if clamped is not None:
        warnings.warn(clamped, stacklevel=2)


def store_disparity(
    path: str | Path, disparity: np.ndarray, *, scale: float | None = None
) -> str | None:
    """Do what ``write_disparity`` does, and return what was clamped, in words, instead of warning.

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
        stored, clamped = _to_integers(values, scale)
        Image.fromarray(stored).save(path)
    elif suffix in (".pfm", ".tif", ".tiff"):
        Image.fromarray(values).save(path)
    elif suffix == ".npy":
        np.save(path, values)
    elif suffix == ".npz":
        np.savez_compressed(path, disparity=values)
    else:
        raise UsageError(f"{path}: unknown disparity format '{suffix}'")
    return clamped


def _read_picture(path: Path) -> np.ndarray:
    if path.suffix.lower() == ".pfm":
        _check_pfm(path)
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode == "P" and _is_grey(image):
                return np.asarray(image.convert("L"))
            if image.mode not in ("L", "F") and not image.mode.startswith("I"):
                raise InputError(
                    f"{path}: a {image.mode} picture, expected one channel of disparities"
                )
            return np.asarray(image)
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a {path.suffix[1:].upper()} file") from error
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path}: damaged or truncated disparity ({error})") from error


def _check_pfm(path: Path) -> None:
    """Refuse what Pillow would misread: three channels, and headers with other line ends."""
    with path.open("rb") as file:
        kind, size, scale = (file.readline(80) for _ in range(3))
        header = file.tell()
    if kind.strip() == b"PF":
        raise InputError(f"{path}: colour PFM (optical flow?); expected one channel")
    try:
        width, height = map(int, size.split())
        float(scale)
    except ValueError:
        return  # no header at all: Pillow says so
    found, expected = path.stat().st_size, header + 4 * width * height
    if found != expected or b"\r" in kind + size + scale:
        raise InputError(
            f"{path}: a PFM of {width}x{height} with its header takes {expected} bytes and unix "
            f"line ends, this file has {found}; truncated, or changed by a text-mode copy"
        )


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), 2, 0)
    return bool((red == green).all() and (green == blue).all())


def _read_numpy(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            values = loaded
        else:
            with loaded:
                names = loaded.files
                if "disparity" not in names and len(names) != 1:
                    raise InputError(
                        f"{path}: holds {', '.join(names) or 'no array'}; name one 'disparity'"
                    )
                values = loaded["disparity" if "disparity" in names else names[0]]
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path}: damaged or not a NumPy file ({error})") from error
    if not isinstance(values, np.ndarray):
        raise InputError(f"{path}: holds {type(values).__name__} data, expected an array")
    if values.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected numbers, got {values.dtype}")
    return values


def _drop_single_axes(values: np.ndarray, path: Path) -> np.ndarray:
    shape = values.shape
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    while values.ndim > 2 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or 0 in shape:
        raise InputError(f"{path}: expected one (H, W) disparity map, got shape {shape}")
    return values


def _from_integers(values: np.ndarray, scale: float | None, path: Path) -> np.ndarray:
    if scale is None:
        if path.suffix.lower() != ".png" or values.dtype == np.uint8:
            raise InputError(
                f"{path}: {values.dtype} disparity of unknown scale; give the stored value per "
                "pixel (--ground-truth-scale, or 'gt_scale' in a manifest)"
            )
        scale = PNG16_SCALE
    disparity = values.astype(np.float32) / np.float32(scale)
    disparity[values == 0] = np.nan
    return disparity


def _to_integers(values: np.ndarray, scale: float | None) -> tuple[np.ndarray, str | None]:
    """Return what PNG stores, and what was clamped, in words."""
    dtype = np.uint16 if scale is None else np.uint8
    largest = np.iinfo(dtype).max
    factor = PNG16_SCALE if scale is None else scale
    with np.errstate(over="ignore", invalid="ignore"):
        stored = np.rint(values.astype(np.float64) * factor)
    stored[~np.isfinite(values)] = 0
    outside = int(((stored > largest) | (stored < 0)).sum())
    clamped = None
    if outside:
        clamped = f"{outside} disparities outside 0..{largest / factor:.3f} px were clamped"
    return np.clip(stored, 0, largest).astype(dtype), clamped
