"""Triton kernels, without a GPU."""

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY


def test_kernels_equal_their_plain_forms_in_the_interpreter():
    pytest.importorskip("triton")
    path = REPOSITORY / "tests" / "interpreted" / "check_kernels.py"
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    done = subprocess.run(
        call, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "6 passed" in done.stdout
