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
    """The cells of the paper's Table 1: published numbers beside ours, one panel per dataset and schedule.

    cells  `elrkit.paper.table1`. Hollow: the paper; filled with its 95 % interval: ours at paper scale; small: ours at
    cpu scale, another question whose level cannot be compared; stars: Liu et al. Cells without a mark of ours are not
    run yet.
    """
    datasets = [name for name in ("cifar10", "cifar100", "digits") if name in set(cells["dataset"])]
    figure = Figure(figsize=(9.0, 0.8 + 2.8 * len(datasets)), layout="constrained")
    axes = figure.subplots(len(datasets), 2, sharex=True, sharey="row", squeeze=False)
    styles = {"ce": (VERMILION, "o", -0.5), "elr": (BLUE, "s", 0.5)}
    titles = {"multistep": "multi-step", "cosine": "cosine annealing"}
    for row, dataset in enumerate(datasets):
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
            if row == len(datasets) - 1:
                ax.set_xlabel("symmetric label noise, %")
            if column == 0:
                ax.set_ylabel("test accuracy, %")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    return figure
