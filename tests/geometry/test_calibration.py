"""Calibrations: every kind of file, units, depth."""

import dataclasses
import json
import re
import time
import warnings

import numpy as np
import pytest
from conftest import REPOSITORY, shared

import stereo
from stereo.errors import InputError, UsageError
from stereo.geometry import Calibration, Camera

MIDDLEBURY = """cam0=[3997.684 0 1176.728; 0 3997.684 1011.728; 0 0 1]
cam1=[3997.684 0 1307.839; 0 3997.684 1011.728; 0 0 1]
doffs=131.111
baseline=193.001
width=2964
height=1988
ndisp=280
"""
ETH3D = """cam0=[541.764 0 553.869; 0 541.764 232.396; 0 0 1]
cam1=[541.764 0 553.869; 0 541.764 232.396; 0 0 1]
doffs=0
baseline=59.9076
width=942
height=489
ndisp=64
"""
KITTI = """P0: 7.215377e+02 0 6.095593e+02 0 0 7.215377e+02 1.728540e+02 0 0 0 1 0
P1: 7.215377e+02 0 6.095593e+02 -3.875744e+02 0 7.215377e+02 1.728540e+02 0 0 0 1 0
P2: 7.215377e+02 0 6.095593e+02 44.857280 0 7.215377e+02 1.728540e+02 0.2163791 0 0 1 2.745884e-03
P3: 7.215377e+02 0 6.095593e+02 -339.52420 0 7.215377e+02 1.728540e+02 2.199936 0 0 1 2.729905e-03
"""
KITTI_RAW = "calib_time: 09-Jan-2012 13:57:47\n" + "".join(
    f"S_rect_0{line[1]}: 1.242000e+03 3.750000e+02\nP_rect_0{line[1:]}\n"
    for line in KITTI.splitlines()[2:]
)
K_TXT = """754.66 0.0 489.37 0.0 754.66 265.16 0.0 0.0 1.0
0.063
"""
SCENE_FLOW = """Frame 6
L 1.0 0.0 0.0 2.0 0.0 1.0 0.0 0.5 0.0 0.0 1.0 -3.0 0.0 0.0 0.0 1.0
R 1.0 0.0 0.0 3.0 0.0 1.0 0.0 0.5 0.0 0.0 1.0 -3.0 0.0 0.0 0.0 1.0

Frame 7
L 1.0 0.0 0.0 9.0 0.0 1.0 0.0 0.5 0.0 0.0 1.0 -3.0 0.0 0.0 0.0 1.0
R 1.0 0.0 0.0 10.0 0.0 1.0 0.0 0.5 0.0 0.0 1.0 -3.0 0.0 0.0 0.0 1.0
"""
ROS = """image_width: 640
image_height: 480
camera_name: narrow_stereo/{side}
camera_matrix:
  rows: 3
  cols: 3
  data: [438.78, 0, 305.59, 0, 437.35, 243.74, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.36, 0.11, 0.001, 0.0005, 0]
rectification_matrix:
  rows: 3
  cols: 3
  data: [0.99998, -0.0040, -0.0047, 0.0040, 0.99998, 0.0049, 0.0047, -0.0049, 0.99998]
projection_matrix:
  rows: 3
  cols: 4
  data: [393.66, 0, 322.98, {shift}, 0, 393.66, 241.09, 0, 0, 0, 1, 0]
"""
KALIBR = """cam0:
  camera_model: pinhole
  distortion_coeffs: [-0.28, 0.07, 0.0002, 1.7e-05]
  distortion_model: radtan
  intrinsics: [458.65, 457.29, 367.21, 248.37]
  resolution: [752, 480]
  rostopic: /cam0/image_raw
cam1:
  T_cn_cnm1:
  - [0.9999972, 0.0023121, 0.0003760, -0.1100738]
  - [-0.0023171, 0.9998980, 0.0140898, 0.0003991]
  - [-0.0003434, -0.0140906, 0.9999006, -0.0008537]
  - [0.0, 0.0, 0.0, 1.0]
  camera_model: pinhole
  distortion_coeffs: [-0.28, 0.07, -0.0001, -3.0e-05]
  distortion_model: radtan
  intrinsics: [457.58, 456.13, 379.99, 255.23]
  resolution: [752, 480]
  rostopic: /cam1/image_raw
"""
OPENCV = """%YAML:1.0
---
{fields}"""


def opencv_yaml(**matrices):
    fields = ""
    for name, value in matrices.items():
        value = np.atleast_2d(np.asarray(value, float))
        numbers = ", ".join(repr(float(n)) for n in value.ravel())
        fields += f"{name}: !!opencv-matrix\n   rows: {value.shape[0]}\n   cols: {value.shape[1]}\n"
        fields += f"   dt: d\n   data: [ {numbers} ]\n"
    return OPENCV.format(fields=fields)


def kept(tmp_path, text, name="calib.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "fx", "cx0", "doffs", "baseline", "size"),
    [
        (MIDDLEBURY, 3997.684, 1176.728, 131.111, 0.193001, (2964, 1988)),
        (ETH3D, 541.764, 553.869, 0, 0.0599076, (942, 489)),
        (KITTI, 721.5377, 609.5593, 0, 0.532725, None),
        (KITTI_RAW, 721.5377, 609.5593, 0, 0.532725, (1242, 375)),
        (K_TXT, 754.66, 489.37, 0, 0.063, None),
        (SCENE_FLOW, 1050, 479.5, 0, 1.0, (960, 540)),
    ],
)
def test_text_formats_are_detected_by_content(tmp_path, text, fx, cx0, doffs, baseline, size):
    read = Calibration.read(kept(tmp_path, text, "anything.dat"))
    assert read.is_rectified
    assert (read.fx, read.cx0, read.size) == (fx, cx0, size)
    assert read.doffs == pytest.approx(doffs, abs=1e-3)
    assert read.baseline == pytest.approx(baseline, rel=1e-4)


def test_the_doffs_of_a_calib_txt_counts_where_its_matrices_are_rounded(tmp_path):
    near, far = (MIDDLEBURY.replace("doffs=131.111", f"doffs={d}") for d in (130.611, 128.611))
    assert Calibration.read(kept(tmp_path, near)).doffs == pytest.approx(130.611)
    with pytest.raises(InputError, match=r"doffs is 128.611, but cx1 - cx0 is 131.111 px"):
        Calibration.read(kept(tmp_path, far))


def test_grey_cameras_are_used_if_a_kitti_file_has_no_others(tmp_path):
    text = "\n".join(KITTI.splitlines()[:2])
    assert Calibration.read(kept(tmp_path, text)).baseline == pytest.approx(0.53715, rel=1e-4)


def test_scene_flow_with_the_short_lens(tmp_path):
    folder = tmp_path / "15mm_focallength" / "scene_backwards"
    folder.mkdir(parents=True)
    with pytest.warns(UserWarning, match="450 px is taken, since it lies in a folder '15mm"):
        assert Calibration.read(kept(folder, SCENE_FLOW, "camera_data.txt")).fx == 450
    with pytest.warns(UserWarning, match="1050 px is taken, since no folder is named '15mm"):
        assert Calibration.read(kept(tmp_path, SCENE_FLOW, "camera_data.txt")).fx == 1050


@pytest.mark.filterwarnings("ignore:.*holds no focal length")
def test_scene_flow_views_must_stand_side_by_side_in_order(tmp_path):
    # Both cameras look along the world's x axis, so that right is along -y.
    pose = "{} 0 0 -1 0 -1 0 0 {} 0 1 0 0 0 0 0 1"
    text = f"Frame 1\n{pose.format('L', 5)}\n{pose.format('R', 4.5)}\n"
    assert Calibration.read(kept(tmp_path, text)).baseline == 0.5
    swapped = text.replace("L ", "x ").replace("R ", "L ").replace("x ", "R ")
    with pytest.raises(InputError, match=r"baseline is negative .*cameras are swapped"):
        Calibration.read(kept(tmp_path, swapped))
    above = "Frame 1\nL 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\nR 1 0 0 0 0 1 0 1 0 0 1 0 0 0 0 1\n"
    with pytest.raises(InputError, match="not a rectified pair"):
        Calibration.read(kept(tmp_path, above))


def test_ros_files_find_each_other(tmp_path):
    left = kept(tmp_path, ROS.format(side="left", shift="0"), "left.yaml")
    right = kept(tmp_path, ROS.format(side="right", shift="-35.4294"), "right.yaml")
    for path in (left, right):
        read = Calibration.read(path)
        assert read.is_rectified
        assert read.baseline == pytest.approx(0.09, rel=1e-4)
        assert (read.fx, read.cx0, read.size) == (393.66, 322.98, (640, 480))
    raw = Calibration.read(left, raw=True)
    assert not raw.is_rectified
    assert raw.left == Camera(438.78, 437.35, 305.59, 243.74, (-0.36, 0.11, 0.001, 0.0005, 0))
    assert raw.baseline == pytest.approx(0.09, rel=1e-3)
    right.unlink()
    with pytest.raises(InputError, match="holds one camera"):
        Calibration.read(left)


def test_ros_messages_use_other_names(tmp_path):
    for side, shift in (("left", 0), ("right", -35.4294)):
        message = {
            "height": 480,
            "width": 640,
            "distortion_model": "plumb_bob",
            "D": [0, 0, 0, 0, 0],
            "K": [400, 0, 320, 0, 400, 240, 0, 0, 1],
            "R": [1, 0, 0, 0, 1, 0, 0, 0, 1],
            "P": [393.66, 0, 322.98, shift, 0, 393.66, 241.09, 0, 0, 0, 1, 0],
        }
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in message.items())
        kept(tmp_path, text, f"{side}_info.yaml")
    assert Calibration.read(tmp_path / "left_info.yaml").baseline == pytest.approx(0.09, rel=1e-4)


def ros_files(folder, *, right=("", ""), form=lambda text: text):
    """Write both files, the right one with a change."""
    left = kept(folder, form(ROS.format(side="left", shift="0")), "left.yaml")
    kept(folder, form(ROS.format(side="right", shift="-35.4294").replace(*right)), "right.yaml")
    return left


@pytest.mark.parametrize(
    ("right", "message"),
    [
        (("393.66, 241.09", "393.66, 251.09"), "cy is 241.09 px in the left camera and 251.09"),
        (("0, 393.66, 241.09", "0, 493.66, 241.09"), "along y are 393.66 and 493.66"),
        (("image_width: 640", "image_width: 320"), "640x480, the right one's 320x480"),
        (("[393.66, 0, 322.98", "[0, 0, 322.98"), "right focal length is 0"),
    ],
)
def test_rectified_cameras_must_agree(tmp_path, right, message):
    left = ros_files(tmp_path, right=right)
    with pytest.raises(InputError, match=message) as caught:
        Calibration.read(left)
    assert str(caught.value).startswith(str(left))


def test_kitti_and_kalibr_cameras_have_one_size(tmp_path):
    text = KITTI_RAW.replace("S_rect_03: 1.242000e+03", "S_rect_03: 1.241000e+03")
    with pytest.raises(InputError, match="1242x375, the right one's 1241x375"):
        Calibration.read(kept(tmp_path, text))
    first, _, second = KALIBR.rpartition("[752, 480]")
    with pytest.raises(InputError, match="752x480, the right one's 752x400"):
        Calibration.read(kept(tmp_path, f"{first}[752, 400]{second}"))


MESSAGE = """header:
  seq: 0
  stamp:
    secs: 1963
  frame_id: "camera"
height: 480
width: 640
distortion_model: "plumb_bob"
{names[0]}: [0.0, 0.0, 0.0, 0.0, 0.0]
{names[1]}: [400.0, 0.0, 320.0, 0.0, 400.0, 240.0, 0.0, 0.0, 1.0]
{names[2]}: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
{names[3]}: [393.66, 0.0, 322.98, {shift}, 0.0, 393.66, 241.09, 0.0, 0.0, 0.0, 1.0, 0.0]
binning_x: 0
roi:
  do_rectify: False
"""


@pytest.mark.parametrize("names", ["DKRP", "dkrp"])
@pytest.mark.parametrize("form", ["{}", "{}---\n", "---\n{}---\n{}---\n"])
def test_printed_ros_messages_are_read(tmp_path, names, form):
    for side, shift in (("left", 0.0), ("right", -35.4294)):
        text = MESSAGE.format(names=names, shift=shift)
        kept(tmp_path, form.format(text, text), f"{side}.yaml")
    read = Calibration.read(tmp_path / "right.yaml")
    assert (read.fx, read.size) == (393.66, (640, 480))
    assert read.baseline == pytest.approx(0.09, rel=1e-4)


def test_ros_2_prints_lists_line_by_line(tmp_path):
    import yaml

    for side, shift in (("left", 0.0), ("right", -35.4294)):
        loaded = yaml.safe_load(MESSAGE.format(names="dkrp", shift=shift))
        text = yaml.safe_dump(loaded, default_flow_style=False, sort_keys=False)
        assert "\np:\n- 393.66\n" in text
        kept(tmp_path, f"{text}---\n", f"{side}.yaml")
    assert Calibration.read(tmp_path / "left.yaml").baseline == pytest.approx(0.09, rel=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "754.66, 0.0, 489.37, 0.0, 754.66, 265.16, 0.0, 0.0, 1.0\n0.063\n",
        "[[754.66, 0, 489.37], [0, 754.66, 265.16], [0, 0, 1]]\n0.063\n",
        "754.66;0;489.37\n0;754.66;265.16\n0;0;1\n0.063\n",
    ],
)
def test_k_txt_with_other_separators(tmp_path, text):
    read = Calibration.read(kept(tmp_path, text))
    assert (read.fx, read.cy, read.baseline) == (754.66, 265.16, 0.063)


def test_sizes_may_be_written_as_floats(tmp_path):
    text = MIDDLEBURY.replace("width=2964", "width=2964.0").replace("1988", "1.988e3")
    assert Calibration.read(kept(tmp_path, text)).size == (2964, 1988)


def test_kalibr(tmp_path):
    read = Calibration.read(kept(tmp_path, KALIBR, "camchain.yaml"))
    assert not read.is_rectified
    assert read.baseline == pytest.approx(0.110078, rel=1e-4)
    assert read.right == Camera(457.58, 456.13, 379.99, 255.23, (-0.28, 0.07, -0.0001, -3e-05))
    assert read.size == (752, 480)
    for change in (("radtan", "fov"), ("model: pinhole", "model: omni")):
        with pytest.raises(InputError, match="radtan"):
            Calibration.read(kept(tmp_path, KALIBR.replace(*change), "camchain.yaml"))


def test_opencv_in_one_file_and_in_two(tmp_path):
    matrix = [[500, 0, 320], [0, 510, 240], [0, 0, 1]]
    lenses = {"M1": matrix, "D1": [-0.2, 0.1, 0, 0, 0], "M2": matrix, "D2": [0, 0, 0, 0, 0]}
    pose = {"R": np.eye(3), "T": [[-0.1], [0.001], [0]]}
    one = Calibration.read(kept(tmp_path, opencv_yaml(**lenses, **pose), "stereo.yml"))
    kept(tmp_path, opencv_yaml(**lenses), "intrinsics.yml")
    kept(tmp_path, opencv_yaml(**pose), "extrinsics.yml")
    for name in ("intrinsics.yml", "extrinsics.yml"):
        assert Calibration.read(tmp_path / name) == one
    assert one.left == Camera(500, 510, 320, 240, (-0.2, 0.1, 0, 0, 0))
    projections = {
        "P1": [[450, 0, 300, 0], [0, 450, 230, 0], [0, 0, 1, 0]],
        "P2": [[450, 0, 310, -45], [0, 450, 230, 0], [0, 0, 1, 0]],
    }
    both = kept(tmp_path, opencv_yaml(**lenses, **pose, **projections), "all.yml")
    assert Calibration.read(both, raw=True) == one
    rectified = Calibration.read(both)
    assert (rectified.fx, rectified.doffs) == (450, 10)
    assert rectified.baseline == pytest.approx(0.1)
    with pytest.raises(InputError, match=r"M1 or K1 or cameraMatrix1"):
        Calibration.read(kept(tmp_path, opencv_yaml(**pose), "alone.yml"))


@pytest.mark.parametrize("zero_disparity", [False, True])
def test_opencv_reprojection_matrix_alone(tmp_path, zero_disparity):
    cv2 = pytest.importorskip("cv2")
    matrices = [
        np.array([[f, 0, x], [0, f, 240], [0, 0, 1.0]]) for f, x in ((500, 320), (520, 350))
    ]
    turn, move = (
        cv2.Rodrigues(np.array([0.01, 0.03, 0.005]))[0],
        np.array([[-0.2], [0.004], [0.01]]),
    )
    flags = cv2.CALIB_ZERO_DISPARITY if zero_disparity else 0
    _, _, one, other, q, *_ = cv2.stereoRectify(
        matrices[0], None, matrices[1], None, (640, 480), turn, move, flags=flags
    )
    own = []
    for names in ({"Q": q}, {"P1": one, "P2": other}):
        path = tmp_path / "stereo.yml"
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
        for name, values in names.items():
            storage.write(name, values)
        storage.release()
        path.write_text(path.read_text().replace("%YAML:1.0", "%YAML 1.2"))  # as OpenCV 5 writes
        own.append(Calibration.read(path))
    for name in ("fx", "baseline", "doffs"):
        assert getattr(own[0], name) == pytest.approx(getattr(own[1], name), abs=1e-9)
    assert own[0].left.cx == pytest.approx(own[1].left.cx)
    assert own[0].left.cy == pytest.approx(own[1].left.cy)
    assert zero_disparity == (abs(own[0].doffs) < 1e-9)


def test_points_beyond_the_end_of_a_default_range_are_warned_of():
    calibration = Calibration.rectified(fx=300, cx0=150, cx1=165, cy=100, baseline=0.12)
    far = np.full((20, 30), 0.4, np.float32)
    far[:5] = 20
    with pytest.warns(UserWarning, match=r"75% of the disparities are about 0.*-15 px.*2\.4 m"):
        calibration.depth(far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibration.depth(far - 14)  # searched from below 0
        calibration.depth(far + 3)
        dataclasses.replace(calibration, right=calibration.left).depth(far)


def test_opencv_reprojection_matrices_that_cannot_be_are_named(tmp_path):
    path = tmp_path / "q.json"
    for last, said in ((0, "no baseline"), (-5, "swapped")):
        rows = [[1, 0, 0, -300], [0, 1, 0, -200], [0, 0, 0, 500], [0, 0, last, 0]]
        flipped = [rows[0], [0, -1, 0, 200], *rows[2:]]
        path.write_text(json.dumps({"Q": flipped}))
        with pytest.raises(InputError, match=r"its Q is not of cv2\.stereoRectify"):
            Calibration.read(path)
        path.write_text(json.dumps({"Q": rows}))
        with pytest.raises(InputError, match=said):
            Calibration.read(path)


def test_opencv_xml(tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "stereo.xml"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    matrix = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    for name in ("cameraMatrix1", "cameraMatrix2"):
        storage.write(name, matrix)
    storage.write("R", np.eye(3))
    storage.write("T", np.array([[-0.2], [0], [0]]))
    storage.release()
    assert Calibration.read(path).baseline == pytest.approx(0.2)
    path.write_text(path.read_text()[:200])
    with pytest.raises(InputError, match="OpenCV"):
        Calibration.read(path)


def test_our_format_round_trips(tmp_path):
    left = Camera(500.5, 501, 320, 240, (-0.1, 0.01, 0.0, 0.0))
    turn = ((1.0, 0.0, 0.0), (0.0, 0.8, -0.6), (0.0, 0.6, 0.8))
    own = Calibration(left, Camera(499, 500, 321, 239), (-0.12, 0.001, 0.0), turn, (640, 480))
    own.write(tmp_path / "own.json")
    assert Calibration.read(tmp_path / "own.json") == own


FILES = {
    "middlebury": MIDDLEBURY,
    "eth3d": ETH3D,
    "kitti": KITTI,
    "k_txt": K_TXT,
    "scene_flow": SCENE_FLOW,
    "kalibr": KALIBR,
    "opencv": opencv_yaml(M1=np.eye(3), M2=np.eye(3), R=np.eye(3), T=[[-1], [0], [0]]),
    "ours": json.dumps(Calibration.rectified(fx=500, cx0=1, cy=2, baseline=0.1).to_dict()),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.3, 0.4, 0.65, 0.75])
def test_a_truncated_file_is_one_line(tmp_path, kind, share):
    text = FILES[kind].split("\nFrame 7")[0]
    path = kept(tmp_path, text[: int(share * len(text))])
    with pytest.raises(InputError) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Calibration.read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message


@pytest.mark.parametrize("text", [MIDDLEBURY, ETH3D])
def test_a_truncated_calib_txt_never_silently_gives_other_numbers(tmp_path, text):
    """Whole where it is read without a word; else an error, or a warning and the same metres."""
    whole = Calibration.read(kept(tmp_path, text))
    outcomes = set()
    for length in range(len(text)):
        path = kept(tmp_path, text[:length])
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                read = Calibration.read(path)
            except InputError as error:
                assert str(error).startswith(str(path)), text[:length]
                outcomes.add("refused")
                continue
        assert (read.fx, read.doffs, read.baseline) == (whole.fx, whole.doffs, whole.baseline)
        if told:
            assert read.size is None
            assert ["has no 'width' and 'height'" in str(each.message) for each in told] == [True]
            outcomes.add("warned")
        else:
            assert read == whole
            outcomes.add("whole")
    assert outcomes == {"refused", "warned", "whole"}


@pytest.mark.parametrize(
    ("cut", "end"), [("\nwidth", "baseline=193.001"), ("88\nndisp", "height=19")]
)
def test_a_number_that_may_lack_digits_is_refused_with_the_remedy(tmp_path, cut, end):
    path = kept(tmp_path, MIDDLEBURY.partition(cut)[0])
    with pytest.raises(InputError, match=f"ends with '{end}' and no newline"):
        Calibration.read(path)


def test_real_calib_txts_need_no_newline_at_their_end(tmp_path):
    for name in ("mid2014/MotorcycleQ", "eth3d/playground"):
        text = (shared("real") / name / "calib.txt").read_text()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            whole = Calibration.read(kept(tmp_path, text))
            assert Calibration.read(kept(tmp_path, text.rstrip("\n"))) == whole


def test_a_k_txt_that_may_lack_digits_triggers_a_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"ends without a newline: .* baseline of 0.06 m is cut"):
        Calibration.read(kept(tmp_path, K_TXT[:-2]))


def test_files_that_are_not_calibrations_are_refused(tmp_path):
    for name, data in (("a.png", b"\x89PNG\r\n\xff\xfe"), ("b.txt", b"hello"), ("c.json", b"[1]")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="no calibration"):
            Calibration.read(tmp_path / name)
    (tmp_path / "d.txt").write_bytes(b"\n")
    with pytest.raises(InputError, match=r"d\.txt: the file is empty"):
        Calibration.read(tmp_path / "d.txt")
    with pytest.raises(InputError, match="no such file"):
        Calibration.read(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="is a folder, expected a file"):
        Calibration.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("baseline=193.001", "baseline=0"), "baseline is 0"),
        (("baseline=193.001", "baseline=-193.001"), "baseline is negative"),
        (("3997.684 0 1176", "-3997.684 0 1176"), "must be positive"),
        (("3997.684 0 1176", "0 0 1176"), "must be positive"),
        (("3997.684 0 1176", "nan 0 1176"), "must be positive"),
        (("cam1=[3997.684", "cam1=[1997.684"), "not a rectified pair"),
        (
            ("cam1=[3997.684 0 1307.839; 0 3997.684", "cam1=[3997.684 0 1307.839; 0 0"),
            "right focal",
        ),
        (
            ("1307.839; 0 3997.684", "1307.839; 0 2997.684"),
            "lengths along y are 3997.68 and 2997.68",
        ),
        (("3997.684 1011.728; 0 0 1]\ndoffs", "3997.684 1001.728; 0 0 1]\ndoffs"), "cy is 1011.73"),
        (("width=2964", "width=0"), "size is 0x1988"),
        (("height=1988", "height=-1988"), "size is 2964x-1988"),
        (("height=1988", "height=1988.5"), "expected whole numbers"),
        (("height=1988", "height=inf"), "expected whole numbers"),
        (("doffs=131.111", "doffs=13.1111"), "doffs is 13.1111, but cx1 - cx0 is 131.111"),
        (("baseline=193.001\n", ""), "no 'baseline'"),
        (("baseline=193.001", "baseline=?"), "could not convert"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        Calibration.read(kept(tmp_path, MIDDLEBURY.replace(*change)))


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        (MIDDLEBURY, ("baseline=193.001", "baseline=0.193001"), "metres read as millimetres"),
        (K_TXT, ("0.063", "63"), "millimetres as metres"),
        (K_TXT, ("754.66", "4.2"), "focal length is 4.2 px"),
        (K_TXT, ("754.66", "754660"), "focal length is 754660 px, which is very long: it must"),
        (
            KITTI,
            ("7.215377e+02", "7.215377e+05"),
            "focal length is 721537.7 px, which is very long",
        ),
        (MIDDLEBURY, ("3997.684", "3997684"), "which is very long for images 2964 px wide"),
        (
            KALIBR,
            ("457.58, 456.13", "457580, 456130"),
            "right focal length is 457580 px, which is very long",
        ),
    ],
)
def test_units_off_by_a_thousand_trigger_a_warning(tmp_path, text, change, message):
    with pytest.warns(UserWarning, match=message):
        Calibration.read(kept(tmp_path, text.replace(*change)))


def test_plausible_focal_lengths_and_baselines_trigger_no_warning(tmp_path):
    for text in (MIDDLEBURY, ETH3D, KITTI, KITTI_RAW, K_TXT, KALIBR):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Calibration.read(kept(tmp_path, text), pictures=tmp_path / "image_2")


def test_depth_is_metres_and_zero_where_there_is_none():
    own = Calibration.rectified(fx=1000, fy=900, cx0=300, cx1=310, cy=200, baseline=0.2)
    disparity = np.array([[10, 90, 0], [np.nan, np.inf, -10], [-11, -9, 1e9]], np.float32)
    depth = own.depth(disparity)
    assert depth.dtype == np.float32
    assert depth[0].tolist() == [10, 2, 20]
    assert depth[1].tolist() == [0, 0, 0]
    assert depth[2, :2].tolist() == [0, 200]
    own = Calibration.rectified(fx=1000, cx0=10, cy=10, baseline=0.1)
    for tiny in (1e-38, 1e-9, 0.0019):
        assert own.depth(np.full((1, 1), tiny, np.float32)) == 0
    assert own.depth(np.full((1, 1), 1 / 512, np.float32)) == 51200
    assert own.depth([5, 10.0]).tolist() == [20, 10]
    assert own.depth(5) == 20


def test_depth_of_a_raw_pair_is_refused():
    camera = Camera(500, 500, 320, 240, (-0.1, 0, 0, 0))
    for own in (
        Calibration(camera, camera, (-0.1, 0, 0)),
        Calibration(Camera(500, 500, 0, 0), Camera(500, 500, 0, 9), (-0.1, 0, 0)),
        Calibration(Camera(500, 500, 0, 0), Camera(500, 500, 0, 0), (-0.1, 0.01, 0)),
    ):
        with pytest.raises(InputError, match="raw pair"):
            own.depth(np.ones((2, 2), np.float32))


def test_scaling_and_cropping_keep_depth_and_points():
    from stereo.geometry.points import points_in_space

    own = Calibration.rectified(fx=800, cx0=301, cx1=321, cy=199, baseline=0.2, size=(640, 400))
    half = own.scaled(0.5, 0.5)
    assert half.size == (320, 200)
    lower = own.scaled(1, 0.25)
    assert (lower.fx, lower.fy, lower.cx0, lower.cy) == (800, 200, 301, 49.375)
    disparity = np.full((400, 640), 30, np.float32)
    depth = own.depth(disparity)
    assert np.allclose(half.depth(disparity[::2, ::2] / 2), depth[::2, ::2])
    # The centre of a half-size pixel is the corner of four whole ones.
    points = points_in_space(depth, own)
    corner = (points[0, 0] + points[1, 1]) / 2
    assert np.allclose(points_in_space(half.depth(disparity[:200, :320] / 2), half)[0, 0], corner)
    cut = own.cropped(100, 50, 200, 100)
    assert cut.size == (200, 100)
    assert np.allclose(
        points_in_space(cut.depth(disparity[50:150, 100:300]), cut), points[50:150, 100:300]
    )


def test_a_crop_may_end_where_the_image_does():
    own = Calibration.rectified(fx=800, cx0=301, cy=199, baseline=0.2, size=(640, 400))
    assert own.cropped(440, 300, 200, 100).size == (200, 100)


def test_a_principal_point_below_the_image_triggers_a_warning(tmp_path):
    low = lens() | {"cy": 600}  # within the width of 640, not within the height of 480
    with pytest.warns(UserWarning, match="lies outside images of 640x480"):
        Calibration.read(kept(tmp_path, own_json(left=low, right=low), "own.json"))


def test_cameras_that_converge_stand_beside_each_other_all_the_same():
    angle = np.radians(50)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    move = -turn @ [0.1, 0, 0]  # the right camera stands to the right
    camera = Camera(500, 500, 320, 240)
    Calibration(camera, camera, tuple(move), tuple(map(tuple, turn))).check_side_by_side()


def test_a_far_end_at_0_is_said_with_the_start_that_holds_infinity():
    own = Calibration.rectified(fx=1000, cx0=300, cx1=310.5, cy=200, baseline=0.2)
    with pytest.warns(UserWarning, match=r"50% .* infinity is at -10.5 px.*--min-disparity -11$"):
        own.depth(np.array([[0, 0.5, 20, 40]], np.float32))


def own_json(**changes):
    data = Calibration.rectified(fx=500, cx0=320, cy=240, baseline=0.1, size=(640, 480)).to_dict()
    return json.dumps(data | changes)


def lens(*coefficients):
    return {"fx": 500, "fy": 500, "cx": 320, "cy": 240, "distortion": coefficients}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [0, 0]}, "size is 0x0 pixels: both must be positive"),
        ({"size": [-640, 480]}, "size is -640x480"),
        ({"size": [640]}, "expected width and height"),
        ({"size": 640}, "expected width and height"),
        ({"size": [640.5, 480]}, "expected whole numbers"),
        ({"rotation": [[1, 0, 0, 0, 1, 0, 0, 0, 1]]}, "not 3 rows of 3 numbers"),
        ({"rotation": [1, 0, 0, 0, 1, 0, 0, 0, 1]}, "not 3 rows of 3 numbers"),
        ({"rotation": [[0, 0, 0]] * 3}, "the rotation is invalid"),
        ({"rotation": [[2, 0, 0], [0, 1, 0], [0, 0, 1]]}, "the rotation is invalid"),
        ({"rotation": [[1, 0.2, 0], [0, 1, 0], [0, 0, 1]]}, "the rotation is invalid"),
        ({"rotation": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]}, "the rotation is invalid"),
        ({"rotation": [[1, 0, 0], [0, float("nan"), 0], [0, 0, 1]]}, "not finite"),
        ({"translation": [-0.1, 0, float("inf")]}, "not finite"),
        ({"left": lens(-0.1, 0.01, 0.0)}, "left lens has 3 coefficients; .* 0, 4, 5, 8, 12 or 14"),
        ({"right": lens(*[0.0] * 15)}, "right lens has 15 coefficients"),
        ({"left": lens() | {"fy": 0}}, "left focal length is 0 px"),
    ],
)
def test_impossible_cameras_are_refused_with_the_files_name(tmp_path, changes, message):
    path = kept(tmp_path, own_json(**changes), "own.json")
    with pytest.raises(InputError, match=message) as caught:
        Calibration.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, 4, 5, 8, 12, 14])
def test_lenses_with_any_count_of_coefficients_that_opencv_knows_are_read(tmp_path, count):
    from stereo.geometry.rectify import plan_rectification

    text = own_json(left=lens(*[0.001] * count), right=lens(*[0.001] * count))
    plan_rectification(Calibration.read(kept(tmp_path, text, "own.json")), 640, 480)


@pytest.mark.parametrize("text", [KITTI, KITTI_RAW])
def test_a_kitti_focal_length_of_0_is_one_line(tmp_path, text):
    path = kept(tmp_path, text.replace("7.215377e+02", "0"))
    with pytest.raises(
        InputError, match="left focal length is 0 px: it must be positive"
    ) as caught:
        Calibration.read(path)
    assert str(caught.value).startswith(str(path))


def test_kalibr_lenses_have_a_count_that_opencv_knows(tmp_path):
    text = KALIBR.replace("[-0.28, 0.07, 0.0002, 1.7e-05]", "[-0.28, 0.07, 0.0002]")
    with pytest.raises(InputError, match="left lens has 3 coefficients"):
        Calibration.read(kept(tmp_path, text))


def test_rotations_as_printed_with_few_digits_are_rotations(tmp_path):
    turn = [[0.999, -0.035, 0.017], [0.035, 0.999, -0.011], [-0.017, 0.011, 1.0]]
    assert Calibration.read(kept(tmp_path, own_json(rotation=turn), "own.json")).baseline == 0.1


def test_impossible_crops_and_scale_factors_are_refused():
    own = Calibration.rectified(fx=800, cx0=301, cy=199, baseline=0.2, size=(640, 400))
    for box in ((-1, 0, 10, 10), (0, 0, 0, 10), (600, 0, 41, 10), (0, 399, 1, 2)):
        with pytest.raises(InputError, match="a box of"):
            own.cropped(*box)
    for factor in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="cannot be scaled"):
            own.scaled(factor, 1)


def test_opencv_files_far_from_metres_trigger_a_warning(tmp_path):
    matrix = [[500, 0, 320], [0, 500, 240], [0, 0, 1]]
    text = opencv_yaml(M1=matrix, M2=matrix, R=np.eye(3), T=[[-3.3], [0], [0]])
    with pytest.warns(UserWarning, match="state no unit"):
        Calibration.read(kept(tmp_path, text, "stereo.yml"))


def test_calibrations_follow_resized_images():
    own = Calibration.rectified(fx=800, cx0=300, cy=199, baseline=0.2, size=(640, 400))
    assert own.fitted(640, 400) is own
    with pytest.warns(UserWarning, match="scaled to the images' 320x200"):
        assert own.fitted(320, 200).fx == 400
    with pytest.raises(InputError, match="a crop or other cameras"):
        own.fitted(320, 240)
    with pytest.warns(UserWarning, match="'fitted' gives the calibration"):
        own.depth(np.ones((200, 320), np.float32))


def test_motorcycle_is_two_metres_and_a_half_away():
    folder = shared("real/mid2014/MotorcycleQ")
    from stereo.data.io.disparities import read_disparity

    calibration = Calibration.read(folder / "calib.txt")
    manifest = json.loads((folder.parents[1] / "manifest.json").read_text())
    (entry,) = [each for each in manifest if each["name"] == "mid2014/MotorcycleQ"]
    truth = read_disparity(folder.parents[1] / entry["gt"])
    depth = calibration.depth(truth)
    assert 1000 * np.median(depth[depth > 0]) == pytest.approx(2643, abs=1)
    blind = Calibration.rectified(
        fx=calibration.fx, cx0=calibration.cx0, cy=calibration.cy, baseline=calibration.baseline
    )
    depth = blind.depth(truth)
    assert 1000 * np.median(depth[depth > 0]) == pytest.approx(4799, abs=1)


def test_a_result_has_depth(tmp_path):
    result = stereo.Result(np.full((540, 960), 5, np.float32), 0.1)
    path = kept(tmp_path, K_TXT)
    expected = 754.66 * 0.063 / 5
    assert np.allclose(result.depth(path), expected)
    assert np.allclose(result.depth(Calibration.read(path)), expected)


# What native parsers died of, and what expands.
BROKEN_MATRIX = """%YAML:1.0
---
M1: !!opencv-matrix
   rows: 3
   dt: d
   data: [1., 2., 3., 4., 5., 6., 7., 8., 9.]
"""
LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY a{i} "{"&a;" * 10}">' for i in range(9))
    + "]><opencv_storage><M1>&a8;</M1></opencv_storage>"
)
HOSTILE = {
    "no cols": (BROKEN_MATRIX, "without cols"),
    "too many rows": (
        BROKEN_MATRIX.replace("rows: 3", "rows: 3000000\n   cols: 3"),
        "matrix of 3e",
    ),
    "negative rows": (BROKEN_MATRIX.replace("rows: 3", "rows: -3\n   cols: -3"), "matrix of -3x-3"),
    "rows of words": (BROKEN_MATRIX.replace("rows: 3", "rows: many\n   cols: 3"), "convert 'many'"),
    "deep yaml": ("%YAML:1.0\n---\nM1: " + "[" * 100_000, "nest"),
    "large yaml": ("%YAML:1.0\n---\n" + "M1: [1, 2]\n" * 89_000, "MiB"),
    "deep xml": ("<opencv_storage>" + "<a>" * 100_000, "32 levels"),
    "wide xml": ("<opencv_storage>" + "<_/>" * 100_000, "elements"),
    "entities": (LAUGHS, "DOCTYPE"),
    "deep json": ('{"M1": ' + "[" * 100_000, "JSON"),
    "blank lines": ("\n" * 1_000_000, "the file is empty"),
    "a long line": ("cam0 " + " " * 1_000_000, "no calibration"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_line_and_fail_fast(tmp_path, name):
    text, message = HOSTILE[name]
    if "!!opencv" in text:
        text = text + text.replace("%YAML:1.0\n---\n", "").replace("M1", "M2")
    path = kept(tmp_path, text, "stereo.yml")
    for _ in range(3):
        began = time.process_time()
        with pytest.raises(InputError, match=message) as caught, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Calibration.read(path)
        assert time.process_time() - began < 10  # of the processor: no hang
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < len(str(path)) + 300


def test_no_native_parser_sees_a_calibration():
    for path in (REPOSITORY / "stereo").rglob("*.py"):
        assert "FileStorage(" not in path.read_text(encoding="utf-8"), path


MATRIX = [[500, 0, 320], [0, 510, 240], [0, 0, 1]]
LENS = [-0.2, 0.1, 0, 0, 0]
POSE = {"R": np.eye(3), "T": [[-0.1], [0.001], [0]]}
OPENCV_PAIR = {"M1": MATRIX, "D1": LENS, "M2": MATRIX, "D2": LENS, **POSE}


@pytest.mark.parametrize("suffix", ["yml", "xml", "json"])
def test_what_opencv_writes_is_read(tmp_path, suffix):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / f"stereo.{suffix}"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for name, value in OPENCV_PAIR.items():
        storage.write(name, np.array(value, float))  # a list of numbers has one axis in OpenCV 5
    storage.startWriteStruct("image_size", cv2.FileNode_SEQ)
    for length in (640, 480):
        storage.write("", length)
    storage.endWriteStruct()
    storage.write("note", "by hand: 3 of 4")
    storage.release()
    read = Calibration.read(path)
    assert read.left == Camera(500, 510, 320, 240, (-0.2, 0.1, 0, 0, 0))
    assert read.translation == (-0.1, 0.001, 0)
    assert read.size == (640, 480)


@pytest.mark.parametrize(
    "header", ["%YAML:1.0\n---\n", "%YAML 1.2\n---\n", "---\n", "", "%YAML:1.0\n"]
)
@pytest.mark.parametrize("form", [str, lambda text: "\ufeff" + text.replace("\n", "\r\n")])
def test_opencv_yaml_with_any_header_or_none(tmp_path, header, form):
    text = opencv_yaml(**OPENCV_PAIR).replace("%YAML:1.0\n---\n", header)
    path = tmp_path / "stereo.yml"
    path.write_bytes(form(text).encode())
    assert Calibration.read(path).left.distortion == tuple(LENS)


OPENCV_NAMES = [
    {"M1": "cameraMatrix1", "M2": "cameraMatrix2", "D1": "distCoeffs1", "D2": "distCoeffs2"},
    {"M1": "K_left", "M2": "K_right", "D1": "D_left", "D2": "D_right"},
    {"M1": "cameraMatrixL", "M2": "cameraMatrixR", "D1": "distCoeffsL", "D2": "distCoeffsR"},
]


@pytest.mark.parametrize("names", OPENCV_NAMES)
def test_opencv_files_have_several_names_for_the_same(tmp_path, names):
    renamed = {names.get(name, name): value for name, value in OPENCV_PAIR.items()}
    path = kept(tmp_path, opencv_yaml(**renamed), "stereo.yml")
    assert Calibration.read(path) == Calibration.read(kept(tmp_path, opencv_yaml(**OPENCV_PAIR)))


def test_an_ignored_unknown_lens_triggers_a_warning(tmp_path):
    renamed = {name.replace("D", "lens_"): value for name, value in OPENCV_PAIR.items()}
    with pytest.warns(UserWarning, match="no coefficients of the left lens"):
        Calibration.read(kept(tmp_path, opencv_yaml(**renamed), "stereo.yml"))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.transpose(MATRIX), "transposed"),
        ([[500, 0, 320], [0, 510, 240], [0, 0, 2]], "0 0 1"),
        ([[500, 0, 320], [7, 510, 240], [0, 0, 1]], "transposed"),
        ([[500, 3, 320], [0, 510, 240], [0, 0, 1]], "skew of 3"),
        ([[0.5, 0, 0.5], [0, 0.5, 0.5], [0, 0, 1]], "widths of the image"),
        ([[500, 0, 1e300], [0, 510, 240], [0, 0, 1]], "principal point"),
        ([[float("nan"), 0, 320], [0, 510, 240], [0, 0, 1]], "must be positive"),
    ],
)
def test_matrices_of_impossible_cameras_are_refused_in_every_file(tmp_path, matrix, message):
    entries = [f"{each:.9g}" for each in np.ravel(matrix)]
    camera = "[" + " ".join(entries) + "]"
    rows = json.dumps([float(each) for each in entries])
    ros = ROS.replace("[438.78, 0, 305.59, 0, 437.35, 243.74, 0, 0, 1]", rows)
    files = {
        "stereo.yml": opencv_yaml(**OPENCV_PAIR | {"M2": matrix}),
        "calib.txt": f"cam0={camera}\ncam1={camera}\nbaseline=100\nwidth=640\nheight=480\n",
        "K.txt": " ".join(entries) + "\n0.063\n",
        "left.yaml": ros.format(side="left", shift="0"),
    }
    kept(tmp_path, ROS.format(side="right", shift="-35.4294"), "right.yaml")
    for name, text in files.items():
        if name == "K.txt" and "nan" in text:
            continue  # no K.txt, then
        with pytest.raises(InputError, match=message):
            Calibration.read(kept(tmp_path, text, name), raw=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("1.728540e+02 2.199936 0 0", "1.728540e+02 2.199936 0.01 0"), "holds a rotation"),
        (("-339.52420 0 ", "-339.52420 8 "), "holds a rotation"),
        (("6.095593e+02 -339", "6.095593e+02 -339"), None),
        (
            ("-339.52420 0 7.215377e+02 1.728540e+02 2.199936", "44 0 721.5377 172.854 -339"),
            "vertical",
        ),
        (("1.728540e+02 2.199936", "1.728540e+02 -40"), "not side by side"),
        (("2.729905e-03", "0.3"), "not side by side"),
    ],
)
def test_projections_must_be_those_of_a_rectified_pair(tmp_path, change, message):
    path = kept(tmp_path, KITTI.replace(*change))
    if message is None:
        assert Calibration.read(path).is_rectified
    else:
        with pytest.raises(InputError, match=message):
            Calibration.read(path)


def test_a_vertical_rig_is_reported(tmp_path):
    upright = OPENCV_PAIR | {"T": [[0.001], [-0.1], [0]]}
    read = Calibration.read(kept(tmp_path, opencv_yaml(**upright), "stereo.yml"))
    with pytest.raises(InputError, match="vertical rig"):
        read.check_rectified()
    projections = {
        "P1": [[450, 0, 300, 0], [0, 450, 230, 0], [0, 0, 1, 0]],
        "P2": [[450, 0, 300, 0], [0, 450, 230, -45], [0, 0, 1, 0]],
    }
    with pytest.raises(InputError, match="vertical rig"):
        Calibration.read(kept(tmp_path, opencv_yaml(**projections), "stereo.yml"))


def test_the_principal_point_reveals_another_image_size(tmp_path):
    own = Calibration.read(kept(tmp_path, KITTI))
    assert own.fitted(1242, 375) is own
    assert own.fitted(1216, 352) is own  # a crop of KITTI's that many networks take
    for size in ((621, 187), (828, 250), (2484, 750), (100, 100)):
        with pytest.raises(InputError, match="were they resized or cropped"):
            own.fitted(*size)
    for size in ((960, 290), (1242, 187)):
        with pytest.warns(UserWarning, match="depths are wrong by that factor"):
            own.fitted(*size)
    with pytest.raises(InputError, match="were they resized"):
        stereo.Result(np.full((187, 621), 5, np.float32), 0.1).depth(own)
    known = dataclasses.replace(own, size=(621, 187))
    assert known.fitted(621, 187) is known


def test_real_calibrations_fit_their_images():
    from PIL import Image

    for folder, name in (
        ("calibration/keyboard_K_txt", "left.png"),
        ("real/eth3d/playground", "im0.png"),
        ("real/mid2014/MotorcycleQ", "im0.png"),
    ):
        path = shared(folder)
        picture = next(iter([*path.glob(name), *path.glob("*left*.png"), *path.glob("*0*.png")]))
        (file,) = [*path.glob("K.txt"), *path.glob("calib.txt")]
        with Image.open(picture) as opened, warnings.catch_warnings():
            warnings.simplefilter("error")
            Calibration.read(file).fitted(*opened.size)


ROI = "roi:\n  x_offset: {left}\n  y_offset: {top}\n  height: {height}\n  width: {width}\n"


def ros_crop(folder, roi="", binning=""):
    for side, shift in (("left", "0"), ("right", "-35.4294")):
        text = ROS.format(side=side, shift=shift) + roi + binning
        kept(folder, text, f"{side}.yaml")
    return folder / "left.yaml"


def test_a_roi_shifts_the_principal_point_and_scales_nothing(tmp_path):
    path = ros_crop(tmp_path, ROI.format(left=20, top=8, height=465, width=620))
    read = Calibration.read(path)
    assert (read.fx, read.fy, read.size) == (393.66, 393.66, (620, 465))
    assert read.cx0 == pytest.approx(302.98)
    assert read.cy == pytest.approx(233.09)
    assert read.baseline == pytest.approx(0.09, rel=1e-4)
    assert read.fitted(620, 465) is read
    raw = Calibration.read(path, raw=True)
    assert (raw.left.fx, raw.left.cx) == (438.78, pytest.approx(285.59))
    assert Calibration.read(
        ros_crop(tmp_path, ROI.format(left=0, top=0, height=0, width=0))
    ).size == (640, 480)
    with pytest.raises(InputError, match="roi goes beyond the sensor's 640x480"):
        Calibration.read(ros_crop(tmp_path, ROI.format(left=40, top=0, height=480, width=620)))


def test_binning_scales(tmp_path):
    roi = ROI.format(left=20, top=8, height=400, width=600)
    path = ros_crop(tmp_path, roi, "binning_x: 4\nbinning_y: 3\n")
    with pytest.warns(UserWarning, match="but pixels are square"):
        read = Calibration.read(path)
    assert (read.fx, read.fy, read.size) == (393.66 / 4, 393.66 / 3, (150, 133))
    whole = Calibration.rectified(
        fx=393.66, cx0=302.98, cy=233.09, baseline=read.baseline, size=(600, 400)
    ).scaled(1 / 4, 1 / 3)
    assert (read.cx0, read.cy) == pytest.approx((whole.cx0, whole.cy))
    assert read.baseline == pytest.approx(0.09, rel=1e-4)


def test_a_rectified_camera_info_needs_only_p(tmp_path):
    for side, shift in (("left", "0"), ("right", "-35.4294")):
        text = ROS.format(side=side, shift=shift)
        info = text[: text.index("camera_matrix")] + text[text.index("projection_matrix") :]
        kept(tmp_path, info + "distortion_model: a new one\n", f"{side}.yaml")
    assert Calibration.read(tmp_path / "left.yaml").baseline == pytest.approx(0.09, rel=1e-4)
    ros_files(tmp_path, form=lambda text: text.replace("plumb_bob", "a new one"))
    assert Calibration.read(tmp_path / "left.yaml").fx == 393.66
    with pytest.raises(InputError, match="distortion model 'a new one' is not supported"):
        Calibration.read(tmp_path / "left.yaml", raw=True)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("upright_left.yaml", "upright_right.yaml"),
        ("Left.yaml", "Right.yaml"),
        ("LEFT_INFO.yaml", "RIGHT_INFO.yaml"),
        ("cameraLeft.yaml", "cameraRight.yaml"),
        ("bright-left01.yaml", "bright-right01.yaml"),
        ("infra1_info.yaml", "infra2_info.yaml"),
        ("cam0.yaml", "cam1.yaml"),
        ("left/camera_info.yaml", "right/camera_info.yaml"),
        ("cam0/info.yaml", "cam1/info.yaml"),
        ("copyright/left.yaml", "copyright/right.yaml"),
    ],
)
def test_left_and_right_are_whole_words_of_names(tmp_path, left, right):
    for name, side, shift in ((left, "left", "0"), (right, "right", "-35.4294")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        kept(tmp_path, ROS.format(side=side, shift=shift), name)
    for name in (left, right):
        assert Calibration.read(tmp_path / name).baseline == pytest.approx(0.09, rel=1e-4)


@pytest.mark.parametrize("name", ["upright.yaml", "cleft.yaml", "webcam0.yaml", "cam01.yaml"])
def test_a_side_name_inside_a_word_does_not_count(tmp_path, name):
    for other in (
        name,
        name.replace("right", "left"),
        name.replace("left", "right"),
        "webcam1.yaml",
    ):
        kept(tmp_path, ROS.format(side="left", shift="0"), other)
    with pytest.raises(InputError, match="holds one camera"):
        Calibration.read(tmp_path / name)


@pytest.mark.parametrize("length", [7.5, 19.0])
def test_baselines_in_centimetres_trigger_a_warning(tmp_path, length):
    shift = f"{-393.66 * length}"
    kept(tmp_path, ROS.format(side="left", shift="0"), "left.yaml")
    files = {
        "K.txt": K_TXT.replace("0.063", f"{length}"),
        "right.yaml": ROS.format(side="right", shift=shift),
        "camchain.yaml": KALIBR.replace("-0.1100738", f"{-length}"),
        "stereo.yml": opencv_yaml(**OPENCV_PAIR | {"T": [[-length], [0], [0]]}),
    }
    for name, text in files.items():
        with pytest.warns(UserWarning, match="state no unit.*centimetres"):
            Calibration.read(kept(tmp_path, text, name))


@pytest.mark.parametrize("length", ["1e308", "1e30", "1e9", "1e-9", "1e400"])
def test_impossible_lengths_are_refused(tmp_path, length):
    for text in (
        K_TXT.replace("0.063", length),
        MIDDLEBURY.replace("193.001", length),
        own_json().replace("-0.1", f"-{length}"),
    ):
        with pytest.raises(InputError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Calibration.read(kept(tmp_path, text))
    for focal in ("1e308", "1e12", "1e-3"):
        with pytest.raises(InputError, match="focal length"):
            Calibration.read(kept(tmp_path, K_TXT.replace("754.66", focal)))
    with pytest.raises(InputError, match="size is"):
        Calibration.read(kept(tmp_path, own_json(size=[10**9, 480])))


def test_kittis_grey_pair_has_its_own_cameras(tmp_path):
    path = kept(tmp_path, KITTI)
    for folder, baseline in (
        ("image_0", 0.53715),
        ("data/image_0/000.png", 0.53715),
        ("image_2", 0.532725),
        ("colored_0", 0.532725),
        ("left", 0.532725),
    ):
        read = Calibration.read(path, pictures=tmp_path / folder)
        assert read.baseline == pytest.approx(baseline, rel=1e-4), folder
        map_of = np.full((375, 1242), 50, np.float32)
        result = stereo.Result(map_of, 0.1, path=tmp_path / folder)
        assert np.array_equal(result.depth(path), read.depth(result.disparity)), folder
    colour = kept(tmp_path, "\n".join(KITTI.splitlines()[2:]))
    with pytest.raises(InputError, match="no 'P0 and P1"):
        Calibration.read(colour, pictures=tmp_path / "image_0")


DRIVING = """calib_time: 09-Jan-2018
S_101: 1920 1080
R_101: 1 0 0 0 1 0 0 0 1
T_101: 0 0 0
S_rect_101: {width} {height}
P_rect_101: {focal} 0 {cx} 0 0 {focal} 190.5 0 0 0 1 0
R_103: 1 0 0 0 1 0 0 0 1
T_103: -0.5448 0.0001 -0.0002
S_rect_103: {width} {height}
P_rect_103: {focal} 0 {cx} {shift} 0 {focal} 190.5 0 0 0 1 0
"""


def test_drivingstereo(tmp_path):
    whole = DRIVING.format(width=1762, height=800, focal=2007.1, cx=880, shift=-2007.1 * 0.5448)
    read = Calibration.read(kept(tmp_path, whole))
    assert (read.fx, read.size) == (2007.1, (1762, 800))
    assert read.baseline == pytest.approx(0.5448)
    # As published, the files of half-size images have the whole ones' fx * baseline in P.
    half = DRIVING.format(width=881, height=400, focal=1003.55, cx=440, shift=-2007.1 * 0.5448)
    with pytest.warns(UserWarning, match=r"1.0896 m by P_rect_103 and 0.5448 m by T_103"):
        assert Calibration.read(kept(tmp_path, half)).baseline == pytest.approx(0.5448)


def test_kitti_raw_cameras_are_read_for_rectification(tmp_path):
    turn = "0.9999 0.0141418 0 -0.0141418 0.9999 0 0 0 1"
    cameras = "".join(
        f"S_0{n}: 1392 512\nK_0{n}: 9{n}0 0 700 0 9{n}1 250 0 0 1\nD_0{n}: -0.3 0.1 0 0 0\n"
        f"R_0{n}: {turn}\nT_0{n}: {x} 0 0\n"
        for n, x in ((2, 0.06), (3, -0.47))
    )
    path = kept(tmp_path, KITTI_RAW + cameras)
    raw = Calibration.read(path, raw=True)
    assert (raw.left.fx, raw.right.fy, raw.size) == (920, 931, (1392, 512))
    assert raw.translation == pytest.approx((-0.53, 0, 0))
    assert np.allclose(raw.rotation, np.eye(3), atol=1e-4)
    assert Calibration.read(path).is_rectified


ORB_2 = """%YAML:1.0
Camera.fx: 435.2
Camera.fy: 435.2
Camera.cx: 367.4
Camera.cy: 252.2
Camera.k1: 0.0
Camera.width: 752
Camera.height: 480
Camera.bf: 47.9
"""
ORB_3 = """%YAML:1.0
File.version: "1.0"
Camera.type: "{kind}"
Camera1.fx: 458.65
Camera1.fy: 457.29
Camera1.cx: 367.21
Camera1.cy: 248.37
Camera.width: 752
Camera.height: 480
"""
ORB_3_RAW = """Camera2.fx: 457.58
Camera2.fy: 456.13
Camera2.cx: 379.99
Camera2.cy: 255.23
Camera2.k1: -0.28
Camera2.k2: 0.07
Stereo.T_c1_c2: !!opencv-matrix
  rows: 4
  cols: 4
  dt: f
  data: [1, 0, 0, 0.11, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
"""


def orb_2_raw(turns, shift):
    """Return the raw cameras of ORB_2, to stand below it."""
    sides = ("LEFT", "RIGHT")
    return opencv_yaml(
        **{f"{s}.K": MATRIX for s in sides},
        **{f"{s}.D": [LENS] for s in sides},
        **{f"{s}.R": turn for s, turn in zip(sides, turns, strict=True)},
        **{
            f"{s}.P": [[435.2, 0, 367.4, x], [0, 435.2, 252.2, 0], [0, 0, 1, 0]]
            for s, x in zip(sides, (0, shift), strict=True)
        },
    ).replace("%YAML:1.0\n---\n", "")


def test_lenses_that_the_file_knows_otherwise_are_refused(tmp_path):
    path = kept(tmp_path, ORB_2.replace("k1: 0.0", "k1: -0.3"), "stereo.yaml")
    assert Calibration.read(path, raw=True, lens="pinhole").left.lens == "pinhole"
    with pytest.raises(InputError, match="its lenses are pinhole ones, not fisheye"):
        Calibration.read(path, raw=True, lens="fisheye")


def test_orb_slam(tmp_path):
    read = Calibration.read(kept(tmp_path, ORB_2, "stereo.yaml"))
    assert (read.fx, read.size) == (435.2, (752, 480))
    assert read.baseline == pytest.approx(47.9 / 435.2)
    assert not Calibration.read(kept(tmp_path, ORB_2.replace("k1: 0.0", "k1: -0.3"))).is_rectified
    read = Calibration.read(kept(tmp_path, ORB_3.format(kind="Rectified") + "Stereo.b: 0.05\n"))
    assert (read.baseline, read.is_rectified) == (0.05, True)
    further = "Camera2.k3: 0.03\nCamera2.p1: 0.01\nCamera2.p2: 0.02\n"
    raw = Calibration.read(kept(tmp_path, ORB_3.format(kind="PinHole") + ORB_3_RAW + further))
    assert raw.translation == (-0.11, 0, 0)
    assert raw.right.distortion == (-0.28, 0.07, 0.01, 0.02, 0.03)
    fish = Calibration.read(kept(tmp_path, ORB_3.format(kind="KannalaBrandt8") + ORB_3_RAW))
    assert (fish.right.lens, fish.right.distortion) == ("fisheye", (-0.28, 0.07, 0, 0))
    path = kept(tmp_path, ORB_2 + orb_2_raw([np.eye(3)] * 2, -43.52), "stereo.yaml")
    assert Calibration.read(path).is_rectified
    found = Calibration.read(path, raw=True)
    assert (found.left, found.translation) == (
        Camera(500, 510, 320, 240, tuple(LENS)),
        (-0.1, 0, 0),
    )
    with pytest.raises(InputError, match="depth sensor"):
        Calibration.read(kept(tmp_path, ORB_2 + "DepthMapFactor: 5000\n"))


def test_openvins_names_the_camera_to_imu_transform(tmp_path):
    pose = np.eye(4)
    pose[:3, 3] = (0.11, 0, 0)
    away = np.array([[0, -1, 0, 0.2], [1, 0, 0, 0.1], [0, 0, 1, 0], [0, 0, 0, 1]])
    camera = KALIBR.split("cam1:")[0].replace("cam0:", "")
    for key, to in (("T_imu_cam", lambda m: m), ("T_cam_imu", np.linalg.inv)):
        text = "%YAML:1.0\n"
        for name, place in (("cam0", away), ("cam1", away @ pose)):
            rows = "".join(f"  - {row}\n" for row in to(place).tolist())
            text += f"{name}:\n  {key}: # to or from the sensor\n{rows}{camera}"
        read = Calibration.read(kept(tmp_path, text, "kalibr_imucam_chain.yaml"))
        assert read.translation == pytest.approx((-0.11, 0, 0), abs=1e-9)
        assert read.size == (752, 480)


EUROC = """sensor_type: camera
T_BS:
  cols: 4
  rows: 4
  data: {pose}
resolution: [752, 480]
camera_model: pinhole
intrinsics: [458.65, 457.29, 367.21, 248.37]
distortion_model: radial-tangential
distortion_coefficients: [-0.28, 0.07, 0.0002, 1.7e-05]
"""


def test_euroc(tmp_path):
    for name, y in (("cam0", 0), ("cam1", 0.11)):
        pose = [0, -1, 0, 0.3, 1, 0, 0, y, 0, 0, 1, 0, 0, 0, 0, 1]
        (tmp_path / name).mkdir()
        kept(tmp_path / name, EUROC.format(pose=pose), "sensor.yaml")
    for name in ("cam0", "cam1"):
        read = Calibration.read(tmp_path / name / "sensor.yaml")
        assert read.translation == pytest.approx((-0.11, 0, 0), abs=1e-9)
        assert read.left.distortion == (-0.28, 0.07, 0.0002, 1.7e-05)


def turned(axis, degrees):
    """Return the rotation about an axis of the frame, 0 to 2."""
    turn, (one, other) = np.eye(3), ((axis + 1) % 3, (axis + 2) % 3)
    turn[one, one] = turn[other, other] = np.cos(np.radians(degrees))
    turn[other, one] = np.sin(np.radians(degrees))
    turn[one, other] = -turn[other, one]
    return turn


TURNS = turned(0, 6) @ turned(2, -3), turned(1, 9) @ turned(2, 4)  # into the rectified frame
PLACES = (0.3, -0.2, 0.1), (0.4, -0.2, 0.1)  # of the cameras in it


def posed(turn, place):
    """Return the motion, (4, 4), from the rectified frame to a camera's."""
    pose = np.eye(4)
    pose[:3] = turn.T @ np.column_stack([np.eye(3), np.negative(place)])
    return pose


def listed(matrix):
    return str(np.ravel(matrix).tolist())


def kalibr_chain(key, poses):
    camera = KALIBR.partition("cam1:")[0].replace("cam0:\n", "")
    cameras = (f"cam{n}:\n  {key}: {listed(pose)}\n{camera}" for n, pose in enumerate(poses))
    return {"camchain.yaml": "".join(cameras)}


INTO = [posed(turn, place) for turn, place in zip(TURNS, PLACES, strict=True)]
OUT_OF = [np.linalg.inv(pose) for pose in INTO]
BETWEEN = INTO[1] @ OUT_OF[0]
RAW_RIG = {  # format -> its files by name, first the one to read
    "opencv": {
        "stereo.yml": opencv_yaml(**OPENCV_PAIR | {"R": BETWEEN[:3, :3], "T": BETWEEN[:3, 3:]})
    },
    "kitti": {
        "calib.txt": KITTI_RAW
        + "".join(
            f"K_0{n}: 900 0 700 0 900 250 0 0 1\nD_0{n}: 0 0 0 0 0\n"
            f"R_0{n}: {listed(pose[:3, :3])}\nT_0{n}: {listed(pose[:3, 3])}\n"
            for n, pose in enumerate(INTO, start=2)
        )
    },
    "kalibr": kalibr_chain("T_cn_cnm1", (np.eye(4), BETWEEN)),
    "kalibr-imu": kalibr_chain("T_cam_imu", INTO),
    "openvins": kalibr_chain("T_imu_cam", OUT_OF),
    "euroc": {
        f"cam{n}/sensor.yaml": EUROC.format(pose=listed(pose)) for n, pose in enumerate(OUT_OF)
    },
    "orb-slam-3": {
        "stereo.yaml": ORB_3.format(kind="PinHole")
        + re.sub(r"data: .*", f"data: {listed(np.linalg.inv(BETWEEN))}", ORB_3_RAW)
    },
    "orb-slam-2": {"stereo.yaml": ORB_2 + orb_2_raw(TURNS, -43.52)},
    "ros": {
        f"{side}.yaml": re.sub(r"\[0\.99998,.*", listed(turn), ROS.format(side=side, shift=shift))
        for side, shift, turn in zip(("left", "right"), (0, -39.366), TURNS, strict=True)
    },
}


@pytest.mark.parametrize("kind", RAW_RIG)
def test_every_format_says_where_the_raw_cameras_stand(tmp_path, rng, kind):
    for name, text in RAW_RIG[kind].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        kept(tmp_path, text, name)
    read = Calibration.read(tmp_path / next(iter(RAW_RIG[kind])), raw=True)
    points = rng.normal(size=(4, 3))  # in the rectified frame
    left, right = (
        np.linalg.solve(turn, (points - place).T) for turn, place in zip(TURNS, PLACES, strict=True)
    )
    assert np.allclose(read.rotation @ left + np.reshape(read.translation, (3, 1)), right)


FOREIGN = {
    "ZED": "[LEFT_CAM_HD]\nfx=700\n[STEREO]\nBaseline=120\n",
    "RealSense": ' Intrinsic of "Infrared 1" / 640x480 / {Y8}\n  PPX: 320\n',
    "Open3D": '{"width": 640, "intrinsic_matrix": [500, 0, 0, 0, 500, 0, 320, 240, 1]}',
    "Basalt": '{"value0": {"intrinsics": []}}',
    "VINS-Fusion": '%YAML:1.0\ncam0_calib: "cam0.yaml"\n',
    "cv2.omnidir": opencv_yaml(**OPENCV_PAIR, xi1=[[1.2]], xi2=[[1.3]]),
    "one camera": "%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n   rows: 3\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_unsupported_files_are_named(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}.*"):
        Calibration.read(kept(tmp_path, FOREIGN[name]))


def test_four_opencv_coefficients_are_ambiguous_unless_the_lens_is_given(tmp_path):
    short = OPENCV_PAIR | {"D1": [0.02, -0.01, 0.004, -0.001], "D2": [0.02, -0.01, 0.004, -0.001]}
    path = kept(tmp_path, opencv_yaml(**short), "stereo.yml")
    with pytest.warns(UserWarning, match="say --lens fisheye"):
        assert Calibration.read(path).left.lens == "pinhole"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Calibration.read(path, lens="pinhole").left.lens == "pinhole"
        assert Calibration.read(path, lens="fisheye").right.lens == "fisheye"
        said = path.read_text() + "fisheye_model: 1\n"
        assert Calibration.read(kept(tmp_path, said, "said.yml")).left.lens == "fisheye"
    with pytest.raises(InputError, match="fisheye lens has 5 coefficients"):
        Calibration.read(kept(tmp_path, opencv_yaml(**OPENCV_PAIR)), lens="fisheye")
    with pytest.raises(UsageError, match="known: fisheye, pinhole"):
        Calibration.read(path, lens="wide")


def test_ros_and_kalibr_say_which_lens_it_is(tmp_path):
    four = ("[-0.36, 0.11, 0.001, 0.0005, 0]", "[-0.03, 0.01, 0.001, 0.0005]")

    def form(text):
        return text.replace("plumb_bob", "equidistant").replace("cols: 5", "cols: 4").replace(*four)

    raw = Calibration.read(ros_files(tmp_path, form=form), raw=True)
    assert raw.left.lens == raw.right.lens == "fisheye"
    path = kept(tmp_path, KALIBR.replace("radtan", "equidistant"), "camchain.yaml")
    read = Calibration.read(path)
    assert read.left.lens == "fisheye"
    assert not read.is_rectified
    read.write(tmp_path / "own.json")
    assert Calibration.read(tmp_path / "own.json") == read
    with pytest.raises(InputError, match="a fisheye lens, not pinhole"):
        Calibration.read(path, lens="pinhole")


def test_duplicate_entries_are_refused(tmp_path):
    for text in (MIDDLEBURY + "baseline=19\n", KITTI + KITTI.splitlines()[3], KALIBR + "cam0: 1\n"):
        with pytest.raises(InputError, match="appears twice"):
            Calibration.read(kept(tmp_path, text))


GREY = """P0: 300 0 223.5 0 0 300 127.5 0 0 0 1 0
P1: 300 0 223.5 -60 0 300 127.5 0 0 0 1 0
P2: 300 0 223.5 0 0 300 127.5 0 0 0 1 0
P3: 300 0 223.5 -30 0 300 127.5 0 0 0 1 0
"""


def test_the_grey_pairs_depth_uses_its_own_cameras(tmp_path, stereo):
    import stereo as package

    sample = REPOSITORY / "datasets/samples/FlyingThings3D/frames_cleanpass/TEST/A/0000"
    calibration = kept(tmp_path, GREY)
    matcher = package.load("sgbm")
    depths = {}
    for left, right in (("image_0", "image_1"), ("image_2", "image_3")):
        views = []
        for folder, side in ((left, "left"), (right, "right")):
            (tmp_path / folder).mkdir()
            views.append(tmp_path / folder / "000000.png")
            views[-1].write_bytes((sample / side / "0006.png").read_bytes())
        called = stereo(
            *("infer", tmp_path / left, tmp_path / right, "--model", "sgbm", "--formats", "depth"),
            *("--calibration", calibration, "--output", tmp_path / f"{left}_maps"),
        )
        assert called.status == 0, called.errors
        depth = np.load(next((tmp_path / f"{left}_maps").glob("*_depth.npy")))
        assert np.allclose(matcher(*views).depth(calibration), depth)
        right_map = matcher(*views, view="right")
        depths[left] = float(np.median(depth)), float(np.median(right_map.depth(calibration)))
    assert depths["image_0"] == pytest.approx([2 * each for each in depths["image_2"]])


def test_full_sensor_images_are_not_cropped_by_a_roi(tmp_path):
    path = ros_crop(tmp_path, ROI.format(left=64, top=48, height=384, width=512))
    for raw in (False, True):
        read = Calibration.read(path, raw=raw)
        assert read.fitted(512, 384) is read
        with pytest.warns(UserWarning, match="taken as uncut"):
            whole = read.fitted(640, 480)
        assert whole.left.fx == read.left.fx
        assert whole.left.cx == pytest.approx(read.left.cx + 64)
        with pytest.raises(InputError, match="could be either of them resized"):
            read.fitted(1280, 960)  # a roi of the sensor's shape
    assert "uncut" not in read.to_dict()
    assert read.scaled(2, 2).uncut is read.cropped(0, 0, 9, 9).uncut is None


def test_binning_is_a_whole_number(tmp_path):
    with pytest.raises(InputError, match=r"binning is 1\.5x1"):
        Calibration.read(ros_crop(tmp_path, "", "binning_x: 1.5\n"))


@pytest.mark.parametrize("factor", [0.75, 0.8, 1.25, 1.3])
def test_resized_images_are_detected_both_ways(tmp_path, factor):
    for text, size in ((KITTI, (1242, 375)), (K_TXT, (960, 540))):
        own = Calibration.read(kept(tmp_path, text))
        with pytest.warns(UserWarning, match="were they resized"):
            own.fitted(*(round(factor * side) for side in size))
        for refused in (0.5, 0.6, 1.6, 2):
            with pytest.raises(InputError, match="were they resized"):
                own.fitted(*(round(refused * side) for side in size))


def test_pixels_are_square(tmp_path):
    oblong = "700 0 320 0 {fy} 240 0 0 1\n0.1\n"
    with pytest.warns(UserWarning, match="but pixels are square"):
        Calibration.read(kept(tmp_path, oblong.format(fy=800)))
    for fy in (350, 1400):
        with pytest.raises(InputError, match=r"calib\.txt: .*if the images were squeezed"):
            Calibration.read(kept(tmp_path, oblong.format(fy=fy)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("1176.728", "11767.28"), ("1307.839", "11898.391")], "lies outside images of 2964"),
        ([("1011.728", "-10")], "lies outside images"),
        ([("3997.684", "39976.84")], "very long for images 2964"),
        ([("3997.684", "399.7684")], "very short for images 2964"),
        ([("1176", "x"), ("1307", "1176"), ("x", "1307"), ("=131", "=-131")], "swapped"),
    ],
)
def test_implausible_numbers_trigger_a_warning_if_the_size_is_known(tmp_path, changes, message):
    text = MIDDLEBURY
    for change in changes:
        text = text.replace(*change)
    with pytest.warns(UserWarning, match=message):
        Calibration.read(kept(tmp_path, text))


def test_a_focal_length_is_compared_with_the_images_if_the_file_has_no_size(tmp_path):
    own = Calibration.read(kept(tmp_path, "10000 0 320 0 10000 240 0 0 1\n0.1\n"))
    with pytest.warns(UserWarning, match="very long for images 640"):
        own.fitted(640, 480)


def test_disparities_behind_infinity_trigger_a_warning():
    own = Calibration.rectified(fx=3000, cx0=330, cx1=300, cy=240, baseline=0.1)
    with pytest.warns(UserWarning, match="75 % of the disparities lie behind infinity"):
        own.depth(np.array([[1, 2, 29, 40, np.inf]], np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own.depth(np.array([[1, 32, 40, np.nan, np.inf]], np.float32))


def test_opencv_files_with_two_names_for_the_same_are_refused(tmp_path):
    k, d = OPENCV_PAIR["M1"], OPENCV_PAIR["D1"]
    rest = {name: OPENCV_PAIR[name] for name in ("R", "T")}
    pair = {"K1": k, "K2": k, "D1": d, "D2": d}
    for odd in ({"M1": 2 * np.asarray(k)}, {"cameraMatrix2": k}, {"dist1": 2 * np.asarray(d)}):
        path = kept(tmp_path, opencv_yaml(**pair, **odd, **rest), "stereo.yml")
        with pytest.raises(InputError, match="several names for the same thing"):
            Calibration.read(path)
    mixed = {"M1": k, "K2": k, "D1": d, "D2": d}
    with pytest.raises(InputError, match="holds M1, K2: several names"):
        Calibration.read(kept(tmp_path, opencv_yaml(**mixed, **rest), "stereo.yml"))
    sizes = "image_size: [640, 480]\nimageSize: [320, 240]\n"
    text = opencv_yaml(**pair, **rest) + sizes
    with pytest.raises(InputError, match="'image_size' and 'imageSize'"):
        Calibration.read(kept(tmp_path, text, "stereo.yml"))
    same = opencv_yaml(**pair, M1=k, M2=k, **rest)
    assert Calibration.read(kept(tmp_path, same, "stereo.yml")).left.distortion == tuple(d)


def test_comments_in_a_k_txt_are_ignored(tmp_path):
    text = "# K, 3x3\n700 0 320\n0 700 240  # fy, cy\n0 0 1\n# baseline, m\n0.1\n"
    calibration = Calibration.read(kept(tmp_path, text, "K.txt"))
    assert (calibration.fx, calibration.baseline) == (700, 0.1)


@pytest.mark.parametrize("number", ["0700", "11:40", "0x2bc", "\uff1700"])
def test_ambiguous_numbers_are_refused(tmp_path, number):
    text = f"%YAML:1.0\nP1: [{number}, 0, 320, 0, 0, 700, 240, 0, 0, 0, 1, 0]\nP2: [1]\n"
    k_txt = f"{number} 0 320 0 700 240 0 0 1\n0.1\n"
    for path in (tmp_path / "stereo.yml", tmp_path / "K.txt"):
        path.write_text(text if path.suffix == ".yml" else k_txt, encoding="utf-8")
        with pytest.raises(InputError, match=r"could not convert|no calibration"):
            Calibration.read(path)


@pytest.mark.parametrize("start", ["%YAML:1.0\n---\n", "---\n", ""])
def test_yaml_is_not_mistaken_for_kitti(tmp_path, start):
    with pytest.raises(InputError, match=r"an OpenCV calibration .*'P2'"):
        Calibration.read(kept(tmp_path, f"{start}P1: 1\n", "stereo.yml"))


@pytest.mark.parametrize("count", [8, 12, 14])
def test_a_fisheyes_list_may_be_filled_up_with_zeros(tmp_path, count):
    given = [0.02, -0.01, 0.004, -0.001]
    path = kept(
        tmp_path,
        opencv_yaml(**OPENCV_PAIR | dict.fromkeys(("D1", "D2"), given + [0] * (count - 4))),
    )
    assert Calibration.read(path, lens="fisheye").right.distortion == tuple(given)
    with pytest.warns(UserWarning, match="say --lens fisheye"):
        assert Calibration.read(path).left.lens == "pinhole"
    odd = opencv_yaml(**OPENCV_PAIR | dict.fromkeys(("D1", "D2"), given + [0.1] * (count - 4)))
    with pytest.raises(InputError, match=f"fisheye lens has {count} coefficients"):
        Calibration.read(kept(tmp_path, odd), lens="fisheye")


@pytest.mark.parametrize(
    ("yaw", "rows", "is_rectified"),
    [(0, 0, True), (1e-4, 0.2, True), (9e-4, 0, False), (0, 1.8, False)],
)
def test_a_pair_is_rectified_where_points_move_by_less_than_a_quarter_pixel(
    yaw, rows, is_rectified
):
    turn = ((np.cos(yaw), 0, np.sin(yaw)), (0, 1, 0), (-np.sin(yaw), 0, np.cos(yaw)))
    left, right = Camera(2000, 2000, 960, 540), Camera(2000, 2000, 960, 540 + rows)
    rig = Calibration(left, right, (-0.12, 0, 0), turn, (1920, 1080))
    assert rig.is_rectified is is_rectified


@pytest.mark.parametrize("size", [(284, 192), (288, 190), (280, 190), (296, 192)])
def test_a_crop_of_nearly_the_same_shape_is_not_taken_as_resized(size):
    rig = Calibration.rectified(fx=300, cx0=143.5, cy=95.5, baseline=0.1, size=(288, 192))
    with pytest.raises(InputError, match="a crop or other cameras"):
        rig.fitted(*size)


@pytest.mark.parametrize(
    ("whole", "size"),
    [((2964, 2000), (741, 500)), ((1242, 375), (640, 194)), ((1390, 1110), (463, 370))],
)
@pytest.mark.filterwarnings("ignore:the calibration is for")
def test_sizes_rounded_on_resizing_are_taken_as_resized(whole, size):
    rig = Calibration.rectified(fx=1000, cx0=700, cy=190, baseline=0.1, size=whole)
    assert rig.fitted(*size).fx == pytest.approx(1000 * size[0] / whole[0])


def test_a_q_beside_the_raw_cameras_is_of_the_rectified_pair(tmp_path):
    cv2 = pytest.importorskip("cv2")
    turn = cv2.Rodrigues(np.array([0.0, 0.02, 0.0]))[0]
    matrix, lens = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), np.zeros(5)
    move = np.array([[-0.1], [0.0], [0.0]])
    left, _, _, _, q, *_ = cv2.stereoRectify(matrix, lens, matrix, lens, (640, 480), turn, move)
    storage = cv2.FileStorage(str(tmp_path / "rig.yml"), cv2.FILE_STORAGE_WRITE)
    for name, value in (("K1", matrix), ("D1", lens), ("K2", matrix), ("D2", lens)):
        storage.write(name, value)
    for name, value in (("R", turn), ("T", move), ("R1", left), ("Q", q)):
        storage.write(name, value)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.release()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Calibration.read(tmp_path / "rig.yml")
        raw = Calibration.read(tmp_path / "rig.yml", raw=True)
    assert found.is_rectified
    assert (found.fx, found.cx0) == pytest.approx((q[2, 3], -q[0, 3]))
    assert found.size == (640, 480)
    assert not raw.is_rectified
    assert raw.fx == 500


@pytest.mark.parametrize(("name", "size"), [("frame_size", (640, 480)), ("image_shape", None)])
def test_a_size_of_unknown_order_is_said_not_guessed(tmp_path, name, size):
    eye = "[400, 0, 320, {}, 0, 400, 240, 0, 0, 0, 1, 0]"
    text = f'{{"P1": {eye.format(0)}, "P2": {eye.format(-40)}, "{name}": [640, 480]}}'
    path = kept(tmp_path, text, "a.json")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert Calibration.read(path).size == size
    assert [f"'{name}' may be width and height" in str(each.message) for each in said] == (
        [] if size else [True]
    )


def test_a_kitti_file_of_two_pairs_says_which_one_is_taken(tmp_path):
    rows = {0: 0, 1: -386.1, 2: 45.0, 3: -338.3}
    text = "".join(f"P{n}: 721.5 0 609.6 {x} 0 721.5 172.9 0 0 0 1 0\n" for n, x in rows.items())
    path = kept(tmp_path, text, "calib.txt")
    with pytest.warns(UserWarning, match="the colour one's is taken"):
        assert Calibration.read(path).baseline == pytest.approx(383.3 / 721.5)
    for folder, baseline in (("image_2", 383.3), ("image_0", 386.1)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = Calibration.read(path, pictures=tmp_path / folder / "000000.png")
        assert found.baseline == pytest.approx(baseline / 721.5)
