"""What people decided about a list's products: the CSV files that the page saves, as spreadsheets leave them.

>>> decided = read_decisions("shop-decisions-2026-11-29.csv")               # doctest: +SKIP
"""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from elrkit.catalogue.feed_files import DECISION_COLUMNS
from elrkit.catalogue.rules import as_it_was, as_text

SIGNED = ["reviewer", "time"]  # who decided and when, which files of earlier pages do not say


def read_decisions(path: str | Path) -> pd.DataFrame:
    """What a person decided: the text columns id, decision, label, suggested_label, reviewer, time; index: the line of
    each row.

    decision is in small letters: confirm (the product belongs to the suggested_label), keep (the label stays), unsure,
    or what else was typed. The file is what the page saves, or what a spreadsheet made of it: columns in any order,
    parted by commas, semicolons or tabs, and further ones, which are left out: a `labels.csv` with a column of
    decisions will do. reviewer and time may be missing, and are empty then. The apostrophes go that kept cells from
    being formulas.

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
        where = [names.index(name) if name in names else None for name in DECISION_COLUMNS + SIGNED]
        line = reader.line_num + 1
        for row in reader:
            if any(row):
                if len(row) != len(names):
                    raise ValueError(f"{path}: line {line}: {len(row)} columns; expected the {len(names)} of line 1")
                cells = (as_it_was("" if column is None else row[column].strip()) for column in where)
                id_, decision, *others = cells
                if id_ in seen:
                    raise ValueError(f"{path}: line {line}: id {id_!r} was decided in line {seen[id_]} already")
                seen[id_] = line
                rows[line] = [id_, decision.casefold(), *others]
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}: line {line}: not valid CSV ({error})") from None
    return pd.DataFrame.from_dict(rows, orient="index", columns=DECISION_COLUMNS + SIGNED, dtype=str)


def without_zeros(ids: Iterable[str]) -> dict[str, str]:
    """The ids that begin with zeros by what a spreadsheet makes of them ("48" for "00048"), where that is the id of no
    other product."""
    ids = set(ids)
    short: dict[str, list[str]] = {}
    for id_ in ids:
        if id_.startswith("0") and id_.isdecimal():
            short.setdefault(id_.lstrip("0") or "0", []).append(id_)
    return {text: meant[0] for text, meant in short.items() if len(meant) == 1 and text not in ids}


def for_spreadsheets(table: pd.DataFrame) -> pd.DataFrame:
    """The table for those who open it in Excel: no stranger's text is a formula there."""
    texts = table.columns[[not is_numeric_dtype(kind) for kind in table.dtypes]]
    return table.assign(**{name: table[name].astype(str).map(as_text) for name in texts})


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table as UTF-8 that Excel knows for it. Lines end as in RFC 4180, or a carriage return in a title would not
    be quoted and begin a line of its own."""
    for_spreadsheets(table).to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")
