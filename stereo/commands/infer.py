"""``stereo infer``: disparity maps of the user's own pairs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stereo.commands.infer_options import InferOptions
from stereo.commands.infer_plan import MapJob, PairJob, Plan, make_plan
from stereo.commands.resume_log import RESUME_LOG, ResumeLog
from stereo.data.io.colors import disparity_scale
from stereo.data.io.disparities import stored_scale
from stereo.data.io.videos import write_video
from stereo.data.sets.sample import Sample
from stereo.errors import InputError, StereoError
from stereo.evaluation import tables
from stereo.evaluation.evaluate import (
    Scored,
    count_reach,
    gather_scores,
    keep_pictures,
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
from stereo.evaluation.outputs import PairOutput, PointCloudContext, write_pair
from stereo.evaluation.protocols import get_protocol
from stereo.evaluation.report import PictureKeeper
from stereo.evaluation.report.runs import METRICS_FILE, forget_run, read_run
from stereo.geometry import Calibration
from stereo.geometry.check import check_pair
from stereo.matching.loading import loaded
from stereo.matching.matcher import Matcher
from stereo.matching.result import Result
from stereo.matching.steady import Steady
from stereo.system import console
from stereo.system.distributed import is_main, own_share, wait_for_all
from stereo.system.files import output_folder, staged, writes_alone
from stereo.system.machine import PeakMemory
from stereo.system.streams import Outcome, overlap

CHECKED_PAIRS = 10  # the first of a list that are checked; then every tenth


@writes_alone
def infer(matcher: Matcher | Callable[[], Matcher], options: InferOptions) -> int:
    """Match pairs and write their maps; with ground truth also ``metrics.json`` and a report.

    Pairs are read ahead and written behind the match. One that cannot be read, matched or written
    is named and left out; the others go on. Each call with ``resume`` or a video notes its maps in
    ``OUTPUT/infer.jsonl``. Processes started by torchrun share the pairs and write the files of
    one process.

    Args:
        matcher: the model, or what loads it, which is called once all else is known to be right.
        options: what is asked.

    Returns:
        The number of maps that failed.

    Raises:
        UsageError: an unknown format, or options that exclude each other.
        InputError: files without partners, a range that the only pair cannot have, an output that
            would replace an input, a calibration that cannot be used, or a folder of other settings
            to be resumed.
        OutputError: the output folder cannot be written.
    """
    plan = make_plan(options)
    output_folder(plan.folder, alone=True)
    model = loaded(matcher)
    plan.check_first(model)
    plan.warn_of_range(model)
    log = _resume_log(plan, model)
    done = _begin(plan, log)
    run = _Run(plan, model, log)
    try:
        run.match_pairs(done)
        scores, failed = gather_scores(run.scores, run.failed)
        if options.ground_truth is not None:
            say_out_of_reach(run.reach, model, run.rules)
    finally:
        if log is not None and is_main():
            log.close(plan.targets)
    if options.ground_truth is not None:
        _write_metrics(run, scores, failed)
    made = len(plan.maps) - len(failed) - len(done)
    what = "maps" if options.view == "both" else "pairs"
    before = f", {len(done)} were there" if done else ""
    console.say(f"{made} of {len(plan.maps)} {what} written to {plan.folder}{before}")
    wait_for_all()
    if is_main():
        _write_films(plan, set(failed))
    return len(failed)


@dataclass(frozen=True, eq=False)
class _Matched:
    """The results of a pair, to be written."""

    maps: list[tuple[MapJob, Result]]
    calibration: Calibration | None


class _Run:
    """Reads, matches and writes the pairs of a plan.

    Attributes:
        scores: of the pairs with ground truth.
        failed: place and name of each map that was not written.
        reach: the counts of ``count_reach``.
    """

    def __init__(self, plan: Plan, model: Matcher, log: ResumeLog | None) -> None:
        self.plan = plan
        self.model = model
        self.log = log
        self.rules = get_protocol("pooled").with_range(model.min_disparity)
        self.scores: list[ImageScore] = []
        self.failed: list[tuple[int, str]] = []
        self.reach = np.zeros(4, np.int64)
        self.keeper = PictureKeeper(plan.folder, len(plan.pairs))
        self.peak = PeakMemory(torch.device(model.description["device"]))
        self._written: set[str] = set()
        self._steady = {side: Steady() for side in plan.options.sides if plan.options.steady}
        # By view: the colour scale of a sequence, and the index of the frame that set it.
        self._color_scales: dict[str, tuple[tuple[float, float], int]] = {}
        self._scored = _scored_before(plan.folder)

    def match_pairs(self, done: set[str]) -> None:
        """Match this process's share of the pairs, without the maps in ``done``."""
        jobs = [
            replace(pair, maps=tuple(each for each in pair.maps if each.name not in done))
            for pair in self.plan.pairs
        ]
        share = [pair for _, pair in own_share([pair for pair in jobs if pair.maps])]
        steps = overlap(
            share, read=lambda pair: pair.source.read(), match=self._match, write=self._write
        )
        for outcome in console.progress(steps, "infer", len(share)):
            self._report(outcome)

    def _match(self, pair: PairJob, sample: Sample) -> _Matched:
        calibration = self.plan.fitted(sample)
        self.model.check_reach(sample.left.shape[1])
        if pair.index == 0 or (self.plan.sequence is None and _is_checked(pair.index)):
            _report_check(sample, self.model, notes=pair.index == 0)
        if len(pair.maps) == 2:
            results = list(self.model.both(sample.left, sample.right))
        else:
            results = [self.model(sample.left, sample.right, view=pair.maps[0].side)]
        if self._steady:
            results = [
                self._steady[job.side](result)
                for job, result in zip(pair.maps, results, strict=True)
            ]
        if self.plan.needs_confidence:
            for result in results:
                result.confidence  # noqa: B018 - matched here, not while others are written
        matched = _Matched(list(zip(pair.maps, results, strict=True)), calibration)
        if self.plan.shares_colors:
            for job, result in matched.maps:
                if job.side not in self._color_scales:
                    found = self._first_map(pair.index, job.side, result.disparity)
                    self._color_scales[job.side] = disparity_scale(found[0]), found[1]
        return matched

    def _first_map(self, index: int, side: str, own: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the map whose colour scale all frames share, the first one, and its index.

        It is matched apart where this process does not make it: resumed, or another's share.
        """
        for pair in self.plan.pairs[:index]:
            try:
                sample = pair.source.read()
                return self.model(sample.left, sample.right, view=side).disparity, pair.index
            except StereoError:
                continue  # the frame is named when its turn comes
        return own, index

    def _write(self, _: PairJob, sample: Sample, matched: _Matched) -> list[str]:
        """Write a pair's maps; return notes about them."""
        options = self.plan.options
        notes: list[str] = []
        errors: list[StereoError] = []
        for job, result in matched.maps:
            scale, scale_from = self._color_scales.get(job.side, (None, 0))
            cloud = None
            if matched.calibration is not None:
                cloud = PointCloudContext(
                    matched.calibration,
                    sample.right if job.is_right else sample.left,
                    job.is_right,
                    options.max_depth,
                    options.keep_flying_points,
                    options.min_confidence or 0.0,
                )
            truth = None if job.is_right else sample.disparity
            valid = None
            if truth is not None and sample.valid is not None:
                valid = self.rules.valid_pixels(truth, sample.valid)
            confidence = result.confidence if self.plan.needs_confidence else None
            files = PairOutput(
                result.disparity,
                truth=truth,
                valid=valid,
                cloud=cloud,
                confidence=confidence,
                scale=scale,
                certainty=result.certainty,
            )
            try:
                notes += write_pair(self.plan.folder, job.name, job.formats, files)
                if self._scored is None or job.name in self._scored:
                    forget_run(self.plan.folder)
                    self._scored = frozenset()
                if self.log is not None:
                    self.log.add(job.name, self.plan.inputs_of(job, scale_from), job.targets)
            except StereoError as error:
                errors.append(error)  # the other view's map may still be written
            else:
                self._written.add(job.name)
        if errors:
            raise StereoError("; ".join(map(str, errors))) from errors[0]
        return notes

    def _report(self, outcome: Outcome[PairJob, Sample, _Matched]) -> None:
        """Print the outcome of a pair, and score its map."""
        pair, sample, matched = outcome.item, outcome.read, outcome.matched
        self.failed += [
            (pair.index, each.name) for each in pair.maps if each.name not in self._written
        ]
        if outcome.error is not None:
            console.warn(f"stereo infer: error: {outcome.error}")
        if sample is None or matched is None:
            return
        for note in outcome.written or ():
            console.warn(f"warning: {note}")
        for job, result in matched.maps:
            if job.name not in self._written:
                continue
            console.say(_map_line(job, result), everyone=True)
            if sample.disparity is not None and not job.is_right:
                self.scores.append(score_result(sample, result, pair.index, self.rules))
                self.reach += count_reach(sample, self.model, self.rules)
                console.say(tables.score_line(self.scores[-1]), everyone=True)
                keep_pictures(self.keeper, sample, result, self.scores[-1], self.rules)


def _map_line(job: MapJob, result: Result) -> str:
    height, width = result.disparity.shape
    low, high = float(result.disparity.min()), float(result.disparity.max())
    return (
        f"{job.name}: {width}x{height}, disparity {low:.1f} to {high:.1f} px, "
        f"{result.seconds:.2f} s"
    )


def _is_checked(index: int) -> bool:
    """Return whether the pair at this index is checked; checking all would take too long."""
    return index < CHECKED_PAIRS or index % CHECKED_PAIRS == 0


def _report_check(sample: Sample, matcher: Matcher, *, notes: bool) -> None:
    """Check one pair quickly: warn about faults, and print the notes."""
    found = check_pair(
        sample.left,
        sample.right,
        matcher.searched(sample.left.shape[1]),
        min_disparity=matcher.min_disparity,
        fixed_range=matcher.fixed_range,
        quick=True,
    )
    for line in [*found.faults, *found.notes]:
        if line.startswith("sizes"):
            continue
        is_fault = line in found.faults and not line.startswith("small")
        if is_fault or "use --m" in line:
            console.warn(f"warning: {sample.name}: {line}")
        elif notes:
            console.say(f"note: {sample.name}: {line}")


def _resume_log(plan: Plan, model: Matcher) -> ResumeLog | None:
    options = plan.options
    if not options.resume and plan.sequence is None:
        return None
    facts: dict[str, Any] = dict(model.description)
    settings = {
        "left": options.left,
        "right": options.right,
        "packing": options.packing,
        "first_frame": None if plan.sequence is None else plan.pairs[0].source.name,
        "model": facts.pop("name"),
        **facts,
        "calibration": None if plan.calibration is None else plan.calibration.to_dict(),
        "max_depth": options.max_depth,
        "keep_flying_points": options.keep_flying_points,
        "steady": options.steady,
        "min_confidence": options.min_confidence,
    }
    inputs = (path for pair in plan.pairs for path in pair.source.files())
    return ResumeLog(plan.folder, settings, inputs)


def _begin(plan: Plan, log: ResumeLog | None) -> set[str]:
    """Start a run's log; return the names of the finished maps."""
    done: set[str] = set()
    if log is not None and plan.options.resume:
        log.read(plan.targets)
        done = {
            each.name
            for each in plan.maps
            if log.has(each.name, plan.inputs_of(each), each.targets)
        }
    wait_for_all()
    if is_main():
        if log is None:
            (plan.folder / RESUME_LOG).unlink(missing_ok=True)
        else:
            log.start()
    wait_for_all()
    return done


def _scored_before(folder: Path) -> frozenset[str] | None:
    """Return which maps of an earlier ``infer`` the folder has figures of; None if any may be."""
    if not (folder / METRICS_FILE).exists():
        return frozenset()
    try:
        run = read_run(folder)
    except InputError:
        return None
    if "dataset" in run.protocol:  # of 'stereo evaluate', which writes no maps
        return frozenset()
    return frozenset(name for name, _ in run.images)


def _write_metrics(run: _Run, scores: list[ImageScore], failed: list[str]) -> None:
    """Write ``metrics.json`` and the report, and print the table."""
    plan, model, rules = run.plan, run.model, run.rules
    facts = rules.to_dict() | {"split": None, "pass": None}
    about = run_facts(model, run.peak)
    report = metrics_report(model, facts, rules, scores, failed, run.keeper.records, about)
    write_metrics(plan.folder / "metrics.json", report)
    scored = Scored(model.description["name"], scores, failed, report)
    print_summary([scored], rules, tables.protocol_line(facts))
    truth = plan.pairs[0].source.files()[-1]
    scale = stored_scale(truth, plan.options.ground_truth_scale)
    say_hint([scored], "--ground-truth-scale", scale)
    make_report(plan.folder, [plan.folder])


def _write_films(plan: Plan, failed: set[str]) -> None:
    """Write the colour videos, from the frames that have a map."""
    for side, target in plan.videos.items():
        names = [each.name for each in plan.maps if each.side == side and each.name not in failed]
        pictures = [plan.folder / f"{name}_color.png" for name in names]
        pictures = [path for path in pictures if path.is_file()]
        if pictures and plan.sequence is not None:
            with staged(target) as (temporary,):
                write_video(temporary, pictures, plan.sequence.rate, str(target))
            console.say(f"{len(pictures)} frames in {target}")
