"""The list of labels to look at as a person gets it: labels.csv, and a page to go through it.

    >>> written = audit_outcome(outcome, dataset, "audit")                      # doctest: +SKIP

Ids, names and titles come from strangers: they reach a page as data only, and a spreadsheet as text.
"""

import base64
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from elrkit.catalogue.decisions import check_folder, disagreed, spelling, write_csv
from elrkit.catalogue.scores import AuditError, judged, label_scores, no_repeats, rank, suspect_list
from elrkit.data import Dataset

Pictures = Callable[
    [Sequence[str], int], Mapping[str, NDArray[np.uint8]]
]  # of ids, at most so many pixels wide and high

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
    top: int = 10_000,
    decisions: pd.DataFrame | None = None,
    originals: Pictures | None = None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Written:
    """The list of labels to look at of a finished run, as ``labels.csv`` and ``review.html`` in the folder `out`.

    outcome: of `elrkit.checkpoints.outcome`, of a run with ELR on all training images. dataset: what it was trained on;
    its test images are on no list, as the run says nothing of them that compares. top: pictures in the page; the CSV
    lists every label of `suspect_list`. decisions: of `in_order`; a product whose last decision is confirm or keep is
    left out if its label is the one decided on and no other reviewer disagrees. originals: ids to larger pictures of
    theirs for the page, as of `importer.shown`; those it leaves out are shown as the dataset has them. on_progress:
    photos of the page, done and in all.
    Raises AuditError as `check_listable` does.
    """
    check_listable(dataset, top)
    p, labels = outcome["targets"].numpy(), dataset.train_labels.numpy()
    found = judged(p, labels)
    ids = listed_ids(dataset)[: len(labels)]
    table = rank(found, labels, ids, dataset.class_names, scores=label_scores(p, labels))
    if dataset.train_titles:
        table.insert(1, "title", [dataset.train_titles[row] for row in table.index])
    return write_table(
        table[suspect_list(found)[table.index]], dataset, out, top, decisions, originals, on_progress=on_progress
    )


def listed_ids(dataset: Dataset) -> list[str]:
    """The ids of the products that a list can name, training images first: their numbers where those have no ids;
    test images without ids are on no list."""
    return [*(dataset.train_ids or map(str, range(len(dataset.train_labels)))), *(dataset.test_ids or ())]


def check_listable(dataset: Dataset, top: int) -> None:
    """Raises AuditError when no list of this dataset can be written, so that it can be asked before a training.

    A decision names its product by the id alone: ids have to be unique, in the training and test images together. And
    they, the titles and the class names have to be text that a file can hold.
    """
    if top < 1:
        raise AuditError(f"top={top}: allowed is a whole number from 1")
    ids, titles = dataset.of_all("ids"), dataset.of_all("titles")
    for what, texts in (("id", ids), ("title", titles), ("class name", dataset.class_names)):
        if (bad := next(filter(re.compile("[\ud800-\udfff]").search, texts), None)) is not None:
            raise AuditError(
                f"{dataset.name}: the {what} {bad!r} is no valid text (a lone surrogate, as of a file name that is not "
                "UTF-8); rename it"
            )
    no_repeats(pd.Series(ids, dtype=str), f"{dataset.name}: ids of training and test images")


def write_table(
    listed: pd.DataFrame,
    dataset: Dataset,
    out: str | os.PathLike[str],
    top: int,
    decisions: pd.DataFrame | None = None,
    originals: Pictures | None = None,
    typical: Mapping[str, Sequence[str]] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Written:
    """Write a list of a dataset's products, the columns of `rank` and what `review_page` shows beside them, as
    ``labels.csv`` and ``review.html``; its arguments are those of `audit_outcome` and `review_page`."""
    check_listable(dataset, top)
    check_out(out)
    every = listed_ids(dataset)
    decided, unfit = ({}, 0) if decisions is None else _decided(decisions, every)
    filed = zip(listed["id"], listed["label"], strict=True)
    done = np.array([id_ in decided and decided[id_] == spelling(label) for id_, label in filed], bool)
    listed = listed[~done]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    # The table takes its place when all else is there: a failure leaves the earlier list.
    path, ready = out / "labels.csv", out / "labels.csv.new"
    write_csv(listed, ready)
    shown, page = listed.head(top), out / "review.html"
    place = {id_: number for number, id_ in enumerate(every)}
    trained = len(dataset.train_labels)
    if shown.empty:
        page.unlink(missing_ok=True)  # of an earlier list
        page = None
    else:

        def small(id_: str) -> NDArray[np.uint8]:
            picture = dataset.picture(place[id_])
            return np.broadcast_to(picture, (*picture.shape[:2], 3))

        def pictures(ids: Sequence[str], side: int) -> Mapping[str, NDArray[np.uint8]]:
            larger = originals(ids, side) if originals else {}
            return {id_: larger[id_] if id_ in larger else small(id_) for id_ in ids}

        # The same however the file was named in the command, as which it may be ".".
        name = Path(os.path.abspath(dataset.name)).name.removesuffix(".npz")
        review_page(
            shown, out, pictures, typical=typical, dataset=name, classes=dataset.class_names, on_progress=on_progress
        )
    ready.replace(path)
    of_test = sum(place[id_] >= trained for id_ in listed["id"])
    return Written(listed, path, page, int(done.sum()), of_test, unfit)


def check_out(out: str | os.PathLike[str]) -> None:
    """Raises AuditError when a list cannot be written into this folder, or would take the place of what a person has
    written into an earlier one."""
    out = Path(out)
    check_folder(out)
    if (path := out / "labels.csv").is_file():
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            if "decision" in re.split("[,;\t]", file.readline().strip()):
                raise AuditError(
                    f"{path}: has a column of decisions, which would be lost; rename it, or name another out"
                )


def _decided(decisions: pd.DataFrame, ids: Sequence[str]) -> tuple[dict[str, str | None], int]:
    """The `spelling` of the label that each product was given by its last decision, None where that was unsure or
    reviewers disagree; and how many decisions fit none of `ids`, or are not understood."""
    known, open_still = set(ids), disagreed(decisions)
    decided, unfit = {}, 0
    for row in decisions.itertuples():
        labels = {"confirm": spelling(row.suggested_label), "keep": spelling(row.label), "unsure": None}
        if row.decision in labels:
            decided[row.id] = None if row.id in open_still else labels[row.decision]
        unfit += row.id not in known or row.decision not in labels
    return decided, unfit


# The page -------------------------------------------------------------------------------------------------------------

PHOTO, SMALL = 900, 160  # pixels, the longer side of a product's photo and of a typical one's
TYPICAL = 3  # shown of each category
IN_MEMORY = 1 << 26  # bytes of the pictures that are asked for at once
PHOTOS = "photos"  # the folder beside the page
_PHOTO_NAME = re.compile(r"[0-9a-f]{32}\.(webp|part)")


def review_page(
    table: pd.DataFrame,
    out: str | os.PathLike[str],
    pictures: Pictures,
    *,
    typical: Mapping[str, Sequence[str]] | None = None,
    dataset: str,
    classes: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Path:
    """Write ``review.html`` into the folder `out`, a page of `table` that a person goes through with the keyboard, and
    its photos beside it in ``photos``; returns the page's path.

    table: the columns of `rank`, of which the alternatives and chances may be missing, and ``title`` if there are any.
    pictures: of ids and a longer side in pixels to the pictures (h, w, 3) uint8 that there are, asked for some ids at a
    time; each is written once, named by its content. typical: class names to the ids of products that show what belongs
    there. dataset: the name under which the browser keeps the decisions, so that a new list of the same dataset has
    them, and the beginning of the saved files' names. A wrong label may move to any of the `classes`, and to those of
    the table.

    The page asks no other host for anything, and names its photos by relative paths: it works from a folder and from a
    web server. Decisions stay in the browser's localStorage until they are saved as a CSV file, which the page and
    `read_decisions` read. Where class names are paths ("Apparel > Shirts > Polos"), the products can be browsed by the
    first part of the label they are filed under. Ids, names and titles come from strangers: they reach the page as data
    only, never as markup. Photos of an earlier page in this folder that this one does not show are deleted.
    """
    ids = table["id"].astype(str).tolist()

    def texts(name: str) -> list[str]:
        return table[name].fillna("").astype(str).tolist() if name in table.columns else [""] * len(table)

    label, suggested, *further = map(texts, ("label", "suggested_label", "alternative_2", "alternative_3"))
    names = sorted({*map(str, classes), *label, *suggested, *({*further[0], *further[1]} - {""})})
    number = {name: k for k, name in enumerate(names)}
    none = [math.nan] * len(table)
    chances = [[float(each) for each in table.get(f"chance_{k}", none)] for k in (1, 2, 3)]
    rows = zip(
        ids, texts("title"), (number[each] for each in label), table["confidence"].round(4).tolist(), texts("reason"),
        zip(suggested, *further, strict=True), zip(*chances, strict=True), strict=True,
    )  # fmt: skip
    items = []
    for *first, others, chance in rows:
        known = [None if math.isnan(each) else round(each, 4) for each in chance]
        alternatives = [
            [number[each], p] for k, (each, p) in enumerate(zip(others, known, strict=True)) if each or not k
        ]
        items.append([*first, alternatives])
    data = {"dataset": dataset, "classes": names, "items": items}
    out = Path(out)
    folder = out / PHOTOS
    folder.mkdir(parents=True, exist_ok=True)
    photo = _write_photos(ids, pictures, PHOTO, folder, on_progress)
    for item in items:
        item.append(photo.get(item[0], ""))
    chosen = {name: list(map(str, some))[:TYPICAL] for name, some in (typical or {}).items() if name in number}
    small = _write_photos(sorted({*itertools.chain.from_iterable(chosen.values())}), pictures, SMALL, folder)
    data["typical"] = {number[name]: [small[id_] for id_ in some if id_ in small] for name, some in chosen.items()}
    page, partial = out / "review.html", out / "review.html.part"
    partial.write_text(_filled(data), encoding="utf-8", newline="\n")
    partial.replace(page)
    used = {*photo.values(), *small.values()}
    for path in folder.iterdir():
        if _PHOTO_NAME.fullmatch(path.name) and path.stem not in used:
            path.unlink()
    return page


def _write_photos(
    ids: Sequence[str], pictures: Pictures, side: int, folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, str]:  # fmt: skip
    """The names, without ".webp", of the pictures that there are, each written if it is not there yet."""
    names = {}
    step = max(1, IN_MEMORY // (3 * side * side))
    for start in range(0, len(ids), step):
        asked = list(ids[start : start + step])
        found = pictures(asked, side)
        for id_ in asked:
            if (picture := found.get(id_)) is None:
                continue
            content = f"{picture.shape}".encode() + np.ascontiguousarray(picture).tobytes()
            names[id_] = hashlib.sha256(content).hexdigest()[:32]
            path = folder / f"{names[id_]}.webp"
            if not path.exists():
                partial = path.with_suffix(".part")
                Image.fromarray(np.ascontiguousarray(picture)).save(partial, "WEBP", quality=88, method=2)
                partial.replace(path)
        on_progress(start + len(asked), len(ids))
    return names


def _filled(data: Mapping) -> str:
    """The page's text."""
    template = resources.files("elrkit.catalogue").joinpath("review.html").read_text(encoding="utf-8")
    hashes = {
        tag: base64.b64encode(hashlib.sha256(re.search(f"<{tag}>(.*?)</{tag}>", template, re.S)[1].encode()).digest())
        for tag in ("style", "script")
    }
    filled = {
        # Nothing but this file's own style and script may run, and nothing but its own photos load, whatever a title
        # says. Of a page from the disk, 'self' is not every browser's word for its folder; from a server, file: is
        # closed to it anyway.
        "policy": "default-src 'none'; base-uri 'none'; form-action 'none'; img-src 'self' file: data:; "
        f"style-src 'sha256-{hashes['style'].decode()}'; script-src 'sha256-{hashes['script'].decode()}'",
        # In JSON only a "<" could end the script element that holds it.
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(policy|data)\}\}", lambda match: filled[match[1]], template)
