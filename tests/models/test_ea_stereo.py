"""What EA-Stereo has beyond EA-Stereo-Fast, each part against its definition."""

import runpy
import sys

import pytest
import torch
from conftest import REPOSITORY
from torch.nn import functional as F

from stereo.models import NetworkConfig, build_network
from stereo.models.checkpoint import (
    Checkpoint,
    file_sha256,
    load_checkpoint,
    restore_network,
    save_checkpoint,
)
from stereo.models.correlation import warp
from stereo.models.ea_stereo import Excitation, warped_correlation
from stereo.system.bundled import bundled_weights


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_warping_takes_what_lies_a_disparity_to_the_left(dtype):
    right = torch.arange(12.0).repeat(2, 3, 5, 1).to(dtype)
    warped = warp(right, torch.full((2, 5, 12), 2.25))
    assert warped.dtype == dtype
    inside = torch.arange(3, 12) - 2.25
    assert torch.allclose(warped[..., 3:].double(), inside.double().expand(2, 3, 5, 9), atol=0.03)
    assert not warped[..., :2].any()  # beyond the edge: the edge's


def test_views_are_compared_by_the_cosine_of_each_half_of_the_channels():
    left, warped = torch.randn(2, 1, 6, 4, 9, dtype=torch.float64)
    found = warped_correlation(left, warped, 2).view(1, 5, 2, 4, 9)
    padded = F.pad(warped, (2, 2, 0, 0), mode="replicate")
    for step in range(5):
        for half in range(2):
            own = slice(3 * half, 3 * half + 3)
            moved = padded[:, own, :, step : step + 9]
            cosine = F.cosine_similarity(left[:, own], moved, dim=1)
            assert (found[:, step, half] - cosine).abs().max() < 1e-3


def test_excitation_weights_channels_alike_in_all_planes_and_not_before_training():
    excite = Excitation(8, 4)
    volume, left = torch.randn(2, 4, 5, 3, 6), torch.randn(2, 8, 3, 6)
    assert torch.equal(excite(volume, left), volume)
    torch.nn.init.normal_(excite.weights.weight)
    gain = excite(volume, left) / volume
    assert torch.allclose(gain, gain[:, :, :1].expand_as(gain), atol=1e-4)
    assert gain.min() > 0
    assert 1.2 < gain.max() <= 2


def test_the_last_refinement_sees_the_right_view():
    network = build_network(NetworkConfig("ea_stereo", 32)).eval()
    torch.nn.init.normal_(network.half_refinement.residual.weight, std=0.1)
    left, right, other = torch.randn(3, 1, 16, 16, 32)
    state, disparity = torch.randn(1, 48, 8, 16), torch.full((1, 16, 32), 3.0)
    with torch.inference_mode():
        maps = [
            network.half_refinement(left, each, disparity, state)
            for each in (right, other, torch.cat([right[..., :20], other[..., 20:]], dim=-1))
        ]
    assert maps[0].shape == (1, 32, 64)
    assert (maps[1] - maps[0]).abs().max() > 0.05
    # Where the right view is the same at x - 3, beyond what its surroundings reach.
    assert (maps[2] - maps[0])[..., :16].abs().max() < 1e-4


def test_grown_weights_keep_their_logits(tmp_path, monkeypatch):
    path = tmp_path / "grown.safetensors"
    monkeypatch.setattr(sys, "argv", ["grow_weights.py", str(path)])
    runpy.run_path(str(REPOSITORY / "scripts" / "grow_weights.py"), run_name="__main__")
    trained = bundled_weights("ea_stereo_fast")
    views = torch.rand(2, 1, 3, 64, 128)
    found = []
    for each in (path, trained):
        checkpoint = load_checkpoint(each)
        network = restore_network(checkpoint, str(each)).eval()
        with torch.inference_mode():
            features = [network.extract(view) for view in views]
            found.append(network._match(*features, 64)[2])
    assert torch.allclose(*found, atol=1e-4)


def test_averaged_weights_lie_between_and_different_networks_have_none(
    tmp_path, monkeypatch, capsys
):
    def average(*arguments):
        monkeypatch.setattr(sys, "argv", ["average_weights.py", *map(str, arguments)])
        script = REPOSITORY / "scripts" / "average_weights.py"
        runpy.run_path(str(script), run_name="__main__")

    files = []
    for name, planes in (("first", 32), ("second", 32), ("other", 64)):
        config = NetworkConfig("ea_stereo", planes)
        files.append(tmp_path / f"{name}.safetensors")
        facts = {"trained_on": f"{len(files):012x}", "step": 7, "validation_epe_px": 1.0, "seed": 3}
        save_checkpoint(files[-1], Checkpoint(config, build_network(config).state_dict(), facts))
    mixed = tmp_path / "mixed.safetensors"
    average(mixed, f"{files[0]}:1", f"{files[1]}:3", "--half")
    first, second, found = (load_checkpoint(each).weights for each in (*files[:2], mixed))
    for name, value in found.items():
        if value.is_floating_point():
            assert value.dtype == torch.float16
            expected = 0.25 * first[name] + 0.75 * second[name]
            assert torch.allclose(value.float(), expected, rtol=1e-3, atol=1e-6), name
    assert load_checkpoint(mixed).trained_on == {"000000000001", "000000000002"}
    facts = load_checkpoint(mixed).training
    assert facts["seed"] == 3
    assert not {"step", "validation_epe_px"} & facts.keys()  # which are of the last file alone
    hashes = [file_sha256(file) for file in files[:2]]
    assert facts["average_of"] == [[hashes[0], 1.0], [hashes[1], 3.0]]
    average(tmp_path / "alone.safetensors", f"{files[0]}:1")
    assert load_checkpoint(tmp_path / "alone.safetensors").training["validation_epe_px"] == 1.0
    weights = {name: torch.full_like(value, 1e5) for name, value in first.items()}
    save_checkpoint(files[1], Checkpoint(NetworkConfig("ea_stereo", 32), weights))
    with pytest.raises(SystemExit, match="that fp16 cannot hold"):
        average(tmp_path / "large.safetensors", f"{files[1]}:1", "--half")
    with pytest.raises(SystemExit, match=r"expected a \.safetensors file"):
        average(tmp_path / "mixed.txt", f"{files[0]}:1")
    for parts, message in (
        ((f"{files[0]}:1", f"{files[2]}:1"), "different networks"),
        ((f"{files[0]}",), "expected FILE:SHARE"),
        ((f"{files[0]}:0", f"{files[1]}:0"), "expected FILE:SHARE above 0"),
    ):
        with pytest.raises(SystemExit, match=message):
            average(mixed, *parts)
