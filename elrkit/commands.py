"""The core's commands: train one run, list the runs; and how commands train many.

Torch and pandas are imported by what needs them, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import tyro

from elrkit import records
from elrkit.config import ConfigError, RunConfig

# RunConfig's fields as flags, each with its description; RunConfig itself checks them, in its own words.
RunFlags = dataclasses.make_dataclass(
    "RunFlags",
    [
        (name, Annotated[f.annotation, tyro.conf.arg(help=f.description)], dataclasses.field(default=f.default))
        for name, f in RunConfig.model_fields.items()
    ],
)


def budget_seconds(text: str | None) -> float | None:
    """Seconds of 90s, 9m or 2h; raises ConfigError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise ConfigError(f"budget={text!r}: allowed are a number and s, m or h, such as 9m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def train_all(configs: list[RunConfig], announced: bool = False, **options: Any) -> int:
    """Train what is missing by `runner.train_missing`, with progress and counts; `announced`: first say how long it
    will take here. 1 when a run failed; one that was merely stopped by its budget is no failure."""
    from elrkit import progress, runner

    started, todo = time.monotonic(), runner.missing(configs)
    print(f"{len(configs)} runs, {len(configs) - len(todo)} there, {len(todo)} to train")
    if todo and announced:
        runner.announce(todo, options["jobs"], options.get("threads"))
    if options.get("budget_seconds"):  # of which the estimate has taken a part
        options["budget_seconds"] = max(options["budget_seconds"] - (time.monotonic() - started), 0)
    with progress.display(len(todo)) as show:

        def tell(left: list[RunConfig]) -> int:
            failed, missing = show.still_missing(left)
            print(f"{len(todo) - len(left)} trained, {missing}; records in {records.results_root()}")
            return 1 if failed else 0

        try:
            left = runner.train_missing(configs, on_event=show, **options)
        except KeyboardInterrupt:
            tell(runner.missing(todo))
            raise
    return tell(left) if todo else 0


def train(
    flags: Annotated[RunFlags, tyro.conf.OmitArgPrefixes],  # type: ignore[valid-type]
    threads: int | None = None,
    budget: str | None = None,
) -> int:
    """Train one run, given by flags.

    Without flags: cross-entropy on the digits, about 15 seconds. A finished run is not trained again; a stopped one
    goes on where it was.

    Args:
        flags: what to train
        threads: CPU threads (default: one for the small net, else all cores)
        budget: stop cleanly after this long, for example 9m
    """
    fields = RunConfig.model_fields
    given = {k: v for k, v in dataclasses.asdict(flags).items() if v != fields[k].default}
    config = RunConfig(**given)
    # As many images as there are is a default; what a choice makes meaningless is a mistake where a person typed it.
    if idle := [f"{k}={v}" for k, v in given.items() if v and k != "train_size" and getattr(config, k) != v]:
        raise ConfigError(
            f"{', '.join(idle)}: without effect beside loss={config.loss}, schedule={config.schedule}, "
            f"noise_rate={config.noise_rate:g}, sam_rho={config.sam_rho:g}, optimizer={config.optimizer} and "
            f"model={config.model}; leave it out, or give what it needs"
        )
    status = train_all([config], threads=threads, budget_seconds=budget_seconds(budget))
    if record := records.find(config):
        print(json.dumps({name: column[-1] for name, column in record["curves"].items() if column}, indent=1))
        print(records.record_path(config))
    return status


def list_runs(
    columns: tuple[str, ...] = (
        "run_id", "dataset", "model", "noise", "noise_rate", "loss", "schedule", "sam_rho", "seed", "scale", "status",
        "test_top1", "wrong_memorized", "seconds",
    ),
    csv: bool = False,
) -> int:  # fmt: skip
    """List the runs that have a record: one's own, and in a checkout the report's.

    Args:
        columns: what to show, any field of a config or a record
        csv: print comma-separated values
    """
    table = records.table(records.read_all(own=True))
    if unknown := [name for name in columns if len(table) and name not in table]:
        raise ConfigError(f"columns={unknown}: allowed are {', '.join(table.columns)}")
    if table.empty:
        print(f"no runs in {' and '.join(map(str, records.stores()))}", file=sys.stderr)
        return 0
    table = table[list(columns)]
    print(table.to_csv(index=False) if csv else table.to_string(index=False), end="" if csv else "\n")
    return 0


COMMANDS: dict[str, Callable[..., Any]] = {"train": train, "runs": list_runs}
