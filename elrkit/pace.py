"""How fast a training is on this machine: the measurement behind every estimate."""

import torch
from torch.utils.benchmark import Timer

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
    random = data.Dataset("random", images, labels, images[:1], labels[:1], names, one, one, labels, labels[:1])
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

    trained, evaluated = (
        Timer("work()", globals={"work": work}, num_threads=threads).blocked_autorange(min_run_time=SECONDS).median
        for work in (train, evaluate)
    )
    return n / trained, n / evaluated
