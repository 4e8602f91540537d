"""Cost volumes and attention: the only file that turns (B, C, D, H, W) into tokens and back.

Tokens are (B, heads, N, dim) everywhere, the layout of ``scaled_dot_product_attention``, with
N = D * H * W positions in row-major order.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


def to_tokens(
    volume: Tensor,  # (B, heads * dim, D, H, W)
    heads: int,
) -> Tensor:  # (B, heads, N, dim)
    """Split channels into heads and flatten the positions. A view, no copy."""
    return volume.flatten(2).unflatten(1, (heads, -1)).transpose(2, 3)


def to_volume(
    tokens: Tensor,  # (B, heads, N, dim)
    size: torch.Size | tuple[int, ...],  # (D, H, W)
) -> Tensor:  # (B, heads * dim, D, H, W)
    """Undo ``to_tokens``."""
    return tokens.transpose(2, 3).flatten(1, 2).unflatten(2, tuple(size))


class VolumeAttention(nn.Module, ABC):
    """Queries, keys and values by 1x1x1 convolutions, attention, reprojection, residual.

    Members of the family implement ``attend``.

    Args:
        channels: C of the volume.
        key_channels: channels of queries and keys over all heads; C / 2 by default.
        value_channels: channels of the values over all heads; C by default.
        heads: number of heads; must divide both.
        zero_init: start with a zero reprojection, so that the module is the identity at step 0.

    Raises:
        ValueError: ``heads`` does not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        key_channels: int | None = None,
        value_channels: int | None = None,
        heads: int = 1,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        key_channels = key_channels or max(channels // 2, heads)
        value_channels = value_channels or channels
        if key_channels % heads or value_channels % heads:
            raise ValueError(
                f"{heads} heads do not divide {key_channels} key "
                f"and {value_channels} value channels"
            )
        self.heads = heads
        self.queries = nn.Conv3d(channels, key_channels, 1)
        self.keys = nn.Conv3d(channels, key_channels, 1)
        self.values = nn.Conv3d(channels, value_channels, 1)
        self.reprojection = nn.Conv3d(value_channels, channels, 1)
        if zero_init:
            nn.init.zeros_(self.reprojection.weight)
            nn.init.zeros_(self.reprojection.bias)  # type: ignore[arg-type]

    def forward(
        self,
        volume: Tensor,  # (B, C, D, H, W)
        mask: Tensor | None = None,  # (B, 1, D, H, W) bool
    ) -> Tensor:  # (B, C, D, H, W)
        """Attend over all positions and add the result to the volume.

        Args:
            volume: the cost volume.
            mask: true where a cell may serve as a key; None for all.
        """
        queries, keys, values = (
            to_tokens(project(volume), self.heads)
            for project in (self.queries, self.keys, self.values)
        )
        key_mask = None if mask is None else to_tokens(mask, 1)  # (B, 1, N, 1)
        attended = self.attend(queries, keys, values, key_mask)
        return self.reprojection(to_volume(attended, volume.shape[2:]).to(volume.dtype)) + volume

    @abstractmethod
    def attend(
        self,
        queries: Tensor,  # (B, heads, N, K)
        keys: Tensor,  # (B, heads, N, K)
        values: Tensor,  # (B, heads, N, V)
        key_mask: Tensor | None,  # (B, 1, N, 1) bool
    ) -> Tensor:  # (B, heads, N, V)
        """Mix the values of all positions."""
