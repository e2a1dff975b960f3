"""Where things lie, and the stores of run records: one small JSON file a run, ``<dataset>/<run_id>.json``, written
whole, checked when read.

There are two stores. The committed records of the checkout (`evidence_root`) are what the report says; what a reader
trains goes to a store of their own (`results_root`) and changes no verdict. The maintainer, whose runs are to be
committed, sets ELRKIT_RESULTS=results/runs: then both are one. Checkpoints lie apart (`state_dir`), behind a lock that
dies with its holder. Neither torch nor pandas is imported before it is needed.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from elrkit.config import BUILT_IN_TRAIN_SIZES, ConfigError, RunConfig, one_line

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SCHEMA = 1
CACHE = Path("~/.cache/elrkit")


class RecordError(ValueError):
    """A file that is no valid record; one line that names the file and what is wrong with it."""


def data_root() -> Path:
    """Where datasets are kept: the environment's ELRKIT_DATA, else ~/.cache/elrkit."""
    return Path(os.environ.get("ELRKIT_DATA") or CACHE).expanduser()


def state_root() -> Path:
    """Where checkpoints and outcomes are: the environment's ELRKIT_STATE, else `state` below the data root."""
    return Path(os.environ.get("ELRKIT_STATE") or data_root() / "state").expanduser()


def results_root() -> Path:
    """Where new records go: the environment's ELRKIT_RESULTS, else ~/.cache/elrkit/runs."""
    return Path(os.environ.get("ELRKIT_RESULTS") or CACHE / "runs").expanduser()


def evidence_root() -> Path | None:
    """The committed records, the report's evidence: results/runs in the current folder or one above it; or None."""
    here = Path.cwd()  # notebooks run from their own folder
    return next((runs for each in (here, *here.parents) if (runs := each / "results" / "runs").is_dir()), None)


def state_dir(config: RunConfig) -> Path:
    return state_root() / config.run_id


def stores() -> list[Path]:
    """The folders where records are looked for: one's own, then the evidence where that is another."""
    own, evidence = results_root(), evidence_root()
    return [own] if evidence is None or evidence.resolve() == own.resolve() else [own, evidence]


def record_path(config: RunConfig) -> Path:
    """Where the record of this run is; where there is none, where it will be."""
    paths = [store / place(config) for store in stores()]
    return next((path for path in paths if path.exists()), paths[0])


def beside(*parts: str) -> Path:
    """A file in a folder beside the runs' (audit, shop): one's own, the evidence's, or where one's own will be."""
    paths = [store.parent.joinpath(*parts) for store in stores()]
    return next((path for path in paths if path.exists()), paths[0])


def place(config: RunConfig) -> str:
    """Where a store has the record of this run."""
    folder = config.dataset if config.dataset in BUILT_IN_TRAIN_SIZES else "other"
    return f"{folder}/{config.run_id}.json"


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Data(_Part):
    realized_noise_rate: float | None = Field(None, ge=0, le=1)


class _Record(_Part):
    """The parts of a record and their types; None in a curve stands for what was not evaluated or not finite."""

    version: Literal[1] = Field(alias="schema")  # SCHEMA
    run_id: str
    status: Literal["finished", "diverged"]
    config: dict[str, Any]
    data: _Data
    curves: dict[str, list[float | None]]
    weights_sha256: str
    device: dict[str, Any]
    execution: dict[str, Any]
    versions: dict[str, Any]
    timing: dict[str, Any]


NO_SHARES = {"epoch", "lr", "train_loss", "test_loss", "skipped_steps"}  # all other curves are between 0 and 1


def check(record: Any, name: str) -> dict[str, Any]:
    """Return `record` if it is one; raises RecordError, beginning with `name`, if not."""
    if not isinstance(record, dict):
        raise RecordError(f"{name}: not a JSON object")
    try:
        parts = _Record.model_validate(record)
        config = RunConfig(**parts.config)
    except ValidationError as error:
        raise RecordError(f"{name}: {one_line(error, _Record.model_fields)}") from None
    except (ConfigError, TypeError) as error:
        raise RecordError(f"{name}: config not valid ({error})") from None
    curves, finished = parts.curves, parts.status == "finished"
    lengths, epochs = {len(column) for column in curves.values()}, curves.get("epoch", [])
    tested = [curves.get(column, []) for column in ("test_top1", "held_out_top1_noisy")] * (config.test_every == 1)
    faults = {
        f"run_id {parts.run_id} is not the hash {config.run_id} of its config": config.run_id != parts.run_id,
        f"curves of lengths {sorted(lengths)} for {config.epochs} epochs": len(lengths) > 1
        or (finished and lengths != {config.epochs}),
        "curves lack epoch, test_top1 or train_loss": finished
        and not {"epoch", "test_top1", "train_loss"} <= {*curves},
        "the epochs do not ascend from 1": epochs != list(range(1, len(epochs) + 1)),
        "a curve of the test lacks an epoch, and each was tested": any(None in column for column in tested),
    }
    for column_name, column in curves.items():
        share = column_name in NO_SHARES or all(value is None or 0 <= value <= 1 for value in column)
        faults[f"the curve {column_name!r} holds something that is no share of 1"] = not share
    if found := [message for message, fault in faults.items() if fault]:
        raise RecordError(f"{name}: {'; '.join(found)}")
    return record


def read(path: Path) -> dict[str, Any]:
    """One record from its file; raises RecordError, or FileNotFoundError."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise RecordError(f"{path}: not a regular file")
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordError(f"{path}: not readable ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not readable as JSON ({error})") from None
    return check(record, str(path))


def find(config: RunConfig) -> dict[str, Any] | None:
    """The record of this run, from one's own store or the evidence, or None; a damaged file is reported by name and
    counts as none."""
    for store in stores():
        with suppress(FileNotFoundError):
            try:
                return read(store / place(config))
            except RecordError as error:
                log.warning("skipped %s", error)
    return None


def read_all(own: bool = False) -> list[dict[str, Any]]:
    """All valid records of the evidence, with `own` also those of one's own store, each run once; other files are
    reported by name and skipped."""
    evidence = evidence_root()
    found: dict[str, dict[str, Any]] = {}
    for store in stores() if own else [] if evidence is None else [evidence]:
        for path in sorted(store.rglob("*.json")):
            try:
                record = read(path)
                if path.stem != record["run_id"]:
                    raise RecordError(f"{path}: holds the record of run {record['run_id']}")
                found.setdefault(record["run_id"], record)
            except RecordError as error:
                log.warning("skipped %s", error)
    return list(found.values())


def save(record: dict[str, Any]) -> Path:
    """Write a record into one's own store and return its path; OSError names the file that could not be written."""
    check(record, "record")
    path = results_root() / place(RunConfig(**record["config"]))
    timing = json.loads(json.dumps(record["timing"]), parse_float=lambda text: round(float(text), 3))
    write_text(path, as_lines({**record, "timing": timing}))
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file, and its folder where that is missing, so that a reader finds the old text or the new one whole."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:  # a full disk's names no file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    finally:
        with suppress(OSError):
            new.unlink()


def as_lines(value: dict[str, Any]) -> str:
    """JSON with a line for each entry of an object, and of the objects in it, so that a change can be read."""
    lines = []
    for key, entry in value.items():
        if isinstance(entry, dict):
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in entry.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(entry, allow_nan=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


SCALES = ("paper", "cpu", "digits", "other")


def scale(config: RunConfig) -> str:
    """`paper`: the paper's network, all images, at least 50 epochs (its code that ran SAM has 50, all else more);
    `cpu`: the small net on CIFAR; `digits`; or `other`."""
    if config.dataset not in ("cifar10", "cifar100"):
        return "digits" if config.dataset == "digits" else "other"
    if config.model == "resnet34" and config.epochs >= 50 and config.train_size is None:
        return "paper"
    return "cpu" if config.model == "small_resnet" else "other"


def table(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row a run: every field of its config, how it ended, its last epoch's curves, the realized noise, the cost.

    `test_top1_best` is the best epoch's; `test_top1_selected` that of the epoch which held-out noisy labels choose;
    `batches_wrong_correct_best` that of the epoch that has most of them.
    """
    import pandas as pd

    rows = []
    for record in records:
        config, data, timing = RunConfig(**record["config"]), record["data"], record["timing"]
        rows.append({
            # Through RunConfig, so that fields which are younger than the record hold what was done then.
            "run_id": record["run_id"], **config.model_dump(mode="json"), "status": record["status"],
            "scale": scale(config), "noise_realized": data.get("realized_noise_rate"),
            **{name: data.get(name) for name in ("train_images", "held_out_images", "test_images")},
            **(_ended(record["curves"]) if record["status"] == "finished" else {}),
            "seconds": timing.get("seconds"), "device": record["device"].get("name"),
            "threads": record["execution"].get("threads"),
        })  # fmt: skip
    always = ("status", "scale", "noise_realized", "test_top1", "wrong_memorized", "wrong_correct")
    empty = ["run_id", *RunConfig.model_fields, *always, "seconds", "device", "threads"]
    frame = pd.DataFrame(rows, columns=None if rows else empty)
    return frame.assign(**dict.fromkeys((name for name in always if name not in frame), math.nan))


def _ended(curves: dict[str, list[Any]]) -> dict[str, Any]:
    """A finished run's columns: its last epoch's curves, and what is chosen from all epochs."""
    tested = {epoch: share for epoch, share in enumerate(curves["test_top1"]) if share is not None}
    held_out = curves.get("held_out_top1_noisy")
    return {
        # Not the last epoch's learning rate: `lr` stays the config's.
        **{name: column[-1] for name, column in curves.items() if name not in ("epoch", "lr")},
        "test_top1_best": max(tested.values()),
        "batches_wrong_correct_best": max(
            (share for share in curves.get("batches_wrong_correct", []) if share is not None), default=math.nan
        ),
        "test_top1_selected": tested[max(tested, key=lambda epoch: held_out[epoch])] if held_out else math.nan,
    }


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Last-epoch means over the finished runs of each noise rate and loss, in percent, with the lowest and the highest
    behind."""
    names = {"test_top1": "test accuracy", "wrong_memorized": "memorized", "wrong_correct": "seen through"}

    def spread(values: pd.Series) -> str:
        values = 100 * values.dropna()
        return f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f})" if len(values) else ""

    finished = table[table["status"] == "finished"]
    groups = finished.groupby(["noise_rate", "loss"])
    text = groups[list(names)].agg(spread).rename(columns=names)
    return text.assign(runs=groups.size())


def curves(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row a run and epoch: the curves beside the config's fields."""
    import pandas as pd

    parts = []
    for record in records:
        part = pd.DataFrame(record["curves"])
        config = RunConfig(**record["config"])  # fields younger than the record hold what was done then
        fields = pd.DataFrame([config.model_dump(mode="json")] * len(part), index=part.index)
        fields = fields.drop(columns=[c for c in fields if c in part])
        parts.append(pd.concat([part, fields], axis=1).assign(run_id=record["run_id"]))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def claim(config: RunConfig) -> AbstractContextManager[bool]:
    """Hold the run against other processes; False if another one trains it."""
    return lock(state_dir(config))


@contextmanager
def lock(folder: Path) -> Iterator[bool]:
    """Hold a folder, made where it is missing, against other processes; yields False if another one holds it.

    The lock dies with its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
