"""Which labels look wrong: scores, a list, a ranked table, a page to go through it, and how good the list is.

Everything begins with one array of class probabilities (n, C): the targets that ELR keeps for each training image
(Liu et al. 2020, Section 4.2), out-of-fold probabilities of any model, or both put together by `combine`.

    >>> probabilities = combine(targets, out_of_fold)                           # doctest: +SKIP
    >>> listed = suspect_list(probabilities, labels)                            # doctest: +SKIP
    >>> table = rank(probabilities, labels, ids, class_names)                   # doctest: +SKIP
    >>> table = table[listed[table.index]]                                      # doctest: +SKIP
    >>> review_page(table, thumbnails[table.index], "review.html")              # doctest: +SKIP
"""

import base64
import hashlib
import html
import io
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from elrkit.catalogue.decisions import as_text, without_zeros
from elrkit.data import Dataset

Method = Literal["odds", "self_confidence", "margin", "balanced"]

COLUMNS = ["id", "label", "suggested_label", "confidence", "reason"]

SUSPECT_ODDS = 2.0  # see suspect_list
OF_TARGETS: Method = "balanced"  # the score that orders ELR's targets, see label_scores


Originals = Callable[[Sequence[str]], Mapping[str, NDArray[np.uint8]]]


class AuditError(ValueError):
    """An input that cannot be audited; one line that names what is wrong, where, and what is expected."""


# Scores ---------------------------------------------------------------------------------------------------------------


def combine(*probabilities: ArrayLike) -> NDArray[np.float64]:
    """Several sources of class probabilities as one: their geometric mean, with rows that sum to 1.

    probabilities: arrays (n, C). A class that one source all but excludes stays excluded, so a label passes only when
    every source grants it something. Probabilities count as at least 1e-6, so that no source has a veto for ever.
    Raises AuditError when there is no source or their shapes differ.
    """
    if not probabilities:
        raise AuditError("combine: no probabilities given; expected at least one (n, C) array")
    sources = [_normalized(each) for each in probabilities]
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
    return _above(label_scores(probabilities, labels, "odds"), odds)


def _above(scores: NDArray[np.float64], odds: float) -> NDArray[np.bool_]:
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
    _no_repeats(table["id"])
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


# The page -------------------------------------------------------------------------------------------------------------


class Written(NamedTuple):
    """A list on the disk: its rows, the path of the CSV, that of the page (None when no row is left), how many
    suspicious labels are left out because they were decided on, how many rows are test images, and how many decisions
    fit nothing: of an id that the dataset has not, or of another word than confirm, keep and unsure."""

    listed: pd.DataFrame
    table: Path
    page: Path | None
    left_out: int
    of_test: int
    unfit: int


def audit_outcome(
    outcome: dict,
    dataset: Dataset,
    out: str | os.PathLike[str],
    top: int = 1000,
    test: ArrayLike | None = None,
    beside: ArrayLike | None = None,
    decisions: Sequence[pd.DataFrame] = (),
    originals: Originals | None = None,
) -> Written:
    """The list of labels to look at of a finished run, as ``labels.csv`` and ``review.html`` in the folder `out`.

    outcome: of `elrkit.train.load_outcome`; its ELR targets are used, or, of another loss, the last predictions, which
    have seen the labels and find less. dataset: what it was trained on. top: pictures in the page; the CSV lists every
    label of `suspect_list`. test: (m, C) the network's probabilities of the test images, whose labels are then listed
    too, when the dataset has ids for them, in an order `as_suspicious_as` the targets of the training images. beside:
    (n, C) out-of-fold probabilities of the dataset's training images by another model, to `combine` with the run's.
    decisions: of `decisions.read_decisions`, a later review after an earlier one; a product whose last decision is
    confirm or keep is left out if its label is the one decided on. originals: ids to larger pictures of theirs for the
    page, as `catalogue.originals`; those it leaves out are shown as the dataset has them.
    Raises AuditError when the run was trained on more images than the dataset has, and as `check_listable` does.
    """
    probabilities = outcome["targets"] if outcome["targets"] is not None else outcome["probabilities"]
    index = outcome["index"].numpy()
    if index.max() >= len(dataset.train_images):
        raise AuditError(
            f"outcome: of image {index.max()}, where the dataset has {len(dataset.train_images)}; not its run"
        )
    found = probabilities.numpy()
    if beside is not None:
        found = combine(found, _for_images(beside, dataset, "train")[index])
    alike = outcome["targets"] is None
    return _write_list(found, outcome["given"].numpy(), index, test, alike, dataset, out, top, decisions, originals)


def audit_probabilities(
    train: ArrayLike,
    dataset: Dataset,
    out: str | os.PathLike[str],
    top: int = 1000,
    test: ArrayLike | None = None,
    decisions: Sequence[pd.DataFrame] = (),
    originals: Originals | None = None,
) -> Written:
    """`audit_outcome` of any model's probabilities: `train` (n, C), out-of-fold, of the dataset's training images, and
    `test` (m, C), if wanted, of its test images; rows in the dataset's order, columns in that of its class names."""
    found = _for_images(train, dataset, "train")
    labels = dataset.train_labels.numpy()
    return _write_list(found, labels, np.arange(len(found)), test, True, dataset, out, top, decisions, originals)


def check_listable(dataset: Dataset, top: int) -> None:
    """Raises AuditError when no list of this dataset can be written, so that it can be asked before a training.

    A decision names its product by the id alone: ids have to be unique, in the training and test images together. And
    they, the titles and the class names have to be text that a file can hold.
    """
    if top < 1:
        raise AuditError(f"top={top}: allowed is a whole number from 1")
    ids = [*(dataset.train_ids or ()), *(dataset.test_ids or ())]
    titles = [*(dataset.train_titles or ()), *(dataset.test_titles or ())]
    for what, texts in (("id", ids), ("title", titles), ("class name", dataset.class_names)):
        if (bad := next(filter(re.compile("[\ud800-\udfff]").search, texts), None)) is not None:
            raise AuditError(
                f"{dataset.name}: the {what} {bad!r} is no valid text (a lone surrogate, as of a file name that is not "
                "UTF-8); rename it"
            )
    _no_repeats(pd.Series(ids, dtype=str), f"{dataset.name}: ids of training and test images")


def read_probabilities(path: str | os.PathLike[str]) -> tuple[NDArray, NDArray | None]:
    """(train, test or None) of an .npy file with an array (n, C), or an .npz with arrays ``train`` and ``test``.

    Raises AuditError when it is neither, and FileNotFoundError.
    """
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            arrays = {"train": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except FileNotFoundError:
        raise
    except Exception:  # numpy raises many kinds for damaged files, and advises to execute what it could not read
        arrays = {}
    if "train" not in arrays:
        raise AuditError(f"{path}: expected an .npy with probabilities (n, C), or an .npz with train and, or not, test")
    return arrays["train"], arrays.get("test")


def _for_images(probabilities: ArrayLike, dataset: Dataset, part: Literal["train", "test"]) -> NDArray[np.float64]:
    p = _normalized(probabilities)
    expected = len(getattr(dataset, f"{part}_images")), dataset.num_classes
    if p.shape != expected:
        raise AuditError(
            f"probabilities of shape {p.shape} for the {part} images: expected {expected}, a row for each image in the "
            "dataset's order, a column for each of its class_names"
        )
    return p


def _write_list(
    probabilities: ArrayLike,
    labels: NDArray[np.int64],
    index: NDArray[np.int64],
    test: ArrayLike | None,
    alike: bool,
    dataset: Dataset,
    out: str | os.PathLike[str],
    top: int,
    decisions: Sequence[pd.DataFrame],
    originals: Originals | None,
) -> Written:
    """The list over the training images of `index` and, given their probabilities and ids, the test images; `alike`:
    whether both are probabilities of one kind, whose scores compare; else those of the training images are ELR's
    targets."""
    check_listable(dataset, top)
    ids = [dataset.train_ids[i] for i in index] if dataset.train_ids else index.tolist()
    titles = [dataset.train_titles[i] for i in index] if dataset.train_titles else [""] * len(index)
    scores = label_scores(probabilities, labels, "odds" if alike else OF_TARGETS)
    suspect = suspect_list(probabilities, labels)
    if test is not None and dataset.train_ids and dataset.test_ids:
        test, test_labels = _for_images(test, dataset, "test"), dataset.test_labels.numpy()
        test_scores = label_scores(test, test_labels)
        suspect = np.concatenate([suspect, _above(test_scores, SUSPECT_ODDS)])
        scores = np.concatenate([scores, test_scores if alike else as_suspicious_as(scores, test_scores)])
        probabilities = np.concatenate([_normalized(probabilities), test])
        labels = np.concatenate([labels, test_labels])
        ids += dataset.test_ids
        titles += dataset.test_titles or [""] * len(dataset.test_ids)
    table = rank(probabilities, labels, ids, dataset.class_names, scores=scores)
    if any(titles):
        table.insert(1, "title", [titles[row] for row in table.index])
    listed = table[suspect[table.index]]
    every = [*(dataset.train_ids or map(str, range(len(dataset.train_images)))), *(dataset.test_ids or ())]
    decided, unfit = _decided(decisions, every)
    done = np.array([decided.get(id_) == label for id_, label in zip(listed["id"], listed["label"], strict=True)], bool)
    listed = listed[~done]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    # The table takes its place when all else is there: a failure leaves the earlier list.
    path, partial = out / "labels.csv", out / "labels.csv.part"
    # Lines end as in RFC 4180, or a carriage return in a title would not be quoted and begin a line of its own.
    _for_spreadsheets(listed).to_csv(partial, index=False, encoding="utf-8-sig", lineterminator="\r\n")
    shown, page = listed.head(top), out / "review.html"
    if shown.empty:
        page.unlink(missing_ok=True)  # of an earlier list
        page = None
    else:
        rows = shown.index.to_numpy()
        tested = rows >= len(index)
        pictures = np.empty((len(rows), *dataset.train_images.shape[1:]), np.uint8)
        pictures[~tested] = dataset.train_images[index[rows[~tested]]].numpy()
        pictures[tested] = dataset.test_images[rows[tested] - len(index)].numpy()
        if pictures.shape[-1] == 1:
            pictures = np.repeat(pictures, 3, axis=-1)
        if found := originals(shown["id"].tolist()) if originals else {}:
            pictures = _in_full(pictures, shown["id"], found)
        review_page(shown, pictures, page, whole=listed, classes=dataset.class_names)
    partial.replace(path)
    return Written(listed, path, page, int(done.sum()), int((listed.index >= len(index)).sum()), unfit)


def _in_full(pictures: NDArray[np.uint8], ids: Sequence[str], found: Mapping[str, NDArray]) -> NDArray[np.uint8]:
    """The pictures found, and where one is not, the small one scaled to their size."""
    height, width, _ = next(iter(found.values())).shape
    return np.stack(
        [
            found[id_] if id_ in found else np.asarray(Image.fromarray(picture).resize((width, height)))
            for id_, picture in zip(ids, pictures, strict=True)
        ]
    )


def _decided(decisions: Sequence[pd.DataFrame], ids: Sequence[str]) -> tuple[dict[str, str | None], int]:
    """The label that each product was given by its last decision, None where that was unsure; and how many decisions
    fit none of `ids`, or are not understood."""
    zeros, known = without_zeros(ids), set(ids)
    decided, unfit = {}, 0
    for row in itertools.chain.from_iterable(table.itertuples() for table in decisions):
        id_ = zeros.get(row.id, row.id)
        labels = {"confirm": row.suggested_label, "keep": row.label, "unsure": None}
        if row.decision in labels:
            decided[id_] = labels[row.decision]
        unfit += id_ not in known or row.decision not in labels
    return decided, unfit


def _for_spreadsheets(table: pd.DataFrame) -> pd.DataFrame:
    """The table for those who open it in Excel: no stranger's title is a formula there."""
    texts = [name for name in ("id", "title", "label", "suggested_label", "reason") if name in table.columns]
    return table.assign(**{name: table[name].astype(str).map(as_text) for name in texts})


def review_page(
    table: pd.DataFrame,
    thumbnails: ArrayLike,
    out: str | os.PathLike[str],
    title: str = "Labels to look at",
    whole: pd.DataFrame | None = None,
    classes: Sequence[str] = (),
) -> Path:
    """Write `table` as one HTML file that a person goes through with the keyboard; returns its path.

    table: the columns of `rank` and, if wanted, ``title`` (a product's name); thumbnails: (n, H, W, 3) uint8, in the
    table's order. The file needs no other file and makes no request; pictures are inside it as WebP. Decisions stay
    in the browser's localStorage until they are saved as a CSV file, which the page and
    `decisions.read_decisions` read. Pages of one list share them: `whole`, of which `table` is the head, tells lists
    apart (default: the table). A wrong label may move to any of the `classes`, and to those of the table.
    Ids, names and titles come from strangers: they reach the page as data only, never as markup.
    """
    pictures = np.asarray(thumbnails)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise AuditError(f"table: no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8 or 0 in pictures.shape[1:]:
        raise AuditError(
            f"thumbnails: {pictures.dtype} of shape {pictures.shape}; expected uint8 of shape (n, H, W, 3)"
        )
    if len(table) != len(pictures):
        raise AuditError(f"{len(pictures)} thumbnails for {len(table)} rows: expected one each, in the table's order")
    if not len(table):
        raise AuditError("table: no rows, so there is nothing to look at")
    texts = table[["id", "label", "suggested_label", "reason"]].astype(str)
    _no_repeats(texts["id"])
    titles = table["title"].fillna("").astype(str) if "title" in table.columns else [""] * len(table)
    confidence = table["confidence"].to_numpy(dtype=float)
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise AuditError("table: a confidence outside 0 to 1")
    columns = (
        texts["id"],
        titles,
        texts["label"],
        texts["suggested_label"],
        confidence.round(4).tolist(),
        texts["reason"],
    )
    rows = [list(row) for row in zip(*columns, strict=True)]
    named = (table if whole is None else whole)[["id", "label", "suggested_label"]].astype(str).to_numpy().tolist()
    try:
        key = hashlib.sha256(json.dumps(named, ensure_ascii=False).encode()).hexdigest()
    except UnicodeEncodeError as error:
        raise AuditError(
            f"table: {error.object[error.start : error.end]!r} is no valid text (a lone surrogate)"
        ) from None
    data = {
        "key": f"elrkit-review-{key[:16]}",
        "classes": sorted({*map(str, classes), *texts["label"], *texts["suggested_label"]}),
        "items": [[*row, _webp(picture)] for row, picture in zip(rows, pictures, strict=True)],
    }
    template = resources.files("elrkit.catalogue").joinpath("review.html").read_text(encoding="utf-8")
    hashes = {
        tag: base64.b64encode(hashlib.sha256(re.search(f"<{tag}>(.*?)</{tag}>", template, re.S)[1].encode()).digest())
        for tag in ("style", "script")
    }
    filled = {
        # Nothing but this file's own style and script may run or load, whatever a title says.
        "policy": "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src 'sha256-{hashes['style'].decode()}'; script-src 'sha256-{hashes['script'].decode()}'",
        "title": html.escape(title),
        # In JSON only a "<" could end the script element that holds it.
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = re.sub(r"\{\{(policy|title|data)\}\}", lambda match: filled[match[1]], template)
    path = Path(out)
    partial = path.with_name(path.name + ".part")
    partial.write_text(page, encoding="utf-8", newline="\n")
    partial.replace(path)
    return path


def _webp(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=90, method=2)
    return base64.b64encode(buffer.getvalue()).decode()


# Checks at the edge ---------------------------------------------------------------------------------------------------


def _normalized(probabilities: ArrayLike) -> NDArray[np.float64]:
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
    p = _normalized(probabilities)
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


def _no_repeats(ids: "pd.Series[str]", what: str = "ids") -> None:
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise AuditError(f"{what}: {repeated.iloc[0]!r} is there more than once; expected unique ids")
