"""Non-local Neural Networks (Wang et al., CVPR 2018): dot-product attention over all positions.

softmax(Q K^T) V (embedded Gaussian), or with the logits divided by sqrt(K) (scaled dot product).
O(N^2 (K + V)) time. The map is never held whole: the fused kernel runs over slices of queries.
Unlike the original there is no batch norm after the reprojection.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.attention.exact import MAP_ELEMENTS, in_slices, softmax_attention
from stereo.attention.reference import softmax_map
from stereo.attention.volume import (
    Size,
    VolumeAttention,
    check_counts,
    check_size,
    to_tokens,
    to_volume,
)
from stereo.system.runtime import free_bytes


class DotProductAttention(VolumeAttention):
    """Dot-product attention.

    Args:
        channels: C of the volume.
        kind: ``scaled`` or ``embedded_gaussian``.
        pool: window (D, H, W) of the max pooling of keys and values; the original's sub-sampling
            is (1, 2, 2). (1, 1, 1) does none.
        form: ``chunked``, or ``explicit``, which holds the map and refuses where it does not fit.
        map_elements: entries of the map that the chunked form may hold at once.
        options: see ``VolumeAttention``.

    Raises:
        ValueError: an unknown kind or form.
    """

    weights_sum_to_one = True
    permutation_equivariant = True
    mask_equals_removal = True
    linear_cost = False
    half_precision = True

    def __init__(
        self,
        channels: int,
        *,
        kind: str = "scaled",
        pool: Size = (1, 1, 1),
        form: str = "chunked",
        map_elements: int = MAP_ELEMENTS,
        **options: Any,
    ) -> None:
        super().__init__(channels, **options)
        if kind not in ("scaled", "embedded_gaussian"):
            raise ValueError(f"kind '{kind}'; known: embedded_gaussian, scaled")
        if form not in ("chunked", "explicit"):
            raise ValueError(f"form '{form}'; known: chunked, explicit")
        self.scale = self.key_width**-0.5 if kind == "scaled" else 1.0
        check_counts(map_elements=map_elements)
        self.pool = check_size("pool", pool)
        self.form = form
        self.half_precision = form == "chunked"  # the other one's map is in the tokens' precision
        self.map_elements = map_elements

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        if self.form == "explicit" and not torch.compiler.is_exporting():
            return self.attend_explicitly(queries, keys, values, key_mask, size)
        keys, values, key_mask = self._pooled(keys, values, key_mask, size)

        def attend_slice(some_queries: Tensor) -> Tensor:
            return softmax_attention(some_queries, keys, values, key_mask, scale=self.scale)

        each = queries.shape[0] * queries.shape[1] * keys.shape[2]
        return in_slices(attend_slice, queries, dim=2, elements_each=each, limit=self.map_elements)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        keys, values, key_mask = self._pooled(keys, values, key_mask, size)
        batch, heads, count, _ = queries.shape
        refuse_beyond_memory(
            batch * heads * count * keys.shape[2], queries, copies=2 if key_mask is None else 3
        )
        return softmax_map(queries @ keys.transpose(2, 3) * self.scale, key_mask) @ values

    def _pooled(
        self, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.pool == (1, 1, 1):
            return keys, values, key_mask
        window: tuple[int, ...] = self.pool
        if not torch.compiler.is_exporting():
            window = tuple(min(p, n) for p, n in zip(self.pool, size, strict=True))
        if key_mask is not None:
            keys = torch.where(key_mask, keys, -torch.inf)
            values = torch.where(key_mask, values, -torch.inf)
            key_mask = to_tokens(F.max_pool3d(to_volume(key_mask.float(), size), window), 1) > 0
        keys, values = (
            to_tokens(F.max_pool3d(to_volume(t, size), window), self.heads) for t in (keys, values)
        )
        if key_mask is not None:
            keys, values = torch.where(key_mask, keys, 0), torch.where(key_mask, values, 0)
        return keys, values, key_mask


def refuse_beyond_memory(elements: int, like: Tensor, copies: int) -> None:
    """Refuse an explicit map that would not fit.

    Args:
        elements: entries of the map.
        like: a tensor of the map's type and device; the softmax runs in float32 at least.
        copies: maps that exist at once: logits, weights, and those without the masked keys.

    Raises:
        ValueError: the message states the bytes that the map needs.
    """
    needed = elements * max(4, like.element_size())
    free = free_bytes(like.device)
    if copies * needed > free:
        raise ValueError(
            f"the explicit attention map needs {needed:,} bytes ({needed / 1e9:,.1f} GB), and "
            f"{copies} of its size at once; {free / 1e9:,.1f} GB are free; use form='chunked' or a "
            "linear attention"
        )
