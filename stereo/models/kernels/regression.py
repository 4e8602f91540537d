"""Regression in one kernel: trilinear interpolation, softmax and mean, candidate by candidate.

Nothing of full resolution but the map exists, and in training one more value per pixel, the
logarithm of the softmax's denominator. The backward pass gathers: each cell of the volume adds up
what the pixels around it give, in an order that is always the same.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from stereo.models.config import Upsampling
from stereo.models.convolution import first_derivatives_only
from stereo.models.regression import sample_positions

PIXELS = 64  # of a row, per program


@triton.jit
def _logit(volume, plane, row0, row1, row_part, col0, col1, col_part, inside, columns, cells):
    """Interpolate one plane of the volume (cells = rows * columns) at a row's pixels."""
    base = volume + tl.cast(plane, tl.int64) * cells
    a = tl.load(base + row0 * columns + col0, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(base + row0 * columns + col1, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(base + row1 * columns + col0, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(base + row1 * columns + col1, mask=inside, other=0.0).to(tl.float32)
    upper = a + (b - a) * col_part
    lower = c + (d - c) * col_part
    return upper + (lower - upper) * row_part


@triton.jit
def _forward(
    volume,  # (B, D, rows, columns)
    disparity,  # (B, height, width)
    denominator,  # (B, height, width): log of the sum of exponentials
    row_below,  # (height,) int32
    row_part,  # (height,) float32
    col_below,  # (width,)
    col_part,  # (width,)
    first,  # (D + 1,) int32: the first candidate at or after plane k - 1 and before plane k
    part,  # (K,) float32: where a candidate lies between its planes
    planes,
    rows,
    columns,
    height,
    width,
    PIXELS: tl.constexpr,
):
    y = tl.program_id(1)
    batch = tl.program_id(2)
    x = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    inside = x < width
    row0 = tl.load(row_below + y)
    row1 = tl.minimum(row0 + 1, rows - 1)
    dy = tl.load(row_part + y)
    col0 = tl.load(col_below + x, mask=inside, other=0)
    col1 = tl.minimum(col0 + 1, columns - 1)
    dx = tl.load(col_part + x, mask=inside, other=0.0)
    cells = rows * columns
    own = volume + batch.to(tl.int64) * planes * cells
    largest = tl.full((PIXELS,), float("-inf"), tl.float32)
    total = tl.zeros((PIXELS,), tl.float32)
    moment = tl.zeros((PIXELS,), tl.float32)
    near = _logit(own, 0, row0, row1, dy, col0, col1, dx, inside, columns, cells)
    for plane in range(1, planes + 1):
        above = tl.minimum(plane, planes - 1)
        far = _logit(own, above, row0, row1, dy, col0, col1, dx, inside, columns, cells)
        for candidate in range(tl.load(first + plane - 1), tl.load(first + plane)):
            logit = near + (far - near) * tl.load(part + candidate)
            higher = tl.maximum(largest, logit)
            fade = tl.exp(largest - higher)
            weight = tl.exp(logit - higher)
            total = total * fade + weight
            moment = moment * fade + weight * candidate
            largest = higher
        near = far
    place = (batch.to(tl.int64) * height + y) * width + x
    tl.store(disparity + place, moment / total, mask=inside)
    tl.store(denominator + place, largest + tl.log(total), mask=inside)


@triton.jit
def _backward(
    volume,  # (B, D, rows, columns)
    disparity,  # (B, height, width)
    denominator,  # (B, height, width)
    gradient,  # (B, height, width), of the disparity
    into,  # (B, D, rows, columns)
    row_first,  # (rows,) int32: the first pixel row that a row of cells has a part in
    col_first,  # (columns,)
    row_below,
    row_part,
    col_below,
    col_part,
    first,
    part,
    planes,
    rows,
    columns,
    height,
    width,
    CELLS: tl.constexpr,
    AROUND: tl.constexpr,
):
    row = tl.program_id(1)
    plane = tl.program_id(2) % planes
    batch = tl.program_id(2) // planes
    column = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    there = column < columns
    cells = rows * columns
    own = volume + batch.to(tl.int64) * planes * cells
    below = tl.maximum(plane - 1, 0)
    above = tl.minimum(plane + 1, planes - 1)
    total = tl.zeros((CELLS,), tl.float32)
    y0 = tl.load(row_first + row)
    x0 = tl.load(col_first + column, mask=there, other=0)
    for step in range(AROUND * AROUND):
        y = y0 + step // AROUND
        x = x0 + step % AROUND
        inside = there & (x < width) & (y + 0 * x < height)
        y_safe = tl.minimum(y, height - 1)
        row0 = tl.load(row_below + y_safe)
        row1 = tl.minimum(row0 + 1, rows - 1)
        dy = tl.load(row_part + y_safe)
        col0 = tl.load(col_below + x, mask=inside, other=0)
        col1 = tl.minimum(col0 + 1, columns - 1)
        dx = tl.load(col_part + x, mask=inside, other=0.0)
        # Both where the last cell is its own neighbour.
        of_row = tl.where(row0 == row, 1.0 - dy, 0.0) + tl.where(row1 == row, dy, 0.0)
        of_col = tl.where(col0 == column, 1.0 - dx, 0.0) + tl.where(col1 == column, dx, 0.0)
        place = (batch.to(tl.int64) * height + y_safe) * width + x
        mean = tl.load(disparity + place, mask=inside, other=0.0)
        sum_of = tl.load(denominator + place, mask=inside, other=0.0)
        outer = tl.load(gradient + place, mask=inside, other=0.0)
        low = _logit(own, below, row0, row1, dy, col0, col1, dx, inside, columns, cells)
        mid = _logit(own, plane, row0, row1, dy, col0, col1, dx, inside, columns, cells)
        high = _logit(own, above, row0, row1, dy, col0, col1, dx, inside, columns, cells)
        slope = tl.zeros((CELLS,), tl.float32)
        if plane > 0:
            for candidate in range(tl.load(first + plane - 1), tl.load(first + plane)):
                t = tl.load(part + candidate)
                share = tl.exp(low + (mid - low) * t - sum_of)
                slope += t * share * (candidate - mean)
        for candidate in range(tl.load(first + plane), tl.load(first + plane + 1)):
            t = tl.load(part + candidate)
            share = tl.exp(mid + (high - mid) * t - sum_of)
            ours = tl.where(plane == planes - 1, 1.0, 1.0 - t)
            slope += ours * share * (candidate - mean)
        total += tl.where(inside, of_row * of_col * outer * slope, 0.0)
    place = ((batch.to(tl.int64) * planes + plane) * rows + row) * columns + column
    tl.store(into + place, total, mask=there)


class _Regress(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, upsampling: Upsampling) -> Tensor:
        logits = logits.contiguous()
        batch, planes, rows, columns = logits.shape
        tables, around = _tables(planes, rows, columns, upsampling, logits.device)
        height, width = len(tables["row_below"]), len(tables["col_below"])
        shape = (batch, height, width)
        disparity = torch.empty(shape, device=logits.device, dtype=torch.float32)
        denominator = torch.empty_like(disparity)
        _forward[(triton.cdiv(width, PIXELS), height, batch)](
            logits,
            disparity,
            denominator,
            *(tables[n] for n in ("row_below", "row_part", "col_below", "col_part")),
            *(tables[n] for n in ("first", "part")),
            *(planes, rows, columns, height, width),
            PIXELS=PIXELS,
        )
        ctx.save_for_backward(logits, disparity, denominator)
        ctx.tables, ctx.around = tables, around
        return disparity

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        logits, disparity, denominator = ctx.saved_tensors
        batch, planes, rows, columns = logits.shape
        height, width = disparity.shape[1:]
        into = torch.empty(logits.shape, device=logits.device, dtype=torch.float32)
        names = ("row_first", "col_first", "row_below", "row_part", "col_below", "col_part")
        _backward[(triton.cdiv(columns, PIXELS), rows, batch * planes)](
            *(logits, disparity, denominator, gradients[0].contiguous(), into),
            *(ctx.tables[name] for name in (*names, "first", "part")),
            *(planes, rows, columns, height, width),
            CELLS=PIXELS,
            AROUND=ctx.around,
        )
        return into.to(logits.dtype), None


def regress_disparity(
    logits: Tensor,  # (B, D, H / 4, W / 4)
    upsampling: Upsampling,
) -> Tensor:  # (B, H, W) float32, pixels
    """As ``stereo.models.regression.regress_disparity``, in float32, on a GPU.

    Args:
        logits: float32, bfloat16 or float16, one per cell of the volume.
        upsampling: where plane k and sample i lie at full resolution.
    """
    with torch.cuda.device_of(logits):  # Triton launches on the current device
        return _Regress.apply(logits, upsampling)


def _tables(
    planes: int, rows: int, columns: int, upsampling: Upsampling, device: torch.device
) -> tuple[dict[str, Tensor], int]:
    """Return where pixels lie between cells, and candidates between planes.

    With them, the largest number of pixels along an axis that a cell has a part in.
    """
    tables: dict[str, Tensor] = {}
    around = 1
    for axis, size in (("row", rows), ("col", columns)):
        at = sample_positions(size, upsampling)
        below = at.long()
        cell = torch.arange(size)
        tables[f"{axis}_below"] = below.int()
        tables[f"{axis}_part"] = (at - below).float()
        has_part = (at[None] - cell[:, None]).abs() < 1  # (size, pixels)
        tables[f"{axis}_first"] = has_part.int().argmax(dim=1).int()
        around = max(around, int(has_part.sum(dim=1).max()))
    at = sample_positions(planes, upsampling, past_last=upsampling != "unbiased")
    below = at.long()
    # Candidates of [k, k + 1) stand at first[k] to first[k + 1] - 1.
    tables["first"] = torch.searchsorted(below, torch.arange(planes + 1)).int()
    tables["part"] = (at - below).float()
    return {name: table.to(device) for name, table in tables.items()}, around
