"""Fit the confidence of a model on rendered pairs, and check its calibration on others."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.errors import UsageError
from stereo.evaluation import tables
from stereo.evaluation.sparsification import WITHIN, reliability, reliability_sums
from stereo.matching.confidence import COMMON, ConfidenceModel
from stereo.matching.loading import load
from stereo.matching.matcher import Matcher
from stereo.models.checkpoint import load_checkpoint, save_checkpoint
from stereo.system import console
from stereo.system.bundled import SGBM
from stereo.system.files import output_folder, staged
from stereo.training.prepare import weights_file

SIZES = ((256, 448), (384, 640), (480, 768))
PIXELS = 4096  # of each pair
STEPS = 2000
BATCH = 8192


def fit_confidence(
    model: str,
    output: str | Path,
    *,
    device: str = "auto",
    pairs: int = 192,
    held_out: int = 96,
    seed: int = 77,
    common: bool = False,
) -> dict[str, Any]:
    """Fit a model's confidence and write it.

    Args:
        model: a bundled network's name, a .safetensors file or sgbm.
        output: the checkpoint with the fit in it, .safetensors; or the fit alone, .json.
        device: as in ``ComputeOptions``.
        pairs: rendered pairs to fit to.
        held_out: others, to check it with.
        seed: of the rendered pairs.
        common: read only the features that every model has.

    Returns:
        How it was fitted, and what the held-out pairs say, as stored with it.

    Raises:
        UsageError: too few pairs, an unknown model, or an output with another suffix.
        InputError: a checkpoint that cannot be used.
        OutputError: the output cannot be written.
    """
    path = Path(output)
    checkpoint = None if model == SGBM else weights_file(model, SGBM)
    if path.suffix not in (".json", ".safetensors"):
        raise UsageError(f"--output {path}: expected a .safetensors or a .json file")
    if path.suffix == ".safetensors" and checkpoint is None:
        raise UsageError(f"'{model}' has no weights to be written with it; use --output FILE.json")
    if min(pairs, held_out) < 2:
        raise UsageError("--pairs and --held-out must be at least 2")
    output_folder(path.parent)
    whole = load_checkpoint(checkpoint) if checkpoint and path.suffix == ".safetensors" else None
    source = model if checkpoint is None else checkpoint
    matcher = load(source, device=device)
    found = [
        _observe(matcher, i, seed)
        for i in console.progress(range(pairs + held_out), "match", pairs + held_out)
    ]
    names = [name for name in found[0][0] if name in COMMON or not common]
    rows = [torch.stack([features[name] for name in names], dim=1) for features, _ in found]
    right = [within for _, within in found]
    fitted = ConfidenceModel(names)
    _descend(fitted, torch.cat(rows[:pairs]), torch.cat(right[:pairs]), seed)
    with torch.inference_mode():
        predicted = fitted(torch.cat(rows[pairs:])).sigmoid().numpy()
    bins = reliability(reliability_sums(predicted, torch.cat(right[pairs:]).numpy()))
    fitted.facts = {
        "model": matcher.description["name"],
        "pairs": pairs,
        "held_out": held_out,
        "seed": seed,
        "sizes": [list(size) for size in SIZES],
        "reliability": bins,
    }
    console.say(tables.reliability_table(bins))
    if path.suffix == ".json":
        with staged(path) as (temporary,):
            temporary.write_text(json.dumps(fitted.to_dict()) + "\n", encoding="utf-8")
    elif whole is not None:
        save_checkpoint(path, replace(whole, confidence=fitted.to_dict()))
    return fitted.facts


def _observe(matcher: Matcher, index: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return the features of some pixels of a rendered pair, and whether each is right."""
    height, width = SIZES[index % len(SIZES)]
    most = matcher.description["max_disparity"]
    scene = SyntheticConfig(height=height, width=width, max_disparity=min(most, width), seed=seed)
    pair = SyntheticScenes(scene).render(index)
    estimate, features = matcher.confidence_features(pair.left, pair.right)
    known = np.flatnonzero((pair.disparity > 0) & (pair.disparity < most))
    chosen = np.random.default_rng((seed, index)).choice(known, min(PIXELS, len(known)), False)
    error = np.abs(estimate.disparity - pair.disparity).ravel()[chosen]
    at = torch.from_numpy(chosen)
    values = {name: value.flatten()[at] for name, value in features.values.items()}
    return values, torch.from_numpy(error <= WITHIN)


def _descend(model: ConfidenceModel, features: Tensor, within: Tensor, seed: int) -> None:
    target = within.float()
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        bound = 1 / len(model.features) ** 0.5
        torch.nn.init.uniform_(weight, -bound, bound, generator=generator)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in console.progress(range(STEPS), "fit", STEPS):
        some = torch.randint(len(features), (BATCH,), generator=generator)
        loss = F.binary_cross_entropy_with_logits(model(features[some]), target[some])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
