"""Train variants of one network under one budget and seed set, and table their EPE.

    stereo data synthesize --root DIR --count 2000 --seed 5 --height 128 --width 256 \
        --max-disparity 64 --workers 2
    python scripts/compare.py family --data DIR --runs RUNS --output docs/benchmarks/family.json

It goes on where it stopped: finished runs are not repeated.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from stereo import console
from stereo.attention import ATTENTIONS
from stereo.benchmark import measure
from stereo.checkpoint import load_checkpoint
from stereo.files import staged
from stereo.model import NetworkConfig, build_network

STUDIES_FOLDER = Path(__file__).resolve().parent / "studies"
SITES = ("quarter", "eighth", "sixteenth")
Variant = dict[str, Any]
STUDIES: dict[str, dict[str, Variant]] = {
    "family": {
        name: {"network.attention": {"name": name}} for name in ("none", *sorted(ATTENTIONS))
    },
    "paper": {
        "psmnet": {"network": {"name": "psmnet", "max_disparity": 64}},
        **{
            f"ea_psmnet, {name} at {site}": {"network.attention": {"name": name, "sites": [site]}}
            for site, name in itertools.product(SITES, ("efficient", "efficient_scaling"))
        },
    },
}


def main() -> None:
    """Run what is missing of a study, then write its table."""
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--data", type=Path, required=True, help="from 'stereo data synthesize'")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; .md table beside it")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    recipe = STUDIES_FOLDER / f"{arguments.study}.yaml"
    rows = []
    # Seed by seed, so that a study that is cut short still compares all variants.
    for seed, (name, variant) in itertools.product(
        range(arguments.seeds), STUDIES[arguments.study].items()
    ):
        folder = arguments.runs / f"{name.replace(', ', '-').replace(' ', '-')}-seed-{seed}"
        rows.append(
            {
                "variant": name,
                "seed": seed,
                "epe": train(recipe, variant, arguments.data, folder, seed),
            }
        )
        console.say(f"{name}, seed {seed}: EPE {rows[-1]['epe']:.3f} px")
    costs = {name: cost(recipe, variant) for name, variant in STUDIES[arguments.study].items()}
    report = {
        "study": arguments.study,
        "machine": measure.machine(torch.device("cpu")),
        "recipe": recipe.read_text(),
        "runs": rows,
        "costs": costs,
    }
    with staged(arguments.output, arguments.output.with_suffix(".md")) as (data, table):
        data.write_text(json.dumps(report, indent=1) + "\n")
        table.write_text(as_table(report) + "\n")
    console.say(as_table(report))


def train(recipe: Path, variant: Variant, data: Path, folder: Path, seed: int) -> float:
    """Train one variant unless it is done; return the EPE on the held-out scenes, pixels."""
    overrides = [f"--{key}={json.dumps(value)}" for key, value in variant.items()]
    command = [sys.executable, "-m", "stereo", "train", "--config", str(recipe), *overrides]
    command += ["--data.root", str(data), "--seed", str(seed), "--output", str(folder)]
    best = folder / "best.safetensors"
    if not best.is_file():  # validated once, at the end
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return float(load_checkpoint(best).training["validation_epe_px"])


def cost(recipe: Path, variant: Variant) -> dict[str, float]:
    """Time a training step and take its peak memory, on random views of the recipe's crop."""
    import yaml

    fields = yaml.safe_load(recipe.read_text())
    network_fields = fields["network"] | variant.get("network", {})
    if "network.attention" in variant:
        network_fields["attention"] = variant["network.attention"]
    torch.manual_seed(0)
    network = build_network(NetworkConfig.from_dict(network_fields)).train()
    batch, (height, width) = fields["trainer"]["batch_size"], fields["augmentation"]["crop"]
    left, right = torch.randn(2, batch, 3, height, width)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            disparities = network(left, right).disparities
        sum(d.float().mean() for d in disparities).backward()  # type: ignore[union-attr]
        network.zero_grad(set_to_none=True)

    step()
    device = torch.device("cpu")
    return {
        "seconds": measure.seconds(step, device)["median"],
        "peak_mib": (measure.peak_bytes(step, device) or 0) / 2**20,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def as_table(report: dict[str, Any]) -> str:
    """Return a Markdown table, best first; the spread is the standard deviation over seeds."""
    rows = []
    for name in dict.fromkeys(run["variant"] for run in report["runs"]):
        epes = [run["epe"] for run in report["runs"] if run["variant"] == name]
        spread = statistics.stdev(epes) if len(epes) > 1 else 0.0
        costs = report["costs"][name]
        rows.append(
            [
                f"`{name}`",
                len(epes),
                statistics.mean(epes),
                spread,
                min(epes),
                max(epes),
                round(1000 * costs["seconds"]),
                round(costs["peak_mib"]),
                costs["parameters"],
            ]
        )
    rows.sort(key=lambda row: row[2])
    header = ["variant", "seeds", "EPE, px", "spread", "least", "largest"]
    return console.table([*header, "ms a step", "peak, MiB", "parameters"], rows)


if __name__ == "__main__":
    main()
