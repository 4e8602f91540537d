"""FLatten Transformer (Han et al., ICCV 2023): focused linear attention.

phi(x) = f(relu(x)), f(x) = x^p |x| / |x^p| (direction sharpened, norm kept), then linear attention,
plus a depthwise convolution of the values that restores the rank of the map. O(N K V + N k^3 V).
Kept: the learned scale, norms over all heads, the convolution shared by the heads. Dropped: the
learned position code of fixed length, and the epsilon in the denominator.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.attention.linearized import log_linearized_attention
from stereo.attention.reference import convolution_map, neighbour_taps, weighted_average
from stereo.attention.volume import Size, VolumeAttention, check_odd, to_tokens, to_volume

MAX_POWER = 100


class FocusedAttention(VolumeAttention):
    """Focused linear attention.

    Args:
        channels: C of the volume.
        power: the focusing factor p.
        kernel: extent of the depthwise convolution, odd.
        options: see ``VolumeAttention``.
    """

    mask_equals_removal = True

    def __init__(
        self, channels: int, *, power: float = 3.0, kernel: int = 3, **options: Any
    ) -> None:
        super().__init__(channels, **options)
        check_odd(kernel=kernel)
        is_number = isinstance(power, int | float) and not isinstance(power, bool)
        if not is_number or not 0 < power <= MAX_POWER:
            raise ValueError(f"power is {power!r}, expected a number above 0, at most {MAX_POWER}")
        self.power = power
        self.scale = nn.Parameter(torch.zeros(self.heads, 1, self.key_width))
        width = self.value_width
        self.depthwise = nn.Conv3d(width, width, kernel, padding=kernel // 2, groups=width)

    def focus(self, tokens: Tensor) -> Tensor:  # (B, heads, N, K), shape kept
        """Return log phi: sharpen the direction of each token, keep its norm over all heads.

        The logarithm, because the features of a head whose tokens are all below 0 are (1e-6)^p.
        """
        logs = (F.relu(tokens) + 1e-6).log() - F.softplus(self.scale.to(tokens.dtype)).log()
        sharpened = self.power * logs
        return sharpened + _log_norm(logs) - _log_norm(sharpened)

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        if key_mask is not None:
            values = torch.where(key_mask, values, 0)
        attended = log_linearized_attention(self.focus(queries), self.focus(keys), values, key_mask)
        # The heads share one convolution: let them be part of the batch.
        conv = self.depthwise
        assert conv.bias is not None
        local = F.conv3d(
            to_volume(values.flatten(0, 1)[:, None], size),
            conv.weight.to(values.dtype),
            conv.bias.to(values.dtype),
            padding=conv.kernel_size[0] // 2,
            groups=conv.groups,
        )
        return attended + to_tokens(local, 1).reshape_as(attended)

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        weights = self.focus(queries).exp() @ self.focus(keys).exp().transpose(2, 3)
        attended = weighted_average(weights, values, key_mask)
        kernel = self.depthwise.kernel_size
        taps = neighbour_taps(size, (kernel[0], kernel[1], kernel[2]), values.device)
        mixing = convolution_map(self.depthwise.weight.flatten(1), taps)  # (V, N, N)
        if key_mask is not None:
            values = torch.where(key_mask, values, 0)
        local = torch.einsum("vij,bhjv->bhiv", mixing, values)
        assert self.depthwise.bias is not None
        return attended + local + self.depthwise.bias


def _log_norm(logs: Tensor) -> Tensor:  # (B, heads, N, K) -> (B, 1, N, 1)
    return (2 * logs).logsumexp(dim=(1, 3), keepdim=True) / 2
