"""The certainty of a network, from its softmax over disparities."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.models.regression import Upsampling, interpolate, sample_positions

CERTAINTIES = 2
REACH = 1  # planes to either side of the likeliest one that count as the same surface


def certainty(
    logits: Tensor,  # (B, D, h, w)
) -> Tensor:  # (B, 2, h, w) float32, 0..1
    """Return the probability about the likeliest plane, and 1 - entropy / log D."""
    with torch.autocast(logits.device.type, enabled=False):
        log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
        p = log_p.exp()
        entropy = -(p * log_p).sum(dim=1, keepdim=True)
        order = 1 - entropy / math.log(max(logits.shape[1], 2))
        padded = F.pad(p, (0, 0, 0, 0, REACH, REACH))
        steps = torch.arange(2 * REACH + 1, device=p.device).view(-1, 1, 1)
        about = padded.gather(1, p.argmax(dim=1, keepdim=True) + steps)
        return torch.cat([about.sum(dim=1, keepdim=True), order], dim=1).float()


def with_certainty(
    disparity: Tensor,  # (B, H, W)
    logits: Tensor,  # (B, D, h, w)
    upsampling: Upsampling = "half_pixel",
) -> Tensor:  # (B, 3, H, W)
    """Return a network's output for an engine: the disparity in pixels and ``certainty``.

    Args:
        disparity: pixels.
        logits: of the planes.
        upsampling: where a sample of the logits lies at full resolution; other conventions than
            ``half_pixel`` are for a quarter of it.
    """
    sure = certainty(logits)
    if upsampling == "half_pixel":
        sure = F.interpolate(sure, disparity.shape[1:], mode="bilinear", align_corners=False)
    else:
        for dim in (2, 3):
            sure = interpolate(sure, sample_positions(sure.shape[dim], upsampling), dim=dim)
    return torch.cat([disparity[:, None].float(), sure], dim=1)
