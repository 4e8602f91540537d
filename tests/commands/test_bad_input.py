import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import needs_proc, posix_only, slow_but
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from stereo.data.io.disparities import read_disparity, write_disparity
from stereo.geometry import Calibration
from stereo.matching.matcher import Matcher
from stereo.models import NetworkConfig, build_network
from stereo.models.checkpoint import Checkpoint, save_checkpoint
from stereo.system.locks import locked

SIZE = (24, 32)
SHORT = ("--max-disparity", "16")
DAMAGES = ["missing", "empty", "truncated", "zeros", "text"]


def command(*arguments, **options):
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    call = [sys.executable, "-m", "stereo", *map(str, arguments)]
    return subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def picture(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def truth(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.linspace(1, 9, size[0] * size[1], dtype=np.float32).reshape(size)
    write_disparity(path, values)
    return path


def damage(path, kind):
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "zeros":
        path.write_bytes(bytes(300))
    else:
        path.write_text("This is a note.\nIt has two lines.\n")


def written(folder):
    if not folder.exists():
        return []
    names = sorted(path.name for path in folder.rglob("*"))
    assert not [name for name in names if name.startswith(".") or "partial" in name]
    shown = folder / "pictures"  # of the report
    return [name for name in names if name != "pictures" and not (shown / name).exists()]


def assert_one_line(result, status, *words):
    assert result.status == status
    assert len(result.errors) == 1, result.errors
    for word in words:
        assert str(word) in result.errors[0]
    assert "Traceback" not in result.out


def told(errors):
    """Return the lines of stderr that are no warnings (random images make no pair)."""
    return [line for line in errors.splitlines() if not line.startswith("warning: ")]


@pytest.fixture
def pair(tmp_path):
    return picture(tmp_path / "l.png", seed=1), picture(tmp_path / "r.png", seed=2)


@pytest.fixture
def folders(tmp_path):
    for name in ("a", "b", "c"):
        picture(tmp_path / "L" / f"{name}.png", seed=1)
        picture(tmp_path / "R" / f"{name}.png", seed=2)
        truth(tmp_path / "D" / f"{name}.pfm")
    return tmp_path / "L", tmp_path / "R", tmp_path / "D"


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("side", [0, 1], ids=["left", "right"])
def test_an_image_that_cannot_be_read_is_one_line(stereo, pair, tmp_path, side, kind):
    damage(pair[side], kind)
    result = stereo("infer", *pair, "--output", tmp_path / "out", *SHORT)
    assert_one_line(result, 1, pair[side])
    assert written(tmp_path / "out") == []


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("suffix", [".png", ".pfm"])
def test_ground_truth_that_cannot_be_read_is_one_line(stereo, pair, tmp_path, suffix, kind):
    path = truth(tmp_path / f"gt{suffix}")
    damage(path, kind)
    out = tmp_path / "out"
    result = stereo("infer", *pair, "--output", out, "--ground-truth", path, *SHORT)
    assert_one_line(result, 1, path)
    assert set(written(out)) <= {"metrics.json", "report.html"}


@pytest.mark.parametrize("kind", slow_but("missing", of=["missing", "text"]))
def test_an_unreadable_image_is_one_line_from_a_fresh_process_too(pair, tmp_path, kind):
    damage(pair[0], kind)
    process = command("infer", *pair, "--output", tmp_path / "out", *SHORT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1, errors
    assert str(pair[0]) in errors
    assert "Traceback" not in out
    assert written(tmp_path / "out") == []


def test_a_disparity_map_given_as_an_image_is_one_line(stereo, pair, tmp_path):
    path = truth(tmp_path / "view.pfm")
    result = stereo("infer", path, pair[1], "--output", tmp_path / "out", *SHORT)
    assert_one_line(result, 1, path)


def test_views_of_different_sizes_are_one_line_with_both_sizes(stereo, pair, tmp_path):
    picture(pair[1], (24, 33))
    result = stereo("infer", *pair, "--output", tmp_path / "out", *SHORT)
    assert_one_line(result, 1, "32x24", "33x24", pair[0], pair[1])
    assert written(tmp_path / "out") == []


def test_ground_truth_of_another_size_is_one_line_with_both_sizes(stereo, pair, tmp_path):
    path = truth(tmp_path / "gt.pfm", (12, 16))
    out = tmp_path / "out"
    result = stereo("infer", *pair, "--output", out, "--ground-truth", path, *SHORT)
    assert_one_line(result, 1, path, "16x12", "32x24")
    assert set(written(out)) <= {"metrics.json", "report.html"}


def test_a_folder_against_a_file_is_one_line(stereo, folders, tmp_path):
    out = tmp_path / "out"
    result = stereo("infer", folders[0], folders[1] / "a.png", "--output", out)
    assert_one_line(result, 1, folders[0])
    said = result.errors[0].replace(str(tmp_path), "")
    assert "folder" in said and "file" in said
    assert written(out) == []


def test_a_missing_folder_is_one_line_that_calls_it_missing(stereo, folders, tmp_path):
    result = stereo("infer", tmp_path / "nowhere", folders[1], "--output", tmp_path / "out")
    assert_one_line(result, 1, tmp_path / "nowhere", "no such")


def test_a_file_without_a_partner_is_one_line_before_any_work(stereo, folders, tmp_path):
    (folders[1] / "b.png").unlink()
    result = stereo("infer", *folders[:2], "--output", tmp_path / "out")
    assert_one_line(result, 1, folders[0] / "b.png")
    assert written(tmp_path / "out") == []


def test_missing_values_in_ground_truth_do_not_count(stereo, pair, tmp_path):
    values = np.full(SIZE, 5, np.float32)
    values[:4] = np.nan
    values[4:8] = np.inf
    values[8:10] = 0
    write_disparity(tmp_path / "gt.pfm", values)
    out = tmp_path / "out"
    result = stereo("infer", *pair, "--output", out, "--ground-truth", tmp_path / "gt.pfm", *SHORT)
    assert (result.status, result.errors) == (0, [])
    report = json.loads((out / "metrics.json").read_text())
    disparity = read_disparity(out / "l_disparity.pfm")
    assert report["images"][0]["valid_pixels"] == report["summary"]["valid_pixels"] == 14 * 32
    assert report["images"][0]["epe"] == pytest.approx(np.abs(disparity[10:] - 5).mean())


@pytest.mark.parametrize(
    ("option", "known"),
    [
        (("--model", "nonsense"), ["sgbm", "psmnet", "ea_psmnet"]),
        (("--formats", "color,nonsense"), ["color", "pfm", "png16", "npy", "error"]),
        (("--device", "nonsense"), ["auto", "cpu", "cuda", "mps"]),
        (("--precision", "nonsense"), ["auto", "fp32", "bf16", "fp16"]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_an_unknown_name_is_a_usage_error_that_lists_the_known(
    stereo, pair, tmp_path, option, known
):
    result = stereo("infer", *pair, "--output", tmp_path / "out", *option)
    assert_one_line(result, 2, "nonsense", *known)
    assert written(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("changed", "known"),
    [
        ({"--dataset": "nonsense"}, ["manifest", "sceneflow", "flyingthings3d", "monkaa"]),
        (
            {"--protocol": "nonsense"},
            ["pooled", "psmnet", "gwcnet", "raft", "kitti2012", "kitti2015", "middlebury", "eth3d"],
        ),
        ({"--model": "nonsense"}, ["sgbm", "psmnet", "ea_psmnet"]),
        ({"--dataset": "sceneflow", "--split": "nonsense"}, ["test", "train"]),
        ({"--dataset": "sceneflow", "--pass": "nonsense"}, ["clean", "final"]),
    ],
    ids=["dataset", "protocol", "model", "split", "pass"],
)
def test_evaluate_lists_the_known_names(stereo, tmp_path, changed, known):
    options = {"--dataset": "manifest", "--root": tmp_path, "--output": tmp_path / "out"}
    result = stereo("evaluate", *(x for item in (options | changed).items() for x in item))
    assert_one_line(result, 2, "nonsense", *known)
    assert written(tmp_path / "out") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("infer",),
        ("infer", "l.png"),
        ("infer", "l.png", "r.png"),
        ("infer", "l.png", "r.png", "--output", "out", "--nonsense"),
        ("infer", "l.png", "r.png", "--output", ""),
        ("infer", "l.png", "r.png", "--output", "out", "--max-disparity", "many"),
        ("infer", "l.png", "r.png", "--output", "out", "--max-disparity", "17"),
        ("infer", "l.png", "r.png", "--output", "out", "--max-disparity", "0"),
        ("infer", "l.png", "r.png", "--output", "out", "--formats", ","),
        ("infer", "l.png", "r.png", "--output", "out", "--formats", "error"),
        ("evaluate", "--dataset", "manifest", "--root", ".", "--output", "out", "--limit", "0"),
        ("check-pair", "l.png", "r.png", "--max-disparity", "17"),
        ("convert", "x.tar", "--output", "x.safetensors"),
        ("convert", "x.tar", "--output", "x.safetensors", "--align-corners", "maybe"),
        ("convert", "x.tar", "--output", "x.tar", "--align-corners", "true"),
        ("infer", "l.png", "r.png", "--output", "out", "--ground-truth-scale", "0"),
        ("submit", "kitti2015", "--root", ".", "--output", "testing/image_2/0.png"),
        ("submit", "nothing", "--root", ".", "--output", "x.zip"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_one_line_and_status_2(stereo, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert_one_line(stereo(*arguments), 2, "stereo")
    assert written(tmp_path) == []


def test_an_untrained_network_is_refused_unless_asked_for(stereo, pair, tmp_path):
    result = stereo("infer", *pair, "--output", tmp_path / "out", "--model", "ea_psmnet")
    assert result.status != 0
    assert_one_line(result, result.status, "ea_psmnet", "--allow-untrained")
    assert written(tmp_path / "out") == []


def test_an_untrained_network_that_was_asked_for_is_a_warning(stereo, pair, tmp_path):
    options = ("--model", "psmnet", "--allow-untrained", *SHORT)
    result = stereo("infer", *pair, "--output", tmp_path / "out", *options)
    assert result.status == 0
    assert "'psmnet' runs with random weights; its map means nothing" in result.errors[0]


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_checkpoint_that_cannot_be_read_is_one_line(stereo, pair, tmp_path, kind):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pair[0].read_bytes())
    damage(path, kind)
    result = stereo("infer", *pair, "--output", tmp_path / "out", "--model", path)
    assert_one_line(result, 1, path)


@pytest.mark.parametrize(
    "below", ["file", "file/deeper", pytest.param("/proc/nope", marks=needs_proc)]
)
@pytest.mark.parametrize("name", ["infer", "evaluate"])
def test_an_output_folder_that_cannot_be_written_is_one_line(stereo, pair, tmp_path, name, below):
    (tmp_path / "file").write_text("x")
    out = tmp_path / below
    manifest(tmp_path, entry("a", pair[0].name, pair[1].name, truth(tmp_path / "gt.pfm").name))
    arguments = pair if name == "infer" else ("--dataset", "manifest", "--root", tmp_path)
    assert_one_line(stereo(name, *arguments, "--output", out), 1, out, "--output")
    assert (tmp_path / "file").read_text() == "x"


def test_a_target_that_is_a_folder_is_one_line_and_nothing_of_the_pair_is_written(
    stereo, pair, tmp_path
):
    out = tmp_path / "out"
    (out / "l_disparity.pfm" / "inside").mkdir(parents=True)
    assert_one_line(stereo("infer", *pair, "--output", out, *SHORT), 1, "l_disparity.pfm")
    assert written(out) == ["inside", "l_disparity.pfm"]


def limit_files(size):
    import resource  # of POSIX

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@posix_only
def test_a_full_disk_is_one_line_and_leaves_nothing(pair, tmp_path):
    for path in pair:
        picture(path, (100, 200), seed=3)
    process = command(
        "infer",
        *pair,
        "--output",
        tmp_path / "out",
        "--formats",
        "npy,color,pfm,png16",
        *SHORT,
        preexec_fn=lambda: limit_files(20_000),
    )
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(told(errors)) == 1, errors
    assert "l_disparity.npy" in errors
    assert "Traceback" not in out
    assert written(tmp_path / "out") == []


@posix_only
@pytest.mark.parametrize("name", ["color", "pfm", "png16", "npy"])
def test_every_format_survives_a_full_disk(stereo, pair, tmp_path, name):
    left = np.asarray(Image.open(picture(pair[0], (100, 200), seed=3)))
    # Row bands of different disparities, so that no file compresses to less than the limit.
    right = np.stack([np.roll(row, -(3 * y // 10) % 14, axis=0) for y, row in enumerate(left)])
    Image.fromarray(right).save(pair[1])
    import resource  # of POSIX

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (900, limits[1]))
    try:
        arguments = ("infer", *pair, "--output", tmp_path / "out", "--formats", name, *SHORT)
        result = stereo(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_one_line(result, 1, f"{tmp_path}/out")
    assert written(tmp_path / "out") == []


@pytest.mark.slow
@posix_only
def test_ctrl_c_in_a_folder_run_leaves_complete_pairs_only(tmp_path):
    left, right = tmp_path / "L", tmp_path / "R"
    picture(left / "00.png", (120, 160), seed=1)
    picture(right / "00.png", (120, 160), seed=2)
    for i in range(1, 60):
        shutil.copy(left / "00.png", left / f"{i:02}.png")
        shutil.copy(right / "00.png", right / f"{i:02}.png")
    out = tmp_path / "out"
    process = command(
        "infer", left, right, "--output", out, "--formats", "color,pfm,png16,npy", *SHORT
    )
    for line in process.stdout:
        if line.startswith("02:"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(told(errors)) == 1, errors
    assert "interrupted" in errors
    names = written(out)
    pairs = {name[:2] for name in names}
    assert 3 <= len(pairs) < 60
    endings = ("_color.png", "_disparity.npy", "_disparity.pfm", "_disparity.png")
    assert names == sorted(f"{name}{ending}" for name in pairs for ending in endings)
    for path in out.glob("*.pfm"):
        assert read_disparity(path).shape == (120, 160)


@pytest.mark.parametrize(
    "fault", ["left", "right", "truth", "right size", "truth size"], ids=lambda fault: fault
)
def test_one_bad_pair_is_named_and_the_others_are_written(stereo, folders, tmp_path, fault):
    left, right, disparities = folders
    bad = {
        "left": left / "b.png",
        "right": right / "b.png",
        "truth": disparities / "b.pfm",
        "right size": right / "b.png",
        "truth size": disparities / "b.pfm",
    }[fault]
    if fault == "right size":
        picture(bad, (20, 20))
    elif fault == "truth size":
        truth(bad, (20, 20))
    else:
        damage(bad, "truncated")
    out = tmp_path / "out"
    result = stereo("infer", left, right, "--output", out, "--ground-truth", disparities, *SHORT)
    assert_one_line(result, 1, bad)
    endings = ("_color.png", "_disparity.pfm", "_error.png")
    assert written(out) == sorted(
        ["metrics.json", "report.html", *(f"{n}{ending}" for n in "ac" for ending in endings)]
    )
    report = json.loads((out / "metrics.json").read_text())
    assert [image["name"] for image in report["images"]] == ["a", "c"]


def test_every_bad_pair_gets_its_own_line(stereo, folders, tmp_path):
    for name in ("a", "c"):
        damage(folders[0] / f"{name}.png", "text")
    out = tmp_path / "out"
    result = stereo("infer", *folders[:2], "--output", out, *SHORT)
    assert result.status == 1
    assert len(result.errors) == 2
    assert "a.png" in result.errors[0]
    assert "c.png" in result.errors[1]
    assert written(out) == ["b_color.png", "b_disparity.pfm"]


@pytest.mark.parametrize("model", ["sgbm", "ea_psmnet"])
def test_unusual_images_give_a_finite_map_of_their_size(stereo, tmp_path, model):
    sizes = {"one": (1, 1), "few": (3, 5), "row": (1, 40), "column": (40, 1), "flat": (20, 30)}
    for view in ("L", "R"):
        for name, size in sizes.items():
            picture(tmp_path / view / f"{name}.png", size)
        Image.new("RGB", (30, 20), (90, 120, 9)).save(tmp_path / view / "flat.png")
    out = tmp_path / "out"
    options = ("--model", model, "--formats", "color,npy,pfm,png16", *SHORT)
    extra = ("--allow-untrained",) if model != "sgbm" else ()
    folders = (tmp_path / "L", tmp_path / "R")
    result = stereo("infer", *folders, "--output", out, *options, *extra)
    assert result.status == 0, result.errors
    assert told("\n".join(result.errors)) == []
    for name, size in sizes.items():
        disparity = np.load(out / f"{name}_disparity.npy")
        assert disparity.shape == size
        assert disparity.dtype == np.float32
        assert np.isfinite(disparity).all()
        assert (disparity >= 0).all()


def entry(name, left, right, gt, **more):
    return {"name": name, "left": left, "right": right, "gt": gt} | more


def manifest(root, *entries):
    (root / "manifest.json").write_text(json.dumps(list(entries)))


@pytest.fixture
def evaluate(stereo, tmp_path):
    def call(*options):
        arguments = ("--dataset", "manifest", "--root", tmp_path, "--output", tmp_path / "out")
        return stereo("evaluate", *arguments, *SHORT, *options)

    return call


def test_evaluate_names_an_unreadable_pair_and_continues(evaluate, folders, tmp_path):
    manifest(tmp_path, *(entry(n, f"L/{n}.png", f"R/{n}.png", f"D/{n}.pfm") for n in "abc"))
    damage(folders[1] / "b.png", "truncated")
    assert_one_line(evaluate(), 1, "b", folders[1] / "b.png")
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [image["name"] for image in report["images"]] == ["a", "c"]
    assert report["summary"]["images"] == 2
    assert written(tmp_path / "out") == ["metrics.json", "report.html"]


@pytest.mark.parametrize("fault", ["no gt", "gt size", "no left", "right size"])
def test_evaluate_names_every_kind_of_bad_pair(evaluate, folders, tmp_path, fault):
    manifest(tmp_path, *(entry(n, f"L/{n}.png", f"R/{n}.png", f"D/{n}.pfm") for n in "abc"))
    if fault == "no gt":
        damage(folders[2] / "b.pfm", "missing")
    elif fault == "gt size":
        truth(folders[2] / "b.pfm", (3, 3))
    elif fault == "no left":
        damage(folders[0] / "b.png", "missing")
    else:
        picture(folders[1] / "b.png", (3, 3))
    assert_one_line(evaluate(), 1, "b.")


@pytest.mark.parametrize("missing", [np.nan, np.inf, 0], ids=str)
def test_an_image_without_valid_pixels_is_skipped_counted_and_named(
    evaluate, folders, tmp_path, missing
):
    manifest(tmp_path, *(entry(n, f"L/{n}.png", f"R/{n}.png", f"D/{n}.pfm") for n in "abc"))
    write_disparity(folders[2] / "b.pfm", np.full(SIZE, missing, np.float32))
    result = evaluate()
    assert (result.status, result.errors) == (0, [])
    assert any("b" in line and "skipped" in line for line in result.out.splitlines())
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    summary = report["summary"]
    assert (summary["images"], summary["skipped"]) == (2, 1)
    assert summary["skipped_names"] == ["b"]
    counted = [image["epe"] for image in report["images"] if image["name"] != "b"]
    assert summary["epe_image"] == pytest.approx(np.mean(counted))


def test_a_set_without_any_valid_pixel_gives_no_metrics(evaluate, folders, tmp_path):
    manifest(tmp_path, entry("a", "L/a.png", "R/a.png", "D/a.pfm"))
    write_disparity(folders[2] / "a.pfm", np.full(SIZE, np.inf, np.float32))
    result = evaluate()
    assert result.errors == []
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["summary"].get("epe_pixel") is None
    assert report["summary"]["skipped"] == 1


@pytest.mark.parametrize("key", ["name", "left", "right", "gt"])
def test_a_manifest_entry_without_a_key_is_one_line(evaluate, tmp_path, key):
    broken = {k: v for k, v in entry("b", "l.png", "r.png", "g.pfm").items() if k != key}
    manifest(tmp_path, entry("a", "l.png", "r.png", "g.pfm"), broken)
    assert_one_line(evaluate(), 1, tmp_path / "manifest.json", key)
    assert written(tmp_path / "out") == []


def test_duplicate_names_in_a_manifest_are_one_line(evaluate, tmp_path):
    manifest(tmp_path, *[entry("twice", "l.png", "r.png", "g.pfm")] * 2)
    assert_one_line(evaluate(), 1, tmp_path / "manifest.json", "twice")


@pytest.mark.parametrize(
    "content",
    [
        b"not JSON\nat all",
        b"",
        b"[",
        b"{}",
        b"[]",
        b"3",
        b"null",
        b"[1]",
        b'["a"]',
        b"\xff\xfe\x00[]",
        b'[{"name": 1, "left": "l", "right": "r", "gt": "g"}]',
        b'[{"name": "a", "left": "l", "right": "r", "gt": "g", "gt_scale": 0}]',
        b'[{"name": "a", "left": "l", "right": "r", "gt": "g", "gt_scale": "4"}]',
    ],
    ids=lambda content: content[:24].decode("latin-1"),
)
def test_a_manifest_of_another_form_is_one_line(evaluate, tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    assert_one_line(evaluate(), 1, tmp_path / "manifest.json")


def test_a_root_without_a_manifest_is_one_line(evaluate, tmp_path):
    assert_one_line(evaluate(), 1, tmp_path / "manifest.json")


@pytest.mark.parametrize("dataset", ["manifest", "sceneflow"])
def test_a_missing_root_is_one_line(stereo, tmp_path, dataset):
    root = tmp_path / "nowhere"
    result = stereo("evaluate", "--dataset", dataset, "--root", root, "--output", tmp_path / "out")
    assert_one_line(result, 1, root)


def test_a_root_of_another_data_set_names_the_expected_one(stereo, folders, tmp_path):
    options = ("--root", tmp_path, "--output", tmp_path / "out")
    result = stereo("evaluate", "--dataset", "sceneflow", *options)
    assert_one_line(result, 1, tmp_path, "frames_finalpass")


@pytest.mark.parametrize("ending", ["", "/*.png"])
def test_maps_that_the_next_run_would_take_for_images_are_refused(
    stereo, folders, tmp_path, ending
):
    lefts, rights, _ = (f"{folder}{ending}" for folder in folders)
    result = stereo("infer", lefts, rights, "--output", tmp_path / "L", *SHORT)
    assert_one_line(result, 1, "a_color.png", "the next run would take it for an image")
    assert written(tmp_path / "L") == ["a.png", "b.png", "c.png"]


def test_pictures_of_the_report_are_no_images_of_the_next_run(stereo, folders, tmp_path):
    lefts, rights, truth = folders
    output = tmp_path / "L" / "out"
    options = ("--ground-truth", truth, "--output", output, *SHORT, "--formats", "npy")
    result = stereo("infer", lefts, rights, *options)
    assert_one_line(result, 1, "00000_", "the next run would take it for an image")
    assert not output.exists()


def test_an_input_is_never_overwritten(stereo, tmp_path):
    left, right = picture(tmp_path / "a.png", seed=1), picture(tmp_path / "b.png", seed=2)
    ground_truth = truth(tmp_path / "a_disparity.pfm")
    before = ground_truth.read_bytes()
    call = ("infer", left, right, "--output", tmp_path, "--ground-truth", ground_truth, *SHORT)
    assert_one_line(stereo(*call), 1, "a_disparity.pfm", "overwritten")
    assert ground_truth.read_bytes() == before
    assert written(tmp_path) == ["a.png", "a_disparity.pfm", "b.png"]


def test_one_file_as_both_views_is_one_line(stereo, pair, tmp_path):
    result = stereo("infer", pair[0], pair[0], "--output", tmp_path / "out", *SHORT)
    assert_one_line(result, 1, pair[0], "left and as the right")


@pytest.mark.parametrize("scale", ["0", "-2"])
def test_a_scale_that_is_not_positive_is_one_line(stereo, pair, tmp_path, scale):
    write_disparity(tmp_path / "gt.png", np.ones(SIZE, np.float32))
    call = ("infer", *pair, "--output", tmp_path / "out", *SHORT)
    result = stereo(*call, "--ground-truth", tmp_path / "gt.png", f"--ground-truth-scale={scale}")
    assert_one_line(result, 2, "positive")
    assert written(tmp_path / "out") == []


@pytest.mark.parametrize("argument", ["x" * 300, "[z-a]*.png", ""])
def test_inaccessible_paths_are_one_line(stereo, pair, tmp_path, argument):
    result = stereo("infer", argument, pair[1], "--output", tmp_path / "out", *SHORT)
    assert_one_line(result, 1)


def test_sgbm_refuses_disparities_beyond_its_fixed_point(stereo, pair, tmp_path):
    call = ("infer", *pair, "--output", tmp_path / "out", "--model", "sgbm")
    assert_one_line(stereo(*call, "--max-disparity", "4096"), 2, "2048")


def test_running_out_of_memory_is_one_line_and_other_pairs_continue(
    stereo, folders, tmp_path, monkeypatch
):
    from stereo.matching import sgbm

    match, calls = sgbm.semi_global_matching, []

    def fail_once(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise MemoryError
        return match(*arguments)

    monkeypatch.setattr(sgbm, "semi_global_matching", fail_once)
    call = ("infer", *folders[:2], "--output", tmp_path / "out", "--formats", "pfm", *SHORT)
    assert_one_line(stereo(*call, "--model", "sgbm"), 1, "out of memory")
    assert written(tmp_path / "out") == ["a_disparity.pfm", "c_disparity.pfm"]


@pytest.mark.parametrize(
    "changed",
    [
        {"max_disparity": 192.0},
        {"max_disparity": 100},
        {"mean": [1, 2]},
        {"mean": "abc"},
        {"std": [0, 0, 0]},
        {"attention": {"options": {"heads": 0}}},
        {"attention": {"options": {"heads": -1}}},
        {"attention": {"options": {"key_channels": -3}}},
        {"attention": {"options": {"key_channels": 0}}},
        {"attention": {"options": {"unknown": 1}}},
        {"attention": {"name": "unknown"}},
        {"attention": {}},
        {"attention": None},
        {"attention": []},
        {"attention": {"name": "efficient", "options": None}},
        {"attention": {"name": "efficient", "options": []}},
        {"mean": [True, 0.4, 0.4]},
        {"surprise": 1},
    ],
    ids=str,
)
def test_damaged_metadata_of_a_checkpoint_are_one_line(stereo, pair, tmp_path, changed):
    config = NetworkConfig("ea_psmnet", 16)
    path = tmp_path / "it.safetensors"
    save_checkpoint(path, Checkpoint(config, build_network(config).state_dict()))
    with safe_open(path, "pt") as file:
        metadata, weights = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    metadata["network"] = json.dumps(config.to_dict() | changed)
    save_file(weights, path, metadata)
    result = stereo("infer", *pair, "--output", tmp_path / "out", "--model", path, *SHORT)
    assert_one_line(result, 1, path)


def test_weights_that_are_not_finite_are_one_line(stereo, pair, tmp_path):
    config = NetworkConfig("psmnet_basic", 16)
    weights = build_network(config).state_dict()
    weights["features.project.weight"][0] = torch.nan
    path = tmp_path / "it.safetensors"
    save_checkpoint(path, Checkpoint(config, weights))
    result = stereo("infer", *pair, "--output", tmp_path / "out", "--model", path, *SHORT)
    assert_one_line(result, 1, path, "not finite")


def test_several_processes_are_refused_by_undistributed_commands(stereo, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_one_line(stereo("demo", "--output", tmp_path / "out"), 2, "torchrun")


def a_calibration(path, size=None):
    Calibration.rectified(fx=40, cx0=16, cy=12, baseline=0.1, size=size).write(path)
    return path


@pytest.fixture
def no_model(monkeypatch):
    """Fail the test where a model is loaded."""

    def load(*_, **__):
        pytest.fail("the model was loaded")

    monkeypatch.setattr("stereo.matching.loading.load", load)


@pytest.mark.parametrize(
    ("options", "status", "word"),
    [
        (("--formats", "nonsense"), 2, "nonsense"),
        (("--min-confidence", "90", "--calibration", "CALIB"), 2, "90"),
        (("--max-depth", "-1", "--calibration", "CALIB"), 2, "-1"),
        (("--formats", "depth"), 2, "--calibration"),
        (("--formats", "pfm,ply"), 2, "--calibration"),
        (("--calibration", "nowhere.txt"), 1, "nowhere.txt"),
        (("--calibration", "LEFT"), 1, "l.png"),
        (("--calibration", "WIDE"), 1, "64x24"),
        (("--formats", "video"), 2, "video"),
        (("--packing", "side-by-side"), 2, "--packing"),
        (("--ground-truth", "nowhere.pfm"), 1, "nowhere.pfm"),
        (("--steady", "--resume"), 2, "--resume skips frames that --steady needs"),
        (("--ground-truth", "TRUTH", "--resume"), 2, "--resume"),
        (("--view", "right", "--ground-truth", "TRUTH"), 2, "--view"),
        (("--view", "right", "--ground-truth", "TRUTH", "--formats", "error"), 2, "--view"),
        (("--formats", "color", "--calibration", "CALIB", "--max-depth", "9"), 2, "--max-depth"),
        (("--formats", "color", "--min-confidence", "0.5"), 2, "--min-confidence"),
        (
            ("--formats", "depth", "--calibration", "CALIB", "--keep-flying-points"),
            2,
            "--keep-flying-points",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_call_of_infer_is_found_before_the_model_is_loaded(
    stereo, pair, tmp_path, no_model, options, status, word
):
    made = {
        "CALIB": a_calibration(tmp_path / "calib.json"),
        "WIDE": a_calibration(tmp_path / "wide.json", size=(64, 24)),
        "LEFT": pair[0],
        "TRUTH": truth(tmp_path / "gt.pfm"),
    }
    given = [made.get(option, option) for option in options]
    result = stereo("infer", *pair, "--output", tmp_path / "new" / "out", *given)
    assert_one_line(result, status, word)
    assert result.out == ""
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"--dataset": "nonsense"}, 2),
        ({"--protocol": "nonsense"}, 2),
        ({"--root": "nowhere"}, 1),
        ({"--limit": "0"}, 2),
    ],
    ids=str,
)
def test_a_wrong_call_of_evaluate_is_found_before_the_model_is_loaded(
    stereo, tmp_path, folders, no_model, changed, status
):
    manifest(tmp_path, entry("a", "L/a.png", "R/a.png", "D/a.pfm"))
    options = {"--dataset": "manifest", "--root": tmp_path, "--output": tmp_path / "new" / "out"}
    result = stereo("evaluate", *(x for item in (options | changed).items() for x in item))
    assert_one_line(result, status, *changed.values())
    assert result.out == ""
    assert not (tmp_path / "new").exists()


def test_unused_new_folders_are_removed_and_others_stay(stereo, pair, tmp_path):
    damage(pair[1], "truncated")
    stays = tmp_path / "stays"
    stays.mkdir()
    result = stereo("infer", *pair, "--output", stays / "a" / "b", *SHORT)
    assert_one_line(result, 1, "r.png")
    assert list(stays.iterdir()) == []
    damaged = tmp_path / "w.safetensors"
    damaged.write_bytes(b"not weights")
    result = stereo("infer", *pair, "--output", stays / "a", "--model", damaged)
    assert_one_line(result, 1, "w.safetensors")
    assert list(stays.iterdir()) == []


def test_a_calibration_of_another_shape_is_found_before_the_match(
    stereo, folders, tmp_path, monkeypatch
):
    picture(folders[0] / "b.png", (24, 64))
    picture(folders[1] / "b.png", (24, 64))
    matched = []
    call = Matcher.__call__
    monkeypatch.setattr(
        Matcher,
        "__call__",
        lambda self, *views, **kw: matched.append(1) or call(self, *views, **kw),
    )
    calibration = a_calibration(tmp_path / "calib.json", size=SIZE[::-1])
    out = tmp_path / "out"
    options = ("--calibration", calibration, "--formats", "depth", "--model", "sgbm")
    result = stereo("infer", *folders[:2], "--output", out, *options, *SHORT)
    assert_one_line(result, 1, "b: the calibration is for 32x24", "64x24")
    assert len(matched) == 2
    assert written(out) == ["a_depth.npy", "a_depth.png", "c_depth.npy", "c_depth.png"]


CALIBRATION = """cam0=[500 0 320; 0 500 240; 0 0 1]
cam1=[500 0 320; 0 500 240; 0 0 1]
doffs=0
baseline=100
width=32
height=24
ndisp=16
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CALIBRATION.replace("width=32", "width=0"), "size is 0x24"),
        (CALIBRATION.replace("width=32", "width=-32"), "size is -32x24"),
        (CALIBRATION.partition("0\nwidth")[0], "ends with 'baseline=10'"),
        ("P2: 0 0 9 0 0 0 9 0 0 0 1 0\nP3: 0 0 9 -9 0 0 9 0 0 0 1 0\n", "focal length is 0"),
    ],
)
@pytest.mark.parametrize("name", ["infer", "rectify"])
def test_an_impossible_calibration_is_one_line(stereo, pair, tmp_path, name, text, words):
    path = tmp_path / "calib.txt"
    path.write_text(text)
    call = (name, *pair[:2], "--calibration", path, "--output", tmp_path / "out")
    if name == "infer":
        call += ("--model", "sgbm", *SHORT)
    assert_one_line(stereo(*call), 1, path, words)


@pytest.mark.parametrize("kind", DAMAGES)
def test_an_archive_that_cannot_be_read_is_one_line(stereo, tmp_path, kind):
    for folder in ("image_2", "image_3"):
        picture(tmp_path / "data" / "testing" / folder / "000000_10.png")
    archive = tmp_path / "x.zip"
    call = ("submit", "kitti2015", "--root", tmp_path / "data", "--partial")
    assert stereo(*call, "--output", archive, "--model", "sgbm", *SHORT).status == 0
    damage(archive, kind)
    assert_one_line(stereo(*call, "--validate", archive), 1, f"{archive}: ")


@pytest.mark.parametrize(
    "call",
    [
        ("infer", "left.png", "right.png", "--model", "sgbm"),
        ("evaluate", "--dataset", "manifest", "--root", "set", "--model", "sgbm"),
        ("demo",),
        ("rectify", "left.png", "right.png", "--calibration", "cameras.json"),
    ],
    ids=lambda call: call[0],
)
def test_a_folder_that_another_run_writes_to_is_refused(stereo, tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "left.png")
    picture(tmp_path / "right.png", seed=1)
    entry = {"name": "a", "left": "../left.png", "right": "../right.png", "gt": "gt.npy"}
    truth(tmp_path / "set" / "gt.npy")
    (tmp_path / "set" / "manifest.json").write_text(json.dumps([entry]))
    Calibration.rectified(fx=40, cx0=16, cy=12, baseline=0.1).write(tmp_path / "cameras.json")
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        result = stereo(*call, "--output", "out")
    assert result.status == 1
    assert "another run" in result.errors[-1] and "is writing to out" in result.errors[-1]
    assert written(tmp_path / "out") == []


def test_a_folder_that_scenes_are_rendered_to_is_refused(stereo, tmp_path):
    with locked(tmp_path):
        result = stereo("data", "synthesize", "--root", tmp_path, "--count", 1)
    assert_one_line(result, 1, "another run", f"is writing to {tmp_path}")
