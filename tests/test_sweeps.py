"""Sweeps: the forest finds what was put in, and says when there is nothing; choosing by noisy labels has its price."""

import numpy as np
import pandas as pd
import pytest

from elrkit.report import figures as plots
from elrkit.report import sweeps

SIZE = {"status": "finished", "scale": "digits", "dataset": "digits", "model": "small_resnet", "epochs": 8}


def random_sweep(effect, n=40, seed=0) -> pd.DataFrame:
    """A sweep whose accuracies are `effect` of the table of settings."""
    rng = np.random.default_rng(seed)
    runs = pd.DataFrame(
        {
            "run_id": [f"run{i}" for i in range(n)],
            "lr": 10 ** rng.uniform(-3, -1, n),
            "optimizer": rng.choice(["sgd", "adam"], n),
            "momentum": rng.uniform(0.6, 0.99, n),
            "lam": 10 ** rng.uniform(-1, 0.5, n),
            "batch_size": rng.choice([64, 128], n),
        }
    )
    runs["momentum"] = runs["momentum"].where(runs["optimizer"] == "sgd")
    runs = runs.assign(schedule="cosine", beta=0.85, weight_decay=1e-3, train_images=900, **SIZE)
    runs["test_top1"] = effect(runs, rng)
    return runs


def test_forest_finds_the_hyper_parameter_that_acts():
    runs = random_sweep(lambda runs, rng: 0.7 + 0.1 * np.log10(runs["lr"]) + 0.002 * rng.normal(size=len(runs)))
    fields = sweeps.varied(runs)
    assert fields == ["lr", "optimizer", "momentum", "lam", "batch_size"]
    (score, low, high), rows = sweeps.forest_importance(runs, fields, resamples=10)
    assert 0.5 < low <= score <= high <= 1
    assert rows["field"][0] == "lr"
    assert rows["low"][0] > 1 > rows["high"][1:].max()  # points; the others do nothing
    assert sweeps.forest_importance(runs, fields, resamples=10)[1].equals(rows)


def test_forest_says_when_settings_decide_nothing():
    runs = random_sweep(lambda runs, rng: rng.uniform(0.5, 0.9, len(runs)))
    (score, low, _), _ = sweeps.forest_importance(runs, sweeps.varied(runs), resamples=10)
    assert low < 0
    assert score < 0.2


def test_the_values_of_one_hyper_parameter_side_by_side():
    """Two learning rates by two lambdas; Adam, which takes no momentum, was run with one of them alone."""
    runs = random_sweep(lambda runs, rng: 0.0, n=5)
    runs = runs.assign(
        lr=[0.1, 0.1, 0.01, 0.01, 0.1], lam=[1.0, 3.0, 1.0, 3.0, 1.0], optimizer=["sgd"] * 4 + ["adam"],
        momentum=[0.9] * 4 + [np.nan], batch_size=64, test_top1=[0.5, 0.6, 0.4, 0.3, 0.9],
    )  # fmt: skip
    table = sweeps.by_value(runs, "lam")
    assert table.to_numpy().tolist() == [pytest.approx([40, 30]), pytest.approx([50, 60])]
    assert table.columns.tolist() == [1, 3]
    assert sweeps.wins(table) == "1 in 1, 3 in 1"
    tied = pd.DataFrame({"sgd": [0.5, 0.7], "adam": [0.5, 0.6]})
    assert sweeps.wins(tied) == "sgd in 1, adam in 0"


def test_forest_needs_runs():
    runs = random_sweep(lambda runs, rng: 0.5, n=12)
    runs.loc[:2, "status"] = "diverged"
    with pytest.raises(ValueError, match="9 finished runs; it takes at least 10"):
        sweeps.forest_importance(runs, ["lr"])


def pairs(test, held_out, images=100) -> pd.DataFrame:
    runs = pd.DataFrame({"run_id": [f"run{i}" for i in range(len(test))], "status": "finished"})
    runs = runs.assign(test_top1=test, held_out_top1_noisy=held_out)
    return runs.assign(held_out_images=images, test_images=100 * images, noise_realized=0.18)


def test_regret_is_what_the_chosen_setting_lacks():
    by_noise, by_test = sweeps.selection(pairs([0.70, 0.80, 0.78], [0.60, 0.64, 0.66])).itertuples(index=False)
    assert (by_noise.run_id, by_test.run_id) == ("run2", "run1")
    assert (by_noise.chosen_at, by_noise.test, by_noise.regret) == pytest.approx((66, 78, 2))
    # On 100 images (deviation 5 points) chance may choose any of the three by noisy labels, not on 10,000.
    assert (by_noise.low, by_noise.high) == pytest.approx((0, 10))
    assert (by_test.regret, by_test.low, by_test.high) == (0, 0, 0)
    many = sweeps.selection(pairs([0.70, 0.80, 0.78], [0.60, 0.64, 0.66], images=1_000_000)).iloc[0]
    assert (many["regret"], many["low"], many["high"]) == pytest.approx((2, 2, 2))


def test_optimism_of_the_best_of_equals_is_the_expected_maximum():
    """Of k settings of one accuracy p the winner on n images exceeds p by about sqrt(p (1 - p) / n) E max of k normals,
    and E max of 3 standard normals is 3 / (2 sqrt(pi))."""
    by_noise, by_test = sweeps.selection(pairs([0.8] * 3, [0.5] * 3, images=400)).itertuples(index=False)
    expected = 100 * 1.5 / np.sqrt(np.pi)
    assert by_noise.optimism == pytest.approx(expected * np.sqrt(0.25 / 400), rel=0.06)
    assert by_test.optimism == pytest.approx(expected * np.sqrt(0.16 / 40_000), rel=0.06)


@pytest.mark.parametrize(("settings", "spread"), [(112, 0.0), (20, 0.005), (20, 0.05)])
def test_optimism_is_estimated_from_accuracies_that_have_noise_themselves(settings, spread):
    """Settings whose true accuracies are known: what their measured winner really lacks, in the mean of many sweeps."""
    rng = np.random.default_rng(0)
    really, estimated = [], []
    for _ in range(60):
        true = 0.7 + spread * rng.standard_normal(settings)
        measured = rng.binomial(1000, true) / 1000
        really.append(100 * (measured.max() - true[measured.argmax()]))
        estimated.append(sweeps.selection(pairs(true, measured, images=1000), resamples=200).iloc[0]["optimism"])
    error = np.std(really) / np.sqrt(len(really))
    assert np.mean(estimated) == pytest.approx(np.mean(really), abs=4 * error)
    if spread < 0.05:  # what measured accuracies in place of the true ones would give is well below
        assert np.mean(estimated) > 0.85 * np.mean(really)


def test_selection_needs_held_out_images():
    for runs in (pairs([], []), pairs([0.5], [np.nan]), pairs([0.5], [0.5]).drop(columns="held_out_top1_noisy")):
        with pytest.raises(ValueError, match="finished runs that held out images"):
            sweeps.selection(runs)


def test_parallel_coordinates_show_every_run_and_the_chosen_ones():
    runs = random_sweep(lambda runs, rng: 0.7 + 0.1 * np.log10(runs["lr"]))
    fields = {field: sweeps.FIELDS[field] for field in sweeps.varied(runs)}
    figure = plots.sweep(runs, fields, sweeps.NAMES, {"run3": "chosen"}, sweeps.describe(runs))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()][-1] == "test accuracy, %"
    lines = [line for line in axes.lines if len(line.get_xdata()) == len(fields) + 1]
    assert len(lines) == 40 + 1
    chosen = lines[-1].get_ydata()
    lr = np.log10(runs["lr"])
    assert chosen[0] == pytest.approx((lr[3] - lr.min()) / (lr.max() - lr.min()))
    assert chosen[-1] == pytest.approx(chosen[0])  # accuracy follows log lr here
    without = sum(line.get_ydata()[2] < 0 for line in lines[:-1])
    assert without == (runs["optimizer"] == "adam").sum()  # Adam has no momentum
    assert figure.get_suptitle() == "40 runs, digits scale: digits, 900 images, small_resnet, 8 epochs"


def test_pictures_of_importance_and_selection():
    rows = pd.DataFrame({"field": ["lr", "lam"], "importance": [3.0, 0.1], "low": [2.0, -0.1], "high": [4.0, 0.2]})
    axes = plots.importance(rows, sweeps.NAMES, "title").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["learning rate", "λ"]
    runs = pairs([0.70, 0.80], [0.60, 0.64])
    axes = plots.selection(runs, sweeps.selection(runs), 0.18, "title").axes[0]
    expected = axes.lines[0].get_xydata()
    # At 80 % true accuracy: 0.8 of the right labels, and 1/9 of the wrong ones by luck of the draw.
    assert expected[1] == pytest.approx((80, 80 * 0.82 + 20 * 0.18 / 9))
