"""The plan of ``stereo infer``: which maps, from which pairs, to which files."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stereo.commands.infer_options import InferOptions
from stereo.data.finding.pairs import would_find
from stereo.data.finding.sources import FrameSequence, Source, find_sources
from stereo.data.io.videos import is_address
from stereo.data.sets.sample import Sample
from stereo.errors import InputError, StereoError, UsageError
from stereo.evaluation.outputs import IN_METRES, OF_POINTS, pair_targets, parse_formats
from stereo.evaluation.report.pictures import picture_targets
from stereo.geometry import Calibration
from stereo.geometry.readers.texts import stated_disparities
from stereo.matching.matcher import Matcher
from stereo.system import console
from stereo.system.distributed import process_count
from stereo.system.files import refuse_overwriting


@dataclass(frozen=True)
class MapJob:
    """A map to compute."""

    source: Source  # its pair
    side: str  # the view, `left` or `right`
    formats: tuple[str, ...]  # names of `stereo.evaluation.outputs.FORMATS`
    targets: tuple[Path, ...]  # the files to write

    @property
    def is_right(self) -> bool:
        """Whether it is of the right view."""
        return self.side == "right"

    @property
    def name(self) -> str:
        """The stem of its files."""
        return _name_of(self.source, self.side)


@dataclass(frozen=True)
class PairJob:
    """A pair to match, its index, and its maps."""

    index: int
    source: Source
    maps: tuple[MapJob, ...]


@dataclass(frozen=True)
class Plan:
    """What a call will do."""

    options: InferOptions  # what was asked
    formats: tuple[str, ...]  # names of `stereo.evaluation.outputs.FORMATS`
    calibration: Calibration | None  # of the rectified pairs, or None
    folder: Path  # where the files go
    pairs: tuple[PairJob, ...]  # all of them, in order
    sequence: FrameSequence | None  # what the pairs are frames of, or None
    videos: dict[str, Path]  # view -> MP4 to write

    @functools.cached_property
    def maps(self) -> list[MapJob]:
        """All maps, in order."""
        return [each for pair in self.pairs for each in pair.maps]

    @property
    def targets(self) -> list[Path]:
        """The files of all maps."""
        return [path for each in self.maps for path in each.targets]

    def inputs_of(self, job: MapJob, scale_from: int = 0) -> list[Path]:
        """Return the files that a map depends on.

        In a sequence the first frame is one of them, by its bit depth, and all up to the one that
        its colour scale is from.
        """
        first = () if self.sequence is None else self.pairs[: scale_from + 1]
        sources = (job.source, *(pair.source for pair in first))
        return [path for source in sources for path in source.files()]

    @property
    def needs_confidence(self) -> bool:
        """Whether the confidence of each map is computed."""
        return "confidence" in self.formats or bool(self.options.min_confidence)

    @property
    def shares_colors(self) -> bool:
        """Whether all maps of a view are coloured on one scale, its first frame's."""
        return self.sequence is not None and "color" in self.formats

    @functools.cached_property
    def first(self) -> Sample | None:
        """The first pair, or None if it cannot be read (reported later)."""
        try:
            return self.pairs[0].source.read()
        except StereoError:
            return None

    @functools.cached_property
    def _fit(self) -> Callable[[int, int], Calibration]:
        assert self.calibration is not None
        return functools.cache(self.calibration.fitted)

    def fitted(self, sample: Sample) -> Calibration | None:
        """Return the calibration for a pair's size, or None without one; computed once per size.

        Raises:
            InputError: it is for images of another shape.
        """
        if self.calibration is None:
            return None
        height, width = sample.left.shape[:2]
        try:
            return self._fit(width, height)
        except InputError as error:
            raise InputError(f"{sample.name}: {error}") from error

    def warn_of_range(self, model: Matcher) -> None:
        """Warn if the calibration states more disparities (``ndisp``) than are searched."""
        calibration, first = self.calibration, self.first
        if calibration is None or calibration.size is None or first is None:
            return
        stated = stated_disparities(Path(str(self.options.calibration)))
        width = first.left.shape[1]
        needed = (stated or 0) * width / calibration.size[0]
        if needed > model.min_disparity + model.searched(width):
            count = 16 * math.ceil((needed - model.min_disparity) / 16)
            use = "another model" if model.fixed_range else f"--max-disparity {count}"
            console.warn(
                f"warning: {self.options.calibration}: its scene has disparities of up to "
                f"{needed:.0f} px, more than are looked for; use {use}"
            )

    def check_first(self, model: Matcher | None = None) -> None:
        """Check the first pair before any work; a list's pairs may differ, frames may not.

        Raises:
            InputError: a calibration for another shape, or images too narrow for the range.
        """
        if self.sequence is None and len(self.pairs) > 1:
            return
        if self.calibration is not None and self.first is not None:
            self.fitted(self.first)
        if model is not None and model.min_disparity and self.first is not None:
            model.check_reach(self.first.left.shape[1])


def make_plan(options: InferOptions) -> Plan:
    """Find the pairs and name the files, before a model is loaded or anything written.

    Raises:
        UsageError: an unknown format, one that the pairs do not allow, or options about points
            without a format of points.
        InputError: files without partners, a calibration that cannot be used, an output that
            would replace an input, or two outputs of one name.
    """
    formats = _parsed_formats(options)
    calibration = None
    if options.calibration is not None:
        calibration = Calibration.read(options.calibration, pictures=options.left)
        calibration.check_rectified()
    addresses = [view for view in (options.left, options.right) if view and is_address(view)]
    if options.resume and addresses:
        raise UsageError(
            f"--resume cannot tell whether {addresses[0]} has changed; save the video to a file "
            "first"
        )
    sources = find_sources(
        options.left,
        options.right,
        packing=options.packing,
        truth=options.ground_truth,
        truth_scale=options.ground_truth_scale,
    )
    sequence = sources[0].sequence
    if "video" in formats and sequence is None:
        raise UsageError("the format 'video' is for videos; the pairs are images")
    if options.steady and (sequence is None or process_count() > 1):
        raise UsageError(
            "--steady is for the frames of one video, a video or numbered images such as "
            "left_%06d.png, matched in order by one process"
        )
    folder = Path(options.output)
    pairs = tuple(
        PairJob(
            index,
            source,
            tuple(
                job
                for job in (_map_job(source, side, formats, folder) for side in options.sides)
                if job.formats
            ),
        )
        for index, source in enumerate(sources)
    )
    videos: dict[str, Path] = {}
    if "video" in formats and sequence is not None:
        ends = {"left": "_color.mp4", "right": "_right_color.mp4"}
        videos = {side: folder / f"{sequence.name}{ends[side]}" for side in options.sides}
    plan = Plan(options, tuple(formats), calibration, folder, pairs, sequence, videos)
    pictures = [] if options.ground_truth is None else picture_targets(folder, len(pairs))
    _check_targets(sources, plan.targets, [*pictures, *videos.values()])
    _check_next_run(options, folder, [*plan.targets, *pictures, *videos.values()])
    plan.check_first()
    return plan


def _parsed_formats(options: InferOptions) -> list[str]:
    """Return the formats; refuse options about points if none are written."""
    names = parse_formats(
        options.formats,
        has_truth=options.ground_truth is not None,
        has_calibration=options.calibration is not None,
    )
    given = {
        "--max-depth": options.max_depth is not None,
        "--keep-flying-points": options.keep_flying_points,
        "--min-confidence": options.min_confidence is not None,
    }
    about_points = [option for option, is_given in given.items() if is_given]
    if about_points and not set(OF_POINTS) & set(names):
        raise UsageError(
            f"{about_points[0]} applies to points: add --calibration, and "
            f"{' or '.join(OF_POINTS)} to --formats"
        )
    if options.calibration is not None and not set(IN_METRES) & set(names):
        console.warn(
            "warning: --calibration changes no file of these formats; add "
            f"{' or '.join(IN_METRES)} to --formats"
        )
    return names


def _name_of(source: Source, side: str) -> str:
    return f"{source.name}_right" if side == "right" else source.name


def _map_job(source: Source, side: str, formats: Sequence[str], folder: Path) -> MapJob:
    own = tuple(name for name in formats if not (side == "right" and name == "error"))
    return MapJob(source, side, own, tuple(pair_targets(folder, _name_of(source, side), own)))


def _check_next_run(options: InferOptions, folder: Path, targets: Sequence[Path]) -> None:
    """Raise ``InputError`` if the same command, once more, would take an output for an image."""
    names = [str(target.relative_to(folder)) for target in targets]
    for argument in (options.left, options.right):
        found = None if argument is None else would_find(argument, folder, names)
        if found is not None:
            raise InputError(
                f"{folder / found}: the next run would take it for an image of {argument}; "
                "choose another --output"
            )


def _check_targets(
    sources: Sequence[Source], maps: Sequence[Path], further: Sequence[Path]
) -> None:
    """Raise ``InputError`` if an output would replace an input, or a map another map."""
    refuse_overwriting((path for source in sources for path in source.files()), (*maps, *further))
    seen: set[str] = set()
    for target in maps:
        if str(target).casefold() in seen:
            raise InputError(f"{target}: two maps would have this name; rename the images")
        seen.add(str(target).casefold())
