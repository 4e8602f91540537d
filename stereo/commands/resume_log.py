"""A log of finished maps and their inputs, from which an interrupted run resumes.

The file holds lines of JSON: the settings, then one line per map that is finished, with the files
that it was read from and those that it was written to. A map counts as finished only if it was
noted under the same settings, its inputs have not changed since, and its files are there.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stereo.data.finding.sources import file_stamps
from stereo.errors import InputError, OutputError
from stereo.system.files import staged, why_not_written
from stereo.system.limits import check_file
from stereo.system.parsing import parse_json

RESUME_LOG = "infer.jsonl"
_MAX_BYTES = 2**30  # what some millions of maps need
_REMEDY = "choose another --output, or leave --resume out to recompute all maps"


class ResumeLog:
    """The log of one run.

    Args:
        folder: where the maps are written.
        settings: all that the maps depend on, but for the inputs; a name such as
            ``max_disparity`` to what JSON holds.
        inputs: the files that the maps are read from.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], inputs: Iterable[Path]) -> None:
        self.path = folder / RESUME_LOG
        self._settings: dict[str, Any] = _plain(settings)  # as they come back
        self._finished: dict[str, dict[str, Any]] = {}
        self._end = ""  # of a line that was cut off as the disk was full
        # Size and time of change of each input, as it was before it was read.
        self._seen = {_plain(path): stamp for path, stamp in file_stamps(inputs).items()}

    def read(self, targets: Iterable[Path]) -> None:
        """Read what an earlier run has logged.

        Raises:
            InputError: maps of other settings, or of none that are known.
        """
        lines = self._lines()
        if not lines:
            if any(target.is_file() for target in targets):
                raise InputError(
                    f"{self.path.parent}: holds maps but no record of their settings; {_REMEDY}"
                )
            return
        settings, *finished = lines
        difference = _difference(settings, self._settings)
        if difference is None:
            self._finished = {each["name"]: each for each in finished}
        elif any(
            (self.path.parent / file).is_file() for each in finished for file in each["files"]
        ):
            raise InputError(f"{self.path.parent}: its maps were made with {difference}; {_REMEDY}")

    def start(self) -> None:
        """Rewrite the log with the settings and the maps that ``read`` found."""
        with staged(self.path) as (temporary,):
            lines = [{"settings": self._settings}, *self._finished.values()]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            temporary.write_text(text, encoding="utf-8")

    def has(self, name: str, inputs: Sequence[Path], files: Sequence[Path]) -> bool:
        """Return whether a map is finished, and nothing that it was made from has changed."""
        noted = self._finished.get(_plain(name))
        return (
            noted is not None
            and noted["inputs"].keys() >= self._stamps(inputs).keys()
            and all(self._seen.get(path) == stamp for path, stamp in noted["inputs"].items())
            and all(noted["files"].get(_plain(file.name), -1) == _size(file) for file in files)
        )

    def add(self, name: str, inputs: Sequence[Path], files: Sequence[Path]) -> None:
        """Append a finished map; the arguments are those of ``has``.

        Raises:
            OutputError: the line cannot be written.
        """
        stamps = self._stamps(inputs)
        noted = self._finished.get(_plain(name), {})
        before = noted["files"] if noted.get("inputs") == stamps else {}
        sizes = before | {_plain(file.name): _size(file) for file in files}
        line = json.dumps({"name": _plain(name), "inputs": stamps, "files": sizes})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{self._end}{line}\n")
            self._end = ""
        except OSError as error:
            self._end = "\n"
            raise OutputError(
                f"cannot write {self.path}: {why_not_written(error, self.path)}"
            ) from error

    def close(self, targets: Iterable[Path]) -> None:
        """Remove the file if it lists no map and the folder has none."""
        try:
            with self.path.open(encoding="utf-8") as file:
                is_empty = len(list(itertools.islice(file, 2))) < 2
        except OSError:
            return
        if is_empty and not any(target.is_file() for target in targets):
            self.path.unlink(missing_ok=True)

    def _stamps(self, inputs: Sequence[Path]) -> dict[str, list[int]]:
        names = (_plain(str(path)) for path in inputs)
        return {name: self._seen[name] for name in names if name in self._seen}

    def _lines(self) -> list[dict[str, Any]]:
        """Return the settings and the finished maps, skipping truncated lines."""
        if self.path.exists():
            check_file(self.path, _MAX_BYTES, "the log of a run", may_be_empty=True)
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        first, *further = map(_parsed, lines or [""])
        if "settings" not in first:
            return []
        return [first["settings"], *(each for each in further if "name" in each)]


def _plain(value: Any) -> Any:
    """Round-trip a value through JSON; undecodable bytes in names become &#N;."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-8", "xmlcharrefreplace"))


def _parsed(line: str) -> dict[str, Any]:
    """Parse a line; an empty dict if it is not one of ours or truncated."""
    try:
        found = parse_json(line, RESUME_LOG)
    except InputError:
        return {}
    match found:
        case {"settings": dict(), **rest} if not rest:
            return dict(found)
        case {"name": str(), "inputs": dict(), "files": dict(files), **rest} if not rest:
            if all(_is_name(file) and type(size) is int for file, size in files.items()):
                return dict(found)
    return {}


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None


def _is_name(file: str) -> bool:
    return len(file) < 256 and file == Path(file).name


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Name the first setting that has changed."""
    for key in dict.fromkeys([*now, *before]):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        name = _word(key.replace("_", " "))
        if any(isinstance(value, dict | list) for value in (old, new)):
            return f"{'no' if old is None else 'another'} {name}"
        return f"{name} {_word(old)}, not {_word(new)}"
    return None


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    word = "none" if value is None else str(value)[:80]
    return word if word.isprintable() else ascii(word)
