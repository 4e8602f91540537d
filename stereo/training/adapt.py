"""Adapt a network to the user's own pairs without ground truth, if that improves it.

The current weights pseudo-label pixels that pass the left-right check with high confidence;
batch-norm statistics are re-estimated on the pairs; then the loop of ``train`` continues on these
pairs and on rendered scenes matched to them in appearance (``appearance.py``). A fifth of the pairs
is held out and decides whether the result is written.
"""

import dataclasses
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from stereo.data.augmentation.config import AugmentationConfig
from stereo.data.finding.sources import Source, find_sources
from stereo.data.io.disparities import write_disparity
from stereo.data.sets.sample import Sample
from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.errors import InputError, UsageError
from stereo.geometry.check import check_pair
from stereo.matching.engine import normalise, pad_to_multiple
from stereo.matching.loading import load
from stereo.matching.matcher import Matcher
from stereo.models.checkpoint import (
    Checkpoint,
    file_sha256,
    load_checkpoint,
    restore_network,
    save_checkpoint,
)
from stereo.models.config import ENLARGED_PIXELS
from stereo.system import console
from stereo.system.bundled import DEFAULT_MODEL
from stereo.system.files import output_folder, staged
from stereo.system.opencv import import_cv2
from stereo.system.runtime import keep_freed_memory
from stereo.training.adapt_data import AdaptPairs, TransferredScene
from stereo.training.appearance import Appearance
from stereo.training.config import LossConfig, OptimizerConfig, TrainerConfig
from stereo.training.data import TrainingSet
from stereo.training.loop import train
from stereo.training.prepare import prepare, weights_file
from stereo.training.recipe import DataConfig, Recipe
from stereo.training.run import TrainingRun
from stereo.training.schedule import parse_duration
from stereo.training.state import checkpoints_of

MIN_PAIRS = 5
CHECKED = 12  # pairs
STATISTICS_PAIRS = 16
HELD_OUT = 5  # every so many pairs
SURE = 0.8  # confidence of a label
AGREEMENT = 1.0  # pixels between the two views' maps
TEACHING_SHARE = 0.25  # of the time
CROP, BATCH = (160, 416), 4
STEP_COST = 4.6  # of a training step, in matches of as many pixels
SEEN = 4  # times that a rendered scene is seen, at least: rendering takes longer than learning
MAX_SCENES = 500  # kept in memory
VALIDATION_SCENES = 6
WORSE = 0.02  # relative; a measure may fall by so much where the others rise
MEASURES = {"photometric": -1, "agreement": 1, "confidence": 1}  # 1: the more, the better


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
        output: the .safetensors file to write. Intermediate files stay beside it in FILE.run;
            repeat the command to resume.
        packing: how LEFT holds both views in one image: side-by-side or top-bottom.
        weights: initial weights: a model's name or a .safetensors file.
        max_time: total time: 90s, 10m, 2.5h.
        seed: of the sample order and augmentation.

    Returns:
        Whether they were written.

    Raises:
        UsageError: an output of another kind, or weights that do not exist.
        InputError: too few pairs, or pairs that cannot be matched.
        OutputError: the output cannot be written.
    """
    end = time.monotonic() + parse_duration(max_time)
    keep_freed_memory()
    target = Path(output)
    if target.suffix != ".safetensors":
        raise UsageError(f"--output {output}: expected a .safetensors file")
    start = weights_file(weights)
    checkpoint = load_checkpoint(start)
    sources = find_sources(left, right, packing=packing)
    _check_sources(sources, checkpoint.config.max_disparity)
    folder = output_folder(target.with_suffix(".run"))
    facts = {
        "weights": file_sha256(start),
        "pairs": [source.name for source in sources],
        "seed": seed,
    }
    kept_out = sources[HELD_OUT // 2 :: HELD_OUT]
    taught = [source for source in sources if source not in kept_out]
    before, effort = _begin(folder, facts, start, kept_out)
    _say("before", before)
    labels, renewed = folder / "labels", folder / "statistics.safetensors"
    if not renewed.is_file():
        _label(start, taught, labels, end - (1 - TEACHING_SHARE) * (end - time.monotonic()))
        _take_statistics(start, taught, renewed)
    choice = _Choice(start, before, kept_out)
    choice.offer(renewed, "with batch norm's statistics of these pairs")
    remaining = max(end - time.monotonic() - 2 * effort.seconds, 1.0)
    steps = effort.steps(folder, remaining)
    run = _training_run(checkpoint, choice.path, taught, labels, seed, steps)
    train(run, folder, max_seconds=remaining)
    trained = folder / "trained.safetensors"
    last = load_checkpoint(checkpoints_of(folder)[0])
    save_checkpoint(trained, dataclasses.replace(last, confidence=checkpoint.confidence))
    choice.offer(trained, "trained")
    better = choice.path != start
    judges = f"the pairs held out ({len(kept_out)} of {len(sources)})"
    if better:
        about = facts | {"from": Path(weights).name, "before": before, "after": choice.values}
        found = load_checkpoint(choice.path)
        save_checkpoint(
            target, dataclasses.replace(found, training=found.training | {"adapted": about})
        )
        console.say(f"{output}: better on {judges}")
    else:
        console.say(
            f"{judges} are matched no better: {output} is not written, keep {Path(weights).name}"
        )
    shutil.rmtree(folder)
    return better


@dataclass(frozen=True)
class _Effort:
    """What matching the held-out pairs took."""

    seconds: float
    pixels: int

    def steps(self, folder: Path, seconds: float) -> int:
        """Return how many training steps fit into a time, the same when a call is repeated."""
        path = folder / "steps"
        if not path.is_file():
            pixels = STEP_COST * BATCH * CROP[0] * CROP[1]
            count = max(1, round(seconds / (self.seconds / self.pixels * pixels)))
            with staged(path) as (temporary,):
                temporary.write_text(str(count), encoding="utf-8")
        return int(path.read_text(encoding="utf-8"))


class _Choice:
    """The best weights so far, by the held-out pairs."""

    def __init__(self, path: Path, values: dict[str, float], kept_out: Sequence[Source]) -> None:
        self.path, self.values, self._kept_out = path, values, kept_out

    def offer(self, path: Path, what: str) -> None:
        """Adopt other weights if they are better."""
        values = measure(load(path, scale="1"), self._kept_out)
        _say(what, values)
        if is_better(self.values, values):
            self.path, self.values = path, values


def is_better(before: dict[str, float], after: dict[str, float]) -> bool:
    """Return whether two of three measures improve and none gets worse by more than 2 %."""
    gains = [sign * (after[name] - before[name]) / before[name] for name, sign in MEASURES.items()]
    return sum(gain > 0 for gain in gains) >= 2 and min(gains) > -WORSE


def measure(matcher: Matcher, sources: Sequence[Source]) -> dict[str, float]:
    """Return quality measures that need no ground truth.

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
        found.append((error, float(agree.mean()), float(maps.confidence.mean())))
    means = np.mean(found, axis=0).tolist()
    return dict(zip(MEASURES, (round(each, 5) for each in means), strict=True))


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


def _say(what: str, values: dict[str, float]) -> None:
    console.say(
        f"{what}: photometric error {values['photometric']:.3f}, views agree on "
        f"{100 * values['agreement']:.1f} %, confidence {100 * values['confidence']:.1f} %"
    )


def _check_sources(sources: Sequence[Source], max_disparity: int) -> None:
    """Check some of the pairs.

    In noisy images the check of a single pair may fail, so the pairs are judged together.

    Raises:
        InputError: too few, or two thirds of those checked have a fault.
    """
    if len(sources) < MIN_PAIRS:
        raise InputError(f"adapt needs at least {MIN_PAIRS} pairs, got {len(sources)}")
    faults = []
    checked = _some(sources, CHECKED)
    for source in checked:
        sample = source.read()
        found = check_pair(sample.left, sample.right, max_disparity, quick=True).faults
        faults += [f"{source.name}: {found[0]}"] if found else []
    if 3 * len(faults) >= 2 * len(checked):
        raise InputError(
            f"{len(faults)} of {len(checked)} checked pairs cannot be matched; {faults[0]}"
        )


def _begin(
    folder: Path, facts: dict[str, Any], start: Path, kept_out: Sequence[Source]
) -> tuple[dict[str, float], _Effort]:
    """Return the measures before, and what they took, from an interrupted call if there is one.

    Raises:
        InputError: the folder holds work on other pairs, weights or another seed.
    """
    path = folder / "adapt.json"
    if path.is_file():
        noted = json.loads(path.read_text(encoding="utf-8"))
        if noted["facts"] != facts:
            raise InputError(
                f"{folder}: holds work on other pairs, weights or another seed; remove it, or name "
                "another --output"
            )
        return dict(noted["before"]), _Effort(**noted["effort"])
    began = time.monotonic()
    before = measure(load(start, scale="1"), kept_out)
    pixels = sum(source.read().left[..., 0].size for source in kept_out)
    effort = _Effort(time.monotonic() - began, 2 * pixels)  # both views of each
    note = {"facts": facts, "before": before, "effort": dataclasses.asdict(effort)}
    with staged(path) as (temporary,):
        temporary.write_text(json.dumps(note, indent=1), encoding="utf-8")
    return before, effort


@torch.no_grad()
def _take_statistics(start: Path, sources: Sequence[Source], target: Path) -> None:
    """Write the weights with the mean statistics of batch norm over the pairs."""
    checkpoint = load_checkpoint(start)
    network = restore_network(checkpoint, str(start))
    config = checkpoint.config
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.reset_running_stats()
            module.momentum = None  # the mean of all
    for source in console.progress(_some(sources, STATISTICS_PAIRS), "statistics"):
        sample = source.read()
        views = [
            normalise([view], config.mean, config.std, torch.device("cpu"))
            for view in _views(sample)
        ]
        if views[0].shape[2] * views[0].shape[3] <= ENLARGED_PIXELS.get(config.name, 0):
            views = [F.interpolate(v, scale_factor=2, mode="bicubic") for v in views]
        network(*(pad_to_multiple(v, network.stride, config.padding) for v in views))
    weights = dict(network.state_dict())
    save_checkpoint(target, dataclasses.replace(checkpoint, weights=weights))


def _some(sources: Sequence[Source], most: int) -> Sequence[Source]:
    """Return at most ``most`` of them, spread over the list."""
    return sources[:: max(1, -(-len(sources) // most))]


def _views(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    return sample.left, sample.right


def _label(start: Path, sources: Sequence[Source], folder: Path, end: float) -> None:
    """Write disparities where both views' maps and the confidence agree, infinity elsewhere."""
    output_folder(folder)
    teacher = load(start, scale="auto")
    left = [source for source in sources if not (folder / f"{source.name}.pfm").is_file()]
    for source in console.progress(left, "label"):
        if time.monotonic() > end and any(folder.iterdir()):
            break
        sample = source.read()
        result, _ = teacher.both(sample.left, sample.right)
        maps = result.confidence_maps
        sure = (maps.confidence >= SURE) & (maps.baselines["left_right"] >= -AGREEMENT)
        with staged(folder / f"{source.name}.pfm") as (temporary,):
            write_disparity(temporary, np.where(sure, result.disparity, np.inf))


def _training_run(
    checkpoint: Checkpoint,
    start: Path,
    sources: Sequence[Source],
    labels: Path,
    seed: int,
    steps: int,
) -> TrainingRun:
    """Return the run of ``train`` from these weights."""
    config = checkpoint.config
    most = config.max_disparity
    scenes = SyntheticConfig(
        height=192, width=448, max_disparity=min(most, 192), noise=0.3, seed=seed + 1
    )
    recipe = Recipe(
        network=config,
        data=DataConfig(synthetic=scenes),
        augmentation=AugmentationConfig(
            crop=CROP,
            scale_probability=0.5,
            scale=(0.8, 1.6),
            color_probability=0.2,
            gamma_probability=0.2,
            eraser_probability=0.3,
            eraser_elsewhere=0.5,
        ),
        optimizer=OptimizerConfig(
            learning_rate=5e-4,
            weight_decay=1e-4,
            schedule="one_cycle",
            warmup_share=0.1,
            clip_norm=1.0,
        ),
        loss=LossConfig(beta=0.5, planes=0.0 if "psmnet" in config.name else 1.0),
        trainer=TrainerConfig(
            max_steps=steps,
            batch_size=BATCH,
            workers=1,
            freeze_batch_norm=True,
            ema_decay=0.9,
            validate_every=500,
            checkpoint_every=50,
        ),
        seed=seed,
    )
    appearance = Appearance.of([_views(source.read()) for source in sources])
    known = [(source, labels / f"{source.name}.pfm") for source in sources]
    known = [(source, path) for source, path in known if path.is_file()]
    count = min(max(BATCH * steps // SEEN, 1), MAX_SCENES)
    pairs = AdaptPairs(SyntheticScenes(scenes), appearance, known, count)
    run = prepare(recipe, weights=str(start))
    training = TrainingSet(pairs, recipe.augmentation, seed, config.mean, config.std)
    unseen = SyntheticScenes(dataclasses.replace(scenes, seed=seed + 2))
    others = AdaptPairs(unseen, appearance, (), VALIDATION_SCENES)
    shown = [TransferredScene(others, k) for k in range(VALIDATION_SCENES)]
    words = f"{len(known)} labelled pairs and rendered scenes in their appearance"
    return dataclasses.replace(
        run,
        training_set=training,
        validation_set=shown,
        data=f"trained on {words}; validated on {len(shown)} such scenes",
    )
