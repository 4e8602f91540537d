"""``export``: a network as an ONNX file."""

from jsonargparse import ArgumentParser, Namespace

from stereo.commands.command import Command


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model",
        help="psmnet, psmnet_basic, ea_psmnet, ea_stereo_fast, ea_stereo or a .safetensors file",
    )
    parser.add_argument("--output", required=True, help="the .onnx file to write")
    parser.add_argument(
        "--max-disparity",
        type=int,
        help="disparities the file will search, pixels, a multiple of 16 (default: the "
        "checkpoint's own, for untrained networks 192)",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=["fp32", "fp16", "int8"],
        help="of the convolutions; int8 is calibrated on rendered pairs",
    )
    parser.add_argument(
        "--allow-untrained",
        action="store_true",
        help="export a network that ships without weights with random ones; its map means nothing",
    )


def _export(config: Namespace) -> int:
    from stereo.export import export

    export(
        config.model,
        config.output,
        max_disparity=config.max_disparity,
        precision=config.precision,
        allow_untrained=config.allow_untrained,
    )
    return 0


COMMANDS = (
    Command(
        "export",
        _arguments,
        _export,
        "a network as an ONNX file, checked in ONNX Runtime",
        "stereo export ea_stereo_fast --output stereo.onnx\n"
        "  stereo infer left.png right.png --output maps --model stereo.onnx",
    ),
)
