"""The stores of run records: one small JSON file a run, ``<dataset>/<run_id>.json``, written whole, checked when read.

There are two. The committed records of the checkout (`evidence_root`) are what the report says; what a reader trains
goes to a store of their own (`results_root`) and changes no verdict. The maintainer, whose runs are to be committed,
sets ELRKIT_RESULTS=results/runs: then both are one. Checkpoints lie apart (`state_dir`), behind a lock that dies with
its holder. Neither torch nor pandas is imported before it is needed.
"""

from __future__ import annotations

import fcntl
import json
import logging
import lzma
import math
import os
import statistics
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrkit.config import BUILT_IN_TRAIN_SIZES, ConfigError, RunConfig
from elrkit.folders import evidence_root, results_root, state_root

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["evidence_root", "results_root", "state_root"]  # beside what is defined here

log = logging.getLogger(__name__)

SCHEMA = 1
REQUIRED = {
    "schema": int, "run_id": str, "status": str, "config": dict, "data": dict, "curves": dict, "weights_sha256": str,
    "device": dict, "execution": dict, "versions": dict, "timing": dict,
}  # fmt: skip


class RecordError(ValueError):
    """A file that is no valid record; one line that names the file and what is wrong with it."""


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


NO_SHARES = {"epoch", "lr", "train_loss", "test_loss", "skipped_steps"}  # all other curves are between 0 and 1


def check(record: Any, name: str) -> dict[str, Any]:
    """Return `record` if it is one; raises RecordError, beginning with `name`, if not."""
    if not isinstance(record, dict):
        raise RecordError(f"{name}: not a JSON object")
    for key, kind in REQUIRED.items():
        if not isinstance(record.get(key), kind):
            raise RecordError(f"{name}: {key!r} is missing or not of type {kind.__name__}")
    if record["schema"] != SCHEMA:
        raise RecordError(f"{name}: schema {record['schema']}, this version reads {SCHEMA}")
    if record["status"] not in ("finished", "diverged"):
        raise RecordError(f"{name}: status {record['status']!r} is neither finished nor diverged")
    try:
        config = RunConfig(**record["config"])
    except (ConfigError, TypeError) as error:
        raise RecordError(f"{name}: config not valid ({error})") from None
    if config.run_id != record["run_id"]:
        raise RecordError(f"{name}: run_id {record['run_id']} is not the hash {config.run_id} of its config")
    curves, finished = record["curves"], record["status"] == "finished"
    lengths = {len(column) if isinstance(column, list) else -1 for column in curves.values()}
    if len(lengths) > 1 or -1 in lengths or (finished and lengths != {config.epochs}):
        raise RecordError(f"{name}: curves of lengths {sorted(lengths)} for {config.epochs} epochs")
    if finished and not {"epoch", "test_top1", "train_loss"} <= curves.keys():
        raise RecordError(f"{name}: curves lack epoch, test_top1 or train_loss")
    for column_name, column in curves.items():
        # None stands for what was not evaluated or not finite.
        tested = column_name in ("test_top1", "held_out_top1_noisy")
        may_be_empty = column_name != "epoch" and not (tested and config.test_every == 1)
        if not all(_is_number(value) or (value is None and may_be_empty) for value in column):
            raise RecordError(f"{name}: the curve {column_name!r} holds something that is no number")
        if column_name not in NO_SHARES and not all(value is None or 0 <= value <= 1 for value in column):
            raise RecordError(f"{name}: the curve {column_name!r} holds something that is no share of 1")
    if "epoch" in curves and curves["epoch"] != list(range(1, len(curves["epoch"]) + 1)):
        raise RecordError(f"{name}: the epochs do not ascend from 1")
    if finished and not isinstance(record["data"].get("classes"), int):
        raise RecordError(f"{name}: data lack the number of classes")
    rate = record["data"].get("realized_noise_rate")
    if rate is not None and not (_is_number(rate) and 0 <= rate <= 1):
        raise RecordError(f"{name}: realized_noise_rate {rate!r} is no share of 1")
    speeds = record["timing"].get("images_per_second", [])
    if not isinstance(speeds, list) or not all(map(_is_number, speeds)):
        raise RecordError(f"{name}: images_per_second is no list of numbers")
    return record


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63  # JSON has integers of any length, which are no float
    return isinstance(value, float) and math.isfinite(value)


def read(path: Path) -> dict[str, Any]:
    """One record from its file; raises RecordError, or FileNotFoundError."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise RecordError(f"{path}: not a regular file")
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
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


def by_id(run_id: str) -> dict[str, Any]:
    """The record of a run id; raises RecordError when there is none."""
    for store in stores():
        if path := next(store.rglob(f"{run_id}.json"), None):
            return read(path)
    where = " or ".join(map(str, stores()))
    raise RecordError(f"run {run_id}: no record in {where}; `python -m elrkit runs` lists those there are")


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
    write_text(path, as_lines({**record, "timing": _rounded(record["timing"])}))
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


def _rounded(value: Any) -> Any:
    """`value` with its floats, at any depth, to three digits."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return {k: _rounded(v) for k, v in value.items()} if isinstance(value, dict) else value


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


def comparable(record: dict[str, Any]) -> str:
    """The part of a record that a repetition must reproduce bit for bit: all but `timing`, as JSON."""
    return json.dumps({k: v for k, v in record.items() if k != "timing"}, sort_keys=True)


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
    `batches_wrong_memorized_50` is epoch 50's, `batches_wrong_correct_best` that of the epoch that has most of them.
    """
    import pandas as pd

    rows = []
    for record in records:
        config = RunConfig(**record["config"])
        curves = record["curves"]
        # Through RunConfig, so that fields which are younger than the record hold what was done then.
        row = {"run_id": record["run_id"], **config.model_dump(mode="json")}
        row |= {"status": record["status"], "scale": scale(config)}
        row["noise_realized"] = record["data"].get("realized_noise_rate")
        row |= {name: record["data"].get(name) for name in ("train_images", "held_out_images", "test_images")}
        if record["status"] == "finished":
            # Not the last epoch's learning rate: `lr` stays the config's.
            row |= {name: column[-1] for name, column in curves.items() if name not in ("epoch", "lr")}
            tested = [epoch for epoch, value in enumerate(curves["test_top1"]) if value is not None]
            row["test_top1_best"] = max(curves["test_top1"][epoch] for epoch in tested)
            memorized = curves.get("batches_wrong_memorized", [])
            row["batches_wrong_beyond_chance"] = _beyond_chance(curves, record["data"]["classes"])
            row["batches_wrong_memorized_50"] = memorized[49] if len(memorized) >= 50 else math.nan
            seen = [share for share in curves.get("batches_wrong_correct", []) if share is not None]
            row["batches_wrong_correct_best"] = max(seen, default=math.nan)
            held_out = curves.get("held_out_top1_noisy")
            selected = max(tested, key=lambda epoch: held_out[epoch]) if held_out else None
            row["test_top1_selected"] = math.nan if selected is None else curves["test_top1"][selected]
        timing = record["timing"]
        row |= {
            "seconds": timing.get("seconds"),
            "jobs": timing.get("jobs"),
            "images_per_second": statistics.median_high(timing.get("images_per_second") or [math.nan]),
            "device": record["device"].get("name"),
            "threads": record["execution"].get("threads"),
        }
        rows.append(row)
    always = ("status", "scale", "noise_realized", "test_top1", "wrong_memorized", "wrong_correct")
    costs = ("seconds", "jobs", "device", "threads", "images_per_second")
    empty = ["run_id", *RunConfig.model_fields, *always, *costs]
    frame = pd.DataFrame(rows, columns=None if rows else empty)
    return frame.assign(**dict.fromkeys((name for name in always if name not in frame), math.nan))


def _beyond_chance(curves: dict[str, list[Any]], classes: int) -> float:
    """Of the wrong labels, the share predicted as labelled in the batches of the last epoch, less what errors hit by
    chance: the other wrong classes, C - 2 of C, are predicted that often each."""
    last = [curves.get(f"batches_wrong_{what}", [None])[-1] for what in ("memorized", "other")]
    return math.nan if None in last or classes < 3 else last[0] - last[1] / (classes - 2)


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


def import_tar(path: Path) -> tuple[list[str], list[str], list[str]]:
    """Add the records in a tar to the store: (run ids added, run ids known already, reasons of what was refused).

    Each member is checked as a record (schema, run_id equal to the config's hash, versions); nothing is unpacked to the
    disk but records under their own names. Of a tar that was cut off, what comes before is taken; of a compressed one
    whose checksum does not hold, nothing. Where a run is known already, the record that is here stays; one with other
    results on the same kind of CPU with the same versions and threads is refused, because one of the two must be wrong.
    """
    added, known, refused, found = [], [], [], []
    try:
        with tarfile.open(path) as archive:
            # tarfile stops before a decompressor's checksum, and a changed bit may leave a record that can be read.
            with suppress(EOFError):  # a file that was cut off
                while archive.fileobj and archive.fileobj.read(2**20):
                    pass
            for member in archive:
                if not member.isfile() or not member.name.endswith(".json"):
                    continue
                name = f"{path.name}:{member.name}"
                try:
                    found.append((name, _read_member(archive, member, name)))
                except RecordError as error:
                    refused.append(str(error))
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file; give a tar of records") from None
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        refused.append(f"{path}: not a tar, or damaged after {len(found)} records ({error})")
    for name, record in found:
        here = find(RunConfig(**record["config"]))
        if here is None:
            save(record)
            added.append(record["run_id"])
        elif _same_circumstances(here, record) and comparable(here) != comparable(record):
            refused.append(f"{name}: run {record['run_id']} is here with other results of the same device")
        else:
            known.append(record["run_id"])
    return added, known, refused


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> dict[str, Any]:
    if member.size > 16 * 2**20:
        raise RecordError(f"{name}: {member.size} bytes, too large for a record")
    try:
        file = archive.extractfile(member)
        record = check(json.loads(file.read() if file else b""), name)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{name}: not readable as JSON ({error})") from None
    if not {"elrkit", "torch", "python"} <= record["versions"].keys():
        raise RecordError(f"{name}: its versions lack elrkit, torch or python")
    return record


def _same_circumstances(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two records of one run must agree bit for bit: on one kind of CPU with the same versions and threads."""
    parts = ("device", "execution", "versions")
    return a["device"].get("type") == "cpu" and all(a[part] == b[part] for part in parts)
