"""A training step: time, memory, and the largest batch."""

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stereo.benchmark import measure
from stereo.benchmark.bench import Bench, set_up
from stereo.benchmark.ceilings import SHARE_HEADER, add_share, share_columns
from stereo.benchmark.networks import plain_form, trained_like
from stereo.benchmark.reference import ReferencePSMNet
from stereo.errors import StereoError, UsageError
from stereo.models import NETWORK_NAMES
from stereo.models.kernels import pick_kernels, use_kernels
from stereo.models.recompute import set_recompute
from stereo.system import console
from stereo.system.runtime import exact_fp32, pick_dtype, to_channels_last

MODELS = ("psmnet", "ea_psmnet", "ea_stereo_fast", "ea_stereo")
FORMS = ORIGINAL, PLAIN, OURS, RECOMPUTE = ("original", "plain", "ours", "recompute")
BATCHES = (2, 3)  # not 1: norms of pooled maps of one cell need two pairs
BUDGETS_GB = (12, 24, 80)
TOLERANCES = {"loss": 1e-3, "gradient norm": 1e-2}  # relative; batch norm magnifies rounding


@dataclass
class TrainingCase:
    """One line of the benchmark: a network in training mode and its optimiser."""

    model: str  # a network's name
    # `original` (the authors' code), `plain` (every volume whole), `ours`, or `recompute`: ours,
    # its activations computed again in the backward pass
    form: str
    precision: str  # `fp32`, `bf16` or `fp16`
    network: nn.Module  # gives (B, H, W) maps, or what holds them
    optimizer: torch.optim.Optimizer  # Adam

    @property
    def label(self) -> str:
        """Name, form and precision in words."""
        return f"{self.model} {self.form} {self.precision}"


def benchmark_training(
    output: str | Path,
    *,
    models: Sequence[str] | None = None,
    crop: tuple[int, int] = (256, 512),
    max_disparity: int | None = None,
    precisions: Sequence[str] | None = None,
    device: str = "auto",
    repeats: int = 3,
    reference_psmnet: str | Path | None = None,
) -> dict[str, Any]:
    """Time steps on crops of a rendered pair; write ``OUTPUT`` (JSON) and a table beside it.

    A step, on two pairs, is forward, smooth L1 on every output, backward, and Adam. In fp32 the
    loss of each form's first step must be that of the first form within one part in a thousand, its
    gradient norm within one in a hundred, else nothing is timed; losses in bf16 and fp16 never stop
    it. Memory is measured with batches of two and three; from these follow the memory of a further
    pair and the batches that fit in 12, 24 and 80 GB, which are computed, not tried. The ceilings
    of the machine are measured before anything else; a step's share of them counts what it
    multiplies forward and backward, with what ``recompute`` does twice.

    Args:
        output: the JSON file; table (.md) beside it.
        models: networks (default: all kinds).
        crop: height and width, pixels, multiples of 16.
        max_disparity: pixels, a multiple of 16 (default: the largest of the models' own).
        precisions: of fp32, bf16 and fp16 (default: fp32, and bf16 where it is not emulated).
        device: as in ``ComputeOptions``.
        repeats: timed rounds.
        reference_psmnet: folder of the original PSMNet, to be timed beside ours.

    Returns:
        What was written to the JSON file.

    Raises:
        UsageError: an unknown model, precision or device, or a crop that no network takes.
        InputError: a reference that cannot be used.
        StereoError: a loss that is not that of the first form.
    """
    if crop[0] % 16 or crop[1] % 16:
        raise UsageError(f"--crop {crop[0]}x{crop[1]}: both must be multiples of 16")
    bench = set_up(
        *(output, models or MODELS, NETWORK_NAMES, crop, max_disparity),
        *(precisions, device, repeats, reference_psmnet),
    )
    where = bench.device
    views = [
        (torch.from_numpy(view).to(where).permute(2, 0, 1)[None].float() / 128 - 1)
        for view in (bench.pair.left, bench.pair.right)
    ]
    truth = torch.from_numpy(bench.pair.disparity).to(where)[None]

    def step_of(
        case: TrainingCase, batch: int, step: Callable[..., Any] = _step
    ) -> Callable[[], Any]:
        left, right = (view.expand(batch, -1, -1, -1).contiguous() for view in views)
        target = truth.expand(batch, -1, -1)
        return lambda: step(case, left, right, target)

    cases = _cases(bench)
    _compare([(case, step_of(case, BATCHES[0], _loss_and_norm)) for case in cases])
    counts = [measure.count_macs(step_of(case, BATCHES[0]))[1] for case in cases]
    rows = []
    for case in cases:
        facts = {"model": case.model, "form": case.form, "precision": case.precision}
        peaks = [measure.peak_bytes(step_of(case, batch), where) for batch in BATCHES]
        rows.append(facts | _memory(case, peaks))
        console.say(f"{case.label}: {_megabytes(rows[-1]['bytes_of_a_pair'])} MiB a pair")
    timers = {
        c.label: functools.partial(_seconds, c.form, step_of(c, BATCHES[0]), where) for c in cases
    }
    first: dict[str, float] = {}
    for row, own, macs in zip(rows, measure.in_turns(timers, repeats), counts, strict=True):
        row["seconds"] = own
        row["times_as_fast"] = first.setdefault(row["model"], own["median"]) / own["median"]
        add_share(row, macs, bench.ceilings)
    limits = " and ".join(f"{name} within {limit}" for name, limit in TOLERANCES.items())
    gate = f"{limits} of the first form's in fp32, relative"
    settings = {"batch": BATCHES[0], "equality_gate": gate}
    return bench.publish("training", rows, settings, _table)


def _cases(bench: Bench) -> list[TrainingCase]:
    """Return the cases, the reference of each model first."""
    cases = []
    for name in bench.models:
        network, _, _ = trained_like(
            name, bench.max_disparity, bench.original, bench.pair, bench.device
        )
        for form in FORMS:
            module = _in_form(form, name, network, bench.original, bench.device)
            if module is not None:
                cases += [_case(name, form, p, module) for p in bench.precisions]
    return cases


def _in_form(
    form: str, name: str, network: nn.Module, original: ReferencePSMNet | None, device: torch.device
) -> nn.Module | None:
    if form == ORIGINAL:
        return original if name == "psmnet" else None
    if form == PLAIN:
        return plain_form(network)  # type: ignore[arg-type]
    ours = copy.deepcopy(network)
    to_channels_last(ours)
    set_recompute(ours, form == RECOMPUTE)
    use_kernels(ours, pick_kernels("auto", device))
    return ours


def _case(name: str, form: str, precision: str, module: nn.Module) -> TrainingCase:
    module = copy.deepcopy(module).train()
    return TrainingCase(
        name, form, precision, module, torch.optim.Adam(module.parameters(), lr=1e-6)
    )


def _backward(case: TrainingCase, left: Tensor, right: Tensor, truth: Tensor) -> float:
    dtype = pick_dtype(case.precision, left.device)
    with exact_fp32(enabled=dtype is torch.float32):
        with torch.autocast(left.device.type, dtype, enabled=dtype is not torch.float32):
            outputs = case.network(left, right)
        maps = getattr(outputs, "disparities", outputs)
        losses = [F.smooth_l1_loss(each.float(), truth.expand_as(each)) for each in maps]
        loss = torch.stack(losses).sum()
        loss.backward()
    return float(loss.detach())


def _step(case: TrainingCase, left: Tensor, right: Tensor, truth: Tensor) -> None:
    _backward(case, left, right, truth)
    case.optimizer.step()
    case.optimizer.zero_grad(set_to_none=True)


def _loss_and_norm(
    case: TrainingCase, left: Tensor, right: Tensor, truth: Tensor
) -> tuple[float, float]:
    loss = _backward(case, left, right, truth)
    norm = nn.utils.get_total_norm(
        [p.grad for p in case.network.parameters() if p.grad is not None]
    )
    case.optimizer.zero_grad(set_to_none=True)
    return loss, float(norm)


def _seconds(form: str, step: Callable[[], Any], device: torch.device) -> float:
    """Time a step; freed memory is kept for the forms that ``stereo train`` runs, as it does."""
    with measure.freed_memory_kept(step, large=True, enabled=form in (OURS, RECOMPUTE)):
        return measure.elapsed(step, device)


def _compare(calls: Sequence[tuple[TrainingCase, Callable[[], tuple[float, float]]]]) -> None:
    """Raise ``StereoError`` unless losses and gradient norms of the first step agree.

    The calls are those that are timed, not counted ones: counting runs other convolutions.
    """
    first: dict[str, tuple[float, float]] = {}
    for case, call in calls:
        found = call()
        console.say(f"{case.label}: loss {found[0]:.6g}, gradient norm {found[1]:.6g}")
        expected_of_both = first.setdefault(case.model, found)
        for (what, limit), own, expected in zip(
            TOLERANCES.items(), found, expected_of_both, strict=True
        ):
            if case.precision == "fp32" and not abs(own - expected) <= limit * abs(expected):
                raise StereoError(
                    f"{case.label} has a {what} of {own:.6g}, the first form one of "
                    f"{expected:.6g}; nothing was timed"
                )


def _memory(case: TrainingCase, peaks: Sequence[int | None]) -> dict[str, Any]:
    """Return the memory of a step, and the batch sizes that fit in common GPUs."""
    tensors = [*case.network.parameters(), *case.network.buffers()]
    states = [t for state in case.optimizer.state.values() for t in state.values()]
    fixed = sum(t.numel() * t.element_size() for t in [*tensors, *states])
    less, more = peaks
    if less is None or more is None:
        return {"fixed_bytes": fixed, "peak_bytes": None, "bytes_of_a_pair": None, "fits": None}
    of_a_pair = max((more - less) // (BATCHES[1] - BATCHES[0]), 1)
    fixed += max(less - BATCHES[0] * of_a_pair, 0)
    fits = {f"{gb} GB": max(int((gb * 1e9 - fixed) // of_a_pair), 0) for gb in BUDGETS_GB}
    return {"fixed_bytes": fixed, "peak_bytes": less, "bytes_of_a_pair": of_a_pair, "fits": fits}


def _table(report: dict[str, Any]) -> str:
    header = ["model", "form", "precision", "s a step, median", "s, spread", "times as fast"]
    header += [*SHARE_HEADER, "MiB a pair", *(f"batch in {gb} GB" for gb in BUDGETS_GB)]
    body = []
    for row in report["rows"]:
        seconds, fits = row["seconds"], row["fits"] or {}
        body.append(
            [
                *(row["model"], row["form"], row["precision"]),
                f"{seconds['median']:.3g}",
                f"{seconds['min']:.3g} to {seconds['max']:.3g}",
                f"{row['times_as_fast']:.2f}",
                *share_columns(row),
                _megabytes(row["bytes_of_a_pair"]),
                *(fits.get(f"{gb} GB", "") for gb in BUDGETS_GB),
            ]
        )
    return console.table(header, body)


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:,.0f}"
