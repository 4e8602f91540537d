"""The stages of ``stereo adapt``: batch-norm statistics, pseudo-labels, the training run."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from stereo.data.augmentation.config import AugmentationConfig
from stereo.data.finding.pairs import PairFiles
from stereo.data.finding.sources import FrameSource, PictureSource, Source
from stereo.data.io.disparities import write_disparity
from stereo.data.sets.sample import Sample
from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.matching.engine import normalise, pad_to_multiple
from stereo.matching.loading import load
from stereo.models.checkpoint import (
    Checkpoint,
    load_checkpoint,
    restore_network,
    save_checkpoint,
)
from stereo.system import console
from stereo.system.files import output_folder, staged
from stereo.training.adapt_data import AdaptPairs, TransferredScene
from stereo.training.adapt_judge import AGREEMENT
from stereo.training.appearance import Appearance
from stereo.training.config import LossConfig, OptimizerConfig, TrainerConfig
from stereo.training.data import TrainingSet
from stereo.training.held_out import spread
from stereo.training.prepare import prepare
from stereo.training.recipe import DataConfig, Recipe
from stereo.training.run import TrainingRun

STATISTICS_PAIRS = 16
APPEARANCE_PAIRS = 32
PASSES = (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15)  # over the pairs, to label them
SURE = 0.8  # confidence of a label
CROP, BATCH = (160, 416), 4
STEP_COST = 6.5  # of a training step, in matches of as many pixels; rendering runs beside it
VALIDATION_SCENES = 6


@dataclass(frozen=True)
class Effort:
    """What parts of a run take.

    Attributes:
        judging: the held-out pairs, once, seconds.
        step: a training step, seconds.
    """

    judging: float
    step: float

    def steps(self, seconds: float) -> int:
        """Return how many training steps fit into a time."""
        return max(0, round(seconds / self.step))


def time_step(start: Path) -> float:
    """Return the seconds of a training step, from a match of as many pixels."""
    matcher = load(start)
    shape = (CROP[0] * BATCH // 2, CROP[1] * 2, 3)
    left, right = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    taken = []
    for _ in range(4):  # the first one warms up
        began = time.monotonic()
        matcher(left, right)
        taken.append(time.monotonic() - began)
    return STEP_COST * min(taken)


@torch.no_grad()
def take_statistics(start: Path, sources: Sequence[Source], target: Path) -> None:
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
    for source in console.progress(spread(sources, STATISTICS_PAIRS), "statistics"):
        sample = source.read()
        left, right = _views(sample)
        flipped = right[:, ::-1], left[:, ::-1]  # with it, even one cell has a variance
        views = [
            normalise([view, other], config.mean, config.std, torch.device("cpu"))
            for view, other in zip((left, right), flipped, strict=True)
        ]
        network(*(pad_to_multiple(v, network.stride, config.padding) for v in views))
    weights = dict(network.state_dict())
    save_checkpoint(target, dataclasses.replace(checkpoint, weights=weights))


def _views(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    return sample.left, sample.right


def write_labels(start: Path, sources: Sequence[Source], folder: Path, end: float) -> None:
    """Write disparities where both views' maps and the confidence agree, infinity elsewhere.

    Time may be short: every 16th pair comes first, then those in between.
    """
    output_folder(folder)
    teacher = load(start)
    ordered = [source for first in PASSES for source in sources[first :: len(PASSES)]]
    left = [source for source in ordered if not _has_label(source, folder)]
    for source in console.progress(left, "label"):
        if time.monotonic() > end and any(folder.iterdir()):
            break
        sample = source.read()
        result, _ = teacher.both(sample.left, sample.right)
        maps = result.confidence_maps
        sure = (maps.confidence >= SURE) & (maps.baselines["left_right"] >= -AGREEMENT)
        if isinstance(source, FrameSource):
            for path, view in zip(_view_files(source, folder), _views(sample), strict=True):
                with staged(path) as (temporary,):
                    Image.fromarray(view).save(temporary)
        with staged(folder / f"{source.name}.pfm") as (temporary,):
            write_disparity(temporary, np.where(sure, result.disparity, np.inf))


def labelled(sources: Sequence[Source], folder: Path) -> list[tuple[Source, Path]]:
    """Return the pairs that have labels, and the labels' files.

    Frames of a video come from images: decoders seek slowly and do not survive a fork.
    """
    found: list[tuple[Source, Path]] = []
    for source in sources:
        if not _has_label(source, folder):
            continue
        path = folder / f"{source.name}.pfm"
        if isinstance(source, FrameSource):
            source = PictureSource(PairFiles(source.name, *_view_files(source, folder)))
        found.append((source, path))
    return found


def _has_label(source: Source, folder: Path) -> bool:
    views = _view_files(source, folder) if isinstance(source, FrameSource) else ()
    return all(path.is_file() for path in (folder / f"{source.name}.pfm", *views))


def _view_files(source: Source, folder: Path) -> tuple[Path, Path]:
    return folder / f"{source.name}_left.png", folder / f"{source.name}_right.png"


def training_run(
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
        loss=LossConfig(beta=0.5, planes=1.0 if config.upsampling == "unbiased" else 0.0),
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
    seen = spread(sources, APPEARANCE_PAIRS)
    appearance = Appearance.of([_views(source.read()) for source in seen])
    known = labelled(sources, labels)
    pairs = AdaptPairs(SyntheticScenes(scenes), appearance, known)
    run = prepare(recipe, weights=str(start))
    training = TrainingSet(pairs, recipe.augmentation, seed, config.mean, config.std)
    unseen = SyntheticScenes(dataclasses.replace(scenes, seed=seed + 2))
    others = AdaptPairs(unseen, appearance, ())
    shown = [TransferredScene(others, k) for k in range(VALIDATION_SCENES)]
    words = f"{len(known)} labelled pairs and rendered scenes in their appearance"
    return dataclasses.replace(
        run,
        training_set=training,
        validation_set=shown,
        plan=f"trained on {words}; validated on {len(shown)} such scenes",
    )
