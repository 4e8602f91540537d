"""Files of lines: Middlebury and ETH3D, KITTI and DrivingStereo, K.txt, Scene Flow."""

import contextlib
import dataclasses
import math
import re
import warnings
from pathlib import Path

import numpy as np

from stereo.errors import InputError
from stereo.geometry.parameters import StereoParameters, number, picture_size
from stereo.geometry.readers.common import (
    Source,
    matrix,
    numbers,
    pinhole,
    projected_pair,
    raw_pair,
    read_text,
    rectified_pair,
    same_size,
    words,
)

SIDE_BY_SIDE = 0.99  # of the distance of rendered cameras, along the left one's x axis
SHORT_LENS = "15mm_focallength"  # the folder of that part of Scene Flow's Driving
GREY_FOLDERS = {"image_0", "image_1", "image_00", "image_01"}  # of KITTI
COLOR_FOLDERS = {"image_2", "image_02", "colored_0"}
SAME_BASELINE = 0.05  # of the baseline, between P and the cameras' places
_GREY: tuple[tuple[str, str, str], ...] = (("P", "0", "1"), ("P_rect_", "00", "01"))
_COLOR: tuple[tuple[str, str, str], ...] = (
    ("P", "2", "3"),
    ("P_rect_", "02", "03"),
    ("P_rect_", "101", "103"),
)


def _pairs(text: str, sign: str) -> dict[str, str]:
    """Return the lines 'name sign value'."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, there, value = line.partition(sign)
        if there:
            name = name.strip()
            if name in found:
                raise InputError(f"'{name[:40]}' appears twice; remove one")
            found[name] = value.strip()
    return found


def read_middlebury(source: Source) -> StereoParameters:
    """A Middlebury or ETH3D calib.txt."""
    fields = _pairs(source.text, "=")
    left, right = (pinhole(numbers(fields[key], 9)) for key in ("cam0", "cam1"))
    doffs = number(fields["doffs"]) if "doffs" in fields else right.cx - left.cx
    if abs(doffs - (right.cx - left.cx)) > 1:
        raise InputError(f"doffs is {doffs:g}, but cx1 - cx0 is {right.cx - left.cx:g} px")
    size = None
    if "width" in fields or "height" in fields:
        size = picture_size(fields["width"], fields["height"])
    baseline = number(fields["baseline"]) / 1000
    _check_end(source.text)
    if size is None:
        warnings.warn(
            f"{source.path}: has no 'width' and 'height', which Middlebury's and ETH3D's files "
            "have after 'baseline': if it is truncated, get it again; images of another size are "
            "not noticed",
            stacklevel=2,
        )
    return rectified_pair(left, dataclasses.replace(right, cx=left.cx + doffs), baseline, size)


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
    if used and not text.endswith("\n"):
        raise InputError(
            f"ends with '{last.strip()[:80]}' and no newline, where Middlebury's and ETH3D's files "
            "go on: truncated? If the number is complete, end the line with a newline"
        )


def stated_disparities(path: Path) -> int | None:
    """Return the number of disparities, ``ndisp``, of a Middlebury calib.txt; None without one.

    ETH3D's may repeat the images' width there, which says nothing about the scene: None as well.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError, InputError):
        text = read_text(path)
        stated, width = (
            re.search(rf"^{name} *= *(\d{{1,5}})\s*$", text, re.MULTILINE)
            for name in ("ndisp", "width")
        )
        if stated is not None and (width is None or int(stated[1]) < int(width[1])):
            return int(stated[1])
    return None


def read_kitti(source: Source) -> StereoParameters:
    """A KITTI or DrivingStereo calibration."""
    fields = _pairs(source.text, ":")
    folders = set() if source.pictures is None else set(source.pictures.parts)
    is_grey, is_color = bool(GREY_FOLDERS & folders), bool(COLOR_FOLDERS & folders)
    names = _GREY if is_grey else _COLOR if is_color else _COLOR[:2] + _GREY + _COLOR[2:]
    for prefix, left, right in names:
        if prefix + left in fields or prefix + right in fields:
            if (
                not (is_grey or is_color)
                and left.endswith("2")
                and prefix + "0" * len(left) in fields
            ):
                warnings.warn(
                    f"{source.path}: is of a grey pair and a colour pair, whose baselines differ; "
                    "the colour one's is taken, since no folder's name tells: put the left images "
                    "into image_0 if they are grey, else into image_2",
                    stacklevel=2,
                )
            if source.raw and f"K_{left}" in fields:
                return _raw_kitti(fields, left, right)
            return _rectified_kitti(source, fields, prefix, (left, right))
    raise KeyError(" nor ".join(f"{name}{left} and {name}{right}" for name, left, right in names))


def _rectified_kitti(
    source: Source, fields: dict[str, str], prefix: str, cameras: tuple[str, str]
) -> StereoParameters:
    sizes = [
        picture_size(*numbers(fields[f"S_rect_{camera}"], 2))
        if "rect" in prefix and f"S_rect_{camera}" in fields
        else None
        for camera in cameras
    ]
    found = projected_pair(
        [matrix(fields[prefix + camera], 3, 4) for camera in cameras], same_size(*sizes)
    )
    if "rect" not in prefix or any(f"{m}_{c}" not in fields for m in "RT" for c in cameras):
        return found
    _, move = _pose(fields, *cameras)
    apart = float(np.linalg.norm(move))
    if abs(apart - found.baseline) <= SAME_BASELINE * apart:
        return found
    # DrivingStereo halved the images and fx, but not fx * baseline.
    warnings.warn(
        f"{source.path}: the baseline is {found.baseline:g} m by {prefix}{cameras[1]} and "
        f"{apart:g} m by T_{cameras[1]}: the latter is taken, as DrivingStereo's half-size "
        "images need",
        stacklevel=2,
    )
    return dataclasses.replace(found, translation=(-apart, 0.0, 0.0))


def _pose(fields: dict[str, str], left: str, right: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rotation and translation from the left to the right camera, by those of the file."""
    turns = [matrix(fields[f"R_{camera}"], 3, 3) for camera in (left, right)]
    moves = [np.array(numbers(fields[f"T_{camera}"], 3)) for camera in (left, right)]
    rotation = turns[1] @ turns[0].T
    return rotation, moves[1] - rotation @ moves[0]


def _raw_kitti(fields: dict[str, str], left: str, right: str) -> StereoParameters:
    cameras = [
        pinhole(numbers(fields[f"K_{camera}"], 9), numbers(fields[f"D_{camera}"]))
        for camera in (left, right)
    ]
    sizes = [
        picture_size(*numbers(fields[f"S_{camera}"], 2)) if f"S_{camera}" in fields else None
        for camera in (left, right)
    ]
    return raw_pair(cameras, *_pose(fields, left, right), same_size(*sizes))


def read_matrix_and_baseline(source: Source) -> StereoParameters:
    """A K.txt (nine numbers, then the baseline; comments after ``#``)."""
    entries = numbers(_without_comments(source.text))
    if len(entries) == 9:
        raise InputError("is a camera matrix alone: add the baseline in metres below it")
    if len(entries) != 10:
        raise InputError(f"expected 9 numbers and the baseline, found {len(entries)}")
    camera = pinhole(entries[:9])
    if not source.text.endswith(("\n", " ", "]", ",", ";")):
        warnings.warn(
            f"{source.path}: ends without a newline: if its baseline of {entries[9]:g} m is cut, "
            "so are all depths; end the line if it is whole",
            stacklevel=2,
        )
    return StereoParameters.rectified(
        fx=camera.fx, fy=camera.fy, cx0=camera.cx, cy=camera.cy, baseline=entries[9]
    )


def _without_comments(text: str) -> str:
    return re.sub("#.*", "", text)


def is_matrix_and_baseline(text: str) -> bool:
    """Return whether a text is 9 to 12 numbers and nothing else."""
    entries = words(_without_comments(text[:4000]))
    try:
        return 9 <= len(entries) <= 12 and all(math.isfinite(float(entry)) for entry in entries)
    except ValueError:
        return False


def read_scene_flow(source: Source) -> StereoParameters:
    """A Scene Flow camera_data.txt."""
    poses = {
        line.split()[0]: matrix(line[1:], 4, 4)
        for line in reversed(source.text.splitlines())
        if line[:2] in ("L ", "R ")
    }
    # Camera to world, x to the right: the data set's description.
    move = poses["R"][:3, 3] - poses["L"][:3, 3]
    baseline = float(move @ poses["L"][:3, 0])
    if abs(baseline) < SIDE_BY_SIDE * float(np.linalg.norm(move)):
        raise InputError(
            "the right camera does not lie along the left one's x axis, so this is not a rectified "
            "pair; check the L and R matrices"
        )
    # The file has no intrinsics: they are those of the data set's description.
    short = SHORT_LENS in source.path.resolve().parts
    focal = 450.0 if short else 1050.0
    warnings.warn(
        f"{source.path}: holds no focal length; {focal:g} px is taken, since "
        + (f"it lies in a folder '{SHORT_LENS}'" if short else f"no folder is named '{SHORT_LENS}'")
        + (" (other sets have 1050 px)" if short else " (that set has 450 px)"),
        stacklevel=2,
    )
    return StereoParameters.rectified(
        fx=focal, cx0=479.5, cy=269.5, baseline=baseline, size=(960, 540)
    )
