"""Factorized Attention: Self-Attention with Linear Complexities (Shen et al., 2018).

The first version of efficient attention: coefficients C, bases B and values V give D = C (B^T V).
Here C, B and V are the ``queries``, ``keys`` and ``values`` of the family, so that weights move
between the two. O(N K V) time.
"""

from typing import Any

import torch
from torch import Tensor

from stereo.attention.efficient import EfficientAttention
from stereo.attention.volume import Size


class FactorizedAttention(EfficientAttention):
    """Factorized attention.

    Args:
        channels: C of the volume.
        normalization: ``softmax`` equals ``efficient``; ``scaling`` is C (B^T V) divided by the
            number of channels of B, those of one head, so its weights do not sum to one, and its
            result grows with the number of cells: crops and whole pictures differ in size.
        options: see ``EfficientAttention``.

    Raises:
        ValueError: an unknown normalisation, or a temperature with ``scaling``.
    """

    def __init__(self, channels: int, *, normalization: str = "softmax", **options: Any) -> None:
        super().__init__(channels, **options)
        if normalization not in ("softmax", "scaling"):
            raise ValueError(f"normalization '{normalization}'; known: scaling, softmax")
        if normalization == "scaling" and self.temperature != 1:
            raise ValueError("temperature is for the softmax normalization")
        self.normalization = normalization
        self.weights_sum_to_one = normalization == "softmax"
        self.streams = self.streams_with(normalization=normalization)

    @classmethod
    def streams_with(cls, **options: Any) -> bool:  # noqa: D102
        return options.get("normalization", "softmax") == "softmax"

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        if self.normalization == "softmax":
            return super().attend(queries, keys, values, key_mask, size)
        if key_mask is not None:
            keys = torch.where(key_mask, keys, 0)
        return queries @ (keys.transpose(2, 3) @ values / self.key_width)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        if self.normalization == "softmax":
            return super().attend_explicitly(queries, keys, values, key_mask, size)
        weights = queries @ keys.transpose(2, 3) / self.key_width  # (B, heads, N, N)
        return (weights if key_mask is None else weights * key_mask.transpose(2, 3)) @ values
