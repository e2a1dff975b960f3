"""RunConfig: every valid config survives JSON, one question has one id, every refusal is one helpful line."""

import json
import math
import re
from typing import Annotated, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from elrkit import config as module
from elrkit.config import ConfigError, RunConfig, cifar10_recipe, cifar100_recipe, grid, require


def values_of(name):
    """Any value that the field itself takes; None, which means its default, is left out."""
    field = RunConfig.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return st.sampled_from(get_args(field.annotation))
    kind = next(iter(get_args(field.annotation)), field.annotation)  # of int | None, int
    values = st.from_type(Annotated[kind, *field.metadata, "or no bounds"])
    return values.filter(math.isfinite) if kind is float else values


@st.composite
def fields_of_valid_configs(draw):
    """Fields that RunConfig must accept, each given or left to its default."""
    dataset = draw(st.sampled_from(["digits", "cifar10", "cifar100", "shoes.npz", "photos/by class"]))
    size = module.BUILT_IN_TRAIN_SIZES.get(dataset, 10**6)
    lr = draw(st.floats(1e-6, 10))
    kind = draw(st.sampled_from(["none", "symmetric", "asymmetric"] + ["human"] * (dataset == "cifar10")))
    chosen = {"dataset": dataset, "lr": lr, "noise": kind}
    if kind in ("symmetric", "asymmetric"):
        chosen["noise_rate"] = draw(values_of("noise_rate"))
    if kind != "none" and draw(st.booleans()):
        chosen["noise_convention"] = draw(st.sampled_from(module.NOISE_CONVENTIONS[kind]))
    together = {  # those that one another bound
        "train_size": st.integers(1, size),
        "milestones": st.lists(st.integers(0, 500), unique=True, max_size=4).map(sorted),
        "eta_min": st.floats(0, lr),
    }
    free = RunConfig.model_fields.keys() - chosen.keys() - {"noise_rate", "noise_convention", "batch_size"}
    optional = {name: values_of(name) for name in sorted(free - together.keys())} | together
    fields = chosen | draw(st.fixed_dictionaries({}, optional=optional))
    if fields.get("sam_double_update") and fields.get("precision") == "float16_fresh_scaler":
        del fields["precision"]
    fields["batch_size"] = draw(st.integers(1, min(size, fields.get("train_size") or size)))
    if fields.get("schedule") == "cosine" and "eta_min" not in fields:
        fields["eta_min"] = draw(st.floats(0, lr))  # the default may be above a tiny lr
    return fields


@settings(max_examples=150, deadline=None)
@given(fields_of_valid_configs())
def test_valid_configs_survive_json_and_reconstruction(fields):
    config = RunConfig(**fields)
    text = config.to_json()
    back = RunConfig(**json.loads(text))
    assert (back, hash(back), back.to_json(), back.run_id) == (config, hash(config), text, config.run_id)
    assert re.fullmatch("[0-9a-f]{12}", config.run_id)
    # Pretty-printed, in another order: the same question.
    shuffled = dict(reversed(json.loads(text).items()))
    assert RunConfig(**shuffled).run_id == config.run_id
    assert config.with_() == config
    for name in ("dataset", "lr", "epochs", "seed", "loss", "schedule", "batch_size"):
        if name in fields:
            assert getattr(config, name) == fields[name]


@settings(max_examples=60, deadline=None)
@given(fields_of_valid_configs(), st.data())
def test_another_question_has_another_id(fields, data):
    config = RunConfig(**fields)
    name = data.draw(st.sampled_from(["seed", "noise_seed", "epochs", "weight_decay"]))
    value = data.draw(st.integers(1, 100) if name != "weight_decay" else st.floats(0, 1))
    changed = config.with_(**{name: value})
    assert (changed.run_id == config.run_id) == (value == getattr(config, name))


def test_run_ids_never_change():
    """Records and checkpoints are named by these: a change here orphans every run that was ever trained."""
    assert cifar10_recipe().run_id == "87c8430eac01"
    assert cifar10_recipe("elr", 0.2).run_id == "06dd4eca5e5a"
    assert cifar100_recipe("elr", 0.2, "cosine", 1).run_id == "cfee63df6977"


HUMAN = {"dataset": "cifar10", "noise": "human"}
TWICE = {"sam_rho": 0.1, "sam_double_update": True}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"beta": 0.9, "lam": 7}, {}),
        ({"loss": "elr"}, {"loss": "elr", "beta": 0.7, "lam": 3}),
        ({"dataset": "cifar100", "loss": "elr"}, {"dataset": "cifar100", "loss": "elr", "beta": 0.9, "lam": 7}),
        ({"noise": "none"}, {"noise_rate": 0.0}),
        ({"noise": "asymmetric", "noise_draw": "independent"}, {"noise": "symmetric", "noise_convention": "others"}),
        ({"noise_rate": 0.2}, {"noise_rate": 0.2, "noise_convention": "all", "noise_draw": "exact"}),
        ({"noise_rate": 1}, {"noise_rate": 1.0}),
        ({"milestones": [3, 5], "gamma": 0.1, "eta_min": 0.01}, {"restart_epochs": 5}),
        ({"schedule": "multistep", "epochs": 120}, {"schedule": "multistep", "epochs": 120, "milestones": (40, 80)}),
        ({"schedule": "multistep"}, {"schedule": "multistep", "gamma": 0.01}),
        ({"schedule": "cosine"}, {"schedule": "cosine", "restart_epochs": 10, "eta_min": 0.001}),
        ({"sam_double_update": True}, {}),
        ({"sam_rho": 0.05}, {"sam_rho": 0.05, "sam_double_update": False}),
        ({"optimizer": "adam", "momentum": 0.5}, {"optimizer": "adam"}),
        ({"model": "resnet18", "width": 9, "stem_stride": 2}, {"model": "resnet18"}),
        ({}, {"width": 16, "stem_stride": 1, "momentum": 0.9}),
        ({"dataset": "cifar10"}, {"dataset": "cifar10", "width": 32, "stem_stride": 2}),
        ({"loss": "sce"}, {"loss": "sce", "loss_alpha": 0.1, "loss_beta": 1.0}),
        ({"loss": "nce_rce"}, {"loss": "nce_rce", "loss_alpha": 1.0, "loss_beta": 1.0}),
        ({"loss": "gce", "beta": 0.3}, {"loss": "gce", "loss_q": 0.7}),
        (HUMAN, {"noise_convention": "worst", "noise_draw": "independent", **HUMAN}),
        ({"train_size": None, "beta": None, "lr": None}, {}),
        ({"dataset": "cifar10", "train_size": 50_000}, {"dataset": "cifar10"}),
        ({"noise_rate": np.linspace(0, 0.4, 3)[1], "seed": np.int64(3)}, {"noise_rate": 0.2, "seed": 3}),
    ],
)
def test_the_same_question_has_one_id(one, other):
    assert RunConfig(**one) == RunConfig(**other)
    assert RunConfig(**one).run_id == RunConfig(**other).run_id


def test_what_the_loss_needs_is_filled_in_and_frozen():
    config = RunConfig(dataset="cifar10", noise="human", noise_convention="aggregate", loss="elr")
    assert (config.noise_rate, config.beta, config.lam, config.width) == (0.0901, 0.7, 3.0, 32)
    with pytest.raises(Exception, match="frozen"):
        config.lr = 1.0
    assert RunConfig().beta is None


RATE = {"noise_rate": 0.2}
AT_LEAST = "should be greater than or equal to"
BOUNDS = {  # what is said of a value, whatever else is chosen
    f"{AT_LEAST} 0": dict(
        noise_rate=-0.1, noise_seed=-1, lam=-1, loss_alpha=-1, loss_beta=-1, weight_decay=-1e-4, sam_rho=-1
    ),
    f"{AT_LEAST} 1": dict(train_size=0, batch_size=0, restart_epochs=0, eval_every=0, test_every=0),
    f"{AT_LEAST} 8": dict(width=7),
    "should be greater than 0": dict(lr=0, gamma=0, loss_q=0),
    "should be less than 1": dict(beta=1.0, momentum=1),
    "should be less than or equal to 1": dict(noise_rate=1.2),
    "should be less than or equal to 2": dict(stem_stride=3),
    "should be less than or equal to 1024": dict(width=2000),
    "should be a finite number": dict(noise_rate=math.nan),
    "should be a valid number": dict(noise_rate="0", beta="high"),
    "should be a valid integer": dict(epochs=True, seed=1.5),
    "should be a valid boolean": dict(sam_double_update=3),
    "should be a valid string": dict(dataset=["digits"], noise_convention={}),
    "should be 'all' or 'held_out'": dict(split="half"),
    "should be 'none', 'symmetric', 'asymmetric' or 'human'": dict(noise=[]),
    "should be 'exact' or 'independent'": dict(noise_draw="often"),
    "should be 'small_resnet', 'resnet18' or 'resnet34'": dict(model="resnet50"),
    "should be 'ce', 'elr', 'sce', 'nce_rce' or 'gce'": dict(loss="mse"),
    "should be 'sgd' or 'adam'": dict(optimizer="lion"),
    "should be 'multistep', 'cosine' or 'constant'": dict(schedule="linear"),
    "should be 'fresh', 'frozen', 'flip' or 'none'": dict(augmentation="mixup"),
    "should be 'float32', 'bfloat16' or 'float16_fresh_scaler'": dict(precision="int8"),
    "allowed are digits, cifar10, cifar100, a path ending in .npz or a folder": dict(dataset="mnist"),
}
CHOICES = [  # what a choice excludes is told by what it allows
    ({"dataset": "a\nb"}, "dataset='a\\nb': allowed are digits"),
    ({"train_size": 1348}, "train_size=1348: digits has 1347 training images, so at most 1347"),
    ({"batch_size": 1348}, "batch_size=1348: larger than the 1347 training images, so at most 1347"),
    ({"dataset": "x.npz", "train_size": 50}, "batch_size=64: larger than the 50 training images, so at most 50"),
    (RATE | {"noise": "gaussian"}, "noise='gaussian': should be 'none', 'symmetric', 'asymmetric' or"),
    (RATE | {"noise": "none"}, "noise_rate=0.2 with noise='none': allowed is 0, or another kind of noise"),
    (
        RATE | {"noise": "asymmetric", "noise_convention": "all"},
        "noise_convention='all' with noise='asymmetric': allowed are 'intended', 'reference'",
    ),
    ({"noise_convention": "al"}, "noise_convention='al' with noise='symmetric': allowed are 'all', 'others'"),
    ({"noise": "human"}, "noise='human' with dataset='digits': allowed is dataset='cifar10' alone"),
    (HUMAN | RATE, "noise_rate=0.2 with human labels: worst has 0.4021"),
    (
        HUMAN | {"noise_convention": "best"},
        "noise_convention='best' with noise='human': allowed are 'aggregate', 'random1', 'random2', 'random3', 'worst'",
    ),
    ({"lr": -1, "epochs": 0}, f"lr=-1: should be greater than 0; epochs=0: {AT_LEAST} 1"),
    (
        TWICE | {"precision": "float16_fresh_scaler"},
        "sam_double_update=True with precision='float16_fresh_scaler': allowed is another precision",
    ),
    ({"schedule": "multistep", "milestones": (4, 2)}, "milestones=(4, 2): allowed are epochs from 0, each larger than"),
    ({"schedule": "multistep", "milestones": (-1, 2)}, "milestones=(-1, 2): allowed are epochs from 0, each larger"),
    ({"schedule": "multistep", "milestones": ["a"]}, "milestones.0='a': should be a valid integer"),
    ({"schedule": "cosine", "eta_min": 0.5}, "eta_min=0.5: allowed is at most lr=0.02"),
    ({"epochs": "120", "schedule": "multistep"}, "epochs='120': should be a valid integer"),
    ({"learning_rate": 0.1}, "learning_rate: unknown field; allowed are dataset, train_size"),
    ({"lr": math.nan}, "lr=nan: should be a finite number"),
    ({"epochs": 5, "colour": "red"}, "colour: unknown field"),
    ({"epoch": None}, "epoch: unknown field"),
]
ERRORS = CHOICES + [
    ({name: value}, f"{name}={value!r}: {said}") for said, fields in BOUNDS.items() for name, value in fields.items()
]


@pytest.mark.parametrize(("fields", "message"), ERRORS)
def test_errors_name_field_value_and_what_is_allowed(fields, message):
    with refused(ConfigError, message):
        RunConfig(**fields)


def test_every_field_has_an_error_above():
    told = {name for fields, _ in ERRORS for name in fields}
    assert told >= RunConfig.model_fields.keys()


@pytest.mark.parametrize("schedule", ["multistep", "cosine"])
@pytest.mark.parametrize("loss", ["ce", "elr"])
@pytest.mark.parametrize(
    ("recipe", "dataset", "epochs", "milestones", "beta", "lam"),
    [
        (cifar10_recipe, "cifar10", 120, (40, 80), 0.7, 3.0),
        (cifar100_recipe, "cifar100", 150, (80, 120), 0.9, 7.0),
    ],
)
def test_recipes_are_section_5_2(recipe, dataset, epochs, milestones, beta, lam, loss, schedule):
    config = recipe(loss, 0.15, schedule, seed=2)
    elr, steps = loss == "elr", schedule == "multistep"
    stated = {
        "dataset": dataset, "train_size": None, "split": "all", "model": "resnet34", "optimizer": "sgd",
        "momentum": 0.9, "weight_decay": 0.001, "batch_size": 128, "epochs": epochs, "lr": 0.02,
        "schedule": schedule, "loss": loss, "noise": "symmetric", "noise_rate": 0.15, "noise_convention": "all",
        "augmentation": "fresh", "sam_rho": 0.0, "seed": 2, "noise_seed": 2,
        "milestones": milestones if steps else None, "gamma": 0.01 if steps else None,
        "restart_epochs": None if steps else 10, "eta_min": None if steps else 0.001,
        "beta": beta if elr else None, "lam": lam if elr else None,
    }  # fmt: skip
    assert {name: getattr(config, name) for name in stated} == stated


def test_descriptions_tell_runs_apart():
    config = cifar10_recipe("elr", 0.2, "cosine", 1).with_(sam_rho=0.05)
    assert config.describe() == "cifar10 symmetric 20 % elr cosine SAM 0.05 resnet34 seed 1"
    assert RunConfig(train_size=1000).describe() == "digits 1,000 images clean ce constant small_resnet seed 0"


def test_a_number_outside_its_range_is_named():
    for value in (1, 1.0, 2.5, 3):
        require("rate", value, 1, 3)
    for value in (True, "1", None, math.nan, math.inf, 0.5, 3.5):
        with pytest.raises(ConfigError, match=r"rate=.*: allowed are numbers from 1 to 3$"):
            require("rate", value, 1, 3)
    with pytest.raises(ConfigError, match=r"n=2\.0: allowed are whole numbers from 1$"):
        require("n", 2.0, 1, whole=True)


def test_a_grid_holds_each_combination_once():
    assert [c.seed for c in grid([0.2], ["ce"], [0, 1, 0])] == [0, 1]
