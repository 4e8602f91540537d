"""Lay the maps and errors that ``stereo infer`` wrote side by side, as one image for the docs."""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

COLUMNS = 3
CELL = 240  # width of one map, pixels
TEXT = 16
GAP = 6


def main() -> None:
    """Read NAME_color.png and NAME_error.png of a folder; write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("maps", type=Path, help="the output folder of stereo infer")
    parser.add_argument("--output", type=Path, required=True, help="the image to write")
    arguments = parser.parse_args()
    names = sorted(
        path.relative_to(arguments.maps).as_posix().removesuffix("_color.png")
        for path in arguments.maps.rglob("*_color.png")
    )
    if not names:
        parser.error(f"{arguments.maps}: no *_color.png in it; 'stereo infer' writes them")
    cells = [cell(arguments.maps, name) for name in names]
    width = max(each.width for each in cells) + 2 * GAP
    rows = [cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)]
    heights = [max(picture.height for picture in row) + GAP for row in rows]
    sheet = Image.new("RGB", (COLUMNS * width, sum(heights)), "white")
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            sheet.paste(picture, (j * width, sum(heights[:i])))
    # 256 colours are enough for two colour maps, and a third of the file.
    sheet.quantize(256, dither=Image.Dither.NONE).save(arguments.output, optimize=True)


def cell(folder: Path, name: str) -> Image.Image:
    """Return one pair's map and, where there is ground truth, its error, with the name above."""
    paths = [folder / f"{name}_{kind}.png" for kind in ("color", "error")]
    pictures = [Image.open(path).convert("RGB") for path in paths if path.is_file()]
    scaled = [p.resize((CELL, round(p.height * CELL / p.width))) for p in pictures]
    width = len(scaled) * (CELL + GAP) - GAP
    together = Image.new("RGB", (width, TEXT + max(p.height for p in scaled)), "white")
    ImageDraw.Draw(together).text((0, 2), name, fill="black")
    for i, picture in enumerate(scaled):
        together.paste(picture, (i * (CELL + GAP), TEXT))
    return together


if __name__ == "__main__":
    main()
