"""The dataset that an import writes: products chosen, grouped and split; the .npz, its manifest, what was dropped.

Everything is written beside its place first, and takes it in one step when all is there.
"""

import csv
import difflib
import hashlib
import itertools
import json
import sqlite3
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from elrkit.catalogue.feed_files import DROPPED_COLUMNS
from elrkit.catalogue.groups import group_products, near_groups, split_by_group
from elrkit.catalogue.rules import FeedRules, as_text, categories_of, one_spelling, printable
from elrkit.catalogue.work import EXAMPLES, RANKED, meta, told_apart

MOST_NAMED = 1_000  # subcategories named in the manifest
SHARED_BY = 3  # subcategories; a picture that more of them share is told

MENDS = {  # why products are dropped -> what mends it, where that is an option and not the product
    "wrong encoding": "--rules.encoding cp1252 or latin-1, if a CSV is in that; XML names it in its first line",
    "no image": "--rules.columns image NAME, if another column or tag has it",
    "image file missing": "--images names the folder that the feed's paths start from",
    "image on a host not allowed for download": "--download-from names its host, as HOST:PORT where it has a port",
}


def manifest_path(out: Path) -> Path:
    return out.with_suffix(".manifest.json")


def dropped_list(out: str | Path) -> Path:
    """Where the import of ``out`` lists the products that it dropped; no file where there is none."""
    return Path(out).with_suffix(".dropped.csv")


def _failed_list(out: Path) -> Path:
    return out.with_suffix(".failed.csv")


def dropped_in_words(counts: Mapping) -> list[str]:
    """A line for each reason why products were dropped: step, count, reason, and what may mend it."""
    lines = []
    for step, reasons in counts["dropped"].items():
        for reason, count in reasons.items():
            example = f", such as {counts['examples'][reason][0]}" if counts["examples"].get(reason) else ""
            mend = f" ({MENDS[reason]}{example})" if reason in MENDS else ""
            lines.append(f"{step}: {count} dropped, {reason}{mend}")
    return lines


def write(db: sqlite3.Connection, out: Path, asked: dict, rules: FeedRules) -> dict:
    """Choose, group and split the decoded products; write the .npz and the manifest, each in one step."""
    _choose(db, rules)
    counts = _counts(db, rules)
    decided = meta(db, "decisions") or {"counts": {}, "examples": {}}
    counts["examples"] |= decided["examples"]
    lost = _write_dropped(db, out, [feed["file"] for feed in asked["source"]["feeds"]], rules)
    try:
        manifest = _write_dataset(db, out, asked, rules, counts, decided)
    except ValueError as error:
        if lost is None:
            raise
        lost.replace(failed := _failed_list(out))
        raise ValueError(f"{error}; every dropped product is listed in {failed}") from None
    if lost is None:
        dropped_list(out).unlink(missing_ok=True)  # of an earlier import
    else:
        lost.replace(dropped_list(out))
    _failed_list(out).unlink(missing_ok=True)  # of an earlier try
    return manifest


def _write_dataset(
    db: sqlite3.Connection, out: Path, asked: dict, rules: FeedRules, counts: dict, decided: dict
) -> dict:
    if not counts["kept"]:
        refused = [f"file refused: {name}: {reason}" for name, reason in counts["files_refused"].items()]
        raise ValueError(
            f"import_feed: none of {counts['read']} products is left; {'; '.join(dropped_in_words(counts) + refused)}"
        )
    columns = [("label", np.int64), ("image", np.int64), ("stem", np.int64)]
    chosen = np.fromiter(db.execute("SELECT label, image, stem FROM chosen ORDER BY place"), columns)
    names, labels = _class_names(db, chosen["label"])
    groups = _groups(db, chosen["image"], chosen["stem"], rules)
    alone = np.arange(len(labels))
    test = split_by_group(labels, groups if rules.split == "group" else alone, rules.test_share, rules.seed)

    per_class = np.stack([np.bincount(labels[part], minlength=len(names)) for part in (~test, test)], axis=1)
    _check_loadable(per_class, counts, rules)
    partial = out.with_suffix(".partial")
    _write_npz(db, partial, labels, test, names, rules.size)
    manifest = {
        **asked,
        "counts": counts,
        "decisions": decided["counts"],
        "classes": {name: {"train": n[0], "test": n[1]} for name, n in zip(names, per_class.tolist(), strict=True)},
        "split": {
            "train": int((~test).sum()),
            "test": int(test.sum()),
            "groups": int(groups.max()) + 1,
            "products_in_shared_groups": int((np.bincount(groups)[groups] > 1).sum()),
            "largest_group": int(np.bincount(groups).max()),
            "test_with_near_duplicate_in_train": int(np.isin(groups[test], groups[~test]).sum()),
        },
        "npz_sha256": sha256_of(partial),
    }
    listing = out.with_suffix(".manifest.partial")
    with listing.open("w", encoding="utf-8") as file:
        # The list of images may be long: it is written one by one behind the rest, one line each.
        file.write(json.dumps(manifest, indent=1)[:-2] + ',\n "images": {')
        rows = db.execute("SELECT path, hex(sha256) FROM image JOIN listed USING (k) ORDER BY number")
        for number, (path, sha) in enumerate(rows):
            file.write(f"{',' if number else ''}\n  {json.dumps(path)}: {json.dumps(sha.lower())}")
        file.write("\n }\n}\n")
    partial.replace(out)
    listing.replace(manifest_path(out))
    return manifest


def _write_dropped(db: sqlite3.Connection, out: Path, files: Sequence[str], rules: FeedRules) -> Path | None:
    """The list of dropped products, in the order of the feed, as a file to be renamed; None where none was dropped."""
    rows = db.execute(
        "SELECT file, entry, id, image, step, reason FROM unused UNION ALL "
        "SELECT file, entry, id, path, CASE why WHEN 'small' THEN 'subcategory' ELSE 'image' END, why FROM left_over "
        "WHERE why <> 'not drawn' ORDER BY file, entry"
    )
    first = rows.fetchone()
    if first is None:
        return None
    partial = out.with_suffix(".dropped.partial")
    with partial.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(DROPPED_COLUMNS)
        for number, entry, id_, image, step, why in itertools.chain([first], rows):
            reason = _too_few(rules) if why == "small" else why
            writer.writerow((as_text(files[number]), entry, as_text(id_), as_text(image), step, reason))
    return partial


def _too_few(rules: FeedRules) -> str:
    return f"fewer than {rules.min_images} usable images"


def _check_loadable(per_class: np.ndarray, counts: Mapping, rules: FeedRules) -> None:
    """Raises ValueError when nothing could load the dataset; per_class: (C, 2) training and test products."""
    train, test = per_class.sum(axis=0).tolist()
    kept = f"{train + test} products are left"
    if len(per_class) < 2:
        raise ValueError(
            f"import_feed: {kept}, all in one subcategory, and training needs two; lower rules.min_images "
            f"({rules.min_images}) or check which column is the label (rules.columns); dropped: {counts['dropped']}"
        )
    if not train or not test:
        enough = int(0.5 / rules.test_share) + 1  # see `split_by_group`
        raise ValueError(
            f"import_feed: {kept}, {test} of them to test and {train} to train, where at least one of each is needed; "
            f"{'lower' if test else 'raise'} rules.test_share ({rules.test_share}: a subcategory of {enough} gives one "
            f"to test, if its variants allow), or import more products (the largest has {per_class.sum(axis=1).max()}; "
            f"rules.min_images is {rules.min_images}); dropped: {counts['dropped']}"
        )


def _choose(db: sqlite3.Connection, rules: FeedRules) -> None:
    """The table ``chosen``: products in the order of the draw, of labels with enough of them."""
    db.execute("CREATE TEMP TABLE enough(label INTEGER PRIMARY KEY)")
    db.execute(
        "INSERT INTO enough SELECT p.label FROM product p JOIN image i ON i.k = p.image WHERE i.reason = '' "
        "GROUP BY p.label HAVING COUNT(*) >= ?",
        [rules.min_images],
    )
    db.execute("CREATE TEMP TABLE chosen(place INTEGER PRIMARY KEY, id TEXT, label INT, image INT, stem INT, draw INT)")
    db.execute(
        f"INSERT INTO chosen(id, label, image, stem, draw) SELECT id, label, image, stem, draw FROM ({RANKED}) "
        "WHERE reason = '' AND label IN (SELECT label FROM enough) AND (:n < 0 OR place <= :n) ORDER BY draw, id",
        {"n": rules.per_class or -1},
    )
    db.execute("CREATE TEMP TABLE listed(k INTEGER PRIMARY KEY, number INT)")  # their images, as the manifest has them
    db.execute(
        "INSERT INTO listed SELECT k, ROW_NUMBER() OVER (ORDER BY path COLLATE BINARY) - 1 FROM image "
        "WHERE k IN (SELECT image FROM chosen)"
    )


def _counts(db: sqlite3.Connection, rules: FeedRules) -> dict:
    """Products read, dropped by step and reason, and kept: read = dropped + kept."""
    (read,) = db.execute("SELECT TOTAL(value) FROM meta WHERE key LIKE 'scanned %'").fetchone()
    dropped: dict[str, dict[str, int]] = {}
    examples: dict[str, list[str]] = {}
    refused, damaged = {}, {}
    for step, reason, count, named in db.execute("SELECT * FROM dropped ORDER BY rowid"):
        if step == "file":
            refused[named] = reason
        elif step == "xml":
            damaged[named] = {"errors": count, "first": reason}
        else:
            reasons = dropped.setdefault(step, {})
            reasons[reason] = reasons.get(reason, 0) + count
            shown = examples.setdefault(reason, [])
            shown += json.loads(named)[: EXAMPLES - len(shown)]
    # A label that has all it draws looks no further: its products behind the last drawn one are not drawn, whatever
    # is known about their images. So the counts do not depend on how far the decoding went ahead.
    db.execute("CREATE TEMP TABLE ending(label INTEGER PRIMARY KEY, draw INT)")
    if rules.per_class:
        db.execute(
            "INSERT INTO ending SELECT label, MAX(draw) FROM chosen GROUP BY label HAVING COUNT(*) = ?",
            [rules.per_class],
        )
    db.execute(
        "CREATE TEMP VIEW left_over AS SELECT p.file, p.entry, p.id, i.path, p.draw, CASE WHEN p.draw > e.draw THEN "
        "'not drawn' WHEN i.reason <> '' THEN i.reason ELSE 'small' END AS why "
        "FROM product p JOIN image i ON i.k = p.image LEFT JOIN ending e ON e.label = p.label "
        "WHERE p.draw > e.draw OR i.reason <> '' OR p.label NOT IN (SELECT label FROM enough)"
    )
    for why, count in db.execute("SELECT why, COUNT(*) FROM left_over GROUP BY why ORDER BY why").fetchall():
        step = {"not drawn": "draw", "small": "subcategory"}.get(why, "image")
        reason = _too_few(rules) if why == "small" else why
        dropped.setdefault(step, {})[reason] = count
        if step == "image":
            some = db.execute(f"SELECT id, path FROM left_over WHERE why = ? ORDER BY draw LIMIT {EXAMPLES}", [why])
            examples[reason] = [f"{printable(id_)}: {printable(image)}" for id_, image in some]
    usable = (
        "SELECT l.name, COUNT(CASE WHEN i.reason = '' THEN 1 END) FROM label l JOIN product p ON p.label = l.k "
        "JOIN image i ON i.k = p.image WHERE l.k NOT IN (SELECT label FROM enough) GROUP BY l.k ORDER BY 2 DESC, 1"
    )
    small = [list(row) for row in db.execute(usable)]
    if small:
        examples[_too_few(rules)] = ["{} ({} usable)".format(*small[0])]
    cases: dict[str, list[str]] = {}
    for (name,) in db.execute("SELECT DISTINCT name FROM label WHERE k IN (SELECT label FROM chosen) ORDER BY name"):
        cases.setdefault(name.casefold(), []).append(name)
    shared = db.execute(
        "SELECT MIN(i.path), COUNT(*), COUNT(DISTINCT c.label) AS labels FROM chosen c JOIN image i ON i.k = c.image "
        "GROUP BY i.sha256 HAVING labels > ? ORDER BY labels DESC, 1 LIMIT ?",
        [SHARED_BY, EXAMPLES],
    )
    notes = Counter()
    used = "SELECT notes, COUNT(*) FROM image WHERE k IN (SELECT image FROM chosen) AND notes <> '[]' GROUP BY notes"
    for listed, count in db.execute(used):
        notes.update(dict.fromkeys(json.loads(listed), count))
    return {
        "read": int(read),
        "dropped": dropped,
        "kept": db.execute("SELECT COUNT(*) FROM chosen").fetchone()[0],
        "examples": examples,
        "notes": dict(sorted(notes.items())),
        "small_subcategories": {"count": len(small), "named": small[:MOST_NAMED]} if small else {},
        "shared_pictures": [
            {"image": printable(image), "products": products, "subcategories": labels}
            for image, products, labels in shared
        ],
        "label_lists": _lists(db) if rules.categories == "whole" else [],
        "not_left_out": _not_left_out(db, rules) if "label left out" not in dropped.get("product", {}) else {},
        "differ_in_case": [names for names in cases.values() if len(names) > 1][:MOST_NAMED],
        "files_refused": refused,
        "xml_damage": damaged,
    }


def _lists(db: sqlite3.Connection) -> list[str]:
    """Some labels that seem to be lists of categories: all that they list is in other labels as well."""
    listed = {name: categories_of(name) for (name,) in db.execute("SELECT DISTINCT name FROM label ORDER BY name")}
    uses = Counter(itertools.chain.from_iterable(map(set, listed.values())))
    found = [name for name, parts in listed.items() if len(parts) > 1 and all(uses[part] > 1 for part in parts)]
    return [printable(name) for name in found[:EXAMPLES]] if len(found) > 1 else []


def _not_left_out(db: sqlite3.Connection, rules: FeedRules) -> dict[str, list[str]]:
    """The labels that no product has, though the rules leave them out, and those that are there and alike."""
    there = [name for (name,) in db.execute("SELECT DISTINCT name FROM label ORDER BY name LIMIT 10000")]
    wanted = map(one_spelling, rules.drop_labels)
    return {each: [*map(printable, difflib.get_close_matches(each, there, 3, 0))] for each in wanted}


def _class_names(db: sqlite3.Connection, label: np.ndarray) -> tuple[list[str], np.ndarray]:
    """(names sorted, index into them of each product); two subcategories of one name get their key beside it."""
    keys, index = np.unique(label, return_inverse=True)
    known = {k: (key, name) for k, key, name in db.execute("SELECT k, key, name FROM label")}
    pairs = [known[k] for k in keys.tolist()]
    uses = Counter(name for _, name in pairs)
    names = [name if uses[name] == 1 else told_apart(name, key) for key, name in pairs]
    order = np.argsort(names, kind="stable")
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return [names[k] for k in order], rank[index]


def _groups(db: sqlite3.Connection, image: np.ndarray, stem: np.ndarray, rules: FeedRules) -> np.ndarray:
    keys, image = np.unique(image, return_inverse=True)
    column = "sha256" if rules.near_distance is None else "hash"  # equal bytes have equal hashes, too
    rows = db.execute(f"SELECT {column} FROM image WHERE k IN (SELECT image FROM chosen) ORDER BY k")
    what = np.frombuffer(b"".join(row[0] for row in rows), np.uint8).reshape(len(keys), -1)
    what, same = np.unique(what, axis=0, return_inverse=True)
    return group_products(same[image], stem, near_groups(what, rules.near_distance or 0), rules.title_group)


def _write_npz(
    db: sqlite3.Connection, path: Path, labels: np.ndarray, test: np.ndarray, names: list[str], size: int
) -> None:
    """The arrays as ``numpy.savez`` lays them out, streamed: the images never lie in memory all at once."""
    db.execute("CREATE TEMP TABLE part(test INT, place INT, PRIMARY KEY(test, place)) WITHOUT ROWID")
    db.executemany("INSERT INTO part VALUES(?, ?)", zip(test.tolist(), range(1, len(test) + 1), strict=True))
    texts = {}  # ids, and titles where the feed has any: where they are, and how many characters they take
    for name, column, join in (("ids", "chosen.id", ""), ("titles", "product.title", "JOIN product USING (id)")):
        (longest,) = db.execute(f"SELECT MAX(LENGTH({column})) FROM chosen {join}").fetchone()
        if longest:
            texts[name] = column, join, np.dtype(f"<U{longest}")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def member(name: str, dtype: np.dtype, shape: tuple[int, ...], blocks: Iterable[bytes]) -> None:
            # A ZipInfo without a date: the same import gives the same bytes.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for block in blocks:
                    file.write(block)

        n = db.execute("SELECT COUNT(*) FROM listed").fetchone()[0]
        pictures = db.execute("SELECT pixels FROM listed JOIN pixels USING (k) ORDER BY number")
        member("images", np.dtype(np.uint8), (n, size, size, 3), (row[0] for row in pictures))
        for name, flag in (("train", False), ("test", True)):
            n = int((test == flag).sum())
            rows = "SELECT {} FROM part JOIN chosen USING (place) {} WHERE test = ? ORDER BY place"
            member(f"{name}_labels", np.dtype("<i8"), (n,), [labels[test == flag].astype("<i8").tobytes()])
            numbers = db.execute(rows.format("number", "JOIN listed ON listed.k = chosen.image"), [flag])
            member(f"{name}_image", np.dtype("<i8"), (n,), (struct.pack("<q", *row) for row in numbers))
            for what, (column, join, text) in texts.items():
                found = db.execute(rows.format(column, join), [flag])
                blocks = iter(lambda found=found: [row[0] for row in found.fetchmany(10_000)], [])
                member(f"{name}_{what}", text, (n,), (np.array(block, text).tobytes() for block in blocks))
        classes = np.array(names)
        member("class_names", classes.dtype, classes.shape, [classes.tobytes()])


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
