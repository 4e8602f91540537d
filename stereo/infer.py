"""Disparity maps of the user's own pairs."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from stereo import console
from stereo.data.decoders import stored
from stereo.data.pairs import PairFiles, find_pairs
from stereo.data.sample import Sample, SampleFiles
from stereo.distributed import is_main, own_share, wait_for_all
from stereo.errors import InputError, UsageError, unknown_name
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
from stereo.files import output_folder
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

    pair: PairFiles
    side: str

    @property
    def is_right(self) -> bool:
        return self.side == "right"

    @property
    def name(self) -> str:
        return f"{self.pair.name}_right" if self.is_right else self.pair.name

    def formats(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if not (self.is_right and name == "error")]


def infer(
    matcher: Matcher,
    left: str,
    right: str,
    output: str | Path,
    *,
    formats: str | None = None,
    calibration: str | Path | None = None,
    max_depth: float | None = None,
    keep_edges: bool = False,
    view: str = "left",
    ground_truth: str | None = None,
    ground_truth_scale: float | None = None,
) -> int:
    """Match pairs and write their maps; with ground truth also ``metrics.json`` and a report.

    Pairs are read ahead and written behind the match. One that cannot be read, matched or written
    is named and left out; the others go on.
    Processes started by torchrun share the pairs and write the files of one process.

    Args:
        matcher: the model.
        left: a file, a folder or a glob.
        right: the same kind of thing; matched with ``left`` by name.
        output: folder for the files.
        formats: comma-separated names of ``stereo.outputs.FORMATS``; None for ``color,pfm``, and
            with a calibration ``depth,ply``.
        calibration: a file that ``stereo.geometry.Calibration.read`` reads, for all pairs.
        max_depth: metres, how far points are kept; None for 100 baselines.
        keep_edges: whether points at jumps of the depth are kept.
        view: whose maps to write: ``left``, ``right`` or ``both``. Names of the right view's files
            have ``_right`` after the pair's name; they have no ground truth.
        ground_truth: a file, a folder or a glob of disparities, matched with ``left`` by name.
        ground_truth_scale: stored value per pixel, for integer pictures.

    Returns:
        The number of pairs that failed.

    Raises:
        UsageError: an unknown format.
        InputError: files without partners, an output that would replace an input, or a calibration
            that cannot be used.
        OutputError: the output folder cannot be written.
    """
    names = parse_formats(
        formats, has_truth=ground_truth is not None, has_calibration=calibration is not None
    )
    if calibration is None and (max_depth is not None or keep_edges):
        raise UsageError("--max-depth and --keep-edges are about points: add --calibration")
    if max_depth is not None and not max_depth > 0:
        raise UsageError(f"--max-depth {max_depth:g}: expected a positive number of metres")
    cameras = None if calibration is None else Calibration.read(calibration)
    if cameras is not None:
        cameras.check_rectified()
    if view not in VIEWS:
        raise unknown_name("view", view, VIEWS)
    sides = ("left", "right") if view == "both" else (view,)
    pairs = find_pairs(left, right, ground_truth)
    items = [_Item(pair, side) for pair in pairs for side in sides]
    folder = output_folder(Path(output))
    targets = [
        path for item in items for path in pair_targets(folder, item.name, item.formats(names))
    ]
    shown_targets = [] if ground_truth is None else picture_targets(folder, len(items))
    _refuse_to_overwrite_inputs(pairs, [*targets, *shown_targets])
    _refuse_to_write_twice(targets)
    rules = get_protocol("pooled")
    scores: list[ImageScore] = []
    failed: list[tuple[int, str]] = []
    share = own_share(items)
    shown = Shown(folder, len(items))
    peak = PeakMemory(torch.device(matcher.description["device"]))
    if share and is_main():
        _warn_of(pairs[0], matcher)

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
            space = Space(own, picture, item.is_right, max_depth, keep_edges)
        truth = None if item.is_right else sample.disparity
        files = PairOutput(result.disparity, truth, None if truth is None else sample.valid, space)
        return write_pair(folder, item.name, item.formats(names), files)

    through = overlap(
        share,
        read=lambda item: _read(item[1].pair, ground_truth_scale),
        match=lambda item, sample: matcher(sample.left, sample.right, view=item[1].side),
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
    written = len(items) - len(names_failed)
    what = "maps" if view == "both" else "pairs"
    console.say(f"{written} of {len(items)} {what} written to {folder}")
    wait_for_all()
    return len(names_failed)


def _warn_of(pair: PairFiles, matcher: Matcher) -> None:
    """Look quickly at one pair, and warn of what would spoil its map."""
    with contextlib.suppress(InputError):  # which the match will name
        found = check_pair(pair.left, pair.right, matcher.description["max_disparity"], quick=True)
        beyond = [note for note in found.notes if "rather than" in note]
        for line in [fault for fault in found.faults if "sizes" not in fault] + beyond:
            console.complain(f"warning: {pair.name}: {line}")


def _refuse_to_overwrite_inputs(pairs: Sequence[PairFiles], targets: Iterable[Path]) -> None:
    inputs = {path.resolve() for pair in pairs for path in pair.files()}
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


def _read(pair: PairFiles, ground_truth_scale: float | None) -> Sample:
    decode = stored(ground_truth_scale)
    files = SampleFiles(pair.name, pair.left, pair.right, pair.truth, decode=decode)
    return files.read()
