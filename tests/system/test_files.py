import errno
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_proc, posix_only

from stereo.errors import FolderInUseError, InputError, OutputError
from stereo.evaluation.outputs import PairOutput, write_pair
from stereo.system import files, locks
from stereo.system.files import output_folder, refuse_overwriting, staged, writes_alone


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


def test_files_appear_complete(tmp_path):
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


def test_a_rename_that_fails_restores_the_files_before_it(targets, monkeypatch):
    replace = Path.replace
    failed = []

    def fail_at_the_last(source, target):
        if target == targets[-1] and not failed:
            failed.append(target)
            raise OSError(errno.EIO, "Input/output error")
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_last)
    with pytest.raises(OutputError, match="nothing was written"), staged(*targets) as temporary:
        for path in temporary:
            path.write_text("new")
    assert_untouched(targets)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(OutputError, match="pipe: not a regular file"),
        staged(tmp_path / "pipe") as (temporary,),
    ):
        temporary.write_text("new")
    assert (tmp_path / "pipe").is_fifo()


def test_contents_are_on_disk_before_any_file_has_its_name(targets, monkeypatch):
    fsync, replace = os.fsync, Path.replace
    done = []
    monkeypatch.setattr(os, "fsync", lambda file: done.append("flushed") or fsync(file))
    monkeypatch.setattr(Path, "replace", lambda a, b: done.append("renamed") or replace(a, b))
    with staged(*targets) as temporary:
        for path in temporary:
            path.write_text("new")
    assert done == ["flushed"] * 3 + ["renamed"] * 3


@pytest.mark.parametrize("after", [1, 2])
def test_ctrl_c_between_two_renames_leaves_all_or_none(tmp_path, monkeypatch, after):
    paths = [tmp_path / "a.png", tmp_path / "b.pfm", tmp_path / "c.npy"]
    replace = Path.replace
    done = []

    def replace_and_press_ctrl_c(source, target):
        replace(source, target)
        done.append(target)
        if len(done) == after:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Path, "replace", replace_and_press_ctrl_c)
    with pytest.raises(KeyboardInterrupt), staged(*paths) as temporary:
        for path in temporary:
            path.write_text("new")
    assert len(names(tmp_path)) in (0, 3)


def test_a_copy_that_fails_without_hard_links_leaves_the_targets_untouched(targets, monkeypatch):
    def no_links(*_):
        raise PermissionError(errno.EPERM, "no hard links")

    def full(_, backup):
        Path(backup).write_text("o")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    monkeypatch.setattr(shutil, "copyfile", full)
    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OutputError, match="nothing was written"), staged(*targets) as temporary:
        for path in temporary:
            path.write_text("new")
    assert_untouched(targets)


def test_a_closed_pipe_is_not_blamed_on_the_file(targets):
    with pytest.raises(BrokenPipeError), staged(*targets):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert_untouched(targets)


def test_a_target_below_a_file_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("x")
    target = tmp_path / "file" / "a.json"
    with (
        pytest.raises(OutputError, match=r"a\.json: the folder .*file is no folder") as error,
        staged(target) as (temporary,),
    ):
        temporary.write_text("new")
    assert "space" not in str(error.value)


def test_a_target_in_a_missing_folder_is_an_output_error(tmp_path):
    target = tmp_path / "nowhere" / "a.json"
    with (
        pytest.raises(OutputError, match=r"a\.json: .*nowhere does not exist; make it") as error,
        staged(target) as (temporary,),
    ):
        temporary.write_text("new")
    assert "space" not in str(error.value)


@pytest.mark.parametrize(
    ("number", "is_full"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EACCES, False),
        (errno.EROFS, False),
        (None, True),
    ],
)
def test_only_a_full_disk_asks_for_space(tmp_path, number, is_full):
    fault = OSError("10 requested, 5 written") if number is None else OSError(number, "x")
    with pytest.raises(OutputError, match="choose another output") as error, staged(tmp_path / "a"):
        raise fault
    assert ("free some space" in str(error.value)) == is_full


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


@needs_proc
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


@needs_proc
def test_new_files_have_the_mode_that_the_umask_leaves_and_no_thread_changes_it(tmp_path):
    before = os.umask(0o027)
    try:
        wrong = []
        done = threading.Event()

        def watch():
            while not done.is_set():
                text = Path("/proc/self/status").read_text()
                wrong.extend(line for line in text.splitlines() if line == "Umask:\t0000")

        thread = threading.Thread(target=watch)
        thread.start()
        for number in range(50):
            with staged(tmp_path / str(number)) as (temporary,):
                temporary.write_text("new")
        done.set()
        thread.join()
        assert not wrong
        assert (tmp_path / "0").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_the_umask_is_never_set_to_be_read(tmp_path, monkeypatch):
    def fail(mask):
        raise AssertionError("every thread has this mask now")

    monkeypatch.setattr(os, "umask", fail)
    with staged(tmp_path / "a.txt") as (temporary,):
        temporary.write_text("new")


KILLED = """
import os, sys
from pathlib import Path
from stereo.system.files import staged
with staged(*map(Path, sys.argv[1:])) as temporary:
    for path in temporary:
        path.write_text("half")
    os._exit(9)
"""


def test_temporary_files_of_killed_processes_are_deleted_and_others_stay(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.png", tmp_path / "b"])
    assert killed.returncode == 9
    left = names(tmp_path)
    assert len(left) == 2
    others = [".hidden.png", ".stereo-notes", left[0].replace(left[0][8:16], "0" * 8)]
    for name in others:
        (tmp_path / name).write_text("kept")
    with staged(tmp_path / "mine.txt") as (temporary,):
        temporary.write_text("new")
        output_folder(tmp_path)
        assert set(names(tmp_path)) == {*others, temporary.name}
    assert set(names(tmp_path)) == {*others, "mine.txt"}


def test_a_reused_process_id_is_another_process(tmp_path):
    name = f".stereo-{files._machine()}-{os.getpid()}-1-0123abcd.png"
    (tmp_path / name).write_text("half")
    output_folder(tmp_path)
    assert names(tmp_path) == []


@needs_proc
def test_a_process_is_known_by_its_start_until_it_ends():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = files._started(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    ended = files._started(child.pid)
    child.communicate()
    assert started not in (None, files._started(os.getpid()))
    assert ended is None


def test_containers_of_one_name_are_different_machines(monkeypatch):
    found = set()
    for namespace in ("pid:[1]", "pid:[2]"):
        monkeypatch.setattr(os, "readlink", lambda _, namespace=namespace: namespace)
        found.add(files._machine.__wrapped__())
    assert len(found) == 2


def test_an_input_is_known_by_any_of_its_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, other = tmp_path / "a.png", Path("a.png")
    for given, target in ((one, other), (other, one)):
        with pytest.raises(InputError, match="is an input and would be overwritten"):
            refuse_overwriting([given], [target])
    refuse_overwriting([one], [tmp_path / "b.png"])


@writes_alone
def run_in(folder, during=lambda: None):
    output_folder(folder, alone=True)
    during()


HOLDER = """
import sys, time
from pathlib import Path
from stereo.system.files import output_folder, writes_alone
@writes_alone
def run():
    output_folder(Path(sys.argv[1]), alone=True)
    print("locked", flush=True)
    time.sleep(600)
run()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that writes to ``tmp_path``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_is_refused_in_one_line_until_the_first_is_killed(tmp_path, holder, stereo):
    with pytest.raises(FolderInUseError) as caught:
        run_in(tmp_path)
    assert str(caught.value) == (
        f"another run (process {holder.pid}) is writing to {tmp_path}; wait for it, or choose "
        "another --output"
    )
    pair = Path(__file__).parents[2] / "datasets" / "samples" / "FlyingThings3D"
    left, right = (sorted(pair.glob(f"frames_finalpass/TEST/A/*/{s}/*.png"))[0] for s in LR)
    result = stereo("infer", left, right, "--model", "sgbm", "--output", tmp_path)
    assert (result.status, result.errors) == (1, [f"stereo infer: error: {caught.value}"])
    assert names(tmp_path) == [locks.LOCK]
    holder.kill()
    holder.wait()
    run_in(tmp_path)
    assert names(tmp_path) == []


LR = ("left", "right")


def test_runs_in_one_process_lock_each_other_out_and_free_the_folder(tmp_path):
    def second():
        with pytest.raises(FolderInUseError, match=rf"process {os.getpid()}\)"):
            run_in(tmp_path)

    run_in(tmp_path, second)
    with pytest.raises(ZeroDivisionError):
        run_in(tmp_path, lambda: 1 / 0)
    run_in(tmp_path)
    assert names(tmp_path) == []


def test_a_folder_is_locked_by_any_of_its_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def second():
        with pytest.raises(FolderInUseError):
            run_in(Path())

    run_in(tmp_path, second)


@posix_only
@pytest.mark.parametrize("again", [False, True], ids=["removed", "made anew"])
def test_a_lock_file_that_the_run_before_removes_is_opened_again(tmp_path, monkeypatch, again):
    lock, path = locks._lock, tmp_path / locks.LOCK
    opened = []

    def lock_late(file):
        if not opened:
            path.unlink()
            if again:
                path.touch()
        opened.append(file)
        lock(file)

    def during():
        assert os.path.samestat(os.fstat(opened[-1].fileno()), path.stat())

    monkeypatch.setattr(locks, "_lock", lock_late)
    run_in(tmp_path, during)
    assert len(opened) == 2


@posix_only
def test_a_lock_file_is_removed_while_it_is_locked(tmp_path, monkeypatch):
    """Once it is free another run may hold it, and would lose it."""
    lock, unlink = locks._lock, Path.unlink
    opened, closed = [], []

    def watch(path, *rest, **more):
        if path.name == locks.LOCK:
            closed.append(opened[0].closed)
        unlink(path, *rest, **more)

    monkeypatch.setattr(locks, "_lock", lambda file: opened.append(file) or lock(file))
    monkeypatch.setattr(Path, "unlink", watch)
    run_in(tmp_path)
    assert closed == [False]


def test_a_lock_file_that_a_killed_run_left_names_the_next_run(tmp_path):
    path = tmp_path / locks.LOCK
    path.write_text("12 elsewhere")
    said = []
    run_in(tmp_path, lambda: said.append(path.read_text()))
    assert said == [f"{os.getpid()} {platform.node()}"]


def test_a_run_on_another_machine_is_named_with_it(tmp_path, monkeypatch):
    def refuse(file):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    (tmp_path / locks.LOCK).write_text("12 elsewhere")
    monkeypatch.setattr(locks, "_lock", refuse)
    with pytest.raises(FolderInUseError, match=r"process 12 on elsewhere\)"):
        run_in(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_does_not_keep_the_lock(tmp_path):
    children = []

    def fork():
        child = os.fork()
        if not child:
            signal.pause()
        children.append(child)

    run_in(tmp_path, fork)
    try:
        code = "from test_files import *; run_in(Path(sys.argv[1]))"
        here = Path(__file__).parent
        path = {"PYTHONPATH": str(here.parent)}  # for conftest
        call = [sys.executable, "-c", code, tmp_path]
        subprocess.run(call, check=True, cwd=here, env=os.environ | path)
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch):
    def refuse(file):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks, "_lock", refuse)
    with pytest.warns(UserWarning, match="has no locks"):
        run_in(tmp_path)
    assert names(tmp_path) == []


def test_a_file_system_without_permissions_is_written_to(tmp_path, monkeypatch):
    def chmod(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", chmod)
    with staged(tmp_path / "a.txt") as (temporary,):
        temporary.write_text("a")
    assert (tmp_path / "a.txt").read_text() == "a"
