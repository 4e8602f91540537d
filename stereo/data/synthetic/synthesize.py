"""Rendered scenes to disk, in Scene Flow's tree."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from stereo.data.io.disparities import write_disparity
from stereo.data.sets.layouts import SYNTHETIC, SYNTHETIC_NOTE
from stereo.data.synthetic import RenderedPair, SyntheticConfig, SyntheticScenes
from stereo.data.synthetic.meshes import find_meshes
from stereo.data.synthetic.photographs import find_photographs
from stereo.errors import InputError, OutputError, UsageError
from stereo.system.console import progress, say
from stereo.system.files import output_folder, remove_leftovers, staged, writes_alone
from stereo.system.parsing import read_json
from stereo.system.workers import map_in_processes

PART = "FlyingThings3D"
VERSION = 6  # of the renderer: raise it when a pair's bytes change
FRAMES, FIRST_FRAME = 10, 6  # per scene folder, numbered 0006 to 0015 as in FlyingThings3D
SCENES = 10_000  # per letter
LARGEST_COUNT = 3 * SCENES * FRAMES  # of pairs; of sequences a tenth
_SIDES = ("left", "right")


@writes_alone
def synthesize(
    root: str | Path,
    config: SyntheticConfig,
    count: int,
    *,
    split: Literal["train", "test"] = "train",
    workers: int = 1,
) -> tuple[int, int]:
    """Write pairs 0 to ``count`` - 1 below a folder, those that are not there yet.

    The tree is FlyingThings3D's, ``ROOT/FlyingThings3D/KIND/SPLIT/A/NNNN/SIDE/NNNN.SUFFIX``: frames
    of the clean and the final pass (without and with the cameras' faults), disparities of both
    views, and in ``nonoccluded`` a mask of each, 255 where the other view shows the point too.
    Those of the right view are the final pass's, which may be askew. What was rendered is noted in
    ``ROOT/synthetic.json``, so that two sets are never mixed.

    Args:
        root: folder for the data set; created if missing.
        config: what to render.
        count: number of pairs, up to 300,000; with ``--frames``, of sequences.
        split: Scene Flow's folder, TRAIN or TEST.
        workers: processes that render; their number changes no byte.

    Returns:
        How many pairs were written, and how many were there already.

    Raises:
        UsageError: a count, split or number of workers that makes no sense.
        InputError: the textures or meshes cannot be used, or the folder holds another set.
        OutputError: the folder cannot be written.
    """
    largest = LARGEST_COUNT if config.frames == 1 else LARGEST_COUNT // FRAMES
    if not 1 <= count <= largest:
        raise UsageError(f"--count {count}: must lie between 1 and {largest}")
    if not 1 <= workers <= 256:
        raise UsageError(f"--workers {workers}: must lie between 1 and 256")
    if split not in ("train", "test"):
        raise UsageError(f"--split {split}: must be train or test")
    root = Path(root)
    scenes = SyntheticScenes(config)  # reads the textures' folder before anything is written
    try:
        output_folder(root, alone=True)
    except OutputError as error:
        raise type(error)(str(error).replace("--output", "--root")) from error
    _note(root, _facts(config), split)
    count *= config.frames
    files = partial(pair_files, root, split, frames=config.frames)
    missing = [i for i in range(count) if not all(path.is_file() for path in files(i))]
    kept = count - len(missing)
    if kept:
        say(f"{root}: {kept} of {count} pairs are there already")
    for leaf in {path.parent for index in missing for path in files(index)}:
        remove_leftovers(leaf)
    written = 0
    for index in progress(missing, "render") if workers == 1 else ():
        _write(files(index), scenes.render(index))
        written = _report(written, len(missing))
    if workers > 1 and missing:
        job = partial(_render_and_write, root, split, config)
        with closing(map_in_processes(job, missing, workers, threads=1)) as done:
            for _ in zip(progress(missing, "render"), done, strict=True):
                written = _report(written, len(missing))
    say(f"{root}: {count} pairs; read them with --dataset {SYNTHETIC} --split {split}")
    return len(missing), kept


def pair_files(root: Path, split: str, index: int, frames: int = 1) -> list[Path]:
    """Return the files of a pair: clean, final, disparity and mask, left and right of each.

    A sequence of ``frames`` has a scene's folder to itself; else ten scenes share one.
    """
    scene, frame = divmod(index, FRAMES if frames == 1 else frames)
    letter, scene = divmod(scene, SCENES)
    below = Path(split.upper()) / "ABC"[letter] / f"{scene:04d}"
    kinds = (
        ("frames_cleanpass", ".png"),
        ("frames_finalpass", ".png"),
        ("disparity", ".pfm"),
        ("nonoccluded", ".png"),
    )
    return [
        root / PART / kind / below / side / f"{FIRST_FRAME + frame:04d}{suffix}"
        for kind, suffix in kinds
        for side in _SIDES
    ]


def _write(files: Sequence[Path], pair: RenderedPair) -> None:
    for path in files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {path.parent}: {error.strerror}") from error
    with staged(*files) as (clean_l, clean_r, left, right, map_l, map_r, mask_l, mask_r):
        _save(clean_l, pair.clean_left)
        _save(clean_r, pair.clean_right)
        _save(left, pair.left)
        _save(right, pair.right)
        write_disparity(map_l, pair.disparity)
        write_disparity(map_r, pair.right_disparity)
        _save(mask_l, pair.nonoccluded.astype(np.uint8) * 255)
        _save(mask_r, pair.right_nonoccluded.astype(np.uint8) * 255)


def _save(path: Path, picture: np.ndarray) -> None:
    Image.fromarray(picture).save(path, compress_level=3)


def _report(written: int, total: int) -> int:
    """Count one more pair, and say so at every tenth of the work."""
    written += 1
    if written * 10 // total > (written - 1) * 10 // total:
        say(f"{written} of {total} pairs rendered")
    return written


_SCENES: dict[SyntheticConfig, SyntheticScenes] = {}


def _render_and_write(root: Path, split: str, config: SyntheticConfig, index: int) -> None:
    if config not in _SCENES:
        _SCENES[config] = SyntheticScenes(config)
    files = pair_files(root, split, index, config.frames)
    _write(files, _SCENES[config].render(index))


def _facts(config: SyntheticConfig) -> dict[str, Any]:
    """Return what the bytes of the set depend on; textures and meshes by names and sizes."""
    facts = asdict(config)
    if config.textures:
        facts["textures"] = _named(find_photographs(config.textures), config.textures)
    if config.meshes:
        facts["meshes"] = _named(find_meshes(config.meshes), config.meshes)
    facts["objects"], facts["places"] = list(config.objects), list(config.places)
    return {"renderer": VERSION, **facts}


def _named(files: Sequence[Path], folder: str) -> str:
    names = hashlib.sha256()
    for path in files:
        names.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
    return f"sha256 {names.hexdigest()[:16]}"


def _note(root: Path, facts: dict[str, Any], split: str) -> None:
    """Write what is rendered beside it, or check that it is what was rendered before."""
    path = root / SYNTHETIC_NOTE
    noted: dict[str, Any] = {}
    if path.exists():
        noted = read_json(path)
        if not (isinstance(noted, dict) and isinstance(noted.get(split, facts), dict)):
            raise InputError(f"{path}: not the note of a rendered set; choose another --root")
        before = noted.get(split, facts)
        if before != facts:
            other = sorted(k for k in facts if before.get(k) != facts[k])
            raise InputError(
                f"{root}: holds rendered scenes with another {', '.join(other)}; "
                "choose another --root, or give the same options to continue"
            )
        other_split = "test" if split == "train" else "train"
        beside = noted.get(other_split)
        if isinstance(beside, dict) and beside.get("seed") == facts["seed"]:
            raise InputError(
                f"{root}: its {other_split} split has scenes of this seed; give another --seed"
            )
    elif any((root / PART).rglob("*.pfm")):
        raise InputError(
            f"{root}: holds a {PART} that was not rendered here; choose another --root"
        )
    if noted.get(split) != facts:
        with staged(path) as (temporary,):
            temporary.write_text(json.dumps({**noted, split: facts}, indent=1), encoding="utf-8")
