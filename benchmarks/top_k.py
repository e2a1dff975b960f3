"""What ELR loses and saves when it keeps K of a product's targets: the layer of `elrkit.catalogue.head`, made features.

    OMP_NUM_THREADS=1 python benchmarks/top_k.py --classes 4000 --products 60000

Each subcategory has a centre near that of its category of twenty (--classes is a multiple); sizes fall as 1 / rank. A
tenth of the labels is wrong: half of them name another subcategory of the category, half any other. Prints a row of
benchmarks/top_k.md for each K; with --no-labels the target of a label is kept only where it is among the K largest.
"""

import argparse
import time

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from elrkit.catalogue import head
from elrkit.losses import ELRLoss
from elrkit.precision import describe_device

CATEGORY = 20  # subcategories in each


class WithoutLabels(ELRLoss):
    def update(self, index, logits, labels=None):
        super().update(index, logits)


def products(classes, count, features, wrong=0.1, seed=0):
    """(scaled rows (count, features), labels (count,), truth (count,)); no subcategory is empty."""
    draw = np.random.default_rng(seed)
    share = 1 / draw.permutation(np.arange(1, classes + 1))
    truth = np.concatenate([np.arange(classes), draw.choice(classes, count - classes, p=share / share.sum())])
    centres = draw.normal(size=(classes, features))
    centres += draw.normal(size=(classes // CATEGORY, features)).repeat(CATEGORY, 0)
    rows = (centres[truth] + draw.normal(size=(count, features))).astype(np.float32)
    labels, chosen = truth.copy(), draw.permutation(count)[: int(wrong * count)]
    for part, among in zip(np.array_split(chosen, 2), (CATEGORY, classes), strict=True):
        first = truth[part] // among * among
        labels[part] = first + (truth[part] - first + draw.integers(1, among, len(part))) % among
    return head.Scaled(rows)[:], labels, truth


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=4000)
    parser.add_argument("--products", type=int, default=60_000)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--top-k", type=int, nargs="*", default=[0, 8, 16, 32], help="0: the dense targets")
    parser.add_argument("--no-labels", action="store_true")
    given = parser.parse_args()
    rows, labels, truth = products(given.classes, given.products, given.features)
    x, y = rows, torch.from_numpy(labels)
    sizes, device = np.bincount(truth), describe_device(torch.device("cpu"))
    print(vars(given), device, f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"products of a subcategory: median {np.median(sizes):.0f}, largest {sizes.max()}")
    print("| K | layer right | targets right | average precision | here | 6 M products | CPU ms per step |")
    head.ELRLoss = WithoutLabels if given.no_labels else ELRLoss
    for top_k in given.top_k:
        head.DENSE, head.TOP_K = (0, top_k) if top_k else (10**18, None)
        clock = [time.process_time()]
        elr, layer = head.trained(x, y, given.classes, 0, lambda _, clock=clock: clock.append(time.process_time()))
        targets = elr.target_rows(torch.arange(len(y))).double()
        targets = (targets / targets.sum(dim=1, keepdim=True)).numpy()
        with torch.inference_mode():
            guess = torch.cat([layer(part).argmax(dim=1) for part in x.split(4096)]).numpy()
        of_truth = [(one == truth).mean() for one in (guess, targets.argmax(1))]
        suspicion = 1 - targets[np.arange(len(y)), labels]
        product = sum(part.nbytes for part in ELRLoss(100, given.classes, top_k=head.TOP_K).buffers()) / 100
        step = np.diff(clock).min() * 1000 / -(-len(x) // head.TRAINING["batch"])  # the least: others use the machine
        print(
            f"| {top_k or 'dense'} | {of_truth[0]:.4f} | {of_truth[1]:.4f} "
            f"| {average_precision_score(labels != truth, suspicion):.4f} "
            f"| {product * len(x) / 1e6:.1f} MB | {product * 6e-3:.2f} GB | {step:.1f} |",
            flush=True,
        )
        del targets


if __name__ == "__main__":
    main()
