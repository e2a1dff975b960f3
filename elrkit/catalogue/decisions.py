"""What people decided about a list's products: the CSV files that the page saves, as spreadsheets leave them.

>>> decided = in_order(["shop-decisions-2026-11-29.csv", "shop-decisions-2026-11-30.csv"])    # doctest: +SKIP
"""

import contextlib
import csv
import datetime
import io
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from elrkit.catalogue.feed_files import DECISION_COLUMNS
from elrkit.catalogue.rules import as_it_was, as_text, one_spelling

SIGNED = ["reviewer", "time"]  # who decided and when, which files of earlier pages do not say
TOGETHER = "together"  # the reviewer whose word settles what the others disagree on


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


def in_order(paths: Iterable[str | Path], ids: Iterable[str] = ()) -> pd.DataFrame:
    """The decisions of one file or several in the order in which they were made: the columns of `read_decisions`, file
    (its name), line, and who (the reviewer, or the file where it names none).

    Their times tell, not the order of the files. Those without a time are older than any with one, and later files
    newer; what was decided together comes last. A decision left empty is no word. ids: of the products; those that a
    spreadsheet robbed of their zeros are as they were.
    """
    tables = [read_decisions(path).rename_axis("line").reset_index().assign(file=Path(path).name) for path in paths]
    rows = pd.concat([pd.DataFrame(columns=["line", *DECISION_COLUMNS, *SIGNED, "file"]), *tables])
    rows, zeros = rows[rows["decision"] != ""], without_zeros(ids)
    rows = rows.assign(id=rows["id"].map(lambda id_: zeros.get(id_, id_)))
    who = rows["reviewer"].map(lambda name: " ".join(name.split()).casefold())
    made = rows["time"].map(_time).where(who != TOGETHER, math.inf)
    rows = rows.assign(who=who.where(who != "", rows["file"]))
    return rows.iloc[np.argsort(made.to_numpy(float), kind="stable")].reset_index(drop=True)


def disagreed(rows: pd.DataFrame) -> set[str]:
    """The ids of `in_order` on which the last words of several reviewers differ, of those who saw the product filed
    alike and are sure, and which they have not settled together. A file without names is a reviewer of its own."""
    last = rows.drop_duplicates(["who", "id"], keep="last")
    sure = last[last["decision"].isin(["confirm", "keep"])]
    sure = sure[~sure["id"].isin(sure["id"][sure["who"] == TOGETHER])]
    target = sure["suggested_label"].where(sure["decision"] == "confirm", sure["label"]).map(spelling)
    targets = target.groupby([sure["id"], sure["label"].map(spelling)]).nunique()
    return set(targets[targets > 1].index.get_level_values("id"))


def spelling(label: str) -> str:
    """A category as it is compared where a spreadsheet or another feed may have changed its spelling."""
    return one_spelling(label).casefold()


def _time(text: str) -> float:
    """Seconds of an ISO time; before all others where it is none, as spreadsheets write times in many ways."""
    with contextlib.suppress(ValueError):
        time = datetime.datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()
    return -math.inf


def check_folder(out: Path) -> None:
    """Raises ValueError where a folder is to be written and a file is."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out}: a file; allowed is a folder, there or not")


def without_zeros(ids: Iterable[str]) -> dict[str, str]:
    """The ids that begin with zeros by what a spreadsheet makes of them ("48" for "00048"), where that is the id of no
    other product."""
    ids = set(ids)
    short: dict[str, list[str]] = {}
    for id_ in ids:
        if id_.startswith("0") and id_.isdecimal():
            short.setdefault(id_.lstrip("0") or "0", []).append(id_)
    return {text: meant[0] for text, meant in short.items() if len(meant) == 1 and text not in ids}


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table, whole or not at all, as UTF-8 that Excel knows for it and where no stranger's text is a formula. Lines
    end as in RFC 4180, or a carriage return in a title would not be quoted and begin a line of its own."""
    texts = table.columns[[not is_numeric_dtype(kind) for kind in table.dtypes]]
    table = table.assign(**{name: table[name].astype(str).map(as_text) for name in texts})
    partial = path.with_name(f"{path.name}.part")
    table.to_csv(partial, index=False, encoding="utf-8-sig", lineterminator="\r\n")
    partial.replace(path)
