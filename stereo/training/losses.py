"""Losses on the training outputs: functions that return sums and counts."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.errors import UsageError
from stereo.models.outputs import TrainingOutputs
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
    planes = plane_cross_entropy_sum(outputs.logits, truth, counted, outputs.spacing)
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
) -> Tensor:
    """Return the cross entropy of a volume's planes, summed over counted pixels.

    The target of a cell is the disparities of the pixels in its block, each shared between the two
    planes around it: at an edge it has two modes (Xu et al., Adaptive Multi-Modal Cross-Entropy
    Loss for Stereo Matching, CVPR 2024, model the same with Laplacians).

    Args:
        logits: plane k stands for k times the spacing.
        truth: ground truth; H and W are multiples of h and w by one factor, the block's side.
        counted: pixels that take part; below D times the spacing.
        spacing: pixels of disparity from plane to plane.
    """
    batch, planes, height, width = logits.shape
    side = truth.shape[2] // width

    def blocks(pixels: Tensor) -> Tensor:  # (B, H, W) -> (B, side^2, h, w)
        cells = pixels.reshape(batch, height, side, width, side)
        return cells.permute(0, 2, 4, 1, 3).reshape(batch, side * side, height, width)

    place = torch.where(counted, truth.float(), 0).clamp(min=0) / spacing
    below = place.floor()
    share = (place - below) * counted
    target = torch.zeros(batch, planes, height, width, device=logits.device)
    index = blocks(below).long()
    target.scatter_add_(1, index.clamp(max=planes - 1), blocks(counted.float() - share))
    target.scatter_add_(1, (index + 1).clamp(max=planes - 1), blocks(share))
    return -(target * logits.float().log_softmax(dim=1)).sum()
