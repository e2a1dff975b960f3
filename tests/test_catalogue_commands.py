"""The catalogue's commands: what an audit refuses before it trains, what it says, and a review in several rounds."""

import csv
import io
import json
import os
import re
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_dataset import IDS, IMAGES, LABELS, small, write_dataset

from elrkit import records, runner, train
from elrkit.__main__ import main
from elrkit.catalogue import commands
from elrkit.catalogue import importer as catalogue


@pytest.fixture
def no_training(monkeypatch):
    def trained(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr(train, "fit", trained)


def test_control_c_ends_in_one_line(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(catalogue, "import_feed", interrupted)
    assert main(["import-feed", "feed", "--out", "o.npz"]) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on where it was\n"


def test_a_signal_ends_an_audit_once_its_run_has_stopped_cleanly(tmp_path, monkeypatch, capsys):
    def fit(config, *, should_stop, **_):
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop()
        raise train.Stopped

    monkeypatch.setattr(train, "fit", fit)
    assert main(["audit", write_dataset(tmp_path / "s.npz"), "--features", "none"]) == 130
    said = capsys.readouterr()
    assert "0 trained, 1 still missing; records in" in said.out
    assert said.err.endswith("stopped; the same command goes on where it was\n")


def test_audit_checks_the_dataset_before_it_trains(tmp_path, no_training, capsys):
    path = write_dataset(tmp_path / "s.npz", test_ids=IDS[0][:9])
    assert main(["audit", path, "--out", str(tmp_path / "list")]) == 2
    assert f"error: {path}: ids of training and test images: 'p0' is there more than once" in capsys.readouterr().err
    path = write_dataset(tmp_path / "s.npz")
    assert main(["audit", path, "--top", "0", "--out", str(tmp_path / "list")]) == 2
    assert "error: top=0: allowed is a whole number from 1" in capsys.readouterr().err
    decisions = tmp_path / "d.csv"
    decisions.write_text("no decisions")
    assert main(["audit", path, "--decisions", str(decisions), "--out", str(tmp_path / "list")]) == 2
    assert str(decisions) in capsys.readouterr().err
    assert not (tmp_path / "list").exists()


def test_audit_takes_a_built_in_dataset_and_a_single_epoch(tmp_path, capsys):
    assert main(["audit", "digits", "--features", "none", "--epochs", "1", "--out", str(tmp_path / "list")]) == 0
    assert "labels to look at" in capsys.readouterr().out
    [record] = [json.loads(path.read_text()) for path in records.results_root().rglob("*.json")]
    assert (record["config"]["dataset"], record["config"]["milestones"]) == ("digits", [])


def test_audit_looks_at_a_dataset_without_ids(tmp_path, monkeypatch, capsys, digits):
    rows = torch.cat([digits.train_images, digits.test_images]).flatten(1).float()
    np.save(tmp_path / "own.npy", rows.numpy())
    command = ["audit", "digits", "--features", str(tmp_path / "own.npy"), "--out", str(tmp_path / "list")]
    assert main(command) == 0
    assert "labels to look at" in capsys.readouterr().out
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


@pytest.mark.parametrize("error", [OSError("no space left on device"), train.Stopped()])
def test_audit_says_that_its_training_did_not_finish(error, tmp_path, monkeypatch, capsys):
    def ended(*_, **__):
        raise error

    monkeypatch.setattr(train, "fit", ended)
    path = write_dataset(tmp_path / "s.npz")
    assert main(["audit", path, "--features", "none", "--out", str(tmp_path / "list")]) == 1
    said = capsys.readouterr().err
    assert said.endswith("error: the training did not finish, see above; the same command goes on\n")
    assert ("no space left" if isinstance(error, OSError) else "stopped, its checkpoint is kept") in said
    assert not (tmp_path / "list").exists()


def test_audit_of_a_diverged_run_says_so(tmp_path, capsys):
    diverged = small(write_dataset(tmp_path / "s.npz"), lr=1e20)
    runner.train_missing([diverged])
    assert main(["audit", diverged.run_id, "--out", str(tmp_path / "list")]) == 2
    assert "its training diverged, so it says nothing of the labels" in capsys.readouterr().err


def test_audit_of_another_training_of_the_same_name_says_so(tmp_path, capsys):
    """As when two folders hold a shop.npz each: records are theirs, the place of networks is the machine's."""
    path = write_dataset(tmp_path / "s.npz")
    run = small(path)
    runner.train_missing([run])
    records.save(records.find(run) | {"weights_sha256": "0" * 64})
    assert main(["audit", run.run_id, "--out", str(tmp_path / "list")]) == 2
    said = capsys.readouterr().err
    assert f"run {run.run_id}: its network is not in" in said
    assert f"remove {records.record_path(run)} and train it here" in said
    assert not (tmp_path / "list").exists()


@pytest.mark.parametrize(("part", "left"), [({"train_size": 40}, 20), ({"split": "held_out"}, 6)])
def test_audit_says_what_the_run_has_not_seen(part, left, tmp_path, capsys):
    path = write_dataset(tmp_path / "s.npz")
    whole, some = small(path), small(path, **part)
    assert runner.train_missing([whole, some]) == []
    assert main(["audit", some.run_id, "--out", str(tmp_path / "list")]) == 0
    [(field, value)] = part.items()
    line = f"{left} of the dataset's 60 training images are not in the list: run {some.run_id} was not trained on them"
    assert f"{line} ({field}={value})\n" in capsys.readouterr().out
    assert main(["audit", whole.run_id, "--out", str(tmp_path / "list")]) == 0
    assert "not in the list" not in capsys.readouterr().out


def test_audit_of_a_feed_says_to_import_it_first(tmp_path, no_training, capsys):
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
        assert main(["audit", str(path)]) == 2
        assert f"error: {path}: a feed; first make a dataset of it with" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none.xml", tmp_path / "empty"):
        assert main(["audit", str(path)]) == 2
        assert "import-feed" not in capsys.readouterr().err


def test_a_second_review_goes_on_where_the_first_ended(tmp_path, capsys):
    """Half of a list is decided and applied; the next one leaves that half out."""
    found = np.eye(3)[LABELS] * 0.9 + 0.1 / 3
    found[[1, 4, 7, 10]] = [0.05, 0.05, 0.9]  # filed as b, look like c
    np.savez(tmp_path / "p.npz", train=found, test=np.eye(3)[LABELS[:9]])

    def listed(dataset, *decisions):
        arguments = ["audit", dataset, "--probabilities", str(tmp_path / "p.npz"), "--out", str(tmp_path / "list")]
        assert main([*arguments, *(["--decisions", *map(str, decisions)] if decisions else [])]) == 0
        return set(pd.read_csv(tmp_path / "list" / "labels.csv")["id"]), capsys.readouterr().out

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


def test_the_page_has_the_shop_s_own_pictures(tmp_path, capsys):
    """Of a feed made and imported, listed by another model: pictures in full where their folder is told."""
    feed, shop, out = (str(tmp_path / name) for name in ("feed", "shop.npz", "list"))
    assert main(["make-feed", "digits", feed, "--products-per-class", "20", "--unusable", "0.1"]) == 0
    assert main(["import-feed", f"{feed}/feed", "--images", feed, "--out", shop]) == 0
    said = capsys.readouterr().out
    assert f"every dropped product, with its reason: {tmp_path / 'shop.dropped.csv'}" in said
    assert (tmp_path / "shop.dropped.csv").read_text().count("\n") == 1 + 20
    with np.load(shop) as arrays:
        train = np.full((len(arrays["train_labels"]), 10), 0.1)
    np.save(tmp_path / "p.npy", train + np.eye(10)[0])  # everything looks like the first class
    command = ["audit", shop, "--probabilities", str(tmp_path / "p.npy"), "--out", out]

    def sizes():
        page = (tmp_path / "list" / "review.html").read_text()
        items = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)[1])["items"]
        photos = [tmp_path / "list" / "photos" / f"{item[-1]}.webp" for item in items]
        return {Image.open(io.BytesIO(photo.read_bytes())).size for photo in photos}

    assert main(command) == 0
    assert sizes() == {(32, 32)}
    assert "its pictures are 32 pixels wide; --images FOLDER shows the feed's own" in capsys.readouterr().out
    assert main([*command, "--images", feed]) == 0
    assert {size[0] for size in sizes()} <= set(range(80, 161))  # as the feed has them
    said = capsys.readouterr().out
    assert "pixels wide" not in said
    assert "pictures are missing" not in said
    (tmp_path / "other").mkdir()
    assert main([*command, "--images", str(tmp_path / "other")]) == 0
    assert re.search(r"warning: pictures are missing in .*/other, such as that of \w+", capsys.readouterr().out)
    assert main([*command, "--images", f"{feed}/none"]) == 2
    assert "does not exist; name the one that was given to import-feed" in capsys.readouterr().err
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for k in range(20):
            Image.fromarray(IMAGES[k]).save(tmp_path / "set" / name / f"{k}.png")
    assert main(["audit", f"{tmp_path}/set", "--images", feed]) == 2
    assert "are its own files; leave it out" in capsys.readouterr().err
