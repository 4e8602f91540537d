"""Networks of the library ``stereo_matching``, with random weights, beside its own pipeline."""

import json
import logging

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, slow_but
from PIL import Image

import stereo as package
from stereo.errors import StereoError, UsageError
from stereo.models.zoo import _LICENCES, zoo_network, zoo_networks

library = pytest.importorskip(
    "stereo_matching", reason="the library stereo_matching is not installed (extra zoo)"
)

SIDES = ("left", "right")
FRAMES = REPOSITORY / "datasets/samples/FlyingThings3D/frames_finalpass/TEST/A/0000"
BUILT = slow_but(
    "aanet",
    of=(
        *("raft-stereo", "raft-stereo-middlebury", "raft-stereo-realtime", "crestereo", "aanet"),
        *("igev-stereo", "igev-plusplus", "s2m2", "s2m2-m", "unimatch"),
    ),
)


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No network, and no weights of the machine's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.fixture
def few_iterations(monkeypatch):
    """Networks that iterate do so twice."""

    def network(name):
        found = zoo_network(f"zoo:{name}")
        found.config.num_iters = 2
        return found

    monkeypatch.setattr("stereo.matching.loading.zoo_network", lambda model: network(model[4:]))
    return network


@pytest.fixture
def views():
    return [np.array(Image.open(FRAMES / side / "0006.png"))[:96, :192] for side in SIDES]


@pytest.mark.parametrize("name", BUILT)
def test_a_map_is_that_of_the_librarys_own_pipeline(few_iterations, views, name):
    left, right = views
    matcher = package.load(f"zoo:{name}", allow_untrained=True)
    assert (matcher.description["name"], matcher.description["weights"]) == (name, "untrained")
    config = few_iterations(name).config
    config.input_size = 96  # the pipeline would resize
    processor = library.StereoProcessor(config)
    theirs = library.StereoPipeline(matcher.network, processor, "cpu")(left, right).disparity
    assert theirs.std() > 0
    ours = matcher(left, right).disparity
    # Theirs is normalised in float64: 2e-7 apart, which UniMatch with random weights amplifies to
    # 2e-3 px; the others stay below 1e-3.
    assert np.median(np.abs(ours - np.maximum(theirs, 0))) < 1e-2


@pytest.mark.parametrize("name", BUILT)
def test_a_map_has_the_pairs_size_and_is_never_negative(few_iterations, rng, name):
    left, right = rng.integers(0, 256, (2, 50, 140, 3), np.uint8)
    disparity = package.load(f"zoo:{name}", allow_untrained=True)(left, right).disparity
    assert disparity.shape == (50, 140)
    assert disparity.dtype == np.float32
    assert np.isfinite(disparity).all() and disparity.min() >= 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raft-stereo-realtime", "igev-stereo"])
def test_a_file_of_the_librarys_exporter_gives_the_networks_map(
    few_iterations, tmp_path, views, name
):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra export)")
    network = few_iterations(name)
    module = network.build().eval()
    path = tmp_path / "theirs.onnx"
    library.export_onnx(module, path, input_height=96, input_width=192)
    scaling = {"mean": network.config.mean, "std": network.config.std}
    path.with_suffix(".yaml").write_text("".join(f"{k}: {v}\n" for k, v in scaling.items()))
    expected = package.wrap_network(module, **scaling)(*views).disparity
    assert expected.std() > 0.1
    assert np.abs(package.load(path)(*views).disparity - expected).max() < 1e-3


def test_the_commands_take_a_network_of_the_zoo(stereo, tmp_path):
    done = stereo(
        *("evaluate", "--root", REPOSITORY / "datasets/samples", "--limit", 1, "--model", "sgbm"),
        *("--against", "zoo:s2m2", "--allow-untrained", "--output", tmp_path / "out"),
    )
    assert done.status == 0, done.errors
    facts = json.loads((tmp_path / "out/against/s2m2/metrics.json").read_text())["model"]
    assert facts["library"] == f"stereo_matching {library.__version__}"
    assert "zoo" not in facts["weights"]
    assert "s2m2" in (tmp_path / "out/report.html").read_text()


def test_every_network_is_listed_with_its_licences(stereo):
    done = stereo("models")
    assert done.status == 0
    lines = {line.split("|")[1].strip(): line for line in done.out.splitlines() if "|" in line}
    for network in zoo_networks():
        assert network.family in _LICENCES
        assert lines[f"zoo:{network.name}"].rstrip("| ").endswith(" no")
    assert lines["ea_stereo"].rstrip("| ").endswith(" yes")
    assert "CC BY-NC 4.0" in lines["zoo:s2m2"]


@pytest.mark.parametrize("name", ["aanet", "foundation-stereo", "igev-stereo"])
def test_missing_weights_are_one_line(name):
    with pytest.raises(
        StereoError,
        match=f"^zoo:{name}: its weights cannot be downloaded .*connect to the internet once",
    ):
        package.load(f"zoo:{name}")


def test_attempts_to_download_are_not_said_one_by_one(monkeypatch):
    hub, said = logging.getLogger("huggingface_hub.utils"), []

    def unreachable(*arguments, **options):
        said.append(hub.isEnabledFor(logging.WARNING))
        raise OSError("no route")

    network = library.MODEL_REGISTRY.get_model_cls("raft-stereo")
    monkeypatch.setattr(network, "from_pretrained", unreachable)
    with pytest.raises(StereoError, match=r"cannot be downloaded \(no route\)"):
        package.load("zoo:raft-stereo")
    assert said == [False] and hub.isEnabledFor(logging.WARNING)


def test_a_network_that_needs_a_download_to_be_built_says_so():
    with pytest.raises(
        StereoError, match=r"^zoo:foundation-stereo cannot be built .*downloads parts"
    ):
        package.load("zoo:foundation-stereo", allow_untrained=True)


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("zoo:raft", {}, "unknown network of the zoo 'raft'; known: aanet, "),
        ("zoo:aanet", {"max_disparity": 64}, "takes no --max-disparity"),
        ("zoo:aanet", {"scale": 2}, "takes no --scale"),
    ],
)
def test_what_the_zoo_does_not_take_is_refused(model, options, says):
    with pytest.raises(UsageError, match=says):
        package.load(model, **options)


def _cached(tmp_path, family, name):
    path = (
        tmp_path / ".cache/stereo_matching" / family / zoo_network(name).config.checkpoint_filename
    )
    path.parent.mkdir(parents=True)
    return path


def test_weights_of_the_librarys_cache_are_used(tmp_path, rng):
    network = zoo_network("zoo:unimatch")
    assert not network.has_weights()
    built = network.build()
    torch.nn.init.constant_(built.net.refine_proj.bias, 1.0)
    path = _cached(tmp_path, "unimatch", "unimatch")
    torch.save({"model": built.net.state_dict()}, path)
    assert network.has_weights()
    matcher = package.load("zoo:unimatch")
    assert matcher.description["weights"] == "the library's"
    assert (matcher.network.net.refine_proj.bias == 1).all()


class Runs:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.folder),)


def test_weights_that_hold_code_do_not_run_it(tmp_path):
    path = _cached(tmp_path, "igev_stereo", "igev-stereo")
    torch.save({"state_dict": Runs(tmp_path / "made")}, path)
    with pytest.raises(StereoError, match="zoo:igev-stereo: its weights cannot be downloaded"):
        package.load("zoo:igev-stereo")
    assert not (tmp_path / "made").exists()
