"""Run a network that ``stereo export`` wrote, in ONNX Runtime on the CPU.

A file's metadata say what it is; the keys are ``FACTS``. Its graph takes ``left`` and ``right``,
float32 (B, 3, H, W), RGB in 0..255, H and W multiples of ``stride``, and gives ``disparity``,
float32 (B, H, W), pixels, and ``certainty``, float32 (B, 2, H, W), of ``stereo.models.certainty``.
"""

import functools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stereo.data.sets.fingerprints import unpacked
from stereo.errors import InputError, StereoError
from stereo.matching.engine import FREE_SHARE, NOT_FINITE, pad_to_multiple
from stereo.matching.estimate import Estimate
from stereo.matching.onnx_file import read_onnx
from stereo.models import NetworkConfig
from stereo.models.checkpoint import file_sha256
from stereo.models.config import STRIDE, check_max_disparity
from stereo.system.extras import import_extra
from stereo.system.parsing import parse_json
from stereo.system.runtime import free_bytes, is_out_of_memory
from stereo.version import __version__

FORMAT = "stereo-efficient-attention/onnx-1"
OUTPUTS = ("disparity", "certainty")
FACTS = (
    *("format", "version", "name", "network", "weights", "max_disparity", "stride", "precision"),
    "confidence",
)
"""Keys of the metadata: ``network`` is a ``NetworkConfig`` as JSON, ``weights`` the SHA-256 of the
checkpoint, ``max_disparity`` in pixels, ``precision`` fp32, fp16 or int8, ``confidence`` a
``ConfidenceModel`` as JSON, or null."""
PRECISIONS = ("fp32", "fp16", "int8")
_TOLERANCE = 0.5  # pixels that a map may fall below 0
_MOST_FACT = 1000  # characters of a fact that is no JSON
_SECONDS, _SECONDS_PER_CELL = 60, 5e-6  # a match may take; a cell is a pixel and disparity


class OnnxGraph:
    """A graph in ONNX Runtime, its memory and time bounded.

    Raises:
        InputError: it is missing, damaged, or a graph that is not run.
        StereoError: ONNX Runtime is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        runtime = _import_runtime()
        data = read_onnx(path)
        _bound_memory(runtime)
        options = runtime.SessionOptions()
        options.add_session_config_entry("session.use_env_allocators", "1")  # what is bounded
        options.log_severity_level = 4  # what it raises says enough
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # see threads.py
        try:
            self.session = runtime.InferenceSession(
                data,
                options,
                providers=["CPUExecutionProvider"],
                # Ours are folded before they are written; here it would run unbounded.
                disabled_optimizers=["ConstantFolding"],
            )
        except Exception as error:  # its exceptions have no base of their own
            raise InputError(f"{path}: not a complete ONNX file ({_first_line(error)})") from error
        try:
            # The file's metadata.
            self.facts: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: metadata that are no text ({error})") from error
        self.is_ours = self.facts.get("format") == FORMAT

    def run(
        self,
        outputs: Sequence[str],
        inputs: Mapping[str, np.ndarray],
        size: tuple[int, int],
        max_disparity: int,
    ) -> list[Any]:
        """Return the outputs of one run.

        Args:
            outputs: their names.
            inputs: arrays by name.
            size: width and height of the views, pixels.
            max_disparity: pixels.

        Raises:
            StereoError: ONNX Runtime cannot, for want of memory, say, or it takes too long.
        """
        width, height = size
        batch = len(next(iter(inputs.values())))
        seconds = _SECONDS + _SECONDS_PER_CELL * batch * height * width * max_disparity
        options = _import_runtime().RunOptions()
        try:
            with _ended_after(seconds, options):
                return list(self.session.run(list(outputs), dict(inputs), options))
        except Exception as error:
            why = f"more than {seconds:.0f} s" if options.terminate else _first_line(error)
            remedy = ""
            if options.terminate or is_out_of_memory(error):
                remedy = "; use smaller images"
                remedy += ", or the network itself with --tile" if self.is_ours else ""
            raise StereoError(
                f"ONNX Runtime cannot match {width}x{height} pixels with {self.path} ({why})"
                f"{remedy}"
            ) from error


class OnnxEngine:
    """Runs an exported network on images of any size: pad, match, crop.

    Args:
        graph: that of a file that ``stereo export`` wrote.

    Raises:
        InputError: it is missing, damaged, or not such a file.
        StereoError: ONNX Runtime is not installed.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        self.path, self._graph = graph.path, graph
        facts = self._graph.facts
        names = {"input": {"left", "right"}, "output": set(OUTPUTS)}
        for kind, wanted in names.items():
            given = {each.name for each in getattr(self._graph.session, f"get_{kind}s")()}
            if given != wanted:
                raise InputError(
                    f"{self.path}: {kind}s {sorted(given)[:4]}, expected {sorted(wanted)}"
                )
        try:
            self._use(facts)
        except (KeyError, TypeError, ValueError, OverflowError, StereoError) as error:
            raise InputError(f"{self.path}: its metadata cannot be used ({error})") from error

    def _use(self, facts: Mapping[str, str]) -> None:
        self.facts = {key: facts[key] for key in FACTS}
        self.config = NetworkConfig.from_dict(parse_json(facts["network"], "network"))
        self.confidence = parse_json(facts["confidence"], "confidence")
        self.trained_on = unpacked(facts.get("trained_on"))
        for key in self.facts.keys() - {"network", "confidence"}:
            if len(facts[key]) > _MOST_FACT:
                raise InputError(f"{key} of {len(facts[key])} characters")
        self.max_disparity, self.stride = (int(facts[key]) for key in ("max_disparity", "stride"))
        check_max_disparity(self.max_disparity)
        if self.stride != STRIDE:
            raise InputError(f"stride {self.stride}, expected {STRIDE}")
        if facts["precision"] not in PRECISIONS:
            raise InputError(f"precision '{facts['precision']}', expected one of {PRECISIONS}")

    def __call__(self, lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]) -> list[Estimate]:
        """Match views of one size, (H, W, 3) uint8 each.

        Raises:
            StereoError: ONNX Runtime cannot, for want of memory, say; or what it gives is no map.
        """
        height, width = lefts[0].shape[:2]
        views = {"left": self.padded(lefts).numpy(), "right": self.padded(rights).numpy()}
        found = self._graph.run(OUTPUTS, views, (width, height), self.max_disparity)
        disparity, certainty = self._checked(found, views["left"].shape)
        maps = (
            np.ascontiguousarray(each[..., -height:, :width]) for each in (disparity, certainty)
        )
        return [Estimate(*(part.copy() for part in each)) for each in zip(*maps, strict=True)]

    def _checked(
        self, found: Sequence[Any], shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return disparity and certainty, or raise ``StereoError`` if they cannot be such."""
        batch, _, *size = shape
        expected = ((batch, *size), (batch, 2, *size))
        for name, each, wanted in zip(OUTPUTS, found, expected, strict=True):
            if not isinstance(each, np.ndarray) or each.dtype != np.float32 or each.shape != wanted:
                told = f"{getattr(each, 'dtype', type(each))} {getattr(each, 'shape', '')}"
                raise StereoError(
                    f"{self.path}: its graph gives '{name}' as {told}, expected float32 {wanted}"
                )
            if not np.isfinite(each).all():
                raise StereoError(f"{self.path}: {NOT_FINITE}")
        disparity, certainty = found
        reach = max(2 * self.max_disparity, size[1])  # files of before maps were kept in the range
        bounds = (
            ("disparities", disparity, -_TOLERANCE, reach, "px"),
            ("certainties", certainty, -0.01, 1.01, ""),
        )
        for name, each, least, most, unit in bounds:
            if each.min() < least or each.max() > most:
                raise StereoError(
                    f"{self.path}: its graph gives {name} of {each.min():g} to {each.max():g}, "
                    f"expected {max(least, 0):g} to {int(most)} {unit}".rstrip()
                )
        return disparity.clip(0, self.max_disparity), certainty.clip(0, 1)

    def padded(self, views: Sequence[np.ndarray]) -> Tensor:  # (B, 3, H', W')
        """Return (H, W, 3) uint8 views as the graph takes them, padded to its stride."""
        pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float()
        if self.config.padding == "replicate":
            return pad_to_multiple(pixels, self.stride, "replicate").contiguous()
        zero = 255 * torch.tensor(self.config.mean).view(3, 1, 1)  # what is normalised to it
        return (pad_to_multiple(pixels - zero, self.stride, "zeros") + zero).contiguous()

    def description(self) -> dict[str, Any]:
        """Return what ``metrics.json`` stores about the network."""
        return {
            "name": self.path.stem,
            "network": self.config.to_dict(),
            "weights": f"sha256:{file_sha256(self.path)}",
            "exported_from": self.facts["weights"],
            "exported_by": self.facts["version"],
            "max_disparity": self.max_disparity,
            "device": "cpu",
            "precision": self.facts["precision"],
            "scale": "1",
            "version": __version__,
        }


@functools.cache
def _bound_memory(runtime: ModuleType) -> None:
    """Let all sessions of this process together take the memory that is free now, no more."""
    most = int(FREE_SHARE * free_bytes(torch.device("cpu")))
    kind = runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    runtime.create_and_register_allocator(
        runtime.OrtMemoryInfo("Cpu", kind, 0, runtime.OrtMemType.DEFAULT),
        runtime.OrtArenaCfg({"max_mem": most, "arena_extend_strategy": 1}),  # 1: as requested
    )


@contextmanager
def _ended_after(seconds: float, options: Any) -> Iterator[None]:
    """Terminate a run after a time limit, at its next node."""
    timer = threading.Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _import_runtime() -> ModuleType:
    return import_extra("onnxruntime", "export", "an .onnx file")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
