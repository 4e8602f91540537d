"""Files that ask for more than they hold, or hold what no writer of ours writes."""

import io
import json
import pickle
import zipfile

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

import stereo.models.checkpoint
from stereo.errors import InputError, StereoError
from stereo.matching.confidence import ConfidenceModel
from stereo.matching.loading import load
from stereo.models import AttentionConfig, NetworkConfig, build_network
from stereo.models.checkpoint import FORMAT, load_checkpoint, restore_network
from stereo.models.convert import convert_psmnet
from stereo.training.state import load_run

FAST = NetworkConfig("ea_stereo_fast", 16, attention=AttentionConfig("none"))
DEEP = "[" * 100_000 + "]" * 100_000


def write_checkpoint(path, config=FAST, network=None, weights=None, **metadata):
    """Write what may be no checkpoint: `network` is its description, as JSON holds it."""
    built = weights if weights is not None else build_network(config).state_dict()
    described = config.to_dict() if network is None else network
    given = {
        "format": FORMAT,
        "version": "1",
        "network": described if isinstance(described, str) else json.dumps(described),
        "training": "{}",
    }
    save_file({k: v.contiguous() for k, v in built.items()}, path, given | metadata)
    return path


def with_attention(name, **options):
    return FAST.to_dict() | {"attention": {"name": name, "options": options}}


@pytest.mark.parametrize(
    "network",
    [
        with_attention("efficient", key_channels=10_000_000),
        with_attention("efficient", heads=10_000_000, value_channels=10_000_000),
        with_attention("efficient", key_channels=2**70),
        with_attention("aft_conv", kernel=399),
        with_attention("lambda", kernel=399),
        with_attention("focused", kernel=399),
        with_attention("window", window=[999, 999, 999]),
        with_attention("linformer", grid=[200, 200, 200]),
        with_attention("linformer", projected=10**9),
        with_attention("perceiver", latents=10**9),
        with_attention("performer", features=10**9),
        with_attention("performer", key_channels=10**6),
        with_attention("reformer", rounds=10**9),
        FAST.to_dict() | {"max_disparity": 16 * 10**9},
        FAST.to_dict() | {"mean": [1e308, 0, 0]},
        FAST.to_dict() | {"std": [10**400, 1, 1]},
        FAST.to_dict() | {"std": [float("nan"), 1, 1]},
        FAST.to_dict() | {"name": ["ea_stereo_fast"]},
        FAST.to_dict() | {"attention": {"name": "efficient", "options": [1]}},
        FAST.to_dict() | {"attention": {"name": "efficient", "sites": 3}},
        FAST.to_dict() | {"attention": 3},
        [],
        3,
        "null",
        DEEP,
        '{"name": 1' + "0" * 10_000 + "}",
    ],
)
def test_metadata_cannot_request_more_than_the_file_holds(tmp_path, monkeypatch, network):
    real = stereo.models.checkpoint.build_network

    def build(config):
        assert torch.get_default_device().type == "meta"
        return real(config)

    path = write_checkpoint(tmp_path / "it.safetensors", network=network)
    monkeypatch.setattr(stereo.models.checkpoint, "build_network", build)
    with pytest.raises(InputError, match=r"it\.safetensors: [^\n]+$"):
        load_checkpoint(path)


@pytest.mark.parametrize("key", ["training", "confidence"])
@pytest.mark.parametrize(
    "text", [DEEP, "[]", "3", "{", "\ud800".encode("utf-8", "replace").decode()]
)
def test_other_metadata_are_objects(tmp_path, key, text):
    path = write_checkpoint(tmp_path / "it.safetensors", **{key: text})
    with pytest.raises(InputError, match=r"metadata cannot be used [^\n]+$"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bool, torch.int8, torch.int64]
)
def test_weights_of_other_types_are_refused(tmp_path, dtype):
    weights = {k: v.to(dtype) for k, v in build_network(FAST).state_dict().items()}
    path = write_checkpoint(tmp_path / "it.safetensors", weights=weights)
    with pytest.raises(InputError, match=r"is stored as .*; expected F64"):
        load_checkpoint(path)


def test_float64_values_beyond_float32_are_not_finite(tmp_path):
    weights = {
        k: v.double() if v.is_floating_point() else v
        for k, v in build_network(FAST).state_dict().items()
    }
    next(iter(weights.values())).view(-1)[0] = 1e300
    path = write_checkpoint(tmp_path / "it.safetensors", weights=weights)
    with pytest.raises(InputError, match="not finite"):
        restore_network(load_checkpoint(path), str(path))


@pytest.mark.parametrize("manner", [{"coarse_to_fine": True}, {"scale": "2"}, {"scale": "1"}])
def test_finite_weights_whose_maps_are_not_are_our_error(tmp_path, manner):
    weights = build_network(FAST).state_dict()
    for tensor in weights.values():
        if tensor.is_floating_point():
            tensor.fill_(3e38)
    path = write_checkpoint(tmp_path / "it.safetensors", weights=weights)
    matcher = load(path, max_disparity=16, **manner)
    with pytest.raises(StereoError, match="not finite"):
        matcher(*np.zeros((2, 32, 32, 3), np.uint8))


def published(tmp_path, **changed):
    state = {"classify.0.0.weight": torch.ones(2, 2)}
    torch.save({"state_dict": state | changed}, tmp_path / "it.tar")
    return tmp_path / "it.tar"


def refuse_tar(path, match="it.tar"):
    with pytest.raises(InputError, match=rf"{match}[^\n]*$"):
        convert_psmnet(path, align_corners=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(1).expand(2_000_000_000),
        lambda: torch.ones(1).expand(40_000, 1, 50_000),
        lambda: torch.quantize_per_tensor(torch.ones(4), 1.0, 0, torch.quint8),
        lambda: torch.ones(4).to_sparse(),
        lambda: torch.empty(10**12, device="meta"),
        lambda: torch.ones(4, dtype=torch.complex64),
        lambda: torch.ones(4, dtype=torch.float8_e4m3fn),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    ],
    ids=["stride 0", "strides 0", "quantised", "sparse", "meta", "complex", "float8", "nested"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_a_tar_are_plain_with_the_networks_shapes(tmp_path, make):
    refuse_tar(published(tmp_path, bomb=make()))


def test_a_tar_whose_members_are_compressed_or_overlap_is_refused(tmp_path):
    source = zipfile.ZipFile(published(tmp_path, bomb=torch.zeros(1_000_000)))
    with zipfile.ZipFile(tmp_path / "zip.tar", "w", zipfile.ZIP_DEFLATED) as archive:
        for member in source.infolist():
            archive.writestr(member.filename, source.read(member))
    refuse_tar(tmp_path / "zip.tar", "zip.tar")


def test_a_tar_whose_pickle_claims_more_numbers_than_are_stored_is_refused(tmp_path):
    source = zipfile.ZipFile(published(tmp_path))
    with zipfile.ZipFile(tmp_path / "it2.tar", "w") as archive:
        for member in source.infolist():
            archive.writestr(
                member.filename, source.read(member).replace(b"K\x04t", b"J\x00\x00\x00\x70t")
            )
    refuse_tar(tmp_path / "it2.tar", "it2.tar")


@pytest.mark.parametrize(
    "call",
    [
        (
            torch._utils._rebuild_device_tensor_from_cpu_tensor,
            (torch.ones(1).expand(2_000_000_000), torch.float64, "cpu", False),
        ),
        (bytearray, (2**40,)),
    ],
    ids=["copy of a view", "bytearray"],
)
def test_functions_that_multiply_bytes_are_not_called(tmp_path, call):
    class Bomb:
        def __reduce__(self):
            return call

    torch.save(
        {"state_dict": {"classify.0.0.weight": torch.ones(2)}, "x": Bomb()}, tmp_path / "it.tar"
    )
    refuse_tar(tmp_path / "it.tar")


def test_old_files_of_torch_claim_no_more_than_they_hold(tmp_path):
    whole = io.BytesIO()
    torch.save(
        {"state_dict": {"classify.a": torch.ones(4)}}, whole, _use_new_zipfile_serialization=False
    )
    (tmp_path / "it.tar").write_bytes(whole.getvalue().replace(b"K\x04N", b"J\x00\x00\x00\x70N"))
    refuse_tar(tmp_path / "it.tar")
    (tmp_path / "it.tar").write_bytes(pickle.dumps({"state_dict": 1}))
    refuse_tar(tmp_path / "it.tar")


def graph(*nodes, weights=(), outputs=(("disparity", 3), ("certainty", 4)), **facts):
    """Return an ONNX file that says it is ours; its map is the red channel unless nodes say more.

    ``means`` and ``certain`` are there for nodes to read: (B, H, W) and (B, 2, H, W).
    """
    tensor = onnx.helper.make_tensor_value_info
    views = [tensor(name, onnx.TensorProto.FLOAT, ["b", 3, "h", "w"]) for name in ("left", "right")]
    found = [tensor(name, onnx.TensorProto.FLOAT, [None] * rank) for name, rank in outputs]
    axis = onnx.numpy_helper.from_array(np.array([1]), "axis")
    two = onnx.numpy_helper.from_array(np.array([0, 1]), "two")
    zero = onnx.numpy_helper.from_array(np.float32(0), "zero")
    given = [
        node("ReduceMean", ["left", "axis"], ["means"], keepdims=0),
        node("Gather", ["left", "two"], ["both"], axis=1),
        node("Mul", ["both", "zero"], ["certain"]),
        *nodes,
    ]
    made = {name for each in nodes for name in each.output}
    if "disparity" not in made:
        given.append(node("Mul", ["means", "zero"], ["disparity"]))
    if "certainty" not in made:
        given.append(node("Identity", ["certain"], ["certainty"]))
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(given, "g", views, found, [axis, two, zero, *weights]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=8,
    )
    default = {
        "format": "stereo-efficient-attention/onnx-1",
        "version": "1",
        "name": "it",
        "network": json.dumps(FAST.to_dict()),
        "weights": "untrained",
        "max_disparity": "16",
        "stride": "16",
        "precision": "fp32",
        "confidence": "null",
    }
    onnx.helper.set_model_props(proto, default | facts)
    return proto


def node(kind, inputs, outputs, **attributes):
    return onnx.helper.make_node(kind, inputs, outputs, **attributes)


def numbers(name, *values):
    return onnx.numpy_helper.from_array(np.array(values, np.int64), name)


def match_with(proto, tmp_path, size=(24, 40)):
    (tmp_path / "it.onnx").write_bytes(proto.SerializeToString())
    return load(tmp_path / "it.onnx")(*np.full((2, *size, 3), 200, np.uint8))


def test_a_graph_of_another_network_is_matched_with(tmp_path):
    assert match_with(graph(), tmp_path).disparity.shape == (24, 40)


def subgraph(name, *nodes, inputs=(), outputs=()):
    tensor = onnx.helper.make_tensor_value_info
    kinds = {"i": (onnx.TensorProto.INT64, []), "c": (onnx.TensorProto.BOOL, [])}
    return onnx.helper.make_graph(
        nodes,
        name,
        [tensor(each, *kinds[each[0]]) for each in inputs],
        [tensor(each, *kinds[each[0]]) for each in outputs],
    )


def endless_loop():
    body = subgraph("body", node("Identity", ["c"], ["c1"]), inputs=("i", "c"), outputs=("c1",))
    true = onnx.helper.make_tensor("true", onnx.TensorProto.BOOL, [], [True])
    return graph(
        node("Loop", ["trips", "true"], [], body=body), weights=[numbers("trips", 2**62), true]
    )


def constant(*chain, shape):
    last = chain[-1].output[0]
    return graph(
        *chain,
        node("ReduceMax", [last], ["most"], keepdims=0),
        node("Add", ["means", "most"], ["disparity"]),
        weights=[numbers("shape", *shape)],
    )


def larger_than_stored():
    proto = graph(node("ReduceMax", ["huge"], ["most"], keepdims=0))
    huge = proto.graph.initializer.add(name="huge", data_type=1, raw_data=b"1234")
    huge.dims.extend([10**6, 10**6])
    return proto


def with_functions():
    proto = graph()
    proto.functions.add(name="f", domain="own")
    return proto


def elsewhere():
    proto = graph()
    tensor = proto.graph.initializer.add(name="x", data_type=1, data_location=1)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return proto


def sparse():
    proto = graph()
    tensor = proto.graph.sparse_initializer.add()
    tensor.dims.extend([2**40])
    return proto


@pytest.mark.parametrize(
    "make",
    [
        endless_loop,
        larger_than_stored,
        with_functions,
        elsewhere,
        sparse,
        lambda: constant(node("ConstantOfShape", ["shape"], ["x"]), shape=[800_000_000]),
        lambda: constant(node("ConstantOfShape", ["shape"], ["x"]), shape=[2**40, 2**40]),
        lambda: constant(node("Expand", ["zero", "shape"], ["x"]), shape=[20_000, 40_000]),
        lambda: constant(
            node("Unsqueeze", ["zero", "axis0"], ["row"]),
            node("Tile", ["row", "shape"], ["x"]),
            shape=[800_000_000],
        ),
        lambda: graph(node("Gelu", ["means"], ["disparity"]), outputs=(("disparity", 3),)),
        lambda: graph(outputs=(("disparity", 3),)),
        lambda: graph(node("Nothing", ["means"], ["disparity"])),
        *(
            lambda facts=facts: graph(**facts)
            for facts in (
                {"stride": "20000"},
                {"stride": "0"},
                {"stride": "-16"},
                {"stride": "1" * 5000},
                {"stride": "nan"},
                {"max_disparity": "0"},
                {"max_disparity": str(16 * 10**9)},
                {"precision": "fp64"},
                {"name": "x" * 5000},
                {"network": DEEP},
                {"network": "[]"},
                {"confidence": DEEP},
                {"confidence": '{"cues": ["disparity"], "weights": {}, "facts": {}}'},
                {"confidence": '{"cues": [], "weights": {}, "facts": {}}'},
                {"confidence": "[1e400]"},
                {"confidence": "3"},
            )
        ),
    ],
)
def test_onnx_files_that_may_not_be_run_are_one_line(tmp_path, make):
    proto = make()
    if "axis0" in str(proto):
        proto.graph.initializer.append(numbers("axis0", 0))
    with pytest.raises(InputError, match=r"it\.onnx: [^\n]+$"):
        match_with(proto, tmp_path)


def scaled(factor, **more):
    return graph(
        node("Mul", ["means", "factor"], ["disparity"]),
        weights=[onnx.numpy_helper.from_array(np.float32(factor), "factor")],
        **more,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: scaled(-50),
        lambda: scaled(50),
        lambda: scaled(np.nan),
        lambda: scaled(np.inf),
        lambda: graph(node("Identity", ["left"], ["disparity"])),
        lambda: graph(
            node("Slice", ["means", "from", "to", "axis"], ["disparity"]),
            weights=[numbers("from", 0), numbers("to", 8)],
        ),
        lambda: graph(node("Add", ["both", "both"], ["certainty"])),
        lambda: graph(
            node("Shape", ["means"], ["size"]),
            node("Mul", ["size", "many"], ["more"]),
            node("Expand", ["zero", "more"], ["huge"]),
            node("ReduceMax", ["huge"], ["most"], keepdims=0),
            node("Add", ["means", "most"], ["disparity"]),
            weights=[numbers("many", 10**4, 10**4, 10**4)],
        ),
    ],
    ids=["below", "beyond", "nan", "inf", "rank", "size", "certainty", "memory"],
)
def test_outputs_of_a_graph_are_checked(tmp_path, make):
    with pytest.raises(StereoError, match=r"it\.onnx[^\n]+$"):
        match_with(make(), tmp_path)


def test_a_graphs_map_is_kept_in_its_range_and_cut_to_the_views(tmp_path):
    assert not match_with(scaled(-1e-5), tmp_path).disparity.any()
    assert (match_with(scaled(0.1), tmp_path).disparity == 16).all()
    view = np.arange(24 * 40, dtype=np.uint8).reshape(24, 40, 1).repeat(3, axis=2)
    match_with(scaled(0.05), tmp_path)
    disparity = load(tmp_path / "it.onnx")(view, view).disparity
    assert np.allclose(disparity, 0.05 * view[..., 0], atol=1e-4)


def test_a_graph_knows_what_it_was_trained_on(tmp_path):
    match_with(graph(trained_on="0123456789ab"), tmp_path)
    assert load(tmp_path / "it.onnx").trained_on == {"0123456789ab"}


def test_a_slow_graph_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("stereo.matching.onnx_engine._SECONDS", 0.001)
    monkeypatch.setattr("stereo.matching.onnx_engine._SECONDS_PER_CELL", 0)
    chain = [node("Softmax", ["left"], ["x0"])]
    chain += [node("Softmax", [f"x{i}"], [f"x{i + 1}"]) for i in range(2000)]
    proto = graph(*chain, node("ReduceMean", ["x2000", "axis"], ["disparity"], keepdims=0))
    with pytest.raises(StereoError, match="more than 0 s"):
        match_with(proto, tmp_path, size=(480, 800))  # seconds, were it not stopped


def test_a_confidence_model_of_another_matcher_is_our_error(tmp_path):
    model = ConfidenceModel(["matched"]).to_dict()
    matched = match_with(graph(confidence=json.dumps(model)), tmp_path)
    with pytest.raises(InputError, match="'matched'"):
        _ = matched.confidence


@pytest.mark.parametrize(
    "state",
    [
        DEEP,
        "3",
        '{"step": -1, "param_groups": [], "scaler": {}, "random": []}',
        '{"step": 1e400, "param_groups": [], "scaler": {}, "random": []}',
        '{"step": 1, "param_groups": [3], "scaler": {}, "random": []}',
        '{"step": 1, "param_groups": [], "scaler": null, "random": []}',
        '{"step": 1, "param_groups": [], "scaler": {}, "random": {}}',
    ],
    ids=range(7),
)
def test_the_state_of_a_run_has_the_right_types(tmp_path, state):
    path = write_checkpoint(tmp_path / "it.safetensors", state=state)
    with pytest.raises(InputError, match=r"it\.safetensors: [^\n]+state[^\n]+$"):
        load_run(path)


@pytest.mark.parametrize("name", ["state.optimizer.x.y", "state.optimizer.-1.y", "state.z"])
def test_tensors_of_a_runs_state_have_known_names(tmp_path, name):
    weights = build_network(FAST).state_dict() | {name: torch.ones(1)}
    state = '{"step": 1, "param_groups": [], "scaler": {}, "random": []}'
    path = write_checkpoint(tmp_path / "it.safetensors", weights=weights, state=state)
    with pytest.raises(InputError, match="is no part of a run's state"):
        load_run(path)
