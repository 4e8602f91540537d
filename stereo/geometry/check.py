"""Check a pair before it is matched: faults, notes and the likely range."""

import contextlib
import math
from dataclasses import dataclass, field

import numpy as np

from stereo.data.io.images import ImageLike, as_samples, depth_of, to_8_bits
from stereo.system.opencv import import_cv2

PIXELS = 1_000_000  # that features are looked for in; larger images are made smaller
QUICK_PIXELS = 300_000
FEATURES = 4000
RATIO = 0.8  # of the distances to the best and the second-best match (Lowe, 2004)
ENOUGH_FEATURES = 200  # in either view, to tell anything
ENOUGH_MATCHES = 20  # that agree; unrelated images have about ten
VERTICAL_MEDIAN = 1.0  # pixels
VERTICAL_SPREAD = 2.5  # pixels, of nine matches in ten
ROW_DRIFT = 1.2  # pixels over the features
ROW_NOISE = 0.5  # pixels
KEYSTONE_MATCHES = 60  # with fewer, wrong ones in a corner look like it
DRIFT_FITS, DRIFT_GAIN = 0.7, 0.25  # of the matches within the noise, and more than without drift
SIDEWAYS = 1.5  # pixels that nine matches in ten of a vertical rig keep to
ON_ROWS = 0.7  # of the matches, within a pixel: with more, the others are wrong ones
SWAPPED_SHARE = 0.8
BELOW_SHARE = 0.05  # of the features below the range: worth a note
BELOW_FAULT = 1 / 3  # a fault
SAME = 0.5  # pixels that features of one image, saved twice, lie apart
SAME_SHARE = 0.8
TURNED = 0.1  # of the height
CLEAR_CORRELATION = 0.5  # of x in both views; above 0.97 in rectified pairs
SMALLEST_SIDE = 32  # pixels
NEIGHBOURS = 6  # of a feature, within its view
AGREEING = 2  # of them, with about its disparity: else it is a wrong match along the row
AGREEMENT = 3.0  # pixels
BLANK = 2.0  # standard deviation, in steps of 8 bits
EXPOSURE_RATIO = 1.25
BLUR_RATIO = 4.0
BLUR = 0.002  # variance of the Laplacian over that of the image
RANGE_STEP = 16
RANGE_MARGIN = 0.1  # beyond the disparities of features


@dataclass(frozen=True, eq=False)
class Matches:
    """Feature matches that agree with one epipolar geometry."""

    left: np.ndarray  # (N, 2) float64, x and y in the left view, pixels
    right: np.ndarray  # (N, 2) float64, the same in the right view

    def __len__(self) -> int:
        return len(self.left)

    @property
    def disparity(self) -> np.ndarray:
        """(N,) x in the left view less x in the right, pixels."""
        return np.asarray(self.left[:, 0] - self.right[:, 0])

    @property
    def vertical(self) -> np.ndarray:
        """(N,) y in the right view less y in the left, pixels."""
        return np.asarray(self.right[:, 1] - self.left[:, 1])


@dataclass
class Findings:
    """Result of the check."""

    # what makes a map wrong, and what to do about it, one line each
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is worth knowing
    # smallest and largest disparity of matched features, pixels, never below the smallest searched
    # or 0, whichever is less; None if unknown
    range: tuple[float, float] | None = None


def check_pair(
    left: ImageLike,
    right: ImageLike,
    max_disparity: int = 192,
    *,
    min_disparity: int = 0,
    fixed_range: bool = False,
    quick: bool = False,
) -> Findings:
    """Find what is wrong with a pair from feature matches between its views.

    Args:
        left: path, array or PIL image.
        right: the same.
        max_disparity: how many disparities are searched, which the expected range is compared
            with, pixels.
        min_disparity: where the search starts, pixels.
        fixed_range: whether the model takes no other ``max_disparity``.
        quick: look at less, for a check beside other work.

    Raises:
        InputError: an image that cannot be read.
    """
    found = Findings()
    samples = [as_samples(left, "the left image"), as_samples(right, "the right image")]
    views = to_8_bits(samples)
    sizes = [f"{view.shape[1]}x{view.shape[0]}" for view in views]
    if sizes[0] != sizes[1]:
        found.faults.append(
            f"sizes: left is {sizes[0]}, right is {sizes[1]}; "
            "both must come from one rectification, uncropped or cropped alike"
        )
        return found
    if min(views[0].shape[:2]) < SMALLEST_SIDE:
        found.faults.append(
            f"small: {sizes[0]} pixels are too few to match; use the images at their full size"
        )
        return found
    deep = [n for n, s in zip(("left", "right"), samples, strict=True) if s.dtype != np.uint8]
    if deep:
        found.notes.append(
            f"16-bit: the upper 8 of {depth_of(samples)} bits of the {' and the '.join(deep)} view "
            "are used; stretch a dark pair first, both views alike"
        )
    grey = _luminance(views[0]), _luminance(views[1])
    blank = [n for n, view in zip(("left", "right"), grey, strict=True) if view.std() < BLANK]
    if blank:
        found.faults.append(f"blank: the {' and the '.join(blank)} view shows nothing")
        return found
    if np.abs(grey[0] - grey[1]).max() <= 1:
        found.faults.append("identical: both views are the same image; give the other one")
        return found
    found.notes += [*_note_exposure(*grey), *_note_blur(*grey), *_note_grey(views)]
    pixels = QUICK_PIXELS if quick else PIXELS
    matches = _match_features(*grey, pixels)
    if matches is None:
        found.notes.append("texture: too little to check how the views fit")
        return found
    height = views[0].shape[0]
    if _is_mirrored(matches, grey, pixels):
        found.faults.append(
            "mirrored: what runs from left to right in one view runs from right to left in the "
            "other; mirror one of them back"
        )
        return found
    _judge(matches, found, max_disparity, height, min_disparity, fixed_range=fixed_range)
    return found


def _is_mirrored(matches: Matches, grey: tuple[np.ndarray, np.ndarray], pixels: int) -> bool:
    """Return whether one view is mirrored left to right.

    Few features look like their mirror image: what agrees may be too little, or of patterns that
    repeat. Then the right view is mirrored and matched again.
    """
    if _rows_agree(matches, len(grey[0])):
        correlation = _x_correlation(matches)
        if abs(correlation) > CLEAR_CORRELATION:
            return correlation < 0
    again = _match_features(grey[0], np.ascontiguousarray(grey[1][:, ::-1]), pixels)
    return (
        again is not None
        and len(again) > 2 * len(matches)
        and _rows_agree(again, len(grey[0]))
        and _x_correlation(again) > 0
    )


def _rows_agree(matches: Matches, height: int) -> bool:
    """Return whether enough matches lie on about the same rows."""
    if len(matches) < ENOUGH_MATCHES:
        return False
    median, spread = _vertical_offset(matches)
    return max(abs(median), spread) <= TURNED * height


def _x_correlation(matches: Matches) -> float:
    """Return the correlation of x in both views, -1 to 1."""
    return float(np.corrcoef(matches.left[:, 0], matches.right[:, 0])[0, 1])


def _vertical_offset(matches: Matches) -> tuple[float, float]:
    """Return the median vertical offset and the 90th percentile of deviations from it, pixels."""
    median = float(np.median(matches.vertical))
    return median, float(np.percentile(np.abs(matches.vertical - median), 90))


def _row_drift(matches: Matches) -> tuple[np.ndarray, np.ndarray]:
    """Fit the vertical offset by a + b x + c y + d x y, as views turned, zoomed or toed in have it.

    Least squares, iterated with Cauchy's weights; x and y count from the mean of the features.

    Returns:
        (3,) b and c, pixels a pixel, and d, pixels a pixel squared; (3,) the change of each term
        over the features, pixels. All are 0 where they do not explain the matches far better than
        one offset, since wrong matches gather in places.
    """
    x, y = (matches.left - matches.left.mean(axis=0)).T
    terms = np.column_stack([np.ones(len(x)), x, y, x * y * (len(x) >= KEYSTONE_MATCHES)])
    fit: np.ndarray = np.zeros(4)
    off, weights = np.zeros(len(x)), np.ones(len(x))
    for _ in range(20):
        fit = np.linalg.lstsq(terms * weights[:, None], matches.vertical * weights, rcond=None)[0]
        off = matches.vertical - terms @ fit
        weights = (1 + (off / ROW_NOISE) ** 2) ** -0.5
    level = matches.vertical - np.median(matches.vertical)
    fits, before = (float(np.mean(np.abs(each) < ROW_NOISE)) for each in (off, level))
    slopes = fit[1:] * (fits >= DRIFT_FITS and fits - before >= DRIFT_GAIN)
    width, height = np.diff(np.percentile(matches.left, [1, 99], axis=0), axis=0)[0]
    return slopes, slopes * np.array([width, height, width * height / 2])


def _are_off_rows(matches: Matches, median: float, spread: float) -> bool:
    """Return whether vertical offsets differ, not by a few wrong matches alone."""
    on_rows = float(np.mean(np.abs(matches.vertical - median) < 1))
    return spread > VERTICAL_SPREAD and on_rows < ON_ROWS


def _is_vertical_rig(matches: Matches, median: float, spread: float) -> bool:
    """Return whether features move by their depth up or down, and all alike to the side."""
    sideways = float(np.median(matches.disparity))
    apart = float(np.percentile(np.abs(matches.disparity - sideways), 90))
    alike = apart < SIDEWAYS and abs(sideways) < max(abs(median), spread)
    return alike and _are_off_rows(matches, median, spread)


def _vertical_faults(matches: Matches, median: float, spread: float) -> list[str]:
    """Return what is wrong with the rows, and what to do about it."""
    if abs(median) > VERTICAL_MEDIAN or _are_off_rows(matches, median, spread):
        return [
            f"vertical: features lie {abs(median):.1f} px {'lower' if median > 0 else 'higher'} in "
            f"the right view, with a spread of {spread:.1f} px; rectify the pair (stereo rectify)"
        ]
    slopes, changes = _row_drift(matches)
    largest = int(np.argmax(np.abs(changes)))
    if abs(changes[largest]) <= ROW_DRIFT:
        return []
    angle = math.degrees(math.atan(abs(slopes[0])))
    way, cause = (
        ("left to right", f"one were turned by {angle:.2g} degrees"),
        ("top to bottom", f"one were {100 * abs(slopes[1]):.2g} % larger"),
        ("corner to corner", "the cameras were turned towards or away from each other"),
    )[largest]
    return [
        f"vertical: the views' rows drift apart by {abs(changes[largest]):.1f} px from {way}, as "
        f"if {cause}; rectify the pair (stereo rectify)"
    ]


def _judge(
    matches: Matches,
    found: Findings,
    max_disparity: int,
    height: int,
    min_disparity: int = 0,
    *,
    fixed_range: bool = False,
) -> None:
    """Derive faults and the disparity range from matched features."""
    if len(matches) < ENOUGH_MATCHES:
        found.faults.append(
            f"unrelated: only {len(matches)} features agree between the views; "
            "are they of one scene, taken at one time?"
        )
        return
    disparity = matches.disparity
    median, spread = _vertical_offset(matches)
    if np.mean(np.hypot(disparity, matches.vertical) < SAME) > SAME_SHARE:
        found.faults.append("identical: nothing moves between the views; give the other image")
        return
    if not _rows_agree(matches, height):
        found.faults.append(
            "unrelated: matching features lie on different rows; is one view rotated, or of "
            "another scene? If the cameras stand one above the other, turn both views by 90 degrees"
        )
        return
    if _is_vertical_rig(matches, median, spread):
        found.faults.append(
            f"vertical: features move by {abs(median):.1f} px up or down, with a spread of "
            f"{spread:.1f} px, and all alike to the side; if the cameras stand one above the "
            "other, turn both views by 90 degrees"
        )
        return
    found.faults += _vertical_faults(matches, median, spread)
    supported = _supported_disparities(matches)
    low, high = (float(value) for value in np.percentile(supported, [1, 99]))
    start = RANGE_STEP * math.floor((low - RANGE_MARGIN * abs(low)) / RANGE_STEP)
    negative = float(np.mean(disparity < min(min_disparity, 0) - 1))
    if negative > SWAPPED_SHARE and _are_off_rows(matches, median, spread):
        return  # raw views of cameras that converge: their sides say nothing before rectification
    if negative > SWAPPED_SHARE:
        found.faults.append(
            f"swapped: {100 * negative:.0f} % of the features lie further right in the right "
            "view; give the images in the other order, mirror both if they are mirrored (as "
            "front cameras do), undo a crop of one of them, or, if the cameras converge, use "
            f"--min-disparity {start}"
        )
        return
    below = float(np.mean(supported < min_disparity - 1))
    if below > BELOW_SHARE:
        line = (
            f"range: {100 * below:.0f} % of the features have disparities below {min_disparity} "
            f"px; use --min-disparity {start} rather than {min_disparity}"
        )
        if min_disparity == 0:
            line = (
                f"negative: {100 * below:.0f} % of the features lie further right in the right "
                "view, where no disparity is looked for; use --min-disparity "
                f"{start}, give the images in the other order if they are swapped, undo a crop of "
                "one view, or rectify the pair again"
            )
        (found.faults if below > BELOW_FAULT else found.notes).append(line)
        if below > BELOW_FAULT and high < 2:  # what is left from 0 on is no range of the scene
            return
    else:
        start = min_disparity
    least = float(min(min_disparity, 0))
    found.range = max(least, low), max(least, high)
    found.notes.append(
        _range_note(found.range, (low, high), start, min_disparity, max_disparity, fixed_range)
    )


def _range_note(
    clipped: tuple[float, float],  # what the scene has of the range from `min_disparity` on
    whole: tuple[float, float],  # what it has of any
    start: int,  # where the range should begin
    min_disparity: int,
    max_disparity: int,
    fixed_range: bool,
) -> str:
    """Return what range of disparities the scene has, and how to search all of it."""
    low, high = whole
    reach = max(high + RANGE_MARGIN * abs(high) - start, 1)
    needed = RANGE_STEP * math.ceil(reach / RANGE_STEP)
    if needed > max_disparity:
        remedy = f"use --max-disparity {needed} rather than {max_disparity}"
        if fixed_range:
            remedy = f"the model searches {max_disparity} px only: use another, or smaller images"
        return f"range: features have disparities up to {clipped[1]:.0f} px; {remedy}"
    if start != min_disparity:
        return f"range: features have disparities of {low:.0f} to {high:.0f} px"
    searched = f" from --min-disparity {min_disparity} on" if min_disparity else ""
    return (
        f"range: features have disparities of {clipped[0]:.0f} to {clipped[1]:.0f} px, within "
        f"{'the' if fixed_range else '--max-disparity'} {max_disparity}"
        f"{' px that the model searches' if fixed_range else ''}{searched}"
    )


def _supported_disparities(matches: Matches) -> np.ndarray:
    """Return (M,) disparities, pixels, without isolated matches.

    Along a row, epipolar geometry explains wrong matches as well; but features beside them have
    other disparities.
    """
    cv2 = import_cv2()
    median, _ = _vertical_offset(matches)
    inside = np.abs(matches.vertical - median) <= VERTICAL_SPREAD
    if np.count_nonzero(inside) < ENOUGH_MATCHES:  # the median lies between groups of rows
        return matches.disparity
    disparity, places = matches.disparity[inside], matches.left[inside].astype(np.float32)
    nearest = cv2.BFMatcher().knnMatch(places, places, k=NEIGHBOURS + 1)
    beside = [[other.trainIdx for other in some] for some in nearest]
    agreeing = np.array(
        [
            np.sum(np.abs(disparity[some] - disparity[own]) <= AGREEMENT) - 1  # itself
            for own, some in enumerate(beside)
        ]
    )
    supported = disparity[agreeing >= AGREEING]
    return supported if len(supported) >= ENOUGH_MATCHES else disparity


def _match_features(left: np.ndarray, right: np.ndarray, pixels: int) -> Matches | None:
    """Match features both ways and keep those that one epipolar geometry explains.

    Returns:
        The matches; None if a view has too few features.
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
    none = Matches(np.empty((0, 2)), np.empty((0, 2)))
    if len(best) < 8:
        return none
    index = np.array(best)
    one, other = points[0][index[:, 0]], points[1][index[:, 1]]
    kept = None
    for method in (cv2.USAC_MAGSAC, cv2.FM_RANSAC):  # the better one raises for some matches
        cv2.setRNGSeed(0)
        with contextlib.suppress(cv2.error):
            _, kept = cv2.findFundamentalMat(one, other, method, 1.0 / scale, 0.999, 5000)
            break
    if kept is None:
        return none
    inside = kept.ravel() > 0
    return Matches(one[inside], other[inside])


def _luminance(view: np.ndarray) -> np.ndarray:
    return view.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


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
        return ["blur: both views are very smooth; focus, or give the unscaled images"]
    ratio = left_sharp / right_sharp
    if 1 / BLUR_RATIO <= ratio <= BLUR_RATIO:
        return []
    return [f"blur: the {'right' if ratio > 1 else 'left'} view is much softer: focus its camera"]


def _note_grey(views: list[np.ndarray]) -> list[str]:
    grey = [bool((view[..., :1] == view).all()) for view in views]
    if not any(grey):
        return []
    if all(grey):
        return ["grey: both views are grey; colour helps where it is there"]
    return [f"grey: the {'left' if grey[0] else 'right'} view is grey, the other has colours"]
