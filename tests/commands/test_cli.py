import json
import os
import pickle
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, posix_only, shared
from PIL import Image

import stereo as package
from stereo.commands import COMMANDS as COMMAND_TABLE
from stereo.commands import GROUPS
from stereo.commands.cli import _build_parser, _chosen, main, run
from stereo.commands.matching import _against as against
from stereo.data.io.disparities import read_disparity, write_disparity
from stereo.matching.loading import own_max_disparity
from stereo.models import NetworkConfig, build_network
from stereo.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

SIZE = (24, 40)
SHIFT = 5
SHORT = ("--max-disparity", "16")
COMMANDS = [command.name for command in COMMAND_TABLE]


def views(folder, name="scene", size=SIZE, seed=0):
    """Write a scene at one depth, its left view and its right view."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[0], size[1] + SHIFT, 3), np.uint8)
    paths = folder / "L" / f"{name}.png", folder / "R" / f"{name}.png"
    for path, view in zip(paths, (noise[:, :-SHIFT], noise[:, SHIFT:]), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(view).save(path)
    return paths


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", [*COMMANDS, *GROUPS])
def test_help_of_a_command_has_an_example(stereo, name):
    result = stereo(*name.split(), "--help")
    assert (result.status, result.errors) == (0, [])
    assert "example" in result.out
    assert f"stereo {name}" in result.out.split("example")[-1]


@pytest.mark.parametrize("command", COMMAND_TABLE, ids=lambda command: command.name)
def test_examples_in_the_help_are_valid_calls(command):
    for line in command.example.splitlines():
        program, *words = shlex.split(line)
        assert program == "stereo"
        name, config = _chosen(_build_parser(words)[0].parse_args(words))
        assert name in {command.name, "infer"}  # some examples go on to match
        if config.get("against"):
            assert against(config)


def test_help_lists_the_commands(stereo):
    result = stereo("--help")
    assert (result.status, result.errors) == (0, [])
    assert all(name.split()[0] in result.out for name in COMMANDS)


def test_no_command_prints_the_help_and_is_a_wrong_call(stereo):
    result = stereo()
    assert result.status == 2
    assert "infer" in result.out + "\n".join(result.errors)


def test_version_is_that_of_the_package(stereo):
    result = stereo("--version")
    assert (result.status, result.errors) == (0, [])
    assert result.out.split() == ["stereo", package.__version__]


def test_the_package_runs_as_a_module():
    call = [sys.executable, "-m", "stereo", "--version"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert package.__version__ in done.stdout


def test_the_default_formats_are_an_image_and_a_pfm(stereo, tmp_path):
    result = stereo("infer", *views(tmp_path), "--output", tmp_path / "out", *SHORT)
    assert (result.status, result.errors) == (0, [])
    assert names(tmp_path / "out") == ["scene_color.png", "scene_disparity.pfm"]


@pytest.mark.parametrize("size", [(24, 40), (23, 41), (7, 190), (90, 11)], ids=str)
def test_every_format_has_its_name_type_and_size(stereo, tmp_path, size):
    out = tmp_path / "out"
    formats = ("--formats", "color,pfm,png16,npy")
    result = stereo("infer", *views(tmp_path, size=size), "--output", out, *formats, *SHORT)
    assert (result.status, result.errors) == (0, [])
    assert names(out) == [
        "scene_color.png",
        "scene_disparity.npy",
        "scene_disparity.pfm",
        "scene_disparity.png",
    ]
    disparity = read_disparity(out / "scene_disparity.pfm")
    assert disparity.dtype == np.float32
    assert disparity.shape == size
    assert np.isfinite(disparity).all()
    assert (disparity >= 0).all()
    array = np.load(out / "scene_disparity.npy")
    assert array.dtype == np.float32
    assert np.array_equal(array, disparity)
    with Image.open(out / "scene_disparity.png") as picture:
        stored = np.asarray(picture)
    assert stored.dtype == np.uint16
    assert np.array_equal(stored, np.rint(256 * disparity.astype(np.float64)))
    with Image.open(out / "scene_color.png") as picture:
        assert picture.mode == "RGB"
        assert picture.width >= size[1]
        assert picture.height >= size[0]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """Write a checkpoint whose own range is 32 px."""
    config = NetworkConfig("ea_stereo_fast", 32)
    path = tmp_path_factory.mktemp("narrow") / "narrow.safetensors"
    save_checkpoint(path, Checkpoint(config, build_network(config).state_dict()))
    return path


def test_a_checkpoint_is_searched_over_its_own_range(stereo, tmp_path, narrow):
    call = ("infer", *views(tmp_path), "--output", tmp_path / "out", "--model")
    assert "max disparity 32 px" in stereo(*call, narrow).out
    assert "max disparity 48 px" in stereo(*call, narrow, "--max-disparity", "48").out
    assert "max disparity 192 px" in stereo(*call, "sgbm").out
    write_disparity(tmp_path / "truth.pfm", np.full(SIZE, SHIFT, np.float32))
    entry = {"name": "a", "left": "L/scene.png", "right": "R/scene.png", "gt": "truth.pfm"}
    (tmp_path / "manifest.json").write_text(json.dumps([entry]))
    call = (
        "evaluate",
        "--dataset",
        "manifest",
        "--root",
        tmp_path,
        "--output",
        tmp_path / "scores",
    )
    assert stereo(*call, "--model", narrow, "--against", "sgbm").status == 0
    report = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert report["model"]["max_disparity"] == 32
    against = json.loads((tmp_path / "scores" / "against" / "sgbm" / "metrics.json").read_text())
    assert against["model"]["max_disparity"] == 192


@pytest.mark.parametrize(
    "command",
    ["infer", "evaluate", "submit", "export", "benchmark inference", "benchmark training"],
)
def test_help_states_that_the_range_is_the_models_own(stereo, command):
    said = " ".join(stereo(*command.split(), "--help").out.split())
    assert re.search(r"--max-disparity \S+ [^-]*own", said)


def test_the_default_range_is_the_checkpoints_or_192(narrow):
    bundled = load_checkpoint(REPOSITORY / "checkpoints" / "ea_stereo_fast.safetensors")
    assert own_max_disparity(narrow) == own_max_disparity(str(narrow)) == 32
    assert own_max_disparity("ea_stereo_fast") == bundled.config.max_disparity
    assert own_max_disparity("sgbm") == own_max_disparity("psmnet") == 192


def test_a_shifted_scene_gets_its_shift(stereo, tmp_path):
    stereo("infer", *views(tmp_path, size=(60, 90)), "--output", tmp_path / "out", *SHORT)
    median = np.median(read_disparity(tmp_path / "out" / "scene_disparity.pfm"))
    assert median == pytest.approx(SHIFT, abs=0.5)


def test_spaces_and_repeats_in_the_list_of_formats_are_harmless(stereo, tmp_path):
    out = tmp_path / "out"
    result = stereo("infer", *views(tmp_path), "--output", out, "--formats", "npy, pfm,npy", *SHORT)
    assert (result.status, result.errors) == (0, [])
    assert names(out) == ["scene_disparity.npy", "scene_disparity.pfm"]


def test_ground_truth_adds_metrics_an_error_map_and_a_table(stereo, tmp_path):
    pair = views(tmp_path)
    write_disparity(tmp_path / "gt.pfm", np.full(SIZE, SHIFT, np.float32))
    out = tmp_path / "out"
    result = stereo("infer", *pair, "--output", out, "--ground-truth", tmp_path / "gt.pfm", *SHORT)
    assert (result.status, result.errors) == (0, [])
    assert names(out) == [
        "metrics.json",
        "pictures",
        "report.html",
        "scene_color.png",
        "scene_disparity.pfm",
        "scene_error.png",
    ]
    assert "EPE" in result.out
    assert "protocol pooled" in result.out
    report = json.loads((out / "metrics.json").read_text())
    assert_contract(report)
    (image,) = report["images"]
    error = np.abs(read_disparity(out / "scene_disparity.pfm") - SHIFT)
    assert image["name"] == "scene"
    assert image["valid_pixels"] == error.size
    assert image["epe"] == pytest.approx(error.mean())
    assert image["bad_2"] == pytest.approx(100 * (error > 2).mean())


def test_the_error_map_is_grey_where_the_protocol_counts_nothing(stereo, tmp_path):
    truth = np.full(SIZE, SHIFT, np.float32)
    truth[:, 30:] = 200  # beyond 192 px
    write_disparity(tmp_path / "gt.pfm", truth)
    options = ("--ground-truth", tmp_path / "gt.pfm", *SHORT, "--model", "sgbm")
    assert stereo("infer", *views(tmp_path), "--output", tmp_path / "out", *options).status == 0
    error = np.asarray(Image.open(tmp_path / "out" / "scene_error.png"))
    grey = (error == 128).all(axis=2)[: SIZE[0], : SIZE[1]]
    assert grey[:, 30:].all() and not grey[:, :30].any()


def assert_contract(report):
    assert report["model"]["name"] == package.DEFAULT_MODEL
    assert {"name", "pass", "split", "mask", "averaging"} <= report["protocol"].keys()
    keys = {"name", "epe", "bad_1", "bad_2", "bad_3", "d1", "valid_pixels", "seconds"}
    assert all(keys <= image.keys() for image in report["images"])
    figures = ("epe", "bad_1", "bad_2", "bad_3", "d1")
    averages = {f"{figure}_{kind}" for figure in figures for kind in ("pixel", "image")}
    keys_of_all = averages | {"images", "skipped", "valid_pixels"}
    assert keys_of_all <= report["summary"].keys()
    assert keys_of_all | {"mask"} <= report["noc"].keys()
    for image in report["images"]:
        assert keys - {"name", "seconds"} | {"mask"} == image["noc"].keys() & (keys | {"mask"})


def test_metrics_of_nonoccluded_pixels_are_reported_beside_all(stereo, tmp_path):
    pair = views(tmp_path)
    write_disparity(tmp_path / "gt.pfm", np.full(SIZE, SHIFT, np.float32))
    out = tmp_path / "out"
    options = ("--ground-truth", tmp_path / "gt.pfm", *SHORT, "--model", "sgbm")
    result = stereo("infer", *pair, "--output", out, *options)
    report = json.loads((out / "metrics.json").read_text())
    error = np.abs(read_disparity(out / "scene_disparity.pfm") - SHIFT)
    seen = error[:, SHIFT:]  # the first columns lie outside the right view
    (image,) = report["images"]
    assert image["noc"]["mask"] == report["noc"]["mask"] == "geometry"
    assert image["noc"]["valid_pixels"] == report["noc"]["valid_pixels"] == seen.size
    assert report["noc"]["epe_image"] == report["noc"]["epe"] == pytest.approx(seen.mean())
    assert image["noc"]["bad_2"] == pytest.approx(100 * (seen > 2).mean())
    for label, value in (("all", error.mean()), ("noc", seen.mean())):
        (row,) = [
            line for line in result.out.splitlines() if line.startswith(f"| all images | {label} ")
        ]
        assert f"{value:.2f}" in row
    assert f"noc EPE {seen.mean():.3f} px" in result.out


@pytest.mark.parametrize(
    ("file", "scale", "said"),
    [
        ("gt.pfm", 64, "about 64 times the map everywhere: stored with a scale? divide it by 64"),
        (
            "gt.npy",
            1 / 40,
            "1/40 of the map everywhere: stored with a scale, divided by the image",
        ),
        ("gt.png", 0.25, "give --ground-truth-scale 64"),  # 16-bit, read as x 256
    ],
)
def test_ground_truth_in_another_unit_gets_one_hint(stereo, tmp_path, file, scale, said):
    pair = views(tmp_path)
    write_disparity(tmp_path / file, np.full(SIZE, SHIFT * scale, np.float32))
    options = ("--ground-truth", tmp_path / file, *SHORT, "--model", "sgbm")
    result = stereo("infer", *pair, "--output", tmp_path / "out", *options)
    assert result.status == 0
    (line,) = [line for line in result.errors if "stored with a scale" in line]
    assert said in line


def test_evaluate_hints_at_ground_truth_in_another_unit_once(stereo, tmp_path):
    entries = []
    for seed, name in enumerate(("one", "two")):
        views(tmp_path, name, seed=seed)
        write_disparity(tmp_path / f"{name}.pfm", np.full(SIZE, 256 * SHIFT, np.float32))
        paths = {"left": f"L/{name}.png", "right": f"R/{name}.png", "gt": f"{name}.pfm"}
        entries.append({"name": name, **paths})
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    options = ("--dataset", "manifest", "--root", tmp_path, "--output", tmp_path / "out", *SHORT)
    result = stereo("evaluate", *options, "--model", "sgbm")
    assert result.status == 0
    (line,) = result.errors
    assert "about 256 times the map everywhere" in line
    assert "'gt_scale' in manifest.json" in line


def test_an_eight_bit_ground_truth_takes_its_scale(stereo, tmp_path):
    pair = views(tmp_path)
    Image.new("L", SIZE[::-1], 4 * SHIFT).save(tmp_path / "gt.png")
    out = tmp_path / "out"
    options = ("--ground-truth", tmp_path / "gt.png", "--ground-truth-scale", "4")
    assert stereo("infer", *pair, "--output", out, *options, *SHORT).status == 0
    error = np.abs(read_disparity(out / "scene_disparity.pfm") - SHIFT)
    report = json.loads((out / "metrics.json").read_text())
    assert report["summary"]["epe_pixel"] == pytest.approx(error.mean())


def test_evaluate_writes_the_documented_metrics_keys(stereo, tmp_path):
    entries = []
    for seed, name in enumerate(("one", "two")):
        views(tmp_path, name, seed=seed)
        write_disparity(tmp_path / f"{name}.pfm", np.full(SIZE, SHIFT, np.float32))
        paths = {"left": f"L/{name}.png", "right": f"R/{name}.png", "gt": f"{name}.pfm"}
        entries.append({"name": f"set/{name}", **paths, "unknown": 3})
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    options = ("--dataset", "manifest", "--root", tmp_path, "--output", tmp_path / "out", *SHORT)
    result = stereo("evaluate", *options)
    assert (result.status, result.errors) == (0, [])
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert_contract(report)
    assert [image["name"] for image in report["images"]] == ["set/one", "set/two"]
    assert report["summary"]["images"] == 2
    assert report["summary"]["valid_pixels"] == 2 * SIZE[0] * SIZE[1]
    assert report["protocol"]["name"] == "pooled"
    assert "protocol pooled" in result.out


def test_a_limit_takes_the_first_pairs(stereo, tmp_path):
    entries = []
    for seed, name in enumerate("abc"):
        views(tmp_path, name, seed=seed)
        write_disparity(tmp_path / f"{name}.pfm", np.full(SIZE, SHIFT, np.float32))
        paths = {"left": f"L/{name}.png", "right": f"R/{name}.png", "gt": f"{name}.pfm"}
        entries.append({"name": name, **paths})
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    call = ("evaluate", "--dataset", "manifest", "--root", tmp_path, "--model", "sgbm", *SHORT)
    assert stereo(*call, "--limit", "2", "--output", tmp_path / "out").status == 0
    report = json.loads((tmp_path / "out/metrics.json").read_text())
    assert [image["name"] for image in report["images"]] == ["a", "b"]


@pytest.mark.parametrize(("protocol", "render_pass"), [("pooled", "final"), ("psmnet", "clean")])
def test_evaluate_takes_the_pass_that_its_protocol_scores(stereo, tmp_path, protocol, render_pass):
    tree = tmp_path / "FlyingThings3D"
    for seed, name in enumerate(("clean", "final")):
        for path, side in zip(views(tmp_path, name, seed=seed), ("left", "right"), strict=True):
            target = tree / f"frames_{name}pass/TEST/A/0000/{side}/0006.png"
            target.parent.mkdir(parents=True)
            path.rename(target)
    truth = tree / "disparity/TEST/A/0000/left/0006.pfm"
    truth.parent.mkdir(parents=True)
    write_disparity(truth, np.full(SIZE, SHIFT, np.float32))
    call = ("evaluate", "--dataset", "flyingthings3d", "--root", tmp_path, "--model", "sgbm")
    result = stereo(*call, *SHORT, "--output", tmp_path / "out", "--protocol", protocol)
    assert result.status == 0, result.errors
    report = json.loads((tmp_path / "out/metrics.json").read_text())
    assert report["protocol"]["pass"] == render_pass


def test_evaluate_renders_held_out_pairs_without_a_root(stereo, tmp_path):
    options = ("--limit", "1", "--model", "sgbm", "--output", tmp_path)
    result = stereo("evaluate", "--dataset", "synthetic", *options)
    assert (result.status, result.errors) == (0, [])
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert (report["protocol"]["dataset"], report["protocol"]["pass"]) == ("synthetic", None)


def test_pairs_of_one_name_in_different_folders_never_overwrite_each_other(stereo, tmp_path):
    for seed, scene in enumerate(("x", "y")):
        left, right = views(tmp_path / scene, "im", seed=seed)
        left.rename(tmp_path / scene / "im0.png")
        right.rename(tmp_path / scene / "im1.png")
    out = tmp_path / "out"
    globs = (f"{tmp_path}/*/im0.png", f"{tmp_path}/*/im1.png")
    assert stereo("infer", *globs, "--output", out, "--formats", "pfm", *SHORT).status == 0
    assert names(out) == ["x_im0_disparity.pfm", "y_im0_disparity.pfm"]


def test_views_that_differ_only_by_suffix_never_overwrite_each_other(stereo, tmp_path):
    left, right = views(tmp_path, "im")
    for path in (left, right):
        Image.open(path).save(path.with_suffix(".bmp"))
    out = tmp_path / "out"
    globs = (f"{tmp_path}/L/im.*", f"{tmp_path}/R/im.*")
    assert stereo("infer", *globs, "--output", out, "--formats", "pfm", *SHORT).status == 0
    assert len(names(out)) == 2


def test_repeating_a_call_gives_the_same_files(stereo, tmp_path):
    pair = views(tmp_path)
    contents = []
    for _ in range(2):
        assert stereo("infer", *pair, "--output", tmp_path / "out", *SHORT).status == 0
        contents.append({p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()})
    assert contents[0] == contents[1]


@pytest.mark.parametrize("word", ["1e3", "null", "07", "true", "a b", "-x", "é", "{}", "[1]"])
def test_paths_that_look_like_something_else_are_paths(stereo, tmp_path, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    left, right = views(tmp_path)
    left.rename(tmp_path / word)
    (tmp_path / word).rename(tmp_path / f"{word}.png")
    out = f"./{word}" if word.startswith("-") else word
    result = stereo("infer", f"./{word}.png", right, f"--output={out}", "--formats=pfm", *SHORT)
    assert (result.status, result.errors) == (0, [])
    assert names(tmp_path / word) == [f"{word}_disparity.pfm"]


class Trap:
    """Creates a file when unpickled by anything that runs code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def hostile_pickle(path, trap):
    path.write_bytes(pickle.dumps({"state_dict": Trap(trap)}))


def hostile_torch_file(path, trap):
    torch.save({"epoch": 1, "state_dict": {"x": Trap(trap)}}, path)


def hostile_legacy_torch_file(path, trap):
    torch.save({"state_dict": Trap(trap)}, path, _use_new_zipfile_serialization=False)


def text_file(path, _):
    path.write_text("This is a note.\nIt has two lines.\n")


def empty_file(path, _):
    path.touch()


def zeros(path, _):
    path.write_bytes(bytes(300))


def zip_archive(path, _):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def tar_archive(path, _):
    note = path.with_name("note.txt")
    note.write_text("hello")
    with tarfile.open(path, "w") as archive:
        archive.add(note, "note.txt")


def legacy_torch_tar(path, trap):
    parts = path.with_name("parts")
    parts.mkdir()
    for name in ("storages", "tensors", "pickle"):
        (parts / name).write_bytes(pickle.dumps(Trap(trap)))
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            archive.add(parts / name, name)


def truncated_checkpoint(path, _):
    torch.save({"state_dict": {"x": torch.zeros(4000)}}, path)
    path.write_bytes(path.read_bytes()[:9000])


def checkpoint_of(contents):
    def write(path, _):
        torch.save(contents, path)

    return write


NOT_CHECKPOINTS = {
    "text": text_file,
    "empty": empty_file,
    "zeros": zeros,
    "zip": zip_archive,
    "tar": tar_archive,
    "torch tar": legacy_torch_tar,
    "pickle": hostile_pickle,
    "torch pickle": hostile_torch_file,
    "legacy torch pickle": hostile_legacy_torch_file,
    "truncated": truncated_checkpoint,
    "tensor": checkpoint_of(torch.zeros(3)),
    "list": checkpoint_of([1, 2]),
    "no state_dict": checkpoint_of({"epoch": 3}),
    "empty state_dict": checkpoint_of({"state_dict": {}}),
    "numbers": checkpoint_of({"state_dict": {"module.x": 3.0}}),
    "numbered": checkpoint_of({"state_dict": {3: torch.zeros(2)}}),
    "module": checkpoint_of(torch.nn.Linear(2, 2)),
    "another network": checkpoint_of({"state_dict": torch.nn.Linear(2, 2).state_dict()}),
    "basic without weights": checkpoint_of(
        {"state_dict": {"module.classify.0.0.0.weight": torch.zeros(1)}}
    ),
}


@pytest.mark.parametrize("write", NOT_CHECKPOINTS.values(), ids=NOT_CHECKPOINTS.keys())
def test_convert_refuses_other_files_and_runs_no_code(stereo, tmp_path, write):
    source, target, trap = tmp_path / "in.tar", tmp_path / "out.safetensors", tmp_path / "trap"
    write(source, trap)
    result = stereo("convert", source, "--output", target, "--align-corners", "true")
    assert result.status == 1
    assert len(result.errors) == 1, result.errors
    assert str(source) in result.errors[0]
    assert not trap.exists()
    assert not target.exists()


def test_a_hostile_pickle_would_run_if_it_were_unpickled(tmp_path):
    hostile_pickle(tmp_path / "in.tar", tmp_path / "trap")
    pickle.loads((tmp_path / "in.tar").read_bytes())
    assert (tmp_path / "trap").exists()


@pytest.mark.parametrize("fault", ["shape", "missing", "unknown"])
def test_convert_refuses_weights_that_do_not_fit(stereo, tmp_path, fault):
    published = torch.load(shared("golden/psmnet_golden.tar"), weights_only=True)
    state = published["state_dict"]
    key = next(key for key in state if key.endswith("weight") and state[key].ndim > 1)
    if fault == "shape":
        state[key] = state[key][:-1]
    elif fault == "missing":
        del state[key]
    else:
        state["module.something.weight"] = torch.zeros(2)
    torch.save(published, tmp_path / "in.tar")
    target = tmp_path / "out.safetensors"
    arguments = (tmp_path / "in.tar", "--output", target, "--align-corners", "true")
    result = stereo("convert", *arguments)
    assert result.status == 1
    assert len(result.errors) == 1, result.errors
    assert "do not fit" in result.errors[0]
    assert names(tmp_path) == ["in.tar"]


@pytest.mark.parametrize(
    "below", ["nowhere/x.safetensors", "file/x.safetensors", "folder.safetensors"]
)
def test_convert_to_an_unwritable_path_is_one_line(stereo, tmp_path, below):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.safetensors").mkdir()
    source, target = shared("golden/psmnet_golden.tar"), tmp_path / below
    result = stereo("convert", source, "--output", target, "--align-corners", "true")
    assert result.status == 1
    assert len(result.errors) == 1, result.errors
    assert str(target) in result.errors[0]
    assert names(tmp_path) == ["file", "folder.safetensors"]


@pytest.mark.parametrize("align_corners", ["true", "false"])
def test_a_converted_file_runs_and_keeps_its_convention(stereo, tmp_path, align_corners):
    source, target = shared("golden/psmnet_golden.tar"), tmp_path / "psmnet.safetensors"
    result = stereo("convert", source, "--output", target, "--align-corners", align_corners)
    assert (result.status, result.errors) == (0, [])
    conventions = {"true": "align_corners", "false": "half_pixel"}
    converted = load_checkpoint(target)
    assert converted.config.upsampling == conventions[align_corners]
    assert converted.config.padding == "zeros"
    assert converted.training == {"converted_from": source.name}
    out = tmp_path / "out"
    pair = views(tmp_path)
    result = stereo("infer", *pair, "--output", out, "--model", target, *SHORT)
    assert (result.status, result.errors) == (0, [])
    assert read_disparity(out / "scene_disparity.pfm").shape == SIZE


def test_import_and_infer_do_not_load_torchvision(tmp_path):
    left, right = views(tmp_path)
    code = (
        "import sys, stereo\n"
        "from stereo.commands.cli import run\n"
        "assert 'torch' not in sys.modules\n"
        "status = run(sys.argv[1:])\n"
        "assert 'torchvision' not in sys.modules, 'torchvision was imported'\n"
        "sys.exit(status)\n"
    )
    call = [sys.executable, "-c", code, "infer", left, right, "--output", tmp_path / "out", *SHORT]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_an_internal_error_is_one_line_that_says_how_to_get_the_traceback(monkeypatch, capsys):
    def fail(_):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("stereo.commands.cli.run", fail)
    monkeypatch.setattr("stereo.commands.cli.heed_signals", lambda: None)
    monkeypatch.setattr("stereo.commands.cli.leave_to_system", lambda: None)
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "internal error, please report it" in line and "set STEREO_TRACEBACK=1" in line
    monkeypatch.setenv("STEREO_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main([])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory; give it smaller images"),
        (RuntimeError("std::bad_alloc"), "out of memory; give it smaller images"),
        (OSError(28, "No space left on device", "a.png"), "a.png: No space left on device"),
    ],
    ids=repr,
)
def test_a_fault_of_the_machine_is_one_line(stereo, monkeypatch, error, said):
    def fail():
        raise error

    monkeypatch.setattr("stereo.commands.models.list_models", fail)
    result = stereo("models")
    assert (result.status, len(result.errors)) == (1, 1)
    assert result.errors[0].startswith(f"stereo models: error: {said}")


def test_a_fault_of_the_program_is_not_called_out_of_memory(monkeypatch):
    def fail():
        raise RuntimeError("a defect")

    monkeypatch.setattr("stereo.commands.models.list_models", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        run(["models"])


def test_a_command_works_with_its_streams_closed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert run(["models"]) == 0
    assert run(["compare", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out")]) == 1


@posix_only
def test_a_reader_that_leaves_ends_a_command_in_silence():
    call = [sys.executable, "-m", "stereo", "models"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path):
    options = ("--output", tmp_path / "out", "--model", "sgbm", *SHORT)
    done = subprocess.run(
        [sys.executable, "-m", "stereo", "infer", *views(tmp_path, "é"), *options],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert r"\xe9" in done.stdout
