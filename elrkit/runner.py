"""The training of many runs: what is missing, who trains what; `n` at a time, with progress and an estimate."""

import logging
import multiprocessing
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from elrkit import data, train
from elrkit.config import BUILT_IN_TRAIN_SIZES, RunConfig, check_training, require
from elrkit.records import claim, find, read, record_path, results_root, save, state_dir, state_root

log = logging.getLogger(__name__)


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
        evaluations = tested * (config.epochs // config.test_every) + n * (config.epochs // config.eval_every)
        total += config.epochs * n / trained + evaluations / evaluated
    # Jobs share a GPU or a CPU's memory: N at a time are not N times as fast, so this is a lower bound for jobs > 1.
    return total / jobs
