"""The list of labels to look at as a person gets it: labels.csv, a page to go through it, and what was decided there.

    >>> written = audit_outcome(outcome, dataset, "audit")                      # doctest: +SKIP
    >>> decided = read_decisions("decisions.csv")                               # doctest: +SKIP

Ids, names and titles come from strangers: they reach a page as data only, and a spreadsheet as text.
"""

import base64
import csv
import hashlib
import html
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from elrkit.catalogue.feed_files import DECISION_COLUMNS
from elrkit.catalogue.rules import as_it_was, as_text
from elrkit.catalogue.scores import (
    COLUMNS,
    OF_TARGETS,
    SUSPECT_ODDS,
    AuditError,
    above,
    as_suspicious_as,
    combine,
    label_scores,
    no_repeats,
    normalized,
    rank,
    suspect_list,
)  # fmt: skip
from elrkit.data import Dataset

Originals = Callable[[Sequence[str]], Mapping[str, NDArray[np.uint8]]]

# The list -------------------------------------------------------------------------------------------------------------


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
    decisions: of `read_decisions`, a later review after an earlier one; a product whose last decision is
    confirm or keep is left out if its label is the one decided on. originals: ids to larger pictures of theirs for the
    page, as `importer.originals`; those it leaves out are shown as the dataset has them.
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
    no_repeats(pd.Series(ids, dtype=str), f"{dataset.name}: ids of training and test images")


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
    p = normalized(probabilities)
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
        suspect = np.concatenate([suspect, above(test_scores, SUSPECT_ODDS)])
        scores = np.concatenate([scores, test_scores if alike else as_suspicious_as(scores, test_scores)])
        probabilities = np.concatenate([normalized(probabilities), test])
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


# The page -------------------------------------------------------------------------------------------------------------


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
    `read_decisions` read. Pages of one list share them: `whole`, of which `table` is the head, tells lists
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
    no_repeats(texts["id"])
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


# Decisions ------------------------------------------------------------------------------------------------------------


def read_decisions(path: str | Path) -> pd.DataFrame:
    """What a person decided: the text columns id, decision, label, suggested_label; index: the line of each row.

    decision is in small letters: confirm (the suggestion is right), keep (the label stays), unsure, or what else was
    typed. The file is what the audit page saves, or what a spreadsheet made of it: columns in any order, parted by
    commas, semicolons or tabs, and further ones, which are left out: a `labels.csv` with a column of decisions will do.
    The apostrophes go that kept cells from being formulas.

    Raises:
        ValueError: it is no such file; names file and line.
        FileNotFoundError: it does not exist.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; give the decisions that the page saved") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text; save it as CSV UTF-8") from None
    head = re.match("[^\r\n]*", text)[0]
    # Strict: a stray quote is an error, and does not swallow the rows behind it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    rows: dict[int, list[str]] = {}
    seen: dict[str, int] = {}
    line = 1
    try:
        names = [name.strip() for name in next(reader, [])]
        if missing := [name for name in DECISION_COLUMNS if name not in names]:
            raise ValueError(
                f"{path}: first line is {head[:80]!r}, without {', '.join(missing)}; "
                f"expected {','.join(DECISION_COLUMNS)}"
            )
        where = [names.index(name) for name in DECISION_COLUMNS]
        line = reader.line_num + 1
        for row in reader:
            if any(row):
                if len(row) != len(names):
                    raise ValueError(f"{path}: line {line}: {len(row)} columns; expected the {len(names)} of line 1")
                id_, decision, label, suggested = (row[column].strip() for column in where)
                id_, label, suggested = map(as_it_was, (id_, label, suggested))
                if id_ in seen:
                    raise ValueError(f"{path}: line {line}: id {id_!r} was decided in line {seen[id_]} already")
                seen[id_] = line
                rows[line] = [id_, decision.casefold(), label, suggested]
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}: line {line}: not valid CSV ({error})") from None
    return pd.DataFrame.from_dict(rows, orient="index", columns=DECISION_COLUMNS, dtype=str)


def without_zeros(ids: Iterable[str]) -> dict[str, str]:
    """The ids that begin with zeros by what a spreadsheet makes of them ("48" for "00048"), where that is the id of no
    other product."""
    ids = set(ids)
    short: dict[str, list[str]] = {}
    for id_ in ids:
        if id_.startswith("0") and id_.isdecimal():
            short.setdefault(id_.lstrip("0") or "0", []).append(id_)
    return {text: meant[0] for text, meant in short.items() if len(meant) == 1 and text not in ids}
