"""Photographs from a folder of the user's, as textures."""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from stereo.data.io.images import IMAGE_SUFFIXES, is_hidden, read_image
from stereo.data.io.picture_file import open_picture
from stereo.data.synthetic.rng import SceneRng
from stereo.errors import InputError
from stereo.system.limits import check_file

LARGEST_PHOTOGRAPH = 1024  # longer sides are reduced to it on reading, pixels


def find_photographs(folder: str) -> list[Path]:
    """Return the pictures below a folder in a fixed order.

    Raises:
        InputError: there is no such folder, or no picture in it, or one that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --textures names a folder of pictures")
    found = sorted(
        (
            p
            for p in root.rglob("*")
            if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file() and not is_hidden(p, root)
        ),
        key=lambda p: p.relative_to(root).as_posix(),
    )
    if not found:
        raise InputError(f"{root}: holds no pictures; --textures names a folder of pictures")
    for path in found:
        check_file(path)
        with open_picture(path, str(path)):
            pass  # the header is enough here: what is damaged further on is named when it is read
    return found


@lru_cache(maxsize=48)
def _photograph(path: Path) -> Image.Image:
    image = Image.fromarray(read_image(path))
    image.thumbnail((LARGEST_PHOTOGRAPH, LARGEST_PHOTOGRAPH), Image.Resampling.BOX)
    return image


def cut(rng: SceneRng, path: Path, size: int) -> Tensor:
    """Return a random square window of a photograph, (3, size, size) in 0..1, newly exposed."""
    image = _photograph(path)
    short = min(image.size)
    side = max(1, int(rng.uniform(min(0.3, size / short), 1.0) * short))
    left = rng.whole(0, image.width - side)
    top = rng.whole(0, image.height - side)
    window = image.resize(
        (size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
    )
    if rng.chance(0.5):
        window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # Banks of textures lean dark and dull: another brightness curve and saturation for each.
    mean = np.asarray(window.convert("L"), np.int64).mean() / 255.0
    aim = rng.uniform(0.25, 0.75)
    gamma = math.log(aim) / math.log(min(max(mean, 0.02), 0.98))
    gamma = min(max(gamma, 0.4), 2.0)
    table = [round(255.0 * (k / 255.0) ** gamma) for k in range(256)]
    window = ImageEnhance.Color(window.point(table * 3)).enhance(rng.uniform(0.4, 2.0))
    return torch.from_numpy(np.array(window)).permute(2, 0, 1).float() / 255.0
