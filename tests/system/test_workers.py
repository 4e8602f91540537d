"""Work in processes of their own."""

import os
import signal
import subprocess
import sys
import warnings

import psutil
import pytest
import torch

from stereo.errors import StereoError
from stereo.system.workers import map_in_processes

PARENT = """
import os, signal
from stereo.system.workers import map_in_processes

def process_id(_):
    return os.getpid()

if __name__ == "__main__":
    results = map_in_processes(process_id, [0], 1)
    print(next(results), flush=True)
    os.kill(os.getpid(), signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
"""


def test_a_worker_ends_with_a_killed_parent(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    done = subprocess.run(
        [sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True, check=False
    )
    worker = int(done.stdout)
    if psutil.pid_exists(worker):
        psutil.Process(worker).wait(timeout=60)


def threads_of(_):
    return torch.get_num_threads()


def test_a_process_has_as_many_threads_as_asked():
    assert list(map_in_processes(threads_of, [0, 1, 2], 2, threads=1)) == [1, 1, 1]


def warn_and_tell_what_ctrl_c_does(_):
    warnings.warn("odd", stacklevel=1)
    return signal.getsignal(signal.SIGINT)


def test_a_process_warns_in_one_line_and_leaves_ctrl_c_to_its_parent(capfd):
    handlers = list(map_in_processes(warn_and_tell_what_ctrl_c_does, [0], 1))
    assert handlers == [signal.SIG_IGN]
    assert capfd.readouterr().err == "warning: odd\n"


def test_a_process_that_dies_is_one_error():
    with pytest.raises(StereoError, match="use fewer --workers"):
        list(map_in_processes(os._exit, [1], 1))
