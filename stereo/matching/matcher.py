"""Match one pair or many: any size, any engine, one interface."""

import dataclasses
import functools
import numbers
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from stereo.data.io.images import ImageLike, as_images
from stereo.data.sets.sample import check_same_size
from stereo.errors import InputError, StereoError, UsageError, unknown_name
from stereo.geometry import Calibration
from stereo.geometry.points import colored_points, write_glb, write_ply
from stereo.matching.confidence import (
    ANY_MODEL,
    ConfidenceModel,
    Cues,
    Trust,
    confidence_model,
    find_cues,
)
from stereo.matching.engine import Estimate, Manner, NetworkEngine, prepare
from stereo.matching.notebook import png, result_picture
from stereo.matching.onnx_engine import OnnxEngine, describe
from stereo.matching.sgbm import SGBM_LIMIT, semi_global_matching
from stereo.models import NETWORK_NAMES, NetworkConfig, StereoNetwork, build_network
from stereo.models.checkpoint import file_sha256, load_checkpoint, restore_network
from stereo.models.config import check_max_disparity
from stereo.system.bundled import DEFAULT_MAX_DISPARITY, DEFAULT_MODEL, SGBM, bundled_weights
from stereo.system.files import staged
from stereo.system.opencv import import_cv2
from stereo.system.runtime import is_out_of_memory, keep_freed_memory, pick_device, pick_dtype
from stereo.system.threads import warn_if_threads_spin
from stereo.version import __version__

VIEWS = ("left", "right")
Engine = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], list[Estimate]]


@dataclass(frozen=True, eq=False)
class Result:
    """What a match gives.

    Attributes:
        disparity: (H, W) float32, pixels of the left image; finite, never below the smallest that
            was searched, 0 unless ``min_disparity`` says otherwise.
        seconds: time of the match, without reading the images.
        trust: what ``confidence`` and its cues come from.
        image: (H, W, 3) uint8 RGB, the view that the map is of; None for a result made by hand.
        again: seconds of the second match at twice the size; 0 where there was none.
        path: of the left picture; None if it was no file.
        is_right: whether the map is of the right view.
    """

    disparity: np.ndarray
    seconds: float
    trust: Callable[[], Trust] | None = None
    image: np.ndarray | None = None
    again: float = 0.0
    path: Path | None = None
    is_right: bool = False

    def __repr__(self) -> str:
        height, width = self.disparity.shape
        low, high = self.disparity.min(), self.disparity.max()
        again = f", {self.again:.2f} of it at twice the size" if self.again else ""
        return (
            f"<Result {width}x{height}, disparity {low:.1f} to {high:.1f} px, "
            f"{self.seconds:.2f} s{again}>"
        )

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows: the picture without a calibration."""
        return png(self.picture())

    @property
    def confidence(self) -> np.ndarray:
        """The probability that the disparity is within 3 px of the truth, (H, W) float32, 0..1.

        The first access matches the other view as well.
        """
        return self.trusted.confidence

    @functools.cached_property
    def trusted(self) -> Trust:
        """``confidence`` and the simpler measures beside it."""
        if self.trust is None:
            raise UsageError("a result made by hand has no confidence")
        return self.trust()

    def depth(self, calibration: Calibration | str | Path) -> np.ndarray:
        """Return the depth along the optical axis.

        Args:
            calibration: of the rectified pair, or its file.

        Returns:
            (H, W) float32, metres; 0 for none.

        Raises:
            InputError: a calibration that cannot be used.
        """
        return self._fitted(calibration).depth(self.disparity)

    def points(
        self,
        calibration: Calibration | str | Path,
        *,
        max_depth: float | None = None,
        keep_edges: bool = False,
        min_confidence: float = 0.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the points in the left camera's frame, and their colours.

        Args:
            calibration: of the rectified pair, or its file.
            max_depth: metres, the depth of the furthest point; None for 100 baselines.
            keep_edges: whether to keep points at jumps of the depth, many of which lie between two
                surfaces.
            min_confidence: 0..1, the least ``confidence`` of a point; above 0 it is computed.

        Returns:
            (N, 3) float32, metres: x to the right, y down, z along the optical axis; and (N, 3)
            uint8 RGB. Pixels without a depth have no point.

        Raises:
            InputError: a calibration that cannot be used.
            UsageError: an option out of its range, what is neither a calibration nor a path, or a
                result made by hand, without a view.
        """
        if self.image is None:
            raise UsageError("a result made by hand has no view to take the points' colours from")
        if max_depth is not None and not (isinstance(max_depth, numbers.Real) and max_depth > 0):
            raise UsageError(f"max_depth {max_depth}: expected a positive number of metres")
        if not (isinstance(min_confidence, numbers.Real) and 0 <= min_confidence <= 1):
            raise UsageError(f"min_confidence {min_confidence}: expected a number from 0 to 1")
        return colored_points(
            self.disparity,
            self.image,
            self._fitted(calibration),
            is_right=self.is_right,
            max_depth=max_depth,
            keep_edges=keep_edges,
            confidence=self.confidence if min_confidence > 0 else None,
            min_confidence=min_confidence,
        )

    def write_points(
        self, path: str | Path, calibration: Calibration | str | Path, **options: Any
    ) -> int:
        """Write the points to a ``.ply`` or ``.glb`` file, whole or not at all.

        Args:
            path: the file; its folder must be there.
            calibration: as in ``points``.
            options: those of ``points``.

        Returns:
            The number of points written.

        Raises:
            InputError: a calibration that cannot be used.
            UsageError: another suffix, or as in ``points``.
            OutputError: the file cannot be written.
        """
        path = Path(path)
        writers = {".ply": write_ply, ".glb": write_glb}
        if path.suffix.lower() not in writers:
            raise UsageError(f"{path}: the name of a file of points ends in .ply or .glb")
        points, tints = self.points(calibration, **options)
        with staged(path) as (temporary,):
            writers[path.suffix.lower()](temporary, points, tints)
        return len(points)

    def picture(self, calibration: Calibration | str | Path | None = None) -> Image.Image:
        """Return the view beside its map in colours, at most 320 pixels high, with the scale.

        Args:
            calibration: of the rectified pair, or its file: the scale then says metres as well.

        Raises:
            InputError: a calibration that cannot be used.
        """
        fitted = None if calibration is None else self._fitted(calibration)
        return result_picture(self.disparity, self.image, fitted)

    def _fitted(self, calibration: Calibration | str | Path) -> Calibration:
        if not isinstance(calibration, Calibration):
            calibration = Calibration.read(calibration, pictures=self.path)
        height, width = self.disparity.shape
        return calibration.fitted(width, height)


class Matcher:
    """A model ready to match; made by ``stereo.load``.

    Args:
        engine: lists of (H, W, 3) uint8 views of one size to a list of estimates, whose
            disparities start at 0.
        network: the network behind the engine; None for semi-global matching.
        description: what ``metrics.json`` stores about the model. The range searched starts at its
            ``min_disparity``, 0 if it has none.
        confidence: the model's own, or None for one that suits any.
    """

    def __init__(
        self,
        engine: Engine,
        network: StereoNetwork | None,
        description: dict[str, Any],
        confidence: ConfidenceModel | None = None,
    ) -> None:
        self._engine = engine
        self.network = network
        self.description = description
        self.confidence = confidence
        self._noted = False
        self.min_disparity = int(description.get("min_disparity", 0))

    def __repr__(self) -> str:
        facts = self.description
        parts = [str(facts["name"])]
        if "max_disparity" in facts:
            parts.append(f"disparities {_range_text(self.min_disparity, facts['max_disparity'])}")
        parts += [f"{key} {facts[key]}" for key in ("device", "precision", "scale") if key in facts]
        return f"<Matcher {', '.join(parts)}>"

    def __call__(self, left: ImageLike, right: ImageLike, *, view: str = "left") -> Result:
        """Match one rectified pair of any size.

        Args:
            left: (H, W, 3) uint8 array (RGB), PIL image or path; grey, RGBA and uint16 are
                converted, the last by the depth (10, 12, 14 or 16 bits) that both views need.
            right: the same.
            view: whose map it is: ``left``, or ``right``, in pixels of the right image, where a
                point lies at x + d in the left one.

        Raises:
            InputError: unreadable, or of different sizes.
            UsageError: an unknown view.
        """
        if view not in VIEWS:
            raise unknown_name("view", view, VIEWS)
        if view == "left":
            return self.batch([left], [right])[0]
        # In a mirror the right view is a left one.
        views = as_images([left, right], ["the left image", "the right image"])
        result = _mirrored(self.batch([views[1][:, ::-1]], [views[0][:, ::-1]])[0], views[1])
        return dataclasses.replace(result, path=_path_of(left))

    def both(self, left: ImageLike, right: ImageLike) -> tuple[Result, Result]:
        """Match one pair for the maps of both views.

        Each map serves the confidence of the other, which takes no further match then.

        Args:
            left: as in ``__call__``.
            right: the same.

        Returns:
            What ``__call__`` gives with ``view="left"`` and with ``view="right"``.

        Raises:
            InputError: unreadable, or of different sizes.
        """
        path = _path_of(left)
        left, right = as_images([left, right], ["the left image", "the right image"])
        views = left, right
        check_same_size(*views, "the left image", "the right image")
        mirrored = (
            np.ascontiguousarray(views[1][:, ::-1]),
            np.ascontiguousarray(views[0][:, ::-1]),
        )
        times = [time.perf_counter()]
        (own,) = self._estimate([views[0]], [views[1]])
        times.append(time.perf_counter())
        (mirror,) = self._estimate([mirrored[0]], [mirrored[1]])
        times.append(time.perf_counter())
        trust = functools.partial(self._judge, own, *views, mirror.disparity[:, ::-1])
        turned = functools.partial(self._judge, mirror, *mirrored, own.disparity[:, ::-1])
        return (
            Result(own.disparity, times[1] - times[0], trust, views[0], own.again, path),
            _mirrored(
                Result(
                    mirror.disparity, times[2] - times[1], turned, again=mirror.again, path=path
                ),
                views[1],
            ),
        )

    def batch(self, lefts: Sequence[ImageLike], rights: Sequence[ImageLike]) -> list[Result]:
        """Match several pairs at once.

        Args:
            lefts: left views as in ``__call__``; all of one size.
            rights: as many right views.

        Returns:
            One result per pair; ``seconds`` is the batch's time divided by its size.

        Raises:
            InputError: unreadable, or of different sizes.
            StereoError: the network's output is not finite.
        """
        pairs = [
            as_images(pair, [_name_of(pair[0], "left image"), _name_of(pair[1], "right image")])
            for pair in zip(lefts, rights, strict=True)
        ]
        left_images, right_images = [left for left, _ in pairs], [right for _, right in pairs]
        for left, right in pairs:
            check_same_size(left, right, "the left image", "the right image")
            if left.shape != left_images[0].shape:
                raise InputError("the pairs of a batch differ in size; match them one by one")
        if not left_images:
            return []
        start = time.perf_counter()
        estimates = self._estimate(left_images, right_images)
        seconds = (time.perf_counter() - start) / len(estimates)
        return [
            Result(
                estimate.disparity,
                seconds,
                functools.partial(self._judge, estimate, *views),
                views[0],
                estimate.again,
                _path_of(picture),
            )
            for picture, estimate, *views in zip(
                lefts, estimates, left_images, right_images, strict=True
            )
        ]

    def second_match_note(self, result: Result) -> str | None:
        """Say what the second match of small pictures cost, where nobody asked for it; once."""
        if self._noted or not result.again or self.description.get("scale") != "auto":
            return None
        self._noted = True
        times = result.seconds / max(result.seconds - result.again, 1e-9)
        return (
            "pictures of up to 0.4 megapixels are matched a second time, at twice their size: "
            f"{result.seconds:.2f} s, {times:.1f} times as long; --scale 1 leaves it out"
        )

    def cues(self, left: np.ndarray, right: np.ndarray) -> tuple[Estimate, Cues]:
        """Return the estimate of a pair, (H, W, 3) uint8 each, and what tells how good it is."""
        (estimate,) = self._estimate([left], [right])
        return estimate, self._cues(estimate, left, right)

    def _judge(
        self,
        estimate: Estimate,
        left: np.ndarray,
        right: np.ndarray,
        other: np.ndarray | None = None,
    ) -> Trust:
        model = self.confidence
        if model is None:
            model = confidence_model(ANY_MODEL)
            warnings.warn(
                f"'{self.description['name']}' has no confidence model of its own: a general one, "
                "which ranks pixels but whose figures are no frequencies; see stereo "
                "fit-confidence",
                stacklevel=2,
            )
        return model.trust(self._cues(estimate, left, right, other))

    def _cues(
        self,
        estimate: Estimate,
        left: np.ndarray,
        right: np.ndarray,
        other: np.ndarray | None = None,
    ) -> Cues:
        """Gather the cues; ``other`` is the right view's map, matched here where it is None."""
        if other is None:
            (mirror,) = self._estimate([right[:, ::-1]], [left[:, ::-1]])
            other = mirror.disparity[:, ::-1]
        return find_cues(estimate, other, left, right)

    def _estimate(self, lefts: list[np.ndarray], rights: list[np.ndarray]) -> list[Estimate]:
        low = self.min_disparity
        self.check_reach(lefts[0].shape[1])
        try:
            if low:
                estimates = _matched_from(low, self._engine, lefts, rights)
            else:
                estimates = self._engine(lefts, rights)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            height, width = lefts[0].shape[:2]
            raise StereoError(
                f"out of memory matching {width}x{height} pixels with "
                f"{self.description['name']}; use --tile auto, smaller images or a smaller "
                "--max-disparity"
            ) from error
        for estimate in estimates:
            if not np.isfinite(estimate.disparity).all():
                raise StereoError(
                    f"{self.description['name']} gave disparities that are not finite: damaged "
                    "weights, or too little range in this precision; try --precision fp32"
                )
        return estimates

    def check_reach(self, width: int) -> None:
        """Raise ``InputError`` where no pixel could have a match in the range searched.

        Args:
            width: of the pictures, pixels.
        """
        low, count = self.min_disparity, self.description["max_disparity"]
        if low >= width or low + count <= -width:
            raise InputError(
                f"disparities of {_range_text(low, count)} cannot be in pictures {width} pixels "
                "wide; choose another --min-disparity"
            )


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: str = "auto",
    max_disparity: int | None = None,
    min_disparity: int = 0,
    scale: str = "auto",
    tile: str = "auto",
    coarse_to_fine: bool = False,
    kernels: str = "auto",
    compile: str = "off",
    allow_untrained: bool = False,
) -> Matcher:
    """Load a model by name or file.

    On a CPU the process then keeps freed memory from match to match, all that a match takes and of
    all else blocks up to 32 MiB; ``stereo.system.runtime.return_freed_memory`` undoes that.

    Args:
        model: ``sgbm``, a network's name, the path of a ``.safetensors`` checkpoint, or that of an
            ``.onnx`` file of ``stereo export``, which fixes the options below: fp32 or what it was
            exported in, its own largest disparity, the CPU, ``scale`` 1 and no tiles.
        device: ``cpu``, ``cuda``, ``mps``, or ``auto``: CUDA where there is a GPU, else the CPU.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 for ``ea_stereo_fast`` where the
            hardware is fast at it, fp32 for the others.
        max_disparity: how many disparities are searched, pixels, a multiple of 16; None for the
            checkpoint's own, or 192.
        min_disparity: where the search starts, pixels, any whole number: the range is
            ``min_disparity`` to ``min_disparity + max_disparity``. Negative for pairs with points
            behind infinity, as crops and converging cameras make them.
        scale: ``2`` matches at the pair's size, then at twice that over the range found: finer, for
            several times the time. ``1`` does not; ``auto`` does so with ``ea_stereo_fast`` and
            pictures of up to 0.4 megapixels. The map is always of the pair's own size and pixels.
            Semi-global matching knows ``1`` alone.
        tile: ``auto`` matches in tiles where the memory that is free would not suffice for the
            whole; ``off`` never does; a number always does, with cores of so many pixels. Features
            are those of the whole picture, and attention that streams sees all of it.
        coarse_to_fine: match at half the size first, and search only the range found there.
        kernels: ``torch``, which ``auto`` is, computes regression and attention in PyTorch's
            operations; ``triton`` in kernels for NVIDIA GPUs, which were not yet run on one.
        compile: the name of a backend of ``torch.compile``, such as ``inductor``, which needs a C++
            compiler, or ``off``. It takes minutes for each new size of picture.
        allow_untrained: run a network by name even where no weights ship for it. They are then
            random, always the same, and its map means nothing.

    Raises:
        UsageError: an unknown name, device, precision, scale, tile, kernels or
            backend, or no weights.
        InputError: a checkpoint that cannot be used.
    """
    warn_if_threads_spin()
    check_choice(
        model,
        device=device,
        precision=precision,
        max_disparity=max_disparity,
        min_disparity=min_disparity,
        scale=scale,
        tile=tile,
        coarse_to_fine=coarse_to_fine,
        kernels=kernels,
        compile=compile,
        allow_untrained=allow_untrained,
    )
    max_disparity = None if max_disparity is None else int(max_disparity)
    name = str(model)
    where = pick_device(device)
    if where.type == "cpu":
        keep_freed_memory(large=False)
    if name == SGBM:
        return _load_sgbm(max_disparity or DEFAULT_MAX_DISPARITY, int(min_disparity))
    if name.endswith(".onnx"):
        return _load_onnx(Path(name), precision, max_disparity, int(min_disparity))
    weights, confidence = "untrained", None
    is_file = name not in NETWORK_NAMES
    path = Path(model) if is_file else bundled_weights(name)
    if path is not None:
        checkpoint = load_checkpoint(path)
        network = restore_network(checkpoint, str(path))
        config, weights = checkpoint.config, f"sha256:{file_sha256(path)}"
        if checkpoint.confidence is not None:
            confidence = _stored_confidence(checkpoint.confidence, path)
    else:
        config = NetworkConfig(name)
        network = _untrained_network(config)
    network.max_disparity = max_disparity or config.max_disparity
    prepare(network)
    manner = Manner(scale, tile, coarse_to_fine)
    engine = NetworkEngine(
        network,
        config,
        where,
        precision,
        manner,
        kernels,
        added_columns=abs(int(min_disparity)),
    )
    if compile != "off":
        _compile(network, compile)
    description = {
        "name": Path(name).stem if is_file else name,
        "network": config.to_dict(),
        "weights": weights,
        "max_disparity": network.max_disparity,
        "min_disparity": int(min_disparity),
        "device": str(engine.device),
        "precision": str(engine.dtype).removeprefix("torch."),
        "kernels": engine.kernels,
        "compile": compile,
        **dataclasses.asdict(manner),
        "version": __version__,
    }
    return Matcher(engine, network, description, confidence)


def check_choice(
    model: str | Path = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: str = "auto",
    max_disparity: int | None = None,
    min_disparity: int = 0,
    scale: str = "auto",
    tile: str = "auto",
    coarse_to_fine: bool = False,
    kernels: str = "auto",
    compile: str = "off",
    allow_untrained: bool = False,
) -> None:
    """Refuse what ``load``, whose arguments these are, can refuse without reading any weights.

    Raises:
        UsageError: as in ``load``.
    """
    texts = {"device": device, "precision": precision, "scale": scale, "tile": tile}
    for key, text in (texts | {"kernels": kernels, "compile": compile}).items():
        if not isinstance(text, str):
            raise UsageError(f"{key} {text!r}: expected a text")
    for key, flag in {"coarse_to_fine": coarse_to_fine, "allow_untrained": allow_untrained}.items():
        if not isinstance(flag, bool):
            raise UsageError(f"{key} {flag!r}: expected True or False")
    if max_disparity is not None:
        check_max_disparity(max_disparity)
    if not isinstance(min_disparity, numbers.Integral) or isinstance(min_disparity, bool):
        raise UsageError(f"min disparity {min_disparity!r} is not a whole number")
    name = str(model)
    if name == SGBM:
        pick_device(device)
        if scale not in ("auto", "1"):
            raise UsageError(f"sgbm matches at scale 1, not '{scale}'; leave --scale out")
        if tile not in ("auto", "off") or coarse_to_fine:
            raise UsageError("sgbm takes neither --tile nor --coarse-to-fine")
        if precision in ("bf16", "fp16"):
            raise UsageError(f"sgbm computes in whole numbers, not {precision}; leave it out")
        if (max_disparity or 0) > SGBM_LIMIT:
            raise UsageError(f"sgbm searches at most {SGBM_LIMIT} px, not {max_disparity}")
        return
    if name.endswith(".onnx"):
        chosen = {
            "--device": (device, ("auto", "cpu")),
            "--scale": (scale, ("auto", "1")),
            "--tile": (tile, ("auto", "off")),
            "--coarse-to-fine": (coarse_to_fine, (False,)),
            "--kernels": (kernels, ("auto",)),
            "--compile": (compile, ("off",)),
        }
        for option, (value, possible) in chosen.items():
            if value not in possible:
                raise UsageError(
                    f"{name}: an exported network takes no {option}; leave it out, or match with "
                    "the network's name or checkpoint"
                )
        return
    if name not in NETWORK_NAMES:
        if not (name.endswith(".safetensors") or Path(name).is_file()):
            known = [SGBM, *NETWORK_NAMES, "a .safetensors or .onnx file"]
            raise unknown_name("model", name, known)
    elif bundled_weights(name) is None and not allow_untrained:
        raise UsageError(
            f"'{name}' has no trained weights yet: give a checkpoint with --model "
            "FILE.safetensors, use --model sgbm, or add --allow-untrained for random weights"
        )
    Manner(scale, tile, coarse_to_fine)  # which refuses what it does not know
    pick_dtype(precision, pick_device(device))
    if compile != "off" and compile not in torch.compiler.list_backends(exclude_tags=()):
        known = torch.compiler.list_backends()
        raise unknown_name("torch.compile backend", compile, ["off", *known])


def own_max_disparity(model: str | Path) -> int:
    """Return how many disparities ``load`` searches unless told otherwise, pixels.

    Args:
        model: as in ``load``.

    Raises:
        InputError: a file that cannot be used.
    """
    name = str(model)
    if name.endswith(".onnx"):
        return OnnxEngine(Path(name)).max_disparity
    path = bundled_weights(name) if name in (SGBM, *NETWORK_NAMES) else Path(model)
    return DEFAULT_MAX_DISPARITY if path is None else load_checkpoint(path).config.max_disparity


def loaded(matcher: Matcher | Callable[[], Matcher]) -> Matcher:
    """Return a model as it is, or load the one that is still to be loaded."""
    return matcher if isinstance(matcher, Matcher) else matcher()


def _matched_from(
    low: int, engine: Engine, lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]
) -> list[Estimate]:
    """Match over a range that starts at ``low`` with an engine whose own starts at 0.

    On a canvas that is |low| columns wider, one view is moved to the right by so much that
    disparity d becomes d - low: the left one where ``low`` is negative, else the right one.
    """
    by, width = abs(low), lefts[0].shape[1]

    def widened(views: Sequence[np.ndarray], moved: bool) -> list[np.ndarray]:
        columns = (by, 0) if moved else (0, by)
        return [np.pad(view, ((0, 0), columns, (0, 0)), mode="edge") for view in views]

    found = engine(widened(lefts, low < 0), widened(rights, low > 0))
    inside = slice(by, by + width) if low < 0 else slice(width)
    return [
        dataclasses.replace(
            each,
            disparity=each.disparity[:, inside] + np.float32(low),
            certainty=None if each.certainty is None else each.certainty[..., inside].copy(),
        )
        for each in found
    ]


def _range_text(low: int, count: int) -> str:
    return f"{low} to {low + count} px"


def _mirrored(result: Result, right: np.ndarray) -> Result:
    """Turn the result of a mirrored pair into that of its right view, the image ``right``."""
    disparity = np.ascontiguousarray(result.disparity[:, ::-1])
    return dataclasses.replace(
        result,
        disparity=disparity,
        trust=lambda: result.trusted.mirrored(),
        image=right,
        is_right=True,
    )


def _path_of(picture: ImageLike) -> Path | None:
    return Path(picture) if isinstance(picture, str | Path) else None


def _stored_confidence(stored: dict[str, Any], path: Path) -> ConfidenceModel:
    try:
        return ConfidenceModel.from_dict(stored)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _load_sgbm(max_disparity: int, min_disparity: int) -> Matcher:
    import_cv2()

    def engine(lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]) -> list[Estimate]:
        maps = [
            semi_global_matching(left, right, max_disparity)
            for left, right in zip(lefts, rights, strict=True)
        ]
        return [
            Estimate(disparity, matched[None].astype(np.float32)) for disparity, matched in maps
        ]

    description = {
        "name": SGBM,
        "max_disparity": max_disparity,
        "min_disparity": min_disparity,
        "device": "cpu",
        "precision": "int16",
        "version": __version__,
    }
    return Matcher(engine, None, description, confidence_model(SGBM))


def _load_onnx(
    path: Path, precision: str, max_disparity: int | None, min_disparity: int
) -> Matcher:
    engine = OnnxEngine(path)
    own = engine.facts["precision"]
    if precision not in ("auto", own):
        raise UsageError(f"{path}: was exported in {own}, not {precision}; leave --precision out")
    if max_disparity not in (None, engine.max_disparity):
        raise UsageError(
            f"{path}: was exported for disparities below {engine.max_disparity} px, not "
            f"{max_disparity}; use --max-disparity {engine.max_disparity}, or export it again"
        )
    stored = engine.confidence
    confidence = None if stored is None else _stored_confidence(stored, path)
    description = describe(engine) | {"min_disparity": min_disparity}
    return Matcher(engine, None, description, confidence)


def _compile(network: StereoNetwork, backend: str) -> None:
    for part in ("extract", "estimate"):
        compiled = torch.compile(getattr(network, part), backend=backend, dynamic=False)
        setattr(network, part, compiled)


def _untrained_network(config: NetworkConfig) -> StereoNetwork:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        return build_network(config)


def _name_of(image: ImageLike, role: str) -> str:
    return str(image) if isinstance(image, str | Path) else f"the {role}"
