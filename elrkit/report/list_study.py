"""How well the list of labels to look at finds wrong ones, beside cleanlab and neighbours on the same features, and
what correcting them gains: a study a dataset, kind of errors and seed, one JSON file each in `results/audit`.

    python -m elrkit list-study                                  labels by people on CIFAR-10, three levels
    python -m elrkit list-study ./shop --images .                errors made in a shop's own labels

Nothing in them chose a parameter of `elrkit.catalogue.head`.
"""

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors

from elrkit import data, precision, records, train
from elrkit.catalogue import audit, checking, features, head, importer
from elrkit.config import ConfigError, RunConfig
from elrkit.report import effects, plans, studies
from elrkit.report.studies import Record

SCHEMA = 2  # 1 had no cleaning, and of a shop no products that the audit had not seen
LOOKS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
FINDERS = {
    "head": "ELR on features", "cleanlab": "cleanlab on features", "neighbours": "15 neighbours",
    "scratch": "ELR from scratch, 15,000 images",
}  # fmt: skip
SIDE = {"cifar10": 128, "digits": 64}  # pixels to which small pictures are enlarged; others: the backbone's own
IMAGES = 5_000  # of CIFAR-10 in a study
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # of confidence
SIBLINGS = 3  # made errors between siblings go to one of so many categories that look alike
KINDS = ("siblings", "uniform")  # of made errors
CLEANED = (0.01, 0.05, 0.1)  # shares of the labels that a person looks at and corrects


class Study(NamedTuple):
    """A dataset's labels: as people gave them (a level of CIFAR-10N), or with a share `rate` made wrong."""

    dataset: str
    errors: str  # a level of people's labels, uniform or siblings
    seed: int
    rate: float | None = None

    @property
    def name(self) -> str:
        rate = "" if self.rate is None else f"-{100 * self.rate:g}"
        return f"features-{Path(self.dataset).stem}-{self.errors}{rate}-seed{self.seed}"


def of_dataset(dataset: str = "cifar10", seeds: Sequence[int] = plans.SEEDS, rate: float = 0.15) -> list[Study]:
    """The studies of a dataset: three levels of people's labels of CIFAR-10, or two kinds of errors made in another's
    labels. Raises ConfigError."""
    seeds = studies.checked_seeds(seeds)
    if not 0 < rate < 1:
        raise ConfigError(f"rate={rate}: allowed is a share above 0 and below 1")
    if dataset == "cifar10":
        return [Study(dataset, level, seed) for seed in seeds for level in plans.LEVELS]
    return [Study(dataset, kind, seed, rate) for seed in seeds for kind in KINDS]


@dataclass(frozen=True)
class Labelled:
    """Features (n, d) of products, the label given to each (n,) and the true one."""

    rows: NDArray
    labels: NDArray
    truth: NDArray

    def at(self, chosen: slice) -> "Labelled":
        return Labelled(self.rows[chosen], self.labels[chosen], self.truth[chosen])


def made_wrong(rows: NDArray, labels: NDArray, kind: str, rate: float, seed: int) -> NDArray:
    """Labels (n,) of which a share is moved: uniform, to any other category; siblings, to one of the three whose
    products look most alike by rows (n, d)."""
    draw = np.random.default_rng([seed, 7])
    count = int(labels.max()) + 1
    moved, result = draw.permutation(len(labels))[: round(rate * len(labels))], labels.copy()
    if kind == "uniform":
        result[moved] = (labels[moved] + draw.integers(1, count, len(moved))) % count
        return result
    scaled = head.Scaled(rows)[:].numpy()
    centres = np.stack([scaled[labels == k].mean(0) for k in range(count)])
    apart = ((centres[:, None] - centres[None]) ** 2).sum(-1)
    np.fill_diagonal(apart, np.inf)
    near = apart.argsort(1)[:, : min(SIBLINGS, count - 1)]
    result[moved] = near[labels[moved], draw.integers(near.shape[1], size=len(moved))]
    return result


def problem(study: Study, images: Path | None, store: Path) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    """(the products of a study, others that it does not have, class names).

    The others are the test images; of CIFAR-10, whose test images nobody labelled again, the next seed's.
    """
    eye, whole = features.backbone(), data.load(study.dataset)
    eye = eye._replace(side=SIDE.get(study.dataset, eye.side))
    if study.rate is None:
        drawn = dict(dataset=study.dataset, train_size=IMAGES, noise="human", noise_convention=study.errors)
        seeds = study.seed, plans.SEEDS[(study.seed + 1) % len(plans.SEEDS)]  # the other's features are kept already
        here, other = (train.set_up(RunConfig(noise_seed=seed, **drawn), whole) for seed in seeds)
        new = ~np.isin(other.index, here.index)
        parts = (here.index, here.given, here.truth), (other.index[new], other.given[new], other.truth[new])
        index, labels, truth = map(np.concatenate, zip(*parts, strict=True))
        chosen = replace(
            whole, train_pictures=data.one_each(whole.train_pictures[index]), train_labels=torch.from_numpy(labels),
            test_pictures=data.one_each(whole.test_images[:0]), test_labels=whole.test_labels[:0],
        )  # fmt: skip
        everything = Labelled(audit.photo_rows(chosen, None, eye, store).astype(np.float32), labels, truth)
    else:
        rows, truth = audit.photo_rows(whole, images, eye, store).astype(np.float32), audit.labels_of(whole)
        everything = Labelled(rows, made_wrong(rows, truth, study.errors, study.rate, study.seed), truth)
    n = IMAGES if study.rate is None else len(whole.train_labels)
    return everything.at(slice(n)), everything.at(slice(n, None)), whole.class_names


def measured(wrong: NDArray[np.bool_], order: NDArray) -> dict[str, Any]:
    """How good a list is that is in descending `order` (n,), where labels are `wrong` (n,), at least one of them.

    Equal ones stand in random order: all are expected values. found: of the wrong ones, the share among the first
    `LOOKS` of all. wrong_share: also a random order's precision. average_precision. precision_at_1, _5 and _10: of the
    first so many percent, at least one label. effort_half and effort_half_random: labels to look at for half of the
    wrong ones; of w wrong among n in random order the m-th is met at m (n + 1) / (w + 1) (negative hypergeometric).
    """
    n, total = len(wrong), int(wrong.sum())
    _, group = np.unique(-order, return_inverse=True)
    sizes, hits = np.bincount(group), np.bincount(group, weights=wrong)
    looked, met = (np.concatenate([[0], each.cumsum()]) for each in (sizes, hits))
    tops = {share: max(1, round(share * n)) for share in LOOKS[1:]}
    among = {share: float(np.interp(top, looked, met)) for share, top in tops.items()}
    half = math.ceil(total / 2)
    last = int(np.searchsorted(met, half)) - 1  # the group in which the half is reached
    looks = looked[last] + (half - met[last]) * (sizes[last] + 1) / (hits[last] + 1)
    shares = {
        "wrong_share": total / n, "average_precision": float(average_precision_score(wrong, order)),
        **{f"precision_at_{percent}": among[percent / 100] / tops[percent / 100] for percent in (1, 5, 10)},
        "effort_half": float(looks), "effort_half_random": half * (n + 1) / (total + 1),
    }  # fmt: skip
    found = [0.0, *(round(each / total, 4) for each in among.values())]
    return {"found": found, **{name: round(value, 4) for name, value in shares.items()}}


def checked(model: checking.Model, new: Labelled) -> dict[str, Any]:
    """What the check makes of new products: shares of the rightly filed that pass and of the others that do not, and
    how often the first category that it suggests for these is the true one."""
    found, right = checking.check(model, new.rows, new.labels), new.labels == new.truth
    stopped = found.verdict != "fits"
    first = found.alternatives[:, 0] == new.truth
    return {"products": len(new.labels), "passed": studies.share(~stopped[right], 4),
            "caught": studies.share(stopped[~right], 4),
            "suggested": studies.share(first[~right & stopped], 4)}  # fmt: skip


def cleaned(products: Labelled, suspicion: NDArray, new: Labelled, classes: int, seed: int) -> list[Record]:
    """The paper's outlook: a person looks at a share of the labels, by the list or at random, each becomes the true
    one, and the layer is trained again. Accuracy is that of the new products' true categories."""
    n = len(products.labels)
    x = head.Scaled(products.rows)
    unseen = x.of(new.rows)
    # A stream of its own: errors are drawn from plain seeds, and the same permutation would find every one.
    orders = {"list": np.argsort(-suspicion), "random": np.random.default_rng([seed, 1]).permutation(n)}
    found = []
    for chosen, share in [("nothing", 0.0), *((chosen, share) for share in CLEANED for chosen in orders)]:
        labels, looked = products.labels.copy(), orders.get(chosen, orders["list"])[: round(share * n)]
        labels[looked] = products.truth[looked]
        _, layer = head.trained(x, torch.from_numpy(labels), classes, seed)
        with torch.inference_mode():
            right = layer(unseen).argmax(dim=1).numpy() == new.truth
        found.append({"chosen": chosen, "share": share, "corrected": int((labels != products.labels).sum()),
                      "accuracy": round(float(right.mean()), 4)})  # fmt: skip
    return found


def run(study: Study, products: Labelled, new: Labelled, classes: tuple[str, ...]) -> Record:
    """The record of a study: how each finder orders the labels, what the head says of their number and its confidence,
    what its check lets through and catches, by its own word and of new products, and what correcting labels gains.

    foreseen  of the wrong labels, the share that a regression trained without the product predicts
    """
    try:
        from cleanlab.rank import get_label_quality_scores
    except ModuleNotFoundError:
        raise ModuleNotFoundError("the comparison needs the package cleanlab: pip install 'elrkit[test]'") from None
    rows, labels, truth = products.rows, products.labels, products.truth
    wrong = labels != truth
    kept: dict[str, Any] = {}
    if not wrong.any():
        raise ConfigError(f"rate={study.rate}: moves none of {len(labels)} labels; give more of them, or a higher rate")

    def by_head() -> NDArray:
        kept["found"] = head.audit(rows, labels, classes, seed=study.seed)
        return kept["found"].suspicion

    def by_cleanlab() -> NDArray:
        folds = StratifiedKFold(5, shuffle=True, random_state=study.seed)
        regression = LogisticRegression(C=0.003, max_iter=300)
        guess = np.zeros((len(labels), len(classes)))  # a category may have lost its last label
        guess[:, np.unique(labels)] = cross_val_predict(
            regression, head.Scaled(rows)[:].numpy(), labels, cv=folds, method="predict_proba"
        )
        kept["foreseen"] = float((guess.argmax(1) == labels)[wrong].mean())
        return 1 - get_label_quality_scores(labels, guess, method="self_confidence")

    def by_neighbours() -> NDArray:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        near = NearestNeighbors(n_neighbors=16).fit(unit).kneighbors(unit, return_distance=False)[:, 1:]
        return (labels[near] != labels[:, None]).mean(1)

    finders = []
    for name, find in (("head", by_head), ("cleanlab", by_cleanlab), ("neighbours", by_neighbours)):
        started = time.perf_counter()
        order = find()
        seconds = round(time.perf_counter() - started, 1)
        finders.append({"finder": name, "seconds": seconds, **measured(wrong, order)})
    judged: head.Found = kept["found"]
    bins = np.digitize(judged.confidence, BINS[1:-1])
    passing = checking.passing(judged.model)
    return {
        "schema": SCHEMA, "study": {**study._asdict(), "dataset": Path(study.dataset).name},
        "images": len(labels), "wrong": int(wrong.sum()),
        "estimated": [round(each, 4) for each in judged.wrong], "finders": finders,
        "confidence": [
            {"said": round(float(judged.confidence[bins == k].mean()), 4),
             "wrong": round(float(wrong[bins == k].mean()), 4), "labels": int((bins == k).sum())}
            for k in range(len(BINS) - 1) if (bins == k).any()
        ],
        "check": {"let_through": 0.95, "catches": round(passing.caught, 4), **checked(judged.model, new)},
        "foreseen": round(kept["foreseen"], 4),
        "cleaning": cleaned(products, judged.suspicion, new, len(classes), study.seed),
        "training": {**head.TRAINING, **head.ELR, "rounds": head.ROUNDS},
        "versions": precision.versions() | {"cleanlab": version("cleanlab")},
        "device": precision.describe_device(features.device()),
    }  # fmt: skip


def make(study: Study, images: Path | None = None) -> Record:
    """The record of a study; images is the folder that a shop's import was given."""
    return run(study, *problem(study, images, records.state_root() / "features"))


def gather(wanted: Sequence[Study] = (), make_missing: bool = False, images: Path | None = None) -> list[Record]:
    """The records of these studies that are there; without any, of all that are evidence.

    make_missing  the others are made first; images: the folder that a shop's import was given.
    """
    if not wanted:
        return studies.evidence("audit", "features-*.json")
    return studies.gather("audit", wanted, partial(make, images=images) if make_missing else None)


def first_audit() -> list[Record]:
    """Rows of `rows` of a small net trained with ELR from scratch, which the list rested on before there were features;
    made before version 0.2, for comparison, on 15,000 images."""
    found = []
    for record in studies.evidence("audit", "cifar10-*.json"):
        row = next(row for row in record["rows"] if (row["source"], row["score"]) == ("elr", "balanced"))
        study, labels = record["study"], record["data"]
        found.append({"dataset": "cifar10", "errors": study["level"], "seed": study["seed"], "rate": None,
                      "finder": "scratch", "images": labels["images"], "wrong": labels["wrong"],
                      "seconds": record["timing"]["seconds"]["elr"], **row})  # fmt: skip
    return found


def rows(found: Sequence[Record], more: Sequence[Record] = ()) -> pd.DataFrame:
    """A row a study and finder: dataset, errors, rate, seed, images, wrong, and what was measured of the finder."""
    table = pd.DataFrame(
        [{**each["study"], "images": each["images"], "wrong": each["wrong"], **finder}
         for each in found for finder in each["finders"]] + list(more)
    )  # fmt: skip
    return table.sort_values(["dataset", "errors"], kind="stable", ignore_index=True)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Per kind of errors and finder: average precision, precision of the first tenth, looks for half of looks in any
    order, all in percent; means over seeds with 95 % intervals."""
    lines = []
    for (dataset, errors, rate, finder), part in table.groupby(
        ["dataset", "errors", "rate", "finder"], dropna=False, sort=False
    ):
        kind = errors if rate != rate else f"{errors}, made"
        wrong = f"{100 * (part['wrong'] / part['images']).mean():.0f}"
        said = {"labels": Path(dataset).stem, "errors": kind, "wrong, %": wrong, "finder": FINDERS[finder]}
        for name, shares in {
            "average precision": "average_precision",
            "wrong in the first tenth": "precision_at_10",
        }.items():
            said[name] = effects.text(effects.percent(part[shares]))
        said["looks for half"] = effects.text(effects.interval(100 * part["effort_half"] / part["effort_half_random"]))
        lines.append(said)
    return pd.DataFrame(lines)


def calibration(found: Sequence[Record]) -> pd.DataFrame:
    """Per kind of errors, means over seeds in percent: how many labels are wrong and how many were estimated; of the
    labels in each range of confidence, how many are wrong."""
    lines: dict[tuple[str, str], list[Record]] = {}
    for each in found:
        study = each["study"]
        lines.setdefault((Path(study["dataset"]).stem, study["errors"]), []).append(each)
    table = []
    for (dataset, errors), part in lines.items():
        row = {"labels": dataset, "errors": errors,
               "wrong": f"{100 * np.mean([each['wrong'] / each['images'] for each in part]):.0f}",
               "estimated": f"{100 * np.mean([each['estimated'][0] for each in part]):.0f}"}  # fmt: skip
        for low, high in itertools.pairwise(BINS):
            inside = [b for each in part for b in each["confidence"] if low <= b["said"] < high + (high == 1)]
            count = sum(b["labels"] for b in inside)
            share = sum(b["wrong"] * b["labels"] for b in inside) / count if count else None
            row[f"said {100 * low:.0f} to {100 * high:.0f}"] = "" if share is None else f"{100 * share:.0f}"
        table.append(row)
    return pd.DataFrame(table)


def checks(found: Sequence[Record]) -> pd.DataFrame:
    """What the check does with new products, by kind of errors: percent, means, 95 % intervals over seeds."""
    table = pd.DataFrame([{**each["study"], **each["check"]} for each in found])
    names = {"passed": "rightly filed that pass", "catches": "wrongly filed caught, by its own word",
             "caught": "wrongly filed caught", "suggested": "true category suggested first"}  # fmt: skip
    lines = [
        {"labels": Path(dataset).stem, "errors": errors}
        | {text: effects.text(effects.percent(part[name].dropna())) for name, text in names.items()}
        for (dataset, errors), part in table.groupby(["dataset", "errors"], sort=False)
    ]
    return pd.DataFrame(lines)


def gains(found: Sequence[Record]) -> pd.DataFrame:
    """What correcting a share of the labels adds to the accuracy of new products, in points over training on the labels
    as they are: a row a study, share and choice: dataset, errors, seed, chosen, share, corrected, before, gain."""
    table = pd.DataFrame([{**each["study"], **row} for each in found for row in each["cleaning"]])
    key = ["dataset", "errors", "seed"]
    before = table[table["chosen"] == "nothing"].set_index(key)["accuracy"].rename("before")
    table = table[table["chosen"] != "nothing"].join(100 * before, on=key)
    return table.assign(gain=100 * table["accuracy"] - table["before"])


def gains_text(gained: pd.DataFrame) -> pd.DataFrame:
    """`gains` per kind of errors and share, by the list and at random; means, 95 % intervals over seeds."""
    lines = []
    for (dataset, errors, share), part in gained.groupby(["dataset", "errors", "share"], sort=False):
        line = {"labels": Path(dataset).stem, "errors": errors, "labels looked at": f"{100 * share:g} %",
                "accuracy before": effects.text(effects.interval(part.groupby("seed")["before"].first()))}  # fmt: skip
        for chosen, how in part.groupby("chosen"):
            line[f"corrected, {chosen}"] = f"{how['corrected'].mean():.0f}"
            line[f"gain, {chosen}"] = effects.text(effects.interval(how["gain"]), "{:+.1f}")
        lines.append(line)
    return pd.DataFrame(lines)


def foreseen(found: Sequence[Record]) -> pd.DataFrame:
    """Of the wrong labels, the percentage that a regression on features trained without the image predicts as labelled:
    a row per kind of errors; mean and 95 % interval over seeds."""
    table = pd.DataFrame([{**each["study"], "foreseen": each["foreseen"]} for each in found])
    table["errors"] += table["rate"].notna().map({True: ", made", False: ", by people"})
    by = table.groupby([table["dataset"].map(lambda name: Path(name).stem).rename("labels"), "errors"], sort=False)
    shares = by["foreseen"].agg(lambda values: effects.text(effects.percent(values)))
    return shares.rename("foreseen, %").reset_index()


# A shop of millions ---------------------------------------------------------------------------------------------------


def long_tail() -> pd.DataFrame:
    """By how many products bear a label, sums over draws of `benchmarks/long_tail.py`: products, wrong ones, how many
    the list says are wrong, and products and wrong ones in the list's first tenth, ordered by ELR's targets alone and
    by confidence."""
    (record,) = studies.evidence("audit", "long-tail.json")
    table = pd.DataFrame([part for each in record["draws"] for part in each["sizes"]])
    sums = table.groupby(["least", "order"]).sum(numeric_only=True).unstack()
    sizes = list(sums.index)
    named = {low: f"{low} to {high - 1}" if high - low > 1 else f"{low}" for low, high in itertools.pairwise(sizes)}
    named[sizes[-1]] = f"{sizes[-1]} or more"
    return pd.DataFrame({
        "products that bear the label": sums.index.map(named),
        "products": sums["products", "targets"].to_numpy(), "wrong": sums["wrong", "targets"].to_numpy(),
        "said to be wrong": sums["said", "targets"].round().astype(int).to_numpy(),
        **{f"in the first tenth by {order} (wrong ones)": [
            f"{n} ({bad})" for n, bad in zip(sums["first", order], sums["first_wrong", order], strict=True)
        ] for order in ("targets", "confidence")},
    })  # fmt: skip


def scale() -> pd.DataFrame:
    """Steps of `benchmarks/catalogue_scale.py`: step, products, milliseconds (of one product), gigabytes (at most)."""
    (record,) = studies.evidence("audit", "catalogue-scale.json")
    table = pd.DataFrame(record["steps"])
    return table.assign(milliseconds=1e3 * table["seconds"] / table["products"], gigabytes=table["peak_mb"] / 1024)


# The head of a shop's own list --------------------------------------------------------------------------------------

FIRST, TILE = 40, 96  # products of the gallery, and the pixels of each picture in its sheet


def make_gallery(shop: Path, images: Path) -> Path:
    """Write the head of the list of a shop's own labels, as the JSON of a table and one sheet of its pictures."""
    eye, store, dataset = features.backbone(), records.state_root() / "features", data.load(str(shop))
    rows = audit.photo_rows(dataset, images, eye, store)
    found = head.audit(rows, audit.labels_of(dataset), dataset.class_names, eye.name)
    table = audit.ranked(found, dataset).head(FIRST)
    shown = importer.shown(*importer.places(shop, table["id"], images), table["id"], TILE)
    tiles = [np.asarray(Image.fromarray(shown[id_]).resize((TILE, TILE))) for id_ in table["id"]]
    columns = ["label", "suggested_label", "confidence"]
    record = {"schema": SCHEMA, "shop": shop.name, "products": len(rows), "backbone": eye.name,
              "estimated": found.wrong, "first": table[columns].round(4).to_dict("records"),
              "versions": precision.versions(), "device": precision.describe_device(features.device())}  # fmt: skip
    studies.save_sheet("audit", f"gallery-{shop.stem}", np.stack(tiles))
    return studies.save("audit", f"gallery-{shop.stem}", record)


def gallery(name: str = "clothing") -> tuple[NDArray[np.uint8], pd.DataFrame]:
    """(pictures (40, 96, 96, 3), their rows: label, suggested_label, confidence) of a shop's gallery."""
    (record,) = studies.evidence("audit", f"gallery-{name}.json")
    return studies.sheet("audit", f"gallery-{name}"), pd.DataFrame(record["first"])
