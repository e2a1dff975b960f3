"""Which runs the report needs, in order of priority: a named list of RunConfigs for each part, at three scales.

Every plan is written at the paper's own scale (ResNet-34, all images, 120 or 150 epochs); `SCALES` says how a scale
asks the same question of a smaller net. `cpu` is one setting for all plans: a net that is small but large enough for
its images to memorize their wrong labels under the recipe as the paper describes it. A plan varies one thing from
there.

Some plans keep settings of their own: `all-images` (Table 1 on all 50,000 images, without augmentation, by a smaller
net), `people-flips`, `crops-of-more` and `code-of-more` (20,000 images), and the sweeps.
"""

import inspect
import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from elrkit.config import ConfigError, RunConfig, as_list, cifar10_recipe, cifar100_recipe, require

SEEDS = (0, 1, 2)
LEVELS = ("aggregate", "random1", "worst")  # of people's labels, from the cleanest on
ARMS = ("ce", "elr")

# The parts of the campaign ------------------------------------------------------------------------------------------


def early_learning(seeds: Sequence[int] = SEEDS, noise_rates: Sequence[float] = (0.2,)) -> list[RunConfig]:
    """Figure 2 and a cell of Table 1: CE and ELR, multi-step."""
    return [cifar10_recipe(loss, rate, "multistep", seed) for seed in seeds for rate in noise_rates for loss in ARMS]


def crops(seeds: Sequence[int] = SEEDS) -> list[RunConfig]:
    """Crops and flips drawn once, as the paper's code did, and none."""
    return [c.with_(augmentation=how) for how in ("frozen", "none") for c in early_learning(seeds)]


def sam(seeds: Sequence[int] = SEEDS) -> list[RunConfig]:
    """Figure 5's cells with all else equal, and SGD with twice the epochs, which costs what SAM costs."""
    plain = early_learning(seeds)
    return [d for c in plain for d in (c, c.with_(sam_rho=0.05), _for_epochs(c, 2 * c.epochs))]


def held_out(seeds: Sequence[int] = SEEDS) -> list[RunConfig]:
    """A tenth held out with noisy labels: the epoch that a practitioner can choose, as Liu et al. do."""
    return [c.with_(split="held_out") for c in early_learning(seeds)]


RATES, SCHEDULES = (0.2, 0.0, 0.1, 0.15), ("multistep", "cosine")  # of Table 1, what matters most first


def _cells(recipe: Callable[..., RunConfig], seeds: Sequence, rates: Sequence, schedules: Sequence) -> list[RunConfig]:
    """Every cell of a schedule has a first seed before any has a second."""
    return [recipe(loss, rate, how, seed) for how in schedules for seed in seeds for rate in rates for loss in ARMS]


def table1(
    seeds: Sequence[int] = SEEDS, noise_rates: Sequence[float] = RATES, schedules: Sequence[str] = SCHEDULES
) -> list[RunConfig]:
    """Table 1 on CIFAR-10."""
    return _cells(cifar10_recipe, seeds, noise_rates, schedules)


def cifar100(
    seeds: Sequence[int] = SEEDS, noise_rates: Sequence[float] = RATES, schedules: Sequence[str] = SCHEDULES
) -> list[RunConfig]:
    """Table 1 on CIFAR-100."""
    return _cells(cifar100_recipe, seeds, noise_rates, schedules)


def people(seeds: Sequence[int] = SEEDS, levels: Sequence[str] = LEVELS) -> list[RunConfig]:
    """CIFAR-10N: CE and ELR on people's labels; on as many redrawn ones; ELR with SAM.

    Redrawn labels are never the true class, so that the realized rate is people's.
    """
    if unknown := [level for level in levels if level not in LEVELS]:
        raise ConfigError(f"levels={unknown}: allowed are {', '.join(LEVELS)}")
    human = [
        cifar10_recipe(loss, 0.0, "multistep", seed).with_(noise="human", noise_convention=level, noise_rate=None)
        for seed in seeds for level in levels for loss in ARMS
    ]  # fmt: skip
    redrawn = [c.with_(noise="symmetric", noise_convention="others", noise_rate=c.noise_rate) for c in human]
    return human + redrawn + [c.with_(sam_rho=0.05) for c in human if c.loss == "elr"]


def losses(seeds: Sequence[int] = SEEDS, noise_rates: Sequence[float] = (0.2,)) -> list[RunConfig]:
    """GCE, symmetric CE and NCE+RCE under the paper's recipe, each with the parameters of its authors."""
    return [
        cifar10_recipe(loss, rate, "multistep", seed)
        for seed in seeds for rate in noise_rates for loss in ("gce", "sce", "nce_rce")
    ]  # fmt: skip


LR, CODE_LR = 0.02, 0.1  # of the paper, and of the code's run with SAM


def code(seeds: Sequence[int] = SEEDS[:1]) -> list[RunConfig]:
    """What the published code did beside the text, one change at a time: float16 with a new loss scaler each batch,
    beta 0.3 under the name of CE, and the settings of its SAM run (learning rate, weight decay, double updates)."""
    runs = []
    for seed in seeds:
        ce, elr = (c.with_(augmentation="frozen") for c in early_learning([seed]))
        runs += [c.with_(precision="float16_fresh_scaler") for c in (ce, elr)] + [elr.with_(beta=0.3)]
        plain = elr.with_(augmentation="fresh", lr=CODE_LR, weight_decay=0.0)
        sharp = plain.with_(sam_rho=0.05)
        runs += [plain, sharp, sharp.with_(sam_double_update=True)]
    return runs


def where(seeds: Sequence[int] = SEEDS[:1]) -> list[RunConfig]:
    """Where does ELR help? CE and ELR under the recipe of `cpu`, by nets, images and epochs of several sizes.

    At `cpu` scale alone, whose sizes they vary.
    """
    base = [_cpu(c) for c in early_learning(seeds)]
    changes: list[dict[str, Any]] = [{"width": width} for width in (16, 32, 96)]
    changes += [{"train_size": images} for images in (2500, 10_000, 20_000)]
    runs = [c.with_(**change) for change in changes for c in base]
    runs += [_for_epochs(c, epochs) for epochs in (30, 60, 200) for c in base]
    return runs + [c.with_(model="resnet18", width=None, stem_stride=None) for c in base]


def campaign(seeds: Sequence[int] = SEEDS) -> list[RunConfig]:
    """All that the report asks for, what matters most first; one command starts it, and goes on where it stopped."""
    first = seeds[:1]
    parts = [
        *(part(seeds) for part in (early_learning, crops, sam, held_out)),
        table1(seeds, schedules=("multistep",)), table1(first, schedules=("cosine",)),
        people(first), people(seeds), cifar100(first, (0.2, 0.0), ("multistep",)), where(first), losses(seeds),
        early_learning(seeds, (0.4,)), code(first), table1(seeds), cifar100(seeds),
    ]  # fmt: skip
    return [config for part in parts for config in part]


# Settings of their own ----------------------------------------------------------------------------------------------


def all_images(seeds: Sequence[int] = SEEDS) -> list[RunConfig]:
    """Table 1 and SAM on all 50,000 images without augmentation: a net of width 32, 30 epochs."""
    sharp = [c.with_(sam_rho=0.05) for c in early_learning(seeds)]
    others = (*cifar100(seeds[:1], schedules=("multistep",)), *losses(seeds[:1]))
    return [for_small_net(c) for c in (*table1(seeds), *sharp, *others)]


def people_flips(seeds: Sequence[int] = SEEDS) -> list[RunConfig]:
    """People's labels for the net of `all-images`: 20,000 images with flips, 40 epochs; SAM on redrawn ones as well."""
    runs = [_of_20_000(c, "flip") for c in people(seeds) if not c.sam_rho or c.seed == seeds[0]]
    redrawn = (c for c in runs if (c.loss, c.noise, c.seed) == ("elr", "symmetric", seeds[0]))
    return runs + [c.with_(sam_rho=0.05) for c in redrawn]


def crops_of_more(seeds: Sequence[int] = SEEDS) -> list[RunConfig]:
    """Crops drawn anew and drawn once for the net of `all-images`: 20,000 images, 40 epochs."""
    return [_of_20_000(c, how) for how in ("fresh", "frozen") for c in early_learning(seeds)]


def code_of_more(seeds: Sequence[int] = SEEDS[:1]) -> list[RunConfig]:
    """The changes of `code`, and each of their parts alone, for the nets of `crops-of-more`; with clean labels, a tenth
    held out, and the other convention of redrawing as well."""
    runs = []
    for seed in seeds:
        for rate in (0.2, 0.0):
            ce, elr = (_of_20_000(c, "frozen") for c in early_learning([seed], [rate]))
            runs += [ce, elr, *(c.with_(precision="float16_fresh_scaler") for c in (ce, elr)), elr.with_(beta=0.3)]
            fresh = [_of_20_000(c, "fresh") for c in early_learning([seed], [rate])]
            runs += [*fresh, *(c.with_(split="held_out") for c in fresh)]
        ce, elr = (_of_20_000(c, "fresh") for c in early_learning([seed]))
        runs += [c.with_(noise_convention="others") for c in (ce, elr)]
        fast, light = {"lr": CODE_LR * elr.lr / LR}, {"weight_decay": 0.0}
        short = elr.with_(schedule="cosine", epochs=20, **fast, **light)
        runs += [elr.with_(**fast), elr.with_(**light), short, short.with_(sam_rho=0.05, sam_double_update=True)]
        for c in (elr, elr.with_(**fast, **light)):
            runs += [c, c.with_(sam_rho=0.05), c.with_(sam_rho=0.05, sam_double_update=True)]
    return runs


def _of_20_000(config: RunConfig, augmentation: str) -> RunConfig:
    small = for_small_net(config).with_(train_size=20_000, epochs=40, milestones=(16, 32))
    return small.with_(augmentation=augmentation)


# The published sweeps' ranges (sweep.yaml of the paper's repository, f83ce2c and 7a90999). Their schedules differ from
# ours: the random search has 50 epochs and 10 % noise, and cosine annealing ends at 1e-3 in both, above Adam's 1e-4.
LAMBDA_RANGE = (math.exp(-2.3), math.exp(1.09))  # of the random search, log-uniform
GRID_SWEEP = {
    "lr": [0.001, 0.003, 0.01, 0.03],
    "optimizer": ["sgd", "adam"],
    "momentum": [0.85, 0.9, 0.95],
    "weight_decay": [0.002, 0.004, 0.006],
    "lam": [3.2, 3.4, 3.6, 3.8],
}
RANDOM_SWEEP_RUNS = 112  # with the grid's 288 the "over 400 possible combinations" of Section 5.4


def sweep_random(size: int = RANDOM_SWEEP_RUNS) -> list[RunConfig]:
    """The random search over 8 hyper-parameters, on CIFAR-10 at 20 % noise, 30 epochs, a tenth held out.

    The first `size` draws of one sequence: a larger size adds runs and changes none.
    """
    from scipy import stats
    from sklearn.model_selection import ParameterSampler  # not before: the other plans need not wait for them

    ranges = {
        "lr": stats.loguniform(math.exp(-6.9), math.exp(-3.5)),
        "optimizer": ["sgd", "adam"],
        "schedule": ["multistep", "cosine"],
        "momentum": stats.uniform(0.6, 0.39),
        "weight_decay": stats.uniform(1e-5, 1e-2 - 1e-5),
        "lam": stats.loguniform(*LAMBDA_RANGE),
        "beta": stats.uniform(0.5, 0.49),
        "batch_size": [64, 128, 256],
    }
    sampler = ParameterSampler(ranges, n_iter=size, random_state=0)
    # Six digits are enough to repeat a draw, and read well in a record.
    return [_sweep_run(**{k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in d.items()}) for d in sampler]


def sweep_grid(size: int | None = None) -> list[RunConfig]:
    """The grid over 5 hyper-parameters, 288 settings in an order drawn from a fixed seed; `size` takes the first ones.

    As in the published code, Adam's learning rate and weight decay are fixed (1e-4, 1e-5) and it takes no momentum, so
    that its 144 settings are 4 distinct runs.
    """
    from sklearn.model_selection import ParameterGrid

    settings = list(ParameterGrid(GRID_SWEEP))
    random.Random(0).shuffle(settings)
    fixed = {"lr": 1e-4, "weight_decay": 1e-5}
    settings = [{**s, **fixed} if s["optimizer"] == "adam" else s for s in settings[:size]]
    return [_sweep_run(**setting, schedule="cosine", beta=0.85, batch_size=128) for setting in settings]


def _sweep_run(**setting: Any) -> RunConfig:
    if setting["schedule"] == "multistep":
        setting["milestones"] = (10, 20)
    return cifar10_recipe("elr", 0.2, split="held_out", epochs=30, **{"eta_min": 1e-4, **setting})


# The scales ---------------------------------------------------------------------------------------------------------

# Calibrated at 20 % noise, seed 0 (`benchmarks/calibration.md`): CE memorizes, ELR does not.
CPU = {"model": "small_resnet", "width": 64, "stem_stride": 2, "eval_every": 20, "test_every": 5}
CPU_IMAGES = {"cifar10": 5_000, "cifar100": 10_000}
CPU_EPOCHS = 100
CPU_CYCLES = 8  # epochs between restarts: as many cycles as the paper's, the last one whole, in 96 epochs
LR_AT_CPU = 2.5  # times the paper's


def _cpu(config: RunConfig) -> RunConfig:
    """The same question for a small net. The learning rate falls to a tenth after 40 % of the epochs and to a hundredth
    after 80 %: a third and two thirds, as the paper has it for longer trainings, leave it too little time at a
    tenth."""
    small = CPU | {"train_size": CPU_IMAGES[config.dataset], "lr": LR_AT_CPU * config.lr}
    if config.eta_min:
        small["eta_min"] = LR_AT_CPU * config.eta_min
    usual = cifar100_recipe() if config.dataset == "cifar100" else cifar10_recipe()
    if config.schedule == "cosine":
        cycles = config.epochs // config.restart_epochs
        return config.with_(**small, epochs=CPU_CYCLES * cycles, restart_epochs=CPU_CYCLES)
    epochs = CPU_EPOCHS * config.epochs // usual.epochs
    return config.with_(**small, gamma=0.1, epochs=epochs, milestones=(epochs * 2 // 5, epochs * 4 // 5))


def for_small_net(config: RunConfig) -> RunConfig:
    """The net of `all-images`, 0.31 M parameters, on all images without augmentation: ten minutes on one core."""
    falls = {"milestones": (12, 24), "gamma": 0.1} if config.schedule == "multistep" else {}
    return config.with_(
        model="small_resnet", width=32, stem_stride=2, epochs=30, lr=0.05, augmentation="none", eval_every=5, **falls
    )


def _cpu_sweep(config: RunConfig) -> RunConfig:
    """10,000 images with flips, the sweep's own hyper-parameters and epochs: two minutes a run."""
    return config.with_(
        model="small_resnet", width=32, stem_stride=2, train_size=10_000, augmentation="flip", eval_every=5
    )


def _digits(config: RunConfig) -> RunConfig:
    """The same question of scikit-learn's digits, some five seconds. Labels flipped within fixed pairs of classes stand
    for people's, of which the digits have none; they have no fresh crops either."""
    changes: dict[str, Any] = dict(
        dataset="digits", model="small_resnet", width=16, stem_stride=1, batch_size=64, lr=1.5 * config.lr,
        precision="float32" if config.precision == "bfloat16" else config.precision,
        augmentation="frozen" if config.augmentation == "frozen" else "none",
    )  # fmt: skip
    if config.noise == "human":
        changes |= {"noise": "asymmetric", "noise_convention": "intended"}
    elif config.noise_convention == "others":  # as many as those pairs flip, which hold half of the classes
        changes |= {"noise_rate": config.noise_rate / 2}
    if config.dataset == "cifar100":  # the digits stand for both: one run
        config = cifar10_recipe(config.loss, config.noise_rate, config.schedule, config.seed)
    small = _for_epochs(config.with_(**changes), 60 if config.epochs == 240 else 30)
    return small.with_(gamma=0.1) if small.milestones else small


def _for_epochs(config: RunConfig, epochs: int) -> RunConfig:
    """`config` for another number of epochs: its milestones in proportion, as many restarts."""
    if config.schedule == "cosine":
        return config.with_(epochs=epochs, restart_epochs=max(1, round(config.restart_epochs * epochs / config.epochs)))
    if config.milestones is None:
        return config.with_(epochs=epochs)
    moved = sorted({round(milestone * epochs / config.epochs) for milestone in config.milestones} - {0})
    return config.with_(epochs=epochs, milestones=tuple(moved))


PLANS: dict[str, Callable[..., list[RunConfig]]] = {
    "campaign": campaign,
    "early-learning": early_learning,
    "crops": crops,
    "sam": sam,
    "held-out": held_out,
    "table1": table1,
    "people": people,
    "cifar100": cifar100,
    "where": where,
    "losses": losses,
    "code": code,
    "all-images": all_images,
    "people-flips": people_flips,
    "crops-of-more": crops_of_more,
    "code-of-more": code_of_more,
    "sweep-random": sweep_random,
    "sweep-grid": sweep_grid,
}
SCALES = ("cpu", "paper", "digits")
OWN_SCALE = ("where", "all-images", "people-flips", "crops-of-more", "code-of-more")  # written at `cpu` scale


def plan(name: str, scale: str = "cpu", **options: Any) -> list[RunConfig]:
    """The runs of plan `name` at a scale of `SCALES`, in order of priority, each once. Raises ConfigError.

    options  what the plan's own function takes (seeds, noise_rates, levels, schedules, size), None for its default;
             lists may be papermill's text of a list
    """
    if name not in PLANS:
        raise ConfigError(f"plan={name!r}: allowed are {', '.join(PLANS)}")
    if scale not in SCALES:
        raise ConfigError(f"scale={scale!r}: allowed are {', '.join(SCALES)}")
    if name in OWN_SCALE and scale != "cpu":
        raise ConfigError(f"scale={scale!r} for plan {name}: allowed is cpu")
    options = {key: value for key, value in options.items() if value is not None}
    known = list(inspect.signature(PLANS[name]).parameters)
    if unknown := options.keys() - set(known):
        raise ConfigError(f"{min(unknown)} for plan {name}: allowed are {', '.join(known)}")
    require("size", options.get("size"), 1, whole=True, optional=True)
    runs = PLANS[name](**{key: value if key == "size" else as_list(key, value) for key, value in options.items()})
    if name == "campaign" and scale != "cpu":
        runs = [config for config in runs if config.model == "resnet34"]
    return list({config.run_id: config for config in at_scale(runs, scale)}.values())


def at_scale(runs: Iterable[RunConfig], scale: str) -> list[RunConfig]:
    """Runs as the plans write them, at a scale; those that were written for a smaller one stay as they are."""
    if scale == "paper":
        return list(runs)

    def smaller(config: RunConfig) -> RunConfig:
        if config.model != "resnet34":
            return config
        if scale == "digits":
            return _digits(config)
        return _cpu_sweep(config) if config.epochs == 30 else _cpu(config)

    return [smaller(config) for config in runs]
