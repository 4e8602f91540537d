"""What a run says while it goes: a progress bar or lines, TensorBoard, pictures, a report."""

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from stereo.data.io import colors
from stereo.errors import StereoError
from stereo.evaluation.report.training import (
    EVENTS,
    write_training_report,
    write_validation_pictures,
)
from stereo.system import console


class RunLog:
    """Progress and TensorBoard of the main process; silent on the others.

    Args:
        folder: the run's folder.
        max_steps: steps in all.
        active: false on processes other than the first.
    """

    def __init__(self, folder: Path, max_steps: int, active: bool) -> None:
        self.folder = folder
        self.max_steps = max_steps
        self.active = active
        self.bar = tqdm(disable=True)
        self.epe: float | None = None
        self.epe_step: int | None = None
        self._first_step = 0
        self._writer: SummaryWriter | None = None
        self._earlier: set[Path] = set()

    def start(self, step: int) -> None:
        """Begin after so many steps; what an earlier run wrote of later ones is hidden."""
        self._first_step = step
        self._earlier = set((self.folder / EVENTS).glob("*"))
        self.bar = tqdm(
            total=self.max_steps,
            initial=step,
            desc="train",
            unit="step",
            disable=not (self.active and sys.stderr.isatty()),
        )

    def step(self, step: int, facts: dict[str, float], *, speak: bool) -> None:
        """Count a step; every so often write its scalars and say them in one line.

        Args:
            step: steps done, this one included.
            facts: names to values: loss, learning rate, gradient norm, throughput and so on.
            speak: whether this step is one of those that are logged.
        """
        self.bar.update(1)
        if not (self.active and speak):
            return
        self.scalars(step, facts, "train")
        epe = ""
        if self.epe is not None:
            at = "" if self.epe_step is None else f" at step {self.epe_step}"
            epe = f"  validation EPE {self.epe:.3f} px{at}"
        self.bar.set_postfix_str(f"loss {facts['loss']:.3f}{epe}")
        if self.bar.disable:
            console.say(
                f"step {step}/{self.max_steps}  loss {facts['loss']:.3f}  "
                f"lr {facts['learning_rate']:.2e}  gradient {facts['gradient_norm']:.2f}  "
                f"{facts['pairs_per_second']:.2f} pairs/s  "
                f"waiting for data {facts['data_waiting_percent']:.1f} %{epe}"
            )

    def validation(
        self, step: int, summary: dict[str, Any], examples: Sequence[dict[str, Any]]
    ) -> None:
        """Write validation figures, say them, and show some pairs' maps and errors.

        Args:
            step: steps done.
            summary: what ``stereo.evaluation.metrics.summarise`` returned.
            examples: ``name``, and the arrays ``left``, ``disparity``, ``truth`` and ``valid``, of
                pairs to show; TensorBoard shows the last one.
        """
        if not self.active:
            return
        self.epe, self.epe_step = summary.get("epe_image"), step
        names = ("epe_image", "bad_1_image", "bad_2_image", "bad_3_image", "d1_image")
        figures = {name: summary[name] for name in names if name in summary}
        self.scalars(step, figures, "validation")
        console.say(
            f"validation at step {step}: "
            + "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
            + f"  images {summary['images']}, skipped {summary['skipped']}"
        )
        if not examples:
            return
        try:
            write_validation_pictures(self.folder, step, examples)
        except StereoError as error:  # the run matters more
            console.warn(f"warning: {error}; the report goes without these pictures")
        example = examples[-1]
        truth = np.where(example["valid"], example["truth"], np.nan)
        limit = colors.disparity_limit(truth)
        picture = colors.stack(
            example["left"],
            colors.disparity_picture(example["disparity"], limit),
            colors.disparity_picture(truth, limit),
            colors.error_picture(example["disparity"], truth, example["valid"]),
        )
        self.writer.add_image("left, map, truth, error", picture, step, dataformats="HWC")

    @property
    def writer(self) -> SummaryWriter:
        """TensorBoard's writer; its file appears with the first thing that is written."""
        if self._writer is None:
            purge = {"purge_step": self._first_step + 1} if self._first_step else {}
            self._writer = SummaryWriter(self.folder / EVENTS, **purge)
        return self._writer

    def scalars(self, step: int, facts: dict[str, float], group: str) -> None:
        """Write scalars to TensorBoard."""
        if self.active:
            for name, value in facts.items():
                self.writer.add_scalar(f"{group}/{name}", value, step)

    def report(self, facts: dict[str, Any], data: str, device: torch.device) -> None:
        """Write ``report.html``; whatever prevents it is said, and does not end the run.

        Args:
            facts: what the checkpoints say of the run.
            data: what it is trained and validated on, in words.
            device: where it runs.
        """
        if not self.active:
            return
        try:
            if self._writer is not None:
                self._writer.flush()
            write_training_report(self.folder, facts, data, self.max_steps, device)
        except Exception as error:  # a page must never cost a run of days
            console.warn(f"warning: no report.html: {type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the bar and flush TensorBoard; once more does nothing."""
        self.bar.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def drop_failed_start(self) -> None:
        """Remove what this run wrote for TensorBoard, if the folder holds nothing else of it."""
        self.close()
        if not self.active or not self.folder.is_dir():
            return
        others = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        events = self.folder / EVENTS
        if others == {EVENTS} and not self._earlier:
            shutil.rmtree(events, ignore_errors=True)


class Stopwatch:
    """Seconds spent in named parts of the loop since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start from zero."""
        self.parts: dict[str, float] = {}
        self.started = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of the block to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - start

    def total(self) -> float:
        """Return the seconds since the last reset."""
        return time.perf_counter() - self.started
