"""Tables about people's labels, against numbers worked out by hand; figures drawn from runs of the digits."""

import numpy as np
import pandas as pd
import pytest

from elrkit import records, train
from elrkit.config import HUMAN_NOISE_RATES
from elrkit.report import figures as plots
from elrkit.report import human_counts, paper, plans
from elrkit.report import people as human_noise


def row(level="worst", seed=0, **changes):
    """A finished plain ELR run on people's labels."""
    fields = {
        "status": "finished", "noise": "human", "noise_rate": HUMAN_NOISE_RATES[level], "split": "all", "loss": "elr",
        "sam_rho": 0.0, "schedule": "multistep", "weight_average": 0.0, "seed": seed, "noise_realized": 0.4,
        "test_top1": 0.8, "test_top1_best": 0.8, "test_top1_averaged": np.nan, "test_top1_noisy": 0.8,
        "right_correct": 0.9,
        "wrong_memorized": 0.5, "wrong_correct": 0.25, "held_out_top1": np.nan, "held_out_top1_noisy": np.nan,
        "held_out_wrong_memorized": np.nan,
    }  # fmt: skip
    return fields | changes


def table(*rows):
    return pd.DataFrame(list(rows))


COSINE = {"schedule": "cosine", "weight_average": 0.999}


def test_levels_are_told_by_counted_and_by_published_rates():
    assert [human_noise.level_of(rate) for rate in (0.0901, 0.0903, 0.1723, 0.4021)] == [
        "aggregate", "aggregate", "random1", "worst",
    ]  # fmt: skip


def test_an_averaged_run_counts_as_two_networks():
    found = human_noise.methods(
        table(
            row(test_top1=0.8),
            row(sam_rho=0.05, test_top1=0.81),
            row(**COSINE, test_top1=0.82, test_top1_averaged=0.83),
            row(**COSINE, sam_rho=0.05, test_top1=0.84, test_top1_averaged=0.85),
            row(loss="ce", test_top1=0.6),
            row(noise="symmetric"), row(split="held_out"), row(status="diverged"),
        )
    )  # fmt: skip
    assert dict(zip(found["method"], found["test_top1"], strict=True)) == {
        "ELR": 0.8, "ELR, symmetric": 0.8, "ELR with SAM": 0.81, "ELR, cosine": 0.82, "ELR, cosine, averaged": 0.83,
        "ELR with SAM, cosine": 0.84, "ELR with SAM, cosine, averaged": 0.85, "CE": 0.6,
    }  # fmt: skip


def test_leaderboard_sets_ours_below_the_published_rows():
    ours = table(
        row(test_top1=0.8, test_top1_best=0.85), row(seed=1, test_top1=0.82, test_top1_best=0.85),
        row(level="random1", test_top1=0.9, test_top1_best=0.95),
    )  # fmt: skip
    board = human_noise.leaderboard(paper.load_published(), {"cpu": ours, "paper": records.table([])})
    theirs = board[board["whose"] == "Wei et al."].set_index("method")
    assert theirs.loc["ELR", list(human_noise.LEVELS)].tolist() == ["92.38 ± 0.64", "91.46 ± 0.38", "83.58 ± 1.13"]
    assert len(theirs) == 5
    assert set(theirs["epoch"]) == {"best"}
    last, best = board[board["whose"] != "Wei et al."].to_dict("records")
    # 80 and 82: mean 81, half width t(0.975, 1) sqrt(2) / sqrt(2) = 12.706
    assert last == {
        "whose": "ours, cpu scale", "method": "ELR", "epoch": "last", "aggregate": "not run yet",
        "random1": "90.00 (1 seed)", "worst": "81.00 (68.29 to 93.71), 2 seeds",
    }  # fmt: skip
    assert best == last | {"epoch": "best", "random1": "95.00 (1 seed)", "worst": "85.00 (85.00 to 85.00), 2 seeds"}
    averaged = table(row(**COSINE, test_top1_averaged=0.9))
    averaged = human_noise.leaderboard(paper.load_published(), {"cpu": averaged}).set_index("method").iloc[5:]
    assert averaged["epoch"].to_dict() == {"ELR, cosine": "best", "ELR, cosine, averaged": "last"}


def test_gains_are_paired_by_seed():
    found = human_noise.gains(
        table(
            *(row(seed=s, test_top1=0.8 + s / 100) for s in (0, 1)),
            *(row(seed=s, **COSINE, test_top1=0.82 + s / 100, test_top1_averaged=0.85) for s in (0, 1)),
        )
    ).set_index("means")["worst"]
    assert found["cosine restarts"] == "+2.00 (+2.00 to +2.00), 2 seeds"
    assert found["averaged weights"].startswith("+2.50 (")  # 3 and 2 points
    assert found["SAM"] == found["all three"] == "not run yet"


def test_sam_on_symmetric_noise_stands_apart():
    sharp = {"sam_rho": 0.05, "test_top1": 0.9}
    rows = table(row(), row(**sharp), row(noise="symmetric", test_top1=0.7), row(noise="symmetric", **sharp))
    found = human_noise.gains(rows).set_index("means")["worst"]
    assert found["SAM"] == "+10.00 (1 seed)"
    assert found["SAM, on symmetric noise of the same rate"] == "+20.00 (1 seed)"
    assert not any(
        "symmetric" in method for method in human_noise.leaderboard(paper.load_published(), {"cpu": rows})["method"]
    )


def test_agreement_and_accuracy_follow_from_what_became_of_the_labels():
    held = {"held_out_top1_noisy": 0.55, "held_out_top1": 0.7, "held_out_wrong_memorized": 0.3}
    found = human_noise.agreement(table(row(), row(split="held_out", **held), row(noise="symmetric"), row(sam_rho=0.1)))
    cells = found.set_index(["people", "labels"])
    assert cells.index.tolist() == [(True, "training"), (True, "held-out"), (False, "training"), (False, "test")]
    # 60 % right labels, 0.9 of them predicted so; 40 % wrong, half memorized, a quarter seen through
    assert cells.loc[(True, "training"), ["agreement", "accuracy"]].tolist() == pytest.approx([0.74, 0.64])
    assert cells.loc[(True, "held-out"), ["agreement", "accuracy"]].tolist() == [0.55, 0.7]
    assert human_noise.agreement_text(found)["agreement minus accuracy"].tolist() == [
        "+0.0 (1 seed)", "+10.0 (1 seed)", "-15.0 (1 seed)", "+10.0 (1 seed)",
    ]  # fmt: skip
    studies = pd.DataFrame(
        [("cifar10", "worst", "out_of_fold", "natural", 0.8), ("cifar10", "worst", "out_of_fold", "natural", 0.9),
         ("cifar10", "worst", "elr", "natural", 0.1), ("cifar10", "worst", "out_of_fold", "suspect", 0.2),
         ("cifar10", "aggregate", "out_of_fold", "natural", 0.75), ("digits", "worst", "out_of_fold", "natural", 0.3)],
        columns=["dataset", "level", "source", "list", "recall"],
    )  # fmt: skip
    foreseen = human_noise.predictable(found, studies)
    assert foreseen.index.tolist() == ["aggregate", "worst"]
    assert foreseen["ELR"].tolist() == ["not run yet", "30.0 (1 seed)"]
    # 20 and 10 %: mean 15, half width t(0.975, 1) times 5
    assert foreseen["CE, out-of-fold"].tolist() == ["25.0 (1 seed)", "15.0 (-48.5 to 78.5), 2 seeds"]
    assert human_noise.predictable(found, studies[:0])["ELR"].tolist() == ["30.0 (1 seed)"]


def test_training_agreement_is_counted_from_the_outcome(digits, tmp_path):
    config = plans.plan("human-noise", "digits", seeds=[0], levels=["worst"], epochs=2)[0]
    found = human_noise.agreement(records.table([train.fit(config, dataset=digits, state_dir=tmp_path)]))
    outcome = train.load_outcome(tmp_path)
    guess = outcome["probabilities"].argmax(dim=1)
    measured = found.set_index("labels").loc["training"]
    assert measured["agreement"] == pytest.approx((guess == outcome["given"]).double().mean().item())
    assert measured["accuracy"] == pytest.approx((guess == outcome["truth"]).double().mean().item())


def test_ranking_says_where_agreement_chooses_the_worse_network():
    """By the accuracy on test images: on the training images memorizing looks like knowing."""
    memorizing = {"loss": "ce", "right_correct": 1.0, "wrong_memorized": 0.9, "wrong_correct": 0.05}
    rows = [row(test_top1=0.8), row(**memorizing, test_top1=0.7)]
    alike = [row("random1", test_top1=0.8), row("random1", loss="ce", test_top1=0.8)]
    # worst: CE agrees more (96 against 74 %) and knows less; random1: both alike
    (sentence,) = human_noise.ranking(human_noise.agreement(table(*rows, *alike)))
    assert sentence.endswith("in the order of their test accuracy at 1 of 2 levels (1 seed each)")
    again = [row(seed=1, test_top1=0.8), row(seed=1, **memorizing, test_top1=0.7)]
    (sentence,) = human_noise.ranking(human_noise.agreement(table(*rows, *again, *alike)))
    assert sentence.endswith("at 1 of 2 levels (1 to 2 seeds)")
    assert human_noise.ranking(human_noise.agreement(table(row()))) == []


def test_peoples_errors_against_as_many_redrawn_labels():
    def four(seed, *accuracies):
        kinds = [{"loss": loss, "noise": noise} for noise in ("human", "symmetric") for loss in ("ce", "elr")]
        return [
            row(seed=seed, test_top1=top1, test_top1_best=top1 / 2, **kind)
            for top1, kind in zip(accuracies, kinds, strict=True)
        ]

    rows = [*four(0, 0.65, 0.80, 0.60, 0.81), *four(1, 0.66, 0.79, 0.60, 0.79), *four(2, 0.9, 0.9, 0.1, 0.1)[:3]]
    found = human_noise.against_redrawn(table(*rows))
    assert found[["CE", "ELR", "ELR - CE"]].to_numpy().tolist() == [
        pytest.approx([5, -1, -6]), pytest.approx([6, 0, -6]),
    ]  # fmt: skip
    assert found["CE, best epochs"].tolist() == pytest.approx([2.5, 3])
    assert found["ELR - CE, best epochs"].tolist() == pytest.approx([-3, -3])
    (text,) = human_noise.against_redrawn_text(found).to_dict("records")
    assert (text["level"], text["ELR - CE"]) == ("worst", "-6.0 (-6.0 to -6.0), 2 seeds")
    assert text["CE"] == "+5.5 (-0.9 to +11.9), 2 seeds"  # half width t(0.975, 1) times a half
    assert human_noise.against_redrawn(table(row())).empty


def test_the_foresight_that_an_agreement_takes():
    found = human_noise.needed_foresight(93.4, [5, 10, 20])["wrong labels to foresee, at least"]
    assert found.tolist() == pytest.approx([0, 34, 67])


def test_confusion_facts_of_a_matrix_made_by_hand():
    matrix = np.diag([80, 90, 100])
    matrix[0] += [0, 15, 5]
    matrix[1] += [0, 0, 10]
    (facts,) = human_noise.confusion_facts({"worst": matrix}, ["a", "b", "c"]).to_dict("records")
    assert facts == {
        "level": "worst", "wrong": "10.0 %", "cleanest class": "c 0.0 %", "dirtiest class": "a 20.0 %",
        "one mistake": "83 %", "commonest mistakes": "a as b 15 %; b as c 10 %; a as c 5 %",
    }  # fmt: skip


def test_every_table_takes_an_empty_store():
    empty = records.table([])
    assert human_noise.methods(empty).empty
    assert set(human_noise.gains(empty)["worst"]) == {"not run yet"}
    found = human_noise.agreement(empty)
    assert human_noise.agreement_text(found).empty
    assert human_noise.predictable(found, pd.DataFrame()).empty
    assert human_noise.ranking(found) == []


def test_figures_have_a_panel_per_level(digits):
    configs = plans.plan("human-noise", "digits", seeds=[0], levels=["worst", "random1"], epochs=1)
    plain = [c for c in configs if not c.sam_rho and c.schedule == "multistep"]
    trained = [train.fit(config, dataset=digits) for config in plain]
    rates = {level: HUMAN_NOISE_RATES[level] for level in ("random1", "worst")}
    curves = records.curves([r for r in trained if r["config"]["split"] == "all"])
    axes = plots.human_memorization(curves, rates).axes
    assert [len(ax.lines) for ax in axes] == [4, 4]
    axes = plots.agreement(human_noise.agreement(records.table(trained))).axes
    assert [ax.get_title() for ax in axes] == ["random1", "worst"]
    counts = human_counts.read_human_counts()
    axes = plots.human_confusion(counts["counts"], counts["class_names"]).axes
    assert axes[2].get_title() == "worst: 40 % wrong"


def test_what_elr_predicts_as_labelled_beside_nets_that_have_not_seen_the_images():
    people = [row(batches_wrong_memorized=share, seed=seed) for seed, share in enumerate((0.3, 0.5))]
    others = [row(batches_wrong_memorized=0.99, **changes) for changes in ({"loss": "ce"}, {"sam_rho": 0.05}, COSINE)]
    redrawn = row(noise="symmetric", batches_wrong_memorized=0.15)
    level = row("random1", batches_wrong_memorized=0.2)  # on people's labels alone
    known = table(*people, *others, redrawn, level)
    assert human_noise.predicted_as_labelled(known, pd.DataFrame()) == [
        "worst: ELR predicts 40 % of people's wrong labels, 15 % of redrawn ones"
    ]
    unseen = [
        {"dataset": "cifar10", "level": level, "source": "out_of_fold", "list": "natural", "recall": recall}
        for level, recall in (("worst", 0.8), ("worst", 0.9), ("random1", 0.3))
    ]
    (sentence,) = human_noise.predicted_as_labelled(known, pd.DataFrame(unseen))
    assert sentence.endswith("; nets trained without the images predict 15 % of people's")
    assert human_noise.predicted_as_labelled(table(*people), pd.DataFrame()) == []
