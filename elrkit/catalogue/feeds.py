"""A shop's feed files to products as {part: text}: one reader per suffix, in `READERS`; a new format is one function.

    for line, product in read_feed(Path("shop.xml"), FeedRules(item="item"), damage := []): ...

What cannot be made out comes as the reason, a str, in place of a product. Whether a product can be used is
`elrkit.catalogue.rules`'s to say.
"""

import csv
import gzip
import itertools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from elrkit.catalogue.feed_files import FileRefused, Products, open_text, start_of, suffix
from elrkit.catalogue.feed_xml import read_xml
from elrkit.catalogue.rules import NEEDED, PARTS, FeedRules, printable


def read_feed(path: Path, rules: FeedRules, damage: list[str]) -> Products:
    """The products of one file by the reader of its suffix; what had to be forgiven is added to `damage` (at most 100).

    Raises FileRefused, with how to mend it.
    """
    try:
        yield from READERS.get(suffix(path), read_csv)(path, rules, damage)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise FileRefused("compressed (gzip), and damaged; copy it again") from None
    except UnicodeError:
        raise FileRefused(f"cannot be read as {rules.encoding}; mend with --rules.encoding") from None


# ------------------------------------------------------------------------------------------------ CSV

_SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n', re.IGNORECASE)  # a first line for Excel, which Excel writes as well
_LONGEST_RECORD = 500  # lines: one whose quotes never balance runs on, line after line
_LONGEST_LINE = 1 << 22  # characters; what is longer comes in pieces
_ABOVE = 20  # lines in which the header is looked for


def read_csv(path: Path, rules: FeedRules, damage: list[str]) -> Products:
    """Products of one CSV file, whichever character parts its columns; the header is the first line that has them.

    The columns of id, label, image and the parts that are named must be there, but for those that are no column (@file,
    {id}). A row may lack cells at its end and have empty ones more.
    """
    named = rules.columns or {}
    # A column that is named for one part is not another part's by default ("name" may hold the title).
    # What a product cannot do without keeps its own column.
    columns = {part: part for part in PARTS if part not in named.values() or part in NEEDED} | named
    needed = {columns[part] for part in (*NEEDED, *named)} - {"@file"}
    needed = {name for name in needed if "{id}" not in name}
    start = start_of(path)
    if start.startswith(b"PK\x03\x04"):
        raise FileRefused("an archive or a spreadsheet's own format; unpack it, or save it as CSV")
    wide = start[:2] in (b"\xff\xfe", b"\xfe\xff")
    # surrogateescape lets a wrongly encoded row through, so that it is that row which is rejected, not the file.
    with open_text(path, "utf-16" if wide else rules.encoding, "surrogateescape") as file:
        lines = _Lines(file)
        header, delimiter, spaced = _header(lines, needed, columns, rules)
        where = {part: header.index(name) for part, name in columns.items() if name in header}
        least = 1 + max(header.index(name) for name in needed)
        reader = _csv_reader(lines, delimiter)
        while True:
            lines.taken.clear()
            line = lines.number + 1
            try:
                row = _next(reader)
                runaway = _runaway(lines.taken, header, delimiter, spaced)
            except StopIteration:
                return
            except csv.Error:  # an endless quoted field, for instance
                row, runaway = [], True
            if runaway:  # the row's first line alone is lost; those that its quote swallowed are read again
                lines.give_back(lines.taken[1:])
                reader = _csv_reader(lines, delimiter)
                yield line, "malformed product"
            elif len(row) < least and any(row):
                yield line, "fewer columns than the header"
            elif any(cell.strip() for cell in row[len(header) :]):
                yield line, "more columns than the header"
            elif row and (any(row) or len(row) > 1):
                yield line, {part: row[i] if i < len(row) else "" for part, i in where.items()}


def _csv_reader(lines: Iterator[str] | list[str], delimiter: str):
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=delimiter != "\t")


def _next(reader) -> list[str]:
    """The next row, whose cells may be as long as a line; the limit is the whole process's."""
    before = csv.field_size_limit(_LONGEST_LINE)
    try:
        return next(reader)
    finally:
        csv.field_size_limit(before)


def _header(
    lines: "_Lines", needed: set[str], columns: Mapping[str, str], rules: FeedRules
) -> tuple[list[str], str, bool]:
    """(names, delimiter, whether spaces follow it) of the first line that has the columns needed; `lines` go on behind
    it."""
    top = list(itertools.islice(lines, _ABOVE))
    told = _SEPARATOR.fullmatch(top[0]) if top else None
    best: list[str] = []  # the names that may be meant
    for delimiter in told[1] if told else rules.delimiter or ",;\t|":
        reader = _csv_reader(top, delimiter)
        while True:
            try:
                names = [name.strip() for name in _next(reader)]
            except StopIteration:
                break
            except csv.Error as error:
                raise FileRefused(f"no CSV in {rules.encoding} ({error})") from None
            if needed <= {*names}:
                lines.give_back(top[reader.line_num :])
                return names, delimiter, f"{delimiter} " in top[reader.line_num - 1]
            best = max(best, names, key=lambda names: (len(needed & {*names}), len(list(filter(None, names)))))
    mend = "--rules.columns " + " ".join(f"{part} COLUMN" for part, name in columns.items() if name in needed - {*best})
    if any(re.search("[\ud800-\udfff]", name) for name in best):
        mend = f"--rules.encoding cp1252 or latin-1 or {mend}"
    if rules.delimiter:
        mend = f"another --rules.delimiter, or none, or {mend}"
    has = printable(", ".join(best), 400) or "none"
    raise FileRefused(f"no column {', '.join(sorted(needed - {*best}))}; it has {has}; mend with {mend}")


class _Lines:
    """The lines of a file; `taken`: those since it was last cleared; `number`: of the last one."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.taken, self.number = file, [], 0
        self._back: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.taken) >= _LONGEST_RECORD:
            raise csv.Error(f"a record of more than {_LONGEST_RECORD} lines")
        line = self._back.pop() if self._back else self.file.readline(_LONGEST_LINE)
        if not line:
            raise StopIteration
        self.taken.append(line)
        self.number += 1
        return line

    def give_back(self, lines: Sequence[str]) -> None:
        """These, the last that came, come again."""
        self._back.extend(reversed(lines))
        self.number -= len(lines)


def _runaway(lines: list[str], header: list[str], delimiter: str, spaced: bool) -> bool:
    """Whether a record of several lines comes from a quote that was never closed, not from a field with line breaks.

    The line that closes a field holds an odd number of quotes. A quote that was forgotten runs to the end of the file
    or to a line whose own quotes are balanced; or to a second forgotten one, and then the lines between are rows: with
    as many cells as the header, and no space behind the commas, as in a sentence, where the header has none.
    """
    if len(lines) < 2:
        return False
    if lines[-1].count('"') % 2 == 0:
        return True

    def is_row(line: str) -> bool:
        cells = next(csv.reader([line], delimiter=delimiter), [])
        prose = not spaced and any(cell.startswith(" ") for cell in cells)
        return line.count('"') % 2 == 0 and len(cells) == len(header) and not prose

    return len(lines) > 2 and all(map(is_row, lines[1:-1]))


READERS = {".xml": read_xml, ".csv": read_csv, ".tsv": read_csv, ".txt": read_csv}
