"""Rendered pairs as a rig sees them that no training scene resembles.

    stereo data synthesize --root rendered --count 80 --seed 202 --height 256 --width 576
    python scripts/rig.py --rendered rendered --output rig
    stereo adapt rig/adapt/left rig/adapt/right --output mine.safetensors
    stereo evaluate --dataset folders --root rig/score --model mine.safetensors --output scored

Grey, a twentieth of the light, dark corners, a projector's dots, and strong noise. Even pairs go to
``OUTPUT/adapt``, odd ones to ``OUTPUT/score``, each with ``left/ right/ disp/``.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from stereo.data.io.disparities import write_disparity
from stereo.data.sets.datasets import open_dataset
from stereo.system.console import progress, run_script
from stereo.system.opencv import import_cv2

LIGHT = 0.05  # of the scene's own
DOTS = 0.04  # linear light of a dot at the nearest disparity
CORNERS = 0.75  # of the light is lost there
READ, SHOT = 0.006, 0.0008  # deviation in the dark, variance per linear light
GAIN, GAMMA = 5.0, 0.45
ASIDE = 0.4  # of the projector from the left camera, baselines


def dots(disparity: np.ndarray, pattern: np.ndarray, place: float) -> np.ndarray:
    """Return a projected pattern, (H, W), on a view whose camera is at ``place``, baselines."""
    y, x = np.indices(disparity.shape, np.float32)
    at = x + (place - ASIDE) * disparity + pattern.shape[1] / 4
    cv2 = import_cv2()
    shown = cv2.remap(pattern, at.astype(np.float32), y, cv2.INTER_LINEAR)
    return shown * (disparity / 20).clip(0, 1)


def exposed(clean: np.ndarray, lit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what the camera shows of a clean view, (H, W, 3) uint8, and dots, (H, W)."""
    light = LIGHT * ((clean / 255.0) ** 2).mean(axis=2) + DOTS * lit
    y, x = (np.linspace(-1, 1, count) for count in light.shape)
    light *= 1 - CORNERS * (x**2 + y[:, None] ** 2) / 2
    light += rng.standard_normal(light.shape) * np.sqrt(READ**2 + SHOT * light)
    grey = np.rint(255 * (GAIN * light).clip(0, 1) ** GAMMA).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def main() -> None:
    """Write both halves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rendered", required=True, help="what 'stereo data synthesize' wrote")
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    found = open_dataset("synthetic", options.rendered, render_pass="clean").samples[:80]
    rng = np.random.default_rng(0)
    for number, files in enumerate(progress(found, "expose")):
        sample = files.read(disparity_right=True)
        assert sample.disparity is not None and sample.disparity_right is not None
        height, width = sample.disparity.shape
        pattern = (rng.random((height, 2 * width), np.float32) > 0.93).astype(np.float32)
        pattern = import_cv2().GaussianBlur(pattern, (0, 0), 0.8) * 2
        folder = Path(options.output) / ("adapt", "score")[number % 2]
        views = (sample.left, sample.disparity, 0.0), (sample.right, sample.disparity_right, 1.0)
        for side, (clean, disparity, place) in zip(("left", "right"), views, strict=True):
            (folder / side).mkdir(parents=True, exist_ok=True)
            shown = exposed(clean, dots(disparity, pattern, place), rng)
            Image.fromarray(shown).save(folder / side / f"{number:04d}.png")
        (folder / "disp").mkdir(exist_ok=True)
        write_disparity(folder / "disp" / f"{number:04d}.pfm", sample.disparity)


if __name__ == "__main__":
    run_script(main)
