"""Efficient Attention: Attention with Linear Complexities (Shen et al., WACV 2021).

Softmax form: rho_q(Q) (rho_k(K)^T V), rho_q a softmax over the channels of one head, rho_k one over
positions. Scaling form: Q (K^T V) / n. O(N K V) time and O(K V) memory beyond the activations.
"""

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.attention.linearized import leave_out
from stereo.attention.volume import AttentionState, Size, VolumeAttention, check_flags

Affine: TypeAlias = tuple[Tensor, Tensor]  # matrix and offset


class EfficientAttention(VolumeAttention):
    """Efficient attention with softmax normalisation.

    The implied N x N map rho_q(Q) rho_k(K)^T has rows that sum to one, but it is not the softmax of
    Q K^T. As in the authors' module there is no position code; unlike theirs, the reprojection
    starts at zero unless ``zero_init=False``.

    Args:
        channels: C of the volume.
        temperature: divide both logits by K^(1/4), the counterpart of 1 / sqrt(K) in scaled dot
            products; off in the authors' module.
        options: see ``VolumeAttention``.
    """

    weights_sum_to_one = True
    permutation_equivariant = True
    mask_equals_removal = True
    streams = True

    def __init__(self, channels: int, *, temperature: bool = False, **options: Any) -> None:
        super().__init__(channels, **options)
        check_flags(temperature=temperature)
        self.temperature = self.key_width**-0.25 if temperature else 1.0

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        keys = keys * self.temperature if self.temperature != 1 else keys
        queries = queries * self.temperature if self.temperature != 1 else queries
        if key_mask is not None:
            keys = leave_out(keys, key_mask)
            values = torch.where(key_mask, values, 0)
        context = keys.softmax(dim=2).transpose(2, 3) @ values  # (B, heads, K, V)
        return queries.softmax(dim=3) @ context

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        share = torch.exp(keys * self.temperature)
        if key_mask is not None:
            share = share * key_mask
        share = share / share.sum(dim=2, keepdim=True).clamp(min=torch.finfo(share.dtype).tiny)
        weights = torch.softmax(queries * self.temperature, dim=3) @ share.transpose(2, 3)
        return weights @ values

    def accumulate(  # noqa: D102
        self, volume: Tensor, mask: Tensor | None, state: AttentionState | None = None
    ) -> AttentionState:
        # The largest logit so far is carried from plane to plane, so that nothing overflows.
        with torch.autocast(volume.device.type, enabled=False):
            weight, bias = _affine(self.keys, torch.promote_types(volume.dtype, torch.float32))
            if state is None:
                batch, channels = volume.shape[:2]
                largest = weight.new_full((batch, 1, len(weight)), torch.finfo(weight.dtype).min)
                total = weight.new_zeros(batch, 1, len(weight))
                sums = weight.new_zeros(batch, len(weight), channels)
                state = AttentionState(largest, total, sums)
            largest, total, context = state
            for plane in range(volume.shape[2]):
                cells = _cells(volume, plane).to(weight.dtype)
                if mask is not None:
                    kept = _cells(mask, plane)
                    cells = torch.where(kept, cells, 0)
                logits = F.linear(cells, weight, bias) * self.temperature
                if mask is not None:
                    logits = logits.masked_fill(~kept, -torch.inf)
                so_far = largest
                largest = torch.maximum(largest, logits.amax(dim=1, keepdim=True))
                shares = torch.exp(logits - largest)
                fade = torch.exp(so_far - largest)
                total = total * fade + shares.sum(dim=1, keepdim=True)
                context = context * fade.transpose(1, 2) + shares.transpose(1, 2) @ cells
        return AttentionState(largest, total, context)

    def apply_context(self, volume: Tensor, state: AttentionState) -> Tensor:  # noqa: D102
        with torch.autocast(volume.device.type, enabled=False):
            dtype = torch.promote_types(volume.dtype, torch.float32)
            queries, _, values, back = self.matrices(dtype)
            total = state.total.squeeze(1)  # (B, heads K)
            mean = state.volume / torch.where(total > 0, total, 1)[..., None]
            table = self.table(mean, total, values, back)
            layout = _layout(volume)
            in_place = self.inplace and volume.is_contiguous(memory_format=layout)
            out = volume if in_place else torch.empty_like(volume, memory_format=layout)
            for plane in range(volume.shape[2]):
                cells = _cells(volume, plane).to(dtype)
                logits = F.linear(cells, *queries) * self.temperature
                shares = logits.unflatten(2, (self.heads, -1)).softmax(dim=3).flatten(2)
                _cells(out, plane).copy_(torch.baddbmm(back[1], shares, table).add_(cells))
        return out

    def matrices(self, dtype: torch.dtype) -> tuple[Affine, Affine, Affine, Affine]:
        """Return the queries', keys', values' and reprojection's matrix and offset."""
        return (
            _affine(self.queries, dtype),
            _affine(self.keys, dtype),
            _affine(self.values, dtype),
            _affine(self.reprojection, dtype),
        )

    def table(
        self,
        mean: Tensor,  # (B, heads * K, C)
        total: Tensor,  # (B, heads * K)
        values: Affine,
        back: Affine,
    ) -> Tensor:  # (B, heads * K, C)
        """Return each key channel's output: the weighted mean of the volume, projected.

        Projections are linear and the shares of the positions sum to one, so they may gather the
        volume itself, and values and reprojection become one small matrix per key channel.
        """
        some = total.amax(dim=1).view(-1, 1, 1, 1) > 0  # else no key is left
        per_head = values[0].unflatten(0, (self.heads, -1))  # (heads, V, C)
        context = mean.unflatten(1, (self.heads, -1)) @ per_head.transpose(1, 2)
        context = torch.where(some, context + values[1].view(self.heads, 1, -1), 0)
        out_of_head = back[0].unflatten(1, (self.heads, -1)).permute(1, 2, 0)  # (heads, V, C)
        return (context @ out_of_head).flatten(1, 2)


class EfficientScalingAttention(VolumeAttention):
    """Efficient attention with scaling normalisation: (Q K^T / n) V, exactly.

    n is the number of keys, as in the paper; the authors' blog divides by sqrt(k) instead.
    """

    permutation_equivariant = True
    mask_equals_removal = True

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        count: int | Tensor = keys.shape[2]
        if key_mask is not None:
            keys = torch.where(key_mask, keys, 0)
            count = key_mask.sum(dim=2, keepdim=True).clamp(min=1).to(keys.dtype)
        return queries @ (keys.transpose(2, 3) @ values / count)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        weights = queries @ keys.transpose(2, 3)  # (B, heads, N, N)
        if key_mask is None:
            return weights @ values / values.shape[2]
        return (weights * key_mask.transpose(2, 3)) @ values / key_mask.sum(2, True).clamp(min=1)


def _affine(convolution: nn.Module, dtype: torch.dtype) -> Affine:
    """Return the matrix and offset of a 1x1x1 convolution."""
    assert isinstance(convolution, nn.Conv3d) and convolution.bias is not None
    return convolution.weight.flatten(1).to(dtype), convolution.bias.to(dtype)


def _layout(volume: Tensor) -> torch.memory_format:
    last = volume.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if last else torch.contiguous_format


def _cells(volume: Tensor, plane: int) -> Tensor:  # (B, C, D, H, W) -> (B, H * W, C)
    """Return the cells of one plane; a view if the volume's channels come last."""
    return volume[:, :, plane].flatten(2).transpose(1, 2)
