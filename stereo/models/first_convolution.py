"""The first 3D convolution over a concatenation volume, without the volume.

A 3x3x3 convolution of left[x] beside right[x - d] is a sum of 2D convolutions of the two views'
features. With W split into the half for either view and e = x - d,

    out[d, x] = sum over kd, kx of  W_l[kd, kx] * left[x + kx - 1]       where e + kx - kd >= 0
              + sum over kd, kx of  W_r[kd, kx] * right[e + kx - kd]     where e + kx - kd >= 0

so the left part is one of five maps in x, by e <= -2, -1, 0, 1 or more, and the right part one map
in e, of a kernel five columns wide. The first and the last plane lack a kd, and the last column a
kx: they have kernels of their own. No term is left out or counted twice: it is exact.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.models.cost_volume import concatenation_volume

BAND = range(
    -2, 3
)  # e at which a cell's left neighbourhood is cut by the edge x = d; 2: not at all
TAPS = (0, 1, 2)


def convolve_volume(
    left: Tensor,  # (B, C, H, W)
    right: Tensor,  # (B, C, H, W)
    planes: int,
    weight: Tensor,  # (O, 2 C, 3, 3, 3)
    bias: Tensor | None = None,  # (O,)
) -> Tensor:  # (B, O, planes, H, W)
    """Convolve the concatenation volume, with padding 1: the definition."""
    return F.conv3d(concatenation_volume(left, right, planes), weight, bias, padding=1)


def convolve_views(
    left: Tensor,  # (B, C, H, W)
    right: Tensor,  # (B, C, H, W)
    planes: int,
    weight: Tensor,  # (O, 2 C, 3, 3, 3)
    bias: Tensor | None = None,  # (O,)
) -> Tensor:  # (B, O, planes, H, W)
    """As ``convolve_volume``, by 2D convolutions.

    At 2C = 64 and O = 32 they take 9 % of its multiplications for 48 planes.
    """
    of_left, of_right = weight.split(left.shape[1], dim=1)
    shifted = F.pad(right, (4, 2))
    kinds: dict[tuple[int, ...], list[int]] = {}
    for d in range(planes):
        kinds.setdefault(tuple(k for k in TAPS if 0 <= d + k - 1 < planes), []).append(d)
    lefts, rights, lasts = [], [], []
    for taps in kinds:
        kernels = torch.cat([_left_kernel(of_left, taps, e) for e in BAND])
        offsets = None if bias is None else bias.repeat(len(BAND))
        lefts.append(F.conv2d(left, kernels, offsets, padding=1))
        kernels = torch.cat([_right_kernel(of_right, taps, TAPS[:last]) for last in (3, 2)])
        inner, last = F.conv2d(shifted, kernels, padding=(1, 0)).chunk(2, dim=1)
        rights.append(inner)
        lasts.append(last)
    layout = _Layout(planes, tuple(tuple(each) for each in kinds.values()), bias is not None)
    if bias is None:
        bias = left.new_zeros(0)
    return _Assemble.apply(layout, bias.to(lefts[0].dtype), *lefts, *rights, *lasts)


def _left_kernel(weight: Tensor, taps: Sequence[int], e: int) -> Tensor:  # (O, C, 3, 3)
    """Sum over the disparity taps those columns whose cell lies at x >= d."""
    columns = []
    for kx in TAPS:
        there = [weight[:, :, kd, :, kx] for kd in taps if e + kx - kd >= 0]
        columns.append(sum(there) if there else torch.zeros_like(weight[:, :, 0, :, 0]))
    return torch.stack(columns, dim=3)  # type: ignore[arg-type]


def _right_kernel(weight: Tensor, taps: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Sum the taps by their column in the right view; (O, C, 3, 5)."""
    sums: list[Any] = [torch.zeros_like(weight[:, :, 0, :, 0])] * 5
    for kd in taps:
        for kx in columns:
            sums[kx - kd + 2] = sums[kx - kd + 2] + weight[:, :, kd, :, kx]
    return torch.stack(sums, dim=3)


class _Layout(NamedTuple):
    """Which planes are made of which maps.

    Attributes:
        planes: D.
        kinds: the planes of each kind; a kind has maps of its own.
        biased: whether cells far outside (x < d - 2) hold a bias.
    """

    planes: int
    kinds: tuple[tuple[int, ...], ...]
    biased: bool


class _Assemble(torch.autograd.Function):
    """Add left maps in x and right maps in x - d to a volume.

    Per kind of plane: a left map (B, 5 O, H, W), for e of ``BAND``; a right map (B, O, H, W + 2),
    from x - d = -2 on; and the same for the last column.
    """

    @staticmethod
    def forward(ctx: Any, layout: _Layout, bias: Tensor, *maps: Tensor) -> Tensor:
        kinds = len(layout.kinds)
        lefts, rights, lasts = maps[:kinds], maps[kinds : 2 * kinds], maps[2 * kinds :]
        batch, channels, height, width = rights[0].shape
        width -= 2
        shape = (batch, channels, layout.planes, height, width)
        channels_last = rights[0].stride(1) == 1 < channels
        out = torch.empty(
            shape,
            dtype=rights[0].dtype,
            device=rights[0].device,
            memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format,
        )
        for planes, left, right, last in zip(layout.kinds, lefts, rights, lasts, strict=True):
            cut = left.unflatten(1, (len(BAND), channels)).unbind(1)
            for d in planes:
                plane = out[:, :, d]
                outside = max(d - 2, 0)
                if layout.biased:
                    plane[..., :outside] = bias.view(-1, 1, 1)
                else:
                    plane[..., :outside] = 0
                for x, e in _band(d, width):
                    plane[..., x] = cut[e + 2][..., x] + right[..., e + 2]
                if d + 2 < width:
                    torch.add(
                        cut[4][..., d + 2 :], right[..., 4 : width - d + 2], out=plane[..., d + 2 :]
                    )
                e = width - 1 - d
                if e >= -2:
                    plane[..., -1] = cut[min(e, 2) + 2][..., -1] + last[..., e + 2]
        ctx.layout, ctx.kinds = layout, kinds
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        layout: _Layout = ctx.layout
        batch, channels, _, height, width = gradient.shape
        into_left, into_right, into_last = [], [], []
        outside_sum = gradient.new_zeros(channels if layout.biased else 0)
        for planes in layout.kinds:
            left = gradient.new_zeros(batch, len(BAND), channels, height, width)
            right = gradient.new_zeros(batch, channels, height, width + 2)
            last = torch.zeros_like(right)
            for d in planes:
                plane = gradient[:, :, d]
                if layout.biased:
                    outside_sum += plane[..., : max(d - 2, 0)].sum(dim=(0, 2, 3))
                for x, e in _band(d, width):
                    if x < width - 1:
                        left[:, e + 2, ..., x] += plane[..., x]
                        right[..., e + 2] += plane[..., x]
                if d + 2 < width - 1:
                    inner = plane[..., d + 2 : -1]
                    left[:, 4, ..., d + 2 : -1] += inner
                    right[..., 4 : width - d + 1] += inner
                e = width - 1 - d
                if e >= -2:
                    left[:, min(e, 2) + 2, ..., -1] += plane[..., -1]
                    last[..., e + 2] += plane[..., -1]
            into_left.append(left.flatten(1, 2))
            into_right.append(right)
            into_last.append(last)
        return None, outside_sum, *into_left, *into_right, *into_last


def _band(d: int, width: int) -> list[tuple[int, int]]:
    """Return the columns of a plane near the edge x = d, each with its x - d of -2 to 1."""
    return [(d + e, e) for e in range(-2, 2) if 0 <= d + e < width]
