"""What ``--steady`` changes on rendered videos: flicker of what stands still, and EPE everywhere.

    stereo data synthesize --root videos --count 6 --frames 8 --seed 9 --height 192 --width 384
    python scripts/flicker.py --root videos

A pixel is static from one frame to the next if its true disparity and the clean image stay the same
(within 4 of 255); flicker is the change of the map there. EPE is over all pixels of all frames but
the first three, in which the mean only starts. Flicker is that of the videos of which at least a
fifth is static, EPE that of all.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

import stereo
from stereo.data.sets.datasets import open_dataset
from stereo.matching.steady import Steady
from stereo.system.console import progress, run_script

FIRST = 3
SAME = 4  # of 255
STILL = 0.2  # share of a video


def main() -> None:
    """Match the videos with and without ``--steady``, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="videos of 'stereo data synthesize --frames'")
    parser.add_argument("--model", default=stereo.DEFAULT_MODEL)
    options = parser.parse_args()
    matcher = stereo.load(options.model)
    sequences = defaultdict(list)
    for pair in open_dataset("synthetic", options.root, render_pass="final").samples:
        sequences[Path(pair.name).parent].append(pair)
    found_clean = open_dataset("synthetic", options.root, render_pass="clean").samples
    clean = {pair.name: pair for pair in found_clean}
    found: dict[str, list[list[float]]] = {"flicker": [], "epe": []}
    if any(len(pairs) <= FIRST + 1 for pairs in sequences.values()):
        parser.error(f"{options.root}: videos of more than {FIRST + 1} frames are needed")
    for pairs in progress(list(sequences.values()), "sequences"):
        steady, maps, truths, pictures = Steady(), [], [], []
        for files in pairs:
            sample = files.read()
            assert sample.disparity is not None
            result = matcher(sample.left, sample.right)
            maps.append((result.disparity, steady(result).disparity))
            truths.append(sample.disparity)
            pictures.append(clean[files.name].read(disparity=False).left.astype(int))
        changes: list[list[np.ndarray]] = [[], []]
        errors: list[list[float]] = [[], []]
        for k in range(FIRST, len(pairs)):
            still = np.abs(truths[k] - truths[k - 1]) < 1e-3
            still &= (np.abs(pictures[k] - pictures[k - 1]) <= SAME).all(axis=2)
            for side in range(2):
                changes[side].append(np.abs(maps[k][side] - maps[k - 1][side])[still])
                errors[side].append(float(np.abs(maps[k][side] - truths[k]).mean()))
        found["epe"].append([float(np.mean(each)) for each in errors])
        pooled = [np.concatenate(each) for each in changes]
        if len(pooled[0]) > STILL * maps[0][0].size * (len(pairs) - FIRST):
            found["flicker"].append([float(each.mean()) for each in pooled])
    for name, values in found.items():
        if not values:
            print(f"{name}: no video is static for a fifth")
            continue
        before, after = np.mean(values, axis=0)
        print(f"{name}: {before:.3f} px, with --steady {after:.3f} px, {len(values)} videos")


if __name__ == "__main__":
    run_script(main)
