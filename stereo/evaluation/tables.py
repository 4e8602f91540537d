"""Metrics as lines and tables of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from stereo.evaluation.metrics import ALL, NOC, ImageScore, figures
from stereo.evaluation.sparsification import WITHIN
from stereo.system.console import table


def protocol_line(facts: Mapping[str, Any]) -> str:
    """Return a protocol in one line, from its entry in ``metrics.json``."""
    parts = [
        f"mask {facts['mask']}",
        f"averaging: {facts['averaging']}",
        f"images: {facts.get('images', 'all')}",
    ]
    if facts.get("region", "all") != "all":
        parts.append(f"region: {facts['region']}")
    parts += [f"split {facts['split']}"] if facts.get("split") else []
    parts += [f"{facts['pass']} pass"] if facts.get("pass") else []
    return f"protocol {facts['name']}: " + "; ".join(parts)


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


def confidence_lines(found: dict[str, Any]) -> str:
    """Return what ``stereo.evaluation.sparsification.summarize_confidence`` returned as text."""
    lines = [
        f"AUSE of {name} ({unit}, mean over images): "
        + ", ".join(f"{measure} {value:.3f}" for measure, value in found[key].items())
        for key, name, unit in (("ause_epe", "EPE", "px"), ("ause_bad_3", "bad-3", "%"))
    ]
    return "\n".join([*lines, reliability_table(found["reliability"])])


def reliability_table(bins: Sequence[dict[str, float]]) -> str:
    """Return what ``stereo.evaluation.sparsification.reliability`` returned as a table."""
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


def summary_table(rows: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Return the averages of several models or groups of images as a table.

    Each has a row over all pixels and one over the non-occluded ones, ``noc``. The columns without
    a suffix are the protocol's own averages.
    """
    keys = ["epe", "bad_1", "bad_2", "bad_3", "d1", "epe_pixel"]
    keys += [f"{metric}_image" for metric in ("epe", "bad_1", "bad_2", "bad_3")]
    header = ["", "pixels", "images", "EPE", "bad-1", "bad-2", "bad-3", "D1", "EPE pixel"]
    header += ["EPE image", "bad-1 image", "bad-2 image", "bad-3 image"]
    body = []
    for label, found in rows:
        regions = {ALL: found.get(ALL, found["summary"]), NOC: found.get(NOC)}
        for region, part in regions.items():
            if part is not None:
                figures_of = (part.get(key, "none") for key in keys)
                body.append([label, region, part["images"], *figures_of])
    return table(header, body)
