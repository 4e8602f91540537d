"""Files of named entries: OpenCV, ORB-SLAM, ROS camera_info, Kalibr and OpenVINS, EuRoC, ours."""

import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stereo.errors import InputError
from stereo.geometry.parameters import FORMAT, Camera, StereoParameters, number, picture_size
from stereo.geometry.readers.common import (
    HALVES,
    SIDES,
    Source,
    coefficients,
    find_partner,
    first,
    is_zero_padded,
    matrix,
    numbers,
    only,
    pinhole,
    posed_pair,
    projected_pair,
    raw_pair,
    read_text,
    rectified_pair,
    rigid,
    same_size,
    settle_lens,
    unrectified_pair,
)
from stereo.geometry.readers.storage import load_entries

GUESSED_COUNT = 4  # coefficients that both of OpenCV's models can have
_NUMBERS = (("1", "2"), ("_1", "_2"), ("_left", "_right"), ("Left", "Right"), ("L", "R"))
_MATRICES = ("M", "K", "cameraMatrix", "camera_matrix")
_LENSES = ("D", "distCoeffs", "distCoeff", "dist_coeffs", "dist")
_ROI = ("x_offset", "y_offset", "width", "height")
_SIZES = ("image_size", "imageSize", "size", "img_size", "resolution", "frame_size", "frameSize")
_SHAPES = ("image_shape", "imageShape", "img_shape", "shape")  # in either order


def read_ours(source: Source) -> StereoParameters:
    """A calibration of this program."""
    found = source.fields.get("format")
    if found != FORMAT:
        raise ValueError(f"its format is '{str(found)[:40]}', not '{FORMAT}'")
    return StereoParameters.from_dict(dict(source.fields))


def is_opencv(fields: Mapping[str, Any]) -> bool:
    """Return whether entries have the names of OpenCV's calibrations."""
    return any(_names(bases, side) & fields.keys() for bases in (_MATRICES, "P") for side in (0, 1))


def _names(bases: Sequence[str], side: int) -> set[str]:
    return {base + pair[side] for base in bases for pair in _NUMBERS}


def _find(fields: Mapping[str, Any], bases: Sequence[str]) -> tuple[Any, Any]:
    """Return the entries of both cameras under one of their usual pairs of names; None for none."""
    pairs = [(base + left, base + right) for left, right in _NUMBERS for base in bases]
    found = [
        (fields.get(left), fields.get(right))
        for left, right in pairs
        if left in fields or right in fields
    ]
    if any(other != found[0] for other in found):
        named = [name for pair in pairs for name in pair if name in fields]
        raise InputError(
            f"holds {', '.join(named[:6])}: several names for the same thing; keep one pair of "
            "names"
        )
    return found[0] if found else (None, None)


def read_opencv(source: Source) -> StereoParameters:
    """An OpenCV calibration."""
    fields = dict(source.fields)
    partner, _ = find_partner(source.path, HALVES + SIDES)
    if partner is not None:
        fields = (load_entries(read_text(partner), str(partner)) or {}) | fields
    size = None
    named = [name for name in _SIZES if name in fields]
    if named:
        size = picture_size(*numbers(fields[only(fields, *named)])[:2])
    elif "image_width" in fields:
        size = picture_size(fields["image_width"], fields["image_height"])
    shape = next((name for name in _SHAPES if name in fields), None)
    if size is None and shape is not None:
        warnings.warn(
            f"{source.path}: '{shape}' may be width and height or the reverse, and is not read: "
            "images of another size would not be noticed; write image_size: [width, height]",
            stacklevel=2,
        )
    projections = _find(fields, "P")
    if not source.raw and None not in projections:
        return projected_pair([matrix(each, 3, 4) for each in projections], size)
    matrices = _find(fields, _MATRICES)
    if not source.raw and matrices == (None, None) and projections != (None, None):
        raise KeyError("P1" if projections[0] is None else "P2")
    if not source.raw and "Q" in fields:
        return dataclasses.replace(read_reprojection(source), size=size)
    for side, found in (("1", matrices[0]), ("2", matrices[1])):
        if found is None:
            first((), *(f"{base}{side}" for base in _MATRICES[:3]))
    lenses = _find(fields, _LENSES)
    for side, found in (("left", lenses[0]), ("right", lenses[1])):
        if found is None:
            warnings.warn(
                f"{source.path}: no coefficients of the {side} lens under a usual name (D1, "
                "distCoeffs1): none are used",
                stacklevel=2,
            )
    distortions = [() if found is None else tuple(matrix(found)) for found in lenses]
    lens = _opencv_lens(source, fields, distortions)
    cameras = [
        pinhole(matrix(k, 3, 3), d, lens) for k, d in zip(matrices, distortions, strict=True)
    ]
    return raw_pair(cameras, matrix(fields["R"], 3, 3), matrix(fields["T"], 3, 1), size)


def read_reprojection(source: Source) -> StereoParameters:
    """OpenCV's Q, from cv2.stereoRectify."""
    if source.raw:
        raise InputError("holds Q alone, which is of the rectified pair; store M1, D1 and others")
    reprojection = matrix(source.fields["Q"], 4, 4)
    (*_, left), (*_, y), (*_, fx), (*_, inverse, offset) = reprojection.tolist()
    form = np.array([[1, 0, 0, -left], [0, 1, 0, -y], [0, 0, 0, fx], [0, 0, inverse, offset]])
    form[:2, 3] *= -1
    if not np.allclose(reprojection, form, atol=1e-9):
        raise InputError(
            "its Q is not of cv2.stereoRectify, whose rows are (1, 0, 0, -cx), (0, 1, 0, -cy), "
            "(0, 0, 0, f) and (0, 0, 1/B, (cx' - cx)/B)"
        )
    if not inverse:
        raise InputError("its Q has no baseline, 1/Q[3][2]")
    return StereoParameters.rectified(
        fx=fx, cx0=-left, cx1=offset / inverse - left, cy=-y, baseline=1 / inverse
    )


def _opencv_lens(
    source: Source, fields: Mapping[str, Any], distortions: Sequence[Sequence[float]]
) -> str:
    """Return the lens model of the coefficients, with a warning if it is a guess."""
    if any(re.fullmatch(r"xi([12]|_?(left|right))?", name, re.IGNORECASE) for name in fields):
        raise InputError("its cameras are of cv2.omnidir, which is not supported")
    said = fields.get("distortion_model", fields.get("camera_model"))
    if "fisheye_model" in fields:  # of OpenCV's sample program
        said = "fisheye" if number(fields["fisheye_model"]) else "pinhole"
    lens = settle_lens(None if said is None else str(said), source)
    guessed = said is None and source.lens is None
    if guessed and any(
        any(each) and (len(each) == GUESSED_COUNT or is_zero_padded(each)) for each in distortions
    ):
        warnings.warn(
            f"{source.path}: 4 lens coefficients can be of OpenCV's pinhole model or of "
            "cv2.fisheye, and the file does not say which: read as k1, k2, p1, p2 of "
            "the pinhole model; say --lens fisheye or --lens pinhole",
            stacklevel=2,
        )
    return lens


def refuse_one_camera(source: Source) -> StereoParameters:
    """An OpenCV calibration of one camera."""
    raise InputError(
        "holds one camera without its pose to the other one: calibrate both together, with "
        "'stereo calibrate'"
    )


def read_orb_slam(source: Source) -> StereoParameters:
    """An ORB-SLAM configuration."""
    fields = source.fields
    if {"DepthMapFactor", "RGBD.DepthMapFactor"} & fields.keys():
        raise InputError("this ORB-SLAM file is of a camera with a depth sensor, not of a pair")
    size = None
    if "Camera.width" in fields:
        size = picture_size(fields["Camera.width"], fields["Camera.height"])
    if "Camera1.fx" not in fields:
        return _orb_slam_2(source, size)
    kind = str(fields["Camera.type"])
    if kind == "Rectified":
        left = _orb_camera(fields, "Camera1", "pinhole")
        return rectified_pair(left, left, number(fields["Stereo.b"]), size)
    lens = settle_lens(kind, source)
    cameras = [_orb_camera(fields, name, lens) for name in ("Camera1", "Camera2")]
    return posed_pair(cameras, np.linalg.inv(rigid(fields["Stereo.T_c1_c2"])), size)


def _orb_slam_2(source: Source, size: tuple[int, int] | None) -> StereoParameters:
    """Read the older form: a rectified pair, perhaps with the raw one."""
    fields = source.fields
    kind = str(fields.get("Camera.type", "PinHole"))
    if kind not in ("PinHole", "Rectified"):
        raise InputError(
            f"an ORB-SLAM file of 'Camera.type: {kind[:40]}' with 'Camera.fx' is not supported; "
            "write it with Camera1 and Camera2"
        )
    if source.raw and "LEFT.K" in fields:
        sides = ("LEFT", "RIGHT")
        distortions = [matrix(fields[f"{s}.D"]).tolist() for s in sides]
        lens = _opencv_lens(source, fields, distortions)
        cameras = [
            pinhole(matrix(fields[f"{s}.K"], 3, 3), distortion, lens)
            for s, distortion in zip(sides, distortions, strict=True)
        ]
        rectified = projected_pair([matrix(fields[f"{s}.P"], 3, 4) for s in sides], size)
        turns = [matrix(fields[f"{s}.R"], 3, 3) for s in sides]
        return unrectified_pair(cameras, turns, rectified.baseline, size)
    camera = _orb_camera(fields, "Camera", "pinhole")
    baseline = number(fields["Camera.bf"]) / camera.fx
    if any(camera.distortion):
        return raw_pair((camera, camera), np.eye(3), np.array([-baseline, 0, 0]), size)
    return rectified_pair(camera, camera, baseline, size)


def _orb_camera(fields: Mapping[str, Any], name: str, lens: str) -> Camera:
    fx, fy, cx, cy = (number(fields[f"{name}.{key}"]) for key in ("fx", "fy", "cx", "cy"))
    if not fx > 0:
        raise InputError(f"the focal length is {fx:g} px: it must be positive")
    keys = ("k1", "k2", "k3", "k4") if lens == "fisheye" else ("k1", "k2", "p1", "p2", "k3")
    given = [number(fields.get(f"{name}.{key}", 0)) for key in keys]
    return Camera(fx, fy, cx, cy, tuple(given) if any(given) or lens == "fisheye" else (), lens)


def read_ros(source: Source) -> StereoParameters:
    """A ROS camera_info."""
    partner, is_right = find_partner(source.path, SIDES)
    if partner is None:
        raise InputError(
            "holds one camera; the other one's file must lie beside it, named 'right' for 'left' "
            "(or cam1 for cam0, infra2 for infra1)"
        )
    other = load_entries(read_text(partner), str(partner)) or {}

    def read(is_cut: bool) -> StereoParameters:
        infos = [_camera_info(source.fields, source, is_cut)]
        try:
            infos.append(_camera_info(other, source, is_cut))
        except (KeyError, ValueError, TypeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"its partner {partner}: {what}") from error
        return _ros_pair(infos[::-1] if is_right else infos, source)

    part = read(True)
    if not any(_roi(entries) for entries in (source.fields, other)):
        return part
    whole = read(False)
    return part if part == whole else dataclasses.replace(part, uncut=whole)


def _roi(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the roi of a camera_info, {} for none."""
    roi = entries.get("roi") or {}
    return roi if any(roi.get(name) for name in _ROI) else {}


def _ros_pair(infos: Sequence[Mapping[str, Any]], source: Source) -> StereoParameters:
    size = same_size(*(info["size"] for info in infos))
    rectified = projected_pair([info["projection"] for info in infos], size)
    if not source.raw:
        return rectified
    turns = [info["turn"] for info in infos]
    return unrectified_pair([info["camera"] for info in infos], turns, rectified.baseline, size)


def _camera_info(entries: Mapping[str, Any], source: Source, is_cut: bool) -> dict[str, Any]:
    """Return a camera_info, of a file or of a message: P, and for raw images K, D and R.

    K and P are of the whole sensor; the images are its ``roi`` if they are cut, binned.
    """
    for key in entries:
        only(entries, *(name for name in (key, key.lower(), key.upper()) if name in entries))
    info = {key.lower(): value for key, value in entries.items()}
    roi = _roi(entries) if is_cut else {}
    across, down = (number(info.get(f"binning_{axis}") or 1) for axis in "xy")
    left, top = (number(roi.get(f"{axis}_offset") or 0) for axis in "xy")
    if not all(each >= 1 and each.is_integer() for each in (across, down)):
        raise ValueError(f"its binning is {across:g}x{down:g}: expected whole numbers from 1")
    if not min(left, top) >= 0:
        raise ValueError("its roi is negative")
    if roi.get("do_rectify") and (left or top) and not source.raw:
        warnings.warn(
            f"{source.path}: its roi is that of raw images (do_rectify), and is taken for the "
            "rectified ones, too",
            stacklevel=2,
        )
    size = None
    if {"width", "image_width"} & info.keys():
        sensor = picture_size(
            info[only(info, "image_width", "width")], info[only(info, "image_height", "height")]
        )
        rest = sensor[0] - left, sensor[1] - top
        part = picture_size(roi.get("width") or rest[0], roi.get("height") or rest[1])
        if part[0] > rest[0] or part[1] > rest[1]:
            raise ValueError(f"its roi goes beyond the sensor's {sensor[0]}x{sensor[1]} pixels")
        size = int(part[0] // across), int(part[1] // down)

    def crop(entries: np.ndarray) -> np.ndarray:
        entries = entries.copy()
        entries[0] -= left * entries[2]
        entries[1] -= top * entries[2]
        entries[0] = entries[0] / across + (0.5 / across - 0.5) * entries[2]
        entries[1] = entries[1] / down + (0.5 / down - 0.5) * entries[2]
        return entries

    found: dict[str, Any] = {
        "size": size,
        "projection": crop(matrix(info[only(info, "projection_matrix", "p")], 3, 4)),
    }
    if source.raw:
        distortion = matrix(info[only(info, "distortion_coefficients", "d")]).tolist()
        said = str(info.get("distortion_model") or "")
        lens = settle_lens(said if said or any(distortion) else "none", source)
        camera = matrix(info[only(info, "camera_matrix", "k")], 3, 3)
        found["camera"] = pinhole(crop(camera), distortion, lens)
        found["turn"] = matrix(info[only(info, "rectification_matrix", "r")], 3, 3)
    return found


def read_kalibr(source: Source) -> StereoParameters:
    """A Kalibr camchain."""
    chain = [source.fields[name] for name in ("cam0", "cam1")]
    cameras = [
        _modelled(camera, camera.get("distortion_coeffs", ()), name, source)
        for name, camera in zip(("cam0", "cam1"), chain, strict=True)
    ]
    if "T_cn_cnm1" in chain[1]:
        pose = rigid(chain[1]["T_cn_cnm1"])
    else:  # to the inertial sensor and back; OpenVINS writes the inverse of Kalibr's
        name = first(chain[1], "T_cn_cnm1", "T_cam_imu", "T_imu_cam")
        one, other = (rigid(camera[name]) for camera in chain)
        pose = other @ np.linalg.inv(one) if name == "T_cam_imu" else np.linalg.inv(other) @ one
    return posed_pair(cameras, pose, same_size(*(_resolution(camera) for camera in chain)))


def read_euroc(source: Source) -> StereoParameters:
    """An EuRoC sensor.yaml."""
    partner, is_right = find_partner(source.path, SIDES)
    if partner is None:
        raise InputError(
            "holds one camera; the other one's file must lie in the folder 'cam1' beside 'cam0'"
        )
    sensors = [source.fields, load_entries(read_text(partner), str(partner)) or {}]
    if is_right:
        sensors.reverse()
    cameras = [
        _modelled(sensor, sensor["distortion_coefficients"], name, source)
        for name, sensor in zip(("cam0", "cam1"), sensors, strict=True)
    ]
    one, other = (rigid(sensor["T_BS"]) for sensor in sensors)
    sizes = [_resolution(sensor) for sensor in sensors]
    return posed_pair(cameras, np.linalg.inv(other) @ one, same_size(*sizes))


def _modelled(entries: Mapping[str, Any], given: Any, name: str, source: Source) -> Camera:
    """Return a camera of Kalibr's or EuRoC's entries."""
    kind = entries.get("camera_model", "pinhole")
    if kind != "pinhole":
        raise InputError(
            f"{name} is of the camera model '{str(kind)[:40]}'; only pinhole with radtan or "
            "equidistant distortion is supported: undistort the images first"
        )
    distortion = matrix(given).tolist()
    lens = settle_lens(str(entries.get("distortion_model", "none")), source)
    fx, fy, cx, cy = numbers(entries["intrinsics"], 4)
    return Camera(fx, fy, cx, cy, coefficients(distortion, lens), lens)


def _resolution(entries: Mapping[str, Any]) -> tuple[int, int]:
    return picture_size(*numbers(entries["resolution"], 2))
