"""Load a model, by name or file, ready to match."""

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stereo.errors import InputError, UsageError
from stereo.matching.code_file import load_code
from stereo.matching.confidence import ConfidenceModel, confidence_model
from stereo.matching.engine import NetworkEngine, optimize_for_inference
from stereo.matching.foreign_onnx import ForeignOnnxEngine
from stereo.matching.matcher import Matcher
from stereo.matching.onnx_engine import OnnxEngine, OnnxGraph
from stereo.matching.options import MatchOptions, kind_of
from stereo.matching.sgbm import SgbmEngine
from stereo.matching.wrap import foreign_matcher, wrap_network
from stereo.models import NETWORK_NAMES, NetworkConfig, StereoNetwork, build_network
from stereo.models.checkpoint import (
    BEST,
    LAST,
    file_sha256,
    load_checkpoint,
    restore_network,
)
from stereo.models.zoo import library_version, zoo_network
from stereo.system.bundled import DEFAULT_MAX_DISPARITY, DEFAULT_MODEL, SGBM, bundled_weights
from stereo.system.heap import keep_freed_memory
from stereo.system.runtime import pick_device
from stereo.system.threads import warn_if_threads_spin
from stereo.version import __version__


def load(
    model: str | Path = DEFAULT_MODEL, options: MatchOptions | None = None, **fields: Any
) -> Matcher:
    """Load a model by name or file.

    On a CPU the process then keeps freed memory from match to match, all that a match takes and of
    all else blocks up to 32 MiB; ``stereo.system.heap.stop_keeping_freed_memory`` undoes that.

    Args:
        model: one of

            - ``sgbm`` or a network's name;
            - the path of a ``.safetensors`` checkpoint;
            - the path of an ``.onnx`` file. One from ``stereo export`` runs on the CPU, with
              ``scale`` 1, no tiles, and the precision and range chosen at export; for other
              exporters see ``stereo.matching.foreign_onnx``;
            - ``FILE.py:NAME``, which runs that file (``stereo.matching.code_file``);
            - ``zoo:NAME`` (``stereo.models.zoo``).
        options: how it matches; None for the defaults.
        fields: of ``stereo.matching.options.MatchOptions``, in place of those of ``options``, such
            as ``device="cpu"`` or ``max_disparity=256``.

    Raises:
        UsageError: an unknown name or option, one that the model does not take, or no weights.
        InputError: a checkpoint that cannot be used.
        TypeError: an unknown field.
    """
    if model != SGBM:
        warn_if_threads_spin()
    options = dataclasses.replace(options or MatchOptions(), **fields)
    options.check(model)
    if pick_device(options.device).type == "cpu":
        keep_freed_memory(large=False)
    kind = kind_of(model)
    if kind == "sgbm":
        return _load_sgbm(options)
    if kind == "code":
        return _from_minimum(load_code(str(model)), options)
    if kind == "zoo":
        return _load_zoo(model, options)
    if kind == "onnx":
        return _load_onnx(Path(model), options)
    return _load_network(model, options)


def _signature() -> inspect.Signature:
    """Return the signature of ``load`` with the fields as keywords, for help and notebooks."""
    own = inspect.signature(load)
    fields = inspect.signature(MatchOptions).parameters.values()
    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in fields]
    return own.replace(parameters=[own.parameters["model"], own.parameters["options"], *keywords])


load.__signature__ = _signature()  # type: ignore[attr-defined]


def own_max_disparity(model: str | Path) -> int:
    """Return the default number of disparities that ``load`` searches, pixels.

    Args:
        model: as in ``load``.

    Raises:
        InputError: a file that cannot be used.
    """
    name, kind = str(model), kind_of(model)
    if kind == "code":
        return int(load_code(name).description["max_disparity"])
    if kind == "zoo":
        return zoo_network(name).max_disparity
    if kind == "onnx":
        return open_onnx(Path(name)).max_disparity
    path = bundled_weights(name) if name in (SGBM, *NETWORK_NAMES) else Path(model)
    return DEFAULT_MAX_DISPARITY if path is None else load_checkpoint(path).config.max_disparity


def searches_own_range(model: str | Path) -> bool:
    """Return whether a model searches ``own_max_disparity`` and nothing else."""
    return kind_of(model) in ("code", "zoo", "onnx")


def loaded(matcher: Matcher | Callable[[], Matcher]) -> Matcher:
    """Return a loaded model, or call what loads it."""
    return matcher if isinstance(matcher, Matcher) else matcher()


def _from_minimum(matcher: Matcher, options: MatchOptions) -> Matcher:
    """Return a model with the options' minimum disparity, if given."""
    if not options.min_disparity:
        return matcher
    facts = matcher.description | {"min_disparity": options.min_disparity}
    return matcher.described(facts)


def _load_network(model: str | Path, options: MatchOptions) -> Matcher:
    name = str(model)
    is_file = name not in NETWORK_NAMES
    path = Path(model) if is_file else bundled_weights(name)
    weights, confidence, trained_on = "untrained", None, frozenset[str]()
    if path is not None:
        checkpoint = load_checkpoint(path)
        network = restore_network(checkpoint, str(path))
        config, weights = checkpoint.config, f"sha256:{file_sha256(path)}"
        trained_on = checkpoint.trained_on
        if checkpoint.confidence is not None:
            confidence = _stored_confidence(checkpoint.confidence, path)
    else:
        config = NetworkConfig(name)
        network = _untrained_network(config)
    network.max_disparity = options.max_disparity or config.max_disparity
    optimize_for_inference(network)
    engine = NetworkEngine(network, config, options)
    if options.compile != "off":
        _compile(network, options.compile)
    description = {
        "name": _name_of(Path(name)) if is_file else name,
        "network": config.to_dict(),
        "weights": weights,
        "max_disparity": network.max_disparity,
        "min_disparity": options.min_disparity,
        "device": str(engine.device),
        "precision": str(engine.dtype).removeprefix("torch."),
        "kernels": engine.kernels,
        "compile": options.compile,
        "scale": options.scale,
        "tile": options.tile,
        "coarse_to_fine": options.coarse_to_fine,
        "version": __version__,
    }
    matcher = Matcher(engine, network, description, confidence)
    matcher.trained_on = trained_on
    return matcher


def _name_of(weights: Path) -> str:
    """Return the name of a file of weights; that of a run's ``best`` and ``last`` is its folder."""
    stem, run = weights.stem, weights.resolve().parent.name
    return f"{run}-{stem}" if run and (stem == BEST or stem.startswith(f"{LAST}-")) else stem


def _load_zoo(model: str | Path, options: MatchOptions) -> Matcher:
    """Load ``zoo:NAME``; where it may be untrained, with random weights if none are here."""
    network = zoo_network(model)
    untrained = options.allow_untrained and not network.has_weights()
    matcher = wrap_network(
        network.build() if untrained else network.load(),
        name=network.name,
        max_disparity=network.max_disparity,
        min_disparity=options.min_disparity,
        mean=network.config.mean,
        std=network.config.std,
        multiple=network.multiple,
        sign=None if untrained else "positive",
        device=options.device,
        precision=options.precision,
    )
    weights = "untrained" if untrained else "the library's"
    matcher.description |= {"library": library_version(), "weights": weights}
    return matcher


def _load_sgbm(options: MatchOptions) -> Matcher:
    engine = SgbmEngine(options.max_disparity or DEFAULT_MAX_DISPARITY)
    description = {
        "name": SGBM,
        "max_disparity": engine.max_disparity,
        "min_disparity": options.min_disparity,
        "device": "cpu",
        "precision": "int16",
        "version": __version__,
    }
    return Matcher(engine, None, description, confidence_model(SGBM))


def _load_onnx(path: Path, options: MatchOptions) -> Matcher:
    engine = open_onnx(path)
    if isinstance(engine, ForeignOnnxEngine):
        if options.precision != "auto" or options.max_disparity is not None:
            raise UsageError(
                f"{path}: a file of another exporter takes neither --precision nor "
                "--max-disparity; leave them out"
            )
        facts = engine.description() | {"min_disparity": options.min_disparity}
        return foreign_matcher(engine, engine.name, engine.max_disparity, **facts)
    own = engine.facts["precision"]
    if options.precision not in ("auto", own):
        raise UsageError(
            f"{path}: was exported in {own}, not {options.precision}; leave --precision out"
        )
    if options.max_disparity not in (None, engine.max_disparity):
        raise UsageError(
            f"{path}: was exported for disparities below {engine.max_disparity} px, not "
            f"{options.max_disparity}; use --max-disparity {engine.max_disparity}, or export it "
            "again"
        )
    stored = engine.confidence
    confidence = None if stored is None else _stored_confidence(stored, path)
    description = engine.description() | {"min_disparity": options.min_disparity}
    matcher = Matcher(engine, None, description, confidence)
    matcher.trained_on = engine.trained_on
    return matcher


def open_onnx(path: Path) -> OnnxEngine | ForeignOnnxEngine:
    """Open a file of ``stereo export``, or of another exporter.

    Raises:
        InputError: it is missing, damaged, or takes no pair.
        StereoError: ONNX Runtime is not installed.
    """
    graph = OnnxGraph(path)
    return OnnxEngine(graph) if graph.is_ours else ForeignOnnxEngine(graph)


def _stored_confidence(stored: dict[str, Any], path: Path) -> ConfidenceModel:
    try:
        return ConfidenceModel.from_dict(stored)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _compile(network: StereoNetwork, backend: str) -> None:
    for part in ("extract", "estimate"):
        compiled = torch.compile(getattr(network, part), backend=backend, dynamic=False)
        setattr(network, part, compiled)


def _untrained_network(config: NetworkConfig) -> StereoNetwork:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        return build_network(config)
