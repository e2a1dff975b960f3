"""What the records say so far: the ledger, and a sentence or two for each chapter. Nothing is typed by hand.

Each sentence is computed at the larger scale that has runs, and names it; a chapter without runs says so.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from html import escape

import numpy as np
import pandas as pd

from elrkit import records
from elrkit.config import RunConfig
from elrkit.report import compare, paper, plans
from elrkit.report import list_study as audit_study
from elrkit.report import made_shops as shop
from elrkit.report import people as human_noise
from elrkit.report.paper import interval_text

SCALES = ("paper", "cpu")
NAMES = {"ce": "cross-entropy", "elr": "ELR", "sce": "symmetric cross-entropy", "nce_rce": "NCE + RCE"}
NONE = "not run yet"


def ledger() -> pd.DataFrame:
    """`paper.decide` on all records there are: of runs, and of the studies of the list of labels to look at."""
    every_run = records.table(records.read_all())
    return paper.decide(paper.load_claims(), paper.load_published(), every_run, studies())


def sentences() -> list[tuple[str, str]]:
    """(chapter, text) for each chapter whose question the records answer, in the order of the book."""
    return [
        ("early_learning", _first(early_learning, "early-learning")),
        ("table1", _first(table1, "table1")),
        ("forensics", forensics()),
        ("sam", _first(sam, "sam")),
        ("related_losses", _first(related_losses, "related-losses")),
        ("human_noise", _first(human_labels, "human-noise")),
        ("audit", audit()),
        ("shop", shops()),
    ]


def numbers(decided: pd.DataFrame) -> str:
    """How many of the published numbers are decided, in a sentence; `decided` of `ledger`."""
    rows = decided[decided["kind"] == "number"]
    own = rows["source"] == "galatolo2021"
    parts = [
        _numbers(rows[own], "of the paper's {}"),
        _numbers(rows[~own], "of {} of other papers, listed beside them,"),
    ]
    return ". ".join(f"{part[0].upper()}{part[1:]}" for part in parts if part)


def _numbers(rows: pd.DataFrame, whose: str) -> str:
    count = Counter(map(paper.shown_verdict, rows.itertuples()))
    said = {
        "reproduced": "reproduced",
        paper.VERDICTS[2]: "reproduced with the recipe of the published code alone",
        "not reproduced": "not reproduced",
        "no verdict yet": "not decided by the runs there are",
        "not run yet": "waiting for runs at the paper's scale",
        paper.NOT_PLANNED: "in settings that are not planned here",
        "untestable": "untestable, most for want of the shop's data",
        paper.NOT_AMONG: "of methods that this report does not have",
    }
    parts = [f"{count[verdict]} {text}" for verdict, text in said.items() if verdict in count]
    if not parts:
        return ""
    whose = whose.format(f"{len(rows)} numbers")
    decided = any(verdict in count for verdict in list(said)[:3])
    return f"{whose} {', '.join(parts)}" if decided else f"none {whose} is decided yet: {', '.join(parts)}"


EVIDENCE = {
    "runs at paper scale": ("paper",),
    "runs at cpu scale": ("cpu",),
    "no run: published tables, counting, a linear model": ("tables", "counted", "linear model"),
    "no evidence": ("",),
}


def verdicts(decided: pd.DataFrame) -> pd.DataFrame:
    """How many claims in words have which verdict (columns, as `paper.shown_verdict`) on which evidence (rows)."""
    claims = decided[decided["kind"] == "claim"]
    of_scale = {scale: evidence for evidence, scales in EVIDENCE.items() for scale in scales}
    evidence = claims["scale"].map(of_scale)
    shown = pd.Series(map(paper.shown_verdict, claims.itertuples()), claims.index, dtype=object)
    table = pd.crosstab(evidence, shown)
    table = table.reindex(index=list(EVIDENCE), columns=paper.SHOWN_VERDICTS, fill_value=0)
    kept = [name for name in paper.SHOWN_VERDICTS if table[name].any() or name in ("reproduced", "not reproduced")]
    return table[kept].rename_axis(index="claims, by evidence", columns=None).reset_index()


WHOSE = {"none": "", "fresh": ", as described", "frozen": ", as the code did"}  # augmentation -> whose it is


def answer() -> pd.DataFrame:
    """What ELR adds on CIFAR-10 at 20 % noise, multi-step, under each way to crop and flip: the front page's table.

    Columns, as text: training; ELR - CE in points of test accuracy, within a seed, at the last epoch, at the best ones,
    and ELR at the last less CE at its best; CE and ELR at the last; right and wrong labels that CE and ELR fit, in the
    batches of the last epoch, means over seeds; seeds.
    First the two published tables, then ours at paper scale, then at cpu scale, whose runs without crops train on all
    images, the others on a part.
    """
    rows = []
    for name, ce, elr in _published_at_20():
        gain = f"{elr['mean'] - ce['mean']:+.2f}"
        level = f"{ce['mean']:.2f}", f"{elr['mean']:.2f}"
        rows.append((f"{name}, Table 1", gain, "", "", *level, "", "", f"{ce['runs']:g}"))
    for scale in SCALES:
        for augmentation, planned in _cells_at_20(scale).items():
            size = f"{planned[0].train_size or 50_000:,} images, {planned[0].epochs} epochs"
            how = f"{paper.AUGMENTATIONS[augmentation]}{WHOSE[augmentation]}"
            rows.append(_answer_row(f"ours, {scale} scale, {size}, {how}", planned))
    gains = ["ELR - CE, points", "at best epochs", "ELR's last - CE's best"]
    fits = ["right labels fitted, CE / ELR, %", "wrong ones memorized, CE / ELR, %"]
    columns = ["training", *gains, "CE, %", "ELR, %", *fits, "seeds"]
    return pd.DataFrame(rows, columns=columns)


PAPERS_SHOP = "to ELR, the paper's shop"


def differences() -> pd.DataFrame:
    """What ELR adds to cross-entropy, and SAM to SGD, within a seed and all else equal: a row per scale and cell that
    the chapters ask about, whether it is run or not, in the order of the front page's figure.

    Columns: about: which comparison; cell; scale; seeds; last, last_low, last_high: points of test accuracy at the last
    epoch, mean and 95 % t interval over seeds; best, best_low, best_high: each run at the epoch where it is highest;
    published, liu: the same at the last epoch in the two papers, NaN where there is none; none: why there may be no
    seed.
    """
    rows = [row for scale in SCALES for row in _of_scale(scale)]
    measures = [f"{at}{end}" for at in ("last", "best") for end in ("", "_low", "_high")]
    table = pd.DataFrame(rows, columns=["about", "cell", "scale", "seeds", *measures, "published", "liu"])
    table["none"] = np.where(table["cell"] == PAPERS_SHOP, "not public", NONE)
    order = (
        table.drop_duplicates("about")["about"].to_list(),
        table.drop_duplicates(["about", "cell"])["cell"].to_list(),
    )
    places = table.assign(about=table["about"].map(order[0].index), cell=table["cell"].map(order[1].index))
    return table.loc[places.sort_values(["about", "cell"], kind="stable").index].reset_index(drop=True)


def _of_scale(scale: str) -> Iterable[tuple]:
    """The rows of `differences` at a scale."""
    published = paper.load_published()
    theirs = paper.published_gains(published)
    sam_theirs = _published(SAM_GAIN)

    def cells(planned: Iterable[RunConfig], name: Callable[[RunConfig], str], second: Callable[[RunConfig], bool]):
        """(name of the cell, one of its runs, the seven columns from seeds on) of runs that differ in `second`."""
        groups: dict[str, list[RunConfig]] = {}
        for config in planned:
            groups.setdefault(name(config), []).append(config)
        for cell, group in groups.items():
            if {second(config) for config in group} == {False, True}:
                yield cell, group[0], _gains(group, second)

    table1 = [config for config in plans.plan("table1", scale) if config.split == "all"]
    table1.sort(key=lambda c: (c.dataset, c.schedule != "multistep", c.noise_rate))
    for cell, config, gains in cells(
        table1, lambda c: f"{paper.DATASETS[c.dataset]}, {paper.SCHEDULES[c.schedule]}, {_rate(c)} redrawn", _is_elr
    ):
        yield (
            "ELR - CE, Table 1",
            cell,
            scale,
            *gains,
            *theirs.loc[(config.dataset, config.schedule, config.noise_rate)],
        )
    crops = list(_as_table1(plans.plan("forensics", scale), (0.2, 0.0)))
    for cell, _, gains in cells(crops, lambda c: f"{paper.AUGMENTATIONS[c.augmentation]}, {_rate(c)} redrawn", _is_elr):
        yield "ELR - CE, CIFAR-10 with crops, multi-step", cell, scale, *gains, np.nan, np.nan
    people = [c for c in plans.plan("human-noise", scale) if c.split == "all" and c.schedule == "multistep"]
    plain = [config for config in people if not _is_sam(config)]
    for cell, _, gains in cells(plain, _whose, _is_elr):
        yield "ELR - CE, labels by people, or as many wrong", cell, scale, *gains, np.nan, np.nan
    names = {made.dataset: _shop_name(made) for made in shop.shops(scale)}
    shops = [config for made in shop.shops(scale) for config in shop.configs(made).values()]
    plain = [config for config in shops if not _is_sam(config)]
    for cell, _, gains in cells(plain, lambda c: names[c.dataset], _is_elr):
        yield "ELR - CE, shops with misfiled products", cell, scale, *gains, np.nan, np.nan
    of_sam = plans.plan("sam", scale)
    nothing = (0, *[np.nan] * 6)
    yield "SAM - SGD", PAPERS_SHOP, scale, *nothing, sam_theirs, np.nan
    short = [config for config in of_sam if config.epochs == of_sam[0].epochs]
    for cell, _, gains in cells(short, lambda c: f"to {NAMES[c.loss]}, {_rate(c)} of CIFAR-10 redrawn", _is_sam):
        yield "SAM - SGD", cell, scale, *gains, np.nan, np.nan
    described = _as_described(plans.plan("forensics", scale))
    for cell, _, gains in cells(described, lambda c: f"to ELR, {paper.AUGMENTATIONS[c.augmentation]}", _is_sam):
        yield "SAM - SGD", cell, scale, *gains, np.nan, np.nan
    for planned, name in ((people, _whose), (shops, lambda c: names[c.dataset])):
        for cell, _, gains in cells(filter(_is_elr, planned), lambda c, name=name: f"to ELR, {name(c)}", _is_sam):
            yield "SAM - SGD", cell, scale, *gains, np.nan, np.nan


SAM_GAIN = "galatolo2021-text-cdon-sam-gain"


def _published(number: str) -> float:
    return paper.load_published().set_index("id")["mean"][number]


def _is_elr(config: RunConfig) -> bool:
    return config.loss == "elr"


def _is_sam(config: RunConfig) -> bool:
    return config.sam_rho > 0


def _gains(planned: Iterable[RunConfig], second: Callable[[RunConfig], bool]) -> tuple[float, ...]:
    """Seeds that both arms have finished, then mean, low and high of the second less the first in points at the last
    epoch, and at the best ones."""
    arms = _paired(planned, second)
    gains = (b - a for a, b in zip(*map(_ends, arms), strict=True))
    return len(arms[0]), *(figure for gain in gains for figure in paper.t_interval(gain))


def _paired(
    planned: Iterable[RunConfig], second: Callable[[RunConfig], bool] = _is_elr
) -> tuple[list[dict], list[dict]]:
    """The curves of the finished runs of which `second` is false, and of which it is true: a run of each per seed that
    both have."""
    arms: tuple[dict[int, dict], dict[int, dict]] = ({}, {})
    for config in planned:
        if (record := records.find(config)) and record["status"] == "finished":
            arms[second(config)][config.seed] = record["curves"]
    seeds = sorted(arms[0].keys() & arms[1].keys())
    return [arms[0][seed] for seed in seeds], [arms[1][seed] for seed in seeds]


def _ends(curves: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Test accuracy of each run in percent: at its last epoch, and at its best one."""
    tests = [100 * np.array(one["test_top1"]) for one in curves]
    return np.array([test[-1] for test in tests]), np.array([test.max() for test in tests])


def _at_last(curves: Sequence[dict], name: str) -> float:
    """The mean over runs, in percent, at the last epoch."""
    return 100 * np.mean([one[name][-1] for one in curves])


def _shop_name(made: shop.Shop) -> str:
    if made.kind == "clothing":
        return "photos of clothes"
    leak = f"{made.leak} % near-duplicates" if made.split == "product" else "split by group"
    return f"made shop, {leak}"


def _rate(config: RunConfig) -> str:
    return f"{100 * config.noise_rate:g} %"


def _whose(config: RunConfig) -> str:
    whose = human_noise.level_of(config.noise_rate) if config.noise == "human" else "at random"
    return f"{whose}, {100 * config.noise_rate:.0f} % wrong"


def short_answer() -> dict[str, str]:
    """The front page's first lines, by augmentation, and `scale`: what became of the wrong labels and what ELR adds on
    CIFAR-10 at 20 % noise, at the larger scale that has runs; means over seeds, 95 % t intervals."""
    for scale in SCALES:
        cells = _cells_at_20(scale)
        found = {name: text for name, planned in cells.items() if (text := _short_answer(planned))}
        if found:
            nets = (
                "small nets alone; whether a ResNet-34 does the same is not run yet" if scale == "cpu" else "ResNet-34"
            )
            return dict.fromkeys(WHOSE, NONE) | found | {"scale": nets}
    return dict.fromkeys([*WHOSE, "scale"], NONE)


def _short_answer(planned: Sequence[RunConfig]) -> str:
    ce, elr = _paired(planned)
    if not ce:
        return ""
    memorized = [f"{_at_last(curves, 'batches_wrong_memorized'):.0f} %" for curves in (ce, elr)]
    last = _ends(elr)[0]
    gain, over_best = (interval_text(last - end, "{:+.1f}") for end in _ends(ce))
    return (
        f"cross-entropy ends with {memorized[0]} of the wrong labels memorized, ELR with {memorized[1]}; ELR's "
        f"test accuracy less cross-entropy's is {gain} points at the last epoch, and {over_best} where cross-entropy "
        "was stopped at its best one"
    )


def pairs() -> pd.DataFrame:
    """`compare.kept_from_memory` of the report's records on photos: CIFAR's, and those of the made shops."""
    return compare.kept_from_memory(_on_photos(records.table(records.read_all())))


def _on_photos(table: pd.DataFrame) -> pd.DataFrame:
    """The runs on CIFAR and on the made shops but the digits': not a reader's own data, whose truth nobody knows."""
    return table[table["dataset"].str.match(r"cifar10$|cifar100$|shop/(?!digits)")]


ABOUT_18 = (16.0, 20.0)  # percent wrong: redrawn at "20 %", and random1 of people's labels


def memory(found: pd.DataFrame) -> str:
    """What a label kept from being memorized goes with over all settings, how often ELR ends above a stopped
    cross-entropy, and what it adds where no label is wrong; `found` of `pairs`."""
    line = compare.gain_per_label(found)
    if line is None:
        return NONE
    nets = "small nets and ResNet-34" if (found["scale"] == "paper").any() else "small nets"
    best = compare.gain_per_label(found, "best_gain")
    text = (
        f"Across {line.settings} settings of {nets}, {line.single} of them a single seed, ELR's gain in test accuracy "
        f"rises by {_slope(line)} points with each percent of all labels that it keeps from being memorized, at the "
        f"last epoch; with each run at its best epoch, chosen on the test images, by {_slope(best)} (least squares, "
        "95 % intervals over settings, some of which share runs)"
    )
    wrong = found[found["labels"] != "none"].groupby("setting")["over_best"].mean()
    text += (
        f". Where labels are wrong, ELR ends above cross-entropy stopped at its best epoch in {(wrong > 0).sum()} of "
        f"{len(wrong)} settings, by {wrong.median():+.1f} points in the middle"
    )
    clean = found[found["labels"] == "none"].groupby("setting")["gain"].mean()
    if len(clean):
        text += f". Where no label is wrong ELR's last epoch differs by {clean.min():+.1f} to {clean.max():+.1f}"
    return text


def memory_details(found: pd.DataFrame) -> list[str]:
    """What `memory` leaves out, a sentence each: how much of the gains the lines explain, and the share of wrong labels
    alone would; the lines among settings of one share; the range of ELR's last epoch over cross-entropy's best."""
    line, best = (compare.gain_per_label(found, gain) for gain in ("gain", "best_gain"))
    if line is None:
        return []
    said = [f"R² is {line.r2:.2f} at the last epoch and {best.r2:.2f} at the best ones"]
    if alone := compare.gain_per_label(found.assign(kept=found["wrong"])):
        said[0] += f"; a line in the share of wrong labels alone has {alone.r2:.2f} at the last epoch"
    cifar = found[found["dataset"] == "cifar10"]
    one_rate = cifar[cifar["wrong"].between(*ABOUT_18)]
    lines = [compare.gain_per_label(one_rate, gain) for gain in ("gain", "best_gain")]
    if None not in lines:
        said.append(
            f"among the {lines[0].settings} settings of CIFAR-10 with about 18 % wrong labels the slopes are "
            f"{' and '.join(map(_slope, lines))}"
        )
    wrong = found[found["labels"] != "none"].groupby("setting")["over_best"].mean()
    said.append(f"ELR's last epoch less cross-entropy's best: {wrong.min():+.1f} to {wrong.max():+.1f} points")
    return said


def _slope(line: compare.Line) -> str:
    return f"{line.slope:.2f} ({line.low:.2f} to {line.high:.2f})"


def readme(decided: pd.DataFrame) -> str:
    """What the README says of the records: claims as a Markdown table, and what a memorized label costs."""
    return f"{paper.readme_table(decided)}\n\n{memory(pairs())}."


def _published_at_20() -> Iterable[tuple[str, pd.Series, pd.Series]]:
    """Who, CE and ELR on CIFAR-10 at 20 % noise, multi-step: the rows of the two published tables."""
    published = paper.load_published()
    cell = published[(published["dataset"] == "cifar10") & (published["noise_kind"] == "symmetric")]
    cell = cell[(cell["noise_rate"] == 0.2) & (cell["schedule"] == "multistep")].set_index(["source", "method"])
    for source, name in (("galatolo2021", "Galatolo et al."), ("liu2020", "Liu et al.")):
        yield name, cell.loc[(source, "CE")], cell.loc[(source, "ELR")]


def _as_described(planned: Sequence[RunConfig]) -> Iterable[RunConfig]:
    """ELR as the plan's first run of it, and with SAM added to it, at 20 % noise."""
    first = next(config for config in planned if config.loss == "elr" and config.noise_rate == 0.2)
    for config in planned:
        if first.with_(seed=config.seed, noise_seed=config.noise_seed, sam_rho=config.sam_rho) == config:
            yield config


def _as_table1(planned: Sequence[RunConfig], rates: Sequence[float] = (0.2,)) -> Iterable[RunConfig]:
    """The runs at these noise rates that are as their plan's first one, but for the crops being drawn once."""
    first: dict[tuple, RunConfig] = {}
    for config in planned:
        plain = first.setdefault((config.noise_rate, config.loss, config.seed), config)
        if config.noise_rate in rates and compare.changed(config, plain) <= {compare.FROZEN}:
            yield config


def _cells_at_20(scale: str) -> dict[str, list[RunConfig]]:
    """CE and ELR on CIFAR-10 at 20 % noise, multi-step, by augmentation: the keys of `WHOSE` that the scale plans."""
    plain = {c.run_id: c for name in ("early-learning", "forensics") for c in _as_table1(plans.plan(name, scale))}
    cells = {name: [config for config in plain.values() if config.augmentation == name] for name in WHOSE}
    return {name: planned for name, planned in cells.items() if planned}


def _answer_row(name: str, planned: Sequence[RunConfig]) -> tuple[str, ...]:
    ce, elr = _paired(planned)
    if not ce:
        return name, NONE, "", "", "", "", "", "", ""
    (ce_last, ce_best), (elr_last, elr_best) = _ends(ce), _ends(elr)
    gains = (elr_last - ce_last, elr_best - ce_best, elr_last - ce_best)
    fits = (
        " / ".join(f"{_at_last(curves, f'batches_{what}'):.0f}" for curves in (ce, elr))
        for what in ("right_correct", "wrong_memorized")
    )
    texts = (*(("{:+.2f}", gain) for gain in gains), ("{:.2f}", ce_last), ("{:.2f}", elr_last))
    return name, *(interval_text(values, form, one="") for form, values in texts), *fits, str(len(ce))


def as_html(found: Iterable[tuple[str, str]], titles: dict[str, str], folder: str = "") -> str:
    """The sentences as an HTML list; each begins with a link to its chapter, titled as in `titles`."""
    links = ((f'<a href="{folder}{name}.html">{escape(titles[name])}</a>', escape(text)) for name, text in found)
    return f"<ul>{''.join(f'<li>{link}: {text}</li>' for link, text in links)}</ul>"


def _finished(planned: Sequence[RunConfig], trained: Sequence[dict]) -> pd.DataFrame:
    """The table of the finished runs that held nothing out."""
    table = records.table(trained)
    return table[(table["status"] == "finished") & (table["split"] == "all")] if len(table) else table


def _first(
    sentence: Callable[[pd.DataFrame], str],
    plan: str,
    table_of: Callable[[Sequence[RunConfig], Sequence[dict]], pd.DataFrame] = _finished,
) -> str:
    """The sentence about the first scale at which the plan's runs suffice for one; of its table, made by `table_of`."""
    for scale in SCALES:
        planned = plans.plan(plan, scale)
        table = table_of(planned, [record for config in planned if (record := records.find(config))])
        text = sentence(table) if len(table) else ""
        if text:
            return f"{text} ({scale} scale)"
    return NONE


def _percent(values: Sequence[float]) -> str:
    return interval_text((100 * value for value in values), "{:.1f} %")


def _points(table: pd.DataFrame, column: str, high: object, low: object, measure: str = "test_top1") -> str:
    """A measure of one arm less another's, in points, within a seed and cell; empty without a pair."""
    cells = table.pivot_table(index=["noise_rate", "seed"], columns=column, values=measure)
    if not {high, low} <= set(cells.columns):
        return ""
    return interval_text(100 * (cells[high] - cells[low]), "{:+.1f}", none="")


def early_learning(table: pd.DataFrame) -> str:
    """What ELR keeps from being memorized, in the batches of the last epoch, at 20 % noise."""
    rows = table[table["noise_rate"] == 0.2]
    parts = [
        f"{NAMES[loss]} ends with {_percent(group['batches_wrong_memorized'])} of the wrong labels memorized and "
        f"{_percent(group['test_top1'])} test accuracy"
        for loss, group in rows.groupby("loss")
    ]
    return "CIFAR-10 with 20 % of the labels redrawn: " + "; ".join(parts) if len(parts) == 2 else ""


def around_the_falls(curves: pd.DataFrame) -> list[str]:
    """How many wrong labels are memorized when the learning rate falls and at the end, in the batches, and the epoch
    with the best test accuracy, a sentence per loss; `curves` of `elrkit.runs.curves`, runs of one schedule with
    milestones."""
    milestones, last = curves["milestones"].iloc[0], curves["epoch"].max()
    sentences = []
    for loss, group in curves[curves["sam_rho"] == 0].groupby("loss"):
        share = 100 * group.groupby("epoch")["batches_wrong_memorized"].mean()
        falls = [f"{share[epoch]:.0f} % before the learning rate falls after epoch {epoch}" for epoch in milestones]
        rises = share[last] - share[last - 4]
        sentences.append(
            f"{NAMES.get(loss, loss)} has memorized {', '.join(falls)} and {share[last]:.0f} % in the end "
            f"({rises:+.1f} points over the last four epochs); {_best_epochs(group)}"
        )
    return sentences


def _best_epochs(curves: pd.DataFrame) -> str:
    best = curves.loc[curves.groupby("run_id")["test_top1"].idxmax(), "epoch"]
    epochs = f"{best.min()}" if best.nunique() == 1 else f"{best.min()} to {best.max()}"
    return f"its test accuracy is highest after epoch {epochs} ({len(best)} run{'s' * (len(best) > 1)})"


def table1(table: pd.DataFrame) -> str:
    """ELR minus cross-entropy in points, cell by cell."""
    parts = []
    for (dataset, schedule), group in table.groupby(["dataset", "schedule"], sort=False):
        by_rate = {rate: _points(cell, "loss", "elr", "ce") for rate, cell in group.groupby("noise_rate")}
        cells = [f"{gain} at {100 * rate:g} %" for rate, gain in by_rate.items() if gain]
        if cells:
            parts.append(f"{paper.DATASETS[dataset]}, {paper.SCHEDULES[schedule]}: {', '.join(cells)} noise")
    return "ELR minus cross-entropy, points of test accuracy. " + ". ".join(parts) if parts else ""


def sam(table: pd.DataFrame) -> str:
    """SAM minus SGD, all else equal: test accuracy at the last epoch and at the best ones, wrong labels memorized; and
    SGD with twice the epochs, which costs as much, minus SGD."""
    shortest = table["epochs"].min()
    parts, best, memorized, rival = [], [], [], False
    for loss, group in table.groupby("loss"):
        rho = group["sam_rho"].max()
        alone = _points(group[group["epochs"] == shortest], "sam_rho", rho, 0.0) if rho else ""
        twice = _points(group[group["sam_rho"] == 0], "epochs", 2 * shortest, shortest)
        if alone:
            rival |= bool(twice)
            parts.append(f"{alone} to {NAMES[loss]}" + (f" (twice the epochs with SGD: {twice})" if twice else ""))
            short = group[group["epochs"] == shortest]
            best.append(f"{_points(short, 'sam_rho', rho, 0.0, 'test_top1_best')} to {NAMES[loss]}")
            memorized.append(f"{_points(short, 'sam_rho', rho, 0.0, 'batches_wrong_memorized')} with {NAMES[loss]}")
    if not parts:
        return ""
    over = compare.sam_over_all(_on_photos(records.table(records.read_all())))
    elsewhere = ""
    if len(over) > 1:
        elsewhere = (
            f". Over all {len(over)} settings of this report in which ELR was run with and without SAM, shops and "
            f"people's labels too, it adds {over['gain'].min():+.1f} to {over['gain'].max():+.1f}, "
            f"{over['gain'].median():+.1f} in the middle ({(over['seeds'] == 1).sum()} of them a single seed)"
        )
    missing = "" if rival else "; SGD for twice the epochs, its fair rival, is not run yet"
    return (
        f"Points of test accuracy that SAM adds, all else equal: at the last epoch {', '.join(parts)}, where the paper "
        f"has {_published(SAM_GAIN):g}; at the best epochs {', '.join(best)}. It costs twice as "
        f"much{missing}{elsewhere}. Wrong labels memorized, in points: {', '.join(memorized)}"
    )


def related_losses(table: pd.DataFrame) -> str:
    """What ELR and the losses that the paper cites beside it add to cross-entropy, the paper's recipe for all; empty
    before one of them is run."""
    table = table[table["weight_decay"].map(paper.whose_recipe) == "the paper's"]
    parts = []
    for rate, cell in table.groupby("noise_rate"):
        last, best = (
            {loss: gain for loss in NAMES if (gain := _points(cell, "loss", loss, "ce", measure)) and loss != "ce"}
            for measure in ("test_top1", "test_top1_best")
        )
        if last.keys() - {"elr"}:
            gains = ", ".join(f"{NAMES[loss]} {gain}" for loss, gain in last.items())
            parts.append(f"at {100 * rate:g} % noise {gains}, and at the best epochs {', '.join(best.values())}")
            if missing := [name for loss, name in NAMES.items() if loss not in {"ce", *last}]:
                parts[-1] += f"; {' and '.join(missing)} not run yet"
    if not parts:
        return ""
    text = "Points of test accuracy above cross-entropy at the last epoch, CIFAR-10, the paper's recipe for every loss"
    return f"{text}: {'. '.join(parts)}"


def ladder(rows: pd.DataFrame) -> str:
    """Which step moves most, between the recipe as the paper describes it and the recipe as its code ran it, and what
    ELR adds to cross-entropy before and after it.

    rows: of `compare.compare`. Empty where no step between two rungs is known. Left out is what counts on noisy test
    labels: it is no training, and the code did not count so (the chapter shows it).
    """
    noisy = {arm.name for arm in compare.LADDER if arm.measure == "test_top1_noisy"}
    rungs = rows[~rows["single"]]
    gains = compare.elr_gain(rungs, paper.load_published())
    single = max(rungs["change_seeds"].max(), gains["seeds"].max() if len(gains) else 0) <= 1
    parts = []

    def points(row: pd.Series, name: str, seeds: str) -> str:
        return compare.change_text(row, name) + (" (1 seed)" if row[seeds] == 1 and not single else "")

    for rate, cell in rungs.groupby("noise_rate", sort=False):
        steps = cell[cell["change_seeds"] > 0]
        if steps.empty:
            continue
        sizes = steps.assign(size=steps["change"].abs())
        largest = sizes.loc[sizes["size"].idxmax(), "arm"]
        others = sizes[sizes["arm"] != largest]
        which = f"the rung that moves most is '{largest}'" if len(others) else f"the rung '{largest}' moves"
        taken = (row for _, row in steps[steps["arm"] == largest].iterrows())
        changes = [f"{points(row, 'change', 'change_seeds')} with {NAMES[row['loss']]}" for row in taken]
        part = f"At {100 * rate:g} % noise {which}: {', '.join(changes)}"
        if len(others):
            next_largest = others.loc[others["size"].idxmax()]
            one = " (1 seed)" if next_largest["change_seeds"] == 1 and not single else ""
            part += f"; no other moves more than {next_largest['size']:.2f}{one}"
        of_rate = gains[gains["noise_rate"] == rate].set_index("arm", drop=False)
        arms = list(dict.fromkeys(cell["arm"]))
        before = arms[arms.index(largest) - 1]
        added = {arm: points(of_rate.loc[arm], "gain", "seeds") for arm in (before, largest) if arm in of_rate.index}
        if largest in added:
            was = f"goes with it from {added[before]} to" if before in added else "is then"
            published = of_rate["published"].iloc[0]
            part += f". ELR minus cross-entropy {was} {added[largest]}, where Table 1 has {published:+.2f}"
        beside = rows[rows["single"] & (rows["change_seeds"] > 0) & (rows["noise_rate"] == rate)]
        beside = beside[~beside["arm"].isin(noisy)]
        if len(beside):
            most = beside.loc[beside["change"].abs().idxmax()]
            change = points(most, "change", "change_seeds")
            part += f". Beside the ladder '{most['arm']}' moves most: {change} with {NAMES[most['loss']]}"
        parts.append(part)
    if not parts:
        return ""
    return f"Points of test accuracy{', 1 seed' if single else ''}. {'. '.join(parts)}"


def sam_ladder(rows: pd.DataFrame) -> str:
    """What each change moves between SGD as the paper describes it and SAM as its code ran it, in points, and what
    SAM's second update of ELR's targets does alone; `rows` of `compare.compare` with the arms `SAM_LADDER`. Empty until
    every rung is there."""
    rungs = rows[~rows["single"]]
    if rungs.empty or not rungs["seeds"].all():
        return ""
    single = rows["seeds"].drop(rungs.index[0]).max() == 1
    one = "" if single else " (1 seed)"

    def points(row: pd.Series, name: str) -> str:
        return compare.change_text(row, name) + (one if row[f"{name}_seeds"] == 1 else "")

    steps = ", ".join(f"{points(row, 'change')} {row['arm']}" for _, row in rungs.iloc[1:].iterrows())
    text = (
        "Between ELR with SGD as described and with SAM as the code ran it lie "
        f"{points(rungs.iloc[-1], 'total')} points{', 1 seed' if single else ''}: {steps}"
    )
    alone = rows[(rows["arm"] == "SAM, targets moved twice") & (rows["change_seeds"] > 0)]
    if len(alone):
        text += f". Of SAM as described, moving ELR's targets twice a step moves {points(alone.iloc[0], 'change')}"
    values = rows.set_index("arm")["values"]
    ran, sgd = rungs.iloc[-1]["values"], values.get(compare.SGD_BESIDE_SAM, {})
    if both := ran.keys() & sgd.keys():
        less = interval_text((ran[seed] - sgd[seed] for seed in both), "{:+.2f}", one=one)
        published = f"{_published(SAM_GAIN):g}"
        text += (
            f". With all else as that code has it, SAM less SGD is {less}, where the paper has {published} on its shop"
        )
    return text


def forensics() -> str:
    """The two ladders, from the recipe as described to what the code ran; each at the larger scale that has it."""
    first = _first(ladder, "forensics", partial(compare.compare, arms=compare.LADDER))

    def of_elr(planned: Sequence[RunConfig], trained: Sequence[dict]) -> pd.DataFrame:
        cell = [config for config in planned if (config.noise_rate, config.loss) == (planned[0].noise_rate, "elr")]
        return compare.compare(cell, trained, compare.SAM_LADDER)

    second = _first(sam_ladder, "forensics", of_elr)
    return first if second == NONE else f"{first}. {second}"


def human_labels(table: pd.DataFrame) -> str:
    """Either loss on people's labels less on as many redrawn ones, and ELR minus cross-entropy on people's."""
    people = table[(table["noise"] == "human") & (table["sam_rho"] == 0) & (table["schedule"] == "multistep")]
    by_rate = {rate: _points(cell, "loss", "elr", "ce") for rate, cell in people.groupby("noise_rate")}
    by_rate = {rate: gain for rate, gain in by_rate.items() if gain}
    if not by_rate:
        return ""
    levels = " / ".join(f"{human_noise.level_of(rate)} ({100 * rate:.0f} % wrong)" for rate in by_rate)
    text = f"On people's labels, {levels}, ELR ends {' / '.join(by_rate.values())} points of test accuracy above "
    text += "cross-entropy"
    found = human_noise.against_redrawn(table)
    if set(found["level"]) == set(map(human_noise.level_of, by_rate)):
        parts = [found[found["level"] == human_noise.level_of(rate)] for rate in by_rate]

        def points(column: str) -> str:
            return " / ".join(interval_text(part[column], "{:+.1f}") for part in parts)

        text += (
            f". On people's labels rather than as many redrawn ones cross-entropy ends {points('CE')} points higher, "
            f"at the best epochs {points('CE, best epochs')}, and ELR {points('ELR')}"
        )
        spans = [paper.t_interval(part["ELR"].to_numpy(dtype=float)) for part in parts]
        if all(low < 0 < high for _, low, high in spans):
            text += ": no clear difference"
    return text


def audit() -> str:
    """What the list of labels to look at saves, on people's labels and on products."""
    rows = studies()
    texts = [looks(rows)] if len(rows) else []
    texts += filter(None, [on_products(shop.lists(shop.shops("cpu")))])
    return f"{'. '.join(texts)} (cpu scale)" if texts else NONE


def on_products(lists: pd.DataFrame) -> str:
    """How good the list of ELR's targets is on the open clothing feed; `lists` of `shop.lists`, empty text without."""
    mine = lists[(lists["shop"] == "clothing") & (lists["run"] == "ELR")]
    if mine.empty:
        return ""
    row = mine.iloc[0]
    return (
        f"On {row['products']:,} photos of clothes, {row['misfiled']} % misfiled among the siblings of their "
        f"subcategory: {row['first 1 %']} % of the first 1 % of the list are misfiled, {row['first 10 %']} % of the "
        f"first 10 %; half are found with {row['looks']} % of the looking in any order"
        f"{' (1 seed)' if row['seeds'] == 1 else ''}"
    )


def studies() -> pd.DataFrame:
    """The rows of the audit's studies that have a record."""
    return audit_study.rows([record for study in audit_study.studies() if (record := audit_study.find(study))])


def looks(rows: pd.DataFrame) -> str:
    """What a person looks at to find half of the wrong labels, in percent of what it takes in any order: by ELR's list,
    by cleanlab's and by the loss, a share per level, from the cleanest on; `rows` of `audit_study.rows`. Where every
    level has a single seed, that is said once.
    """
    named = audit_study.named(rows)
    single = named.groupby("level")["seed"].nunique().max() == 1
    one = "" if single else " (1 seed)"
    levels = sorted((part for _, part in named.groupby("level")), key=lambda part: part["wrong"].mean())
    n = int(named["images"].iloc[0])
    lines = []
    for finder in (audit_study.ELR, audit_study.CLEANLAB, audit_study.CE_LOSS):
        found = [part[part["finder"] == finder] for part in levels]
        if sum(map(len, found)):
            shares = (100 * part["effort_half"] / part["effort_half_random"] for part in found)
            lines.append(f"{finder} {' / '.join(interval_text(share, '{:.0f}', one=one) for share in shares)} %")
    rates = " / ".join(f"{100 * part['wrong'].mean() / n:.0f}" for part in levels)
    return (
        f"Of {n:,} labels {rates} % are wrong; to find half of these takes so much of the looking that any order takes"
        f"{', 1 seed' if single else ''}: {'; '.join(lines)}. ELR's score was chosen on these studies, and each of "
        "cleanlab's five nets trained for a quarter of ELR's epochs"
    )


def strays() -> str:
    """How far agreement with a shop's labels lies from accuracy."""
    return _of_shops(shop.strays)


def shops() -> str:
    """Whether near-duplicates explain the paper's agreement with a shop's labels."""
    published = _published("galatolo2021-text-cdon-sam") / 100
    text = _of_shops(partial(shop.leakage_answer, published=published))
    return f"{text[0].upper()}{text[1:]}" if text != NONE else NONE


def _of_shops(sentence: Callable[[pd.DataFrame], str]) -> str:
    """A sentence about the made shops at the larger scale that has runs, which it names."""
    for scale in SCALES:
        table = shop.table(shop.shops(scale))
        if len(table := table[table["kind"] == scale]):
            return f"{sentence(table)} ({scale} scale)"
    return NONE
