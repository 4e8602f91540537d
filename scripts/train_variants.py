"""Train variants of one network under one budget and seed set, and tabulate their errors.

The heads of ``scripts/studies/*.yaml`` have the commands. It goes on where it stopped: runs that
stand in the output file or are finished in RUNS are not repeated, so that seeds can be added later.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from stereo.system import console  # before PyTorch, whose threads it prepares

# isort: split
import torch

from stereo.attention import ATTENTIONS
from stereo.benchmark import measure
from stereo.data.sets.datasets import open_dataset
from stereo.data.sets.layouts import SYNTHETIC_NOTE
from stereo.errors import InputError, StereoError, UsageError
from stereo.models import NetworkConfig, build_network
from stereo.models.checkpoint import file_sha256
from stereo.system.files import output_folder, staged
from stereo.system.machine import machine
from stereo.system.parsing import parse_json, parse_yaml
from stereo.system.runtime import pick_dtype
from stereo.training.prepare import weights_file
from stereo.training.state import last_path

STEREO = (sys.executable, "-m", "stereo")
STUDIES_FOLDER = Path(__file__).resolve().parent / "studies"
SITES = ("quarter", "eighth", "sixteenth")
COLUMNS = {
    "flat_epe": "EPE in flat areas, px",
    "textured_epe": "in textured ones",
    "epe": "EPE, px",
    "bad_2": "bad-2, %",
}
Variant = dict[str, Any]
STUDIES: dict[str, dict[str, Variant]] = {
    "family": {
        name: {"network.attention": {"name": name}} for name in ("none", *sorted(ATTENTIONS))
    },
    "designs": {
        f"{name}, {attention}": {"network": {"name": name, "attention": {"name": attention}}}
        for attention, name in itertools.product(
            ("efficient", "none"), ("ea_stereo_fast", "ea_stereo")
        )
    },
    "paper": {
        "psmnet": {"network": {"name": "psmnet", "max_disparity": 32}},
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
    parser.add_argument(
        "--held-out", type=Path, required=True, help="rendered pairs to judge by, split test"
    )
    parser.add_argument("--weights", help="checkpoint that every variant starts from")
    parser.add_argument("--variants", nargs="+", help="only these")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; .md table beside it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once, sharing the cores")
    arguments = parser.parse_args()
    for name in ("seeds", "jobs"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} {getattr(arguments, name)}: expected at least 1")
    if arguments.output.suffix != ".json" or arguments.output.is_dir():
        parser.error(f"--output {arguments.output}: expected a file whose name ends in .json")
    recipe, variants = STUDIES_FOLDER / f"{arguments.study}.yaml", STUDIES[arguments.study]
    if arguments.variants:
        if unknown := set(arguments.variants).difference(variants):
            parser.error(f"--variants {min(unknown)}: known are {', '.join(variants)}")
        variants = {name: variants[name] for name in arguments.variants}
    inputs = {
        "variants": STUDIES[arguments.study],
        "data": read_note(arguments.data),
        "held_out": read_note(arguments.held_out),
        "weights": arguments.weights and file_sha256(weights_file(arguments.weights)),
    }
    check_pairs(arguments.held_out)
    report = begun(arguments.output, arguments.study, recipe, inputs)
    remember(arguments.runs / "inputs.json", inputs | {"recipe": read_fields(recipe)})
    done = {(run["variant"], run["seed"]) for run in report["runs"]}
    # Seed by seed, so that a study that is cut short still compares all variants.
    due = [
        (seed, name)
        for seed, name in itertools.product(range(arguments.seeds), variants)
        if (name, seed) not in done
    ]
    commands = Commands(max(1, torch.get_num_threads() // arguments.jobs))

    def run(seed: int, name: str) -> dict[str, Any]:
        folder = arguments.runs / f"{name.replace(', ', '-').replace(' ', '-')}-seed-{seed}"
        options = ["--data.root", str(arguments.data), "--seed", str(seed)]
        if arguments.weights is not None:
            options += ["--weights", arguments.weights]
        trained = train(recipe, variants[name], folder, options, commands.run)
        figures = judge(trained, arguments.held_out, folder / "held_out", commands.run)
        return {"variant": name, "seed": seed} | figures

    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures = [pool.submit(run, *each) for each in due]
        try:
            for future in as_completed(futures):
                report["runs"].append(future.result())
                write(report, arguments.output)
                console.say("{variant}, seed {seed}: EPE {epe:.3f} px".format(**future.result()))
        except BaseException:
            commands.end()
            raise
    for name, variant in variants.items():
        if name not in report["costs"]:
            report["costs"][name] = cost(recipe, variant)
    write(report, arguments.output)
    console.say(as_table(report))


def read_note(folder: Path) -> dict[str, Any]:
    """Return what 'stereo data synthesize' noted about its pairs, and their number."""
    note = folder / SYNTHETIC_NOTE
    if not note.is_file():
        raise InputError(f"{folder}: not a folder of 'stereo data synthesize'")
    notes = parse_json(note.read_text(), str(folder))
    return {"scenes": notes, "pairs": len(list(folder.rglob("left/*.pfm")))}


def check_pairs(held_out: Path) -> None:
    """Raise ``InputError`` unless there are pairs to judge by."""
    try:
        open_dataset("synthetic", held_out, split="test")
    except InputError as error:
        raise InputError(f"{error}; 'stereo data synthesize --split test' renders them") from error


def remember(path: Path, inputs: dict[str, Any]) -> None:
    """Keep what the runs of a folder begin with, and refuse others."""
    if path.is_file():
        if parse_json(path.read_text(), str(path)) != inputs:
            raise UsageError(
                f"{path.parent} has runs of other variants, data, weights or another recipe: name "
                "another --runs"
            )
        return
    output_folder(path.parent)
    with staged(path) as (temporary,):
        temporary.write_text(json.dumps(inputs, indent=1) + "\n")


def begun(output: Path, study: str, recipe: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the study's report as far as it stands in ``output``, or a new one."""
    own = machine(torch.device("cpu"))
    if output.is_file():
        report: dict[str, Any] = parse_json(output.read_text(), str(output))
        match report:
            case {"recipe": str(), "runs": list(runs), "costs": dict()} if all(
                isinstance(run, dict) and {"variant", "seed"} <= run.keys() for run in runs
            ):
                pass
            case _:
                raise UsageError(f"{output} is no report of a study: name another --output")
        for name, one, other in (
            ("recipe", parse_yaml(report["recipe"], str(output)), read_fields(recipe)),
            ("set of variants, data or weights", report.get("inputs"), inputs),
        ):
            if one != other:
                raise UsageError(f"{output} is of another {name}: name another --output")
        if report.get("machine") != own:
            console.warn(
                f"warning: {output} was begun on another machine or commit, and names only that"
            )
        return report
    return {
        "study": study,
        "machine": own,
        "inputs": inputs,
        "recipe": recipe.read_text(),
        "runs": [],
        "costs": {},
    }


def write(report: dict[str, Any], output: Path) -> None:
    """Write the report, and as a Markdown table beside it."""
    with staged(output, output.with_suffix(".md")) as (data, table):
        data.write_text(json.dumps(report, indent=1) + "\n")
        table.write_text(as_table(report) + "\n")


def read_fields(recipe: Path) -> dict[str, Any]:
    """Return the values of a recipe."""
    fields: dict[str, Any] = parse_yaml(recipe.read_text(), str(recipe))
    return fields


def train(
    recipe: Path,
    variant: Variant,
    folder: Path,
    options: list[str],
    run_command: Callable[..., None],
) -> Path:
    """Train one variant unless it is done; return its last checkpoint."""
    last = last_path(folder, read_fields(recipe)["trainer"]["max_steps"])
    if not last.is_file():
        overrides = [f"--{key}={json.dumps(value)}" for key, value in variant.items()]
        run_command("train", "--config", recipe, *overrides, "--output", folder, *options)
    return last


def judge(
    weights: Path, pairs: Path, output: Path, run_command: Callable[..., None]
) -> dict[str, float]:
    """Return errors on held-out pairs, means over images: EPE in pixels, bad-2 in percent."""
    options = ["--dataset", "synthetic", "--root", pairs, "--split", "test", "--precision", "fp32"]
    run_command("evaluate", *options, "--model", weights, "--output", output)
    summary = json.loads((output / "metrics.json").read_text())["summary"]
    regions = {
        f"{name}_epe": summary["regions"][name]["epe_image"]
        for name in ("flat", "textured")
        if name in summary["regions"]
    }
    return {"epe": summary["epe_image"], "bad_2": summary["bad_2_image"]} | regions


class Commands:
    """Commands of ours, each with some CPU threads, which all end with the study."""

    def __init__(self, threads: int) -> None:
        self._environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def run(self, *words: Any) -> None:
        """Run one to its end.

        Raises:
            StereoError: it failed, or the study has ended.
        """
        command = [*STEREO, *map(str, words)]
        with self._lock:
            if self._ended:
                raise StereoError("the study has ended")
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=self._environment)
            self._running.add(child)
        failed = child.wait()
        with self._lock:
            self._running.remove(child)
        if failed:
            raise StereoError(f"'stereo {words[0]}' failed, see above")

    def end(self) -> None:
        """Ask what runs to save and stop, and start nothing more."""
        with self._lock:
            self._ended = True
            for child in self._running:
                child.terminate()


def cost(recipe: Path, variant: Variant) -> dict[str, float]:
    """Time a training step and take its peak memory, on random views of the recipe's crop."""
    fields = read_fields(recipe)
    network_fields = fields["network"] | variant.get("network", {})
    if "network.attention" in variant:
        network_fields["attention"] = variant["network.attention"]
    torch.manual_seed(0)
    whole = NetworkConfig(network_fields["name"]).to_dict() | network_fields
    config = NetworkConfig.from_dict(whole)
    network = build_network(config).train()
    batch, (height, width) = fields["trainer"]["batch_size"], fields["augmentation"]["crop"]
    left, right = torch.randn(2, batch, 3, height, width)

    device, precision = torch.device("cpu"), fields["trainer"].get("precision", "auto")
    dtype = pick_dtype(precision, device, bf16_by_default=config.bf16_by_default)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            disparities = network(left, right).disparities
        torch.stack([d.float().mean() for d in disparities]).sum().backward()
        network.zero_grad(set_to_none=True)

    step()
    return {
        "seconds": measure.seconds(step, device)["median"],
        "peak_mib": (measure.peak_bytes(step, device) or 0) / 2**20,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def as_table(report: dict[str, Any]) -> str:
    """Return a Markdown table, best first; the spread is the standard deviation over seeds."""
    runs = report["runs"]
    measured = [name for name in COLUMNS if all(name in run for run in runs)]
    rows = []
    for name in dict.fromkeys(run["variant"] for run in runs):
        row: list[Any] = [f"`{name}`", sum(run["variant"] == name for run in runs)]
        for figure in measured:
            found = [run[figure] for run in runs if run["variant"] == name]
            row += [statistics.mean(found), statistics.stdev(found) if len(found) > 1 else ""]
        costs = report["costs"].get(name)
        row.append(round(1000 * costs["seconds"]) if costs else "")
        row.append(round(costs["peak_mib"]) if costs else "")
        rows.append([*row, costs["parameters"] if costs else ""])
    rows.sort(key=lambda row: row[2])
    header = [word for name in measured for word in (COLUMNS[name], "spread")]
    return console.table(
        ["variant", "seeds", *header, "ms a step", "peak, MiB", "parameters"], rows
    )


if __name__ == "__main__":
    console.run_script(main)
