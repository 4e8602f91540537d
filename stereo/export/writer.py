"""``stereo export``: trace, check, and write."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from stereo.data.sets.fingerprints import packed
from stereo.errors import StereoError, UsageError, unknown_name
from stereo.export.check import UNSEEN, Difference, check_against_pytorch, mean_error, rendered
from stereo.export.graph import check_exportable, export_graph, set_metadata
from stereo.export.precision import halve, quantize
from stereo.matching.loading import load
from stereo.matching.matcher import Matcher
from stereo.matching.onnx_engine import FORMAT, PRECISIONS, OnnxEngine, OnnxGraph
from stereo.matching.options import kind_of
from stereo.models import NETWORK_NAMES, NetworkConfig
from stereo.system import console
from stereo.system.extras import import_extra
from stereo.system.files import output_folder, staged
from stereo.version import __version__

CALIBRATION_PAIRS = 8
SCORED_PAIRS = 4
_SIZE = (256, 448)  # height and width of calibration and scored pairs


def export(
    model: str | Path,
    output: str | Path,
    *,
    max_disparity: int | None = None,
    precision: Literal["fp32", "fp16", "int8"] = "fp32",
    allow_untrained: bool = False,
) -> Path:
    """Write a network as one ONNX file for any batch, height and width.

    The fp32 graph is compared with PyTorch at two sizes that were not traced, in ONNX Runtime on
    the CPU, whatever the precision; for fp16 and int8 the EPE before and after is printed.

    Args:
        model: ea_stereo, ea_stereo_fast, psmnet, psmnet_basic, ea_psmnet or a .safetensors file.
        output: the .onnx file to write.
        max_disparity: disparities the file will search, pixels, a multiple of 16 (default: the
            checkpoint's own, for untrained networks 192).
        precision: of the convolutions; int8 is calibrated on rendered pairs.
        allow_untrained: export a network that ships without weights with random ones; its map means
            nothing.

    Raises:
        UsageError: an unknown name or precision, or a network that cannot be a graph, with the
            reason.
        InputError: a checkpoint that cannot be used.
        StereoError: a package is missing, or the graph's maps are not those of PyTorch.
        OutputError: the file cannot be written.
    """
    path = Path(output)
    _check_arguments(str(model), path, precision)
    for name in ("onnx", "onnxscript", "onnxruntime"):
        import_extra(name, "export", "'stereo export'")
    reference = load(
        model,
        device="cpu",
        precision="fp32",
        max_disparity=max_disparity,
        tile="off",
        allow_untrained=allow_untrained,
    )
    network = reference.network
    assert network is not None
    config = NetworkConfig.from_dict(reference.description["network"])
    check_exportable(config)
    output_folder(path.parent)
    facts = _facts(reference, config)
    with staged(path) as (temporary,):
        console.say(f"tracing {facts['name']}, {network.max_disparity} px: takes most of the time")
        proto = export_graph(network, config)
        _write(proto, facts | {"precision": "fp32"}, temporary)
        console.say(f"checking it in ONNX Runtime against PyTorch, at {len(UNSEEN)} sizes")
        found = check_against_pytorch(reference, config, OnnxEngine(OnnxGraph(temporary)))
        for size, difference in zip(UNSEEN, found, strict=True):
            console.say(_difference_text(size, difference))
        if precision != "fp32":
            console.say(f"converting it to {precision}, and scoring it on rendered pairs")
            _reduce(proto, facts | {"precision": precision}, temporary, reference)
        megabytes = temporary.stat().st_size / 1e6
    console.say(
        f"{path}: {facts['name']} in {precision}, {megabytes:.1f} MB, disparities below "
        f"{network.max_disparity} px, any batch, height and width"
    )
    return path


def _check_arguments(name: str, path: Path, precision: str) -> None:
    """Raise ``UsageError`` for impossible arguments."""
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: the output's name must end in .onnx")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name the file to write")
    if kind_of(name) != "network":
        raise UsageError(f"'{name}' is none of our networks, and only those can be exported")
    if name not in NETWORK_NAMES and not (name.endswith(".safetensors") or Path(name).is_file()):
        raise unknown_name("network", name, [*NETWORK_NAMES, "a .safetensors file"])


def _facts(reference: Matcher, config: NetworkConfig) -> dict[str, str]:
    """Return the metadata of the file, but for its precision."""
    network, about = reference.network, reference.description
    assert network is not None
    config = dataclasses.replace(config, max_disparity=network.max_disparity)
    confidence = None if reference.confidence is None else reference.confidence.to_dict()
    return {
        "format": FORMAT,
        "version": __version__,
        "name": about["name"],
        "network": json.dumps(config.to_dict()),
        "weights": about["weights"],
        "max_disparity": str(network.max_disparity),
        "stride": str(network.stride),
        "confidence": json.dumps(confidence),
        "trained_on": packed(reference.trained_on),
    }


def _difference_text(size: tuple[int, int, int], found: Difference) -> str:
    batch, height, width = size
    rounding = ""
    if found.rounding is not None:
        rounding = f" (PyTorch from its own map in float64: {found.rounding:.1e} px)"
    return (
        f"{width}x{height}, batch of {batch}: differs from PyTorch by {found.mean:.1e} px "
        f"on average, {found.largest:.1e} px at most{rounding}"
    )


def _reduce(proto: Any, facts: dict[str, str], path: Path, reference: Matcher) -> None:
    """Write a graph in reduced precision, and print its EPE."""
    import onnx

    height, width = _SIZE
    reach = reference.description["max_disparity"]
    if facts["precision"] == "fp16":
        proto = halve(proto)
    else:
        quantize(proto, rendered(height, width, reach, CALIBRATION_PAIRS, SCORED_PAIRS), path)
        proto = onnx.load(path)
    _write(proto, facts, path)
    scored = rendered(height, width, reach, SCORED_PAIRS)
    before, after = (mean_error(matcher, scored) for matcher in (reference, load(path)))
    console.say(
        f"{facts['precision']}: EPE {before:.3f} -> {after:.3f} px on {SCORED_PAIRS} rendered "
        f"pairs of {width}x{height}"
    )


def _write(proto: Any, facts: dict[str, str], path: Path) -> None:
    import onnx

    set_metadata(proto, facts)
    try:
        onnx.checker.check_model(proto)
        onnx.save(proto, path)
    except onnx.checker.ValidationError as error:
        raise StereoError(f"the exported graph is not valid ({str(error)[:200]})") from error
