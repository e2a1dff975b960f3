"""A shop's feed files, XML or CSV, to products as {part: text}; what is damaged costs the products it touches alone.

    for product in read_xml(path, "product", XML_COLUMNS, damage := []): ...

The files are a stranger's: they are read as a stream, without entities, document types or network, and a product that
cannot be made out comes as None. Whether a product can be used is `elrkit.catalogue.importer`'s to say.
"""

import codecs
import contextlib
import csv
import html.entities
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from lxml import etree

# What a product is made of, and the name each part has in the shop's XML. The shop gives no product number: the
# page of a product (its link) is what tells two products apart.
XML_COLUMNS = {
    "id": "link",
    "label": "catid",
    "name": "category",
    "image": "thumbnail",
    "title": "title",
    "link": "link",
    "released": "release_date",
}
CSV_COLUMNS = {part: part for part in XML_COLUMNS}
MAX_FIELD = 2_000  # characters of a title, path or link


# A feed needs no document type, and without one there are no entities to expand or fetch.
_DOCTYPE_REFUSED = "document type (entities) refused"


class FileRefused(ValueError):
    """A feed file that cannot be read any further; the rest of the feed can."""


class _Products:
    """Target of the XML parser: collects products and never builds a tree, so memory does not grow with the file."""

    def __init__(self, item: str, wanted: frozenset[str], prefixed: frozenset[str]):
        self.item, self.wanted = item, wanted
        self.prefixed = prefixed  # of those wanted: where an element of a namespace has it, one without does not count
        self.of_namespace: set[str] = set()  # fields of the open product
        self.given: set[str] = set()  # fields of the open product without a namespace
        self.found: list[dict[str, str] | None] = []  # None: a product that was cut off
        self.opened = 0  # items
        self.others: Counter[str] = Counter()  # elements before the first item, those that hold elements
        self.open: list[str] = []  # of them, as they lie in each other
        self.product: dict[str, str] | None = None
        self.field: str | None = None

    def doctype(self, *_):
        raise FileRefused(_DOCTYPE_REFUSED)

    def start(self, tag: str, attributes: Mapping[str, str]):
        in_namespace = tag[:1] == "{" or ":" in tag
        tag = tag.rpartition("}")[2].rpartition(":")[2]
        if not self.opened:
            if self.open and self.open[-1] and len(self.others) < 100:
                self.others[self.open[-1]] += 1
                self.open[-1] = ""  # counted once
            self.open.append(tag)
        if tag == self.item:
            self.opened += 1
            self.close()
            self.product = {key: value for key, value in attributes.items() if key in self.wanted}
            self.field = None
            self.of_namespace.clear()
            self.given.clear()
        elif self.product is not None and tag in self.wanted:
            again = tag in (self.of_namespace if in_namespace else self.given) and self.product[tag].strip()
            if again or (not in_namespace and tag in self.prefixed and tag in self.of_namespace):
                self.field = None  # of several, such as a product's further categories, the first one counts
                return
            (self.of_namespace if in_namespace else self.given).add(tag)
            self.field = tag
            self.product[tag] = ""

    def data(self, text: str):
        if self.field is not None and len(self.product[self.field]) <= MAX_FIELD:
            self.product[self.field] += text[: MAX_FIELD + 1]

    def end(self, tag: str):
        tag = tag.rpartition("}")[2]
        if not self.opened and self.open:
            self.open.pop()
        if tag == self.item and self.product is not None:
            self.found.append(self.product)
            self.product = self.field = None
        elif tag == self.field:
            self.field = None

    def close(self):
        """The product that is open, if any, was cut off."""
        if self.product is not None:
            self.found.append(None)
            self.product = self.field = None


def read_xml(path: Path, item: str, columns: Mapping[str, str], damage: list[str]) -> Iterator[dict[str, str] | None]:
    """Products of one XML file as {part: text}; None for one that is cut off.

    Damage costs the products it touches, no other one; what the parser had to forgive is added to ``damage`` (the first
    100 errors). A bare & and HTML's named entities are read as they are meant. Item and columns may be written with the
    prefix of their namespace. Raises FileRefused where the file has no item, or a document type.
    """
    prefixed = frozenset(tag.rpartition(":")[2] for tag in columns.values() if ":" in tag)
    item, columns = item.rpartition(":")[2], {part: tag.rpartition(":")[2] for part, tag in columns.items()}
    target = _Products(item, frozenset(columns.values()), prefixed)
    lines = start = 0  # read so far; before what this parser was given
    root = "elrkit-goes-on"  # of what a new parser is given
    any_product = goes_on = False

    def new_parser() -> etree.XMLParser:
        return etree.XMLParser(
            target=target,
            encoding=encoding,
            recover=True,
            resolve_entities=False,
            load_dtd=False,
            no_network=True,
            huge_tree=False,
        )

    def found() -> Iterator[dict[str, str] | None]:
        for product in target.found:
            yield product and {part: product.get(tag, "") for part, tag in columns.items()}
        target.found.clear()

    def note_damage(silent: str | None = None) -> None:
        before = len(damage)
        for error in parser.feed_error_log:
            # A new parser misses the beginning of the file, and so its outer elements and the names of its namespaces.
            missed = goes_on and (root in error.message or error.domain_name == "NAMESPACE")
            if not missed and len(damage) < 100:
                damage.append(f"line {start + error.line}: {error.message.strip()}")
        if silent and len(damage) == before < 100:
            damage.append(f"line {lines + 1}: {silent}")

    mended = _Mended()
    with path.open("rb") as file:
        blocks, encoding = _markup_blocks(file)
        if encoding is None or _ASCII_BELOW.match(encoding):
            blocks = _entities_as_meant(blocks, mended)
        parser = new_parser()
        for opening, piece in _pieces(blocks, item.encode(encoding or "utf-8", "replace")):
            opened = target.opened
            if parser is not None and piece:
                # Behind an "&" the parser waits for a semicolon, if need be to the end of the file.
                parser.feed(b"<!--;-->" + piece if opening else piece)
            if opening and not piece:
                target.found.append(None)
            elif opening and target.opened == opened:
                # The parser does not see this item: it stopped for good, as at a name of 60,000 characters, a comment
                # of 11 MB or a second document, or it waits for the end of something that has none. A new one starts
                # here, so that what the old one left open is lost, but nothing behind it.
                if parser is not None:
                    note_damage(f"markup before this <{item}> has no end")
                    target.close()
                start, parser, goes_on = lines, new_parser(), True
                parser.feed(b"<%b>" % root.encode() + piece)
                if target.opened == opened:  # this item's own tag is the damage
                    note_damage(f"the tag of this <{item}> is not readable")
                    target.found.append(None)
                    parser = None
            lines += piece.count(b"\n")
            any_product |= bool(target.found)
            yield from found()
    if parser is not None:
        with contextlib.suppress(etree.XMLSyntaxError):  # it is in the log as well
            parser.close()
        note_damage()
    if mended.times and len(damage) < 100:
        times = f"{mended.times} times"
        damage.append(f"line {mended.first_line}: an & that begins no entity of XML, read as it is meant ({times})")
    if not any_product and not target.found:
        raise FileRefused("not XML" if damage else _no_item(item, target.others))
    yield from found()


def _no_item(item: str, others: Counter[str]) -> str:
    """Why a file without items is refused, and which of its elements may be the items: the one that is there most."""
    told = f"no <{item}> in it"
    (most, count), *_ = others.most_common(1) or [("", 0)]
    return f"{told}; it has {count} times <{printable(most)}>; mend with --rules.item" if count > 1 else told


_ASCII_BELOW = re.compile(r"utf-?8|us-ascii|ascii|iso-?8859|latin|windows-125|cp125", re.IGNORECASE)
_ENTITY = re.compile(rb"<!--|<!\[CDATA\[|<\?|&(?:(#\d{1,8}|#x[0-9a-fA-F]{1,8}|[A-Za-z][A-Za-z0-9]{0,31});)?")
_XML_ENTITIES = frozenset((b"amp", b"lt", b"gt", b"quot", b"apos"))


@dataclass
class _Mended:
    """How often an & was read as it is meant, and the line of the first."""

    times: int = 0
    first_line: int = 0


def _entities_as_meant(blocks: Iterable[bytes], mended: _Mended) -> Iterator[bytes]:
    """An XML file's bytes in which a bare & is text and named entities are the characters that they name, as a
    shop's program that pastes texts together means them. The blocks are in an encoding whose lower half is ASCII."""
    buffer, end, line = b"", None, 1  # `end`: of what hides entities, as in `_pieces`
    for block in itertools.chain(blocks, [None]):
        buffer += block or b""
        done, at = [], 0
        while True:
            if end is not None:
                found = buffer.find(end, at)
                if found < 0:
                    keep = len(buffer) - len(end) + 1
                    break
                done.append(buffer[at : found + len(end)])
                at, end = found + len(end), None
            match = _ENTITY.search(buffer, at)
            if match is None:
                keep = buffer.rfind(b"<", max(at, len(buffer) - 8))
                keep = keep if keep >= 0 else len(buffer)
                break
            if match[0] in _HIDING:
                done.append(buffer[at : match.end()])
                at, end = match.end(), _HIDING[match[0]]
                continue
            if match.start() > len(buffer) - 36 and block is not None:  # the next block may complete it
                keep = match.start()
                break
            name = match[1]
            meant = match[0]
            # By number: a parser that has forgiven an error leaves out the entities that XML names, to the file's end.
            if name in _XML_ENTITIES:
                meant = b"&#%d;" % ord(html.entities.html5[f"{name.decode()};"])
            elif name is None or not name.startswith(b"#"):
                known = html.entities.html5.get(f"{(name or b'').decode()};")
                meant = "".join(f"&#{ord(each)};" for each in known).encode() if known else b"&#38;" + match[0][1:]
                mended.times += 1
                if mended.times == 1:
                    mended.first_line = line + buffer.count(b"\n", 0, match.start())
            done += [buffer[at : match.start()], meant]
            at = match.end()
        keep = max(at, keep) if block is not None else len(buffer)
        done.append(buffer[at:keep])
        line += buffer.count(b"\n", 0, keep) if not mended.times else 0
        buffer = buffer[keep:]
        whole = b"".join(done)
        if whole:
            yield whole


def _markup_blocks(file: BinaryIO) -> tuple[Iterator[bytes], str | None]:
    """(blocks of an XML file, their encoding if it is known). UTF-16 becomes UTF-8, so that markup is ASCII."""
    first = file.read(_BLOCK)
    blocks = itertools.chain([first], iter(lambda: file.read(_BLOCK), b""))
    wide = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(first[:2])
    if wide and first[2:4] != b"\0\0":  # which would be UTF-32
        return (text.encode() for text in codecs.iterdecode(blocks, wide, "replace")), "utf-8"
    declared = re.match(rb"""(?:\xef\xbb\xbf)?<\?xml\s[^>]*?encoding\s*=\s*["']([\w.:-]+)""", first)
    with contextlib.suppress(LookupError):  # the parser would not take an unknown name, and finds out by itself
        if declared and not declared[1].lower().startswith((b"utf-16", b"ucs")):  # a wide one would have shown above
            codecs.lookup(declared[1].decode())
            etree.XMLParser(encoding=declared[1].decode())
            return blocks, declared[1].decode()
    return blocks, None


_BLOCK = 1 << 16  # bytes
_LONGEST_NAME = 400  # bytes of an item's name; one cut off at the end of a block begins there
_LONGEST_TAG = 1 << 16  # bytes of an item's start tag; a longer one is damage
_HIDING = {b"<!--": b"-->", b"<![CDATA[": b"]]>", b"<?": b"?>"}


def _pieces(blocks: Iterable[bytes], item: bytes) -> Iterator[tuple[bool, bytes]]:
    """An XML file's bytes cut before each opening of an item: (whether the piece begins with one, piece).

    A piece that begins with one holds the whole start tag. Openings in comments, CDATA and instructions are none; but
    if such a thing never ends, each of them comes as an opening without bytes, at the end.
    """
    name = rb"(?:[\w.-]++:)?" + re.escape(item) + rb"(?=[\s/>])"
    # Possessive, so that a hostile tag costs one look at each of its bytes.
    tag = re.compile(rb"<(?:!--|!\[CDATA\[|\?|!DOCTYPE|(" + name + rb"""(?:[^"'<>]++|"[^"<]*+"|'[^'<]*+')*+(>)?))""")
    inside = re.compile(b"<" + name)
    buffer, opening, any_opening = b"", False, False
    end, hidden = None, 0  # of what hides openings now, and how many it hides so far
    for block in itertools.chain(blocks, [None]):
        buffer += block or b""
        begin = at = 0  # of the piece; where to look next
        while True:
            if end is not None:
                found = buffer.find(end, at)
                if found >= 0:
                    at, end, hidden = found + len(end), None, 0
                    continue
            match = None if end is not None else tag.search(buffer, at)
            if match is None:  # the next block may complete what begins here
                keep = buffer.rfind(b"<", max(at, len(buffer) - _LONGEST_NAME))
                keep = keep if keep >= 0 else max(at, len(buffer) - 2)
            elif match[1] and not match[2] and block is not None and len(buffer) - match.start() < _LONGEST_TAG:
                keep = match.start()
            elif match[1]:
                yield opening, buffer[begin : match.start()]
                begin, at, opening, any_opening = match.start(), match.end(), True, True
                continue
            elif match[0] in _HIDING:
                at, end = match.end(), _HIDING[match[0]]
                continue
            else:
                if not any_opening:  # now: the parser would tell only after the entities, which may hold openings
                    raise FileRefused(_DOCTYPE_REFUSED)
                at = match.end()
                continue
            keep = keep if block is not None else len(buffer)
            if end is not None:
                hidden += len(inside.findall(buffer[at:keep]))
            yield opening, buffer[begin:keep]
            buffer, opening = buffer[keep:], False
            break
    yield from itertools.repeat((True, b""), hidden)


_DELIMITERS = {";": "';'", "\t": "$'\\t'", ",": "','", "|": "'|'"}  # as a shell takes them
_NO_TEXT = {  # how other files begin
    b"\x1f\x8b": "compressed (gzip); unpack it first",
    b"PK\x03\x04": "an archive or a spreadsheet's own format; unpack it, or save it as CSV",
    b"\xff\xfe": "UTF-16 text; mend with --rules.encoding utf-16",
    b"\xfe\xff": "UTF-16 text; mend with --rules.encoding utf-16",
}


_UNDECODED = re.compile("[\ud800-\udfff]")  # bytes that are not in the encoding
_SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)  # a first line for Excel, which Excel writes as well


def read_csv(
    path: Path, encoding: str, delimiter: str, columns: Mapping[str, str], named: Iterable[str] = ()
) -> Iterator[dict[str, str] | None]:
    """Products of one CSV file as {part: text}; None for a row that does not have the header's columns.

    The columns of id, label, image and the parts `named` must be there, but for those that are no column (@file, {id}).
    Raises FileRefused where one is not, or the file is no such text.
    """
    with path.open("rb") as file:
        first = file.read(4)
    begins = _NO_TEXT.get(first) or _NO_TEXT.get(first[:2])
    if begins and not (begins.startswith("UTF-16") and codecs.lookup(encoding).name.startswith("utf-16")):
        raise FileRefused(begins)
    # surrogateescape lets a wrongly encoded row through, so that it is that row which is rejected, not the file.
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        lines = _Lines(file)
        try:
            top = next(lines, "")
            if told := _SEPARATOR.fullmatch(top):
                delimiter = told[1]
            else:
                lines.back.append(top)
            try:
                header = [name.strip() for name in next(csv.reader(lines, delimiter=delimiter), [])]
            except csv.Error as error:
                raise FileRefused(f"no CSV in {encoding} ({error})") from None
            needed = {"id", "label", "image"} | {*named}
            missing = {columns.get(part, part) for part in needed} - {*header, "@file"}
            missing = sorted(name for name in missing if "{id}" not in name)
            if missing:
                has = printable(", ".join(header)) or "none"
                other = [f"--rules.delimiter {shown}" for sign, shown in _DELIMITERS.items() if sign in "".join(header)]
                example = " ".join(f"{part} COLUMN" for part, name in columns.items() if name in missing)
                if any(map(_UNDECODED.search, header)):
                    other = ["--rules.encoding cp1252 or latin-1"]
                mend = " or ".join([*other, f"--rules.columns {example}"])
                raise FileRefused(f"no column {', '.join(missing)}; it has {has}; mend with {mend}")
            where = {part: header.index(name) for part, name in columns.items() if name in header}
            reader = csv.reader(lines, delimiter=delimiter)
            while True:
                lines.taken.clear()
                try:
                    row = next(reader)
                    runaway = _runaway(lines.taken, header, delimiter)
                except StopIteration:
                    return
                except csv.Error:  # an endless quoted field, for instance
                    runaway = True
                if runaway:  # the row's first line alone is lost; those that its quote swallowed are read again
                    lines.back.extend(reversed(lines.taken[1:]))
                    reader = csv.reader(lines, delimiter=delimiter)
                    yield None
                elif row:
                    yield {part: row[i] for part, i in where.items()} if len(row) == len(header) else None
        except UnicodeError:
            raise FileRefused(f"cannot be read as {encoding}") from None


_LONGEST_RECORD = 500  # lines: one whose quotes never balance runs on, line after line
_LONGEST_LINE = 1 << 20  # characters; what is longer comes in pieces


class _Lines:
    """The lines of a file; `taken`: those since it was last cleared; `back`: those to come again, last one first."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.taken, self.back = file, [], []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.taken) >= _LONGEST_RECORD:
            raise csv.Error(f"a record of more than {_LONGEST_RECORD} lines")
        line = self.back.pop() if self.back else self.file.readline(_LONGEST_LINE)
        if not line:
            raise StopIteration
        self.taken.append(line)
        return line


def _runaway(lines: list[str], header: list[str], delimiter: str) -> bool:
    """Whether a record of several lines comes from a quote that was never closed, not from a field with line breaks.

    The line that closes a field holds an odd number of quotes. A quote that was forgotten runs to the end of the file
    or to a line whose own quotes are balanced; or to a second forgotten one, and then the lines between are rows.
    """
    if len(lines) < 2:
        return False
    if lines[-1].count('"') % 2 == 0:
        return True
    between = lines[1:-1]
    return bool(between) and all(
        line.count('"') % 2 == 0 and len(next(csv.reader([line], delimiter=delimiter), [])) == len(header)
        for line in between
    )


def printable(text: str, most: int = 80) -> str:
    """The beginning of a stranger's text, for messages: what is not ASCII as its escape."""
    return text.encode("ascii", "backslashreplace").decode()[:most]
