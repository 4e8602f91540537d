"""Matching in tiles gives the map of the whole."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import REPOSITORY

import stereo
from stereo.attention import ATTENTIONS
from stereo.attention.volume import tile_hook
from stereo.data.sets.datasets import open_dataset
from stereo.matching.tiles import SEAM, match_in_tiles, spans
from stereo.models import AttentionConfig, NetworkConfig, build_network


@pytest.mark.parametrize("grid", [16, 32])
@pytest.mark.parametrize("size", [16, 48, 96, 160, 176, 320])
@pytest.mark.parametrize("max_tile", [16, 48, 64, 400])
def test_spans_cover_an_axis_once_and_weights_sum_to_one(size, max_tile, grid):
    found = spans(size, max_tile, context=32, reach=48, grid=grid)
    assert [s.first for s in found] == [0, *(s.last for s in found[:-1])]
    assert found[-1].last == size
    total = torch.zeros(size)
    for span in found:
        assert 0 < span.last - span.first <= max(max_tile, grid) + grid
        assert span.outer_first % grid == span.first % grid == 0
        assert span.first - 80 - grid < span.outer_first <= max(span.first - 80, 0)
        assert span.outer_last == min(span.last + 32, size)
        total[span.outer_first : span.outer_last] += span.ramp(size)
    assert (total > 0.99).all()
    if min(span.last - span.first for span in found) >= SEAM:
        assert torch.allclose(total, torch.ones(size))


class Plain(torch.nn.Module):
    """A network whose features are the views, and whose map the function gives."""

    feature_factors, coarsest_factor, max_disparity = (1,), 16, 48

    def __init__(self, give):
        super().__init__()
        self.give = give

    def extract(self, view):
        return (view,)

    def estimate(self, left, right, max_disparity):
        found = torch.zeros(len(left[0]), 3, *left[0].shape[2:])
        found[:, 0] = self.give(left[0][:, 0], right[0][:, 0], max_disparity)
        return found


def test_a_tile_sees_as_far_to_the_left_as_its_matches_lie():
    def search(left, right, reach):
        found = torch.zeros_like(left)
        for d in range(reach):
            found[..., d:][left[..., d:] == right[..., : right.shape[-1] - d]] = d
        return found

    right = torch.arange(192.0).expand(1, 3, 32, 192)
    disparity = match_in_tiles(Plain(search), right - 44, right, (32, 32), 16)[:, 0]
    assert (disparity[..., 44:] == 44).all()
    assert not disparity[..., :44].any()


@pytest.mark.parametrize("axis", [2, 3])
def test_tiles_blend_into_each_other_over_a_seam(axis):
    places = torch.arange(192.0).view(1, 1, *((-1, 1) if axis == 2 else (1, -1)))
    views = places.expand(1, 3, 192, 192)
    ends = Plain(lambda left, right, reach: left.amax())  # of each tile, with its context
    found = match_in_tiles(ends, views, views, (64, 64), 48)[0, 0].movedim(axis - 2, 0)
    half = SEAM // 2
    for value, inside in (
        (64 + 47, slice(0, 64 - half)),
        (128 + 47, slice(64 + half, 128 - half)),
        (191, slice(128 + half, 192)),
    ):
        assert torch.allclose(found[inside], torch.tensor(float(value)))
    assert found.diff(dim=0).abs().max() < 1.1 * 64 / SEAM


def network_of(network, **attention):
    torch.manual_seed(0)
    options = {}
    if network.startswith("ea"):
        attention.setdefault("options", {"zero_init": False})
        options["attention"] = AttentionConfig(**attention)
    return build_network(NetworkConfig(network, 32, **options)).double().eval()


@pytest.mark.parametrize("name", ["psmnet", "ea_psmnet", "ea_stereo_fast", "ea_stereo"])
def test_one_tile_is_the_whole(name):
    network = network_of(name)
    views = torch.randn(2, 1, 3, 48, 80, dtype=torch.float64)
    with torch.inference_mode():
        expected = network.estimate(*map(network.extract, views))
        assert torch.equal(expected[:, 0].double(), network(*views).float().double())
        assert (match_in_tiles(network, *views, (48, 80), 16) - expected).abs().max() < 1e-5
        after = network.estimate(*map(network.extract, views))
        assert torch.equal(after, expected)  # no state of the tiles is left


def test_attention_accumulates_over_all_tiles():
    # With the attention at the entry, whose convolutions see few cells, its context is exact.
    network = network_of("ea_psmnet", sites=("quarter",), mask_invalid=True)
    views = torch.randn(2, 1, 3, 64, 144, dtype=torch.float64)
    seen = []
    apply_context = type(network.aggregation.attention_quarter).apply_context

    def note(self, volume, state):
        seen.append(state)
        return apply_context(self, volume, state)

    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(network.aggregation.attention_quarter), "apply_context", note)
        network(*views)
        match_in_tiles(network, *views, (32, 48), 32)
    whole, *parts = seen
    assert len(parts) == 2 * 3
    for part in parts:
        mean = part.volume / part.total.transpose(1, 2)
        assert torch.allclose(mean, whole.volume / whole.total.transpose(1, 2), atol=1e-9)


@pytest.mark.parametrize("sites", [("sixteenth",), ("eighth", "sixteenth")])
def test_every_site_accumulates_in_turn(sites):
    network = network_of("ea_stereo_fast", sites=sites)
    views = torch.randn(2, 1, 3, 64, 144, dtype=torch.float64)
    found = match_in_tiles(network, *views, (32, 64), 32)
    assert found.shape == (1, 3, 64, 144)
    assert found.isfinite().all()


def test_members_that_do_not_stream_attend_within_their_tile():
    name = next(name for name, member in ATTENTIONS.items() if not member.streams)
    network = network_of("ea_stereo_fast", name=name, options={"zero_init": False})
    views = torch.randn(2, 1, 3, 32, 96, dtype=torch.float64)
    assert match_in_tiles(network, *views, (32, 48), 16).isfinite().all()


def test_tiles_are_forgotten_after_an_error():
    network = network_of("ea_stereo_fast")
    views = torch.randn(2, 1, 3, 32, 96, dtype=torch.float64)
    network.refinement = None
    with pytest.raises(TypeError):
        match_in_tiles(network, *views, (32, 48), 16)
    assert tile_hook.get() is None


@pytest.mark.parametrize("name", ["ea_psmnet", "ea_stereo_fast"])
def test_a_thread_that_matches_whole_is_not_disturbed_by_one_that_matches_in_tiles(
    name, monkeypatch
):
    network = network_of(name)
    views = torch.randn(2, 1, 3, 32, 96, dtype=torch.float64)
    estimate, found = network.estimate, []

    @torch.inference_mode()
    def whole():
        return estimate(*map(network.extract, views))

    def beside(*arguments):
        with ThreadPoolExecutor(1) as thread:
            found.append(thread.submit(whole).result())
        return estimate(*arguments)

    expected = whole()
    monkeypatch.setattr(network, "estimate", beside)
    match_in_tiles(network, *views, (32, 48), 16)
    assert len(found) >= 4
    assert all(torch.equal(each, expected) for each in found)


@pytest.mark.slow
def test_tiles_of_a_trained_network_give_the_map_of_the_whole():
    matcher = stereo.load(precision="fp32")
    sample = open_dataset("sceneflow", REPOSITORY / "datasets/samples").samples[0].read()
    left, right = np.tile(sample.left, (1, 2, 1)), np.tile(sample.right, (1, 2, 1))
    tiled = stereo.load(precision="fp32", tile="128")
    whole = matcher(left, right).disparity
    away = np.abs(tiled(left, right).disparity - whole)
    assert away.max() > 0  # it was tiled indeed
    assert np.mean(away < 0.1) > 0.99
