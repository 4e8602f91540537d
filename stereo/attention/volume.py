"""Cost volumes and attention: the only file that turns (B, C, D, H, W) into tokens and back.

Tokens are (B, heads, N, dim) everywhere, the layout of ``scaled_dot_product_attention``, with
N = D * H * W positions in row-major order. Windows and disparity lines are tokens too, with the
batch multiplied by their number.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Size: TypeAlias = tuple[int, int, int]  # D, H, W
_AUTOCAST = (torch.float32, torch.bfloat16, torch.float16)  # what it converts from and to


def to_tokens(
    volume: Tensor,  # (B, heads * dim, D, H, W)
    heads: int,
) -> Tensor:  # (B, heads, N, dim)
    """Split channels into heads and flatten the positions. A view, no copy."""
    return volume.flatten(2).unflatten(1, (heads, -1)).transpose(2, 3)


def to_volume(
    tokens: Tensor,  # (B, heads, N, dim)
    size: Size,
) -> Tensor:  # (B, heads * dim, D, H, W)
    """Undo ``to_tokens``."""
    return tokens.transpose(2, 3).flatten(1, 2).unflatten(2, size)


def to_lines(
    tokens: Tensor,  # (B, heads, D * H * W, dim)
    size: Size,
) -> Tensor:  # (B * H * W, heads, D, dim)
    """Gather the tokens of each pixel, one per disparity."""
    heads, dim = tokens.shape[1], tokens.shape[3]
    grid = tokens.unflatten(2, size)  # (B, heads, D, H, W, dim)
    return grid.permute(0, 3, 4, 1, 2, 5).reshape(-1, heads, size[0], dim)


def from_lines(
    lines: Tensor,  # (B * H * W, heads, D, dim)
    size: Size,
) -> Tensor:  # (B, heads, D * H * W, dim)
    """Undo ``to_lines``."""
    grid = lines.unflatten(0, (-1, *size[1:]))  # (B, H, W, heads, D, dim)
    return grid.permute(0, 3, 4, 1, 2, 5).flatten(2, 4)


def to_windows(
    tokens: Tensor,  # (B, heads, N, dim)
    size: Size,
    window: Size,
    shift: Size,
) -> Tensor:  # (B * windows, heads, window cells, dim)
    """Cut the volume into windows whose grid is moved by ``-shift``; cells outside are zero."""
    heads = tokens.shape[1]
    before, cells = _window_grid(size, window, shift)
    volume = to_volume(tokens, size)
    pads = [
        (front, n * w - front - extent)
        for front, n, w, extent in zip(before, cells, window, size, strict=True)
    ]
    volume = F.pad(volume, [p for pair in reversed(pads) for p in pair])
    (d, h, w), (cd, ch, cw) = window, cells
    grid = volume.reshape(volume.shape[0], heads, -1, cd, d, ch, h, cw, w)
    return grid.permute(0, 3, 5, 7, 1, 4, 6, 8, 2).reshape(-1, heads, d * h * w, grid.shape[2])


def from_windows(
    windows: Tensor,  # (B * windows, heads, window cells, dim)
    size: Size,
    window: Size,
    shift: Size,
) -> Tensor:  # (B, heads, N, dim)
    """Undo ``to_windows``."""
    heads, dim = windows.shape[1], windows.shape[3]
    before, cells = _window_grid(size, window, shift)
    (d, h, w), (cd, ch, cw) = window, cells
    grid = windows.reshape(-1, cd, ch, cw, heads, d, h, w, dim).permute(0, 4, 1, 5, 2, 6, 3, 7, 8)
    padded = grid.reshape(-1, heads, cd * d, ch * h, cw * w, dim)
    inside = [slice(front, front + n) for front, n in zip(before, size, strict=True)]
    return padded[:, :, inside[0], inside[1], inside[2]].flatten(2, 4)


def clip_window(size: Size, window: Size, shift: bool) -> tuple[Size, Size]:
    """Clip a window to the volume; shift only along axes on which it is smaller.

    Returns:
        The window, and the shift: half a window, or 0.
    """
    shifts: list[Any]
    if torch.compiler.is_exporting():  # cells outside are masked: a window may be larger
        beyond = [torch.sym_max(n - w, 0) for w, n in zip(window, size, strict=True)]
        shifts = [
            w // 2 * torch.sym_min(b, 1) if shift else 0
            for w, b in zip(window, beyond, strict=True)
        ]
        return window, (shifts[0], shifts[1], shifts[2])
    fitted = [min(w, extent) for w, extent in zip(window, size, strict=True)]
    shifts = [w // 2 if shift and w < n else 0 for w, n in zip(fitted, size, strict=True)]
    return (fitted[0], fitted[1], fitted[2]), (shifts[0], shifts[1], shifts[2])


def _window_grid(size: Size, window: Size, shift: Size) -> tuple[list[int], list[int]]:
    """Return the empty cells in front of each axis, and the number of windows along it."""
    before = [(w - s) % w for w, s in zip(window, shift, strict=True)]
    count = [(b + n + w - 1) // w for b, n, w in zip(before, size, window, strict=True)]
    return before, count


class AttentionState(NamedTuple):
    """Softmax statistics of streamed attention over the positions seen so far."""

    largest: Tensor  # (B, 1, K), the largest logit of each key channel; the sums are relative to it
    total: Tensor  # (B, 1, K), the sum of exp(logit - largest)
    volume: Tensor  # (B, K, C), the sum of the cells weighted by it


tile_hook: ContextVar["Callable[[VolumeAttention, Tensor, Tensor | None], Tensor] | None"] = (
    ContextVar("tile_hook", default=None)
)
"""What members with ``streams`` do instead of attending where their volume is a tile of the whole:
it gets the member, the volume and the mask. Each thread has its own."""


class VolumeAttention(nn.Module, ABC):
    """Queries, keys and values by 1x1x1 convolutions, attention, reprojection, residual.

    A member implements ``attend`` and ``attend_explicitly``, its definition written for reading,
    which is the oracle of the tests. The class attributes determine which tests apply.

    Args:
        channels: C of the volume.
        key_channels: channels of queries and keys over all heads; C / 2 by default, rounded up to
            a multiple of ``heads``.
        value_channels: channels of the values over all heads; C by default.
        heads: number of heads; must divide both.
        zero_init: start with a zero reprojection, so that the module is the identity at step 0.

    Raises:
        ValueError: ``heads`` does not divide the channels.
    """

    weights_sum_to_one = False
    """Constant values come back constant."""
    permutation_equivariant = False
    """Positions carry no meaning: permuting them permutes the output."""
    mask_equals_removal = False
    """Masking cells equals removing them from the volume."""
    linear_cost = True
    """Time and memory grow linearly with N; set False if they grow faster."""
    streams = False
    """Whether it has ``accumulate`` and ``apply_context``, used where there are no gradients; see
    ``streams_with``."""
    inplace = False
    """Whether ``apply_context`` may overwrite its volume."""
    fused: "Callable[[Any, Tensor, Tensor | None], Tensor] | None" = None
    """A kernel that replaces ``forward`` of members with ``streams``: see
    ``stereo.models.kernels``."""
    unexportable: str | None = None
    """Why it cannot be exported to ONNX; None if it can."""
    half_precision = False
    """Whether ``attend`` may run in bf16 or fp16; otherwise it gets float32 even under autocast."""

    @classmethod
    def streams_with(cls, **_options: Any) -> bool:
        """Return whether it streams with these options of ``__init__``."""
        return cls.streams

    def __init__(
        self,
        channels: int,
        key_channels: int | None = None,
        value_channels: int | None = None,
        heads: int = 1,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        check_counts(channels=channels, heads=heads)
        if key_channels is None:
            key_channels = -(-max(channels // 2, 1) // heads) * heads
        if value_channels is None:
            value_channels = channels
        check_counts(key_channels=key_channels, value_channels=value_channels)
        check_flags(zero_init=zero_init)
        if key_channels % heads or value_channels % heads:
            raise ValueError(
                f"{heads} heads do not divide {key_channels} key "
                f"and {value_channels} value channels"
            )
        self.channels = channels
        self.heads = heads
        self.key_width = key_channels // heads
        self.value_width = value_channels // heads
        self.queries: nn.Module = nn.Conv3d(channels, key_channels, 1)
        self.keys: nn.Module = nn.Conv3d(channels, key_channels, 1)
        self.values: nn.Module = nn.Conv3d(channels, value_channels, 1)
        self.reprojection = nn.Conv3d(value_channels, channels, 1)
        if zero_init:
            nn.init.zeros_(self.reprojection.weight)
            nn.init.zeros_(self.reprojection.bias)  # type: ignore[arg-type]

    def forward(
        self,
        volume: Tensor,  # (B, C, D, H, W)
        mask: Tensor | None = None,  # (B, 1, D, H, W) bool
    ) -> Tensor:  # (B, C, D, H, W)
        """Attend and add the result to the volume.

        Args:
            volume: the cost volume.
            mask: true where a cell may serve as a key; None for all. Where no key is left, values
                count as zero.

        Raises:
            ValueError: a volume of another shape or type, or an empty one; a mask of another shape
                or type.
        """
        self._check_volume(volume)
        size = (volume.shape[2], volume.shape[3], volume.shape[4])
        key_mask = self._check_mask(mask, volume)
        streams = self.streams and not torch.is_grad_enabled()
        if streams and (hook := tile_hook.get()) is not None:
            return hook(self, volume, mask)
        if self.fused is not None:
            return self.fused(self, volume, mask)
        if streams:
            return self.apply_context(volume, self.accumulate(volume, mask))
        queries, keys, values = self.project(volume)
        if key_mask is not None:  # whatever stands in the cells left out, infinities included
            keys, values = torch.where(key_mask, keys, 0), torch.where(key_mask, values, 0)
        if self.half_precision:
            attended = self.attend(queries, keys, values, key_mask, size)
        else:
            with torch.autocast(volume.device.type, enabled=False):
                dtype = torch.promote_types(queries.dtype, torch.float32)
                attended = self.attend(
                    queries.to(dtype), keys.to(dtype), values.to(dtype), key_mask, size
                ).to(values.dtype)
        return self.reprojection(to_volume(attended, size)) + volume

    def accumulate(
        self, volume: Tensor, mask: Tensor | None, state: AttentionState | None = None
    ) -> AttentionState:
        """Accumulate the softmax statistics of each plane, in float32.

        For members with ``streams``: with ``apply_context`` it equals ``forward``, without holding
        the queries, keys or values of all positions.

        Args:
            volume: (B, C, D, H, W).
            mask: true where a cell may serve as a key; None for all.
            state: of the positions before; None for none.
        """
        raise NotImplementedError

    def apply_context(self, volume: Tensor, state: AttentionState) -> Tensor:
        """Apply the context and add the residual."""
        raise NotImplementedError

    def begin_step(self, step: int) -> None:
        """Called before each training step; members that draw at random redraw here.

        Buffers are written in place, since DistributedDataParallel holds the tensors. ``forward``
        does not call it: a pass recomputed for the backward pass must see the same draws.
        """

    def project(self, volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries, keys and values of a (B, C, D, H, W) volume as tokens."""
        return (
            to_tokens(self.queries(volume), self.heads),
            to_tokens(self.keys(volume), self.heads),
            to_tokens(self.values(volume), self.heads),
        )

    @abstractmethod
    def attend(
        self,
        queries: Tensor,  # (B, heads, N, K)
        keys: Tensor,  # (B, heads, N, K)
        values: Tensor,  # (B, heads, N, V)
        key_mask: Tensor | None,  # (B, 1, N, 1) bool
        size: Size,
    ) -> Tensor:  # (B, heads, N, V)
        """Mix the values at the paper's cost."""

    @abstractmethod
    def attend_explicitly(
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        """Do the same by definition, for small volumes; the arguments are those of ``attend``."""

    def _check_volume(self, volume: Tensor) -> None:
        name = type(self).__name__
        if not isinstance(volume, Tensor):
            raise ValueError(f"{name} takes a volume as a tensor, got {type(volume).__name__}")
        if volume.ndim != 5 or volume.shape[1] != self.channels:
            raise ValueError(
                f"{name} takes a volume (B, C, D, H, W) with C = {self.channels}, "
                f"got shape {tuple(volume.shape)}"
            )
        if not torch.compiler.is_exporting() and 0 in volume.shape:
            raise ValueError(f"{name} got an empty volume, of shape {tuple(volume.shape)}")
        expected = self.reprojection.weight.dtype
        if volume.dtype == expected:
            return
        if volume.dtype not in _AUTOCAST or not torch.is_autocast_enabled(volume.device.type):
            raise ValueError(
                f"{name} takes a volume of its weights' type, {expected}, got {volume.dtype}; "
                "convert one to the other"
            )

    def _check_mask(self, mask: Tensor | None, volume: Tensor) -> Tensor | None:
        if mask is None:
            return None
        expected = (volume.shape[0], 1, *volume.shape[2:])
        if not isinstance(mask, Tensor):
            raise ValueError(
                f"the mask must be a bool tensor {expected}, got {type(mask).__name__}"
            )
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise ValueError(
                f"the mask must be bool {expected}, got {mask.dtype} {tuple(mask.shape)}"
            )
        return to_tokens(mask, 1)


def drawn(*shape: int, scale: float) -> nn.Parameter:
    """Return a parameter initialised from N(0, scale^2)."""
    values = torch.randn(*shape)
    # On the meta device arithmetic imports PyTorch's compiler, which takes seconds.
    return nn.Parameter(values if values.is_meta else scale * values)


def check_counts(**values: object) -> None:
    """Raise ``ValueError`` unless each is a whole number of at least 1."""
    for name, value in values.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1")


def check_seed(seed: object) -> None:
    """Raise ``ValueError`` unless it is a whole number of 32 bits from 0 on."""
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}, expected a whole number from 0 to 2^32 - 1")


def check_flags(**values: object) -> None:
    """Raise ``ValueError`` unless each is true or false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}, expected true or false")


def check_odd(**values: object) -> None:
    """Raise ``ValueError`` unless each is an odd whole number of at least 1."""
    check_counts(**values)
    for name, value in values.items():
        if isinstance(value, int) and value % 2 == 0:
            raise ValueError(f"{name} is {value}, expected an odd number")


def check_size(name: str, value: object) -> Size:
    """Return a (D, H, W) of whole numbers of at least 1, or raise ``ValueError``."""
    parts = tuple(value) if isinstance(value, list | tuple) else ()
    if len(parts) != 3 or any(type(part) is not int or part < 1 for part in parts):
        raise ValueError(f"{name} is {value!r}, expected three whole numbers (D, H, W) from 1 on")
    return parts[0], parts[1], parts[2]
