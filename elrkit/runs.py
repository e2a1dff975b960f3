"""The store of run records, and the training of many runs: what is there, what is missing, who trains what.

A record is one small JSON file, ``results/runs/<dataset>/<run_id>.json``, written atomically and checked when read.
Checkpoints and outcomes live elsewhere (see `state_root`), one folder a run, with a lock that dies with its holder.
"""

import bz2
import fcntl
import gzip
import json
import logging
import lzma
import math
import multiprocessing
import os
import queue
import signal
import statistics
import sys
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from elrkit import data, train
from elrkit.config import BUILT_IN_TRAIN_SIZES, ConfigError, RunConfig, check_training, require

log = logging.getLogger(__name__)

REQUIRED = {
    "schema": int, "run_id": str, "status": str, "config": dict, "data": dict, "curves": dict, "weights_sha256": str,
    "device": dict, "execution": dict, "versions": dict, "timing": dict,
}  # fmt: skip


class RecordError(ValueError):
    """A file that is no valid record; one line that names the file and what is wrong with it."""


def results_root() -> Path:
    """Where records are: the environment's ELRKIT_RESULTS, else results/runs in the current folder or one above it."""
    if given := os.environ.get("ELRKIT_RESULTS"):
        return Path(given).expanduser()
    here = Path.cwd()
    for folder in (here, *here.parents):  # notebooks run from their own folder
        if (folder / "results" / "runs").is_dir():
            return folder / "results" / "runs"
    return here / "results" / "runs"


def state_root() -> Path:
    """Where checkpoints and outcomes are: the environment's ELRKIT_STATE, else `state` below the data root."""
    given = os.environ.get("ELRKIT_STATE")
    return Path(given).expanduser() if given else data.data_root() / "state"


def state_dir(config: RunConfig) -> Path:
    return state_root() / config.run_id


def outcome(record: dict) -> dict | None:
    """`train.load_outcome` of the run that this record describes, or None where it is not on this machine.

    Records lie where one works, outcomes in one place of the machine by run id, and that hashes a dataset's name: the
    weights tell whether the outcome there is this record's.
    """
    try:
        found = train.load_outcome(state_dir(RunConfig(**record["config"])))
    except FileNotFoundError:
        return None
    except train.DamagedFile as error:
        log.warning("%s: not usable (%s)", state_dir(RunConfig(**record["config"])) / "outcome.pt", error)
        return None
    return found if train.digest(found["model"]) == record["weights_sha256"] else None


def record_path(config: RunConfig) -> Path:
    folder = config.dataset if config.dataset in BUILT_IN_TRAIN_SIZES else "other"
    return results_root() / folder / f"{config.run_id}.json"


def check(record: Any, name: str) -> dict:
    """Return `record` if it is one; raises RecordError, beginning with `name`, if not."""
    if not isinstance(record, dict):
        raise RecordError(f"{name}: not a JSON object")
    for key, kind in REQUIRED.items():
        if not isinstance(record.get(key), kind):
            raise RecordError(f"{name}: {key!r} is missing or not of type {kind.__name__}")
    if record["schema"] != train.RECORD_SCHEMA:
        raise RecordError(f"{name}: schema {record['schema']}, this version reads {train.RECORD_SCHEMA}")
    if record["status"] not in ("finished", "diverged"):
        raise RecordError(f"{name}: status {record['status']!r} is neither finished nor diverged")
    try:
        config = RunConfig(**record["config"])
    except (ConfigError, TypeError) as error:
        raise RecordError(f"{name}: config not valid ({error})") from None
    if config.run_id != record["run_id"]:
        raise RecordError(f"{name}: run_id {record['run_id']} is not the hash {config.run_id} of its config")
    curves = record["curves"]
    lengths = {len(column) if isinstance(column, list) else -1 for column in curves.values()}
    if record["status"] == "finished" and lengths != {config.epochs}:
        raise RecordError(f"{name}: curves of lengths {sorted(lengths)} for {config.epochs} epochs")
    if record["status"] == "finished" and not {"epoch", "test_top1", "train_loss"} <= curves.keys():
        raise RecordError(f"{name}: curves lack epoch, test_top1 or train_loss")
    if len(lengths) > 1 or -1 in lengths:
        raise RecordError(f"{name}: curves of lengths {sorted(lengths)}, of which all should be the same")
    for column_name, column in curves.items():
        # None stands for what was not evaluated or not finite.
        may_be_empty = column_name not in ("epoch", "test_top1", "held_out_top1_noisy")
        if not all(_is_number(value) or (value is None and may_be_empty) for value in column):
            raise RecordError(f"{name}: the curve {column_name!r} holds something that is no number")
    if record["status"] == "finished" and not isinstance(record["data"].get("classes"), int):
        raise RecordError(f"{name}: data lack the number of classes")
    speeds = record["timing"].get("images_per_second", [])
    if not isinstance(speeds, list) or not all(map(_is_number, speeds)):
        raise RecordError(f"{name}: images_per_second is no list of numbers")
    return record


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63  # JSON has integers of any length, which are no float
    return isinstance(value, float) and math.isfinite(value)


def read(path: Path) -> dict:
    """One record from its file; raises RecordError, or FileNotFoundError."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not readable as JSON ({error})") from None
    return check(record, str(path))


def save(record: dict) -> Path:
    """Write a record atomically and return its path."""
    check(record, "record")
    path = record_path(RunConfig(**record["config"]))
    write_text(path, as_lines({**record, "timing": _rounded(record["timing"])}))
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file, and its folder where that is missing, so that a reader finds the old text or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(new, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _rounded(value: Any) -> Any:
    """`value` with its floats, at any depth, to three digits."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return {k: _rounded(v) for k, v in value.items()} if isinstance(value, dict) else value


def as_lines(value: dict) -> str:
    """JSON with a line for each entry of an object, and of the objects in it, so that a change can be read."""
    lines = []
    for key, entry in value.items():
        if isinstance(entry, dict):
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in entry.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(entry, allow_nan=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def find(config: RunConfig) -> dict | None:
    """The record of this run, or None; a damaged file is reported by name and counts as none."""
    try:
        return read(record_path(config))
    except FileNotFoundError:
        return None
    except RecordError as error:
        log.warning("skipped %s", error)
        return None


def by_id(run_id: str) -> dict:
    """The record of a run id in the store; raises RecordError when there is none."""
    path = next(results_root().rglob(f"{run_id}.json"), None)
    if path is None:
        raise RecordError(f"run {run_id}: no record in {results_root()}; `python -m elrkit runs` lists those there are")
    return read(path)


def read_all() -> list[dict]:
    """All valid records of the store; other files are reported by name and skipped."""
    records = []
    for path in sorted(results_root().rglob("*.json")):
        try:
            record = read(path)
            if path.stem != record["run_id"]:
                raise RecordError(f"{path}: holds the record of run {record['run_id']}")
            records.append(record)
        except RecordError as error:
            log.warning("skipped %s", error)
    return records


def scale(config: RunConfig) -> str:
    """`paper`: the paper's network, all images, at least 50 epochs (its code that ran SAM has 50, all else more);
    `cpu`: the small net on CIFAR; `digits`; or `other`."""
    if config.dataset not in ("cifar10", "cifar100"):
        return "digits" if config.dataset == "digits" else "other"
    if config.model == "resnet34" and config.epochs >= 50 and config.train_size is None:
        return "paper"
    return "cpu" if config.model == "small_resnet" else "other"


def table(records: Iterable[dict]) -> pd.DataFrame:
    """One row a run: every field of its config, how it ended, its last epoch's curves, the realized noise, the cost.

    `test_top1_best` is the best epoch's; `test_top1_selected` that of the epoch which held-out noisy labels choose;
    `batches_wrong_memorized_50` is epoch 50's, `batches_wrong_correct_best` that of the epoch that has most of them.
    """
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
            row["test_top1_best"] = max(curves["test_top1"])
            memorized = curves.get("batches_wrong_memorized", [])
            row["batches_wrong_beyond_chance"] = _beyond_chance(curves, record["data"]["classes"])
            row["batches_wrong_memorized_50"] = memorized[49] if len(memorized) >= 50 else math.nan
            seen = [share for share in curves.get("batches_wrong_correct", []) if share is not None]
            row["batches_wrong_correct_best"] = max(seen, default=math.nan)
            held_out = curves.get("held_out_top1_noisy")
            row["test_top1_selected"] = curves["test_top1"][held_out.index(max(held_out))] if held_out else math.nan
        timing = record["timing"]
        row |= {
            "seconds": timing.get("seconds"),
            "joules": timing.get("joules"),
            "jobs": timing.get("jobs"),
            "images_per_second": _median(timing.get("images_per_second", [])),
            "device": record["device"].get("name"),
            "threads": record["execution"].get("threads"),
        }
        rows.append(row)
    always = ("status", "scale", "noise_realized", "test_top1", "wrong_memorized", "wrong_correct")
    costs = ("seconds", "joules", "jobs", "device", "threads", "images_per_second")
    empty = ["run_id", *RunConfig.model_fields, *always, *costs]
    frame = pd.DataFrame(rows, columns=None if rows else empty)
    return frame.assign(**dict.fromkeys((name for name in always if name not in frame), math.nan))


def _beyond_chance(curves: dict, classes: int) -> float:
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


def curves(records: Iterable[dict]) -> pd.DataFrame:
    """One row a run and epoch: the curves beside the config's fields."""
    parts = []
    for record in records:
        part = pd.DataFrame(record["curves"])
        config = RunConfig(**record["config"])  # fields younger than the record hold what was done then
        fields = pd.DataFrame([config.model_dump(mode="json")] * len(part), index=part.index)
        fields = fields.drop(columns=[c for c in fields if c in part])
        parts.append(pd.concat([part, fields], axis=1).assign(run_id=record["run_id"]))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _median(values: list[float]) -> float:
    return statistics.median_high(values) if values else math.nan


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


class Event(NamedTuple):
    """What happened to a run: kind is started, progress, finished, diverged, failed, stopped or busy."""

    kind: str
    config: RunConfig
    detail: Any = None


def dataset(name: str) -> data.Dataset:
    """`data.load`, which keeps the last one in memory until its files change."""
    return _loaded(name, data.state_on_disk(name))


@lru_cache(maxsize=1)
def _loaded(name: str, state: tuple[int, ...]) -> data.Dataset:
    return data.load(name)


def _find_for_same_data(config: RunConfig) -> dict | None:
    """The record of this run; raises DataError where the dataset's file has other content than the run was trained on.

    A record whose data are not here any more still stands.
    """
    record = find(config)
    if record is None or config.dataset in BUILT_IN_TRAIN_SIZES:
        return record
    try:
        here = dataset(config.dataset)
    except data.DataError:
        return record
    now, then = here.fingerprint(), record["data"]
    other_truth = "test_truth" in then and then["test_truth"] != here.truth_fingerprint()
    if now != then.get("fingerprint") or other_truth:
        what = "its true test labels are" if now == then.get("fingerprint") else f"its content ({now}) is"
        raise data.DataError(
            f"{config.dataset}: {what} not what run {config.run_id} was trained on; "
            f"give the new data another name, or remove {record_path(config)}"
        )
    return record


def train_one(
    config: RunConfig,
    should_stop: Callable[[], bool] = lambda: False,
    on_event: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> dict | None:
    """The record of one run, from the store or by training it; None if it was stopped, is held elsewhere, or failed.

    `options` go to `elrkit.train.fit`. An existing record of a file dataset whose content has changed is an error.
    """
    if record := _find_for_same_data(config):
        return record
    with claim(config) as mine:
        if not mine:
            on_event(Event("busy", config))
            return None
        if record := find(config):  # finished by another process in the meantime
            return record
        on_event(Event("started", config))
        try:
            record = train.fit(
                config,
                dataset=dataset(config.dataset),
                state_dir=state_dir(config),
                should_stop=should_stop,
                on_progress=lambda progress: on_event(Event("progress", config, progress)),
                **options,
            )
            save(record)
        except train.Stopped:
            on_event(Event("stopped", config))
            return None
        except (train.OutOfMemory, ValueError, OSError) as error:  # bad data or labels, a full disk
            on_event(Event("failed", config, str(error)))
            return None
        train.Checkpoints(state_dir(config)).discard()
        on_event(Event(record["status"], config, record))
        return record


def missing(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """The runs that have no record, each once, in the order given; raises DataError as `train_one` does."""
    unique = {config.run_id: config for config in configs}
    return [config for config in unique.values() if _find_for_same_data(config) is None]


def train_missing(
    configs: Sequence[RunConfig],
    *,
    jobs: int = 1,
    threads: int | None = None,
    budget_seconds: float | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    **options: Any,
) -> list[RunConfig]:
    """Train the runs that have no record, `jobs` at a time, in order; return those still missing at the end.

    threads         of each run on a CPU; default: one for small nets, which a second one hardly helps, else the cores
                    shared out among the jobs
    budget_seconds  stop cleanly, checkpoints written, before this much time has passed

    SIGTERM and Ctrl-C stop it just as cleanly; then it raises KeyboardInterrupt, so that nothing else begins. One job
    runs in this process, more in processes of their own.
    """
    require("jobs", jobs, 1, whole=True)
    require("threads", threads, 1, whole=True, optional=True)
    todo = missing(configs)
    if todo:
        check_writable(results_root(), "ELRKIT_RESULTS")
        check_writable(state_root(), "ELRKIT_STATE")
    deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
    jobs = max(1, min(jobs, len(todo)))
    options = {**options, "jobs": jobs}
    threads = threads or _default_threads(todo, jobs)
    with stop_on_signal() as stopped:

        def should_stop() -> bool:
            return stopped.is_set() or (deadline is not None and time.monotonic() > deadline)

        if jobs == 1:
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            try:
                for config in todo:
                    if should_stop():
                        break
                    train_one(config, should_stop, on_event, **options)
            finally:
                torch.set_num_threads(before)
        else:
            _train_in_processes(todo, jobs, threads, should_stop, on_event, options)
    return missing(configs)


def check_writable(folder: Path, variable: str) -> None:
    """Raises OSError, now and not at the end of a training, where a folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise OSError(f"{folder}: cannot be written ({error.strerror}); {variable} names another folder") from None


def _default_threads(configs: Sequence[RunConfig], jobs: int) -> int:
    small = all(config.model == "small_resnet" for config in configs)
    return 1 if small else max(1, _cores() // jobs)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """SIGTERM and SIGINT set the event instead of ending the process; a second one acts as usual.

    Raises KeyboardInterrupt at the end of the block when there was one.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: Any) -> None:
        stopped.set()
        for other, handler in before.items():
            signal.signal(other, handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped.is_set():
        raise KeyboardInterrupt


def _train_in_processes(todo, jobs, threads, should_stop, on_event, options) -> None:
    context = multiprocessing.get_context("spawn")  # fork is not safe with torch's threads and CUDA
    events, stop = context.Queue(), context.Event()
    texts = [config.to_json() for config in todo]
    processes = [
        context.Process(target=_worker, args=(texts, threads, options, events, stop, os.getpid()), daemon=True)
        for _ in range(jobs)
    ]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes) or not events.empty():
        if should_stop():
            stop.set()
        try:
            on_event(events.get(timeout=0.2))
        except queue.Empty:
            continue
    for process in processes:
        process.join()
        if process.exitcode:
            log.error("a training process ended with exit code %s; its run can be resumed", process.exitcode)
    for config in todo:  # the workers pass over what is held, by another one of them or by a process elsewhere
        if find(config) is None:
            with claim(config) as mine:
                if not mine:
                    on_event(Event("busy", config))


def _worker(texts: list[str], threads: int, options: dict, events: Any, stop: Any, parent: int) -> None:
    """Take runs from the plan until none is left: skip what is done or held by others."""
    # Both come from the parent through `stop`; a scheduler or terminal may send them to every process of the group too.
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)

    def should_stop() -> bool:
        return terminated.is_set() or stop.is_set() or os.getppid() != parent

    def put(event: Event) -> None:
        if event.kind != "busy":  # a run that another worker has taken is no news
            events.put(event)

    for text in texts:
        config = RunConfig.from_json(text)
        if should_stop():
            break
        train_one(config, should_stop, put, **options)
    events.close()
    events.join_thread()


def import_tar(path: Path) -> tuple[list[str], list[str], list[str]]:
    """Add the records in a tar to the store: (run ids added, run ids known already, reasons of what was refused).

    Each member is checked as a record (schema, run_id equal to the config's hash, versions); nothing is unpacked to the
    disk but records under their own names. Of a tar that was cut off, what comes before is taken; of a compressed one
    whose checksum does not hold, nothing. Where a run is known already, the record that is here stays; one with other
    results on the same kind of CPU with the same versions and threads is refused, because one of the two must be wrong.
    """
    added, known, refused, found = [], [], [], []
    try:
        _read_to_checksum(path)
        with tarfile.open(path) as archive:
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
        elif _same_circumstances(here, record) and train.comparable(here) != train.comparable(record):
            refused.append(f"{name}: run {record['run_id']} is here with other results of the same device")
        else:
            known.append(record["run_id"])
    return added, known, refused


def _read_to_checksum(path: Path) -> None:
    """Raise what the decompressor raises where a compressed tar is damaged. `tarfile` stops before the checksum, and a
    changed bit may leave a record that can be read. A file that was cut off passes."""
    with open(path, "rb") as file:
        start = file.read(6)
    for magic, opened in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if start.startswith(magic):
            with opened(path) as file, suppress(EOFError):
                while file.read(2**20):
                    pass


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> dict:
    if member.size > 16 * 2**20:
        raise RecordError(f"{name}: {member.size} bytes, too large for a record")
    try:
        record = check(json.loads(archive.extractfile(member).read()), name)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{name}: not readable as JSON ({error})") from None
    if not {"elrkit", "torch", "python"} <= record["versions"].keys():
        raise RecordError(f"{name}: its versions lack elrkit, torch or python")
    return record


def _same_circumstances(a: dict, b: dict) -> bool:
    """Whether two records of one run must agree bit for bit: on one kind of CPU with the same versions and threads."""
    parts = ("device", "execution", "versions")
    return a["device"].get("type") == "cpu" and all(a[part] == b[part] for part in parts)


def load_or_train(configs: Sequence[RunConfig], *, jobs: int | None = None, **options: Any) -> list[dict]:
    """The records of all these runs, trained where they are missing, with progress and an estimate on standard error.

    jobs  runs at a time; default: the cores on a CPU, one on a GPU. Raises DataError when the images of a missing run
          are not there, RuntimeError when a run was not finished.
    """
    from elrkit import progress  # it shows this module's events

    check_training(jobs=jobs)
    if todo := missing(configs):
        for name in {config.dataset for config in todo}:  # one error now, not one for each run
            dataset(name)
        jobs = jobs or (1 if torch.cuda.is_available() else min(_cores(), len(todo)))
        announce(todo, jobs)
        failed: dict[str, str] = {}
        busy: set[str] = set()
        with progress.display(len(todo)) as show:

            def on_event(event: Event) -> None:
                if event.kind == "failed":
                    failed[event.config.run_id] = str(event.detail)
                if event.kind == "busy":
                    busy.add(event.config.run_id)
                show(event)

            left = train_missing(todo, jobs=jobs, on_event=on_event, **options)
        if left:
            elsewhere = len(busy & {config.run_id for config in left})
            stopped = len(left) - len(failed) - elsewhere
            reasons = [f"{len(failed)} failed: {next(iter(failed.values()))}"] if failed else []
            reasons += [f"{elsewhere} are trained by another process"] if elsewhere else []
            reasons += [f"{stopped} stopped; call again to resume them"] if stopped else []
            raise RuntimeError(f"{len(left)} of {len(todo)} runs have no record, {', '.join(reasons)}")
    return [read(record_path(config)) for config in configs]


LONG_SECONDS = 3600.0  # from here on it is told how to ask for less
SMALLER = (
    "smaller: fewer seeds, noise_rates or epochs, or the scale digits; stopped runs go on where they were, so that "
    "they may take several sittings"
)


def announce(todo: Sequence[RunConfig], jobs: int, threads: int | None = None) -> None:
    """Say on standard error how long these runs will take here and, where that is hours, how to ask for less."""
    from elrkit import progress

    seconds = estimate_seconds(todo, jobs, threads)
    print(f"{len(todo)} runs to train, about {progress.duration(seconds)}", file=sys.stderr, flush=True)
    if seconds > LONG_SECONDS:
        print(SMALLER, file=sys.stderr, flush=True)


def gather(configs: Sequence[RunConfig], train: bool = False, jobs: int | None = None) -> list[dict]:
    """The records of those of these runs that have one; with `train`, of all, as `load_or_train`. Prints how many."""
    records = load_or_train(configs, jobs=jobs) if train else [record for c in configs if (record := find(c))]
    print(f"{len(records)} of {len(configs)} runs are there")
    return records


def estimate_seconds(configs: Sequence[RunConfig], jobs: int = 1, threads: int | None = None) -> float:
    """How long these runs will take on this device, from the pace of a few steps of each kind of run, measured now;
    jobs and threads as `train_missing` takes them."""
    require("jobs", jobs, 1, whole=True)
    jobs = max(1, min(jobs, len(configs)))
    paces: dict[tuple, tuple[float, float]] = {}
    total = 0.0
    for config in configs:
        kind = (
            config.model,
            config.width,
            config.stem_stride,
            config.precision,
            bool(config.sam_rho),
            config.batch_size,
        )
        shape = (8, 8, 1) if config.dataset == "digits" else (32, 32, 3)
        n, tested = BUILT_IN_TRAIN_SIZES.get(config.dataset), 450 if config.dataset == "digits" else 10_000
        if n is None:  # a dataset of one's own, or a shop's
            own = dataset(config.dataset)
            n, tested, shape = len(own.train_images), len(own.test_images), tuple(own.train_images.shape[1:])
        kind = (*kind, shape)
        if kind not in paces:
            paces[kind] = train.measure_pace(config, shape, threads=threads or _default_threads(configs, jobs))
        trained, evaluated = paces[kind]
        n = config.train_size or n
        evaluations = config.epochs * tested + n * (config.epochs // config.eval_every)
        total += config.epochs * n / trained + evaluations / evaluated
    # Jobs share a GPU or a CPU's memory: N at a time are not N times as fast, so this is a lower bound for jobs > 1.
    return total / jobs
