"""The report's commands: plans of runs, made shops, the study of the list, counts of people's labels."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from elrkit import records, runner
from elrkit.commands import budget_seconds, train_all
from elrkit.config import ConfigError, RunConfig
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
    print(f"{len(configs)} runs, {len(configs) - len(todo)} there, {len(todo)} missing", flush=True)
    if todo:
        runner.announce([config for config in configs if config.run_id in todo], jobs)
    return 0


def run(
    name: Positional[Literal[tuple(plans.PLANS)]],
    scale: Scale = "cpu",
    jobs: int = 1,
    threads: int | None = None,
    budget: str | None = None,
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
        ray: address of a Ray cluster, host:port or auto; `here` starts one on this machine (needs elrkit[scale])
        gpus_per_run: with ray, the share of a GPU that a run takes; 0.25 puts four on each
        part: fewer or other runs than the report's
    """
    configs = part.of(name, scale)
    seconds = budget_seconds(budget)
    if gpus_per_run and ray is None:
        raise ConfigError(
            f"gpus_per_run={gpus_per_run:g}: without effect but on a cluster; give --ray, or leave it out"
        )
    if ray is None:
        return train_all(configs, announced=True, jobs=jobs, threads=threads, budget_seconds=seconds)
    from elrkit.scale import Cluster

    cluster = Cluster(None if ray == "here" else ray, gpus_per_run)
    return train_all(configs, threads=threads, cluster=cluster, budget_seconds=seconds)


def shop_command(
    photos: Positional[Literal["clothing", "digits"]] = "clothing",
    seeds: tuple[int, ...] = plans.SEEDS,
    leaks: tuple[int, ...] = (0, 20, 40, 60),
) -> int:
    """Retrace Section 5.3: make shops of known faults, train CE, ELR and ELR with SAM on them, measure.

    A finished shop is not made again; minutes each.

    Args:
        photos: clothing (the open feed, below ELRKIT_DATA) or digits
        seeds: of feed, split and training
        leaks: percent of the test products with a near-duplicate in training
    """
    from elrkit.report import made_shops

    chosen = made_shops.shops(photos, seeds, leaks)
    made_shops.gather(chosen, make_missing=True)
    return 0


def human_labels(out: Path | None = None) -> int:
    """Count what people's labels of CIFAR-10 are (CIFAR-10N), per true class, into the file that the report reads.

    Needs CIFAR-10 and CIFAR-10N's label file below ELRKIT_DATA.

    Args:
        out: the JSON to write (default: results/human_labels.json of this repository)
    """
    from elrkit import data, problem
    from elrkit.report import people

    cifar = data.load("cifar10")
    counts = people.count(problem.human_labels_file(), cifar.train_labels, cifar.class_names)
    out = out or people.COUNTS_FILE
    records.write_text(out, records.as_lines(counts))
    print(f"{counts['images']:,} labels of each level counted: {out}")
    return 0


def list_study(
    dataset: Positional[str] = "cifar10",
    images: Path | None = None,
    seeds: tuple[int, ...] = plans.SEEDS,
    rate: float = 0.15,
) -> int:
    """Measure how well the list of labels to look at finds wrong ones, beside cleanlab and neighbours on the same
    features; what the check catches, and what correcting a part gains.

    Args:
        dataset: cifar10 (labels by people, CIFAR-10N), or an imported shop or digits, whose labels count as right and
            get errors of two kinds
        images: folder that the shop's import was given; the head of its list is shown as a picture
        seeds: of images, errors and trainings
        rate: share of the labels that are moved
    """
    from elrkit.report import list_study as study

    study.gather(study.of_dataset(dataset, seeds, rate), make_missing=True, images=images)
    if images is not None:
        print(study.make_gallery(Path(dataset), images))
    return 0


COMMANDS = {
    "plan": plan,
    "run": run,
    "list-study": list_study,
    "shop": shop_command,
    "human-labels": human_labels,
}
