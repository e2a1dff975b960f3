"""What tests train on: a part of the digits, and a dataset of one's own; seconds each."""

import json

import numpy as np

from elrkit.config import RunConfig

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), np.arange(60) % 3
IDS = np.array([f"p{k}" for k in range(60)]), np.array([f"q{k}" for k in range(9)])


def write_dataset(path, train_ids=IDS[0], test_ids=IDS[1], train_labels=LABELS):
    np.savez(
        path, train_images=IMAGES, train_labels=train_labels, train_ids=train_ids, test_images=IMAGES[:9],
        test_labels=LABELS[:9], test_ids=test_ids, class_names=np.array(["a", "b", "c"]),
    )  # fmt: skip
    return str(path)


def small(dataset, **changes):
    return RunConfig(dataset=dataset, loss="elr", epochs=1, width=8, batch_size=20, **changes)


def tiny(**changes):
    """On the digits: three steps of 64, 64 and 62 images an epoch."""
    return RunConfig(**{"train_size": 190, "width": 8, "epochs": 2, "noise_rate": 0.4, "lr": 0.05, **changes})


def comparable(record):
    """The part of a record that a repetition must reproduce bit for bit: all but `timing`, as JSON."""
    return json.dumps({k: v for k, v in record.items() if k != "timing"}, sort_keys=True)
