"""Pairs matched by name from a file, a folder or a glob per view."""

import glob
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stereo.data.io.disparities import DISPARITY_SUFFIXES
from stereo.data.io.images import IMAGE_SUFFIXES, has_both_views, is_hidden
from stereo.data.io.videos import VIDEO_SUFFIXES
from stereo.errors import InputError

_SIDE_WORD = re.compile(
    r"(?<![a-z])(left|right)(?![a-z])|(?<![a-z0-9])(l|r|im0|im1|view1|view5)(?![a-z0-9])"
)


@dataclass(frozen=True)
class PairFiles:
    """The files of one pair, and the name that its outputs carry."""

    name: str  # unique among the pairs of a run
    left: Path  # left image
    right: Path  # right image
    truth: Path | None = None  # ground-truth disparity of the left image, or None

    def files(self) -> list[Path]:
        """Return all files of the pair."""
        return [path for path in (self.left, self.right, self.truth) if path is not None]


def find_pairs(left: str, right: str, truth: str | None = None) -> list[PairFiles]:
    """Match left and right files, and ground truth if named, by their names.

    Two globs match by the text that their wildcards stand for; folders, and any other mixture, by
    the path below the folder without its suffix, if need be without the words left and right.

    Args:
        left: a file, a folder (searched recursively) or a glob.
        right: the same kind of thing as ``left``.
        truth: ground truth for each left image, or None.

    Returns:
        The pairs in the order of the left paths. A pair's name is the left file's stem, lengthened
        by its folders until names differ.

    Raises:
        InputError: nothing found, a file without a partner, or a file against a folder.
    """
    lefts = _Selection(left, IMAGE_SUFFIXES, "left")
    rights = _Selection(right, IMAGE_SUFFIXES, "right")
    partners = _match(lefts, rights, both_ways=True)
    truths: Sequence[Path | None] = [None] * len(lefts.files)
    if truth is not None:
        selected = _Selection(truth, DISPARITY_SUFFIXES, "ground truth")
        truths = _match(lefts, selected, both_ways=False)
    for one, other in zip(lefts.files, partners, strict=True):
        if one.resolve() == other.resolve():
            raise InputError(
                f"{one}: is named as the left and as the right view"
                + ("; it holds both: name it once" if has_both_views(one) else "")
            )
    names = unique_names(lefts.files)
    return [PairFiles(*row) for row in zip(names, lefts.files, partners, truths, strict=True)]


def would_find(argument: str, folder: Path, names: Iterable[str]) -> str | None:
    """Return the first file in a folder that another folder or a glob would take for its own.

    A folder takes images, a glob videos as well.
    """
    is_folder = Path(argument).is_dir()
    suffixes = IMAGE_SUFFIXES if is_folder else IMAGE_SUFFIXES | VIDEO_SUFFIXES
    images = (name for name in names if Path(name).suffix.lower() in suffixes)
    if is_folder:
        within = folder.resolve().is_relative_to(Path(argument).resolve())
        return next(images, None) if within else None
    if not glob.has_magic(argument) or Path(argument).exists():
        return None
    pattern = _wildcard_pattern(Path(argument).absolute().as_posix())
    beside = folder.absolute()
    return next((name for name in images if pattern.fullmatch((beside / name).as_posix())), None)


def find_pictures(argument: str) -> list[Path]:
    """Return the images of a file, a folder (searched recursively) or a glob.

    Raises:
        InputError: nothing found.
    """
    return _Selection(argument, IMAGE_SUFFIXES, "left").files


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Name each path by its stem, lengthened by parent folders until all names differ.

    Names differ without regard to case, so that they also differ on file systems that ignore it.
    """
    absolute = [path.absolute() for path in paths]
    stems = [path.stem for path in absolute]
    # Folders cannot tell L/1.png from L/1.jpg: there the suffix becomes part of the stem.
    same = _clashes([str(path) for path in absolute])  # but for upper and lower case
    for i in set(_clashes([str(path.with_suffix("")) for path in absolute])).difference(same):
        stems[i] += f"_{absolute[i].suffix[1:]}"
    names = list(stems)
    places = [
        str(path.parent / stem).casefold() for path, stem in zip(absolute, stems, strict=True)
    ]
    first: dict[str, int] = {}
    for i, place in enumerate(places):
        first.setdefault(place, i)
    apart = list(first.values())
    for depth in range(1, max((len(path.parts) for path in absolute), default=0)):
        clashing = [apart[i] for i in _clashes([names[i] for i in apart])]
        if not clashing:
            break
        for i in clashing:
            names[i] = "_".join([*absolute[i].parts[1:-1][-depth:], stems[i]])
    names = [names[first[place]] for place in places]
    taken = {name.casefold() for name in names}
    for i in _clashes(names)[1:]:
        number = next(n for n in itertools.count(2) if f"{names[i]}_{n}".casefold() not in taken)
        names[i] = f"{names[i]}_{number}"
        taken.add(names[i].casefold())
    return names


def _clashes(names: Sequence[str]) -> list[int]:
    folded = [name.casefold() for name in names]
    count = Counter(folded)
    return [i for i, name in enumerate(folded) if count[name] > 1]


class _Selection:
    """The files of one argument, with the keys they can be matched by."""

    def __init__(self, argument: str, suffixes: frozenset[str], role: str) -> None:
        self.argument = argument
        self.role = role
        self.wildcards: list[re.Pattern[str]] = []  # without and with the suffix
        path = Path(argument)
        if not argument:
            raise InputError(f"the {role} view is named by an empty text")
        if path.is_dir():
            self.kind = "folder"
            self.base = path
            found = [p for p in path.rglob("*") if p.suffix.lower() in suffixes]
            self.files = [p for p in found if not is_hidden(p, path) and p.is_file()]
        elif not path.exists() and not glob.has_magic(argument):
            raise InputError(f"{argument}: no such file or folder")
        elif path.exists():
            self.kind = "file"
            self.base = path.parent
            self.files = [path]
        else:
            self.kind = "glob"
            self.base = Path(*_leading_parts_without_magic(path))
            try:
                self.wildcards = [
                    _wildcard_pattern(text.as_posix()) for text in (path.with_suffix(""), path)
                ]
                self.files = [Path(p) for p in glob.glob(argument, recursive=True)]
            except re.error as error:
                raise InputError(f"{argument}: not a valid glob ({error})") from error
            self.files = [p for p in self.files if p.is_file()]
        if not self.files:
            hint = "; write [[] for a [ that is part of a name" if "[" in argument else ""
            raise InputError(f"{argument}: no {role} files found in this {self.kind}{hint}")
        self.files.sort()

    def key_by_wildcards(self, path: Path) -> str:
        return self._captured(self.wildcards[0], path.with_suffix(""))

    def key_by_wildcards_and_suffix(self, path: Path) -> str:
        return self._captured(self.wildcards[1], path)

    @staticmethod
    def _captured(pattern: re.Pattern[str], path: Path) -> str:
        match = pattern.fullmatch(path.as_posix())
        return "/".join(group or "" for group in match.groups()) if match else path.as_posix()

    def key_by_path(self, path: Path) -> str:
        return path.relative_to(self.base).with_suffix("").as_posix()

    def key_without_side(self, path: Path) -> str:
        key = self.key_by_path(path).lower()
        return re.sub(r"[^a-z0-9/]+", "_", _SIDE_WORD.sub("", key)).strip("_")


def _match(left: _Selection, other: _Selection, *, both_ways: bool) -> list[Path]:
    if left.kind == other.kind == "file":
        return other.files
    if "file" in (left.kind, other.kind):
        raise InputError(
            f"{left.argument} is a {left.kind} and {other.argument} is a {other.kind}; "
            "name two files, two folders or two globs"
        )
    best: tuple[dict[str, Path], dict[str, Path]] | None = None
    for keys in _key_schemes(left, other):
        if keys is None:
            continue
        lefts, others = keys
        if best is None or len(lefts.keys() & others.keys()) > len(best[0].keys() & best[1].keys()):
            best = keys
    if best is None:
        raise InputError(
            f"{left.argument} and {other.argument}: several files share a name; "
            "use globs whose wildcards tell them apart"
        )
    lefts, others = best
    if both_ways and not lefts.keys() & others.keys():
        raise InputError(
            f"{left.argument} and {other.argument}: no names in common (the first are "
            f"'{next(iter(lefts))}' and '{next(iter(others))}'); name the files of a pair alike, "
            "or use globs whose wildcards match the same in both"
        )
    for key, path in lefts.items():
        if key not in others:
            raise InputError(f"{path}: no {other.role} file named '{key}' in {other.argument}")
    if both_ways:
        for key, path in others.items():
            if key not in lefts:
                raise InputError(f"{path}: no {left.role} file named '{key}' in {left.argument}")
    return [others[key] for key in lefts]


def _key_schemes(
    left: _Selection, other: _Selection
) -> list[tuple[dict[str, Path], dict[str, Path]] | None]:
    schemes = []
    if left.kind == other.kind == "glob":
        schemes.append(_keyed_pair(left, other, lambda s: s.key_by_wildcards))
        schemes.append(_keyed_pair(left, other, lambda s: s.key_by_wildcards_and_suffix))
    schemes.append(_keyed_pair(left, other, lambda s: s.key_by_path))
    schemes.append(_keyed_pair(left, other, lambda s: s.key_without_side))
    return schemes


def _keyed_pair(
    left: _Selection, other: _Selection, key_of: Callable[[_Selection], Callable[[Path], str]]
) -> tuple[dict[str, Path], dict[str, Path]] | None:
    lefts = {key_of(left)(path): path for path in left.files}
    others = {key_of(other)(path): path for path in other.files}
    unique = len(lefts) == len(left.files) and len(others) == len(other.files)
    return (lefts, others) if unique else None


def _leading_parts_without_magic(path: Path) -> list[str]:
    parts: list[str] = []
    for part in path.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts


def _wildcard_pattern(argument: str) -> re.Pattern[str]:
    """Turn a glob into an expression that captures what its wildcards match."""
    pattern = ""
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|[^*?\[]+|\[", argument):
        if token == "**/":
            pattern += "(?:(.*)/)?"
        elif token == "**":
            pattern += "(.*)"
        elif token == "*":
            pattern += "([^/]*)"
        elif token == "?":
            pattern += "([^/])"
        elif token.startswith("[") and token != "[":
            inverted = token.startswith("[!")
            characters = re.sub(r"([\\\[&~|])", r"\\\1", token[1 + inverted : -1])
            pattern += f"([{'^' * inverted}{characters}])"
        else:
            pattern += re.escape(token)
    return re.compile(pattern)
