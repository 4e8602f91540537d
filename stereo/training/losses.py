"""Losses on the training outputs: functions that return sums and counts."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.errors import UsageError
from stereo.models.network import TrainingOutputs
from stereo.training.config import LossConfig


def loss_sum(
    outputs: TrainingOutputs,
    truth: Tensor,  # (B, H, W), pixels
    counted: Tensor,  # (B, H, W) bool
    config: LossConfig,
) -> Tensor:
    """Return the loss of a network's outputs, summed over counted pixels."""
    total = smooth_l1_sum(outputs.disparities, truth, counted, config.weights, config.beta)
    if not config.planes:
        return total
    planes = plane_cross_entropy_sum(
        outputs.logits, truth, counted, outputs.spacing, centred=outputs.centred
    )
    return total + config.planes * planes


def smooth_l1_sum(
    predictions: Sequence[Tensor],  # each (B, H, W), pixels; the best last
    truth: Tensor,  # (B, H, W), pixels
    counted: Tensor,  # (B, H, W) bool
    weights: Sequence[float],
    beta: float = 1.0,
) -> Tensor:
    """Return the weighted sum of smooth L1 errors over counted pixels and outputs.

    PSMNet's loss is this divided by the number of counted pixels, with weights 0.5, 0.7 and 1.

    Args:
        predictions: one map per supervised output.
        truth: ground truth; where it is not counted its value means nothing.
        counted: pixels that take part.
        weights: one per output; of more, the last ones are taken.
        beta: error in pixels at which the loss turns linear.
    """
    if len(weights) < len(predictions):
        raise UsageError(
            f"loss.weights {tuple(weights)}: the network has {len(predictions)} outputs, each with "
            "a weight"
        )
    total = truth.new_zeros((), dtype=torch.float32)
    for prediction, weight in zip(predictions, weights[-len(predictions) :], strict=True):
        prediction = prediction.float()
        target = torch.where(counted, truth.float(), prediction.detach())  # faster than indexing
        error = F.smooth_l1_loss(prediction, target, beta=beta, reduction="sum")
        total = total + weight * error
    return total


def plane_cross_entropy_sum(
    logits: Tensor,  # (B, D, h, w)
    truth: Tensor,  # (B, H, W), pixels
    counted: Tensor,  # (B, H, W) bool
    spacing: int,
    *,
    centred: bool = False,
) -> Tensor:
    """Return the cross entropy of a volume's planes, summed over counted pixels.

    The target of a cell is the disparities of the pixels that it stands for, each shared between
    the two planes around it: at an edge it has two modes (Xu et al., Adaptive Multi-Modal
    Cross-Entropy Loss for Stereo Matching, CVPR 2024, model the same with Laplacians).

    Args:
        logits: plane k stands for k times the spacing.
        truth: ground truth; H and W are multiples of h and w by one factor, f.
        counted: pixels that take part; below D times the spacing.
        spacing: pixels of disparity from plane to plane.
        centred: whether cell i stands for the pixels from f i - f / 2 to f i + f / 2, with half the
            weight at the ends, as ``unbiased`` reads it; otherwise for f i to f i + f - 1.
    """
    batch, planes, height, width = logits.shape
    side = truth.shape[2] // width
    taps = torch.ones(side + centred, device=logits.device)
    if centred:
        taps[[0, -1]] = 0.5
    weights = torch.outer(taps, taps).reshape(1, -1, 1, 1)

    def cells(pixels: Tensor) -> Tensor:  # (B, H, W) -> (B, len(taps)^2, h, w)
        padding = side // 2 if centred else 0
        found = F.unfold(pixels[:, None], len(taps), padding=padding, stride=side)
        return found.unflatten(2, (height, width))

    place = torch.where(counted, truth.float(), 0).clamp(min=0) / spacing
    below = place.floor()
    share = (place - below) * counted
    rest = counted.float() - share
    target = torch.zeros(batch, planes, height, width, device=logits.device)
    index = cells(below).long()
    target.scatter_add_(1, index.clamp(max=planes - 1), weights * cells(rest))
    target.scatter_add_(1, (index + 1).clamp(max=planes - 1), weights * cells(share))
    return -(target * logits.float().log_softmax(dim=1)).sum()
