"""List the pairs of a known data set: find its layout, match files by fields."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stereo.data.sets.layouts import Layout, Part, Split
from stereo.data.sets.patterns import Fields, PathPattern
from stereo.data.sets.sample import SampleFiles
from stereo.errors import InputError, UsageError
from stereo.system.limits import check_file

MAX_LIST_BYTES = 2**24

_UNUSED_LINE = re.compile(r"(?:TRAIN|TEST)/[A-Z]/\w+/(?:left|right)/\w+(?:\.\w+)?")


@dataclass(frozen=True)
class MissingFile:
    """A pair that lacks a file."""

    name: str  # the pair
    path: Path  # the file that was expected (its first known suffix)


@dataclass(frozen=True)
class PartListing:
    """Pairs found of one part in one layout."""

    part: Part  # the part
    layout: Layout  # the layout it was found in
    split: Split  # the chosen split, as this layout stores it
    samples: list[SampleFiles]  # complete pairs, in the order of their fields
    missing: list[MissingFile]  # files that pairs lack
    # complete pairs by the value of the field that `split.groups` names
    group_counts: Mapping[str, int] = field(default_factory=dict)
    unused: int = 0  # pairs left out because the list of unusable frames names them
    frames: bool = True  # whether there are any images at all
    # files of one role that differ in their suffix alone; the first of each is read
    doubles: Sequence[Sequence[Path]] = ()


def list_part(
    root: Path,  # the folder that the user named
    part: Part,  # what to look for
    split: str,  # name of the split
    render_pass: str | None,  # what `<pass>` stands for
    layout: str | None = None,  # consider this layout alone, where the part has it; None for all
    unused: frozenset[str] = frozenset(),  # frames to leave out, as `read_unused` returned them
    truth: bool = True,  # whether pairs need the ground truth that their split has
) -> PartListing | None:
    """Find a part below the root by looking for each layout in turn.

    Returns:
        The pairs of the first layout with a complete one, else of the first with any file; None
        when there is no sign of the part.

    Raises:
        InputError: several layouts were found that are different data.
    """
    if layout not in {candidate.name for candidate in part.layouts}:
        layout = None
    whole: list[PartListing] = []
    broken: list[PartListing] = []
    for candidate in part.layouts:
        if split not in candidate.splits or layout not in (None, candidate.name):
            continue
        for folder in part.folders_of(candidate):
            listing = _list_layout(
                root / folder, part, candidate, split, render_pass, unused, truth
            )
            if listing.samples:
                whole.append(listing)
                break
            broken += [listing] if listing.missing else []
        if whole and not part.one_layout_only:
            break
    if len(whole) > 1:
        names = ", ".join(listing.layout.name for listing in whole)
        raise InputError(
            f"{root}: {part.title} in several layouts: {names}; choose with --layout, or in "
            "training with --data.layout"
        )
    return next(iter(whole + broken), None)


class _Role:
    """The files of one role, found once and looked up by a pair's fields."""

    def __init__(self, base: Path, text: str, given: Fields) -> None:
        self._base = base
        self._pattern = PathPattern(text).with_values(given)
        found = self._pattern.find(base)
        self._paths = {key: paths[0] for key, paths in found.items()}
        self.doubles = [paths for paths in found.values() if len(paths) > 1]
        self.fields = self._pattern.fields

    def __bool__(self) -> bool:
        return bool(self._paths)

    def get(self, fields: Fields) -> Path | None:
        return self._paths.get(tuple(fields[name] for name in self.fields))

    def expected(self, fields: Fields) -> Path:
        """Return where a file should be, with the suffix that others of its role have."""
        path = self._pattern.fill(self._base, fields)
        suffix = next((other.suffix for other in self._paths.values()), path.suffix)
        return path.with_suffix(suffix)

    def keys(self, order: tuple[str, ...]) -> set[tuple[str, ...]]:
        """Return the fields of every file in this order; nothing if the role has fewer."""
        if set(order) != set(self.fields):
            return set()
        places = [self.fields.index(name) for name in order]
        return {tuple(key[place] for place in places) for key in self._paths}


def _list_layout(
    base: Path,
    part: Part,
    layout: Layout,
    split_name: str,
    render_pass: str | None,
    unused: frozenset[str],
    truth: bool,
) -> PartListing:
    split = layout.splits[split_name]
    truth = truth and split.has_truth
    given = {"split": split.folder, "pass": render_pass or ""}
    required = [_Role(base, layout.left, given), _Role(base, layout.right, given)]
    if truth:
        required.append(_Role(base, layout.disparity, given))
    order = required[0].fields
    keys = sorted(set().union(*(role.keys(order) for role in required)))
    right_truth = _Role(base, layout.disparity_right, given) if layout.disparity_right else None
    masks = [(_Role(base, text, given), read) for text, read in layout.nonoccluded]
    samples: list[SampleFiles] = []
    missing: list[MissingFile] = []
    groups: Counter[str] = Counter()
    left_out = 0
    for key in keys:
        fields = dict(zip(order, key, strict=True))
        if split.keep is not None and not split.keep(fields):
            continue
        paths = [role.get(fields) for role in required]
        if layout.truth_is_partial and truth and paths[2] is None:
            continue
        name = PathPattern(layout.sample_name).with_values(given | fields).text
        lacking = [
            role.expected(fields)
            for role, path in zip(required, paths, strict=True)
            if path is None
        ]
        if lacking:
            missing += [MissingFile(name, path) for path in lacking]
            continue
        groups[fields.get(split.groups[0], "") if split.groups else ""] += 1
        if unused and _is_unused(part, given | fields, unused):
            left_out += 1
            continue
        left, right, *known = (path for path in paths if path is not None)
        found = [(path, read) for role, read in masks if (path := role.get(fields)) is not None]
        samples.append(
            SampleFiles(
                name,
                left,
                right,
                known[0] if known else None,
                disparity_right=right_truth.get(fields) if right_truth else None,
                # Half of a mask that has two parts would call occluded pixels visible.
                nonoccluded=tuple(found) if len(found) == len(masks) else (),
                decode=layout.decode,
                zero_is_missing=layout.zero_is_missing,
                dense=layout.dense,
                subject=layout.subject(fields) if layout.subject else "",
            )
        )
    frames = bool(required[0]) or bool(required[1])
    doubles = [paths for role in required for paths in role.doubles]
    return PartListing(part, layout, split, samples, missing, groups, left_out, frames, doubles)


def read_unused(path: Path) -> frozenset[str]:
    """Read a list of unusable frames: lines such as ``TRAIN/A/0000/left/0006.png``.

    Returns:
        The lines without suffix.

    Raises:
        InputError: not readable, or a line of another form.
    """
    check_file(path, MAX_LIST_BYTES, "a list of frames")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as text ({error})") from error
    names: set[str] = set()
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line and not _UNUSED_LINE.fullmatch(line):
            raise InputError(
                f"{path}: line {number} is '{line[:60]}'; expected lines such as "
                "TRAIN/A/0000/left/0006.png"
            )
        names |= {line.rpartition(".")[0] or line} if line else set()
    return frozenset(names)


def _is_unused(part: Part, fields: Fields, unused: frozenset[str]) -> bool:
    """Return whether the list names a view of this pair."""
    assert part.unused_name is not None
    for view in ("left", "right"):
        name = PathPattern(part.unused_name).with_values({**fields, "view": view})
        if name.fields:
            raise UsageError(
                f"the list of unusable frames names frames of the full {part.title}; "
                "the subset has other numbers"
            )
        if name.text in unused:
            return True
    return False
