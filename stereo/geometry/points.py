"""Points in space from a depth map, and the files that viewers open."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from stereo.geometry.calibration import Calibration
from stereo.geometry.flying import is_flying

BASELINES_SEEN = 100  # how far points are kept: 12 m at a baseline of 12 cm
EDGE = 0.05  # of the depth: a neighbour further away than this makes an edge
ASSET = {"version": "2.0", "generator": "stereo"}
GLB_HEADER, GLB_JSON, GLB_BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942
ARRAY_BUFFER, FLOAT, POINTS = 34962, 5126, 0


def is_edge(depth: np.ndarray) -> np.ndarray:
    """Return which pixels lie at depth discontinuities, where maps blend two surfaces.

    Args:
        depth: (H, W) float, metres; 0 for none.

    Returns:
        (H, W) bool, true where one of the eight pixels around is nearer or further by 5 %.
    """
    padded = np.pad(np.where(depth > 0, depth, np.nan), 1, constant_values=np.nan)
    height, width = depth.shape
    edge = np.zeros(depth.shape, bool)
    for y in range(3):
        for x in range(3):
            around = padded[y : y + height, x : x + width]
            with np.errstate(invalid="ignore"):
                far = np.abs(around - depth) > EDGE * np.minimum(around, depth)
            edge |= far  # comparisons with NaN are false
    return edge & (depth > 0)


def points_in_space(
    depth: np.ndarray, calibration: Calibration, *, is_right: bool = False
) -> np.ndarray:
    """Return the point of every pixel in the left camera's frame.

    Args:
        depth: (H, W) float32, metres.
        calibration: of the rectified pair.
        is_right: whether it is the depth map of the right view.

    Returns:
        (H, W, 3) float32, metres: x to the right, y down, z along the optical axis.
    """
    y, x = np.indices(depth.shape, np.float32)
    cx = calibration.cx1 if is_right else calibration.cx0
    across = (x - cx) / calibration.fx * depth
    if is_right:
        across += calibration.baseline
    down = (y - calibration.cy) / calibration.fy * depth
    return np.stack([across, down, depth], axis=-1).astype(np.float32)


def colored_points(
    disparity: np.ndarray,
    picture: np.ndarray,
    calibration: Calibration,
    *,
    is_right: bool = False,
    max_depth: float | None = None,
    keep_flying_points: bool = False,
    certainty: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    min_confidence: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the points within a depth and confidence limit, with their colours.

    Args:
        disparity: (H, W) float32, pixels.
        picture: (H, W, 3) uint8 RGB, the view of the map.
        calibration: of the rectified pair, for its size.
        is_right: whether it is the right view. Points lie in the left camera's frame either way.
        max_depth: metres, the depth of the furthest point; None for 100 baselines.
        keep_flying_points: whether flying points stay.
        certainty: (2, H, W) float32, of a network, which tells flying points; None of an engine
            without one, whose points at jumps of the depth are left out.
        confidence: (H, W) float32, 0..1; None keeps points whatever it is.
        min_confidence: the least confidence of a point.

    Returns:
        (N, 3) float32, metres: x to the right, y down, z along the optical axis. (N, 3) uint8 RGB.

    Raises:
        InputError: the calibration is not that of a rectified pair.
    """
    depth = calibration.depth(disparity)
    limit = BASELINES_SEEN * calibration.baseline if max_depth is None else max_depth
    kept = (depth > 0) & (depth <= limit)
    if not keep_flying_points:
        kept &= ~_is_flying(disparity, depth, certainty, is_right=is_right)
    if confidence is not None:
        kept &= confidence >= min_confidence
    return points_in_space(depth, calibration, is_right=is_right)[kept], picture[kept]


def _is_flying(
    disparity: np.ndarray, depth: np.ndarray, certainty: np.ndarray | None, *, is_right: bool
) -> np.ndarray:
    if certainty is None:
        return is_edge(depth)
    if not is_right:
        return is_flying(disparity, certainty)
    # The network knows left views; a mirrored right one is one.
    mirrored = np.ascontiguousarray(disparity[:, ::-1]), np.ascontiguousarray(certainty[..., ::-1])
    return is_flying(*mirrored)[:, ::-1]


def write_ply(path: Path, points: np.ndarray, colors: np.ndarray) -> None:
    """Write a binary PLY file.

    Args:
        path: the file.
        points: (N, 3) float32, metres: x to the right, y down, z forward.
        colors: (N, 3) uint8, RGB.
    """
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        "comment metres; x to the right, y down, z forward from the left camera\n"
        f"element vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
    )
    vertices = np.empty(len(points), [("point", "<f4", 3), ("color", "u1", 3)])
    vertices["point"], vertices["color"] = points, colors
    with path.open("wb") as file:
        file.write(header.encode("ascii"))
        file.write(vertices.tobytes())


def write_glb(path: Path, points: np.ndarray, colors: np.ndarray) -> None:
    """Write a binary glTF 2.0 file, whose y goes up and z towards the viewer.

    Args:
        path: the file.
        points: (N, 3) float32, metres: x to the right, y down, z forward.
        colors: (N, 3) uint8, RGB.
    """
    if not len(points):
        _write_chunks(path, {"asset": ASSET, "scene": 0, "scenes": [{}]}, b"")
        return
    turned = (points * np.array([1, -1, -1], np.float32)).astype("<f4")
    count = len(points)
    binary = turned.tobytes() + _linear(colors).astype("<f4").tobytes()
    document = {
        "asset": ASSET,
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "mode": POINTS}]}],
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": [
            {"buffer": 0, "byteLength": 12 * count, "target": ARRAY_BUFFER},
            {
                "buffer": 0,
                "byteOffset": 12 * count,
                "byteLength": 12 * count,
                "target": ARRAY_BUFFER,
            },
        ],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": FLOAT,
                "count": count,
                "type": "VEC3",
                "min": turned.min(axis=0).tolist(),
                "max": turned.max(axis=0).tolist(),
            },
            {
                "bufferView": 1,
                "componentType": FLOAT,
                "count": count,
                "type": "VEC3",
            },
        ],
    }
    _write_chunks(path, document, binary)


def _linear(colors: np.ndarray) -> np.ndarray:
    """Return linear colours, 0..1, of sRGB bytes, as glTF needs them."""
    values = colors / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _write_chunks(path: Path, document: dict[str, Any], binary: bytes) -> None:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), GLB_JSON) + text
    if binary:
        chunks += struct.pack("<II", len(binary), GLB_BINARY) + binary
    path.write_bytes(struct.pack("<III", GLB_HEADER, 2, 12 + len(chunks)) + chunks)


POINT_WRITERS = {".ply": write_ply, ".glb": write_glb}
"""Suffix of a file -> the function that writes (N, 3) points and colours to it."""
