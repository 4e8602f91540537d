"""``scripts/fetch_public_pairs.py``: its table, and its fetching from a server on this machine."""

import functools
import hashlib
import http.server
import json
import re
import sys
import threading
from pathlib import PurePosixPath

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

sys.path.insert(0, str(REPOSITORY / "scripts"))

import fetch_public_pairs

from stereo.data.io.disparities import read_disparity
from stereo.data.sets.manifest import read_manifest
from stereo.errors import StereoError, UsageError

COMMIT = "owner/name/" + "0" * 40
TRUTH = np.array([[0, 4, 8], [12, 2, 0]], np.uint8)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def server(tmp_path):
    """A repository on a local server, its table, and the paths that were asked for."""
    folder = tmp_path / "served" / COMMIT / "a folder"
    folder.mkdir(parents=True)
    for name, colour in (("l.png", "red"), ("r.png", "blue")):
        Image.new("RGB", (3, 2), colour).save(folder / name)
    Image.fromarray(TRUTH).save(folder / "d.png")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.05,)).start()
        roles = {"left.png": "l.png", "right.png": "r.png", "disparity.png": "d.png"}
        files = {
            role: {"from": "ours", "path": f"a folder/{name}", "sha256": sha256(folder / name)}
            for role, name in roles.items()
        }
        expected = b"Pf\n3 2\n-1.0\n" + np.array([3, 0.5, np.inf, np.inf, 1, 2], "<f4").tobytes()
        truth = {"units_per_pixel": 4, "sha256": hashlib.sha256(expected).hexdigest()}
        table = {
            "repositories": {"ours": COMMIT},
            "pairs": [{"name": "set/one", "truth": truth, "files": files}],
        }
        yield f"http://127.0.0.1:{running.server_address[1]}", table, folder, asked
        running.shutdown()


def test_pairs_come_once_and_can_be_evaluated(server, tmp_path, capsys):
    base, table, _, asked = server
    fetch_public_pairs.fetch_pairs(table, tmp_path / "pairs", base)
    (pair,) = read_manifest(tmp_path / "pairs")
    sample = pair.read()
    assert sample.left[0, 0].tolist() == [255, 0, 0]
    truth = np.where(TRUTH, TRUTH / 4, np.inf)
    assert np.array_equal(read_disparity(tmp_path / "pairs/set/one/gt.pfm"), truth)
    assert "1 pairs; 3 files fetched" in capsys.readouterr().out
    del asked[:]
    fetch_public_pairs.fetch_pairs(table, tmp_path / "pairs", base)
    assert not asked
    assert "0 files fetched" in capsys.readouterr().out
    (tmp_path / "pairs/set/one/left.png").write_bytes(b"damaged")
    fetch_public_pairs.fetch_pairs(table, tmp_path / "pairs", base)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("changed", r"l\.png has the SHA-256 \w{64}, not \w{64}; nothing was kept"),
        ("gone", r"cannot fetch http\S+l\.png \(HTTP Error 404"),
        ("decoded", r"gt\.pfm has the SHA-256 \w{64}, not \w{64}; it was decoded"),
    ],
)
def test_a_bad_file_is_one_line_and_leaves_nothing_of_it(server, tmp_path, capsys, fault, said):
    base, table, folder, _ = server
    if fault == "changed":
        (folder / "l.png").write_bytes(b"another image")
    elif fault == "gone":
        (folder / "l.png").unlink()
    else:
        table["pairs"][0]["truth"]["units_per_pixel"] = 8
    with pytest.raises(StereoError, match=r"1 of 1 pairs are not complete.*--without"):
        fetch_public_pairs.fetch_pairs(table, tmp_path / "pairs", base)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)
    left = {path.name for path in (tmp_path / "pairs").rglob("*") if path.is_file()}
    whole = {"left.png", "right.png", "disparity.png"} if fault == "decoded" else set()
    assert left == whole


def test_a_pair_can_be_excluded(server, tmp_path):
    base, table, _, _ = server
    lost = json.loads(json.dumps(table["pairs"][0]).replace("set/one", "set/lost"))
    lost["files"]["left.png"]["path"] = "nowhere"
    table["pairs"].append(lost)
    fetch_public_pairs.fetch_pairs(table, tmp_path / "pairs", base, without="set/lost")
    assert [pair.name for pair in read_manifest(tmp_path / "pairs")] == ["set/one"]
    with pytest.raises(UsageError, match="--without set/two: no such pair"):
        fetch_public_pairs.fetch_pairs(table, tmp_path / "pairs", base, without="set/two")


def test_the_table_lists_every_file_completely():
    table = json.loads(fetch_public_pairs.TABLE.read_text(encoding="utf-8"))
    assert len({pair["name"] for pair in table["pairs"]}) == 21
    for place in table["repositories"].values():
        assert re.fullmatch(r"[\w.-]+/[\w.-]+/[0-9a-f]{40}", place)
    for pair in table["pairs"]:
        assert pair["data_set"] in table["licences"]
        assert {PurePosixPath(name).stem for name in pair["files"]} >= {
            "left",
            "right",
            "disparity",
        }
        for file in (pair["truth"], *pair["files"].values()):
            assert re.fullmatch(r"[0-9a-f]{64}", file["sha256"])
        for file in pair["files"].values():
            assert file["from"] in table["repositories"]
            assert not {"", ".."} & set(file["path"].split("/"))
