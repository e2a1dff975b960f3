"""Many runs are trained once each, in one process or several, stopped cleanly, waited for, and told."""

import dataclasses
import functools
import json
import logging
import os
import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from processes import PATIENCE_SECONDS, context, end, start, wait_until
from small_dataset import comparable, tiny, write_dataset

from elrkit import checkpoints, data, pace, records, runner, train
from elrkit.config import ConfigError, RunConfig

LONG = tiny(epochs=10_000)  # minutes: to be stopped
pytestmark = pytest.mark.usefixtures("no_evidence")


class Told(list):
    """The events that it is called with: (kind, run id, detail)."""

    def __call__(self, event):
        self.append((event.kind, event.config.run_id, event.detail))

    def kinds(self):
        return [(kind, run_id) for kind, run_id, _ in self if kind != "progress"]

    def ends(self):
        return {run_id: (kind, detail) for kind, run_id, detail in self if kind not in ("started", "progress")}


def write(path, digits, turned=(), **more):
    """The digits as a file; the labels named in `turned` in reverse."""
    arrays = {
        part: getattr(digits, part).numpy()[:: -1 if part in turned else 1]
        for part in ("train_images", "train_labels", "test_images", "test_labels")
    }
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **arrays, class_names=range(10), **more)
    return path


# One process


def test_missing_runs_are_trained_in_order_and_once(digits, capsys):
    plan = [tiny(seed=1), tiny(), tiny(seed=1), tiny(seed=2)]
    records.save(train.fit(tiny(), dataset=digits))
    assert runner.missing(plan) == [plan[0], plan[3]]
    assert [r["run_id"] for r in runner.gather(plan[:2])] == [plan[1].run_id]
    assert capsys.readouterr().out == "1 of 2 runs are there\n"
    told = Told()
    assert runner.train_missing(plan, threads=1, on_event=told) == []
    trained = plan[0], plan[3]
    assert told.kinds() == [(kind, config.run_id) for config in trained for kind in ("started", "finished")]
    assert comparable(records.find(plan[3])) == comparable(train.fit(plan[3], dataset=digits))
    for config in trained:
        assert {p.name for p in records.state_dir(config).iterdir()} == {"lock", "outcome.pt"}
    told.clear()
    (records.state_dir(plan[0]) / "checkpoint.pt").write_bytes(b"left by a kill behind the record")
    (records.state_dir(plan[0]) / "checkpoint-previous.pt").touch()
    assert runner.train_missing(plan, on_event=told) == []
    assert told == []
    assert {p.name for p in records.state_dir(plan[0]).iterdir()} == {"lock", "outcome.pt"}
    assert runner.gather([plan[0], tiny(seed=3)], train=True, jobs=1)[1]["run_id"] == tiny(seed=3).run_id


def test_a_run_that_fails_or_diverges_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ELRKIT_DATA", str(tmp_path))
    gone = [tiny(dataset="gone.npz"), tiny(dataset="gone.npz", seed=1)]
    people, wild, good = RunConfig(dataset="cifar10", noise="human"), tiny(lr=1e30), tiny(epochs=1)

    @functools.cache
    def cifar10_without_labels(name):
        return dataclasses.replace(data.load("digits" if name == "cifar10" else name), name=name)

    monkeypatch.setattr(runner, "dataset", cifar10_without_labels)
    (tmp_path / "cifar10n.npz").write_bytes(b"torn")
    plan, told = [*gone, people, wild, good], Told()
    assert runner.train_missing(plan, threads=1, on_event=told) == [*gone, people]
    ends = told.ends()
    assert [ends[config.run_id][0] for config in plan] == ["failed", "failed", "failed", "diverged", "finished"]
    assert "gone.npz" in ends[gone[0].run_id][1]
    assert "cifar10n.npz: not readable as human labels" in ends[people.run_id][1]
    assert records.find(wild)["diverged"]["epoch"] == 1

    from elrkit import progress

    with progress.display(2) as show:
        for config in gone:
            show(runner.Event("failed", config, ends[config.run_id][1]))
    assert capsys.readouterr().err.count("no such file or folder") == 1


def test_a_record_is_loaded_unless_its_data_have_changed(tmp_path, digits, monkeypatch):
    path = write(tmp_path / "mine.npz", digits)
    config = tiny(dataset=str(path), epochs=1)
    record = runner.train_one(config)
    monkeypatch.setattr(train, "fit", None)  # nothing is trained again
    assert comparable(runner.train_one(config)) == comparable(record)
    others = {"test_truth": digits.test_labels.numpy()[::-1]}
    for turned, more, what in (((), others, "its true test labels are"), (("test_labels",), {}, "its content")):
        write(path, digits, turned, **more)
        for asked in (runner.train_one, lambda config: runner.missing([config])):  # while the old one is in memory
            with pytest.raises(data.DataError, match=rf"{what}.* not what run [0-9a-f]{{12}} was trained on; give the"):
                asked(config)
    path.unlink()  # the data are gone, the record stands
    assert runner.missing([config]) == []


def test_an_outcome_is_not_taken_for_another_training_of_the_same_name(tmp_path, digits, monkeypatch, caplog):
    """Two folders with a dataset of one name share the place of outcomes, and have records of their own."""
    config = tiny(dataset="mine.npz", epochs=1)
    trained = []
    for folder, turned in (("a", ()), ("b", ("train_labels",))):
        write(tmp_path / folder / "mine.npz", digits, turned)
        monkeypatch.setenv("ELRKIT_DATA", str(tmp_path / folder))
        monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path / folder / "results"))
        assert runner.train_missing([config], threads=1) == []
        trained.append(records.find(config))
        assert checkpoints.outcome(trained[-1])["model"]
    assert checkpoints.outcome(trained[0]) is None
    file = records.state_dir(config) / "outcome.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert checkpoints.outcome(trained[1]) is None
    assert f"{file}: not usable" in caplog.text
    file.unlink()
    assert checkpoints.outcome(trained[1]) is None


def test_what_cannot_be_trained_is_told_and_not_to_be_called_again(tmp_path, digits):
    path = str(write(tmp_path / "mine.npz", digits))  # it holds more images than that, but not once it is split
    large = tiny(dataset=path, train_size=None, batch_size=1300, split="held_out")
    told = r"1 of 1 runs have no record, 1 failed: batch_size=1300: larger than the 12\d\d training images"
    with pytest.raises(RuntimeError, match=told):
        runner.load_or_train([large], jobs=1)
    with pytest.raises(RuntimeError, match=r"1 of 1 runs have no record, 1 stopped; call again to resume them"):
        runner.load_or_train([LONG], jobs=1, budget_seconds=0.1)


def test_a_full_disk_at_the_end_loses_nothing(digits, monkeypatch):
    config = tiny()
    with monkeypatch.context() as full:

        def no_space(record):
            raise OSError(28, "No space left on device", "the record")

        full.setattr(records, "save", no_space)
        told = Told()
        assert runner.train_missing([config], threads=1, on_event=told, checkpoint_seconds=0.0) == [config]
    assert told.ends()[config.run_id] == ("failed", "[Errno 28] No space left on device: 'the record'")
    taken, inner_step = [], train.Trainer.step
    monkeypatch.setattr(train.Trainer, "step", lambda self: taken.append(1) or inner_step(self))
    assert runner.train_missing([config], threads=1) == []
    assert len(taken) == 1
    assert comparable(records.find(config)) == comparable(train.fit(config, dataset=digits))


def test_the_budget_stops_cleanly_with_a_checkpoint(digits):  # whose first loading would use it up
    plan, told = [LONG, tiny(seed=5)], Told()
    assert runner.train_missing(plan, threads=1, budget_seconds=0.3, on_event=told) == plan
    assert told.kinds() == [("started", LONG.run_id), ("stopped", LONG.run_id)]
    assert checkpoints.read(records.state_dir(LONG) / "checkpoint.pt")["config"] == LONG.to_json()
    assert records.find(LONG) is None


@pytest.mark.parametrize(("name", "number"), [("jobs", 0), ("jobs", -2), ("threads", 0), ("threads", -1)])
def test_numbers_of_jobs_and_threads_that_cannot_be(name, number):
    for asks in (runner.train_missing, runner.estimate_seconds):
        with pytest.raises(ConfigError, match=f"^{name}={number}: allowed are whole numbers from 1$"):
            asks([tiny()], **{name: number})


@pytest.mark.parametrize("variable", ["ELRKIT_RESULTS", "ELRKIT_STATE"])
def test_a_folder_that_cannot_be_written_is_told_before_the_training(variable, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")  # no folder can be made below a file, not even by root
    monkeypatch.setenv(variable, str(tmp_path / "file" / "runs"))
    monkeypatch.setattr(train, "fit", None)
    with pytest.raises(OSError, match=rf"file/runs: cannot be written \(Not a directory\); {variable} names another"):
        runner.train_missing([tiny()])


# Estimates


@pytest.mark.parametrize(("seconds", "way_out"), [(3500, False), (3 * 3600, True)])
def test_a_plan_of_hours_says_so_and_how_to_make_it_smaller(seconds, way_out, monkeypatch, capsys):
    monkeypatch.setattr(runner, "estimate_seconds", lambda configs, jobs, threads: seconds)
    runner.announce([tiny(), tiny(seed=1)], 1)
    said = capsys.readouterr().err
    assert said.startswith("2 runs to train, about ")
    assert ("smaller: fewer seeds" in said) == way_out


def test_an_estimate_grows_with_the_work(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pace, "measure", lambda config, shape, threads: asked.append(shape) or (1000.0, 4000.0))
    one = RunConfig(epochs=10, eval_every=5)
    seconds = 10 * 1347 / 1000 + (10 * 450 + 2 * 1347) / 4000
    assert runner.estimate_seconds([one]) == pytest.approx(seconds)
    assert runner.estimate_seconds([one, one.with_(seed=1)], jobs=2) == pytest.approx(seconds)
    assert asked == [(8, 8, 1)] * 2  # one measurement for each kind of run and call
    assert runner.estimate_seconds([one], jobs=8) == pytest.approx(seconds)  # there is one job to do
    own = one.with_(dataset=write_dataset(tmp_path / "own.npz"), batch_size=10)
    assert runner.estimate_seconds([own]) == pytest.approx(10 * 60 / 1000 + (10 * 9 + 2 * 60) / 4000)
    assert asked[-1] == (8, 8, 3)


@pytest.mark.parametrize(("model", "images"), [("small_resnet", 4 * 64), ("resnet34", 8)])
def test_measuring_shows_a_large_net_few_images_on_a_cpu(model, images, monkeypatch):
    """So that the estimate for ResNet-34 is there in seconds."""
    shown = []

    class Counting:
        model = images = None
        step_in_epoch = 0

        def __init__(self, config, dataset, problem, device):
            shown.append(len(dataset.train_images))
            self.train = SimpleNamespace(images=None)

        start_epoch = step = lambda self: None

    monkeypatch.setattr(pace, "Trainer", Counting)
    monkeypatch.setattr(pace, "predict", lambda *_: None)
    monkeypatch.setattr(pace, "SECONDS", 0.0)
    monkeypatch.setattr(pace.torch.cuda, "is_available", lambda: False)
    trained, evaluated = pace.measure(RunConfig(model=model, noise_rate=0.4, split="held_out"), (8, 8, 1), 1)
    assert shown == [images]
    assert min(trained, evaluated) > 0


# Several processes


def hold(text):
    with records.claim(RunConfig(**json.loads(text))) as mine:
        (records.state_root() / f"held-{mine}").touch()
        signal.pause()


def test_a_run_that_another_process_holds_is_waited_for(digits):
    """It may end with a record, or die: its lock dies with it, and the run is trained here."""
    config, other = tiny(), tiny(seed=1)
    with records.claim(config) as mine, records.claim(config) as second, records.claim(other) as third:
        assert (mine, second, third) == (True, False, True)
    holder = start(hold, config.to_json())
    wait_until((records.state_root() / "held-True").exists)
    told = Told()
    assert runner.train_missing([config], on_event=told, budget_seconds=0.5) == [config]
    assert told == [("busy", config.run_id, None)]

    def then_kill(event):
        told(event)
        if event.kind == "busy":
            holder.kill()

    assert runner.train_missing([config, other], jobs=1, on_event=then_kill) == []
    holder.join()
    kinds = [kind for kind, run_id in told.kinds() if run_id == config.run_id]
    assert kinds == ["busy", "busy", "started", "finished"]  # the first of before


def test_the_record_of_the_process_that_was_waited_for_is_used(digits, monkeypatch):
    config, saved = tiny(), threading.Event()
    record = train.fit(config, dataset=digits)
    monkeypatch.setattr(train, "fit", None)  # nothing is trained here

    def elsewhere():
        with records.claim(config):
            saved.set()
            busy.wait(PATIENCE_SECONDS)
            records.save(record)

    busy, other = threading.Event(), threading.Thread(target=elsewhere)
    other.start()
    saved.wait()
    left = runner.train_missing([config], on_event=lambda event: busy.set())
    other.join()
    assert left == []
    assert comparable(records.find(config)) == comparable(record)


def train_plan(texts, log_file, barrier, options):
    """Train a plan and log what happened to each run; ends with 3 when runs are left, 130 when stopped by a signal."""
    barrier.wait(PATIENCE_SECONDS)
    with open(log_file, "a", buffering=1) as log:

        def on_event(event):
            log.write(f"{event.kind} {event.config.run_id}\n")

        plan = [RunConfig(**json.loads(text)) for text in texts]
        try:
            left = runner.train_missing(plan, threads=1, on_event=on_event, **options)
        except KeyboardInterrupt:
            os._exit(130)
    os._exit(3 if left else 0)


def test_two_processes_on_one_plan_train_each_run_once(tmp_path):
    plan = [tiny(seed=seed, epochs=4) for seed in range(4)]
    barrier = context.Barrier(2)
    texts = [config.to_json() for config in plan]
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    for process in [start(train_plan, texts, log, barrier, {}) for log in logs]:
        assert end(process) == 0  # the one that ends first waits for the other's last run
    lines = [line.split() for log in logs for line in log.read_text().splitlines()]
    for kind in ("started", "finished"):
        assert sorted(run_id for k, run_id in lines if k == kind) == sorted(config.run_id for config in plan)
    assert runner.missing(plan) == []


def test_a_signal_leaves_a_checkpoint_and_a_rerun_the_same_record(tmp_path, digits):
    config = tiny(loss="elr", epochs=40)
    log, checkpoint = tmp_path / "log", records.state_dir(config) / "checkpoint.pt"
    barrier = context.Barrier(1)  # kept here until the process has it
    process = start(train_plan, [config.to_json()], log, barrier, {"checkpoint_seconds": 0.0})
    wait_until(checkpoint.exists, process)
    os.kill(process.pid, signal.SIGTERM)
    assert end(process) == 130
    assert "stopped" in log.read_text()
    state = checkpoints.read(checkpoint)
    assert (state["epoch"], state["step_in_epoch"]) < (40, 0)
    assert records.find(config) is None
    assert runner.train_missing([config], threads=1) == []
    assert comparable(records.find(config)) == comparable(train.fit(config, dataset=digits))
    assert not checkpoint.exists()


def work(configs, events, stop):
    runner._worker(configs, 1, {"checkpoint_seconds": 0.0}, events, stop, os.getppid())


def test_a_worker_that_is_sent_the_signal_too_stops_cleanly():
    """A scheduler ends all processes of a group, not the first alone."""
    events, stop = context.Queue(), context.Event()
    process = start(work, [LONG, tiny()], events, stop)
    wait_until((records.state_dir(LONG) / "checkpoint.pt").exists, process)
    os.kill(process.pid, signal.SIGINT)  # Ctrl-C goes to all as well, but the parent decides
    os.kill(process.pid, signal.SIGTERM)
    kinds = []
    while "stopped" not in kinds:
        kinds.append(events.get(timeout=PATIENCE_SECONDS).kind)
    assert end(process) == 0
    assert set(kinds) - {"progress"} == {"started", "stopped"}


def test_two_jobs_train_what_one_would(digits, caplog):
    plan, told = [tiny(seed=1), tiny(lr=1e30), tiny(loss="elr")], Told()
    with caplog.at_level(logging.ERROR):
        assert runner.train_missing(plan, jobs=2, threads=1, on_event=told) == []
    assert caplog.text == ""
    assert [told.ends()[config.run_id][0] for config in plan] == ["finished", "diverged", "finished"]
    for config in plan:
        assert comparable(records.find(config)) == comparable(train.fit(config, dataset=digits))
