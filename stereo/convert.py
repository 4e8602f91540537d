"""Published PSMNet checkpoints into this project's form."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stereo.checkpoint import Checkpoint, load_weights
from stereo.data.images import check_readable
from stereo.errors import InputError
from stereo.model import NetworkConfig, build_network

# The authors' names and ours. `.0.` and `.1.` at the end are convolution and batch norm.
_FEATURES = [
    (r"feature_extraction\.firstconv\.([024])\.", lambda m: f"features.stem.{int(m[1]) // 2}."),
    (r"feature_extraction\.layer(\d)\.(\d+)\.conv1\.0\.", r"features.stage\1.\2.first."),
    (r"feature_extraction\.layer(\d)\.(\d+)\.conv2\.", r"features.stage\1.\2.second."),
    (r"feature_extraction\.layer(\d)\.(\d+)\.downsample\.", r"features.stage\1.\2.shortcut."),
    (r"feature_extraction\.branch(\d)\.1\.", lambda m: f"features.pyramid.{int(m[1]) - 1}."),
    (r"feature_extraction\.lastconv\.0\.", "features.fuse."),
    (r"feature_extraction\.lastconv\.2\.weight", "features.project.weight"),
    (r"dres0\.([02])\.", lambda m: f"aggregation.enter.{'first' if m[1] == '0' else 'second'}."),
]
_STACKED = [
    (r"dres1\.0\.", "aggregation.refine.first."),
    (r"dres1\.2\.", "aggregation.refine.second."),
    (r"dres([234])\.conv1\.0\.", lambda m: f"{_hourglass(m)}.to_eighth."),
    (r"dres([234])\.conv2\.", lambda m: f"{_hourglass(m)}.eighth."),
    (r"dres([234])\.conv3\.0\.", lambda m: f"{_hourglass(m)}.to_sixteenth."),
    (r"dres([234])\.conv4\.0\.", lambda m: f"{_hourglass(m)}.sixteenth."),
    (r"dres([234])\.conv5\.", lambda m: f"{_hourglass(m)}.up_to_eighth."),
    (r"dres([234])\.conv6\.", lambda m: f"{_hourglass(m)}.up_to_quarter."),
    (r"classif(\d)\.0\.", lambda m: f"aggregation.heads.{int(m[1]) - 1}.hidden."),
    (r"classif(\d)\.2\.weight", lambda m: f"aggregation.heads.{int(m[1]) - 1}.project.weight"),
]
_BASIC = [
    (r"dres([1234])\.0\.", lambda m: f"aggregation.residuals.{int(m[1]) - 1}.first."),
    (r"dres([1234])\.2\.", lambda m: f"aggregation.residuals.{int(m[1]) - 1}.second."),
    (r"classify\.0\.", "aggregation.head.hidden."),
    (r"classify\.2\.weight", "aggregation.head.project.weight"),
]


def convert_psmnet(path: str | Path, *, align_corners: bool) -> Checkpoint:
    """Read a PSMNet ``.tar`` file; stacked hourglass and basic are told apart by their keys.

    Args:
        path: the authors' file, ``{"epoch", "state_dict", "train_loss"}``, with or without
            ``module.`` and ``num_batches_tracked``.
        align_corners: the convention it was trained under: true for files made with PyTorch below
            0.4.1 or patched for it, false for the authors' retrained model of 2021.

    Raises:
        InputError: anything but such a file. No code of it runs (``weights_only=True``).
    """
    path = Path(path)
    return convert_state(_state_dict(path), str(path), align_corners=align_corners)


def convert_state(state: Mapping[str, Tensor], source: str, *, align_corners: bool) -> Checkpoint:
    """Do the same for the tensors of such a file.

    Args:
        state: the authors' ``state_dict``.
        source: what to call it in an error.
        align_corners: see ``convert_psmnet``.

    Raises:
        InputError: tensors of another network.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    name = "psmnet_basic" if any(key.startswith("classify.") for key in state) else "psmnet"
    config = NetworkConfig(
        name=name,
        upsampling="align_corners" if align_corners else "half_pixel",
        padding="zeros",
    )
    rules = _FEATURES + (_BASIC if name == "psmnet_basic" else _STACKED)
    weights = {_rename(key, rules): value.float() for key, value in state.items()}
    network = build_network(config)
    for key, value in network.state_dict().items():
        if key.endswith("num_batches_tracked"):  # absent in files of PyTorch before 0.4.1
            weights[key] = weights[key].long() if key in weights else torch.zeros_like(value)
    load_weights(network, weights, f"{source} (read as {name})")
    return Checkpoint(config, weights, {"converted_from": Path(source).name})


def _hourglass(match: re.Match[str]) -> str:
    return f"aggregation.hourglasses.{int(match[1]) - 2}"


def _rename(key: str, rules: list[Any]) -> str:
    for pattern, replacement in rules:
        renamed, count = re.subn(f"^{pattern}", replacement, key)
        if count:
            renamed = re.sub(r"\.0\.(weight|bias)$", r".conv.\1", renamed)
            return re.sub(r"\.1\.(\w+)$", r".norm.\1", renamed)
    return key


def _state_dict(path: Path) -> dict[str, Tensor]:
    check_readable(path)
    refusal = f"{path}: not a PSMNet checkpoint"
    try:
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # the bytes of a file of anything else can raise nearly anything
        raise InputError(
            f"{refusal}: not a file of tensors written by torch.save (no code in it was run); "
            "name the authors' .tar file"
        ) from error
    state = loaded.get("state_dict") if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not state:
        raise InputError(f"{refusal}: it holds no 'state_dict'")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(f"{refusal}: 'state_dict' holds {type(value).__name__} at {key!r}")
        if value.layout != torch.strided or value.is_meta or value.is_complex():
            raise InputError(f"{refusal}: '{key}' is not a plain tensor of real numbers")
    return state


def _numpy_scalars() -> list[Any]:
    """Return what a NumPy number needs: some published files store the loss as one."""
    scalar = np.float64(0).__reduce__()[0]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype("float64")),
        type(np.dtype("float32")),
    ]
