"""From what several people decided to what the shop has to change.

>>> done = corrections(dataset, [Path("anna.csv"), Path("ben.csv")], Path("audit"))     # doctest: +SKIP
"""

import difflib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from elrkit.catalogue.decisions import TOGETHER, check_folder, in_order, spelling, write_csv
from elrkit.catalogue.rules import printable
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
    and, where reviewers disagree, ``ask-again.csv`` with the columns of a list and one for their decision: filled in
    and given with the other files it settles them. No file that was given is written over; raises ValueError where
    one that was filled in was not given.

    dataset: the shop's products as they are filed now; where an import has applied decisions, as the shop filed them.
    files: of decisions, as the page saves them. A reviewer is known by the name in the file; a file without names is a
    reviewer of its own. Of one reviewer's decisions on a product the newest counts, see `in_order`. Where one is
    unsure, the others decide.
    """
    ids = dataset.of_all("ids")
    labels = [*dataset.train_labels.tolist(), *dataset.test_labels.tolist()]
    if len(ids) != len(labels):
        raise ValueError(f"{dataset.name}: its products have no ids, so no decision can name one")
    before = dataset.of_all("filed") or [dataset.class_names[label] for label in labels]
    filed = dict(zip(ids, before, strict=True))
    names = tuple(dict.fromkeys((*dataset.class_names, *filed.values())))
    titles = dict(zip(ids, dataset.of_all("titles"), strict=False))
    decided, unfit = fitting(in_order(files, filed), filed, names)
    agreed, disagreed = merged(decided)
    moves = [(id_, filed[id_], target) for id_, target in agreed.items() if target not in (None, filed[id_])]
    # Filed as was decided: by the shop since then, where a reviewer saw it filed elsewhere.
    right = {id_ for id_, target in agreed.items() if target == filed[id_]}
    done = {each.id for each in decided if each.id in right and each.label != filed[each.id]}
    out, given = Path(out), {Path(path).resolve() for path in files}
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    table, again = (
        next(path for k in itertools.count(1) if (path := _numbered(out / name, k)).resolve() not in given)
        for name in ("corrections.csv", "ask-again.csv")
    )
    if again.exists() and len(in_order([again])):
        raise ValueError(f"{again}: has decisions and was not given; give it with the other files, or rename it")
    write_csv(pd.DataFrame(moves, columns=CORRECTION_COLUMNS), table)
    if disagreed:
        write_csv(to_ask_again(disagreed, filed, titles), again)
    else:
        again.unlink(missing_ok=True)
    unsure = sum(target is None for target in agreed.values())
    return Corrected(
        table, again if disagreed else None, len(moves), len(right) - len(done), len(done), len(disagreed), unsure,
        tuple(unfit),
    )  # fmt: skip


def fitting(rows: pd.DataFrame, filed: Mapping[str, str], names: Sequence[str]) -> tuple[list[Decision], list[str]]:
    """(The newest decision of each reviewer on each product, with the categories as `names` has them; a line for each
    that fits nothing). rows: of `in_order`; filed: ids to present categories."""
    spelt, unfit = spellings(names), []
    last: dict[tuple[str, str], tuple[Decision, str]] = {}
    for row in rows.itertuples():
        place = f"{printable(row.file)}, line {row.line}"
        if row.decision not in ("confirm", "keep", "unsure"):
            said = printable(row.decision)
            unfit.append(f"{place}: {printable(row.id)}: {said!r} is neither confirm, keep nor unsure")
            continue
        label, chosen = spelt(row.label), spelt(row.suggested_label)
        here, why = filed.get(row.id), ""
        target = {"confirm": chosen, "keep": label}.get(row.decision)
        if here is None:
            why = "no product of the dataset has this id"
        elif row.decision != "unsure" and target is None:
            text = row.suggested_label if row.decision == "confirm" else row.label
            near = ", ".join(difflib.get_close_matches(text, names, 3, 0))
            why = f"there is no category {printable(text)!r}; there are {printable(near, 200)}"
        elif here not in (label, target):
            why = f"it was decided on as {printable(row.label)}, and is filed under {printable(here)} by now"
        reviewer = " ".join(row.reviewer.split()) or row.file
        last[row.who, row.id] = Decision(row.id, reviewer, label or row.label, target, place), why
    unfit += [f"{each.place}: {printable(each.id)}: {why}" for each, why in last.values() if why]
    return [each for each, why in last.values() if not why], unfit


def merged(decided: Iterable[Decision]) -> tuple[dict[str, str | None], dict[str, list[Decision]]]:
    """(The category of each product on which all agree who are sure, or which was decided together, None where nobody
    is; what was said of the other products)."""
    said: dict[str, list[Decision]] = {}
    for each in decided:
        said.setdefault(each.id, []).append(each)
    settled = {each.id: [each] for words in said.values() for each in words if each.reviewer.casefold() == TOGETHER}
    said |= {id_: words for id_, words in settled.items() if words[0].target is not None}
    targets = {id_: {each.target for each in words} - {None} for id_, words in said.items()}
    agreed = {id_: next(iter(found), None) for id_, found in targets.items() if len(found) < 2}
    return agreed, {id_: words for id_, words in said.items() if id_ not in agreed}


def to_ask_again(
    disagreed: Mapping[str, Sequence[Decision]], filed: Mapping[str, str], titles: Mapping[str, str]
) -> pd.DataFrame:
    """A list of the products on which reviewers disagree: suggested is what most of them chose of the other categories,
    its share of their voices the confidence, and the reason is who said what; decision is for them to fill in."""
    rows = []
    for id_, words in disagreed.items():
        sure = [each for each in words if each.target is not None]
        (chosen, votes), *_ = Counter(each.target for each in sure if each.target != filed[id_]).most_common(1)
        reason = "; ".join(f"{each.reviewer}: {each.target or 'unsure'}" for each in words)
        rows.append((id_, titles.get(id_, ""), filed[id_], chosen, votes / len(sure), reason, "", TOGETHER))
    table = pd.DataFrame(rows, columns=[COLUMNS[0], "title", *COLUMNS[1:], "decision", "reviewer"])
    table = table.sort_values("confidence", ascending=False, kind="stable", ignore_index=True)
    return table if table["title"].any() else table.drop(columns="title")


def spellings(names: Iterable[str]) -> Callable[[str], str | None]:
    """What finds the dataset's spelling of a category, which a spreadsheet may have changed; None where there is none,
    or more than one."""
    exact, alike = frozenset(names), {}
    for name in exact:
        alike.setdefault(spelling(name), []).append(name)

    def find(text: str) -> str | None:
        found = [text] if text in exact else alike.get(spelling(text), ())
        return found[0] if len(found) == 1 else None

    return find


def _numbered(path: Path, k: int) -> Path:
    return path.with_name(f"{path.stem}-{k}{path.suffix}") if k > 1 else path
