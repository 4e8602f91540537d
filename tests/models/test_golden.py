"""Equality with the original PSMNet and the authors' attention module."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import shared

from stereo.attention import EfficientAttention
from stereo.models import NetworkConfig, build_network
from stereo.models.checkpoint import load_checkpoint, load_weights, restore_network, save_checkpoint
from stereo.models.convert import convert_psmnet


@pytest.fixture(scope="module")
def golden():
    return np.load(shared("golden/psmnet_golden.npz"))


@pytest.mark.slow
@pytest.mark.parametrize("align_corners", [True, False])
def test_converted_psmnet_equals_the_original(golden, align_corners, tmp_path):
    converted = convert_psmnet(shared("golden/psmnet_golden.tar"), align_corners=align_corners)
    save_checkpoint(tmp_path / "psmnet.safetensors", converted)
    network = restore_network(load_checkpoint(tmp_path / "psmnet.safetensors"), "test").eval()
    left, right = (torch.from_numpy(golden[view])[None] for view in ("left", "right"))
    with torch.inference_mode():
        disparity = network(left, right)[0].numpy()
    expected = golden[f"disparity_align_corners_{str(align_corners).lower()}"]
    assert np.abs(disparity - expected).max() < 1e-3


def test_loaded_psmnet_gives_ea_psmnet_the_same_map(golden):
    converted = convert_psmnet(shared("golden/psmnet_golden.tar"), align_corners=False)
    config = dataclasses.replace(converted.config, name="ea_psmnet")
    network = build_network(NetworkConfig.from_dict(config.to_dict())).eval()
    load_weights(network, converted.weights, "test", allow_new_attention=True)
    psmnet = restore_network(converted, "test").eval()  # which the test above compares
    views = [torch.from_numpy(golden[view][None, :, :64, :128]) for view in ("left", "right")]
    with torch.inference_mode():
        assert (network(*views) - psmnet(*views)).abs().max() < 1e-3


def test_efficient_attention_equals_the_authors_module():
    golden = np.load(shared("golden/efficient_attention.npz"))
    volume = torch.from_numpy(golden["input"]).requires_grad_()
    module = EfficientAttention(
        volume.shape[1],
        key_channels=golden["keys.weight"].shape[0],
        value_channels=golden["values.weight"].shape[0],
        heads=int(golden["heads"]),
        zero_init=False,
    ).double()
    layers = ("queries", "keys", "values", "reprojection")
    for name in layers:
        layer = getattr(module, name)
        layer.weight.data = torch.from_numpy(golden[f"{name}.weight"])[..., None]
        layer.bias.data = torch.from_numpy(golden[f"{name}.bias"])
    output = module(volume)
    assert np.abs(output.detach().numpy() - golden["output"]).max() < 1e-9
    weight = torch.arange(output.numel(), dtype=torch.float64).cos()  # as the file's note says
    (output.flatten() * weight).sum().backward()
    assert np.abs(volume.grad.numpy() - golden["input_gradient"]).max() < 1e-9
    for name in layers:
        gradient = getattr(module, name).weight.grad[..., 0].numpy()
        assert np.abs(gradient - golden[f"{name}.weight.gradient"]).max() < 1e-9, name
