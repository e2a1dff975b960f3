"""Processes for tests to kill: forked from a server that has imported torch once, so that each starts at once."""

import multiprocessing
import os
import time
from collections.abc import Callable

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["elrkit.runner", "elrkit.models", "sklearn.datasets", "sklearn.model_selection"])

PATIENCE_SECONDS = 120  # a bound for a machine that is busy with other things, not an expectation


def start(target: Callable, *args) -> multiprocessing.Process:
    process = context.Process(target=_run, args=(dict(os.environ), target, args), daemon=True)
    process.start()
    return process


def _run(environment: dict[str, str], target: Callable, args: tuple) -> None:
    os.environ.update(environment)  # the server has that of the test which started it
    target(*args)


def wait_until(condition: Callable[[], bool], process: multiprocessing.Process | None = None) -> None:
    """Returns when `condition` holds, or when `process` has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition() and (process is None or process.is_alive()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def end(process: multiprocessing.Process) -> int:
    """Wait for the end of the process; its exit code."""
    process.join(PATIENCE_SECONDS)
    assert process.exitcode is not None, "still running"
    return process.exitcode
