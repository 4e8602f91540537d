"""What stands and floats in a place: furniture, houses, cars, trees, meshes and loose objects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stereo.data.synthetic import space
from stereo.data.synthetic.backdrop import View, draw_land, draw_room
from stereo.data.synthetic.config import HEAP, OUTDOORS, ROOM, SyntheticConfig
from stereo.data.synthetic.meshes import Mesh, read_mesh
from stereo.data.synthetic.objects import draw_object, leaves, place_object
from stereo.data.synthetic.rng import SceneRng
from stereo.data.synthetic.space import Part, Pose
from stereo.data.synthetic.surface import Surface

Shape = list[tuple[Surface, str]]
"""Surfaces of one object, each with the style of its look."""
MESH_FACES = {ROOM: 24_000, HEAP: 45_000, OUTDOORS: 24_000}  # of a scene's meshes together


@dataclass
class Contents:
    """What a scene holds, before it is given its looks."""

    ground: Shape
    """What is behind all objects, and what lies on the floor; first a backdrop."""
    objects: list[Shape] = field(default_factory=list)
    meshes: list[tuple[Mesh, Pose]] = field(default_factory=list)
    faces: int = 0
    """How many more the meshes may have."""


def furnish(
    view: View, place: str, config: SyntheticConfig, library: Sequence[Path], rng: SceneRng
) -> tuple[View, Contents]:
    """Return what a place holds, and the view with the walls that objects avoid to stand behind.

    Args:
        view: the frame, with a floor where it is outdoors.
        place: one of ``PLACES``.
        config: how many objects float or lie about, and the share of cabinets.
        library: meshes to pick from, perhaps none.
        rng: the source of chance.
    """
    if place == OUTDOORS:
        contents = Contents(draw_land(view, rng))
    else:
        walls = draw_room(view, rng)
        view = replace(view, backdrop=tuple(walls))
        style = "plain" if rng.chance(0.3) else "object"
        contents = Contents([(s, style if k == 0 else "object") for k, s in enumerate(walls)])
    contents.faces = MESH_FACES[place]
    if place == OUTDOORS:
        _street(view, contents, library, rng)
    elif place == ROOM and view.floor is not None:
        for _ in range(rng.whole(2, 7)):
            _stand(view, contents, _FURNITURE, (0.4, 1.6), library, 0.7, rng)
    if place != OUTDOORS and rng.chance(config.cabinets):
        _large(view, contents, rng)
    count = rng.whole(*config.objects)
    if place == HEAP:
        count *= rng.weighted({1: 3.0, 2: 4.0, 7: 0.5})
    if place == OUTDOORS:
        count = (count + 1) // 2
    for _ in range(count):
        mesh = _pick(contents, library, rng) if rng.chance(0.45) else None
        x, y, d, size = place_object(view, rng)
        if mesh is not None:
            at = (x, y, d)
            pose = space.floating(view, rng, at, 2.2 * size, mesh.vertices.astype(np.float64))
            contents.meshes.append((mesh, pose))
        elif rng.chance(0.25):
            parts = space.crate(rng)
            points = np.concatenate([corners for corners, _ in parts])
            pose = space.floating(view, rng, (x, y, d), 2.0 * size, points)
            contents.objects.append(space.surfaces_of(parts, pose, view))
        else:
            contents.objects.append([(s, "object") for s in draw_object(view, rng)])
    return view, contents


def _pick(contents: Contents, library: Sequence[Path], rng: SceneRng) -> Mesh | None:
    """Return a mesh that the scene still has room for, if there is one."""
    if not library:
        return None
    mesh = read_mesh(rng.pick(library))
    if len(mesh.faces) > contents.faces / 3:
        return None
    contents.faces -= len(mesh.faces)
    return mesh


def _foot(view: View, rng: SceneRng, nearest: float = 0.95) -> tuple[float, float, float]:
    """Return left (x, y) and the disparity of a place on the floor, before the walls.

    ``nearest`` is the largest disparity in shares of that at the bottom of the picture.
    """
    assert view.floor is not None
    a, b, c = view.floor
    x = rng.uniform(-0.1, 1.2) * view.width
    bottom = a * x + b * view.height + c
    low = max((p[0] * x + p[1] * view.height / 2 + p[2] for p in (s.plane for s in view.backdrop)
               if p != view.floor), default=0.02 * bottom)  # fmt: skip
    low = min(max(low, 1.05 * view.low, 0.02 * bottom), 0.7 * bottom)
    d = rng.log_uniform(low, max(nearest * bottom, 1.01 * low))
    return x, (d - c - a * x) / b, d


def _stand(
    view: View,
    contents: Contents,
    kinds: dict[Callable[[SceneRng], list[Part]], float],
    sizes: tuple[float, float],
    library: Sequence[Path],
    meshes: float,
    rng: SceneRng,
    *,
    quarter: bool = False,
    nearest: float = 0.95,
) -> None:
    """Stand something on the floor, of a size in heights of the camera: a mesh with a chance."""
    x, y, _ = _foot(view, rng, nearest)
    size = rng.log_uniform(*sizes)
    pose = space.standing(view, rng, (x, y), size, quarter or rng.chance(0.3))
    mesh = _pick(contents, library, rng) if rng.chance(meshes) else None
    if mesh is None:
        contents.objects.append(space.surfaces_of(rng.weighted(kinds)(rng), pose, view))
    elif pose.apply(mesh.vertices)[:, 2].min() * view.high > view.width:
        contents.meshes.append((mesh, pose))


def _large(view: View, contents: Contents, rng: SceneRng) -> None:
    """A plain cabinet or box so near that it fills much of the picture."""
    parts = space.cabinet(rng) if rng.chance(0.5) else space.crate(rng)
    parts = [(corners, "wall" if style == "object" else style) for corners, style in parts]
    points = np.concatenate([corners for corners, _ in parts])
    at = (
        rng.uniform(0.1, 1.0) * view.width,
        rng.uniform(0.2, 0.9) * view.height,
        rng.uniform(0.3, 0.9) * view.high,
    )
    pose = space.floating(view, rng, at, rng.uniform(0.7, 1.6) * view.height, points)
    contents.objects.append(space.surfaces_of(parts, pose, view))


def _street(view: View, contents: Contents, library: Sequence[Path], rng: SceneRng) -> None:
    """Houses, cars, trees and posts on a ground, and perhaps a road."""
    assert view.floor is not None
    if rng.chance(0.6):
        contents.ground += _road(view, rng)
    for _ in range(rng.whole(0, 6)):
        size = (1.5, 8.0)
        _stand(view, contents, {space.house: 1}, size, (), 0.0, rng, quarter=True, nearest=0.35)
    for _ in range(rng.whole(0, 5)):
        size = (0.7, 1.3)
        _stand(view, contents, {space.car: 1}, size, (), 0.0, rng, quarter=rng.chance(0.7))
    for _ in range(rng.whole(0, 3)):
        _stand(view, contents, {space.post: 1}, (1.0, 4.0), (), 0.0, rng)
    if library:
        for _ in range(rng.whole(1, 5)):
            _stand(view, contents, {space.crate: 1}, (0.4, 2.0), library, 1.0, rng)
    for _ in range(rng.whole(0, 6)):
        x, y, d = _foot(view, rng)
        height = d / float(np.linalg.norm(space.normal(view.floor, view)))
        tall = height * rng.log_uniform(0.4, 3.0)
        crown = tall * rng.uniform(0.3, 0.6)
        trunk = space.block((-0.03, -1.0, -0.03), (0.03, 0.0, 0.03), "object")
        shape: Shape = []
        if rng.chance(0.7):
            pose = space.standing(view, rng, (x, y), tall / height, False)
            shape += space.surfaces_of(trunk, pose, view)
        else:
            tall = crown
        sheets = leaves(x, y - tall, d * 1.02, crown, rng)
        contents.objects.append(shape + [(s, "leaves") for s in sheets])


def _road(view: View, rng: SceneRng) -> Shape:
    """A strip of the ground with marks on it, all a hair above the ground."""
    assert view.floor is not None
    pose = space.standing(view, rng, (view.width / 2, view.height * 0.95), 1.0, False)
    down = space.normal(view.floor, view)
    way = np.cross(down, (1.0, 0.0, 0.0)) + rng.uniform(-0.6, 0.6) * np.array([1.0, 0.0, 0.0])
    way = way - down * (way @ down) / (down @ down)
    way = way / np.linalg.norm(way)
    side = np.cross(down, way) / np.linalg.norm(down)
    unit = 1.0 / float(np.linalg.norm(down))
    start = pose.place + side * unit * rng.uniform(-1.5, 1.5)
    if way[2] < 0:
        way = -way
    near = -(pose.place[2] - 1.02 * view.width / view.high) / max(way[2], 0.2) / unit

    def strip(left: float, right: float, first: float, last: float, lift: float) -> np.ndarray:
        corners = [(left, first), (right, first), (right, last), (left, last)]
        points = [start + (side * u + way * v) * unit for u, v in corners]
        return np.array(points) * (1.0 - lift)

    wide = rng.uniform(1.5, 4.0)
    parts = [(strip(-wide, wide, near, 200.0, 1e-4), "road")]
    lanes = rng.pick([(0.0,), (-0.9 * wide, 0.9 * wide), (-0.9 * wide, 0.0, 0.9 * wide)])
    long, mark = rng.pick([1.5, 3.0, 200.0]), rng.uniform(0.04, 0.09)
    for lane in lanes:
        for k in range(1 if long > 100 else 6):
            first = near + k * 2.5 * long
            line = strip(lane - mark, lane + mark, first, first + long, 2e-4)
            parts.append((line, "line"))
    identity = Pose(np.eye(3), np.zeros(3))
    shown: Shape = []
    for corners, style in parts:  # either order of corners: it is seen from above
        for way_round in (corners, corners[::-1]):
            shown += space.surfaces_of([(way_round, style)], identity, view)
    return shown


_FURNITURE: dict[Callable[[SceneRng], list[Part]], float] = {
    space.cabinet: 4,
    space.table: 3,
}
