"""A request from file to result: limits, read, check, match, write."""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stereo.app import limits
from stereo.app.models import Models
from stereo.data.io import colors
from stereo.data.io.decoders import stored
from stereo.data.io.disparities import stored_scale
from stereo.data.sets.sample import Sample, SampleFiles
from stereo.errors import InputError, StereoError
from stereo.evaluation.evaluate import (
    count_reach,
    metrics_report,
    out_of_reach_notes,
    score_result,
    write_metrics,
)
from stereo.evaluation.metrics import ALL, NOC, figures
from stereo.evaluation.outputs import (
    FORMATS,
    IN_METRES,
    PairOutput,
    PointCloudContext,
    pair_targets,
    write_pair,
)
from stereo.evaluation.protocols import Protocol, get_protocol
from stereo.evaluation.truth_scale import scale_hint
from stereo.geometry import Calibration
from stereo.geometry.check import check_pair
from stereo.geometry.points import write_glb
from stereo.matching.matcher import Matcher
from stereo.matching.result import Result
from stereo.system.files import staged

SHOWN_PIXELS = 1_000_000  # of what the browser gets; larger maps are thinned out
SHOWN_POINTS = 300_000
MAPS, CLOUD = "maps.bin", "cloud.bin"  # a GLB, by a name that no download has
Progress = Callable[[float, str], Any]


@dataclass(frozen=True)
class Request:
    """What a visitor asks for."""

    left: Path  # left view, a file that is not to be trusted
    right: Path  # right view
    model: str  # a name that the page offers
    max_disparity: int  # how many disparities are searched, pixels
    view: str = "left"  # whose map it is, `left` or `right`
    confidence: bool = False  # whether to compute it, for the time of a second match
    calibration: Path | None = None  # of the rectified pair, or None
    max_depth: float | None = None  # metres, how far points are kept; None for 100 baselines
    min_confidence: float = 0.0  # 0..1, the least confidence of a point; above 0 it is computed
    truth: Path | None = None  # disparities of the left view, or None
    truth_scale: float | None = None  # stored value per pixel, for integer images
    min_disparity: int = 0  # where the search starts, pixels

    @property
    def roles(self) -> dict[Path, str]:
        """Files and their names in messages, which never show server paths to visitors."""
        given = {
            self.truth: "ground truth",
            self.calibration: "calibration",
            self.right: "right image",
            self.left: "left image",
        }
        return {path: role for path, role in given.items() if path is not None}


@dataclass(frozen=True)
class MapLayer:
    """An image of a map."""

    key: str  # its file is KEY.png
    label: str  # what it shows
    limit: float | None = None  # value of the last colour; None for a photograph
    unit: str = ""  # of the limit
    ramp: str = "turbo"  # its colours, `turbo` or `grey`
    low: float = 0.0  # value of the first colour


@dataclass(frozen=True)
class Cloud:
    """The camera that the browser needs to show the points."""

    count: int  # points in CLOUD
    size: tuple[int, int]  # width and height of the image
    focal: tuple[float, float]  # focal lengths along x and y, pixels
    principal: tuple[float, float]  # principal point, pixels
    step: float  # pixels between neighbouring points, on average
    assumed: bool  # whether no calibration was given, so that the shape has no scale


@dataclass
class PageResult:
    """The result shown to the visitor; its files are in the folder given to ``perform``."""

    name: str  # of the pair
    model: dict[str, Any]  # what `Matcher.description` says
    size: tuple[int, int]  # width and height, pixels
    seconds: float  # time of the match
    low: float  # smallest disparity, pixels
    high: float  # largest disparity, pixels
    faults: list[str] = field(default_factory=list)  # what `check_pair` finds wrong
    notes: list[str] = field(default_factory=list)  # what it notes, and warnings from on the way
    layers: list[MapLayer] = field(default_factory=list)  # images to choose from
    # names of the float32 planes of MAPS, one after the other
    planes: list[str] = field(default_factory=list)
    step: int = 1  # pixels of the map per value of a plane
    cloud: Cloud | None = None  # the points, or None if none is near enough
    files: list[Path] = field(default_factory=list)  # to be downloaded
    # EPE and the like over `all` pixels and the non-occluded ones (`noc`), or None without ground
    # truth
    scores: dict[str, dict[str, float]] | None = None
    reliable: float | None = None  # median of the confidence, or None


_NOTED: ContextVar[list[str] | None] = ContextVar("noted", default=None)


def collect_warnings() -> None:
    """Route each Python warning to the request that caused it; others are unaffected.

    ``warnings.catch_warnings`` would be of no use here: it is not for threads.
    """
    default = warnings.showwarning
    warnings.simplefilter("always", UserWarning, append=True)  # each request, not the first alone

    def show(message: Warning | str, *place: Any, **more: Any) -> None:
        noted = _NOTED.get()
        if noted is None:
            default(message, *place, **more)
        else:
            noted.append(str(message))

    warnings.showwarning = show


def perform(request: Request, models: Models, folder: Path, progress: Progress) -> PageResult:
    """Match a pair, and write its files for the page and for download.

    Raises:
        StereoError: one line for the visitor that names files by their roles.
    """
    noted: list[str] = []
    token = _NOTED.set(noted)
    try:
        with _roles_for_paths(request):
            page = _perform(request, models, folder, progress)
    finally:
        _NOTED.reset(token)
    told = (_without_paths(note, request) for note in [*page.notes, *noted])
    page.notes = list(dict.fromkeys(told))
    return page


def look(left: Path | None, right: Path | None) -> None:
    """Check a pair as soon as its files have arrived.

    Raises:
        InputError: a file that is no image or too large, or two sizes.
    """
    sizes = [
        limits.check_picture(path, role)[:2]
        for path, role in ((left, "left image"), (right, "right image"))
        if path is not None
    ]
    if len(sizes) == 2:
        limits.check_sizes_agree(sizes[0], sizes[1])


def _perform(request: Request, models: Models, folder: Path, progress: Progress) -> PageResult:
    progress(0.02, "Reading")
    sample, calibration = _read(request)
    height, width = sample.left.shape[:2]
    progress(0.1, f"Loading {request.model}")
    matcher = models.get(request.model, request.max_disparity, request.min_disparity)
    searched = matcher.searched(width)
    progress(0.2, "Checking the pair")
    found = check_pair(
        request.left,
        request.right,
        searched,
        min_disparity=request.min_disparity,
        fixed_range=matcher.fixed_range,
        quick=True,
    )
    if searched != request.max_disparity:
        found.notes.append(f"Max disparity is not used: {request.model} searches {searched} px")
    progress(0.3, f"Matching {width}x{height} pixels")
    result = matcher(sample.left, sample.right, view=request.view)
    confidence = None
    if request.confidence or request.min_confidence > 0:
        progress(0.6, "Confidence: matching the other view")
        confidence = result.confidence
    progress(0.8, "Writing files")
    own = sample.right if request.view == "right" else sample.left
    truth = None if request.view == "right" else sample.disparity
    valid = None
    if truth is not None and sample.valid is not None:
        valid = _rules(matcher).valid_pixels(truth, sample.valid)
    cloud = _cloud_context(calibration, own, request)
    output = PairOutput(
        result.disparity,
        truth,
        valid,
        None if calibration is None else cloud,
        confidence,
        certainty=result.certainty,
    )
    page = PageResult(
        sample.name,
        matcher.description,
        (width, height),
        result.seconds,
        float(result.disparity.min()),
        float(result.disparity.max()),
        found.faults,
        [*found.notes, *_unused(request)],
    )
    page.files, notes = _write_files(folder, sample.name, output)
    page.notes += notes
    if truth is not None:
        page.scores, notes = _score(sample, result, matcher, request, folder / "metrics.json")
        page.notes += notes
        page.files.append(folder / "metrics.json")
    progress(0.9, "Preparing the page")
    _write_maps(folder, page, own, output)
    _write_cloud(folder, page, cloud, output)
    return page


def _unused(request: Request) -> list[str]:
    """Note what was given and has no effect."""
    notes = []
    if request.truth is not None and request.view == "right":
        notes.append("the ground truth is not used: it is of the left view, the map of the right")
    if request.truth_scale is not None and request.truth is None:
        notes.append("the scale of the ground truth is not used: there is no ground truth")
    if request.max_depth is not None and request.calibration is None:
        notes.append("the max depth of points is not used: without a calibration nothing is metres")
    return notes


def _read(request: Request) -> tuple[Sample, Calibration | None]:
    """Read the files, each after its limits."""
    limits.check_range(request.max_disparity, request.min_disparity)
    if request.max_depth is not None and not request.max_depth > 0:
        raise InputError(f"max depth {request.max_depth:g}: expected a positive number of metres")
    if not 0 <= request.min_confidence <= 1:
        raise InputError(f"least confidence {request.min_confidence:g}: expected 0 to 1")
    left = limits.check_picture(request.left, "left image")[:2]
    limits.check_sizes_agree(left, limits.check_picture(request.right, "right image")[:2])
    columns = left[0] - request.min_disparity
    limits.check_memory(request.model, (max(columns, 1), left[1]), request.max_disparity)
    if request.truth is not None:
        limits.check_truth(request.truth, "ground truth")
    calibration = None
    if request.calibration is not None:
        calibration = Calibration.read(request.calibration)
        calibration.check_rectified()
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", request.left.stem).strip("_")[:48] or "pair"
    files = SampleFiles(
        name, request.left, request.right, request.truth, decode=stored(request.truth_scale)
    )
    sample = files.read()
    if calibration is not None:
        height, width = sample.left.shape[:2]
        calibration = calibration.fitted(width, height)
    return sample, calibration


def _cloud_context(
    calibration: Calibration | None, picture: np.ndarray, request: Request
) -> PointCloudContext:
    """Return the context for points; without a calibration, of an assumed camera."""
    max_depth = request.max_depth
    if calibration is None:
        max_depth = None  # its unit is unknown
        height, width = picture.shape[:2]
        calibration = Calibration.rectified(
            fx=float(max(width, height, 64)),
            cx0=(width - 1) / 2,
            cy=(height - 1) / 2,
            baseline=1.0,
            size=(width, height),
        )
    is_right = request.view == "right"
    return PointCloudContext(
        calibration, picture, is_right, max_depth, min_confidence=request.min_confidence
    )


def _write_files(folder: Path, name: str, output: PairOutput) -> tuple[list[Path], list[str]]:
    """Write every applicable format; return the files and notes."""
    left_out = {
        "video": True,
        "error": output.truth is None,
        "confidence": output.confidence is None,
        **dict.fromkeys(IN_METRES, output.cloud is None),
    }
    formats = [each for each in FORMATS if not left_out.get(each, False)]
    notes = write_pair(folder, name, formats, output)
    return pair_targets(folder, name, formats), notes


def _rules(matcher: Matcher) -> Protocol:
    return get_protocol("pooled").with_range(matcher.min_disparity)


def _score(
    sample: Sample, result: Result, matcher: Matcher, request: Request, path: Path
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Write ``metrics.json``; return the metrics, and notes about the ground truth."""
    assert request.truth is not None
    rules = _rules(matcher)
    score = score_result(sample, result, 0, rules)
    facts = rules.to_dict() | {"split": None, "pass": None}
    write_metrics(path, metrics_report(matcher, facts, rules, [score]))
    stored = stored_scale(request.truth, request.truth_scale)
    ratios = [] if score.ratio is None else [score.ratio]
    hint = scale_hint(ratios, "--ground-truth-scale", stored)
    notes = out_of_reach_notes(count_reach(sample, matcher, rules), matcher, rules)
    notes += [hint] if hint else []
    if score.skipped:
        return {}, notes
    return {each: figures(score.sums[each]) for each in (ALL, NOC) if score.has(each)}, notes


def _write_maps(folder: Path, page: PageResult, picture: np.ndarray, output: PairOutput) -> None:
    """Write the selectable images and the values under the cursor."""
    height, width = output.disparity.shape
    page.step = step = max(1, int(np.ceil(np.sqrt(width * height / SHOWN_PIXELS))))
    thin = (slice(None, None, step), slice(None, None, step))
    planes = {"disparity": output.disparity[thin]}
    low, limit = colors.disparity_scale(output.disparity)
    shown = colors.colorize(planes["disparity"], limit, low=low)
    pictures = [(MapLayer("disparity", "Disparity", limit, "px", low=low), shown)]
    if output.cloud is not None:
        depth = output.depth[thin]
        planes["depth"] = np.where(depth > 0, depth, np.nan)
    if output.confidence is not None:
        planes["confidence"] = output.confidence[thin]
        page.reliable = float(np.median(output.confidence))
        layer = MapLayer("confidence", "Confidence", 1.0, ramp="grey")
        pictures.append((layer, np.rint(255 * planes["confidence"]).astype(np.uint8)))
    if output.truth is not None and output.valid is not None:
        with np.errstate(invalid="ignore"):
            error = np.abs(output.disparity - output.truth)
        error = np.where(output.valid, error, np.nan)[thin]
        planes["error"] = error
        layer = MapLayer("error", "Error", colors.ERROR_LIMIT_PX, "px")
        pictures.append((layer, colors.colorize(error, colors.ERROR_LIMIT_PX)))
    pictures.append((MapLayer("photo", "Photo"), picture[thin]))
    for layer, shown in pictures:
        Image.fromarray(np.ascontiguousarray(shown)).save(folder / f"{layer.key}.png")
    stacked = np.stack([plane.astype("<f4") for plane in planes.values()])
    (folder / MAPS).write_bytes(stacked.tobytes())
    page.layers = [layer for layer, _ in pictures]
    page.planes = list(planes)


def _write_cloud(
    folder: Path, page: PageResult, cloud: PointCloudContext, output: PairOutput
) -> None:
    """Write an even sample of the points for the browser."""
    points, tints = (output if output.cloud is cloud else replace(output, cloud=cloud)).points
    if not len(points):
        return
    step = max(1.0, len(points) / SHOWN_POINTS)
    if step > 1:
        kept = np.random.default_rng(0).choice(len(points), SHOWN_POINTS, replace=False)
        points, tints = points[kept], tints[kept]
    with staged(folder / CLOUD) as (temporary,):
        write_glb(temporary, points, tints)
    cameras = cloud.calibration
    page.cloud = Cloud(
        len(points),
        page.size,
        (cameras.fx, cameras.fy),
        (cameras.cx1 if cloud.is_right else cameras.cx0, cameras.cy),
        float(np.sqrt(step)),
        output.cloud is None,
    )


@contextmanager
def _roles_for_paths(request: Request) -> Iterator[None]:
    try:
        yield
    except StereoError as error:
        raise type(error)(_without_paths(str(error), request)) from error


def _without_paths(text: str, request: Request) -> str:
    for path, role in request.roles.items():
        text = text.replace(str(path), role)
    return text
