"""Solids and meshes of rendered scenes: exact in both views, and what is wrong with a folder."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.data.synthetic.backdrop import View
from stereo.data.synthetic.meshes import Posed, Triangles, read_mesh
from stereo.data.synthetic.photographs import cut
from stereo.data.synthetic.rng import SceneRng
from stereo.data.synthetic.space import Pose, block, floating, point, standing, surfaces_of
from stereo.data.synthetic.surface import disparity, signed_distance
from stereo.errors import InputError

VIEW = View(96, 160, 0.5, 60.0, "log", floor=(0.0, 0.5, -10.0))
SMALL = SyntheticConfig(height=96, width=160, max_disparity=64, objects=(6, 8))
CUBE = "\n".join(
    [f"v {x} {y} {z}" for z in (-1, 1) for y in (0, 2) for x in (-1, 1)]
    + ["f 1 2 4", "f 1 4 3", "f 5 8 6", "f 5 7 8", "f 1 5 6", "f 1 6 2"]
    + ["f 3 4 8", "f 3 8 7", "f 1 3 7", "f 1 7 5", "f 2 6 8", "f 2 8 4"]
)


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    for package in ("trimesh", "embreex"):
        pytest.importorskip(package, reason="needs the extra 'render'")
    folder = tmp_path_factory.mktemp("meshes")
    (folder / "cube.obj").write_text(CUBE)
    return folder


def test_faces_of_solids_lie_where_their_corners_are():
    parts = block((-0.5, -1.0, -0.3), (0.5, 0.0, 0.3), "plain")
    corners = np.concatenate([p for p, _ in parts])
    poses = [floating(VIEW, SceneRng(k), (80.0, 40.0, 30.0), 40.0, corners) for k in range(5)]
    poses.append(standing(VIEW, SceneRng(9), (80.0, 60.0), 0.4, False))
    for pose in poses:
        shown = surfaces_of(parts, pose, VIEW)
        assert 1 <= len(shown) <= 4  # the others turn their backs on both views
        ends = pose.apply(corners)
        found = np.zeros(len(ends), bool)
        for surface, _ in shown:
            d = VIEW.width / ends[:, 2]
            x, y = (
                torch.from_numpy(ends[:, k] * d + middle) for k, middle in ((0, 80.0), (1, 48.0))
            )
            near = signed_distance(surface.outline, x, y, torch.zeros(4, 4)).abs().numpy() < 1e-3
            exact = np.abs(disparity(surface, x, y).numpy() - d) < 1e-3
            found |= near & exact
        assert found.any()
        seen = max(VIEW.width / ends[:, 2])
        assert seen <= VIEW.high + 1e-6
    at = poses[0].apply(corners)[:, 2].min()
    assert VIEW.width / at == pytest.approx(30.0)  # the nearest corner has the disparity asked for


def test_standing_objects_touch_the_floor_upright():
    pose = standing(VIEW, SceneRng(3), (50.0, 70.0), 0.5, False)
    foot, top = pose.apply(np.array([[0.0, 0.0, 0.0], [0.0, -1.0, 0.0]]))
    assert foot == pytest.approx(point(VIEW, 50.0, 70.0, 0.5 * 70 - 10))
    normal = np.array([0.0, 0.5, (0.5 * 48 - 10) / 160])
    assert np.cross(foot - top, normal) == pytest.approx(np.zeros(3), abs=1e-9)
    assert np.linalg.norm(foot - top) == pytest.approx(0.5 / np.linalg.norm(normal))


def test_triangles_have_the_depth_of_their_mesh_in_both_views(cubes):
    mesh = read_mesh(cubes / "cube.obj")
    assert mesh.vertices.min(0) == pytest.approx([-0.5, -1.0, -0.5])
    assert mesh.vertices.max(0) == pytest.approx([0.5, 0.0, 0.5])
    pose = Pose(np.eye(3), np.array([0.2, 0.5, 8.0]))  # its face at Z = 7.5
    solid = Triangles((Posed(mesh, pose, 0),), VIEW, np.array([0.0, -1.0, 0.0]))
    d = 160 / 7.5
    for right in (False, True):
        x = torch.tensor([80.0 + 0.2 * d - right * d, 5.0])
        triangle, found = solid.hit(x, torch.tensor([48.0, 5.0]), place=float(right))
        assert found.tolist() == pytest.approx([d, 0.0])
        assert triangle[0] >= 0 > triangle[1]
        a, b = solid.shading[:2, triangle[0]].tolist()
        assert (a, b) == pytest.approx((0.0, 0.0), abs=1e-5)
    behind = torch.tensor([80.0]), torch.tensor([48.0]), torch.tensor([4.0])
    assert solid.shaded(*behind, (0.0, 0.0)).tolist() == [True]
    assert solid.shaded(*behind, (30.0, 0.0)).tolist() == [False]


def at_match(values, columns):
    rows = np.arange(values.shape[0])[:, None]
    first = np.clip(np.floor(columns).astype(int), 0, values.shape[1] - 2)
    low, high = values[rows, first], values[rows, first + 1]
    return low + (high - low) * np.clip(columns - first, 0, 1), np.abs(high - low)


def test_pairs_with_meshes_are_exact_and_repeatable(cubes):
    config = replace(SMALL, meshes=str(cubes), shine=0.0, reflections=0.0)
    scenes, plain = SyntheticScenes(config), SyntheticScenes(replace(config, meshes=None))
    agree, total, changed = 0, 0, 0
    again = SyntheticScenes(config).render(2)
    for index in range(6):
        pair, scene = scenes.render(index), scenes.compose(index)
        if index == 2:
            assert np.array_equal(pair.left, again.left)
            assert np.array_equal(pair.right_disparity, again.right_disparity)
        changed += bool(scene.meshes)
        assert not plain.compose(index).meshes
        columns = np.arange(160, dtype=np.float32)[None]
        for own, other, seen, sign in (
            (pair.disparity, pair.right_disparity, pair.nonoccluded, -1),
            (pair.right_disparity, pair.disparity, pair.right_nonoccluded, 1),
        ):
            match = columns + sign * own
            warped, gap = at_match(other, match)
            inside = seen & (match >= 0) & (match <= 159) & (gap < 1.0)
            agree += (np.abs(warped - own)[inside] < 0.05).sum()
            total += inside.sum()
    assert changed > 3
    assert agree / total > 0.99


def test_rooms_heaps_and_outdoor_scenes_match_their_names():
    def skies(place):
        scenes = SyntheticScenes(replace(SMALL, places=(place,)))
        return sum(scenes.render(index).disparity.min() < 0.1 for index in range(4))

    assert skies("outdoors") >= 1
    assert skies("room") == 0
    counts = [
        np.mean([len(SyntheticScenes(replace(SMALL, places=(p,))).compose(k).layers)
                 for k in range(8)])
        for p in ("heap", "room")
    ]  # fmt: skip
    assert min(counts) > SMALL.objects[0]


def test_infrared_pairs_are_grey_and_their_dots_lie_on_the_surfaces():
    scenes = SyntheticScenes(replace(SMALL, photometric=0.0, blur=0.0, noise=0.0))
    grey = [k for k in range(60) if scenes.compose(k).grey is not None]
    assert 2 < len(grey) < 20
    dotted = [k for k in grey if scenes.compose(k).dots[0]]
    assert 0 < len(dotted) < len(grey)
    for index in (grey[0], dotted[0]):
        pair = scenes.render(index)
        assert (pair.left == pair.left[..., :1]).all()
        match = np.arange(160, dtype=np.float32)[None] - pair.disparity
        shown, rough = at_match(pair.clean_right[..., 0].astype(np.float32), match)
        inside = pair.nonoccluded & (match >= 0) & (match <= 159)
        apart = np.abs(shown - pair.clean_left[..., 0].astype(np.float32)) > 12 + 0.6 * rough
        assert apart[inside].mean() < 0.1


def test_dull_photographs_are_re_exposed(tmp_path):
    dark = np.random.default_rng(0).integers(10, 60, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    means = [cut(SceneRng(k), tmp_path / "dark.png", 32).mean().item() for k in range(12)]
    assert np.mean(means) > 0.25 > dark.mean() / 255
    assert np.ptp(means) > 0.1


@pytest.mark.usefixtures("cubes")
def test_folders_without_usable_meshes_are_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        SyntheticScenes(replace(SMALL, meshes=str(tmp_path / "none")))
    with pytest.raises(InputError, match=r"holds no mesh \(\.obj"):
        SyntheticScenes(replace(SMALL, meshes=str(tmp_path)))
    (tmp_path / "._bad.obj").write_text("what a Mac puts beside bad.obj")
    with pytest.raises(InputError, match="holds no mesh"):
        SyntheticScenes(replace(SMALL, meshes=str(tmp_path)))
    for text in ("not a mesh", "v 1 1 1\n", "v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n"):
        (tmp_path / "bad.obj").write_text(text)
        with pytest.raises(InputError, match=r"bad\.obj"):
            read_mesh.__wrapped__(tmp_path / "bad.obj")
