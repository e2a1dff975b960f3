"""What two arms of an experiment differ by: seed by seed, everything else equal, with a 95 % t interval over seeds.

This is the one place where a difference is taken. A **claim** (a row of `claims.csv`) says what is compared, a
**setting** (`SETTINGS`) in which runs; `table` is the long DataFrame claims x settings that the front page shows. Its
mark is computed: ``+`` when the whole interval lies beyond the claim's bound, ``-`` when it lies on the other side,
``~`` when it reaches across; empty under three seeds, whose number is shown and decides nothing.

    >>> found = table(records.table(records.read_all()), load_claims())              # doctest: +SKIP
    >>> say(found, "elr-cifar10", "described", "+", "0.2")                              # doctest: +SKIP
    '+8.4 (+7.1 to +9.7)'

Intervals are Student's t: with three to five seeds a normal one is too short, and a bootstrap, which can only redraw
those few values, is shorter still.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from elrkit import losses, records
from elrkit.config import RunConfig
from elrkit.report import plans

ANY = ...  # of a field: whatever value it has
ENOUGH = 3  # seeds for a mark: with two, an interval is wrong more often than it says


class Setting(NamedTuple):
    """In which runs a claim is asked: what readers call them, the fields that they share, and those of each dataset."""

    label: str
    fields: dict[str, Any]
    of: dict[str, dict[str, Any]]


_PAPER = {"model": "resnet34", "train_size": None, "precision": "bfloat16", "lr": plans.LR}
_SMALL = {name: plans.CPU[name] for name in ("model", "width")}
_SMALL |= {"precision": "bfloat16", "lr": plans.LR_AT_CPU * plans.LR}
# With cosine restarts a run ends with a whole cycle.
_SMALL_OF = {
    dataset: {"train_size": plans.CPU_IMAGES[dataset], "epochs": (plans.CPU_EPOCHS, cycles * plans.CPU_CYCLES)}
    for dataset, cycles in (("cifar10", 12), ("cifar100", 15))
}
_ALL = {"model": "small_resnet", "width": 32, "train_size": None, "lr": 0.05, "precision": "bfloat16"}
_ALL_OF = {dataset: {"epochs": 30} for dataset in ("cifar10", "cifar100")}
_MORE, _MORE_OF = _ALL | {"train_size": 20_000}, {"cifar10": {"epochs": 40}}
SETTINGS = {
    "paper": Setting(
        "ResNet-34, as described",
        _PAPER | {"augmentation": "fresh"},
        {"cifar10": {"epochs": 120}, "cifar100": {"epochs": 150}},
    ),
    "described": Setting("small net, fresh crops", _SMALL | {"augmentation": "fresh"}, _SMALL_OF),
    "frozen": Setting("small net, crops drawn once", _SMALL | {"augmentation": "frozen"}, _SMALL_OF),
    "none": Setting("small net, no crops", _SMALL | {"augmentation": "none"}, _SMALL_OF),
    "all-images": Setting("smaller net, all images, no crops", _ALL | {"augmentation": "none"}, _ALL_OF),
    "more": Setting("smaller net, 20,000 images, fresh crops", _MORE | {"augmentation": "fresh"}, _MORE_OF),
    "more-frozen": Setting(
        "smaller net, 20,000 images, crops drawn once", _MORE | {"augmentation": "frozen"}, _MORE_OF
    ),
    "flips": Setting("smaller net, 20,000 images, flips", _MORE | {"augmentation": "flip"}, _MORE_OF),
}


def shared(setting: str, dataset: str = "cifar10") -> dict[str, Any]:
    """The fields of a setting's plain runs: no SAM, all images train, labels redrawn from all classes or right ones,
    the papers' optimizer and their beta and lambda; what the chapters vary beside that is no run of the setting."""
    _, fields, of = SETTINGS[setting]
    plain = {"sam_rho": 0, "sam_double_update": (None, False), "split": "all", "noise_convention": (None, "all"),
             "optimizer": "sgd", "weight_decay": 1e-3}  # fmt: skip
    elr = {name: (None, value) for name, value in losses.defaults("elr", dataset).items()}
    return {**plain, **elr, **fields, **of.get(dataset, {"epochs": 0}), "dataset": dataset}


# What must be equal for two runs to be the same training but for the seed.
FIELDS = [n for n in RunConfig.model_fields if n not in ("seed", "noise_seed", "eval_every", "test_every")]
# Fields that follow from another one, so cannot be held equal when that one differs.
FOLLOWS = {
    "loss": ("beta", "lam", "loss_alpha", "loss_beta", "loss_q"),
    "sam_rho": ("sam_double_update",),
    "schedule": ("milestones", "gamma", "restart_epochs", "eta_min"),
    "epochs": ("milestones", "restart_epochs"),
    "noise": ("noise_convention", "noise_draw"),
}


class Interval(NamedTuple):
    """A mean over seeds with its 95 % t interval; NaN ends for a single seed, NaN all over for none."""

    mean: float
    low: float
    high: float
    seeds: int


def interval(values: Sequence[float] | pd.Series) -> Interval:
    """Of values (n,), one a seed; those that are missing do not count."""
    known = np.asarray([v for v in values if v is not None and not math.isnan(v)], dtype=float)
    if len(known) < 2:
        return Interval(float(known[0]) if len(known) else math.nan, math.nan, math.nan, len(known))
    half = stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known))
    return Interval(float(known.mean()), float(known.mean() - half), float(known.mean() + half), len(known))


def percent(shares: Sequence[float] | pd.Series) -> Interval:
    """Of shares (n,) in [0, 1], in percent; the ends of the interval are cut where no share can be."""
    found = interval([None if share is None else 100 * share for share in shares])
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 100.0)) if found.seeds > 1 else found


def select(runs: pd.DataFrame, fields: Mapping[str, Any]) -> pd.DataFrame:
    """The finished runs whose columns have these values: one, a tuple of allowed ones, None for no value,
    `ANY`."""
    asked = {name: wanted for name, wanted in fields.items() if wanted is not ANY}
    columns = runs.reindex(columns=list(asked)).to_numpy(object).T
    kept = np.flatnonzero(runs["status"] == "finished")
    for column, wanted in zip(columns, asked.values(), strict=True):
        allowed = wanted if isinstance(wanted, tuple) else (wanted,)
        kept = kept[np.array([(None if v != v else v) in allowed for v in column[kept]], dtype=bool)]  # NaN is no value
    return runs.iloc[kept]


def measured(runs: pd.DataFrame, measure: str) -> pd.Series:
    """A measure of each run, a fraction; NaN where it was not measured."""
    return runs[measure].astype(float) if measure in runs else pd.Series(math.nan, runs.index)


def paired(
    runs: pd.DataFrame, a: Mapping[str, Any], b: Mapping[str, Any], measure: str, measure_b: str | None = None,
    **shared: Any,
) -> pd.DataFrame:  # fmt: skip
    """Arm `a` less arm `b` in percentage points: a row for each pair of runs that are equal in seed and all else.

    runs     `records.table`; the measures are fractions in [0, 1]
    a, b     fields that the arms differ in; they prevail over `shared`, the fields of both

    Columns: the fields that were held equal, seed, difference, run_id, run_id_b.
    """
    free = {*a, *b, *(name for field in (*a, *b) for name in FOLLOWS.get(field, ()))}
    equal = [name for name in (*FIELDS, "seed", "noise_seed") if name not in free and name in runs]
    ours, theirs = (select(runs, {**shared, **arm}) for arm in (a, b))
    partners: dict[tuple[str, ...], list[tuple[str, float]]] = {}
    for key, *run in zip(_keys(theirs, equal), theirs["run_id"], measured(theirs, measure_b or measure), strict=True):
        partners.setdefault(key, []).append(run)
    rows = [
        (*key, 100 * (value - other), run_id, run_id_b)
        for key, run_id, value in zip(_keys(ours, equal), ours["run_id"], measured(ours, measure), strict=True)
        for run_id_b, other in partners.get(key, ())
    ]
    return pd.DataFrame(rows, columns=[*equal, "difference", "run_id", "run_id_b"]).dropna(subset=["difference"])


def _keys(runs: pd.DataFrame, names: list[str]) -> list[tuple[str, ...]]:
    """These fields of each run as text: lists are no keys, and NaN is not even equal to itself."""
    return [tuple(map(str, run)) for run in runs[names].to_numpy(object)]


def difference(runs: pd.DataFrame, a: Mapping, b: Mapping, measure: str, *, measure_b=None, **shared: Any) -> Interval:
    """`paired` as a mean and its interval over seeds."""
    return interval(paired(runs, a, b, measure, measure_b, **shared)["difference"])


def level(runs: pd.DataFrame, measure: str, **fields: Any) -> Interval:
    """A measure of the runs with these fields, in percent, over seeds."""
    return percent(measured(select(runs, fields), measure))


def evidence(extra: Iterable[dict] = ()) -> pd.DataFrame:
    """`records.table` of the committed records that the plans ask for, and of `extra` ones, which a reader trained."""
    planned = {config.run_id for name in plans.PLANS for config in plans.plan(name)}
    planned |= {config.run_id for config in plans.plan("campaign", "paper")}
    chosen = {r["run_id"]: r for r in (*records.read_all(), *extra)}
    given = {record["run_id"] for record in extra}
    return records.table(record for run_id, record in chosen.items() if run_id in planned | given)


def where(runs: pd.DataFrame) -> pd.DataFrame:
    """Where ELR helps, CIFAR-10 at 20 %, multi-step: a row for each net, number of images and epochs, way of cropping.

    Columns: setting (its label, or what differs from the setting `described`), memorized (percent of the wrong labels,
    by CE), kept_out (percent of them that CE memorizes and ELR does not, net), gain and over_best (points: ELR's last
    epoch less CE's last, and less CE's best), seeds.
    """
    sizes = {"model": "{}", "width": "width {:g}", "train_size": "{:,.0f} images", "epochs": "{:g} epochs",
             "augmentation": "augmentation {}"}  # fmt: skip
    usual = {**shared("described"), "epochs": plans.CPU_EPOCHS}
    cell = {**shared("described"), **dict.fromkeys((*sizes, "lr"), ANY), "schedule": "multistep", "noise": "symmetric",
            "noise_rate": 0.2}  # fmt: skip
    pairs = paired(runs, {"loss": "elr"}, {"loss": "ce"}, "test_top1", **cell)
    known = runs.set_index("run_id", drop=False)
    elr, ce = (known.loc[pairs[arm]].reset_index(drop=True) for arm in ("run_id", "run_id_b"))
    named = {run: s.label for name, s in SETTINGS.items() for run in select(elr, shared(name))["run_id"]}

    def label(run: pd.Series) -> str:
        differing = (form.format(run[n]) for n, form in sizes.items() if pd.notna(run[n]) and run[n] != usual[n])
        return named.get(run["run_id"]) or ", ".join(differing)

    memorized = [100 * measured(arm, "batches_wrong_memorized") for arm in (ce, elr)]
    found = pd.DataFrame({
        "setting": elr.apply(label, axis=1), "memorized": memorized[0], "kept_out": memorized[0] - memorized[1],
        "gain": pairs["difference"].to_numpy(),
        "over_best": 100 * (measured(elr, "test_top1") - measured(ce, "test_top1_best")),
    }).groupby("setting")  # fmt: skip
    return found.mean().assign(seeds=found.size()).reset_index()


def present(runs: pd.DataFrame) -> list[str]:
    """The settings that hold any run on CIFAR-10, whatever its labels."""
    return [name for name in SETTINGS if len(select(runs, {**shared(name), "noise_convention": ANY}))]


# Claims and settings -------------------------------------------------------------------------------------------------


def load_claims(path: Path | None = None) -> pd.DataFrame:
    """The claims, one a row: `fields`, `a` and `b` as dictionaries (`b` None where a level is claimed, not a
    difference), `direction` one of ``>``, ``<``, ``=`` (within the bound of zero), `bound` in points or percent."""
    source = path or resources.files(__package__).joinpath("claims.csv")
    with source.open() as file:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    for name in ("fields", "a", "b"):
        table[name] = [
            _parsed(text, f"{source}: {row_id}") for text, row_id in zip(table[name], table["id"], strict=True)
        ]
    return table.assign(bound=pd.to_numeric(table["bound"]))


def _parsed(text: str, where: str) -> dict[str, Any]:
    """``loss=elr noise_rate=0.1,0.2`` -> {"loss": "elr", "noise_rate": (0.1, 0.2)}."""
    fields: dict[str, Any] = {}
    for part in text.split():
        name, _, values = part.partition("=")
        if name not in RunConfig.model_fields or not values:
            raise ValueError(f"{where}: {part!r} is not name=value of a field of RunConfig")
        parsed = [_value(v) for v in values.split(",")]
        fields[name] = parsed[0] if len(parsed) == 1 else tuple(parsed)
    return fields


def _value(text: str) -> Any:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def mark(found: Interval, direction: str, bound: float) -> str:
    """``+``, ``-``, ``~``, or nothing under three seeds; see the head of this file."""
    if found.seeds < ENOUGH:
        return ""
    if direction == "=":
        beyond, opposite = -bound < found.low and found.high < bound, found.low > bound or found.high < -bound
    else:
        sign = 1 if direction == ">" else -1
        ends = sorted((sign * found.low, sign * found.high))
        beyond, opposite = ends[0] > sign * bound, ends[1] < sign * bound
    return "+" if beyond else "-" if opposite else "~"


def table(runs: pd.DataFrame, claims: pd.DataFrame) -> pd.DataFrame:
    """Claims x settings: claim, cell, setting, mean, low, high, seeds, mark, run_ids (of both arms); a row wherever
    there is a run of each arm. The cells of a claim are the values of the field that it lists several of, such as a
    noise rate or a level of people's labels; without any the cell is empty."""
    rows = []
    for claim in claims[claims["direction"] != ""].itertuples(index=False):
        listed = {name: values for name, values in claim.fields.items() if isinstance(values, tuple)}
        for values in product(*listed.values()):
            cell = dict(zip(listed, values, strict=True))
            for setting in SETTINGS:
                dataset = {**claim.fields, **cell}["dataset"]
                if dataset not in SETTINGS[setting].of:
                    continue
                common = {**shared(setting, dataset), **claim.fields, **cell}
                if claim.b:
                    b = dict(claim.b)
                    if b.get("epochs") == "double":
                        b["epochs"] = 2 * longest(common["epochs"])
                    pairs = paired(runs, claim.a, b, claim.measure, claim.measure_b or None, **common)
                    found, ids = interval(pairs["difference"]), (*pairs["run_id"], *pairs["run_id_b"])
                else:
                    mine = select(runs, {**common, **claim.a})
                    found, ids = percent(measured(mine, claim.measure)), tuple(mine["run_id"])
                if found.seeds:
                    name = ", ".join(str(value) for value in cell.values())
                    marked = mark(found, claim.direction, claim.bound)
                    rows.append((claim.id, name, setting, *found, marked, ids))
    return pd.DataFrame(rows, columns=["claim", "cell", "setting", *Interval._fields, "mark", "run_ids"])


def longest(epochs: int | tuple[int, ...]) -> int:
    return max(epochs) if isinstance(epochs, tuple) else epochs


def say(found: pd.DataFrame, claim: str, setting: str, expected: str, cell: str = "", form: str = "{:+.1f}") -> str:
    """The number of a claim in a setting, for a sentence that was written for this mark.

    Raises ValueError when the records say otherwise by now, so that the build names the sentence to rewrite.
    """
    row = found[(found["claim"] == claim) & (found["setting"] == setting) & (found["cell"] == cell)]
    now = row["mark"].iloc[0] if len(row) else "no run"
    if now != expected:
        raise ValueError(
            f"a sentence about {claim} ({setting}{f', {cell}' if cell else ''}) was written for the mark {expected!r}, "
            f"the records say {now!r}: rewrite it"
        )
    return text(Interval(*row[list(Interval._fields)].iloc[0]), form)


def number(value: float, form: str) -> str:
    """A number as it is written wherever it stands: rounded alike, and without the sign of a zero."""
    return form.format(round(value, 6) + 0.0)


def text(found: Interval, form: str = "{:.1f}") -> str:
    """A mean with its interval: ``91.2 (90.8 to 91.6)``; of a single seed ``91.2, one seed``; of none an empty text."""
    if not found.seeds:
        return ""
    mean, low, high = (number(value, form) for value in found[:3])
    return f"{mean}, one seed" if found.seeds == 1 else f"{mean} ({low} to {high})"
