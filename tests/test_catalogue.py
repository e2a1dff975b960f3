"""The feed importer: every kind of bad input by a file made here, groups against brute force, exact resume."""

import csv
import errno
import gzip
import http.server
import io
import json
import logging
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from elrkit import data
from elrkit.catalogue import draw, images, written
from elrkit.catalogue import importer as catalogue
from elrkit.catalogue import rules as product_rules
from elrkit.catalogue.images import read_thumbnail
from elrkit.catalogue.importer import import_feed, rebuild_feed, summary
from elrkit.catalogue.made_feed import CIFAR100_SUPERCLASSES, make_feed, make_feed_from
from elrkit.catalogue.review import read_decisions, without_zeros
from elrkit.catalogue.rules import FeedRules

CHECK_LOADABLE = written._check_loadable


@pytest.fixture(autouse=True)
def a_handful_will_do(monkeypatch):
    """Most tests import a handful of products, of which no dataset could be made; one test has the check back."""
    monkeypatch.setattr(written, "_check_loadable", lambda *_: None)


# ------------------------------------------------------------------------------------------------ making feeds


def picture(seed: int, size=(80, 80)) -> Image.Image:
    """A random colour image with the spectrum of a photo (less of the high frequencies), another for each seed."""
    rng = np.random.default_rng(seed)
    octaves = sum(
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(size), np.float32) * 2 / n
        for n in (4, 8, 16, 32)
    )
    return Image.fromarray((octaves * 255 / octaves.max()).astype(np.uint8))


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def product(number: int, **changes) -> dict:
    """One good product of the shop's XML, with changes."""
    fields = {
        "title": f"Thing no. {number}",
        "thumbnail": f"{number}.jpg",
        "release_date": "2015-03-01",
        "big_image": "",
        "catid": str(10 + number % 2),
        "category": f"kind {number % 2}",
        "link": f"https://shop.example/p/{number}",
    }
    return fields | changes


def xml(products: list[dict], head: str = '<?xml version="1.0" encoding="utf-8"?>') -> str:
    rows = ("".join(f"<{tag}>{escape(text)}</{tag}>" for tag, text in p.items()) for p in products)
    return f"{head}<products>{''.join(f'<product>{row}</product>' for row in rows)}</products>"


@pytest.fixture
def shop(tmp_path):
    """Folder with ten good pictures, 0.jpg to 9.jpg."""
    for k in range(10):
        (tmp_path / f"{k}.jpg").write_bytes(encode(picture(k), "JPEG"))
    return tmp_path


def run(shop: Path, feed: str | bytes, name: str = "feed.xml", **options) -> dict:
    """Import one feed file; the invariant of the counts holds in every test that comes through here."""
    (shop / name).write_bytes(feed.encode() if isinstance(feed, str) else feed)
    return checked(import_feed([shop / name], shop / "out.npz", images=shop, workers=1, **options))


def checked(manifest: dict) -> dict:
    counts = manifest["counts"]
    assert counts["read"] == counts["kept"] + sum(sum(reasons.values()) for reasons in counts["dropped"].values())
    assert counts["kept"] == manifest["split"]["train"] + manifest["split"]["test"]
    return manifest


def ids(path: Path) -> set[str]:
    with np.load(path) as arrays:
        return {*arrays["train_ids"].tolist(), *arrays["test_ids"].tolist()}


def labels_by_id(path: Path) -> dict[str, str]:
    with np.load(path) as z:
        names = z["class_names"]
        return {
            id_: str(names[label])
            for part in ("train", "test")
            for id_, label in zip(z[f"{part}_ids"].tolist(), z[f"{part}_labels"], strict=True)
        }


# ------------------------------------------------------------------------------------------------ products


def test_the_shops_rules_for_invalid_and_old_products(shop):
    products = [
        product(0),
        product(1, link="https://cdon.se/"),
        product(2, link="https://cdon.se"),
        product(3, thumbnail=""),
        product(4, release_date="2010-12-31"),
        product(5, release_date="2011-01-01"),
        product(6, release_date=""),
        product(7, release_date="31/12/2009"),
        product(8, catid=""),
        product(9, link=""),
    ]
    manifest = run(shop, xml(products))
    assert manifest["counts"]["dropped"] == {
        "product": {
            "invalid: link is the shop's front page": 2,
            "no image": 1,
            "old: released before 2011": 2,
            "no label": 1,
            "no id": 1,
        }
    }
    assert ids(shop / "out.npz") == {f"https://shop.example/p/{k}" for k in (0, 5, 6)}
    assert manifest["counts"]["examples"]["no image"] == ["feed.xml: https://shop.example/p/3"]
    assert "2 dropped, old: released before 2011" in summary(manifest)


def test_the_result_is_a_dataset_of_this_package(shop):
    manifest = run(shop, xml([product(k) for k in range(10)]), rules=FeedRules(test_share=0.2), licence="CC0")
    with np.load(shop / "out.npz", allow_pickle=False) as z:
        assert z["images"].shape == (10, 32, 32, 3)
        assert z["images"].dtype == np.uint8
        assert z["train_labels"].dtype == np.int64
        assert z["class_names"].tolist() == ["kind 0", "kind 1"]
        for part in ("train", "test"):
            shown = z["images"][z[f"{part}_image"]]
            for pixels, label, id_ in zip(shown, z[f"{part}_labels"], z[f"{part}_ids"], strict=True):
                number = int(id_.rsplit("/", 1)[1])
                assert label == number % 2
                wanted = Image.open(shop / f"{number}.jpg").resize((32, 32), Image.Resampling.BILINEAR)
                assert np.array_equal(pixels, np.asarray(wanted))
    listed = json.loads((shop / "out.manifest.json").read_text())
    assert {key: value for key, value in listed.items() if key != "images"} == manifest
    assert len(listed["images"]) == 10
    assert listed["source"]["licence"] == "CC0"
    assert str(shop) not in (shop / "out.manifest.json").read_text()
    assert not (shop / "out.work").exists()


def test_titles_go_along_short_and_as_valid_text(shop):
    def titles() -> dict[str, str]:
        with np.load(shop / "out.npz") as z:
            parts = [zip(z[f"{p}_ids"].tolist(), z[f"{p}_titles"].tolist(), strict=True) for p in ("train", "test")]
            return {id_: title for part in parts for id_, title in part}

    given = ["Blå tröja", "two\nlines  here", "x" * 100, ""]
    run(shop, xml([product(k, title=title) for k, title in enumerate(given)]))
    assert [titles()[product(k)["link"]] for k in range(4)] == ["Blå tröja", "two lines here", "x" * 80, ""]
    run(shop, "id,label,image,title\n0,hat,0.jpg,Bl\xe5 tr\xf6ja\n".encode("latin-1"), "broken.csv")
    assert titles() == {"0": "Bl? tr?ja"}
    run(shop, "id,label,image\n0,hat,0.jpg\n", "plain.csv")
    with np.load(shop / "out.npz") as z:
        assert "train_titles" not in z


def test_csv_per_subcategory_takes_its_label_from_the_file(shop):
    for k, name in enumerate(("hat", "shoe")):
        (shop / f"{name}.csv").write_text(f"id;image\n{k};{k}.jpg\n")
    rules = FeedRules(columns={"label": "@file"}, delimiter=";")
    import_feed([shop / "hat.csv", shop / "shoe.csv"], shop / "out.npz", images=shop, rules=rules)
    assert labels_by_id(shop / "out.npz") == {"0": "hat", "1": "shoe"}


def test_files_of_one_name_in_several_folders_are_several_labels(shop):
    files = ("men/shoes", "women/shoes", "men/hats")
    for k, name in enumerate(files):
        (shop / "feeds" / name).parent.mkdir(exist_ok=True, parents=True)
        # a column "name" is the product's here
        (shop / "feeds" / f"{name}.csv").write_text(f"id,name,image\n{k},Thing {k},{k}.jpg\n")
    wanted = {"0": "shoes (men/shoes)", "1": "shoes (women/shoes)", "2": "hats"}
    given = [[shop / "feeds"], [shop / "feeds" / "men", shop / "feeds" / "women"]]
    given.append([shop / "feeds" / f"{name}.csv" for name in files])
    for folders in given:
        rules = FeedRules(columns={"label": "@file"})
        manifest = import_feed(folders, shop / "out.npz", images=shop, rules=rules, workers=1)
        assert labels_by_id(shop / "out.npz") == wanted
        assert {each["file"] for each in manifest["source"]["feeds"]} == {f"{name}.csv" for name in files}


def test_duplicate_ids_count_and_the_first_wins(shop):
    manifest = run(shop, xml([product(0), product(0, catid="99", category="late"), product(1)]))
    assert manifest["counts"]["dropped"] == {"product": {"duplicate id": 1}}
    assert labels_by_id(shop / "out.npz")["https://shop.example/p/0"] == "kind 0"


def test_fields_without_end_and_labels_left_out(shop):
    long = "x" * (product_rules.MAX_FIELD + 1)
    products = [product(0), product(1, title=long), product(2, catid="y" * (product_rules.MAX_NAME + 1)), product(3)]
    manifest = run(shop, xml(products), rules=FeedRules(drop_labels=("kind 1",)))
    assert manifest["counts"]["dropped"] == {
        "product": {"field too long": 1, "id or label too long": 1, "label left out": 1}
    }


def test_control_characters_in_ids_and_labels_are_named(shop):
    rows = [("a\0b", "hat"), ("a\0c", "hat"), ("d", "h\0at"), ("e", "hat\x1b[31m"), ("f\x85g", "hat"), ("good", "hat")]
    feed = "id,label,image\n" + "".join(f"{id_},{label},{k}.jpg\n" for k, (id_, label) in enumerate(rows))
    manifest = run(shop, feed, "feed.csv")
    assert manifest["counts"]["dropped"] == {"product": {"control character in id or label": 5}}
    assert labels_by_id(shop / "out.npz") == {"good": "hat"}
    names = "".join(f"{k},{k % 2},kind{'' if k else chr(0)} {k % 2},{k}.jpg\n" for k in range(4))
    manifest = run(shop, f"id,label,name,image\n{names}", "feed.csv")
    assert manifest["counts"]["dropped"] == {"product": {"control character in id or label": 1}}


def test_two_subcategories_of_one_name_stay_two(shop):
    run(shop, xml([product(0, category="Other"), product(1, category="Other")]))
    assert sorted(labels_by_id(shop / "out.npz").values()) == ["Other (10)", "Other (11)"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../../etc/passwd", "image path leaves the images folder"),
        ("a/../../etc/passwd", "image path leaves the images folder"),
        ("/etc/passwd", "image file missing"),  # read as one below the folder
        ("%2e%2e/elsewhere/secret.jpg", "image file missing"),
        ("OUTSIDE/secret.jpg", "image path leaves the images folder"),
        ("ok.jpg%00", "image file missing"),
        ("..\\..\\boot.ini", "image path leaves the images folder"),
        ("C:/windows/x.jpg", "image path is absolute, expected one below the images folder"),
        ("file:///etc/passwd", "image address neither http nor https"),
        ("data:image/png;base64,AAAA", "image address neither http nor https"),
        ("https://elsewhere.example/x.jpg", "image on a host not allowed for download"),
        ("http://[broken/x.jpg", "image address not understood"),
        ("nowhere.jpg", "image file missing"),
        ("out.jpg", "image path leaves the images folder"),
        ("outside/secret.jpg", "image path leaves the images folder"),
        ("pipe.jpg", "image is not a file"),
        ("folder.jpg", "image is not a file"),
        ("x" * 300 + ".jpg", "image file missing"),
    ],
)
def test_no_image_path_leads_out_of_the_folder(shop, path, reason):
    outside = shop / "elsewhere"
    inside = shop / "images"
    outside.mkdir()
    inside.mkdir()
    (outside / "secret.jpg").write_bytes(encode(picture(1), "JPEG"))
    (inside / "ok.jpg").write_bytes(encode(picture(2), "JPEG"))
    (inside / "out.jpg").symlink_to(outside / "secret.jpg")
    (inside / "outside").symlink_to(outside)
    (inside / "in.jpg").symlink_to("ok.jpg")
    (inside / "folder.jpg").mkdir()
    os.mkfifo(inside / "pipe.jpg")
    (shop / "f.xml").write_text(xml([product(0, thumbnail=path), product(1, thumbnail="in.jpg")]))
    manifest = checked(import_feed([shop / "f.xml"], shop / "out.npz", images=inside))
    (reasons,) = manifest["counts"]["dropped"].values()  # one step dropped it, the row's or the image's
    assert reasons == {reason: 1}
    assert ids(shop / "out.npz") == {"https://shop.example/p/1"}


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(TEXT, st.sampled_from("abc")),
            st.one_of(TEXT, st.sampled_from(["hat", "shoe"])),
            st.one_of(TEXT, st.sampled_from(["0.jpg", "1.jpg", "2.jpg", "../x", "http://h/x"])),
            st.one_of(TEXT, st.sampled_from(["2010", "2012-01-01", ""])),
        ),
        max_size=8,
    ),
    per_class=st.one_of(st.none(), st.integers(1, 3)),
)
def test_any_rows_import_or_are_counted(shop, rows, per_class):
    file = io.StringIO()
    csv.writer(file).writerows([("id", "label", "image", "released"), *rows, ("good", "hat", "9.jpg", "")])
    manifest = run(shop, file.getvalue(), "feed.csv", rules=FeedRules(per_class=per_class))
    assert manifest["counts"]["read"] == len(rows) + 1
    assert manifest["counts"]["kept"] >= 1


# ------------------------------------------------------------------------------------------------ images


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG file whose header says what it likes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


BAD_IMAGES = {
    "empty": (b"", "not an image"),
    "text": (b"<html>404 not found</html>", "not an image"),
    "svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "vector image (SVG)"),
    "tiff": (encode(picture(0), "TIFF"), "TIFF image, which is not read; save it as JPEG or PNG"),
    "avif": (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF image, which is not read; save it as JPEG or PNG"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC image, which is not read; save it as JPEG or PNG"),
    "truncated": (encode(picture(0), "JPEG")[:-400], "truncated image"),
    "cut in the header": (encode(picture(0), "PNG")[:20], "truncated image"),
    "garbage inside": (encode(picture(0), "PNG")[:100] + b"\xff" * 5000, "unreadable image"),
    "bomb": (png(60_000, 60_000), "too many pixels (decompression bomb)"),
    "bomb that Pillow only warns of": (png(10_000, 10_000), "too many pixels (decompression bomb)"),
    "bomb that Pillow lets pass": (png(8_000, 8_000), "too many pixels (decompression bomb)"),
    "tiny": (encode(picture(0, (15, 40)), "PNG"), "too small"),
    "ribbon": (encode(picture(0, (20, 400)), "PNG"), "absurd shape"),
    "one colour": (encode(Image.new("RGB", (40, 40), "teal"), "PNG"), "blank image (one colour)"),
    "too many bytes": (b"\xff" * 10_000_001, "file too large"),
}


def test_every_bad_image_is_a_counted_named_rejection(shop):
    products, wanted = [product(0)], Counter()
    for number, (content, reason) in enumerate(BAD_IMAGES.values(), start=10):
        (shop / f"{number}.jpg").write_bytes(content)
        products.append(product(number))
        wanted[reason] += 1
    manifest = run(shop, xml(products))
    assert manifest["counts"]["dropped"] == {"image": dict(wanted)}
    assert manifest["counts"]["kept"] == 1


def test_a_picture_with_another_name_is_still_a_picture(shop):
    (shop / "0.jpg").write_bytes(encode(picture(0), "PNG"))
    assert run(shop, xml([product(0)]))["counts"]["kept"] == 1


def test_16_bit_grey_is_scaled_not_clipped():
    grey = np.full((40, 40), 40_000, np.uint16)
    grey[:20] = 1_000
    thumbnail = read_thumbnail(encode(Image.fromarray(grey), "PNG"))
    assert thumbnail.pixels[31, 16].tolist() == [40_000 >> 8] * 3
    assert thumbnail.pixels[0, 16].tolist() == [1_000 >> 8] * 3
    assert thumbnail.notes == ("16-bit reduced to 8",)


def test_cmyk_palette_transparency_and_animation_become_rgb():
    cmyk = Image.new("CMYK", (40, 40), (0, 255, 255, 0))  # red ink
    cmyk.paste((255, 0, 0, 0), (0, 0, 40, 20))
    red = read_thumbnail(encode(cmyk, "JPEG", quality=100))
    assert red.notes == ("CMYK converted",)
    assert np.abs(red.pixels[31, 16].astype(int) - [255, 0, 0]).max() <= 8

    palette = picture(3).quantize(8)
    converted = read_thumbnail(encode(palette, "PNG"))
    assert converted.notes == ("palette converted",)
    expected = np.asarray(palette.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(converted.pixels, expected)

    glass = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    glass.paste((0, 0, 255, 255), (0, 0, 40, 20))
    seen = read_thumbnail(encode(glass, "PNG"))
    assert seen.notes == ("transparency made white",)
    assert seen.pixels[31, 16].tolist() == [255, 255, 255]
    assert seen.pixels[0, 16].tolist() == [0, 0, 255]

    frames = [picture(1), picture(2)]
    first = read_thumbnail(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    assert first.notes == ("animated, first frame taken",)
    assert np.array_equal(first.pixels, read_thumbnail(encode(frames[0], "PNG")).pixels)


def test_exif_orientation_turns_the_picture():
    upright = Image.new("RGB", (40, 40), "white")
    upright.paste("red", (0, 0, 40, 20))  # the top is red
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: to be turned clockwise
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    thumbnail = read_thumbnail(encode(stored, "PNG", exif=exif))
    assert thumbnail.pixels[2, 16].tolist() == [255, 0, 0]
    assert thumbnail.pixels[29, 16].tolist() == [255, 255, 255]
    assert thumbnail.notes == ("rotated by EXIF orientation",)


def test_crop_keeps_the_centre_and_pad_keeps_everything():
    wide = Image.new("RGB", (128, 64), "lime")
    wide.paste("red", (0, 0, 32, 64))
    wide.paste("blue", (96, 0, 128, 64))
    wide.paste("black", (64, 0, 96, 64))
    cropped = read_thumbnail(encode(wide, "PNG"), FeedRules(fit="crop")).pixels
    assert (cropped[:, 1:15] == [0, 255, 0]).all()
    assert (cropped[:, 17:31] == 0).all()
    padded = read_thumbnail(encode(wide, "PNG"), FeedRules(fit="pad")).pixels
    assert padded[16, 0].tolist() == [255, 0, 0]
    assert padded[16, 31].tolist() == [0, 0, 255]
    assert (padded[:8] == 255).all()
    assert (padded[24:] == 255).all()
    assert not (padded[8:24] == 255).all(axis=2).any()


# ------------------------------------------------------------------------------------------------ made feeds


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A feed of 6 subcategories in 2 main categories with 40 products each, a third of them variants, 20 % misfiled."""
    out = tmp_path_factory.mktemp("made")
    images = np.stack([np.asarray(picture(k, (32, 32))) for k in range(240)])
    names = [f"kind_{k}" for k in range(6)]
    main = ["left", "left", "left", "right", "right", "right"]
    report = make_feed(
        images,
        np.arange(240) % 6,
        names,
        out,
        main_categories=main,
        misfiled=0.2,
        near_duplicates=1 / 3,
        unusable=0.1,
        seed=3,
    )
    with (out / "truth.csv").open(encoding="utf-8", newline="") as file:
        truth = {row["id"]: row for row in csv.DictReader(file)}
    return out, report, truth


def test_a_feed_whose_truth_is_known_comes_back_with_the_rates_put_in(made, tmp_path):
    out, report, truth = made
    assert (report["products"], report["unusable"], report["misfiled"]) == (240, 24, 0.2)
    assert report["near_duplicates"] == pytest.approx(1 / 3, abs=0.02)
    assert sorted(path.name for path in (out / "feed").iterdir()) == ["000-left.xml", "001-right.xml"]
    manifest = checked(import_feed([out / "feed"], tmp_path / "a.npz", images=out))
    # link to the front page, old, no thumbnail, thumbnail missing: 24 products in turn
    assert manifest["counts"]["dropped"] == {
        "product": {
            "invalid: link is the shop's front page": 6,
            "no image": 6,
            "old: released before 2011": 6,
        },
        "image": {"image file missing": 6},
    }
    found = labels_by_id(tmp_path / "a.npz")
    assert len(found) == 240
    wrong = [id_ for id_, label in found.items() if truth[id_]["true_label"] != label]
    assert len(wrong) == 0.2 * 240
    main = {f"kind_{k}": k // 3 for k in range(6)}
    assert all(main[found[id_]] == main[truth[id_]["true_label"]] for id_ in wrong)


def test_near_duplicates_never_straddle_the_split(made, tmp_path):
    """Brute force over all pairs of training and test products: one file, hashes closer than the rule, one article."""
    out, _, truth = made
    for titles, distance in ((50, 22), (0, 22)):
        rules = FeedRules(title_group=titles, near_distance=distance, test_share=0.2)
        manifest = import_feed([out / "feed"], tmp_path / "a.npz", images=out, rules=rules)
        with np.load(tmp_path / "a.npz") as z:
            train, test = z["train_ids"].tolist(), z["test_ids"].tolist()
        assert len(test) >= 0.15 * 240
        hashes = {id_: read_thumbnail((out / truth[id_]["thumbnail"]).read_bytes()).hash for id_ in train + test}
        for a in test:
            for b in train:
                assert truth[a]["thumbnail"] != truth[b]["thumbnail"]
                assert np.bitwise_count(hashes[a] ^ hashes[b]).sum() > distance
                if titles:
                    assert truth[a]["article"] != truth[b]["article"]
        assert manifest["split"]["test_with_near_duplicate_in_train"] == 0

    manifest = import_feed([out / "feed"], tmp_path / "a.npz", images=out, rules=FeedRules(split="product"))
    with np.load(tmp_path / "a.npz") as z:
        articles = {truth[id_]["article"] for id_ in z["train_ids"].tolist()}
        leaked = sum(truth[id_]["article"] in articles for id_ in z["test_ids"].tolist())
    assert manifest["split"]["test_with_near_duplicate_in_train"] == leaked > 0


def test_variants_are_found_by_their_picture_alone(made, tmp_path):
    out, _, truth = made
    manifest = import_feed([out / "feed"], tmp_path / "a.npz", images=out, rules=FeedRules(title_group=0))
    sharing = Counter(row["article"] for row in truth.values() if row["kind"] in ("article", "size", "colour"))
    in_articles = sum(n for n in sharing.values() if n > 1)
    # recoloured, cropped and recompressed: at least 95 of 100 are recognized, and nothing else is
    assert 0.95 * in_articles <= manifest["split"]["products_in_shared_groups"] <= in_articles


def test_the_draw_does_not_depend_on_the_order_of_the_feed(made, tmp_path):
    out, _, _ = made
    rules = FeedRules(min_images=30, per_class=12, seed=5)
    feeds = sorted((out / "feed").iterdir())
    manifest = checked(import_feed(feeds, tmp_path / "a.npz", images=out, rules=rules))
    import_feed(feeds[::-1], tmp_path / "b.npz", images=out, rules=rules)
    import_feed(feeds, tmp_path / "c.npz", images=out, rules=rules.model_copy(update={"seed": 6}))
    assert ids(tmp_path / "a.npz") == ids(tmp_path / "b.npz") != ids(tmp_path / "c.npz")
    drawn = Counter(labels_by_id(tmp_path / "a.npz").values())
    assert set(drawn.values()) == {12}
    assert drawn.keys() == manifest["classes"].keys()
    assert manifest["counts"]["dropped"]["draw"]["not drawn"] > 0


def test_a_small_subcategory_is_dropped_and_counted(shop):
    products = [product(k, catid="big" if k < 7 else "small") for k in range(9)] + [product(99, catid="big")]
    manifest = run(shop, xml(products), rules=FeedRules(min_images=7))
    assert manifest["counts"]["dropped"] == {
        "image": {"image file missing": 1},
        "subcategory": {"fewer than 7 usable images": 2},
    }


def dropped(shop: Path, name: str = "out.dropped.csv") -> list[tuple[str, ...]]:
    with (shop / name).open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["file", "product", "id", "image", "step", "reason"]
    return [tuple(row) for row in rows]


def test_every_dropped_product_is_listed_with_where_it_stands_and_why(shop):
    """One file of each reason a step has; what the draw left is not dropped. The list is as long as the counts say."""
    rows = [("a", "hat", "0.jpg"), ("b", "hat", "gone.jpg"), ("b", "hat", "1.jpg"), ("c", "hat", "2.jpg")]
    rows += [("=d", "", "r\xf6d.jpg"), ("e", "hat", "4.jpg"), ("f", "cap", "5.jpg"), ("g", "hat", "6.jpg")]
    (shop / "a.csv").write_text("id,label,image\n" + "".join(f"{','.join(row)}\n" for row in rows), "utf-8")
    (shop / "b.csv").write_text("id,label,image\nshort\nh,hat,7.jpg\n")
    (shop / "decided.csv").write_text("id,decision,label,suggested_label\nc,unsure,hat,cap\n")
    rules = FeedRules(min_images=2, unsure="drop")
    files = [shop / "a.csv", shop / "b.csv"]
    options = {"images": shop, "rules": rules, "decisions": shop / "decided.csv", "workers": 1}
    manifest = checked(import_feed(files, shop / "out.npz", **options))
    assert dropped(shop) == [
        ("a.csv", "2", "b", "gone.jpg", "image", "image file missing"),
        ("a.csv", "3", "b", "1.jpg", "product", "duplicate id"),
        ("a.csv", "4", "c", "2.jpg", "decision", "marked unsure"),
        ("a.csv", "5", "'=d", "r\xf6d.jpg", "product", "no label"),
        ("a.csv", "7", "f", "5.jpg", "subcategory", "fewer than 2 usable images"),
        ("b.csv", "1", "", "", "product", "fewer columns than the header"),
    ]
    counted = {step: sum(reasons.values()) for step, reasons in manifest["counts"]["dropped"].items()}
    assert counted == Counter(step for *_, step, _ in dropped(shop))

    options["rules"] = rules.model_copy(update={"per_class": 2})
    manifest = checked(import_feed(files, shop / "out.npz", **options))
    assert manifest["counts"]["dropped"]["draw"]["not drawn"] >= 2
    assert {step for *_, step, _ in dropped(shop)} <= {"product", "decision", "image", "subcategory"}
    before = dropped(shop)
    with pytest.raises(ValueError, match=r"none of 10 .*; every dropped product is listed in .*out\.failed\.csv"):
        import_feed(files, shop / "out.npz", images=shop, rules=FeedRules(min_images=99))
    assert len(dropped(shop, "out.failed.csv")) == 10
    assert dropped(shop) == before  # of the dataset that is still there
    run(shop, "id,label,image\na,hat,0.jpg\n", "a.csv")
    assert not (shop / "out.dropped.csv").exists()


@pytest.mark.parametrize(
    ("written", "file", "note"),
    [
        ("/media/a.jpg", "media/a.jpg", None),
        ("Photo.JPG", "photo.jpg", "found under another spelling of the path"),
        ("MEDIA/Photo.JPG", "media/photo.jpg", "found under another spelling of the path"),
        ("gr\u00fcn.jpg", "gru\u0308n.jpg", "found under another spelling of the path"),
        ("red%20hat.jpg", "red hat.jpg", "found under another spelling of the path"),
        ("red%20hat.jpg", "red%20hat.jpg", None),
        ("a.jpg, b.jpg", "a.jpg", "first of several in one cell"),
        ("A.jpg|b.jpg", "a.jpg", "first of several in one cell"),
        ("hat, red.jpg", "hat, red.jpg", None),
    ],
)
def test_an_image_is_found_as_other_systems_and_shops_write_its_path(shop, written, file, note):
    path = shop / "images" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(encode(picture(77), "JPEG"))
    feed = shop / "feed.csv"
    feed.write_text(f'id,label,image\na,hat,"{written}"\n', encoding="utf-8")
    manifest = import_feed([feed], shop / "out.npz", images=shop / "images")
    assert manifest["counts"]["notes"] == ({note: 1} if note else {})
    with np.load(shop / "out.npz") as z:
        (pixels,) = z["images"]
    assert (pixels == read_thumbnail(path.read_bytes()).pixels).all()


def test_of_two_files_that_differ_in_case_none_is_guessed(shop):
    for name in ("Hat.jpg", "hAT.jpg"):
        (shop / name).write_bytes(encode(picture(7), "JPEG"))
    manifest = run(shop, xml([product(0), product(1, thumbnail="HAT.jpg"), product(2, thumbnail="Hat.jpg")]))
    assert manifest["counts"]["dropped"] == {"image": {"image file missing": 1}}


def test_images_named_by_the_products_ids(shop):
    (shop / "photos").mkdir()
    for k in range(4):
        (shop / "photos" / f"sku-{k}.jpg").write_bytes(encode(picture(k), "JPEG"))
    rules = FeedRules(columns={"image": "photos/{id}.jpg"})
    rows = "".join(f"sku-{k},hat\n" for k in range(4))
    manifest = run(shop, f"id,label\n{rows}../../x,hat\n", "feed.csv", rules=rules)
    assert ids(shop / "out.npz") == {f"sku-{k}" for k in range(4)}
    assert manifest["counts"]["dropped"] == {"product": {"image path leaves the images folder": 1}}
    items = "".join(f"<product><link>sku-{k}</link><catid>hat</catid></product>" for k in range(4))
    run(shop, f"<products>{items}</products>", rules=rules)
    assert ids(shop / "out.npz") == {f"sku-{k}" for k in range(4)}


def test_photos_are_found_as_their_addresses_end(shop):
    (shop / "red hat.jpg").write_bytes(encode(picture(77), "JPEG"))
    ends = ["0.jpg?v=17", "a/b/1.JPG", "red%20hat.jpg", "red hat.jpg", "gone.jpg", "..", ""]
    products = [product(k, thumbnail=f"https://cdn.example/{end}") for k, end in enumerate(ends)]
    manifest = run(shop, xml(products))
    assert manifest["counts"]["notes"] == {"found by the end of their address": 3}  # one is written in two ways
    assert manifest["counts"]["dropped"] == {"image": {"image on a host not allowed for download": 3}}
    found = catalogue.originals(shop / "out.npz", [one["link"] for one in products], shop)
    assert found.keys() == {product(k)["link"] for k in range(4)}


@pytest.mark.parametrize(
    ("product", "reason"),
    [
        *(({"released": date}, None) for date in ("", "0000-00-00", "0000-00-00 00:00:00", "2011-01-01", "31.12.2014",
          "05312019", "20190531", "01022020", "99999999")),
        *(({"released": date}, "old: released before 2011") for date in ("2010-12-31", "20100531", "31052010",
          "31/05/2010")),
        ({"image": "http://h.example/svart tröja.jpg"}, "http://h.example/svart%20tr%C3%B6ja.jpg"),
        ({"image": "http://h.example/a&b-%C3%97.jpg?v=1#x"}, "http://h.example/a&b-%C3%97.jpg?v=1#x"),
        ({"image": "http://h\t/x.jpg"}, "image address not understood"),
        ({"image": "img\\0.jpg"}, "img/0.jpg"),
        ({"image": ".\\0.jpg"}, "0.jpg"),
    ],
)  # fmt: skip
def test_what_is_read_in_a_date_and_an_address(product, reason):
    """Without a date, as MySQL's zeros are, no product is old; an address is fetched as a browser would."""
    product = {"id": "a", "label": "hat", "image": "a.jpg"} | product
    try:
        found = product_rules.check_product(product, FeedRules())[3]
    except product_rules.Rejected as error:
        found = str(error)
    assert found == (reason or "a.jpg")


@pytest.mark.parametrize(
    ("text", "which", "label"),
    [
        *((text, "whole", "T-shirt") for text in ("T-shirt", "T-shirt\u200e", " T-shirt ")),
        ("Kla\u200b\u0308der", "whole", "Kläder"),
        ("Blå\u00a0 byxa", "whole", "Blå byxa"),
        ("Bags &amp; Shoes&nbsp;&gt;Boots", "whole", "Bags & Shoes > Boots"),
        ("R&D; M&S", "whole", "R&D; M&S"),
        ("Sale, Clothing>Hats", "whole", "Sale, Clothing > Hats"),
        ("Sale, Clothing>Hats", "first", "Sale"),
        ("Sale, Clothing>Hats, New in", "deepest", "Clothing > Hats"),
        ("Hats\\, caps|Sale", "deepest", "Hats, caps"),
        ("Hats &amp; caps; Sale", "first", "Hats & caps"),
        (" , ", "first", ","),
    ],
)
def test_labels_come_in_one_spelling(text, which, label):
    assert product_rules.one_label(text, which) == label


def test_a_label_column_that_holds_lists_is_said(shop):
    kinds = ["Clothing > Hats", "Sale, Clothing > Hats", "Clothing > Bags, Sale", "Clothing > Bags", "Shoes, boots"]
    feed = "id,label,image\n" + "".join(f'{k},"{kinds[k % 5]}",{k}.jpg\n' for k in range(10))
    manifest = run(shop, feed, "feed.csv")
    assert manifest["counts"]["label_lists"] == ["Clothing > Bags, Sale", "Sale, Clothing > Hats"]
    assert "lists of categories, such as 'Clothing > Bags, Sale'; --rules.categories deepest" in summary(manifest)
    manifest = run(shop, feed, "feed.csv", rules=FeedRules(categories="deepest", drop_labels=("Clothing > Hat",)))
    assert set(manifest["classes"]) == {"Clothing > Hats", "Clothing > Bags", "Shoes"}
    assert manifest["counts"]["label_lists"] == []
    said = "no product has the label Clothing > Hat that is left out; there are Clothing > Hats, Clothing > Bags, Shoes"
    assert said in summary(manifest)


def test_one_placeholder_under_many_names_is_known_by_its_bytes(shop):
    for k in range(5):
        (shop / f"{k}.jpg").write_bytes((shop / "9.jpg").read_bytes())
    products = [product(k, catid=str(k % 5)) for k in range(9)]
    manifest = run(shop, xml(products))
    assert manifest["counts"]["shared_pictures"] == [{"image": "0.jpg", "products": 5, "subcategories": 5}]
    for drawn in (None, 1):  # whatever the draw
        manifest = run(shop, xml(products), rules=FeedRules(placeholder_labels=3, per_class=drawn))
        assert "placeholder, shared by more than 3 subcategories" in manifest["counts"]["dropped"]["image"]
        assert ids(shop / "out.npz") == {product(k)["link"] for k in (5, 6, 7, 8)}


def test_names_of_files_are_neither_formulas_nor_commands_to_a_terminal(shop, capsys, caplog):
    names = ["=cmd|'calc'!A1.csv", "\x1b[2J\x1b]0;owned\x07.csv"]
    for name in names:
        (shop / name).write_text(f"id,label,image\n{len(name)},hat,0.jpg\nb,,1.jpg\n")
    (shop / "\x1b[31mbad.csv").write_text("nothing")
    files = [shop / name for name in names] + [shop / "\x1b[31mbad.csv"]
    manifest = import_feed(files, shop / "out.npz", images=shop, workers=1)
    assert {row[0] for row in dropped(shop)} == {"'" + names[0], names[1]}
    assert "\x1b" not in summary(manifest) + caplog.text
    assert "\\x1b[31mbad.csv: no column" in summary(manifest)


def test_a_picture_that_products_share_is_stored_once(shop):
    run(shop, xml([product(k, thumbnail=f"{k % 2}.jpg") for k in range(500)]), rules=FeedRules(split="product"))
    loaded = data.load(str(shop / "out.npz"))
    assert (len(loaded.train_images), len(loaded.test_images)) == (450, 50)
    one = {label: read_thumbnail((shop / f"{label}.jpg").read_bytes()).pixels for label in (0, 1)}
    for pixels, label in zip(loaded.test_images, loaded.test_labels.tolist(), strict=True):
        assert (pixels.numpy() == one[label]).all()
    with np.load(shop / "out.npz") as z:
        arrays = dict(z)
    assert len(arrays["images"]) == 2
    np.savez(shop / "bad.npz", **arrays | {"train_image": arrays["train_image"] + 1})
    with pytest.raises(data.DataError, match="do not say which of its images are whose"):
        data.load(str(shop / "bad.npz"))


def test_the_list_of_an_earlier_failure_is_removed_by_a_success(shop):
    with pytest.raises(ValueError, match=r"listed in .*out\.failed\.csv"):
        run(shop, xml([product(0, thumbnail="gone.jpg")]))
    assert (shop / "out.failed.csv").exists()
    run(shop, xml([product(0), product(1)]))
    assert not (shop / "out.failed.csv").exists()


def test_a_picture_shared_by_many_subcategories_is_told_and_dropped_on_demand(shop):
    products = [product(k, catid=str(k // 2)) for k in range(10)]
    products += [product(10 + k, catid=str(k), thumbnail="9.jpg") for k in range(4)]
    manifest = run(shop, xml(products))
    assert manifest["counts"]["shared_pictures"] == [{"image": "9.jpg", "products": 5, "subcategories": 5}]
    assert "5 products of 5 subcategories share the picture 9.jpg; if it is a placeholder" in summary(manifest)
    manifest = run(shop, xml(products), rules=FeedRules(placeholder_labels=3))
    reason = "placeholder, shared by more than 3 subcategories"
    assert manifest["counts"]["dropped"] == {"image": {reason: 5}}
    assert manifest["counts"]["shared_pictures"] == []
    assert {row[3] for row in dropped(shop)} == {"9.jpg"}
    assert run(shop, xml(products), rules=FeedRules(placeholder_labels=5))["counts"]["dropped"] == {}


def test_a_placeholder_is_found_whatever_decisions_follow(shop):
    """Shared by three subcategories as the feed has it, by two after a decision."""
    products = [product(k, catid=f"kind {k % 3}", category="", thumbnail="9.jpg") for k in range(3)]
    products += [product(3 + k, catid=f"kind {k % 3}", category="") for k in range(6)]
    (shop / "d.csv").write_text(f"id,decision,label,suggested_label\n{product(2)['link']},confirm,kind 2,kind 1\n")
    options = {"rules": FeedRules(placeholder_labels=2), "decisions": shop / "d.csv"}
    manifest = run(shop, xml(products), **options)
    assert manifest["counts"]["dropped"] == {"image": {"placeholder, shared by more than 2 subcategories": 3}}


def test_a_draw_looks_past_bad_images_but_not_at_the_whole_feed(shop, monkeypatch):
    """Half of 400 products have no file: 10 are found in a few rounds, and most of the files are never looked at."""
    looked = []
    real = images.read_file
    monkeypatch.setattr(images, "read_file", lambda *a: (looked.append(a[1]), real(*a))[1])
    for k in range(0, 400, 2):
        (shop / f"{k}.jpg").write_bytes(encode(picture(k, (20, 20)), "JPEG"))
    for k in range(1, 400, 2):
        (shop / f"{k}.jpg").unlink(missing_ok=True)
    products = [product(k, catid="one") for k in range(400)]
    manifest = run(shop, xml(products), rules=FeedRules(per_class=10, min_images=5))
    assert manifest["counts"]["kept"] == 10
    assert len(looked) == len(set(looked)) < 100


def test_many_products_of_one_label_and_one_image(shop):
    manifest = run(shop, xml([product(k, thumbnail="0.jpg", catid="one") for k in range(3000)]))
    assert manifest["split"] == {
        "train": 3000,
        "test": 0,  # one picture: it cannot be on both sides
        "groups": 1,
        "products_in_shared_groups": 3000,
        "largest_group": 3000,
        "test_with_near_duplicate_in_train": 0,
    }
    assert len(json.loads((shop / "out.manifest.json").read_text())["images"]) == 1


def test_csv_and_xml_of_one_feed_give_one_dataset(tmp_path):
    images = np.stack([np.asarray(picture(k, (32, 32))) for k in range(40)])
    found = {}
    for format in ("xml", "csv"):
        out = tmp_path / format
        make_feed(images, np.arange(40) % 4, ["a b", "c", "d&<", "e"], out, format=format, near_duplicates=0.2, seed=1)
        import_feed([out / "feed"], tmp_path / f"{format}.npz", images=out)
        found[format] = labels_by_id(tmp_path / f"{format}.npz")
    assert found["xml"] == found["csv"]
    assert set(found["xml"].values()) == {"a b", "c", "d&<", "e"}


@pytest.mark.parametrize("siblings", [0.0, 0.5, 1.0])
def test_misfiled_products_stay_among_siblings_as_often_as_asked(tmp_path, siblings):
    images = np.zeros((600, 8, 8, 3), np.uint8)
    report = make_feed(
        images,
        np.arange(600) % 6,
        list("abcdef"),
        tmp_path / "x",
        main_categories=list("llrrss"),
        misfiled=0.5,
        siblings=siblings,
    )
    with (tmp_path / "x" / "truth.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] != row["true_label"]]
    main = dict(zip("abcdef", "llrrss", strict=True))
    among = np.mean([main[row["label"]] == main[row["true_label"]] for row in rows])
    assert len(rows) == 300
    assert among == report["misfiled_among_siblings"] == pytest.approx(siblings, abs=0.12)  # 4 standard deviations


def test_make_feed_says_what_does_not_fit(tmp_path):
    images = np.zeros((4, 8, 8, 3), np.uint8)
    labels = np.array([0, 0, 1, 1])
    make_feed(images, labels, ["a", "b"], tmp_path / "feed")
    with pytest.raises(FileExistsError, match="holds a feed already"):
        make_feed(images, labels, ["a", "b"], tmp_path / "feed")
    with pytest.raises(ValueError, match="misfiled=2: allowed are numbers from 0 to 1"):
        make_feed(images, labels, ["a", "b"], tmp_path / "x", misfiled=2)
    with pytest.raises(ValueError, match="2 images for 5 articles"):
        make_feed(images, labels, ["a", "b"], tmp_path / "x", products_per_class=5)
    with pytest.raises(ValueError, match="uint8"):
        make_feed(images.astype(float), labels, ["a", "b"], tmp_path / "x")
    for wrong in ({"products_per_class": 0}, {"products_per_class": -1}, {"seed": -1}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"^make_feed: {name}=.*: allowed are whole numbers from"):
            make_feed(images, labels, ["a", "b"], tmp_path / "y", **wrong)
        with pytest.raises(ValueError, match=f"^make_feed: {name}=.*: allowed are whole numbers from"):
            make_feed_from("digits", tmp_path / "y", **wrong)
    for classes in (1, 0, -1):
        with pytest.raises(ValueError, match=f"^make_feed: classes={classes}: allowed are whole numbers from 2$"):
            make_feed_from("digits", tmp_path / "y", classes=classes, misfiled=0)
    assert not (tmp_path / "y").exists()
    with pytest.raises(ValueError, match="one class alone"):
        make_feed(images[:2], labels[:2], ["a"], tmp_path / "x")


def test_a_feed_from_a_dataset_file_uses_whole_main_categories(tmp_path):
    names = sorted(name for line in CIFAR100_SUPERCLASSES.values() for name in line.split())
    assert len(names) == len(set(names)) == 100
    images = np.stack([np.asarray(picture(k, (32, 32))) for k in range(100)])
    parts = {
        f"{part}_{what}": array
        for part in ("train", "test")
        for what, array in (("images", images), ("labels", np.arange(100)))
    }
    np.savez(tmp_path / "set.npz", class_names=np.array(names), **parts)
    report = make_feed_from(tmp_path / "set.npz", tmp_path / "shop", classes=63, misfiled=0.1)
    assert report["subcategories"] == 63
    assert len(list((tmp_path / "shop" / "feed").iterdir())) == 13
    assert report["products"] == 126
    (tmp_path / "no.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"not a readable \.npz of plain arrays$"):
        make_feed_from(tmp_path / "no.npz", tmp_path / "other")


def test_a_feed_from_a_named_dataset_of_grey_images(tmp_path):
    report = make_feed_from("digits", tmp_path / "shop", classes=3, products_per_class=4)
    assert (report["subcategories"], report["products"]) == (3, 12)
    manifest = import_feed([tmp_path / "shop" / "feed"], tmp_path / "a.npz", images=tmp_path / "shop", workers=1)
    assert manifest["counts"]["kept"] == 12


def test_a_feed_from_a_dataset_has_the_main_categories_that_are_given(tmp_path):
    odd = {str(k): "odd" if k % 2 else "even" for k in range(10)}
    report = make_feed_from("digits", tmp_path / "shop", main_categories=odd, products_per_class=8, misfiled=0.25)
    assert report["misfiled_among_siblings"] == 1
    with (tmp_path / "shop" / "truth.csv").open() as file:
        rows = [(row["label"], row["true_label"]) for row in csv.DictReader(file)]
    assert all(odd[label] == odd[true] for label, true in rows)
    assert sum(label != true for label, true in rows) == 20
    assert sorted(path.stem for path in (tmp_path / "shop" / "feed").iterdir()) == ["000-even", "001-odd"]
    with pytest.raises(ValueError, match=r"main_categories has none for 8, 9$"):
        make_feed_from("digits", tmp_path / "y", main_categories={str(k): "one" for k in range(8)})


# ------------------------------------------------------------------------------------------------ decisions, resume


PAGE = "https://shop.example/p/"


def reviewed(path: Path, *rows: str) -> Path:
    """A decisions file of rows "number of the product,decision,label,suggested label"."""
    path.write_text("".join(f"{row}\n" for row in ("id,decision,label,suggested_label", *(f"{PAGE}{r}" for r in rows))))
    return path


def test_decisions_of_a_person_are_applied(shop):
    rows = [
        "0,confirm,kind 0,kind 1",
        "1,keep,kind 1,kind 0",
        "2,unsure,kind 0,kind 1",
        "3,confirm,kind 1,no such kind",
        "4,perhaps,kind 0,kind 1",
        "5,Confirm ,kind 1,10",
        "nobody,confirm,kind 0,kind 1",
        "6,confirm,kind 1,kind 0",
        "7,keep,kind 9,kind 0",
    ]
    decisions = reviewed(shop / "decisions.csv", *rows)
    feed = xml([product(k) for k in range(8)])
    manifest = run(shop, feed, decisions=decisions)
    wanted = {f"{PAGE}{k}": f"kind {k % 2}" for k in range(8)} | {f"{PAGE}0": "kind 1", f"{PAGE}5": "kind 0"}
    assert labels_by_id(shop / "out.npz") == wanted
    assert manifest["decisions"] == {
        "confirmed, relabelled": 2,
        "kept as labelled": 1,
        "unsure, kept": 1,
        "with an unknown suggested label": 1,
        "not understood (neither confirm, keep nor unsure)": 1,
        "for an unknown id": 1,
        "for a product filed elsewhere since": 2,
    }
    assert manifest["counts"]["examples"] == {
        "with an unknown suggested label": [f"decisions.csv, line 5: {PAGE}3, no such kind; there are kind 1, kind 0"],
        "not understood (neither confirm, keep nor unsure)": [f"decisions.csv, line 6: {PAGE}4, perhaps"],
        "for an unknown id": [f"decisions.csv, line 8: {PAGE}nobody, confirm"],
        "for a product filed elsewhere since": [
            f"decisions.csv, line 9: {PAGE}6, kind 1",
            f"decisions.csv, line 10: {PAGE}7, kind 9",
        ],
    }
    assert f"1 for an unknown id\n    decisions.csv, line 8: {PAGE}nobody, confirm\n" in summary(manifest)
    manifest = run(shop, feed, decisions=decisions, rules=FeedRules(unsure="drop"))
    assert f"{PAGE}2" not in ids(shop / "out.npz")
    assert manifest["counts"]["dropped"] == {"decision": {"marked unsure": 1}}
    manifest = run(shop, feed, decisions=reviewed(decisions, *(f"none{k},keep,kind 0,kind 1" for k in range(9))))
    assert manifest["decisions"] == {"for an unknown id": 9}
    assert len(manifest["counts"]["examples"]["for an unknown id"]) == 5
    with pytest.raises(FileNotFoundError, match=r"decisions file .* does not exist"):
        run(shop, feed, decisions=shop)


def test_a_second_review_adds_to_the_first(shop):
    first = reviewed(shop / "first.csv", "0,confirm,kind 0,kind 1", "2,confirm,kind 0,kind 1", "4,unsure,kind 0,kind 1")
    second = reviewed(shop / "second.csv", "2,confirm,kind 1,kind 0", "4,confirm,kind 0,kind 1")
    feed = xml([product(k) for k in range(6)])
    run(shop, feed, decisions=[first, second])
    found = labels_by_id(shop / "out.npz")
    assert [found[f"{PAGE}{k}"] for k in (0, 2, 4)] == ["kind 1", "kind 0", "kind 1"]
    manifest = run(shop, feed, decisions=[first, second], rules=FeedRules(unsure="drop"))
    assert manifest["decisions"]["for a product that an earlier one dropped"] == 1
    assert f"{PAGE}4" not in ids(shop / "out.npz")


@pytest.mark.parametrize(
    ("later", "label"),
    [
        ("keep,kind 0,kind 1", "kind 0"),  # the second page was made before the first was applied
        ("keep,kind 1,kind 0", "kind 1"),  # and after it
        ("confirm,kind 0,kind 2", "kind 2"),
        ("confirm,kind 1,kind 2", "kind 2"),
        ("keep,kind 2,kind 1", "kind 1"),  # it never was there
    ],
)
def test_a_later_decision_undoes_an_earlier_one(shop, later, label):
    feed = xml([product(k, catid=str(k % 3), category=f"kind {k % 3}") for k in range(6)])
    both = [reviewed(shop / "first.csv", "0,confirm,kind 0,kind 1"), reviewed(shop / "second.csv", f"0,{later}")]
    manifest = run(shop, feed, decisions=both)
    assert labels_by_id(shop / "out.npz")[f"{PAGE}0"] == label
    assert manifest["decisions"].get("for a product filed elsewhere since", 0) == (label == "kind 1" and "2," in later)


def test_decisions_name_subcategories_of_one_name_as_the_page_does(shop):
    feed = xml([product(k, category="Shirts", catid=str(k % 2)) for k in range(6)])
    run(shop, feed)
    with np.load(shop / "out.npz") as arrays:
        assert arrays["class_names"].tolist() == ["Shirts (0)", "Shirts (1)"]
    rows = ["0,confirm,Shirts (0),Shirts (1)", "2,confirm,Shirts (0),Shirts"]
    manifest = run(shop, feed, decisions=reviewed(shop / "decisions.csv", *rows))
    assert manifest["decisions"] == {"confirmed, relabelled": 1, "with an unknown suggested label": 1}
    assert labels_by_id(shop / "out.npz")[f"{PAGE}0"] == "Shirts (1)"


def test_a_key_does_not_shadow_the_name_of_another_subcategory(shop):
    """Key "Hats" is called "Shoes", key "2" is called "Hats"."""
    kinds = [("Hats", "Shoes"), ("2", "Hats"), ("3", "Coats")]
    feed = xml([product(k, catid=kinds[k % 3][0], category=kinds[k % 3][1]) for k in range(9)])
    run(shop, feed, decisions=reviewed(shop / "d.csv", "2,confirm,Coats,Hats", "5,confirm,Coats,2", "0,keep,Shoes,x"))
    found = labels_by_id(shop / "out.npz")
    assert [found[f"{PAGE}{k}"] for k in (2, 5, 0)] == ["Hats", "Hats", "Shoes"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "first line is '', without id, decision, label, suggested_label"),
        ("id,decision,suggested_label\n", "without label; expected id,decision,label,suggested_label"),
        ("id,decision,label,suggested_label\na,keep,x\n", "line 2: 3 columns"),
        ('id,decision,label,suggested_label\n"a\nb",keep,x,y\nc,keep,x,y,z\n', "line 4: 5 columns"),
        ("id,decision,label,suggested_label\na,keep,x,y\n\na,keep,x,y\n", "line 4: id 'a' was decided in line 2"),
        ('id,decision,label,suggested_label\n"a,keep,x,y\n', "line 2: not valid CSV"),
        ('id;decision;label;suggested_label\na;keep;x;"y\nb;keep;x;"y"\nc;keep;x;y\n', "line 2: not valid CSV"),
        (f"id,decision,label,suggested_label\n{'x' * 200_000},keep,,\n", "line 2: not valid CSV .field larger"),
        ("id,decision,label,suggested_label\nå,keep,x,y\n".encode("latin-1"), "not UTF-8 text; save it as CSV UTF-8"),
        ("id,decision,label,suggested_label\nå,keep,x,y\n".encode("utf-16"), "not UTF-8 text; save it as CSV UTF-8"),
    ],
)
def test_decisions_that_are_not_sound_are_named_by_file_and_line(content, message, shop):
    path = shop / "d.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        read_decisions(path)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ValueError, match=message):
        run(shop, xml([product(0)]), decisions=path)


def test_a_dataset_is_rebuilt_from_its_manifest(made, tmp_path):
    out, _, _ = made
    rules = FeedRules(per_class=10, fit="pad", seed=4)
    import_feed([out / "feed"], tmp_path / "a.npz", images=out, rules=rules)
    manifest = tmp_path / "a.manifest.json"
    rebuild_feed(manifest, [out / "feed"], tmp_path / "b.npz", images=out)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert manifest.read_bytes() == (tmp_path / "b.manifest.json").read_bytes()
    with pytest.raises(ValueError, match="is not the feed"):
        rebuild_feed(manifest, [next((out / "feed").iterdir())], tmp_path / "c.npz", images=out)
    changed = json.loads(manifest.read_text())
    changed["images"][next(iter(changed["images"]))] = "0" * 64
    manifest.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"1 of \d+ images differ"):
        rebuild_feed(manifest, [out / "feed"], tmp_path / "c.npz", images=out)
    assert not (tmp_path / "c.npz").exists()
    before = (tmp_path / "a.npz").read_bytes(), manifest.read_bytes()
    with pytest.raises(ValueError, match=r"1 of \d+ images differ"):  # onto the dataset that is checked, which stays
        rebuild_feed(manifest, [out / "feed"], tmp_path / "a.npz", images=out)
    assert ((tmp_path / "a.npz").read_bytes(), manifest.read_bytes()) == before
    assert not list(tmp_path.glob("*rebuilt*"))
    (tmp_path / "d.csv").write_text("id,decision,label,suggested_label\n")
    with pytest.raises(ValueError, match="not the decisions"):
        rebuild_feed(manifest, [out / "feed"], tmp_path / "c.npz", images=out, decisions=tmp_path / "d.csv")


KILLED = """
import os, sys
from elrkit.catalogue import importer, products, written
out, feed, module, where = sys.argv[1:]
setattr(globals()[module], where, lambda *_: os._exit(9))
importer.import_feed([feed + "/feed"], out, images=feed, rules=importer.FeedRules(per_class=25), workers=1)
"""


def test_a_killed_import_leaves_nothing_but_work_that_the_next_one_takes_over(made, tmp_path):
    """Killed while reading, while decoding and while writing; then left to end."""
    out, _, _ = made
    rules = FeedRules(per_class=25)
    import_feed([out / "feed"], tmp_path / "whole.npz", images=out, rules=rules)
    for where in (("products", "title_stem"), ("importer", "choose"), ("written", "_write_npz")):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "part.npz"), str(out), *where]
        assert subprocess.run(command, cwd=Path(__file__).parents[1], timeout=120).returncode == 9
        assert {path.name for path in tmp_path.glob("part*")} == {"part.work"}
    import_feed([out / "feed"], tmp_path / "part.npz", images=out, rules=rules)
    for suffix in (".npz", ".manifest.json", ".dropped.csv"):
        whole, part = (tmp_path / f"{name}{suffix}" for name in ("whole", "part"))
        assert whole.read_bytes() == part.read_bytes()
    assert not (tmp_path / "part.work").exists()


def test_images_that_were_missing_are_looked_for_again(shop):
    feed = xml([product(k) for k in range(6)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written, "_write_npz", lambda *_: 1 / 0)
        for k in (2, 3):
            (shop / f"{k}.jpg").rename(shop / f"{k}.gone")
        (shop / "4.jpg").write_bytes(b"not an image")
        with pytest.raises(ZeroDivisionError):
            run(shop, feed)
    (shop / "2.gone").rename(shop / "2.jpg")
    (shop / "4.jpg").write_bytes(encode(picture(4), "JPEG"))
    manifest = run(shop, feed)
    assert manifest["counts"]["kept"] == 5
    assert manifest["counts"]["dropped"] == {"image": {"image file missing": 1}}
    one = (shop / "out.npz").read_bytes()
    run(shop, feed)
    assert (shop / "out.npz").read_bytes() == one  # as an import that found everything at once


def test_a_dataset_that_nothing_can_load_is_no_result(shop, monkeypatch):
    monkeypatch.setattr(written, "_check_loadable", CHECK_LOADABLE)
    products = [product(k) for k in range(10)]
    for feed, rules, message in (
        (
            products[:8],
            FeedRules(),
            r"8 products are left, 0 of them to test .* raise rules.test_share \(0.1: .* of 6 ",
        ),
        (products[:2], FeedRules(test_share=0.9), "2 of them to test and 0 to train.* lower rules.test_share"),
        (products[::2], FeedRules(), r"5 products are left, all in one subcategory.* rules.min_images \(1\)"),
        (products[:9], FeedRules(min_images=5), r"rules.min_images \(5\).*'fewer than 5 usable images': 4"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            run(shop, xml(feed), rules=rules)
        assert len(str(error.value).splitlines()) == 1
        assert not list(shop.glob("out.*npz"))
    assert run(shop, xml(products), rules=FeedRules(test_share=0.2))["split"]["test"] == 2


def test_two_imports_do_not_write_one_file(shop, monkeypatch):
    feed = xml([product(k) for k in range(4)])

    def second(*_):
        with pytest.raises(
            BlockingIOError, match=r"another import is writing .*out\.npz; let it end or choose another"
        ):
            run(shop, feed)
        raise ZeroDivisionError

    monkeypatch.setattr(catalogue, "choose", second)
    with pytest.raises(ZeroDivisionError):
        run(shop, feed)


@pytest.mark.parametrize("where", ["decode_needed", "choose", "write_dropped", "write_dataset"])
def test_an_import_that_fails_leaves_the_last_result(shop, where, monkeypatch):
    """And a line where there is no room; what somebody else put into the folder of its work stays."""
    run(shop, xml([product(0), product(1), product(2, catid="")]))
    before = {path.name: path.read_bytes() for path in shop.glob("out*")}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(catalogue, where, full)
    (shop / "out.work").mkdir()
    (shop / "out.work" / "mine.txt").touch()
    with pytest.raises(OSError, match=r"^import_feed: no room in .* make some and start again, downloads are kept$"):
        run(shop, xml([product(k) for k in range(4)]))
    assert [path.name for path in (shop / "out.work").iterdir()] == ["mine.txt"]
    (shop / "out.work" / "mine.txt").unlink()
    (shop / "out.work").rmdir()
    assert {path.name: path.read_bytes() for path in shop.glob("out*")} == before


def test_several_processes_give_the_same_bytes(made, tmp_path, monkeypatch):
    out, _, _ = made
    import_feed([out / "feed"], tmp_path / "a.npz", images=out, workers=1)
    monkeypatch.setattr(draw, "CHUNK", 8)
    import_feed([out / "feed"], tmp_path / "b.npz", images=out, workers=2)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="images folder"):
        import_feed([tmp_path], tmp_path / "a.npz", images=tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"feed .*none\.xml does not exist"):
        import_feed([tmp_path / "none.xml"], tmp_path / "a.npz", images=tmp_path)
    with pytest.raises(ValueError, match=r"no feed file \(\.xml, \.csv"):
        import_feed([tmp_path], tmp_path / "a.npz", images=tmp_path)
    with pytest.raises(ValueError, match=f"in {tmp_path}; give the feed first"):
        import_feed(str(tmp_path), tmp_path / "a.npz", images=tmp_path)
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        import_feed([tmp_path], tmp_path / "a.zip", images=tmp_path)
    (tmp_path / "f.csv").write_text("id,label,image\n1,2,none.jpg\n")
    with pytest.raises(ValueError, match="none of 1 products is left; image: 1 dropped, image file missing") as caught:
        import_feed([tmp_path / "f.csv"], tmp_path / "a.npz", images=tmp_path)
    assert "folder that the feed's paths start from, such as 1: none.jpg); every dropped product" in str(caught.value)
    with pytest.raises(ValueError, match="in an empty list; give the feed first"):
        import_feed([], tmp_path / "a.npz", images=tmp_path)


def test_a_feed_in_another_encoding_is_told(tmp_path, caplog):
    rows = [f"p{k},{'Küche' if k % 2 else 'Bad'},{k}.png,Stück {k}" for k in range(20)]
    (tmp_path / "f.csv").write_bytes("\n".join(["id,label,image,title", *rows]).encode("cp1252"))
    for k in range(20):
        picture(k, (40, 40)).save(tmp_path / f"{k}.png")
    rules = FeedRules(min_images=2)
    with caplog.at_level(logging.WARNING):
        manifest = import_feed([tmp_path / "f.csv"], tmp_path / "a.npz", images=tmp_path, rules=rules)
    assert (
        "f.csv: 10 titles are not in the encoding read, and hold question marks; mend with --rules.encoding"
        in caplog.text
    )
    assert manifest["classes"].keys() == {"Bad"}
    assert "10 dropped, wrong encoding (--rules.encoding cp1252 or latin-1, if a CSV is in that" in summary(manifest)
    rules = rules.model_copy(update={"encoding": "cp1252"})
    manifest = import_feed([tmp_path / "f.csv"], tmp_path / "b.npz", images=tmp_path, rules=rules)
    assert manifest["classes"].keys() == {"Küche", "Bad"}


def test_a_host_may_be_given_by_an_address_of_it(shop):
    feed = xml([product(k, thumbnail=f"https://cdn.shop.example/{k}x.jpg") for k in range(4)])
    with pytest.raises(ValueError, match=r"not allowed for download \(--download-from names its host"):
        run(shop, feed)
    with pytest.raises(ValueError, match="none of 4 products is left") as caught:
        run(shop, feed, rules=FeedRules(retries=0), download_from=["https://cdn.shop.example/x"])
    assert "not allowed" not in str(caught.value)


def test_ids_that_a_spreadsheet_robbed_of_their_zeros_are_understood(shop, caplog):
    """Excel saves 00003 as 3."""
    assert without_zeros(["007", "07", "0012", "12", "00", "0x1", "5"]) == {"0": "00"}
    assert without_zeros(["00048", "5"]) == {"48": "00048"}
    feed = "id,label,image\n" + "".join(f"{k:05},{'hat' if k % 2 else 'shoe'},{k}.jpg\n" for k in range(8))
    (shop / "d.csv").write_text("id,decision,label,suggested_label\n3,confirm,hat,shoe\n4,keep,shoe,hat\n")
    manifest = run(shop, feed, "feed.csv", decisions=shop / "d.csv")
    assert labels_by_id(shop / "out.npz")["00003"] == "shoe"
    assert manifest["decisions"] == {
        "confirmed, relabelled": 1,
        "kept as labelled": 1,
        "by an id whose leading zeros a spreadsheet has dropped": 2,
    }
    (shop / "d.csv").write_text("id,decision,label,suggested_label\n31,confirm,hat,shoe\n")
    with caplog.at_level(logging.WARNING):
        run(shop, feed, "feed.csv", decisions=shop / "d.csv")
    assert "none of the decisions on 1 products fits a product of this feed" in caplog.text


# ------------------------------------------------------------------------------------------------ downloads


@pytest.fixture
def server(monkeypatch):
    """A loopback web server; ``asked`` counts the requests for each path."""
    monkeypatch.setenv("NO_PROXY", "*")
    asked = Counter()
    body = encode(picture(1), "JPEG")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked[self.path] += 1
            status, headers, content = 200, {}, body
            if self.path == "/gone.jpg":
                status = 404
            elif self.path == "/busy.jpg" and asked[self.path] < 3:
                status = 503
            elif self.path == "/down.jpg":
                status = 500
            elif self.path == "/moved.jpg":
                status, headers = 302, {"Location": "/here.jpg"}
            elif self.path == "/away.jpg":
                status, headers = 302, {"Location": "http://elsewhere.example/x.jpg"}
            elif self.path.startswith("/to-broken.jpg"):
                status, headers = 302, {"Location": "http://[oops"}
            elif self.path.startswith("/to-mail.jpg"):
                status, headers = 302, {"Location": "mailto:somebody@shop.example"}
            elif self.path == "/text.jpg":
                content = b"<html>back soon</html>"
            elif self.path == "/inside.jpg":
                status, headers = 302, {"Location": "file:///etc/passwd"}
            elif self.path == "/round.jpg":
                status, headers = 302, {"Location": "/round.jpg"}
            elif self.path == "/packed.jpg" or "gzip" in self.headers.get("Accept-Encoding", ""):
                headers, content = {"Content-Encoding": "gzip"}, gzip.compress(body)
            elif self.path == "/huge.jpg":
                content = b"\xff" * 300_000
            if self.path == "/headers.jpg":
                for k in range(10_000):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX: y" if k == 0 else b"y")
                    time.sleep(0.02)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.path == "/slow.jpg":
                for k in range(len(content)):
                    self.wfile.write(content[k : k + 1])
                    time.sleep(0.02)
            elif self.path == "/cut.jpg":
                content = content[:100]
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.handle_error = lambda *_: None  # the importer hangs up on what is too large
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"127.0.0.1:{httpd.server_port}", asked
    httpd.shutdown()
    thread.join()
    httpd.server_close()


POLITE = FeedRules(retries=2, backoff_s=0.01, timeout_s=5, max_bytes=200_000)


def test_originals_are_the_shop_s_own_pictures_in_full(shop, server, tmp_path):
    """Of ten products: one fetched, one found under another spelling, one changed and one gone since the import."""
    host, _ = server
    for k in range(10):
        (shop / f"{k}.jpg").write_bytes(encode(picture(k, (90, 60)), "JPEG"))
    products = [product(k) for k in range(8)]
    products += [product(8, thumbnail="8.JPG"), product(9, thumbnail=f"http://{host}/a.jpg")]
    run(shop, xml(products), download_from=[host])
    (shop / "1.jpg").write_bytes(encode(picture(99), "JPEG"))
    (shop / "2.jpg").unlink()
    (shop / "3.jpg").write_bytes(b"no picture")
    wanted = [product(k)["link"] for k in (0, 1, 2, 3, 8, 9)]
    found = catalogue.originals(shop / "out.npz", [*wanted, "unknown"], shop, side=120)
    assert set(found) == {wanted[0], wanted[4], wanted[5]}
    for id_, number in ((wanted[0], 0), (wanted[4], 8)):
        pixels = found[id_]
        assert pixels.shape == (120, 120, 3)
        assert (pixels[:15] == 255).all()  # 90 x 60 becomes 120 x 80, padded: nothing is cut off
        shown = np.asarray(picture(number, (90, 60)).resize((120, 80), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(pixels[20:100] - shown).mean() < 10
    with pytest.raises(FileNotFoundError, match=r"images folder .* does not exist"):
        catalogue.originals(shop / "out.npz", wanted, shop / "none")
    manifest = json.loads((shop / "out.manifest.json").read_text())
    other = manifest | {"npz_sha256": "0" * 64}  # of another import under this name
    for text in (json.dumps(other), "[]", "{", json.dumps(manifest | {"images": {}}), None):
        (shop / "out.manifest.json").unlink()
        if text is not None:
            (shop / "out.manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"out\.npz: does not say which .* own out\.manifest\.json beside it"):
            catalogue.originals(shop / "out.npz", wanted, shop)
        (shop / "out.manifest.json").touch()


def test_originals_of_class_folders_are_their_files(tmp_path):
    for k in range(3):
        (tmp_path / "set" / f"kind {k}").mkdir(parents=True)
        (tmp_path / "set" / f"kind {k}" / "0.png").write_bytes(encode(picture(k, (160, 160)), "PNG"))
    found = catalogue.originals(tmp_path / "set", ["kind 0/0.png", "kind 2/0.png", "../secret.png", "gone.png"])
    assert {id_: (pixels == np.asarray(picture(int(id_[5]), (160, 160)))).all() for id_, pixels in found.items()} == {
        "kind 0/0.png": True,
        "kind 2/0.png": True,
    }


def test_addresses_are_fetched_only_from_hosts_that_were_named(shop, server):
    host, asked = server
    feed = xml(
        [product(0, thumbnail=f"http://{host}/a.jpg"), product(1, thumbnail=f"http://u@{host}/b.jpg"), product(2)]
    )
    manifest = run(shop, feed)
    assert manifest["counts"]["dropped"] == {"image": {"image on a host not allowed for download": 2}}
    assert not asked
    manifest = run(shop, feed, download_from=[host])
    assert manifest["counts"]["dropped"] == {"image": {"image on a host not allowed for download": 1}}
    assert asked == {"/a.jpg": 1}
    run(shop, feed, download_from=[host], rules=FeedRules(seed=1))
    assert asked == {"/a.jpg": 1}  # what was fetched once is not fetched again


def test_what_was_fetched_and_is_no_image_is_asked_for_again(shop, server):
    host, asked = server
    feed = xml(
        [product(0, thumbnail=f"http://{host}/text.jpg"), product(1, thumbnail=f"http://{host}/a.jpg"), product(2)]
    )
    for times, name in enumerate(("out.npz", "other.npz"), 1):
        (shop / "feed.xml").write_text(feed)
        manifest = import_feed([shop / "feed.xml"], shop / name, images=shop, download_from=[host])
        assert manifest["counts"]["dropped"] == {"image": {"not an image": 1}}
        assert asked == {"/text.jpg": times, "/a.jpg": 1}  # what is an image is there for another import, too


def test_addresses_that_nothing_can_fetch_are_counted_each(shop, server):
    """Neither stops the import, though there are more of them than failures are allowed in a row."""
    host, _ = server
    bad = [f"http://{host}/to-{where}.jpg?{k}" for where in ("broken", "mail") for k in range(3)]
    products = [product(k, thumbnail=address) for k, address in enumerate([*bad, f"http://{host}\t/x.jpg"])]
    rules = POLITE.model_copy(update={"max_failures": 2})
    manifest = run(shop, xml([*products, product(99, thumbnail="1.jpg")]), rules=rules, download_from=[host])
    assert manifest["counts"]["dropped"] == {
        "product": {"image address not understood": 1},
        "image": {"image address not understood": 3, "image address neither http nor https": 3},
    }
    assert manifest["counts"]["kept"] == 1


def test_of_several_addresses_in_a_cell_the_first_is_fetched(shop, server):
    host, asked = server
    cells = [f"http://{host}/a.jpg{between}http://{host}/b.jpg" for between in (",", " | ", "; ", " ")]
    cells[0] = f"http://{host}/a.jpg," + ",".join(f"http://{host}/{k}-{'x' * 100}.jpg" for k in range(30))
    run(shop, xml([product(k, thumbnail=cell) for k, cell in enumerate(cells)]), download_from=[host])
    assert len(ids(shop / "out.npz")) == 4
    assert asked == {"/a.jpg": 1}


def test_a_download_that_fails_is_counted_and_never_repeated_without_end(shop, server):
    host, asked = server
    names = ("ok", "gone", "busy", "down", "moved", "away", "inside", "round", "huge")
    products = [product(k, thumbnail=f"http://{host}/{name}.jpg") for k, name in enumerate(names)]
    manifest = run(shop, xml(products), rules=POLITE, download_from=[host])
    assert ids(shop / "out.npz") == {f"https://shop.example/p/{names.index(name)}" for name in ("ok", "busy", "moved")}
    assert manifest["counts"]["dropped"]["image"] == {
        "download failed": 1,
        "download refused (status 404)": 1,
        "file too large": 1,
        "image address neither http nor https": 1,
        "image on a host not allowed for download": 1,
        "too many redirects": 1,
    }
    assert asked == {
        "/ok.jpg": 1,
        "/gone.jpg": 1,
        "/busy.jpg": 3,
        "/down.jpg": 3,
        "/moved.jpg": 1,
        "/here.jpg": 1,
        "/away.jpg": 1,
        "/inside.jpg": 1,
        "/round.jpg": 4,
        "/huge.jpg": 1,
    }


def test_downloads_come_uncompressed(shop, server):
    host, _ = server
    products = [product(k, thumbnail=f"http://{host}/{name}.jpg") for k, name in enumerate(("ok", "packed"))]
    manifest = run(shop, xml(products), rules=POLITE, download_from=[host])
    assert manifest["counts"]["kept"] == 1
    assert manifest["counts"]["dropped"]["image"] == {"download in a Content-Encoding that was not asked for": 1}


def test_a_download_may_neither_drip_nor_end_early(shop, server):
    host, asked = server
    products = [
        product(k, thumbnail=f"http://{host}/{name}.jpg") for k, name in enumerate(("slow", "headers", "cut", "ok"))
    ]
    rules = POLITE.model_copy(update={"timeout_s": 0.2})
    manifest = run(shop, xml(products), rules=rules, download_from=[host])
    assert manifest["counts"]["dropped"]["image"] == {"download failed": 1, "download too slow": 2}
    assert asked == {"/slow.jpg": 1, "/headers.jpg": 1, "/cut.jpg": 1, "/ok.jpg": 1}


def test_a_host_that_is_down_stops_the_import_which_resumes(shop, server):
    host, asked = server
    products = [product(k, thumbnail=f"http://{host}/down.jpg#{k}") for k in range(30)]
    feed = xml([product(99, thumbnail=f"http://{host}/ok.jpg"), *products])
    rules = POLITE.model_copy(update={"retries": 0, "max_failures": 4, "connections": 1})
    for tries in (1, 2):
        with pytest.raises(ConnectionError, match="4 downloads in a row failed"):
            run(shop, feed, rules=rules, download_from=[host])
        assert asked == {"/ok.jpg": 1, "/down.jpg": 4 * tries}  # what is there already is not asked for again


# ------------------------------------------------------------------------------------------------ real products

CLOTHING = Path(os.environ.get("ELRKIT_DATA", "")) / "clothing"


@pytest.mark.skipif(
    "ELRKIT_DATA" not in os.environ or not CLOTHING.is_dir(), reason="ELRKIT_DATA names no folder with clothing/ in it"
)
def test_the_open_clothing_feed(tmp_path):
    rules = FeedRules(columns={"id": "product_id", "label": "subcategory", "image": "thumbnail"}, min_images=20)
    manifest = checked(import_feed([CLOTHING / "feeds"], tmp_path / "c.npz", images=CLOTHING, rules=rules))
    assert manifest["counts"]["read"] == 5403
    assert manifest["counts"]["dropped"] == {
        "image": {"image file missing": 5},
        "subcategory": {"fewer than 20 usable images": 7},
    }
    assert len(manifest["classes"]) == 19
    assert manifest["split"]["test"] == pytest.approx(539, abs=10)


# ------------------------------------------------------------------------------------------------ as shops write


def test_labels_that_differ_in_case_are_named_and_merged_when_asked(shop):
    rows = [f"{k},{label},{k}.jpg" for k, label in enumerate(["Dress", "dress", "DRESS", "Hat", "Hat"])]
    feed = "\n".join(["id,label,image", *rows])
    manifest = run(shop, feed, "feed.csv")
    assert manifest["counts"]["differ_in_case"] == [["DRESS", "Dress", "dress"]]
    assert "differ in case alone: DRESS, Dress, dress; --rules.merge-case" in catalogue.summary(manifest)
    merged = import_feed([shop / "feed.csv"], shop / "one.npz", images=shop, rules=FeedRules(merge_case=True))
    assert set(merged["classes"]) == {"Dress", "Hat"}
    assert merged["counts"]["differ_in_case"] == []


def test_merging_goes_by_the_name_and_not_by_the_shop_s_number(shop):
    """Numbers that differ in case alone are two subcategories; names that do are one, whatever their numbers."""
    named = [("a1", "Shoes"), ("A1", "Hats"), ("1", "Dress"), ("2", "dress"), ("3", "skip")]
    products = [product(2 * k + j, catid=c, category=n) for k, (c, n) in enumerate(named) for j in (0, 1)]
    manifest = run(shop, xml(products), rules=FeedRules(merge_case=True, drop_labels=("Skip",)))
    assert set(manifest["classes"]) == {"Shoes", "Hats", "Dress"}
    assert manifest["counts"]["differ_in_case"] == []
    assert manifest["counts"]["dropped"] == {"product": {"label left out": 2}}


def test_subcategories_that_are_dropped_are_named(shop):
    rows = [f"{k},{label},{k}.jpg" for k, label in enumerate(["Hat"] * 4 + ["Bag"] * 3 + ["Sock", "Sock", "Tie"])]
    (shop / "8.jpg").write_bytes(b"no picture")
    manifest = run(shop, "\n".join(["id,label,image", *rows]), "feed.csv", rules=FeedRules(min_images=3))
    assert manifest["counts"]["small_subcategories"] == {"count": 2, "named": [["Sock", 1], ["Tie", 1]]}
    assert manifest["counts"]["examples"]["fewer than 3 usable images"] == ["Sock (1 usable)"]
    assert "subcategories dropped, with their usable images: Sock (1), Tie (1)" in catalogue.summary(manifest)
