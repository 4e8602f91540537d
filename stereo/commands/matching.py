"""Commands that match pairs, and ``compare``, which puts their results side by side."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from stereo.commands.command import Command, add_options, comma_list, from_function, read_options
from stereo.commands.infer_options import InferOptions
from stereo.errors import UsageError
from stereo.matching.options import MatchOptions
from stereo.system.bundled import DEFAULT_MODEL

_DATA = ("dataset", "root", "output")
_SCORING = ("protocol", "split", "render_pass", "limit", "unseen", "layout", "unused", "confidence")


def _infer_arguments(parser: ArgumentParser) -> None:
    first = ("left", "right", "output", "packing")
    add_options(parser, InferOptions, first, positional=("left", "right"))
    model_arguments(parser)
    rest = [each.name for each in fields(InferOptions) if each.name not in first]
    add_options(parser, InferOptions, rest)


def _evaluate_arguments(parser: ArgumentParser) -> None:
    from stereo.evaluation.evaluate import evaluate

    add_options(parser, evaluate, _DATA)
    model_arguments(parser)
    add_options(parser, evaluate, _SCORING)
    parser.add_argument(
        "--against",
        help="comma-separated further models, such as sgbm: matched on the same pairs, and side by "
        "side in the report",
    )


def model_arguments(parser: ArgumentParser) -> None:
    """Add the options that choose a model and how it matches."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="ea_stereo, ea_stereo_fast, psmnet, psmnet_basic, ea_psmnet, sgbm, zoo:NAME (see "
        "'stereo models'), a .safetensors or .onnx file, or FILE.py:FUNCTION, which runs that "
        "file's code",
    )
    add_options(parser, MatchOptions)


def _infer(config: Namespace) -> int:
    from stereo.commands.infer import infer

    failed = infer(chosen_model(config), InferOptions(**read_options(config, InferOptions)))
    return 1 if failed else 0


def _evaluate(config: Namespace) -> int:
    from stereo.evaluation.evaluate import evaluate

    against = [chosen_model(config, name) for name in _against(config)]
    options = read_options(config, evaluate, _DATA + _SCORING)
    _, failed = evaluate(chosen_model(config), **options, against=against)
    return 1 if failed else 0


def _against(config: Namespace) -> list[str]:
    names = comma_list(config.against) if config.against else []
    for name in names:
        if name == config.model or names.count(name) > 1:
            raise UsageError(f"--against {config.against}: '{name}' is named twice")
    return names


def _compare_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", help="folders with metrics.json, or such files")
    parser.add_argument("--output", required=True, help="folder for report.html")


def _compare(config: Namespace) -> int:
    from stereo.system.console import say

    if (Path(config.output) / "metrics.json").exists():
        raise UsageError(
            f"--output {config.output}: is a run, whose report would be replaced; name another "
            "folder"
        )
    from stereo.evaluation.report import compare

    say(f"report: {compare(config.runs, config.output)}")
    return 0


def _submit_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("benchmark", help="kitti2012, kitti2015, middlebury_v3 or eth3d")
    parser.add_argument("--root", required=True, help="the data set's folder; images are enough")
    parser.add_argument("--output", help="the .zip file to write")
    parser.add_argument(
        "--validate", help="a .zip file to check instead of writing one; needs no model"
    )
    model_arguments(parser)
    parser.add_argument("--method", default="stereo", help="its name in Middlebury's files")
    parser.add_argument("--layout", help="the data set's tree by name; for Middlebury its size")
    parser.add_argument(
        "--partial", action="store_true", help="fewer pairs than the benchmark has are no error"
    )


def _submit(config: Namespace) -> int:
    from stereo.commands.submit import submit, validate_archive

    if (config.output is None) == (config.validate is None):
        raise UsageError("give --output FILE.zip to write an archive, or --validate FILE.zip")
    unused = (config.model, MatchOptions(**read_options(config, MatchOptions)))
    if config.validate is not None and unused != (DEFAULT_MODEL, MatchOptions()):
        raise UsageError("--validate matches nothing: leave out --model and its options")
    pairs = {"method": config.method, "layout": config.layout, "partial": config.partial}
    if config.validate is not None:
        validate_archive(config.validate, config.benchmark, config.root, **pairs)
    else:
        submit(chosen_model(config), config.benchmark, config.root, config.output, **pairs)
    return 0


def chosen_model(config: Namespace, further: str | None = None) -> Callable[[], Any]:
    """Check the options of a model; return what loads it.

    Args:
        config: the options.
        further: another model, to be loaded with those of the options that it takes.
    """
    options = MatchOptions(**read_options(config, MatchOptions))
    if further:
        options = options.for_further(further)
    name = further or config.model
    options.check(name)
    return lambda: _load_model(name, options)


def _load_model(name: str, options: MatchOptions) -> Any:
    from stereo.matching.loading import load
    from stereo.system.console import say, warn

    matcher = load(name, options)
    facts = matcher.description
    if "untrained" in (facts.get("weights"), facts.get("exported_from")):
        warn(f"warning: '{facts['name']}' runs with random weights; its map means nothing")
    say(
        f"model {facts['name']}, max disparity {facts['max_disparity']} px, "
        + (f"min disparity {matcher.min_disparity} px, " if matcher.min_disparity else "")
        + f"device {facts['device']}"
        + (f", precision {facts['precision']}" if "precision" in facts else "")
        + (f", scale {facts['scale']}" if facts.get("scale", "1") != "1" else "")
        + (f", kernels {facts['kernels']}" if "kernels" in facts else "")
    )
    return matcher


COMMANDS = (
    from_function(
        "demo",
        "stereo.commands.demo:demo",
        "run the default model on the bundled pairs and print EPE",
        "stereo demo",
    ),
    Command(
        "infer",
        _infer_arguments,
        _infer,
        "compute disparity maps of your own rectified pairs",
        "stereo infer left.png right.png --calibration calib.txt --output maps\n"
        "  stereo infer video.mp4 --packing side-by-side --formats video --output maps --resume\n"
        "  stereo infer 'scenes/*/im0.png' 'scenes/*/im1.png' --output maps",
        distributed=True,
        reads_pictures=True,
    ),
    Command(
        "evaluate",
        _evaluate_arguments,
        _evaluate,
        "score a model on a data set under a named protocol",
        "stereo evaluate --dataset sceneflow --root DIR --protocol pooled --output results "
        "--against sgbm",
        distributed=True,
        reads_pictures=True,
    ),
    Command(
        "compare",
        _compare_arguments,
        _compare,
        "report several runs of evaluate, or of infer with ground truth, side by side",
        "stereo compare results results_sgbm --output comparison",
    ),
    Command(
        "submit",
        _submit_arguments,
        _submit,
        "write a validated archive for KITTI's, Middlebury's or ETH3D's server",
        "stereo submit kitti2015 --root KITTI2015 --output kitti2015.zip\n"
        "  stereo submit kitti2015 --root KITTI2015 --validate kitti2015.zip",
        reads_pictures=True,
    ),
)
