"""Lenses whose radial model turns back within the image, where nothing has a direction."""

import warnings

import numpy as np
import pytest
from PIL import Image

from stereo.errors import InputError
from stereo.geometry import Calibration, Camera
from stereo.geometry.rectify import plan_rectification

cv2 = pytest.importorskip("cv2")
SIZE = (320, 240)


def rig_of(camera):
    return Calibration(camera, camera, (-0.1, 0.0, 0.0), size=SIZE)


def turned(camera, angles):
    turn = cv2.Rodrigues(np.array(angles, np.float64))[0]
    rotation = tuple(tuple(row) for row in turn.tolist())
    return Calibration(camera, camera, (-0.1, 0.0, 0.0), rotation, SIZE)


def camera_of(fx, *distortion, lens="pinhole"):
    return Camera(fx, 1.1 * fx, 159.5, 119.5, distortion, lens)


@pytest.mark.parametrize(
    "distortion",
    [
        (-0.4, 0.0, 0.0, 0.0),
        (-0.3, -0.2, 0.001, 0.002, 0.01),
        (0.1, -0.2, 0, 0, 0.01, 0.3, 0.2, 0.1),
        (-0.1, 0.02, 0, 0, 0.3, 0.4, 0.2, 0.0, 0.01, 0.0, 0.0, 0.0),
    ],
)
def test_a_pinhole_turns_back_where_its_radius_is_largest(distortion):
    camera = camera_of(300, *distortion)
    tangents = np.linspace(0, 3, 30001)
    radial = [*distortion[:2], 0, 0, *distortion[4:8]]
    points = np.stack([tangents, 0 * tangents, 0 * tangents + 1], axis=1)
    seen = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.eye(3), np.array(radial))[0]
    radius = seen[:, 0, 0]
    folds = np.flatnonzero(np.diff(radius) < 0)
    tangent, pixels = camera.turning_point()
    if len(folds):
        assert tangent == pytest.approx(tangents[folds[0]], abs=2e-4)
        assert pixels == pytest.approx(300 * radius[: folds[0] + 1].max(), abs=0.01)
    else:
        assert (tangent, pixels) == (np.inf, np.inf)


@pytest.mark.parametrize(
    "camera",
    [camera_of(300), camera_of(300, 0.1, 0.05, 0, 0), camera_of(300, 0, 0, 0, 0, 0, -1, 0, 0)],
    ids=["none", "pincushion", "infinitely large before it turns"],
)
def test_other_lenses_never_turn_back(camera):
    assert camera.turning_point() == (np.inf, np.inf)
    assert camera.sees_all(SIZE, corners=True)


def test_the_reach_of_a_lens_is_measured_in_pixels_along_x():
    tall = Camera(300, 600, 159.5, 119.5, (-0.4, 0.0, 0.0, 0.0))  # half as many count down
    assert tall.turning_point()[1] == pytest.approx(182.6, abs=0.1)
    assert tall.sees_all(SIZE, corners=True)  # hypot(159.5, 59.75) is 170


def test_images_beyond_a_lens_model_are_refused():
    known = 0.6086  # where 1 + 3 k1 r^2 = 0 for k1 = -0.4, of the focal length
    for fx, keep_all, where in ((200, False, "sides"), (200, True, "corners"), (300, True, "corn")):
        rig = rig_of(camera_of(fx, -0.4, 0, 0, 0))
        told = rf"the left lens' model ends {known * fx:.0f} px .* board near the {where}"
        with pytest.raises(InputError, match=told):
            plan_rectification(rig, *SIZE, keep_all=keep_all)


def test_a_warning_of_little_kept_does_not_advise_what_will_be_refused(recwarn):
    plan_rectification(turned(camera_of(285, -0.4, 0, 0, 0), (0, 0, 0.5)), *SIZE)
    (told,) = [str(w.message) for w in recwarn]
    assert "shows only" in told
    assert "--keep-all" not in told
    assert "the left lens' model ends" in told


def test_what_a_lens_does_not_reach_is_black_not_shown_twice():
    camera = camera_of(330, -0.4, 0, 0, 0)
    plan = plan_rectification(turned(camera, (0, 0.2, 0)), *SIZE, keep_all=True)
    white = np.full((*SIZE[::-1], 1), 255, np.uint8)
    view, _ = plan.apply(white, white)
    new = plan.calibration
    matrix = np.array([[new.fx, 0, new.cx0], [0, new.fy, new.cy], [0, 0, 1]])
    rows, columns = np.indices(SIZE[::-1])
    pixels = np.stack([columns, rows, np.ones_like(rows)])
    x, y, z = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix @ plan.turns[0]), pixels)
    beyond = np.hypot(x, y) > camera.turning_point()[0] * z
    assert not view[beyond].any()
    lens = np.array(camera.distortion)
    maps = cv2.initUndistortRectifyMap(
        camera.matrix(), lens, plan.turns[0], matrix, SIZE, cv2.CV_32FC1
    )
    alone = cv2.remap(white, *maps, cv2.INTER_CUBIC)
    assert alone[beyond].mean() > 10
    assert np.array_equal(alone[~beyond], view[..., 0][~beyond])


@pytest.mark.parametrize(("keep_all", "failed"), [(False, 0), (True, 1)])
def test_rectify_names_the_pair_that_a_lens_does_not_reach(tmp_path, stereo, keep_all, failed):
    rig_of(camera_of(300, -0.4, 0, 0, 0)).write(tmp_path / "raw.json")
    for side in ("left", "right"):
        Image.new("L", SIZE, 90).save(tmp_path / f"{side}.png")
    call = ("rectify", tmp_path / "left.png", tmp_path / "right.png", "--output", tmp_path / "o")
    called = stereo(*call, "--calibration", tmp_path / "raw.json", *["--keep-all"] * keep_all)
    assert called.status == failed
    if failed:
        assert called.errors[-1].startswith(f"stereo rectify: error: {tmp_path / 'left.png'}: the")


def test_lenses_that_reach_the_corners_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan_rectification(rig_of(camera_of(400, -0.4, 0, 0, 0)), *SIZE)
