"""One function per figure: a DataFrame of curves or runs in, a matplotlib Figure out. Opens no file."""

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from elrkit.report import compare, paper

# Okabe and Ito's colours, told apart under the common kinds of colour blindness; lines differ in dash too.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"

LOSS_NAMES = {"ce": "Cross-entropy", "elr": "ELR", "sce": "Symmetric CE", "nce_rce": "NCE + RCE"}

OUTCOMES = {
    "right": (
        ("right_correct", "predicted as the true class", BLUE, "-"),
        ("right_other", "predicted otherwise", GREY, ":"),
    ),
    "wrong": (
        ("wrong_correct", "predicted as the true class", BLUE, "-"),
        ("wrong_memorized", "predicted as labelled: memorized", VERMILION, "--"),
        ("wrong_other", "predicted otherwise", GREY, ":"),
    ),
}


def early_learning(curves: pd.DataFrame, measured_on: str = "eval") -> Figure:
    """What becomes of right and of wrong labels as training goes on, as in the paper's Figure 2.

    curves       `elrkit.runs.curves` of runs of one dataset, one noise rate and at most one run per loss, SAM (with or
                 without) and seed
    measured_on  eval: all training images after the epoch, without augmentation; batches: each image as it was trained
                 on during the epoch, as the paper's code counted

    Two rows (right labels, wrong labels), one column per loss, those with SAM last; lines are means over seeds, bands
    from the lowest to the highest seed; grey uprights stand where the learning rate falls. Raises
    ValueError when the runs differ in more than loss, SAM and seed.
    """
    _one_experiment("early_learning", curves)
    prefix = {"eval": "", "batches": "batches_"}[measured_on]
    present = set(zip(curves["loss"], curves["sam_rho"] > 0, strict=True))
    methods = [(loss, sharp) for sharp in (False, True) for loss in LOSS_NAMES if (loss, sharp) in present]
    figure = Figure(figsize=((3.6 if len(methods) < 3 else 3.0) * len(methods) + 0.6, 5.4), layout="constrained")
    figure.suptitle(_experiment(curves), fontsize="medium")
    axes = figure.subplots(2, len(methods), sharex=True, sharey=True, squeeze=False)
    for column, (loss, sharp) in enumerate(methods):
        runs = curves[(curves["loss"] == loss) & ((curves["sam_rho"] > 0) == sharp)]
        for row, (labels, outcomes) in enumerate(OUTCOMES.items()):
            ax = axes[row, column]
            for name, text, colour, dash in outcomes:
                _mean_and_band(ax, runs, prefix + name, text, colour, dash)
            ax.set_ylim(-0.02, 1.02)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0))
            _light(ax)
            for milestone in curves["milestones"].iloc[0] or ():
                ax.axvline(milestone + 0.5, color=GREY, linewidth=0.9, alpha=0.7, zorder=0)
            if row == 0:
                seeds = runs["seed"].nunique()
                some = f", {seeds} seed{'s' * (seeds > 1)}" if curves["seed"].nunique() != seeds else ""
                ax.set_title(LOSS_NAMES[loss] + (" with SAM" if sharp else "") + some, fontweight="bold")
            if column == 0:
                ax.set_ylabel(f"images labelled {labels}")
            if row == 1:
                ax.set_xlabel("epoch")
    _shared_legend(figure, axes.T.flat)
    return figure


def _light(ax, axis: str = "both") -> None:
    """A faint grid and no frame above or on the right."""
    ax.grid(alpha=0.25, axis=axis)
    ax.spines[["top", "right"]].set_visible(False)


def _mean_and_band(ax, runs: pd.DataFrame, column: str, label: str, colour: str, dash: str) -> None:
    by_epoch = runs.dropna(subset=[column]).groupby("epoch")[column].agg(["mean", "min", "max"])
    if by_epoch.empty:
        return
    ax.plot(by_epoch.index, by_epoch["mean"], color=colour, linestyle=dash, linewidth=1.8, label=label)
    ax.fill_between(by_epoch.index, by_epoch["min"], by_epoch["max"], color=colour, alpha=0.18, linewidth=0)


def test_accuracy(curves: pd.DataFrame) -> Figure:
    """Test accuracy on true labels by epoch: a panel per noise rate, a line per loss, bands lowest to highest seed.

    curves  `elrkit.runs.curves` of runs of one dataset
    """
    rates = sorted(curves["noise_rate"].unique())
    figure = Figure(figsize=(3.6 * len(rates) + 0.6, 3.2), layout="constrained")
    axes = figure.subplots(1, len(rates), sharex=True, sharey=True, squeeze=False)[0]
    styles = {"ce": (VERMILION, "--"), "elr": (BLUE, "-"), "sce": (GREEN, "-."), "nce_rce": (ORANGE, ":")}
    for ax, rate in zip(axes, rates, strict=True):
        for loss, (colour, dash) in styles.items():
            runs = curves[(curves["noise_rate"] == rate) & (curves["loss"] == loss)]
            _mean_and_band(ax, runs, "test_top1", LOSS_NAMES[loss], colour, dash)
        ax.set_title(f"{100 * rate:g} % label noise")
        ax.set_xlabel("epoch")
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        _light(ax)
    axes[0].set_ylabel("test accuracy")
    axes[-1].legend(fontsize="small")
    low = np.nanmin(curves["test_top1"])
    axes[0].set_ylim(max(0, low - 0.05), 1.0)
    return figure


LABEL_COLOURS = {"none": GREY, "symmetric": BLUE, "asymmetric": GREEN, "human": ORANGE, "misfiled": VERMILION}
AUGMENTATION_SHAPES = {"none": "o", "flip": "s", "fresh": "^", "frozen": "D"}


def kept_from_memory(pairs: pd.DataFrame) -> Figure:
    """What ELR gained in test accuracy against how many labels it kept from being memorized: a mark per setting, at the
    last epoch and at the best ones.

    pairs  `elrkit.report.compare.kept_from_memory`; marks are means over seeds, their bars run from the lowest to the highest,
           beside the line of `elrkit.report.compare.gain_per_label` and the one on which each percent is worth a point

    Raises ValueError when there is no pair.
    """
    if pairs.empty:
        raise ValueError("kept_from_memory: no run of ELR has its like with cross-entropy; train both")
    figure = Figure(figsize=(8.2, 5.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    ends = np.array([min(0.0, pairs["kept"].min()) - 0.5, pairs["kept"].max() + 0.5])
    for ax, gain, title in zip(axes, ("gain", "best_gain"), ("at the last epoch", "at the best epochs"), strict=True):
        ax.plot(ends, ends, color=GREY, linestyle=":", linewidth=1.2, label="a point for each percent")
        line = compare.gain_per_label(pairs, gain)
        if line is not None:
            middle = pairs.groupby("setting")[["kept", gain]].mean().mean()
            fitted = middle[gain] + line.slope * (ends - middle["kept"])
            ax.plot(ends, fitted, color=GREY, linewidth=1.2, label="least squares")
        ax.axhline(0, color=GREY, linewidth=0.6)
        for _, seeds in pairs.groupby("setting", sort=False):
            one, middle = seeds.iloc[0], seeds[["kept", gain]].mean()
            # Not below 0, as the mean of equal numbers may come out a digit off.
            bars = [[max(0.0, middle[c] - seeds[c].min()), max(0.0, seeds[c].max() - middle[c])] for c in middle.index]
            colour = LABEL_COLOURS[one["labels"]]
            ax.errorbar(
                middle["kept"], middle[gain], xerr=np.array(bars[0])[:, None], yerr=np.array(bars[1])[:, None],
                fmt=AUGMENTATION_SHAPES[one["augmentation"]],
                color=colour, mfc=colour if one["scale"] == "paper" else "white", mew=1.6, ms=7, elinewidth=1.2,
                alpha=1.0 if len(seeds) > 1 else 0.6, zorder=3 + (one["augmentation"] == "fresh"),
            )  # fmt: skip
        ax.set(title=title, xlabel="wrong labels memorized, CE less ELR,\n% of all labels")
        _light(ax)
    scales = set(pairs["scale"])
    handles = [*axes[0].get_lines()[: 1 + (line is not None)]]
    handles += [
        Line2D([], [], color=colour, linewidth=4, label=compare.LABELS[labels])
        for labels, colour in LABEL_COLOURS.items() if labels in set(pairs["labels"])
    ]  # fmt: skip
    handles += [
        Line2D([], [], color="black", marker=shape, mfc="white", linestyle="", label=paper.AUGMENTATIONS[augmentation])
        for augmentation, shape in AUGMENTATION_SHAPES.items() if augmentation in set(pairs["augmentation"])
    ]  # fmt: skip
    handles.append(Line2D([], [], color="none", label="pale: a single seed"))
    if "paper" in scales and len(scales) > 1:
        handles.append(Line2D([], [], color="black", marker="o", linestyle="", label="filled: paper scale"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small")
    nets = "small nets" if "paper" not in scales else "small nets and ResNet-34"
    axes[0].set_ylabel(f"ELR - CE, points of test accuracy, {nets}")
    return figure


def differences(table: pd.DataFrame) -> Figure:
    """What ELR adds to cross-entropy and SAM to SGD in every cell, with intervals, at the last epoch and at the best.

    table  `elrkit.report.findings.differences`. Marks with a line are means with their 95 % interval over seeds, hollow ones a
           single seed; filled squares: paper scale, triangles: cpu scale, another question whose level cannot be
           compared; diamonds and stars: the papers'. A cell without a mark of ours says why.

    Raises ValueError when the table is empty.
    """
    if table.empty:
        raise ValueError("differences: no cell to draw")
    groups = table.groupby("about", sort=False)["cell"].unique()
    lines = []
    for about, names in groups.items():
        lines += [(about, None), *((about, name) for name in names)]
    places = {line: -place for place, line in enumerate(lines)}
    figure = Figure(figsize=(7.6, 0.9 + 0.2 * len(lines)), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    own = {"paper": (BLUE, "s", "ours, paper scale"), "cpu": (BLUE, "^", "ours, cpu scale")}
    theirs = {"published": (VERMILION, "D", "Galatolo et al."), "liu": (ORANGE, "*", "Liu et al.")}
    y = np.array([places[key] for key in zip(table["about"], table["cell"], strict=True)])
    cells = table.groupby(["about", "cell"], sort=False)
    none = cells["none"].first()[cells["seeds"].sum() == 0]
    for ax, at, title in zip(axes, ("last", "best"), ("at the last epoch", "at the best epochs"), strict=True):
        ax.axvline(0, color=GREY, linewidth=0.8)
        for name, (colour, mark, label) in theirs.items() if at == "last" else ():
            ax.plot(table[name], y, mark, mfc="white", color=colour, ms=5, label=label)
        for scale, (colour, mark, label) in own.items():
            of_scale = (table["scale"] == scale) & (table["seeds"] > 0)
            for single in (False, True):
                rows = of_scale & ((table["seeds"] == 1) == single)
                if rows.any():
                    middle = table.loc[rows, at]
                    bars = [middle - table.loc[rows, f"{at}_low"], table.loc[rows, f"{at}_high"] - middle]
                    ax.errorbar(
                        middle, y[rows], xerr=None if single else np.array(bars), fmt=mark, color=colour, ms=5, lw=1.4,
                        mfc="white" if single else colour, label=label + (", one seed" if single else ""),
                    )  # fmt: skip
        for key, why in none.items():
            ax.text(0.99, places[key], why, transform=ax.get_yaxis_transform(), ha="right", va="center",
                    fontsize="x-small", color=GREY)  # fmt: skip
        ax.set(title=title, xlabel="points of test accuracy", ylim=(-len(lines) + 0.2, 0.8))
        _light(ax, "x")
    axes[0].set_yticks(list(places.values()), [about if name is None else name for about, name in lines])
    for text, (_, name) in zip(axes[0].get_yticklabels(), lines, strict=True):
        text.set(fontsize="small", fontweight="bold" if name is None else "normal")
    for ax in axes:
        ax.tick_params(axis="y", length=0)
    _shared_legend(figure, axes)
    return figure


def table1(cells: pd.DataFrame) -> Figure:
    """The cells of the paper's Table 1: published numbers beside ours, one panel per dataset and schedule.

    cells  `elrkit.report.paper.table1`. Hollow: the paper; filled with its 95 % interval: ours at paper scale; triangles: ours
    at cpu scale, another question whose level cannot be compared; stars: Liu et al. Cells without a mark of ours are
    not run yet.
    """
    datasets = [name for name in ("cifar10", "cifar100", "digits") if name in set(cells["dataset"])]
    figure = Figure(figsize=(9.0, 0.8 + 2.8 * len(datasets)), layout="constrained")
    axes = figure.subplots(len(datasets), 2, sharex=True, sharey="row", squeeze=False)
    styles = {"ce": (VERMILION, "o", -0.25), "elr": (BLUE, "s", 0.25)}
    for row, dataset in enumerate(datasets):
        for column, schedule in enumerate(paper.SCHEDULES):
            ax = axes[row, column]
            panel = cells[(cells["dataset"] == dataset) & (cells["schedule"] == schedule)]
            for loss, (colour, marker, offset) in styles.items():
                part = panel[panel["loss"] == loss].sort_values("noise_rate")
                x, name = 100 * part["noise_rate"], LOSS_NAMES[loss]
                ax.plot(x + offset, part["published"], marker=marker, mfc="white", color=colour, ls=":", lw=1, ms=7,
                        label=f"{name}, published")  # fmt: skip
                ax.plot(x + offset, part["liu"], marker="*", ls="", color=colour, ms=10, label=f"{name}, Liu et al.")
                for scale, mark, shift in (("paper", marker, 0.35), ("cpu", "^", 0.7)):
                    mean = part[f"{scale}_mean"]
                    if mean.isna().all():
                        continue
                    error = [mean - part[f"{scale}_low"], part[f"{scale}_high"] - mean]
                    error = np.where(np.isfinite(error), error, 0)
                    ax.errorbar(x + offset + np.sign(offset) * shift, mean, error, fmt=mark,
                                color=colour, ms=7, lw=1, label=f"{name}, ours, {scale} scale")  # fmt: skip
            ax.set_title(f"{paper.DATASETS[dataset]}, {paper.SCHEDULES[schedule]}")
            _light(ax)
            if row == len(datasets) - 1:
                ax.set_xlabel("symmetric label noise, %")
            if column == 0:
                ax.set_ylabel("test accuracy, %")
    _shared_legend(figure, axes.flat)
    return figure


LEVEL_STYLES = {(True, "ce"): (VERMILION, "-"), (False, "ce"): (ORANGE, "--"), (True, "elr"): (BLUE, "-"),
                (False, "elr"): (GREEN, "--")}  # fmt: skip


def human_memorization(curves: pd.DataFrame, levels: dict[str, float], people: str = "people") -> Figure:
    """How fast wrong labels are memorized, people's beside symmetric noise of the same rate: a panel per level.

    curves  `elrkit.runs.curves` of plain trainings, one scale; levels  name -> noise_rate; people  what to call the
    noise that is not symmetric
    """
    figure = Figure(figsize=(9.4, 3.5), layout="constrained")
    axes = figure.subplots(1, len(levels), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (level, rate) in zip(axes, levels.items(), strict=True):
        for (human, loss), (colour, dash) in LEVEL_STYLES.items():
            kind = (curves["noise"] != "symmetric") == human
            runs = curves[kind & (curves["noise_rate"] == rate) & (curves["loss"] == loss)]
            label = f"{LOSS_NAMES[loss]}, {people if human else 'symmetric'}"
            _mean_and_band(ax, runs, "wrong_memorized", label, colour, dash)
        ax.set_title(f"{level}, {100 * rate:.0f} %")
        ax.set_xlabel("epoch")
        ax.set_ylim(-0.02, 1.02)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        _light(ax)
    axes[0].set_ylabel("wrong labels predicted\nas labelled")
    _shared_legend(figure, axes)
    return figure


def human_confusion(counts: dict[str, np.ndarray], class_names: list[str]) -> Figure:
    """How people mislabel each class: a panel per level, rows true classes, columns given labels, diagonal left out.

    counts  level -> (10, 10) counts, rows true; colour and number are the percentage of the true class, from 1 % on.
    """
    figure = Figure(figsize=(9.4, 3.9), layout="constrained")
    axes = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for ax, (level, matrix) in zip(axes, counts.items(), strict=True):
        share = 100 * np.asarray(matrix) / np.sum(matrix, axis=1, keepdims=True)
        off = np.where(np.eye(len(share), dtype=bool), np.nan, share)
        top = np.nanmax(off)
        ax.imshow(off, cmap="Blues", vmin=0, vmax=top)
        for i, j in zip(*np.nonzero(np.nan_to_num(off) >= 1), strict=True):
            colour = "white" if off[i, j] > 0.6 * top else "black"
            ax.text(j, i, f"{off[i, j]:.0f}", ha="center", va="center", fontsize=6.5, color=colour)
        ax.set_title(f"{level}: {100 - np.trace(matrix) / np.sum(matrix) * 100:.0f} % wrong")
        ax.set_xticks(range(len(class_names)), class_names, rotation=90, fontsize="small")
        ax.set_yticks(range(len(class_names)), class_names, fontsize="small")
        ax.set_xlabel("given label")
    axes[0].set_ylabel("true class")
    return figure


def agreement(table: pd.DataFrame, people: str = "people") -> Figure:
    """What can be measured against what is true: a panel per level, a mark per run and set of labels.

    table  `elrkit.report.people.agreement`; people  as in `human_memorization`. On the diagonal agreement tells the
    truth; right of the dotted line a network agrees with more labels than are right.
    """
    shapes = {"training": "o", "held-out": "s", "test": "^"}
    levels = [level for level in ("aggregate", "random1", "worst") if level in set(table["level"])]
    figure = Figure(figsize=(9.4, 3.9), layout="constrained")
    axes = figure.subplots(1, max(1, len(levels)), sharex=True, sharey=True, squeeze=False)[0]
    low = float(table[["agreement", "accuracy"]].min().min()) - 0.04 if len(table) else 0.0
    for ax, level in zip(axes, levels, strict=False):
        ax.plot([low, 1.02], [low, 1.02], color=GREY, linewidth=0.8)
        part = table[table["level"] == level]
        ax.axvline(1 - part.loc[part["people"], "wrong"].mean(), color=GREY, linestyle=":", linewidth=1.2)
        for (human, loss), (colour, _) in LEVEL_STYLES.items():
            for labels, shape in shapes.items():
                marks = part[(part["people"] == human) & (part["loss"] == loss) & (part["labels"] == labels)]
                if len(marks):
                    ax.plot(marks["agreement"], marks["accuracy"], shape, color=colour, alpha=0.85, markersize=6,
                            markerfacecolor=colour if human else "white",
                            label=f"{LOSS_NAMES[loss]}, {people if human else 'symmetric'}, {labels}")  # fmt: skip
        ax.set(title=level, xlabel="agreement with given labels", xlim=(low, 1.02), ylim=(low, 1.02))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
        _light(ax)
    axes[0].set_ylabel("accuracy on true labels")
    _shared_legend(figure, axes)
    return figure


def wrong_labels_found(rows: pd.DataFrame, looks: tuple[float, ...]) -> Figure:
    """How many of the wrong labels a person has met after looking at a share of all: a panel per level.

    rows  `elrkit.report.list_study.named`, with the column found: shares at `looks`. Lines are means over seeds, bands lowest
    to highest; where a line crosses the dotted one, half of the wrong labels are found.
    """
    styles = dict(
        zip(rows["finder"].unique(), [(BLUE, "-"), (ORANGE, "--"), (GREEN, "-."), (VERMILION, ":"), (GREY, "-")],
            strict=False)
    )  # fmt: skip
    levels = [level for level in ("aggregate", "random1", "worst") if level in set(rows["level"])]
    figure = Figure(figsize=(9.4, 3.6), layout="constrained")
    axes = figure.subplots(1, max(1, len(levels)), sharex=True, sharey=True, squeeze=False)[0]
    for ax, level in zip(axes, levels, strict=False):
        part = rows[rows["level"] == level]
        ax.axhline(0.5, color=GREY, linestyle=":", linewidth=1.2)
        for finder, (colour, dash) in styles.items():
            found = np.array(part.loc[part["finder"] == finder, "found"].tolist())
            if len(found):
                ax.plot(looks, found.mean(axis=0), color=colour, linestyle=dash, linewidth=1.8, label=finder)
                ax.fill_between(looks, found.min(axis=0), found.max(axis=0), color=colour, alpha=0.18, linewidth=0)
        wrong = (part["wrong"] / part["images"]).mean()
        ax.set(title=f"{level}, {100 * wrong:.0f} % wrong", xlabel="labels looked at", xlim=(0, 1), ylim=(0, 1.02))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
        _light(ax)
    axes[0].set_ylabel("wrong labels found")
    _shared_legend(figure, axes)
    return figure


def _shared_legend(figure: Figure, axes) -> None:
    """One legend below all panels, each label once."""
    entries = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, fontsize="small")


def related_losses(rows: pd.DataFrame) -> Figure:
    """Test accuracy and memorized labels of each loss, a column per noise rate.

    rows  `elrkit.report.paper.related_losses` of one scale. Filled: the paper's recipe; hollow: the loss's authors' settings;
    bars: 95 % t intervals over seeds, none for a single seed; stars, at paper scale: the accuracy that Liu et al. print
    """
    scale = rows["scale"].iloc[0]
    rates = sorted(rows["noise_rate"].unique())
    losses = [loss for loss in LOSS_NAMES if loss in set(rows["loss"])]
    figure = Figure(figsize=(4.3 * len(rates) + 0.8, 0.62 * len(losses) * 2 + 2.0), layout="constrained")
    axes = figure.subplots(2, len(rates), sharex="row", sharey=True, squeeze=False)
    colours = {"ce": VERMILION, "elr": BLUE, "sce": GREEN, "nce_rce": ORANGE}
    shifts = {"the paper's": -0.14, "its authors'": 0.14}
    twice = {loss for loss in losses if rows[rows["loss"] == loss]["recipe"].nunique() > 1}
    figure.suptitle(f"{scale} scale", fontsize="medium")
    for column, rate in enumerate(rates):
        for row, (measure, text) in enumerate(
            (("test", "test accuracy, last epoch, %"), ("memorized", "wrong labels memorized, %"))
        ):
            ax = axes[row, column]
            for cell in rows[rows["noise_rate"] == rate].itertuples():
                mean, low, high = (getattr(cell, f"{measure}{end}") for end in ("", "_low", "_high"))
                own = cell.recipe == "its authors'"
                y, colour = losses.index(cell.loss) + shifts[cell.recipe] * (cell.loss in twice), colours[cell.loss]
                if low == low:  # one seed has no interval
                    ax.plot([low, high], [y, y], color=colour, lw=1.6)
                ax.plot(mean, y, "D" if own else "o", ms=7, color=colour, mfc="white" if own else colour)
                if measure == "test" and scale == "paper" and not own:
                    ax.plot(cell.liu, y, "*", ms=11, color=colour, mec="white", mew=0.6)
            ax.set_yticks(range(len(losses)), [LOSS_NAMES[loss] for loss in losses])
            ax.set_ylim(len(losses) - 0.5, -0.5)
            ax.set_xlabel(text)
            ax.set_xlim(max(ax.get_xlim()[0], -1), min(ax.get_xlim()[1], 101))  # an interval may exceed what can be
            _light(ax)
            if row == 0:
                ax.set_title(f"{100 * rate:g} % label noise")
    marks = [("o", GREY, GREY, "the paper's recipe"), ("D", GREY, "white", "its authors' settings")]
    marks += [("*", GREY, GREY, "printed by Liu et al.")] if scale == "paper" else []
    for marker, colour, fill, text in marks:
        axes[0, 0].plot([], [], marker, color=colour, mfc=fill, ms=11 if marker == "*" else 7, label=text)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def sweep(
    runs: pd.DataFrame, fields: dict[str, str], names: dict[str, str], marked: dict[str, str], title: str
) -> Figure:
    """Parallel coordinates, as in the paper's Figure 4: one line a run, coloured by its test accuracy.

    runs    `elrkit.runs.table` of finished runs
    fields  hyper-parameter -> log, linear or category, in the order of the axes; `names` are their titles
    marked  run id -> text: these runs are drawn thick, in black, and named in the legend

    The last axis is the test accuracy. The worst tenth of the runs shares the darkest colour, so that a few failures do
    not hide the differences between the others. Runs that share a category are spread over its slot; a run without a
    value (Adam has no momentum) is at the foot of the axis, below its scale.
    """
    runs = runs.sort_values("test_top1").reset_index(drop=True)
    accuracy = 100 * runs["test_top1"]
    heights, ticks = {}, {}
    for field, kind in fields.items():
        heights[field], ticks[field] = _axis(runs[field], kind)
    low, high = accuracy.min(), max(accuracy.max(), accuracy.min() + 1e-9)
    heights["test_top1"] = ((accuracy - low) / (high - low)).to_numpy()
    ticks["test_top1"] = [(place, f"{low + place * (high - low):.1f}") for place in (0, 0.25, 0.5, 0.75, 1)]
    figure = Figure(figsize=(max(6.0, 1.0 * len(heights) + 1.5), 5.4), layout="constrained")
    ax = figure.subplots()
    colours = ScalarMappable(Normalize(accuracy.quantile(0.1), high), colormaps["viridis"])
    columns = np.array(list(heights.values()))
    x = np.arange(len(columns))
    for run in range(len(runs)):
        ax.plot(x, columns[:, run], color=colours.to_rgba(accuracy[run]), lw=1.3, alpha=0.8)
    for (run_id, text), dash in zip(marked.items(), ("-", "--", ":"), strict=False):
        for run in np.flatnonzero(runs["run_id"] == run_id):
            ax.plot(x, columns[:, run], color="black", ls=dash, lw=2.2, label=text)
    for place, name in enumerate(heights):
        ax.axvline(place, color="#333333", lw=0.8)
        for y, text in ticks[name]:
            ax.annotate(text, (place, y), xytext=(-3, 0), textcoords="offset points", ha="right", va="center",
                        fontsize=8.5, bbox={"fc": "white", "ec": "none", "alpha": 0.9, "pad": 0.6})  # fmt: skip
    figure.suptitle(title, fontsize="medium")
    ax.set_xticks(x, [*(names[field] for field in fields), "test accuracy, %"])
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    ax.set(xlim=(-0.45, len(columns) - 0.9), ylim=(-0.2, 1.06), yticks=[])
    ax.spines[:].set_visible(False)
    figure.colorbar(colours, ax=ax, label="test accuracy, %", shrink=0.8, pad=0.02, extend="min")
    if marked:
        figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def _axis(values: pd.Series, kind: str) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Heights of the runs on an axis of parallel coordinates, 0 to 1, and the places and texts of its ticks."""
    if kind == "category":
        kinds = sorted(values.unique())
        heights = np.zeros(len(values))
        for slot, value in enumerate(kinds):
            members = np.flatnonzero(values == value)
            heights[members] = (slot + 0.5 + 0.5 * (np.arange(len(members)) + 0.5) / len(members) - 0.25) / len(kinds)
        return heights, [((slot + 0.5) / len(kinds), str(value)) for slot, value in enumerate(kinds)]
    numbers = pd.to_numeric(values).to_numpy(dtype=float)
    scaled = np.log10(numbers) if kind == "log" else numbers
    low, high = np.nanmin(scaled), np.nanmax(scaled)
    heights = (scaled - low) / ((high - low) or 1.0)
    chosen = np.unique(numbers[np.isfinite(numbers)])
    places = chosen if len(chosen) <= 5 else np.linspace(low, high, 5)
    if kind == "log" and len(chosen) > 5:
        places = 10**places
    at = np.log10(places) if kind == "log" else places
    ticks = [((y - low) / ((high - low) or 1.0), f"{value:.2g}") for y, value in zip(at, places, strict=True)]
    absent = np.isnan(heights)
    heights[absent] = -0.14 + 0.04 * np.linspace(-1, 1, absent.sum())
    return heights, ticks + ([(-0.14, "none")] if absent.any() else [])


def importance(rows: pd.DataFrame, names: dict[str, str], title: str) -> Figure:
    """How much each hyper-parameter matters: `elrkit.report.sweeps.forest_importance`'s rows, with their 95 % intervals."""
    figure = Figure(figsize=(6.4, 0.36 * len(rows) + 1.0), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    ax = figure.subplots()
    for place, row in enumerate(rows.itertuples()):
        ax.plot([row.low, row.high], [place, place], color=BLUE, lw=1.8)
        ax.plot(row.importance, place, "o", color=BLUE, ms=6)
    ax.axvline(0, color=GREY, lw=0.8)
    ax.set_yticks(range(len(rows)), [names[field] for field in rows["field"]])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlabel("error that shuffling the values adds, points of test accuracy")
    _light(ax, axis="x")
    return figure


def selection(runs: pd.DataFrame, chosen: pd.DataFrame, wrong: float, title: str) -> Figure:
    """Accuracy on held-out images with noisy labels against accuracy on the test images, a point a run.

    runs    `elrkit.runs.table` of finished runs of one sweep
    chosen  `elrkit.report.sweeps.selection` of the same runs; its settings are ringed
    wrong   share of wrong labels, spread over the other nine classes: the line is what a network of a given true
            accuracy is expected to score on such labels
    """
    figure = Figure(figsize=(5.4, 4.0), layout="constrained")
    ax = figure.subplots()
    figure.suptitle(title, fontsize="medium")
    x, y = 100 * runs["test_top1"], 100 * runs["held_out_top1_noisy"]
    ends = np.array([x.min(), x.max()])
    ax.plot(ends, ends * (1 - wrong) + (100 - ends) * wrong / 9, color=GREY, lw=1, ls="--", label="expected")
    ax.plot(x, y, "o", color=BLUE, ms=5, alpha=0.8, mew=0, label="a setting")
    for row, (colour, size) in zip(chosen.itertuples(), ((ORANGE, 12), (VERMILION, 16)), strict=True):
        at = runs["run_id"] == row.run_id
        ax.plot(x[at], y[at], "o", mfc="none", mec=colour, mew=2, ms=size, label=f"best on {row.chosen_by}")
    ax.set(xlabel="test accuracy, true labels, %", ylabel="held-out accuracy, noisy labels, %")
    _light(ax)
    ax.legend(fontsize="small", loc="lower right")
    return figure


def cost(bars: pd.DataFrame) -> Figure:
    """What was computed, in operations and in hours, on logarithmic axes: one bar a row of `bars`.

    bars  name, PFLOP, hours, ours (bool); a bar that is NaN is not drawn, 0 means that nothing has run yet
    """
    figure = Figure(figsize=(8.6, 0.42 * len(bars) + 1.1), layout="constrained")
    for ax, column, unit in zip(
        figure.subplots(1, 2, sharey=True), ("PFLOP", "hours"), ("PFLOP", "hours of runs"), strict=True
    ):
        positive = bars[column][bars[column] > 0]
        left = 10 ** np.floor(np.log10(positive.min()) - 0.3) if len(positive) else 0.1
        for place, row in enumerate(bars.to_dict("records")):
            if row[column] > 0:
                ax.barh(place, row[column] - left, left=left, color=BLUE if row["ours"] else GREY, height=0.62)
                text = f"{row[column]:,.3g}" if row[column] < 1000 else f"{row[column]:,.0f}"
                ax.annotate(text, (row[column], place), xytext=(4, 0), textcoords="offset points", va="center",
                            fontsize=8)  # fmt: skip
            elif row[column] == 0:
                ax.annotate("not run yet", (left, place), xytext=(4, 0), textcoords="offset points", va="center",
                            fontsize=8, color=GREY, style="italic")  # fmt: skip
        ax.set_xscale("log")
        ax.set_xlim(left, 12 * positive.max() if len(positive) else 1)
        ax.set_yticks(range(len(bars)), bars["name"])
        ax.set_ylim(len(bars) - 0.5, -0.5)
        ax.set_xlabel(unit)
        _light(ax, axis="x")
    return figure


ARM_STYLES = {"CE": (VERMILION, "--", "o"), "ELR": (BLUE, "-", "s"), "ELR + SAM": (GREEN, "-.", "^")}


def leakage(table: pd.DataFrame, published: float, wrong: float) -> Figure:
    """What near-duplicates across the split do to agreement with the shop's labels, and to accuracy.

    table      `elrkit.report.made_shops.table` of the shops of one scale; lines join the means over seeds of the splits by product,
               bars run from the lowest to the highest seed; hollow marks are the split by group, drawn above the split
               by product of the same feed
    published  the paper's agreement with SAM, in [0, 1]
    wrong      share of wrong labels, in [0, 1]: what is above 1 - wrong needs errors that can be foreseen, or copies
    """
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, column in zip(axes, ("agreement", "accuracy"), strict=True):
        for arm, (colour, dash, marker) in ARM_STYLES.items():
            part = table[table["arm"] == arm]
            by_product = part[part["split"] == "product"].groupby("leak")
            mean, low, high = (by_product[column].agg(how) for how in ("mean", "min", "max"))
            ax.errorbar(by_product["near_duplicates"].mean(), mean, [mean - low, high - mean], color=colour, ls=dash,
                        marker=marker, ms=5, lw=1.6, capsize=2, label=arm)  # fmt: skip
            apart = part[part["split"] == "group"]
            same_feed = apart["leak"].map(by_product["near_duplicates"].mean()).fillna(apart["leak"] / 100)
            ax.plot(same_feed, apart[column], ls="", marker=marker, ms=8, mfc="none", color=colour)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _light(ax)
    axes[0].set_ylim(0, 1.0)
    axes[0].set_title("Agreement with the shop's own labels")
    axes[1].set_title("Accuracy against the truth")
    lines = [
        axes[0].axhline(published, color="black", lw=1.2, ls=":", label=f"the paper's {100 * published:g} %"),
        axes[0].axhline(1 - wrong, color=GREY, lw=1, label=f"labels that are right: {100 - 100 * wrong:.3g} %"),
    ]
    axes[0].legend(handles=lines, fontsize="small", loc="lower right")
    axes[1].plot([], [], ls="", marker="o", ms=8, mfc="none", color=GREY, label="hollow: same feed, split by group")
    axes[1].legend(fontsize="small", loc="best")
    figure.supxlabel("test products with a near-duplicate in training when split by product", fontsize="medium")
    return figure


def gallery(images: np.ndarray, label, prediction, truth, row) -> Figure:
    """Products with what the shop, the network and the truth say, as the paper's Figure 3 with the truth added.

    images (n, H, W, 3) uint8; label, prediction, truth, row (n,) text; one line of pictures per value of `row`.
    """
    rows = list(dict.fromkeys(row))
    columns = max((np.asarray(row) == name).sum() for name in rows)
    figure = Figure(figsize=(1.75 * columns, 2.6 * len(rows)), layout="constrained")
    for name, part in zip(rows, np.atleast_1d(figure.subfigures(len(rows), 1)), strict=True):
        part.suptitle(f"{name}\n", fontsize="medium", fontweight="bold", x=0.01, ha="left")  # clear of the titles
        axes = part.subplots(1, columns, squeeze=False)[0]
        members = np.flatnonzero(np.asarray(row) == name)
        for ax in axes:
            ax.axis("off")
        for ax, i in zip(axes, members, strict=False):
            ax.imshow(images[i], interpolation="nearest")
            right = VERMILION if prediction[i] != truth[i] else BLUE
            ax.text(0.5, -0.04, f"filed: {label[i]}\ntruth: {truth[i]}", ha="center", va="top", fontsize="small",
                    transform=ax.transAxes)  # fmt: skip
            ax.set_title(f"“{prediction[i]}”", fontsize="small", color=right, pad=3)
    return figure


def fine_tuning(table: pd.DataFrame) -> Figure:
    """Test accuracy after correcting a share of the labels and going on, by the list and at random.

    table  `elrkit.report.made_shops.clean_table`; lines are means over seeds, bands from the lowest to the highest; 0 % is the
           control, the same epochs with nothing corrected
    """
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    ax = figure.subplots()
    control = table[table["chosen"] == "nothing"]
    for chosen, colour, dash, marker, size, name in (
        ("list", BLUE, "-", "s", 4, "labels at the head of the list"),
        ("random", VERMILION, "--", "o", 8, "labels at random"),
    ):
        by_share = pd.concat([control, table[table["chosen"] == chosen]]).groupby("fraction")["test_top1"]
        mean = by_share.mean()
        ax.plot(mean.index, mean, color=colour, ls=dash, marker=marker, ms=size, mfc="none", label=name)
        ax.fill_between(mean.index, by_share.min(), by_share.max(), color=colour, alpha=0.18, lw=0)
    ax.axhline(table.groupby("seed")["before"].first().mean(), color=GREY, ls=":", label="before fine-tuning")
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, (low + high) / 2 - 0.01), max(high, (low + high) / 2 + 0.01))  # no drama below 2 points
    ax.set_xlabel("labels that a person looked at")
    ax.set_ylabel("test accuracy")
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=2))
    _light(ax)
    ax.legend(fontsize="small")
    return figure


def class_sizes(sizes: pd.DataFrame) -> Figure:
    """Products per class as bars, `train` and `test` end to end; index: the class names, from the bottom up."""
    figure = Figure(figsize=(6.4, 0.6 + 0.24 * len(sizes)), layout="constrained")
    ax = figure.subplots()
    ax.barh(sizes.index, sizes["train"], color=BLUE, label="training")
    ax.barh(sizes.index, sizes["test"], left=sizes["train"], color=ORANGE, label="test")
    ax.set_xlabel("products")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower right")
    return figure


def contact_sheet(images: np.ndarray, labels: np.ndarray, class_names, rows: int = 6, columns: int = 10) -> Figure:
    """The first `columns` images of each of the `rows` largest classes, one line of pictures per class.

    images (n, H, W, 3) uint8; labels (n,) indices into class_names.
    """
    largest = np.argsort(-np.bincount(labels, minlength=len(class_names)), kind="stable")[:rows]
    figure = Figure(figsize=(0.75 * columns + 1.1, 0.8 * len(largest)), layout="constrained")
    axes = figure.subplots(len(largest), columns, squeeze=False)
    for line, label in zip(axes, largest, strict=True):
        members = np.flatnonzero(labels == label)
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax, i in zip(line, members, strict=False):
            ax.imshow(images[i])
        line[0].set_ylabel(class_names[label], rotation=0, ha="right", va="center", labelpad=8)
    return figure


def _one_experiment(name: str, curves: pd.DataFrame) -> None:
    """Raises ValueError, beginning with `name`, when there are no runs, or they differ in more than method and seed."""
    if curves.empty:
        raise ValueError(f"{name}: no curves; train the runs first")
    for field in ("dataset", "train_size", "noise", "noise_rate", "model", "epochs"):
        if curves[field].nunique(dropna=False) > 1:
            raise ValueError(
                f"{name}: runs differ in {field}: {sorted(curves[field].unique().tolist(), key=str)}; choose one"
            )


def _experiment(curves: pd.DataFrame) -> str:
    """The data, the noise, the network and the number of seeds, as a title."""
    first = curves.iloc[0]
    seeds = curves.groupby(["loss", "sam_rho"])["seed"].nunique()
    number = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    return (
        f"{paper.DATASETS.get(first['dataset'], first['dataset'])}, {100 * first['noise_rate']:g} % {first['noise']} "
        f"label noise, {first['model']}, {number} seed{'s' * (number != '1')}"
    )


def ladder(rows: pd.DataFrame, title: str = "") -> Figure:
    """Test accuracy of a ladder of runs, one change a rung: a panel for each noise rate and loss, a row for each arm.

    rows  `elrkit.report.compare.compare`, with the columns of `beside_published` where there are any

    Filled dots are the rungs, joined by a line, with the change to the rung before; hollow ones single changes, with
    the change to what they change. Bars are 95 % t intervals over seeds, cut at the edge of the panel; ticks are the
    seeds. A dashed line is the published cell, its shade each arm's tolerance, at paper scale alone. Raises ValueError
    when nothing was run.
    """
    if not rows["seeds"].sum():
        raise ValueError("ladder: no run is there; train the plan first")
    rates, losses = (list(dict.fromkeys(rows[name])) for name in ("noise_rate", "loss"))
    arms = rows.drop_duplicates("arm").sort_values("single", kind="stable").set_index("arm")["single"]
    size = 2.4 + 3.3 * len(losses), 0.7 + (0.5 + 0.29 * len(arms)) * len(rates)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize="medium")
    axes = figure.subplots(len(rates), len(losses), sharey=True, sharex="row", squeeze=False)
    for row, rate in enumerate(rates):
        panels = rows[rows["noise_rate"] == rate]
        for ax, loss in zip(axes[row], losses, strict=True):
            _ladder_panel(ax, panels[panels["loss"] == loss], list(arms.index), set(panels["arm"]))
            ax.axhline((~arms).sum() - 0.5, color=GREY, lw=0.6)
            ax.set_title(
                f"{LOSS_NAMES[loss]}, {f'{100 * rate:g} % noise' if rate else 'clean labels'}", fontsize="medium"
            )
        seen = [value for values in panels["values"] for value in values.values()]
        seen += list(panels["published"].dropna()) if "published" in panels else []
        if seen:  # an interval over two seeds may be wider than all there is to see
            room = max(1.0, 0.25 * (max(seen) - min(seen)))
            axes[row, 0].set_xlim(min(seen) - room, max(seen) + room)
        else:  # no scale where there is nothing to read on it
            axes[row, 0].set_xticks([])
    for ax in axes[-1]:
        ax.set_xlabel("test accuracy at the last epoch, %")
    return figure


def _ladder_panel(ax, panel: pd.DataFrame, arms: list[str], of_rate: set[str]) -> None:
    ran = panel[panel["seeds"] > 0].assign(y=lambda part: part["arm"].map(arms.index))
    rungs = ran[~ran["single"]].sort_values("y")
    ax.plot(rungs["mean"], rungs["y"], color=BLUE, lw=1, alpha=0.6)
    for row in ran.itertuples():
        ax.plot([row.low, row.high], [row.y, row.y], color=BLUE, lw=2, alpha=0.5)  # nothing where they are NaN
        ax.plot(list(row.values.values()), [row.y] * len(row.values), "|", color=GREY, ms=7)
        ax.plot(row.mean, row.y, "o", color=BLUE, mfc="white" if row.single else BLUE, ms=6)
        if np.isfinite(row.change):
            ax.annotate(
                f"{round(row.change, 1) + 0.0:+.1f}",
                (row.mean, row.y),
                (7, 4),
                textcoords="offset points",
                fontsize="small",
                path_effects=[withStroke(linewidth=2.5, foreground="white")],  # the line of the rungs runs behind it
            )
    for y, arm in enumerate(arms):
        here = panel[panel["arm"] == arm]
        if not len(here):
            why = "of the other loss alone" if arm in of_rate else "the same: no label is wrong"
        elif here["seeds"].iloc[0]:
            continue
        else:
            why = "diverged" if here["diverged"].iloc[0] else "not run yet"
        place = ax.get_yaxis_transform()
        ax.text(0.98, y, why, transform=place, color=GREY, fontsize="small", ha="right", va="center",
                bbox={"fc": "white", "ec": "none", "pad": 0.5})  # fmt: skip
    if "published" in panel and panel["published"].notna().any():
        cell = panel["published"].max()
        ax.axvline(cell, color=VERMILION, ls="--", lw=1.4, zorder=0)
        ax.annotate("published", (cell, 1), (3, -2), xycoords=ax.get_xaxis_transform(), textcoords="offset points",
                    color=VERMILION, fontsize="small", va="top")  # fmt: skip
        for row in ran.itertuples():  # each arm has a tolerance of its own, from the spread of its seeds
            ends = cell - row.tolerance, cell + row.tolerance
            ax.fill_betweenx([row.y - 0.4, row.y + 0.4], *ends, color=VERMILION, alpha=0.15, lw=0)
    ax.set_yticks(range(len(arms)), arms)
    ax.set_ylim(len(arms) - 0.4, -0.9)
    _light(ax, axis="x")


SAM_PANELS = (
    ("train_loss", "training loss (the objective)", False),
    ("test_loss", "test loss (cross-entropy)", False),
    ("wrong_memorized", "wrong labels memorized", True),
    ("test_top1", "test accuracy, top-1", True),
    ("test_top5", "test accuracy, top-5", True),
    ("wrong_correct", "wrong labels seen through", True),
)


def sam_curves(curves: pd.DataFrame) -> Figure:
    """CE and ELR, with SGD and with SAM, over the epochs, as in the paper's Figure 5: means, bands one deviation wide.

    curves  `elrkit.runs.curves` of runs that differ in loss, SAM and seed alone; ValueError where they differ in more

    Panels: training and test loss, top-1 and top-5 accuracy, and what became of the wrong labels in evaluation mode.
    """
    _one_experiment("sam_curves", curves)
    figure = Figure(figsize=(10.4, 6.0), layout="constrained")
    figure.suptitle(_experiment(curves), fontsize="medium")
    axes = figure.subplots(2, 3, sharex=True)
    colours = {"ce": VERMILION, "elr": BLUE}
    for ax, (column, title, share) in zip(axes.flat, SAM_PANELS, strict=True):
        for (loss, sharp), runs in curves.groupby(["loss", curves["sam_rho"] > 0]):
            by_epoch = runs.dropna(subset=[column]).groupby("epoch")[column].agg(["mean", "std"])
            if by_epoch.empty:
                continue
            mean, deviation = by_epoch["mean"], by_epoch["std"].fillna(0)
            style = {"color": colours[loss], "linestyle": "-" if sharp else "--", "lw": 1.7}
            ax.plot(mean.index, mean, label=f"{LOSS_NAMES[loss]}, {'SAM' if sharp else 'SGD'}", **style)
            ax.fill_between(mean.index, mean - deviation, mean + deviation, color=colours[loss], alpha=0.15, lw=0)
        ax.set_title(title, fontsize="medium")
        if share:
            ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        _light(ax)
    for ax in axes[1]:
        ax.set_xlabel("epoch")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def accuracy_by_cost(rows: pd.DataFrame) -> Figure:
    """Test accuracy against what the training cost, counted in operations and, where no run shared its device, in
    seconds, a panel each.

    rows  `elrkit.report.compare.compare` of `SAM_ARMS` at one noise rate; bars are 95 % t intervals over seeds, cut at
          the edge of the panel

    Raises ValueError when nothing was run.
    """
    ran = rows[rows["seeds"] > 0]
    if ran.empty:
        raise ValueError("accuracy_by_cost: no run is there; train the plan first")
    panels = [("tflop", "training, TFLOP")]
    if ran["alone"].all():  # seconds of runs side by side do not compare
        panels.append(("seconds", "seconds a run"))
    figure = Figure(figsize=(4.3 * len(panels) + 1.6 * (len(panels) == 1), 3.8), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    markers = dict(zip(dict.fromkeys(rows["arm"]), "os^Dv", strict=False))
    for ax, (column, title) in zip(axes, panels, strict=True):
        for row in ran.itertuples():
            colour, shift = {"ce": (VERMILION, -0.004), "elr": (BLUE, 0.004)}[row.loss]
            error = None if np.isnan(row.low) else [[row.mean - row.low], [row.high - row.mean]]
            ax.errorbar(getattr(row, column) * (1 + shift), row.mean, error, fmt=markers[row.arm], color=colour,
                        mfc="white", ms=8, lw=1.3, capsize=3, label=f"{LOSS_NAMES[row.loss]}: {row.arm}")  # fmt: skip
        ax.set_xlabel(title)
        ax.set_xlim(0, 1.12 * ran[column].max())
        _light(ax)
    seen = [value for values in ran["values"] for value in values.values()]
    room = max(1.0, 0.25 * (max(seen) - min(seen)))
    axes[0].set_ylim(min(seen) - room, max(seen) + room)
    axes[0].set_ylabel("test accuracy at the last epoch, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize="small")
    return figure
