"""Is a pair fit to match? Faults and notes, before a map is made of it."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from stereo.data.images import ImageLike, as_image
from stereo.opencv import import_cv2

PIXELS = 1_000_000  # that features are looked for in; larger pictures are made smaller
QUICK_PIXELS = 300_000
FEATURES = 4000
RATIO = 0.8  # of the distances to the best and the second-best match (Lowe, 2004)
ENOUGH_FEATURES = 200  # in either view, to tell anything
ENOUGH_MATCHES = 20  # that agree; unrelated pictures have about ten
VERTICAL_MEDIAN = 1.0  # pixels
VERTICAL_SPREAD = 2.5  # pixels, of nine matches in ten
SWAPPED_SHARE = 0.8
SAME = 0.5  # pixels that features of one picture, saved twice, lie apart
SAME_SHARE = 0.8
TURNED = 0.1  # of the height
SMALLEST_SIDE = 32  # pixels
BLANK = 2.0  # standard deviation, in steps of 8 bits
EXPOSURE_RATIO = 1.25
BLUR_RATIO = 4.0
BLUR = 0.002  # variance of the Laplacian over that of the picture
RANGE_STEP = 16


@dataclass
class Findings:
    """What was found.

    Attributes:
        faults: what makes a map wrong, and what to do about it, one line each.
        notes: what is worth knowing.
        range: smallest and largest disparity of matched features, pixels; None if unknown.
    """

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    range: tuple[float, float] | None = None


def check_pair(
    left: ImageLike, right: ImageLike, max_disparity: int, *, quick: bool = False
) -> Findings:
    """Look for what is wrong with a pair by matching features between the views.

    Args:
        left: path, array or PIL image.
        right: the same.
        max_disparity: pixels, which the expected range is compared with.
        quick: look at less, for a check beside other work.

    Raises:
        InputError: a picture that cannot be read.
    """
    found = Findings()
    views = [as_image(left, "the left image"), as_image(right, "the right image")]
    sizes = [f"{view.shape[1]}x{view.shape[0]}" for view in views]
    if sizes[0] != sizes[1]:
        found.faults.append(
            f"sizes: left is {sizes[0]}, right is {sizes[1]}; "
            "both must come from one rectification, uncropped or cropped alike"
        )
        return found
    if min(views[0].shape[:2]) < SMALLEST_SIDE:
        found.faults.append(f"sizes: {sizes[0]} pixels are too few to match")
        return found
    for view, name in ((left, "left"), (right, "right")):
        found.notes += _note_depth(view, name)
    grey = _luminance(views[0]), _luminance(views[1])
    blank = [n for n, view in zip(("left", "right"), grey, strict=True) if view.std() < BLANK]
    if blank:
        found.faults.append(f"blank: the {' and the '.join(blank)} view shows nothing")
        return found
    if np.abs(grey[0] - grey[1]).max() <= 1:
        found.faults.append("identical: both views are the same picture; give the other one")
        return found
    found.notes += [*_note_exposure(*grey), *_note_blur(*grey), *_note_grey(views)]
    matches = _match_features(*grey, QUICK_PIXELS if quick else PIXELS)
    if matches is None:
        found.notes.append("texture: too little of it to check how the views fit each other")
        return found
    _judge(matches, found, max_disparity, views[0].shape[0])
    return found


def _judge(matches: np.ndarray, found: Findings, max_disparity: int, height: int) -> None:
    """Read faults and the range from the (N, 2) offsets of matched features, pixels."""
    if len(matches) < ENOUGH_MATCHES:
        found.faults.append(
            f"unrelated: only {len(matches)} features agree between the views; "
            "are they of one scene, taken at one time?"
        )
        return
    disparity, vertical = matches[:, 0], matches[:, 1]
    median = float(np.median(vertical))
    spread = float(np.percentile(np.abs(vertical - median), 90))
    low, high = (float(v) for v in np.percentile(disparity, [1, 99]))
    if np.mean(np.hypot(disparity, vertical) < SAME) > SAME_SHARE:
        found.faults.append("identical: nothing moves between the views; give the other picture")
        return
    if max(abs(median), spread) > TURNED * height:
        found.faults.append(
            "unrelated: what agrees lies nowhere near the same rows; is one view turned, or of "
            "another scene?"
        )
        return
    if abs(median) > VERTICAL_MEDIAN or spread > VERTICAL_SPREAD:
        found.faults.append(
            f"vertical: features lie {abs(median):.1f} px {'lower' if median > 0 else 'higher'} in "
            f"the right view, with a spread of {spread:.1f} px; rectify the pair (stereo rectify)"
        )
    negative = float(np.mean(disparity < -1))
    if negative > SWAPPED_SHARE:
        found.faults.append(
            f"swapped: {100 * negative:.0f} % of the features lie further right in the right "
            "view; give the pictures in the other order (or undo a crop of one of them)"
        )
        return
    found.range = low, high
    needed = RANGE_STEP * math.ceil(1.1 * max(high, 1) / RANGE_STEP)
    if needed > max_disparity:
        found.notes.append(
            f"range: features have disparities up to {high:.0f} px; "
            f"use --max-disparity {needed} rather than {max_disparity}"
        )
    else:
        found.notes.append(
            f"range: features have disparities of {low:.0f} to {high:.0f} px, "
            f"within --max-disparity {max_disparity}"
        )


def _match_features(left: np.ndarray, right: np.ndarray, pixels: int) -> np.ndarray | None:
    """Match features both ways and keep those that one epipolar geometry explains.

    Returns:
        (N, 2) float64: x in the left view less x in the right, and y in the right less y in the
        left; None if a view has too few features.
    """
    cv2 = import_cv2()
    scale = min(1.0, math.sqrt(pixels / left.size))
    equalise = cv2.createCLAHE(2.0, (8, 8))  # views may be exposed differently
    detector = cv2.SIFT_create(FEATURES)
    points, descriptors = [], []
    for view in (left, right):
        smaller = cv2.resize(view, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        keys, own = detector.detectAndCompute(equalise.apply(smaller.astype(np.uint8)), None)
        if own is None or len(keys) < ENOUGH_FEATURES:
            return None
        points.append(np.array([key.pt for key in keys]) / scale)
        descriptors.append(own)
    matcher = cv2.BFMatcher()
    back = matcher.match(descriptors[1], descriptors[0])
    best = [
        (first.queryIdx, first.trainIdx)
        for first, second in matcher.knnMatch(*descriptors, k=2)
        if first.distance < RATIO * second.distance
        and back[first.trainIdx].trainIdx == first.queryIdx
    ]
    if len(best) < 8:
        return np.empty((0, 2))
    index = np.array(best)
    one, other = points[0][index[:, 0]], points[1][index[:, 1]]
    cv2.setRNGSeed(0)
    _, kept = cv2.findFundamentalMat(one, other, cv2.USAC_MAGSAC, 1.0 / scale, 0.999, 5000)
    if kept is None:
        return np.empty((0, 2))
    inside = kept.ravel() > 0
    return np.stack([one[:, 0] - other[:, 0], other[:, 1] - one[:, 1]], axis=1)[inside]


def _luminance(view: np.ndarray) -> np.ndarray:
    return view.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _note_depth(view: ImageLike, name: str) -> list[str]:
    if isinstance(view, str | Path):
        try:
            with Image.open(view) as image:
                deep = image.mode.startswith("I")
        except OSError:
            deep = False
    else:
        deep = np.asarray(view).dtype.itemsize > 1
    if not deep:
        return []
    return [f"16-bit: of the {name} view the upper 8 bits are used; stretch a dark one first"]


def _note_exposure(left: np.ndarray, right: np.ndarray) -> list[str]:
    means = [float(view.mean()) + 1 for view in (left, right)]
    ratio = means[0] / means[1]
    if 1 / EXPOSURE_RATIO <= ratio <= EXPOSURE_RATIO:
        return []
    darker = "right" if ratio > 1 else "left"
    return [
        f"exposure: the {darker} view is darker by a factor of {max(ratio, 1 / ratio):.1f}; "
        "fix both cameras' exposure alike if you can"
    ]


def _note_blur(left: np.ndarray, right: np.ndarray) -> list[str]:
    cv2 = import_cv2()
    left_sharp, right_sharp = (
        float(cv2.Laplacian(view, cv2.CV_32F).var() / view.var()) for view in (left, right)
    )
    if max(left_sharp, right_sharp) < BLUR:
        return ["blur: both views are very smooth; focus, or give the unscaled pictures"]
    ratio = left_sharp / right_sharp
    if 1 / BLUR_RATIO <= ratio <= BLUR_RATIO:
        return []
    return [f"blur: the {'right' if ratio > 1 else 'left'} view is much the softer one"]


def _note_grey(views: list[np.ndarray]) -> list[str]:
    grey = [bool((view[..., :1] == view).all()) for view in views]
    if not any(grey):
        return []
    if all(grey):
        return ["grey: both views are grey; colour helps where it is there"]
    return [f"grey: the {'left' if grey[0] else 'right'} view is grey, the other has colours"]
