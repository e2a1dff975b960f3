"""The state of one training: built from a config, moved a step at a time, evaluated each epoch, saved and restored."""

import contextlib
import json
import math
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from elrkit import batches, data, losses, sam
from elrkit.config import RunConfig
from elrkit.precision import autocast
from elrkit.problem import Problem, label_outcomes

EVALUATION_BATCH = {"cpu": 500, "cuda": 5000}


class Part(NamedTuple):
    """Images on the training's device, the labels that they are given, and the true ones."""

    images: batches.DeviceImages
    given: Tensor
    truth: Tensor


def learning_rate(config: RunConfig, epoch: int) -> float:
    """The learning rate of epoch `epoch` (from 0).

    multistep: lr gamma^k after k milestones; cosine: eta_min + (lr - eta_min) (1 + cos(pi t / T_0)) / 2 with t epochs
    since the last restart (Loshchilov and Hutter, 2017, equation 5), constant within an epoch; constant: lr.
    """
    if config.milestones is not None and config.gamma is not None:
        return config.lr * config.gamma ** sum(epoch >= m for m in config.milestones)
    if config.restart_epochs is not None and config.eta_min is not None:
        phase = math.pi * (epoch % config.restart_epochs) / config.restart_epochs
        return config.eta_min + (config.lr - config.eta_min) * (1 + math.cos(phase)) / 2
    return config.lr


@torch.no_grad()
def predict(model: nn.Module, images: batches.DeviceImages, precision: str = "float32") -> Tensor:
    """Logits (n, classes) float32 of all images, without augmentation, the model in evaluation mode."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts = []
    for part in torch.arange(len(images), device=device).split(EVALUATION_BATCH.get(device.type, 500)):
        batch = images.batch(part)
        with autocast(precision, device):
            parts.append(model(batch).float())
    model.train(was_training)
    return torch.cat(parts)


class Trainer:
    """The state of one run: built from the config, moved by `step`, evaluated each epoch, saved and restored whole."""

    def __init__(self, config: RunConfig, dataset: data.Dataset, problem: Problem, device: torch.device) -> None:
        self.config, self.problem, self.device = config, problem, device
        self.data_are = {"fingerprint": dataset.fingerprint, "test_truth": dataset.truth_fingerprint()}
        n, classes = len(problem.index), dataset.num_classes
        if config.batch_size > n:
            raise data.DataError(
                f"batch_size={config.batch_size}: larger than the {n} training images; allowed is at most {n}"
            )
        halved = 4 * config.stem_stride if config.stem_stride else 8  # how much smaller the last block's map is
        if (n % config.batch_size or config.batch_size) == 1 and max(dataset.train_pictures.shape[1:3]) <= halved:
            raise data.DataError(
                f"batch_size={config.batch_size}: leaves one of the {n} training images alone in the last batch, where "
                "batch normalization has nothing to go by; choose another"
            )
        self.steps = math.ceil(n / config.batch_size)
        self.scaled = config.precision == "float16_fresh_scaler"
        self.padding = dataset.train_images.shape[1] // 8  # 4 pixels for 32, as both papers
        padding = self.padding if config.augmentation in ("fresh", "frozen") else 0
        index, held_out = (torch.from_numpy(chosen) for chosen in (problem.index, problem.held_out_index))
        self.train, self.held_out, self.test = (
            Part(
                batches.DeviceImages(images, dataset.mean, dataset.std, device, pad),
                torch.from_numpy(given).to(device),
                truth.to(device),
            )
            for images, given, truth, pad in (
                (dataset.train_images[index], problem.given, torch.from_numpy(problem.truth), padding),
                (dataset.train_images[held_out], problem.held_out_given, torch.from_numpy(problem.held_out_truth), 0),
                (dataset.test_images, problem.test_given, dataset.test_truth, 0),
            )
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = network(config, dataset).to(device)
        row = losses.LOSSES[config.loss]
        self.loss_function = row.function
        self.loss_parameters = [getattr(config, name) for name in row.parameters]
        # The loss that keeps targets, if it is one.
        self.elr = row.module(n, classes, *self.loss_parameters).to(device) if row.module else None
        self.optimizer = self._optimizer()

        self.epoch = self.step_in_epoch = 0
        # Of the epoch under way: sum of batch losses (weighted by size), last prediction of each image in its training
        # batch, the first step whose loss was not finite (or `steps`), steps that a loss scaler skipped, seconds.
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.batch_predictions = torch.zeros(n, dtype=torch.int64, device=device)
        self.first_bad_step = torch.full((), self.steps, dtype=torch.int64, device=device)
        self.skipped_steps = 0
        self.epoch_seconds = 0.0
        self.curves: dict[str, list[Any]] = {}
        self.timing: dict[str, list[float]] = {"train_seconds": [], "evaluation_seconds": [], "images_per_second": []}

    def _optimizer(self) -> torch.optim.Optimizer:
        config, parameters, fused = self.config, self.model.parameters(), self.device.type == "cuda"
        if config.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
        momentum = config.momentum or 0.0
        fused &= not self.scaled  # a first step that a loss scaler skips would leave momentum buffers uninitialized
        return torch.optim.SGD(parameters, config.lr, momentum, weight_decay=config.weight_decay, fused=fused)

    def start_epoch(self) -> None:
        """Set the learning rate and draw what the epoch, begun or gone on with, draws."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.epoch)
        drawn = batches.draw_epoch(len(self.train.given), config.seed, self.epoch, config.augmentation, self.padding)
        corner, flip = (None if part is None else part.to(self.device) for part in (drawn.corner, drawn.flip))
        self.draws = batches.EpochDraws(drawn.order.to(self.device), corner, flip)

    def loss(self, logits: Tensor, labels: Tensor, index: Tensor, move_targets: bool) -> Tensor:
        if self.loss_function is not None:
            return self.loss_function(logits, labels, *self.loss_parameters)
        assert self.elr is not None  # a loss is the one or the other
        if move_targets:
            self.elr.update(index, logits)
        return self.elr(logits, labels, index)

    def step(self) -> None:
        """One batch, from uint8 images to updated weights; nothing here waits for the device, but a loss scaler."""
        config, draws = self.config, self.draws
        start = self.step_in_epoch * config.batch_size
        index = draws.order[start : start + config.batch_size]
        corner, flip = (None if drawn is None else drawn[index] for drawn in (draws.corner, draws.flip))
        images, labels = self.train.images.batch(index, corner, flip), self.train.given[index]
        # The paper's code made a new scaler for each batch, so that the scale never adapts: reproduced by name.
        scaler = torch.amp.GradScaler(self.device.type) if self.scaled else None

        def backward(move_targets: bool) -> tuple[Tensor, Tensor]:
            with autocast(config.precision, self.device):
                logits = self.model(images)
            loss = self.loss(logits, labels, index, move_targets)
            (loss if scaler is None else scaler.scale(loss)).backward()
            return logits.detach(), loss.detach()

        self.optimizer.zero_grad(set_to_none=True)
        logits, loss = backward(move_targets=True)
        if config.sam_rho:
            twice = config.sam_double_update
            statistics = contextlib.nullcontext() if twice else sam.frozen_batch_norm(self.model)
            with sam.perturbed(self.model.parameters(), config.sam_rho), statistics:
                backward(move_targets=twice)
        if scaler is None:
            self.optimizer.step()
            bad = torch.where(loss.isfinite(), self.steps, self.step_in_epoch)
            torch.minimum(self.first_bad_step, bad, out=self.first_bad_step)
        else:  # it skips a batch that is not finite, and the training goes on, as the paper's code did
            scaler.step(self.optimizer)
            scaler.update()
            self.skipped_steps += scaler.get_scale() < 2.0**16  # where a new one starts
            loss = torch.where(loss.isfinite(), loss, 0.0)
        self.batch_predictions[index] = logits.argmax(dim=1)
        self.loss_sum += loss * len(index)
        self.step_in_epoch += 1

    def end_epoch(self, training_seconds: float) -> None:
        """Evaluate, and append to the curves."""
        config, ended = self.config, self.epoch + 1
        self.epoch_seconds += training_seconds
        row: dict[str, float | int | None] = {
            "epoch": ended,
            "lr": learning_rate(config, self.epoch),
            "train_loss": self.loss_sum.item() / len(self.train.given),
        }
        started = time.perf_counter()
        if ended == config.epochs or ended % config.test_every == 0:
            row |= self._tested()
        on_batches = label_outcomes(self.batch_predictions, self.train.given, self.train.truth)
        row |= {f"batches_{name}": value for name, value in on_batches.items()}
        row |= dict.fromkeys(on_batches)
        if ended == config.epochs or ended % config.eval_every == 0:
            row |= label_outcomes(self._logits(self.train).argmax(dim=1), self.train.given, self.train.truth)
        if self.scaled:
            row["skipped_steps"] = self.skipped_steps
        for name in dict.fromkeys((*self.curves, *row)):  # in the order that they came in
            value = row.get(name)  # JSON has no NaN or infinity; None stands for them
            finite = value if value is None or math.isfinite(value) else None
            self.curves.setdefault(name, [None] * self.epoch).append(finite)
        self.timing["train_seconds"].append(self.epoch_seconds)
        self.timing["evaluation_seconds"].append(time.perf_counter() - started)
        self.timing["images_per_second"].append(len(self.train.given) / max(self.epoch_seconds, 1e-9))
        self.epoch = ended
        self.step_in_epoch = self.skipped_steps = 0
        self.epoch_seconds = 0.0
        self.loss_sum.zero_()
        self.first_bad_step.fill_(self.steps)

    def _logits(self, part: Part) -> Tensor:
        return predict(self.model, part.images, self.config.precision)

    def _tested(self) -> dict[str, float | None]:
        """What the network makes of the test images and of those held out."""
        test, held_out = self.test, self.held_out

        def agreement(guess: Tensor, labels: Tensor) -> float:
            return (guess == labels).double().mean().item()

        logits = self._logits(test)
        guess = logits.argmax(dim=1)
        row: dict[str, float | None] = {
            "test_loss": losses.cross_entropy(logits, test.truth).item(),
            "test_top1": agreement(guess, test.truth),
            "test_top1_noisy": agreement(guess, test.given),
        }
        if logits.shape[1] > 5:
            top5 = logits.topk(5, dim=1).indices == test.truth[:, None]
            row["test_top5"] = top5.any(dim=1).double().mean().item()
        if len(held_out.given):
            guess = self._logits(held_out).argmax(dim=1)
            row["held_out_top1_noisy"] = agreement(guess, held_out.given)
            row["held_out_top1"] = agreement(guess, held_out.truth)
            outcomes = label_outcomes(guess, held_out.given, held_out.truth)
            row |= {f"held_out_{name}": value for name, value in outcomes.items()}
        return row

    def diverged(self) -> dict[str, Any] | None:
        """Where the epoch that has ended stopped being finite, if it did; this waits for the device."""
        step = int(self.first_bad_step)
        if step < self.steps:
            return {"epoch": self.epoch + 1, "step": step + 1, "reason": "the training loss was not a finite number"}
        # A loss scaler skips single batches; what it cannot keep out are activations that overflow into the statistics.
        if self.scaled and not all(bool(value.isfinite().all()) for value in self.model.state_dict().values()):
            reason = "weights or batch-norm statistics were not finite numbers"
            return {"epoch": self.epoch + 1, "step": self.steps, "reason": reason}
        return None

    VALUES = ("epoch", "step_in_epoch", "skipped_steps", "epoch_seconds", "curves", "timing")
    TENSORS = ("loss_sum", "batch_predictions", "first_bad_step")
    PARTS = ("model", "optimizer", "elr")  # of them those that there are

    def state(self) -> dict[str, Any]:
        return {
            "config": self.config.to_json(),
            **self.data_are,
            **{name: getattr(self, name) for name in self.VALUES + self.TENSORS},
            **{name: part.state_dict() for name in self.PARTS if (part := getattr(self, name)) is not None},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; raises DataError where it is another run's, KeyError, ValueError or
        RuntimeError where it does not fit."""
        # Not their texts: fields that a later version adds are missing there, and are their defaults.
        if RunConfig(**json.loads(state["config"])) != self.config:
            raise data.DataError("a checkpoint of another run")
        if {name: state[name] for name in self.data_are} != self.data_are:
            raise ValueError("it belongs to other data of the same name")
        for name in self.PARTS:
            if (part := getattr(self, name)) is not None:
                part.load_state_dict(state[name])
        for name in self.VALUES:
            setattr(self, name, state[name])
        for name in self.TENSORS:
            getattr(self, name).copy_(state[name])


def network(config: RunConfig, dataset: data.Dataset) -> nn.Module:
    from elrkit import models  # not before: torchvision takes seconds

    channels = dataset.train_images.shape[3]
    return models.build(config.model, dataset.num_classes, channels, config.width, config.stem_stride)
