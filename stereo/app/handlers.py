"""Event handlers of the page; nothing that a component sends is trusted."""

from pathlib import Path
from typing import Any

import gradio as gr

from stereo.app import html, limits
from stereo.app.models import Models
from stereo.app.pipeline import Request, look, perform
from stereo.app.store import Store
from stereo.data.io.images import read_samples
from stereo.errors import InputError, StereoError
from stereo.system.bundled import DEFAULT_MODEL
from stereo.system.console import warn
from stereo.system.opencv import import_cv2

File = dict[str, Any] | None  # what a component sends of an upload
BUNDLED = "bundled_"  # begins the names of the bundled pairs' files
PROGRESS = gr.Progress()  # gradio tells arguments of this kind by their default


class Handlers:
    """Answers the page's events."""

    def __init__(self, models: Models, store: Store, uploads: Path) -> None:
        self._models = models
        self._store = store
        self._uploads = uploads.resolve()

    def match(
        self,
        left: File,
        right: File,
        model: str,
        max_disparity: int,
        confidence: bool,
        calibration: File,
        max_depth: float | None,
        min_confidence: float | None,
        truth: File,
        truth_scale: float | None,
        view: str,
        min_disparity: int,
        visitor: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> tuple[str, str]:
        """Return the result's HTML and the error, if any."""
        token = None
        try:
            request = Request(
                self._required(left, "left image"),
                self._required(right, "right image"),
                str(model),
                _whole(max_disparity, "max disparity"),
                "right" if view == "right" else "left",
                bool(confidence),
                self._given(calibration, "calibration"),
                _number(max_depth, "max depth") or None,
                _number(min_confidence, "least confidence") or 0.0,
                self._given(truth, "ground truth"),
                _number(truth_scale, "ground truth scale") or None,
                _whole(min_disparity or 0, "min disparity"),
            )
            token, folder = self._store.new(visitor.session_hash or "")
            page = perform(
                request, self._models, folder, lambda share, text: progress(share, desc=text)
            )
            return html.result(page, f"results/{token}/"), ""
        except Exception as error:
            if token is not None:
                self._store.discard(token)
            return html.EMPTY, html.problem(_told(error))

    def check(self, left: File, right: File) -> str:
        """Return what is wrong with the uploaded images, or nothing."""
        try:
            look(self._given(left, "left image"), self._given(right, "right image"))
        except Exception as error:
            return html.problem(_told(error))
        return ""

    def left_arrived(self, left: File, right: File, *of_pair: File) -> tuple[Any, ...]:
        """Return what the left component shows, what is wrong, and what stays of the last pair."""
        value, wrong = self._arrived(left, "left image")
        return value, wrong or self.check(left, right), *map(_unless_bundled, of_pair)

    def right_arrived(self, right: File, left: File, *of_pair: File) -> tuple[Any, ...]:
        """Return what the right component shows, what is wrong, and what stays of the last pair."""
        value, wrong = self._arrived(right, "right image")
        return value, wrong or self.check(left, right), *map(_unless_bundled, of_pair)

    def model_chosen(self, name: str) -> tuple[bool, int]:
        """Return a model's defaults: whether confidence is computed, and its range."""
        known = name if name in self._models.names else self._models.names[0]
        return known == DEFAULT_MODEL, self._models.max_disparity(known)

    def leave(self, visitor: gr.Request) -> None:
        """Forget a visitor who has closed the page."""
        self._store.leave(visitor.session_hash or "")

    def _arrived(self, file: File, role: str) -> tuple[Any, str]:
        """Return what to show of an upload: itself, a PNG of the same samples, or nothing.

        The PNG is also what is matched, so it keeps 16 bits: only a pair tells how to reduce them.
        """
        try:
            path = self._required(file, role)
            if limits.check_picture(path, role)[2] in limits.SHOWN_BY_BROWSERS:
                return gr.skip(), ""
            copy = path.with_suffix(".png")
            _, png = import_cv2().imencode(".png", read_samples(path)[..., ::-1])
            copy.write_bytes(png)
            return str(copy), ""
        except Exception as error:
            text = _told(error)
            return None, html.problem(text.replace(str(file and file.get("path")), role))

    def _required(self, file: File, role: str) -> Path:
        path = self._given(file, role)
        if path is None:
            raise InputError(f"the {role} is missing; drop a file or pick a bundled pair")
        return path

    def _given(self, file: File, role: str) -> Path | None:
        """Return the path of an upload, if this visitor may use it."""
        if file is None:
            return None
        try:
            path = Path(file["path"]).resolve()
        except (KeyError, TypeError, ValueError, OSError):
            raise InputError(f"the {role} did not arrive; drop the file again") from None
        if not path.is_relative_to(self._uploads) or not path.is_file():
            raise InputError(f"the {role} is no longer there; drop the file again")
        return path


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
        raise InputError(f"{name}: expected a whole number")
    return int(value)


def _number(value: Any, name: str) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name}: expected a number")
    return float(value)


def _unless_bundled(file: File) -> Any:
    """Return what clears a bundled pair's file, and leaves a visitor's own."""
    is_bundled = file and Path(str(file.get("path"))).name.startswith(BUNDLED)
    return None if is_bundled else gr.skip()


def _told(error: Exception) -> str:
    """Return the line for the visitor; internal errors go to the owner's terminal."""
    if isinstance(error, StereoError):
        line = str(error)
    elif isinstance(error, MemoryError):
        line = "not enough memory; use smaller images or a smaller max disparity"
    else:
        line = f"stereo app: error: {type(error).__name__}: {' '.join(str(error).split())}"
        warn(line[: limits.MAX_REPORTED])
        line = "internal error; see the server's terminal"
    return line if len(line) <= limits.MAX_REPORTED else f"{line[: limits.MAX_REPORTED]} ..."
