"""Wrap any function or torch module as a Matcher; inputs and outputs are checked."""

import math
import numbers
import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stereo.errors import StereoError, UsageError, unknown_name
from stereo.matching.engine import computing_in, normalise, pad_to_multiple
from stereo.matching.estimate import Engine, Estimate
from stereo.matching.matcher import Matcher
from stereo.models.config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    check_max_disparity,
    check_min_disparity,
)
from stereo.system.bundled import DEFAULT_MAX_DISPARITY
from stereo.system.runtime import is_out_of_memory, pick_device, pick_dtype
from stereo.system.stop import TERMINATED
from stereo.version import __version__

SIGNS = ("positive", "negative")
OF_ONE = 2.0  # the largest mean and standard deviation of RGB in 0..1 that one may mean
_NAME = re.compile(r"\w[\w.+-]*")  # of folders, too
BELOW_ZERO = -1.0  # pixels; a map with more than half of its pixels below has the other sign

MatchFunction = Callable[[np.ndarray, np.ndarray], Any]
"""Two (H, W, 3) uint8 views to an (H, W) map of disparities, pixels."""


def wrap(
    function: MatchFunction,
    *,
    name: str | None = None,
    max_disparity: int = DEFAULT_MAX_DISPARITY,
    min_disparity: int = 0,
    sign: str = "positive",
) -> Matcher:
    """Make a model of any function that matches a pair.

    Args:
        function: takes the left and the right view, (H, W, 3) uint8 RGB, which are its own to
            change, and returns the left view's map: (H, W), a floating-point array or tensor,
            pixels.
        name: stands in reports; None for the function's own.
        max_disparity: what the function searches, pixels, a multiple of 16. Reports name what lies
            beyond; maps mostly beyond twice as much and the width are refused.
        min_disparity: where the range starts, as in ``stereo.load``: the function
            searches from 0, in views with more columns (a start below 0) or fewer.
        sign: ``positive``, or ``negative`` for the flow of the left view, x_right - x_left.

    Raises:
        UsageError: an invalid option.

    The model raises ``StereoError`` for a map of another shape or type, with pixels that are not
    finite, of the wrong sign or mostly far beyond the range, and for an error of the function. What
    is below 0 becomes 0, and what is far beyond is cut with a warning.
    """
    name = name or str(getattr(function, "__name__", type(function).__name__))
    engine = _FunctionEngine(function, name, sign)
    return foreign_matcher(engine, name, max_disparity, min_disparity=min_disparity)


def wrap_network(
    module: nn.Module,
    *,
    name: str | None = None,
    max_disparity: int = DEFAULT_MAX_DISPARITY,
    min_disparity: int = 0,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    multiple: int = 32,
    sign: str | None = "positive",
    device: str | torch.device = "auto",
    precision: str = "auto",
) -> Matcher:
    """Make a model of any PyTorch network for stereo.

    Args:
        module: put in evaluation mode before each match and left there, then called as
            ``module(left, right)``, (B, 3, H, W) float32 each, RGB; returns disparities of the
            left view, (B, H, W) or (B, 1, H, W), pixels, or a flow, (B, 2, H, W), whose first
            channel is taken, or a sequence, whose last one is.
        name: stands in reports; None for the class's.
        max_disparity: what the network searches, as in ``wrap``.
        min_disparity: as in ``wrap``.
        mean: of each channel, subtracted from RGB in 0..1.
        std: what then divides them; mean 0 and std 1/255 leave RGB in 0..255.
        multiple: of which H and W are; the views are padded at the top and right.
        sign: as in ``wrap``; None to leave the sign unchecked, as random weights need it.
        device: as in ``stereo.load``.
        precision: likewise, that of autocast; ``auto`` is fp32.

    Raises:
        UsageError: an invalid option.
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"{module!r} is not a torch.nn.Module; use stereo.wrap for functions")
    name = name or type(module).__name__
    where = pick_device(str(device))
    engine = _ModuleEngine(module, name, (mean, std), multiple, sign, where, precision)
    facts = {"device": str(where), "precision": str(engine.dtype).removeprefix("torch.")}
    return foreign_matcher(
        engine, name, max_disparity, module, min_disparity=min_disparity, **facts
    )


def foreign_matcher(
    engine: Engine, name: str, max_disparity: int, network: nn.Module | None = None, **facts: Any
) -> Matcher:
    """Return the matcher of an engine that is not ours.

    Args:
        engine: the engine.
        name: stands in reports.
        max_disparity: pixels.
        network: behind the engine, if it is one of PyTorch.
        facts: of its description, further ones or in place of the default ones.
    """
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise UsageError(
            f"'{name}' cannot name a model: give a name of letters, digits and . _ + -"
        )
    check_max_disparity(max_disparity)
    check_min_disparity(facts.get("min_disparity", 0))
    default = {"min_disparity": 0, "device": "cpu", "version": __version__}
    return Matcher(
        engine, network, {"name": name, "max_disparity": max_disparity} | default | facts
    )


class _FunctionEngine:
    """A function on one pair as an engine."""

    def __init__(self, function: MatchFunction, name: str, sign: str) -> None:
        if not callable(function) or isinstance(function, nn.Module):
            raise UsageError(
                f"{function!r} is no function of two views; stereo.wrap_network takes torch modules"
            )
        if sign not in SIGNS:
            raise unknown_name("sign", sign, SIGNS)
        self.function, self.name, self.sign = function, name, sign

    def __call__(self, lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]) -> list[Estimate]:
        return [self._match(*pair) for pair in zip(lefts, rights, strict=True)]

    def _match(self, left: np.ndarray, right: np.ndarray) -> Estimate:
        views = (np.array(left, order="C"), np.array(right, order="C"))
        found = calling(self.name, self.function, *views)
        return Estimate(checked_map(found, self.name, left.shape[:2], self.sign))


class _ModuleEngine:
    """A network of PyTorch as an engine: normalise, pad, match, crop."""

    def __init__(
        self,
        module: nn.Module,
        name: str,
        scaling: tuple[Sequence[float], Sequence[float]],
        multiple: int,
        sign: str | None,
        device: torch.device,
        precision: str,
    ) -> None:
        if sign is not None and sign not in SIGNS:
            raise unknown_name("sign", sign, SIGNS)
        mean, std = scaling
        if not (are_numbers(mean, [3]) and are_numbers(std, [3]) and min(std) > 0):
            raise UsageError(f"mean {mean} and std {std}: expected three numbers each, std above 0")
        told = of_255(mean, std)
        if told is not None:
            raise UsageError(told)
        if not (isinstance(multiple, int) and multiple >= 1):
            raise UsageError(f"multiple {multiple!r}: expected a whole number from 1 on")
        self.mean, self.std = [float(each) for each in mean], [float(each) for each in std]
        self.name, self.multiple, self.sign, self.device = name, multiple, sign, device
        self.dtype = pick_dtype(precision, device)
        self.module = module.to(device)

    @torch.no_grad()  # not inference mode: what the module keeps of a match may be trained with
    def __call__(self, lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]) -> list[Estimate]:
        left, right = (
            pad_to_multiple(
                normalise(views, self.mean, self.std, self.device), self.multiple, "replicate"
            )
            for views in (lefts, rights)
        )
        with computing_in(self.dtype, self.device):
            found = calling(self.name, self.module.eval(), left, right)
        batch, _, *size = left.shape
        found = one_channel(found, self.name)
        if tuple(found.shape) != (batch, *size):
            raise StereoError(
                f"{self.name} gave a map of {tuple(found.shape)} for views of "
                f"{tuple(left.shape)}; expected {(batch, *size)}, at the views' own size"
            )
        height, width = lefts[0].shape[:2]
        maps = found[:, -height:, :width].float().cpu().numpy()
        size = [height, width]
        return [Estimate(checked_map(each, self.name, size, self.sign)) for each in maps]


def calling(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call user code; its errors other than out-of-memory become one line."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        if isinstance(error, StereoError | MemoryError) or is_out_of_memory(error):
            raise
        raise StereoError(f"{name} failed: {error_line(error)}") from error


def error_line(error: BaseException) -> str:
    """Return an error's type, message and last place outside of libraries in one line.

    Raises:
        SystemExit: the error, if it is that of SIGTERM.
    """
    if isinstance(error, SystemExit) and error.code == TERMINATED:
        raise error
    place = ""
    for frame in traceback.extract_tb(error.__traceback__)[1:]:
        if "site-packages" not in frame.filename and not frame.filename.startswith("<"):
            place = f" ({Path(frame.filename).name}, line {frame.lineno})"
    message = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {message}{place}"


def of_255(mean: Sequence[float], std: Sequence[float]) -> str | None:
    """Return what is wrong with a normalisation of RGB in 0..255, or None."""
    if all(abs(value) <= OF_ONE for value in (*mean, *std)):
        return None
    return (
        f"mean {list(mean)} and std {list(std)} are of RGB in 0..255, not in 0..1: divide both by "
        "255"
    )


def are_numbers(values: Any, counts: Sequence[int]) -> bool:
    """Return whether these are finite numbers, as many as one of ``counts``."""
    if isinstance(values, np.ndarray | Tensor):
        values = values.tolist()
    return (
        isinstance(values, Sequence)
        and len(values) in counts
        and all(
            isinstance(each, numbers.Real) and not isinstance(each, bool) and math.isfinite(each)
            for each in values
        )
    )


def one_channel(found: Any, name: str) -> Tensor:  # (B, H, W)
    """Return the disparities of what a network gives: of several maps the last, of a flow x."""
    while isinstance(found, list | tuple) and found:
        found = found[-1]
    if not isinstance(found, Tensor):
        raise StereoError(
            f"{name} gave {type(found).__name__}; expected a tensor of disparities, (B, H, W)"
        )
    if found.ndim == 4 and found.shape[1] in (1, 2):
        found = found[:, 0]
    return found


def checked_map(
    found: Any, name: str, size: Sequence[int], sign: str | None = "positive"
) -> np.ndarray:
    """Return what a model gave as a map from 0 on, (H, W) float32, pixels.

    Args:
        found: an array or a tensor.
        name: of the model.
        size: H and W.
        sign: of ``SIGNS``; None to leave it unchecked.

    Raises:
        StereoError: it cannot be a map of disparities; the message says why.
    """
    if isinstance(found, Tensor):
        found = found.detach()
        found = found.float() if found.is_floating_point() else found
        found = calling(name, lambda: found.cpu().numpy())
    if not isinstance(found, np.ndarray):
        raise StereoError(f"{name} gave {type(found).__name__}; expected an (H, W) array")
    if found.shape != tuple(size):
        raise StereoError(f"{name} gave a map of {found.shape}; expected {tuple(size)}")
    if not np.issubdtype(found.dtype, np.floating):
        raise StereoError(
            f"{name} gave a map of {found.dtype}; expected floating point, disparities in pixels"
        )
    with np.errstate(over="ignore"):
        disparity = found.astype(np.float32)
    bad = disparity.size - int(np.isfinite(disparity).sum())
    if bad:
        raise StereoError(f"{name} gave a map with {bad} pixels that are not finite; fill them")
    if sign == "negative":
        disparity = -disparity
    median = float(np.median(disparity))
    if sign is not None and median < BELOW_ZERO:
        other = "negative" if sign == "positive" else "positive"
        raise StereoError(
            f"{name} gave disparities mostly below 0 (median {median:.1f} px, taken as {sign}); "
            f"give sign '{other}' where it is wrapped or in its .yaml file, or check the order of "
            "the views"
        )
    return np.maximum(disparity, 0)
