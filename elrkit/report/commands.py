"""The report's commands: plans of runs, the two studies, counts of people's labels."""

import dataclasses
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from elrkit import progress, records, runner
from elrkit.commands import budget_seconds, train_all
from elrkit.config import RunConfig
from elrkit.report import plans

Scale = Literal[plans.SCALES]
Positional = tyro.conf.Positional


@dataclasses.dataclass(frozen=True)
class Part:
    """A smaller or larger plan than the report's; each option that is left out is the plan's own."""

    seeds: tuple[int, ...] | None = None
    """of the runs"""
    noise_rates: tuple[float, ...] | None = None
    """of the plans that have them"""
    levels: tuple[Literal[plans.LEVELS], ...] | None = None
    """of people's labels, for the plan people"""
    size: int | None = None
    """settings of a sweep (112 random ones, the whole grid)"""

    def of(self, name: str, scale: str) -> list[RunConfig]:
        return plans.plan(name, scale, **dataclasses.asdict(self))


OfPlan = Annotated[Part, tyro.conf.OmitArgPrefixes]


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
    common = {"budget_seconds": budget_seconds(budget), "compiled": compiled}
    if ray is None:
        return train_all(configs, announced=True, jobs=jobs, threads=threads, **common)
    from elrkit.scale import Cluster

    cluster = Cluster(None if ray == "here" else ray, gpus_per_run)
    return train_all(configs, threads=threads, cluster=cluster, **common)


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

    left = audit_study.make_missing(todo, budget_seconds(budget), show)
    print(f"{len(todo) - len(left)} made, {len(left)} still missing; records in {audit_study.folder()}")
    return 0


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
        left = shop.run(chosen, jobs=jobs, budget_seconds=budget_seconds(budget), on_event=show)
    failed, missing = show.still_missing(left)
    print(f"of {len(shop.ARMS) * len(chosen)} runs {missing}; summaries in {shop.folder()}")
    return 1 if failed else 0


def human_labels(out: Path | None = None) -> int:
    """Count what people's labels of CIFAR-10 are (CIFAR-10N), per true class, into the file that the report reads.

    Needs CIFAR-10 and CIFAR-10N's label file below ELRKIT_DATA.

    Args:
        out: the JSON to write (default: results/human_labels.json of this repository)
    """
    from elrkit import data, problem
    from elrkit.report import human_counts

    cifar = data.load("cifar10")
    counts = human_counts.human_label_counts(problem.human_labels_file(), cifar.train_labels, cifar.class_names)
    out = out or human_counts.HUMAN_COUNTS_FILE
    records.write_text(out, records.as_lines(counts))
    print(f"{counts['images']:,} labels of each level counted: {out}")
    return 0


def clean(scale: Scale = "cpu", seeds: tuple[int, ...] = plans.SEEDS, jobs: int = 1, budget: str | None = None) -> int:
    """Correct 1, 5 and 10 % of the labels, by the list or at random, and fine-tune; at cpu scale on human labels.

    Args:
        scale: cpu, paper or digits
        seeds: of the run to go on from
        jobs: runs at a time
        budget: stop cleanly after this long, for example 9m
    """
    from elrkit.report import cleaning, made_shops

    started, seconds = time.monotonic(), budget_seconds(budget)
    bases = [cleaning.base_run(scale, seed) for seed in seeds]
    status = train_all(bases, announced=True, jobs=jobs, budget_seconds=seconds)
    for base in bases:
        summary = cleaning.clean(base, lambda: seconds is not None and time.monotonic() - started > seconds)
        made = f"{len(summary['rows']) if summary else 0} of {1 + 2 * len(cleaning.FRACTIONS)} fine-tunings"
        if summary is None and records.find(base):
            made += (
                f"; its record is from another machine, its weights are not in {records.state_dir(base)}: "
                "take other --seeds, or a store of your own (ELRKIT_RESULTS), for which it is trained here"
            )
        print(f"{base.describe()}: {made}")
    print(f"summaries in {made_shops.folder()}")
    return status


def feature_study(shop: Path | None = None, images: Path = Path(), rate: float = 0.15) -> int:
    """Measure the list that a pretrained network's features give, beside cleanlab and neighbours on the same features.

    Args:
        shop: dataset whose labels count as right, and get errors of two kinds; default: people's labels of CIFAR-10
        images: folder that the shop's import was given
        rate: share of the shop's labels that are moved
    """
    from elrkit.report import feature_study as study

    wanted = study.PEOPLE
    if shop is not None:
        kinds = ("siblings", "uniform")
        wanted = [study.Study(str(shop), kind, seed, rate) for seed in plans.SEEDS for kind in kinds]
    for each in wanted:
        if study.path_of(each).exists():
            print(f"{each.name}: there", flush=True)
        else:
            print(f"{each.name}: {study.make(each, images if shop else None)}", flush=True)
    if shop is not None:
        print(study.make_gallery(shop, images))
    return 0


COMMANDS = {
    "plan": plan,
    "run": run,
    "audit-study": audit_study,
    "feature-study": feature_study,
    "shop": shop_command,
    "human-labels": human_labels,
    "clean": clean,
}
