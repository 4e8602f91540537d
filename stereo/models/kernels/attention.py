"""Efficient attention in a few kernels that read the volume and write it, and hold nothing else.

As in ``EfficientAttention.table``, the shares of the positions gather the volume itself, mean_k =
sum_n s_kn x_n with s = softmax over n of W_k x_n + b_k, and values and reprojection become a table
T of one row per key channel: out_n = x_n + b + sum_k q_nk T_k. Queries, keys and values of all
positions never exist, in the backward pass neither: each block of positions computes its logits
anew. Sums are made per program and then in a fixed order, so that results repeat.
"""

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from stereo.attention.efficient import EfficientAttention

CELLS = 64  # positions of a block
PROGRAMS = 512  # that share the positions of one volume where they sum
LOWEST = -3.0e38


@triton.jit
def _places(at, channel, cell_stride, channel_stride):
    """Return where (CELLS, channels) values lie; a volume's offsets do not fit 32 bits."""
    return at[:, None].to(tl.int64) * cell_stride + channel[None, :].to(tl.int64) * channel_stride


@triton.jit
def _block(volume, at, kept, channel, channels, cell_stride, channel_stride):
    """Load positions of a volume as float32 rows, (CELLS, channels); zero where not kept."""
    inside = kept[:, None] & (channel < channels)[None, :]
    place = _places(at, channel, cell_stride, channel_stride)
    return tl.load(volume + place, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _matrix(matrix, first, row, rows, column, columns):
    """Load rows of a contiguous float32 matrix; zero outside."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(matrix + (first + row)[:, None] * columns + column[None, :], inside, other=0.0)


@triton.jit
def _kept(mask, batch, at, cells, MASKED: tl.constexpr):
    inside = at < cells
    if MASKED:
        inside = inside & (tl.load(mask + batch * cells + at, mask=inside, other=0) != 0)
    return inside


@triton.jit
def _gather(
    volume,
    mask,
    weight,  # (K, C)
    bias,  # (K,)
    largest_out,  # (B, programs, K)
    total_out,  # (B, programs, K)
    mean_out,  # (B, programs, K, C): not divided by the total yet
    cells,
    batch_stride,
    channel_stride,
    cell_stride,
    temperature,
    lowest,
    keys,
    channels,
    MASKED: tl.constexpr,
    KEYS: tl.constexpr,
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,
):
    program, programs = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    batch = tl.program_id(1).to(tl.int64)
    key, channel = tl.arange(0, KEYS), tl.arange(0, CHANNELS)
    matrix = _matrix(weight, 0, key, keys, channel, channels) * temperature
    offset = tl.load(bias + key, mask=key < keys, other=0.0) * temperature
    largest = tl.zeros((KEYS,), tl.float32) + lowest
    total = tl.zeros((KEYS,), tl.float32)
    gathered = tl.zeros((KEYS, CHANNELS), tl.float32)
    for start in range(program * CELLS, cells, programs * CELLS):
        at = start + tl.arange(0, CELLS)
        kept = _kept(mask, batch, at, cells, MASKED)
        own = volume + batch * batch_stride
        rows = _block(own, at, kept, channel, channels, cell_stride, channel_stride)
        logits = tl.dot(matrix, tl.trans(rows), input_precision="ieee") + offset[:, None]
        logits = tl.where(kept[None, :], logits, float("-inf"))
        so_far = largest
        largest = tl.maximum(largest, tl.max(logits, axis=1))
        shares = tl.exp(logits - largest[:, None])
        fade = tl.exp(so_far - largest)
        total = total * fade + tl.sum(shares, axis=1)
        gathered = gathered * fade[:, None] + tl.dot(shares, rows, input_precision="ieee")
    place = batch * programs + program
    tl.store(largest_out + place * keys + key, largest, mask=key < keys)
    tl.store(total_out + place * keys + key, total, mask=key < keys)
    inside = (key < keys)[:, None] & (channel < channels)[None, :]
    spot = (place * keys + key)[:, None] * channels + channel[None, :]
    tl.store(mean_out + spot, gathered, mask=inside)


@triton.jit
def _gather_backward(
    volume,
    mask,
    weight,  # (K, C)
    bias,  # (K,)
    largest,  # (B, K)
    total,  # (B, K)
    slope,  # (B, K, C), of the mean
    level,  # (B, K): the slope times the mean
    into,  # like the volume
    weight_out,  # (B, programs, K, C)
    bias_out,  # (B, programs, K)
    cells,
    batch_stride,
    channel_stride,
    cell_stride,
    temperature,
    keys,
    channels,
    MASKED: tl.constexpr,
    KEYS: tl.constexpr,
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,
):
    program, programs = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    batch = tl.program_id(1).to(tl.int64)
    key, channel = tl.arange(0, KEYS), tl.arange(0, CHANNELS)
    matrix = _matrix(weight, 0, key, keys, channel, channels) * temperature
    offset = tl.load(bias + key, mask=key < keys, other=0.0) * temperature
    outer = _matrix(slope + batch * keys * channels, 0, key, keys, channel, channels)
    at_most = tl.load(largest + batch * keys + key, mask=key < keys, other=0.0)
    mass = tl.load(total + batch * keys + key, mask=key < keys, other=0.0)
    middle = tl.load(level + batch * keys + key, mask=key < keys, other=0.0)
    scale = tl.where(mass > 0, 1.0 / tl.where(mass > 0, mass, 1.0), 0.0)
    of_weight = tl.zeros((KEYS, CHANNELS), tl.float32)
    of_bias = tl.zeros((KEYS,), tl.float32)
    for start in range(program * CELLS, cells, programs * CELLS):
        at = start + tl.arange(0, CELLS)
        kept = _kept(mask, batch, at, cells, MASKED)
        own = volume + batch * batch_stride
        rows = _block(own, at, kept, channel, channels, cell_stride, channel_stride)
        logits = tl.dot(matrix, tl.trans(rows), input_precision="ieee") + offset[:, None]
        shares = tl.exp(logits - at_most[:, None]) * scale[:, None]
        shares = tl.where(kept[None, :], shares, 0.0)
        pull = tl.dot(outer, tl.trans(rows), input_precision="ieee") - middle[:, None]
        of_logits = shares * pull
        back = tl.dot(tl.trans(shares), outer, input_precision="ieee")
        back += tl.dot(tl.trans(of_logits), matrix, input_precision="ieee")
        inside = (at < cells)[:, None] & (channel < channels)[None, :]
        place = _places(at, channel, cell_stride, channel_stride)
        back = tl.where(kept[:, None], back, 0.0)
        tl.store(into + batch * batch_stride + place, back, mask=inside)
        of_weight += tl.dot(of_logits, rows, input_precision="ieee")
        of_bias += tl.sum(of_logits, axis=1)
    place = batch * programs + program
    tl.store(bias_out + place * keys + key, of_bias * temperature, mask=key < keys)
    inside = (key < keys)[:, None] & (channel < channels)[None, :]
    spot = (place * keys + key)[:, None] * channels + channel[None, :]
    tl.store(weight_out + spot, of_weight * temperature, mask=inside)


@triton.jit
def _shares(rows, weight, bias, head, key, keys, channel, channels, temperature):
    """Return the queries of one head under their softmax, (CELLS, KEYS), and the head's matrix."""
    matrix = _matrix(weight, head * keys, key, keys, channel, channels) * temperature
    offset = tl.load(bias + head * keys + key, mask=key < keys, other=0.0) * temperature
    logits = tl.dot(rows, tl.trans(matrix), input_precision="ieee") + offset[None, :]
    logits = tl.where((key < keys)[None, :], logits, float("-inf"))
    shares = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    return shares / tl.sum(shares, axis=1)[:, None], matrix


@triton.jit
def _give(
    volume,
    weight,  # (heads K, C)
    bias,  # (heads K,)
    table,  # (B, heads K, C)
    last,  # (C,)
    out,  # like the volume
    cells,
    batch_stride,
    channel_stride,
    cell_stride,
    temperature,
    keys,
    channels,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    key, channel = tl.arange(0, KEYS), tl.arange(0, CHANNELS)
    at = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    inside = at < cells
    own = volume + batch * batch_stride
    rows = _block(own, at, inside, channel, channels, cell_stride, channel_stride)
    result = rows + tl.load(last + channel, mask=channel < channels, other=0.0)[None, :]
    entries = table + batch * HEADS * keys * channels
    for head in tl.static_range(HEADS):
        shares, _matrix_of_head = _shares(
            rows, weight, bias, head, key, keys, channel, channels, temperature
        )
        given = _matrix(entries, head * keys, key, keys, channel, channels)
        result += tl.dot(shares, given, input_precision="ieee")
    place = _places(at, channel, cell_stride, channel_stride)
    written = inside[:, None] & (channel < channels)[None, :]
    tl.store(out + batch * batch_stride + place, result, mask=written)


@triton.jit
def _give_backward_volume(
    volume,
    slope,  # like the volume, of the output
    weight,
    bias,
    table,
    into,  # like the volume
    cells,
    batch_stride,
    channel_stride,
    cell_stride,
    temperature,
    keys,
    channels,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    key, channel = tl.arange(0, KEYS), tl.arange(0, CHANNELS)
    at = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    inside = at < cells
    own, outer = volume + batch * batch_stride, slope + batch * batch_stride
    rows = _block(own, at, inside, channel, channels, cell_stride, channel_stride)
    above = _block(outer, at, inside, channel, channels, cell_stride, channel_stride)
    result = above
    entries = table + batch * HEADS * keys * channels
    for head in tl.static_range(HEADS):
        shares, matrix = _shares(
            rows, weight, bias, head, key, keys, channel, channels, temperature
        )
        given = _matrix(entries, head * keys, key, keys, channel, channels)
        pull = tl.dot(above, tl.trans(given), input_precision="ieee")
        of_logits = shares * (pull - tl.sum(shares * pull, axis=1)[:, None])
        result += tl.dot(of_logits, matrix, input_precision="ieee")
    place = _places(at, channel, cell_stride, channel_stride)
    written = inside[:, None] & (channel < channels)[None, :]
    tl.store(into + batch * batch_stride + place, result, mask=written)


@triton.jit
def _give_backward_weights(
    volume,
    slope,
    weight,
    bias,
    table,
    weight_out,  # (B, programs, heads K, C)
    bias_out,  # (B, programs, heads K)
    table_out,  # (B, programs, heads K, C)
    cells,
    batch_stride,
    channel_stride,
    cell_stride,
    temperature,
    keys,
    channels,
    KEYS: tl.constexpr,
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,
):
    program, programs = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    batch = tl.program_id(1).to(tl.int64)
    head, heads = tl.program_id(2), tl.num_programs(2)
    key, channel = tl.arange(0, KEYS), tl.arange(0, CHANNELS)
    entries = table + batch * heads * keys * channels
    given = _matrix(entries, head * keys, key, keys, channel, channels)
    of_weight = tl.zeros((KEYS, CHANNELS), tl.float32)
    of_table = tl.zeros((KEYS, CHANNELS), tl.float32)
    of_bias = tl.zeros((KEYS,), tl.float32)
    own, outer = volume + batch * batch_stride, slope + batch * batch_stride
    for start in range(program * CELLS, cells, programs * CELLS):
        at = start + tl.arange(0, CELLS)
        inside = at < cells
        rows = _block(own, at, inside, channel, channels, cell_stride, channel_stride)
        above = _block(outer, at, inside, channel, channels, cell_stride, channel_stride)
        shares, _matrix_of_head = _shares(
            rows, weight, bias, head, key, keys, channel, channels, temperature
        )
        pull = tl.dot(above, tl.trans(given), input_precision="ieee")
        of_logits = shares * (pull - tl.sum(shares * pull, axis=1)[:, None])
        # Positions outside have rows and slopes of zero, and so no part in any sum.
        of_weight += tl.dot(tl.trans(of_logits), rows, input_precision="ieee")
        of_table += tl.dot(tl.trans(shares), above, input_precision="ieee")
        of_bias += tl.sum(of_logits, axis=0)
    place = ((batch * programs + program) * heads + head) * keys + key
    tl.store(bias_out + place, of_bias * temperature, mask=key < keys)
    written = (key < keys)[:, None] & (channel < channels)[None, :]
    spot = place[:, None] * channels + channel[None, :]
    tl.store(weight_out + spot, of_weight * temperature, mask=written)
    tl.store(table_out + spot, of_table, mask=written)


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


class _Mean(torch.autograd.Function):
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
        _gather[(programs, own.batch)](
            *(own.tensor, own.tensor if mask is None else mask, weight, bias),
            *(largest, total, sums, own.cells, *own.strides),
            *(temperature, LOWEST, keys, own.channels),
            MASKED=mask is not None,
            KEYS=_padded(keys),
            CHANNELS=_padded(own.channels),
            CELLS=CELLS,
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
        _gather_backward[(programs, own.batch)](
            *(own.tensor, own.tensor if ctx.mask is None else ctx.mask, weight, bias),
            *(most, mass, slope, level, into, of_weight, of_bias, own.cells, *own.strides),
            *(ctx.temperature, keys, own.channels),
            MASKED=ctx.mask is not None,
            KEYS=_padded(keys),
            CHANNELS=_padded(own.channels),
            CELLS=CELLS,
        )
        return into, of_weight.sum(dim=(0, 1)), of_bias.sum(dim=(0, 1)), None, None


class _Give(torch.autograd.Function):
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
        _give[(own.blocks(), own.batch)](
            *(own.tensor, weight, bias, table, last, out, own.cells, *own.strides),
            *(temperature, keys, own.channels),
            HEADS=heads,
            KEYS=_padded(keys),
            CHANNELS=_padded(own.channels),
            CELLS=CELLS,
        )
        ctx.save_for_backward(own.tensor, weight, bias, table)
        ctx.heads, ctx.temperature = heads, temperature
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        volume, weight, bias, table = ctx.saved_tensors
        own = _Volume(volume)
        slope = gradients[0].contiguous(memory_format=own.layout)
        keys, programs = len(weight) // ctx.heads, own.programs()
        into = torch.empty_like(own.tensor, memory_format=own.layout)
        sizes = {"KEYS": _padded(keys), "CHANNELS": _padded(own.channels), "CELLS": CELLS}
        _give_backward_volume[(own.blocks(), own.batch)](
            *(own.tensor, slope, weight, bias, table, into, own.cells, *own.strides),
            *(ctx.temperature, keys, own.channels),
            HEADS=ctx.heads,
            **sizes,
        )
        shape = (own.batch, programs, len(weight))
        of_bias = torch.empty(shape, device=volume.device, dtype=torch.float32)
        of_weight = torch.empty((*shape, own.channels), device=volume.device, dtype=torch.float32)
        of_table = torch.empty_like(of_weight)
        _give_backward_weights[(programs, own.batch, ctx.heads)](
            *(own.tensor, slope, weight, bias, table, of_weight, of_bias, of_table),
            *(own.cells, *own.strides, ctx.temperature, keys, own.channels),
            **sizes,
        )
        of_last = slope.sum(dim=(0, 2, 3, 4), dtype=torch.float32)
        parts = of_weight.sum(dim=(0, 1)), of_bias.sum(dim=(0, 1)), of_table.sum(dim=1), of_last
        return into, *parts, None, None


def attend(attention: "EfficientAttention", volume: Tensor, mask: Tensor | None) -> Tensor:
    """Do what ``attention(volume, mask)`` does, in float32, on a GPU.

    Args:
        attention: efficient attention with softmax normalisation.
        volume: (B, C, D, H, W), float32, bfloat16 or float16.
        mask: (B, 1, D, H, W) bool, true where a cell may serve as a key; None for all.
    """
    with torch.autocast(volume.device.type, enabled=False):
        dtype = torch.float32
        queries, keys, values, back = attention.matrices(dtype)
        kept = None if mask is None else mask.contiguous().view(torch.uint8)
        mean, mass = _Mean.apply(
            volume, keys[0].contiguous(), keys[1].contiguous(), kept, attention.temperature
        )
        table = attention.table(mean, mass, values, back)
        return _Give.apply(
            volume,
            queries[0].contiguous(),
            queries[1].contiguous(),
            table.contiguous(),
            back[1].contiguous(),
            attention.heads,
            attention.temperature,
        )
