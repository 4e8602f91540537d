"""Triangle meshes from a folder of the user's: read by trimesh, traced by Embree."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stereo.data.io.images import is_hidden
from stereo.data.synthetic.backdrop import View
from stereo.data.synthetic.space import Pose
from stereo.errors import InputError
from stereo.system.extras import import_extra

MESH_SUFFIXES = (".obj", ".glb", ".ply", ".stl", ".off")
LARGEST_MESH = 1_500_000  # bytes of a file; larger ones are left out


@dataclass(frozen=True, eq=False)
class Mesh:
    """A mesh of unit size: the longest side of its box is 1, its foot stands at y = 0, y down."""

    vertices: np.ndarray
    """(V, 3) float32."""
    normals: np.ndarray
    """(V, 3) float32, of length 1."""
    faces: np.ndarray
    """(F, 3) int32."""
    group: np.ndarray
    """(F,) int64, which material."""
    colours: np.ndarray
    """(G, 3) float32, of each material in 0..1, linear; NaN for one with a picture."""


@dataclass(frozen=True, eq=False)
class Posed:
    """A mesh in space. The look of a face is number ``look`` + 3 * group + axis of its normal."""

    mesh: Mesh
    pose: Pose
    look: int


def find_meshes(folder: str) -> list[Path]:
    """Return the meshes below a folder in a fixed order.

    Raises:
        InputError: there is no such folder, no mesh of a size to be used in it, or the packages
            of the extra ``render`` are missing.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --meshes names a folder of meshes")
    found = sorted(
        (
            p
            for p in root.rglob("*")
            if p.suffix.lower() in MESH_SUFFIXES
            and 0 < p.stat().st_size <= LARGEST_MESH
            and not is_hidden(p, root)
        ),
        key=lambda p: p.relative_to(root).as_posix(),
    )
    if not found:
        kinds = ", ".join(MESH_SUFFIXES)
        raise InputError(f"{root}: holds no mesh ({kinds}) of up to {LARGEST_MESH / 1e6:g} MB")
    for name in ("trimesh", "embreex"):
        _module(name)
    return found


def _module(name: str) -> Any:
    return import_extra(name, "render", "--meshes")


@lru_cache(maxsize=1024)
def read_mesh(path: Path) -> Mesh:
    """Read a mesh.

    Raises:
        InputError: it cannot be read, or has no face.
    """
    trimesh = _module("trimesh")
    try:
        parts = trimesh.load(path, process=False, force="scene").dump()
    except Exception as error:  # trimesh's readers raise whatever their parsers do
        raise InputError(f"{path}: not a mesh that can be read ({error})") from error
    parts = [p for p in parts if len(getattr(p, "faces", ()))]
    if not parts:
        raise InputError(f"{path}: a mesh without a face; remove it from the folder")
    starts = np.cumsum([0] + [len(p.vertices) for p in parts])
    vertices = np.concatenate([np.asarray(p.vertices, float) for p in parts])
    faces = np.concatenate([p.faces + s for p, s in zip(parts, starts, strict=False)])
    low, high = vertices.min(0), vertices.max(0)
    foot = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    if not np.isfinite(vertices).all() or (high - low).max() <= 0:
        raise InputError(f"{path}: a mesh without extent; remove it from the folder")
    down = np.array([1.0, -1.0, -1.0])  # files have y up
    # Corners that lie together but are stored apart, as at edges, keep their own normals.
    sides = vertices[faces]
    across = np.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0])
    normals = np.stack(
        [np.bincount(faces.ravel(), across[:, k].repeat(3), len(vertices)) for k in range(3)], 1
    )
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return Mesh(
        ((vertices - foot) / (high - low).max() * down).astype(np.float32),
        (normals / np.maximum(lengths, 1e-30) * down).astype(np.float32),
        faces.astype(np.int32),
        np.repeat(np.arange(len(parts)), [len(p.faces) for p in parts]),
        np.array([_colour(p.visual) for p in parts], np.float32),
    )


def _colour(visual: Any) -> tuple[float, float, float]:
    material = getattr(visual, "material", None)
    if material is None or getattr(material, "image", None) is not None:
        return (np.nan, np.nan, np.nan)
    red, green, blue = (float(v) / 255.0 for v in material.main_color[:3])
    return (red * red, green * green, blue * blue)


class Triangles:
    """The posed meshes of a scene, ready to be traced.

    Attributes:
        shading: (5, T) float32: slopes of disparity along x and y, and the light at left (x, y),
            ``shading[2] * x + shading[3] * y + shading[4]``.
        looks: (T,) int64, of each triangle.
    """

    def __init__(self, posed: tuple[Posed, ...], view: View, sun: np.ndarray) -> None:
        self._view = view
        corners, lit, looks = [], [], []
        for one in posed:
            mesh, turn = one.mesh, one.pose.turn
            points = one.pose.apply(mesh.vertices.astype(np.float64))[mesh.faces]
            normals = mesh.normals @ (turn / np.linalg.norm(turn[:, 0])).T
            flat = np.cross(
                mesh.vertices[mesh.faces[:, 1]] - mesh.vertices[mesh.faces[:, 0]],
                mesh.vertices[mesh.faces[:, 2]] - mesh.vertices[mesh.faces[:, 0]],
            )
            looks.append(one.look + 3 * mesh.group + np.abs(flat).argmax(1))
            corners.append(points)
            lit.append(lambert(normals[mesh.faces], points, sun))
        points = np.concatenate(corners)
        self._corners = np.ascontiguousarray(points, np.float32)
        self.looks = torch.from_numpy(np.concatenate(looks))
        self.shading = torch.from_numpy(self._shading(points, np.concatenate(lit)))
        self._scene = _module("embreex.rtcore_scene").EmbreeScene()
        _module("embreex.mesh_construction").TriangleMesh(self._scene, self._corners)

    def _shading(self, points: np.ndarray, light: np.ndarray) -> np.ndarray:
        d = self._view.width / points[..., 2]
        pixels = np.stack([points[..., 0] * d, points[..., 1] * d, np.ones_like(d)], -1)
        # Solve p . (x, y, 1) = value at the three corners; edge-on triangles are clipped.
        p, q, r = pixels[:, 0], pixels[:, 1], pixels[:, 2]
        duals = np.stack([np.cross(q, r), np.cross(r, p), np.cross(p, q)], 1)
        area = (duals[:, 0] * p).sum(1)
        kept = np.abs(area) > 1e-3
        duals[kept] /= area[kept, None, None]
        duals[~kept] = 0.0
        slopes = (duals * d[..., None]).sum(1)[:, :2]
        lit = (duals * light[..., None]).sum(1)
        lit[~kept, 2] = light[~kept].mean(1)
        lit[:, 2] -= lit[:, 0] * self._view.width / 2 + lit[:, 1] * self._view.height / 2
        return np.concatenate([slopes.clip(-4.0, 4.0), lit], 1).T.astype(np.float32)

    def hit(self, x: Tensor, y: Tensor, *, place: float) -> tuple[Tensor, Tensor]:
        """Trace one ray through each point of a view.

        Args:
            x: columns of that view, pixels.
            y: rows, pixels, of the same shape.
            place: of its camera, baselines to the right of the left one.

        Returns:
            int64, the triangle, -1 for none; and float32, its disparity in pixels, 0 for none.
        """
        view = self._view
        rays = torch.stack(
            [(x - view.width / 2) / view.width, (y - view.height / 2) / view.width,
             torch.ones_like(x)], -1
        ).reshape(-1, 3)  # fmt: skip
        starts = np.zeros(rays.shape, np.float32)
        starts[:, 0] = place
        found = self._scene.run(starts, rays.contiguous().numpy(), query="INTERSECT", output=True)
        triangle = torch.from_numpy(found["primID"].astype(np.int64)).view(x.shape)
        depth = torch.from_numpy(found["tfar"]).view(x.shape)
        nothing = triangle < 0
        return triangle, (view.width / depth).masked_fill(nothing, 0.0)

    def shaded(self, x: Tensor, y: Tensor, d: Tensor, lamp: tuple[float, float]) -> Tensor:
        """Return where a mesh stands between a point, left (x, y) with disparity d, and a lamp.

        Args:
            x: left columns, pixels.
            y: rows, pixels, of the same shape.
            d: disparities, pixels.
            lamp: its X and Y at Z = 0, baselines.
        """
        view = self._view
        points = torch.stack(
            [(x - view.width / 2) / d, (y - view.height / 2) / d, view.width / d], -1
        ).reshape(-1, 3)
        ways = torch.tensor([*lamp, 0.0]) - points
        starts = points + ways * 2e-3
        ends = np.full(len(starts), 0.99, np.float32)
        hits = self._scene.run(starts.numpy(), ways.numpy(), dists=ends, query="OCCLUDED")
        return torch.from_numpy(hits >= 0).view(x.shape)


def lambert(normals: np.ndarray, points: np.ndarray, sun: np.ndarray) -> np.ndarray:
    """Return the light on surfaces at points (..., 3) that are seen from the origin.

    Args:
        normals: (..., 3), of length 1, on either side.
        points: (..., 3), baselines.
        sun: (3,) the direction towards the light.
    """
    seen = np.where((normals * points).sum(-1) > 0, -1.0, 1.0)
    return 0.3 + 0.9 * (0.5 + 0.5 * seen * (normals @ sun)) ** 1.5
