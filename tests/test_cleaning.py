"""Cleaning a part of the labels and going on: what was looked at is right, a stop loses nothing, the list beats
chance."""

import pytest

from elrkit import records, runner
from elrkit.config import RunConfig
from elrkit.report import cleaning
from elrkit.report.made_shops import read

SHORT = dict(loss="elr", noise_rate=0.4, train_size=300, batch_size=50, lr=0.02)


def test_cleaning_stops_and_goes_on(tmp_path):
    base = RunConfig(**SHORT, epochs=4)
    assert cleaning.clean(base) is None
    runner.train_missing([base])
    whole = cleaning.clean(base)
    assert [(row["chosen"], row["fraction"]) for row in whole["rows"]] == [
        ("nothing", 0.0),
        *((chosen, fraction) for fraction in (0.01, 0.05, 0.1) for chosen in ("list", "random")),
    ]
    cleaning.path_of(base).unlink()
    asked = []
    cleaning.clean(base, lambda: len(asked) == 3 or asked.append(1))
    assert len(read(cleaning.path_of(base))["rows"]) == 3
    resumed = cleaning.clean(base)

    def timeless(summary):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in summary["rows"]]

    assert timeless(resumed) == timeless(whole)
    with records.claim(base):
        assert cleaning.clean(base) is None  # another one is at it, and would lose what this one writes


def test_cleaning_corrects_what_was_looked_at(tmp_path):
    base = RunConfig(**SHORT | {"train_size": 1000}, epochs=4)
    runner.train_missing([base])
    summary = cleaning.clean(base)
    rows = {(row["chosen"], row["fraction"]): row for row in summary["rows"]}
    nothing = rows["nothing", 0.0]
    assert nothing["corrected"] == 0
    assert nothing["wrong_after"] == summary["wrong_before"]
    for row in rows.values():
        assert row["looked_at"] == round(1000 * row["fraction"])
        assert row["wrong_after"] == pytest.approx(summary["wrong_before"] - row["corrected"] / 1000)
    # 36 % of the labels are wrong: 100 at random hold 36 +- 5 of them, and the list more.
    assert 20 < rows["random", 0.1]["corrected"] < 52 < rows["list", 0.1]["corrected"] <= 100
    table = cleaning.table([base])
    assert (table["control"] == nothing["test_top1"][-1]).all()
    assert len(cleaning.gains(table)) == 6


@pytest.mark.parametrize(
    ("scale", "fields"),
    [
        ("cpu", {"noise_convention": "worst", "train_size": 20_000, "model": "small_resnet"}),
        ("paper", {"noise_convention": "worst", "train_size": None, "model": "resnet34"}),
        ("digits", {"noise_rate": 0.4}),
    ],
)
def test_the_base_of_cleaning_is_what_its_scale_says(scale, fields):
    base = cleaning.base_run(scale, 1)
    assert base.model_dump(include=set(fields) | {"loss"}) == fields | {"loss": "elr"}
