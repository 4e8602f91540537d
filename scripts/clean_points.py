r"""Measure the removal of flying points: how many remain, and how many good points it takes.

    stereo data synthesize --root rendered --count 96 --seed 202 --height 256 --width 576 \
      --textures PHOTOGRAPHS --meshes MESHES
    python scripts/clean_points.py --rendered rendered --photographs pairs --fit

A flying point is one near an edge of the ground truth (two disparities that are more than 6 sigma
and 1 px apart, within 4 pixels) whose disparity lies between the two and further than 3 sigma from
every true one within 4 pixels. A good point is one within 3 sigma of its own true disparity. Sigma
is 1.4826 times the median error of the map. ``jumps`` removes pixels with a neighbour nearer or
further by 5 % (``stereo.geometry.points.is_edge``), ``flying`` those of
``stereo.geometry.flying``. ``--fit`` fits the weights of the latter first, on three of four
rendered pairs, and the table is of the fourth ones.
"""

import argparse
import re

import numpy as np

import stereo
from stereo.data.sets.datasets import open_dataset
from stereo.data.sets.sample import Readable
from stereo.geometry.flying import WEIGHTS, flying_features, flying_network, is_flying
from stereo.geometry.points import is_edge
from stereo.matching.matcher import Matcher
from stereo.system.console import progress, run_script
from stereo.system.files import staged

REACH = 4  # pixels to either side
HALF = 0.45  # of what jumps leave, with a margin for photographs
STEPS, BATCH, CROP = 3000, 4, (96, 128)
RATE = 3e-3


class Judged:
    """A pair's map, with what is flying and what is good."""

    def __init__(self, matcher: Matcher, pair: Readable) -> None:
        sample = pair.read()
        assert sample.disparity is not None and sample.valid is not None
        result = matcher(sample.left, sample.right)
        if result.certainty is None:
            raise SystemExit(f"{matcher} has no distribution over disparities")
        self.disparity, self.certainty = result.disparity, result.certainty
        valid = sample.valid & np.isfinite(sample.disparity)
        truth = np.where(valid, sample.disparity, np.nan).astype(np.float32)
        error = np.abs(self.disparity - truth)
        self.sigma = 1.4826 * float(np.nanmedian(error))
        self.good = error <= 3 * self.sigma
        size = 2 * REACH + 1
        around = np.lib.stride_tricks.sliding_window_view(
            np.pad(truth, REACH, constant_values=np.nan), (size, size)
        )
        lowest, highest = np.full_like(truth, np.inf), np.full_like(truth, -np.inf)
        nearest = np.full_like(truth, np.inf)
        for y in range(size):
            for x in range(size):
                each = around[..., y, x]
                lowest, highest = np.fmin(lowest, each), np.fmax(highest, each)
                nearest = np.fmin(nearest, np.abs(self.disparity - each))
        edge = valid & (highest - lowest > 6 * self.sigma + 1)
        between = (self.disparity > lowest) & (self.disparity < highest)
        self.flying = edge & between & (nearest > 3 * self.sigma)

    def jumps(self) -> np.ndarray:
        """Return what the removal of jumps takes."""
        return is_edge(1 / np.maximum(self.disparity, 1e-3))


def fit(judged: list[Judged], seed: int = 0) -> None:
    """Fit the network on crops, and write it with a threshold that halves what jumps leave."""
    import torch  # after stereo, which tells its threads to sleep while they wait
    from safetensors.torch import save_file
    from torch.nn import functional as F

    features = [torch.from_numpy(flying_features(j.disparity, j.certainty)) for j in judged]
    flying = [torch.from_numpy(j.flying) for j in judged]
    known = [torch.from_numpy(j.flying | j.good) for j in judged]
    values = torch.cat([each.flatten(1) for each in features], 1)
    mean, deviation = values.mean(1)[:, None, None], values.std(1)[:, None, None]
    torch.manual_seed(seed)
    network = flying_network()
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    for _ in progress(range(STEPS), "fit", STEPS):
        crops = []
        for index in torch.randint(len(judged), (BATCH,)).tolist():
            height, width = flying[index].shape
            top, left = (
                int(torch.randint(n - c + 1, ()))
                for n, c in zip((height, width), CROP, strict=True)
            )
            crop = (..., slice(top, top + CROP[0]), slice(left, left + CROP[1]))
            crops.append([each[index][crop] for each in (features, flying, known)])
        x, y, counted = map(torch.stack, zip(*crops, strict=True))
        logits = network((x - mean) / deviation)[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits[counted], y[counted].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    first, last = network[0], network[-1]
    assert isinstance(first, torch.nn.Conv2d)
    assert isinstance(last, torch.nn.Conv2d)
    assert first.bias is not None
    assert last.bias is not None
    with torch.no_grad():
        first.weight /= deviation[None]
        first.bias -= first.weight[:, :, 0, 0] @ mean[:, 0, 0]
        scores = torch.cat(
            [network(x[None])[0, 0][y] for x, y in zip(features, flying, strict=True)]
        )
        share = sum(int((j.flying & ~j.jumps()).sum()) for j in judged) / len(scores)
        last.bias -= scores.kthvalue(max(1, round(HALF * share * len(scores)))).values
    with staged(WEIGHTS) as (temporary,):
        save_file(network.state_dict(), temporary)


def report(name: str, judged: list[Judged]) -> None:
    """Print one line of each removal."""
    flying, good = (sum(int(getattr(j, k).sum()) for j in judged) for k in ("flying", "good"))
    print(f"{name}: {len(judged)} pairs, {flying:,} flying and {good:,} good points")
    for removal in ("jumps", "flying"):
        left = lost = 0
        for j in judged:
            gone = j.jumps() if removal == "jumps" else is_flying(j.disparity, j.certainty)
            left += int((j.flying & ~gone).sum())
            lost += int((j.good & gone).sum())
        print(
            f"  {removal:6}: {100 * left / flying:5.1f} % of the flying points left, "
            f"{100 * lost / good:5.2f} % of the good ones lost"
        )


def main() -> None:
    """Match, perhaps fit, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rendered", required=True, help="what 'stereo data synthesize' wrote")
    parser.add_argument("--photographs", help="a folder with manifest.json")
    parser.add_argument("--limit", type=int, help="of the rendered pairs, the first")
    parser.add_argument(
        "--only", default="mid(?!.*full)", help="of the photographs, names with this expression"
    )
    parser.add_argument("--model", default=stereo.DEFAULT_MODEL)
    parser.add_argument("--fit", action="store_true", help=f"fit {WEIGHTS.name} first")
    options = parser.parse_args()
    matcher = stereo.load(options.model)

    def judge(dataset: str, root: str, text: str, limit: int | None = None) -> list[Judged]:
        found = open_dataset(dataset, root).samples
        pairs = [pair for pair in found if re.search(text, pair.name)][:limit]
        return [Judged(matcher, pair) for pair in progress(pairs, "match")]

    rendered = judge("synthetic", options.rendered, "", options.limit)
    if options.fit:
        fit([each for index, each in enumerate(rendered) if index % 4])
        rendered = rendered[::4]
    report("rendered", rendered)
    if options.photographs:
        report("photographs", judge("manifest", options.photographs, options.only))


if __name__ == "__main__":
    run_script(main)
