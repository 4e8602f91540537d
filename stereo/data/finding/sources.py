"""Input pairs of ``infer``: images, numbered images or videos."""

import functools
import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stereo.data.finding.pairs import PairFiles, find_pairs, find_pictures, unique_names
from stereo.data.finding.sequences import Numbered, is_numbered, pair_by_number
from stereo.data.io.decoders import stored
from stereo.data.io.images import depth_of, has_both_views, read_both_views, read_samples, to_8_bits
from stereo.data.io.videos import PACKINGS, VIDEO_SUFFIXES, Video, is_address, is_video, split_views
from stereo.data.sets.sample import Sample, SampleFiles, check_same_size
from stereo.errors import InputError, UsageError, unknown_name
from stereo.system.console import warn

SAME_RATE = 0.01  # of the frames a second of two videos
STILLS_A_SECOND = 25.0  # of numbered images, which do not say


@dataclass(frozen=True)
class FrameSequence:
    """A video or numbered images; ``rate`` is in frames per second."""

    name: str
    rate: float


class Source(Protocol):
    """A pair that can be read."""

    @property
    def name(self) -> str:
        """Unique name among the pairs of a run, used for its outputs."""

    @property
    def sequence(self) -> FrameSequence | None:
        """The video of this frame, or None."""

    def files(self) -> list[Path]:
        """Return the source files."""

    def read(self) -> Sample:
        """Read it.

        Raises:
            InputError: it cannot be read.
        """


class Series:
    """Bit depth shared by numbered images; a depth per frame would flicker."""

    def __init__(self, first: Sequence[Path]) -> None:
        self._first = first

    @functools.cached_property
    def depth(self) -> int:
        """Bits of the first frame's samples; brighter frames may have more."""
        try:
            return depth_of([read_samples(path) for path in self._first])
        except InputError:
            return 8  # its own match says what is wrong


@dataclass(frozen=True)
class PictureSource:
    """A pair of two images, perhaps with ground truth stored at ``truth_scale`` per pixel."""

    pair: PairFiles
    truth_scale: float | None = None
    sequence: FrameSequence | None = None
    series: Series | None = None

    @property
    def name(self) -> str:
        """The pair's name."""
        return self.pair.name

    def files(self) -> list[Path]:
        """Return both images, and the ground truth."""
        return self.pair.files()

    def read(self) -> Sample:
        """Read the images and the ground truth."""
        pair = self.pair
        return SampleFiles(
            pair.name,
            pair.left,
            pair.right,
            pair.truth,
            decode=stored(self.truth_scale),
            least_depth=8 if self.series is None else self.series.depth,
        ).read()


@dataclass(frozen=True)
class PackedSource:
    """A pair of two views in one image, packed, or None for the two frames of an MPO."""

    name: str
    path: Path
    packing: str | None
    sequence: FrameSequence | None = None
    series: Series | None = None

    def files(self) -> list[Path]:
        """Return the image."""
        return [self.path]

    def read(self) -> Sample:
        """Read the image and cut it."""
        if self.packing is None:
            views = read_both_views(self.path)
            check_same_size(*views, f"{self.path}'s first frame", "its second")
            return Sample(self.name, *views)
        if has_both_views(self.path):
            raise InputError(
                f"{self.path}: holds both views in two frames; leave out --packing {self.packing}"
            )
        least = 8 if self.series is None else self.series.depth
        (picture,) = to_8_bits([read_samples(self.path)], least)
        return Sample(self.name, *split_views(picture, self.packing, str(self.path)))


@dataclass(frozen=True)
class FrameSource:
    """A pair of frames of two videos, or of a frame that holds both views."""

    left: Video
    right: Video | None
    index: int
    packing: str | None

    @property
    def name(self) -> str:
        """The left video's name and the number of the frame."""
        return f"{self.left.name}_{self.index:06d}"

    @property
    def sequence(self) -> FrameSequence:
        """The left video."""
        return FrameSequence(self.left.name, self.left.rate)

    def files(self) -> list[Path]:
        """Return the videos."""
        return [video.path for video in (self.left, self.right) if video is not None]

    def read(self) -> Sample:
        """Decode the frames."""
        frame = self.left.read(self.index)
        if self.right is None:
            assert self.packing is not None
            return Sample(self.name, *split_views(frame, self.packing, self.left.source))
        other = self.right.read(self.index)
        check_same_size(frame, other, self.left.source, self.right.source)
        return Sample(self.name, frame, other)


def file_stamps(files: Iterable[Path]) -> dict[str, list[int]]:
    """Return size, bytes, and time of change, ns, of each file that exists, by path."""
    found = {str(path): path.stat() for path in set(files) if path.is_file()}
    return {name: [status.st_size, status.st_mtime_ns] for name, status in found.items()}


def find_sources(
    left: str,
    right: str | None,
    *,
    packing: str | None = None,
    truth: str | None = None,
    truth_scale: float | None = None,
) -> list[Source]:
    """Find the pairs that the arguments of ``infer`` denote.

    Args:
        left: a file, a folder, a glob, a video, or numbered images such as ``left_%06d.png``.
        right: the same kind of thing, or None where ``left`` holds both views.
        packing: ``side-by-side`` or ``top-bottom``; None for two separate views, or for MPO files,
            whose two frames are the views.
        truth: ground truth for each left image, or None.
        truth_scale: stored value per pixel, for integer images.

    Raises:
        UsageError: a packing with a right view, or neither; ground truth of a video, or a
            scale without ground truth.
        InputError: nothing found, a file without a partner, or videos of other lengths or sizes.
    """
    if truth_scale is not None and truth is None:
        raise UsageError("--ground-truth-scale needs --ground-truth")
    if packing is not None and packing not in PACKINGS:
        raise unknown_name("packing", packing, PACKINGS)
    if right is None and packing is None and not _hold_both_views(left):
        raise UsageError(
            f"no right view for {left}: name it, or give --packing side-by-side or top-bottom if "
            "each image holds both"
        )
    if right is not None and packing is not None:
        raise UsageError(
            f"--packing {packing} is for images that hold both views: leave out {right}"
        )
    views = [_one_video(view) for view in (left, right) if view is not None]
    kinds = [_kind(view) for view in views]
    if kinds[0] != kinds[-1]:
        raise InputError(
            f"{left} names {kinds[0]} and {right} {kinds[-1]}: both views must be of the same kind"
        )
    if kinds[0] != _PICTURES and right is not None and views[0] == views[1]:
        raise InputError(f"{left}: is named as the left and as the right view")
    if truth is not None and (kinds[0] != _PICTURES or right is None):
        raise UsageError("--ground-truth needs images, a left and a right one for each")
    if kinds[0] == _VIDEO:
        return _frames([Video(view) for view in views], packing)
    if kinds[0] == _NUMBERED:
        return _stills([Numbered(view) for view in views], packing)
    if right is not None:
        return [PictureSource(pair, truth_scale) for pair in find_pairs(left, right, truth)]
    paths = find_pictures(left)
    names = unique_names(paths)
    return [PackedSource(name, path, packing) for name, path in zip(names, paths, strict=True)]


_PICTURES, _NUMBERED, _VIDEO = "images", "numbered images", "a video"


def _kind(argument: str) -> str:
    if is_numbered(argument):
        return _NUMBERED
    return _VIDEO if is_video(argument) else _PICTURES


def _hold_both_views(argument: str) -> bool:
    """Return whether an argument denotes images of two frames, the left and right view."""
    kind = _kind(argument)
    if kind == _VIDEO:
        return False
    try:
        paths = (
            list(Numbered(argument).files.values())
            if kind == _NUMBERED
            else find_pictures(argument)
        )
    except InputError:
        return False
    single = [path for path in paths if not has_both_views(path)]
    if single and len(single) < len(paths):
        raise InputError(f"{single[0]}: does not hold both views, as others in {argument} do")
    return not single


def _one_video(argument: str) -> str:
    """Return the only video that a glob matches; any other argument unchanged."""
    if is_address(argument) or not glob.has_magic(argument) or os.path.exists(argument):
        return argument
    try:
        found = sorted(filter(os.path.isfile, glob.glob(argument, recursive=True)))
    except re.error:
        return argument  # reported as a glob of images
    if len(found) == 1 and is_video(found[0]):
        return found[0]
    videos = [path for path in found if Path(path).suffix.lower() in VIDEO_SUFFIXES]
    if len(videos) > 1:
        raise InputError(
            f"{argument}: matches {len(videos)} videos ({videos[0]}, {videos[1]}, ...); name one"
        )
    return argument


def _stills(views: list[Numbered], packing: str | None) -> list[Source]:
    sequence = FrameSequence(views[0].name, STILLS_A_SECOND)
    found = pair_by_number(views[0], views[1] if len(views) > 1 else None)
    series = Series(found[0])
    if len(views) == 1:
        return [PackedSource(path.stem, path, packing, sequence, series) for (path,) in found]
    pairs = [PairFiles(left.stem, left, right) for left, right in found]
    return [PictureSource(pair, sequence=sequence, series=series) for pair in pairs]


def _frames(videos: list[Video], packing: str | None) -> list[Source]:
    counts = [video.count() for video in videos]
    if counts[0] != counts[-1]:
        raise InputError(
            f"{videos[0].source} has {counts[0]} frames and {videos[-1].source} {counts[-1]}: trim "
            "them so that equal numbers were taken at the same time"
        )
    rates = [video.rate for video in videos]
    if abs(rates[0] - rates[-1]) > SAME_RATE * rates[0]:
        warn(
            f"warning: {videos[0].source} has {rates[0]:g} frames a second and {videos[-1].source} "
            f"{rates[-1]:g}: frames of one number were hardly taken at one time"
        )
    if not counts[0]:
        raise InputError(f"{videos[0].source}: holds no frame that OpenCV can decode")
    right = videos[1] if packing is None else None
    frames = [FrameSource(videos[0], right, index, packing) for index in range(counts[0])]
    frames[0].read()  # sizes that do not fit are the same in all frames
    return list(frames)
