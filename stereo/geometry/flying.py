"""Flying points: pixels at an edge whose disparity lies between the two surfaces that meet there.

A jump of the depth does not tell them from steep surfaces and from the good pixels beside an edge.
A small network reads how the map runs around each pixel and what the matcher's softmax over
disparities looks like there (``stereo.models.certainty``): at an edge it has two modes, and little
of it lies about the likeliest plane. ``scripts/clean_points.py --fit`` fits it on rendered pairs.
"""

import json
from pathlib import Path

import numpy as np

from stereo.system.opencv import import_cv2

WEIGHTS = Path(__file__).with_name("flying.json")
SIDES = (3, 5, 9)  # of the windows, pixels
SLOPE_SIDE = 9
FEATURES = 2 * len(SIDES) + 6


def flying_features(disparity: np.ndarray, certainty: np.ndarray) -> np.ndarray:
    """Return the features of the flying-point classifier.

    Args:
        disparity: (H, W) float32, pixels.
        certainty: (2, H, W) float32, see ``stereo.models.certainty``.

    Returns:
        (H, W, 12) float32: for each window the logarithms of the range of disparities in it and of
        the distance to its nearer end; those of the slope, of the least slope around, of the
        roughness and of the disparity itself; the certainty.
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
    least = cv2.erode(slope, np.ones((SLOPE_SIDE, SLOPE_SIDE), np.uint8))
    bend = np.abs(cv2.Laplacian(cv2.GaussianBlur(disparity, (0, 0), 1), cv2.CV_32F))
    features += [slope, least, cv2.dilate(bend, np.ones((5, 5), np.uint8))]
    logarithms = [np.log(each + 0.1) for each in features]
    return np.stack([*logarithms, np.log(disparity.clip(0) + 4), *certainty], axis=-1)


def is_flying(disparity: np.ndarray, certainty: np.ndarray) -> np.ndarray:
    """Return which pixels lie on neither of the two surfaces at an edge.

    Args:
        disparity: (H, W) float32, pixels.
        certainty: (2, H, W) float32, see ``stereo.models.certainty``.

    Returns:
        (H, W) bool.
    """
    hidden, bias, out, threshold = _weights()
    features = flying_features(disparity, certainty)
    return np.asarray(np.tanh(features @ hidden + bias) @ out > threshold)


def _weights() -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    stored = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    hidden, bias, out = (np.array(stored[k], np.float32) for k in ("hidden", "bias", "out"))
    return hidden, bias, out, float(stored["threshold"])
