"""The networks: parts, sizes, memory and conventions."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from stereo.attention import ATTENTIONS
from stereo.errors import UsageError
from stereo.models import NETWORK_NAMES, AttentionConfig, NetworkConfig, build_network
from stereo.models.aggregation import SLAB, LogitHead, project_by_slabs
from stereo.models.blocks import ConvNorm3d
from stereo.models.certainty import certainty, with_certainty
from stereo.models.checkpoint import Checkpoint, load_checkpoint, restore_network, save_checkpoint
from stereo.models.config import SITES, SITES_OF
from stereo.models.cost_volume import concatenation_volume
from stereo.models.regression import (
    FACTOR,
    regress_disparity,
    regress_reference,
    sample_positions,
)


@pytest.mark.parametrize(("name", "count"), [("psmnet", 5_224_768), ("psmnet_basic", 3_672_896)])
def test_parameter_counts_are_the_originals(name, count):
    assert sum(p.numel() for p in build_network(NetworkConfig(name)).parameters()) == count


def test_volume_holds_left_beside_shifted_right(rng):
    left, right = torch.from_numpy(rng.normal(size=(2, 2, 3, 4, 7)))
    volume = concatenation_volume(left, right, 9)
    assert volume.shape == (2, 6, 9, 4, 7)
    for d in range(9):
        for x in range(7):
            if x < d:
                assert not volume[:, :, d, :, x].any()
            else:
                assert torch.equal(volume[:, :3, d, :, x], left[..., x])
                assert torch.equal(volume[:, 3:, d, :, x], right[..., x - d])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 4, 5), (SLAB, 2, 3), (2 * SLAB + 1, 3, 2)])
def test_projecting_by_slabs_is_two_convolutions(size, layout):
    torch.manual_seed(0)
    hidden = ConvNorm3d(6, 6).double().eval()
    volume = torch.randn(2, 6, *size, dtype=torch.float64).contiguous(memory_format=layout)
    weight = torch.randn(1, 6, 3, 3, 3, dtype=torch.float64)
    expected = F.conv3d(hidden(volume), weight, padding=1)[:, 0]
    assert (project_by_slabs(hidden, volume, weight) - expected).abs().max() < 1e-12
    found = project_by_slabs(hidden.bfloat16(), volume.bfloat16(), weight)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("plane", range(48))
def test_a_sharp_peak_at_plane_k_is_disparity_4k(plane):
    logits = torch.zeros(1, 48, 2, 3)
    logits[:, plane] = 100
    disparity = regress_disparity(logits, "unbiased")
    assert disparity.shape == (1, 8, 12)
    assert (disparity - 4 * plane).abs().max() < 1e-4


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_quarter_sample_i_is_pixel_4i(axis):
    logits = torch.full((1, 48, 5, 6), -100.0)
    for i in range(5 if axis == "rows" else 6):
        index = (0, 2 * i, i) if axis == "rows" else (0, 2 * i, slice(None), i)
        logits[index] = 100
    disparity = regress_disparity(logits, "unbiased")[0]
    samples = disparity[::4, 0] if axis == "rows" else disparity[0, ::4]
    expected = 8.0 * torch.arange(len(samples))
    assert (samples - expected).abs().max() < 1e-4


@pytest.mark.parametrize("upsampling", ["align_corners", "half_pixel"])
def test_psmnets_conventions_equal_interpolate_and_softmax(rng, upsampling):
    logits = torch.from_numpy(rng.normal(0, 3, (2, 6, 3, 5)))
    fine = F.interpolate(
        logits[:, None],
        scale_factor=4,
        mode="trilinear",
        align_corners=upsampling == "align_corners",
    )[:, 0]
    expected = (fine.softmax(1) * torch.arange(24.0).view(24, 1, 1)).sum(1)
    assert (regress_reference(logits, upsampling) - expected).abs().max() < 1e-10


@pytest.mark.parametrize("elements", [1, 200, 10**6])
@pytest.mark.parametrize("upsampling", ["unbiased", "align_corners", "half_pixel"])
def test_strips_equal_the_whole_in_value_and_gradient(rng, monkeypatch, upsampling, elements):
    monkeypatch.setattr("stereo.models.regression.STRIP_ELEMENTS", elements)
    logits = torch.from_numpy(rng.normal(0, 9, (2, 8, 9, 7))).requires_grad_()
    outside = torch.from_numpy(rng.normal(size=(2, 36, 28)))
    maps = [regress(logits, upsampling) for regress in (regress_disparity, regress_reference)]
    gradients = [torch.autograd.grad(each, logits, outside)[0] for each in maps]
    assert (maps[0] - maps[1]).abs().max() < 1e-11
    assert (gradients[0] - gradients[1]).abs().max() < 1e-10


@pytest.mark.parametrize("upsampling", ["unbiased", "half_pixel"])
def test_logits_far_apart_neither_overflow_nor_vanish(upsampling):
    logits = torch.tensor([-3e4, 80.0, 2e3, -500.0]).view(1, 4, 1, 1).requires_grad_()
    maps = [regress(logits, upsampling) for regress in (regress_disparity, regress_reference)]
    assert maps[0].isfinite().all()
    assert (maps[0] - maps[1]).abs().max() < 1e-4
    assert torch.autograd.grad(maps[0].sum(), logits)[0].isfinite().all()


@pytest.mark.parametrize("upsampling", ["unbiased", "align_corners", "half_pixel"])
def test_the_regression_has_second_derivatives(rng, upsampling):
    logits = torch.from_numpy(rng.normal(size=(2, 3, 2, 2))).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: regress_disparity(x, upsampling), logits)


@pytest.mark.parametrize("name", ["psmnet", "ea_psmnet", "ea_stereo_fast", "ea_stereo"])
def test_gradients_of_one_pair_are_those_of_two_alike(name):
    torch.manual_seed(0)
    network = build_network(NetworkConfig(name, 32)).double().train()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    views = torch.randn(2, 1, 3, 48, 64, dtype=torch.float64)
    found = []
    for count in (1, 2):
        network.zero_grad()
        outputs = network(*views.expand(2, count, -1, -1, -1))
        torch.stack([each.square().mean() for each in outputs.disparities]).sum().backward()
        found.append([p.grad for p in network.parameters() if p.grad is not None])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)


def test_batch_norm_counts_the_whole_volume_without_gradients_too(rng):
    volume = torch.from_numpy(rng.normal(size=(2, 32, 12, 4, 6))).float()
    volume += torch.arange(12.0).view(12, 1, 1)
    found = []
    for enabled in (True, False):
        torch.manual_seed(0)
        head = LogitHead().train()
        with torch.set_grad_enabled(enabled):
            found.append([head(volume), *head.hidden.norm.buffers()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_regression_runs_in_fp32_under_autocast(rng):
    logits = torch.from_numpy(rng.normal(0, 3, (1, 8, 4, 4)).astype(np.float32))
    expected = regress_disparity(logits, "unbiased")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(regress_disparity(logits, "unbiased"), expected)


@pytest.mark.parametrize("upsampling", ["unbiased", "align_corners", "half_pixel"])
@pytest.mark.parametrize("name", ["psmnet", "psmnet_basic", "ea_psmnet"])
def test_psmnets_learn_on_as_many_planes_as_they_search(name, upsampling):
    network = build_network(NetworkConfig(name, 32, upsampling=upsampling))
    views = [network.extract(torch.rand(2, 3, 32, 64)) for _ in range(2)]
    with torch.no_grad():
        _, searched = network.eval()._search(*views, 32)
        learned = network.train().match(*views)
    assert learned.logits.shape == searched.shape
    ends = torch.full_like(searched, -50.0)
    if upsampling == "unbiased":
        ends[:, 32 // FACTOR] = 50
        assert network._regress(ends).max() == pytest.approx(32)  # the range's end is learned


@pytest.mark.parametrize("name", NETWORK_NAMES)
def test_training_gives_every_output_and_gradients_reach_every_weight(name):
    attention = {"attention": AttentionConfig(options={"zero_init": False})}
    config = NetworkConfig(name, max_disparity=32, **(attention if name.startswith("ea") else {}))
    network = build_network(config).train()
    left, right = torch.randn(2, 2, 3, 32, 48)
    predictions = network(left, right).disparities
    outputs = {"psmnet_basic": 1, "ea_stereo": 5}.get(name, 3)
    assert [p.shape for p in predictions] == [(2, 32, 48)] * outputs
    sum(p.mean() for p in predictions).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert not without


@pytest.mark.parametrize("sites", [("quarter",), ("eighth",), ("quarter", "eighth", "sixteenth")])
def test_attention_acts_at_each_configured_site(sites):
    torch.manual_seed(0)
    options = {"zero_init": False, "heads": 2}
    config = NetworkConfig("ea_psmnet", 32, attention=AttentionConfig(sites=sites, options=options))
    network = build_network(config).eval()
    names = {n.split(".queries")[0] for n, _ in network.named_parameters() if "queries" in n}
    assert {n.rpartition("attention_")[2] for n in names} == set(sites)
    left, right = torch.randn(2, 1, 3, 32, 48)
    with torch.inference_mode():
        before = network(left, right)
        for site in sites:
            module = next(m for n, m in network.named_modules() if n.endswith(f"attention_{site}"))
            weight = module.reprojection.weight.clone()
            module.reprojection.weight.mul_(-10)
            assert (network(left, right) - before).abs().max() > 1e-4, site
            module.reprojection.weight.copy_(weight)


@pytest.mark.parametrize("name", ["ea_psmnet", "ea_stereo"])
def test_other_attention_leaves_the_other_initial_weights_alike(name):
    networks = []
    for attention in ("none", "efficient", "lambda"):
        torch.manual_seed(3)
        config = NetworkConfig(name, 32, attention=AttentionConfig(attention))
        networks.append(build_network(config).state_dict())
        networks[-1] |= {"the next draw": torch.rand(3)}
    none, *others = networks
    for other in others:
        assert all(torch.equal(none[key], other[key]) for key in none)
        fresh = [t for key, t in other.items() if ".attention_" in key and t.dim() > 1]
        assert any(t.std() > 0 for t in fresh)


def test_attention_is_the_identity_at_step_0():
    config = NetworkConfig("ea_psmnet", 32)
    network = build_network(config).eval()
    volume = torch.randn(1, 32, 8, 4, 4)
    assert torch.equal(network.aggregation.attention_quarter(volume), volume)


@pytest.mark.parametrize("size", [(16, 16), (16, 272), (64, 48)])
@pytest.mark.parametrize("name", ["ea_psmnet", "ea_stereo_fast"])
def test_networks_take_any_multiple_of_16(name, size):
    network = build_network(NetworkConfig(name, 48)).eval()
    with torch.inference_mode():
        disparity = network(torch.randn(2, 3, *size), torch.randn(2, 3, *size))
    assert disparity.shape == (2, *size)
    assert disparity.isfinite().all()


@pytest.mark.parametrize("name", ["ea_psmnet", "ea_stereo_fast"])
def test_one_pair_of_a_batch_does_not_touch_another(name):
    torch.manual_seed(0)
    network = build_network(NetworkConfig(name, 32)).double().eval()
    left, right = torch.randn(2, 3, 3, 32, 48, dtype=torch.float64)
    with torch.inference_mode():
        together = network(left, right)
        alone = torch.cat([network(left[i : i + 1], right[i : i + 1]) for i in range(3)])
    assert (together - alone).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("name", "wrong", "says"),
    [
        ("psmnet", {"name": "psmnt"}, "psmnt"),
        ("psmnet", {"max_disparity": 200}, "200"),
        ("psmnet", {"upsampling": "bilinear"}, "bilinear"),
        ("psmnet", {"padding": "reflect"}, "reflect"),
        ("psmnet", {"attention": {"name": "efficient"}}, "attention"),
        ("ea_stereo_fast", {"attention": {"sites": ["quarter"]}}, "quarter"),
        ("ea_psmnet", {"attention": {"name": "nothing"}}, "nothing"),
        ("ea_psmnet", {"attention": {"name": "none", "options": {"heads": 2}}}, "options"),
        ("ea_psmnet", {"attention": {"sites": ["half"]}}, "half"),
        ("ea_psmnet", {"attention": {"sites": []}}, "sites"),
        ("ea_psmnet", {"attention": {"sites": ["eighth", "eighth"]}}, "eighth"),
    ],
)
def test_impossible_configurations_are_refused(name, wrong, says):
    right = NetworkConfig(name).to_dict()
    assert NetworkConfig.from_dict(right) == NetworkConfig(name)
    with pytest.raises(UsageError, match=says):
        NetworkConfig.from_dict(right | wrong)


@pytest.mark.parametrize("options", [{"heads": 5}, {"hads": 2}])
def test_impossible_attention_options_are_refused(options):
    config = NetworkConfig("ea_psmnet", attention=AttentionConfig(options=options))
    with pytest.raises(UsageError, match="efficient"):
        build_network(config)


@pytest.mark.parametrize("name", ["ea_psmnet", "ea_stereo_fast"])
def test_attention_can_be_removed_for_comparison(name):
    torch.manual_seed(0)
    with_it = build_network(NetworkConfig(name, 32)).eval()
    config = NetworkConfig(name, 32, attention=AttentionConfig("none"))
    without = build_network(NetworkConfig.from_dict(config.to_dict())).eval()
    names = with_it.state_dict().keys() - without.state_dict().keys()
    assert names
    assert all("attention" in n for n in names)
    without.load_state_dict({n: t for n, t in with_it.state_dict().items() if n not in names})
    views = torch.randn(2, 1, 3, 32, 48)
    with torch.inference_mode():  # the reprojection starts at zero
        assert torch.equal(with_it(*views), without(*views))


@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(NetworkConfig)])
def test_a_description_that_lacks_a_field_is_refused(field):
    stored = NetworkConfig("ea_psmnet", 64).to_dict()
    del stored[field]
    with pytest.raises(UsageError, match=f"lacks '{field}'"):
        NetworkConfig.from_dict(stored)


def test_configuration_survives_plain_data():
    config = NetworkConfig("ea_psmnet", 64, attention=AttentionConfig(sites=("eighth",)))
    assert NetworkConfig.from_dict(config.to_dict()) == config
    assert dataclasses.replace(config, max_disparity=32).max_disparity == 32


@pytest.mark.parametrize("name", ["psmnet", "ea_stereo"])
@pytest.mark.parametrize(
    "shape", [(1, 3, 24, 32), (1, 3, 32, 24), (3, 32, 32), (1, 1, 32, 32), (0, 3, 32, 32)]
)
def test_views_that_do_not_fit_are_refused_by_the_network(name, shape):
    network = build_network(NetworkConfig(name, 32))
    with pytest.raises(ValueError, match="multiples of 16"):
        network(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_attention_trains_saves_and_loads_at_every_site(name, tmp_path):
    attention = AttentionConfig(name, SITES, {"zero_init": False, "heads": 2})
    config = NetworkConfig("ea_psmnet", 32, attention=attention)
    torch.manual_seed(0)
    network = build_network(config).train()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0  # else products of unnormalised keys and values overflow
    left, right = torch.randn(2, 2, 3, 32, 48)
    modules = [m for n, m in network.named_modules() if n.rpartition("attention_")[2] in SITES]
    assert [type(m) for m in modules] == [ATTENTIONS[name]] * 3
    optimizer = torch.optim.Adam(network.parameters())
    sum(p.mean() for p in network(left, right).disparities).backward()
    optimizer.step()
    assert all(m.reprojection.weight.grad.any() for m in modules)
    save_checkpoint(tmp_path / "it.safetensors", Checkpoint(config, network.state_dict()))
    loaded = restore_network(load_checkpoint(tmp_path / "it.safetensors"), "it").eval()
    with torch.inference_mode():
        maps = loaded(left, right), network.eval()(left, right)
    torch.testing.assert_close(*maps, rtol=0, atol=0)
    assert maps[0].isfinite().all()


@pytest.mark.parametrize(
    ("name", "site"),
    [(name, site) for name in ("ea_psmnet", "ea_stereo_fast") for site in SITES_OF[name]],
)
def test_invalid_cells_can_be_masked_as_keys(name, site):
    seen = []
    attention = AttentionConfig("efficient", (site,), mask_invalid=True)
    network = build_network(NetworkConfig(name, 64, attention=attention)).eval()
    module = next(m for n, m in network.named_modules() if n.endswith(f"attention_{site}"))
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    with torch.inference_mode():
        network(*torch.randn(2, 1, 3, 32, 64))
    (mask,) = seen
    d, x = torch.meshgrid(*map(torch.arange, mask.shape[2:5:2]), indexing="ij")
    assert torch.equal(mask[0, 0], (x >= d)[:, None].expand(mask.shape[2:]))


@pytest.mark.parametrize("name", ["psmnet_basic", "ea_stereo_fast"])
def test_another_range_than_a_networks_own_can_be_searched(name):
    network = build_network(NetworkConfig(name, 64)).eval()
    with torch.inference_mode():
        views = [network.extract(view) for view in torch.randn(2, 1, 3, 32, 64)]
        asked, own = network.estimate(*views, 32), network.estimate(*views)
        network.max_disparity = 32
        assert torch.equal(asked, network.estimate(*views))
    assert asked[:, 0].max() <= 32
    assert not torch.equal(asked, own)


@pytest.mark.parametrize(("plane", "pixels"), [(7, 28), (7.5, 30), (8, 32), (10, 32)])
def test_a_psmnets_map_reaches_the_end_of_its_range(plane, pixels):
    def certain(left, right, planes):
        logits = -99 * (torch.arange(planes) - plane).abs()
        return [logits.view(1, -1, 1, 1).expand(1, -1, 8, 16)]

    network = build_network(NetworkConfig("psmnet_basic", 32)).eval()
    network.aggregation.forward = certain
    found = network(*torch.randn(2, 1, 3, 32, 64))
    assert (found - pixels).abs().max() < 0.1


def test_the_certainty_of_a_psmnet_lies_where_its_map_does():
    config = NetworkConfig("psmnet_basic", 32, upsampling="align_corners")
    network = build_network(config).eval()
    with torch.inference_mode():
        (left,), (right,) = (network.extract(view) for view in torch.randn(2, 1, 3, 32, 64))
        network.aggregation.head.project.weight /= network.aggregation(left, right, 8)[0].std()
        (logits,) = network.aggregation(left, right, 8)
        found = network.estimate((left,), (right,))
    assert torch.equal(found, with_certainty(found[:, 0], logits, "align_corners"))
    assert found[:, 1].std() > 0.01


def test_a_copy_of_a_checkpoint_keeps_all_that_is_known(tmp_path):
    config = NetworkConfig("psmnet_basic", 32)
    known = {"training": {"step": 3}, "version": "0.0.1", "confidence": {"cues": []}}
    path = tmp_path / "it.safetensors"
    save_checkpoint(path, Checkpoint(config, build_network(config).state_dict(), **known))
    read = load_checkpoint(path)
    assert {name: getattr(read, name) for name in known} == known


def test_certainty_is_least_of_a_uniform_distribution_and_1_of_one_plane():
    logits = torch.zeros(1, 8, 1, 3)
    logits[:, 4, :, 1] = 99.0
    logits[:, ::4, :, 2] = 99.0
    about, order = certainty(logits)[0, :, 0]
    assert about.tolist() == pytest.approx([2 / 8, 1, 1 / 2])
    assert order.tolist() == pytest.approx([0, 1, 2 / 3], abs=1e-6)  # of 3 bits


@pytest.mark.parametrize("upsampling", ["unbiased", "align_corners", "half_pixel"])
def test_certainty_lies_where_the_map_does(upsampling):
    logits = torch.zeros(1, 8, 3, 16)
    logits[:, 2, :, 8] = 9.0
    at = sample_positions(16, upsampling)
    estimate = with_certainty(regress_reference(logits, upsampling), logits, upsampling)
    expected = np.interp(at, np.arange(16), certainty(logits)[0, 0, 0])
    assert np.abs(estimate[0, 1, 0].numpy() - expected).max() < 1e-6
