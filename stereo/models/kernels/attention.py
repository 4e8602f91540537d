"""Efficient attention in a few kernels that hold nothing but the volume.

As in ``EfficientAttention.table``, the softmax of each key channel over the positions averages the
volume itself, mean_k = sum_n s_kn x_n with s = softmax over n of W_k x_n + b_k, and values and
reprojection become a table T of one row per key channel: out_n = x_n + b + sum_k q_nk T_k. Queries,
keys and values of all positions never exist, not even in the backward pass: each block of positions
computes its logits anew. Sums are made per program and then in a fixed order, so that results
repeat.
"""

from typing import TYPE_CHECKING, Any

import torch
import triton
from torch import Tensor

from stereo.models.convolution import first_derivatives_only
from stereo.models.kernels.attention_kernels import (
    accumulate,
    accumulate_backward,
    apply,
    apply_backward_volume,
    apply_backward_weights,
)

if TYPE_CHECKING:
    from stereo.attention.efficient import EfficientAttention

# With 64 and 4 warps, sm_90's registers spill up to 12 kB a thread; so, 152 bytes at most (ptxas).
CELLS, WARPS = 32, 8  # positions of a block
PROGRAMS = 512  # that share the positions of one volume where they sum
LOWEST = -3.0e38


class _Volume:
    """A (B, C, D, H, W) volume as the kernels address it: positions in one row, any layout."""

    def __init__(self, volume: Tensor) -> None:
        last = volume.is_contiguous(memory_format=torch.channels_last_3d)
        layout = torch.channels_last_3d if last else torch.contiguous_format
        self.tensor = volume.contiguous(memory_format=layout)
        self.batch, self.channels = volume.shape[:2]
        self.cells = volume[0, 0].numel()
        # Not the tensor's own strides, which mean nothing along axes of length 1.
        of_channel, of_cell = (1, self.channels) if last else (self.cells, 1)
        self.strides = (self.channels * self.cells, of_channel, of_cell)
        self.layout = layout

    def blocks(self) -> int:
        return triton.cdiv(self.cells, CELLS)

    def programs(self) -> int:
        return min(self.blocks(), PROGRAMS)


def _padded(count: int) -> int:
    """Return the power of two, of at least 16, that matrix products in kernels want."""
    return max(16, triton.next_power_of_2(count))


class _Accumulate(torch.autograd.Function):
    """The mean of the positions under each key channel's softmax over them, and its total."""

    @staticmethod
    def forward(
        ctx: Any,
        volume: Tensor,
        weight: Tensor,
        bias: Tensor,
        mask: Tensor | None,
        temperature: float,
    ) -> Any:
        own = _Volume(volume)
        keys, programs = len(weight), own.programs()
        shape = (own.batch, programs, keys)
        largest = torch.empty(shape, device=volume.device, dtype=torch.float32)
        total = torch.empty_like(largest)
        sums = torch.empty((*shape, own.channels), device=volume.device, dtype=torch.float32)
        accumulate[(programs, own.batch)](
            *(own.tensor, own.tensor if mask is None else mask, weight, bias),
            *(largest, total, sums, own.cells, *own.strides),
            *(temperature, LOWEST, keys, own.channels),
            MASKED=mask is not None,
            KEYS=_padded(keys),
            CHANNELS=_padded(own.channels),
            CELLS=CELLS,
            num_warps=WARPS,
        )
        most = largest.amax(dim=1)  # (B, K)
        fade = torch.exp(largest - most[:, None])
        mass = (total * fade).sum(dim=1)
        mean = (sums * fade[..., None]).sum(dim=1) / torch.where(mass > 0, mass, 1)[..., None]
        ctx.save_for_backward(own.tensor, weight, bias, most, mass, mean)
        ctx.mask, ctx.temperature = mask, temperature
        ctx.mark_non_differentiable(mass)
        return mean, mass

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        volume, weight, bias, most, mass, mean = ctx.saved_tensors
        slope = gradients[0].contiguous()
        own = _Volume(volume)
        keys, programs = len(weight), own.programs()
        into = torch.empty_like(own.tensor, memory_format=own.layout)
        shape = (own.batch, programs, keys)
        of_bias = torch.empty(shape, device=volume.device, dtype=torch.float32)
        of_weight = torch.empty((*shape, own.channels), device=volume.device, dtype=torch.float32)
        level = (slope * mean).sum(dim=2)
        accumulate_backward[(programs, own.batch)](
            *(own.tensor, own.tensor if ctx.mask is None else ctx.mask, weight, bias),
            *(most, mass, slope, level, into, of_weight, of_bias, own.cells, *own.strides),
            *(ctx.temperature, keys, own.channels),
            MASKED=ctx.mask is not None,
            KEYS=_padded(keys),
            CHANNELS=_padded(own.channels),
            CELLS=CELLS,
            num_warps=WARPS,
        )
        return into, of_weight.sum(dim=(0, 1)), of_bias.sum(dim=(0, 1)), None, None


class _Apply(torch.autograd.Function):
    """The volume, plus at each position the table's rows under the softmax of its queries."""

    @staticmethod
    def forward(
        ctx: Any,
        volume: Tensor,
        weight: Tensor,
        bias: Tensor,
        table: Tensor,
        last: Tensor,
        heads: int,
        temperature: float,
    ) -> Tensor:
        own = _Volume(volume)
        out = torch.empty_like(own.tensor, memory_format=own.layout)
        keys = len(weight) // heads
        apply[(own.blocks(), own.batch)](
            *(own.tensor, weight, bias, table, last, out, own.cells, *own.strides),
            *(temperature, keys, own.channels),
            HEADS=heads,
            KEYS=_padded(keys),
            CHANNELS=_padded(own.channels),
            CELLS=CELLS,
            num_warps=WARPS,
        )
        ctx.save_for_backward(own.tensor, weight, bias, table)
        ctx.heads, ctx.temperature = heads, temperature
        return out

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        volume, weight, bias, table = ctx.saved_tensors
        own = _Volume(volume)
        slope = gradients[0].contiguous(memory_format=own.layout)
        keys, programs = len(weight) // ctx.heads, own.programs()
        into = torch.empty_like(own.tensor, memory_format=own.layout)
        sizes = {
            "KEYS": _padded(keys),
            "CHANNELS": _padded(own.channels),
            "CELLS": CELLS,
            "num_warps": WARPS,
        }
        apply_backward_volume[(own.blocks(), own.batch)](
            *(own.tensor, slope, weight, bias, table, into, own.cells, *own.strides),
            *(ctx.temperature, keys, own.channels),
            HEADS=ctx.heads,
            **sizes,
        )
        shape = (own.batch, programs, len(weight))
        of_bias = torch.empty(shape, device=volume.device, dtype=torch.float32)
        of_weight = torch.empty((*shape, own.channels), device=volume.device, dtype=torch.float32)
        of_table = torch.empty_like(of_weight)
        apply_backward_weights[(programs, own.batch, ctx.heads)](
            *(own.tensor, slope, weight, bias, table, of_weight, of_bias, of_table),
            *(own.cells, *own.strides, ctx.temperature, keys, own.channels),
            **sizes,
        )
        of_last = slope.sum(dim=(0, 2, 3, 4), dtype=torch.float32)
        parts = of_weight.sum(dim=(0, 1)), of_bias.sum(dim=(0, 1)), of_table.sum(dim=1), of_last
        return into, *parts, None, None


def attend(attention: "EfficientAttention", volume: Tensor, mask: Tensor | None) -> Tensor:
    """As ``attention(volume, mask)``, in float32, on a GPU.

    Args:
        attention: efficient attention with softmax normalisation.
        volume: (B, C, D, H, W), float32, bfloat16 or float16.
        mask: (B, 1, D, H, W) bool, true where a cell may serve as a key; None for all.
    """
    # Triton launches on the current device, whatever the tensors' own.
    with torch.autocast(volume.device.type, enabled=False), torch.cuda.device_of(volume):
        dtype = torch.float32
        queries, keys, values, back = attention.matrices(dtype)
        kept = None if mask is None else mask.contiguous().view(torch.uint8)
        mean, mass = _Accumulate.apply(
            volume, keys[0].contiguous(), keys[1].contiguous(), kept, attention.temperature
        )
        table = attention.table(mean, mass, values, back)
        return _Apply.apply(
            volume,
            queries[0].contiguous(),
            queries[1].contiguous(),
            table.contiguous(),
            back[1].contiguous(),
            attention.heads,
            attention.temperature,
        )
