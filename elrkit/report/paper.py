"""The ledger: every published number and every claim in words, decided from the table of runs.

    >>> ledger = decide(load_claims(), load_published(), runs, studies)          # doctest: +SKIP

`paper/published.csv` holds one row per published number, `paper/claims.csv` one row per claim with the rule that
decides it. Nothing here opens a record: `runs` is a DataFrame with one row per run and at least the columns
`RUN_COLUMNS` (accuracies and memorization as fractions), `studies` the rows of `elrkit.report.list_study`. No verdict is
typed by hand.

A **number** is reproduced when our mean lies within a `tolerance` of it: our standard deviation over seeds plus theirs,
or, of a single published run, as far as one more run of ours would scatter. Only runs of the paper's own scale decide a
number.

A **claim** about a difference is decided by the 95 % interval of the difference, seed by seed, everything else equal.
Runs of the small `cpu` scale may decide it too, for their own scale only, and the ledger says so. Settings of one cell
that decide it differently leave it open: `shown_verdict` then says that they disagree.

Both wait for the `ENOUGH_SEEDS` of the plans: a verdict that came as soon as an interval allowed one would be wrong
more often than the interval says.

Intervals are Student's t over seeds: with three to five seeds a normal interval is too short, and a bootstrap, which
can only redraw those few values, is shorter still.
"""

import functools
import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import inf, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from elrkit.config import HUMAN_NOISE_RATES, RunConfig, cifar10_recipe
from elrkit.report import plans

VERDICTS = (
    "reproduced",
    "not reproduced",
    "reproduced only with the code's recipe",
    "untestable",
    "not run yet",
)
NOT_PLANNED, NOT_AMONG = "not planned", "other method"  # of numbers of other papers that are listed to compare with
SHOWN_VERDICTS = (*VERDICTS[:3], "settings disagree", "no verdict yet", *VERDICTS[3:], NOT_PLANNED, NOT_AMONG)
NUMBER_TOLERANCE = 0.5  # percentage points
SINGLE_RUN_CAP = 1.0  # points: further from a single published run noisy runs of ours decide nothing
ENOUGH_SEEDS = len(plans.SEEDS)  # of most plans; that of SAM has one more, which a verdict does not wait for
FINISHED = "finished"  # the status of a run that counts
PAPER_FOLDER = Path(__file__).resolve().parents[2] / "paper"

MEASURES = (
    "test_top1",
    "test_top1_best",
    "test_top1_selected",
    "test_top5",
    "test_top1_noisy",
    "batches_wrong_memorized",  # on the training batches during the epoch, as the paper's code counts
    "batches_wrong_beyond_chance",  # that share, less what the network's other errors hit by chance
    "batches_wrong_memorized_50",
    "batches_wrong_correct",
    "batches_wrong_correct_best",
)
RUN_COLUMNS = (  # what `decide` needs; a measure that is missing counts as not measured
    *("run_id", "dataset", "train_size", "model", "loss", "schedule", "noise", "noise_rate", "noise_convention"),
    *("sam_rho", "augmentation", "precision", "split", "epochs", "seed", "status", "scale"),
)
# What must be equal for two runs to be the same training but for the seed; those that `runs` lacks are passed over.
SETTINGS = tuple(name for name in RunConfig.model_fields if name not in ("seed", "noise_seed", "eval_every"))
# Settings that exist for one arm of a comparison alone, so cannot be held equal.
FOLLOWS = {
    "loss": ("beta", "lam", "loss_alpha", "loss_beta"),
    "sam_rho": ("sam_adaptive", "sam_double_update", "sam_double_update_of"),
    "schedule": ("milestones", "gamma", "restart_epochs", "eta_min"),
}
# A recipe: column -> what is allowed; None is "no value". As the papers describe it, and as the published code ran it.
DESCRIBED = {
    "augmentation": ("fresh", "flip", "none"),
    "precision": ("float32", "bfloat16"),
    "noise_convention": (None, "all", "intended", *HUMAN_NOISE_RATES),
    "noise_draw": (None, "exact"),
    "sam_double_update": (None, False),
}
CODE = {
    "galatolo2021": {**DESCRIBED, "augmentation": ("frozen",), "precision": ("float16_fresh_scaler",)},
    "liu2020": {**DESCRIBED, "noise_convention": (None, "all", "reference")},
}
# At cpu scale the code's crops are told of with bfloat16, too: of its two departures the one that matters there.
CODES_CROPS = {**DESCRIBED, "augmentation": ("frozen",)}
# At the paper's scale the network, the images and the hyper-parameters are the paper's too (Section 5.2).
PAPER_SCALE = {
    "model": ("resnet34",),
    "train_size": (None,),
    "optimizer": ("sgd",),
    "lr": (0.02,),
    "momentum": (0.9,),
    "weight_decay": (1e-3,),
    "batch_size": (128,),
}
PAPER_DATASET = {
    "cifar10": {"epochs": (120,), "beta": (None, 0.7), "lam": (None, 3)},
    "cifar100": {"epochs": (150,), "beta": (None, 0.9), "lam": (None, 7)},
}
# At cpu scale they are the plans', so that a change which the forensics make alone is no run of the described recipe.
CPU_SCALE = {
    name: (getattr(plans.at_cpu_scale(cifar10_recipe()), name),) for name in PAPER_SCALE if name != "train_size"
}
# Table 1 of the paper trains on all images; Liu et al. hold out a tenth and keep the best epoch on it.
SPLIT = {"galatolo2021": ("all",), "liu2020": ("held_out",), "wei2022": ("all",)}
UNTOLD_SCHEDULE = "multistep"  # ours, where a source names none: the first of the plans that has its cells
UNPLANNED, UNTRIED = "no plan of this report holds it", "not tested here"  # how the notes of such numbers begin
LOSSES = ("ce", "elr", "sce", "nce_rce")
# As the ledger calls what the tables of `paper` name.
DATASETS = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "cdon": "the shop's images"}
SCHEDULES = {"multistep": "multi-step", "cosine": "cosine"}
QUANTITIES = {
    "test_top1_best": "best epoch",
    "test_top1_variance": "variance of the test accuracy",
    "test_top1_gain": "gain in test accuracy",
    "combinations": "settings tried",
    "gpu_hours": "hours of computing",
    "best_lambda": "best λ",
    "best_beta": "best β",
    "total_computation": "operations in all",
    "wrong_labels": "share of wrong labels",
}

PUBLISHED_COLUMNS = (
    *("id", "source", "table", "dataset", "quantity", "unit", "noise_kind", "noise_rate", "loss", "schedule"),
    *("method", "mean", "std", "runs", "where", "note"),
)
CLAIM_COLUMNS = ("id", "source", "text", "section", "rule", "arguments", "tolerance", "chapter", "note")


class LedgerError(ValueError):
    """A ledger file or a table of runs that cannot be used; one line: what, where, how to mend it."""


def load_published(path: Path = PAPER_FOLDER / "published.csv") -> pd.DataFrame:
    """The published numbers, one a row: `mean` and `std` in `unit` (std NaN where none is given), over `runs` runs."""
    table = _read(path, PUBLISHED_COLUMNS)
    for column in ("noise_rate", "mean", "std", "runs"):
        numbers = pd.to_numeric(table[column].replace("", nan), errors="coerce")
        wrong = table.loc[numbers.isna() & (table[column] != ""), "id"]
        if len(wrong):
            raise LedgerError(f"{path}: {column} of {wrong.iloc[0]} is no number; write one, or leave it empty")
        table[column] = numbers
    if table["mean"].isna().any():
        raise LedgerError(f"{path}: {table.loc[table['mean'].isna(), 'id'].iloc[0]} has no mean; every row needs one")
    return table


def load_claims(path: Path = PAPER_FOLDER / "claims.csv") -> pd.DataFrame:
    """The claims in words, one a row: a `rule` of `RULES`, `arguments` for `parse`, `tolerance` in points."""
    table = _read(path, CLAIM_COLUMNS)
    for _, claim in table.iterrows():
        if claim["rule"] not in RULES:
            raise LedgerError(f"{path}: {claim['id']} has the rule {claim['rule']!r}; allowed are {', '.join(RULES)}")
        names = {name.split(".", 1)[-1] for name in parse(claim["arguments"], f"{path}: {claim['id']}")}
        known = {*RunConfig.model_fields, *PUBLISHED_COLUMNS, "measure", "bound"}
        if claim["rule"] in COMPARING and (unknown := names - known):
            raise LedgerError(
                f"{path}: {claim['id']} has the argument {min(unknown)!r}, which no run and no number has"
            )
    tolerance = pd.to_numeric(table["tolerance"].replace("", "0"), errors="coerce")
    if tolerance.isna().any():
        raise LedgerError(f"{path}: tolerance of {table['id'][tolerance.isna()].iloc[0]} is no number; write points")
    table["tolerance"] = tolerance
    return table


def parse(arguments: str, where: str = "arguments") -> dict[str, tuple]:
    """``"noise_rate=0.1,0.2 a.loss=elr"`` -> {"noise_rate": (0.1, 0.2), "a.loss": ("elr",)}; commas list cases.

    Raises LedgerError, starting with `where`, for a part that is not name=value.
    """
    parsed = {}
    for part in arguments.split():
        name, equals, values = part.partition("=")
        if not (name and equals and values):
            raise LedgerError(f"{where}: {part!r} is not name=value; write for instance noise_rate=0.1,0.2 a.loss=elr")
        parsed[name] = tuple(_value(text) for text in values.split(","))
    return parsed


def t_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 95 % Student's t interval over seeds, (n,) -> (mean, low, high); NaN where there are too few."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values[0]) if len(values) else nan, nan, nan
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def interval_text(
    values: Iterable[float | None],
    form: str = "{:.2f}",
    none: str = "not run yet",
    one: str = " (1 seed)",
    limits: tuple[float, float] = (-inf, inf),
) -> str:
    """Mean and 95 % t interval over seeds as text: `91.20 (90.80 to 91.60)`, of one seed `91.20 (1 seed)`.

    Values that are missing (None, NaN) do not count; without any the text is `none`. `one` stands in place of the
    interval of a single seed; tables that count the seeds in a column of their own leave it empty. The interval is cut
    at the `limits` of what can be measured.
    """
    known = np.array([value for value in values if value is not None and not np.isnan(value)], dtype=float)
    if not len(known):
        return none
    mean, low, high = (form.format(np.clip(value, *limits)) for value in t_interval(known))
    return mean + one if len(known) == 1 else f"{mean} ({low} to {high})"


def tolerance(values: np.ndarray, their_std: float = nan) -> float:
    """How far, in points, our mean over `values` (n,) may lie from a published one; at least `NUMBER_TOLERANCE`.

    With their deviation known: ours plus theirs (twice theirs for one value of ours). Of a single published run: half
    of the 95 % prediction interval for one more run of ours, t s sqrt(1 + 1/n).
    """
    n = len(values)
    if n < 2:
        spread = 2 * their_std
    else:
        ours = float(np.std(values, ddof=1))
        spread = stats.t.ppf(0.975, n - 1) * ours * sqrt(1 + 1 / n) if np.isnan(their_std) else ours + their_std
    return NUMBER_TOLERANCE if np.isnan(spread) else max(NUMBER_TOLERANCE, float(spread))


def decide(
    claims: pd.DataFrame, published: pd.DataFrame, runs: pd.DataFrame, studies: pd.DataFrame | None = None
) -> pd.DataFrame:
    """One row per claim and per published number, with its verdict (one of `VERDICTS`) and what it rests on.

    studies: `elrkit.report.list_study.rows`, for the claims about the list of labels to look at; None: none was made.

    Columns: id, kind ("claim" or "number"), source, text, where, chapter, verdict; published, published_std, ours, low,
    high (the 95 % interval), tolerance, all in `unit`; seeds, scale ("paper", "cpu"; of claims that need no run
    "tables", "counted" or "linear model"; else empty), run_ids (tuple), note; setting (at cpu scale) and
    beside (tuple of texts): whose runs these are, and what other settings of the same cells give; disagree: whether one
    of those decides the other way.
    A claim about several cells shows its weakest cell, which the note names. `published` of a claim is the same
    difference, in the same cell, in the published table.

    Raises LedgerError when `runs` lacks a column.
    """
    missing = [column for column in RUN_COLUMNS if column not in runs.columns]
    if missing:
        raise LedgerError(f"runs: no column {', '.join(missing)}; decide needs {', '.join(RUN_COLUMNS)}")
    runs = runs.reindex(columns=[*runs.columns, *(name for name in MEASURES if name not in runs.columns)])
    evidence = {"effort": studies}  # all other rules look at runs
    rows = [_claim_row(claim, published, evidence.get(claim["rule"], runs)) for _, claim in claims.iterrows()]
    rows += [_number_row(number, runs) for _, number in published.iterrows()]
    return pd.DataFrame(rows)


@functools.cache
def _planned() -> pd.DataFrame:
    """Every run of every plan at the paper's scale as if it had finished, with the columns that select runs."""
    configs = {c.run_id: c for name in plans.PLANS for c in plans.plan(name, "paper")}
    rows = [
        {**config.model_dump(mode="json"), "run_id": run_id, "status": FINISHED, "scale": "paper"}
        for run_id, config in configs.items()
    ]
    return pd.DataFrame(rows).assign(**dict.fromkeys(MEASURES, 0.0))


@dataclass(frozen=True)
class Finding:
    """What a set of runs says: state "yes", "no" or "open" (they cannot say), with the numbers it rests on."""

    state: str
    note: str = ""
    ours: float = nan
    low: float = nan
    high: float = nan
    seeds: int = 0
    scale: str = ""
    run_ids: tuple[str, ...] = ()
    margin: float = inf  # how far inside (positive) or outside the bound, in points; orders the cells of a claim
    cell: tuple[tuple[str, Any], ...] = ()  # names and values of the cell of a claim that this is about
    setting: str = ""  # which of the settings of its cell this is, in words
    beside: tuple[str, ...] = ()  # what the others give
    disagree: bool = False  # whether one of those decides the claim the other way


# Published numbers


def _number_row(number: pd.Series, runs: pd.DataFrame) -> dict:
    reason = _why_untestable(number)
    if reason:
        found, verdict, tolerance = Finding("open", reason), "untestable", nan
    else:
        found, tolerance = _number(number, runs, DESCRIBED)
        coded, code_tolerance = Finding("open"), nan
        if found.state != "yes" and number["source"] in CODE:
            coded, code_tolerance = _number(number, runs, CODE[number["source"]])
        found, verdict = _combine(found, coded)
        tolerance = code_tolerance if verdict == VERDICTS[2] else tolerance
        if verdict == VERDICTS[4] and not _number(number, _planned(), DESCRIBED)[0].seeds:
            found = replace(found, note=_join(UNPLANNED, found.note))
    noise = "clean" if number["noise_kind"] == "none" else f"{number['noise_kind']} {100 * number['noise_rate']:g} %"
    if np.isnan(number["noise_rate"]):  # the shop's own, which nobody counted
        noise = ""
    parts = [
        QUANTITIES.get(number["quantity"], "top 5" if number["quantity"] == "test_top5" else ""),
        DATASETS.get(number["dataset"], number["dataset"]), noise, number["method"],
        SCHEDULES.get(number["schedule"], ""),
    ]  # fmt: skip
    text = ", ".join(filter(None, parts))
    return _row(number, "number", text, number["where"], "", verdict, found) | {
        "published": number["mean"],
        "published_std": number["std"],
        "tolerance": tolerance,
        "unit": number["unit"],
        "note": _join(found.note, number["note"]),
    }


def _why_untestable(number: pd.Series) -> str:
    if number["dataset"] == "cdon":
        return "the shop's images and labels are not public"
    if number["quantity"] not in MEASURES:
        return f"{number['quantity']} is not measured by runs"
    if number["loss"] not in LOSSES:
        return f"{UNTRIED}: {number['method']} is not among the losses; listed to compare with"
    return ""


def _counted_rate(number: pd.Series) -> float:
    """The share that our runs of the same labels carry: of people's labels it is counted, and may differ in a digit."""
    if number["noise_kind"] != "human":
        return number["noise_rate"]
    return min(HUMAN_NOISE_RATES.values(), key=lambda rate: abs(rate - number["noise_rate"]))


def _number(number: pd.Series, runs: pd.DataFrame, recipe: dict) -> tuple[Finding, float]:
    """The finding of the runs of one recipe, and the tolerance in points that it was held to."""
    cell = {
        "dataset": (number["dataset"],),
        "noise": (number["noise_kind"],),
        "noise_rate": (_counted_rate(number),),
        "loss": (number["loss"],),
        "split": SPLIT[number["source"]],
        "sam_rho": (0,),
        "schedule": (number["schedule"] or UNTOLD_SCHEDULE,),
    }
    every = _select(runs, cell)
    rows = _select(every, _at_scale(recipe, "paper", number["dataset"]))
    note = _left_out(rows)
    groups = _settings(_finished(rows, number["quantity"]))
    if not groups:
        if "cpu" in set(every["scale"]):
            note = _join(note, "runs of cpu scale do not decide a number")
        return Finding("open", note), nan
    chosen = max(groups, key=_preference)
    values = 100 * chosen[number["quantity"]].to_numpy(dtype=float)
    mean, low, high = t_interval(values)
    if len(groups) > 1:
        note = _join(note, f"{len(groups) - 1} other settings of this cell left out")
    state, why, allowed = against_number(values, number["mean"], number["std"])
    margin = allowed - abs(mean - number["mean"])
    note = _join(why, note)
    return Finding(state, note, mean, low, high, len(values), "paper", tuple(chosen["run_id"]), margin), allowed


def against_number(values: np.ndarray, published: float, std: float = nan) -> tuple[str, str, float]:
    """Whether the mean over our runs, `values` (n,) in the number's unit, reproduces a published one: yes, no or open;
    why it is open; and the `tolerance`. `std`: their deviation, NaN of a single run."""
    allowed, distance = tolerance(values, std), abs(np.mean(values) - published)
    if len(values) < ENOUGH_SEEDS:
        return "open", _too_few(len(values)), allowed
    if distance > allowed + 1e-9:
        return "no", "", allowed
    if np.isnan(std) and distance > SINGLE_RUN_CAP + 1e-9:
        far = f"more than {SINGLE_RUN_CAP:g} point from the published run, but as far as single runs of ours would lie"
        return "open", far, allowed
    return "yes", "", allowed


# Claims


def _claim_row(claim: pd.Series, published: pd.DataFrame, runs: pd.DataFrame) -> dict:
    arguments = parse(claim["arguments"], claim["id"])
    found, verdict = RULES[claim["rule"]](claim, arguments, published, runs)
    theirs = nan
    if claim["rule"] in DIFFERENCES or claim["rule"].startswith("published_"):
        shown = {name: (value,) for name, value in found.cell} if found.seeds else arguments
        theirs = _published_difference(claim, shown, published).ours
    where = f"Section {claim['section']}" if claim["section"][0].isdigit() else claim["section"]
    return _row(claim, "claim", claim["text"], where, claim["chapter"], verdict, found) | {
        "published": theirs,
        "tolerance": claim["tolerance"],
        "unit": "%" if claim["rule"] in ("at_least", "at_most", "linear", "effort") else "points",
        "note": _join(found.note, *found.beside, claim["note"]),
    }


def _difference_margin(rule: str, low: float, high: float, tolerance: float) -> float:
    """How far the interval of a - b, in points, lies on the side that the rule asks for; negative when it does not."""
    return {
        "greater": low - tolerance,
        "not_greater": tolerance - high,
        "within": tolerance - max(high, -low),
    }[rule]


def _against(rule: str, low: float, high: float, tolerance: float) -> bool:
    """Whether the whole interval lies on the other side, so that the claim is refuted and not merely undecided."""
    return {
        "greater": high <= tolerance + 1e-9,  # strict, so that a bound met exactly refutes
        "not_greater": low > tolerance,
        "within": low > tolerance or high < -tolerance,
    }[rule]


def _by_difference(
    claim: pd.Series, arguments: dict, published: pd.DataFrame, runs: pd.DataFrame
) -> tuple[Finding, str]:
    """Rules greater, not_greater, within: the paired difference a - b of a measure, in every case that is listed."""
    rule = claim["rule"]

    def case(fixed: dict, recipe: dict, scale: str) -> Finding:
        arms = [_arm(fixed, side) for side in "ab"]
        changed = {name for name in fixed if name[:2] in ("a.", "b.")}
        changed = {name[2:] for name in changed} - {"measure"}
        free = changed | {follower for name in changed for follower in FOLLOWS.get(name, ())}
        measures = [arm["measure"][0] for arm in arms]

        def pairs_of(recipe: dict) -> tuple[list[tuple[pd.DataFrame, pd.DataFrame]], str]:
            common = _of_claim(claim, recipe, scale, fixed["dataset"][0])
            of_arms = ({name: value for name, value in arm.items() if name != "measure"} for arm in arms)
            tables = [_select(runs, common | where) for where in of_arms]
            pairs = _pairs(*map(_finished, tables, measures), free)
            pairs.sort(key=lambda pair: _preference(pair[0]), reverse=True)
            return pairs, _join(*dict.fromkeys(map(_left_out, tables)))

        pairs, note = pairs_of(recipe)
        if not pairs:
            return Finding("open", note)

        def of_pair(a: pd.DataFrame, b: pd.DataFrame) -> Finding:
            difference = 100 * (a[measures[0]].to_numpy(dtype=float) - b[measures[1]].to_numpy(dtype=float))
            ids = tuple(dict.fromkeys([*a["run_id"], *b["run_id"]]))
            found = Finding("open", note, *t_interval(difference), len(a), scale, ids)
            return _interval_state(found, rule, claim["tolerance"])

        def told(pairs: list[tuple[pd.DataFrame, pd.DataFrame]]) -> list[tuple[str, Finding]]:
            return [(_setting_text(pair[0].iloc[0], "schedule" not in fixed), of_pair(*pair)) for pair in pairs]

        (setting, found), *others = told(pairs)
        coded = []
        if scale == "cpu":
            found = replace(found, note=_join(setting, found.note), setting=setting)
            if recipe is DESCRIBED:
                coded = told(pairs_of(CODES_CROPS)[0])
        return _beside_other_settings(
            found,
            others,
            lambda mean: not _against(rule, mean, mean, claim["tolerance"]),
            coded,
        )

    return _over_scales(claim, arguments, case, ("paper", "cpu"))


def _beside_other_settings(
    found: Finding,
    others: list[tuple[str, Finding]],
    meets: Callable[[float], bool],
    coded: Sequence[tuple[str, Finding]] = (),
) -> Finding:
    """`found`, told of each other setting of the cell, with "but" where its mean lies on the other side of the bound
    (`meets` tells the sides); undecided where such a setting decides against it, or where one with the crops and flips
    that the papers describe does not decide it. Those of `coded` are told alone: they are not as described."""
    told, disagree, undescribed = [], False, False
    for number, (setting, other) in enumerate([*others, *coded]):
        contrary = meets(other.ours) != meets(found.ours)
        decides = number < len(others) and found.state != "open" and other.state not in ("open", found.state)
        disagree |= contrary and decides
        undescribed |= number < len(others) and other.state == "open" and AUGMENTATIONS["fresh"] in setting
        spread = " (1 seed)" if other.seeds == 1 else f" ({other.low:+.2f} to {other.high:+.2f}, {other.seeds} seeds)"
        undecided = other.state == "open" and other.seeds >= ENOUGH_SEEDS
        how = "but" if contrary else "undecided:" if undecided else "and"
        told.append(f"{how} {other.ours:+.2f}{spread} with {setting}")
    if disagree:
        found = replace(found, state="open", margin=-inf, disagree=True)
    elif undescribed and found.state != "open":
        note = f"undecided with {AUGMENTATIONS['fresh']}, as described"
        found = replace(found, state="open", margin=-inf, note=_join(note, found.note))
    return replace(found, beside=tuple(told))


AUGMENTATIONS = {
    "fresh": "crops and flips drawn anew",
    "flip": "flips alone",
    "none": "no augmentation",
    "frozen": "crops and flips drawn once",
}


def _setting_text(run: pd.Series, with_schedule: bool) -> str:
    """What sets a run apart from others of its scale and cell, in words: images, epochs, augmentation, and the schedule
    where the claim leaves it open."""
    size = run["train_size"]
    images = "all images" if _is_missing(size) else f"{size:,.0f} images"
    parts = [images, f"{run['epochs']:g} epochs", AUGMENTATIONS.get(run["augmentation"], run["augmentation"])]
    return ", ".join(parts + [SCHEDULES.get(run["schedule"], run["schedule"])] * with_schedule)


def _too_few(seeds: int) -> str:
    return f"{seeds} seed{'s' * (seeds > 1)}, a verdict waits for {ENOUGH_SEEDS}"


def _interval_state(found: Finding, rule: str, tolerance: float) -> Finding:
    if found.seeds < ENOUGH_SEEDS:
        return replace(found, note=_join(_too_few(found.seeds), found.note), margin=-inf)
    margin = _difference_margin(rule, found.low, found.high, tolerance)
    # "greater" is strict, the other bounds may be met exactly.
    if margin > 1e-9 or (rule != "greater" and margin >= -1e-9):
        return replace(found, state="yes", margin=margin)
    if _against(rule, found.low, found.high, tolerance):
        note = "the interval lies on the other side of the bound"
        return replace(found, state="no", margin=margin, note=_join(note, found.note))
    note = f"undecided by {found.seeds} seeds: the interval reaches across the bound"
    return replace(found, margin=margin, note=_join(note, found.note))


def _by_level(claim: pd.Series, arguments: dict, published: pd.DataFrame, runs: pd.DataFrame) -> tuple[Finding, str]:
    """Rules at_least and at_most: the interval of a measure against `bound`, both in percent, at the paper's scale."""

    def case(fixed: dict, recipe: dict, scale: str) -> Finding:
        measure, bound = fixed["measure"][0], fixed["bound"][0]
        where = {name: value for name, value in fixed.items() if name not in ("measure", "bound")}
        rows = _select(runs, _of_claim(claim, recipe, scale, fixed["dataset"][0]) | where)
        groups = sorted(_settings(_finished(rows, measure)), key=_preference, reverse=True)
        if not groups:
            small = _select(runs, _of_claim(claim, recipe, "cpu", fixed["dataset"][0]) | where)
            return Finding("open", _join(_left_out(rows), "" if small.empty else "runs of cpu scale decide no level"))
        at_least, tolerance = claim["rule"] == "at_least", claim["tolerance"]

        def of_group(group: pd.DataFrame) -> Finding:
            level = t_interval(100 * group[measure].to_numpy(dtype=float))
            found = Finding("open", _left_out(rows), *level, len(group), scale, tuple(group["run_id"]))
            return _level_state(found, at_least, bound, tolerance)

        found, *others = map(of_group, groups)
        settings = [_setting_text(group.iloc[0], "schedule" not in fixed) for group in groups]
        return _beside_other_settings(
            found,
            list(zip(settings[1:], others, strict=True)),
            lambda mean: mean >= bound - tolerance if at_least else mean <= bound + tolerance,
        )

    return _over_scales(claim, arguments, case, ("paper",))


def _level_state(found: Finding, at_least: bool, bound: float, tolerance: float) -> Finding:
    """`found`, decided by its interval against `bound`."""
    # "at least b" is "x - b is not below zero": the mirror image of not_greater.
    ends = (bound - found.high, bound - found.low) if at_least else (found.low - bound, found.high - bound)
    shifted = _interval_state(replace(found, low=ends[0], high=ends[1]), "not_greater", tolerance)
    return replace(shifted, low=found.low, high=found.high)


def _by_effort(
    claim: pd.Series, arguments: dict, published: pd.DataFrame, studies: pd.DataFrame | None
) -> tuple[Finding, str]:
    """Rule effort: labels to look at until half of the wrong ones are found, down the list of one ELR run, in percent
    of those in any order, at most `bound` at every level of people's labels; a value a study."""
    from elrkit.report import list_study as audit_study

    findings = []
    for (level,) in (fixed["noise_convention"] for fixed in _cases(arguments)):
        values = np.empty(0)
        if studies is not None and len(studies):
            ours = audit_study.named(studies[(studies["level"] == level) & (studies["dataset"] != "digits")])
            ours = ours[ours["finder"] == audit_study.ELR]
            values = (100 * ours["effort_half"] / ours["effort_half_random"]).to_numpy(dtype=float)
        found = Finding("open", cell=(("noise_convention", level),))
        if len(values):
            mean, low, high = t_interval(values)
            found = replace(found, ours=mean, low=low, high=high, seeds=len(values), scale="cpu")
            found = _level_state(found, False, arguments["bound"][0], claim["tolerance"])
        findings.append(found)
    found, verdict = _combine(_all_cases(findings), Finding("open"))
    of_what = "in percent of the labels to look at in any order" if found.seeds else ""
    return replace(found, note=_join("at cpu scale only", of_what, found.note)), verdict


def _over_scales(
    claim: pd.Series, arguments: dict, case: Callable[[dict, dict, str], Finding], scales: tuple[str, ...]
) -> tuple[Finding, str]:
    """The verdict at the first scale whose runs decide the claim; the described recipe first, then the code's."""

    def in_all(recipe: dict, scale: str) -> Finding:
        cells = [(fixed, case(fixed, recipe, scale)) for fixed in _cases(arguments)]
        named = [tuple((name, value) for name, (value,) in fixed.items()) for fixed, _ in cells]
        return _all_cases([replace(found, cell=cell) for (_, found), cell in zip(cells, named, strict=True)])

    open_findings = []
    for scale in scales:
        found = in_all(DESCRIBED, scale)
        coded = Finding("open")
        if found.state != "yes" and claim["source"] in CODE:
            coded = in_all(CODE[claim["source"]], scale)
        found, verdict = _combine(found, coded)
        if verdict != VERDICTS[4]:
            # What the larger scale has, though it does not decide, is told.
            larger = [f"at {f.scale} scale {f.ours:+.2f}, {f.seeds} seeds, undecided" for f in open_findings if f.seeds]
            only = "at cpu scale only" if scale == "cpu" else ""
            return replace(found, note=_join(only, *larger, found.note)), verdict
        if found.seeds >= ENOUGH_SEEDS:  # as many as the plans have: a smaller scale does not overrule them
            return found, verdict
        open_findings.append(found)
    return max(open_findings, key=lambda finding: finding.seeds), VERDICTS[4]


def _all_cases(findings: list[Finding]) -> Finding:
    """The claim holds if every case does and fails with one; shown is the weakest case."""
    states = [finding.state for finding in findings]
    state = "no" if "no" in states else "open" if "open" in states else "yes"
    shown = [f for f in findings if f.state == state]
    weakest = min(shown, key=lambda finding: finding.margin) if state != "open" else max(shown, key=lambda f: f.seeds)
    if len(findings) > 1:
        disagree = sum(finding.disagree for finding in findings)
        undecided = sum(finding.state == "open" and finding.seeds > 0 for finding in findings) - disagree
        not_run = states.count("open") - disagree - undecided
        counts = {"with settings that disagree": disagree, "undecided": undecided, "not run": not_run}
        counts = [f"{count} {what}" for what, count in counts.items() if count]
        cells = ", ".join([f"holds in {states.count('yes')} of {len(states)} cells", *counts])
        changing = {name for name in dict(weakest.cell) if len({dict(f.cell).get(name) for f in findings}) > 1}
        where = ", ".join(_cell_text(name, value) for name, value in weakest.cell if name in changing)
        weakest = replace(weakest, note=_join(cells, f"shown: {where}" if weakest.seeds else "", weakest.note))
        told = [(", ".join(_cell_text(*item) for item in f.cell if item[0] in changing), f.beside) for f in findings]
        weakest = replace(weakest, beside=tuple(f"{text}, {where}" for where, texts in told for text in texts))
        weakest = replace(weakest, disagree=any(finding.disagree for finding in findings))
    return replace(weakest, run_ids=tuple(dict.fromkeys(run for finding in findings for run in finding.run_ids)))


def _combine(found: Finding, coded: Finding) -> tuple[Finding, str]:
    if found.state == "yes":
        return found, VERDICTS[0]
    if found.state == "no":
        if coded.state == "yes":
            note = _join(f"the recipe as described gives {found.ours:.2f} ({found.seeds} seeds)", coded.note)
            return replace(coded, note=note), VERDICTS[2]
        return found, VERDICTS[1]
    tried = "does not decide it" if found.seeds else "is not run"
    note = f"the code's recipe gives it, the recipe as described {tried}" if coded.state == "yes" else ""
    return replace(found, note=_join(note, found.note)), VERDICTS[4]


# Claims that need no run


def _by_published(
    claim: pd.Series, arguments: dict, published: pd.DataFrame, runs: pd.DataFrame
) -> tuple[Finding, str]:
    """Rule published_greater: a - b of published numbers, in every case that is listed."""
    found = _published_difference(claim, arguments, published)
    if found.state != "yes":
        raise LedgerError(f"{claim['id']}: published.csv has no pair of numbers for {claim['arguments']!r}")
    margin = _difference_margin("greater", found.low, found.high, claim["tolerance"])
    nothing_of_ours = replace(found, ours=nan, low=nan, high=nan, scale="tables")
    return nothing_of_ours, VERDICTS[0] if margin >= 0 else VERDICTS[1]


def _published_difference(claim: pd.Series, arguments: dict, published: pd.DataFrame) -> Finding:
    """Smallest and largest a - b over the cases in the published tables; `ours` is the one that the rule strains at."""
    differences = []
    for fixed in _cases({"source": (claim["source"],), **arguments}):
        cells = []
        for side in "ab":
            arm = {{"noise": "noise_kind"}.get(k, k): v for k, v in _arm(fixed, side).items()}
            where = {name: value for name, value in arm.items() if name in PUBLISHED_COLUMNS}
            measure = arm.get("measure", ("test_top1", "test_top1_selected"))
            cells.append(_select(published, where | {"quantity": measure})["mean"])
        if len(cells[0]) == len(cells[1]) == 1 and cells[0].index[0] != cells[1].index[0]:
            differences.append(float(cells[0].iloc[0] - cells[1].iloc[0]))
    if not differences:
        return Finding("open")
    low, high = min(differences), max(differences)
    strained = {"greater": low, "not_greater": high}.get(
        claim["rule"].removeprefix("published_"), max(low, high, key=abs)
    )
    return Finding("yes", f"{len(differences)} published differences, {low:+.2f} to {high:+.2f}", strained, low, high)


def _stages(claim: pd.Series, arguments: dict, published: pd.DataFrame, runs: pd.DataFrame) -> tuple[Finding, str]:
    """Rule stages: residual blocks counted in the model itself, against `blocks`, as in 3-4-6-3."""
    from elrkit import models
    from elrkit.report import networks as flops

    model = getattr(models, arguments["model"][0])(int(arguments["num_classes"][0]))
    blocks = "-".join(str(len(stage)) for stage in flops.stages(model))
    holds = blocks == arguments["blocks"][0]
    return Finding("yes", f"counted: {blocks}", scale="counted"), VERDICTS[0] if holds else VERDICTS[1]


def _linear(claim: pd.Series, arguments: dict, published: pd.DataFrame, runs: pd.DataFrame) -> tuple[Finding, str]:
    """Rule linear: wrong labels memorized in `elrkit.report.theory` fall to `early` percent, then rise to `end` percent."""
    from elrkit.report import theory

    fixed = {name: value[0] for name, value in arguments.items() if name != "seeds"}
    lowest, last = [], []
    for seed in arguments["seeds"]:
        model = theory.two_clusters(int(fixed["n"]), int(fixed["dimension"]), fixed["delta"], fixed["sigma"], int(seed))
        memorized = 100 * theory.descend(model, int(fixed["steps"]))["wrong_memorized"]
        lowest.append(memorized.min())
        last.append(memorized.iloc[-1])
    holds = max(lowest) <= fixed["early"] and min(last) >= fixed["end"]
    note = f"in {len(last)} draws at most {max(lowest):.0f} % memorized early, at least {min(last):.0f} % in the end"
    found = Finding("yes", note, min(last), seeds=len(last), scale="linear model")
    return found, VERDICTS[0] if holds else VERDICTS[1]


def _ceiling(claim: pd.Series, arguments: dict, published: pd.DataFrame, runs: pd.DataFrame) -> tuple[Finding, str]:
    """Rule ceiling: agreement with labels, `wrong` percent of them wrong, against what unpredictable errors allow."""
    accuracy, wrong = (_published_mean(claim, arguments, name, published) for name in ("accuracy", "wrong"))
    if accuracy <= 100 - wrong:
        note = f"{accuracy:g} % is possible with {wrong:g} % wrong labels"
    else:
        note = (
            f"{accuracy:g} % agreement exceeds the {100 - wrong:g} % that {wrong:g} % wrong labels allow if errors "
            "cannot be foreseen: fewer labels are wrong, or errors are predictable, or test images have near-copies in "
            "the training set; the data are not public"
        )
    return Finding("open", note), VERDICTS[3]


def _published_mean(claim: pd.Series, arguments: dict, name: str, published: pd.DataFrame) -> float:
    """The published number whose id the argument `name` of a claim gives."""
    mean = published.loc[published["id"] == arguments[name][0], "mean"]
    if mean.empty:
        raise LedgerError(f"{claim['id']}: published.csv has no id {arguments[name][0]}; {name} must name one")
    return float(mean.iloc[0])


def _untestable(claim: pd.Series, arguments: dict, published: pd.DataFrame, runs: pd.DataFrame) -> tuple[Finding, str]:
    return Finding("open"), VERDICTS[3]


DIFFERENCES = ("greater", "not_greater", "within")
# Rules that choose rows.
COMPARING = (*DIFFERENCES, "at_least", "at_most", "effort", "published_greater")
RULES = {
    "greater": _by_difference,
    "not_greater": _by_difference,
    "within": _by_difference,
    "at_least": _by_level,
    "at_most": _by_level,
    "effort": _by_effort,
    "published_greater": _by_published,
    "stages": _stages,
    "linear": _linear,
    "ceiling": _ceiling,
    "untestable": _untestable,
}


# Choosing rows


def _cases(arguments: dict) -> Iterator[dict]:
    """Every combination of the listed values, each as one-element tuples."""
    for values in product(*arguments.values()):
        yield {name: (value,) for name, value in zip(arguments, values, strict=True)}


def _arm(fixed: dict, side: str) -> dict:
    """The conditions of one side of a comparison: what is common, and what is written a.name or b.name."""
    common = {name: value for name, value in fixed.items() if name[:2] not in ("a.", "b.")}
    return common | {name[2:]: value for name, value in fixed.items() if name[:2] == f"{side}."}


def _at_scale(recipe: dict, scale: str, dataset: str) -> dict:
    """The conditions of a recipe at a scale; at the paper's, images are cropped and flipped as the paper says."""
    where = {**recipe, "scale": (scale,)}
    of_dataset = PAPER_DATASET.get(dataset, {})
    if scale == "paper":
        where |= PAPER_SCALE | of_dataset
        where["augmentation"] = tuple(kind for kind in recipe["augmentation"] if kind in ("fresh", "frozen"))
    else:
        where |= CPU_SCALE | {k: v for k, v in of_dataset.items() if k != "epochs"}
    return where


def _of_claim(claim: pd.Series, recipe: dict, scale: str, dataset: str) -> dict:
    """`_at_scale`, on the part of the images that the claim's source trains on."""
    return _at_scale(recipe, scale, dataset) | {"split": SPLIT[claim["source"]]}


def _select(table: pd.DataFrame, where: dict[str, tuple]) -> pd.DataFrame:
    """Rows whose columns hold an allowed value; None allows a missing one; columns that `table` lacks are skipped."""
    keep = np.ones(len(table), dtype=bool)
    for column, allowed in where.items():
        if not keep.any():
            break
        if column not in table.columns:
            continue
        values = table[column]
        allows = values.isna().to_numpy() & (None in allowed)
        for value in allowed:
            if isinstance(value, float | int) and not isinstance(value, bool):
                numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float, na_value=nan)
                allows |= np.abs(numbers - value) < 1e-6
            elif value is not None:
                allows |= (values == value).to_numpy(dtype=bool, na_value=False)
        keep &= allows
    return table[keep]


def _finished(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    if measure not in MEASURES:
        raise LedgerError(f"measure {measure!r}: allowed are {', '.join(MEASURES)}")
    return rows[(rows["status"] == FINISHED) & rows[measure].notna()]


def _left_out(rows: pd.DataFrame) -> str:
    """A word on runs that did not finish, so that they do not vanish in silence."""
    counts = rows.loc[rows["status"] != FINISHED, "status"].value_counts()
    return ", ".join(f"{count} {status} left out" for status, count in counts.items())


def _settings(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows split into trainings that are equal but for the seed, one row a seed, in the order of the seeds."""
    columns = [column for column in SETTINGS if column in rows.columns]
    groups: dict[str, list] = {}
    for index, key in zip(rows.index, rows[columns].astype(object).to_numpy(), strict=True):
        groups.setdefault(_key(key), []).append(index)
    keys = _draws(rows)
    return [rows.loc[indices].drop_duplicates(keys).sort_values(keys) for indices in groups.values()]


def _draws(rows: pd.DataFrame) -> list[str]:
    """The columns that tell repetitions of one training apart: its seed, and that of its wrong labels."""
    return [name for name in ("seed", "noise_seed") if name in rows.columns]


def _pairs(a: pd.DataFrame, b: pd.DataFrame, free: set[str]) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """All pairs of settings of a and b that differ in `free` columns alone, both cut to the seeds that they share."""
    columns = [column for column in SETTINGS if column in a.columns and column not in free]
    others: dict[str, list[pd.DataFrame]] = {}
    for group in _settings(b):
        others.setdefault(_key(group[columns].astype(object).iloc[0]), []).append(group)
    pairs = []
    for group in _settings(a):
        for other in others.get(_key(group[columns].astype(object).iloc[0]), []):
            draws = [pd.MultiIndex.from_frame(part[_draws(part)]) for part in (group, other)]
            left, right = group[draws[0].isin(draws[1])], other[draws[1].isin(draws[0])]
            if len(left):
                pairs.append((left, right))
    return pairs


def _key(values: object) -> str:
    """A text that is equal for equal settings: 1 and 1.0 are alike, and so are all ways to say 'no value'."""
    return repr(
        [None if _is_missing(v) else float(v) if isinstance(v, int | float | np.number) else str(v) for v in values]
    )


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value) or value is pd.NA


def _preference(group: pd.DataFrame) -> tuple:
    """Of several settings of one cell the one with most seeds, then most images, fewest epochs, smallest run id."""
    first = group.iloc[0]
    size = inf if _is_missing(first["train_size"]) else first["train_size"]
    return len(group), size, -first["epochs"], tuple(-ord(letter) for letter in str(first["run_id"]))


# Small things


def _row(entry: pd.Series, kind: str, text: str, where: str, chapter: str, verdict: str, found: Finding) -> dict:
    return {
        "id": entry["id"],
        "kind": kind,
        "source": entry["source"],
        "text": text,
        "where": where,
        "chapter": chapter,
        "verdict": verdict,
        "published": nan,
        "published_std": nan,
        "ours": found.ours,
        "low": found.low,
        "high": found.high,
        "tolerance": nan,
        "unit": "",
        "seeds": found.seeds,
        "scale": found.scale,
        "run_ids": found.run_ids,
        "note": found.note,
        "setting": found.setting,
        "beside": found.beside,
        "disagree": found.disagree,
    }


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    path = Path(path)
    if not path.is_file():
        raise LedgerError(f"{path}: no such file; run from a checkout of the repository, or name the file")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise LedgerError(f"{path}: no column {', '.join(missing)}; the columns are {', '.join(columns)}")
    if table["id"].duplicated().any():
        twice = table["id"][table["id"].duplicated()].iloc[0]
        raise LedgerError(f"{path}: the id {twice} occurs twice; ids are unique")
    return table


def _value(text: str) -> float | bool | str:
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)
    except ValueError:
        return text


def _cell_text(name: str, value: Any) -> str:
    if name == "noise_rate":
        return f"{100 * value:g} % noise" if value else "clean"
    return DATASETS.get(value, SCHEDULES.get(value, str(value)))


def _join(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


CELL = ["dataset", "schedule", "noise_rate", "loss"]
TABLE1_SCALES = {"paper": ("paper",), "cpu": ("cpu", "digits")}  # the digits' runs stand in the column of the small net


def table1(published: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The 32 cells of the paper's Table 1 beside runs of the plan `table1`, last-epoch test accuracy in percent.

    runs  rows of `elrkit.runs.table`, of that plan alone; cells that the paper has not (other rates, the digits) follow

    Columns: dataset, schedule, noise_rate, loss, published, liu (mean of Liu et al., NaN where they have no such cell),
    and per scale (paper, cpu): mean, low, high (95 % t interval over seeds), seeds; NaN and 0 where nothing was run.
    """
    numbers = published[published["noise_kind"].isin(["none", "symmetric"])]
    paper_cells = numbers[(numbers["source"] == "galatolo2021") & (numbers["table"] == "Table 1")]
    result = paper_cells[[*CELL, "mean"]].rename(columns={"mean": "published"})
    ours = _whole(runs)
    for scale, scales in TABLE1_SCALES.items():
        rows = []
        for key, group in ours[ours["scale"].isin(scales)].groupby(CELL):
            mean, low, high = t_interval(100 * group["test_top1"].to_numpy(dtype=float))
            rows.append((*key, mean, low, high, len(group)))
        names = [f"{scale}_{name}" for name in ("mean", "low", "high", "seeds")]
        found = pd.DataFrame(rows, columns=[*CELL, *names]).astype({"noise_rate": float, **dict.fromkeys(names, float)})
        further = found[~found[CELL].apply(tuple, axis=1).isin(result[CELL].apply(tuple, axis=1))] if rows else found
        result = pd.concat([result, further[CELL]], ignore_index=True).merge(found, on=CELL, how="left")
    result = result.fillna(dict.fromkeys(counts := [f"{scale}_seeds" for scale in TABLE1_SCALES], 0))
    result = result.astype(dict.fromkeys(counts, int))
    liu = numbers[(numbers["source"] == "liu2020") & numbers["loss"].isin(["ce", "elr"])]
    liu = liu[[*CELL, "mean"]].rename(columns={"mean": "liu"})
    return result.merge(liu, on=CELL, how="left")


def _whole(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs that train on all images."""
    return runs[(runs["status"] == "finished") & (runs["split"] == "all")]


def table1_text(cells: pd.DataFrame) -> pd.DataFrame:
    """The result of `table1` as a person reads it: means, intervals and seeds, `not run yet` where there is none."""

    def ours(row: pd.Series, scale: str) -> str:
        mean, low, high, seeds = (row[f"{scale}_{name}"] for name in ("mean", "low", "high", "seeds"))
        if not seeds:
            return "not run yet"
        return f"{mean:.2f}, 1 seed" if seeds == 1 else f"{mean:.2f} ({low:.2f} to {high:.2f}), {seeds} seeds"

    text = pd.DataFrame(
        {
            "dataset": _named(cells["dataset"], DATASETS),
            "schedule": _named(cells["schedule"], SCHEDULES),
            "noise": (100 * cells["noise_rate"]).map("{:g} %".format),
            "loss": cells["loss"].str.upper(),
            "paper": cells["published"].map(lambda x: "" if np.isnan(x) else f"{x:.2f}"),
            "Liu et al.": cells["liu"].map(lambda x: "" if np.isnan(x) else f"{x:.2f}"),
            "ours, paper scale": [ours(row, "paper") for _, row in cells.iterrows()],
            "minus paper": (cells["paper_mean"] - cells["published"]).map(lambda x: "" if np.isnan(x) else f"{x:+.2f}"),
            "ours, cpu scale": [ours(row, "cpu") for _, row in cells.iterrows()],
        }
    )
    return text if cells["paper_seeds"].any() else text.drop(columns="minus paper")


def _named(values: pd.Series, names: dict[str, str]) -> pd.Series:
    return values.map(lambda value: names.get(value, value))


def elr_minus_ce(published: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """ELR's last-epoch test accuracy minus cross-entropy's, in points, for runs of the plan `table1`.

    The difference is taken within a seed (same images, wrong labels, initial weights and order); one row per scale,
    dataset, schedule and noise rate: mean, 95 % t interval over seeds, seeds, and the same difference in the paper's
    Table 1, of one run each, and in Liu et al.'s.
    """
    columns = ["scale", "dataset", "schedule", "noise", "ELR minus CE", "95 % interval", "seeds", "paper", "Liu et al."]
    cell = ["scale", "dataset", "schedule", "noise_rate"]
    theirs = published_gains(published)

    def published_gain(key: tuple, whose: str) -> str:
        gain = theirs.loc[key, whose] if key in theirs.index else nan
        return "" if np.isnan(gain) else f"{gain:+.2f}"

    pairs = _whole(runs).pivot(index=[*cell, "seed"], columns="loss", values="test_top1")
    pairs = pairs.reindex(columns=["ce", "elr"])
    rows = []
    for (scale, dataset, schedule, rate), points in (100 * (pairs["elr"] - pairs["ce"])).dropna().groupby(level=cell):
        mean, low, high = t_interval(points.to_numpy(dtype=float))
        interval = f"{low:+.2f} to {high:+.2f}" if len(points) > 1 else ""
        where = DATASETS.get(dataset, dataset), SCHEDULES.get(schedule, schedule), f"{100 * rate:g} %"
        gains = (published_gain((dataset, schedule, rate), whose) for whose in ("published", "liu"))
        rows.append((scale, *where, f"{mean:+.2f}", interval, len(points), *gains))
    return pd.DataFrame(rows, columns=columns)


def published_gains(published: pd.DataFrame) -> pd.DataFrame:
    """ELR less cross-entropy in points, in the paper's Table 1 (column published) and in Liu et al.'s (liu, NaN where
    they have no such cell); index: dataset, schedule, noise_rate."""
    numbers = published[published["noise_kind"].isin(["none", "symmetric"]) & published["loss"].isin(["ce", "elr"])]
    gains = {}
    for name, source in (("published", "galatolo2021"), ("liu", "liu2020")):
        of_source = numbers[(numbers["source"] == source) & (numbers["table"] == "Table 1")]
        cells = of_source.pivot(index=CELL[:3], columns="loss", values="mean")
        gains[name] = cells["elr"] - cells["ce"]
    return pd.DataFrame(gains)


def selected_and_last(published: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy at the last epoch, as the paper reports it, beside that of the epoch which noisy held-out labels
    choose, as Liu et al. report it; in percent, with 95 % t intervals over seeds.

    One row per scale and cell of the plan `table1` that has runs with a tenth of the images held out; the last epoch is
    given for them and for the runs that train on all images, and the gain of selection within a seed.
    """
    liu = published[(published["source"] == "liu2020") & (published["noise_kind"] == "symmetric")]
    liu = liu[liu["loss"].isin(["ce", "elr"])].set_index(CELL)["mean"]

    def mean(values: pd.Series, sign: str = "") -> str:
        return interval_text(100 * values, f"{{:{sign}.2f}}", one="")

    columns = [
        "scale",
        "dataset",
        "schedule",
        "noise",
        "loss",
        "last epoch, all images",
        "last epoch, a tenth held out",
    ]
    columns += ["selected epoch", "selected minus last", "Liu et al.", "seeds"]
    rows = []
    finished = runs[(runs["status"] == "finished") & (runs["split"] == "held_out")]
    for (scale, *key), held in finished.groupby(["scale", *CELL]):
        whole = _whole(runs[(runs["scale"] == scale) & (runs[CELL] == pd.Series(key, index=CELL)).all(axis=1)])
        gain = held["test_top1_selected"] - held["test_top1"]
        dataset, schedule, rate, loss = key
        rows.append((
            scale, dataset, schedule, f"{100 * rate:g} %", loss.upper(), mean(whole["test_top1"]),
            mean(held["test_top1"]), mean(held["test_top1_selected"]), mean(gain, "+"),
            f"{liu[*key]:.2f}" if tuple(key) in liu.index else "", len(held),
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


README_CLAIMS = {  # claim -> the plan that redoes it
    "early-learning": "early-learning",
    "elr-memorizes-less": "early-learning",
    "elr-beats-ce-cifar10-multistep": "table1",
    "elr-beats-ce-cifar100-multistep": "table1",
    "sam-helps-elr": "sam",
}


def readme_table(decided: pd.DataFrame) -> str:
    """The main claims as the Markdown table of the README: claim, paper, ours, and the command that redoes it."""
    lines = ["| claim | paper | ours | the command that redoes it |", "| --- | --- | --- | --- |"]
    for claim, plan in README_CLAIMS.items():
        row = decided[decided["id"] == claim].iloc[0]
        ours = "not run yet"
        if not np.isnan(row["ours"]):
            seeds = f"{row['seeds']} seed{'s' * int(row['seeds'] > 1)}"
            spread = f"{row['low']:+.2f} to {row['high']:+.2f}, " if np.isfinite(row["low"]) else ""
            setting = f" with {row['setting']}" if row["setting"] else ""
            main = f"{row['ours']:+.2f} {row['unit']} ({spread}{seeds}, {row['scale']} scale){setting}"
            ours = "<br>".join([f"**{_badge(row)}**", main, *row["beside"]])
        published = "in words" if np.isnan(row["published"]) else f"{row['published']:.1f} {row['unit']}"
        lines.append(f"| {row['text']} | {published} | {ours} | `python -m elrkit run {plan}` |")
    return "\n".join(lines)


def shown_verdict(row: pd.Series) -> str:
    """The verdict of a row of `decide` as readers see it, one of `SHOWN_VERDICTS`: settings that disagree and runs that
    do not decide yet are told from none at all, and what waits for runs from what no plan holds."""
    if row.note.startswith(UNTRIED):
        return NOT_AMONG
    if row.note.startswith(UNPLANNED) and not row.seeds:
        return NOT_PLANNED
    if row.verdict != "not run yet" or not row.seeds:
        return row.verdict
    return "settings disagree" if row.disagree else "no verdict yet"


def _badge(row: pd.Series) -> str:
    """`shown_verdict`, and whether it speaks for small nets alone."""
    verdict = shown_verdict(row)
    return f"{verdict}, small net" if row.scale == "cpu" and verdict in VERDICTS[:3] else verdict


SOURCES = {"galatolo2021": "Galatolo et al.", "liu2020": "Liu et al.", "wei2022": "Wei et al."}


def _sortable(number: float) -> str:
    return "" if np.isnan(number) else f"{number:.10g}"


def ledger_html(decided: pd.DataFrame, chapters: set[str], folder: str = "") -> str:
    """The result of `decide` as an HTML table whose rows carry their verdict.

    chapters  the pages to link to, in `folder` (with its slash) as seen from the page that shows the table; each run
              is a link to its row in the page `made`
    """
    heads = ("Verdict", "Claim", "Published", "Ours (95 % interval)", "Seeds", "Scale")
    lines = [f"<th>{head}</th>" for head in heads]
    rows = []
    for row in decided.itertuples():
        verdict = shown_verdict(row)
        slug = verdict.replace(" ", "-").replace("'", "")
        text = html.escape(row.text)
        if row.chapter in chapters:
            text = f'<a href="{folder}{row.chapter}.html">{text}</a>'
        unit = "" if row.unit in ("1", "not stated") else f" {row.unit}"
        form = ".2f" if row.unit in ("%", "points") else ",.10g"
        ours = "" if np.isnan(row.ours) else f"{row.ours:{form}}{unit}"
        if np.isfinite(row.low) and np.isfinite(row.high):
            ours += f" ({row.low:{form}} to {row.high:{form}})"
        spread = "" if np.isnan(row.published_std) else f" ± {row.published_std:{form}}"
        published = "" if np.isnan(row.published) else f"{row.published:{form}}{spread}{unit}"
        small = html.escape(". ".join(filter(None, (f"{SOURCES[row.source]}, {row.where}", row.note))))
        if row.run_ids:
            links = (f'<a href="{folder}made.html#run-{run_id}">{run_id}</a>' for run_id in row.run_ids)
            count = f"{len(row.run_ids)} run{'s' * (len(row.run_ids) > 1)}"
            small += f"<details><summary>{count}</summary>{', '.join(links)}</details>"
        cells = (
            f'<td><span class="verdict verdict-{slug}">{_badge(row)}</span></td>',
            f"<td>{text}<br><small>{small}</small></td>",
            f'<td data-sort="{_sortable(row.published)}">{published}</td>',
            f'<td data-sort="{_sortable(row.ours)}">{ours}</td>',
            f"<td>{row.seeds or ''}</td>", f"<td>{row.scale}</td>",
        )  # fmt: skip
        rows.append(f'<tr data-verdict="{html.escape(verdict)}">{"".join(cells)}</tr>')
    return (
        f'<div class="ledger-scroll"><table class="ledger"><thead><tr>{"".join(lines)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def whose_recipe(weight_decay: float) -> str:
    """Whose recipe a run of the plan `related-losses` follows: "the paper's" or "its authors'" (of the loss)."""
    return "the paper's" if weight_decay in PAPER_SCALE["weight_decay"] else "its authors'"


def related_losses(published: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Losses side by side: one row per scale, noise rate, loss and recipe; accuracies and shares in percent.

    runs  `elrkit.runs.table` of runs of the plan `related-losses`; diverged ones are left out

    Columns: scale, noise_rate, loss, recipe ("the paper's" or "its authors'"), and for test (last epoch), memorized and
    seen (of the wrong labels) the mean, name_low and name_high (95 % t interval over seeds, NaN for one seed); gain
    likewise: test accuracy less that of cross-entropy with the same seed; best (mean over seeds of the best epoch's
    test accuracy), seeds, liu (Liu et al.'s number for this loss and noise on CIFAR-10).
    """
    measures = {"test": "test_top1", "memorized": "wrong_memorized", "seen": "wrong_correct", "gain": "gain"}
    cell = ["scale", "noise_rate", "loss", "recipe"]
    spans = [f"{name}{end}" for name in measures for end in ("", "_low", "_high")]
    runs = runs[runs["status"] == FINISHED]
    runs = runs.assign(recipe=runs["weight_decay"].map(whose_recipe))
    pair = ["scale", "noise_rate", "seed"]
    ce = runs[runs["loss"] == "ce"][[*pair, "test_top1"]].rename(columns={"test_top1": "ce"})
    runs = runs.merge(ce, on=pair, how="left")
    runs["gain"] = (runs["test_top1"] - runs["ce"]).where(runs["loss"] != "ce")
    theirs = published[(published["source"] == "liu2020") & (published["dataset"] == "cifar10")]
    theirs = theirs[(theirs["noise_kind"] == "symmetric") & (theirs["schedule"] == "multistep")]
    rows = []
    for key, group in runs.groupby(cell):
        row = dict(zip(cell, key, strict=True))
        for name, measure in measures.items():
            values = 100 * group[measure].dropna()
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), t_interval(values), strict=True))
        number = theirs[(theirs["loss"] == row["loss"]) & (theirs["noise_rate"] == row["noise_rate"])]["mean"]
        row |= {"best": 100 * group["test_top1_best"].mean(), "seeds": group["seed"].nunique()}
        rows.append(row | {"liu": number.iloc[0] if len(number) == 1 and row["scale"] != "digits" else nan})
    table = pd.DataFrame(rows, columns=[*cell, *spans, "best", "seeds", "liu"])
    order = {"loss": LOSSES, "recipe": ("the paper's", "its authors'"), "scale": ("paper", "cpu", "digits")}
    places = {name: {value: place for place, value in enumerate(values)} for name, values in order.items()}
    return table.sort_values(
        cell, key=lambda column: column.map(places[column.name]) if column.name in places else column, ignore_index=True
    )
