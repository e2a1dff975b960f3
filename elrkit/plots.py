"""One function per figure: a DataFrame of curves or runs in, a matplotlib Figure out. Opens no file."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# Okabe and Ito's colours, told apart under the common kinds of colour blindness; lines differ in dash too.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"

LOSS_NAMES = {"ce": "Cross-entropy", "elr": "ELR", "sce": "Symmetric CE", "nce_rce": "NCE + RCE"}

DATASET_NAMES = {"digits": "Digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}

OUTCOMES = {
    "right": (("right_correct", "predicted right", BLUE, "-"), ("right_other", "predicted otherwise", GREY, ":")),
    "wrong": (
        ("wrong_correct", "predicted as the true class", BLUE, "-"),
        ("wrong_memorized", "predicted as labelled: memorized", VERMILION, "--"),
        ("wrong_other", "predicted otherwise", GREY, ":"),
    ),
}


def early_learning(curves: pd.DataFrame, measured_on: str = "eval") -> Figure:
    """What becomes of right and of wrong labels as training goes on, as in the paper's Figure 2.

    curves       `elrkit.runs.curves` of runs of one dataset, one noise rate and at most one run per loss and seed
    measured_on  eval: all training images after the epoch, without augmentation; batches: each image as it was trained
                 on during the epoch, as the paper's code counted

    Two rows (right labels, wrong labels), one column per loss; lines are means over seeds, bands from the lowest to the
    highest seed. Raises ValueError when the runs differ in more than loss and seed.
    """
    if curves.empty:
        raise ValueError("early_learning: no curves; train the runs first")
    for field in ("dataset", "noise", "noise_rate", "model"):
        if curves[field].nunique(dropna=False) > 1:
            raise ValueError(f"early_learning: runs differ in {field}: {sorted(curves[field].unique())}; choose one")
    prefix = {"eval": "", "batches": "batches_"}[measured_on]
    losses = [loss for loss in LOSS_NAMES if loss in set(curves["loss"])]
    figure = Figure(figsize=(3.6 * len(losses) + 0.6, 5.4), layout="constrained")
    seeds = curves.groupby("loss")["seed"].nunique()
    number = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    first = curves.iloc[0]
    name = DATASET_NAMES.get(first["dataset"], first["dataset"])
    figure.suptitle(
        f"{name}, {100 * first['noise_rate']:g} % {first['noise']} label noise, {first['model']}, "
        f"{number} seed{'s' * (number != '1')}",
        fontsize="medium",
    )
    axes = figure.subplots(2, len(losses), sharex=True, sharey=True, squeeze=False)
    for column, loss in enumerate(losses):
        for row, (labels, outcomes) in enumerate(OUTCOMES.items()):
            ax = axes[row, column]
            for name, text, colour, dash in outcomes:
                _mean_and_band(ax, curves[curves["loss"] == loss], prefix + name, text, colour, dash)
            ax.set_ylim(-0.02, 1.02)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0))
            ax.grid(alpha=0.25)
            ax.spines[["top", "right"]].set_visible(False)
            if row == 0:
                ax.set_title(LOSS_NAMES[loss], fontweight="bold")
            if column == 0:
                ax.set_ylabel(f"images labelled {labels}")
            if row == 1:
                ax.set_xlabel("epoch")
            if column == len(losses) - 1:
                ax.legend(fontsize="small", framealpha=0.9, loc="center right")
    return figure


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
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test accuracy")
    axes[-1].legend(fontsize="small")
    low = np.nanmin(curves["test_top1"])
    axes[0].set_ylim(max(0, low - 0.05), 1.0)
    return figure


def table1(cells: pd.DataFrame) -> Figure:
    """The 32 cells of the paper's Table 1: published numbers beside ours, one panel per dataset and schedule.

    cells  `elrkit.paper.table1`. Hollow: the paper; filled with its 95 % interval: ours at paper scale; small: ours at
    cpu scale, another question whose level cannot be compared; stars: Liu et al. Cells without a mark of ours are not
    run yet.
    """
    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    styles = {"ce": (VERMILION, "o", -0.5), "elr": (BLUE, "s", 0.5)}
    titles = {"multistep": "multi-step", "cosine": "cosine annealing"}
    for row, dataset in enumerate(("cifar10", "cifar100")):
        for column, schedule in enumerate(titles):
            ax = axes[row, column]
            panel = cells[(cells["dataset"] == dataset) & (cells["schedule"] == schedule)]
            for loss, (colour, marker, offset) in styles.items():
                part = panel[panel["loss"] == loss].sort_values("noise_rate")
                x, name = 100 * part["noise_rate"], LOSS_NAMES[loss]
                ax.plot(x + offset, part["published"], marker=marker, mfc="white", color=colour, ls=":", lw=1, ms=7,
                        label=f"{name}, published")  # fmt: skip
                ax.plot(x + offset, part["liu"], marker="*", ls="", color=colour, ms=10, label=f"{name}, Liu et al.")
                for scale, size, shift in (("paper", 7, 1.2), ("cpu", 4, 2.4)):
                    mean = part[f"{scale}_mean"]
                    error = [mean - part[f"{scale}_low"], part[f"{scale}_high"] - mean]
                    error = np.where(np.isfinite(error), error, 0)
                    ax.errorbar(x + offset + np.sign(offset) * shift * 0.4, mean, error, fmt=marker,
                                color=colour, ms=size, lw=1, label=f"{name}, ours, {scale} scale")  # fmt: skip
            ax.set_title(f"{DATASET_NAMES[dataset]}, {titles[schedule]}")
            ax.grid(alpha=0.25)
            ax.spines[["top", "right"]].set_visible(False)
            if row == 1:
                ax.set_xlabel("symmetric label noise, %")
            if column == 0:
                ax.set_ylabel("test accuracy, %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
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
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
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

    table  `elrkit.human_noise.agreement`; people  as in `human_memorization`. On the diagonal agreement tells the
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
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("accuracy on true labels")
    _shared_legend(figure, axes)
    return figure


def wrong_labels_found(rows: pd.DataFrame, looks: tuple[float, ...]) -> Figure:
    """How many of the wrong labels a person has met after looking at a share of all: a panel per level.

    rows  `elrkit.audit_study.named`, with the column found: shares at `looks`. Lines are means over seeds, bands lowest
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
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
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
