"""The certainty of a network, from its softmax over disparities."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

CERTAINTIES = 2
REACH = 1  # planes to either side of the likeliest one that count as the same surface


def certainty(
    logits: Tensor,  # (B, D, h, w)
    size: tuple[int, int],
) -> Tensor:  # (B, 2, H, W) float32, 0..1
    """Return the probability about the likeliest plane, and 1 - entropy / log D.

    Args:
        logits: of the planes.
        size: H and W of the result.
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)
        p = log_p.exp()
        entropy = -(p * log_p).sum(dim=1, keepdim=True)
        order = 1 - entropy / math.log(max(logits.shape[1], 2))
        padded = F.pad(p, (0, 0, 0, 0, REACH, REACH))
        steps = torch.arange(2 * REACH + 1, device=p.device).view(-1, 1, 1)
        about = padded.gather(1, p.argmax(dim=1, keepdim=True) + steps)
        both = torch.cat([about.sum(dim=1, keepdim=True), order], dim=1).float()
        return F.interpolate(both, size, mode="bilinear", align_corners=False)


def with_certainty(
    disparity: Tensor,  # (B, H, W)
    logits: Tensor,  # (B, D, h, w)
) -> Tensor:  # (B, 3, H, W)
    """Return a network's output for an engine: the disparity in pixels and ``certainty``."""
    size = (disparity.shape[1], disparity.shape[2])
    return torch.cat([disparity[:, None].float(), certainty(logits, size)], dim=1)
