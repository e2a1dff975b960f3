"""The dataset that an import writes: products grouped and split; arrays, manifest, what was dropped and why.

Everything is written beside its place; the import puts it there in one step when all is whole.
"""

import difflib
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from elrkit.catalogue.decisions import write_csv
from elrkit.catalogue.draw import few_images, in_draw_order
from elrkit.catalogue.feed_files import DROPPED_COLUMNS
from elrkit.catalogue.groups import group_products, near_groups, split_by_group
from elrkit.catalogue.products import EXAMPLES, Feed, told_apart
from elrkit.catalogue.rules import FeedRules, categories_of, one_spelling, printable

MOST_NAMED = 1_000  # subcategories named in the manifest
SHARED_BY = 3  # subcategories; a picture that more of them share is told
BLOCK = 256  # images that are written at once

MENDS = {  # why products are dropped -> what mends it, where that is an option and not the product
    "wrong encoding": "--rules.encoding cp1252 or latin-1, if a CSV is in that; XML names it in its first line",
    "no image": "--rules.columns image NAME, if another column or tag has it",
    "image path leaves the images folder": "--images names the folder itself that links in it lead to",
    "image file missing": "--images names the folder that the feed's paths start from",
    "image on a host not allowed for download": "--download-from names its host, as HOST:PORT where it has a port",
}


def dropped_in_words(counts: Mapping) -> list[str]:
    """A line for each reason why products were dropped, and what may mend it; and for each file that was refused."""
    lines = []
    for step, reasons in counts["dropped"].items():
        for reason, count in reasons.items():
            example = f", such as {counts['examples'][reason][0]}" if counts["examples"].get(reason) else ""
            mend = f" ({MENDS[reason]}{example})" if reason in MENDS else ""
            lines.append(f"{step}: {count} dropped, {reason}{mend}")
    refused: dict[str, list[str]] = {}
    for name, reason in counts["files_refused"].items():
        refused.setdefault(reason, []).append(name)
    for reason, names in refused.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"file refused: {names[0]}{more}: {reason}")
    return lines


# ------------------------------------------------------------------------------------------------ counts


def count(feed: Feed, table: pd.DataFrame, images: pd.DataFrame, files: Sequence[str], rules: FeedRules) -> dict:
    """Products read, dropped by step and reason, and kept: read = dropped + kept; and what a person should look at.

    Args:
        table: of `elrkit.catalogue.draw.choose`.
        images: of `elrkit.catalogue.draw.decode_needed`.
        files: names of the feed's files.
    """
    chosen, names = in_draw_order(table), feed.labels["name"]
    dropped, examples = {}, {}
    for step in ("product", "decision", "image", "draw", "subcategory"):
        for why, left in table[table["step"] == step].groupby("why", sort=step != "product"):
            dropped.setdefault(step, {})[why] = len(left)
            if step == "image":
                some = left.sort_values(["draw", "id"])[:EXAMPLES].itertuples()
                examples[why] = [f"{printable(row.id)}: {printable(row.path)}" for row in some]
            elif step != "draw":
                some = left[:EXAMPLES].itertuples() if step == "product" else ()
                told = ((files[row.file], row.id or f"line {row.line}") for row in some)
                examples[why] = [f"{printable(file, 200)}: {printable(place)}" for file, place in told]
    small = _small(table, names)
    if small:
        examples[few_images(rules)] = ["{} ({} usable)".format(*small[0])]
    cases: dict[str, list[str]] = {}
    for name in sorted(set(names[chosen["label"]])):
        cases.setdefault(name.casefold(), []).append(name)
    notes = Counter(itertools.chain.from_iterable(images["notes"][chosen["path"].unique()]))
    there = sorted(set(names))
    return {
        "read": len(table),
        "dropped": dropped,
        "kept": len(chosen),
        "examples": examples,
        "notes": dict(sorted(notes.items())),
        "small_subcategories": {"count": len(small), "named": small[:MOST_NAMED]} if small else {},
        "shared_pictures": _shared(chosen, images),
        "label_lists": _lists(there) if rules.categories == "whole" else [],
        "not_left_out": _not_left_out(there, rules) if "label left out" not in dropped.get("product", {}) else {},
        "differ_in_case": [names for names in cases.values() if len(names) > 1][:MOST_NAMED],
        "files_refused": feed.refused,
        "xml_damage": feed.damaged,
    }


def _small(table: pd.DataFrame, names: pd.Series) -> list[list]:
    """[name, products with a usable image] of each subcategory of which none is kept, the largest first."""
    later = table[~table["step"].isin(["product", "decision"])]
    usable = (later["step"] == "subcategory").groupby(later["label"]).sum()
    small = usable.drop(index=later["label"][later["why"] == ""].unique())
    return sorted(([names[k], n] for k, n in small.items()), key=lambda each: (-each[1], each[0]))


def _shared(chosen: pd.DataFrame, images: pd.DataFrame) -> list[dict]:
    """Some pictures that products of many subcategories share, those of the most first."""
    found = (
        chosen.groupby(chosen["path"].map(images["sha256"]).rename("sha256"))
        .agg(image=("path", "min"), products=("id", "size"), subcategories=("label", "nunique"))
        .query(f"subcategories > {SHARED_BY}")
        .sort_values(["subcategories", "image"], ascending=[False, True])[:EXAMPLES]
    )
    return found.assign(image=found["image"].map(printable)).to_dict("records")


def _lists(names: list[str]) -> list[str]:
    """Some labels that seem to be lists of categories: all that they list is in other labels as well."""
    listed = {name: categories_of(name) for name in names}
    uses = Counter(itertools.chain.from_iterable(map(set, listed.values())))
    found = [name for name, parts in listed.items() if len(parts) > 1 and all(uses[part] > 1 for part in parts)]
    return [printable(name) for name in found[:EXAMPLES]] if len(found) > 1 else []


def _not_left_out(names: list[str], rules: FeedRules) -> dict[str, list[str]]:
    """The labels that no product has, though the rules leave them out, and those that are there and alike."""
    wanted = map(one_spelling, rules.drop_labels)
    return {each: [*map(printable, difflib.get_close_matches(each, names[:10_000], 3, 0))] for each in wanted}


# ------------------------------------------------------------------------------------------------ files


def write_dropped(path: Path, table: pd.DataFrame, files: Sequence[str]) -> None:
    """The list of dropped products, in the order of the feed; no file where none was dropped."""
    left = table[~table["step"].isin(["", "draw"])]
    if len(left):
        listed = left[["file", "entry", "id", "path", "step", "why"]].set_axis(DROPPED_COLUMNS, axis=1)
        write_csv(listed.assign(file=listed["file"].map(files.__getitem__)), path)


def write_dataset(
    folder: Path, pixels: Path, labels: pd.DataFrame, table: pd.DataFrame, images: pd.DataFrame, manifest: dict
) -> dict:
    """Group and split the chosen products; write arrays and manifest.json into the folder; returns the manifest.

    Args:
        folder: what is there of the dataset.
        pixels: the file of `elrkit.catalogue.draw.decode_needed`.
        manifest: what is known by now: source, rules, made_with, counts, decisions.

    Raises ValueError: nothing could load the dataset.
    """
    rules, counts, chosen = FeedRules(**manifest["rules"]), manifest["counts"], in_draw_order(table)
    if not len(chosen):
        lost = "; ".join(dropped_in_words(counts)) or "the feed's files hold a header at most"
        raise ValueError(f"import_feed: none of {counts['read']} products is left; {lost}")
    names, label = _class_names(labels, chosen["label"])
    used = images.loc[sorted(chosen["path"].unique())]
    image = used.index.get_indexer(chosen["path"])
    groups = _groups(used, image, chosen["stem"].to_numpy(), rules)
    alone = np.arange(len(label))
    test = split_by_group(label, groups if rules.split == "group" else alone, rules.test_share, rules.seed)
    per_class = np.stack([np.bincount(label[part], minlength=len(names)) for part in (~test, test)], axis=1)
    _check_loadable(per_class, counts, rules)
    _write_pictures(folder / "pictures.npy", pixels, used["row"].to_numpy(), rules.size)
    for name, values in _arrays(chosen, label, image, test, names, used, _filed(labels, chosen)):
        np.save(folder / f"{name}.npy", values)
    sizes = np.bincount(groups)
    manifest = manifest | {
        "classes": {name: {"train": n[0], "test": n[1]} for name, n in zip(names, per_class.tolist(), strict=True)},
        "split": {
            "train": int((~test).sum()),
            "test": int(test.sum()),
            "groups": len(sizes),
            "products_in_shared_groups": int(sizes[sizes > 1].sum()),
            "largest_group": int(sizes.max()),
            "test_with_near_duplicate_in_train": int(np.isin(groups[test], groups[~test]).sum()),
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def _groups(used: pd.DataFrame, image: np.ndarray, stem: np.ndarray, rules: FeedRules) -> np.ndarray:
    """(n,) the group of each product; image: place of its own among those used; stem: of its title."""
    what = used["sha256" if rules.near_distance is None else "hash"]  # equal bytes have equal hashes, too
    what = np.frombuffer(b"".join(what), np.uint8).reshape(len(used), -1)
    what, same = np.unique(what, axis=0, return_inverse=True)
    return group_products(same[image], stem, near_groups(what, rules.near_distance or 0), rules.title_group)


def _class_names(labels: pd.DataFrame, label: pd.Series) -> tuple[list[str], np.ndarray]:
    """(names sorted, index into them of each product); two subcategories of one name get their key beside it."""
    used = labels.loc[sorted(label.unique())]
    alone = ~used["name"].duplicated(keep=False)
    told = [told_apart(name, key) for key, name in used.itertuples(index=False)]
    names = used["name"].where(alone, pd.Series(told, used.index, dtype=object)).sort_values(kind="stable")
    return names.tolist(), names.index.get_indexer(label)


def _filed(labels: pd.DataFrame, chosen: pd.DataFrame) -> np.ndarray | None:
    """The name of the subcategory that the shop filed each product under; None where that is still its label."""
    if (chosen["filed"] == chosen["label"]).all():
        return None
    names, index = _class_names(labels, pd.concat([chosen["filed"], chosen["label"]]))
    return np.array(names)[index[: len(chosen)]]


def _check_loadable(per_class: np.ndarray, counts: Mapping, rules: FeedRules) -> None:
    """Raises ValueError when nothing could load the dataset; per_class: (C, 2) training and test products."""
    train, test = per_class.sum(axis=0).tolist()
    if len(per_class) < 2:
        told = "all in one subcategory, and training needs two"
        lower = f"lower rules.min_images ({rules.min_images}) or " if rules.min_images > 1 else ""
        mend = f"{lower}name the column of the label (rules.columns)"
    elif not train or not test:
        told = f"{test} of them to test and {train} to train, where at least one of each is needed"
        enough = f"a subcategory of {int(0.5 / rules.test_share) + 1} gives one to test, if its variants allow"
        mend = f"{'lower' if test else 'raise'} rules.test_share ({rules.test_share}: {enough})"
    else:
        return
    kept = f"{train + test} products are left, {told}"
    raise ValueError(f"import_feed: {kept}; {mend}, or import more products; dropped: {counts['dropped']}")


def _arrays(
    chosen: pd.DataFrame, label: np.ndarray, image: np.ndarray, test: np.ndarray, names: list[str], used: pd.DataFrame,
    filed: np.ndarray | None,
) -> Iterator[tuple[str, np.ndarray]]:  # fmt: skip
    """(name, array) of what the dataset has beside its pictures; titles where the feed has any, and what the shop filed
    where decisions have changed it."""
    for part, rows in (("train", ~test), ("test", test)):
        yield f"{part}_labels", label[rows]
        yield f"{part}_picture", image[rows]
        for column in ("id", "title"):
            if longest := chosen[column].str.len().max():
                yield f"{part}_{column}s", chosen[column][rows].to_numpy(f"<U{longest}")
        if filed is not None:
            yield f"{part}_filed", filed[rows]
    yield "class_names", np.array(names)
    yield "picture_paths", used.index.to_numpy(f"<U{used.index.str.len().max()}")
    yield "picture_sha256", np.frombuffer(b"".join(used["sha256"]), np.uint8).reshape(len(used), -1)


def _write_pictures(path: Path, pixels: Path, rows: np.ndarray, size: int) -> None:
    """These rows of the pixels as an array; they never are in memory all at once."""
    shape = (len(rows), size, size, 3)
    with path.open("wb") as file:  # not mapped: a full disk is an error then, and not the end of the process
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        decoded = np.memmap(pixels, np.uint8, "r").reshape(-1, *shape[1:])
        for start in range(0, len(rows), BLOCK):
            file.write(decoded[rows[start : start + BLOCK]])


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
