"""Data sets by name: each finds its pairs under a root folder and says how they are read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stereo.data.sample import SampleFiles
from stereo.errors import InputError, UsageError, unknown_name


@dataclass(frozen=True)
class Dataset:
    """The pairs of a data set under one choice of split and pass.

    Attributes:
        name: as the user gave it.
        split: the part that was chosen, or None where there are none.
        render_pass: ``clean`` or ``final`` for rendered data, else None.
        samples: the pairs, in a fixed order.
    """

    name: str
    split: str | None
    render_pass: str | None
    samples: list[SampleFiles]


def open_dataset(
    name: str, root: str | Path, *, split: str | None = None, render_pass: str | None = None
) -> Dataset:
    """List the pairs of a data set.

    Args:
        name: a key of ``DATASETS``.
        root: the folder it lies in.
        split: ``train`` or ``test``; None for the data set's default.
        render_pass: ``clean`` or ``final``; None for ``final`` where the choice exists.

    Raises:
        UsageError: an unknown name, or a split or pass that the data set does not have.
        InputError: the root does not hold the data set.
    """
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --root names the folder that holds the data")
    return DATASETS[name](name, root, split, render_pass)


def _manifest(name: str, root: Path, split: str | None, render_pass: str | None) -> Dataset:
    """Read ``ROOT/manifest.json``.

    It is a list of objects with the keys ``name``, ``left``, ``right`` and ``gt``, paths relative
    to ROOT. Optional: ``gt_scale`` (stored value per pixel, for integer pictures) and
    ``nonoccluded`` (a mask, 255 where both views see the pixel). Other keys are ignored.
    """
    if split is not None or render_pass is not None:
        raise UsageError("the data set 'manifest' has no --split and no --pass")
    path = root / "manifest.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; 'manifest' reads its list of pairs") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a list of pairs, and at least one")
    samples = [_manifest_entry(path, root, index, entry) for index, entry in enumerate(entries)]
    seen: set[str] = set()
    for sample in samples:
        if sample.name in seen:
            raise InputError(f"{path}: two entries are named '{sample.name}'")
        seen.add(sample.name)
    return Dataset(name, None, None, samples)


def _manifest_entry(path: Path, root: Path, index: int, entry: object) -> SampleFiles:
    if not isinstance(entry, dict):
        raise InputError(f"{path}: entry {index} is not an object")
    for key in ("name", "left", "right", "gt"):
        if not isinstance(entry.get(key), str):
            raise InputError(f"{path}: entry {index} lacks the text '{key}'")
    scale = entry.get("gt_scale")
    if scale is not None and (
        isinstance(scale, bool) or not isinstance(scale, int | float) or not scale > 0
    ):
        raise InputError(f"{path}: entry {index}: 'gt_scale' must be a positive number")
    mask = entry.get("nonoccluded")
    return SampleFiles(
        name=entry["name"],
        left=root / entry["left"],
        right=root / entry["right"],
        disparity=root / entry["gt"],
        scale=scale,
        nonoccluded=root / mask if isinstance(mask, str) else None,
    )


_SCENEFLOW_TREE = (
    "expected frames such as FlyingThings3D/frames_finalpass/TEST/A/0000/left/0006.png and "
    "disparities such as FlyingThings3D/disparity/TEST/A/0000/left/0006.pfm"
)

_SCENEFLOW_PARTS = {
    "sceneflow": ("FlyingThings3D", "Monkaa", "Driving"),
    "flyingthings3d": ("FlyingThings3D",),
    "monkaa": ("Monkaa",),
    "driving": ("Driving",),
}


def _sceneflow(name: str, root: Path, split: str | None, render_pass: str | None) -> Dataset:
    """Read Scene Flow's official tree; the test split is FlyingThings3D's TEST, as published."""
    parts = _SCENEFLOW_PARTS[name]
    split = split or ("test" if "FlyingThings3D" in parts else "train")
    render_pass = render_pass or "final"
    if split not in ("train", "test"):
        raise unknown_name("split", split, ("train", "test"))
    if render_pass not in ("clean", "final"):
        raise unknown_name("pass", render_pass, ("clean", "final"))
    if split == "test" and "FlyingThings3D" not in parts:
        raise UsageError(f"the data set '{name}' has no test split; use --split train")
    samples: list[SampleFiles] = []
    for part in parts if split == "train" else ("FlyingThings3D",):
        samples += _sceneflow_part(root, part, split, render_pass, alone=len(parts) == 1)
    if not samples:
        found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{root}: no pairs of '{name}' (split {split}, {render_pass} pass); "
            f"found {found}; {_SCENEFLOW_TREE}"
        )
    return Dataset(name, split, render_pass, samples)


def _sceneflow_part(
    root: Path, part: str, split: str, render_pass: str, *, alone: bool
) -> list[SampleFiles]:
    below = Path(split.upper()) if part == "FlyingThings3D" else Path()
    base = root / part
    if alone and root.name == part and not base.is_dir():
        base = root
    if not (base / "disparity" / below).is_dir():
        raise InputError(
            f"{base / 'disparity' / below}: no such folder; {_SCENEFLOW_TREE}, and likewise for "
            "Monkaa and Driving; name one of the three to leave the others out"
        )
    frames = base / f"frames_{render_pass}pass" / below
    disparities = base / "disparity" / below
    samples = []
    for truth in sorted(disparities.rglob("left/*.pfm")):
        scene = truth.parent.parent.relative_to(disparities)
        left = _frame(frames / scene / "left", truth.stem)
        right = _frame(frames / scene / "right", truth.stem)
        name = (Path(part) / below / scene / truth.stem).as_posix()
        samples.append(SampleFiles(name, left, right, truth, zero_is_missing=False))
    return samples


def _frame(folder: Path, stem: str) -> Path:
    for suffix in (".png", ".webp"):
        if (folder / f"{stem}{suffix}").exists():
            return folder / f"{stem}{suffix}"
    raise InputError(f"{folder}/{stem}: no .png or .webp frame for this disparity")


DATASETS: dict[str, Callable[[str, Path, str | None, str | None], Dataset]] = {
    "manifest": _manifest,
    "sceneflow": _sceneflow,
    "flyingthings3d": _sceneflow,
    "monkaa": _sceneflow,
    "driving": _sceneflow,
}
