"""What a person decided about the labels on a list: the file that the page saves, read and checked.

Its cells come from strangers, and people open it in spreadsheets, which must neither execute nor mangle them.
"""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

_FORMULA = re.compile(r"^(?='*[=+\-@\t\r])")  # behind apostrophes as well, so that `_as_it_was` undoes it


def as_text(cell: str) -> str:
    """A stranger's text for a CSV cell: Excel takes one that begins so for a formula and executes it, and an apostrophe
    before it makes it text."""
    return _FORMULA.sub("'", cell)


def _as_it_was(cell: str) -> str:
    """The text of a cell of `as_text`."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell[1:]) else cell


DECISION_COLUMNS = ["id", "decision", "label", "suggested_label"]


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
                id_, label, suggested = map(_as_it_was, (id_, label, suggested))
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
