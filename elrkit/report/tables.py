"""Tables as readers see them: numbers of `effects` and `published` set in text or HTML. Nothing is computed here but
text."""

import html
from collections.abc import Sequence
from itertools import product

import pandas as pd

from elrkit.config import HUMAN_NOISE_RATES
from elrkit.losses import LOSSES
from elrkit.report import effects, plans, published
from elrkit.report.effects import SETTINGS, Interval, text

DATASETS = {"digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
SCHEDULES = {"multistep": "multi-step", "cosine": "cosine"}
MARKS = {  # of `effects`: how it is shown (a minus would be taken for the number's), its class, what it means
    "+": ("✓", "holds", "holds: the whole interval lies beyond the bound"),
    "-": ("✗", "fails", "does not: on its other side"),
    "~": ("~", "open", "open: across it"),
    "": ("", "few", "under three seeds"),
}


def cell_name(value: object) -> str:
    """A cell of a claim: a noise rate as percent, a dataset or a level of people's labels by its name."""
    try:
        return f"{100 * float(value):g} %"  # type: ignore[arg-type]
    except ValueError:
        return DATASETS.get(str(value), str(value))


def shown_settings(found: pd.DataFrame) -> list[str]:
    """The settings that hold any run, in order."""
    return [name for name in SETTINGS if (found["setting"] == name).any()]


def claims_html(found: pd.DataFrame, claims: pd.DataFrame, folder: str = "../notebooks/") -> str:
    """Claims x settings as an HTML table; a cell opens to its interval, its seeds and links to its runs.

    found   of `effects.table`
    folder  where the chapters are, from the page that shows the table
    """
    settings = shown_settings(found)
    head = "".join(f"<th scope='col'>{html.escape(SETTINGS[name].label)}</th>" for name in settings)
    lines = []
    for claim in claims[claims["id"].isin(found["claim"])].itertuples():
        mine = found[found["claim"] == claim.id]
        cells = []
        for setting in settings:
            parts = [_cell(row, claim, folder) for row in mine[mine["setting"] == setting].itertuples()]
            label = html.escape(SETTINGS[setting].label)
            cells.append(f"<td data-label='{label}'>{''.join(parts)}</td>" if parts else "<td class='empty'></td>")
        link = f"<a href='{folder}{claim.chapter}.html'>{html.escape(claim.text)}</a>"
        name = f"<th scope='row'>{link}<small>{html.escape(claim.where).replace('Section ', '§')}</small></th>"
        lines.append(f"<tr id='claim-{claim.id}'>{name}{''.join(cells)}</tr>")
    key = "; ".join(f"<b class='sign'>{shown or 'no mark'}</b> {meaning}" for shown, _, meaning in MARKS.values())
    return (
        f"<p class='claims-key'>{key}; empty: not run. Tap a number for bound, interval and runs.</p>"
        "<div class='claims-scroll' tabindex='0' role='region' aria-label='Claims by setting'><table class='claims'>"
        f"<thead><tr><th scope='col'>claim</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(row: tuple, claim: tuple, folder: str) -> str:
    sign = "+" if claim.b else ""
    found = Interval(row.mean, row.low, row.high, row.seeds)
    number = effects.number(row.mean, f"{{:{sign}.1f}}") + ("" if claim.b else " %")
    shown, kind, _ = MARKS[row.mark]
    mark = f"<b class='sign sign-{kind}'>{shown}</b>"
    name = f"<span>{html.escape(cell_name(row.cell))}</span> " if row.cell else ""
    unit = "points" if claim.b else "percent"
    links = ", ".join(f"<a href='{folder}made.html#run-{run_id}'>{run_id}</a>" for run_id in dict.fromkeys(row.run_ids))
    exact = text(found, f"{{:{sign}.2f}}").removesuffix(", one seed")
    asked = {">": "more than", "<": "less than", "=": "within"}[claim.direction]
    measured = f"{exact} {unit}, {row.seeds} seed{'s' * (row.seeds > 1)}; claimed: {asked} {claim.bound:g}"
    detail = f"{measured}. {html.escape(claim.note)} Runs: {links}"
    return f"<details><summary>{name}<span>{number} {mark}</span></summary><p>{detail}</p></details>"


def untestable_html(claims: pd.DataFrame) -> str:
    """The claims that no run here can test, each with the most that can be said."""
    rows = claims[claims["direction"] == ""]
    items = "".join(
        f"<li><b>{html.escape(row.text)}</b> ({html.escape(row.where)}). {html.escape(row.note)}</li>"
        for row in rows.itertuples()
    )
    return f"<ul class='untestable'>{items}</ul>"


def table1(runs: pd.DataFrame) -> pd.DataFrame:
    """Table 1, a row per dataset, schedule, noise rate and loss that the paper or a run of ours has: the paper's
    number, Liu et al.'s, and ours in each setting that has runs; percent, mean and 95 % interval over seeds."""
    paper, liu = published.table1(), published.table1("liu2020")
    rows = []
    for dataset, schedule, rate, loss in paper.index:
        row = {"dataset": DATASETS[dataset], "schedule": SCHEDULES[schedule], "noise": f"{100 * rate:g} %",
               "loss": LOSSES[loss].label, "paper": f"{paper[dataset, schedule, rate, loss]:.2f}"}  # fmt: skip
        where = (dataset, schedule, rate, loss)
        row["Liu et al."] = f"{liu[where]:.2f}" if where in liu.index else ""
        cell = dict(schedule=schedule, noise_rate=rate, loss=loss)
        for name, setting in SETTINGS.items():
            row[setting.label] = text(effects.level(runs, "test_top1", **effects.shared(name, dataset), **cell))
        rows.append(row)
    return _without_empty(pd.DataFrame(rows))


def gains(runs: pd.DataFrame) -> pd.DataFrame:
    """ELR less CE within a seed, in points: a row per dataset, schedule and noise rate of the paper's Table 1."""
    paper, liu = published.gains(), published.gains("liu2020")
    rows = []
    for dataset, schedule, rate in sorted(paper.index, key=lambda each: (each[0], each[1] != "multistep", each[2])):
        where = (dataset, schedule, rate)
        row = {"dataset": DATASETS[dataset], "schedule": SCHEDULES[schedule], "noise": f"{100 * rate:g} %"}
        row |= {"paper": f"{paper[where]:+.2f}", "Liu et al.": f"{liu[where]:+.2f}" if where in liu.index else ""}
        cell = dict(schedule=schedule, noise_rate=rate)
        for name, setting in SETTINGS.items():
            common = {**effects.shared(name, dataset), **cell}
            gain = effects.difference(runs, {"loss": "elr"}, {"loss": "ce"}, "test_top1", **common)
            row[setting.label] = text(gain, "{:+.1f}")
        rows.append(row)
    return _without_empty(pd.DataFrame(rows))


def sam(runs: pd.DataFrame) -> pd.DataFrame:
    """What SAM adds, in points within a seed: a row per setting, kind of wrong labels and loss, over SGD of as many
    epochs (last and best ones) and over SGD with twice the epochs, which costs as much."""
    kinds: dict[str, dict[str, object]] = {"20 % redrawn": {"noise_rate": 0.2}}
    for level in plans.LEVELS:
        for kind, labels in kinds_of_labels(level).items():
            kinds[f"{kind}, {_wrong(level)}"] = labels
    rows = []
    for name, (kind, labels), loss in product(effects.present(runs), kinds.items(), ("ce", "elr")):
        common = {**effects.shared(name), "loss": loss, "schedule": "multistep", **labels}
        longer = {"sam_rho": 0, "epochs": 2 * effects.longest(common["epochs"])}
        arms = {
            "over SGD": ({"sam_rho": 0}, "test_top1"),
            "over SGD, best epochs": ({"sam_rho": 0}, "test_top1_best"),
            "over SGD, twice the epochs": (longer, "test_top1"),
        }
        found = {
            text_: text(effects.difference(runs, {"sam_rho": 0.05}, other, measure, **common), "{:+.1f}")
            for text_, (other, measure) in arms.items()
        }
        if any(found.values()):
            rows.append({"setting": SETTINGS[name].label, "wrong labels": kind, "loss": LOSSES[loss].label, **found})
    return _without_empty(pd.DataFrame(rows))


def code(runs: pd.DataFrame) -> pd.DataFrame:
    """What the paper's code did otherwise, a change at a time: a row per setting, change, loss and noise rate; means
    over the seeds that have both runs: test accuracy and wrong labels memorized without and with it, percent, and the
    difference in accuracy, points."""
    plain, sharp, twice = {"sam_rho": 0}, {"sam_rho": 0.05}, {"sam_rho": 0.05, "sam_double_update": True}
    light, restarts = {"weight_decay": 0.0}, {"schedule": "cosine", "epochs": effects.ANY}
    known, rows = runs.set_index("run_id"), []
    for name in effects.present(runs):
        setting = effects.shared(name)
        fast = {"lr": plans.CODE_LR * setting["lr"] / plans.LR}  # a setting has its own multiple of the paper's
        changes: list[tuple[str, dict, dict, dict]] = [  # fields with it, without it where unusual, and of both
            ("float16, a new loss scaler each batch", {"precision": "float16_fresh_scaler"}, {}, {}),
            ("float16, a new loss scaler each batch", {"precision": "float16_fresh_scaler"}, {}, {"loss": "ce"}),
            ("β = 0.3, as set for the runs named CE", {"beta": 0.3}, {}, {}),
            ("five times the learning rate", fast, {}, {}),
            ("no weight decay", light, {}, {}),
            ("both of these", fast | light, {}, {}),
            ("SAM moves targets and statistics twice a step, not once", twice, sharp, {}),
            ("the same under both of these", twice, sharp, fast | light),
            ("such a SAM beside SGD, with 20 epochs of cosine restarts as well", twice, plain, fast | light | restarts),
        ]  # fmt: skip
        for (change, a, b, both), rate in product(changes, (0.2, 0.0)):
            cell = {**setting, "schedule": "multistep", "noise_rate": rate, "loss": "elr", **both}
            pairs = effects.paired(runs, a, {field: cell[field] for field in a} | b, "test_top1", **cell)
            if pairs.empty:
                continue
            row = {
                "setting": SETTINGS[name].label,
                "change": change,
                "points": effects.number(pairs["difference"].mean(), "{:+.1f}"),
            }
            row |= {"loss": LOSSES[cell["loss"]].label, "redrawn": f"{100 * rate:g} %"}
            for arm, column in {"without": "run_id_b", "with": "run_id"}.items():
                mine = known.loc[pairs[column]]
                row[f"{arm}, %"] = percent(mine["test_top1"])
                row[f"memorized {arm}, %"] = percent(mine["batches_wrong_memorized"])
            rows.append(row | {"seeds": len(pairs)})
    return pd.DataFrame(rows)


def kinds_of_labels(level: str) -> dict[str, dict[str, object]]:
    """The fields of runs on people's labels of a level, and of those with as many wrong ones at random."""
    random = {"noise": "symmetric", "noise_convention": "others", "noise_rate": HUMAN_NOISE_RATES[level]}
    return {"people's": {"noise": "human", "noise_convention": level}, "random": random}


def _wrong(level: str) -> str:
    return f"{100 * HUMAN_NOISE_RATES[level]:.0f} % wrong"


def people(runs: pd.DataFrame) -> pd.DataFrame:
    """ELR and CE on people's labels and with as many wrong at random: a row per setting, level and kind of labels; test
    accuracy in percent, differences in points within a seed, wrong labels memorized in percent of them."""
    ce, elr = {"loss": "ce"}, {"loss": "elr"}
    arms = {"CE": ce, "ELR": elr}
    rows = []
    for name, level in product(effects.present(runs), plans.LEVELS):
        for kind, labels in kinds_of_labels(level).items():
            common = {**effects.shared(name), "schedule": "multistep", **labels}
            known = {arm: effects.level(runs, "test_top1", **common, **loss) for arm, loss in arms.items()}
            if not any(arm.seeds for arm in known.values()):
                continue
            row = {"setting": SETTINGS[name].label, "level": f"{level}, {_wrong(level)}", "labels": kind}
            row |= {f"{arm}, %": text(accuracy) for arm, accuracy in known.items()}
            for over, measure in {"ELR less CE": None, "ELR less CE's best epoch": "test_top1_best"}.items():
                gain = effects.difference(runs, elr, ce, "test_top1", measure_b=measure, **common)
                row[over] = text(gain, "{:+.1f}")
            for arm, loss in arms.items():
                share = effects.level(runs, "batches_wrong_memorized", **common, **loss)
                row[f"{arm} memorizes, %"] = effects.number(share.mean, "{:.0f}") if share.seeds else ""
            rows.append(row)
    return _without_empty(pd.DataFrame(rows))


def losses(runs: pd.DataFrame) -> pd.DataFrame:
    """Every loss at 20 % noise beside CE: a row per setting and loss, with Liu et al.'s number for it."""
    liu = published.numbers()
    liu = liu[(liu["source"] == "liu2020") & liu["dataset"].eq("cifar10") & liu["noise_rate"].eq(0.2)]
    liu = liu[liu["noise_kind"].eq("symmetric") & liu["schedule"].ne("cosine")].set_index("loss")["mean"]
    rows = []
    for name in effects.present(runs):
        for loss, kind in LOSSES.items():
            common = {**effects.shared(name), "schedule": "multistep", "noise_rate": 0.2, "noise": "symmetric"}
            mine = effects.level(runs, "test_top1", **common, loss=loss)
            if not mine.seeds:
                continue
            gain = effects.difference(runs, {"loss": loss}, {"loss": "ce"}, "test_top1", **common)
            rows.append(
                {"setting": SETTINGS[name].label, "loss": kind.label, "last epoch, %": text(mine),
                 "best epoch, %": text(effects.level(runs, "test_top1_best", **common, loss=loss)),
                 "less CE, points": "" if loss == "ce" else text(gain, "{:+.1f}"),
                 "wrong labels memorized, %": text(effects.level(runs, "batches_wrong_memorized", **common, loss=loss)),
                 "Liu et al., ResNet-34": f"{liu[loss]:.2f}" if loss in liu.index else ""}
            )  # fmt: skip
    return _without_empty(pd.DataFrame(rows))


def _without_empty(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[:, (table != "").any()]


def shops(table: pd.DataFrame) -> pd.DataFrame:
    """What a shop can measure beside the truth, as text in percent: mean over seeds and its 95 % interval (t; a single
    seed has none), one row per split and arm."""
    measures = {
        "memorized": "memorized",
        "agreement with its labels": "agreement",
        "accuracy against the truth": "accuracy",
        "agreement, near-duplicate in training": "agreement_leaked",
        "agreement, none": "agreement_apart",
    }
    rows = []
    for (split, _, arm), part in table.groupby(["split", "leak", "arm"], sort=False):
        where = {"split by": split, "loss": arm, "seeds": part["seed"].nunique()}
        where["near-duplicates"] = f"{100 * part['near_duplicates'].mean():.1f} %"
        shown = {name: percent(part[column].dropna()) for name, column in measures.items()}
        apart = effects.interval(100 * (part["agreement"] - part["accuracy"]))
        rows.append(where | shown | {"agreement less accuracy": text(apart).removesuffix(", one seed")})
    return pd.DataFrame(rows)


def percent(values: Sequence[float]) -> str:
    """Shares over seeds as text in percent, mean and 95 % interval, for tables that count the seeds; empty without."""
    return effects.text(effects.percent(values)).removesuffix(", one seed")
