"""The named plans: which runs, in which order, at which scale; options; a sweep that grows repeats no run."""

import collections
import math

import pytest

from elrkit import records
from elrkit.config import ConfigError
from elrkit.report import plans


def ids(configs):
    return [config.run_id for config in configs]


@pytest.mark.parametrize("scale", plans.SCALES)
@pytest.mark.parametrize("name", plans.PLANS)
def test_a_plan_is_of_one_scale_and_lists_each_run_once(name, scale):
    configs = plans.plan(name, scale)
    assert len(set(ids(configs))) == len(configs) > 0
    if not name.startswith("sweep"):  # the sweeps train for 30 epochs at any scale, as the paper's
        assert {records.scale(config) for config in configs} == {scale}


def test_paper_scale_is_the_papers_training():
    for config in plans.plan("table1", "paper"):
        milestones = {"cifar10": (40, 80), "cifar100": (80, 120)}[config.dataset]
        assert config.milestones == (milestones if config.schedule == "multistep" else None)
        assert config.epochs == {"cifar10": 120, "cifar100": 150}[config.dataset]
        assert (config.model, config.lr, config.batch_size, config.weight_decay) == ("resnet34", 0.02, 128, 1e-3)
        if config.loss == "elr":
            assert (config.beta, config.lam) == {"cifar10": (0.7, 3), "cifar100": (0.9, 7)}[config.dataset]


def test_table1_has_a_run_of_every_cell_of_a_schedule_before_any_has_a_second():
    half = [c for c in plans.plan("table1") if c.dataset == "cifar10" and c.schedule == "multistep"]
    assert [(c.split, c.seed) for c in half[:24]] == [("all", seed) for seed in (0, 1, 2) for _ in range(8)]
    assert {(c.split, c.noise_rate) for c in half[24:]} == {("held_out", 0.2)}


def test_runs_that_two_plans_share_are_one():
    shared = set(ids(plans.plan("table1"))) & set(ids(plans.plan("sam")))
    assert len(shared) == 6  # CE and ELR at 20 %, three seeds


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


def test_options_choose_seeds_and_rates_and_move_milestones():
    configs = plans.plan("sam", "paper", seeds=[5], noise_rates="[0.4]", epochs=60)
    assert {(c.seed, c.noise_seed, c.noise_rate, c.epochs) for c in configs} == {(5, 5, 0.4, 60)}
    assert configs[0].milestones == (20, 40)
    assert plans.plan("table1", "digits", epochs=1)[0].milestones == (1,)  # not 0, which would lower the rate at once
    assert ids(plans.plan("sam", seeds=None, epochs=None)) == ids(plans.plan("sam"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (dict(name="table2"), "plan='table2': allowed are early-learning, table1"),
        (dict(name="sam", scale="huge"), "scale='huge': allowed are cpu, paper, digits"),
        (dict(name="sam", size=3), "size=3 for plan sam: allowed is at least 1, for the sweeps alone"),
        (dict(name="sam", levels=["worst"]), "levels for plan sam: allowed are seeds, noise_rates, epochs"),
        (dict(name="sam", seeds=[]), r"seeds=\[\]: allowed is a list"),
        (dict(name="sam", noise_rates=[1.5]), "noise_rate=1.5: allowed is a finite number"),
        (dict(name="human-noise", levels=["worst", "random2"]), r"levels=\['random2'\]: allowed are worst, random1"),
    ],
)
def test_what_cannot_be_honoured_is_named(arguments, line):
    with pytest.raises(ConfigError, match=line):
        plans.plan(**arguments)


def test_the_first_seed_climbs_the_ladder_before_the_others_repeat_its_first_step():
    configs = plans.plan("forensics", "paper")
    assert {c.seed for c in configs[:12]} == {0}
    assert {(c.noise_rate, c.loss, c.augmentation, c.precision) for c in configs[:12]} == {
        (rate, loss, *kind) for rate in (0.2, 0.0) for loss in ("ce", "elr")
        for kind in (("fresh", "bfloat16"), ("frozen", "bfloat16"), ("frozen", "float16_fresh_scaler"))
    }  # fmt: skip
    described = [(c.seed, c.noise_rate, c.loss, c.augmentation) for c in configs[12:20]]
    assert described == [
        (seed, 0.2, loss, kind) for seed in (1, 2) for loss in ("ce", "elr") for kind in ("fresh", "frozen")
    ]
    assert {c.seed for c in configs[20:37]} == {0}
    alone = [set(ids(plans.plan("forensics", "paper", seeds=[seed]))) for seed in plans.SEEDS]
    assert set(ids(configs)) == set.union(*alone)
    assert len(configs) == sum(map(len, alone))


def test_the_digits_stand_in_for_every_question():
    ladder = plans.plan("forensics", "digits")
    assert {config.augmentation for config in ladder} == {"none", "frozen"}
    assert {config.precision for config in ladder} == {"float32", "float16_fresh_scaler"}
    assert max(config.lr for config in ladder) == pytest.approx(5 * min(config.lr for config in ladder))
    assert {config.noise for config in plans.plan("human-noise", "digits")} == {"asymmetric", "symmetric"}


@pytest.mark.parametrize("scale", plans.SCALES)
def test_each_means_against_human_noise_has_a_run_that_differs_in_it_alone(scale):
    configs = plans.plan("human-noise", scale, seeds=[0], levels=["worst"])
    there = set(ids(configs))
    elr = next(c for c in configs if (c.loss, c.noise) == ("elr", configs[0].noise))
    cosine = next(c for c in configs if c.schedule == "cosine" and not c.sam_rho)
    assert cosine.weight_average == 0.999
    for one, other in ((elr, {"sam_rho": 0.05}), (elr, {"loss": "ce"}), (cosine, {"sam_rho": 0.05})):
        assert one.with_(**other).run_id in there
    assert elr.with_(split="held_out").run_id in there
    assert elr.with_(loss="ce", split="held_out").run_id in there
    same = cosine.with_(schedule="multistep", milestones=elr.milestones, gamma=elr.gamma, weight_average=0.0)
    assert same == elr


def test_the_declared_part_of_the_grid_is_a_part_of_it():
    part = plans.plan("sweep-subgrid")
    assert set(ids(part)) <= set(ids(plans.plan("sweep-grid")))
    assert collections.Counter(config.optimizer for config in part) == {"sgd": 16, "adam": 4}
    sgd = [config for config in part if config.optimizer == "sgd"]
    assert {(config.momentum, config.weight_decay) for config in sgd} == {(0.9, 0.004)}
    assert len({(config.lr, config.lam) for config in sgd}) == 16
    assert ids(plans.plan("sweep-subgrid", size=5)) == ids(part)[:5]


def test_related_losses_share_their_rivals_and_keep_their_authors_proportions():
    configs = plans.plan("related-losses", "paper", seeds=[0], noise_rates=[0.2])
    assert [c.loss for c in configs] == ["ce", "elr", "sce", "sce", "nce_rce", "nce_rce"]
    assert set(ids(configs[:2])) <= set(ids(plans.plan("table1", "paper")))
    for scale, epochs in (("paper", 120), ("cpu", 30), ("digits", 30)):
        _, _, sce, own_sce, nce, own_nce = plans.plan("related-losses", scale, seeds=[0], noise_rates=[0.2])
        for ours, own in ((sce, own_sce), (nce, own_nce)):
            assert own.lr == pytest.approx(ours.lr / 2)
            # A = -4 with this beta is log 10^-4 with beta 1.
            assert (own.loss_alpha, 4 * own.loss_beta) == pytest.approx((ours.loss_alpha, 4 * math.log(10)))
        assert (own_nce.schedule, own_nce.restart_epochs, own_nce.eta_min) == ("cosine", epochs, 0)
    assert plans.plan("related-losses", "cpu", epochs=7)[5].restart_epochs == 7
