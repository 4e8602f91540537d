"""The folder in which an interrupted ``stereo adapt`` keeps what it needs to go on."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stereo.errors import InputError, OutputError, UsageError
from stereo.models.checkpoint import check_weights_name
from stereo.system.files import output_folder, staged
from stereo.system.parsing import parse_json
from stereo.training.adapt_judge import Baseline
from stereo.training.adapt_stages import Effort

NOTES = "adapt.json"
_HIDDEN = ".stereo"  # locks and temporary files start so


@dataclass(frozen=True)
class RunFolder:
    """The folder ``OUTPUT.run``; other files in it are left alone."""

    path: Path

    @property
    def labels(self) -> Path:
        """The folder of pseudo-labels."""
        return self.path / "labels"

    @property
    def training(self) -> Path:
        """The folder of the training run."""
        return self.path / "training"

    @property
    def statistics(self) -> Path:
        """The weights with batch-norm statistics of the pairs."""
        return self.path / "statistics.safetensors"

    @property
    def trained(self) -> Path:
        """The trained weights."""
        return self.path / "trained.safetensors"

    def open(self) -> None:
        """Create and lock it, under ``writes_alone``.

        Raises:
            OutputError: it holds other files but no run of adapt, cannot be written, or is in use.
        """
        if self.path.is_dir() and not self._notes.is_file():
            others = [each.name for each in self.path.iterdir()]
            others = [name for name in others if not name.startswith(_HIDDEN)]
            if others:
                raise OutputError(
                    f"{self.path}: adapt keeps its files there, but it holds others "
                    f"({others[0]}); rename it, or name another --output"
                )
        output_folder(self.path, alone=True)

    def read(self, facts: Mapping[str, Any]) -> tuple[Baseline, Effort] | None:
        """Return what an interrupted call noted; None if there is nothing.

        Raises:
            InputError: notes of other pairs, weights or options, or that cannot be read.
        """
        if not self._notes.is_file():
            return None
        noted = parse_json(self._notes.read_bytes(), str(self._notes))
        try:
            before, effort = noted["facts"], Effort(**noted["effort"])
            known = noted["baseline"]
            names = (tuple(known[key]) for key in ("held_out", "judged", "left_out"))
            baseline = Baseline(known["before"], *names)
        except (KeyError, TypeError):
            raise InputError(
                f"{self._notes}: is no record of this version's adapt; remove {self.path}, or name "
                "another --output"
            ) from None
        apart = _difference(before, json.loads(json.dumps(facts)))
        if apart:
            raise InputError(
                f"{self.path}: holds an interrupted run with {apart}; repeat its command, remove "
                "the folder, or name another --output"
            )
        return baseline, effort

    def write(self, facts: Mapping[str, Any], baseline: Baseline, effort: Effort) -> None:
        """Note what a repeated call needs."""
        note = {
            "facts": facts,
            "baseline": dataclasses.asdict(baseline),
            "effort": dataclasses.asdict(effort),
        }
        with staged(self._notes) as (temporary,):
            temporary.write_text(json.dumps(note, indent=1), encoding="utf-8")

    def steps(self, planned: int) -> int:
        """Return the number of training steps, the same when a call is repeated."""
        if not self._steps.is_file():
            with staged(self._steps) as (temporary,):
                temporary.write_text(str(planned), encoding="utf-8")
        try:
            return int(self._steps.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{self._steps}: damaged; remove {self.path} to begin anew") from error

    def has_steps(self) -> bool:
        """Return whether an interrupted call has planned its training."""
        return self._steps.is_file()

    def remove(self) -> None:
        """Remove all that adapt has written, the notes last."""
        for folder in (self.labels, self.training):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.statistics, self.trained, self._steps, self._notes):
            path.unlink(missing_ok=True)

    def remove_if_empty(self) -> None:
        """Remove the folder unless it holds files of others."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    @property
    def _notes(self) -> Path:
        return self.path / NOTES

    @property
    def _steps(self) -> Path:
        return self.path / "steps"


def check_output(output: str, start: Path) -> Path:
    """Return the path of the file to write, once it is clear that it can be written.

    Raises:
        UsageError: another suffix, a folder, or the file of the initial weights.
        OutputError: its folder cannot be written.
    """
    target = Path(output)
    check_weights_name(target)
    if target.exists():
        if not target.is_file():
            raise UsageError(f"--output {output}: is not a regular file; name another")
        if target.samefile(start):
            raise UsageError(
                f"--output {output}: is the file of the initial weights, which adapt keeps; name "
                "another"
            )
    output_folder(target.parent)
    return target


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Name the first fact that has changed."""
    for name in now:
        if before.get(name) != now[name]:
            known = {
                "seed": f"--seed {before.get('seed')}",
                "max_time": f"--max-time {before.get('max_time')}",
                "weights": "other initial weights",
            }
            return known.get(name, "other pairs, or images that have changed since")
    return None
