"""The ASGI application: gradio's page, and the files beside it."""

import asyncio
import contextlib
import io
import threading
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import gradio as gr
import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from PIL import Image

from stereo.app.arriving import Arriving
from stereo.app.guard import PROGRESS, UPLOAD, VISITOR, Guard
from stereo.app.limits import MAX_BYTES
from stereo.app.models import Models
from stereo.app.page import accepted, build, theme
from stereo.app.store import Store
from stereo.app.uploads import Uploads
from stereo.data.io import colors
from stereo.system.files import staged

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


def application(models: Models, folder: Path, host: str) -> FastAPI:
    """Return the ASGI application.

    Args:
        models: the models on offer.
        folder: of this process, for all temporary files.
        host: what the server is bound to; on a loopback address only requests to it are answered,
            so that no other site's name can be made to point here.
    """
    store = Store(folder / "results")
    page = build(models, store, folder / "uploads")
    uploads = Uploads(folder / "uploads")
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, lifespan=lambda _: cleaned(uploads, store)
    )
    _serve_assets(app)
    _serve_results(app, store)
    _serve_uploads(app, uploads)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MAX_BYTES,
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


def _serve_assets(app: FastAPI) -> None:
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


def _serve_results(app: FastAPI, store: Store) -> None:
    archiving = threading.Lock()

    @app.get("/results/{token}/{name}")
    def result(request: Request, token: str, name: str) -> Response:
        is_own = store.is_of(token, request.scope[VISITOR])
        found = store.find(token, name) if is_own else None
        if found is None and is_own and name.endswith(".zip"):
            with archiving:  # which nothing else waits for
                found = store.find(token, name) or _archive(store, token, name)
        if found is None:
            return PlainTextResponse("this result is no longer kept; match the pair again", 404)
        headers = {"Cache-Control": "no-store"}
        kind = MEDIA_TYPES.get(found.suffix, "application/octet-stream")
        return FileResponse(found, media_type=kind, headers=headers)


def _serve_uploads(app: FastAPI, uploads: Uploads) -> None:
    arriving = Arriving(uploads)

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


@contextlib.asynccontextmanager
async def cleaned(*kept: Uploads | Store) -> AsyncIterator[None]:
    """Remove expired files periodically."""

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
    """Write a result's downloads into one ZIP on request."""
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
