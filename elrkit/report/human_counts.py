"""People's labels of CIFAR-10 (CIFAR-10N), counted per true class: the committed counts that the report reads."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elrkit import noise

# The counts of `human_label_counts`, committed, so that a reader needs no dataset to see them.
HUMAN_COUNTS_FILE = Path(__file__).resolve().parents[2] / "results" / "human_labels.json"


def human_label_counts(path: str | Path, clean: Any, class_names: Sequence[str]) -> dict:
    """What CIFAR-10N's labels are, counted: plain JSON values, from a file that `noise.load_human_labels` reads.

    clean  CIFAR-10's own training labels (n,); class_names  the 10 names

    Keys: source, images, class_names, labels_sha256 (16 hex digits over the clean labels and the levels', whatever file
    holds them), and counts: of aggregate, random1 and worst `noise.transition_counts` as nested lists. Raises as
    `noise.load_human_labels`.
    """
    clean = noise.as_labels(clean, 10, "clean")
    found = {name: noise.load_human_labels(name, path, clean) for name in ("aggregate", "random1", "worst")}
    digest = hashlib.sha256(b"".join(labels.astype("<i8").tobytes() for labels in (clean, *found.values())))
    return {
        "source": "CIFAR-10N, labels by people for CIFAR-10's training images (Wei et al., ICLR 2022)",
        "images": len(clean),
        "class_names": list(map(str, class_names)),
        "labels_sha256": digest.hexdigest()[:16],
        "counts": {name: noise.transition_counts(clean, labels, 10).tolist() for name, labels in found.items()},
    }


def read_human_counts(path: Path = HUMAN_COUNTS_FILE) -> dict | None:
    """The result of `human_label_counts` from its file, counts as (10, 10) int64 arrays; None where there is no file.

    Raises ValueError when the file holds something else.
    """
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        counts = {level: np.array(rows) for level, rows in found["counts"].items()}
        whole = all(c.shape == (10, 10) and c.dtype.kind == "i" and c.sum() == found["images"] for c in counts.values())
        if not whole or len(found["class_names"]) != 10 or not isinstance(found["labels_sha256"], str):
            raise ValueError("it lacks 10 class names or 10 by 10 counts that sum to the images")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not counts of human labels ({error}); python -m elrkit human-labels") from None
    return found | {"counts": counts}
