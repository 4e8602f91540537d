"""Gradients of 3x3 kernels by matrix products, on CPUs."""

import torch
from torch import Tensor


class KernelGradient:
    """Sums up the gradient of a 3x3 kernel over images of one size, channels last.

    Three copies of the input, one per column of the kernel, lie beside each other, so that every
    row of the kernel is one matrix product.

    Args:
        like: (H, W, C), an image; H and W are larger than ``dilation``.
        dilation: of the convolution, whose padding is the same.
    """

    def __init__(self, like: Tensor, dilation: int = 1) -> None:
        height, width, channels = like.shape
        self.dilation = dilation
        self._columns = like.new_empty(height, width, 3, channels)
        self._columns[:, :dilation, 0] = 0  # beyond the borders, which nothing writes again
        self._columns[:, width - dilation :, 2] = 0

    def add(
        self,
        total: Tensor,  # (3, O, 3 C), written to
        picture: Tensor,  # (H, W, C)
        gradient: Tensor,  # (H, W, O)
    ) -> None:
        """Add what one image gives."""
        height, step = len(picture), self.dilation
        columns = self._columns
        columns[:, step:, 0] = picture[:, :-step]
        columns[:, :, 1] = picture
        columns[:, :-step, 2] = picture[:, step:]
        for own, shift in zip(total, (-step, 0, step), strict=True):
            first, last = max(0, -shift), height - max(0, shift)
            rows = columns[first + shift : last + shift].flatten(0, 1).flatten(1)
            torch.addmm(own, gradient[first:last].flatten(0, 1).t(), rows, out=own)


def kernel_gradient(
    x: Tensor,  # (B, C, H, W)
    gradient: Tensor,  # (B, O, H, W)
    dilation: int,
) -> Tensor:  # (O, C, 3, 3)
    """Return the gradient of the kernel of a 3x3 convolution whose padding is its dilation."""
    pictures = x.permute(0, 2, 3, 1).contiguous()
    gradients = gradient.permute(0, 2, 3, 1).contiguous()
    sums = KernelGradient(pictures[0], dilation)
    total = x.new_zeros(3, gradient.shape[1], 3 * x.shape[1])
    for picture, own in zip(pictures, gradients, strict=True):
        sums.add(total, picture, own)
    return total.unflatten(2, (3, -1)).permute(1, 3, 0, 2)
