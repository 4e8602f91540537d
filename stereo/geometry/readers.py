"""Calibration files of other programs, told apart by what stands in them.

| kind | told by | unit of the baseline |
| --- | --- | --- |
| Middlebury and ETH3D ``calib.txt`` | ``cam0=[...]`` | millimetres |
| KITTI ``calib.txt``, ``calib_cam_to_cam.txt`` | ``P2:``, ``P0:``, ``P_rect_02:`` | metres |
| OpenCV YAML or XML | ``%YAML:1.0`` or ``<opencv_storage>`` | as calibrated, taken as metres |
| ``K.txt`` | nine numbers, then the baseline | metres |
| Scene Flow ``camera_data.txt`` | ``Frame`` | the scenes' own |
| ROS ``camera_info`` | ``projection_matrix``, ``P`` or ``p`` | metres |
| Kalibr camchain | ``cam0`` with ``intrinsics`` | metres |
| ours, JSON | ``format`` | metres |
"""

import dataclasses
import json
import math
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stereo.errors import InputError
from stereo.geometry.calibration import FORMAT, Calibration, Camera, check_camera, picture_size

MOST_BYTES = 2**26
MALFORMED = (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError)
LIKELY_METRES = 1.0  # of a baseline
SAME_FOCAL = 0.01  # of the focal length, between the cameras of a rectified pair
SAME_ROW = 1.0  # pixels
SIDE_BY_SIDE = 0.99  # of the distance of rendered cameras, along the left one's x axis
SHORT_LENS = "15mm_focallength"  # the folder of that part of Scene Flow's Driving
PARTNERS = {"intrinsics": "extrinsics", "extrinsics": "intrinsics", "left": "right"}
PARTNERS["right"] = "left"


def read_calibration(path: Path, *, raw: bool = False) -> Calibration:
    """Read a file of any kind above.

    Raises:
        InputError: unreadable, of no known kind, or with numbers that cannot be.
    """
    text = _text(path)
    for told_by, read in _KINDS:
        if told_by(text):
            try:
                return read(path, text, raw)
            except InputError as error:
                known = str(error).startswith(str(path))
                raise error if known else InputError(f"{path}: {error}") from error
            except MALFORMED as error:
                what = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise InputError(
                    f"{path}: {_name(read)} with something missing or malformed: {what}"
                ) from error
    raise InputError(
        f"{path}: no calibration that is known (Middlebury, ETH3D, KITTI, OpenCV, K.txt, Scene "
        "Flow, ROS camera_info, Kalibr, or this program's JSON)"
    )


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: too large for a calibration file")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file, so no calibration") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _name(read: Callable[..., Calibration]) -> str:
    name = (read.__doc__ or "").rstrip(".")
    return name[:1].lower() + name[1:]


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,;\[\]]+", text) if word]


def _numbers(text: str, count: int | None = None) -> list[float]:
    numbers = [float(word) for word in _words(text)]
    if count is not None and len(numbers) != count:
        raise ValueError(f"expected {count} numbers, found {len(numbers)}")
    return numbers


def _pairs(text: str, sign: str) -> dict[str, str]:
    lines = (line.partition(sign) for line in text.splitlines() if sign in line)
    return {key.strip(): value.strip() for key, _, value in lines}


def _middlebury(path: Path, text: str, raw: bool) -> Calibration:
    """A Middlebury or ETH3D calib.txt."""
    fields = _pairs(text, "=")
    left, right = (_pinhole(_numbers(fields[key], 9)) for key in ("cam0", "cam1"))
    doffs = float(fields["doffs"]) if "doffs" in fields else right.cx - left.cx
    if abs(doffs - (right.cx - left.cx)) > 1:
        raise InputError(f"doffs is {doffs:g}, but cx1 - cx0 is {right.cx - left.cx:g} px")
    size = None
    if "width" in fields or "height" in fields:
        size = picture_size(fields["width"], fields["height"])
    baseline = float(fields["baseline"]) / 1000
    _check_end(text)
    if size is None:
        warnings.warn(
            f"{path}: has no 'width' and 'height', which Middlebury's and ETH3D's files have after "
            "'baseline': if it is cut, get it anew; pictures of another size are not noticed",
            stacklevel=2,
        )
    return _from_cameras(left, dataclasses.replace(right, cx=left.cx + doffs), baseline, size)


def _check_end(text: str) -> None:
    """Refuse a calib.txt that ends within a line whose number is used: it may lack digits.

    Whole files go on with ``ndisp`` and more, so that they need no newline after the last line.
    """
    last = text.splitlines()[-1]
    used = last.partition("=")[0].strip() in (
        "cam0",
        "cam1",
        "doffs",
        "baseline",
        "width",
        "height",
    )
    if used and not text.endswith(("\n", "\r")):
        raise InputError(
            f"ends with '{last.strip()}' and no newline, where Middlebury's and ETH3D's files go "
            "on: cut? If the number is whole, end the line with a newline"
        )


def _pinhole(numbers: Sequence[float]) -> Camera:
    """Return the camera of the numbers of K, row by row."""
    return Camera(numbers[0], numbers[4], numbers[2], numbers[5])


def _kitti(path: Path, text: str, raw: bool) -> Calibration:
    """A KITTI calibration."""
    fields = _pairs(text, ":")
    names = [("P2", "P3"), ("P_rect_02", "P_rect_03"), ("P0", "P1"), ("P_rect_00", "P_rect_01")]
    for left, right in names:
        if left in fields or right in fields:
            sizes = [_kitti_size(fields, name) for name in (left, right)]
            return _from_projections(
                _numbers(fields[left], 12), _numbers(fields[right], 12), _same_size(*sizes)
            )
    raise KeyError("P2 and P3, nor P0 and P1")


def _kitti_size(fields: dict[str, str], name: str) -> tuple[int, int] | None:
    """Return the size of a rectified camera's pictures, which files of other kinds lack."""
    size = fields.get(name.replace("P_rect", "S_rect")) if "rect" in name else None
    return None if size is None else picture_size(*_numbers(size, 2))


def _same_size(
    left: tuple[int, int] | None, right: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Return the size of both cameras' pictures.

    Raises:
        InputError: they differ.
    """
    if left is not None and right is not None and left != right:
        raise InputError(
            f"the left camera's pictures are {left[0]}x{left[1]}, the right one's "
            f"{right[0]}x{right[1]}: both must have one size"
        )
    return left or right


def _from_cameras(
    left: Camera, right: Camera, baseline: float, size: tuple[int, int] | None
) -> Calibration:
    """Return the calibration of a pair that is said to be rectified.

    Raises:
        InputError: the cameras differ in more than cx, so that it is none.
    """
    for name, camera in (("left", left), ("right", right)):
        check_camera(name, camera)
    for axis, one, other in (("x", left.fx, right.fx), ("y", left.fy, right.fy)):
        if abs(one - other) > SAME_FOCAL * one:
            raise InputError(
                f"the focal lengths along {axis} are {one:g} and {other:g} px: no rectified pair's"
            )
    if abs(left.cy - right.cy) > SAME_ROW:
        raise InputError(
            f"cy is {left.cy:g} px in the left camera and {right.cy:g} in the right one: no "
            "rectified pair's, whose rows correspond"
        )
    return Calibration.rectified(
        fx=left.fx,
        fy=left.fy,
        cx0=left.cx,
        cx1=right.cx,
        cy=left.cy,
        baseline=baseline,
        size=size,
    )


def _from_projections(
    left: Sequence[float], right: Sequence[float], size: tuple[int, int] | None
) -> Calibration:
    """Return the rectified pair of two 3x4 projection matrices."""
    one, other = (Camera(p[0], p[5], p[2], p[6]) for p in (left, right))
    for name, camera in (("left", one), ("right", other)):
        check_camera(name, camera)  # before it divides
    return _from_cameras(one, other, left[3] / left[0] - right[3] / right[0], size)


def _matrix_and_baseline(path: Path, text: str, raw: bool) -> Calibration:
    """A K.txt (nine numbers, then the baseline)."""
    numbers = _numbers(text, 10)
    if numbers[6:9] != [0, 0, 1]:
        raise ValueError("the last row of the matrix is not 0 0 1")
    if not text.endswith(("\n", "\r", " ", "]", ",", ";")):
        warnings.warn(
            f"{path}: ends without a newline: if its baseline of {numbers[9]:g} m is cut, so are "
            "all depths; end the line if it is whole",
            stacklevel=2,
        )
    return Calibration.rectified(
        fx=numbers[0], fy=numbers[4], cx0=numbers[2], cy=numbers[5], baseline=numbers[9]
    )


def _scene_flow(path: Path, text: str, raw: bool) -> Calibration:
    """A Scene Flow camera_data.txt."""
    poses = {
        line.split()[0]: np.array(_numbers(line[1:], 16)).reshape(4, 4)
        for line in reversed(text.splitlines())
        if line[:2] in ("L ", "R ")
    }
    # Camera to world, x to the right: the data set's description.
    move = poses["R"][:3, 3] - poses["L"][:3, 3]
    baseline = float(move @ poses["L"][:3, 0])
    if abs(baseline) < SIDE_BY_SIDE * float(np.linalg.norm(move)):
        raise InputError("the right view does not stand beside the left one: no rectified pair's")
    # The file has no intrinsics: they are those of the data set's description.
    short = SHORT_LENS in path.resolve().parts
    focal = 450.0 if short else 1050.0
    warnings.warn(
        f"{path}: holds no focal length; {focal:g} px is taken, since "
        + (f"it lies in a folder '{SHORT_LENS}'" if short else f"no folder is named '{SHORT_LENS}'")
        + (" (other sets have 1050 px)" if short else " (that set has 450 px)"),
        stacklevel=2,
    )
    return Calibration.rectified(fx=focal, cx0=479.5, cy=269.5, baseline=baseline, size=(960, 540))


def _opencv(path: Path, text: str, raw: bool) -> Calibration:
    """An OpenCV calibration."""
    matrices = _opencv_matrices(path)
    partner = _partner(path)
    if partner is not None:
        matrices = _opencv_matrices(partner) | matrices
    size = None
    if "image_size" in matrices or "size" in matrices:
        size = picture_size(*matrices[_first(matrices, "image_size", "size")].ravel()[:2])
    if not raw and "P1" in matrices and "P2" in matrices:
        left, right = matrices["P1"].ravel(), matrices["P2"].ravel()
        return _with_unit_noted(_from_projections(left.tolist(), right.tolist(), size))
    cameras = []
    for number in ("1", "2"):
        matrix = matrices[_first(matrices, f"M{number}", f"K{number}", f"cameraMatrix{number}")]
        lens = [name for name in (f"D{number}", f"distCoeffs{number}") if name in matrices]
        distortion = tuple(matrices[lens[0]].ravel().tolist()) if lens else ()
        cameras.append(_camera(matrix, distortion))
    return _with_unit_noted(_raw_pair(cameras, matrices["R"], matrices["T"], size))


def _with_unit_noted(calibration: Calibration) -> Calibration:
    """Warn where an OpenCV file's unit, which it does not state, is hardly the metre."""
    if calibration.baseline > LIKELY_METRES:
        warnings.warn(
            f"OpenCV's files state no unit: the baseline of {calibration.baseline:g} is taken as "
            "metres; if the board was measured in other units or in squares, depths come in those",
            stacklevel=2,
        )
    return calibration


def _opencv_matrices(path: Path) -> dict[str, np.ndarray]:
    from stereo.opencv import import_cv2

    cv2 = import_cv2()
    found: dict[str, np.ndarray] = {}
    try:
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
        root = storage.root()
        for key in root.keys():  # noqa: SIM118 (a FileNode, no dictionary)
            node = root.getNode(key)
            if node.isMap() and node.mat() is not None:
                found[key] = node.mat()
            elif node.isSeq() and node.size():
                entries = [node.at(index) for index in range(node.size())]
                if all(entry.isReal() or entry.isInt() for entry in entries):
                    found[key] = np.array([entry.real() for entry in entries])
    except (cv2.error, SystemError) as error:
        raise InputError(f"{path}: OpenCV cannot read it: cut, or not its format") from error
    return found


def _partner(path: Path) -> Path | None:
    """Return the file that holds the other half: extrinsics of intrinsics, right of left."""
    for name, other in PARTNERS.items():
        if name in path.name:
            partner = path.with_name(path.name.replace(name, other))
            if partner.is_file():
                return partner
    return None


def _first(found: dict[str, Any], *names: str) -> str:
    for name in names:
        if name in found:
            return name
    raise KeyError(" or ".join(names))


def _camera(matrix: np.ndarray, distortion: tuple[float, ...]) -> Camera:
    matrix = np.asarray(matrix, np.float64).reshape(3, 3)
    fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return Camera(fx, fy, cx, cy, distortion)


def _raw_pair(
    cameras: Sequence[Camera],
    rotation: np.ndarray,
    translation: np.ndarray,
    size: tuple[int, int] | None,
) -> Calibration:
    rows = np.asarray(rotation, np.float64).reshape(3, 3).tolist()
    x, y, z = np.asarray(translation, np.float64).reshape(3).tolist()
    left, right = cameras
    return Calibration(left, right, (x, y, z), tuple(tuple(row) for row in rows), size)


def _ros(path: Path, text: str, raw: bool) -> Calibration:
    """A ROS camera_info."""
    partner = _partner(path)
    infos = [_yaml(path, text)]
    if partner is not None:
        infos.append(_yaml(partner, _text(partner)))
    if "right" in path.name:
        infos.reverse()
    if len(infos) == 1:
        raise InputError(
            "holds one camera; the other one's file must lie beside it, named 'right' for 'left'"
        )
    left, right = infos
    size = _same_size(*(picture_size(info["width"], info["height"]) for info in infos))
    projections = [np.array(info["projection"], np.float64).reshape(3, 4) for info in infos]
    rectified = _from_projections(
        projections[0].ravel().tolist(), projections[1].ravel().tolist(), size
    )
    if not raw:
        return rectified
    turns = [np.array(info["rectification"], np.float64).reshape(3, 3) for info in infos]
    cameras = [_camera(np.array(i["camera"]), tuple(i["distortion"])) for i in (left, right)]
    move = turns[1].T @ np.array([-rectified.baseline, 0, 0])
    return _raw_pair(cameras, turns[1].T @ turns[0], move, size)


def _yaml(path: Path, text: str) -> dict[str, Any]:
    """Return a camera_info's fields, of a file or of a message, under one set of names."""
    loaded = _load_yaml(text)
    info: dict[str, Any] = {str(key).lower(): value for key, value in loaded.items()}
    found: dict[str, Any] = {}
    names = {
        "camera": ("camera_matrix", "k"),
        "distortion": ("distortion_coefficients", "d"),
        "rectification": ("rectification_matrix", "r"),
        "projection": ("projection_matrix", "p"),
    }
    for name, keys in names.items():
        value = info[_first(info, *keys)]
        found[name] = [float(n) for n in (value["data"] if isinstance(value, dict) else value)]
    found["width"] = info[_first(info, "image_width", "width")]
    found["height"] = info[_first(info, "image_height", "height")]
    model = info.get("distortion_model", "plumb_bob")
    if model not in ("plumb_bob", "rational_polynomial"):
        raise InputError(f"{path}: the distortion model '{model}' is not supported")
    return found


def _load_yaml(text: str) -> dict[str, Any]:
    import yaml  # comes with jsonargparse

    try:
        # What `rostopic echo` prints ends in ---: documents, of which the first will do.
        loaded = next(filter(None, yaml.safe_load_all(text)), None)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(loaded, dict):
        raise ValueError("no YAML mapping")
    return loaded


def _kalibr(path: Path, text: str, raw: bool) -> Calibration:
    """A Kalibr camchain."""
    chain = _load_yaml(text)
    cameras = []
    for name in ("cam0", "cam1"):
        camera = chain[name]
        model = camera.get("distortion_model", "none")
        if camera.get("camera_model", "pinhole") != "pinhole" or model not in ("radtan", "none"):
            raise InputError(
                f"{name} is '{camera.get('camera_model')}' with '{model}' distortion; "
                "only pinhole with radtan is supported: undistort the pictures first"
            )
        fx, fy, cx, cy = (float(number) for number in camera["intrinsics"])
        distortion = tuple(float(n) for n in camera.get("distortion_coeffs", ()))
        cameras.append(Camera(fx, fy, cx, cy, distortion))
    pose = np.array(chain["cam1"]["T_cn_cnm1"], np.float64).reshape(4, 4)
    size = _same_size(*(picture_size(*chain[name]["resolution"]) for name in ("cam0", "cam1")))
    return _raw_pair(cameras, pose[:3, :3], pose[:3, 3], size)


def _ours(path: Path, text: str, raw: bool) -> Calibration:
    """A calibration of this program."""
    data = json.loads(text)
    if data.get("format") != FORMAT:
        raise ValueError(f"its format is '{data.get('format')}', not '{FORMAT}'")
    return Calibration.from_dict(data)


def _is_matrix_and_baseline(text: str) -> bool:
    words = _words(text)
    if not 9 <= len(words) <= 12:
        return False
    try:
        return all(math.isfinite(float(word)) for word in words)
    except ValueError:
        return False


def _has(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.search(pattern, text, re.MULTILINE) is not None


_Reader = Callable[[Path, str, bool], Calibration]
_KINDS: tuple[tuple[Callable[[str], bool], _Reader], ...] = (
    (_has(r"\A\s*\{"), _ours),
    (_has(r"\A\s*%YAML:|<opencv_storage>"), _opencv),
    (_has(r"^\s*cam0\s*=\s*\["), _middlebury),
    (_has(r"^P(_rect_0)?[0-3]:"), _kitti),
    (_has(r"^cam0:\s*$"), _kalibr),
    (_has(r"^(projection_matrix|[Pp]):"), _ros),
    (_has(r"^(Frame \d+|L [-\d.e]+ )"), _scene_flow),
    (_is_matrix_and_baseline, _matrix_and_baseline),
)
