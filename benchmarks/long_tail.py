"""What a list says of subcategories with few products: made features, sizes that fall as 1 / rank, a tenth filed wrong.

    OMP_NUM_THREADS=1 python benchmarks/long_tail.py

The products are those of benchmarks/top_k.py: 500 subcategories, 5,000 products, three draws. Figures go to
results/audit/long-tail.json, which the chapter on the list shows.
"""

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from top_k import products

from elrkit import precision
from elrkit.catalogue import head
from elrkit.report import studies

CLASSES, COUNT, FEATURES, SEEDS = 500, 5_000, 128, (0, 1, 2)


def draw(seed: int) -> dict:
    """By how many products bear a label: how many there are, their share that is wrong, the share of them in the first
    tenth of the list and the wrong ones' share there, ordered by confidence and by ELR's targets alone."""
    rows, labels, truth = products(CLASSES, COUNT, FEATURES, seed=seed)
    found = head.audit(rows.numpy(), labels, tuple(map(str, range(CLASSES))), seed=seed)
    wrong, bearing = labels != truth, np.bincount(labels, minlength=CLASSES)[labels]
    parts, precision_of = [], {}
    for order, score in (("confidence", found.suspicion), ("targets", -found.judged.own)):
        precision_of[order] = round(float(average_precision_score(wrong, score)), 4)
        first = np.zeros(COUNT, bool)
        first[np.argsort(-score, kind="stable")[: COUNT // 10]] = True
        for size, low in enumerate((1, *head.SIZES)):
            of = np.digitize(bearing, head.SIZES) == size
            parts.append({
                "order": order, "least": low, "products": int(of.sum()), "wrong": int((wrong & of).sum()),
                "first": int((first & of).sum()), "first_wrong": int((first & of & wrong).sum()),
                "said": round(float(found.confidence[of].sum()), 1),
            })  # fmt: skip
    return {"seed": seed, "average_precision": precision_of, "sizes": parts}


def main() -> None:
    record = {
        "classes": CLASSES, "products": COUNT, "features": FEATURES, "draws": [draw(seed) for seed in SEEDS],
        "versions": precision.versions(), "device": precision.describe_device(torch.device("cpu")),
    }  # fmt: skip
    print(studies.save("audit", "long-tail", record))


if __name__ == "__main__":
    main()
