"""One training: `fit` takes a RunConfig and returns its record. Steps, evaluation, checkpoints that resume exactly.

Nothing in the loop waits for the device except once an epoch, and the randomness of an epoch is a pure function of the
seed and the epoch (`elrkit.data.draw_epoch`), so a checkpoint needs no generator state and a run can stop at any step.
"""

import contextlib
import copy
import hashlib
import io
import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import elrkit
from elrkit import data, losses, noise, sam
from elrkit.config import RunConfig
from elrkit.energy import Meter

RECORD_SCHEMA = 1
EVALUATION_BATCH = {"cpu": 500, "cuda": 5000}
METER_SECONDS = 60.0  # between readings of the energy; a processor's counter starts again after some ten minutes

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The run was asked to stop before its end; a checkpoint holds what is done, and `fit` goes on from there."""


class OutOfMemory(RuntimeError):
    """The device's memory did not suffice; the message says what to reduce."""


class Progress(NamedTuple):
    """How far a run is: epochs count from 1; `seconds_left` is an estimate from this run's own pace."""

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Problem:
    """What a run trains on: which images of the dataset, the labels it is given, and the true ones.

    index (n,) positions in the dataset's training images; given, truth (n,) int64 labels; held_out_index and
    held_out_given, held_out_truth likewise for the held-out images (empty when nothing is held out); test_given (m,)
    test labels with noise of the same kind, as the paper's code makes them (CIFAR-10N labels no test images:
    there they are the true ones); realized_rate: the share of `given` that is wrong.
    """

    index: np.ndarray
    given: np.ndarray
    truth: np.ndarray
    held_out_index: np.ndarray
    held_out_given: np.ndarray
    held_out_truth: np.ndarray
    test_given: np.ndarray
    realized_rate: float


def set_up(config: RunConfig, dataset: data.Dataset, root: str | Path | None = None) -> Problem:
    """Choose the images, hold some out, make labels wrong, as `config` says; `config.noise_seed` decides all draws."""
    labels, truth = dataset.train_labels.numpy(), dataset.train_truth.numpy()
    rng = np.random.default_rng(config.noise_seed)
    index = np.arange(len(labels))
    if config.train_size is not None:
        if config.train_size > len(labels):
            raise data.DataError(f"train_size={config.train_size}: {config.dataset} has {len(labels)} training images")
        index = np.sort(rng.permutation(len(labels))[: config.train_size])
    held_out = np.zeros(len(index), dtype=bool)
    if config.split == "held_out":  # a tenth of each class, by true label, as Liu et al.'s code
        for label in range(dataset.num_classes):
            members = rng.permutation(np.flatnonzero(truth[index] == label))
            held_out[members[int(0.9 * len(members)) :]] = True

    def corrupt(clean: np.ndarray, seed: int) -> np.ndarray:
        if config.noise == "none":
            return clean.copy()
        noisy, _ = noise.flip_labels(
            clean, kind=config.noise, rate=config.noise_rate, num_classes=dataset.num_classes,
            convention=config.noise_convention, draw=config.noise_draw, seed=seed,
        )  # fmt: skip
        return noisy

    if config.noise == "human":
        human = noise.load_human_labels(config.noise_convention, human_labels_file(root), clean=labels)
        given = human[index]
        test_given = dataset.test_labels.numpy().copy()
    else:
        # The held-out images carry noise of their own, drawn apart, so that the training labels hold the exact rate.
        given = labels[index].copy()
        given[~held_out] = corrupt(given[~held_out], 3 * config.noise_seed)
        given[held_out] = corrupt(given[held_out], 3 * config.noise_seed + 1)
        test_given = corrupt(dataset.test_labels.numpy(), 3 * config.noise_seed + 2)
    kept = ~held_out
    wrong = given[kept] != truth[index][kept]
    return Problem(
        index[kept], given[kept], truth[index][kept], index[held_out], given[held_out], truth[index][held_out],
        test_given, float(wrong.mean()),
    )  # fmt: skip


def human_labels_file(root: str | Path | None = None) -> Path:
    """Where CIFAR-10N's labels are below the data root; raises DataError when they are not there."""
    folder = data.data_root(root)
    names = ("cifar10n.npz", "CIFAR-10_human.pt")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise data.DataError(f"human labels: put CIFAR-10N's {' or '.join(names)} into {folder}, or set ELRKIT_DATA")


def learning_rate(config: RunConfig, epoch: int) -> float:
    """The learning rate of epoch `epoch` (from 0).

    multistep: lr gamma^k after k milestones; cosine: eta_min + (lr - eta_min) (1 + cos(pi t / T_0)) / 2 with t epochs
    since the last restart (Loshchilov and Hutter, 2017, equation 5), constant within an epoch; constant: lr.
    """
    if config.schedule == "multistep":
        return config.lr * config.gamma ** sum(epoch >= m for m in config.milestones)
    if config.schedule == "cosine":
        phase = math.pi * (epoch % config.restart_epochs) / config.restart_epochs
        return config.eta_min + (config.lr - config.eta_min) * (1 + math.cos(phase)) / 2
    return config.lr


def label_outcomes(predicted: Tensor, given: Tensor, truth: Tensor) -> dict[str, float | None]:
    """What became of the labels, as fractions. All three are (n,) class indices.

    right_correct: of the images whose given label is right, the share predicted as labelled; right_other: otherwise.
    wrong_correct, wrong_memorized, wrong_other: of the images whose given label is wrong, the shares predicted as their
    true class, as labelled, and as neither. None where there are no such images.
    """
    wrong = given != truth
    as_given, as_true = predicted == given, predicted == truth
    counts = torch.stack(
        [(~wrong).sum(), (~wrong & as_given).sum(), wrong.sum(), (wrong & as_true).sum(), (wrong & as_given).sum()]
    )
    right, right_correct, wrong, correct, memorized = counts.tolist()
    return {
        "right_correct": right_correct / right if right else None,
        "right_other": (right - right_correct) / right if right else None,
        "wrong_correct": correct / wrong if wrong else None,
        "wrong_memorized": memorized / wrong if wrong else None,
        "wrong_other": (wrong - correct - memorized) / wrong if wrong else None,
    }  # fmt: skip


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The context in which the network computes; losses are float32 in all of them."""
    if precision == "float32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float16
    return RoundedValues(dtype) if rounds(precision, device) else torch.autocast(device.type, dtype=dtype)


def rounds(precision: str, device: torch.device) -> bool:
    """Whether the network computes in float32 on this device and rounds, as `RoundedValues`.

    So it does on a CPU that is slower in 16 bits: in bfloat16 torch takes some ten times as long without AVX-512, as on
    most laptops, and 2.4 times with AVX-512 that has no bfloat16 instructions; in float16 25 times even with those.
    """
    if device.type != "cpu" or precision == "float32":
        return False
    return precision != "bfloat16" or not has_bfloat16()


def has_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 that torch uses (AVX512_BF16; every CPU with AMX has it too)."""
    has_avx512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return has_avx512 and torch.cpu._is_avx512_bf16_supported()  # its public name is not in torch 2.11


RELU = (torch.relu, torch.relu_, torch.nn.functional.relu)


class RoundedValues(TorchFunctionMode):
    """What autocast to a 16-bit type computes, for CPUs that have no such arithmetic, at nearly float32's speed.

    As in a GPU's tensor cores, products and sums are float32 and their results 16 bits wide: the weights of
    convolutions and dense layers and the result of every operation are rounded, and so is, as each goes back through
    its rounding, its gradient. What exceeds float16's 65,504 becomes infinite, which is what a loss scaler looks for.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.conv2d, torch.nn.functional.linear):
            args = [self._there_and_back(value) for value in args]
        result = func(*args, **(kwargs or {}))
        # A ReLU of rounded numbers is rounded, and so is its gradient.
        return result if func in RELU else self._there_and_back(result)

    def _there_and_back(self, value: Any) -> Any:
        rounds = isinstance(value, Tensor) and value.dtype == torch.float32
        return value.to(self.dtype).float() if rounds else value


@torch.no_grad()
def predict(model: nn.Module, images: data.DeviceImages, precision: str = "float32") -> Tensor:
    """Logits (n, classes) float32 of all images, without augmentation, the model in evaluation mode."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    index = torch.arange(len(images), device=device)
    parts = []
    for part in index.split(EVALUATION_BATCH.get(device.type, 500)):
        batch = images.batch(part)
        with autocast(precision, device):
            parts.append(model(batch).float())
    model.train(was_training)
    return torch.cat(parts)


@torch.no_grad()
def move_average(averaged: nn.Module, model: nn.Module, decay: float, taken: int) -> None:
    """Move `averaged` toward `model` after a step, `taken` steps having been averaged before; no wait for the device.

    a <- a + max(1 - decay, 1 / (taken + 1)) (w - a): the plain mean of the first 1 / (1 - decay) steps, so that the
    initial weights leave no trace, then an exponential moving average (Polyak and Juditsky, 1992; Tarvainen and
    Valpola, 2017). Batch-norm statistics are averaged with the weights: they move as slowly, and recomputing them for
    the averaged weights would cost a pass over the training images at each evaluation.
    """
    share = max(1 - decay, 1 / (taken + 1))
    pairs = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    floats = [(a, w) for a, w in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [w for _, w in floats], share)
    for a, w in pairs:
        if not a.is_floating_point():  # the count of batches
            a.copy_(w)


def _network(config: RunConfig, classes: int, channels: int) -> nn.Module:
    from elrkit import models  # not before: torchvision takes seconds that readers of records need not wait for

    return models.build(config.model, classes, channels, config.width, config.stem_stride)


class _Trainer:
    """The state of one run: built from the config, moved by `step`, saved and restored whole."""

    def __init__(
        self, config: RunConfig, dataset: data.Dataset, problem: Problem, device: torch.device, compiled: bool
    ):
        self.config, self.problem, self.device = config, problem, device
        self.fingerprint = dataset.fingerprint()
        self.truth_fingerprint = dataset.truth_fingerprint()
        padding = dataset.train_images.shape[1] // 8  # 4 pixels for 32, as both papers
        crops = config.augmentation in ("fresh", "frozen")
        chosen = torch.from_numpy(problem.index)
        self.images = data.DeviceImages(
            dataset.train_images[chosen], dataset.mean, dataset.std, device, padding if crops else 0
        )
        self.padding = padding
        self.test_images = data.DeviceImages(dataset.test_images, dataset.mean, dataset.std, device)
        held_out = torch.from_numpy(problem.held_out_index)
        self.held_out_images = data.DeviceImages(dataset.train_images[held_out], dataset.mean, dataset.std, device)
        self.given, self.truth = (torch.from_numpy(y).to(device) for y in (problem.given, problem.truth))
        self.held_out_given = torch.from_numpy(problem.held_out_given).to(device)
        self.held_out_truth = torch.from_numpy(problem.held_out_truth).to(device)
        self.test_truth = dataset.test_truth.to(device)
        self.test_given = torch.from_numpy(problem.test_given).to(device)
        n, classes = len(problem.index), dataset.num_classes
        if config.batch_size > n:
            raise data.DataError(
                f"batch_size={config.batch_size}: larger than the {n} training images; allowed is at most {n}"
            )
        self.steps = math.ceil(n / config.batch_size)

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            channels = dataset.train_images.shape[3]
            self.model = _network(config, classes, channels).to(device)
        # The compiler would take a rounding there and back for nothing and leave it out.
        self.compiled = compiled and not rounds(config.precision, device)
        self.network = torch.compile(self.model) if self.compiled else self.model
        self.averaged = copy.deepcopy(self.model).requires_grad_(False) if config.weight_average else None
        self.elr = losses.ELRLoss(n, classes, config.beta, config.lam).to(device) if config.loss == "elr" else None
        if config.optimizer == "adam":
            self.optimizer = torch.optim.Adam(
                self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=device.type == "cuda"
            )
        else:
            self.optimizer = torch.optim.SGD(
                self.model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay,
                # Fused, a first step that a loss scaler skips would leave momentum buffers uninitialized.
                fused=device.type == "cuda" and config.precision != "float16_fresh_scaler",
            )  # fmt: skip

        self.epoch = self.step_in_epoch = 0
        # Of the epoch under way: sum of batch losses (weighted by size), last prediction of each image in its training
        # batch, the first step whose loss was not finite (or `steps`), steps that a loss scaler skipped, seconds.
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.batch_predictions = torch.zeros(n, dtype=torch.int64, device=device)
        self.first_bad_step = torch.full((), self.steps, dtype=torch.int64, device=device)
        self.skipped_steps = 0
        self.epoch_seconds = 0.0
        self.curves: dict[str, list] = {}
        self.timing: dict[str, list | float | None] = {
            "train_seconds": [], "evaluation_seconds": [], "images_per_second": [], "joules": 0.0,
        }  # fmt: skip
        self._draws: tuple[int, data.EpochDraws] | None = None

    def note_energy(self, joules: float | None) -> None:
        """Add what the device counted; once a part is not known (None), the sum is not known either."""
        before = self.timing.get("joules")  # not in checkpoints older than it
        self.timing["joules"] = None if before is None or joules is None else before + joules

    def draws(self) -> data.EpochDraws:
        if self._draws is None or self._draws[0] != self.epoch:
            drawn = data.draw_epoch(
                len(self.images), self.config.seed, self.epoch, self.config.augmentation, self.padding
            )
            self._draws = self.epoch, data.EpochDraws(*(None if d is None else d.to(self.device) for d in drawn))
        return self._draws[1]

    def loss(self, logits: Tensor, labels: Tensor, index: Tensor, move_targets: bool) -> Tensor:
        config = self.config
        if self.elr is not None:
            if move_targets:
                self.elr.update(index, logits)
            return self.elr(logits, labels, index)
        if config.loss == "sce":
            return losses.symmetric_cross_entropy(logits, labels, config.loss_alpha, config.loss_beta)
        if config.loss == "nce_rce":
            return losses.nce_rce(logits, labels, config.loss_alpha, config.loss_beta)
        return losses.cross_entropy(logits, labels)

    def step(self) -> None:
        """One batch, from uint8 images to updated weights; nothing here waits for the device, but a loss scaler."""
        config, draws = self.config, self.draws()
        start = self.step_in_epoch * config.batch_size
        index = draws.order[start : start + config.batch_size]
        corner = None if draws.corner is None else draws.corner[index]
        flip = None if draws.flip is None else draws.flip[index]
        images, labels = self.images.batch(index, corner, flip), self.given[index]
        # The paper's code made a new scaler for each batch, so that the scale never adapts: reproduced by name.
        fresh_scaler = config.precision == "float16_fresh_scaler"
        scaler = torch.amp.GradScaler(self.device.type) if fresh_scaler else None

        def backward(move_targets: bool) -> tuple[Tensor, Tensor]:
            with autocast(config.precision, self.device):
                logits = self.network(images)
            loss = self.loss(logits, labels, index, move_targets)
            (loss if scaler is None else scaler.scale(loss)).backward()
            return logits.detach(), loss.detach()

        self.optimizer.zero_grad(set_to_none=True)
        logits, loss = backward(move_targets=True)
        if config.sam_rho:
            twice = config.sam_double_update_of if config.sam_double_update else None
            statistics = sam.frozen_batch_norm(self.model) if twice in (None, "targets") else contextlib.nullcontext()
            with sam.perturbed(self.model.parameters(), config.sam_rho, config.sam_adaptive), statistics:
                backward(move_targets=twice in ("both", "targets"))
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
            self.skipped_steps += scaler.get_scale() < 2.0**16  # where a new one starts
        if self.averaged is not None:
            taken = self.epoch * self.steps + self.step_in_epoch
            move_average(self.averaged, self.model, config.weight_average, taken)
        self.batch_predictions[index] = logits.argmax(dim=1)
        if scaler is None:
            bad = torch.where(loss.isfinite(), self.steps, self.step_in_epoch)
            torch.minimum(self.first_bad_step, bad, out=self.first_bad_step)
        else:  # it has skipped the batch, and the training goes on, as the paper's code did
            loss = torch.where(loss.isfinite(), loss, 0.0)
        self.loss_sum += loss * len(index)
        self.step_in_epoch += 1

    def start_epoch(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.epoch)

    def end_epoch(self, training_seconds: float) -> None:
        """Evaluate, and append to the curves."""
        config = self.config
        row: dict[str, float | int | None] = {
            "epoch": self.epoch + 1,
            "lr": learning_rate(config, self.epoch),
            "train_loss": self.loss_sum.item() / len(self.images),
        }
        self.epoch_seconds += training_seconds
        started = time.perf_counter()
        last = self.epoch + 1 == config.epochs
        if last or (self.epoch + 1) % config.test_every == 0:
            row |= self._tested()
        if last or (self.epoch + 1) % config.eval_every == 0:
            guess = predict(self.model, self.images, config.precision).argmax(dim=1)
            row |= label_outcomes(guess, self.given, self.truth)
        else:
            row |= dict.fromkeys(("right_correct", "right_other", "wrong_correct", "wrong_memorized", "wrong_other"))
        on_batches = label_outcomes(self.batch_predictions, self.given, self.truth)
        row |= {f"batches_{name}": value for name, value in on_batches.items()}
        if config.precision == "float16_fresh_scaler":
            row["skipped_steps"] = self.skipped_steps
        for name in self.curves.keys() | row.keys():
            column = self.curves.setdefault(name, [None] * self.epoch)
            column.append(_finite(row.get(name)))
        self.timing["train_seconds"].append(self.epoch_seconds)
        self.timing["evaluation_seconds"].append(time.perf_counter() - started)
        self.timing["images_per_second"].append(len(self.images) / max(self.epoch_seconds, 1e-9))
        self.epoch += 1
        self.step_in_epoch = self.skipped_steps = 0
        self.epoch_seconds = 0.0
        self.loss_sum.zero_()
        self.first_bad_step.fill_(self.steps)

    def _tested(self) -> dict[str, float]:
        """What the network makes of the test images and of those held out."""
        config, row = self.config, {}
        logits = predict(self.model, self.test_images, config.precision)
        row["test_loss"] = losses.cross_entropy(logits, self.test_truth).item()
        predicted = logits.argmax(dim=1)
        row["test_top1"] = (predicted == self.test_truth).double().mean().item()
        if logits.shape[1] > 5:
            top5 = logits.topk(5, dim=1).indices == self.test_truth[:, None]
            row["test_top5"] = top5.any(dim=1).double().mean().item()
        row["test_top1_noisy"] = (predicted == self.test_given).double().mean().item()
        if self.averaged is not None:
            guess = predict(self.averaged, self.test_images, config.precision).argmax(dim=1)
            row["test_top1_averaged"] = (guess == self.test_truth).double().mean().item()
        if len(self.held_out_images):
            guess = predict(self.model, self.held_out_images, config.precision).argmax(dim=1)
            row["held_out_top1_noisy"] = (guess == self.held_out_given).double().mean().item()
            row["held_out_top1"] = (guess == self.held_out_truth).double().mean().item()
            outcomes = label_outcomes(guess, self.held_out_given, self.held_out_truth)
            row |= {f"held_out_{name}": value for name, value in outcomes.items()}
        return row

    STATE = ("epoch", "step_in_epoch", "skipped_steps", "epoch_seconds", "curves", "timing")
    STATE_TENSORS = ("loss_sum", "batch_predictions", "first_bad_step")

    def state(self) -> dict:
        return {
            "config": self.config.to_json(),
            "fingerprint": self.fingerprint,
            "test_truth": self.truth_fingerprint,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "elr": self.elr.state_dict() if self.elr else None,
            "averaged": self.averaged.state_dict() if self.averaged is not None else None,
            **{name: getattr(self, name) for name in self.STATE + self.STATE_TENSORS},
        }

    def restore(self, state: dict) -> None:
        # Not their texts: fields that a later version adds are missing there, and are their defaults.
        if RunConfig.from_json(state["config"]) != self.config:
            raise ValueError("it belongs to another config")
        data_then = state.get("fingerprint", self.fingerprint), state.get("test_truth", self.truth_fingerprint)
        if data_then != (self.fingerprint, self.truth_fingerprint):
            raise ValueError("it belongs to other data of the same name")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.elr:
            self.elr.load_state_dict(state["elr"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        for name in self.STATE:
            setattr(self, name, state[name])
        for name in self.STATE_TENSORS:
            getattr(self, name).copy_(state[name])


def fit(
    config: RunConfig,
    *,
    dataset: data.Dataset | None = None,
    root: str | Path | None = None,
    device: str | torch.device | None = None,
    compiled: bool = False,
    state_dir: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Progress], None] | None = None,
    jobs: int | None = None,
) -> dict:
    """Train one run and return its record, a dict of plain JSON values.

    dataset             already loaded; else `config.dataset` is loaded from `root`
    device              cuda where there is one, else cpu
    compiled            train through torch.compile (worth its start-up on long runs)
    state_dir           folder for checkpoints and, at the end, outcome.pt (weights, targets, labels); None: none
    checkpoint_seconds  between checkpoints
    should_stop         asked before each step; when true, `Stopped` is raised after a checkpoint was written
    on_progress         called about twice a second
    jobs                runs that share the device, this one included; only noted beside its time and energy

    `timing` holds the seconds of training and evaluation and the joules that the device counted in that time
    (`elrkit.energy`; None where it does not tell). It counts for all that runs on it, so runs side by side count twice.

    A run whose loss stops being finite returns a record with status `diverged` and when and why. Raises DataError,
    OutOfMemory, Stopped. On the CPU of one machine, with the same number of threads, the same config gives the same
    record but for `timing`, bit for bit, however often it was stopped and resumed.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dataset = dataset or data.load(config.dataset, root)
    problem = set_up(config, dataset, root)
    checkpoints = Checkpoints(Path(state_dir)) if state_dir else None

    def build() -> _Trainer:
        return _Trainer(config, dataset, problem, device, compiled)

    try:
        trainer = checkpoints.resume(build) if checkpoints else build()
        diverged = _train(trainer, checkpoints, checkpoint_seconds, should_stop, on_progress)
        record = _record(trainer, dataset, diverged, jobs)
        if checkpoints:
            checkpoints.finish(_outcome(trainer, record))
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OutOfMemory(
            f"{config.describe()}: out of memory on {device}; reduce batch_size ({config.batch_size}), "
            f"train fewer runs at once (--jobs), or take a smaller model ({reason})"
        ) from None
    return record


def predict_test(config: RunConfig, dataset: data.Dataset, outcome: dict) -> Tensor:
    """Logits (n, classes) float32 of the test images by the network of a finished run (`load_outcome`), on the CPU."""
    channels = dataset.test_images.shape[3]
    model = _network(config, dataset.num_classes, channels)
    model.load_state_dict(outcome["model"])
    return predict(model, data.DeviceImages(dataset.test_images, dataset.mean, dataset.std, "cpu"), config.precision)


def fine_tune(config: RunConfig, dataset: data.Dataset, problem: Problem, outcome: dict) -> dict[str, list]:
    """The curves of going on from a finished run's weights and ELR targets, with the labels of `problem`.

    config   how to go on: epochs, learning rate and all else; the network and images must be the run's
    problem  the run's own (`set_up`), its `given` labels corrected or not
    outcome  of `load_outcome`, its `targets` (n, classes) changed or not; None: targets start at zero

    The start is no part of the config, so this makes no record. Raises ValueError when the outcome belongs to other
    images.
    """
    if not np.array_equal(outcome["index"].numpy(), problem.index):
        raise ValueError(f"fine_tune: run {outcome['run_id']} was trained on other images than those of the problem")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = _Trainer(config, dataset, problem, device, compiled=False)
    trainer.model.load_state_dict(outcome["model"])
    if trainer.elr and outcome["targets"] is not None:
        trainer.elr.targets.copy_(outcome["targets"])
    if bad := _train(trainer, None, math.inf, lambda: False, None):
        raise ValueError(f"fine_tune: diverged in epoch {bad['epoch']}, {bad['reason']}; lower lr={config.lr}")
    return trainer.curves


def training_steps(
    config: RunConfig, dataset: data.Dataset, device: str | torch.device, compiled: bool = False
) -> Iterator[None]:
    """The steps of `fit`, one for each `next()`, without evaluation or end: to be timed or profiled.

    The model is built, and with `compiled` compiled, by the first `next()`. On a GPU a step is only queued when it
    comes back, so synchronize before reading a clock.
    """
    trainer = _Trainer(config, dataset, set_up(config, dataset), torch.device(device), compiled)
    trainer.model.train()
    while True:
        trainer.start_epoch()
        while trainer.step_in_epoch < trainer.steps:
            trainer.step()
            yield
        trainer.epoch += 1
        trainer.step_in_epoch = 0


def _is_out_of_memory(error: Exception) -> bool:
    # On a CPU torch raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _train(trainer: _Trainer, checkpoints, checkpoint_seconds, should_stop, on_progress) -> dict | None:
    """Run epochs until the end; the return value says where the loss stopped being finite, if it did."""
    config = trainer.config
    last_checkpoint = last_report = time.monotonic()
    pace_started, pace_steps = time.monotonic(), 0
    meter, last_reading = Meter(trainer.device), time.monotonic()
    trainer.model.train()
    while trainer.epoch < config.epochs:
        trainer.start_epoch()
        started = time.perf_counter()
        while trainer.step_in_epoch < trainer.steps:
            stop = should_stop()
            now = time.monotonic()
            saving = checkpoints and (stop or now - last_checkpoint > checkpoint_seconds)
            if saving or now - last_reading > METER_SECONDS:
                trainer.note_energy(meter.spent())
                last_reading = now
            if saving:
                trainer.epoch_seconds += time.perf_counter() - started
                checkpoints.save(trainer)
                last_checkpoint, started = time.monotonic(), time.perf_counter()
            if stop:
                raise Stopped(f"{config.describe()}: stopped in epoch {trainer.epoch + 1} of {config.epochs}")
            trainer.step()
            pace_steps += 1
            if on_progress and now - last_report > 0.5:
                last_report = now
                pace = pace_steps / (now - pace_started)
                left = (config.epochs - trainer.epoch) * trainer.steps - trainer.step_in_epoch
                on_progress(
                    Progress(
                        trainer.epoch + 1,
                        config.epochs,
                        trainer.step_in_epoch,
                        trainer.steps,
                        pace * config.batch_size,
                        left / pace,
                    )
                )
        if bad := _diverged(trainer):  # this waits for the device
            trainer.note_energy(meter.spent())
            return bad
        trainer.end_epoch(time.perf_counter() - started)
    trainer.note_energy(meter.spent())
    return None


def measure_pace(config: RunConfig, shape: tuple[int, int, int], threads: int) -> tuple[float, float]:
    """(images trained, images evaluated) per second of runs like `config` here, on random (H, W, C) images; in some
    four seconds."""
    batches = 4
    n = batches * config.batch_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (n,), generator=generator)
    names = tuple(map(str, range(100 if config.dataset == "cifar100" else 10)))
    one = (1.0,) * shape[2]
    random = data.Dataset("random", images, labels, images[:1], labels[:1], names, one, one, labels, labels[:1])
    fields = config.model_dump() | {"dataset": "random.npz", "train_size": None, "split": "all", "noise_rate": 0}
    problem = set_up(RunConfig(**fields | {"noise": "none", "noise_convention": None}), random)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        trainer = _Trainer(config, random, problem, device, compiled=False)

        def per_second(work: Callable[[], None]) -> float:
            work()  # warm up
            started, done = time.perf_counter(), 0
            while done == 0 or time.perf_counter() - started < 2:
                work()
                done += n
            if device.type == "cuda":
                torch.cuda.synchronize()
            return done / (time.perf_counter() - started)

        def epoch() -> None:
            trainer.step_in_epoch = 0
            for _ in range(batches):
                trainer.step()

        return per_second(epoch), per_second(lambda: predict(trainer.model, trainer.images, config.precision))
    finally:
        torch.set_num_threads(before)


def _diverged(trainer: _Trainer) -> dict | None:
    step = int(trainer.first_bad_step)
    if step >= trainer.steps:
        # A loss scaler skips single batches; what it cannot keep out are activations that overflow into the statistics.
        scaled = trainer.config.precision == "float16_fresh_scaler"
        if scaled and not all(bool(value.isfinite().all()) for value in trainer.model.state_dict().values()):
            reason = "weights or batch-norm statistics were not finite numbers"
            return {"epoch": trainer.epoch + 1, "step": trainer.steps, "reason": reason}
        return None
    return {"epoch": trainer.epoch + 1, "step": step + 1, "reason": "the training loss was not a finite number"}


def _finite(value):
    """JSON has no NaN or infinity; None stands for them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(trainer: _Trainer, dataset: data.Dataset, diverged: dict | None, jobs: int | None) -> dict:
    config, problem = trainer.config, trainer.problem
    rounded = rounds(config.precision, trainer.device)
    return {
        "schema": RECORD_SCHEMA,
        "run_id": config.run_id,
        "status": "diverged" if diverged else "finished",
        "diverged": diverged,
        "config": config.model_dump(mode="json"),
        "data": {
            "fingerprint": trainer.fingerprint,
            "test_truth": trainer.truth_fingerprint,
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
            "compiled": trainer.compiled,
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


def digest(weights: dict[str, Tensor]) -> str:
    """SHA-256 of a state_dict, which tells a network from another one."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        hashed.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()


def describe_device(device: torch.device) -> dict:
    """Type and name of the device, and on a GPU its memory, CUDA version and cuDNN version."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "type": "cuda",
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return {"type": "cpu", "name": name, "cores": os.cpu_count(), "capability": torch.backends.cpu.get_cpu_capability()}


def versions() -> dict[str, str]:
    """Versions that can change a result."""
    import torchvision  # see _network

    return {
        "elrkit": elrkit.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
    }


def _outcome(trainer: _Trainer, record: dict) -> dict:
    """What later steps need of a finished run and a record has no room for: see `load_outcome`."""
    logits = predict(trainer.model, trainer.images, trainer.config.precision)
    return {
        "run_id": record["run_id"],
        "model": trainer.model.state_dict(),
        "averaged": trainer.averaged.state_dict() if trainer.averaged is not None else None,
        "targets": trainer.elr.targets.cpu() if trainer.elr else None,
        "probabilities": logits.softmax(dim=1).cpu(),
        "index": torch.from_numpy(trainer.problem.index),
        "given": trainer.given.cpu(),
        "truth": trainer.truth.cpu(),
    }


def load_outcome(state_dir: str | Path) -> dict:
    """outcome.pt of a finished run: `model` and `averaged` (state_dict; None without an average), `targets` and
    `probabilities` (n, classes), `index`, `given`, `truth` (n,), `run_id`. Read without unpickling code."""
    return _read(Path(state_dir) / "outcome.pt")


class Checkpoints:
    """The last two checkpoints of a run, each behind the SHA-256 of its bytes, written atomically.

    A damaged one is renamed to `*.damaged` and the one before it is used. A failed write (a full disk) leaves the
    older ones in place and training goes on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.current, self.previous = folder / "checkpoint.pt", folder / "checkpoint-previous.pt"

    def save(self, trainer: _Trainer) -> None:
        try:
            new = _write(self.folder / "checkpoint-new.pt", trainer.state())
            if self.current.exists():
                self.current.replace(self.previous)
            new.replace(self.current)
        except OSError as error:
            log.warning("%s: checkpoint not written (%s); training goes on", self.folder, error)

    def resume(self, build: Callable[[], _Trainer]) -> _Trainer:
        """A trainer of `build` at the newest usable checkpoint, or at the beginning when there is none."""
        for path in (self.current, self.previous):
            if not path.exists():
                continue
            trainer = build()  # each time anew: a checkpoint that fails halfway leaves a mixture
            try:
                trainer.restore(_read(path))
                return trainer
            except (DamagedFile, KeyError, ValueError, RuntimeError) as error:
                if _is_out_of_memory(error):
                    raise
                aside = path.with_suffix(".damaged")
                path.replace(aside)
                reason = str(error).splitlines()[0]
                log.warning("%s: not usable (%s); set aside as %s", path, reason, aside.name)
        return build()

    def finish(self, outcome: dict) -> None:
        """Keep what a finished run leaves; the checkpoints stay until the record is safe (see `discard`)."""
        try:
            _write(self.folder / "outcome-new.pt", outcome).replace(self.folder / "outcome.pt")
        except OSError as error:
            log.warning("%s: outcome.pt not written (%s)", self.folder, error)

    def discard(self) -> None:
        for path in (self.current, self.previous, self.folder / "checkpoint-new.pt"):
            path.unlink(missing_ok=True)


class DamagedFile(ValueError):
    """A file whose bytes do not match their digest, or that holds more than tensors and plain containers."""


def _write(path: Path, state: dict) -> Path:
    """Write `state` behind the SHA-256 of its bytes and flush it to the disk; on failure remove what was written."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    try:
        with open(path, "wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return path


def _read(path: Path) -> dict:
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        raise DamagedFile(f"{len(content)} bytes do not match their SHA-256")
    # weights_only: tensors and plain containers, nothing that could run code.
    try:
        return torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for what it refuses or cannot parse
        if _is_out_of_memory(error):
            raise
        raise DamagedFile(f"not loadable: {str(error).splitlines()[0]}") from None


def comparable(record: dict) -> str:
    """The part of a record that a repetition must reproduce bit for bit: all but `timing`, as JSON."""
    return json.dumps({k: v for k, v in record.items() if k != "timing"}, sort_keys=True)
