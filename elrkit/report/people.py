"""Labels that people made (CIFAR-10N): how they are wrong, and how far their errors can be foreseen."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from elrkit.report import plans


def confusion_facts(counts: Mapping[str, np.ndarray], class_names: Iterable[str]) -> pd.DataFrame:
    """How people's labels are wrong, from `human_counts.read_human_counts`: a row per level, in percent.

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
