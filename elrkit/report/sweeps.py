"""What a hyper-parameter sweep says: which settings matter, how surely, and what it costs to choose by noisy labels.

    >>> runs_of_a_sweep = records.table(records)                                        # doctest: +SKIP
    >>> fields = varied(runs_of_a_sweep)                                             # doctest: +SKIP
    >>> score, importance = forest_importance(runs_of_a_sweep, fields)              # doctest: +SKIP

All take `elrkit.runs.table` of runs of one sweep; diverged runs are left out. Accuracies in percent, differences in
percentage points. Intervals are 95 % percentiles over bootstrap resamples of the settings, so they say what another
draw of settings might have shown, not what another seed of the same settings would.
"""

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import r2_score

FIELDS = {  # the hyper-parameters that a sweep may vary, and how an axis shows them
    "lr": "log", "optimizer": "category", "schedule": "category", "momentum": "linear", "weight_decay": "linear",
    "lam": "log", "beta": "linear", "batch_size": "category",
}  # fmt: skip
NAMES = {
    "lr": "learning rate", "optimizer": "optimizer", "schedule": "schedule", "momentum": "momentum",
    "weight_decay": "weight decay", "lam": "λ", "beta": "β", "batch_size": "batch",
}  # fmt: skip
FEWEST = 10  # finished runs under which no forest is grown and no resample drawn


def varied(runs: pd.DataFrame) -> list[str]:
    """The hyper-parameters of FIELDS that take more than one value."""
    return [field for field in FIELDS if runs[field].nunique() > 1]


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that ended with an accuracy."""
    return runs[runs["status"] == "finished"].reset_index(drop=True)


def describe(runs: pd.DataFrame) -> str:
    """What the runs of a sweep share, for the title of a figure."""
    first = runs.iloc[0]
    return (
        f"{len(runs)} runs, {first['scale']} scale: {first['dataset']}, {first['train_images']:,} images, "
        f"{first['model']}, {first['epochs']} epochs"
    )


def forest_importance(
    runs: pd.DataFrame, fields: list[str], resamples: int = 30, seed: int = 0
) -> tuple[tuple[float, float, float], pd.DataFrame]:
    """How well a random forest predicts test accuracy from the settings, and by which of them.

    Each resample draws as many runs as there are, with replacement; a forest grown on them predicts the runs that were
    not drawn. Returns R^2 of the mean of these predictions of each run, with its interval (over resamples of the runs),
    and one row per hyper-parameter, most important first: field, importance, low, high: by how many points the root
    mean square error on the undrawn runs grows when the values of that column are shuffled among them (mean and
    interval over the resamples). Where R^2 does not exceed zero the forest knows nothing and importances mean nothing.

    Raises ValueError for fewer than FEWEST finished runs.
    """
    runs = finished(runs)
    if len(runs) < FEWEST:
        raise ValueError(f"forest_importance: {len(runs)} finished runs; it takes at least {FEWEST}")
    inputs = pd.DataFrame({field: _number(runs[field]) for field in fields})
    accuracy = 100 * runs["test_top1"].to_numpy(dtype=float)
    rng = np.random.default_rng(seed)
    predicted, grown = np.full((resamples, len(runs)), np.nan), []
    while len(grown) < resamples:
        drawn = rng.integers(len(runs), size=len(runs))
        undrawn = np.setdiff1d(np.arange(len(runs)), drawn)
        if len(undrawn) < 2:
            continue
        forest = RandomForestRegressor(n_estimators=50, random_state=int(rng.integers(2**31)))
        forest.fit(inputs.iloc[drawn], accuracy[drawn])
        rest = inputs.iloc[undrawn], accuracy[undrawn]
        predicted[len(grown), undrawn] = forest.predict(rest[0])
        found = permutation_importance(
            forest, *rest, scoring="neg_root_mean_squared_error", n_repeats=3, random_state=int(rng.integers(2**31))
        )
        grown.append(found.importances_mean)
    known = np.flatnonzero(np.isfinite(predicted).any(axis=0))
    mean = np.nanmean(predicted[:, known], axis=0)
    again = rng.integers(len(known), size=(1000, len(known)))
    scores = [r2_score(accuracy[known][picked], mean[picked]) for picked in again]
    score = (r2_score(accuracy[known], mean), *map(float, np.percentile(scores, [2.5, 97.5])))
    low, high = np.percentile(grown, [2.5, 97.5], axis=0)
    rows = pd.DataFrame({"field": fields, "importance": np.mean(grown, axis=0), "low": low, "high": high})
    return score, rows.sort_values("importance", ascending=False, ignore_index=True)


def _number(values: pd.Series) -> pd.Series:
    """A column for the forest: categories numbered; Adam's missing momentum filled with the median, so that the
    column says nothing about the optimizer."""
    if FIELDS[values.name] == "category":
        return values.astype("category").cat.codes
    values = pd.to_numeric(values)
    return values.fillna(values.median())


def by_value(runs: pd.DataFrame, field: str) -> pd.DataFrame:
    """Test accuracy in percent by the values of one hyper-parameter (columns), a row for each setting of the others
    that was run with all of its values."""
    others = [name for name in varied(runs) if name != field]
    numbers = runs.assign(test=100 * runs["test_top1"])
    table = numbers.pivot_table(index=others, columns=field, values="test", dropna=False)
    return table.dropna().rename_axis(index=NAMES, columns=NAMES)


def wins(table: pd.DataFrame) -> str:
    """In how many rows of `by_value` each value alone is best: "3.2 in 4, 3.4 in 1"."""
    best = table.eq(table.max(axis=1), axis=0)
    alone = best[best.sum(axis=1) == 1].sum()
    return ", ".join(
        f"{value if isinstance(value, str) else f'{value:g}'} in {count}" for value, count in alone.items()
    )


CHOICES = {"held_out_top1_noisy": "held-out images, noisy labels", "test_top1": "test images"}


def selection(runs: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The setting that each way of choosing picks, and what it costs; one row per way of `CHOICES`, last epochs.

    Columns: chosen_by, run_id, its accuracy by that measure (chosen_at) and on the test images (test); regret: how far
    that lies below the best test accuracy of the sweep, which is measured too and has its own luck in it; optimism: by
    how much the measure's noise alone flatters its winner. For that `resamples` draws of a binomial number of right
    images (as many as there were) choose a winner each among settings as good as `_less_noise` has them; low, high:
    95 % of the regrets of these winners. Errors on the same images are shared by the settings, which this ignores, and
    which makes the noise between them smaller.

    Raises ValueError without a finished run that held images out.
    """
    runs = finished(runs)
    if runs.empty or "held_out_top1_noisy" not in runs or runs["held_out_top1_noisy"].isna().any():
        raise ValueError("selection: it takes finished runs that held out images (split='held_out')")
    test = runs["test_top1"].to_numpy(dtype=float)
    rng = np.random.default_rng(seed)
    sizes = {"held_out_top1_noisy": runs["held_out_images"], "test_top1": runs["test_images"]}
    rows = []
    for measure, name in CHOICES.items():
        by = runs[measure].to_numpy(dtype=float)
        best = int(by.argmax())
        size = sizes[measure].to_numpy(dtype=int)
        good = _less_noise(by, size)
        repeated = rng.binomial(size, good, size=(resamples, len(runs))) / size
        winners = repeated.argmax(axis=1)
        low, high = np.percentile(test.max() - test[winners], [2.5, 97.5])
        optimism = (repeated.max(axis=1) - good[winners]).mean()
        numbers = [by[best], test[best], test.max() - test[best], low, high, optimism]
        rows.append((name, runs["run_id"][best], *(100 * float(number) for number in numbers)))
    columns = ["chosen_by", "run_id", "chosen_at", "test", "regret", "low", "high", "optimism"]
    return pd.DataFrame(rows, columns=columns)


def _less_noise(measured: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Accuracies (n,), measured on `size` images each, drawn together until their variance is what is left of it
    without that of counting finitely many images: the spread that the settings themselves have."""
    if len(measured) < 2 or not measured.var():
        return measured
    counting = (measured * (1 - measured) / size).mean()
    kept = max(0.0, 1 - counting / measured.var(ddof=1)) ** 0.5
    return measured.mean() + kept * (measured - measured.mean())
