"""Whether pairs can be adapted to, and whether weights match them better, without ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stereo.data.finding.sources import Source
from stereo.data.sets.sample import Sample
from stereo.errors import InputError
from stereo.geometry.check import check_pair
from stereo.matching.loading import load
from stereo.matching.matcher import Matcher
from stereo.system import console
from stereo.system.opencv import import_cv2
from stereo.training.held_out import spread

MIN_PAIRS = 5
CHECKED = 24  # pairs
AGREEMENT = 1.0  # pixels between the two views' maps
MIN_AGREEMENT = 0.15  # share of pixels; unrelated views: 0.08 at most, a dark noisy rig: 0.4
JUDGED = 24  # pairs at most, of those held out
FEW = 5  # held-out pairs, whose verdict proves little
BETTER, BETTER_FEW = 0.005, 0.01  # relative; a smaller rise of a measure may be chance
WORSE = 0.02  # relative; a measure may fall by so much where the others rise
MEASURES = {"photometric": -1, "agreement": 1, "confidence": 1}  # 1: the more, the better
ARRANGED = 4  # pairs that are matched in other arrangements
ROWS = 4  # by which the right view is shifted there
MARGIN = 0.1  # of the agreement, by which another arrangement has to be better
STAGES = {"statistics": "with batch-norm statistics of these pairs", "trained": "after training"}
DOUBTFUL = "unrelated: only"  # so begins the fault of a pair with few features that agree


class Choice:
    """The best weights so far, by the held-out pairs.

    Attributes:
        path: their file.
        values: their measures.
        stage: what made them; None for the initial weights.
    """

    def __init__(self, path: Path, values: dict[str, float], kept_out: Sequence[Source]) -> None:
        self.path, self.values, self._kept_out = path, values, kept_out
        self.stage: str | None = None

    def offer(self, path: Path, stage: str) -> None:
        """Adopt other weights if they are better."""
        values = mean_of(measure(load(path), self._kept_out))
        say(STAGES[stage], values)
        if is_better(self.values, values, len(self._kept_out)):
            self.path, self.values, self.stage = path, values, stage


def is_better(before: dict[str, float], after: dict[str, float], pairs: int) -> bool:
    """Return whether two of three measures gain over 0.5 % and none loses over 2 %.

    With fewer than ``FEW`` pairs the two have to gain over 1 %, since gains vary between pairs.
    """
    least = BETTER_FEW if pairs < FEW else BETTER
    gains = [(sign * (after[name] - before[name]), before[name]) for name, sign in MEASURES.items()]
    risen = sum(gain > least * old for gain, old in gains)
    return risen >= 2 and all(gain >= -WORSE * old for gain, old in gains)


@dataclass(frozen=True)
class _Arranged:
    """A pair with the views swapped, or the right one shifted down by some rows."""

    source: Source
    swapped: bool = False
    rows: int = 0

    def read(self) -> Sample:
        """Read and rearrange it."""
        sample = self.source.read()
        left, right = sample.left, np.roll(sample.right, self.rows, axis=0)
        return Sample(sample.name, *((right, left) if self.swapped else (left, right)))


def measure(matcher: Matcher, sources: Sequence[Source | _Arranged]) -> list[dict[str, float]]:
    """Return quality measures of each pair that need no ground truth.

    Returns:
        ``photometric``: the mean absolute difference between the left view and the warped right
        view, both smoothed and with their local mean removed, 8-bit grey levels; ``agreement``:
        share of the pixels whose two maps agree within 1 px; ``confidence``: its mean.
    """
    found = []
    for source in console.progress(sources, "measure"):
        sample = source.read()
        result, _ = matcher.both(sample.left, sample.right)
        maps = result.confidence_maps
        agree = maps.baselines["left_right"] >= -AGREEMENT
        error = _photometric(sample.left, sample.right, result.disparity)
        values = error, float(agree.mean()), float(maps.confidence.mean())
        found.append(dict(zip(MEASURES, values, strict=True)))
    return found


def mean_of(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each measure over the pairs."""
    return {name: float(np.mean([values[name] for values in found])) for name in MEASURES}


def _photometric(left: np.ndarray, right: np.ndarray, disparity: np.ndarray) -> float:
    cv2 = import_cv2()
    y, x = np.indices(disparity.shape, np.float32)
    smooth = [
        cv2.GaussianBlur(view.mean(axis=2).astype(np.float32), (0, 0), 1.5)
        for view in (left, right)
    ]
    smooth = [view - cv2.blur(view, (15, 15)) for view in smooth]
    at = (x - disparity).astype(np.float32)
    there = cv2.remap(smooth[1], at, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(smooth[0] - there)[at >= 0].mean())


def say(what: str, values: dict[str, float]) -> None:
    """Print measures."""
    console.say(
        f"{what}: photometric error {values['photometric']:.3f}, views agree on "
        f"{100 * values['agreement']:.1f} %, confidence {100 * values['confidence']:.1f} %"
    )


@dataclass(frozen=True)
class Baseline:
    """The initial weights on the pairs held out.

    Attributes:
        before: their measures.
        held_out: the pairs that are not adapted to, by name.
        judged: those of them that decide.
        left_out: the pairs that cannot be used.
    """

    before: dict[str, float]
    held_out: tuple[str, ...]
    judged: tuple[str, ...]
    left_out: tuple[str, ...]


def find_unusable(start: Path, sources: Sequence[Source], max_disparity: int) -> list[str]:
    """Return the names of the pairs, of those checked, that cannot be used; warn of each.

    Noise leaves few features that agree, and so do unrelated views; there the network's maps decide
    with the weights of ``start``. Of the pairs with too few features, ``ARRANGED`` are matched with
    swapped and with shifted views as well.

    Raises:
        InputError: a third of the pairs judged have a fault, or fewer than ``MIN_PAIRS`` are left.
    """
    faults: dict[str, str] = {}
    blank, doubtful, unclear = [], [], []
    checked = spread(sources, CHECKED)
    for source in console.progress(checked, "check"):
        sample = source.read()
        found = check_pair(sample.left, sample.right, max_disparity, quick=True)
        fault = next(iter(found.faults), "")
        if fault.startswith("blank:"):
            blank.append(source.name)
        elif fault.startswith(DOUBTFUL):
            doubtful.append((source, fault))
        elif fault:
            faults[source.name] = fault
        elif any(note.startswith("texture:") for note in found.notes):
            unclear.append(source)
    if doubtful:
        values = measure(load(start), [source for source, _ in doubtful])
        for (source, fault), value in zip(doubtful, values, strict=True):
            if value["agreement"] < MIN_AGREEMENT:
                faults[source.name] = fault
            else:
                unclear.append(source)
    judged = len(checked) - len(blank)
    if unclear:
        tested = spread(unclear, ARRANGED)
        judged -= len(unclear) - len(tested)
        console.say(
            f"{len(unclear)} of {len(checked)} checked pairs have too few features; "
            f"{len(tested)} of them are judged by their maps"
        )
        faults |= _misarranged(load(start), tested)
    if faults and 3 * len(faults) >= judged:
        name, fault = next(iter(faults.items()))
        raise InputError(
            f"{len(faults)} of {judged} checked pairs cannot be matched; the first, {name}: {fault}"
        )
    unusable = faults | dict.fromkeys(blank, "the image is blank")
    if len(sources) - len(unusable) < MIN_PAIRS:
        name, fault = next(iter(unusable.items()))
        raise InputError(
            f"adapt needs at least {MIN_PAIRS} pairs, and {len(unusable)} of the {len(sources)} "
            f"cannot be used; the first, {name}: {fault}"
        )
    for name, fault in unusable.items():
        console.warn(f"warning: {name} is left out: {fault}")
    return list(unusable)


def _misarranged(matcher: Matcher, sources: Sequence[Source]) -> dict[str, str]:
    """Return the fault of each pair whose two maps agree clearly better in another arrangement."""
    remedies = (
        "with the views swapped; give them in the other order",
        f"with the right view {ROWS} px lower; rectify the pairs",
        f"with the right view {ROWS} px higher; rectify the pairs",
    )
    faults = {}
    for source in sources:
        arranged = [
            _Arranged(source),
            _Arranged(source, swapped=True),
            _Arranged(source, rows=ROWS),
            _Arranged(source, rows=-ROWS),
        ]
        given, *others = (value["agreement"] for value in measure(matcher, arranged))
        best, remedy = max(zip(others, remedies, strict=True))
        if best > given + MARGIN:
            faults[source.name] = (
                f"its maps agree on {100 * given:.0f} % of the pixels, but on {100 * best:.0f} % "
                f"{remedy} (see 'stereo check-pair')"
            )
    return faults


def judge_before(start: Path, held_out: Sequence[Source], unusable: Sequence[str]) -> Baseline:
    """Measure the initial weights; leave out and name held-out pairs that show nothing.

    Of many held-out pairs ``JUDGED`` are measured.

    Raises:
        InputError: the views agree on too few pixels for a verdict.
    """
    measured = spread(held_out, JUDGED)
    found = measure(load(start), measured)
    shown = [values["photometric"] > 0 and values["agreement"] > 0 for values in found]
    empty = [source.name for source, each in zip(measured, shown, strict=True) if not each]
    for name in empty:
        console.warn(f"warning: {name} is left out: without texture its views agree nowhere")
    if not any(shown):
        raise InputError(
            f"no pair held out has a texture that could be matched ({', '.join(empty[:3])}): "
            "remove such pairs, or give more of others"
        )
    before = mean_of([values for values, each in zip(found, shown, strict=True) if each])
    say("before", before)
    if before["agreement"] < MIN_AGREEMENT:
        raise InputError(
            f"the views agree on {100 * before['agreement']:.1f} % of the pixels held out, and "
            f"below {100 * MIN_AGREEMENT:.0f} % nothing tells better from worse: the pairs are "
            "unrelated, swapped or not rectified; see 'stereo check-pair', and give pairs of one "
            "scene, taken at one time, the left view first"
        )
    judged = tuple(s.name for s, each in zip(measured, shown, strict=True) if each)
    rest = tuple(source.name for source in held_out if source.name not in empty)
    return Baseline(before, rest, judged, (*unusable, *empty))
