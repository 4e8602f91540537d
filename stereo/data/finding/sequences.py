"""Numbered images: the files of a pattern such as ``left_%06d.png``, paired by their numbers."""

import os
import re
import warnings
from pathlib import Path

from stereo.errors import InputError

_CONVERSION = re.compile(r"%(0?\d*)d")


def is_numbered(argument: str) -> bool:
    """Return whether an argument is a pattern of numbered images, not an existing file."""
    return bool(_CONVERSION.search(Path(argument).name)) and not os.path.exists(argument)


class Numbered:
    """The images matched by a pattern.

    Args:
        pattern: a path whose name holds one ``%d``, ``%6d`` or ``%06d``.

    Attributes:
        files: number -> image, by rising number.

    Raises:
        InputError: the pattern holds several numbers, or stands for no file.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = Path(pattern)
        parts = _CONVERSION.split(self.pattern.name)
        if len(parts) != 3:
            raise InputError(f"{pattern}: holds several numbers; numbered images have one")
        self._before, self._width, self._after = parts
        folder = self.pattern.parent
        try:
            names = os.listdir(folder)
        except OSError as error:
            raise InputError(f"{folder}: cannot be listed ({error.strerror})") from error
        numbers = sorted(n for n in map(self._number, names) if n is not None)
        self.files = {number: self.path(number) for number in numbers}
        if not self.files:
            raise InputError(f"{pattern}: no file of such a name, like {self.path(0).name}")

    @property
    def name(self) -> str:
        """The common part of the names, or the folder's name."""
        stem = f"{self._before}{Path('x' + self._after).stem[1:]}".strip("_-. ")
        return stem or self.pattern.absolute().parent.name

    def path(self, number: int) -> Path:
        """Return the path of a number, whether the file exists or not."""
        text = format(number, f"{self._width}d")
        return self.pattern.with_name(f"{self._before}{text}{self._after}")

    def _number(self, name: str) -> int | None:
        text = name.removeprefix(self._before).removesuffix(self._after).strip()
        if not (text.isascii() and text.isdecimal()):
            return None
        number = int(text)
        return number if self.path(number).name == name else None


def pair_by_number(left: Numbered, right: Numbered | None) -> list[tuple[Path, ...]]:
    """Return the images of each number, with a warning for gaps.

    Raises:
        InputError: a number that only one of the views has.
    """
    views = [left] if right is None else [left, right]
    together = sorted(set().union(*(view.files for view in views)))
    for number in together:
        for view, other in zip(views, reversed(views), strict=True):
            if number not in view.files:
                raise InputError(
                    f"{view.path(number)}: no such file, although {other.path(number)} is there: "
                    "both views need the same numbers"
                )
    absent = together[-1] - together[0] + 1 - len(together)
    if absent:
        first = next(n for n in range(together[0], together[-1]) if n not in left.files)
        warnings.warn(
            f"{left.path(first)}: no such file; {absent} of the numbers {together[0]} to "
            f"{together[-1]} are missing, the others are matched",
            stacklevel=2,
        )
    return [tuple(view.files[number] for view in views) for number in together]
