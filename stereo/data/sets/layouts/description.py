"""Types of the data-set tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stereo.data.io.decoders import Decoder, MaskReader, decode_stored
from stereo.data.sets.patterns import Fields


@dataclass(frozen=True)
class Split:
    """One part of a data set, as one tree stores it."""

    folder: str = ""  # what `<split>` stands for in the tree's patterns
    count: int | None = None  # the published number of pairs; None where none is known to us
    # a field of the patterns and the published number of pairs for each of its values
    groups: tuple[str, Mapping[str, int]] | None = None
    has_truth: bool = True  # whether disparities are published
    keep: Callable[[Fields], bool] | None = None  # chooses pairs by their fields; None for all


@dataclass(frozen=True)
class Layout:
    """A directory tree of a data set, and how its files are read.

    The patterns are those of ``stereo.data.sets.patterns``, relative to the root; ``<split>``
    and ``<pass>`` are filled in first. A role whose pattern has fewer fields than the left image's
    serves all pairs that agree in them.
    """

    name: str  # what `--layout` calls it
    sample_name: str  # the name of a pair, with the fields of the left images
    splits: Mapping[str, Split]  # what it is divided into, by name
    left: str  # left images
    right: str  # right images
    disparity: str  # ground truth of the left images
    disparity_right: str | None = None  # ground truth of the right images, where published
    # what a pair shows, as PLACE/FRAME or PLACE, where others show the same place, such as in
    # other light; None for the pair's name
    subject: Callable[[Fields], str] | None = None
    # masks of the left images with their readers, where published
    nonoccluded: tuple[tuple[str, MaskReader], ...] = ()
    # where below the root the tree may start; empty for the part's own folders
    folders: tuple[str, ...] = ()
    decode: Decoder = decode_stored  # how disparities are stored
    zero_is_missing: bool = True  # whether a disparity of 0 means "no ground truth"
    dense: bool = False  # whether every pixel has ground truth
    # whether some pairs are published without ground truth; they are left out
    truth_is_partial: bool = False


@dataclass(frozen=True)
class Part:
    """A subset that is published as one download."""

    title: str  # what messages call it
    folders: tuple[str, ...]  # where below the root it may lie; "" is the root itself
    layouts: tuple[Layout, ...]  # the trees it is known in, the preferred one first
    # whether finding several layouts is an error (they are different data, such as sizes), not a
    # matter of preference
    one_layout_only: bool = False
    optional: bool = False  # whether the data set may lack it
    # how `all_unused_files.txt` names a pair, with `<view>`; None if it is not about this part
    unused_name: str | None = None

    def folders_of(self, layout: Layout) -> tuple[str, ...]:
        """Return where below the root this tree may start, the usual place first."""
        return layout.folders or self.folders


@dataclass(frozen=True)
class Description:
    """A data set by name."""

    what: str  # one line for `stereo data list`
    parts: tuple[Part, ...] = ()  # what it is made of; a split has the parts that know it
    default_split: str | None = None  # the split when none is named
    # renderings to choose from, the default first; empty for photographs
    passes: tuple[str, ...] = field(default=())

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that some part has."""
        names = (name for p in self.parts for layout in p.layouts for name in layout.splits)
        return tuple(dict.fromkeys(names))
