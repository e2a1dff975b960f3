"""The list of labels to look at: scores and figures against cleanlab, scikit-learn and brute force; its page."""

import csv
import dataclasses
import io
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from refusals import refused
from shops import data_of
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_val_predict
from small_dataset import IDS, LABELS, write_dataset

from elrkit.catalogue import review
from elrkit.catalogue import scores as audit
from elrkit.catalogue.decisions import SIGNED, in_order, write_csv
from elrkit.catalogue.feed_files import DECISION_COLUMNS
from elrkit.data import Dataset, one_each
from elrkit.report.list_study import measured


def random_probabilities(n, classes, seed=0, sharpness=4.0):
    """Labels, and probabilities that mostly but not always agree with them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1.5
    p = np.exp(sharpness * logits / 2)
    return p / p.sum(1, keepdims=True), labels


# Scores and lists


def test_scores_by_hand():
    p = [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]
    # Class confidences 0.7, 0.3 and, for the class without examples, the mean of the labels' 0.5.
    first, second = np.array([0.7 / 0.7, 0.2 / 0.3, 0.1 / 0.5]), np.array([0.1 / 0.7, 0.3 / 0.3, 0.6 / 0.5])
    expected = [1 - first[0] / first.sum(), 1 - second[1] / second.sum()]
    assert audit.label_scores(p, np.array([0, 1])) == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_scores_stay_in_range_whatever_the_scale_of_the_targets(data):
    shape = data.draw(st.tuples(st.integers(1, 8), st.integers(2, 5)))
    p = data.draw(hnp.arrays(float, shape, elements=st.floats(1e-9, 1e3)))
    y = data.draw(hnp.arrays(int, shape[0], elements=st.integers(0, shape[1] - 1)))
    scores = audit.label_scores(p, y)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert audit.label_scores(p / 7, y) == pytest.approx(scores, abs=1e-9)


def test_lists_by_hand():
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.15, 0.85], [0.4, 0.6], [0.2, 0.8], [0.45, 0.55]])
    y = np.array([0, 0, 0, 0, 1, 1])
    assert audit.suspect_list(audit.judged(p, y)).tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("own", [1 / 3, 0.1, 0.2, 0.3])
def test_a_class_exactly_twice_as_probable_is_not_listed(own):
    p = np.array([[own, 2 * own, 1 - 3 * own]])
    assert not audit.suspect_list(audit.judged(p[:, [0, 1]], [0])).any()
    p[0, 1] *= 1.001
    assert audit.suspect_list(audit.judged(p[:, [0, 1]], [0])).all()


def test_list_on_real_noisy_digits_beats_cleanlabs():
    """Out-of-fold probabilities of the digits with 20 % of the labels redrawn."""
    reason = "needs the package cleanlab: pip install 'elrkit[test]'"
    find_label_issues = pytest.importorskip("cleanlab.filter", reason=reason).find_label_issues
    images, clean = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    y = np.where(rng.random(len(clean)) < 0.2, rng.integers(10, size=len(clean)), clean)
    model = LogisticRegression(C=0.02, max_iter=200, tol=1e-2)
    p = cross_val_predict(model, images / 16, y, cv=5, method="predict_proba")
    ours = measured(y != clean, audit.label_scores(p, y))
    assert ours["effort_half"] < ours["effort_half_random"] / 3
    by_cleanlab = find_label_issues(y, p, filter_by="both", n_jobs=1)
    assert f1_score(y != clean, audit.suspect_list(audit.judged(p, y))) > f1_score(y != clean, by_cleanlab)


# The table


def test_rank_says_what_it_sees():
    p = [[0.1, 0.9, 0.0], [0.98, 0.01, 0.01], [0.05, 0.9, 0.05], [0.3, 0.25, 0.45], [0.2, 0.7, 0.1]]
    y = np.array([1, 0, 0, 0, 0])
    table = audit.rank(audit.judged(p, y), y, list("abcde"), ["hat", "shoe", "bag"], [0.1, 0.01, 0.95, 0.6, 0.78])
    assert list(table.columns) == [*audit.COLUMNS, "chance_1", "alternative_2", "chance_2"]
    assert table["alternative_2"].tolist() == ["bag", "bag", "shoe", "bag", "bag"]
    assert table["chance_2"].tolist() == [0.05, 0.1, 0.25, 0.0, 0.01]
    assert table.index.tolist() == [2, 4, 3, 0, 1]
    assert table["id"].tolist() == ["c", "e", "d", "a", "b"]
    assert table["confidence"].tolist() == [0.95, 0.78, 0.6, 0.1, 0.01]
    assert table["suggested_label"].tolist() == ["shoe", "shoe", "bag", "hat", "shoe"]
    assert table["reason"].tolist()[:2] == ["hat 5 %, shoe 90 %", "hat 20 %, shoe 70 %"]


def test_rank_keeps_the_order_of_equals_and_never_suggests_the_label():
    p, y = random_probabilities(200, 4)
    p, y = np.vstack([p, p]), np.concatenate([y, y])
    table = audit.rank(audit.judged(p, y), y, range(400), "abcd", audit.label_scores(p, y))
    assert (table["label"] != table["suggested_label"]).all()
    first = table.index.to_numpy()
    assert all(first[i + 1] == first[i] + 200 for i in range(0, 400, 2))


# Errors


def test_an_id_that_is_there_twice_is_refused():
    with refused(audit.AuditError, "'a' is there more than once"):
        audit.rank(audit.judged([[0.5, 0.5], [0.2, 0.8]], [0, 1]), np.arange(2), ["a", "a"], "xy", [0, 1])


# The command ----------------------------------------------------------------------------------------------------------


def test_a_list_of_a_small_net_says_what_it_knows_and_is_refused_for_other_images(tmp_path, capsys):
    """Positions in a dataset that was imported again belong to other products."""
    from elrkit.__main__ import main

    def listed(code):
        """What the command says, and the ids in the list that it writes."""
        command = ["audit", str(path), "--features", "none", "--epochs", "1", "--out", str(tmp_path / "list")]
        assert main(command) == code
        table = tmp_path / "list" / "labels.csv"
        return "".join(capsys.readouterr()), set(pd.read_csv(table)["id"]) if table.exists() else None

    path = write_dataset(tmp_path / "s.npz")
    said, ids = listed(0)
    assert ids <= set(IDS[0])
    assert "9 test products are not in the list" in said
    # What the net knows is told with its list: one epoch on pixels at random teaches nothing.
    assert re.search(r"the network agrees with [\d.]+ % of the 9 test labels, .*; the commonest class has 33.3 %", said)
    assert "warning: it has learnt little of the classes" in said
    write_dataset(tmp_path / "s.npz", train_labels=LABELS[::-1])
    shutil.rmtree(tmp_path / "list")
    said, ids = listed(2)
    assert ids is None
    assert "is not what run" in said


def three_classes(**named):
    """Twelve training and six test images of three classes in turn; each image shows its number, 100 on in the test."""
    images = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 8, 8, 3)
    labels = torch.arange(12) % 3
    return Dataset(
        name="x", class_names=("a", "b", "c"), mean=(0.5,) * 3, std=(0.5,) * 3,
        train_pictures=one_each(images), train_labels=labels, train_truth=labels,
        test_pictures=one_each(images[:6] + 100), test_labels=labels[:6], test_truth=labels[:6], **named,
    )  # fmt: skip


SURE = np.eye(3)[np.arange(12) % 3] * 0.9 + 0.1 / 3
NAMED = dict(train_ids=tuple(f"p{k}" for k in range(12)), test_ids=tuple(f"q{k}" for k in range(6)))


def doubting(row):
    """SURE, but for one row, which prefers the last class."""
    found = SURE.copy()
    found[row] = [0.05, 0.05, 0.9]
    return found


def shades(page):
    """Width and mean of each product's photo beside the page."""
    files = {item[0]: page.parent / "photos" / f"{item[-1]}.webp" for item in data_of(page)["items"]}
    photos = {id_: np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")) for id_, path in files.items()}
    return {id_: (photo.shape[1], float(photo.mean())) for id_, photo in photos.items()}


def audited(targets, dataset, out, top=1000, **more):
    """The list of a run on all training images that left these targets (12, 3)."""
    return review.audit_outcome({"targets": torch.from_numpy(targets)}, dataset, out, top, **more)


def test_products_are_listed_with_their_titles_and_pictures(tmp_path):
    dataset = three_classes(**NAMED, train_titles=[f"thing {k}" for k in range(12)])
    listed, path, page, *_ = audited(doubting(3), dataset, tmp_path)
    assert listed[["id", "title", "label", "suggested_label"]].values.tolist() == [["p3", "thing 3", "a", "c"]]
    # What the label keeps once each class is divided by its mean over the images labelled so: a's are 0, 3, 6 and 9.
    kept = np.array([0.05 / np.mean([0.05, *[SURE[0, 0]] * 3]), 0.05 / SURE[7, 1], 0.9 / SURE[11, 2]])
    assert listed["confidence"].iloc[0] == pytest.approx(1 - kept[0] / kept.sum())
    assert pd.read_csv(path)["title"].tolist() == listed["title"].tolist()
    assert shades(page) == {"p3": (8, pytest.approx(3, abs=2))}
    # Larger pictures are shown where they are found.
    found, big = doubting(3), np.full((40, 40, 3), 200, np.uint8)
    found[4], asked = found[3], []
    written = audited(found, three_classes(), tmp_path, originals=lambda ids, side: asked.extend(ids) or {"3": big})
    assert "title" not in written.listed
    assert shades(written.page) == {"3": (40, pytest.approx(200, abs=3)), "4": (8, pytest.approx(4, abs=2))}
    assert set(asked) == {"3", "4"}


def test_nothing_suspicious_is_a_list_without_a_page(tmp_path):
    (tmp_path / "review.html").write_text("an earlier list")
    listed, table, page, *_ = audited(SURE, three_classes(), tmp_path)
    assert len(listed) == 0
    assert table.read_text("utf-8-sig").startswith("id,")
    assert page is None
    assert not (tmp_path / "review.html").exists()


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
    for refuses in (review.check_listable, lambda d, _: audited(doubting(3), d, tmp_path / "list")):
        with pytest.raises(audit.AuditError, match=message):
            refuses(dataset, 1)
    assert not (tmp_path / "list").exists()


def test_a_failure_leaves_the_earlier_list(tmp_path, monkeypatch):
    dataset = three_classes(**NAMED)
    _, path, page, *_ = audited(doubting(3), dataset, tmp_path)
    before = path.read_bytes(), page.read_bytes()

    def full(first, path=None, *_, **__):
        if path is not None:
            path.write_text("id,ti")
        raise OSError("no space left on device")

    for what, writes in ((Image.Image, "save"), (pd.DataFrame, "to_csv")):
        monkeypatch.setattr(what, writes, full)
        with pytest.raises(OSError, match="no space"):
            audited(doubting(6), dataset, tmp_path)
        assert (path.read_bytes(), page.read_bytes()) == before
    for top in (0, -1):
        with pytest.raises(audit.AuditError, match=rf"^top={top}: allowed is a whole number from 1"):
            audited(doubting(3), dataset, tmp_path, top)


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
    listed, path, page, *_ = audited(found, dataset, tmp_path)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfid,title,label,")  # the mark by which Excel knows UTF-8
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {f"'{start}id", "p3"}
    strange = rows[f"'{start}id"]
    assert (strange["title"], strange["suggested_label"]) == (f"'{start}title", f"'{start}ö")
    assert (rows["p3"]["title"], rows["p3"]["label"], rows["p3"]["suggested_label"]) == ("p = q", f"'{start}a", "b")
    assert not any(cell[:1] in "=+-@\t\r" for row in rows.values() for cell in row.values())
    assert set(listed["id"]) == {f"{start}id", "p3"}
    assert {item[0] for item in data_of(page)["items"]} == {f"{start}id", "p3"}
    reasons = listed.assign(reason=f"{start} is still the most likely")  # which begins with the class
    write_csv(reasons, tmp_path / "reasons.csv")
    assert set(pd.read_csv(tmp_path / "reasons.csv")["reason"]) == {f"'{start} is still the most likely"}


ALL = {"p0", "p3", "p6", "p9"}
KEPT, UNSURE, CONFIRMED = ["p0", "keep", "a", "c"], ["p0", "unsure", "a", "c"], ["p6", "confirm", "a", "b"]
REVIEWS = {  # rows of each review, labels that changed since, what is left out, how many decisions fit nothing
    "none": ([], {}, set(), 0),
    "unsure is no answer": ([[KEPT, ["p3", "unsure", "a", "c"]]], {}, {"p0"}, 0),
    "not applied yet": ([[CONFIRMED]], {}, set(), 0),
    "applied, to what the network does not believe": ([[CONFIRMED]], {6: 1}, {"p6"}, 0),
    "filed elsewhere since": ([[["p9", "keep", "a", "c"]]], {9: 1}, set(), 0),
    "the last word counts": ([[KEPT], [UNSURE]], {}, set(), 0),
    "none is said of strangers": ([[UNSURE], [KEPT, ["q99", "keep", "a", "c"]]], {}, {"p0"}, 1),
    "two disagree": ([[[*KEPT, "Anna"]], [[*KEPT[:1], "confirm", *KEPT[2:], "Ben"]]], {}, set(), 0),
    "in a spreadsheet's spelling": ([[["p0", "keep", " A ", "c"]]], {}, {"p0"}, 0),
    "another word": ([[KEPT, ["p3", "ja", "a", "c"]]], {}, {"p0"}, 1),
    "all": ([[[id_, "keep", "a", "c"] for id_ in sorted(ALL)]], {}, ALL, 0),
}


@pytest.mark.parametrize(("reviews", "labels", "left_out", "unfit"), REVIEWS.values(), ids=REVIEWS)
def test_what_was_decided_is_not_listed_again(reviews, labels, left_out, unfit, tmp_path):
    """Products 0, 3, 6 and 9 are filed as a, and each seems to be c."""
    found, dataset = SURE.copy(), three_classes(**NAMED)
    found[[0, 3, 6, 9]] = [0.05, 0.05, 0.9]
    for k, label in labels.items():
        dataset.train_labels[k] = label
    for k, rows in enumerate(reviews):
        with (tmp_path / f"{k}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [(DECISION_COLUMNS + SIGNED)[: len(rows[0])] if rows else DECISION_COLUMNS, *rows]
            )
    decisions = in_order([tmp_path / f"{k}.csv" for k in range(len(reviews))])
    written = audited(found, dataset, tmp_path, decisions=decisions)
    assert set(pd.read_csv(written.table)["id"]) == set(written.listed["id"]) == ALL - left_out
    assert (written.left_out, written.unfit) == (len(left_out), unfit)
    assert (tmp_path / "review.html").exists() == (left_out != ALL)


def test_a_decision_finds_the_id_whose_zeros_a_spreadsheet_dropped(tmp_path):
    dataset = three_classes(train_ids=tuple(f"{k:03}" for k in range(12)))
    (tmp_path / "decided.csv").write_text("id,decision,label,suggested_label\n3,keep,a,c\n")
    decisions = in_order([tmp_path / "decided.csv"], dataset.train_ids)
    assert audited(doubting(3), dataset, tmp_path, decisions=decisions).left_out == 1


def test_a_list_that_a_person_has_written_into_is_not_written_over(tmp_path):
    written = audited(doubting(3), three_classes(**NAMED), tmp_path)
    table = pd.read_csv(written.table, dtype=str).assign(decision="confirm")
    table.to_csv(written.table, sep=";", index=False)
    before = written.table.read_bytes()
    with refused(review.AuditError, "labels.csv: has a column of decisions", "rename it"):
        audited(doubting(6), three_classes(**NAMED), tmp_path)
    assert written.table.read_bytes() == before
