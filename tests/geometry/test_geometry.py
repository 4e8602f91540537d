"""Calibrating, rectifying and checking pairs."""

import dataclasses
import json
import re
import warnings
from io import BytesIO

import numpy as np
import pytest
from conftest import REPOSITORY, shared, slow_but
from PIL import Image

from stereo.data.finding.pairs import find_pairs
from stereo.data.io.images import read_image, read_samples
from stereo.errors import InputError, UsageError
from stereo.geometry import Calibration, Camera, check
from stereo.geometry.calibrate import Board, calibrate, charuco_board
from stereo.geometry.cameras import calibrate_folder
from stereo.geometry.check import check_pair
from stereo.geometry.rectify import plan_rectification

cv2 = pytest.importorskip("cv2")
SAMPLE = REPOSITORY / "datasets/samples/FlyingThings3D/frames_cleanpass/TEST/A/0000"
LEFT, RIGHT = SAMPLE / "left/0006.png", SAMPLE / "right/0006.png"
SIZE = (640, 480)


def seen_by(camera, turn, move, board):
    """Render a (H, W) image of a flat board whose pixels are tenths of millimetres."""
    points = np.float32([[0, 0], [board.shape[1], 0], [0, board.shape[0]], board.shape[::-1]])
    places = np.concatenate([points * 1e-4, np.zeros((4, 1), np.float32)], axis=1)
    corners, _ = cv2.projectPoints(
        places.astype(np.float64), cv2.Rodrigues(turn)[0], move, camera.matrix(), None
    )
    fine = 4 * corners[:, 0].astype(np.float32) + 1.5
    warp = cv2.getPerspectiveTransform(points, fine)
    large = cv2.warpPerspective(board, warp, (4 * SIZE[0], 4 * SIZE[1]), borderValue=128)
    return cv2.resize(large, SIZE, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def rig():
    turn = cv2.Rodrigues(np.array([0.01, -0.02, 0.015]))[0]
    rotation = tuple(tuple(float(n) for n in row) for row in turn)
    left, right = Camera(700, 705, 325, 238), Camera(690, 700, 315, 245)
    return Calibration(left, right, (-0.1, 0.002, 0.001), rotation, SIZE)


def chessboard():
    squares = np.indices((7, 10)).sum(axis=0) % 2 * 255
    return np.kron(np.pad(squares, 1, constant_values=255), np.ones((250, 250))).astype(np.uint8)


def photograph(folder, rig, board, tilts=0.4):
    rng = np.random.default_rng(3)
    rotation, translation = np.array(rig.rotation), np.array(rig.translation)
    for index in range(10):
        turn = cv2.Rodrigues(rng.uniform(-0.4, 0.4, 3) * (tilts / 0.4, tilts / 0.4, 1))[0]
        move = np.array([-0.12, -0.1, 0.55]) + rng.uniform(-0.05, 0.05, 3)
        for side, camera, own in (
            ("left", rig.left, (turn, move)),
            ("right", rig.right, (rotation @ turn, rotation @ move + translation)),
        ):
            Image.fromarray(seen_by(camera, *own, board)).save(folder / f"{side}{index:02}.png")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, rig):
    folder = tmp_path_factory.mktemp("boards")
    photograph(folder, rig, chessboard())
    return folder


def assert_is(found, rig):
    for one, other in ((found.left, rig.left), (found.right, rig.right)):
        assert one.fx == pytest.approx(other.fx, rel=0.01)
        assert one.cx == pytest.approx(other.cx, abs=6)
    assert found.baseline == pytest.approx(rig.baseline, rel=0.01)
    assert np.abs(np.array(found.rotation) - np.array(rig.rotation)).max() < 0.01


def test_a_known_rig_is_recovered(photographs, rig):
    pairs = find_pairs(str(photographs / "left*.png"), str(photographs / "right*.png"))
    found = calibrate(pairs, Board(9, 6, 0.025))
    assert found.rms < 0.3
    assert len(found.errors) >= 8
    assert_is(found.calibration, rig)


@pytest.mark.parametrize(("tilts", "warned"), [(0.0, None), (0.03, None), (0.08, True)])
def test_boards_held_alike_do_not_calibrate(tmp_path, stereo, rig, tilts, warned):
    photograph(tmp_path, rig, chessboard(), tilts)
    views = (tmp_path / "left*.png", tmp_path / "right*.png")
    board = ("--board", "9x6", "--square", "0.025")
    called = stereo("calibrate", *views, *board, "--output", tmp_path / "cameras.json")
    if warned:
        assert called.status == 0
        assert any(" the board's tilts are within" in line for line in called.errors)
    else:
        assert called.status == 1
        assert "the board has one orientation in all pairs" in called.errors[-1]
        assert not list(tmp_path.glob("cameras*"))


def test_corners_counted_from_the_other_end_in_one_view_are_put_right(
    photographs, rig, monkeypatch
):
    from stereo.geometry import calibrate as module

    find, calls = module._find_chessboard, []

    def reversing(picture, board):
        calls.append(picture)
        found = find(picture, board)
        last = len(found) - 1
        return {last - n: at for n, at in found.items()} if len(calls) % 6 == 0 else found

    monkeypatch.setattr(module, "_find_chessboard", reversing)
    pairs = find_pairs(str(photographs / "left*.png"), str(photographs / "right*.png"))
    found = calibrate(pairs, Board(9, 6, 0.025))
    assert set(found.left_out.values()) == {"no board in the right image"}
    assert_is(found.calibration, rig)


def test_views_that_share_a_row_of_corners_are_left_out(photographs, rig, monkeypatch):
    from stereo.geometry import calibrate as module

    find, calls = module._find_chessboard, []

    def covered(picture, board):
        calls.append(picture)
        found = find(picture, board)
        # A row of nine, alone and with one more, in the right views of two pairs.
        kept = {2: 9, 6: 10}.get(len(calls), len(found))
        return dict(list(found.items())[:kept])

    monkeypatch.setattr(module, "_find_chessboard", covered)
    pairs = find_pairs(str(photographs / "left*.png"), str(photographs / "right*.png"))
    found = calibrate(pairs, Board(9, 6, 0.025))
    reason = "the corners that both images show lie on one line"
    assert [found.left_out[pair.name] for pair in (pairs[0], pairs[2])] == [reason, reason]
    assert_is(found.calibration, rig)


@pytest.mark.parametrize(("rows", "before_opencv_4_6"), [(7, False), (8, False), (8, True)])
def test_charuco_boards_may_be_partly_visible(tmp_path, rig, rows, before_opencv_4_6):
    board = Board(9, rows, 0.025, 0.018)
    pattern = charuco_board(board)
    pattern.setLegacyPattern(before_opencv_4_6)
    drawn = pattern.generateImage((2250, 250 * rows))
    drawn = np.pad(drawn, 250, constant_values=255)
    photograph(tmp_path, rig, drawn)
    path = tmp_path / "left00.png"
    picture = read_image(path).copy()
    picture[:, :250] = 128  # a hand before the board
    Image.fromarray(picture).save(path)
    pairs = find_pairs(str(tmp_path / "left*.png"), str(tmp_path / "right*.png"))
    found = calibrate(pairs, board)
    assert found.rms < 0.3
    assert_is(found.calibration, rig)
    for wrong in (Board(9, 7, 0.025, 0.03), Board(9, 7, 0.025, 0.018, "DICT_9X9")):
        with pytest.raises(UsageError):
            charuco_board(wrong)


def test_the_progress_of_calibrate_is_that_of_its_work(photographs, monkeypatch):
    from stereo.geometry import calibrate as module

    steps = []

    def progress(items, *_):
        for item in items:
            yield item
            steps.append("done")

    monkeypatch.setattr("stereo.system.console.progress", progress)
    monkeypatch.setattr(module, "_find_view", lambda *_: steps.append("found") or "none")
    with pytest.raises(InputError, match="was found in 0 of 10 pairs"):
        calibrate_folder(
            *(str(photographs / f"{side}*.png") for side in ("left", "right")),
            photographs / "cameras.json",
            Board(9, 6, 0.025),
        )
    assert steps == ["found", "done"] * 10


def test_bad_views_are_named_and_excluded(photographs, tmp_path, stereo):
    for path in photographs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    Image.new("L", SIZE, 90).save(tmp_path / "right04.png")
    (tmp_path / "right05.png").write_bytes((tmp_path / "right05.png").read_bytes()[:3000])
    (tmp_path / "right07.png").write_bytes((tmp_path / "right02.png").read_bytes())
    views = (tmp_path / "left*.png", tmp_path / "right*.png")
    board = ("--board", "9x6", "--square", "0.025")
    called = stereo("calibrate", *views, *board, "--output", tmp_path / "cameras.json")
    assert called.status == 0, called.errors
    told = "\n".join(called.errors)
    assert "left04 is left out: no board in the right image" in told
    assert f"left05 is left out: {tmp_path / 'right05.png'}: damaged or truncated" in told
    assert "left07 is left out: its cameras have another relative pose" in told
    assert f"{10 - len(called.errors)} of 10 pairs" in called.out
    baseline = re.search(r"baseline (\S+) mm", called.out)[1]
    assert float(baseline) == pytest.approx(100, rel=0.01)
    assert Calibration.read(tmp_path / "cameras.json").size == SIZE
    with Image.open(tmp_path / "cameras_coverage.png") as picture:
        assert picture.size == (2 * SIZE[0], SIZE[1])


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--board", "9", "--square", "0.025"), 2, "write COLUMNSxROWS"),
        (("--board", "9x6", "--square", "-1"), 2, "positive number of metres"),
        (("--board", "8x8", "--square", "0.025"), 1, "was found in 0 of"),
        (("--board", "9x6", "--square", "0.02", "--marker", "0.03"), 2, "smaller than the square"),
        (("--board", "2x2", "--square", "0.02"), 2, "at least 3x3"),
    ],
)
def test_calibrate_reports_what_is_wrong(photographs, tmp_path, stereo, options, status, message):
    views = (photographs / "left0[0-3].png", photographs / "right0[0-3].png")
    called = stereo("calibrate", *views, *options, "--output", tmp_path / "x.json")
    assert called.status == status
    assert message in called.errors[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_implausible_cameras_suggest_a_wrong_board(photographs, monkeypatch):
    from stereo.geometry import calibrate as module

    pairs = find_pairs(str(photographs / "left*.png"), str(photographs / "right*.png"))
    with pytest.raises(InputError, match=r"^3 pairs are too few to calibrate: 4 are the least"):
        calibrate(pairs[:3], Board(9, 6, 0.025))
    with pytest.raises(InputError, match=r"8x8 was found in 0 of 4 pairs; .*check --board"):
        calibrate(pairs[:4], Board(8, 8, 0.025))
    # What OpenCV makes of a part of a board differs with its version.
    for outcome in (InputError("the right focal length is -3026.05 px"), cv2.error("no")):

        def fail(*_, error=outcome):
            raise error

        monkeypatch.setattr(module, "_solve_pinhole", fail)
        with pytest.raises(InputError, match=r"board of 9x6 \(.*check --board"):
            calibrate(pairs[:5], Board(9, 6, 0.025))


@pytest.mark.slow
def test_views_of_a_board_in_the_other_order_are_said_to_be_so(photographs):
    pairs = find_pairs(str(photographs / "right*.png"), str(photographs / "left*.png"))
    with pytest.raises(InputError, match=r"^the images named first are of the camera on the right"):
        calibrate(pairs[:5], Board(9, 6, 0.025))


def test_a_partial_board_is_not_silently_accepted(photographs, tmp_path, stereo):
    views = (photographs / "left0[0-4].png", photographs / "right0[0-4].png")
    board = ("--board", "7x5", "--square", "0.025")
    called = stereo("calibrate", *views, *board, "--output", tmp_path / "cameras.json")
    assert any("--board" in line for line in called.errors), called.errors


def test_squares_in_millimetres_are_noticed_by_their_baseline(photographs, tmp_path, stereo):
    views = (photographs / "left0[0-4].png", photographs / "right0[0-4].png")
    board = ("--board", "9x6", "--square", "25")
    called = stereo("calibrate", *views, *board, "--output", tmp_path / "cameras.json")
    assert any("m is long: is --square in metres?" in line for line in called.errors)


def corner_offsets(pairs, size):
    """Return the vertical distances of a board's corners between views."""
    away = []
    for pair in pairs:
        grey = [cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in pair]
        found = [cv2.findChessboardCorners(view, size) for view in grey]
        if all(there for there, _ in found):
            stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-3)
            one, other = (
                cv2.cornerSubPix(view, corners, (5, 5), (-1, -1), stop).reshape(-1, 2)
                for view, (_, corners) in zip(grey, found, strict=True)
            )
            away.append(np.abs(one[:, 1] - other[:, 1]))
    return np.concatenate(away)


def test_rectified_rows_correspond(photographs, tmp_path, stereo, rig):
    rig.write(tmp_path / "cameras.json")
    views = (photographs / "left0*.png", photographs / "right0*.png")
    output = tmp_path / "out"
    call = ("rectify", *views, "--calibration", tmp_path / "cameras.json", "--output", output)
    called = stereo(*call)
    assert called.status == 0, called.errors
    pairs = [
        (read_image(output / f"left0{i}_left.png"), read_image(output / f"left0{i}_right.png"))
        for i in range(10)
    ]
    raw = [
        (read_image(photographs / f"left0{i}.png"), read_image(photographs / f"right0{i}.png"))
        for i in range(10)
    ]
    assert corner_offsets(raw, (9, 6)).mean() > 3
    assert corner_offsets(pairs, (9, 6)).mean() < 0.1
    written = Calibration.read(output / "calibration.json")
    assert written.is_rectified
    assert written.baseline == pytest.approx(rig.baseline)
    assert written.doffs == 0  # infinity is where searches begin
    assert (output / "left00_lines.png").is_file()


def test_rectify_goes_on_after_a_pair_that_fails(tmp_path, stereo, rig):
    rig.write(tmp_path / "cameras.json")
    for name in ("left0", "right0", "left1", "right1", "left2", "right2"):
        Image.new("L", SIZE, 90).save(tmp_path / f"{name}.png")
    (tmp_path / "right1.png").write_bytes(b"nothing")
    views, output = (tmp_path / "left?.png", tmp_path / "right?.png"), tmp_path / "out"
    call = ("rectify", *views, "--calibration", tmp_path / "cameras.json", "--output", output)
    called = stereo(*call)
    assert called.status == 1
    (line,) = called.errors
    assert "right1.png: damaged" in line
    assert "2 of 3 pairs" in called.out
    assert [path.name[:5] for path in sorted(output.glob("*_right.png"))] == ["left0", "left2"]


def test_rectify_and_calibrate_overwrite_no_input(tmp_path, stereo, rig):
    for side in ("left", "right"):
        Image.new("L", SIZE, 90).save(tmp_path / f"{side}.png")
    views = (tmp_path / "left.png", tmp_path / "right.png")
    given = tmp_path / "calibration.json"
    rig.write(given)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    board = ("--board", "9x6", "--square", "0.025")
    for call in (
        ("rectify", *views, "--calibration", given, "--output", tmp_path),
        ("calibrate", *views, *board, "--output", tmp_path / "left.png"),
    ):
        called = stereo(*call)
        assert called.status == 1
        assert "is an input and would be overwritten; choose another --output" in called.errors[-1]
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    given.rename(tmp_path / "cameras.json")
    (tmp_path / "right.png").rename(tmp_path / "x_left.png")
    (tmp_path / "left.png").rename(tmp_path / "x.png")
    views = (tmp_path / "x.png", tmp_path / "x_left.png")
    called = stereo(
        "rectify", *views, "--calibration", tmp_path / "cameras.json", "--output", tmp_path
    )
    assert "x_left.png: is an input" in called.errors[-1]


@pytest.mark.parametrize("colour", [False, True])
def test_rectified_16_bit_images_keep_their_samples(tmp_path, rng, stereo, rig, colour):
    rig.write(tmp_path / "cameras.json")
    frames = []
    for index, most in enumerate((1023, 4095)):  # of one camera: a dark frame and a bright one
        coarse = rng.integers(0, most, (48, 64, 3)[: 2 + colour], np.uint16, endpoint=True)
        frame = cv2.resize(coarse, SIZE, interpolation=cv2.INTER_NEAREST)
        for side in ("left", "right"):
            cv2.imwrite(str(tmp_path / f"{side}{index}.png"), frame)
        frames.append(frame[..., ::-1] if colour else frame[..., None])
    views = (tmp_path / "left?.png", tmp_path / "right?.png")
    call = ("--calibration", tmp_path / "cameras.json", "--output", tmp_path / "out")
    assert stereo("rectify", *views, *call).status == 0
    plan = plan_rectification(rig, *SIZE)
    for index, (frame, most) in enumerate(zip(frames, (1023, 4095), strict=True)):
        small = np.asarray(frame / 16, np.float32)
        expected = cv2.remap(small, *plan.maps[0], cv2.INTER_CUBIC, borderMode=plan.border)
        found = read_samples(tmp_path / "out" / f"left{index}_left.png")
        assert found.dtype == np.uint16 and found.shape == frame.shape
        assert found.max() == most  # cubic interpolation overshoots
        away = found - (16 * expected.reshape(frame.shape)).clip(0, most)
        assert np.abs(away).max() <= 1


def test_rectify_says_that_a_calibration_is_already_rectified(tmp_path, stereo):
    for side in ("left", "right"):
        Image.new("L", SIZE, 90).save(tmp_path / f"{side}.png")
    Calibration.rectified(fx=700, cx0=320, cy=240, baseline=0.1).write(tmp_path / "cameras.json")
    call = ("rectify", tmp_path / "left.png", tmp_path / "right.png", "--output", tmp_path / "out")
    called = stereo(*call, "--calibration", tmp_path / "cameras.json")
    assert called.status == 0
    assert any("cameras.json: is of a rectified pair" in line for line in called.errors)


@pytest.mark.slow
def test_real_chessboards_calibrate_and_rectify():
    folder = shared("calibration/opencv_chessboard")
    pairs = find_pairs(str(folder / "left*.jpg"), str(folder / "right*.jpg"))
    found = calibrate(pairs, Board(9, 6, 0.025))
    assert found.rms < 0.5
    assert len(found.errors) == 13
    views = [(read_image(pair.left), read_image(pair.right)) for pair in pairs]
    before = corner_offsets(views, (9, 6)).mean()
    assert before == pytest.approx(12.8, abs=0.1)
    theirs = Calibration.read(folder / "intrinsics.yml", raw=True)
    for calibration in (found.calibration, theirs):
        plan = plan_rectification(calibration, *SIZE)
        assert corner_offsets([plan.apply(*pair) for pair in views], (9, 6)).mean() < 0.3


@pytest.mark.parametrize("keep_all", [False, True])
def test_only_a_pair_with_all_its_pixels_has_black_around_them(rig, keep_all):
    white = np.full((*SIZE[::-1], 3), 255, np.uint8)
    for view in plan_rectification(rig, *SIZE, keep_all=keep_all).apply(white, white):
        assert view.min() == (0 if keep_all else 255)


def test_cameras_above_each_other_are_refused(rig):
    upright = Calibration(rig.left, rig.right, (0.001, -0.1, 0.0), rig.rotation, SIZE)
    with pytest.raises(InputError, match="above each other"):
        plan_rectification(upright, *SIZE)


def faults_of(left, right, **options):
    return [fault.split(":")[0] for fault in check_pair(left, right, 192, **options).faults]


@pytest.mark.parametrize("quick", slow_but(False, of=[False, True]))
def test_faults_of_a_pair_are_named(quick):
    left, right = read_image(LEFT), read_image(RIGHT)
    assert faults_of(LEFT, RIGHT, quick=quick) == []
    assert faults_of(right, left, quick=quick) == ["swapped"]
    assert faults_of(left, left, quick=quick) == ["identical"]
    small = BytesIO()
    Image.fromarray(left).save(small, "JPEG", quality=40)
    assert faults_of(left, Image.open(small), quick=quick) == ["identical"]
    assert faults_of(left, right[::-1], quick=quick) == ["unrelated"]
    assert faults_of(left, np.full_like(left, 90), quick=quick) == ["blank"]
    assert faults_of(left[:8], right[:8], quick=quick) == ["small"]
    assert faults_of(left, right[:-2], quick=quick) == ["sizes"]
    assert faults_of(left, np.roll(right, 3, axis=0), quick=quick) == ["vertical"]
    assert faults_of(left, right[:, ::-1], quick=quick) == ["mirrored"]
    assert faults_of(left[:, ::-1], right, quick=quick) == ["mirrored"]
    assert faults_of(left, right[::-1, ::-1], quick=quick) == ["unrelated"]


@pytest.mark.parametrize(("rows", "direction"), [(5, "lower"), (-5, "higher")])
def test_a_vertical_offset_is_reported_with_its_direction(rows, direction):
    moved = np.roll(read_image(RIGHT), rows, axis=0)
    (fault,) = check_pair(LEFT, moved, 192, quick=True).faults
    assert f"features lie 5.0 px {direction} in the right view" in fault


@pytest.mark.parametrize(
    ("roll", "zoom", "yaw", "cause"),
    [
        (0.3, 1, 0, "left to right, as if one were turned by 0.29 degrees"),
        (0, 1.006, 0, "top to bottom, as if one were 0.6 % larger"),
        (0, 1, 2, "corner to corner, as if the cameras were turned"),
        (0, 1, -2, "corner to corner, as if the cameras were turned"),
    ],
)
def test_rows_that_drift_apart_are_a_fault(roll, zoom, yaw, cause):
    right = read_image(RIGHT)
    height, width = right.shape[:2]
    camera = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]])
    turn, _ = cv2.Rodrigues(np.radians([0.0, yaw, -roll]))
    warp = camera @ turn @ np.diag([zoom, zoom, 1]) @ np.linalg.inv(camera)
    for quick in (True, False):
        turned = cv2.warpPerspective(right, warp, (width, height), borderMode=cv2.BORDER_REFLECT)
        (fault,) = check_pair(LEFT, turned, 192, quick=quick, min_disparity=-64).faults
        assert fault.startswith("vertical: the views' rows drift apart by")
        assert cause in fault


def test_wrong_matches_in_one_place_are_no_drift_of_rows(rng):
    left = rng.uniform(0, 400, (300, 2))
    right = left - (20, 0) + rng.normal(0, 0.2, (300, 2))
    right[left[:, 1] > 340, 1] += rng.uniform(0, 5, np.count_nonzero(left[:, 1] > 340))
    assert not check._vertical_faults(check.Matches(left, right), 0.0, 2.0)
    right[:, 1] += 0.01 * left[:, 0]
    (fault,) = check._vertical_faults(check.Matches(left, right), 0.0, 2.0)
    assert "drift apart" in fault


def test_a_few_wrong_matches_in_a_corner_are_no_keystone():
    rng = np.random.default_rng(0)
    for _ in range(200):
        left = rng.uniform(0, (80, 500), (20, 2))
        left[:5] = rng.uniform((50, 350), (80, 500), (5, 2))
        right = left - (20, 0) + rng.normal(0, 0.3, (20, 2))
        right[:5, 1] += 2
        assert not check._vertical_faults(check.Matches(left, right), 0.0, 2.0)


def test_cameras_above_each_other_are_told_to_be_turned():
    one, other = (np.rot90(read_image(path)) for path in (LEFT, RIGHT))
    found = check_pair(one, other, 192)
    assert ["turn both views by 90 degrees" in fault for fault in found.faults] == [True]
    assert found.range is None


def test_two_mirrored_views_look_swapped_and_the_advice_says_so():
    left, right = read_image(LEFT), read_image(RIGHT)
    (fault,) = check_pair(left[:, ::-1], right[:, ::-1], 192).faults
    assert fault.startswith("swapped")
    assert "mirror both if they are mirrored" in fault


def test_a_range_too_short_is_said_with_what_can_be_done():
    for fixed, remedy in ((False, "use --max-disparity"), (True, "the model searches 16 px only")):
        (note,) = [
            note
            for note in check_pair(LEFT, RIGHT, 16, fixed_range=fixed).notes
            if note.startswith("range")
        ]
        assert remedy in note


def test_images_too_wide_to_rectify_are_refused():
    calibration = Calibration.rectified(fx=1000, cx0=100, cy=10, baseline=0.1)
    with pytest.raises(InputError, match="may be 32766 px a side at most"):
        plan_rectification(calibration, 33000, 200)


def judged(left, disparity):
    found = check.Findings()
    right = left - np.stack([disparity, np.zeros(len(left))], axis=1)
    check._judge(check.Matches(left, right), found, 192, 480)
    assert not found.faults
    return found.range, [note.split(":")[0] for note in found.notes]


def test_matches_without_a_model_are_none_not_an_error(monkeypatch):
    views = [read_image(SAMPLE / side / "0006.png")[::2, ::2] for side in ("left", "right")]
    real = cv2.findFundamentalMat

    def fail(*_):
        raise cv2.error("!model.empty()")

    monkeypatch.setattr(cv2, "findFundamentalMat", fail)
    assert "unrelated: only 0 features agree" in check_pair(*views, 64).faults[0]
    monkeypatch.setattr(cv2, "findFundamentalMat", real)
    assert not check_pair(*views, 64).faults


def test_wrong_matches_on_other_rows_are_no_vertical_fault(rng):
    left = rng.uniform(0, 400, (300, 2))
    right = left - (20, 0) + rng.normal(0, 0.2, (300, 2))
    right[:45, 1] += 30  # a repeated pattern
    found = check.Findings()
    check._judge(check.Matches(left, right), found, 192, 400)
    assert not found.faults
    found = check.Findings()
    right[:, 1] += 0.03 * left[:, 0] - 6  # one view is rotated
    check._judge(check.Matches(left, right), found, 192, 400)
    assert any(fault.startswith("vertical") for fault in found.faults)


def test_wrong_matches_along_rows_do_not_widen_the_range(rng):
    left = np.stack([rng.uniform(0, 640, 500), rng.uniform(0, 480, 500)], axis=1)
    disparity = 20 + left[:, 1] / 20
    disparity[:40] = rng.uniform(-200, 200, 40)
    (low, high), notes = judged(left, disparity)
    assert 19 < low < 23
    assert 41 < high < 46
    assert notes == ["range"]


def test_the_range_is_never_below_0(rng):
    left = np.stack([rng.uniform(0, 640, 500), rng.uniform(0, 480, 500)], axis=1)
    (low, high), notes = judged(left, left[:, 1] / 20 - 8)
    assert low == 0
    assert high == pytest.approx(16, abs=1)
    assert notes == ["negative", "range"]


def test_raw_views_of_converging_cameras_are_not_called_swapped(rng):
    left = np.stack([rng.uniform(0, 640, 500), rng.uniform(0, 480, 500)], axis=1)
    right = left + np.stack([rng.uniform(20, 60, 500), (left[:, 0] - 320) / 10], axis=1)
    found = check.Findings()
    check._judge(check.Matches(left, right), found, 192, 480)
    assert [fault.partition(":")[0] for fault in found.faults] == ["vertical"]


@pytest.mark.parametrize("between", [0, 5])
def test_two_groups_of_rows_are_a_vertical_fault_with_a_range(rng, between):
    left = np.stack([rng.uniform(0, 640, 100), rng.uniform(0, 480, 100)], axis=1)
    away = np.stack([np.full(100, -30.0), np.repeat([0.0, 8.0], 50)], axis=1)
    away[50 - between : 50 + between] = -90, 4  # at the median
    found = check.Findings()
    check._judge(check.Matches(left, left + away), found, 192, 480)
    assert [fault.partition(":")[0] for fault in found.faults] == ["vertical"]
    assert found.range[0] == 30


def test_unrelated_images_are_detected(rng):
    left = read_image(LEFT)
    noise = cv2.GaussianBlur(rng.integers(0, 256, left.shape, np.uint8), (0, 0), 1.5)
    noise = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)
    assert faults_of(left, noise) == ["unrelated"]


def test_notes_report_exposure_blur_and_depth(tmp_path):
    left, right = read_image(LEFT), read_image(RIGHT)

    def notes(one, other, most=192):
        found = check_pair(one, other, most)
        assert not found.faults
        return {note.split(":")[0]: note for note in found.notes}

    assert set(notes(left, right)) == {"range"}
    assert "within --max-disparity 192" in notes(left, right)["range"]
    assert "rather than 16" in notes(left, right, 16)["range"]
    dark = notes(left, (right * 0.4).astype(np.uint8))
    assert "right view is darker by a factor of 2.5" in dark["exposure"]
    assert "blur" not in dark
    grey = np.repeat(left.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert "left view is grey" in notes(grey, right)["grey"]
    deep = tmp_path / "deep.png"
    Image.fromarray(grey[..., 0].astype(np.uint16) * 256).save(deep)
    assert "left view" in notes(deep, right)["16-bit"]
    assert "right view" in notes(left, cv2.GaussianBlur(right, (0, 0), 2.0))["blur"]
    flat = np.full((64, 64, 3), 90, np.uint8)
    flat[:, :32] = 110
    assert "texture" in notes(flat, np.roll(flat, 9, axis=1))


def test_check_pair_has_a_status_and_one_line_per_fault(stereo):
    called = stereo("check-pair", LEFT, RIGHT)
    assert (called.status, called.errors) == (0, [])
    assert "fit to match" in called.out
    called = stereo("check-pair", RIGHT, LEFT)
    assert called.status == 1
    assert len(called.errors) == 1
    assert "swapped" in called.errors[0]


def test_infer_warns_about_a_faulty_pair(stereo, tmp_path):
    called = stereo("infer", RIGHT, LEFT, "--model", "sgbm", "--output", tmp_path)
    assert called.status == 0
    assert len(called.errors) == 1
    assert called.errors[0].startswith("warning: 0006: swapped")
    called = stereo(
        *("infer", LEFT, RIGHT, "--model", "sgbm", "--output", tmp_path, "--max-disparity", "16")
    )
    assert "use --max-disparity" in called.errors[0]


@pytest.mark.slow
def test_real_pairs_pass_the_check_and_corrupted_ones_fail():
    root = shared("real")
    pairs = {
        entry["name"]: (root / entry["left"], root / entry["right"])
        for entry in json.loads((root / "manifest.json").read_text())
    }
    wild = shared("wild")
    for name in ("crestereo", "waft_PianoL", "waft_Vintage"):
        pairs[name] = (wild / f"{name}_left.png", wild / f"{name}_right.png")
    keyboard = shared("calibration/keyboard_K_txt")
    pairs["keyboard"] = (keyboard / "left.png", keyboard / "right.png")
    for name, pair in pairs.items():
        found = check_pair(*pair, 192, quick=True)
        assert found.faults == [], name
        assert found.range is None or found.range[0] >= 0, name
    for name in ("kitti2015/000000_10", "mid2003/Teddy", "eth3d/playground"):
        left, right = (read_image(path) for path in pairs[name])
        assert faults_of(right, left) == ["swapped"], name
        assert faults_of(left, np.roll(right, 3, axis=0)) == ["vertical"], name
        assert faults_of(left, right[:, ::-1]) == ["mirrored"], name
    raw = (wild / "unrectified_left.png", wild / "unrectified_right.png")
    assert faults_of(*raw) == ["vertical"]
    art, teddy = read_image(pairs["mid2005third/Art"][0]), read_image(pairs["mid2003/Teddy"][1])
    assert faults_of(art[:370, :450], teddy[:370, :450]) == ["unrelated"]


@pytest.fixture(scope="module")
def fisheye_rig():
    turn = cv2.Rodrigues(np.array([0.01, -0.03, 0.015]))[0]
    rotation = tuple(tuple(float(n) for n in row) for row in turn)
    left = Camera(300, 301, 322, 238, (0.02, -0.01, 0.004, -0.001), "fisheye")
    right = Camera(298, 299, 318, 243, (0.015, -0.008, 0.003, -0.0008), "fisheye")
    return Calibration(left, right, (-0.1, 0.002, 0.001), rotation, SIZE)


def seen_by_fisheye(rig, points):
    """Return the pixels of (N, 3) points of the left camera's frame in both views."""
    turn = cv2.Rodrigues(np.array(rig.rotation))[0]
    move = np.array(rig.translation).reshape(3, 1)
    poses = ((np.zeros((3, 1)), np.zeros((3, 1))), (turn, move))
    return [
        cv2.fisheye.projectPoints(
            points[None], *pose, camera.matrix(), np.array(camera.distortion)
        )[0][0]
        for pose, camera in zip(poses, (rig.left, rig.right), strict=True)
    ]


def rectified_pixels(plan, rig, points):
    """Return row and column of the rectified pixels that show (N, 3) points, by the maps."""
    pixels = []
    for (x, y), seen in zip(plan.maps, seen_by_fisheye(rig, points), strict=True):
        away = (x[..., None] - seen[:, 0]) ** 2 + (y[..., None] - seen[:, 1]) ** 2
        flat = away.reshape(-1, len(points)).argmin(axis=0)
        pixels.append(np.stack(np.unravel_index(flat, x.shape), axis=1))
    return pixels


@pytest.mark.parametrize("keep_all", [False, True])
def test_fisheye_pairs_are_rectified_to_pinhole_ones(fisheye_rig, rng, keep_all):
    plan = plan_rectification(fisheye_rig, *SIZE, keep_all=keep_all)
    own = plan.calibration
    assert own.is_rectified
    assert own.baseline == pytest.approx(fisheye_rig.baseline)
    assert (own.fx < plan_rectification(fisheye_rig, *SIZE).calibration.fx) == keep_all
    across = rng.uniform(-0.8, 0.8, (12, 2)) * (1, 0.7)  # up to 39 degrees from the axis
    points = np.concatenate([across, np.ones((12, 1))], axis=1) * 2.0
    left, right = rectified_pixels(plan, fisheye_rig, points)
    assert np.abs(left[:, 0] - right[:, 0]).max() <= 1  # pixels, of whole ones
    depth = own.depth((left[:, 1] - right[:, 1]).astype(np.float32)[None])[0]
    x, y, z = (points @ plan.turns[0].T).T
    assert np.abs(1 / depth - 1 / z).max() < 2 / (own.fx * 0.1)
    there = np.stack([own.cy + own.fy * y / z, own.cx0 + own.fx * x / z], axis=1)
    assert np.abs(left - there).max() <= 1
    wrong = dataclasses.replace(
        fisheye_rig,
        left=dataclasses.replace(fisheye_rig.left, lens="pinhole"),
        right=dataclasses.replace(fisheye_rig.right, lens="pinhole"),
    )
    maps = [plan_rectification(each, *SIZE).maps[0][0] for each in (fisheye_rig, wrong)]
    assert np.abs(maps[0] - maps[1]).max() > 10  # so that the test tells the models


@pytest.mark.parametrize("keep_all", [False, True])
@pytest.mark.parametrize("focal", [210, 160])  # fields of view of 175 and 229 degrees
def test_the_middle_of_a_wide_fisheye_keeps_its_pixels(recwarn, focal, keep_all):
    camera = Camera(focal, focal, 319.5, 239.5, (0, 0, 0, 0), "fisheye")
    rig = Calibration(camera, camera, (-0.1, 0.0, 0.0), size=SIZE)
    own = plan_rectification(rig, *SIZE, keep_all=keep_all).calibration
    degrees = 2 * np.degrees(np.arctan(320 / own.fx))
    assert degrees == pytest.approx(135 if keep_all else 120)
    assert own.baseline == pytest.approx(0.1)
    assert not [each for each in recwarn if "millimetres" in str(each.message)]


@pytest.mark.parametrize(
    ("focals", "centre"),
    [((245, 245), (319.5, 120)), ((193, 193), (160, 239.5)), ((193, 480), None)],
)
def test_a_narrowed_fisheye_shows_no_column_that_no_camera_saw(focals, centre):
    x, y = centre or (319.5, 239.5)
    cameras = [Camera(focal, focal, x, y, (0, 0, 0, 0), "fisheye") for focal in focals]
    rig = Calibration(*cameras, (-0.1, 0.0, 0.0), size=SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the share that is shown
        plan = plan_rectification(rig, *SIZE)
    for across, down in plan.maps:
        assert across.min() >= -1 and across.max() <= SIZE[0]
        assert down.min() >= -1 and down.max() <= SIZE[1]


def test_a_known_fisheye_rig_is_recovered(fisheye_rig, rng):
    from stereo.geometry import calibrate as module

    grid = np.indices((9, 6)).reshape(2, -1).T * 0.03
    board = np.concatenate([grid - (0.12, 0.075), np.zeros((54, 1))], axis=1)
    views = []
    for index in range(12):
        turn = cv2.Rodrigues(rng.uniform(-0.5, 0.5, 3))[0]
        move = (*rng.uniform(-0.15, 0.15, 2), rng.uniform(0.2, 0.4))
        count = 54 if index % 3 else 40  # a board seen in part
        sides = seen_by_fisheye(fisheye_rig, board[:count] @ turn.T + move)
        noisy = [(side + rng.normal(0, 0.05, side.shape)).astype(np.float32) for side in sides]
        views.append(module.BoardView(f"{index}", board[:count].astype(np.float32), *noisy))
    board = Board(9, 6, 0.03)
    solution = module._solve(views, SIZE, board, "fisheye")
    found = module._calibration_of(solution, SIZE, board, "fisheye")
    rms, errors, away = solution.rms, solution.errors, module._away_from_the_others(solution)
    assert_is(found, fisheye_rig)
    assert found.left.lens == found.right.lens == "fisheye"
    assert rms < 0.1
    assert max(errors) < 0.15
    assert max(away) < 0.1
    other = np.stack(seen_by_fisheye(found, np.array([[0.5, 0.3, 1.0], [-0.7, 0.1, 1.0]])))
    own = np.stack(seen_by_fisheye(fisheye_rig, np.array([[0.5, 0.3, 1.0], [-0.7, 0.1, 1.0]])))
    assert np.abs(other - own).max() < 1


def test_a_lens_known_only_in_the_middle_is_said_to_be_so(fisheye_rig):
    folded = dataclasses.replace(fisheye_rig.left, distortion=(0.02, -0.15, 0.0, 0.0))
    reach = folded.turning_point()[1]
    angles = np.linspace(0, 1.5, 1000)
    assert reach == pytest.approx(
        folded.fx * (angles + 0.02 * angles**3 - 0.15 * angles**5).max(), rel=1e-3
    )
    assert reach < SIZE[0] / 2
    partly = dataclasses.replace(fisheye_rig, left=folded)
    with pytest.raises(InputError, match=rf"the left fisheye lens' model ends {reach:.0f} px"):
        plan_rectification(partly, *SIZE)
    assert fisheye_rig.left.sees_all(SIZE)


@pytest.mark.parametrize(("degrees", "share"), [(0, 1.0), (20, 0.3), (30, 0.05)])
def test_a_rectified_pair_of_little_of_the_images_is_said_to_be_so(degrees, share):
    angle = np.radians(degrees)
    camera = Camera(500, 500, 319.5, 239.5)
    move = (-0.1 * float(np.cos(angle)), -0.1 * float(np.sin(angle)), 0.0)
    rig = Calibration(camera, camera, move, ((1, 0, 0), (0, 1, 0), (0, 0, 1)), SIZE)
    if degrees == 30:
        with pytest.raises(InputError, match=r"shows only .% of an image.*--keep-all"):
            plan_rectification(rig, *SIZE)
    elif degrees:
        with pytest.warns(UserWarning, match=r"shows only 2.% of an image.*--keep-all"):
            plan_rectification(rig, *SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan_rectification(rig, *SIZE, keep_all=degrees > 0)


def test_lenses_of_two_kinds_are_refused(fisheye_rig, rig):
    mixed = dataclasses.replace(fisheye_rig, right=rig.right)
    with pytest.raises(InputError, match="one camera has a pinhole lens"):
        plan_rectification(mixed, *SIZE)


@pytest.mark.parametrize("command", ["calibrate", "rectify"])
def test_an_unknown_lens_is_a_wrong_call(photographs, tmp_path, stereo, command):
    options = {
        "calibrate": ("--board", "9x6", "--square", "0.025"),
        "rectify": ("--calibration", tmp_path / "absent.json"),
    }
    views = (photographs / "left*.png", photographs / "right*.png")
    called = stereo(
        command, *views, "--output", tmp_path / "o.json", "--lens", "wide", *options[command]
    )
    assert called.status == 2
    assert "'wide' (choose from" in called.errors[-1]


def test_rectify_takes_a_lens_that_the_file_does_not_record(tmp_path, stereo, fisheye_rig):
    fields = ""
    for number, camera in (("1", fisheye_rig.left), ("2", fisheye_rig.right)):
        for name, value in (("M", camera.matrix()), ("D", np.array([camera.distortion]).T)):
            fields += f"{name}{number}: !!opencv-matrix\n  rows: {len(value)}\n"
            fields += f"  cols: {value.shape[1]}\n  dt: d\n  data: {value.ravel().tolist()}\n"
    fields += f"R: {np.ravel(fisheye_rig.rotation).tolist()}\nT: {list(fisheye_rig.translation)}\n"
    (tmp_path / "stereo.yml").write_text(f"%YAML 1.2\n---\n{fields}image_size: [640, 480]\n")
    for side in ("left", "right"):
        Image.new("L", SIZE, 90).save(tmp_path / f"{side}.png")
    call = ("rectify", tmp_path / "left.png", tmp_path / "right.png", "--output", tmp_path / "o")
    call = (*call, "--calibration", tmp_path / "stereo.yml")
    for option in ([], ["--keep-all"]):
        called = stereo(*call, "--lens", "fisheye", *option)
        assert (called.status, called.errors) == (0, [])
        expected = plan_rectification(fisheye_rig, *SIZE, keep_all=bool(option)).calibration
        written = Calibration.read(tmp_path / "o" / "calibration.json")
        assert written.fx == pytest.approx(expected.fx)
    called = stereo(*call)
    assert any("say --lens fisheye" in line for line in called.errors)


def test_rectify_leaves_no_pair_beside_another_calibration(tmp_path, stereo, rig):
    rig.write(tmp_path / "raw.json")
    for name in ("a", "b"):
        for side in ("left", "right"):
            Image.new("L", SIZE, 90).save(tmp_path / f"{name}_{side}.png")
    output = tmp_path / "o"

    def rectify(pattern, *options):
        views = (tmp_path / f"{pattern}_{side}.png" for side in ("left", "right"))
        call = ("rectify", *views, "--calibration", tmp_path / "raw.json", "--output", output)
        return stereo(*call, *options)

    assert rectify("a").status == rectify("b").status == 0  # the same calibration
    before = {path: path.read_bytes() for path in output.iterdir()}
    called = rectify("b", "--keep-all")
    assert called.status == 2
    assert "holds other pairs, of another calibration.json" in called.errors[-1]
    assert {path: path.read_bytes() for path in output.iterdir()} == before
    assert rectify("*", "--keep-all").status == 0  # all of them anew


def test_rectify_writes_the_rotations_into_the_rectified_frame(tmp_path, stereo, rig):
    rig.write(tmp_path / "raw.json")
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
    for side in ("left", "right"):
        Image.fromarray(noise).save(tmp_path / f"{side}.png")
    views, output = (tmp_path / "left.png", tmp_path / "right.png"), tmp_path / "o"
    call = ("rectify", *views, "--calibration", tmp_path / "raw.json", "--output", output)
    assert stereo(*call).status == 0
    written = json.loads((output / "calibration.json").read_text())
    one, other = (np.array(written["rectification"][side]) for side in ("left", "right"))
    assert np.allclose(other @ rig.rotation, one)  # both end in one frame
    move = Calibration.read(output / "calibration.json").translation
    assert np.allclose(other @ rig.translation, move)


def test_rectify_says_that_its_result_does_not_fit(tmp_path, stereo):
    camera = Camera(400, 400, 240, 134, (0.1, 0, 0, 0, 0))
    size = Image.open(LEFT).size
    Calibration(camera, camera, (-0.1, 0.0, 0.0), size=size).write(tmp_path / "raw.json")
    call = ("--calibration", tmp_path / "raw.json", "--output")
    assert stereo("rectify", LEFT, RIGHT, *call, tmp_path / "right").errors == []
    called = stereo("rectify", RIGHT, LEFT, *call, tmp_path / "wrong")
    assert called.status == 0
    (line,) = called.errors
    assert ", rectified: swapped: " in line and "in this order?" in line


def test_rectify_names_a_pair_of_another_size_and_keeps_the_calibration(tmp_path, stereo, rig):
    rig.write(tmp_path / "raw.json")
    for name, size in (("a", SIZE), ("b", (640, 300))):
        for side in ("left", "right"):
            Image.new("L", size, 90).save(tmp_path / f"{name}_{side}.png")
    views = (tmp_path / f"*_{side}.png" for side in ("left", "right"))
    call = ("rectify", *views, "--calibration", tmp_path / "raw.json", "--output", tmp_path / "o")
    called = stereo(*call)
    assert called.status == 1
    (told,) = called.errors
    assert told.startswith(f"stereo rectify: error: {tmp_path / 'b_left.png'}: the calibration is")
    assert Calibration.read(tmp_path / "o" / "calibration.json").size == SIZE


@pytest.mark.parametrize("command", ["calibrate", "rectify", "check-pair"])
def test_videos_are_said_to_be_videos_where_images_are_needed(tmp_path, stereo, rig, command):
    rig.write(tmp_path / "raw.json")
    views = [tmp_path / f"{side}.avi" for side in ("left", "right")]
    for view in views:
        view.write_bytes(b"RIFF")
    options = {
        "calibrate": ("--board", "9x6", "--square", "0.025", "--output", tmp_path / "o.json"),
        "rectify": ("--calibration", tmp_path / "raw.json", "--output", tmp_path / "o"),
        "check-pair": (),
    }
    called = stereo(command, *views, *options[command])
    assert called.status == 1
    assert "left.avi: is a video" in called.errors[-1]
    assert "ffmpeg -i left.avi" in called.errors[-1]


@pytest.mark.parametrize("degrees", [90, 180])
def test_a_camera_mounted_upside_down_is_said_to_be_so(degrees):
    camera = Camera(700, 700, 319.5, 239.5)
    turn = np.round(cv2.Rodrigues(np.array([0, 0, np.radians(degrees)]))[0], 12)
    move = -turn @ [0.1, 0, 0]  # the right camera stands to the right, as it should
    rows = tuple(tuple(row) for row in turn.tolist())
    rig = Calibration(camera, camera, tuple(move.tolist()), rows, SIZE)
    with pytest.raises(InputError, match=f"rolled by {degrees} degrees"):
        plan_rectification(rig, *SIZE)
