"""Disparity maps of the user's own pairs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stereo.commands.resume_log import RECORD, Record
from stereo.data.finding.sources import Source, find_sources
from stereo.data.io.colors import disparity_scale
from stereo.data.io.disparities import stored_scale
from stereo.data.io.videos import write_video
from stereo.data.sets.sample import Sample
from stereo.errors import InputError, StereoError, UsageError, unknown_name
from stereo.evaluation import tables
from stereo.evaluation.evaluate import (
    Scored,
    Shown,
    count_reach,
    gather_scores,
    make_report,
    metrics_report,
    print_summary,
    run_facts,
    say_hint,
    say_out_of_reach,
    score_result,
    write_metrics,
)
from stereo.evaluation.metrics import ImageScore
from stereo.evaluation.outputs import (
    OF_POINTS,
    PairOutput,
    Space,
    pair_targets,
    parse_formats,
    write_pair,
)
from stereo.evaluation.protocols import get_protocol
from stereo.evaluation.report.pictures import picture_targets
from stereo.geometry import Calibration
from stereo.geometry.check import check_pair
from stereo.matching.loading import loaded
from stereo.matching.matcher import Matcher
from stereo.matching.result import Result
from stereo.system import console
from stereo.system.distributed import is_main, own_share, wait_for_all
from stereo.system.files import output_folder, staged, writes_alone
from stereo.system.machine import PeakMemory
from stereo.system.streams import overlap

VIEWS = ("left", "right", "both")
CHECKED_PAIRS = 10  # the first of a list that are checked; then every tenth


@dataclass(frozen=True)
class _Map:
    """A map to be made."""

    source: Source
    side: str

    @property
    def is_right(self) -> bool:
        return self.side == "right"

    @property
    def name(self) -> str:
        return f"{self.source.name}_right" if self.is_right else self.source.name

    def formats(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if not (self.is_right and name == "error")]

    def targets(self, folder: Path, names: Sequence[str]) -> list[Path]:
        return pair_targets(folder, self.name, self.formats(names))


@dataclass(frozen=True)
class _Pair:
    """A pair to be matched, and its place among all."""

    index: int
    source: Source
    maps: tuple[_Map, ...]


@writes_alone
def infer(
    matcher: Matcher | Callable[[], Matcher],
    left: str,
    right: str | None,
    output: str | Path,
    *,
    packing: str | None = None,
    formats: str | None = None,
    calibration: str | Path | None = None,
    max_depth: float | None = None,
    keep_edges: bool = False,
    min_confidence: float | None = None,
    view: str = "left",
    ground_truth: str | None = None,
    ground_truth_scale: float | None = None,
    resume: bool = False,
) -> int:
    """Match pairs and write their maps; with ground truth also ``metrics.json`` and a report.

    Pairs are read ahead and written behind the match. One that cannot be read, matched or written
    is named and left out; the others go on.
    Processes started by torchrun share the pairs and write the files of one process.

    Args:
        matcher: the model, or what loads it, which is called once all else is known to be right.
        left: a file, a folder or a glob; a video, or numbered pictures such as ``left_%06d.png``.
        right: the same kind of thing, matched with ``left`` by name or number; None where ``left``
            holds both views.
        output: folder for the files.
        packing: how it holds them, ``side-by-side`` or ``top-bottom``.
        formats: comma-separated names of ``stereo.evaluation.outputs.FORMATS``; None for
            ``color,pfm``, and with a calibration ``depth,ply``.
        calibration: a file that ``stereo.geometry.Calibration.read`` reads, for all pairs.
        max_depth: metres, how far points are kept; None for 100 baselines.
        keep_edges: whether points at jumps of the depth are kept.
        min_confidence: 0..1, the least confidence of a point; None for all. This and the format
            ``confidence`` take a second match, but none where ``view`` is ``both``.
        view: whose maps to write: ``left``, ``right`` or ``both``. Names of the right view's files
            have ``_right`` after the pair's name; they have no ground truth.
        ground_truth: a file, a folder or a glob of disparities, matched with ``left`` by name.
        ground_truth_scale: stored value per pixel, for integer pictures.
        resume: leave out the maps that a call with the same settings has made from the same
            inputs, and whose files are there; each call with ``resume`` or a video notes them in
            ``OUTPUT/infer.jsonl``.

    Returns:
        The number of pairs that failed.

    Raises:
        UsageError: an unknown format, or arguments that exclude each other.
        InputError: files without partners, a range that the only pair cannot have, an output that
            would replace an input, a calibration that cannot be used, or a folder of other settings
            to be resumed.
        OutputError: the output folder cannot be written.
    """
    names = parse_formats(
        formats, has_truth=ground_truth is not None, has_calibration=calibration is not None
    )
    of_points = {
        "--max-depth": max_depth is not None,
        "--keep-edges": keep_edges,
        "--min-confidence": min_confidence is not None,
    }
    if not set(OF_POINTS) & set(names):
        _refuse_without_points([option for option, given in of_points.items() if given])
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise UsageError(f"--min-confidence {min_confidence:g}: expected a number from 0 to 1")
    if max_depth is not None and not max_depth > 0:
        raise UsageError(f"--max-depth {max_depth:g}: expected a positive number of metres")
    if view not in VIEWS:
        raise unknown_name("view", view, VIEWS)
    sides = ("left", "right") if view == "both" else (view,)
    if ground_truth is not None and view == "right":
        raise UsageError("--ground-truth is of the left view: use --view left or both with it")
    if ground_truth is not None and resume:
        raise UsageError("--resume leaves maps out, --ground-truth scores all: choose one of them")
    cameras = None if calibration is None else Calibration.read(calibration, pictures=left)
    if cameras is not None:
        cameras.check_rectified()
    sources = find_sources(
        left, right, packing=packing, truth=ground_truth, truth_scale=ground_truth_scale
    )
    film = sources[0].film
    if "video" in names and film is None:
        raise UsageError("the format 'video' is for videos; the pairs are pictures")
    if cameras is not None and (film is not None or len(sources) == 1):
        _check_calibration(cameras, sources[0])
    pairs = [
        _Pair(index, source, tuple(_Map(source, side) for side in sides))
        for index, source in enumerate(sources)
    ]
    maps = [each for pair in pairs for each in pair.maps]
    folder = output_folder(Path(output), alone=True)
    targets = [path for each in maps for path in each.targets(folder, names)]
    films: dict[str, Path] = {}
    if "video" in names and film is not None:
        ends = {"left": "_color.mp4", "right": "_right_color.mp4"}
        films = {side: folder / f"{film.name}{ends[side]}" for side in sides}
    shown_targets = [] if ground_truth is None else picture_targets(folder, len(pairs))
    _refuse_to_overwrite_inputs(sources, [*targets, *shown_targets, *films.values()])
    _refuse_to_write_twice(targets)
    model = loaded(matcher)
    if model.min_disparity and (film is not None or len(sources) == 1):
        _check_reach(model, sources[0])
    record = None
    if resume or film is not None:
        settings = {
            "left": left,
            "right": right,
            "packing": packing,
            **_settings_of(model),
            "calibration": None if cameras is None else cameras.to_dict(),
            "max_depth": max_depth,
            "keep_edges": keep_edges,
            "min_confidence": min_confidence,
        }
        record = Record(folder, settings, (path for source in sources for path in source.files()))
    done = _begin(record, folder, maps, names, resume=resume)
    judged = "confidence" in names or bool(min_confidence)
    rules = get_protocol("pooled").with_range(model.min_disparity)
    scores: list[ImageScore] = []
    reach = np.zeros(3, np.int64)
    failed: list[tuple[int, str]] = []
    written: set[str] = set()
    left_over = [
        replace(pair, maps=tuple(each for each in pair.maps if each.name not in done))
        for pair in pairs
    ]
    share = [pair for _, pair in own_share([pair for pair in left_over if pair.maps])]
    shown = Shown(folder, len(pairs))
    peak = PeakMemory(torch.device(model.description["device"]))
    color_scale: tuple[float, float] | None = None

    def match(pair: _Pair, sample: Sample) -> dict[_Map, Result]:
        if cameras is not None:
            _fitted(cameras, sample)
        model.check_reach(sample.left.shape[1])
        if pair.index == 0 or (film is None and _is_checked(pair.index)):
            _report_check(sample, model, notes=pair.index == 0)
        if len(pair.maps) == 2:
            results = list(model.both(sample.left, sample.right))
        else:
            results = [model(sample.left, sample.right, view=pair.maps[0].side)]
        if judged:
            for result in results:
                result.confidence  # noqa: B018 - matched here, not while others are written
        return dict(zip(pair.maps, results, strict=True))

    def write(pair: _Pair, sample: Sample, results: dict[_Map, Result]) -> list[str]:
        notes = []
        for each, result in results.items():
            space = None
            if cameras is not None:
                picture = sample.right if each.is_right else sample.left
                limits = (max_depth, keep_edges, min_confidence or 0.0)
                space = Space(_fitted(cameras, sample), picture, each.is_right, *limits)
            truth = None if each.is_right else sample.disparity
            valid = None if truth is None else sample.valid
            confidence = result.confidence if judged else None
            files = PairOutput(result.disparity, truth, valid, space, confidence, color_scale)
            notes += write_pair(folder, each.name, each.formats(names), files)
            if record is not None:
                record.add(each.name, each.source.files(), each.targets(folder, names))
            written.add(each.name)
        return notes

    through = overlap(share, read=lambda pair: pair.source.read(), match=match, write=write)
    try:
        if film is not None and "color" in names and share:
            color_scale = _first_scale(model, maps[0])
        for outcome in console.progress(through, "infer", len(share)):
            pair, sample, results = outcome.item, outcome.read, outcome.matched
            failed += [(pair.index, each.name) for each in pair.maps if each.name not in written]
            if outcome.error is not None or sample is None or results is None:
                console.warn(f"stereo infer: error: {outcome.error}")
                continue
            for note in outcome.written:
                console.warn(f"warning: {note}")
            for each, result in results.items():
                console.say(_map_line(each, result), everyone=True)
                if note := model.second_match_note(result):
                    console.say(f"note: {note}")
                if sample.disparity is not None and not each.is_right:
                    scores.append(score_result(sample, result, pair.index, rules))
                    reach += count_reach(sample, model, rules)
                    console.say(tables.score_line(scores[-1]), everyone=True)
                    shown.keep(sample, result, scores[-1])
        scores, names_failed = gather_scores(scores, failed)
        if ground_truth is not None:
            say_out_of_reach(reach, model)
    finally:
        if record is not None and is_main():
            record.close(targets)
    if ground_truth is not None:
        facts = rules.describe() | {"split": None, "pass": None}
        about = run_facts(model, peak)
        report = metrics_report(model, facts, rules, scores, names_failed, shown.records(), about)
        write_metrics(folder / "metrics.json", report)
        run = Scored(model.description["name"], scores, names_failed, report)
        print_summary([run], rules, tables.protocol_line(rules))
        scale = stored_scale(sources[0].files()[-1], ground_truth_scale)
        say_hint([run], "--ground-truth-scale", scale)
        make_report(folder, [folder])
    count = len(maps) - len(names_failed) - len(done)
    what = "maps" if view == "both" else "pairs"
    before = f", {len(done)} were there" if done else ""
    console.say(f"{count} of {len(maps)} {what} written to {folder}{before}")
    wait_for_all()
    if is_main() and film is not None:
        lost = set(names_failed)
        for side, target in films.items():
            whole = [each.name for each in maps if each.side == side and each.name not in lost]
            _write_film(target, [folder / f"{name}_color.png" for name in whole], film.rate)
    return len(names_failed)


def _refuse_without_points(options: Sequence[str]) -> None:
    if options:
        raise UsageError(
            f"{options[0]} is about points, and none are asked for: add --calibration, and to "
            f"--formats {' or '.join(OF_POINTS)}"
        )


def _check_calibration(cameras: Calibration, source: Source) -> None:
    """Raise ``InputError`` if the calibration is for pictures of another shape."""
    try:
        sample = source.read()
    except StereoError:
        return  # it is named when its turn comes
    _fitted(cameras, sample)


def _check_reach(model: Matcher, source: Source) -> None:
    """Raise ``InputError`` if the pictures are too narrow for any disparity searched."""
    try:
        sample = source.read()
    except StereoError:
        return  # it is named when its turn comes
    model.check_reach(sample.left.shape[1])


def _fitted(cameras: Calibration, sample: Sample) -> Calibration:
    height, width = sample.left.shape[:2]
    try:
        return cameras.fitted(width, height)
    except InputError as error:
        raise InputError(f"{sample.name}: {error}") from error


def _map_line(each: _Map, result: Result) -> str:
    height, width = result.disparity.shape
    low, high = float(result.disparity.min()), float(result.disparity.max())
    return (
        f"{each.name}: {width}x{height}, disparity {low:.1f} to {high:.1f} px, "
        f"{result.seconds:.2f} s"
    )


def _is_checked(index: int) -> bool:
    """Tell whether the pair at this place in the list is checked: all would take too long."""
    return index < CHECKED_PAIRS or index % CHECKED_PAIRS == 0


def _report_check(sample: Sample, matcher: Matcher, *, notes: bool) -> None:
    """Look quickly at one pair: warn of what would spoil its map, and say what else is noted."""
    found = check_pair(
        sample.left,
        sample.right,
        matcher.description["max_disparity"],
        min_disparity=matcher.min_disparity,
        quick=True,
    )
    for line in [*found.faults, *found.notes]:
        if line.startswith("sizes"):
            continue
        if line in found.faults or "use --m" in line:
            console.warn(f"warning: {sample.name}: {line}")
        elif notes:
            console.say(f"note: {sample.name}: {line}")


def _settings_of(matcher: Matcher) -> dict[str, Any]:
    facts = dict(matcher.description)
    return {"model": facts.pop("name"), **facts}


def _begin(
    record: Record | None,
    folder: Path,
    maps: Sequence[_Map],
    formats: Sequence[str],
    *,
    resume: bool,
) -> set[str]:
    """Start a run's record; return the names of the maps that need not be made again.

    Raises:
        InputError: maps of other settings, or of none that are known.
    """
    done: set[str] = set()
    if record is not None and resume:
        targets = {each: each.targets(folder, formats) for each in maps}
        record.take_up(path for paths in targets.values() for path in paths)
        finished = (
            e for e, paths in targets.items() if record.has(e.name, e.source.files(), paths)
        )
        done = {each.name for each in finished}
    wait_for_all()
    if is_main():
        if record is None:  # the maps of an earlier run are about to be replaced
            (folder / RECORD).unlink(missing_ok=True)
        else:
            record.start()
    wait_for_all()
    return done


def _first_scale(matcher: Matcher, first: _Map) -> tuple[float, float] | None:
    """Return the colour scale that all frames of a video share: the first one's."""
    try:
        sample = first.source.read()
        return disparity_scale(matcher(sample.left, sample.right, view=first.side).disparity)
    except StereoError:
        return None  # the frame is named when its turn comes


def _write_film(target: Path, pictures: Sequence[Path], rate: float) -> None:
    there = [path for path in pictures if path.is_file()]
    if not there:
        return
    with staged(target) as (temporary,):
        write_video(temporary, there, rate)
    console.say(f"{len(there)} frames in {target}")


def _refuse_to_overwrite_inputs(sources: Sequence[Source], targets: Iterable[Path]) -> None:
    inputs = {path.resolve() for source in sources for path in source.files()}
    for target in targets:
        if target.resolve() in inputs:
            raise InputError(
                f"{target}: is an input and would be overwritten; choose another --output"
            )


def _refuse_to_write_twice(targets: Sequence[Path]) -> None:
    seen: set[str] = set()
    for target in targets:
        if str(target).casefold() in seen:
            raise InputError(f"{target}: two maps would have this name; rename the pictures")
        seen.add(str(target).casefold())
