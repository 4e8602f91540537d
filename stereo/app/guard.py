"""Middleware in front of gradio: it passes on only requests that the page itself sends.

Gradio opens, hashes, copies and fetches what its events name. So nothing that a client wrote gets
there: a request for another route is not found, and the body of an event is checked once, here, and
written anew from the values that passed.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from stereo.app import limits
from stereo.app.limits import MAX_JSON_BYTES, MAX_NUMBER, MAX_REPORTED
from stereo.app.uploads import Uploads
from stereo.errors import InputError
from stereo.system.console import warn
from stereo.system.parsing import parse_json

VISITOR = "stereo.visitor"  # key of a request's scope: the visitor's id, "" without a cookie
UNKNOWN = "the page has been restarted or cookies are off: reload it, with cookies allowed"
UPLOAD, JOIN, DATA = "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/queue/data"
HEARTBEAT, PROGRESS = "/gradio_api/heartbeat/", "/gradio_api/upload_progress"
_FILE = r"[\w-]+(?:[./][\w-]+)*"
ROUTES = {
    "GET": re.compile(
        rf"/|/theme\.css|/favicon\.ico|/(?:assets|static)/{_FILE}|/page/[\w.-]+"
        rf"|/results/[\w-]+/[\w.-]+|/gradio_api/(?:app_id|file=.+)|{DATA}|{HEARTBEAT}\w+|{PROGRESS}"
    ),
    "POST": re.compile(f"{UPLOAD}|{JOIN}"),
}
_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)  # of a session or an upload
_HOST = re.compile(r"[\w.-]{1,253}(:\d{1,5})?|\[[\da-fA-F:.]{2,45}\](:\d{1,5})?", re.ASCII)
# The page loads nothing from other hosts and sends them nothing, even if a library of it tries to.
_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_SAFETY = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


@dataclass(frozen=True)
class Field:
    """What a component may send."""

    kind: str  # `file`, `number` or `choice`
    choices: Sequence[Any] = ()  # the values there are, of a choice


class Refused(Exception):
    """A refused request."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class _Exchange:
    """One request as it comes in: its headers, the visitor, and how far its body has been read."""

    receive: Any
    headers: dict[bytes, bytes]
    visitor: str = ""
    cookie: list[tuple[bytes, bytes]] = field(default_factory=list)
    whole: bool = False
    status: int | None = None  # of the answer, once it has begun

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    async def next(self, seconds: float | None = None) -> Any:
        message = await asyncio.wait_for(self.receive(), seconds)
        self.whole = self.whole or not message.get("more_body", False)
        return message

    async def body(self) -> bytes:
        read = bytearray()
        deadline = time.monotonic() + limits.JSON_SECONDS
        while not self.whole:
            try:
                message = await self.next(deadline - time.monotonic())
            except asyncio.TimeoutError:
                raise Refused(408, "the request took too long") from None
            read += message.get("body", b"")
            if len(read) > MAX_JSON_BYTES:
                raise Refused(413, f"more than {MAX_JSON_BYTES >> 20} MiB in a request")
        return bytes(read)

    async def drain(self) -> None:
        """Read on: a client that still sends would meet a closed connection, not the answer."""
        left, deadline = limits.DRAINED_BYTES, time.monotonic() + limits.UPLOAD_SECONDS
        if self.headers.get(b"expect"):
            return  # it asks first, and has sent nothing
        with contextlib.suppress(asyncio.TimeoutError):
            while not self.whole and left > 0 and time.monotonic() < deadline:
                left -= len((await self.next(limits.DRAINED_SECONDS)).get("body", b""))


class Guard:
    """Middleware that passes on only the page's own requests.

    Args:
        app: the application behind it.
        uploads: the files that visitors may name.
        events: what each function of the page takes, by its number.
        hosts: names that a request may be addressed to; None for any.
    """

    def __init__(
        self,
        app: Any,
        uploads: Uploads,
        events: Mapping[int, Sequence[Field]],
        hosts: Collection[str] | None,
    ) -> None:
        self._app = app
        self._uploads = uploads
        self._events = events
        self._hosts = hosts
        self._key = secrets.token_bytes(32)
        # A name of this process's own: browsers send a host's cookies to all of its ports.
        self._cookie = f"stereo-{secrets.token_hex(4)}"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer as an ASGI application."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await self._answer(scope, _Exchange(receive, dict(scope["headers"])), send)

    async def _answer(self, scope: Any, exchange: _Exchange, send: Any) -> None:
        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], *exchange.cookie, *_SAFETY]
            await send(message)

        async def refuse(status: int, reason: str) -> None:
            await exchange.drain()
            body = json.dumps({"detail": reason}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ]
            if not exchange.whole:
                headers.append((b"connection", b"close"))
            await guarded({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        try:
            self._check_address(scope, exchange)
            self._check_route(scope)
            self._recognise(scope, exchange)
            await self._app(*await self._admitted(scope, exchange), guarded)
        except Refused as refusal:
            await refuse(refusal.status, str(refusal))
        except asyncio.CancelledError:
            return  # the server stops
        except Exception as error:
            if exchange.status is None or exchange.status >= 500:
                line = " ".join(f"{type(error).__name__}: {error}".split())
                warn(f"stereo app: error: {line[:MAX_REPORTED]}")
            if exchange.status is None:
                await refuse(500, "internal error; see the server's terminal")
            else:  # a stream whose last event says what is wrong
                with contextlib.suppress(Exception):
                    await send({"type": "http.response.body", "body": b""})

    def _check_address(self, scope: Any, exchange: _Exchange) -> None:
        """Refuse a request for another host name or from another origin."""
        host = exchange.header(b"host").lower()
        name = re.sub(r":\d*$", "", host).strip("[]")
        if not _HOST.fullmatch(host) or (self._hosts is not None and name not in self._hosts):
            raise Refused(421, "this page answers only to its own name")
        outside = exchange.header(b"x-forwarded-host").split(",")[0].strip().lower() or host
        origin = exchange.header(b"origin").lower()
        if not _HOST.fullmatch(outside) or (origin and _place(origin) != outside):
            raise Refused(403, "requests from other sites are refused")
        site = exchange.header(b"sec-fetch-site") or "none"
        link = scope["path"] == "/" and exchange.header(b"sec-fetch-mode") == "navigate"
        if site not in ("none", "same-origin") and not (link and scope["method"] == "GET"):
            raise Refused(403, "requests from other sites are refused")

    def _check_route(self, scope: Any) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        known = {each for each, paths in ROUTES.items() if paths.fullmatch(scope["path"])}
        if not known:
            raise Refused(404, "no such page")
        if method not in known:
            raise Refused(405, f"only {known.pop()} is allowed here")

    def _recognise(self, scope: Any, exchange: _Exchange) -> None:
        """Identify the visitor by a cookie that this process signed, or set one."""
        for part in exchange.header(b"cookie").split(";"):
            name, _, value = part.strip().partition("=")
            visitor, _, signature = value.partition(".")
            if name == self._cookie and hmac.compare_digest(
                self._sign(visitor).encode(), signature.encode()
            ):
                exchange.visitor = visitor
                return
        if scope["path"] == "/":
            exchange.visitor = visitor = secrets.token_hex(16)
            # Lax: with Strict, a link to the page from elsewhere would make a new visitor of an
            # old one. What other sites send is refused by its origin.
            cookie = f"{self._cookie}={visitor}.{self._sign(visitor)}; Path=/; HttpOnly; "
            cookie += "SameSite=Lax" + ("; Secure" if scope["scheme"] == "https" else "")
            exchange.cookie = [(b"set-cookie", cookie.encode())]

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    async def _admitted(self, scope: Any, exchange: _Exchange) -> tuple[Any, Any]:
        """Return the scope and the body of the request as the page behind gets them."""
        path, receive = scope["path"], exchange.next
        headers = [pair for pair in scope["headers"] if not pair[0].startswith(b"x-gradio-")]
        given = parse_qs(scope["query_string"].decode("latin-1"))
        query = b""
        if path in (UPLOAD, PROGRESS) and "upload_id" in given:
            query = b"upload_id=" + _named(given["upload_id"][0]).encode()
        elif path == DATA:
            query = b"session_hash=" + self._session(exchange, given.get("session_hash", [""])[0])
        elif path.startswith(HEARTBEAT):
            path = HEARTBEAT + self._session(exchange, path[len(HEARTBEAT) :]).decode()
        elif path == JOIN:
            # In a thread: it reads up to 1 MiB of JSON and looks through the visitor's files.
            body = await asyncio.to_thread(self._event, exchange, await exchange.body())
            given_by_us = (b"content-length", b"content-type", b"transfer-encoding")
            headers = [pair for pair in headers if pair[0] not in given_by_us]
            headers.append((b"content-type", b"application/json"))
            headers.append((b"content-length", str(len(body)).encode()))
            receive = _once(body, exchange.next)
        passed = {
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "headers": headers,
            VISITOR: exchange.visitor,
        }
        return scope | passed, receive

    def _session(self, exchange: _Exchange, name: Any) -> bytes:
        """Return the session's internal name, so that no visitor can name another's.

        It starts with the visitor and ``_``, by which ``Store`` knows whose a result is.
        """
        if not exchange.visitor:
            raise Refused(403, UNKNOWN)
        return f"{exchange.visitor}_{self._sign(f'{exchange.visitor}/{_named(name)}')}".encode()

    def _event(self, exchange: _Exchange, body: bytes) -> bytes:
        """Return the body of an event, rebuilt from its valid values."""
        try:
            given = parse_json(body, "the request")
        except InputError as error:
            raise Refused(400, str(error)) from None
        number = given.get("fn_index") if isinstance(given, dict) else None
        if type(number) is not int or number not in self._events:
            raise Refused(400, "no such function of the page")
        fields, values = self._events[number], given.get("data")
        if not isinstance(values, list) or len(values) != len(fields):
            raise Refused(400, f"function {number} takes {len(fields)} values")
        session = self._session(exchange, given.get("session_hash")).decode()
        data = [self._value(exchange, *pair) for pair in zip(fields, values, strict=True)]
        return json.dumps({"fn_index": number, "session_hash": session, "data": data}).encode()

    def _value(self, exchange: _Exchange, field: Field, value: Any) -> Any:
        if field.kind == "choice":
            if not any(type(value) is type(each) and value == each for each in field.choices):
                raise Refused(400, "a value that the page does not offer")
            return value
        if value is None:
            return None
        if field.kind == "number":
            if type(value) not in (int, float) or not abs(value) <= MAX_NUMBER:
                raise Refused(400, "a value that is no number")
            return value
        path = self._uploads.find(
            exchange.visitor, value.get("path") if isinstance(value, dict) else None
        )
        if path is None:
            raise Refused(403, "not one of your uploads; drop the file again")
        return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def _named(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refused(400, "a name of letters and digits is missing")
    return name


def _place(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _once(body: bytes, receive: Any) -> Any:
    """Return a function that gives the body, and then what else is received."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Any:
        return left.pop() if left else await receive()

    return give
