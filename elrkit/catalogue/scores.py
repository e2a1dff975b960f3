"""How suspicious each label is: scores, the list, the ranked table, and how good a list is where the truth is known.

Everything begins with one array of class probabilities (n, C), such as the targets that ELR keeps for each training
image (Liu et al. 2020, Section 4.2).

    >>> found = judged(probabilities, labels)                                   # doctest: +SKIP
    >>> table = rank(found, labels, ids, class_names, scores)                   # doctest: +SKIP
    >>> table = table[suspect_list(found)[table.index]]                         # doctest: +SKIP
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score

from elrkit.config import RunConfig

COLUMNS = ["id", "label", "suggested_label", "confidence", "reason"]

SUSPECT_ODDS = 2.0  # see suspect_list
ALTERNATIVES = 3  # other classes that a person is offered


class AuditError(ValueError):
    """An input that cannot be audited; one line that names what is wrong, where, and what is expected."""


def for_list(dataset: str, loss: str, epochs: int, **changes: Any) -> RunConfig:
    """The training behind a list of labels to look at, minutes on a CPU: the small net, flips, learning rate a tenth
    after 40 % of the epochs and again after 80 %. Of `elrkit audit`, and of the studies that measure it."""
    fields = dict(
        dataset=dataset, loss=loss, epochs=epochs, lr=0.05, schedule="multistep", gamma=0.1, augmentation="flip",
        milestones=tuple(sorted({epochs * 2 // 5, epochs * 4 // 5} - {0})), precision="bfloat16", batch_size=128,
    )  # fmt: skip
    return RunConfig(**fields | changes)


# Scores ---------------------------------------------------------------------------------------------------------------


def label_scores(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """How suspicious each given label is, (n,) in [0, 1]; higher is more suspicious.

    probabilities: (n, C), rows are scaled to sum 1 (ELR's targets start at 0 and sum to less in the first epochs);
    labels: (n,) integers in 0 ... C - 1. One less the label's probability, after each class's probability is divided by
    its `class_confidence`, for a model that is surer of some classes than of others.
    """
    p, y = _checked(probabilities, labels)
    p = p / class_confidence(p, y)
    return np.clip(1 - p[np.arange(len(y)), y] / p.sum(1), 0, 1)


def class_confidence(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """The mean probability of class k over the examples labelled k, (C,): the thresholds of confident learning.

    Northcutt et al., JAIR 2021, Equation 2. A class without examples gets the mean over all examples of their labels.
    """
    p, y = _checked(probabilities, labels)
    given = p[np.arange(len(y)), y]
    counts = np.bincount(y, minlength=p.shape[1])
    sums = np.bincount(y, weights=given, minlength=p.shape[1])
    means = np.where(counts > 0, sums / np.maximum(counts, 1), given.mean())
    return np.maximum(means, 1e-6)


# Lists ----------------------------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """What is left of probabilities (n, C) for a list: own (n,), each label's; others (n, k), the k = min(3, C - 1)
    most probable other classes, best first; chance (n, k), theirs."""

    own: NDArray[np.float64]
    others: NDArray[np.int64]
    chance: NDArray[np.float64]


def judged(probabilities: ArrayLike, labels: ArrayLike) -> Judged:
    """Of probabilities (n, C) and labels (n,) as `label_scores` takes them; of equally probable classes the first."""
    p, y = _checked(probabilities, labels)
    rows = np.arange(len(y))
    own, p[rows, y] = p[rows, y], -1
    return Judged(own, *most_probable(p, min(ALTERNATIVES, p.shape[1] - 1)))


def most_probable(p: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(the `count` most probable classes of each row (n, C), best first, their probabilities), both (n, count); of
    equal ones the first. The array is used up."""
    rows, classes, found = np.arange(len(p)), [], []
    for _ in range(count):
        classes.append(p.argmax(1))
        found.append(p[rows, classes[-1]])
        p[rows, classes[-1]] = -1
    return np.stack(classes, 1), np.stack(found, 1)


def suspect_list(found: Judged) -> NDArray[np.bool_]:
    """The labels worth a look, (n,): another class is more than twice as probable as the given one.

    Any class that is more probable would make a list too long where the model itself is often wrong. Twice as probable
    was chosen among some fifty rules as the best on average over 38 sets of probabilities: the digits with 10 to 40 %
    wrong labels (six kinds of models, out-of-fold), and 20,000 images with the human labels random1 and worst of
    CIFAR-10N (ELR's targets, out-of-fold cross-entropy, both combined).
    """
    # With room for rounding: a class exactly twice as probable must not fall on either side by chance.
    return found.chance[:, 0] > SUSPECT_ODDS * found.own * (1 + 1e-12)


# The table ------------------------------------------------------------------------------------------------------------


def rank(
    found: Judged, labels: NDArray[np.int64], ids: Sequence[object], class_names: Sequence[str], scores: ArrayLike
) -> pd.DataFrame:
    """All labels as a table, the most suspicious first.

    labels: (n,); ids: n unique names; class_names: C names; scores: (n,), higher is more suspicious.
    Columns: id, label, suggested_label (the most probable class other than the label), confidence (the score), reason
    (both probabilities), alternative_2 and alternative_3 (the next probable classes), chance_1 to chance_3 of the
    suggested label and these. The index holds each row's position in the arrays: ``thumbnails[table.index]``.
    """
    ids, names = list(ids), [str(name) for name in class_names]
    if len(ids) != len(labels):
        raise AuditError(f"{len(ids)} ids for {len(labels)} labels: expected one each")
    if (most := max(int(labels.max()), int(found.others.max()))) >= len(names):
        raise AuditError(f"{len(names)} class names, and a label {most}: expected one each")
    text = np.array(names, dtype=object)
    table = pd.DataFrame(
        {
            "id": [str(each) for each in ids],
            "label": text[labels],
            "suggested_label": text[found.others[:, 0]],
            "confidence": np.asarray(scores, dtype=np.float64),
            "reason": [
                f"{names[label]} {100 * own:.0f} %, {names[other]} {100 * best:.0f} %"
                for label, other, own, best in zip(
                    labels, found.others[:, 0], found.own, found.chance[:, 0], strict=True
                )
            ],
        },
        columns=COLUMNS,
    )
    for place in range(found.others.shape[1]):
        if place:
            table[f"alternative_{place + 1}"] = text[found.others[:, place]]
        table[f"chance_{place + 1}"] = found.chance[:, place].round(4)
    no_repeats(table["id"])
    return table.iloc[np.argsort(-table["confidence"].to_numpy(), kind="stable")]


# How good a list is, where the truth is known -------------------------------------------------------------------------


class Effort(NamedTuple):
    """How many labels a person looks at, on average: going down the list, and in random order."""

    with_list: float
    at_random: float


def precision_at(wrong: ArrayLike, scores: ArrayLike, share: float) -> float:
    """The share of really wrong labels among the most suspicious `share` of all, at least one.

    wrong: (n,) bool, the truth; scores: (n,). Equal scores are taken in random order: the expected value is returned.
    """
    found, bad = _truth(wrong, scores)
    if not 0 < share <= 1:
        raise AuditError(f"share={share}: expected a number above 0, at most 1")
    top = max(1, round(share * len(bad)))
    sizes, hits = _groups(found, bad)
    before = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    taken = np.clip(top - before, 0, sizes)
    return float((hits * taken / sizes).sum() / top)


def effort(wrong: ArrayLike, scores: ArrayLike, share: float = 0.5) -> Effort:
    """How many labels to look at, most suspicious first, to find `share` of the wrong ones; and at random.

    wrong: (n,) bool, the truth; scores: (n,). Both are expected values: with w wrong among n in random order the m-th
    is met at m (n + 1) / (w + 1) (negative hypergeometric), and so within a group of equal scores.
    """
    found, bad = _truth(wrong, scores)
    if not 0 < share <= 1:
        raise AuditError(f"share={share}: expected a number above 0, at most 1")
    total = int(bad.sum())
    wanted = math.ceil(share * total - 1e-9)
    sizes, hits = _groups(found, bad)
    cumulative = np.cumsum(hits)
    last = int(np.searchsorted(cumulative, wanted))  # the group in which the wanted one lies
    missing = wanted - (cumulative[last] - hits[last])
    inside = missing * (sizes[last] + 1) / (hits[last] + 1)
    return Effort(float(sizes[:last].sum() + inside), wanted * (len(bad) + 1) / (total + 1))


def measure(wrong: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """The figures by which lists are compared; all but the effort are in [0, 1].

    wrong: (n,) bool, the truth; scores: (n,). Keys: wrong_share (also a random order's precision), average_precision,
    precision_at_1, _5 and _10 (percent), effort_half and effort_half_random (labels to look at to find half of the
    wrong ones).
    """
    found, bad = _truth(wrong, scores)
    looks = effort(bad, found)
    return {
        "wrong_share": float(bad.mean()),
        "average_precision": float(average_precision_score(bad, found)),
        **{f"precision_at_{percent}": precision_at(bad, found, percent / 100) for percent in (1, 5, 10)},
        "effort_half": looks.with_list,
        "effort_half_random": looks.at_random,
    }


def cleanlab_baseline(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """What cleanlab makes of the same probabilities: its scores as suspicion (n,)."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ModuleNotFoundError:
        raise ModuleNotFoundError("the comparison needs the package cleanlab: pip install 'elrkit[test]'") from None
    p, y = _checked(probabilities, labels)
    return 1 - get_label_quality_scores(y, p, method="self_confidence")


def _groups(scores: NDArray[np.float64], bad: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sizes of the groups of equal scores, highest score first, and how many wrong labels each holds."""
    _, group = np.unique(-scores, return_inverse=True)
    return np.bincount(group), np.bincount(group, weights=bad).astype(np.int64)


# Checks at the edge ---------------------------------------------------------------------------------------------------


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    p = np.asarray(probabilities, dtype=float)
    if p.ndim != 2 or p.shape[0] < 1 or p.shape[1] < 2:
        raise AuditError(f"probabilities: shape {p.shape}; expected (n, C) with at least one row and two classes")
    sums = p.sum(1)
    bad = ~np.isfinite(sums) | (p.min(1) < 0) | (sums <= 0)
    if bad.any():
        row = int(bad.argmax())
        raise AuditError(
            f"probabilities: row {row} is {p[row].tolist()}; expected finite numbers from 0, not all of them 0"
        )
    y = np.asarray(labels)
    if y.shape != p.shape[:1] or y.dtype.kind not in "iu":
        raise AuditError(f"labels: {y.dtype} of shape {y.shape}; expected integers of shape ({len(p)},)")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise AuditError(f"labels: {int(y.min())} to {int(y.max())}; expected 0 to {p.shape[1] - 1}")
    return p / sums[:, None], y.astype(np.int64)  # a copy, which `judged` uses up


def _truth(wrong: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    bad, found = np.asarray(wrong), np.asarray(scores, dtype=float)
    if bad.ndim != 1 or bad.dtype != bool or found.shape != bad.shape:
        raise AuditError(
            f"wrong: {bad.dtype} of shape {bad.shape}, scores: shape {found.shape}; expected bool (n,) and (n,)"
        )
    if not np.isfinite(found).all():
        raise AuditError(f"scores: row {int((~np.isfinite(found)).argmax())} is not a finite number")
    if not bad.any():
        raise AuditError("wrong: no label is wrong, so there is nothing to find")
    return found, bad


def no_repeats(ids: "pd.Series[str]", what: str = "ids") -> None:
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise AuditError(f"{what}: {repeated.iloc[0]!r} is there more than once; expected unique ids")
