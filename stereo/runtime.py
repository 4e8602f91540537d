"""Where and how to compute: device and precision."""

import torch

from stereo.errors import UsageError

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
        return torch.device(next(name for name, there in available.items() if there))
    kind = device.split(":")[0]
    if kind not in available:
        raise UsageError(f"unknown device '{device}'; known: auto, cpu, cuda, mps")
    if not available[kind]:
        raise UsageError(f"this machine has no '{kind}' device; use --device cpu")
    return torch.device(device)


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Resolve a precision name to the dtype of autocast; ``auto`` is fp32.

    Raises:
        UsageError: an unknown precision, or fp16 on the CPU, which has no fast path for it.
    """
    if precision == "auto":
        return torch.float32
    if precision not in _DTYPES:
        raise UsageError(f"unknown precision '{precision}'; known: auto, bf16, fp16, fp32")
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("fp16 needs a GPU; use --precision bf16 or fp32 on the CPU")
    return _DTYPES[precision]


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil  # comes with accelerate

    return psutil.virtual_memory().available
