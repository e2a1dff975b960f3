"""The page that a person goes through, in a browser: what it shows, keeps, saves and reads."""

import csv
import datetime
import functools
import http.server
import io
import re
import threading
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.optimize import minimize
from shops import data_of

from elrkit.catalogue import review
from elrkit.catalogue.decisions import in_order, read_decisions
from elrkit.catalogue.feed_files import DECISION_COLUMNS
from elrkit.catalogue.rules import as_it_was, as_text

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'">'
TOPS = "Apparel & Accessories > Clothing > Shirts & Tops"
CLASSES = ("cat", "dog", "bird", "cat, wild", 'the "cat"', f"{TOPS} > Polos", f"{TOPS} > T-Shirts", "Outlet > Pólos")


IN_PATHS = {"label": {"cat": CLASSES[5], "dog": CLASSES[7]}}  # of `review_table`, to be replaced


def review_table(n=12):
    """Products of three kinds of mistake in turn; the page has the alike ones together: 0, 3, 6 ..., 1, 4 ..."""
    pairs = [("cat", "dog"), ("dog", "cat, wild"), ("bird", 'the "cat"')]
    rows = [(f"p{i}", *pairs[i % 3], "looks like it", f"Product {i}") for i in range(n)]
    table = pd.DataFrame(rows, columns=["id", "label", "suggested_label", "reason", "title"])
    table["confidence"] = np.linspace(1, 0.5, n)
    table.loc[1, ["id", "title"]] = [HOSTILE, HOSTILE]
    table.loc[2, "id"] = "__proto__"
    table.loc[3, "id"] = 'comma, "quote"\nand line'
    return table


def pictures(ids, side):
    return {id_: np.full((side // 10, side // 20, 3), sum(id_.encode()) % 251, np.uint8) for id_ in ids}


def written(table, folder, pictures=pictures, dataset="shops/Hüte & Co", classes=CLASSES, **options):
    return review.review_page(table, folder, pictures, dataset=dataset, classes=classes, **options)


def test_titles_are_data_and_photos_are_files_each_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(review, "IN_MEMORY", 3 * 900 * 900 * 5)
    asked = []
    shades = {"p0": 10, "p4": 10, "p5": 20, "t1": 30, "t2": 40}

    def some(ids, side):
        asked.append((side, len(ids)))
        return {id_: np.full((side // 30, side // 20, 3), shades[id_], np.uint8) for id_ in ids if id_ in shades}

    typical = {"cat": ["t1", "gone", "t2", "t3"], "no such class": ["t1"]}
    (tmp_path / "photos").mkdir()
    for name in ("0" * 32 + ".webp", "mine.webp"):
        (tmp_path / "photos" / name).write_text("of an earlier page, or of somebody")
    page = written(review_table(), tmp_path, some, typical=typical)
    assert asked == [(900, 5), (900, 5), (900, 2), (160, 3)]
    data, text = data_of(page), page.read_text()
    photos = {item[0]: item[-1] for item in data["items"]}
    assert photos["p0"] == photos["p4"] != photos["p5"]
    assert photos["p6"] == ""
    assert [len(names) for names in data["typical"].values()] == [2]
    shown = {photos["p0"], photos["p5"], *data["typical"][str(data["classes"].index("cat"))]}
    assert {path.stem for path in (tmp_path / "photos").iterdir()} == {*shown, "mine"}
    with Image.open(tmp_path / "photos" / f"{photos['p5']}.webp") as image:
        assert image.size == (45, 30)
    assert text.count("<script") == text.count("</script>") == 2
    assert re.findall(r"https?://", text.replace("^https?:\\/\\/", "")) == []


# In a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def context(browser):
    context = browser.new_context(accept_downloads=True, viewport={"width": 1100, "height": 900})
    context.set_default_timeout(60_000)
    yield context
    context.close()


@pytest.fixture
def open_page(context, tmp_path):
    """Opens the page of a table; fails the test on any script error, refused resource or request to elsewhere."""
    troubles = []

    def open_(table, name="list", **options):
        path = written(table, tmp_path / name, **options)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        own = ("data:", "blob:", path.parent.as_uri())
        page.on("request", lambda request: request.url.startswith(own) or troubles.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_
    assert troubles == []


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)
    return page


def typed(page, text):
    press(page, "m", *text, "Enter")


def saved(page, path):
    with page.expect_download() as download:
        page.keyboard.press("s")
    download.value.save_as(path)
    return read_decisions(path)


def load(page, path, *said):
    page.set_input_files("#file", path)
    page.wait_for_selector(f"#message:has-text('{path.name}')")
    for each in said:
        assert each in page.inner_text("#message")


def counts(page):
    """[decided, confirmed, kept, unsure, not yet saved]"""
    found = re.findall(r"\d+", re.sub(r"of [\d,]+ ", "", page.inner_text("#counts")) + page.inner_text("#unsaved"))
    return [*map(int, found), 0][:5]


def test_a_person_goes_through_the_list_by_keyboard(open_page, tmp_path):
    page = open_page(review_table())
    page.fill("#reviewer", "Änne")
    assert counts(press(page, "Enter", "c", "k", "u", "k")) == [4, 1, 2, 1, 4]
    assert page.inner_text("#place") == "Product 5 of 12, 1 of 4 alike"
    assert page.get_attribute("#message", "aria-live") == "polite"
    assert page.inner_text("#message").startswith("Kept: Product 9, stays in cat. Now </script>")
    press(page, "z", "ArrowLeft")
    assert page.inner_text("#title") == "Product 6"
    assert page.inner_text("#state") == "Unsure: cannot tell"
    press(page, "c", "n", "k")  # a second thought
    for _ in range(5):
        page.keyboard.down("c")  # held down, it decides once
    page.keyboard.up("c")
    start = datetime.datetime.now(datetime.UTC)
    kept = saved(page, tmp_path / "d.csv")
    expected = zip([0, 3, 6, 1, 4], ["confirm", "keep", "confirm", "keep", "confirm"], strict=True)
    rows = review_table()[["id", "label", "suggested_label"]].values.tolist()
    assert kept[DECISION_COLUMNS].values.tolist() == [[rows[k][0], word, *rows[k][1:]] for k, word in expected]
    assert kept["reviewer"].tolist() == ["Änne"] * 5
    assert all(abs(datetime.datetime.fromisoformat(each) - start).total_seconds() < 300 for each in kept["time"])
    assert page.title() == "Labels to look at"  # the hostile title did not run
    page.click("[data-decision=keep]")
    page.uncheck("#keys")
    press(page, "c", "ArrowLeft")
    assert page.locator("#undo kbd").count() == 1
    assert not page.is_visible("#undo kbd")
    assert counts(press(page, "Control+z")) == [5, 3, 2, 0, 0]


def test_a_wrong_label_moves_to_an_alternative_or_any_category(open_page, tmp_path):
    polos, shirts = CLASSES[5:7]
    more = dict(alternative_2="bird", alternative_3=polos, chance_1=0.7, chance_2=0.25, chance_3=0.004)
    table = review_table().assign(**more)
    table.loc[11, ["alternative_2", "alternative_3", "chance_2", "chance_3"]] = "", "", np.nan, np.nan
    page = open_page(table, typical={"dog": ["t1", "t2", "t3"], polos: ["t4"]})
    texts = [page.inner_text(f".others [data-rank='{k}']").split("\n") for k in (2, 3)]
    assert texts == [["2", "bird, 25 %"], ["3", "Polos, under 1 %", TOPS]]
    assert page.inner_text("[data-decision=confirm] small") == "move to dog, 70 %"
    assert page.locator("#suggested img").count() == 3
    page.hover("[data-rank='3']")
    assert page.inner_text("#shown-as") == "Alternative 3, under 1 %"
    assert page.inner_text("#suggested .last") == "Polos"
    assert page.inner_text("#suggested .path") == TOPS
    assert page.locator("#suggested img").count() == 1
    page.hover("h1")
    assert page.inner_text("#suggested .last") == "dog"
    press(page, "1", "2", "3")
    press(page, "m", *"polos")
    found = page.locator("#found [role=option]")
    assert found.all_inner_texts() == [f"Polos\n{TOPS}", "Pólos\nOutlet"]
    press(page, "ArrowDown", "ArrowDown", "ArrowUp")
    assert page.get_attribute("#other", "aria-activedescendant") == "found-1"
    assert page.inner_text("#suggested .path") == "Outlet"
    press(page, "Escape", "/")
    press(page, *"tops shi")
    assert found.all_inner_texts()[0] == f"T-Shirts\n{TOPS}"
    press(page, "Enter")
    typed(page, "horse")
    assert page.inner_text("#message") == 'No category has "horse" in its name.'
    press(page, "Escape")
    typed(page, "cat, w")  # what is suggested
    typed(page, "dog")  # where it stands
    kept = saved(page, tmp_path / "d.csv")
    assert kept["decision"].tolist() == ["confirm"] * 5 + ["keep"]
    assert kept["suggested_label"].tolist() == ["dog", "bird", polos, shirts, "cat, wild", "cat, wild"]
    told = [page.evaluate("name => among('Shop > Men > Hats', [name])", f"{to} > Hats") for to in ("A > B", "A > Men")]
    assert told == ["Men > Hats", "Shop > Men > Hats"]
    page.evaluate("go(11)")
    assert not page.is_visible("[data-rank='2']")
    press(page, "2")
    assert page.inner_text("#message") == "There is no alternative 2."
    page.reload()
    assert counts(page) == [6, 5, 1, 0, 0]


def test_alike_products_are_decided_at_once(open_page):
    page = open_page(review_table(200), name="many")
    press(page, "k", "g")
    assert page.inner_text("#alike-name") == "cat → dog: 60 of 66"
    press(page, "ArrowRight", "Space", "ArrowDown", "ArrowUp", "ArrowRight")
    assert page.inner_text("#ticked") == "59 of 60 ticked"
    assert page.evaluate("boxes().indexOf(document.activeElement)") == 2
    assert counts(press(page, "f", "Escape", "c")) == [60, 59, 1, 0, 60]  # after a look at one in full
    assert page.inner_text("#alike-name") == "cat → dog: 6"  # those that were not shown yet
    press(page, "a", "a", "c")
    assert not page.is_visible("#alike")
    assert page.inner_text("#title") == "Product 6"  # the one that was left out
    assert counts(press(page, "z")) == [60, 59, 1, 0, 60]
    assert counts(press(page, "z")) == [1, 0, 1, 0, 1]
    pairs = press(page, "l").locator("#pairs button")
    open_ = ["dog → cat, wild: 67 open of 67", "cat → dog: 66 open of 67", 'bird → the "cat": 66 open of 66']
    assert pairs.all_inner_texts() == open_
    pairs.nth(2).click()
    assert counts(press(page, "u", "Escape")) == [61, 0, 1, 60, 61]
    page.select_option("#order", "list")
    page.evaluate("go(4)")
    press(page, "ArrowRight")
    assert page.inner_text("#title") == "Product 5"


def test_a_main_category_is_browsed_alone(open_page):
    assert not open_page(review_table()).is_visible("#main")
    page = open_page(review_table().replace(IN_PATHS), "paths")
    options = page.locator("#main option")
    press(page, "c").focus("#main")
    press(page, "ArrowDown", "ArrowDown")
    assert page.inner_text("#place") == "Product 1 of 4 in Outlet, 1 of 4 alike"
    press(page, "ArrowLeft")
    assert page.inner_text("#message") == "This is the first product in Outlet."
    assert counts(press(page, "ArrowRight", *"kkk")) == [4, 1, 3, 0, 4]
    told = ["all: 4 of 12 decided", "Apparel & Accessories: 1 of 4 decided", "Outlet: 3 of 4 decided"]
    assert options.all_inner_texts() == told
    press(page, "k")
    assert page.inner_text("#message").endswith("All products in Outlet are decided: save the decisions.")
    assert press(page, "l").locator("#pairs button").all_inner_texts() == ["Pólos → cat, wild: 4, all decided"]
    press(page, "Escape", *"zzzz")
    assert page.input_value("#main") == "Outlet"
    press(page, "z")
    assert page.input_value("#main") == ""
    assert page.inner_text("#place") == "Product 1 of 12, 1 of 4 alike"
    page.select_option("#main", "Outlet")
    page.reload()
    assert page.input_value("#main") == ""


def test_decisions_stay_with_the_dataset_and_two_tabs_erase_none(open_page, tmp_path):
    table = review_table()
    one = open_page(table)
    press(one, "c", "k", "c")
    again = table[::-1].assign(confidence=0.6).iloc[4:]  # written again: other scores, another order, fewer products
    two = open_page(again, "again")
    assert "3 decisions of an earlier visit are back" in two.inner_text("#message")
    assert counts(two) == [3, 2, 1, 0, 3]
    two.evaluate("go(items.findIndex(item => item.id === 'p0'))")
    press(two, "u")
    one.wait_for_selector("#counts:has-text('1 unsure')")
    press(one, "k")  # p9, which the other page has not
    press(two, "k")
    one.wait_for_selector("#counts:has-text('5 of 12')")
    press(one, "z", "z", "z", "z")
    assert "1 stay, as they were changed in another tab" in one.inner_text("#message")
    assert counts(one) == [2, 0, 1, 1, 2]
    press(one, "c")
    assert saved(two, tmp_path / "d.csv")["decision"].tolist() == ["keep", "confirm"]  # the newest word on p0
    elsewhere = table.assign(label=["bird", *table["label"][1:]])  # p0 is filed elsewhere since
    assert counts(open_page(elsewhere, "moved"))[0] == 1
    assert counts(open_page(table, "other", dataset="another shop"))[0] == 0


def test_files_are_named_for_shop_and_day_and_are_loaded_back(open_page, tmp_path):
    page = open_page(review_table())
    press(page, "c", "k", "u", "k")
    names = []
    page.on("download", lambda download: names.append(download.suggested_filename))
    kept = saved(page, tmp_path / "d.csv")
    assert page.inner_text("#unsaved") == "All are saved."
    press(page, "k")
    assert page.inner_text("#unsaved") == "1 not yet saved."
    saved(page, tmp_path / "second.csv")
    day = datetime.date.today().isoformat()
    assert names[0] == f"Hüte-Co-decisions-{day}.csv"
    assert re.fullmatch(rf"Hüte-Co-decisions-{day}-\d{{6}}\.csv", names[1])
    page.evaluate("localStorage.clear()")
    page.reload()
    press(page, "u")  # newer than the file
    load(page, tmp_path / "d.csv", "3 decisions loaded", "1 are here as they are there, or newer")
    assert counts(page) == [4, 0, 2, 2, 1]
    assert counts(press(page, "z")) == [1, 0, 0, 1, 1]
    press(page, "z")
    # What a spreadsheet makes of it; and a file of an earlier page, which is as old as it is.
    excel = pd.read_csv(tmp_path / "d.csv", dtype=str)[["time", *DECISION_COLUMNS, "reviewer"]]
    excel = excel.assign(time="29.11.26 10:00", decision=excel["decision"].str.upper())
    excel.to_csv(tmp_path / "excel.csv", sep=";", index=False, encoding="utf-8-sig")
    load(page, tmp_path / "excel.csv", "4 decisions loaded")
    again = saved(page, tmp_path / "third.csv")
    assert sorted(again[DECISION_COLUMNS].values.tolist()) == sorted(kept[DECISION_COLUMNS].values.tolist())
    rows = [["p4", "confirm", "dog", "horse"], ["gone", "keep", "cat", "dog"], ["p1", "keep", "cat", "dog"]]
    rows += [["p7", "keep", "bird", "horse"], ["p5", "keep", "bird", "cat"]]  # filed elsewhere; kept against another
    pd.DataFrame(rows, columns=DECISION_COLUMNS).to_csv(tmp_path / "old.csv", index=False)
    load(page, tmp_path / "old.csv", "3 decisions loaded", "2 of its products are not on this list",
         "2 rows left out: filed elsewhere by now, or of a category that is not there")  # fmt: skip
    assert counts(page) == [5, 1, 3, 1, 0]
    assert "gone" in saved(page, tmp_path / "all.csv")["id"].tolist()


HEAD = b"id,decision,label,suggested_label\n"
BAD_FILES = [
    (b"id;decision\n", "the first line must have id,decision,label,suggested_label"),
    (b"", "the first line must have"),
    (HEAD + b"p0,perhaps,cat,dog\n", 'line 2: decision "perhaps"'),
    (HEAD + b"\np0,keep\n", "line 3: 2 columns"),
    (HEAD + b"p0,keep,cat,dog\np0,confirm,cat,dog\n", "line 3: p0 is there twice"),
    (HEAD + b'"p0,keep,cat,dog\n', "line 2: a quote that is never closed"),
    (HEAD + b'"p0"x,keep,cat,dog\n', "line 2: text after a closing quote"),
    (HEAD + b"\xe5,keep,cat,dog\n", "it is not UTF-8 text"),
]


def test_a_bad_file_changes_nothing(open_page, tmp_path):
    page = open_page(review_table())
    for number, (content, message) in enumerate(BAD_FILES):
        path = tmp_path / f"bad{number}.csv"
        path.write_bytes(content)
        press(page, "c")
        load(page, path, "was not loaded", message, "Nothing has changed")
        assert counts(page)[:2] == [number + 1, number + 1]


def test_a_saved_decision_that_is_undone_is_taken_back_by_the_next_file(open_page, tmp_path):
    page = press(open_page(review_table()), "c")
    assert saved(page, tmp_path / "a.csv")["decision"].tolist() == ["confirm"]
    assert counts(page)[4] == 0
    press(page, "z")
    assert counts(page) == [0, 0, 0, 0, 1]
    again = saved(page, tmp_path / "b.csv")
    assert again[["id", "decision"]].values.tolist() == [["p0", "unsure"]]
    assert counts(page)[4] == 0
    assert again["reviewer"].tolist() == read_decisions(tmp_path / "a.csv")["reviewer"].tolist()
    later = in_order([tmp_path / "b.csv", tmp_path / "a.csv"])
    assert later["decision"].tolist() == ["confirm", "unsure"]


def test_another_ones_file_says_what_of_mine_it_replaces(open_page, tmp_path):
    page = press(open_page(review_table()), "k", "k")
    (tmp_path / "ben.csv").write_text(
        "id,decision,label,suggested_label,reviewer,time\np0,confirm,cat,dog,Ben,2100-01-01T00:00:00Z\n"
    )
    load(page, tmp_path / "ben.csv", "1 decisions loaded", "1 of them take the place of other ones here")
    press(page, "z")
    assert counts(page)[:3] == [2, 0, 2]


def test_ids_without_their_zeros_and_empty_cells_are_loaded(open_page, tmp_path):
    page = open_page(review_table().assign(id=lambda table: [f"00{k}" for k in range(len(table))]))
    (tmp_path / "excel.csv").write_text(
        "id;decision;label;suggested_label\n0;keep;cat;dog\n3;confirm;cat;dog\n1;;dog;cat\n"
    )
    load(page, tmp_path / "excel.csv", "2 decisions loaded")
    assert "not on this list" not in page.inner_text("#message")
    assert set(saved(page, tmp_path / "d.csv")["id"]) == {"000", "003"}


def test_no_saved_cell_is_a_formula_and_csv_is_as_in_python(open_page, tmp_path):
    ids = ["=HYPERLINK(1)", "'-47", "-48", "'plain"]
    page = open_page(review_table(4).assign(id=ids))
    page.fill("#reviewer", "@me")
    press(page, "Enter", *"cccc")
    kept = saved(page, tmp_path / "d.csv")
    assert set(kept["id"]) == set(ids)
    assert set(kept["reviewer"]) == {"@me"}
    lines = (tmp_path / "d.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in lines[1:]} == {"'=HYPERLINK(1)", "''-47", "'-48", "'plain"}
    page.evaluate("localStorage.clear()")
    page.reload()
    load(page, tmp_path / "d.csv", "4 decisions loaded")
    assert counts(page)[0] == 4
    rows = [["a", 'say "x"', "b,c", " lead"], ["é", "", "line\nbreak", "cr\r\nlf"], ["=1+1", "\t", "tail ", "ok"]]
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    assert [fields for _, fields in page.evaluate("text => parse(text)", buffer.getvalue())] == rows
    text = page.evaluate("rows => rows.map(row => row.map(quote).join(',') + '\\r\\n').join('')", rows)
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == rows
    cells = ["=1", "\u200b=1", "\uff1d1", "'\ufeff@x", "'=1", "''-1", "a=1", "'a", ""]
    assert page.evaluate("cells => cells.map(asText)", cells) == [*map(as_text, cells)]
    assert page.evaluate("cells => cells.map(asItWas)", cells) == [*map(as_it_was, cells)]


def test_an_id_that_is_an_address_is_a_link(open_page):
    ids = ["https://shop.example/p/1", "HTTP://shop.example/2?a=b&c", "javascript:alert(1)", "https://a b", "p5"]
    page = open_page(review_table(7).assign(id=[*ids, "data:text/html,x", " https://x"]))
    for k, id_ in enumerate(ids):
        page.evaluate(f"go({k})")
        link = page.locator("#name a")
        assert link.count() == (k < 2)
        if k < 2:
            assert link.get_attribute("href") == id_
            assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener noreferrer")
        assert page.evaluate("document.getElementById('name').textContent") == id_


def test_what_is_left_is_foretold_from_what_was_decided(open_page):
    n = 90
    table = review_table(n)
    page = open_page(table)
    page.select_option("#order", "list")
    wrong = np.random.default_rng(0).random(n) < np.linspace(0.9, 0.05, n)
    press(page, *("c" if each else "k" for each in wrong[:29]))
    assert page.inner_text("#forecast") == ""
    press(page, *("c" if each else "k" for each in wrong[29:45]))
    p = np.clip(table["confidence"].round(4), 0.001, 0.999)
    x, y = np.log(p / (1 - p)).to_numpy(), wrong[:45]

    def loss(ab):
        z = ab[0] + ab[1] * x[:45]
        return np.logaddexp(0, z).sum() - z[y].sum() + ab[0] ** 2 / 18 + (ab[1] - 1) ** 2 / 2

    a, b = minimize(loss, [0, 1]).x
    chances = 1 / (1 + np.exp(-a - b * x[45:]))
    looks = np.searchsorted(np.cumsum(chances), chances.sum() / 2) + 1
    foretold = f"about {round(chances.sum())} wrong ones are left in the list; the next {looks} looks find half of them"
    assert page.inner_text("#forecast") == f"Probably {foretold}."
    assert abs(chances.sum() - wrong[45:].sum()) < 8


def test_ten_thousand_products_open_quickly_and_load_few_photos(open_page, context):
    extra = dict(alternative_2="cat, wild", chance_1=0.5)
    table = review_table(10_000).replace(IN_PATHS).assign(**extra)
    path = open_page(table, pictures=lambda ids, side: pictures(ids, 40))
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    start = time.perf_counter()
    page.goto(path.url)
    page.wait_for_selector("#title:has-text('Product 0')")
    assert time.perf_counter() - start < 2
    page.wait_for_timeout(300)
    assert 2 <= sum(url.endswith(".webp") for url in asked) <= 3  # its own and the next ones
    assert page.evaluate("document.querySelectorAll('*').length") < 250
    start = time.perf_counter()
    press(page, *"ck" * 20)
    assert (time.perf_counter() - start) / 40 < 0.25
    page.evaluate("change(items.map(item => record(item, 'keep', item.suggested)))")
    page.reload()
    assert page.inner_text("#counts").startswith("10,000 of 10,000 decided")


def test_a_missing_photo_or_a_browser_that_keeps_nothing_stops_nobody(context, tmp_path):
    shots = {"p0": np.zeros((9, 9, 3), np.uint8), "p6": np.ones((9, 9, 3), np.uint8)}
    path = written(review_table(), tmp_path, lambda ids, side: {id_: shots[id_] for id_ in ids if id_ in shots})
    (tmp_path / "photos" / f"{data_of(path)['items'][0][-1]}.webp").unlink()
    page = context.new_page()
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('blocked'); }})")
    page.goto(path.as_uri())
    for _ in range(2):  # a file that is gone; none at all
        page.wait_for_selector("#zoom span:visible")
        press(page, "c")
    assert page.is_visible("#picture")
    assert page.get_attribute("#picture", "alt") == "Photo of Product 6, filed under cat"
    page.click("#zoom")
    assert page.is_visible("#whole")
    press(page, "f", "u")
    assert page.inner_text("#kept") == "This browser keeps nothing: save before you leave."
    kept = saved(page, tmp_path / "d.csv")
    assert kept["decision"].tolist() == ["confirm", "confirm", "unsure"]
    assert kept["reviewer"].nunique() == 1  # who gives no name is one reviewer all the same
    assert kept["reviewer"].str.fullmatch("nameless [0-9a-z]{4}").all()


def test_the_page_works_from_a_web_server_too(context, tmp_path):
    written(review_table(), tmp_path)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page, troubles = context.new_page(), []
        page.on("console", lambda message: troubles.append(message.text))
        page.goto(f"http://127.0.0.1:{server.server_port}/review.html")
        page.wait_for_load_state("load")
        assert page.evaluate("document.getElementById('picture').decode().then(() => true)")
        server.shutdown()
    assert troubles == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_everybody_can_use_it(browser, scheme, width, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs the package axe-playwright-python")
    more = dict(alternative_2="bird", alternative_3=CLASSES[5], chance_2=0.2)
    path = written(review_table().replace(IN_PATHS).assign(**more), tmp_path, typical={name: ["t"] for name in CLASSES})
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page.goto(path.as_uri())

    def check():
        found = axe.Axe().run(page, options={"preload": False}).response["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    check()
    press(page, "c", "ArrowLeft", "m", "p", "o")
    check()
    for key in "glf":
        press(page, "Escape", key)
        check()
    press(page, "Escape")
    page.close()
