"""Small pictures of a run's images, written during the run for its report."""

import heapq
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stereo.data.io import colors
from stereo.errors import OutputError
from stereo.evaluation.report.runs import forget_run
from stereo.system.files import output_folder, staged
from stereo.system.opencv import import_cv2

FOLDER = "pictures"
KINDS = ("left", "truth", "disparity", "error")
LONGEST_SIDE = 800  # pixels
QUALITY = 82
ALL_UP_TO = 100  # images; of more, the worst and a sample keep theirs
WORST = 24
SAMPLED = 24
SPARSE = 0.5  # share of known pixels, below which ground truth is points and not areas


class PictureKeeper:
    """Writes the pictures of the images that a report may show, and forgets the others.

    Of ``ALL_UP_TO`` images all are kept; of more, ``SAMPLED`` spread evenly over the list, the same
    ones for every model, and the ``WORST``. Nothing but file names stays in memory.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.records: dict[int, dict[str, Any]] = {}
        """Place in the list -> what the image's entry in ``metrics.json`` says of its pictures."""
        self.full = False  # the disk
        self._folder = folder
        sampled = min(count, SAMPLED if count > ALL_UP_TO else count)
        self._always = set(np.linspace(0, max(count - 1, 0), sampled).round().astype(int).tolist())
        self._worst: list[tuple[float, int]] = []

    def keep(
        self,
        index: int,  # its place in the list
        left: np.ndarray,  # (H, W, 3) uint8 RGB
        disparity: np.ndarray,  # (H, W) float32, pixels
        truth: np.ndarray,  # (H, W) float32, pixels
        valid: np.ndarray,  # (H, W) bool, true where ground truth counts
        epe: float,  # pixels, what makes it one of the worst
    ) -> None:
        """Write an image's pictures, if it is one of the sample or of the worst so far.

        Raises:
            OutputError: they cannot be written.
        """
        if index not in self._always:
            if len(self._worst) == WORST and epe <= self._worst[0][0]:
                return
            heapq.heappush(self._worst, (epe, index))
            if len(self._worst) > WORST:
                self._forget(heapq.heappop(self._worst)[1])
        if not self.records:
            forget_run(self._folder)  # its pictures are about to be replaced
        output_folder(self._folder / FOLDER)
        self.records[index] = write_pictures(
            self._folder, f"{index:05d}", left, disparity, truth, valid
        )

    def _forget(self, index: int) -> None:
        for kind in KINDS:
            path = self._folder / self.records[index][kind]
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"cannot remove {path}: {error.strerror or error}") from error
        del self.records[index]


def picture_targets(folder: Path, count: int) -> list[Path]:
    """Return all picture files that a run over so many images may write."""
    return [folder / _file(f"{i:05d}", kind) for i in range(count) for kind in KINDS]


def write_pictures(
    folder: Path,  # the run's folder
    stem: str,  # begins the files' names
    left: np.ndarray,  # (H, W, 3) uint8 RGB
    disparity: np.ndarray,  # (H, W) float32, pixels
    truth: np.ndarray,  # (H, W) float32, pixels
    valid: np.ndarray,  # (H, W) bool, true where ground truth counts
) -> dict[str, Any]:
    """Write the four pictures of an image, on the scales of the maps that ``infer`` writes.

    Returns:
        Kind -> path below ``folder``, and the ends of the two scales in pixels.

    Raises:
        OutputError: they cannot be written.
    """
    height, width = disparity.shape
    shrink = max(1.0, max(height, width) / LONGEST_SIDE)
    size = max(1, round(width / shrink)), max(1, round(height / shrink))
    known = valid & np.isfinite(truth)
    scale = colors.disparity_scale(truth[known] if known.any() else disparity)
    everywhere = np.ones_like(known)
    error = np.abs(disparity - np.where(known, truth, 0))
    pictures = {
        "left": np.asarray(Image.fromarray(left).resize(size, Image.Resampling.BOX)),
        "truth": _colored(truth, known, size, scale),
        "disparity": _colored(disparity, everywhere, size, scale),
        "error": _colored(error, known, size, (0.0, colors.ERROR_LIMIT_PX)),
    }
    files = {kind: _file(stem, kind) for kind in KINDS}
    with staged(*(folder / files[kind] for kind in KINDS)) as temporary:
        for kind, path in zip(KINDS, temporary, strict=True):
            Image.fromarray(pictures[kind]).save(path, "WEBP", quality=QUALITY, method=2)
    return {
        **files,
        "width": size[0],
        "height": size[1],
        "disparity_low_px": scale[0],
        "disparity_limit_px": scale[1],
        "error_limit_px": colors.ERROR_LIMIT_PX,
    }


def _colored(
    values: np.ndarray, known: np.ndarray, size: tuple[int, int], scale: tuple[float, float]
) -> np.ndarray:
    """Average the known values over each pixel of a smaller picture, then colour them.

    Averaging values and not colours keeps the scale, and the points of sparse ground truth, which
    are drawn three pixels wide: lossy pictures swallow single ones.
    """
    cv2 = import_cv2()
    weight = known.astype(np.float32)
    total = np.where(known, values, 0).astype(np.float32)
    if size != known.shape[::-1]:
        weight, total = (cv2.resize(a, size, interpolation=cv2.INTER_AREA) for a in (weight, total))
    shown = weight > 0
    if shown.mean() < SPARSE:
        around = (cv2.boxFilter(a, -1, (3, 3), normalize=False) for a in (weight, total))
        weight, total = (
            np.where(shown, a, wide) for a, wide in zip((weight, total), around, strict=True)
        )
        shown = weight > 1e-3
    low, limit = scale
    return colors.colorize(total / np.where(shown, weight, 1), limit, shown, low=low)


def read_picture(folder: Path, name: str) -> bytes:
    """Read a picture that a run's records name.

    Raises:
        ValueError: it is outside the run's folder, or not a picture of a run.
        OSError: it cannot be read.
    """
    path = (folder / name).resolve()
    if path.suffix != ".webp" or not path.is_relative_to(folder.resolve()):
        raise ValueError(f"'{name}' is no picture of {folder}")
    return path.read_bytes()


def _file(stem: str, kind: str) -> str:
    return f"{FOLDER}/{stem}_{kind}.webp"
