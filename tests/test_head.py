"""The layer over features: what it finds of wrong labels whose truth is known, and what its check lets through."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from elrkit.catalogue import checking, head
from elrkit.config import ConfigError

CLASSES = tuple("abcdefgh")


def products(n=1600, d=24, apart=1.0, wrong=0.15, seed=0):
    """(rows, labels, truth): a cluster a category in d dimensions, a share of the labels redrawn to another one."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(len(CLASSES), size=n)
    centres = np.random.default_rng(99).normal(size=(len(CLASSES), d)) * apart
    rows = (centres[truth] + draw.normal(size=(n, d))).astype(np.float32)
    labels = truth.copy()
    bad = draw.permutation(n)[: int(wrong * n)]
    labels[bad] = (labels[bad] + draw.integers(1, len(CLASSES), size=len(bad))) % len(CLASSES)
    return rows, labels, truth


@pytest.fixture(scope="module")
def audited():
    rows, labels, truth = products()
    return head.audit(rows, labels, CLASSES, "eye"), labels, truth


def test_wrong_labels_come_first_and_their_share_is_known(audited):
    found, labels, truth = audited
    assert average_precision_score(labels != truth, found.suspicion) > 0.95
    assert found.wrong.low <= 0.15 <= found.wrong.high
    assert found.wrong.high - found.wrong.low < 0.08
    assert (found.judged.others[:, 0] == truth)[labels != truth].mean() > 0.9


def test_confidence_is_the_share_that_is_wrong():
    rows, labels, truth = products(4000, apart=0.45, wrong=0.25, seed=1)
    found, bad = head.audit(rows, labels, CLASSES), labels != truth
    assert found.confidence.mean() == pytest.approx(0.25, abs=0.05)
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.01)):
        part = (found.confidence >= low) & (found.confidence < high)
        assert part.sum() > 50
        assert bad[part].mean() == pytest.approx(found.confidence[part].mean(), abs=0.12)


def test_the_same_call_finds_the_same(audited):
    rows, labels, _ = products()
    again = head.audit(rows, labels, CLASSES, "eye")
    assert (again.suspicion == audited[0].suspicion).all()


@pytest.mark.parametrize(("top_k", "off"), [(2, 0.02), (4, 0.01)])
def test_of_many_categories_the_largest_targets_make_the_same_list(audited, top_k, off, monkeypatch):
    rows, labels, _ = products()
    monkeypatch.setattr(head, "DENSE", len(labels) * len(CLASSES) - 1)
    monkeypatch.setattr(head, "TOP_K", top_k)
    kept = head.audit(rows, labels, CLASSES, "eye")
    assert not (kept.judged.own == audited[0].judged.own).all()
    np.testing.assert_allclose(kept.judged.own, audited[0].judged.own, atol=off)


def test_rows_and_chances_that_do_not_fit_into_memory_make_the_same_list(audited, monkeypatch, tmp_path):
    rows, labels, _ = products()
    path = tmp_path / "rows.npy"
    np.save(path, rows)
    monkeypatch.setattr(head, "IN_MEMORY", 0)
    monkeypatch.setattr(head, "PIECE", 100)
    found = head.audit(np.load(path, mmap_mode="r"), labels, CLASSES, "eye")
    np.testing.assert_allclose(found.judged.own, audited[0].judged.own, atol=1e-5)
    assert found.model.own == pytest.approx(audited[0].model.own, abs=1e-5)


def test_labels_that_few_products_bear_are_not_the_head_of_the_list():
    """Of one product each every score is high, wrong or not: it says no more than the share of all that are wrong."""
    draw, of = np.random.default_rng(0), lambda scores, size: np.stack([scores, np.full(len(scores), size)])
    own = np.concatenate([of(draw.uniform(0, 0.3, 1800), 100), of(draw.uniform(0.8, 1, 200), 1)], 1)
    made = np.concatenate([of(draw.uniform(0.7, 1, 180), 100), of(draw.uniform(0.8, 1, 20), 1)], 1)
    asked = np.concatenate([[[0.1, 0.9, 0.9], [100, 100, 2]], of(own[0, own[1] == 1], 1)], 1)
    found = head._confidence(own, made, 0.1, asked)
    assert found[:3].tolist() == [0, 1, 1]  # of two products each none was seen: as of more
    assert found[3:].mean() == pytest.approx(0.1, abs=0.02)


def test_the_estimated_share_is_exact_where_right_ones_never_score_high():
    draw = np.random.default_rng(0)
    made = draw.uniform(0.5, 1, 4000)
    own = np.concatenate([draw.uniform(0.5, 1, 300), draw.uniform(0, 0.5, 2700)])
    found = head.estimated_share(own, made, draw)
    assert found.mean == pytest.approx(0.1, abs=0.01)
    assert found.low <= 0.1 <= found.high


def test_the_check_lets_the_asked_share_through_and_catches_wrong_ones(audited):
    model = audited[0].model
    rows, labels, truth = products(3000, seed=2)
    right = labels == truth
    for share in (0.8, 0.95):
        found, passing = checking.check(model, rows, labels, share), checking.passing(model, share)
        assert (found.suspicion <= passing.threshold)[right].mean() == pytest.approx(share, abs=0.03)
        assert (found.suspicion > passing.threshold)[~right].mean() == pytest.approx(passing.caught, abs=0.08)
    looked = found.verdict == "look"
    assert (found.alternatives[looked & ~right, 0] == truth[looked & ~right]).mean() > 0.9
    assert (found.verdict == "unlike").mean() < 0.04
    assert (np.diff(found.chance, axis=1) <= 0).all()


def test_strangers_unread_photos_and_unknown_categories_are_told(audited):
    model = audited[0].model
    rows, labels, _ = products(300, seed=3)
    strange = np.random.default_rng(4).normal(size=rows.shape).astype(np.float32) * 3
    assert (checking.check(model, strange, labels).verdict == "unlike").mean() > 0.3
    unread = np.full_like(rows[:2], np.nan)
    assert (checking.check(model, unread, labels[:2]).verdict == "unlike").all()
    unknown = checking.check(model, rows, np.full(len(rows), -1))
    assert set(unknown.verdict) <= {"look", "unlike"}
    assert (unknown.alternatives[:, 0] >= 0).all()


def test_a_model_is_one_file(audited, tmp_path):
    model = audited[0].model
    path = tmp_path / "model.safetensors"
    checking.save_model(model, path)
    again = checking.load_model(path)
    assert (again.classes, again.backbone, again.wrong_share) == (CLASSES, "eye", model.wrong_share)
    rows, labels, _ = products(50, seed=5)
    one, other = (checking.check(each, rows, labels) for each in (model, again))
    assert (one.verdict == other.verdict).all()
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("content", [b"", b"x" * 40, b'\x08\0\0\0\0\0\0\0{"a":1}]', None])
def test_what_is_no_model_is_named(content, tmp_path):
    path = tmp_path / "other.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"other\.safetensors"):
        checking.load_model(path)


def test_too_few_products_and_bad_shares_are_refused(audited):
    with pytest.raises(ConfigError, match="8 products of 1 categories"):
        head.audit(np.ones((8, 3), np.float32), np.zeros(8, np.int64), ("a", "b"))
    with pytest.raises(ConfigError, match="let_through=1"):
        checking.passing(audited[0].model, 1.0)


def test_what_a_person_has_left_of_the_list_is_estimated_from_what_was_filed():
    """Who has corrected the head of the list has taken the errors that made ones are like."""
    left, blind, found = [], [], []
    for seed in (2, 3, 4):
        rows, labels, truth = products(2000, apart=0.55, wrong=0.2, seed=seed)
        seen = np.argsort(-head.audit(rows, labels, CLASSES).suspicion)[:300]
        corrected = labels.copy()
        corrected[seen] = truth[seen]
        left.append((corrected != truth).mean())
        blind.append(head.audit(rows, corrected, CLASSES).wrong.mean)
        found.append(head.audit(rows, corrected, CLASSES, filed=labels).wrong.mean)
    assert 0.05 < np.mean(left) < 0.15
    assert np.mean(found) == pytest.approx(np.mean(left), rel=0.25)
    assert np.mean(blind) < 0.1 * np.mean(left)  # of the labels as they are, made errors say that none is wrong
