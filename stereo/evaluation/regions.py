"""Image regions scored separately: disparity bins, depth edges, flat areas.

Each is a mask on the left view; a region counts those of its pixels that the protocol counts.

* ``disparity_LOW_HIGH``: LOW <= true disparity < HIGH, in pixels. The first has no lower end, the
  last, ``disparity_192``, no upper one.
* ``edges`` and ``away_from_edges``: within ``EDGE_REACH`` pixels of a depth edge (in rows and in
  columns), and the rest. Two known disparities that follow each other in a row or in a column,
  n pixels apart, have an edge between them where they differ by more than ``EDGE_JUMP`` pixels and
  by more than n; n is 1 where the truth is dense, and more than ``EDGE_GAP`` is too far to tell.
* ``noc`` (non-occluded), and ``occluded``, the rest: by the data set's mask or ``seen_by_right``.
* ``flat`` and ``textured``: the squared horizontal gradient of the left view's grey values,
  averaged over a square window, is below ``FLAT_BELOW``, and the rest: Scharstein and Szeliski's
  textureless regions (IJCV 2002) in a larger window, which noise sways less.
"""

import numpy as np

from stereo.system.opencv import import_cv2

BIN_EDGES = (16, 32, 64, 128, 192)
EDGE_JUMP = 3.0  # pixels of disparity
EDGE_GAP = 8  # pixels between two known disparities
EDGE_REACH = 5  # pixels from an edge
FLAT_WINDOW = 7  # pixels
FLAT_BELOW = 4.0  # squared grey values (0 to 255) per squared pixel

SAME_SURFACE = 1.0  # pixels of disparity

BINS = tuple(
    f"disparity_{low}" if high is None else f"disparity_{low}_{high}"
    for low, high in zip((0, *BIN_EDGES), (*BIN_EDGES, None), strict=True)
)
REGIONS = (*BINS, "edges", "away_from_edges", "flat", "textured")


def regions(
    truth: np.ndarray, valid: np.ndarray, left: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the masks of one image, by names of ``REGIONS``.

    Args:
        truth: (H, W) float32, pixels.
        valid: (H, W) bool, true where the data set has ground truth.
        left: (H, W, 3) uint8 RGB, the left view; None leaves out ``flat`` and ``textured``.

    Returns:
        (H, W) bool each. The bins are false without ground truth, and together cover the rest.
    """
    known = valid & np.isfinite(truth)
    bins = np.digitize(np.where(known, truth, 0), BIN_EDGES)
    masks = {name: known & (bins == i) for i, name in enumerate(BINS)}
    near = near_edges(truth, known)
    masks |= {"edges": near, "away_from_edges": ~near}
    if left is not None:
        flat = is_flat(left)
        masks |= {"flat": flat, "textured": ~flat}
    return masks


def seen_by_right(truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return which left pixels the right view sees, from the left view's ground truth only.

    A pixel of column x and disparity d lands on x - d in the right view. It is hidden where that
    lies outside the frame (x < d), or where another pixel of its row lands on the same column,
    rounded, with a disparity larger by more than ``SAME_SURFACE``. Smaller differences are those of
    neighbours on one slanted surface, which share a column where the right view sees it at a
    flatter angle. Where it sees it more squarely, neighbours land two columns apart, and the column
    between them is the surface's too.

    Only known pixels hide others: where the truth is sparse, as LiDAR's, or has holes, what lies
    behind an unknown surface counts as seen. A data set's own mask is better.

    Args:
        truth: (H, W) float32, pixels.
        known: (H, W) bool, true where ``truth`` means something.

    Returns:
        (H, W) bool; false where nothing is known.
    """
    width = truth.shape[1]
    rows, columns = np.nonzero(known)
    disparity = truth[rows, columns].astype(np.float64)
    match = columns - disparity
    landing = np.floor(match + 0.5)
    stretched = (
        (rows[1:] == rows[:-1])
        & (columns[1:] == columns[:-1] + 1)
        & (disparity[:-1] - disparity[1:] <= SAME_SURFACE)
        & (landing[1:] - landing[:-1] == 2)
    )
    between = landing[:-1] + 1
    stretched &= (between >= 0) & (between < width)
    gaps = (rows[:-1] * width + between)[stretched].astype(np.intp)
    farther = disparity[1:][stretched]

    inside = (match >= 0) & (match <= width - 1)
    rows, columns, disparity = rows[inside], columns[inside], disparity[inside]
    cells = rows * width + landing[inside].astype(np.intp)
    # Of pixels that share a cell, less than 1 px apart there, the rightmost is nearest by x - d: it
    # is assigned last, and stays.
    nearest = np.full(truth.size, -np.inf)
    nearest[cells] = disparity
    np.maximum.at(nearest, gaps, farther)
    seen = np.zeros(truth.shape, bool)
    seen[rows, columns] = disparity >= nearest[cells] - SAME_SURFACE
    return seen


def near_edges(truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return which pixels lie within ``EDGE_REACH`` of a jump of the true disparity.

    Args:
        truth: (H, W) float32, pixels.
        known: (H, W) bool, true where ``truth`` means something; it may be sparse.

    Returns:
        (H, W) bool.
    """
    sides = _beside_a_jump(truth, known)
    sides |= np.ascontiguousarray(_beside_a_jump(truth.T, known.T).T)
    size = 2 * EDGE_REACH + 1
    reached = import_cv2().dilate(sides.astype(np.uint8), np.ones((size, size), np.uint8))
    return reached.astype(bool)


def is_flat(left: np.ndarray) -> np.ndarray:
    """Return where the left view has hardly any texture.

    Args:
        left: (H, W, 3) uint8 RGB.

    Returns:
        (H, W) bool.
    """
    cv2 = import_cv2()
    grey = cv2.cvtColor(np.ascontiguousarray(left), cv2.COLOR_RGB2GRAY).astype(np.float32)
    gradient = np.gradient(grey, axis=1) if grey.shape[1] > 1 else np.zeros_like(grey)
    mean = cv2.boxFilter(gradient**2, -1, (FLAT_WINDOW,) * 2, borderType=cv2.BORDER_REFLECT)
    return mean < FLAT_BELOW


def _beside_a_jump(truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Mark the known pixels on both sides of each jump along the rows."""
    columns = np.arange(truth.shape[1])
    last = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    before = np.full_like(last, -1)
    before[:, 1:] = last[:, :-1]  # the nearest known pixel to the left of each
    apart = columns - before
    rows, right = np.nonzero(known & (before >= 0) & (apart <= EDGE_GAP))
    left = before[rows, right]
    step = np.abs(truth[rows, right] - truth[rows, left])
    jumps = step > np.maximum(EDGE_JUMP, right - left)
    marked = np.zeros_like(known)
    marked[rows[jumps], right[jumps]] = True
    marked[rows[jumps], left[jumps]] = True
    return marked
