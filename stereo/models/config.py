"""The configuration of a network: enough to rebuild it, stored in every checkpoint."""

import dataclasses
import numbers
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from stereo.attention import ATTENTIONS
from stereo.errors import UsageError, unknown_name

Upsampling = Literal["unbiased", "align_corners", "half_pixel"]
Padding = Literal["replicate", "zeros"]

SITES_OF: dict[str, tuple[str, ...]] = {
    "psmnet": (),
    "psmnet_basic": (),
    "ea_psmnet": ("quarter", "eighth", "sixteenth"),
    "ea_stereo_fast": ("sixteenth", "eighth"),
    "ea_stereo": ("sixteenth", "eighth"),
}
"""Network -> possible sites of attention, the default first."""
EA_STEREOS = ("ea_stereo_fast", "ea_stereo")
NETWORK_NAMES = tuple(SITES_OF)
NO_ATTENTION = "none"
SITES = ("quarter", "eighth", "sixteenth")
STRIDE = 16
SPARE = 16  # pixels searched beyond the range, where the last planes err
MAX_DISPARITY = 8192  # pixels: half the width of the widest images there are
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class AttentionConfig:
    """Attention in the aggregation of the 4D cost volume: which one, and where."""

    name: str = "efficient"
    """A key of ``stereo.attention.ATTENTIONS``, or ``none`` for no attention, as a baseline."""
    sites: tuple[str, ...] | None = None
    """``quarter``: the volume before the first hourglass; ``eighth`` and ``sixteenth``: inside the
    first hourglass (in EA-Stereo the encoder-decoder), at these resolutions. None for the
    network's default. The paper does not say where it placed its attention."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword options of the attention's class, such as ``heads``."""
    mask_invalid: bool = False
    """Mask as keys the cells whose match lies outside the right image (x < d)."""

    def __post_init__(self) -> None:
        if not isinstance(self.mask_invalid, bool):
            raise UsageError(f"mask_invalid {self.mask_invalid!r}: expected true or false")
        if not isinstance(self.options, dict):
            raise UsageError(f"attention options {self.options!r}: expected names and values")
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in self.options.items()}
        object.__setattr__(self, "options", options)  # as a checkpoint's JSON gives them back
        if self.name not in (*ATTENTIONS, NO_ATTENTION):
            raise unknown_name("attention", self.name, [*ATTENTIONS, NO_ATTENTION])
        if self.name == NO_ATTENTION and (self.options or self.mask_invalid):
            raise UsageError(
                f"the attention '{self.name}' takes no options or mask; clear a recipe's with "
                "--network.attention.options {} --network.attention.mask_invalid false"
            )
        if self.sites is None:
            return
        if isinstance(self.sites, str):
            raise UsageError(f"attention sites '{self.sites}': expected a list of names")
        object.__setattr__(self, "sites", tuple(self.sites))
        for site in self.sites:
            if site not in SITES:
                raise unknown_name("attention site", site, SITES)
        if not self.sites or len(set(self.sites)) != len(self.sites):
            raise UsageError(f"attention sites {self.sites}: name each of one or several once")


@dataclass(frozen=True)
class NetworkConfig:
    """A network and the conventions its weights were trained under."""

    name: str
    """A name of ``NETWORK_NAMES``."""
    max_disparity: int = 192
    """Disparities below this many pixels are searched; a multiple of 16."""
    upsampling: Upsampling = "unbiased"
    """How the quarter-resolution volume is read at full resolution. ``unbiased``: sample i is
    pixel 4i and plane k is disparity 4k. ``align_corners`` and ``half_pixel`` are PSMNet's two
    conventions, which published weights need; with them a map ends at ``max_disparity`` - 1, and
    errs between the planes."""
    padding: Padding = "replicate"
    """How images are padded to a multiple of 16, at the top and right; ``zeros`` (after
    normalisation) is PSMNet's."""
    attention: AttentionConfig | None = None
    """Attention over the cost volume, in the networks of ``SITES_OF`` that have sites; None for
    their default."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Subtracted from RGB in 0..1."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Divides RGB after the mean is subtracted."""

    def __post_init__(self) -> None:
        if self.name not in NETWORK_NAMES:
            raise unknown_name("network", self.name, NETWORK_NAMES)
        if type(self.max_disparity) is not int:
            raise UsageError(f"max disparity {self.max_disparity!r} is not a whole number")
        check_max_disparity(self.max_disparity)
        for key, known in (("upsampling", Upsampling), ("padding", Padding)):
            if getattr(self, key) not in get_args(known):
                raise unknown_name(key, getattr(self, key), get_args(known))
        if self.upsampling != "unbiased" and self.name in EA_STEREOS:
            raise UsageError(
                f"upsampling {self.upsampling}: '{self.name}' knows only 'unbiased'; the others "
                "are for PSMNets"
            )
        self._settle_attention()
        for key in ("mean", "std"):
            values = tuple(getattr(self, key))
            if len(values) != 3 or not all(type(v) in (int, float) for v in values):
                raise UsageError(f"{key} {values}: expected three numbers")
            if not all(-256 <= value <= 256 for value in values):
                raise UsageError(f"{key} {values}: expected numbers of about 0..1, as RGB has")
            object.__setattr__(self, key, values)
        if not all(value > 0 for value in self.std):
            raise UsageError(f"std {self.std}: expected positive numbers")

    def _settle_attention(self) -> None:
        """Fill in the default attention and sites; refuse what the network does not support."""
        sites = SITES_OF[self.name]
        if not sites:
            if self.attention is not None:
                known = ", ".join(name for name, sites in SITES_OF.items() if sites)
                raise UsageError(f"the network '{self.name}' takes no attention; use {known}")
            return
        attention = self.attention or AttentionConfig()
        if attention.sites is None:
            attention = dataclasses.replace(attention, sites=sites[:1])
        assert attention.sites is not None
        for site in attention.sites:
            if site not in sites:
                raise unknown_name(f"attention site of '{self.name}'", site, sites)
        object.__setattr__(self, "attention", attention)

    @property
    def bf16_by_default(self) -> bool:
        """Whether ``auto`` may be bf16; not in PSMNet's conventions, whose figures are of fp32."""
        return self.upsampling == "unbiased"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "NetworkConfig":
        """Undo ``to_dict``.

        Raises:
            UsageError: a field is missing, since a default could be another than the weights need,
                or has a value that it cannot have.
            TypeError: a field is unknown.
        """
        data = dict(data)
        if missing := [each.name for each in dataclasses.fields(cls) if each.name not in data]:
            raise UsageError(f"the network's description lacks '{missing[0]}'")
        if SITES_OF.get(data["name"]) or data["attention"] is not None:
            attention = data["attention"]
            if not isinstance(attention, dict) or "name" not in attention:
                raise UsageError(f"attention {attention!r}: expected an object with a 'name'")
            data["attention"] = AttentionConfig(**attention)
        return cls(**data)


def check_min_disparity(min_disparity: object) -> None:
    """Raise ``UsageError`` unless it is whole and lies within ``MAX_DISPARITY`` of 0."""
    if not isinstance(min_disparity, numbers.Integral) or isinstance(min_disparity, bool):
        raise UsageError(f"min disparity {min_disparity!r} is not a whole number")
    min_disparity = int(min_disparity)
    if abs(min_disparity) > MAX_DISPARITY:
        raise UsageError(
            f"min disparity {min_disparity}: expected {-MAX_DISPARITY} to {MAX_DISPARITY} px"
        )


def check_max_disparity(max_disparity: object) -> None:
    """Raise ``UsageError`` unless it is a multiple of 16 from 16 to ``MAX_DISPARITY``."""
    if not isinstance(max_disparity, numbers.Integral) or isinstance(max_disparity, bool):
        raise UsageError(f"max disparity {max_disparity!r} is not a whole number")
    max_disparity = int(max_disparity)
    if max_disparity < 16 or max_disparity % 16:
        larger = min(max(16, -(-max_disparity // 16) * 16), MAX_DISPARITY)
        raise UsageError(
            f"max disparity {max_disparity} is not a positive multiple of 16; use {larger}"
        )
    if max_disparity > MAX_DISPARITY:
        raise UsageError(f"max disparity {max_disparity} is more than {MAX_DISPARITY} px")
