"""How fast a training is on this machine: the measurement behind every estimate."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from elrkit import data
from elrkit.config import RunConfig
from elrkit.problem import set_up
from elrkit.trainer import Trainer, predict

SECONDS = 1.0  # of each of the two measurements


def measure(config: RunConfig, shape: tuple[int, int, int], threads: int) -> tuple[float, float]:
    """(images trained, images evaluated) per second of runs like `config` here, on random (H, W, C) images.

    It takes some seconds: on a CPU a large net sees a few images at a time, which cost it no less each.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small = device.type == "cuda" or config.model == "small_resnet"
    batch, batches = (config.batch_size, 4) if small else (min(config.batch_size, 8), 1)
    n = batch * batches
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (n,), generator=generator)
    names = tuple(map(str, range(100 if config.dataset == "cifar100" else 10)))
    one = (1.0,) * shape[2]
    pictures = data.one_each(images), labels, data.one_each(images[:1]), labels[:1]
    random = data.Dataset("random", *pictures, names, one, one, labels, labels[:1])
    clean = {"noise": "none", "noise_rate": 0, "noise_convention": None, "split": "all"}
    config = config.with_(dataset="random.npz", train_size=None, batch_size=batch, **clean)
    trainer = Trainer(config, random, set_up(config, random), device)

    def train() -> None:
        trainer.step_in_epoch = 0
        trainer.start_epoch()
        for _ in range(batches):
            trainer.step()

    def evaluate() -> None:
        predict(trainer.model, trainer.train.images, config.precision)

    def per_second(work: Callable[[], None]) -> float:
        work()  # warm up
        started, done = time.perf_counter(), 0
        while done == 0 or time.perf_counter() - started < SECONDS:
            work()
            done += n
        if device.type == "cuda":
            torch.cuda.synchronize()
        return done / (time.perf_counter() - started)

    with threads_of(threads):
        return per_second(train), per_second(evaluate)


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Torch computes with so many threads within."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
