"""What a result shows of itself: an image in a notebook, one line elsewhere."""

import io

import numpy as np
import pytest
from PIL import Image

import stereo
from stereo.data.io import colors
from stereo.errors import InputError
from stereo.geometry import Calibration, Camera
from stereo.system.bundled import samples_root

SCENE = samples_root() / "FlyingThings3D/frames_cleanpass/TEST/A/0000"


@pytest.fixture(scope="module")
def result():
    return stereo.load("sgbm", max_disparity=96)(SCENE / "left/0006.png", SCENE / "right/0006.png")


def camera(size=None, cx1=224.0):
    return Calibration.rectified(fx=448, cx0=224, cx1=cx1, cy=92, baseline=0.1, size=size)


def made_by_hand(height, width):
    ramp = np.linspace(0, 60, width, dtype=np.float32)[None].repeat(height, axis=0)
    return stereo.Result(ramp, 0.1, image=np.zeros((height, width, 3), np.uint8))


def test_a_notebook_shows_the_left_view_beside_the_map_in_the_colours_of_the_files(result):
    picture = np.asarray(Image.open(io.BytesIO(result._repr_png_())))
    height, width = result.disparity.shape
    left = np.asarray(Image.open(SCENE / "left/0006.png").convert("RGB"))
    assert np.array_equal(picture[:height, :width], left)
    limit = colors.disparity_limit(result.disparity)
    shown = colors.disparity_picture(result.disparity, limit)
    assert np.array_equal(picture[:, -width:], shown)


def test_the_map_of_the_right_view_is_shown_beside_the_right_view():
    matcher = stereo.load("sgbm", max_disparity=96)
    result = matcher(SCENE / "left/0006.png", SCENE / "right/0006.png", view="right")
    right = np.asarray(Image.open(SCENE / "right/0006.png").convert("RGB"))
    assert np.array_equal(np.asarray(result.picture())[:256, :448], right)


def test_what_lies_behind_infinity_has_colours_of_its_own():
    ramp = np.linspace(-30, 60, 640, dtype=np.float32)[None].repeat(320, axis=0)
    picture = np.asarray(stereo.Result(ramp, 0.1).picture())
    low, limit = colors.disparity_scale(ramp)
    assert np.array_equal(picture, colors.disparity_picture(ramp, limit, low=low))


def test_repr_is_one_short_line_with_size_and_range():
    assert repr(made_by_hand(4, 7)) == "<Result 7x4, disparity 0.0 to 60.0 px, 0.10 s>"


def test_a_calibration_adds_metres_below_the_pixels(result, tmp_path):
    camera((448, 256)).write(tmp_path / "calib.json")
    plain, in_metres = (np.asarray(result.picture(c)) for c in (None, tmp_path / "calib.json"))
    assert in_metres.shape[0] > plain.shape[0]
    assert np.array_equal(in_metres[: len(plain) - 12], plain[:-12])
    assert (in_metres[len(plain) :] < 128).any()


def test_the_scale_names_the_depth_of_each_of_its_disparities(monkeypatch):
    written = []
    draw = colors.ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        colors.ImageDraw.ImageDraw,
        "text",
        lambda self, at, text, **options: (written.append(text), draw(self, at, text, **options)),
    )
    result = made_by_hand(100, 640)
    result.picture(camera((640, 100)))
    assert written[1::2] == ["far", "2.8", "1.4", "0.933", "0.7 m"]  # 44.8 / 16, 32, 48, 64
    assert written[0::2] == ["0", "16", "32", "48", "64 px"]
    written.clear()
    result.picture(camera((640, 100), cx1=240.0))
    assert written[1] == "2.8"  # 44.8 / (0 + 16): with doffs, 0 is not infinitely far


def test_the_scale_is_not_judged_as_a_map_is(recwarn):
    """Its smallest disparities may lie behind infinity, and its size is no image's."""
    calibration = Calibration.rectified(
        fx=448, cx0=224, cx1=144, cy=92, baseline=0.1, size=(1280, 256)
    )
    stereo.Result(np.full((256, 1280), 95, np.float32), 0.1).picture(calibration)
    assert not recwarn.list


def test_the_scale_is_in_pixels_of_the_map_and_not_of_the_shown_image():
    small, large = made_by_hand(40, 64).picture(), made_by_hand(2000, 3200).picture()
    assert np.array_equal(np.asarray(small)[321:], np.asarray(large)[321:])


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (900, 3), (96, 192), (2000, 3000)])
def test_images_of_any_size_are_shown_at_most_a_few_hundred_pixels_high(size):
    picture = made_by_hand(*size).picture()
    assert picture.height <= 400
    assert picture.width <= 1286


def test_a_result_made_by_hand_is_shown_as_its_map_alone():
    result = stereo.Result(np.full((320, 400), 5, np.float32), 0.1)
    assert result.picture().width == 400
    assert result._repr_png_().startswith(b"\x89PNG")


def test_the_calibration_of_a_raw_pair_or_of_another_shape_is_one_clear_error(result):
    cameras = Camera(448, 448, 224, 92, (0.1, 0, 0, 0)), Camera(448, 448, 224, 92)
    with pytest.raises(InputError, match="stereo rectify"):
        result.picture(Calibration(*cameras, (-0.1, 0.0, 0.0)))
    with pytest.raises(InputError, match="a crop or other cameras"):
        result.picture(camera((448, 448)))
