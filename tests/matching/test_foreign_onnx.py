"""ONNX files of other exporters: read from the graph or a YAML file, and run at any size."""

import warnings

import numpy as np
import pytest

import stereo as package
from stereo.data.sets.sample import Sample
from stereo.errors import InputError, StereoError, UsageError
from stereo.evaluation.evaluate import count_reach
from stereo.evaluation.protocols import get_protocol

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra export)")

KINDS = {
    "float": onnx.TensorProto.FLOAT,
    "half": onnx.TensorProto.FLOAT16,
    "uint8": onnx.TensorProto.UINT8,
}
SCALING = "mean: [0, 0, 0]\nstd: [0.1, 0.1, 0.1]\n"


def node(kind, inputs, outputs, **attributes):
    return onnx.helper.make_node(kind, inputs, outputs, **attributes)


def numbers(name, *values, kind=np.int64):
    return onnx.numpy_helper.from_array(np.array(values, kind), name)


def write(path, views, *nodes, kind="float", outputs=("disparity",), rank=3, yaml=SCALING):
    """Write a graph of inputs (name -> shape) whose nodes give the outputs."""
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "theirs",
        [tensor(name, KINDS[kind], shape) for name, shape in views.items()],
        [tensor(name, onnx.TensorProto.FLOAT, [None] * rank) for name in outputs],
        [numbers("one", 1), numbers("three", 3), numbers("zero", 0), numbers("two", 2)],
    )
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    if yaml is not None:
        path.with_suffix(".yaml").write_text(yaml)
    return path


def grey(name, axis="one", **options):
    """The mean over the channels of an input, as a map."""
    return node("ReduceMean", [name, axis], ["disparity"], keepdims=options.get("keepdims", 0))


ANY = ["b", 3, "h", "w"]


@pytest.fixture
def theirs(tmp_path):
    return tmp_path / "theirs.onnx"


@pytest.fixture
def pair():
    """Grey views, of 51 = 0.2 and 102 = 0.4, so that maps of their means are 2 and 4."""
    return np.full((60, 90, 3), 51, np.uint8), np.full((60, 90, 3), 102, np.uint8)


@pytest.mark.parametrize(
    ("views", "yaml", "expected"),
    [
        (("left", "right"), "", 2),
        (("a", "b"), "", 2),
        (("right_image", "left_image"), "", 4),
        (("image_right", "image_ref"), "", 4),
        (("a", "right"), "", 2),
        (("a", "b"), "left: b\n", 4),
        (("a", "b"), "right: a\n", 4),
    ],
)
def test_which_input_is_the_left_view_is_read_or_told(theirs, pair, views, yaml, expected):
    write(theirs, dict.fromkeys(views, ANY), grey(views[0]), yaml=SCALING + yaml)
    disparity = package.load(theirs)(*pair).disparity
    assert disparity.shape == (60, 90)
    assert np.allclose(disparity, expected)


@pytest.mark.parametrize(
    ("shape", "given", "axis"),
    [
        ([1, 6, "h", "w"], "channels first", "one"),
        ([1, "h", "w", 6], "channels last", "three"),
        ([1, 2, 64, 96], "grey", "one"),
    ],
)
@pytest.mark.filterwarnings("ignore:theirs takes 96x64")
def test_one_input_takes_both_views(theirs, pair, shape, given, axis):
    yaml = "mean: [0]\nstd: [0.1]\n" if given == "grey" else SCALING
    write(theirs, {"input": shape}, grey("input", axis), yaml=yaml)
    assert np.allclose(package.load(theirs)(*pair).disparity, 3 * (90 / 96 if 64 in shape else 1))


@pytest.mark.parametrize(("size", "grown"), [(("h", "w"), 96), ((32, 48), 90)])
@pytest.mark.filterwarnings("ignore:theirs takes 48x32")
def test_a_map_in_other_units_is_scaled_to_pixels(theirs, pair, size, grown):
    """Of shares of the width: of the padded picture's, or of the picture that was resized."""
    views = {side: [1, 3, *size] for side in ("left", "right")}
    for scale, expected in (("width", 0.5 * grown), ("4", 2 * 90 / (48 if 48 in size else 90))):
        scaling = "mean: [0, 0, 0]\nstd: [0.4, 0.4, 0.4]\n"
        write(theirs, views, grey("left"), yaml=f"{scaling}scale: {scale}\n")
        assert np.allclose(package.load(theirs)(*pair).disparity, expected), scale


@pytest.mark.parametrize("std", ["[0.1]", "[0.05, 0.1, 0.15]"])
def test_a_grey_graph_may_have_three_deviations(theirs, pair, std):
    write(theirs, {"input": [1, 2, "h", "w"]}, grey("input"), yaml=f"mean: [0]\nstd: {std}\n")
    assert np.allclose(package.load(theirs)(*pair).disparity, 3)


def test_a_graph_that_does_not_fit_the_views_is_not_helped_by_smaller_ones(theirs, pair):
    shape = node("Reshape", ["left", "three"], ["disparity"])
    write(theirs, dict.fromkeys(("left", "right"), ANY), shape, yaml=SCALING + "multiple: 50\n")
    with pytest.raises(StereoError, match="cannot match 100x100") as error:
        package.load(theirs)(*pair)
    assert "smaller" not in str(error.value)


def test_channels_are_those_that_the_file_asks_for(theirs):
    red = np.full((32, 32, 3), (51, 0, 0), np.uint8)
    first = node("Slice", ["left", "zero", "one", "one"], ["disparity"])
    for order, scaling, expected in (
        ("RGB", "mean: [0.1, 0, 0]\nstd: [0.1, 1, 1]\n", 1),
        ("BGR", "mean: [0, 0, -0.5]\nstd: [1, 1, 0.1]\n", 5),
    ):
        write(theirs, {"left": ANY, "right": ANY}, first, rank=4, yaml=f"{scaling}order: {order}\n")
        assert np.allclose(package.load(theirs)(red, red).disparity, expected), order


@pytest.mark.parametrize("kind", ["uint8", "half"])
def test_a_graph_may_take_other_numbers(theirs, pair, kind):
    cast = node("Cast", ["left"], ["numbers"], to=onnx.TensorProto.FLOAT)
    yaml = None if kind == "uint8" else SCALING
    write(theirs, {"left": ANY, "right": ANY}, cast, grey("numbers"), kind=kind, yaml=yaml)
    expected = 51 if kind == "uint8" else 2
    assert np.allclose(package.load(theirs)(*pair).disparity, expected, atol=0.01)


def test_a_fixed_size_scales_the_disparity_and_is_said(theirs, pair):
    write(theirs, {"left": [1, 3, 30, 60], "right": [1, 3, 30, 60]}, grey("left"))
    matcher = package.load(theirs)
    with pytest.warns(UserWarning, match="60x30 pixels alone: pictures of 90x60 are resized"):
        disparity = matcher(*pair).disparity
    assert disparity.shape == (60, 90)
    assert np.allclose(disparity, 3)  # 2 of 60 columns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matcher(*pair)  # said once
    assert matcher.description["fixed_size"] == "60x30"


def test_a_fixed_size_searches_its_range_at_its_own_size(theirs, pair):
    """16 px of 60 columns are 24 of 90, where nothing lies beyond and the end is certain."""
    views = {"left": [1, 3, 30, 60], "right": [1, 3, 30, 60]}
    write(theirs, views, grey("left"), yaml=f"{SCALING}max_disparity: 16\n")
    matcher = package.load(theirs)
    assert (matcher.searched(60), matcher.searched(90)) == (16, 24)
    for low, count in ((-30, 32), (30, 16)):  # of a wider canvas, of a narrower one
        assert package.load(theirs, min_disparity=low).searched(90) == count
    truth = np.full((60, 90), 20, np.float32)
    sample = Sample("a", *pair, truth, np.ones(truth.shape, bool))
    counts = count_reach(sample, matcher, get_protocol("pooled")).tolist()
    assert counts == [5400, 0, 0, 0]


def test_the_padding_is_cut_off_the_map(theirs, rng):
    write(theirs, {"left": ANY, "right": ANY}, grey("left"))
    left = rng.integers(0, 256, (60, 90, 1), np.uint8).repeat(3, axis=2)
    assert np.allclose(package.load(theirs)(left, left).disparity, left[..., 0] / 25.5, atol=1e-4)


def test_the_range_is_the_yaml_files_and_may_start_elsewhere(theirs, pair):
    write(theirs, {"left": ANY, "right": ANY}, grey("left"), yaml=SCALING + "max_disparity: 64\n")
    matcher = package.load(theirs, min_disparity=-1)
    assert matcher.description["max_disparity"] == package.load(theirs).engine.max_disparity == 64
    assert np.allclose(matcher(*pair).disparity, 2 - 1)


def test_grey_is_weighted_as_opencv_does(theirs):
    write(theirs, {"input": [1, 2, "h", "w"]}, grey("input"), yaml="mean: [0]\nstd: [0.1]\n")
    matcher = package.load(theirs)
    for colour, share in enumerate((0.299, 0.587, 0.114)):
        view = np.zeros((32, 32, 3), np.uint8)
        view[..., colour] = 255
        assert np.allclose(matcher(view, view).disparity, 10 * share)


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_dimensions_of_one_and_a_flows_second_channel_are_left_out(theirs, pair, rank):
    nodes = [grey("left", keepdims=1)]
    if rank == 2:
        nodes = [node("ReduceMean", ["left", "one"], ["x"], keepdims=0)]
        nodes.append(node("Squeeze", ["x", "zero"], ["disparity"]))
    if rank == 4:
        nodes = [
            node("ReduceMean", ["left", "one"], ["x"], keepdims=1),
            node("Neg", ["x"], ["flow"]),
        ]
        nodes.append(node("Concat", ["flow", "x"], ["disparity"], axis=1))
    yaml = SCALING + ("sign: negative\n" if rank == 4 else "")
    write(theirs, {"left": ANY, "right": ANY}, *nodes, rank=4 if rank == 3 else rank, yaml=yaml)
    assert np.allclose(package.load(theirs)(*pair).disparity, 2)


def test_the_output_of_several_is_the_one_that_is_named(theirs, pair):
    more = node("Neg", ["disparity"], ["other"])
    write(theirs, {"left": ANY, "right": ANY}, grey("left"), more, outputs=("other", "disparity"))
    assert np.allclose(package.load(theirs)(*pair).disparity, 2)
    theirs.with_suffix(".yaml").write_text(SCALING + "output: other\nsign: negative\n")
    assert np.allclose(package.load(theirs)(*pair).disparity, 2)


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        (None, r"does not record its normalisation: add theirs\.yaml next to it"),
        ("mean: [0, 0, 0]\n", "does not record its normalisation"),
        ("mean: [0, 0]\nstd: [1, 1]\n", r"mean \[0, 0\]: expected three numbers"),
        (SCALING + "std: [1, 1, 1]\n", "std"),
        (SCALING.replace("0.1", "0"), "expected numbers above 0"),
        (
            "mean: [123.7, 116.3, 103.5]\nstd: [58, 57, 57]\n",
            "of RGB in 0..255.*divide both by 255",
        ),
        (SCALING + "sign: minus\n", "expected one of positive, negative"),
        (SCALING + "scale: height\n", "expected a number above 0, or width"),
        (SCALING + "output: none\n", r"which output is the map\? .*'disparity'"),
        (SCALING + "left: left\nright: left\n", "both the input 'left'"),
        (SCALING.replace("0.1", ".inf"), "std .*expected three numbers"),
        (SCALING + "left: none\n", "has no input 'none'"),
        (SCALING + "max_disparity: 100\n", "multiple of 16"),
        (SCALING + "size: 3\n", "unknown key in theirs.yaml: 'size'; known: .*mean"),
        ("[1, 2", "not valid YAML"),
    ],
)
def test_a_wrong_yaml_file_is_one_line(theirs, yaml, says):
    write(theirs, {"left": ANY, "right": ANY}, grey("left"), yaml=yaml)
    with pytest.raises(InputError, match=rf"theirs\.onnx: [^\n]*{says}[^\n]*$"):
        package.load(theirs)


@pytest.mark.parametrize("known", ["mean: [0.5, 0.5, 0.5]\n", "std: [0.5, 0.5, 0.5]\n"])
def test_half_a_normalisation_is_refused_of_bytes_too(theirs, known):
    cast = node("Cast", ["left"], ["numbers"], to=onnx.TensorProto.FLOAT)
    write(theirs, {"left": ANY, "right": ANY}, cast, grey("numbers"), kind="uint8", yaml=known)
    with pytest.raises(InputError, match="does not record its normalisation"):
        package.load(theirs)


@pytest.mark.parametrize(
    ("views", "says"),
    [
        ({"a": ANY, "b": ANY, "c": ANY}, "takes 3 inputs"),
        (
            {"a": [1, 4, "h", "w"], "b": [1, 4, "h", "w"]},
            "the channels \\(1 or 3\\) of its input 'a'",
        ),
        ({"a": ["b", 3, "h"], "b": ["b", 3, "h"]}, "not 4D image tensors"),
        ({"a": ANY}, "the channels \\(2 or 6\\) of its input"),
        ({"a": [2, 3, "h", "w"], "b": [2, 3, "h", "w"]}, "takes 2 pairs at once"),
        ({"a": ["b", 3, 60, "w"], "b": ["b", 3, 60, "w"]}, "fixes one side"),
        ({"a": ["b", 3, 60, 90], "b": ["b", 3, 30, 45]}, "must have the same shape and type"),
    ],
)
def test_a_graph_that_takes_no_pair_is_one_line(theirs, views, says):
    name = next(iter(views))
    write(theirs, views, grey(name))
    with pytest.raises(InputError, match=says):
        package.load(theirs)


def test_a_map_of_another_size_or_sign_is_one_line(theirs, pair):
    pool = node("AveragePool", ["left"], ["small"], kernel_shape=[2, 2], strides=[2, 2])
    write(theirs, {"left": ANY, "right": ANY}, pool, grey("small"))
    with pytest.raises(StereoError, match=r"theirs gives 'disparity' as float32 \(1, 32, 48\)"):
        package.load(theirs)(*pair)
    write(theirs, {"left": ANY, "right": ANY}, node("Neg", ["left"], ["x"]), grey("x"))
    with pytest.raises(StereoError, match="theirs gave disparities mostly below 0"):
        package.load(theirs)(*pair)


def branches(*otherwise):
    """A node that squeezes, or else does what the nodes say."""
    value = onnx.helper.make_tensor_value_info
    bodies = [
        onnx.helper.make_graph(nodes, name, [], [value(name, KINDS["float"], [None] * 3)])
        for name, nodes in (
            ("then", [node("Squeeze", ["kept", "one"], ["then"])]),
            ("else", [*otherwise]),
        )
    ]
    true = onnx.helper.make_tensor("true", onnx.TensorProto.BOOL, [], [True])
    return [
        node("ReduceMean", ["left", "one"], ["kept"], keepdims=1),
        node("Constant", [], ["flag"], value=true),
        node("If", ["flag"], ["disparity"], then_branch=bodies[0], else_branch=bodies[1]),
    ]


def test_branches_may_squeeze_and_nothing_else(theirs, pair):
    views = {"left": ANY, "right": ANY}
    write(theirs, views, *branches(node("Squeeze", ["kept", "one"], ["else"])))
    assert np.allclose(package.load(theirs)(*pair).disparity, 2)
    many = onnx.numpy_helper.from_array(np.full(3, 10**5), "many")
    huge = [node("Constant", [], ["size"], value=many), node("ConstantOfShape", ["size"], ["else"])]
    write(theirs, views, *branches(*huge))
    with pytest.raises(InputError, match=r"If has a subgraph.*; rejected before running"):
        package.load(theirs)


def test_options_that_the_file_cannot_honour_are_refused(theirs):
    write(theirs, {"left": ANY, "right": ANY}, grey("left"))
    for options in ({"precision": "fp32"}, {"max_disparity": 64}, {"tile": 64}):
        with pytest.raises(UsageError, match="leave"):
            package.load(theirs, **options)
