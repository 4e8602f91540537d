"""Rethinking Attention with Performers (Choromanski et al., ICLR 2021): FAVOR+.

The softmax kernel by positive orthogonal random features, phi(x) = m^-1/2 (exp(W x - |x|^2 / 2 -
max) + eps), then linear attention. O(N m V) time. Features are redrawn in training and fixed in
evaluation; every draw is a function of the seed and the step. The training loop announces each
step (``begin_step``).

The maximum over all keys grows with N, and with it the weight of eps: the larger the volume, the
flatter the attention, so a crop and a whole frame differ.
"""

import math
from typing import Any

import torch
from torch import Tensor

from stereo.attention.linearized import leave_out, linearized_attention
from stereo.attention.reference import weighted_average
from stereo.attention.volume import Size, VolumeAttention, check_counts, check_seed

EPSILON = 1e-4


class PerformerAttention(VolumeAttention):
    """FAVOR+ attention.

    Args:
        channels: C of the volume.
        features: number m of random features; K ln K, at least K, by default.
        redraw_every: training steps between draws.
        seed: of the draws.
        options: see ``VolumeAttention``.
    """

    weights_sum_to_one = True
    permutation_equivariant = True
    mask_equals_removal = True

    projection: Tensor

    def __init__(
        self,
        channels: int,
        *,
        features: int | None = None,
        redraw_every: int = 1000,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(channels, **options)
        width = self.key_width
        if features is None:
            features = max(width, int(width * math.log(width)))
        check_counts(features=features, redraw_every=redraw_every)
        check_seed(seed)
        self.features = features
        self.redraw_every = redraw_every
        self.seed = seed
        self.register_buffer("projection", self._draw(0))  # (m, K)

    def begin_step(self, step: int) -> None:
        """Redraw the features when ``redraw_every`` steps have passed."""
        if step and step % self.redraw_every == 0:  # at first they are those of the weights
            self.projection.copy_(self._draw(step // self.redraw_every))

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        query_features = self.random_features(queries, None, over_positions=False)
        key_features = self.random_features(keys, key_mask, over_positions=True)
        return linearized_attention(query_features, key_features, values, key_mask)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        query_features = self.random_features(queries, None, over_positions=False)
        key_features = self.random_features(keys, key_mask, over_positions=True)
        return weighted_average(query_features @ key_features.transpose(2, 3), values, key_mask)

    def random_features(
        self,
        tokens: Tensor,  # (B, heads, N, K)
        key_mask: Tensor | None,  # (B, 1, N, 1) bool
        *,
        over_positions: bool,
    ) -> Tensor:  # (B, heads, N, m)
        """Map tokens to positive features; the exponent is shifted by its largest value.

        Args:
            tokens: queries or keys, without scale.
            key_mask: positions that the largest value is taken over.
            over_positions: one largest value for all positions (keys) or one each (queries).
        """
        tokens = tokens * self.key_width**-0.25
        half_square = tokens.square().sum(dim=3, keepdim=True) / 2
        projection = self.projection.to(tokens.dtype, copy=True)  # a redraw must not change graphs
        exponent = tokens @ projection.T - half_square
        if key_mask is not None:
            exponent = leave_out(exponent, key_mask)
        largest = exponent.amax(dim=(2, 3) if over_positions else 3, keepdim=True)
        return (torch.exp(exponent - largest) + EPSILON) * self.features**-0.5

    def _draw(self, number: int) -> Tensor:
        """Draw (m, K) rows in orthogonal blocks, with the lengths of Gaussian vectors."""
        if torch.get_default_device().type == "meta":  # asked for its shape alone
            return torch.empty(self.features, self.key_width)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        width = self.key_width
        blocks = []
        for _ in range(math.ceil(self.features / width)):
            square = torch.randn(width, width, generator=generator, dtype=torch.float64)
            q, r = torch.linalg.qr(square)
            # Without this the directions are not uniform, and the kernel is biased.
            blocks.append((q * r.diagonal().sign()).T)
        rows = torch.cat(blocks)[: self.features]
        lengths = torch.randn(self.features, width, generator=generator, dtype=torch.float64)
        return (rows * lengths.norm(dim=1, keepdim=True)).float()
