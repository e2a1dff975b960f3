"""From what several people decided to what the shop has to change.

>>> done = corrections(dataset, [Path("anna.csv"), Path("ben.csv")], Path("audit"))     # doctest: +SKIP
"""

import contextlib
import datetime
import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from elrkit.catalogue.decisions import read_decisions, without_zeros, write_csv
from elrkit.catalogue.rules import one_spelling, printable
from elrkit.catalogue.scores import COLUMNS
from elrkit.data import Dataset

CORRECTION_COLUMNS = ["id", "old_category", "new_category"]


class Corrected(NamedTuple):
    """What became of the decisions, in products: to be moved (the rows of `table`), kept where they are, done (filed by
    now where the reviewers put them), disagreed on (the rows of `again`, None where there are none), and unsure, which
    no other reviewer decided. unfit: a line for each decision that fits nothing: of whom, of what, and why."""

    table: Path
    again: Path | None
    moved: int
    kept: int
    done: int
    disagreed: int
    unsure: int
    unfit: tuple[str, ...]


class Decision(NamedTuple):
    """One person's last word on one product. target: the category that it belongs to, None where that was unsure;
    place: file and line."""

    id: str
    reviewer: str
    label: str
    target: str | None
    place: str


def corrections(dataset: Dataset, files: Sequence[Path], out: Path) -> Corrected:
    """Writes ``corrections.csv`` (id, old_category, new_category, as the dataset spells them) into the folder `out`,
    and, where reviewers disagree, ``ask-again.csv`` with the columns of a list.

    dataset: the shop's products as they are filed now. files: of decisions, as the page saves them. A reviewer is known
    by the name in the file; a file without names is a reviewer of its own. Of one reviewer's decisions on a product the
    newest counts, by their times; those without a time are older than any with one, and later files newer. Where one
    is unsure, the others decide.
    """
    ids = [*(dataset.train_ids or ()), *(dataset.test_ids or ())]
    labels = [*dataset.train_labels.tolist(), *dataset.test_labels.tolist()]
    if len(ids) != len(labels):
        raise ValueError(f"{dataset.name}: its products have no ids, so no decision can name one")
    names = dataset.class_names
    filed = {id_: names[label] for id_, label in zip(ids, labels, strict=True)}
    titles = dict(zip(ids, [*(dataset.train_titles or ()), *(dataset.test_titles or ())], strict=False))
    decided, unfit = fitting([(Path(path).name, read_decisions(path)) for path in files], filed, names)
    agreed, disagreed = merged(decided)
    moves = [(id_, filed[id_], target) for id_, target in agreed.items() if target not in (None, filed[id_])]
    # Filed as was decided: by the shop since then, where a reviewer saw it filed elsewhere.
    right = {id_ for id_, target in agreed.items() if target == filed[id_]}
    done = {each.id for each in decided if each.id in right and each.label != filed[each.id]}
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    table, again = out / "corrections.csv", out / "ask-again.csv"
    _replace(pd.DataFrame(moves, columns=CORRECTION_COLUMNS), table)
    if disagreed:
        _replace(to_ask_again(disagreed, filed, titles), again)
    else:
        again.unlink(missing_ok=True)
    unsure = sum(target is None for target in agreed.values())
    return Corrected(
        table, again if disagreed else None, len(moves), len(right) - len(done), len(done), len(disagreed), unsure,
        tuple(unfit),
    )  # fmt: skip


def fitting(
    tables: Iterable[tuple[str, pd.DataFrame]], filed: Mapping[str, str], names: Sequence[str]
) -> tuple[list[Decision], list[str]]:
    """(The newest decision of each reviewer on each product, with the categories as `names` has them; a line for each
    that fits nothing). filed: ids to present categories; tables: file names and `read_decisions` of them."""
    zeros, spelt, unfit = without_zeros(filed), _spellings(names), []
    last: dict[tuple[str, str], tuple[tuple, Decision, str]] = {}
    for number, (file, rows) in enumerate(tables):
        for row in rows.itertuples():
            id_, who = zeros.get(row.id, row.id), " ".join(row.reviewer.split()) or file
            place = f"{printable(file)}, line {row.Index}"
            if row.decision not in ("confirm", "keep", "unsure"):
                if row.decision:  # a cell left empty is no word
                    said = printable(row.decision)
                    unfit.append(f"{place}: {printable(id_)}: {said!r} is neither confirm, keep nor unsure")
                continue
            label, chosen = spelt(row.label), spelt(row.suggested_label)
            here, why = filed.get(id_), ""
            target = {"confirm": chosen, "keep": label}.get(row.decision)
            if here is None:
                why = "no product of the dataset has this id"
            elif row.decision != "unsure" and target is None:
                text = row.suggested_label if row.decision == "confirm" else row.label
                near = ", ".join(difflib.get_close_matches(text, names, 3, 0))
                why = f"there is no category {printable(text)!r}; there are {printable(near, 200)}"
            elif here not in (label, target):
                why = f"it was decided on as {printable(row.label)}, and is filed under {printable(here)} by now"
            key, order = (who.casefold(), id_), (_time(row.time), number)
            if key not in last or last[key][0] <= order:
                last[key] = order, Decision(id_, who, label or row.label, target, place), why
    unfit += [f"{each.place}: {printable(each.id)}: {why}" for _, each, why in last.values() if why]
    return [each for _, each, why in last.values() if not why], unfit


def merged(decided: Iterable[Decision]) -> tuple[dict[str, str | None], dict[str, list[Decision]]]:
    """(The category of each product on which all agree who are sure, None where nobody is; what was said of the other
    products)."""
    said: dict[str, list[Decision]] = {}
    for each in decided:
        said.setdefault(each.id, []).append(each)
    targets = {id_: {each.target for each in words} - {None} for id_, words in said.items()}
    agreed = {id_: next(iter(found), None) for id_, found in targets.items() if len(found) < 2}
    return agreed, {id_: words for id_, words in said.items() if id_ not in agreed}


def to_ask_again(
    disagreed: Mapping[str, Sequence[Decision]], filed: Mapping[str, str], titles: Mapping[str, str]
) -> pd.DataFrame:
    """A list of the products on which reviewers disagree: suggested is what most of them chose of the other categories,
    its share of their voices the confidence, and the reason is who said what."""
    rows = []
    for id_, words in disagreed.items():
        sure = [each for each in words if each.target is not None]
        (chosen, votes), *_ = Counter(each.target for each in sure if each.target != filed[id_]).most_common(1)
        reason = "; ".join(f"{each.reviewer}: {each.target or 'unsure'}" for each in words)
        rows.append((id_, titles.get(id_, ""), filed[id_], chosen, votes / len(sure), reason))
    table = pd.DataFrame(rows, columns=[COLUMNS[0], "title", *COLUMNS[1:]])
    table = table.sort_values("confidence", ascending=False, kind="stable", ignore_index=True)
    return table if table["title"].any() else table.drop(columns="title")


def _spellings(names: Sequence[str]) -> Callable[[str], str | None]:
    """What finds the dataset's spelling of a category, which a spreadsheet may have changed; None where there is none,
    or more than one."""
    exact, alike = frozenset(names), {}
    for name in names:
        alike.setdefault(one_spelling(name).casefold(), []).append(name)

    def find(text: str) -> str | None:
        found = [text] if text in exact else alike.get(one_spelling(text).casefold(), ())
        return found[0] if len(found) == 1 else None

    return find


def _time(text: str) -> float:
    """Seconds of an ISO time; before all others where it is none, as spreadsheets write times in many ways."""
    with contextlib.suppress(ValueError):
        time = datetime.datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()
    return float("-inf")


def _replace(table: pd.DataFrame, path: Path) -> None:
    partial = path.with_name(path.name + ".part")
    write_csv(table, partial)
    partial.replace(path)
