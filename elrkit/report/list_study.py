"""How well `elrkit.catalogue.scores` finds wrong labels, beside cleanlab: a study a noise level and seed, one JSON file
each.

    python -m elrkit audit-study        the studies of the report: human labels of CIFAR-10, three levels, three seeds

Three trainings of the small net on the same labels, each of exactly as many images, give the scores: ELR's targets;
cross-entropy on folds, whose out-of-fold probabilities are what cleanlab works on; and cross-entropy on all images,
taken at its best epoch, whose loss is the simplest score. Finished parts stay in the state folder, so a stopped
study goes on where it was. Results lie in `results/audit`, beside the run records.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedKFold

from elrkit import checkpoints, data, pace, records, runner, train
from elrkit.catalogue import scores as audit
from elrkit.config import HUMAN_NOISE_RATES, ConfigError, RunConfig, as_list, is_whole
from elrkit.progress import duration
from elrkit.report import effects, plans
from elrkit.report.plans import LEVELS

SCHEMA = 2  # 1 trained the cross-entropy for a quarter of ELR's epochs
TEST_IMAGES = 2_000  # choose the best epoch of cross-entropy; more would only take time
LISTED = ("listed_share", "precision", "recall", "f1")  # what `audit.measure` says of a list, whatever its order
LOOKS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)

log = logging.getLogger(__name__)


class Study(NamedTuple):
    """One comparison: which labels, how many images, how long the nets of the folds train.

    On the digits, which have no labels by people, labels are flipped within pairs of classes at the level's rate.
    """

    level: str
    seed: int
    dataset: str = "cifar10"
    images: int = 15_000
    folds: int = 5
    fold_epochs: int = 8

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.level}-{self.images}x{self.folds}x{self.fold_epochs}-seed{self.seed}"

    @property
    def elr_epochs(self) -> int:
        """ELR trains on all images as often as the folds' nets together: (folds - 1) fold_epochs times."""
        return (self.folds - 1) * self.fold_epochs


def studies(
    scale: str = "cpu",
    seeds: Sequence[int] = plans.SEEDS,
    levels: Sequence[str] = LEVELS,
    images: int = 15_000,
    fold_epochs: int = 8,
) -> list[Study]:
    """The studies of a scale, cpu (human labels of CIFAR-10) or digits, seeds outermost. Raises ConfigError."""
    if scale not in ("cpu", "digits"):
        raise ConfigError(f"scale={scale!r}: allowed are cpu, digits; the audit is not compared at the paper's scale")
    seeds, levels = as_list("seeds", seeds), as_list("levels", levels)
    for level in levels:
        if level not in HUMAN_NOISE_RATES:
            raise ConfigError(f"levels={levels}: allowed are {', '.join(HUMAN_NOISE_RATES)}")
    for name, value in (("images", images), ("fold_epochs", fold_epochs)):
        if not is_whole(value, 0):
            raise ConfigError(f"{name}={value!r}: allowed are whole numbers")
    if bad := [seed for seed in seeds if not is_whole(seed, 0)]:
        raise ConfigError(f"seeds={bad}: allowed are whole numbers from 0")
    if scale == "digits":
        images = min(images, 1347)
    if images < 200 or images > 50_000 or fold_epochs < 1:
        raise ConfigError(f"images={images}, fold_epochs={fold_epochs}: allowed are 200 to 50000 images, from 1 epoch")
    dataset = {"cpu": "cifar10", "digits": "digits"}[scale]
    made = (Study(level, seed, dataset, images, fold_epochs=fold_epochs) for seed in seeds for level in levels)
    return list(dict.fromkeys(made))


# The trainings --------------------------------------------------------------------------------------------------------


def problem(study: Study) -> data.Dataset:
    """The study's images with their given labels and, apart, the true ones; 2,000 clean test images."""
    whole = data.load(study.dataset)
    if study.dataset == "digits":
        noise = dict(noise="asymmetric", noise_rate=HUMAN_NOISE_RATES[study.level])
    else:
        noise = dict(noise="human", noise_convention=study.level)
    drawn = RunConfig(dataset=study.dataset, train_size=study.images, noise_seed=study.seed, **noise)
    chosen = train.set_up(drawn, whole)
    test = slice(TEST_IMAGES)
    return replace(
        whole, train_images=whole.train_images[torch.from_numpy(chosen.index)],
        train_labels=torch.from_numpy(chosen.given), train_truth=torch.from_numpy(chosen.truth),
        test_images=whole.test_images[test], test_labels=whole.test_labels[test], test_truth=whole.test_truth[test],
    )  # fmt: skip


def recipe(study: Study, loss: str, epochs: int) -> RunConfig:
    """The training of all parts: that of `elrkit audit`."""
    small = dict(lr=0.03, batch_size=64, augmentation="none", precision="float32")
    changes = small if study.dataset == "digits" else {}
    return audit.for_list(study.dataset, loss, epochs, eval_every=epochs, seed=study.seed, **changes)


def fold_rows(labels: ArrayLike, folds: int, seed: int) -> list[np.ndarray]:
    """Positions (n_k,) of each fold's images, classes alike by given label, each image in one fold."""
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return [rows for _, rows in splitter.split(np.zeros(len(labels)), np.asarray(labels))]


def run(
    study: Study,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_part: Callable[[str, dict], None] = lambda part, record: None,
) -> dict:
    """Train what is missing of a study and return its record, plain JSON values; raises `train.Stopped`.

    on_part  told of each part that is there: elr, fold 1 of 5, ..., cross-entropy; with the record of its training
    """
    cleanlab = _cleanlab_version()  # before hours of training
    dataset = problem(study)
    given, truth = dataset.train_labels.numpy(), dataset.train_truth.numpy()
    folder = records.state_root() / "audit" / study.name

    def part(name: str, config: RunConfig, labelled: data.Dataset) -> tuple[dict, dict]:
        record, outcome = _trained(config, labelled, folder, should_stop)
        on_part(name, record)
        return record, outcome

    elr, elr_outcome = part("elr", recipe(study, "elr", study.elr_epochs), dataset)
    fold_records, out_of_fold = [], np.zeros((len(given), dataset.num_classes))
    config = recipe(study, "ce", study.fold_epochs)
    for number, rows in enumerate(fold_rows(given, study.folds, study.seed), 1):
        without = _without(dataset, rows)
        record, outcome = part(f"fold {number} of {study.folds}", config, without)
        fold_records.append(record)
        out_of_fold[rows] = train.predict_test(config, without, outcome).softmax(dim=1).double().numpy()
    config = recipe(study, "ce", study.elr_epochs)
    ce, ce_outcome = part("cross-entropy", config, dataset)
    best = 1 + int(np.argmax(ce["curves"]["test_top1"]))
    ce_parts = [ce]
    if best < config.epochs:
        # An epoch's order and learning rate depend on its number alone, so this is the same training, stopped there.
        record, ce_outcome = part("cross-entropy to its best epoch", config.with_(epochs=best), dataset)
        ce_parts.append(record)
    rows = compare(elr_outcome["targets"], out_of_fold, ce_outcome["probabilities"], given, truth)
    seconds = {"elr": [elr], "out_of_fold": fold_records, "ce": ce_parts}
    return {
        "schema": SCHEMA,
        "study": study._asdict(),
        "data": {
            "fingerprint": dataset.fingerprint(),
            "images": len(given),
            "wrong": int((given != truth).sum()),
            "test_images": len(dataset.test_labels),
        },
        "configs": {"elr": elr["config"], "folds": fold_records[0]["config"], "ce": ce["config"]},
        "images_trained": {
            "elr": len(given) * study.elr_epochs,
            "out_of_fold": sum(r["data"]["train_images"] for r in fold_records) * study.fold_epochs,
            "ce": len(given) * study.elr_epochs,
        },
        "ce_best_epoch": best,
        "test_top1": {"elr": elr["curves"]["test_top1"][-1], "ce_best": max(ce["curves"]["test_top1"])},
        "rows": rows,
        "device": elr["device"],
        "execution": elr["execution"],
        "versions": elr["versions"] | {"cleanlab": cleanlab},
        "timing": {
            "seconds": {name: round(sum(r["timing"]["seconds"] for r in parts), 1) for name, parts in seconds.items()},
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    }


def _trained(
    config: RunConfig, dataset: data.Dataset, folder: Path, should_stop: Callable[[], bool]
) -> tuple[dict, dict]:
    """Record and outcome of one part, from its folder or by training it; the folder is named by all that decides it."""
    state = folder / f"{config.run_id}-{dataset.fingerprint()}"
    path = state / "record.json"

    def kept() -> tuple[dict, dict]:
        return json.loads(path.read_text("utf-8")), train.load_outcome(state)

    try:
        return kept()
    except FileNotFoundError:
        pass
    except ValueError as error:
        log.warning("%s: not usable (%s); this part is trained again", state, error)
    record = train.fit(config, dataset=dataset, state_dir=state, should_stop=should_stop)
    if record["status"] != "finished":
        raise data.DataError(f"{config.describe()}: diverged ({record['diverged']}); the study cannot go on")
    records.write_text(path, json.dumps(record))
    checkpoints.discard(state)
    return kept()


def _without(dataset: data.Dataset, rows: np.ndarray) -> data.Dataset:
    """`dataset` without the training images at `rows`, which become its test images, labels as given."""
    kept = torch.ones(len(dataset.train_labels), dtype=torch.bool)
    kept[torch.from_numpy(rows)] = False
    return replace(
        dataset, train_images=dataset.train_images[kept], train_labels=dataset.train_labels[kept],
        train_truth=dataset.train_truth[kept], test_images=dataset.train_images[~kept],
        test_labels=dataset.train_labels[~kept], test_truth=dataset.train_truth[~kept],
    )  # fmt: skip


def _cleanlab_version() -> str:
    try:
        return version("cleanlab")
    except ModuleNotFoundError:
        raise ConfigError("the comparison needs the package cleanlab: pip install 'elrkit[test]'") from None


# The comparison -------------------------------------------------------------------------------------------------------


def compare(
    targets: ArrayLike, out_of_fold: ArrayLike, ce: ArrayLike, labels: ArrayLike, truth: ArrayLike
) -> list[dict]:
    """All ways to find the wrong labels, measured; one dict each.

    targets, out_of_fold, ce: probabilities (n, C): ELR's targets, out-of-fold ones, and those of cross-entropy at its
    best epoch; labels, truth: (n,) integers. Keys: source (elr, out_of_fold, both: the two combined, ce, chance), score
    (a method of `audit.label_scores`, or cleanlab's), list (natural: another class is more probable than the label;
    suspect: more than twice as probable; cleanlab's; all), found: the share of wrong labels among the `LOOKS` most
    suspicious, and what `audit.measure` returns.
    """
    labels, wrong = np.asarray(labels), np.asarray(labels) != np.asarray(truth)
    rows = []

    def add(source: str, score: str, scores: ArrayLike, name: str = "", listed: ArrayLike | None = None) -> None:
        found = [0.0]
        for share in LOOKS[1:]:
            looked = max(1, round(share * len(wrong)))
            found.append(audit.precision_at(wrong, scores, share) * looked / int(wrong.sum()))
        rows.append(
            {"source": source, "score": score, "list": name, "found": found, **audit.measure(wrong, scores, listed)}
        )

    targets, out_of_fold = (np.asarray(p, dtype=float) for p in (targets, out_of_fold))
    for source, p in {"elr": targets, "out_of_fold": out_of_fold, "both": audit.combine(targets, out_of_fold)}.items():
        for method in get_args(audit.Method):
            if method == "odds":
                scores = audit.label_scores(p, labels, method)
                add(source, method, scores, "suspect", audit.suspect_list(p, labels))
                add(source, method, scores, "natural", audit.natural_list(p, labels))
            else:
                add(source, method, audit.label_scores(p, labels, method))
        scores, listed = audit.cleanlab_baseline(p, labels)
        add(source, "cleanlab", scores, "cleanlab", listed)
    # One minus the label's probability orders as the loss does.
    add("ce", "self_confidence", audit.label_scores(ce, labels, "self_confidence"), "natural",
        audit.natural_list(ce, labels))  # fmt: skip
    add("chance", "none", np.zeros(len(wrong)), "all", np.ones(len(wrong), dtype=bool))
    return rows


# The files ------------------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where new studies' files go: `audit` beside the folder of run records."""
    return records.results_root().parent / "audit"


def path_of(study: Study) -> Path:
    return records.beside("audit", f"{study.name}.json")


def save(record: dict) -> Path:
    """Write a study's record atomically, a line for each row, and return its path."""
    rows = ",\n".join(f"  {json.dumps(_short(row), allow_nan=False)}" for row in record["rows"])
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items() if key != "rows"]
    path = folder() / f"{Study(**record['study']).name}.json"
    records.write_text(path, "{\n" + ",\n".join(lines) + f',\n "rows": [\n{rows}\n ]\n}}\n')
    return path


def find(study: Study) -> dict | None:
    """The record of this study, or None; a damaged file is reported by name and counts as none."""
    path = path_of(study)
    try:
        record = json.loads(path.read_text("utf-8"))
        if record["schema"] != SCHEMA or Study(**record["study"]) != study:
            raise ValueError(f"it is no record of {study.name}, schema {SCHEMA}")
        rows = {"source", "score", "list", "found", "average_precision", "effort_half", "effort_half_random"}
        if not record["rows"] or not all(rows <= row.keys() for row in record["rows"]):
            raise ValueError("a row is not complete")
        return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("skipped %s: %s", path, str(error).splitlines()[0])
        return None


def all_records() -> list[dict]:
    """The records of the report's own studies, as far as they are there."""
    return [record for study in studies() if (record := find(study))]


def gather(wanted: Sequence[Study], train: bool = False) -> pd.DataFrame:
    """One row for each way of finding wrong labels in each of these studies that has a record; prints how many have.

    With `train`, the missing studies are made first, on one thread; standard error says how long that will take.
    Columns: Study's fields and `compare`'s keys.
    """
    if train:
        todo = [study for study in wanted if find(study) is None]
        print(f"{len(todo)} studies to make, at most {duration(estimate_seconds(todo))}", file=sys.stderr, flush=True)
        make_missing(todo)
    trained = [record for study in wanted if (record := find(study))]
    print(f"{len(trained)} of {len(wanted)} studies are there")
    return rows(trained)


def rows(trained: Sequence[dict]) -> pd.DataFrame:
    """The rows of these studies' records in one table, as `gather` returns it."""
    table = []
    for record in trained:
        # A record has the suspect list once, beside the score odds: who is on it does not depend on the order.
        listed = {
            row["source"]: {name: row[name] for name in LISTED} for row in record["rows"] if row["list"] == "suspect"
        }
        for row in record["rows"]:
            row = row if row["list"] else row | listed[row["source"]] | {"list": "suspect"}
            table.append({**record["study"], "wrong": record["data"]["wrong"], **row})
    return pd.DataFrame(table, columns=None if table else [*Study._fields, "wrong", "source", "score", "list", "found"])


def estimate_seconds(wanted: Sequence[Study]) -> float:
    """How long these studies will take here, one after the other, from the pace of a few steps of training now.

    Three trainings of equal length, and cross-entropy again up to its best epoch, which is taken to be its last.
    """
    if not wanted:
        return 0.0
    shape = (8, 8, 1) if wanted[0].dataset == "digits" else (32, 32, 3)
    trained, _ = pace.measure(recipe(wanted[0], "elr", wanted[0].elr_epochs), shape, threads=1)
    return sum(4 * study.images * study.elr_epochs for study in wanted) / trained


def make_missing(
    wanted: Sequence[Study],
    budget_seconds: float | None = None,
    on_part: Callable[[Study, str, dict], None] = lambda study, part, record: None,
) -> list[Study]:
    """Make the studies that have no record, one after the other on one thread; return those still missing.

    Stops cleanly, checkpoints written, at the end of the budget; on SIGTERM and Ctrl-C, too, and raises
    KeyboardInterrupt. Call again to go on.
    """

    def make(study: Study, should_stop: Callable[[], bool]) -> None:
        save(run(study, should_stop=should_stop, on_part=lambda part, record: on_part(study, part, record)))

    return runner.make_missing(wanted, find, make, _state, budget_seconds)


def _state(study: Study) -> Path:
    return records.state_root() / "audit" / study.name


def _short(row: dict) -> dict:
    def short(value):
        return round(value, 6) if isinstance(value, float) else value

    return {k: [short(v) for v in value] if isinstance(value, list) else short(value) for k, value in row.items()}


# Tables ---------------------------------------------------------------------------------------------------------------

FINDERS = {  # (source, score, list) -> its name in tables and figures; each with the package's own default
    ("elr", audit.OF_TARGETS, "suspect"): "ELR targets",
    ("out_of_fold", "cleanlab", "cleanlab"): "cleanlab, out-of-fold CE",
    ("both", audit.OF_TARGETS, "suspect"): "both",
    ("ce", "self_confidence", "natural"): "CE loss, best epoch",
    ("chance", "none", "all"): "chance",
}


def named(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `gather` that `FINDERS` names, with that name in the column `finder`."""
    keys = list(zip(rows["source"], rows["score"], rows["list"], strict=True))
    kept = rows.assign(finder=[FINDERS.get(key) for key in keys])
    return kept[kept["finder"].notna()]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """The named finders as a person reads them: a row per level and finder, percent, mean and 95 % interval over seeds.

    looks: labels to look at until half of the wrong ones are found, of looks in any order; precision: really wrong
    labels among the most suspicious 1, 5 and 10 %.
    """
    kept = named(rows)
    if len(kept):
        kept = kept.assign(looks=kept["effort_half"] / kept["effort_half_random"])
    columns = {
        "looks": "looks for half", "precision_at_1": "precision at 1 %", "precision_at_5": "at 5 %",
        "precision_at_10": "at 10 %", "average_precision": "average precision",
    }  # fmt: skip
    table = [
        {"level": level, "finder": finder}
        | {name: effects.text(effects.interval(100 * part[column])) for column, name in columns.items()}
        for (level, finder), part in kept.groupby(["level", "finder"], sort=False)
    ]
    return pd.DataFrame(table, columns=["level", "finder", *columns.values()])


def less_than(rows: pd.DataFrame, rival: str, measure: str = "average_precision") -> pd.DataFrame:
    """ELR targets less a rival of `FINDERS`, in percent of the measure, within a study: level, difference as text."""
    by = named(rows).pivot_table(index=["level", "seed"], columns="finder", values=measure, sort=False)
    points = 100 * (by["ELR targets"] - by[rival]).dropna()
    texts = {
        level: effects.text(effects.interval(part), "{:+.1f}") for level, part in points.groupby("level", sort=False)
    }
    return pd.Series(texts, name=f"ELR targets less {rival}").rename_axis("level").reset_index()
