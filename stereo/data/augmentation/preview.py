"""A contact sheet of the augmentations: each alone, then all together."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stereo.data.augmentation.augment import augment
from stereo.data.augmentation.config import EVERY_STEP, AugmentationConfig
from stereo.data.augmentation.training_pair import TrainingPair
from stereo.data.io import colors
from stereo.data.sets.datasets import chosen_dataset, open_dataset
from stereo.errors import UsageError
from stereo.system import console
from stereo.system.files import output_folder, staged

PANEL_WIDTH = 288  # of an unchanged view, pixels
MAX_ZOOM = 4.0
GAP = 8
LABEL_WIDTH = 172
TEXT_SIZE = 14
LINE = 19
MISFIT_GAIN = 3
CHANGE_GAIN = 6

_DIFFERENCES = (
    f"left less right moved by disparity, x{MISFIT_GAIN}",
    f"right less original right, x{CHANGE_GAIN}",
)
_SAME_PLACE = ("colour", "gamma", "eraser", "vertical shift", "rotation", "warp", "blur")

Row = tuple[str, str, AugmentationConfig]


def preview(
    output: str | Path,
    *,
    dataset: str | None = None,
    root: str | Path | None = None,
    count: int = 2,
    seed: int = 0,
    split: str | None = None,
    render_pass: str | None = None,
    layout: str | None = None,
) -> None:
    """Write a contact sheet of the ``EVERY_STEP`` augmentation, one row per change.

    The fourth column is the left view less the right one moved by the disparity: geometric changes
    leave it as dark as it was, which shows that the ground truth follows. The fifth is what changed
    in the right view.

    Args:
        output: the .png file to write.
        dataset: its name (default: detected from the folder).
        root: the data set's folder; not needed for 'synthetic'.
        count: pairs shown, spread over the set.
        seed: of the augmentation.
        split: train or test, where the data set has them.
        render_pass: clean or final, for rendered data.
        layout: the tree's name, if the folder holds several.

    Raises:
        UsageError: an output that is not a PNG file, or a number out of range.
        InputError: the data cannot be read or has no ground truth.
    """
    output = Path(output)
    if output.suffix.lower() != ".png":
        raise UsageError(f"--output {output}: the contact sheet is a .png file")
    if not 1 <= count <= 50:
        raise UsageError(f"--count {count}: expected 1 to 50 pairs")
    if seed < 0:
        raise UsageError(f"--seed {seed}: expected 0 or more")
    name = chosen_dataset(dataset, root)
    data = open_dataset(name, root, split=split, render_pass=render_pass, layout=layout)
    output_folder(output.parent)
    last = len(data.samples) - 1
    chosen = np.unique(np.linspace(0, last, min(count, last + 1)).round().astype(int))
    blocks = []
    for index in console.progress([int(i) for i in chosen], "preview"):
        pair = TrainingPair.from_sample(data.samples[index].read(disparity_right=True))
        blocks.append(_pair_block(pair, (seed, 0, index)))
    sheet = colors.stack(*blocks, gap=4 * GAP)
    sheet = np.pad(sheet, ((2 * GAP,) * 2, (2 * GAP,) * 2, (0, 0)), constant_values=255)
    with staged(output) as (temporary,):
        Image.fromarray(sheet).save(temporary)
    console.say(f"{output}: {len(chosen)} of {len(data.samples)} pairs, each change alone")


def rows_for(pair: TrainingPair) -> list[Row]:
    """Return (title, detail, configuration) per row of a pair: each change of ``EVERY_STEP`` alone.

    Args:
        pair: of any size. The crop is at most two thirds of it, so that it can be seen.
    """
    height, width = pair.size
    crop = (min(256, -(-height * 2 // 3)), min(512, -(-width * 2 // 3)))
    m = EVERY_STEP
    each = "each view its own"
    rows: list[tuple[str, str, dict[str, Any]]] = [
        ("original", f"{width}x{height}", {}),
        (
            "colour",
            f"{each}:\nbrightness ± {m.brightness:g},\ncontrast ± {m.contrast:g},\n"
            f"saturation ± {m.saturation:g},\nhue ± {m.hue:g}",
            {"color_probability": 1.0, "asymmetry": 1.0},
        ),
        (
            "gamma",
            f"{each}:\n{m.gamma[0]:g} to {m.gamma[1]:g}",
            {"gamma_probability": 1.0, "asymmetry": 1.0},
        ),
        (
            "eraser",
            f"right view, 1 to {m.eraser_rectangles}\n"
            f"of {m.eraser_side[0]} to {m.eraser_side[1]} px",
            {"eraser_probability": 1.0},
        ),
        (
            "vertical shift",
            f"right view,\nup to {m.vertical_shift:g} px",
            {"vertical_shift_probability": 1.0},
        ),
        ("rotation", f"right view,\nup to {m.rotation:g} degrees", {"rotation_probability": 1.0}),
        ("warp", f"right view,\nup to {m.warp:g} px down or up", {"warp_probability": 1.0}),
        ("blur", f"either view,\nup to {m.blur:g} px", {"blur_probability": 1.0}),
        (
            "scale",
            f"{m.scale[0]:g} to {m.scale[1]:g} times;\nhere the largest",
            {"scale_probability": 1.0, "scale": (m.scale[1], m.scale[1])},
        ),
        ("stretch", f"up to {m.stretch:g} either way", {"stretch_probability": 1.0}),
        ("flip", "mirrored,\nviews swapped", {"flip_probability": 1.0}),
        ("crop", f"{crop[1]}x{crop[0]}", {"crop": crop}),
    ]
    everything: dict[str, Any] = {"crop": crop}
    for _, _, change in rows[1:-1]:
        everything.update(change)
    everything["scale"] = m.scale
    rows.append(("all together", f"crop {crop[1]}x{crop[0]}", everything))
    nothing: dict[str, Any] = {
        field.name: 0.0
        for field in dataclasses.fields(EVERY_STEP)
        if field.name.endswith("_probability")
    }
    alone = dataclasses.replace(EVERY_STEP, crop=None, **nothing)
    return [(title, detail, dataclasses.replace(alone, **change)) for title, detail, change in rows]


def residual(pair: TrainingPair) -> np.ndarray:
    """Return |left - right moved by the disparity|, amplified, as a (H, W, 3) uint8 image.

    Grey where there is no ground truth or the match lies outside the right view.
    """
    height, width = pair.size
    match = np.arange(width) - np.where(pair.valid, pair.disparity, 0)
    inside = pair.valid & (match >= 0) & (match <= width - 1)
    match = np.clip(match, 0, width - 1)
    low = np.minimum(match.astype(np.intp), max(width - 2, 0))
    share = (match - low)[..., None]
    rows = np.arange(height)[:, None]
    right = pair.right.astype(np.float32)
    moved = right[rows, low] * (1 - share) + right[rows, np.minimum(low + 1, width - 1)] * share
    difference = np.abs(pair.left - moved).mean(axis=2, keepdims=True)
    picture = _amplified(difference, MISFIT_GAIN)
    picture[~inside] = (70, 80, 110)
    return picture


def _pair_block(pair: TrainingPair, seed: tuple[int, int, int]) -> np.ndarray:
    """Return the heading and all rows of one pair."""
    zoom = min(MAX_ZOOM, PANEL_WIDTH / pair.size[1])
    limit = colors.disparity_limit(pair.disparity[pair.valid])
    rows: list[tuple[str, str, list[np.ndarray]]] = []
    for title, detail, config in rows_for(pair):
        if title == "flip" and pair.right_disparity is None:
            rows.append((title, "left out: the right view's disparity is not known", []))
            continue
        changed = augment(pair, config, seed)
        if title in ("scale", "stretch"):
            detail += f"\n{changed.size[1]}x{changed.size[0]}"
        truth = colors.colorize(changed.disparity, limit, changed.valid)
        panels = [changed.left, changed.right, truth, residual(changed)]
        if title in _SAME_PLACE:
            before = pair.right.astype(np.float32)
            change = np.abs(changed.right - before).mean(axis=2, keepdims=True)
            panels.append(_amplified(change, CHANGE_GAIN))
        rows.append((title, detail, [_zoomed(panel, zoom) for panel in panels]))
    width = max(panel.shape[1] for _, _, panels in rows for panel in panels)
    titles = ("left", "right", f"disparity, 0 to {limit:g} px", *_DIFFERENCES)
    heading = _Canvas(2 * LINE + GAP, _column(len(titles), width))
    heading.write(0, 0, pair.name)
    for i, title in enumerate(titles):
        heading.write(_column(i, width), LINE, title)
    blocks = [heading.array()]
    for title, detail, panels in rows:
        lines = [title, *detail.splitlines()]
        height = max([panel.shape[0] for panel in panels] + [len(lines) * LINE if panels else LINE])
        row = _Canvas(height, _column(len(titles), width))
        if not panels:
            lines = [title]
            row.write(_column(0, width), 0, detail)
        for i, line in enumerate(lines):
            row.write(0, i * LINE, line, faint=i > 0)
        for i, panel in enumerate(panels):
            row.paste(_column(i, width), panel)
        blocks.append(row.array())
    return colors.stack(*blocks, gap=GAP)


def _amplified(difference: np.ndarray, gain: float) -> np.ndarray:
    """Turn (H, W, 1) differences of samples into a (H, W, 3) uint8 image."""
    return np.clip(difference * gain, 0, 255).astype(np.uint8).repeat(3, axis=2)


def _column(number: int, width: int) -> int:
    return LABEL_WIDTH + number * (width + GAP)


def _zoomed(picture: np.ndarray, zoom: float) -> np.ndarray:
    height, width = (max(1, round(side * zoom)) for side in picture.shape[:2])
    image = Image.fromarray(picture)
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


class _Canvas:
    """A white image to put panels and text on."""

    def __init__(self, height: int, width: int) -> None:
        self.image = Image.new("RGB", (width, height), "white")
        self.font = ImageFont.load_default(TEXT_SIZE)

    def write(self, x: int, y: int, text: str, *, faint: bool = False) -> None:
        ImageDraw.Draw(self.image).text((x, y), text, "dimgrey" if faint else "black", self.font)

    def paste(self, x: int, panel: np.ndarray) -> None:
        self.image.paste(Image.fromarray(panel), (x, 0))

    def array(self) -> np.ndarray:
        return np.asarray(self.image)
