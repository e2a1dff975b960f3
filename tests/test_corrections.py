"""From several people's decisions to what the shop has to change."""

import csv
import dataclasses

import pandas as pd
import pytest
import torch

from elrkit.catalogue.corrections import corrections
from elrkit.catalogue.decisions import SIGNED
from elrkit.catalogue.feed_files import DECISION_COLUMNS, feed_files
from elrkit.data import Dataset, one_each

NAMES = ("Shop > Hats", "Shop > Shoes", "Shop > Bags")
HATS, SHOES, BAGS = NAMES


def filed(*labels, **changes):
    """A dataset of products 00, 01, ... under these classes, the last one in the test set."""
    given, ids = torch.tensor([NAMES.index(each) for each in labels]), [f"{k:02}" for k in range(len(labels))]
    images = torch.zeros(len(labels), 8, 8, 3, dtype=torch.uint8)
    return Dataset(
        name="shop", class_names=NAMES, mean=(0.5,) * 3, std=(0.5,) * 3,
        train_pictures=one_each(images[:-1]), train_labels=given[:-1], train_truth=given[:-1],
        test_pictures=one_each(images[-1:]), test_labels=given[-1:], test_truth=given[-1:],
        train_ids=tuple(ids[:-1]), test_ids=tuple(ids[-1:]), **changes,
    )  # fmt: skip


@pytest.fixture
def decide(tmp_path):
    """Writes files of rows (id, decision, label, suggested label, reviewer, time), by name, and puts them together."""

    def run(dataset, **files):
        paths = []
        for name, rows in files.items():
            paths.append(tmp_path / f"{name}.csv")
            with open(paths[-1], "w", newline="") as file:
                csv.writer(file).writerows([(DECISION_COLUMNS + SIGNED)[: len(rows[0])], *rows])
        return corrections(dataset, paths, tmp_path / "out")

    return run


def moves(done):
    with open(done.table, encoding="utf-8-sig", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["id", "old_category", "new_category"]
    return rows


def word(decision, chosen=SHOES, who="Anna", time="2026-11-29T10:00:00.000Z", id_="00", label=HATS):
    return id_, decision, label, chosen, who, time


EARLY, LATE = "2026-11-29T08:00:00.000Z", "2026-11-29 12:00:00"  # as the page writes it, as a spreadsheet may
CASES = {  # the present category of product 00, the rows of each file, and what becomes of it
    "one confirms": (HATS, [[word("confirm")]], SHOES, "moved"),
    "into another than suggested": (HATS, [[word("confirm", BAGS)]], BAGS, "moved"),
    "in a spreadsheet's spelling": (HATS, [[word("confirm", "shop >shoes", label="SHOP > Hats")]], SHOES, "moved"),
    "by an id without its zeros": (HATS, [[word("confirm", id_="0")]], SHOES, "moved"),
    "one keeps": (HATS, [[word("keep")]], None, "kept"),
    "one is unsure": (HATS, [[word("unsure")]], None, "unsure"),
    "two agree": (HATS, [[word("confirm")], [word("confirm", who="Ben")]], SHOES, "moved"),
    "one is unsure, another not": (HATS, [[word("unsure")], [word("confirm", who="Ben")]], SHOES, "moved"),
    "they disagree": (HATS, [[word("confirm")], [word("keep", who="Ben")]], None, "disagreed"),
    "on where it belongs": (HATS, [[word("confirm")], [word("confirm", BAGS, "Ben")]], None, "disagreed"),
    "files without names": (HATS, [[word("confirm")[:4]], [word("keep")[:4]]], None, "disagreed"),
    "a second thought": (HATS, [[word("confirm")], [word("keep", who=" anna", time=LATE)]], None, "kept"),
    "in whatever order": (HATS, [[word("keep", time=LATE)], [word("confirm", time=EARLY)]], None, "kept"),
    "one without a time": (HATS, [[word("keep")], [word("confirm", time="29.11.26 11:00")]], None, "kept"),
    "two without a time": (HATS, [[word("keep", time="")], [word("confirm", time="")]], SHOES, "moved"),
    "an empty cell": (HATS, [[word("confirm")], [word("", time=LATE)]], SHOES, "moved"),
    "done meanwhile": (SHOES, [[word("confirm")]], None, "done"),
    "done and kept since": (SHOES, [[word("confirm")], [word("keep", BAGS, "Ben", label=SHOES)]], None, "done"),
}  # fmt: skip


@pytest.mark.parametrize(("present", "files", "target", "outcome"), CASES.values(), ids=CASES)
def test_what_becomes_of_a_product(present, files, target, outcome, decide):
    done = decide(filed(present, BAGS, BAGS), **{f"f{k}": rows for k, rows in enumerate(files)})
    assert moves(done) == ([["00", present, target]] if target else [])
    for name in ("moved", "kept", "done", "disagreed", "unsure"):
        assert getattr(done, name) == (name == outcome)
    assert done.unfit == ()
    assert (done.again is not None) == (outcome == "disagreed")


def test_a_disagreement_is_a_list_to_ask_again(decide, tmp_path):
    titles = dict(train_titles=("=A1", "b"), test_titles=("c",))
    anna = [word("confirm"), word("confirm", BAGS, id_="02")]
    ben = [word("confirm", BAGS, "Ben"), word("keep", "", "Ben", id_="02")]
    eve = [word("confirm", BAGS, "Eve"), word("unsure", BAGS, "Eve", id_="02")]
    done = decide(filed(HATS, HATS, HATS, **titles), anna=anna, ben=ben, eve=eve)
    again = pd.read_csv(done.again, dtype=str)
    listed = ["id", "title", "label", "suggested_label", "confidence", "reason", "decision", "reviewer"]
    assert again.columns.tolist() == listed
    said = f"Anna: {SHOES}; Ben: {BAGS}; Eve: {BAGS}", f"Anna: {BAGS}; Ben: {HATS}; Eve: unsure"
    assert again[["id", "title", "suggested_label", "reason"]].values.tolist() == [
        ["00", "'=A1", BAGS, said[0]], ["02", "c", BAGS, said[1]]
    ]  # fmt: skip
    assert again["confidence"].astype(float).tolist() == pytest.approx([2 / 3, 1 / 2])
    with pytest.raises(ValueError, match="no feed file"):  # what is written here is never taken for a feed
        feed_files(tmp_path / "out", [".csv"])
    assert decide(filed(HATS, HATS, HATS), anna=anna).again is None
    assert not done.again.exists()


def test_what_was_decided_together_settles_a_disagreement(tmp_path, decide):
    """The list that was filled in is an input then: it stays as it is, and what is open still goes beside it."""
    anna, ben = ([word("confirm", who=who, id_=id_) for id_ in ("00", "01")] for who in ("Anna", "Ben"))
    ben = [(id_, "keep", *rest) for id_, _, *rest in ben]
    first = decide(filed(HATS, HATS, HATS), anna=anna, ben=ben)
    assert (first.moved, first.disagreed) == (0, 2)
    table = pd.read_csv(first.again, dtype=str, keep_default_na=False)
    assert set(table["decision"]) == {""}
    table.loc[table["id"] == "00", ["decision", "suggested_label"]] = "confirm", BAGS
    table.to_csv(first.again, index=False)
    filled = first.again.read_bytes()
    files = [tmp_path / "anna.csv", first.again, tmp_path / "ben.csv"]
    second = corrections(filed(HATS, HATS, HATS), files, tmp_path / "out")
    assert moves(second) == [["00", HATS, BAGS]]
    assert (second.disagreed, second.unfit) == (1, ())
    with pytest.raises(
        ValueError, match=r"ask-again\.csv: has decisions and was not given; give it with the other files"
    ):
        corrections(filed(HATS, HATS, HATS), files[::2], tmp_path / "out")
    assert first.again.read_bytes() == filled
    assert pd.read_csv(second.again, dtype=str)["id"].tolist() == ["01"]
    assert second.again != first.again


def test_the_shop_is_told_what_it_filed_and_not_what_an_import_has_corrected(decide):
    corrected = filed(SHOES, BAGS, BAGS, train_filed=(HATS, BAGS), test_filed=(BAGS,))
    assert moves(decide(corrected, anna=[word("confirm")])) == [["00", HATS, SHOES]]


def test_decisions_that_fit_nothing_are_named_once_with_why(decide):
    rows = [
        word("confirm", id_="99"), word("yes", id_="01"), word("confirm", "Shop > Shoe", id_="02"),
        word("confirm", label=BAGS), word("keep", id_="03"),
    ]  # fmt: skip
    done = decide(filed(HATS, HATS, HATS, HATS), anna=rows, again=[word("confirm", id_="99", time=LATE)])
    assert (done.moved, done.kept) == (0, 1)
    assert sorted(done.unfit) == [
        "again.csv, line 2: 99: no product of the dataset has this id",
        "anna.csv, line 3: 01: 'yes' is neither confirm, keep nor unsure",
        f"anna.csv, line 4: 02: there is no category 'Shop > Shoe'; there are {SHOES}, {HATS}, {BAGS}",
        f"anna.csv, line 5: 00: it was decided on as {BAGS}, and is filed under {HATS} by now",
    ]
    with pytest.raises(ValueError, match="its products have no ids"):
        decide(dataclasses.replace(filed(HATS, HATS), train_ids=None), anna=rows)


def test_no_cell_of_the_corrections_is_a_formula(decide):
    names = ("=Hats", "+Shoes", "Bags")
    dataset = dataclasses.replace(filed(HATS, BAGS), class_names=names, train_ids=("-1",))
    done = decide(dataset, a=[("'-1", "confirm", "'=Hats", "'+Shoes", "'@me", EARLY)])
    assert moves(done) == [["'-1", "'=Hats", "'+Shoes"]]
