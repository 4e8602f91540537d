"""Reports: what stands on them, and that they work in a browser, from disk, with nothing else."""

import base64
import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from stereo.commands.cli import run
from stereo.data.io.disparities import write_disparity
from stereo.errors import InputError
from stereo.evaluation.evaluate import against_folders
from stereo.evaluation.metrics import image_record, score_image, summaries
from stereo.evaluation.outputs import PairOutput, write_pair
from stereo.evaluation.protocols import get_protocol
from stereo.evaluation.regions import BINS
from stereo.evaluation.report import compare, images
from stereo.evaluation.report.charts import Line, line_chart, ticks
from stereo.evaluation.report.pictures import (
    ALL_UP_TO,
    FOLDER,
    SAMPLED,
    WORST,
    PictureKeeper,
    write_pictures,
)
from stereo.evaluation.report.runs import match_runs, read_run

pytestmark = pytest.mark.xdist_group("report")  # of one browser

SIZE = (48, 96)
SHIFT = 6
HOSTILE = "</script><script>alert(1)</script>"
ODD = "set/\"quoted\" & 'é' \u202e #?%41 {{ 7*7 }}<img src=x onerror=alert(1)>"
NAMES = ("set/plain", HOSTILE, ODD)
SHORT = ("--max-disparity", "16")


def write_data(folder):
    """Write a data set of three pairs; the second half of each has another depth."""
    entries = []
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        right = rng.integers(0, 256, (*SIZE, 3), np.uint8)
        truth = np.full(SIZE, SHIFT, np.float32)
        truth[:, SIZE[1] // 2 :] = SHIFT + 2 + seed
        columns = np.arange(SIZE[1]) - truth.astype(int)
        left = right[np.arange(SIZE[0])[:, None], columns % SIZE[1]]
        paths = {"left": f"{seed}l.png", "right": f"{seed}r.png", "gt": f"{seed}.pfm"}
        Image.fromarray(left).save(folder / paths["left"])
        Image.fromarray(right).save(folder / paths["right"])
        write_disparity(folder / paths["gt"], truth)
        entries.append({"name": name, **paths})
    (folder / "manifest.json").write_text(json.dumps(entries))
    return folder


def call(*arguments):
    return run([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The default model over the pairs, against semi-global matching; and the latter alone."""
    folder = tmp_path_factory.mktemp("report")
    data = ("--dataset", "manifest", "--root", write_data(folder), *SHORT)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        assert call("evaluate", *data, "--against", "sgbm", "--output", folder / "run") == 0
    (folder / "told.txt").write_text(told.getvalue(), encoding="utf-8")
    assert call("evaluate", *data, "--model", "sgbm", "--output", folder / "sgbm") == 0
    return folder


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(browser):
    """Open a page from disk; at the end nothing must have gone wrong or been asked for."""
    contexts, complaints = [], []

    def open_page(path, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        url = Path(path).resolve().as_uri()
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("data:", url)) or complaints.append(request.url)
            ),
        )
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def names_of(page):
    return page.locator("table.images tbody th").evaluate_all(
        "cells => cells.map(cell => cell.dataset.value)"
    )


def test_external_names_stay_text(runs, show):
    page = show(runs / "run" / "report.html")
    assert sorted(names_of(page)) == sorted(NAMES)
    headings = page.locator(".card h3").evaluate_all("all => all.map(h => h.lastChild.textContent)")
    assert sorted(headings) == sorted(NAMES)
    assert page.locator("script").count() == 2
    assert page.locator("img[src=x]").count() == 0


def test_the_table_sorts(runs, show):
    page = show(runs / "run" / "report.html")
    worst_first = names_of(page)
    epe = page.locator("table.images th[data-column='1'] button")
    epe.click()  # by the first model's EPE, the largest first: the order it came in
    assert names_of(page) == worst_first
    epe.click()
    assert names_of(page) == worst_first[::-1]
    assert page.locator("th[aria-sort='ascending']").count() == 1
    page.locator("table.images th[data-column='0'] button").click()
    by_name = names_of(page)
    page.locator("table.images th[data-column='0'] button").click()
    assert names_of(page) == by_name[::-1]


def test_the_slider_compares_any_two_images(runs, show):
    page = show(runs / "run" / "report.html")
    card = page.locator(".card").first
    over = card.locator(".over")
    clip = "picture => getComputedStyle(picture).clipPath"
    before = over.evaluate(clip)
    card.locator(".view").scroll_into_view_if_needed()
    box = card.locator(".view").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] / 2)
    page.mouse.up()
    after = over.evaluate(clip)
    assert before != after
    assert (
        float(re.findall(r"--cut: ([\d.]+)%", card.locator(".view").get_attribute("style"))[0]) < 25
    )
    choices = card.locator("select")
    options = choices.nth(0).locator("option").all_text_contents()
    assert options[:2] == ["Left view", "Ground truth"]
    assert len(options) == len(set(options)) == 6  # a disparity and an error of both models
    for i in range(len(options)):
        choices.nth(0).select_option(str(i))
        choices.nth(1).select_option(str((i + 1) % 6))
        sources = card.locator(".panel img").evaluate_all("all => all.map(img => img.src)")
        assert over.get_attribute("src") == sources[i]
        assert card.locator(".under").get_attribute("src") == sources[(i + 1) % 6]
    card.locator(".panel").nth(0).click()
    assert card.locator(".tag.b").text_content() == "Left view"


def test_dark_follows_the_system_and_the_button(runs, show):
    light, dark = (
        show(runs / "run" / "report.html", color_scheme=scheme) for scheme in ("light", "dark")
    )
    colors = background(light), background(dark)
    assert colors[0] != colors[1]
    for page, other in ((light, colors[1]), (dark, colors[0])):
        own = background(page)
        page.locator(".theme").click()
        assert background(page) == other
        page.locator(".theme").click()
        assert background(page) == own
    dark.emulate_media(media="print")
    assert background(dark) == colors[0]


@pytest.mark.parametrize("report", ["run", "sgbm"])
def test_a_phone_scrolls_only_vertically(runs, show, report):
    page = show(runs / report / "report.html", viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_metrics_and_images_are_shown_without_scripts(runs, show):
    page = show(runs / "run" / "report.html", java_script_enabled=False)
    assert page.locator(".stage").first.is_hidden()
    assert page.locator(".theme").is_hidden()
    panels = page.locator(".card").first.locator(".panel img")
    assert panels.count() == 6
    assert all(panels.nth(i).is_visible() for i in range(6))


def test_print_shows_every_image_and_no_control(runs, show):
    page = show(runs / "run" / "report.html")
    page.emulate_media(media="print")
    assert not page.locator(".stage").first.is_visible()
    assert not page.locator(".theme").is_visible()
    assert page.locator(".panel img").last.is_visible()


def test_the_report_states_protocol_models_and_how_to_add_what_is_missing(runs):
    both, alone = (
        (runs / name / "report.html").read_text(encoding="utf-8") for name in ("run", "sgbm")
    )
    for page in (both, alone):
        assert "protocol pooled: mask 0 &lt; d &lt; 192" in page
        assert "--confidence" in page
        assert "Near depth edges" in page
        assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "--against sgbm" in alone
    assert "--against sgbm" not in both
    metrics = json.loads((runs / "run" / "metrics.json").read_text())
    assert f"{metrics['summary']['epe']:.3f}" in both
    other = json.loads((runs / "run" / "against" / "sgbm" / "metrics.json").read_text())
    assert f"{other['summary']['epe']:.3f}" in both
    assert metrics["run"]["machine"]["torch"]
    assert {"peak_bytes", "above_start_bytes", "kind"} == metrics["run"]["memory"].keys()


def test_against_gives_the_metrics_of_a_separate_run(runs):
    one = json.loads((runs / "run" / "against" / "sgbm" / "metrics.json").read_text())
    other = json.loads((runs / "sgbm" / "metrics.json").read_text())
    assert one["summary"] == other["summary"]


def test_against_prints_one_table_of_all_models(runs):
    told = (runs / "told.txt").read_text(encoding="utf-8").splitlines()
    assert sum("| EPE " in line for line in told) == 1
    assert sum(line.startswith("report: ") for line in told) == 1
    for name in ("ea_stereo", "sgbm"):
        rows = [line.split("|")[2].strip() for line in told if line.startswith(f"| {name} ")]
        assert rows == ["all", "noc"]
    assert (runs / "run" / "against" / "sgbm" / "report.html").is_file()


def test_the_report_has_metrics_of_all_and_nonoccluded_pixels(runs, tmp_path):
    def drop(metrics):
        del metrics["images"][1]

    page = (runs / "run" / "report.html").read_text(encoding="utf-8")
    assert "Non-occluded pixels, by geometry" in page
    alone = (runs / "sgbm" / "report.html").read_text(encoding="utf-8")
    metrics = json.loads((runs / "sgbm" / "metrics.json").read_text())
    for image in metrics["images"]:
        assert f">{image['noc']['epe']:.3f}<" in alone
    visible = alone.partition("Visible in both views")[2]
    assert f">{metrics['noc']['epe_pixel']:.2f}<" in visible.partition("</tr>")[0]
    for folder in (runs / "run", runs / "run" / "against" / "sgbm"):
        noc = json.loads((folder / "metrics.json").read_text())["noc"]
        assert re.search(rf"<td[^>]*>{noc['epe']:.3f}</td>", page)
    fewer = changed(runs / "sgbm", tmp_path / "fewer", drop)  # averaged anew
    page = compare([fewer, runs / "sgbm"], tmp_path / "out").read_text(encoding="utf-8")
    images = json.loads((fewer / "metrics.json").read_text())["images"]
    nocs = [image["noc"] for image in images]
    epe = np.average([n["epe"] for n in nocs], weights=[n["valid_pixels"] for n in nocs])
    assert re.search(rf"<td[^>]*>{epe:.3f}</td>", page)


def test_metrics_of_an_older_version_still_make_a_report(runs, tmp_path):
    def age(metrics):
        del metrics["noc"]
        for image in metrics["images"]:
            del image["noc"], image["regions"]["occluded"]

    page = compare([changed(runs / "sgbm", tmp_path / "old", age)], tmp_path / "out")
    assert "Non-occluded pixels," not in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_hundred_images_stay_under_30_mb(tmp_path, show):
    rng = np.random.default_rng(0)
    (tmp_path / FOLDER).mkdir()
    rows, columns = np.mgrid[:450, :800]
    truth = (60 + 20 * np.sin(columns / 70) + 9 * np.cos(rows / 40)).astype(np.float32)
    records = []
    for i in range(4):  # as detailed as photographs, and more
        left = Image.fromarray(rng.integers(0, 256, (75, 133, 3), np.uint8)).resize((800, 450))
        noise = Image.fromarray(rng.normal(0, 4, (150, 266)).astype(np.float32)).resize((800, 450))
        estimate = truth + np.asarray(noise)
        valid = np.ones_like(truth, bool)
        records.append(write_pictures(tmp_path, str(i), np.asarray(left), estimate, truth, valid))
    metrics = {
        "model": {"name": "model"},
        "protocol": {"name": "pooled", "mask": "0 < d < 192", "averaging": "pooled"},
        "images": [
            {"name": f"image {i}", "epe": i / 7, "bad_3": i / 9, "valid_pixels": 360_000}
            | {"seconds": 0.1, "pictures": records[i % 4]}
            for i in range(100)
        ],
        "summary": {"images": 100, "epe": 7.07},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    report = compare([tmp_path], tmp_path / "out")
    assert 8e6 < report.stat().st_size < 30e6
    page = show(report)
    assert len(names_of(page)) == 100
    assert page.locator(".card").count() == WORST + SAMPLED
    assert page.locator(".card h3").first.text_content() == "1image 99"
    assert "Pictures of 48 of 100 images" in page.locator("#worst .lead").text_content()
    # A link to a picture that is folded away unfolds it.
    page.locator("table.images a", has_text="image 0").last.click()
    assert page.locator(".card").last.is_visible()


def test_a_budget_limits_the_images_and_the_page_says_what_is_omitted(runs, monkeypatch):
    monkeypatch.setattr(images, "PICTURE_BUDGET", 1)
    page = compare([runs / "run"], runs / "small").read_text(encoding="utf-8")
    assert page.count('class="card"') == 1
    assert "Pictures of 1 of 3 images" in page


def test_a_sample_and_the_worst_of_many_images_are_shown(tmp_path):
    count = ALL_UP_TO + 30
    epes = np.random.default_rng(0).permutation(count).astype(float)
    keeper = PictureKeeper(tmp_path, count)
    plain = np.ones((4, 6), np.float32)
    for index, epe in enumerate(epes):
        left = np.zeros((4, 6, 3), np.uint8)
        keeper.keep(index, left, plain, plain, np.ones((4, 6), bool), epe)
    kept = set(keeper.records)
    sampled = set(np.linspace(0, count - 1, SAMPLED).round().astype(int).tolist())
    rest = sorted(set(range(count)) - sampled, key=lambda i: epes[i])
    assert kept == sampled | set(rest[-WORST:])
    on_disk = {int(path.name[:5]) for path in (tmp_path / FOLDER).iterdir()}
    assert on_disk == kept


def test_sparse_truth_keeps_its_points_and_its_scale(tmp_path):
    (tmp_path / FOLDER).mkdir()
    truth = np.full((900, 1600), np.inf, np.float32)
    truth[::4, ::4] = 40
    valid = np.isfinite(truth)
    estimate = np.full_like(truth, 48)
    left = np.zeros((900, 1600, 3), np.uint8)
    record = write_pictures(tmp_path, "a", left, estimate, truth, valid)
    assert (record["width"], record["height"], record["disparity_limit_px"]) == (800, 450, 48)
    error = np.asarray(Image.open(tmp_path / record["error"]))
    assert error.shape == (450, 800, 3)
    # The end of the scale, on grey: 8 px are its last colour, and points of it come out as that.
    dark_red = (error[..., 0] > 90) & (error[..., 1] < 60) & (error[..., 2] < 60)
    assert dark_red.mean() > 0.3


def test_the_pictures_of_an_image_share_a_scale_and_show_no_error_without_truth(tmp_path):
    (tmp_path / FOLDER).mkdir()
    truth, estimate = np.full((2, 64, 96), 20, np.float32)
    truth[:, 32:64] = 40
    estimate[:, 64:] = 40
    estimate[:16] = 190
    valid = np.ones(truth.shape, bool)
    valid[:, 64:] = False
    left = np.zeros((64, 96, 3), np.uint8)
    record = write_pictures(tmp_path, "a", left, estimate, truth, valid)
    shown = {
        kind: np.asarray(Image.open(tmp_path / record[kind])).astype(int)[24:56, 8::32].mean(axis=0)
        for kind in ("truth", "disparity", "error")
    }  # a column of each third
    maps = [*shown["truth"], *shown["disparity"], *shown["error"]]
    away = [[float(np.abs(one - other).max()) for other in maps] for one in maps]
    #         20 px 40 px none, 20 px 20 px 40 px, right wrong none
    alike = [(0, 3), (0, 4), (1, 5), (2, 8)]
    assert all(away[one][other] < 12 for one, other in alike)
    different = [(0, 1), (0, 2), (1, 2), (6, 7), (6, 8), (7, 8)]
    assert all(away[one][other] > 40 for one, other in different)


def test_maps_of_several_models_have_the_colours_of_one_scale(tmp_path):
    truth = np.full((20, 200), 12, np.float32)
    pictures = []
    for wrong in (100, 12):
        disparity = truth.copy()
        disparity[:, 100:] = wrong
        output = PairOutput(disparity, truth, np.ones(truth.shape, bool))
        write_pair(tmp_path, f"{wrong}", ["color"], output)
        pictures.append(np.asarray(Image.open(tmp_path / f"{wrong}_color.png")))
    assert np.array_equal(pictures[0][:20, :100], pictures[1][:20, :100])


def test_each_picture_is_that_of_its_caption(runs):
    page = (runs / "run" / "report.html").read_text(encoding="utf-8")
    panel = r'<img src="data:image/webp;base64,([^"]+)".*?<figcaption>(.*?)</figcaption>'
    captions = dict(re.findall(panel, page, re.S))
    labels = {"left": "Left view", "truth": "Ground truth"}
    labels |= {"disparity": "Disparity, {}", "error": "Error, {}"}
    for name, folder in (("ea_stereo", "run"), ("sgbm", "run/against/sgbm")):
        for image in json.loads((runs / folder / "metrics.json").read_text())["images"]:
            for kind, label in labels.items():
                content = (runs / folder / image["pictures"][kind]).read_bytes()
                said = captions[base64.b64encode(content).decode()]
                assert said == label.format(name)


def test_infer_with_ground_truth_writes_a_report(tmp_path, show):
    write_data(tmp_path)
    odd = tmp_path / "<b>left</b> & #1.png".replace("/", "")
    shutil.copy(tmp_path / "0l.png", odd)
    out = tmp_path / "out"
    pair = (odd, tmp_path / "0r.png", "--model", "sgbm", "--ground-truth", tmp_path / "0.pfm")
    assert call("infer", *pair, "--output", out, *SHORT) == 0
    page = show(out / "report.html")
    assert names_of(page) == [odd.stem]
    assert page.locator(".panel").count() == 4


def test_infer_without_ground_truth_writes_none(tmp_path):
    write_data(tmp_path)
    pair = (tmp_path / "0l.png", tmp_path / "0r.png", "--model", "sgbm")
    assert call("infer", *pair, "--output", tmp_path / "out", *SHORT) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "0l_color.png",
        "0l_disparity.pfm",
    }


def test_compare_prints_its_table_with_all_and_nonoccluded_pixels(runs, tmp_path, stereo):
    result = stereo("compare", runs / "run", runs / "sgbm", "--output", tmp_path / "out")
    assert (result.status, result.errors) == (0, [])
    for name, folder in (("ea_stereo", "run"), ("sgbm", "sgbm")):
        metrics = json.loads((runs / folder / "metrics.json").read_text())
        rows = [line for line in result.out.splitlines() if line.startswith(f"| {name} ")]
        for key, row in zip(("summary", "noc"), rows, strict=True):
            assert f"{metrics[key]['epe']:.2f}" in row
    assert "protocol pooled" in result.out


def test_differences_come_with_their_interval_over_images(runs, tmp_path, stereo):
    def scored(name, shift):
        def change(metrics):
            (record, *_), count = metrics["images"], 40
            metrics["images"] = [
                record
                | {"name": f"{i}", "index": i, "epe": 1 + i / 10 + shift(i)}
                | {"bad_2": 20 + i + 10 * shift(i)}
                for i in range(count)
            ]
            metrics["model"]["name"] = name

        return changed(runs / "sgbm", tmp_path / name, change)

    paths = [
        scored("first", lambda i: 0),
        scored("better", lambda i: -0.2 - 0.1 * (i % 2)),
        scored("as_good", lambda i: 0.3 if i % 2 else -0.3),
    ]
    result = stereo("compare", *paths, "--output", tmp_path / "out")
    lines = [line for line in result.out.splitlines() if " minus first: EPE " in line]
    means, rates = (
        [float(line.split(f"{name} ")[1].split()[0]) for line in lines] for name in ("EPE", "bad-2")
    )
    ends = [
        [float(end) for end in re.search(r"px \((\S+) to (\S+)\)", each).groups()] for each in lines
    ]
    assert (means, rates) == ([-0.25, 0], [-2.5, 0])
    assert -0.27 < ends[0][0] < -0.25 < ends[0][1] < -0.23
    assert ends[1] == pytest.approx([-1.96 * 0.3 / 40**0.5, 1.96 * 0.3 / 40**0.5], rel=0.05)
    assert lines[0].strip() in (tmp_path / "out/report.html").read_text()

    def skip(metrics):
        metrics["images"][0] |= {"skipped": True, "epe": 1e6}

    skipping = changed(paths[1], tmp_path / "skipping", skip)
    result = stereo("compare", paths[0], skipping, "--output", tmp_path / "skipped")
    assert f" minus first: EPE {-(0.2 * 39 + 0.1 * 20) / 39:+.3f} px" in result.out
    few = changed(
        paths[1], tmp_path / "few", lambda metrics: metrics.update(images=metrics["images"][:4])
    )
    assert " minus " not in stereo("compare", paths[0], few, "--output", tmp_path / "two").out


def test_compare_says_that_the_layouts_differed(runs, tmp_path, stereo):
    def named(layout):
        return lambda metrics: metrics["protocol"].update(layout=layout)

    paths = [
        changed(runs / "sgbm", tmp_path / layout, named(layout))
        for layout in ("perfect", "imperfect")
    ]
    result = stereo("compare", *paths, "--output", tmp_path / "out")
    assert "note: The runs read different layouts of the data set:" in result.out


def test_compare_says_that_the_ground_truth_differed(runs, tmp_path, stereo):
    def shift(metrics):  # as many pixels, but at other disparities
        bins = metrics["images"][0]["regions"]
        one = next(name for name in BINS if name in bins)
        other = next(name for name in BINS if name not in bins)
        bins[other] = bins.pop(one)

    other = changed(runs / "sgbm", tmp_path / "other", shift)
    result = stereo("compare", runs / "run", other, "--output", tmp_path / "out")
    assert "note: The runs counted different pixels in 1 image" in result.out


def test_compare_replaces_no_runs_report(tmp_path, stereo):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.json").write_text("{}")
    for named in (run, run / "metrics.json", tmp_path / "other"):
        result = stereo("compare", named, "--output", run)
        assert result.status == 2
        assert "is a run, whose report would be replaced; name another folder" in result.errors[-1]


def test_compare_puts_runs_side_by_side_by_name(runs, show):
    report = compare([runs / "run", runs / "sgbm" / "metrics.json"], runs / "both")
    page = show(report)
    headings = page.locator("#summary tbody th[scope=row]").all_text_contents()
    assert headings == ["ea_stereo", "sgbm"] * 2  # all pixels, non-occluded ones
    card = page.locator(".card").first
    assert card.locator(".panel").count() == 6
    found = [json.loads((runs / name / "metrics.json").read_text()) for name in ("run", "sgbm")]
    worst = max(range(3), key=lambda i: max(each["images"][i]["epe"] for each in found))
    assert card.locator("h3").text_content() == f"1{NAMES[worst]}"
    best = page.locator("#summary tbody").first.locator("td:nth-of-type(1).best")
    least = min(each["summary"]["epe"] for each in found)
    assert best.all_text_contents() == [f"{least:.3f}"]


def changed(folder, target, change):
    """Copy a run's figures, changed."""
    target.mkdir(exist_ok=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    change(metrics)
    (target / "metrics.json").write_text(json.dumps(metrics))
    return target


def test_runs_on_other_images_are_compared_over_those_in_common(runs, tmp_path):
    def drop(metrics):
        del metrics["images"][1]
        metrics["summary"]["confidence"] = {"curves": {}}

    fewer = changed(runs / "sgbm", tmp_path / "fewer", drop)
    page = compare([runs / "run", fewer], tmp_path / "out").read_text(encoding="utf-8")
    assert "1 image is not in every run" in page
    assert "measured over other images" in page
    images = json.loads((fewer / "metrics.json").read_text())["images"]
    pixels = [image["valid_pixels"] for image in images]
    epe = np.average([image["epe"] for image in images], weights=pixels)
    assert f"<td>{epe:.3f}</td>" in page or f'<td class="best">{epe:.3f}</td>' in page
    assert "sgbm" in page


def test_groups_of_eight_are_those_of_the_data_whichever_pairs_failed(tmp_path):
    rules, truth = get_protocol("psmnet"), np.full((2, 3), 50, np.float32)
    valid = np.ones(truth.shape, bool)
    scores = [score_image(f"{i}", i, truth + i**2, truth, valid, rules) for i in range(10)]
    for name, having in (("all", scores), ("failed", scores[1:])):
        report = {
            "model": {"name": name},
            "protocol": rules.to_dict(),
            "images": [image_record(score) for score in having],
            **summaries(having, rules.averaging),
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    runs = [read_run(tmp_path / f"{name}.json") for name in ("all", "failed")]
    expected = runs[1].summary["epe"]
    assert [run.summary["epe"] for run in match_runs(runs).runs] == [expected] * 2


def test_two_runs_of_one_model_are_distinguished_by_their_folders(runs, tmp_path):
    other = changed(runs / "sgbm", tmp_path / "second", lambda metrics: None)
    page = compare([runs / "sgbm", other], tmp_path / "out").read_text(encoding="utf-8")
    assert "sgbm (sgbm)" in page
    assert "sgbm (second)" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["protocol"].update(name="raft"), "protocol 'raft'"),
        (lambda m: m["protocol"].update(split="test"), "split 'test'"),
        (lambda m: m["protocol"].update({"pass": "clean"}), "pass 'clean'"),
        (lambda m: m["protocol"].update(dataset="eth3d"), "data set 'eth3d'"),
        (lambda m: [i.update(name=i["name"] + "x") for i in m["images"]], "no image in common"),
        (lambda m: m.pop("summary"), "not a run's metrics"),
        (lambda m: m["noc"].update(mask={}), "not a run's metrics"),
        (lambda m: m["images"].append({"name": "a"}), "not a run's metrics"),
        (lambda m: m["images"].append("a"), "not a run's metrics"),
        (lambda m: m["summary"].update(regions=3), "does not understand"),
        (lambda m: m["summary"].update(confidence={"curves": 3}), "does not understand"),
    ],
)
def test_runs_that_cannot_be_compared_are_one_line(runs, tmp_path, stereo, change, said):
    other = changed(runs / "sgbm", tmp_path / "other", change)
    result = stereo("compare", runs / "run", other, "--output", tmp_path / "out")
    assert result.status == 1
    (line,) = result.errors
    assert said in line
    assert not (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("content", [None, "", "[1]", "{", '{"model": 3}', "[" * 100_000])
def test_inputs_that_are_not_runs_are_one_line(runs, tmp_path, stereo, content):
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    result = stereo("compare", runs / "run", tmp_path, "--output", tmp_path / "out")
    assert (result.status, len(result.errors)) == (1, 1)
    assert "metrics.json" in result.errors[0]


def test_a_comparison_reads_no_file_outside_the_run(runs, tmp_path):
    def point_outside(metrics):
        for image in metrics["images"]:
            image["pictures"]["left"] = "../secret.webp"
            image["pictures"]["truth"] = str(tmp_path / "secret.webp")
            image["pictures"]["error"] = 3

    (tmp_path / "secret.webp").write_bytes(b"secret" * 99)
    other = changed(runs / "sgbm", tmp_path / "run", point_outside)
    page = compare([other], tmp_path / "out").read_text(encoding="utf-8")
    assert "c2VjcmV0" not in page  # "secret" in base 64
    assert "No pictures lie beside these figures" in page


def test_folders_of_models_differ_without_regard_to_case(tmp_path):
    models = [SimpleNamespace(description={"name": name}) for name in ("mine", "Other", "other")]
    folders = against_folders(tmp_path, models[0], [models[1], models[2], models[0]])
    assert [folder.name for folder in folders] == ["Other", "other_2", "mine_2"]


def test_wrong_calls_of_against_are_one_line(tmp_path, stereo):
    options = ("--dataset", "manifest", "--root", write_data(tmp_path), "--output", tmp_path / "o")
    for against, said in (("sgbm,sgbm", "named twice"), ("nothing", "unknown model")):
        result = stereo("evaluate", *options, "--against", against)
        assert (result.status, len(result.errors)) == (2, 1)
        assert said in result.errors[0]


def test_a_full_disk_costs_images_but_not_metrics(tmp_path, stereo):
    write_data(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / FOLDER).write_text("in the way")
    options = ("--dataset", "manifest", "--root", tmp_path, "--model", "sgbm", *SHORT)
    result = stereo("evaluate", *options, "--output", out)
    assert result.status == 0
    assert sum("without further pictures" in line for line in result.errors) == 1
    assert (out / "metrics.json").exists()
    assert "No pictures lie beside" in (out / "report.html").read_text(encoding="utf-8")


def test_ticks_are_round_and_hold_the_range():
    for low, high in ((0, 1), (0, 0.037), (0, 190), (0, 1e-5), (-3, 12), (0, 0)):
        found = ticks(low, high)
        assert found[0] <= low
        assert found[-1] >= high
        assert 2 <= len(found) <= 8


def test_times_are_those_of_the_images(runs, tmp_path):
    def time(metrics):
        for image, seconds in zip(metrics["images"], (9, 1, 2), strict=True):
            image["seconds"] = seconds

    timed = changed(runs / "sgbm", tmp_path / "timed", time)
    page = compare([timed], tmp_path / "out").read_text(encoding="utf-8")
    assert "<td>2.000 s</td><td>9.000 s</td><td>12.0 s</td>" in page


def test_the_reliability_chart_has_confidence_across_and_right_pixels_upwards(runs, tmp_path):
    row = {"low": 0.2, "high": 0.3, "pixels": 9, "confidence": 0.25, "within_3_px": 0.75}

    def measure(metrics):
        metrics["summary"]["confidence"] = {"curves": {}, "reliability": [row]}

    run = changed(runs / "sgbm", tmp_path / "run", measure)
    page = compare([run], tmp_path / "out").read_text(encoding="utf-8")
    (place,) = re.findall(r'<circle class="main" cx="([\d.]+)" cy="([\d.]+)"', page)
    diagonal = re.search(r'class="line faint" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', page)
    left, bottom, right, top = map(float, diagonal.groups())
    assert float(place[0]) == pytest.approx(left + 0.25 * (right - left), abs=0.1)
    assert float(place[1]) == pytest.approx(bottom - 0.75 * (bottom - top), abs=0.1)
    assert top < bottom


def test_charts_skip_non_numbers_and_escape_text():
    nan, infinity = float("nan"), float("inf")
    chart = line_chart("<b>", [Line("a", [0, infinity, 2], [1, 1, nan])], "<x>", "y")
    assert "<b>" not in chart
    assert "<x>" not in chart
    assert "nan" not in chart and "inf" not in chart
    assert line_chart("none", [Line("a", [], [])], "x", "y") == ""


def test_compare_needs_readable_runs(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        compare([tmp_path / "nowhere"], tmp_path / "out")
