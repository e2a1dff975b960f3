"""Which labels are probably wrong, by one dense layer over photos' features that is trained with ELR; and a check for
products that come later.

    found = audit(rows, labels, classes)      # rows: of elrkit.catalogue.features
    found.suspicion, found.confidence, found.wrong
    judged = check(found.model, new_rows, new_labels)

One training on all products orders the list. `ROUNDS` further ones, each without a fold of the products and with some
labels made wrong on purpose, are the yardstick: how high the made ones score says how many of the shop's own labels are
wrong, what a score means, and what the check will let through.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from sklearn.isotonic import IsotonicRegression
from torch import Tensor, nn

from elrkit.config import ConfigError
from elrkit.losses import ELRLoss
from elrkit.sam import perturbed

# Chosen on labels made wrong (benchmarks/head.md), not on any that people got wrong.
TRAINING = dict(lr=0.002, momentum=0.9, weight_decay=0.01, epochs=40, batch=256)
ELR = dict(beta=0.9, lam=3.0)
WIDTH = 1280  # features of the backbone that they were chosen for
MANY_CLASSES, TOP_K = 1000, 16  # with more classes, ELR keeps so many of a product's targets (benchmarks/top_k.md)
ROUNDS = 5
MADE_WRONG = 0.1  # of the labels, in each round
SUSPECT = 2.0  # another class is so many times as probable as the label: taken for an error when errors are copied
BOOTSTRAPS = 200
CURVE = 401  # points of a score's distribution that a model keeps
LEAST_LIKE = 0.01  # share of a shop's own products that count as unlike anything known

Rows = NDArray[np.float32]
Labels = NDArray[np.int64]


class Model(NamedTuple):
    """What `check` needs of an audit; `save_model` and `load_model` keep it as one safetensors file.

    weight (rounds, C, d) and bias (rounds, C) of the layers; mean and scale (d,) of the features; centres (C, d) of the
    categories; right and wrong (CURVE,) quantiles of the score of products that no layer was trained on, with their own
    labels and with labels made wrong; wrong_share; least_like, the likeness that products are known from; classes, and
    the backbone that the features are of.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    centres: Tensor
    own: Tensor
    made: Tensor
    wrong_share: float
    least_like: float
    classes: tuple[str, ...]
    backbone: str


class Share(NamedTuple):
    """An estimated share with a 95 % interval."""

    mean: float
    low: float
    high: float


class Found(NamedTuple):
    """What an audit finds of n products.

    probabilities (n, C): ELR's targets; suspicion (n,) in [0, 1]: 1 less what they grant the label, the order of the
    list; confidence (n,): the chance that the label is wrong; wrong: the share of all labels that are.
    """

    probabilities: NDArray[np.float64]
    suspicion: NDArray[np.float64]
    confidence: NDArray[np.float64]
    wrong: Share
    model: Model


def audit(
    rows: Rows,
    labels: Labels,
    classes: tuple[str, ...],
    backbone: str = "",
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Found:
    """Judge the labels (n,) of products by their features, rows (n, d), all finite; about a minute for 10,000.

    on_progress  epochs done and to do. Raises ConfigError when there are fewer than two categories or fewer than ten
                 products.
    """
    n, count = len(labels), len(classes)
    if n < 2 * ROUNDS or len(np.unique(labels)) < 2:
        raise ConfigError(f"{n} products of {len(np.unique(labels))} categories: at least ten of two are needed")
    draw = np.random.default_rng(seed)
    scaled, mean, scale = standardized(rows)
    x = torch.from_numpy(scaled)
    trainings = iter(range(ROUNDS + 1))

    def one(inside: Labels, given: Labels) -> tuple[NDArray[np.float64], nn.Linear]:
        number, epochs = next(trainings), TRAINING["epochs"]

        def told(epoch: int) -> None:
            on_progress(number * epochs + epoch, (ROUNDS + 1) * epochs)

        return trained(x[inside], torch.from_numpy(given[inside]), count, seed * (ROUNDS + 1) + number, told)

    probabilities, _ = one(np.arange(n), labels)
    suspicion = _suspicion(probabilities, labels)
    made, likely_right = _like_the_errors(probabilities, labels, draw)

    folds, turns = draw.permutation(n) % ROUNDS, draw.permutation(n)
    per_round = max(1, int(MADE_WRONG * n))
    seen: dict[str, list[NDArray]] = {"own": [], "made": []}  # scores of products that the round was trained on
    unseen = {"own": np.empty(n), "made": np.empty(n)}  # and of those that it was not
    layers = []
    for turn in range(ROUNDS):
        inside, outside = np.flatnonzero(folds != turn), np.flatnonzero(folds == turn)
        spoilt = np.zeros(n, bool)
        spoilt[turns[turn * per_round : (turn + 1) * per_round]] = True
        given = np.where(spoilt, made, labels)
        targets, layer = one(inside, given)
        scores = _suspicion(targets, given[inside])
        seen["own"].append(scores[~spoilt[inside]])
        seen["made"].append(scores[(spoilt & likely_right)[inside]])
        with torch.inference_mode():
            guess = layer(x[outside]).softmax(dim=1).double().numpy()
        unseen["own"][outside] = _suspicion(guess, labels[outside])
        unseen["made"][outside] = _suspicion(guess, made[outside])
        layers.append(layer)

    own, made_wrong = unseen["own"], unseen["made"][likely_right]
    wrong = estimated_share(own, made_wrong, draw)
    centres = torch.stack([x[torch.from_numpy(labels == k)].mean(0) for k in range(count)]).nan_to_num()
    points = np.linspace(0, 1, CURVE)
    model = Model(
        torch.stack([layer.weight.detach() for layer in layers]),
        torch.stack([layer.bias.detach() for layer in layers]),
        torch.from_numpy(mean), torch.from_numpy(scale), centres,
        torch.from_numpy(np.quantile(own, points)), torch.from_numpy(np.quantile(made_wrong, points)),
        wrong.mean, float(np.quantile(_likeness(x, centres), LEAST_LIKE)), classes, backbone,
    )  # fmt: skip
    confidence = _confidence(np.concatenate(seen["own"]), np.concatenate(seen["made"]), wrong.mean)
    return Found(probabilities, suspicion, confidence(suspicion), wrong, model)


def standardized(rows: Rows) -> tuple[Rows, Rows, Rows]:
    """(rows (n, d) with mean 0 and one deviation in every feature, the means (d,), what they are divided by (d,)).

    Deviation 1 where there are as many features as the learning rate was chosen for; fewer deviate more, so that rows
    are as long, and a layer over them learns as fast.
    """
    mean, scale = rows.mean(0), np.maximum(rows.std(0), 1e-6) * np.float32(np.sqrt(rows.shape[1] / WIDTH))
    return (rows - mean) / scale, mean, scale


def _suspicion(probabilities: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    return np.clip(1 - probabilities[np.arange(len(labels)), labels], 0, 1)


def _like_the_errors(
    probabilities: NDArray[np.float64], labels: Labels, draw: np.random.Generator
) -> tuple[Labels, NDArray[np.bool_]]:
    """(a wrong label for each product, which products are likely right).

    The shop's own errors are copied: a product of category k gets label j as often as suspects that look like k bear
    the label j, and, one time in the number of those and one more, any label as often as it is there. Errors between
    siblings are harder to see than errors at random, so a yardstick of another kind would be a wrong one.
    """
    n, count = probabilities.shape
    others = probabilities.copy()
    others[np.arange(n), labels] = -1
    suspect = others.max(1) > SUSPECT * probabilities[np.arange(n), labels]
    pairs = np.zeros((count, count))
    np.add.at(pairs, (others.argmax(1)[suspect], labels[suspect]), 1)
    pairs += (pairs.sum(0) + 1) / (pairs.sum() + count)
    np.fill_diagonal(pairs, 0)
    upto = (pairs / pairs.sum(1, keepdims=True)).cumsum(1)
    made = np.minimum((upto[labels] < draw.random(n)[:, None]).sum(1), count - 1)
    return np.where(made == labels, (labels + 1) % count, made), ~suspect


def trained(
    x: Tensor,
    labels: Tensor,
    classes: int,
    seed: int,
    on_epoch: Callable[[int], None] = lambda epoch: None,
    rho: float = 0.0,
    **recipe: float,
) -> tuple[NDArray[np.float64], nn.Linear]:
    """(ELR's targets (n, C), rows that sum to 1; the layer) of one training over x (n, d).

    rho     of SAM, which takes a second gradient a step; 0: none
    recipe  what differs from TRAINING and ELR; lam=0 is cross-entropy

    Of more than MANY_CLASSES a row holds the label's target, the TOP_K - 1 largest others, and one value for the rest.
    """
    chosen = TRAINING | ELR | recipe
    draw = torch.Generator().manual_seed(seed)
    layer = nn.Linear(x.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    rates = {name: chosen[name] for name in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(layer.parameters(), **rates)
    top_k = TOP_K if classes > MANY_CLASSES else None
    elr = ELRLoss(len(x), classes, beta=chosen["beta"], lam=chosen["lam"], top_k=top_k)
    steps = chosen["epochs"] * -(-len(x) // chosen["batch"])
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(chosen["epochs"]):
        for index in torch.randperm(len(x), generator=draw).split(chosen["batch"]):
            logits = layer(x[index])
            elr.update(index, logits, labels[index])
            optimizer.zero_grad()
            elr(logits, labels[index], index).backward()
            if rho:
                with perturbed(layer.parameters(), rho):
                    elr(layer(x[index]), labels[index], index).backward()
            optimizer.step()
            falling.step()
        on_epoch(epoch + 1)
    targets = elr.target_rows(torch.arange(len(x))).double()
    return (targets / targets.sum(dim=1, keepdim=True)).numpy(), layer


def estimated_share(own: NDArray, made: NDArray, draw: np.random.Generator) -> Share:
    """The share of wrong labels, from scores (n,) with the products' own labels and (m,) with labels made wrong.

    Above a score lie G of the own ones and W of the made ones. Of the own, wrong ones lie there as often as made ones,
    and right ones add to G, so the share is at most G / W at any score, and nearly that where right ones are rare
    (mixture proportion estimation, Blanchard et al., JMLR 2010). Interval: the 2.5 and 97.5 % points of a bootstrap.
    """

    def least(own: NDArray, made: NDArray) -> float:
        at = np.quantile(made, np.linspace(0, 0.8, 41))
        above = [1 - np.searchsorted(np.sort(scores), at) / len(scores) for scores in (own, made)]
        return float(np.clip((above[0] / above[1]).min(), 0, 1))

    redrawn = [least(draw.choice(own, len(own)), draw.choice(made, len(made))) for _ in range(BOOTSTRAPS)]
    return Share(least(own, made), *map(float, np.quantile(redrawn, (0.025, 0.975))))


def _confidence(own: NDArray, made: NDArray, wrong: float) -> Callable[[NDArray], NDArray[np.float64]]:
    """The chance that a label is wrong, by its score: the share of wrong ones times the density of made ones over that
    of own ones, which an isotonic regression of made against own gives."""
    scores = np.concatenate([own, made])
    is_made = np.repeat([0.0, 1.0], [len(own), len(made)])
    weights = np.repeat([1 / len(own), 1 / len(made)], [len(own), len(made)])
    odds = IsotonicRegression(out_of_bounds="clip").fit(scores, is_made, sample_weight=weights)

    def confidence(at: NDArray) -> NDArray[np.float64]:
        share = odds.predict(at)
        return np.clip(wrong * share / np.maximum(1 - share, 1e-9), 0, 1)

    return confidence


def _likeness(x: Tensor, centres: Tensor) -> NDArray[np.float64]:
    """The cosine of each row (n, d) with the nearest category's centre, (n,)."""
    return (
        torch.nn.functional.normalize(x).matmul(torch.nn.functional.normalize(centres).T).amax(dim=1).double().numpy()
    )


class Checked(NamedTuple):
    """What the check says of m products: verdict (m,) of "fits", "look" and "unlike"; suspicion (m,); alternatives
    (m, 3), places in `Model.classes` of the most probable other categories, and chance (m, 3), what each has."""

    verdict: NDArray[np.str_]
    suspicion: NDArray[np.float64]
    alternatives: NDArray[np.int64]
    chance: NDArray[np.float64]


class Passing(NamedTuple):
    """Up to which suspicion a product passes, and the share of wrong ones that lie above."""

    threshold: float
    caught: float


def passing(model: Model, let_through: float = 0.95) -> Passing:
    """The threshold that lets this share of the rightly filed products through, by those of the audit that no layer
    was trained on. Raises ConfigError when it is no share."""
    if not 0 < let_through < 1:
        raise ConfigError(f"let_through={let_through}: allowed is a number above 0 and below 1")
    at = torch.cat([model.own, model.made]).unique()

    def below(scores: Tensor) -> Tensor:
        return torch.searchsorted(scores.sort().values, at, right=True) / len(scores)

    right = (below(model.own) - model.wrong_share * below(model.made)) / max(1 - model.wrong_share, 1e-9)
    enough = torch.nonzero(right >= let_through)
    place = int(enough[0]) if len(enough) else len(at) - 1
    return Passing(float(at[place]), float(1 - below(model.made)[place]))


def check(model: Model, rows: Rows, labels: Labels, let_through: float = 0.95) -> Checked:
    """Judge products that the model was not made of: rows (m, d) of their features, labels (m,) places in its classes,
    -1 for a category that it does not know; NaN rows count as unlike anything known."""
    x = torch.from_numpy((rows - model.mean.numpy()) / model.scale.numpy())
    known = x.isfinite().all(dim=1)
    with torch.inference_mode():
        logits = torch.einsum("md,rcd->rmc", x.nan_to_num(), model.weight) + model.bias[:, None]
        chance = logits.softmax(dim=2).mean(dim=0).double().numpy()
    filed = np.maximum(labels, 0)
    suspicion = np.where(labels < 0, 1.0, 1 - chance[np.arange(len(labels)), filed])
    others = chance.copy()
    others[np.flatnonzero(labels >= 0), labels[labels >= 0]] = -1
    best = np.argsort(-others, axis=1, kind="stable")[:, :3]
    verdict = np.where(suspicion > passing(model, let_through).threshold, "look", "fits")
    strange = ~known.numpy() | (_likeness(x.nan_to_num(), model.centres) < model.least_like)
    return Checked(
        np.where(strange, "unlike", verdict), suspicion, best, np.maximum(np.take_along_axis(others, best, 1), 0)
    )


TENSORS = ("weight", "bias", "mean", "scale", "centres", "own", "made")


def save_model(model: Model, path: Path) -> None:
    """Write a model as one safetensors file, whole or not at all."""
    rest = {name: getattr(model, name) for name in Model._fields if name not in TENSORS}
    tensors = {name: getattr(model, name).float().contiguous() for name in TENSORS}
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(save_tensors(tensors, metadata={"elrkit": json.dumps(rest)}))
    partial.replace(path)


def load_model(path: Path) -> Model:
    """The model of a file that `save_model` wrote. Raises ConfigError when it is none."""
    try:
        content = path.read_bytes()
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        rest: dict[str, Any] = json.loads(head["__metadata__"]["elrkit"])
        return Model(**load_tensors(content), **rest | {"classes": tuple(rest["classes"])})
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); audit leaves it as model.safetensors") from None
    except (SafetensorError, ValueError, LookupError, TypeError):
        raise ConfigError(f"{path}: no model of an audit; audit leaves it as model.safetensors") from None
