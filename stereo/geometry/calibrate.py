"""Calibration of two cameras from images of a board."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stereo.data.finding.pairs import PairFiles
from stereo.data.io.images import as_images
from stereo.errors import InputError, UsageError
from stereo.geometry.calibration import Calibration
from stereo.geometry.parameters import Camera
from stereo.system import console
from stereo.system.opencv import import_cv2

FEWEST_VIEWS = 4
FEWEST_CORNERS = 8
BAD_VIEW = 3.0  # times the median error of the views
BAD_PIXELS = 1.0
FISHEYE_STARTS = (0.45, 0.32, 0.6, 0.25, 0.8)  # focal lengths to start from, in widths
GOOD_START = 1.0  # pixels, of the error that a start leads to
BAD_SHARE = 0.005  # of the width, of the error over all views
BAD_POSE = 0.3  # of the distance between the cameras
LEAST_TILTS = 5.0  # degrees between the board's poses; fewer leave the focal length open
GOOD_TILTS = 15.0  # with less it is a few percent off
INNER_CORNERS = "inner corners of a chessboard, squares of a ChArUco board"


@dataclass(frozen=True)
class Board:
    """The calibration target."""

    columns: int  # inner corners of a chessboard in a row; squares in a row for ChArUco
    rows: int  # the same along columns
    square: float  # side of a square, metres
    marker: float | None = None  # side of a ChArUco marker, metres; None for a plain chessboard
    dictionary: str = "DICT_5X5_100"  # OpenCV's name of the markers, such as `DICT_5X5_100`


@dataclass(frozen=True, eq=False)
class BoardView:
    """The corners of one pair that both images show."""

    name: str  # of the pair
    board: np.ndarray  # (N, 3) float32, metres
    left: np.ndarray  # (N, 2) float32, pixels
    right: np.ndarray  # (N, 2) float32, pixels


@dataclass(frozen=True, eq=False)
class CalibrationResult:
    """A calibration and its reprojection errors."""

    calibration: Calibration  # of the raw pair
    rms: float  # root mean square of the reprojection errors of the views used, pixels
    tilts: float  # largest angle between the board's normals in two of the views, degrees
    errors: dict[str, float]  # name of a view used -> its own error, pixels
    left_out: dict[str, str]  # name of a pair -> why it was not used
    views: list[BoardView]  # the views used


def calibrate(pairs: Sequence[PairFiles], board: Board, lens: str = "pinhole") -> CalibrationResult:
    """Calibrate both cameras and their pose from pairs of images of a board.

    Views whose relative camera pose differs from the majority's, or whose error is three times the
    median and above a pixel, are left out one by one.

    Raises:
        InputError: too few pairs that show the board, the board in one orientation in all of them
            (Zhang, PAMI 2000: parallel planes add no constraint), or images of several sizes.
    """
    views: list[BoardView] = []
    left_out: dict[str, str] = {}
    size: tuple[int, int] | None = None
    for pair in console.progress(pairs, "calibrate", len(pairs)):
        try:
            pictures = as_images([pair.left, pair.right], [str(pair.left), str(pair.right)])
        except InputError as error:
            left_out[pair.name] = str(error)
            continue
        for path, picture in zip((pair.left, pair.right), pictures, strict=True):
            own = (picture.shape[1], picture.shape[0])
            if size is not None and own != size:
                raise InputError(f"{path}: is {own[0]}x{own[1]}, the others {size[0]}x{size[1]}")
            size = own
        view = _find_view(pair.name, pictures, board)
        if isinstance(view, str):
            left_out[pair.name] = view
        else:
            views.append(view)
    shown, tilts = len(views), 0.0
    while True:
        if len(views) < FEWEST_VIEWS or size is None:
            raise InputError(_too_few(board, len(pairs), shown, len(views)))
        found = _solve(views, size, board, lens)
        if len(views) == shown:
            tilts = _tilts(found, views, size)
        if tilts < LEAST_TILTS:
            raise InputError(
                "the board has one orientation in all pairs, its tilts within "
                f"{tilts:.1f} degrees, which leaves the focal length open: tilt it by "
                "20 to 40 degrees, to every side"
            )
        errors, away = found.errors, _away_from_the_others(found)
        worst = int(np.argmax(away))
        if away[worst] > max(BAD_POSE, BAD_VIEW * float(np.median(away))):
            reason = "its cameras have another relative pose; are its images of one moment?"
        else:
            worst = int(np.argmax(errors))
            if errors[worst] <= max(BAD_PIXELS, BAD_VIEW * float(np.median(errors))):
                break
            reason = f"its error is {errors[worst]:.2f} px"
        left_out[views[worst].name] = reason
        del views[worst]
    calibration = _calibration_of(found, size, board, lens)
    named = {view.name: error for view, error in zip(views, errors, strict=True)}
    return CalibrationResult(calibration, found.rms, tilts, named, left_out, views)


def _too_few(board: Board, pairs: int, shown: int, kept: int) -> str:
    """Explain why too few views remain: given, showing the board, or consistent."""
    size = f"{board.columns}x{board.rows}"
    good = f"{FEWEST_VIEWS} are the least, 15 are good"
    if pairs < FEWEST_VIEWS:
        return f"{pairs} pairs are too few to calibrate: {good}"
    if shown >= FEWEST_VIEWS:
        return (
            f"the board of {size} was found in {shown} of {pairs} pairs, but only {kept} of them "
            f"fit each other; {good}: check --board ({INNER_CORNERS}), and that both images of "
            "a pair are of one moment"
        )
    return (
        f"the board of {size} was found in {shown} of {pairs} pairs; {good}: check --board "
        f"({INNER_CORNERS}), light and focus"
    )


def coverage_picture(views: Sequence[BoardView], size: tuple[int, int]) -> np.ndarray:
    """Return (H, 2 W, 3) uint8, the corners of all views, left and right."""
    cv2 = import_cv2()
    width, height = size
    picture = np.full((height, 2 * width, 3), 32, np.uint8)
    radius = max(2, width // 200)
    for index, view in enumerate(views):
        hue = np.array([[[180 * index // len(views), 200, 255]]], np.uint8)
        color = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
        for corners, shift in ((view.left, 0), (view.right, width)):
            for x, y in corners:
                cv2.circle(picture, (round(float(x)) + shift, round(float(y))), radius, color, -1)
    return picture


def _solve(
    views: Sequence[BoardView], size: tuple[int, int], board: Board, lens: str
) -> "_Solution":
    """Calibrate each camera, then both together from there."""
    cv2 = import_cv2()
    solve = _solve_fisheye if lens == "fisheye" else _solve_pinhole
    try:
        return solve(views, size)
    except (InputError, cv2.error) as error:
        told = error if isinstance(error, InputError) else "OpenCV finds no solution"
        raise _impossible(board, str(told)) from error


def _impossible(board: Board, told: str) -> InputError:
    return InputError(
        f"calibration failed for a board of {board.columns}x{board.rows} ({told}): check --board "
        f"({INNER_CORNERS}); with too small a value only a part of the board is found"
    )


def _calibration_of(
    found: "_Solution", size: tuple[int, int], board: Board, lens: str
) -> Calibration:
    if found.rms > BAD_SHARE * size[0]:
        raise _impossible(board, f"an error of {found.rms:.1f} px is left")
    x, y, z = (float(part) for part in np.ravel(found.move))
    rows = tuple(tuple(float(part) for part in row) for row in found.turn)
    try:
        left, right = (_camera(*each, lens) for each in found.cameras)
        return Calibration(left, right, (x, y, z), rows, size)
    except InputError as error:
        if x > abs(y):
            raise InputError(
                "the images named first are of the camera on the right: name the left ones first"
            ) from error
        raise _impossible(board, str(error)) from error


def _away_from_the_others(found: "_Solution") -> list[float]:
    """Return how far each view alone would have the right camera stand from where most have it.

    In distances of the cameras.
    """
    own = np.array([_move_between(*each) for each in found.poses])
    middle = np.median(own, axis=0)
    away = np.linalg.norm(own - middle, axis=1) / max(float(np.linalg.norm(middle)), 1e-9)
    return [float(each) for each in away]


def _tilts(found: "_Solution", views: Sequence[BoardView], size: tuple[int, int]) -> float:
    """Return the largest angle between two of the board's normals, degrees.

    A solution for boards of one orientation is itself off, tilts and all; a pinhole camera whose
    focal length is the width of the image gives about the right ones.
    """
    cv2 = import_cv2()
    width, height = size
    usual = np.array([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
    turns = [[turn for turn, *_ in found.poses]]
    if not found.fisheye:
        method = cv2.SOLVEPNP_IPPE
        turns.append([cv2.solvePnP(v.board, v.left, usual, None, flags=method)[1] for v in views])
    largest = []
    for each in turns:
        normals = np.array([cv2.Rodrigues(turn)[0][:, 2] for turn in each])
        largest.append(float(np.degrees(np.arccos(np.clip(normals @ normals.T, -1, 1)).max())))
    return min(largest)


@dataclass(frozen=True, eq=False)
class _Solution:
    """OpenCV's solution."""

    # matrix and coefficients of the lens, left and right
    cameras: Sequence[tuple[np.ndarray, np.ndarray]]
    turn: np.ndarray  # rotation from the left to the right camera
    move: np.ndarray  # translation
    rms: float  # of all corners, pixels
    errors: list[float]  # of each view, pixels
    # rotation and translation of each view's board to the left, then the right camera, each camera
    # by itself
    poses: Sequence[tuple[np.ndarray, ...]]
    fisheye: bool = False  # of its lenses


def _solve_pinhole(views: Sequence[BoardView], size: tuple[int, int]) -> _Solution:
    cv2 = import_cv2()
    boards = [view.board for view in views]
    sides = [[view.left for view in views], [view.right for view in views]]
    single = [cv2.calibrateCamera(boards, side, size, None, None) for side in sides]
    (_, left, left_lens, *_), (_, right, right_lens, *_) = single
    rms, left, left_lens, right, right_lens, turn, move, *_, per_view = cv2.stereoCalibrateExtended(
        boards,
        *sides,
        left,
        left_lens,
        right,
        right_lens,
        size,
        np.eye(3),
        np.zeros(3),
        flags=cv2.CALIB_USE_INTRINSIC_GUESS,
    )
    errors = np.sqrt((np.asarray(per_view) ** 2).mean(axis=1)).tolist()
    poses = list(zip(*single[0][3:5], *single[1][3:5], strict=True))
    return _Solution(
        ((left, left_lens), (right, right_lens)), turn, move, float(rms), errors, poses
    )


def _solve_fisheye(views: Sequence[BoardView], size: tuple[int, int]) -> _Solution:
    cv2 = import_cv2()
    # OpenCV wants as many corners in each view: those of views with fewer count more than once.
    most = max(len(view.board) for view in views)
    boards, *sides = (
        [np.resize(getattr(view, part), (most, width))[None].astype(np.float64) for view in views]
        for part, width in (("board", 3), ("left", 2), ("right", 2))
    )
    single = [_calibrate_fisheye(boards, side, size) for side in sides]
    (_, left, left_lens, *_), (_, right, right_lens, *_) = single
    _, left, left_lens, right, right_lens, turn, move, turns, moves = cv2.fisheye.stereoCalibrate(
        boards,
        *sides,
        left,
        left_lens,
        right,
        right_lens,
        size,
        np.eye(3),
        np.zeros((3, 1)),
        flags=_fisheye_flags(),
    )
    cameras = ((left, left_lens), (right, right_lens))
    squares = []
    for view, own_turn, own_move in zip(views, turns, moves, strict=True):
        other_turn = cv2.Rodrigues(turn @ cv2.Rodrigues(own_turn)[0])[0]
        poses = ((own_turn, own_move), (other_turn, turn @ own_move.reshape(3, 1) + move))
        away = [
            cv2.fisheye.projectPoints(view.board[None].astype(np.float64), *pose, *camera)[0][0]
            - corners
            for pose, camera, corners in zip(poses, cameras, (view.left, view.right), strict=True)
        ]
        squares.append((np.concatenate(away) ** 2).sum(axis=1))
    errors = [float(np.sqrt(each.mean())) for each in squares]
    rms = float(np.sqrt(np.concatenate(squares).mean()))
    own_poses = list(zip(*single[0][3:5], *single[1][3:5], strict=True))
    return _Solution(cameras, turn, move, rms, errors, own_poses, fisheye=True)


def _calibrate_fisheye(boards: Sequence[Any], corners: Sequence[Any], size: tuple[int, int]) -> Any:
    """Calibrate one camera from the first focal length that leads to a solution."""
    cv2 = import_cv2()
    width, height = size
    best: Any = None
    failure: Exception = InputError("no solution")
    for start in FISHEYE_STARTS:
        matrix = np.array(
            [[start * width, 0, (width - 1) / 2], [0, start * width, (height - 1) / 2], [0, 0, 1]]
        )
        try:
            found = cv2.fisheye.calibrate(
                boards, corners, size, matrix, np.zeros((4, 1)), flags=_fisheye_flags()
            )
        except cv2.error as error:
            failure = error
            continue
        if best is None or found[0] < best[0]:
            best = found
        if best[0] < GOOD_START:
            break
    if best is None:
        raise failure
    return best


def _fisheye_flags() -> int:
    cv2 = import_cv2()
    names = ("CALIB_USE_INTRINSIC_GUESS", "CALIB_RECOMPUTE_EXTRINSIC", "CALIB_FIX_SKEW")
    # OpenCV 5 moved them out of cv2.fisheye, with other values.
    return sum(getattr(cv2.fisheye, name, None) or getattr(cv2, name) for name in names)


def _move_between(
    left_turn: np.ndarray, left_move: np.ndarray, right_turn: np.ndarray, right_move: np.ndarray
) -> np.ndarray:
    """Return the translation from the left to the right camera by their poses to one board."""
    cv2 = import_cv2()
    turn = cv2.Rodrigues(right_turn)[0] @ cv2.Rodrigues(left_turn)[0].T
    return (right_move.reshape(3, 1) - turn @ left_move.reshape(3, 1)).ravel()


def _camera(matrix: np.ndarray, coefficients: np.ndarray, lens: str) -> Camera:
    fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return Camera(fx, fy, cx, cy, tuple(float(number) for number in coefficients.ravel()), lens)


def _find_view(name: str, pictures: Sequence[np.ndarray], board: Board) -> BoardView | str:
    """Return the corners that both images show, or why there are none."""
    find = _find_chessboard if board.marker is None else _find_charuco
    found = []
    for picture, side in zip(pictures, ("left", "right"), strict=True):
        corners = find(picture, board)
        if not corners:
            return f"no board in the {side} image"
        found.append(corners)
    shared = sorted(found[0].keys() & found[1].keys())
    if len(shared) < FEWEST_CORNERS:
        return f"both images show only {len(shared)} corners"
    across = board.columns - (0 if board.marker is None else 1)
    places = np.array([[i % across, i // across, 0] for i in shared], np.float32) * board.square
    sides = [np.array([corners[i] for i in shared], np.float32) for corners in found]
    if _nearly_on_a_line(places[:, :2] / board.square):
        return "the corners that both images show lie on one line"
    along = [corners[-1] - corners[0] for corners in sides]
    if board.marker is None and np.dot(*along) < 0:
        sides[1] = sides[1][::-1]  # OpenCV began at the opposite corner
    return BoardView(name, places.astype(np.float32), *sides)


def _nearly_on_a_line(corners: np.ndarray) -> bool:
    """Return whether a line holds all of the (N, 2) corners, in squares, or all but one.

    OpenCV needs two corners beside it: with one it fails, or solves for nonsense. Such a line runs
    through two of any three corners.
    """
    for one, other in itertools.combinations(corners[:3], 2):
        along, away = other - one, corners - one
        beside = np.abs(along[0] * away[:, 1] - along[1] * away[:, 0]) > 0.5
        if np.count_nonzero(beside) < 2:
            return True
    return False


def _find_chessboard(picture: np.ndarray, board: Board) -> dict[int, Any]:
    cv2 = import_cv2()
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    size = (board.columns, board.rows)
    there, corners = cv2.findChessboardCorners(grey, size)
    if not there:
        flags = cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_ACCURACY
        there, corners = cv2.findChessboardCornersSB(grey, size, flags=flags)
        return dict(enumerate(corners.reshape(-1, 2))) if there else {}
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-3)
    corners = cv2.cornerSubPix(grey, corners, (5, 5), (-1, -1), stop)
    return dict(enumerate(corners.reshape(-1, 2)))


def _find_charuco(picture: np.ndarray, board: Board) -> dict[int, Any]:
    cv2 = import_cv2()
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    for before_opencv_4_6 in (False, True):  # where boards of an even number of rows differ
        pattern = charuco_board(board)
        pattern.setLegacyPattern(before_opencv_4_6)
        corners, numbers, *_ = cv2.aruco.CharucoDetector(pattern).detectBoard(grey)
        if numbers is not None:
            break
    else:
        return {}
    return dict(zip(numbers.ravel().tolist(), corners.reshape(-1, 2), strict=True))


def charuco_board(board: Board) -> Any:
    """Return OpenCV's ChArUco board.

    Raises:
        UsageError: an unknown dictionary, or a marker that is not smaller than its square.
    """
    cv2 = import_cv2()
    number = getattr(cv2.aruco, board.dictionary, None)
    if number is None or not board.dictionary.startswith("DICT_"):
        raise UsageError(f"unknown ChArUco dictionary '{board.dictionary}'; try DICT_5X5_100")
    if board.marker is None or not 0 < board.marker < board.square:
        raise UsageError(f"marker {board.marker}: must be smaller than the square {board.square}")
    dictionary = cv2.aruco.getPredefinedDictionary(number)
    return cv2.aruco.CharucoBoard(
        (board.columns, board.rows), board.square, board.marker, dictionary
    )
