"""How suspicious each label is: scores, the list, the ranked table.

Everything begins with one array of class probabilities (n, C), such as the targets that ELR keeps for each training
image (Liu et al. 2020, Section 4.2).

    >>> found = judged(probabilities, labels)                                   # doctest: +SKIP
    >>> table = rank(found, labels, ids, class_names, scores)                   # doctest: +SKIP
    >>> table = table[suspect_list(found)[table.index]]                         # doctest: +SKIP
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

COLUMNS = ["id", "label", "suggested_label", "confidence", "reason"]

SUSPECT_ODDS = 2.0  # see suspect_list
ALTERNATIVES = 3  # other classes that a person is offered


class AuditError(ValueError):
    """An input that cannot be audited; one line that names what is wrong, where, and what is expected."""


# Scores ---------------------------------------------------------------------------------------------------------------


def label_scores(probabilities: ArrayLike, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """How suspicious each given label is, (n,) in [0, 1]; higher is more suspicious.

    probabilities: (n, C), rows are scaled to sum 1 (ELR's targets start at 0 and sum to less in the first epochs);
    labels: (n,) in 0 ... C - 1. One less the label's probability, after each class's probability is divided by the mean
    that the labels of the class have, for a model that is surer of some classes than of others (the thresholds of
    confident learning: Northcutt et al., JAIR 2021, Equation 2); a class without labels has the mean of all.
    """
    p, rows = _to_one(probabilities), np.arange(len(labels))
    given, classes = p[rows, labels], p.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=given, minlength=classes)
    p /= np.maximum(np.where(counts > 0, sums / np.maximum(counts, 1), given.mean()), 1e-6)
    return np.clip(1 - p[rows, labels] / p.sum(1), 0, 1)


def _to_one(probabilities: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(probabilities, dtype=float)
    return p / p.sum(1, keepdims=True)


# Lists ----------------------------------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """What is left of probabilities (n, C) for a list: own (n,), each label's; others (n, k), the k = min(3, C - 1)
    most probable other classes, best first; chance (n, k), theirs."""

    own: NDArray[np.float64]
    others: NDArray[np.int64]
    chance: NDArray[np.float64]


def judged(probabilities: ArrayLike, labels: NDArray[np.int64]) -> Judged:
    """Of probabilities (n, C) and labels (n,) as `label_scores` takes them; of equally probable classes the first."""
    p, rows = _to_one(probabilities), np.arange(len(labels))
    own, p[rows, labels] = p[rows, labels], -1
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


def no_repeats(ids: "pd.Series[str]", what: str = "ids") -> None:
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise AuditError(f"{what}: {repeated.iloc[0]!r} is there more than once; expected unique ids")
