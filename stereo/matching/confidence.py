"""The confidence of each pixel of a map: the probability that its error is at most 3 px.

A small network reads a few features of each pixel, none of which needs ground truth, and ends in a
logistic function; fitted with cross entropy on rendered pairs (``stereo fit-confidence``), it is
calibrated. It is monotone in each feature, so that what it learns from rendered images holds for
photographs, where an unconstrained network fails. The features are:

* how far the map of the left view and that of the right one, matched by mirroring, disagree,
  |d(x) - d_R(x - d(x))|, the left-right check, and whether x - d lies outside the right view;
* the matcher's own certainty: the softmax over disparities about its likeliest plane, and its
  entropy (``stereo.models.certainty``), or which pixels semi-global matching has filled;
* how different the two views look at the match, how much texture there is to match by, how rough
  the map is around the pixel, and the disparity itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.errors import InputError
from stereo.matching.estimate import Estimate

ANY_MODEL = "any"
FARTHEST = 32.0  # pixels of disagreement; beyond, all are alike
HIDDEN = 16
COMMON = ("disagreement", "outside", "difference", "texture", "roughness", "disparity")
CERTAINTY = {0: (), 1: ("matched",), 2: ("about_plane", "negative_entropy")}
RISING = ("texture", "matched", "about_plane", "negative_entropy")  # the more, the surer


@dataclass(frozen=True, eq=False)
class ConfidenceFeatures:
    """Features of each pixel that need no ground truth."""

    values: dict[str, Tensor]  # feature -> (H, W) float32, scaled to about -2..2
    disagreement: Tensor  # (H, W) float32, pixels: the left-right check


@dataclass(frozen=True, eq=False)
class ConfidenceMaps:
    """The confidence of a map by several measures; larger is better in all."""

    confidence: np.ndarray  # (H, W) float32, the probability of an error of at most 3 px
    # `left_right`: minus the disagreement of the two views' maps, pixels, and `entropy`, minus the
    # normalised entropy of the softmax, where there is one; (H, W)
    baselines: dict[str, np.ndarray]

    def measures(self) -> dict[str, np.ndarray]:
        """Return all of them by name."""
        return {"confidence": self.confidence, **self.baselines}

    def mirrored(self) -> "ConfidenceMaps":
        """Return the measures of the mirrored map."""
        return ConfidenceMaps(
            np.ascontiguousarray(self.confidence[:, ::-1]),
            {name: each[:, ::-1] for name, each in self.baselines.items()},
        )


def confidence_features(
    estimate: Estimate, other: np.ndarray, left: np.ndarray, right: np.ndarray
) -> ConfidenceFeatures:
    """Compute the features of a map.

    Args:
        estimate: of the left view.
        other: (H, W) disparity of the right view, pixels.
        left: (H, W, 3) uint8.
        right: (H, W, 3) uint8.
    """
    disparity = torch.tensor(estimate.disparity)
    at = torch.arange(disparity.shape[1], dtype=torch.float32) - disparity
    outside = (at < 0) | (at > disparity.shape[1] - 1)
    found = _sample(torch.tensor(other.copy())[None], at)[0]
    disagreement = (disparity - found).abs().clamp(max=FARTHEST).masked_fill(outside, FARTHEST)
    seen, matched = (torch.tensor(view.copy()).permute(2, 0, 1).float() for view in (left, right))
    common = (
        _log(disagreement, 0.1) / 2,
        outside.float(),
        _log(_box((seen - _sample(matched, at)).abs().mean(dim=0), 3), 1.0) / 2 - 1,
        _log(_deviation(seen.mean(dim=0), 7), 1.0) / 2 - 1,
        _log(_deviation(disparity, 5), 0.1) / 2,
        _log(disparity.clamp(min=0), 4.0) / 2 - 1,
    )
    values = dict(zip(COMMON, common, strict=True))
    if estimate.certainty is not None:
        names = CERTAINTY[len(estimate.certainty)]
        own = (2 * torch.from_numpy(each) - 1 for each in estimate.certainty)
        values |= dict(zip(names, own, strict=True))
    return ConfidenceFeatures(values, disagreement)


class ConfidenceModel(nn.Module):
    """Features to probability, pixel by pixel; monotone in each.

    Args:
        features: their names, of ``COMMON`` and ``CERTAINTY``.
        facts: how it was fitted.
    """

    def __init__(self, features: Sequence[str], facts: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.features = tuple(features)
        unknown = set(self.features).difference(COMMON, *CERTAINTY.values())
        if unknown:
            raise ValueError(f"unknown feature '{min(unknown)}'")
        if not self.features:
            raise ValueError("no features")
        self.facts = dict(facts or {})
        self.hidden = nn.Linear(len(self.features), HIDDEN)
        self.out = nn.Linear(HIDDEN, 1)
        self.signs = [1.0 if name in RISING else -1.0 for name in self.features]

    def forward(self, features: Tensor) -> Tensor:  # (N, K)
        """Return the logit of being within 3 px, (N,)."""
        signs = features.new_tensor(self.signs)
        hidden = F.linear(signs * features, self.hidden.weight.abs(), self.hidden.bias)
        return F.linear(hidden.tanh(), self.out.weight.abs(), self.out.bias)[:, 0]

    @torch.inference_mode()
    def predict(self, features: ConfidenceFeatures) -> ConfidenceMaps:
        """Predict the confidence of every pixel.

        Raises:
            InputError: the model reads a feature that is missing.
        """
        missing = [name for name in self.features if name not in features.values]
        if missing:
            raise InputError(
                f"the confidence model reads '{missing[0]}', which this matcher does not provide; "
                "fit one with stereo fit-confidence"
            )
        size = features.disagreement.shape
        rows = torch.stack([features.values[name].flatten() for name in self.features], dim=1)
        logits = torch.cat([self(part) for part in rows.split(2**18)])
        baselines = {"left_right": -features.disagreement.numpy()}
        if "negative_entropy" in features.values:
            baselines["entropy"] = features.values["negative_entropy"].numpy()
        return ConfidenceMaps(logits.sigmoid().view(size).numpy(), baselines)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``from_dict`` reads, for JSON."""
        weights = {name: _rounded(each) for name, each in self.state_dict().items()}
        return {"cues": list(self.features), "weights": weights, "facts": self.facts}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "ConfidenceModel":
        """Rebuild a model.

        Raises:
            InputError: it cannot be.
        """
        try:
            with torch.random.fork_rng(devices=[]):  # what is drawn is replaced at once
                model = cls(stored["cues"], stored["facts"])
            weights = {name: torch.tensor(each) for name, each in stored["weights"].items()}
            model.load_state_dict(weights)
            if not all(each.isfinite().all() for each in model.parameters()):
                raise ValueError("weights that are not finite")
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            told = str(error).partition("\n")[0]
            raise InputError(f"its confidence model cannot be used ({told})") from error
        return model.float().eval()


def confidence_model(name: str) -> ConfidenceModel:
    """Return a bundled model: ``sgbm``, or ``any``, which reads only the common features."""
    path = Path(__file__).with_name(f"confidence_{name}.json")
    return ConfidenceModel.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _rounded(weights: Tensor) -> Any:
    return [_rounded(each) for each in weights] if weights.ndim else round(weights.item(), 5)


def _sample(rows: Tensor, at: Tensor) -> Tensor:  # (C, H, W), (H, W) -> (C, H, W)
    """Read each row at columns ``at``, linearly between them; the nearest one outside."""
    at = at.clamp(0, rows.shape[-1] - 1)
    below = at.long()
    above = (below + 1).clamp(max=rows.shape[-1] - 1)
    near, far = (rows.gather(2, each.expand_as(rows)) for each in (below, above))
    return torch.lerp(near, far, at - below)


def _deviation(values: Tensor, size: int) -> Tensor:  # (H, W)
    """Return the standard deviation in the box around each pixel."""
    values = values.double()  # or squares would lose what they differ by
    return (_box(values.square(), size) - _box(values, size).square()).clamp(min=0).sqrt().float()


def _box(values: Tensor, size: int) -> Tensor:  # (H, W)
    return F.avg_pool2d(values[None], size, 1, size // 2, count_include_pad=False)[0]


def _log(values: Tensor, offset: float) -> Tensor:
    return torch.log(values + offset)
