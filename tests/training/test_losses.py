"""Losses, schedules, the order of samples, the moving average: what a step is made of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo.errors import StereoError, UsageError
from stereo.models import NetworkConfig, build_network
from stereo.models.network import TrainingOutputs
from stereo.training.config import LossConfig, OptimizerConfig
from stereo.training.interrupt import explain_errors
from stereo.training.learner import MovingAverage
from stereo.training.losses import loss_sum, plane_cross_entropy_sum, smooth_l1_sum
from stereo.training.order import Share, StepSampler
from stereo.training.recipe import Recipe
from stereo.training.schedule import learning_rate, parse_duration
from stereo.training.supervision import TruthCount, counted_pixels


def test_pixels_that_do_not_count_are_told_by_kind():
    truth = torch.tensor([[-1.0, 0.0, 0.0, 40.0, 40.0, 40.0, np.inf]])
    count = TruthCount(32)
    count.add(truth, truth.isfinite())
    assert "of 6 with ground truth (-1 to 40 px) are 16.67 % negative, 33.33 % 0, 50 % at" in str(
        count.error("it")
    )


def test_a_range_too_short_comes_with_one_that_reaches():
    truth = torch.tensor([[32.0, 40.0]])  # the range ends before its last number
    count = TruthCount(32)
    count.add(truth, truth > 0)
    told = str(count.error("it"))
    assert "100 % at 32 px or beyond" in told
    assert told.endswith("--network.max_disparity 48")


@settings(max_examples=50)
@given(
    count=st.integers(1, 40),
    each=st.integers(1, 4),
    processes=st.integers(1, 3),
    turns=st.integers(1, 3),
    first=st.integers(0, 30),
)
def test_samples_do_not_depend_on_the_split_of_the_work(count, each, processes, turns, first):
    batch = each * processes * turns
    whole = StepSampler(count, batch, 5, Share()).keys_of_step(first)
    parts = []
    for rank in range(processes):
        sampler = iter(StepSampler(count, batch, 5, Share(rank, processes, turns, first)))
        parts.append([next(sampler) for _ in range(turns)])
    together = [
        key for turn in range(turns) for rank in range(processes) for key in parts[rank][turn]
    ]
    assert together == whole


def test_an_epoch_holds_every_sample_once():
    sampler = StepSampler(10, 4, 0, Share())
    keys = [key for step in range(5) for key in sampler.keys_of_step(step)]
    for epoch in (0, 1):
        assert sorted(i for e, i in keys if e == epoch) == list(range(10))
    assert [i for e, i in keys if e == 0] != [i for e, i in keys if e == 1]
    assert StepSampler(10, 4, 1, Share()).keys_of_step(0) != keys[:4]


def test_no_seed_repeats_the_epochs_of_another():
    orders = {
        tuple(index for _, index in StepSampler(10, 10, seed, Share()).keys_of_step(epoch))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(UsageError, match="does not divide"):
        StepSampler(10, 5, 0, Share(world_size=2))


def test_the_loss_equals_psmnets():
    truth = torch.tensor([[[1.0, 2.0, 50.0], [0.0, 200.0, 3.0]]])
    valid = torch.ones_like(truth).bool()
    counted = counted_pixels(truth, valid, 192)
    assert counted.tolist() == [[[True, True, True], [False, False, True]]]
    assert counted_pixels(truth, valid, 192, zero_counts=True).sum() == 5
    predictions = [truth + 0.5, truth + 2, truth - 3]
    total = smooth_l1_sum(predictions, truth, counted, (0.5, 0.7, 1.0)) / counted.sum()
    assert total == pytest.approx(0.5 * 0.125 + 0.7 * 1.5 + 2.5)
    assert smooth_l1_sum(predictions[-1:], truth, counted, (0.5, 0.7, 1.0)) == pytest.approx(10)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    truth = torch.full((1, 2, 2), 3.0)
    counted = torch.ones_like(truth).bool()
    outputs = TrainingOutputs((truth + 0.25, truth - 2), torch.randn(1, 4, 1, 1), 2)
    smooth = 4 * (0.5 * 0.0625 + 1.75)  # 0.25^2 / (2 beta) and 2 - beta / 2
    planes = float(plane_cross_entropy_sum(outputs.logits, truth, counted, 2))
    config = LossConfig((0.5, 1.0), beta=0.5, planes=0.3)
    assert loss_sum(outputs, truth, counted, config) == pytest.approx(smooth + 0.3 * planes)


def test_schedules():
    constant = OptimizerConfig(learning_rate=2.0)
    assert learning_rate(99, 100, constant) == 2.0
    cycle = OptimizerConfig(learning_rate=2.0, schedule="one_cycle", warmup_share=0.1)
    rates = [learning_rate(step, 100, cycle) for step in range(100)]
    assert rates[9] == pytest.approx(2.0)
    assert rates[0] == pytest.approx(0.2)
    assert rates[10] == 2.0 and rates[55] == pytest.approx(1.0)  # a cosine from there
    assert rates[99] < 0.01
    steps = OptimizerConfig(learning_rate=1.0, schedule="steps", milestones=(0.5, 0.9))
    assert [learning_rate(s, 10, steps) for s in (4, 5, 9)] == pytest.approx([1, 0.1, 0.01])


@pytest.mark.parametrize("max_steps", [1, 7, 15, 33])  # a tenth of which is no whole number
def test_a_warm_up_does_not_overshoot(max_steps):
    cycle = OptimizerConfig(learning_rate=2.0, schedule="one_cycle", warmup_share=0.1)
    assert max(learning_rate(step, max_steps, cycle) for step in range(max_steps)) <= 2.0


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("50m", 3000), ("2.5h", 9000)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds
    with pytest.raises(UsageError, match="write 90s"):
        parse_duration("soon")


def test_cross_entropy_of_planes_shares_each_pixel_between_its_two_planes():
    truth = torch.tensor([[[0.0, 1.0], [2.0, 99.0]]])  # a block of 2x2: planes 0, 0 and 1, 1, none
    counted = torch.tensor([[[True, True], [True, False]]])
    logits = torch.tensor([0.3, -0.5, 0.1]).view(1, 3, 1, 1)
    log = logits.flatten().log_softmax(dim=0)
    expected = -(1.5 * log[0] + 1.5 * log[1])
    assert plane_cross_entropy_sum(logits, truth, counted, 2) == pytest.approx(float(expected))
    wider = -(2.25 * log[0] + 0.75 * log[1])  # planes 4 px apart: 0, 0.25 and 0.5 of the way
    assert plane_cross_entropy_sum(logits, truth, counted, 4) == pytest.approx(float(wider))


def test_truth_beyond_the_last_plane_counts_as_the_last():
    truth = torch.full((1, 2, 2), 5.0)  # planes 0, 2 and 4 px; the range ends at 6
    logits = torch.tensor([0.3, -0.5, 0.1]).view(1, 3, 1, 1)
    expected = -4 * logits.flatten().log_softmax(dim=0)[2]
    found = plane_cross_entropy_sum(logits, truth, truth > 0, 2)
    assert found == pytest.approx(float(expected))


@pytest.mark.parametrize(("centred", "offset"), [(True, 0.0), (False, 1.5)])
def test_cross_entropy_of_planes_looks_at_the_pixels_that_a_cell_stands_for(centred, offset):
    """PSMNets read cell i at pixel 4i; EA-Stereos enlarge it to pixels 4i to 4i + 3."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    truth = (8 + 0.25 * columns + 0.5 * rows)[None]
    logits = torch.zeros(1, 8, 4, 6, requires_grad=True)
    counted = torch.ones_like(truth).bool()
    plane_cross_entropy_sum(logits, truth, counted, 4, centred=centred).backward()
    target = 16 / 8 - logits.grad  # the gradient at uniform logits is 16 / D less the target
    means = 4 * (target * torch.arange(8.0).view(1, 8, 1, 1)).sum(dim=1) / 16
    places = 4 * torch.arange(1, 4.0) + offset  # those without the border
    expected = 8 + 0.25 * places[None] + 0.5 * places[:, None]
    torch.testing.assert_close(means[0, 1:, 1:4], expected)


@pytest.mark.parametrize(("name", "centred"), [("psmnet_basic", True), ("ea_stereo_fast", False)])
def test_networks_say_what_their_cells_stand_for(name, centred):
    network = build_network(NetworkConfig(name, max_disparity=16))
    assert network(*torch.zeros(2, 2, 3, 64, 64)).centred is centred


def test_cross_entropy_of_planes_is_least_at_the_shares_of_the_pixels():
    truth = torch.full((1, 8, 8), 20.0)  # between planes 2 and 3 of 8 pixels
    truth[:, :, :2] = 4.0
    counted = torch.ones_like(truth).bool()
    shares = torch.tensor([0.125, 0.125, 0.375, 0.375, 1e-9]).view(1, 5, 1, 1)
    best = plane_cross_entropy_sum(shares.log(), truth, counted, 8)
    for k in range(4):
        other = shares.log().clone()
        other[0, k] += 0.1
        assert plane_cross_entropy_sum(other, truth, counted, 8) > best


def test_a_loss_on_planes_needs_planes_at_their_disparities():
    network = NetworkConfig("psmnet", upsampling="half_pixel")
    with pytest.raises(UsageError, match=r"upsampling half_pixel .* use 'unbiased'"):
        Recipe(network=network, loss=LossConfig(planes=1.0))
    with pytest.raises(UsageError, match="'ea_stereo' knows only 'unbiased'"):
        NetworkConfig("ea_stereo", upsampling="half_pixel")


@pytest.mark.parametrize("wrong", [{"weights": ()}, {"beta": 0.0}, {"planes": -1.0}])
def test_impossible_losses_are_refused(wrong):
    with pytest.raises(UsageError, match="loss"):
        LossConfig(**wrong)


def test_the_average_starts_fast_and_forgets_its_first_weights():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = MovingAverage(network, 0.999)
    average.update(network)
    torch.nn.init.ones_(network.weight)
    for _ in range(30):
        average.update(network)
    assert float(average.network.weight.detach()) > 0.99  # a decay of 0.999 would give 0.03


def test_the_average_moves_by_its_decay_in_the_end():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = MovingAverage(network, 0.5)
    for _ in range(30):
        average.update(network)
    torch.nn.init.ones_(network.weight)
    average.update(network)
    assert float(average.network.weight.detach()) == 0.5


def test_a_resumed_average_is_that_of_a_run_never_interrupted():
    network = torch.nn.Linear(2, 1, bias=False)
    whole, resumed = MovingAverage(network, 0.9), MovingAverage(torch.nn.Linear(2, 1, False), 0.9)
    for step in range(1, 8):
        torch.nn.init.constant_(network.weight, step)
        whole.update(network)
        if step == 4:
            resumed.load(whole.weights(), step)
        elif step > 4:
            resumed.update(network)
    assert torch.equal(resumed.network.weight, whole.network.weight)


@pytest.mark.parametrize(
    "message, said",
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "--trainer.workers"),
        ("[gloo/transport/tcp/pair.cc:544] Connection closed by peer", "another process"),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate", "batch_size"),
        ("Invalid buffer size: 20.00 GiB", "batch_size"),
    ],
)
def test_external_termination_is_one_line(message, said, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(StereoError, match=said), explain_errors():
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="a defect"), explain_errors():
        raise RuntimeError("a defect")


def test_a_batch_too_small_for_batch_norm_is_one_line():
    with pytest.raises(UsageError, match="freeze_batch_norm"), explain_errors():
        torch.nn.BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
