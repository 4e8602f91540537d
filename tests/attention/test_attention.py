"""The attention family: every member of the dict is held to its own definition.

All tests run with a random reprojection (``zero_init=False``), so that a module that does nothing
fails.
"""

import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.utils.checkpoint import checkpoint

from stereo.attention import ATTENTIONS
from stereo.attention.reference import weighted_average
from stereo.attention.volume import (
    VolumeAttention,
    clip_window,
    from_windows,
    to_tokens,
    to_windows,
)

SIZE = (3, 4, 5)
# Small windows, chunks and grids, so that the small volumes here have several of them.
SMALL = {
    "window": {"window": (2, 3, 2)},
    "local_global": {"window": (2, 3, 2)},
    "reformer": {"chunk": 8, "rounds": 3},
    "linformer": {"grid": (2, 2, 3), "projected": 7},
    "perceiver": {"latents": 5},
    "dot_product": {"kind": "embedded_gaussian"},
}
SUM_TO_ONE = {
    *("efficient", "dot_product", "linear", "performer", "reformer", "window", "disparity"),
    *("factorized", "taylor", "perceiver"),
}
WITHOUT_POSITION = {
    *("efficient", "efficient_scaling", "factorized", "dot_product", "linear", "taylor"),
    *("performer", "aft_simple", "perceiver"),
}
NOT_LINEAR = {"dot_product", "reformer", "disparity"}
# Members whose output moves everywhere when one cell changes; others are held to their definition.
GLOBAL = set(ATTENTIONS) & {
    *WITHOUT_POSITION,
    *("focused", "linformer", "aft_conv", "local_global", "lambda"),
}
VARIANTS = [
    *((name, {}) for name in ATTENTIONS),
    ("efficient", {"temperature": True}),
    ("factorized", {"normalization": "scaling"}),
    ("dot_product", {"kind": "scaled"}),
    ("dot_product", {"pool": (1, 2, 2)}),
    ("window", {"shift": False}),
    ("focused", {"power": 4.0, "kernel": 5}),
    ("aft_conv", {"kernel": 5}),
    ("lambda", {"kernel": 5}),
]
all_members = pytest.mark.parametrize("name", ATTENTIONS)
all_variants = pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=lambda v: v if isinstance(v, str) else "-".join(v)
)


def build(name, options=None, channels=8, heads=2, dtype=torch.float64, **more):
    torch.manual_seed(7)
    options = {**SMALL.get(name, {}), **(options or {}), **more}
    module = ATTENTIONS[name](
        channels, key_channels=4, value_channels=8, heads=heads, zero_init=False, **options
    )
    return module.to(dtype).eval()


def volume_of(size=SIZE, batch=2, channels=8, dtype=torch.float64, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    volume = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
    return (scale * volume).to(dtype)


def random_mask(size=SIZE, batch=2, share=0.6):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(batch, 1, *size, generator=generator) < share


def explicit(module, volume, mask=None):
    """The same module through its definition."""
    implementation, module.attend = module.attend, module.attend_explicitly
    try:
        return module(volume, mask)
    finally:
        module.attend = implementation


@all_variants
@pytest.mark.parametrize("heads", [1, 2])
def test_member_equals_its_definition_in_value_and_gradient(name, options, heads):
    if name == "local_global" and heads == 1:
        pytest.skip("needs a local and a global head")
    module = build(name, options, heads=heads)
    for mask in (None, random_mask()):
        outputs, gradients = [], []
        for run in (module, lambda *a: explicit(module, *a)):
            volume = volume_of().requires_grad_()
            module.zero_grad()
            output = run(volume, mask)
            (output * volume_of(seed=5)).sum().backward()
            outputs.append(output.detach())
            gradients.append([volume.grad, *(p.grad for p in module.parameters())])
        assert (outputs[0] - outputs[1]).abs().max() < 1e-10
        for one, other in zip(*gradients, strict=True):
            assert one is not None
            assert (one - other).abs().max() < 1e-10


@all_members
def test_gradcheck(name):
    module = build(name)
    volume = volume_of((2, 3, 2), batch=1).requires_grad_()
    parameters = list(module.parameters())
    assert gradcheck(lambda *_: module(volume), (volume, *parameters), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, options) for name, options in VARIANTS if options),
        ("window", {"window": (3, 2, 2)}),
        ("local_global", {"window": (3, 2, 2)}),
        ("local_global", {"local_heads": 3}),
        ("reformer", {"chunk": 16}),
        ("reformer", {"rounds": 2}),
        ("reformer", {"seed": 1}),
        ("linformer", {"grid": (2, 2, 2)}),
        ("linformer", {"projected": 6}),
        ("perceiver", {"latents": 4}),
        ("performer", {"features": 5}),
    ],
    ids=str,
)
def test_every_option_counts(name, options):
    volume = volume_of()
    heads = 4 if "local_heads" in options else 2
    plain, other = (build(name, each, heads=heads)(volume) for each in ({}, options))
    assert (plain - other).abs().max() > 1e-6


@all_members
def test_module_changes_its_input_and_starts_as_the_identity_by_default(name):
    volume = volume_of()
    assert (build(name)(volume) - volume).abs().max() > 1e-2
    torch.manual_seed(0)
    heads = {"heads": 2} if name == "local_global" else {}
    module = ATTENTIONS[name](8, **heads).double()
    assert torch.equal(module(volume), volume)


@all_variants
def test_constant_values_come_back_constant(name, options):
    module = build(name, options)
    if name == "focused":  # before its depthwise term
        torch.nn.init.zeros_(module.depthwise.weight)
        torch.nn.init.zeros_(module.depthwise.bias)
    queries, keys, values = module.project(volume_of())
    constant = torch.linspace(-2, 3, values.shape[3], dtype=values.dtype).expand_as(values)
    if name == "reformer":
        keys = queries
    attended = module.attend(queries, keys, constant, None, SIZE)
    is_constant = (attended - constant).abs().max() < 1e-10
    assert is_constant == (module.weights_sum_to_one or name == "focused")


def test_class_attributes_match_the_expected_properties():
    known = GLOBAL | NOT_LINEAR | {"window"}
    assert len(known) == 17
    built = {name: build(name) for name in known}
    assert {n for n, m in built.items() if m.weights_sum_to_one} == SUM_TO_ONE
    assert {n for n, m in built.items() if m.permutation_equivariant} == WITHOUT_POSITION
    assert {n for n, m in built.items() if not m.linear_cost} == NOT_LINEAR


@all_variants
def test_permuting_positions_permutes_the_output(name, options):
    module = build(name, options)
    volume = volume_of()
    order = torch.randperm(math.prod(SIZE), generator=torch.Generator().manual_seed(1))
    permuted = volume.flatten(2)[..., order].unflatten(2, SIZE)
    expected = module(volume).flatten(2)[..., order].unflatten(2, SIZE)
    equal = (module(permuted) - expected).abs().max() < 1e-10
    assert equal == (module.permutation_equivariant and "pool" not in options)


def moved_by(module, cell, run=None):
    """Positions whose output moves when one cell changes, (D, H, W) bool."""
    volume = volume_of(batch=1)
    changed, (d, y, x) = volume.clone(), cell
    changed[..., d, y, x] += volume_of(batch=1, seed=9, scale=20.0)[..., 0, 0, 0]
    run = run or module
    return (run(changed) - run(volume)).abs().amax(dim=(0, 1)) > 1e-12


@all_members
@pytest.mark.parametrize("cell", [(0, 0, 0), (1, 2, 3), (2, 3, 4)])
def test_a_change_in_one_cell_affects_the_right_positions(name, cell):
    # Sharpened to the third power, weights of 1e-18 would not show.
    module = build(name, {"power": 1.0} if name == "focused" else {})
    moved = moved_by(module, cell)
    assert torch.equal(moved, moved_by(module, cell, lambda v: explicit(module, v)))
    expected = torch.zeros(SIZE, dtype=torch.bool)
    if name == "disparity":
        expected[:, cell[1], cell[2]] = True
    elif name == "window":
        for other in itertools.product(*map(range, SIZE)):
            expected[other] = window_of(other) == window_of(cell)
    elif name in GLOBAL:
        expected[:] = True
    else:  # which ones depends on the hashes, or on a member to come
        assert moved.sum() > 1
        return
    assert torch.equal(moved, expected)


def window_of(cell):
    """Shifted windows of 2x3x2 in 3x4x5: cuts before 1; 1 and 4; 1 and 3, and so on."""
    return tuple((x + w - w // 2) // w for x, w in zip(cell, (2, 3, 2), strict=True))


def test_the_axis_test_catches_attention_across_heads():
    """The defect of FoundationStereo's disparity attention: heads where positions belong."""

    class Defective(ATTENTIONS["disparity"]):
        def attend(self, queries, keys, values, key_mask, size):
            swapped = (t.transpose(1, 2) for t in (queries, keys, values))
            return torch.nn.functional.scaled_dot_product_attention(*swapped).transpose(1, 2)

    torch.manual_seed(0)
    module = Defective(8, heads=2, zero_init=False).double()
    assert moved_by(module, (1, 2, 3)).sum() == 1


@pytest.mark.parametrize("wrong", ["float", "no channel", "size"])
def test_masks_of_another_shape_or_type_are_refused(wrong):
    mask = random_mask()
    mask = {"float": mask.float(), "no channel": mask[:, 0], "size": mask[..., 1:]}[wrong]
    with pytest.raises(ValueError, match="must be bool"):
        build("efficient")(volume_of(), mask)


@all_variants
def test_contents_of_masked_cells_do_not_matter(name, options):
    module = build(name, options)
    mask, volume = random_mask(), volume_of()
    other = torch.where(mask, volume, volume_of(seed=8, scale=50.0))
    difference = (module(volume, mask) - module(other, mask)) * mask
    assert difference.abs().max() < 1e-10


@all_variants
def test_a_mask_equals_removing_the_cells(name, options):
    module = build(name, options)
    if not module.mask_equals_removal or "pool" in options:
        pytest.skip("deletion is not defined")
    size = (5, 6, 5)
    volume = volume_of(size)
    for axis, keep in ((2, 4), (3, 5), (4, 3)):
        cut = volume.narrow(axis, 0, keep)
        mask = torch.zeros(2, 1, *size, dtype=torch.bool)
        mask.narrow(axis, 0, keep).fill_(True)
        masked = module(volume, mask).narrow(axis, 0, keep)
        assert (masked - module(cut)).abs().max() < 1e-10, axis


@pytest.mark.parametrize("name", sorted(WITHOUT_POSITION))
def test_without_position_any_cells_can_be_removed(name):
    module = build(name)
    volume, mask = volume_of(batch=1), random_mask(batch=1)
    kept = volume[:, :, mask[0, 0]][..., None, None]
    masked = module(volume, mask)[:, :, mask[0, 0]][..., None, None]
    assert (masked - module(kept)).abs().max() < 1e-10


@all_members
def test_without_any_key_the_attended_value_is_zero_and_gradients_are_finite(name):
    module = build(name)
    mask = torch.zeros(2, 1, *SIZE, dtype=torch.bool)
    mask[1] = True  # only the first volume has no key at all
    queries, keys, values = module.project(volume_of().requires_grad_())
    attended = module.attend(queries, keys, values, to_tokens(mask, 1), SIZE)
    if name == "focused":
        attended = attended - module.depthwise.bias
    if name != "linformer":  # its grid cells are then zero, and attended to
        assert attended[0].abs().max() < 1e-10
    volume = volume_of().requires_grad_()
    module(volume, mask).sum().backward()
    assert volume.grad.isfinite().all()


@all_members
@pytest.mark.parametrize("masked", [False, True])
def test_chunked_equals_unchunked_in_value_and_gradient(name, masked):
    results = []
    for limit in (2**24, 50):
        module = build(name)
        if not hasattr(module, "map_elements"):
            pytest.skip("nothing to chunk")
        module.map_elements = limit
        volume = volume_of().requires_grad_()
        output = module(volume, random_mask() if masked else None)
        output.square().sum().backward()
        results.append([output.detach(), volume.grad, *(p.grad for p in module.parameters())])
    for one, other in zip(*results, strict=True):
        assert (one - other).abs().max() < 1e-10


@all_variants
def test_sizes_change_between_calls(name, options):
    module = build(name, options)
    for size in [(3, 4, 5), (1, 1, 1), (6, 2, 3), (1, 7, 2), (3, 4, 5)]:
        volume = volume_of(size)
        assert (module(volume) - explicit(module, volume)).abs().max() < 1e-10
        assert module(volume).shape == volume.shape


# Relative to the largest output: eight bits of precision, on logits in the hundreds.
BF16_TOLERANCE = 0.05


@all_variants
def test_bf16_stays_close_with_large_inputs(name, options):
    volume = volume_of((4, 6, 8), scale=30.0, dtype=torch.float32)
    expected = build(name, options, dtype=torch.float64)(volume.double()) - volume
    module = build(name, options, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        got = module(volume).double() - volume
    assert got.isfinite().all()
    error = (got - expected).abs().mean() / expected.abs().max()
    assert error < BF16_TOLERANCE


@all_members
def test_state_survives_saving(name):
    first, second = build(name), build(name)
    for p in first.parameters():
        torch.nn.init.normal_(p)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(volume_of()), second(volume_of()))


@all_members
def test_every_member_documents_itself(name):
    module = __import__(ATTENTIONS[name].__module__, fromlist=["_"])
    assert "O(N" in module.__doc__, "cost"


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_must_divide_the_channels(heads):
    for name in ATTENTIONS:
        with pytest.raises(ValueError, match="heads"):
            ATTENTIONS[name](8, key_channels=4, value_channels=8, heads=heads)


def test_factorized_equals_efficient_and_its_scaling_divides_by_the_bases():
    efficient, factorized = build("efficient", heads=1), build("factorized", heads=1)
    factorized.load_state_dict(efficient.state_dict())
    assert torch.equal(efficient(volume_of()), factorized(volume_of()))
    scaled = build("factorized", {"normalization": "scaling"}, heads=1)
    c, b, v = scaled.project(volume_of())
    expected = c @ (b.transpose(2, 3) @ v) / 4
    assert (scaled.attend(c, b, v, None, SIZE) - expected).abs().max() < 1e-12


def test_efficient_scaling_is_the_dot_product_map_over_n():
    module = build("efficient_scaling")
    q, k, v = module.project(volume_of())
    expected = q @ k.transpose(2, 3) / math.prod(SIZE) @ v
    assert (module.attend(q, k, v, None, SIZE) - expected).abs().max() < 1e-12


def test_temperature_divides_both_logits_by_the_fourth_root_of_their_width():
    warm, plain = build("efficient", {"temperature": True}, heads=1), build("efficient", heads=1)
    for layer in (plain.queries, plain.keys):
        layer.weight.data /= 4**0.25
        layer.bias.data /= 4**0.25
    assert (warm(volume_of()) - plain(volume_of())).abs().max() < 1e-12


def test_explicit_dot_product_refuses_what_does_not_fit_and_states_the_bytes():
    module = build("dot_product", {"form": "explicit"}, heads=1, dtype=torch.float32)
    # 48x136x240 positions, a 544x960 image: 1,566,720 squared in four bytes.
    size = (48, 136, 240)
    tokens = torch.zeros(1).expand(1, 1, math.prod(size), 4)
    with pytest.raises(ValueError, match=r"9,818,446,233,600 bytes \(9,818\.4 GB\)"):
        module.attend(tokens, tokens, tokens, None, size)
    assert torch.equal(module(volume_of(dtype=torch.float32)).isfinite().all(), torch.tensor(True))


def test_performer_redraws_on_begin_step_by_its_seed():
    module = build("performer", redraw_every=2).train()
    first = module.projection.clone()
    module(volume_of())
    module.begin_step(1)
    assert torch.equal(module.projection, first)
    before = module(volume_of())
    module.begin_step(2)
    second = module.projection.clone()
    assert not torch.equal(second, first)
    (before + module(volume_of())).sum().backward()  # nothing was changed in place
    again = build("performer", redraw_every=2)
    again.begin_step(2)
    assert torch.equal(again.projection, second)
    assert not torch.equal(build("performer", seed=1).projection, first)


@all_members
def test_gradients_of_one_volume_are_those_of_two_alike(name):
    torch.manual_seed(0)
    module = ATTENTIONS[name](8, zero_init=False).double().eval()
    volume, slope = (volume_of(batch=1, size=(5, 6, 7), seed=seed) for seed in (1, 2))
    found = []
    for count in (1, 2):
        module.zero_grad()
        module(volume.repeat(count, 1, 1, 1, 1)).backward(slope.repeat(count, 1, 1, 1, 1) / count)
        found.append([parameter.grad for parameter in module.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


@all_members
def test_a_forward_pass_that_is_computed_again_gives_the_same_gradients(name):
    module = build(name).train()
    module.begin_step(3)
    results = []
    for again in (False, True):
        volume = volume_of().requires_grad_()
        module.zero_grad()
        output = checkpoint(module, volume, use_reentrant=False) if again else module(volume)
        output.square().sum().backward()
        results.append(volume.grad)
    assert (results[0] - results[1]).abs().max() < 1e-10


def test_performer_rows_are_orthogonal_within_a_block():
    module = ATTENTIONS["performer"](32, key_channels=8, features=20)
    gram = module.projection[:8] @ module.projection[:8].T
    assert (gram - gram.diag().diag()).abs().max() < 1e-4


def test_performer_approaches_softmax_attention():
    module = build("performer", features=20_000, heads=1)
    q, k, v = module.project(volume_of())
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert (module.attend(q, k, v, None, SIZE) - exact).abs().max() < 0.05 * exact.abs().max()
    assert (exact - v.mean(2, keepdim=True)).abs().max() > 0.2 * exact.abs().max()


# What follows is written from the papers' formulas, sharing nothing with the package: an oracle
# beside a module cannot see a mistake that both have.


@pytest.mark.parametrize(("kind", "scale"), [("scaled", 4**-0.5), ("embedded_gaussian", 1.0)])
def test_dot_product_by_its_formula(kind, scale):
    module = build("dot_product", {"kind": kind}, heads=1)
    q, k, v = module.project(volume_of())
    expected = torch.softmax(scale * q @ k.transpose(2, 3), dim=3) @ v
    assert (module.attend(q, k, v, None, SIZE) - expected).abs().max() < 1e-10


def test_pooling_leaves_masked_cells_out():
    module = build("dot_product", {"pool": (1, 2, 2)})
    volume, mask = volume_of((3, 4, 6)), torch.ones(2, 1, 3, 4, 6, dtype=torch.bool)
    mask[..., 1::2] = False
    doubled = volume[..., ::2].repeat_interleave(2, dim=4)
    difference = (module(volume, mask) - module(doubled)) * mask
    assert difference.abs().max() < 1e-10


def test_linear_and_taylor_by_their_formulas():
    for name in ("linear", "taylor"):
        module = build(name, heads=1)
        q, k, v = module.project(volume_of(batch=1))
        attended = module.attend(q, k, v, None, SIZE)[0, 0]
        q, k, v = q[0, 0], k[0, 0], v[0, 0]
        for i in (0, 17, 59):
            if name == "linear":
                phi = [torch.where(t > 0, t + 1, torch.exp(t)) for t in (q[i], k)]
                weights = phi[1] @ phi[0]
            else:
                weights = 1 + (k / k.norm(dim=1, keepdim=True)) @ (q[i] / q[i].norm())
            assert (attended[i] - weights @ v / weights.sum()).abs().max() < 1e-10


def test_taylor_stays_bounded_where_all_keys_oppose_a_query():
    """1 + q . k cancels to nothing there, and fp32 divided noise by noise."""
    torch.manual_seed(0)
    module = build("taylor", heads=1).float()
    keys = torch.randn(1, 1, 1, 8).expand(1, 1, 1024, 8)
    queries = (3e-4 * torch.randn(1, 1, 1024, 8) - keys).requires_grad_()
    mean = module.attend(queries, keys, torch.ones(1, 1, 1024, 1), None, (1, 32, 32))
    assert mean.abs().max() <= 1
    (gradient,) = torch.autograd.grad(mean.sum(), queries)
    assert gradient.abs().max() < 100


def test_focused_has_finite_gradients_beside_masked_cells_that_outweigh_all():
    module = build("focused", heads=1, power=12.0).float()
    tokens = torch.ones(1, 1, 60, 4)
    tokens[:, :, 1:, 0] = 0
    mask = torch.arange(60).view(1, 1, 60, 1) > 0
    keys = tokens.clone().requires_grad_()
    module.attend(tokens, keys, torch.ones(1, 1, 60, 8), mask, SIZE).sum().backward()
    assert keys.grad.isfinite().all()
    assert module.scale.grad.isfinite().all()


def test_linear_is_exact_far_below_0():
    module = build("linear").float()
    for logit in (-20.0, -60.0, -1e4):
        keys = torch.full((1, 1, 60, 4), logit, requires_grad=True)
        values = torch.arange(60.0)[None, None, :, None].expand(1, 1, 60, 4)
        mean = module.attend(keys, keys, values, None, SIZE)
        torch.testing.assert_close(mean, torch.full_like(mean, 29.5))
        assert torch.autograd.grad(mean.sum(), keys)[0].isfinite().all()
        masked = module.attend(keys, keys, values, torch.arange(60).view(1, 1, 60, 1) < 2, SIZE)
        torch.testing.assert_close(masked, torch.full_like(mean, 0.5))


@pytest.mark.parametrize("power", [3.0, 6.0])
@pytest.mark.parametrize("size", [1.0, 100.0])
def test_focused_is_exact_where_all_tokens_of_a_head_are_below_0(power, size):
    exact = build("focused", {"power": power}, heads=2)
    quick = build("focused", {"power": power}, heads=2).float()
    quick.load_state_dict(exact.state_dict())
    tokens = [size * volume_of((2, 60, width), batch=1, channels=1)[0] for width in (2, 2, 4)]
    tokens = [tokens[0], tokens[1].roll(1, 2), tokens[2]]
    for each in tokens[:2]:
        each[:, 0] = -each[:, 0].abs()
    found = [each.float().requires_grad_() for each in tokens]
    attended = quick.attend(*found, None, SIZE)
    assert (attended - exact.attend(*tokens, None, SIZE)).abs().max() < 1e-5 * size
    attended.sum().backward()
    assert all(each.grad.isfinite().all() for each in found)


@pytest.mark.parametrize("name", ["dot_product", "window", "disparity", "linformer"])
@pytest.mark.parametrize("key_channels", [4, 12])
def test_softmax_attention_holds_no_map(name, key_channels):
    """Its kernel is the fused one, which PyTorch takes only for contiguous tensors of one width."""
    module = ATTENTIONS[name](8, key_channels=key_channels, heads=1, **SMALL.get(name, {})).eval()
    with torch.inference_mode(), torch.profiler.profile() as profile:
        module(volume_of((8, 8, 16), dtype=torch.float32))
    names = {event.key for event in profile.key_averages()}
    assert any("scaled_dot_product_flash" in each for each in names)
    assert not any("scaled_dot_product_attention_math" in each for each in names)


def test_the_explicit_map_of_dot_product_is_no_half_precision_one():
    volume = 30 * volume_of(dtype=torch.float32)
    found = []
    for form in ("chunked", "explicit"):
        module = build("dot_product", kind="embedded_gaussian", form=form).float()
        with torch.autocast("cpu", torch.float16):
            found.append(module(volume).float())
    assert found[1].isfinite().all()
    assert (found[0] - found[1]).abs().max() < 0.01 * found[1].std()


def test_a_performer_begins_with_the_features_of_its_weights():
    trained = build("performer", redraw_every=2).train()
    trained.begin_step(4)
    again = build("performer", redraw_every=2).train()
    again.load_state_dict(trained.state_dict())
    again.begin_step(0)
    assert torch.equal(again.projection, trained.projection)


@pytest.mark.parametrize("power", [3.0, 4.0])
def test_focused_by_its_formula(power):
    module = build("focused", {"kernel": 3, "power": power})
    volume = volume_of(batch=1)
    q, k, v = (c(volume)[0].flatten(1).T for c in (module.queries, module.keys, module.values))
    scale = torch.nn.functional.softplus(module.scale).flatten()

    def phi(x):  # norms over all heads, before they are split
        x = (x.clamp(min=0) + 1e-6) / scale
        sharp = x**power
        return sharp / sharp.norm(dim=1, keepdim=True) * x.norm(dim=1, keepdim=True)

    attended = torch.empty_like(v)
    for head in range(2):
        some, values = slice(2 * head, 2 * head + 2), v[:, 4 * head : 4 * head + 4]
        weights = phi(q)[:, some] @ phi(k)[:, some].T
        local = module.depthwise(values.T.reshape(1, 4, *SIZE))[0].flatten(1).T
        attended[:, 4 * head : 4 * head + 4] = (
            weights @ values / weights.sum(1, keepdim=True) + local
        )
    expected = module.reprojection(attended.T.reshape(1, 8, *SIZE)) + volume
    assert (module(volume) - expected).abs().max() < 1e-10


def test_window_bias_is_by_relative_position():
    module = build("window", heads=1)
    torch.nn.init.normal_(module.bias)
    q, k, v = module.project(volume_of(batch=1))
    attended = module.attend(q, k, v, None, SIZE)[0, 0]
    cells_of = list(itertools.product(*map(range, SIZE)))
    for i in (0, 23, 59):
        same = [j for j in range(60) if window_of(cells_of[j]) == window_of(cells_of[i])]
        logits = []
        for j in same:
            steps = zip(cells_of[i], cells_of[j], (2, 3, 2), strict=True)
            bias = module.bias[(0, *(a - b + w - 1 for a, b, w in steps))]
            logits.append(q[0, 0, i] @ k[0, 0, j] / 2 + bias)
        logits = torch.stack(logits)
        assert (attended[i] - logits.softmax(0) @ v[0, 0, same]).abs().max() < 1e-10


def test_lambda_normalises_queries_and_values():
    module = build("lambda").train()
    queries, _, values = module.project(volume_of())
    for tokens in (queries, values):
        per_channel = tokens.transpose(1, 2).flatten(2).flatten(0, 1)
        assert per_channel.mean(0).abs().max() < 1e-6
        assert (per_channel.std(0, unbiased=False) - 1).abs().max() < 1e-3


@all_members
def test_softmax_and_products_run_in_float32_under_autocast(name):
    module = build(name, dtype=torch.float32)
    seen, attend = [], module.attend

    def spy(*arguments):
        with_autocast = torch.is_autocast_enabled("cpu")
        seen.append((arguments[0].dtype, with_autocast))
        return attend(*arguments)

    module.attend = spy
    with torch.autocast("cpu", torch.bfloat16):
        module(volume_of(dtype=torch.float32))
    # The exact softmax of `half_precision` members accumulates in float32 inside its kernel.
    assert seen == [(torch.bfloat16, True) if module.half_precision else (torch.float32, False)]


@all_members
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_modules_can_be_stored_in_half_precision(name, dtype):
    module = build(name, dtype=dtype)
    volume = volume_of(dtype=dtype)
    assert module(volume).dtype == dtype
    assert module(volume).isfinite().all()


@all_members
def test_infinite_contents_of_masked_cells_do_not_matter(name):
    module = build(name)
    mask, volume = random_mask(), volume_of()
    spoilt = torch.where(mask, volume, torch.inf)
    kept = mask.expand_as(volume)
    assert (module(volume, mask)[kept] - module(spoilt, mask)[kept]).abs().max() < 1e-10


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("efficient", {"heads": 0}),
        ("efficient", {"heads": 2.0}),
        ("efficient", {"key_channels": 0}),
        ("efficient", {"temperature": "no"}),
        ("efficient", {"zero_init": "no"}),
        ("window", {"window": [0, 3, 3]}),
        ("window", {"window": [4, 8]}),
        ("window", {"shift": 1}),
        ("local_global", {"window": [2, 2, 2, 9]}),
        ("local_global", {"heads": 1}),
        ("dot_product", {"pool": [1, 2]}),
        ("dot_product", {"map_elements": 0}),
        ("linformer", {"grid": [2, 2]}),
        ("linformer", {"projected": 0}),
        ("lambda", {"kernel": 2}),
        ("lambda", {"kernel": 0}),
        ("aft_conv", {"kernel": 4}),
        ("focused", {"kernel": 2}),
        ("focused", {"power": "3"}),
        ("focused", {"power": float("inf")}),
        ("local_global", {"heads": 4, "local_heads": 1.5}),
        ("reformer", {"seed": "x"}),
        ("reformer", {"seed": 2**62}),
        ("performer", {"seed": 0.5}),
        ("factorized", {"normalization": "scaling", "temperature": True}),
        ("reformer", {"chunk": 0}),
        ("reformer", {"rounds": 0}),
        ("perceiver", {"latents": 0}),
        ("performer", {"redraw_every": 0}),
        ("performer", {"features": -1}),
    ],
    ids=str,
)
def test_impossible_options_are_refused_when_built(name, options):
    with pytest.raises(ValueError, match=r"expected|divide|two heads|is for"):
        ATTENTIONS[name](8, **options)


def test_reformer_padding_does_not_change_the_result():
    """60 tokens in chunks of 8 leave the last chunk half empty."""
    module = build("reformer")
    volume = volume_of()
    _, keys, _ = module.project(volume)
    padded = module._chunked(keys)
    assert padded.shape[2] * padded.shape[3] > keys.shape[2]
    assert (module(volume) - explicit(module, volume)).abs().max() < 1e-10


def test_reformer_with_one_chunk_is_softmax_attention_without_oneself():
    module = build("reformer", {"chunk": 64, "rounds": 2}, heads=1)
    q, k, v = module.project(volume_of())
    logits = q @ torch.nn.functional.normalize(k, dim=3).transpose(2, 3) / 2
    logits = logits.masked_fill(torch.eye(60, dtype=torch.bool), -1e5)
    assert (module.attend(q, k, v, None, SIZE) - logits.softmax(3) @ v).abs().max() < 1e-10


def test_reformer_redraws_hashes_on_begin_step():
    module = build("reformer")
    volume = volume_of()
    first = module(volume)
    assert torch.equal(module(volume), first)
    module.begin_step(1)
    assert not torch.equal(module(volume), first)


def test_reformer_rounds_hash_differently_and_like_tokens_alike():
    module = build("reformer", {"chunk": 8, "rounds": 3})
    generator = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(8, 2, generator=generator), dim=1)
    keys = centres.repeat_interleave(8, 0)[torch.randperm(64, generator=generator)]
    keys = keys.double()[None, None]
    orders = [module._sorted(keys, None, number)[0][0, 0] for number in range(3)]
    assert not torch.equal(orders[0], orders[1])
    for order in orders:
        in_order = keys[0, 0][order]
        neighbours = (in_order[1:] * in_order[:-1]).sum(1).mean()
        assert (
            neighbours > 0.5
        )  # of -1 to 1, 0 at random: sorted by hash, equal directions lie together


@pytest.mark.parametrize("size", [(3, 4, 5), (1, 1, 1), (5, 2, 7)])
def test_windowing_is_inverted_exactly(size):
    tokens = to_tokens(volume_of(size), 2)
    for shift in (True, False):
        window, by = clip_window(size, (2, 3, 4), shift)
        windows = to_windows(tokens, size, window, by)
        assert torch.equal(from_windows(windows, size, window, by), tokens)


class MeanAttention(VolumeAttention):
    """A member to come: every position receives the mean of the values. O(N)."""

    weights_sum_to_one = True
    permutation_equivariant = True
    mask_equals_removal = True
    error = 0.0

    def attend(self, queries, keys, values, key_mask, size):
        key_mask = torch.ones_like(values[:, :1, :, :1]).bool() if key_mask is None else key_mask
        mean = (values * key_mask).sum(2, True) / key_mask.sum(2, True).clamp(min=1)
        return mean + 0 * (queries.sum(3, True) + keys.sum(3, True)) + self.error * values

    def attend_explicitly(self, queries, keys, values, key_mask, size):
        weights = 1 + 0 * queries @ keys.transpose(2, 3)
        return weighted_average(weights, values, key_mask)


@pytest.mark.parametrize("wrong", [False, True])
def test_one_line_in_the_dict_brings_a_new_member_all_these_tests(monkeypatch, wrong):
    monkeypatch.setitem(ATTENTIONS, "mean", MeanAttention)
    monkeypatch.setattr(MeanAttention, "error", 0.001 if wrong else 0.0)
    tests = [
        lambda: test_member_equals_its_definition_in_value_and_gradient("mean", {}, 2),
        lambda: test_constant_values_come_back_constant("mean", {}),
        lambda: test_a_mask_equals_removing_the_cells("mean", {}),
        lambda: test_without_position_any_cells_can_be_removed("mean"),
        lambda: test_contents_of_masked_cells_do_not_matter("mean", {}),
        lambda: test_sizes_change_between_calls("mean", {}),
    ]
    failures = 0
    for test in tests:
        try:
            test()
        except AssertionError:
            failures += 1
    assert bool(failures) == wrong


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("shape", [(8, 4, 6, 8), (1, 4, 4, 6, 8), (1, 8, 4, 6, 8, 1)], ids=str)
def test_another_shape_is_one_line_that_names_the_volume(name, shape):
    module = ATTENTIONS[name](8)
    with pytest.raises(ValueError, match=r"\(B, C, D, H, W\) with C = 8, got shape") as caught:
        module(torch.zeros(shape))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_the_argument_at_fault_is_named(name):
    for heads in (0, -1, 1.5, "2", True):
        with pytest.raises(ValueError, match=f"^heads is {heads!r}"):
            ATTENTIONS[name](16, heads=heads)
    for channels in (0, 1.5, "a", None):
        with pytest.raises(ValueError, match=f"^channels is {channels!r}"):
            ATTENTIONS[name](channels)


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("gradients", [True, False])
def test_a_volume_of_another_type_or_without_cells_is_refused(name, gradients):
    module = ATTENTIONS[name](8)
    with torch.set_grad_enabled(gradients):
        for dtype in (torch.float64, torch.bfloat16, torch.int64, torch.bool):
            with pytest.raises(ValueError, match=rf"type, torch\.float32, got {dtype}"):
                module(torch.zeros(1, 8, *SIZE, dtype=dtype))
        for size in ((0, 4, 5), (3, 0, 5), (3, 4, 0)):
            with pytest.raises(ValueError, match="an empty volume"):
                module(torch.zeros(1, 8, *size))
        with pytest.raises(ValueError, match="as a tensor, got ndarray"):
            module(torch.zeros(1, 8, *SIZE).numpy())


def test_autocast_takes_volumes_of_half_precision_and_no_others():
    module = build("efficient", dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16):
            assert module(volume_of(dtype=dtype)).isfinite().all()
        with pytest.raises(ValueError, match="float64"):
            module(volume_of())
