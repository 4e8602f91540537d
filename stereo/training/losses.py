"""Losses on predicted disparities: functions that return unreduced sums and counts."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def counted_pixels(
    truth: Tensor,  # (B, H, W), pixels
    valid: Tensor,  # (B, H, W) bool
    max_disparity: int,
    *,
    zero_counts: bool = False,
) -> Tensor:  # (B, H, W) bool
    """Return the pixels that training counts: valid, below ``max_disparity``, above 0.

    PSMNet counts zeros and negatives too (``zero_counts``).
    """
    counted = valid & (truth < max_disparity)
    return counted if zero_counts else counted & (truth > 0)


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
    total = truth.new_zeros((), dtype=torch.float32)
    for prediction, weight in zip(predictions, weights[-len(predictions) :], strict=True):
        error = F.smooth_l1_loss(
            prediction.float()[counted], truth.float()[counted], beta=beta, reduction="sum"
        )
        total = total + weight * error
    return total
