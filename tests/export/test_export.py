import copy
import dataclasses
import json
import re
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import REPOSITORY
from test_hostile_files import graph
from torch import nn

import stereo
from stereo.attention import ATTENTIONS
from stereo.benchmark.networks import calibrate_batch_norms
from stereo.commands.cli import run
from stereo.errors import InputError, StereoError, UsageError
from stereo.export import export
from stereo.export.check import (
    MAX_CERTAINTY_ERROR,
    MAX_ERROR,
    MAX_MEAN_ERROR,
    Difference,
    check_against_pytorch,
    maps_of,
    rendered,
)
from stereo.export.graph import OPSET, Exportable, check_exportable, export_graph
from stereo.export.quiet import quiet_loggers
from stereo.matching.onnx_engine import FACTS, OnnxEngine, OnnxGraph
from stereo.models import AttentionConfig, NetworkConfig, build_network
from stereo.models.checkpoint import (
    Checkpoint,
    file_sha256,
    load_checkpoint,
    save_checkpoint,
)
from stereo.models.cost_volume import valid_cells
from stereo.system.bundled import bundled_weights

pytestmark = pytest.mark.xdist_group("export")  # one network is traced once for all

RANGE = 64
SAMPLES = REPOSITORY / "datasets" / "samples" / "FlyingThings3D"
# Two that were not traced and that are no multiples of 16, and one smaller than any window.
SIZES = [(1, 157, 231), (3, 70, 118), (2, 16, 16)]
"""Batch, height, width."""


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Trace the shipped network once: it takes most of the time of an export."""
    with pytest.MonkeyPatch.context() as patch:
        kept = []

        def trace_once(network, config):
            kept.extend((export_graph(network, config), config))
            return copy.deepcopy(kept[0])

        patch.setattr("stereo.export.writer.export_graph", trace_once)
        path = tmp_path_factory.mktemp("export") / "network.onnx"
        export("ea_stereo", path, max_disparity=RANGE)
    return path, *kept


@pytest.fixture
def path(traced):
    return traced[0]


@pytest.fixture
def traced_before(traced, monkeypatch):
    _, traced_proto, traced_config = traced
    proto = copy.deepcopy(traced_proto)

    def trace(_, config):
        assert config == traced_config  # else another network is compared with this graph
        return proto

    monkeypatch.setattr("stereo.export.writer.export_graph", trace)
    return proto


@pytest.fixture(scope="module")
def in_pytorch():
    return stereo.load("ea_stereo", device="cpu", precision="fp32", max_disparity=RANGE)


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
def test_exported_network_equals_pytorch_at_untraced_sizes_and_batches(
    path, in_pytorch, batch, height, width
):
    noise = np.random.default_rng(0).integers(0, 256, (2, batch, height, width, 3), np.uint8)
    left, right = noise
    if height >= 32 and width >= 64:
        pairs = rendered(height, width, RANGE, batch)
        left, right = [p.left for p in pairs], [p.right for p in pairs]
    found = stereo.load(path).batch(list(left), list(right))
    expected = in_pytorch.batch(list(left), list(right))
    for ours, theirs in zip(found, expected, strict=True):
        apart = np.abs(ours.disparity - theirs.disparity)
        assert ours.disparity.shape == (height, width)
        assert ours.disparity.min() >= 0
        assert apart.mean() <= MAX_MEAN_ERROR
        assert apart.max() <= MAX_ERROR


def test_exported_network_has_the_confidence_of_its_checkpoint(path, in_pytorch):
    (pair,) = rendered(96, 160, RANGE, 1)
    found = stereo.load(path)(pair.left, pair.right).confidence
    np.testing.assert_allclose(found, in_pytorch(pair.left, pair.right).confidence, atol=1e-2)


class _Family(nn.Module):
    """All that can be exported, side by side, on (B, C, D, H, W)."""

    def __init__(self, channels):
        super().__init__()
        self.members = nn.ModuleList(
            member(channels, heads=2, zero_init=False)
            for member in ATTENTIONS.values()
            if member.unexportable is None
        )
        for member in self.members:
            member.streams = False

    def forward(self, volume):
        mask = valid_cells(volume)
        return torch.stack([each(volume, mask) for each in self.members])


@pytest.mark.slow
def test_every_attention_exports_or_is_refused_with_a_reason(tmp_path):
    refused = [name for name in ATTENTIONS if ATTENTIONS[name].unexportable]
    assert refused == ["reformer"]
    for name in refused:
        config = NetworkConfig("ea_psmnet", attention=AttentionConfig(name))
        with pytest.raises(UsageError, match=f"'{name}' cannot be exported: .* graph"):
            check_exportable(config)
    torch.manual_seed(0)
    family = _Family(16).eval()
    sizes = {0: torch.export.Dim("b"), 3: torch.export.Dim("h"), 4: torch.export.Dim("w")}
    with quiet_loggers():
        program = torch.onnx.export(
            family,
            (torch.randn(2, 16, 4, 6, 10),),
            dynamo=True,
            dynamic_shapes={"volume": sizes},
            opset_version=OPSET,
            verbose=False,
        )
    engine = _engine(program.model_proto, tmp_path)
    for size in [(1, 16, 4, 9, 9), (3, 16, 4, 4, 5)]:
        volume = torch.randn(size)
        (found,) = engine.run(None, {"volume": volume.numpy()})
        with torch.inference_mode():
            expected = family(volume)
        for ours, theirs in zip(torch.from_numpy(found), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
            assert (theirs - volume).abs().max() > 0.01  # it does something


@pytest.mark.slow
def test_ea_psmnet_with_a_random_reprojection_equals_pytorch_at_untraced_sizes(tmp_path):
    torch.manual_seed(0)
    attention = AttentionConfig(options={"zero_init": False}, mask_invalid=True)
    half = (0.5, 0.5, 0.5)  # as ``calibrate_batch_norms`` normalises
    config = NetworkConfig("ea_psmnet", 32, attention=attention, mean=half, std=half)
    network = build_network(config)
    (pair,) = rendered(96, 160, 32, 1)
    calibrate_batch_norms(network, network, pair, torch.device("cpu"))
    _temper(network, pair)
    engine = _engine(export_graph(network.eval(), config), tmp_path)
    whole = Exportable(network, config).eval()
    without = copy.deepcopy(network)
    without.aggregation.attention_quarter = None
    without = Exportable(without, config).eval()
    for batch, height, width in [(1, 128, 144), (3, 64, 80)]:
        pairs = rendered(height, width, 32, batch)
        left, right = (
            torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float()
            for views in ([p.left for p in pairs], [p.right for p in pairs])
        )
        with torch.inference_mode():
            (expected, _), (else_expected, _) = whole(left, right), without(left, right)
        found = engine.run(["disparity"], {"left": left.numpy(), "right": right.numpy()})[0]
        apart = np.abs(found - expected.numpy())
        assert apart.mean() <= MAX_MEAN_ERROR
        assert apart.max() <= MAX_ERROR
        assert (expected - else_expected).abs().max() > 10 * MAX_ERROR  # it does something


def _temper(network, pair):
    """Scale logits as training does: random ones lie in the thousands, where rounding decides."""
    views = (
        torch.from_numpy(v.copy()).permute(2, 0, 1)[None] / 128 - 1 for v in (pair.left, pair.right)
    )
    with torch.no_grad():
        ((left,), (right,)) = (network.extract(view) for view in views)
        logits = network.aggregation(left, right, network.max_disparity // 4)[-1]
        for head in network.aggregation.heads:
            head.project.weight /= logits.std()


def _engine(proto, folder):
    onnx.save(proto, folder / "network.onnx")
    return onnxruntime.InferenceSession(folder / "network.onnx")


def test_a_few_pixels_far_apart_are_a_difference_too():
    limits = (MAX_MEAN_ERROR, MAX_ERROR, MAX_CERTAINTY_ERROR)
    assert Difference(1e-4, 0.01, 1e-4).within(*limits)
    for apart in ((1e-2, 0.01, 0), (1e-4, 1.0, 0), (1e-4, 0.01, 0.1), (np.nan, np.nan, 0)):
        assert not Difference(*apart).within(*limits)


def test_the_certainty_is_compared_too(path, in_pytorch, monkeypatch):
    monkeypatch.setattr("stereo.export.check.UNSEEN", ((1, 48, 96),))
    config = NetworkConfig.from_dict(in_pytorch.description["network"])
    exported = OnnxEngine(OnnxGraph(path))
    assert len(check_against_pytorch(in_pytorch, config, exported)) == 1
    match = OnnxEngine.__call__

    def unsure(*arguments):
        return [dataclasses.replace(e, certainty=0 * e.certainty) for e in match(*arguments)]

    monkeypatch.setattr(OnnxEngine, "__call__", unsure)
    with pytest.raises(StereoError, match="in certainty"):
        check_against_pytorch(in_pytorch, config, exported)


def test_a_file_keeps_what_its_checkpoint_knows(tmp_path, monkeypatch):
    known = load_checkpoint(bundled_weights("ea_stereo_fast"))
    training = {"trained_on": "0123456789ab"}
    weights, path = tmp_path / "tuned.safetensors", tmp_path / "it.onnx"
    save_checkpoint(weights, dataclasses.replace(known, training=training))
    # Neither traced nor compared, which takes a minute.
    monkeypatch.setattr("stereo.export.writer.export_graph", lambda *_: graph())
    monkeypatch.setattr(
        "stereo.export.writer.check_against_pytorch", lambda *_: [Difference(0, 0, 0)] * 2
    )
    export(weights, path, max_disparity=RANGE)
    found = stereo.load(path)
    facts = found.description
    assert found.trained_on == {"0123456789ab"}
    assert found.confidence.to_dict() == known.confidence
    assert facts["exported_from"] == f"sha256:{file_sha256(weights)}"
    assert facts["max_disparity"] == facts["network"]["max_disparity"] == RANGE


def test_refused_attentions_leave_no_file(tmp_path):
    config = NetworkConfig("ea_stereo_fast", RANGE, attention=AttentionConfig("reformer"))
    checkpoint = tmp_path / "reformer.safetensors"
    save_checkpoint(checkpoint, Checkpoint(config, build_network(config).state_dict()))
    with pytest.raises(UsageError, match="reformer"):
        export(checkpoint, tmp_path / "out" / "reformer.onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_precisions_print_their_epe_and_keep_it(
    traced_before, path, tmp_path, capsys, precision
):
    smaller = tmp_path / f"{precision}.onnx"
    export("ea_stereo", smaller, max_disparity=RANGE, precision=precision)
    out = capsys.readouterr().out
    stages = [
        "tracing ea_stereo",
        "checking it in ONNX Runtime",
        f"converting it to {precision}",
    ]
    assert sorted(stages, key=out.index) == stages
    line = re.search(
        rf"{precision}: EPE ([\d.]+) -> ([\d.]+) px on 4 rendered pairs of 448x256", out
    )
    before, after = float(line[1]), float(line[2])
    assert abs(after - before) < (0.02 if precision == "fp16" else 0.2)
    assert smaller.stat().st_size < 0.7 * path.stat().st_size
    matcher = stereo.load(smaller)
    assert matcher.description["precision"] == precision
    pairs = rendered(96, 160, RANGE, 1)
    assert np.abs(maps_of(matcher, pairs) - maps_of(stereo.load(path), pairs)).mean() < 1
    graph = onnx.load(smaller).graph
    kinds = {init.name: init.data_type for init in graph.initializer}
    wanted = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.INT8
    for node in graph.node:
        if precision == "fp16" and node.op_type in ("Conv", "ConvTranspose"):
            assert kinds[node.input[1]] == wanted
    assert sum(kind == wanted for kind in kinds.values()) > 50


def test_a_graph_that_differs_from_pytorch_leaves_no_file(traced_before, tmp_path):
    weights = next(t for t in traced_before.graph.initializer if len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(values * 1.5, weights.name))
    with pytest.raises(StereoError, match=r"differs from PyTorch by .* nothing was written"):
        export("ea_stereo", tmp_path / "wrong.onnx", max_disparity=RANGE)
    assert not list(tmp_path.iterdir())


def test_infer_takes_an_exported_network(path, tmp_path, capsys):
    views = SAMPLES / "frames_cleanpass" / "TEST" / "A" / "0000"
    truth = SAMPLES / "disparity" / "TEST" / "A" / "0000" / "left"
    arguments = ["infer", str(views / "left"), str(views / "right"), "--model", str(path)]
    arguments += ["--output", str(tmp_path), "--ground-truth", str(truth)]
    assert run([*arguments, "--max-disparity", "192"]) == 2
    assert "use --max-disparity 64" in capsys.readouterr().err
    assert run(arguments) == 0
    report = json.loads((tmp_path / "metrics.json").read_text())
    facts = report["model"]
    assert facts["name"] == "network"
    assert facts["network"]["name"] == "ea_stereo"
    assert facts["network"]["max_disparity"] == facts["max_disparity"] == RANGE
    assert facts["device"] == "cpu"
    assert facts["precision"] == "fp32"
    assert facts["weights"].startswith("sha256:")
    assert report["summary"]["epe_pixel"] < 5


def test_a_file_searches_from_any_min_disparity(path):
    (pair,) = rendered(64, 128, RANGE, 1)
    views = pair.left[:, 24:], pair.right[:, :-24]
    reference = stereo.load("ea_stereo", precision="fp32", max_disparity=RANGE, min_disparity=-24)
    found = stereo.load(path, min_disparity=-24)(*views).disparity
    assert np.abs(found - reference(*views).disparity).mean() < MAX_MEAN_ERROR
    assert found.min() >= -24


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"scale": "2"}, "--scale"),
        ({"tile": "256"}, "--tile"),
        ({"coarse_to_fine": True}, "--coarse-to-fine"),
        ({"kernels": "triton"}, "--kernels"),
        ({"compile": "eager"}, "--compile"),
        ({"device": "cuda"}, "--device"),
        ({"precision": "fp16"}, "--precision"),
        ({"max_disparity": 192}, "--max-disparity"),
    ],
)
def test_options_that_a_file_cannot_honour_are_refused(path, options, word):
    with pytest.raises(UsageError, match=word) as caught:
        stereo.load(path, **options)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_exported_networks_are_one_line(path, tmp_path):
    cut, foreign, empty = (tmp_path / f"{n}.onnx" for n in ("cut", "foreign", "blank"))
    cut.write_bytes(path.read_bytes()[:-1000])
    empty.touch()
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [out]
    )
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), foreign)
    for file, words in [
        (cut, "not a complete ONNX file"),
        (foreign, "not 4D image tensors"),
        (empty, "empty"),
        (tmp_path / "none.onnx", "no such file"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            stereo.load(file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages_give_one_line_that_names_the_extra(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(StereoError, match=rf"package {missing} .*pip install .*\[export\]"):
        export("ea_stereo_fast", tmp_path / "fast.onnx")
    if missing == "onnxruntime":
        with pytest.raises(StereoError, match=r"\.onnx file needs the package onnxruntime"):
            stereo.load(tmp_path / "fast.onnx")


@pytest.mark.parametrize(
    ("model", "output", "words"),
    [
        ("sgbm", "a.onnx", "none of our networks"),
        ("zoo:raft-stereo", "a.onnx", "none of our networks"),
        ("mine.py:match", "a.onnx", "none of our networks"),
        ("ea_psmnet", "a.onnx", "no trained weights"),
        ("ea_stereo_fast", "a.pb", "must end in .onnx"),
    ],
)
def test_wrong_calls_of_export_give_one_line(tmp_path, capsys, model, output, words):
    assert run(["export", model, "--output", str(tmp_path / output)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]


def test_zero_padding_is_applied_after_normalisation(path):
    engine = OnnxEngine(OnnxGraph(path))
    engine.config = dataclasses.replace(engine.config, padding="zeros")
    view = np.full((17, 40, 3), 200, np.uint8)
    padded = engine.padded([view])
    assert padded.shape == (1, 3, 32, 48)
    mean = 255 * torch.tensor(engine.config.mean).view(3, 1, 1)
    torch.testing.assert_close(padded[0, :, :15], mean.expand(3, 15, 48))
    assert (padded[0, :, 15:, :40] - 200).abs().max() < 1e-4


def test_the_file_describes_itself(path):
    proto = onnx.load(path)
    facts = {each.key: each.value for each in proto.metadata_props}
    assert set(FACTS) <= facts.keys()
    assert facts["max_disparity"] == str(RANGE)
    assert facts["stride"] == "16"
    assert facts["trained_on"] == ""
    sizes = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert sizes[1] == 3
    assert all(isinstance(sizes[axis], str) for axis in (0, 2, 3))
    assert [value.name for value in proto.graph.output] == ["disparity", "certainty"]


def test_the_documented_lines_run_without_this_package(path, tmp_path, monkeypatch):
    text = (REPOSITORY / "docs" / "export.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    assert "import stereo" not in code
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stereo.onnx").write_bytes(path.read_bytes())
    from PIL import Image

    (pair,) = rendered(96, 160, RANGE, 1)
    Image.fromarray(pair.left).save("left.png")
    Image.fromarray(pair.right).save("right.png")
    names: dict = {}
    exec(code, names)
    expected = stereo.load(path)(pair.left, pair.right).disparity
    np.testing.assert_allclose(names["disparity"], expected, atol=1e-4)
