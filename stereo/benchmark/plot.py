"""Log-log plots of the benchmarks; matplotlib is an extra."""

from pathlib import Path
from typing import Any

from stereo.system.extras import import_extra


def require_matplotlib() -> None:
    """Raise ``StereoError`` before any work if the plot could not be drawn."""
    import_extra("matplotlib", "benchmark", "the plot of a benchmark")


def growth_plot(path: Path, report: dict[str, Any]) -> None:
    """Plot time and memory against the number of cells: of the fp32 forward pass if it was run."""
    from matplotlib.figure import Figure

    cases = [(r["direction"], r["precision"]) for r in report["rows"]]
    direction, precision = ("forward", "fp32") if ("forward", "fp32") in cases else cases[0]
    rows = [r for r in report["rows"] if (r["direction"], r["precision"]) == (direction, precision)]
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    panels = figure.subplots(1, 2)
    members = list(dict.fromkeys(row["member"] for row in rows))
    for number, member in enumerate(members):
        run = [r for r in rows if r["member"] == member and "seconds" in r]
        style: dict[str, Any] = {
            "label": member,
            "color": f"C{number % 10}",
            "linestyle": ("-", "--", ":")[number // 10 % 3],
            "marker": "o",
            "markersize": 3,
        }
        count = [r["cells"] for r in run]
        panels[0].plot(count, [r["seconds"]["median"] for r in run], **style)
        panels[1].plot(count, [(r["peak_bytes"] or float("nan")) / 2**30 for r in run], **style)
    maps = [(r["cells"], r["map_bytes"] / 2**30) for r in rows if "map_bytes" in r]
    if maps:
        panels[1].plot(*zip(*maps, strict=True), color="black", label="N x N map, computed")
    for panel, label in zip(panels, ("seconds, median", "peak memory, GiB"), strict=True):
        panel.set(xlabel="cells N of the volume", ylabel=label)
        drawn = [value for line in panel.lines for value in line.get_ydata() if value > 0]
        if drawn:  # a logarithmic axis of nothing is an error
            panel.set(xscale="log", yscale="log")
        panel.grid(True, which="major", alpha=0.3)
    panels[1].legend(ncols=1, fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    machine = report["machine"]
    figure.suptitle(
        f"{direction.capitalize()} pass, {precision}, {report['settings']['channels']} channels; "
        f"{machine['name']}, "
        f"{machine['threads']} threads, torch {machine['torch']}, commit {machine['commit']}",
        fontsize=9,
    )
    figure.savefig(path, dpi=120)


def bars_plot(path: Path, report: dict[str, Any]) -> None:
    """Draw time and memory of each case as bars."""
    from matplotlib.figure import Figure

    rows = report["rows"][::-1]
    labels = [f"{row['model']}, {row['form']}, {row['precision']}" for row in rows]
    figure = Figure(figsize=(12, 1.2 + 0.3 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    values = (
        [row["seconds"]["median"] for row in rows],
        [(row["peak_bytes"] or 0) / 2**20 for row in rows],
    )
    for panel, each, label in zip(
        panels, values, ("seconds, median", "peak memory, MiB"), strict=True
    ):
        colors = ["C0" if row["form"] == "ours" else "0.7" for row in rows]
        bars = panel.barh(labels, each, color=colors)
        texts = [f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for value in each]
        panel.bar_label(bars, texts, padding=3)
        panel.margins(x=0.15)
        panel.set_xlabel(label)
    machine, settings = report["machine"], report["settings"]
    figure.suptitle(
        f"One pair of {settings['height']}x{settings['width']}, {settings['max_disparity']} "
        f"disparities; {machine['name']}, {machine['threads']} threads, torch {machine['torch']}, "
        f"commit {machine['commit']}",
        fontsize=9,
    )
    figure.savefig(path, dpi=120)
