"""Progress with an estimate for one run or many: rich bars on a terminal, plain lines elsewhere (logs, notebooks)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

if TYPE_CHECKING:
    from elrkit.config import RunConfig
    from elrkit.runner import Event

SECONDS_BETWEEN_LINES = 15.0
COLUMNS = (
    TextColumn("{task.description}", markup=False),  # names of datasets are not ours, and [x] may be part of one
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[note]}", markup=False),
)


@contextmanager
def display(total: int) -> Iterator[Display]:
    """Show `total` runs; yields what takes `elrkit.runner.Event`s, for `train_missing(on_event=...)`."""
    console = Console(stderr=True)
    live = console.is_terminal and not console.is_jupyter
    with Progress(*COLUMNS, console=console, disable=not live) as bars:
        yield Display(bars, total)


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what takes (done, of): a bar on a terminal, elsewhere a line now and then, both with an estimate."""
    started = said = time.monotonic()
    console = Console(stderr=True)
    live = console.is_terminal and not console.is_jupyter
    with Progress(*COLUMNS, console=console, disable=not live) as bars:
        task = bars.add_task(what, total=None, note="")

        def show(done: int, of: int) -> None:
            nonlocal said
            now = time.monotonic()
            left = f"{duration((now - started) * (of - done) / max(done, 1))} left"
            bars.update(task, total=of, completed=done, note=left)
            if bars.disable and now - said > SECONDS_BETWEEN_LINES:
                said = now
                print(f"{what}: {done:,} of {of:,}, {left}", file=sys.stderr, flush=True)

        yield show


class Display:
    """Shows events and notes the last one of each run. What fails many runs alike (data that lack) is said once."""

    def __init__(self, bars: Progress, total: int) -> None:
        self.bars, self.total, self.done = bars, total, 0
        self.overall = bars.add_task("runs", total=total, note="")
        self.last: dict[str, Event] = {}  # by run id: descriptions leave settings out, and may be alike
        self.tasks, self.said_at = dict[str, TaskID](), dict[str, float]()
        self.said_failures = set[str]()

    def __call__(self, event: Event) -> None:
        run_id, name, now = event.config.run_id, event.config.describe(), time.monotonic()
        self.last[run_id] = event
        if event.kind == "started":
            self.tasks[run_id] = self.bars.add_task(name, total=event.config.epochs, note="epochs")
            self.said_at[run_id] = now
        elif event.kind == "progress":
            at = event.detail
            pace = f"{at.images_per_second:,.0f} images/s, {duration(at.seconds_left)} left"
            if run_id in self.tasks:
                self.bars.update(self.tasks[run_id], completed=at.epoch - 1, note=f"epochs, {pace}")
            if self.bars.disable and now - self.said_at.get(run_id, 0) > SECONDS_BETWEEN_LINES:
                self.said_at[run_id] = now
                self._say(f"{name}: epoch {at.epoch} of {at.epochs}, {pace}")
        else:
            if run_id in self.tasks:
                self.bars.remove_task(self.tasks.pop(run_id))
            self.done += event.kind in ("finished", "diverged")
            self.bars.update(self.overall, completed=self.done)
            if event.kind != "failed" or event.detail not in self.said_failures:
                self._say(f"[{self.done}/{self.total}] {name}: {_ended(event)}")
            if event.kind == "failed":
                self.said_failures.add(event.detail)

    def _say(self, line: str) -> None:
        if self.bars.disable:
            print(line, file=sys.stderr, flush=True)
        else:
            self.bars.console.print(line, markup=False)

    def still_missing(self, left: list[RunConfig]) -> tuple[list[str], str]:
        """Why those failed that did of the runs which are missing in the end; and how many both are, in words."""
        ends = [event for config in left if (event := self.last.get(config.run_id))]
        # A process that was killed ends its run without a word.
        failed = [str(event.detail) for event in ends if event.kind in ("failed", "started", "progress")]
        return failed, f"{len(left)} still missing" + (f", {len(failed)} of them failed, see above" if failed else "")


def _ended(event: Event) -> str:
    """How a run ended, in words."""
    if event.kind == "finished":
        curves, seconds = event.detail["curves"], duration(event.detail["timing"]["seconds"])
        memorized = curves["wrong_memorized"][-1]
        labels = "" if memorized is None else f", {100 * memorized:.1f} % of the wrong labels memorized"
        return f"test {100 * curves['test_top1'][-1]:.1f} %{labels} ({seconds})"
    if event.kind == "diverged":
        where = event.detail["diverged"]
        return f"diverged in epoch {where['epoch']}, step {where['step']}: {where['reason']}"
    others = {"busy": "another process trains it; waiting for its record", "stopped": "stopped, its checkpoint is kept"}
    return others.get(event.kind, f"failed: {event.detail}")


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min, 3 h 05 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
