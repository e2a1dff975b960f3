"""Which labels are probably wrong, by one dense layer over photos' features that is trained with ELR.

    found = audit(rows, labels, classes)      # rows: of elrkit.catalogue.features
    found.suspicion, found.confidence, found.wrong
    found.model               # by which elrkit.catalogue.checking.check judges products that come later

One training on all products orders the list. `ROUNDS` further ones, each without a fold of the products and with some
labels made wrong on purpose, are the yardstick: how high the made ones score says how many of the shop's own labels are
wrong, what a score means, and what the check will let through.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from torch import Tensor, nn

from elrkit.catalogue.checking import Labels, Model, Rows, likeness, on_scale, pieces
from elrkit.catalogue.features import PIECE
from elrkit.catalogue.scores import ALTERNATIVES, Judged, judged
from elrkit.config import ConfigError
from elrkit.losses import ELRLoss
from elrkit.sam import perturbed

# Chosen on labels made wrong (benchmarks/head.md), not on any that people got wrong.
TRAINING = dict(lr=0.002, momentum=0.9, weight_decay=0.01, epochs=40, batch=256)
ELR = dict(beta=0.9, lam=3.0)
WIDTH = 1280  # features of the backbone that they were chosen for
DENSE, TOP_K = 10**8, 16  # of more targets than that, ELR keeps so many of a product's (benchmarks/top_k.md)
IN_MEMORY = 1 << 30  # bytes of rows that are standardized once, and not whenever they are asked for
ROUNDS = 5
MADE_WRONG = 0.1  # of the labels, in each round
SUSPECT = 2.0  # another class is so many times as probable as the label: taken for an error when errors are copied
SIZES = (2, 3, 6, 21)  # products of a category, from each of which on confidence is found apart
LEAST_MADE = 10  # labels of a size that a confidence of its own rests on
TIE = 1e-6  # of a score in the order of equal confidences
BOOTSTRAPS = 200
CURVE = 401  # points of a score's distribution that a model keeps
LEAST_LIKE = 0.01  # share of a shop's own products that count as unlike anything known


class Share(NamedTuple):
    """An estimated share with a 95 % interval."""

    mean: float
    low: float
    high: float


class Found(NamedTuple):
    """What an audit finds of n products.

    judged: of ELR's targets, the label's and the most probable others'; confidence (n,): the chance that the label is
    wrong; suspicion (n,), the order of the list: by confidence, and where that is equal by what the targets do not
    grant the label; wrong: the share of all labels that are.
    """

    judged: Judged
    suspicion: NDArray[np.float64]
    confidence: NDArray[np.float64]
    wrong: Share
    model: Model


class Scaled:
    """Rows (n, d) as a layer takes them: mean 0 and one deviation in every feature, float32, by `scaled[index]`.

    Deviation 1 where there are as many features as the learning rate was chosen for; fewer deviate more, so that rows
    are as long, and a layer over them learns as fast. The rows may be mapped from a file that is larger than memory.
    """

    def __init__(self, rows: Rows) -> None:
        n, width = rows.shape
        of = [slice(start, start + PIECE) for start in range(0, n, PIECE)]
        mean = sum(rows[part].sum(0, dtype=np.float64) for part in of) / n
        square = sum(((rows[part].astype(np.float64) - mean) ** 2).sum(0) for part in of) / n
        self.mean = mean.astype(np.float32)
        self.scale = (np.maximum(np.sqrt(square), 1e-6) * np.sqrt(width / WIDTH)).astype(np.float32)
        self.shape = n, width
        self._rows = rows
        self._ready = self.of(rows) if 4 * n * width <= IN_MEMORY else None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        if self._ready is not None:
            return self._ready[index]
        return self.of(self._rows[index if isinstance(index, slice) else index.numpy()])

    def of(self, rows: Rows) -> Tensor:
        """Other rows (m, d) on the same scale."""
        return on_scale(rows, self.mean, self.scale)


def audit(
    rows: Rows,
    labels: Labels,
    classes: tuple[str, ...],
    backbone: str = "",
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
    filed: Labels | None = None,
    **recipe: float,
) -> Found:
    """Judge the labels (n,) of products by their features, rows (n, d), all finite; about a minute for 10,000.

    Neither the rows, which may be mapped from a file, nor a chance for each product and class are ever in memory as a
    whole.

    on_progress  epochs done and to do
    filed        (n,) the labels before a person corrected some, where one did. The yardstick is made of these: what a
                 person who goes down the list has left are the errors that score low, of which made ones say nothing
    recipe       what differs from TRAINING and ELR

    Raises ConfigError when there are fewer than two categories or fewer than ten products.
    """
    n, count = len(labels), len(classes)
    if n < 2 * ROUNDS or len(np.unique(labels)) < 2:
        raise ConfigError(f"{n} products of {len(np.unique(labels))} categories: at least ten of two are needed")
    draw = np.random.default_rng(seed)
    x, everyone = Scaled(rows), np.arange(n)
    before = labels if filed is None else filed
    corrected = before != labels
    trainings, epochs = iter(range(ROUNDS + 1)), (TRAINING | recipe)["epochs"]

    def one(inside: NDArray[np.int64], given: Labels) -> tuple[Callable[[Tensor], NDArray[np.float64]], nn.Linear]:
        """(the targets of these places among `inside`, the layer) of a training on these products."""
        number = next(trainings)

        def told(epoch: int) -> None:
            on_progress(number * epochs + epoch, (ROUNDS + 1) * epochs)

        elr, layer = trained(
            x, torch.from_numpy(given[inside]), count, seed * (ROUNDS + 1) + number, told,
            inside=torch.from_numpy(inside), **recipe,
        )  # fmt: skip

        def targets(places: Tensor) -> NDArray[np.float64]:
            found = elr.target_rows(places).double()
            return (found / found.sum(dim=1, keepdim=True)).numpy()

        return targets, layer

    targets, _ = one(everyone, labels)
    # What is kept of each piece is written into arrays that are there: between large pieces it would scatter memory.
    most = min(ALTERNATIVES, count - 1)
    found = Judged(np.empty(n), np.empty((n, most), np.int64), np.empty((n, most)))
    for piece in pieces(everyone):
        for whole, part in zip(found, judged(targets(piece), labels[piece]), strict=True):
            whole[piece] = part
    del targets
    made, likely_right = _like_the_errors(found, labels, before, count, draw)

    folds, turns = draw.permutation(n) % ROUNDS, draw.permutation(n)
    per_round = max(1, int(MADE_WRONG * n))
    # Scores of products that the round was trained on, and how many products their categories had in it.
    seen: dict[str, list[NDArray]] = {"own": [], "made": []}
    unseen = {"own": np.empty(n), "made": np.empty(n)}  # and of those that it was not
    layers = []
    for turn in range(ROUNDS):
        inside, outside = np.flatnonzero(folds != turn), np.flatnonzero(folds == turn)
        spoilt = np.zeros(n, bool)
        spoilt[turns[turn * per_round : (turn + 1) * per_round]] = True
        given = np.where(spoilt, made, before)
        targets, layer = one(inside, given)
        scores = np.empty(len(inside))
        for piece in pieces(np.arange(len(inside))):
            scores[piece] = _suspicion(targets(piece), given[inside[piece]])
        scored = np.stack([scores, np.bincount(given[inside])[given[inside]]])
        seen["own"].append(scored[:, ~spoilt[inside]])
        seen["made"].append(scored[:, (spoilt & likely_right)[inside]])
        for piece in pieces(outside):
            with torch.inference_mode():
                guess = layer(x[piece]).softmax(dim=1).double().numpy()
            unseen["own"][piece] = _suspicion(guess, before[piece])
            unseen["made"][piece] = _suspicion(guess, made[piece])
        layers.append(layer)

    own, made_wrong = unseen["own"], unseen["made"][likely_right]
    all_wrong = estimated_share(own, made_wrong, draw)
    wrong = Share(*(max(share - corrected.mean(), 0.0) for share in all_wrong))
    centres = _centres(x, labels, count)
    alike = np.empty(n)
    for piece in pieces(everyone):
        alike[piece] = likeness(x[piece], centres)
    points = np.linspace(0, 1, CURVE)
    model = Model(
        torch.stack([layer.weight.detach() for layer in layers]),
        torch.stack([layer.bias.detach() for layer in layers]),
        torch.from_numpy(x.mean), torch.from_numpy(x.scale), centres,
        torch.from_numpy(np.quantile(own, points)), torch.from_numpy(np.quantile(made_wrong, points)),
        all_wrong.mean, float(np.quantile(alike, LEAST_LIKE)), classes, backbone,
    )  # fmt: skip
    score = np.clip(1 - found.own, 0, 1)
    at = np.stack([score, np.bincount(labels)[labels]])
    confidence = _confidence(np.concatenate(seen["own"], 1), np.concatenate(seen["made"], 1), all_wrong.mean, at)
    return Found(found, confidence + TIE * score, confidence, wrong, model)


def _suspicion(probabilities: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    return np.clip(1 - probabilities[np.arange(len(labels)), labels], 0, 1)


def _by_class(labels: Labels, count: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(class, the places of its products) of each that has any."""
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(count + 1))
    return ((k, order[ends[k] : ends[k + 1]]) for k in range(count) if ends[k] < ends[k + 1])


def _centres(x: Scaled, labels: Labels, count: int) -> Tensor:
    """The mean row of each category, (C, d)."""
    centres = torch.zeros(count, x.shape[1])
    for k, members in _by_class(labels, count):
        centres[k] = sum(x[piece].sum(0) for piece in pieces(members)) / len(members)
    return centres


def _like_the_errors(
    found: Judged, labels: Labels, filed: Labels, count: int, draw: np.random.Generator
) -> tuple[Labels, NDArray[np.bool_]]:
    """(a wrong label for each product, which products are likely right).

    The shop's own errors are copied: a product of category k gets label j as often as suspects that look like k bear
    the label j, and corrected ones of k were filed under j; and, one time in the number of those and one more, any
    label as often as it is there. Errors between siblings are harder to see than errors at random, so a yardstick of
    another kind would be a wrong one.
    """
    suspect = found.chance[:, 0] > SUSPECT * found.own
    pairs = np.zeros((count, count))
    np.add.at(pairs, (found.others[suspect, 0], labels[suspect]), 1)
    corrected = filed != labels
    np.add.at(pairs, (labels[corrected], filed[corrected]), 1)
    pairs += (pairs.sum(0) + 1) / (pairs.sum() + count)
    np.fill_diagonal(pairs, 0)
    chance, made = draw.random(len(labels)), np.empty_like(labels)
    for k, members in _by_class(labels, count):
        upto = (pairs[k] / pairs[k].sum()).cumsum()
        made[members] = np.minimum(np.searchsorted(upto, chance[members]), count - 1)
    return np.where(made == labels, (labels + 1) % count, made), ~(suspect | corrected)


def trained(
    x: Tensor | Scaled,
    labels: Tensor,
    classes: int,
    seed: int,
    on_epoch: Callable[[int], None] = lambda epoch: None,
    rho: float = 0.0,
    inside: Tensor | None = None,
    **recipe: float,
) -> tuple[ELRLoss, nn.Linear]:
    """(ELR with its targets, the layer) of one training over x (n, d) with labels (n,).

    rho     of SAM, which takes a second gradient a step; 0: none
    inside  (m,) the rows of x that are trained on, and the labels (m,) are of; all of them without
    recipe  what differs from TRAINING and ELR; lam=0 is cross-entropy
    """
    chosen = TRAINING | ELR | recipe
    draw = torch.Generator().manual_seed(seed)
    layer = nn.Linear(x.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    rates = {name: chosen[name] for name in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(layer.parameters(), **rates)
    n = len(labels)
    top_k = TOP_K if n * classes > DENSE and classes > TOP_K else None
    elr = ELRLoss(n, classes, beta=chosen["beta"], lam=chosen["lam"], top_k=top_k)
    steps = chosen["epochs"] * -(-n // chosen["batch"])
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(chosen["epochs"]):
        for index in torch.randperm(n, generator=draw).split(chosen["batch"]):
            rows = x[index if inside is None else inside[index]]
            logits = layer(rows)
            elr.update(index, logits, labels[index])
            optimizer.zero_grad()
            elr(logits, labels[index], index).backward()
            if rho:
                with perturbed(layer.parameters(), rho):
                    elr(layer(rows), labels[index], index).backward()
            optimizer.step()
            falling.step()
        on_epoch(epoch + 1)
    return elr, layer


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


def _confidence(own: NDArray, made: NDArray, wrong: float, at: NDArray) -> NDArray[np.float64]:
    """The chance that a label is wrong, by its score and by how many products its category has, rows of `at` (2, n):
    the share of wrong ones times the density of made ones over that of own ones, which an isotonic regression of made
    against own gives. Few products teach a layer little of their category, so that their scores are high however they
    are filed: sizes are taken apart, unless there are too few made ones to tell.
    """
    group = [np.digitize(each[1], SIZES) for each in (own, made, at)]
    for size in range(len(SIZES)):
        if (group[1] == size).sum() < LEAST_MADE or (group[0] == size).sum() < LEAST_MADE:
            for each in group:
                each[each == size] = size + 1
    confidence = np.empty(at.shape[1])
    for size in range(len(SIZES) + 1):
        right, bad, asked = (each == size for each in group)
        if not asked.any():
            continue
        if not bad.any() or not right.any():  # the largest sizes, and hardly a product of them
            right, bad = np.ones_like(right), np.ones_like(bad)
        scores = np.concatenate([own[0, right], made[0, bad]])
        is_made = np.repeat([0.0, 1.0], [right.sum(), bad.sum()])
        weights = np.repeat([1 / own.shape[1], 1 / made.shape[1]], [right.sum(), bad.sum()])
        odds = IsotonicRegression(out_of_bounds="clip").fit(scores, is_made, sample_weight=weights)
        share = odds.predict(at[0, asked])
        confidence[asked] = np.clip(wrong * share / np.maximum(1 - share, 1e-9), 0, 1)
    return confidence
