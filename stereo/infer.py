"""Disparity maps of the user's own pairs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stereo import console
from stereo.colors import disparity_limit
from stereo.data.sample import Sample
from stereo.data.sources import FrameSource, Source, find_sources
from stereo.data.videos import Video, write_video
from stereo.distributed import is_main, own_share, wait_for_all
from stereo.errors import InputError, StereoError, UsageError, unknown_name
from stereo.evaluate import (
    Shown,
    gather_scores,
    make_report,
    metrics_report,
    print_summary,
    run_facts,
    score_result,
    write_metrics,
)
from stereo.files import output_folder, staged
from stereo.geometry import Calibration
from stereo.geometry.check import check_pair
from stereo.machine import PeakMemory
from stereo.matcher import Matcher, Result
from stereo.metrics import ImageScore
from stereo.outputs import PairOutput, Space, pair_targets, parse_formats, write_pair
from stereo.protocols import get_protocol
from stereo.report.pictures import picture_targets
from stereo.streams import overlap

VIEWS = ("left", "right", "both")


@dataclass(frozen=True)
class _Item:
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


def infer(
    matcher: Matcher,
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
        matcher: the model.
        left: a file, a folder or a glob; a video, or numbered pictures such as ``left_%06d.png``.
        right: the same kind of thing, matched with ``left`` by name or number; None where ``left``
            holds both views.
        output: folder for the files.
        packing: how it holds them, ``side-by-side`` or ``top-bottom``.
        formats: comma-separated names of ``stereo.outputs.FORMATS``; None for ``color,pfm``, and
            with a calibration ``depth,ply``.
        calibration: a file that ``stereo.geometry.Calibration.read`` reads, for all pairs.
        max_depth: metres, how far points are kept; None for 100 baselines.
        keep_edges: whether points at jumps of the depth are kept.
        min_confidence: 0..1, the least confidence of a point; None for all. This and the format
            ``confidence`` take a second match per map.
        view: whose maps to write: ``left``, ``right`` or ``both``. Names of the right view's files
            have ``_right`` after the pair's name; they have no ground truth.
        ground_truth: a file, a folder or a glob of disparities, matched with ``left`` by name.
        ground_truth_scale: stored value per pixel, for integer pictures.
        resume: leave out the maps whose files are all there from a call with the same settings,
            which each call with ``resume`` or a video notes in ``OUTPUT/infer.json``.

    Returns:
        The number of pairs that failed.

    Raises:
        UsageError: an unknown format, or arguments that exclude each other.
        InputError: files without partners, an output that would replace an input, a calibration
            that cannot be used, or a folder of other settings to be resumed.
        OutputError: the output folder cannot be written.
    """
    names = parse_formats(
        formats, has_truth=ground_truth is not None, has_calibration=calibration is not None
    )
    if calibration is None and (max_depth is not None or keep_edges or min_confidence is not None):
        raise UsageError(
            "--max-depth, --keep-edges and --min-confidence are about points: add --calibration"
        )
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise UsageError(f"--min-confidence {min_confidence:g}: expected a number from 0 to 1")
    if max_depth is not None and not max_depth > 0:
        raise UsageError(f"--max-depth {max_depth:g}: expected a positive number of metres")
    cameras = None if calibration is None else Calibration.read(calibration)
    if cameras is not None:
        cameras.check_rectified()
    if view not in VIEWS:
        raise unknown_name("view", view, VIEWS)
    sides = ("left", "right") if view == "both" else (view,)
    if resume and ground_truth is not None:
        raise UsageError("--resume leaves maps out, --ground-truth scores all: choose one of them")
    sources = find_sources(
        left, right, packing=packing, truth=ground_truth, truth_scale=ground_truth_scale
    )
    film = isinstance(sources[0], FrameSource)
    if "video" in names and not film:
        raise UsageError("the format 'video' is for videos; the pairs are pictures")
    items = [_Item(source, side) for source in sources for side in sides]
    folder = output_folder(Path(output))
    targets = [
        path for item in items for path in pair_targets(folder, item.name, item.formats(names))
    ]
    shown_targets = [] if ground_truth is None else picture_targets(folder, len(items))
    _refuse_to_overwrite_inputs(sources, [*targets, *shown_targets])
    _refuse_to_write_twice(targets)
    done: set[str] = set()
    if resume or film:
        settings = {
            "left": left,
            "right": right,
            "model": matcher.description,
            "calibration": None if cameras is None else cameras.to_dict(),
            "max_depth": max_depth,
            "keep_edges": keep_edges,
            "min_confidence": min_confidence,
            "packing": packing,
            "pairs": len(sources),
        }
        done = _settle(folder, items, names, settings, resume=resume)
    judged = "confidence" in names or min_confidence is not None
    rules = get_protocol("pooled")
    scores: list[ImageScore] = []
    failed: list[tuple[int, str]] = []
    share = [each for each in own_share(items) if each[1].name not in done]
    shown = Shown(folder, len(items))
    peak = PeakMemory(torch.device(matcher.description["device"]))
    limit = _first_limit(matcher, items[0]) if film and share else None

    def write(numbered: tuple[int, _Item], sample: Sample, result: Result) -> list[str]:
        item = numbered[1]
        space = None
        if cameras is not None:
            height, width = result.disparity.shape
            picture = sample.right if item.is_right else sample.left
            try:
                own = cameras.fitted(width, height)
            except InputError as error:
                raise InputError(f"{item.name}: {error}") from error
            least = min_confidence or 0.0
            space = Space(own, picture, item.is_right, max_depth, keep_edges, least)
        truth = None if item.is_right else sample.disparity
        valid = None if truth is None else sample.valid
        confidence = result.confidence if judged else None
        files = PairOutput(result.disparity, truth, valid, space, confidence, limit)
        return write_pair(folder, item.name, item.formats(names), files)

    def match(numbered: tuple[int, _Item], sample: Sample) -> Result:
        if numbered[0] == 0:
            _warn_of(sample, matcher)
        result = matcher(sample.left, sample.right, view=numbered[1].side)
        if judged:
            result.confidence  # noqa: B018 - matched here, not while others are written
        return result

    through = overlap(
        share,
        read=lambda item: item[1].source.read(),
        match=match,
        write=write,
    )
    for outcome in console.progress(through, "infer", len(share)):
        (index, item), sample, result = outcome.item, outcome.read, outcome.matched
        if outcome.error is not None or sample is None or result is None:
            console.complain(f"stereo infer: error: {outcome.error}")
            failed.append((index, item.name))
            continue
        for note in outcome.written:
            console.complain(f"warning: {note}")
        height, width = result.disparity.shape
        low, high = float(result.disparity.min()), float(result.disparity.max())
        console.say(
            f"{item.name}: {width}x{height}, disparity {low:.1f} to {high:.1f} px, "
            f"{result.seconds:.2f} s",
            everyone=True,
        )
        if sample.disparity is not None and not item.is_right:
            scores.append(score_result(sample, result, index, rules))
            console.say(console.score_line(scores[-1]), everyone=True)
            shown.keep(sample, result, scores[-1])
    scores, names_failed = gather_scores(scores, failed)
    if ground_truth is not None:
        facts = rules.describe() | {"split": None, "pass": None}
        run = run_facts(matcher, peak)
        report = metrics_report(matcher, facts, rules, scores, names_failed, shown.records(), run)
        write_metrics(folder / "metrics.json", report)
        print_summary(report["summary"], scores, rules, console.protocol_line(rules))
        make_report(folder, [folder])
    written = len(items) - len(names_failed) - len(done)
    what = "maps" if view == "both" else "pairs"
    before = f", {len(done)} were there" if done else ""
    console.say(f"{written} of {len(items)} {what} written to {folder}{before}")
    wait_for_all()
    if "video" in names and is_main():
        first = sources[0]
        assert isinstance(first, FrameSource)
        for side in sides:
            own = [item.name for item in items if item.side == side]
            _write_film(folder, own, first.left, side)
    return len(names_failed)


def _warn_of(sample: Sample, matcher: Matcher) -> None:
    """Look quickly at one pair, and warn of what would spoil its map."""
    most = matcher.description["max_disparity"]
    found = check_pair(sample.left, sample.right, most, quick=True)
    beyond = [note for note in found.notes if "rather than" in note]
    for line in [fault for fault in found.faults if "sizes" not in fault] + beyond:
        console.complain(f"warning: {sample.name}: {line}")


def _settle(
    folder: Path,
    items: Sequence[_Item],
    formats: Sequence[str],
    settings: dict[str, Any],
    *,
    resume: bool,
) -> set[str]:
    """Note a run's settings in its folder; return the maps that are there from a run like it.

    Raises:
        InputError: maps of other settings, or of none that are known.
    """
    record = folder / "infer.json"
    done = set()
    if resume:
        done = {
            item.name
            for item in items
            if all(
                path.is_file() for path in pair_targets(folder, item.name, item.formats(formats))
            )
        }
        settings = json.loads(json.dumps(settings))  # as they come back
        try:
            before = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else None
        except ValueError:
            before = None
        changed = [key for key, value in settings.items() if (before or {}).get(key) != value]
        if done and changed:
            what = (
                "no settings that could be compared"
                if before is None
                else (f"maps of another {changed[0].replace('_', ' ')}")
            )
            raise InputError(
                f"{folder}: holds {what}; leave --resume out to make all anew, or "
                "choose another --output"
            )
    wait_for_all()
    if is_main():
        with staged(record) as (temporary,):
            temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return done


def _first_limit(matcher: Matcher, item: _Item) -> float | None:
    """Return the end of the colour scale that all frames of a video share: the first one's."""
    try:
        sample = item.source.read()
        return disparity_limit(matcher(sample.left, sample.right, view=item.side).disparity)
    except StereoError:
        return None  # the frame is named when its turn comes


def _write_film(folder: Path, names: Sequence[str], video: Video, side: str) -> None:
    pictures = [path for name in names if (path := folder / f"{name}_color.png").is_file()]
    if not pictures:
        return
    target = folder / f"{video.name}{'_right' if side == 'right' else ''}_color.mp4"
    with staged(target) as (temporary,):
        write_video(temporary, pictures, video.rate)
    console.say(f"{len(pictures)} frames in {target}")


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
