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


ARM_STYLES = {"CE": (VERMILION, "--", "o"), "ELR": (BLUE, "-", "s"), "ELR + SAM": (GREEN, "-.", "^")}


def leakage(table: pd.DataFrame, published: float, wrong: float) -> Figure:
    """What near-duplicates across the split do to agreement with the shop's labels, and to accuracy.

    table      `elrkit.shop.table` of the shops of one scale; lines join the means over seeds of the splits by product,
               bars run from the lowest to the highest seed; hollow marks are the split by group
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
            ax.plot(apart["near_duplicates"], apart[column], ls="", marker=marker, ms=8, mfc="none", color=colour)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(0, 1.0)
    axes[0].set_title("Agreement with the shop's own labels")
    axes[1].set_title("Accuracy against the truth")
    lines = [
        axes[0].axhline(published, color="black", lw=1.2, ls=":", label=f"the paper's {100 * published:g} %"),
        axes[0].axhline(1 - wrong, color=GREY, lw=1, label=f"labels that are right: {100 - 100 * wrong:.3g} %"),
    ]
    axes[0].legend(handles=lines, fontsize="small", loc="lower right")
    axes[1].plot([], [], ls="", marker="o", ms=8, mfc="none", color=GREY, label="hollow: split by group")
    axes[1].legend(fontsize="small", loc="best")
    figure.supxlabel("test products with a near-duplicate in training", fontsize="medium")
    return figure


def gallery(images: np.ndarray, label, prediction, truth, row) -> Figure:
    """Products with what the shop, the network and the truth say, as the paper's Figure 3 with the truth added.

    images (n, H, W, 3) uint8; label, prediction, truth, row (n,) text; one line of pictures per value of `row`.
    """
    rows = list(dict.fromkeys(row))
    columns = max((np.asarray(row) == name).sum() for name in rows)
    figure = Figure(figsize=(1.75 * columns, 2.35 * len(rows)), layout="constrained")
    for name, part in zip(rows, np.atleast_1d(figure.subfigures(len(rows), 1)), strict=True):
        part.suptitle(name, fontsize="medium", fontweight="bold", x=0.01, ha="left")
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

    table  `elrkit.shop.clean_table`; lines are means over seeds, bands from the lowest to the highest; 0 % is the
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
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
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
