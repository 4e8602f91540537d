"""The benchmark's measurements, its gate, and what it shows of the linear members."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from conftest import slow_but
from PIL import Image

from stereo.attention import ATTENTIONS
from stereo.benchmark import attention as attention_benchmark
from stereo.benchmark import ceilings, inference, measure, networks, training
from stereo.benchmark.attention import benchmark_attention, check_against_definition
from stereo.benchmark.reference import ReferencePSMNet
from stereo.commands.cli import run
from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.errors import StereoError
from stereo.matching.engine import normalise
from stereo.models import NetworkConfig
from stereo.models.convolution import Conv3d
from stereo.system import heap
from stereo.system.machine import CLEAR_REFS

CPU = torch.device("cpu")
VOLUME_OF_544X960 = (48, 136, 240)
LINEAR = [name for name in ATTENTIONS if ATTENTIONS[name].linear_cost]
needs_linux = pytest.mark.skipif(
    not CLEAR_REFS.exists(), reason="resident memory is measured on Linux only"
)


@pytest.fixture(autouse=True)
def quick_ceilings(monkeypatch):
    monkeypatch.setattr(ceilings, "SECONDS", 0.01)
    monkeypatch.setattr(ceilings, "SIDES", {"cpu": 64})
    monkeypatch.setattr(ceilings, "VOLUME", (4, 8, 12))
    monkeypatch.setattr(ceilings, "COPIED_BYTES", 2**16)


def forward_peak(name, size):
    module = ATTENTIONS[name](32, zero_init=False).eval()
    volume = torch.randn(1, 32, *size)
    with torch.inference_mode():
        return measure.peak_bytes(lambda: module(volume), CPU)


@needs_linux
def test_peak_memory_is_that_of_a_known_allocation():
    """Within 5 %: the kernel counts pages per core, and adds them up now and then."""
    size = 100 * 2**20
    peak = measure.peak_bytes(lambda: torch.ones(size, dtype=torch.uint8), CPU)
    assert peak == pytest.approx(size, rel=0.05)


@needs_linux
def test_peak_memory_is_that_of_the_call_alone_and_counts_what_it_frees():
    size = 100 * 2**20
    torch.ones(2 * size, dtype=torch.uint8)
    peak = measure.peak_bytes(lambda: torch.ones(size, dtype=torch.uint8).dim(), CPU)
    assert peak == pytest.approx(size, rel=0.05)


@needs_linux
@pytest.mark.parametrize("name", slow_but("efficient", of=LINEAR))
def test_memory_of_linear_members_grows_no_faster_than_the_volume(name):
    sizes = [(24, 68, 120), VOLUME_OF_544X960]
    peaks = [math.inf] * len(sizes)
    for _ in range(3):  # resident memory is noisy upwards: what else the process keeps comes on top
        peaks = [min(p, forward_peak(name, s)) for p, s in zip(peaks, sizes, strict=True)]
        slope = np.polyfit(np.log([math.prod(s) for s in sizes]), np.log(peaks), 1)[0]
        if slope <= 1.05:
            break
    assert slope <= 1.05
    assert peaks[-1] < 4 * 2**30


@needs_linux
def test_dot_product_never_holds_its_map():
    size = (16, 32, 24)  # a map of 604 MB, far above what slices and libraries take
    assert forward_peak("dot_product", size) < 0.5 * 4 * math.prod(size) ** 2


def test_turns_are_summed_up_by_their_median():
    times = iter([5.0, 1.0, 2.0])
    (found,) = measure.in_turns({"a": lambda: next(times)}, 3)
    assert found == {"median": 2.0, "min": 1.0, "max": 5.0, "repeats": 3}


@pytest.mark.parametrize("change", ["loss", "gradient"])
def test_no_step_is_timed_that_differs(tmp_path, monkeypatch, change):
    backward = training._backward

    def wrong(case, *views):
        loss = backward(case, *views)
        if case.form == training.OURS and change == "gradient":
            next(case.network.parameters()).grad.mul_(1e3)
        return loss * (1.01 if case.form == training.OURS and change == "loss" else 1)

    monkeypatch.setattr(training, "_backward", wrong)
    with pytest.raises(StereoError, match=f"has a {change}.*nothing was timed"):
        training.benchmark_training(
            tmp_path / "t.json",
            models=["ea_stereo_fast"],
            crop=(64, 128),
            max_disparity=32,
            precisions=["fp32"],
            device="cpu",
            repeats=1,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ATTENTIONS)
def test_the_gate_passes_for_every_member(name):
    check_against_definition(name)


def test_nothing_is_timed_if_the_gate_fails(tmp_path, monkeypatch):
    class Wrong(ATTENTIONS["linear"]):
        def attend(self, *arguments):
            return 1.001 * super().attend(*arguments)

    monkeypatch.setitem(ATTENTIONS, "linear", Wrong)
    with pytest.raises(StereoError, match="differs from its explicit form"):
        benchmark_attention(tmp_path / "a.json", members=["linear"], sizes=[(2, 3, 4)])
    assert not list(tmp_path.iterdir())


def test_the_gate_sees_wrong_gradients(monkeypatch):
    class Wrong(ATTENTIONS["linear"]):
        def attend(self, queries, *arguments):
            return super().attend(queries.detach(), *arguments)

    monkeypatch.setitem(ATTENTIONS, "linear", Wrong)
    with pytest.raises(StereoError, match="differs from its explicit form"):
        check_against_definition("linear")


@pytest.mark.parametrize("fault", ["too long", "no memory", "no peak"])
def test_what_cannot_be_run_or_weighed_is_said(tmp_path, monkeypatch, fault):
    members = ["dot_product"] if fault == "too long" else ["efficient"]
    if fault == "no memory":
        monkeypatch.setattr(
            *(ATTENTIONS["efficient"], "forward"),
            lambda *_: torch.empty(2**60, dtype=torch.uint8),
        )
        monkeypatch.setattr(attention_benchmark, "check_against_definition", lambda _: None)
    if fault == "no peak":
        monkeypatch.setattr(attention_benchmark.measure, "peak_bytes", lambda f, _: f())
    report = benchmark_attention(
        tmp_path / "a.json",
        members=members,
        sizes=[(48, 136, 240)] if fault == "too long" else [(2, 3, 4)],
        precisions=["fp32"],
        directions=["forward"],
        time_limit=1,
        repeats=1,
    )
    (row,) = report["rows"]
    said = {"too long": "expected to take", "no memory": "out of memory", "no peak": None}[fault]
    assert (said is None) or row["not_run"].startswith(said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.md", "a.png"]


@pytest.mark.slow
@pytest.mark.parametrize("precisions", ["fp32", "fp32,bf16"])
def test_the_command_writes_json_table_and_plot(tmp_path, capsys, precisions):
    path = tmp_path / "deep" / "attention.json"
    sizes = "2x4x4,4x6x8,8x10x12,24x34x60"
    call = ["benchmark", "attention", "--output", str(path), "--sizes", sizes]
    call += ["--members", "efficient,dot_product", "--repeats", "1", "--time-limit", "0.5"]
    call += ["--precisions", precisions]
    assert run(call) == 0
    report = json.loads(path.read_text())
    assert report["machine"]["threads"] >= 1
    assert report["machine"]["commit"]
    rows = {(r["member"], r["direction"], r["precision"], r["cells"]): r for r in report["rows"]}
    cases = 2 * 2 * len(precisions.split(","))
    assert len(rows) == cases * 4
    row = rows["efficient", "forward", "fp32", 960]
    assert row["seconds"]["min"] <= row["seconds"]["median"] <= row["seconds"]["max"]
    # Streamed: keys, what they gather of the volume, queries, and what they take from the table.
    of_cells = 960 * 4 * 16 * 32
    assert of_cells <= row["macs"] <= of_cells + 2 * 16 * 32 * 32
    row = rows["efficient", "backward", "fp32", 960]
    assert row["macs"] > 3 * of_cells
    largest = rows["dot_product", "forward", "fp32", 24 * 34 * 60]
    assert "expected to take" in largest["not_run"]
    assert largest["map_bytes"] == 4 * (24 * 34 * 60) ** 2
    assert len(report["exponents"]) == cases
    assert "| efficient" in path.with_suffix(".md").read_text()
    assert Image.open(path.with_suffix(".png")).size[0] > 800
    assert "map 9.6 GB" in capsys.readouterr().out


def test_the_time_expected_of_a_size_follows_from_the_last_one_run(tmp_path, monkeypatch):
    timed = {"median": 1.0, "min": 1.0, "max": 1.0, "repeats": 1}
    found = {"seconds": timed, "peak_bytes": 0, "macs": 1}
    monkeypatch.setattr(attention_benchmark, "_run", lambda *_: found)
    report = benchmark_attention(
        tmp_path / "a.json",
        members=["dot_product"],
        sizes=[(1, 1, n) for n in (10, 20, 40)],
        precisions=["fp32"],
        directions=["forward"],
        time_limit=3,
    )
    expected = [row.get("not_run", "run").split(",")[0] for row in report["rows"]]
    assert expected == ["run", "expected to take 4 s", "expected to take 16 s"]


def test_exponents_are_fitted_to_volumes_of_different_sizes():
    growth = [(5, 1e3), *((n, 3 * n**1.5) for n in (10, 20, 40))]  # the last three count
    assert attention_benchmark._slope(growth) == pytest.approx(1.5)
    assert attention_benchmark._slope([(24, 1.0), (24, 2.0)]) is None


def test_fp32_is_the_reference_wherever_it_is_named():
    assert ceilings.pick_precisions(["bf16", "fp32", "bf16"], CPU) == ["fp32", "bf16"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--members", "efficent"],
        ["--sizes", "48x136"],
        ["--precisions", "fp8"],
        ["--directions", "sideways"],
    ],
)
def test_wrong_calls_are_refused_before_any_work(tmp_path, capsys, wrong):
    assert run(["benchmark", "attention", "--output", str(tmp_path / "a.json"), *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def inference_call(path, *more):
    call = ["benchmark", "inference", "--output", str(path), "--size", "64x128"]
    return [*call, "--max-disparity", "32", "--repeats", "2", *more]


@pytest.mark.parametrize(
    ("networks", "precisions"),
    [
        ("ea_stereo_fast", "fp32"),
        pytest.param("ea_stereo_fast", "fp32,bf16", marks=pytest.mark.slow),
        pytest.param("psmnet", "fp32", marks=pytest.mark.slow),
    ],
)
def test_inference_is_compared_then_timed_in_turns(tmp_path, capsys, networks, precisions):
    path = tmp_path / "deep" / "inference.json"
    models = ["--models", f"{networks},sgbm", "--precisions", precisions, "--busy", "1"]
    assert run(inference_call(path, *models)) == 0
    report = json.loads(path.read_text())
    rows = {(r["model"], r["form"], r["precision"]): r for r in report["rows"]}
    names = networks.split(",")
    assert len(rows) == len(names) * 2 * len(precisions.split(",")) + 1
    for (model, form, precision), row in rows.items():
        assert row["seconds"]["min"] <= row["seconds"]["median"] <= row["seconds"]["max"]
        first = rows.get((model, "plain", "fp32"), row)["seconds"]["median"]
        assert row["times_as_fast"] == first / row["seconds"]["median"]
        assert ("times_idle" in row) == (form != "plain")
        if form != "plain":
            beside, idle = row["busy_seconds"]["median"], row["seconds"]["median"]
            assert row["times_idle"] == beside / idle
        assert (row["macs"] is None) == (model == "sgbm")
        if precision == "fp32":
            assert row["macs_per_second"] == row["macs"] / row["seconds"]["median"]
            assert row["share_of_ceiling"] > 0
        if model != "sgbm" and precision == "fp32":
            assert row["mean_difference_px"] <= 1e-3
            assert row["mean_difference_px"] <= row["largest_difference_px"]
            assert row["reference"] == "plain fp32"
        if (form, precision) == ("plain", "fp32"):
            assert row["mean_difference_px"] == 0
            assert row["times_as_fast"] == 1
    settings = report["settings"]
    assert settings["weights"].keys() == set(names)
    assert (settings["height"], settings["width"], settings["max_disparity"]) == (64, 128, 32)
    assert report["ceilings"]["copy_bytes_per_second"] > 0
    table = path.with_suffix(".md").read_text()
    assert f"| {names[0]}" in table
    assert "s beside 1 busy" in table
    assert "ceilings of" in table
    assert Image.open(path.with_suffix(".png")).size[0] > 800
    assert "turn 2: sgbm" in capsys.readouterr().out


THEIRS = """
import numpy as np

def match(left, right):
    return np.full(left.shape[:2], 3.0)
"""


@pytest.mark.parametrize("zoo", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_other_models_are_timed_beside_ours(tmp_path, zoo):
    if zoo:
        pytest.importorskip(
            "stereo_matching", reason="stereo_matching is not installed (extra zoo)"
        )
    (tmp_path / "mine.py").write_text(THEIRS)
    theirs = ["zoo:aanet"] if zoo else [f"{tmp_path}/mine.py:match"]
    path = tmp_path / "inference.json"
    assert run(inference_call(path, "--models", ",".join(["sgbm", *theirs]))) == 0
    report = json.loads(path.read_text())
    rows = {row["model"]: row for row in report["rows"]}
    assert set(rows) == {"sgbm", *theirs}
    row = rows[theirs[0]]
    assert (row["form"], row["precision"]) == ("theirs", "fp32" if zoo else "own")
    assert row["seconds"]["repeats"] == 2
    assert report["settings"]["weights"] == {theirs[0]: "random" if zoo else "own"}


@pytest.mark.parametrize("emulated", [True, False])
def test_emulated_bf16_has_no_ceiling_and_no_rows_unless_named(monkeypatch, emulated):
    monkeypatch.setattr(ceilings, "has_bf16", lambda _: not emulated)
    chosen = ceilings.pick_precisions(None, CPU)
    assert chosen == (["fp32"] if emulated else ["fp32", "bf16"])
    assert ceilings.pick_precisions(["bf16"], CPU) == ["bf16"]
    found = ceilings.measure_ceilings(CPU, chosen)
    assert (found["macs_per_second"]["bf16"] is None) == emulated
    assert ("bf16 is emulated" in ceilings.ceilings_text(found, CPU)) == emulated
    row = {"precision": "bf16", "seconds": {"median": 1.0}}
    ceilings.add_share(row, 10**9, found)
    assert (row["share_of_ceiling"] is None) == emulated
    assert ceilings.share_columns(row)[:2] == ["1.0", "1.0"]


def test_the_ceiling_is_the_faster_of_product_and_convolution():
    rates = {"fp32": {"product": 40e9, "convolution": 50e9}}
    row = {"precision": "fp32", "seconds": {"median": 2.0}}
    ceilings.add_share(row, 60 * 10**9, {"macs_per_second": rates})
    assert ceilings.share_columns(row) == ["60.0", "30.0", "60"]


def test_operations_are_counted_forward_and_backward():
    weight = torch.randn(8, 4, 3, 3, requires_grad=True)
    image = torch.randn(2, 4, 6, 10, requires_grad=True)

    def step():
        torch.nn.functional.conv2d(image, weight, padding=1).sum().backward()

    forward = 2 * 6 * 10 * 8 * 4 * 9
    assert measure.count_macs(step)[1] == 3 * forward
    with torch.inference_mode():
        assert measure.count_macs(lambda: image[0, 0] @ image[0, 1].T)[1] == 6 * 6 * 10


def test_the_products_of_a_fused_kernel_are_counted():
    tokens = torch.ones(1, 2, 40, 16)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert measure.count_macs(lambda: attend(tokens, tokens, tokens))[1] == 2 * 2 * 40 * 40 * 16


@pytest.mark.parametrize("channels, planes", [(32, 4), (8, 1)], ids=["by planes", "single"])
def test_winograd_convolutions_are_counted_as_direct_ones(channels, planes):
    conv = Conv3d(channels, channels, 3, padding=1, bias=False)
    conv.to(memory_format=torch.channels_last_3d)
    volume = torch.randn(1, channels, planes, 128, 256)
    with torch.inference_mode():
        macs = measure.count_macs(lambda: conv(volume))[1]
    assert macs == planes * 128 * 256 * 27 * channels**2


def test_busy_processes_end_however_the_benchmark_does():
    before = set(psutil.Process().children())  # such as multiprocessing's tracker
    with measure.busy_processes(2):
        busy = set(psutil.Process().children()) - before
        assert len(busy) == 2
    assert not any(child.is_running() for child in busy)
    starter = (
        "import os, subprocess, sys\n"
        "busy = subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())])\n"
        "print(busy.pid, flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", starter, measure.BUSY], stdout=subprocess.PIPE, text=True
    )
    _, alive = psutil.wait_procs(orphans(int(done.stdout)), timeout=60)
    assert not alive


def orphans(pid):
    try:
        return [psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return []


def test_nothing_is_timed_where_the_fast_path_differs(tmp_path, monkeypatch, capsys):
    optimize_for_inference = networks.optimize_for_inference

    def wrong(network):
        optimize_for_inference(network)
        network.aggregation.heads[2].project.weight.data.mul_(1.1)

    monkeypatch.setattr(networks, "optimize_for_inference", wrong)
    path = tmp_path / "inference.json"
    small = ("--size", "32x64", "--max-disparity", "16")
    assert run(inference_call(path, "--models", "psmnet", "--precisions", "fp32", *small)) == 1
    assert "nothing was timed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        ["--models", "psmnt"],
        ["--size", "64"],
        ["--precisions", "fp8"],
        ["--repeats", "0"],
        ["--busy", "-1"],
    ],
)
def test_wrong_inference_calls_are_refused(tmp_path, capsys, wrong):
    assert run(inference_call(tmp_path / "a.json", *wrong)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


REFERENCE = """
import torch
class PSMNet(torch.nn.Module):
    def __init__(self, most):
        super().__init__()
        self.most = torch.ones(1).cuda() * most
    def forward(self, left, right):
        disparity = self.most.cuda() + left.cuda().mean(1, keepdim=True)
        return (disparity, disparity, disparity) if self.training else disparity
"""


@pytest.fixture
def reference(tmp_path):
    models = tmp_path / "reference" / "models"
    models.mkdir(parents=True)
    (models / "__init__.py").write_text("")
    (models / "stackhourglass.py").write_text(REFERENCE)
    return models.parent


def test_the_original_is_matched_at_sizes_that_need_padding(reference):
    pair = SyntheticScenes(SyntheticConfig(height=72, width=104, max_disparity=32)).render(0)
    original = ReferencePSMNet(reference, 32, CPU)
    networks.calibrate_batch_norms(original, original, pair, CPU)
    config = NetworkConfig("psmnet", 32)
    disparity = original.match(pair, config, torch.float32)
    assert disparity.shape == (72, 104)
    expected = 32 + normalise([pair.left], config.mean, config.std, CPU)[0].mean(0)
    np.testing.assert_allclose(disparity, expected, atol=1e-5)


def test_a_reference_that_calls_cuda_runs_on_the_cpu(reference):
    before = torch.Tensor.cuda
    network = ReferencePSMNet(reference, 32, CPU).eval()
    assert network(*torch.zeros(2, 2, 3, 16, 16)).shape == (2, 16, 16)
    assert torch.Tensor.cuda is before
    assert "models" not in sys.modules


def test_a_size_that_the_reference_refuses_is_one_line(reference, tmp_path, capsys):
    pooled = "left = torch.nn.functional.avg_pool2d(left, 256)"
    code = REFERENCE.replace("        disparity =", f"        {pooled}\n        disparity =")
    (reference / "models" / "stackhourglass.py").write_text(code)
    call = inference_call(tmp_path / "a.json", "--models", "psmnet", "--precisions", "fp32")
    assert run([*call, "--reference-psmnet", str(reference)]) == 1
    error = capsys.readouterr().err
    assert "does not run on images of 64x128" in error
    assert error.count("\n") == 1


def test_models_with_a_device_of_their_own_run_and_are_weighed_there(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def match(left, right):\n    return left[..., 0] / 9\n")
    on_gpu = SimpleNamespace(device=torch.device("cuda"), precisions=["fp32"], pair=None)
    (case,), weights = inference._theirs(f"{path}:match", on_gpu)
    assert (case.precision, case.on_cpu, weights) == ("own", True, "own")


@pytest.mark.parametrize("code", [None, "import nothing_of_that_name", "PSMNet = 3"])
def test_a_folder_without_the_reference_is_named(tmp_path, capsys, code):
    if code is not None:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "stackhourglass.py").write_text(code)
    path = tmp_path / "out" / "a.json"
    assert run(inference_call(path, "--reference-psmnet", str(tmp_path))) == 1
    error = capsys.readouterr().err
    assert str(tmp_path) in error
    assert error.count("\n") == 1


def training_call(path, *more):
    call = ["benchmark", "training", "--output", str(path), "--crop", "64x128"]
    return [*call, "--max-disparity", "32", "--repeats", "1", *more]


@pytest.mark.slow
def test_a_training_step_is_timed_and_the_largest_batch_computed(tmp_path):
    path = tmp_path / "training.json"
    assert run(training_call(path, "--models", "psmnet", "--precisions", "fp32")) == 0
    report = json.loads(path.read_text())
    rows = {row["form"]: row for row in report["rows"]}
    assert rows.keys() == {"plain", "ours", "recompute"}
    assert rows["ours"]["macs"] < rows["recompute"]["macs"]
    assert rows["ours"]["share_of_ceiling"] > 0
    for row in rows.values():
        assert row["seconds"]["median"] > 0
        if row["fits"] is not None:
            twelve, twenty_four, eighty = row["fits"].values()
            assert 0 < twelve < twenty_four < eighty
            fixed, pair = row["fixed_bytes"], row["bytes_of_a_pair"]
            assert fixed + twelve * pair <= 12e9 < fixed + (twelve + 1) * pair
    if rows["recompute"]["fits"] is not None:
        assert rows["recompute"]["bytes_of_a_pair"] < rows["plain"]["bytes_of_a_pair"]
    assert "| psmnet" in path.with_suffix(".md").read_text()


def test_the_largest_batch_is_the_last_that_fits():
    network = torch.nn.Linear(3, 1)
    case = SimpleNamespace(network=network, optimizer=torch.optim.Adam(network.parameters()))
    found = training._memory(case, (7 * 10**9, 9 * 10**9))
    assert (found["fixed_bytes"], found["bytes_of_a_pair"]) == (3 * 10**9 + 16, 2 * 10**9)
    assert list(found["fits"].values()) == [4, 10, 38]  # 3 GB and 2 GB a pair, in 12, 24, 80


def test_no_step_is_timed_if_the_losses_differ(tmp_path, monkeypatch, capsys):
    def wrong(network):
        network.aggregation.heads[2].project.weight.data.mul_(3)

    monkeypatch.setattr(training, "to_channels_last", wrong)
    path = tmp_path / "training.json"
    small = ("--crop", "32x64", "--max-disparity", "16")
    assert run(training_call(path, "--models", "psmnet", "--precisions", "fp32", *small)) == 1
    assert "nothing was timed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_our_steps_are_timed_with_freed_memory_kept_as_in_training(tmp_path, monkeypatch):
    kept = []

    def elapsed(step, device):
        kept.append(heap._kept["memory"])
        return 0.5 ** len(kept)

    monkeypatch.setattr(heap, "_kept", {"memory": "none"})
    monkeypatch.setattr(measure, "elapsed", elapsed)
    small = ("--models", "ea_stereo_fast", "--precisions", "fp32")
    assert run(training_call(tmp_path / "a.json", *small)) == 0
    assert kept[-3:] == ["none", "all", "all"]  # plain, ours, recompute
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["times_as_fast"] for row in rows] == [1, 2, 4]


@pytest.mark.parametrize(
    "wrong", [["--models", "sgbm"], ["--crop", "60x128"], ["--crop", "64"], ["--precisions", "fp8"]]
)
def test_wrong_training_calls_are_refused(tmp_path, capsys, wrong):
    assert run(training_call(tmp_path / "a.json", *wrong)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["attention", "inference", "training"])
def test_the_json_file_may_not_share_a_name_with_its_siblings(name, tmp_path, capsys):
    for suffix in (".md", ".png"):
        assert run(["benchmark", name, "--output", str(tmp_path / f"out{suffix}")]) == 2
        assert ".json" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
