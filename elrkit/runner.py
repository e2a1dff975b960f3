"""The one loop that trains what is missing: in this process, in several, or on Ray; stopped cleanly, waited for, told.

`train_missing` is that loop, `load_or_train` and `gather` are what notebooks call, `estimate_seconds` what they say
before.
"""

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
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from elrkit import checkpoints, data, pace, records, train
from elrkit.config import BUILT_IN_TRAIN_SIZES, RunConfig, check_training, require
from elrkit.records import claim, find, results_root, state_dir, state_root

if TYPE_CHECKING:
    from elrkit.scale import Cluster

log = logging.getLogger(__name__)


class Event(NamedTuple):
    """What happened to a run: kind is started, progress, finished, diverged, failed, stopped or busy."""

    kind: str
    config: RunConfig
    detail: Any = None


ENDED = ("finished", "diverged")  # with a record as their detail
OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Stop:
    """When to stop: at a signal, or at the deadline (seconds since the epoch, as on every machine)."""

    signalled: threading.Event
    deadline: float | None

    def __call__(self) -> bool:
        return self.signalled.is_set() or (self.deadline is not None and time.time() > self.deadline)


def train_missing(
    configs: Sequence[RunConfig],
    *,
    jobs: int = 1,
    threads: int | None = None,
    budget_seconds: float | None = None,
    on_event: OnEvent = lambda event: None,
    cluster: "Cluster | None" = None,
    **options: Any,
) -> list[RunConfig]:
    """Train the runs that have no record, `jobs` at a time, in order; return those still missing at the end.

    threads         of each run on a CPU; default: one for small nets, which a second one hardly helps, else the cores
                    shared out among the jobs
    budget_seconds  stop cleanly, checkpoints written, before this much time has passed
    cluster         a Ray cluster (`elrkit.scale`) that takes the runs, with `threads` cores each, instead of `jobs`
                    processes here

    `options` go to `elrkit.train.fit`. A run that another process trains is waited for. SIGTERM and Ctrl-C stop the
    loop just as cleanly; then it raises KeyboardInterrupt, so that nothing else begins. One job runs in this process,
    more in processes of their own. Raises OSError where no record could be written, DataError as `missing`.
    """
    require("jobs", jobs, 1, whole=True)
    require("threads", threads, 1, whole=True, optional=True)
    todo = missing(configs)
    unfinished = {config.run_id for config in todo}
    for config in configs:
        if config.run_id not in unfinished:
            _discard_what_a_kill_left(config)
    if not todo:
        return []
    _check_writable(results_root(), "ELRKIT_RESULTS")
    _check_writable(state_root(), "ELRKIT_STATE")
    with _stopping(budget_seconds) as stop:
        if cluster is not None:
            cluster.train(todo, threads or 1, stop, on_event, options)
        else:
            ready = _with_data(todo, on_event)
            jobs = max(1, min(jobs, len(ready)))
            threads = threads or _default_threads(ready, jobs)
            options = {**options, "jobs": jobs}
            with pace.threads_of(threads):
                if jobs == 1:
                    _train_in_turn(ready, stop, on_event, options)
                else:
                    _train_in_processes(ready, jobs, threads, stop, on_event, options)
                _wait_for_others(ready, stop, on_event, options)
    return missing(configs)


def train_one(
    config: RunConfig,
    should_stop: Callable[[], bool] = lambda: False,
    on_event: OnEvent = lambda event: None,
    **options: Any,
) -> dict[str, Any] | None:
    """The record of one run, from the store or by training it; None if it was stopped, is held elsewhere, or failed.

    `options` go to `elrkit.train.fit`. An existing record of a file dataset whose content has changed is an error.
    """
    if record := _find_for_same_data(config):
        return record
    with claim(config) as mine:
        if not mine:
            return None
        if record := find(config):  # finished by another process in the meantime
            return record
        on_event(Event("started", config))

        def told(progress: train.Progress) -> None:
            on_event(Event("progress", config, progress))

        ended = keep(attempt(config, should_stop, on_progress=told, **options))
        on_event(ended)
        return ended.detail if ended.kind in ENDED else None


def attempt(config: RunConfig, should_stop: Callable[[], bool], **options: Any) -> Event:
    """Train a run that is held; how it ended, with its record where it came to its end."""
    try:
        record = train.fit(
            config, dataset=dataset(config.dataset), state_dir=state_dir(config), should_stop=should_stop, **options
        )
    except train.Stopped:
        return Event("stopped", config)
    except (train.OutOfMemory, ValueError, OSError) as error:  # bad data or labels
        return Event("failed", config, str(error))
    return Event(record["status"], config, record)


def keep(ended: Event) -> Event:
    """Save the record that a run ended with and remove its checkpoints; where it cannot be saved, the run failed."""
    if ended.kind in ENDED:
        try:
            records.save(ended.detail)
        except (ValueError, OSError) as error:  # a full disk
            return Event("failed", ended.config, str(error))
        checkpoints.discard(state_dir(ended.config))
    return ended


def missing(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """The runs that have no record, each once, in the order given; raises DataError where a record was made of other
    data of the same name."""
    unique = {config.run_id: config for config in configs}
    return [config for config in unique.values() if _find_for_same_data(config) is None]


def _find_for_same_data(config: RunConfig) -> dict[str, Any] | None:
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
    now, then = here.fingerprint, record["data"]
    other_truth = "test_truth" in then and then["test_truth"] != here.truth_fingerprint()
    if now != then.get("fingerprint") or other_truth:
        what = "its true test labels are" if now == then.get("fingerprint") else f"its content ({now}) is"
        raise data.DataError(
            f"{config.dataset}: {what} not what run {config.run_id} was trained on; "
            f"give the new data another name, or remove {records.record_path(config)}"
        )
    return record


def dataset(name: str) -> data.Dataset:
    """`data.load`, which keeps the last one in memory until its files change."""
    return _loaded(name, data.state_on_disk(name))


@lru_cache(maxsize=1)
def _loaded(name: str, state: tuple[int, ...]) -> data.Dataset:
    return data.load(name)


def _with_data(todo: Sequence[RunConfig], on_event: OnEvent) -> list[RunConfig]:
    """The runs whose dataset is here; the others fail at once, without a download tried for each."""
    reasons: dict[str, str] = {}
    for name in dict.fromkeys(config.dataset for config in todo):
        try:
            dataset(name)
        except data.DataError as error:
            reasons[name] = str(error)
    for config in todo:
        if config.dataset in reasons:
            on_event(Event("failed", config, reasons[config.dataset]))
    return [config for config in todo if config.dataset not in reasons]


def _discard_what_a_kill_left(config: RunConfig) -> None:
    """The checkpoints of a run whose process ended between writing its record and removing them."""
    if (state_dir(config) / "checkpoint.pt").exists():
        with claim(config) as mine:
            if mine:
                checkpoints.discard(state_dir(config))


def _wait_for_others(todo: Sequence[RunConfig], stop: Stop, on_event: OnEvent, options: dict[str, Any]) -> None:
    """Wait until the runs that other processes hold have a record; train those that they give up."""

    def is_held(config: RunConfig) -> bool:
        with claim(config) as mine:
            return not mine

    held = [config for config in todo if find(config) is None and is_held(config)]
    for config in held:
        on_event(Event("busy", config))
    for config in held:
        while not stop() and is_held(config):
            time.sleep(0.2)
        if not stop():
            train_one(config, stop, on_event, **options)


def _check_writable(folder: Path, variable: str) -> None:
    """Raises OSError, now and not at the end of a training, where a folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        raise OSError(f"{folder}: cannot be written ({error.strerror}); {variable} names another folder") from None


def _default_threads(configs: Sequence[RunConfig], jobs: int) -> int:
    small = all(config.model == "small_resnet" for config in configs)
    return 1 if small else max(1, len(os.sched_getaffinity(0)) // jobs)


@contextmanager
def _stopping(budget_seconds: float | None) -> Iterator[Stop]:
    """SIGTERM and SIGINT stop the work instead of ending the process; a second one acts as usual.

    Raises KeyboardInterrupt at the end of the block when there was one.
    """
    stopped = threading.Event()
    asked = Stop(stopped, None if budget_seconds is None else time.time() + budget_seconds)
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: Any) -> None:
        stopped.set()
        for other, handler in before.items():
            signal.signal(other, handler)

    for number in before:
        signal.signal(number, stop)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped.is_set():
        raise KeyboardInterrupt


def _train_in_turn(
    todo: Sequence[RunConfig], should_stop: Callable[[], bool], on_event: OnEvent, options: dict[str, Any]
) -> None:
    """Train one run after the other; skip what is done or held by others."""
    for config in todo:
        if should_stop():
            break
        train_one(config, should_stop, on_event, **options)


def _train_in_processes(
    todo: Sequence[RunConfig], jobs: int, threads: int, stop: Stop, on_event: OnEvent, options: dict[str, Any]
) -> None:
    context = multiprocessing.get_context("spawn")  # fork is not safe with torch's threads and CUDA
    events, stopping = context.Queue(), context.Event()
    processes = [
        context.Process(target=_worker, args=(todo, threads, options, events, stopping, os.getpid()), daemon=True)
        for _ in range(jobs)
    ]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes) or not events.empty():
        if stop():
            stopping.set()
        try:
            on_event(events.get(timeout=0.2))
        except queue.Empty:
            continue
    for process in processes:
        process.join()
        if process.exitcode:
            log.error("a training process ended with exit code %s; its run can be resumed", process.exitcode)


def _worker(
    todo: Sequence[RunConfig], threads: int, options: dict[str, Any], events: Any, stopping: Any, parent: int
) -> None:
    """A process that trains what is left of the plan."""
    # Both come from the parent through `stopping`; a scheduler or terminal may send them to every process of the group.
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)

    def should_stop() -> bool:
        return terminated.is_set() or stopping.is_set() or os.getppid() != parent

    _train_in_turn(todo, should_stop, events.put, options)
    events.close()
    events.join_thread()


def load_or_train(configs: Sequence[RunConfig], *, jobs: int | None = None, **options: Any) -> list[dict[str, Any]]:
    """The records of all these runs, trained where they are missing, with progress and an estimate on standard error.

    jobs  runs at a time; default: the cores on a CPU, one on a GPU. Several are processes of their own, so a script
          needs the usual ``if __name__ == "__main__"``. Raises DataError when the images of a missing run are not
          there, RuntimeError when a run was not finished.
    """
    from elrkit import progress  # it needs rich, which readers of records may lack

    check_training(jobs=jobs)
    if todo := missing(configs):
        for name in {config.dataset for config in todo}:
            dataset(name)
        jobs = jobs or (1 if torch.cuda.is_available() else min(len(os.sched_getaffinity(0)), len(todo)))
        announce(todo, jobs)
        with progress.display(len(todo)) as show:
            left = train_missing(todo, jobs=jobs, on_event=show, **options)
        if left:
            failed, _ = show.still_missing(left)
            stopped = len(left) - len(failed)
            reasons = [f"{len(failed)} failed: {failed[0]}"] if failed else []
            if jobs > 1 and not show.last:
                reasons = [
                    "none began: a script keeps what it does under `if __name__ == '__main__':`, or takes jobs=1"
                ]
                stopped = 0
            reasons += [f"{stopped} stopped; call again to resume them"] if stopped else []
            raise RuntimeError(f"{len(left)} of {len(todo)} runs have no record, {', '.join(reasons)}")
    return [record for config in configs if (record := find(config))]


def gather(configs: Sequence[RunConfig], train: bool = False, jobs: int | None = None) -> list[dict[str, Any]]:
    """The records of those of these runs that have one; with `train`, of all, as `load_or_train`. Prints how many."""
    found = load_or_train(configs, jobs=jobs) if train else [record for c in configs if (record := find(c))]
    print(f"{len(found)} of {len(configs)} runs are there")
    return found


LONG_SECONDS = 3600.0  # from here on it is told how to ask for less
SMALLER = (
    "smaller: fewer seeds or noise_rates, or the scale digits; stopped runs go on where they were, so that "
    "they may take several sittings"
)


def announce(todo: Sequence[RunConfig], jobs: int, threads: int | None = None) -> None:
    """Say on standard error how long these runs will take here and, where that is hours, how to ask for less."""
    from elrkit import progress

    seconds = estimate_seconds(todo, jobs, threads)
    print(f"{len(todo)} runs to train, about {progress.duration(seconds)}", file=sys.stderr, flush=True)
    if seconds > LONG_SECONDS:
        print(SMALLER, file=sys.stderr, flush=True)


def estimate_seconds(configs: Sequence[RunConfig], jobs: int = 1, threads: int | None = None) -> float:
    """How long these runs will take on this device, from the pace of a few steps of each kind of run, measured now;
    jobs and threads as `train_missing` takes them."""
    require("jobs", jobs, 1, whole=True)
    require("threads", threads, 1, whole=True, optional=True)
    jobs = max(1, min(jobs, len(configs)))
    threads = threads or _default_threads(configs, jobs)
    paces: dict[tuple[Any, ...], tuple[float, float]] = {}
    total = 0.0
    for config in configs:
        if config.dataset == "digits":
            n, tested, shape = BUILT_IN_TRAIN_SIZES["digits"], 450, (8, 8, 1)
        elif config.dataset in BUILT_IN_TRAIN_SIZES:
            n, tested, shape = BUILT_IN_TRAIN_SIZES[config.dataset], 10_000, (32, 32, 3)
        else:  # a dataset of one's own, or a shop's
            own = dataset(config.dataset)
            n, height, width, channels = own.train_images.shape
            tested, shape = len(own.test_images), (height, width, channels)
        sharp = bool(config.sam_rho)
        kind = (config.model, config.width, config.stem_stride, config.precision, sharp, config.batch_size, shape)
        if kind not in paces:
            paces[kind] = pace.measure(config, shape, threads)
        trained, evaluated = paces[kind]
        n = config.train_size or n
        evaluations = tested * (config.epochs // config.test_every) + n * (config.epochs // config.eval_every)
        total += config.epochs * n / trained + evaluations / evaluated
    # Jobs share a GPU or a CPU's memory: N at a time are not N times as fast, so this is a lower bound for jobs > 1.
    return total / jobs
