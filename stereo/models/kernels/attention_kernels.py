"""The Triton kernels of efficient attention; ``attention.py`` launches them.

``accumulate`` sums positions under the softmax of each key channel, ``apply`` adds to each position
the table's rows under the softmax of its queries. Volumes are addressed as (B, C, cells), by their
strides.
"""

import triton
import triton.language as tl


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
def accumulate(
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
    """Sum positions under the softmax of each key channel, one partial sum per program."""
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
def accumulate_backward(
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
    """Return the gradients of the volume, and per program those of weight and bias."""
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
def apply(
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
    """Add to each position the table's rows under the softmax of its queries, and ``last``."""
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
def apply_backward_volume(
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
    """Return the gradient of the volume."""
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
def apply_backward_weights(
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
    """Return per program the gradients of weight, bias and table."""
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
