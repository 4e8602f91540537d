"""Published PSMNet checkpoints into this project's form."""

import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stereo.errors import InputError
from stereo.models import NetworkConfig, build_network
from stereo.models.checkpoint import Checkpoint, check_shapes, load_weights
from stereo.system.limits import check_file

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


MAX_BYTES = 2**31  # of a file; the authors' have up to 63 MB
MAX_PICKLED = 2**21  # bytes that say what the tensors are; the authors' have 60 kB
# How files of torch.save before version 1.6 begin, and how many pickles precede the numbers.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PICKLES = 5
_DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32),
)
_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int")
_GLOBALS = frozenset(
    (
        *("collections OrderedDict", "_codecs encode", "numpy dtype"),
        *("numpy.core.multiarray scalar", "numpy._core.multiarray scalar"),
        *(f"torch._utils _rebuild_{what}" for what in ("tensor", "tensor_v2", "parameter")),
        *(f"torch {kind}Storage" for kind in _STORAGES),
    )
)
_OTHER_WAYS = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")


def convert_psmnet(path: str | Path, *, align_corners: bool) -> Checkpoint:
    """Read a PSMNet ``.tar`` file; its keys tell stacked hourglass from basic.

    Args:
        path: the authors' file, ``{"epoch", "state_dict", "train_loss"}``, with or without
            ``module.`` and ``num_batches_tracked``.
        align_corners: the convention it was trained under: true for the authors' weights of 2018,
            false for those they retrained in 2021.

    Raises:
        InputError: anything but such a file. No code of it runs (``weights_only=True``).
    """
    path = Path(path)
    return convert_state(_state_dict(path), str(path), align_corners=align_corners)


def convert_state(state: Mapping[str, Tensor], source: str, *, align_corners: bool) -> Checkpoint:
    """As ``convert_psmnet``, for the tensors of such a file.

    Raises:
        InputError: tensors of another network.
    """
    origin = Path(source).name
    state = {key.removeprefix("module."): value for key, value in state.items()}
    name = "psmnet_basic" if any(key.startswith("classify.") for key in state) else "psmnet"
    config = NetworkConfig(
        name=name, upsampling="align_corners" if align_corners else "half_pixel", padding="zeros"
    )
    rules = _FEATURES + (_BASIC if name == "psmnet_basic" else _STACKED)
    found = {_rename(key, rules): value for key, value in state.items()}
    network = build_network(config)
    expected = network.state_dict()
    for key, value in expected.items():
        if key.endswith("num_batches_tracked"):  # absent in files of PyTorch before 0.4.1
            found.setdefault(key, torch.zeros_like(value))
    source = f"{source} (read as {name})"
    # Before any is copied: a view of one number can be of any shape.
    check_shapes(expected, {key: value.shape for key, value in found.items()}, source)
    weights = {key: found[key].detach().to(value, copy=True) for key, value in expected.items()}
    load_weights(network, weights, source)
    return Checkpoint(config, weights, {"converted_from": origin})


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
    refusal = f"{path}: not a PSMNet checkpoint"
    check_file(path, MAX_BYTES, "such a checkpoint")
    try:
        is_zip = _check_pickles(path)
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Mapped, a storage can be no larger than the file.
            loaded = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
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
        if value.layout != torch.strided or value.is_meta or value.dtype not in _DTYPES:
            raise InputError(f"{refusal}: '{key}' is not a plain tensor of real numbers")
    return state


def _check_pickles(path: Path) -> bool:
    """Return whether a file of tensors is a zip, or raise ``ValueError`` if it may not be loaded.

    The unpickler of PyTorch runs no code of the file's, but calls functions that multiply a few
    bytes: copies of expanded views, sparse and quantised tensors. Plain tensors need none of them.
    """
    with path.open("rb") as file:
        start = file.read(MAX_PICKLED)
    is_zip = start.startswith(b"PK")
    if is_zip:
        pickles = _zipped_pickles(path)
    elif start.startswith(_LEGACY):
        pickles = [io.BytesIO(start)] * _LEGACY_PICKLES  # one after the other
    else:
        raise ValueError("neither of the two formats of torch.save")
    for pickled in pickles:
        for operation, argument, _ in pickletools.genops(pickled):
            if operation.name in _OTHER_WAYS or (
                operation.name == "GLOBAL" and argument not in _GLOBALS
            ):
                raise ValueError(f"{operation.name} {argument}")
    return is_zip


def _zipped_pickles(path: Path) -> list[io.BytesIO]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("compressed")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("members overlap")
        pickled = [each for each in members if each.filename.endswith("/data.pkl")]
        if not pickled or any(each.file_size > MAX_PICKLED for each in pickled):
            raise ValueError("no pickle, or a huge one")
        return [io.BytesIO(archive.read(each)) for each in pickled]


def _numpy_scalars() -> list[Any]:
    """Return the globals of a NumPy number: some published files store the loss as one."""
    scalar = np.float64(0).__reduce__()[0]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype("float64")),
        type(np.dtype("float32")),
    ]
