"""Draw what the templates of efficient attention look at in a pair.

    python scripts/draw_attention.py LEFT RIGHT --output docs/images/attention.png

Efficient attention writes each cell of the volume as a mixture of K templates per head, and each
template is an average of all cells under a softmax over positions (Shen et al.). A panel is a
template: where its weights lie, summed over disparity (bright: the most), and beside it on which
planes. The last row shows rows of the implied map rho_q(Q) rho_k(K)^T: the weights that single
cells (marked) give to the others. Templates come in the order of what they add to the volume.
"""

import argparse
from pathlib import Path

from stereo.system.console import run_script  # before PyTorch, whose threads it prepares

# isort: split
import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

import stereo
from stereo.attention.efficient import EfficientAttention
from stereo.attention.volume import to_tokens
from stereo.data.io.images import read_image
from stereo.system.files import output_folder, staged

TEMPLATES = 6
CELLS = ((0.25, 0.5), (0.6, 0.4), (0.8, 0.75))  # rows and columns, as shares of the image
WIDTH = 360
BARS = 120
GAP = 6


def main() -> None:
    """Match the pair, capture the attention's volume, draw."""
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("left", type=Path)
    parser.add_argument("right", type=Path)
    parser.add_argument(
        "--model", default="ea_stereo_fast", help="a network's name or a checkpoint"
    )
    parser.add_argument("--output", type=Path, required=True, help="the image to write")
    arguments = parser.parse_args()
    output_folder(arguments.output.parent)
    matcher = stereo.load(arguments.model, precision="fp32", device="cpu")
    modules = () if matcher.network is None else matcher.network.modules()
    attention = next((m for m in modules if isinstance(m, EfficientAttention)), None)
    if attention is None:
        parser.error(f"{arguments.model} has no efficient attention")
    volumes: list[Tensor] = []
    hook = attention.register_forward_pre_hook(lambda _, given: volumes.append(given[0].clone()))
    left = read_image(arguments.left)
    matcher(left, read_image(arguments.right))
    hook.remove()
    shares, mixture, amount = templates(attention, volumes[0])
    order = amount.argsort(descending=True)[:TEMPLATES]
    rows = [
        labelled(left, shares[k], f"template {k}: {amount[k]:.0%} of what is added") for k in order
    ]
    depth, height, width = shares.shape[1:]
    for down, across in CELLS:
        y, x = int(down * height), int(across * width)
        plane = int(volumes[0][0, :, :, y, x].square().sum(0).argmax())
        weights = torch.einsum("k,kdyx->dyx", mixture[:, plane, y, x], shares)
        row = labelled(left, weights, f"weights of one cell (plane {plane} of {depth})")
        cv2.circle(row, (int(across * WIDTH), int(down * row.shape[0])), 5, (255, 60, 60), 2)
        rows.append(row)
    columns = [np.vstack(rows[i::3]) for i in range(3)]
    picture = Image.fromarray(np.hstack(columns))
    with staged(arguments.output) as (temporary,):
        small = picture.quantize(128, dither=Image.Dither.NONE)
        small.save(temporary, format="PNG", optimize=True)


def templates(attention: EfficientAttention, volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where templates look, how cells mix them, and what share of the change each makes.

    Returns:
        (heads K, D, H, W) shares of positions, which sum to 1 per template; the same shape, the
        mixture of each cell, which sums to 1 per head; (heads K,) shares that sum to 1.
    """
    heads, size = attention.heads, volume.shape[2:]
    with torch.inference_mode():
        queries = to_tokens(attention.queries(volume), heads)[0] * attention.temperature
        keys = to_tokens(attention.keys(volume), heads)[0] * attention.temperature
        values = to_tokens(attention.values(volume), heads)[0]
        shares = keys.softmax(dim=1)  # (heads, N, K)
        context = shares.transpose(1, 2) @ values  # (heads, K, V)
        mixture = queries.softmax(dim=2)
        back = attention.reprojection.weight.flatten(1).unflatten(1, (heads, -1))  # (C, heads, V)
        # Templates differ by what they have beyond the mean of their head.
        beyond = context - context.mean(dim=1, keepdim=True)
        change = torch.einsum("hkv,chv->hkc", beyond, back).norm(dim=2)
        amount = (mixture.mean(dim=1) * change).flatten()

    def to_grid(tokens: Tensor) -> Tensor:  # (heads, N, K) -> (heads K, D, H, W)
        return tokens.transpose(1, 2).flatten(0, 1).unflatten(1, tuple(size))

    return to_grid(shares), to_grid(mixture), amount / amount.sum()


def labelled(left: np.ndarray, weights: Tensor, text: str) -> np.ndarray:
    """Return the left view, darkened where weights are small, with bars per plane and a caption."""
    height = round(WIDTH * left.shape[0] / left.shape[1])
    view = cv2.resize(left, (WIDTH, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    summed = weights.sum(dim=0)
    heat = (summed / summed.max()).sqrt().numpy()
    heat = cv2.resize(heat, (WIDTH, height), interpolation=cv2.INTER_LINEAR)[..., None]
    grey = view.mean(axis=2, keepdims=True) * 0.35
    shown = grey * (1 - heat) + np.array([255, 245, 200], np.float32) * heat
    bars = np.full((height, BARS, 3), 255, np.uint8)
    planes = weights.sum(dim=(1, 2))
    for plane, share in enumerate((planes / planes.max()).tolist()):
        top, bottom = (height * (plane + n) // len(planes) for n in (0, 1))
        bars[top : max(bottom - 1, top + 1), : round(share * BARS)] = (70, 110, 170)
    panel = np.hstack([shown.clip(0, 255).astype(np.uint8), bars])
    title = np.full((18, panel.shape[1], 3), 255, np.uint8)
    cv2.putText(title, text, (2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    whole = np.vstack([title, panel])
    return cv2.copyMakeBorder(whole, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))


if __name__ == "__main__":
    run_script(main)
