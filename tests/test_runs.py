"""The store keeps what is valid and names what is not; many runs are trained once each, and stopped cleanly."""

import copy
import functools
import io
import json
import logging
import math
import os
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
from processes import PATIENCE_SECONDS, context, end, start, wait_until

from elrkit import data, records, runner, train
from elrkit.config import ConfigError, RunConfig, cifar10_recipe
from elrkit.train import comparable


def tiny(**changes):
    return RunConfig(**{"train_size": 190, "width": 8, "epochs": 2, "noise_rate": 0.4, "lr": 0.05, **changes})


LONG = tiny(epochs=10_000)  # minutes: to be stopped


@pytest.fixture(scope="session")
def trained(digits):
    return train.fit(tiny(split="held_out", epochs=3, eval_every=3), dataset=digits)


@pytest.fixture
def record(trained):
    return copy.deepcopy(trained)


# The store


def test_what_is_saved_is_read(record):
    path = records.save(record)
    assert path == records.results_root() / "digits" / f"{record['run_id']}.json"
    found = records.read(path)
    assert comparable(found) == comparable(record)
    assert found["timing"]["seconds"] == pytest.approx(record["timing"]["seconds"], abs=1e-3)
    assert comparable(records.find(RunConfig(**record["config"]))) == comparable(record)
    assert [r["run_id"] for r in records.read_all()] == [record["run_id"]]
    assert records.save(record) == path  # again: replaced
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def set_in(record, *path, to):
    for key in path[:-1]:
        record = record[key]
    record[path[-1]] = to


SPOILED = {
    "schema 2, this version reads 1": lambda r: set_in(r, "schema", to=2),
    "'schema' is missing or not of type int": lambda r: r.pop("schema"),
    "'run_id' is missing or not of type str": lambda r: set_in(r, "run_id", to=5),
    "run_id 0123456789ab is not the hash": lambda r: set_in(r, "run_id", to="0123456789ab"),
    "is not the hash": lambda r: set_in(r, "config", "seed", to=9),
    "status 'done' is neither finished nor diverged": lambda r: set_in(r, "status", to="done"),
    "config not valid (lr=-1": lambda r: set_in(r, "config", "lr", to=-1),
    "config not valid (colour: unknown field": lambda r: set_in(r, "config", "colour", to="red"),
    "config not valid (noise=[]": lambda r: set_in(r, "config", "noise", to=[]),
    "curves of lengths [2, 3] for 3 epochs": lambda r: r["curves"]["test_top1"].pop(),
    "curves of lengths [-1, 3] for 3 epochs": lambda r: set_in(r, "curves", "test_top1", to=0.5),
    "curves lack epoch, test_top1 or train_loss": lambda r: r["curves"].pop("train_loss"),
    "the curve 'test_top1' holds something that is no number": lambda r: set_in(r, "curves", "test_top1", 1, to=None),
    "the curve 'test_loss' holds something that is no number": lambda r: set_in(r, "curves", "test_loss", 0, to="low"),
    "the curve 'test_top5' holds something that is": lambda r: set_in(r, "curves", "test_top5", 0, to=10**400),
    "the curve 'lr' holds something that is no number": lambda r: set_in(r, "curves", "lr", 0, to=math.nan),
    "'timing' is missing or not of type dict": lambda r: set_in(r, "timing", to=[]),
    "'versions' is missing or not of type dict": lambda r: r.pop("versions"),
}

BROKEN = {
    "not readable as JSON": ["", "{", '{"schema": 1,', "\0" * 100, "[" * 100_000, "9" * 5000],
    "not a JSON object": ["[]", "5", "null", '"record"'],
    "'schema' is missing": ["{}", '{"name": "a package", "version": 1}'],
}


def assert_named_and_skipped(config, path, message, caplog):
    with pytest.raises(records.RecordError) as caught:
        records.read(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING):
        assert [r["run_id"] for r in records.read_all()] == []
        assert records.find(config) is None
    assert [str(path) in r.getMessage() for r in caplog.records] == [True, True]
    assert runner.missing([config]) == [config]


@pytest.mark.parametrize("message", SPOILED)
def test_a_record_that_is_not_valid_is_named_and_skipped(record, caplog, message):
    config = RunConfig(**record["config"])
    path = records.save(record)
    SPOILED[message](record)
    path.write_text(json.dumps(record))
    assert_named_and_skipped(config, path, message, caplog)
    with pytest.raises(records.RecordError):
        records.save(record)


@pytest.mark.parametrize(("message", "text"), [(m, text) for m, texts in BROKEN.items() for text in texts])
def test_a_file_that_is_no_record_is_named_and_skipped(record, caplog, message, text):
    path = records.save(record)
    path.write_text(text)
    assert_named_and_skipped(RunConfig(**record["config"]), path, message, caplog)


def test_bytes_and_folders_are_named_and_skipped(record, caplog):
    path = records.save(record)
    path.write_bytes(b"\xff\xfe\x00")
    assert_named_and_skipped(RunConfig(**record["config"]), path, "not readable as JSON", caplog)
    caplog.clear()
    path.unlink()
    path.mkdir()
    assert_named_and_skipped(RunConfig(**record["config"]), path, "not readable as JSON", caplog)


def test_good_records_are_read_beside_bad_ones(record, caplog):
    path = records.save(record)
    (path.parent / "torn.json").write_text("{")
    copied = path.with_name("0123456789ab.json")
    copied.write_text(path.read_text())
    (path.parent / "notes.txt").write_text("no record")
    assert [r["run_id"] for r in records.read_all()] == [record["run_id"]]
    assert "torn.json" in caplog.text
    assert f"{copied}: holds the record of run {record['run_id']}" in caplog.text


def test_a_failed_write_leaves_the_old_record_and_nothing_else(record, monkeypatch):
    path = records.save(record)
    before = path.read_text()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    record["timing"]["seconds"] = 0.0
    with pytest.raises(OSError, match="No space left"):
        records.save(record)
    assert path.read_text() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_store_is_found_from_below(tmp_path, monkeypatch):
    monkeypatch.delenv("ELRKIT_RESULTS")
    (tmp_path / "results" / "runs").mkdir(parents=True)
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert records.results_root() == tmp_path / "results" / "runs"
    assert records.record_path(tiny(dataset="shop/photos")).parent.name == "other"


# Tables


def test_the_table_of_diverged_runs_alone_has_its_columns(digits):
    table = records.table([train.fit(tiny(lr=1e30), dataset=digits)])
    assert list(table["status"]) == ["diverged"]
    assert table[["test_top1", "wrong_memorized", "wrong_correct"]].isna().all(axis=None)
    assert records.summary(table).empty


def test_table(record, digits):
    diverged = train.fit(tiny(lr=1e30), dataset=digits)
    plain = train.fit(tiny(), dataset=digits)
    table = records.table([record, diverged, plain]).set_index("run_id")
    row, curves = table.loc[record["run_id"]], record["curves"]
    for name in ("loss", "noise_rate", "seed", "lr", "width", "split"):
        assert row[name] == record["config"][name]
    for name, column in curves.items():
        if name not in ("epoch", "lr"):
            assert row[name] == column[-1]
    assert row["test_top1_best"] == max(curves["test_top1"])
    assert math.isnan(row["batches_wrong_memorized_50"])
    shares = curves | {"batches_wrong_memorized": [0.9, 0.5], "batches_wrong_other": [0.1, 0.24]}
    beyond = records.table([record | {"curves": shares}]).iloc[0]["batches_wrong_beyond_chance"]
    assert beyond == pytest.approx(0.5 - 0.24 / 8)  # of ten classes one is true, one the label, eight others
    long = curves | {"batches_wrong_memorized": [k / 100 for k in range(60)]}
    assert records.table([record | {"curves": long}]).iloc[0]["batches_wrong_memorized_50"] == 0.49  # the fiftieth
    chosen = int(np.argmax(curves["held_out_top1_noisy"]))
    assert row["test_top1_selected"] == curves["test_top1"][chosen]
    assert row["noise_realized"] == record["data"]["realized_noise_rate"]
    assert (row["seconds"], row["joules"]) == (record["timing"]["seconds"], record["timing"]["joules"])
    assert (row["train_images"] + row["held_out_images"], row["test_images"]) == (190, 450)
    assert row["images_per_second"] == np.median(record["timing"]["images_per_second"])
    assert (row["status"], row["scale"], row["threads"]) == ("finished", "digits", 1)
    assert table.loc[diverged["run_id"], "status"] == "diverged"
    assert math.isnan(table.loc[diverged["run_id"], "test_top1"])
    assert math.isnan(table.loc[plain["run_id"], "test_top1_selected"])
    empty = records.table([])
    assert len(empty) == 0
    assert {"run_id", "test_top1", *RunConfig.model_fields} <= set(empty.columns)


def test_a_field_that_is_younger_than_a_record_holds_what_was_done_then(record):
    """Else an older and a newer record of one setting would count as different settings."""
    older = {**record, "config": {k: v for k, v in record["config"].items() if k != "weight_average"}}
    for frame in (records.table([older, record]), records.curves([older, record])):
        assert (frame["weight_average"] == 0).all()


def test_curves(record, digits):
    diverged, plain = train.fit(tiny(lr=1e30), dataset=digits), train.fit(tiny(), dataset=digits)
    assert diverged["curves"] == {}
    frame = records.curves([record, diverged, plain])
    assert len(frame) == 3 + 2
    part = frame[frame["run_id"] == record["run_id"]]
    assert part["epoch"].tolist() == [1, 2, 3]
    assert part["test_top1"].tolist() == record["curves"]["test_top1"]
    assert part["wrong_memorized"].isna().tolist() == [True, True, False]
    assert part["lr"].tolist() == record["curves"]["lr"]
    assert set(part["noise_rate"]) == {0.4}
    assert len(records.curves([])) == 0


def test_scales():
    paper = cifar10_recipe("elr", 0.2)
    assert records.scale(paper) == "paper"
    assert records.scale(paper.with_(model="small_resnet")) == "cpu"
    assert records.scale(paper.with_(epochs=50)) == "paper"  # as the paper's SAM code
    assert records.scale(paper.with_(epochs=30)) == "other"
    assert records.scale(paper.with_(train_size=1000)) == "other"
    assert records.scale(tiny()) == "digits"


# Many runs


@pytest.mark.parametrize(("seconds", "way_out"), [(3500, False), (3 * 3600, True)])
def test_a_plan_of_hours_says_so_and_how_to_make_it_smaller(seconds, way_out, monkeypatch, capsys):
    monkeypatch.setattr(runner, "estimate_seconds", lambda configs, jobs, threads: seconds)
    runner.announce([tiny(), tiny(seed=1)], 1)
    said = capsys.readouterr().err
    assert said.startswith("2 runs to train, about ")
    assert ("smaller: fewer seeds" in said) == way_out


def test_gather_takes_what_is_there_and_trains_when_asked(capsys):
    plan = [tiny(), tiny(seed=1)]
    runner.train_one(plan[1])
    assert [r["run_id"] for r in runner.gather(plan)] == [plan[1].run_id]
    assert capsys.readouterr().out == "1 of 2 runs are there\n"
    assert [r["run_id"] for r in runner.gather(plan, train=True, jobs=1)] == [config.run_id for config in plan]


def collected():
    events = []
    return events, lambda event: events.append((event.kind, event.config.run_id, event.detail))


def test_missing_runs_are_trained_in_order_and_once(digits):
    plan = [tiny(seed=1), tiny(), tiny(seed=1), tiny(seed=2)]
    records.save(train.fit(tiny(), dataset=digits))
    assert runner.missing(plan) == [plan[0], plan[3]]
    events, on_event = collected()
    assert runner.train_missing(plan, threads=1, on_event=on_event) == []
    assert [(k, i) for k, i, _ in events if k != "progress"] == [
        (kind, config.run_id) for config in (plan[0], plan[3]) for kind in ("started", "finished")
    ]
    assert comparable(records.find(plan[3])) == comparable(train.fit(plan[3], dataset=digits))
    for config in (plan[0], plan[3]):
        assert {p.name for p in records.state_dir(config).iterdir()} == {"lock", "outcome.pt"}
    events.clear()
    assert runner.train_missing(plan, on_event=on_event) == []
    assert events == []


def test_a_run_that_fails_or_diverges_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("ELRKIT_DATA", str(tmp_path))
    plan = [
        tiny(dataset="gone.npz"),
        RunConfig(dataset="cifar10", noise="human"),
        tiny(lr=1e30),
        tiny(epochs=1),
    ]

    @functools.cache
    def cifar10_without_labels(name):
        return data.load("digits" if name in ("digits", "cifar10") else name)

    monkeypatch.setattr(runner, "dataset", cifar10_without_labels)
    (tmp_path / "cifar10n.npz").write_bytes(b"torn")
    events, on_event = collected()
    assert runner.train_missing(plan, threads=1, on_event=on_event) == plan[:2]
    ends = {run_id: (kind, detail) for kind, run_id, detail in events if kind not in ("started", "progress")}
    assert ends[plan[0].run_id][0] == "failed"
    assert "gone.npz" in ends[plan[0].run_id][1]
    assert ends[plan[1].run_id][0] == "failed"
    assert "cifar10n.npz: not readable as human labels" in ends[plan[1].run_id][1]
    assert ends[plan[2].run_id][0] == "diverged"
    assert records.find(plan[2])["diverged"]["epoch"] == 1
    assert ends[plan[3].run_id][0] == "finished"


def test_a_record_is_loaded_unless_its_data_have_changed(tmp_path, digits, monkeypatch):
    path = tmp_path / "mine.npz"
    arrays = {
        part: getattr(digits, part).numpy() for part in ("train_images", "train_labels", "test_images", "test_labels")
    }
    np.savez(path, **arrays, class_names=range(10))
    config = tiny(dataset=str(path), epochs=1)
    record = runner.train_one(config)
    monkeypatch.setattr(train, "fit", None)  # nothing is trained again
    assert comparable(runner.train_one(config)) == comparable(record)
    np.savez(path, **arrays, class_names=range(10), test_truth=arrays["test_labels"][::-1])
    with pytest.raises(data.DataError, match=r"its true test labels are not what run [0-9a-f]{12} was trained on"):
        runner.missing([config])
    arrays["test_labels"] = arrays["test_labels"][::-1]
    np.savez(path, **arrays, class_names=range(10))
    with pytest.raises(data.DataError, match=r"is not what run [0-9a-f]{12} was trained on"):
        runner.missing([config])  # replaced while this process has the old one in its memory
    with pytest.raises(data.DataError, match=r"is not what run [0-9a-f]{12} was trained on; give the new data another"):
        runner.train_one(config)


def test_an_outcome_is_not_taken_for_another_training_of_the_same_name(tmp_path, digits, monkeypatch):
    """Two folders with a dataset of one name share the place of outcomes, and have records of their own."""
    config = tiny(dataset="mine.npz", epochs=1)
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    trained = []
    for folder, turned in (("a", 1), ("b", -1)):
        (tmp_path / folder).mkdir()
        arrays = {part: getattr(digits, part).numpy() for part in parts}
        arrays["train_labels"] = arrays["train_labels"][::turned]
        np.savez(tmp_path / folder / "mine.npz", **arrays, class_names=range(10))
        monkeypatch.setenv("ELRKIT_DATA", str(tmp_path / folder))
        monkeypatch.setenv("ELRKIT_STATE", str(tmp_path / "state"))
        monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path / folder / "results"))
        assert runner.train_missing([config], threads=1) == []
        trained.append(records.find(config))
        assert records.outcome(trained[-1])["run_id"] == config.run_id
    assert records.outcome(trained[0]) is None
    (records.state_dir(config) / "outcome.pt").unlink()
    assert records.outcome(trained[1]) is None


def test_what_cannot_be_trained_is_told_and_not_to_be_called_again(tmp_path, digits):
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(tmp_path / "mine.npz", **{p: getattr(digits, p).numpy() for p in parts}, class_names=range(10))
    large = tiny(dataset=str(tmp_path / "mine.npz"), train_size=None, batch_size=5000)
    with pytest.raises(RuntimeError, match=r"1 of 1 runs have no record, 1 failed: batch_size=5000: larger than the"):
        runner.load_or_train([large], jobs=1)
    with pytest.raises(RuntimeError, match=r"1 of 1 runs have no record, 1 stopped; call again to resume them"):
        runner.load_or_train([LONG], jobs=1, budget_seconds=0.1)


def test_a_full_disk_at_the_end_loses_nothing(digits, monkeypatch):
    config = tiny()
    with monkeypatch.context() as full:

        def no_space(record):
            raise OSError(28, "No space left on device")

        full.setattr(runner, "save", no_space)
        events, on_event = collected()
        assert runner.train_missing([config], threads=1, on_event=on_event, checkpoint_seconds=0.0) == [config]
    assert ("failed", config.run_id, "[Errno 28] No space left on device") in events
    taken, inner_step = [], train._Trainer.step
    monkeypatch.setattr(train._Trainer, "step", lambda self: taken.append(1) or inner_step(self))
    assert runner.train_missing([config], threads=1) == []
    assert len(taken) == 1
    assert comparable(records.find(config)) == comparable(train.fit(config, dataset=digits))


def test_the_budget_stops_cleanly_with_a_checkpoint():
    events, on_event = collected()
    left = runner.train_missing([LONG, tiny(seed=5)], threads=1, budget_seconds=0.3, on_event=on_event)
    assert left == [LONG, tiny(seed=5)]
    assert [(k, i) for k, i, _ in events if k != "progress"] == [("started", LONG.run_id), ("stopped", LONG.run_id)]
    assert train._read(records.state_dir(LONG) / "checkpoint.pt")["config"] == LONG.to_json()
    assert records.read_all() == []


# Several processes


def hold(text):
    with records.claim(RunConfig.from_json(text)) as mine:
        (records.state_root() / f"held-{mine}").touch()
        signal.pause()


def test_a_claim_keeps_others_out_and_dies_with_its_holder(digits):
    config = tiny()
    with records.claim(config) as mine:
        assert mine
        with records.claim(config) as second:
            assert not second
        with records.claim(tiny(seed=1)) as other:
            assert other
    holder = start(hold, config.to_json())
    try:
        wait_until((records.state_root() / "held-True").exists)
        with records.claim(config) as mine:
            assert not mine
        events, on_event = collected()
        assert runner.train_missing([config], on_event=on_event) == [config]
        assert [kind for kind, _, _ in events] == ["busy"]
        events, on_event = collected()
        other = tiny(seed=1)
        assert runner.train_missing([config, other], jobs=2, on_event=on_event) == [config]
        assert [run_id for kind, run_id, _ in events if kind == "busy"] == [config.run_id]
    finally:
        holder.kill()
        holder.join()
    with records.claim(config) as mine:
        assert mine


def train_plan(texts, log_file, barrier, options):
    """Train a plan and log what happened to each run; ends with 3 when runs are left, 130 when stopped by a signal."""
    barrier.wait(PATIENCE_SECONDS)
    with open(log_file, "a", buffering=1) as log:

        def on_event(event):
            log.write(f"{event.kind} {event.config.run_id}\n")

        try:
            left = runner.train_missing(
                [RunConfig.from_json(t) for t in texts], threads=1, on_event=on_event, **options
            )
        except KeyboardInterrupt:
            os._exit(130)
    os._exit(3 if left else 0)


def test_two_processes_on_one_plan_train_each_run_once(tmp_path):
    plan = [tiny(seed=seed, epochs=4) for seed in range(4)]
    barrier = context.Barrier(2)
    texts = [config.to_json() for config in plan]
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    for process in [start(train_plan, texts, log, barrier, {}) for log in logs]:
        assert end(process) in (0, 3)  # the one that ends first may leave the other's last run
    lines = [line.split() for log in logs for line in log.read_text().splitlines()]
    for kind in ("started", "finished"):
        assert sorted(run_id for k, run_id in lines if k == kind) == sorted(config.run_id for config in plan)
    assert runner.missing(plan) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_and_a_rerun_the_same_record(tmp_path, digits, number):
    config = tiny(loss="elr", epochs=40)
    log, checkpoint = tmp_path / "log", records.state_dir(config) / "checkpoint.pt"
    barrier = context.Barrier(1)
    process = start(train_plan, [config.to_json()], log, barrier, {"checkpoint_seconds": 0.0})
    wait_until(checkpoint.exists, process)
    os.kill(process.pid, number)
    assert end(process) == 130
    assert "stopped" in log.read_text()
    state = train._read(checkpoint)
    assert (state["epoch"], state["step_in_epoch"]) < (40, 0)
    assert records.read_all() == []
    assert runner.train_missing([config], threads=1) == []
    assert comparable(records.find(config)) == comparable(train.fit(config, dataset=digits))
    assert not checkpoint.exists()


def work(texts, events, stop):
    runner._worker(texts, 1, {"checkpoint_seconds": 0.0}, events, stop, os.getppid())


def test_a_worker_that_is_sent_the_signal_too_stops_cleanly():
    """A scheduler ends all processes of a group, not the first alone."""
    events, stop = context.Queue(), context.Event()
    process = start(work, [LONG.to_json(), tiny().to_json()], events, stop)
    wait_until((records.state_dir(LONG) / "checkpoint.pt").exists, process)
    os.kill(process.pid, signal.SIGINT)  # Ctrl-C goes to all as well, but the parent decides
    os.kill(process.pid, signal.SIGTERM)
    kinds = []
    while "stopped" not in kinds:
        kinds.append(events.get(timeout=PATIENCE_SECONDS).kind)
    assert end(process) == 0
    assert set(kinds) - {"progress"} == {"started", "stopped"}


def test_two_jobs_train_what_one_would(digits):
    plan = [tiny(seed=1), tiny(lr=1e30), tiny(loss="elr")]
    events, on_event = collected()
    assert runner.train_missing(plan, jobs=2, threads=1, on_event=on_event) == []
    ends = sorted((run_id, kind) for kind, run_id, _ in events if kind not in ("started", "progress"))
    assert ends == sorted(zip((c.run_id for c in plan), ("finished", "diverged", "finished"), strict=True))
    for config in plan:
        assert comparable(records.find(config)) == comparable(train.fit(config, dataset=digits))


# Records from elsewhere


def tar_of(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_import_adds_what_is_new_and_names_what_is_refused(record, tmp_path):
    def as_bytes(r):
        return json.dumps(r).encode()

    spoiled, classless, slow, unknown = (copy.deepcopy(record) for _ in range(4))
    spoiled["config"]["seed"] = 9
    classless["data"] = {}  # what every table of records asks for
    slow["timing"]["images_per_second"] = 3
    unknown["curves"]["held_out_top1_noisy"] = [None] * len(record["curves"]["test_top1"])
    other_result, elsewhere = copy.deepcopy(record), copy.deepcopy(record)
    other_result["curves"]["test_top1"][0] = 0.123
    elsewhere["curves"]["test_top1"][0] = 0.123
    elsewhere["device"]["name"] = "another processor"
    path = tar_of(
        tmp_path / "home.tar.gz",
        {
            "../../outside.json": as_bytes(record),
            "again.json": as_bytes(record),
            "spoiled.json": as_bytes(spoiled),
            "classless.json": as_bytes(classless),
            "slow.json": as_bytes(slow),
            "unknown.json": as_bytes(unknown),
            "torn.json": b"{",
            "foreign.json": b"{}",
            "deep.json": b"[" * 100_000,
            "other-result.json": as_bytes(other_result),
            "elsewhere.json": as_bytes(elsewhere),
            "notes.txt": b"no record",
        },
    )
    added, known, refused = records.import_tar(path)
    assert added == [record["run_id"]]
    assert known == [record["run_id"]] * 2
    assert [message.split(": ")[0] for message in refused] == [
        f"home.tar.gz:{name}.json"
        for name in ("spoiled", "classless", "slow", "unknown", "torn", "foreign", "deep", "other-result")
    ]
    assert "is here with other results of the same device" in refused[-1]
    assert comparable(records.find(RunConfig(**record["config"]))) == comparable(record)
    assert [p.name for p in records.results_root().rglob("*.json")] == [f"{record['run_id']}.json"]
    assert not list(Path(tmp_path).rglob("outside.json"))


def test_import_of_a_damaged_tar_keeps_what_came_before(record, digits, tmp_path):
    other = train.fit(tiny(), dataset=digits)
    files = {f"{r['run_id']}.json": json.dumps(r).encode() for r in (record, other)}
    with tarfile.open(tmp_path / "whole.tar", "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    whole = (tmp_path / "whole.tar").read_bytes()
    first = 512 * (1 + -(-len(files[f"{record['run_id']}.json"]) // 512))
    (tmp_path / "cut.tar").write_bytes(whole[: first + 600])
    added, known, refused = records.import_tar(tmp_path / "cut.tar")
    assert (added, known) == ([record["run_id"]], [])
    assert len(refused) == 1
    assert "cut.tar: not a tar, or damaged after 1 records" in refused[0]
    (tmp_path / "no.tar").write_bytes(b"hello")
    assert records.import_tar(tmp_path / "no.tar")[0] == []
    with pytest.raises(records.RecordError, match=r"gone.tar: no such file"):
        records.import_tar(tmp_path / "gone.tar")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_nothing_is_taken_from_a_compressed_tar_whose_checksum_does_not_hold(record, tmp_path, kind):
    """A changed bit may leave a record that can be read, and tarfile stops before the checksum."""
    content = json.dumps(record).encode()
    with tarfile.open(tmp_path / "whole.tar", f"w:{kind}") as archive:
        member = tarfile.TarInfo(f"{record['run_id']}.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    whole = (tmp_path / "whole.tar").read_bytes()
    for place in range(len(whole) // 4, len(whole), len(whole) // 9):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / "damaged.tar").write_bytes(damaged)
        added, known, refused = records.import_tar(tmp_path / "damaged.tar")
        assert (added, known, len(refused)) == ([], [], 1)
        assert "damaged.tar: not a tar, or damaged after 0 records" in refused[0]
    assert records.import_tar(tmp_path / "whole.tar") == ([record["run_id"]], [], [])


def test_an_estimate_grows_with_the_work(monkeypatch):
    asked = []
    monkeypatch.setattr(train, "measure_pace", lambda config, *a, **k: asked.append(config) or (1000.0, 4000.0))
    one = RunConfig(epochs=10, eval_every=5)
    seconds = 10 * 1347 / 1000 + (10 * 450 + 2 * 1347) / 4000
    assert runner.estimate_seconds([one]) == pytest.approx(seconds)
    assert runner.estimate_seconds([one, one.with_(seed=1)], jobs=2) == pytest.approx(seconds)
    assert len(asked) == 2  # one measurement for each kind of run and call
    assert runner.estimate_seconds([one], jobs=8) == pytest.approx(seconds)  # there is one job to do


@pytest.mark.parametrize(("name", "number"), [("jobs", 0), ("jobs", -2), ("threads", 0), ("threads", -1)])
def test_numbers_of_jobs_and_threads_that_cannot_be(name, number):
    with pytest.raises(ConfigError, match=f"^{name}={number}: allowed are whole numbers from 1$"):
        runner.train_missing([tiny()], **{name: number})
    if name == "jobs":
        with pytest.raises(ConfigError, match=f"^jobs={number}: allowed are whole numbers from 1$"):
            runner.estimate_seconds([tiny()], number)


@pytest.mark.parametrize("variable", ["ELRKIT_RESULTS", "ELRKIT_STATE"])
def test_a_folder_that_cannot_be_written_is_told_before_the_training(variable, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")  # no folder can be made below a file, not even by root
    monkeypatch.setenv(variable, str(tmp_path / "file" / "runs"))
    monkeypatch.setattr(train, "fit", None)
    with pytest.raises(OSError, match=rf"file/runs: cannot be written \(Not a directory\); {variable} names another"):
        runner.train_missing([tiny()])


def test_a_run_that_another_process_trains_is_told_so():
    config = tiny()
    with records.claim(config) as mine:
        assert mine
        with pytest.raises(RuntimeError, match=r"1 of 1 runs have no record, 1 are trained by another"):
            runner.load_or_train([config], jobs=1)


def test_a_damaged_outcome_is_named_and_none(caplog):
    config = tiny(epochs=1)
    record = runner.train_one(config)
    file = records.state_dir(config) / "outcome.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert records.outcome(record) is None
    assert f"{file}: not usable" in caplog.text


def test_an_import_that_cannot_save_blames_no_tar(record, tmp_path, monkeypatch):
    def full(record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "save", full)
    tar = tar_of(tmp_path / "x.tar.gz", {"a.json": json.dumps(record).encode()})
    with pytest.raises(OSError, match="No space left on device"):
        records.import_tar(tar)


def test_the_estimate_counts_the_images_of_a_dataset_of_ones_own(tmp_path, monkeypatch):
    images, labels = np.zeros((40, 16, 16, 3), dtype=np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "own.npz", train_images=images, train_labels=labels, test_images=images[:4],
             test_labels=labels[:4], class_names=np.array(["a", "b"]))  # fmt: skip
    shapes = []
    monkeypatch.setattr(train, "measure_pace", lambda config, shape, threads: shapes.append(shape) or (10.0, 100.0))
    config = RunConfig(dataset=str(tmp_path / "own.npz"), epochs=10, eval_every=5, batch_size=10)
    assert runner.estimate_seconds([config]) == pytest.approx(10 * 40 / 10 + (10 * 4 + 2 * 40) / 100)
    assert shapes == [(16, 16, 3)]


def test_a_record_is_not_taken_for_other_data_of_the_same_name(tmp_path):
    path = tmp_path / "shop.npz"
    names, rng = np.array(["cup", "shoe"]), np.random.default_rng(0)

    def write(n):
        images, labels = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), np.arange(n) % 2
        np.savez(path, train_images=images, train_labels=labels, test_images=images[:4], test_labels=labels[:4],
                 class_names=names)  # fmt: skip

    config = RunConfig(dataset=str(path), epochs=1, batch_size=10, width=8)
    write(40)
    assert runner.train_missing([config]) == []
    write(41)
    with pytest.raises(data.DataError, match="give the new data another name"):
        runner.train_missing([config])
    path.unlink()  # the data are gone, the record stands
    assert runner.missing([config]) == []
