"""Match one pair or many: any size, any engine, one interface."""

import dataclasses
import functools
import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from stereo.data.io.images import ImageLike, as_images
from stereo.data.sets.sample import check_same_size
from stereo.errors import InputError, StereoError, unknown_name
from stereo.matching.confidence import (
    ANY_MODEL,
    ConfidenceFeatures,
    ConfidenceMaps,
    ConfidenceModel,
    confidence_features,
    confidence_model,
)
from stereo.matching.estimate import Engine, Estimate
from stereo.matching.result import Result
from stereo.system.runtime import is_out_of_memory

VIEWS = ("left", "right")


CONFIDENCE_AT_END = 0.5
"""The most at the end of the range searched: what is nearer than it allows ends there too."""
PUBLISHED_END = 4  # pixels before it, where maps under PSMNet's own conventions thin out


class Matcher:
    """A model ready to match; made by ``stereo.load``, ``stereo.wrap`` and ``stereo.wrap_network``.

    Args:
        engine: lists of (H, W, 3) uint8 views of one size to a list of estimates, whose
            disparities start at 0.
        network: the network behind the engine; None if it is not a PyTorch module.
        description: what ``metrics.json`` stores about the model. The range searched starts at its
            ``min_disparity``, 0 if it has none.
        confidence: the model's own, or None for one that suits any.
    """

    def __init__(
        self,
        engine: Engine,
        network: nn.Module | None,
        description: dict[str, Any],
        confidence: ConfidenceModel | None = None,
    ) -> None:
        self.engine = engine
        self.network: Any = network
        self.description = description
        self.confidence = confidence
        self.min_disparity = int(description.get("min_disparity", 0))
        self.trained_on: frozenset[str] = frozenset()  # `Checkpoint.trained_on`

    def described(self, description: dict[str, Any]) -> "Matcher":
        """Return the same model with another description."""
        other = Matcher(self.engine, self.network, description, self.confidence)
        other.trained_on = self.trained_on
        return other

    @property
    def fixed_range(self) -> bool:
        """Whether the model searches its own number of disparities and no other."""
        return bool(getattr(self.engine, "fixed_range", True))

    def searched(self, width: int) -> int:
        """Return how many disparities are searched in images of this width, pixels.

        They are ``max_disparity``, but for a graph of one size, which images are resized to.
        """
        return math.ceil(self.description["max_disparity"] * self._resized_by(width))

    def _resized_by(self, width: int) -> float:
        """Return how many pixels of an image one of the engine stands for."""
        size = self.description.get("fixed_size")
        canvas = width - self.min_disparity  # see ``_matched_from``
        return 1.0 if size is None else canvas / int(size.partition("x")[0])

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
                converted, the last by the depth (8, 10, 12, 14 or 16 bits) that both views need.
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
        one, two = as_images([left, right], ["the left image", "the right image"])
        check_same_size(one, two, "the left image", "the right image")
        result = _mirrored(self.batch([two[:, ::-1]], [one[:, ::-1]])[0], two)
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
        upright = functools.partial(
            self._compute_confidence, own, *views, mirror.disparity[:, ::-1]
        )
        turned = functools.partial(
            self._compute_confidence, mirror, *mirrored, own.disparity[:, ::-1]
        )
        return (
            _result(own, times[1] - times[0], upright, views[0], path),
            _mirrored(_result(mirror, times[2] - times[1], turned, None, path), views[1]),
        )

    def batch(self, lefts: Sequence[ImageLike], rights: Sequence[ImageLike]) -> list[Result]:
        """Match several pairs at once.

        Args:
            lefts: left views as in ``__call__``; all of one size.
            rights: as many right views.

        Returns:
            One result per pair; ``seconds`` is the batch's time divided by its size.

        Raises:
            InputError: unreadable, of different sizes, or more of one view than of the other.
            StereoError: the network's output is not finite.
        """
        if isinstance(lefts, str | Path) or isinstance(rights, str | Path):
            raise InputError("a batch takes two sequences of images, not two images")
        if len(lefts) != len(rights):
            raise InputError(f"{len(lefts)} left and {len(rights)} right images: give as many")
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
            _result(
                estimate,
                seconds,
                functools.partial(self._compute_confidence, estimate, *views),
                views[0],
                _path_of(picture),
            )
            for picture, estimate, *views in zip(
                lefts, estimates, left_images, right_images, strict=True
            )
        ]

    def confidence_features(
        self, left: np.ndarray, right: np.ndarray
    ) -> tuple[Estimate, ConfidenceFeatures]:
        """Return the estimate of a pair, (H, W, 3) uint8 each, and its confidence features."""
        (estimate,) = self._estimate([left], [right])
        return estimate, self._features(estimate, left, right)

    def _compute_confidence(
        self,
        estimate: Estimate,
        left: np.ndarray,
        right: np.ndarray,
        other: np.ndarray | None = None,
    ) -> ConfidenceMaps:
        model = self.confidence
        if model is None:
            model = confidence_model(ANY_MODEL)
            remedy = "; see stereo fit-confidence" if "network" in self.description else ""
            warnings.warn(
                f"'{self.description['name']}' has no confidence model of its own: a general one "
                f"ranks its pixels, but is not calibrated{remedy}",
                stacklevel=2,
            )
        maps = model.predict(self._features(estimate, left, right, other))
        end = self.min_disparity + self.searched(left.shape[1])
        upsampling = self.description.get("network", {}).get("upsampling", "unbiased")
        before = 0 if upsampling == "unbiased" else PUBLISHED_END
        # Beyond the end are maps of models whose range is not theirs to keep.
        last = end - before - max(1.0, self._resized_by(left.shape[1]))
        at_end = (estimate.disparity >= last) & (estimate.disparity <= end)
        maps.confidence[at_end] = np.minimum(maps.confidence[at_end], CONFIDENCE_AT_END)
        return maps

    def _features(
        self,
        estimate: Estimate,
        left: np.ndarray,
        right: np.ndarray,
        other: np.ndarray | None = None,
    ) -> ConfidenceFeatures:
        """Compute the features; ``other`` is the right view's map, matched here if None."""
        if other is None:
            (mirror,) = self._estimate([right[:, ::-1]], [left[:, ::-1]])
            other = mirror.disparity[:, ::-1]
        return confidence_features(estimate, other, left, right)

    def _estimate(self, lefts: list[np.ndarray], rights: list[np.ndarray]) -> list[Estimate]:
        low, width = self.min_disparity, lefts[0].shape[1]
        self.check_reach(width)
        try:
            if low:
                found = _matched_from(low, self.engine, lefts, rights)
            else:
                found = self.engine(lefts, rights)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            height, width = lefts[0].shape[:2]
            ours = "network" in self.description
            remedy = "--tile auto, a smaller --max-disparity or " if ours else ""
            raise StereoError(
                f"out of memory matching {width}x{height} pixels with "
                f"{self.description['name']}; use {remedy}smaller images"
            ) from error
        if getattr(self.engine, "sign", "") is None:  # random weights, which may give anything
            return found
        most = low + max(2 * self.searched(width), width + abs(low))
        return [self._within(each, most) for each in found]

    def _within(self, estimate: Estimate, most: int) -> Estimate:
        """Cut disparities that cannot be, with a warning.

        Raises:
            StereoError: more than half are such.
        """
        highest = float(estimate.disparity.max())
        if highest <= most:
            return estimate
        name, share = self.description["name"], 100 * float((estimate.disparity > most).mean())
        told = f"{name} gave disparities of up to {highest:g} px, where none can be beyond {most}"
        if share > 50:
            raise StereoError(f"{told}; are they in pixels?")
        warnings.warn(f"{told}; {share:.2g} % are cut to that", stacklevel=2)
        return dataclasses.replace(estimate, disparity=np.minimum(estimate.disparity, most))

    def check_reach(self, width: int) -> None:
        """Raise ``InputError`` where no pixel could have a match in the range searched."""
        low, count = self.min_disparity, self.searched(width)
        if low >= width or low + count <= 1 - width:
            raise InputError(
                f"disparities of {_range_text(low, count)} cannot be in images {width} pixels "
                "wide; choose another --min-disparity"
            )


def _matched_from(
    low: int, engine: Engine, lefts: Sequence[np.ndarray], rights: Sequence[np.ndarray]
) -> list[Estimate]:
    """Match over a range that starts at ``low`` with an engine whose own starts at 0.

    Disparity d becomes d - low. Below 0, the left view gets -low columns before its own and the
    right one behind. Above 0, the left one is matched without its first ``low`` columns, the right
    one without its last, which the other view cannot show: columns in their place would be matched
    where nothing should. The map there is that of the column beside.
    """
    width, before, behind = lefts[0].shape[1], max(-low, 0), max(low, 0)
    if low < 0:
        lefts = [np.pad(view, ((0, 0), (before, 0), (0, 0)), mode="edge") for view in lefts]
        rights = [np.pad(view, ((0, 0), (0, before), (0, 0)), mode="edge") for view in rights]
    else:
        lefts = [view[:, low:] for view in lefts]
        rights = [view[:, : width - low] for view in rights]

    def own(values: np.ndarray) -> np.ndarray:  # (..., W - low) -> (..., W)
        sides = [(0, 0)] * (values.ndim - 1)
        return np.pad(values[..., before:], [*sides, (behind, 0)], mode="edge")

    return [
        dataclasses.replace(
            each,
            disparity=own(each.disparity) + np.float32(low),
            certainty=None if each.certainty is None else own(each.certainty),
        )
        for each in engine(lefts, rights)
    ]


def _range_text(low: int, count: int) -> str:
    return f"{low} to {low + count} px"


def _mirrored(result: Result, right: np.ndarray) -> Result:
    """Turn the result of a mirrored pair into that of its right view, the image ``right``."""
    disparity = np.ascontiguousarray(result.disparity[:, ::-1])
    return dataclasses.replace(
        result,
        disparity=disparity,
        compute_confidence=lambda: result.confidence_maps.mirrored(),
        image=right,
        is_right=True,
        certainty=None if result.certainty is None else result.certainty[..., ::-1],
    )


def _result(
    estimate: Estimate,
    seconds: float,
    compute_confidence: Callable[[], ConfidenceMaps],
    view: np.ndarray | None,
    path: Path | None,
) -> Result:
    disparity = estimate.disparity.copy()  # the confidence reads the estimate's later
    certainty = estimate.network_certainty
    return Result(disparity, seconds, compute_confidence, view, path, certainty=certainty)


def _path_of(picture: ImageLike) -> Path | None:
    return Path(picture) if isinstance(picture, str | Path) else None


def _name_of(image: ImageLike, role: str) -> str:
    return str(image) if isinstance(image, str | Path) else f"the {role}"
