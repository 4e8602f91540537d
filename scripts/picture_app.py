"""Take an image of ``stereo app`` showing a bundled, rendered pair, for the docs.

    python scripts/picture_app.py --output docs/images/app.png

``--size 390x844``, ``--dark`` and ``--whole`` look at it as a phone does, at night, and beyond the
first screen. It needs chromium, and the packages of the extra ``dev``.
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WITHOUT_GPU = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def main() -> None:
    """Start the page, match a pair, write the image, stop the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="the PNG file")
    parser.add_argument("--size", default="1280x1440", help="of the window, pixels")
    parser.add_argument("--pair", type=int, default=0, help="which of the bundled pairs, from 0")
    parser.add_argument("--dark", action="store_true", help="as where people prefer dark pages")
    parser.add_argument("--whole", action="store_true", help="all of the page, however long")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "stereo", "app", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = re.search(r"http://\S+:\d+", server.stdout.readline())
        if address is None:
            sys.exit("stereo app did not start")
        take(address[0], arguments)
    finally:
        server.terminate()
        server.wait()
    # 256 colours that cover the colour map, dithered: under half of the file.
    with Image.open(arguments.output) as picture:
        full = picture.convert("RGB")
    palette = full.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    small = full.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    small.save(arguments.output, optimize=True)


def take(address: str, arguments: argparse.Namespace) -> None:
    """Match the chosen pair on the page and take its image, with a pixel's values shown."""
    width, height = map(int, arguments.size.split("x"))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", *WITHOUT_GPU]
        )
        page = browser.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if arguments.dark else "light",
        )
        page.goto(address)
        page.locator("#st-bundled .gallery-item").nth(arguments.pair).click()
        page.wait_for_selector("#st-right img")
        page.click("#st-match")
        page.wait_for_selector("stereo-maps[data-ready]", timeout=120_000)
        page.wait_for_selector("stereo-cloud[data-ready]", timeout=120_000)
        page.get_by_role("button", name="Pause").click()
        page.evaluate("scrollTo(0, 0)")
        box = page.locator(".st-frame img").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + 0.75 * box["height"])
        page.wait_for_timeout(500)
        page.screenshot(path=arguments.output, full_page=arguments.whole)
        browser.close()


if __name__ == "__main__":
    main()
