"""The commands ``calibrate`` and ``rectify``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from stereo.data.finding.pairs import PairFiles, find_pairs
from stereo.data.io.images import read_samples, to_8_bits
from stereo.data.io.videos import refuse_videos
from stereo.data.sets.sample import check_same_size
from stereo.errors import StereoError, UsageError
from stereo.geometry.calibrate import (
    GOOD_TILTS,
    Board,
    calibrate,
    charuco_board,
    coverage_picture,
)
from stereo.geometry.calibration import Calibration
from stereo.geometry.check import check_pair
from stereo.geometry.parameters import LIKELY_METRES
from stereo.geometry.rectify import Rectification, plan_rectification, with_lines
from stereo.system import console
from stereo.system.files import output_folder, refuse_overwriting, staged, writes_alone
from stereo.system.opencv import import_cv2

GOOD_RMS = 0.5  # pixels
CALIBRATION_FILE = "calibration.json"
ANY_RANGE = 192  # pixels; no fault depends on it
Lens = Literal["pinhole", "fisheye"]


def calibrate_folder(
    left: str, right: str, output: str | Path, board: Board, lens: Lens = "pinhole"
) -> Calibration:
    """Calibrate two cameras from images of a board; write the calibration and its coverage.

    Args:
        left: left views: a file, a folder or a quoted glob.
        right: right views: the same kind of thing, matched by name.
        output: the .json file; NAME_coverage.png beside it.
        board: what the images show.
        lens: of both cameras; fisheye for the model of cv2.fisheye.

    Raises:
        InputError: too few pairs that show the board, images of several sizes, or an output that
            would replace an input.
        OutputError: the files cannot be written.
    """
    path = Path(output)
    if path.is_dir():
        raise UsageError(f"--output {path}: is a folder; name the .json file to write")
    output_folder(path.parent)
    if board.marker is not None:
        charuco_board(board)  # an unknown one is an error before any image is read
    pairs = find_pairs(left, right)
    refuse_videos(file for pair in pairs for file in pair.files())
    targets = (path, path.with_name(f"{path.stem}_coverage.png"))
    refuse_overwriting((file for pair in pairs for file in pair.files()), targets)
    found = calibrate(pairs, board, lens)
    for name, reason in found.left_out.items():
        console.warn(f"warning: {name} is left out: {reason}")
    rows = [[name, error] for name, error in sorted(found.errors.items(), key=lambda row: -row[1])]
    console.say(console.table(["pair", "error, px"], rows))
    own = found.calibration
    assert own.size is not None
    with staged(*targets) as (data, picture):
        own.write(data)
        Image.fromarray(coverage_picture(found.views, own.size)).save(picture)
    console.say(
        f"{len(found.views)} of {len(pairs)} pairs, error {found.rms:.3f} px (RMS), "
        f"focal lengths {own.left.fx:.1f} and {own.right.fx:.1f} px, "
        f"baseline {1000 * own.baseline:.2f} mm"
    )
    if found.tilts < GOOD_TILTS:
        console.warn(
            f"warning: the board's tilts are within {found.tilts:.1f} degrees, by which the focal "
            "length can be a few percent off: tilt it by 20 to 40 degrees, to every side"
        )
    for side, camera in (("left", own.left), ("right", own.right)):
        corners = lens == "pinhole"  # a fisheye's are often dark
        if not camera.sees_all(own.size, corners=corners):
            console.warn(
                f"warning: the {side} lens is known only up to {camera.turning_point()[1]:.0f} px "
                f"from its centre, not to the {'corners' if corners else 'sides'} of the image: "
                "add pairs with the board there"
            )
    if own.baseline > LIKELY_METRES:
        console.warn(f"warning: a baseline of {own.baseline:g} m is long: is --square in metres?")
    if found.rms > GOOD_RMS:
        console.warn(
            f"warning: an error of {found.rms:.2f} px is large: use sharper images or a flatter "
            "board, or check --board"
        )
    console.say(f"{path} is written; next: stereo rectify LEFT RIGHT --calibration {path}")
    return own


@writes_alone
def rectify_pairs(
    left: str,
    right: str,
    output: str | Path,
    calibration: str | Path,
    *,
    keep_all: bool = False,
    lens: Lens | None = None,
) -> int:
    """Rectify pairs and write them with their calibration and an image with lines.

    16-bit images stay so.

    Args:
        left: left views: a file, a folder or a quoted glob.
        right: right views: the same kind of thing, matched by name.
        output: folder for NAME_left.png, NAME_right.png, NAME_lines.png and calibration.json.
        calibration: of the raw pair, of any known kind.
        keep_all: keep all raw pixels, with black around them; of a fisheye's within 135 degrees.
        lens: where the calibration does not say (OpenCV's).

    Returns:
        The number of pairs that failed; they are named and left out.

    Raises:
        InputError: files without partners, a calibration that cannot be used, or an output that
            would replace an input.
        OutputError: the output folder cannot be written.
        UsageError: a folder with other pairs, of another calibration.
    """
    raw = Calibration.read(calibration, raw=True, lens=lens, pictures=left)
    if raw.is_rectified:
        console.warn(
            f"warning: {calibration}: is of a rectified pair, by which nothing is turned; give the "
            "calibration of the raw pair"
        )
    pairs = find_pairs(left, right)
    refuse_videos(file for pair in pairs for file in pair.files())
    folder = Path(output)
    targets = [target for pair in pairs for target in _targets(folder, pair.name)]
    inputs = [Path(calibration), *(file for pair in pairs for file in pair.files())]
    refuse_overwriting(inputs, [folder / CALIBRATION_FILE, *targets])
    output_folder(folder, alone=True)
    kept = _calibration_of_others(folder, targets)
    plans: dict[tuple[int, ...], Rectification] = {}
    done = failed = 0
    for pair in console.progress(pairs, "rectify", len(pairs)):
        try:
            views = _read_samples(pair)
            size = views[0].shape[1], views[0].shape[0]
            if size not in plans:
                plan = plan_rectification(raw, *size, keep_all=keep_all)
                if kept not in (None, plan.calibration):
                    raise UsageError(
                        f"{folder}: holds other pairs, of another {CALIBRATION_FILE}: name another "
                        "--output"
                    )
                plan.write(folder / CALIBRATION_FILE)
                if plans:
                    console.warn(
                        f"warning: images of several sizes; {CALIBRATION_FILE} is now of "
                        f"{size[0]}x{size[1]}"
                    )
                plans[size] = plan
            rectified = plans[size].apply(*views)
            if not done:
                _warn_of_faults(pair.name, *rectified)
            _write(folder, pair.name, *rectified)
        except UsageError:
            raise
        except StereoError as error:
            named = "" if str(pair.left) in str(error) else f"{pair.left}: "
            console.warn(f"stereo rectify: error: {named}{error}")
            failed += 1
            continue
        console.say(f"{pair.name}: {size[0]}x{size[1]}")
        done += 1
    with_it = " with their calibration" if done else ""
    console.say(f"{done} of {len(pairs)} pairs are in {folder}{with_it}")
    return failed


def _warn_of_faults(name: str, left: np.ndarray, right: np.ndarray) -> None:
    """Warn if a rectified pair does not fit: swapped views, a calibration of other cameras."""
    found = check_pair(left, right, ANY_RANGE, quick=True)
    for fault in (each for each in found.faults if not each.startswith(("blank", "small"))):
        what = fault.partition("; rectify the pair")[0]
        console.warn(
            f"warning: {name}, rectified: {what}; is the calibration of these cameras, in this "
            "order?"
        )


def _calibration_of_others(folder: Path, targets: Sequence[Path]) -> Calibration | None:
    """Return the calibration of pairs that a folder holds beside the ones to write, if any."""
    path = folder / CALIBRATION_FILE
    if not path.exists() or set(folder.glob("*_lines.png")) <= set(targets):
        return None
    return Calibration.read(path)


def _targets(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}_{end}.png" for end in ("left", "right", "lines")]


def _read_samples(pair: PairFiles) -> tuple[np.ndarray, np.ndarray]:
    """Return both views at their stored depth, (H, W, 1) or (H, W, 3), uint8 or uint16 each."""
    left, right = read_samples(pair.left), read_samples(pair.right)
    check_same_size(left[..., :1], right[..., :1], str(pair.left), str(pair.right))
    return left, right


def _write(folder: Path, name: str, left: np.ndarray, right: np.ndarray) -> None:
    lines = with_lines(*to_8_bits([left, right]))
    with staged(*_targets(folder, name)) as paths:
        for path, picture in zip(paths, (left, right, lines), strict=True):
            _, png = import_cv2().imencode(".png", picture[..., ::-1])
            path.write_bytes(png)
