"""Commands that measure: ``benchmark attention``, ``inference`` and ``training``."""

from jsonargparse import ArgumentParser, Namespace

from stereo.commands.command import Command, add_fields
from stereo.errors import UsageError
from stereo.matching.options import MatchOptions

PRECISIONS = "comma-separated (default: fp32, and bf16 where it is not emulated)"


def _benchmark_attention_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--output", required=True, help="the JSON file; table (.md) and plot (.png) beside it"
    )
    parser.add_argument("--members", help="comma-separated attentions (default: all)")
    parser.add_argument("--sizes", help="comma-separated volumes such as 12x16x32,48x136x240")
    parser.add_argument("--precisions", help=PRECISIONS)
    parser.add_argument(
        "--directions", default="forward,backward", help="comma-separated; backward includes both"
    )
    add_fields(parser, MatchOptions, ["device"])
    parser.add_argument(
        "--time-limit", type=float, default=60.0, help="a call expected to take longer is not made"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed calls per case")


def _benchmark_attention(config: Namespace) -> int:
    from stereo.benchmark.attention import SIZES, benchmark_attention

    benchmark_attention(
        config.output,
        members=_split(config.members) if config.members else None,
        sizes=[_size(text) for text in _split(config.sizes)] if config.sizes else SIZES,
        precisions=_split(config.precisions) if config.precisions else None,
        directions=_split(config.directions),
        device=config.device,
        time_limit=config.time_limit,
        repeats=config.repeats,
    )
    return 0


def _network_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--max-disparity",
        type=int,
        help="pixels, a multiple of 16 (default: the largest of the models' own)",
    )
    parser.add_argument("--precisions", help=PRECISIONS)
    add_fields(parser, MatchOptions, ["device"])
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds")
    parser.add_argument(
        "--reference-psmnet", help="folder of the original PSMNet, to be timed beside ours"
    )


def _benchmark_inference_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--output", required=True, help="the JSON file; table (.md) and plot (.png) beside it"
    )
    parser.add_argument("--models", help="comma-separated networks, and sgbm (default: all kinds)")
    parser.add_argument("--size", default="544x960", help="of the pair, HxW pixels")
    parser.add_argument(
        "--busy",
        type=int,
        default=0,
        metavar="N",
        help="time what ships beside N busy processes, too (default: 0)",
    )
    _network_arguments(parser)


def _benchmark_inference(config: Namespace) -> int:
    from stereo.benchmark.inference import MODELS, benchmark_inference

    benchmark_inference(
        config.output,
        models=_split(config.models) if config.models else MODELS,
        size=_picture_size(config.size),
        max_disparity=config.max_disparity,
        precisions=_split(config.precisions) if config.precisions else None,
        device=config.device,
        repeats=config.repeats,
        busy=config.busy,
        reference_psmnet=config.reference_psmnet,
    )
    return 0


def _benchmark_training_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--output", required=True, help="the JSON file; table (.md) beside it")
    parser.add_argument("--models", help="comma-separated networks (default: all kinds)")
    parser.add_argument("--crop", default="256x512", help="HxW pixels, multiples of 16")
    _network_arguments(parser)


def _benchmark_training(config: Namespace) -> int:
    from stereo.benchmark.training import MODELS, benchmark_training

    benchmark_training(
        config.output,
        models=_split(config.models) if config.models else MODELS,
        crop=_picture_size(config.crop),
        max_disparity=config.max_disparity,
        precisions=_split(config.precisions) if config.precisions else None,
        device=config.device,
        repeats=config.repeats,
        reference_psmnet=config.reference_psmnet,
    )
    return 0


def _picture_size(text: str) -> tuple[int, int]:
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) for part in parts):
        raise UsageError(f"'{text}' is not a size; write it as HxW, such as 544x960")
    return int(parts[0]), int(parts[1])


def _split(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"'{text}' names nothing; write names with commas between them")
    return parts


def _size(text: str) -> tuple[int, int, int]:
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) for part in parts):
        raise UsageError(f"'{text}' is not a volume; write it as DxHxW, such as 48x136x240")
    return int(parts[0]), int(parts[1]), int(parts[2])


COMMANDS = (
    Command(
        "benchmark attention",
        _benchmark_attention_arguments,
        _benchmark_attention,
        "every attention against the size of the volume",
        "stereo benchmark attention --output attention.json --members efficient,dot_product",
    ),
    Command(
        "benchmark inference",
        _benchmark_inference_arguments,
        _benchmark_inference,
        "networks as shipped and in their plain form, and semi-global matching",
        "stereo benchmark inference --output inference.json --reference-psmnet PSMNet",
    ),
    Command(
        "benchmark training",
        _benchmark_training_arguments,
        _benchmark_training,
        "a step of training: time, memory, and the batch that fits",
        "stereo benchmark training --output training.json --models psmnet --precisions bf16",
    ),
)
