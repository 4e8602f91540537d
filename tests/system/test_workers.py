"""Processes of a pool."""

import subprocess
import sys

import psutil

PARENT = """
import multiprocessing, os, signal, sys
from concurrent.futures import ProcessPoolExecutor
from stereo.system.workers import begin_worker

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, mp_context=context, initializer=begin_worker)
    print(pool.submit(os.getpid).result(), flush=True)
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
