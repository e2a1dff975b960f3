"""The named plans: which runs each part of the report needs, in order of priority, at `paper` and at `cpu` scale.

`cpu` scale asks a smaller question of the same images: a small residual net, fewer epochs, no augmentation, the paper's
lambda and beta. It shows directions, not the paper's numbers, and every figure says so.
"""

from collections.abc import Callable

from elrkit.config import TABLE1_NOISE_RATES, ConfigError, RunConfig, cifar10_recipe, cifar100_recipe

SEEDS = (0, 1, 2)


def at_cpu_scale(config: RunConfig) -> RunConfig:
    """The same question for the small net: 30 epochs on all images, no augmentation, about ten minutes on one core."""
    schedule = {"milestones": (12, 24), "gamma": 0.1} if config.schedule == "multistep" else {}
    return config.with_(
        model="small_resnet", width=32, stem_stride=2, epochs=30, lr=0.05, augmentation="none", precision="bfloat16",
        eval_every=5, **schedule,
    )  # fmt: skip


def on_ladder(config: RunConfig) -> RunConfig:
    """For ladders and sweeps: the small net on 20,000 images with flips, 40 epochs, about five minutes on one core."""
    schedule = {"milestones": (16, 32)} if config.schedule == "multistep" else {}
    return at_cpu_scale(config).with_(train_size=20_000, epochs=40, augmentation="flip", **schedule)


def table1() -> list[RunConfig]:
    """Table 1: seeds outermost, so that every cell has a first run before any has a second."""
    return [
        recipe(loss, rate, schedule, seed)
        for recipe, schedule in (
            (cifar10_recipe, "multistep"),
            (cifar10_recipe, "cosine"),
            (cifar100_recipe, "multistep"),
            (cifar100_recipe, "cosine"),
        )
        for seed in SEEDS
        for rate in sorted(TABLE1_NOISE_RATES, key=(0.2, 0.0, 0.1, 0.15).index)
        for loss in ("ce", "elr")
    ]


def early_learning() -> list[RunConfig]:
    """Figure 2 and its extension: CE and ELR at 20 % (the paper) and 40 % (Liu et al.), multi-step."""
    return [
        cifar10_recipe(loss, rate, "multistep", seed) for seed in SEEDS for rate in (0.2, 0.4) for loss in ("ce", "elr")
    ]


def sam() -> list[RunConfig]:
    """Figure 5's four cells with all else equal, and SGD with twice the epochs, which costs what SAM costs."""
    runs = []
    for seed in (0, 1, 2, 3):
        for loss in ("ce", "elr"):
            plain = cifar10_recipe(loss, 0.2, "multistep", seed)
            runs += [plain, plain.with_(sam_rho=0.05), plain.with_(epochs=240, milestones=(80, 160))]
    return runs


def human_noise() -> list[RunConfig]:
    """CIFAR-10N's three levels: CE, ELR, SAM, ELR with SAM; and symmetric noise of the same rate."""
    runs = []
    for seed in SEEDS:
        for level in ("worst", "random1", "aggregate"):
            human = dict(noise="human", noise_convention=level, noise_rate=None)
            for loss in ("ce", "elr"):
                plain = cifar10_recipe(loss, 0.0, "multistep", seed).with_(**human)
                runs += [plain, plain.with_(sam_rho=0.05)]
                # `others` makes the realized rate equal to the human one; `all` would leave a tenth of it right.
                runs.append(cifar10_recipe(loss, plain.noise_rate, "multistep", seed, noise_convention="others"))
    return runs


PLANS: dict[str, Callable[[], list[RunConfig]]] = {
    "early-learning": early_learning,
    "table1": table1,
    "sam": sam,
    "human-noise": human_noise,
}


def plan(name: str, scale: str = "cpu") -> list[RunConfig]:
    """The runs of plan `name` at scale `cpu` or `paper`, in order of priority, each once. Raises ConfigError."""
    if name not in PLANS:
        raise ConfigError(f"plan={name!r}: allowed are {', '.join(PLANS)}")
    if scale not in ("cpu", "paper"):
        raise ConfigError(f"scale={scale!r}: allowed are cpu, paper")
    runs = PLANS[name]()
    if scale == "cpu":
        runs = [_cpu(config) for config in runs]
    return list({config.run_id: config for config in runs}.values())


def _cpu(config: RunConfig) -> RunConfig:
    smaller = at_cpu_scale(config)
    if config.epochs == 240:  # SGD given SAM's cost
        return smaller.with_(epochs=60, milestones=(24, 48))
    return smaller
