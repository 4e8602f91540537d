"""ONNX files of other exporters: how their graphs take a pair, read from them or from a YAML file.

The YAML file has the ``.onnx`` file's name and holds fields of ``OnnxReading``: what the graph does
not tell. How pictures are normalised, no graph tells:

    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
"""

import dataclasses
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.errors import InputError, StereoError, unknown_name
from stereo.matching.engine import normalise, pad_to_multiple
from stereo.matching.estimate import Estimate
from stereo.matching.onnx_engine import OnnxGraph
from stereo.matching.wrap import SIGNS, are_numbers, checked_map, of_255
from stereo.models.checkpoint import file_sha256
from stereo.models.config import check_max_disparity
from stereo.system.bundled import DEFAULT_MAX_DISPARITY
from stereo.system.limits import check_file
from stereo.system.parsing import parse_yaml

_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_GREY = (0.299, 0.587, 0.114)  # of RGB, as OpenCV has it
_MOST_YAML = 2**16  # bytes


@dataclass(frozen=True)
class OnnxReading:
    """How a graph takes a pair and gives a map.

    Attributes:
        mean: of each channel, subtracted from RGB in 0..1; or of grey alone.
        std: what then divides them; mean 0 and std 1/255 leave values in 0..255.
        left: the input for the left view; None for the one whose name has ``left`` in it, else the
            first. A single input takes both views, the channels of the left one first.
        right: likewise.
        output: the map; None for the only output, or the only one with ``disp`` in its name.
        layout: ``NCHW`` or ``NHWC``; None for where the graph has 1, 2, 3 or 6 channels.
        order: ``RGB`` or ``BGR``.
        sign: ``positive``, or ``negative`` for a flow.
        scale: pixels per unit of the map, or ``width`` where it is in shares of the input's width.
        multiple: of which height and width are, in graphs of any size.
        max_disparity: what the network searches, pixels.
    """

    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    left: str | None = None
    right: str | None = None
    output: str | None = None
    layout: str | None = None
    order: str = "RGB"
    sign: str = "positive"
    scale: float | str = 1.0
    multiple: int = 32
    max_disparity: int = DEFAULT_MAX_DISPARITY

    def __post_init__(self) -> None:
        for key in ("mean", "std"):
            values = getattr(self, key)
            if values is not None and not are_numbers(values, (1, 3)):
                raise InputError(f"{key} {values!r}: expected three numbers, or one for grey")
        if self.std is not None and min(self.std) <= 0:
            raise InputError(f"std {self.std}: expected numbers above 0")
        told = of_255(self.mean or (), self.std or ())
        if told is not None:
            raise InputError(told)
        known = {"layout": (None, "NCHW", "NHWC"), "order": ("RGB", "BGR"), "sign": SIGNS}
        for key, values in known.items():
            if getattr(self, key) not in values:
                names = ", ".join(each for each in values if each)
                raise InputError(f"{key} {getattr(self, key)!r}: expected one of {names}")
        for key in ("left", "right", "output"):
            if not isinstance(getattr(self, key), str | None):
                raise InputError(f"{key} {getattr(self, key)!r}: expected a name of the graph")
        scale = self.scale
        if scale != "width" and not (are_numbers([scale], [1]) and float(scale) > 0):
            raise InputError(f"scale {scale!r}: expected a number above 0, or width")
        if type(self.multiple) is not int or self.multiple < 1:
            raise InputError(f"multiple {self.multiple!r}: expected a whole number from 1 on")
        check_max_disparity(self.max_disparity)


class ForeignOnnxEngine:
    """Runs a graph of another exporter: normalise, resize or pad, match, undo.

    Args:
        graph: that of the file.

    Raises:
        InputError: a graph that takes no pair, or whose YAML file is missing or wrong.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        path = graph.path
        self.path, self._graph = path, graph
        self.name = re.sub(r"[^\w.+-]", "_", path.stem)
        try:
            self.reading = _stored_reading(path)
            self._settle()
        except StereoError as error:
            raise InputError(f"{path}: {error}") from error
        self.max_disparity = self.reading.max_disparity
        self._said: set[tuple[int, int]] = set()

    def _settle(self) -> None:
        """Find inputs, output, layout, channels and size."""
        reading, session = self.reading, self._graph.session
        given = session.get_inputs()
        if len(given) not in (1, 2):
            names = [each.name for each in given][:6]
            raise InputError(f"its graph takes {len(given)} inputs, {names}, not a pair")
        first = given[0]
        told = [f"{each.name} {each.type} {each.shape}" for each in given]
        if any(each.type not in _TYPES or len(each.shape) != 4 for each in given):
            raise InputError(f"its inputs, {told}, are not 4D image tensors of a supported type")
        by_dimension = zip(*(each.shape for each in given), strict=True)
        fixed = [{each for each in sizes if isinstance(each, int)} for sizes in by_dimension]
        if max(map(len, fixed)) > 1 or len({each.type for each in given}) > 1:
            raise InputError(f"its inputs, {told}, must have the same shape and type")
        if not fixed[0] <= {1}:
            raise InputError(f"its graph takes {first.shape[0]} pairs at once; export it for one")
        self._dtype = _TYPES[first.type]
        self.inputs = _in_order([each.name for each in given], reading)
        views = 3 - len(given)  # in each input
        by_layout = {"NCHW": first.shape[1], "NHWC": first.shape[3]}
        fitting = [
            key
            for key, count in by_layout.items()
            if count in (views, 3 * views) and reading.layout in (None, key)
        ]
        if len(fitting) != 1:
            raise InputError(
                f"the channels ({views} or {3 * views}) of its input '{first.name}' "
                f"{first.shape} cannot be told; if two dimensions could be those, write "
                "'layout: NCHW' or 'layout: NHWC' in the .yaml file next to it"
            )
        self.layout = fitting[0]
        self.channels = by_layout[self.layout] // views
        size = first.shape[2:] if self.layout == "NCHW" else first.shape[1:3]
        known = [each for each in size if isinstance(each, int)]
        if len(known) == 1:
            raise InputError(f"its graph fixes one side, {size}; export it with both, or none")
        self.size: tuple[int, int] | None = (known[0], known[1]) if known else None
        self.output = _output([each.name for each in session.get_outputs()], reading)
        if reading.mean is None or reading.std is None:
            if self._dtype is not np.uint8 or reading.mean != reading.std:
                raise InputError(
                    "the graph does not record its normalisation: add "
                    f"{self.path.with_suffix('.yaml').name} next to it, with 'mean: [...]' and "
                    "'std: [...]' of RGB in 0..1 (0 and 1 for 0..1, 0 and 0.00392157 for 0..255)"
                )
            self.reading = dataclasses.replace(reading, mean=(0,), std=(1 / 255,))

    def __call__(self, lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]) -> list[Estimate]:
        """Match views of one size, (H, W, 3) uint8 each, pair by pair.

        Raises:
            StereoError: ONNX Runtime cannot, or what the graph gives is no map.
        """
        return [self._match(*pair) for pair in zip(lefts, rights, strict=True)]

    def _match(self, left: np.ndarray, right: np.ndarray) -> Estimate:
        height, width = left.shape[:2]
        views = [self._taken(view) for view in (left, right)]
        size = views[0].shape[2:]
        if len(self.inputs) == 1:
            views = [torch.cat(views, dim=1)]
        arrays = [self._array(view) for view in views]
        feeds = dict(zip(self.inputs, arrays, strict=True))
        (found,) = self._graph.run([self.output], feeds, (size[1], size[0]), self.max_disparity)
        scale = self.reading.scale
        disparity = self._map(found, size) * np.float32(size[1] if scale == "width" else scale)
        if size == (height, width):
            pass
        elif self.size is None:
            disparity = disparity[-height:, :width]
        else:
            grown = F.interpolate(
                torch.from_numpy(disparity)[None, None],
                (height, width),
                mode="bilinear",
                align_corners=False,
            )
            disparity = grown[0, 0].numpy() * np.float32(width / size[1])
        return Estimate(checked_map(disparity, self.name, (height, width), self.reading.sign))

    def _taken(self, view: np.ndarray) -> Tensor:  # (1, C, H', W')
        """Return a view normalised, at the graph's size or padded to its multiple."""
        height, width = view.shape[:2]
        zero_to_one = normalise([view], (0, 0, 0), (1, 1, 1), torch.device("cpu"))
        if self.channels == 1:
            zero_to_one = (zero_to_one * torch.tensor(_GREY).view(3, 1, 1)).sum(1, keepdim=True)
        elif self.reading.order == "BGR":
            zero_to_one = zero_to_one.flip(1)
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in self._scaling())
        pixels = (zero_to_one - mean) / std
        if self.size is None:
            return pad_to_multiple(pixels, self.reading.multiple, "replicate")
        if self.size != (height, width):
            if (height, width) not in self._said:
                self._said.add((height, width))
                warnings.warn(
                    f"{self.name} takes {self.size[1]}x{self.size[0]} pixels alone: pictures of "
                    f"{width}x{height} are resized to that, and its disparities scaled back",
                    stacklevel=2,
                )
            pixels = F.interpolate(
                pixels, self.size, mode="bilinear", align_corners=False, antialias=True
            )
        return pixels

    def _scaling(self) -> tuple[Sequence[float], Sequence[float]]:
        reading = self.reading
        assert reading.mean is not None and reading.std is not None
        # The YAML file's are of RGB.
        turned = slice(None, None, -1 if reading.order == "BGR" else 1)
        mean, std = list(reading.mean)[turned], list(reading.std)[turned]
        if self.channels == 1:
            mean, std = [float(np.mean(mean))], [float(np.mean(std))]
        return mean, std

    def _array(self, view: Tensor) -> np.ndarray:
        array = view.numpy()
        if self._dtype is np.uint8:
            array = array.round().clip(0, 255)
        if self.layout == "NHWC":
            array = array.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(array, self._dtype)

    def _map(self, found: Any, size: Sequence[int]) -> np.ndarray:  # (H', W')
        """Return the map of what the graph gives, whatever dimensions of 1 it has; of a flow, x."""
        kind = f"{getattr(found, 'dtype', type(found).__name__)} {getattr(found, 'shape', '')}"
        if isinstance(found, np.ndarray):
            plane = found.squeeze()
            if plane.ndim == 3 and 2 in plane.shape:
                plane = plane.take(0, axis=plane.shape.index(2))
            if plane.shape == tuple(size) and np.issubdtype(plane.dtype, np.floating):
                return plane.astype(np.float32)
        raise StereoError(
            f"{self.name} gives '{self.output}' as {kind}; expected disparities of "
            f"{size[0]}x{size[1]}, as its inputs have"
        )

    def description(self) -> dict[str, Any]:
        """Return what ``metrics.json`` stores about the file."""
        reading = dataclasses.asdict(self.reading) | {"left": self.inputs[0], "output": self.output}
        size = None if self.size is None else f"{self.size[1]}x{self.size[0]}"
        return {
            "weights": f"sha256:{file_sha256(self.path)}",
            "reading": reading | {"layout": self.layout},
            "fixed_size": size,
        }


def _stored_reading(path: Path) -> OnnxReading:
    """Return what the YAML file beside an ONNX file says, or nothing where there is none."""
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        return OnnxReading()
    check_file(beside, _MOST_YAML, "a YAML file")
    try:
        stored = parse_yaml(beside.read_text(encoding="utf-8"), beside.name)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{beside.name}: cannot be read ({error})") from error
    known = [each.name for each in dataclasses.fields(OnnxReading)]
    if not isinstance(stored, dict):
        raise InputError(f"{beside.name}: expected a mapping with keys of {', '.join(known)}")
    for key in stored.keys() - known:
        raise unknown_name(f"key in {beside.name}:", str(key), known)
    return OnnxReading(**stored)


def _in_order(names: list[str], reading: OnnxReading) -> list[str]:
    """Return the names of the inputs, the left view's first."""
    if len(names) == 1:
        return names
    asked = [reading.left, reading.right]
    for side, name in zip(("left", "right"), asked, strict=True):
        if name is not None and name not in names:
            raise InputError(f"its graph has no input '{name}' for '{side}'; it has {names}")
    if reading.left is not None and reading.left == reading.right:
        raise InputError(f"'left' and 'right' are both the input '{reading.left}'")
    left, right = asked
    if left is None and right is None:
        left, right = (_only(names, side) for side in ("left", "right"))
    first = left or next(name for name in names if name != right)
    return [first, *(name for name in names if name != first)]


def _only(names: list[str], side: str) -> str | None:
    """Return the only name that tells its view; None where none does, or both."""
    found = [name for name in names if side in name.lower()]
    return found[0] if len(found) == 1 else None


def _output(names: list[str], reading: OnnxReading) -> str:
    if reading.output is not None:
        fitting = [name for name in names if name == reading.output]
    else:
        fitting = [name for name in names if "disp" in name.lower() or len(names) == 1]
    if len(fitting) != 1:
        raise InputError(f"which output is the map? Write 'output: NAME' beside it, of {names[:6]}")
    return fitting[0]
