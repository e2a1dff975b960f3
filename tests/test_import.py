"""Whole imports: the draw, groups and the split, pictures that products share, and imports that end early."""

import errno
import importlib.util
import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from shops import (
    LOADABLE,
    arrays_of,
    checked,
    dropped,
    encode,
    good,
    labels_by_id,
    make_shop,
    open_shop,
    originals,
    picture,
    product,
    xml,
)

from elrkit import data
from elrkit.catalogue import draw, images, importer, written
from elrkit.catalogue.images import read_thumbnail
from elrkit.catalogue.importer import import_feed, summary
from elrkit.catalogue.rules import FeedRules, Rejected

shop = pytest.fixture(open_shop)
made = pytest.fixture(make_shop, scope="module")


def files_of(folder: Path, pattern: str) -> dict[str, bytes]:
    """By path, of the files and folders of these names."""
    inside = itertools.chain.from_iterable((path, *path.rglob("*")) for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in inside if path.is_file()}


# ------------------------------------------------------------------------------------------------ made shops


@pytest.fixture
def bring(made, tmp_path):
    """Imports the made shop's feed into a, or another file, by these rules; the manifest."""

    def bring(name="a", feed=None, workers=2, **rules):
        images, given = made[0], feed or [made[0] / "feed"]
        return checked(import_feed(given, tmp_path / name, images=images, rules=FeedRules(**rules), workers=workers))

    return bring


def test_a_feed_whose_truth_is_known_comes_back_with_the_rates_put_in(made, bring, tmp_path):
    out, report, truth = made
    assert (report["products"], report["unusable"], report["misfiled"]) == (240, 24, 0.2)
    assert report["near_duplicates"] == pytest.approx(1 / 3, abs=0.02)
    assert sorted(path.name for path in (out / "feed").iterdir()) == ["000-left.xml", "001-right.xml"]
    assert dropped(bring()) == {  # 24 products in turn
        "product: invalid: link is the shop's front page": 6,
        "product: no image": 6,
        "product: old: released before 2011": 6,
        "image: image file missing": 6,
    }
    found = labels_by_id(tmp_path / "a")
    true = {id_.rpartition("/")[2]: row["true_label"] for id_, row in truth.items()}
    wrong = [id_ for id_, label in found.items() if true[id_] != label]
    assert (len(found), len(wrong)) == (240, 0.2 * 240)
    main = {f"kind_{k}": k // 3 for k in range(6)}
    assert all(main[found[id_]] == main[true[id_]] for id_ in wrong)


def test_near_duplicates_never_straddle_the_split(made, bring, tmp_path):
    """Brute force over all pairs of training and test products: one file, hashes closer than the rule, one article;
    and variants are found by their picture alone."""
    out, _, truth = made
    sharing = Counter(row["article"] for row in truth.values() if row["kind"] in ("article", "size", "colour"))
    in_articles = sum(n for n in sharing.values() if n > 1)

    def parts(manifest):
        z = arrays_of(tmp_path / "a")
        return manifest["split"], z["train_ids"].tolist(), z["test_ids"].tolist()

    for titles, distance in ((50, 22), (0, 22)):
        split, train, test = parts(bring(title_group=titles, near_distance=distance, test_share=0.2))
        assert len(test) >= 0.15 * 240
        hashes = {id_: read_thumbnail((out / truth[id_]["thumbnail"]).read_bytes()).hash for id_ in train + test}
        for a in test:
            for b in train:
                assert truth[a]["thumbnail"] != truth[b]["thumbnail"]
                assert np.bitwise_count(hashes[a] ^ hashes[b]).sum() > distance
                assert not titles or truth[a]["article"] != truth[b]["article"]
        assert split["test_with_near_duplicate_in_train"] == 0
    # recoloured, cropped and recompressed: at least 95 of 100 are recognized, and nothing else is
    assert 0.95 * in_articles <= split["products_in_shared_groups"] <= in_articles
    split, train, test = parts(bring(split="product"))
    articles = {truth[id_]["article"] for id_ in train}
    assert split["test_with_near_duplicate_in_train"] == sum(truth[id_]["article"] in articles for id_ in test) > 0


def test_the_draw_does_not_depend_on_the_order_of_the_feed(made, bring, tmp_path):
    feeds, found = sorted((made[0] / "feed").iterdir()), []
    for order, seed in ((feeds, 5), (feeds[::-1], 5), (feeds, 6)):
        manifest = bring(feed=order, min_images=30, per_class=12, seed=seed)
        found.append(labels_by_id(tmp_path / "a"))
        assert set(Counter(found[-1].values()).items()) == {(name, 12) for name in manifest["classes"]}
        assert dropped(manifest)["draw: not drawn"] > 0
    assert set(found[0]) == set(found[1]) != set(found[2])


def test_several_processes_give_the_same_bytes(bring, tmp_path, monkeypatch):
    bring("a", workers=1)
    monkeypatch.setattr(draw, "CHUNK", 8)
    bring("b", workers=2)
    assert list(files_of(tmp_path / "a", "*").values()) == list(files_of(tmp_path / "b", "*").values())


# ------------------------------------------------------------------------------------------------ pictures shared


SHARED = [product(k, catid=str(k // 2)) for k in range(10)]
SHARED += [product(10 + k, catid=str(k), thumbnail="9.jpg") for k in range(4)]


ADDRESSES = {"local": "file://{folder}", "memory": "memory://bucket/shop"}


@pytest.fixture(params=ADDRESSES)
def address(request, made):
    """Where fsspec finds what the made shop is."""
    where = pytest.importorskip("upath").UPath(ADDRESSES[request.param].format(folder=made[0]))
    if request.param == "memory":
        for path in filter(Path.is_file, made[0].rglob("*")):
            copy = where / path.relative_to(made[0]).as_posix()
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    yield str(where)
    where.fs.store.clear() if request.param == "memory" else None


def test_a_shop_in_object_storage_gives_the_bytes_of_one_on_the_disk(made, bring, address, tmp_path):
    first, again = bring(), import_feed([f"{address}/feed"], tmp_path / "b", images=address)
    assert files_of(tmp_path / "a", "*.npy") == files_of(tmp_path / "b", "*.npy")
    assert again["source"] == first["source"]
    assert again["counts"] == first["counts"]
    ids = arrays_of(tmp_path / "a")["test_ids"][:3].tolist()
    here, there = (originals(tmp_path / "a", ids, images) for images in (made[0], address))
    assert sorted(there) == sorted(ids)
    assert all((there[id_] == here[id_]).all() for id_ in ids)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a/1.jpg", ()),
        ("/a/1.jpg", ()),
        ("a%2F1.jpg", ("found under another spelling of the path",)),
        ("a/1.jpg; a/2.jpg", ("first of several in one cell",)),
        ("https://shop.example/media/b%20c.jpg?x=1", ("found by the end of their address",)),
        ("a/2.jpg", "image file missing"),
        ("a", "image file missing"),
        ("https://shop.example/a/1.jpg", "image on a host not allowed for download"),
        ("../other/1.jpg", "image path leaves the images folder"),
        ("large.jpg", "file too large"),
    ],
)
def test_a_photo_at_an_address_is_found_as_shops_write_paths(path, found):
    root = pytest.importorskip("upath").UPath("memory://photos/shop")
    for name, content in {
        "shop/a/1.jpg": b"1",
        "shop/b c.jpg": b"1",
        "other/1.jpg": b"2",
        "shop/large.jpg": b"1" * 9,
    }.items():
        file = root.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    if isinstance(found, tuple):
        assert images.read_file(root, path, 8) == (b"1", found)
    else:
        with refused(Rejected, found):
            images.read_file(root, path, 8)


@pytest.mark.parametrize("address", ["nothing://shop", "s3://shop/feed.xml"])
def test_an_address_that_no_package_here_reads_is_named(address, tmp_path):
    if address.startswith("s3") and importlib.util.find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    with refused(ValueError, f"{address}: cannot be read ("):
        import_feed([address], tmp_path / "a", images=tmp_path)


def test_a_picture_shared_by_many_subcategories_is_told_and_dropped_on_demand(shop):
    manifest = shop.run(xml(*SHARED))
    assert manifest["counts"]["shared_pictures"] == [{"image": "9.jpg", "products": 5, "subcategories": 5}]
    assert "5 products of 5 subcategories share the picture 9.jpg; if it is a placeholder" in summary(manifest)
    manifest = shop.run(xml(*SHARED), rules=FeedRules(placeholder_labels=3))
    assert dropped(manifest) == {"image: placeholder, shared by more than 3 subcategories": 5}
    assert manifest["counts"]["shared_pictures"] == []
    assert {row[3] for row in shop.listed()} == {"9.jpg"}
    assert dropped(shop.run(xml(*SHARED), rules=FeedRules(placeholder_labels=5))) == {}


def test_one_placeholder_under_many_names_is_known_by_its_bytes(shop):
    for k in range(5):
        shop.put(f"{k}.jpg", (shop.folder / "9.jpg").read_bytes())
    feed = xml(*(product(k, catid=str(k % 5)) for k in range(9)))
    manifest = shop.run(feed)
    assert manifest["counts"]["shared_pictures"] == [{"image": "0.jpg", "products": 5, "subcategories": 5}]
    for drawn in (None, 1):  # whatever the draw
        manifest = shop.run(feed, rules=FeedRules(placeholder_labels=3, per_class=drawn))
        assert "image: placeholder, shared by more than 3 subcategories" in dropped(manifest)
        assert set(shop.labels()) == set("5678")


def test_a_placeholder_is_found_whatever_decisions_follow(shop):
    """Shared by three subcategories as the feed has it, by two after a decision."""
    products = [product(k, catid=f"kind {k % 3}", category="", thumbnail="9.jpg") for k in range(3)]
    products += [product(3 + k, catid=f"kind {k % 3}", category="") for k in range(6)]
    row = f"{product(2)['link']},confirm,kind 2,kind 1"
    decisions = shop.put("d.csv", f"id,decision,label,suggested_label\n{row}\n")
    manifest = shop.run(xml(*products), rules=FeedRules(placeholder_labels=2), decisions=decisions)
    assert dropped(manifest) == {"image: placeholder, shared by more than 2 subcategories": 3}


def test_a_picture_that_products_share_is_stored_once(shop):
    shop.run(xml(*(product(k, thumbnail=f"{k % 2}.jpg") for k in range(500))), rules=FeedRules(split="product"))
    loaded = data.load(str(shop.out))
    assert (len(loaded.train_images), len(loaded.test_images)) == (450, 50)
    one = {label: read_thumbnail((shop.folder / f"{label}.jpg").read_bytes()).pixels for label in (0, 1)}
    for pixels, label in zip(loaded.test_images, loaded.test_labels.tolist(), strict=True):
        assert (pixels.numpy() == one[label]).all()
    arrays = arrays_of(shop.out)
    assert len(arrays["pictures"]) == 2
    for damage in (lambda file: np.save(file, arrays["train_picture"] + 1), lambda file: file.write_bytes(b"\x93")):
        damage(shop.out / "train_picture.npy")
        with pytest.raises(data.DataError, match="out: what an import wrote there is damaged or incomplete; import"):
            data.load(str(shop.out))


def test_many_products_of_one_label_and_one_image(shop):
    manifest = shop.run(xml(*(product(k, thumbnail="0.jpg", catid="one") for k in range(3000))))
    assert manifest["split"] == {  # one picture: it cannot be on both sides
        "train": 3000, "test": 0, "groups": 1, "products_in_shared_groups": 3000, "largest_group": 3000,
        "test_with_near_duplicate_in_train": 0,
    }  # fmt: skip
    assert len(arrays_of(shop.out)["picture_paths"]) == 1


def test_a_draw_looks_past_bad_images_but_not_at_the_whole_feed(shop, monkeypatch):
    """Half of 400 products have no file: 10 are found in a few rounds, and most of the files are never looked at."""
    looked, real = [], images.read_file
    monkeypatch.setattr(images, "read_file", lambda *a: (looked.append(a[1]), real(*a))[1])
    for k in range(400):
        (shop.folder / f"{k}.jpg").unlink(missing_ok=True)
        if k % 2:
            shop.put(f"{k}.jpg", encode(picture(k, (20, 20)), "JPEG"))
    feed = xml(*(product(k, catid="one") for k in range(400)))
    assert shop.run(feed, rules=FeedRules(per_class=10, min_images=5))["counts"]["kept"] == 10
    assert len(looked) == len(set(looked)) < 100


# ------------------------------------------------------------------------------------------------ what ends early


KILLED = """
import os, sys
from elrkit.catalogue import importer, products, written
out, feed, module, where = sys.argv[1:]
setattr(globals()[module], where, lambda *_: os._exit(9))
importer.import_feed([feed + "/feed"], out, images=feed, rules=importer.FeedRules(per_class=25), workers=1)
"""


def test_a_killed_import_leaves_nothing_but_work_that_the_next_one_takes_over(made, bring, tmp_path):
    """Killed while reading, and while writing; then left to end."""
    bring("whole", per_class=25)
    for where in (("products", "title_stem"), ("written", "_write_pictures")):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "part"), str(made[0]), *where]
        assert subprocess.run(command, cwd=Path(__file__).parents[1], timeout=120).returncode == 9
        assert {path.name for path in tmp_path.glob("part*")} == {"part.work"}
    bring("part", per_class=25)
    whole = {name.replace("whole", "part"): content for name, content in files_of(tmp_path, "whole*").items()}
    assert files_of(tmp_path, "part*") == whole


def test_the_folder_behind_a_link_is_what_is_replaced(shop, monkeypatch):
    (behind := shop.folder / "elsewhere" / "shop").mkdir(parents=True)
    shop.out = shop.folder / "link"
    shop.out.symlink_to(behind)
    for products in (4, 6):
        shop.run(good(products))
        assert shop.out.is_symlink()
        assert len(labels_by_id(behind)) == products
        assert [path.name for path in behind.parent.iterdir()] == ["shop"]
    ids = arrays_of(behind)["train_ids"].tolist()
    assert importer.places(shop.out, ids, shop.folder)[0].keys() == {*ids}
    monkeypatch.chdir(behind)
    shop.out = Path(".")
    with refused(ValueError, "shop is where you are, and would be replaced; choose another folder"):
        shop.run(good(4))


def test_what_a_person_put_into_an_import_is_not_replaced_with_it(shop):
    shop.run(good(4))
    before = files_of(shop.folder, "out*")
    mine = shop.put("out/audit/labels.csv", "id,decision")
    with pytest.raises(ValueError, match=r"out/audit is no part of the earlier import .*out; move it, or choose"):
        shop.run(good(6))
    assert mine.read_text() == "id,decision"
    assert {name: content for name, content in files_of(shop.folder, "out*").items() if name in before} == before


def test_two_imports_do_not_write_one_file(shop, monkeypatch):
    def second(*_):
        with pytest.raises(BlockingIOError, match=r"another import is writing .*out; let it end or"):
            shop.run(good(4))
        raise ZeroDivisionError

    monkeypatch.setattr(importer, "choose", second)
    with pytest.raises(ZeroDivisionError):
        shop.run(good(4))


@pytest.mark.parametrize("where", ["decode_needed", "choose", "write_dropped", "write_dataset"])
def test_an_import_that_fails_leaves_the_last_result(shop, where, monkeypatch):
    """And a line where there is no room; what somebody else put into the folder of its work stays."""
    shop.run(xml(product(0), product(1), product(2, catid="")))
    before = files_of(shop.folder, "out*")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(importer, where, full)
    mine = shop.put("out.work/mine.txt", "")
    shop.out.rename(mine.parent / "old")  # as when an import was stopped just before its end
    with pytest.raises(OSError, match=r"^import_feed: no room in .* make some and start again, downloads are kept$"):
        shop.run(good(4))
    assert list(mine.parent.iterdir()) == [mine]
    mine.unlink()
    mine.parent.rmdir()
    assert files_of(shop.folder, "out*") == before


def test_images_that_were_missing_are_looked_for_again(shop):
    (shop.folder / "2.jpg").unlink()
    shop.put("4.jpg", b"not an image")
    assert dropped(shop.run(good(6))) == {"image: image file missing": 1, "image: not an image": 1}
    for k in (2, 4):
        shop.put(f"{k}.jpg", encode(picture(k), "JPEG"))
    assert dropped(shop.run(good(6))) == {}


@pytest.mark.parametrize(
    ("numbers", "rules", "message"),
    [
        (range(8), {}, r"8 products are left, 0 of them to test .* raise rules.test_share \(0.1: .* of 6 "),
        (range(2), {"test_share": 0.9}, "2 of them to test and 0 to train.* lower rules.test_share"),
        (range(0, 10, 2), {}, r"5 products are left, all in one subcategory, and training needs two; name the column"),
        (range(9), {"min_images": 5}, r"rules.min_images \(5\).*'fewer than 5 usable images': 4"),
    ],
)
def test_a_dataset_that_nothing_can_load_is_no_result(numbers, rules, message, shop, monkeypatch):
    monkeypatch.setattr(written, "_check_loadable", LOADABLE)
    with refused(ValueError, match=message):
        shop.run(xml(*map(product, numbers)), rules=FeedRules(**rules))
    assert not shop.out.exists()


def test_what_is_missing_is_named(tmp_path):
    empty, feed = tmp_path / "empty", tmp_path / "f.csv"
    empty.mkdir()
    feed.write_text("id,label,image\n1,2,none.jpg\n")
    for given, changes, error, message in (
        ([feed], {"images": tmp_path / "none"}, FileNotFoundError, "images folder"),
        ([feed], {"decisions": tmp_path}, FileNotFoundError, "decisions file .* does not exist"),
        ([tmp_path / "none.xml"], {}, FileNotFoundError, r"feed .*none\.xml does not exist"),
        ([empty], {}, ValueError, r"no feed file \(\.xml, \.csv"),
        (str(empty), {}, ValueError, f"in {empty}; give the feed first"),
        ([], {}, ValueError, "in an empty list; give the feed first"),
        ([feed], {}, ValueError, r"none of 1 products is left; image: 1 dropped, image file missing .*folder that the "
         r"feed's paths start from, such as 1: none\.jpg\); every dropped product"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            import_feed(given, tmp_path / "a", **{"images": tmp_path} | changes)
    for there in (feed, tmp_path):  # a file, and a folder of somebody's own
        with pytest.raises(ValueError, match=r"is there and no earlier import; choose a folder that is not there yet"):
            import_feed([feed], there, images=tmp_path)


CLOTHING = Path(os.environ.get("ELRKIT_DATA", "")) / "clothing"


@pytest.mark.skipif(
    "ELRKIT_DATA" not in os.environ or not CLOTHING.is_dir(), reason="ELRKIT_DATA names no folder with clothing/ in it"
)
def test_the_open_clothing_feed(tmp_path):
    rules = FeedRules(columns={"id": "product_id", "label": "subcategory", "image": "thumbnail"}, min_images=20)
    manifest = checked(import_feed([CLOTHING / "feeds"], tmp_path / "c", images=CLOTHING, rules=rules))
    assert manifest["counts"]["read"] == 5403
    assert dropped(manifest) == {"image: image file missing": 5, "subcategory: fewer than 20 usable images": 7}
    assert len(manifest["classes"]) == 19
    assert manifest["split"]["test"] == pytest.approx(539, abs=10)
