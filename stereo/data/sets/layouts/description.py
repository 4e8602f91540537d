"""Types of the data-set tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from stereo.data.finding.patterns import Fields
from stereo.data.io.decoders import Decoder, MaskReader, decode_stored


@dataclass(frozen=True)
class Split:
    """One part of a data set, as one tree stores it.

    Attributes:
        folder: what ``<split>`` stands for in the tree's patterns.
        count: the published number of pairs; None where none is known to us.
        groups: a field of the patterns and the published number of pairs for each of its values.
        has_truth: whether disparities are published.
        keep: chooses pairs by their fields; None for all.
    """

    folder: str = ""
    count: int | None = None
    groups: tuple[str, Mapping[str, int]] | None = None
    has_truth: bool = True
    keep: Callable[[Fields], bool] | None = None


@dataclass(frozen=True)
class Layout:
    """One tree in which a data set is kept, and how its files are read.

    The patterns are those of ``stereo.data.finding.patterns``, relative to the root; ``<split>``
    and ``<pass>`` are filled in first. A role whose pattern has fewer fields than the left image's
    serves all pairs that agree in them.

    Attributes:
        name: what ``--layout`` calls it.
        sample_name: the name of a pair, with the fields of the left images.
        splits: what it is divided into, by name.
        left: left images.
        right: right images.
        disparity: ground truth of the left images.
        disparity_right: ground truth of the right images, where published.
        nonoccluded: masks of the left images with their readers, where published.
        calibration: calibration files, where published.
        folders: where below the root the tree may start; empty for the part's own folders.
        decode: how disparities are stored.
        zero_is_missing: whether a disparity of 0 means "no ground truth".
        dense: whether every pixel has ground truth.
        truth_is_partial: whether some pairs are published without ground truth; they are left out.
    """

    name: str
    sample_name: str
    splits: Mapping[str, Split]
    left: str
    right: str
    disparity: str
    disparity_right: str | None = None
    nonoccluded: tuple[tuple[str, MaskReader], ...] = ()
    calibration: str | None = None
    folders: tuple[str, ...] = ()
    decode: Decoder = decode_stored
    zero_is_missing: bool = True
    dense: bool = False
    truth_is_partial: bool = False


@dataclass(frozen=True)
class Part:
    """A body of pairs that is published as one thing.

    Attributes:
        title: what messages call it.
        folders: where below the root it may lie; "" is the root itself.
        layouts: the trees it is known in, the preferred one first.
        one_layout_only: whether finding several layouts is an error (they are different data, such
            as sizes), not a matter of preference.
        optional: whether the data set may lack it.
        unused_name: how ``all_unused_files.txt`` names a pair, with ``<view>``; None if it is not
            about this part.
    """

    title: str
    folders: tuple[str, ...]
    layouts: tuple[Layout, ...]
    one_layout_only: bool = False
    optional: bool = False
    unused_name: str | None = None

    def folders_of(self, layout: Layout) -> tuple[str, ...]:
        """Return where below the root this tree may start, the usual place first."""
        return layout.folders or self.folders


@dataclass(frozen=True)
class Description:
    """A data set by name.

    Attributes:
        what: one line for ``stereo data list``.
        parts: what it is made of; a split has the parts that know it.
        default_split: the split when none is named.
        passes: renderings to choose from, the default first; empty for photographs.
    """

    what: str
    parts: tuple[Part, ...] = ()
    default_split: str | None = None
    passes: tuple[str, ...] = field(default=())

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that some part has."""
        names = (name for p in self.parts for layout in p.layouts for name in layout.splits)
        return tuple(dict.fromkeys(names))
