"""Calibration files of other programs, identified by their content.

| kind | told by | unit of the baseline |
| --- | --- | --- |
| Middlebury and ETH3D ``calib.txt`` | ``cam0=[...]`` | millimetres |
| KITTI, also raw, and DrivingStereo | ``P2: 7...``, ``P_rect_101: 1...`` | metres |
| ``K.txt`` | nine numbers, then the baseline | none, taken as metres |
| Scene Flow ``camera_data.txt`` | ``Frame`` | the scenes' own |
| OpenCV YAML, XML or JSON | ``M1``, ``K1``, ``cameraMatrix1``, ``P1``, ``Q`` | none, as above |
| ORB-SLAM 2 and 3 | ``Camera.fx``, ``Camera1.fx`` | none, as above |
| ROS ``camera_info`` | ``projection_matrix``, ``P`` or ``p`` | none, as above |
| Kalibr camchain, also OpenVINS's | ``cam0`` with ``intrinsics`` | none, as above |
| EuRoC ``sensor.yaml`` | ``T_BS`` | none, as above |
| ours, JSON | ``format`` | metres |
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stereo.errors import InputError, unknown_name
from stereo.geometry.parameters import LENSES, StereoParameters
from stereo.geometry.readers import rigs, texts
from stereo.geometry.readers.common import Source, note_unit, read_text
from stereo.geometry.readers.storage import load_entries

MALFORMED = (KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError)
_WRITE_K = (
    "of rectified images, write fx 0 cx 0 fy cy 0 0 1 and below it the baseline in metres "
    "to a K.txt"
)


def read_parameters(
    path: Path, *, raw: bool = False, lens: str | None = None, pictures: Path | None = None
) -> StereoParameters:
    """Read a file of any kind above.

    Args:
        path: the file.
        raw: of files that hold both, the cameras as they are instead of the rectified ones.
        lens: ``pinhole`` or ``fisheye``, for files that do not say; None to guess with a warning.
        pictures: the left image: KITTI's folders tell the grey pair from the coloured one.

    Raises:
        InputError: unreadable, of no known kind, or with numbers that cannot be.
        UsageError: an unknown lens.
    """
    if lens is not None and lens not in LENSES:
        raise unknown_name("lens", lens, LENSES)
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path}: the file is empty")
    has_names = re.match(r"\s*(%YAML|---|[<{])", text) is not None  # told apart by these
    for kind, told_by, read in () if has_names else _TEXTS:
        if told_by(text):
            return _read(kind, read, Source(path, text, {}, raw, lens, pictures))
    for what, pattern in _FOREIGN:
        if re.search(pattern, text, re.MULTILINE):
            raise InputError(f"{path}: looks like {what}, which is not read: {_WRITE_K}")
    fields = load_entries(text, str(path)) or {}
    for kind, is_kind, read in _ENTRIES:
        if is_kind(fields):
            return _read(kind, read, Source(path, text, fields, raw, lens, pictures))
    if re.search(r"\A\s*%YAML:|!!opencv-matrix|<opencv_storage>|\"type_id\"", text):
        raise InputError(f"{path}: an OpenCV file, but no calibration: it has no M1, K1, P1 or Q")
    raise InputError(
        f"{path}: no calibration in a known format (Middlebury, ETH3D, KITTI, DrivingStereo, "
        "OpenCV, K.txt, Scene Flow, ROS camera_info, Kalibr, EuRoC, ORB-SLAM, or this program's "
        f"JSON); {_WRITE_K}"
    )


def _read(kind: str, read: "_Reader", source: Source) -> StereoParameters:
    path = source.path
    try:
        found = read(source)
        if source.raw and source.lens not in (None, found.left.lens):
            raise InputError(f"its lenses are {found.left.lens} ones, not {source.lens}")
    except InputError as error:
        known = str(error).startswith(str(path))
        raise error if known else InputError(f"{path}: {error}") from error
    except MALFORMED as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        name = (read.__doc__ or "").rstrip(".")
        raise InputError(
            f"{path}: {name[:1].lower()}{name[1:]} with something missing or malformed: "
            f"{what[:200]}"
        ) from error
    if kind:
        note_unit(found, path, kind)
    return found


def _has(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.search(pattern, text, re.MULTILINE) is not None


def _any(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda fields: any(name in fields for name in names)


_Reader = Callable[[Source], StereoParameters]
# The first entry names the kind where its unit is not certain.
_TEXTS: tuple[tuple[str, Callable[[str], bool], _Reader], ...] = (
    ("", _has(r"^[ \t]*cam0[ \t]*=[ \t]*\["), texts.read_middlebury),
    ("KITTI's", _has(r"^P(_rect_)?[0-9]{1,3}:[ \t]*[-+.0-9]\S*[ \t]+[-+.0-9]"), texts.read_kitti),
    ("", _has(r"^(Frame \d+|L [-\d.e]+ )"), texts.read_scene_flow),
    ("K.txt", texts.is_matrix_and_baseline, texts.read_matrix_and_baseline),
)
_ENTRIES: tuple[tuple[str, Callable[[Mapping[str, Any]], bool], _Reader], ...] = (
    ("", _any("format"), rigs.read_ours),
    ("Kalibr's", lambda fields: isinstance(fields.get("cam0"), dict), rigs.read_kalibr),
    ("EuRoC's", _any("T_BS"), rigs.read_euroc),
    ("ORB-SLAM's", _any("Camera.fx", "Camera1.fx"), rigs.read_orb_slam),
    ("camera_info", _any("projection_matrix", "P", "p"), rigs.read_ros),
    ("OpenCV's", rigs.is_opencv, rigs.read_opencv),
    ("OpenCV's", lambda fields: {"R", "T"} <= fields.keys(), rigs.read_opencv),
    ("OpenCV's", _any("Q"), rigs.read_reprojection),
    ("", _any("camera_matrix", "Camera_Matrix"), rigs.refuse_one_camera),
)
_FOREIGN = (
    ("a ZED camera's settings", r"^\[(LEFT|RIGHT)_CAM_\w+\]"),
    ("a RealSense camera's", r"^ *Intrinsic of \"|\"ppx\"|^ *PPX:|\"(aux-)?param-\w+\""),
    ("Open3D's camera", r"\"intrinsic_matrix\""),
    ("COLMAP's cameras", r"^# Camera list with one line of data"),
    ("Basalt's", r"\"value0\""),
    ("VINS-Fusion's", r"^cam0_calib:|^body_T_cam0:"),
    ("an OAK camera's", r"\"cameraData\""),
    ("MATLAB's toolbox's", r"^fc_left *="),
)
