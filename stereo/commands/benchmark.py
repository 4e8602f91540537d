"""Commands that measure: ``benchmark attention``, ``inference`` and ``training``."""

from stereo.commands.command import from_function

COMMANDS = (
    from_function(
        "benchmark attention",
        "stereo.benchmark.attention:benchmark_attention",
        "every attention against the size of the volume",
        "stereo benchmark attention --output attention.json --members efficient,dot_product",
    ),
    from_function(
        "benchmark inference",
        "stereo.benchmark.inference:benchmark_inference",
        "networks as shipped and in their plain form, and semi-global matching",
        "stereo benchmark inference --output inference.json --models ea_stereo_fast,sgbm,zoo:s2m2",
    ),
    from_function(
        "benchmark training",
        "stereo.benchmark.training:benchmark_training",
        "a step of training: time, memory, and the batch that fits",
        "stereo benchmark training --output training.json --models psmnet --precisions bf16",
    ),
)
