"""``export``: a network as an ONNX file."""

from stereo.commands.command import from_function

COMMANDS = (
    from_function(
        "export",
        "stereo.export:export",
        "a network as an ONNX file, checked in ONNX Runtime",
        "stereo export ea_stereo_fast --output stereo.onnx\n"
        "  stereo infer left.png right.png --output maps --model stereo.onnx",
        positional=("model",),
    ),
)
