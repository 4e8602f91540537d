"""Parts of a network that can recompute their activations."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputable(nn.Module):
    """A part whose activations can be recomputed in the backward pass.

    With ``recompute`` set, training keeps its inputs and outputs alone: less memory for one
    more forward pass, and the same gradients (Chen et al., Training Deep Nets with Sublinear Memory
    Cost, 2016).
    """

    recompute = False

    def __call__(self, *inputs: Any) -> Any:
        """Run the part."""
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return super().__call__(*inputs)
        return checkpoint(
            super().__call__,
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), self._with_norms_asleep()),
        )

    @contextlib.contextmanager
    def _with_norms_asleep(self) -> Iterator[None]:
        """Keep batch norms from counting the same batch twice."""
        norms: list[Any] = [m for m in self.modules() if getattr(m, "track_running_stats", False)]
        before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, (momentum, count) in zip(norms, before, strict=True):
                norm.momentum = momentum
                norm.num_batches_tracked.copy_(count)


def set_recompute(network: nn.Module, recompute: bool = True) -> None:
    """Let every such part of a network recompute its activations, or keep them."""
    for module in network.modules():
        if isinstance(module, Recomputable):
            module.recompute = recompute
