"""Path patterns with named fields: find a data set's files and match them.

``frames/<scene>/left/<frame>.{png,webp}`` stands for every file of that form. ``<name>`` is any
text within one folder or file name; ``{a,b}`` means either, the first being preferred. Files of
different roles belong together when their fields agree, never by their place in a sorted list.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from stereo.errors import InputError

Fields = Mapping[str, str]
Key = tuple[str, ...]

_FIELD = re.compile(r"<(\w+)>")
_CHOICE = re.compile(r"\{([^{}]*)\}")


class PathPattern:
    """One form of relative path.

    Attributes:
        text: the pattern as it was written.
        fields: names of its fields, in order.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields = tuple(_FIELD.findall(text))
        self._choices = _expand(text)

    @property
    def shown(self) -> str:
        """The pattern in readable form, with the first three of many choices."""
        return _CHOICE.sub(
            lambda match: (
                f"{{{','.join(names[:3])},...}}"
                if len(names := match[1].split(",")) > 4
                else match[0]
            ),
            self.text,
        )

    def find(self, root: Path) -> dict[Key, list[Path]]:
        """Return the files of this form below ``root``, by the values of their fields.

        Hidden files are skipped. A key has several files where several choices fit, in the
        order of the choices.

        Raises:
            InputError: a folder cannot be read.
        """
        found: dict[Key, list[Path]] = {}
        for choice in self._choices:
            for fields, path in _walk(root, choice.split("/"), {}):
                found.setdefault(tuple(fields[name] for name in self.fields), []).append(path)
        return found

    def misfit(self, root: Path) -> str | None:
        """Describe what was found in place of these files, if anything."""
        folder = root
        for part in itertools.takewhile(lambda p: "<" not in p, self._choices[0].split("/")[:-1]):
            if not (folder / part).is_dir():
                other = next((n for n in _names(folder) if n.casefold() == part.casefold()), None)
                return None if other is None else f"{folder / other} must be spelled '{part}'"
            folder /= part
        first = None if folder == root else next(_files(folder), None)
        if first is None:
            return None
        return f"the first file below {folder} is {first.relative_to(folder).as_posix()}"

    def fill(self, root: Path, fields: Fields) -> Path:
        """Return the path with these fields: the first choice whose folder exists, else the first.

        It names a file that is missing, so the file itself is not looked for.
        """
        paths = [root / _substitute(choice, fields) for choice in self._choices]
        return next((path for path in paths if path.parent.is_dir()), paths[0])

    def with_values(self, fields: Fields) -> "PathPattern":
        """Return the pattern with some fields given."""
        return PathPattern(_substitute(self.text, fields))


def _substitute(text: str, fields: Fields) -> str:
    return _FIELD.sub(lambda match: fields.get(match[1], match[0]), text)


def _expand(text: str) -> list[str]:
    """Write out every combination of the ``{a,b}`` choices."""
    pieces = _CHOICE.split(text)
    options = [piece.split(",") if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return ["".join(parts) for parts in itertools.product(*options)]


@lru_cache(maxsize=512)
def _expression(part: str) -> re.Pattern[str]:
    pieces = _FIELD.split(part)
    return re.compile(
        "".join(
            f"(?P<{piece}>.+?)" if index % 2 else re.escape(piece)
            for index, piece in enumerate(pieces)
        )
    )


def _walk(folder: Path, parts: list[str], fields: Fields) -> Iterator[tuple[Fields, Path]]:
    """Yield the files below ``folder`` that fit the remaining ``parts`` of a pattern."""
    fixed = list(itertools.takewhile(lambda part: "<" not in part, parts))
    folder, parts = folder.joinpath(*fixed), parts[len(fixed) :]
    if not parts:
        if folder.is_file():
            yield fields, folder
        return
    expression = _expression(parts[0])
    for name in _names(folder):
        match = expression.fullmatch(name)
        if match is None:
            continue
        known = {**fields, **match.groupdict()}
        if len(parts) > 1:
            yield from _walk(folder / name, parts[1:], known)
        else:
            yield known, folder / name


def _names(folder: Path) -> list[str]:
    """Return what a folder holds, in order, without hidden files; nothing if it is not a folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error


def _files(folder: Path) -> Iterator[Path]:
    for path in (folder / name for name in _names(folder)):
        if path.is_dir() and not path.is_symlink():  # links may lead in circles
            yield from _files(path)
        else:
            yield path
