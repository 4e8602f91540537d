"""Depth and points as files that other programs read."""

import json

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, shared
from PIL import Image

import stereo as package
from stereo.errors import InputError, OutputError, UsageError
from stereo.evaluation.outputs import PairOutput, PointCloudContext, parse_formats, write_pair
from stereo.geometry import Calibration, flying
from stereo.geometry.flying import is_flying
from stereo.geometry.points import colored_points, is_edge, points_in_space, write_glb, write_ply

trimesh = pytest.importorskip("trimesh")
LEFT = REPOSITORY / "datasets/samples/FlyingThings3D/frames_cleanpass/TEST/A/0000/left/0006.png"
RIGHT = REPOSITORY / "datasets/samples/FlyingThings3D/frames_cleanpass/TEST/A/0000/right/0006.png"


@pytest.fixture
def calibration():
    return Calibration.rectified(fx=100, cx0=2, cy=1, baseline=0.1)


def test_points_lie_on_the_rays_of_their_pixels():
    calibration = Calibration.rectified(fx=100, fy=125, cx0=2, cy=1, baseline=0.1)
    depth = np.array([[1, 2, 3], [0, 5, 6]], np.float32)
    points = points_in_space(depth, calibration)
    assert points.dtype == np.float32
    assert points[0, 0].tolist() == pytest.approx([-0.02, -0.008, 1])
    assert points[1, 2].tolist() == pytest.approx([0, 0, 6])
    assert points[1, 1].tolist() == pytest.approx([-0.05, 0, 5])


def test_edges_are_where_the_depth_jumps():
    depth = np.full((5, 7), 2.0, np.float32)
    depth[:, 4:] = 2.2
    depth[4, 0] = 0
    edge = is_edge(depth)
    assert edge[:, 3:5].all()
    assert edge.sum() == 10
    assert is_edge(np.array([[2, 2.102]])).all()  # by 5 % of the nearer one
    assert not is_edge(np.array([[2, 2.098]])).any()
    assert not is_edge(np.linspace(1, 1.2, 35, dtype=np.float32).reshape(5, 7)[:, :2]).any()


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize(("write", "name"), [(write_ply, "x.ply"), (write_glb, "x.glb")])
def test_another_program_reads_the_points(tmp_path, rng, write, name, count):
    points = rng.normal(size=(count, 3)).astype(np.float32)
    colors = rng.integers(0, 256, (count, 3), np.uint8)
    write(tmp_path / name, points, colors)
    loaded = trimesh.load(tmp_path / name)
    if count == 0:
        return  # trimesh makes an empty scene of it
    cloud = loaded if name.endswith("ply") else next(iter(loaded.geometry.values()))
    expected = points if name.endswith("ply") else points * [1, -1, -1]
    assert np.allclose(cloud.vertices, expected)
    if count:
        found = np.asarray(cloud.colors)[:, :3]
        if name.endswith("glb"):  # whose colours are light, not sRGB
            share = colors / 255
            colors = 255 * np.where(
                share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4
            )
        assert np.abs(found - colors).max() <= 1


@pytest.mark.parametrize("count", [1, 7, 10, 100, 1000])  # numbers of all lengths, modulo 4
def test_a_glb_file_has_the_alignment_and_bounds_that_gltf_demands(tmp_path, rng, count):
    points = rng.normal(size=(count, 3)).astype(np.float32)
    write_glb(tmp_path / "x.glb", points, np.zeros((count, 3), np.uint8))
    data = (tmp_path / "x.glb").read_bytes()
    length, start, binary = int.from_bytes(data[12:16], "little"), 20, count * 24
    assert int.from_bytes(data[8:12], "little") == len(data) == start + length + 8 + binary
    assert length % 4 == 0  # glTF 2.0, 4.4.3: each chunk begins at a multiple of 4
    position = json.loads(data[start : start + length])["accessors"][0]
    turned = points * np.array([1, -1, -1], np.float32)
    assert position["min"] == turned.min(axis=0).tolist()  # by which viewers place the camera
    assert position["max"] == turned.max(axis=0).tolist()


def test_depth_is_written_in_metres_and_in_millimetres(tmp_path, calibration):
    disparity = np.array([[5, 0, 0.1]], np.float32)
    cloud = PointCloudContext(calibration, np.zeros((1, 3, 3), np.uint8))
    note, behind = write_pair(tmp_path, "x", ["depth"], PairOutput(disparity, cloud=cloud))
    metres = np.load(tmp_path / "x_depth.npy")
    assert metres.dtype == np.float32
    assert metres[0].tolist() == [2, 0, 100]
    with Image.open(tmp_path / "x_depth.png") as picture:
        assert np.asarray(picture)[0].tolist() == [2000, 0, 0]
    assert note == "x: 1 depths beyond 65.535 m are 0 in the PNG"
    assert behind.startswith("x: 33.3 % of the map lies at or behind infinity")
    shifted = Calibration.rectified(fx=100, cx0=2, cx1=12, cy=1, baseline=0.1)
    cloud = PointCloudContext(shifted, np.zeros((1, 4, 3), np.uint8))
    output = PairOutput(np.array([[-10, -9, 5, 20]], np.float32), cloud=cloud)
    (behind,) = write_pair(tmp_path, "y", ["depth"], output)
    assert behind.startswith("y: 25.0 % of the map lies at or behind infinity")
    assert np.load(tmp_path / "y_depth.npy")[0, :2].tolist() == [0, 10]


def test_points_of_all_files_are_computed_once(tmp_path, calibration, monkeypatch):
    calls = []

    def points(*given, **options):
        calls.append("points")
        return colored_points(*given, **options)

    monkeypatch.setattr("stereo.evaluation.outputs.colored_points", points)
    cloud = PointCloudContext(calibration, np.zeros((4, 4, 3), np.uint8))
    output = PairOutput(np.ones((4, 4), np.float32), cloud=cloud)
    write_pair(tmp_path, "x", ["depth", "ply", "glb"], output)
    assert calls == ["points"]
    assert output.depth is output.depth


def test_points_end_at_the_depth_limit_and_at_edges(calibration):
    disparity = np.full((4, 9), 5, np.float32)
    disparity[:, 3:] = 1
    disparity[:, 6:] = 0.5
    left = np.zeros((4, 9, 3), np.uint8)

    def depths(**options):
        cloud = PointCloudContext(calibration, left, **options)
        points, colors = PairOutput(disparity, cloud=cloud).points
        assert len(points) == len(colors)
        return sorted(set(np.round(points[:, 2]).tolist())), len(points)

    assert depths(keep_flying_points=True) == ([2, 10], 24)  # 20 m are beyond 100 baselines
    assert depths(keep_flying_points=True, max_depth=30) == ([2, 10, 20], 36)
    assert depths(max_depth=30) == ([2, 10, 20], 4 * (2 + 1 + 2))
    assert depths(max_depth=5) == ([2], 8)


def test_an_empty_point_cloud_triggers_a_note(tmp_path, calibration):
    cloud = PointCloudContext(calibration, np.zeros((4, 4, 3), np.uint8), max_depth=0.1)
    output = PairOutput(np.ones((4, 4), np.float32), cloud=cloud)
    (note,) = write_pair(tmp_path, "x", ["ply", "glb"], output)
    assert "no point is near and sure enough" in note


def test_formats_in_metres_need_a_calibration():
    assert parse_formats(None, has_truth=False, has_calibration=False) == ["color", "pfm"]
    everything = ["color", "pfm", "depth", "ply"]
    assert parse_formats(None, has_truth=False, has_calibration=True) == everything
    for name in ("depth", "ply", "glb"):
        with pytest.raises(UsageError, match="needs --calibration"):
            parse_formats(name, has_truth=False, has_calibration=False)


def test_infer_writes_depth_and_points(stereo, tmp_path):
    calibration = tmp_path / "K.txt"
    calibration.write_text("300 0 224 0 300 128 0 0 1\n0.1\n")
    called = stereo("infer", LEFT, RIGHT, "--output", tmp_path, "--calibration", calibration)
    assert called.status == 0, called.errors
    disparity = np.asarray(Image.open(tmp_path / "0006_disparity.pfm"))
    depth = np.load(tmp_path / "0006_depth.npy")
    assert np.allclose(depth, 30 / disparity, rtol=1e-4)
    cloud = trimesh.load(tmp_path / "0006.ply")
    assert np.isin(np.asarray(cloud.vertices[:, 2], np.float32), depth).all()


@pytest.mark.parametrize("view", ["left", "right"])
def test_points_have_the_colours_of_their_view(stereo, tmp_path, rng, view):
    (tmp_path / "K.txt").write_text("40 0 24 0 40 12 0 0 1\n0.1\n")
    grey = rng.integers(60, 200, (24, 53, 1), np.uint8)
    for side, shown in (("left", grey[:, :-5] * [0, 1, 0]), ("right", grey[:, 5:] * [1, 0, 0])):
        Image.fromarray(shown.astype(np.uint8)).save(tmp_path / f"{side}.png")
    called = stereo(
        *("infer", tmp_path / "left.png", tmp_path / "right.png", "--view", view),
        *("--model", "sgbm", "--max-disparity", "16", "--keep-flying-points"),
        *("--formats", "ply", "--calibration", tmp_path / "K.txt", "--output", tmp_path / "out"),
    )
    assert called.status == 0, called.errors
    (path,) = (tmp_path / "out").glob("*.ply")
    colors = np.asarray(trimesh.load(path).colors)[:, :3]
    assert len(colors) and (colors.max(axis=0) > 0).tolist() == [
        view == "right",
        view == "left",
        False,
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--formats", "ply"], "needs --calibration"),
        (["--max-depth", "3"], "add --calibration"),
        (["--calibration", "absent.txt"], "no such file"),
        (["--calibration", "K.txt", "--max-depth", "0"], "expected a positive number"),
        (["--calibration", "raw.json"], "run 'stereo rectify' first"),
    ],
)
def test_infer_refuses_before_it_matches(stereo, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "K.txt").write_text("300 0 224 0 300 128 0 0 1\n0.1\n")
    own = Calibration.rectified(fx=300, cx0=1, cy=2, baseline=0.1)
    bent = own.to_dict()
    bent["left"]["distortion"] = [-0.1, 0, 0, 0]
    Calibration.from_dict(bent).write("raw.json")
    called = stereo("infer", LEFT, RIGHT, "--output", tmp_path / "maps", *options)
    assert called.status in (1, 2)
    assert len(called.errors) == 1
    assert message in called.errors[0]
    assert not list(tmp_path.glob("maps/*"))


def test_a_real_cloud_has_the_depths_of_its_ground_truth(tmp_path):
    folder = shared("real/mid2014/MotorcycleQ")
    from stereo.data.io.disparities import read_disparity

    calibration = Calibration.read(folder / "calib.txt")
    truth = read_disparity(next(folder.glob("*.pfm")))
    left = np.zeros((*truth.shape, 3), np.uint8)
    disparity = np.where(np.isfinite(truth), truth, 0)
    cloud = PointCloudContext(calibration, left, max_depth=1e3, keep_flying_points=True)
    write_pair(tmp_path, "x", ["ply"], PairOutput(disparity, cloud=cloud))
    cloud = trimesh.load(tmp_path / "x.ply")
    depth = calibration.depth(disparity)
    assert len(cloud.vertices) == (depth > 0).sum()
    found = np.median(cloud.vertices[:, 2])
    assert found == pytest.approx(float(np.median(depth[depth > 0])), abs=1e-3)


def test_both_views_agree_on_where_things_are(stereo, tmp_path):
    calibration = tmp_path / "K.txt"
    calibration.write_text("300 0 224 0 300 128 0 0 1\n0.1\n")
    options = (
        "--calibration",
        calibration,
        "--view",
        "both",
        "--model",
        "sgbm",
        "--keep-flying-points",
    )
    called = stereo("infer", LEFT, RIGHT, "--output", tmp_path, *options)
    assert called.status == 0, called.errors
    assert "2 of 2 maps" in called.out
    left = np.asarray(Image.open(tmp_path / "0006_disparity.pfm"))
    right = np.asarray(Image.open(tmp_path / "0006_right_disparity.pfm"))
    rows, columns = np.indices(left.shape)
    there = np.rint(columns - left).astype(int).clip(0)
    same = np.abs(right[rows, there] - left) < 1
    assert same[:, 80:].mean() > 0.75
    clouds = [
        np.asarray(trimesh.load(tmp_path / n).vertices) for n in ("0006.ply", "0006_right.ply")
    ]
    for axis in range(3):
        middles = [np.median(cloud[:, axis]) for cloud in clouds]
        assert middles[0] == pytest.approx(middles[1], abs=0.15)


def test_output_name_clashes_are_refused(stereo, tmp_path):
    for side, path in (("l", LEFT), ("r", RIGHT)):
        (tmp_path / side).mkdir()
        for name in ("a.png", "a_right.png"):
            (tmp_path / side / name).write_bytes(path.read_bytes())
    called = stereo(
        *("infer", tmp_path / "l", tmp_path / "r", "--output", tmp_path / "o"),
        *("--view", "both", "--model", "sgbm"),
    )
    assert called.status == 1
    assert "two maps would have this name" in called.errors[-1]


@pytest.fixture(scope="module")
def result():
    return package.load("sgbm", max_disparity=96)(LEFT, RIGHT)


@pytest.fixture
def cameras():
    return Calibration.rectified(fx=448, cx0=224, cy=128, baseline=0.1)


def test_a_result_has_the_points_that_infer_writes(stereo, result, cameras, tmp_path):
    cameras.write(tmp_path / "calib.json")
    points, colors = result.points(tmp_path / "calib.json")
    assert (points.dtype, colors.dtype) == (np.float32, np.uint8)
    assert points.shape == colors.shape == (len(points), 3)
    chosen = {"max_depth": 2.0, "keep_flying_points": True, "min_confidence": 0.5}
    options = ("--max-depth", "2", "--keep-flying-points", "--min-confidence", "0.5")
    for folder, arguments, same in (("all", (), {}), ("some", options, chosen)):
        stereo(
            *("infer", LEFT, RIGHT, "--model", "sgbm", "--max-disparity", "96", *arguments),
            *("--calibration", tmp_path / "calib.json", "--formats", "ply,glb"),
            *("--output", tmp_path / folder),
        )
        for suffix in ("ply", "glb"):
            written = result.write_points(tmp_path / f"mine.{suffix}", cameras, **same)
            assert (written == len(points)) == (not same)
            ours = (tmp_path / f"mine.{suffix}").read_bytes()
            assert ours == (tmp_path / folder / f"0006.{suffix}").read_bytes()


def test_points_take_the_options_of_infer(result, cameras):
    everything, _ = result.points(cameras, keep_flying_points=True, max_depth=1e9)
    assert len(everything) == np.sum(result.disparity > 0)
    near, _ = result.points(cameras, max_depth=2.0)
    assert 0 < len(near) < len(everything)
    assert near[:, 2].max() <= 2
    sure, _ = result.points(cameras, keep_flying_points=True, max_depth=1e9, min_confidence=0.9)
    assert len(sure) == np.sum((result.disparity > 0) & (result.confidence >= 0.9))


def test_points_of_the_right_view_lie_in_the_left_cameras_frame(result, cameras):
    right = package.load("sgbm", max_disparity=96)(LEFT, RIGHT, view="right")
    clouds = [each.points(cameras, min_confidence=0.9)[0] for each in (result, right)]
    medians = [np.median(cloud[cloud[:, 2] < 3], axis=0) for cloud in clouds]
    assert np.abs(medians[0] - medians[1]).max() < 0.1
    assert np.array_equal(
        right.points(cameras, keep_flying_points=True, max_depth=1e9)[0],
        (
            points_in_space(cameras.depth(right.disparity), cameras, is_right=True)[
                right.disparity > 0
            ]
        ),
    )


def test_flying_points_are_removed_and_both_surfaces_stay():
    # A near object before a far wall that slants; the map blends both over three columns.
    disparity = np.tile(np.linspace(10, 14, 80, dtype=np.float32), (40, 1))
    disparity[:, 30:50] = 40
    disparity[:, 29:32] = 18, 25, 33
    certainty = np.full((2, 40, 80), 0.97, np.float32)
    certainty[:, :, 28:33] = 0.5
    found = is_flying(disparity, certainty)
    assert found[5:-5, 29:32].all()
    assert not found[:, :27].any() and not found[:, 54:].any()
    surfaces = np.r_[27:29, 32:54]
    assert found[:, surfaces].mean() < is_edge(1 / disparity)[:, surfaces].mean() / 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 30), (3, 3), (24, 32)])
@pytest.mark.parametrize("certain", [0.3, 0.97])
def test_smooth_maps_have_no_flying_points_up_to_their_border(shape, certain):
    down, across = np.indices(shape)
    for slope in (0, 0.1):
        disparity = (20 + slope * (down + across)).astype(np.float32)
        assert not is_flying(disparity, np.full((2, *shape), certain, np.float32)).any()


def test_strips_of_a_map_give_what_the_whole_gives(monkeypatch, rng):
    disparity = np.repeat(rng.uniform(5, 40, (12, 8)), 5, 0).repeat(6, 1).astype(np.float32)
    certainty = rng.uniform(0.3, 1, (2, *disparity.shape)).astype(np.float32)
    whole = is_flying(disparity, certainty)
    features, rows = flying.flying_features, []
    monkeypatch.setattr(flying, "ROWS", 7)
    monkeypatch.setattr(
        flying, "flying_features", lambda *given: rows.append(len(given[0])) or features(*given)
    )
    assert np.array_equal(is_flying(disparity, certainty), whole)
    assert len(rows) == 9 and max(rows) <= 7 + 2 * 13  # no more than a strip in memory
    assert 0 < whole.mean() < 1


def test_strips_overlap_by_all_that_the_network_sees(monkeypatch, rng):
    network = flying.flying_network()  # random: every pixel within its reach sways its sign
    monkeypatch.setattr(flying, "_fitted", lambda: network)
    monkeypatch.setattr(flying, "LEAST_JUMP", 0.0)
    disparity = rng.uniform(5, 40, (60, 80)).astype(np.float32)
    certainty = rng.uniform(0.3, 1, (2, 60, 80)).astype(np.float32)
    with torch.inference_mode():
        features = torch.from_numpy(flying.flying_features(disparity, certainty))
        network[-1].bias -= network(features[None]).median()
    whole = is_flying(disparity, certainty)
    monkeypatch.setattr(flying, "ROWS", 7)
    assert 0.3 < whole.mean() < 0.7
    assert np.array_equal(is_flying(disparity, certainty), whole)


def test_flying_points_need_surfaces_two_pixels_apart_within_nine(monkeypatch):
    def certain(features):  # a network that finds every pixel flying
        return torch.ones_like(features[:, :1])

    monkeypatch.setattr(flying, "_fitted", lambda: certain)
    across = np.arange(40, dtype=np.float32)
    for slope, flies in ((0.24, False), (0.26, True)):  # 8 steps between the ends of a window
        disparity = np.tile(5 + slope * across, (12, 1)).astype(np.float32)
        found = is_flying(disparity, np.ones((2, 12, 40), np.float32))[:, 4:-4]
        assert found.all() if flies else not found.any()


def test_certainty_determines_which_points_are_removed():
    cameras = Calibration.rectified(fx=80, cx0=40, cy=20, baseline=0.1)
    disparity = np.tile(np.linspace(10, 14, 80, dtype=np.float32), (40, 1))
    disparity[:, 30:50] = 40
    view = np.zeros((40, 80, 3), np.uint8)
    certainty = np.full((2, 40, 80), 0.97, np.float32)
    counts = [
        len(
            package.Result(disparity, 0.1, image=view, certainty=c).points(cameras, max_depth=99)[0]
        )
        for c in (None, certainty)
    ]
    assert counts == [np.sum(~is_edge(1 / disparity)), np.sum(~is_flying(disparity, certainty))]


def test_points_behind_infinity_are_left_out():
    cameras = Calibration.rectified(fx=448, cx0=2, cy=0, baseline=0.1)
    ramp = np.linspace(-8, 8, 5, dtype=np.float32)[None]
    made = package.Result(ramp, 0.1, image=np.zeros((1, 5, 3), np.uint8))
    points, _ = made.points(cameras, keep_flying_points=True, max_depth=1e9)
    assert points[:, 2].tolist() == pytest.approx([448 * 0.1 / 4, 448 * 0.1 / 8])


def test_invalid_point_options_are_one_line_and_leave_no_file(result, cameras, tmp_path):
    for options in ({"max_depth": 0}, *({"min_confidence": each} for each in (1.5, -0.1, np.nan))):
        with pytest.raises(UsageError, match="expected"):
            result.points(cameras, **options)
    with pytest.raises(UsageError, match="no view to colour"):
        package.Result(np.ones((2, 2), np.float32), 0.1).points(cameras)
    with pytest.raises(UsageError, match=r"\.ply or \.glb"):
        result.write_points(tmp_path / "points.obj", cameras)
    with pytest.raises(InputError):
        result.write_points(tmp_path / "points.ply", tmp_path / "none.json")
    with pytest.raises(OutputError):
        result.write_points(tmp_path / "none" / "points.ply", cameras)
    for wrong in (None, 5, cameras.to_dict()):
        for use in (result.depth, result.points, Calibration.read):
            with pytest.raises(UsageError, match="expected a Calibration or the path"):
                use(wrong)
        with pytest.raises(UsageError, match="expected a Calibration or the path"):
            result.write_points(tmp_path / "points.ply", wrong)
    for option in ({"max_depth": "2"}, {"min_confidence": "0.5"}, {"min_confidence": None}):
        with pytest.raises(UsageError, match=next(iter(option))):
            result.points(cameras, **option)
    assert not list(tmp_path.iterdir())


def test_flying_points_of_a_right_map_are_those_of_its_mirror_image(rng):
    cameras = Calibration.rectified(fx=100, cx0=39.5, cy=19.5, baseline=0.1)
    disparity = np.where(np.arange(80) < 30, 20, 5) * np.ones((40, 1))
    disparity = (disparity + rng.normal(0, 0.5, (40, 80))).astype(np.float32)
    certainty = rng.uniform(0.3, 1, (2, 40, 80)).astype(np.float32)
    picture = np.indices((40, 80, 3))[1].astype(np.uint8)

    def kept(disparity, certainty, **options):
        found = colored_points(disparity, picture, cameras, certainty=certainty, **options)
        return sorted(found[1][:, 0].tolist())

    mirrored = disparity[:, ::-1], certainty[..., ::-1]
    left, right = kept(disparity, certainty), kept(*mirrored, is_right=True)
    assert len(left) < disparity.size
    assert right == sorted(79 - column for column in left)
    assert is_flying(*mirrored).sum() != is_flying(disparity, certainty).sum()
