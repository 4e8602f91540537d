"""Networks of the library ``stereo_matching`` (PyPI), as ``zoo:NAME``: the extra ``zoo``.

The library's own pipeline resizes every pair to a height of 384 pixels; here its networks match a
pair at its own size, padded to a multiple, with the library's normalisation.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from stereo.errors import StereoError, unknown_name
from stereo.system.bundled import ZOO
from stereo.system.extras import import_extra

_LIBRARY = "stereo_matching"
_UNSTATED = "not stated"
_NVIDIA = "NVIDIA, non-commercial"
_LICENCES = {  # of a family's published code and of its weights, as their authors state them
    "raft-stereo": ("MIT", _UNSTATED),
    "crestereo": ("Apache-2.0", _UNSTATED),
    "aanet": ("Apache-2.0", _UNSTATED),
    "foundation-stereo": (_NVIDIA, _NVIDIA),
    "igev-stereo": ("MIT", _UNSTATED),
    "igev-plusplus": ("MIT", _UNSTATED),
    "s2m2": ("CC BY-NC 4.0", "CC BY-NC 4.0"),
    "unimatch": (_UNSTATED, _UNSTATED),
}
_MULTIPLES = {"aanet": 12}  # of height and width; other families take multiples of 32
_CACHED = {  # where the library looks for weights besides the cache of the Hugging Face hub
    "foundation-stereo": "~/.cache/foundation_stereo/{config.ckpt_dir}/model_best_bp2.pth",
    "igev-stereo": "~/.cache/stereo_matching/igev_stereo/{config.checkpoint_filename}",
    "igev-plusplus": "~/.cache/stereo_matching/igev_plusplus/{config.checkpoint_filename}",
    "unimatch": "~/.cache/stereo_matching/unimatch/{config.checkpoint_filename}",
}


@dataclass(frozen=True)
class ZooNetwork:
    """A network that the library lists.

    Attributes:
        name: the library's.
        family: likewise.
        config: the library's configuration.
    """

    name: str
    family: str
    config: Any

    @property
    def max_disparity(self) -> int:
        """Pixels, as the network's volume has it; of networks without one, what they are for."""
        return int(getattr(self.config, "max_disp", self.config.max_disparity))

    @property
    def multiple(self) -> int:
        """Of which height and width must be."""
        return _MULTIPLES.get(self.family, 32)

    @property
    def licences(self) -> tuple[str, str]:
        """Of the code and of the weights."""
        return _LICENCES.get(self.family, (_UNSTATED, _UNSTATED))

    def has_weights(self) -> bool:
        """Return whether the weights are on this machine."""
        place = _CACHED.get(self.family, "").format(config=self.config)
        if place and Path(place).expanduser().is_file():
            return True
        repository = getattr(self.config, "hub_repo_id", "")
        if not repository:
            return False
        from huggingface_hub import try_to_load_from_cache

        kind = "dataset" if self.family == "aanet" else None
        name = self.config.checkpoint_filename
        return isinstance(try_to_load_from_cache(repository, name, repo_type=kind), str)

    def build(self) -> nn.Module:
        """Return the network with random weights, always the same.

        Raises:
            StereoError: its parts cannot be had without a download.
        """
        try:
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                torch.manual_seed(0)
                return _registry().get_model_cls(self.name)(self.config)
        except Exception as error:
            raise StereoError(
                f"{ZOO}{self.name} cannot be built ({_first_sentence(error)}): its library "
                "downloads parts of it; connect to the internet once"
            ) from error

    def load(self) -> nn.Module:
        """Return the network with its weights, downloaded by the library if need be.

        Raises:
            StereoError: they are not cached and cannot be downloaded.
        """
        model = _registry().get_model_cls(self.name)
        try:
            with _weights_alone(), _quiet_hub():
                return model.from_pretrained(self.name, device="cpu")
        except Exception as error:
            cause = error.__cause__ or error
            raise StereoError(
                f"{ZOO}{self.name}: its weights cannot be downloaded ({_first_sentence(cause)}); "
                "connect to the internet once, or add --allow-untrained for random ones"
            ) from error


def zoo_networks() -> list[ZooNetwork]:
    """Return the networks that the library lists.

    Raises:
        StereoError: the library is not installed.
    """
    registry = _registry()
    return [
        ZooNetwork(
            name,
            registry.resolve_model_type(name),
            registry.get_config_cls(name).from_variant(name),
        )
        for name in registry.list_variants()
    ]


def zoo_network(model: str | Path) -> ZooNetwork:
    """Return the network that ``zoo:NAME`` names.

    Raises:
        StereoError: the library is not installed.
        UsageError: it lists no such network.
    """
    name = str(model).removeprefix(ZOO)
    networks = {each.name: each for each in zoo_networks()}
    if name not in networks:
        raise unknown_name("network of the zoo", name, networks)
    return networks[name]


def library_version() -> str:
    """Return the library's name and version."""
    return f"{_LIBRARY} {import_extra(_LIBRARY, 'zoo', 'zoo:NAME').__version__}"


@contextlib.contextmanager
def _weights_alone() -> Iterator[None]:
    """Force ``weights_only=True``, so that loading weights runs no code of the file."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Silence the hub's message per attempt; the final error is reported once."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _registry() -> Any:
    library: ModuleType = import_extra(_LIBRARY, "zoo", "zoo:NAME")
    return library.MODEL_REGISTRY


def _first_sentence(error: BaseException) -> str:
    return re.split(r"\n|\. ", str(error).strip())[0][:200]
