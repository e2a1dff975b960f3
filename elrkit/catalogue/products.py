"""A feed's products as a table: read from its files, then with the labels that a person decided on.

    feed = read_products(feed_files(["feed/"], READERS), FeedRules())
    feed, decided = decide(feed, [Path("decisions.csv")], FeedRules())

What cannot be used stays in the table with the reason and never stops an import.
"""

import difflib
import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd

from elrkit.catalogue.decisions import disagreed, in_order, spelling
from elrkit.catalogue.feed_files import FileRefused
from elrkit.catalogue.feeds import read_feed
from elrkit.catalogue.groups import title_stem
from elrkit.catalogue.rules import BROKEN_TEXT, MAX_FIELD, FeedRules, Rejected, check_product, printable

log = logging.getLogger(__name__)

MAX_TITLE = 80  # of which a dataset keeps so many, for people who look at its products
EXAMPLES = 5  # products named per reason in the manifest


class Feed(NamedTuple):
    """What the files of a feed hold.

    table: a row per product, in the order of the files: file (from 0), entry and line (from 1), where it stands; id;
        path, of its image; title; label, a row of `labels`, and filed, the same before any decision (-1: none); draw
        and stem, 64 bits of the id and of the title (0: none); step and why, of being dropped ("": it is not).
    labels: a row per subcategory: key, name.
    refused: why, by file; damaged: {"errors": how many, "first": the first} by XML file.
    """

    table: pd.DataFrame
    labels: pd.DataFrame
    refused: dict[str, str]
    damaged: dict[str, dict]


def read_products(files: Sequence[tuple[str, Path]], rules: FeedRules) -> Feed:
    """The products of feed files, given as (name, path); of several of one id the first counts."""
    rows, ids, labels, names, refused, damaged = [], set(), {}, {}, {}, {}
    for number, (name, path) in enumerate(files):
        shown, damage, broken_titles, before = printable(name, 200), [], 0, len(rows)
        try:
            for entry, (line, found) in enumerate(_parts(name, path, rules, damage), 1):
                part = {} if isinstance(found, str) else found
                title, label, draw, stem, why = part.get("title", ""), -1, 0, "", ""
                try:
                    if isinstance(found, str):
                        raise Rejected(found)
                    id_, key, label_name, image = check_product(part, rules)
                    broken_titles += BROKEN_TEXT.search(title) is not None
                    names.setdefault(key, label_name)
                    label = labels.setdefault(key, len(labels))
                    if id_ in ids:
                        raise Rejected("duplicate id")
                    ids.add(id_)
                    draw, stem = _int64(f"{rules.seed}:{id_}"), title_stem(title) if rules.title_group else ""
                except Rejected as error:
                    id_, image, why = part.get("id", "").strip(), part.get("image", "").strip(), str(error)
                texts = _valid(id_), _valid(image), " ".join(_valid(title).split())[:MAX_TITLE]
                rows.append((number, entry, line, *texts, label, draw, _int64(stem) if stem else 0, why))
        except FileRefused as error:
            if str(error) not in refused.values():  # what all files lack is said once
                log.warning("%s: %s", shown, error)
            refused[shown] = str(error)
        if damage:
            damaged[shown] = {"errors": len(damage), "first": printable(damage[0], 300)}
            log.warning("%s: %d XML errors, first %s", shown, len(damage), damaged[shown]["first"])
        if broken_titles:
            log.warning(
                "%s: %d titles are not in the encoding read, and hold question marks; mend with --rules.encoding "
                "cp1252 or latin-1, if it is a CSV in that", shown, broken_titles,
            )  # fmt: skip
        log.info("%s: %d products read", shown, len(rows) - before)
    columns = ["file", "entry", "line", "id", "path", "title", "label", "draw", "stem", "why"]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(("label", "draw", "stem"), "int64"))
    table = table.assign(filed=table["label"], step=table["why"].map(lambda why: "product" if why else ""))
    return Feed(table, pd.DataFrame({"key": list(names), "name": list(names.values())}, dtype=object), refused, damaged)


def _parts(name: str, path: Path, rules: FeedRules, damage: list[str]) -> Iterator[tuple[int, dict[str, str] | str]]:
    """(line, parts of a product or why it cannot be made out), with those that are no column: @file, {id}."""
    columns = rules.columns or {}
    bare = PurePosixPath(name[:-3] if name.lower().endswith(".gz") else name).with_suffix("")
    of_file = {"label": str(bare), "name": bare.name} if columns.get("label") == "@file" else {}
    by_id = columns["image"] if "{id}" in columns.get("image", "") else ""
    for line, found in read_feed(path, rules, damage):
        if not isinstance(found, str):
            found |= of_file
            if by_id:
                found["image"] = by_id.replace("{id}", found.get("id", "").strip())
        yield line, found


def _int64(text: str) -> int:
    """64 bits of a text's BLAKE2b as a signed integer, never 0: an order and an identity that no machine changes."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1


def _valid(text: str) -> str:
    """Text that a file can hold: half a character, as a damaged feed may have it, becomes a question mark."""
    return text[:MAX_FIELD].encode("utf-8", "replace").decode().replace("\0", " ")


# ------------------------------------------------------------------------------------------------ decisions


def told_apart(name: str, key: str) -> str:
    """The class name of a subcategory whose name another one has too."""
    return f"{name} ({key})"


def _meant(labels: pd.DataFrame) -> dict[str, set[int]]:
    """The subcategories that a text may mean: by name, as the dataset names some of one name, and by key; and where
    none is spelt so, by their `spelling`, as another feed may begin with another one."""
    meant: dict[str, set[int]] = {}
    for k, key, name in labels.itertuples():
        meant.setdefault(name, set()).add(k)
        meant.setdefault(told_apart(name, key), set()).add(k)
    meant |= {key: {k} for k, key in labels["key"].items() if key not in meant}
    alike: dict[str, set[int]] = {}
    for text, ks in meant.items():
        alike.setdefault(spelling(text), set()).update(ks)
    return meant | {text: ks for text, ks in alike.items() if text not in meant}  # `_alike` names the first of each


def decide(feed: Feed, decisions: Sequence[Path], rules: FeedRules) -> tuple[Feed, dict[str, dict]]:
    """(the feed as a person decided, {"counts": how many decisions came to what, "examples": of those that fit
    nothing}); in the order in which they were made (`in_order`). What reviewers disagree on stays as it is filed. No
    decision stops an import.

    Raises ValueError: a file is not sound.
    """
    if not decisions:
        return feed, {"counts": {}, "examples": {}}
    meant, table = _meant(feed.labels), feed.table.copy()
    place = {id_: k for k, id_ in table["id"][table["why"] == ""].items()}
    rows = in_order(decisions, place)
    open_still = disagreed(rows)
    label, dropped = table["label"].to_numpy(copy=True), set()
    had = {}  # labels of each decided product in this call, the last one is its present one
    counts, examples = Counter(), {}

    def named(text: str) -> set[int]:
        return meant.get(text) or meant.get(spelling(text), set())

    for row in rows.itertuples():
        k = place.get(row.id)
        before = [] if k is None else had.setdefault(k, [label[k]])
        # The label that was decided on, if it is the product's, or was before an earlier decision.
        given = next((each for each in reversed(before) if each in named(row.label)), None)
        new = misfit = None
        if k in dropped:
            outcome, misfit = "for a product that an earlier one dropped", row.decision
        elif k is None:
            outcome, misfit = "for an unknown id", row.decision
        elif row.id in open_still:
            outcome, misfit = "on which reviewers disagree, left as filed", row.decision
        elif row.decision == "unsure" and rules.unsure == "drop":
            outcome = "unsure, dropped"
            dropped.add(k)
        elif row.decision == "unsure":
            outcome = "unsure, kept"
        elif row.decision not in ("confirm", "keep"):
            outcome, misfit = "not understood (neither confirm, keep nor unsure)", row.decision
        elif given is None:
            outcome, misfit = "for a product filed elsewhere since", row.label
        elif row.decision == "keep":
            outcome, new = "kept as labelled", given
        elif len(named(row.suggested_label)) != 1:  # two subcategories of one name: the name says nothing
            outcome, misfit = "with an unknown suggested label", row.suggested_label
        else:
            outcome, (new,) = "confirmed, relabelled", named(row.suggested_label)
        counts[outcome] += 1
        if new is not None:
            label[k] = new
            before.append(new)
        if misfit is not None and counts[outcome] <= EXAMPLES:
            told = ", ".join(map(printable, (row.id, misfit)))
            if outcome == "with an unknown suggested label":
                told += f"; there are {', '.join(map(printable, _alike(misfit, meant)))}"
            examples.setdefault(outcome, []).append(f"{printable(row.file)}, line {row.line}: {told}")
    if len(rows) and not any(outcome.startswith(("kept", "confirmed", "unsure", "on which")) for outcome in counts):
        log.warning("none of the decisions on %d products fits a product of this feed", rows["id"].nunique())
    table["label"] = label
    if rules.per_class:  # of whose products a part is drawn: first those that a person has looked at
        table.loc[list(had), "draw"] = np.iinfo(np.int64).min
    table.loc[list(dropped), ["step", "why"]] = "decision", "marked unsure"
    return feed._replace(table=table), {"counts": counts, "examples": examples}


def _alike(text: str, meant: dict[str, set[int]]) -> list[str]:
    """The names of subcategories that are most like a text, one for each."""
    named = {min(ks): name for name, ks in reversed(meant.items()) if len(ks) == 1}
    return difflib.get_close_matches(text, list(named.values())[:10_000], 3, 0)
