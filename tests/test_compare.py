"""The arms of a plan against one another: every run has its arm, differences are paired, verdicts at the tolerance."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from elrkit import noise
from elrkit.config import cifar10_recipe
from elrkit.report import compare, paper, plans

PUBLISHED = paper.load_published()


def record(config, top1, noisy=None, status="finished", skipped=None):
    """A record with what `compare` reads, two epochs long unless it diverged."""
    curves = {"epoch": [1, 2], "test_top1": [0.5, top1], "test_top1_noisy": [0.5, top1 if noisy is None else noisy]}
    if skipped is not None:
        curves["skipped_steps"] = skipped
    data = {"train_images": config.train_size or 50_000, "test_images": 10_000, "held_out_images": 0, "classes": 10}
    return {
        "run_id": config.run_id, "status": status, "config": config.model_dump(mode="json"), "data": data,
        "curves": curves if status == "finished" else {"epoch": [], "test_top1": []}, "timing": {"seconds": 10.0},
    }  # fmt: skip


def cell(rows, rate, loss, arm):
    found = rows[(rows["noise_rate"] == rate) & (rows["loss"] == loss) & (rows["arm"] == arm)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("scale", plans.SCALES)
@pytest.mark.parametrize(
    ("plan", "arms"),
    [("forensics", compare.LADDER + compare.SAM_LADDER), ("sam", compare.SAM_ARMS)],
)
def test_every_run_of_the_plan_has_an_arm_and_every_arm_a_run(plan, arms, scale):
    configs = plans.plan(plan, scale)
    plain = {}
    found = set()
    for config in configs:
        first = plain.setdefault((config.noise_rate, config.loss, config.seed), config)
        found.add(compare.changed(config, first))
    assert found == {arm.changes for arm in arms}
    for arms in (compare.LADDER, compare.SAM_LADDER, compare.SAM_ARMS):
        names = [arm.name for arm in arms]
        assert len(set(names)) == len(names)
        assert all(arm.before in names[:place] for place, arm in enumerate(arms) if place)


def test_a_rung_is_one_change_from_the_rung_before():
    for arms in (compare.LADDER, compare.SAM_LADDER):
        by_name = {arm.name: arm for arm in arms}
        for arm in arms[1:]:
            before = by_name[arm.before]
            steps = len(arm.changes ^ before.changes) + (arm.measure != before.measure)
            double = "sam_double_update_of" in " ".join(arm.changes)  # says which part of the one change
            assert steps == 1 + double


def test_what_is_memorized_in_images_and_in_their_crops():
    configs = plans.plan("forensics", "cpu", seeds=[0, 1])
    described, frozen = (
        [c for c in configs if c.noise_rate and c.loss == "ce" and c.augmentation == kind and c.precision == "bfloat16"
         and c.split == "all" and c.noise_convention == "all"]
        for kind in ("fresh", "frozen")
    )  # fmt: skip
    records = []
    for config, whole, cropped in (
        (described[0], 0.05, 0.06), (described[1], 0.07, 0.08), (frozen[0], 0.1, 1.0),
        (next(c for c in configs if not c.noise_rate), None, None),
    ):  # fmt: skip
        made = record(config, 0.5)
        made["curves"] |= {"wrong_memorized": [0.0, whole], "batches_wrong_memorized": [0.0, cropped]}
        records.append(made)
    found = compare.memorized(configs, records)
    half = stats.t.ppf(0.975, 1)  # two seeds, 2 points apart: deviation sqrt(2), over sqrt(2)
    assert found.to_dict("list") == {
        "noise": ["20 %"] * 2, "loss": ["CE"] * 2, "run": ["as described", "crops and flips drawn once"],
        "the images as they are": [f"6.00 ({6 - half:.2f} to {6 + half:.2f})", "10.00"],
        "as cropped": [f"7.00 ({7 - half:.2f} to {7 + half:.2f})", "100.00"], "seeds": [2, 1],
    }  # fmt: skip
    assert compare.memorized(configs, []).empty


def test_differences_are_taken_within_a_seed():
    configs = plans.plan("forensics", "paper", seeds=[0, 1, 2], noise_rates=[0.2])
    ce = [c for c in configs if c.loss == "ce"]
    described = [c for c in ce if c.augmentation == "fresh" and c.split == "all" and c.noise_convention == "all"]
    frozen = [c for c in ce if c.augmentation == "frozen" and c.precision == "bfloat16"]
    a, b = np.array([0.80, 0.84, 0.81]), np.array([0.71, 0.76, 0.70])
    made = [record(c, x) for c, x in zip(described + frozen, [*a, *b], strict=True)]
    made.append(record(frozen[0].with_(precision="float16_fresh_scaler"), 0.69, skipped=[2, 1]))
    made[0]["curves"]["test_top1_noisy"][-1] = 0.71  # 9 points below the 80 % on clean labels
    rows = compare.compare(configs, made, compare.LADDER)
    found = cell(rows, 0.2, "ce", "crops and flips drawn once")
    interval = stats.ttest_rel(100 * b, 100 * a).confidence_interval()
    assert found["change"] == pytest.approx(100 * (b - a).mean())
    assert (found["change_low"], found["change_high"]) == pytest.approx((interval.low, interval.high))
    assert (found["mean"], found["seeds"], found["planned"]) == (pytest.approx(100 * b.mean()), 3, 3)
    scaler = cell(rows, 0.2, "ce", "float16, new loss scaler each batch")
    assert (scaler["change"], scaler["total"]) == (pytest.approx(-2), pytest.approx(-11))  # of seed 0 alone
    assert np.isnan(scaler["change_low"])
    assert (scaler["change_seeds"], scaler["skipped"]) == (1, 3)
    assert cell(rows, 0.2, "elr", "as described")["seeds"] == 0
    text = compare.as_text(rows).set_index(["loss", "run"])
    assert text.loc[("ELR", "as described"), "test accuracy, %"] == "not run yet"
    noisy = cell(rows, 0.2, "ce", "only: counted on noisy test labels")
    assert (noisy["single"], noisy["change"]) == (True, pytest.approx(-3))  # 9, 0 and 0 points
    found = compare.findings(rows).set_index("loss")
    step = found["largest step, points"]
    assert step["CE"] == "crops and flips drawn once: -9.33 (3 seeds)"
    assert step["ELR"] == "not run yet"


def test_what_elr_adds_on_each_rung_is_taken_within_a_seed():
    configs = plans.plan("forensics", "cpu", seeds=[0, 1, 2])
    plain = [
        c for c in configs if c.noise_rate and c.split == "all" and c.noise_convention == "all" and c.lr == 0.05
        and c.weight_decay and not c.sam_rho and c.beta != 0.3 and c.precision == "bfloat16"
        and c.schedule == "multistep"
    ]  # fmt: skip

    def made(loss, augmentation, values):
        found = sorted((c for c in plain if (c.loss, c.augmentation) == (loss, augmentation)), key=lambda c: c.seed)
        assert len(found) == 3
        return [record(c, x) for c, x in zip(found, values, strict=False)]

    records = made("ce", "fresh", [0.6, 0.7, 0.8]) + made("elr", "fresh", [0.61, 0.73])
    records += made("ce", "frozen", [0.5]) + made("elr", "frozen", [0.55])
    rows = compare.elr_gain(compare.compare(configs, records, compare.LADDER), PUBLISHED)
    assert list(rows["arm"]) == ["as described", "crops and flips drawn once", "only: counted on noisy test labels"]
    half = stats.t.ppf(0.975, 1)  # gains of 1 and 3 points: deviation sqrt(2), over sqrt(2)
    text = compare.elr_gain_text(rows).iloc[:2]
    assert text.to_dict("list") == {
        "noise": ["20 %"] * 2, "run": ["as described", "crops and flips drawn once"], "CE, %": ["65.00", "50.00"],
        "ELR, %": ["67.00", "55.00"], "ELR - CE": [f"+2.00 ({2 - half:+.2f} to {2 + half:+.2f})", "+5.00"],
        "seeds": [2, 1], "ELR - CE in Table 1": [f"{84.85 - 72.30:+.2f}"] * 2,
    }  # fmt: skip
    assert compare.elr_gain(compare.compare(configs, [], compare.LADDER)).empty


def test_no_label_is_wrong_so_no_arm_on_noisy_labels():
    rows = compare.compare(plans.plan("forensics", "paper"), [], compare.LADDER)
    assert set(rows.loc[rows["noise_rate"] == 0, "arm"]) == {
        "as described", "crops and flips drawn once", "float16, new loss scaler each batch", "only: a tenth held out",
        "drawn once, ELR with β 0.3",
    }  # fmt: skip
    assert not rows["seeds"].any()
    assert rows["mean"].isna().all()


def test_a_diverged_run_counts_as_no_seed_and_is_named():
    configs = plans.plan("forensics", "cpu")
    rows = compare.compare(configs, [record(configs[0], 0, status="diverged")], compare.LADDER)
    found = cell(rows, 0.2, "ce", "as described")
    assert (found["seeds"], found["diverged"]) == (0, 1)
    assert compare.as_text(rows)["test accuracy, %"].iloc[0] == "1 diverged"


@pytest.mark.parametrize(("accuracy", "lands"), [(0.7230, True), (0.7280, True), (0.7281, False), (0.7179, False)])
def test_three_seeds_alike_land_within_half_a_point_and_fewer_do_not(accuracy, lands):
    configs = plans.plan("forensics", "paper")
    same = [configs[0].with_(seed=seed, noise_seed=seed) for seed in range(3)]
    assert {c.run_id for c in same} <= {c.run_id for c in configs}
    for seeds, expected in ((3, (0.5, lands)), (2, None)):
        rows = compare.compare(configs, [record(config, accuracy) for config in same[:seeds]], compare.LADDER)
        rows = compare.beside_published(rows, PUBLISHED)
        found = cell(rows, 0.2, "ce", "as described")
        assert (found["published"], found["seeds"]) == (72.30, seeds)
        assert found["lands"] is None if expected is None else (found["tolerance"], found["lands"]) == expected
        assert cell(rows, 0.2, "elr", "as described")["lands"] is None


@pytest.mark.parametrize(
    ("accuracies", "verdict", "lands"),
    [((0.70, 0.73, 0.75), "reproduced", True), ((0.72, 0.74, 0.75), "not run yet", None),
     ((0.60, 0.61, 0.62), "not reproduced", False)],
)  # fmt: skip
def test_the_verdict_is_the_ledgers(accuracies, verdict, lands):
    """Seeds that scatter, near a single published run, too far from it to say, and off it."""
    configs = plans.plan("forensics", "paper", seeds=[0, 1, 2], noise_rates=[0.2])
    plain = [c for c in configs if c.loss == "ce" and c.augmentation == "fresh" and c.split == "all"]
    made = [record(c, x) for c, x in zip([c for c in plain if c.noise_convention == "all"], accuracies, strict=True)]
    rows = compare.beside_published(compare.compare(configs, made, compare.LADDER), PUBLISHED)
    found = cell(rows, 0.2, "ce", "as described")
    table = pd.DataFrame([{**m["config"], "run_id": m["run_id"], "status": "finished", "scale": "paper"} for m in made])
    number = PUBLISHED[PUBLISHED["id"] == "galatolo2021-table1-cifar10-20-multistep-ce"]
    decided = paper.decide(paper.load_claims().iloc[:0], number, table.assign(test_top1=accuracies)).iloc[0]
    tolerance = 4.302653 * 100 * np.std(accuracies, ddof=1) * np.sqrt(4 / 3)  # t(0.975, 2)
    assert found["tolerance"] == pytest.approx(decided["tolerance"]) == pytest.approx(tolerance)
    assert (decided["verdict"], found["lands"]) == (verdict, lands)
    shorter = plans.plan("forensics", "paper", seeds=[0, 1, 2], noise_rates=[0.2], epochs=60)
    rows = compare.compare(shorter, [record(c, 0.723) for c in shorter], compare.LADDER)
    assert compare.beside_published(rows, PUBLISHED)["published"].isna().all()


def test_another_scale_has_no_published_cell():
    configs = plans.plan("forensics", "cpu")
    rows = compare.beside_published(compare.compare(configs, [record(configs[0], 0.723)], compare.LADDER), PUBLISHED)
    assert rows["published"].isna().all()
    assert all(lands is None for lands in rows["lands"])
    with pytest.raises(ValueError, match="runs of the scales cpu, paper"):
        compare.compare(configs + plans.plan("forensics", "paper"), [], compare.LADDER)


@pytest.mark.parametrize("convention", ["all", "others"])
def test_what_noisy_test_labels_cost_against_a_simulation(convention):
    rng = np.random.default_rng(0)
    truth = rng.integers(10, size=200_000)
    guess = np.where(rng.random(len(truth)) < 0.7, truth, (truth + rng.integers(1, 10, size=len(truth))) % 10)
    given, _ = noise.flip_labels(truth, kind="symmetric", rate=0.2, num_classes=10, convention=convention, seed=1)
    config = cifar10_recipe("ce", 0.2, noise_convention=convention)
    made = [record(config, float((guess == truth).mean()), noisy=float((guess == given).mean()))]
    cost = compare.noisy_label_cost([config], made).iloc[0]
    assert cost["wrong"] == pytest.approx({"all": 18, "others": 20}[convention])
    assert cost["computed"] == pytest.approx(cost["measured"], abs=0.3)  # three deviations of the simulation
    assert compare.noisy_label_cost([config], []).empty


def test_sam_costs_what_sgd_costs_at_twice_the_epochs():
    configs = plans.plan("sam", "cpu", seeds=[0, 1])
    accuracy = {"SGD": 0.70, "SGD, twice the epochs": 0.72, "SAM": 0.75}
    names = {frozenset(): "SGD", frozenset({"epochs"}): "SGD, twice the epochs", frozenset({"sam_rho"}): "SAM"}
    made = []
    for place in range(0, len(configs), 3):
        for config in configs[place : place + 3]:
            one = record(config, accuracy[names[compare.changed(config, configs[place])]] + 0.01 * config.seed)
            one["curves"] = {
                name: column[:1] * (config.epochs - 1) + column[1:] for name, column in one["curves"].items()
            }
            made.append(one)
    rows = compare.compare(configs, made, compare.SAM_ARMS)
    sgd, longer, sharp = (cell(rows, 0.2, "elr", name) for name in accuracy)
    assert longer["tflop"] == pytest.approx(2 * sgd["tflop"]) == pytest.approx(sharp["tflop"])
    assert (sharp["total"], sharp["change"]) == (pytest.approx(5), pytest.approx(3))
    gain = compare.sam_gain(rows).set_index("loss").loc["ELR"]
    assert gain["SAM - SGD"] == "+5.00 (+5.00 to +5.00)"
    assert gain["SAM - SGD, twice the epochs"] == "+3.00 (+3.00 to +3.00)"
    text = compare.cost_text(rows)
    assert text["times SGD's"].tolist() == ["1.00", "2.00", "2.00"] * 2
    assert "times SGD's " not in text  # the records do not say that these runs had their device alone
    for one in made:
        one["timing"]["jobs"] = 1
    text = compare.cost_text(compare.compare(configs, made, compare.SAM_ARMS))
    assert set(text["times SGD's "]) == {"1.00"}
    alone = compare.sam_gain(compare.compare(configs, made[:3], compare.SAM_ARMS))
    assert alone["SAM - SGD"].tolist() == ["+5.00", "not run yet"]
    without = [one for one in made if one["config"]["sam_rho"]]  # SGD is not run, so that nothing is a multiple of it
    assert set(compare.cost_text(compare.compare(configs, without, compare.SAM_ARMS))["times SGD's"]) == {""}


def ended(config, top1, memorized, wrong):
    """A record of two epochs, of which `kept_from_memory` reads the last."""
    made = record(config, top1)
    made["curves"] |= {"batches_wrong_memorized": [0.0, memorized], "wrong_memorized": [0.0, 0.0]}
    made["curves"]["wrong_correct"] = [0.0, 0.0]
    made["data"]["realized_noise_rate"] = wrong
    return made | {"device": {"name": "cpu"}, "execution": {"threads": 1}}


def test_what_elr_kept_from_memory_beside_what_it_gained():
    def run(loss, **changes):
        return plans.at_cpu_scale(cifar10_recipe(loss, 0.2, seed=changes.pop("seed", 0)).with_(**changes))

    def shop(loss, seed):
        return run(loss, dataset=f"shop/made-{seed}.npz", noise="none", noise_rate=0.0, seed=seed)

    records = [
        ended(run("ce"), 0.60, 0.9, 0.18), ended(run("elr"), 0.75, 0.1, 0.18),
        ended(run("elr", beta=0.3), 0.70, 0.4, 0.18),  # another setting, beside the same CE
        ended(run("elr", seed=1), 0.76, 0.1, 0.18),  # no CE of its seed
        ended(run("ce", batch_size=64), 0.5, 0.9, 0.18),  # no ELR of its batch size
        ended(run("ce", noise="none", noise_rate=0.0), 0.80, None, 0.0),
        ended(run("elr", noise="none", noise_rate=0.0), 0.82, None, 0.0),
        *(ended(shop("ce", seed), 0.5, 1.0, 0.15) for seed in (0, 1)),
        *(ended(shop("elr", seed), 0.6 + seed / 10, 0.4, 0.15) for seed in (0, 1)),
    ]  # fmt: skip
    diverged = record(run("ce", seed=1), 0.5, status="diverged")
    pairs = compare.kept_from_memory(records.table([*records, diverged | {"device": {}, "execution": {}}]))
    assert pairs["kept"].tolist() == pytest.approx([18 * 0.8, 18 * 0.5, 0.0, 15 * 0.6, 15 * 0.6])
    assert pairs["gain"].tolist() == pytest.approx([15, 10, 2, 10, 20])
    assert pairs["over_best"].tolist() == pairs["best_gain"].tolist()  # of runs whose best epoch is their last
    assert pairs["labels"].tolist() == ["symmetric", "symmetric", "none", "misfiled", "misfiled"]
    assert pairs["run_ids"][0] == (run("ce").run_id, run("elr").run_id)
    text = compare.kept_text(pairs)
    assert text["kept, %"].tolist() == pytest.approx([0, 9, 9, 14.4])
    products = text[text["labels"] == "misfiled"].iloc[0]
    half = stats.t.ppf(0.975, 1) * 5  # gains of 10 and 20 points: deviation 5 sqrt(2), over sqrt(2)
    assert products["ELR - CE, points"] == f"+15.00 ({15 - half:+.2f} to {15 + half:+.2f})"
    assert products["training"] == "no augmentation, multi-step"
    assert compare.kept_text(pairs[:0]).empty
    # The two shops are one setting with two seeds.
    means = pairs.groupby("setting", sort=False)[["kept", "gain"]].mean().to_numpy()
    assert means.tolist() == [pytest.approx(pair) for pair in ([14.4, 15], [9, 10], [0, 2], [9, 15])]
    # Two catalogues of one's own whose names end in a number are two settings.
    own = [ended(run(loss, dataset=f"shop-{n}.npz"), 0.5, 0.5, 0.1) for loss in ("ce", "elr") for n in (2, 3)]
    assert compare.kept_from_memory(records.table(own))["setting"].nunique() == 2
    sharp = [
        ended(run("elr", sam_rho=0.05), 0.78, 0.1, 0.18), ended(run("elr", sam_rho=0.05, seed=1), 0.75, 0.1, 0.18),
        ended(run("elr", sam_rho=0.05, beta=0.3), 0.71, 0.4, 0.18), ended(run("ce", sam_rho=0.05), 0.9, 0.9, 0.18),
    ]  # fmt: skip
    # What the code did is no SAM as described.
    sharp += [ended(run("elr", sam_rho=0.05, sam_double_update=True), 0.3, 0.1, 0.18)]
    # Seed 0 gains 3 points, seed 1 loses one; with beta 0.3 one is gained.
    over = compare.sam_over_all(records.table([*records, *sharp]))
    assert over["gain"].tolist() == pytest.approx([1, 1])
    assert sorted(over["seeds"]) == [1, 2]
    assert compare.sam_over_all(records.table(records)).empty
    line = compare.gain_per_label(pairs)
    # The normal equations, and the slope's deviation from what is left over two degrees of freedom.
    design = np.column_stack([np.ones(4), means[:, 0]])
    inverse = np.linalg.inv(design.T @ design)
    start, slope = inverse @ design.T @ means[:, 1]
    left = means[:, 1] - design @ [start, slope]
    half = 4.302653 * np.sqrt(left @ left / 2 * inverse[1, 1])
    assert line[:3] == pytest.approx((slope, slope - half, slope + half))
    assert line.r2 == pytest.approx(1 - left @ left / ((means[:, 1] - means[:, 1].mean()) ** 2).sum())
    assert (line.settings, line.single) == (4, 3)
    doubled = pairs.assign(best_gain=2 * pairs["gain"])
    assert compare.gain_per_label(doubled, "best_gain").slope == pytest.approx(2 * line.slope)
    assert compare.gain_per_label(pairs[pairs["seed"] == 1]) is None  # two settings are no line
    assert compare.gain_per_label(compare.kept_from_memory(records.table([]))) is None
