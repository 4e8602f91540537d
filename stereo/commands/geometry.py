"""Commands about cameras and pairs: ``check-pair``, ``calibrate`` and ``rectify``."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from stereo.commands.command import Command, add_options, from_function
from stereo.errors import UsageError
from stereo.system.bundled import DEFAULT_MAX_DISPARITY


def _check_pair_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("left", help="left view")
    parser.add_argument("right", help="right view")
    parser.add_argument(
        "--max-disparity",
        type=int,
        default=DEFAULT_MAX_DISPARITY,
        help="the expected range is compared with it, pixels",
    )
    parser.add_argument(
        "--min-disparity", type=int, default=0, help="where the search starts, pixels"
    )


def _check_pair(config: Namespace) -> int:
    from stereo.data.io.videos import refuse_videos
    from stereo.geometry.check import check_pair
    from stereo.models.config import check_max_disparity, check_min_disparity
    from stereo.system.console import say, warn

    check_max_disparity(config.max_disparity)
    check_min_disparity(config.min_disparity)
    refuse_videos((Path(config.left), Path(config.right)))
    found = check_pair(
        config.left, config.right, config.max_disparity, min_disparity=config.min_disparity
    )
    for fault in found.faults:
        warn(f"stereo check-pair: fault: {fault}")
    for note in found.notes:
        say(note)
    if not found.faults:
        say("fit to match" if found.range else "no fault found, but not checked by features")
    return 1 if found.faults else 0


def _calibrate_arguments(parser: ArgumentParser) -> None:
    from stereo.geometry.cameras import calibrate_folder

    views = ("left", "right")
    add_options(parser, calibrate_folder, (*views, "output", "lens"), positional=views)
    parser.add_argument(
        "--board",
        required=True,
        help="COLUMNSxROWS: inner corners of a chessboard (9x6), squares of a ChArUco board",
    )
    parser.add_argument("--square", type=float, required=True, help="side of a square, metres")
    parser.add_argument("--marker", type=float, help="side of a ChArUco marker, metres")
    parser.add_argument(
        "--dictionary", default="DICT_5X5_100", help="OpenCV's name of the ChArUco markers"
    )


def _calibrate(config: Namespace) -> int:
    from stereo.geometry.calibrate import Board
    from stereo.geometry.cameras import calibrate_folder

    columns, _, rows = config.board.lower().partition("x")
    if not (columns.isdecimal() and rows.isdecimal()) or min(int(columns), int(rows)) < 3:
        raise UsageError(f"--board {config.board}: write COLUMNSxROWS, such as 9x6; at least 3x3")
    for name in ("square", "marker"):
        value = config[name]
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} {value:g}: expected a positive number of metres")
    board = Board(int(columns), int(rows), config.square, config.marker, config.dictionary)
    calibrate_folder(config.left, config.right, config.output, board, config.lens)
    return 0


COMMANDS = (
    Command(
        "check-pair",
        _check_pair_arguments,
        _check_pair,
        "check whether a pair can be matched, and say what to do if not",
        "stereo check-pair left.png right.png",
        reads_pictures=True,
    ),
    Command(
        "calibrate",
        _calibrate_arguments,
        _calibrate,
        "calibrate two cameras from images of a chessboard or ChArUco board",
        "stereo calibrate 'board/left*.jpg' 'board/right*.jpg' --board 9x6 --square 0.025 "
        "--output cameras.json",
        reads_pictures=True,
    ),
    from_function(
        "rectify",
        "stereo.geometry.cameras:rectify_pairs",
        "rectify raw pairs, given their calibration",
        "stereo rectify left.png right.png --calibration cameras.json --output rectified",
        positional=("left", "right"),
        status=lambda failed: 1 if failed else 0,
        reads_pictures=True,
    ),
)
