"""Validation of the averaged network, on pairs shared among processes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast, gather_object

from stereo.data.sets.sample import Readable
from stereo.errors import InputError, StereoError
from stereo.evaluation.metrics import ImageScore, score_all_pixels, summarize
from stereo.evaluation.protocols import get_protocol
from stereo.evaluation.truth_scale import scale_hint
from stereo.matching.engine import NetworkEngine
from stereo.matching.options import MatchOptions
from stereo.system import console
from stereo.training.learner import Learner
from stereo.training.run import TrainingRun
from stereo.training.supervision import TruthCount

SHOWN_PAIRS = 3


def validate(
    run: TrainingRun, learner: Learner, pairs: Sequence[Readable], *, all_of_them: bool = True
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Score the averaged network on pairs, each on one of the processes.

    Pixels count above 0 and in the network's range, whatever ``loss.zero_counts`` says. What is
    logged, and chooses the best weights, is ``epe_image``, the mean over images.

    Returns:
        The summary over all processes, and some pairs of this process to show.

    Raises:
        InputError: a pair that cannot be read, or no pixel that counts.
        StereoError: the network's maps are not finite.
    """
    accelerator, network = learner.accelerator, learner.average.network
    for buffer in network.buffers():  # each process has running statistics of its own pairs
        broadcast(buffer)
    reach = run.network_config.max_disparity
    protocol = dataclasses.replace(get_protocol("pooled"), below=reach)
    scores: list[ImageScore] = []
    count = TruthCount(reach)
    own = range(accelerator.process_index, len(pairs), accelerator.num_processes)
    places = np.linspace(0, len(own) - 1, min(len(own), SHOWN_PAIRS)).round().astype(int)
    shown = {own[place] for place in places.tolist()}
    examples: list[dict[str, Any]] = []
    errors: list[StereoError] = []
    training = network.training
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        options = MatchOptions(
            device=str(learner.device), precision=run.trainer.precision, tile="off"
        )
        engine = NetworkEngine(network, run.network_config, options)
        for index in own:
            try:
                example = _match(engine, pairs[index])
            except StereoError as error:
                errors.append(error)
                continue
            disparity, truth, valid = (example[key] for key in ("disparity", "truth", "valid"))
            count.add(torch.from_numpy(truth), torch.from_numpy(valid))
            scores.append(
                score_all_pixels(example["name"], index, disparity, truth, valid, protocol)
            )
            if index in shown:
                examples.append(example)
        errors = gather_object(errors)
        for failed in errors:
            if not (run.skip_damaged and isinstance(failed, InputError)):
                raise failed
            if accelerator.is_main_process:
                console.warn(f"warning: left out of validation: {failed}")
        scores = gather_object(scores)
        summary = summarize(scores, protocol.averaging)
    network.train(training)
    if learner.step == 0 and run.facts.get("weights") and accelerator.is_main_process:
        ratios = [score.ratio for score in scores if score.ratio is not None]
        if (hint := scale_hint(ratios, "a scale")) is not None:
            console.warn(f"warning: {hint}")
    if all_of_them and "epe_image" not in summary:
        raise count.error("the validation pairs")
    return summary, examples


def _match(engine: NetworkEngine, pair: Readable) -> dict[str, Any]:
    """Return the name, left view, map and ground truth of a pair."""
    sample = pair.read()
    if sample.disparity is None or sample.valid is None:
        raise InputError(f"{sample.name}: no ground truth to validate on")
    return {
        "name": sample.name,
        "left": sample.left,
        "disparity": engine([sample.left], [sample.right])[0].disparity,
        "truth": sample.disparity,
        "valid": sample.valid,
    }
