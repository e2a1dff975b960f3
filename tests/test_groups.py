"""Groups of products against brute force, what they cost, and splits that never leak."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elrkit.catalogue import groups
from elrkit.catalogue.groups import group_products, near_groups, split_by_group, title_stem


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), distance=st.integers(0, 12), n=st.integers(0, 40), bands=st.integers(2, 13))
def test_near_groups_are_the_components_of_all_pairs_within_the_distance(seed, distance, n, bands):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 256, (n, 4), dtype=np.uint8)
    if n > 1:  # half of the rows are others with a few bits flipped
        near = hashes[rng.integers(n // 2 + 1, size=n - n // 2)] ^ (1 << rng.integers(0, 8, (n - n // 2, 4))).astype(
            np.uint8
        )
        hashes[n // 2 :] = near
    wanted = list(range(n))
    for i in range(n):
        for j in range(i + 1, n):
            if sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(hashes[i], hashes[j], strict=True)) <= distance:
                a, b = sorted((wanted[i], wanted[j]))
                wanted = [a if group == b else group for group in wanted]
    assert near_groups(hashes, distance).tolist() == wanted
    with pytest.MonkeyPatch.context() as patch:  # and however the bits are cut, in whatever steps
        patch.setattr(groups, "_bands", lambda n, bits, distance: min(bands, distance + 1))
        patch.setattr(groups, "_COMPARED", 3)
        assert near_groups(hashes, distance).tolist() == wanted


def test_pictures_of_one_article_are_compared_few_times(monkeypatch):
    """Thousands of near-duplicates have millions of pairs; their comparisons grow with the pictures, not the pairs."""
    rng = np.random.default_rng(0)
    compared = []
    count = np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", lambda x: compared.append(len(x)) or count(x))

    def comparisons(n):
        article = rng.integers(0, 256, 18, dtype=np.uint8)
        flips = np.packbits(rng.random((n, 144)) < 0.05, axis=1)
        compared.clear()
        assert set(near_groups(article ^ flips, 22)) == {0}
        return sum(compared)

    for n in (1_000, 4_000, 16_000):
        assert comparisons(n) < 100 * n  # of up to 128 million pairs


def test_strangers_are_compared_with_few_others(monkeypatch):
    """So that a large catalogue of different pictures is searched in minutes: its pairs would be 10,000 a picture."""
    compared = []
    count = np.bitwise_count
    monkeypatch.setattr(np, "bitwise_count", lambda x: compared.append(len(x)) or count(x))
    strangers = np.random.default_rng(0).integers(0, 256, (20_000, 18), dtype=np.uint8)
    assert near_groups(strangers, 22).tolist() == list(range(20_000))
    assert 0 < sum(compared) < 1_000 * len(strangers)


def test_groups_join_by_image_by_hash_and_by_title():
    image = np.array([0, 1, 2, 0, 3, 4, 5])
    stem = np.array([7, 0, 0, 0, 7, 9, 9])
    found = group_products(image, stem, np.array([0, 1, 1, 3, 4, 5]), title_group=2)
    # products 0 and 3 share image 0, 0 and 4 a title, 5 and 6 another title; images 1 and 2 are alike
    assert found.tolist() == [0, 1, 1, 0, 0, 2, 2]
    assert group_products(image, stem, np.array([0, 1, 1, 3, 4, 5]), title_group=1).tolist() == [0, 1, 1, 0, 2, 3, 4]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=120), st.integers(0, 99))
def test_a_group_split_never_leaks_and_never_exceeds_a_share(products, seed):
    labels, group = (np.array(column) for column in zip(*products, strict=True))
    test = split_by_group(labels, group, 0.3, seed)
    assert not set(group[test]) & set(group[~test])
    for label in set(labels.tolist()):
        assert test[labels == label].sum() <= round(0.3 * (labels == label).sum())


def test_a_split_of_single_products_takes_the_share_of_each_class():
    labels = np.repeat([0, 1, 2], [1000, 100, 14])
    test = split_by_group(labels, np.arange(len(labels)), 0.1, seed=1)
    assert np.bincount(labels[test]).tolist() == [100, 10, 1]
    assert not np.array_equal(test, split_by_group(labels, np.arange(len(labels)), 0.1, seed=2))


def test_titles_without_size_and_colour():
    assert title_stem("T-shirt Basic, Svart, storlek 42") == title_stem("T-Shirt basic röd (XL)") == "t shirt basic"
    assert title_stem("iPhone 5 case red") != title_stem("iPhone 6 case red")
    assert title_stem("Black, size M") == ""
