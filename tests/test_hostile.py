"""Small files that unpack to gigabytes are refused before anything is decoded."""

import json
import subprocess
import sys

import hostile
import numpy as np
import pytest
from PIL import Image

from stereo.data.decoders import mask_is_255
from stereo.data.images import as_image, is_picture, read_image
from stereo.errors import InputError
from stereo.limits import MAX_MEGAPIXELS_VARIABLE

MOST_MIB = 64  # of memory, for a file that is refused
MOST_SECONDS = 5
ADDRESS_SPACE = 6 * 2**30  # what a reader without bounds would run into
READ_ALL = """
import contextlib, json, sys, time, warnings
from pathlib import Path
from stereo.data.disparities import read_disparity
from stereo.data.images import read_image
from stereo.errors import InputError

warnings.simplefilter("ignore")
peak = lambda: 0
with contextlib.suppress(ImportError):  # Windows
    import resource
    unit = 1 if sys.platform == "darwin" else 1024
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), resource.RLIM_INFINITY))
for path in sorted(Path(sys.argv[1]).rglob("*.*")):
    read = read_image if path.parent.name == "pictures" else read_disparity
    before, start = peak(), time.perf_counter()
    try:
        read(path)
        error = None
    except Exception as raised:
        error = [isinstance(raised, InputError), f"{type(raised).__name__}: {raised}"]
    seconds = time.perf_counter() - start
    print(json.dumps([f"{path.parent.name}/{path.name}", error, seconds, peak() - before]))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Read every file in one process of its own; return what became of each, by its name."""
    folder = tmp_path_factory.mktemp("hostile")
    for kind, files in (("pictures", hostile.PICTURES), ("disparities", hostile.DISPARITIES)):
        (folder / kind).mkdir()
        for name, content in files.items():
            (folder / kind / name).write_bytes(content)
    call = [sys.executable, "-c", READ_ALL, str(folder), str(ADDRESS_SPACE)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert not done.stderr, done.stderr
    rows = map(json.loads, done.stdout.splitlines())
    return {name: (error, seconds, memory) for name, error, seconds, memory in rows}


@pytest.mark.parametrize(
    "name",
    [f"pictures/{name}" for name in hostile.PICTURES]
    + [f"disparities/{name}" for name in hostile.DISPARITIES],
)
def test_a_bomb_is_refused_in_one_line_at_once_and_without_memory(outcomes, name):
    assert name in outcomes, "the process died before or at it"
    error, seconds, memory = outcomes[name]
    assert error is not None, "read"
    assert error[0], error[1]
    assert len(error[1].splitlines()) == 1
    assert seconds < MOST_SECONDS
    assert memory < MOST_MIB


def test_a_large_picture_is_refused_with_the_option_named_and_read_with_it(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    path.write_bytes(hostile.whole_png())
    assert path.stat().st_size < 30_000
    with pytest.raises(InputError, match=r"177|128 megapixels.*--max-megapixels"):
        read_image(path)
    monkeypatch.setenv(MAX_MEGAPIXELS_VARIABLE, "200")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # Pillow's own limit gives way
    assert mask_is_255(path).shape == (hostile.SIDE, hostile.SIDE)


@pytest.mark.parametrize("name", hostile.PICTURES)
def test_telling_pictures_apart_decodes_none(tmp_path, name):
    path = tmp_path / "file.data"
    path.write_bytes(hostile.PICTURES[name])
    assert is_picture(path)


def test_a_picture_that_is_not_decoded_yet_is_bounded_as_a_file_is(tmp_path, monkeypatch):
    monkeypatch.setenv(MAX_MEGAPIXELS_VARIABLE, "0.001")
    Image.new("L", (40, 30)).save(tmp_path / "view.png")
    with Image.open(tmp_path / "view.png") as image, pytest.raises(InputError, match="megapixels"):
        as_image(image, "the left image")
    assert as_image(np.zeros((30, 40), np.uint8), "the left image").shape == (30, 40, 3)
