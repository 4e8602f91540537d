"""The original PSMNet, imported from the user's folder; not part of this package."""

import contextlib
import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from stereo.data.synthetic import RenderedPair
from stereo.errors import InputError
from stereo.matching.engine import computing_in, normalise, pad_to_multiple
from stereo.models import NetworkConfig
from stereo.system.runtime import is_out_of_memory


class ReferencePSMNet(nn.Module):
    """The authors' stacked hourglass behind the interface of our networks.

    Args:
        folder: their repository, with ``models/stackhourglass.py``.
        max_disparity: pixels; fixed when it is built.
        device: where it is to run; the authors' code asks for CUDA, and gets this.

    Raises:
        InputError: the folder does not hold it, or it does not run with this PyTorch.
    """

    stride = 16

    def __init__(self, folder: str | Path, max_disparity: int, device: torch.device) -> None:
        super().__init__()
        folder = Path(folder)
        if not (folder / "models" / "stackhourglass.py").is_file():
            raise InputError(
                f"{folder}: holds no models/stackhourglass.py; name a clone of the original PSMNet"
            )
        self.device = device
        try:
            with _imported(folder) as module, _cuda_means(device):
                self.original: nn.Module = module.PSMNet(max_disparity).to(device)
        except Exception as error:  # someone else's code can raise anything
            raise InputError(f"{folder}: the original PSMNet cannot be built ({error})") from error

    def forward(self, left: Tensor, right: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the disparity (B, H, W) of views (B, 3, H, W); three of them in training mode.

        Raises:
            InputError: it does not run at this size, or with this PyTorch.
        """
        with _cuda_means(self.device), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its age
            try:
                disparity = self.original(left, right)
            except Exception as error:  # someone else's code can raise anything
                if is_out_of_memory(error):
                    raise
                pixels = "x".join(map(str, left.shape[2:]))
                raise InputError(
                    f"the original PSMNet does not run on images of {pixels} ({error}); it takes "
                    "none below 256x256"
                ) from error
        size = (len(left), *left.shape[2:])
        if self.training:
            return tuple(each.reshape(size) for each in disparity)
        return disparity.reshape(size)

    @torch.inference_mode()
    def match(self, pair: RenderedPair, config: NetworkConfig, dtype: torch.dtype) -> np.ndarray:
        """Match a pair as an engine does; return its (H, W) float32 map."""
        height, width = pair.left.shape[:2]
        left, right = (
            pad_to_multiple(
                normalise([view], config.mean, config.std, self.device), self.stride, config.padding
            )
            for view in (pair.left, pair.right)
        )
        with computing_in(dtype, self.device):
            disparity = self(left, right)
        return disparity[0, -height:, :width].float().clamp(min=0).cpu().numpy()


@contextlib.contextmanager
def _imported(folder: Path) -> Iterator[ModuleType]:
    """Import ``models.stackhourglass`` from a folder, then undo all side effects."""

    def forget() -> dict[str, ModuleType]:
        names = [n for n in sys.modules if n.split(".")[0] == "models"]
        return {name: sys.modules.pop(name) for name in names}

    others = forget()
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield importlib.import_module("models.stackhourglass")
    finally:
        sys.path.remove(str(folder.resolve()))
        forget()
        sys.modules.update(others)


@contextlib.contextmanager
def _cuda_means(device: torch.device) -> Iterator[None]:
    """Redirect ``tensor.cuda()`` to a device."""
    original = Tensor.cuda
    Tensor.cuda = lambda self, *_, **__: self.to(device)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.cuda = original  # type: ignore[method-assign]
