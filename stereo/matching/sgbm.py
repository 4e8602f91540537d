"""OpenCV's semi-global matching (Hirschmüller, PAMI 2008): the baseline."""

from collections.abc import Sequence

import numpy as np

from stereo.matching.estimate import Estimate
from stereo.system.opencv import import_cv2

BLOCK_SIZE = 3
FIXED_POINT = 16.0
MARGIN = 8
SGBM_LIMIT = 2048  # larger disparities leave its 16-bit fixed point


class SgbmEngine:
    """Semi-global matching as an engine.

    Args:
        max_disparity: pixels, a multiple of 16 up to ``SGBM_LIMIT``.

    Raises:
        StereoError: OpenCV cannot be loaded.
    """

    fixed_range = False

    def __init__(self, max_disparity: int) -> None:
        import_cv2()
        self.max_disparity = max_disparity

    def __call__(self, lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]) -> list[Estimate]:
        """Match views of one size, (H, W, 3) uint8 each; the certainty is whether it matched."""
        maps = [
            semi_global_matching(left, right, self.max_disparity)
            for left, right in zip(lefts, rights, strict=True)
        ]
        return [
            Estimate(disparity, matched[None].astype(np.float32)) for disparity, matched in maps
        ]


def semi_global_matching(
    left: np.ndarray, right: np.ndarray, max_disparity: int
) -> tuple[np.ndarray, np.ndarray]:
    """Match a pair with OpenCV's StereoSGBM (MODE_HH) and fill its holes.

    Pixels that fail its checks take the background's disparity, the smaller of the nearest ones to
    the left and right in their row, as KITTI's evaluation does with missing estimates.

    Args:
        left: (H, W, 3) uint8 RGB.
        right: (H, W, 3) uint8 RGB.
        max_disparity: pixels, a multiple of 16.

    Returns:
        (H, W) float32 disparity, pixels; finite, 0 where nothing could be matched. And (H, W) bool,
        true where it was matched rather than filled.

    Raises:
        StereoError: OpenCV cannot be loaded.
    """
    cv2 = import_cv2()
    matcher = cv2.StereoSGBM_create(
        minDisparity=0,
        numDisparities=max_disparity,
        blockSize=BLOCK_SIZE,
        P1=8 * 3 * BLOCK_SIZE**2,
        P2=32 * 3 * BLOCK_SIZE**2,
        disp12MaxDiff=1,
        preFilterCap=63,
        uniquenessRatio=10,
        speckleWindowSize=100,
        speckleRange=2,
        mode=cv2.STEREO_SGBM_MODE_HH,
    )
    # StereoSGBM gives no estimate in the first max_disparity columns and a poor one at the other
    # borders: put those bands outside.
    height, width = left.shape[:2]
    padded = [
        cv2.copyMakeBorder(
            view, MARGIN, MARGIN, max_disparity, MARGIN, borderType=cv2.BORDER_REPLICATE
        )
        for view in (left, right)
    ]
    try:
        raw = matcher.compute(*padded)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from error
        raise
    raw = raw[MARGIN : MARGIN + height, max_disparity : max_disparity + width]
    matched = raw >= 0
    disparity = raw.astype(np.float32) / np.float32(FIXED_POINT)
    return fill_from_background(disparity, matched), matched


def fill_from_background(disparity: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Give each invalid pixel the smaller of its nearest valid disparities left and right.

    Rows without any valid pixel take the nearest row that has one.

    Args:
        disparity: (H, W) float32, pixels.
        valid: (H, W) bool.

    Returns:
        (H, W) float32; all zeros if nothing is valid.
    """
    has_any = valid.any(axis=1)
    if not has_any.any():
        return np.zeros_like(disparity)
    left = _last_valid(disparity, valid)
    right = _last_valid(disparity[:, ::-1], valid[:, ::-1])[:, ::-1]
    filled = np.where(valid, disparity, np.minimum(left, right))
    rows, with_any = np.arange(len(filled)), np.flatnonzero(has_any)
    after = np.searchsorted(with_any, rows).clip(max=len(with_any) - 1)
    above, below = with_any[np.maximum(after - 1, 0)], with_any[after]
    nearest = np.where(np.abs(rows - above) <= np.abs(below - rows), above, below)
    return np.ascontiguousarray(filled[nearest])


def _last_valid(disparity: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the nearest valid value at or before each pixel of its row, infinity if none."""
    columns = np.where(valid, np.arange(valid.shape[1]), -1)
    last = np.maximum.accumulate(columns, axis=1)
    values = np.take_along_axis(disparity, np.maximum(last, 0), axis=1)
    return np.where(last >= 0, values, np.float32(np.inf))
