"""Whether training's fast forms learn what the plain ones do: losses of the same steps, twice.

    python scripts/same_losses.py ea_stereo_fast
    python scripts/same_losses.py psmnet --crop 64 96 --max-disparity 32 --seeds 1

Each seed trains a network in three ways on the same crops in the same order: `plain` (whole
volumes, PyTorch's convolutions and their gradients), `nudged` (the same, its first weights changed
by 1e-7 of themselves), and `ours`. Rounding grows from step to step, so `ours` cannot follow
`plain` exactly; it should stay as near as `nudged` does.
"""

import argparse
import contextlib

from stereo.system import console  # before PyTorch, whose threads it prepares

# isort: split
import numpy as np
import torch

from stereo.benchmark.networks import plain_form
from stereo.data.synthetic import RenderedPair, SyntheticConfig, SyntheticScenes
from stereo.models import NETWORK_NAMES, NetworkConfig, build_network, convolution
from stereo.system.runtime import to_channels_last
from stereo.training.config import LossConfig
from stereo.training.losses import loss_sum
from stereo.training.supervision import counted_pixels

SCENES = 24
BATCH = 2
LAST = 50  # steps whose mean loss is shown


def main() -> None:
    """Train every seed in three ways and print how far the losses are apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=NETWORK_NAMES)
    parser.add_argument("--crop", type=int, nargs=2, default=(96, 192), metavar=("H", "W"))
    parser.add_argument("--max-disparity", type=int, default=64, help="pixels")
    parser.add_argument("--steps", type=int, default=200, help=f"at least {LAST}")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.steps < LAST or options.seeds < 1:
        parser.error(f"at least {LAST} steps and one seed")
    if any(side % 16 for side in options.crop):
        parser.error("height and width of --crop must be multiples of 16")
    convolution.FEWEST_VALUES = 1  # so that crops this small take the fast forms, too
    height, width = options.crop
    config = SyntheticConfig(height, width, max_disparity=options.max_disparity, seed=9)
    pairs = [SyntheticScenes(config).render(index) for index in range(SCENES)]
    rows = []
    for seed in range(options.seeds):
        losses = {
            form: np.array(train(form, options, pairs, seed))
            for form in ("plain", "nudged", "ours")
        }
        apart = [np.abs(losses[form] - losses["plain"]).mean() for form in ("nudged", "ours")]
        rows.append([seed, *(f"{each[-LAST:].mean():.3f}" for each in losses.values())])
        rows[-1] += [f"{each:.3f}" for each in apart]
        console.say(" ".join(map(str, rows[-1])))
    ends = [f"{form}, last {LAST}" for form in losses]
    console.say(console.table(["seed", *ends, "nudged from plain", "ours from plain"], rows))


def train(
    form: str, options: argparse.Namespace, pairs: list[RenderedPair], seed: int
) -> list[float]:
    """Return the loss of every step."""
    views = [
        torch.from_numpy(np.stack([getattr(pair, side) for pair in pairs])).permute(0, 3, 1, 2)
        for side in ("left", "right")
    ]
    left, right = (view.float() / 64 - 2 for view in views)
    truth = torch.from_numpy(np.stack([pair.disparity for pair in pairs]))
    torch.manual_seed(seed)
    network = build_network(NetworkConfig(options.network, options.max_disparity))
    if form == "ours":
        to_channels_last(network)
    else:
        network = plain_form(network)
    if form == "nudged":
        with torch.no_grad():
            for weights in network.parameters():
                weights.mul_(1 + 1e-7 * torch.randn_like(weights))
    loss_config = LossConfig(beta=0.5, planes=1.0)
    optimizer = torch.optim.AdamW(network.train().parameters(), 1e-3)
    order, losses = np.random.default_rng(seed), []
    plainly = contextlib.nullcontext if form == "ours" else convolution.direct_convolutions
    with plainly():
        for _ in range(options.steps):
            chosen = order.choice(SCENES, BATCH, replace=False)
            true = truth[chosen]
            counted = counted_pixels(
                true, torch.ones_like(true, dtype=torch.bool), options.max_disparity
            )
            total = loss_sum(network(left[chosen], right[chosen]), true, counted, loss_config)
            loss = total / counted.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
    return losses


if __name__ == "__main__":
    console.run_script(main)
