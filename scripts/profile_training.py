"""Time steps of training on rendered crops, and print where one of them goes.

    python scripts/profile_training.py ea_stereo_fast

A step is what the recipes' steps are: forward, loss, backward, clipping, AdamW, average.
"""

import argparse
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.models import NETWORK_NAMES, NetworkConfig, build_network
from stereo.system import console
from stereo.system.runtime import keep_freed_memory, to_channels_last
from stereo.training.config import LossConfig
from stereo.training.losses import loss_sum
from stereo.training.truth import counted_pixels

ROWS = 20


def main() -> None:
    """Train for a few steps in fp32 on the CPU."""
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("model", choices=NETWORK_NAMES)
    parser.add_argument("--crop", type=int, nargs=2, default=(160, 416), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--operations", action="store_true", help="profile one more step")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    network = build_network(NetworkConfig(arguments.model)).train()
    to_channels_last(network)
    height, width = arguments.crop
    scene = SyntheticConfig(height=height, width=width, max_disparity=network.max_disparity)
    pairs = [SyntheticScenes(scene).render(i) for i in range(arguments.batch)]
    left, right = (
        torch.stack([torch.from_numpy(view) for view in views]).permute(0, 3, 1, 2) / 128 - 1
        for views in ([p.left for p in pairs], [p.right for p in pairs])
    )
    truth = torch.stack([torch.from_numpy(p.disparity) for p in pairs])
    counted = counted_pixels(truth, torch.ones_like(truth, dtype=torch.bool), scene.max_disparity)
    loss = LossConfig(planes=1.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    average = torch.optim.swa_utils.AveragedModel(network)

    def step() -> float:
        began = time.perf_counter()
        error = loss_sum(network(left, right), truth, counted, loss) / counted.sum()
        error.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update_parameters(network)
        return time.perf_counter() - began

    step()
    seconds = [step() for _ in range(arguments.steps)]
    console.say(
        f"{arguments.batch / statistics.median(seconds):.3f} crops of {height}x{width} a second, "
        f"steps of {min(seconds):.2f} to {max(seconds):.2f} s, {torch.get_num_threads()} threads"
    )
    if not arguments.operations:
        return
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    rows = sorted(found.key_averages(), key=lambda row: row.self_cpu_time_total, reverse=True)
    total = sum(row.self_cpu_time_total for row in rows)
    body = [
        [f"`{row.key}`", row.count, round(row.self_cpu_time_total / 1e3),
         100 * row.self_cpu_time_total / total]
        for row in rows[:ROWS]
    ]  # fmt: skip
    console.say(console.table(["operation", "calls", "ms", "%"], body))


if __name__ == "__main__":
    main()
