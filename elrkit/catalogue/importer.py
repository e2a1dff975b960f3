"""Product feeds to datasets: with `elrkit.catalogue.feeds` the only code that reads untrusted input.

    manifest = import_feed(["feed/"], "shop.npz", images="feed/", rules=FeedRules(min_images=1000, per_class=1000))
    print(summary(manifest))

A feed is the XML of the paper's shop (one file per main category, ``<product>`` elements) or CSV; a thumbnail is the
image, its subcategory the label (arXiv 2105.13244, Sections 3 and 5.3). The result is one ``.npz`` with the arrays
every dataset of this package has, and a manifest that says what was dropped, why, and how to rebuild the file.

Nothing in a feed is trusted: a product that cannot be used is counted under a named reason and never stops an
import. Products and images wait in an SQLite file beside the result (``<name>.work``), written as the work goes, so
memory stays bounded whatever the size of the feed, and an import that was killed goes on where it stopped and ends
with the same bytes. Only the addresses of hosts that the caller names are ever fetched.
"""

import contextlib
import csv
import functools
import hashlib
import io
import itertools
import json
import logging
import multiprocessing
import os
import re
import sqlite3
import stat
import struct
import threading
import time
import unicodedata
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

import imagehash
import numpy as np
import PIL
import requests
import urllib3
from lxml import etree
from PIL import Image, ImageOps
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from requests.adapters import HTTPAdapter

from elrkit.catalogue.decisions import DECISION_COLUMNS, as_text, read_decisions, without_zeros
from elrkit.catalogue.feeds import CSV_COLUMNS, MAX_FIELD, XML_COLUMNS, FileRefused, printable, read_csv, read_xml
from elrkit.catalogue.groups import group_products, near_groups, split_by_group, title_stem
from elrkit.config import ConfigError, one_line
from elrkit.data import as_rgb

log = logging.getLogger(__name__)

# The decoders a web shop needs; every other one stays shut. AVIF's may decode a larger frame than its header says.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
DROPPED_COLUMNS = ["file", "product", "id", "image", "step", "reason"]
MAX_TITLE = 80  # of which a dataset keeps so many, for people who look at its products
MAX_NAME = 200  # characters of an id or a label: they become fixed-width arrays
CHUNK = 512  # images between two commits
EXAMPLES = 5  # products named per reason in the manifest
MOST_NAMED = 1_000  # subcategories named there
SHARED_BY = 3  # subcategories; a picture that more of them share is told
SHOWN = 10  # of which the summary shows so many


def _known_encoding(name: str) -> str:
    try:
        io.TextIOWrapper(io.BytesIO(), encoding=name)
    except LookupError:
        raise ValueError(f"{name!r} is no encoding that Python knows; utf-8-sig, latin-1 and cp1252 are") from None
    return name


def _one_character(delimiter: str) -> str:
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError(f"{delimiter!r} cannot part the columns of a CSV file; give one character, such as ; or a tab")
    return delimiter


class FeedRules(BaseModel):
    """What an import keeps, drops and does; everything in it ends in the manifest.

    The defaults keep every usable product; ``FeedRules(min_images=1000, per_class=1000, split="product")`` is what the
    paper did, ``split="group"`` what it should have done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ConfigError(one_line(error, type(self).model_fields)) from None

    columns: dict[str, str] | None = None
    """Part of a product (id, label, name, image, title, link, released) -> column or XML tag; the parts not named keep
    the shop's tags in XML and their own names in CSV. ``label="@file"``: the file's name is the label; files of one
    name in several folders are several labels. ``image="photos/{id}.jpg"``: images are named by the products' ids. Of
    several images in one cell the first counts."""
    item: str = "product"
    """XML element that holds one product."""
    encoding: Annotated[str, AfterValidator(_known_encoding)] = "utf-8-sig"
    """Encoding of CSV files (XML declares its own)."""
    delimiter: Annotated[str, AfterValidator(_one_character)] = ","
    first_year: int = 2011
    """Products released before this year are old; one without a date is not."""
    placeholder_labels: int | None = Field(None, ge=1)
    """An image file (one path or address) that products of more subcategories than this share is a placeholder ("no
    image yet"), and they are dropped; None keeps them."""
    drop_labels: tuple[str, ...] = ()
    """Labels to leave out ("Not sure", "Other")."""
    merge_case: bool = False
    """Subcategories whose names are equal but for case (Dress, dress) are one, named as the first."""

    size: int = Field(32, ge=8, le=512)
    """Side of the square result, pixels."""
    fit: Literal["crop", "pad"] = "crop"
    """``crop``: short side resized, centre kept (the paper); ``pad``: nothing cut off, white borders."""
    min_side: int = Field(16, ge=1)
    max_pixels: int = Field(25_000_000, ge=1)
    max_bytes: int = Field(10_000_000, ge=1)
    max_aspect: float = Field(8.0, ge=1)

    min_images: int = Field(1, ge=1)
    """Subcategories with fewer usable products are dropped."""
    per_class: int | None = Field(None, ge=1)
    """Products drawn per subcategory; None keeps all."""
    seed: int = 0

    split: Literal["group", "product"] = "group"
    """``group``: near-duplicates never straddle training and test set; ``product``: every product by itself."""
    test_share: float = Field(0.1, gt=0, lt=1)
    near_distance: int | None = Field(22, ge=0, le=48)
    """Perceptual hashes (144 bits) that differ in at most so many bits are near-duplicates; None: equal bytes only. At
    22, nearly every recoloured, cropped and recompressed copy is recognized and few strangers are taken for one."""
    title_group: int = Field(50, ge=0)
    """Products whose titles differ only in size and colour are one article, unless more than so many share the title
    (then it is a generic name); 0 switches titles off."""

    unsure: Literal["keep", "drop"] = "keep"
    """What becomes of products that a person marked unsure."""

    connections: int = Field(2, ge=1, le=8)
    retries: int = Field(3, ge=0, le=10)
    backoff_s: float = Field(1.0, ge=0)
    """Wait before the second retry, doubled with each further one (at most 30 s)."""
    timeout_s: float = Field(10.0, gt=0)
    """Longest silence of a host; a whole image may take three times as long."""
    max_failures: int = Field(20, ge=1)
    """Failed downloads in a row after which the import stops, to be resumed later."""


class Rejected(ValueError):
    """A product or an image that cannot be used; the message is the reason that is counted."""


class Thumbnail(NamedTuple):
    """A decoded image: ``pixels`` (size, size, 3) uint8 RGB, ``hash`` (18,) uint8, ``notes`` on what was converted."""

    pixels: np.ndarray
    hash: np.ndarray
    notes: tuple[str, ...]


# ------------------------------------------------------------------------------------------------ one import


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
) -> dict:
    """Read a shop's feed and write the dataset ``out`` (.npz), ``<out>.manifest.json`` and ``<out>.dropped.csv``.

    The last lists every product that was dropped: its file and place in it (from 1), id, image, the step and the reason
    (but not those that `per_class` did not draw). An import that fails for want of products leaves it as
    ``<out>.failed.csv``, and what an earlier one has written as it was.

    Args:
        feeds: XML and CSV files, or folders of them (read in the order of their names).
        out: the ``.npz`` to write: train_images and test_images (n, size, size, 3) uint8, train_labels and test_labels
            (n,) int64, class_names (C,), train_ids, test_ids, train_titles and test_titles (n,) (the first 80
            characters), train_image and test_image (n,) int64, where each one's image stands in the manifest's list;
            rows in an order drawn with the seed.
        images: folder below which the feed's image paths lie; nothing outside it is ever opened.
        rules: what to keep; see ``FeedRules``.
        decisions: one CSV or several, of one review after the other, as the audit page saves them and
            ``read_decisions`` reads them. A product that is filed under the label that was decided on, or was before an
            earlier decision, gets its suggested label by ``confirm`` and that label by ``keep``; for ``unsure`` see the
            rules.
        download_from: hosts (``name`` or ``name:port``) whose image addresses may be fetched; without them none is.
        licence: terms of the feed, for the manifest.
        workers: processes that decode images where there are more than 10,000 (a script that asks for more than one
            needs the usual ``if __name__ == "__main__"``).

    Returns:
        The manifest, without its list of image hashes.

    Raises:
        FileNotFoundError: a feed, the images folder or the decisions file does not exist.
        ValueError: no product is left, or too few for a training and a test set of two subcategories; a setting does
            not fit the feed; a decisions file is not sound.
        ConnectionError: a host failed ``rules.max_failures`` times in a row; the same call resumes, and reads again
            the images that could not be read before.
        OSError: another import is writing this file, or what one left is damaged.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise ValueError(f"import_feed: the result {out} must end in .npz")
    root = Path(images)
    if not root.is_dir():
        raise FileNotFoundError(
            f"import_feed: images folder {root} does not exist; name the folder the feed's paths start from"
        )
    unknown = set(rules.columns or {}) - set(XML_COLUMNS)
    if unknown:
        raise ValueError(
            f"import_feed: columns names {sorted(unknown)}; the parts of a product are {list(XML_COLUMNS)}"
        )
    files = _feed_files(feeds)
    decided = [Path(path) for path in ([decisions] if isinstance(decisions, str | Path) else decisions)]
    for path in decided:
        if not path.is_file():
            raise FileNotFoundError(f"import_feed: decisions file {path} does not exist; name the CSV that was saved")
    # A host, or the address of one.
    hosts = frozenset((urlsplit(host).netloc if "://" in host else host).lower() for host in download_from)
    source = {
        "feeds": [{"file": name, "bytes": path.stat().st_size, "sha256": _sha256(path)} for name, path in files],
        "decisions": [_sha256(path) for path in decided],
        "download_from": sorted(hosts),
        "licence": licence,
    }
    made_with = {"pillow": PIL.__version__, "imagehash": imagehash.__version__, "lxml": etree.__version__}
    asked = {"source": source, "rules": rules.model_dump(mode="json"), "made_with": made_with}
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.with_suffix(".work")
    unfinished = work / "import.sqlite"
    key = json.dumps([asked, str(root.resolve()), _SCHEMA], sort_keys=True)
    with _damage_named(unfinished), closing(_open_work(unfinished, key)) as db:
        for number, (name, path) in enumerate(files):
            _scan(db, number, name, path, rules, hosts)
        _reject_placeholders(db, rules)
        _apply_decisions(db, decided, rules)
        _decode_needed(db, root.resolve(), _Fetcher(_downloads(out), hosts, rules), rules, workers)
        manifest = _write(db, out, asked, rules)
    unfinished.unlink()
    work.rmdir()
    return manifest


def rebuild_feed(
    manifest: str | Path,
    feeds: Sequence[str | Path],
    out: str | Path,
    *,
    images: str | Path = ".",
    decisions: str | Path | Sequence[str | Path] = (),
    workers: int = 2,
) -> dict:
    """Make a dataset again from its manifest, the feed and the images, and check that it is the same.

    `out` is written only if it is; an `out` that was there stays otherwise.

    Raises:
        ValueError: the feed, the decisions, an image, or the resulting file differs from what the manifest lists.
    """
    out = Path(out)
    old = json.loads(Path(manifest).read_text(encoding="utf-8"))
    for (name, path), wanted in itertools.zip_longest(
        _feed_files(feeds), old["source"]["feeds"], fillvalue=(None, None)
    ):
        if name is None or not isinstance(wanted, dict) or _sha256(path) != wanted["sha256"]:
            raise ValueError(f"rebuild_feed: {name or wanted['file']} is not the feed that {manifest} was made from")
    decided = [decisions] if isinstance(decisions, str | Path) else decisions
    if [_sha256(Path(path)) for path in decided] != old["source"]["decisions"]:
        raise ValueError(f"rebuild_feed: these are not the decisions that {manifest} was made with")
    rebuilt = out.with_name(f"{out.stem}.rebuilt.npz")
    new = import_feed(
        feeds,
        rebuilt,
        images=images,
        rules=FeedRules(**old["rules"]),
        decisions=decisions,
        download_from=old["source"]["download_from"],
        licence=old["source"]["licence"],
        workers=workers,
    )
    hashes = json.loads(_manifest_path(rebuilt).read_text(encoding="utf-8"))["images"]
    made = {of(rebuilt): of(out) for of in (Path, _manifest_path, dropped_list)}
    try:
        if hashes != old["images"]:
            differing = sum(hashes.get(path) != sha for path, sha in old["images"].items())
            raise ValueError(
                f"rebuild_feed: {differing} of {len(old['images'])} images differ from those {manifest} lists"
            )
        if new["npz_sha256"] != old["npz_sha256"]:
            raise ValueError(
                f"rebuild_feed: the file differs from {manifest}'s, which was made with {old['made_with']}"
            )
        for path, final in made.items():
            if path.exists():
                path.replace(final)
    finally:
        for path in made:
            path.unlink(missing_ok=True)
    return new


def originals(
    dataset: str | Path, ids: Iterable[str], images: str | Path = ".", side: int = 160
) -> dict[str, np.ndarray]:
    """Products' pictures as the shop has them, for people to look at, by id: nothing cut off, (side, side, 3) uint8.

    Args:
        dataset: what `import_feed` wrote, with its manifest beside it; or a folder of class folders, whose ids are the
            paths of its files.
        ids: of its products. Left out are those whose picture is not there any more, or another one by now.
        images: the folder that was given to the import.

    Raises:
        ValueError: the dataset does not say which images it was made of.
        FileNotFoundError: there is no such folder of images.
    """
    path, root, rules = Path(dataset), Path(images), {}
    if path.is_dir():
        where = {id_: (path.resolve(), id_, None) for id_ in ids}
    else:
        if not root.is_dir():
            raise FileNotFoundError(f"images folder {root} does not exist; name the one that was given to import-feed")
        wanted = set(ids)
        try:
            manifest = json.loads(_manifest_path(path).read_text(encoding="utf-8"))
            if manifest["npz_sha256"] != _sha256(path):
                raise ValueError("the manifest is of another file")
            with np.load(path) as arrays:
                rows = [arrays[f"{part}_{what}"] for what in ("ids", "image") for part in ("train", "test")]
            places = zip(np.concatenate(rows[:2]).tolist(), np.concatenate(rows[2:]).tolist(), strict=True)
            listed, rules = list(manifest["images"].items()), manifest["rules"]
            image_of = {id_: listed[place] for id_, place in places if id_ in wanted}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile):
            raise ValueError(
                f"{path}: does not say which images it was made of, or lacks its own {_manifest_path(path).name} "
                "beside it; import the feed again"
            ) from None
        downloads = _downloads(path)
        where = {
            id_: (downloads.resolve(), _download_name(name), sha) if "://" in name else (root.resolve(), name, sha)
            for id_, (name, sha) in image_of.items()
        }
    full, found = FeedRules(**rules | {"size": side, "fit": "pad"}), {}
    for id_, (folder, name, sha) in where.items():
        with contextlib.suppress(Rejected):
            data, _ = _read_file(folder, name, full.max_bytes)
            if sha in (None, hashlib.sha256(data).hexdigest()):
                found[id_] = read_thumbnail(data, full).pixels
    return found


_MENDS = {  # why products are dropped -> what mends it, where that is an option and not the product
    "wrong encoding": "--rules.encoding cp1252 or latin-1, if a CSV is in that; XML names it in its first line",
    "no image": "--rules.columns image NAME, if another column or tag has it",
    "image file missing": "--images names the folder that the feed's paths start from",
    "image on a host not allowed for download": "--download-from names its host, as HOST:PORT where it has a port",
}


def _dropped_in_words(counts: Mapping) -> list[str]:
    """A line for each reason why products were dropped: step, count, reason, and what may mend it."""
    lines = []
    for step, reasons in counts["dropped"].items():
        for reason, count in reasons.items():
            example = f", such as {counts['examples'][reason][0]}" if counts["examples"].get(reason) else ""
            mend = f" ({_MENDS[reason]}{example})" if reason in _MENDS else ""
            lines.append(f"{step}: {count} dropped, {reason}{mend}")
    return lines


def summary(manifest: Mapping) -> str:
    """What an import did, as plain lines for a terminal."""
    lines = [f"{manifest['counts']['read']} products read from {len(manifest['source']['feeds'])} files"]
    lines += [f"  {line}" for line in _dropped_in_words(manifest["counts"])]
    if small := manifest["counts"].get("small_subcategories"):
        named = [f"{name} ({count})" for name, count in small["named"][:SHOWN]]
        more = f", and {small['count'] - SHOWN} more" if small["count"] > SHOWN else ""
        lines.append(f"  subcategories dropped, with their usable images: {', '.join(named)}{more}")
    lines += [
        f"  note: subcategories that differ in case alone: {', '.join(names)}; --rules.merge-case makes them one"
        for names in manifest["counts"].get("differ_in_case", ())
    ]
    lines += [f"  note: {count} images {note}" for note, count in manifest["counts"]["notes"].items()]
    lines += [
        f"  note: {shared['products']} products of {shared['subcategories']} subcategories share the picture "
        f"{shared['image']}; if it is a placeholder, --rules.placeholder-labels {SHARED_BY} drops them"
        for shared in manifest["counts"].get("shared_pictures", ())
    ]
    lines += [
        f"  damaged: {name}: {found['errors']} XML errors, first at {found['first']}"
        for name, found in manifest["counts"]["xml_damage"].items()
    ]
    lines += [f"  file refused: {name}: {reason}" for name, reason in manifest["counts"]["files_refused"].items()]
    for what, count in manifest["decisions"].items():
        lines.append(f"  decisions: {count} {what}")
        lines += [f"    {example}" for example in manifest["counts"]["examples"].get(what, ())]
    split = manifest["split"]
    lines.append(
        f"{manifest['counts']['kept']} products kept in {len(manifest['classes'])} subcategories: "
        f"{split['train']} train, {split['test']} test, {split['groups']} groups (largest {split['largest_group']}), "
        f"{split['test_with_near_duplicate_in_train']} test products with a near-duplicate in training"
    )
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ reading feeds


def _is_ours(path: Path) -> bool:
    """Whether a CSV in a folder of feeds is what this package wrote about one: dropped products, a list, decisions, the
    truth of a made feed."""
    with path.open("rb") as file:
        columns = file.readline(500).decode("utf-8-sig", "replace").strip().split(",")
    return columns in (DROPPED_COLUMNS, DECISION_COLUMNS) or any(
        known <= {*columns}
        for known in ({"suggested_label", "confidence", "reason"}, {"true_label", "article", "kind"})
    )


def _feed_files(feeds: Sequence[str | Path]) -> list[tuple[str, Path]]:
    """(name for the manifest, path) of every feed file; names carry no folder of this machine."""
    files = []
    feeds = [feeds] if isinstance(feeds, str | Path) else feeds
    for feed in feeds:
        path = Path(feed)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in (".xml", ".csv") and p.is_file())
            files += [(p.relative_to(path).as_posix(), p) for p in inside if not _is_ours(p)]
        elif path.is_file():
            files.append((path.name, path))
        else:
            raise FileNotFoundError(f"import_feed: feed {path} does not exist")
    if not files:
        where = ", ".join(map(str, feeds)) or "an empty list"
        raise ValueError(f"import_feed: no .xml or .csv file in {where}; give the feed first, then the options")
    whole = [Path(os.path.abspath(path)) for _, path in files]
    if len({name for name, _ in files}) < len(set(whole)):  # two of one name, from folders that were given one by one
        common = os.path.commonpath([path.parent for path in whole])
        files = [(path.relative_to(common).as_posix(), path) for path in whole]
    return files


_NEXT_ADDRESS = re.compile(r"[\s,;|]+(?=https?://)", re.IGNORECASE)  # of several images in one cell
_FRONT_PAGE = re.compile(r"https?://[^/?#]*/?", re.IGNORECASE)
# 2010-05-31, 31/05/2010; of eight digits, 20100531 or 31052010, those that may be a year
_YEAR = re.compile(r"(?<!\d)(\d{4})(?!\d)|(?<!\d)(?:((?:19|20)\d\d)\d{4}|\d{4}((?:19|20)\d\d))(?!\d)")
_BROKEN_TEXT = re.compile("[\ufffd\ud800-\udfff]")
_CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # a NUL would end an id, where SQLite measures it


def _check_product(product: Mapping[str, str], rules: FeedRules, hosts: frozenset[str]) -> tuple[str, str, str, str]:
    """(id, label, name of the label, image) of a product that may be used; Rejected says why another may not."""
    part = {key: value.strip() for key, value in product.items()}
    if "://" in part.get("image", ""):
        part["image"] = _NEXT_ADDRESS.split(part["image"], maxsplit=1)[0]
    if any(len(value) > MAX_FIELD for value in part.values()):
        raise Rejected("field too long")
    image = part.get("image", "")
    if any(_BROKEN_TEXT.search(part.get(key, "")) for key in ("id", "label", "name", "image")):
        raise Rejected("wrong encoding")
    if _FRONT_PAGE.fullmatch(part.get("link", "")):
        raise Rejected("invalid: link is the shop's front page")
    year = _YEAR.search(part.get("released", ""))
    if year and 0 < int(next(filter(None, year.groups()))) < rules.first_year:  # 0000-00-00: how MySQL says "no date"
        raise Rejected(f"old: released before {rules.first_year}")
    if not image:
        raise Rejected("no image")
    if not part.get("id"):
        raise Rejected("no id")
    label = _one_spelling(part.get("label", ""))
    if not label:
        raise Rejected("no label")
    name = _one_spelling(part.get("name", "")) or label
    if any(map(_CONTROL.search, (part["id"], label, name))):
        raise Rejected("control character in id or label")
    if max(len(part["id"]), len(label), len(name)) > MAX_NAME:
        raise Rejected("id or label too long")
    case = str.casefold if rules.merge_case else str
    if not _left_out(rules.drop_labels, case).isdisjoint((case(label), case(name))):
        raise Rejected("label left out")
    return part["id"], case(name) if rules.merge_case else label, name, _check_address(image, hosts)


@functools.lru_cache(maxsize=8)  # asked for each product
def _left_out(drop_labels: tuple[str, ...], case: Callable[[str], str]) -> frozenset[str]:
    return frozenset(case(_one_spelling(each)) for each in drop_labels)


_NO_WIDTH = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad]")


def _one_spelling(label: str) -> str:
    """A label without what nobody sees: composed characters, plain single spaces, nothing of no width."""
    return " ".join(unicodedata.normalize("NFC", _NO_WIDTH.sub("", label)).split())


def _check_address(image: str, hosts: frozenset[str]) -> str:
    """A relative path without a way out, or an address on a host that the caller named."""
    if "://" in image or image.lower().startswith(("data:", "file:", "javascript:", "mailto:")):
        if re.search(r"[\s\0-\x1f\x7f]", image):  # which the parser drops, and the library that fetches does not
            raise Rejected("image address not understood")
        try:
            address = urlsplit(image)
        except ValueError:
            raise Rejected("image address not understood") from None
        if address.scheme.lower() not in ("http", "https"):
            raise Rejected("image address neither http nor https")
        if address.netloc.lower() not in hosts:  # the whole of it: a user name or another port is another host
            raise Rejected("image on a host not allowed for download")
        return image
    image = image.replace("\\", "/")  # as Windows parts folders
    if image[1:2] == ":":
        raise Rejected("image path is absolute, expected one below the images folder")
    path = PurePosixPath(image.lstrip("/"))  # shops write paths from the root of their media
    if ".." in path.parts or "\0" in image:
        raise Rejected("image path leaves the images folder")
    return str(path)


# ------------------------------------------------------------------------------------------------ reading images


_ORIENTATION = 0x0112  # of EXIF; 1: as it is


def read_thumbnail(data: bytes, rules: FeedRules = FeedRules()) -> Thumbnail:  # noqa: B008  (frozen)
    """Decode one image file of any origin to (size, size, 3) RGB pixels.

    Sizes are read from the header before anything is decoded. Rotated by EXIF orientation; CMYK, palette and 16-bit
    images become 8-bit RGB, transparency becomes white, and of an animation the first frame counts.

    Raises:
        Rejected: with the reason, for everything that is not a usable image.
    """
    if len(data) > rules.max_bytes:
        raise Rejected("file too large")
    if b"<svg" in data[:1024].lower():
        raise Rejected("vector image (SVG)")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > rules.max_pixels:
            raise Rejected("too many pixels (decompression bomb)")
        if min(width, height) < rules.min_side:
            raise Rejected("too small")
        if max(width, height) > rules.max_aspect * min(width, height):
            raise Rejected("absurd shape")
        notes = []
        if image.format != "MPO" and getattr(image, "is_animated", False):
            notes.append("animated, first frame taken")
        if image.mode == "CMYK":
            notes.append("CMYK converted")
        if image.mode == "P":
            notes.append("palette converted")
        if image.format == "PNG" and any("16" in str(tile[3]) for tile in image.tile):
            notes.append("16-bit reduced to 8")
        image.load()
        if image.getexif().get(_ORIENTATION, 1) != 1:
            notes.append("rotated by EXIF orientation")
        if image.has_transparency_data:
            notes.append("transparency made white")
        image = as_rgb(image)
        square = (rules.size, rules.size)
        resample = Image.Resampling.BILINEAR
        # Signs of the lowest 12 x 12 DCT coefficients of the 36 x 36 grey image about their median. The usual 8 x 8
        # takes strangers for near-duplicates; 16 x 16 needs twice the distance, whose pairs take far longer to find
        # (benchmarks/feed_import.py, hashes).
        bits = np.packbits(imagehash.phash(image, hash_size=12, highfreq_factor=3).hash)
        fitted = (
            ImageOps.fit(image, square, resample)
            if rules.fit == "crop"
            else ImageOps.pad(image, square, resample, "white")
        )
        pixels = np.asarray(fitted)
    except Rejected:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Rejected("too many pixels (decompression bomb)") from None
    except PIL.UnidentifiedImageError:
        raise Rejected("not an image") from None
    except Exception as error:  # a decoder fed garbage may raise anything; the product is what is wrong, not the import
        raise Rejected("truncated image" if "truncated" in str(error).lower() else "unreadable image") from None
    if (pixels == pixels[0, 0]).all():
        raise Rejected("blank image (one colour)")
    return Thumbnail(pixels, bits, tuple(notes))


@functools.lru_cache(maxsize=10_000)  # resolving a path takes as long as reading a thumbnail; folders hold many
def _real_folder(root: Path, folder: str) -> str:
    return os.path.realpath(os.path.join(root, folder), strict=True)


def _read_file(root: Path, path: str, max_bytes: int) -> tuple[bytes, tuple[str, ...]]:
    """Bytes of a regular file below ``root`` (already resolved), and a note if the path is not written as the file's.

    Links that lead out of the root are refused.
    """
    try:
        real, notes = _located(root, path)
        status = os.stat(real)
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would block or never end
            raise Rejected("image is not a file")
        if status.st_size > max_bytes:
            raise Rejected("file too large")
        with open(real, "rb") as file:
            return file.read(max_bytes + 1), notes
    except OSError:
        raise Rejected("image file missing") from None


_SEVERAL = re.compile(r"\s*[,;|]\s*")


def _located(root: Path, path: str) -> tuple[str, tuple[str, ...]]:
    """Where an image lies, and a note unless it is exactly there; OSError when it is nowhere."""
    with contextlib.suppress(OSError):
        return _real_file(root, path), ()
    first = _SEVERAL.split(path, maxsplit=1)[0]  # where the path itself is no file: the first of several
    for written in dict.fromkeys((path, unquote(path), first, unquote(first))):
        if found := _alike(root, written):
            taken = ("first of several in one cell",) if written in (first, unquote(first)) and first != path else ()
            return _real_file(root, found), taken or ("found under another spelling of the path",)
    raise FileNotFoundError(path)


def _real_file(root: Path, path: str) -> str:
    """The path of an existing file without links; Rejected where it lies outside the root, OSError where it is not."""
    folder, name = os.path.split(path)
    real = os.path.join(_real_folder(root, folder), name)
    if os.path.islink(real):
        real = os.path.realpath(real, strict=True)
    if not real.startswith(os.path.join(root, "")):
        raise Rejected("image path leaves the images folder")
    os.stat(real)
    return real


def _alike(root: Path, path: str) -> str | None:
    """The path below the root that differs from this one in capitals or in how accents are composed alone, if it is the
    only one: Windows and macOS tell neither apart."""
    folder = ""
    for part in PurePosixPath(path.lstrip("/")).parts:
        name = _names(root, folder).get(_spelled_alike(part))
        if name is None:
            return None
        folder = os.path.join(folder, name)
    return folder or None


def _spelled_alike(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


@functools.lru_cache(maxsize=10_000)
def _names(root: Path, folder: str) -> dict[str, str | None]:
    """What is in a folder, by spelling; None for a spelling that several share."""
    names: dict[str, str | None] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(os.path.join(root, folder)):
            key = _spelled_alike(name)
            names[key] = None if key in names else name
    return names


def _download_name(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


# What the library raises for an address, or one that it is sent on to, that is none.
_NO_ADDRESS = (ValueError, requests.exceptions.InvalidSchema, urllib3.exceptions.LocationParseError)


class _PatientRetry(urllib3.Retry):
    """Waits as long as a host asks for, but not the hours that a hostile one may ask for."""

    def get_retry_after(self, response) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, 60.0)


class _Fetcher:
    """Fetches images from allowed hosts into a folder, few at a time; what is there already is not fetched again."""

    def __init__(self, folder: Path, hosts: Iterable[str], rules: FeedRules):
        self.folder, self.hosts, self.rules = folder.resolve(), frozenset(hosts), rules
        self.failures, self.counting = 0, threading.Lock()  # in a row
        self.session = requests.Session()
        self.session.headers["User-Agent"] = "elrkit feed importer"
        self.session.headers["Accept-Encoding"] = "identity"  # bytes are taken as they come, see `read1`
        retry = _PatientRetry(
            total=rules.retries,
            redirect=0,
            backoff_factor=rules.backoff_s,
            backoff_max=30,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=("GET",),
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=rules.connections, max_retries=retry))

    def fetch_all(self, root: Path, jobs: list[tuple[int, str]]) -> list[tuple[int, Path | str, str]]:
        """(key, folder, path) of images given as (key, path or address); no folder but a reason where it fails."""
        with ThreadPoolExecutor(self.rules.connections) as pool:
            fetched = pool.map(self._fetch_one, (path for _, path in jobs if "://" in path))
            return [(k, *next(fetched)) if "://" in path else (k, root, path) for k, path in jobs]

    def forget(self, paths: Iterable[str]) -> None:
        """Remove what was fetched from those of these that are addresses: it was no image, and may be one next time."""
        for path in paths:
            if "://" in path:
                (self.folder / _download_name(path)).unlink(missing_ok=True)

    def _fetch_one(self, url: str) -> tuple[Path | str, str]:
        name = _download_name(url)
        if (self.folder / name).exists():
            return self.folder, name
        if self.failures >= self.rules.max_failures:  # the import is about to stop: ask no more
            return "", "download failed"
        try:
            data = self._fetch(url)
        except Rejected as error:
            self.failures = 0  # the host has answered
            return "", str(error)
        except _NO_ADDRESS:
            return "", "image address not understood"
        except (requests.RequestException, urllib3.exceptions.HTTPError):
            with self.counting:
                self.failures += 1
            if self.failures < self.rules.max_failures:
                return "", "download failed"
            raise ConnectionError(
                f"import_feed: {self.failures} downloads in a row failed, last {url}; the same command goes on later"
            ) from None
        self.failures = 0
        self.folder.mkdir(exist_ok=True)
        partial = self.folder / f"{name}.{os.getpid()}-{threading.get_ident()}"
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # or a power cut might leave an empty file of that name
        partial.replace(self.folder / name)
        return self.folder, name

    def _fetch(self, url: str) -> bytes:
        deadline = time.monotonic() + 3 * self.rules.timeout_s
        for _ in range(4):
            # Redirects are followed by hand: each hop must be on an allowed host too.
            with self.session.get(url, stream=True, timeout=self.rules.timeout_s, allow_redirects=False) as answer:
                if answer.is_redirect:
                    url = _check_address(urljoin(url, answer.headers["location"]), self.hosts)
                    continue
                if answer.status_code >= 500 or answer.status_code == 429:
                    raise requests.ConnectionError(f"status {answer.status_code}")
                if answer.status_code != 200:
                    raise Rejected(f"download refused (status {answer.status_code})")
                if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise Rejected("download in a Content-Encoding that was not asked for")
                data = bytearray()
                # read1 gives what has come; a plain read would wait for a full block, however slowly it drips in.
                while block := answer.raw.read1(1 << 14):
                    data += block
                    if len(data) > self.rules.max_bytes:
                        raise Rejected("file too large")
                    if time.monotonic() > deadline:
                        raise Rejected("download too slow")
                return bytes(data)
        raise Rejected("too many redirects")


# ------------------------------------------------------------------------------------------------ work in progress

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE label(k INTEGER PRIMARY KEY, key TEXT UNIQUE, name TEXT);
CREATE TABLE product(n INTEGER PRIMARY KEY, id TEXT UNIQUE, label INT, image INT, draw INT, stem INT, title TEXT, \
file INT, entry INT);
CREATE TABLE unused(file INT, entry INT, id TEXT, image TEXT, step TEXT, reason TEXT);
CREATE TABLE image(k INTEGER PRIMARY KEY, path TEXT UNIQUE, reason TEXT, sha256 BLOB, hash BLOB, notes TEXT, \
placeholder INT);
CREATE TABLE pixels(k INTEGER PRIMARY KEY, pixels BLOB);
CREATE TABLE dropped(step TEXT, reason TEXT, count INT, examples TEXT);
"""
# file, entry: where a product stands in the feed, both numbers. unused: products dropped before any image was read.
# image.reason: NULL while undecided, '' when usable, else why it is rejected. Pixels have a table of their own, so that
# looking through the images does not read them.


@contextlib.contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """OSError that says what to do about a damaged SQLite file, which may show at any query."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            if isinstance(error, sqlite3.OperationalError):  # no room, no right to write, a disk that is gone
                raise OSError(
                    f"import_feed: the work file {file} cannot be written ({error}); mend that, and the same command "
                    "goes on where it was"
                ) from None
            raise
        raise OSError(
            f"import_feed: the work file {file} is damaged ({error}); remove it, and the same command starts anew"
        ) from None


def _open_work(file: Path, asked: str) -> sqlite3.Connection:
    """The SQLite file of this very import; one left by an import of something else is started anew."""
    file.parent.mkdir(exist_ok=True)
    for _ in range(2):
        db = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            # Exclusive: two imports into one file would undo each other. WAL: a kill loses at most one transaction.
            db.executescript(
                "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; "
                "PRAGMA synchronous=NORMAL; PRAGMA cache_size=-131072;"
            )
            db.execute("BEGIN EXCLUSIVE")
            if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _SCHEMA.strip().split("\n"):
                    db.execute(statement)
                db.execute("INSERT INTO meta VALUES('asked', ?)", [asked])
            same = db.execute("SELECT value FROM meta WHERE key='asked'").fetchone() == (asked,)
            db.execute("COMMIT")
            if same:
                # What was missing or could not be fetched may be there by now: rejected images are read again.
                db.execute("UPDATE image SET reason=NULL, sha256=NULL, hash=NULL, notes=NULL WHERE reason<>''")
                return db
        except sqlite3.DatabaseError as error:
            db.close()
            if "locked" in str(error):
                raise BlockingIOError(
                    f"import_feed: another import is writing {file}; let it end or choose another name"
                ) from None
            raise
        log.info("%s was left by another import (other feed or rules); starting anew", file)
        db.close()
        file.unlink()
    raise OSError(f"import_feed: {file} cannot be started anew; remove it")


def _int64(text: str) -> int:
    """64 bits of a text's BLAKE2b as a signed integer, never 0: an order and an identity that no machine changes."""
    return (
        int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big", signed=True)
        or 1
    )


def _scan(db: sqlite3.Connection, number: int, name: str, path: Path, rules: FeedRules, hosts: frozenset[str]) -> None:
    """Rows of one feed file into the work file, as one transaction: after a kill a file is either in or not."""
    done = f"scanned {number}"
    if db.execute("SELECT 1 FROM meta WHERE key=?", [done]).fetchone():
        return
    damage: list[str] = []
    if path.suffix.lower() == ".xml":
        columns = XML_COLUMNS | (rules.columns or {})
        products = read_xml(path, rules.item, columns, damage)
    else:
        named = rules.columns or {}
        # A column that is named for one part is not another part's by default ("name" may hold the title).
        # What a product cannot do without keeps its own column.
        columns = {
            part: name
            for part, name in CSV_COLUMNS.items()
            if name not in named.values() or part in ("id", "label", "image")
        } | named
        products = read_csv(path, rules.encoding, rules.delimiter, columns, named)
    by_file, by_id = columns["label"] == "@file", "{id}" in columns["image"]
    of_file = {"label": str(PurePosixPath(name).with_suffix("")), "name": path.stem}
    read, dropped, examples, damaged_titles = 0, Counter(), {}, 0
    db.execute("BEGIN")
    try:
        for product in products:
            read += 1
            try:
                if product is None:
                    raise Rejected("malformed product")
                if by_file:
                    product |= of_file
                if by_id:
                    product["image"] = columns["image"].replace("{id}", product.get("id", "").strip())
                id_, label, label_name, image = _check_product(product, rules, hosts)
                title = product.get("title", "")
                damaged_titles += _BROKEN_TEXT.search(title) is not None
                stem = title_stem(title) if rules.title_group else ""
                db.execute("INSERT OR IGNORE INTO label(key, name) VALUES(?, ?)", (label, label_name))
                db.execute("INSERT OR IGNORE INTO image(path) VALUES(?)", (image,))
                new = db.execute(
                    "INSERT OR IGNORE INTO product(id, label, image, draw, stem, title, file, entry) VALUES"
                    "(?, (SELECT k FROM label WHERE key=?), (SELECT k FROM image WHERE path=?), ?, ?, ?, ?, ?)",
                    (
                        id_, label, image, _int64(f"{rules.seed}:{id_}"), _int64(stem) if stem else 0, _one_line(title),
                        number, read,
                    ),
                )  # fmt: skip
                if not new.rowcount:
                    raise Rejected("duplicate id")
            except Rejected as error:
                reason = str(error)
                dropped[reason] += 1
                told = (_valid((product or {}).get(part, "").strip()) for part in ("id", "image"))
                db.execute("INSERT INTO unused VALUES(?, ?, ?, ?, 'product', ?)", (number, read, *told, reason))
                if dropped[reason] <= EXAMPLES:
                    shown = (product or {}).get("id", "") or f"product {read}"
                    examples.setdefault(reason, []).append(f"{name}: {printable(shown)}")
    except FileRefused as error:
        db.execute("INSERT INTO dropped VALUES('file', ?, 1, ?)", [str(error), name])
        log.warning("%s: %s", name, error)
    if damage:
        db.execute("INSERT INTO dropped VALUES('xml', ?, ?, ?)", [damage[0], len(damage), name])
        log.warning("%s: %d XML errors, first %s", name, len(damage), damage[0])
    if damaged_titles:
        log.warning(
            "%s: %d titles are not in the encoding read, and hold question marks: %s",
            name, damaged_titles, _MENDS["wrong encoding"],
        )  # fmt: skip
    rows = [("product", reason, count, json.dumps(examples[reason])) for reason, count in dropped.items()]
    db.executemany("INSERT INTO dropped VALUES(?, ?, ?, ?)", rows)
    db.execute("INSERT INTO meta VALUES(?, ?)", [done, str(read)])
    db.execute("COMMIT")
    log.info("%s: %d products read, %d dropped", name, read, dropped.total())


def _valid(text: str) -> str:
    """Text that a file can hold: half a character, as a damaged feed may have it, becomes a question mark."""
    return text[:MAX_FIELD].encode("utf-8", "replace").decode().replace("\0", " ")


def _one_line(title: str) -> str:
    return " ".join(_valid(title).split())[:MAX_TITLE]


def _reject_placeholders(db: sqlite3.Connection, rules: FeedRules) -> None:
    """Images that more subcategories share than the rules allow are none to learn from.

    They are found once, in the labels as the feed has them, before decisions change some.
    """
    most = rules.placeholder_labels
    if most is None:
        return
    db.execute("BEGIN")
    if not db.execute("SELECT 1 FROM meta WHERE key='placeholders'").fetchone():
        shared = "SELECT image FROM product GROUP BY image HAVING COUNT(DISTINCT label) > ?"
        db.execute(f"UPDATE image SET placeholder = 1 WHERE k IN ({shared})", [most])
        db.execute("INSERT INTO meta VALUES('placeholders', 'true')")
    reason = f"placeholder, shared by more than {most} subcategories"
    db.execute("UPDATE image SET reason = ? WHERE placeholder", [reason])
    db.execute("COMMIT")


def _apply_decisions(db: sqlite3.Connection, decisions: list[Path], rules: FeedRules) -> None:
    """Labels as a person decided them, a later file's decisions after an earlier one's; each decision that fits nothing
    is counted, none stops the import."""
    if not decisions or db.execute("SELECT 1 FROM meta WHERE key='decisions'").fetchone():
        return
    tables = [(path.name, read_decisions(path)) for path in decisions]
    meant: dict[str, set[int]] = {}  # subcategories that a text may mean
    known = db.execute("SELECT k, key, name FROM label").fetchall()
    for k, key, name in known:
        meant.setdefault(name, set()).add(k)
        meant.setdefault(_told_apart(name, key), set()).add(k)  # as the dataset, and so the page, names some
    names = set(meant)
    for k, key, _ in known:
        if key not in names:
            meant.setdefault(key, set()).add(k)
    labels: dict[str, list[int]] = {}  # those that each decided product had in this call, now the last one
    gone = set()  # dropped by an earlier decision, so not unknown
    asked = {id_ for _, table in tables for id_ in table["id"]}
    zeros = without_zeros(id_ for (id_,) in db.execute("SELECT id FROM product WHERE id GLOB '0*'"))
    zeros = {
        text: zeros[text] for text in asked & zeros.keys()
        if not db.execute("SELECT 1 FROM product WHERE id=?", [text]).fetchone()
    }  # fmt: skip
    counts, examples = Counter(), {}
    db.execute("BEGIN")
    for file, row in ((file, row) for file, table in tables for row in table.itertuples()):
        id_ = zeros.get(row.id, row.id)
        found = db.execute("SELECT label FROM product WHERE id=?", [id_]).fetchone()
        had = labels.setdefault(id_, [*found]) if found else []
        # The label that was decided on, if it is the product's, or was before an earlier decision.
        given = next((k for k in reversed(had) if k in meant.get(row.label, ())), None)
        new = misfit = None
        if id_ in gone:
            outcome, misfit = "for a product that an earlier one dropped", row.decision
        elif not found:
            outcome, misfit = "for an unknown id", row.decision
        elif row.decision == "unsure":
            outcome = f"unsure, {'dropped' if rules.unsure == 'drop' else 'kept'}"
            if rules.unsure == "drop":
                db.execute(
                    "INSERT INTO unused SELECT file, entry, id, path, 'decision', 'marked unsure' "
                    "FROM product JOIN image ON k = image WHERE id=?",
                    [id_],
                )
                db.execute("DELETE FROM product WHERE id=?", [id_])
                gone.add(id_)
        elif row.decision not in ("confirm", "keep"):
            outcome, misfit = "not understood (neither confirm, keep nor unsure)", row.decision
        elif given is None:
            outcome, misfit = "for a product filed elsewhere since", row.label
        elif row.decision == "keep":
            outcome, new = "kept as labelled", given
        elif len(meant.get(row.suggested_label, ())) != 1:  # two subcategories of one name: the name says nothing
            outcome, misfit = "with an unknown suggested label", row.suggested_label
        else:
            outcome, (new,) = "confirmed, relabelled", meant[row.suggested_label]
        counts[outcome] += 1
        if new is not None:
            db.execute("UPDATE product SET label=? WHERE id=?", [new, id_])
            had.append(new)
        if misfit is not None and counts[outcome] <= EXAMPLES:
            shown = ", ".join(map(printable, (id_, misfit)))
            examples.setdefault(outcome, []).append(f"{printable(file)}, line {row.Index}: {shown}")
    if zeros:
        counts["by an id whose leading zeros a spreadsheet has dropped"] = len(zeros)
    if asked and not any(outcome.startswith(("kept", "confirmed", "unsure")) for outcome in counts):
        log.warning("none of the decisions on %d products fits a product of this feed", len(asked))
    if dropped := counts["unsure, dropped"]:
        db.execute("INSERT INTO dropped VALUES('decision', 'marked unsure', ?, '[]')", [dropped])
    db.execute("INSERT INTO meta VALUES('decisions', ?)", [json.dumps({"counts": counts, "examples": examples})])
    db.execute("COMMIT")


def _told_apart(name: str, key: str) -> str:
    """The class name of a subcategory whose name another one has too."""
    return f"{name} ({key})"


# Products whose image is not rejected, in the order of the draw within their label.
_RANKED = """
SELECT p.n, p.id, p.label, p.image, p.stem, p.draw, i.reason,
       ROW_NUMBER() OVER (PARTITION BY p.label ORDER BY p.draw, p.id) AS place
FROM product p JOIN image i ON i.k = p.image WHERE i.reason IS NULL OR i.reason = ''
"""


def _decode_needed(db: sqlite3.Connection, root: Path, fetcher: "_Fetcher", rules: FeedRules, workers: int) -> None:
    """Decode images in the order of the draw until each label has what it needs; a shared image is decoded once.

    Which products are kept depends on the draw alone: more than the needed images may be decoded, never other ones.
    """
    _real_folder.cache_clear()
    _names.cache_clear()  # folders may have changed since an import before
    needed = -1 if rules.per_class is None else max(rules.per_class, rules.min_images)
    with contextlib.ExitStack() as stack:
        each = None
        for doubling in itertools.count():
            # Every label whose first `needed` places hold an undecided image looks at twice as many as in the round
            # before, so that a label full of broken images takes few rounds.
            jobs = db.execute(
                f"WITH ranked AS ({_RANKED}), short AS "
                "(SELECT DISTINCT label FROM ranked WHERE reason IS NULL AND (:n < 0 OR place <= :n)) "
                "SELECT DISTINCT r.image, image.path FROM ranked r JOIN short USING (label) "
                "JOIN image ON image.k = r.image WHERE r.reason IS NULL AND (:n < 0 OR place <= :n * :more) "
                "ORDER BY r.image",
                {"n": needed, "more": 2 ** min(doubling, 30)},
            ).fetchall()
            if not jobs:
                return
            if each is None:
                # Not threads: half of the work holds the interpreter's lock. Few images are not worth a process.
                several = workers > 1 and len(jobs) > 20 * CHUNK
                spawn = multiprocessing.get_context("spawn")
                each = stack.enter_context(ProcessPoolExecutor(workers, spawn)).map if several else map
            step = CHUNK * max(workers, 1)
            for start in range(0, len(jobs), step):
                batch = fetcher.fetch_all(root, jobs[start : start + step])
                parts = [(rules, batch[i : i + CHUNK // 4]) for i in range(0, len(batch), CHUNK // 4)]
                done = list(itertools.chain.from_iterable(each(_decode, parts)))
                db.execute("BEGIN")
                db.executemany(
                    "UPDATE image SET reason=?, sha256=?, hash=?, notes=? WHERE k=?", [row[:5] for row in done]
                )
                fetcher.forget(path for (_, path), row in zip(jobs[start : start + step], done, strict=True) if row[0])
                pixels = [row[4:] for row in done if row[5] is not None]
                db.executemany("INSERT INTO pixels VALUES(?, ?)", pixels)
                db.execute("COMMIT")
                log.info("%d of %d images decoded", min(start + step, len(jobs)), len(jobs))


def _decode(part: tuple[FeedRules, list[tuple[int, Path | str, str]]]) -> list[tuple]:
    """Rows (reason, sha256, hash, notes, key, pixels) of images given as ``_Fetcher.fetch_all`` returns them."""
    rules, images = part
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for k, folder, path in images:
            sha = None
            try:
                if not folder:
                    raise Rejected(path)
                data, notes = _read_file(folder, path, rules.max_bytes)
                sha = hashlib.sha256(data).digest()
                pixels, bits, converted = read_thumbnail(data, rules)
                rows.append(("", sha, bits.tobytes(), json.dumps([*notes, *converted]), k, pixels.tobytes()))
            except Rejected as error:
                rows.append((str(error), sha, None, "[]", k, None))
    return rows


# ------------------------------------------------------------------------------------------------ writing


def _downloads(out: Path) -> Path:
    """Where fetched images are kept, for further imports into the same folder as well."""
    return out.parent / "elrkit-downloads"


def _manifest_path(out: Path) -> Path:
    return out.with_suffix(".manifest.json")


def dropped_list(out: str | Path) -> Path:
    """Where the import of ``out`` lists the products that it dropped; no file where there is none."""
    return Path(out).with_suffix(".dropped.csv")


def _write(db: sqlite3.Connection, out: Path, asked: dict, rules: FeedRules) -> dict:
    """Choose, group and split the decoded products; write the .npz and the manifest, each in one step."""
    _choose(db, rules)
    counts = _counts(db, rules)
    decided = _meta(db, "decisions") or {"counts": {}, "examples": {}}
    counts["examples"] |= decided["examples"]
    lost = _write_dropped(db, out, [feed["file"] for feed in asked["source"]["feeds"]], rules)
    try:
        manifest = _write_dataset(db, out, asked, rules, counts, decided)
    except ValueError as error:
        if lost is None:
            raise
        lost.replace(failed := out.with_suffix(".failed.csv"))
        raise ValueError(f"{error}; every dropped product is listed in {failed}") from None
    if lost is None:
        dropped_list(out).unlink(missing_ok=True)  # of an earlier import
    else:
        lost.replace(dropped_list(out))
    return manifest


def _write_dataset(
    db: sqlite3.Connection, out: Path, asked: dict, rules: FeedRules, counts: dict, decided: dict
) -> dict:
    if not counts["kept"]:
        refused = [f"file refused: {name}: {reason}" for name, reason in counts["files_refused"].items()]
        raise ValueError(
            f"import_feed: none of {counts['read']} products is left; {'; '.join(_dropped_in_words(counts) + refused)}"
        )
    columns = [("label", np.int64), ("image", np.int64), ("stem", np.int64)]
    chosen = np.fromiter(db.execute("SELECT label, image, stem FROM chosen ORDER BY place"), columns)
    names, labels = _class_names(db, chosen["label"])
    groups = _groups(db, chosen["image"], chosen["stem"], rules)
    alone = np.arange(len(labels))
    test = split_by_group(labels, groups if rules.split == "group" else alone, rules.test_share, rules.seed)

    per_class = np.stack([np.bincount(labels[part], minlength=len(names)) for part in (~test, test)], axis=1)
    _check_loadable(per_class, counts, rules)
    partial = out.with_suffix(".partial")
    _write_npz(db, partial, labels, test, names, rules.size)
    manifest = {
        **asked,
        "counts": counts,
        "decisions": decided["counts"],
        "classes": {name: {"train": n[0], "test": n[1]} for name, n in zip(names, per_class.tolist(), strict=True)},
        "split": {
            "train": int((~test).sum()),
            "test": int(test.sum()),
            "groups": int(groups.max()) + 1,
            "products_in_shared_groups": int((np.bincount(groups)[groups] > 1).sum()),
            "largest_group": int(np.bincount(groups).max()),
            "test_with_near_duplicate_in_train": int(np.isin(groups[test], groups[~test]).sum()),
        },
        "npz_sha256": _sha256(partial),
    }
    listing = out.with_suffix(".manifest.partial")
    with listing.open("w", encoding="utf-8") as file:
        # The list of images may be long: it is written one by one behind the rest, one line each.
        file.write(json.dumps(manifest, indent=1)[:-2] + ',\n "images": {')
        rows = db.execute("SELECT path, hex(sha256) FROM image JOIN listed USING (k) ORDER BY number")
        for number, (path, sha) in enumerate(rows):
            file.write(f"{',' if number else ''}\n  {json.dumps(path)}: {json.dumps(sha.lower())}")
        file.write("\n }\n}\n")
    partial.replace(out)
    listing.replace(_manifest_path(out))
    return manifest


def _write_dropped(db: sqlite3.Connection, out: Path, files: Sequence[str], rules: FeedRules) -> Path | None:
    """The list of dropped products, in the order of the feed, as a file to be renamed; None where none was dropped."""
    rows = db.execute(
        "SELECT file, entry, id, image, step, reason FROM unused UNION ALL "
        "SELECT file, entry, id, path, CASE why WHEN 'small' THEN 'subcategory' ELSE 'image' END, why FROM left_over "
        "WHERE why <> 'not drawn' ORDER BY file, entry"
    )
    first = rows.fetchone()
    if first is None:
        return None
    partial = out.with_suffix(".dropped.partial")
    with partial.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(DROPPED_COLUMNS)
        for number, entry, id_, image, step, why in itertools.chain([first], rows):
            reason = _too_few(rules) if why == "small" else why
            writer.writerow((files[number], entry, as_text(id_), as_text(image), step, reason))
    return partial


def _too_few(rules: FeedRules) -> str:
    return f"fewer than {rules.min_images} usable images"


def _check_loadable(per_class: np.ndarray, counts: Mapping, rules: FeedRules) -> None:
    """Raises ValueError when nothing could load the dataset; per_class: (C, 2) training and test products."""
    train, test = per_class.sum(axis=0).tolist()
    kept = f"{train + test} products are left"
    if len(per_class) < 2:
        raise ValueError(
            f"import_feed: {kept}, all in one subcategory, and training needs two; lower rules.min_images "
            f"({rules.min_images}) or check which column is the label (rules.columns); dropped: {counts['dropped']}"
        )
    if not train or not test:
        enough = int(0.5 / rules.test_share) + 1  # see `split_by_group`
        raise ValueError(
            f"import_feed: {kept}, {test} of them to test and {train} to train, where at least one of each is needed; "
            f"{'lower' if test else 'raise'} rules.test_share ({rules.test_share}: a subcategory of {enough} gives one "
            f"to test, if its variants allow), or import more products (the largest has {per_class.sum(axis=1).max()}; "
            f"rules.min_images is {rules.min_images}); dropped: {counts['dropped']}"
        )


def _choose(db: sqlite3.Connection, rules: FeedRules) -> None:
    """The table ``chosen``: products in the order of the draw, of labels with enough of them."""
    db.execute("CREATE TEMP TABLE enough(label INTEGER PRIMARY KEY)")
    db.execute(
        "INSERT INTO enough SELECT p.label FROM product p JOIN image i ON i.k = p.image WHERE i.reason = '' "
        "GROUP BY p.label HAVING COUNT(*) >= ?",
        [rules.min_images],
    )
    db.execute("CREATE TEMP TABLE chosen(place INTEGER PRIMARY KEY, id TEXT, label INT, image INT, stem INT, draw INT)")
    db.execute(
        f"INSERT INTO chosen(id, label, image, stem, draw) SELECT id, label, image, stem, draw FROM ({_RANKED}) "
        "WHERE reason = '' AND label IN (SELECT label FROM enough) AND (:n < 0 OR place <= :n) ORDER BY draw, id",
        {"n": rules.per_class or -1},
    )
    db.execute("CREATE TEMP TABLE listed(k INTEGER PRIMARY KEY, number INT)")  # their images, as the manifest has them
    db.execute(
        "INSERT INTO listed SELECT k, ROW_NUMBER() OVER (ORDER BY path COLLATE BINARY) - 1 FROM image "
        "WHERE k IN (SELECT image FROM chosen)"
    )


def _counts(db: sqlite3.Connection, rules: FeedRules) -> dict:
    """Products read, dropped by step and reason, and kept: read = dropped + kept."""
    (read,) = db.execute("SELECT TOTAL(value) FROM meta WHERE key LIKE 'scanned %'").fetchone()
    dropped: dict[str, dict[str, int]] = {}
    examples: dict[str, list[str]] = {}
    refused, damaged = {}, {}
    for step, reason, count, named in db.execute("SELECT * FROM dropped ORDER BY rowid"):
        if step == "file":
            refused[named] = reason
        elif step == "xml":
            damaged[named] = {"errors": count, "first": reason}
        else:
            reasons = dropped.setdefault(step, {})
            reasons[reason] = reasons.get(reason, 0) + count
            shown = examples.setdefault(reason, [])
            shown += json.loads(named)[: EXAMPLES - len(shown)]
    # A label that has all it draws looks no further: its products behind the last drawn one are not drawn, whatever
    # is known about their images. So the counts do not depend on how far the decoding went ahead.
    db.execute("CREATE TEMP TABLE ending(label INTEGER PRIMARY KEY, draw INT)")
    if rules.per_class:
        db.execute(
            "INSERT INTO ending SELECT label, MAX(draw) FROM chosen GROUP BY label HAVING COUNT(*) = ?",
            [rules.per_class],
        )
    db.execute(
        "CREATE TEMP VIEW left_over AS SELECT p.file, p.entry, p.id, i.path, p.draw, CASE WHEN p.draw > e.draw THEN "
        "'not drawn' WHEN i.reason <> '' THEN i.reason ELSE 'small' END AS why "
        "FROM product p JOIN image i ON i.k = p.image LEFT JOIN ending e ON e.label = p.label "
        "WHERE p.draw > e.draw OR i.reason <> '' OR p.label NOT IN (SELECT label FROM enough)"
    )
    for why, count in db.execute("SELECT why, COUNT(*) FROM left_over GROUP BY why ORDER BY why").fetchall():
        step = {"not drawn": "draw", "small": "subcategory"}.get(why, "image")
        reason = _too_few(rules) if why == "small" else why
        dropped.setdefault(step, {})[reason] = count
        if step == "image":
            some = db.execute(f"SELECT id, path FROM left_over WHERE why = ? ORDER BY draw LIMIT {EXAMPLES}", [why])
            examples[reason] = [f"{printable(id_)}: {printable(image)}" for id_, image in some]
    usable = (
        "SELECT l.name, COUNT(CASE WHEN i.reason = '' THEN 1 END) FROM label l JOIN product p ON p.label = l.k "
        "JOIN image i ON i.k = p.image WHERE l.k NOT IN (SELECT label FROM enough) GROUP BY l.k ORDER BY 2 DESC, 1"
    )
    small = [list(row) for row in db.execute(usable)]
    if small:
        examples[_too_few(rules)] = ["{} ({} usable)".format(*small[0])]
    cases: dict[str, list[str]] = {}
    for (name,) in db.execute("SELECT DISTINCT name FROM label WHERE k IN (SELECT label FROM chosen) ORDER BY name"):
        cases.setdefault(name.casefold(), []).append(name)
    shared = db.execute(
        "SELECT MIN(i.path), COUNT(*), COUNT(DISTINCT c.label) AS labels FROM chosen c JOIN image i ON i.k = c.image "
        "GROUP BY c.image HAVING labels > ? ORDER BY labels DESC, 1 LIMIT ?",
        [SHARED_BY, EXAMPLES],
    )
    notes = Counter()
    used = "SELECT notes, COUNT(*) FROM image WHERE k IN (SELECT image FROM chosen) AND notes <> '[]' GROUP BY notes"
    for listed, count in db.execute(used):
        notes.update(dict.fromkeys(json.loads(listed), count))
    return {
        "read": int(read),
        "dropped": dropped,
        "kept": db.execute("SELECT COUNT(*) FROM chosen").fetchone()[0],
        "examples": examples,
        "notes": dict(sorted(notes.items())),
        "small_subcategories": {"count": len(small), "named": small[:MOST_NAMED]} if small else {},
        "shared_pictures": [
            {"image": printable(image), "products": products, "subcategories": labels}
            for image, products, labels in shared
        ],
        "differ_in_case": [names for names in cases.values() if len(names) > 1][:MOST_NAMED],
        "files_refused": refused,
        "xml_damage": damaged,
    }


def _class_names(db: sqlite3.Connection, label: np.ndarray) -> tuple[list[str], np.ndarray]:
    """(names sorted, index into them of each product); two subcategories of one name get their key beside it."""
    keys, index = np.unique(label, return_inverse=True)
    known = {k: (key, name) for k, key, name in db.execute("SELECT k, key, name FROM label")}
    pairs = [known[k] for k in keys.tolist()]
    uses = Counter(name for _, name in pairs)
    names = [name if uses[name] == 1 else _told_apart(name, key) for key, name in pairs]
    order = np.argsort(names, kind="stable")
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return [names[k] for k in order], rank[index]


def _groups(db: sqlite3.Connection, image: np.ndarray, stem: np.ndarray, rules: FeedRules) -> np.ndarray:
    keys, image = np.unique(image, return_inverse=True)
    column = "sha256" if rules.near_distance is None else "hash"  # equal bytes have equal hashes, too
    rows = db.execute(f"SELECT {column} FROM image WHERE k IN (SELECT image FROM chosen) ORDER BY k")
    what = np.frombuffer(b"".join(row[0] for row in rows), np.uint8).reshape(len(keys), -1)
    what, same = np.unique(what, axis=0, return_inverse=True)
    return group_products(same[image], stem, near_groups(what, rules.near_distance or 0), rules.title_group)


def _write_npz(
    db: sqlite3.Connection, path: Path, labels: np.ndarray, test: np.ndarray, names: list[str], size: int
) -> None:
    """The arrays as ``numpy.savez`` lays them out, streamed: the images never lie in memory all at once."""
    db.execute("CREATE TEMP TABLE part(test INT, place INT, PRIMARY KEY(test, place)) WITHOUT ROWID")
    db.executemany("INSERT INTO part VALUES(?, ?)", zip(test.tolist(), range(1, len(test) + 1), strict=True))
    texts = {}  # ids, and titles where the feed has any: where they are, and how many characters they take
    for name, column, join in (("ids", "chosen.id", ""), ("titles", "product.title", "JOIN product USING (id)")):
        (longest,) = db.execute(f"SELECT MAX(LENGTH({column})) FROM chosen {join}").fetchone()
        if longest:
            texts[name] = column, join, np.dtype(f"<U{longest}")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def member(name: str, dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[bytes]) -> None:
            # A ZipInfo without a date: the same import gives the same bytes.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for block in blocks:
                    file.write(block)

        for name, flag in (("train", False), ("test", True)):
            n = int((test == flag).sum())
            rows = "SELECT {} FROM part JOIN chosen USING (place) {} WHERE test = ? ORDER BY place"
            pixels = db.execute(rows.format("pixels", "JOIN pixels ON pixels.k = chosen.image"), [flag])
            member(f"{name}_images", np.dtype(np.uint8), (n, size, size, 3), (row[0] for row in pixels))
            member(f"{name}_labels", np.dtype("<i8"), (n,), [labels[test == flag].astype("<i8").tobytes()])
            numbers = db.execute(rows.format("number", "JOIN listed ON listed.k = chosen.image"), [flag])
            member(f"{name}_image", np.dtype("<i8"), (n,), (struct.pack("<q", *row) for row in numbers))
            for what, (column, join, text) in texts.items():
                found = db.execute(rows.format(column, join), [flag])
                blocks = iter(lambda found=found: [row[0] for row in found.fetchmany(10_000)], [])
                member(f"{name}_{what}", text, (n,), (np.array(block, text).tobytes() for block in blocks))
        classes = np.array(names)
        member("class_names", classes.dtype, classes.shape, [classes.tobytes()])


def _meta(db: sqlite3.Connection, key: str):
    row = db.execute("SELECT value FROM meta WHERE key=?", [key]).fetchone()
    return row and json.loads(row[0])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
