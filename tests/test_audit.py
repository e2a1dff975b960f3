"""The list of labels to look at: scores and figures against cleanlab, scikit-learn and brute force; its page."""

import base64
import csv
import dataclasses
import io
import itertools
import json
import re
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, precision_score, recall_score
from sklearn.model_selection import cross_val_predict

from elrkit.catalogue import review
from elrkit.catalogue import scores as audit
from elrkit.catalogue.feed_files import DECISION_COLUMNS
from elrkit.catalogue.review import read_decisions
from elrkit.catalogue.rules import as_it_was, as_text
from elrkit.data import Dataset


def random_probabilities(n, classes, seed=0, sharpness=4.0):
    """Labels, and probabilities that mostly but not always agree with them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1.5
    p = np.exp(sharpness * logits / 2)
    return p / p.sum(1, keepdims=True), labels


@pytest.fixture(scope="module")
def noisy_digits():
    """Out-of-fold probabilities of the digits with 20 % of the labels redrawn; and which are really wrong."""
    images, clean = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(len(clean)) < 0.2, rng.integers(10, size=len(clean)), clean)
    model = LogisticRegression(C=0.02, max_iter=200, tol=1e-2)
    probabilities = cross_val_predict(model, images / 16, labels, cv=5, method="predict_proba")
    return probabilities, labels, labels != clean


# Scores and lists


def test_scores_by_hand():
    p = [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]
    assert audit.label_scores(p, [0, 1]) == pytest.approx([0.2 / 0.9, 0.6 / 0.9])
    assert audit.label_scores(p, [0, 1], "self_confidence") == pytest.approx([0.3, 0.7])
    assert audit.label_scores(p, [0, 1], "margin") == pytest.approx([(1 - 0.7 + 0.2) / 2, (1 - 0.3 + 0.6) / 2])
    # Class confidences 0.7, 0.3 and, for the class without examples, the mean of the labels' 0.5.
    first, second = np.array([0.7 / 0.7, 0.2 / 0.3, 0.1 / 0.5]), np.array([0.1 / 0.7, 0.3 / 0.3, 0.6 / 0.5])
    expected = [1 - first[0] / first.sum(), 1 - second[1] / second.sum()]
    assert audit.label_scores(p, [0, 1], "balanced") == pytest.approx(expected)


@pytest.mark.parametrize(("ours", "theirs"), [("self_confidence", "self_confidence"), ("margin", "normalized_margin")])
def test_scores_are_one_minus_cleanlabs_quality(ours, theirs):
    rank = pytest.importorskip("cleanlab.rank", reason="needs the package cleanlab: pip install 'elrkit[test]'")
    p, y = random_probabilities(300, 5)
    assert audit.label_scores(p, y, ours) == pytest.approx(1 - rank.get_label_quality_scores(y, p, method=theirs))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_scores_stay_in_range_whatever_the_scale_of_the_targets(data):
    shape = data.draw(st.tuples(st.integers(1, 8), st.integers(2, 5)))
    p = data.draw(hnp.arrays(float, shape, elements=st.floats(1e-9, 1e3)))
    y = data.draw(hnp.arrays(int, shape[0], elements=st.integers(0, shape[1] - 1)))
    for method in get_args(audit.Method):
        scores = audit.label_scores(p, y, method)
        assert ((scores >= 0) & (scores <= 1)).all()
        assert audit.label_scores(p / 7, y, method) == pytest.approx(scores, abs=1e-9)


def test_combine_is_the_geometric_mean():
    one, two = np.array([[0.8, 0.2], [0.5, 0.5]]), np.array([[0.2, 0.8], [0.9, 0.1]])
    assert audit.combine(one, two) == pytest.approx(np.array([[0.5, 0.5], [0.75, 0.25]]))  # 3 to 1: sqrt(9 to 1)
    assert audit.combine(one, one, one) == pytest.approx(one)
    assert audit.combine(5 * one, two) == pytest.approx(audit.combine(two, one))


def test_combine_gives_no_source_an_everlasting_veto():
    sure, torn = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert audit.combine(sure, torn) == pytest.approx(np.array([[0.5, 0.5]]))


def test_lists_by_hand():
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.15, 0.85], [0.4, 0.6], [0.2, 0.8], [0.45, 0.55]])
    y = np.array([0, 0, 0, 0, 1, 1])
    assert audit.natural_list(p, y).tolist() == [False, False, True, True, False, False]
    assert audit.class_confidence(p, y) == pytest.approx([(0.9 + 0.7 + 0.15 + 0.4) / 4, (0.8 + 0.55) / 2])
    assert audit.suspect_list(p, y).tolist() == [False, False, True, False, False, False]
    assert audit.suspect_list(p, y, odds=0.4).tolist() == [False, True, True, True, False, True]
    assert audit.suspect_list(p, y, odds=1).tolist() == audit.natural_list(p, y).tolist()


@pytest.mark.parametrize("own", [1 / 3, 0.1, 0.2, 0.3])
def test_a_class_exactly_twice_as_probable_is_not_listed(own):
    p = np.array([[own, 2 * own, 1 - 3 * own]])
    assert not audit.suspect_list(p[:, [0, 1]], [0]).any()
    p[0, 1] *= 1.001
    assert audit.suspect_list(p[:, [0, 1]], [0]).all()


def test_list_on_real_noisy_digits_beats_cleanlabs(noisy_digits):
    pytest.importorskip("cleanlab", reason="needs the package cleanlab: pip install 'elrkit[test]'")
    p, y, wrong = noisy_digits
    scores, listed = audit.cleanlab_baseline(p, y)
    assert scores == pytest.approx(audit.label_scores(p, y, "self_confidence"))
    theirs = audit.measure(wrong, scores, listed)
    ours = audit.measure(wrong, audit.label_scores(p, y), audit.suspect_list(p, y))
    assert ours["f1"] > theirs["f1"]
    assert ours["average_precision"] > theirs["average_precision"]
    assert ours["effort_half"] < ours["effort_half_random"] / 3


# The table


def test_rank_says_what_it_sees():
    p = [[0.1, 0.9, 0.0], [0.98, 0.01, 0.01], [0.05, 0.9, 0.05], [0.3, 0.25, 0.45], [0.2, 0.7, 0.1]]
    table = audit.rank(p, [1, 0, 0, 0, 0], ids=["a", "b", "c", "d", "e"], class_names=["hat", "shoe", "bag"])
    assert list(table.columns) == audit.COLUMNS
    assert table.index.tolist() == [2, 4, 3, 0, 1]
    assert table["id"].tolist() == ["c", "e", "d", "a", "b"]
    assert table["confidence"].tolist() == pytest.approx([0.9 / 0.95, 0.7 / 0.9, 0.45 / 0.75, 0.1, 0.01 / 0.99])
    assert table["suggested_label"].tolist() == ["shoe", "shoe", "bag", "hat", "shoe"]
    assert table["reason"].tolist() == [
        "looks like shoe (90 %), hardly like hat (5 %)",
        "looks more like shoe (70 %) than hat (20 %)",
        "unclear: bag fits best (45 %), hat less (30 %)",
        "shoe is still the most likely (90 %), then hat (10 %)",
        "hat is still the most likely (98 %), then shoe (1 %)",
    ]


def test_rank_keeps_the_order_of_equals_and_never_suggests_the_label():
    p, y = random_probabilities(200, 4)
    table = audit.rank(np.vstack([p, p]), np.concatenate([y, y]))
    assert (table["label"] != table["suggested_label"]).all()
    first = table.index.to_numpy()
    assert all(first[i + 1] == first[i] + 200 for i in range(0, 400, 2))


# Figures


def truth_and_scores(n, seed):
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < 0.3
    wrong[0] = True
    return wrong, wrong + rng.normal(size=n)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.5, 1])
def test_precision_at_a_share_is_scikit_learns_of_the_top(share):
    wrong, scores = truth_and_scores(400, seed=1)
    top = scores >= np.sort(scores)[-round(share * 400)]
    assert audit.precision_at(wrong, scores, share) == pytest.approx(precision_score(wrong, top))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 1])
@pytest.mark.parametrize("scores", [(3, 2, 2, 2, 1, 1), (1, 1, 1, 1, 1, 1), (6, 5, 4, 3, 2, 1)])
def test_equal_scores_mean_the_expected_value_over_all_orders(scores, share):
    wrong = np.array([True, False, True, False, False, True])
    looks, hits = [], []
    for order in itertools.permutations(range(6)):
        found = [wrong[i] for i in sorted(order, key=lambda i: -scores[i])]
        looks.append(1 + np.searchsorted(np.cumsum(found), np.ceil(share * 3)))
        hits.append(np.mean(found[: max(1, round(share * 6))]))
    assert audit.effort(wrong, scores, share).with_list == pytest.approx(np.mean(looks))
    assert audit.precision_at(wrong, scores, share) == pytest.approx(np.mean(hits))
    assert audit.effort(wrong, np.zeros(6), share).with_list == pytest.approx(
        audit.effort(wrong, scores, share).at_random
    )


def test_measures_against_scikit_learn():
    wrong, scores = truth_and_scores(500, seed=2)
    listed = scores > 0.8
    figures = audit.measure(wrong, scores, listed)
    assert figures["f1"] == pytest.approx(f1_score(wrong, listed))
    assert figures["precision"] == pytest.approx(precision_score(wrong, listed))
    assert figures["recall"] == pytest.approx(recall_score(wrong, listed))
    assert figures["listed_share"] == listed.mean()
    found = wrong[np.argsort(-scores)]
    at_each_hit = (np.cumsum(found) / np.arange(1, 501))[found]
    assert figures["average_precision"] == pytest.approx(at_each_hit.mean())
    assert set(audit.measure(wrong, scores)) == set(figures) - {"listed_share", "precision", "recall", "f1"}


def test_an_empty_list_finds_nothing():
    figures = audit.measure([True, False], [1, 0], np.array([False, False]))
    assert (figures["precision"], figures["recall"], figures["f1"]) == (0, 0, 0)


# Errors

P = np.array([[0.5, 0.5], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: audit.combine(), "no probabilities given"),
        (lambda: audit.combine(P, P[:1]), r"shapes \(2, 2\), \(1, 2\)"),
        (lambda: audit.label_scores([0.5, 0.5], [0]), r"shape \(2,\); expected \(n, C\)"),
        (lambda: audit.label_scores([[0.5, np.nan], [1, 0]], [0, 0]), r"row 0 is \[0.5, nan\]"),
        (lambda: audit.label_scores([[1, 0], [0, 0]], [0, 0]), r"row 1 is \[0.0, 0.0\]"),
        (lambda: audit.label_scores([[2, -1]], [0]), r"row 0 is \[2.0, -1.0\]"),
        (lambda: audit.label_scores(P, [0, 2]), "0 to 2; expected 0 to 1"),
        (lambda: audit.label_scores(P, [0.0, 1.0]), "expected integers"),
        (lambda: audit.label_scores(P, [0]), r"shape \(1,\); expected integers of shape \(2,\)"),
        (lambda: audit.label_scores(P, [0, 1], "entropy"), "allowed are odds, self_confidence, margin, balanced"),
        (lambda: audit.suspect_list(P, [0, 1], odds=0), "odds=0"),
        (lambda: audit.rank(P, [0, 1], ids=["a", "a"]), "'a' is there more than once"),
        (lambda: audit.rank(P, [0, 1], ids=["a"]), "1 ids for 2 labels"),
        (lambda: audit.rank(P, [0, 1], class_names=["a"]), "1 class names for 2 classes"),
        (lambda: audit.measure([False, False], [0, 1]), "nothing to find"),
        (lambda: audit.measure([0, 1], [0, 1]), r"expected bool \(n,\)"),
        (lambda: audit.measure([True, False], [0, np.inf]), "row 1 is not a finite number"),
        (lambda: audit.measure([True, False], [0, 1], [1, 0]), "listed: int64"),
        (lambda: audit.precision_at([True], [1], 0), "share=0"),
        (lambda: audit.effort([True], [1], 1.5), "share=1.5"),
    ],
)
def test_errors_name_what_where_and_what_is_expected(call, message):
    with pytest.raises(audit.AuditError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


# The page and its file

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'">'


def review_table(n=12):
    table = pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(n)],
            "label": ["cat", "dog", "bird"] * (n // 3),
            "suggested_label": ["dog", "cat, wild", 'the "cat"'] * (n // 3),
            "confidence": np.linspace(1, 0.5, n),
            "reason": ["looks like it"] * n,
            "title": ["A fine product"] * n,
        }
    )
    table.loc[1, ["id", "title"]] = [HOSTILE, HOSTILE]
    table.loc[2, "id"] = "__proto__"
    table.loc[3, "id"] = 'comma, "quote"\nand line'
    return table


def pictures(n=12, size=32):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("change", "thumbnails", "message"),
    [
        (lambda t: t.drop(columns="reason"), pictures(), "no column reason"),
        (lambda t: t, pictures(3), "3 thumbnails for 12 rows"),
        (lambda t: t, pictures().astype(float), "expected uint8"),
        (lambda t: t.assign(id="same"), pictures(), "'same' is there more than once"),
        (lambda t: t.assign(confidence=2.0), pictures(), "confidence outside 0 to 1"),
        (lambda t: t.assign(label="\ud800"), pictures(), "lone surrogate"),
        (lambda t: t.iloc[:0], pictures(0), "nothing to look at"),
    ],
)
def test_page_refuses_what_it_cannot_show_and_writes_nothing(change, thumbnails, message, tmp_path):
    with pytest.raises(audit.AuditError, match=message):
        review.review_page(change(review_table()), thumbnails, tmp_path / "review.html")
    assert list(tmp_path.iterdir()) == []


def test_page_carries_titles_as_data_only(tmp_path):
    text = review.review_page(review_table(), pictures(), tmp_path / "r.html", title="<b>{{data}}</b>").read_text()
    assert "owned" in text
    assert text.count("<script") == text.count("</script>") == 2
    assert "<b>" not in text
    assert text.count("&lt;b&gt;{{data}}&lt;/b&gt;") == 2
    assert re.findall(r"https?://", text) == []


def write(path, *rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


# The page in a browser


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens the page of a table; fails the test on any script error, refused resource or request to anywhere."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 1100, "height": 900})
    troubles = []

    def open_(table, thumbnails, name="review.html", whole=None):
        path = review.review_page(table, thumbnails, tmp_path / name, whole=whole)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.on("request", lambda r: r.url.startswith(("data:", "blob:", path.as_uri())) or troubles.append(r.url))
        page.goto(path.as_uri())
        return page

    yield open_
    context.close()
    assert troubles == []


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def saved(page, path):
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == "decisions.csv"
    download.value.save_as(path)
    return read_decisions(path)


def test_a_person_goes_through_the_list_by_keyboard(open_page, tmp_path):
    page = open_page(review_table(), pictures())
    press(page, "c", "k", "u", "k")
    assert "4 of 12 decided: 1 confirmed, 2 kept, 1 unsure" in page.inner_text("#counts")
    assert page.inner_text("#name") == "p4"
    assert page.get_attribute("#message", "aria-live") == "polite"
    assert page.inner_text("#message").startswith('Kept: comma, "quote"')
    press(page, "z", "ArrowLeft")
    assert page.inner_text("#name") == "__proto__"
    assert page.inner_text("#state") == "Unsure: cannot tell"
    press(page, "c", "n", "k")  # a second thought: 3 becomes confirm, then on to the next undecided
    table = review_table()
    expected = [
        [*row[:1], decision, *row[1:]]
        for row, decision in zip(
            table[["id", "label", "suggested_label"]].values.tolist(),
            ["confirm", "keep", "confirm", None, "keep"],
            strict=False,
        )
        if decision
    ]
    assert saved(page, tmp_path / "decisions.csv").values.tolist() == expected
    assert page.title() == "Labels to look at"  # the hostile title did not run


def test_no_saved_decision_is_a_formula(open_page, tmp_path):
    ids = ["=HYPERLINK(1)", "'-47", "-48", "'plain"]
    table = review_table()
    table["id"] = [*ids, *table["id"].iloc[4:]]
    page = open_page(table, pictures())
    press(page, "c", "k", "u", "c")
    kept = saved(page, tmp_path / "decisions.csv")
    assert kept["id"].tolist() == ids
    lines = (tmp_path / "decisions.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["'=HYPERLINK(1)", "''-47", "'-48", "'plain"]
    page.evaluate("localStorage.clear()")
    page.reload()
    page.set_input_files("#file", tmp_path / "decisions.csv")
    page.wait_for_selector("#message:has-text('4 decisions loaded')")


def test_a_wrong_label_may_move_elsewhere_than_suggested(open_page, tmp_path):
    page = open_page(review_table(), pictures())

    def typed(text):
        page.keyboard.type(text)
        press(page, "Enter")

    press(page, "m")
    typed("horse")
    assert page.inner_text("#message") == '"horse" is no category of this list.'
    typed("ca")
    assert page.inner_text("#message") == '"ca" is the beginning of several categories.'
    typed("BIRD")  # the first is filed as cat, suggested dog
    assert page.inner_text("#message").startswith("Confirmed: p0, moves to bird. Now")
    for text in ("cat, wild", "bird"):  # what is suggested, and then where it stands
        press(page, "m")
        typed(text)
    assert "3 of 12 decided: 2 confirmed, 1 kept, 0 unsure" in page.inner_text("#counts")
    press(page, "m", "k", "Escape", "k")  # a letter typed into the field decides nothing
    page.reload()
    assert "4 of 12 decided: 2 confirmed, 2 kept" in page.inner_text("#counts")
    kept = saved(page, tmp_path / "decisions.csv")
    assert kept["decision"].tolist() == ["confirm", "confirm", "keep", "keep"]
    assert kept["suggested_label"].tolist() == ["bird", "cat, wild", 'the "cat"', "dog"]
    page.evaluate("localStorage.clear()")
    page.reload()
    page.set_input_files("#file", tmp_path / "decisions.csv")
    page.wait_for_selector("#message:has-text('4 decisions loaded')")
    assert saved(page, tmp_path / "again.csv").values.tolist() == kept.values.tolist()


def test_decisions_survive_a_reload_and_stay_with_their_list(open_page):
    page = open_page(review_table(), pictures())
    press(page, "c", "k", "c")
    page.reload()
    assert "3 of 12 decided: 2 confirmed, 1 kept" in page.inner_text("#counts")
    assert "3 decisions of an earlier visit" in page.inner_text("#message")
    assert page.inner_text("h2#name").startswith("comma")
    other = open_page(review_table().assign(suggested_label="horse"), pictures(), "other.html")
    assert "0 of 12 decided" in other.inner_text("#counts")
    # A page that shows fewer of the list's products, as of --top 2, knows of them and forgets none.
    short = open_page(review_table()[:2], pictures(2), "short.html", whole=review_table())
    assert "2 of 2 decided: 1 confirmed, 1 kept" in short.inner_text("#counts")
    press(short, "k")
    page.reload()
    assert "3 of 12 decided: 1 confirmed, 2 kept" in page.inner_text("#counts")


def test_a_saved_file_is_loaded_and_can_be_undone(open_page, tmp_path):
    page = open_page(review_table(), pictures())
    press(page, "c", "k", "u", "k")
    kept = saved(page, tmp_path / "decisions.csv")
    page.evaluate("localStorage.clear()")
    page.reload()
    assert "0 of 12" in page.inner_text("#counts")
    press(page, "k", "k")  # what the file says wins
    page.set_input_files("#file", tmp_path / "decisions.csv")
    page.wait_for_selector("#message:has-text('4 decisions loaded')")
    assert saved(page, tmp_path / "again.csv").values.tolist() == kept.values.tolist()
    press(page, "z")
    assert "2 of 12 decided: 0 confirmed, 2 kept" in page.inner_text("#counts")
    # What a spreadsheet makes of it.
    pd.read_csv(tmp_path / "decisions.csv", dtype=str).to_csv(
        tmp_path / "excel.csv", sep=";", index=False, encoding="utf-8-sig"
    )
    page.set_input_files("#file", tmp_path / "excel.csv")
    page.wait_for_selector("#message:has-text('loaded from excel.csv')")
    assert saved(page, tmp_path / "third.csv").values.tolist() == kept.values.tolist()


BAD_FILES = [
    (b"id;decision\n", "the first line must be id,decision,label,suggested_label"),
    (b"", "the first line must be"),
    (b"id,decision,label,suggested_label\np0,perhaps,cat,dog\n", 'line 2: decision "perhaps"'),
    (b"id,decision,label,suggested_label\n\np0,keep\n", "line 3: 2 columns"),
    (b"id,decision,label,suggested_label\np0,keep,cat,dog\np0,confirm,cat,dog\n", "line 3: p0 is there twice"),
    (b'id,decision,label,suggested_label\n"p0,keep,cat,dog\n', "line 2: a quote that is never closed"),
    (b'id,decision,label,suggested_label\n"p0"x,keep,cat,dog\n', "line 2: text after a closing quote"),
    (b"id,decision,label,suggested_label\n\xe5,keep,cat,dog\n", "it is not UTF-8 text"),
]


def test_a_bad_file_changes_nothing(open_page, tmp_path):
    page = open_page(review_table(), pictures())
    for number, (content, message) in enumerate(BAD_FILES):
        press(page, "c")
        path = tmp_path / f"bad{number}.csv"
        path.write_bytes(content)
        page.set_input_files("#file", path)
        page.wait_for_selector(f"#message.bad:has-text('bad{number}.csv was not loaded')")
        assert message in page.inner_text("#message")
        assert "Nothing has changed" in page.inner_text("#message")
        assert f"{number + 1} of 12 decided: {number + 1} confirmed" in page.inner_text("#counts")


def test_rows_of_another_list_are_left_out_and_counted(open_page, tmp_path):
    page = open_page(review_table(), pictures())
    rows = [["p0", "keep", "cat", "dog"], ["p4", "confirm", "dog", "horse"], ["gone", "keep", "cat", "dog"]]
    rows += [["p1", "keep", "cat", "dog"], ["p7", "keep", "dog", "horse"]]  # filed elsewhere; kept against another
    page.set_input_files("#file", write(tmp_path / "d.csv", DECISION_COLUMNS, *rows))
    page.wait_for_selector("#message.bad")
    assert page.inner_text("#message") == (
        "2 decisions loaded from d.csv. 3 rows left out: not on this list, or with other labels."
    )
    assert "2 of 12 decided" in page.inner_text("#counts")


def test_mouse_focus_and_shortcuts_off(open_page):
    page = open_page(review_table(), pictures())
    page.click("#strip li:nth-child(6) button")
    assert page.inner_text("#name") == "p5"
    press(page, "ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"  # focus goes along
    page.click("[data-decision=keep]")
    assert "p6" in page.inner_text("#message")
    page.uncheck("#keys")
    press(page, "c")
    assert "1 of 12 decided" in page.inner_text("#counts")
    assert not page.is_visible("#undo kbd")
    press(page, "Control+z")
    assert "0 of 12 decided" in page.inner_text("#counts")


def test_an_id_that_is_an_address_leads_to_the_product(open_page):
    ids = ["https://shop.example/p/1", "HTTP://shop.example/2?a=b&c", "javascript:alert(1)", "data:text/html,x",
           "https://a b", " https://x", "file:///etc/passwd", *(f"p{k}" for k in range(5))]  # fmt: skip
    page = open_page(review_table().assign(id=ids), pictures())
    for k, id_ in enumerate(ids):
        page.evaluate(f"go({k})")
        assert page.evaluate("document.getElementById('name').textContent") == id_
        links = page.locator("#name a")
        assert links.count() == (k < 2)
        if k < 2:
            assert links.get_attribute("href") == id_
            assert (links.get_attribute("target"), links.get_attribute("rel")) == ("_blank", "noopener noreferrer")


def test_a_key_held_down_decides_once(open_page):
    page = open_page(review_table(), pictures())
    for _ in range(5):
        page.keyboard.down("c")
    page.keyboard.up("c")
    assert "1 of 12 decided" in page.inner_text("#counts")


def test_everything_has_a_name_for_those_who_do_not_see(open_page):
    page = open_page(review_table(), pictures())
    assert page.get_attribute("#picture", "alt") == "Picture of A fine product, filed as cat"
    assert (
        page.get_attribute("#strip li:nth-child(1) button", "aria-label")
        == "p0: filed as cat, suggested dog, undecided"
    )
    press(page, "c")
    assert page.get_attribute("#strip li:nth-child(1) button", "aria-label").endswith("confirmed")
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, img, input:not([hidden]), progress")].filter(e => !(
           e.textContent.trim() || e.hasAttribute("aria-label") || e.hasAttribute("alt") || e.labels?.length)).length"""
    )
    assert unnamed == 0
    assert page.locator("#strip button[tabindex='0']").count() == 1


def test_a_long_list_keeps_the_page_light_and_tells_the_end(open_page):
    n = 1002
    table = review_table(n)
    page = open_page(table, pictures(n, 8))
    assert page.locator("#strip li").count() == 100
    for _ in range(21):
        press(page, "c")
    assert "of the last 20 confirmed or kept, 20 were confirmed" in page.inner_text("#forecast")
    assert "left at this pace" in page.inner_text("#forecast")
    page.evaluate("go(1001)")
    assert page.inner_text("#range") == "Labels 1,001 to 1,002 of 1,002, most suspicious first"
    page.evaluate("change(items.map((_, index) => [index, 'keep']))")
    press(page, "u")
    assert "All labels are decided" in page.inner_text("#message")
    assert "1,002 of 1,002 decided: 0 confirmed, 1,001 kept, 1 unsure" in page.inner_text("#counts")


def test_a_browser_that_keeps_nothing_says_so(open_page, tmp_path):
    page = open_page(review_table(), pictures())
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('blocked'); }})")
    page.reload()
    press(page, "c")
    assert "1 of 12 decided" in page.inner_text("#counts")
    assert page.inner_text("#kept") == "This browser keeps nothing: save before you leave."
    assert len(saved(page, tmp_path / "d.csv")) == 1


def test_csv_of_the_page_and_of_python_agree(open_page):
    page = open_page(review_table(), pictures())
    rows = [["a", 'say "x"', "b,c", " lead"], ["é", "", "line\nbreak", "cr\r\nlf"], ["=1+1", "\t", "tail ", "ok"]]
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    assert [fields for _, fields in page.evaluate("text => parse(text)", buffer.getvalue())] == rows
    text = page.evaluate("rows => rows.map(row => row.map(quote).join(',') + '\\r\\n').join('')", rows)
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == rows
    cells = ["=1", "\u200b=1", "\uff1d1", "'\ufeff@x", "'=1", "''-1", "a=1", "'a", ""]
    assert page.evaluate("cells => cells.map(asText)", cells) == [*map(as_text, cells)]
    assert page.evaluate("cells => cells.map(asItWas)", cells) == [*map(as_it_was, cells)]


# The command ----------------------------------------------------------------------------------------------------------


def test_a_list_is_refused_for_images_the_run_has_not_seen(tmp_path, monkeypatch, capsys):
    """Positions in a dataset that was imported again belong to other products."""
    from elrkit import runner
    from elrkit.__main__ import main
    from elrkit.config import RunConfig

    monkeypatch.setenv("ELRKIT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path / "results"))
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), np.arange(60) % 3

    def write(order):
        ids = np.array([f"p{k}" for k in range(60)])
        np.savez(
            tmp_path / "s.npz", train_images=images[order], train_labels=labels[order], train_ids=ids[order],
            test_images=images[:9], test_labels=labels[:9], test_ids=np.array([f"q{k}" for k in range(9)]),
            class_names=np.array(["a", "b", "c"]),
        )  # fmt: skip

    write(np.arange(60))
    config = RunConfig(dataset=str(tmp_path / "s.npz"), loss="elr", noise="none", epochs=1, width=8, batch_size=20)
    assert runner.train_missing([config]) == []
    assert main(["audit", config.run_id, "--out", str(tmp_path / "list")]) == 0
    # What another model says, alone: it is trained on nothing, and this one doubts one label of each part.
    sure = np.eye(3)[labels] * 0.9 + 0.1 / 3
    sure[7] = [0.9, 0.05, 0.05]
    np.savez(tmp_path / "p.npz", train=sure, test=sure[:9])
    arguments = ["audit", config.dataset, "--probabilities", str(tmp_path / "p.npz"), "--out", str(tmp_path / "mine")]
    assert main(arguments) == 0
    assert set(pd.read_csv(tmp_path / "mine" / "labels.csv")["id"]) == {"p7", "q7"}
    assert "2 labels to look at" in capsys.readouterr().out
    arguments[1] = config.run_id
    assert main(arguments) == 0
    assert "p7" in set(pd.read_csv(tmp_path / "mine" / "labels.csv")["id"])
    said = capsys.readouterr().out
    # What the net knows is told with its list: one epoch on pixels at random teaches nothing.
    assert re.search(r"the network agrees with [\d.]+ % of the 9 test labels, .*; the commonest class has 33.3 %", said)
    assert "warning: it has learnt little of the classes" in said
    careless = config.with_(loss="ce")
    assert runner.train_missing([careless]) == []
    assert main(["audit", careless.run_id, "--out", str(tmp_path / "careless")]) == 0
    assert f"warning: run {careless.run_id} was trained with ce, which keeps no targets" in capsys.readouterr().out
    write(np.random.default_rng(1).permutation(60))
    assert main(["audit", config.run_id, "--out", str(tmp_path / "other")]) == 2
    assert "is not what run" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def three_classes(**named):
    """Twelve training and six test images of three classes in turn; each image shows its number, 100 on in the test."""
    images = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 8, 8, 3)
    labels = torch.arange(12) % 3
    return Dataset(
        name="x", train_images=images, train_labels=labels, train_truth=labels, test_images=images[:6] + 100,
        test_labels=labels[:6], test_truth=labels[:6], class_names=("a", "b", "c"), mean=(0.5,) * 3, std=(0.5,) * 3,
        **named,
    )  # fmt: skip


SURE = np.eye(3)[np.arange(12) % 3] * 0.9 + 0.1 / 3
NAMED = dict(train_ids=tuple(f"p{k}" for k in range(12)), test_ids=tuple(f"q{k}" for k in range(6)))


def doubting(row):
    """SURE, but for one row, which prefers the last class."""
    found = SURE.copy()
    found[row] = [0.05, 0.05, 0.9]
    return found


def test_test_products_are_listed_with_their_titles_and_pictures(tmp_path):
    """A shop wants all its products looked at, not nine tenths of them."""
    titles = dict(
        train_titles=tuple(f"thing {k}" for k in range(12)), test_titles=tuple(f"test thing {k}" for k in range(6))
    )
    dataset = three_classes(**NAMED, **titles)
    shuffled = torch.tensor([7, 3, 0, 11])
    outcome = {
        "targets": torch.from_numpy(doubting(3))[shuffled], "index": shuffled, "given": dataset.train_labels[shuffled]
    }  # fmt: skip
    listed, path, page, _, of_test, _ = review.audit_outcome(outcome, dataset, tmp_path, test=doubting(4)[:6])
    assert set(listed["id"]) == {"p3", "q4"}
    assert of_test == 1
    assert dict(zip(listed["id"], listed["title"], strict=True)) == {"p3": "thing 3", "q4": "test thing 4"}
    assert dict(zip(listed["id"], listed["label"], strict=True)) == {"p3": "a", "q4": "b"}
    assert set(listed["suggested_label"]) == {"c"}
    read = pd.read_csv(path)
    assert read["title"].tolist() == listed["title"].tolist()
    items = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text(), re.S)[1])
    for item in items["items"]:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(item[-1]))).convert("RGB"))
        assert abs(float(picture.mean()) - {"p3": 3, "q4": 104}[item[0]]) < 3


def test_the_page_shows_originals_where_they_are_found(tmp_path):
    big = np.full((40, 40, 3), 200, np.uint8)
    seen = []
    p = SURE.copy()
    p[[3, 5]] = doubting(3)[3]
    review.audit_probabilities(
        p, three_classes(**NAMED), tmp_path, originals=lambda ids: seen.extend(ids) or {"p3": big}
    )
    page = (tmp_path / "review.html").read_text()
    items = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)[1])["items"]
    means = {}
    for item in items:
        picture = Image.open(io.BytesIO(base64.b64decode(item[-1]))).convert("RGB")
        assert picture.size == (40, 40)
        means[item[0]] = float(np.asarray(picture).mean())
    assert set(seen) == means.keys() >= {"p3"}
    assert means.pop("p3") == pytest.approx(200, abs=3)
    assert all(mean == pytest.approx(int(id_[1:]), abs=3) for id_, mean in means.items())


def balanced_by_hand(p, labels):
    """What the label keeps of the probabilities (n, C) after each class's are divided by their mean over the images
    labelled so."""
    q = p / np.array([p[labels == k, k].mean() for k in range(p.shape[1])])
    return q[np.arange(len(q)), labels] / q.sum(axis=1)


def test_neither_part_crowds_the_other_out_of_the_head_of_the_list(tmp_path):
    """The network is surer of images that it has not seen than ELR's targets are of the training images: the raw
    scores would put every test image first."""
    rng, n, m = np.random.default_rng(0), 900, 100
    labels = rng.integers(0, 3, n + m)

    def probabilities(part, rival):
        p = np.full((len(part), 3), 0.01)
        p[np.arange(len(part)), part] = 1 - rival
        p[np.arange(len(part)), (part + 1) % 3] = rival
        return p / p.sum(1, keepdims=True)

    soft, sure = rng.uniform(0, 0.8, n), rng.uniform(0, 1, m) ** 0.1
    given = torch.from_numpy(labels)
    dataset = Dataset(
        name="made", train_images=torch.zeros(n, 8, 8, 3, dtype=torch.uint8), train_labels=given[:n],
        train_truth=given[:n], test_images=torch.zeros(m, 8, 8, 3, dtype=torch.uint8), test_labels=given[n:],
        test_truth=given[n:], class_names=("a", "b", "c"), mean=(0.5,) * 3, std=(0.5,) * 3,
        train_ids=tuple(f"p{k}" for k in range(n)), test_ids=tuple(f"q{k}" for k in range(m)),
    )  # fmt: skip
    targets, test = probabilities(labels[:n], soft), probabilities(labels[n:], sure)
    outcome = {"targets": torch.from_numpy(targets), "index": torch.arange(n), "given": dataset.train_labels}
    written = review.audit_outcome(outcome, dataset, tmp_path, test=test)
    order = written.listed["id"].tolist()
    assert written.listed["confidence"].is_monotonic_decreasing
    for head in (50, 100):
        assert sum(id_.startswith("q") for id_ in order[:head]) == pytest.approx(head / 10, abs=2)
    # Within a part the order is its own: of the targets by what is left to the label once its class is made up for.
    left = balanced_by_hand(targets, labels[:n])
    assert [id_ for id_ in order if id_[0] == "p"] == [f"p{k}" for k in np.argsort(left) if soft[k] > 2 / 3]
    assert [id_ for id_ in order if id_[0] == "q"] == [f"q{k}" for k in np.argsort(-sure)[: written.of_test]]
    # Each part lists what its own probabilities contradict, and nothing else.
    assert written.of_test == (sure > 2 / 3).sum()
    assert all(id_ in order for id_ in (f"q{k}" for k in np.flatnonzero(sure > 0.7)))
    # Probabilities of one kind compare as they are.
    alike = review.audit_probabilities(targets, dataset, tmp_path, test=test).listed["id"].tolist()
    assert sum(id_.startswith("q") for id_ in alike[:50]) > 40


def test_a_part_takes_the_scale_of_the_other():
    reference = np.linspace(0, 1, 101)
    assert audit.as_suspicious_as(reference, [0.99, 0.2, 0.9, 0.5]) == pytest.approx([0.875, 0.125, 0.625, 0.375])
    assert audit.as_suspicious_as(reference, []).shape == (0,)
    assert audit.as_suspicious_as(reference, [0.0] * 4).tolist() == pytest.approx([0.5] * 4)


def test_decisions_that_fit_nothing_are_counted(tmp_path):
    named = dict(train_ids=tuple(f"{k:03}" for k in range(12)), test_ids=tuple(f"q{k}" for k in range(6)))
    columns = ["id", "decision", "label", "suggested_label"]
    rows = [("3", "keep", "a", "c"), ("99", "keep", "a", "b"), ("q1", "ja", "b", "a"), ("q2", "unsure", "b", "a")]
    decisions = [pd.DataFrame(rows, columns=columns)]
    written = review.audit_probabilities(doubting(3), three_classes(**named), tmp_path, decisions=decisions)
    assert (len(written.listed), written.left_out, written.unfit) == (0, 1, 2)  # 3 is 003, whose zeros Excel dropped


def test_test_images_without_ids_are_not_listed(tmp_path):
    listed = review.audit_probabilities(doubting(3), three_classes(), tmp_path, test=doubting(4)[:6]).listed
    assert listed["id"].tolist() == ["3"]
    assert "title" not in listed


def test_another_model_s_probabilities_are_put_together_with_the_run_s(tmp_path):
    dataset, index = three_classes(**NAMED), torch.arange(2, 12)
    outcome = {"targets": torch.from_numpy(SURE)[index], "index": index, "given": dataset.train_labels[index]}
    unsure = doubting(6)
    assert len(review.audit_outcome(outcome, dataset, tmp_path)[0]) == 0
    # The label keeps the lead: sqrt(0.93 0.05) > sqrt(0.03 0.9).
    assert len(review.audit_outcome(outcome, dataset, tmp_path, beside=unsure)[0]) == 0
    unsure[6] = [0.001, 0.001, 0.998]
    listed = review.audit_outcome(outcome, dataset, tmp_path, beside=unsure)[0]
    assert listed["id"].tolist() == ["p6"]
    both = np.sqrt(SURE[2:] * unsure[2:])
    both /= both.sum(axis=1, keepdims=True)
    left = balanced_by_hand(both, dataset.train_labels.numpy()[2:])
    assert listed["confidence"].iloc[0] == pytest.approx(1 - left[4])  # image 6 of those from 2 on


def test_probabilities_are_read_and_have_to_fit(tmp_path):
    np.save(tmp_path / "p.npy", SURE)
    np.savez(tmp_path / "p.npz", train=SURE, test=SURE[:6])
    train, test = review.read_probabilities(tmp_path / "p.npy")
    assert train.tolist() == SURE.tolist()
    assert test is None
    assert review.read_probabilities(tmp_path / "p.npz")[1].tolist() == SURE[:6].tolist()
    np.savez(tmp_path / "other.npz", probabilities=SURE)
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object))
    (tmp_path / "text.npy").write_text("0.1,0.9")
    for name in ("other.npz", "pickled.npy", "text.npy"):
        with pytest.raises(audit.AuditError, match=f"{name}: expected an .npy with probabilities"):
            review.read_probabilities(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        review.read_probabilities(tmp_path / "none.npy")
    with pytest.raises(audit.AuditError, match=r"shape \(11, 3\) for the train images: expected \(12, 3\)"):
        review.audit_probabilities(SURE[:11], three_classes(), tmp_path)
    with pytest.raises(audit.AuditError, match=r"shape \(12, 3\) for the test images: expected \(6, 3\)"):
        review.audit_probabilities(SURE, three_classes(**NAMED), tmp_path, test=SURE)


def test_nothing_suspicious_is_a_list_without_a_page(tmp_path):
    dataset, sure = three_classes(), torch.from_numpy(SURE)
    outcome = {"targets": sure, "index": torch.arange(12), "given": sure.argmax(1), "run_id": "x"}
    (tmp_path / "review.html").write_text("an earlier list")
    listed, table, page, *_ = review.audit_outcome(outcome, dataset, tmp_path)
    assert len(listed) == 0
    assert table.read_text("utf-8-sig").startswith("id,")
    assert page is None
    assert not (tmp_path / "review.html").exists()
    with pytest.raises(audit.AuditError, match="of image 12, where the dataset has 12"):
        review.audit_outcome(outcome | {"index": torch.arange(1, 13)}, dataset, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(train_ids=("p0",) * 12), r"^x: ids of training and test images: 'p0' is there more than once"),
        (dict(test_ids=NAMED["train_ids"][:6]), r"^x: ids of training and test images: 'p0' is there more than once"),
        (dict(test_ids=("tr\udcf6ja.png", *NAMED["test_ids"][1:])), r"^x: the id 'tr\\udcf6ja.png' is no valid text"),
        (dict(train_titles=("",) * 11 + ("\ud800",)), r"^x: the title '\\ud800' is no valid text"),
        (dict(class_names=("a", "b", "\udfff")), r"^x: the class name '\\udfff' is no valid text"),
    ],
)
def test_a_dataset_that_cannot_be_listed_is_named(change, message, tmp_path):
    dataset = dataclasses.replace(three_classes(**NAMED), **change)
    with pytest.raises(audit.AuditError, match=message):
        review.check_listable(dataset, 1)
    with pytest.raises(audit.AuditError, match=message):
        review.audit_probabilities(doubting(3), dataset, tmp_path / "list")
    assert not (tmp_path / "list").exists()


def test_no_picture_at_all_is_refused_and_deletes_nothing(tmp_path):
    (tmp_path / "review.html").write_text("an earlier list")
    for top in (0, -1):
        with pytest.raises(audit.AuditError, match=rf"^top={top}: allowed is a whole number from 1"):
            review.audit_probabilities(doubting(3), three_classes(), tmp_path, top)
    assert (tmp_path / "review.html").read_text() == "an earlier list"


def test_a_failure_leaves_the_earlier_list(tmp_path, monkeypatch):
    dataset = three_classes(**NAMED)
    _, path, page, *_ = review.audit_probabilities(doubting(3), dataset, tmp_path)
    before = path.read_bytes(), page.read_bytes()

    def full(first, path=None, **_):
        if path is not None:
            path.write_text("id,ti")
        raise OSError("no space left on device")

    monkeypatch.setattr(review, "_webp", full)
    with pytest.raises(OSError, match="no space"):
        review.audit_probabilities(doubting(6), dataset, tmp_path)
    assert (path.read_bytes(), page.read_bytes()) == before
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match="no space"):
        review.audit_probabilities(doubting(6), dataset, tmp_path)
    assert (path.read_bytes(), page.read_bytes()) == before


@pytest.mark.parametrize("start", ["=1+1", "+4", "-4", "@SUM(1)", "\t=1", "\r=1"])
def test_no_cell_of_the_table_is_a_formula(start, tmp_path):
    """Excel executes what begins so, whoever wrote it; the page and the rows in Python stay as they are."""
    dataset = dataclasses.replace(
        three_classes(**NAMED), class_names=(f"{start}a", "b", f"{start}ö"),
        train_ids=(*NAMED["train_ids"][:4], f"{start}id", *NAMED["train_ids"][5:]),
        train_titles=(*["p = q"] * 4, f"{start}title", *["a-b"] * 7),
    )  # fmt: skip
    found = doubting(3)
    found[4], found[3] = [0.05, 0.05, 0.9], [0.05, 0.5, 0.45]
    listed, path, page, *_ = review.audit_probabilities(found, dataset, tmp_path)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfid,title,label,")  # the mark by which Excel knows UTF-8
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {f"'{start}id", "p3"}
    strange = rows[f"'{start}id"]
    assert (strange["title"], strange["suggested_label"]) == (f"'{start}title", f"'{start}ö")
    assert (rows["p3"]["title"], rows["p3"]["label"], rows["p3"]["suggested_label"]) == ("p = q", f"'{start}a", "b")
    assert not any(cell[:1] in "=+-@\t\r" for row in rows.values() for cell in row.values())
    assert set(listed["id"]) == {f"{start}id", "p3"}
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text(), re.S)[1])
    assert {item[0] for item in data["items"]} == {f"{start}id", "p3"}


def test_a_reason_is_no_formula_either(tmp_path):
    """An unsure label's reason begins with the class."""
    found = SURE.copy()
    found[0] = [0.4, 0.35, 0.25]
    table = audit.rank(found, np.arange(12) % 3, class_names=["=1+1", "b", "c"])
    assert table["reason"].iloc[0].startswith("=1+1 is still")
    assert review._for_spreadsheets(table)["reason"].iloc[0].startswith("'=1+1 is still")


def reviewed(*rows):
    return pd.DataFrame(rows, columns=["id", "decision", "label", "suggested_label"], dtype=str)


def test_what_was_decided_is_not_listed_again(tmp_path):
    """Products 0, 3, 6 and 9 are filed as a, and each seems to be c."""
    found = SURE.copy()
    found[[0, 3, 6, 9]] = [0.05, 0.05, 0.9]

    def ids(*decisions, labels=None):
        dataset = three_classes(**NAMED)
        if labels:
            dataset.train_labels[list(labels)] = torch.tensor(list(labels.values()))
        written = review.audit_probabilities(found, dataset, tmp_path, decisions=decisions)
        assert set(pd.read_csv(written.table)["id"]) == set(written.listed["id"])
        return set(written.listed["id"]), written.left_out

    assert ids() == ({"p0", "p3", "p6", "p9"}, 0)
    assert ids(reviewed(["p0", "keep", "a", "c"], ["p3", "unsure", "a", "c"])) == ({"p3", "p6", "p9"}, 1)
    # The import has not applied it yet; then it has, to b, which the network does not believe.
    confirmed = reviewed(["p6", "confirm", "a", "b"])
    assert ids(confirmed) == ({"p0", "p3", "p6", "p9"}, 0)
    assert ids(confirmed, labels={6: 1}) == ({"p0", "p3", "p9"}, 1)
    # Filed elsewhere since it was kept.
    assert ids(reviewed(["p9", "keep", "a", "c"]), labels={9: 1}) == ({"p0", "p3", "p6", "p9"}, 0)
    # The last word counts, and none is said of strangers.
    kept, unsure = reviewed(["p0", "keep", "a", "c"], ["q99", "keep", "a", "c"]), reviewed(["p0", "unsure", "a", "c"])
    assert ids(kept, unsure) == ({"p0", "p3", "p6", "p9"}, 0)
    assert ids(unsure, kept) == ({"p3", "p6", "p9"}, 1)
    # A cell left empty is no word: the import, too, lets the one before it stand.
    assert ids(kept, reviewed(["p0", "", "a", "c"])) == ({"p3", "p6", "p9"}, 1)
    everything = reviewed(*([f"p{k}", "keep", "a", "c"] for k in (0, 3, 6, 9)))
    assert ids(everything) == (set(), 4)
    assert not (tmp_path / "review.html").exists()
