"""Run a network that ``stereo export`` wrote, in ONNX Runtime on the CPU.

A file's metadata say what it is; the keys are ``FACTS``. Its graph takes ``left`` and ``right``,
float32 (B, 3, H, W), RGB in 0..255, H and W multiples of ``stride``, and gives ``disparity``,
float32 (B, H, W), pixels, and ``certainty``, float32 (B, 2, H, W), of ``stereo.model.certainty``.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stereo.checkpoint import file_sha256
from stereo.data.images import check_readable
from stereo.engine import Estimate, pad_to_multiple
from stereo.errors import InputError, StereoError
from stereo.model import NetworkConfig
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
EXTRA = "pip install 'stereo-efficient-attention[export]', or -e '.[export]' in a clone"


class OnnxEngine:
    """Runs an exported network on images of any size: pad, match, crop.

    Args:
        path: a file that ``stereo export`` wrote.

    Raises:
        InputError: it is missing, damaged, or not such a file.
        StereoError: ONNX Runtime is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        runtime = _import_runtime()
        check_readable(self.path)
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # what it raises says enough
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = runtime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions have no base of their own
            raise InputError(
                f"{self.path}: not a complete ONNX file ({_first_line(error)})"
            ) from error
        facts = self._session.get_modelmeta().custom_metadata_map
        if facts.get("format") != FORMAT:
            raise InputError(
                f"{self.path}: an ONNX file of another program (format "
                f"{facts.get('format', 'not given')}, expected {FORMAT}); 'stereo export' "
                "writes such files"
            )
        try:
            self.config = NetworkConfig.from_dict(json.loads(facts["network"]))
            self.max_disparity = int(facts["max_disparity"])
            self.stride = int(facts["stride"])
            self.facts = {key: facts[key] for key in FACTS}
            json.loads(self.facts["confidence"])
        except (KeyError, TypeError, ValueError, StereoError) as error:
            raise InputError(f"{self.path}: its metadata cannot be used ({error})") from error

    def __call__(self, lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]) -> list[Estimate]:
        """Match views of one size, (H, W, 3) uint8 each.

        Raises:
            StereoError: ONNX Runtime cannot, for want of memory, say.
        """
        height, width = lefts[0].shape[:2]
        views = {"left": self.padded(lefts).numpy(), "right": self.padded(rights).numpy()}
        try:
            found = self._session.run(OUTPUTS, views)
        except Exception as error:
            raise StereoError(
                f"ONNX Runtime cannot match {width}x{height} pixels with {self.path} "
                f"({_first_line(error)}); use smaller images, or the network itself with --tile"
            ) from error
        maps = (np.ascontiguousarray(each[..., -height:, :width]) for each in found)
        return [Estimate(*each) for each in zip(*maps, strict=True)]

    def padded(self, views: Sequence[np.ndarray]) -> Tensor:  # (B, 3, H', W')
        """Return (H, W, 3) uint8 views as the graph takes them, filled up to its stride."""
        pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float()
        if self.config.padding == "replicate":
            return pad_to_multiple(pixels, self.stride, "replicate").contiguous()
        zero = 255 * torch.tensor(self.config.mean).view(3, 1, 1)  # what is normalised to it
        return (pad_to_multiple(pixels - zero, self.stride, "zeros") + zero).contiguous()


def describe(engine: OnnxEngine) -> dict[str, Any]:
    """Return what ``metrics.json`` stores about an exported network."""
    return {
        "name": engine.path.stem,
        "network": engine.config.to_dict(),
        "weights": f"sha256:{file_sha256(engine.path)}",
        "exported_from": engine.facts["weights"],
        "exported_by": engine.facts["version"],
        "max_disparity": engine.max_disparity,
        "device": "cpu",
        "precision": engine.facts["precision"],
        "scale": "1",
        "version": __version__,
    }


def _import_runtime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise StereoError(f".onnx files need the package onnxruntime: {EXTRA}") from error
    return onnxruntime


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
