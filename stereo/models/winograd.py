"""3x3x3 convolutions on CPUs with half the multiplications, forward and backward.

Winograd's F(4, 3) (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016)
along the planes: four planes of the output are sums of six 2D convolutions of sums of planes of the
input, where directly they take twelve. Rounding errors are about twice those of the direct form.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.models.weight_gradient import KernelGradient

TILE = 4  # planes of the output that are made together
STRIP_ELEMENTS = 2**18  # of a plane's rows, so that six such strips stay in the caches
_WEIGHTS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


def convolve_by_planes(
    volume: Tensor,  # (B, C, D, H, W), channels last
    weight: Tensor,  # (O, C, 3, 3, 3)
    bias: Tensor | None = None,  # (O,)
    planes: range | None = None,
) -> Tensor:  # (B, O, planes, H, W), channels last
    """Convolve with padding 1, without gradients; ``planes`` of the result, or all."""
    batch, channels, depth, height, width = volume.shape
    planes = range(depth) if planes is None else planes
    table = weight.new_tensor(_WEIGHTS, dtype=torch.float64)
    kernels = [
        each.to(weight.dtype, memory_format=torch.channels_last)
        for each in torch.einsum("td,ocdyx->tocyx", table, weight.double())
    ]
    cells = volume.permute(0, 2, 3, 4, 1).contiguous()
    out = cells.new_empty(batch, len(planes), height, width, len(weight))
    rows = max(1, STRIP_ELEMENTS // (width * max(channels, len(weight))))
    for source, target in zip(cells, out, strict=True):
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            above, below = max(top - 1, 0), min(bottom + 1, height)
            strip = cells.new_zeros(6, bottom - top + 2, width, channels)
            inner = strip[:, above - top + 1 : below - top + 1]
            nothing = torch.zeros_like(inner[0])
            for first in range(0, len(planes), TILE):
                around = range(planes[first] - 1, planes[first] + TILE + 1)
                six = [source[d, above:below] if 0 <= d < depth else nothing for d in around]
                _transform(six, inner)
                products = [
                    F.conv2d(each.permute(2, 0, 1)[None], kernel, padding=(0, 1))
                    .permute(0, 2, 3, 1)
                    .squeeze(0)
                    for each, kernel in zip(strip, kernels, strict=True)
                ]
                _combine(products, target[first : first + TILE, top:bottom])
    if bias is not None:
        out += bias
    return out.permute(0, 4, 1, 2, 3)


def _transform(planes: list[Tensor], out: Tensor) -> None:
    """Write the six sums of six planes that are convolved."""
    x0, x1, x2, x3, x4, x5 = planes
    even, odd = torch.sub(x4, x2, alpha=4), torch.sub(x3, x1, alpha=4)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    even, odd = torch.sub(x4, x2), torch.sub(x3, x1)
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])
    torch.sub(torch.add(x4, x0, alpha=4), x2, alpha=5, out=out[0])
    torch.sub(torch.add(x5, x1, alpha=4), x3, alpha=5, out=out[5])


def _combine(products: list[Tensor], out: Tensor) -> None:
    """Write up to four planes of the output from six convolutions, which are overwritten."""
    m0, m1, m2, m3, m4, m5 = products
    sum1, sum2 = m1 + m2, m3 + m4
    difference1, difference2 = m1.sub_(m2), m3.sub_(m4)
    terms = (
        (m0.add_(sum1), sum2, 1),
        (difference1, difference2, 2),
        (sum1, sum2, 4),
        (m5.add_(difference1), difference2, 8),
    )
    for plane, (one, other, factor) in zip(out, terms):  # noqa: B905 - the last tile has fewer
        torch.add(one, other, alpha=factor, out=plane)


def weight_gradient_by_planes(
    volume: Tensor,  # (B, C, D, H, W), channels last
    gradient: Tensor,  # (B, O, D, H, W), channels last
) -> Tensor:  # (O, C, 3, 3, 3)
    """Return the gradient of the weight of ``convolve_by_planes``, by the transposed algorithm."""
    channels, depth = volume.shape[1:3]
    cells = volume.permute(0, 2, 3, 4, 1).contiguous()
    gradients = gradient.permute(0, 2, 3, 4, 1).contiguous()
    sums = KernelGradient(cells[0, 0])
    total = cells.new_zeros(6, 3, gradients.shape[-1], 3 * channels)
    inputs = cells.new_empty(6, *cells.shape[2:])
    outputs = cells.new_empty(6, *gradients.shape[2:])
    no_input, no_output = torch.zeros_like(inputs[0]), torch.zeros_like(outputs[0])
    for source, own in zip(cells, gradients, strict=True):
        for first in range(0, depth, TILE):
            around = range(first - 1, first + TILE + 1)
            _transform([source[d] if 0 <= d < depth else no_input for d in around], inputs)
            _spread([own[d] if d < depth else no_output for d in around[1:-1]], outputs)
            for each, x, g in zip(total, inputs, outputs, strict=True):
                sums.add(each, x, g)
    table = total.new_tensor(_WEIGHTS)
    return torch.einsum("td,tyoxc->ocdyx", table, total.unflatten(3, (3, -1)))


def _spread(planes: list[Tensor], out: Tensor) -> None:
    """Write the gradients of six convolutions from those of four planes of the output."""
    g0, g1, g2, g3 = planes
    out[0], out[5] = g0, g3
    even, odd = torch.add(g0, g2), torch.add(g1, g3)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    even, odd = torch.add(g0, g2, alpha=4), torch.add(g1, g3, alpha=4)
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])
