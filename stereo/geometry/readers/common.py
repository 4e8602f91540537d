"""Shared by the readers: numbers, matrices, pairs of cameras, partner files."""

import dataclasses
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stereo.errors import InputError
from stereo.geometry.parameters import (
    FISHEYE_COUNT,
    LIKELY_METRES,
    Camera,
    StereoParameters,
    check_camera,
    number,
)
from stereo.system.limits import check_file

MAX_BYTES = 2**20  # of a calibration file
MAX_NUMBERS = 20_000  # of one matrix
SAME_FOCAL = 0.01  # of the focal length, between the cameras of a rectified pair
SAME_ROW = 1.0  # pixels
BESIDE = 0.05  # of the baseline: how far rectified cameras may stand above or before each other
NO_SKEW = 0.01  # pixels
EXACT = 1e-6  # of entries that are 0 or 1 in a pinhole camera's matrix
PADDED_COUNT = 8  # coefficients of the shortest list that may be a fisheye's and zeros
SIDES = (("left", "right"), ("cam0", "cam1"), ("camera0", "camera1"), ("infra1", "infra2"))
HALVES = (("intrinsics", "extrinsics"), ("intrinsic", "extrinsic"))
MODELS = {
    "": "pinhole",
    "none": "pinhole",
    "pinhole": "pinhole",
    "plumb_bob": "pinhole",
    "rational_polynomial": "pinhole",
    "radtan": "pinhole",
    "radial_tangential": "pinhole",
    "equidistant": "fisheye",
    "equi": "fisheye",
    "fisheye": "fisheye",
    "kannala_brandt": "fisheye",
    "kannalabrandt8": "fisheye",
}  # what files call a distortion -> the lens of ``Camera``


@dataclass(frozen=True)
class Source:
    """A file to read, and the caller's options."""

    path: Path  # the file
    text: str  # what stands in it
    # its entries by name, of YAML, XML and JSON
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # the raw cameras instead of the rectified ones, of files that hold both
    raw: bool = False
    # the lens of raw cameras where the file does not say; None to guess with a warning
    lens: str | None = None
    # the left image, whose folder may tell which of several pairs is meant
    pictures: Path | None = None


def read_text(path: Path) -> str:
    """Return the text of a calibration file.

    Raises:
        InputError: it cannot be read, is no regular file or too large, or is no text.
    """
    check_file(path, MAX_BYTES, "a calibration file")
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file, so no calibration") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def words(text: str) -> list[str]:
    """Split at white space, commas, semicolons and brackets."""
    return [word for word in re.split(r"[\s,;\[\]]+", text) if word]


def numbers(value: Any, count: int | None = None) -> list[float]:
    """Return the numbers of a text or of a list, nested or not.

    Raises:
        ValueError: something else than numbers, or another count of them.
    """
    if isinstance(value, str):
        found = [number(word) for word in words(value)]
    elif isinstance(value, list | tuple):
        found = [each for entry in value for each in numbers(entry)]
    else:
        found = [number(value)]
    if count is not None and len(found) != count:
        raise ValueError(f"expected {count} numbers, found {len(found)}")
    return found


def matrix(value: Any, rows: int | None = None, columns: int | None = None) -> np.ndarray:
    """Return a matrix of a file: rows of numbers, all of them in one list, or OpenCV's mapping.

    Args:
        value: as the parser gives it.
        rows: how many it must have; None for as many as there are, in one row.
        columns: the same.

    Raises:
        ValueError: no numbers, or not as many as it says or must have.
    """
    if isinstance(value, Mapping):
        missing = {"data"} - value.keys()
        if "sizes" not in value:
            missing |= {"rows", "cols"} - value.keys()
        if missing:
            raise ValueError(f"a matrix without {' and '.join(sorted(missing))}")
        shape = numbers(value["sizes"] if "sizes" in value else [value["rows"], value["cols"]])
        found = numbers(value["data"])
        if not all(each.is_integer() and 1 <= each <= MAX_NUMBERS for each in shape):
            raise ValueError(f"a matrix of {'x'.join(f'{each:g}' for each in shape[:3])}")
        if math.prod(shape) != len(found):
            raise ValueError(
                f"a matrix of {'x'.join(f'{each:g}' for each in shape[:3])} with {len(found)} "
                "numbers"
            )
    else:
        found = numbers(value)
    if rows is None or columns is None:
        return np.array(found, np.float64)
    if len(found) != rows * columns:
        raise ValueError(f"expected a matrix of {rows}x{columns}, found {len(found)} numbers")
    return np.array(found, np.float64).reshape(rows, columns)


def first(found: Iterable[str], *names: str) -> str:
    """Return the first of the names that is found.

    Raises:
        KeyError: none is.
    """
    for name in names:
        if name in found:
            return name
    raise KeyError(" or ".join(names))


def only(found: Mapping[str, Any], *names: str) -> str:
    """Return the name that is found; of several with the same value, the first.

    Raises:
        KeyError: none is.
        InputError: several are, with different values.
    """
    name = first(found, *names)
    others = [other for other in names if other in found and found[other] != found[name]]
    if others:
        raise InputError(
            f"holds '{name}' and '{others[0]}', two names for the same thing, with different "
            "values: remove the one that is out of date"
        )
    return name


def coefficients(given: Iterable[float], lens: str) -> tuple[float, ...]:
    """Return a lens's coefficients; a fisheye's without padding zeros.

    Five are always a pinhole's, for whom k3 = 0 is usual.
    """
    found = tuple(float(each) for each in given)
    return found[:FISHEYE_COUNT] if lens == "fisheye" and is_zero_padded(found) else found


def is_zero_padded(given: Sequence[float]) -> bool:
    """Return whether a list of 8 or more coefficients is zero after the first four."""
    return len(given) >= PADDED_COUNT and not any(given[FISHEYE_COUNT:])


def pinhole(
    entries: np.ndarray | Sequence[float],  # (3, 3), or its nine numbers row by row
    distortion: Sequence[float] = (),  # coefficients of the lens
    lens: str = "pinhole",  # which model they are of
) -> Camera:
    """Return the camera of a matrix K.

    Raises:
        InputError: a matrix that no pinhole camera without skew has.
    """
    k = np.asarray(entries, np.float64).reshape(3, 3)
    last = " ".join(f"{entry:g}" for entry in k[2])
    if not max(np.abs(k[2] - (0, 0, 1)).max(), abs(k[1, 0])) <= EXACT:
        raise InputError(
            f"a camera matrix must have 0 0 1 as its last row and 0 before fy; found {last} and "
            f"{k[1, 0]:g}: transposed? Write fx 0 cx, 0 fy cy, 0 0 1"
        )
    if not abs(k[0, 1]) <= NO_SKEW:
        raise InputError(f"the camera matrix has a skew of {k[0, 1]:g} px, which is not supported")
    fx, fy, cx, cy = (float(k[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return Camera(fx, fy, cx, cy, coefficients(distortion, lens), lens)


def settle_lens(said: str | None, source: Source) -> str:
    """Return the lens model that the file states or the caller asks for.

    Raises:
        InputError: an unknown name, or one that contradicts the caller's.
    """
    if said is None:
        return source.lens or "pinhole"
    known = MODELS.get(said.lower().replace("-", "_").replace(" ", "_"))
    if known is None:
        raise InputError(
            f"the distortion model '{said[:40]}' is not supported; "
            "plumb_bob, rational_polynomial, radtan and equidistant are"
        )
    if source.lens not in (None, known):
        raise InputError(
            f"the file's distortion model is '{said}', a {known} lens, not {source.lens}"
        )
    return known


def same_size(
    left: tuple[int, int] | None, right: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Return the size of both cameras' images.

    Raises:
        InputError: they differ.
    """
    if left is not None and right is not None and left != right:
        raise InputError(
            f"the left camera's images are {left[0]}x{left[1]}, the right one's "
            f"{right[0]}x{right[1]}: both must have one size"
        )
    return left or right


def rectified_pair(
    left: Camera, right: Camera, baseline: float, size: tuple[int, int] | None
) -> StereoParameters:
    """Return the calibration of a pair declared rectified.

    Raises:
        InputError: the cameras differ in more than cx.
    """
    for name, camera in (("left", left), ("right", right)):
        check_camera(name, camera)
    for axis, one, other in (("x", left.fx, right.fx), ("y", left.fy, right.fy)):
        if abs(one - other) > SAME_FOCAL * one:
            raise InputError(
                f"the focal lengths along {axis} are {one:g} and {other:g} px: not a rectified pair"
            )
    if abs(left.cy - right.cy) > SAME_ROW:
        raise InputError(
            f"cy is {left.cy:g} px in the left camera and {right.cy:g} in the right one: not a "
            "rectified pair, whose rows correspond"
        )
    return StereoParameters.rectified(
        fx=left.fx, fy=left.fy, cx0=left.cx, cx1=right.cx, cy=left.cy, baseline=baseline, size=size
    )


def projected_pair(
    projections: Sequence[np.ndarray], size: tuple[int, int] | None
) -> StereoParameters:
    """Return the rectified pair of the left and right projection matrix, P = K [I | t], (3, 4).

    Raises:
        InputError: matrices that hold a rotation, or cameras that do not stand side by side.
    """
    cameras, places = [], []
    for name, p in zip(("left", "right"), projections, strict=True):
        turned = np.abs([p[0, 1], p[1, 0], *(p[2, :3] - (0, 0, 1))]).max()
        if not turned <= EXACT:
            raise InputError(
                f"the {name} projection matrix is not fx 0 cx . / 0 fy cy . / 0 0 1 .: it holds a "
                "rotation or is transposed, so the pair is not rectified"
            )
        camera = pinhole(p[:, :3])
        check_camera(name, camera)  # before it divides
        cameras.append(camera)
        places.append((p[0, 3] / camera.fx, p[1, 3] / camera.fy, p[2, 3]))
    x, y, z = (float(one - other) for one, other in zip(*places, strict=True))
    if abs(y) > abs(x):
        raise InputError(
            f"the cameras stand above each other ({abs(y):g} m, a vertical rig): "
            "turn the images by 90 degrees and calibrate again"
        )
    if max(abs(y), abs(z)) > BESIDE * abs(x):
        raise InputError(
            f"the right camera is {-x:g}, {-y:g}, {-z:g} m from the left one along x, y, z: "
            "not side by side, so the pair is not rectified"
        )
    return rectified_pair(cameras[0], cameras[1], x, size)


def raw_pair(
    cameras: Sequence[Camera],  # left and right
    rotation: np.ndarray,  # nine numbers
    translation: np.ndarray,  # three, metres
    size: tuple[int, int] | None,  # of the images
) -> StereoParameters:
    """Return the raw pair that maps a point X of the left camera to R @ X + T in the right."""
    rows = np.asarray(rotation, np.float64).reshape(3, 3).tolist()
    x, y, z = np.asarray(translation, np.float64).reshape(3).tolist()
    left, right = cameras
    return StereoParameters(left, right, (x, y, z), tuple(tuple(row) for row in rows), size)


def posed_pair(
    cameras: Sequence[Camera], pose: np.ndarray, size: tuple[int, int] | None
) -> StereoParameters:
    """Return the pair of a rigid motion, (4, 4), from the left camera's frame to the right's."""
    return raw_pair(cameras, pose[:3, :3], pose[:3, 3], size)


def unrectified_pair(
    cameras: Sequence[Camera],
    turns: Sequence[np.ndarray],
    baseline: float,
    size: tuple[int, int] | None,
) -> StereoParameters:
    """Return the raw pair from the (3, 3) rotations into the rectified frame."""
    move = turns[1].T @ np.array([-baseline, 0, 0])
    return raw_pair(cameras, turns[1].T @ turns[0], move, size)


def rigid(value: Any) -> np.ndarray:
    """Return a rigid motion, (4, 4).

    Raises:
        ValueError: its last row is not 0 0 0 1.
    """
    pose = matrix(value, 4, 4)
    if not np.abs(pose[3] - (0, 0, 0, 1)).max() <= EXACT:
        raise ValueError("the last row of a pose is not 0 0 0 1: transposed?")
    return pose


def note_unit(parameters: StereoParameters, path: Path, kind: str) -> None:
    """Warn if a baseline is implausible in metres, for files that state no unit.

    OpenCV's files, for one, have the unit of the board's squares.
    """
    if parameters.baseline > LIKELY_METRES:
        warnings.warn(
            f"{path}: {kind} files state no unit: the baseline of {parameters.baseline:g} is "
            "taken as metres; if it is in centimetres or in squares of the board, depths come in "
            "those",
            stacklevel=2,
        )


def find_partner(path: Path, pairs: Sequence[tuple[str, str]]) -> tuple[Path | None, bool]:
    """Return the file of the other camera or half, and whether the given one is the second.

    The words are whole ones of the file's name or, failing that, of its folder's: ``left`` is one
    of ``upright_left`` and of ``cameraLeft``, ``right`` is not.
    """
    folder, name = path.parent, path.name
    for where, rebuild in (
        (name, path.with_name),
        (folder.name, lambda other: folder.with_name(other) / name),
    ):
        for pair in pairs:
            found = [
                (*place, other, is_second)
                for one, two in (pair, [w.upper() for w in pair], [w.capitalize() for w in pair])
                for word, other, is_second in ((one, two, False), (two, one, True))
                if (place := _last(word, where)) is not None
            ]
            if found:
                start, end, other, is_second = max(found)
                partner = rebuild(where[:start] + other + where[end:])
                return (partner if partner.is_file() else None), is_second
    return None, False


def _last(word: str, name: str) -> tuple[int, int] | None:
    """Return where a name has the word last, as a whole word or in camel case."""
    before = "(?<![A-Z])" if word.istitle() else "(?<![A-Za-z])"
    after = "(?![0-9])" if word[-1].isdigit() else "(?![a-z])"
    places = [match.span() for match in re.finditer(before + word + after, name)]
    return places[-1] if places else None
