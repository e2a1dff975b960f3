"""The named plans: which runs, in which order, at which scale; options; a sweep that grows repeats no run."""

import collections

import pytest

from elrkit import data, problem, records
from elrkit.config import ConfigError
from elrkit.report import plans


def ids(configs):
    return [config.run_id for config in configs]


def test_an_extended_sweep_repeats_no_run():
    for name in ("sweep-random", "sweep-grid"):
        short, long = ids(plans.plan(name, size=12)), ids(plans.plan(name, size=30))
        assert long[: len(short)] == short
        assert ids(plans.plan(name, size=30)) == long


def test_random_sweep_stays_within_the_published_ranges():
    configs = plans.plan("sweep-random", "paper")
    assert len(configs) == 112
    for c in configs:
        assert 0.001007 <= c.lr <= 0.0302
        assert 0.1 <= c.lam <= 2.98
        assert 0.5 <= c.beta <= 0.99
        assert c.momentum is None or 0.6 <= c.momentum <= 0.99
        assert 1e-5 <= c.weight_decay <= 1e-2
    for field, values in {"optimizer": {"sgd", "adam"}, "batch_size": {64, 128, 256}}.items():
        assert {getattr(c, field) for c in configs} == values


def test_half_of_the_grid_is_four_runs():
    configs = plans.plan("sweep-grid", "paper")
    optimizers = collections.Counter(config.optimizer for config in configs)
    assert optimizers == {"sgd": 144, "adam": 4}
    assert {config.lam for config in configs if config.optimizer == "adam"} == {3.2, 3.4, 3.6, 3.8}


NAMES = [
    (name, scale) for name in plans.PLANS for scale in plans.SCALES if scale == "cpu" or name not in plans.OWN_SCALE
]


@pytest.mark.parametrize(("name", "scale"), NAMES)
def test_a_plan_is_of_one_scale_and_lists_each_run_once(name, scale):
    configs = plans.plan(name, scale)
    assert len(set(ids(configs))) == len(configs) > 0
    if not name.startswith("sweep"):  # the sweeps train for 30 epochs at any scale, as the paper's
        assert {records.scale(config) for config in configs} <= {
            scale,
            *(["other"] if name in ("campaign", "where") else []),
        }


def test_the_campaign_begins_with_what_matters_most_and_holds_every_part():
    campaign = ids(plans.plan("campaign"))
    assert campaign[:6] == ids(plans.plan("early-learning"))
    parts = ("early-learning", "crops", "sam", "held-out", "table1", "people", "cifar100", "where", "losses", "code")
    assert set(campaign) >= {run for name in parts for run in ids(plans.plan(name))}


def test_every_plan_varies_one_setting():
    """Whatever a plan asks, its plain run is the scale's own."""
    plain = plans.plan("early-learning")[0]
    shared = (
        "model",
        "width",
        "stem_stride",
        "train_size",
        "epochs",
        "lr",
        "milestones",
        "gamma",
        "batch_size",
        "precision",
    )
    for name in ("crops", "sam", "held-out", "losses", "people", "code"):
        first = plans.plan(name)[0]
        changed = [field for field in shared if getattr(first, field) != getattr(plain, field)]
        assert changed in ([], ["precision"]), name
    assert {c.augmentation for c in plans.plan("crops")} == {"frozen", "none"}
    arms = {(c.loss, c.sam_rho, c.epochs) for c in plans.plan("sam", seeds=[0])}
    assert arms == {(loss, *arm) for loss in ("ce", "elr") for arm in ((0, 100), (0.05, 100), (0, 200))}


def test_restarts_end_with_a_whole_cycle():
    for scale in ("cpu", "paper"):
        for config in plans.plan("table1", scale, schedules=["cosine"]):
            assert config.epochs // config.restart_epochs == 12
            assert config.epochs % config.restart_epochs == 0


def test_the_digits_stand_ins_for_peoples_labels_have_as_many_wrong_as_the_redrawn():
    digits = data.load("digits")
    rates = {c.noise: problem.set_up(c, digits).realized_rate for c in plans.plan("people", "digits", seeds=[0])
             if c.loss == "ce" and c.noise_rate > 0.19}  # fmt: skip
    assert rates["asymmetric"] == pytest.approx(rates["symmetric"], abs=0.01)


def test_the_digits_stand_in_for_every_question():
    assert {config.augmentation for config in plans.plan("crops", "digits")} == {"none", "frozen"}
    assert {config.noise for config in plans.plan("people", "digits")} == {"asymmetric", "symmetric"}
    assert {config.epochs for config in plans.plan("sam", "digits")} == {30, 60}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (dict(name="table2"), "plan='table2': allowed are campaign, early-learning"),
        (dict(name="sam", scale="huge"), "scale='huge': allowed are cpu, paper, digits"),
        (dict(name="where", scale="paper"), "scale='paper' for plan where: allowed is cpu"),
        (dict(name="sam", size=3), "size for plan sam: allowed are seeds"),
        (dict(name="sweep-grid", size=0), "size=0: allowed are whole numbers from 1"),
        (dict(name="sam", seeds=[]), r"seeds=\[\]: allowed is a list"),
        (dict(name="table1", noise_rates=[1.5]), "noise_rate=1.5: should be less than"),
        (dict(name="people", levels=["worst", "random2"]), r"levels=\['random2'\]: allowed are aggregate"),
    ],
)
def test_what_cannot_be_honoured_is_named(arguments, line):
    with pytest.raises(ConfigError, match=line):
        plans.plan(**arguments)
