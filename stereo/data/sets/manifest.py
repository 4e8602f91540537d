"""The user's own pairs: ``ROOT/manifest.json``."""

from pathlib import Path
from typing import Any

from stereo.data.io.decoders import mask_is_255, stored
from stereo.data.io.disparities import MAX_SCALE
from stereo.data.sets.sample import SampleFiles
from stereo.errors import InputError
from stereo.system.parsing import read_json


def read_manifest(root: Path) -> list[SampleFiles]:
    """Read ``ROOT/manifest.json``.

    It is a list of objects with the keys ``name``, ``left``, ``right`` and ``gt``, paths relative
    to ROOT. Optional: ``gt_scale`` (stored value per pixel, for integer images), ``gt_right``
    (disparities of the right view) and ``nonoccluded`` (a mask, 255 where both views see the
    pixel). Other keys are ignored.

    Raises:
        InputError: missing, not JSON or of another form, or two entries with one name.
    """
    path = root / "manifest.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; 'manifest' reads its list of pairs")
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a list of pairs, and at least one")
    samples = [_entry(path, root, index, entry) for index, entry in enumerate(entries)]
    seen: set[str] = set()
    for sample in samples:
        if sample.name in seen:
            raise InputError(f"{path}: two entries are named '{sample.name}'")
        seen.add(sample.name)
    return samples


def _entry(path: Path, root: Path, index: int, entry: Any) -> SampleFiles:
    if not isinstance(entry, dict):
        raise InputError(f"{path}: entry {index} is not an object")
    for key in ("name", "left", "right", "gt"):
        if not isinstance(entry.get(key), str):
            raise InputError(f"{path}: entry {index} lacks the text '{key}'")
    scale = entry.get("gt_scale")
    if scale is not None and (
        type(scale) not in (int, float) or not 1 / MAX_SCALE <= scale <= MAX_SCALE
    ):
        raise InputError(f"{path}: entry {index}: 'gt_scale' must be a positive number such as 256")
    for key in ("nonoccluded", "gt_right"):
        if not isinstance(entry.get(key), str | None):
            raise InputError(f"{path}: entry {index}: '{key}' must be a path")
    mask, right = (
        root / entry[key] if entry.get(key) is not None else None
        for key in ("nonoccluded", "gt_right")
    )
    return SampleFiles(
        name=entry["name"],
        left=root / entry["left"],
        right=root / entry["right"],
        disparity=root / entry["gt"],
        disparity_right=right,
        nonoccluded=() if mask is None else ((mask, mask_is_255),),
        decode=stored(scale),
    )
