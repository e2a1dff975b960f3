"""The stores keep what is valid and name what is not; their tables; records from another machine."""

import copy
import functools
import json
import logging
import math
import operator
import os
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from small_dataset import comparable, tiny

from elrkit import records, runner, train
from elrkit.config import RETIRED, ConfigError, RunConfig, cifar10_recipe


@pytest.fixture(scope="session")
def trained(digits):
    configs = tiny(split="held_out", epochs=3, eval_every=3), tiny(), tiny(lr=1e30)
    return [train.fit(config, dataset=digits) for config in configs]


@pytest.fixture
def three(trained):
    """A record with all that there may be in one, a plain one, and that of a run that diverged."""
    return copy.deepcopy(trained)


@pytest.fixture
def record(three):
    return three[0]


pytestmark = pytest.mark.usefixtures("no_evidence")


# The stores


def test_what_is_saved_is_read(record):
    path = records.save(record)
    assert path == records.results_root() / "digits" / f"{record['run_id']}.json"
    found = records.read(path)
    assert comparable(found) == comparable(record)
    assert found["timing"]["seconds"] == pytest.approx(record["timing"]["seconds"], abs=1e-3)
    assert comparable(records.find(RunConfig(**record["config"]))) == comparable(record)
    assert [r["run_id"] for r in records.read_all(own=True)] == [record["run_id"]]
    assert records.read_all() == []
    assert records.save(record) == path  # again: replaced
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_ones_own_runs_are_no_evidence(three, tmp_path, monkeypatch):
    """Both are found, the report reads the committed ones alone, and nothing is written there but by who says so."""
    record, plain, _ = three
    evidence = tmp_path / "checkout" / "results" / "runs"
    evidence.mkdir(parents=True)
    monkeypatch.setenv("ELRKIT_RESULTS", str(evidence))
    committed = records.save(record)
    monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path / "own"))
    (tmp_path / "checkout" / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "checkout" / "notebooks")
    assert records.evidence_root() == evidence
    own = records.save(plain)
    assert own.is_relative_to(tmp_path / "own")
    assert [r["run_id"] for r in records.read_all()] == [record["run_id"]]
    assert [r["run_id"] for r in records.read_all(own=True)] == [plain["run_id"], record["run_id"]]
    configs = [RunConfig(**r["config"]) for r in (record, plain)]
    assert [records.find(config)["run_id"] for config in configs] == [record["run_id"], plain["run_id"]]
    assert [records.record_path(config) for config in configs] == [committed, own]
    assert runner.missing(configs) == []
    changed = copy.deepcopy(record)  # one's own comes first, unless it is damaged
    changed["versions"]["torch"] = "mine"
    path = records.save(changed)
    assert records.find(configs[0])["versions"]["torch"] == "mine"
    assert len(records.read_all(own=True)) == 2
    path.write_text("{")
    assert records.find(configs[0])["versions"]["torch"] != "mine"
    assert records.beside("audit", "x.json") == tmp_path / "audit" / "x.json"
    (evidence.parent / "audit").mkdir()
    (evidence.parent / "audit" / "x.json").touch()
    assert records.beside("audit", "x.json") == evidence.parent / "audit" / "x.json"
    monkeypatch.setenv("ELRKIT_RESULTS", "../results/runs")  # the maintainer's campaign: both are one
    assert records.stores() == [Path("../results/runs")]
    assert [r["run_id"] for r in records.read_all(own=True)] == [record["run_id"]]


def test_where_records_go_by_default(monkeypatch):
    monkeypatch.delenv("ELRKIT_RESULTS")
    assert records.results_root() == Path.home() / ".cache" / "elrkit" / "runs"
    assert records.record_path(tiny(dataset="shop/photos")).parent.name == "other"


# What is put where in a record; GONE: the entry is taken out.
GONE = object()
SPOILED = {
    "schema=2: should be 1": {"schema": 2},
    "schema: field required": {"schema": GONE},
    "run_id=5: should be a valid string": {"run_id": 5},
    "run_id 0123456789ab is not the hash": {"run_id": "0123456789ab"},
    "is not the hash": {"config.seed": 9},
    "status='done': should be 'finished' or 'diverged'": {"status": "done"},
    "config not valid (lr=-1": {"config.lr": -1},
    "config not valid (colour: unknown field": {"config.colour": "red"},
    "config not valid (noise=[]": {"config.noise": []},
    "curves of lengths [1, 3] for 3 epochs": {"curves.test_top1": [0.5]},
    "curves.test_top1=0.5: should be a valid list": {"curves.test_top1": 0.5},
    "curves lack epoch, test_top1 or train_loss": {"curves.train_loss": GONE},
    "a curve of the test lacks an epoch": {"curves.test_top1": [0.5, None, 0.5]},
    "curves.test_loss.0='low': should be a valid number": {"curves.test_loss": ["low", 1.0, 1.0]},
    "curves.test_top5.0=10000": {"curves.test_top5": [10**400, 1.0, 1.0]},
    "curves.lr.0=nan: should be a finite number": {"curves.lr": [math.nan, 1.0, 1.0]},
    "the curve 'test_top1' holds something that is no share of 1": {"curves.test_top1": [0.5, 99.0, 0.5]},
    "the curve 'wrong_memorized' holds something that is no share": {"curves.wrong_memorized": [None, None, -0.1]},
    "the epochs do not ascend from 1": {"curves.epoch": [1, 3, 2]},
    "data.realized_noise_rate=1.5: should be less than or equal to 1": {"data.realized_noise_rate": 1.5},
    "timing=[]: should be a valid dictionary": {"timing": []},
    "versions: field required": {"versions": GONE},
}


def spoil(record, changes):
    for path, value in changes.items():
        *keys, last = path.split(".")
        part = functools.reduce(operator.getitem, keys, record)
        part.pop(last) if value is GONE else part.update({last: value})


BROKEN = {
    "not readable as JSON": [
        b"", b"{", b'{"schema": 1,', b"\0" * 100, b"[" * 100_000, b"9" * 5000, b"\xff\xfe\x00"
    ],
    "not a JSON object": [b"[]", b"5", b"null", b'"record"'],
    "schema: field required": [b"{}", b'{"name": "a package", "version": 1}'],
    "not a regular file": [Path.mkdir, os.mkfifo],
}  # fmt: skip


def assert_named_and_skipped(config, path, message, caplog):
    with refused(records.RecordError, message, match=f"^{path}"):
        records.read(path)
    with caplog.at_level(logging.WARNING):
        assert records.read_all(own=True) == []
        assert records.find(config) is None
    assert [str(path) in said for said in caplog.messages] == [True, True]
    assert runner.missing([config]) == [config]


@pytest.mark.parametrize("message", SPOILED)
def test_a_record_that_is_not_valid_is_named_and_skipped(record, caplog, message):
    config = RunConfig(**record["config"])
    path = records.save(record)
    spoil(record, SPOILED[message])
    path.write_text(json.dumps(record))
    assert_named_and_skipped(config, path, message, caplog)
    with pytest.raises(records.RecordError):
        records.save(record)


@pytest.mark.parametrize(
    ("message", "content"), [(m, content) for m, contents in BROKEN.items() for content in contents]
)
def test_a_file_that_is_no_record_is_named_and_skipped(record, caplog, message, content):
    path = records.save(record)
    path.unlink()
    content(path) if callable(content) else path.write_bytes(content)
    assert_named_and_skipped(RunConfig(**record["config"]), path, message, caplog)


def test_good_records_are_read_beside_bad_ones(record, caplog):
    path = records.save(record)
    (path.parent / "torn.json").write_text("{")
    copied = path.with_name("0123456789ab.json")
    copied.write_text(path.read_text())
    (path.parent / "notes.txt").write_text("no record")
    assert [r["run_id"] for r in records.read_all(own=True)] == [record["run_id"]]
    assert "torn.json" in caplog.text
    assert f"{copied}: holds the record of run {record['run_id']}" in caplog.text


def full_disk(_):
    raise OSError(28, "No space left on device")


def test_a_failed_write_names_the_file_and_leaves_the_old_record(record, monkeypatch):
    path = records.save(record)
    before = path.read_text()
    monkeypatch.setattr(os, "fsync", full_disk)
    record["timing"]["seconds"] = 0.0
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        records.save(record)
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# Tables


def test_table(three):
    record, plain, diverged = three
    table = records.table([record, diverged, plain]).set_index("run_id")
    row, curves = table.loc[record["run_id"]], record["curves"]
    for name in ("loss", "noise_rate", "seed", "lr", "width", "split"):
        assert row[name] == record["config"][name]
    for name, column in curves.items():
        if name not in ("epoch", "lr"):
            assert row[name] == column[-1]
    assert row["test_top1_best"] == max(curves["test_top1"])
    chosen = int(np.argmax(curves["held_out_top1_noisy"]))
    assert row["test_top1_selected"] == curves["test_top1"][chosen]
    assert row["noise_realized"] == record["data"]["realized_noise_rate"]
    assert row["seconds"] == record["timing"]["seconds"]
    assert (row["train_images"] + row["held_out_images"], row["test_images"]) == (190, 450)
    assert (row["status"], row["scale"], row["threads"]) == ("finished", "digits", 1)
    assert math.isnan(table.loc[plain["run_id"], "test_top1_selected"])
    lost = records.table([diverged])  # alone it has all columns too
    for row in (table.loc[diverged["run_id"]], lost.iloc[0]):
        assert row["status"] == "diverged"
        assert row[["test_top1", "wrong_memorized", "wrong_correct"]].isna().all()
    assert records.summary(lost).empty
    assert records.table([]).empty
    assert {"run_id", "test_top1", *RunConfig.model_fields} <= set(records.table([]).columns)


def test_a_field_that_is_younger_than_a_record_holds_what_was_done_then(record):
    """Else an older and a newer record of one setting would count as different settings."""
    older = {**record, "config": {k: v for k, v in record["config"].items() if k != "test_every"}}
    for frame in (records.table([older, record]), records.curves([older, record])):
        assert (frame["test_every"] == 1).all()


@pytest.mark.parametrize("field", ["weight_average", "sam_adaptive", "sam_double_update_of"])
def test_a_record_with_a_field_that_is_no_more_is_the_same_run(record, field):
    config = record["config"] | {field: RETIRED[field]}
    assert RunConfig(**config).run_id == record["run_id"]
    with refused(ConfigError, f"{field}: unknown field"):
        RunConfig(**config | {field: "other"})


def test_curves(three):
    record, _, diverged = three
    assert diverged["curves"] == {}
    frame = records.curves(three)
    assert len(frame) == 3 + 2
    part = frame[frame["run_id"] == record["run_id"]]
    for name in ("epoch", "test_top1", "lr"):
        assert part[name].tolist() == record["curves"][name]
    assert part["wrong_memorized"].isna().tolist() == [True, True, False]
    assert set(part["noise_rate"]) == {0.4}
    assert len(records.curves([])) == 0


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, "paper"),
        ({"epochs": 50}, "paper"),  # as the paper's SAM code
        ({"epochs": 30}, "other"),
        ({"train_size": 1000}, "other"),
        ({"model": "small_resnet"}, "cpu"),
        ({"dataset": "digits", "batch_size": 64}, "digits"),
    ],
)
def test_scales(changes, scale):
    assert records.scale(cifar10_recipe("elr", 0.2).with_(**changes)) == scale
