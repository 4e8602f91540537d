"""How a model matches: the options of ``stereo.load``, the commands and the page."""

import dataclasses
import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from stereo.errors import InputError, UsageError, unknown_name
from stereo.system.bundled import SGBM, ZOO, bundled_weights
from stereo.system.compute import ComputeOptions

_CODE = re.compile(r".+\.py:\w+")
Kind = Literal["sgbm", "zoo", "code", "onnx", "network"]


def kind_of(model: str | Path) -> Kind:
    """Return the kind of model that a name or path denotes, without opening it.

    ``sgbm``; ``zoo`` for ``zoo:NAME``; ``code`` for ``FILE.py:NAME``; ``onnx``; and ``network`` for
    one of ours, by its name or its checkpoint.
    """
    name = str(model)
    if name == SGBM:
        return "sgbm"
    if name.startswith(ZOO):
        return "zoo"
    if _CODE.fullmatch(name):
        return "code"
    return "onnx" if name.lower().endswith(".onnx") else "network"


@dataclass(frozen=True)
class MatchOptions(ComputeOptions):
    """How a model matches; each option's docstring is also the commands' help.

    Digits may be given as a number: ``scale=1``, ``tile=512``.

    Raises:
        UsageError: a value of another type, or one that no model takes.
    """

    max_disparity: int | None = None
    """Number of disparities searched, pixels, a multiple of 16 (default: the checkpoint's own; 192
    for sgbm and untrained networks)."""
    min_disparity: int = 0
    """Where the search starts, pixels: it covers [min, min + max-disparity). Negative for points
    behind infinity, as in crops and with converging cameras."""
    scale: Literal["1", "2"] = "1"
    """2: networks match at the pair's size, then at twice that over the range found: several times
    slower, but finer for thin structures. The map always has the pair's own size and pixels."""
    tile: str = "auto"
    """Tile size in pixels; auto: tiles if the whole image does not fit in memory; off: never.
    Features, and attention that streams, still see the whole image."""
    coarse_to_fine: bool = False
    """Find the disparity range at half size first: faster if it is much smaller than
    max-disparity."""
    compile: str = "off"
    """A backend of torch.compile, such as inductor; compiling takes minutes per image size."""
    allow_untrained: bool = False
    """Run a network without bundled weights with random ones, always the same; its map is
    meaningless."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in dataclasses.fields(self):
            value, hint = getattr(self, each.name), hints[each.name]
            if hint is bool:
                if not isinstance(value, bool):
                    raise UsageError(f"{each.name} {value!r}: expected True or False")
            elif hint is str or get_origin(hint) is Literal:
                if each.name in ("scale", "tile") and _is_whole(value):
                    value = str(int(value))
                    object.__setattr__(self, each.name, value)
                if not isinstance(value, str):
                    raise UsageError(f"{each.name} {value!r}: expected a string")
                if get_origin(hint) is Literal and value not in get_args(hint):
                    raise unknown_name(each.name, value, get_args(hint))
        super().__post_init__()
        self._check_range()
        self._check_tile()

    def _check_range(self) -> None:
        from stereo.models.config import check_max_disparity, check_min_disparity

        check_min_disparity(self.min_disparity)
        object.__setattr__(self, "min_disparity", int(self.min_disparity))
        if self.max_disparity is not None:
            check_max_disparity(self.max_disparity)
            object.__setattr__(self, "max_disparity", int(self.max_disparity))

    def _check_tile(self) -> None:
        from stereo.matching.tiles import MIN_TILE
        from stereo.models.config import STRIDE

        if self.tile in ("auto", "off"):
            return
        if not self.tile.isdecimal() or int(self.tile) < MIN_TILE or int(self.tile) % STRIDE:
            raise UsageError(
                f"tile '{self.tile}': expected auto, off, or pixels, "
                f"a multiple of {STRIDE} from {MIN_TILE} on"
            )

    def check(self, model: str | Path) -> None:
        """Check everything that ``stereo.load`` can check without reading weights.

        Raises:
            UsageError: an unknown model, device or backend, a model without weights, or an option
                that this model does not take.
            InputError: a missing file of code.
            StereoError: a network of the zoo without its library.
        """
        from stereo.models.zoo import zoo_network
        from stereo.system.runtime import pick_device, pick_dtype

        name, kind = str(model), kind_of(model)
        if kind == "sgbm":
            self._check_sgbm()
        elif kind == "code":
            self._check_foreign(name, "a model in a file of code", "set it in the file")
            path = name.rpartition(":")[0]
            if not Path(path).is_file():
                raise InputError(f"{path}: no such file; --model takes FILE.py:FUNCTION")
        elif kind == "zoo":
            own = ["device", "precision"]
            self._check_foreign(name, "a network of the zoo", "match with one of ours", own)
            pick_dtype(self.precision, pick_device(self.device))
            zoo_network(name)
        elif kind == "onnx":
            remedy = "match with the network's name or checkpoint"
            self._check_foreign(name, "an exported network", remedy, ["max_disparity", "precision"])
        else:
            self._check_network(name)

    def for_further(self, model: str | Path) -> "MatchOptions":
        """Return those of the options that a further model of the same command supports.

        Args:
            model: as in ``stereo.load``.
        """
        kind = kind_of(model)
        if kind == "network":
            return self
        return MatchOptions(**{name: getattr(self, name) for name in _TAKEN[kind]})

    def _check_sgbm(self) -> None:
        from stereo.matching.sgbm import SGBM_LIMIT

        own = ["max_disparity", "precision"]
        self._check_foreign(SGBM, "semi-global matching", "match with a network", own)
        if self.precision in ("bf16", "fp16"):
            raise UsageError(f"sgbm computes in whole numbers, not {self.precision}; leave it out")
        if (self.max_disparity or 0) > SGBM_LIMIT:
            raise UsageError(f"sgbm searches at most {SGBM_LIMIT} px, not {self.max_disparity}")

    def _check_foreign(self, name: str, what: str, remedy: str, taken: Sequence[str] = ()) -> None:
        """Refuse the options of our networks that a model of another kind does not take."""
        for option, values in _LEFT_OUT.items():
            if option not in taken and getattr(self, option) not in values:
                raise UsageError(
                    f"{name}: {what} takes no --{option.replace('_', '-')}; leave it out, or "
                    f"{remedy}"
                )

    def _check_network(self, name: str) -> None:
        import torch

        from stereo.models.config import NETWORK_NAMES
        from stereo.system.runtime import pick_device, pick_dtype

        if name not in NETWORK_NAMES:
            if re.search(r"\.py(:|$)", name):
                raise UsageError(f"'{name}': name what to run in the file, as in FILE.py:FUNCTION")
            if not (name.endswith(".safetensors") or Path(name).is_file()):
                files = "a .safetensors or .onnx file, FILE.py:FUNCTION, zoo:NAME"
                known = [SGBM, *NETWORK_NAMES, files]
                raise unknown_name("model", name, known)
        elif bundled_weights(name) is None and not self.allow_untrained:
            raise UsageError(
                f"'{name}' has no trained weights yet: name a .safetensors checkpoint or another "
                "model instead; --allow-untrained, where it is known, takes random weights"
            )
        pick_dtype(self.precision, pick_device(self.device))
        if self.compile != "off" and self.compile not in torch.compiler.list_backends(
            exclude_tags=()
        ):
            known = torch.compiler.list_backends()
            raise unknown_name("torch.compile backend", self.compile, ["off", *known])


_LEFT_OUT: dict[str, tuple[object, ...]] = {  # values that count as not given
    "max_disparity": (None,),
    "device": ("auto", "cpu", "cpu:0"),
    "precision": ("auto",),
    "scale": ("1",),
    "tile": ("auto", "off"),
    "coarse_to_fine": (False,),
    "kernels": ("auto",),
    "compile": ("off",),
}
_TAKEN = {  # the shared options of a command that each kind of further model uses
    "sgbm": ("max_disparity", "min_disparity"),
    "zoo": ("min_disparity", "device", "precision", "allow_untrained"),
    "code": ("min_disparity",),
    "onnx": ("min_disparity",),
}


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
