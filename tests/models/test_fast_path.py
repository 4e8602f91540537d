"""The fast path gives what the plain networks give."""

import copy

import pytest
import torch
from conftest import slow_but

from stereo.attention import ATTENTIONS
from stereo.matching.engine import optimize_for_inference
from stereo.models import NETWORK_NAMES, AttentionConfig, NetworkConfig, build_network
from stereo.models.config import EA_STEREOS
from stereo.models.folding import fold_batch_norms
from stereo.models.recompute import set_recompute

# EA-PSMNet holds all of PSMNet.
NETWORKS = slow_but("ea_psmnet", "ea_stereo_fast", of=NETWORK_NAMES)
STREAMING = sorted(name for name, member in ATTENTIONS.items() if member.streams)
STREAMED = [*((name, {}) for name in STREAMING), ("efficient", {"temperature": True})]


def trained_like(name, **options):
    """Return a network whose batch norms have seen data and whose attention does something."""
    torch.manual_seed(0)
    if name.startswith("ea"):
        options["attention"] = AttentionConfig(options={"zero_init": False, "heads": 2})
    network = build_network(NetworkConfig(name, 32, **options)).double().train()
    with torch.no_grad():
        for _ in range(2):
            network(*torch.randn(2, 2, 3, 32, 48, dtype=torch.float64))
    return network.eval()


@pytest.mark.parametrize("upsampling", ["unbiased", "half_pixel", "align_corners"])
@pytest.mark.parametrize("name", NETWORKS)
def test_folded_networks_give_the_map_of_plain_ones(name, upsampling):
    if name in EA_STEREOS and upsampling != "unbiased":
        pytest.skip("it knows one convention")
    network = trained_like(name, upsampling=upsampling)
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if hasattr(module, "plain"):
            module.plain = True
    optimize_for_inference(network)
    views = torch.randn(2, 1, 3, 32, 80, dtype=torch.float64)
    expected = plain(*views).detach()
    assert expected.std() > 0.05
    with torch.inference_mode():
        assert (network(*views) - expected).abs().max() < 1e-9
    assert not any("norm" in key for key in network.state_dict())


@pytest.mark.parametrize("name", NETWORKS)
def test_plain_and_fast_training_have_the_same_gradients(name):
    gradients = []
    for plain in (False, True):
        network = trained_like(name).train()
        for module in network.modules():
            if hasattr(module, "plain"):
                module.plain = plain
        torch.manual_seed(1)
        outputs = network(*torch.randn(2, 2, 3, 32, 48, dtype=torch.float64)).disparities
        sum((each * torch.randn_like(each)).sum() for each in outputs).backward()
        gradients.append({n: p.grad for n, p in network.named_parameters()})
    for key, gradient in gradients[0].items():
        largest = gradient.abs().max()
        assert (gradient - gradients[1][key]).abs().max() <= 1e-8 * largest + 1e-10, key


@pytest.mark.parametrize("name", NETWORKS)
def test_activations_computed_again_give_the_same_gradients_and_statistics(name):
    seen = []
    for recompute in (False, True):
        network = trained_like(name).train()
        set_recompute(network, recompute)
        torch.manual_seed(1)
        outputs = network(*torch.randn(2, 2, 3, 32, 48, dtype=torch.float64)).disparities
        sum((each * torch.randn_like(each)).sum() for each in outputs).backward()
        gradients = {n: p.grad for n, p in network.named_parameters()}
        seen.append(gradients | dict(network.named_buffers()))
    assert seen[0].keys() == seen[1].keys()
    for key, value in seen[0].items():
        assert torch.allclose(value, seen[1][key], rtol=1e-9, atol=1e-12), key


@pytest.mark.slow
def test_activations_computed_again_take_less_memory():
    """Counted, not measured: what is resident turns on what the process freed before."""
    network = build_network(NetworkConfig("psmnet", 64)).train()
    views = torch.randn(2, 2, 3, 128, 256)

    def saved_bytes():
        storages = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = network(*views).disparities
        assert all(each.requires_grad for each in outputs)
        return sum(storages.values())

    kept = saved_bytes()
    set_recompute(network)
    assert saved_bytes() < 0.7 * kept


def test_folding_is_refused_in_training_and_happens_once():
    network = trained_like("psmnet_basic")
    with pytest.raises(ValueError, match="evaluation"):
        fold_batch_norms(network.train())
    fold_batch_norms(network.eval())
    before = copy.deepcopy(network.state_dict())
    fold_batch_norms(network)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_the_streaming_members_are_known():
    assert {"efficient"} <= set(STREAMING)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("name", "options"), STREAMED)
def test_streamed_attention_equals_the_whole(name, options, heads, layout):
    torch.manual_seed(0)
    module = ATTENTIONS[name](8, heads=heads, zero_init=False, **options).double()
    volume = 9 * torch.randn(3, 8, 4, 5, 6, dtype=torch.float64)
    volume = volume.contiguous(memory_format=layout)
    mask = torch.rand(3, 1, 4, 5, 6) > 0.6
    mask[1], mask[2, :, :2] = False, False
    for cells in (None, mask):
        expected = module(volume, cells).detach()
        with torch.no_grad():
            found = module(volume, cells)
        assert found.is_contiguous(memory_format=layout)
        assert (found - expected).abs().max() < 1e-12


@pytest.mark.parametrize("name", STREAMING)
def test_streamed_attention_ignores_masked_cells(name):
    torch.manual_seed(0)
    module = ATTENTIONS[name](8, zero_init=False)
    volume, mask = torch.randn(1, 8, 3, 4, 5), torch.ones(1, 1, 3, 4, 5).bool()
    mask[:, :, 1, 2] = False
    with torch.no_grad():
        expected = module(volume, mask)
        volume[:, :, 1, 2] = torch.inf
        found = module(volume, mask)
    kept = mask.expand_as(found)
    assert torch.equal(found[kept], expected[kept])


@pytest.mark.parametrize("name", STREAMING)
def test_streamed_attention_survives_logits_of_any_size(name):
    torch.manual_seed(0)
    module = ATTENTIONS[name](8, zero_init=False)
    with torch.no_grad():
        for scale in (1e-4, 1.0, 1e4):
            volume = scale * torch.randn(1, 8, 5, 4, 5)
            assert module(volume).isfinite().all()
