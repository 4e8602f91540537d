"""Archives that the benchmarks' servers take, written and then validated.

| benchmark | archive |
| --- | --- |
| ``kitti2012`` | ``000000_10.png`` ..., uint16, pixels x 256 |
| ``kitti2015`` | ``disp_0/000000_10.png`` ..., the same |
| ``middlebury_v3`` | ``testH/Scene/disp0METHOD.pfm`` and ``timeMETHOD.txt``, training scenes too |
| ``eth3d`` | ``low_res_two_view/scene.pfm`` and ``scene.txt``, training scenes too |
"""

import io
import re
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stereo import console
from stereo.data.datasets import open_dataset
from stereo.data.disparities import PNG16_SCALE, read_disparity, write_disparity
from stereo.data.sample import SampleFiles
from stereo.errors import InputError, UsageError, unknown_name
from stereo.files import output_folder, staged
from stereo.matcher import Matcher

METHOD = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True)
class Benchmark:
    """What a server expects.

    Attributes:
        splits: parts of the data set, and how many pairs each has.
        path: a pair's files and the method's name to the path of its map in the archive.
        timed: whether a file with the time stands beside each map.
    """

    splits: dict[str, int]
    path: Callable[[SampleFiles, str], str]
    timed: Callable[[str, str], str] | None = None


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
    ),
}


def submit(
    matcher: Matcher,
    benchmark: str,
    root: str | Path,
    output: str | Path,
    *,
    method: str = "stereo",
    layout: str | None = None,
    partial: bool = False,
) -> Path:
    """Match a benchmark's pairs, write its archive, and validate what was written.

    Args:
        matcher: the model.
        benchmark: a key of ``BENCHMARKS``.
        root: the data set's folder.
        output: the ``.zip`` file.
        method: what the method is called, in Middlebury's file names.
        layout: the data set's tree by name; for Middlebury its size.
        partial: write an archive of fewer pairs than the benchmark has.

    Raises:
        UsageError: an unknown benchmark or a name that servers refuse.
        InputError: the data set is not whole, or an archive that does not hold what it should.
        OutputError: the archive cannot be written.
    """
    if benchmark not in BENCHMARKS:
        raise unknown_name("benchmark", benchmark, BENCHMARKS)
    if not METHOD.fullmatch(method):
        raise UsageError(f"method '{method}': letters, digits, - and _ only, at most 32")
    rules = BENCHMARKS[benchmark]
    path = Path(output)
    output_folder(path.parent)
    items: list[SampleFiles] = []
    for split, count in rules.splits.items():
        found = open_dataset(benchmark, root, split=split, layout=layout).samples
        if len(found) != count and not partial:
            raise InputError(
                f"{root}: {len(found)} pairs of '{split}', the benchmark has {count}; "
                "get the rest, or add --partial for a trial"
            )
        items += [item for item in found if isinstance(item, SampleFiles)]
    with staged(path) as (temporary,):
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as zipped:
            for item in console.progress(items, "submit", len(items)):
                sample = item.read(disparity=False)
                result = matcher(sample.left, sample.right)
                inside = rules.path(item, method)
                zipped.writestr(inside, _encode(inside, result.disparity))
                if rules.timed is not None:
                    word = "runtime " if benchmark == "eth3d" else ""
                    zipped.writestr(rules.timed(inside, method), f"{word}{result.seconds:.4f}\n")
                console.say(f"{inside}: {result.seconds:.2f} s")
        validate(temporary, benchmark, items, method)
    console.say(f"{path}: {len(items)} maps, validated (names, sizes, types, ranges)")
    return path


def validate(archive: Path, benchmark: str, items: list[SampleFiles], method: str) -> None:
    """Read an archive back, and compare it with what the benchmark expects.

    Args:
        archive: the ``.zip`` file.
        benchmark: a key of ``BENCHMARKS``.
        items: the pairs it must hold.
        method: as it was written with.

    Raises:
        InputError: a file that is missing, too many, of another size or type, or out of range.
    """
    rules = BENCHMARKS[benchmark]
    maps = {rules.path(item, method): item for item in items}
    times = set() if rules.timed is None else {rules.timed(inside, method) for inside in maps}
    with zipfile.ZipFile(archive) as zipped:
        names = zipped.namelist()
        if sorted(names) != sorted({*maps, *times}):
            odd = sorted({*maps, *times} ^ set(names)) or ["a name that stands twice"]
            raise InputError(f"{archive}: does not hold what it should: {odd[0]}")
        for inside, item in maps.items():
            with Image.open(item.left) as left:
                size = (left.height, left.width)
            disparity = _decode(inside, zipped.read(inside))
            if disparity.shape != size:
                raise InputError(f"{inside}: is {disparity.shape}, its left view is {size}")
            if not np.isfinite(disparity).all() or disparity.min() < 0 or disparity.max() > size[1]:
                raise InputError(f"{inside}: disparities that cannot be")
        for name in times:
            seconds = float(zipped.read(name).decode("ascii").removeprefix("runtime "))
            if not 0 <= seconds < float("inf"):
                raise InputError(f"{name}: {seconds} is no time")


def _encode(inside: str, disparity: np.ndarray) -> bytes:
    if inside.endswith(".png"):
        stored = np.rint(disparity.astype(np.float64) * PNG16_SCALE)
        buffer = io.BytesIO()
        # 0 means "no estimate", which would be filled in from its neighbours.
        Image.fromarray(stored.clip(1, 65535).astype(np.uint16)).save(buffer, "PNG")
        return buffer.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.pfm"
        write_disparity(path, disparity)
        return path.read_bytes()


def _decode(inside: str, data: bytes) -> np.ndarray:
    if inside.endswith(".png"):
        with Image.open(io.BytesIO(data)) as image:
            if not image.mode.startswith("I"):
                raise InputError(f"{inside}: not a 16-bit picture")
            values = np.asarray(image).astype(np.float32)
        if (values == 0).any():
            raise InputError(f"{inside}: has pixels without an estimate")
        return values / PNG16_SCALE
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.pfm"
        path.write_bytes(data)
        return read_disparity(path)
