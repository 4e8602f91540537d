"""The page's components and their events."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from stereo.app import html, limits
from stereo.app.guard import Field
from stereo.app.handlers import BUNDLED, Handlers
from stereo.app.models import Models
from stereo.app.store import Store
from stereo.data.sets.datasets import open_dataset
from stereo.data.sets.sample import SampleFiles
from stereo.geometry import Calibration
from stereo.system.bundled import DEFAULT_MODEL, samples_root

WAITING = 16  # requests that may queue
SESSIONS = 256  # that gradio remembers the components of, 100 kB each
THUMBNAIL = 280  # pixels
# Nothing is preprocessed: gradio would open files before the handlers have looked at them.
_RAW: dict[str, Any] = {"api_visibility": "private", "preprocess": False}
# Of the bundled pairs, whose scenes are as large as one says: here the baseline is 10 cm.
BUNDLED_CAMERA = Calibration.rectified(fx=448, cx0=224, cy=92, baseline=0.1, size=(448, 256))


def theme() -> gr.themes.Base:
    """Return the page's colours and fonts; the fonts are the visitor's own."""
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return base.set(
        body_text_color_subdued="*neutral_500",
        block_label_text_color="*neutral_600",
        block_info_text_color="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        color_accent="*primary_700",
        slider_color="*primary_600",
    )


class _Inputs(NamedTuple):
    """The components that a visitor fills in, in the order of ``Handlers.match``."""

    left: gr.Image
    right: gr.Image
    model: gr.Dropdown
    max_disparity: gr.Slider
    confidence: gr.Checkbox
    calibration: gr.File
    max_depth: gr.Number
    min_confidence: gr.Slider
    truth: gr.File
    truth_scale: gr.Number
    view: gr.Radio
    min_disparity: gr.Number


def build(models: Models, store: Store, uploads: Path) -> gr.Blocks:
    """Return the page."""
    handlers = Handlers(models, store, uploads)
    pairs = _copy_bundled_pairs(uploads / "bundled")
    with gr.Blocks(title="Stereo depth", analytics_enabled=False) as page:
        _text(html.HEADER)
        with gr.Row(elem_id="st-columns"):
            with gr.Column(scale=4, min_width=320, elem_id="st-inputs"):
                inputs, bundled = _inputs(models, pairs)
                notice = _text("", "notice")
                button = gr.Button("Match", variant="primary", size="lg", elem_id="st-match")
            with gr.Column(scale=7, min_width=320, elem_id="st-output"):
                shown = _text(html.EMPTY, "shown")
        _connect(handlers, inputs, notice)
        bundled.click(
            lambda i: [pairs[i][key] for key in ("left", "right", "truth", "calibration")] + [""],
            bundled,
            [inputs.left, inputs.right, inputs.truth, inputs.calibration, notice],
            api_visibility="private",
            show_progress="hidden",
        )
        button.click(
            handlers.match,
            list(inputs),
            [shown, notice],
            concurrency_limit=1,
            show_progress_on=shown,
            **_RAW,
        )
        page.unload(handlers.leave)
    page.queue(max_size=WAITING)
    page.state_session_capacity = SESSIONS
    return page


def _inputs(models: Models, pairs: list[dict[str, str]]) -> tuple[_Inputs, gr.Dataset]:
    """Lay out the left column; return its fields, and the gallery of bundled pairs."""
    with gr.Row(elem_id="st-pair"):
        left = _picture("Left image", "left")
        right = _picture("Right image", "right")
    bundled = gr.Dataset(
        label="Or a bundled pair",
        components=[gr.Image(visible=False, type="filepath")],
        samples=[[str(pair["thumbnail"])] for pair in pairs],
        layout="gallery",
        type="index",
        elem_id="st-bundled",
    )
    first = models.names[0]
    model = gr.Dropdown(models.names, value=first, label="Model", filterable=False)
    max_disparity = gr.Slider(
        16,
        limits.MAX_DISPARITY,
        value=models.max_disparity(first),
        step=16,
        label="Max disparity, pixels",
        buttons=[],
    )
    confidence = gr.Checkbox(
        first == DEFAULT_MODEL,
        label="Confidence",
        info="Matches the other view too, for twice the time.",
    )
    with gr.Accordion("Calibration, points, ground truth, view, range", open=False):
        further = (
            _file("Calibration of the pair"),
            gr.Number(0, label="Max depth of points, metres", info="0: 100 baselines."),
            gr.Slider(0, 0.95, 0, step=0.05, label="Least confidence of points", buttons=[]),
            _file("Ground truth, left view"),
            gr.Number(
                0,
                label="Ground truth scale",
                info="Stored value per pixel, for 8-bit images; 0: as its format says.",
            ),
            gr.Radio([("Left", "left"), ("Right", "right")], value="left", label="Map of the view"),
            gr.Number(
                0,
                precision=0,
                label="Min disparity, pixels",
                info="Where the search starts; negative for points behind infinity.",
            ),
        )
    return _Inputs(left, right, model, max_disparity, confidence, *further), bundled


def _connect(handlers: Handlers, inputs: _Inputs, notice: gr.HTML) -> None:
    """Check uploads on arrival, and let each model set its default range."""
    left, right = inputs.left, inputs.right
    quick: dict[str, Any] = {"show_progress": "hidden", **_RAW}
    of_pair = [inputs.truth, inputs.calibration]
    left.upload(handlers.left_arrived, [left, right, *of_pair], [left, notice, *of_pair], **quick)
    right.upload(
        handlers.right_arrived, [right, left, *of_pair], [right, notice, *of_pair], **quick
    )
    for picture in (left, right):
        picture.clear(handlers.check, [left, right], notice, **quick)
    chosen = [inputs.confidence, inputs.max_disparity]
    inputs.model.input(handlers.model_chosen, inputs.model, chosen, **quick)


def accepted(page: gr.Blocks) -> dict[int, list[Field]]:
    """Return the parameters of each function that visitors may call, by its number."""
    return {
        number: [_field(block) for block in function.inputs]
        for number, function in page.fns.items()
        if all(event != "unload" for _, event in function.targets)
    }


def _field(block: Any) -> Field:
    if isinstance(block, gr.Image | gr.File):
        return Field("file")
    if isinstance(block, gr.Slider | gr.Number):
        return Field("number")
    if isinstance(block, gr.Checkbox):
        return Field("choice", (False, True))
    if isinstance(block, gr.Dataset):
        return Field("choice", range(len(block.samples)))
    return Field("choice", [value for _, value in block.choices])


def _text(value: str, name: str | None = None) -> gr.HTML:
    return gr.HTML(value, elem_id=None if name is None else f"st-{name}", apply_default_css=False)


def _picture(label: str, side: str) -> gr.Image:
    return gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        sources=["upload"],
        height=170,
        min_width=140,
        buttons=[],
        elem_id=f"st-{side}",
    )


def _file(label: str) -> gr.File:
    return gr.File(label=label, type="filepath", height=110)


def _copy_bundled_pairs(folder: Path) -> list[dict[str, str]]:
    """Copy the bundled pairs with a calibration and a thumbnail; return the files of each."""
    folder.mkdir()
    calibration = folder / f"{BUNDLED}calibration.json"
    BUNDLED_CAMERA.write(calibration)
    data = open_dataset("sceneflow", samples_root(), split="test", render_pass="final")
    pairs = []
    for number, item in enumerate(data.samples, 1):
        assert isinstance(item, SampleFiles) and item.disparity is not None
        files = {"thumbnail": folder / f"{BUNDLED}{number}.png"}
        with Image.open(item.left) as picture:
            picture.thumbnail((THUMBNAIL, THUMBNAIL))
            picture.save(files["thumbnail"])
        for key, path in (("left", item.left), ("right", item.right), ("truth", item.disparity)):
            files[key] = Path(shutil.copy(path, folder / f"{BUNDLED}{number}_{key}{path.suffix}"))
        files["calibration"] = calibration
        pairs.append({key: str(path) for key, path in files.items()})
    return pairs
