"""How fast a training is on this machine: its steps, to be timed, and the measurement behind every estimate."""

import time
from collections.abc import Callable, Iterator

import torch

from elrkit import data
from elrkit.config import RunConfig
from elrkit.problem import set_up
from elrkit.trainer import Trainer, predict

SECONDS = 1.0  # of each of the two measurements


def training_steps(
    config: RunConfig, dataset: data.Dataset, device: str | torch.device, compiled: bool = False
) -> Iterator[None]:
    """The steps of `fit`, one for each `next()`, without evaluation or end: to be timed or profiled.

    The model is built, and with `compiled` compiled, by the first `next()`. On a GPU a step is only queued when it
    comes back, so synchronize before reading a clock.
    """
    trainer = Trainer(config, dataset, set_up(config, dataset), torch.device(device), compiled)
    trainer.model.train()
    while True:
        trainer.start_epoch()
        while trainer.step_in_epoch < trainer.steps:
            trainer.step()
            yield
        trainer.epoch += 1
        trainer.step_in_epoch = 0


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
    random = data.Dataset("random", images, labels, images[:1], labels[:1], names, one, one, labels, labels[:1])
    clean = {"noise": "none", "noise_rate": 0, "noise_convention": None, "split": "all"}
    config = config.with_(dataset="random.npz", train_size=None, batch_size=batch, **clean)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        trainer = Trainer(config, random, set_up(config, random), device)

        def epoch() -> None:
            trainer.step_in_epoch = 0
            for _ in range(batches):
                trainer.step()

        def per_second(work: Callable[[], object]) -> float:
            work()  # warm up
            started, done = time.perf_counter(), 0
            while done == 0 or time.perf_counter() - started < SECONDS:
                work()
                done += n
            if device.type == "cuda":
                torch.cuda.synchronize()
            return done / (time.perf_counter() - started)

        return per_second(epoch), per_second(lambda: predict(trainer.model, trainer.images, config.precision))
    finally:
        torch.set_num_threads(before)
