"""Checkpoints: safetensors files whose metadata rebuild the network and say how it was made.

No code runs when one is read. Metadata keys: ``format``, ``version`` (of this package), ``network``
(``NetworkConfig`` as JSON: architecture, attention, max disparity, disparity convention, padding,
normalisation), ``training`` (recipe, protocol and metrics as JSON, empty if unknown),
``confidence`` (``ConfidenceModel`` as JSON, where one was fitted) and, in a run's own checkpoints,
``state``.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stereo.data.images import check_readable
from stereo.errors import InputError, StereoError
from stereo.files import staged
from stereo.model import NetworkConfig, StereoNetwork, build_network
from stereo.version import __version__

FORMAT = "stereo-efficient-attention/1"
STATE_PREFIX = "state."


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        config: the network.
        weights: parameter and buffer names to tensors, on the CPU.
        training: recipe, data, protocol and metrics; empty if unknown.
        version: the package version that wrote it.
        confidence: what ``stereo.confidence.ConfidenceModel.from_dict`` reads, or None.
    """

    config: NetworkConfig
    weights: dict[str, Tensor]
    training: dict[str, Any] = field(default_factory=dict)
    version: str = __version__
    confidence: dict[str, Any] | None = None


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
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # its I/O errors are not OSErrors
            raise OSError(str(error)) from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InputError: the file is missing, damaged, or not a checkpoint of this package.
    """
    path = Path(path)
    check_readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {
                name: file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118
                if not name.startswith(STATE_PREFIX)
            }
    except (SafetensorError, OSError, ValueError) as error:
        hint = (
            "; 'stereo convert' reads published PSMNet .tar files" if path.suffix == ".tar" else ""
        )
        raise InputError(f"{path}: not a complete safetensors file ({error}){hint}") from error
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path}: a safetensors file of another program (format "
            f"{metadata.get('format', 'not given')}, expected {FORMAT})"
        )
    try:
        config = NetworkConfig.from_dict(json.loads(metadata["network"]))
        training = json.loads(metadata["training"])
        confidence = json.loads(metadata.get("confidence", "null"))
    except (KeyError, TypeError, ValueError, StereoError) as error:
        raise InputError(f"{path}: its metadata cannot be used ({error})") from error
    return Checkpoint(config, weights, training, metadata.get("version", "unknown"), confidence)


def restore_network(checkpoint: Checkpoint, source: str) -> StereoNetwork:
    """Build the checkpoint's network with its weights.

    Args:
        checkpoint: what ``load_checkpoint`` returned.
        source: what to call it in an error.

    Raises:
        InputError: the weights do not belong to the network that the metadata describe.
    """
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
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
    """Load weights and insist that all fit.

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
    missing = expected.keys() - weights.keys()
    if allow_new_attention:
        missing = {name for name in missing if ".attention_" not in name}
    problems = [
        *(f"'{n}' is missing" for n in sorted(missing)),
        *(f"'{n}' is unknown" for n in sorted(weights.keys() - expected.keys())),
        *(
            f"'{n}' holds values that are not finite"
            for n, t in weights.items()
            if not t.isfinite().all()
        ),
        *(
            f"'{n}' has shape {tuple(weights[n].shape)}, expected {tuple(t.shape)}"
            for n, t in expected.items()
            if n in weights and weights[n].shape != t.shape
        ),
    ]
    if problems:
        more = f" and {len(problems) - 1} more problems" if len(problems) > 1 else ""
        raise InputError(f"{source}: the weights do not fit the network: {problems[0]}{more}")
    network.load_state_dict(weights, strict=False)


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()
