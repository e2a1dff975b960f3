"""The catalogue's commands: a feed read, its labels listed for review, feeds with known faults made.

What reads feeds and pictures or trains is imported by the command that needs it.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from elrkit.catalogue.rules import FeedRules
from elrkit.config import BUILT_IN_TRAIN_SIZES, ELR_CIFAR10, ELR_CIFAR100, ConfigError, RunConfig

if TYPE_CHECKING:
    import pandas as pd

    from elrkit.catalogue.review import Written
    from elrkit.data import Dataset
    from elrkit.scale import Cluster

Positional = tyro.conf.Positional
DEFAULT_FEATURES = "efficientnet-lite0"


def audit(
    dataset: Positional[str],
    out: Path = Path("audit"),
    top: int = 10_000,
    epochs: int = 30,
    decisions: tuple[Path, ...] = (),
    images: str | None = None,
    features: str = DEFAULT_FEATURES,
    ray: str | None = None,
) -> int:
    """Write the list of labels to look at: labels.csv, and review.html to go through with the keyboard.

    A pretrained network looks at the photos, and ELR is trained on what it sees: minutes for 10,000 products, what was
    seen is kept. The list then tells how many labels are probably wrong, and `model.safetensors` in the folder is what
    `check` judges new products by.

    Args:
        dataset: what import-feed wrote, a folder of class folders, an .npz, digits, cifar10 or cifar100
        out: folder to write
        top: products in the page, the most suspicious first
        epochs: of the small net, with --features none
        decisions: CSV files saved by the page. Products that were confirmed or kept, and are filed as was decided, are
            not listed again
        images: the folder that was given to import-feed: the page then shows the products' pictures as the shop has
            them, and so does the pretrained network
        features: the pretrained network: efficientnet-lite0; a name of torchvision.models and a file of its weights,
            such as resnet50:resnet50.pth; an .npy of your own, a row for each training and then each test image; or
            none, to train a small net on the dataset's pictures instead
        ray: address of a Ray cluster that looks at the photos, host:port or auto; `here` starts one on this machine
            (needs elrkit[scale])
    """
    from elrkit import data, progress
    from elrkit.catalogue import review
    from elrkit.catalogue.decisions import in_order
    from elrkit.commands import train_all

    found = _dataset_of(dataset)
    decided = in_order(decisions, review.listed_ids(found)) if decisions else None
    review.check_listable(found, top)  # now, and not after minutes of training
    review.check_out(out)
    originals = _originals(found, images)
    if features == "none":
        config = _audit_config(dataset, found, epochs)
        train_all([config], announced=True, jobs=1)
        if (outcome := _outcome(config, found)) is None:
            print("error: the training did not finish, see above; the same command goes on", file=sys.stderr)
            return 1
        with progress.counted("photos of the page") as on_progress:
            written = review.audit_outcome(outcome, found, out, top, decided, originals, on_progress)
    else:
        written = _audit_by_features(found, images, features, out, top, decided, originals, _cluster(ray))
    if decisions:
        print(f"{written.left_out} products left out, which were confirmed or kept and are filed as was decided")
        if written.unfit:
            print(
                f"warning: {written.unfit} decisions fit nothing: their ids are not the dataset's, or they are neither "
                "confirm, keep nor unsure"
            )
    among = f" ({written.of_test} of test products)" if written.of_test else ""
    print(f"{len(written.listed)} labels to look at{among}, the most suspicious first: {written.table}")
    if written.page is None:
        return 0
    if originals is None and found.train_ids:
        side = found.train_pictures.images.shape[1]
        print(f"its pictures are {side} pixels wide; --images FOLDER shows the feed's own")
    shown = f", which has the first {top} of them" if len(written.listed) > top else ""
    imported = found.train_ids is not None and data.is_import(data.own_path(found.name))
    applied = "import-feed --decisions applies" if imported else "the file that it saves lists"
    print(f"open {written.page} in a browser{shown}; {applied} what you decide there")
    return 0


def _audit_by_features(
    dataset: "Dataset",
    images: str | None,
    features: str,
    out: Path,
    top: int,
    decided: "pd.DataFrame | None",
    originals: Callable | None,
    cluster: "Cluster | None",
) -> "Written":
    from elrkit import progress, records
    from elrkit.catalogue import audit, checking, head, review
    from elrkit.catalogue.features import backbone

    if features.endswith(".npy"):
        rows, name = audit.given_rows(Path(features), dataset), features
    else:
        eye = backbone(features)
        with progress.counted("photos") as on_progress:
            rows = audit.photo_rows(dataset, images, eye, records.state_root() / "features", on_progress, cluster)
        name = eye.name
    labels = audit.labels_of(dataset)
    with progress.counted("epochs") as on_progress:
        found = head.audit(
            rows, labels, dataset.class_names, name, on_progress=on_progress, filed=audit.filed_of(dataset)
        )
    n = len(labels)
    low, high = (round(n * share) for share in (found.wrong.low, found.wrong.high))
    print(
        f"about {round(n * found.wrong.mean):,} of {n:,} labels are wrong ({low:,} to {high:,}), or more where errors "
        "are hard to see"
    )
    listed = audit.to_look_at(found, dataset)
    typical = audit.typical(found, dataset)
    with progress.counted("photos of the page") as on_progress:
        written = review.write_table(listed, dataset, out, top, decided, originals, typical, on_progress)
    checking.save_model(found.model, out / "model.safetensors")
    return written


def check(
    model: Positional[Path],
    feeds: Positional[tuple[str, ...]],
    images: str = ".",
    out: Path = Path("checked.csv"),
    let_through: float = 0.95,
    features: str = DEFAULT_FEATURES,
    rules: FeedRules = FeedRules(),  # noqa: B008  (frozen)
) -> int:
    """Check a feed's new products against what an audit has learnt: fits, look, or unlike anything known.

    Args:
        model: model.safetensors of an audit
        feeds: XML and CSV files, or folders of them; paths, or addresses such as s3://shop/feed.xml
        images: folder below which the feed's image paths lie, or its address
        out: the CSV to write: a row for each product, with three categories that fit better where there is doubt
        let_through: share of the rightly filed products that pass
        features: the network of the audit
        rules: how to read the feed
    """
    from elrkit import progress, records
    from elrkit.catalogue import audit, checking, decisions
    from elrkit.catalogue.features import backbone

    if not out.parent.is_dir():
        raise ConfigError(f"out={out}: its folder is not there; make it first")
    known = checking.load_model(model)
    passing = checking.passing(known, let_through)
    with progress.counted("photos") as on_progress:
        table = audit.check_feed(
            feeds, known, images, backbone(features), records.state_root() / "features", rules, let_through, on_progress
        )
    decisions.write_csv(table, out)
    counts = table["verdict"].value_counts()
    print(", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in ("fits", "look", "unlike", "unread")))
    print(
        f"of rightly filed products {100 * let_through:g} % pass; of wrongly filed ones like the audit's, "
        f"{100 * passing.caught:.0f} % are caught; {out}"
    )
    return 0


def corrections(
    dataset: Positional[str], decisions: Positional[tuple[Path, ...]], out: Path = Path("corrections")
) -> int:
    """Make what goes back to the shop of one or several reviewers' decisions: id, old category, new category.

    Args:
        dataset: what was audited, an import or a folder of class folders, or a newer import of it
        decisions: CSV files saved by the page, and ask-again.csv with its column of decisions filled in
        out: folder to write: corrections.csv, and ask-again.csv with what reviewers disagree on
    """
    from elrkit.catalogue.corrections import corrections as made

    if not decisions:
        raise ConfigError("no decisions file is given; audit/review.html saves them, named for shop and day")
    found = made(_dataset_of(dataset), decisions, out)
    for line in found.unfit:
        print(f"warning: {line}")
    print(f"{found.moved} products to move: {found.table}")
    print(f"{found.kept} stay, {found.done} are moved already, {found.unsure} unsure")
    if found.again:
        print(
            f"reviewers disagree on {found.disagreed}: fill in the column decision of {found.again} (confirm, keep or "
            "unsure), and give it with the other files"
        )
    return 0


def _outcome(config: RunConfig, dataset: "Dataset") -> dict | None:
    """The outcome of a run, None where it has not finished, with what is to be said about it."""
    from elrkit import checkpoints, records

    if (record := records.find(config)) is None:
        return None
    if record["status"] != "finished":
        raise ConfigError(f"run {config.run_id}: its training diverged, so it says nothing of the labels")
    outcome = checkpoints.outcome(record)
    if outcome is None:
        raise ConfigError(
            f"run {config.run_id}: its network is not in {records.state_dir(config)} (there was no room for it, or "
            f"data of that name were trained on elsewhere); remove {records.record_path(config)} to train it again"
        )
    _say_what_the_net_knows(record, dataset)
    if dataset.test_ids:
        print(f"{len(dataset.test_ids)} test products are not in the list: the run was not trained on them")
    return outcome


def _originals(dataset: "Dataset", images: str | None) -> Callable | None:
    """Where the page's pictures come from; None where the dataset's own are all there is."""
    from elrkit import data
    from elrkit.catalogue import importer

    if dataset.train_ids is None:
        if images is not None:
            raise ConfigError(f"images={images}: {dataset.name} has no ids that name its images; leave it out")
        return None
    path = data.own_path(dataset.name)
    if data.is_class_folders(path):
        if images is not None:
            raise ConfigError(f"images={images}: the images of {dataset.name} are its own files; leave it out")
    elif images is None:
        return None

    where, rules = importer.places(path, dataset.of_all("ids"), images or path)
    said = []

    def find(ids: Sequence[str], side: int) -> Mapping:
        found = importer.shown(where, rules, ids, side)
        if len(found) < len(ids) and not said:
            lacking = next(id_ for id_ in ids if id_ not in found)
            said.append(lacking)
            print(
                f"warning: pictures are missing in {images or path}, such as that of {lacking}, and are shown as small "
                "as the dataset has them; give the folder that import-feed was given"
            )
        return found

    return find


LEAST_SKILL = 0.25  # of the way from naming the commonest class to agreeing with every held-out label


def _say_what_the_net_knows(record: dict, dataset: "Dataset") -> None:
    """A list is as good as the net: how many labels it agrees with that it has not seen, and whether that is little."""
    labels = dataset.test_labels
    if not len(labels):
        return
    agreement = record["curves"]["test_top1_noisy"][-1]
    commonest = float(labels.bincount().max() / len(labels))
    print(
        f"the network agrees with {100 * agreement:.1f} % of the {len(labels)} test labels, which it has not seen; "
        f"the commonest class has {100 * commonest:.1f} %"
    )
    if commonest < 1 and (agreement - commonest) / (1 - commonest) < LEAST_SKILL:
        print(
            "warning: it has learnt little of the classes, so expect many false alarms; more products help, or a "
            "pretrained network (--features)"
        )


def _dataset_of(name: str) -> "Dataset":
    """The dataset of this name; raises ConfigError that says what to do first where it is a feed."""
    from elrkit import data
    from elrkit.catalogue.feed_files import suffix
    from elrkit.catalogue.feeds import READERS

    def is_feed() -> bool:
        with contextlib.suppress(data.DataError):
            path = data.own_path(name)
            inside = path.rglob("*") if path.is_dir() else [path]
            return any(suffix(each) in READERS and each.is_file() for each in inside)
        return False

    try:
        dataset = data.load(name)
        # The folder of a feed's photos, if it lies beside the feed, is the only class that has any image.
        if len(dataset.train_labels.unique()) > 1 or not is_feed():
            return dataset
    except data.UnreadableImage:  # so there are class folders, whatever lies beside their images
        raise
    except data.DataError:
        if not is_feed():
            raise
    raise ConfigError(
        f"{name}: a feed; first make a dataset of it with `python -m elrkit import-feed {name} --images FOLDER "
        "--out shop`, then give shop"
    )


def _audit_config(name: str, dataset: "Dataset", epochs: int) -> RunConfig:
    """ELR on a dataset of one's own, minutes on a CPU: the paper's lambda and beta for as many classes, the small net,
    flips, the learning rate a tenth after 40 % of the epochs and again after 80 %."""
    known = name in BUILT_IN_TRAIN_SIZES or "/" in name or name.endswith(".npz")
    elr = ELR_CIFAR100 if dataset.num_classes > 10 else ELR_CIFAR10
    return RunConfig(
        dataset=name if known else f"./{name}", loss="elr", epochs=epochs, lr=0.05, schedule="multistep", gamma=0.1,
        milestones=tuple(sorted({epochs * 2 // 5, epochs * 4 // 5} - {0})), augmentation="flip", precision="bfloat16",
        batch_size=min(128, len(dataset.train_labels)), eval_every=5, **elr,
    )  # fmt: skip


def import_feed(
    feeds: Positional[tuple[str, ...]],
    out: Path,
    images: str = ".",
    rules: FeedRules = FeedRules(),  # noqa: B008  (frozen)
    decisions: tuple[Path, ...] = (),
    download_from: tuple[str, ...] = (),
    licence: str = "not stated",
    workers: int = 2,
    ray: str | None = None,
) -> int:
    """Read a shop's feed (XML or CSV) and write a dataset with its manifest; what is dropped is counted by reason.

    Args:
        feeds: XML and CSV files, or folders of them; paths, or addresses such as s3://shop/feed.xml
        out: the folder to write
        images: folder below which the feed's image paths lie, or its address
        rules: what to keep
        decisions: CSV files saved by the page of `audit`, applied to the labels
        download_from: hosts whose image addresses may be fetched; without them none is
        licence: terms of the feed, for the manifest
        workers: processes that decode images
        ray: address of a Ray cluster that decodes them instead, host:port or auto; `here` starts one on this machine
            (needs elrkit[scale])
    """
    from elrkit.catalogue import importer

    manifest = importer.import_feed(
        feeds, out, images=images, rules=rules, decisions=decisions, download_from=download_from, licence=licence,
        workers=workers, cluster=_cluster(ray),
    )  # fmt: skip
    print(importer.summary(manifest))
    if (dropped := out / "dropped.csv").exists():
        print(f"every dropped product, with its reason: {dropped}")
    return 0


def _cluster(ray: str | None) -> "Cluster | None":
    if ray is None:
        return None
    from elrkit.scale import Cluster

    return Cluster(None if ray == "here" else ray)


def make_feed(
    dataset: Positional[str],
    out: Positional[Path],
    classes: int | None = None,
    products_per_class: int | None = None,
    misfiled: float = 0.15,
    siblings: float = 1.0,
    near_duplicates: float = 0.0,
    unusable: float = 0.0,
    format: Literal["xml", "csv"] = "xml",
    long_tail: bool = False,
    seed: int = 0,
) -> int:
    """Make a shop's feed whose faults are known, from the images of any dataset.

    Args:
        dataset: cifar10, cifar100, digits, an .npz dataset, or a folder of class folders
        out: folder to write: feed, thumbnails, and the truth
        classes: subcategories (default: all)
        products_per_class: products of each (default: as many as it has images)
        misfiled: share of products with a wrong label
        siblings: share of those that stay in their main category
        near_duplicates: share of products that are another size or colour of an article
        unusable: products added that an import has to drop, as a share of the good ones
        format: the shop's XML, or CSV
        long_tail: a few large subcategories and many small ones, none with more products than images
        seed: of everything that is drawn
    """
    from elrkit.catalogue.made_feed import make_feed_from

    truth = make_feed_from(
        dataset, out, classes=classes, products_per_class=products_per_class, misfiled=misfiled, siblings=siblings,
        near_duplicates=near_duplicates, unusable=unusable, format=format, long_tail=long_tail,
        seed=seed,
    )  # fmt: skip
    print(json.dumps(truth, indent=1))
    return 0


COMMANDS = {
    "import-feed": import_feed,
    "audit": audit,
    "corrections": corrections,
    "check": check,
    "make-feed": make_feed,
}
