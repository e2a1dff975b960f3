"""The command line: ``python -m elrkit COMMAND --help``."""

import dataclasses
import json
import logging
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from elrkit import progress, records, runner
from elrkit.catalogue import importer as catalogue
from elrkit.catalogue.decisions import read_decisions
from elrkit.config import BUILT_IN_TRAIN_SIZES, ELR_CIFAR10, ELR_CIFAR100, ConfigError, RunConfig
from elrkit.data import Dataset
from elrkit.report import plans
from elrkit.train import predict_test

app = tyro.extras.SubcommandApp()

# RunConfig's fields as flags, each with its description; RunConfig itself checks them, in its own words.
RunFlags = dataclasses.make_dataclass(
    "RunFlags",
    [
        (
            name,
            Annotated[field.annotation, tyro.conf.arg(help=field.description)],
            dataclasses.field(default=field.default),
        )
        for name, field in RunConfig.model_fields.items()
    ],
)

Scale = Literal[plans.SCALES]
Positional = tyro.conf.Positional


def _budget(text: str | None) -> float | None:
    """Seconds of 90s, 9m or 2h."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise ConfigError(f"budget={text!r}: allowed are a number and s, m or h, such as 9m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _train(
    configs: list[RunConfig], train_missing: Callable[..., list[RunConfig]], announced: bool = False, **options: Any
) -> int:
    """Train what is missing by `train_missing` (of `runs`, or its counterpart of `scale`), with progress and counts;
    `announced`: first say how long it will take here. 1 when a run failed; one that was merely stopped by its budget,
    or that another process trains, is no failure."""
    todo = runner.missing(configs)
    print(f"{len(configs)} runs, {len(configs) - len(todo)} there, {len(todo)} to train")
    if not todo:
        return 0
    if announced:
        runner.announce(todo, options["jobs"], options.get("threads"))
    last: dict[str, str] = {}

    def tell(left: list[RunConfig]) -> int:
        failed, missing = _still_missing(left, last)
        print(f"{len(todo) - len(left)} trained, {missing}; records in {records.results_root()}")
        return 1 if failed else 0

    try:
        with progress.display(len(todo)) as show:
            on_event, last = _noting(show)
            left = train_missing(todo, on_event=on_event, **options)
    except KeyboardInterrupt:
        tell(runner.missing(todo))
        raise
    return tell(left)


def _noting(show: Callable[[runner.Event], None]) -> tuple[Callable[[runner.Event], None], dict[str, str]]:
    """A listener that passes each event on to `show`, and what it notes: the last kind of event of each run."""
    last: dict[str, str] = {}

    def on_event(event: runner.Event) -> None:
        last[event.config.run_id] = event.kind
        show(event)

    return on_event, last


def _still_missing(left: list[RunConfig], last: dict[str, str]) -> tuple[int, str]:
    """How many of the missing runs failed, and both in words."""
    # A process that was killed ends its run without a word.
    failed = sum(last.get(config.run_id) in ("failed", "started", "progress") for config in left)
    return failed, f"{len(left)} still missing" + (f", {failed} of them failed, see above" if failed else "")


@app.command
def train(
    flags: Annotated[RunFlags, tyro.conf.OmitArgPrefixes],
    threads: int | None = None,
    budget: str | None = None,
    compiled: bool = False,
) -> int:
    """Train one run, given by flags or by a JSON file of fields: `train config.json --seed 3`.

    Without flags: cross-entropy on the digits, about 15 seconds. A finished run is not trained again; a stopped one
    goes on where it was.

    Args:
        flags: what to train
        threads: CPU threads (default: one for the small net, else all cores)
        budget: stop cleanly after this long, for example 9m
        compiled: train through torch.compile, worth its start-up on long runs
    """
    fields = RunConfig.model_fields
    config = RunConfig(**{k: v for k, v in dataclasses.asdict(flags).items() if v != fields[k].default})
    status = _train([config], runner.train_missing, threads=threads, budget_seconds=_budget(budget), compiled=compiled)
    if record := records.find(config):
        print(json.dumps({name: column[-1] for name, column in record["curves"].items() if column}, indent=1))
        print(records.record_path(config))
    return status


@app.command(name="runs")
def list_runs(
    dataset: str | None = None,
    loss: str | None = None,
    scale: str | None = None,
    columns: tuple[str, ...] = (
        "run_id", "dataset", "model", "noise", "noise_rate", "loss", "schedule", "sam_rho", "seed", "scale", "status",
        "test_top1", "wrong_memorized", "seconds",
    ),
    csv: bool = False,
) -> int:  # fmt: skip
    """List the runs that have a record.

    Args:
        dataset: only this dataset
        loss: only this loss
        scale: only runs at this scale (paper, cpu, digits or other)
        columns: what to show, any field of a config or a record
        csv: print comma-separated values
    """
    table = records.table(records.read_all())
    for name, value in (("dataset", dataset), ("loss", loss), ("scale", scale)):
        if value is not None:
            table = table[table[name] == value]
    if unknown := [name for name in columns if len(table) and name not in table]:
        raise ConfigError(f"columns={unknown}: allowed are {', '.join(table.columns)}")
    if table.empty:
        print(f"no such runs in {records.results_root()}")
        return 0
    table = table[list(columns)]
    print(table.to_csv(index=False) if csv else table.to_string(index=False), end="" if csv else "\n")
    return 0


@dataclasses.dataclass(frozen=True)
class Part:
    """A smaller or larger plan than the report's; each option that is left out is the plan's own."""

    seeds: tuple[int, ...] | None = None
    """of the runs"""
    noise_rates: tuple[float, ...] | None = None
    """of the plans that have them"""
    levels: tuple[Literal[plans.LEVELS], ...] | None = None
    """of people's labels, for human-noise"""
    epochs: int | None = None
    """of every run"""
    size: int | None = None
    """settings of a sweep (112 random ones, the whole grid)"""

    def of(self, name: str, scale: str) -> list[RunConfig]:
        return plans.plan(name, scale, **dataclasses.asdict(self))


OfPlan = Annotated[Part, tyro.conf.OmitArgPrefixes]


@app.command
def plan(
    name: Positional[Literal[tuple(plans.PLANS)]],
    scale: Scale = "cpu",
    jobs: int = 1,
    part: OfPlan = Part(),
) -> int:
    """List the runs of a named plan: which are there, which are missing, how long the missing ones will take here.

    Args:
        name: the plan
        scale: paper (its network and epochs), cpu (a small net on the same images) or digits (minutes for a plan)
        jobs: runs at a time, for the estimate
        part: fewer or other runs than the report's
    """
    configs = part.of(name, scale)
    todo = {config.run_id for config in runner.missing(configs)}
    for config in configs:
        print("missing" if config.run_id in todo else "there  ", config.run_id, config.describe())
    print(f"{len(configs)} runs, {len(configs) - len(todo)} there, {len(todo)} missing", end="")
    if todo:
        seconds = runner.estimate_seconds([config for config in configs if config.run_id in todo], jobs)
        print(f"; about {progress.duration(seconds)} on this machine, {jobs} at a time", end="")
        if seconds > runner.LONG_SECONDS:
            print(f"\n{runner.SMALLER}", end="")
    print()
    return 0


@app.command
def run(
    name: Positional[Literal[tuple(plans.PLANS)]],
    scale: Scale = "cpu",
    jobs: int = 1,
    threads: int | None = None,
    budget: str | None = None,
    compiled: bool = False,
    ray: str | None = None,
    gpus_per_run: float = 0.0,
    part: OfPlan = Part(),
) -> int:
    """Train the missing runs of a named plan in order of priority; run it again until nothing is missing.

    Args:
        name: the plan
        scale: paper (its network and epochs), cpu (a small net on the same images) or digits (minutes for a plan)
        jobs: runs at a time, each in a process of its own
        threads: CPU threads of each run (default: one for the small net, else the cores shared out)
        budget: stop cleanly after this long, for example 9m
        compiled: train through torch.compile, worth its start-up on long runs
        ray: address of a Ray cluster, host:port or auto; `here` starts one on this machine (needs elrkit[scale])
        gpus_per_run: with ray, the share of a GPU that a run takes; 0.25 puts four on each
        part: fewer or other runs than the report's
    """
    configs = part.of(name, scale)
    common = {"budget_seconds": _budget(budget), "compiled": compiled}
    if ray is None:
        return _train(configs, runner.train_missing, announced=True, jobs=jobs, threads=threads, **common)
    from elrkit.scale import train_missing_on_ray

    address = None if ray == "here" else ray
    return _train(
        configs, train_missing_on_ray, address=address, gpus_per_run=gpus_per_run, cpus_per_run=threads or 1, **common
    )


@app.command(name="import")
def import_records(file: Positional[Path]) -> int:
    """Add the records of a tar made on another machine; each is checked, known ones are left alone.

    Args:
        file: a .tar, .tar.gz or .tar.xz of record files
    """
    added, known, refused = records.import_tar(file)
    for reason in refused:
        print(f"refused {reason}", file=sys.stderr)
    print(
        f"{len(added)} added, {len(known)} known already, {len(refused)} refused; records in {records.results_root()}"
    )
    return 1 if refused else 0


@app.command
def audit(
    run_or_feed: Positional[str],
    out: Path = Path("audit"),
    top: int = 1000,
    epochs: int = 30,
    probabilities: Path | None = None,
    decisions: tuple[Path, ...] = (),
    images: Path | None = None,
) -> int:
    """Write the list of labels to look at: labels.csv, and review.html to go through with the keyboard.

    Given a dataset (an .npz of import-feed, a folder of class folders), trains ELR with a small net on it first. Its
    test images are listed with the others, by what the network, which has not seen them, makes of them.

    Args:
        run_or_feed: id of a finished run on this machine, or a dataset file or folder
        out: folder to write
        top: products in the page, the most suspicious first
        epochs: of the training, when a dataset is given
        probabilities: out-of-fold class probabilities of any model: an .npy (n, C) of the dataset's training images, or
            an .npz with arrays train and test. With a dataset nothing is trained; with a run both are put together
        decisions: CSV files saved by the page, in the order of the reviews. Products that were confirmed or kept, and
            are filed as was decided, are not listed again
        images: the folder that was given to import-feed: the page then shows the products' pictures as the shop has
            them, not as small as the network sees them
    """
    from elrkit import data
    from elrkit.catalogue import audit

    given = None if probabilities is None else audit.read_probabilities(probabilities)
    decided = [read_decisions(path) for path in decisions]
    is_run = re.fullmatch("[0-9a-f]{12}", run_or_feed)
    if is_run:
        config = RunConfig(**records.by_id(run_or_feed)["config"])
        runner.missing([config])  # refuses a dataset whose content is not what the run was trained on
        dataset = data.load(config.dataset)
    else:
        dataset = _dataset_to_audit(run_or_feed)
        config = None if given else _audit_config(run_or_feed, dataset, epochs)
    audit.check_listable(dataset, top)  # now, and not after minutes of training
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out={out}: a file; allowed is a folder, there or not")
    originals = _originals(dataset, images)
    if config is None:
        written = audit.audit_probabilities(given[0], dataset, out, top, given[1], decided, originals)
    else:
        if not is_run:
            _train([config], runner.train_missing, announced=True, jobs=1)
            if records.find(config) is None:
                print("error: the training did not finish, see above; the same command goes on", file=sys.stderr)
                return 1
        record = records.find(config)
        if record["status"] != "finished":
            raise ConfigError(f"run {config.run_id}: its training diverged, so it says nothing of the labels")
        outcome = records.outcome(record)
        if outcome is None:
            raise ConfigError(
                f"run {config.run_id}: its network is not in {records.state_dir(config)} (trained elsewhere or on other "
                f"data of that name, or there was no room for it); remove {records.record_path(config)} and train it here"
            )
        _say_what_the_net_knows(record, dataset)
        if outcome["targets"] is None and not given:
            print(
                f"warning: run {config.run_id} was trained with {config.loss}, which keeps no targets: its predictions "
                "have seen the labels, and wrong ones that it memorized are not listed; train with --loss elr, or give "
                "out-of-fold --probabilities"
            )
        if left := len(dataset.train_images) - len(outcome["index"]):
            part = config.model_dump(include={"train_size", "split"}, exclude_defaults=True)
            print(
                f"{left} of the dataset's {len(dataset.train_images)} training images are not in the list: run "
                f"{config.run_id} was not trained on them ({', '.join(f'{name}={part[name]}' for name in part)})"
            )
        test = predict_test(config, dataset, outcome).softmax(dim=1).numpy() if dataset.test_ids else None
        if given and test is not None and given[1] is not None:
            test = audit.combine(test, given[1])
        written = audit.audit_outcome(outcome, dataset, out, top, test, given and given[0], decided, originals)
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
    if originals is None and dataset.train_ids:
        print(f"its pictures are {dataset.train_images.shape[1]} pixels wide; --images FOLDER shows the feed's own")
    shown = f", which has the first {top} of them" if len(written.listed) > top else ""
    applied = "import-feed --decisions applies" if dataset.name.endswith(".npz") else "its decisions.csv lists"
    print(f"open {written.page} in a browser{shown}; {applied} what you decide there")
    return 0


def _originals(dataset: Dataset, images: Path | None) -> Callable | None:
    """Where the page's pictures come from; None where the dataset's own are all there is."""
    from elrkit import data

    if dataset.train_ids is None:
        if images is not None:
            raise ConfigError(f"images={images}: {dataset.name} has no ids that name its images; leave it out")
        return None
    path = data.own_path(dataset.name)
    if path.is_dir():
        if images is not None:
            raise ConfigError(f"images={images}: the images of {dataset.name} are its own files; leave it out")
    elif images is None:
        return None
    else:
        catalogue.originals(path, (), images)  # now, and not after minutes of training

    def find(ids: Sequence[str]) -> Mapping:
        found = catalogue.originals(path, ids, images or path)
        if len(found) < len(ids):
            print(
                f"warning: {len(found)} of the page's {len(ids)} pictures found in {images or path}, the others as the "
                "network sees them; give the folder that import-feed was given"
            )
        return found

    return find


LEAST_SKILL = 0.25  # of the way from naming the commonest class to agreeing with every held-out label


def _say_what_the_net_knows(record: dict, dataset: Dataset) -> None:
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
            "better model's --probabilities"
        )


def _dataset_to_audit(name: str) -> Dataset:
    """The dataset of this name; raises ConfigError that says what to do first where it is a feed."""
    from elrkit import data

    def is_feed() -> bool:
        path = Path(name).expanduser()
        inside = path.rglob("*") if path.is_dir() else [path]
        return any(each.suffix.lower() in (".xml", ".csv") and each.is_file() for each in inside)

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
        "--out shop.npz`, then audit shop.npz"
    )


def _audit_config(name: str, dataset: Dataset, epochs: int) -> RunConfig:
    """ELR on a dataset of one's own, with the paper's lambda and beta for as many classes and a net for CPUs."""
    known = name in BUILT_IN_TRAIN_SIZES or "/" in name or name.endswith(".npz")
    elr = ELR_CIFAR100 if dataset.num_classes > 10 else ELR_CIFAR10
    batch = min(128, len(dataset.train_labels))
    return plans.for_list(name if known else f"./{name}", "elr", epochs, eval_every=5, batch_size=batch, **elr)


@app.command
def import_feed(
    feeds: Positional[tuple[Path, ...]],
    out: Path,
    images: Path = Path(),
    rules: catalogue.FeedRules = catalogue.FeedRules(),  # noqa: B008  (frozen)
    decisions: tuple[Path, ...] = (),
    download_from: tuple[str, ...] = (),
    licence: str = "not stated",
    workers: int = 2,
) -> int:
    """Read a shop's feed (XML or CSV) and write a dataset with its manifest; what is dropped is counted by reason.

    Args:
        feeds: XML and CSV files, or folders of them
        out: the .npz to write
        images: folder below which the feed's image paths lie
        rules: what to keep
        decisions: CSV files saved by the page of `audit`, in the order of the reviews, applied to the labels
        download_from: hosts whose image addresses may be fetched; without them none is
        licence: terms of the feed, for the manifest
        workers: processes that decode images
    """
    manifest = catalogue.import_feed(
        feeds, out, images=images, rules=rules, decisions=decisions, download_from=download_from, licence=licence,
        workers=workers,
    )  # fmt: skip
    print(catalogue.summary(manifest))
    if (dropped := catalogue.dropped_list(out)).exists():
        print(f"every dropped product, with its reason: {dropped}")
    return 0


@app.command
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
        seed: of everything that is drawn
    """
    from elrkit.catalogue import made_feed as feedmaker

    truth = feedmaker.make_feed_from(
        dataset, out, classes=classes, products_per_class=products_per_class, misfiled=misfiled, siblings=siblings,
        near_duplicates=near_duplicates, unusable=unusable, format=format, seed=seed,
    )  # fmt: skip
    print(json.dumps(truth, indent=1))
    return 0


@app.command
def audit_study(
    levels: tuple[str, ...] = plans.LEVELS,
    seeds: tuple[int, ...] = plans.SEEDS,
    scale: Literal["cpu", "digits"] = "cpu",
    images: int = 15_000,
    fold_epochs: int = 8,
    budget: str | None = None,
) -> int:
    """Measure how well the list of labels to look at finds human labels that are wrong, beside cleanlab.

    Each level and seed is one study on one thread: ELR, cross-entropy on five folds for as many images trained, and
    cross-entropy on all images. A finished study is not made again, a stopped one goes on where it was.

    Args:
        levels: of CIFAR-10N
        seeds: of images, folds and trainings
        scale: cpu (CIFAR-10 with labels by people) or digits (flipped labels, a minute a study)
        images: training images of each study
        fold_epochs: epochs of each fold's net; ELR trains for four times as many on all images
        budget: stop cleanly after this long, for example 9m
    """
    from elrkit.report import list_study as audit_study

    wanted = audit_study.studies(scale, seeds, levels, images, fold_epochs)
    todo = [study for study in wanted if audit_study.find(study) is None]
    takes = f", at most {progress.duration(audit_study.estimate_seconds(todo))}" if todo else ""
    print(f"{len(wanted)} studies, {len(wanted) - len(todo)} there, {len(todo)} to make{takes}", flush=True)

    def show(study: audit_study.Study, part: str, record: dict) -> None:
        print(f"{study.name}: {part}, {progress.duration(record['timing']['seconds'])}", flush=True)

    left = audit_study.make_missing(todo, _budget(budget), show)
    print(f"{len(todo) - len(left)} made, {len(left)} still missing; records in {audit_study.folder()}")
    return 0


@app.command(name="shop")
def shop_command(
    scale: Scale = "cpu",
    seeds: tuple[int, ...] = plans.SEEDS,
    leaks: tuple[int, ...] = (0, 20, 40, 60),
    jobs: int = 1,
    budget: str | None = None,
) -> int:
    """Retrace Section 5.3: make shops of known faults, train CE, ELR and ELR with SAM on them, measure.

    Needs CIFAR-100 (but for the digits), and for the gallery the open clothing feed, in ELRKIT_DATA. Stop it and
    call it again at any time.

    Args:
        scale: cpu, paper or digits
        seeds: of feed, split and training; the first is finished before the second begins
        leaks: percent of the test products with a near-duplicate in training
        jobs: runs at a time
        budget: stop cleanly after this long, for example 9m
    """
    from elrkit.report import made_shops as shop

    chosen = shop.shops(scale, seeds, leaks)
    with progress.display(len(shop.ARMS) * len(chosen)) as show:
        on_event, last = _noting(show)
        left = shop.run(chosen, jobs=jobs, budget_seconds=_budget(budget), on_event=on_event)
    failed, missing = _still_missing(left, last)
    print(f"of {len(shop.ARMS) * len(chosen)} runs {missing}; summaries in {shop.folder()}")
    return 1 if failed else 0


@app.command
def human_labels(out: Path | None = None) -> int:
    """Count what people's labels of CIFAR-10 are (CIFAR-10N), per true class, into the file that the report reads.

    Needs CIFAR-10 and CIFAR-10N's label file below ELRKIT_DATA.

    Args:
        out: the JSON to write (default: results/human_labels.json of this repository)
    """
    from elrkit import data, noise, train

    cifar = data.load("cifar10")
    counts = noise.human_label_counts(train.human_labels_file(), cifar.train_labels, cifar.class_names)
    out = out or noise.HUMAN_COUNTS_FILE
    records.write_text(out, records.as_lines(counts))
    print(f"{counts['images']:,} labels of each level counted: {out}")
    return 0


@app.command
def clean(scale: Scale = "cpu", seeds: tuple[int, ...] = plans.SEEDS, jobs: int = 1, budget: str | None = None) -> int:
    """Correct 1, 5 and 10 % of the labels, by the list or at random, and fine-tune; at cpu scale on human labels.

    Args:
        scale: cpu, paper or digits
        seeds: of the run to go on from
        jobs: runs at a time
        budget: stop cleanly after this long, for example 9m
    """
    from elrkit.report import made_shops as shop

    started, seconds = time.monotonic(), _budget(budget)
    bases = [shop.clean_base(scale, seed) for seed in seeds]
    status = _train(bases, runner.train_missing, announced=True, jobs=jobs, budget_seconds=seconds)
    for base in bases:
        summary = shop.clean(base, lambda: seconds is not None and time.monotonic() - started > seconds)
        made = f"{len(summary['rows']) if summary else 0} of {1 + 2 * len(shop.FRACTIONS)} fine-tunings"
        if summary is None and records.find(base):
            made += (
                f"; its record is from another machine, its weights are not in {records.state_dir(base)}: "
                "take other --seeds, or a store of your own (ELRKIT_RESULTS), for which it is trained here"
            )
        print(f"{base.describe()}: {made}")
    print(f"summaries in {shop.folder()}")
    return status


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 if all went well, 1 if something failed on the way, 2 if the arguments or the data cannot
    be used, 130 if it was stopped by Ctrl-C or SIGTERM."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        if arguments[:1] == ["train"] and len(arguments) > 1 and not arguments[1].startswith("-"):
            arguments = ["train", *_flags_of_file(Path(arguments[1])), *arguments[2:]]
        return app.cli(prog="python -m elrkit", args=arguments, use_underscores=False) or 0
    except (ValueError, OSError) as error:  # each in one line that says how to mend it
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130


def _flags_of_file(path: Path) -> list[str]:
    """The fields of a config file as the flags they stand for, so that later flags override them."""
    try:
        text = path.read_text("utf-8")
        config = RunConfig.from_json(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"{path}: not readable ({reason}); give a JSON file of RunConfig's fields") from None
    flags = []
    for name, value in config.model_dump(mode="json", include=set(json.loads(text)), exclude_none=True).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{name.replace('_', '-')}")
        else:
            flags += [flag, *(map(str, value) if isinstance(value, list) else [str(value)])]
    return flags


if __name__ == "__main__":
    sys.exit(main())
