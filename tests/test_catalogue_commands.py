"""The catalogue's commands: what an audit refuses before it trains, what it says, and a review in several rounds."""

import csv
import io
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from refusals import one_line
from shops import arrays_of, data_of
from small_dataset import IDS, IMAGES, LABELS, small, write_dataset

from elrkit import records, runner, train
from elrkit.__main__ import main
from elrkit.catalogue import commands


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(train, "fit", None)


@pytest.fixture
def audit(tmp_path, capsys):
    """Audits into the folder `list`, ends with this code, and gives what was said, or complained of."""

    def audit(code, *arguments):
        assert main(["audit", *map(str, arguments), "--out", str(tmp_path / "list")]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return audit


def raising(error):
    def ended(*_, **__):
        raise error

    return ended


def test_audit_checks_the_dataset_before_it_trains(tmp_path, no_training, audit):
    path = write_dataset(tmp_path / "s.npz", test_ids=IDS[0][:9])
    assert f"error: {path}: ids of training and test images: 'p0' is there more than once" in audit(2, path)
    write_dataset(tmp_path / "s.npz")
    assert "error: top=0: allowed is a whole number from 1" in audit(2, path, "--top", 0)
    decisions = tmp_path / "d.csv"
    decisions.write_text("no decisions")
    assert str(decisions) in audit(2, path, "--decisions", decisions)
    assert not (tmp_path / "list").exists()


def test_audit_looks_at_a_dataset_without_ids(tmp_path, audit, digits):
    rows = torch.cat([digits.train_images, digits.test_images]).flatten(1).float()
    np.save(tmp_path / "own.npy", rows.numpy())
    assert "labels to look at" in audit(0, "digits", "--features", tmp_path / "own.npy")
    assert (tmp_path / "list" / "review.html").exists()


@pytest.mark.parametrize(("epochs", "milestones"), [(1, ()), (2, (1,)), (3, (1, 2)), (30, (12, 24))])
def test_the_learning_rate_of_a_short_training_falls_as_often_as_it_can(epochs, milestones, digits):
    assert commands._audit_config("digits", digits, epochs).milestones == milestones


@pytest.mark.parametrize(
    ("name", "dataset"),
    [("digits", "digits"), ("cifar10", "cifar10"), ("cifar100", "cifar100"), ("mine", "./mine"), ("m.npz", "m.npz")],
)
def test_audit_names_a_dataset_as_a_run_does(name, dataset, digits):
    assert commands._audit_config(name, digits, 30).dataset == dataset


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError("no space left on device"), "no space left"), (train.Stopped(), "stopped, its checkpoint is kept")],
)
def test_audit_says_that_its_training_did_not_finish(error, told, tmp_path, monkeypatch, audit):
    monkeypatch.setattr(train, "fit", raising(error))
    said = audit(1, write_dataset(tmp_path / "s.npz"), "--features", "none")
    assert said.endswith("error: the training did not finish, see above; the same command goes on\n")
    assert told in said
    assert not (tmp_path / "list").exists()


def test_audit_says_that_its_net_diverged_or_is_gone(tmp_path, monkeypatch, audit):
    """As when two folders hold a shop.npz each: records are theirs, the place of networks is the machine's."""
    path = write_dataset(tmp_path / "s.npz")
    diverged, run = small(path, lr=1e20), small(path)
    runner.train_missing([diverged, run])
    monkeypatch.setattr(commands, "_audit_config", lambda *given: diverged)
    assert "its training diverged, so it says nothing of the labels" in audit(2, path, "--features", "none")
    monkeypatch.setattr(commands, "_audit_config", lambda *given: run)
    records.save(records.find(run) | {"weights_sha256": "0" * 64})
    told = f"run {run.run_id}: its network is not in", f"remove {records.record_path(run)} to train it again"
    one_line(audit(2, path, "--features", "none").strip(), *told)
    assert not (tmp_path / "list").exists()


def test_audit_of_a_feed_says_to_import_it_first(tmp_path, no_training, audit):
    feed, folder, photos = tmp_path / "feed.xml", tmp_path / "shop", tmp_path / "shop-and-photos"
    feed.write_text("<products/>")
    for base in (folder, photos):
        for part in ("men", "women"):
            (base / part).mkdir(parents=True)
            (base / part / "shoes.csv").write_text("id,label,image\n")
    (photos / "photos").mkdir()
    for k in range(10):
        Image.fromarray(IMAGES[k]).save(photos / "photos" / f"{k}.png")
    for path in (feed, folder, photos, folder / "men" / "shoes.csv"):
        assert f"error: {path}: a feed; first make a dataset of it with" in audit(2, path)
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none.xml", tmp_path / "empty"):
        assert "import-feed" not in audit(2, path)


def test_corrections_need_decisions_and_a_dataset(tmp_path, monkeypatch, capsys):
    (tmp_path / "feed").mkdir()
    (tmp_path / "feed" / "a.csv").write_text("id,label,image\n1,hat,1.jpg\n")
    monkeypatch.setenv("ELRKIT_DATA", str(tmp_path))
    assert main(["corrections", "feed"]) == 2
    assert "error: no decisions file is given" in capsys.readouterr().err
    assert main(["corrections", "feed", str(tmp_path / "d.csv")]) == 2
    assert "error: feed: a feed; first make a dataset of it with" in capsys.readouterr().err


def test_a_second_review_goes_on_where_the_first_ended(tmp_path, audit):
    """Half of a list is decided and applied; the next one leaves that half out."""
    looks = np.concatenate([LABELS, LABELS[:9]])
    looks[[1, 4, 7, 10]] = 2  # filed as b, look like c
    seen = np.eye(3)[looks] + np.random.default_rng(0).normal(0, 0.05, (len(looks), 3))
    np.save(tmp_path / "seen.npy", seen)

    def listed(dataset, *decisions):
        asked = ["--decisions", *decisions] if decisions else []
        said = audit(0, dataset, "--features", tmp_path / "seen.npy", *asked)
        return set(pd.read_csv(tmp_path / "list" / "labels.csv")["id"]), said

    def save(name, *rows):
        with open(tmp_path / name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["id", "decision", "label", "suggested_label"], *rows])
        return tmp_path / name

    ids, said = listed(write_dataset(tmp_path / "s.npz"))
    assert ids == {"p1", "p4", "p7", "p10"}
    assert "left out" not in said
    first = save("first.csv", ["p1", "keep", "b", "c"], ["p4", "confirm", "b", "a"], ["p7", "unsure", "b", "c"])
    labels = LABELS.copy()
    labels[4] = 0  # as import-feed applies it
    second = write_dataset(tmp_path / "s2.npz", train_labels=labels)
    assert listed(second)[0] == {"p1", "p4", "p7", "p10"}
    ids, said = listed(second, first)
    assert ids == {"p7", "p10"}
    assert "2 products left out, which were confirmed or kept and are filed as was decided" in said
    assert "2 labels to look at" in said
    ids, said = listed(second, first, save("second.csv", ["p7", "keep", "b", "c"], ["p10", "keep", "b", "c"]))
    assert ids == set()
    assert "4 products left out" in said


def test_the_page_has_the_shop_s_own_pictures(tmp_path, audit, capsys):
    """Of a feed made and imported: pictures in full where their folder is told."""
    feed, shop = (str(tmp_path / name) for name in ("feed", "shop"))
    assert main(["make-feed", "digits", feed, "--products-per-class", "20", "--unusable", "0.1"]) == 0
    assert main(["import-feed", f"{feed}/feed", "--images", feed, "--out", shop]) == 0
    said = capsys.readouterr().out
    assert f"every dropped product, with its reason: {tmp_path / 'shop' / 'dropped.csv'}" in said
    assert (tmp_path / "shop" / "dropped.csv").read_text().count("\n") == 1 + 20
    arrays = arrays_of(tmp_path / "shop")
    looks = np.concatenate([arrays["train_labels"], arrays["test_labels"]])
    looks[::5] = (looks[::5] + 1) % 10  # what is filed wrong
    np.save(tmp_path / "seen.npy", np.eye(10)[looks] + np.random.default_rng(0).normal(0, 0.05, (len(looks), 10)))
    command = [shop, "--features", tmp_path / "seen.npy"]

    def sizes():
        items = data_of(tmp_path / "list" / "review.html")["items"]
        photos = [tmp_path / "list" / "photos" / f"{item[-1]}.webp" for item in items]
        return {Image.open(io.BytesIO(photo.read_bytes())).size for photo in photos}

    assert "its pictures are 32 pixels wide; --images FOLDER shows the feed's own" in audit(0, *command)
    assert sizes() == {(32, 32)}
    assert not re.search("pixels wide|pictures are missing", audit(0, *command, "--images", feed))
    assert {size[0] for size in sizes()} <= set(range(80, 161))  # as the feed has them
    (tmp_path / "other").mkdir()
    said = audit(0, *command, "--images", tmp_path / "other")
    assert re.search(r"warning: pictures are missing in .*/other, such as that of \w+", said)
    said = audit(2, *command, "--images", f"{feed}/none")
    assert "does not exist; name the one that was given to import-feed" in said
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for k in range(20):
            Image.fromarray(IMAGES[k]).save(tmp_path / "set" / name / f"{k}.png")
    assert "are its own files; leave it out" in audit(2, tmp_path / "set", "--images", feed)
