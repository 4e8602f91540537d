"""Whatever ``infer`` is given, as pairs to be read one after the other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stereo.data.decoders import stored
from stereo.data.images import read_image
from stereo.data.pairs import PairFiles, find_pairs, find_pictures, unique_names
from stereo.data.sample import Sample, SampleFiles, check_same_size
from stereo.data.videos import PACKINGS, Video, is_video, split_views
from stereo.errors import InputError, UsageError, unknown_name


class Source(Protocol):
    """A pair that can be read."""

    @property
    def name(self) -> str:
        """Unique among the pairs of a run; what its outputs are called."""

    def files(self) -> list[Path]:
        """Return the files that it is read from."""

    def read(self) -> Sample:
        """Read it.

        Raises:
            InputError: it cannot be read.
        """


@dataclass(frozen=True)
class PictureSource:
    """A pair of two pictures, perhaps with ground truth stored at ``truth_scale`` per pixel."""

    pair: PairFiles
    truth_scale: float | None = None

    @property
    def name(self) -> str:
        """The pair's name."""
        return self.pair.name

    def files(self) -> list[Path]:
        """Return both pictures, and the ground truth."""
        return self.pair.files()

    def read(self) -> Sample:
        """Read the pictures and the ground truth."""
        pair, decode = self.pair, stored(self.truth_scale)
        return SampleFiles(pair.name, pair.left, pair.right, pair.truth, decode=decode).read()


@dataclass(frozen=True)
class PackedSource:
    """A pair of two views in one picture."""

    name: str
    path: Path
    packing: str

    def files(self) -> list[Path]:
        """Return the picture."""
        return [self.path]

    def read(self) -> Sample:
        """Read the picture and cut it."""
        views = split_views(read_image(self.path), self.packing, str(self.path))
        return Sample(self.name, *views)


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

    def files(self) -> list[Path]:
        """Return the videos."""
        return [video.path for video in (self.left, self.right) if video is not None]

    def read(self) -> Sample:
        """Decode the frames."""
        frame = self.left.read(self.index)
        if self.right is None:
            assert self.packing is not None
            return Sample(self.name, *split_views(frame, self.packing, str(self.left.path)))
        other = self.right.read(self.index)
        check_same_size(frame, other, str(self.left.path), str(self.right.path))
        return Sample(self.name, frame, other)


def find_sources(
    left: str,
    right: str | None,
    *,
    packing: str | None = None,
    truth: str | None = None,
    truth_scale: float | None = None,
) -> list[Source]:
    """Find the pairs that the arguments of ``infer`` stand for.

    Args:
        left: a file, a folder, a glob, a video, or numbered pictures such as ``left_%06d.png``.
        right: the same kind of thing, or None where ``left`` holds both views.
        packing: ``side-by-side`` or ``top-bottom``; None for two separate views.
        truth: ground truth for each left picture, or None.
        truth_scale: stored value per pixel, for integer pictures.

    Raises:
        UsageError: a packing with a right view, or neither; ground truth of a video.
        InputError: nothing found, a file without a partner, or videos of different lengths.
    """
    if packing is not None and packing not in PACKINGS:
        raise unknown_name("packing", packing, PACKINGS)
    if right is None and packing is None:
        raise UsageError(
            f"no right view for {left}: name it, or say with --packing side-by-side or top-bottom "
            "how one picture holds both"
        )
    if right is not None and packing is not None:
        raise UsageError(
            f"--packing {packing} is for pictures that hold both views: leave out {right}"
        )
    film = is_video(left)
    if truth is not None and (film or packing):
        raise UsageError("--ground-truth needs pictures, a left and a right one for each")
    if right is not None:
        if film != is_video(right):
            raise InputError(f"{left} and {right}: one is a video, the other is not")
        if film:
            return _frames(Video(left), Video(right), None)
        return [PictureSource(pair, truth_scale) for pair in find_pairs(left, right, truth)]
    assert packing is not None
    if film:
        return _frames(Video(left), None, packing)
    paths = find_pictures(left)
    names = unique_names(paths)
    return [PackedSource(name, path, packing) for name, path in zip(names, paths, strict=True)]


def _frames(left: Video, right: Video | None, packing: str | None) -> list[Source]:
    count = left.count()
    if right is not None and right.count() != count:
        raise InputError(
            f"{left.path} has {count} frames and {right.path} {right.count()}: cut them alike, so "
            "that frames of one number were taken together"
        )
    if not count:
        raise InputError(f"{left.path}: holds no frame that OpenCV can decode")
    return [FrameSource(left, right, index, packing) for index in range(count)]
