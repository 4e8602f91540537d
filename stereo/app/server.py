"""Binding, serving and cleaning up."""

import asyncio
import contextlib
import io
import logging
import os
import socket
import sys
import tempfile
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stereo.app.guard import PROGRESS, UPLOAD, VISITOR, Guard
from stereo.app.limits import MOST_BYTES
from stereo.app.models import Models
from stereo.app.pipeline import collect_warnings
from stereo.app.store import Store
from stereo.app.uploads import Uploads
from stereo.data.io import colors
from stereo.errors import UsageError
from stereo.system.console import say
from stereo.system.extras import import_extra
from stereo.system.files import staged
from stereo.system.stop import clear_stop

ASSETS = Path(__file__).parent / "assets"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MEDIA_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".avif": "image/avif",
}
CLEANED = 60.0  # seconds between two looks for what is too old


def serve(host: str, port: int, *, model: str | None = None, device: str = "auto") -> None:
    """Serve the page until interrupted.

    Args:
        host: address to bind to.
        port: of it; 0 for any that is free.
        model: what is chosen at first, a name or a checkpoint; None for the default.
        device: where to run, as in ``stereo.load``.

    Raises:
        UsageError: the port cannot be bound.
        StereoError: gradio is missing, or the model cannot be loaded.
    """
    import_extra("gradio", "app", "the page")
    import uvicorn

    models = Models(device, model)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_without_waiting())
        listener = stack.enter_context(contextlib.closing(_bind(host, port)))
        folder = stack.enter_context(_kept_together())
        app = application(models, folder, host)
        models.get(models.names[0], models.max_disparity(models.names[0]))
        collect_warnings()
        # The guard says what goes wrong; what these would add, any client could fill a disk with.
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
        shown = f"[{host}]" if ":" in host else host
        say(f"stereo app: http://{shown}:{listener.getsockname()[1]} (Ctrl-C stops it)")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            clear_stop()


def application(models: Models, folder: Path, host: str) -> Any:
    """Return the ASGI application.

    Args:
        models: the models on offer.
        folder: of this process, for all temporary files.
        host: what the server is bound to; on a loopback address only requests to it are answered,
            so that no other site's name can be made to point here.
    """
    import gradio as gr
    from fastapi import FastAPI, Request
    from fastapi.responses import (
        FileResponse,
        JSONResponse,
        PlainTextResponse,
        Response,
        StreamingResponse,
    )

    from stereo.app.arriving import Arriving
    from stereo.app.page import accepted, build, theme

    store = Store(folder / "results")
    page = build(models, store, folder / "uploads")
    uploads = Uploads(folder / "uploads")
    arriving = Arriving(uploads)
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, lifespan=lambda _: cleaned(uploads, store)
    )
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
        found = store.find(token, name)
        if found is None and name.endswith(".zip"):
            with archiving:  # which nothing else waits for
                found = store.find(token, name) or _archive(store, token, name)
        if found is None:
            return PlainTextResponse("this result is no longer kept; match the pair again", 404)
        headers = {"Cache-Control": "no-store"}
        kind = MEDIA_TYPES.get(found.suffix, "application/octet-stream")
        return FileResponse(found, media_type=kind, headers=headers)

    @app.post(UPLOAD)
    async def upload(request: Request, upload_id: str = "") -> Response:
        path = await arriving.file(request, upload_id)
        return JSONResponse([str(path)])

    @app.get(PROGRESS)
    def progress(request: Request, upload_id: str = "") -> Response:
        lines = arriving.progress(request.scope[VISITOR], upload_id)
        return StreamingResponse(lines, media_type="text/event-stream")

    @app.get("/gradio_api/file={path:path}")
    def uploaded(request: Request, path: str) -> Response:
        found = uploads.find(request.scope[VISITOR], path)
        if found is None:
            return PlainTextResponse("none of your uploads", 404)
        kind = MEDIA_TYPES.get(found.suffix.lower(), "application/octet-stream")
        return FileResponse(found, media_type=kind, filename=found.name)

    gr.mount_gradio_app(
        app,
        page,
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
    page.has_launched = True  # or gradio, mounted, skips its own check of paths
    hosts = LOOPBACK if host in LOOPBACK else None
    app.add_middleware(Guard, uploads=uploads, events=accepted(page), hosts=hosts)
    return app


@contextlib.asynccontextmanager
async def cleaned(*kept: Uploads | Store) -> AsyncIterator[None]:
    """Have files removed that are too old, now and then."""

    async def clean() -> None:
        while True:
            await asyncio.sleep(CLEANED)
            for each in kept:
                await asyncio.to_thread(each.expire)

    task = asyncio.create_task(clean())
    try:
        yield
    finally:
        task.cancel()


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
    with staged(target) as (temporary,), zipfile.ZipFile(temporary, "w") as archive:
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
def _without_waiting() -> Iterator[None]:
    """End the process at once if a match still runs: Python would wait for its thread."""
    before, status = set(threading.enumerate()), 0
    try:
        yield
    except SystemExit as stop:  # of SIGTERM
        status = stop.code if isinstance(stop.code, int) else 1
        raise
    finally:
        threads = [each for each in set(threading.enumerate()) - before if not each.daemon]
        for thread in threads:
            thread.join(1)  # those of the pool end by themselves
        if any(thread.is_alive() for thread in threads):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


@contextlib.contextmanager
def _kept_together() -> Iterator[Path]:
    """Give the folder of all temporary files of this process, and keep libraries from reporting."""
    with tempfile.TemporaryDirectory(
        prefix="stereo-app-",
        ignore_cleanup_errors=True,  # a match may still write
    ) as name:
        folder = Path(name).resolve()  # paths are compared as they are written
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
