"""Why early-learning regularization works: its gradient, and the linear model in which memorization can be proved.

Notation of Liu et al. (NeurIPS 2020, arXiv 2007.00151): p softmax output, y one-hot given label, t target, all (n, C);
lam the weight of the regularizer, beta the momentum of the targets, Delta the share of labels replaced by a random one.

    >>> model = two_clusters(n=200, dimension=180, delta=0.4, seed=0)
    >>> ce, elr = descend(model, steps=2000), descend(model, steps=2000, lam=3.0)
    >>> bool(ce["wrong_memorized"].iloc[-1] > 0.9 > 0.2 > elr["wrong_memorized"].iloc[-1])
    True
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import softmax

from elrkit.losses import PROBABILITY_FLOOR

COLOURS = {"CE": "#D55E00", "ELR": "#0072B2"}  # Okabe and Ito


def elr_gradient(
    p: np.ndarray, y: np.ndarray, t: np.ndarray, lam: float | np.ndarray, floor: float = 0.0
) -> np.ndarray:
    """Gradient of each example's loss -<y, log p> + lam log(1 - <p, t>) (equation 6) with respect to the logits,
    (..., n, C): p - y + lam g (Lemma 2).

    floor  p in the regularizer is clamped to [floor, 1 - floor], as Liu et al.'s code does with 1e-4

    g_c = p_c / (1 - <p, t>) * sum_k (t_k - t_c) p_k. A clamped p_k no longer moves, so its t_k drops out of the sum.
    """
    clamped = p.clip(floor, 1 - floor)
    moving = np.where(clamped == p, t, 0.0)
    pull = ((p * moving).sum(axis=-1, keepdims=True) - moving) / (1 - (clamped * t).sum(axis=-1, keepdims=True))
    return p - y + lam * p * pull


@dataclass(frozen=True)
class TwoClusters:
    """A draw of the model of Section 3 of Liu et al.: n noisy training examples and as many clean test examples."""

    x: np.ndarray  # (n, dimension)
    labels: np.ndarray  # (n,) in {0, 1}: given
    true: np.ndarray  # (n,) in {0, 1}
    x_test: np.ndarray  # (n, dimension)
    true_test: np.ndarray  # (n,)
    v: np.ndarray  # (dimension,) unit vector between the clusters

    @property
    def wrong(self) -> np.ndarray:
        """(n,) whether the given label is wrong."""
        return self.labels != self.true


def two_clusters(n: int, dimension: int, delta: float, sigma: float = 0.5, seed: int = 0) -> TwoClusters:
    """Draw x ~ N(+v, sigma^2 I) for class 0 and N(-v, sigma^2 I) for class 1, v a random unit vector.

    Each label is replaced with probability `delta` by a fair coin (equation 1), so about delta / 2 of them are wrong.
    """
    rng = np.random.default_rng(seed)
    v = rng.standard_normal(dimension)
    v /= np.linalg.norm(v)

    def draw() -> tuple[np.ndarray, np.ndarray]:
        true = rng.integers(2, size=n)
        centre = np.where(true == 0, 1.0, -1.0)[:, None] * v
        return centre + sigma * rng.standard_normal((n, dimension)), true

    x, true = draw()
    labels = np.where(rng.random(n) < delta, rng.integers(2, size=n), true)
    x_test, true_test = draw()
    return TwoClusters(x, labels, true, x_test, true_test, v)


def descend(
    draws: TwoClusters | Sequence[TwoClusters],
    steps: int,
    lr: float = 1.0,
    lam: float | Sequence[float] = 0.0,
    beta: float = 0.7,
    floor: float = PROBABILITY_FLOOR,
) -> pd.DataFrame:
    """Full-batch gradient descent on softmax regression from Theta = 0 (2, dimension); lam = 0 is cross-entropy.

    The targets start at zero and move before they are used, once a step, as in training (equation 9). Of several draws
    of one size, and several weights `lam`, each pair descends by itself, all at once.

    One row per recorded step, the early ones all, then spaced by a constant factor. Alignment and pushes are means over
    the steps since the row before: they flicker once p meets the floor, where the regularizer's gradient goes out.

    draw, lam        number of the draw, weight of the regularizer
    step             updates made so far
    alignment        cosine of the negative gradient of the first row of Theta and v
    push_right, push_wrong   mean of -(p_c - y_c + lam g_c) at the given label c, over rightly and wrongly labelled
                     examples: how hard the loss pushes towards the label; negative is away from it
    wrong_memorized  share of the wrongly labelled examples predicted as labelled; the others are seen through
    test             accuracy on clean test examples
    """
    draws, lams = [draws] if isinstance(draws, TwoClusters) else draws, np.atleast_1d(lam)
    # Axes: draw, lam, example, class or dimension.
    x, x_test = (np.stack([getattr(draw, name) for draw in draws]) for name in ("x", "x_test"))
    labels, truth, wrong, v = (
        np.stack([getattr(draw, name) for draw in draws])[:, None] for name in ("labels", "true_test", "wrong", "v")
    )
    recorded = set(np.unique(np.geomspace(1, steps, 80).round().astype(int)).tolist()) | {0}
    # In memory the classes come before the examples, so that numpy sums over classes by long rows.
    y, n = np.moveaxis(np.eye(2)[:, labels], 0, -1), labels.shape[-1]
    theta = np.zeros((len(draws), len(lams), 2, x.shape[-1]))

    def logits(x: np.ndarray) -> np.ndarray:
        flat = theta.reshape(len(draws), -1, x.shape[-1]) @ x.swapaxes(-1, -2)
        return flat.reshape(*theta.shape[:3], n).swapaxes(-1, -2)

    rows, since, t = [], [], 0.0
    for step in range(steps + 1):
        p = softmax(logits(x), axis=-1)
        held = p.clip(floor, 1 - floor)
        t = beta * t + (1 - beta) * held / held.sum(axis=-1, keepdims=True)
        coefficients = elr_gradient(p, y, t, lams[:, None, None], floor)
        by_class = coefficients.swapaxes(-1, -2).reshape(len(draws), -1, n)
        gradient = (by_class @ x).reshape(theta.shape) / n
        push = -(coefficients * y).sum(axis=-1)
        first = -gradient[..., 0, :]
        alignment = (first * v).sum(axis=-1) / np.linalg.norm(first, axis=-1)
        since.append((alignment, _mean(push, ~wrong), _mean(push, wrong)))
        if step in recorded:
            memorized = _mean(p.argmax(axis=-1) == labels, wrong)
            test = (logits(x_test).argmax(axis=-1) == truth).mean(axis=-1)
            rows.append((*np.mean(since, axis=0), memorized, test))
            since.clear()
        theta -= lr * gradient
    names = ("alignment", "push_right", "push_wrong", "wrong_memorized", "test")
    where = pd.MultiIndex.from_product([range(len(draws)), lams, sorted(recorded)], names=["draw", "lam", "step"])
    measures = np.moveaxis(np.array(rows), (0, 1), (2, 3)).reshape(-1, len(names))
    return pd.DataFrame(measures, where, names).reset_index()


def _mean(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Over the examples, the last axis, that are chosen."""
    return (values * of).sum(axis=-1) / of.sum(axis=-1)


def holding_force(a: np.ndarray, lam: float, classes: int = 2) -> np.ndarray:
    """The gradient on the true class's logit of a wrongly labelled example whose target equals its output, p = t.

    a  confidence in the true class, in (0, 1); the rest of p lies on the given label (two classes), or is spread evenly

    It is a - lam a (a - <p, p>) / (1 - <p, p>), and tends to 1 - lam / 2 as a tends to 1. With two classes descent
    moves such an example further away from its wrong label where it is negative; with more, the given label's logit
    moves too, by another amount, and the sign of this one alone does not decide.
    """
    rest = (1 - a) ** 2 / (classes - 1)
    return a - lam * a * (a - a**2 - rest) / (1 - a**2 - rest)


def sweep(
    deltas: Iterable[float], ratios: Iterable[float], lams: Sequence[float], seeds: Sequence[int],
    n: int = 200, sigma: float = 0.3, steps: int = 1000, lr: float = 1.0, beta: float = 0.7,
) -> pd.DataFrame:  # fmt: skip
    """`descend` for every combination: its rows with columns delta, ratio (dimension / n), lam and seed."""
    parts = []
    for delta, ratio in product(deltas, ratios):
        draws = [two_clusters(n, round(ratio * n), delta, sigma, seed) for seed in seeds]
        part = descend(draws, steps, lr=lr, lam=lams, beta=beta)
        parts.append(part.assign(delta=delta, ratio=ratio, seed=np.asarray(seeds)[part["draw"]]))
    return pd.concat(parts, ignore_index=True)


def figure_course(courses: Mapping[str, pd.DataFrame]) -> Figure:
    """Theorem 1 step by step: direction of the gradient, push towards right and wrong labels, memorization and test.

    courses  "CE" and "ELR" -> a table of `descend`
    """
    panels = (
        ("Gradient and the true direction", "cosine", {"alignment": "-"}),
        ("Push towards the given label", "mean over examples", {"push_right": "-", "push_wrong": "--"}),
        ("Wrong labels memorized, test accuracy", "share", {"wrong_memorized": "--", "test": "-"}),
    )
    names = {"alignment": "−∇L and v", "push_right": "right labels", "push_wrong": "wrong labels"}
    names |= {"wrong_memorized": "memorized", "test": "test"}
    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    for axes, (title, unit, columns) in zip(figure.subplots(1, 3), panels, strict=True):
        for name, course in courses.items():
            course = course[course["step"] > 0]
            for column, style in columns.items():
                axes.plot(course["step"], course[column], style, color=COLOURS[name], label=f"{name}: {names[column]}")
        axes.set_title(title, size=10)
        axes.set(xlabel="step of gradient descent", ylabel=unit, xscale="log")
        axes.axhline(0, color="#999999", lw=0.7, zorder=0)
        axes.legend(fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


def figure_multiples(table: pd.DataFrame) -> Figure:
    """Small multiples of `sweep`: a row per share of wrong labels, a column per dimension / n; mean and range."""
    curves = (("wrong_memorized", "--", "wrong labels memorized"), ("test", "-", "test accuracy"))
    deltas, ratios = sorted(table["delta"].unique()), sorted(table["ratio"].unique())
    figure = Figure(figsize=(2.9 * len(ratios) + 0.6, 2.0 * len(deltas) + 0.6), layout="constrained")
    grid = figure.subplots(len(deltas), len(ratios), sharex=True, sharey=True, squeeze=False)
    for (i, delta), (j, ratio) in ((a, b) for a in enumerate(deltas) for b in enumerate(ratios)):
        axes = grid[i, j]
        cell = table[(table["delta"] == delta) & (table["ratio"] == ratio) & (table["step"] > 0)]
        for name, rows in (("CE", cell[cell["lam"] == 0]), ("ELR", cell[cell["lam"] > 0])):
            for column, style, label in curves:
                by_step = rows.groupby("step")[column].agg(["mean", "min", "max"])
                axes.plot(by_step.index, by_step["mean"], style, color=COLOURS[name], label=f"{name}: {label}")
                axes.fill_between(by_step.index, by_step["min"], by_step["max"], color=COLOURS[name], alpha=0.15, lw=0)
        inside = " (theorem)" if 1 - delta / 2 < ratio < 1 else ""
        axes.set_title(f"{50 * delta:g} % wrong, d/n = {ratio:g}{inside}", size=9)
        axes.set(xscale="log", ylim=(-0.03, 1.03))
    figure.supxlabel("step of gradient descent", size=10)
    figure.supylabel("share", size=10)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8, frameon=False
    )
    return figure


def figure_threshold(table: pd.DataFrame, horizons: Iterable[int]) -> Figure:
    """The share of wrong labels memorized against lam, from `sweep`: a line of means and a point per seed for each step
    in `horizons` (the recorded step nearest to it)."""
    figure = Figure(figsize=(5.8, 3.3), layout="constrained")
    axes = figure.subplots()
    recorded = np.sort(table["step"].unique())
    for horizon, colour, marker in zip(horizons, ("#E69F00", "#009E73", "#0072B2"), "o^s", strict=False):
        step = recorded[np.abs(recorded - horizon).argmin()]
        at = table[table["step"] == step]
        mean = at.groupby("lam")["wrong_memorized"].mean()
        axes.plot(mean.index, mean, color=colour, label=f"after {step} steps")
        axes.plot(at["lam"], at["wrong_memorized"], marker, color=colour, alpha=0.5, ms=4)
    axes.axvline(2, color="#666666", ls="--", lw=1, label="1 − λ/2 changes sign")
    axes.set(xlabel="λ", ylabel="wrong labels memorized", ylim=(-0.03, 1.03))
    axes.legend(frameon=False, fontsize=9)
    return figure
