"""``infer --resume``: what counts as done, and what does not."""

import contextlib
import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import stereo.commands.infer
import stereo.evaluation.evaluate as stereo_evaluation
from stereo.commands.resume_log import RESUME_LOG, ResumeLog
from stereo.data.io.disparities import read_disparity
from stereo.errors import OutputError
from stereo.system.bundled import samples_root

COUNT = 4
SIZE = (24, 48)
SGBM = ("--model", "sgbm")


@pytest.fixture
def pair(tmp_path, rng):
    """Numbered images, as arguments; 5 px apart."""
    for number in range(COUNT):
        wide = rng.integers(0, 256, (SIZE[0], SIZE[1] + 5, 3), np.uint8)
        for side, view in (("L", wide[:, :-5]), ("R", wide[:, 5:])):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(view).save(tmp_path / side / f"{number:06d}.png")
    return tmp_path / "L" / "%06d.png", tmp_path / "R" / "%06d.png"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def infer(stereo, pair, out):
    def call(most, *options, formats="pfm"):
        output = ("--output", out, "--formats", formats)
        return stereo("infer", *pair, *output, *SGBM, "--max-disparity", most, *options)

    return call


@pytest.fixture
def interrupt(monkeypatch):
    """Make infer be interrupted after so many maps."""

    def after(count):
        write, calls = stereo.commands.infer.write_pair, []

        def counted(*arguments):
            if len(calls) == count:
                raise KeyboardInterrupt
            calls.append(arguments)
            return write(*arguments)

        monkeypatch.setattr("stereo.commands.infer.write_pair", counted)

    return after


def maps(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.pfm"))}


def test_an_interrupted_run_is_resumed(infer, interrupt, monkeypatch, out):
    interrupt(2)
    assert infer(16).status == 130
    monkeypatch.undo()
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.pfm")}
    assert len(times) == 2
    result = infer(16, "--resume")
    assert f"2 of {COUNT} pairs written to {out}, 2 were there" in result.out
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert f"0 of {COUNT} pairs written to {out}, {COUNT} were there" in infer(16, "--resume").out


def test_maps_of_a_run_being_replaced_do_not_count(infer, interrupt, monkeypatch, out):
    assert infer(16).status == 0
    first = maps(out)
    interrupt(1)
    assert infer(32).status == 130
    monkeypatch.undo()
    result = infer(32, "--resume")
    assert (result.status, result.errors) == (0, [])
    assert f"3 of {COUNT} pairs written to {out}, 1 were there" in result.out
    resumed = maps(out)
    assert infer(32).status == 0
    assert maps(out) == resumed
    assert set(resumed) == set(first)


def test_changed_settings_are_refused_by_name_whatever_the_formats(infer, out):
    assert infer(16, "--resume").status == 0
    before = maps(out)
    for formats in ("npy", "pfm"):
        result = infer(32, "--resume", formats=formats)
        assert result.status == 1
        (line,) = result.errors
        assert "max disparity 16, not 32" in line
        assert "leave --resume out" in line
    assert maps(out) == before
    assert infer(16, "--resume").out.endswith(f"0 of 4 pairs written to {out}, 4 were there\n")


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ((), ("--max-depth", "3"), "max depth none, not 3.0"),
        ((), ("--keep-flying-points",), "keep flying points off, not on"),
        ((), ("--min-confidence", "0.5"), "min confidence none, not 0.5"),
        (("--steady",), (), "steady on, not off"),  # which cannot be resumed itself
    ],
)
def test_every_option_that_changes_files_is_one_of_the_settings(
    infer, tmp_path, out, before, now, words
):
    cameras = tmp_path / "K.txt"
    cameras.write_text("40 0 24 0 40 12 0 0 1\n0.1\n")
    call = (16, "--calibration", cameras)
    assert infer(*call, *before, formats="ply").status == 0
    files = {path: path.read_bytes() for path in out.iterdir()}
    result = infer(*call, *now, "--resume", formats="ply")
    assert result.status == 1
    assert f"its maps were made with {words}" in result.errors[-1]
    assert {path: path.read_bytes() for path in out.iterdir()} == files


def test_further_formats_are_added_and_the_first_ones_kept(infer, out):
    infer(16, "--resume")
    assert f"{COUNT} of {COUNT} pairs written" in infer(16, "--resume", formats="npy").out
    assert "4 were there" in infer(16, "--resume", formats="pfm,npy").out
    (out / "000001_disparity.npy").unlink()
    assert "1 of 4 pairs written" in infer(16, "--resume", formats="pfm,npy").out
    assert "4 were there" in infer(16, "--resume", formats="pfm").out


def test_a_map_that_was_cut_short_is_made_again(infer, out):
    infer(16, "--resume")
    whole = (out / "000001_disparity.pfm").read_bytes()
    (out / "000001_disparity.pfm").write_bytes(whole[:100])
    assert "1 of 4 pairs written" in infer(16, "--resume").out
    assert (out / "000001_disparity.pfm").read_bytes() == whole


def test_the_other_view_is_added(infer, out):
    infer(16, "--resume")
    result = infer(16, "--resume", "--view", "both")
    assert f"4 of 8 maps written to {out}, 4 were there" in result.out


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_replaced_input_is_matched_again(infer, pair, out, change):
    infer(16, "--resume")
    before = maps(out)
    replaced = pair[1].with_name("000002.png")
    if change == "size":
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(replaced)
    else:
        status = replaced.stat()
        os.utime(replaced, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    result = infer(16, "--resume")
    assert f"1 of {COUNT} pairs written to {out}, 3 were there" in result.out
    changed = {name for name, content in maps(out).items() if content != before[name]}
    assert changed == ({"000002_disparity.pfm"} if change == "size" else set())
    assert "4 were there" in infer(16, "--resume").out


@pytest.mark.parametrize("formats", ["color", "pfm,color"])
def test_another_first_frame_colors_all_frames_anew(
    infer, pair, interrupt, monkeypatch, out, formats
):
    infer(16, "--resume", formats=formats)
    noise = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(noise).save(pair[1].with_name("000000.png"))
    interrupt(2)
    infer(16, "--resume", formats=formats)
    monkeypatch.undo()
    result = infer(16, "--resume", formats=formats)
    assert f"2 of {COUNT} pairs written to {out}, 2 were there" in result.out
    resumed = {path.name: path.read_bytes() for path in out.glob("*.png")}
    assert len(resumed) == COUNT
    infer(16, formats=formats)
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == resumed


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "list"])
def test_maps_without_a_record_are_refused(infer, out, damage):
    infer(16, "--resume")
    if damage == "missing":
        (out / RESUME_LOG).unlink()
    else:
        (out / RESUME_LOG).write_text({"empty": "", "text": "{", "list": "[1]\n"}[damage])
    result = infer(16, "--resume")
    assert result.status == 1
    (line,) = result.errors
    assert "no record of their settings" in line
    assert "--resume" in line


def test_a_truncated_line_costs_only_its_map(infer, out):
    infer(16, "--resume")
    whole = (out / RESUME_LOG).read_text()
    (out / RESUME_LOG).write_text(whole[:-20])
    assert "1 of 4 pairs written" in infer(16, "--resume").out
    assert "4 were there" in infer(16, "--resume").out


def test_a_line_that_a_full_disk_cut_off_costs_only_its_map(tmp_path, monkeypatch):
    log = ResumeLog(tmp_path, {}, [])
    log.start()
    path_open = Path.open

    @contextlib.contextmanager
    def full(path, *how, **options):
        with path_open(path, *how, **options) as file:
            write = file.write
            file = SimpleNamespace(write=lambda text: write(text[:9]))
            yield file
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError):
        log.add("a", [], [])
    monkeypatch.setattr(Path, "open", path_open)
    log.add("b", [], [])
    again = ResumeLog(tmp_path, {}, [])
    again.read([])
    assert not again.has("a", [], [])
    assert again.has("b", [], [])


@pytest.mark.parametrize("letter", ["\u202f", "\u3000", "\u200d"])
def test_any_letter_may_stand_in_a_name(stereo, pair, out, letter):
    folder = out.parent
    for side in "LR":
        (folder / side / "000000.png").rename(folder / side / f"{letter}a.png")
    call = ("infer", *(folder / side / f"{letter}a.png" for side in "LR"), "--output", out)
    options = ("--formats", "pfm", *SGBM, "--max-disparity", 16, "--resume")
    assert "1 of 1 pairs written" in stereo(*call, *options).out
    assert "1 were there" in stereo(*call, *options).out


def test_images_written_without_a_record_are_not_mistaken_for_recorded_ones(
    stereo, pair, tmp_path, out
):
    folders = pair[0].parent, pair[1].parent
    call = ("infer", *folders, "--output", out, "--formats", "pfm", *SGBM, "--max-disparity")
    assert stereo(*call, 16, "--resume").status == 0
    assert (out / RESUME_LOG).is_file()
    assert stereo(*call, 32).status == 0
    assert not (out / RESUME_LOG).exists()
    result = stereo(*call, 16, "--resume")
    assert result.status == 1
    assert len(result.errors) == 1


def test_the_log_records_settings_and_inputs(infer, out):
    infer(16)
    first, *rest = map(json.loads, (out / RESUME_LOG).read_text().splitlines())
    assert first["settings"]["model"] == "sgbm"
    assert first["settings"]["max_disparity"] == 16
    assert [each["name"] for each in rest] == [f"{n:06d}" for n in range(COUNT)]
    size = (out / "000000_disparity.pfm").stat().st_size
    assert rest[0]["files"] == {"000000_disparity.pfm": size}
    assert len(rest[0]["inputs"]) == 2


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"model": "a", "weights": "1"}, {"model": "b", "weights": "2"}, "model a, not b"),
        ({"max_depth": None}, {"max_depth": 3.0}, "max depth none, not 3.0"),
        (
            {"keep_flying_points": False},
            {"keep_flying_points": True},
            "keep flying points off, not on",
        ),
        ({"calibration": None}, {"calibration": {"fx": 1}}, "no calibration"),
        ({"calibration": {"fx": 2}}, {"calibration": {"fx": 1}}, "another calibration"),
        ({"scale": "1"}, {}, "scale 1, not none"),
    ],
)
def test_a_difference_is_named(tmp_path, before, now, words):
    made = tmp_path / "a.pfm"
    made.write_bytes(b"x")
    record = ResumeLog(tmp_path, before, [])
    record.start()
    record.add("a", [], [made])
    with pytest.raises(Exception, match=words):
        ResumeLog(tmp_path, now, []).read([made])
    made.unlink()  # and nothing is there to be mixed up
    again = ResumeLog(tmp_path, now, [])
    again.read([made])
    assert not again.has("a", [], [])


def test_resumed_maps_equal_those_of_one_run(infer, interrupt, monkeypatch, out):
    interrupt(2)
    infer(16)
    monkeypatch.undo()
    infer(16, "--resume")
    disparity = read_disparity(out / "000003_disparity.pfm")
    assert abs(np.median(disparity) - 5) < 0.5


@pytest.mark.parametrize(
    "line",
    [
        '{"settings": 3}',
        '{"settings": null}',
        '{"name": [], "inputs": {}, "files": {}}',
        '{"name": "000000", "inputs": [], "files": {}}',
        '{"name": "000000", "inputs": {}, "files": 7}',
        '{"name": "000000", "inputs": {}, "files": {"a": {}}}',
        '{"name": "000000", "inputs": {}, "files": {"../../etc/passwd": 1, "'
        + "x" * 5000
        + '": 1}}',
        '{"name": "\\ud800", "inputs": {}, "files": {}}',
        '{"name": 1' + "0" * 5000 + ', "inputs": {}, "files": {}}',
        "[" * 100_000,
        "[" * 1000 + "]" * 1000,
        "7",
    ],
    ids=range(12),
)
@pytest.mark.parametrize("first", [True, False])
def test_invalid_lines_of_a_log_are_skipped(tmp_path, line, first):
    settings = {"max_disparity": 16}
    lines = [line] if first else ['{"settings": {"max_disparity": 16}}', line, line]
    (tmp_path / RESUME_LOG).write_text("\n".join(lines) + "\n")
    record = ResumeLog(tmp_path, settings, [])
    record.read([])
    record.start()
    assert not record.has("000000", [], [])
    assert (tmp_path / RESUME_LOG).read_text() == json.dumps({"settings": settings}) + "\n"


def test_a_name_that_is_no_text_is_found_again(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    view, made = tmp_path / "view.png", tmp_path / "map.pfm"
    for path in (view, made):
        path.touch()
    for known in (False, True):
        log = ResumeLog(tmp_path, {"model": name}, [view])
        log.read([made] if known else [])
        assert log.has(name, [view], [made]) is known
        log.start()
        log.add(name, [view], [made])


def test_all_frames_are_matched_anew_when_the_first_is_another(infer, pair, out, rng):
    """Its bit depth is theirs."""
    assert infer(32).status == 0
    for path in pair:
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), np.uint8)).save(str(path) % 0)
    assert f"{COUNT} of {COUNT} pairs written to {out}" in infer(32, "--resume").out


def test_frames_without_their_first_one_are_not_resumed(infer, pair, out):
    assert infer(32, formats="color").status == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for path in pair:
        os.remove(str(path) % 0)
    result = infer(32, "--resume", formats="color")
    assert result.status == 1
    assert "its maps were made with first frame 000000, not 000001" in result.errors[-1]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_another_run_removes_the_metrics_of_the_maps_that_it_replaces(tmp_path, stereo, pair, out):
    views = [str(path) % 0 for path in pair]
    np.save(tmp_path / "truth.npy", np.full(SIZE, 5, np.float32))
    call = ("infer", *views, "--output", out, *SGBM, "--max-disparity", 32)
    assert stereo(*call, "--ground-truth", tmp_path / "truth.npy").status == 0
    assert (out / "metrics.json").exists()
    assert (out / "report.html").exists()
    assert stereo(*call, "--formats", "pfm").status == 0
    assert not (out / "metrics.json").exists()
    assert not (out / "report.html").exists()


@pytest.mark.parametrize("damaged", [False, True])
def test_the_figures_of_an_evaluation_stay(stereo, pair, tmp_path, out, damaged):
    view = str(pair[0]) % 0
    np.save(tmp_path / "truth.npy", np.full(SIZE, 5, np.float32))
    entry = {"name": "a", "left": "L/000000.png", "right": "R/000000.png", "gt": "truth.npy"}
    (tmp_path / "manifest.json").write_text(json.dumps([entry]))
    evaluate = ("evaluate", "--dataset", "manifest", "--root", tmp_path, "--protocol", "pooled")
    result = stereo(*evaluate, *SGBM, "--max-disparity", 16, "--output", out)
    assert result.status == 0, result.errors
    before = (out / "metrics.json").read_bytes()
    if damaged:
        Path(view).write_bytes(b"no image")
    status = stereo("infer", view, str(pair[1]) % 0, "--output", out, *SGBM).status
    assert status == int(damaged)
    assert (out / "metrics.json").read_bytes() == before
    assert (out / "report.html").exists()


def test_figures_do_not_outlive_the_pictures_that_they_name(stereo, tmp_path, out, monkeypatch):
    """An evaluation that is interrupted has replaced some of the last one's pictures."""
    root = samples_root()
    call = ("evaluate", "--dataset", "sceneflow", "--root", root, "--output", out, *SGBM)
    assert stereo(*call, "--max-disparity", 64).status == 0
    assert (out / "metrics.json").exists()
    keep = stereo_evaluation.keep_pictures

    def keep_one(*arguments):
        keep(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(stereo_evaluation, "keep_pictures", keep_one)
    assert stereo(*call, "--max-disparity", 32).status == 130
    assert not (out / "metrics.json").exists()
    assert not (out / "report.html").exists()


def test_a_left_map_is_scored_if_only_the_right_one_cannot_be_written(stereo, pair, tmp_path, out):
    np.save(tmp_path / "truth.npy", np.full(SIZE, 5, np.float32))
    (out / "000000_right_disparity.pfm").mkdir(parents=True)
    views = [str(path) % 0 for path in pair]
    options = ("--view", "both", "--formats", "pfm", "--ground-truth", tmp_path / "truth.npy")
    result = stereo("infer", *views, "--output", out, *SGBM, "--max-disparity", 16, *options)
    assert result.status == 1
    metrics = json.loads((out / "metrics.json").read_text())
    assert [image["name"] for image in metrics["images"]] == ["000000"]
    assert metrics["summary"]["failed_names"] == ["000000_right"]


def test_the_figures_of_other_maps_stay(stereo, pair, tmp_path, out):
    np.save(tmp_path / "truth.npy", np.full(SIZE, 5, np.float32))
    first, second = ([str(path) % number for path in pair] for number in (0, 1))
    call = ("--output", out, *SGBM, "--max-disparity", 16, "--formats", "pfm")
    assert stereo("infer", *first, *call, "--ground-truth", tmp_path / "truth.npy").status == 0
    assert stereo("infer", *second, *call).status == 0
    assert (out / "metrics.json").exists()
    (out / "000000_disparity.pfm").unlink()
    (out / "000000_disparity.pfm").mkdir()
    assert stereo("infer", *first, *call).status == 1
    assert (out / "metrics.json").exists()
    (out / "000000_disparity.pfm").rmdir()
    (out / "metrics.json").write_text("{")
    assert stereo("infer", *first, *call).status == 0
    assert not (out / "metrics.json").exists()
    assert not (out / "report.html").exists()


def test_a_right_map_is_written_if_only_the_left_one_cannot_be(stereo, pair, out):
    (out / "000000_disparity.pfm").mkdir(parents=True)
    views = [str(path) % 0 for path in pair]
    result = stereo("infer", *views, "--output", out, *SGBM, "--view", "both", "--formats", "pfm")
    assert result.status == 1
    assert (out / "000000_right_disparity.pfm").is_file()


def test_frames_behind_one_that_cannot_be_read_are_resumed(infer, pair, out):
    (pair[0].parent / "000000.png").write_bytes(b"no image")
    colors = infer(16, formats="pfm,color")
    assert f"3 of {COUNT} pairs" in colors.out
    before = {path.name: path.read_bytes() for path in out.glob("*.png")}
    assert f"0 of {COUNT} pairs written to {out}, 3 were there" in infer(16, "--resume").out
    (out / "000003_color.png").unlink()
    assert "1 of 4" in infer(16, "--resume", formats="pfm,color").out
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == before
    noise = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(noise).save(pair[1].with_name("000001.png"))  # whose colours the others have
    infer(16, "--resume", formats="pfm,color")
    resumed = {path.name: path.read_bytes() for path in out.glob("*.png")}
    infer(16, formats="pfm,color")
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == resumed


def test_pairs_that_are_no_frames_do_not_depend_on_the_first(stereo, pair, out):
    folders = [path.parent for path in pair]
    call = ("infer", *folders, "--output", out, *SGBM, "--formats", "pfm,color", "--resume")
    assert stereo(*call).status == 0
    replaced = folders[0] / "000000.png"
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(replaced)
    assert f"1 of {COUNT} pairs written to {out}, 3 were there" in stereo(*call).out


@pytest.mark.parametrize("views", [("right", "both"), ("both", "right")])
def test_another_view_of_a_film_is_resumed(infer, views):
    first, then = (infer(16, "--resume", "--view", view, formats="color") for view in views)
    assert (first.status, then.status) == (0, 0), then.errors
    assert f"{COUNT} were there" in then.out
