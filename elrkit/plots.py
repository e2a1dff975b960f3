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

    curves       `elrkit.runs.curves` of runs of one dataset, one noise rate and at most one run per loss, SAM (with or
                 without) and seed
    measured_on  eval: all training images after the epoch, without augmentation; batches: each image as it was trained
                 on during the epoch, as the paper's code counted

    Two rows (right labels, wrong labels), one column per loss, those with SAM last; lines are means over seeds, bands
    from the lowest to the highest seed. Raises ValueError when the runs differ in more than loss, SAM and seed.
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
            ax.grid(alpha=0.25)
            ax.spines[["top", "right"]].set_visible(False)
            if row == 0:
                ax.set_title(LOSS_NAMES[loss] + (" with SAM" if sharp else ""), fontweight="bold")
            if column == 0:
                ax.set_ylabel(f"images labelled {labels}")
            if row == 1:
                ax.set_xlabel("epoch")
            if column == len(methods) - 1:
                ax.legend(fontsize="small" if len(methods) < 3 else "x-small", framealpha=0.9, loc="center right")
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
        f"{DATASET_NAMES.get(first['dataset'], first['dataset'])}, {100 * first['noise_rate']:g} % {first['noise']} "
        f"label noise, {first['model']}, {number} seed{'s' * (number != '1')}"
    )


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


def ladder(rows: pd.DataFrame, title: str = "") -> Figure:
    """Test accuracy of a ladder of runs, one change a rung: a panel for each noise rate and loss, a row for each arm.

    rows  `elrkit.compare.compare`, with the columns of `beside_published` where there are any

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
            _ladder_panel(ax, panels[panels["loss"] == loss], list(arms.index))
            ax.axhline((~arms).sum() - 0.5, color=GREY, lw=0.6)
            ax.set_title(
                f"{LOSS_NAMES[loss]}, {f'{100 * rate:g} % noise' if rate else 'clean labels'}", fontsize="medium"
            )
        seen = [value for values in panels["values"] for value in values]
        seen += list(panels["published"].dropna()) if "published" in panels else []
        if seen:  # an interval over two seeds may be wider than all there is to see
            room = max(1.0, 0.25 * (max(seen) - min(seen)))
            axes[row, 0].set_xlim(min(seen) - room, max(seen) + room)
    for ax in axes[-1]:
        ax.set_xlabel("test accuracy at the last epoch, %")
    return figure


def _ladder_panel(ax, panel: pd.DataFrame, arms: list[str]) -> None:
    ran = panel[panel["seeds"] > 0].assign(y=lambda part: part["arm"].map(arms.index))
    rungs = ran[~ran["single"]].sort_values("y")
    ax.plot(rungs["mean"], rungs["y"], color=BLUE, lw=1, alpha=0.6)
    for row in ran.itertuples():
        ax.plot([row.low, row.high], [row.y, row.y], color=BLUE, lw=2, alpha=0.5)  # nothing where they are NaN
        ax.plot(row.values, [row.y] * len(row.values), "|", color=GREY, ms=7)
        ax.plot(row.mean, row.y, "o", color=BLUE, mfc="white" if row.single else BLUE, ms=6)
        if np.isfinite(row.change):
            ax.annotate(
                f"{round(row.change, 1) + 0.0:+.1f}",
                (row.mean, row.y),
                (7, 4),
                textcoords="offset points",
                fontsize="small",
            )
    for y, arm in enumerate(arms):
        here = panel[panel["arm"] == arm]
        if not len(here):
            why = "the same: no label is wrong"
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
    ax.grid(axis="x", alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


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
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[1]:
        ax.set_xlabel("epoch")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def accuracy_by_cost(rows: pd.DataFrame) -> Figure:
    """Test accuracy against what the training cost, counted in operations and in seconds, a panel each.

    rows  `elrkit.compare.compare` of `SAM_ARMS` at one noise rate; bars are 95 % t intervals over seeds, cut at
          the edge of the panel

    Raises ValueError when nothing was run.
    """
    ran = rows[rows["seeds"] > 0]
    if ran.empty:
        raise ValueError("accuracy_by_cost: no run is there; train the plan first")
    figure = Figure(figsize=(8.6, 3.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    markers = dict(zip(dict.fromkeys(rows["arm"]), "os^Dv", strict=False))
    for ax, (column, title) in zip(axes, (("tflop", "training, TFLOP"), ("seconds", "seconds a run")), strict=True):
        for row in ran.itertuples():
            colour, shift = {"ce": (VERMILION, -0.004), "elr": (BLUE, 0.004)}[row.loss]
            error = None if np.isnan(row.low) else [[row.mean - row.low], [row.high - row.mean]]
            ax.errorbar(getattr(row, column) * (1 + shift), row.mean, error, fmt=markers[row.arm], color=colour,
                        mfc="white", ms=8, lw=1.3, capsize=3, label=f"{LOSS_NAMES[row.loss]}: {row.arm}")  # fmt: skip
        ax.set_xlabel(title)
        ax.set_xlim(0, 1.12 * ran[column].max())
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    seen = [value for values in ran["values"] for value in values]
    room = max(1.0, 0.25 * (max(seen) - min(seen)))
    axes[0].set_ylim(min(seen) - room, max(seen) + room)
    axes[0].set_ylabel("test accuracy at the last epoch, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize="small")
    return figure
