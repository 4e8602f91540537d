"""Adapt a network to the user's own pairs without ground truth, if that improves it.

The current weights pseudo-label pixels that pass the left-right check with high confidence;
batch-norm statistics are re-estimated on the pairs; then the loop of ``train`` continues on these
pairs and on rendered scenes matched to them in appearance (``appearance.py``). A fifth of the pairs
is held out and decides whether the result is written.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stereo.data.finding.sources import Source, file_stamps, find_sources
from stereo.data.sets.fingerprints import fingerprints_of, packed
from stereo.errors import InputError, UsageError
from stereo.models.checkpoint import file_sha256, load_checkpoint, save_checkpoint
from stereo.system import console
from stereo.system.bundled import DEFAULT_MODEL
from stereo.system.files import writes_alone
from stereo.system.heap import large_blocks_kept
from stereo.training.adapt_judge import (
    FEW,
    MIN_PAIRS,
    STAGES,
    Baseline,
    Choice,
    find_unusable,
    judge_before,
)
from stereo.training.adapt_stages import (
    Effort,
    take_statistics,
    time_step,
    training_run,
    write_labels,
)
from stereo.training.adapt_state import RunFolder, check_output
from stereo.training.loop import train
from stereo.training.prepare import weights_file
from stereo.training.recipe import check_seed
from stereo.training.schedule import parse_duration
from stereo.training.state import checkpoints_of
from stereo.version import __version__

HELD_OUT = 5  # every so many pairs
TEACHING_SHARE = 0.25  # of the time
MIN_STEPS = 10  # fewer do not justify computing labels
MAX_HOURS = 24


def adapt(
    left: str,
    right: str | None = None,
    *,
    output: str,
    packing: str | None = None,
    weights: str = DEFAULT_MODEL,
    max_time: str = "10m",
    seed: int = 0,
) -> bool:
    """Adapt weights to pairs; write them if the held-out pairs are matched better.

    Args:
        left: left views: a folder, a quoted glob, a video, or numbered images such as
            left_%06d.png.
        right: right views, of the same kind; omit with --packing.
        output: the .safetensors file to write, or to replace. Intermediate files stay beside it in
            a folder, mine.run for mine.safetensors; repeat the command to resume.
        packing: how LEFT holds both views in one image: side-by-side or top-bottom.
        weights: initial weights: a model's name or a .safetensors file.
        max_time: total time, which measuring may exceed: 90s, 10m, 2.5h (a number alone is in
            seconds); at most 24h.
        seed: of the sample order and augmentation.

    Returns:
        Whether they were written.

    Raises:
        UsageError: an output of another kind, or weights that do not exist.
        InputError: too few pairs, or pairs that cannot be matched.
        OutputError: the output cannot be written, or another run is writing it.
    """
    seconds = parse_duration(max_time)
    if seconds > 3600 * MAX_HOURS:
        raise UsageError(f"--max-time {max_time}: at most {MAX_HOURS}h")
    check_seed(seed)
    end = time.monotonic() + seconds
    start = weights_file(weights)
    load_checkpoint(start)  # unusable weights fail before any work
    sources = find_sources(left, right, packing=packing)
    if len(sources) < MIN_PAIRS:
        raise InputError(f"adapt needs at least {MIN_PAIRS} pairs, got {len(sources)}")
    facts = {
        "weights": file_sha256(start),
        "pairs": [source.name for source in sources],
        "views": list(dict.fromkeys(tuple(map(str, source.files())) for source in sources)),
        "files": file_stamps(path for source in sources for path in source.files()),
        "packing": packing,
        "seed": seed,
        "max_time": f"{seconds:g}s",
    }
    target = check_output(output, start)
    folder = RunFolder(target.with_suffix(".run"))
    try:
        better = _adapt(folder, start, Path(weights).name, sources, facts, target, end)
    except (KeyboardInterrupt, SystemExit):
        console.say("stopped; the same command goes on from here")
        raise
    folder.remove_if_empty()
    return better


@writes_alone
def _adapt(
    folder: RunFolder,
    start: Path,
    name: str,
    sources: Sequence[Source],
    facts: dict[str, Any],
    target: Path,
    end: float,
) -> bool:
    """Return whether the held-out pairs were matched better and the weights are written."""
    folder.open()
    known = folder.read(facts)
    try:
        baseline, effort = known or _begin(folder, start, sources, facts)
    except InputError:
        folder.remove()  # nothing is lost yet
        raise
    choice = _make(folder, start, sources, baseline, effort, facts["seed"], end)
    held_out, judged = len(baseline.held_out), len(baseline.judged)
    part = f", {judged} of them judged" if judged < held_out else ""
    judges = f"the pairs held out ({held_out} of {len(sources)}{part})"
    few = "; so few prove little: compare a pair or two by eye" if judged < FEW else ""
    if choice.stage is not None:
        about = {
            "from": name,
            "weights": facts["weights"],
            "folders": sorted({path.absolute().parent.name for path in sources[0].files()}),
            "pairs": facts["pairs"],
            "left_out": baseline.left_out,
            "held_out": baseline.held_out,
            "judged": baseline.judged,
            "seed": facts["seed"],
            "max_time": facts["max_time"],
            "stage": choice.stage,
            "version": __version__,
            "before": baseline.before,
            "after": choice.values,
        }
        found = load_checkpoint(choice.path)
        own = fingerprints_of({path for source in sources for path in source.files()})
        seen = packed(load_checkpoint(start).trained_on | own)
        training = {"adapted": about, "trained_on": seen}
        save_checkpoint(target, dataclasses.replace(found, training=training))
        console.say(f"{target}: better on {judges} {STAGES[choice.stage]}{few}")
    else:
        console.warn(f"{judges} are matched no better: {target} is not written, keep {name}{few}")
    folder.remove()
    return choice.stage is not None


def _begin(
    folder: RunFolder, start: Path, sources: Sequence[Source], facts: dict[str, Any]
) -> tuple[Baseline, Effort]:
    """Check the pairs, measure the initial weights on those held out, and note both."""
    unusable = find_unusable(start, sources, load_checkpoint(start).config.max_disparity)
    usable = [source for source in sources if source.name not in unusable]
    kept_out = usable[HELD_OUT // 2 :: HELD_OUT]
    if usable[0].sequence is not None:
        kept_out = usable[-len(kept_out) :]  # frames resemble their neighbours
    began = time.monotonic()
    baseline = judge_before(start, kept_out, unusable)
    effort = Effort(time.monotonic() - began, time_step(start))
    folder.write(facts, baseline, effort)
    return baseline, effort


def _make(
    folder: RunFolder,
    start: Path,
    sources: Sequence[Source],
    baseline: Baseline,
    effort: Effort,
    seed: int,
    end: float,
) -> Choice:
    """Make weights in stages and choose among them."""
    kept_out = [source for source in sources if source.name in baseline.judged]
    unseen = {*baseline.held_out, *baseline.left_out}
    taught = [source for source in sources if source.name not in unseen]
    choice = Choice(start, baseline.before, kept_out)
    if not folder.statistics.is_file():
        take_statistics(start, taught, folder.statistics)
    choice.offer(folder.statistics, "statistics")
    _train(folder, start, choice, taught, seed, effort, end)
    return choice


def _train(
    folder: RunFolder,
    start: Path,
    choice: Choice,
    sources: Sequence[Source],
    seed: int,
    effort: Effort,
    end: float,
) -> None:
    """Train within the time, and offer the result; without enough time say so."""

    def remaining() -> float:
        return end - time.monotonic() - 2 * effort.judging

    spare = remaining()
    if not folder.has_steps():
        needed = MIN_STEPS * effort.step / (1 - TEACHING_SHARE)
        if spare < needed:
            console.say(
                f"no time is left to train: {max(spare, 0):.0f} s, and {MIN_STEPS} steps take "
                f"{needed:.0f}; raise --max-time; statistics alone are judged"
            )
            return
        write_labels(start, sources, folder.labels, time.monotonic() + TEACHING_SHARE * spare)
    steps = folder.steps(max(effort.steps(remaining()), MIN_STEPS))
    checkpoint = load_checkpoint(start)
    run = training_run(checkpoint, choice.path, sources, folder.labels, seed, steps)
    with large_blocks_kept(enabled=True):
        train(run, folder.training, max_seconds=max(remaining(), 1.0))
    last = load_checkpoint(checkpoints_of(folder.training)[0])
    save_checkpoint(folder.trained, dataclasses.replace(last, confidence=checkpoint.confidence))
    choice.offer(folder.trained, "trained")
