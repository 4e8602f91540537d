"""Functions and networks of others: as models everywhere, and one line for what is wrong."""

import importlib
import json
import pathlib

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from torch import nn

import stereo as package
from stereo.app.models import Models
from stereo.errors import InputError, StereoError, UsageError
from stereo.matching import code_file

FRAMES = REPOSITORY / "datasets/samples/FlyingThings3D/frames_finalpass/TEST/A/0000"
PAIR = [FRAMES / side / "0006.png" for side in ("left", "right")]
FILE = """
import numpy as np
import stereo
from beside import DISPARITY

def match(left, right):
    return np.full(left.shape[:2], DISPARITY)

def make():
    return stereo.wrap(match, name="made", max_disparity=64)

ready = make()

def fails(left, right):
    raise ValueError("no\\nluck")

def leaves():
    raise SystemExit(0)

class Sized:
    def __init__(self, disparity=5.0):
        self.disparity = disparity

    def __call__(self, left, right):
        return np.full(left.shape[:2], self.disparity)

number = 3
"""


def plane(left, right):
    return np.full(left.shape[:2], 7.0)


class Plane(nn.Module):
    """Gives 7 px, and remembers what it was given."""

    def __init__(self, give=lambda disparity: disparity):
        super().__init__()
        self.give = give

    def forward(self, left, right):
        self.views = left, right
        return self.give(torch.full_like(left[:, 0], 7.0))


@pytest.fixture
def code(tmp_path):
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "beside.py").write_text("DISPARITY = 5.0\n")
    return tmp_path / "mine.py"


@pytest.fixture
def views(rng):
    return rng.integers(0, 256, (2, 40, 70, 3), np.uint8)


@pytest.mark.parametrize("matcher", [package.wrap(plane), package.wrap_network(Plane())])
def test_a_wrapped_model_gives_all_that_a_matcher_gives(matcher, views):
    result = matcher(*views)
    assert result.disparity.dtype == np.float32
    assert np.array_equal(result.disparity, np.full((40, 70), 7, np.float32))
    with pytest.warns(UserWarning, match="no confidence model of its own"):
        assert result.confidence.shape == (40, 70)
    assert np.array_equal(matcher(*views, view="right").disparity, result.disparity)
    assert len(matcher.batch(views, views)) == 2


def test_a_range_that_starts_elsewhere_moves_the_views(views):
    for low in (-10, 4):
        matcher = package.wrap(plane, min_disparity=low)
        assert (matcher(*views).disparity == 7 + low).all()


def test_a_function_may_change_its_views(views):
    def spoils(left, right):
        left[:] = 0
        return plane(left, right)

    before = views.copy()
    package.wrap(spoils)(*views)
    assert np.array_equal(views, before)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (np.zeros((3, 4)), r"a map of \(3, 4\); expected \(40, 70\)"),
        (np.zeros((40, 70), int), "a map of int64; expected floating point"),
        (np.full((40, 70), np.nan), "2800 pixels that are not finite"),
        (np.full((40, 70), -9.0), "mostly below 0 .median -9.0 px.*sign 'negative'"),
        ([[1.0]], "list; expected an"),
        (None, "NoneType; expected an"),
        (np.full((40, 70), 1e300), "not finite"),
        (np.full((40, 70), 1e4), "up to 10000 px, where none can be beyond 384; are they"),
    ],
)
def test_a_map_that_cannot_be_is_one_line_that_names_the_function(views, found, says):
    matcher = package.wrap(lambda left, right: found, name="theirs")
    with pytest.raises(StereoError, match=rf"^theirs gave .*{says}") as error:
        matcher(*views)
    assert "\n" not in str(error.value)


def test_single_disparities_far_beyond_the_range_are_cut(views):
    found = np.full((40, 70), 7.0)
    found[0, :7] = 1e30
    matcher = package.wrap(lambda left, right: found, name="mine")
    with pytest.warns(UserWarning, match=r"mine gave .*1e\+30 px.*beyond 384; 0.25 % are cut"):
        disparity = matcher(*views).disparity
    assert np.array_equal(disparity, np.minimum(found, 384))


def test_random_weights_may_give_anything(views):
    network = torch.nn.Module()
    network.forward = lambda left, right: left[:, 0] * 0 + 1e5
    matcher = package.wrap_network(network, name="random", sign=None, device="cpu")
    assert (matcher(*views).disparity == 1e5).all()


def test_what_lies_below_0_becomes_0(views):
    found = np.full((40, 70), 7.0)
    found[0, :5] = -3
    disparity = package.wrap(lambda left, right: found, name="mine")(*views).disparity
    assert np.array_equal(disparity, np.maximum(found, 0))


def test_a_flow_and_a_tensor_are_read_as_disparities(views):
    function = package.wrap(lambda left, right: -torch.from_numpy(plane(left, right)), name="flow")
    with pytest.raises(StereoError, match="give sign 'negative'"):
        function(*views)
    assert (
        package.wrap(function.engine.function, name="f", sign="negative")(*views).disparity == 7
    ).all()


@pytest.mark.parametrize(
    "give",
    [
        lambda d: d[:, None],
        lambda d: [d * 0, d],
        lambda d: (d * 0, torch.stack([d, d * 0], 1)),
    ],
)
def test_a_network_may_give_channels_flows_and_sequences(views, give):
    assert (package.wrap_network(Plane(give))(*views).disparity == 7).all()


def test_a_network_can_be_trained_on_between_matches(views):
    network, kept = nn.BatchNorm2d(1), {}

    def match(left, right):
        ones = kept.setdefault("ones", torch.ones_like(left[:, :1]))
        return network.normalise(left[:, :1]).abs() * ones

    network.normalise, network.forward = network.forward, match
    matcher = package.wrap_network(network)
    before = matcher(*views).disparity
    network.train()
    assert (matcher(*views).disparity == before).all()
    crop = torch.rand(1, 3, *kept["ones"].shape[2:])
    network.train()(crop, crop).mean().backward()
    assert network.weight.grad is not None


def test_a_networks_map_is_cut_to_the_views(views):
    class Red(nn.Module):
        def forward(self, left, right):
            return left[:, 0]

    found = package.wrap_network(Red(), mean=[0, 0, 0], std=[1 / 255] * 3)(*views).disparity
    assert np.allclose(found, views[0][..., 0], atol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_runs_in_the_precision_asked_for(views, precision):
    seen = []
    network = Plane(lambda disparity: seen.append((disparity @ disparity.mT).dtype) or disparity)
    matcher = package.wrap_network(network, device="cpu", precision=precision)
    matcher(*views)
    assert [str(each) for each in seen] == [f"torch.{matcher.description['precision']}"]
    assert seen == [{"fp32": torch.float32, "bf16": torch.bfloat16}[precision]]


def test_a_network_sees_normalised_and_padded_views(views):
    network = Plane().train()
    package.wrap_network(network, mean=[0, 0, 0], std=[1 / 255] * 3, multiple=24)(*views)
    left, _ = network.views
    assert not network.training
    assert left.shape == (1, 3, 48, 72)
    assert torch.allclose(left[0, :, -40:, :70], torch.tensor(views[0]).permute(2, 0, 1).float())


@pytest.mark.parametrize(
    ("give", "says"),
    [
        (lambda d: d[:, ::4], r"a map of \(1, 16, 96\) for views of \(1, 3, 64, 96\)"),
        (lambda d: {"disparity": d}, "gave dict; expected a tensor"),
        (lambda d: d / 0, "not finite"),
        (lambda d: nn.Conv2d(4, 1, 1)(d), "failed: RuntimeError: .* .test_wrap.py, line"),
    ],
)
def test_what_is_wrong_with_a_network_is_one_line_that_names_it(views, give, says):
    with pytest.raises(StereoError, match=f"^theirs .*{says}"):
        package.wrap_network(Plane(give), name="theirs")(*views)


@pytest.mark.parametrize(
    "call",
    [
        lambda: package.wrap(Plane()),
        lambda: package.wrap(lambda left, right: 0),
        lambda: package.wrap(plane, sign="minus"),
        lambda: package.wrap(plane, name="../up"),
        lambda: package.wrap(plane, max_disparity=100),
        lambda: package.wrap_network(plane),
        lambda: package.wrap_network(Plane(), std=[0, 1, 1]),
        lambda: package.wrap_network(Plane(), multiple=0),
        lambda: package.wrap_network(Plane(), precision="fp8"),
        lambda: package.wrap_network(Plane(), mean=0.5),
        lambda: package.wrap_network(Plane(), mean=[123.7, 116.3, 103.5], std=[58, 57, 57]),
        lambda: package.wrap_network(Plane(), mean=[float("nan")] * 3),
        lambda: package.wrap_network(Plane(), std=["1", "1", "1"]),
        lambda: package.wrap(plane, name=3),
        lambda: package.wrap(plane, min_disparity=1.5),
    ],
)
def test_an_option_that_cannot_be_is_refused(call):
    with pytest.raises(UsageError):
        call()


def test_a_file_of_code_is_a_model_of_the_commands(stereo, code, tmp_path):
    out = tmp_path / "out"
    done = stereo("infer", *PAIR, "--model", f"{code}:match", "--output", out, "--formats", "npy")
    assert done.status == 0, done.errors
    assert "model mine.match, max disparity 192 px" in done.out
    assert (np.load(out / "0006_disparity.npy") == 5).all()


def test_a_file_of_code_keeps_what_its_model_knows(code):
    code.write_text(
        "import stereo\nmodel = stereo.load('sgbm', max_disparity=32)\n"
        "model.trained_on = frozenset({'0123456789ab'})\n"
    )
    for options in ({}, {"min_disparity": -4}):
        matcher = package.load(f"{code}:model", **options)
        assert matcher.trained_on == {"0123456789ab"}
        assert matcher.confidence is not None


def test_files_of_two_folders_import_their_own_modules(tmp_path, views, monkeypatch):
    for name, disparity in (("one", 1), ("two", 9)):
        folder = tmp_path / name
        (folder / "models").mkdir(parents=True)
        (folder / "utils.py").write_text(f"D = {disparity}")
        (folder / "models" / "__init__.py").write_text("from utils import D")
        (folder / "run.py").write_text(
            "import numpy, models, utils, pathlib\n"
            "with open(pathlib.Path(__file__).with_name('runs'), 'a') as file: file.write('x')\n"
            "def match(left, right): return numpy.full(left.shape[:2], utils.D + models.D, 'f4')\n"
            "def other(left, right): return match(left, right)\n"
        )
    (tmp_path / "one" / "state.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "one")
    state = importlib.import_module("state")  # of the calling program
    for name, disparity in (("one", 2), ("two", 18)):
        monkeypatch.chdir(tmp_path / name)  # one text, another file
        for function in ("match", "other"):
            for path in ("run.py", tmp_path / name / "run.py"):
                matcher = package.load(f"{path}:{function}")
                assert (matcher(*views).disparity == disparity).all()
        assert pathlib.Path("runs").read_text() == "x"
    assert importlib.import_module("state") is state


@pytest.mark.parametrize("name", ["match", "make", "ready", "Sized"])
def test_a_file_of_code_is_a_model_of_python(code, views, name):
    matcher = package.load(f"{code}:{name}", min_disparity=-8)
    assert matcher.description["max_disparity"] == (192 if name in ("match", "Sized") else 64)
    assert (matcher(*views).disparity == -3).all()


@pytest.mark.parametrize(
    ("model", "status", "says"),
    [
        ("{}:fails", 1, "mine.fails failed: ValueError: no luck (mine.py, line 15)"),
        ("{}:leaves", 1, "leaves() failed: SystemExit: 0 (mine.py, line 18)"),
        ("{}", 2, "name what to run in the file, as in FILE.py:FUNCTION"),
        ("{}:number", 2, "number is int, no function of two views"),
        (
            "{}:absent",
            2,
            "defines no 'absent'; it defines match, make, ready, fails, leaves, Sized",
        ),
        ("none.py:match", 1, "none.py: no such file"),
        ("{}:match --max-disparity 64", 2, "takes no --max-disparity; leave it out"),
        ("{}:match --tile 64", 2, "takes no --tile"),
    ],
)
def test_what_is_wrong_with_a_file_of_code_is_one_line(stereo, code, tmp_path, model, status, says):
    words = model.format(code).split()
    done = stereo("infer", *PAIR, "--output", tmp_path / "out", "--model", *words)
    errors = [line for line in done.errors if "error:" in line]
    assert (done.status, len(errors)) == (status, 1), done.errors
    assert says in errors[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_that_name", r"ModuleNotFoundError: .* .broken.py, line 1.$"),
        ("def match(:", r"SyntaxError: .* .broken.py, line 1.$"),
        ("import sys; sys.exit()", r"SystemExit:  .broken.py, line 1.$"),
        ("import stereo; stereo.load('none')", "unknown model 'none'"),
    ],
)
def test_code_that_does_not_run_is_one_line(tmp_path, text, says):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(InputError, match=rf"broken.py: its code failed: {says}"):
        package.load(f"{tmp_path / 'broken.py'}:match")


def test_one_report_has_a_model_of_ones_own_beside_ours(stereo, code, tmp_path):
    done = stereo(
        *("evaluate", "--root", REPOSITORY / "datasets/samples", "--limit", 1, "--confidence"),
        *(
            "--model",
            f"{code}:match",
            "--against",
            f"sgbm,{code}:ready",
            "--output",
            tmp_path / "out",
        ),
    )
    assert done.status == 0, done.errors
    facts = json.loads((tmp_path / "out/metrics.json").read_text())["model"]
    assert facts["name"] == "mine.match" and facts["code"].startswith("sha256:")
    page = (tmp_path / "out/report.html").read_text()
    assert all(name in page for name in ("mine.match", "made", "sgbm"))


def test_a_model_that_fails_on_every_pair_costs_the_others_no_report(stereo, code, tmp_path):
    root = REPOSITORY / "datasets/samples"
    models = ("--model", "sgbm", "--against", f"{code}:ready,{code}:fails")
    done = stereo("evaluate", "--root", root, "--limit", 1, *models, "--output", tmp_path / "out")
    assert done.status == 1
    assert [line for line in done.errors if "error:" in line] == [done.errors[0]], done.errors
    assert "made" in (tmp_path / "out/report.html").read_text()


NETWORK = """
import torch
import stereo
from helper import SCALE

class Constant(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.value = torch.nn.Parameter(torch.load("{weights}"))

    def forward(self, left, right):
        return SCALE * self.value * torch.ones_like(left[:, 0])

model = stereo.wrap_network(Constant(), name="constant")
"""


def test_other_weights_or_helpers_are_another_model(tmp_path):
    weights = tmp_path / "w.pt"
    (tmp_path / "net.py").write_text(NETWORK.format(weights=weights.as_posix()))
    seen = set()
    for value, scale in ((7.0, 1), (21.0, 1), (21.0, 2)):
        torch.save(torch.tensor(value), weights)
        (tmp_path / "helper.py").write_text(f"SCALE = {scale}  # {value}\n")
        for cached in (code_file._load, code_file._run):
            cached.cache_clear()  # as in another process
        if seen:
            code_file._forget_modules(tmp_path)
        facts = package.load(f"{tmp_path}/net.py:model").description
        seen.add((facts["code"], facts["weights"]))
    assert len(seen) == 3
    assert len({weights for _, weights in seen}) == 2


def test_a_visitor_of_the_page_cannot_name_a_file(code):
    models = Models(own=f"{code}:match")
    name = models.names[0]
    assert name == "mine.py:match"
    assert (models.get(name, 64)(*PAIR).disparity == 5).all()
    for other in (f"{code}:match", f"{code}:ready", "mine.py:ready"):
        with pytest.raises(UsageError, match="unknown model"):
            models.get(other, 64)
