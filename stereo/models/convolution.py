"""Convolutions that are faster than PyTorch's on CPUs, in fp32 and with the channels last.

With AVX2, ``stereo.models.winograd`` halves the multiplications of large 3x3x3 convolutions, and
gradients of weights are matrix products: what oneDNN has for them there is slower than the rest.
Everywhere, single volumes are kept from PyTorch's slow path, and gradients in bf16 from a fault of
oneDNN.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.models.weight_gradient import kernel_gradient
from stereo.models.winograd import convolve_by_planes, weight_gradient_by_planes

FASTER_ON = ("AVX2",)  # where it was measured; for AVX-512 oneDNN has other gradients of weights
FEWEST_CHANNELS = 32  # below which additions take what is saved
FEWEST_VALUES = 2**15  # of a plane
ONEDNN_BLOCK = 16  # channels
_direct = False


@contextlib.contextmanager
def direct_convolutions() -> Iterator[None]:
    """Use PyTorch's convolutions within the block, in all threads, to count operations."""
    global _direct
    before, _direct = _direct, True
    try:
        yield
    finally:
        _direct = before


class Conv2d(nn.Conv2d):
    """``nn.Conv2d``, its 3x3 kernels with a gradient by matrix products."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if (
            not torch.compiler.is_compiling()
            and torch.is_grad_enabled()
            and weight.requires_grad
            and self.kernel_size == (3, 3)
            and self.stride == (1, 1)
            and self.padding == self.dilation
            and min(input.shape[2:]) > self.dilation[0]
            and _may_be_replaced(input, weight, torch.channels_last)
        ):
            return _Convolve2d.apply(input, weight, bias, self.dilation[0])
        if self._gradient_is_wrong(input, weight):
            more = (0, 0, 0, 0, 0, -self.in_channels % ONEDNN_BLOCK)
            input, weight = F.pad(input, more), F.pad(weight, more)
        return super()._conv_forward(input, weight, bias)

    def _gradient_is_wrong(self, x: Tensor, weight: Tensor) -> bool:
        """Return whether oneDNN's gradient of this kernel holds uninitialised memory.

        So it is in PyTorch 2.14 on CPUs with AVX-512 BF16: in bf16, with the channels last, for
        dilated kernels of more than one block of channels, the last one not full.
        """
        return (
            torch.is_grad_enabled()
            and weight.requires_grad
            and x.device.type == "cpu"
            and _dtype(x) is torch.bfloat16
            and max(self.dilation) > 1
            and self.in_channels > ONEDNN_BLOCK
            and self.in_channels % ONEDNN_BLOCK > 0
        )


class Conv3d(nn.Conv3d):
    """``nn.Conv3d``, its large 3x3x3 convolutions by Winograd's algorithm along the planes."""

    def by_planes(self, volume: Tensor) -> bool:
        """Return whether a (B, C, D, H, W) volume is convolved so."""
        return (
            not torch.compiler.is_compiling()
            and self.kernel_size == self.kernel_size[:1] * 3 == (3, 3, 3)
            and self.stride == self.padding == self.dilation == (1, 1, 1)
            and min(self.in_channels, self.out_channels) >= FEWEST_CHANNELS
            and volume[0, :, 0].numel() >= FEWEST_VALUES
            and _may_be_replaced(volume, self.weight, torch.channels_last_3d)
        )

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.compiler.is_compiling():  # asked first: what follows breaks its graph
            return super()._conv_forward(input, weight, bias)
        if not self.by_planes(input):
            if self._gradient_is_wrong(input, weight):
                deeper = F.pad(input, (0, 0, 0, 0, 0, 1))
                return super()._conv_forward(deeper, weight, bias)[:, :, :-1]
            if not _overlooked(input, weight):
                return super()._conv_forward(input, weight, bias)
            return torch.mkldnn_convolution(
                input,
                weight,
                bias,
                self.padding,  # type: ignore[arg-type]  # a text: Conv3d(padding="same")
                self.stride,
                self.dilation,
                self.groups,
            )
        if not torch.is_grad_enabled():
            return convolve_by_planes(input, weight, bias)
        out = _Convolve3d.apply(input, weight)
        return out if bias is None else out + bias.view(-1, 1, 1, 1)

    def _gradient_is_wrong(self, volume: Tensor, weight: Tensor) -> bool:
        """Return whether oneDNN's gradient of this kernel holds uninitialised memory.

        So it is in PyTorch 2.14 on CPUs with AVX-512 BF16: in bf16, for volumes two planes deep.
        """
        return (
            torch.is_grad_enabled()
            and weight.requires_grad
            and volume.device.type == "cpu"
            and _dtype(volume) is torch.bfloat16
            and (self.kernel_size[0], self.padding[0], self.stride[0]) == (3, 1, 1)
            and volume.shape[2] == 2
        )


class ConvTranspose3d(nn.ConvTranspose3d):
    """``nn.ConvTranspose3d``, which oneDNN computes for a single volume too."""

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Convolve; see ``nn.ConvTranspose3d``."""
        compiling = torch.compiler.is_compiling()
        if compiling or output_size is not None or not _overlooked(input, self.weight):
            return super().forward(input, output_size)
        return torch.ops.mkldnn._convolution_transpose_pointwise(
            input, self.weight, self.bias, self.padding, self.output_padding, self.stride,
            self.dilation, self.groups, "none", [], "",
        )  # fmt: skip


def _overlooked(volume: Tensor, weight: Tensor) -> bool:
    """Return whether PyTorch would take its slow path, if no gradients are needed.

    It leaves small inputs to it, and takes a single volume for an image: it counts B, C, D and H.
    """
    return (
        not torch.is_grad_enabled()
        and volume.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and _is_prepared(volume, weight, torch.channels_last_3d)
    )


def _is_prepared(x: Tensor, weight: Tensor, layout: torch.memory_format) -> bool:
    """Return whether a convolution runs on a CPU in fp32 (fp64 in tests), laid out to be fast."""
    return (
        not _direct
        and x.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and weight.is_contiguous(memory_format=layout)
        and not weight.is_contiguous()
    )


def _dtype(x: Tensor) -> torch.dtype:
    """Return what a convolution of a CPU's tensor computes in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _may_be_replaced(x: Tensor, weight: Tensor, layout: torch.memory_format) -> bool:
    """Return whether this file's implementations are faster here."""
    here = torch.backends.cpu.get_cpu_capability()
    return here in FASTER_ON and _is_prepared(x, weight, layout)


def first_derivatives_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make the backward pass of an autograd function refuse ``create_graph``.

    PyTorch's ``once_differentiable`` refuses only where the incoming gradient has one itself: else
    second derivatives would be left out without a word.
    """

    @functools.wraps(backward)
    def call(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "this fast form has no second derivatives (create_graph): compute them under "
                "stereo.models.convolution.direct_convolutions(), with the kernels 'torch'"
            )
        return backward(ctx, *gradients)

    return call


class _Convolve2d(torch.autograd.Function):
    """A 3x3 convolution whose padding is its dilation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        into_x = None
        if ctx.needs_input_grad[0]:
            around = [ctx.dilation] * 2
            into_x = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, [1, 1], around, around, False, [0, 0], 1,
                [True, False, False],
            )[0]  # fmt: skip
        into_bias = gradient.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        return into_x, kernel_gradient(x, gradient, ctx.dilation), into_bias, None


class _Convolve3d(torch.autograd.Function):
    """A 3x3x3 convolution with padding 1."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(volume, weight)
        return convolve_by_planes(volume, weight)

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, gradient: Tensor) -> Any:
        volume, weight = ctx.saved_tensors
        into_volume = None
        if ctx.needs_input_grad[0]:
            mirrored = weight.flip(2, 3, 4).transpose(0, 1)
            into_volume = convolve_by_planes(gradient, mirrored)
        return into_volume, weight_gradient_by_planes(volume, gradient)
