"""One training: `fit` takes a RunConfig and returns its record, a dict of plain JSON values.

Nothing in the loop waits for the device except once an epoch, and the randomness of an epoch is a pure function of the
seed and the epoch (`elrkit.batches.draw_epoch`): a checkpoint needs no generator state, a run can stop at any step.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from elrkit import data
from elrkit.checkpoints import Checkpoints, digest, load_outcome
from elrkit.config import RunConfig
from elrkit.precision import describe_device, is_out_of_memory, rounds, versions
from elrkit.problem import Problem, label_outcomes, set_up
from elrkit.records import SCHEMA
from elrkit.trainer import Trainer, learning_rate, predict

__all__ = [
    "OutOfMemory", "Problem", "Progress", "Stopped", "Trainer", "describe_device", "fit", "label_outcomes",
    "learning_rate", "load_outcome", "predict", "set_up", "versions",
]  # fmt: skip


class Stopped(Exception):
    """The run was asked to stop before its end; a checkpoint holds what is done, and `fit` goes on from there."""


class OutOfMemory(RuntimeError):
    """The device's memory did not suffice; the message says what to reduce."""


class Progress(NamedTuple):
    """How far a run is: epochs count from 1; `seconds_left` is an estimate from this run's own pace."""

    epoch: int
    epochs: int
    images_per_second: float
    seconds_left: float


def fit(
    config: RunConfig,
    *,
    dataset: data.Dataset | None = None,
    device: str | torch.device | None = None,
    state_dir: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] | None = None,
    jobs: int | None = None,
) -> dict[str, Any]:
    """Train one run and return its record, a dict of plain JSON values.

    dataset             already loaded; else `config.dataset` is loaded
    device              cuda where there is one, else cpu
    state_dir           folder of this run alone, for checkpoints and, at the end, outcome.pt (see `load_outcome`); or
                        None
    checkpoint_seconds  between checkpoints
    should_stop         asked before each step; when true, `Stopped` is raised after a checkpoint was written
    on_progress         called about twice a second
    jobs                runs that share the device, this one included; only noted beside its time

    A run whose loss stops being finite returns a record with status `diverged` and when and why. Raises DataError,
    OutOfMemory, Stopped. On the CPU of one machine, with the same number of threads, the same config gives the same
    record but for `timing`, bit for bit, however often it was stopped and resumed.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dataset = dataset or data.load(config.dataset)
    if dataset.name != config.dataset:  # its record would count as the other one's
        raise data.DataError(
            f"dataset={config.dataset!r}: these are the images of {dataset.name!r}; name them in config"
        )
    problem = set_up(config, dataset)
    checkpoints = Checkpoints(Path(state_dir)) if state_dir else None

    def build() -> Trainer:
        return Trainer(config, dataset, problem, device)

    try:
        trainer = checkpoints.resume(build) if checkpoints else build()
        diverged = _train(trainer, checkpoints, checkpoint_seconds, should_stop, on_progress)
        record = _record(trainer, dataset, diverged, jobs)
        if checkpoints:
            checkpoints.finish({
                "model": trainer.model.state_dict(),
                "targets": trainer.elr and trainer.elr.targets.cpu(),
            })  # fmt: skip
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutOfMemory(
            f"{config.describe()}: out of memory on {device}; reduce batch_size ({config.batch_size}), "
            f"train fewer runs at once (--jobs), or take a smaller model ({reason})"
        ) from None
    return record


def _train(
    trainer: Trainer,
    checkpoints: Checkpoints | None = None,
    checkpoint_seconds: float = math.inf,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any] | None:
    """Run epochs until the end; the return value says where the loss stopped being finite, if it did."""
    config = trainer.config
    began = last_checkpoint = last_report = time.monotonic()
    taken = 0
    trainer.model.train()
    while trainer.epoch < config.epochs:
        trainer.start_epoch()
        started = time.perf_counter()
        while trainer.step_in_epoch < trainer.steps:
            stop = should_stop()
            if checkpoints and (stop or time.monotonic() - last_checkpoint > checkpoint_seconds):
                trainer.epoch_seconds += time.perf_counter() - started
                checkpoints.save(trainer.state())
                last_checkpoint, started = time.monotonic(), time.perf_counter()
            if stop:
                raise Stopped(f"{config.describe()}: stopped in epoch {trainer.epoch + 1} of {config.epochs}")
            trainer.step()
            taken += 1
            now = time.monotonic()
            if on_progress and now - last_report > 0.5:
                last_report, pace = now, taken / (now - began)
                left = (config.epochs - trainer.epoch) * trainer.steps - trainer.step_in_epoch
                on_progress(Progress(trainer.epoch + 1, config.epochs, pace * config.batch_size, left / pace))
        if bad := trainer.diverged():
            return bad
        trainer.end_epoch(time.perf_counter() - started)
    return None


def _record(
    trainer: Trainer, dataset: data.Dataset, diverged: dict[str, Any] | None, jobs: int | None
) -> dict[str, Any]:
    config, problem = trainer.config, trainer.problem
    rounded = rounds(config.precision, trainer.device)
    return {
        "schema": SCHEMA,
        "run_id": config.run_id,
        "status": "diverged" if diverged else "finished",
        "diverged": diverged,
        "config": config.model_dump(mode="json"),
        "data": {
            **trainer.data_are,
            "train_images": len(problem.index),
            "held_out_images": len(problem.held_out_index),
            "test_images": len(dataset.test_labels),
            "classes": dataset.num_classes,
            "image_shape": [dataset.train_images.shape[3], *dataset.train_images.shape[1:3]],
            "realized_noise_rate": problem.realized_rate,
        },
        "curves": trainer.curves,
        "weights_sha256": digest(trainer.model.state_dict()),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "device": describe_device(trainer.device),
        "execution": {
            "threads": torch.get_num_threads(),
            "memory_format": "channels_last",
            **({config.precision.removesuffix("_fresh_scaler"): "rounded float32"} if rounded else {}),
        },
        "versions": versions(),
        "timing": {
            **trainer.timing,
            "seconds": sum(trainer.timing["train_seconds"]) + sum(trainer.timing["evaluation_seconds"]),
            "jobs": jobs,
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    }
