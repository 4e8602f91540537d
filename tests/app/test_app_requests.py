"""What the page's server does with requests that no page of its own would send."""

import asyncio
import http.client
import http.cookiejar
import importlib.util
import io
import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from conftest import posix_only
from PIL import Image

from stereo.app import limits, routes, store
from stereo.app.guard import VISITOR, Guard, Refused
from stereo.app.uploads import Uploads
from stereo.errors import InputError
from stereo.system.bundled import SGBM, samples_root

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("gradio") is None, reason="gradio is not installed"
    ),
    pytest.mark.xdist_group("page"),  # of one server
]

SAMPLES = samples_root() / "FlyingThings3D/frames_finalpass/TEST/A/0000"
LEFT, RIGHT = SAMPLES / "left/0006.png", SAMPLES / "right/0006.png"
JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"
SESSION = "abcdef12345"


class Visitor:
    """A client with cookies of its own, as a browser has them."""

    def __init__(self, address):
        self.address = address
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(cookies)
        html = self.ask("/")[1].decode()
        config = json.loads(re.search(r"gradio_config = (\{.*?\});</script>", html, re.S)[1])
        self.parts = {each["id"]: each["props"] for each in config["components"]}
        called = {(len(each["inputs"]), each["targets"][0][1]): each for each in config[DEPS]}
        matched = called[max(called)]
        self.match_number, self.match_inputs = matched["id"], matched["inputs"]
        self.check_number = called[2, "clear"]["id"]
        self.choose_number = called[1, "click"]["id"]
        self.leave_number = called[0, "unload"]["id"]

    def ask(self, path, data=None, **headers):
        """Return status and body; a server that does not answer raises within seconds."""
        if isinstance(data, dict | list):
            data = json.dumps(data).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.address + path, data=data, headers=names)
        try:
            with self.opener.open(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def upload(self, name, content, **headers):
        return self.ask(UPLOAD, form(name, content), **{"Content-Type": FORM, **headers})

    def uploaded(self, name, content):
        status, body = self.upload(name, content)
        assert status == 200
        return json.loads(body)[0]

    def join(self, number, data, **more):
        return self.ask(JOIN, {"fn_index": number, "session_hash": SESSION, "data": data, **more})

    def match(self, left, right, **changed):
        """Return what a match sends; what the page starts with, but for changed labels."""
        wanted = {"Left image": left, "Right image": right, "Model": SGBM, "Max disparity": 64}
        wanted |= {"Confidence": False} | {
            name.replace("_", " "): value for name, value in changed.items()
        }
        labels = [self.parts[part]["label"].partition(",")[0] for part in self.match_inputs]
        assert set(wanted) <= set(labels)
        values = (self.parts[part].get("value") for part in self.match_inputs)
        return [wanted.get(label, value) for label, value in zip(labels, values, strict=True)]

    def result(self, number, data):
        """Return what a function of the page gives."""
        assert self.join(number, data)[0] == 200
        status, events = self.ask(f"/gradio_api/queue/data?session_hash={SESSION}")
        assert status == 200
        events = [json.loads(line[6:]) for line in events.decode().splitlines() if line]
        (done,) = [event for event in events if event["msg"] == "process_completed"]
        assert done["success"], done
        return done["output"]["data"]


DEPS = "dependencies"
FORM = "multipart/form-data; boundary=xyzzy"


def form(name, content, key="files"):
    head = f'--xyzzy\r\nContent-Disposition: form-data; name="{key}"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--xyzzy--\r\n"


def file(path, **more):
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


@pytest.fixture(scope="module")
def address(page_server):
    return page_server[1]


@pytest.fixture(scope="module")
def visitor(address):
    return Visitor(address)


@pytest.fixture(scope="module")
def own(visitor):
    return visitor.uploaded("left.png", LEFT.read_bytes())


@pytest.fixture(scope="module")
def folder(page_server):
    """Return the folder of the process's temporary files."""
    (found,) = (path for path in page_server[2].iterdir() if path.is_dir())
    return found


def files_in(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# Files that a client may not name, whichever way it names them.


@pytest.fixture(scope="module")
def hostile(visitor, address, folder, own):
    """Return paths by what is wrong with them."""
    fifo, link = folder / "uploads" / "fifo", folder / "uploads" / "link.png"
    if os.name == "posix":
        os.mkfifo(fifo)
        link.symlink_to(LEFT)
    other = Visitor(address)
    theirs = other.uploaded("other.png", RIGHT.read_bytes())
    parts = Path(own)
    return {
        "endless device": "/dev/zero",
        "random device": "/dev/urandom",
        "terminal": "/dev/stdin",
        "memory": "/proc/self/mem",
        "environment": "/proc/self/environ",
        "text": "/etc/passwd",
        "picture": str(LEFT),
        "relative": os.path.relpath(LEFT),
        "folder": str(parts.parent),
        "fifo": str(fifo),
        "link": str(link),
        "link of its own folder": f"/proc/self/cwd/{LEFT.relative_to(samples_root())}",
        "climbing": f"{parts.parent}/../../../../../../../../etc/passwd",
        "other spelling": f"{parts.parent}/./{parts.name}",
        "result folder": str(folder / "results"),
        "other visitor's": theirs,
        "web": f"{address}/theme.css",
        "metadata service": "http://169.254.169.254/latest/meta-data/",
        "file address": f"file://{LEFT}",
        "empty": "",
        "zero byte": f"{own}\0",
        "long": "/a" * 5000,
        "number": 0,
        "list": [own],
        "map": {"path": own},
        "nothing": None,
        "surrogate": "\ud800",
    }


HOSTILE = [
    *("endless device", "random device", "terminal", "memory", "environment", "text"),
    *("picture", "relative", "folder", "fifo", "link", "link of its own folder"),
    *("climbing", "other spelling", "result folder", "other visitor's", "web"),
    *("metadata service", "file address", "empty", "zero byte", "long", "number", "list"),
    *("map", "nothing", "surrogate"),
]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_path_of_another_visitor_is_refused(visitor, hostile, folder, own, kind):
    path, good = hostile[kind], file(own)
    calibration = {"Calibration_of_the_pair": file(path)}
    before = files_in(folder)
    found = [
        visitor.join(visitor.check_number, [file(path), None])[0],
        visitor.join(visitor.check_number, [file(path, url=own, is_stream=True), None])[0],
        visitor.join(visitor.check_number, [None, {"path": path}])[0],
        visitor.join(visitor.check_number, [[file(path)], None])[0],
        visitor.join(visitor.check_number, [{"left": {"deep": [file(path)]}}, None])[0],
        visitor.join(visitor.match_number, visitor.match(file(path), good))[0],
        visitor.join(visitor.match_number, visitor.match(good, file(path)))[0],
        visitor.join(visitor.match_number, visitor.match(good, good, Ground_truth=file(path)))[0],
        visitor.join(visitor.match_number, visitor.match(good, good, **calibration))[0],
        visitor.join(visitor.match_number, [file(path)] * len(visitor.match_inputs))[0],
        visitor.join(visitor.choose_number, [file(path)])[0],
    ]
    if isinstance(path, str) and len(path) < 1000 and path.isprintable():
        for route in ("file=", "file/", "proxy=", "stream/"):
            found.append(visitor.ask(f"/gradio_api/{route}{quote(path)}")[0])
    assert all(400 <= status < 500 for status in found), found
    assert files_in(folder) == before


def test_only_the_path_of_a_file_is_trusted(visitor, own):
    given = file(own, url="http://127.0.0.1:1/", orig_name="/etc/passwd", size=1, is_stream=True)
    assert visitor.result(visitor.check_number, [given, None]) == [""]


ELSEWHERE = [
    *("/openapi.json", "/docs", "/redoc", "/config", "/monitoring", "/manifest.json", "/pwa_icon"),
    *("/login_check", "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/queue/status"),
    *("/gradio_api/startup-events", "/gradio_api/vibe-code", "/gradio_api/token", "/svelte/a.js"),
    *(
        "/gradio_api/runs",
        "/gradio_api/deep_link?session_hash=abcdef12345",
        "/gradio_api/dev/reload",
    ),
    *("/gradio_api/custom_component/a/client/b/c.js", "/gradio_api/mcp/sse", "//etc/passwd"),
    *("/assets/..%2f..%2froutes.py", "/static/%2e%2e/a", "/page/..%2fserver.py", "/gradio_api"),
    *("/gradio_api/queue/join/", "/gradio_api//upload", "/GRADIO_API/info", "/%00"),
]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_routes_that_the_page_does_not_need_are_not_found(visitor, path):
    for data in (None, b"{}"):
        status, body = visitor.ask(path, data)
        assert status == 404 and b"Traceback" not in body


@pytest.mark.parametrize(
    "route",
    [
        *("run/predict", "api/predict", "api/match", "call/match", "call/v2/match", "run/match/"),
        *("component_server", "component_server/", "stream/x", "process_recording", "cancel"),
        *("reset", "vibe-edit", "run-history/connect", "profiling/clear"),
    ],
)
def test_other_ways_to_call_a_function_return_404(visitor, route):
    zero = file("/dev/zero")
    body = {"data": [zero, None], "fn_index": 0, "session_hash": "x", "component_id": 5}
    assert visitor.ask(f"/gradio_api/{route}", {**body, "fn_name": "preprocess"})[0] == 404
    assert visitor.ask(f"/gradio_api/{route}", form("a", b"x"), Content_Type=FORM)[0] == 404


def test_an_unsupported_method_is_refused(visitor):
    assert visitor.ask("/", b"{}")[0] == visitor.ask(JOIN)[0] == visitor.ask(UPLOAD)[0] == 405


# Bodies of events.


def event(**changed):
    return {"fn_index": 2, "session_hash": SESSION, "data": [None, None], **changed}


BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "null": b"null",
    "binary": bytes(range(256)),
    "deep": b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000,
    "long number": b'{"fn_index":' + b"9" * 100_000 + b"}",
    "huge array": event(data=[0] * 200_000),
    "unknown function": event(fn_index=999),
    "negative function": event(fn_index=-1),
    "function by name": event(fn_index="2"),
    "function as float": event(fn_index=2.0),
    "function as truth": event(fn_index=True),
    "function as list": event(fn_index=[2]),
    "no function": event(fn_index=None),
    "api name": {"api_name": "match", "session_hash": SESSION, "data": [None, None]},
    "no data": {"fn_index": 2, "session_hash": SESSION},
    "data as object": event(data={"0": None}),
    "data as text": event(data="ab"),
    "too few": event(data=[None]),
    "too many": event(data=[None] * 3),
    "text as file": event(data=["/etc/passwd", None]),
    "number as file": event(data=[7, None]),
    "no session": event(session_hash=None),
    "session as number": event(session_hash=5),
    "session as path": event(session_hash="../../etc"),
    "long session": event(session_hash="a" * 100_000),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_no_page_sends_is_refused_in_one_line(visitor, kind):
    status, body = visitor.ask(JOIN, BODIES[kind])
    assert status in (400, 403)
    assert "\n" not in json.loads(body)["detail"] and len(body) < 300


@pytest.mark.parametrize(
    ("label", "value"),
    [
        *(("Model", value) for value in ("/etc/passwd", "nothing", None, 3, ["sgbm"], {"a": 1})),
        *(("Max_disparity", value) for value in ("64", [64], {}, True, 1e400, 10**400, -1e300)),
        *(("Max_depth_of_points", value) for value in ("1", [], False, float("nan"))),
        *(("Confidence", value) for value in ("yes", 1, None, [True])),
        *(("Map_of_the_view", value) for value in ("up", 0, None, ["left"])),
    ],
)
def test_a_value_of_another_type_is_refused(visitor, own, label, value):
    data = visitor.match(file(own), file(own), **{label: value})
    assert visitor.join(visitor.match_number, data)[0] == 400


@pytest.mark.parametrize("index", [-1, 999, "0", 0.0, True, None, [0], 10**30])
def test_an_unknown_bundled_pair_is_refused(visitor, index):
    assert visitor.join(visitor.choose_number, [index])[0] == 400


def test_internal_functions_cannot_be_called(visitor):
    assert visitor.join(visitor.leave_number, [])[0] == 400


# Visitors.


def test_a_pair_is_uploaded_seen_matched_and_downloaded(visitor, own, address):
    right = visitor.uploaded("../../right view?.png", RIGHT.read_bytes())
    assert Path(right).name == "right_view_.png" or Path(right).name.endswith("right_view_.png")
    assert visitor.ask(f"/gradio_api/file={quote(own)}") == (200, LEFT.read_bytes())
    shown, wrong = visitor.result(visitor.match_number, visitor.match(file(own), file(right)))
    assert wrong == ""
    place = re.search(r'href="(results/[^"]+disparity\.pfm)"', shown)[1]
    archive = re.search(r'href="(results/[^"]+\.zip)"', shown)[1]
    other = Visitor(address)
    for path in (archive, place):
        assert other.ask(f"/{path}")[0] == 404
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/{path}", timeout=60)
    assert visitor.ask(f"/{place}")[1].startswith(b"Pf")
    assert visitor.ask(f"/{archive}")[0] == 200
    bundled = visitor.result(visitor.choose_number, [1])
    assert visitor.ask(f"/gradio_api/file={quote(bundled[0]['path'])}")[0] == 200
    assert visitor.result(visitor.check_number, bundled[:2]) == [""]


def test_every_choice_of_a_visitor_has_its_effect(visitor, own):
    right = file(visitor.uploaded("right.png", RIGHT.read_bytes()))
    eight_bits = io.BytesIO()
    Image.new("L", Image.open(LEFT).size, 80).save(eight_bits, "PNG")
    truth = file(visitor.uploaded("truth.png", eight_bits.getvalue()))  # which needs a scale
    chosen = {"Confidence": True, "Ground_truth": truth, "Ground_truth_scale": 4}
    chosen |= {"Max_depth_of_points": 2, "Map_of_the_view": "right"}
    shown, wrong = visitor.result(visitor.match_number, visitor.match(file(own), right, **chosen))
    assert wrong == ""
    assert "median confidence" in shown
    assert "the max depth of points is not used" in shown
    assert "it is of the left view, the map of the right" in shown
    for label, value, said in (
        ("Max_depth_of_points", -2, "max depth -2: "),
        ("Least_confidence_of_points", 2, "least confidence 2: "),
        ("Min_disparity", -600, "min disparity -600: "),
        ("Max_disparity", 1024, "max disparity 1024: "),
    ):
        data = visitor.match(file(own), right, **{label: value})
        assert said in visitor.result(visitor.match_number, data)[1]


def test_a_long_invalid_calibration_is_not_quoted_in_full(visitor, own):
    right = file(visitor.uploaded("right.png", RIGHT.read_bytes()))
    text = file(visitor.uploaded("calib.txt", b"secret " * 2000 + b": 1 2 3\n"))
    data = visitor.match(file(own), right, Calibration_of_the_pair=text)
    _, wrong = visitor.result(visitor.match_number, data)
    assert "calibration" in wrong and wrong.count("secret") < 40
    assert "/uploads/" not in wrong


def test_a_browser_copy_belongs_to_its_visitor(visitor):
    tiff = io.BytesIO()
    Image.open(LEFT).save(tiff, "TIFF")
    left = visitor.uploaded("left.tiff", tiff.getvalue())
    assert visitor.join(0, [file(left), None, None, None])[0] == 200
    _, events = visitor.ask(f"/gradio_api/queue/data?session_hash={SESSION}")
    copy = re.search(r'"path":"([^"]+left\.png)"', events.decode())[1]
    assert visitor.result(visitor.check_number, [file(copy), None]) == [""]
    assert Image.open(io.BytesIO(visitor.ask(f"/gradio_api/file={quote(copy)}")[1])).size


def test_a_bundled_pairs_files_go_when_an_image_of_the_visitors_arrives():
    from stereo.app.handlers import _unless_bundled

    assert _unless_bundled({"path": "/uploads/bundled/bundled_calibration.json"}) is None
    for own in (None, {"path": "/uploads/abc/calibration.json"}):
        assert _unless_bundled(own) is not None


def test_another_visitors_session_is_not_found_by_its_name(visitor, address):
    assert visitor.join(visitor.check_number, [None, None])[0] == 200
    stranger = Visitor(address)
    _, events = stranger.ask(f"/gradio_api/queue/data?session_hash={SESSION}")
    assert b"process_completed" not in events
    _, events = visitor.ask(f"/gradio_api/queue/data?session_hash={SESSION}")
    assert b"process_completed" in events


def test_a_visitor_is_known_by_a_signed_cookie_of_this_process(visitor, own, address):
    with urllib.request.urlopen(address) as answer:
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    name, _, value = cookie.partition(";")[0].partition("=")
    owner = Path(own).parent.parent.name
    for forged in (owner, f"{owner}.", f"{owner}.{value.partition('.')[2]}", f"{owner}.\xe9", "."):
        request = urllib.request.Request(
            f"{address}/gradio_api/file={quote(own)}", headers={"Cookie": f"{name}={forged}"}
        )
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(request, timeout=60)


def test_a_client_without_a_cookie_can_neither_upload_nor_call(address, folder):
    before = files_in(folder)
    session = f"session_hash={SESSION}"
    for path, data, kind in (
        (UPLOAD, form("a", b"x"), FORM),
        (JOIN, json.dumps(event()).encode(), "application/json"),
        (f"/gradio_api/queue/data?{session}", None, ""),
        (f"/gradio_api/heartbeat/{SESSION}", None, ""),
    ):
        request = urllib.request.Request(address + path, data, {"Content-Type": kind})
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(request, timeout=60)
        assert b"reload" in refused.value.read() and "Set-Cookie" not in refused.value.headers
    assert files_in(folder) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
        {"Origin": "http://evil.example", "X-Forwarded-Host": "page.example"},
        {"X-Forwarded-Host": "a b<>"},
    ],
)
def test_requests_from_other_origins_are_refused(visitor, headers):
    assert visitor.ask(JOIN, event(), **headers)[0] == 403
    assert visitor.upload("left.png", b"x", **headers)[0] == 403


def test_requests_of_the_page_and_links_to_it_are_answered(visitor, address):
    own = {"Origin": address, "Sec-Fetch-Site": "same-origin"}
    assert visitor.ask(JOIN, event(), **own)[0] == 200
    behind = {"Origin": "https://page.example", "X-Forwarded-Host": "page.example"}
    assert visitor.ask(JOIN, event(), **behind)[0] == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert visitor.ask("/", **link)[0] == 200
    assert visitor.ask("/", Host="evil.example")[0] == visitor.ask("/", Host="a b")[0] == 421


def test_names_in_headers_and_queries_change_nothing(visitor):
    for headers in ({"X-Gradio-Server": "http://["}, {"X-Forwarded-Proto": "javascript"}):
        assert visitor.ask("/", **headers)[0] == 200
    assert visitor.ask("/?deep_link=../../etc&page=x")[0] == 200
    for path in ("queue/data", "queue/data?session_hash=a%0ab", "heartbeat/%C3%A9"):
        assert visitor.ask(f"/gradio_api/{path}")[0] == 400


# Uploads.


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (FORM, b"", 400),
        (FORM, form("a", b"x")[:40], 400),
        (FORM, form("a", b"x", key="other"), 400),
        (
            FORM,
            b'--xyzzy\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--xyzzy--',
            400,
        ),
        (FORM, form("a", b"x")[:-4] + b"\r\n" + form("b", b"x"), 400),
        (FORM, b"--xyzzy\r\n" + b"a" * 100_000 + b": b\r\n\r\n", 400),
        ("multipart/form-data", form("a", b"x"), 400),
        (f"multipart/form-data; boundary={'x' * 1000}", form("a", b"x"), 400),
        ("application/x-www-form-urlencoded", b"files=x", 415),
        ("application/json", b'{"files": "x"}', 415),
    ],
)
def test_an_upload_that_is_not_a_form_with_one_file_is_refused(visitor, folder, kind, body, status):
    before = files_in(folder)
    assert visitor.ask(UPLOAD, body, Content_Type=kind)[0] == status
    assert files_in(folder) == before


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "/etc/passwd", "..\\..\\a.png", "a" * 1000, "\xe9\u4e2d.png", "a\tb", "-"],
)
def test_an_upload_gets_a_harmless_name(visitor, folder, name):
    kept = Path(visitor.uploaded(name, b"x"))
    assert kept.parent.parent.parent == folder / "uploads" and kept.read_bytes() == b"x"
    assert re.fullmatch(r"[\w.-]{1,100}", kept.name)


def test_an_upload_that_is_too_large_is_refused_before_it_is_sent(address):
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: {FORM}\r\n"
        head += f"Content-Length: {10**12}\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 413") and b"128 MiB" in answer


def test_an_aborted_upload_leaves_nothing(visitor, folder, address):
    before, place = files_in(folder), urlsplit(address)
    for sent in (100, 3 * 2**20):
        with socket.create_connection((place.hostname, place.port)) as connection:
            head = f"POST {UPLOAD} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: {FORM}\r\n"
            connection.sendall(f"{head}Content-Length: 9000000\r\n\r\n".encode())
            connection.sendall(form("left.png", b"x" * 9_000_000)[:sent])
    deadline = time.monotonic() + 20
    while files_in(folder) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert files_in(folder) == before
    assert visitor.upload("left.png", b"x")[0] == 200


def test_the_total_size_of_uploads_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "ALL_UPLOADS", 10 * 2**20)
    monkeypatch.setattr(limits, "VISITOR_UPLOADS", 3 * 2**20)
    uploads = Uploads(tmp_path)
    with uploads.room() as take, pytest.raises(InputError, match="128 MiB"):
        take(limits.MAX_BYTES + 2 * limits.FORM_BYTES)
    kept = [uploads.keep("a", f"{number}.png", io.BytesIO(b"x")) for number in range(5)]
    assert [path.exists() for path in kept] == [False, False, True, True, True]
    for visitor in "bc":
        for number in range(3):
            uploads.keep(visitor, f"{number}.png", io.BytesIO(b"x" * 2**20))
    with uploads.room() as take:
        take(2**20)
        with uploads.room() as second, pytest.raises(InputError, match="try again later"):
            second(1)
    with uploads.room() as take:
        take(2**20)


def test_upload_space_is_counted_and_not_measured_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "ALL_UPLOADS", 3 * 2**20)
    (tmp_path / "bundled.png").write_bytes(b"x")
    uploads = Uploads(tmp_path)
    old = [uploads.keep(visitor, "left.png", io.BytesIO(b"x")) for visitor in "ab"]
    with monkeypatch.context() as patched:
        patched.setattr("stereo.app.uploads._files", None)
        with uploads._tidying, uploads.room() as take, pytest.raises(InputError, match="later"):
            take(1)
    (old[1].parent / "copy.png").write_bytes(b"x" * 2**20)  # made of it for the browser
    os.utime(old[0], (time.time() - 4000,) * 2)
    uploads.expire()
    assert not (tmp_path / "a").exists()
    with uploads.room() as take, pytest.raises(InputError, match="later"):
        take(1)
    old[1].unlink()
    uploads.expire()
    with uploads.room() as take:
        take(2**20)


def test_an_upload_to_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(source, target):
        target.write(source.read(3))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stereo.app.uploads.shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space"):
        Uploads(tmp_path).keep("a", "left.png", io.BytesIO(b"xxxxx"))
    assert files_in(tmp_path) == []


def test_uploads_are_deleted_after_an_hour_and_bundled_files_stay(tmp_path):
    (tmp_path / "bundled.png").write_bytes(b"x")
    uploads = Uploads(tmp_path)
    old, new = (uploads.keep("a", "left.png", io.BytesIO(b"x")) for _ in range(2))
    for path in (old, tmp_path / "bundled.png"):
        os.utime(path, (time.time() - 4000,) * 2)
    uploads.expire()
    assert uploads.find("a", str(old)) is None and not old.parent.exists()
    assert uploads.find("a", str(new)) == new and uploads.find("b", str(new)) is None
    assert uploads.find("", str(tmp_path / "bundled.png")) is not None


def test_old_files_and_results_are_cleaned_up_while_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(routes, "CLEANED", 0.01)
    monkeypatch.setattr(store, "IDLE", 0.0)
    uploads, results = Uploads(tmp_path / "uploads"), store.Store(tmp_path / "results")
    old = uploads.keep("a", "left.png", io.BytesIO(b"x"))
    os.utime(old, (time.time() - 4000,) * 2)
    _, result = results.new("a")

    async def run():
        async with routes.cleaned(uploads, results):
            deadline = time.monotonic() + 20
            while (old.exists() or result.exists()) and time.monotonic() < deadline:
                await asyncio.sleep(0.01)

    asyncio.run(run())
    assert not old.exists() and not result.exists()


def test_an_archive_is_served_once_it_is_complete(tmp_path, monkeypatch):
    results = store.Store(tmp_path)
    token, folder = results.new("a")
    (folder / "x_color.png").write_bytes(b"x")
    write = zipfile.ZipFile.write

    def written(archive, *given):
        assert results.find(token, "x.zip") is None  # others look while it is written
        write(archive, *given)

    monkeypatch.setattr(zipfile.ZipFile, "write", written)
    assert routes._archive(results, token, "x.zip") == results.find(token, "x.zip")
    with zipfile.ZipFile(folder / "x.zip") as archive:
        assert archive.namelist() == ["x_color.png"]


# Connections.


def test_a_refusal_reaches_a_client_that_is_still_sending(address):
    place = urlsplit(address)
    for path, size, status in ((JOIN, 2**24, 413), ("/nothing", 2**24, 404), (UPLOAD, 2**24, 415)):
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        for _ in range(3):  # the connection stays of use
            connection.request("POST", path, body=b" " * size)
            answer = connection.getresponse()
            assert answer.status == status and answer.read()
        chunks = (b" " * 2**16 for _ in range(size >> 16))
        connection.request("POST", path, body=chunks, encode_chunked=True)
        assert connection.getresponse().status == status
        connection.close()


def test_expect_100_continue_is_answered_at_once(address):
    place = urlsplit(address)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        head = f"POST /nothing HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 9999999\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 404"


def test_a_refusal_does_not_wait_for_a_body_that_never_comes(address):
    place, connections = urlsplit(address), []
    for path, kind, length in (
        (UPLOAD, FORM, 99_999_999_999),
        (UPLOAD, "application/json", 10),
        (JOIN, "application/json", 2**20 + 1),
        ("/nothing", FORM, 10**12),
    ):
        connection = socket.create_connection((place.hostname, place.port), timeout=60)
        head = f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: {kind}\r\n"
        sent = b" " * (length if path == JOIN else 0)
        connection.sendall(f"{head}Content-Length: {length + 1}\r\n\r\n".encode() + sent)
        connections.append(connection)
    for connection, status in zip(connections, (413, 415, 413, 404), strict=True):
        with connection:
            answer = b"".join(iter(lambda here=connection: here.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 %d" % status)


def test_a_stalled_body_is_dropped(tmp_path, monkeypatch):
    for name in ("STALLED_SECONDS", "JSON_SECONDS", "DRAINED_SECONDS"):
        monkeypatch.setattr(limits, name, 0.05)
    sent = []

    async def receive():
        if not sent:
            await asyncio.sleep(60)
        await asyncio.sleep(0.01)  # a byte now and then
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message):
        sent.append(message)

    from starlette.requests import Request

    from stereo.app.arriving import Arriving

    scope = {"type": "http", "method": "POST", "path": UPLOAD, VISITOR: "a"}
    scope["headers"] = [(b"content-type", FORM.encode()), (b"host", b"localhost")]
    scope |= {"query_string": b"", "scheme": "http"}
    with pytest.raises(Refused, match="too long") as refused:
        asyncio.run(Arriving(Uploads(tmp_path)).file(Request(scope, receive), "x"))
    assert refused.value.status == 408
    guard = Guard(None, Uploads(tmp_path), {}, None)
    for start in ([], [None]):
        sent[:] = start
        monkeypatch.setattr(limits, "UPLOAD_SECONDS", 0.05)
        asyncio.run(asyncio.wait_for(guard(scope | {"path": JOIN}, receive, send), 5))
        assert sent[len(start)]["status"] == 408


@posix_only
def test_a_server_stops_within_seconds_during_a_match(page_server, visitor):
    process, _, folder = page_server
    picture = io.BytesIO()
    Image.new("RGB", (2000, 1500)).save(picture, "PNG", compress_level=1)
    sides = [file(visitor.uploaded(name, picture.getvalue())) for name in ("l.png", "r.png")]
    slow = visitor.match(*sides, Model="ea_stereo_fast", Max_disparity=512, Confidence=True)
    assert visitor.join(visitor.match_number, slow)[0] == 200
    with visitor.opener.open(
        f"{visitor.address}/gradio_api/queue/data?session_hash={SESSION}"
    ) as events:
        while b"Matching" not in (line := events.readline()):
            assert line
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 143
    assert [path.name for path in folder.iterdir()] == ["stderr"]
    errors = (folder / "stderr").read_text()
    assert "Traceback" not in errors, errors
