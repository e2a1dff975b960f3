"""The named plans: which runs each part of the report needs, in order of priority, at three scales.

`paper` is the paper's training. `cpu` asks a smaller question of the same images: a small residual net, fewer epochs,
no augmentation, the paper's lambda and beta. `digits` asks it of scikit-learn's digits, seconds a run, so that anyone
can go through a whole chapter. The small ones show directions, not the paper's numbers, and every figure says so.
"""

import inspect
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from scipy import stats

from elrkit.config import HUMAN_NOISE_RATES, ConfigError, RunConfig, as_list, cifar10_recipe, cifar100_recipe, is_whole

SCALES = ("cpu", "paper", "digits")
SEEDS = (0, 1, 2)
LEVELS = ("worst", "random1", "aggregate")  # of people's labels, those that the leaderboard has


def table1(
    seeds: Sequence[int] = SEEDS,
    noise_rates: Sequence[float] = (0.2, 0.0, 0.1, 0.15),
    schedules: Sequence[str] = ("multistep", "cosine"),
) -> list[RunConfig]:
    """Table 1: of each dataset and schedule every cell has a first run before any has a second.

    Last the cells of the first noise rate, which Liu et al. have too, their way: a tenth held out with noisy labels.
    """

    def cells(rates: Sequence[float], **changes: Any) -> list[RunConfig]:
        return [
            recipe(loss, rate, schedule, seed, **changes)
            for recipe in (cifar10_recipe, cifar100_recipe)
            for schedule in schedules
            for seed in seeds
            for rate in rates
            for loss in ("ce", "elr")
        ]

    return cells(noise_rates) + cells(noise_rates[:1], split="held_out")


def early_learning(seeds: Sequence[int] = SEEDS, noise_rates: Sequence[float] = (0.2, 0.4)) -> list[RunConfig]:
    """Figure 2 and its extension: CE and ELR at 20 % (the paper) and 40 % (Liu et al.), multi-step."""
    return [
        cifar10_recipe(loss, rate, "multistep", seed)
        for seed in seeds
        for rate in noise_rates
        for loss in ("ce", "elr")
    ]


def sam(seeds: Sequence[int] = (*SEEDS, 3), noise_rates: Sequence[float] = (0.2,)) -> list[RunConfig]:
    """Figure 5's four cells with all else equal, and SGD with twice the epochs, which costs what SAM costs."""
    runs = []
    for seed in seeds:
        for rate in noise_rates:
            for loss in ("ce", "elr"):
                plain = cifar10_recipe(loss, rate, "multistep", seed)
                runs += [plain, plain.with_(sam_rho=0.05), plain.with_(epochs=240, milestones=(80, 160))]
    return runs


def human_noise(seeds: Sequence[int] = SEEDS, levels: Sequence[str] = LEVELS) -> list[RunConfig]:
    """CIFAR-10N's three levels: CE, ELR, SAM, ELR with SAM; on symmetric noise of the same rate CE, ELR, ELR with SAM.

    Then, for each level, CE and ELR with a tenth of the images held out under their human labels, which a shop could
    measure itself; and ELR with cosine restarts, without and with SAM, whose weights are also averaged over some 1,000
    steps: the average changes nothing in the training, so one run shows its network with and without.
    """
    if unknown := [level for level in levels if level not in LEVELS]:
        raise ConfigError(f"levels={unknown}: allowed are {', '.join(LEVELS)}")
    runs = []
    for seed in seeds:
        for level in levels:
            human = dict(noise="human", noise_convention=level, noise_rate=None)
            for loss in ("ce", "elr"):
                plain = cifar10_recipe(loss, 0.0, "multistep", seed).with_(**human)
                runs += [plain, plain.with_(sam_rho=0.05)]
                # `others` makes the realized rate equal to the human one; `all` would leave a tenth of it right.
                runs.append(cifar10_recipe(loss, plain.noise_rate, "multistep", seed, noise_convention="others"))
    for seed in seeds:
        for level in levels:
            rate = HUMAN_NOISE_RATES[level]
            symmetric = cifar10_recipe("elr", rate, "multistep", seed, noise_convention="others")
            runs.append(symmetric.with_(sam_rho=0.05))
    for seed in seeds:
        for level in levels:
            human = dict(noise="human", noise_convention=level, noise_rate=None)
            for loss in ("ce", "elr"):
                runs.append(cifar10_recipe(loss, 0.0, "multistep", seed).with_(**human, split="held_out"))
            cosine = cifar10_recipe("elr", 0.0, "cosine", seed).with_(**human, weight_average=0.999)
            runs += [cosine, cosine.with_(sam_rho=0.05)]
    return runs


def forensics(seeds: Sequence[int] = SEEDS, noise_rates: Sequence[float] = (0.2, 0.0)) -> list[RunConfig]:
    """From the recipe as the paper describes it to the recipe as its code ran it, one change a rung.

    CIFAR-10 at 20 and 0 % noise, CE and ELR, multi-step: fresh crops and flips; drawn once; once in float16 with a
    new loss scaler each batch. Then single changes: noise that never draws the true class, 45,000 training images, and
    with crops drawn once the beta 0.3 that the code held under names that say CE. Accuracy against noisy test labels
    is in every record. Last the SAM comparison, ELR at the first noise rate: learning rate and weight decay of the
    code's SAM run, its double updates, together and one at a time, and its schedule, cosine restarts for 50 epochs.

    The first seed climbs the ladder before the others repeat its first step at the first noise rate, which is the one
    that moves most; then the first seed does the rest, and the others last.
    """

    def ladder(seed: int) -> list[RunConfig]:
        runs = []
        for plain in described(seed):
            frozen = plain.with_(augmentation="frozen")
            runs += [plain, frozen, frozen.with_(precision="float16_fresh_scaler")]
        return runs

    def described(seed: int, rates: Sequence[float] = noise_rates) -> list[RunConfig]:
        return [cifar10_recipe(loss, rate, seed=seed) for rate in rates for loss in ("ce", "elr")]

    def rest(seed: int) -> list[RunConfig]:
        runs = []
        for plain in described(seed):
            runs.append(plain.with_(split="held_out"))
            if plain.noise_rate:
                runs.append(plain.with_(noise_convention="others"))
            if plain.loss == "elr":
                runs.append(plain.with_(augmentation="frozen", beta=0.3))
        plain = cifar10_recipe("elr", noise_rates[0], seed=seed)
        sharp = plain.with_(sam_rho=0.05)
        code = {"lr": 0.1, "weight_decay": 0.0}
        return [
            *runs,
            sharp,
            plain.with_(lr=0.1),
            plain.with_(weight_decay=0.0),
            plain.with_(**code),
            sharp.with_(**code),
            sharp.with_(**code, sam_double_update=True),
            sharp.with_(sam_double_update=True),
            sharp.with_(sam_double_update=True, sam_double_update_of="batch_norm"),
            sharp.with_(sam_double_update=True, sam_double_update_of="targets"),
            plain.with_(**code, schedule="cosine", epochs=50),
            sharp.with_(**code, sam_double_update=True, schedule="cosine", epochs=50),
        ]

    first, *others = seeds
    step = [
        config for seed in others for plain in described(seed, noise_rates[:1])
        for config in (plain, plain.with_(augmentation="frozen"))
    ]  # fmt: skip
    return [*ladder(first), *step, *rest(first), *(run for seed in others for run in ladder(seed) + rest(seed))]


# The published sweeps' ranges (sweep.yaml of the paper's repository, f83ce2c and 7a90999). Their schedules differ from
# ours: the random search has 50 epochs and 10 % noise, and cosine annealing ends at 1e-3 in both, above Adam's 1e-4.
RANDOM_SWEEP = {
    "lr": stats.loguniform(math.exp(-6.9), math.exp(-3.5)),
    "optimizer": ["sgd", "adam"],
    "schedule": ["multistep", "cosine"],
    "momentum": stats.uniform(0.6, 0.39),
    "weight_decay": stats.uniform(1e-5, 1e-2 - 1e-5),
    "lam": stats.loguniform(math.exp(-2.3), math.exp(1.09)),
    "beta": stats.uniform(0.5, 0.49),
    "batch_size": [64, 128, 256],
}
GRID_SWEEP = {
    "lr": [0.001, 0.003, 0.01, 0.03],
    "optimizer": ["sgd", "adam"],
    "momentum": [0.85, 0.9, 0.95],
    "weight_decay": [0.002, 0.004, 0.006],
    "lam": [3.2, 3.4, 3.6, 3.8],
}
RANDOM_SWEEP_RUNS = 112  # with the grid's 288 the "over 400 possible combinations" of Section 5.4


def sweep_random(size: int = RANDOM_SWEEP_RUNS) -> list[RunConfig]:
    """The random search over 8 hyper-parameters, on CIFAR-10 at 20 % noise, 30 epochs.

    A tenth of the images is held out with noisy labels, so that selection on it can be compared with the paper's
    selection on the test set. The first `size` draws of one sequence: a larger size adds runs and changes none.
    """
    from sklearn.model_selection import ParameterSampler  # not before: the other plans need not wait for it

    sampler = ParameterSampler(RANDOM_SWEEP, n_iter=size, random_state=0)
    return [_sweep_run(**{k: _short(v) for k, v in draw.items()}) for draw in sampler]


def sweep_grid(size: int | None = None) -> list[RunConfig]:
    """The grid over 5 hyper-parameters, 288 settings in an order drawn from a fixed seed; `size` takes the first ones.

    As in the published code, Adam's learning rate and weight decay are fixed (1e-4, 1e-5) and it takes no momentum, so
    that its 144 settings are 4 distinct runs.
    """
    from sklearn.model_selection import ParameterGrid

    settings = list(ParameterGrid(GRID_SWEEP))
    random.Random(0).shuffle(settings)
    runs = []
    for setting in settings[:size]:
        if setting["optimizer"] == "adam":
            setting = setting | {"lr": 1e-4, "weight_decay": 1e-5}
        runs.append(_sweep_run(**setting, schedule="cosine", beta=0.85, batch_size=128))
    return runs


def sweep_subgrid(size: int | None = None) -> list[RunConfig]:
    """A part of the grid that one can afford: SGD at the middle momentum and weight decay, all learning rates and
    lambdas (16 runs), and Adam's 4 distinct runs; `size` takes the first ones. All are runs of `sweep_grid`."""
    runs = {config.run_id: config for config in sweep_grid()}.values()
    middle = {"momentum": 0.9, "weight_decay": 0.004}
    kept = [c for c in runs if c.optimizer == "adam" or c.model_dump(include=set(middle)) == middle]
    return kept[:size]


def _sweep_run(**setting: Any) -> RunConfig:
    if setting["schedule"] == "multistep":
        setting["milestones"] = (10, 20)
    return cifar10_recipe("elr", 0.2, split="held_out", epochs=30, **{"eta_min": 1e-4, **setting})


def _short(value: Any) -> Any:
    """Six digits are enough to repeat a draw, and read well in a record."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


# Training as the losses' authors publish it, as far as our networks allow: Wang et al.'s train_models.py and util.py
# (235d93b), Ma et al.'s configs/cifar10/sym (2d18de6). Both take log 10^-4 for log 0, ours is -4: beta makes up for it.
# Wang et al. decay one dense layer alone, which ResNets lack; 1e-4 is what Ma et al. give every loss, that one too.
AUTHORS: dict[str, dict[str, Any]] = {
    "sce": {"lr": 0.01, "weight_decay": 1e-4, "gamma": 0.1, "loss_alpha": 0.1, "loss_beta": round(math.log(10), 6)},
    "nce_rce": {
        "lr": 0.01, "weight_decay": 1e-4, "schedule": "cosine", "milestones": None, "gamma": None,
        "restart_epochs": 120, "eta_min": 0.0, "loss_alpha": 1.0, "loss_beta": round(math.log(10), 6),
    },
}  # fmt: skip


def related_losses(seeds: Sequence[int] = SEEDS, noise_rates: Sequence[float] = (0.2, 0.4)) -> list[RunConfig]:
    """Symmetric CE and NCE+RCE beside CE and ELR: all under the paper's recipe, those two also under their authors'."""
    runs = []
    for seed in seeds:
        for rate in noise_rates:
            for loss in ("ce", "elr", "sce", "nce_rce"):
                plain = cifar10_recipe(loss, rate, "multistep", seed)
                runs += [plain, plain.with_(**AUTHORS[loss])] if loss in AUTHORS else [plain]
    return runs


PLANS: dict[str, Callable[..., list[RunConfig]]] = {
    "early-learning": early_learning,
    "table1": table1,
    "forensics": forensics,
    "sam": sam,
    "human-noise": human_noise,
    "sweep-random": sweep_random,
    "sweep-grid": sweep_grid,
    "sweep-subgrid": sweep_subgrid,
    "related-losses": related_losses,
}


def plan(name: str, scale: str = "cpu", size: int | None = None, **options: Any) -> list[RunConfig]:
    """The runs of plan `name` at a scale of `SCALES`, in order of priority, each once. Raises ConfigError.

    size     for the sweeps: how many settings of their fixed order; default: 112 random ones, the whole (sub-)grid
    options  what the plan's own function takes (seeds, noise_rates, levels, schedules), None for its default; and
             epochs: shorten or lengthen every run to these, its milestones in proportion
    """
    if name not in PLANS:
        raise ConfigError(f"plan={name!r}: allowed are {', '.join(PLANS)}")
    if scale not in SCALES:
        raise ConfigError(f"scale={scale!r}: allowed are {', '.join(SCALES)}")
    sweep = name.startswith("sweep-")
    if size is not None and not sweep:
        raise ConfigError(f"size={size} for plan {name}: allowed is at least 1, for the sweeps alone")
    options = {key: value for key, value in options.items() if value is not None}
    epochs = options.pop("epochs", None)
    for key, value in (("epochs", epochs), ("size", size)):
        if value is not None and not is_whole(value, 1):
            raise ConfigError(f"{key}={value!r} for plan {name}: allowed is None or a whole number from 1")
    known = [key for key in inspect.signature(PLANS[name]).parameters if key != "size"]
    if unknown := options.keys() - known:
        raise ConfigError(f"{min(unknown)} for plan {name}: allowed are {', '.join([*known, 'epochs'])}")
    options = {key: as_list(key, value) for key, value in options.items()}
    runs = PLANS[name](**options, **({"size": size} if size else {}))
    if scale == "cpu":
        fewer = {"forensics": _cpu_fewer_images, "human-noise": _cpu_human}
        smaller = _cpu_sweep if sweep else fewer.get(name, _cpu)
        runs = [smaller(config) for config in runs]
    elif scale == "digits":
        runs = [_digits(config) for config in runs]
    if epochs is not None:
        runs = [_for_epochs(config, epochs) for config in runs]
    return list({config.run_id: config for config in runs}.values())


def at_scales(name: str, scales: Sequence[str] | str, **options: Any) -> dict[str, list[RunConfig]]:
    """`plan` at each of these scales, with the same options; `scales` may be papermill's text of a list."""
    return {scale: plan(name, scale, **options) for scale in as_list("scales", scales)}


def at_cpu_scale(config: RunConfig) -> RunConfig:
    """The same question for the small net: 30 epochs on all images, no augmentation, about ten minutes on one core."""
    schedule = {"milestones": (12, 24), "gamma": 0.1} if config.schedule == "multistep" else {}
    return config.with_(
        model="small_resnet", width=32, stem_stride=2, epochs=30, lr=0.05, augmentation="none", precision="bfloat16",
        eval_every=5, **schedule,
    )  # fmt: skip


def _cpu(config: RunConfig) -> RunConfig:
    smaller = at_cpu_scale(config).with_(**_own_rate(config))
    if config.epochs == 240:  # SGD given SAM's cost
        return smaller.with_(epochs=60, milestones=(24, 48))
    if config.restart_epochs == config.epochs:  # one descent to the end, without restarts
        return smaller.with_(restart_epochs=smaller.epochs)
    return smaller


def _own_rate(config: RunConfig) -> dict[str, float]:
    """A learning rate that is not the recipe's keeps its proportion to it, as `at_cpu_scale` has 0.05 for 0.02."""
    return {} if config.lr == 0.02 else {"lr": 0.05 * config.lr / 0.02}


def _cpu_fewer_images(config: RunConfig) -> RunConfig:
    """20,000 images, 40 epochs, and the run's own augmentation, precision, learning rate and schedule."""
    kept: dict[str, Any] = {"augmentation": config.augmentation, "precision": config.precision, **_own_rate(config)}
    if config.schedule == "multistep":
        kept["milestones"] = (16, 32)
    # Restarts come every 10 epochs at any scale: 20 epochs stand for 50, so that the last cycle too ends at its foot.
    epochs = 40 if config.epochs == 120 else 20
    return at_cpu_scale(config).with_(train_size=20_000, epochs=epochs, **kept)


def _cpu_human(config: RunConfig) -> RunConfig:
    """20,000 images with flips, 40 epochs: a plan of 90 runs has to be affordable, about five minutes each."""
    return _cpu_fewer_images(config).with_(augmentation="flip")


def _cpu_sweep(config: RunConfig) -> RunConfig:
    """10,000 images with flips, the sweep's own hyper-parameters and 30 epochs: about two minutes on one core."""
    kept = config.model_dump(include={"lr", "epochs", "milestones", "gamma"})
    return at_cpu_scale(config).with_(train_size=10_000, augmentation="flip", **kept)


def _digits(config: RunConfig) -> RunConfig:
    """The same question of the digits, for 30 epochs, some five seconds. Labels flipped within fixed pairs of classes
    stand for people's, of which the digits have none."""
    changes: dict[str, Any] = dict(
        dataset="digits", model="small_resnet", width=16, stem_stride=1, batch_size=64, lr=1.5 * config.lr,
        precision="float32" if config.precision == "bfloat16" else config.precision,
    )  # fmt: skip
    if config.noise == "human":
        changes |= {"noise": "asymmetric", "noise_convention": "intended"}
    if config.dataset == "cifar100":  # the digits stand for both: one run
        config = cifar10_recipe(config.loss, config.noise_rate, config.schedule, config.seed, split=config.split)
    small = _for_epochs(config.with_(**changes), {240: 60, 50: 10}.get(config.epochs, 30))
    frozen = config.augmentation == "frozen"
    return small.with_(augmentation="frozen" if frozen else "none", **({"gamma": 0.1} if small.milestones else {}))


def _for_epochs(config: RunConfig, epochs: int) -> RunConfig:
    """`config` for another number of epochs, its milestones in proportion; a descent to the end still ends there."""
    if config.restart_epochs == config.epochs:
        return config.with_(epochs=epochs, restart_epochs=epochs)
    if config.milestones is None:
        return config.with_(epochs=epochs)
    moved = sorted({round(milestone * epochs / config.epochs) for milestone in config.milestones} - {0})
    return config.with_(epochs=epochs, milestones=tuple(moved))
