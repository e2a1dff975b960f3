"""Product feeds to datasets.

    manifest = import_feed(["feed/"], "shop", images="feed/", rules=FeedRules(min_images=1000, per_class=1000))
    print(summary(manifest))

A feed is the XML of the paper's shop (one file per main category, ``<product>`` elements) or CSV; a thumbnail is the
image, its subcategory the label (arXiv 2105.13244, Sections 3 and 5.3). The result is a folder of arrays that
`elrkit.data.load` reads, and a manifest that says what was dropped, why, and how to make them again.

Nothing in a feed is trusted: a product that cannot be used is counted under a named reason and never stops an
import. Its texts are in memory, a kilobyte a product, its pixels in a file beside the result (in ``<name>.work``). An
import that was stopped starts anew and ends with the same bytes; what it has fetched is kept and is not fetched again.
Only the addresses of hosts that the caller names are ever fetched.
"""

import contextlib
import errno
import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import imagehash
import numpy as np
import PIL
from lxml import etree
from PIL import Image

from elrkit import records
from elrkit.catalogue.draw import choose, decode_needed
from elrkit.catalogue.feed_files import as_path, feed_files
from elrkit.catalogue.feeds import READERS
from elrkit.catalogue.fetch import Fetcher, download_name, may_be_fetched
from elrkit.catalogue.images import FORMATS, read_file, read_thumbnail
from elrkit.catalogue.products import decide, read_products
from elrkit.catalogue.rules import FeedRules, Rejected, printable
from elrkit.catalogue.written import SHARED_BY, count, dropped_in_words, sha256_of, write_dataset, write_dropped
from elrkit.data import is_class_folders, is_import

if TYPE_CHECKING:
    from elrkit.scale import Cluster

SHOWN = 10  # subcategories that the summary names


def import_feed(
    feeds: Sequence[str | Path],
    out: str | Path,
    *,
    images: str | Path = ".",
    rules: FeedRules = FeedRules(),  # noqa: B008  (frozen)
    decisions: str | Path | Sequence[str | Path] = (),
    download_from: Sequence[str] = (),
    licence: str = "not stated",
    workers: int = 2,
    cluster: "Cluster | None" = None,
) -> dict:
    """Read a shop's feed and write the dataset ``out``, a folder with ``manifest.json``, which is returned, and
    ``dropped.csv``. The arguments are those of the command.

    The latter lists every product that was dropped: its file and place in it (from 1), id, image, the step and the
    reason (but not those that `per_class` did not draw). An import that fails for want of products leaves it as
    ``<out>.failed.csv``, and what an earlier one has written as it was.

    An .npy holds each array, which numpy can map: pictures (m, size, size, 3) uint8, each once however many products
    share it, picture_paths (m,) and picture_sha256 (m, 32) of their files; train_picture and test_picture (n,) int64,
    which of them is each one's; train_labels and test_labels (n,) int64, class_names (C,), ids and titles of either
    part (n,) (the first 80 characters); train_filed and test_filed (n,), the shop's categories where decisions have
    changed any; rows in an order drawn with the seed.

    Raises FileNotFoundError for a feed, images folder or decisions file that is not there; ValueError where no product
    is left, or too few for a training and a test set of two subcategories, a setting does not fit the feed, or a
    decisions file is not sound; ConnectionError where a host failed ``rules.max_failures`` times in a row (the same
    call goes on with what is left to fetch) or the cluster lost a task too often; OSError where another import is
    writing this folder, or there is no room.
    """
    out, root = Path(out).resolve(), as_path(images)  # behind a link lies the folder that is replaced
    if out == Path.cwd():
        raise ValueError(f"import_feed: {out} is where you are, and would be replaced; choose another folder")
    if out.exists() and not is_import(out) and (out.is_file() or any(out.iterdir())):
        raise ValueError(f"import_feed: {out} is there and no earlier import; choose a folder that is not there yet")
    # The whole folder is replaced: nothing of a person's own, as a list written into it, may go with it.
    for path in out.iterdir() if out.exists() else ():
        if path.suffix != ".npy" and path.name not in ("manifest.json", "dropped.csv"):
            raise ValueError(
                f"import_feed: {path} is no part of the earlier import {out}; move it, or choose another --out"
            )
    if not root.is_dir():
        raise FileNotFoundError(
            f"import_feed: images folder {root} does not exist; name the folder the feed's paths start from"
        )
    files, decided_in = feed_files(feeds, READERS), _paths(decisions)
    for path in decided_in:
        if not path.is_file():
            raise FileNotFoundError(f"import_feed: decisions file {path} does not exist; name the CSV that was saved")
    # A host, or the address of one.
    hosts = frozenset((urlsplit(host).netloc if "://" in host else host).lower() for host in download_from)
    source = {
        "feeds": [{"file": name, "bytes": path.stat().st_size, "sha256": sha256_of(path)} for name, path in files],
        "decisions": [sha256_of(path) for path in decided_in],
        "download_from": sorted(hosts),
        "licence": licence,
    }
    made_with = {"pillow": PIL.__version__, "imagehash": imagehash.__version__, "lxml": etree.__version__}
    asked = {"source": source, "rules": rules.model_dump(mode="json"), "made_with": made_with}
    names, failed = [name for name, _ in files], out.with_name(f"{out.name}.failed.csv")
    with _work_folder(out) as work:
        feed, decided = decide(read_products(files, rules), decided_in, rules)
        with (work / "pixels").open("wb") as pixels:
            fetcher = Fetcher(_downloads(out), hosts, rules)
            images = decode_needed(feed.table, pixels, root.resolve(), fetcher, rules, workers, cluster)
        table = choose(feed.table, images, rules)
        counts = count(feed, table, images, names, rules)
        counts["examples"] |= decided["examples"]
        (new := work / "new").mkdir()
        write_dropped(new / "dropped.csv", table, names)
        known = asked | {"counts": counts, "decisions": decided["counts"]}
        try:
            manifest = write_dataset(new, work / "pixels", feed.labels, table, images, known)
        except ValueError as error:
            if not (new / "dropped.csv").exists():
                raise
            (new / "dropped.csv").replace(failed)
            raise ValueError(f"{error}; every dropped product is listed in {failed}") from None
        if out.exists():
            out.replace(work / "old")
        new.replace(out)
        failed.unlink(missing_ok=True)
    return manifest


def _paths(given: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(path) for path in ([given] if isinstance(given, str | Path) else given)]


@contextlib.contextmanager
def _work_folder(out: Path) -> Iterator[Path]:
    """A folder beside the result for what is not whole yet: of one import at a time, and gone when that ends."""
    work = out.with_name(f"{out.name}.work")
    try:
        with records.lock(work) as held:
            if not held:
                raise BlockingIOError(
                    f"import_feed: another import is writing {out}; let it end or choose another name"
                )
            if (work / "old").exists() and not out.exists():  # stopped between the two steps that end an import
                (work / "old").replace(out)
            _clear(work)
            try:
                yield work
            finally:
                _clear(work)
                (work / "lock").unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # somebody has put something else there
                    work.rmdir()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            told = f"no room in {out.parent} ({error.strerror}); make some and start again, downloads are kept"
            raise OSError(f"import_feed: {told}") from None
        raise


def _clear(work: Path) -> None:
    (work / "pixels").unlink(missing_ok=True)
    for name in ("new", "old"):
        shutil.rmtree(work / name, ignore_errors=True)


class Place(NamedTuple):
    """Where a product's picture lies: a file below a folder, and its SHA-256 where the import has written it down."""

    folder: Path
    name: str
    sha256: str | None


def places(dataset: str | Path, ids: Iterable[str], images: str | Path = ".") -> tuple[dict[str, Place], FeedRules]:
    """Where the pictures of these products of a dataset lie, by id, and the rules that they were imported by.

    Args:
        dataset: what `import_feed` wrote; or a folder of class folders, whose ids are the paths of its files.
        ids: of its products; left out are those that it does not have.
        images: the folder that was given to the import.

    Raises:
        ValueError: the dataset does not say which images it was made of.
        FileNotFoundError: there is no such folder of images.
    """
    path, root, wanted = Path(dataset).resolve(), as_path(images), set(ids)
    if is_class_folders(path):
        return {id_: Place(path, id_, None) for id_ in wanted}, FeedRules()
    if not root.is_dir():
        raise FileNotFoundError(f"images folder {root} does not exist; name the one that was given to import-feed")
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        rules, hosts = FeedRules(**manifest["rules"]), manifest["source"]["download_from"]
        names, hashes = (np.load(path / f"picture_{what}.npy", "r") for what in ("paths", "sha256"))
        image_of = {}
        for part in ("train", "test"):
            of = np.load(path / f"{part}_picture.npy")
            for id_, number in zip(np.load(path / f"{part}_ids.npy").tolist(), of.tolist(), strict=True):
                if id_ in wanted:
                    image_of[id_] = str(names[number]), hashes[number].tobytes().hex()
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"{path}: does not say which images it was made of; import the feed again") from None
    downloads, root = _downloads(path), root.resolve()
    where = {}
    for id_, (name, sha) in image_of.items():
        where[id_] = (
            Place(downloads, download_name(name), sha) if may_be_fetched(name, hosts) else Place(root, name, sha)
        )
    return where, rules


def picture(place: Place, rules: FeedRules, side: int, grow: bool = True) -> np.ndarray | None:
    """A product's picture as the shop has it, nothing cut off, (side, side, 3) uint8, or less where it is smaller and
    is not to `grow`; None where it is not there any more, is another one by now, or cannot be read."""
    with contextlib.suppress(Rejected):
        data, _ = read_file(place.folder, place.name, rules.max_bytes)
        if place.sha256 in (None, hashlib.sha256(data).hexdigest()):
            if not grow:
                with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                    side = min(side, max(opened.size))
            return read_thumbnail(data, rules.model_copy(update={"size": side, "fit": "pad"})).pixels
    return None


def shown(where: Mapping[str, Place], rules: FeedRules, ids: Iterable[str], side: int) -> dict[str, np.ndarray]:
    """`picture` of each of these products that has one, by id, at most `side` pixels wide and high, for people to look
    at; where and rules as of `places`."""
    found = {id_: picture(where[id_], rules, side, grow=False) for id_ in ids if id_ in where}
    return {id_: pixels for id_, pixels in found.items() if pixels is not None}


def _downloads(out: Path) -> Path:
    """Where fetched images are kept, for further imports into the same folder as well."""
    return out.parent / "elrkit-downloads"


def summary(manifest: Mapping) -> str:
    """What an import did, as plain lines for a terminal."""
    counts, split = manifest["counts"], manifest["split"]
    small, lists = counts["small_subcategories"], counts["label_lists"][:1]
    notes = [
        *(f"the label column seems to hold lists of categories, such as {each!r}; --rules.categories deepest, or "
          "first, takes one of each" for each in lists),
        *(f"no product has the label {printable(label)} that is left out; there are {', '.join(there)}"
          for label, there in counts["not_left_out"].items()),
        *(f"subcategories that differ in case alone: {', '.join(map(printable, names))}; --rules.merge-case makes "
          "them one" for names in counts["differ_in_case"]),
        *(f"{images} images {note}" for note, images in counts["notes"].items()),
        *(f"{shared['products']} products of {shared['subcategories']} subcategories share the picture "
          f"{shared['image']}; if it is a placeholder, --rules.placeholder-labels {SHARED_BY} drops them"
          for shared in counts["shared_pictures"]),
    ]  # fmt: skip
    lines = dropped_in_words(counts)
    if small:
        named = [f"{printable(name)} ({usable})" for name, usable in small["named"][:SHOWN]]
        named += [f"and {small['count'] - SHOWN} more"] if small["count"] > SHOWN else []
        lines.append(f"subcategories dropped, with their usable images: {', '.join(named)}")
    lines += [f"note: {note}" for note in notes]
    damaged = counts["xml_damage"].items()
    lines += [f"damaged: {name}: {found['errors']} XML errors, first at {found['first']}" for name, found in damaged]
    for what, times in manifest["decisions"].items():
        lines += [f"decisions: {times} {what}", *(f"  {example}" for example in counts["examples"].get(what, ()))]
    return "\n".join((
        f"{counts['read']} products read from {len(manifest['source']['feeds'])} files",
        *(f"  {line}" for line in lines),
        f"{counts['kept']} products kept in {len(manifest['classes'])} subcategories: {split['train']} train, "
        f"{split['test']} test, {split['groups']} groups (largest {split['largest_group']}), "
        f"{split['test_with_near_duplicate_in_train']} test products with a near-duplicate in training",
    ))  # fmt: skip
