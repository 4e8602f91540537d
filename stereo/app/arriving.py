"""Incoming uploads: one bounded file each, with progress events for the page."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from stereo.app import limits
from stereo.app.guard import UNKNOWN, VISITOR, Refused
from stereo.app.limits import FORM_BYTES, MAX_BYTES
from stereo.app.uploads import Uploads
from stereo.errors import InputError

_POLLED = 0.1  # seconds between two looks at how far an upload has come


@dataclass
class _Upload:
    name: str = ""
    size: int = 0


class Arriving:
    """Receives uploads."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._coming: dict[tuple[str, str], _Upload] = {}

    async def file(self, request: Request, upload_id: str) -> Path:
        """Return the file of a form, kept for the visitor who sends it.

        Raises:
            Refused: not a form with one file, too large, of nobody known, or it does not arrive.
        """
        visitor = request.scope[VISITOR]
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise Refused(415, "an upload is a form with one file")
        if int(request.headers.get("content-length", 0)) > MAX_BYTES + FORM_BYTES:
            raise Refused(413, f"this page takes files of {MAX_BYTES >> 20} MiB")
        if not visitor:
            raise Refused(403, UNKNOWN)
        upload = self._coming[visitor, upload_id] = _Upload()
        try:
            with self._uploads.room() as take:

                async def receive() -> Any:
                    message = await asyncio.wait_for(request.receive(), limits.STALLED_SECONDS)
                    part = message.get("body", b"")
                    take(len(part))
                    if not upload.size and (found := re.search(rb'filename="([^"]*)"', part)):
                        upload.name = found[1].decode(errors="replace")
                    upload.size += len(part)
                    return message

                form = await asyncio.wait_for(
                    Request(request.scope, receive).form(max_files=1, max_fields=1),
                    limits.UPLOAD_SECONDS,
                )
                try:
                    file = form.get("files")
                    if not isinstance(file, UploadFile):
                        raise Refused(400, "an upload is a form with one file")
                    name = file.filename or ""
                    return await asyncio.to_thread(self._uploads.keep, visitor, name, file.file)
                finally:
                    await form.close()
        except InputError as error:
            raise Refused(413, str(error)) from None
        except (HTTPException, ClientDisconnect):
            raise Refused(400, "an upload is a form with one file") from None
        except asyncio.TimeoutError:
            raise Refused(408, "the upload took too long") from None
        except OSError as error:
            raise Refused(507, f"the upload cannot be kept: {error.strerror}") from None
        finally:
            self._coming.pop((visitor, upload_id), None)

    async def progress(self, visitor: str, upload_id: str) -> AsyncIterator[str]:
        """Yield the progress events that gradio's page expects."""
        key, shown = (visitor, upload_id), 0
        if key not in self._coming:
            await asyncio.sleep(1)  # it is asked for at the same time as the upload is sent
        while upload := self._coming.get(key):
            if upload.size > shown:
                update = {"orig_name": upload.name, "chunk_size": upload.size - shown}
                yield _event({"msg": "update", **update})
                shown = upload.size
            await asyncio.sleep(_POLLED)
        yield _event({"msg": "done"})


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
