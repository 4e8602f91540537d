"""The command that makes and checks archives for the benchmarks' servers: ``submit``."""

from jsonargparse import ArgumentParser, Namespace

from stereo.commands.command import Command
from stereo.commands.matching import chosen_model, model_arguments
from stereo.errors import UsageError


def _submit_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("benchmark", help="kitti2012, kitti2015, middlebury_v3 or eth3d")
    parser.add_argument("--root", required=True, help="the data set's folder; pictures are enough")
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
    pairs = {"method": config.method, "layout": config.layout, "partial": config.partial}
    if config.validate is not None:
        validate_archive(config.validate, config.benchmark, config.root, **pairs)
    else:
        submit(chosen_model(config)(), config.benchmark, config.root, config.output, **pairs)
    return 0


COMMANDS = (
    Command(
        "submit",
        _submit_arguments,
        _submit,
        "a validated archive for KITTI's, Middlebury's or ETH3D's server",
        "stereo submit kitti2015 --root KITTI2015 --output kitti2015.zip\n"
        "  stereo submit kitti2015 --root KITTI2015 --validate kitti2015.zip",
        reads_pictures=True,
    ),
)
