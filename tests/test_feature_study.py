"""The study of the list on features: its errors are of the kind that it says, and its rows are the finders' own."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from elrkit.catalogue import head
from elrkit.report import feature_study as study


def clusters(n=600, d=12, seed=0):
    draw = np.random.default_rng(seed)
    truth = draw.integers(5, size=n)
    centres = np.random.default_rng(9).normal(size=(5, d)) * 2
    return (centres[truth] + draw.normal(size=(n, d))).astype(np.float32), truth, centres


@pytest.mark.parametrize("kind", ["uniform", "siblings"])
def test_made_errors_are_as_many_as_said_and_of_their_kind(kind):
    rows, truth, centres = clusters()
    given = study.made_wrong(rows, truth, kind, 0.2, seed=1)
    moved = given != truth
    assert moved.sum() == 120
    assert (given == study.made_wrong(rows, truth, kind, 0.2, seed=1)).all()
    assert (given != study.made_wrong(rows, truth, kind, 0.2, seed=2)).any()
    scaled = (centres - rows.mean(0)) / rows.std(0)
    farthest = ((scaled[:, None] - scaled[None]) ** 2).sum(-1).argmax(1)
    reached = (given[moved] == farthest[truth[moved]]).mean()
    assert reached == 0 if kind == "siblings" else reached == pytest.approx(0.25, abs=0.1)


@pytest.fixture(scope="module")
def record():
    rows, truth, _ = clusters()
    given = study.made_wrong(rows, truth, "uniform", 0.2, seed=1)
    new, right, _ = clusters(400, seed=3)
    newly = study.made_wrong(new, right, "uniform", 0.2, seed=4)
    named = study.Study("blobs.npz", "uniform", 1, 0.2)
    made = study.run(named, rows, given, truth, tuple("abcde"), (new, newly, right))
    return made, rows, given, truth


def test_a_record_holds_what_each_finder_reaches(record):
    made, rows, given, truth = record
    wrong = given != truth
    assert (made["images"], made["wrong"]) == (600, 120)
    by = {each["finder"]: each for each in made["finders"]}
    assert set(by) == set(study.FINDERS)
    ours = head.audit(rows, given, tuple("abcde"), seed=1).suspicion
    assert by["head"]["average_precision"] == pytest.approx(average_precision_score(wrong, ours), abs=1e-3)
    for each in by.values():
        assert each["average_precision"] > 0.8
        assert each["found"][0] == 0
        assert each["found"][-1] == 1
        assert (np.diff(each["found"]) >= 0).all()
    assert made["check"]["products"] == 400
    assert made["check"]["passed"] == pytest.approx(0.95, abs=0.05)
    assert made["check"]["caught"] > 0.9
    assert made["check"]["suggested"] > 0.9
    assert sum(part["labels"] for part in made["confidence"]) == 600
    assert json.loads(json.dumps(made, allow_nan=False)) == made


def test_tables_are_means_over_seeds(record):
    made = record[0]
    twice = [made, {**made, "study": {**made["study"], "seed": 2}}]
    table = study.summary(study.rows(twice))
    assert table["finder"].tolist() == list(study.FINDERS.values())
    precision = 100 * made["finders"][0]["average_precision"]
    assert table["average precision"][0].startswith(f"{precision:.1f} (")
    said = study.calibration(twice)
    assert said.loc[0, ["labels", "errors", "wrong"]].tolist() == ["blobs", "uniform", "20"]
    assert study.checks(twice).loc[0, "errors"] == "uniform"
    top = made["confidence"][-1]
    assert said.loc[0, "said 90 to 100"] == f"{100 * top['wrong']:.0f}"


def test_committed_studies_name_no_machine():
    found = study.all_records()
    assert len(found) >= len(study.PEOPLE)
    for each in found:
        assert "/" not in each["study"]["dataset"]
        assert each["finders"][0]["finder"] == "head"
        assert {"torch", "cleanlab"} <= set(each["versions"])
