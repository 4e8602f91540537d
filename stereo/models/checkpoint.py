"""Checkpoints: safetensors files whose metadata describe the network and its training.

No code runs when one is read. Metadata keys: ``format``, ``version`` (of this package), ``network``
(``NetworkConfig`` as JSON: architecture, attention, max disparity, disparity convention, padding,
normalisation), ``training`` (recipe, protocol and metrics as JSON, empty if unknown),
``confidence`` (``ConfidenceModel`` as JSON, where one was fitted) and, in a run's own checkpoints,
``state``.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stereo.data.sets.fingerprints import unpacked
from stereo.errors import InputError, StereoError, UsageError
from stereo.models import NetworkConfig, StereoNetwork, build_network
from stereo.system.files import staged
from stereo.system.limits import check_file
from stereo.system.parsing import parse_json
from stereo.version import __version__

FORMAT = "stereo-efficient-attention/1"
STATE_PREFIX = "state."
BEST, LAST = "best", "last"  # a run's files: `best` and `last-STEP`
FLOATS = ("F64", "F32", "F16", "BF16")
WHOLE_NUMBERS = ("I64", "I32")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The contents of a checkpoint file."""

    config: NetworkConfig  # the network
    weights: dict[str, Tensor]  # parameter and buffer names to tensors, on the CPU
    # recipe, data, protocol and metrics; empty if unknown
    training: dict[str, Any] = field(default_factory=dict)
    version: str = __version__  # the package version that wrote it
    # what `stereo.matching.confidence.ConfidenceModel.from_dict` reads, or None
    confidence: dict[str, Any] | None = None

    @property
    def trained_on(self) -> frozenset[str]:
        """Fingerprints (``stereo.data.sets.fingerprints``) of the pairs on disk that taught it."""
        return unpacked(self.training.get("trained_on"))


def check_weights_name(output: str | Path) -> None:
    """Raise ``UsageError`` unless a file to write has the suffix by which it is read."""
    if Path(output).suffix != ".safetensors":
        raise UsageError(f"--output {output}: expected a .safetensors file")


def save_checkpoint(
    path: str | Path,
    checkpoint: Checkpoint,
    *,
    state: Mapping[str, Tensor] | None = None,
    state_facts: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: the ``.safetensors`` file.
        checkpoint: weights and metadata.
        state: further tensors, of the training run; loading the network leaves them unread.
        state_facts: what goes with them, as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    path = Path(path)
    metadata = {
        "format": FORMAT,
        "version": checkpoint.version,
        "network": json.dumps(checkpoint.config.to_dict()),
        "training": json.dumps(checkpoint.training),
    }
    if checkpoint.confidence is not None:
        metadata["confidence"] = json.dumps(checkpoint.confidence)
    if state_facts is not None:
        metadata["state"] = json.dumps(state_facts)
    tensors = dict(checkpoint.weights)
    tensors |= {f"{STATE_PREFIX}{name}": tensor for name, tensor in (state or {}).items()}
    # Cloned: safetensors refuses tensors that share memory or have their channels last.
    tensors = {
        name: t.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, t in tensors.items()
    }
    with staged(path) as (temporary,):
        temporary.write_bytes(save(tensors, metadata))  # its own writing leaves files when killed


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; its cost is bounded by the file's size, whatever the metadata claim.

    Raises:
        InputError: the file is missing, damaged, or not a checkpoint of this package, or its
            weights do not belong to the network that its metadata describe.
    """
    path = Path(path)
    check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(
                    f"{path}: a safetensors file of another program (format "
                    f"{metadata.get('format', 'not given')}, expected {FORMAT})"
                )
            config, training, confidence = _read_metadata(path, metadata)
            names = [name for name in file.keys() if not name.startswith(STATE_PREFIX)]  # noqa: SIM118
            _check_header(config, {name: file.get_slice(name) for name in names}, str(path))
            weights = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        hint = (
            "; 'stereo convert' reads published PSMNet .tar files" if path.suffix == ".tar" else ""
        )
        raise InputError(f"{path}: not a complete safetensors file ({error}){hint}") from error
    return Checkpoint(config, weights, training, metadata.get("version", "unknown"), confidence)


def _read_metadata(
    path: Path, metadata: Mapping[str, str]
) -> tuple[NetworkConfig, dict[str, Any], dict[str, Any] | None]:
    try:
        config = NetworkConfig.from_dict(parse_json(metadata["network"], "network"))
        training = parse_json(metadata["training"], "training")
        confidence = None
        if "confidence" in metadata:
            confidence = parse_json(metadata["confidence"], "confidence model")
            if not isinstance(confidence, dict):
                raise InputError("confidence model: not an object")
        if not isinstance(training, dict):
            raise InputError("training: not an object")
    except (KeyError, TypeError, ValueError, OverflowError, StereoError) as error:
        raise InputError(f"{path}: its metadata cannot be used ({error})") from error
    return config, training, confidence


def _check_header(config: NetworkConfig, found: Mapping[str, Any], source: str) -> None:
    """Compare the tensors that a file's header declares with those of the network it describes.

    The network is laid out without memory for its weights, since metadata can ask for any size.
    """
    try:
        with torch.device("meta"):
            expected = build_network(config).state_dict()
    except StereoError as error:
        raise InputError(f"{source}: its network cannot be built ({error})") from error
    check_shapes(expected, {name: part.get_shape() for name, part in found.items()}, source)
    for name, part in found.items():
        known = FLOATS if expected[name].is_floating_point() else WHOLE_NUMBERS
        if part.get_dtype() not in known:
            raise InputError(
                f"{source}: '{name}' is stored as {part.get_dtype()}; expected {' or '.join(known)}"
            )


def restore_network(checkpoint: Checkpoint, source: str) -> StereoNetwork:
    """Build the checkpoint's network with its weights.

    Raises:
        InputError: the weights do not belong to the network that the metadata describe.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            network = build_network(checkpoint.config)
    except StereoError as error:
        raise InputError(f"{source}: its network cannot be built ({error})") from error
    load_weights(network, checkpoint.weights, source)
    return network


def load_weights(
    network: StereoNetwork,
    weights: dict[str, Tensor],
    source: str,
    *,
    allow_new_attention: bool = False,
) -> None:
    """Load weights strictly.

    Args:
        network: receives them.
        weights: names to tensors.
        source: what to call them in an error.
        allow_new_attention: let attention modules that the weights lack keep their own; with a
            zero-initialised reprojection a PSMNet's weights then give an EA-PSMNet the same map.

    Raises:
        InputError: a name is missing or unknown, or a shape differs.
    """
    expected = network.state_dict()
    needed = {
        name: tensor
        for name, tensor in expected.items()
        if name in weights or not (allow_new_attention and ".attention_" in name)
    }
    check_shapes(needed, {name: tensor.shape for name, tensor in weights.items()}, source)
    network.load_state_dict(weights, strict=False)
    for name in weights:  # as loaded: a number of float64 may be none of float32
        if not expected[name].isfinite().all():
            raise InputError(f"{source}: '{name}' holds values that are not finite")


def check_shapes(
    expected: Mapping[str, Tensor], found: Mapping[str, Sequence[int]], source: str
) -> None:
    """Raise ``InputError`` unless tensors have the network's names and shapes."""
    problems = [
        *(f"'{name}' is missing" for name in sorted(expected.keys() - found.keys())),
        *(f"'{name}' is unknown" for name in sorted(found.keys() - expected.keys())),
        *(
            f"'{name}' has shape {tuple(found[name])}, expected {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in found and tuple(found[name]) != tuple(tensor.shape)
        ),
    ]
    if problems:
        more = f" and {len(problems) - 1} more problems" if len(problems) > 1 else ""
        raise InputError(f"{source}: the weights do not fit the network: {problems[0]}{more}")


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()
