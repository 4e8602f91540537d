"""Validate one pair: every file is read, every fault is reported, none is raised."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stereo.data.io.images import read_samples
from stereo.data.sets.sample import SampleFiles, size_text
from stereo.errors import InputError

BIN_WIDTH = 16
LAST_EDGE = 512
EDGES = (*range(0, LAST_EDGE + 1, BIN_WIDTH),)


@dataclass(frozen=True)
class Job:
    """A pair to validate."""

    files: SampleFiles  # the pair
    max_disparity: int  # length of the range, pixels; what lies beyond it is counted
    min_disparity: int = 0  # its start, pixels; what lies below it is a fault
    # those of its ground truth and masks that other pairs have already
    seen: frozenset[Path] = frozenset()

    def new(self, path: Path, faults: "list[Fault]") -> "list[Fault]":
        """Return a file's faults, without those that another pair with the file has too."""
        return [fault for fault in faults if fault.kind == "size" or path not in self.seen]


@dataclass(frozen=True)
class Fault:
    """A fault of one file."""

    kind: str  # `unreadable`, `size`, `sign`, `nan`, `infinite` or `empty`
    detail: str  # the file and what is wrong with it


@dataclass(frozen=True)
class Finding:
    """Result of validating a pair."""

    faults: tuple[Fault, ...]  # everything wrong
    size: str | None  # "WIDTHxHEIGHT" of the left image; None if it cannot be read
    pixels: int = 0  # pixels of the left disparity map; 0 if it was not read
    valid: int = 0  # those with ground truth
    beyond: int = 0  # those of `valid` at the range's end or above
    below: int = 0  # those of `valid` below its start
    negative: int = 0  # those of `valid` below 0
    zero: int = 0  # those of `valid` at 0
    lowest: float | None = None  # smallest valid disparity, pixels
    highest: float | None = None  # largest valid disparity, pixels
    # valid disparities of 0 and more between `EDGES`, then those above the last
    histogram: tuple[int, ...] = ()


def validate_pair(job: Job) -> Finding:
    """Read a pair's files and return their faults."""
    files = job.files
    faults: list[Fault] = []
    left, right = (_image(path, faults) for path in (files.left, files.right))
    if left is not None and right is not None and left.shape[:2] != right.shape[:2]:
        faults.append(
            Fault("size", f"{files.right} is {size_text(right)}, its left view {size_text(left)}")
        )
    shape = next((i.shape[:2] for i in (left, right) if i is not None), None)
    size = None if left is None else size_text(left)
    if shape is None:
        return Finding(tuple(faults), size)
    if files.disparity_right is not None:
        _disparity(job, files.disparity_right, shape, faults)
    for path, read_mask in files.nonoccluded:
        own: list[Fault] = []
        try:
            _check_size(path, read_mask(path), shape, own)
        except InputError as error:
            own.append(Fault("unreadable", str(error)))
        faults += job.new(path, own)
    truth = None
    if files.disparity is not None:
        truth = _disparity(job, files.disparity, shape, faults)
    if truth is None or files.disparity in job.seen:
        return Finding(tuple(faults), size)
    disparity, valid = truth
    known = disparity[valid]
    counts = np.histogram(known, bins=[*EDGES, np.inf])[0]
    return Finding(
        tuple(faults),
        size,
        pixels=disparity.size,
        valid=known.size,
        beyond=int(np.count_nonzero(known >= job.min_disparity + job.max_disparity)),
        below=int(np.count_nonzero(known < job.min_disparity)),
        negative=int(np.count_nonzero(known < 0)),
        zero=int(np.count_nonzero(known == 0)),
        lowest=float(known.min()) if known.size else None,
        highest=float(known.max()) if known.size else None,
        histogram=tuple(int(count) for count in counts),
    )


def _image(path: Path, faults: list[Fault]) -> np.ndarray | None:
    try:
        return read_samples(path)
    except InputError as error:
        faults.append(Fault("unreadable", str(error)))
        return None


def _disparity(
    job: Job, path: Path, shape: tuple[int, int], faults: list[Fault]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Read one map and look for faults; returns it with its valid pixels, both (H, W)."""
    own: list[Fault] = []
    found = _read_disparity(job, path, shape, own)
    faults += job.new(path, own)
    return found


def _read_disparity(
    job: Job, path: Path, shape: tuple[int, int], faults: list[Fault]
) -> tuple[np.ndarray, np.ndarray] | None:
    files, least = job.files, job.min_disparity
    try:
        disparity = files.decode(path, shape)
    except InputError as error:
        faults.append(Fault("unreadable", str(error)))
        return None
    _check_size(path, disparity, shape, faults)
    valid = files.known(disparity)
    known = disparity[valid]
    below = int(np.count_nonzero(known < least))
    if below:
        lowest = float(known.min())
        detail = f"{path}: {below} disparities below {least} px, down to {lowest:g}"
        faults.append(Fault("sign", f"{detail}; if they are meant, see --min-disparity"))
    if files.dense:
        counts = {"nan": np.isnan(disparity).sum(), "infinite": np.isinf(disparity).sum()}
        for kind, count in counts.items():
            if count:
                faults.append(Fault(kind, f"{path}: {count} {kind} pixels in dense ground truth"))
    if not valid.any():
        faults.append(Fault("empty", f"{path}: no pixel has ground truth"))
    return disparity, valid


def _check_size(path: Path, array: np.ndarray, shape: tuple[int, int], faults: list[Fault]) -> None:
    if array.shape[:2] != shape:
        faults.append(
            Fault("size", f"{path} is {size_text(array)}, its image {shape[1]}x{shape[0]}")
        )
