"""The command line: ``python -m elrkit COMMAND --help``."""

import dataclasses
import json
import logging
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from elrkit import plans, progress, runs
from elrkit.config import ConfigError, RunConfig
from elrkit.data import DataError

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

Scale = Literal["cpu", "paper"]
Positional = tyro.conf.Positional


def _budget(text: str | None) -> float | None:
    """Seconds of 90s, 9m or 2h."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise ConfigError(f"budget={text!r}: allowed are a number and s, m or h, such as 9m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _train(configs: list[RunConfig], jobs: int, threads: int | None, budget: str | None, compiled: bool) -> int:
    todo = runs.missing(configs)
    print(f"{len(configs)} runs, {len(configs) - len(todo)} there, {len(todo)} to train")
    if not todo:
        return 0
    with progress.display(len(todo)) as on_event:
        left = runs.train_missing(
            todo, jobs=jobs, threads=threads, budget_seconds=_budget(budget), on_event=on_event, compiled=compiled
        )
    print(f"{len(todo) - len(left)} trained, {len(left)} still missing; records in {runs.results_root()}")
    return 0


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
    config = RunConfig(**dataclasses.asdict(flags))
    status = _train([config], 1, threads, budget, compiled)
    if record := runs.find(config):
        print(json.dumps({name: column[-1] for name, column in record["curves"].items() if column}, indent=1))
        print(runs.record_path(config))
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
        scale: only runs at this scale (paper, cpu or other)
        columns: what to show, any field of a config or a record
        csv: print comma-separated values
    """
    table = runs.table(runs.read_all())
    for name, value in (("dataset", dataset), ("loss", loss), ("scale", scale)):
        if value is not None:
            table = table[table[name] == value]
    if unknown := [name for name in columns if len(table) and name not in table]:
        raise ConfigError(f"columns={unknown}: allowed are {', '.join(table.columns)}")
    if table.empty:
        print(f"no such runs in {runs.results_root()}")
        return 0
    table = table[list(columns)]
    print(table.to_csv(index=False) if csv else table.to_string(index=False), end="" if csv else "\n")
    return 0


@app.command
def plan(
    name: Positional[Literal[tuple(plans.PLANS)]], scale: Scale = "cpu", jobs: int = 1, size: int | None = None
) -> int:
    """List the runs of a named plan: which are there, which are missing, how long the missing ones will take here.

    Args:
        name: the plan
        scale: the paper's network and epochs, or a small net that a CPU can train
        jobs: runs at a time, for the estimate
        size: settings of a sweep (default: 112 random ones, the whole grid)
    """
    configs = plans.plan(name, scale, size)
    todo = {config.run_id for config in runs.missing(configs)}
    for config in configs:
        print("missing" if config.run_id in todo else "there  ", config.run_id, config.describe())
    print(f"{len(configs)} runs, {len(configs) - len(todo)} there, {len(todo)} missing", end="")
    if todo:
        seconds = runs.estimate_seconds([config for config in configs if config.run_id in todo], jobs)
        print(f"; about {progress.duration(seconds)} on this machine, {jobs} at a time", end="")
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
    size: int | None = None,
) -> int:
    """Train the missing runs of a named plan in order of priority; run it again until nothing is missing.

    Args:
        name: the plan
        scale: the paper's network and epochs, or a small net that a CPU can train
        jobs: runs at a time, each in a process of its own
        threads: CPU threads of each run (default: one for the small net, else the cores shared out)
        budget: stop cleanly after this long, for example 9m
        compiled: train through torch.compile, worth its start-up on long runs
        size: settings of a sweep (default: 112 random ones, the whole grid)
    """
    return _train(plans.plan(name, scale, size), jobs, threads, budget, compiled)


@app.command(name="import")
def import_records(file: Positional[Path]) -> int:
    """Add the records of a tar made on another machine; each is checked, known ones are left alone.

    Args:
        file: a .tar, .tar.gz or .tar.xz of record files
    """
    added, known, refused = runs.import_tar(file)
    for reason in refused:
        print(f"refused {reason}", file=sys.stderr)
    print(f"{len(added)} added, {len(known)} known already, {len(refused)} refused; records in {runs.results_root()}")
    return 1 if refused else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 if all went well, 2 if the arguments or the data cannot be used."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        if arguments[:1] == ["train"] and len(arguments) > 1 and not arguments[1].startswith("-"):
            arguments = ["train", *_flags_of_file(Path(arguments[1])), *arguments[2:]]
        return app.cli(prog="python -m elrkit", args=arguments, use_underscores=False) or 0
    except (ConfigError, DataError, runs.RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _flags_of_file(path: Path) -> list[str]:
    """The fields of a config file as the flags they stand for, so that later flags override them."""
    try:
        config = RunConfig.from_json(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: not readable ({error.strerror}); give a JSON file of RunConfig's fields") from None
    flags = []
    for name, value in config.model_dump(mode="json", exclude_none=True).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{name.replace('_', '-')}")
        else:
            flags += [flag, *(map(str, value) if isinstance(value, list) else [str(value)])]
    return flags


if __name__ == "__main__":
    sys.exit(main())
