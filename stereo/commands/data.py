"""Commands about data sets: ``data list``, ``check``, ``preview`` and ``synthesize``."""

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from stereo.commands.command import Command, add_options, from_function, read_options

SCENES = (
    "height",
    "width",
    "max_disparity",
    "distribution",
    "textures",
    "meshes",
    "plain",
    "repetition",
    "haze",
    "cabinets",
    "frames",
    "misalignment",
    "seed",
)


def _synthesize_arguments(parser: ArgumentParser) -> None:
    from stereo.data.synthetic import SyntheticConfig
    from stereo.data.synthetic.synthesize import synthesize

    add_options(parser, synthesize, ("root", "count", "split", "workers"))
    add_options(parser, SyntheticConfig, SCENES)


def _synthesize(config: Namespace) -> int:
    from stereo.data.synthetic import SyntheticConfig
    from stereo.data.synthetic.synthesize import synthesize

    scenes = SyntheticConfig(**read_options(config, SyntheticConfig))
    synthesize(config.root, scenes, config.count, split=config.split, workers=config.workers)
    return 0


def _check_status(report: dict[str, Any]) -> int:
    from stereo.system.console import warn

    if not report["ok"]:
        warn("stereo data check: error: faults were found; they are listed above, on stdout")
    return 0 if report["ok"] else 1


COMMANDS = (
    from_function(
        "data list",
        "stereo.data.check:list_datasets",
        "list the known data sets, with splits, published counts and trees",
        "stereo data list",
    ),
    from_function(
        "data check",
        "stereo.data.check:check_dataset",
        "check every file of a data set; exit status 1 when something is wrong",
        "stereo data check --dataset sceneflow --root DIR --output report",
        status=_check_status,
        reads_pictures=True,
    ),
    from_function(
        "data preview",
        "stereo.data.augmentation.preview:preview",
        "draw a contact sheet of what training sees, each augmentation alone",
        "stereo data preview --dataset sceneflow --root datasets/samples --output sheet.png",
        reads_pictures=True,
    ),
    Command(
        "data synthesize",
        _synthesize_arguments,
        _synthesize,
        "render scenes with exact ground truth in Scene Flow's tree; continues where it stopped",
        "stereo data synthesize --root rendered --count 1000 --seed 1 --textures photographs",
        reads_pictures=True,
    ),
)
