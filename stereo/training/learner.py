"""Network, optimiser and moving average of a run."""

import contextlib
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor, nn

from stereo.attention import VolumeAttention
from stereo.errors import UsageError, unknown_name
from stereo.models import StereoNetwork
from stereo.models.kernels import pick_kernels, use_kernels
from stereo.models.recompute import set_recompute
from stereo.system import console
from stereo.system.distributed import check_joined, process_count
from stereo.system.runtime import pick_device, pick_dtype, to_channels_last
from stereo.training.config import OptimizerConfig
from stereo.training.run import TrainingRun
from stereo.training.schedule import learning_rate


class Learner:
    """The state that training steps change, on this process's device.

    Attributes:
        accelerator: processes and precision.
        device: where this process computes.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        model: the network as accelerate wraps it for several processes.
        network: the network itself.
        optimizer: AdamW.
        average: the moving average of the network.
        step: steps done.
        epe: of the latest validation, px; None where no pixel counted, or before the first one.
        epe_step: the step of that validation.
        not_taken: steps in a row that fp16's gradient scaler has left out.
    """

    def __init__(self, run: TrainingRun) -> None:
        trainer = run.trainer
        # An earlier run of this process may have had another precision or device.
        AcceleratorState._reset_state(reset_partial_state=process_count() == 1)
        device = pick_device(trainer.device)
        if device.type == "cuda" and ":" in trainer.device:
            if process_count() > 1:
                raise UsageError(
                    f"trainer.device '{trainer.device}' is one GPU for {process_count()} "
                    "processes; use cuda, which gives each its own"
                )
            torch.cuda.set_device(device)  # which accelerate then uses
        self.accelerator = Accelerator(
            mixed_precision=_mixed_precision(run), cpu=device.type == "cpu"
        )
        check_joined(self.accelerator.num_processes)
        self.device = self.accelerator.device
        if trainer.threads is not None:
            torch.set_num_threads(trainer.threads)
        set_seed(run.seed, device_specific=True)

        network = run.network
        to_channels_last(network)
        set_recompute(network, trainer.recompute)
        kernels = pick_kernels(trainer.kernels, self.device)
        use_kernels(network, kernels)
        self.precision = self.accelerator.mixed_precision.replace("no", "fp32")
        console.say(f"device {self.device.type}, precision {self.precision}, kernels {kernels}")
        for part in trainer.freeze:
            _part(network, part).requires_grad_(False)
        if not any(weight.requires_grad for weight in network.parameters()):
            raise UsageError("trainer.freeze names every part of the network: leave one out")
        if self.accelerator.num_processes > 1 and self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=run.optimizer.learning_rate,
            betas=run.optimizer.betas,
            weight_decay=run.optimizer.weight_decay,
        )
        self.model, self.optimizer = self.accelerator.prepare(network, optimizer)
        self.network: StereoNetwork = self.accelerator.unwrap_model(self.model)
        self.average = MovingAverage(self.network, trainer.ema_decay)
        self.step = 0
        self.epe: float | None = None
        self.epe_step: int | None = None
        self.not_taken = 0
        self._optimizer_config, self._trainer = run.optimizer, trainer

    @property
    def rate(self) -> float:
        """The learning rate of the current step."""
        return learning_rate(self.step, self._trainer.max_steps, self._optimizer_config)

    def configure_optimizer(self, config: OptimizerConfig) -> None:
        """Apply settings that loading an optimiser's state replaces."""
        for group in self.optimizer.param_groups:
            group.update(betas=config.betas, weight_decay=config.weight_decay)

    def begin_step(self) -> None:
        """Set the learning rate and the modes of the network for the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.model.train()
        for part in self._trainer.freeze:
            _part(self.network, part).eval()
        for module in self.network.modules():
            if isinstance(module, VolumeAttention) and module.training:
                module.begin_step(self.step)
            if self._trainer.freeze_batch_norm and isinstance(
                module, nn.modules.batchnorm._BatchNorm
            ):
                module.eval()

    def accumulating(self, last: bool) -> Any:
        """Synchronise gradients only in the last backward pass of a step."""
        return contextlib.nullcontext() if last else self.accelerator.no_sync(self.model)

    def end_step(self) -> None:
        """Take the optimiser step."""
        self.optimizer.step()
        self.not_taken = self.not_taken + 1 if self.optimizer.step_was_skipped else 0
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.network)
        self.step += 1

    def any_process(self, mine: bool) -> bool:
        """Return whether ``mine`` is true on any process, so that all stop at the same step."""
        flag = torch.tensor(float(mine), device=self.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)


def _part(network: nn.Module, name: str) -> nn.Module:
    """Return a part of a network by name."""
    parts = dict(network.named_children())
    if name not in parts:
        raise unknown_name("part of the network in trainer.freeze", name, parts)
    return parts[name]


class MovingAverage:
    """The exponential moving average of a network, or the network itself without a decay."""

    def __init__(self, network: StereoNetwork, decay: float | None) -> None:
        self.decay = decay
        self.network = network
        if decay is not None:
            self._averaged = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=self._mix)
            self.network = self._averaged.module  # type: ignore[assignment]

    @torch.no_grad()
    def update(self, network: StereoNetwork) -> None:
        """Move towards the network's parameters; running statistics are copied."""
        if self.decay is not None:
            self._averaged.update_parameters(network)

    def _mix(self, mine: Any, theirs: Any, count: Tensor | int) -> None:
        assert self.decay is not None
        decay = min(self.decay, (1 + int(count)) / (10 + int(count)))  # forgets the first weights
        torch._foreach_lerp_(mine, theirs, 1 - decay)

    def load(self, weights: dict[str, Tensor], step: int) -> None:
        """Restore the average of an earlier run at ``step``."""
        if self.decay is not None:
            self.network.load_state_dict(weights)
            self._averaged.n_averaged.fill_(step)

    def weights(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name."""
        return dict(self.network.state_dict())


def _mixed_precision(run: TrainingRun) -> Literal["no", "bf16", "fp16"]:
    """Return accelerate's name of the run's precision."""
    serves = run.network_config.bf16_by_default
    dtype = pick_dtype(
        run.trainer.precision, pick_device(run.trainer.device), bf16_by_default=serves
    )
    if dtype is torch.float32:
        return "no"
    return "bf16" if dtype is torch.bfloat16 else "fp16"
