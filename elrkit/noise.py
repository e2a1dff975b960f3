"""Label noise: labels flipped under the papers' conventions by name, and human labels."""

import math
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from elrkit.config import HUMAN_NOISE_RATES, NOISE_CONVENTIONS, require

CIFAR10_FLIPS = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}
KINDS = ("none", "symmetric", "asymmetric")  # drawn here; human labels are read
DRAWS = ("exact", "independent")

# CIFAR-10N's published dictionary names its columns differently from the levels' names in its paper.
PUBLISHED_COLUMNS = {
    "clean": "clean_label", "aggregate": "aggre_label", "random1": "random_label1", "random2": "random_label2",
    "random3": "random_label3", "worst": "worse_label",
}  # fmt: skip


def flip_labels(
    labels: Any,
    *,
    kind: str,
    rate: float,
    num_classes: int,
    convention: str | None = None,
    draw: str = "exact",
    seed: int = 0,
) -> tuple[np.ndarray, float]:
    """Noisy copies of `labels` (n,), and the realized rate: the share that differs from the input.

    Symmetric noise, convention `all`: the new label is uniform over all classes, the true one included, as the code of
    both papers does it, so that only rate (C-1)/C of the labels end wrong; `others`: uniform over the other classes.

    Asymmetric noise on 10 classes, whatever they are, follows Liu et al. for CIFAR-10: truck to automobile, bird to
    airplane, cat to dog, dog to cat, deer to horse (9 to 1, 2 to 0, 3 to 5, 5 to 3, 4 to 7), so that half of the
    classes keep their labels. With any other number of classes each goes to the next one, the last to the first.
    Convention `intended` selects on the true labels. `reference` is what the code of shengliu66/ELR does on CIFAR-10:
    it goes through the classes in order over labels it has already changed, so when it reaches the dogs it flips some
    cats back to cats: at 40 %, 24 % of the cats and 40 % of the dogs end wrong. On 100 classes its code selects on the
    true labels, but goes round in blocks of five ids (4 to 0, 9 to 5, ...). With any other number both conventions are
    one.

    labels  integers in [0, num_classes): a list, an array or a tensor; never changed
    draw    exact: ceil(rate n) labels, drawn without replacement, are redrawn (asymmetric: ceil(rate n_c) of each class
            that flips); independent: each label with probability `rate`
    seed    of numpy's default generator; the same seed gives the same noise on every machine

    Returns ((n,) int64, float). Raises ValueError naming the argument that is not allowed.
    """
    # Without noise there is nothing for a convention to decide, but a misspelt one is still reported.
    drawn = {name: NOISE_CONVENTIONS[name] for name in KINDS[1:]}
    conventions = drawn.get(kind, (None, *sum(drawn.values(), ())))
    for what, value, allowed in (
        (f"kind={kind!r}", kind, KINDS),
        (f"convention={convention!r} with kind={kind!r}", convention, conventions),
        (f"draw={draw!r}", draw, DRAWS),
    ):
        if value not in allowed:
            raise ValueError(f"{what}: allowed are {', '.join(map(str, allowed))}")
    require("rate", rate, 0, 1)
    require("num_classes", num_classes, 2, whole=True)
    require("seed", seed, 0, whole=True)
    clean = as_labels(labels, num_classes)
    noisy = clean.copy()
    rng = np.random.default_rng(seed)

    def choose(members: np.ndarray) -> np.ndarray:
        if draw == "exact":
            # As the decimal that was written: 0.15 * 20 is 3, not 3.0000000000000004 that would round up to 4.
            count = math.ceil(Fraction(repr(float(rate))) * len(members))
            return rng.permutation(members)[:count]
        return members[rng.random(len(members)) < rate]

    if kind == "symmetric":
        chosen = choose(np.arange(len(clean)))
        if convention == "all":
            noisy[chosen] = rng.integers(0, num_classes, len(chosen))
        else:
            noisy[chosen] = (clean[chosen] + rng.integers(1, num_classes, len(chosen))) % num_classes
    elif kind == "asymmetric":
        select_on = noisy if convention == "reference" and num_classes == 10 else clean
        for source, target in sorted(_flips(num_classes, convention).items()):
            noisy[choose(np.flatnonzero(select_on == source))] = target
    return noisy, float(np.mean(noisy != clean)) if len(clean) else 0.0


def load_human_labels(name: str, path: str | Path, clean: Any = None) -> np.ndarray:
    """CIFAR-10N's human labels of CIFAR-10's training images (Wei et al., ICLR 2022), (n,) int64; n is 50000 there.

    name   aggregate, random1, random2, random3 or worst
    path   the published .pt dictionary, read without executing what it pickles, or an .npz with these names
    clean  CIFAR-10's own training labels (n,): checked against the file's clean column, image by image

    Raises ValueError when the file is not readable as such, lacks the column, or is in another order.
    """
    path = Path(path)
    if name not in HUMAN_NOISE_RATES:
        raise ValueError(f"name={name!r}: allowed are {', '.join(HUMAN_NOISE_RATES)}")
    if not path.exists():
        raise ValueError(f"{path}: no such file; CIFAR-10N is published as CIFAR-10_human.pt")
    columns = _read_columns(path)
    found = {}
    for column in ("clean", name):
        key = next((key for key in (column, PUBLISHED_COLUMNS[column]) if key in columns), None)
        if key is None:
            raise ValueError(
                f"{path}: lacks the column {column!r}; it holds {', '.join(map(str, columns)) or 'nothing'}"
            )
        found[column] = as_labels(columns[key], 10, f"{path}: {key}")
    if len(found[name]) != len(found["clean"]):
        raise ValueError(f"{path}: {len(found[name])} labels in {name!r}, {len(found['clean'])} clean ones")
    expected = found["clean"] if clean is None else as_labels(clean, 10, "clean")
    if len(expected) != len(found["clean"]):
        raise ValueError(f"{path}: {len(found['clean'])} labels for {len(expected)} images")
    differs = np.flatnonzero(expected != found["clean"])
    if len(differs):
        raise ValueError(
            f"{path}: its clean labels differ from the dataset's in {len(differs)} places, first at image "
            f"{differs[0]}; the images are in another order, so these labels belong to others"
        )
    return found[name]


def _read_columns(path: Path) -> dict[str, Any]:
    """The arrays of an .npz or of a pickled dictionary, by name; nothing that the file pickles is executed."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        with torch.serialization.safe_globals(_array_globals()):
            columns = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own message advises to load the file unsafely.
        raise ValueError(
            f"{path}: refused, it is damaged or pickles more than a dictionary of arrays, which could execute code; "
            "get CIFAR-10_human.pt from its publisher again"
        ) from None
    except Exception as error:
        reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        raise ValueError(f"{path}: not readable as human labels ({reason}); get the file again") from None
    if not isinstance(columns, dict):
        raise ValueError(f"{path}: holds a {type(columns).__name__}; allowed is a dictionary of arrays")
    return columns


def _array_globals() -> list[Any]:
    """What rebuilds a numpy array of numbers, and nothing else, under its name in numpy 2 and in numpy 1."""
    rebuild = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    kinds = {type(np.dtype(kind)) for kind in ("int8", "uint8", "int16", "int32", "int64", "float32", "float64")}
    return [rebuild, (rebuild, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, *kinds]


def _flips(num_classes: int, convention: str | None) -> dict[int, int]:
    if num_classes == 10:
        return CIFAR10_FLIPS
    block = 5 if num_classes == 100 and convention == "reference" else num_classes
    return {c: c // block * block + (c + 1) % block for c in range(num_classes)}


def as_labels(labels: Any, num_classes: int, what: str = "labels") -> np.ndarray:
    array = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{what}: {array.dtype} of shape {array.shape}; allowed are whole numbers of shape (n,)")
    if array.size and not (array.min() >= 0 and array.max() < num_classes):
        raise ValueError(f"{what}: from {array.min()} to {array.max()}; allowed is 0 to {num_classes - 1}")
    return array.astype(np.int64)
