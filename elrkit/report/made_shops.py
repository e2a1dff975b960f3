"""Section 5.3 of the paper retraced: shops whose faults are known, imported, split, trained on and measured.

    python -m elrkit shop --scale cpu --seeds 0      # make the shops, train what is missing, measure
    table = shop.table(shop.shops("cpu"))            # one row per run, from the records alone

A shop is a feed made by ``feedmaker`` from real images and read again by ``catalogue``, so every product's true label
is known, and which products show the same article. Its dataset lies below the data root under a name that no machine
changes (``shop/cpu-product-40-0.npz``); ``results/shop`` keeps one small JSON file per shop: what was put in, what the
import found, how many test products have a near-duplicate in training, and each run's agreement with and without one.
"""

import dataclasses
import json
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq

from elrkit import checkpoints, data, records, runner, train
from elrkit.catalogue import importer as catalogue
from elrkit.catalogue import made_feed as feedmaker
from elrkit.catalogue import scores as audit
from elrkit.config import ELR_CIFAR10, ELR_CIFAR100, ConfigError, RunConfig, cifar100_recipe
from elrkit.report import plans, tables

log = logging.getLogger(__name__)

MISFILED = 0.15  # the middle of the 10 to 20 % that the shop estimates (Section 1)
LEAKS = (0, 20, 40, 60)
ARMS = {"CE": ("ce", 0.0), "ELR": ("elr", 0.0), "ELR + SAM": ("elr", 0.05)}


class Kind(NamedTuple):
    """Where a shop's photos come from, how many of them, and how its import tells near-duplicates."""

    source: str  # a dataset's name, or clothing: the open feed in the folder `clothing` of the data root
    classes: int | None  # subcategories
    per_class: int | None  # products of each; None: as many as there are photos
    size: int  # pixels
    near_distance: int | None  # bits; digits are too much alike for perceptual hashes
    main_categories: dict[str, str] | None = None  # of the subcategories; None: as `feedmaker` has them


# The open feed's subcategories have none; these are what a shop would put side by side, and confuse.
CLOTHING_MAIN = {
    subcategory: main
    for main, subcategories in {
        "Tops": "Body, Longsleeve, Polo, Shirt, T-Shirt, Undershirt",
        "Jackets": "Blazer, Hoodie, Outwear",
        "Trousers": "Pants, Shorts",
        "Dresses and skirts": "Dress, Skirt",
        "Shoes and hats": "Hat, Shoes",
    }.items()
    for subcategory in subcategories.split(", ")
}
# 63 subcategories as in the paper; of its 1,000 products each, CIFAR-100 has photos for 600.
KINDS = {
    "cpu": Kind("cifar100", 63, 200, 32, 22),
    "paper": Kind("cifar100", 63, 600, 32, 22),
    "digits": Kind("digits", 10, 170, 8, None),
    "clothing": Kind("clothing", None, None, 32, 22, CLOTHING_MAIN),
}
CLOTHING_RULES = catalogue.FeedRules(
    columns={"id": "product_id", "label": "subcategory", "image": "thumbnail"},
    drop_labels=("Not sure", "Other", "Skip"),  # what sellers chose when they did not know
    min_images=60,
)
LICENCES = {
    "cifar100": "CIFAR-100, A. Krizhevsky, 2009; no licence stated, cite the report",
    "digits": "UCI optical recognition of handwritten digits, E. Alpaydin and C. Kaynak, 1998; CC BY 4.0",
    "clothing": "clothing-dataset, A. Grigorev, 2020; CC0 1.0",
}


@dataclass(frozen=True)
class Shop:
    """One shop and its 9:1 split. `leak`: percent of the test products that shall have a near-duplicate in training
    when it is split by product, as the paper did; `group` keeps them together, so none has."""

    kind: Literal["cpu", "paper", "digits", "clothing"]
    split: Literal["product", "group"]
    leak: int
    seed: int

    @property
    def dataset(self) -> str:
        """The name that its runs' ids hash: a path below the data root."""
        return f"shop/{self.kind}-{self.split}-{self.leak}-{self.seed}.npz"


def shops(scale: str, seeds: Sequence[int] = plans.SEEDS, leaks: Sequence[int] = LEAKS) -> list[Shop]:
    """The shops of a scale (cpu, paper or digits), seeds outermost: one per leak split by product, the last split by
    group as well, and, at cpu scale, the open clothing feed. Raises ConfigError."""
    if scale not in KINDS or scale == "clothing":
        raise ConfigError(f"scale={scale!r}: allowed are cpu, paper, digits")
    if bad := [leak for leak in leaks if isinstance(leak, bool) or not isinstance(leak, int) or not 0 <= leak <= 90]:
        raise ConfigError(f"leaks={bad}: allowed are whole percents from 0 to 90")
    chosen = []
    for seed in dict.fromkeys(seeds):
        chosen += [Shop(scale, "product", leak, seed) for leak in leaks]
        chosen.append(Shop(scale, "group", max(leaks), seed))
        if scale == "cpu":
            chosen.append(Shop("clothing", "group", 0, seed))
    return chosen


def configs(shop: Shop, epochs: int | None = None) -> dict[str, RunConfig]:
    """CE, ELR and ELR with SAM on a shop: cosine annealing and no augmentation, as the paper's code trained on the
    shop; beta 0.9 and lambda 7 (Section 5.3), of the digits 0.7 and 3."""
    if shop.kind == "digits":
        base = RunConfig(
            dataset=shop.dataset, noise="none", width=16, stem_stride=1, lr=0.03, epochs=30, schedule="cosine",
            seed=shop.seed, noise_seed=shop.seed,
        )  # fmt: skip
    else:
        base = cifar100_recipe("ce", 0.0, "cosine", shop.seed, dataset=shop.dataset, augmentation="none")
        base = base if shop.kind == "paper" else plans.for_small_net(base)
    base = base.with_(epochs=base.epochs if epochs is None else epochs)
    elr = ELR_CIFAR10 if shop.kind == "digits" else ELR_CIFAR100
    return {
        name: base.with_(loss=loss, sam_rho=rho, **(elr if loss == "elr" else {})) for name, (loss, rho) in ARMS.items()
    }


def variants_for(leak: float) -> float:
    """The share of products to be variants of an article so that, split by product, a share `leak` of the test
    products has another product of its article in training.

    With a share v of variants, spread over the articles at random, an article has K ~ Poisson(m) variants, m =
    v / (1 - v). Besides itself, an article's group holds K products, and a variant's (a larger group is met more often)
    K + 1; each is in training with probability q = 0.9 (`catalogue.FeedRules`), and E[(1 - q)^K] = exp(-q m). So
    leak = (1 - v) (1 - exp(-q m)) + v (1 - (1 - q) exp(-q m)).
    """
    if not 0 <= leak < 1:
        raise ConfigError(f"leak={leak}: allowed is a share from 0 to below 1")
    q = 1 - catalogue.FeedRules.model_fields["test_share"].default

    def leaked(v: float) -> float:
        alone = np.exp(-q * v / (1 - v))
        return (1 - v) * (1 - alone) + v * (1 - (1 - q) * alone)

    return brentq(lambda v: leaked(v) - leak, 0, 0.99) if leak else 0.0


def make(shop: Shop, root: str | Path | None = None) -> dict:
    """Make the feed, import it, add the truth, and write the dataset below the data root and the summary (`read`).

    The .npz holds, beside a dataset's arrays, test_leaked (n,) bool: another product of that article is in training.
    Raises DataError when the photos are not there, or give another dataset than the one a summary describes already.
    """
    root = data.data_root(root)
    kind, out = KINDS[shop.kind], root / shop.dataset
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        work = Path(name)
        put_in = feedmaker.make_feed_from(
            _photos(kind, root, work), work / "shop", classes=kind.classes,
            main_categories=kind.main_categories, products_per_class=kind.per_class, misfiled=MISFILED,
            near_duplicates=variants_for(shop.leak / 100), seed=shop.seed,
        )  # fmt: skip
        rules = catalogue.FeedRules(size=kind.size, split=shop.split, seed=shop.seed, near_distance=kind.near_distance)
        manifest = catalogue.import_feed(
            [work / "shop" / "feed"], work / "shop.npz", images=work / "shop", rules=rules,
            licence=LICENCES[kind.source], workers=1,
        )  # fmt: skip
        with np.load(work / "shop.npz") as archive:
            arrays = dict(archive)
        arrays |= _truth(pd.read_csv(work / "shop" / "truth.csv", dtype=str), arrays)
        np.savez(work / "known.npz", **arrays)
        fingerprint = data.load(str(work / "known.npz")).fingerprint()
        before = read(summary_path(shop))
        if before and before["fingerprint"] != fingerprint:
            raise data.DataError(
                f"{shop.dataset}: made here with {manifest['made_with']} it is not what {summary_path(shop)} describes "
                f"({before['imported']['made_with']}); take those versions, or remove that file and the runs it names"
            )
        (work / "known.npz").replace(out)
    labels, truth = arrays["test_labels"], arrays["test_truth"]
    summary = {
        "dataset": shop.dataset,
        "shop": dataclasses.asdict(shop),
        "fingerprint": fingerprint,
        "put_in": put_in,
        "imported": {name: manifest[name] for name in ("counts", "split", "made_with")},
        "licence": LICENCES[kind.source],
        "train": {
            "products": len(arrays["train_labels"]),
            "wrong": _share(arrays["train_labels"] != arrays["train_truth"]),
        },
        "test": {
            "products": len(labels),
            "wrong": _share(labels != truth),
            "near_duplicate_in_train": _share(arrays["test_leaked"]),
            "near_duplicate_in_train_by_import": manifest["split"]["test_with_near_duplicate_in_train"] / len(labels),
        },
        "runs": before["runs"] if before else {},
    }  # fmt: skip
    write_json(summary, summary_path(shop))
    return summary


def _share(flags: np.ndarray) -> float:
    return round(float(flags.mean()), 6)


def _photos(kind: Kind, root: Path, work: Path) -> Path:
    """An .npz of all photos of a source, in an order that does not depend on how they were stored."""
    path = work / "photos.npz"
    if kind.source == "clothing":
        folder = root / "clothing"
        if not (folder / "feeds").is_dir():
            raise data.DataError(
                f"clothing: no folder {folder / 'feeds'}; put the open feed's `feeds` and `thumbnails` there"
            )
        catalogue.import_feed([folder / "feeds"], path, images=folder, rules=CLOTHING_RULES, workers=1)
        return path
    dataset = data.load(kind.source, root)
    images = torch.cat([dataset.train_images, dataset.test_images]).numpy()
    labels = torch.cat([dataset.train_labels, dataset.test_labels]).numpy()
    images = np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
    order = sorted(range(len(labels)), key=lambda i: (labels[i], images[i].tobytes()))
    last = order.pop()  # a dataset needs a test image; the feed is made of both parts
    np.savez(
        path, train_images=images[order], train_labels=labels[order], test_images=images[[last]],
        test_labels=labels[[last]], class_names=dataset.class_names,
    )  # fmt: skip
    return path


def _truth(known: pd.DataFrame, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """train_truth, test_truth and test_leaked of an imported feed, from the feed's truth.csv."""
    known = known.set_index("id")
    number = {name: k for k, name in enumerate(arrays["class_names"].tolist())}
    rows = {part: known.loc[arrays[f"{part}_ids"]] for part in ("train", "test")}
    truth = {f"{part}_truth": rows[part]["true_label"].map(number).to_numpy(np.int64) for part in rows}
    return truth | {"test_leaked": rows["test"]["article"].isin(set(rows["train"]["article"])).to_numpy()}


def folder() -> Path:
    """Where new summaries go: `shop` beside the store of run records."""
    return records.results_root().with_name("shop")


def summary_path(shop: Shop) -> Path:
    return records.beside("shop", Path(shop.dataset).with_suffix(".json").name)


def gallery_path(shop: Shop) -> Path:
    return records.beside("shop", f"{Path(shop.dataset).stem}.gallery.npz")


def read(path: Path) -> dict | None:
    """A summary, or None where there is none; a damaged file is reported by name and counts as none."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("skipped %s: not readable as JSON (%s)", path, error)
        return None


def write_json(value: dict, path: Path) -> None:
    records.write_text(folder() / path.name, json.dumps(value, indent=1, allow_nan=False) + "\n")


def run(
    chosen: Sequence[Shop],
    epochs: int | None = None,
    jobs: int = 1,
    budget_seconds: float | None = None,
    on_event: Callable[[runner.Event], None] = lambda event: None,
) -> list[RunConfig]:
    """Make the shops that have missing runs, train those, measure all; returns the runs still missing.

    Can be stopped and called again at any time. A shop whose photos are not here is reported and passed over.
    """
    started = time.monotonic()
    todo: list[RunConfig] = []
    for shop in chosen:
        missing = [config for config in configs(shop, epochs).values() if records.find(config) is None]
        try:
            if missing and not ((data.data_root() / shop.dataset).exists() and read(summary_path(shop))):
                make(shop)
        except data.DataError as error:
            log.warning("%s: passed over (%s)", shop.dataset, error)
            continue
        todo += missing
    if budget_seconds is not None:
        budget_seconds -= time.monotonic() - started
    if todo:
        runner.announce(todo, jobs)
        runner.train_missing(todo, jobs=jobs, budget_seconds=budget_seconds, on_event=on_event)
    for shop in chosen:
        measure(shop, epochs)
    return [config for shop in chosen for config in configs(shop, epochs).values() if records.find(config) is None]


def measure(shop: Shop, epochs: int | None = None) -> None:
    """Complete a shop's summary by what the network of each finished run, as far as it is on this machine, says of the
    test products with and without a near-duplicate in training, and by how good the list of its ELR targets is; and
    write the gallery, if it is the shop to show."""
    summary = read(summary_path(shop))
    if summary is None or not (data.data_root() / shop.dataset).exists():
        return
    dataset = leaked = None
    for arm, config in configs(shop, epochs).items():
        record = records.find(config)
        if config.run_id in summary["runs"] or record is None or record["status"] != "finished":
            continue
        if (outcome := checkpoints.outcome(record)) is None:
            continue
        if dataset is None:
            dataset = data.load(shop.dataset)
            with np.load(data.data_root() / shop.dataset) as archive:
                leaked = archive["test_leaked"]
        predicted = train.predict_test(config, dataset, outcome).argmax(dim=1).numpy()
        labels, truth = dataset.test_labels.numpy(), dataset.test_truth.numpy()
        parts = {"leaked": leaked, "apart": ~leaked}
        summary["runs"][config.run_id] = {"arm": arm, "epochs": config.epochs} | {
            f"{what}_{part}": _share((predicted == wanted)[chosen]) if chosen.any() else None
            for part, chosen in parts.items()
            for what, wanted in (("agreement", labels), ("accuracy", truth))
        }
        if outcome["targets"] is not None:
            given, wrong = dataset.train_labels.numpy(), (dataset.train_labels != dataset.train_truth).numpy()
            targets = outcome["targets"].numpy()
            found = audit.measure(
                wrong, audit.label_scores(targets, given, audit.OF_TARGETS), audit.suspect_list(targets, given)
            )
            summary["runs"][config.run_id]["list"] = {name: round(value, 6) for name, value in found.items()}
        if arm == "ELR" and shop.split == "group" and shop.seed == 0 and KINDS[shop.kind].source != "cifar100":
            _save_gallery(shop, dataset, predicted)
    write_json(summary, summary_path(shop))


GALLERY = (
    "misfiled, seen through",
    "misfiled, predicted as filed",
    "filed right, predicted otherwise",
    "filed and predicted right",
)
GALLERY_COLUMNS = 5


def _save_gallery(shop: Shop, dataset: data.Dataset, predicted: np.ndarray) -> None:
    """The first products of each kind in the test set's order, which is random: nothing was picked by hand.

    CIFAR-100 states no licence under which its photos could be passed on, so only the other sources are shown.
    """
    labels, truth = dataset.test_labels.numpy(), dataset.test_truth.numpy()
    wrong = labels != truth
    kinds = (
        wrong & (predicted == truth),
        wrong & (predicted == labels),
        ~wrong & (predicted != labels),
        ~wrong & (predicted == labels),
    )
    rows = [np.flatnonzero(kind)[:GALLERY_COLUMNS] for kind in kinds]
    index, names = np.concatenate(rows), np.array(dataset.class_names)
    folder().mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        folder() / gallery_path(shop).name, images=dataset.test_images.numpy()[index], label=names[labels[index]],
        prediction=names[predicted[index]], truth=names[truth[index]],
        row=np.repeat(GALLERY, [len(row) for row in rows]), licence=LICENCES[KINDS[shop.kind].source],
    )  # fmt: skip


def load_gallery(shop: Shop) -> dict[str, np.ndarray] | None:
    """images (n, H, W, 3) uint8, and label, prediction, truth, row (n,) as text, licence; None where not made yet."""
    try:
        with np.load(gallery_path(shop), allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError:
        return None


def table(chosen: Sequence[Shop], epochs: int | None = None) -> pd.DataFrame:
    """One row per run that has a record, shares in [0, 1]; empty where there is none.

    kind, split, leak, seed, arm; near_duplicates: the measured share of test products with one in training; wrong: the
    share of wrong test labels; agreement: with the shop's own test labels; accuracy: against the truth; both _leaked
    and _apart: among the test products with and without a near-duplicate in training (NaN where not measured);
    memorized: the share of wrong training labels that the network predicts.
    """
    rows = []
    for shop in chosen:
        summary = read(summary_path(shop))
        for arm, config in configs(shop, epochs).items():
            record = records.find(config)
            if summary is None or record is None or record["status"] != "finished":
                continue
            curves, parts = record["curves"], summary["runs"].get(config.run_id, {})
            rows.append(
                dataclasses.asdict(shop)
                | {"arm": arm, "near_duplicates": summary["test"]["near_duplicate_in_train"]}
                | {"wrong": summary["test"]["wrong"], "agreement": curves["test_top1_noisy"][-1]}
                | {"accuracy": curves["test_top1"][-1], "memorized": curves["wrong_memorized"][-1]}
                | {k: parts.get(k) for k in PARTS}
                | {"run_id": config.run_id, "seconds": record["timing"]["seconds"]}
            )
    names = ["arm", "near_duplicates", "wrong", "agreement", "accuracy", "memorized", *PARTS, "run_id", "seconds"]
    columns = [*(field.name for field in dataclasses.fields(Shop)), *names]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(PARTS, float))


PARTS = ("agreement_leaked", "agreement_apart", "accuracy_leaked", "accuracy_apart")


def lists(chosen: Sequence[Shop], epochs: int | None = None) -> pd.DataFrame:
    """How good the list of labels to look at is on the shops' training products, as text: a row per shop and ELR run,
    mean over seeds and 95 % t interval; empty where none was measured (`measure` needs the weights).

    Precision is the share of misfiled products among the first 1, 5 and 10 % of the list; looks: the products to look
    at until half of the misfiled ones are found, in percent of those in any order.
    """
    rows = []
    for shop in chosen:
        summary = read(summary_path(shop)) or {"runs": {}}
        for config in configs(shop, epochs).values():
            entry = summary["runs"].get(config.run_id, {})
            if "list" in entry:
                found = entry["list"] | {"looks": entry["list"]["effort_half"] / entry["list"]["effort_half_random"]}
                key = {"shop": shop.kind, "split by": shop.split, "leak": shop.leak, "run": entry["arm"]}
                rows.append(key | {"seed": shop.seed, "products": summary["train"]["products"]} | found)
    texts = {
        "misfiled": "wrong_share", "first 1 %": "precision_at_1", "first 5 %": "precision_at_5",
        "first 10 %": "precision_at_10", "looks": "looks", "listed": "listed_share",
        "misfiled of it": "precision", "found": "recall",
    }  # fmt: skip
    key = ["shop", "split by", "leak", "run"]
    table = [
        {
            **dict(zip(key, names, strict=True)), "seeds": part["seed"].nunique(),
            "products": round(part["products"].mean()),
            **{text: tables.percent(part[name]) for text, name in texts.items()},
        }
        for names, part in pd.DataFrame(rows, columns=None if rows else key).groupby(key, sort=False)
    ]  # fmt: skip
    return pd.DataFrame(table, columns=[*key, "seeds", "products", *texts])
