"""The learning rate as a function of the step, so that it needs no state."""

import math

from stereo.errors import UsageError
from stereo.training.config import OptimizerConfig


def learning_rate(step: int, max_steps: int, config: OptimizerConfig) -> float:
    """Return the learning rate of a step."""
    share = step / max_steps
    if config.schedule == "steps":
        return config.learning_rate * 0.1 ** sum(share >= m for m in config.milestones)
    if config.schedule == "one_cycle":
        if share < config.warmup_share:
            return (
                config.learning_rate
                * (step + 1)
                / max(1, math.ceil(config.warmup_share * max_steps))
            )
        rest = (share - config.warmup_share) / (1 - config.warmup_share)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * rest))
    return config.learning_rate


def parse_duration(text: str) -> float:
    """Return the seconds of ``90``, ``90s``, ``50m`` or ``2.5h``.

    Raises:
        UsageError: anything else.
    """
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    try:
        number = float(text[:-1] if unit else text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise UsageError(f"--max-time {text}: write 90s, 50m or 2.5h")
    return number * (unit or 1)
