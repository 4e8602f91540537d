"""Fetch the public pairs of the accuracy table, and list them in a manifest.

    python scripts/fetch_public_pairs.py --root pairs
    stereo evaluate --dataset manifest --root pairs --protocol pooled --output results

``public_pairs.json`` beside this script names for each file a public repository, its commit, the
path there and the SHA-256. The ground truth is also decoded, to ``gt.pfm`` in pixels of the left
view, whose SHA-256 is in the table as well: those are the bytes that the table was computed from.
What is there with its checksum is not fetched again.
"""

import argparse
import hashlib
import http.client
import json
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stereo.data.io.disparities import read_disparity, write_disparity
from stereo.errors import StereoError, UsageError
from stereo.system.console import run_script
from stereo.system.files import output_folder, remove_empty_folders, staged
from stereo.system.parsing import read_json

TABLE = Path(__file__).with_name("public_pairs.json")
BASE = "https://raw.githubusercontent.com"
TIMEOUT = 60  # seconds without an answer
MAX_BYTES = 2**24  # no file of the table is half as large


def main() -> None:
    """Fetch, verify and decode all pairs; list them when every one is complete."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, type=Path, help="folder for the pairs")
    parser.add_argument("--without", default="", help="comma-separated names of pairs to leave out")
    parser.add_argument("--base", default=BASE, help="a mirror that has OWNER/NAME/COMMIT/PATH")
    options = parser.parse_args()
    try:
        fetch_pairs(read_json(TABLE), options.root, options.base, options.without)
    finally:
        remove_empty_folders()


def fetch_pairs(table: dict[str, Any], root: Path, base: str = BASE, without: str = "") -> None:
    """Fetch what ``root`` lacks; write its ``manifest.json`` once every pair is complete.

    Args:
        table: ``repositories``, of a short name the OWNER/NAME/COMMIT, and ``pairs``.
        root: receives a folder for each pair.
        base: the address below which OWNER/NAME/COMMIT/PATH lies.
        without: comma-separated names of pairs to leave out.

    Raises:
        UsageError: ``without`` names a pair that the table lacks.
        StereoError: a pair that is not complete; all the others were fetched.
    """
    left_out = {name.strip() for name in without.split(",") if name.strip()}
    if unknown := left_out - {pair["name"] for pair in table["pairs"]}:
        raise UsageError(f"--without {', '.join(sorted(unknown))}: no such pair in the table")
    pairs = [pair for pair in table["pairs"] if pair["name"] not in left_out]
    entries, fetched = [], 0
    for pair in pairs:
        folder = output_folder(root / pair["name"])
        try:
            for name, file in pair["files"].items():
                path = f"{table['repositories'][file['from']]}/{file['path']}"
                fetched += _fetch(f"{base}/{urllib.parse.quote(path)}", file, folder / name)
            _decode(pair, folder)
        except StereoError as error:
            print(f"{pair['name']}: {error}", file=sys.stderr)
        else:
            entries.append(_entry(pair))
    if lacking := len(pairs) - len(entries):
        raise StereoError(
            f"{lacking} of {len(pairs)} pairs are not complete, so no manifest was written; try "
            "again, or leave them out with --without"
        )
    manifest = root / "manifest.json"
    with staged(manifest) as (temporary,):
        temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    print(f"{manifest}: {len(entries)} pairs; {fetched} files fetched, all verified")


def _fetch(address: str, file: dict[str, str], target: Path) -> bool:
    """Fetch one file unless it is there; tell whether it was fetched."""
    if target.is_file() and _sha256(target.read_bytes()) == file["sha256"]:
        return False
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
            content = answer.read(MAX_BYTES)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise StereoError(f"cannot fetch {address} ({error})") from error
    if (found := _sha256(content)) != file["sha256"]:
        raise StereoError(
            f"{address} has the SHA-256 {found}, not {file['sha256']}; nothing was kept of it"
        )
    with staged(target) as (temporary,):
        temporary.write_bytes(content)
    return True


def _decode(pair: dict[str, Any], folder: Path) -> None:
    """Write ``gt.pfm``, infinite where there is no ground truth."""
    target, truth = folder / "gt.pfm", pair["truth"]
    disparity = read_disparity(_file(pair, folder, "disparity"), truth["units_per_pixel"])
    with Image.open(_file(pair, folder, "left")) as picture:
        size = picture.size
    if disparity.shape[::-1] != size:
        nearest = Image.Resampling.NEAREST
        disparity = np.asarray(Image.fromarray(disparity).resize(size, nearest))
    known = np.isfinite(disparity) & (disparity > 0)
    with staged(target) as (temporary,):
        write_disparity(temporary, np.where(known, disparity, np.float32(np.inf)))
        if (found := _sha256(temporary.read_bytes())) != truth["sha256"]:
            raise StereoError(
                f"{target.name} has the SHA-256 {found}, not {truth['sha256']}; it was decoded "
                "otherwise than for the accuracy table"
            )


def _entry(pair: dict[str, Any]) -> dict[str, str]:
    folder = Path(pair["name"])
    entry = {role: _file(pair, folder, role).as_posix() for role in ("left", "right")}
    return {"name": pair["name"], **entry, "gt": f"{pair['name']}/gt.pfm"}


def _file(pair: dict[str, Any], folder: Path, role: str) -> Path:
    (name,) = (name for name in pair["files"] if Path(name).stem == role)
    return folder / name


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    run_script(main)
