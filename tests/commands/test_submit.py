"""Archives for the benchmarks' servers."""

import dataclasses
import io
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import stereo as package
from stereo.commands import submit as module
from stereo.commands.submit import BENCHMARKS, submit, validate
from stereo.data.io.disparities import write_disparity
from stereo.data.sets.datasets import open_dataset
from stereo.errors import InputError, OutputError, UsageError

SIZES = {"a": (40, 60), "b": (48, 80)}
TREES = {
    "kitti2012": ("testing/colored_0/00000{}_10.png", "testing/colored_1/00000{}_10.png"),
    "kitti2015": ("testing/image_2/00000{}_10.png", "testing/image_3/00000{}_10.png"),
    "middlebury_v3": ("MiddEval3/{}H/{}/im0.png", "MiddEval3/{}H/{}/im1.png"),
    "eth3d": ("two_view_{}/{}/im0.png", "two_view_{}/{}/im1.png"),
}


def write_tree(root, benchmark):
    """Write two scenes; return their left views by size."""
    rng, lefts = np.random.default_rng(0), {}
    for index, (scene, size) in enumerate(SIZES.items()):
        lefts[size] = rng.integers(0, 256, (*size, 3), np.uint8)
        views = lefts[size], np.roll(lefts[size], -3, axis=1)
        for pattern, view in zip(TREES[benchmark], views, strict=True):
            part = ("training", "test")[index]
            kitti = benchmark.startswith("kitti")
            path = root / (pattern.format(index) if kitti else pattern.format(part, scene))
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(view).save(path)
    return lefts


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
def test_archives_contain_what_the_servers_expect(tmp_path, matcher, benchmark):
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


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_archives_hold_the_maps_of_the_left_views(tmp_path, matcher, benchmark):
    lefts = write_tree(tmp_path, benchmark)

    def known(left):
        return 1 + left[..., 0] / np.float32(16)

    class Known:
        min_disparity, description = 0, matcher.description

        def __call__(self, left, right):
            return dataclasses.replace(matcher(left, right), disparity=known(left), seconds=0.25)

    path = submit(Known, benchmark, tmp_path, tmp_path / "x.zip", partial=True)
    stored = {}
    with zipfile.ZipFile(path) as zipped:
        for name in zipped.namelist():
            if name.endswith(".txt"):
                assert float(zipped.read(name).split()[-1]) == 0.25
            else:
                values = np.asarray(Image.open(io.BytesIO(zipped.read(name))), np.float32)
                stored[values.shape] = values / 256 if name.endswith(".png") else values
    assert stored.keys() == lefts.keys()
    for size, left in lefts.items():
        assert np.array_equal(stored[size], known(left))


def test_the_layout_chooses_the_size_of_middleburys_images(tmp_path, matcher):
    write_tree(tmp_path, "middlebury_v3")
    shutil.copytree(tmp_path / "MiddEval3/testH", tmp_path / "MiddEval3/testQ")
    shutil.copytree(tmp_path / "MiddEval3/trainingH", tmp_path / "MiddEval3/trainingQ")
    call = (matcher, "middlebury_v3", tmp_path, tmp_path / "x.zip")
    path = submit(*call, layout="Q", partial=True)
    with zipfile.ZipFile(path) as zipped:
        assert {name.partition("/")[0] for name in zipped.namelist()} == {"testQ", "trainingQ"}


def test_an_incomplete_benchmark_is_refused(tmp_path, matcher):
    write_tree(tmp_path / "data", "kitti2015")
    with pytest.raises(InputError, match="2 pairs of 'test', the benchmark has 200"):
        submit(matcher, "kitti2015", tmp_path / "data", tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()
    with pytest.raises(UsageError, match="unknown benchmark 'kitti'"):
        submit(matcher, "kitti", tmp_path / "data", tmp_path / "x.zip")
    with pytest.raises(UsageError, match="letters, digits"):
        submit(matcher, "kitti2015", tmp_path / "data", tmp_path / "x.zip", method="a b")


def test_a_bad_call_is_refused_before_any_work_and_leaves_nothing(tmp_path):
    write_tree(tmp_path / "data", "kitti2015")

    def refuse(*_):
        raise AssertionError("matched")

    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(UsageError, match=r"name the \.zip file"):
        submit(refuse, "kitti2015", tmp_path / "data", tmp_path / "folder.zip", partial=True)
    for root in ("absent", "folder.zip"):
        with pytest.raises(InputError):
            submit(refuse, "kitti2015", tmp_path / root, tmp_path / "new" / "x.zip", partial=True)
    assert not (tmp_path / "new").exists()
    with pytest.raises(OutputError):
        below = tmp_path / "data/testing/image_2/000000_10.png" / "x.zip"
        submit(refuse, "kitti2015", tmp_path / "data", below, partial=True)


def png(values):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def pfm(values, folder):
    write_disparity(folder / "x.pfm", values)
    return (folder / "x.pfm").read_bytes()


@pytest.fixture(scope="module")
def archives(tmp_path_factory, matcher):
    """Write a whole archive of either kind; give (path, pairs) by benchmark."""
    made = {}
    for benchmark in BENCHMARKS:
        folder = tmp_path_factory.mktemp(benchmark)
        write_tree(folder, benchmark)
        path = submit(matcher, benchmark, folder, folder / "x.zip", partial=True)
        items = [
            item
            for split in BENCHMARKS[benchmark].splits
            for item in open_dataset(benchmark, folder, split=split, truth=False).samples
        ]
        made[benchmark] = path, items
    return made


def changed(archive, target, change):
    with zipfile.ZipFile(archive) as zipped:
        files = {name: zipped.read(name) for name in zipped.namelist()}
    with zipfile.ZipFile(target, "w") as zipped:
        for name, data in (files | change).items():
            if data is not None:
                zipped.writestr(name, data)
    return target


FIRST, SECOND = EXPECTED["kitti2015"]
GOOD_PNG = png(np.ones(SIZES["a"], np.uint16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({SECOND: None}, f"wrong contents: lacks {SECOND}"),
        ({"readme": b"hello"}, "wrong contents: has in excess readme"),
        ({FIRST: png(np.ones((3, 4), np.uint16))}, f"{FIRST}: is 4x3, its left view is 60x40"),
        ({FIRST: png(np.ones(SIZES["a"], np.uint8))}, f"{FIRST}: not a 16-bit image"),
        ({FIRST: png(np.zeros(SIZES["a"], np.uint16))}, f"{FIRST}: has pixels without an estimate"),
        (
            {FIRST: png(np.full(SIZES["a"], 60000, np.uint16))},
            f"{FIRST}: disparities of 234.375 to",
        ),
        ({FIRST: GOOD_PNG[: len(GOOD_PNG) // 2]}, f"{FIRST}: damaged"),
        ({FIRST: b"junk"}, f"{FIRST}: damaged"),
        ({FIRST: b""}, f"{FIRST}: damaged"),
        ({FIRST: bytes(10**6)}, f"{FIRST}: unpacks to 1000000 bytes"),
        (
            {FIRST: png(np.zeros((500, 10_000), np.uint16))},
            f"{FIRST}: is 10000x500, its left view is 60x40",
        ),
    ],
)
def test_a_wrong_archive_is_refused(tmp_path, archives, change, message):
    whole, items = archives["kitti2015"]
    path = changed(whole, tmp_path / "x.zip", change)
    with pytest.raises(InputError) as caught:
        validate(path, "kitti2015", items, "stereo")
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_an_archive_with_unsupported_packing_is_refused(tmp_path, archives):
    whole, items = archives["kitti2015"]
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "x.zip", "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name), zipfile.ZIP_LZMA)
    with pytest.raises(InputError, match="use deflate"):
        validate(tmp_path / "x.zip", "kitti2015", items, "stereo")


@pytest.mark.parametrize(
    ("benchmark", "data"),
    [
        *(("middlebury_v3", data) for data in (b"abc", b"\xff", b"", b"runtime 1", b"-1", b"inf")),
        *(("eth3d", data) for data in (b"0.5", b"runtime", b"runtime abc", b"Runtime 1", b"\xff")),
    ],
)
def test_a_malformed_time_is_refused(tmp_path, archives, benchmark, data):
    whole, items = archives[benchmark]
    inside = {"middlebury_v3": "testH/b/timestereo.txt", "eth3d": "low_res_two_view/a.txt"}[
        benchmark
    ]
    path = changed(whole, tmp_path / "x.zip", {inside: data})
    with pytest.raises(InputError) as caught:
        validate(path, benchmark, items, "stereo")
    assert str(caught.value).startswith(f"{path}: {inside}: ")


def test_a_bad_pfm_is_named_by_its_path_in_the_archive(tmp_path, archives):
    whole, items = archives["eth3d"]
    inside = "low_res_two_view/a.pfm"
    good = pfm(np.ones(SIZES["a"], np.float32), tmp_path)
    unknown = np.full(SIZES["a"], np.inf, np.float32)
    for data, told in (
        (good[:-4], "truncated"),
        (b"", "empty"),
        (b"junk", "not a PFM file"),
        (pfm(unknown, tmp_path), "expected finite values"),
    ):
        path = changed(whole, tmp_path / "x.zip", {inside: data})
        with pytest.raises(InputError) as caught:
            validate(path, "eth3d", items, "stereo")
        assert str(caught.value).startswith(f"{path}: {inside}: ")
        assert told in str(caught.value)
        assert "map.pfm" not in str(caught.value)


@pytest.mark.parametrize("benchmark", ["kitti2012", "eth3d"])
def test_changed_bytes_are_reported_or_harmless(tmp_path, archives, benchmark):
    whole, items = archives[benchmark]
    data = whole.read_bytes()
    path = tmp_path / "x.zip"
    named = 0
    for place in range(0, len(data), max(1, len(data) // 150)):
        flipped = bytearray(data)
        flipped[place] ^= 0x55
        for damaged in (bytes(flipped), data[:place]):
            path.write_bytes(damaged)
            try:
                validate(path, benchmark, items, "stereo")
            except InputError as error:
                named += 1
                assert str(error).startswith(f"{path}: ")
                assert "\n" not in str(error)
    assert named > 250


def test_folder_entries_of_other_programs_are_ignored(tmp_path, archives):
    whole, items = archives["kitti2015"]
    validate(changed(whole, tmp_path / "x.zip", {"disp_0/": b""}), "kitti2015", items, "stereo")


def test_an_archive_that_exists_is_validated_without_a_model(stereo, tmp_path, archives):
    whole, _ = archives["middlebury_v3"]
    call = ("submit", "middlebury_v3", "--root", whole.parent, "--partial")
    called = stereo(*call, "--validate", whole)
    assert (called.status, called.errors) == (0, [])
    assert f"{whole}: 2 maps, valid" in called.out
    called = stereo(*call, "--validate", whole, "--method", "Other")
    assert called.status == 1
    assert f"{whole}: wrong contents: lacks" in called.errors[0]
    for options in ((), ("--validate", whole, "--output", tmp_path / "x.zip")):
        called = stereo(*call, *options)
        assert called.status == 2
        assert "give --output FILE.zip" in called.errors[0]
    for options in (("--model", "sgbm"), ("--scale", "2")):
        called = stereo(*call, "--validate", whole, *options)
        assert called.status == 2
        assert "leave out --model and its options" in called.errors[0]


def test_what_is_infinitely_far_is_an_estimate_too():
    data = module._encode("000000_10.png", np.array([[0, 0.001, 2]], np.float32))
    assert np.asarray(Image.open(io.BytesIO(data))).tolist() == [[1, 1, 512]]  # 0 would be none


def test_scenes_beyond_the_range_trigger_a_warning(tmp_path, stereo, capfd):
    write_tree(tmp_path / "data", "middlebury_v3")
    folders = {path.parent for path in (tmp_path / "data").rglob("im0.png")}
    for folder, count in zip(sorted(folders), (190, 290), strict=True):
        (folder / "calib.txt").write_text(f"width=400\nndisp={count}\n")
    call = ("submit", "middlebury_v3", "--root", tmp_path / "data", "--partial", "--model", "sgbm")
    for limit, warned in ((192, 1), (304, 0)):
        called = stereo(*call, "--output", tmp_path / "x.zip", "--max-disparity", limit)
        assert called.status == 0
        told = [
            line for line in called.errors if "1 of 2 scenes have disparities of 192 px" in line
        ]
        assert len(told) == warned
        assert all(line.endswith("use --max-disparity 304") for line in told)
    items = module._find_pairs("middlebury_v3", tmp_path / "data", "stereo", None, True)
    later = SimpleNamespace(min_disparity=98, description={"max_disparity": 192})
    module._warn_of_range(items, later)  # which ends at 290, as the scene does
    assert capfd.readouterr().err == ""


def test_a_damaged_image_is_found_before_the_first_match(tmp_path):
    write_tree(tmp_path / "data", "kitti2012")
    damaged = sorted((tmp_path / "data").rglob("*.png"))[-1]
    damaged.write_bytes(damaged.read_bytes()[:200])

    def load():
        raise AssertionError("the model was loaded")

    with pytest.raises(InputError, match=damaged.name):
        submit(load, "kitti2012", tmp_path / "data", tmp_path / "x.zip", partial=True)


def test_a_map_out_of_range_ends_the_run_at_once(tmp_path, matcher):
    write_tree(tmp_path / "data", "kitti2015")
    seen = []

    class Wrong:
        min_disparity, description = 0, matcher.description

        def __call__(self, left, right):
            seen.append(left)
            result = matcher(left, right)
            return dataclasses.replace(result, disparity=result.disparity + 1000)

    with pytest.raises(InputError, match=r"disp_0/000000_10.png: disparities of 1\d\d\d"):
        submit(Wrong, "kitti2015", tmp_path / "data", tmp_path / "x.zip", partial=True)
    assert len(seen) == 1
    assert not (tmp_path / "x.zip").exists()


def test_a_map_that_the_pngs_cannot_hold_is_refused(tmp_path, matcher):
    write_tree(tmp_path / "data", "kitti2015")
    for path in tmp_path.glob("data/**/image_*/*.png"):
        Image.new("RGB", (400, 32)).save(path)

    class Near:
        min_disparity, description = 0, matcher.description

        def __call__(self, left, right):
            result = matcher(left, right)
            return dataclasses.replace(result, disparity=result.disparity * 0 + 300)

    with pytest.raises(InputError, match=r"up to 300 px; .* hold up to 255\.996"):
        submit(Near, "kitti2015", tmp_path / "data", tmp_path / "x.zip", partial=True)
    assert not (tmp_path / "x.zip").exists()


def test_submit_from_the_command_line(stereo, tmp_path):
    write_tree(tmp_path / "data", "eth3d")
    call = ("submit", "eth3d", "--root", tmp_path / "data", "--output", tmp_path / "x.zip")
    called = stereo(*call, "--model", "sgbm")
    assert called.status == 1
    assert "the benchmark has 27" in called.errors[-1]
    called = stereo(*call, "--model", "sgbm", "--partial")
    assert called.status == 0, called.errors
    assert "2 maps, validated" in called.out
