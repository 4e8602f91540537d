"""The result of a match as HTML; all external text is escaped."""

import html
import json
from collections.abc import Sequence
from dataclasses import asdict

from stereo.app.pipeline import CLOUD, MAPS, Cloud, PageResult
from stereo.evaluation.protocols import get_protocol

# What each ending of a file is; the rest of its name is the pair's.
_KINDS = {
    "_color.png": "colours",
    "_disparity.pfm": "float32, pixels",
    "_disparity.png": "16 bits, pixels &times; 256 (KITTI)",
    "_disparity.npy": "NumPy, pixels",
    "_confidence.png": "8 bits, 255 for certain",
    "_depth.npy": "NumPy, metres",
    "_depth.png": "16 bits, millimetres",
    ".ply": "points, metres",
    ".glb": "points for viewers",
    "_error.png": "error in colours",
    "metrics.json": "figures and how they were made",
}

# The page's labels of the command line's options.
_LABELS = {
    "--max-disparity": "Max disparity",
    "--min-disparity": "Min disparity",
    "--max-depth": "Max depth",
    "--min-confidence": "Least confidence",
    "--ground-truth-scale": "Ground truth scale",
}

HEADER = """
<header class="st-header">
  <h1>Stereo depth</h1>
  <p>A disparity map, its confidence and a point cloud from a rectified pair of images.
  Everything is computed on this machine; nothing leaves it.</p>
</header>"""

EMPTY = """
<div class="st-empty">
  <div class="st-empty-picture" aria-hidden="true"><span></span><span></span></div>
  <p><strong>No map yet.</strong> Add a left and a right image, or pick a bundled pair, and
  press <em>Match</em>.</p>
  <p>The pair must be rectified: matching points lie on the same row, further left in the right
  image.</p>
</div>"""


def problem(text: str) -> str:
    """Return the one-line error message."""
    return f'<div class="st-problem" role="alert">{_safe(_on_the_page(text))}</div>'


def result(page: PageResult, address: str) -> str:
    """Return the HTML of a match."""
    return "\n".join(
        [
            '<div class="st-result">',
            _summary(page),
            _messages(page.faults, "st-fault"),
            _maps(page, address),
            _figures(page),
            _cloud(page.cloud, address),
            _downloads(page, address),
            _messages(page.notes, "st-note"),
            "</div>",
        ]
    )


def _summary(page: PageResult) -> str:
    width, height = page.size
    facts = [
        f"{width} &times; {height} px",
        f"disparity {page.low:.1f} to {page.high:.1f} px",
        f"{_safe(str(page.model['name']))}, {page.seconds:.2f} s",
    ]
    if page.reliable is not None:
        facts.append(f"median confidence {page.reliable:.2f}")
    return (
        f'<div class="st-summary"><h2>{_safe(page.name)}</h2>'
        + "".join(f"<span>{fact}</span>" for fact in facts)
        + "</div>"
    )


def _maps(page: PageResult, address: str) -> str:
    spec = {
        "address": address,
        "values": MAPS,
        "size": page.size,
        "step": page.step,
        "planes": page.planes,
        "layers": [asdict(layer) for layer in page.layers],
    }
    return f'<stereo-maps data-spec="{_safe(json.dumps(spec))}"></stereo-maps>'


def _figures(page: PageResult) -> str:
    if page.scores is None:
        return ""
    if not page.scores:
        return _messages(["ground truth: too few valid pixels to score"], "st-note")
    units = {"epe": ("EPE", 3, "px"), "bad_1": ("bad-1", 2, "%"), "bad_2": ("bad-2", 2, "%")}
    units |= {"bad_3": ("bad-3", 2, "%"), "d1": ("D1", 2, "%")}
    lists = []
    for region, title in (("all", "All pixels"), ("noc", "Non-occluded pixels")):
        found = page.scores.get(region)
        if found is not None:
            cells = "".join(
                f"<div><dt>{name}</dt><dd>{found[key]:.{digits}f} {unit}</dd></div>"
                for key, (name, digits, unit) in units.items()
            )
            lists.append(f"<p>{title}</p><dl>{cells}</dl>")
    rules = get_protocol("pooled").with_range(page.model.get("min_disparity", 0))
    return (
        f'<section class="st-figures"><h3>Against the ground truth</h3>{"".join(lists)}'
        f"<p>Pixels with a true disparity d of {_safe(rules.mask)} px (protocol pooled).</p>"
        "</section>"
    )


def _cloud(cloud: Cloud | None, address: str) -> str:
    if cloud is None:
        return _messages(["points: none is near and sure enough to be shown"], "st-note")
    spec = {"address": address + CLOUD, **asdict(cloud)}
    about = f"{cloud.count:,} points"
    if cloud.assumed:
        about += (
            " &middot; <strong>shape up to an unknown scale</strong>: no calibration was given, so "
            "the focal length is taken to be the image's longer side"
        )
    return (
        '<section class="st-points"><h3>Point cloud</h3>'
        f'<stereo-cloud data-spec="{_safe(json.dumps(spec))}"></stereo-cloud>'
        f'<p class="st-about">{about}</p></section>'
    )


def _downloads(page: PageResult, address: str) -> str:
    items = []
    for path in page.files:
        kind = next(kind for end, kind in _KINDS.items() if path.name.endswith(end))
        items.append(
            f'<li><a href="{_safe(address + path.name)}" download="{_safe(path.name)}">'
            f"{_safe(path.name)}</a><span>{kind}, {_bytes(path.stat().st_size)}</span></li>"
        )
    metres = (
        ""
        if page.cloud is None or not page.cloud.assumed
        else ("<p>Depth and points in metres come with a calibration.</p>")
    )
    archive = f"{page.name}.zip"
    return (
        '<section class="st-downloads"><h3>Downloads</h3>'
        f'<a class="st-all" href="{_safe(address + archive)}" download="{_safe(archive)}">'
        f"All files (.zip)</a><ul>{''.join(items)}</ul>{metres}</section>"
    )


def _messages(lines: Sequence[str], kind: str) -> str:
    if not lines:
        return ""
    told = [_on_the_page(line) for line in lines]
    return (
        f'<ul class="st-messages {kind}">' + "".join(f"<li>{_safe(t)}</li>" for t in told) + "</ul>"
    )


def _on_the_page(line: str) -> str:
    for option, label in _LABELS.items():
        line = line.replace(option, label)
    return line


def _bytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{max(1, count // 1024)} KiB"


def _safe(text: str) -> str:
    """Escape for HTML, and for the templates that the page's component runs its value through."""
    escaped = html.escape(text, quote=True)
    for sign in "${}`":
        escaped = escaped.replace(sign, f"&#{ord(sign)};")
    return escaped
