"""Files of decisions as the page and as spreadsheets save them."""

import csv

from hypothesis import given, settings
from hypothesis import strategies as st

from elrkit.catalogue.decisions import SIGNED, read_decisions
from elrkit.catalogue.feed_files import DECISION_COLUMNS
from elrkit.catalogue.rules import as_it_was, as_text


def test_decisions_come_back_as_text(tmp_path):
    rows = [["007", "confirm", "NA", "1e3"], ["a\nb", "keep", "", "x,y; z"]]
    path = tmp_path / "d.csv"

    def read(rows, columns=DECISION_COLUMNS, encoding="utf-8", **options):
        with path.open("w", newline="", encoding=encoding) as file:
            csv.writer(file, **options).writerows([columns, *rows])
        return read_decisions(path)

    def unsigned(found):
        assert (found[SIGNED] == "").all(axis=None)
        return found[DECISION_COLUMNS].values.tolist()

    found = read(rows)
    assert found.columns.tolist() == DECISION_COLUMNS + SIGNED
    assert unsigned(found) == rows
    assert found.index.tolist() == [2, 3]
    assert read([]).columns.tolist() == DECISION_COLUMNS + SIGNED
    assert read([]).empty
    # As spreadsheets save it.
    for delimiter in ",;\t":
        assert unsigned(read(rows, encoding="utf-8-sig", delimiter=delimiter)) == rows
    assert unsigned(read([["x", "Keep ", "a", "b"]])) == [["x", "keep", "a", "b"]]
    more = read([["n", "b", "a", "KEEP", "x"]], ["note", "suggested_label", "label", "decision", "id"])
    assert unsigned(more) == [["x", "keep", "a", "b"]]
    assert read([["x", "keep", "a", "b", ""], [""] * 5], [*DECISION_COLUMNS, ""]).index.tolist() == [2]
    # Who decided when, in files that say so.
    signed = ["x", "keep", "a", "b", "'=Anna", "2026-11-29T10:00:00.000Z"]
    assert read([signed], DECISION_COLUMNS + SIGNED).values.tolist() == [[*signed[:4], "=Anna", signed[5]]]
    moved = read([[*signed[:4], "29.11.2026 11:00"]], [*DECISION_COLUMNS, "time"], delimiter=";")
    assert moved[SIGNED].values.tolist() == [["", "29.11.2026 11:00"]]


def test_decisions_in_the_list_itself_lose_the_apostrophes_of_its_cells(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,label,suggested_label,reason,decision\n'-47,'- Kids,b,x,keep\n'a,b,c,x,confirm\n", "utf-8-sig")
    read = read_decisions(path)
    assert read[["id", "label"]].values.tolist() == [["-47", "- Kids"], ["'a", "b"]]
    plain = tmp_path / "decisions.csv"
    plain.write_text("id,decision,label,suggested_label\n'-47,keep,a,b\n''-47,keep,a,b\n'x,keep,a,b\n")
    assert read_decisions(plain)["id"].tolist() == ["-47", "'-47", "'x"]


@settings(deadline=None)
@given(st.text(alphabet="'=+-@\t\rab\u200b\ufeff\uff1d\uff20", max_size=6))
def test_a_cell_made_text_is_never_a_formula_and_comes_back(cell):
    assert not as_text(cell).lstrip("\u200b\ufeff").startswith(tuple("=+-@\t\r\uff1d\uff20"))
    assert as_it_was(as_text(cell)) == cell
