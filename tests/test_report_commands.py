"""The report's commands: plans of runs listed and trained, in whole or in part; how they end."""

import inspect
import os
import signal

import pytest
from small_dataset import small, write_dataset

from elrkit import runner, train
from elrkit.__main__ import main
from elrkit.report import commands, plans
from elrkit.report import made_shops as shop


def test_a_run_that_fails_is_a_failure_of_the_command(tmp_path, monkeypatch, capsys):
    path = write_dataset(tmp_path / "s.npz")
    plan = [small(path, train_size=70), small(path)]
    monkeypatch.setattr(plans, "plan", lambda *_, **__: plan)
    assert main(["run", "early-learning"]) == 1
    assert "1 trained, 1 still missing, 1 of them failed" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_once_the_run_has_stopped_cleanly(number, tmp_path, monkeypatch, capsys):
    path = write_dataset(tmp_path / "s.npz")

    def fit(config, *, should_stop, **_):
        os.kill(os.getpid(), number)
        assert should_stop()
        raise train.Stopped

    monkeypatch.setattr(train, "fit", fit)
    plan = [small(path), small(path, seed=1)]
    monkeypatch.setattr(plans, "plan", lambda *_, **__: plan)
    assert main(["run", "early-learning"]) == 130
    said = capsys.readouterr()
    assert "0 trained, " in said.out
    assert " still missing; records in" in said.out
    assert said.err.endswith("stopped; the same command goes on where it was\n")


def test_a_part_of_a_plan_is_listed_and_trained(monkeypatch, capsys):
    made = []
    monkeypatch.setattr(runner, "train_missing", lambda configs, **_: made.extend(configs) or [])
    monkeypatch.setattr(runner, "estimate_seconds", lambda configs, jobs, threads=None: 7200.0)
    part = ["early-learning", "--scale", "digits", "--seeds", "1", "--noise-rates", "0.3"]
    assert main(["plan", *part]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("2 runs, 0 there, 2 missing\n")
    assert said.err == f"2 runs to train, about 2 h 00 min\n{runner.SMALLER}\n"
    assert main(["run", *part]) == 0
    assert made == plans.plan("early-learning", "digits", seeds=[1], noise_rates=[0.3])
    assert main(["plan", "people", "--noise-rates", "0.2"]) == 2
    assert "noise_rates for plan people: allowed are seeds, levels" in capsys.readouterr().err


def test_defaults_of_commands_are_those_of_what_they_call():
    """They stand in the command line again, so that it starts without what a study imports."""
    from elrkit.report import list_study

    for command, called in ((commands.list_study, list_study.of_dataset), (commands.shop_command, shop.shops)):
        of_command, of_called = (
            {name: each.default for name, each in inspect.signature(function).parameters.items()}
            for function in (command, called)
        )
        shared = {name: default for name, default in of_called.items() if default is not inspect.Parameter.empty}
        assert shared
        assert {name: tuple(default) if isinstance(default, list) else default for name, default in shared.items()} == {
            name: of_command[name] for name in shared
        }
