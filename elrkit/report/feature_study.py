"""How well the list by a pretrained network's features finds wrong labels, beside cleanlab and neighbours on the same
features: a study a dataset, kind of errors and seed, one JSON file each in `results/audit`.

    python -m elrkit feature-study                               labels by people on CIFAR-10, three levels
    python -m elrkit feature-study --shop shop.npz --images .    errors made in a shop's own labels

Nothing in them chose a parameter of `elrkit.catalogue.head`.
"""

import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors

from elrkit import data, precision, records
from elrkit.catalogue import audit, features, head, importer, scores
from elrkit.report import effects, list_study, plans

SCHEMA = 1
LOOKS = list_study.LOOKS
FINDERS = {"head": "ELR on features", "cleanlab": "cleanlab on features", "neighbours": "15 neighbours"}
SIDE = {"cifar10": 128}  # pixels to which a dataset's small pictures are enlarged; others: the backbone's own
IMAGES = 5_000  # of CIFAR-10 in a study
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # of confidence
SIBLINGS = 3  # made errors between siblings go to one of so many categories that look alike


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


PEOPLE = [Study("cifar10", level, seed) for seed in plans.SEEDS for level in plans.LEVELS]


def made_wrong(rows: NDArray, labels: NDArray, kind: str, rate: float, seed: int) -> NDArray:
    """Labels (n,) of which a share is moved: uniform, to any other category; siblings, to one of the three whose
    products look most alike by rows (n, d)."""
    draw = np.random.default_rng([seed, 7])
    count = int(labels.max()) + 1
    moved, result = draw.permutation(len(labels))[: round(rate * len(labels))], labels.copy()
    if kind == "uniform":
        result[moved] = (labels[moved] + draw.integers(1, count, len(moved))) % count
        return result
    scaled = head.standardized(rows)[0]
    centres = np.stack([scaled[labels == k].mean(0) for k in range(count)])
    apart = ((centres[:, None] - centres[None]) ** 2).sum(-1)
    np.fill_diagonal(apart, np.inf)
    near = apart.argsort(1)[:, :SIBLINGS]
    result[moved] = near[labels[moved], draw.integers(near.shape[1], size=len(moved))]
    return result


def problem(study: Study, images: Path | None, store: Path) -> tuple[NDArray, NDArray, NDArray, tuple[str, ...]]:
    """(features, given labels, true labels, class names) of a study."""
    eye = features.backbone()
    eye = eye._replace(side=SIDE.get(study.dataset, eye.side))
    if study.rate is None:
        chosen = list_study.problem(list_study.Study(study.errors, study.seed, study.dataset, IMAGES))
        chosen = replace(chosen, test_images=chosen.test_images[:0], test_labels=chosen.test_labels[:0])
        rows = audit.photo_rows(chosen, None, eye, store)
        return rows, chosen.train_labels.numpy(), chosen.train_truth.numpy(), chosen.class_names
    shop = data.load(study.dataset)
    rows = audit.photo_rows(shop, images, eye, store)
    truth = np.concatenate([shop.train_labels.numpy(), shop.test_labels.numpy()])
    return rows, made_wrong(rows, truth, study.errors, study.rate, study.seed), truth, shop.class_names


def new_products(study: Study, store: Path) -> tuple[NDArray, NDArray, NDArray] | None:
    """(features, given labels, true labels) of images that a study of people's labels does not have: those of the next
    seed's. None for a shop, whose products are all in the study."""
    if study.rate is not None:
        return None
    seeds = (study.seed, plans.SEEDS[(plans.SEEDS.index(study.seed) + 1) % len(plans.SEEDS)])
    here, other = (
        list_study.problem(list_study.Study(study.errors, seed, study.dataset, IMAGES)).train_images.numpy()
        for seed in seeds
    )
    rows, labels, truth, _ = problem(study._replace(seed=seeds[1]), None, store)
    seen = {image.tobytes() for image in here}
    new = np.array([image.tobytes() not in seen for image in other])
    return rows[new], labels[new], truth[new]


def checked(model: head.Model, rows: NDArray, labels: NDArray, truth: NDArray) -> dict[str, Any]:
    """What the check makes of new products: shares of the rightly filed that pass and of the others that do not, and
    how often the first category that it suggests for these is the true one."""
    found, right = head.check(model, rows, labels), labels == truth
    stopped = found.verdict != "fits"
    first = found.alternatives[:, 0] == truth
    return {"products": len(labels), "passed": round(float(1 - stopped[right].mean()), 4),
            "caught": round(float(stopped[~right].mean()), 4),
            "suggested": round(float(first[~right & stopped].mean()), 4)}  # fmt: skip


def run(
    study: Study,
    rows: NDArray,
    labels: NDArray,
    truth: NDArray,
    classes: tuple[str, ...],
    new: tuple[NDArray, NDArray, NDArray] | None = None,
) -> dict[str, Any]:
    """The record of a study: how each finder orders the labels, what the head says of their number and its confidence,
    and what its check lets through and catches, by its own word and of `new` products."""
    wrong = labels != truth
    kept: dict[str, Any] = {}

    def by_head() -> NDArray:
        kept["found"] = head.audit(rows, labels, classes, seed=study.seed)
        return kept["found"].suspicion

    def by_cleanlab() -> NDArray:
        folds = StratifiedKFold(5, shuffle=True, random_state=study.seed)
        regression = LogisticRegression(C=0.003, max_iter=300)
        guess = cross_val_predict(regression, head.standardized(rows)[0], labels, cv=folds, method="predict_proba")
        return scores.cleanlab_baseline(guess, labels)[0]

    def by_neighbours() -> NDArray:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        near = NearestNeighbors(n_neighbors=16).fit(unit).kneighbors(unit, return_distance=False)[:, 1:]
        return (labels[near] != labels[:, None]).mean(1)

    finders = []
    for name, find in (("head", by_head), ("cleanlab", by_cleanlab), ("neighbours", by_neighbours)):
        started = time.perf_counter()
        order = find()
        seconds = round(time.perf_counter() - started, 1)
        hits = [scores.precision_at(wrong, order, share) * max(1, round(share * len(wrong))) for share in LOOKS[1:]]
        found = [0.0, *(round(float(each / wrong.sum()), 4) for each in hits)]
        measured = {key: round(value, 4) for key, value in scores.measure(wrong, order).items()}
        finders.append({"finder": name, "seconds": seconds, "found": found, **measured})
    judged: head.Found = kept["found"]
    bins = np.digitize(judged.confidence, BINS[1:-1])
    passing = head.passing(judged.model)
    return {
        "schema": SCHEMA, "study": study._asdict(), "images": len(labels), "wrong": int(wrong.sum()),
        "estimated": [round(each, 4) for each in judged.wrong], "finders": finders,
        "confidence": [
            {"said": round(float(judged.confidence[bins == k].mean()), 4),
             "wrong": round(float(wrong[bins == k].mean()), 4), "labels": int((bins == k).sum())}
            for k in range(len(BINS) - 1) if (bins == k).any()
        ],
        "check": {"let_through": 0.95, "catches": round(passing.caught, 4),
                  **(checked(judged.model, *new) if new else {})},
        "training": {**head.TRAINING, **head.ELR, "rounds": head.ROUNDS},
        "versions": precision.versions() | {"cleanlab": version("cleanlab")},
        "device": precision.describe_device(features.device()),
    }  # fmt: skip


def path_of(study: Study) -> Path:
    return records.beside("audit", f"{study.name}.json")


def make(study: Study, images: Path | None = None) -> Path:
    """Make a study and write its record into one's own store; returns its path."""
    store = records.state_root() / "features"
    record = run(study, *problem(study, images, store), new_products(study, store))
    path = records.results_root().parent / "audit" / f"{study.name}.json"
    records.write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return path


def all_records() -> list[dict[str, Any]]:
    """The studies that are there, those of the evidence's folder and one's own."""
    folders = {path_of(study).parent for study in PEOPLE} | {records.evidence_root().parent / "audit"}
    found = sorted({path.name: path for folder in folders for path in folder.glob("features-*.json")}.values())
    return [json.loads(path.read_text("utf-8")) for path in found]


def rows(found: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A row a study and finder: dataset, errors, rate, seed, images, wrong, and what was measured of the finder."""
    return pd.DataFrame(
        [{**each["study"], "images": each["images"], "wrong": each["wrong"], **finder, "estimated": each["estimated"]}
         for each in found for finder in each["finders"]]
    )  # fmt: skip


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Per kind of errors and finder: average precision, precision of the first tenth, looks for half of looks in any
    order, all in percent, and seconds; means over seeds with 95 % intervals."""
    lines = []
    for (dataset, errors, rate, finder), part in table.groupby(
        ["dataset", "errors", "rate", "finder"], dropna=False, sort=False
    ):
        kind = errors if rate != rate else f"{errors}, made"
        wrong = f"{100 * (part['wrong'] / part['images']).mean():.0f}"
        said = {"labels": Path(dataset).stem, "errors": kind, "wrong, %": wrong, "finder": FINDERS[finder]}
        for name, value in {
            "average precision": part["average_precision"], "of the first tenth": part["precision_at_10"],
            "looks for half": part["effort_half"] / part["effort_half_random"],
        }.items():  # fmt: skip
            said[name] = effects.text(effects.interval(100 * value))
        lines.append(said | {"seconds": f"{part['seconds'].mean():.0f}"})
    return pd.DataFrame(lines)


def calibration(found: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Per kind of errors, means over seeds in percent: how many labels are wrong and how many were estimated; of the
    labels in each range of confidence, how many are wrong."""
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
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


def checks(found: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """What the check does with new products, by level of people's labels: percent, means, 95 % intervals over seeds."""
    table = pd.DataFrame([{**each["study"], **each["check"]} for each in found if "passed" in each["check"]])
    names = {"passed": "rightly filed that pass", "catches": "wrongly filed caught, by its own word",
             "caught": "wrongly filed caught", "suggested": "true category suggested first"}  # fmt: skip
    lines = [
        {"errors": errors} | {text: effects.text(effects.interval(100 * part[name])) for name, text in names.items()}
        for errors, part in table.groupby("errors", sort=False)
    ]
    return pd.DataFrame(lines)


# The head of a shop's own list --------------------------------------------------------------------------------------

FIRST, TILE = 40, 96  # products of the gallery, and the pixels of each picture in its sheet


def make_gallery(shop: Path, images: Path) -> Path:
    """Write the head of the list of a shop's own labels, as the JSON of a table and one sheet of its pictures."""
    eye, store, dataset = features.backbone(), records.state_root() / "features", data.load(str(shop))
    rows = audit.photo_rows(dataset, images, eye, store)
    found = head.audit(rows, audit.labels_of(dataset), dataset.class_names, eye.name)
    table = audit.ranked(found, dataset).head(FIRST)
    shown = importer.originals(shop, table["id"], images, TILE)
    sheet = Image.new("RGB", (TILE * FIRST, TILE), "white")
    for place, id_ in enumerate(table["id"]):
        sheet.paste(Image.fromarray(shown[id_]).resize((TILE, TILE)), (TILE * place, 0))
    path = records.results_root().parent / "audit" / f"gallery-{shop.stem}.json"
    columns = ["label", "suggested_label", "confidence"]
    record = {"schema": SCHEMA, "shop": shop.name, "products": len(rows), "backbone": eye.name,
              "estimated": found.wrong, "first": table[columns].round(4).to_dict("records"),
              "versions": precision.versions(), "device": precision.describe_device(features.device())}  # fmt: skip
    records.write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
    sheet.save(path.with_suffix(".webp"), quality=85, method=6)
    return path


def gallery(name: str = "clothing") -> tuple[NDArray[np.uint8], pd.DataFrame]:
    """(pictures (40, 96, 96, 3), their rows: label, suggested_label, confidence) of a shop's gallery."""
    path = records.beside("audit", f"gallery-{name}.json")
    first = pd.DataFrame(json.loads(path.read_text("utf-8"))["first"])
    with Image.open(path.with_suffix(".webp")) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    return np.stack(np.split(pixels, len(first), axis=1)), first
