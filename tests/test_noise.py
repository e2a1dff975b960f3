"""Label noise against matrices, counts and a sequential loop written apart; human labels, also from hostile files."""

import json
import math
import os
import pickle
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from refusals import Payload, refused

from elrkit import noise
from elrkit.config import HUMAN_NOISE_RATES
from elrkit.report import people

NOISY = [("symmetric", "all"), ("symmetric", "others"), ("asymmetric", "intended"), ("asymmetric", "reference")]
KINDS = [("none", None), *NOISY]
AIRPLANE, AUTOMOBILE, BIRD, CAT, DEER, DOG, HORSE, TRUCK = 0, 1, 2, 3, 4, 5, 7, 9
PAIRS = {TRUCK: AUTOMOBILE, BIRD: AIRPLANE, CAT: DOG, DOG: CAT, DEER: HORSE}


def expected_entry(kind, convention, rate, num_classes, true, label):
    """P(label | true), case by case from the definitions."""
    same = true == label
    if kind == "none":
        return float(same)
    if kind == "symmetric" and convention == "all":
        return rate / num_classes + (1 - rate if same else 0)
    if kind == "symmetric":
        return 1 - rate if same else rate / (num_classes - 1)
    target = PAIRS.get(true) if num_classes == 10 else (true + 1) % num_classes
    if convention == "reference" and num_classes == 100 and true % 5 == 4:
        target = true - 4  # the reference goes round in blocks of five ids
    if target is None:
        return float(same)
    leaves = rate
    if convention == "reference" and num_classes == 10 and true == CAT:
        leaves = rate - rate * rate  # of the cats made dogs, the share `rate` is made cats again
    return leaves if label == target else 1 - leaves if same else 0.0


def expected_matrix(kind, convention, rate, num_classes):
    ids = range(num_classes)
    return np.array([[expected_entry(kind, convention, rate, num_classes, i, j) for j in ids] for i in ids])


def sequential_reference(labels, thousandths, rng):
    """The reference procedure on 10 classes, one image at a time: each class in turn over labels already changed."""
    labels = list(labels)
    for current in range(10):
        members = [i for i, label in enumerate(labels) if label == current]
        rng.shuffle(members)
        for position, i in enumerate(members):
            if 1000 * position < thousandths * len(members) and current in PAIRS:
                labels[i] = PAIRS[current]
    return labels


def flip(labels, kind="symmetric", convention="all", rate=0.2, num_classes=10, draw="exact", seed=0):
    return noise.flip_labels(
        labels, kind=kind, rate=rate, num_classes=num_classes, convention=convention, draw=draw, seed=seed
    )


@pytest.mark.parametrize("draw", ["exact", "independent"])
@pytest.mark.parametrize(("kind", "convention"), KINDS)
@pytest.mark.parametrize(("num_classes", "per_class"), [(2, 20_000), (10, 20_000), (100, 2_000)])
def test_frequencies_per_class_follow_the_matrix(kind, convention, draw, num_classes, per_class):
    clean = np.random.default_rng(7).permutation(np.repeat(np.arange(num_classes), per_class))
    noisy, realized = flip(clean, kind, convention, 0.4, num_classes, draw, seed=3)
    expected = expected_matrix(kind, convention, 0.4, num_classes)
    shares = np.zeros((num_classes, num_classes))
    for (true, label), count in Counter(zip(clean.tolist(), noisy.tolist(), strict=True)).items():
        shares[true, label] = count / per_class
    # The exact draw varies less than the binomial one; it may exceed the rate by one image, for the ceiling.
    deviation = np.sqrt(expected * (1 - expected) / per_class)
    assert (np.abs(shares - expected) <= 5.5 * deviation + 1 / per_class).all()
    assert (shares[expected == 0] == 0).all()
    assert realized == pytest.approx(1 - np.trace(shares) / num_classes, rel=0, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=120), st.integers(0, 1000), st.integers(0, 2**32))
def test_exact_reference_has_the_label_counts_of_the_sequential_procedure(labels, thousandths, seed):
    # Which images flip is chance; how many carry each label in the end is not.
    noisy, _ = flip(labels, "asymmetric", "reference", thousandths / 1000, seed=seed)
    looped = sequential_reference(labels, thousandths, random.Random(seed))
    assert Counter(noisy.tolist()) == Counter(looped)


def cases(longest):
    """(number of classes, labels)"""
    return st.integers(2, 12).flatmap(
        lambda c: st.tuples(st.just(c), st.lists(st.integers(0, c - 1), max_size=longest))
    )


@settings(max_examples=100, deadline=None)
@given(cases(150), st.integers(0, 1000), st.integers(0, 2**32))
@example((2, [0] * 20), 150, 0)  # 0.15 * 20 is a little more than 3, and so on: that adds no image
@example((2, [0] * 100), 70, 0)
@example((2, [0] * 30), 100, 0)
@example((2, [0] * 100), 550, 0)
def test_exact_counts_are_ceilings_of_the_decimal_rate(case, thousandths, seed):
    num_classes, labels = case
    clean, rate = np.array(labels, dtype=np.int64), thousandths / 1000

    def ceiling(n):
        return -(-thousandths * n // 1000)

    noisy, realized = flip(labels, "symmetric", "others", rate, num_classes, seed=seed)
    assert np.sum(noisy != clean) == ceiling(len(clean))
    assert realized == (np.mean(noisy != clean) if labels else 0.0)
    noisy, _ = flip(labels, "symmetric", "all", rate, num_classes, seed=seed)
    assert np.sum(noisy != clean) <= ceiling(len(clean))
    noisy, _ = flip(labels, "asymmetric", "intended", rate, num_classes, seed=seed)
    targets = PAIRS if num_classes == 10 else {c: (c + 1) % num_classes for c in range(num_classes)}
    for true in range(num_classes):
        of_class = noisy[clean == true]
        moved = of_class[of_class != true]
        assert len(moved) == (ceiling(len(of_class)) if true in targets else 0)
        assert set(moved.tolist()) <= {targets.get(true)}


@settings(max_examples=100, deadline=None)
@given(
    cases(60), st.sampled_from(KINDS), st.floats(0, 1), st.sampled_from(["exact", "independent"]), st.integers(0, 2**32)
)
def test_any_flip_is_valid_repeatable_and_possible_under_its_matrix(case, how, rate, draw, seed):
    num_classes, labels = case
    noisy, realized = flip(labels, *how, rate, num_classes, draw, seed)
    again, realized_again = flip(labels, *how, rate, num_classes, draw, seed)
    assert (noisy.dtype, noisy.shape, type(realized)) == (np.int64, (len(labels),), float)
    assert (noisy.tolist(), realized) == (again.tolist(), realized_again)
    assert realized == sum(a != b for a, b in zip(labels, noisy.tolist(), strict=True)) / max(len(labels), 1)
    for true, label in zip(labels, noisy.tolist(), strict=True):
        assert true == label or (rate > 0 and expected_entry(*how, 0.5, num_classes, true, label) > 0)


PINNED = {  # convention -> the labels of an exact and of an independent draw
    "all": ("04834917653535", "81237526894535"),
    "others": ("05034487443575", "83272594898530"),
    "intended": ("01057367815335", "01057567893353"),
    "reference": ("01057367815333", "01057367813355"),
}


@pytest.mark.parametrize(("kind", "convention"), NOISY)
def test_draws_are_pinned(kind, convention):
    """Records name a run by its seed: another sequence of draws would be other noise under the same name."""
    for draw, digits in zip(("exact", "independent"), PINNED[convention], strict=True):
        noisy, _ = flip([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 5, 3, 5], kind, convention, 0.5, draw=draw, seed=11)
        assert "".join(map(str, noisy)) == digits


@pytest.mark.parametrize(("kind", "convention"), KINDS)
@pytest.mark.parametrize("make", [list, np.array, torch.tensor, lambda x: np.array(x, dtype=np.uint8)])
def test_input_is_copied_never_changed(kind, convention, make):
    values = [i % 10 for i in range(200)]
    labels = make(values)
    noisy, _ = flip(labels, kind, convention, 0.5)
    assert noisy.tolist() == flip(values, kind, convention, 0.5)[0].tolist()
    noisy[:] = 9
    assert [int(label) for label in labels] == values


BOUNDS = {
    "kind={}: allowed are none, symmetric, asymmetric": ["uniform"],
    "rate={}: allowed are numbers from 0 to 1": [1.2, -0.1, math.nan, "0.2"],
    "num_classes={}: allowed are whole numbers from 2": [1, 10.0],
    "convention={} with kind='symmetric': allowed are all, others": ["reference", None],
    "draw={}: allowed are exact, independent": ["both"],
    "seed={}: allowed are whole numbers from 0": [None, -1],
}
HUGE = 2**64 - 1
NOT_ALLOWED = {
    **{said.format(repr(each)): {said.split("=")[0]: each} for said, values in BOUNDS.items() for each in values},
    "convention='all' with kind='asymmetric': allowed are intended, reference": {"kind": "asymmetric"},
    "convention='x' with kind='none': allowed are None, all, others, intended, reference": dict(
        kind="none", convention="x"
    ),
    "labels: from 0 to 10; allowed is 0 to 9": {"labels": [0, 10]},
    "labels: from -1 to 3; allowed is 0 to 9": {"labels": [-1, 3]},
    f"labels: from {HUGE} to {HUGE}; allowed is 0 to 9": {"labels": np.array([HUGE], dtype=np.uint64)},
    "labels: float64 of shape (2,); allowed are whole numbers of shape (n,)": {"labels": [0.0, 1.0]},
    "labels: <U3 of shape (1,); allowed are whole numbers of shape (n,)": {"labels": ["cat"]},
    "labels: int64 of shape (1, 2); allowed are whole numbers of shape (n,)": {"labels": [[0, 1]]},
}


@pytest.mark.parametrize("message", NOT_ALLOWED)
def test_what_is_not_allowed_is_named(message):
    with refused(ValueError) as caught:
        flip(**{"labels": [0, 1, 2], **NOT_ALLOWED[message]})
    assert str(caught.value) == message


# Human labels: small files with the published keys.

CLEAN = np.arange(40) % 10
KEYS = {"aggregate": "aggre_label", **{f"random{k}": f"random_label{k}" for k in (1, 2, 3)}, "worst": "worse_label"}
LEVELS = {name: np.random.default_rng(k).integers(0, 10, 40) for k, name in enumerate(KEYS)}
PUBLISHED = {"clean_label": CLEAN, **{KEYS[name]: labels for name, labels in LEVELS.items()}}


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("suffix", [".npz", ".pt", ".tensors.pt", ".legacy.pt", ".numpy1.pt"])
def test_human_labels_from_each_format(tmp_path, name, suffix):
    path = tmp_path / f"labels{suffix}"
    if suffix == ".npz":
        np.savez(path, clean=CLEAN.astype(np.uint8), **{k: v.astype(np.uint8) for k, v in LEVELS.items()})
    elif suffix == ".tensors.pt":
        torch.save({key: torch.from_numpy(labels) for key, labels in PUBLISHED.items()}, path)
    else:
        torch.save(PUBLISHED, path, _use_new_zipfile_serialization=suffix == ".pt")
    if suffix == ".numpy1.pt":
        # numpy 1 knew the function that rebuilds an array under another module name.
        content = path.read_bytes()
        assert b"numpy._core.multiarray" in content
        path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    before = set(torch.serialization.get_safe_globals())  # torch keeps a set: its order may change
    labels = noise.load_human_labels(name, path, torch.from_numpy(CLEAN))
    assert labels.dtype == np.int64
    assert labels.tolist() == LEVELS[name].tolist() == noise.load_human_labels(name, str(path)).tolist()
    assert set(torch.serialization.get_safe_globals()) == before


def test_pickled_code_is_refused_not_run(tmp_path):
    path, made = tmp_path / "labels.pt", tmp_path / "made"
    torch.save({**PUBLISHED, "extra": Payload(made)}, path)
    torch.load(path, weights_only=False)
    assert made.is_dir(), "the file is harmless, so it proves nothing"
    made.rmdir()
    with pytest.raises(ValueError, match=r"labels.pt: refused, it is damaged or pickles more than a dictionary of"):
        noise.load_human_labels("worst", path, CLEAN)
    np.savez(tmp_path / "labels.npz", clean=CLEAN, worst=np.array([Payload(made)] * 40, dtype=object))
    with pytest.raises(ValueError, match=r"not readable as human labels \(ValueError: Object arrays cannot be loaded"):
        noise.load_human_labels("worst", tmp_path / "labels.npz", CLEAN)
    assert not made.exists()


MOVED = "{}: its clean labels differ from the dataset's in 2 places, first at image 12; the images are in another order"
SWAPPED = CLEAN.copy()
SWAPPED[[12, 25]] = SWAPPED[[25, 12]]
REFUSED = [  # what the file holds, what is asked for, what is said
    (None, {}, "{}: no such file"),
    (PUBLISHED, {"name": "clean"}, "name='clean': allowed are aggregate, random1, random2, random3, worst"),
    (PUBLISHED, {"name": "worse"}, "name='worse': allowed are aggregate, random1"),
    (PUBLISHED, {"clean": SWAPPED}, MOVED),
    (PUBLISHED, {"clean": CLEAN[:39]}, "{}: 40 labels for 39 images"),
    *((slice(0, end), {}, "{}: ") for end in (0, 300, -100)),
    (b"hello world", {}, "{}: "),
    ([CLEAN], {}, "{}: holds a list; allowed is a dictionary of arrays"),
    ({"clean_label": CLEAN}, {}, "{}: lacks the column 'worst'; it holds clean_label"),
    ({"clean_label": CLEAN, "worse_label": CLEAN[:7]}, {}, "{}: 7 labels in 'worst', 40 clean ones"),
    ({"clean_label": CLEAN, "worse_label": CLEAN + 1}, {}, "{}: worse_label: from 1 to 10; allowed is 0 to 9"),
    ({"clean": CLEAN, "worst": CLEAN / 2}, {}, "{}: worst: float64 of shape (40,); allowed are whole numbers"),
]


@pytest.mark.parametrize(("content", "asked", "message"), REFUSED)
def test_files_that_hold_no_such_labels_are_told(content, asked, message, tmp_path):
    path = tmp_path / "labels.pt"
    if isinstance(content, slice):  # a part of a good file
        torch.save(PUBLISHED, path)
        path.write_bytes(path.read_bytes()[content])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with refused(ValueError, match="^" + re.escape(message.format(path))):
        noise.load_human_labels(**{"name": "worst", "path": path, "clean": CLEAN, **asked})


def test_human_labels_are_counted_whatever_file_holds_them(tmp_path):
    torch.save(PUBLISHED, tmp_path / "labels.pt")
    np.savez(tmp_path / "labels.npz", clean=CLEAN, **LEVELS)
    names = "abcdefghij"
    counts = people.count(tmp_path / "labels.pt", CLEAN, names)
    assert counts == people.count(tmp_path / "labels.npz", CLEAN, names)
    assert json.loads(json.dumps(counts)) == counts
    assert np.sum(counts["counts"]["worst"]) == counts["images"] == 40
    assert np.trace(counts["counts"]["worst"]) == np.sum(LEVELS["worst"] == CLEAN)
    assert counts["class_names"] == list(names)
    assert counts["counts"].keys() == {"aggregate", "random1", "worst"}
    for level, matrix in counts["counts"].items():
        for (true, label), images in Counter(zip(CLEAN.tolist(), LEVELS[level].tolist(), strict=True)).items():
            assert matrix[true][label] == images


def test_the_committed_counts_are_the_published_shares_of_errors():
    counts, _ = people.counted()
    assert len(counts) == 3
    for level, matrix in counts.items():
        assert matrix.sum(axis=1).tolist() == [5_000] * 10  # CIFAR-10's classes
        assert 1 - np.trace(matrix) / 50_000 == pytest.approx(HUMAN_NOISE_RATES[level], abs=6e-5)


def test_real_human_labels_have_the_published_shares_of_errors():
    root = Path(os.environ.get("ELRKIT_DATA", ""))
    if not (root / "cifar10n.npz").is_file() or not (root / "cifar-10-batches-py").is_dir():
        pytest.skip("needs CIFAR-10 and cifar10n.npz in the folder that ELRKIT_DATA names")
    clean = []
    for k in range(1, 6):  # read as its publisher says: importing torchvision would take longer than all the rest
        with open(root / "cifar-10-batches-py" / f"data_batch_{k}", "rb") as file:
            clean += pickle.load(file, encoding="latin1")["labels"]
    clean = np.array(clean)
    for name, percent in (("aggregate", 9.01), ("random1", 17.23), ("worst", 40.21)):
        labels = noise.load_human_labels(name, root / "cifar10n.npz", clean)
        assert labels.shape == (50_000,)
        assert round(100 * np.mean(labels != clean), 2) == percent
    counts = people.count(root / "cifar10n.npz", clean, people.counted()[1])
    assert counts == json.loads(people.COUNTS_FILE.read_text())
    with pytest.raises(ValueError, match="the images are in another order"):
        noise.load_human_labels("worst", root / "cifar10n.npz", clean[::-1])
