"""Options of ``stereo infer``."""

import math
from dataclasses import dataclass
from typing import Literal

from stereo.errors import UsageError


@dataclass(frozen=True)
class InferOptions:
    """Options of ``stereo infer``; each docstring is also its help.

    Raises:
        UsageError: a number out of its range, or options that exclude each other.
    """

    left: str
    """Left view: a file, a folder, a quoted glob, a video, or numbered images such as
    left_%06d.png."""
    output: str
    """Folder for the files."""
    right: str | None = None
    """Right view: of the same kind, matched by name or number; omit it with --packing or if LEFT is
    an MPO, whose two frames are the views."""
    packing: str | None = None
    """How LEFT holds both views in one image: side-by-side or top-bottom."""
    formats: str | None = None
    """Comma-separated: color, pfm, png16 (KITTI), npy, confidence, depth, ply, glb, error, video
    (MP4 of the colours); default color,pfm, and with --calibration depth,ply."""
    calibration: str | None = None
    """Calibration of the rectified pairs: Middlebury, ETH3D, KITTI, OpenCV, K.txt, ROS, ..."""
    max_depth: float | None = None
    """Omit points beyond this depth, metres (default: 100 baselines)."""
    keep_flying_points: bool = False
    """Keep flying points, which lie between the two surfaces at an edge."""
    min_confidence: float | None = None
    """Omit points of lower confidence, 0 to 1; costs a second match unless --view both."""
    view: Literal["left", "right", "both"] = "left"
    """Whose maps to write; the right view's files are named NAME_right..."""
    steady: bool = False
    """Temporal smoothing for videos: disparity is averaged where the image is static (no delay)."""
    ground_truth: str | None = None
    """Disparities of the left views: a file, folder or glob; adds metrics.json and errors."""
    ground_truth_scale: float | None = None
    """Scale of integer ground truth (stored value = disparity x scale; KITTI's PNG: 256)."""
    resume: bool = False
    """Skip maps that a call with the same settings has already written."""

    def __post_init__(self) -> None:
        if not self.output:
            raise UsageError("--output is empty: name the folder to write to")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(
                f"--min-confidence {self.min_confidence:g}: expected a number from 0 to 1"
            )
        if self.ground_truth_scale is not None and not 0 < self.ground_truth_scale < math.inf:
            raise UsageError(
                f"--ground-truth-scale {self.ground_truth_scale:g}: expected a positive number"
            )
        if self.max_depth is not None and not self.max_depth > 0:
            raise UsageError(
                f"--max-depth {self.max_depth:g}: expected a positive number of metres"
            )
        if self.ground_truth is not None and self.view == "right":
            raise UsageError(
                "--ground-truth belongs to the left view: use it with --view left or both"
            )
        if self.steady and self.resume:
            raise UsageError("--resume skips frames that --steady needs: use one of them")
        if self.ground_truth is not None and self.resume:
            raise UsageError("--resume skips maps, --ground-truth scores all: use one of them")

    @property
    def sides(self) -> tuple[str, ...]:
        """The views whose maps are made."""
        return ("left", "right") if self.view == "both" else (self.view,)
