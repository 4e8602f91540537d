"""The web page: bounds and folders by themselves, the rest in a browser."""

import importlib.util
import io
import json
import re
import shutil
import signal
import socket
import struct
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from conftest import posix_only, start_page
from PIL import Image

import stereo as package
from stereo.app import html, limits
from stereo.app.models import Models
from stereo.app.pipeline import MAPS, Request, look, perform
from stereo.app.store import KEPT, Store
from stereo.data.io.disparities import read_disparity
from stereo.data.io.images import as_images
from stereo.errors import InputError, StereoError
from stereo.geometry import Calibration
from stereo.matching.options import MatchOptions
from stereo.models import NetworkConfig, build_network
from stereo.models.checkpoint import Checkpoint, save_checkpoint
from stereo.system.bundled import SGBM, samples_root

SAMPLES = samples_root() / "FlyingThings3D"
LEFT = SAMPLES / "frames_finalpass/TEST/A/0000/left/0006.png"
RIGHT = SAMPLES / "frames_finalpass/TEST/A/0000/right/0006.png"
TRUTH = SAMPLES / "disparity/TEST/A/0000/left/0006.pfm"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
WITHOUT_GPU = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]

pytestmark = pytest.mark.xdist_group("page")  # of one server, with the requests, and one browser

needs_gradio = pytest.mark.skipif("gradio" in MISSING, reason="gradio is not installed")
needs_browser = pytest.mark.skipif(
    bool(MISSING) or CHROMIUM is None,
    reason=f"not installed: {', '.join([*MISSING, *([] if CHROMIUM else ['chromium'])])}",
)


def quiet(_share, _text):
    """Show no progress."""


def picture_header(width, height):
    """Return a PNG file that promises a size and holds nothing."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def cropped_pair(folder, name="left"):
    """Write a small pair; return its files."""
    files = folder / f"{name}.png", folder / "right.png"
    for small, whole in zip(files, (LEFT, RIGHT), strict=True):
        Image.open(whole).crop((60, 60, 220, 140)).save(small)
    return files


# What needs no page.


@pytest.mark.parametrize("size", [(4001, 3000), (20000, 20000), (65000, 65000)])
def test_an_image_with_too_many_pixels_is_refused_by_its_header(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(picture_header(*size))
    with pytest.raises(InputError, match=r"left image: .*smaller"):
        limits.check_picture(path, "left image")


@pytest.mark.parametrize("content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>"])
def test_files_that_are_not_images_are_refused(tmp_path, content):
    path = tmp_path / "left.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match="left image"):
        look(path, None)


def test_ground_truth_that_unpacks_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BYTES", 2**20)
    path = tmp_path / "truth.npz"
    np.savez_compressed(path, disparity=np.zeros((1024, 1024), np.float32))
    assert path.stat().st_size < 2**20
    with pytest.raises(InputError, match="unpacks to 4 MiB"):
        limits.check_truth(path, "ground truth")


def test_semi_global_matching_beyond_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "free_bytes", lambda device: 2**30)
    limits.check_memory(SGBM, (640, 480), 192)
    limits.check_memory("ea_stereo_fast", (4000, 3000), 192)
    with pytest.raises(InputError, match="not enough memory"):
        limits.check_memory(SGBM, (4000, 3000), 192)
    monkeypatch.setattr(limits, "free_bytes", lambda device: 2**20)
    with pytest.raises(InputError, match="not enough memory"):
        perform(Request(LEFT, RIGHT, SGBM, 64), Models(), tmp_path, quiet)


def test_results_are_found_by_token_and_name_alone(tmp_path):
    (tmp_path / "secret").write_text("x")
    store = Store(tmp_path / "results")
    token, folder = store.new("visitor")
    (folder / "map.png").write_bytes(b"x")
    assert store.find(token, "map.png") == folder / "map.png"
    for name in ("../secret", "../../secret", "/etc/passwd", "", ".", ".."):
        assert store.find(token, name) is None
    assert store.find("..", "secret") is None


def test_a_visitor_has_one_result_and_none_after_leaving(tmp_path):
    store = Store(tmp_path)
    _, first = store.new("a")
    _, other = store.new("b")
    _, second = store.new("a")
    assert [path.exists() for path in (first, other, second)] == [False, True, True]
    store.leave("a")
    assert [path.exists() for path in (other, second)] == [True, False]


def test_results_on_disk_are_bounded(tmp_path):
    store = Store(tmp_path)
    for visitor in range(KEPT + 5):
        store.new(str(visitor))
    assert len(list(tmp_path.iterdir())) == KEPT


def test_the_page_starts_with_a_models_own_range(tmp_path):
    config = NetworkConfig("ea_stereo_fast", 32)
    path = tmp_path / "mine.safetensors"
    save_checkpoint(path, Checkpoint(config, build_network(config).state_dict()))
    models = Models(own=str(path))
    assert models.names[0] == "mine"
    assert [models.max_disparity(name) for name in ("mine", SGBM)] == [32, 192]


def test_an_own_file_named_like_a_bundled_model_hides_none(tmp_path):
    path = tmp_path / "ea_stereo.safetensors"
    config = NetworkConfig("ea_stereo_fast", 32)
    save_checkpoint(path, Checkpoint(config, build_network(config).state_dict()))
    models = Models(own=str(path))
    assert models.names[:2] == ["ea_stereo.safetensors", "ea_stereo"]
    assert [models.max_disparity(name) for name in models.names[:2]] == [32, 192]


def test_an_image_stored_on_its_side_has_the_size_of_the_upright_one(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "view.jpg", exif=exif)
    assert limits.check_picture(tmp_path / "view.jpg", "left image")[:2] == (40, 60)


def test_the_error_map_shows_the_pixels_that_are_scored(tmp_path):
    left, right = cropped_pair(tmp_path)
    truth = read_disparity(TRUTH)[60:140, 60:220].copy()
    truth[:, :80] = 250
    np.save(tmp_path / "truth.npy", truth)
    request = Request(left, right, SGBM, 320, truth=tmp_path / "truth.npy")
    page = perform(request, Models(), tmp_path, quiet)
    with Image.open(tmp_path / "left_error.png") as error:
        shown = np.asarray(error)[:80, :70].reshape(-1, 3)
    assert (shown == shown[0]).all()  # grey: not scored
    assert "from 192 px on, which the protocol" in html.result(page, "results/x/")


def test_other_models_take_what_they_can_of_the_options():
    """The operator's device is not sgbm's."""
    assert Models(MatchOptions(device="cuda")).get(SGBM, 64).description["max_disparity"] == 64


def test_few_models_stay_loaded():
    models = Models()
    assert models.names[0] == package.DEFAULT_MODEL
    first = models.get(SGBM, 64)
    assert models.get(SGBM, 64) is first
    for max_disparity in (80, 96, 112):
        models.get(SGBM, max_disparity)
    assert models.get(SGBM, 64) is not first
    with pytest.raises(StereoError, match="unknown model"):
        models.get("/etc/passwd", 64)


@pytest.mark.parametrize(
    ("role", "content", "expected"),
    [
        ("left", b"nothing", "^left image: not an image"),
        ("right", LEFT.read_bytes()[:20000], "^right image: damaged"),
        ("calibration", b"nothing", "^calibration: no calibration in a known format"),
        ("truth", b"nothing", "^ground truth: not an image"),
    ],
)
def test_errors_name_files_by_role_and_not_by_path(tmp_path, role, content, expected):
    files = {"left": LEFT, "right": RIGHT}
    files[role] = tmp_path / f"{role}{'.png' if role in files else '.pfm'}"
    files[role].write_bytes(content)
    with pytest.raises(StereoError, match=expected) as caught:
        perform(Request(model=SGBM, max_disparity=64, **files), Models(), tmp_path, quiet)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ranges_beyond_the_limit_are_refused(tmp_path):
    for max_disparity in (0, 100, 100000):
        with pytest.raises(StereoError, match="max disparity"):
            perform(Request(LEFT, RIGHT, SGBM, max_disparity), Models(), tmp_path, quiet)


def test_a_swapped_pair_is_matched_and_warned_of(tmp_path):
    outcome = perform(Request(RIGHT, LEFT, SGBM, 64), Models(), tmp_path, quiet)
    assert any(fault.startswith("swapped") for fault in outcome.faults)
    assert "swapped" in html.result(outcome, "results/x/")


def test_the_page_shows_all_and_nonoccluded_metrics_and_hints_at_wrong_units(tmp_path):
    left, right = cropped_pair(tmp_path)
    truth = read_disparity(TRUTH)[60:140, 60:220]
    pages, figures = [], []
    for scale in (1, 256):
        folder = tmp_path / str(scale)
        folder.mkdir()
        stored = folder / "truth.npy"
        np.save(stored, truth * np.float32(scale))
        outcome = perform(Request(left, right, SGBM, 64, truth=stored), Models(), folder, quiet)
        pages.append(html.result(outcome, "results/x/"))
        figures.append(json.loads((folder / "metrics.json").read_text()))
    for title, key in (("All pixels", "summary"), ("Non-occluded pixels", "noc")):
        after = pages[0].split(f"<p>{title}</p>")[1]
        assert f"<dt>EPE</dt><dd>{figures[0][key]['epe']:.3f} px</dd>" in after
    assert ["stored with a scale" in page for page in pages] == [False, True]


def test_a_least_confidence_computes_it_and_what_has_no_effect_is_noted(tmp_path):
    pair, counts, notes = cropped_pair(tmp_path), [], []
    np.save(tmp_path / "truth.npy", read_disparity(TRUTH)[60:140, 60:220])
    for least in (0.0, 0.95):
        request = Request(
            *(*pair, SGBM, 64),
            view="right",
            max_depth=2.0,
            min_confidence=least,
            truth=tmp_path / "truth.npy",
        )
        outcome = perform(request, Models(), tmp_path, quiet)
        counts.append(outcome.cloud.count)
        notes.append([note for note in outcome.notes if "not used" in note])
    assert counts[1] < counts[0]
    assert [note.partition(" is not used")[0] for note in notes[0]] == [
        *("the ground truth", "the max depth of points")
    ]
    request = Request(*pair, SGBM, 64, truth_scale=4.0)
    assert "the scale of the ground truth is not used: there is no ground truth" in (
        perform(request, Models(), tmp_path, quiet).notes
    )


@pytest.mark.parametrize("view", ["left", "right"])
def test_photograph_depth_and_points_are_those_of_the_view(tmp_path, view):
    cameras = tmp_path / "cameras.json"
    Calibration.rectified(fx=160, cx0=79.5, cx1=75.5, cy=39.5, baseline=0.1).write(cameras)
    pair = cropped_pair(tmp_path)
    request = Request(*pair, SGBM, 64, view=view, calibration=cameras)
    outcome = perform(request, Models(), tmp_path, quiet)
    assert outcome.cloud.principal == ({"left": 79.5, "right": 75.5}[view], 39.5)
    own = package.load(SGBM, max_disparity=64)(*pair, view=view)
    own.write_points(tmp_path / "own.ply", cameras)
    assert (tmp_path / "left.ply").read_bytes() == (tmp_path / "own.ply").read_bytes()
    photo, taken = (Image.open(tmp_path / f"{name}.png") for name in ("photo", view))
    assert np.array_equal(photo, taken)
    planes = np.fromfile(tmp_path / MAPS, "<f4").reshape(-1, 80, 160)
    depth = np.nan_to_num(planes[outcome.planes.index("depth")])
    assert np.array_equal(depth, own.depth(cameras))


def test_no_error_is_shown_where_there_is_no_ground_truth(tmp_path):
    stored = np.full((80, 160), 20, np.float32)
    stored[:, :50] = 0
    np.save(tmp_path / "truth.npy", stored)
    request = Request(*cropped_pair(tmp_path), SGBM, 64, truth=tmp_path / "truth.npy")
    outcome = perform(request, Models(), tmp_path, quiet)
    planes = np.fromfile(tmp_path / MAPS, "<f4").reshape(-1, 80, 160)
    shown = np.isfinite(planes[outcome.planes.index("error")])
    assert np.array_equal(shown, stored > 0)


@pytest.mark.parametrize("name", ["cloud", "maps", "photo", "metrics"])
def test_downloads_and_the_browsers_files_have_different_names(tmp_path, name, monkeypatch):
    monkeypatch.setattr("stereo.app.pipeline.SHOWN_POINTS", 5)
    cameras, folder = tmp_path / "cameras.json", tmp_path / "result"
    folder.mkdir()
    Calibration.rectified(fx=160, cx0=79.5, cy=39.5, baseline=0.1).write(cameras)
    request = Request(*cropped_pair(tmp_path, name), SGBM, 64, calibration=cameras)
    outcome = perform(request, Models(), folder, quiet)
    assert outcome.cloud.count == 5
    points = folder / f"{name}.glb"
    assert points in outcome.files and points.stat().st_size > 10_000


def test_external_text_is_escaped():
    shown = html.problem('<img src=x onerror="a()"> ${alert(1)} {{value}} `x`')
    inside = re.sub(r"&#?\w+;", "", shown.removeprefix('<div class="st-problem" role="alert">'))
    assert not set(inside.removesuffix("</div>")) & set("<>\"'${}`")


def test_a_port_in_use_is_one_line(stereo):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = stereo("app", "--port", taken.getsockname()[1])
    assert done.status == 1
    assert len(done.errors) == 1 and "another --port" in done.errors[0]
    done = stereo("app", "--port", 99999)
    assert done.status == 2 and done.errors[0].endswith("99999: expected 0 to 65535")


@needs_gradio
@pytest.mark.parametrize("grey", [False, True])
def test_copies_for_the_browser_keep_16_bits(tmp_path, rng, grey):
    from stereo.app.handlers import Handlers

    handlers = Handlers(Models(), Store(tmp_path / "results"), tmp_path)
    brightest, views, shown = (1023, 4095), [], []
    for name, most in zip(("left", "right"), brightest, strict=True):
        samples = rng.integers(0, most, (8, 8) if grey else (8, 8, 3), np.uint16, endpoint=True)
        samples[0, 0] = most
        views.append(tmp_path / f"{name}.{'pgm' if grey else 'ppm'}")
        cv2.imwrite(str(views[-1]), samples if grey else samples[..., ::-1])
        value, wrong = getattr(handlers, f"{name}_arrived")({"path": str(views[-1])}, None)
        assert wrong == "" and value.endswith(".png")
        shown.append(value)
    for one, other in zip(as_images(shown, shown), as_images(views, ["", ""]), strict=True):
        assert np.array_equal(one, other)


@needs_gradio
def test_a_chosen_model_brings_its_confidence_and_range(tmp_path):
    from stereo.app.handlers import Handlers

    models = Models()
    handlers = Handlers(models, Store(tmp_path / "results"), tmp_path)
    default = package.DEFAULT_MODEL
    assert handlers.model_chosen(default) == (True, models.max_disparity(default))
    assert handlers.model_chosen(SGBM) == (False, 192)


# The page, served by a process of its own.


@pytest.fixture(scope="module")
def address(page_server):
    return page_server[1]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *WITHOUT_GPU]
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Open the page in a session of its own; afterwards no outside request, no console error."""
    contexts, asked, complaints = [], [], []

    def open_page(width=640, height=640, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(180000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append((message.type, message.text)))
        page.on("pageerror", lambda error: complaints.append(("error", str(error))))
        page.goto(address)
        page.wait_for_selector("#st-match")
        return page

    yield open_page
    for context in contexts:
        context.close()
    hosts = {urlsplit(url).hostname for url in asked if url.startswith(("http", "ws"))}
    assert hosts == {"127.0.0.1"}
    assert [text for kind, text in complaints if kind == "error"] == []


def give(page, **files):
    """Upload images by side: files, or (name, bytes)."""
    for side, file in files.items():
        with page.expect_response(lambda answer: "/gradio_api/upload?" in answer.url):
            page.locator(f"#st-{side} input[type=file]").set_input_files(_as_upload(file))
        page.wait_for_timeout(200)


def _as_upload(file):
    if isinstance(file, Path):
        return file
    return {"name": file[0], "mimeType": "image/png", "buffer": file[1]}


def match(page):
    page.click("#st-match")
    page.wait_for_selector("stereo-maps[data-ready]")


def links(page):
    """Return the names and addresses of the downloads."""
    items = page.locator(".st-downloads a").all()
    return {item.get_attribute("download"): item.evaluate("a => a.href") for item in items}


def fetch(address, **options):
    try:
        with urllib.request.urlopen(urllib.request.Request(address, **options)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def download(page, address):
    answer = page.context.request.get(address)  # with the visitor's cookie
    return answer.status, answer.body()


def picture_of(locator):
    """Return what the viewport shows of an element, (H, W, 3), without waiting for frames."""
    locator.evaluate("element => element.scrollIntoView({block: 'center'})")
    shown = locator.page.screenshot(clip=locator.bounding_box())
    return np.asarray(Image.open(io.BytesIO(shown)).convert("RGB")).astype(int)


@needs_browser
@pytest.mark.slow
def test_an_uploaded_pair_gives_a_map_values_under_the_cursor_and_points_that_turn(visit, tmp_path):
    page = visit()
    give(page, left=LEFT, right=RIGHT)
    match(page)
    names = links(page)
    (tmp_path / "map.pfm").write_bytes(download(page, names["0006_disparity.pfm"])[1])
    disparity = read_disparity(tmp_path / "map.pfm")
    assert np.array_equal(disparity, package.load()(LEFT, RIGHT).disparity)
    shown = page.locator(".st-frame img")
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [448, 256]
    assert len(np.unique(picture_of(shown).reshape(-1, 3), axis=0)) > 500
    box = shown.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 300.5 / 448, box["y"] + box["height"] * 100.5 / 256)
    values = page.locator(".st-values").inner_text()
    assert "300, 100" in values and f"{disparity[100, 300]:.2f} px" in values
    assert re.search(r"Confidence [01]\.\d\d", values)
    page.get_by_role("button", name="Confidence").click()
    page.wait_for_function("document.querySelector('.st-frame img').src.endsWith('confidence.png')")
    assert "Depth" not in values and "0006.ply" not in names
    assert "unknown scale" in page.locator(".st-points").inner_text()
    cloud = page.locator("stereo-cloud[data-ready] canvas")
    phase = "document.querySelector('stereo-cloud').phase"
    page.wait_for_function(f"{phase} > 0")  # it turns by itself
    page.get_by_role("button", name="Pause").click()
    before = picture_of(cloud)
    assert len(np.unique(before.reshape(-1, 3), axis=0)) > 500
    page.wait_for_timeout(300)
    assert np.array_equal(picture_of(cloud), before)
    target = page.evaluate(phase) + 0.5
    page.get_by_role("button", name="Turn").click()
    page.wait_for_function(f"{phase} > {target}")
    page.get_by_role("button", name="Pause").click()
    assert (np.abs(picture_of(cloud) - before).max(axis=2) > 20).mean() > 0.02


@needs_browser
@pytest.mark.slow
def test_a_bundled_pair_has_depth_error_metrics_and_every_download(visit):
    page = visit(390, 844, color_scheme="dark", has_touch=True)
    page.locator("#st-bundled .gallery-item").first.click()
    page.wait_for_selector("#st-right img")
    match(page)
    values = page.locator(".st-values")
    page.locator(".st-frame").tap()
    assert re.search(r"Depth \d+\.\d+ m", values.inner_text())
    assert re.search(r"Error \d+\.\d+ px", values.inner_text())
    assert re.search(r"EPE\s+\d\.\d+ px", page.locator(".st-figures").inner_text())
    assert "points" in page.locator(".st-points .st-about").inner_text()
    assert "unknown scale" not in page.locator(".st-points").inner_text()
    found = {name: download(page, address) for name, address in links(page).items()}
    assert {status for status, _ in found.values()} == {200}
    ends = ["_color.png", "_disparity.pfm", "_disparity.png", "_disparity.npy", "_depth.npy"]
    ends += ["_confidence.png", "_depth.png", ".ply", ".glb", "_error.png"]
    expected = {f"bundled_1_left{end}" for end in ends} | {"metrics.json"}
    with zipfile.ZipFile(io.BytesIO(found.pop("bundled_1_left.zip")[1])) as archive:
        inside = {name: (200, archive.read(name)) for name in archive.namelist()}
    assert inside == found
    assert expected <= set(found)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@needs_browser
@pytest.mark.slow
def test_wrong_files_and_sizes_are_one_message_each(visit):
    page = visit()
    problem = page.locator(".st-problem")
    page.click("#st-match")
    problem.wait_for()
    assert "left image is missing" in problem.inner_text()
    smaller = io.BytesIO()
    Image.open(RIGHT).crop((0, 0, 400, 256)).save(smaller, "PNG")
    for text, files in {
        "left image: not an image": {"left": ("left.png", b"not an image")},
        "right image: more pixels": {"right": ("right.png", picture_header(20000, 20000))},
        "left 448x256, right 400x256": {"left": LEFT, "right": ("r.png", smaller.getvalue())},
    }.items():
        page.reload()
        page.wait_for_selector("#st-match")
        give(page, **files)
        page.get_by_text(text).wait_for()
        assert problem.count() == 1
    page.reload()
    page.wait_for_selector("#st-match")
    give(page, left=LEFT, right=("right.png", RIGHT.read_bytes()[:20000]))
    page.click("#st-match")
    page.get_by_text("right image: damaged or truncated").wait_for()
    shown = page.locator("body").inner_text()
    assert "Traceback" not in shown and "/uploads/" not in shown
    assert page.locator("stereo-maps").count() == 0


@needs_browser
@pytest.mark.slow
def test_two_visitors_at_once_have_their_own_results_which_go_when_they_leave(visit):
    pages = [visit(), visit()]
    for index, page in enumerate(pages):
        page.locator("#st-bundled .gallery-item").nth(index).click()
        page.wait_for_selector("#st-right img")
    for page in pages:
        page.click("#st-match")
    for number, page in enumerate(pages, 1):
        page.wait_for_selector("stereo-maps[data-ready]")
        assert page.locator(".st-summary h2").inner_text() == f"bundled_{number}_left"
    first, second = (links(page)[f"bundled_{n}_left.zip"] for n, page in enumerate(pages, 1))
    assert download(pages[0], first)[0] == download(pages[1], second)[0] == 200
    assert download(pages[1], first)[0] == download(pages[0], second)[0] == 404
    assert urlsplit(first).path.split("/")[2] != urlsplit(second).path.split("/")[2]
    pages[0].close()
    deadline = time.monotonic() + 20
    while download(pages[0], first)[0] == 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert download(pages[0], first)[0] == 404
    assert download(pages[1], second)[0] == 200


@needs_gradio
def test_the_server_answers_only_its_own_name_small_requests_and_known_files(address):
    assert fetch(address)[0] == 200
    assert fetch(address, headers={"Host": "evil.example"})[0] == 421
    assert fetch(f"{address}/gradio_api/queue/join", data=b"x" * 2**21)[0] == 413
    for path in ("page/..%2fserver.py", "results/x/y", "gradio_api/file=/etc/passwd"):
        assert fetch(f"{address}/{path}")[0] in (403, 404)


@needs_gradio
def test_a_path_that_was_not_uploaded_is_not_opened(tmp_path):
    from stereo.app.handlers import Handlers

    handlers = Handlers(Models(), Store(tmp_path / "results"), tmp_path / "uploads")
    for path in (str(LEFT), "/etc/passwd", f"{tmp_path}/uploads/../../etc/passwd", 3, None):
        assert "image" in handlers.check({"path": path}, None)
        assert "st-problem" in handlers.check({"path": path}, None)


@needs_gradio
@posix_only
@pytest.mark.slow
def test_a_stopped_page_leaves_no_file(tmp_path):
    with start_page(tmp_path) as (process, address, folder):
        assert fetch(address)[0] == 200
        assert [path.name[:11] for path in folder.iterdir() if path.is_dir()] == ["stereo-app-"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0
    assert [path.name for path in folder.iterdir()] == ["stderr"]
    assert (folder / "stderr").read_text() == ""
