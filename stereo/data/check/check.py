"""``stereo data check``: find the pairs, validate each in a worker process, write a report."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from stereo.data.check.pair import Finding, Job, validate_pair
from stereo.data.check.report import Report, Section, report_text
from stereo.data.sets.datasets import (
    READERS,
    detect_dataset,
    find_parts,
    get_description,
    open_dataset,
)
from stereo.errors import InputError, UsageError
from stereo.system import console
from stereo.system.bundled import DEFAULT_MAX_DISPARITY
from stereo.system.files import output_folder, staged
from stereo.system.workers import map_in_processes


def check_dataset(
    root: str | Path,
    *,
    dataset: str | None = None,
    output: str | Path | None = None,
    split: str | None = None,
    render_pass: str | None = None,
    layout: str | None = None,
    unused: str | Path | None = None,
    partial: bool = False,
    workers: int | None = None,
    max_disparity: int = DEFAULT_MAX_DISPARITY,
    min_disparity: int = 0,
) -> dict[str, Any]:
    """Check every file of a data set, print a report and write it as text and JSON.

    The report does not depend on the number of workers.

    Args:
        root: the data set's folder.
        dataset: its name (default: detected from the folder).
        output: folder for data_check.json and data_check.txt.
        split: one of its splits, such as train or test (default: all that are there).
        render_pass: clean or final, for rendered data (default: all that are there).
        layout: the data set's tree by name (default: detected).
        unused: Scene Flow's all_unused_files.txt; its frames are left out.
        partial: fewer pairs than published are a remark, not a fault.
        workers: processes (default: one per processor, to 8).
        max_disparity: length of the range of disparities; the share beyond it is reported.
        min_disparity: its start, pixels; smaller disparities are a fault.

    Returns:
        What was written to ``data_check.json``; ``ok`` is false when something is wrong.

    Raises:
        UsageError: an unknown name or an impossible number.
        InputError: no sign of the data set.
        OutputError: the output cannot be written.
    """
    if max_disparity < 1:
        raise UsageError(f"--max-disparity {max_disparity}: expected at least 1")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: expected at least 1")
    root = Path(root)
    folder = output_folder(Path(output)) if output is not None else None
    name = dataset or detect_dataset(root)
    if dataset is None:
        console.say(f"{root}: looks like '{name}'")
    choices = {"layout": layout, "unused": unused}
    report = Report(name, root, max_disparity, min_disparity, partial)
    for chosen_split, chosen_pass in _choices(name, split, render_pass):
        asked_for = split is not None or render_pass is not None
        report.add(*_sections(name, root, chosen_split, chosen_pass, asked_for, choices))
    if not report.sections:
        # Nothing anywhere: the same words as when the data set is opened.
        open_dataset(name, root, split=split, render_pass=render_pass, layout=layout, unused=unused)
        raise InputError(f"{root}: no images of '{name}'")
    _validate_sections(report, workers or min(8, os.cpu_count() or 1))
    facts = report.facts()
    text = report_text(facts)
    console.say(text)
    if folder is not None:
        _write(folder, facts, text)
    return facts


def _write(folder: Path, facts: dict[str, Any], text: str) -> None:
    with staged(folder / "data_check.json", folder / "data_check.txt") as (as_json, as_text):
        as_json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        as_text.write_text(text + "\n", encoding="utf-8")


def _validate_sections(report: Report, workers: int) -> None:
    """Validate every pair and add the findings to its section."""
    jobs = [(section, *job) for section in report.sections for job in _jobs(section, report)]
    findings = _validate_all([job for _, _, job in jobs], workers)
    for (section, name, _), finding in zip(jobs, findings, strict=True):
        section.include(name, finding)


def _choices(
    name: str, split: str | None, render_pass: str | None
) -> list[tuple[str | None, str | None]]:
    """Return the splits and passes to check; no pair twice."""
    description = get_description(name)
    if name in READERS:
        return [(split, render_pass)]
    splits: tuple[str, ...] = description.splits
    if "all" in splits:  # the other splits with ground truth are parts of it
        splits = tuple(each for each in splits if each in ("all", "test"))
    passes = description.passes or (render_pass,)
    return [
        (each_split, each_pass)
        for each_split in ((split,) if split else splits)
        for each_pass in ((render_pass,) if render_pass else passes)
    ]


def _sections(
    name: str,
    root: Path,
    split: str | None,
    render_pass: str | None,
    asked_for: bool,
    choices: dict[str, Any],
) -> tuple[list[Section], str | None]:
    """Return the sections of one split and pass, and a note if there are none."""
    if name in READERS:
        open_dataset(name, root, split=split, render_pass=render_pass, **choices)  # its errors
        return [Section.of_list(name, READERS[name](root))], None
    found = find_parts(name, root, split, render_pass, **choices)
    there = [listing for listing in found.listings if asked_for or listing.frames]
    if not there:
        chosen = f"split {split}" + (f", {render_pass} pass" if render_pass else "")
        return [], f"{chosen}: not there"
    sections = [Section.of_listing(each, found.split, found.render_pass) for each in there]
    lost = [each.part for each in found.listings if each not in there] + found.absent
    sections += [
        Section.of_absent(part, found.split, found.render_pass)
        for part in lost
        if not part.optional
    ]
    return sections, None


def _jobs(section: Section, report: Report) -> Iterator[tuple[str, Job]]:
    """Yield the work of a section; of files that two pairs share, faults of content count once."""
    for files in section.whole_pairs():
        masks = (path for path, _ in files.nonoccluded)
        own = {path for path in (files.disparity, files.disparity_right, *masks) if path}
        seen = frozenset(own & report.seen)
        report.seen |= own
        yield files.name, Job(files, report.max_disparity, report.min_disparity, seen)


def _validate_all(jobs: list[Job], workers: int) -> Iterator[Finding]:
    """Yield the findings in the order of the jobs, under a progress bar."""
    alone = min(workers, len(jobs)) < 2
    found = (validate_pair(job) for job in jobs)
    with closing(found if alone else map_in_processes(validate_pair, jobs, workers)) as results:
        for _ in _with_progress(jobs):
            yield next(results)


def _with_progress(jobs: list[Job]) -> Iterator[Job]:
    """Yield the jobs under a bar on a terminal; elsewhere print a line per tenth of long work."""
    step = max(100, len(jobs) // 10)
    for done, job in enumerate(console.progress(jobs, "check")):
        if done and done % step == 0 and not console.on_terminal():
            console.say(f"{done} of {len(jobs)} pairs checked")
        yield job
