"""An XML feed to products. The file is a stranger's: no entity, document type or network is ever used, and each product
is cut out of the text and parsed by itself, so that what is damaged costs the products it touches alone."""

import codecs
import functools
import html.entities
import itertools
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TextIO

from lxml import etree

from elrkit.catalogue.feed_files import BLOCK, FileRefused, Products, open_text, start_of
from elrkit.catalogue.rules import MAX_FIELD, NEEDED, FeedRules, printable

# The name that each part of a product has in the XML of the paper's shop. It gives no product number: the page of a
# product (its link) is what tells two products apart.
XML_COLUMNS = {
    "id": "link",
    "label": "catid",
    "name": "category",
    "image": "thumbnail",
    "title": "title",
    "link": "link",
    "released": "release_date",
}

_LONGEST_PRODUCT = 1 << 22  # characters; what is longer has no end
_LONGEST_TAG = 1 << 16  # characters of an item's tag, or of a document type
_LONGEST_NAME = 400  # one cut off at the end of a block begins there
_HIDING = {"<!--": "-->", "<![CDATA[": "]]>", "<?": "?>"}
_DOCTYPE = re.compile(r"""<!DOCTYPE(?:[^"'\[<>]++|"[^"]*+"|'[^']*+')*+(>)?""")
_END = "elrkit-end"  # an element behind each product: a parser that stopped at a product has not seen it


def read_xml(path: Path, rules: FeedRules, damage: list[str]) -> Products:
    """Products of one XML file. Each is cut out and parsed by itself, so that damage stays in the product that has it.

    An element of the item's name inside an item is none of its own; fields are taken from any depth, the least deep and
    the first that is not empty. Of two elements of one name that with the prefix that was named counts, else that with
    any. A bare & and HTML's named entities are read as they are meant.
    """
    item = rules.item.rpartition(":")[2]
    columns = XML_COLUMNS | (rules.columns or {})
    fields: dict[str, list[_Field]] = {}
    for part, tag in columns.items():
        *above, last = tag.split("/")
        prefix, _, local = last.rpartition(":")
        fields.setdefault(local, []).append(_Field(part, prefix, tuple(above)))
    mended, parser = _Mended(), _parser()
    seen, tags, items = set(), Counter(), 0
    with open_text(path, _encoding(start_of(path)), "replace") as file:
        for line, text in _items(file, item):
            items += 1
            root, errors = None, [f"line {line}: this <{item}> has no end"]
            if text is not None:
                root, errors = _parsed(mended.as_meant(text, line), line, parser)
            damage += errors[: 100 - len(damage)]
            if root is None or not isinstance(root.tag, str) or _name(root)[1] != item:
                yield line, "malformed product"
                continue
            found = _fields(root, item, fields)
            seen |= found.keys()
            if items <= 100:
                tags.update(f"{prefix}:{name}".removeprefix(":") for prefix, name in map(_name, _children(root)))
            yield line, {part: found.get(part, "") for part in columns}
    if mended.times and len(damage) < 100:
        times = f"{mended.times} times"
        damage.append(f"line {mended.first}: an & that begins no entity of XML, read as it is meant ({times})")
    if not items:
        raise FileRefused(_no_item(path, item))
    absent = [part for part in NEEDED if part not in seen and columns[part] != "@file" and "{id}" not in columns[part]]
    if absent and tags:
        has = ", ".join(f"<{printable(tag)}>" for tag, _ in tags.most_common(20))
        wanted = ", ".join(f"<{columns[part]}>" for part in absent)
        mend = " ".join(f"{part} TAG" for part in absent)
        raise FileRefused(f"no {wanted} in its <{item}>s; they have {has}; mend with --rules.columns {mend}")


class _Field(NamedTuple):
    part: str
    prefix: str
    above: tuple[str, ...]  # names of the elements that it lies in


def _parser() -> etree.XMLParser:
    return etree.XMLParser(
        encoding="utf-8", recover=True, resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False,
        remove_comments=True, remove_pis=True,
    )  # fmt: skip


def _parsed(text: str, line: int, parser: etree.XMLParser) -> tuple[etree._Element | None, list[str]]:
    """(the element, or None where it cannot be made out, what was forgiven) of one product's text."""
    try:
        root = etree.fromstring(f"<feed>{text}<{_END}/></feed>".encode("utf-8", "replace"), parser)
    except etree.XMLSyntaxError:
        root = None
    # Outer elements, and with them the names of the namespaces, are not there.
    log = parser.error_log
    errors = [f"line {line + each.line - 1}: {each.message.strip()}" for each in log if each.domain_name != "NAMESPACE"]
    if root is None or not len(root) or (root[-1].tag != _END and next(root.iter(_END), None) is None):
        return None, errors
    return root[0], errors


def _name(element: etree._Element) -> tuple[str, str]:
    """(prefix, name) of an element, whether or not its prefix was declared."""
    tag = element.tag
    return (element.prefix or "", tag.rpartition("}")[2]) if tag[0] == "{" else _parted(tag)


@functools.lru_cache(maxsize=1_000)
def _parted(tag: str) -> tuple[str, str]:
    prefix, _, name = tag.rpartition(":")
    return prefix, name


def _children(element: etree._Element) -> Iterator[etree._Element]:
    return (child for child in element if isinstance(child.tag, str) and child.tag != _END)


def _fields(root: etree._Element, item: str, fields: Mapping[str, list[_Field]]) -> dict[str, str]:
    """The parts of a product that are there, some of them empty."""
    best: dict[str, tuple[int, str]] = {}  # how well the prefix fits, and the text
    for tag, value in root.attrib.items():
        for field in fields.get(tag, ()):
            best[field.part] = (-1, value)
    queue = deque([(root, ())])
    while queue:
        element, above = queue.popleft()
        for child in _children(element):
            prefix, name = _name(child)
            for field in fields.get(name, ()):
                fits = 2 if prefix and prefix == field.prefix else 1 if prefix else 0
                inside = not field.above or above[-len(field.above) :] == field.above
                if inside and (field.part not in best or not best[field.part][1].strip() or fits > best[field.part][0]):
                    text = _text(child)
                    if text.strip() or field.part not in best:
                        best[field.part] = (fits, text[: MAX_FIELD + 1])
            if name != item and len(child):
                queue.append((child, (*above, name)))
    return {part: text for part, (_, text) in best.items()}


def _text(element: etree._Element) -> str:
    """All of an element's text; of one that only holds others, a list, the first one's."""
    if not len(element):
        return element.text or ""
    children = list(_children(element))
    if children and not "".join([element.text or "", *(child.tail or "" for child in children)]).strip():
        return next(filter(str.strip, map(_text, children)), "")
    return "".join(element.itertext())


def _items(file: TextIO, item: str) -> Iterator[tuple[int, str | None]]:
    """(line, text) of each item of an XML file, from its start tag to its end tag; None for one that has no end.

    Tags in comments, CDATA and instructions are none; if such a thing never ends, each item in it has no end.
    """
    name = rf"(?:[\w.-]+:)?{re.escape(item)}(?=[\s/>])"
    # Possessive, so that a hostile tag costs one look at each of its characters.
    token = re.compile(
        rf"""<(?:(?P<hiding>!--|!\[CDATA\[|\?)|(?P<type>!DOCTYPE)|(?P<end>/?){name}(?P<rest>(?:[^"'<>]++|"[^"<]*+"|'[^'<]*+')*+>)?)"""
    )
    opening = re.compile("<" + name)
    buffer, base = "", 0  # the text at hand, and where in the file it begins
    at = counted = 0  # where to look next; up to where lines are counted
    line, any_item = 1, False
    open_items: deque[tuple[int, list[tuple[int, int]]]] = deque()  # where each begins, and the items closed in it
    until, hidden = "", 0  # the end of what hides tags now, and how many items it hides so far
    more = True
    while more:
        block = file.read(BLOCK)
        more, buffer = bool(block), buffer + block
        done: list[tuple[int, int | None]] = []

        def give_up() -> None:
            begin, inside = open_items.popleft()
            done.extend([(begin, None), *inside])  # noqa: B023

        while True:
            if until:
                found = buffer.find(until, at - base)
                if found < 0:
                    upto = max(at - base, len(buffer) - _LONGEST_NAME) if more else len(buffer)
                    hidden += len(opening.findall(buffer, at - base, upto))
                    at = base + upto
                    break
                at, until, hidden = base + found + len(until), "", 0
            match = token.search(buffer, at - base)
            if match is None:  # the next block may complete what begins here
                keep = buffer.rfind("<", max(at - base, len(buffer) - _LONGEST_NAME)) if more else -1
                at = base + (keep if keep >= 0 else len(buffer))
                break
            begin, at = base + match.start(), base + match.end()
            may_go_on = more and len(buffer) - match.start() < _LONGEST_TAG
            if match["hiding"]:
                until = _HIDING[match[0]]
            elif match["type"]:
                whole = _DOCTYPE.match(buffer, match.start())
                if not whole[1] and may_go_on and buffer[whole.end() : whole.end() + 1] in ("", '"', "'"):
                    at = begin
                    break
                if not whole[1] and not any_item:
                    raise FileRefused("document type (entities) refused; mend by removing its <!DOCTYPE ...>")
                at = base + whole.end()
            elif not match["rest"] and may_go_on:
                at = begin
                break
            elif match["end"]:
                if open_items:
                    begin, _ = open_items.pop()
                    (open_items[-1][1] if open_items else done).append((begin, at))
            else:
                any_item = True
                if match["rest"] and match["rest"].endswith("/>"):
                    (open_items[-1][1] if open_items else done).append((begin, at))
                else:
                    open_items.append((begin, []))
        while open_items and (not more or base + len(buffer) - open_items[0][0] > _LONGEST_PRODUCT):
            give_up()
        for begin, end in done:
            line, counted = line + buffer.count("\n", counted - base, begin - base), begin
            yield line, None if end is None else buffer[begin - base : end - base]
        cut = open_items[0][0] if open_items else at
        line, counted = line + buffer.count("\n", counted - base, cut - base), cut
        buffer, base = buffer[cut - base :], cut
    yield from itertools.repeat((line, None), hidden)


def _no_item(path: Path, item: str) -> str:
    """Why a file without items is refused, and which of its elements may be the items: those that are there often."""
    with open_text(path, _encoding(start_of(path)), "replace") as file:
        text = file.read(1 << 20)
    if not re.search(r"<[\w.:-]+[\s/>]", text):
        return "not XML"
    holders = Counter(re.findall(r"<([\w.:-]{1,60})(?:\s[^<>]*)?>\s*<(?![/!])", text))
    often = [f"{count} times <{tag}>" for tag, count in holders.most_common(5) if count > 1]
    mend = f"; it has {', '.join(often)}; mend with --rules.item" if often else ""
    return f"no <{item}> in it{mend}"


# Encodings that a feed may declare: no other one is asked for what a stranger's bytes mean.
_KNOWN = re.compile(rb"(us-)?ascii|iso-?8859-?\d+|latin-?\d|(windows-|cp)12\d\d|koi8-[ru]|gb\w+|big5|shift_jis|euc-\w+")


def _encoding(start: bytes) -> str:
    """The encoding of an XML file: by its first bytes, or as declared, be it behind a server's notice; else UTF-8."""
    wide = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}.get(start[:2])
    if wide and start[2:4] != b"\0\0":  # which would be UTF-32
        return wide
    declared = re.search(rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([\w.:-]+)""", start)
    if declared and _KNOWN.fullmatch(name := declared[1].lower()):
        try:
            return codecs.lookup(name.decode()).name
        except LookupError:
            pass
    return "utf-8-sig"


_ENTITY = re.compile(
    r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>|&(?:(#\d{1,8}|#x[0-9a-fA-F]{1,8}|[A-Za-z][A-Za-z0-9]{0,31});)?", re.S
)
_XML_ENTITIES = frozenset(("amp", "lt", "gt", "quot", "apos"))


class _Mended:
    """Reads & as it is meant, and knows how often that was not as written, and the line of the first."""

    def __init__(self) -> None:
        self.times = self.first = 0

    def as_meant(self, text: str, line: int) -> str:
        """XML in which a bare & is text and named entities are the characters that they name, as a shop's program that
        pastes texts together means them."""

        def meant(match: re.Match) -> str:
            name = match[1]
            if match[0][0] == "<" or (name or "").startswith("#"):
                return match[0]
            known = html.entities.html5.get(f"{name};")
            if name not in _XML_ENTITIES:
                self.times += 1
                if self.times == 1:
                    self.first = line + text.count("\n", 0, match.start())
            # By number: a parser that has forgiven an error leaves out even the entities that XML names.
            return "".join(f"&#{ord(each)};" for each in known) if known else "&#38;" + match[0][1:]

        return _ENTITY.sub(meant, text)
