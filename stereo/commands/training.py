"""Commands that make weights: ``train``, ``adapt``, ``convert`` and ``fit-confidence``."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from stereo.commands.command import Command, from_function
from stereo.errors import InputError, UsageError


class _RecipeFile(ActionConfigFile):
    """``--config`` that knows the shipped recipes by name."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        from stereo.system.limits import check_file
        from stereo.system.parsing import MAX_YAML_BYTES, parse_yaml
        from stereo.training.recipe import recipe_path

        path = recipe_path(values)
        try:
            check_file(path, MAX_YAML_BYTES, "a recipe")
            # Here it is bounded; in jsonargparse it is not.
            sections = parse_yaml(path.read_text(encoding="utf-8"), str(path))
            if not isinstance(sections, dict):
                raise InputError(f"{path}: no sections")
        except (InputError, OSError, UnicodeDecodeError) as error:
            reason = str(error) if isinstance(error, InputError) else f"{path}: {error}"
            raise UsageError(
                f"{reason}; a recipe is a YAML file of sections such as network, data and trainer"
            ) from error
        for action in parser._actions:  # before a field in it is missed
            section, _, field = action.dest.partition(".")
            if field and section in sections and sections[section] is None:
                raise UsageError(
                    f"{path}: '{section}' is null; it has fields, such as '{action.dest}'"
                )
        super().__call__(parser, cfg, str(path), option_string)


def _train_arguments(parser: ArgumentParser) -> None:
    from jsonargparse import set_parsing_settings

    from stereo.attention import ATTENTIONS
    from stereo.models.config import NO_ATTENTION, SITES_OF
    from stereo.training.recipe import Recipe

    set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the fields' help
    parser.add_argument(
        "--config", action=_RecipeFile, help="a shipped recipe by name, or a YAML file"
    )
    parser.add_argument("--output", required=True, help="the run's folder")
    parser.add_argument(
        "--resume", default="auto", help="auto: from the folder's last checkpoint; never; a path"
    )
    parser.add_argument(
        "--weights",
        help="start from these weights: a model's name, a .safetensors file or PSMNet's .tar",
    )
    parser.add_argument("--max-time", help="save and stop before it has passed: 90s, 50m, 2.5h")
    parser.add_class_arguments(Recipe)
    names = ", ".join(sorted([*ATTENTIONS, NO_ATTENTION]))
    sites = "; ".join(f"{name}: {', '.join(sites)}" for name, sites in SITES_OF.items() if sites)
    (action,) = (each for each in parser._actions if each.dest == "network.attention")
    action.help = (  # jsonargparse lists no fields of what may be null
        f"{action.help} By field: --network.attention.name ({names}), --network.attention.sites "
        f"(a list; {sites}), --network.attention.options, --network.attention.mask_invalid"
    )


def _convert_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", help="the authors' .tar file (stacked hourglass or basic)")
    parser.add_argument("--output", required=True, help="the .safetensors file to write")
    parser.add_argument(
        "--align-corners",
        required=True,
        choices=["true", "false"],
        help="true for the authors' weights of 2018, false for those they retrained in 2021",
    )


def _train(config: Namespace) -> int:
    from stereo.system.heap import keep_freed_memory
    from stereo.training.loop import train
    from stereo.training.prepare import prepare
    from stereo.training.recipe import Recipe
    from stereo.training.schedule import parse_duration

    began = time.monotonic()
    for name in ("output", "resume", "weights", "max_time"):
        if isinstance(config[name], list | dict):
            raise UsageError(f"'{name}' is {config[name]}; expected a string")
        config[name] = None if config[name] is None else str(config[name])
    seconds = None if config.max_time is None else parse_duration(config.max_time)
    keep_freed_memory()
    fields = {field.name: config[field.name] for field in dataclasses.fields(Recipe)}
    run = prepare(Recipe(**fields), weights=config.weights)
    if seconds is not None:  # long listings count
        seconds = max(0.0, seconds - (time.monotonic() - began))
    train(run, config.output, resume=config.resume, max_seconds=seconds)
    return 0


def _convert(config: Namespace) -> int:
    from stereo.models.checkpoint import check_weights_name, save_checkpoint
    from stereo.models.convert import convert_psmnet
    from stereo.system.console import say

    output = Path(config.output)
    check_weights_name(output)
    checkpoint = convert_psmnet(config.file, align_corners=config.align_corners == "true")
    save_checkpoint(output, checkpoint)
    say(f"{output}: {checkpoint.config.name}, {checkpoint.config.upsampling}")
    return 0


COMMANDS = (
    Command(
        "train",
        _train_arguments,
        _train,
        "train a network with a recipe, with exact resume",
        "stereo train --config quickstart --output runs/first --max-time 10m\n"
        "  stereo train --config psmnet_sceneflow --data.root DIR --output runs/psmnet "
        "--trainer.batch_size 8\n"
        "  stereo train --config finetune --data.root ROOT --output runs/mine",
        distributed=True,
        reads_pictures=True,
    ),
    from_function(
        "adapt",
        "stereo.training.adapt:adapt",
        "adapt weights to your own pairs without ground truth; kept only if they improve",
        "stereo adapt left right --output mine.safetensors --max-time 10m\n"
        "  stereo infer left right --model mine.safetensors --output maps",
        positional=("left", "right"),
        status=lambda better: 0 if better else 1,
        reads_pictures=True,
    ),
    Command(
        "convert",
        _convert_arguments,
        _convert,
        "convert a published PSMNet checkpoint",
        "stereo convert pretrained_sceneflow.tar --output psmnet.safetensors --align-corners true",
    ),
    from_function(
        "fit-confidence",
        "stereo.training.fit_confidence:fit_confidence",
        "fit a checkpoint's confidence to rendered pairs",
        "stereo fit-confidence runs/psmnet/best.safetensors --output psmnet.safetensors",
        positional=("model",),
    ),
)
