"""Freed memory that is kept, in processes of their own: others' blocks decide what malloc uses."""

import os
import subprocess
import sys

import pytest

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")


MEMORY_FROM_PYTHON = """
import resource
import numpy, psutil, stereo, torch
def new_pages(call):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
matcher = stereo.load("ea_stereo_fast", device="cpu", precision="fp32")
views = numpy.random.default_rng(0).integers(0, 255, (2, 320, 512, 3), numpy.uint8)
print(*(new_pages(lambda: matcher(*views)) for _ in range(3)))
before = psutil.Process().memory_info().rss
torch.ones(2**30, dtype=torch.uint8)
print((psutil.Process().memory_info().rss - before) / 2**30)
"""


FREED_MEMORY = """
import psutil, torch
from stereo.system.heap import keep_freed_memory, stop_keeping_freed_memory
def held():
    before = psutil.Process().memory_info().rss
    torch.ones(2**26, dtype=torch.uint8)
    return (psutil.Process().memory_info().rss - before) / 2**26
keep_freed_memory()
print(held())
before = psutil.Process().memory_info().rss
stop_keeping_freed_memory()
print((before - psutil.Process().memory_info().rss) / 2**26, held())
"""


@needs_linux
def test_freed_memory_is_kept_on_request_and_then_returned():
    done = subprocess.run(
        [sys.executable, "-c", FREED_MEMORY], capture_output=True, text=True, check=True
    )
    kept, returned, kept_after = map(float, done.stdout.split())
    assert kept > 0.9 and returned > 0.9 and kept_after < 0.1


@pytest.mark.slow
@needs_linux
def test_matches_from_python_reuse_memory_and_free_large_arrays():
    """In a process of its own: what others have allocated decides which heap malloc uses."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_FROM_PYTHON], capture_output=True, text=True, check=True
    )
    *pages, still_held = map(float, done.stdout.split())
    assert min(pages[1:]) < 0.1 * pages[0]
    assert still_held < 0.1


@needs_linux
@pytest.mark.parametrize(
    "settings, held",
    [
        ({"MALLOC_TRIM_THRESHOLD_": "131072"}, 0),
        ({"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_MAX_": "0"}, 1),
    ],
)
def test_malloc_settings_in_the_environment_take_precedence(settings, held):
    done = subprocess.run(
        [sys.executable, "-c", FREED_MEMORY],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, returned, _ = map(float, done.stdout.split())
    assert kept == pytest.approx(held, abs=0.1)
    assert returned < 0.1  # by a call that undoes nothing
