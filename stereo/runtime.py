"""Where and how to compute: device and precision."""

import contextlib
import ctypes
import os
from pathlib import Path

import torch
from torch import nn

from stereo.errors import UsageError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of malloc.h
_DEFAULT_THRESHOLD, _DEFAULT_MMAP_MAX = (
    128 * 1024,
    65536,
)  # of malloc.c, as its largest threshold is
_LARGE = 32 * 2**20
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(device: str) -> torch.device:
    """Resolve ``auto`` to CUDA, else MPS, else the CPU.

    Raises:
        UsageError: an unknown device, or one that this machine lacks.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, there in available.items() if there)
    kind = device.split(":")[0]
    if kind not in available:
        raise UsageError(f"unknown device '{device}'; known: auto, cpu, cuda, mps")
    if not available[kind]:
        raise UsageError(f"this machine has no '{kind}' device; use --device cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))  # torchrun's processes have a GPU each
    if device == "cuda" and 0 < local < torch.cuda.device_count():
        device = f"cuda:{local}"
    return torch.device(device)


def pick_dtype(precision: str, device: torch.device, *, bf16_serves: bool = False) -> torch.dtype:
    """Resolve a precision name to the dtype of autocast.

    Args:
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: where to compute.
        bf16_serves: whether ``auto`` may be bf16, which it is where the hardware is fast at it.

    Raises:
        UsageError: an unknown precision, or fp16 on the CPU, which has no fast path for it.
    """
    if precision == "auto":
        return torch.bfloat16 if bf16_serves and fast_at_bf16(device) else torch.float32
    if precision not in _DTYPES:
        raise UsageError(f"unknown precision '{precision}'; known: auto, bf16, fp16, fp32")
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("fp16 needs a GPU; use --precision bf16 or fp32 on the CPU")
    return _DTYPES[precision]


def fast_at_bf16(device: torch.device) -> bool:
    """Tell whether the hardware computes in bf16, not by way of fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":  # PyTorch has no public names for these
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in names)
    return False


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device, within the limits of this process."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil  # comes with accelerate

    free = psutil.virtual_memory().available
    limit, used = (_first_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit is not None and used is not None:  # of a container
        free = min(free, limit - used)
    return max(0, free)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory could not be had, of the CPU or of a GPU."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "memory" in str(error)


def keep_freed_memory(*, large: bool = True) -> None:
    """Let this process's allocator keep what it frees, where that is glibc's; else do nothing.

    Else each tensor of some size is new memory from the system, which it fills with zeros, page by
    page. Training reuses the same sizes step after step, and matching the same for each pair.

    Args:
        large: tensors of more than 32 MiB too. What is kept lies in pieces, so that large ones then
            take more memory than without.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_MAX, 0 if large else _DEFAULT_MMAP_MAX)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Return what is kept to the system; what is freed later is kept again."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def return_freed_memory() -> None:
    """Undo ``keep_freed_memory``: leave thresholds where malloc itself raises them to."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)
    give_back_freed_memory()


def keep_for_matching(device: str, dtype: str) -> None:
    """Keep freed memory as matching on a CPU gains by it; on other devices, do nothing.

    In 16 bits all of it, which is still less than fp32 takes; in fp32 large tensors are returned,
    since they would not fit the gaps that others leave.

    Args:
        device: a device's name.
        dtype: what the network computes in, ``bfloat16`` or another name.
    """
    if device == "cpu":
        keep_freed_memory(large=dtype == "bfloat16")


def _first_number(path: str) -> int | None:
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max": no limit
        return None


def to_channels_last(network: nn.Module) -> None:
    """Store convolution weights with the channels last, in place, and give the same values.

    Convolutions then keep their data in that layout, which the libraries beneath compute in.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.to(memory_format=torch.channels_last_3d)
