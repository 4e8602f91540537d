"""LambdaNetworks (Bello, ICLR 2021): content lambda plus local position lambda.

lambda_c = softmax(K)^T V (over positions), lambda_p(i) = sum_j E(j - i) v_j over a small kernel,
and y_i = q_i (lambda_c + lambda_p(i)). O(N K V) plus O(N r^3 K V) time. Kept: batch norm on queries
and values, one position kernel for all heads. Changed: keys and values per head rather than shared
by the heads, and a local convolution in 3D; a global position code would fix the size.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.attention.exact import MAP_ELEMENTS, in_slices
from stereo.attention.linearized import leave_out
from stereo.attention.reference import convolution_map, neighbour_taps, softmax_map
from stereo.attention.volume import Size, VolumeAttention, check_counts, check_odd, drawn, to_tokens


class _BatchNorm(nn.BatchNorm3d):
    """Batch norm whose gradient arrives contiguous.

    With one volume in a batch, PyTorch 2.14 on the CPU takes the gradient of these tokens for one
    with channels last, by its strides, and returns wrong ones.
    """

    def forward(self, volume: Tensor) -> Tensor:
        out = super().forward(volume)
        if out.requires_grad:
            out.register_hook(lambda slope: None if slope is None else slope.contiguous())
        return out


class LambdaAttention(VolumeAttention):
    """A lambda layer.

    In training, batch norm takes its statistics over all cells, those that a mask leaves out too.

    Args:
        channels: C of the volume.
        kernel: extent of the position kernel, odd.
        map_elements: entries of the position lambdas that may exist at once.
        options: see ``VolumeAttention``.
    """

    mask_equals_removal = True

    def __init__(
        self,
        channels: int,
        *,
        kernel: int = 3,
        map_elements: int = 4 * MAP_ELEMENTS,
        **options: Any,
    ) -> None:
        super().__init__(channels, **options)
        check_odd(kernel=kernel)
        check_counts(map_elements=map_elements)
        self.queries = nn.Sequential(self.queries, _BatchNorm(self.heads * self.key_width))
        self.values = nn.Sequential(self.values, _BatchNorm(self.heads * self.value_width))
        spread = 1 / math.sqrt(kernel**3)
        self.positions = drawn(self.key_width, 1, *[kernel] * 3, scale=spread)
        self.map_elements = map_elements

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        if key_mask is not None:
            keys = leave_out(keys, key_mask)
            values = torch.where(key_mask, values, 0)
        content = queries @ (keys.softmax(dim=2).transpose(2, 3) @ values)

        def position_term(some_values: Tensor) -> Tensor:  # (B, heads, N, few)
            few = some_values.shape[3]
            planes = some_values.permute(0, 1, 3, 2).reshape(-1, 1, *size)
            positions = self.positions.to(planes.dtype)
            lambdas = F.conv3d(planes, positions, padding=self.positions.shape[-1] // 2)
            lambdas = to_tokens(lambdas, 1)[:, 0].unflatten(0, (-1, self.heads, few))
            return torch.einsum("bhnk,bhvnk->bhnv", queries, lambdas)

        each = keys.numel()
        return content + in_slices(
            position_term, values, dim=3, elements_each=each, limit=self.map_elements
        )

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        if key_mask is not None:
            values = torch.where(key_mask, values, 0)
        share = softmax_map(keys.transpose(2, 3), key_mask)
        extent = self.positions.shape[-1]
        taps = neighbour_taps(size, (extent, extent, extent), values.device)
        codes = convolution_map(self.positions.to(values.dtype).flatten(1), taps)  # (K, N, N)
        weights = queries @ share + torch.einsum("bhik,kij->bhij", queries, codes)
        return weights @ values
