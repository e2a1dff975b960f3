"""The figures: what they show follows from the rows they get, and what was not run is not drawn."""

import pandas as pd
import pytest
from test_compare import record

from elrkit.report import compare, paper, plans
from elrkit.report import figures as plots


def ladder_of(scale, made):
    configs = plans.plan("forensics", scale)
    rows = compare.compare(configs, [record(configs[place], top1) for place, top1 in made], compare.LADDER)
    return plots.ladder(compare.beside_published(rows, paper.load_published()))


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_ladder_shows_the_published_cell_at_paper_scale_alone():
    made = [(0, 0.90), (1, 0.80)]  # CE at 20 %: as described, crops and flips drawn once
    large, small = ladder_of("paper", made), ladder_of("cpu", made)
    assert [("published" in texts(ax)) for ax in large.axes] == [True] * 4
    assert not any("published" in texts(ax) for ax in small.axes)
    assert "-10.0" in texts(large.axes[0])
    assert texts(large.axes[0]).count("not run yet") == 3  # a rung and two single changes; one counts the same run
    assert texts(large.axes[2]).count("the same: no label is wrong") == 2
    assert texts(large.axes[0]).count("of the other loss alone") == 1  # cross-entropy has no beta
    low, high = large.axes[0].get_xlim()
    assert low < 72.3 < 90 < high


def test_ladder_without_a_run_is_no_figure():
    with pytest.raises(ValueError, match="ladder: no run is there"):
        ladder_of("cpu", [])


def curves(*methods, epochs=4, seeds=(0, 1), **fields):
    """Curves of runs of `methods`, pairs of loss and SAM radius."""
    shares = ("right_correct", "right_other", "wrong_correct", "wrong_memorized", "wrong_other")
    columns = [*shares, *(f"batches_{s}" for s in shares), "train_loss", "test_loss", "test_top1", "test_top5"]
    common = dict(
        dataset="digits", train_size=None, noise="symmetric", noise_rate=0.2, model="small_resnet", epochs=epochs,
        milestones=[2, 3],
    )  # fmt: skip
    return pd.DataFrame(
        [
            dict.fromkeys(columns, 0.1 * (place + seed)) | common | fields
            | {"loss": loss, "sam_rho": rho, "seed": seed, "epoch": epoch}
            for place, (loss, rho) in enumerate(methods)
            for seed in seeds
            for epoch in range(1, epochs + 1)
        ]
    )  # fmt: skip


def test_early_learning_has_a_column_for_each_loss_and_for_each_with_sam():
    four = curves(("elr", 0.05), ("ce", 0.05), ("elr", 0.0), ("ce", 0.0))
    titles = [ax.get_title() for ax in plots.early_learning(four).axes[:4]]
    assert titles == ["Cross-entropy", "ELR", "Cross-entropy with SAM", "ELR with SAM"]
    two = plots.early_learning(four[four["sam_rho"] == 0])
    assert [ax.get_title() for ax in two.axes[:2]] == ["Cross-entropy", "ELR"]
    assert "2 seeds" in two.get_suptitle()
    # Each column shows its own runs: the wrong labels that CE memorizes, mean of its two seeds.
    memorized = next(line for line in two.axes[2].lines if line.get_label() == "predicted as labelled: memorized")
    assert memorized.get_ydata() == pytest.approx([0.35] * 4)
    uprights = [line.get_xdata()[0] for line in two.axes[2].lines if len(line.get_xdata()) == 2]
    assert uprights == [2.5, 3.5]  # after the second epoch and after the third, where the learning rate falls


@pytest.mark.parametrize("figure", [plots.early_learning, plots.sam_curves])
def test_runs_of_two_lengths_are_no_one_figure(figure):
    mixed = pd.concat([curves(("ce", 0.0)), curves(("ce", 0.0), epochs=8)])
    with pytest.raises(ValueError, match=f"{figure.__name__}: runs differ in epochs: \\[4, 8\\]; choose one"):
        figure(mixed)
    with pytest.raises(ValueError, match="no curves; train the runs first"):
        figure(pd.DataFrame())


def test_sam_curves_draw_each_method_once_in_each_panel():
    figure = plots.sam_curves(curves(("ce", 0.0), ("ce", 0.05), ("elr", 0.0), ("elr", 0.05)))
    names = ["Cross-entropy, SGD", "Cross-entropy, SAM", "ELR, SGD", "ELR, SAM"]
    for ax in figure.axes:
        assert [line.get_label() for line in ax.lines] == names
    top1 = next(ax for ax in figure.axes if "top-1" in ax.get_title())
    assert [line.get_ydata()[-1] for line in top1.lines] == pytest.approx([0.05, 0.15, 0.25, 0.35])


def test_accuracy_by_cost_shows_the_arms_that_ran():
    configs = plans.plan("sam", "cpu", seeds=[0])
    rows = compare.compare(configs, [record(configs[0], 0.7), record(configs[1], 0.8)], compare.SAM_ARMS)
    figure = plots.accuracy_by_cost(rows)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Cross-entropy: SGD", "Cross-entropy: SAM"]
    low, high = figure.axes[0].get_ylim()
    assert low < 70 < 80 < high < 100
    assert [ax.get_xlabel() for ax in figure.axes] == ["training, TFLOP"]  # the records do not say they were alone
    timed = plots.accuracy_by_cost(rows.assign(alone=True))
    assert [ax.get_xlabel() for ax in timed.axes] == ["training, TFLOP", "seconds a run"]
    with pytest.raises(ValueError, match="accuracy_by_cost: no run is there"):
        plots.accuracy_by_cost(rows.assign(seeds=0))


def test_kept_from_memory_has_a_mark_for_each_setting():
    pairs = pd.DataFrame(
        [("a", "symmetric", "none", "cpu", 10.0, 11.0), ("a", "symmetric", "none", "cpu", 12.0, 13.0),
         ("b", "human", "flip", "cpu", 5.0, 4.0), ("c", "none", "fresh", "paper", 0.0, 1.0)],
        columns=["setting", "labels", "augmentation", "scale", "kept", "gain"],
    )  # fmt: skip
    pairs["best_gain"] = pairs["gain"] / 2
    figure = plots.kept_from_memory(pairs)
    for ax, heights in zip(figure.axes, ([12, 4, 1], [6, 2, 0.5]), strict=True):
        marks = [(mark[0].get_xdata()[0], mark[0].get_ydata()[0]) for mark in ax.containers]
        assert marks == list(zip([11, 5, 0], heights, strict=True))
        assert ax.get_lines()[1].get_label() == "least squares"
    filled = [mark[0].get_markerfacecolor() != "white" for mark in figure.axes[0].containers]
    assert filled == [False, False, True]  # paper scale alone
    assert [ax.get_title() for ax in figure.axes] == ["at the last epoch", "at the best epochs"]
    alone = plots.kept_from_memory(pairs[:1])
    assert "least squares" not in [text.get_text() for text in alone.legends[0].get_texts()]
    with pytest.raises(ValueError, match="no run of ELR has its like"):
        plots.kept_from_memory(pairs[:0])


def cell_row(
    about, cell, scale, seeds, last=float("nan"), half=float("nan"), published=float("nan"), none="not run yet"
):
    around = [last, last - half, last + half]
    return [about, cell, scale, seeds, *around, *around, published, float("nan"), none]


def test_differences_tell_intervals_single_seeds_and_what_is_not_run():
    columns = ["about", "cell", "scale", "seeds", "last", "last_low", "last_high", "best", "best_low", "best_high"]
    columns += ["published", "liu", "none"]
    rows = [
        cell_row("ELR - CE", "a", "cpu", 3, 14.0, 2.0, 12.5),
        cell_row("ELR - CE", "a", "paper", 0),
        cell_row("ELR - CE", "b", "cpu", 1, 5.0),
        cell_row("ELR - CE", "c", "cpu", 0, published=7.5),
        cell_row("SAM - SGD", "the paper's shop", "cpu", 0, published=14.6, none="not public"),
    ]
    figure = plots.differences(pd.DataFrame(rows, columns=columns))
    last, best = figure.axes
    names = [text.get_text() for text in last.get_yticklabels()]
    assert names == ["ELR - CE", "a", "b", "c", "SAM - SGD", "the paper's shop"]
    places = dict(zip(names, last.get_yticks(), strict=True))
    assert texts(last) == texts(best) == ["not run yet", "not public"]
    assert [text.get_position()[1] for text in last.texts] == [places["c"], places["the paper's shop"]]
    bars = {container.get_label(): container for container in last.containers}
    assert set(bars) == {"ours, cpu scale", "ours, cpu scale, one seed"}
    (line,) = bars["ours, cpu scale"].lines[2][0].get_segments()
    assert line.tolist() == [[12.0, places["a"]], [16.0, places["a"]]]
    assert bars["ours, cpu scale, one seed"].lines[0].get_xydata().tolist() == [[5.0, places["b"]]]
    assert not bars["ours, cpu scale, one seed"].lines[2]
    published = next(line for line in last.get_lines() if line.get_label() == "Galatolo et al.")
    drawn = [tuple(point) for point in published.get_xydata() if point[0] == point[0]]
    assert drawn == [(12.5, places["a"]), (7.5, places["c"]), (14.6, places["the paper's shop"])]
    with pytest.raises(ValueError, match="no cell to draw"):
        plots.differences(pd.DataFrame(columns=columns))
