"""Labels that people made (CIFAR-10N): how they are wrong, and how far their errors can be foreseen."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from elrkit import noise
from elrkit.report import plans

# The counts of `count`, committed, so that a reader needs no dataset to see them.
COUNTS_FILE = Path(__file__).resolve().parents[2] / "results" / "human_labels.json"


def count(path: str | Path, clean: Any, class_names: Sequence[str]) -> dict:
    """What CIFAR-10N's labels are, counted: plain JSON values, from a file that `noise.load_human_labels` reads.

    clean  CIFAR-10's own training labels (n,); class_names  the 10 names

    Keys: source, images, class_names, labels_sha256 (16 hex digits over the clean labels and the levels', whatever file
    holds them), and counts: of each level how many images of true class i (row) are labelled j, as nested lists. Raises
    as `noise.load_human_labels`.
    """
    clean = noise.as_labels(clean, 10, "clean")
    found = {name: noise.load_human_labels(name, path, clean) for name in plans.LEVELS}
    digest = hashlib.sha256(b"".join(labels.astype("<i8").tobytes() for labels in (clean, *found.values())))
    return {
        "source": "CIFAR-10N, labels by people for CIFAR-10's training images (Wei et al., ICLR 2022)",
        "images": len(clean),
        "class_names": list(map(str, class_names)),
        "labels_sha256": digest.hexdigest()[:16],
        "counts": {name: confusion_matrix(clean, labels, labels=range(10)).tolist() for name, labels in found.items()},
    }


def counted() -> tuple[dict[str, np.ndarray], list[str]]:
    """(level -> (10, 10) counts, class names) of the committed `count`."""
    found = json.loads(COUNTS_FILE.read_text("utf-8"))
    return {level: np.array(rows) for level, rows in found["counts"].items()}, found["class_names"]


def confusion_facts(counts: Mapping[str, np.ndarray], class_names: Iterable[str]) -> pd.DataFrame:
    """How people's labels are wrong, from `counted`: a row per level, in percent.

    counts  level -> (C, C) counts, rows true classes. wrong: of all labels; one mistake: the share of the wrong labels
            that make the commonest mistake of their true class (1 of 9 under symmetric noise with ten classes);
            commonest: the three largest entries beside the diagonal
    """
    names = list(class_names)
    rows = []
    for level in (level for level in plans.LEVELS if level in counts):
        matrix = np.asarray(counts[level])
        off = matrix - np.diag(matrix.diagonal())
        top = np.unravel_index(np.argsort(-off, axis=None, kind="stable")[:3], off.shape)
        pairs = [
            f"{names[i]} as {names[j]} {100 * matrix[i, j] / matrix[i].sum():.0f} %" for i, j in zip(*top, strict=True)
        ]
        rows.append(
            {
                "level": level, "wrong": f"{100 * off.sum() / matrix.sum():.1f} %",
                "one mistake": f"{100 * off.max(axis=1).sum() / off.sum():.0f} %",
                "commonest mistakes": "; ".join(pairs),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def needed_foresight(agreement: float, wrong: float) -> float:
    """Of the wrong labels, the share in [0, 1] that a network must foresee to agree with a share `agreement` of all
    labels when a share `wrong` of them is wrong: it agrees with 1 - wrong + f wrong, if it knows every true class."""
    return max(0.0, (agreement - (1 - wrong)) / wrong)
