"""Flying points: pixels at an edge whose disparity lies between the two surfaces that meet there.

A jump of the depth does not tell them from steep surfaces and from the good pixels beside an edge.
A small convolutional network reads how the map runs around each pixel and what the matcher's
softmax over disparities looks like there (``stereo.models.certainty``): at an edge it has two
modes, and little of it lies about the likeliest plane. ``scripts/clean_points.py --fit`` fits it on
rendered pairs.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stereo.system.opencv import import_cv2

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = Path(__file__).with_name("flying.safetensors")
SIDES = (3, 5, 9)  # of the windows, pixels
LARGEST_SIDE = SIDES[-1]
FEATURES = 2 * len(SIDES) + 9
OFFSET = 0.1  # pixels, before the logarithm
WIDTH = 16
DILATIONS = (1, 1, 2, 2)
FEATURE_REACH = 7  # rows around a pixel that its features see: Gaussian 4, Laplacian 1, dilation 2
ROWS = 256  # of a strip, which bounds the memory
LEAST_JUMP = 2.0  # pixels between the surfaces, in the largest window; less is one slanted surface


def flying_features(disparity: np.ndarray, certainty: np.ndarray) -> np.ndarray:
    """Return what the network reads.

    Args:
        disparity: (H, W) float32, pixels.
        certainty: (2, H, W) float32, see ``stereo.models.certainty``.

    Returns:
        (15, H, W) float32: for each window the logarithms of the range of disparities in it and of
        the distance to its nearer end; those of the slope, of the least slope around, of the
        roughness and of the disparity itself; the certainty; the arc tangents of the distance to
        the mean around and of the differences across and down.
    """
    cv2 = import_cv2()
    disparity = np.ascontiguousarray(disparity, np.float32)
    features = []
    for side in SIDES:
        window = np.ones((side, side), np.uint8)
        high, low = cv2.dilate(disparity, window), cv2.erode(disparity, window)
        features += [high - low, np.minimum(high - disparity, disparity - low)]
    across, down = (cv2.Sobel(disparity, cv2.CV_32F, x, 1 - x, ksize=3) / 8 for x in (1, 0))
    slope = np.hypot(across, down)
    least = cv2.erode(slope, np.ones((LARGEST_SIDE, LARGEST_SIDE), np.uint8))
    bend = np.abs(cv2.Laplacian(cv2.GaussianBlur(disparity, (0, 0), 1), cv2.CV_32F))
    features += [slope, least, cv2.dilate(bend, np.ones((5, 5), np.uint8))]
    logarithms = [np.log(each + OFFSET) for each in features]
    signed = [disparity - cv2.blur(disparity, (LARGEST_SIDE, LARGEST_SIDE))]
    signed += [cv2.Sobel(disparity, cv2.CV_32F, x, 1 - x, ksize=1) for x in (1, 0)]
    angles = [np.arctan(each) for each in signed]
    return np.stack([*logarithms, np.log(disparity.clip(0) + 4), *certainty, *angles])


def flying_network() -> "nn.Sequential":
    """Return the network, random: (B, 15, H, W) float32 to (B, 1, H, W), above 0 what is flying.

    It repeats the features at the border, since zeros beyond it look like an edge.
    """
    from torch import nn

    layers: list[nn.Module] = [nn.Conv2d(FEATURES, WIDTH, 1), nn.ReLU()]
    for dilation in DILATIONS:
        layers += [
            nn.Conv2d(WIDTH, WIDTH, 3, 1, dilation, dilation, padding_mode="replicate"),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Conv2d(WIDTH, 1, 1))


def is_flying(disparity: np.ndarray, certainty: np.ndarray) -> np.ndarray:
    """Return which pixels lie on neither of the two surfaces at an edge.

    Args:
        disparity: (H, W) float32, pixels.
        certainty: (2, H, W) float32, see ``stereo.models.certainty``.

    Returns:
        (H, W) bool.
    """
    import torch

    network, halo = _fitted(), FEATURE_REACH + sum(DILATIONS)
    flying = np.empty(disparity.shape, bool)
    with torch.inference_mode():
        for top in range(0, len(flying), ROWS):
            above = min(top, halo)
            rows = slice(top - above, top + ROWS + halo)
            features = torch.from_numpy(flying_features(disparity[rows], certainty[:, rows]))
            jumps = features[2 * len(SIDES) - 2] > np.log(LEAST_JUMP + OFFSET)
            found = (network(features[None])[0, 0] > 0) & jumps
            flying[top : top + ROWS] = found[above : above + ROWS].numpy()
    return flying


@lru_cache
def _fitted() -> "nn.Sequential":
    from safetensors.torch import load_file

    network = flying_network()
    network.load_state_dict(load_file(WEIGHTS))
    return network
