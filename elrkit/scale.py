"""Runs on Ray Core: several GPUs or machines, fractions of a GPU, retries after a lost node. Needs the extra `scale`.

    runner.train_missing(configs, cluster=Cluster("auto", gpus_per_run=0.25))
    for found in Cluster("auto").map(function, parts): ...

Each run or part is one Ray task; what it makes comes back as the task's value and is saved by the caller, so the
machines share no results folder. Every node needs elrkit itself and the data (`ELRKIT_DATA`, as set here). With a
shared state folder (`ELRKIT_STATE`) a run whose node is lost goes on from its last checkpoint, else from its start.

Start a cluster that spans machines with one token for all (`RAY_AUTH_MODE=token` and the same `RAY_AUTH_TOKEN`, here
too), and remove what a killed one has left in its temporary folder before the next.
"""

import importlib.util
import itertools
import logging
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from elrkit import records, runner
from elrkit.config import ConfigError, RunConfig

RETRIES = 3  # how often a run or part is started again after its node or process was lost
PER_CORE = 4  # parts of a map under way, or done before their turn
CLAIM_PATIENCE_SECONDS = 60.0  # a lost node's process may outlive its node for a moment, and still hold its run


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster for `runner.train_missing`, and for whatever else comes in parts.

    address       host:port or "auto"; None: the Ray this process is connected to, else one of its own on this machine,
                  ended afterwards
    gpus_per_run  0.25 puts four runs or parts on a GPU; 0: on the CPU
    """

    address: str | None = None
    gpus_per_run: float = 0.0

    def train(
        self,
        todo: Sequence[RunConfig],
        cpus_per_run: int,
        stop: runner.Stop,
        on_event: runner.OnEvent,
        options: dict[str, Any],
    ) -> None:
        """Train these runs as tasks, in order; on a signal they are interrupted and keep their last checkpoints.

        `on_event` hears of finished, diverged, failed, stopped and busy runs (progress stays on the nodes). Raises
        ConfigError when Ray is not installed, no cluster answers, or none of its nodes can hold a run.
        """
        environment = {name: os.environ[name] for name in ("ELRKIT_DATA", "ELRKIT_STATE") if name in os.environ}
        options = {"device": "cuda" if self.gpus_per_run else "cpu", **options}
        with _connected(self.address) as ray:
            _check_room(ray, self.gpus_per_run, cpus_per_run)
            resources = {"num_cpus": cpus_per_run, "num_gpus": self.gpus_per_run, "max_retries": RETRIES}
            task = ray.remote(**resources)(_train)
            waiting = {
                task.remote(config, environment, cpus_per_run, stop.deadline, options): config for config in todo
            }
            try:
                while waiting and not stop.signalled.is_set():  # at the deadline the tasks stop by themselves
                    for done in ray.wait(list(waiting), timeout=1.0)[0]:
                        on_event(_come_home(ray, done, waiting.pop(done)))
            finally:
                for task_left in waiting:
                    ray.cancel(task_left)

    def map(self, function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
        """``function(part)`` of each, in order, as tasks of one core and one thread of torch; what it raises is raised.

        The function goes to each node once, by pickle. Parts are taken, and results held, a few for each core. A result
        is fetched as soon as it is made, so that a node that is lost later costs no part that had ended.

        Raises ConfigError as `train` does, and ConnectionError when a part was lost more than `RETRIES` times.
        """
        with _connected(self.address) as ray:
            _check_room(ray, self.gpus_per_run, 1)
            task = ray.remote(num_cpus=1, num_gpus=self.gpus_per_run, max_retries=RETRIES)(_apply)
            there, numbered = ray.put(function), enumerate(parts)
            waiting: dict[Any, int] = {}
            home: dict[int, Any] = {}
            try:
                for wanted in itertools.count():
                    while wanted not in home:
                        most = 2 + int(PER_CORE * ray.cluster_resources().get("CPU", 0))
                        for number, part in itertools.islice(numbered, max(most - len(waiting) - len(home), 0)):
                            waiting[task.remote(there, part)] = number
                        if not waiting:
                            return
                        (done,), _ = ray.wait(list(waiting))
                        home[waiting.pop(done)] = pickle.loads(ray.get(done))
                    yield home.pop(wanted)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayError as error:
                raise ConnectionError(f"ray: a part of the work was lost ({_reason(ray, error)})") from None
            finally:
                for task_left in waiting:
                    ray.cancel(task_left)


def _come_home(ray: Any, done: Any, config: RunConfig) -> runner.Event:
    """How a task's run ended, its record saved."""
    try:
        return runner.keep(ray.get(done))  # it discards the checkpoints too, where the state folder is shared
    except ray.exceptions.RayError as error:
        return runner.Event("failed", config, f"{config.describe()}: no record came back ({_reason(ray, error)})")


def _reason(ray: Any, error: Exception) -> str:
    """A line of what Ray says: an exception in the task ends its traceback, a lost process or node is named first."""
    return str(error).strip().splitlines()[-1 if isinstance(error, ray.exceptions.RayTaskError) else 0]


def _apply(function: Callable[[Any], Any], part: Any) -> bytes:
    """The task: a pickle, as Ray would hand out arrays in memory of its own, which is gone when it is disconnected."""
    torch.set_num_threads(1)
    return pickle.dumps(function(part))


def _train(
    config: RunConfig, environment: dict[str, str], threads: int, deadline: float | None, options: dict[str, Any]
) -> runner.Event:
    """The task, in a process of a Ray node: how the run ended, or that another process has kept it busy."""
    os.environ.update(environment)
    torch.set_num_threads(threads)

    def should_stop() -> bool:
        return deadline is not None and time.time() > deadline

    give_up = time.monotonic() + CLAIM_PATIENCE_SECONDS
    while not should_stop():
        with records.claim(config) as mine:
            if mine:
                return runner.attempt(config, should_stop, **options)
        if time.monotonic() > give_up:
            return runner.Event("busy", config)
        time.sleep(0.5)
    return runner.Event("stopped", config)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """The ray module, connected; disconnected afterwards unless it was connected before."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError('Ray is not installed; install it with pip install "elrkit[scale]"')
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield ray
        return
    # A local cluster gets a folder of its own: what a killed one has left in the usual place would disturb it.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        local: dict[str, Any] = {"include_dashboard": False, "_temp_dir": folder} if address is None else {}
        try:
            ray.init(address=address or "local", logging_level=logging.WARNING, log_to_driver=False, **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"ray={address!r}: no cluster answers there ({reason})") from None
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_room(ray: Any, gpus_per_run: float, cpus_per_run: int) -> None:
    """Ray would wait for ever for a node that is large enough."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(n.get("CPU", 0) >= cpus_per_run and n.get("GPU", 0) >= gpus_per_run for n in nodes):
        held = "; ".join(f"{n.get('CPU', 0):g} cores, {n.get('GPU', 0):g} GPUs" for n in nodes)
        raise ConfigError(
            f"threads={cpus_per_run}, gpus_per_run={gpus_per_run:g}: larger than every node of the cluster ({held})"
        )
