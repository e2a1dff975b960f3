"""Which products a dataset has: images are decoded in the order of the draw until each label has what it needs.

Pixels go to a file as they come; only what tells images apart (checksum, perceptual hash) is in memory.
"""

import itertools
import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pandas as pd

from elrkit.catalogue.fetch import Fetcher
from elrkit.catalogue.images import decode, forget_folders
from elrkit.catalogue.rules import FeedRules

if TYPE_CHECKING:
    from elrkit.scale import Cluster

log = logging.getLogger(__name__)

CHUNK = 512  # images that are decoded at once
FEW = 20  # chunks, which are not worth another process
OPEN, USABLE, REJECTED = range(3)  # what is known of an image


def in_draw_order(table: pd.DataFrame) -> pd.DataFrame:
    """The products that are not dropped, in an order that depends on their ids and the seed alone."""
    return table[table["why"] == ""].sort_values(["draw", "id"])


def decode_needed(
    table: pd.DataFrame,
    pixels: BinaryIO,
    root: Path,
    fetcher: Fetcher,
    rules: FeedRules,
    workers: int,
    cluster: "Cluster | None" = None,
) -> pd.DataFrame:
    """Decode the images that the draw needs, a shared one once, and write their pixels one behind the other.

    Which products are kept depends on the draw alone: more than the needed images may be decoded, never other ones.
    Where placeholders are dropped every image is needed, as it is their content that tells them.

    Args:
        table: of `elrkit.catalogue.products.Feed`.
        pixels: (size, size, 3) uint8 each, in the order of the column row.

    Returns:
        By path, of the decoded images alone: reason ("" when it can be used), sha256, hash, notes, row (-1: no pixels).
    """
    forget_folders()
    table = table[table["why"] == ""]
    image, paths = pd.factorize(table["path"])
    table = in_draw_order(table.assign(image=image))
    every = rules.per_class is None or rules.placeholder_labels
    drawn = len(table) if every else max(rules.per_class, rules.min_images)
    state, done, row = np.zeros(len(paths), np.int8), [], itertools.count()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(workers, 1), spawn) as processes:  # which start when they get work
        for doubling in itertools.count():
            wanted = _wanted(table, state, drawn, 2 ** min(doubling, 30)).tolist()
            if not wanted:
                break
            each, step = map, CHUNK
            if len(wanted) > FEW * CHUNK:
                if cluster:
                    each, step = cluster.map, len(wanted)  # which takes its parts one by one
                elif workers > 1:  # not threads: half of the work holds the interpreter's lock
                    each, step = processes.map, CHUNK * workers
            for start in range(0, len(wanted), step):
                some = [paths[k] for k in wanted[start : start + step]]
                batch = fetcher.fetch_all(root, some)
                parts = [(rules, batch[i : i + CHUNK // 4]) for i in range(0, len(batch), CHUNK // 4)]
                found = itertools.chain.from_iterable(each(decode, parts))
                for k, (path, (reason, sha256, bits, notes, image)) in enumerate(zip(some, found, strict=True), start):
                    done.append((path, reason, sha256, bits, notes, -1 if reason else next(row)))
                    pixels.write(image)
                    state[wanted[k]] = REJECTED if reason else USABLE
                    if reason:
                        fetcher.forget([path])
                    if len(done) % CHUNK == 0:
                        log.info("%d images decoded, of %d in this round", len(done), len(wanted))
    pixels.flush()
    images = pd.DataFrame(done, columns=["path", "reason", "sha256", "hash", "notes", "row"]).set_index("path")
    return _without_placeholders(images, table, rules.placeholder_labels) if rules.placeholder_labels else images


def _wanted(table: pd.DataFrame, state: np.ndarray, drawn: int, more: int) -> np.ndarray:
    """The images to decode next: of every label of whose first `drawn` products one has an open image, those of `more`
    times as many. As `more` doubles, a label full of broken images takes few rounds."""
    table = table[state[table["image"]] != REJECTED]
    is_open = state[table["image"]] == OPEN
    place = table.groupby("label").cumcount()
    short = table["label"][is_open & (place < drawn)].unique()
    return np.unique(table["image"][is_open & table["label"].isin(short) & (place < drawn * more)])


def _without_placeholders(images: pd.DataFrame, table: pd.DataFrame, most: int) -> pd.DataFrame:
    """The images, those rejected whose bytes more labels share, as the feed has them, whatever decisions changed."""
    usable = images["reason"] == ""
    labels = table["filed"].groupby(table["path"].map(images["sha256"][usable])).nunique()
    shared = usable & images["sha256"].isin(labels.index[labels > most])
    reason = f"placeholder, shared by more than {most} subcategories"
    return images.assign(reason=images["reason"].mask(shared, reason))


def choose(table: pd.DataFrame, images: pd.DataFrame, rules: FeedRules) -> pd.DataFrame:
    """The table of products with step and why of all that the dataset does not have.

    A label that has all it draws looks no further: its products behind the last drawn one are not drawn, whatever is
    known about their images. So the result does not depend on how far the decoding went ahead.
    """
    left = in_draw_order(table)
    why = left["path"].map(images["reason"])
    usable = why == ""
    of_label = usable.groupby(left["label"])
    enough = of_label.transform("sum") >= rules.min_images
    before = of_label.cumsum() - usable  # usable products of the label that come before
    behind = enough & (before >= (rules.per_class or len(left)))
    small = usable & ~enough
    why = why.mask(small, few_images(rules)).mask(behind, "not drawn")
    step = why.where(why == "", "image").mask(small, "subcategory").mask(behind, "draw")
    table = table.copy()
    table.loc[left.index, "step"], table.loc[left.index, "why"] = step, why
    return table


def few_images(rules: FeedRules) -> str:
    """Why the products of a small subcategory are dropped."""
    return f"fewer than {rules.min_images} usable images"
