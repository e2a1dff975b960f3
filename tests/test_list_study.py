"""The comparison with cleanlab: equal cost, no image scored by a net that has seen it, figures against scikit-learn."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score

from elrkit import __main__, train
from elrkit.catalogue import scores as audit
from elrkit.config import ConfigError
from elrkit.report import list_study as audit_study
from elrkit.report.list_study import Study

TINY = Study("worst", 0, "digits", images=200, folds=3, fold_epochs=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One tiny study: (its record, the configs that were trained, in order, with their images)."""
    trained, inner = [], train.fit

    def fit(config, *, dataset, **options):
        trained.append((config, dataset))
        return inner(config, dataset=dataset, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELRKIT_STATE", str(tmp_path_factory.mktemp("state")))
        patch.setattr(train, "fit", fit)
        return audit_study.run(TINY), trained


def probabilities(rng, n=120, classes=4):
    p = rng.random((n, classes)) ** 3 + 1e-3
    return p / p.sum(axis=1, keepdims=True)


def test_figures_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, truth = rng.integers(0, 4, 120), rng.integers(0, 4, 120)
    truth[:70] = labels[:70]
    targets, out_of_fold, ce = (probabilities(rng) for _ in range(3))
    rows = audit_study.compare(targets, out_of_fold, ce, labels, truth)
    wrong = labels != truth
    by_key = {(r["source"], r["score"], r["list"]): r for r in rows}
    assert len(by_key) == len(rows) == 20
    record = {"study": {"level": "worst", "seed": 0}, "data": {"wrong": int(wrong.sum())}, "rows": rows}
    table = audit_study.rows([record])
    assert set(audit_study.named(table)["finder"]) == set(audit_study.FINDERS.values())
    # A list is one whatever the order: the balanced score comes with the suspect list that the record has beside odds.
    mine = table[(table["source"] == "elr") & (table["list"] == "suspect")].set_index("score")
    suspects = audit.suspect_list(targets, labels)
    assert set(mine.index) == {"odds", "self_confidence", "margin", "balanced"}
    assert mine["f1"].tolist() == pytest.approx([f1_score(wrong, suspects)] * 4)
    assert mine.loc["balanced", "average_precision"] == pytest.approx(
        average_precision_score(wrong, audit.label_scores(targets, labels, "balanced"))
    )
    both = np.sqrt(targets * out_of_fold)
    both /= both.sum(axis=1, keepdims=True)
    for source, p in {"elr": targets, "out_of_fold": out_of_fold, "both": both, "ce": ce}.items():
        own = p[np.arange(120), labels]
        row = by_key[source, "self_confidence", "natural" if source == "ce" else ""]
        assert row["average_precision"] == pytest.approx(average_precision_score(wrong, 1 - own))
        order = np.argsort(own)
        found = [wrong[order[: max(1, round(share * 120))]].sum() / wrong.sum() for share in audit_study.LOOKS[1:]]
        assert row["found"] == pytest.approx([0.0, *found])
        natural = by_key[source, "self_confidence" if source == "ce" else "odds", "natural"]
        assert natural["f1"] == pytest.approx(f1_score(wrong, p.argmax(axis=1) != labels))
    scores, listed = audit.cleanlab_baseline(out_of_fold, labels)
    row = by_key["out_of_fold", "cleanlab", "cleanlab"]
    assert row["f1"] == pytest.approx(f1_score(wrong, listed))
    assert row["average_precision"] == pytest.approx(average_precision_score(wrong, scores))
    chance = by_key["chance", "none", "all"]
    share = wrong.mean()
    assert chance["average_precision"] == chance["precision_at_5"] == pytest.approx(share)
    assert chance["f1"] == pytest.approx(2 * share / (1 + share))
    assert chance["effort_half"] == chance["effort_half_random"]


def test_all_parts_train_on_the_given_labels_and_cost_the_same(made):
    record, trained = made
    problem = audit_study.problem(TINY)
    wrong = problem.train_labels != problem.train_truth
    assert record["data"]["wrong"] == int(wrong.sum()) > 0
    assert [config.loss for config, _ in trained[:5]] == ["elr", "ce", "ce", "ce", "ce"]
    assert {config.noise for config, _ in trained} == {"none"}  # the labels are wrong already
    elr, *folds, ce = trained[:5]
    assert elr[1].train_labels.equal(problem.train_labels)
    assert ce[1].train_labels.equal(problem.train_labels)
    spent = sum(len(dataset.train_labels) * config.epochs for config, dataset in folds)
    assert spent == len(elr[1].train_labels) * elr[0].epochs == 200 * 2 * 3
    assert record["images_trained"] == {"elr": spent, "out_of_fold": spent, "ce": spent}


def test_each_image_is_scored_by_the_one_net_that_has_not_seen_it(made):
    labels = np.arange(200) % 10
    folds = audit_study.fold_rows(labels, 3, seed=5)
    assert sorted(np.concatenate(folds)) == list(range(200))
    assert all(abs(np.bincount(labels[rows]) - 20 / 3).max() < 1 for rows in folds)
    assert not np.array_equal(folds[0], audit_study.fold_rows(labels, 3, seed=6)[0])
    problem = audit_study.problem(TINY)
    rows = audit_study.fold_rows(problem.train_labels, 3, TINY.seed)
    for (_, dataset), held_out in zip(made[1][1:4], rows, strict=True):
        kept = np.setdiff1d(np.arange(200), held_out)
        assert dataset.train_images.equal(problem.train_images[kept])
        assert dataset.train_labels.equal(problem.train_labels[kept])
        assert dataset.test_images.equal(problem.train_images[held_out])


def test_cross_entropy_at_its_best_epoch_is_the_longer_training_stopped_there(made):
    record, trained = made
    config, dataset = trained[4]
    curve = train.fit(config, dataset=dataset)["curves"]["test_top1"]
    best = record["ce_best_epoch"]
    assert curve[best - 1] == max(curve) == record["test_top1"]["ce_best"]
    shorter = train.fit(config.with_(epochs=2), dataset=dataset)["curves"]["test_top1"]
    assert shorter == curve[:2]
    assert len(trained) == 5 + (best < config.epochs)
    assert all(config.epochs == best for config, _ in trained[5:])


def test_a_stopped_study_goes_on_where_it_was_and_a_damaged_part_is_trained_again(made, monkeypatch, caplog):
    calls, inner, stops = [], train.fit, iter([False] * 30 + [True] + [False] * 10_000)
    monkeypatch.setattr(train, "fit", lambda config, **options: calls.append(config) or inner(config, **options))
    with pytest.raises(train.Stopped):
        audit_study.run(TINY, should_stop=lambda: next(stops))
    before = len(calls)
    assert 0 < before < 5
    record = audit_study.run(TINY, should_stop=lambda: next(stops))
    assert record["rows"] == made[0]["rows"]
    assert len(calls) - before == len(made[1]) - (before - 1)  # only the part that was stopped is taken up again
    assert audit_study.run(TINY)["rows"] == record["rows"]
    assert len(calls) == len(made[1]) + 1
    damaged = next(Path(os.environ["ELRKIT_STATE"]).rglob("outcome.pt"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with caplog.at_level("WARNING"):
        assert audit_study.run(TINY)["rows"] == record["rows"]
    assert f"{damaged.parent}: not usable" in caplog.text
    assert len(calls) == len(made[1]) + 2


def test_records_survive_the_disk_and_damaged_ones_are_named(made, caplog, capsys):
    assert audit_study.find(TINY) is None
    path = audit_study.save(made[0])
    found = audit_study.find(TINY)
    assert {k: v for k, v in found.items() if k != "rows"} == {k: v for k, v in made[0].items() if k != "rows"}
    for ours, theirs in zip(found["rows"], made[0]["rows"], strict=True):
        assert ours["average_precision"] == pytest.approx(theirs["average_precision"], abs=1e-6)
    frame = audit_study.gather([TINY, TINY._replace(seed=1)])
    assert capsys.readouterr().out == "1 of 2 studies are there\n"
    assert len(frame) == 20
    assert set(frame["seed"]) == {0}
    content = path.read_text()
    for damage in (content[: len(content) // 2], "[]", content.replace('"seed": 0', '"seed": 7', 1)):
        path.write_text(damage)
        caplog.clear()
        assert audit_study.find(TINY) is None
        assert str(path) in caplog.text
    assert audit_study.gather([TINY]).empty
    assert audit_study.summary(audit_study.gather([TINY])).empty


def test_the_command_makes_what_is_missing(capsys):
    command = ["audit-study", "--scale", "digits", "--levels", "worst", "--seeds", "3"]
    command += ["--images", "200", "--fold-epochs", "1"]
    assert __main__.main(command) == 0
    said = capsys.readouterr().out
    assert "1 studies, 0 there, 1 to make" in said
    assert "fold 5 of 5" in said
    study = Study("worst", 3, "digits", 200, fold_epochs=1)
    assert json.loads(audit_study.path_of(study).read_text())["study"] == study._asdict()
    assert __main__.main(command) == 0
    assert "1 studies, 1 there, 0 to make" in capsys.readouterr().out
    assert __main__.main([*command, "--budget", "soon"]) == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (dict(scale="paper"), "scale='paper': allowed are cpu, digits"),
        (dict(levels=["awful"]), r"levels=\['awful'\]: allowed are aggregate, random1"),
        (dict(seeds=[]), r"seeds=\[\]: allowed is a list"),
        (dict(images=3), "images=3, fold_epochs=8: allowed are 200 to 50000 images"),
        (dict(fold_epochs=0), "images=15000, fold_epochs=0"),
    ],
)
def test_what_cannot_be_honoured_is_named(arguments, line):
    with pytest.raises(ConfigError, match=line):
        audit_study.studies(**arguments)


def test_a_seed_that_is_named_twice_is_one():
    assert audit_study.studies("digits", seeds=[0, 0, 1], levels=["worst"]) == audit_study.studies(
        "digits", seeds=[0, 1], levels=["worst"]
    )


def rows_of(values):
    """Finders, their average precision by seed."""
    names = {"ours": ("elr", "balanced", "suspect"), "theirs": ("out_of_fold", "cleanlab", "cleanlab"),
             "loss": ("ce", "self_confidence", "natural")}  # fmt: skip
    return pd.DataFrame(
        [
            {"level": "worst", "seed": seed, "images": 1000, "wrong": 400, "average_precision": value, "f1": 0.5,
             "precision_at_1": 1.0, "precision_at_5": 1.0, "precision_at_10": 0.96, "effort_half": 250.0,
             "effort_half_random": 500.0} | dict(zip(("source", "score", "list"), names[who], strict=True))
            for who, by_seed in values.items()
            for seed, value in enumerate(by_seed)
        ]
    )  # fmt: skip


def test_tables_are_paired_within_a_study():
    rows = rows_of({"ours": [0.6, 0.8, 0.7], "theirs": [0.5, 0.6, 0.4]})
    (gain,) = audit_study.less_than(rows, "cleanlab, out-of-fold CE").to_dict("records")
    # Differences 10, 20, 30: mean 20, half width t(0.975, 2) 10 / sqrt(3) = 4.302653 * 5.77350.
    assert gain == {"level": "worst", "ELR targets less cleanlab, out-of-fold CE": "+20.0 (-4.8 to +44.8)"}
    ours, theirs = audit_study.summary(rows).to_dict("records")
    assert (ours["finder"], ours["average precision"]) == ("ELR targets", "70.0 (45.2 to 94.8)")
    assert (theirs["looks for half"], theirs["precision at 1 %"]) == ("50.0 (50.0 to 50.0)", "100.0 (100.0 to 100.0)")
