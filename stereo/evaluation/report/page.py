"""Templates to pages: self-contained HTML, everything from outside escaped, nothing loaded."""

import base64
import hashlib
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stereo.data.io import colors
from stereo.system.files import staged
from stereo.version import __version__

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_RAMP_STOPS = 17
NONE = "\u2013"  # where there is no figure


def write_page(path: Path, template: str, context: dict[str, Any]) -> None:
    """Fill a template and write the page, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    scripts = {name: _source(f"{name}.js") for name in ("early", "late")}
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts.values())
    page = _environment().get_template(template)
    html = page.render(
        **context,
        scripts={name: Markup(script) for name, script in scripts.items()},
        style=Markup(_source("style.css")),
        # Even if a text got through unescaped, no other script would run and nothing would load.
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}",
        ramp=_ramp(),
        version=__version__,
    )
    with staged(path) as (temporary,):
        temporary.write_text(html, encoding="utf-8", errors="replace", newline="\n")


def number(value: Any, digits: int = 2) -> str:
    """Write a figure with so many decimals, or a dash where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return NONE
    return f"{value:,.{digits}f}"


def seconds(value: Any) -> str:
    """Write a time in seconds with three digits or so."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return NONE
    return f"{value:.3f} s" if value < 10 else f"{value:,.1f} s"


def memory(value: Any) -> str:
    """Write a number of bytes in MiB or GiB."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return NONE
    return f"{value / 2**20:,.0f} MiB" if value < 10 * 2**30 else f"{value / 2**30:,.1f} GiB"


def flattened(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Write nested facts as rows of a table: dotted names and values."""
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows += flattened(value, f"{prefix}{key}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            rows.append((f"{prefix}{key}", ", ".join(map(str, value)) or "none"))
        else:
            rows.append((f"{prefix}{key}", "none" if value is None else str(value)))
    return rows


def data_uri(picture: bytes) -> str:
    """Return a WebP picture as an address that needs no other file."""
    return "data:image/webp;base64," + base64.b64encode(picture).decode("ascii")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _source(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@cache
def _ramp() -> str:
    """Return the pictures' colours as a gradient of CSS."""
    row = colors.colorize(np.linspace(0, 1, _RAMP_STOPS, dtype=np.float32)[None], 1.0)[0]
    return ", ".join("#" + bytes(color).hex() for color in row)
