"""Average the weights of networks that were trained from one another.

    python scripts/average_weights.py average.safetensors a.safetensors:0.4 b.safetensors:0.6

Wortsman et al., Model soups (ICML 2022): fine-tuned networks lie in one basin, and their average is
often better than each of them.
"""

import argparse
import dataclasses
import math
from pathlib import Path

from stereo.system.console import run_script  # before PyTorch, whose threads it prepares

# isort: split
import torch

from stereo.data.sets.fingerprints import packed
from stereo.errors import UsageError
from stereo.models.checkpoint import (
    Checkpoint,
    check_weights_name,
    file_sha256,
    load_checkpoint,
    save_checkpoint,
)


def main() -> None:
    """Write the average, with the facts and the conventions of the last file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", help="the .safetensors file to write")
    parser.add_argument("parts", nargs="+", metavar="FILE:SHARE", help="a checkpoint and its share")
    parser.add_argument("--half", action="store_true", help="store fp16, half the size")
    arguments = parser.parse_args()
    check_weights_name(arguments.output)
    parts = [read(part) for part in arguments.parts]
    network = parts[-1][0]
    if any(checkpoint.config != network.config for checkpoint, _ in parts):
        raise UsageError("the files hold different networks, whose weights have no average")
    total = sum(share for _, share in parts)
    weights = {}
    for name, last in network.weights.items():
        weights[name] = last
        if last.is_floating_point():
            scaled = [share * each.weights[name].double() for each, share in parts]
            dtype = torch.float16 if arguments.half else torch.float32
            weights[name] = (torch.stack(scaled).sum(0) / total).to(dtype)
            if not weights[name].isfinite().all():
                raise UsageError(f"'{name}' has values that fp16 cannot hold; leave --half out")
    seen = frozenset[str]().union(*(each.trained_on for each, _ in parts))
    training = network.training | {"trained_on": packed(seen)}
    average = dataclasses.replace(network, weights=weights, training=training)
    if len(parts) > 1:  # nobody validated the average
        of_one = ("step", "validation_epe_px", "validation_step")
        training = {name: value for name, value in training.items() if name not in of_one}
        training["average_of"] = [
            (file_sha256(Path(part.rpartition(":")[0])), share)
            for part, (_, share) in zip(arguments.parts, parts, strict=True)
        ]
        average = dataclasses.replace(average, training=training, confidence=None)
    save_checkpoint(arguments.output, average)
    print(f"{arguments.output}: the average of {len(parts)} files")


def read(part: str) -> tuple[Checkpoint, float]:
    """Return a file's checkpoint and its share."""
    path, _, share = part.rpartition(":")
    try:
        weight = float(share)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UsageError(f"{part}: expected FILE:SHARE above 0, as in a.safetensors:0.4")
    return load_checkpoint(path), weight


if __name__ == "__main__":
    run_script(main)
