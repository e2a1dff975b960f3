"""Feeds whose faults are known: what was put in is there, and what cannot be made is named."""

import collections

import numpy as np
import pytest
from shops import labels_by_id, pictures, rows_of

from elrkit.catalogue.importer import import_feed
from elrkit.catalogue.made_feed import CIFAR100_SUPERCLASSES, make_feed, make_feed_from
from elrkit.catalogue.rules import FeedRules


def misfiled_in(out) -> list[tuple[str, str]]:
    """(label, true label) of each product that is filed wrong."""
    rows = rows_of(out / "truth.csv")
    return [(row["label"], row["true_label"]) for row in rows if row["label"] != row["true_label"]]


def test_csv_and_xml_of_one_feed_give_one_dataset(tmp_path):
    found = []
    for format in ("xml", "csv"):
        out, names = tmp_path / format, ["a b", "c", "d&<", "e"]
        make_feed(pictures(40), np.arange(40) % 4, names, out, format=format, near_duplicates=0.2, seed=1)
        import_feed([out / "feed"], tmp_path / "a", images=out)
        found.append(labels_by_id(tmp_path / "a"))
    assert found[0] == found[1]
    assert set(found[0].values()) == {"a b", "c", "d&<", "e"}


@pytest.mark.parametrize("siblings", [0.0, 0.5, 1.0])
def test_misfiled_products_stay_among_siblings_as_often_as_asked(tmp_path, siblings):
    images, main = np.zeros((600, 8, 8, 3), np.uint8), list("llrrss")
    report = make_feed(
        images, np.arange(600) % 6, list("abcdef"), tmp_path, main_categories=main, misfiled=0.5, siblings=siblings
    )
    of = dict(zip("abcdef", main, strict=True))
    wrong = misfiled_in(tmp_path)
    among = np.mean([of[label] == of[true] for label, true in wrong])
    assert len(wrong) == 300
    assert among == report["misfiled_among_siblings"] == pytest.approx(siblings, abs=0.12)  # 4 standard deviations


def test_a_long_tail_has_a_few_large_subcategories_and_an_import_names_the_small_ones(tmp_path):
    images, labels = np.repeat(pictures(40), 100, axis=0), np.repeat(np.arange(40), 100)
    labels[200:300] = 1  # class 2 has no images
    names = [f"kind {k:02d}" for k in range(40)]
    report = make_feed(images, labels, names, tmp_path, long_tail=True, products_per_class=10, misfiled=0.1)
    rows = rows_of(tmp_path / "truth.csv")
    true, filed = (collections.Counter(row[name] for row in rows) for name in ("true_label", "label"))
    sizes = sorted(true.values(), reverse=True)
    whole = sum(rank**-1.2 for rank in range(1, 40))
    assert sizes == [min(100, max(1, round(390 * rank**-1.2 / whole))) for rank in range(1, 40)]
    assert report["products_of_one"] == {"smallest": sizes[-1], "median": sizes[19], "largest": sizes[0]}
    assert max(filed, key=filed.get) == max(true, key=true.get) != names[0]
    asked = FeedRules(min_images=10)
    manifest = import_feed([tmp_path / "feed"], tmp_path / "a.npz", images=tmp_path, workers=1, rules=asked)
    small = manifest["counts"]["small_subcategories"]
    assert dict(small["named"]).items() <= filed.items()
    assert small["count"] == sum(count < 10 for count in filed.values())
    gone = manifest["counts"]["dropped"]["subcategory"]["fewer than 10 usable images"]
    assert gone == sum(count for count in filed.values() if count < 10)


IMAGES, LABELS = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 0, 1, 1])
WHOLE = "^make_feed: {}: allowed are whole numbers from"


@pytest.mark.parametrize(
    ("images", "labels", "asked", "message"),
    [
        (IMAGES, LABELS, {"misfiled": 2}, "misfiled=2: allowed are numbers from 0 to 1"),
        (IMAGES, LABELS, {"products_per_class": 5}, "2 images for 5 articles"),
        (IMAGES[:2], LABELS[:2], {}, "one class alone"),
        *(
            (images, LABELS, {name: value}, WHOLE.format(f"{name}={value}"))
            for images in (IMAGES, "digits")
            for name, value in (("products_per_class", 0), ("products_per_class", -1), ("seed", -1))
        ),
        *(("digits", None, {"classes": n, "misfiled": 0}, WHOLE.format(f"classes={n}") + " 2$") for n in (1, 0, -1)),
        ("digits", None, {"main_categories": {str(k): "one" for k in range(8)}}, r"main_categories has none for 8, 9$"),
    ],
)
def test_make_feed_says_what_does_not_fit(images, labels, asked, message, tmp_path):
    what = (images,) if isinstance(images, str) else (images, labels, ["a", "b"][: labels.max() + 1])
    with pytest.raises(ValueError, match=message):
        (make_feed_from if isinstance(images, str) else make_feed)(*what, tmp_path / "x", **asked)
    assert not (tmp_path / "x" / "truth.csv").exists()


def test_a_feed_is_not_written_over(tmp_path):
    make_feed(IMAGES, LABELS, ["a", "b"], tmp_path)
    with pytest.raises(FileExistsError, match="holds a feed already"):
        make_feed(IMAGES, LABELS, ["a", "b"], tmp_path)


def test_a_feed_from_a_dataset_file_uses_whole_main_categories(tmp_path):
    names = sorted(name for line in CIFAR100_SUPERCLASSES.values() for name in line.split())
    assert len(names) == len(set(names)) == 100
    arrays = {f"{part}_images": pictures(100) for part in ("train", "test")}
    arrays |= {f"{part}_labels": np.arange(100) for part in ("train", "test")}
    np.savez(tmp_path / "set.npz", class_names=np.array(names), **arrays)
    report = make_feed_from(tmp_path / "set.npz", tmp_path / "shop", classes=63, misfiled=0.1)
    assert (report["subcategories"], report["products"]) == (63, 126)
    assert len(list((tmp_path / "shop" / "feed").iterdir())) == 13
    (tmp_path / "no.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"not a readable \.npz of plain arrays$"):
        make_feed_from(tmp_path / "no.npz", tmp_path / "other")


def test_a_feed_from_a_dataset_has_the_main_categories_that_are_given(tmp_path):
    odd = {str(k): "odd" if k % 2 else "even" for k in range(10)}
    report = make_feed_from("digits", tmp_path, main_categories=odd, products_per_class=8, misfiled=0.25)
    assert report["misfiled_among_siblings"] == 1
    wrong = misfiled_in(tmp_path)
    assert len(wrong) == 20
    assert all(odd[label] == odd[true] for label, true in wrong)
    assert sorted(path.stem for path in (tmp_path / "feed").iterdir()) == ["000-even", "001-odd"]
