"""Archives for the benchmarks' servers."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

import stereo as package
from stereo.data.datasets import open_dataset
from stereo.data.disparities import write_disparity
from stereo.errors import InputError, UsageError
from stereo.submit import BENCHMARKS, submit, validate

SIZES = {"a": (40, 60), "b": (48, 80)}
TREES = {
    "kitti2012": ("testing/colored_0/00000{}_10.png", "testing/colored_1/00000{}_10.png"),
    "kitti2015": ("testing/image_2/00000{}_10.png", "testing/image_3/00000{}_10.png"),
    "middlebury_v3": ("MiddEval3/{}H/{}/im0.png", "MiddEval3/{}H/{}/im1.png"),
    "eth3d": ("two_view_{}/{}/im0.png", "two_view_{}/{}/im1.png"),
}


def write_tree(root, benchmark):
    rng = np.random.default_rng(0)
    for index, (scene, size) in enumerate(SIZES.items()):
        picture = rng.integers(0, 256, (*size, 3), np.uint8)
        for pattern in TREES[benchmark]:
            part = ("training", "test")[index]
            kitti = benchmark.startswith("kitti")
            path = root / (pattern.format(index) if kitti else pattern.format(part, scene))
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    if benchmark == "middlebury_v3":
        truth(root / "MiddEval3/trainingH/a/disp0GT.pfm")
    if benchmark == "eth3d":
        truth(root / "two_view_training_gt/a/disp0GT.pfm")


def truth(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_disparity(path, np.ones(SIZES["a"], np.float32))


@pytest.fixture(scope="module")
def matcher():
    return package.load("sgbm", max_disparity=16)


EXPECTED = {
    "kitti2012": ["000000_10.png", "000001_10.png"],
    "kitti2015": ["disp_0/000000_10.png", "disp_0/000001_10.png"],
    "middlebury_v3": [
        *("testH/b/disp0Ours.pfm", "testH/b/timeOurs.txt"),
        *("trainingH/a/disp0Ours.pfm", "trainingH/a/timeOurs.txt"),
    ],
    "eth3d": [
        *("low_res_two_view/a.pfm", "low_res_two_view/a.txt"),
        *("low_res_two_view/b.pfm", "low_res_two_view/b.txt"),
    ],
}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_archives_hold_what_the_servers_expect(tmp_path, matcher, benchmark):
    write_tree(tmp_path / "data", benchmark)
    path = tmp_path / "out" / "x.zip"
    submit(matcher, benchmark, tmp_path / "data", path, method="Ours", partial=True)
    with zipfile.ZipFile(path) as zipped:
        assert sorted(zipped.namelist()) == sorted(EXPECTED[benchmark])
        for name in zipped.namelist():
            data = zipped.read(name)
            if name.endswith(".png"):
                stored = np.asarray(Image.open(io.BytesIO(data)))
                assert stored.dtype == np.uint16
                assert stored.min() >= 1
            elif name.endswith(".txt"):
                words = data.decode().split()
                assert words[:-1] == (["runtime"] if benchmark == "eth3d" else [])
                assert float(words[-1]) >= 0
            else:
                assert data.startswith(b"Pf\n")
    assert [p.name for p in path.parent.iterdir()] == ["x.zip"]


def test_a_benchmark_that_is_not_whole_is_refused(tmp_path, matcher):
    write_tree(tmp_path / "data", "kitti2015")
    with pytest.raises(InputError, match="2 pairs of 'test', the benchmark has 200"):
        submit(matcher, "kitti2015", tmp_path / "data", tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()
    with pytest.raises(UsageError, match="unknown benchmark 'kitti'"):
        submit(matcher, "kitti", tmp_path / "data", tmp_path / "x.zip")
    with pytest.raises(UsageError, match="letters, digits"):
        submit(matcher, "kitti2015", tmp_path / "data", tmp_path / "x.zip", method="a b")


def png(values):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


FIRST, SECOND = EXPECTED["kitti2015"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({SECOND: None}, "does not hold"),
        ({"readme": b"hello"}, "does not hold"),
        ({FIRST: png(np.ones((3, 4), np.uint16))}, "its left view is"),
        ({FIRST: png(np.ones(SIZES["a"], np.uint8))}, "16-bit"),
        ({FIRST: png(np.zeros(SIZES["a"], np.uint16))}, "without an estimate"),
        ({FIRST: png(np.full(SIZES["a"], 60000, np.uint16))}, "cannot be"),
    ],
)
def test_a_wrong_archive_does_not_pass(tmp_path, matcher, change, message):
    write_tree(tmp_path / "data", "kitti2015")
    path = submit(matcher, "kitti2015", tmp_path / "data", tmp_path / "x.zip", partial=True)
    with zipfile.ZipFile(path) as zipped:
        files = {name: zipped.read(name) for name in zipped.namelist()} | change
    with zipfile.ZipFile(path, "w") as zipped:
        for name, data in files.items():
            if data is not None:
                zipped.writestr(name, data)
    items = open_dataset("kitti2015", tmp_path / "data", split="test").samples
    with pytest.raises(InputError, match=message):
        validate(path, "kitti2015", items, "stereo")


def test_submit_from_the_command_line(stereo, tmp_path):
    write_tree(tmp_path / "data", "eth3d")
    call = ("submit", "eth3d", "--root", tmp_path / "data", "--output", tmp_path / "x.zip")
    called = stereo(*call, "--model", "sgbm")
    assert called.status == 1
    assert "the benchmark has 27" in called.errors[-1]
    called = stereo(*call, "--model", "sgbm", "--partial")
    assert called.status == 0, called.errors
    assert "2 maps, validated" in called.out
