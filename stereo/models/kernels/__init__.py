"""GPU kernels in Triton, each beside a plain PyTorch form of the same signature elsewhere."""

import importlib.util
from typing import get_args

import torch
from torch import nn

from stereo.attention import VolumeAttention
from stereo.errors import UsageError, unknown_name
from stereo.models.psmnet import PSMNet
from stereo.system.compute import Kernels


def pick_kernels(name: str, device: torch.device) -> str:
    """Resolve ``auto`` to ``torch``: what the Triton kernels gain has not been measured.

    Raises:
        UsageError: an unknown name, or ``triton`` where it cannot run.
    """
    if name not in get_args(Kernels):
        raise unknown_name("kernels", name, get_args(Kernels))
    installed = importlib.util.find_spec("triton") is not None
    there = device.type == "cuda" and torch.version.hip is None and installed
    if name == "auto":
        return "torch"
    if name == "triton" and not there:
        missing = "the package triton" if device.type == "cuda" else f"not '{device.type}'"
        raise UsageError(f"kernels 'triton' need an NVIDIA GPU, {missing}; use --kernels torch")
    return name


def use_kernels(network: nn.Module, name: str) -> None:
    """Let a network compute regression and streaming attention by kernels, in place."""
    if name == "torch":
        return
    from stereo.models.kernels.attention import attend
    from stereo.models.kernels.regression import regress_disparity

    for module in network.modules():
        if isinstance(module, PSMNet):
            module.regress = regress_disparity
        elif isinstance(module, VolumeAttention) and module.streams:
            module.fused = attend
