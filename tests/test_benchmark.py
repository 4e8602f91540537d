"""The benchmark's measurements, its gate, and what it shows of the linear members."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from stereo.attention import ATTENTIONS
from stereo.attention.volume import cells
from stereo.benchmark import measure
from stereo.benchmark.attention import benchmark_attention, check_against_definition
from stereo.cli import run
from stereo.errors import StereoError

CPU = torch.device("cpu")
LINEAR = [name for name in ATTENTIONS if ATTENTIONS[name].linear]
needs_linux = pytest.mark.skipif(
    not measure._CLEAR_REFS.exists(), reason="resident memory is measured on Linux only"
)


def forward_peak(name, size):
    module = ATTENTIONS[name](32, zero_init=False).eval()
    volume = torch.randn(1, 32, *size)
    with torch.inference_mode():
        return measure.peak_bytes(lambda: module(volume), CPU)


@needs_linux
def test_peak_memory_is_that_of_a_known_allocation():
    peak = measure.peak_bytes(lambda: torch.ones(100 * 2**20, dtype=torch.uint8), CPU)
    assert 99 * 2**20 < peak < 110 * 2**20


@needs_linux
@pytest.mark.parametrize("name", LINEAR)
def test_memory_of_linear_members_grows_no_faster_than_the_volume(name):
    sizes = [(24, 68, 120), (48, 68, 120), (48, 136, 120)]
    peaks = [forward_peak(name, size) for size in sizes]
    slope = np.polyfit(np.log([cells(s) for s in sizes]), np.log(peaks), 1)[0]
    assert slope <= 1.05


@needs_linux
@pytest.mark.parametrize("name", LINEAR)
def test_linear_members_take_the_volume_of_a_544x960_image_in_4_gib(name):
    assert forward_peak(name, (48, 136, 240)) < 4 * 2**30


@needs_linux
def test_dot_product_never_holds_its_map():
    size = (16, 40, 32)  # a map of 1.7 GB, far above what slices and libraries take
    assert forward_peak("dot_product", size) < 0.5 * 4 * cells(size) ** 2


@pytest.mark.parametrize("name", ATTENTIONS)
def test_the_gate_is_green_for_every_member(name):
    check_against_definition(name)


def test_nothing_is_timed_on_a_red_gate(tmp_path, monkeypatch):
    class Wrong(ATTENTIONS["linear"]):
        def attend(self, *arguments):
            return 1.001 * super().attend(*arguments)

    monkeypatch.setitem(ATTENTIONS, "linear", Wrong)
    with pytest.raises(StereoError, match="differs from its explicit form"):
        benchmark_attention(tmp_path / "a.json", members=["linear"], sizes=[(2, 3, 4)])
    assert not list(tmp_path.iterdir())


def test_the_command_writes_json_table_and_plot(tmp_path, capsys):
    path = tmp_path / "deep" / "attention.json"
    sizes = "4x6x8,6x8x10,8x10x12,24x34x60"
    call = ["benchmark", "attention", "--output", str(path), "--sizes", sizes]
    call += ["--members", "efficient,dot_product", "--repeats", "2", "--time-limit", "0.4"]
    assert run(call) == 0
    report = json.loads(path.read_text())
    assert report["machine"]["threads"] >= 1
    assert report["machine"]["commit"]
    rows = {(r["member"], r["direction"], r["precision"], r["cells"]): r for r in report["rows"]}
    assert len(rows) == 2 * 2 * 2 * 4
    row = rows["efficient", "forward", "fp32", 960]
    assert row["seconds"]["min"] <= row["seconds"]["median"] <= row["seconds"]["max"]
    assert row["macs"] == 960 * (16 * 32 * 2 + 32 * 32 * 2 + 2 * 16 * 32)
    largest = rows["dot_product", "forward", "fp32", 24 * 34 * 60]
    assert "expected to take" in largest["not_run"]
    assert largest["map_bytes"] == 4 * (24 * 34 * 60) ** 2
    assert len(report["exponents"]) == 8
    assert "| efficient" in path.with_suffix(".md").read_text()
    assert Image.open(path.with_suffix(".png")).size[0] > 800
    assert "its map would take 9.6 GB" in capsys.readouterr().out


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
