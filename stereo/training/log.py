"""Progress of a run: a bar or lines, and TensorBoard."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from stereo.data.io import colors
from stereo.system import console
from stereo.system.machine import machine
from stereo.training.config import TrainerConfig
from stereo.training.learner import Learner

EVENTS = "tensorboard"


class RunLog:
    """Progress and TensorBoard of the main process; silent on the others."""

    def __init__(self, folder: Path, trainer: TrainerConfig, active: bool) -> None:
        self.folder = folder
        self.trainer = trainer
        self.active = active
        self.bar = tqdm(disable=True)
        self.skipped = 0  # draws of damaged pairs
        self._first_step = 0
        self._writer: SummaryWriter | None = None
        self._earlier = set((folder / EVENTS).glob("*"))
        self.restart_watch()

    def start(self, step: int) -> None:
        """Start after so many steps; later entries of an earlier run are hidden."""
        self._first_step = step
        self.bar = tqdm(
            total=self.trainer.max_steps,
            initial=step,
            desc="train",
            unit="step",
            disable=not (self.active and console.on_terminal()),
        )

    def restart_watch(self) -> None:
        """Measure speed from here on."""
        self._watch_started, self._waited, self._watched_steps = time.perf_counter(), 0.0, 0

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time of the block as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def step(self, learner: Learner, *, loss: float, rate: float, norm: float) -> None:
        """Count a step; every ``log_every`` steps write and print its scalars."""
        self._watched_steps += 1
        self.bar.update(1)
        step, trainer = learner.step, self.trainer
        if step % trainer.log_every and step != trainer.max_steps:
            return
        seconds = time.perf_counter() - self._watch_started
        speed = self._watched_steps * trainer.batch_size / seconds
        waiting = 100 * self._waited / seconds
        self.restart_watch()
        if not self.active:
            return
        scalars = {
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm,
            "pairs_per_second": speed,
            "data_waiting_percent": waiting,
        }
        self.scalars(step, scalars, "train")
        epe = ""
        if learner.epe is not None:
            at = "" if learner.epe_step is None else f" at step {learner.epe_step}"
            epe = f"  validation EPE {learner.epe:.3f} px{at}"
        self.bar.set_postfix_str(f"loss {loss:.3f}{epe}")
        if self.bar.disable:
            console.say(
                f"step {step}/{trainer.max_steps}  loss {loss:.3f}  lr {rate:.2e}  "
                f"gradient {norm:.2f}  {speed:.2f} pairs/s  waiting for data {waiting:.1f} %{epe}"
            )

    def validation(
        self, step: int, summary: dict[str, Any], examples: Sequence[dict[str, Any]]
    ) -> None:
        """Write and print validation metrics, and show some pairs' maps and errors.

        Args:
            step: steps done.
            summary: what ``stereo.evaluation.metrics.summarize`` returned.
            examples: ``name``, and the arrays ``left``, ``disparity``, ``truth`` and ``valid``, of
                pairs to show.
        """
        if not self.active:
            return
        names = ("epe_image", "bad_1_image", "bad_2_image", "bad_3_image", "d1_image")
        figures = {name: summary[name] for name in names if name in summary}
        self.scalars(step, figures, "validation")
        console.say(
            f"validation at step {step}: "
            + "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
            + f"  images {summary['images']}, skipped {summary['skipped']}"
        )
        for number, example in enumerate(examples):
            truth = np.where(example["valid"], example["truth"], np.nan)
            limit = colors.disparity_limit(truth)
            picture = colors.stack(
                example["left"],
                colors.disparity_picture(example["disparity"], limit),
                colors.disparity_picture(truth, limit),
                colors.error_picture(example["disparity"], truth, example["valid"]),
            )
            tag = f"validation/{number}: left, map, truth, error"
            self.writer.add_image(tag, picture, step, dataformats="HWC")

    def finish(self, step: int, best_epe: float | None) -> None:
        """Print how the run ended; every process must call it."""
        skipped = sum(gather_object([self.skipped]))
        if not self.active:
            return
        if skipped:
            times = f"{skipped} times" if skipped > 1 else "once"
            console.say(
                f"damaged pairs were drawn {times} and skipped; 'stereo data check' names them"
            )
        best = "" if best_epe is None else f"; best validation EPE {best_epe:.3f} px"
        console.say(
            f"stopped at step {step} of {self.trainer.max_steps}{best}; saved in {self.folder}"
        )

    @property
    def writer(self) -> SummaryWriter:
        """TensorBoard's writer; its file appears with the first entry."""
        if self._writer is None:
            purge = {"purge_step": self._first_step + 1} if self._first_step else {}
            self._writer = SummaryWriter(self.folder / EVENTS, **purge)
        return self._writer

    def scalars(self, step: int, facts: dict[str, float], group: str) -> None:
        """Write scalars to TensorBoard."""
        if self.active:
            for name, value in facts.items():
                self.writer.add_scalar(f"{group}/{name}", value, step)

    def note(self, facts: dict[str, Any], plan: str, device: torch.device) -> None:
        """Write recipe, plan and machine to TensorBoard."""
        if self.active:
            text = json.dumps(facts | {"machine": machine(device)}, indent=2)
            self.writer.add_text("run", f"{plan}\n\n```json\n{text}\n```", self._first_step)

    def close(self) -> None:
        """Close the bar and flush TensorBoard; idempotent."""
        self.bar.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def drop_failed_start(self) -> None:
        """Remove this run's TensorBoard files if the folder holds no others."""
        self.close()
        if not self.active or not self.folder.is_dir():
            return
        others = {path.name for path in self.folder.iterdir() if not path.name.startswith(".")}
        events = self.folder / EVENTS
        if others == {EVENTS} and not self._earlier:
            shutil.rmtree(events, ignore_errors=True)
