"""Data sets by name: each finds its pairs under a root folder and says how they are read."""

import contextlib
import difflib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stereo.data.sets.layouts import (
    DESCRIPTIONS,
    FOLDERS,
    SYNTHETIC,
    SYNTHETIC_NOTE,
    Description,
    Layout,
    Part,
)
from stereo.data.sets.listing import PartListing, list_part, read_unused
from stereo.data.sets.manifest import read_manifest
from stereo.data.sets.patterns import PathPattern
from stereo.data.sets.sample import Readable, SampleFiles
from stereo.errors import InputError, UsageError, unknown_name

# Data sets that no tree of files describes: each function lists the pairs under a root.
READERS: dict[str, Callable[[Path], list[SampleFiles]]] = {"manifest": read_manifest}

DATASETS: dict[str, Description] = {
    "manifest": Description("your own pairs, listed in ROOT/manifest.json"),
    **DESCRIPTIONS,
}


@dataclass(frozen=True)
class Dataset:
    """The pairs of a data set under one choice of split and pass."""

    name: str  # as the user gave it
    split: str | None  # the part that was chosen, or None where there are none
    render_pass: str | None  # `clean` or `final` for rendered data, else None
    samples: Sequence[Readable]  # the pairs, in a fixed order
    # the trees it was found in, by name; None where there is but one form
    layout: str | None = None


@dataclass(frozen=True)
class Found:
    """Parts of a data set found in a root, complete or not."""

    split: str | None  # the chosen split, or None where there are none
    render_pass: str | None  # the chosen pass, or None where there are none
    listings: list[PartListing]  # the parts that were found
    absent: list[Part]  # the parts of this split that are missing


def open_dataset(
    name: str,
    root: str | Path | None,
    *,
    split: str | None = None,
    render_pass: str | None = None,
    layout: str | None = None,
    unused: str | Path | None = None,
    truth: bool = True,
) -> Dataset:
    """List the pairs of a data set; every one of them is complete.

    Args:
        name: a key of ``DATASETS``.
        root: the folder it lies in; None for ``synthetic`` rendered on the spot.
        split: one of the data set's splits; None for its default.
        render_pass: ``clean`` or ``final``; None for ``final`` where the choice exists.
        layout: name of the tree; None to find it by looking.
        unused: Scene Flow's ``all_unused_files.txt``, whose frames are left out; None to use all.
        truth: False for the images alone: ground truth may be absent, and none is given.

    Raises:
        UsageError: an unknown name, or a choice that the data set does not have.
        InputError: the root does not hold the data set, or not all of it.
    """
    description = get_description(name)
    if root is None:
        if name != SYNTHETIC:
            raise UsageError(f"--root is missing: it names the folder that holds '{name}'")
        _refuse_choices("synthetic without --root", split, render_pass, layout, unused)
        from stereo.data.synthetic.samples import held_out

        return Dataset(name, None, None, held_out())
    root = Path(root)
    _check_root(root)
    if name in READERS:
        _refuse_choices(name, split, render_pass, layout, unused)
        return Dataset(name, None, None, READERS[name](root))
    found = find_parts(name, root, split, render_pass, layout=layout, unused=unused, truth=truth)
    if not found.listings or any(not part.optional for part in found.absent):
        raise _nothing_found(name, root, description, found, layout, truth)
    for listing in found.listings:
        if listing.missing:
            raise InputError(
                f"{_first_missing(name, root, listing)}; "
                f"'stereo data check --dataset {name} --root {root}' lists what is missing"
            )
    samples = [sample for listing in found.listings for sample in listing.samples]
    if not samples:
        raise InputError(f"{root}: every pair of '{name}' is on the list of unusable frames")
    layouts = dict.fromkeys(listing.layout.name for listing in found.listings)
    return Dataset(name, found.split, found.render_pass, samples, "+".join(layouts))


def get_description(name: str) -> Description:
    """Return a data set's description.

    Raises:
        UsageError: the name is unknown; the message lists the known ones.
    """
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]


def find_parts(
    name: str,  # a key of `DATASETS` that is not in `READERS`
    root: Path,  # the folder it lies in
    split: str | None,
    render_pass: str | None,
    *,
    layout: str | None = None,
    unused: str | Path | None = None,
    truth: bool = True,
) -> Found:
    """Find the parts of a data set, incomplete ones included.

    Raises:
        UsageError: a choice that the data set does not have.
        InputError: ambiguous layouts, or an unreadable list of unusable frames.
    """
    description = get_description(name)
    _check_root(root)
    split = split or description.default_split
    if split not in description.splits:
        raise unknown_name(f"split of '{name}':", str(split), description.splits)
    render_pass = _choose_pass(name, description, render_pass)
    layouts = [candidate.name for part in description.parts for candidate in part.layouts]
    if layout is not None and layout not in layouts:
        raise unknown_name(f"layout of '{name}':", layout, dict.fromkeys(layouts))
    frames = frozenset[str]()
    if unused is not None:
        if not any(part.unused_name for part in description.parts):
            raise UsageError(f"the list of unusable frames does not apply to '{name}'")
        frames = read_unused(Path(unused))
    listings: list[PartListing] = []
    absent: list[Part] = []
    for part in description.parts:
        if not any(split in candidate.splits for candidate in part.layouts):
            continue
        about = frames if part.unused_name else frozenset[str]()
        listing = list_part(root, part, split, render_pass, layout, about, truth)
        if listing is None:
            absent.append(part)
        else:
            listings.append(listing)
            if listing.doubles:
                (used, other, *_), count = listing.doubles[0], len(listing.doubles)
                more = f"; so it is with {count} names" if count > 1 else ""
                warnings.warn(f"{used} is read, not {other.name} beside it{more}", stacklevel=2)
    return Found(split, render_pass, listings, absent)


def detect_dataset(root: Path) -> str:
    """Detect the data set that a folder holds.

    Raises:
        InputError: none is found, or several.
    """
    _check_root(root)
    if (root / "manifest.json").is_file():
        return "manifest"
    if (root / SYNTHETIC_NOTE).is_file():
        return SYNTHETIC
    kinds = [name for name in DESCRIPTIONS if name not in ("sceneflow", SYNTHETIC)]
    found = [name for name in kinds if _holds(name, root)]
    parts = {"flyingthings3d", "monkaa", "driving"}
    if "flyingthings3d" in found and len(parts.intersection(found)) > 1:
        found = ["sceneflow", *(name for name in found if name not in parts)]
    if "flyingthings3d_subset" in found and "flyingthings3d" in found:
        found.remove("flyingthings3d_subset")
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(
            f"{root}: no data set recognised; found {_contents(root)}; name one with --dataset, "
            "and see 'stereo data list' for the trees"
        )
    raise InputError(f"{root}: could be {', '.join(found)}; name one with --dataset")


def chosen_dataset(name: str | None, root: str | Path | None) -> str:
    """Return the named data set, or the one that the folder holds.

    Raises:
        UsageError: neither a name nor a folder.
        InputError: no data set is found in the folder, or several.
    """
    if name is not None:
        return name
    if root is None:
        raise UsageError("name a data set with --dataset, or its folder with --root")
    return detect_dataset(Path(root))


def _holds(name: str, root: Path) -> bool:
    description = DESCRIPTIONS[name]
    return any(
        (listing := list_part(root, part, split, render_pass, layout.name)) is not None
        and bool(listing.samples)
        for part in description.parts
        for layout in part.layouts
        for split in layout.splits
        for render_pass in description.passes or (None,)
    )


def _check_root(root: Path) -> None:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; the root is the folder that holds the data set")


def _refuse_choices(name: str, *choices: object) -> None:
    for option, choice in zip(("split", "pass", "layout", "unused"), choices, strict=True):
        if choice is not None:
            raise UsageError(f"the data set '{name}' has no --{option}")


def _choose_pass(name: str, description: Description, render_pass: str | None) -> str | None:
    if not description.passes:
        if render_pass is not None:
            raise UsageError(f"the data set '{name}' has no --pass")
        return None
    if render_pass is not None and render_pass not in description.passes:
        raise unknown_name("pass", render_pass, description.passes)
    return render_pass or description.passes[0]


def _first_missing(name: str, root: Path, listing: PartListing) -> str:
    """Describe the missing file of the first incomplete pair, and what was found instead."""
    first, count = listing.missing[0], len(listing.missing)
    absent = [each for each in first.path.parents if root in each.parents and not each.exists()]
    if absent:
        folder = absent[-1]
        pairs = {each.name for each in listing.missing if folder in each.path.parents}
        which = f"{len(pairs)} pairs are" if len(pairs) > 1 else f"the pair '{first.name}' is"
        return (
            f"{folder}: no such folder, so {which} incomplete; "
            f"{folder.parent} holds {_contents(folder.parent)}"
        )
    others = f" and {count - 1} more" if count > 1 else ""
    text = f"{first.path}: no such file{others}, so the pair '{first.name}' is incomplete"
    if name != FOLDERS:
        return text
    used = {path for each in listing.samples for path in (each.left, each.right, each.disparity)}
    spare = [path.name for path in first.path.parent.iterdir() if path not in used]
    near = difflib.get_close_matches(first.path.name, spare, n=1, cutoff=0)
    return text + (f"; the nearest name there is '{near[0]}'" if near else "")


def _nothing_found(
    name: str, root: Path, description: Description, found: Found, layout: str | None, truth: bool
) -> InputError:
    part = next((part for part in found.absent if not part.optional), description.parts[0])
    candidates = [
        candidate
        for candidate in part.layouts
        if found.split in candidate.splits and layout in (None, candidate.name)
    ]
    expected = expected_files(
        part, candidates or part.layouts, str(found.split), found.render_pass, truth
    )
    hint = _other_name(name, root, found)
    if candidates and not hint:
        first = candidates[0]
        given = {"split": first.splits[str(found.split)].folder, "pass": found.render_pass or ""}
        base = root / part.folders_of(first)[0]
        misfit = PathPattern(first.left).with_values(given).misfit(base)
        hint = f"; {misfit}" if misfit else ""
    choice = f"split {found.split}" + (f", {found.render_pass} pass" if found.render_pass else "")
    others = " or another known tree" if len(candidates) > 1 else ""
    if name == FOLDERS:
        others = ", or all one folder deeper"
    return InputError(
        f"{root}: no pairs of {part.title} for '{name}' ({choice}); expected {expected}{others} "
        f"(see datasets/README.md); found {_contents(root)}{hint}"
    )


def _other_name(name: str, root: Path, found: Found) -> str:
    """Return which data set name fits the root."""
    parts = tuple(listing.part for listing in found.listings)
    same = [other for other, it in DATASETS.items() if parts and it.parts == parts]
    titles = " and ".join(part.title for part in parts)
    text = f"{titles} alone is"
    if not same:
        text = "it looks like"
        with contextlib.suppress(InputError):
            same = [other for other in [detect_dataset(root)] if other != name]
    if not same:
        return ""
    return f"; {text} '{same[0]}' (--dataset {same[0]}; in training --data.name {same[0]})"


def expected_files(
    part: Part, layouts: Sequence[Layout], split: str, render_pass: str | None, truth: bool = True
) -> str:
    """Return the files of the first of these layouts, as patterns."""
    layout = next((each for each in layouts if split in each.splits), layouts[0])
    chosen = layout.splits.get(split)
    given = {"split": chosen.folder} if chosen else {}
    given |= {"pass": render_pass} if render_pass else {}
    first = part.folders_of(layout)[0]
    folder = f"{first}/" if first else ""
    has_truth = truth and (chosen is None or chosen.has_truth)
    texts = [layout.left, layout.disparity] if has_truth else [layout.left]
    return " and ".join(folder + PathPattern(text).with_values(given).shown for text in texts)


def _contents(folder: Path) -> str:
    """Summarise the contents of a folder."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "nothing") + more
