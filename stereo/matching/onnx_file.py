"""ONNX files from outside, checked before ONNX Runtime sees them.

This bounds the constants and what a graph computes from them; what depends on the images is bounded
when it runs (``stereo.matching.onnx_engine``).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stereo.errors import InputError
from stereo.system.extras import import_extra
from stereo.system.limits import check_file

MOST_BYTES = 2**30
MOST_NODES = 50_000
MOST_NODES_OF_A_BRANCH = 16
MOST_CONSTANT_BYTES = 2**26  # of a value that no input reaches; or eight times the file's size
_DOMAINS = ("", "ai.onnx")
_SMALL = ("Constant", "Identity", "Squeeze", "Unsqueeze")


def read_onnx(path: Path) -> bytes:
    """Return the bytes of an ONNX file whose graph may be run.

    Graphs may hold the standard operators, each run once: no loops, no functions, no data in other
    files, no tensors larger than what is stored of them, no large constants made of small ones; and
    branches that do no more than squeeze what they are given, as PyTorch's exporter writes them.

    Raises:
        InputError: missing, damaged, larger than ``MOST_BYTES``, or a graph of another kind.
        StereoError: the package ``onnx`` is not installed.
    """
    onnx = import_extra("onnx", "export", "an .onnx file")
    import_extra("onnx.shape_inference", "export", "an .onnx file")
    check_file(path, MOST_BYTES, "an ONNX file")
    data = path.read_bytes()
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception as error:  # of protobuf, whose module differs from release to release
        raise InputError(f"{path}: not a complete ONNX file ({error})") from error
    try:
        _check_graph(proto)
        _check_constants(onnx, proto, max(MOST_CONSTANT_BYTES, 8 * len(data)))
    except InputError as error:
        raise InputError(f"{path}: {error}; rejected before running") from error
    return data


def _check_graph(proto: Any) -> None:
    nodes, graph = proto.graph.node, proto.graph
    if len(nodes) > MOST_NODES:
        raise InputError(f"a graph of {len(nodes)} nodes, more than {MOST_NODES}")
    if proto.functions:
        raise InputError("the graph defines functions; export it without")
    if graph.sparse_initializer:
        raise InputError("the graph has sparse weights; store them densely")
    for node in nodes:
        if node.domain not in _DOMAINS:
            raise InputError(f"the operator {node.op_type} of '{node.domain}' is not ONNX's own")
        for attribute in node.attribute:
            if node.op_type == "If" and attribute.HasField("g") and _is_small(attribute.g):
                continue
            if attribute.HasField("g") or attribute.graphs:
                raise InputError(
                    f"the operator {node.op_type} has a subgraph; export without control flow"
                )
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise InputError(
                    f"the operator {node.op_type} has a sparse tensor; store it densely"
                )
    for tensor in _tensors(graph):
        if tensor.external_data or tensor.data_location:
            raise InputError(
                f"the tensor '{tensor.name}' is stored in another file; export a single file"
            )
        # No type of number takes less than half a byte.
        if min(tensor.dims, default=1) < 0 or math.prod(tensor.dims) > 2 * tensor.ByteSize():
            raise InputError(f"the tensor '{tensor.name}' is larger than what is stored of it")


def _is_small(branch: Any) -> bool:
    """Return whether a branch gives nothing larger than what it is given, as squeezing does."""
    attributes = [each for node in branch.node for each in node.attribute]
    return (
        len(branch.node) <= MOST_NODES_OF_A_BRANCH
        and not branch.sparse_initializer
        and all(node.op_type in _SMALL and node.domain in _DOMAINS for node in branch.node)
        and not any(each.HasField("g") or each.HasField("sparse_tensor") for each in attributes)
    )


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            yield from attribute.tensors


def _check_constants(onnx: Any, proto: Any, most: int) -> None:
    """Raise ``InputError`` if a value that no input reaches is larger than ``most`` bytes."""
    known = {tensor.name for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if known.issuperset(filter(None, node.input)):
            known.update(node.output)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except Exception as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(f"a graph whose shapes do not fit together ({told})") from error
    for value in (*inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        if value.name not in known or not kind.HasField("shape"):
            continue
        sizes = [each.dim_value for each in kind.shape.dim if each.HasField("dim_value")]
        if math.prod(sizes) * _item_bytes(onnx, kind.elem_type) > most:
            raise InputError(f"the constant '{value.name}' of {'x'.join(map(str, sizes))} numbers")


def _item_bytes(onnx: Any, kind: int) -> int:
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except KeyError:
        return 1
