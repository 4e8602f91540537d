"""Small files that unpack to gigabytes are refused before anything is decoded."""

import json
import os
import subprocess
import sys

import hostile
import numpy as np
import pytest
from PIL import Image, ImageFile

from stereo.commands import COMMANDS
from stereo.data.check.pair import Job, validate_pair
from stereo.data.io.decoders import mask_is_255
from stereo.data.io.images import as_images, is_picture, read_image
from stereo.data.sets.sample import SampleFiles
from stereo.errors import InputError
from stereo.system.limits import MAX_MEGAPIXELS_VARIABLE, picture_limit

MAX_MIB = 64  # of memory, for a file that is refused
MAX_SECONDS = 5
ADDRESS_SPACE = 6 * 2**30  # what a reader without bounds would run into
FILES = {"pictures": hostile.PICTURES, "disparities": hostile.DISPARITIES, "videos": hostile.VIDEOS}
READ_ALL = """
import contextlib, json, sys, time, warnings
from pathlib import Path
from stereo.data.io.disparities import read_disparity
from stereo.data.io.images import read_image
from stereo.data.io.videos import Video, is_video
from stereo.errors import InputError

read_video = lambda path: is_video(str(path)) and Video(path).read(0)
warnings.simplefilter("ignore")
peak = lambda: 0
with contextlib.suppress(ImportError, ValueError):  # Windows; macOS has no such limit
    import resource
    unit = 1 if sys.platform == "darwin" else 1024
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), resource.RLIM_INFINITY))
for path in sorted(Path(sys.argv[1]).rglob("*.*")):
    read = {"pictures": read_image, "disparities": read_disparity}.get(path.parent.name, read_video)
    before, start = peak(), time.process_time()
    try:
        read(path)
        error = None
    except Exception as raised:
        error = [isinstance(raised, InputError), f"{type(raised).__name__}: {raised}"]
    seconds = time.process_time() - start
    print(json.dumps([f"{path.parent.name}/{path.name}", error, seconds, peak() - before]))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Read every file in one process of its own; return what became of each, by its name."""
    folder = tmp_path_factory.mktemp("hostile")
    for kind, files in FILES.items():
        (folder / kind).mkdir()
        for name, content in files.items():
            (folder / kind / name).write_bytes(content)
    call = [sys.executable, "-c", READ_ALL, str(folder), str(ADDRESS_SPACE)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    assert not done.stderr, done.stderr
    rows = map(json.loads, done.stdout.splitlines())
    return {name: (error, seconds, memory) for name, error, seconds, memory in rows}


@pytest.mark.parametrize(
    "name", [f"{kind}/{name}" for kind, files in FILES.items() for name in files]
)
def test_a_bomb_is_refused_quickly_in_one_line_without_memory(outcomes, name):
    assert name in outcomes, "the process died before or at it"
    error, seconds, memory = outcomes[name]
    assert error is not None, "read"
    assert error[0], error[1]
    assert len(error[1].splitlines()) == 1
    assert seconds < MAX_SECONDS
    assert memory < MAX_MIB


def test_a_large_image_is_refused_naming_the_option_that_allows_it(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    path.write_bytes(hostile.whole_png())
    assert path.stat().st_size < 30_000
    with pytest.raises(InputError, match=r"128 megapixels.*--max-megapixels"):
        read_image(path)
    monkeypatch.setenv(MAX_MEGAPIXELS_VARIABLE, "200")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # Pillow's own limit gives way
    with picture_limit(200):
        assert mask_is_255(path).shape == (hostile.SIDE, hostile.SIDE)
    assert Image.MAX_IMAGE_PIXELS == 10**6


@pytest.mark.parametrize("name", hostile.PICTURES)
def test_identifying_images_decodes_none(tmp_path, name, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    path = tmp_path / "file.data"
    path.write_bytes(hostile.PICTURES[name])
    assert is_picture(path)


def test_an_undecoded_pil_image_has_the_limits_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv(MAX_MEGAPIXELS_VARIABLE, "0.001")
    Image.new("L", (40, 30)).save(tmp_path / "view.png")
    with Image.open(tmp_path / "view.png") as image, pytest.raises(InputError, match="megapixels"):
        as_images([image], ["the left image"])
    (small,) = as_images([np.zeros((30, 40), np.uint8)], ["the left image"])
    assert small.shape == (30, 40, 3)


def test_the_option_reaches_readers_and_is_reset_afterwards(stereo, tmp_path):
    for side in ("left", "right"):
        Image.new("L", (80, 60), 90).save(tmp_path / f"{side}.png")
    pair = (tmp_path / "left.png", tmp_path / "right.png")
    refused = stereo("check-pair", *pair, "--max-megapixels", "0.004")
    assert refused.status == 1
    assert "80x60 pixels" in refused.errors[-1] and "--max-megapixels" in refused.errors[-1]
    assert MAX_MEGAPIXELS_VARIABLE not in os.environ
    assert "blank" in stereo("check-pair", *pair, "--max-megapixels", "0.005").errors[0]
    wrong = stereo("check-pair", *pair, "--max-megapixels", "-1")
    assert (wrong.status, len(wrong.errors)) == (2, 1)


@pytest.mark.parametrize(
    "command",
    [
        *("infer", "evaluate", "submit", "check-pair", "calibrate", "rectify", "train"),
        *("data check", "data preview", "data synthesize"),
    ],
)
def test_every_command_that_reads_images_has_the_option(command):
    (found,) = (each for each in COMMANDS if each.name == command)
    assert found.reads_pictures


def test_checking_a_pair_names_its_bombs(tmp_path):
    paths = [tmp_path / name for name in ("left.png", "right.webp", "disp.npz")]
    paths[0].write_bytes(hostile.png(hostile.SIDE, hostile.SIDE))
    paths[1].write_bytes(hostile.webp())
    paths[2].write_bytes(hostile.DISPARITIES["told.npz"])
    found = validate_pair(Job(SampleFiles("a", *paths), max_disparity=192))
    assert [fault.kind for fault in found.faults] == ["unreadable"] * 2


def test_a_header_that_claims_more_than_memory_holds_is_damage(tmp_path):
    path = tmp_path / "claims.jp2"
    signature = b"\0\0\0\x0cjP  \x0d\x0a\x87\x0a" + b"\0\0\0\x14ftypjp2 \0\0\0\0jp2 "
    path.write_bytes(signature + b"\0\0\0\x01jp2h" + (2**60).to_bytes(8, "big"))
    with pytest.raises(InputError, match="damaged: its header claims more"):
        read_image(path)
