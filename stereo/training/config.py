"""The recipe sections ``optimizer``, ``trainer`` and ``loss``."""

import math
from dataclasses import dataclass
from typing import Literal

from stereo.errors import UsageError
from stereo.system.compute import ComputeOptions

Schedule = Literal["constant", "one_cycle", "steps"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam or AdamW and its learning rate."""

    learning_rate: float = 1e-3
    """The largest learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's averaging factors."""
    weight_decay: float = 0.0
    """Decoupled (AdamW); 0 is plain Adam."""
    schedule: Schedule = "constant"
    """``constant``; ``one_cycle``: linear warm-up, then a cosine down to 0; ``steps``: divided by
    10 at each of ``milestones``."""
    warmup_share: float = 0.05
    """Share of the steps that ``one_cycle`` warms up over."""
    milestones: tuple[float, ...] = ()
    """Shares of the steps after which ``steps`` divides the learning rate by 10."""
    clip_norm: float | None = None
    """Largest L2 norm of the gradient; None for no clipping."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"learning rate {self.learning_rate}: expected a positive number")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"betas {self.betas}: expected two numbers from 0 to below 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight decay {self.weight_decay}: expected 0 or more")
        if not 0 <= self.warmup_share < 1:
            raise UsageError(f"warm-up share {self.warmup_share}: expected 0 to below 1")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UsageError(f"clip norm {self.clip_norm}: expected a positive number")
        if list(self.milestones) != sorted(m for m in self.milestones if 0 < m < 1):
            raise UsageError(
                f"milestones {self.milestones}: expected a rising list of shares of the steps, "
                "each between 0 and 1"
            )


@dataclass(frozen=True)
class TrainerConfig(ComputeOptions):
    """Length, batch, precision and intervals of the loop."""

    max_steps: int = 1000
    """Optimiser steps."""
    batch_size: int = 12
    """Pairs per optimiser step over all processes and accumulations."""
    accumulation: int = 1
    """Backward passes per optimiser step."""
    workers: int = 2
    """Loader processes per training process."""
    threads: int | None = None
    """CPU threads of a training process; None for PyTorch's default, all cores, divided among the
    processes of torchrun. Each loader process has one more thread; waiting threads sleep, so they
    do not compete for cores (docs/performance.md)."""
    freeze_batch_norm: bool = False
    """Keep batch norm's running statistics and use them, as in evaluation."""
    freeze: tuple[str, ...] = ()
    """Parts of the network that keep their weights and statistics, by name, such as ``features``
    and ``aggregation``."""
    recompute: bool = False
    """Recompute activations in the backward pass, stage by stage, instead of keeping them: less
    memory for one more forward pass, with the same gradients."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights, which is then validated and saved. It is at
    most step / (9 + step) at first, to forget the initial weights."""
    validate_every: int = 500
    """Steps between validations."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep_last: int = 2
    """Number of latest checkpoints to keep."""
    log_every: int = 10
    """Steps between log lines and TensorBoard scalars."""

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = ("max_steps", "batch_size", "accumulation", "keep_last", "log_every")
        for name in (*counts, "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"trainer.{name} {getattr(self, name)}: expected at least 1")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"trainer.threads {self.threads}: expected at least 1")
        if self.workers < 0:
            raise UsageError(f"trainer.workers {self.workers}: expected 0 or more")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UsageError(f"trainer.ema_decay {self.ema_decay}: expected between 0 and 1")

    def validates_at(self, step: int) -> bool:
        """Return whether a validation follows this step: every so many, and the last."""
        return step % self.validate_every == 0 or step == self.max_steps


@dataclass(frozen=True)
class LossConfig:
    """Smooth L1 on every supervised output, and cross entropy on the planes of the first."""

    weights: tuple[float, ...] = (0.3, 0.3, 0.5, 0.7, 1.0)
    """Weights of the outputs, the final one last; a network with fewer uses the last ones."""
    beta: float = 1.0
    """Error in pixels at which the loss turns from quadratic to linear."""
    zero_counts: bool = False
    """Whether true disparities of 0 or less count, as in PSMNet's training."""
    planes: float = 0.0
    """Weight of the cross entropy on the planes of the first output's volume; 0 for none, as in
    PSMNet's training. It makes networks learn to match in far fewer steps."""

    def __post_init__(self) -> None:
        if not all(0 <= weight < math.inf for weight in self.weights) or not any(self.weights):
            raise UsageError(f"loss.weights {self.weights}: expected weights of 0 or more")
        if not 0 < self.beta < math.inf:
            raise UsageError(f"loss.beta {self.beta}: expected a positive number of pixels")
        if not 0 <= self.planes < math.inf:
            raise UsageError(f"loss.planes {self.planes}: expected 0 or more")
