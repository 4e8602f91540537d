"""Options of computation: ``MatchOptions`` and a recipe's ``trainer`` inherit them."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from stereo.errors import UsageError, unknown_name

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Kernels = Literal["auto", "torch", "triton"]
DEVICES = ("auto", "cpu", "cuda", "cuda:N", "mps")


@dataclass(frozen=True)
class ComputeOptions:
    """Where and how a network computes.

    Raises:
        UsageError: an unknown device, precision or name of kernels.
    """

    device: str = "auto"
    """Where to run: cpu, cuda, cuda:N or mps; auto: cuda if there is a GPU, else cpu."""
    precision: Precision = "auto"
    """Precision of networks; auto: bf16 on hardware that is fast at it, fp32 (never TF32)
    elsewhere and for networks of the ``align_corners`` and ``half_pixel`` conventions."""
    kernels: Kernels = "auto"
    """Kernels of regression and attention; auto: torch; triton: for NVIDIA GPUs."""

    def __post_init__(self) -> None:
        check_device(self.device)
        for name, known in (("precision", get_args(Precision)), ("kernels", get_args(Kernels))):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)


def check_device(device: str) -> None:
    """Raise ``UsageError`` unless it is one of ``DEVICES``, whether or not this machine has it."""
    if not isinstance(device, str):
        raise UsageError(f"device {device!r}: expected a string")
    # The one CPU and the one MPS device have a number where torch or accelerate name them.
    if not re.fullmatch(r"auto|(cpu|mps)(:0)?|cuda(:(0|[1-9][0-9]*))?", device):
        raise unknown_name("device", device, DEVICES)
