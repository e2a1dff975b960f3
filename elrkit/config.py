"""RunConfig: all that decides the outcome of one training, validated, hashed to a run id; and the papers' recipes.

A run is one question, and equal configs share one id: fields that a choice makes meaningless by itself (beta without
ELR, milestones without multi-step) are reset to their defaults on construction. What only values make so is not
(milestones after the last epoch).

    >>> config = RunConfig(dataset="cifar10", noise_rate=0.2, loss="elr")
    >>> config.beta, config.lam
    (0.7, 3.0)
"""

import ast
import hashlib
import itertools
import json
import math
import reprlib
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from elrkit.losses import LOSSES, defaults

BUILT_IN_TRAIN_SIZES = {"digits": 1347, "cifar10": 50_000, "cifar100": 50_000}

# Share of wrong training labels in CIFAR-10N (Wei et al., ICLR 2022), by level, counted in the published file; of
# random2 and random3 as published.
HUMAN_NOISE_RATES = {"aggregate": 0.0901, "random1": 0.1723, "random2": 0.1812, "random3": 0.1764, "worst": 0.4021}

NOISE_CONVENTIONS = {
    "symmetric": ("all", "others"),
    "asymmetric": ("intended", "reference"),
    "human": tuple(HUMAN_NOISE_RATES),
}

ELR_CIFAR10, ELR_CIFAR100 = defaults("elr", "cifar10"), defaults("elr", "cifar100")

# Fields that older records have, with the one value that these have.
RETIRED = {"weight_average": 0.0, "sam_adaptive": False, "sam_double_update_of": "both"}


class ConfigError(ValueError):
    """A setting that cannot be honoured; one line that names the field, its value and what is allowed."""


class RunConfig(BaseModel):
    """One training, frozen. Raises `ConfigError` on construction when a field is not allowed."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, strict=True, allow_inf_nan=False)

    dataset: str = Field("digits", description="digits, cifar10, cifar100, an .npz file or a folder of class folders")
    train_size: int | None = Field(None, ge=1, description="use this many training images (none: all)")
    split: Literal["all", "held_out"] = Field(
        "all", description="train on all images, or hold out a tenth with noisy labels for model selection"
    )
    noise: Literal["none", "symmetric", "asymmetric", "human"] = Field("symmetric", description="kind of label noise")
    noise_rate: float = Field(0.0, ge=0, le=1, description="share of training labels that are redrawn or flipped")
    noise_convention: str | None = Field(
        None, description="symmetric: all or others; asymmetric: intended or reference; human: the level's name"
    )
    noise_draw: Literal["exact", "independent"] = Field(
        "exact", description="flip exactly ceil(rate n) labels, or each label independently"
    )
    noise_seed: int = Field(0, ge=0, description="which images are kept or held out and which labels are wrong")
    model: Literal["small_resnet", "resnet18", "resnet34"] = Field("small_resnet", description="network")
    # Below 8, a CPU with AVX2 alone corrupts memory: oneDNN's strided 1x1 convolution (uxlfoundation/oneDNN#6035).
    width: int | None = Field(None, ge=8, le=1024, description="channels of small_resnet's first block")
    stem_stride: int | None = Field(None, ge=1, le=2, description="stride of small_resnet's first convolution")
    loss: Literal["ce", "elr", "sce", "nce_rce", "gce"] = Field("ce", description="training loss")
    # Of a loss that does not use it, a parameter is None.
    beta: float | None = Field(None, ge=0, lt=1, description="elr: temporal ensembling of the targets")
    lam: float | None = Field(None, ge=0, description="elr: weight of the regularizer (lambda)")
    loss_alpha: float | None = Field(None, ge=0, description="sce, nce_rce: weight of the first (active) term")
    loss_beta: float | None = Field(None, ge=0, description="sce, nce_rce: weight of the second (passive) term")
    loss_q: float | None = Field(
        None, gt=0, le=1, description="gce: from cross-entropy (towards 0) to absolute error (1)"
    )
    optimizer: Literal["sgd", "adam"] = Field("sgd", description="optimizer")
    lr: float = Field(0.02, gt=0, description="initial learning rate")
    momentum: float | None = Field(None, ge=0, lt=1, description="sgd: momentum")
    weight_decay: float = Field(1e-3, ge=0, description="L2 weight decay on all parameters")
    sam_rho: float = Field(0.0, ge=0, description="radius of sharpness-aware minimization (0: off)")
    sam_double_update: bool = Field(
        False, description="SAM: move batch-norm statistics and ELR targets in both passes, as the paper's code did"
    )
    schedule: Literal["multistep", "cosine", "constant"] = Field("constant", description="learning-rate schedule")
    milestones: tuple[int, ...] | None = Field(
        None, strict=False, description="multistep: epochs after which lr is multiplied"
    )  # not strict: JSON has lists, not tuples
    gamma: float | None = Field(None, gt=0, le=1, description="multistep: the factor")
    restart_epochs: int | None = Field(None, ge=1, description="cosine: epochs between warm restarts (T_0)")
    eta_min: float | None = Field(None, ge=0, description="cosine: lowest learning rate")
    epochs: int = Field(60, ge=1, le=10_000, description="passes over the training images")
    batch_size: int = Field(64, ge=1, description="images a step")
    augmentation: Literal["fresh", "frozen", "flip", "none"] = Field(
        "none",
        description="random crop and flip anew each epoch (fresh) or drawn once (frozen); flip alone; nothing",
    )
    precision: Literal["float32", "bfloat16", "float16_fresh_scaler"] = Field(
        "float32",
        description="network arithmetic; float16_fresh_scaler makes a new loss scaler each batch, as the paper's code",
    )
    eval_every: int = Field(1, ge=1, description="epochs between evaluations of the training images")
    test_every: int = Field(1, ge=1, description="epochs between evaluations of the test and the held-out images")
    seed: int = Field(0, ge=0, description="initial weights, order and augmentation")

    def __init__(self, **fields: Any) -> None:
        # None means: the default. Numbers of numpy are numbers.
        given = {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in fields.items()
            if (value is not None or name not in type(self).model_fields) and (name, value) not in RETIRED.items()
        }
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise ConfigError(one_line(error, type(self).model_fields)) from None

    @model_validator(mode="after")
    def _canonical(self) -> Self:
        """Fill in what a choice implies and reset what it makes meaningless, so that one question has one id."""
        given, values, fields = self.model_fields_set, self.__dict__, type(self).model_fields

        def imply(active: bool, **defaults: Any) -> None:
            for name, default in defaults.items():
                if not active:
                    values[name] = fields[name].default
                elif name not in given:
                    values[name] = default

        of_loss = defaults(self.loss, self.dataset)
        imply(self.train_size != BUILT_IN_TRAIN_SIZES.get(self.dataset), train_size=None)
        digits = self.dataset == "digits"
        imply(self.model == "small_resnet", width=16 if digits else 32, stem_stride=1 if digits else 2)
        imply(False, **{name: None for row in LOSSES.values() for name in row.parameters.keys() - of_loss.keys()})
        imply(True, **of_loss)
        imply(self.optimizer == "sgd", momentum=0.9)
        imply(self.sam_rho != 0, sam_double_update=False)
        thirds = tuple(sorted({self.epochs // 3, 2 * self.epochs // 3} - {0}))
        imply(self.schedule == "multistep", milestones=thirds, gamma=0.01)
        imply(self.schedule == "cosine", restart_epochs=10, eta_min=0.001)
        if self.noise == "human":
            imply(True, noise_convention="worst")
            imply(True, noise_rate=HUMAN_NOISE_RATES.get(str(self.noise_convention), self.noise_rate))
            imply(False, noise_draw=None)
        elif self.noise_rate == 0:
            if self.noise_convention in (None, *sum(NOISE_CONVENTIONS.values(), ())):
                imply(False, noise_convention=None, noise_draw=None)
                values["noise"] = "none"
        elif self.noise != "none":
            imply(True, noise_convention=NOISE_CONVENTIONS[self.noise][0])
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        is_path = self.dataset.endswith(".npz") or "/" in self.dataset
        if self.dataset not in BUILT_IN_TRAIN_SIZES and not is_path:
            names = ", ".join(BUILT_IN_TRAIN_SIZES)
            raise ValueError(
                f"dataset={self.dataset!r}: allowed are {names}, a path ending in .npz or a folder with a /"
            )
        size = BUILT_IN_TRAIN_SIZES.get(self.dataset)
        if size and self.train_size and self.train_size > size:
            raise ValueError(
                f"train_size={self.train_size}: {self.dataset} has {size} training images, so at most {size}"
            )
        size = self.train_size or size
        if size and self.batch_size > size:
            raise ValueError(f"batch_size={self.batch_size}: larger than the {size} training images, so at most {size}")
        if self.noise == "none" and self.noise_rate > 0:
            raise ValueError(f"noise_rate={self.noise_rate} with noise='none': allowed is 0, or another kind of noise")
        allowed = NOISE_CONVENTIONS.get(self.noise, (None,))
        if self.noise_convention not in allowed:
            raise ValueError(
                f"noise_convention={self.noise_convention!r} with noise={self.noise!r}: allowed are "
                + ", ".join(map(repr, allowed))
            )
        if self.noise == "human":
            if self.dataset != "cifar10":
                raise ValueError(f"noise='human' with dataset={self.dataset!r}: allowed is dataset='cifar10' alone")
            rate = HUMAN_NOISE_RATES[str(self.noise_convention)]
            if self.noise_rate != rate:
                raise ValueError(f"noise_rate={self.noise_rate} with human labels: {self.noise_convention} has {rate}")
        if self.milestones is not None and (
            list(self.milestones) != sorted(set(self.milestones)) or min(self.milestones, default=0) < 0
        ):
            raise ValueError(
                f"milestones={self.milestones}: allowed are epochs from 0, each larger than the one before"
            )
        if self.precision == "float16_fresh_scaler" and self.sam_double_update:
            # The step to the worst point overflows with its gradient, and the second pass would keep what it met there.
            raise ValueError(
                "sam_double_update=True with precision='float16_fresh_scaler': allowed is another precision"
            )
        if self.eta_min is not None and self.eta_min > self.lr:
            raise ValueError(f"eta_min={self.eta_min}: allowed is at most lr={self.lr}")
        return self

    def to_json(self) -> str:
        """All fields as canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @property
    def run_id(self) -> str:
        """12 hex digits: SHA-256 of the canonical JSON of all fields that differ from their default.

        Defaults are left out so that a field added later, whose default is what was done before, renames no run.
        """
        text = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def with_(self, **changes: Any) -> Self:
        """A copy with other values, validated and canonical again (what followed from the old values is kept)."""
        return type(self)(**{**self.model_dump(), **changes})

    def describe(self) -> str:
        """A short human name, such as ``cifar10 symmetric 20 % elr cosine SAM 0.05 seed 1``."""
        noise = "clean" if self.noise == "none" else f"{self.noise} {100 * self.noise_rate:g} %"
        if self.noise == "human":
            noise = f"human {self.noise_convention}"
        size = f" {self.train_size:,} images" if self.train_size else ""
        sam = f" SAM {self.sam_rho:g}" if self.sam_rho else ""
        size += " a tenth held out" if self.split == "held_out" else ""
        return f"{self.dataset}{size} {noise} {self.loss} {self.schedule}{sam} {self.model} seed {self.seed}"


def one_line(error: ValidationError, fields: dict[str, FieldInfo]) -> str:
    """Pydantic's findings about a model with these fields as one line: field=value: what it should be."""
    parts = []
    for finding in error.errors():
        name, said = ".".join(map(str, finding["loc"])), finding["msg"].removeprefix("Input ")
        value = "" if finding["type"] == "missing" else f"={reprlib.repr(finding['input'])}"
        if finding["type"] == "value_error":  # of a check of ours, whose text is whole; a field's own lacks the name
            parts.append(f"{name}: {finding['ctx']['error']}".removeprefix(": "))
        elif finding["type"] == "extra_forbidden":
            parts.append(f"{name}: unknown field; allowed are {', '.join(fields)}")
        else:
            parts.append(f"{name}{value}: {said[0].lower()}{said[1:]}")
    return "; ".join(dict.fromkeys(parts))


def require(
    name: str, value: Any, low: float, high: float = math.inf, whole: bool = False, optional: bool = False
) -> None:
    """Raises ConfigError, naming `name`, unless `value` is a number from `low` to `high`, and a whole one if asked; or
    None, if it is optional."""
    number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool) and value != math.inf
    if not ((number and low <= value <= high) or (optional and value is None)):
        what = f"{'whole ' * whole}numbers from {low:g}{f' to {high:g}' if high < math.inf else ''}"
        raise ConfigError(f"{name}={value!r}: allowed are {what}")


def check_training(train: bool = False, jobs: int | None = None) -> None:
    """Raises ConfigError unless a notebook's `train` is True or False and its `jobs` None or a whole number from 1."""
    if not isinstance(train, bool):  # a text, even "false", would count as yes
        raise ConfigError(f"train={train!r}: allowed are True and False")
    require("jobs", jobs, 1, whole=True, optional=True)


def as_list(name: str, values: Any) -> list[Any]:
    """`values`, or the list that it is the text of; raises ConfigError, naming `name`, when it is empty or no list."""
    if isinstance(values, str) and values.startswith("[") and values.endswith("]"):
        try:
            values = ast.literal_eval(values)
        except (ValueError, SyntaxError):  # words without quotes
            values = [word.strip() for word in str(values)[1:-1].split(",")]
    if not isinstance(values, list | tuple) or not values:
        raise ConfigError(f"{name}={values!r}: allowed is a list with at least one value, such as [0.3] or [ce, elr]")
    return list(values)


def grid(noise_rates: list[float], losses: list[str], seeds: list[int], **fields: Any) -> list[RunConfig]:
    """Every combination once, noise rates outermost, as configs that share `fields`; the seed also draws the noise.

    A list may be text, such as "[0.3, 0.6]" or "[ce, elr]": papermill's -p hands lists over like that. Raises
    ConfigError when a list is empty or no list, or a combination is not allowed.
    """
    configs = (
        RunConfig(noise_rate=rate, loss=loss, seed=seed, noise_seed=seed, **fields)
        for rate, loss, seed in itertools.product(
            as_list("noise_rates", noise_rates), as_list("losses", losses), as_list("seeds", seeds)
        )
    )
    return list({config.run_id: config for config in configs}.values())


def cifar10_recipe(
    loss: str = "ce", noise_rate: float = 0.0, schedule: str = "multistep", seed: int = 0, **changes: Any
) -> RunConfig:
    """The paper's CIFAR-10 training (Section 5.2): ResNet-34, 120 epochs, lr 0.02, / 100 after epochs 40 and 80.

    ELR uses beta 0.7 and lambda 3. `changes` replaces single fields.
    """
    fields = dict(
        dataset="cifar10", model="resnet34", loss=loss, noise_rate=noise_rate, schedule=schedule, seed=seed,
        noise_seed=seed, epochs=120, batch_size=128, lr=0.02, augmentation="fresh", precision="bfloat16",
        milestones=(40, 80) if schedule == "multistep" else None,
    )  # fmt: skip
    return RunConfig(**{**fields, **changes})


def cifar100_recipe(
    loss: str = "ce", noise_rate: float = 0.0, schedule: str = "multistep", seed: int = 0, **changes: Any
) -> RunConfig:
    """The paper's CIFAR-100 training (Section 5.2): as CIFAR-10's, but 150 epochs, lr / 100 after epochs 80 and 120.

    ELR uses beta 0.9 and lambda 7.
    """
    milestones = (80, 120) if schedule == "multistep" else None
    fields = {"dataset": "cifar100", "epochs": 150, "milestones": milestones, **changes}
    return cifar10_recipe(loss, noise_rate, schedule, seed, **fields)
