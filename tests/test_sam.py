"""SAM against a derivation in numpy; what must not move stays put; what must move does so once."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from elrkit import data, sam, train
from elrkit.config import RunConfig

CURVATURE = np.diag([4.0, 1.0, 0.25])
CENTRE = np.array([1.0, -2.0, 0.5])


def quadratic(w):
    """(w - c)' A (w - c) / 2, whose gradient is A (w - c)."""
    difference = w - torch.tensor(CENTRE)
    return difference @ torch.tensor(CURVATURE) @ difference / 2


def test_sgd_with_momentum_and_sam_is_the_derivation():
    w = torch.tensor([0.3, 0.7, -1.1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.9, weight_decay=0.01)
    rho, x, velocity = 0.05, w.detach().numpy().copy(), np.zeros(3)
    for _ in range(5):
        optimizer.zero_grad()
        quadratic(w).backward()
        with sam.perturbed([w], rho):
            quadratic(w).backward()
        optimizer.step()

        g = CURVATURE @ (x - CENTRE)
        e = rho * g / np.linalg.norm(g)
        climbed = CURVATURE @ (x + e - CENTRE)
        velocity = 0.9 * velocity + climbed + 0.01 * x  # weight decay acts on the weights, not on the climbed ones
        x = x - 0.1 * velocity
        np.testing.assert_allclose(w.detach().numpy(), x, rtol=1e-12, atol=1e-12)


def small_net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def backward(model, seed=1):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(seed))
    model(x).square().mean().backward()


@pytest.mark.parametrize("rho", [1e-3, 0.05, 2.0])
def test_the_perturbation_s_norm_is_rho_and_its_direction_the_gradient(rho):
    model = small_net().double()
    model[1].eval()
    x = torch.randn(16, 6, dtype=torch.float64)
    model(x).square().mean().backward()
    before = [p.detach().clone() for p in model.parameters()]
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    with sam.perturbed(model.parameters(), rho) as norm:
        e = torch.cat([(p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)])
        assert all(p.grad is None for p in model.parameters())
        assert norm.item() == pytest.approx(gradient.norm().item())
    assert e.norm().item() == pytest.approx(rho, rel=1e-9)
    assert torch.dot(e / e.norm(), gradient / gradient.norm()).item() == pytest.approx(1, abs=1e-9)


def test_weights_and_batch_norm_come_back_after_an_exception():
    model = small_net()
    backward(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="in the second pass"):  # noqa: SIM117, PT012
        with sam.perturbed(model.parameters(), 0.7), sam.frozen_batch_norm(model):
            model(torch.randn(8, 6))
            raise RuntimeError("in the second pass")
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert model[1].track_running_stats


def test_a_zero_gradient_leaves_the_weights_where_they_are():
    w = torch.tensor([1.0, -2.0], requires_grad=True)
    w.grad = torch.zeros(2)
    with sam.perturbed([w], 0.05) as norm:
        assert w.tolist() == [1.0, -2.0]
        assert norm.item() == 0


def test_parameters_without_a_gradient_are_left_out():
    used, unused = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    used.grad = torch.tensor([3.0, 0.0, 4.0])
    with sam.perturbed([used, unused], 0.5):
        assert unused.tolist() == [1, 1, 1]
        np.testing.assert_allclose(used.tolist(), [1.3, 1.0, 1.4], rtol=1e-6)


@pytest.mark.parametrize("rho", [0, -0.1, float("nan"), float("inf")])
def test_a_radius_that_is_not_positive_raises(rho):
    with (
        pytest.raises(ValueError, match=r"^perturbed: rho=.*: allowed is 0 < rho, and finite$"),
        sam.perturbed([], rho),
    ):
        pass


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_the_step_of_16_bit_gradients_is_rho_long_where_their_norm_exceeds_float16(kind):
    p = torch.zeros(100, dtype=kind, requires_grad=True)
    p.grad = torch.full((100,), 30_000.0, dtype=kind)
    with sam.perturbed([p], 0.05) as norm:
        assert norm.item() == pytest.approx(300_000, rel=0.01)
        assert p.detach().float().norm().item() == pytest.approx(0.05, rel=0.01)
    assert not p.detach().any()


@pytest.mark.parametrize(
    "given", [lambda net: net.named_parameters(), lambda net: nn.Sequential(net), lambda net: [{}]]
)
def test_what_is_no_parameter_is_named(given):
    with pytest.raises(TypeError, match=r"^perturbed: parameters hold \w+; give model.parameters\(\)$"):
        sam.perturbed(given(nn.Linear(2, 2)), 0.05).__enter__()


def test_without_gradients_it_says_what_to_call():
    with pytest.raises(ValueError, match=r"call backward\(\) first$"), sam.perturbed([torch.ones(1)], 0.1):
        pass


def test_frozen_batch_norm_normalizes_by_the_batch_but_keeps_its_statistics():
    model, x = small_net().train(), torch.randn(16, 6)
    expected = copy.deepcopy(model)(x)
    before = copy.deepcopy(model.state_dict())
    with sam.frozen_batch_norm(model):
        assert model(x).equal(expected)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    model(x)
    assert model[1].num_batches_tracked == 1


def trainer(**changes):
    config = RunConfig(train_size=192, noise_rate=0.4, loss="elr", width=8, lr=0.05, **changes)
    dataset = data.load("digits")
    built = train.Trainer(config, dataset, train.set_up(config, dataset), torch.device("cpu"))
    built.model.train()
    built.start_epoch()
    return built


def norm_state(model):
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    return [layer.running_mean.clone() for layer in layers], [int(layer.num_batches_tracked) for layer in layers]


def test_batch_norm_and_targets_move_once_from_the_unperturbed_pass():
    """What the first pass of SAM leaves behind is what a plain step leaves behind."""
    plain, climbing, double = trainer(), trainer(sam_rho=0.5), trainer(sam_rho=0.5, sam_double_update=True)
    for one in (plain, climbing, double):
        one.step()
    means, counts = norm_state(plain.model)
    sam_means, sam_counts = norm_state(climbing.model)
    double_means, double_counts = norm_state(double.model)
    assert set(counts) == set(sam_counts) == {1}
    assert set(double_counts) == {2}
    assert all(a.equal(b) for a, b in zip(means, sam_means, strict=True))
    assert not any(a.equal(b) for a, b in zip(means, double_means, strict=True))
    assert climbing.elr.targets.equal(plain.elr.targets)
    # Each move of a row that was zero leaves a share of beta of what is missing to 1: once 0.7, twice 0.49.
    batch = plain.draws.order[:64]
    for one, rest in ((climbing, 0.7), (double, 0.49)):
        sums = one.elr.targets.sum(dim=1)
        torch.testing.assert_close(sums[batch], torch.full((64,), 1 - rest))
        assert sums.count_nonzero() == 64
    # And SAM did climb: the weights went elsewhere.
    assert not climbing.model.head.weight.equal(plain.model.head.weight)
