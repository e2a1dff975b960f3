"""The arms of an experiment set against one another: what a single setting does to the test accuracy, seed by seed.

The runs of a plan that share noise rate, loss and seed differ from the first of them, the plain run, in a few settings;
`changed` names these, and an `Arm` is one such set of names. `compare` puts numbers to a list of arms: `LADDER` and
`SAM_LADDER` lead from the recipe as the paper describes it to the recipe as its code ran it, one change a rung, and
`SAM_ARMS` are the cells of the paper's Figure 5 with SGD at the cost of SAM. All accuracies here are in percent.
"""

import re
from collections.abc import Iterator, Sequence
from math import nan
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from elrkit import records as store
from elrkit.config import ELR_CIFAR10, RunConfig
from elrkit.report import networks as flops
from elrkit.report import paper

LOSS_NAMES = {"ce": "CE", "elr": "ELR"}


class Arm(NamedTuple):
    """One set of runs that are equal but for the seed.

    changes  what `changed` finds in them
    before   the name of the arm that this one is one change away from
    measure  the curve whose last epoch counts
    single   a change on its own, outside the ladder
    """

    name: str
    changes: frozenset[str] = frozenset()
    before: str | None = None
    measure: str = "test_top1"
    single: bool = False


def _arm(name: str, changes: str = "", before: str | None = None, **fields) -> Arm:
    return Arm(name, frozenset(changes.split()), before, **fields)


FROZEN = "augmentation=frozen"
FLOAT16 = f"{FROZEN} precision=float16_fresh_scaler"
LADDER = (
    _arm("as described"),
    _arm("crops and flips drawn once", FROZEN, "as described"),
    _arm("float16, new loss scaler each batch", FLOAT16, "crops and flips drawn once"),
    _arm("only: counted on noisy test labels", "", "as described", measure="test_top1_noisy", single=True),
    _arm("drawn once, ELR with β 0.3", f"{FROZEN} beta", "crops and flips drawn once", single=True),
    _arm("only: never the true class", "noise_convention=others", "as described", single=True),
    _arm("only: a tenth held out", "split=held_out", "as described", single=True),
)
CODE = "lr weight_decay"
SGD_BESIDE_SAM = "no weight decay, cosine restarts, SGD"  # all settings of the code that ran SAM, but SAM
DOUBLE = "sam_rho sam_double_update"
SAM_LADDER = (
    _arm("SGD, as described"),
    _arm("learning rate times 5", "lr", "SGD, as described"),
    _arm("no weight decay", CODE, "learning rate times 5"),
    _arm("SAM", f"{CODE} sam_rho", "no weight decay"),
    _arm("batch norm, targets moved twice", f"{CODE} {DOUBLE}", "SAM"),
    _arm("cosine restarts, fewer epochs", f"{CODE} {DOUBLE} schedule=cosine", "batch norm, targets moved twice"),
    _arm("only: no weight decay", "weight_decay", "SGD, as described", single=True),
    _arm("only: SAM", "sam_rho", "SGD, as described", single=True),
    _arm("SAM, batch norm moved twice", f"{DOUBLE} sam_double_update_of=batch_norm", "only: SAM", single=True),
    _arm("SAM, targets moved twice", f"{DOUBLE} sam_double_update_of=targets", "only: SAM", single=True),
    _arm("SAM, both moved twice", DOUBLE, "only: SAM", single=True),
    _arm(SGD_BESIDE_SAM, f"{CODE} schedule=cosine", "no weight decay", single=True),
)
SAM_ARMS = (
    _arm("SGD"),
    _arm("SGD, twice the epochs", "epochs", "SGD"),
    _arm("SAM", "sam_rho", "SGD, twice the epochs"),
)

_SCHEDULE = frozenset(("epochs", *paper.FOLLOWS["schedule"]))


def changed(config: RunConfig, plain: RunConfig) -> frozenset[str]:
    """What sets `config` apart from `plain`: names of fields, with the value where it is a word (split=held_out).

    What follows from the schedule (milestones, restarts, and epochs where the schedule itself differs) is left out.
    """
    now, then = config.model_dump(), plain.model_dump()
    fields = {name for name in now if now[name] != then[name]}
    fields -= _SCHEDULE if "schedule" in fields else _SCHEDULE - {"epochs"}
    return frozenset(f"{name}={now[name]}" if isinstance(now[name], str) else name for name in fields)


def compare(configs: Sequence[RunConfig], records: Sequence[dict], arms: Sequence[Arm]) -> pd.DataFrame:
    """One row for each noise rate, loss and arm that the plan `configs` holds; runs without a record count as not run.

    configs  a plan at one scale, of which the first run of each noise rate, loss and seed is the plain one

    Columns: scale, noise_rate, loss, arm, single, planned (runs), seeds (finished), epochs, diverged; mean, low, high:
    accuracy at the last epoch and its 95 % t interval over seeds (NaN for one seed); values (seed -> accuracy); change,
    change_low, change_high, change_seeds: to the arm before; total, total_low, total_high, total_seeds: to the plain
    run, and at_best, at_best_low, at_best_high: total with each run at its best epoch; all within a seed. skipped:
    steps that the loss scaler skipped, per run (NaN without a scaler); seconds and tflop of one training, means over
    seeds; alone: whether no run's command trained another beside it; run_ids (tuple).

    The arm on noisy test labels is left out where no label is wrong. Raises ValueError for configs of several scales.
    """
    scales = {store.scale(config) for config in configs}
    if len(scales) > 1:
        raise ValueError(f"compare: runs of the scales {', '.join(sorted(scales))}; give the plan of one")
    cells: dict[tuple, dict[frozenset, dict[int, RunConfig]]] = {}
    plain: dict[tuple, RunConfig] = {}
    for config in configs:
        cell = config.noise_rate, config.loss
        first = plain.setdefault((*cell, config.seed), config)
        cells.setdefault(cell, {}).setdefault(changed(config, first), {})[config.seed] = config
    by_id = {record["run_id"]: record for record in records}
    tflop = dict(zip(by_id, 1000 * flops.of_runs(by_id.values())["training_pflop"], strict=True))
    rows = []
    for (rate, loss), planned in cells.items():
        values: dict[str, dict[int, float]] = {}
        best: dict[str, dict[int, float]] = {}
        for arm in arms:
            if arm.changes not in planned or (arm.measure == "test_top1_noisy" and not rate):
                continue
            found = {seed: by_id.get(config.run_id) for seed, config in sorted(planned[arm.changes].items())}
            done = {seed: record for seed, record in found.items() if record and record["status"] == "finished"}
            mine = {seed: 100 * record["curves"][arm.measure][-1] for seed, record in done.items()}
            values[arm.name] = mine
            mean, low, high, _ = _interval(mine.values())
            change = _interval(_within_seed(mine, values.get(arm.before, {})))
            best[arm.name] = {
                seed: 100 * max(value for value in record["curves"][arm.measure] if value is not None)
                for seed, record in done.items()
            }
            total, at_best = (
                _interval(_within_seed(of[arm.name], of.get(arms[0].name, {})) if arm != arms[0] else ())
                for of in (values, best)
            )
            skipped = [sum(r["curves"]["skipped_steps"]) for r in done.values() if "skipped_steps" in r["curves"]]
            rows.append(
                {
                    "scale": next(iter(scales)), "noise_rate": rate, "loss": loss, "arm": arm.name,
                    "single": arm.single, "planned": len(found), "seeds": len(done),
                    "epochs": next(iter(planned[arm.changes].values())).epochs,
                    "diverged": sum(record["status"] == "diverged" for record in found.values() if record),
                    "mean": mean, "low": low, "high": high, "values": mine,
                    **dict(zip(("change", "change_low", "change_high", "change_seeds"), change, strict=True)),
                    **dict(zip(("total", "total_low", "total_high", "total_seeds"), total, strict=True)),
                    **dict(zip(("at_best", "at_best_low", "at_best_high"), at_best[:3], strict=True)),
                    "skipped": _mean(skipped), "seconds": _mean(r["timing"]["seconds"] for r in done.values()),
                    "tflop": _mean(tflop[record["run_id"]] for record in done.values()),
                    "alone": all(record["timing"].get("jobs") == 1 for record in done.values()),
                    "run_ids": tuple(record["run_id"] for record in done.values()),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _within_seed(mine: dict[int, float], other: dict[int, float]) -> list[float]:
    return [value - other[seed] for seed, value in mine.items() if seed in other]


def _interval(values) -> tuple[float, float, float, int]:
    """Mean and 95 % t interval, whose ends are NaN below two values; how many values."""
    values = list(values)
    return *paper.t_interval(values), len(values)


def _mean(values) -> float:
    values = list(values)
    return float(np.mean(values)) if values else nan


def beside_published(rows: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """`rows` of `compare` with the cell of the paper's Table 1 (CIFAR-10, multi-step) beside each at paper scale.

    Adds published, tolerance (of the ledger, `elrkit.report.paper.tolerance`) and lands: the ledger's answer
    (`elrkit.report.paper.against_number`), None where that is open. Nothing where the scale is another or the training has not
    the paper's length, so that its level is no comparison.
    """
    cells = _table1_cells(published)
    rows = rows.assign(published=nan, tolerance=nan, lands=None)
    for index, row in rows.iterrows():
        number = cells.get((row["noise_rate"], row["loss"]))
        comparable = row["scale"] == "paper" and row["epochs"] in paper.PAPER_DATASET["cifar10"]["epochs"]
        if not comparable or number is None:
            continue
        rows.at[index, "published"] = number.mean
        if row["seeds"] >= paper.ENOUGH_SEEDS:
            state, _, tolerance = paper.against_number(list(row["values"].values()), number.mean, number.std)
            rows.at[index, "tolerance"] = tolerance
            rows.at[index, "lands"] = {"yes": True, "no": False}.get(state)
    return rows


def _table1_cells(published: pd.DataFrame) -> dict[tuple[float, str], tuple]:
    """The paper's Table 1, CIFAR-10, multi-step: (noise rate, loss) -> its row."""
    table = published[
        (published["source"] == "galatolo2021") & (published["table"] == "Table 1")
        & (published["dataset"] == "cifar10") & (published["schedule"] == "multistep")
    ]  # fmt: skip
    return {(float(n.noise_rate), n.loss): n for n in table.itertuples()}


def sam_gain(rows: pd.DataFrame) -> pd.DataFrame:
    """What SAM adds to SGD of as many epochs, and of the same cost, in points; `rows`: `compare` of `SAM_ARMS`. One row
    per noise rate and loss."""
    found = []
    for row in rows[rows["arm"] == "SAM"].itertuples():
        found.append(
            {
                "noise": f"{100 * row.noise_rate:g} %",
                "loss": LOSS_NAMES[row.loss],
                "SAM - SGD": _points(row.total, row.total_low, row.total_high) or "not run yet",
                "at best epochs": _points(row.at_best, row.at_best_low, row.at_best_high),
                "seeds": row.total_seeds or "",
                "SAM - SGD, twice the epochs": _points(row.change, row.change_low, row.change_high),
                "seeds ": row.change_seeds or "",
            }
        )
    return pd.DataFrame(found)


def cost_text(rows: pd.DataFrame) -> pd.DataFrame:
    """What the arms of `compare` cost in training, beside their accuracy, as a person reads it. Seconds are set in
    proportion only where no run shared its device: those of runs side by side do not compare; without any that column
    is left out."""
    first = rows.groupby(["noise_rate", "loss"])[["tflop", "seconds", "alone"]].transform(lambda column: column.iloc[0])
    ratio = rows[["tflop", "seconds"]] / first[["tflop", "seconds"]]
    ratio["seconds"] = ratio["seconds"].where(rows["alone"] & first["alone"])
    text = pd.DataFrame(
        {
            "noise": (100 * rows["noise_rate"]).map("{:g} %".format),
            "loss": rows["loss"].map(LOSS_NAMES),
            "run": rows["arm"],
            "TFLOP": rows["tflop"].map(lambda x: "not run yet" if np.isnan(x) else f"{x:,.{0 if x >= 100 else 2}f}"),
            "times SGD's": ratio["tflop"].map(lambda x: "" if np.isnan(x) else f"{x:.2f}"),
            "seconds": rows["seconds"].map(lambda x: "" if np.isnan(x) else f"{x:.0f}"),
            "times SGD's ": ratio["seconds"].map(lambda x: "" if np.isnan(x) else f"{x:.2f}"),
            "test accuracy, %": [_points(r.mean, r.low, r.high, "") for r in rows.itertuples(name="Row")],
            "seeds": [seeds or "" for seeds in rows["seeds"]],
        }
    )
    return text if ratio["seconds"].notna().any() else text.drop(columns="times SGD's ")


def _points(mean: float, low: float, high: float, sign: str = "+") -> str:
    """A mean with its interval, if there is one: +1.20 (+0.80 to +1.60)."""
    mean, low, high = (round(value, 2) + 0.0 for value in (mean, low, high))  # no minus sign before a zero
    text = "" if np.isnan(mean) else f"{mean:{sign}.2f}"
    return text if np.isnan(low) else f"{text} ({low:{sign}.2f} to {high:{sign}.2f})"


def change_text(row: pd.Series, name: str = "change") -> str:
    """`change` or `total` of a row of `compare`, or `gain` of `elr_gain`, with its interval, if there is one."""
    return _points(row[name], row[f"{name}_low"], row[f"{name}_high"])


def as_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `compare` as a person reads them; columns that hold nothing anywhere are left out."""

    def accuracy(row: pd.Series) -> str:
        diverged = f"{row['diverged']} diverged" if row["diverged"] else ""
        return ", ".join(filter(None, (_points(row["mean"], row["low"], row["high"], ""), diverged))) or "not run yet"

    most = rows.groupby(["noise_rate", "loss"])["seeds"].transform("max")

    def changes(name: str) -> list[str]:
        """With their seeds where other runs of the cell have more: there a change is no difference of the means."""
        return [
            text + (f", {seeds} seed{'s' * (seeds > 1)}" if text and seeds < known else "")
            for (_, row), known in zip(rows.iterrows(), most, strict=True)
            for text, seeds in [(change_text(row, name), row[f"{name}_seeds"])]
        ]

    def verdict(row: pd.Series) -> str:
        if row.get("lands") is None or pd.isna(row["published"]):
            return ""
        return f"{'within' if row['lands'] else 'not within'} {row['tolerance']:.2f} of {row['published']:.2f}"

    text = pd.DataFrame(
        {
            "noise": (100 * rows["noise_rate"]).map("{:g} %".format),
            "loss": rows["loss"].map(LOSS_NAMES),
            "run": rows["arm"],
            "test accuracy, %": [accuracy(row) for _, row in rows.iterrows()],
            "to the run before": changes("change"),
            "to the first": changes("total"),
            "seeds": [row["seeds"] or "" for _, row in rows.iterrows()],
            "steps skipped": rows["skipped"].map(lambda n: "" if np.isnan(n) else f"{n:g}"),
            "published cell": [verdict(row) for _, row in rows.iterrows()],
        }
    )
    always = ("noise", "loss", "run", "test accuracy, %", "to the run before", "to the first", "seeds")
    return text[[name for name in text if name in always or (text[name] != "").any()]]


def noisy_label_cost(configs: Sequence[RunConfig], records: Sequence[dict]) -> pd.DataFrame:
    """What counting accuracy on noisy test labels costs: computed beside measured, in points.

    Of C classes and a rate p a share q of the labels is wrong: q = p (C - 1) / C where the new label is drawn from all
    classes, p where never from the true one. A network that is right with probability a, and otherwise names each wrong
    class equally often, agrees with a (1 - q) + (1 - a) q / (C - 1) of the noisy labels; so the count falls by
    q (a - (1 - a) / (C - 1)), which is q for a perfect network.

    One row per noise rate, convention and loss of the finished runs with symmetric noise: wrong (100 q), computed,
    measured, lowest and highest measured (over runs), and runs.
    """
    rows = []
    wanted = {config.run_id: config for config in configs if config.noise == "symmetric"}
    for record in records:
        config = wanted.get(record["run_id"])
        if config is None or record["status"] != "finished":
            continue
        classes, accuracy = record["data"]["classes"], record["curves"]["test_top1"][-1]
        wrong = config.noise_rate * ((classes - 1) / classes if config.noise_convention == "all" else 1)
        rows.append(
            {
                "noise_rate": config.noise_rate,
                "convention": config.noise_convention,
                "loss": config.loss,
                "wrong": 100 * wrong,
                "computed": 100 * wrong * (accuracy - (1 - accuracy) / (classes - 1)),
                "measured": 100 * (accuracy - record["curves"]["test_top1_noisy"][-1]),
            }
        )
    columns = ["noise_rate", "convention", "loss", "wrong", "computed", "measured", "lowest", "highest", "runs"]
    if not rows:
        return pd.DataFrame(columns=columns)
    groups = pd.DataFrame(rows).groupby(columns[:3], sort=False)
    return groups.agg(
        wrong=("wrong", "mean"), computed=("computed", "mean"), measured=("measured", "mean"),
        lowest=("measured", "min"), highest=("measured", "max"), runs=("measured", "size"),
    ).reset_index()  # fmt: skip


def memorized(configs: Sequence[RunConfig], records: Sequence[dict]) -> pd.DataFrame:
    """Wrong labels that the ladder's rungs memorized, in percent, as a person reads it: of the images as they are, and
    of the same images as they were cropped in the last epoch's batches. Rungs without a record are left out."""
    parts = {}
    for column, measure in (("the images as they are", "wrong_memorized"), ("as cropped", "batches_wrong_memorized")):
        rows = _rungs(configs, records, measure)
        parts[column] = [_points(row["mean"], row["low"], row["high"], "") for _, row in rows.iterrows()]
    if not len(rows):
        return pd.DataFrame(columns=["noise", "loss", "run", *parts, "seeds"])
    where = {"noise": (100 * rows["noise_rate"]).map("{:g} %".format), "loss": rows["loss"].map(LOSS_NAMES)}
    return pd.DataFrame({**where, "run": rows["arm"], **parts, "seeds": rows["seeds"]})


def elr_memorizes(configs: Sequence[RunConfig], records: Sequence[dict]) -> str:
    """In words: the wrong labels that ELR memorizes on the ladder's rungs, in percent, in the last epoch's batches."""
    rows = _rungs([config for config in configs if config.loss == "elr"], records, "batches_wrong_memorized")
    if not len(rows):
        return "ELR not run yet"
    parts = (
        f"{row.mean:.0f} % ({row.arm}, {100 * row.noise_rate:g} % noise, {row.seeds} seed{'s' * (row.seeds > 1)})"
        for row in rows.itertuples()
    )
    return (
        f"of the wrong labels, as cropped, ELR memorizes {', '.join(parts)}; Figure 2 of the paper has a small fraction"
    )


def _rungs(configs: Sequence[RunConfig], records: Sequence[dict], measure: str) -> pd.DataFrame:
    """`compare` of the ladder's rungs (no single change) by `measure`, where there is noise; rungs without a record
    left out."""
    arms = [arm._replace(measure=measure) for arm in LADDER if not arm.single]
    rows = compare([config for config in configs if config.noise_rate], records, arms)
    return rows[rows["seeds"] > 0] if len(rows) else rows


def elr_gain(rows: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
    """What ELR adds to cross-entropy at each arm of `compare` that both have, in points, within a seed.

    One row per noise rate and arm: noise_rate, arm, single; ce, elr (means over the seeds that both have), gain,
    gain_low, gain_high (95 % t interval, NaN for one seed), seeds; published: the same difference of the paper's Table
    1 (CIFAR-10, multi-step), NaN where it has no such cells or `published` is None.
    """
    cells = {} if published is None else _table1_cells(published)
    found = []
    for (rate, arm), pair in rows.groupby(["noise_rate", "arm"], sort=False):
        by_loss = pair.set_index("loss")["values"]
        if not {"ce", "elr"} <= set(by_loss.index):
            continue
        ce, elr = by_loss["ce"], by_loss["elr"]
        both = sorted(ce.keys() & elr.keys())
        if not both:
            continue
        gain = dict(
            zip(("gain", "gain_low", "gain_high", "seeds"), _interval(elr[s] - ce[s] for s in both), strict=True)
        )
        theirs = [cells[rate, loss].mean if (rate, loss) in cells else nan for loss in ("elr", "ce")]
        found.append(
            {
                "noise_rate": rate, "arm": arm, "single": bool(pair["single"].iloc[0]),
                "ce": _mean(ce[s] for s in both), "elr": _mean(elr[s] for s in both), **gain,
                "published": theirs[0] - theirs[1],
            }
        )  # fmt: skip
    columns = ["noise_rate", "arm", "single", "ce", "elr", "gain", "gain_low", "gain_high", "seeds", "published"]
    return pd.DataFrame(found, columns=columns)


def elr_gain_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `elr_gain` as a person reads them."""
    return pd.DataFrame(
        {
            "noise": (100 * rows["noise_rate"]).map("{:g} %".format),
            "run": rows["arm"],
            "CE, %": rows["ce"].map("{:.2f}".format),
            "ELR, %": rows["elr"].map("{:.2f}".format),
            "ELR - CE": [change_text(row, "gain") for _, row in rows.iterrows()],
            "seeds": rows["seeds"],
            "ELR - CE in Table 1": rows["published"].map(lambda x: "" if np.isnan(x) else f"{x:+.2f}"),
        }
    )


# What the labels are that are wrong.
LABELS = {
    "none": "no wrong labels",
    "symmetric": "labels redrawn at random",
    "asymmetric": "labels flipped to one class each",
    "human": "labels by people",
    "misfiled": "misfiled products",
}


def kept_from_memory(table: pd.DataFrame) -> pd.DataFrame:
    """How many wrong labels ELR kept from being memorized, beside what it gained: a row per pair of runs.

    table  `elrkit.runs.table`; a run of ELR and one of CE that differ in the loss alone are a pair. Both finished.

    Columns: scale, dataset, precision, labels (a key of `LABELS`), augmentation, schedule, sam (bool), beta, split,
    noise_convention, seed; wrong: percent of the training labels; ce_memorized, elr_memorized: wrong labels
    predicted as labelled in the batches of the last epoch, as the paper's code counted (in the image as augmented,
    where it was learnt), in percent of all training labels; kept: the first less the second; gain: ELR's test
    accuracy on true labels less CE's at the last epoch, in points, best_gain: each at the epoch where it is
    highest, over_best: ELR's at the last epoch less CE's at its best one; setting: what is common to runs that
    differ in the seed alone; run_ids (CE, ELR).
    """
    rows = []
    for run, other, setting in _differing_in("loss", table, "elr", "ce"):
        wrong = 100 * run["noise_realized"]
        if pd.isna(wrong):
            continue
        ce_memorized, elr_memorized = (wrong * r["batches_wrong_memorized"] if wrong else 0.0 for r in (other, run))
        dataset = setting[0]
        rows.append(
            {
                "scale": run["scale"], "dataset": dataset, "precision": run["precision"],
                "labels": "misfiled" if run["noise"] == "none" and wrong else run["noise"],
                "augmentation": run["augmentation"], "schedule": run["schedule"], "sam": bool(run["sam_rho"]),
                "beta": run["beta"], "split": run["split"], "noise_convention": run["noise_convention"],
                "seed": run["seed"], "wrong": wrong,
                "ce_memorized": ce_memorized, "elr_memorized": elr_memorized, "kept": ce_memorized - elr_memorized,
                "gain": 100 * (run["test_top1"] - other["test_top1"]),
                "best_gain": 100 * (run["test_top1_best"] - other["test_top1_best"]),
                "over_best": 100 * (run["test_top1"] - other["test_top1_best"]),
                "setting": (*setting, run["beta"], run["lam"]),
                "run_ids": (other["run_id"], run["run_id"]),
            }
        )  # fmt: skip
    where = ["scale", "dataset", "precision", "labels", "augmentation", "schedule", "sam", "beta", "split"]
    where += ["noise_convention", "seed", "wrong"]
    columns = [*where, "ce_memorized", "elr_memorized", "kept", "gain", "best_gain", "over_best", "setting"]
    return pd.DataFrame(rows, columns=[*columns, "run_ids"]).dropna(subset=["kept"])


def sam_over_all(table: pd.DataFrame) -> pd.DataFrame:
    """What SAM adds to ELR in every setting of `elrkit.runs.table` that was run with and without, in points of test
    accuracy at the last epoch: a row per setting, gain (mean over its seeds) and seeds."""
    as_described = table[(table["loss"] == "elr") & table["sam_double_update"].ne(True)]
    gains: dict[tuple, list[float]] = {}
    for run, other, setting in _differing_in("sam_rho", as_described, 0.05, 0.0):
        gains.setdefault(setting, []).append(100 * (run["test_top1"] - other["test_top1"]))
    rows = [(_mean(values), len(values)) for values in gains.values()]
    return pd.DataFrame(rows, columns=["gain", "seeds"])


def _differing_in(
    field: str, table: pd.DataFrame, this: object, that: object
) -> Iterator[tuple[pd.Series, pd.Series, tuple]]:
    """Pairs of finished runs of one seed that differ in `field` (`this`, `that`) and what follows from it alone, and
    what the pairs of all seeds have in common, the dataset first."""
    same = [name for name in paper.SETTINGS if name not in ("dataset", field, *paper.FOLLOWS[field])]
    done = table[table["status"] == "finished"]

    def setting(run: pd.Series) -> tuple:
        values = (tuple(value) if isinstance(value, list) else value for value in run[same])
        # A made shop is a dataset of its own for each seed, shop/NAME-SEED.npz, with labels wrong from the start.
        dataset = re.sub(r"^(shop/.+)-\d+\.npz$", r"\1", run["dataset"])
        return (dataset, *(None if value != value else value for value in values))  # a missing value is one, not NaN

    def which(run: pd.Series) -> tuple:
        return (run["dataset"], run["seed"], run["noise_seed"], *setting(run))

    others = {which(run): run for _, run in done[done[field] == that].iterrows()}
    for _, run in done[done[field] == this].iterrows():
        if (other := others.get(which(run))) is not None:
            yield run, other, setting(run)


def kept_text(pairs: pd.DataFrame) -> pd.DataFrame:
    """The settings of `kept_from_memory` as a person reads them, those that kept least first."""
    rows = []
    for _, seeds in pairs.groupby("setting", sort=False):
        one, mean = seeds.iloc[0], seeds[["wrong", "ce_memorized", "elr_memorized", "kept"]].mean()
        how = [paper.AUGMENTATIONS[one["augmentation"]], paper.SCHEDULES.get(one["schedule"], one["schedule"])]
        told = {
            "SAM": one["sam"],
            "float16": one["precision"] == "float16_fresh_scaler",
            f"β {one['beta']:g}": one["dataset"] == "cifar10" and one["beta"] != ELR_CIFAR10["beta"],
            "a tenth held out": one["split"] == "held_out",
            "never the true class": one["labels"] == "symmetric" and one["noise_convention"] == "others",
        }
        how += [name for name, has in told.items() if has]
        rows.append(
            {
                "dataset": paper.DATASETS.get(one["dataset"], one["dataset"].replace("/", " ")),
                "labels": one["labels"].replace("human", "people's"),
                "wrong, %": mean["wrong"],
                "training": ", ".join(how),
                "CE memorized, % of all labels": mean["ce_memorized"],
                "ELR memorized, %": mean["elr_memorized"],
                "kept, %": mean["kept"],
                "ELR - CE, points": _points(*_interval(seeds["gain"])[:3]),
                "at best epochs": _points(*_interval(seeds["best_gain"])[:3]),
                "ELR's last - CE's best": _points(*_interval(seeds["over_best"])[:3]),
                "seeds": len(seeds),
            }
        )
    return pd.DataFrame(rows).sort_values("kept, %", kind="stable") if rows else pd.DataFrame()


class Line(NamedTuple):
    """A straight line through the settings' means: its slope with the 95 % t interval, how much of the spread it
    explains, through how many settings, and how many of these are single seeds."""

    slope: float
    low: float
    high: float
    r2: float
    settings: int
    single: int


def gain_per_label(pairs: pd.DataFrame, gain: Literal["gain", "best_gain"] = "gain") -> Line | None:
    """ELR's gain at the last epoch, or at the best ones, as a straight line in the labels it kept from being memorized
    (`kept_from_memory`), least squares over settings, each the mean of its seeds; None below three settings, or when
    all kept as many."""
    groups = pairs.groupby("setting")[["kept", gain]]
    means = groups.mean()
    if len(means) < 3 or means["kept"].nunique() < 2:
        return None
    fit = stats.linregress(means["kept"], means[gain])
    half = stats.t.ppf(0.975, len(means) - 2) * fit.stderr
    single = int((groups.size() == 1).sum())
    return Line(fit.slope, fit.slope - half, fit.slope + half, fit.rvalue**2, len(means), single)


def findings(rows: pd.DataFrame) -> pd.DataFrame:
    """What the ladder says of each noise rate and loss: its largest step, where it ends, and whether that is the
    published cell. `rows` is the result of `compare`, or of `beside_published`; single changes are left out."""
    found = []
    for (rate, loss), cell in rows[~rows["single"]].groupby(["noise_rate", "loss"], sort=False):
        ran, largest, ends = cell[cell["seeds"] > 0], "not run yet", "not run yet"
        if ran["change"].notna().any():
            step = ran.loc[ran["change"].abs().idxmax()]
            seeds = f"{step['change_seeds']} seed{'s' * int(step['change_seeds'] > 1)}"
            largest = f"{step['arm']}: {step['change']:+.2f} ({seeds})"
        last = cell.iloc[-1]
        if last["seeds"]:
            ends = f"{last['mean']:.2f}"
        landed = list(ran.loc[ran["lands"] == True, "arm"]) if "lands" in ran else []  # noqa: E712 (None is neither)
        lands = "" if last.get("lands") is None else "yes" if last["lands"] else "no"
        found.append(
            (
                f"{100 * rate:g} %",
                LOSS_NAMES[loss],
                largest,
                ends,
                lands,
                "; ".join(landed) or ("none" if lands else ""),
            )
        )
    names = ["noise", "loss", "largest step, points", "last rung, %", "lands on the published cell", "rungs that do"]
    return pd.DataFrame(found, columns=names)
