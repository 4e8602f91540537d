"""Reduced precision: convolutions in fp16 or int8, everything else unchanged.

What finds and sums disparities, softmax, interpolation and coordinates, needs fp32 and costs little
next to the convolutions.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stereo.data.synthetic import RenderedPair
from stereo.export.quiet import quiet_loggers

CONVOLUTIONS = ("Conv", "ConvTranspose")
_BETWEEN = ("Add", "Concat", "Relu")  # kept in fp16 where all that they take is


def halve(proto: Any) -> Any:
    """Return a copy of an ``onnx.ModelProto`` whose convolutions compute in fp16.

    ONNX Runtime's CPU computes them in fp32 of values rounded to fp16; others have kernels for it.
    Its own converter (``onnxruntime.transformers.float16``) rounds the maps to fp16 too, and casts
    around every node that stays in fp32.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    half = onnx.ModelProto()
    half.CopyFrom(proto)
    graph = half.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    as_half: dict[str, str] = {}  # fp32 value -> its fp16 twin
    as_full: dict[str, str] = {}  # fp16 value -> its fp32 twin
    results = {value.name for value in graph.output}
    halves: set[str] = set()  # values that exist in fp16 alone
    nodes: list[Any] = []

    def twin(name: str, known: dict[str, str], suffix: str, to: int) -> str:
        if name not in known:
            known[name] = f"{name}_{suffix}"
            nodes.append(helper.make_node("Cast", [name], [known[name]], to=to))
        return known[name]

    for node in graph.node:
        convolves = node.op_type in CONVOLUTIONS
        between = node.op_type in _BETWEEN and all(name in halves for name in node.input)
        if not (convolves or between) or results & set(node.output):
            for i, name in enumerate(node.input):
                if name in halves:
                    node.input[i] = twin(name, as_full, "fp32", TensorProto.FLOAT)
            nodes.append(node)
            continue
        for i, name in enumerate(node.input):
            if name in halves or not name:
                continue
            if name in weights:
                if name not in as_half:
                    as_half[name] = f"{name}_fp16"
                    values = numpy_helper.to_array(weights[name]).astype(np.float16)
                    graph.initializer.append(numpy_helper.from_array(values, as_half[name]))
                node.input[i] = as_half[name]
            else:
                node.input[i] = twin(name, as_half, "fp16", TensorProto.FLOAT16)
        halves.update(node.output)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    typed = [value for value in graph.value_info if value.name not in halves]
    del graph.value_info[:]
    graph.value_info.extend(typed)
    return half


def quantize(proto: Any, pairs: Iterable[RenderedPair], path: Path) -> None:
    """Write a graph whose convolutions compute in int8, with ranges taken from pairs.

    Weights have a range per output channel. Transposed convolutions stay in fp32: ONNX Runtime has
    no int8 kernel for them.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest: Iterator[dict[str, np.ndarray]] = (inputs_of(pair) for pair in pairs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rest, None)

    with quiet_loggers():
        quantize_static(
            proto,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,  # to 7 bits: sums of 8 overflow on processors without VNNI
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def inputs_of(pair: RenderedPair) -> dict[str, np.ndarray]:
    """Return the graph's inputs for one pair."""
    views = {"left": pair.left, "right": pair.right}
    return {name: view.astype(np.float32).transpose(2, 0, 1)[None] for name, view in views.items()}
