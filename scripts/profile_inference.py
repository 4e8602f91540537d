"""Print where a network's time goes on one rendered pair, operation by operation.

    python scripts/profile_inference.py psmnet --precision fp32

With ``--reference-psmnet DIR`` it is the original's time.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

from stereo.system import console  # before PyTorch, whose threads it prepares

# isort: split
import torch
from torch.profiler import ProfilerActivity, profile

from stereo.benchmark.networks import calibrate_batch_norms, plain_form, shipped_form, trained_like
from stereo.benchmark.reference import ReferencePSMNet
from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.matching.engine import NetworkEngine
from stereo.matching.options import MatchOptions
from stereo.models import NETWORK_NAMES
from stereo.system.runtime import pick_device

ROWS = 10


def main() -> None:
    """Profile the network's form as shipped, its plain form, or the original."""
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("model", choices=NETWORK_NAMES)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--plain", action="store_true", help="every volume whole, norms apart")
    parser.add_argument("--reference-psmnet", type=Path, help="profile the original instead")
    parser.add_argument("--size", type=int, nargs=2, default=(544, 960), metavar=("H", "W"))
    parser.add_argument("--max-disparity", type=int, default=192)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    height, width = arguments.size
    scene = SyntheticConfig(height=height, width=width, max_disparity=arguments.max_disparity)
    pair = SyntheticScenes(scene).render(0)
    original = None
    if arguments.reference_psmnet is not None:
        original = ReferencePSMNet(arguments.reference_psmnet, arguments.max_disparity, device)
        calibrate_batch_norms(original, original, pair, device)
    network, config, _ = trained_like(
        arguments.model, arguments.max_disparity, original, pair, device
    )
    form = plain_form(network) if arguments.plain else shipped_form(network)
    options = MatchOptions(device=arguments.device, precision=arguments.precision, tile="off")
    engine = NetworkEngine(form, config, options)
    match: Callable[[], object] = functools.partial(engine, [pair.left], [pair.right])
    if original is not None:
        match = functools.partial(original.match, pair, config, engine.dtype)
    match()
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as found:
        match()
    own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    rows = sorted(found.key_averages(), key=lambda row: getattr(row, own), reverse=True)
    total = sum(getattr(row, own) for row in rows)
    body = [
        [f"`{row.key}`", row.count, round(getattr(row, own) / 1e3), 100 * getattr(row, own) / total]
        for row in rows[:ROWS]
    ]
    console.say(console.table(["operation", "calls", "ms", "%"], body))
    console.say(f"all: {total / 1e6:.2f} s, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    console.run_script(main)
