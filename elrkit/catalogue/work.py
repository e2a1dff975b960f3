"""The work of an import in progress: products and images in an SQLite file, so that memory stays bounded and an import
that was killed goes on where it stopped.

`scan` reads feeds, then come `apply_decisions` and `decode_needed`; `elrkit.catalogue.written` makes the dataset.
"""

import contextlib
import difflib
import hashlib
import itertools
import json
import logging
import multiprocessing
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path, PurePosixPath

from elrkit.catalogue.feed_files import FileRefused
from elrkit.catalogue.feeds import read_feed
from elrkit.catalogue.fetch import Fetcher
from elrkit.catalogue.groups import title_stem
from elrkit.catalogue.images import decode, forget_folders
from elrkit.catalogue.review import read_decisions, without_zeros
from elrkit.catalogue.rules import BROKEN_TEXT, MAX_FIELD, FeedRules, Rejected, check_product, printable

log = logging.getLogger(__name__)

MAX_TITLE = 80  # of which a dataset keeps so many, for people who look at its products
CHUNK = 512  # images between two commits
EXAMPLES = 5  # products named per reason in the manifest

SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE label(k INTEGER PRIMARY KEY, key TEXT UNIQUE, name TEXT);
CREATE TABLE product(n INTEGER PRIMARY KEY, id TEXT UNIQUE, label INT, filed INT, image INT, draw INT, stem INT, \
title TEXT, file INT, entry INT);
CREATE TABLE unused(file INT, entry INT, id TEXT, image TEXT, step TEXT, reason TEXT);
CREATE TABLE image(k INTEGER PRIMARY KEY, path TEXT UNIQUE, reason TEXT, sha256 BLOB, hash BLOB, notes TEXT);
CREATE TABLE pixels(k INTEGER PRIMARY KEY, pixels BLOB);
CREATE TABLE dropped(step TEXT, reason TEXT, count INT, examples TEXT);
"""
# product.filed: the label as the feed has it, before decisions. file, entry: where a product stands in the feed, both
# numbers. unused: products dropped before any image was read. image.reason: NULL while undecided, '' when usable, else
# why it is rejected. Pixels have a table of their own, so that looking through the images does not read them.


@contextlib.contextmanager
def damage_named(file: Path) -> Iterator[None]:
    """OSError that says what to do about a damaged SQLite file, which may show at any query."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            told = f"is damaged ({error}); remove it, and the same command starts anew"
        elif isinstance(error, sqlite3.OperationalError):  # no room, no right to write, a disk that is gone
            told = f"cannot be written ({error}); mend that, and the same command goes on where it was"
        else:
            raise
        raise OSError(f"import_feed: the work file {file} {told}") from None


def open_work(file: Path, asked: str) -> sqlite3.Connection:
    """The SQLite file of this very import; one left by an import of something else is started anew."""
    file.parent.mkdir(exist_ok=True)
    for _ in range(2):
        db = sqlite3.connect(file, timeout=0, isolation_level=None)
        try:
            # Exclusive: two imports into one file would undo each other. WAL: a kill loses at most one transaction.
            db.executescript(
                "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; "
                "PRAGMA synchronous=NORMAL; PRAGMA cache_size=-131072;"
            )
            db.execute("BEGIN EXCLUSIVE")
            if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in SCHEMA.strip().split("\n"):
                    db.execute(statement)
                db.execute("INSERT INTO meta VALUES('asked', ?)", [asked])
            same = db.execute("SELECT value FROM meta WHERE key='asked'").fetchone() == (asked,)
            db.execute("COMMIT")
            if same:
                # What was missing or could not be fetched may be there by now: rejected images are read again.
                db.execute("UPDATE image SET reason=NULL, sha256=NULL, hash=NULL, notes=NULL WHERE reason<>''")
                return db
        except sqlite3.DatabaseError as error:
            db.close()
            if "locked" in str(error):
                raise BlockingIOError(
                    f"import_feed: another import is writing {file}; let it end or choose another name"
                ) from None
            raise
        log.info("%s was left by another import (other feed or rules); starting anew", file)
        db.close()
        file.unlink()
    raise OSError(f"import_feed: {file} cannot be started anew; remove it")


def meta(db: sqlite3.Connection, key: str):
    """What was noted under a key, or None."""
    row = db.execute("SELECT value FROM meta WHERE key=?", [key]).fetchone()
    return row and json.loads(row[0])


def _int64(text: str) -> int:
    """64 bits of a text's BLAKE2b as a signed integer, never 0: an order and an identity that no machine changes."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1


# ------------------------------------------------------------------------------------------------ products


def scan(db: sqlite3.Connection, number: int, name: str, path: Path, rules: FeedRules) -> None:
    """Rows of one feed file into the work file, as one transaction: after a kill a file is either in or not."""
    done = f"scanned {number}"
    if db.execute("SELECT 1 FROM meta WHERE key=?", [done]).fetchone():
        return
    shown, columns, damage = printable(name, 200), rules.columns or {}, []
    bare = PurePosixPath(name[:-3] if name.lower().endswith(".gz") else name).with_suffix("")
    of_file = {"label": str(bare), "name": bare.name} if columns.get("label") == "@file" else {}
    by_id = columns["image"] if "{id}" in columns.get("image", "") else ""
    read, dropped, examples, damaged_titles = 0, Counter(), {}, 0
    db.execute("BEGIN")
    try:
        for line, product in read_feed(path, rules, damage):
            read += 1
            found = {} if isinstance(product, str) else product | of_file
            try:
                if isinstance(product, str):
                    raise Rejected(product)
                if by_id:
                    found["image"] = by_id.replace("{id}", found.get("id", "").strip())
                checked, title = check_product(found, rules), found.get("title", "")
                damaged_titles += BROKEN_TEXT.search(title) is not None
                if not _add(db, checked, title, number, read, rules):
                    raise Rejected("duplicate id")
            except Rejected as error:
                reason = str(error)
                dropped[reason] += 1
                told = (_valid(found.get(part, "").strip()) for part in ("id", "image"))
                db.execute("INSERT INTO unused VALUES(?, ?, ?, ?, 'product', ?)", (number, read, *told, reason))
                if dropped[reason] <= EXAMPLES:
                    examples.setdefault(reason, []).append(
                        f"{shown}: {printable(found.get('id', '').strip()) or f'line {line}'}"
                    )
    except FileRefused as error:
        db.execute("INSERT INTO dropped VALUES('file', ?, 1, ?)", [str(error), shown])
        log.warning("%s: %s", shown, error)
    if damage:
        first = printable(damage[0], 300)
        db.execute("INSERT INTO dropped VALUES('xml', ?, ?, ?)", [first, len(damage), shown])
        log.warning("%s: %d XML errors, first %s", shown, len(damage), first)
    if damaged_titles:
        log.warning(
            "%s: %d titles are not in the encoding read, and hold question marks; mend with --rules.encoding cp1252 or "
            "latin-1, if it is a CSV in that", shown, damaged_titles,
        )  # fmt: skip
    rows = [("product", reason, count, json.dumps(examples[reason])) for reason, count in dropped.items()]
    db.executemany("INSERT INTO dropped VALUES(?, ?, ?, ?)", rows)
    db.execute("INSERT INTO meta VALUES(?, ?)", [done, str(read)])
    db.execute("COMMIT")
    log.info("%s: %d products read, %d dropped", shown, read, dropped.total())


def _add(
    db: sqlite3.Connection, checked: tuple[str, str, str, str], title: str, file: int, entry: int, rules: FeedRules
) -> bool:
    """Whether a product is new, and then it is in the work file."""
    id_, label, label_name, image = checked
    stem = title_stem(title) if rules.title_group else ""
    db.execute("INSERT OR IGNORE INTO label(key, name) VALUES(?, ?)", (label, label_name))
    db.execute("INSERT OR IGNORE INTO image(path) VALUES(?)", (image,))
    one_line = " ".join(_valid(title).split())[:MAX_TITLE]
    new = db.execute(
        "INSERT OR IGNORE INTO product(id, label, filed, image, draw, stem, title, file, entry) "
        "SELECT ?, l.k, l.k, i.k, ?, ?, ?, ?, ? FROM label l, image i WHERE l.key=? AND i.path=?",
        (id_, _int64(f"{rules.seed}:{id_}"), _int64(stem) if stem else 0, one_line, file, entry, label, image),
    )
    return new.rowcount > 0


def _valid(text: str) -> str:
    """Text that a file can hold: half a character, as a damaged feed may have it, becomes a question mark."""
    return text[:MAX_FIELD].encode("utf-8", "replace").decode().replace("\0", " ")


# ------------------------------------------------------------------------------------------------ decisions


def told_apart(name: str, key: str) -> str:
    """The class name of a subcategory whose name another one has too."""
    return f"{name} ({key})"


def _meant(db: sqlite3.Connection) -> dict[str, set[int]]:
    """The subcategories that a text may mean: by name, as the dataset names some of one name, and by key."""
    meant: dict[str, set[int]] = {}
    known = db.execute("SELECT k, key, name FROM label").fetchall()
    for k, key, name in known:
        meant.setdefault(name, set()).add(k)
        meant.setdefault(told_apart(name, key), set()).add(k)
    names = set(meant)
    for k, key, _ in known:
        if key not in names:
            meant.setdefault(key, set()).add(k)
    return meant


def apply_decisions(db: sqlite3.Connection, decisions: Sequence[Path], rules: FeedRules) -> None:
    """Labels as a person decided them, a later file's decisions after an earlier one's; each decision that fits nothing
    is counted, none stops the import."""
    if not decisions or meta(db, "decisions"):
        return
    tables = [(path.name, read_decisions(path)) for path in decisions]
    meant = _meant(db)
    labels: dict[str, list[int]] = {}  # those that each decided product had in this call, now the last one
    gone = set()  # dropped by an earlier decision, so not unknown
    asked = {id_ for _, table in tables for id_ in table["id"]}
    zeros = without_zeros(id_ for (id_,) in db.execute("SELECT id FROM product WHERE id GLOB '0*'"))
    zeros = {
        text: zeros[text] for text in asked & zeros.keys()
        if not db.execute("SELECT 1 FROM product WHERE id=?", [text]).fetchone()
    }  # fmt: skip
    counts, examples = Counter(), {}
    db.execute("BEGIN")
    for file, row in ((file, row) for file, table in tables for row in table.itertuples()):
        id_ = zeros.get(row.id, row.id)
        found = db.execute("SELECT label FROM product WHERE id=?", [id_]).fetchone()
        had = labels.setdefault(id_, [*found]) if found else []
        # The label that was decided on, if it is the product's, or was before an earlier decision.
        given = next((k for k in reversed(had) if k in meant.get(row.label, ())), None)
        new = misfit = None
        if id_ in gone:
            outcome, misfit = "for a product that an earlier one dropped", row.decision
        elif not found:
            outcome, misfit = "for an unknown id", row.decision
        elif row.decision == "unsure":
            outcome = f"unsure, {'dropped' if rules.unsure == 'drop' else 'kept'}"
            if rules.unsure == "drop":
                db.execute(
                    "INSERT INTO unused SELECT file, entry, id, path, 'decision', 'marked unsure' "
                    "FROM product JOIN image ON k = image WHERE id=?",
                    [id_],
                )
                db.execute("DELETE FROM product WHERE id=?", [id_])
                gone.add(id_)
        elif row.decision not in ("confirm", "keep"):
            outcome, misfit = "not understood (neither confirm, keep nor unsure)", row.decision
        elif given is None:
            outcome, misfit = "for a product filed elsewhere since", row.label
        elif row.decision == "keep":
            outcome, new = "kept as labelled", given
        elif len(meant.get(row.suggested_label, ())) != 1:  # two subcategories of one name: the name says nothing
            outcome, misfit = "with an unknown suggested label", row.suggested_label
        else:
            outcome, (new,) = "confirmed, relabelled", meant[row.suggested_label]
        counts[outcome] += 1
        if new is not None:
            db.execute("UPDATE product SET label=? WHERE id=?", [new, id_])
            had.append(new)
        if misfit is not None and counts[outcome] <= EXAMPLES:
            told = ", ".join(map(printable, (id_, misfit)))
            if outcome == "with an unknown suggested label":
                named = {min(ks): text for text, ks in reversed(meant.items()) if len(ks) == 1}
                alike = difflib.get_close_matches(misfit, list(named.values())[:10_000], 3, 0)
                told += f"; there are {', '.join(map(printable, alike))}"
            examples.setdefault(outcome, []).append(f"{printable(file)}, line {row.Index}: {told}")
    if zeros:
        counts["by an id whose leading zeros a spreadsheet has dropped"] = len(zeros)
    if asked and not any(outcome.startswith(("kept", "confirmed", "unsure")) for outcome in counts):
        log.warning("none of the decisions on %d products fits a product of this feed", len(asked))
    if dropped := counts["unsure, dropped"]:
        db.execute("INSERT INTO dropped VALUES('decision', 'marked unsure', ?, '[]')", [dropped])
    db.execute("INSERT INTO meta VALUES('decisions', ?)", [json.dumps({"counts": counts, "examples": examples})])
    db.execute("COMMIT")


# ------------------------------------------------------------------------------------------------ images

# Products whose image is not rejected, in the order of the draw within their label.
RANKED = """
SELECT p.n, p.id, p.label, p.image, p.stem, p.draw, i.reason,
       ROW_NUMBER() OVER (PARTITION BY p.label ORDER BY p.draw, p.id) AS place
FROM product p JOIN image i ON i.k = p.image WHERE i.reason IS NULL OR i.reason = ''
"""


def decode_needed(db: sqlite3.Connection, root: Path, fetcher: Fetcher, rules: FeedRules, workers: int) -> None:
    """Decode images in the order of the draw until each label has what it needs; a shared image is decoded once.

    Which products are kept depends on the draw alone: more than the needed images may be decoded, never other ones.
    Where placeholders are dropped every image is needed, as it is their content that tells them.
    """
    forget_folders()
    most = rules.placeholder_labels
    needed = -1 if rules.per_class is None or most else max(rules.per_class, rules.min_images)
    with contextlib.ExitStack() as stack:
        each = None
        for doubling in itertools.count():
            # Every label whose first `needed` places hold an undecided image looks at twice as many as in the round
            # before, so that a label full of broken images takes few rounds.
            jobs = db.execute(
                f"WITH ranked AS ({RANKED}), short AS "
                "(SELECT DISTINCT label FROM ranked WHERE reason IS NULL AND (:n < 0 OR place <= :n)) "
                "SELECT DISTINCT r.image, image.path FROM ranked r JOIN short USING (label) "
                "JOIN image ON image.k = r.image WHERE r.reason IS NULL AND (:n < 0 OR place <= :n * :more) "
                "ORDER BY r.image",
                {"n": needed, "more": 2 ** min(doubling, 30)},
            ).fetchall()
            if not jobs:
                break
            if each is None:
                # Not threads: half of the work holds the interpreter's lock. Few images are not worth a process.
                several = workers > 1 and len(jobs) > 20 * CHUNK
                spawn = multiprocessing.get_context("spawn")
                each = stack.enter_context(ProcessPoolExecutor(workers, spawn)).map if several else map
            step = CHUNK * max(workers, 1)
            for start in range(0, len(jobs), step):
                batch = fetcher.fetch_all(root, jobs[start : start + step])
                parts = [(rules, batch[i : i + CHUNK // 4]) for i in range(0, len(batch), CHUNK // 4)]
                done = list(itertools.chain.from_iterable(each(decode, parts)))
                db.execute("BEGIN")
                db.executemany(
                    "UPDATE image SET reason=?, sha256=?, hash=?, notes=? WHERE k=?", [row[:5] for row in done]
                )
                fetcher.forget(path for (_, path), row in zip(jobs[start : start + step], done, strict=True) if row[0])
                pixels = [row[4:] for row in done if row[5] is not None]
                db.executemany("INSERT OR REPLACE INTO pixels VALUES(?, ?)", pixels)
                db.execute("COMMIT")
                log.info("%d of %d images decoded", min(start + step, len(jobs)), len(jobs))
    if most:  # in the labels as the feed has them, whatever decisions have changed
        shared = (
            "SELECT sha256 FROM product JOIN image ON image.k = image WHERE reason = '' "
            "GROUP BY sha256 HAVING COUNT(DISTINCT filed) > ?"
        )
        reason = f"placeholder, shared by more than {most} subcategories"
        db.execute(f"UPDATE image SET reason = ? WHERE reason = '' AND sha256 IN ({shared})", [reason, most])
