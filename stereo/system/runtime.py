"""Where and how to compute: device and precision."""

import contextlib
import errno
import functools
import os
import platform
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stereo.errors import UsageError, unknown_name
from stereo.system.cgroups import free_memory
from stereo.system.compute import check_device

_exact_lock, _exact_settings = threading.Lock(), contextlib.ExitStack()
_exact_uses = {"now": 0}
_CPU_INFO = Path("/proc/cpuinfo")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",  # PyTorch's CPU allocator
    "DefaultCPUAllocator: not enough memory",  # the same on Windows
    "std::bad_alloc",  # C++ behind PyTorch, which makes a RuntimeError of it
    "Cannot allocate memory",  # ENOMEM in words: PyTorch's shared memory and mapped files
    "CUDA error: out of memory",  # of the driver, not of PyTorch's allocator
    "CUDA driver error: out of memory",
    "HIP error: out of memory",
    "Triton Error [CUDA]: out of memory",
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN to 8, cuSOLVER, cuSPARSE
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",  # cuDNN from 9 on
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "MPS backend out of memory",
    "Invalid buffer size",  # MPS: larger than any buffer may be
    "(-4:Insufficient memory)",  # OpenCV's StsNoMem
    "Failed to allocate memory for requested buffer",  # ONNX Runtime's arena
)
"""Texts of out-of-memory errors; any other error that mentions memory is a real fault."""


def pick_device(device: str) -> torch.device:
    """Resolve ``auto`` to CUDA, else the CPU; MPS is untested and must be named.

    Raises:
        UsageError: an unknown device, or one that this machine lacks.
    """
    check_device(device)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    kind, _, index = device.partition(":")
    if (kind == "cuda" and int(index or 0) >= gpus) or (
        kind == "mps" and not torch.backends.mps.is_available()
    ):
        raise UsageError(f"this machine has no device '{device}'; use 'cpu'")
    local = int(os.environ.get("LOCAL_RANK", "0"))  # torchrun's processes have a GPU each
    if device == "cuda" and 0 < local < gpus:
        device = f"cuda:{local}"
    return torch.device(device)


def pick_dtype(
    precision: str, device: torch.device, *, bf16_by_default: bool = False
) -> torch.dtype:
    """Resolve a precision name to the dtype of autocast.

    Args:
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: where to compute.
        bf16_by_default: whether ``auto`` may be bf16, which it is where the hardware is fast at it.

    Raises:
        UsageError: an unknown precision, or fp16 on the CPU, which has no fast path for it.
    """
    if precision == "auto":
        return torch.bfloat16 if bf16_by_default and fast_at_bf16(device) else torch.float32
    if precision not in _DTYPES:
        raise unknown_name("precision", precision, ["auto", *_DTYPES])
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("precision fp16 needs a GPU; use bf16 or fp32 on the CPU")
    return _DTYPES[precision]


def has_bf16(device: torch.device) -> bool:
    """Return whether the hardware has instructions for bf16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (
        _cpu_has("_is_amx_tile_supported") or _cpu_has("_is_avx512_bf16_supported")
    )


def fast_at_bf16(device: torch.device) -> bool:
    """Return whether networks run faster in bf16 than in fp32.

    Intel's AVX-512 BF16 without AMX multiplies no faster than fp32, and conversions come on top
    (docs/performance.md).
    """
    if device.type != "cpu" or _cpu_has("_is_amx_tile_supported"):
        return has_bf16(device)
    return has_bf16(device) and cpu_facts().get("vendor_id") != "GenuineIntel"


def _cpu_has(name: str) -> bool:
    return bool(getattr(torch.cpu, name, bool)())  # PyTorch has no public names for these


@functools.cache
def cpu_facts() -> dict[str, str]:
    """Return what Linux says of the last core; elsewhere at most ``vendor_id``."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:  # Windows names the vendor at the end
        return {"vendor_id": platform.processor().rpartition(" ")[2]}
    return {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device within this process's limits."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil

    return max(0, min([psutil.virtual_memory().available, *free_memory()]))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that CPU or GPU memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    library = type(error).__module__.partition(".")[0]  # neither has a base class to import
    if not isinstance(error, RuntimeError) and library not in ("cv2", "onnxruntime"):
        return False
    return any(text in str(error) for text in _OUT_OF_MEMORY)


@contextlib.contextmanager
def exact_fp32(*, enabled: bool = True) -> Iterator[None]:
    """Compute in full precision on a GPU: no TF32, which is cuDNN's default for convolutions.

    The caller's settings are restored afterwards. PyTorch refuses to read its older ``allow_tf32``
    inside this context.
    """
    if not enabled:
        yield
        return
    # The settings are the process's: the first thread of several makes them, the last restores.
    with _exact_lock:
        if not _exact_uses["now"]:
            _exact_settings.enter_context(_exact_products())
            _exact_settings.enter_context(_exact_convolutions())
        _exact_uses["now"] += 1
    try:
        yield
    finally:
        with _exact_lock:
            _exact_uses["now"] -= 1
            if not _exact_uses["now"]:
                _exact_settings.close()


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    products: Any = torch.backends.cuda.matmul  # whose attributes mypy does not see
    if products.fp32_precision != "tf32":
        yield
        return
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision = "none"  # which follows a setting for all of PyTorch
        if products.fp32_precision != "tf32":
            products.fp32_precision = "tf32"


@contextlib.contextmanager
def _exact_convolutions() -> Iterator[None]:
    backends: Any = torch.backends
    cudnn = backends.cudnn
    if cudnn.conv.fp32_precision != "tf32":
        yield
        return
    # A setting for all of cuDNN overrides the default and PyTorch's. We try that first so the
    # default can be restored as a default.
    above, everywhere = cudnn.fp32_precision, backends.fp32_precision
    cudnn.fp32_precision = "ieee"
    pinned = cudnn.conv.fp32_precision == "tf32"
    if pinned:
        cudnn.conv.fp32_precision = "ieee"
    try:
        yield
    finally:
        if pinned:
            cudnn.conv.fp32_precision = "tf32"
        cudnn.fp32_precision = "none" if above == everywhere else above


def to_channels_last(network: nn.Module) -> None:
    """Store convolution weights channels-last, in place; results are unchanged.

    Convolutions then keep activations in this layout, which the backends use natively.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.to(memory_format=torch.channels_last_3d)
