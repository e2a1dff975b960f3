"""How suspicious each label is: scores, lists, the ranked table, and how good a list is where the truth is known.

Everything begins with one array of class probabilities (n, C): the targets that ELR keeps for each training image
(Liu et al. 2020, Section 4.2), out-of-fold probabilities of any model, or both put together by `combine`.

    >>> probabilities = combine(targets, out_of_fold)                           # doctest: +SKIP
    >>> listed = suspect_list(probabilities, labels)                            # doctest: +SKIP
    >>> table = rank(probabilities, labels, ids, class_names)                   # doctest: +SKIP
    >>> table = table[listed[table.index]]                                      # doctest: +SKIP
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from elrkit.config import RunConfig

Method = Literal["odds", "self_confidence", "margin", "balanced"]

COLUMNS = ["id", "label", "suggested_label", "confidence", "reason"]

SUSPECT_ODDS = 2.0  # see suspect_list
OF_TARGETS: Method = "balanced"  # the score that orders ELR's targets, see label_scores


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


def combine(*probabilities: ArrayLike) -> NDArray[np.float64]:
    """Several sources of class probabilities as one: their geometric mean, with rows that sum to 1.

    probabilities: arrays (n, C). A class that one source all but excludes stays excluded, so a label passes only when
    every source grants it something. Probabilities count as at least 1e-6, so that no source has a veto for ever.
    Raises AuditError when there is no source or their shapes differ.
    """
    if not probabilities:
        raise AuditError("combine: no probabilities given; expected at least one (n, C) array")
    sources = [normalized(each) for each in probabilities]
    if len({each.shape for each in sources}) > 1:
        raise AuditError(f"combine: shapes {', '.join(str(each.shape) for each in sources)}; expected the same for all")
    mean = np.exp(sum(np.log(np.maximum(each, 1e-6)) for each in sources) / len(sources))
    return mean / mean.sum(1, keepdims=True)


def label_scores(probabilities: ArrayLike, labels: ArrayLike, method: Method = "odds") -> NDArray[np.float64]:
    """How suspicious each given label is, (n,) in [0, 1]; higher is more suspicious.

    probabilities: (n, C), rows are scaled to sum 1 (ELR's targets start at 0 and sum to less in the first epochs);
    labels: (n,) integers in 0 ... C - 1. With y the given label and a the most probable class other than y:
    odds: p_a / (p_a + p_y), the label's rival against the label, whatever the other classes get; above 0.5 the rival
    leads. The least troubled by a model that is unsure of everything, so the default for probabilities of any model.
    self_confidence: 1 - p_y. margin: (1 - p_y + p_a) / 2. Both are 1 minus the label quality of Northcutt et al.
    (Confident Learning, JAIR 2021) as cleanlab computes it.
    balanced: self_confidence after each class's probability is divided by its `class_confidence`, for a model that
    is surer of some classes than of others. Of the four it ranks ELR's targets best, in every study of
    `elrkit.report.list_study` and on misfiled clothes, so those are ordered by it.
    """
    p, y = _checked(probabilities, labels)
    rows = np.arange(len(y))
    if method == "balanced":
        p = p / class_confidence(p, y)
        p /= p.sum(1, keepdims=True)
    own = p[rows, y]
    if method in ("self_confidence", "balanced"):
        return np.clip(1 - own, 0, 1)
    p[rows, y] = -1
    rival = p.max(1)
    if method == "odds":
        return rival / (rival + own)
    if method == "margin":
        return np.clip((1 - own + rival) / 2, 0, 1)
    raise AuditError(f"method={method!r}: allowed are {', '.join(get_args(Method))}")


def as_suspicious_as(reference: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """`scores` (m,) on the scale of `reference` (n,): each becomes the reference's score at the same relative rank.

    For two parts of one collection that two kinds of probabilities judge, as ELR's soft targets do the training images
    and the network's surer predictions the test images. Neither part then crowds the other out of the head of a common
    list: of either the same share lies above any score, as when labels are wrong equally often in both.
    """
    found = np.asarray(scores, dtype=np.float64)
    place = (rankdata(found) - 0.5) / max(1, len(found))  # equal scores stay equal
    return np.quantile(np.asarray(reference, dtype=np.float64), place)


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


def natural_list(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.bool_]:
    """The labels that differ from the most probable class, (n,); Liu et al.'s list when given ELR's targets."""
    p, y = _checked(probabilities, labels)
    return p.argmax(1) != y


def suspect_list(probabilities: ArrayLike, labels: ArrayLike, odds: float = SUSPECT_ODDS) -> NDArray[np.bool_]:
    """The labels worth a look, (n,): another class is more than `odds` times as probable as the given one.

    It is the top of the ranking by the score `odds`; 1 gives `natural_list`, which is too long where the model itself
    is often wrong. Twice as probable was chosen among some fifty rules as the best on average over 38 sets of
    probabilities: the digits with 10 to 40 % wrong labels (six kinds of models, out-of-fold), and 20,000 images with
    the human labels random1 and worst of CIFAR-10N (ELR's targets, out-of-fold cross-entropy, both combined).
    """
    if not odds > 0:
        raise AuditError(f"odds={odds}: expected a number above 0")
    return above(label_scores(probabilities, labels, "odds"), odds)


def above(scores: NDArray[np.float64], odds: float) -> NDArray[np.bool_]:
    # With room for rounding: a class exactly `odds` times as probable must not fall on either side by chance.
    return scores > odds / (1 + odds) + 1e-12


# The table ------------------------------------------------------------------------------------------------------------


def rank(
    probabilities: ArrayLike,
    labels: ArrayLike,
    ids: Sequence[object] | None = None,
    class_names: Sequence[str] | None = None,
    scores: ArrayLike | None = None,
) -> pd.DataFrame:
    """All labels as a table, the most suspicious first.

    ids: n unique names (default: the row numbers); class_names: C names (default: the class numbers); scores: (n,) in
    place of `label_scores`.
    Columns: id, label, suggested_label (the most probable class other than the label), confidence (that the label is
    wrong: `label_scores`, an order rather than a calibrated chance), reason (in words). The index holds each row's
    position in the arrays: ``table[listed[table.index]]``, ``thumbnails[table.index]``.
    """
    p, y = _checked(probabilities, labels)
    n, classes = p.shape
    ids = list(range(n)) if ids is None else list(ids)
    names = [str(k) for k in range(classes)] if class_names is None else [str(name) for name in class_names]
    if len(ids) != n:
        raise AuditError(f"{len(ids)} ids for {n} labels: expected one each")
    if len(names) != classes:
        raise AuditError(f"{len(names)} class names for {classes} classes: expected one each")
    scores = label_scores(p, y) if scores is None else np.asarray(scores, dtype=np.float64)
    rows = np.arange(n)
    others = p.copy()
    others[rows, y] = -1
    suggested = others.argmax(1)
    order = np.argsort(-scores, kind="stable")
    text = np.array(names, dtype=object)
    table = pd.DataFrame(
        {
            "id": [str(each) for each in ids],
            "label": text[y],
            "suggested_label": text[suggested],
            "confidence": scores,
            "reason": [
                _reason(names[label], names[other], own, best)
                for label, other, own, best in zip(y, suggested, p[rows, y], p[rows, suggested], strict=True)
            ],
        },
        columns=COLUMNS,
    )
    no_repeats(table["id"])
    return table.iloc[order]


def _reason(label: str, suggested: str, own: float, best: float) -> str:
    if own >= best:
        return f"{label} is still the most likely ({_percent(own)}), then {suggested} ({_percent(best)})"
    if best < 0.5:
        return f"unclear: {suggested} fits best ({_percent(best)}), {label} less ({_percent(own)})"
    if own > 0.1:
        return f"looks more like {suggested} ({_percent(best)}) than {label} ({_percent(own)})"
    return f"looks like {suggested} ({_percent(best)}), hardly like {label} ({_percent(own)})"


def _percent(share: float) -> str:
    """Whole percents, but never a 0 or 100 % that a model cannot mean."""
    return "under 1 %" if share < 0.01 else "over 99 %" if share > 0.99 else f"{100 * share:.0f} %"


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


def measure(wrong: ArrayLike, scores: ArrayLike, listed: ArrayLike | None = None) -> dict[str, float]:
    """The figures by which lists are compared; all but the effort are in [0, 1].

    wrong: (n,) bool, the truth; scores: (n,); listed: (n,) bool, the labels that the method would show.
    Keys: wrong_share (also a random order's precision), average_precision, precision_at_1, _5 and _10 (percent),
    effort_half and effort_half_random (labels to look at to find half of the wrong ones), and with a list:
    listed_share, precision, recall, f1.
    """
    found, bad = _truth(wrong, scores)
    looks = effort(bad, found)
    figures = {
        "wrong_share": float(bad.mean()),
        "average_precision": float(average_precision_score(bad, found)),
        **{f"precision_at_{percent}": precision_at(bad, found, percent / 100) for percent in (1, 5, 10)},
        "effort_half": looks.with_list,
        "effort_half_random": looks.at_random,
    }
    if listed is None:
        return figures
    chosen = np.asarray(listed)
    if chosen.shape != bad.shape or chosen.dtype != bool:
        raise AuditError(f"listed: {chosen.dtype} of shape {chosen.shape}; expected bool of shape {bad.shape}")
    hits = int((chosen & bad).sum())
    return figures | {
        "listed_share": float(chosen.mean()),
        "precision": hits / max(1, int(chosen.sum())),
        "recall": hits / int(bad.sum()),
        "f1": 2 * hits / int(chosen.sum() + bad.sum()),
    }


def cleanlab_baseline(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What cleanlab makes of the same probabilities: its scores as suspicion (n,), and its list ``both`` (n,)."""
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ModuleNotFoundError:
        raise ModuleNotFoundError("the comparison needs the package cleanlab: pip install 'elrkit[test]'") from None
    p, y = _checked(probabilities, labels)
    listed = find_label_issues(y, p, filter_by="both", n_jobs=1)
    return 1 - get_label_quality_scores(y, p, method="self_confidence"), np.asarray(listed, dtype=bool)


def _groups(scores: NDArray[np.float64], bad: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sizes of the groups of equal scores, highest score first, and how many wrong labels each holds."""
    _, group = np.unique(-scores, return_inverse=True)
    return np.bincount(group), np.bincount(group, weights=bad).astype(np.int64)


# Checks at the edge ---------------------------------------------------------------------------------------------------


def normalized(probabilities: ArrayLike) -> NDArray[np.float64]:
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
    return p / sums[:, None]


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    p = normalized(probabilities)
    y = np.asarray(labels)
    if y.shape != p.shape[:1] or y.dtype.kind not in "iu":
        raise AuditError(f"labels: {y.dtype} of shape {y.shape}; expected integers of shape ({len(p)},)")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise AuditError(f"labels: {int(y.min())} to {int(y.max())}; expected 0 to {p.shape[1] - 1}")
    return p, y.astype(np.int64)


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
