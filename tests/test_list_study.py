"""The study of the list on features: its errors are of the kind that it says, and its rows are the finders' own."""

import itertools
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from small_dataset import write_dataset

from elrkit import data
from elrkit.__main__ import main
from elrkit.catalogue import audit, head
from elrkit.config import ConfigError
from elrkit.report import list_study as study


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


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("order", [(3, 2, 2, 2, 1, 1), (1, 1, 1, 1, 1, 1), (6, 5, 4, 3, 2, 1)])
def test_equal_scores_mean_the_expected_value_over_all_orders(order, share):
    wrong = np.array([True, False, True, False, False, True])
    looks, hits = [], []
    for each in itertools.permutations(range(6)):
        met = np.cumsum([wrong[i] for i in sorted(each, key=lambda i: -order[i])])
        looks.append(1 + np.searchsorted(met, 2))
        hits.append(met[max(1, round(share * 6)) - 1])
    found = study.measured(wrong, np.array(order))
    assert found["effort_half"] == pytest.approx(np.mean(looks), abs=1e-4)
    assert found["found"][study.LOOKS.index(share)] == pytest.approx(np.mean(hits) / 3, abs=1e-4)
    if share == 0.01:  # of six, one
        assert found["precision_at_1"] == pytest.approx(np.mean(hits), abs=1e-4)
    of_one = study.measured(wrong, np.zeros(6))
    assert of_one["effort_half"] == pytest.approx(found["effort_half_random"])


def test_people_s_labels_are_of_the_study_s_images_and_the_check_s_are_others(tmp_path, monkeypatch):
    """Pictures whose pixels hold their own place and true class, which features hand on."""
    place, human = np.arange(50_000), np.random.default_rng(0).integers(0, 10, 50_000)
    pictures = np.stack([place >> 8, place & 255, place % 10], 1).astype(np.uint8).reshape(-1, 1, 1, 3)
    images, labels = data.one_each(pictures), torch.from_numpy(place % 10)
    names = tuple("abcdefghij")
    whole = data.Dataset("cifar10", images, labels, images, labels, names, (0.5,) * 3, (0.5,) * 3, labels, labels)
    np.savez(tmp_path / "cifar10n.npz", clean=place % 10, worst=human)
    monkeypatch.setenv("ELRKIT_DATA", str(tmp_path))
    monkeypatch.setattr(data, "load", lambda name: whole)
    monkeypatch.setattr(audit, "photo_rows", lambda chosen, *_: chosen.train_images.numpy().reshape(-1, 3))
    parts = study.problem(study.Study("cifar10", "worst", 0), None, tmp_path)[:2]
    at = [(256 * part.rows[:, 0] + part.rows[:, 1]).astype(int) for part in parts]
    for part, index in zip(parts, at, strict=True):
        assert (part.truth == index % 10).all()
        assert (part.truth == part.rows[:, 2]).all()
        assert (part.labels == human[index]).all()
    assert len(set(at[0])) == study.IMAGES
    assert 0.85 * study.IMAGES < len(at[1]) < study.IMAGES
    assert not set(at[0]) & set(at[1])


@pytest.fixture(scope="module")
def record():
    rows, truth, _ = clusters()
    given = study.made_wrong(rows, truth, "uniform", 0.2, seed=1)
    new, right, _ = clusters(400, seed=3)
    newly = study.made_wrong(new, right, "uniform", 0.2, seed=4)
    named = study.Study("blobs.npz", "uniform", 1, 0.2)
    made = study.run(named, study.Labelled(rows, given, truth), study.Labelled(new, newly, right), tuple("abcde"))
    return made, rows, given, truth


def test_a_record_holds_what_each_finder_reaches(record):
    made, rows, given, truth = record
    wrong = given != truth
    assert (made["images"], made["wrong"]) == (600, 120)
    by = {each["finder"]: each for each in made["finders"]}
    assert set(by) == set(study.FINDERS) - {"scratch"}
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
    assert table["finder"].tolist() == list(study.FINDERS.values())[:3]
    precision = 100 * made["finders"][0]["average_precision"]
    assert table["average precision"][0].startswith(f"{precision:.1f} (")
    assert study.rows(twice, study.first_audit())["finder"].value_counts()["scratch"] == 9
    said = study.calibration(twice)
    assert said.loc[0, ["labels", "errors", "wrong"]].tolist() == ["blobs", "uniform", "20"]
    assert study.checks(twice).loc[0, "errors"] == "uniform"
    cells = {(row["chosen"], row["share"]): row for row in made["cleaning"]}
    gain = 100 * (cells["list", 0.1]["accuracy"] - cells["nothing", 0]["accuracy"])
    gains = study.gains_text(study.gains(twice))
    assert gains["labels looked at"].tolist() == ["1 %", "5 %", "10 %"]
    assert gains.loc[2, "gain, list"].startswith(f"{gain:+.1f} (")
    assert gains.loc[2, "corrected, list"] == str(cells["list", 0.1]["corrected"])
    top = made["confidence"][-1]
    assert said.loc[0, "said 90 to 100"] == f"{100 * top['wrong']:.0f}"


def test_a_category_that_lost_its_labels_is_judged_all_the_same(record):
    _, rows, given, truth = record
    left = given.copy()
    left[left == 2] = 0
    made = study.run(study.Study("x", "uniform", 0, 0.2), *[study.Labelled(rows, left, truth)] * 2, tuple("abcde"))
    assert made["wrong"] == (left != truth).sum()
    assert made["finders"][1]["average_precision"] > 0.3
    with pytest.raises(ConfigError, match=r"rate=0\.001: moves none of 600 labels"):
        study.run(study.Study("x", "uniform", 0, 0.001), *[study.Labelled(rows, truth, truth)] * 2, tuple("abcde"))


def test_a_person_who_looks_gives_the_true_label(record):
    """600 products, 120 of them wrong: 10 % at random hold 12 +- 3 of these, and the list almost nothing else."""
    cells = {(row["chosen"], row["share"]): row for row in record[0]["cleaning"]}
    assert len(cells) == 7
    assert cells["nothing", 0]["corrected"] == 0
    assert 4 < cells["random", 0.1]["corrected"] < 22 < 50 < cells["list", 0.1]["corrected"] <= 60


def test_what_a_regression_predicts_of_wrong_labels_is_foreseen(record):
    """Errors that can be foreseen: every product of the last category bears the first one's label."""
    _, rows, _, truth = record
    given = np.where(truth == 4, 0, truth)
    made = study.run(study.Study("cifar10", "worst", 0), *[study.Labelled(rows, given, truth)] * 2, tuple("abcde"))
    assert made["foreseen"] > 0.95
    assert record[0]["foreseen"] < 0.1
    assert study.foreseen([made, record[0]])["errors"].tolist() == ["worst, by people", "uniform, made"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"seeds": [-1]}, "seeds=-1: allowed are whole"), ({"rate": 1.0}, r"rate=1\.0: allowed is a share")],
)
def test_studies_that_cannot_be_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        study.of_dataset("digits", **options)


def test_a_study_of_a_dataset_is_made_once_and_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path / "runs"))
    path = write_dataset(tmp_path / "s.npz")
    command = ["list-study", path, "--seeds", "0", "--rate", "0.2"]
    assert main(command) == 0
    assert "made features-s-siblings-20-seed0\n" in capsys.readouterr().out
    found = study.gather(study.of_dataset(path, [0], 0.2))
    assert [made["study"]["errors"] for made in found] == ["siblings", "uniform"]
    for made in found:
        assert made["study"]["dataset"] == "s.npz"
        assert (made["images"], made["check"]["products"]) == (60, 9)
        assert made["wrong"] == pytest.approx(12, abs=3)
    monkeypatch.setattr(study, "run", lambda *_: pytest.fail("made again"))
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("there: ")


def test_the_committed_tables_of_a_large_shop_add_up():
    tail = study.long_tail()
    assert (tail["products"].sum(), tail["wrong"].sum()) == (15_000, 1_500)
    for order in ("targets", "confidence"):
        listed = tail[f"in the first tenth by {order} (wrong ones)"].str.extract(r"(\d+) \((\d+)\)").astype(int)
        assert listed[0].sum() == 1_500
        assert (listed[1] <= tail["wrong"]).all()
    steps = study.scale()
    assert steps["step"].nunique() == 5
    assert (steps.groupby("step")["products"].nunique() == 3).all()
    assert steps["gigabytes"].max() < 4.5  # 2.4 of them a mapped file


def test_committed_studies_name_no_machine():
    found = study.gather()
    assert {each["study"]["dataset"] for each in found} == {"cifar10", "clothing.npz"}
    assert len(found) == 15
    for each in found:
        assert each["schema"] == study.SCHEMA
        assert each["finders"][0]["finder"] == "head"
        assert {"torch", "cleanlab"} <= set(each["versions"])
