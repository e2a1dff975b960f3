"""Progress with an estimate for one run or many: rich bars on a terminal, plain lines elsewhere (logs, notebooks)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:
    from elrkit import train
    from elrkit.runner import Event

SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def display(total: int) -> Iterator[Callable[[Event], None]]:
    """Show `total` runs; yields the function that takes `elrkit.runner.Event`s, for `train_missing(on_event=...)`.

    What fails many runs alike (a dataset that is missing) is said once.
    """
    console, said = Console(stderr=True), set[str]()

    def once(show: Callable[[Event], None]) -> Callable[[Event], None]:
        def show_once(event: Event) -> None:
            if event.kind != "failed" or event.detail not in said:
                show(event)
            if event.kind == "failed":
                said.add(event.detail)

        return show_once

    if console.is_terminal and not console.is_jupyter:
        with _bars(console, total) as show:
            yield once(show)
    else:
        yield once(_lines(total))


@contextmanager
def _bars(console: Console, total: int) -> Iterator[Callable[[Event], None]]:
    columns = (
        TextColumn("{task.description}", markup=False),  # names of datasets are not ours, and [x] may be part of one
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as bars:
        overall = bars.add_task("runs", total=total, note="")
        tasks = {}

        def show(event: Event) -> None:
            run_id, name = event.config.run_id, event.config.describe()
            if event.kind == "started":
                tasks[run_id] = bars.add_task(name, total=event.config.epochs, note="epochs")
            elif event.kind == "progress" and run_id in tasks:
                bars.update(tasks[run_id], completed=event.detail.epoch - 1, note="epochs, " + _pace(event.detail))
            elif event.kind != "progress":
                if run_id in tasks:
                    bars.remove_task(tasks.pop(run_id))
                bars.console.print(_ended(event), markup=False)
                if event.kind in ("finished", "diverged"):
                    bars.advance(overall)

        yield show


def _lines(total: int) -> Callable[[Event], None]:
    done = 0
    last_line: dict[str, float] = {}

    def show(event: Event) -> None:
        nonlocal done
        run_id, now = event.config.run_id, time.monotonic()  # descriptions leave settings out, and may be alike
        if event.kind == "started":
            last_line[run_id] = now
            return
        if event.kind == "progress":
            if now - last_line.get(run_id, 0) < SECONDS_BETWEEN_LINES:
                return
            last_line[run_id] = now
            at = event.detail
            line = f"{event.config.describe()}: epoch {at.epoch} of {at.epochs}, {_pace(at)}"
        else:
            done += event.kind in ("finished", "diverged")
            line = f"[{done}/{total}] {_ended(event)}"
        print(line, file=sys.stderr, flush=True)

    return show


def _pace(progress: train.Progress) -> str:
    return f"{progress.images_per_second:,.0f} images/s, {duration(progress.seconds_left)} left"


def _ended(event: Event) -> str:
    name = event.config.describe()
    if event.kind == "finished":
        curves = event.detail["curves"]
        memorized = curves["wrong_memorized"][-1]
        labels = "" if memorized is None else f", {100 * memorized:.1f} % of the wrong labels memorized"
        seconds = duration(event.detail["timing"]["seconds"])
        return f"{name}: test {100 * curves['test_top1'][-1]:.1f} %{labels} ({seconds})"
    if event.kind == "diverged":
        where = event.detail["diverged"]
        return f"{name}: diverged in epoch {where['epoch']}, step {where['step']}: {where['reason']}"
    if event.kind == "busy":
        return f"{name}: another process trains it; waiting for its record"
    if event.kind == "stopped":
        return f"{name}: stopped, its checkpoint is kept"
    return f"{name}: failed: {event.detail}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min, 3 h 05 min, 2 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
