"""Binding, serving and cleaning up."""

import contextlib
import io
import os
import re
import socket
import tempfile
import threading
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stereo import colors
from stereo.app.bounds import MOST_BYTES
from stereo.app.models import Models
from stereo.app.store import Store
from stereo.app.work import collect_warnings
from stereo.console import say
from stereo.errors import UsageError

ASSETS = Path(__file__).parent / "assets"
MOST_JSON_BYTES = 2**20  # of a request that is no upload
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".png": "image/png"}
# Nothing is fetched from, or sent to, anywhere else, whatever a library of the page would like.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)

SAFETY = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def serve(host: str, port: int, *, model: str | None = None, device: str = "auto") -> None:
    """Serve the page until interrupted.

    Args:
        host: address to bind to.
        port: of it; 0 for any that is free.
        model: what is chosen at first, a name or a checkpoint; None for the default.
        device: where to run, as in ``stereo.load``.

    Raises:
        UsageError: gradio is missing, or the port cannot be bound.
        StereoError: the model cannot be loaded.
    """
    models = Models(device, model)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(_bind(host, port)))
        folder = stack.enter_context(_kept_together())
        try:
            import uvicorn

            app = application(models, folder, host)
        except ImportError as error:
            raise UsageError(
                f'the page needs gradio ({error}): run pip install -e ".[app]"'
            ) from error
        models.get(models.names[0], models.max_disparity(models.names[0]))
        collect_warnings()
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        shown = f"[{host}]" if ":" in host else host
        say(f"stereo app: http://{shown}:{listener.getsockname()[1]} (Ctrl-C stops it)")
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def application(models: Models, folder: Path, host: str) -> Any:
    """Return the ASGI application.

    Args:
        models: the models on offer.
        folder: of this process, for all temporary files.
        host: what the server is bound to; on a loopback address only requests to it are answered,
            so that no other site's name can be made to point here.
    """
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import FileResponse, PlainTextResponse, Response

    from stereo.app.page import build, theme

    store = Store(folder / "results")
    app = FastAPI(openapi_url=None)
    archiving = threading.Lock()
    scale = _ramp()

    @app.get("/page/ramp.png")
    def ramp() -> Response:
        return Response(scale, media_type="image/png")

    @app.get("/page/{name}")
    def asset(name: str) -> Response:
        found = next((path for path in ASSETS.iterdir() if path.name == name), None)
        if found is None:
            return PlainTextResponse("no such file", 404)
        return FileResponse(found, media_type=MEDIA_TYPES[found.suffix])

    @app.get("/results/{token}/{name}")
    def result(token: str, name: str) -> Response:
        with archiving:
            found = store.find(token, name) or _archive(store, token, name)
        if found is None:
            return PlainTextResponse("this result is no longer kept; match the pair again", 404)
        headers = {"Cache-Control": "no-store"}
        kind = MEDIA_TYPES.get(found.suffix, "application/octet-stream")
        return FileResponse(found, media_type=kind, headers=headers)

    gr.mount_gradio_app(
        app,
        build(models, store, folder / "uploads"),
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MOST_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        favicon_path=str(ASSETS / "icon.png"),
        css_paths=[ASSETS / "page.css"],
        head='<script type="module" src="page/page.js"></script>',
    )
    app.add_middleware(_Guard, hosts=LOOPBACK if host in LOOPBACK else None)
    return app


class _Guard:
    """Bounds what requests carry, and tells the browser to stay on this server.

    Args:
        app: the application behind it.
        hosts: names that a request may be addressed to; None for any.
    """

    def __init__(self, app: Any, hosts: Collection[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *SAFETY]
            await send(message)

        status = self._refusal(scope)
        if status is None:
            await self._app(scope, receive, guarded)
            return
        await guarded({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def _refusal(self, scope: Any) -> int | None:
        headers = dict(scope["headers"])
        name = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and re.sub(r":\d*$", "", name).strip("[]") not in self._hosts:
            return 421
        if scope["method"] in ("GET", "HEAD", "OPTIONS") or scope["path"].endswith("/upload"):
            return None  # gradio counts the bytes of uploads
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            return 411
        return 413 if int(length) > MOST_JSON_BYTES else None


def _archive(store: Store, token: str, name: str) -> Path | None:
    """Write all files to be downloaded of a result into one, if that is what is asked for."""
    base = name.removesuffix(".zip")
    picture = store.find(token, f"{base}_color.png")
    if base == name or picture is None:
        return None
    files = [path for path in picture.parent.iterdir() if path.name.startswith(f"{base}_")]
    files += [
        path
        for end in (f"{base}.ply", f"{base}.glb", "metrics.json")
        if (path := store.find(token, end)) is not None
    ]
    target = picture.parent / name
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(files):
            archive.write(path, path.name)
    return target


def _ramp() -> bytes:
    """Return the colours of the maps from left to right, a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(colors.colorize(np.linspace(0, 1, 256)[None], 1.0)).save(buffer, "PNG")
    return buffer.getvalue()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"cannot listen on {host}, port {port}: {reason}; choose another --port"
        ) from error


@contextlib.contextmanager
def _kept_together() -> Iterator[Path]:
    """Give the folder of all temporary files of this process, and keep libraries from reporting."""
    with tempfile.TemporaryDirectory(prefix="stereo-app-") as name:
        folder = Path(name)
        for part in ("temporary", "uploads", "results"):
            (folder / part).mkdir()
        before = tempfile.tempdir, dict(os.environ)
        tempfile.tempdir = str(folder / "temporary")
        os.environ |= {
            "GRADIO_TEMP_DIR": str(folder / "uploads"),
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
        }
        try:
            yield folder
        finally:
            tempfile.tempdir = before[0]
            os.environ.clear()
            os.environ |= before[1]
