"""The command line: which commands there are, what it refuses, what it says afterwards, and what it returns."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_dataset import write_dataset

from elrkit import __main__, commands, records, runner, train
from elrkit.__main__ import main
from elrkit.config import RunConfig

FLAGS = ["--epochs", "1", "--width", "8", "--batch-size", "20"]


pytestmark = pytest.mark.usefixtures("no_evidence")


# train


def test_a_run_that_fails_is_a_failure_of_the_command_and_one_that_is_stopped_is_none(tmp_path, capsys):
    path = write_dataset(tmp_path / "s.npz")
    assert main(["train", "--dataset", path, *FLAGS, "--train-size", "70"]) == 1  # only 60 are there
    assert "0 trained, 1 still missing, 1 of them failed, see above" in capsys.readouterr().out
    assert main(["train", "--dataset", path, *FLAGS, "--budget", "0s"]) == 0
    assert "0 trained, 1 still missing; records" in capsys.readouterr().out
    assert main(["train", "--dataset", str(tmp_path / "none.npz"), *FLAGS]) == 1
    assert capsys.readouterr().err.count("no such file or folder") == 1
    assert main(["train", "--budget", "soon"]) == 2
    assert "error: budget='soon': allowed are a number and s, m or h, such as 9m" in capsys.readouterr().err


def test_the_budget_is_of_the_whole_command(monkeypatch):
    left = []
    monkeypatch.setattr(runner, "announce", lambda *_: time.sleep(0.2))
    monkeypatch.setattr(runner, "train_missing", lambda configs, budget_seconds, **_: left.append(budget_seconds) or [])
    commands.train_all([RunConfig()], announced=True, jobs=1, budget_seconds=60.0)
    commands.train_all([RunConfig()], announced=True, jobs=1, budget_seconds=0.1)
    assert 50 < left[0] < 59.8
    assert left[1] == 0


def test_flags_leave_open_what_a_choice_implies(monkeypatch):
    """People's labels have a rate of their own."""
    made = []
    monkeypatch.setattr(runner, "train_missing", lambda configs, **_: made.extend(configs) or [])
    assert main(["train", "--dataset", "cifar10", "--noise", "human"]) == 0
    assert made == [RunConfig(dataset="cifar10", noise="human")]


@pytest.mark.parametrize(
    "flags",
    ["--beta 0.5", "--noise asymmetric", "--milestones 1 --gamma 0.1", "--sam-double-update", "--loss gce --lam 2"],
)
def test_a_flag_without_effect_is_a_mistake(flags, capsys):
    assert main(["train", *flags.split()]) == 2
    said = capsys.readouterr().err
    assert "without effect beside loss=" in said
    assert f"{flags.split()[-2 if ' ' in flags else 0].strip('-').replace('-', '_')}=" in said


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        (["started", "progress", "stopped"], 0),
        (["started", "progress"], 1),  # its process was killed
    ],
)
def test_the_last_event_says_whether_a_missing_run_failed(kinds, status, monkeypatch, capsys):
    config = RunConfig(dataset="./somewhere.npz")

    def train_missing(todo, on_event, **_):
        for kind in kinds:
            detail = train.Progress(1, 1, 100.0, 1.0) if kind == "progress" else None
            on_event(runner.Event(kind, config, detail))
        return [config]

    monkeypatch.setattr(runner, "train_missing", train_missing)
    assert commands.train_all([config]) == status
    assert f"1 still missing{', 1 of them failed, see above' * status}; records in" in capsys.readouterr().out


# runs


def test_runs_lists_what_is_there_and_names_what_is_none(tmp_path, capsys):
    assert main(["runs", "--csv"]) == 0
    assert capsys.readouterr() == ("", f"no runs in {records.results_root()}\n")
    assert main(["train", *FLAGS, "--train-size", "60", "--loss", "gce"]) == 0
    record = json.loads(next(records.results_root().rglob("*.json")).read_text())
    capsys.readouterr()
    os.mkfifo(records.results_root() / "pipe.json")  # is named, and not waited for
    assert main(["runs", "--csv", "--columns", "run_id", "loss", "loss_q"]) == 0
    assert capsys.readouterr().out == f"run_id,loss,loss_q\n{record['run_id']},gce,0.7\n"
    assert main(["runs", "--columns", "colour"]) == 2
    assert "error: columns=['colour']: allowed are run_id, " in capsys.readouterr().err


# The wings


ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


HEAVY = {
    *("torch", "torchvision", "pandas", "sklearn", "scipy", "matplotlib", "PIL"),
    *("lxml", "requests", "imagehash", "tyro", "rich"),
}


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import elrkit.losses, elrkit.sam; elrkit.losses.ELRLoss(3, 2)", {"torch"}),
        ("import elrkit.records as r; r.read_all()", set()),
        ("from elrkit.__main__ import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass", {"tyro", "rich"}),
    ],
)
def test_nothing_of_weight_is_imported_before_it_is_needed(code, allowed):
    code = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert seen.returncode == 0, seen.stderr
    assert set(seen.stderr.split()) & HEAVY <= allowed


def test_a_wing_that_is_not_installed_is_named_with_its_extra(monkeypatch, capsys):
    monkeypatch.setattr(__main__, "WINGS", ("catalogue",))

    def lacking(name):
        raise ModuleNotFoundError("No module named 'lxml'", name="lxml.etree")

    monkeypatch.setattr(__main__.importlib, "import_module", lacking)
    assert main(["audit", "shop"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: audit: no such command among train, runs;")
    assert 'those of elrkit.catalogue need lxml: pip install "elrkit[catalogue]"' in said
    assert main(["runs"]) == 0


def test_a_closed_pipe_ends_in_silence(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "elrkit", "train", "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=300,
        env=ENVIRONMENT,
    )  # fmt: skip
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")
