"""One function per figure: a DataFrame of runs or curves in, a matplotlib Figure out. Opens no file.

seaborn draws lines with their bands and marks with their colours; one palette and one style hold for all. The palette
is Okabe and Ito's, told apart under the common kinds of colour blindness; lines differ in dash and marks in shape too.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from elrkit.losses import LOSSES
from elrkit.report import effects, published
from elrkit.report.effects import SETTINGS

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
LABELS = {name: loss.label for name, loss in LOSSES.items()}
COLOURS = {loss.label: loss.colour for loss in LOSSES.values()}
OUTCOMES = {
    "right": {"right_correct": "predicted as the true class", "right_other": "predicted otherwise"},
    "wrong": {
        "wrong_correct": "predicted as the true class",
        "wrong_memorized": "predicted as labelled: memorized",
        "wrong_other": "predicted otherwise",
    },
}
OUTCOME_COLOURS = {
    "predicted as the true class": BLUE,
    "predicted as labelled: memorized": VERMILION,
    "predicted otherwise": GREY,
}
STYLE = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.7,
    "font.size": 10, "axes.titlesize": 10.5, "axes.titleweight": "bold", "legend.frameon": False,
}  # fmt: skip
rcParams["svg.hashsalt"] = "elrkit"  # the same figure is the same file; asked for when a figure is written, so no style


def _panels(rows: int, columns: int, width: float, height: float, **shared: bool | str) -> tuple[Figure, np.ndarray]:
    """A figure with (rows, columns) axes, each of that size in inches, in the book's style."""
    with rc_context(sns.axes_style("ticks") | STYLE):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def _lines(
    ax: Axes, curves: pd.DataFrame, column: str, palette: Mapping[str, str], hue: str, style: str | None = None
) -> None:
    """Means over seeds by epoch, bands from the lowest to the highest seed."""
    known = curves.dropna(subset=[column]).astype({column: float})
    sns.lineplot(
        known, x="epoch", y=column, hue=hue, style=style or hue, palette=dict(palette), ax=ax, lw=1.8,
        estimator="mean", errorbar=lambda values: (values.min(), values.max()), err_kws={"alpha": 0.18, "lw": 0},
    )  # fmt: skip
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set(xlabel="epoch", ylabel="")
    if ax.get_legend():
        ax.get_legend().remove()


def _one_legend(figure: Figure, axes: Sequence[Axes], columns: int = 4) -> None:
    """One legend below all panels, each label once."""
    entries = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    entries = {label: handle for label, handle in entries.items() if label in COLOURS or not label.startswith("_")}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, fontsize="small")


def early_learning(curves: pd.DataFrame, measured_on: str = "batches", title: str = "") -> Figure:
    """What becomes of right and of wrong labels as training goes on, as in the paper's Figure 2.

    curves       `records.curves` of runs that differ in loss and seed alone
    measured_on  batches: each image as it was trained on during the epoch, as the paper's code counts; eval: all
                 training images after the epoch, without augmentation

    Two rows (right labels, wrong labels), a column per loss; upright lines mark where the learning rate falls. Raises
    ValueError when the runs differ in more.
    """
    _one_experiment(curves)
    prefix = {"eval": "", "batches": "batches_"}[measured_on]
    present = [loss for loss in LABELS if loss in set(curves["loss"])]
    figure, axes = _panels(2, len(present), 3.7, 2.7, sharex=True, sharey=True)
    figure.suptitle(title, fontsize="medium")
    for column, loss in enumerate(present):
        runs = curves[curves["loss"] == loss]
        for row, (labels, outcomes) in enumerate(OUTCOMES.items()):
            ax = axes[row, column]
            names = {prefix + name: text for name, text in outcomes.items()}
            long = runs.melt(["epoch", "seed"], list(names), "outcome", "share")
            _lines(ax, long.assign(outcome=long["outcome"].map(names)), "share", OUTCOME_COLOURS, "outcome")
            _falls(ax, runs)
            ax.set(ylim=(-0.02, 1.02), ylabel=f"images labelled {labels}", title=LABELS[loss] if row == 0 else "")
    _one_legend(figure, axes.flat, 3)
    return figure


def scale(steps: pd.DataFrame) -> Figure:
    """Time of one product and memory of each step, rows of `list_study.scale`, by the number of products."""
    figure, axes = _panels(1, 2, 4.4, 3.2, sharex=True)
    for ax, column, title in zip(
        axes[0], ("milliseconds", "gigabytes"), ("milliseconds a product", "memory at most, GB"), strict=True
    ):
        sns.lineplot(steps, x="products", y=column, hue="step", style="step", markers=True, ax=ax, legend="brief",
                     palette=[BLUE, ORANGE, GREEN, VERMILION, GREY])  # fmt: skip
        ax.set(xscale="log", title=title, ylabel="")
        ax.get_legend().remove()
    axes[0, 0].set(yscale="log")
    axes[0, 1].set(ylim=(0, None))
    _one_legend(figure, axes.flat, 5)
    return figure


def _falls(ax: Axes, curves: pd.DataFrame) -> None:
    for milestone in curves["milestones"].iloc[0] or ():
        ax.axvline(milestone + 0.5, color=GREY, lw=0.9, alpha=0.7, zorder=0)


def _one_experiment(curves: pd.DataFrame) -> None:
    if curves.empty:
        raise ValueError("no curves to draw; train the runs first")
    for field in "dataset train_size noise noise_rate model width epochs augmentation sam_rho".split():  # noqa: SIM905
        if curves[field].nunique(dropna=False) > 1:
            raise ValueError(f"runs differ in {field}: {sorted(curves[field].unique(), key=str)}; choose one")


def over_epochs(curves: pd.DataFrame, panels: Mapping[str, str], by: str | None = None) -> Figure:
    """Measures over the epochs, a panel each, a line per loss.

    curves  `records.curves`, one experiment; panels: column -> title; by: a second field that the lines differ in, by
            dash, such as sam_rho
    """
    figure, axes = _panels(1, len(panels), 3.9, 3.2, sharex=True)
    named = curves.assign(loss=curves["loss"].map(LABELS))
    for ax, (column, title) in zip(axes.flat, panels.items(), strict=True):
        _lines(ax, named, column, COLOURS, "loss", by)
        _falls(ax, curves)
        ax.set_title(title)
    _one_legend(figure, axes.flat, 6)
    return figure


# The answer ----------------------------------------------------------------------------------------------------------


def answer(runs: pd.DataFrame) -> Figure:
    """The front page's figure: a row per setting at 20 % noise, CIFAR-10, multi-step. Left the wrong labels memorized
    by CE and ELR, right the test accuracy of CE at the last epoch, at its best one and at the one that held-out noisy
    labels choose, and of ELR at the last; above the row its name, and the difference of the last epochs. Hollow: the
    paper's own numbers. Narrow, so that a phone shows its text in a size that can be read.

    runs  `records.table`; settings without runs are left out
    """
    cell = {"schedule": "multistep", "noise_rate": 0.2, "noise": "symmetric"}
    rows = [name for name in SETTINGS if len(effects.select(runs, {**effects.shared(name), **cell}))]
    labels = ["published, ResNet-34, one run", *(SETTINGS[name].label for name in rows)]
    figure, ((left, right),) = _panels(1, 2, 3.0, 0.5 * len(labels) + 1.3, sharey=True)
    table = published.table1()
    theirs = {loss: table["cifar10", "multistep", 0.2, loss] for loss in ("ce", "elr")}
    for loss, shape in (("ce", "o"), ("elr", "s")):
        right.plot(theirs[loss], 0, shape, mfc="white", mew=1.6, ms=8, color=LOSSES[loss].colour)
    left.text(50, 0, "not published", ha="center", va="center", color=GREY)
    gains = [f"ELR less CE: {theirs['elr'] - theirs['ce']:+.2f} points"]
    held_out = False
    for y, name in enumerate(rows, start=1):
        common = {**effects.shared(name), **cell}
        ce, elr = ({**common, "loss": loss} for loss in ("ce", "elr"))
        _dumbbell(left, y, *(effects.level(runs, "batches_wrong_memorized", **arm) for arm in (ce, elr)))
        _dumbbell(right, y, *(effects.level(runs, "test_top1", **arm) for arm in (ce, elr)))
        for mark, arm, measure in (
            ("^", ce, "test_top1_best"),
            ("D", {**ce, "split": "held_out"}, "test_top1_selected"),
        ):
            found = effects.level(runs, measure, **arm)
            if mark == "D" and found.seeds < effects.ENOUGH:  # beside marks of three seeds it would mislead
                continue
            held_out = held_out or mark == "D"
            right.plot(found.mean, y, mark, color=LOSSES["ce"].colour, mfc="white", ms=6)
        gain = effects.difference(runs, {"loss": "elr"}, {"loss": "ce"}, "test_top1", **common)
        gains.append(effects.text(gain, "{:+.1f}"))
    for y, (label, gain) in enumerate(zip(labels, gains, strict=True)):
        for ax, text, place in ((left, label, "left"), (right, gain, "right")):
            where = {"xycoords": ax.get_yaxis_transform(), "ha": place, "va": "center", "in_layout": False}
            ax.annotate(text, (place == "right", y - 0.42), **where)
    left.set(xlim=(-3, 103), title="wrong labels memorized", yticks=[], ylim=(len(labels) - 0.6, -0.7))
    right.set(title="test accuracy")
    for ax in (left, right):
        ax.xaxis.set_major_formatter(PercentFormatter(100, decimals=0))
        ax.spines["left"].set_visible(False)
        ax.set_facecolor("none")  # a long name reaches into the other panel
    handles = []
    for label, shape, loss, filled in (
        ("CE, last epoch", "o", "ce", True), ("CE, best epoch on the test images", "^", "ce", False),
        ("CE, chosen on held-out noisy labels", "D", "ce", False), ("ELR, last epoch", "s", "elr", True),
    ):  # fmt: skip
        if shape == "D" and not held_out:
            continue
        colour = LOSSES[loss].colour
        handles += right.plot([], [], shape, color=colour, mfc=colour if filled else "white", label=label)
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize="small")
    return figure


def _dumbbell(ax: Axes, y: float, ce: effects.Interval, elr: effects.Interval) -> None:
    """Both losses on one row, joined; bars are 95 % intervals over seeds."""
    ax.plot([ce.mean, elr.mean], [y, y], color=GREY, lw=1.2, alpha=0.6, zorder=1)
    for found, loss, shape in ((ce, "ce", "o"), (elr, "elr", "s")):
        if found.seeds:
            ax.errorbar(found.mean, y, xerr=_bars(found), fmt=shape, color=LOSSES[loss].colour, ms=7, lw=1.4, zorder=2)


def _bars(found: effects.Interval) -> list[list[float]] | None:
    """An interval as matplotlib draws it, from the mean down and up; a single seed has none."""
    return None if found.seeds == 1 else [[found.mean - found.low], [found.high - found.mean]]


def memorized_and_gained(settings: pd.DataFrame) -> Figure:
    """Where ELR helps: its gain in accuracy over the wrong labels that CE memorizes, and over those that ELR keeps out.

    settings  of `effects.where`: a pair of marks for each, joined, over CE's last epoch and over its best one, with
              its index beside it; a single seed's in grey
    """
    figure, axes = _panels(1, 2, 3.0, 3.6, sharey=True)
    columns = {"memorized": "wrong labels that CE memorizes, %", "kept_out": "of them kept out by ELR, points"}
    corners = [(False, False), (True, False), (False, True), (True, True)]
    for (x, label), ax in zip(columns.items(), axes.flat, strict=True):
        ax.axhline(0, color=GREY, lw=0.8)
        order = settings[x].rank(method="first").to_numpy(int)
        for row, rank in zip(settings.itertuples(), order, strict=True):
            place, colour = getattr(row, x), LOSSES["elr"].colour if row.seeds >= effects.ENOUGH else GREY
            ax.plot([place, place], [row.over_best, row.gain], color=colour, lw=1, alpha=0.6)
            ax.plot(place, row.gain, "o", color=colour, ms=6, label="CE's last epoch")
            ax.plot(place, row.over_best, "^", color=colour, mfc="white", ms=6, label="CE's best epoch")
            # Neighbours' numbers stand at different corners.
            right, below = corners[(rank - 1) % 4]
            ax.annotate(str(row.Index), (place, row.gain), (6 if right else -6, -9 if below else 3), fontsize="small",
                        textcoords="offset points", ha="left" if right else "right")  # fmt: skip
        ax.set(xlabel=label, xlim=(-5, 105))
    axes[0, 0].set(ylabel="ELR's last epoch less ..., points")
    _one_legend(figure, axes.flat, 2)
    return figure


# Table 1 -------------------------------------------------------------------------------------------------------------


def table1(runs: pd.DataFrame, settings: Sequence[str]) -> Figure:
    """ELR less CE in the cells of Table 1: the paper's difference and ours, a panel per dataset and schedule.

    runs  `records.table`; settings: names of `effects.SETTINGS` to draw; bars are 95 % intervals over seeds, a hollow
          mark is a single seed
    """
    theirs = {"Galatolo et al.": published.gains(), "Liu et al.": published.gains("liu2020")}
    rates = sorted(theirs["Galatolo et al."].index.unique("noise_rate"))
    keys = theirs["Galatolo et al."].index.droplevel("noise_rate").unique()
    ours = {cell: _gain(runs, *cell) for cell in product(keys, settings, rates)}
    keys = [key for key in keys if any(found.seeds for cell, found in ours.items() if cell[0] == key)]
    figure, axes = _panels(max(1, -(-len(keys) // 2)), 2, 3.0, 2.7, sharey=True)
    for ax in axes.flat[len(keys) :]:
        ax.set_axis_off()
    for ax, key in zip(axes.flat, keys, strict=False):
        ax.axhline(0, color=GREY, lw=0.8)
        for (name, gains), shape in zip(theirs.items(), "X*", strict=True):
            for place, rate in enumerate(rates):
                if (*key, rate) in gains.index:
                    ax.plot(place, gains[(*key, rate)], shape, color=GREY, mfc="white", ms=8, label=name)
        for colour, (beside, setting) in zip(sns.color_palette("colorblind"), enumerate(settings, 1), strict=False):
            for place, rate in enumerate(rates):
                found = ours[key, setting, rate]
                if found.seeds:
                    ax.plot([], [], "o", color=colour, label=SETTINGS[setting].label)
                    ax.errorbar(place + 0.11 * beside, found.mean, _bars(found), fmt="o", color=colour, ms=6, lw=1.4,
                                mfc="white" if found.seeds == 1 else colour)  # fmt: skip
        ax.set(title=f"{key[0].upper().replace('CIFAR', 'CIFAR-')}, {key[1].replace('multistep', 'multi-step')}",
               xticks=range(len(rates)), xticklabels=[f"{100 * rate:g}" for rate in rates],
               xlabel="labels redrawn, %", ylabel="ELR less CE, points")  # fmt: skip
    _one_legend(figure, axes.flat, 2)
    return figure


def _gain(runs: pd.DataFrame, key: tuple[str, str], setting: str, rate: float) -> effects.Interval:
    common = {**effects.shared(setting, key[0]), "schedule": key[1], "noise_rate": rate}
    return effects.difference(runs, {"loss": "elr"}, {"loss": "ce"}, "test_top1", **common)


# Labels by people, the list, the shops -------------------------------------------------------------------------------


def human_confusion(counts: Mapping[str, np.ndarray], class_names: Sequence[str]) -> Figure:
    """How people mislabel each class: a panel per level, rows true classes, columns given labels, diagonal left out.

    counts  level -> (10, 10) counts, rows true; numbers are the percentage of the true class, from 1 % on
    """
    figure, axes = _panels(1, len(counts), 3.3, 3.7, sharey=True)
    for ax, (level, matrix) in zip(axes.flat, counts.items(), strict=True):
        share = 100 * np.asarray(matrix) / np.sum(matrix, axis=1, keepdims=True)
        off = np.where(np.eye(len(share), dtype=bool), np.nan, share)
        shown = np.where(np.nan_to_num(off) >= 1, off.round(), np.nan)
        text = np.where(np.isnan(shown), "", np.char.mod("%.0f", np.nan_to_num(shown)))
        sns.heatmap(off, ax=ax, cmap="Blues", annot=text, fmt="", cbar=False, annot_kws={"size": 7}, linewidths=0.3,
                    xticklabels=class_names, yticklabels=class_names)  # fmt: skip
        ax.set(title=f"{level}: {100 - 100 * np.trace(matrix) / np.sum(matrix):.0f} % wrong", xlabel="given label")
    axes[0, 0].set_ylabel("true class")
    return figure


def wrong_labels_found(rows: pd.DataFrame, looks: Sequence[float]) -> Figure:
    """How many of the wrong labels a person has met after looking at a share of all: a panel per level.

    rows  `list_study.rows` of one dataset, the column found: shares at `looks`. Lines are means over seeds, bands
          lowest to highest; where a line crosses the dotted one, half of the wrong labels are found.
    """
    levels = list(dict.fromkeys(rows["errors"]))
    figure, axes = _panels(1, max(1, len(levels)), 3.3, 3.3, sharex=True, sharey=True)
    long = (
        rows.assign(looked=[looks] * len(rows)).explode(["looked", "found"]).astype({"looked": float, "found": float})
    )
    for ax, level in zip(axes.flat, levels, strict=False):
        part = long[long["errors"] == level]
        ax.axhline(0.5, color=GREY, ls=":", lw=1.2)
        sns.lineplot(part, x="looked", y="found", hue="finder", style="finder", ax=ax, palette="colorblind", lw=1.8,
                     errorbar=lambda values: (values.min(), values.max()))  # fmt: skip
        ax.get_legend().remove()
        wrong = (part["wrong"] / part["images"]).mean()
        ax.set(title=f"{level}, {100 * wrong:.0f} % wrong", xlabel="labels looked at", ylabel="wrong labels found",
               xlim=(0, 1), ylim=(0, 1.02))  # fmt: skip
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
    _one_legend(figure, axes.flat, 5)
    return figure


def leakage(table: pd.DataFrame, agreed: float, wrong: float) -> Figure:
    """What near-duplicates across the split do to agreement with the shop's labels, and to accuracy.

    table   `made_shops.table` of the shops of one scale: lines join means over seeds of the splits by product, hollow
            marks are the split by group of the last feed, where no test product has one
    agreed  the paper's agreement with SAM, in [0, 1]
    wrong   share of wrong labels, in [0, 1]: what is above 1 - wrong needs errors that can be foreseen, or copies
    """
    figure, axes = _panels(1, 2, 4.3, 3.9, sharex=True, sharey=True)
    palette = {"CE": VERMILION, "ELR": BLUE, "ELR + SAM": GREEN}
    measured = 100 * table.groupby(["split", "leak"])["near_duplicates"].transform("mean")
    by_product, by_group = (table.assign(leak=measured)[table["split"] == split] for split in ("product", "group"))
    for ax, (column, title) in zip(
        axes.flat, {"agreement": "agreement with the shop's labels", "accuracy": "accuracy"}.items(), strict=True
    ):
        sns.lineplot(by_product, x="leak", y=column, hue="arm", style="arm", palette=palette, markers=True, ax=ax,
                     errorbar=lambda values: (values.min(), values.max()))  # fmt: skip
        for arm, part in by_group.groupby("arm", sort=False):
            ax.scatter(part["leak"], part[column], facecolors="none", edgecolors=palette[arm], s=60)
        ax.axhline(agreed, color="black", lw=1.1, ls=":", label=f"the paper's {100 * agreed:g} %")
        ax.axhline(1 - wrong, color=GREY, lw=1, label=f"labels that are right: about {100 - 100 * wrong:.3g} %")
        ax.set(title=title, ylabel="", ylim=(None, 1), xlabel="test products with a near-duplicate in training, %")
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.get_legend().remove()
    _one_legend(figure, axes.flat, 3)
    return figure


def gallery(images: np.ndarray, label, prediction, truth, row) -> Figure:
    """Products with what the shop, the network and the truth say, as the paper's Figure 3 with the truth added.

    images (n, H, W, 3) uint8; label, prediction, truth, row (n,) text; one line of pictures per value of `row`.
    """
    names = list(dict.fromkeys(row))
    columns = max((np.asarray(row) == name).sum() for name in names)
    figure = Figure(figsize=(1.75 * columns, 2.6 * len(names)), layout="constrained")
    for name, part in zip(names, np.atleast_1d(figure.subfigures(len(names), 1)), strict=True):
        part.suptitle(f"{name}\n", fontsize="medium", fontweight="bold", x=0.01, ha="left")  # clear of the titles
        axes = part.subplots(1, columns, squeeze=False)[0]
        for ax in axes:
            ax.axis("off")
        for ax, i in zip(axes, np.flatnonzero(np.asarray(row) == name), strict=False):
            ax.imshow(images[i], interpolation="nearest")
            ax.text(0.5, -0.04, f"filed: {label[i]}\ntruth: {truth[i]}", ha="center", va="top", fontsize="small",
                    transform=ax.transAxes)  # fmt: skip
            right = VERMILION if prediction[i] != truth[i] else BLUE
            ax.set_title(f"“{prediction[i]}”", fontsize="small", color=right, pad=3)
    return figure


def suspects(images: np.ndarray, filed: Sequence[str], suggested: Sequence[str], columns: int = 8) -> Figure:
    """The head of a list: pictures (n, H, W, 3) uint8 with the category that each is filed under and the suggested."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.3 * columns, 1.62 * rows), layout="constrained")
    for ax in (axes := figure.subplots(rows, columns, squeeze=False)).flat:
        ax.axis("off")
    for ax, image, label, other in zip(axes.flat, images, filed, suggested, strict=False):
        ax.imshow(image)
        ax.set_title(f"{label}\n→ {other}", fontsize="x-small", fontweight="normal", pad=2)
    return figure


def contact_sheet(images: np.ndarray, labels: np.ndarray, class_names, rows: int = 6, columns: int = 10) -> Figure:
    """The first `columns` images of each of the `rows` largest classes, one line of pictures per class.

    images (n, H, W, 3) uint8; labels (n,) indices into class_names.
    """
    largest = np.argsort(-np.bincount(labels, minlength=len(class_names)), kind="stable")[:rows]
    figure = Figure(figsize=(0.75 * columns + 1.1, 0.8 * len(largest)), layout="constrained")
    axes = figure.subplots(len(largest), columns, squeeze=False)
    for line, label in zip(axes, largest, strict=True):
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for ax, i in zip(line, np.flatnonzero(labels == label), strict=False):
            ax.imshow(images[i])
        line[0].set_ylabel(class_names[label], rotation=0, ha="right", va="center", labelpad=8)
    return figure


def trained_here(runs: pd.DataFrame) -> Figure:
    """What a rerunner's own runs of a plan ended with: wrong labels memorized and test accuracy by noise rate.

    runs  `records.table`; a colour per loss, a shape per variant (SAM, crops, labels, length) that differs among the
          runs
    """
    runs = runs[runs["status"] == "finished"].assign(loss=lambda table: table["loss"].map(LABELS))
    varied = [name for name in ("sam_rho", "augmentation", "noise", "split", "epochs") if runs[name].nunique() > 1]
    variant = runs[varied].astype(str).agg(", ".join, axis=1) if varied else pd.Series("", runs.index)
    figure, axes = _panels(1, 2, 4.4, 3.4, sharex=True)
    for ax, (column, title) in zip(
        axes.flat,
        {"batches_wrong_memorized": "wrong labels memorized", "test_top1": "test accuracy"}.items(),
        strict=True,
    ):
        known = runs.assign(variant=variant).dropna(subset=[column]).astype({column: float})
        sns.scatterplot(known, x="noise_rate", y=column, hue="loss", style="variant", palette=COLOURS, ax=ax, s=60)
        ax.set(title=title, ylabel="", xlabel="noise rate")
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.get_legend().remove()
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def as_html(figure: Figure, alt: str) -> str:
    """A figure as an <img> of SVG with a text for those who do not see it, to be set into another page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img class='figure' alt='{html.escape(alt, quote=True)}' src='data:image/svg+xml;base64,{data}'>"
