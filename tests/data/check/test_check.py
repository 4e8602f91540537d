"""``stereo data check``: good trees pass, each fault is found, named and counted."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from test_layouts import FRAMES, SHAPE, TREES, image, picture, write_tree

from stereo.data.check import check_dataset
from stereo.data.check.pair import EDGES, Job, validate_pair
from stereo.data.sets.sample import SampleFiles

THINGS = "FlyingThings3D/frames_finalpass/TEST/A/0000"
DISPARITY = "FlyingThings3D/disparity/TEST/A/0000/left"


def check(root, name=None, **options):
    return check_dataset(root, dataset=name, workers=1, **options)


def kinds(report):
    return set(report["faults_by_kind"])


@pytest.mark.parametrize("tree", [tree for tree in TREES if TREES[tree][0] != "middlebury2001"])
def test_a_good_tree_has_no_fault_but_its_count(tree, tmp_path):
    write_tree(tmp_path, tree)
    report = check(tmp_path, TREES[tree][0])
    assert kinds(report) <= {"count"}
    assert check(tmp_path, TREES[tree][0], partial=True)["ok"]
    sections = [section for section in report["sections"] if section["pairs"]]
    assert [section["pairs"] for section in sections] == [len(FRAMES)]
    assert sections[0]["sizes"] == {"6x4": len(FRAMES)}
    assert sections[0]["disparity"]["valid_percent"] == 100


def test_missing_pairs_are_reported_in_total_and_by_letter(tmp_path):
    write_tree(tmp_path, "things")
    report = check(tmp_path, "flyingthings3d")
    details = " ".join(fault["detail"] for fault in report["faults"])
    assert kinds(report) == {"count"}
    for words in ("3 complete pairs, 4,370 published", "A: 3 pairs, 1,440", "B: 0 pairs, 1,470"):
        assert words in details
    partial = check(tmp_path, "flyingthings3d", partial=True)
    assert partial["ok"]
    assert any("4,370 published" in note for note in partial["notes"])


def test_an_absent_part_of_scene_flow_is_a_fault(tmp_path):
    write_tree(tmp_path, "driving")
    report = check(tmp_path, "sceneflow")
    details = [fault["detail"] for fault in report["faults"]]
    assert any("Monkaa train" in text and "0 complete pairs, 8,664" in text for text in details)


def lose_right(root):
    (root / THINGS / "right/000011.png").unlink()


def truncate_left(root):
    path = root / THINGS / "left/000011.png"
    path.write_bytes(path.read_bytes()[:40])


def empty_truth(root):
    (root / DISPARITY / "000011.pfm").write_bytes(b"")


def other_size(root):
    Image.new("RGB", (8, 4)).save(root / THINGS / "right/000011.png")


def other_truth_size(root):
    Image.fromarray(np.ones((4, 9), np.float32)).save(root / DISPARITY / "000011.pfm")


def put(value):
    def damage(root):
        disparity = np.full(SHAPE, 2, np.float32)
        disparity[1, 2] = value
        Image.fromarray(disparity).save(root / DISPARITY / "000011.pfm")

    return damage


def nothing_known(root):
    Image.fromarray(np.full(SHAPE, np.inf, np.float32)).save(root / DISPARITY / "000011.pfm")


FAULTS = {
    "missing": (lose_right, {"missing"}, "right/000011.png"),
    "unreadable image": (truncate_left, {"unreadable"}, "left/000011.png"),
    "unreadable truth": (empty_truth, {"unreadable"}, "000011.pfm"),
    "sizes of the views": (other_size, {"size"}, "8x4"),
    "size of the truth": (other_truth_size, {"size"}, "9x4"),
    "sign": (put(-7), {"sign"}, "down to -7"),
    "nan": (put(np.nan), {"nan"}, "1 nan"),
    "infinity": (put(np.inf), {"infinite"}, "1 infinite"),
    "nothing": (nothing_known, {"infinite", "empty"}, "no pixel"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_and_named_and_the_status_is_1(fault, stereo, tmp_path):
    damage, expected, words = FAULTS[fault]
    write_tree(tmp_path, "things")
    options = ("--dataset", "flyingthings3d", "--root", tmp_path, "--partial", "--workers", "1")
    assert stereo("data", "check", *options).status == 0
    damage(tmp_path)
    result = stereo("data", "check", *options, "--output", tmp_path / "out")
    assert result.status == 1
    assert [line.partition(";")[0] for line in result.errors] == [
        "stereo data check: error: faults were found"
    ]
    report = json.loads((tmp_path / "out/data_check.json").read_text())
    assert (report["ok"], kinds(report)) == (False, expected)
    assert {f["name"].rpartition("/")[2] for f in report["faults"]} == {"000011"}
    assert words in " ".join(fault["detail"] for fault in report["faults"])
    assert words in result.out
    assert (tmp_path / "out/data_check.txt").read_text().strip() in result.out


def test_missing_values_are_no_fault_if_the_data_set_allows_them(tmp_path):
    write_tree(tmp_path, "middlebury_v3", ["Piano"])
    disparity = np.full(SHAPE, np.inf, np.float32)
    disparity[0] = 3
    Image.fromarray(disparity).save(tmp_path / "MiddEval3/trainingQ/Piano/disp0GT.pfm")
    report = check(tmp_path, "middlebury_v3", partial=True)
    assert report["ok"]
    assert report["sections"][0]["disparity"]["valid_percent"] == 25


def test_the_histogram_and_the_share_beyond_the_maximum(tmp_path):
    write_tree(tmp_path, "things", ["0006", "0007"])  # the second one's are all 2
    disparity = np.repeat(np.float32([[0, 15.9, 16, 191.9, 192, 600]]), 4, axis=0)
    Image.fromarray(disparity).save(tmp_path / DISPARITY / "0006.pfm")
    facts = check(tmp_path, "flyingthings3d")["sections"][0]["disparity"]
    counts = dict(zip(facts["histogram"]["edges"], facts["histogram"]["counts"], strict=True))
    assert {edge: count for edge, count in counts.items() if count} == {
        0: 32,
        16: 4,
        176: 4,
        192: 4,
        EDGES[-1]: 4,
    }
    assert [facts[name] for name in ("maps", "lowest", "highest")] == [2, 0, 600]
    assert facts["beyond_max_percent"] == pytest.approx(100 / 6)
    narrow = check(tmp_path, "flyingthings3d", max_disparity=16)["sections"][0]["disparity"]
    assert narrow["beyond_max_percent"] == pytest.approx(100 / 3)


def test_negative_disparities_are_no_fault_from_min_disparity_on(tmp_path, capsys):
    write_tree(tmp_path, "things", ["0006"])
    disparity = np.repeat(np.float32([[-8, -0.5, 0, 8, 183, 184]]), 4, axis=0)
    Image.fromarray(disparity).save(tmp_path / DISPARITY / "0006.pfm")
    report = check(tmp_path, "flyingthings3d", partial=True, min_disparity=-8)
    assert report["ok"]
    facts = report["sections"][0]["disparity"]
    assert facts["histogram"]["below_0"] == 8
    assert facts["beyond_max_percent"] == pytest.approx(100 / 6)
    out = capsys.readouterr().out
    assert "below 0       33.33 %" in out
    assert "at 184 px or above" in out
    faults = check(tmp_path, "flyingthings3d", partial=True, min_disparity=-7)["faults"]
    assert ["4 disparities below -7 px" in fault["detail"] for fault in faults] == [True]


def test_missing_disparities_are_below_no_start_of_the_range(tmp_path):
    write_tree(tmp_path, "folders", ["0"])
    disparity = np.repeat(np.float32([[0, 0, 20, 20, 20, 7]]), 4, axis=0)
    Image.fromarray(disparity).save(next(tmp_path.rglob("disp*/0.*")).with_suffix(".pfm"))
    faults = check(tmp_path, "folders", min_disparity=8)["faults"]
    assert ["4 disparities below 8 px, down to 7" in fault["detail"] for fault in faults] == [True]


def test_both_passes_are_examined_and_their_shared_truth_once(tmp_path):
    write_tree(tmp_path, "things")
    shutil.copytree(
        tmp_path / "FlyingThings3D/frames_finalpass", tmp_path / "FlyingThings3D/frames_cleanpass"
    )
    (tmp_path / "FlyingThings3D/frames_cleanpass/TEST/A/0000/left/000011.png").write_bytes(b"x")
    report = check(tmp_path, "flyingthings3d", partial=True)
    assert [section["pass"] for section in report["sections"]] == ["final", "clean"]
    assert [bool(section["disparity"]) for section in report["sections"]] == [True, False]
    assert report["faults_by_kind"] == {"unreadable": 1}
    only = check(tmp_path, "flyingthings3d", partial=True, render_pass="final")
    assert only["ok"]


def test_sizes_are_compared_where_the_truth_is_shared(tmp_path):
    write_tree(tmp_path, "things")
    final, clean = (tmp_path / f"FlyingThings3D/frames_{kind}pass" for kind in ("final", "clean"))
    shutil.copytree(final, clean)
    for side in ("left", "right"):
        path = clean / f"TEST/A/0000/{side}/000011.png"
        with Image.open(path) as picture:
            picture.crop((0, 0, picture.width - 1, picture.height)).save(path)
    report = check(tmp_path, "flyingthings3d", partial=True)
    assert report["faults_by_kind"] == {"size": 2}  # of either view's truth


def test_the_report_does_not_depend_on_the_number_of_workers(tmp_path):
    write_tree(tmp_path, "things")
    put(-7)(tmp_path)
    truncate_left(tmp_path)
    reports = []
    for workers in (1, 2):
        folder = tmp_path / f"out{workers}"
        check_dataset(tmp_path, dataset="flyingthings3d", output=folder, workers=workers)
        reports.append([(folder / f"data_check.{s}").read_bytes() for s in ("json", "txt")])
    assert reports[0] == reports[1]


def test_a_manifest_s_missing_files_are_named(tmp_path):
    image(tmp_path / "l.png")
    picture(tmp_path / "gt.png", np.full(SHAPE, 256, np.uint16))
    entry = {"left": "l.png", "right": "l.png", "gt": "gt.png"}
    entries = [entry | {"name": "good"}, entry | {"name": "bad", "right": "r.png"}]
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    report = check(tmp_path)
    assert (report["dataset"], report["faults_by_kind"]) == ("manifest", {"missing": 1})
    assert report["faults"][0]["name"] == "bad"


def test_right_truth_and_masks_are_examined_too(tmp_path):
    write_tree(tmp_path, "subset", ["0000000", "0000001"])
    (tmp_path / "train/disparity/right/0000000.pfm").write_bytes(b"x")
    (tmp_path / "train/disparity_occlusions/left/0000001.png").unlink()
    report = check(tmp_path, "flyingthings3d_subset", partial=True)
    assert report["faults_by_kind"] == {"unreadable": 1}
    assert any("occlusion mask for 1 of 2" in note for note in report["notes"])


def test_unusable_frames_count_as_present(tmp_path):
    write_tree(tmp_path, "things")
    listed = tmp_path / "list.txt"
    listed.write_text("TEST/A/0000/left/000011.png\n")
    report = check(tmp_path, "flyingthings3d", unused=listed)
    assert (report["sections"][0]["pairs"], report["sections"][0]["unused"]) == (2, 1)
    assert "3 complete pairs" in report["faults"][0]["detail"]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("--dataset", "nonsense"), 2, "unknown data set"),
        (("--workers", "0"), 2, "--workers"),
        (("--max-disparity", "0"), 2, "--max-disparity"),
        (("--dataset", "kitti2015", "--split", "x"), 2, "split"),
        (("--dataset", "kitti2015"), 1, "expected training/image_2"),
        ((), 1, "no data set recognised"),
    ],
)
def test_wrong_calls_and_foreign_folders_are_one_line(stereo, tmp_path, options, status, words):
    result = stereo("data", "check", "--root", tmp_path, *options)
    assert (result.status, len(result.errors)) == (status, 1)
    assert words in result.errors[0]


def test_the_list_names_every_data_set_with_splits_and_trees(stereo):
    result = stereo("data", "list")
    assert (result.status, result.errors) == (0, [])
    for words in ("kitti2015", "train (35,454 pairs)", "val (40 pairs)", "trainingQ/<scene>/im0"):
        assert words in result.out


def test_a_pair_without_any_readable_image_is_reported_not_raised(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    files = SampleFiles("a", tmp_path / "a.png", tmp_path / "no.png", tmp_path / "gt.pfm")
    finding = validate_pair(Job(files, max_disparity=192))
    assert [fault.kind for fault in finding.faults] == ["unreadable", "unreadable"]


@pytest.mark.parametrize(
    ("value", "kinds_found", "words"),
    [
        (-5, {"range", "sign"}, "100 % below 0 px"),
        (0, {"range"}, "100 % 0"),
        (500, {"range"}, "100 % at 192 px or above"),
    ],
)
def test_ground_truth_out_of_range_everywhere_is_a_fault(tmp_path, value, kinds_found, words):
    write_tree(tmp_path, "things")
    for frame in FRAMES:
        disparity = np.full(SHAPE, value, np.float32)
        Image.fromarray(disparity).save(tmp_path / DISPARITY / f"{frame}.pfm")
    report = check(tmp_path, "flyingthings3d", partial=True)
    assert (report["ok"], kinds(report)) == (False, kinds_found)
    assert words in report["faults"][0]["detail"]
    put(3)(tmp_path)  # one map with pixels to count
    assert "range" not in kinds(check(tmp_path, "flyingthings3d", partial=True))
    assert "range" in kinds(check(tmp_path, "flyingthings3d", partial=True, max_disparity=2))
