"""What the commands print: progress, tables and warnings."""

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

from stereo.distributed import is_main
from stereo.metrics import ALL, NOC, ImageScore, figures
from stereo.protocols import Protocol
from stereo.risk import WITHIN
from stereo.stop import check_stop

T = TypeVar("T")


def progress(items: Iterable[T], label: str, count: int | None = None) -> Iterator[T]:
    """Yield the items under a progress bar on a terminal; elsewhere callers' lines serve."""
    hidden = not (sys.stderr.isatty() and is_main())
    for item in tqdm(items, desc=label, unit="pair", total=count, disable=hidden):
        check_stop()
        yield item


def say(line: str, *, everyone: bool = False) -> None:
    """Print a line without breaking a progress bar.

    Args:
        line: the text.
        everyone: of several processes, each prints its own; else the main one alone prints.
    """
    if sys.stdout is not None and (everyone or is_main()):
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


def complain(line: str) -> None:
    """Print a line on stderr without breaking a progress bar."""
    if sys.stderr is not None:
        tqdm.write(line, file=sys.stderr)


def show_warnings_as_lines() -> None:
    """Print each Python warning as one line, without the place in the code."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        complain(f"warning: {message}")

    warnings.showwarning = show


def protocol_line(
    protocol: Protocol, split: str | None = None, render_pass: str | None = None
) -> str:
    """Say in one line how the figures below it were made."""
    facts = protocol.describe()
    parts = [
        f"mask {facts['mask']}",
        f"averaging: {facts['averaging']}",
        f"images: {facts['images']}",
    ]
    if facts["region"] != "all":
        parts.append(f"region: {facts['region']}")
    parts += [f"split {split}"] if split else []
    parts += [f"{render_pass} pass"] if render_pass else []
    return f"protocol {protocol.name}: " + "; ".join(parts)


def score_line(score: ImageScore) -> str:
    """Return one image's figures as text."""
    seconds = "" if score.seconds is None else f"  {score.seconds:.2f} s"
    if score.skipped:
        return f"{score.name}: skipped, too few valid pixels{seconds}"
    f = figures(score.sums[ALL])
    noc = ""
    if score.has(NOC):
        n = figures(score.sums[NOC])
        noc = f"  noc EPE {n['epe']:.3f} px  bad-2 {n['bad_2']:.2f} %"
    return (
        f"{score.name}: EPE {f['epe']:.3f} px  bad-1 {f['bad_1']:.2f} %  bad-2 {f['bad_2']:.2f} %  "
        f"bad-3 {f['bad_3']:.2f} %  D1 {f['d1']:.2f} %{noc}{seconds}"
    )


def trust_lines(trust: dict[str, Any]) -> str:
    """Return what ``stereo.risk.summarise_trust`` returned as text."""
    lines = [
        f"AUSE of {name} ({unit}, mean over images): "
        + ", ".join(f"{measure} {value:.3f}" for measure, value in trust[key].items())
        for key, name, unit in (("ause_epe", "EPE", "px"), ("ause_bad_3", "bad-3", "%"))
    ]
    return "\n".join([*lines, reliability_table(trust["reliability"])])


def reliability_table(bins: Sequence[dict[str, float]]) -> str:
    """Return what ``stereo.risk.reliability`` returned as a table."""
    body = [
        [
            f"{each['low']:.1f} to {each['high']:.1f}",
            f"{100 * each['confidence']:.1f} %",
            f"{100 * each['within_3_px']:.1f} %",
            f"{each['pixels']:,}",
        ]
        for each in bins
    ]
    return table(["confidence", "mean", f"within {WITHIN:g} px", "pixels"], body)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an aligned Markdown table; numbers get two decimals and stand on the right."""
    text = [[f"{c:.2f}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    widths = [max(len(str(r[i])) for r in [header, *text]) for i in range(len(header))]
    numeric = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            c.rjust(w) if right else c.ljust(w)
            for c, w, right in zip(cells, widths, numeric, strict=True)
        )
        return "| " + " | ".join(aligned) + " |"

    rule = [
        "-" * (w - 1) + (":" if right else "-") for w, right in zip(widths, numeric, strict=True)
    ]
    return "\n".join([line(header), line(rule), *(line(row) for row in text)])


def summary_table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Return the averages of several models or groups of images as a table.

    Each has a row over all pixels and one over the non-occluded ones, ``noc``. The columns without
    a suffix are the protocol's own averages.

    Args:
        rows: (label, what ``stereo.metrics.summaries`` returned).
    """
    keys = ("epe", "bad_1", "bad_2", "bad_3", "d1", "epe_pixel", "epe_image", "bad_2_image")
    header = ["", "pixels", "images", "EPE", "bad-1", "bad-2", "bad-3", "D1"]
    header += ["EPE pixel", "EPE image", "bad-2 image"]
    body = []
    for label, found in rows:
        regions = {ALL: found.get(ALL, found["summary"]), NOC: found.get(NOC)}
        for region, part in regions.items():
            if part is not None:
                figures_of = (part.get(key, "none") for key in keys)
                body.append([label, region, part["images"], *figures_of])
    return table(header, body)
