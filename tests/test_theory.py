"""The gradient of the regularizer and the two-cluster model, against derivations that share no code with them."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import softmax

from elrkit.losses import ELRLoss
from elrkit.report import theory

RNG = np.random.default_rng(0)


def example(n: int = 6, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, one-hot labels and targets whose rows sum to less than one, as early in training."""
    t = RNG.dirichlet(np.ones(classes), size=n) * 0.9
    return RNG.standard_normal((n, classes)) * 2, np.eye(classes)[RNG.integers(classes, size=n)], t


def elr_loss(logits, y, t, lam, floor):
    """Equation 6, p in the regularizer clamped."""
    p = softmax(logits, axis=-1)
    return -(y * np.log(p)).sum(axis=-1) + lam * np.log1p(-(p.clip(floor, 1 - floor) * t).sum(axis=-1))


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_gradient_against_finite_differences(floor):
    logits, y, t = example()
    p = softmax(logits, axis=-1)
    if floor:  # the case must occur, and no logit may sit on the kink
        assert (p < floor).any()
        assert np.abs(p - floor).min() > 1e-4
    numerical = np.empty_like(logits)
    for c in range(logits.shape[1]):
        step = np.zeros_like(logits)
        step[:, c] = 1e-6
        rise = elr_loss(logits + step, y, t, 3.0, floor) - elr_loss(logits - step, y, t, 3.0, floor)
        numerical[:, c] = rise / 2e-6
    np.testing.assert_allclose(theory.elr_gradient(p, y, t, 3.0, floor), numerical, atol=1e-7)


def test_gradient_is_that_of_the_training_loss():
    """The float64 formula and autograd through the float32 loss that networks are trained with."""
    logits, y, t = example(n=8)
    loss = ELRLoss(8, 4, beta=0.7, lam=3.0)
    loss.targets.copy_(torch.from_numpy(t))
    z = torch.from_numpy(logits).requires_grad_()
    (8 * loss(z, torch.from_numpy(y.argmax(axis=1)), torch.arange(8))).backward()
    ours = theory.elr_gradient(softmax(logits, axis=-1), y, t, 3.0, floor=1e-4)
    np.testing.assert_allclose(ours, z.grad.numpy(), atol=1e-5)


@pytest.mark.parametrize("classes", [2, 10])
def test_holding_force(classes):
    """Against the full gradient at p = t, and its limit 1 - lam / 2."""
    a = np.array([0.3, 0.6, 0.9])
    rest = (1 - a)[:, None] / (classes - 1)
    p = np.concatenate([a[:, None], np.repeat(rest, classes - 1, axis=1)], axis=1)
    y = np.eye(classes)[[1, 1, 1]]
    np.testing.assert_allclose(
        theory.holding_force(a, 3.0, classes), theory.elr_gradient(p, y, p, 3.0)[:, 0], rtol=1e-12
    )
    for lam in (1.0, 2.0, 3.0):
        assert theory.holding_force(np.array(1 - 1e-6), lam, classes) == pytest.approx(1 - lam / 2, abs=1e-4)
    # Two classes: zero where a = lam / (2 (lam - 1)), solved by hand.
    assert theory.holding_force(np.array(0.75), 3.0) == pytest.approx(0, abs=1e-12)


def test_two_clusters_are_as_the_model_says():
    model = theory.two_clusters(n=20_000, dimension=5, delta=0.4, sigma=0.5, seed=3)
    assert np.linalg.norm(model.v) == pytest.approx(1)
    # Half of the replaced labels are right by chance. Bounds are five standard errors.
    assert model.wrong.mean() == pytest.approx(0.2, abs=5 * np.sqrt(0.2 * 0.8 / 20_000))
    side = np.where(model.true == 0, 1.0, -1.0)
    np.testing.assert_allclose((model.x * side[:, None]).mean(axis=0), model.v, atol=5 * 0.5 / np.sqrt(20_000))
    spread = model.x - side[:, None] * model.v
    np.testing.assert_allclose(np.cov(spread.T), 0.25 * np.eye(5), atol=0.02)
    again = theory.two_clusters(n=20_000, dimension=5, delta=0.4, sigma=0.5, seed=3)
    assert (again.labels == model.labels).all()
    assert theory.two_clusters(100, 5, 0.0).wrong.sum() == 0


def test_first_gradient_points_along_v():
    """At Theta = 0 all coefficients are 1/2, so -grad = mean of +-x / 2 with (1 - delta) of it along v."""
    model = theory.two_clusters(n=4000, dimension=100, delta=0.4, sigma=0.3)
    first = theory.descend(model, steps=1).iloc[0]
    sign = np.where(model.labels == 0, 0.5, -0.5)
    direction = (sign[:, None] * model.x).mean(axis=0)
    assert first["alignment"] == pytest.approx(direction @ model.v / np.linalg.norm(direction), abs=1e-12)
    # Expected: signal 0.3, noise 0.15 sqrt(100 / 4000), so the cosine is about 0.997.
    assert first["alignment"] == pytest.approx(0.3 / np.hypot(0.3, 0.15 * np.sqrt(0.025)), abs=0.003)
    assert first["push_right"] == first["push_wrong"] == pytest.approx(0.5)


def test_theorem_in_its_range_and_elr_against_it():
    model = theory.two_clusters(n=200, dimension=180, delta=0.4, sigma=0.3, seed=1)  # d/n = 0.9 in (0.8, 1)
    ce = theory.descend(model, steps=600)
    early = ce[ce["step"].between(2, 5)]
    assert early["wrong_memorized"].min() == 0  # early learning sees through every wrong label
    assert early["test"].max() > 0.98
    pushes = ce.set_index("step")[["push_right", "push_wrong"]].loc[[0, 3]]
    assert pushes["push_right"].is_monotonic_decreasing
    assert pushes["push_wrong"].is_monotonic_increasing
    assert ce["wrong_memorized"].iloc[-1] == 1  # memorization
    elr = theory.descend(model, steps=600, lam=3.0)
    assert elr["wrong_memorized"].iloc[-1] < 0.05
    direction = [table.set_index("step").loc[10, "alignment"] for table in (ce, elr)]
    assert direction[0] < 0.3 < 0.8 < direction[1]  # where CE's gradient has turned to the wrong labels, ELR's has not
    assert elr["test"].iloc[-1] > ce["test"].iloc[-1] + 0.1


def test_cross_entropy_descends_to_the_minimum():
    """With fewer dimensions than it takes to separate the noisy labels, descent ends at the minimum."""
    model = theory.two_clusters(n=200, dimension=5, delta=0.6, sigma=0.5)
    sign = np.where(model.labels == 0, 1.0, -1.0)

    def loss(w: np.ndarray) -> float:
        """With two classes softmax regression is logistic regression in w, the difference of the rows of Theta."""
        return np.logaddexp(0, -sign * (model.x @ w)).mean()

    w = minimize(loss, np.zeros(5), tol=1e-10).x
    end = theory.descend(model, steps=3000).iloc[-1]
    push = 1 / (1 + np.exp(sign * (model.x @ w)))
    assert end["push_wrong"] == pytest.approx(push[model.wrong].mean(), abs=1e-4)
    assert end["push_right"] == pytest.approx(push[~model.wrong].mean(), abs=1e-4)
    assert end["wrong_memorized"] == pytest.approx((sign * (model.x @ w) > 0)[model.wrong].mean())


def test_figures_have_their_panels():
    table = theory.sweep([0.2, 0.4], [0.5, 0.9, 2.0], [0.0, 3.0], [0], n=40, steps=20)
    grid = theory.figure_multiples(table).axes
    assert [axes.get_title() for axes in grid[:3]] == [
        "10 % wrong, d/n = 0.5", "10 % wrong, d/n = 0.9", "10 % wrong, d/n = 2",
    ]  # fmt: skip
    assert grid[4].get_title() == "20 % wrong, d/n = 0.9 (theorem)"  # 0.9 lies in (0.8, 1), but not in (0.9, 1)
    cell = table[(table["delta"] == 0.4) & (table["ratio"] == 0.9) & (table["lam"] == 3) & (table["step"] > 0)]
    drawn = {line.get_label(): line.get_ydata() for line in grid[4].lines}
    np.testing.assert_array_equal(drawn["ELR: wrong labels memorized"], cell["wrong_memorized"])
    course = {"CE": cell, "ELR": cell}
    assert len(theory.figure_course(course).axes) == 3
    (axes,) = theory.figure_threshold(table, [19]).axes
    ends = table[table["step"] == 19].groupby("lam")["wrong_memorized"].mean()
    np.testing.assert_allclose(axes.lines[0].get_ydata(), ends)


def test_the_sweep_descends_with_its_own_step_and_momentum():
    model = theory.two_clusters(40, 20, 0.4, 0.3, 1)
    alone = theory.descend(model, 30, lr=0.1, lam=3.0, beta=0.0)
    swept = theory.sweep([0.4], [0.5], [3.0], [1], n=40, steps=30, lr=0.1, beta=0.0)
    pd.testing.assert_frame_equal(swept[alone.columns], alone)
    lagging = theory.sweep([0.4], [0.5], [3.0], [1], n=40, steps=30, lr=0.1, beta=0.9)
    assert not np.allclose(lagging["push_wrong"], swept["push_wrong"])
