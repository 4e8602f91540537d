import os
import signal
from pathlib import Path

import numpy as np
import pytest

from stereo.errors import OutputError
from stereo.files import output_folder, staged
from stereo.outputs import PairOutput, write_pair


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def targets(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.pfm", tmp_path / "c.json"]
    for path in paths:
        path.write_text("old")
    return paths


def assert_untouched(targets):
    folder = targets[0].parent
    assert names(folder) == sorted(path.name for path in targets)
    assert all(path.read_text() == "old" for path in targets)


def test_files_appear_with_what_was_written(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.pfm"]
    with staged(*paths) as temporary:
        for path, text in zip(temporary, ("one", "two"), strict=True):
            path.write_text(text)
    assert names(tmp_path) == ["a.png", "b.pfm"]
    assert [path.read_text() for path in paths] == ["one", "two"]


def test_existing_files_are_replaced(targets):
    with staged(*targets) as temporary:
        for path in temporary:
            path.write_text("new")
    assert [path.read_text() for path in targets] == ["new"] * 3
    assert names(targets[0].parent) == ["a.png", "b.pfm", "c.json"]


def test_no_target_changes_before_all_are_written(targets):
    with staged(*targets) as temporary:
        for path in temporary:
            path.write_text("new")
            assert all(target.read_text() == "old" for target in targets)


def test_temporary_files_lie_beside_their_targets_hidden_and_with_their_suffix(targets):
    with staged(*targets) as temporary:
        for path, target in zip(temporary, targets, strict=True):
            assert path.parent == target.parent
            assert path.suffix == target.suffix
            assert path.name.startswith(".")
            path.write_text("new")


@pytest.mark.parametrize("written", [0, 1, 3], ids=lambda n: f"{n} of 3 written")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_leaves_the_targets_untouched_and_no_temporary_file(targets, error, written):
    with pytest.raises(error), staged(*targets) as temporary:
        for path in temporary[:written]:
            path.write_text("half")
        raise error
    assert_untouched(targets)


@pytest.mark.parametrize("written", [0, 1, 3], ids=lambda n: f"{n} of 3 written")
def test_a_full_disk_becomes_one_line_and_leaves_the_targets_untouched(targets, written):
    with pytest.raises(OutputError) as caught, staged(*targets) as temporary:
        for path in temporary[:written]:
            path.write_text("half")
        raise OSError(28, "No space left on device")
    message = str(caught.value)
    assert "No space left on device" in message
    assert str(targets[0]) in message
    assert len(message.splitlines()) == 1
    assert_untouched(targets)


def test_a_file_that_was_never_written_is_an_error(targets):
    with pytest.raises(OutputError), staged(*targets) as temporary:
        temporary[0].write_text("new")
    assert_untouched(targets)


def test_a_target_that_cannot_be_replaced_leaves_the_others_untouched(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.pfm", tmp_path / "c.npy"]
    paths[0].write_text("old")
    (paths[1] / "inside").mkdir(parents=True)
    with pytest.raises(OutputError), staged(*paths) as temporary:
        for path in temporary:
            path.write_text("new")
    assert names(tmp_path) == ["a.png", "b.pfm"]
    assert paths[0].read_text() == "old"


@pytest.mark.parametrize("after", [1, 2])
def test_ctrl_c_between_two_renames_leaves_all_or_none(tmp_path, monkeypatch, after):
    paths = [tmp_path / "a.png", tmp_path / "b.pfm", tmp_path / "c.npy"]
    replace = os.replace
    done = []

    def replace_and_press_ctrl_c(source, target):
        replace(source, target)
        done.append(target)
        if len(done) == after:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(os, "replace", replace_and_press_ctrl_c)
    with pytest.raises(KeyboardInterrupt), staged(*paths) as temporary:
        for path in temporary:
            path.write_text("new")
    assert len(names(tmp_path)) in (0, 3)


def test_a_target_below_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("x")
    target = tmp_path / "file" / "a.json"
    with pytest.raises(OutputError, match=r"a\.json"), staged(target) as (temporary,):
        temporary.write_text("new")


def test_a_target_in_a_missing_folder_is_an_output_error(tmp_path):
    target = tmp_path / "nowhere" / "a.json"
    with pytest.raises(OutputError, match=r"a\.json"), staged(target) as (temporary,):
        temporary.write_text("new")


def test_a_name_that_is_too_long_is_an_output_error(tmp_path):
    target = tmp_path / f"{'a' * 300}.json"
    with pytest.raises(OutputError), staged(target) as (temporary,):
        temporary.write_text("new")
    assert names(tmp_path) == []


def test_the_longest_name_that_the_disk_allows_is_written(tmp_path):
    target = tmp_path / f"{'a' * 250}.json"
    with staged(target) as (temporary,):
        temporary.write_text("new")
    assert names(tmp_path) == [target.name]


def test_an_output_folder_is_made_with_its_parents_and_left_empty(tmp_path):
    folder = tmp_path / "a" / "b"
    assert output_folder(folder) == folder
    assert names(folder) == []
    assert output_folder(folder) == folder


@pytest.mark.parametrize("below", ["", "deeper", "deeper/still"])
def test_an_output_folder_at_or_below_a_file_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("x")
    folder = tmp_path / "file" / below if below else tmp_path / "file"
    with pytest.raises(OutputError) as caught:
        output_folder(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc on this system")
def test_an_output_folder_that_cannot_be_made_is_refused():
    with pytest.raises(OutputError, match="/proc/nope"):
        output_folder(Path("/proc/nope"))


def test_a_pair_is_written_together(tmp_path):
    disparity = np.full((4, 6), 3, np.float32)
    assert write_pair(tmp_path, "x", ["color", "pfm", "png16", "npy"], PairOutput(disparity)) == []
    assert names(tmp_path) == [
        "x_color.png",
        "x_disparity.npy",
        "x_disparity.pfm",
        "x_disparity.png",
    ]


def test_a_clamping_warning_names_the_pair_and_no_temporary_file(tmp_path):
    disparity = np.full((4, 6), 300, np.float32)
    (note,) = write_pair(tmp_path, "x", ["png16"], PairOutput(disparity))
    assert note.startswith("x: 24 disparities")
    assert "partial" not in note
