"""The command line: parse, then call one function."""

import dataclasses
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser, DefaultHelpFormatter, Namespace

from stereo.bundled import DEFAULT_MAX_DISPARITY, DEFAULT_MODEL
from stereo.distributed import is_main, process_count
from stereo.errors import InputError, StereoError, UsageError
from stereo.version import __version__

DESCRIPTION = "Stereo depth: disparity maps from rectified pairs, and figures others can trust."
INTERRUPTED = 130
_DISTRIBUTED = ("train", "infer", "evaluate")
TERMINATED = 143


class _Help(DefaultHelpFormatter):
    """Help that keeps the line breaks of the worked examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if not text.startswith("example"):
            return super()._fill_text(text, width, indent)
        return "\n".join(indent + line for line in text.splitlines()) + "\n"


class _RecipeFile(ActionConfigFile):
    """``--config`` that knows the shipped recipes by name."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        from stereo.training.recipe import recipe_path

        super().__call__(parser, cfg, str(recipe_path(values)), option_string)


class _Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = " ".join(str(message).split())
        # jsonargparse names arguments "infer.left"; and the program by its parent's parser.
        command = re.search(rf"\b((?:(?:{_NAMES})\.)+)(?=\w)", line)
        program = f"stereo {command[1].replace('.', ' ').strip()}" if command else self.prog
        line = re.sub(rf"\b(?:(?:{_NAMES})\.)+(?=\w)", "", line)
        line = re.sub(
            r"Parser key \"(\w+)\": Expected a <class '(\w+)'>\. Got value",
            r"'\1' is not of type \2",
            line,
        )
        sys.stderr.write(f"stereo: error: {line} (see '{program} --help')\n")
        sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 on success, 1 on a failure of the work, 2 on a wrong call."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _build_parser(given)
    try:
        config = parser.instantiate(parser.parse_args(given))
    except StereoError as error:  # a dataclass that refuses its values
        return _fail(given[0], str(error), error.exit_status)
    name, config = _chosen(config)
    if not name:
        parser.print_help()
        return 2
    from stereo.console import show_warnings_as_lines

    if process_count() > 1 and name not in _DISTRIBUTED:
        return _fail(name, "runs in one process; start it without torchrun", 2)
    show_warnings_as_lines()
    try:
        return commands[name](config)
    except (UsageError, InputError) as error:  # which all processes meet alike
        return _fail(name, str(error), error.exit_status) if is_main() else error.exit_status
    except StereoError as error:
        return _fail(name, str(error), error.exit_status)
    except KeyboardInterrupt:
        return _fail(name, "interrupted; files written so far are whole", INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe has left (`| head`): no message, and no second error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        return _fail(name, "out of memory; use smaller images or a smaller --max-disparity", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(name, f"{where}{error.strerror or error}", 1)


def _fail(command: str, message: str, status: int) -> int:
    sys.stderr.write(f"stereo {command}: error: {message}\n")
    return status


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.stderr.write("stereo: terminated; files written so far are whole\n")
    sys.exit(TERMINATED)


def _build_parser(
    arguments: Sequence[str],
) -> tuple[ArgumentParser, dict[str, Callable[[Namespace], int]]]:
    """Return the parser and, by command ("benchmark attention" is one), what each calls.

    Only the command that is called gets its arguments: those of some cost seconds of imports.
    """
    parser = _Parser(
        prog="stereo", description=DESCRIPTION, version=__version__, formatter_class=_Help
    )
    groups = {"": parser.add_subcommands(required=False, dest="command")}
    commands: dict[str, Callable[[Namespace], int]] = {}
    for command in _COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group not in groups:
            parent = _Parser(description=_GROUPS[group][0].upper() + _GROUPS[group][1:] + ".")
            groups[""].add_subcommand(group, parent, help=_GROUPS[group])
            parent.prog = f"stereo {group}"
            groups[group] = parent.add_subcommands(dest="command")
        own = _Parser(
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=f"example:\n  {command.example}",
        )
        if list(arguments[: len(command.name.split())]) == command.name.split():
            command.add_arguments(own)
        groups[group].add_subcommand(name, own, help=command.summary)
        own.prog = f"stereo {command.name}"
        commands[command.name] = command.function
    return parser, commands


def _chosen(config: Namespace) -> tuple[str, Namespace]:
    """Return the name and arguments of the command that was given; "" for none."""
    name = ""
    while config.get("command"):
        name, config = f"{name} {config.command}".strip(), config[config.command]
    return name, config


def _demo_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--output", default="stereo-demo", help="folder for pictures and figures")


def _infer_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("left", help="left view: a file, a folder or a quoted glob")
    parser.add_argument("right", help="right view: the same kind of thing, matched by name")
    parser.add_argument("--output", required=True, help="folder for the files")
    _model_arguments(parser)
    parser.add_argument(
        "--formats",
        default="color,pfm",
        help="comma-separated: color, pfm, png16 (KITTI), npy, error",
    )
    parser.add_argument(
        "--ground-truth",
        help="disparities of the left views: a file, folder or glob; adds metrics.json and errors",
    )
    parser.add_argument(
        "--ground-truth-scale",
        type=float,
        help="stored value per pixel of an integer ground-truth picture (16-bit PNG: 256)",
    )


def _evaluate_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, help="its name; see 'stereo data list'")
    parser.add_argument("--root", help="the data set's folder; 'synthetic' does without")
    parser.add_argument("--output", required=True, help="folder for metrics.json")
    _model_arguments(parser)
    parser.add_argument(
        "--protocol",
        default="pooled",
        help="pooled, psmnet, gwcnet, raft, kitti, middlebury or eth3d",
    )
    _choice_arguments(parser, "the protocol's")
    parser.add_argument("--limit", type=int, help="match only the first N pairs")


def _choice_arguments(parser: ArgumentParser, default_pass: str) -> None:
    parser.add_argument("--split", help="a split of the data set, such as train or test")
    parser.add_argument(
        "--pass", help=f"clean or final, for rendered data (default: {default_pass})"
    )
    parser.add_argument("--layout", help="the data set's tree by name (default: found by looking)")
    parser.add_argument(
        "--unused", help="Scene Flow's all_unused_files.txt; its frames are left out"
    )


def _data_list_arguments(_parser: ArgumentParser) -> None:
    """``data list`` takes none."""


def _data_check_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", help="its name (default: found by looking at the folder)")
    parser.add_argument("--root", required=True, help="the data set's folder")
    parser.add_argument("--output", help="folder for data_check.json and data_check.txt")
    _choice_arguments(parser, "all that are there")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="fewer pairs than published are a remark, not a fault",
    )
    parser.add_argument("--workers", type=int, help="processes (default: one per processor, to 8)")
    parser.add_argument(
        "--max-disparity",
        type=int,
        default=DEFAULT_MAX_DISPARITY,
        help="the share of pixels at this disparity or above is reported",
    )


def _convert_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", help="the authors' .tar file (stacked hourglass or basic)")
    parser.add_argument("--output", required=True, help="the .safetensors file to write")
    parser.add_argument(
        "--align-corners",
        required=True,
        choices=["true", "false"],
        help="true for weights of PyTorch below 0.4.1, false for the retrained model of 2021",
    )


def _model_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="sgbm, psmnet, psmnet_basic, ea_psmnet, ea_stereo_fast or a .safetensors file",
    )
    parser.add_argument(
        "--max-disparity",
        type=int,
        default=DEFAULT_MAX_DISPARITY,
        help="largest disparity searched, pixels, a multiple of 16",
    )
    parser.add_argument(
        "--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="where to run"
    )
    parser.add_argument(
        "--precision",
        default="auto",
        choices=["auto", "fp32", "bf16", "fp16"],
        help="auto: bf16 for ea_stereo_fast where the hardware is fast at it, else fp32",
    )
    parser.add_argument(
        "--allow-untrained",
        action="store_true",
        help="run a network that has no weights yet with random ones; its map means nothing",
    )


def _benchmark_attention_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--output", required=True, help="the JSON file; table (.md) and plot (.png) beside it"
    )
    parser.add_argument("--members", help="comma-separated attentions (default: all)")
    parser.add_argument("--sizes", help="comma-separated volumes such as 12x16x32,48x136x240")
    parser.add_argument("--precisions", default="fp32,bf16", help="comma-separated")
    parser.add_argument(
        "--directions", default="forward,backward", help="comma-separated; backward includes both"
    )
    parser.add_argument(
        "--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="where to run"
    )
    parser.add_argument(
        "--time-limit", type=float, default=60.0, help="a call expected to take longer is not made"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed calls per case")


def _data_preview_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, help="its name; see 'stereo data list'")
    parser.add_argument("--root", help="the data set's folder; 'synthetic' does without")
    parser.add_argument("--output", required=True, help="the .png file to write")
    parser.add_argument("--count", type=int, default=2, help="pairs shown, spread over the set")
    parser.add_argument("--seed", type=int, default=0, help="seed of the augmentation")
    parser.add_argument("--split", help="train or test, where the data set has them")
    parser.add_argument("--pass", help="clean or final, for rendered data")


def _train_arguments(parser: ArgumentParser) -> None:
    from stereo.training.recipe import Recipe

    parser.add_argument(
        "--config", action=_RecipeFile, help="a shipped recipe by name, or a YAML file"
    )
    parser.add_argument("--output", required=True, help="the run's folder")
    parser.add_argument(
        "--resume", default="auto", help="auto: from the folder's last checkpoint; never; a path"
    )
    parser.add_argument("--weights", help="start from these weights: .safetensors or PSMNet's .tar")
    parser.add_argument("--max-time", help="save and stop before it has passed: 90s, 50m, 2.5h")
    parser.add_class_arguments(Recipe)


def _synthesize_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--root", required=True, help="folder for the data set")
    parser.add_argument("--count", type=int, required=True, help="number of pairs")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another set")
    parser.add_argument("--split", default="train", choices=["train", "test"], help="Scene Flow's")
    parser.add_argument("--textures", help="a folder of pictures to cover surfaces with")
    parser.add_argument("--height", type=int, default=256, help="rows, pixels")
    parser.add_argument("--width", type=int, default=448, help="columns, pixels")
    parser.add_argument(
        "--max-disparity",
        type=int,
        default=DEFAULT_MAX_DISPARITY,
        help="disparities lie below it, pixels",
    )
    parser.add_argument(
        "--distribution",
        default="mixed",
        choices=["mixed", "uniform", "log"],
        help="how disparities are drawn; mixed: one of the others and a range, anew per scene",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that render")


def _demo(config: Namespace) -> int:
    from stereo.demo import demo

    demo(config.output)
    return 0


def _infer(config: Namespace) -> int:
    from stereo.infer import infer

    failed = infer(
        _load_model(config),
        config.left,
        config.right,
        config.output,
        formats=config.formats,
        ground_truth=config.ground_truth,
        ground_truth_scale=config.ground_truth_scale,
    )
    return 1 if failed else 0


def _evaluate(config: Namespace) -> int:
    from stereo.evaluate import evaluate

    _, failed = evaluate(
        _load_model(config),
        config.dataset,
        config.root,
        config.output,
        protocol=config.protocol,
        split=config.split,
        render_pass=config["pass"],
        limit=config.limit,
        layout=config.layout,
        unused=config.unused,
    )
    return 1 if failed else 0


def _data_list(_config: Namespace) -> int:
    from stereo.doctor import list_datasets

    list_datasets()
    return 0


def _data_check(config: Namespace) -> int:
    from stereo.doctor import check_dataset

    report = check_dataset(
        config.dataset,
        config.root,
        config.output,
        split=config.split,
        render_pass=config["pass"],
        layout=config.layout,
        unused=config.unused,
        partial=config.partial,
        workers=config.workers,
        max_disparity=config.max_disparity,
    )
    return 0 if report["ok"] else 1


def _convert(config: Namespace) -> int:
    from stereo.checkpoint import save_checkpoint
    from stereo.console import say
    from stereo.convert import convert_psmnet

    checkpoint = convert_psmnet(config.file, align_corners=config.align_corners == "true")
    save_checkpoint(config.output, checkpoint)
    say(f"{config.output}: {checkpoint.config.name}, {checkpoint.config.upsampling}")
    return 0


def _benchmark_attention(config: Namespace) -> int:
    from stereo.benchmark.attention import SIZES, benchmark_attention

    benchmark_attention(
        config.output,
        members=_split(config.members) if config.members else None,
        sizes=[_size(text) for text in _split(config.sizes)] if config.sizes else SIZES,
        precisions=_split(config.precisions),
        directions=_split(config.directions),
        device=config.device,
        time_limit=config.time_limit,
        repeats=config.repeats,
    )
    return 0


def _data_preview(config: Namespace) -> int:
    from stereo.preview import preview

    preview(
        config.dataset,
        config.root,
        config.output,
        count=config.count,
        seed=config.seed,
        split=config.split,
        render_pass=config["pass"],
    )
    return 0


def _train(config: Namespace) -> int:
    from stereo.training.loop import train
    from stereo.training.recipe import Recipe, prepare
    from stereo.training.schedule import parse_duration

    try:
        seconds = None if config.max_time is None else parse_duration(config.max_time)
    except ValueError as error:
        raise UsageError(f"--max-time {config.max_time}: write 90s, 50m or 2.5h") from error
    fields = {field.name: config[field.name] for field in dataclasses.fields(Recipe)}
    train(
        prepare(Recipe(**fields), weights=config.weights),
        config.output,
        resume=config.resume,
        max_seconds=seconds,
    )
    return 0


def _synthesize(config: Namespace) -> int:
    from stereo.data.synthetic import SyntheticConfig
    from stereo.synthesize import synthesize

    scenes = SyntheticConfig(
        height=config.height,
        width=config.width,
        max_disparity=config.max_disparity,
        distribution=config.distribution,
        textures=config.textures,
        seed=config.seed,
    )
    synthesize(config.root, scenes, config.count, split=config.split, workers=config.workers)
    return 0


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _size(text: str) -> tuple[int, int, int]:
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) for part in parts):
        raise UsageError(f"'{text}' is not a volume; write it as DxHxW, such as 48x136x240")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _load_model(config: Namespace) -> Any:
    from stereo.console import complain, say
    from stereo.matcher import load

    matcher = load(
        config.model,
        device=config.device,
        precision=config.precision,
        max_disparity=config.max_disparity,
        allow_untrained=config.allow_untrained,
    )
    facts = matcher.description
    if facts.get("weights") == "untrained":
        complain(f"warning: '{facts['name']}' runs with random weights; its map means nothing")
    say(
        f"model {facts['name']}, max disparity {facts['max_disparity']} px, "
        f"device {facts['device']}, precision {facts['precision']}"
    )
    return matcher


@dataclass(frozen=True)
class _Command:
    """One command: its name below ``stereo``, its arguments, what it calls, and its help."""

    name: str
    add_arguments: Callable[[ArgumentParser], None]
    function: Callable[[Namespace], int]
    summary: str
    example: str


_GROUPS = {
    "benchmark": "time and peak memory, with the machine and commit in the JSON",
    "data": "render, look at, check and list data sets",
}
_COMMANDS = (
    _Command("demo", _demo_arguments, _demo, "map the bundled pairs and print EPE", "stereo demo"),
    _Command(
        "infer",
        _infer_arguments,
        _infer,
        "disparity maps of your own rectified pairs",
        "stereo infer left.png right.png --output maps --formats color,pfm,png16\n"
        "  stereo infer 'scenes/*/im0.png' 'scenes/*/im1.png' --output maps",
    ),
    _Command(
        "evaluate",
        _evaluate_arguments,
        _evaluate,
        "metrics over a data set under a named protocol",
        "stereo evaluate --dataset sceneflow --root DIR --model sgbm --protocol pooled "
        "--output results",
    ),
    _Command(
        "train",
        _train_arguments,
        _train,
        "train a network by a recipe, with exact resume",
        "stereo train --config quickstart --output runs/first --max-time 10m\n"
        "  stereo train --config psmnet_sceneflow --data.root DIR --output runs/psmnet "
        "--trainer.batch_size 8",
    ),
    _Command(
        "data list",
        _data_list_arguments,
        _data_list,
        "the data sets known, with splits, published counts and trees",
        "stereo data list",
    ),
    _Command(
        "data check",
        _data_check_arguments,
        _data_check,
        "examine every file of a data set; exit status 1 when something is wrong",
        "stereo data check --dataset sceneflow --root DIR --output report",
    ),
    _Command(
        "convert",
        _convert_arguments,
        _convert,
        "a published PSMNet checkpoint into this project's form",
        "stereo convert pretrained_sceneflow.tar --output psmnet.safetensors --align-corners true",
    ),
    _Command(
        "benchmark attention",
        _benchmark_attention_arguments,
        _benchmark_attention,
        "every attention against the size of the volume",
        "stereo benchmark attention --output attention.json --members efficient,dot_product",
    ),
    _Command(
        "data preview",
        _data_preview_arguments,
        _data_preview,
        "a contact sheet of what training sees, each augmentation alone",
        "stereo data preview --dataset sceneflow --root datasets/samples --output sheet.png",
    ),
    _Command(
        "data synthesize",
        _synthesize_arguments,
        _synthesize,
        "render a Scene Flow-shaped set with exact ground truth; continues where it stopped",
        "stereo data synthesize --root rendered --count 1000 --seed 1 --textures photographs",
    ),
)
_NAMES = "|".join(sorted({word for command in _COMMANDS for word in command.name.split()}))
