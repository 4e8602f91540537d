"""Start EA-Stereo from the trained weights of EA-Stereo-Fast.

    python scripts/grow_weights.py runs/first.safetensors

Parts that both have keep their weights; the inputs that a layer has besides start at 0, so that it
gives what it gave; all else starts fresh. Then `stereo train --config ea_stereo --weights ...`.
"""

import argparse

from stereo.system.console import run_script  # before PyTorch, whose threads it prepares

# isort: split
import torch

from stereo.data.sets.fingerprints import packed
from stereo.models import NetworkConfig, build_network
from stereo.models.checkpoint import (
    Checkpoint,
    check_weights_name,
    load_checkpoint,
    save_checkpoint,
)
from stereo.system.bundled import bundled_weights


def main() -> None:
    """Write the file and say what was kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", help="the .safetensors file to write")
    output = parser.parse_args().output
    check_weights_name(output)
    path = bundled_weights("ea_stereo_fast")
    assert path is not None
    trained = load_checkpoint(path)
    torch.manual_seed(1)
    config = NetworkConfig("ea_stereo", attention=trained.config.attention)
    network = build_network(config)
    weights = network.state_dict()
    kept = 0
    for name, old in trained.weights.items():
        new = weights.get(name)
        if new is None or new.ndim != old.ndim or (new.ndim and len(new) != len(old)):
            continue
        if new.shape != old.shape:
            if new.shape[2:] != old.shape[2:]:
                continue
            new.zero_()
            new[:, : old.shape[1]] = old
        else:
            new.copy_(old)
        kept += old.numel()
    facts = {"grown from": "ea_stereo_fast", "trained_on": packed(trained.trained_on)}
    save_checkpoint(output, Checkpoint(config, weights, facts))
    total = sum(each.numel() for each in weights.values())
    print(f"{output}: {kept} of {total} values come from ea_stereo_fast")


if __name__ == "__main__":
    run_script(main)
