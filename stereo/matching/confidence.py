"""How far each pixel of a map can be trusted: the probability that it is within 3 px.

A few cues per pixel, none of which knows the truth, go through a small network with a logistic
function at its end; fitted with cross entropy on rendered pairs (``stereo fit-confidence``), it
answers with frequencies. It can only rise or only fall with each cue, as common sense has it: what
it learns of rendered pictures then holds for photographs, which a free network's does not. The cues
are:

* how far the map of the left view and that of the right one, matched by mirroring, disagree,
  |d(x) - d_R(x - d(x))|, the left-right check, and whether x - d lies outside the right view;
* what the matcher says of itself: the softmax over disparities about its likeliest plane and its
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
from stereo.matching.engine import Estimate

ANY_MODEL = "any"
FARTHEST = 32.0  # pixels of disagreement; beyond, all are alike
HIDDEN = 16
COMMON = ("disagreement", "outside", "difference", "texture", "roughness", "disparity")
CERTAINTY = {0: (), 1: ("matched",), 2: ("about_plane", "order")}
WELCOME = ("texture", "matched", "about_plane", "order")  # the more of it, the surer


@dataclass(frozen=True, eq=False)
class Cues:
    """What is known of each pixel without the truth.

    Attributes:
        values: cue -> (H, W) float32, scaled to about -2..2.
        disagreement: (H, W) float32, pixels: the left-right check.
    """

    values: dict[str, Tensor]
    disagreement: Tensor


@dataclass(frozen=True, eq=False)
class Trust:
    """How far a map can be trusted, by several measures; more is better in all of them.

    Attributes:
        confidence: (H, W) float32, the probability of an error of at most 3 px.
        baselines: ``left_right``: minus the disagreement of the two views' maps, pixels, and
            ``entropy``, minus the normalised entropy of the softmax, where there is one; (H, W).
    """

    confidence: np.ndarray
    baselines: dict[str, np.ndarray]

    def measures(self) -> dict[str, np.ndarray]:
        """Return all of them by name."""
        return {"confidence": self.confidence, **self.baselines}

    def mirrored(self) -> "Trust":
        """Return the same of a map whose columns run backwards."""
        return Trust(
            np.ascontiguousarray(self.confidence[:, ::-1]),
            {name: each[:, ::-1] for name, each in self.baselines.items()},
        )


def find_cues(estimate: Estimate, other: np.ndarray, left: np.ndarray, right: np.ndarray) -> Cues:
    """Gather the cues of a map.

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
    return Cues(values, disagreement)


class ConfidenceModel(nn.Module):
    """Cues to probability, pixel by pixel; monotone in each.

    Args:
        cues: their names, of ``COMMON`` and ``CERTAINTY``.
        facts: how it was fitted.
    """

    def __init__(self, cues: Sequence[str], facts: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.cues = tuple(cues)
        unknown = set(self.cues).difference(COMMON, *CERTAINTY.values())
        if unknown:
            raise ValueError(f"unknown cue '{min(unknown)}'")
        if not self.cues:
            raise ValueError("no cues")
        self.facts = dict(facts or {})
        self.hidden = nn.Linear(len(self.cues), HIDDEN)
        self.out = nn.Linear(HIDDEN, 1)
        self.signs = [1.0 if name in WELCOME else -1.0 for name in self.cues]

    def forward(self, cues: Tensor) -> Tensor:  # (N, K)
        """Return the logit of being within 3 px, (N,)."""
        signs = torch.tensor(self.signs, device=cues.device)
        hidden = F.linear(signs * cues, self.hidden.weight.abs(), self.hidden.bias)
        return F.linear(hidden.tanh(), self.out.weight.abs(), self.out.bias)[:, 0]

    @torch.inference_mode()
    def trust(self, cues: Cues) -> Trust:
        """Judge every pixel.

        Raises:
            InputError: the model reads a cue that there is none of.
        """
        missing = [name for name in self.cues if name not in cues.values]
        if missing:
            raise InputError(
                f"the confidence model reads '{missing[0]}', which this matcher does not tell; fit "
                "one with stereo fit-confidence"
            )
        size = cues.disagreement.shape
        rows = torch.stack([cues.values[name].flatten() for name in self.cues], dim=1)
        logits = torch.cat([self(part) for part in rows.split(2**18)])
        baselines = {"left_right": -cues.disagreement.numpy()}
        if "order" in cues.values:
            baselines["entropy"] = cues.values["order"].numpy()
        return Trust(logits.sigmoid().view(size).numpy(), baselines)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``from_dict`` reads, for JSON."""
        weights = {name: _rounded(each) for name, each in self.state_dict().items()}
        return {"cues": list(self.cues), "weights": weights, "facts": self.facts}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "ConfidenceModel":
        """Rebuild a model.

        Raises:
            InputError: it cannot be.
        """
        try:
            model = cls(stored["cues"], stored["facts"])
            weights = {name: torch.tensor(each) for name, each in stored["weights"].items()}
            model.load_state_dict(weights)
            if not all(each.isfinite().all() for each in model.parameters()):
                raise ValueError("weights that are not finite")
        except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            told = str(error).partition("\n")[0]
            raise InputError(f"its confidence model cannot be used ({told})") from error
        return model.eval()


def confidence_model(name: str) -> ConfidenceModel:
    """Return a model that ships: ``sgbm``, or ``any``, which reads the common cues alone."""
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
    centred = values - values.mean()  # or squares would lose what they differ by
    return (_box(centred.square(), size) - _box(centred, size).square()).clamp(min=0).sqrt()


def _box(values: Tensor, size: int) -> Tensor:  # (H, W)
    return F.avg_pool2d(values[None], size, 1, size // 2, count_include_pad=False)[0]


def _log(values: Tensor, offset: float) -> Tensor:
    return torch.log(values + offset)
