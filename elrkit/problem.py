"""What a run trains on: which images, which labels it is given, and what became of them in the end."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from elrkit import data, noise
from elrkit.config import RunConfig


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


def set_up(config: RunConfig, dataset: data.Dataset) -> Problem:
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

    def corrupt(clean: np.ndarray, stream: int) -> np.ndarray:
        noisy, _ = noise.flip_labels(
            clean, kind=config.noise, rate=config.noise_rate, num_classes=dataset.num_classes,
            convention=config.noise_convention, draw=config.noise_draw, seed=3 * config.noise_seed + stream,
        )  # fmt: skip
        return noisy

    if config.noise == "human":
        given = noise.load_human_labels(str(config.noise_convention), human_labels_file(), clean=labels)[index]
        test_given = dataset.test_labels.numpy().copy()
    else:
        # The held-out images carry noise of their own, drawn apart, so that the training labels hold the exact rate.
        given = labels[index].copy()
        given[~held_out] = corrupt(given[~held_out], 0)
        given[held_out] = corrupt(given[held_out], 1)
        test_given = corrupt(dataset.test_labels.numpy(), 2)
    (kept, given_kept, true_kept), held = (
        (index[part], given[part], truth[index][part]) for part in (~held_out, held_out)
    )
    return Problem(kept, given_kept, true_kept, *held, test_given, float((given_kept != true_kept).mean()))


def human_labels_file() -> Path:
    """Where CIFAR-10N's labels are below the data root; raises DataError when they are not there."""
    folder = data.data_root()
    names = ("cifar10n.npz", "CIFAR-10_human.pt")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise data.DataError(f"human labels: put CIFAR-10N's {' or '.join(names)} into {folder}, or set ELRKIT_DATA")


def label_outcomes(predicted: Tensor, given: Tensor, truth: Tensor) -> dict[str, float | None]:
    """What became of the labels, as fractions. All three are (n,) class indices.

    right_correct: of the images whose given label is right, the share predicted as labelled; right_other: otherwise.
    wrong_correct, wrong_memorized, wrong_other: of the images whose given label is wrong, the shares predicted as their
    true class, as labelled, and as neither. None where there are no such images.
    """
    wrong, as_given, as_true = given != truth, predicted == given, predicted == truth
    shares = {
        "right_correct": (~wrong, as_given),
        "right_other": (~wrong, ~as_given),
        "wrong_correct": (wrong, as_true),
        "wrong_memorized": (wrong, as_given),
        "wrong_other": (wrong, ~as_true & ~as_given),
    }
    counts = torch.stack([count for of, what in shares.values() for count in (of.sum(), (of & what).sum())])
    found = iter(counts.tolist())  # the one wait for the device
    return {name: share / of if of else None for name, of, share in zip(shares, found, found, strict=True)}
