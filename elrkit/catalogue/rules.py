"""What a product of a feed must have to be used: the rules of an import, and pure checks of strangers' text.

    id_, label, name, image = check_product({"id": "7", "label": "Hats", "image": "7.jpg"}, FeedRules())

Imports no reader of feeds or images, so that a command line can show the rules at once.
"""

import functools
import html
import io
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from elrkit.config import ConfigError, one_line

PARTS = ("id", "label", "name", "image", "title", "link", "released")  # of a product
NEEDED = ("id", "label", "image")
MAX_FIELD = 2_000  # characters of a title, path or link
MAX_NAME = 200  # characters of an id or a label: they become fixed-width arrays


class Rejected(ValueError):
    """A product or an image that cannot be used; the message is the reason that is counted."""


def _known_parts(columns: dict[str, str]) -> dict[str, str]:
    if unknown := set(columns) - set(PARTS):
        raise ValueError(f"there is no {', '.join(sorted(unknown))}; the parts of a product are {', '.join(PARTS)}")
    return columns


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
    paper did, ``split="group"`` what it should have done. Raises ConfigError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ConfigError(one_line(error, type(self).model_fields)) from None

    columns: Annotated[dict[str, str], AfterValidator(_known_parts)] | None = None
    """Part of a product (id, label, name, image, title, link, released) -> column or XML tag; the parts not named keep
    the shop's tags in XML and their own names in CSV. A tag may have its prefix (``g:id``) or a path (``cat/name``).
    ``label="@file"``: the file's name is the label; files of one name in several folders are several labels.
    ``image="photos/{id}.jpg"``: images are named by the products' ids. Of several images in one cell the first
    counts."""
    item: str = "product"
    """XML element that holds one product."""
    encoding: Annotated[str, AfterValidator(_known_encoding)] = "utf-8-sig"
    """Encoding of CSV files (XML declares its own)."""
    delimiter: Annotated[str, AfterValidator(_one_character)] | None = None
    """Between the columns of CSV files; None: comma, semicolon, tab or |, whichever the first lines have."""
    first_year: int = 2011
    """Products released before this year are old; one without a date is not."""
    categories: Literal["whole", "first", "deepest"] = "whole"
    """Where a label lists several categories ("Sale, Clothing > Hats"): all of it is one label, or the first or the
    deepest one counts."""
    placeholder_labels: int | None = Field(None, ge=1)
    """A picture (equal bytes, under whatever names) that products of more subcategories than this share is a
    placeholder ("no image yet"), and they are dropped; None keeps them."""
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
    """Products drawn per subcategory, those that a person has decided on first; None keeps all."""
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
    """Longest silence of a host; a whole image may take three times as long, from the connection to its last byte."""
    max_failures: int = Field(20, ge=1)
    """Failed downloads in a row after which the import stops, to be resumed later."""


# ------------------------------------------------------------------------------------------------ a product

_NEXT_ADDRESS = re.compile(r"[\s,;|]+(?=https?://)", re.IGNORECASE)  # of several images in one cell
_FRONT_PAGE = re.compile(r"https?://[^/?#]*/?", re.IGNORECASE)
# 2010-05-31, 31/05/2010; of eight digits, 20100531 or 31052010, those that may be a year
_YEAR = re.compile(r"(?<!\d)(\d{4})(?!\d)|(?<!\d)(?:((?:19|20)\d\d)\d{4}|\d{4}((?:19|20)\d\d))(?!\d)")
BROKEN_TEXT = re.compile("[\ufffd\ud800-\udfff]")
_CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # a NUL would end an id, where SQLite measures it


def check_product(product: Mapping[str, str], rules: FeedRules) -> tuple[str, str, str, str]:
    """(id, label, name of the label, image) of a product that may be used; Rejected says why another may not."""
    part = {key: value.strip() for key, value in product.items()}
    if "://" in part.get("image", ""):
        part["image"] = _NEXT_ADDRESS.split(part["image"], maxsplit=1)[0]
    if any(len(value) > MAX_FIELD for value in part.values()):
        raise Rejected("field too long")
    if any(BROKEN_TEXT.search(part.get(key, "")) for key in ("id", "label", "name", "image")):
        raise Rejected("wrong encoding")
    if _FRONT_PAGE.fullmatch(part.get("link", "")):
        raise Rejected("invalid: link is the shop's front page")
    year = _YEAR.search(part.get("released", ""))
    if year and 0 < int(next(filter(None, year.groups()))) < rules.first_year:  # 0000-00-00: how MySQL says "no date"
        raise Rejected(f"old: released before {rules.first_year}")
    for key in ("image", "id"):
        if not part.get(key):
            raise Rejected(f"no {key}")
    label, name = (one_label(part.get(key, ""), rules.categories) for key in ("label", "name"))
    if not label:
        raise Rejected("no label")
    name = name or label
    if any(map(_CONTROL.search, (part["id"], label, name))):
        raise Rejected("control character in id or label")
    if max(len(part["id"]), len(label), len(name)) > MAX_NAME:
        raise Rejected("id or label too long")
    case = str.casefold if rules.merge_case else str
    if not _left_out(rules.drop_labels, case).isdisjoint((case(label), case(name))):
        raise Rejected("label left out")
    return part["id"], case(name) if rules.merge_case else label, name, image_address(part["image"])


@functools.lru_cache(maxsize=8)  # asked for each product
def _left_out(drop_labels: tuple[str, ...], case: Callable[[str], str]) -> frozenset[str]:
    return frozenset(case(one_spelling(each)) for each in drop_labels)


_UNSEEN = "\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad"  # of no width
_NO_WIDTH = re.compile(f"[{_UNSEEN}]")
_ESCAPED = re.compile(r"&(?:#\w{1,8}|[A-Za-z]\w{1,31});")
_STEP = re.compile(r"\s*>\s*")
_NEXT_CATEGORY = re.compile(r"(?<!\\)[,;|\n]")


def one_spelling(label: str) -> str:
    """A label without what nobody sees or means: entities as their characters, composed, plain single spaces and one
    around each > of a path, nothing of no width."""
    label = _NO_WIDTH.sub("", _ESCAPED.sub(lambda entity: html.unescape(entity[0]), label))
    return _STEP.sub(" > ", " ".join(unicodedata.normalize("NFC", label).split())).strip()


def categories_of(label: str) -> list[str]:
    """The categories that a label lists, each in one spelling; a shop writes a comma within one as ``\\,``."""
    parts = _NEXT_CATEGORY.split(_ESCAPED.sub(lambda entity: html.unescape(entity[0]), label))
    return [each for each in (one_spelling(part.replace("\\,", ",")) for part in parts) if each]


def one_label(text: str, which: str) -> str:
    """The label that counts of a text that may list several categories, see `FeedRules.categories`."""
    if which == "whole" or not (listed := categories_of(text)):
        return one_spelling(text)
    return listed[0] if which == "first" else max(listed, key=lambda path: path.count(" > "))


# ------------------------------------------------------------------------------------------------ an image's address


def image_address(image: str) -> str:
    """A relative path without a way out, or an http address as it is fetched: what browsers escape is escaped."""
    if "://" in image or image.lower().startswith(("data:", "file:", "javascript:", "mailto:")):
        if re.search(r"[\0-\x1f\x7f]", image):  # which the parser drops, and the library that fetches does not
            raise Rejected("image address not understood")
        try:
            address = urlsplit(image)
        except ValueError:
            raise Rejected("image address not understood") from None
        if address.scheme.lower() not in ("http", "https"):
            raise Rejected("image address neither http nor https")
        path, query = (quote(part, safe="!$%&'()*+,/:;=?@[]~") for part in (address.path, address.query))
        return urlunsplit((address.scheme, address.netloc, path, query, address.fragment))
    image = image.replace("\\", "/")  # as Windows parts folders
    if image[1:2] == ":":
        raise Rejected("image path is absolute, expected one below the images folder")
    path = PurePosixPath(image.lstrip("/"))  # shops write paths from the root of their media
    if ".." in path.parts or "\0" in image:
        raise Rejected("image path leaves the images folder")
    return str(path)


NOT_ALLOWED = "image on a host not allowed for download"


def may_be_fetched(image: str, hosts: Collection[str]) -> bool:
    """Whether this is an address on a host that the caller named: a user name or another port is another host."""
    return "://" in image and urlsplit(image).netloc.lower() in hosts


# ------------------------------------------------------------------------------------------------ text to be shown


def printable(text: str, most: int = 80) -> str:
    """The beginning of a stranger's text, for messages: what moves a terminal's cursor or shows nothing is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:most])


# Behind apostrophes as well, so that `as_it_was` undoes it; and behind what nobody sees.
_FORMULA = re.compile(f"^(?=['{_UNSEEN}]*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20])")


def as_text(cell: str) -> str:
    """A stranger's text for a CSV cell: a spreadsheet takes one that begins so for a formula and executes it, and an
    apostrophe before it makes it text."""
    return _FORMULA.sub("'", cell)


def as_it_was(cell: str) -> str:
    """The text of a cell of `as_text`."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell[1:]) else cell
