"""Section 5.3 of the paper retraced: shops whose faults are known are imported, split, trained on and measured.

    python -m elrkit shop                            # shops of the open clothing feed, three seeds

A shop is a feed that `elrkit.catalogue.made_feed` makes of real photos and `elrkit.catalogue.importer` reads again, so
every product's true category is known, and which products show the same article. A dense layer over what a pretrained
network sees in the photos is trained with the paper's optimizer until it has memorized its labels. `results/shop` keeps
a JSON file a shop: what was put in, what the import found, and what each loss makes of the test products.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq

from elrkit import data, precision, records
from elrkit.catalogue import audit, features, head, importer
from elrkit.catalogue.made_feed import make_feed_from
from elrkit.config import ELR_CIFAR100, ConfigError, as_list, require
from elrkit.report import plans, studies

SCHEMA = 1
MISFILED = 0.15  # the middle of the 10 to 20 % that the shop estimates (Section 1)
LEAKS = (0, 20, 40, 60)
ARMS = {"CE": dict(lam=0.0), "ELR": {}, "ELR + SAM": dict(rho=0.05)}  # what differs from the recipe
# Of the paper, but for the epochs; beta and lambda are those of its shop (Section 5.3).
RECIPE = dict(lr=0.02, momentum=0.9, weight_decay=1e-3, epochs=100, batch=128, **ELR_CIFAR100)
SIDE = 128  # pixels to which photos of 80 are enlarged

# The open feed's subcategories have no main ones; these are what a shop would put side by side, and confuse.
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
CLOTHING_RULES = importer.FeedRules(
    columns={"id": "product_id", "label": "subcategory", "image": "thumbnail"},
    drop_labels=("Not sure", "Other", "Skip"),  # what sellers chose when they did not know
    min_images=60,
    size=80,
)
LICENCES = {
    "digits": "UCI optical recognition of handwritten digits, E. Alpaydin and C. Kaynak, 1998; CC BY 4.0",
    "clothing": "clothing-dataset, A. Grigorev, 2020; CC0 1.0",
}


@dataclass(frozen=True)
class Shop:
    """One shop and its 9:1 split. `leak`: percent of the test products that shall have a near-duplicate in training
    when it is split by product, as the paper did; `group` keeps them together, so none has."""

    photos: Literal["clothing", "digits"]
    split: Literal["product", "group"]
    leak: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.photos}-{self.split}-{self.leak}-seed{self.seed}"


def shops(photos: str = "clothing", seeds: Sequence[int] = plans.SEEDS, leaks: Sequence[int] = LEAKS) -> list[Shop]:
    """The shops of these photos, seeds outermost: one per leak split by product, the last split by group as well.
    Raises ConfigError."""
    if photos not in LICENCES:
        raise ConfigError(f"photos={photos!r}: allowed are {', '.join(LICENCES)}")
    seeds, leaks = studies.checked_seeds(seeds), as_list("leaks", leaks)
    for leak in leaks:  # in percent
        require("leaks", leak, 0, 90, whole=True)
    kinds = [("product", leak) for leak in leaks] + [("group", max(leaks))]
    return [Shop(photos, split, leak, seed) for seed in seeds for split, leak in kinds]


def variants_for(leak: float) -> float:
    """The share of products to be variants of an article so that, split by product, a share `leak` of the test
    products has another product of its article in training.

    With a share v of variants, spread over the articles at random, an article has K ~ Poisson(m) variants, m =
    v / (1 - v). Besides itself, an article's group holds K products, and a variant's (a larger group is met more often)
    K + 1; each is in training with probability q = 0.9 (`importer.FeedRules`), and E[(1 - q)^K] = exp(-q m). So
    leak = (1 - v) (1 - exp(-q m)) + v (1 - (1 - q) exp(-q m)).
    """
    if not 0 <= leak < 1:
        raise ConfigError(f"leak={leak}: allowed is a share from 0 to below 1")
    q = 1 - importer.FeedRules.model_fields["test_share"].default

    def leaked(v: float) -> float:
        alone = np.exp(-q * v / (1 - v))
        return (1 - v) * (1 - alone) + v * (1 - (1 - q) * alone)

    return brentq(lambda v: leaked(v) - leak, 0, 0.99) if leak else 0.0


@dataclass(frozen=True)
class Made:
    """A shop as it was imported: features (n, d), given and true labels (n,) of its products, training ones first;
    leaked (m,), which of the m test products have another product of their article in training."""

    dataset: data.Dataset
    rows: NDArray
    labels: NDArray
    truth: NDArray
    leaked: NDArray
    put_in: dict[str, Any]
    manifest: dict[str, Any]
    backbone: str


def make(shop: Shop) -> Made:
    """Make a shop's feed, import it, look at its photos. Raises DataError when the photos are not there."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        put_in = make_feed_from(
            _photos(shop, work), work / "shop", misfiled=MISFILED, near_duplicates=variants_for(shop.leak / 100),
            main_categories=CLOTHING_MAIN if shop.photos == "clothing" else None, seed=shop.seed,
        )  # fmt: skip
        rules = importer.FeedRules(
            size=CLOTHING_RULES.size, split=shop.split, seed=shop.seed,
            near_distance=22 if shop.photos == "clothing" else None,  # digits are too much alike for perceptual hashes
        )  # fmt: skip
        manifest = importer.import_feed(
            [work / "shop" / "feed"], work / "imported", images=work / "shop", rules=rules,
            licence=LICENCES[shop.photos], workers=1,
        )  # fmt: skip
        dataset = data.load(str(work / "imported"))
        eye = features.backbone()._replace(side=SIDE)
        rows = np.asarray(audit.photo_rows(dataset, work / "shop", eye, records.state_root() / "features"), np.float32)
        known = pd.read_csv(work / "shop" / "truth.csv", dtype=str).set_index("id")
    inside, outside = (known.loc[list(ids)] for ids in (dataset.train_ids, dataset.test_ids))
    number = {name: k for k, name in enumerate(dataset.class_names)}
    truth = pd.concat([inside, outside])["true_label"].map(number).to_numpy(np.int64)
    leaked = outside["article"].isin(set(inside["article"])).to_numpy()
    return Made(dataset, rows, audit.labels_of(dataset), truth, leaked, put_in, manifest, eye.name)


def _photos(shop: Shop, work: Path) -> str:
    """A dataset of all photos of a source."""
    if shop.photos != "clothing":
        return shop.photos
    folder = data.data_root() / "clothing"
    if not (folder / "feeds").is_dir():
        raise data.DataError(
            f"clothing: no folder {folder / 'feeds'}; put the open feed's `feeds` and `thumbnails` there"
        )
    importer.import_feed([folder / "feeds"], work / "photos", images=folder, rules=CLOTHING_RULES, workers=1)
    return str(work / "photos")


def measure(shop: Shop) -> studies.Record:
    """The record of a shop. Shares in [0, 1]: agreement with the shop's own test labels and accuracy against the truth;
    _leaked and _apart, among the test products with and without a near-duplicate in training (None where there is
    none); memorized, of the wrong training labels those that the network predicts."""
    made = make(shop)
    n, classes = len(made.dataset.train_labels), made.dataset.num_classes
    x = head.Scaled(made.rows[:n])
    unseen = x.of(made.rows[n:])
    labels, truth = made.labels[n:], made.truth[n:]
    wrong = made.labels[:n] != made.truth[:n]
    parts = {"": np.ones(len(labels), bool), "_leaked": made.leaked, "_apart": ~made.leaked}
    arms = []
    for arm, differs in ARMS.items():
        started = time.perf_counter()
        _, layer = head.trained(x, torch.from_numpy(made.labels[:n]), classes, shop.seed, **RECIPE | differs)
        seconds = round(time.perf_counter() - started, 1)
        with torch.inference_mode():
            seen, predicted = (layer(each).argmax(dim=1).numpy() for each in (x[:], unseen))
        measured = {
            f"{what}{part}": studies.share((predicted == wanted)[chosen], 6)
            for part, chosen in parts.items() for what, wanted in (("agreement", labels), ("accuracy", truth))
        }  # fmt: skip
        arms.append(
            {
                "arm": arm,
                "seconds": seconds,
                "memorized": studies.share((seen == made.labels[:n])[wrong], 6),
                **measured,
            }
        )
        if arm == "ELR" and shop == SHOWN:
            gallery = _save_gallery(shop, made.dataset, labels, predicted, truth)
    imported = made.manifest["split"]["test_with_near_duplicate_in_train"] / len(labels)
    return {
        "schema": SCHEMA, "shop": asdict(shop), "licence": LICENCES[shop.photos], "put_in": made.put_in,
        "imported": {name: made.manifest[name] for name in ("counts", "split", "made_with")},
        "train": {"products": n, "wrong": studies.share(wrong, 6)},
        "test": {"products": len(labels), "wrong": studies.share(labels != truth, 6),
                 "near_duplicate_in_train": studies.share(made.leaked, 6),
                 "near_duplicate_in_train_by_import": round(imported, 6)},
        "arms": arms, "recipe": RECIPE, "side": SIDE, "backbone": made.backbone,
        **({"gallery": gallery} if shop == SHOWN else {}),
        "versions": precision.versions(), "device": precision.describe_device(features.device()),
    }  # fmt: skip


def gather(chosen: Sequence[Shop], make_missing: bool = False) -> list[studies.Record]:
    """The records of these shops that are there; with `make_missing` the others are made first."""
    return studies.gather("shop", chosen, measure if make_missing else None)


def table(found: Sequence[studies.Record]) -> pd.DataFrame:
    """A row a shop and arm: photos, split, leak, seed; near_duplicates, the measured share of test products with one in
    training; and what `measure` says of the arm (NaN where there is none)."""
    rows = [
        each["shop"] | {"near_duplicates": each["test"]["near_duplicate_in_train"]} | arm
        for each in found
        for arm in each["arms"]
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(PARTS, float))


PARTS = ("agreement_leaked", "agreement_apart", "accuracy_leaked", "accuracy_apart")
COLUMNS = ["photos", "split", "leak", "seed", "near_duplicates", "arm", "seconds", "memorized", "agreement", "accuracy",
           *PARTS]  # fmt: skip

# What a network sees through ------------------------------------------------------------------------------------------

SHOWN = Shop("clothing", "group", 60, 0)
GALLERY = (
    "misfiled, seen through",
    "misfiled, predicted as filed",
    "filed right, predicted otherwise",
    "filed and predicted right",
)
GALLERY_COLUMNS = 5


def _save_gallery(
    shop: Shop, dataset: data.Dataset, labels: NDArray, predicted: NDArray, truth: NDArray
) -> list[dict[str, str]]:
    """The first test products of each kind in the test set's order, which is random: nothing was picked by hand."""
    wrong = labels != truth
    kinds = (
        wrong & (predicted == truth), wrong & (predicted == labels), ~wrong & (predicted != labels),
        ~wrong & (predicted == labels),
    )  # fmt: skip
    rows = [(kind, i) for kind, of in zip(GALLERY, kinds, strict=True) for i in np.flatnonzero(of)[:GALLERY_COLUMNS]]
    studies.save_sheet("shop", shop.name, dataset.test_pictures[[i for _, i in rows]])
    name = dataset.class_names
    return [
        {"row": kind, "label": name[labels[i]], "prediction": name[predicted[i]], "truth": name[truth[i]]}
        for kind, i in rows
    ]


def gallery(found: Sequence[studies.Record]) -> tuple[NDArray[np.uint8], pd.DataFrame, str] | None:
    """(pictures (n, side, side, 3), their label, prediction, truth and row; their licence) of the shop that is shown;
    None where its record is not among these."""
    for each in found:
        if "gallery" in each:
            name = Shop(**each["shop"]).name
            return studies.sheet("shop", name), pd.DataFrame(each["gallery"]), each["licence"]
    return None
