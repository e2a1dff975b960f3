"""The sentences of the front page against hand-made tables, and that they say when nothing was run."""

from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from elrkit import records, runner
from elrkit.report import findings, plans


def rows(*arms):
    """A row per arm and seed; test accuracy in percent is the arm's `test` plus the seed, at the best epoch `best`."""
    base = {
        "dataset": "cifar10", "schedule": "multistep", "noise": "symmetric", "noise_rate": 0.2, "sam_rho": 0.0,
        "epochs": 30, "wrong_memorized": 0.5, "batches_wrong_memorized": 0.4, "status": "finished", "split": "all",
        "weight_average": 0.0, "weight_decay": 1e-3,
    }  # fmt: skip
    return pd.DataFrame(
        [
            {
                **base,
                "seed": seed,
                **arm,
                "test_top1": (arm["test"] + seed) / 100,
                "test_top1_best": (arm.get("best", arm["test"]) + seed) / 100,
            }
            for arm in arms
            for seed in arm["seeds"]
        ]
    )


CE = {"loss": "ce", "test": 60, "seeds": (0, 1)}
ELR = {"loss": "elr", "test": 70, "seeds": (0, 1)}


def test_the_answer_beside_the_published_tables(tmp_path, monkeypatch):
    """Crops drawn anew: three seeds of CE, two of ELR, which count; drawn once: one seed, one run diverged."""
    monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path))
    empty = findings.answer().set_index("training")["ELR - CE, points"]
    assert dict(empty.iloc[:2]) == {"Galatolo et al., Table 1": "+12.55", "Liu et al., Table 1": "+4.18"}
    assert set(empty.iloc[2:]) == {"not run yet"}

    planned = [c for c in plans.plan("forensics", "cpu") if c.noise_rate and c.precision == "bfloat16"]
    planned = [c for c in planned if c.noise_convention == "all" and c.split == "all" and not c.sam_rho]
    planned = [c for c in planned if c.lr == 0.05 and c.beta != 0.3 and c.weight_decay and c.schedule == "multistep"]

    def made(top1, batches, status="finished", **wanted):
        (config,) = (c for c in planned if all(getattr(c, name) == value for name, value in wanted.items()))
        curves = {"test_top1": [0.1, top1 + 0.02 * (wanted["loss"] == "ce"), top1]}
        curves |= {"batches_wrong_memorized": [0.1, 0.2, batches], "batches_right_correct": [0.1, 0.5, 0.9]}
        return config.run_id, {"status": status, "curves": curves}

    trained = dict(
        [
            *(made(0.70 + s / 100, 0.04, loss="ce", seed=s, augmentation="fresh") for s in (0, 1, 2)),
            *(made(0.71 + 3 * s / 100, 0.0, loss="elr", seed=s, augmentation="fresh") for s in (0, 1)),
            made(0.5, 0.99, loss="ce", seed=0, augmentation="frozen"),
            made(0.6, 0.5, loss="elr", seed=0, augmentation="frozen"),
            made(0.5, 0.99, "diverged", loss="ce", seed=1, augmentation="frozen"),
            made(0.6, 0.5, loss="elr", seed=1, augmentation="frozen"),
        ]
    )
    monkeypatch.setattr(runner, "find", lambda config: trained.get(config.run_id))
    rows = findings.answer().set_index("training")
    ours = rows[rows.index.str.startswith("ours, cpu scale, 20,000 images")]
    assert [list(row) for row in ours.itertuples(index=False)] == [
        [
            "+2.00 (-10.71 to +14.71)",
            "+0.00 (-12.71 to +12.71)",
            "+0.00 (-12.71 to +12.71)",  # ELR's best epoch is its last one
            "70.50 (64.15 to 76.85)",
            "72.50 (53.44 to 91.56)",
            "90 / 90",
            "4 / 0",
            "2",
        ],
        ["+10.00", "+8.00", "+8.00", "50.00", "60.00", "90 / 90", "99 / 50", "1"],
    ]  # t(0.975, 1) = 12.706 times half of the difference between the two seeds


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store; run id -> test accuracies over the epochs, or a status without any, makes it find such a run."""
    monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path))
    made = {}

    def find(config):
        curve = made.get(config.run_id)
        status = curve if isinstance(curve, str) else "finished"
        return curve and {"status": status, "curves": {"test_top1": [] if curve == status else curve}}

    monkeypatch.setattr(runner, "find", find)
    return made


def test_every_cell_has_a_row_before_anything_is_run(store):
    table = findings.differences()
    assert not table["seeds"].any()
    assert table[["last", "best", "last_low"]].isna().all(axis=None)
    table1 = table[table["about"] == "ELR - CE, Table 1"]
    assert list(table1["scale"].value_counts()) == [16, 16]
    cpu = table1[table1["scale"] == "cpu"].set_index("cell")
    assert list(cpu.index[:4]) == [f"CIFAR-10, multi-step, {rate} % redrawn" for rate in (0, 10, 15, 20)]
    assert cpu["published"].loc["CIFAR-10, multi-step, 20 % redrawn"] == pytest.approx(84.85 - 72.30)
    assert cpu["published"].loc["CIFAR-100, cosine, 0 % redrawn"] == pytest.approx(-0.69)
    assert cpu["liu"].dropna().to_dict() == {
        "CIFAR-10, multi-step, 20 % redrawn": pytest.approx(91.16 - 86.98),
        "CIFAR-100, multi-step, 20 % redrawn": pytest.approx(74.21 - 58.72),
    }
    elsewhere = table[table["about"] != "ELR - CE, Table 1"]
    assert elsewhere.dropna(subset=["published"])[["cell", "none"]].values.tolist() == (
        [["to ELR, the paper's shop", "not public"]] * 2
    )


def test_a_difference_is_within_a_seed_and_of_finished_runs(store):
    """Three seeds of CE; ELR's third has diverged. 10 and 14 points at the last epoch, 2 and 5 at the best ones."""
    cell = [c for c in plans.plan("table1", "cpu") if c.dataset == "cifar10" and c.noise_rate == 0.2]
    cell = {(c.loss, c.seed): c.run_id for c in cell if c.schedule == "multistep" and c.split == "all"}
    store |= {cell["ce", 0]: [0.68, 0.60], cell["ce", 1]: [0.69, 0.60], cell["ce", 2]: [0.70, 0.60]}
    store |= {cell["elr", 0]: [0.60, 0.70], cell["elr", 1]: [0.73, 0.74], cell["elr", 2]: "diverged"}
    run = findings.differences().query("seeds > 0")
    # The same runs are CE and ELR without SAM; that alone compares nothing.
    assert run[["about", "cell", "scale", "seeds"]].to_numpy().tolist() == [
        ["ELR - CE, Table 1", "CIFAR-10, multi-step, 20 % redrawn", "cpu", 2]
    ]
    t = stats.t.ppf(0.975, 1)
    measured = run[["last", "last_low", "last_high", "best", "best_low", "best_high"]].iloc[0]
    assert list(measured) == pytest.approx([12, 12 - 2 * t, 12 + 2 * t, 3.5, 3.5 - 1.5 * t, 3.5 + 1.5 * t])


def test_sam_is_told_of_a_seed_that_sgd_has_too(store):
    people = [c for c in plans.plan("human-noise", "paper") if c.loss == "elr" and c.noise == "human"]
    worst = [c for c in people if c.noise_convention == "worst" and c.split == "all" and c.schedule == "multistep"]
    for config in worst:
        if config.seed == 1 or config.sam_rho:
            store[config.run_id] = [0.8, 0.9 if config.sam_rho else 0.85]
    (row,) = findings.differences().query("seeds > 0").itertuples()
    assert (row.about, row.cell, row.scale, row.seeds) == ("SAM - SGD", "to ELR, worst, 40 % wrong", "paper", 1)
    assert row.last == pytest.approx(5)
    assert pd.isna(row.last_low)


def test_differences_are_within_a_seed():
    assert findings.table1(rows(CE, ELR)) == (
        "ELR minus cross-entropy, points of test accuracy. CIFAR-10, multi-step: +10.0 (+10.0 to +10.0) at 20 % noise"
    )
    alone = rows({**CE, "seeds": (0,)}, {**ELR, "seeds": (1,)})
    assert findings.table1(alone) == findings.table1(rows(CE)) == ""


def test_cells_are_kept_apart():
    text = findings.table1(rows(CE, ELR, {**CE, "noise_rate": 0.1, "seeds": (0,)},
                                {**ELR, "noise_rate": 0.1, "test": 61, "seeds": (0,)}))  # fmt: skip
    assert "+1.0 (1 seed) at 10 %, +10.0 (+10.0 to +10.0) at 20 % noise" in text


def test_early_learning_needs_both_losses():
    other = {**ELR, "noise_rate": 0.4, "test": 90}
    assert findings.early_learning(
        rows({**CE, "seeds": (0,)}, {**ELR, "seeds": (0,), "batches_wrong_memorized": 0.1}, other)
    ) == (
        "CIFAR-10 with 20 % of the labels redrawn: cross-entropy ends with 40.0 % (1 seed) of the wrong labels "
        "memorized and 60.0 % (1 seed) test accuracy; ELR ends with 10.0 % (1 seed) of the wrong labels memorized and "
        "70.0 % (1 seed) test accuracy"
    )
    assert findings.early_learning(rows(CE)) == ""


def test_sam_beside_the_sgd_that_costs_as_much():
    sharp = {**ELR, "sam_rho": 0.05, "test": 73, "best": 71, "seeds": (0,), "batches_wrong_memorized": 0.2}
    assert findings.sam(rows(ELR, sharp)) == (
        "Points of test accuracy that SAM adds, all else equal: at the last epoch +3.0 (1 seed) to ELR, where the "
        "paper has 14.6; at the best epochs +1.0 (1 seed) to ELR. It costs twice as much; SGD for twice the epochs, "
        "its fair rival, is not run yet. Wrong labels memorized, in points: -20.0 (1 seed) with ELR"
    )
    longer = {**ELR, "epochs": 60, "test": 72}
    assert "+3.0 (1 seed) to ELR (twice the epochs with SGD: +2.0 (+2.0 to +2.0)), where" in (
        findings.sam(rows(ELR, sharp, longer))
    )
    assert findings.sam(rows(ELR, longer)) == ""


def test_peoples_labels_by_level():
    people = dict(noise="human", noise_rate=0.4021)
    table = rows({**CE, **people}, {**ELR, **people}, {**ELR, **people, "sam_rho": 0.05, "test": 99})
    text = findings.human_labels(table)
    assert text == (
        "On people's labels, worst (40 % wrong), ELR ends +10.0 (+10.0 to +10.0) points of test accuracy above "
        "cross-entropy"
    )
    redrawn = {**ELR, "noise_rate": 0.4021}
    both = rows({**CE, **people}, {**ELR, **people}, redrawn, {**CE, "noise_rate": 0.4021, "test": 55, "best": 53})
    assert findings.human_labels(both) == (
        f"{text}. On people's labels rather than as many redrawn ones cross-entropy ends +5.0 (+5.0 to +5.0) points "
        "higher, at the best epochs +7.0 (+7.0 to +7.0), and ELR +0.0 (+0.0 to +0.0)"
    )
    third = [{**CE, **people}, {**ELR, **people, "test": 68}, redrawn, {**CE, "noise_rate": 0.4021, "test": 55}]
    uneven = pd.concat([both, rows(*({**arm, "seeds": (2,)} for arm in third))])
    # 0, 0 and -2: t of three
    assert findings.human_labels(uneven).endswith("and ELR -0.7 (-3.5 to +2.2): no clear difference")


def test_an_empty_store_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path / "runs"))
    said = findings.sentences()
    assert [text for _, text in said] == ["not run yet"] * len(said)
    page = findings.as_html(said, {name: f"<{name}>" for name, _ in said}, "../notebooks/")
    assert page.count("<li>") == page.count('<a href="../notebooks/') == len(said)
    assert "&lt;sam&gt;" in page


def test_the_store_speaks_of_its_largest_scale(monkeypatch):
    monkeypatch.setenv("ELRKIT_RESULTS", str(Path(__file__).parents[1] / "results" / "runs"))
    said = dict(findings.sentences())
    table = records.table(records.read_all())
    scale = "paper" if (table["scale"] == "paper").any() else "cpu"
    assert said["early_learning"].endswith(f"({scale} scale)")
    for loss in ("cross-entropy", "ELR"):
        assert f"{loss} ends with" in said["early_learning"]


def test_related_losses_against_cross_entropy_under_one_recipe():
    """Symmetric CE under its authors' recipe does not count; NCE + RCE says that it is not run."""
    sce = {"loss": "sce", "test": 68, "best": 75, "seeds": (0,)}
    authors = {**sce, "test": 90, "weight_decay": 1e-4}
    elsewhere = [{**arm, "noise_rate": 0.4} for arm in (CE, ELR)]
    assert findings.related_losses(rows(CE, ELR, authors, *elsewhere)) == ""
    assert findings.related_losses(rows({**CE, "best": 61}, ELR, sce, authors, *elsewhere)) == (
        "Points of test accuracy above cross-entropy at the last epoch, CIFAR-10, the paper's recipe for every loss: "
        "at 20 % noise ELR +10.0 (+10.0 to +10.0), symmetric cross-entropy +8.0 (1 seed), and at the best epochs +9.0 "
        "(+9.0 to +9.0), +14.0 (1 seed); NCE + RCE not run yet"
    )


@pytest.mark.parametrize("sentence", [findings.early_learning, findings.table1, findings.sam, findings.related_losses])
def test_other_runs_alone_say_nothing(sentence):
    other = rows({**ELR, "noise_rate": 0.33})
    assert sentence(other) == findings.human_labels(other) == ""


def test_looks_finder_by_finder():
    finders = [
        ("elr", "balanced", "suspect", 250),
        ("out_of_fold", "cleanlab", "cleanlab", 300),
        ("both", "balanced", "suspect", 200),
        ("chance", "none", "all", 500),
    ]
    rows = pd.DataFrame(
        [
            {"level": level, "seed": seed, "images": 1000, "wrong": wrong, "source": source, "score": score,
             "list": name, "effort_half": count, "effort_half_random": 500}
            for level, wrong, seeds in (("worst", 400, (0, 1)), ("random1", 170, (0,))) for seed in seeds
            for source, score, name, count in finders
        ]
    )  # fmt: skip
    head = (
        "Of 1,000 labels 17 / 40 % are wrong; to find half of these takes so much of the looking that any order takes"
    )
    tail = "ELR's score was chosen on these studies, and each of cleanlab's five nets trained for a quarter of ELR's "
    tail += "epochs"
    assert findings.looks(rows[rows["seed"] == 0]) == (
        f"{head}, 1 seed: ELR targets 50 / 50 %; cleanlab, out-of-fold CE 60 / 60 %. {tail}"
    )
    assert findings.looks(rows) == (
        f"{head}: ELR targets 50 (1 seed) / 50 (50 to 50) %; cleanlab, out-of-fold CE 60 (1 seed) / 60 (60 to 60) %. "
        f"{tail}"
    )


def test_the_list_on_products():
    lists = pd.DataFrame(
        [{"shop": "clothing", "run": run, "seeds": 1, "products": 4527, "misfiled": "15.1", "first 1 %": "77.8",
          "first 10 %": "58.9", "looks": "28.4"} for run in ("ELR", "ELR + SAM")]
    )  # fmt: skip
    assert findings.on_products(lists) == (
        "On 4,527 photos of clothes, 15.1 % misfiled among the siblings of their subcategory: 77.8 % of the first "
        "1 % of the list are misfiled, 58.9 % of the first 10 %; half are found with 28.4 % of the looking in any "
        "order (1 seed)"
    )
    assert findings.on_products(lists[lists["run"] == "CE"]) == ""


def test_what_is_memorized_when_the_learning_rate_falls():
    shares = [0.02, 0.04, 0.30, 0.50, 0.52, 0.54, 0.56]
    curves = pd.DataFrame(
        [
            {"loss": loss, "sam_rho": rho, "seed": seed, "epoch": epoch, "milestones": [2, 4],
             "run_id": f"{loss}{rho}{seed}", "test_top1": 0.9 if epoch == 3 + seed * (loss == "elr") else 0.5,
             "batches_wrong_memorized": share * (1 if loss == "ce" else 0.5) + 0.02 * seed}
            for loss, rho in (("ce", 0.0), ("elr", 0.0), ("elr", 0.05)) for seed in (0, 1)
            for epoch, share in enumerate(shares, 1)
        ]
    )  # fmt: skip
    assert findings.around_the_falls(curves) == [
        "cross-entropy has memorized 5 % before the learning rate falls after epoch 2, 51 % before the learning rate "
        "falls after epoch 4 and 57 % in the end (+26.0 points over the last four epochs); its test accuracy is "
        "highest after epoch 3 (2 runs)",
        "ELR has memorized 3 % before the learning rate falls after epoch 2, 26 % before the learning rate falls after "
        "epoch 4 and 29 % in the end (+13.0 points over the last four epochs); its test accuracy is highest after "
        "epoch 3 to 4 (2 runs)",
    ]


def test_the_ladder_in_words():
    """Rungs without a record are passed over, single changes left out; where all have one seed, that is said once."""
    nan = float("nan")

    def rung(arm, values, change, seeds, *ends, loss="ce", single=False):
        low, high = ends or (nan, nan)
        return {"noise_rate": 0.2, "loss": loss, "arm": arm, "single": single, "values": dict(enumerate(values)),
                "change": change, "change_low": low, "change_high": high, "change_seeds": seeds}  # fmt: skip

    lone = [
        rung("as described", [76.7], nan, 0), rung("drawn once", [62.0], -14.7, 1), rung("float16", [], nan, 0),
        rung("only: held out", [70.0], -6.7, 1, single=True),
        rung("only: counted on noisy test labels", [50.0], -8.0, 1, single=True),
    ]  # fmt: skip
    assert findings.ladder(pd.DataFrame(lone)) == (
        "Points of test accuracy, 1 seed. At 20 % noise the rung 'drawn once' moves: -14.70 with cross-entropy. Beside "
        "the ladder 'only: held out' moves most: -6.70 with cross-entropy"
    )
    more = [
        rung("as described", [80.0, 81.0], nan, 0, loss="elr"),
        rung("drawn once", [78.5, 79.5], -1.5, 2, -2.0, -1.0, loss="elr"), rung("float16", [], nan, 0, loss="elr"),
    ]  # fmt: skip
    table = pd.DataFrame(lone + more)
    assert findings.ladder(table) == (
        "Points of test accuracy. At 20 % noise the rung 'drawn once' moves: -14.70 (1 seed) with "
        "cross-entropy, -1.50 (-2.00 to -1.00) with ELR. ELR minus cross-entropy goes with it from +3.30 (1 seed) to "
        "+16.50 (1 seed), where Table 1 has +12.55. Beside the ladder 'only: held out' moves most: -6.70 (1 seed) with "
        "cross-entropy"
    )
    further = pd.concat([table, pd.DataFrame([rung("float16 again", [61.0], -1.0, 1)])])
    said = findings.ladder(further)
    assert "the rung that moves most is 'drawn once': -14.70" in said
    assert "with ELR; no other moves more than 1.00 (1 seed). ELR minus" in said
    assert findings.ladder(table.assign(change_seeds=0)) == ""


def test_the_sam_ladder_in_words():
    nan = float("nan")

    def rung(arm, seeds, change=nan, total=nan, single=False, ends=(nan, nan)):
        row = {"arm": arm, "single": single, "seeds": seeds, "change": change, "total": total, "change_seeds": seeds}
        row |= {"change_low": ends[0], "change_high": ends[1], "values": {seed: 70.0 + seed for seed in range(seeds)}}
        return row | {"total_low": nan, "total_high": nan, "total_seeds": seeds}

    rows = [rung("SGD", 3), rung("no weight decay", 1, -0.5, -0.5), rung("SAM", 1, 1.25, 0.75)]
    rows += [rung("SAM, targets moved twice", 1, -4.0, -3.0, single=True)]
    text = (
        "Between ELR with SGD as described and with SAM as the code ran it lie +0.75 points, 1 seed: -0.50 no weight "
        "decay, +1.25 SAM"
    )
    assert findings.sam_ladder(pd.DataFrame(rows[:3])) == text
    assert findings.sam_ladder(pd.DataFrame(rows)) == (
        f"{text}. Of SAM as described, moving ELR's targets twice a step moves -4.00"
    )
    beside = rung("no weight decay, cosine restarts, SGD", 1, -1.0, -1.5, single=True) | {"values": {0: 72.5}}
    assert findings.sam_ladder(pd.DataFrame([*rows[:3], beside])) == (
        f"{text}. With all else as that code has it, SAM less SGD is -2.50, where the paper has 14.6 on its shop"
    )
    two = pd.DataFrame([*rows[:2], rung("SAM", 2, 1.0, 0.5, ends=(0.0, 2.0))])
    assert findings.sam_ladder(two).endswith("+0.50 points: -0.50 (1 seed) no weight decay, +1.00 (+0.00 to +2.00) SAM")
    assert findings.sam_ladder(pd.DataFrame([*rows[:2], rung("SAM", 0)])) == ""


def test_what_a_label_kept_from_memory_goes_with():
    found = pd.DataFrame({"setting": list("abcd"), "kept": [0.0, 5.0, 10.0, 20.0], "gain": [1.0, 6.0, 11.0, 21.0]})
    found = found.assign(scale="cpu", dataset="cifar10", labels="symmetric", wrong=18.0, best_gain=found["gain"] / 2)
    found = found.assign(augmentation="none", precision="bfloat16", over_best=[9.0, -1.0, 2.0, 4.0])
    found.loc[0, ["labels", "wrong"]] = "none", 0.0
    found.loc[1, ["augmentation", "best_gain"]] = "frozen", 7.0
    text = findings.memory(found)
    assert "gain in test accuracy rises by 1.00 (1.00 to 1.00) points with each percent of all labels that it" in text
    best = stats.linregress([0, 5, 10, 20], [0.5, 7, 5.5, 10.5])
    assert f"chosen on the test images, by {best.slope:.2f} (" in text
    assert text.startswith("Across 4 settings of small nets, 4 of them a single seed, ELR's gain")
    assert (
        "Where labels are wrong, ELR ends above cross-entropy stopped at its best epoch in 2 of 3 settings, by +2.0 "
        "points in the middle. Where no label is wrong ELR's last epoch differs by +1.0 to +1.0"
    ) in text
    twice = pd.concat([found, found[1:2]])
    assert ", 3 of them a single seed," in findings.memory(twice)
    assert "small nets and ResNet-34" in findings.memory(found.assign(scale=["cpu", "cpu", "cpu", "paper"]))
    assert findings.memory(found[:2]) == "not run yet"
    assert findings.memory_details(found[:2]) == []
    alone = stats.linregress([0, 18, 18, 18], [1, 6, 11, 21]).rvalue ** 2
    assert findings.memory_details(found) == [
        f"R² is 1.00 at the last epoch and {best.rvalue**2:.2f} at the best ones; a line in the share of wrong labels "
        f"alone has {alone:.2f} at the last epoch",
        findings.memory_details(found)[1],
        "ELR's last epoch less cross-entropy's best: -1.0 to +4.0 points",
    ]
    assert findings.memory_details(found)[1].startswith(
        "among the 3 settings of CIFAR-10 with about 18 % wrong labels the slopes are 1.00 (1.00 to 1.00) and "
    )
