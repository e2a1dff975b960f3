"""Time the training loop of a checkout of shengliu66/ELR: its trainer, data loader and loss (see throughput.py).

Started by throughput.py as a process of its own, because the checkout's modules have names such as `utils` and `model`.
Nothing in the checkout is changed: its CIFAR-10 reader finds random images of CIFAR's shape instead of files, and the
loader it is given notes the time at each batch. Its step ends with `loss.item()`, which waits for the device, so the
time between two batches is that of a whole step, loading included.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torchvision
from throughput import CLASSES, matrix_product_tflops

from elrkit import models


class RandomImages:
    """Stands in for torchvision.datasets.CIFAR10, from which the checkout's datasets inherit."""

    count = 50_000

    def __init__(self, root, train=True, transform=None, target_transform=None, download=False) -> None:
        rng = np.random.default_rng(0)
        self.data = rng.integers(0, 256, (self.count, 32, 32, 3), dtype=np.uint8)
        self.targets = [i % CLASSES for i in range(self.count)]
        self.transform, self.target_transform = transform, target_transform


class Clocked:
    """The checkout's loader, ended once `seconds` (and 3 steps) have been timed after the warm-up."""

    def __init__(self, loader, seconds: float, warm_up_steps: int) -> None:
        self.loader, self.seconds, self.warm_up_steps = loader, seconds, warm_up_steps
        self.step_seconds: list[float] = []
        self.cpu_seconds = 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str):
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator:
        started = None
        for step, batch in enumerate(self.loader):
            if step == self.warm_up_steps:
                started, cpu_started = time.perf_counter(), time.process_time()
            yield batch
            if started is not None:
                now = time.perf_counter()
                self.step_seconds.append(now - started)
                self.cpu_seconds = time.process_time() - cpu_started
                started = now
                if len(self.step_seconds) >= 3 and sum(self.step_seconds) >= self.seconds:
                    return


class Silent:
    """What the checkout uses of tqdm, without the output."""

    def __init__(self, batches=None, **options) -> None:
        self.batches = batches

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        pass

    def __iter__(self) -> Iterator:
        return iter(self.batches)

    def set_description_str(self, text: str) -> None:
        pass

    set_postfix_str = set_description_str


def time_checkout(
    checkout: Path, model: str, batch: int, images: int, device: str, seconds: float, threads: int
) -> dict:
    """Seconds of each timed step, and what a matrix product reaches before and after."""
    torch.set_num_threads(threads)
    root = checkout / "ELR" if (checkout / "ELR").is_dir() else checkout
    sys.path.insert(0, str(root))
    RandomImages.count = images
    torchvision.datasets.CIFAR10 = RandomImages
    # The progress bar would only add noise; the other modules that its train.py imports are not needed.
    sys.modules["tqdm"] = types.SimpleNamespace(tqdm=Silent)
    settings = json.loads((root / "config_cifar10.json").read_text())
    workers = min(settings["data_loader"]["args"]["num_workers"], len(os.sched_getaffinity(0)))
    settings["n_gpu"] = int(device == "cuda")
    settings["data_loader"]["args"] |= {"batch_size": batch, "num_workers": workers}
    settings["trainer"] |= {"save_dir": tempfile.mkdtemp(dir=Path.cwd()), "verbosity": 0}
    Path("config.json").write_text(json.dumps(settings))
    sys.argv = ["train.py", "--config", "config.json"]

    from parse_config import ConfigParser

    parser = argparse.ArgumentParser()
    for flag in ("--config", "--resume", "--device"):
        parser.add_argument(flag)
    config = ConfigParser.get_instance(parser)

    from data_loader.data_loaders import CIFAR10DataLoader
    from model.loss import cross_entropy, elr_loss
    from model.metric import my_metric, my_metric2
    from model.ResNet_Zoo import ResNet18, ResNet34
    from trainer import Trainer

    torch.manual_seed(0)
    if model == "small_resnet":  # the checkout has no such network, so its loop trains ours
        network = models.build("small_resnet", CLASSES, 3, 32, 2)
    else:
        network = {"resnet18": ResNet18, "resnet34": ResNet34}[model]()
    loader = CIFAR10DataLoader(**settings["data_loader"]["args"])
    # Past the batches that the workers had ready before the first step.
    warm_up = 2 * workers + 10 if device == "cuda" else 2 if model == "small_resnet" else 1
    clocked = Clocked(loader, seconds, warm_up)
    optimizer = torch.optim.SGD(network.parameters(), **settings["optimizer"]["args"])
    trainer = Trainer(
        network,
        elr_loss(len(loader.dataset), CLASSES, settings["train_loss"]["args"]["beta"]),
        [my_metric, my_metric2],
        optimizer,
        config=config,
        data_loader=clocked,
        lr_scheduler=torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, eta_min=0.001),
        val_criterion=cross_entropy,
    )
    before = matrix_product_tflops(device, "float32", threads)
    trainer._train_epoch(1)
    after = matrix_product_tflops(device, "float32", threads)
    return {
        "network": "elrkit's" if model == "small_resnet" else "the checkout's",
        "loader_workers": workers,
        "step_seconds": clocked.step_seconds,
        "cpu_seconds": clocked.cpu_seconds,
        "matrix_product_tflops": [before, after],
    }


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    output = Path(arguments.pop("output"))
    with contextlib.redirect_stdout(sys.stderr):
        timed = time_checkout(Path(arguments.pop("checkout")), **arguments)
    output.write_text(json.dumps(timed))
