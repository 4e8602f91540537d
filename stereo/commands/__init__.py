"""The commands: their arguments, and the one function that each calls.

Modules that take long to import are imported when their command runs.
"""

from stereo.commands import data, geometry, matching, models, training
from stereo.commands.command import Command, from_function

GROUPS = {
    "benchmark": "time and peak memory, with the machine and commit in the JSON",
    "data": "render, look at, check and list data sets",
}
"""Commands of two words, by the first."""

COMMANDS: tuple[Command, ...] = (
    *matching.COMMANDS,
    *models.COMMANDS,
    from_function("app", "stereo.app.server:serve", "serve the web page", "stereo app --port 7860"),
    *geometry.COMMANDS,
    *training.COMMANDS,
    from_function(
        "export",
        "stereo.export:export",
        "export a network to ONNX and check it in ONNX Runtime",
        "stereo export ea_stereo --output stereo.onnx\n"
        "  stereo infer left.png right.png --output maps --model stereo.onnx",
        positional=("model",),
    ),
    *data.COMMANDS,
    from_function(
        "benchmark attention",
        "stereo.benchmark.attention:benchmark_attention",
        "time and memory of every attention against the size of the volume",
        "stereo benchmark attention --output attention.json --members efficient,dot_product",
    ),
    from_function(
        "benchmark inference",
        "stereo.benchmark.inference:benchmark_inference",
        "networks as shipped and in their plain form, and semi-global matching",
        "stereo benchmark inference --output inference.json --models ea_stereo,sgbm,zoo:s2m2",
    ),
    from_function(
        "benchmark training",
        "stereo.benchmark.training:benchmark_training",
        "a training step: time, memory, and the batch that fits",
        "stereo benchmark training --output training.json --models psmnet --precisions bf16",
    ),
)

__all__ = ["COMMANDS", "GROUPS", "Command"]
