"""Commands about data sets: ``data list``, ``check``, ``preview`` and ``synthesize``."""

from jsonargparse import ArgumentParser, Namespace

from stereo.commands.command import Command, add_choices
from stereo.system.bundled import DEFAULT_MAX_DISPARITY


def _data_list_arguments(_parser: ArgumentParser) -> None:
    """``data list`` takes none."""


def _data_check_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", help="its name (default: found by looking at the folder)")
    parser.add_argument("--root", required=True, help="the data set's folder")
    parser.add_argument("--output", help="folder for data_check.json and data_check.txt")
    add_choices(parser, "all that are there")
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


def _data_preview_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", help="its name (default: found by looking at the folder)")
    parser.add_argument("--root", help="the data set's folder; 'synthetic' does without")
    parser.add_argument("--output", required=True, help="the .png file to write")
    parser.add_argument("--count", type=int, default=2, help="pairs shown, spread over the set")
    parser.add_argument("--seed", type=int, default=0, help="seed of the augmentation")
    parser.add_argument("--split", help="train or test, where the data set has them")
    parser.add_argument("--pass", help="clean or final, for rendered data")


def _synthesize_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--root", required=True, help="folder for the data set")
    parser.add_argument("--count", type=int, required=True, help="number of pairs")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another set")
    parser.add_argument("--split", default="train", choices=["train", "test"], help="Scene Flow's")
    parser.add_argument("--textures", help="a folder of pictures to cover surfaces with")
    parser.add_argument(
        "--meshes",
        help="a folder of triangle meshes (.obj, .glb, .ply, .stl, .off) to stand and float in "
        "the scenes; needs the extra 'render'",
    )
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


def _data_list(_config: Namespace) -> int:
    from stereo.data.check import list_datasets

    list_datasets()
    return 0


def _data_check(config: Namespace) -> int:
    from stereo.data.check import check_dataset

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


def _data_preview(config: Namespace) -> int:
    from stereo.data.augmentation.preview import preview
    from stereo.data.sets.datasets import chosen_dataset

    preview(
        chosen_dataset(config.dataset, config.root),
        config.root,
        config.output,
        count=config.count,
        seed=config.seed,
        split=config.split,
        render_pass=config["pass"],
    )
    return 0


def _synthesize(config: Namespace) -> int:
    from stereo.data.synthetic import SyntheticConfig
    from stereo.data.synthetic.synthesize import synthesize

    scenes = SyntheticConfig(
        height=config.height,
        width=config.width,
        max_disparity=config.max_disparity,
        distribution=config.distribution,
        textures=config.textures,
        meshes=config.meshes,
        seed=config.seed,
    )
    synthesize(config.root, scenes, config.count, split=config.split, workers=config.workers)
    return 0


COMMANDS = (
    Command(
        "data list",
        _data_list_arguments,
        _data_list,
        "the data sets known, with splits, published counts and trees",
        "stereo data list",
    ),
    Command(
        "data check",
        _data_check_arguments,
        _data_check,
        "examine every file of a data set; exit status 1 when something is wrong",
        "stereo data check --dataset sceneflow --root DIR --output report",
        reads_pictures=True,
    ),
    Command(
        "data preview",
        _data_preview_arguments,
        _data_preview,
        "a contact sheet of what training sees, each augmentation alone",
        "stereo data preview --dataset sceneflow --root datasets/samples --output sheet.png",
        reads_pictures=True,
    ),
    Command(
        "data synthesize",
        _synthesize_arguments,
        _synthesize,
        "render a Scene Flow-shaped set with exact ground truth; continues where it stopped",
        "stereo data synthesize --root rendered --count 1000 --seed 1 --textures photographs",
        reads_pictures=True,
    ),
)
