"""Product feeds to datasets.

    manifest = import_feed(["feed/"], "shop.npz", images="feed/", rules=FeedRules(min_images=1000, per_class=1000))
    print(summary(manifest))

A feed is the XML of the paper's shop (one file per main category, ``<product>`` elements) or CSV; a thumbnail is the
image, its subcategory the label (arXiv 2105.13244, Sections 3 and 5.3). The result is one ``.npz`` that
`elrkit.data.load` reads, and a manifest that says what was dropped, why, and how to rebuild the file.

Nothing in a feed is trusted: a product that cannot be used is counted under a named reason and never stops an
import. Products and images wait in an SQLite file beside the result (``<name>.work``), written as the work goes, so
memory stays bounded whatever the size of the feed, and an import that was killed goes on where it stopped and ends
with the same bytes. Only the addresses of hosts that the caller names are ever fetched.
"""

import contextlib
import hashlib
import itertools
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import imagehash
import numpy as np
import PIL
from lxml import etree

from elrkit.catalogue.feed_files import feed_files
from elrkit.catalogue.feeds import READERS
from elrkit.catalogue.fetch import Fetcher, download_name, may_be_fetched
from elrkit.catalogue.images import read_file, read_thumbnail
from elrkit.catalogue.rules import FeedRules, Rejected, printable
from elrkit.catalogue.work import SCHEMA, apply_decisions, damage_named, decode_needed, open_work, scan
from elrkit.catalogue.written import SHARED_BY, dropped_in_words, dropped_list, manifest_path, sha256_of, write

SHOWN = 10  # subcategories that the summary names


def import_feed(
    feeds: Sequence[str | Path],
    out: str | Path,
    *,
    images: str | Path = ".",
    rules: FeedRules = FeedRules(),  # noqa: B008  (frozen)
    decisions: str | Path | Sequence[str | Path] = (),
    download_from: Sequence[str] = (),
    licence: str = "not stated",
    workers: int = 2,
) -> dict:
    """Read a shop's feed and write the dataset ``out`` (.npz), ``<out>.manifest.json`` and ``<out>.dropped.csv``.

    The last lists every product that was dropped: its file and place in it (from 1), id, image, the step and the reason
    (but not those that `per_class` did not draw). An import that fails for want of products leaves it as
    ``<out>.failed.csv``, and what an earlier one has written as it was.

    Args:
        feeds: XML and CSV files, or folders of them (read in the order of their names).
        out: the ``.npz`` to write: images (m, size, size, 3) uint8 in the order of the manifest's list, each once
            however many products share it; train_image and test_image (n,) int64, which of them is each one's;
            train_labels and test_labels (n,) int64, class_names (C,), train_ids, test_ids, train_titles and
            test_titles (n,) (the first 80 characters); rows in an order drawn with the seed.
        images: folder below which the feed's image paths lie; nothing outside it is ever opened.
        rules: what to keep; see ``FeedRules``.
        decisions: one CSV or several, of one review after the other, as the audit page saves them and
            ``read_decisions`` reads them. A product that is filed under the label that was decided on, or was before an
            earlier decision, gets its suggested label by ``confirm`` and that label by ``keep``; for ``unsure`` see the
            rules.
        download_from: hosts (``name`` or ``name:port``) whose image addresses may be fetched; without them none is.
        licence: terms of the feed, for the manifest.
        workers: processes that decode images where there are more than 10,000 (a script that asks for more than one
            needs the usual ``if __name__ == "__main__"``).

    Returns:
        The manifest, without its list of image hashes.

    Raises:
        FileNotFoundError: a feed, the images folder or the decisions file does not exist.
        ValueError: no product is left, or too few for a training and a test set of two subcategories; a setting does
            not fit the feed; a decisions file is not sound.
        ConnectionError: a host failed ``rules.max_failures`` times in a row; the same call resumes, and reads again
            the images that could not be read before.
        OSError: another import is writing this file, or what one left is damaged.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise ValueError(f"import_feed: the result {out} must end in .npz")
    root = Path(images)
    if not root.is_dir():
        raise FileNotFoundError(
            f"import_feed: images folder {root} does not exist; name the folder the feed's paths start from"
        )
    files = feed_files(feeds, READERS)
    decided = [Path(path) for path in ([decisions] if isinstance(decisions, str | Path) else decisions)]
    for path in decided:
        if not path.is_file():
            raise FileNotFoundError(f"import_feed: decisions file {path} does not exist; name the CSV that was saved")
    # A host, or the address of one.
    hosts = frozenset((urlsplit(host).netloc if "://" in host else host).lower() for host in download_from)
    source = {
        "feeds": [{"file": name, "bytes": path.stat().st_size, "sha256": sha256_of(path)} for name, path in files],
        "decisions": [sha256_of(path) for path in decided],
        "download_from": sorted(hosts),
        "licence": licence,
    }
    made_with = {"pillow": PIL.__version__, "imagehash": imagehash.__version__, "lxml": etree.__version__}
    asked = {"source": source, "rules": rules.model_dump(mode="json"), "made_with": made_with}
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.with_suffix(".work")
    unfinished = work / "import.sqlite"
    key = json.dumps([asked, str(root.resolve()), SCHEMA], sort_keys=True)
    with damage_named(unfinished), closing(open_work(unfinished, key)) as db:
        for number, (name, path) in enumerate(files):
            scan(db, number, name, path, rules)
        apply_decisions(db, decided, rules)
        decode_needed(db, root.resolve(), Fetcher(_downloads(out), hosts, rules), rules, workers)
        manifest = write(db, out, asked, rules)
    unfinished.unlink()
    work.rmdir()
    return manifest


def rebuild_feed(
    manifest: str | Path,
    feeds: Sequence[str | Path],
    out: str | Path,
    *,
    images: str | Path = ".",
    decisions: str | Path | Sequence[str | Path] = (),
    workers: int = 2,
) -> dict:
    """Make a dataset again from its manifest, the feed and the images, and check that it is the same.

    `out` is written only if it is; an `out` that was there stays otherwise.

    Raises:
        ValueError: the feed, the decisions, an image, or the resulting file differs from what the manifest lists.
    """
    out = Path(out)
    old = json.loads(Path(manifest).read_text(encoding="utf-8"))
    for (name, path), wanted in itertools.zip_longest(
        feed_files(feeds, READERS), old["source"]["feeds"], fillvalue=(None, None)
    ):
        if name is None or not isinstance(wanted, dict) or sha256_of(path) != wanted["sha256"]:
            raise ValueError(f"rebuild_feed: {name or wanted['file']} is not the feed that {manifest} was made from")
    decided = [decisions] if isinstance(decisions, str | Path) else decisions
    if [sha256_of(Path(path)) for path in decided] != old["source"]["decisions"]:
        raise ValueError(f"rebuild_feed: these are not the decisions that {manifest} was made with")
    rebuilt = out.with_name(f"{out.stem}.rebuilt.npz")
    new = import_feed(
        feeds,
        rebuilt,
        images=images,
        rules=FeedRules(**old["rules"]),
        decisions=decisions,
        download_from=old["source"]["download_from"],
        licence=old["source"]["licence"],
        workers=workers,
    )
    hashes = json.loads(manifest_path(rebuilt).read_text(encoding="utf-8"))["images"]
    made = {of(rebuilt): of(out) for of in (Path, manifest_path, dropped_list)}
    try:
        if hashes != old["images"]:
            differing = sum(hashes.get(path) != sha for path, sha in old["images"].items())
            raise ValueError(
                f"rebuild_feed: {differing} of {len(old['images'])} images differ from those {manifest} lists"
            )
        if new["npz_sha256"] != old["npz_sha256"]:
            raise ValueError(
                f"rebuild_feed: the file differs from {manifest}'s, which was made with {old['made_with']}"
            )
        for path, final in made.items():
            if path.exists():
                path.replace(final)
    finally:
        for path in made:
            path.unlink(missing_ok=True)
    return new


def originals(
    dataset: str | Path, ids: Iterable[str], images: str | Path = ".", side: int = 160
) -> dict[str, np.ndarray]:
    """Products' pictures as the shop has them, for people to look at, by id: nothing cut off, (side, side, 3) uint8.

    Args:
        dataset: what `import_feed` wrote, with its manifest beside it; or a folder of class folders, whose ids are the
            paths of its files.
        ids: of its products. Left out are those whose picture is not there any more, or another one by now.
        images: the folder that was given to the import.

    Raises:
        ValueError: the dataset does not say which images it was made of.
        FileNotFoundError: there is no such folder of images.
    """
    path, root, rules = Path(dataset), Path(images), {}
    if path.is_dir():
        where = {id_: (path.resolve(), id_, None) for id_ in ids}
    else:
        if not root.is_dir():
            raise FileNotFoundError(f"images folder {root} does not exist; name the one that was given to import-feed")
        wanted = set(ids)
        try:
            manifest = json.loads(manifest_path(path).read_text(encoding="utf-8"))
            if manifest["npz_sha256"] != sha256_of(path):
                raise ValueError("the manifest is of another file")
            with np.load(path) as arrays:
                rows = [arrays[f"{part}_{what}"] for what in ("ids", "image") for part in ("train", "test")]
            places = zip(np.concatenate(rows[:2]).tolist(), np.concatenate(rows[2:]).tolist(), strict=True)
            listed, rules = list(manifest["images"].items()), manifest["rules"]
            image_of = {id_: listed[place] for id_, place in places if id_ in wanted}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile):
            raise ValueError(
                f"{path}: does not say which images it was made of, or lacks its own {manifest_path(path).name} "
                "beside it; import the feed again"
            ) from None
        downloads, hosts, root = _downloads(path).resolve(), manifest["source"]["download_from"], root.resolve()
        where = {
            id_: (downloads, download_name(name), sha) if may_be_fetched(name, hosts) else (root, name, sha)
            for id_, (name, sha) in image_of.items()
        }
    full, found = FeedRules(**rules | {"size": side, "fit": "pad"}), {}
    for id_, (folder, name, sha) in where.items():
        with contextlib.suppress(Rejected):
            data, _ = read_file(folder, name, full.max_bytes)
            if sha in (None, hashlib.sha256(data).hexdigest()):
                found[id_] = read_thumbnail(data, full).pixels
    return found


def _downloads(out: Path) -> Path:
    """Where fetched images are kept, for further imports into the same folder as well."""
    return out.parent / "elrkit-downloads"


def summary(manifest: Mapping) -> str:
    """What an import did, as plain lines for a terminal."""
    counts, split = manifest["counts"], manifest["split"]
    lines = [f"{counts['read']} products read from {len(manifest['source']['feeds'])} files"]
    lines += [f"  {line}" for line in dropped_in_words(counts)]
    if small := counts["small_subcategories"]:
        named = [f"{printable(name)} ({count})" for name, count in small["named"][:SHOWN]]
        more = f", and {small['count'] - SHOWN} more" if small["count"] > SHOWN else ""
        lines.append(f"  subcategories dropped, with their usable images: {', '.join(named)}{more}")
    if lists := counts["label_lists"]:
        lines.append(
            f"  note: the label column seems to hold lists of categories, such as {lists[0]!r}; --rules.categories "
            "deepest, or first, takes one of each"
        )
    lines += [
        f"  note: no product has the label {printable(label)} that is left out; there are {', '.join(there)}"
        for label, there in counts["not_left_out"].items()
    ]
    lines += [
        "  note: subcategories that differ in case alone: "
        f"{', '.join(map(printable, names))}; --rules.merge-case makes them one"
        for names in counts["differ_in_case"]
    ]
    lines += [f"  note: {count} images {note}" for note, count in counts["notes"].items()]
    lines += [
        f"  note: {shared['products']} products of {shared['subcategories']} subcategories share the picture "
        f"{shared['image']}; if it is a placeholder, --rules.placeholder-labels {SHARED_BY} drops them"
        for shared in counts["shared_pictures"]
    ]
    lines += [
        f"  damaged: {name}: {found['errors']} XML errors, first at {found['first']}"
        for name, found in counts["xml_damage"].items()
    ]
    lines += [f"  file refused: {name}: {reason}" for name, reason in counts["files_refused"].items()]
    for what, count in manifest["decisions"].items():
        lines.append(f"  decisions: {count} {what}")
        lines += [f"    {example}" for example in counts["examples"].get(what, ())]
    lines.append(
        f"{counts['kept']} products kept in {len(manifest['classes'])} subcategories: "
        f"{split['train']} train, {split['test']} test, {split['groups']} groups (largest {split['largest_group']}), "
        f"{split['test_with_near_duplicate_in_train']} test products with a near-duplicate in training"
    )
    return "\n".join(lines)
