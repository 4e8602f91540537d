"""Archives for the benchmarks' servers, written and validated.

| benchmark | a pair's files | pairs |
| --- | --- | --- |
| ``kitti2012`` | ``000000_10.png``, uint16, pixels x 256, 0 for no estimate | test |
| ``kitti2015`` | ``disp_0/000000_10.png``, the same | test |
| ``middlebury_v3`` | ``testH/Scene/disp0METHOD.pfm``, ``timeMETHOD.txt`` (``0.5``) | training too |
| ``eth3d`` | ``low_res_two_view/scene.pfm``, ``scene.txt`` (``runtime 0.5``) | training too |

Sources:

- KITTI: ``readme.txt`` of the development kits of 2012 and 2015, "when submitting results": names,
  folders, encoding.
- Middlebury: ``stereo/submit3/upload-format.html`` on vision.middlebury.edu: names of both files,
  PFM in pixels, dense maps without infinity, a time file that holds only the number. The folders
  ``trainingH`` and ``testH``, both in one archive: the Robust Vision Challenge's kit
  (``rvc_devkit``, ``stereo/benchmark_middlebury2014.py``), which the benchmarks' authors wrote.
- ETH3D: the same kit (``stereo/benchmark_eth3d.py``): folder, names, the time's form, training and
  test scenes together. Not compared with eth3d.net/documentation, "Result submission", itself.
"""

import contextlib
import io
import math
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stereo.data.io.disparities import PNG16_SCALE, read_disparity, write_disparity
from stereo.data.io.images import read_image
from stereo.data.sets.datasets import open_dataset
from stereo.data.sets.sample import SampleFiles
from stereo.errors import InputError, UsageError, unknown_name
from stereo.geometry.readers.texts import stated_disparities
from stereo.matching.loading import loaded
from stereo.matching.matcher import Matcher
from stereo.system import console
from stereo.system.files import output_folder, staged

SLACK = 2**16  # bytes of a file beyond its numbers: headers, and rows that do not compress
METHOD = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True)
class Benchmark:
    """The format a server expects."""

    splits: dict[str, int]  # parts of the data set, and how many pairs each has
    # a pair's files and the method's name to the path of its map in the archive
    path: Callable[[SampleFiles, str], str]
    # a map's path and the method's name to the path of the file with its time
    timed: Callable[[str, str], str] | None = None
    time_word: str = ""  # what stands before the seconds in that file


def _middlebury_path(files: SampleFiles, method: str) -> str:
    scene = files.left.parent  # MiddEval3/testH/Scene/im0.png
    return f"{scene.parent.name}/{scene.name}/disp0{method}.pfm"


BENCHMARKS = {
    "kitti2012": Benchmark({"test": 195}, lambda files, _: f"{files.left.stem}.png"),
    "kitti2015": Benchmark({"test": 200}, lambda files, _: f"disp_0/{files.left.stem}.png"),
    "middlebury_v3": Benchmark(
        {"train": 15, "test": 15},
        _middlebury_path,
        lambda path, method: path.replace(f"disp0{method}.pfm", f"time{method}.txt"),
    ),
    "eth3d": Benchmark(
        {"train": 27, "test": 20},
        lambda files, _: f"low_res_two_view/{files.left.parent.name}.pfm",
        lambda path, _: path.replace(".pfm", ".txt"),
        "runtime ",
    ),
}


def submit(
    matcher: Matcher | Callable[[], Matcher],  # or what loads it, once the pairs are found
    benchmark: str,  # a key of `BENCHMARKS`
    root: str | Path,  # the data set's folder; images are enough
    output: str | Path,  # the `.zip` file
    *,
    method: str = "stereo",  # what the method is called, in Middlebury's file names
    layout: str | None = None,  # the data set's tree by name; for Middlebury its size
    partial: bool = False,  # write an archive of fewer pairs than the benchmark has
) -> Path:
    """Match a benchmark's pairs, write its archive, and validate what was written.

    Raises:
        UsageError: an unknown benchmark, a name that servers refuse, or an output that is no .zip.
        InputError: the data set is not whole, or an archive that does not hold what it should.
        OutputError: the archive cannot be written.
    """
    path = Path(output)
    if path.is_dir() or path.suffix.lower() != ".zip":
        raise UsageError(f"--output {path}: name the .zip file to write")
    items = _find_pairs(benchmark, root, method, layout, partial)
    output_folder(path.parent)
    for item in console.progress(items, "read", len(items)):  # before hours of matching
        item.read(disparity=False)
    matcher = loaded(matcher)
    _warn_of_range(items, matcher)
    if matcher.min_disparity < 0:
        raise UsageError(
            f"--min-disparity {matcher.min_disparity}: the servers take no negative disparities"
        )
    rules = BENCHMARKS[benchmark]
    with staged(path) as (temporary,):
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as zipped:
            for item in console.progress(items, "submit", len(items)):
                sample = item.read(disparity=False)
                result = matcher(sample.left, sample.right)
                inside = rules.path(item, method)
                with _blamed_on(inside):  # now, not after all the others
                    _check_range(result.disparity)
                    encoded = _encode(inside, result.disparity)
                zipped.writestr(inside, encoded)
                if rules.timed is not None:
                    seconds = f"{rules.time_word}{result.seconds:.4f}\n"
                    zipped.writestr(rules.timed(inside, method), seconds)
                console.say(f"{inside}: {result.seconds:.2f} s")
        validate(temporary, benchmark, items, method, name=str(path))
    console.say(f"{path}: {len(items)} maps, validated (names, sizes, types, ranges)")
    return path


def _warn_of_range(items: Sequence[SampleFiles], matcher: Matcher) -> None:
    """Warn if scenes have more disparities, by Middlebury's ``ndisp``, than are searched."""
    stated = (stated_disparities(item.left.parent / "calib.txt") for item in items)
    searched = matcher.min_disparity + matcher.description["max_disparity"]
    beyond = [count for count in stated if count is not None and count > searched]
    if beyond:
        needed = 16 * -(-max(beyond) // 16)
        console.warn(
            f"warning: {len(beyond)} of {len(items)} scenes have disparities of {searched} px and "
            f"more by their calib.txt, where none is looked for; use --max-disparity {needed}"
        )


def validate_archive(
    archive: str | Path,  # the `.zip` file
    benchmark: str,  # a key of `BENCHMARKS`
    root: str | Path,  # the data set's folder, whose images say how large each map must be
    *,
    method: str = "stereo",
    layout: str | None = None,
    partial: bool = False,
) -> None:
    """Check that an existing archive fits a benchmark's server.

    Raises:
        UsageError: an unknown benchmark or a name that servers refuse.
        InputError: the data set is not whole, or an archive that does not hold what it should.
    """
    items = _find_pairs(benchmark, root, method, layout, partial)
    validate(Path(archive), benchmark, items, method)
    console.say(f"{archive}: {len(items)} maps, valid (names, sizes, types, ranges)")


def _find_pairs(
    benchmark: str, root: str | Path, method: str, layout: str | None, partial: bool
) -> list[SampleFiles]:
    if benchmark not in BENCHMARKS:
        raise unknown_name("benchmark", benchmark, BENCHMARKS)
    if not METHOD.fullmatch(method):
        raise UsageError(f"method '{method}': letters, digits, - and _ only, at most 32")
    items: list[SampleFiles] = []
    for split, count in BENCHMARKS[benchmark].splits.items():
        found = open_dataset(benchmark, root, split=split, layout=layout, truth=False).samples
        if len(found) != count and not partial:
            raise InputError(
                f"{root}: {len(found)} pairs of '{split}', the benchmark has {count}; "
                "get the rest, or add --partial for a trial"
            )
        items += [item for item in found if isinstance(item, SampleFiles)]
    return items


def validate(
    archive: Path,
    benchmark: str,
    items: list[SampleFiles],
    method: str,
    *,
    name: str | None = None,
) -> None:
    """Read an archive back, and compare it with what the benchmark expects.

    Args:
        archive: the ``.zip`` file.
        benchmark: a key of ``BENCHMARKS``.
        items: the benchmark's pairs.
        method: what the method is called, in Middlebury's file names.
        name: what to call the archive in an error; None for its path.

    Raises:
        InputError: no archive, or a file in it that is missing, too many, damaged, of another size
            or type, or out of range.
    """
    rules = BENCHMARKS[benchmark]
    maps = [rules.path(item, method) for item in items]
    times = [] if rules.timed is None else [rules.timed(inside, method) for inside in maps]
    sizes = [read_image(item.left).shape[:2] for item in items]
    with _blamed_on(name or str(archive)), zipfile.ZipFile(archive) as zipped:
        # Other programs store folders as well.
        names = sorted(member for member in zipped.namelist() if not member.endswith("/"))
        if names != sorted([*maps, *times]):
            raise InputError(f"wrong contents: {_difference(names, [*maps, *times])}")
        for inside, (height, width) in zip(maps, sizes, strict=True):
            with _blamed_on(inside):
                data = _read_member(zipped, inside, 4 * height * width)
                disparity = _decode(inside, data, (height, width))
                _check_range(disparity)
        for inside in times:
            with _blamed_on(inside):
                _check_time(_read_member(zipped, inside, 0), rules.time_word)


def _read_member(zipped: zipfile.ZipFile, inside: str, most: int) -> bytes:
    """Read a file of an archive that may have ``most`` bytes and ``SLACK``."""
    member = zipped.getinfo(inside)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError("compressed in a way that servers do not read; use deflate")
    if member.file_size > most + SLACK:
        raise InputError(f"unpacks to {member.file_size} bytes, more than such a file can have")
    return zipped.read(member)


def _check_range(disparity: np.ndarray) -> None:  # (H, W), pixels
    least, most, width = float(disparity.min()), float(disparity.max()), disparity.shape[1]
    if not (np.isfinite(disparity).all() and least >= 0 and most <= width):
        raise InputError(
            f"disparities of {least:g} to {most:g} px; expected finite values from 0 to {width}"
        )


def _check_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    if size != expected:
        raise InputError(f"is {size[1]}x{size[0]}, its left view is {expected[1]}x{expected[0]}")


@contextlib.contextmanager
def _blamed_on(name: str) -> Iterator[None]:
    """Turn errors into an ``InputError`` that starts with a name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except Exception as error:  # a damaged file can raise nearly anything
        told = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: damaged, or not what its name says ({told})") from error


def _difference(names: list[str], expected: list[str]) -> str:
    lacking, odd = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
    parts = []
    for word, some in (("lacks", lacking), ("has in excess", odd)):
        if some:
            first = some[0] if some[0].isprintable() else ascii(some[0])
            more = f" and {len(some) - 1} more" if len(some) > 1 else ""
            parts.append(f"{word} {first}{more}")
    return ", ".join(parts) or "a name appears twice"


def _check_time(data: bytes, word: str) -> None:
    try:
        told = data.decode("ascii").rstrip()
    except UnicodeDecodeError as error:
        raise InputError("not a text file with a time") from error
    try:
        seconds = float(told.removeprefix(word))
    except ValueError:
        seconds = -1.0
    if not told.startswith(word) or not 0 <= seconds < math.inf:
        raise InputError(f"holds '{told[:40]}', expected '{word}SECONDS'")


def _encode(inside: str, disparity: np.ndarray) -> bytes:
    if inside.endswith(".png"):
        stored = np.rint(disparity.astype(np.float64) * PNG16_SCALE)
        if stored.max() > 65535:
            raise InputError(
                f"disparities of up to {disparity.max():g} px; this benchmark's PNGs hold up to "
                f"{65535 / PNG16_SCALE:.3f}: search a smaller range"
            )
        buffer = io.BytesIO()
        # 0 means "no estimate", which would be filled in from its neighbours.
        Image.fromarray(stored.clip(1).astype(np.uint16)).save(buffer, "PNG")
        return buffer.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.pfm"
        write_disparity(path, disparity)
        return path.read_bytes()


def _decode(inside: str, data: bytes, size: tuple[int, int]) -> np.ndarray:
    if inside.endswith(".png"):
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if not image.mode.startswith("I"):
                raise InputError("not a 16-bit image")
            _check_size((image.height, image.width), size)
            values = np.asarray(image).astype(np.float32)
        if (values == 0).any():
            raise InputError("has pixels without an estimate")
        return values / PNG16_SCALE
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.pfm"
        path.write_bytes(data)
        try:
            disparity = read_disparity(path)
        except InputError as error:
            raise InputError(str(error).removeprefix(f"{path}: ")) from error
        _check_size(disparity.shape, size)
        return disparity
