"""Shared by the network benchmarks: argument checks, pair, ceilings and report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stereo.benchmark import measure
from stereo.benchmark.ceilings import ceilings_text, measure_ceilings, pick_precisions
from stereo.benchmark.networks import calibrate_batch_norms
from stereo.benchmark.reference import ReferencePSMNet
from stereo.data.synthetic import RenderedPair, SyntheticConfig, SyntheticScenes
from stereo.errors import UsageError, unknown_name
from stereo.matching.loading import own_max_disparity, searches_own_range
from stereo.models.config import check_max_disparity
from stereo.system import console
from stereo.system.machine import machine
from stereo.system.runtime import pick_device


@dataclass(frozen=True, eq=False)
class Bench:
    """The models of a benchmark and their inputs."""

    path: Path  # the JSON file
    models: list[str]  # networks' names
    max_disparity: int  # pixels
    precisions: list[str]  # of `fp32`, `bf16` and `fp16`
    device: torch.device  # where it runs
    repeats: int  # timed calls of each case
    pair: RenderedPair  # the rendered pair
    original: ReferencePSMNet | None  # the authors' PSMNet, if it is there
    ceilings: dict[str, Any]  # what `measure_ceilings` returned

    def publish(
        self,
        name: str,
        rows: list[dict[str, Any]],
        settings: dict[str, Any],
        table: Callable[[dict[str, Any]], str],
        plot: Callable[[Path, dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Write the report as JSON, its table and its plot, if any; print the table.

        Returns:
            The report.
        """
        height, width = self.pair.left.shape[:2]
        common = {"height": height, "width": width, "max_disparity": self.max_disparity}
        report = {
            "benchmark": name,
            "machine": machine(self.device),
            "ceilings": self.ceilings,
            "settings": common | {"repeats": self.repeats} | settings,
            "rows": rows,
        }
        text = f"{table(report)}\n\n{ceilings_text(self.ceilings, self.device)}"
        measure.publish(self.path, report, text, plot)
        return report


def set_up(
    output: str | Path,  # the JSON file
    models: Sequence[str],
    known: Sequence[str],  # the names that can be run
    size: tuple[int, int],  # height and width of the pair, pixels
    max_disparity: int | None,  # pixels; None for the largest of the models' own
    precisions: Sequence[str] | None,  # None for fp32, and bf16 where the hardware computes in it
    device: str,  # as in `ComputeOptions`
    repeats: int,  # timed calls of each case
    reference_psmnet: str | Path | None,  # folder of the original PSMNet
) -> Bench:
    """Check a call's arguments, measure the machine's ceilings and render the pair.

    Raises:
        UsageError: something that is not known or not possible.
        InputError: a reference that cannot be used.
    """
    for name in models:
        if name not in known:
            raise unknown_name("model", name, known)
    if max_disparity is None:
        ours = [name for name in models if not searches_own_range(name)]
        max_disparity = max(own_max_disparity(name) for name in ours or models)
    check_max_disparity(max_disparity)
    if repeats < 1:
        raise UsageError(f"--repeats {repeats}: must be at least 1")
    where = pick_device(device)
    chosen = pick_precisions(precisions, where)
    path = measure.report_path(output)
    scene = SyntheticConfig(height=size[0], width=size[1], max_disparity=max_disparity)
    pair = SyntheticScenes(scene).render(0)
    original = None
    if reference_psmnet is not None:
        original = ReferencePSMNet(reference_psmnet, max_disparity, where)
        calibrate_batch_norms(original, original, pair, where)
    ceilings = measure_ceilings(where, chosen)
    console.say(ceilings_text(ceilings, where))
    names = list(dict.fromkeys(models))
    return Bench(path, names, max_disparity, chosen, where, repeats, pair, original, ceilings)
