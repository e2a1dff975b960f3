"""A dataset's labels judged by what a pretrained network sees in its photos: features, head, ranked table."""

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from elrkit.catalogue import importer
from elrkit.catalogue.checking import Model, check
from elrkit.catalogue.corrections import spellings
from elrkit.catalogue.features import Backbone, features, unknown
from elrkit.catalogue.feed_files import as_path, feed_files
from elrkit.catalogue.feeds import READERS
from elrkit.catalogue.head import Found
from elrkit.catalogue.images import read_file
from elrkit.catalogue.products import read_products, told_apart
from elrkit.catalogue.review import listed_ids
from elrkit.catalogue.rules import Rejected, printable
from elrkit.catalogue.scores import Judged, rank, suspect_list
from elrkit.catalogue.written import dropped_in_words, sha256_of
from elrkit.config import ConfigError
from elrkit.data import Dataset, as_rgb, is_class_folders, own_path

if TYPE_CHECKING:
    from elrkit.scale import Cluster

Progress = Callable[[int, int], None]


def _silent(done: int, of: int) -> None: ...


def photo_rows(
    dataset: Dataset,
    images: str | Path | None,
    eye: Backbone,
    store: Path,
    on_progress: Progress = _silent,
    cluster: "Cluster | None" = None,
) -> NDArray[np.float16]:
    """`features` of a dataset's photos, training images first, then test images, (n, width) float16.

    images  the folder that was given to the import: the photos are taken as the shop has them. Without it, and for a
            dataset whose products have no photos of their own, the dataset's own small pictures are enlarged, which
            tells categories apart less well; so is one photo that is not there any more.
    cluster as of `features`; its nodes need the photos under the same paths.
    """
    count = len(dataset.train_labels) + len(dataset.test_labels)
    keys, where, rules = [""] * count, dict[int, importer.Place](), importer.FeedRules()
    path = own_path(dataset.name) if dataset.train_ids else None
    if path and (images is not None or is_class_folders(path)):
        ids = listed_ids(dataset)
        found, rules = importer.places(path, ids, images or ".")
        where = {number: found[id_] for number, id_ in enumerate(ids) if id_ in found}
    for number, place in where.items():
        keys[number] = place.sha256 or sha256_of(place.folder / place.name)
    # Folders of this machine, which another may lack; an address is the same for all, and asking takes its time.
    here = {
        folder for folder in {place.folder for place in where.values()} if isinstance(folder, Path) and folder.is_dir()
    }
    read = partial(_photo, rules=rules, side=eye.side, there=here)
    rows = features(keys, read, eye, store, on_progress, where=where.__getitem__, cluster=cluster) if where else None

    # A small picture is kept under its own content: never as that of a photo which may be back one day.
    keys = [""] * count
    for number in range(count) if rows is None else unknown(rows):
        keys[number] = hashlib.sha256(np.ascontiguousarray(dataset.picture(number)).data).hexdigest()
    if rows is None or any(keys):
        read = partial(_enlarged, side=eye.side)
        rows = features(keys, read, eye, store, on_progress, rows, where=dataset.picture, cluster=cluster)
    return rows


def _photo(
    place: importer.Place, rules: importer.FeedRules, side: int, there: Collection[Path]
) -> NDArray[np.uint8] | None:
    """`importer.picture`, on a machine that must have these folders: else every photo would pass for one that is gone.
    Raises FileNotFoundError."""
    if place.folder in there and not place.folder.is_dir():
        raise FileNotFoundError(f"images folder {place.folder} is not there on {os.uname().nodename}")
    return importer.picture(place, rules, side)


def _enlarged(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(as_rgb(Image.fromarray(picture.squeeze())).resize((side, side), Image.Resampling.BILINEAR))


def given_rows(path: Path, dataset: Dataset) -> NDArray[np.floating]:
    """A user's own features, mapped from an .npy: a row for each training image and then each test image. Raises
    ConfigError when they are not."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ConfigError(f"features={path}: no such file; an .npy, efficientnet-lite0, NAME:FILE or none") from None
    except Exception:  # numpy raises many kinds for what is no array
        raise ConfigError(f"features={path}: not an .npy file of numpy") from None
    train, test = len(dataset.train_labels), len(dataset.test_labels)
    if rows.ndim != 2 or len(rows) != train + test or rows.dtype.kind != "f" or len(unknown(rows)):
        raise ConfigError(
            f"features={path}: {rows.dtype} of shape {rows.shape}; expected finite numbers, a row for each of the "
            f"{train} training images and then each of the {test} test images"
        )
    return rows


def labels_of(dataset: Dataset) -> NDArray[np.int64]:
    """The labels of all products, training images first."""
    return np.concatenate([dataset.train_labels.numpy(), dataset.test_labels.numpy()])


def filed_of(dataset: Dataset) -> NDArray[np.int64] | None:
    """The labels of all products before decisions changed some, None where none did; the present label where its
    earlier category is left without a product."""
    if dataset.train_filed is None:
        return None
    place = {name: k for k, name in enumerate(dataset.class_names)}
    filed = [*dataset.train_filed, *(dataset.test_filed or ())]
    return np.array([place.get(name, k) for name, k in zip(filed, labels_of(dataset).tolist(), strict=True)])


def ranked(found: Found, dataset: Dataset) -> pd.DataFrame:
    """All products that have `listed_ids`, the most suspicious first: the columns of `rank` with the chance that the
    label is wrong as confidence, and title where there are any. The index is a product's place, training images first.
    """
    ids = listed_ids(dataset)
    n = len(ids)
    judged = Judged(*(each[:n] for each in found.judged))
    table = rank(judged, labels_of(dataset)[:n], ids, dataset.class_names, scores=found.suspicion[:n])
    table["confidence"] = found.confidence[table.index]
    titles = dataset.of_all("titles")
    if any(titles):
        table.insert(1, "title", [titles[row] for row in table.index])
    return table


def to_look_at(found: Found, dataset: Dataset) -> pd.DataFrame:
    """The rows of `ranked` that a person should look at: those of `suspect_list`, and of the first ones at least as
    many as are probably wrong."""
    table = ranked(found, dataset)
    probably = np.arange(len(table)) < round(found.wrong.mean * len(table))
    return table[suspect_list(found.judged)[table.index] | probably]


def typical(found: Found, dataset: Dataset, each: int = 3) -> dict[str, list[str]]:
    """Per category the ids of products that are surely of it: the least suspicious ones, one of equal photos."""
    ids = listed_ids(dataset)
    labels = labels_of(dataset)[: len(ids)]
    train, test = dataset.train_pictures, dataset.test_pictures
    photo = np.concatenate([train.of, test.of + (0 if test.images is train.images else len(train.images))])[: len(ids)]
    order = np.argsort(found.suspicion[: len(labels)], kind="stable")
    shown = labels * (photo.max(initial=0) + 1) + photo  # as what, and which
    order = order[np.sort(np.unique(shown[order], return_index=True)[1])]
    return {name: [ids[i] for i in order[labels[order] == k][:each]] for k, name in enumerate(dataset.class_names)}


def check_feed(
    feeds: Sequence[str | Path],
    model: Model,
    images: str | Path,
    eye: Backbone,
    store: Path,
    rules: importer.FeedRules,
    let_through: float,
    on_progress: Progress = _silent,
) -> pd.DataFrame:
    """`check` of a feed's products, a row each in the feed's order: id, title, label, verdict (fits, look, unlike, or
    unread where product or photo cannot be used), suspicion in [0, 1], why, and suggested_label, alternative_2 and
    alternative_3 with chance_1 to chance_3 where there is something to look at.

    Raises ConfigError when the model was made with another backbone or no product can be checked, FileNotFoundError for
    a feed or folder that is not there.
    """
    if model.backbone.endswith(".npy"):
        raise ConfigError(
            f"the model was made with features of your own, {model.backbone}; for new products' ask "
            "elrkit.catalogue.checking.check, with a row for each"
        )
    if eye.name != model.backbone:
        raise ConfigError(f"backbone {eye.name}: the model was made with {model.backbone}; give the same --features")
    if not (root := as_path(images)).is_dir():
        raise FileNotFoundError(f"images folder {images} does not exist; name the folder the feed's paths start from")
    feed = read_products(feed_files(feeds, READERS), rules)
    table, root = feed.table, root.resolve()
    readable = np.flatnonzero(table["why"] == "")
    paths, why = table["path"].tolist(), table["why"].tolist()
    keys = []
    for row in readable:
        try:
            keys.append(hashlib.sha256(read_file(root, paths[row], rules.max_bytes)[0]).hexdigest())
        except Rejected as error:
            why[row] = str(error)
    readable = np.array([row for row in readable if not why[row]], dtype=int)
    if not len(readable):
        lost: dict[str, list[str]] = {}
        for reason, path in zip(why, paths, strict=True):
            lost.setdefault(reason, []).append(printable(path))
        told = {"dropped": {"product": {reason: len(some) for reason, some in lost.items()}}, "examples": lost}
        lines = dropped_in_words(told | {"files_refused": feed.refused})
        raise ConfigError(f"none of {len(table)} products can be checked; {'; '.join(lines)}")

    def read(number: int) -> NDArray[np.uint8] | None:
        return importer.picture(importer.Place(root, paths[readable[number]], None), rules, eye.side)

    rows = features(keys, read, eye, store, on_progress)
    place, known = {name: k for k, name in enumerate(model.classes)}, spellings(model.classes)
    # As the model names it: with its key where another one has the name, in its spelling.
    names = [known(told_apart(name, key)) or known(name) or name for _, key, name in feed.labels.itertuples()]
    labels = [names[k] if k >= 0 else "" for k in table["label"]]
    found = check(model, rows, np.array([place.get(labels[row], -1) for row in readable], np.int64), let_through)
    result = pd.DataFrame(
        {"id": table["id"], "title": table["title"], "label": labels, "verdict": "unread", "why": why}
    )
    result["suspicion"] = np.nan
    unseen = ~np.isfinite(rows).all(axis=1)
    verdict = np.where(unseen, "unread", found.verdict)
    result.loc[readable, "verdict"] = verdict
    result.loc[readable, "suspicion"] = np.where(unseen, np.nan, found.suspicion.round(4))
    result.loc[readable[unseen], "why"] = "photo cannot be read"
    strange = np.array([labels[row] not in place for row in readable], bool)
    result.loc[readable[strange & ~unseen], "why"] = "a category that the model does not know"
    asked = readable[np.isin(verdict, ("look", "unlike"))]
    classes = np.array(model.classes, dtype=object)
    chosen = np.isin(verdict, ("look", "unlike"))
    for number, column in enumerate(("suggested_label", "alternative_2", "alternative_3")[: len(classes) - 1]):
        result[column], result[f"chance_{number + 1}"] = "", np.nan
        result.loc[asked, column] = classes[found.alternatives[chosen, number]]
        result.loc[asked, f"chance_{number + 1}"] = found.chance[chosen, number].round(4)
    return result
