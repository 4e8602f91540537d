"""Select supervised pixels, and explain an empty selection."""

import math

from torch import Tensor

from stereo.errors import InputError, StereoError
from stereo.models.config import MAX_DISPARITY, STRIDE
from stereo.training.order import Share, StepSampler
from stereo.training.run import TrainingRun

FIRST_STEPS = 10  # some pixel of them must count


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


class TruthCount:
    """Counts why pixels are excluded, for the error when none is left."""

    def __init__(self, max_disparity: int) -> None:
        self.max_disparity = max_disparity
        self.pixels = self.known = self.negative = self.zero = self.beyond = 0
        self.lowest, self.highest = math.inf, -math.inf

    def add(self, truth: Tensor, valid: Tensor) -> None:
        """Count the pixels of maps of one shape, ``truth`` in pixels, ``valid`` bool."""
        known = truth[valid]
        self.pixels += truth.numel()
        self.known += known.numel()
        self.negative += int((known < 0).sum())
        self.zero += int((known == 0).sum())
        self.beyond += int((known >= self.max_disparity).sum())
        if known.numel():
            self.lowest = min(self.lowest, float(known.min()))
            self.highest = max(self.highest, float(known.max()))

    def error(self, where: str) -> InputError:
        """Return the error for pairs without a pixel that counts."""
        if not self.pixels:
            return InputError(f"none of {where} could be read; 'stereo data check' checks the data")
        if not self.known:
            return InputError(
                f"no pixel of {where} has ground truth (none of {self.pixels:,}); "
                "'stereo data check' checks the data"
            )
        reasons = {
            "negative": (self.negative, "disparities are positive here: turn their sign"),
            "0": (self.zero, "0 is infinitely far: look at the files"),
            f"at {self.max_disparity:g} px or beyond": (
                self.beyond,
                "correct the scale of the ground truth" + self._range_that_counts(),
            ),
        }
        shares = ", ".join(
            f"{100 * count / self.known:.4g} % {kind}" for kind, (count, _) in reasons.items()
        )
        remedy = max(reasons.values())[1]
        return InputError(
            f"no pixel of {where} counts: of {self.known:,} with ground truth "
            f"({self.lowest:g} to {self.highest:g} px) are {shares}; {remedy}"
        )

    def _range_that_counts(self) -> str:
        if not self.highest < MAX_DISPARITY - STRIDE:
            return ""
        needed = STRIDE * (int(self.highest) // STRIDE + 1)
        return f", or raise the network's range, --network.max_disparity {needed}"


def check_truth(run: TrainingRun, step: int) -> None:
    """Read the pairs of the next steps until a pixel counts.

    Every process reads the same ones, so that all agree. Damaged pairs are left to the loop, unless
    there are no others.

    Raises:
        StereoError: no pixel of ``FIRST_STEPS`` steps counts; training would learn nothing.
    """
    count = TruthCount(run.network_config.max_disparity)
    sampler = StepSampler(len(run.training_set), run.trainer.batch_size, run.seed, Share())  # type: ignore[arg-type]
    steps = min(FIRST_STEPS, run.trainer.max_steps - step)
    damaged: StereoError | None = None
    for number in range(step, step + steps):
        for key in sampler.keys_of_step(number):
            item = run.training_set[key]
            if isinstance(item, StereoError):
                damaged = item
                continue
            truth, valid = item["disparity"], item["valid"]
            if counted_pixels(
                truth, valid, count.max_disparity, zero_counts=run.loss.zero_counts
            ).any():
                return
            count.add(truth, valid)
    if damaged is not None and not count.pixels:
        raise damaged
    raise count.error(
        f"the {'next' if step else 'first'} {steps} steps" if steps > 1 else "the step"
    )
