"""Pairs on disk, known again by some of their bytes."""

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from stereo.data.sets.sample import Readable, SampleFiles

DIGITS = 12  # of 8, 35,000 pairs and 4,000 others share one in 3 % of cases
PARTS, PART_BYTES = 7, 512  # of a file
FEWEST_VALUES = 16  # different bytes; a rig's maps share parts without ground truth


def fingerprints(pairs: Iterable[Readable]) -> frozenset[str]:
    """Return the fingerprints of the left images and the ground truth of pairs on disk.

    Other passes of a scene share its ground truth.
    """
    files = (pair for pair in pairs if isinstance(pair, SampleFiles))
    return fingerprints_of(
        path for pair in files for path in (pair.left, pair.disparity) if path is not None
    )


def fingerprints_of(paths: Iterable[Path]) -> frozenset[str]:
    """Return twelve hexadecimal digits for each file, of its size and some of its bytes.

    Files that cannot be read are left out, since whoever needs them says so, and files whose bytes
    hardly differ, since these do not tell them apart.
    """
    found = set()
    for path in paths:
        if not path.is_file():
            continue
        with contextlib.suppress(OSError), path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            some = b""
            for part in range(1, PARTS + 1):
                file.seek(size * part // (PARTS + 1))
                some += file.read(PART_BYTES)
            if len(set(some)) >= FEWEST_VALUES:
                found.add(hashlib.sha256(f"{size} ".encode() + some).hexdigest()[:DIGITS])
    return frozenset(found)


def packed(found: frozenset[str]) -> str:
    """Return fingerprints as one text, for a checkpoint."""
    return "".join(sorted(found))


def unpacked(text: object) -> frozenset[str]:
    """Return the fingerprints of such a text; none of anything else."""
    if not isinstance(text, str):
        return frozenset()
    return frozenset(text[at : at + DIGITS] for at in range(0, len(text), DIGITS))
