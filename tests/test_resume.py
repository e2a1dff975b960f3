"""A run that was stopped, killed or robbed of its checkpoints ends with the record of one that was left alone."""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import random
import shutil
import time

import numpy as np
import pytest
import torch
from processes import end, start, wait_until
from refusals import Payload, one_line
from small_dataset import comparable, tiny

from elrkit import checkpoints, data, train
from elrkit.config import RunConfig
from elrkit.train import Stopped, fit

EPOCHS, STEPS = 2, 3

RECIPES = {
    "ce": {"loss": "ce", "augmentation": "flip"},
    "elr": {"loss": "elr", "augmentation": "fresh", "schedule": "cosine", "restart_epochs": 3},
    "elr+sam": {"loss": "elr", "sam_rho": 0.1, "schedule": "multistep", "milestones": (1,)},
    "adam": {"loss": "sce", "optimizer": "adam", "lr": 0.001, "augmentation": "frozen", "noise": "asymmetric"},
    "rounded": {"loss": "nce_rce", "sam_rho": 0.1, "precision": "bfloat16"},
    "float16": {"loss": "elr", "precision": "float16_fresh_scaler", "split": "held_out"},
}


def recipe(name, **changes):
    return tiny(**{"epochs": EPOCHS, **RECIPES[name], **changes})


def after(steps):
    """Asks to stop when so many steps were taken."""
    calls = iter(range(10**9))
    return lambda: next(calls) >= steps


def stopped(config, dataset, folder, steps):
    with pytest.raises(Stopped):
        fit(config, dataset=dataset, state_dir=folder, should_stop=after(steps))


@pytest.fixture
def steps_taken(monkeypatch):
    taken, inner = [], train.Trainer.step
    monkeypatch.setattr(train.Trainer, "step", lambda self: taken.append(self.step_in_epoch) or inner(self))
    return taken


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_before_every_step_and_resumed(digits, tmp_path, steps_taken, name):
    config = recipe(name)
    expected = fit(config, dataset=digits)
    steps_taken.clear()
    for steps in [0] + [1] * (EPOCHS * STEPS - 1):
        stopped(config, digits, tmp_path, steps)
    record = fit(config, dataset=digits, state_dir=tmp_path)
    assert steps_taken == [0, 1, 2] * EPOCHS  # none twice
    assert comparable(record) == comparable(expected)
    assert len(record["timing"]["train_seconds"]) == EPOCHS


# SIGKILL


def train_to_the_end(text, state_dir, record_file):
    torch.set_num_threads(1)
    record = fit(RunConfig(**json.loads(text)), state_dir=state_dir, checkpoint_seconds=0.0)
    record_file.with_suffix(".new").write_text(json.dumps(record))
    record_file.with_suffix(".new").replace(record_file)


def position(folder):
    """(epoch, step) of the newest checkpoint, which a kill must never have damaged."""
    for path in (folder / "checkpoint.pt", folder / "checkpoint-previous.pt"):
        if path.exists():
            state = checkpoints.read(path)
            return state["epoch"], state["step_in_epoch"]
    return None


def stamp(path):
    """Changes whenever the file is replaced; None while there is none."""
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        return found.st_ino, found.st_mtime_ns


def test_killed_twenty_times_at_random_moments(digits, tmp_path):
    config, rng = recipe("elr+sam", epochs=12, augmentation="fresh"), random.Random(0)
    expected = comparable(fit(config, dataset=digits))
    state, record_file = tmp_path / "killed", tmp_path / "record.json"
    positions, kills, records = set(), 0, []

    def collect():
        records.append(comparable(json.loads(record_file.read_text())))
        record_file.unlink()
        shutil.rmtree(state)

    while kills < 20:
        process = start(train_to_the_end, config.to_json(), state, record_file)
        for _ in range(rng.randrange(5)):  # so many writes after the start, or while it starts
            before = stamp(state / "checkpoint.pt")
            wait_until(lambda: stamp(state / "checkpoint.pt") not in (None, before), process)  # noqa: B023
        time.sleep(rng.uniform(0, 0.04))
        process.kill()
        process.join()
        if record_file.exists():
            collect()  # it was faster: begin again
        else:
            kills += 1
            positions.add(position(state) if state.exists() else None)
    process = start(train_to_the_end, config.to_json(), state, record_file)
    assert end(process) == 0
    collect()
    assert set(records) == {expected}
    assert len(positions) > 5
    assert not list(tmp_path.rglob("*.damaged"))


# Damage


def two_checkpoints(config, dataset, folder):
    """The current one after four steps, the one before after two."""
    stopped(config, dataset, folder, 2)
    stopped(config, dataset, folder, 2)
    assert position(folder) == (1, 1)


def spoil(change):
    return lambda current, previous: current.write_bytes(change(current.read_bytes()))


DAMAGES = {  # what is done to the two files, and how many are set aside
    "cut": (spoil(lambda content: content[: len(content) // 2]), 1),
    "one bit": (spoil(lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]), 1),
    "zeros": (spoil(lambda content: bytes(len(content))), 1),
    "empty": (spoil(lambda content: b""), 1),
    "foreign": (spoil(lambda content: b"not a checkpoint"), 1),
    "both": (lambda current, previous: [path.write_bytes(b"torn") for path in (current, previous)], 2),
    "killed between two renames": (lambda current, _: current.replace(current.with_name("checkpoint-new.pt")), 0),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_by_name_and_the_one_before_used(
    digits, tmp_path, steps_taken, caplog, damage
):
    config, (change, aside) = recipe("elr"), DAMAGES[damage]
    expected = comparable(fit(config, dataset=digits))
    two_checkpoints(config, digits, tmp_path)
    files = [tmp_path / name for name in ("checkpoint.pt", "checkpoint-previous.pt")]
    change(*files)
    spoiled = [path.read_bytes() for path in files[:aside]]
    steps_taken.clear()
    assert comparable(fit(config, dataset=digits, state_dir=tmp_path)) == expected
    assert len(steps_taken) == EPOCHS * STEPS - (0 if aside == 2 else 2)
    assert [path.with_suffix(".damaged").read_bytes() for path in files[:aside]] == spoiled
    assert len(caplog.messages) == aside
    for path, message in zip(files, caplog.messages, strict=False):
        one_line(message, str(path), f"set aside as {path.with_suffix('.damaged').name}")


def rewrite(path, change):
    """The same checkpoint but for `change`, behind a digest that fits."""
    state = checkpoints.read(path)
    change(state)
    checkpoints.write(path, state)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("optimizer"),
        lambda state: state.pop("curves"),
        lambda state: state["model"].pop("head.bias"),
        lambda state: state["elr"].update(targets=torch.zeros(3, 10)),
        lambda state: state.update(fingerprint="0" * 16),
    ],
)
def test_a_checkpoint_that_does_not_fit_leaves_no_trace_in_the_run(digits, tmp_path, caplog, change):
    """Half of it may have been restored before it turned out: the run must not begin with that half."""
    config = recipe("elr")
    expected = comparable(fit(config, dataset=digits))
    stopped(config, digits, tmp_path, 4)
    rewrite(tmp_path / "checkpoint.pt", change)
    assert comparable(fit(config, dataset=digits, state_dir=tmp_path)) == expected
    assert "set aside as checkpoint.damaged" in caplog.text


def test_another_runs_checkpoint_is_left_alone(digits, tmp_path):
    stopped(recipe("elr"), digits, tmp_path, 4)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(data.DataError, match="a checkpoint of another run; give each run a folder of its own"):
        fit(recipe("ce"), dataset=digits, state_dir=tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_older_than_a_field_of_the_config_goes_on(digits, tmp_path, steps_taken):
    """The hash of a run leaves defaults out, so that a new field renames no run; nor may it end one."""
    config = recipe("elr")
    stopped(config, digits, tmp_path, 4)
    without = json.loads(config.to_json())
    assert without.pop("test_every") == 1
    rewrite(tmp_path / "checkpoint.pt", lambda state: state.update(config=json.dumps(without)))
    steps_taken.clear()
    fit(config, dataset=digits, state_dir=tmp_path)
    assert len(steps_taken) == EPOCHS * STEPS - 4


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
@pytest.mark.parametrize("where", ["load", "restore"])
def test_too_little_memory_to_resume_costs_no_checkpoint(digits, tmp_path, monkeypatch, steps_taken, error, where):
    config = recipe("elr")
    stopped(config, digits, tmp_path, 4)

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*((torch, "load") if where == "load" else (train.Trainer, "restore")), fail)
        with pytest.raises(train.OutOfMemory, match="out of memory on cpu; reduce batch_size"):
            fit(config, dataset=digits, state_dir=tmp_path)
    steps_taken.clear()
    fit(config, dataset=digits, state_dir=tmp_path)
    assert len(steps_taken) == EPOCHS * STEPS - 4


def test_other_data_of_the_same_name_is_not_trained_on_with_old_weights(digits, tmp_path, caplog):
    config = recipe("ce", dataset="mine.npz")
    stopped(config, dataclasses.replace(digits, name="mine.npz"), tmp_path, 4)
    arrays = {part: getattr(digits, part).numpy() for part in ("train_images", "test_images", "test_labels")}
    np.savez(tmp_path / "mine.npz", **arrays, train_labels=digits.train_labels.numpy()[::-1], class_names=range(10))
    other = dataclasses.replace(data.load(str(tmp_path / "mine.npz")), name="mine.npz")
    record = fit(config, dataset=other, state_dir=tmp_path)
    assert comparable(record) == comparable(fit(config, dataset=other))
    assert "other data of the same name" in caplog.text


def test_a_pickle_that_would_run_code_is_refused(digits, tmp_path, caplog):
    config, owned = recipe("elr"), tmp_path / "owned"
    expected = comparable(fit(config, dataset=digits))
    buffer = io.BytesIO()
    torch.save({"config": config.to_json(), "model": Payload(owned)}, buffer)
    content = buffer.getvalue()
    for name in ("checkpoint.pt", "outcome.pt"):
        (tmp_path / name).write_bytes(hashlib.sha256(content).digest() + content)
    with pytest.raises(checkpoints.DamagedFile, match="not loadable"):
        train.load_outcome(tmp_path)
    assert comparable(fit(config, dataset=digits, state_dir=tmp_path)) == expected
    assert "set aside as checkpoint.damaged" in caplog.text
    assert not owned.exists()


# Full disks


def disk_full(monkeypatch, after_writes=0):
    writes, inner = iter(range(10**9)), os.fsync

    def fsync(descriptor):
        if next(writes) >= after_writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        inner(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_full_disk_does_not_end_the_training(digits, tmp_path, monkeypatch, caplog):
    config = recipe("elr")
    expected = comparable(fit(config, dataset=digits))
    disk_full(monkeypatch)
    record = fit(config, dataset=digits, state_dir=tmp_path, checkpoint_seconds=0.0)
    assert comparable(record) == expected
    assert list(tmp_path.iterdir()) == []
    said = [caplog.text.count(what) for what in ("checkpoint not written", "No space left on device")]
    assert said == [EPOCHS * STEPS, EPOCHS * STEPS + 1]  # and the outcome


def test_a_failed_write_leaves_the_checkpoints_that_are_there(digits, tmp_path, monkeypatch, steps_taken, caplog):
    config = recipe("elr")
    expected = comparable(fit(config, dataset=digits))
    with monkeypatch.context() as full:
        disk_full(full, after_writes=3)
        with pytest.raises(Stopped):
            fit(config, dataset=digits, state_dir=tmp_path, checkpoint_seconds=0.0, should_stop=after(5))
    assert position(tmp_path) == (0, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "checkpoint-previous.pt"}
    steps_taken.clear()
    assert comparable(fit(config, dataset=digits, state_dir=tmp_path)) == expected
    assert len(steps_taken) == EPOCHS * STEPS - 2
