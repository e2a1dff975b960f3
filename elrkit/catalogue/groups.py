"""Which products belong together, by picture and by title, and a split into training and test that keeps them so.

Pure functions on arrays. A near-duplicate of a training image is no test: a network that knows the one knows the other.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Size and colour words in titles (English and Swedish: the paper's shop is Swedish).
_SIZE_COLOUR = frozenset(
    """
    xxs xs s m l xl xxl xxxl 2xl 3xl 4xl 5xl small medium large one onesize size storlek stl strl colour color färg
    black white red blue green yellow orange purple pink brown grey gray beige navy turquoise silver gold
    svart vit vitt röd rött blå blått grön grönt gul gult lila rosa brun brunt grå grått marin turkos guld
    """.split()  # noqa: SIM905  (a list of words reads better as words)
)
_WORD = re.compile(r"\w+")
_SIZED = re.compile(r"\b(?:size|storlek|stl|strl)\.?\s*\d+\b|\b\d+(?:[.,]\d+)?\s*(?:cm|mm|ml|cl|kg|g)\b")


def title_stem(title: str) -> str:
    """A title without its size and colour words: variants of one article share it. Empty when nothing is left."""
    words = _WORD.findall(_SIZED.sub(" ", title.casefold()))
    return " ".join(word for word in words if word not in _SIZE_COLOUR)


_LONGEST_BAND = 20  # bits: the first row of each of a band's keys is kept in a table
_COMPARED = 1 << 18  # pairs of rows at once


def near_groups(hashes: np.ndarray, distance: int) -> np.ndarray:
    """Groups of rows that are joined by chains of rows which differ in at most ``distance`` bits from each to the next.

    Exact, by the pigeonhole principle: where the bits are cut into bands, at least one of them differs in no more bits
    than `_near_in` allows it, so only rows with such a band are compared (multi-index hashing: M. Norouzi, A. Punjani,
    D. Fleet, Fast Search in Hamming Space with Multi-Index Hashing, CVPR 2012; the sum of what is allowed: J. Qin et
    al., GPH: Similarity Search in Hamming Space, ICDE 2018). Rows that are joined already are not compared again, so
    that thousands of pictures of one article cost no more than others.

    Args:
        hashes: (n, bytes) uint8.
        distance: bits.

    Returns:
        (n,) int64, the smallest row of each row's group.
    """
    n, width = hashes.shape
    words = np.pad(hashes, ((0, 0), (0, -width % 8))).view(np.uint64)
    bands = _bands(n, width * 8, distance)
    group = np.arange(n)
    for band in range(bands):
        # Every bands-th bit: neighbouring coefficients are alike, so a band of them would tell little apart.
        columns = range(band, width * 8, bands)[:_LONGEST_BAND]
        key = np.zeros(n, np.int64)
        for place, column in enumerate(columns):
            key |= (hashes[:, column // 8].astype(np.int64) >> (7 - column % 8) & 1) << place
        order = np.argsort(key, kind="stable")
        key, group = key[order], group[order]
        word = list(np.ascontiguousarray(words[order].T))
        run_end = _run_ends(group)
        first = np.searchsorted(key, np.arange((1 << len(columns)) + 1))
        for flips in range(min(_near_in(band, bands, distance), len(columns)) + 1):
            for places in itertools.combinations(range(len(columns)), flips):
                # Each pair from one of its sides; as the keys ascend, the highest bit has the longest runs.
                row = np.nonzero(key & 1 << places[-1] == 0)[0] if places else np.arange(n)
                other = key[row] ^ sum(1 << place for place in places)
                start = first[other] if places else row + 1
                group, run_end = _join_near(word, group, run_end, row, start, first[other + 1], distance)
        group[order] = group.copy()
    return group


def _bands(n: int, bits: int, distance: int) -> int:
    """In how many bands to cut the bits of n hashes: few long ones tell more apart, but more of their bits may flip."""

    def work(bands: int) -> float:
        length = min(-(-bits // bands), _LONGEST_BAND)
        allowed = (min(_near_in(band, bands, distance), length) for band in range(bands))
        keys = sum(math.comb(length, flips) for most in allowed for flips in range(most + 1))
        return keys * (2_000 + n + n * n / 2**length)  # of a pass, of its rows, of their comparisons

    return min(range(1, min(distance + 1, bits) + 1), key=work)


def _near_in(band: int, bands: int, distance: int) -> int:
    """In how many bits a band may differ: over all bands one more, each, than these sums to more than ``distance``."""
    return (distance + 1 + band) // bands - 1


def _join_near(
    word: Sequence[np.ndarray],
    group: np.ndarray,
    run_end: np.ndarray,
    row: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    distance: int,
) -> tuple[np.ndarray, np.ndarray]:
    """``group`` and its ``_run_ends`` after each of these rows was compared with all rows from its start to its end.

    ``word`` are the 64-bit words of the hashes, (n,) each. The rows are compared with 1, 2, 4, ... others in turn:
    those that are in one group with all of theirs by then are left alone.
    """  # fmt: skip
    step = 1
    while True:
        left = np.nonzero(start < end)[0]
        left = left[(group[start[left]] != group[row[left]]) | (run_end[start[left]] < end[left])]
        if not left.size:
            return group, run_end
        row, start, end = row[left], start[left], end[left]
        count = np.minimum(end - start, step)
        upto = np.cumsum(count)
        cuts = np.searchsorted(upto, np.arange(_COMPARED, upto[-1], _COMPARED))
        before = group
        for of in itertools.starmap(slice, itertools.pairwise([0, *cuts, len(row)])):
            first = np.repeat(row[of], count[of])
            second = np.arange(len(first)) + np.repeat(start[of] - upto[of] + count[of], count[of])
            second += 0 if of.start == 0 else upto[of.start - 1]
            differing = np.bitwise_count(word[0][first] ^ word[0][second])
            for bits in word[1:]:  # most pairs of strangers differ enough in the first word
                near = np.nonzero(differing <= distance)[0]
                first, second = first[near], second[near]
                differing = np.add(differing[near], np.bitwise_count(bits[first] ^ bits[second]), dtype=np.int64)
            new = (differing <= distance) & (group[first] != group[second])
            if new.any():
                group = _join(group, first[new], second[new])
        if group is not before:
            run_end = _run_ends(group)
        start = start + count
        step *= 2


def _run_ends(group: np.ndarray) -> np.ndarray:
    """Where the run of equal groups around each row ends."""
    last = np.append(np.nonzero(np.diff(group))[0], len(group) - 1)
    return np.repeat(last + 1, np.diff(last, prepend=-1))


def _join(group: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The groups after the rows ``first`` and ``second`` were joined pair by pair."""
    ends, place = np.unique(np.concatenate([group[first], group[second]]), return_inverse=True)
    graph = coo_array((np.ones(len(first), bool), (place[: len(first)], place[len(first) :])), shape=(len(ends),) * 2)
    _, component = connected_components(graph, directed=False)
    _, smallest = np.unique(component, return_index=True)  # `ends` ascend, so the first of a component is its smallest
    renamed = np.arange(len(group))
    renamed[ends] = ends[smallest[component]]
    return renamed[group]


def group_products(image: np.ndarray, stem: np.ndarray, near: np.ndarray, title_group: int) -> np.ndarray:
    """Groups of products that belong together: one image, near-duplicate images, or one title stem.

    Args:
        image: (n,) index of each product's image.
        stem: (n,) identity of each title stem; 0 is none.
        near: group of near-duplicates that each image is in, a number below that of the images.
        title_group: a stem of more products than this is a generic name and joins nothing.

    Returns:
        (n,) int64 group of each product, numbered by first appearance.
    """
    n = len(image)
    _, stem_id, stem_count = np.unique(stem, return_inverse=True, return_counts=True)
    titled = np.nonzero((stem != 0) & (stem_count[stem_id] <= title_group))[0]
    # One graph: products, then groups of images, then stems; a product hangs on its image's group and on its stem.
    start = np.concatenate([np.arange(n), titled])
    end = np.concatenate([near[image] + n, stem_id[titled] + n + len(near)])
    nodes = n + len(near) + len(stem_count)
    graph = coo_array((np.ones(len(start), bool), (start, end)), shape=(nodes, nodes))
    component = connected_components(graph, directed=False)[1][:n]
    _, first, group = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def split_by_group(labels: np.ndarray, groups: np.ndarray, test_share: float, seed: int) -> np.ndarray:
    """Which products are the test set: whole groups in random order, as long as no class exceeds its share.

    A group larger than a class's share stays in training. With every product its own group this is the plain
    split, ``round(test_share * n)`` products of each class.

    Returns:
        (n,) bool.
    """
    room = np.rint(np.bincount(labels) * test_share).astype(int).tolist()
    test = np.zeros(len(labels), bool)
    order = np.argsort(groups, kind="stable")
    starts = np.append(np.searchsorted(groups[order], np.arange(groups.max(initial=-1) + 1)), len(groups))
    for group in np.random.default_rng(seed).permutation(len(starts) - 1):
        members = order[starts[group] : starts[group + 1]]
        wanted = Counter(labels[members].tolist())
        if all(room[label] >= count for label, count in wanted.items()):
            test[members] = True
            for label, count in wanted.items():
                room[label] -= count
    return test
