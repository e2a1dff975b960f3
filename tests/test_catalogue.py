"""The feed importer: what becomes of products and their labels, and of imports that end early."""

import csv
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import refused
from shops import PAGE, arrays_of, dropped, good, open_shop, product, xml

from elrkit.catalogue import rules
from elrkit.catalogue.decisions import read_decisions, without_zeros
from elrkit.catalogue.importer import summary
from elrkit.catalogue.rules import FeedRules

shop = pytest.fixture(open_shop)

# ------------------------------------------------------------------------------------------------ products

LONG, LONG_NAME = "x" * (rules.MAX_FIELD + 1), "y" * (rules.MAX_NAME + 1)
CONTROLS = [("a\0b", "hat"), ("a\0c", "hat"), ("d", "h\0at"), ("e", "hat\x1b[31m"), ("f\x85g", "hat"), ("good", "hat")]
CASES = "".join(f"{k},{label},{k}.jpg\n" for k, label in enumerate(["Dress", "dress", "DRESS", "Hat", "Hat"]))
NAMED = [("a1", "Shoes"), ("A1", "Hats"), ("1", "Dress"), ("2", "dress"), ("3", "skip")]
OWN_NAMES = "id,label\n" + "".join(f"{k},hat\n" for k in range(4))
PRODUCTS = {  # feed, rules, what is dropped, labels that are kept
    "the shop's rules for invalid and old products": (
        xml(product(0), product(1, link="https://cdon.se/"), product(2, link="https://cdon.se"),
            product(3, thumbnail=""), product(4, release_date="2010-12-31"), product(5, release_date="2011-01-01"),
            product(6, release_date=""), product(7, release_date="31/12/2009"), product(8, catid=""),
            product(9, link="")),
        {},
        {"product: invalid: link is the shop's front page": 2, "product: no image": 1, "product: no label": 1,
         "product: old: released before 2011": 2, "product: no id": 1},
        {"0": "kind 0", "5": "kind 1", "6": "kind 0"},
    ),
    "of one id the first wins": (
        xml(product(0), product(0, catid="99", category="late"), product(1)), {}, {"product: duplicate id": 1},
        {"0": "kind 0", "1": "kind 1"},
    ),
    "fields without end and labels left out": (
        xml(product(0), product(1, title=LONG), product(2, catid=LONG_NAME), product(3)), {"drop_labels": ("kind 1",)},
        {"product: field too long": 1, "product: id or label too long": 1, "product: label left out": 1},
        {"0": "kind 0"},
    ),
    "control characters in ids and labels": (
        "id,label,image\n" + "".join(f"{id_},{label},{k}.jpg\n" for k, (id_, label) in enumerate(CONTROLS)), {},
        {"product: control character in id or label": 5}, {"good": "hat"},
    ),
    "control characters in names": (
        "id,label,name,image\n0,0,kind\0,0.jpg\n1,1,kind 1,1.jpg\n", {},
        {"product: control character in id or label": 1}, {"1": "kind 1"},
    ),
    "two subcategories of one name stay two": (
        xml(product(0, category="Other"), product(1, category="Other")), {}, {}, {"0": "Other (10)", "1": "Other (11)"},
    ),
    "labels that differ in case": (
        "id,label,image\n" + CASES, {}, {}, {"0": "Dress", "1": "dress", "2": "DRESS", "3": "Hat", "4": "Hat"},
    ),
    "are merged when asked": (
        "id,label,image\n" + CASES, {"merge_case": True}, {},
        {"0": "Dress", "1": "Dress", "2": "Dress", "3": "Hat", "4": "Hat"},
    ),
    "by the name and not by the shop's number": (
        xml(*(product(k, catid=catid, category=name) for k, (catid, name) in enumerate(NAMED))),
        {"merge_case": True, "drop_labels": ("Skip",)}, {"product: label left out": 1},
        {"0": "Shoes", "1": "Hats", "2": "Dress", "3": "Dress"},
    ),
    "a small subcategory": (
        xml(*(product(k, catid="big" if k < 7 else "small", category="") for k in range(9)), product(99, catid="big")),
        {"min_images": 7}, {"image: image file missing": 1, "subcategory: fewer than 7 usable images": 2},
        dict.fromkeys("0123456", "big"),
    ),
    "images named by the products' ids in CSV": (
        OWN_NAMES + "../../x,hat\n", {"columns": {"image": "{id}.jpg"}},
        {"product: image path leaves the images folder": 1}, dict.fromkeys("0123", "hat"),
    ),
    "and in XML": (
        xml(*({"link": f"{k}", "catid": "hat"} for k in range(4))), {"columns": {"image": "{id}.jpg"}}, {},
        dict.fromkeys("0123", "hat"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("feed", "asked", "lost", "kept"), PRODUCTS.values(), ids=PRODUCTS)
def test_what_becomes_of_products(feed, asked, lost, kept, shop):
    manifest = shop.run(feed, rules=FeedRules(**asked))
    assert dropped(manifest) == lost
    assert shop.labels() == kept
    assert set(manifest["classes"]) == set(kept.values())
    for reason, count in lost.items():
        step, _, reason = reason.partition(": ")
        assert f"  {step}: {count} dropped, {reason}" in summary(manifest)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)
ROWS = st.tuples(
    TEXT | st.sampled_from("abc"),
    TEXT | st.sampled_from(["hat", "shoe"]),
    TEXT | st.sampled_from(["0.jpg", "1.jpg", "2.jpg", "../x", "http://h/x"]),
    TEXT | st.sampled_from(["2010", "2012-01-01", ""]),
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, max_size=8), per_class=st.none() | st.integers(1, 3))
def test_any_rows_import_or_are_counted(shop, rows, per_class):
    file = io.StringIO()
    csv.writer(file).writerows([("id", "label", "image", "released"), *rows, ("good", "hat", "9.jpg", "")])
    manifest = shop.run(file.getvalue(), rules=FeedRules(per_class=per_class))
    assert manifest["counts"]["read"] == len(rows) + 1
    assert manifest["counts"]["kept"] >= 1


@pytest.mark.parametrize(
    ("part", "found"),
    [
        *(({"released": date}, "a.jpg") for date in ("", "0000-00-00", "0000-00-00 00:00:00", "2011-01-01",
          "31.12.2014", "05312019", "20190531", "01022020", "99999999")),
        *(({"released": date}, "old: released before 2011") for date in ("2010-12-31", "20100531", "31052010",
          "31/05/2010")),
        ({"image": "http://h.example/svart tröja.jpg"}, "http://h.example/svart%20tr%C3%B6ja.jpg"),
        ({"image": "http://h.example/a&b-%C3%97.jpg?v=1#x"}, "http://h.example/a&b-%C3%97.jpg?v=1#x"),
        ({"image": "http://h\t/x.jpg"}, "image address not understood"),
        ({"image": "img\\0.jpg"}, "img/0.jpg"),
        ({"image": ".\\0.jpg"}, "0.jpg"),
    ],
)  # fmt: skip
def test_what_is_read_in_a_date_and_an_address(part, found):
    """Without a date, as MySQL's zeros are, no product is old; an address is fetched as a browser would."""
    try:
        image = rules.check_product({"id": "a", "label": "hat", "image": "a.jpg"} | part, FeedRules())[3]
    except rules.Rejected as error:
        image = str(error)
    assert image == found


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
    assert rules.one_label(text, which) == label


def test_the_result_is_a_dataset_of_this_package(shop):
    manifest = shop.run(good(10), rules=FeedRules(test_share=0.2), licence="CC0")
    z = arrays_of(shop.out)
    assert (z["pictures"].shape, z["pictures"].dtype) == ((10, 32, 32, 3), np.uint8)
    assert (z["train_labels"].dtype, z["class_names"].tolist()) == (np.int64, ["kind 0", "kind 1"])
    for part in ("train", "test"):
        shown = z["pictures"][z[f"{part}_picture"]]
        for pixels, label, id_ in zip(shown, z[f"{part}_labels"], z[f"{part}_ids"], strict=True):
            number = int(id_.removeprefix(PAGE))
            assert label == number % 2
            wanted = Image.open(shop.folder / f"{number}.jpg").resize((32, 32), Image.Resampling.BILINEAR)
            assert np.array_equal(pixels, np.asarray(wanted))
    assert z["picture_paths"].tolist() == sorted(f"{k}.jpg" for k in range(10))
    text = (shop.out / "manifest.json").read_text()
    assert (json.loads(text), manifest["source"]["licence"]) == (manifest, "CC0")
    assert str(shop.folder) not in text
    assert {path.name for path in shop.folder.glob("out*")} == {"out"}


def test_titles_go_along_short_and_as_valid_text(shop):
    def titles() -> dict[str, str]:
        z = arrays_of(shop.out)
        parts = [zip(z[f"{p}_ids"].tolist(), z[f"{p}_titles"].tolist(), strict=True) for p in ("train", "test")]
        return {id_: title for part in parts for id_, title in part}

    given = ["Blå tröja", "two\nlines  here", "x" * 100, ""]
    shop.run(xml(*(product(k, title=title) for k, title in enumerate(given))))
    assert [titles()[f"{PAGE}{k}"] for k in range(4)] == ["Blå tröja", "two lines here", "x" * 80, ""]
    shop.run("id,label,image,title\n0,hat,0.jpg,Bl\xe5 tr\xf6ja\n".encode("latin-1"))
    assert titles() == {"0": "Bl? tr?ja"}
    shop.run("id,label,image\n0,hat,0.jpg\n")
    assert "train_titles" not in arrays_of(shop.out)


def test_the_name_of_a_file_is_its_products_label(shop):
    """Files of one name in several folders are several labels; a column "name" is the product's here."""
    files = ("men/shoes", "women/shoes", "men/hats")
    paths = [shop.put(f"feeds/{name}.csv", f"id;name;image\n{k};Thing;{k}.jpg\n") for k, name in enumerate(files)]
    asked = FeedRules(columns={"label": "@file"}, delimiter=";")
    feeds = shop.folder / "feeds"
    for where in ([feeds], [feeds / "men", feeds / "women"], paths, [paths[0], feeds]):
        manifest = shop.run(where, rules=asked)
        assert shop.labels() == {"0": "shoes (men/shoes)", "1": "shoes (women/shoes)", "2": "hats"}
        assert {each["file"] for each in manifest["source"]["feeds"]} == {f"{name}.csv" for name in files}


def test_every_dropped_product_is_listed_with_where_it_stands_and_why(shop):
    """One file of each reason a step has; what the draw left is not dropped. The list is as long as the counts say."""
    rows = ["a,hat,0.jpg", "b,hat,gone.jpg", "b,hat,1.jpg", "c,hat,2.jpg", "=d,,r\xf6d.jpg", "e,hat,4.jpg",
            "f,cap,5.jpg", "g,hat,6.jpg"]  # fmt: skip
    contents = {"a.csv": "\n".join(["id,label,image", *rows]), "b.csv": "id,label,image\nx\nh,hat,7.jpg"}
    files = [shop.put(*each) for each in contents.items()]
    decisions = shop.put("decided.csv", "id,decision,label,suggested_label\nc,unsure,hat,cap\n")
    asked = {"min_images": 2, "unsure": "drop"}
    manifest = shop.run(files, rules=FeedRules(**asked), decisions=decisions)
    before = shop.listed()
    assert before == [
        ("a.csv", "2", "b", "gone.jpg", "image", "image file missing"),
        ("a.csv", "3", "b", "1.jpg", "product", "duplicate id"),
        ("a.csv", "4", "c", "2.jpg", "decision", "marked unsure"),
        ("a.csv", "5", "'=d", "r\xf6d.jpg", "product", "no label"),
        ("a.csv", "7", "f", "5.jpg", "subcategory", "fewer than 2 usable images"),
        ("b.csv", "1", "", "", "product", "fewer columns than the header"),
    ]
    assert dropped(manifest) == Counter(f"{step}: {why}" for *_, step, why in before)
    with pytest.raises(ValueError, match=r"none of 10 .*; every dropped product is listed in .*out\.failed\.csv"):
        shop.run(files, rules=FeedRules(min_images=99))
    assert len(shop.listed("out.failed.csv")) == 10
    assert shop.listed() == before  # of the dataset that is still there
    manifest = shop.run(files, rules=FeedRules(per_class=2, **asked), decisions=decisions)
    assert dropped(manifest)["draw: not drawn"] >= 2
    assert "draw" not in {step for *_, step, _ in shop.listed()}
    assert not (shop.folder / "out.failed.csv").exists()
    shop.run("id,label,image\na,hat,0.jpg\n")
    assert not (shop.out / "dropped.csv").exists()


def test_names_of_files_are_neither_formulas_nor_commands_to_a_terminal(shop, caplog):
    names = ["=cmd|'calc'!A1.csv", "\x1b[2J\x1b]0;owned\x07.csv"]
    files = [shop.put(name, f"id,label,image\n{len(name)},hat,0.jpg\nb,,1.jpg\n") for name in names]
    manifest = shop.run([*files, shop.put("\x1b[31mbad.csv", "nothing")])
    assert {row[0] for row in shop.listed()} == {"'" + names[0], names[1]}
    assert "\x1b" not in summary(manifest) + caplog.text
    assert "\\x1b[31mbad.csv: no column" in summary(manifest)


def test_what_all_files_lack_is_said_once(shop, caplog):
    files = [shop.put(f"{k}.csv", "sku,label,image\n1,hat,0.jpg\n") for k in range(3)]
    told = "no column id; it has sku, label, image"
    manifest = shop.run([*files, shop.put("good.csv", "id,label,image\n1,hat,0.jpg\n")])
    assert [told in message for message in caplog.messages] == [True]
    assert f"file refused: 0.csv and 2 more: {told}" in summary(manifest)


KINDS = ["Clothing > Hats", "Sale, Clothing > Hats", "Clothing > Bags, Sale", "Clothing > Bags", "Shoes, boots"]
LISTS = "id,label,image\n" + "".join(f'{k},"{KINDS[k % 5]}",{k}.jpg\n' for k in range(10))
SMALL = "".join(f"{k},{label},{k}.jpg\n" for k, label in enumerate(["Hat"] * 4 + ["Bag"] * 3 + ["Sock"] * 2 + ["Tie"]))
TOLD = {  # feed, rules, what the counts have, what the summary says
    "a label column that holds lists": (
        LISTS, {}, {"label_lists": ["Clothing > Bags, Sale", "Sale, Clothing > Hats"]},
        "lists of categories, such as 'Clothing > Bags, Sale'; --rules.categories deepest",
    ),
    "a label to leave out that none has": (
        LISTS, {"categories": "deepest", "drop_labels": ("Clothing > Hat",)},
        {"label_lists": [], "not_left_out": {"Clothing > Hat": ["Clothing > Hats", "Clothing > Bags", "Shoes"]}},
        "no product has the label Clothing > Hat that is left out; there are Clothing > Hats, Clothing > Bags, Shoes",
    ),
    "labels that differ in case": (
        "id,label,image\n" + CASES, {}, {"differ_in_case": [["DRESS", "Dress", "dress"]]},
        "differ in case alone: DRESS, Dress, dress; --rules.merge-case",
    ),
    "none, where they are merged": ("id,label,image\n" + CASES, {"merge_case": True}, {"differ_in_case": []}, ""),
    "subcategories that are dropped": (
        "id,label,image\n" + SMALL.replace("8.jpg", "none.jpg"), {"min_images": 3},
        {"small_subcategories": {"count": 2, "named": [["Sock", 1], ["Tie", 1]]}},
        "subcategories dropped, with their usable images: Sock (1), Tie (1)",
    ),
    "a feed in another encoding": (
        "id,label,image,title\n0,Bad,0.jpg,Stück\n1,Küche,1.jpg,x\n2,Bad,2.jpg,y".encode("cp1252"), {},
        {"dropped": {"product": {"wrong encoding": 1}}, "kept": 2},
        "1 dropped, wrong encoding (--rules.encoding cp1252 or latin-1, if a CSV is in that",
    ),
    "which is read in that": (
        "id,label,image\n1,Küche,1.jpg".encode("cp1252"), {"encoding": "cp1252"}, {"kept": 1}, "in 1 subcategories",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("feed", "asked", "counts", "line"), TOLD.values(), ids=TOLD)
def test_what_a_person_is_told(feed, asked, counts, line, shop, caplog):
    manifest = shop.run(feed, rules=FeedRules(**asked))
    assert {name: manifest["counts"][name] for name in counts} == counts
    assert line in summary(manifest)
    if "Stück".encode("cp1252") in (feed if isinstance(feed, bytes) else b""):
        assert "feed.csv: 1 titles are not in the encoding read, and hold question marks; mend with" in caplog.text


# ------------------------------------------------------------------------------------------------ decisions


ELSEWHERE = "for a product filed elsewhere since"


def reviewed(shop, name: str, *rows: str) -> Path:
    """A decisions file of rows "number of the product,decision,label,suggested label"."""
    head = ["id", "decision", "label", "suggested_label", "reviewer", "time"][: rows[0].count(",") + 1 if rows else 4]
    return shop.put(name, "\n".join([",".join(head), *(f"{PAGE}{row}" for row in rows)]))


def test_decisions_of_a_person_are_applied(shop):
    decisions = reviewed(
        shop, "d.csv", "0,confirm,kind 0,kind 1", "1,keep,kind 1,kind 0", "2,unsure,kind 0,kind 1",
        "3,confirm,kind 1,no such kind", "4,perhaps,kind 0,kind 1", "5,Confirm ,kind 1,10",
        "nobody,confirm,kind 0,kind 1", "6,confirm,kind 1,kind 0", "7,keep,kind 9,kind 0",
    )  # fmt: skip
    manifest = shop.run(good(8), decisions=decisions)
    assert shop.labels() == {str(k): f"kind {k % 2}" for k in range(8)} | {"0": "kind 1", "5": "kind 0"}
    examples = {
        "with an unknown suggested label": [f"d.csv, line 5: {PAGE}3, no such kind; there are kind 1, kind 0"],
        "not understood (neither confirm, keep nor unsure)": [f"d.csv, line 6: {PAGE}4, perhaps"],
        "for an unknown id": [f"d.csv, line 8: {PAGE}nobody, confirm"],
        ELSEWHERE: [f"d.csv, line 9: {PAGE}6, kind 1", f"d.csv, line 10: {PAGE}7, kind 9"],
    }
    assert manifest["counts"]["examples"] == examples
    done = {"confirmed, relabelled": 2, "kept as labelled": 1, "unsure, kept": 1}
    assert manifest["decisions"] == done | {why: len(rows) for why, rows in examples.items()}
    assert f"1 for an unknown id\n    d.csv, line 8: {PAGE}nobody, confirm\n" in summary(manifest)
    manifest = shop.run(good(8), decisions=decisions, rules=FeedRules(unsure="drop"))
    assert "2" not in shop.labels()
    assert dropped(manifest) == {"decision: marked unsure": 1}
    unknown = reviewed(shop, "d.csv", *(f"none{k},keep,kind 0,kind 1" for k in range(9)))
    manifest = shop.run(good(8), decisions=unknown)
    assert manifest["decisions"] == {"for an unknown id": 9}
    assert len(manifest["counts"]["examples"]["for an unknown id"]) == 5


KEYS = [("Hats", "Shoes"), ("2", "Hats"), ("3", "Coats")]  # key "Hats" is called "Shoes", key "2" is called "Hats"
SHIRTS = [("0", "Shirts"), ("1", "Shirts")]
THREE = [(f"{k}", f"kind {k}") for k in range(3)]
REVIEWS = {  # keys and names of the subcategories, rows of each review, labels after it, an outcome and how often
    "a second review adds to the first": (
        THREE[:2], [["0,confirm,kind 0,kind 1", "2,confirm,kind 0,kind 1", "4,unsure,kind 0,kind 1"],
                    ["2,confirm,kind 1,kind 0", "4,confirm,kind 0,kind 1"]],
        {"0": "kind 1", "2": "kind 0", "4": "kind 1"}, "for a product that an earlier one dropped", 0,
    ),
    "the second page was made before the first was applied": (
        THREE, [["0,confirm,kind 0,kind 1,Anna"], ["0,keep,kind 0,kind 1,Anna"]], {"0": "kind 0"}, ELSEWHERE, 0,
    ),
    "and after it": (THREE, [["0,confirm,kind 0,kind 1"], ["0,keep,kind 1,kind 0"]], {"0": "kind 1"}, ELSEWHERE, 0),
    "confirmed twice": (
        THREE, [["0,confirm,kind 0,kind 1,Anna"], ["0,confirm,kind 0,kind 2,Anna"]], {"0": "kind 2"}, ELSEWHERE, 0,
    ),
    "files without names are of a reviewer each": (
        THREE, [["0,confirm,kind 0,kind 1"], ["0,confirm,kind 0,kind 2"]], {"0": "kind 0"},
        "on which reviewers disagree, left as filed", 2,
    ),
    "confirmed on": (THREE, [["0,confirm,kind 0,kind 1"], ["0,confirm,kind 1,kind 2"]], {"0": "kind 2"}, ELSEWHERE, 0),
    "two disagree": (
        THREE, [["0,confirm,kind 0,kind 1,Anna"], ["0,confirm,kind 0,kind 2,Ben", "3,confirm,kind 0,kind 1,Ben"]],
        {"0": "kind 0", "3": "kind 1"}, "on which reviewers disagree, left as filed", 2,
    ),
    "two disagree and settle it": (
        THREE, [["0,confirm,kind 0,kind 2,together"], ["0,confirm,kind 0,kind 1,Anna"], ["0,keep,kind 0,x,Ben"]],
        {"0": "kind 2"}, "confirmed, relabelled", 2,
    ),
    "two reviews one after the other": (
        THREE, [["0,confirm,kind 0,kind 1,Anna"], ["0,confirm,kind 1,kind 2,Ben"]], {"0": "kind 2"}, ELSEWHERE, 0,
    ),
    "in another spelling": (THREE, [["0,confirm,Kind  0,KIND 1"]], {"0": "kind 1"}, "confirmed, relabelled", 1),
    "it never was there": (
        THREE, [["0,confirm,kind 0,kind 1"], ["0,keep,kind 2,kind 1"]], {"0": "kind 1"}, ELSEWHERE, 1,
    ),
    "subcategories of one name are named as the page does": (
        SHIRTS, [["0,confirm,Shirts (0),Shirts (1)", "2,confirm,Shirts (0),Shirts"]],
        {"0": "Shirts (1)", "2": "Shirts (0)"}, "with an unknown suggested label", 1,
    ),
    "a key does not shadow the name of another one": (
        KEYS, [["2,confirm,Coats,Hats", "5,confirm,Coats,2", "0,keep,Shoes,x"]],
        {"2": "Hats", "5": "Hats", "0": "Shoes"}, "confirmed, relabelled", 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kinds", "reviews", "labels", "outcome", "times"), REVIEWS.values(), ids=REVIEWS)
def test_which_label_a_decision_means(kinds, reviews, labels, outcome, times, shop):
    named = [kinds[k % len(kinds)] for k in range(9)]
    feed = xml(*(product(k, catid=catid, category=name) for k, (catid, name) in enumerate(named)))
    decisions = [reviewed(shop, f"{k}.csv", *rows) for k, rows in enumerate(reviews)]
    manifest = shop.run(feed, decisions=decisions)
    assert {id_: shop.labels()[id_] for id_ in labels} == labels
    assert manifest["decisions"].get(outcome, 0) == times


def test_a_label_that_is_none_is_answered_in_the_spelling_of_the_feed(shop):
    feed = xml(*(product(k, catid=str(k % 2), category=f"Kind {k % 2}") for k in range(6)))
    manifest = shop.run(feed, decisions=reviewed(shop, "d.csv", "0,confirm,Kind 0,Kinds 1"))
    (said,) = manifest["counts"]["examples"]["with an unknown suggested label"]
    assert said.endswith("Kinds 1; there are Kind 1, Kind 0")


def test_what_the_shop_filed_is_kept_where_a_decision_has_changed_it(shop):
    feed = xml(*(product(k, catid=str(k % 2), category=f"kind {k % 2}") for k in range(6)))
    assert "train_filed" not in arrays_of(shop.run(feed) and shop.out)
    shop.run(feed, decisions=reviewed(shop, "d.csv", "0,confirm,kind 0,kind 1"))
    z = arrays_of(shop.out)
    filed = dict(zip([*z["train_ids"], *z["test_ids"]], [*z["train_filed"], *z["test_filed"]], strict=True))
    assert {id_.removeprefix(PAGE): str(name) for id_, name in filed.items()} == {
        str(k): f"kind {k % 2}" for k in range(6)
    }
    assert shop.labels()["0"] == "kind 1"


def test_a_product_that_one_review_dropped_is_gone_for_the_next(shop):
    reviews = [reviewed(shop, f"{word}.csv", f"4,{word},kind 0,kind 1") for word in ("unsure", "confirm")]
    manifest = shop.run(good(6), decisions=reviews, rules=FeedRules(unsure="drop"))
    assert manifest["decisions"] == {"unsure, dropped": 1, "for a product that an earlier one dropped": 1}
    assert "4" not in shop.labels()


NAMES = "id,decision,label,suggested_label\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "first line is '', without id, decision, label, suggested_label"),
        ("id,decision,suggested_label\n", "without label; expected id,decision,label,suggested_label"),
        (NAMES + "a,keep,x\n", "line 2: 3 columns"),
        (NAMES + '"a\nb",keep,x,y\nc,keep,x,y,z\n', "line 4: 5 columns"),
        (NAMES + "a,keep,x,y\n\na,keep,x,y\n", "line 4: id 'a' was decided in line 2"),
        (NAMES + '"a,keep,x,y\n', "line 2: not valid CSV"),
        ('id;decision;label;suggested_label\na;keep;x;"y\nb;keep;x;"y"\nc;keep;x;y\n', "line 2: not valid CSV"),
        (NAMES + f"{'x' * 200_000},keep,,\n", "line 2: not valid CSV .field larger"),
        ((NAMES + "å,keep,x,y\n").encode("latin-1"), "not UTF-8 text; save it as CSV UTF-8"),
        ((NAMES + "å,keep,x,y\n").encode("utf-16"), "not UTF-8 text; save it as CSV UTF-8"),
    ],
)
def test_decisions_that_are_not_sound_are_named_by_file_and_line(content, message, shop):
    path = shop.put("d.csv", content)
    for reads in (read_decisions, lambda path: shop.run(good(1), decisions=path)):
        with refused(ValueError, str(path), match=message):
            reads(path)


def test_what_a_person_decided_on_is_drawn_first(shop):
    feed = "id,label,image\n" + "".join(f"{k},{'hat' if k % 2 else 'shoe'},{k % 10}.jpg\n" for k in range(60))
    rows = "".join(f"{k},confirm,hat,shoe\n{k + 1},keep,shoe,shoe\n" for k in range(31, 41, 2))
    shop.run(feed, rules=FeedRules(per_class=10), decisions=shop.put("d.csv", NAMES + rows))
    shoes = {id_ for id_, label in shop.labels().items() if label == "shoe"}
    assert shoes == {str(k) for k in range(31, 41)}
    assert len(shop.labels()) == 20


def test_ids_that_a_spreadsheet_robbed_of_their_zeros_are_understood(shop, caplog):
    """Excel saves 00003 as 3."""
    assert without_zeros(["007", "07", "0012", "12", "00", "0x1", "5"]) == {"0": "00"}
    assert without_zeros(["00048", "5"]) == {"48": "00048"}
    feed = "id,label,image\n" + "".join(f"{k:05},{'hat' if k % 2 else 'shoe'},{k}.jpg\n" for k in range(8))
    manifest = shop.run(feed, decisions=shop.put("d.csv", NAMES + "3,confirm,hat,shoe\n4,keep,shoe,hat\n"))
    assert shop.labels()["00003"] == "shoe"
    assert manifest["decisions"] == {"confirmed, relabelled": 1, "kept as labelled": 1}
    anna, ben = (shop.put(f"{who}.csv", NAMES + f"{id_},{rest}\n") for who, id_, rest in (
        ("anna", "00003", "confirm,hat,shoe"), ("ben", "3", "keep,hat,shoe")))  # fmt: skip
    assert shop.run(feed, decisions=[anna, ben])["decisions"] == {"on which reviewers disagree, left as filed": 2}
    assert shop.labels()["00003"] == "hat"
    assert "none of the decisions" not in caplog.text
    shop.run(feed, decisions=shop.put("d.csv", NAMES + "31,confirm,hat,shoe\n"))
    assert "none of the decisions on 1 products fits a product of this feed" in caplog.text
