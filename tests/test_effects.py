"""Differences are seed by seed with all else equal, intervals are scipy's, marks follow them; claims are well
formed."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from elrkit import records
from elrkit.config import HUMAN_NOISE_RATES, RunConfig, cifar10_recipe
from elrkit.report import effects, figures, plans, published, tables
from elrkit.report.effects import Interval, interval, mark

CE, ELR = {"loss": "ce"}, {"loss": "elr"}


def runs(*rows):
    """A table of finished runs: (config, measures) each."""
    made = [
        config.model_dump(mode="json")
        | {"run_id": config.run_id, "status": "finished", "train_images": 5000}
        | measures
        for config, measures in rows
    ]
    return pd.DataFrame(made)


def described(loss, seed, top1, **changes):
    config = plans.at_scale([cifar10_recipe(loss, 0.2, "multistep", seed)], "cpu")[0].with_(**changes)
    memorized = {"ce": 0.9, "elr": 0.1}[loss]
    measures = {"test_top1": top1, "test_top1_best": top1 + 0.01, "test_top1_selected": math.nan}
    return config, measures | {
        "batches_wrong_memorized": memorized, "batches_wrong_correct": 0.1, "batches_wrong_correct_best": 0.6,
    }  # fmt: skip


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [0.3, 0.3, 0.3], [5, -2, 1, 7.5]])
def test_interval_is_scipys_t_test(values):
    found = interval([*values, math.nan, None])
    low, high = (
        stats.ttest_1samp(values, 0).confidence_interval(0.95) if len(set(values)) > 1 else (values[0], values[0])
    )
    assert found == pytest.approx((sum(values) / len(values), low, high, len(values)))


def test_one_value_has_no_interval_and_none_no_mean():
    assert interval([3.0])[0] == 3.0
    assert math.isnan(interval([3.0]).low)
    assert math.isnan(interval([]).mean)
    assert interval([]).seeds == 0


def test_the_interval_of_a_share_ends_where_shares_do():
    shares = [0.999, 1.0, 0.99]
    whole = interval([100 * share for share in shares])
    assert whole.high > 100
    assert effects.percent(shares) == pytest.approx((whole.mean, whole.low, 100, 3))
    assert effects.percent([0.0, 0.02, None, 0.01])[:3] == pytest.approx((1, 0, interval([0, 1, 2]).high))
    assert effects.percent([0.5])[0] == 50
    assert math.isnan(effects.percent([0.5]).low)


def test_a_difference_is_taken_within_a_seed_and_with_all_else_equal():
    ce = [described("ce", seed, value) for seed, value in enumerate([0.60, 0.50, 0.70])]
    elr = [described("elr", seed, value) for seed, value in enumerate([0.65, 0.61, 0.74])]
    others = [
        described("elr", 0, 0.99, augmentation="none"),  # another way to crop
        described("elr", 1, 0.99, noise_seed=7),  # other wrong labels
        described("elr", 3, 0.99),  # a seed that CE lacks
        described("ce", 4, 0.01),
        described("elr", 0, 0.99, lr=0.25),
    ]
    table = runs(*ce, *elr, *others)
    pairs = effects.paired(table, ELR, CE, "test_top1", augmentation="fresh")
    assert dict(zip(pairs["seed"].astype(int), pairs["difference"].round(6), strict=True)) == {0: 5.0, 1: 11.0, 2: 4.0}
    expected = stats.ttest_rel([65, 61, 74], [60, 50, 70]).confidence_interval(0.95)
    found = effects.difference(table, ELR, CE, "test_top1", augmentation="fresh")
    assert found == pytest.approx((20 / 3, *expected, 3))


def test_two_measures_of_one_run_are_compared_within_it():
    table = runs(*(described("ce", seed, 0.6) for seed in range(3)))
    found = effects.difference(table, CE, CE, "batches_wrong_correct_best", measure_b="batches_wrong_correct")
    assert found[:3] == pytest.approx((50, 50, 50))


def test_runs_that_did_not_finish_do_not_count():
    table = runs(described("ce", 0, 0.6), described("elr", 0, 0.7)).assign(status=["finished", "diverged"])
    assert effects.paired(table, ELR, CE, "test_top1").empty


@pytest.mark.parametrize(
    ("low", "high", "seeds", "direction", "bound", "expected"),
    [
        (1.1, 3, 3, ">", 1, "+"), (0.9, 3, 3, ">", 1, "~"), (-3, 0.9, 3, ">", 1, "-"), (1.1, 3, 2, ">", 1, ""),
        (math.nan, math.nan, 1, ">", 0, ""), (10, 19, 3, "<", 20, "+"), (10, 21, 3, "<", 20, "~"),
        (21, 30, 5, "<", 20, "-"), (-0.5, 0.9, 3, "=", 1, "+"), (-0.5, 1.1, 3, "=", 1, "~"), (1.1, 2, 3, "=", 1, "-"),
        (-4, -1.1, 3, "=", 1, "-"),
    ],
)  # fmt: skip
def test_marks(low, high, seeds, direction, bound, expected):
    assert mark(Interval((low + high) / 2, low, high, seeds), direction, bound) == expected


@pytest.mark.parametrize(
    ("found", "form", "expected"),
    [
        (Interval(1.234, 0.5, 2.0, 3), "{:+.1f}", "+1.2 (+0.5 to +2.0)"),
        (Interval(91.2, math.nan, math.nan, 1), "{:.1f}", "91.2, one seed"),
        (Interval(math.nan, math.nan, math.nan, 0), "{:.1f}", ""),
        (Interval(-0.0000001, -0.01, 0.01, 3), "{:.1f}", "0.0 (-0.0 to 0.0)"),
    ],
)
def test_texts(found, form, expected):
    assert effects.text(found, form) == expected


# Claims ---------------------------------------------------------------------------------------------------------------

CLAIMS = effects.load_claims()


@pytest.mark.parametrize("claim", list(CLAIMS.itertuples()), ids=list(CLAIMS["id"]))
def test_a_claim_is_short_and_asks_for_what_runs_have(claim):
    assert len(claim.text.split()) <= 12
    assert claim.note.strip()
    if claim.direction:
        assert claim.fields["dataset"]
        assert math.isfinite(claim.bound)
        for arm in (claim.a, claim.b):
            allowed = {k: v for k, v in {**claim.fields, **arm}.items() if not isinstance(v, tuple) and v != "double"}
            RunConfig(**allowed)  # raises where a field or value does not exist


def test_the_table_of_claims_holds_marks_seeds_and_runs():
    rows = [described(loss, seed, base + seed / 100) for loss, base in (("ce", 0.6), ("elr", 0.7)) for seed in range(3)]
    found = effects.table(runs(*rows), CLAIMS).set_index(["claim", "cell", "setting"])
    row = found.loc["elr-cifar10", "0.2", "described"]
    assert (row["mark"], row["seeds"]) == ("+", 3)
    assert row["mean"] == pytest.approx(10)
    assert set(row["run_ids"]) == {config.run_id for config, _ in rows}
    assert found.loc["ce-memorizes", "", "described"]["mark"] == "~"
    assert found.loc["elr-memorizes-little", "", "described"]["mark"] == "+"
    assert "frozen" not in found.index.get_level_values("setting")


def test_a_sentence_fails_when_its_records_say_otherwise():
    rows = [described(loss, seed, top1) for loss, top1 in (("ce", 0.6), ("elr", 0.7)) for seed in range(3)]
    found = effects.table(runs(*rows), CLAIMS)
    assert effects.say(found, "elr-cifar10", "described", "+", "0.2") == "+10.0 (+10.0 to +10.0)"
    for claim, setting, expected in (("elr-cifar10", "described", "-"), ("sam-elr", "described", "+")):
        with pytest.raises(ValueError, match="rewrite it"):
            effects.say(found, claim, setting, expected, "0.2" if claim == "elr-cifar10" else "")


def test_a_claim_of_a_field_that_does_not_exist_is_named(tmp_path):
    path = tmp_path / "claims.csv"
    text = CLAIMS.assign(fields="sam_roh=0", a="", b="").head(1).to_csv(index=False)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"elr-cifar10: 'sam_roh=0' is not name=value of a field"):
        effects.load_claims(path)


def test_what_a_chapter_varies_is_no_run_of_the_setting():
    rows = [described(loss, seed, base) for loss, base in (("ce", 0.6), ("elr", 0.7)) for seed in range(3)]
    others = [described("elr", 0, 0.1, beta=0.3), described("elr", 0, 0.1, lr=0.25, weight_decay=0.0)]
    others += [described(loss, 0, 0.1, sam_rho=0.05, sam_double_update=True) for loss in ("ce", "elr")]
    others += [described(loss, 0, 0.1, width=16) for loss in ("ce", "elr")]
    plain, more = (effects.table(runs(*rows, *extra), CLAIMS).drop(columns="run_ids") for extra in ([], others))
    pd.testing.assert_frame_equal(plain, more)


# Settings and published numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", list(effects.SETTINGS))
def test_a_setting_is_that_of_a_plans_runs(setting):
    fields = effects.shared(setting)
    planned = [c for name in plans.PLANS for c in plans.plan(name)] + plans.plan("table1", "paper")
    frame = pd.DataFrame([c.model_dump(mode="json") | {"run_id": c.run_id, "status": "finished"} for c in planned])
    assert len(effects.select(frame, {**fields, "noise_convention": effects.ANY}))


def test_published_numbers_and_their_differences():
    rows = published.numbers()
    assert rows["id"].is_unique
    assert rows["mean"].notna().all()
    assert len(published.table1()) == 32
    assert published.gains()["cifar10", "multistep", 0.2] == pytest.approx(84.85 - 72.30)
    assert published.gains("liu2020")["cifar10", "multistep", 0.2] == pytest.approx(91.16 - 86.98)
    assert published.number("galatolo2021-text-cdon-sam") == 93.4


# What is committed ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evidence():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELRKIT_RESULTS", "results/runs")
        return effects.evidence()


def test_every_committed_record_is_of_a_plan_and_counts(evidence):
    committed = {path.stem for path in Path("results/runs").glob("*/*.json")}
    assert set(evidence["run_id"]) == committed
    assert len(committed) >= 150
    assert set(evidence["status"]) == {"finished"}


@pytest.mark.parametrize(
    ("row", "without", "with_it"),
    [
        ({"change": "no weight decay"}, {}, {"weight_decay": 0.0}),
        ({"change": "SAM moves targets and statistics twice a step, not once"},
         {"sam_rho": 0.05}, {"sam_rho": 0.05, "sam_double_update": True}),
        ({"change": "float16, a new loss scaler each batch", "loss": "Cross-entropy", "redrawn": "20 %"},
         {"loss": "ce", "augmentation": "frozen"},
         {"loss": "ce", "augmentation": "frozen", "precision": "float16_fresh_scaler"}),
    ],
)  # fmt: skip
def test_what_the_code_did_is_compared_with_the_same_run_without_it(evidence, row, without, with_it):
    table = tables.code(evidence)
    (found,) = table[(table[list(row)] == pd.Series(row)).all(axis=1)].to_dict("records")
    plain = plans.plan("code-of-more")[5:7][1]
    assert (plain.loss, plain.augmentation, plain.noise_rate) == ("elr", "fresh", 0.2)
    plain = plain.with_(beta=None, lam=None, loss="ce") if without.get("loss") == "ce" else plain
    paths = [Path("results/runs/cifar10", f"{plain.with_(**arm).run_id}.json") for arm in (without, with_it)]
    last = [100 * json.loads(path.read_text())["curves"]["test_top1"][-1] for path in paths]
    assert (found["without, %"], found["with, %"]) == tuple(f"{value:.1f}" for value in last)
    assert found["points"] == f"{last[1] - last[0]:+.1f}"
    assert found["seeds"] == 1


def test_table_of_peoples_labels_shows_what_the_records_of_a_row_say(evidence):
    asked = "labels == 'random' and level.str.startswith('worst') and setting.str.contains('20,000')"
    (row,) = tables.people(evidence).query(asked).to_dict("records")
    asked = {"noise": "symmetric", "noise_rate": HUMAN_NOISE_RATES["worst"], "sam_rho": 0}
    plain = [c for c in plans.plan("people-flips") if c.model_dump(include=set(asked)) == asked]
    for column, loss, measure, form in (
        ("CE, %", "ce", "test_top1", ".1f"),
        ("ELR, %", "elr", "test_top1", ".1f"),
        ("CE memorizes, %", "ce", "batches_wrong_memorized", ".0f"),
        ("ELR memorizes, %", "elr", "batches_wrong_memorized", ".0f"),
    ):
        paths = [Path("results/runs/cifar10", f"{c.run_id}.json") for c in plain if c.loss == loss]
        last = [100 * json.loads(path.read_text())["curves"][measure][-1] for path in paths]
        assert len(last) == 3
        assert row[column].partition(" ")[0] == f"{sum(last) / 3:{form}}"


def test_figures_and_tables_of_what_is_committed(evidence):
    found = effects.table(evidence, CLAIMS)
    page = tables.claims_html(found, CLAIMS)
    assert page.count("<tr id='claim-") == found["claim"].nunique()
    assert tables.untestable_html(CLAIMS).count("<li>") == (CLAIMS["direction"] == "").sum()
    for table in (tables.table1(evidence), tables.gains(evidence), tables.sam(evidence), tables.people(evidence)):
        assert len(table)
        assert not table.isna().any().any()
    once, again = (figures.as_html(figures.answer(evidence), "what it shows") for _ in range(2))
    assert once == again  # else each build would change the committed notebooks
    assert figures.trained_here(evidence).axes  # which no chapter draws without training
    where = effects.where(evidence).set_index("setting")
    gains = found.query("claim == 'elr-cifar10' and cell == '0.2'")
    gains = gains.assign(label=gains["setting"].map(lambda name: effects.SETTINGS[name].label)).set_index("label")
    assert len(where) >= len(gains) >= 4
    assert where.loc[gains.index, "gain"].to_numpy() == pytest.approx(gains["mean"].to_numpy())


def test_curves_of_several_experiments_are_refused(evidence):
    with pytest.raises(ValueError, match="no curves to draw"):
        figures.early_learning(pd.DataFrame())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELRKIT_RESULTS", "results/runs")
        curves = records.curves(records.read_all())
    with pytest.raises(ValueError, match="runs differ in dataset"):
        figures.early_learning(curves)
