"""The paper's future work: correct a part of the labels, chosen by the list of labels to look at or at random, and go
on.

python -m elrkit clean              # on human labels of CIFAR-10; `results/shop` keeps one JSON file a run
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from elrkit import checkpoints, data, records, train
from elrkit.catalogue import scores as audit
from elrkit.config import ConfigError, RunConfig, cifar10_recipe
from elrkit.report import effects, plans
from elrkit.report.made_shops import read, write_json

FRACTIONS = (0.01, 0.05, 0.1)
TUNE_EPOCHS = 3


def base_run(scale: str, seed: int, epochs: int | None = None) -> RunConfig:
    """The run to go on from: ELR on CIFAR-10 with the human labels `worst` (40 % wrong; at cpu scale 20,000 images of
    it), or on the digits with 40 % symmetric noise. Raises ConfigError."""
    if scale not in plans.SCALES:
        raise ConfigError(f"scale={scale!r}: allowed are {', '.join(plans.SCALES)}")
    if scale == "digits":
        return RunConfig(loss="elr", noise_rate=0.4, seed=seed, noise_seed=seed, epochs=epochs or 30, lr=0.02)
    human = dict(noise="human", noise_convention="worst", noise_rate=None)
    base = cifar10_recipe("elr", 0.0, "cosine", seed).with_(**human)
    if scale == "cpu":
        base = plans.for_small_net(base).with_(train_size=20_000)
    return base.with_(epochs=epochs or base.epochs)


def path_of(base: RunConfig) -> Path:
    return records.beside("shop", f"clean-{base.run_id}.json")


def clean(base: RunConfig, should_stop: Callable[[], bool] = lambda: False) -> dict | None:
    """Correct 1, 5 and 10 % of a finished ELR run's labels, by its list or at random, and fine-tune on all of them.

    A person who looks at a label gives the true one, whether it was wrong or not. The network goes on from the run's
    weights and ELR targets for TUNE_EPOCHS epochs, from a tenth of its learning rate down to 0; the target of a label
    that was looked at is the answer. Nothing corrected is the control: the same epochs on the labels as they are. The
    summary is written after each fine-tuning, and a second call goes on where the first stopped; None when the run is
    not finished here, or another process is at it.
    """
    record = records.find(base)
    if record is None or record["status"] != "finished" or (outcome := checkpoints.outcome(record)) is None:
        return None
    with records.claim(base) as mine:
        return _clean(base, record, outcome, should_stop) if mine else None


def _clean(base: RunConfig, record: dict, outcome: dict, should_stop: Callable[[], bool]) -> dict:
    dataset = data.load(base.dataset)
    problem = train.set_up(base, dataset)
    given, truth, n = problem.given, problem.truth, len(problem.given)
    tune = base.with_(
        epochs=TUNE_EPOCHS, lr=base.lr / 10, schedule="cosine", restart_epochs=TUNE_EPOCHS, eta_min=0.0,
        eval_every=TUNE_EPOCHS,
    )  # fmt: skip
    targets = outcome["targets"].numpy()
    by_list = audit.rank(targets, given, scores=audit.label_scores(targets, given, audit.OF_TARGETS))
    orders = {
        "list": by_list.index.to_numpy(copy=True),
        # A stream of its own: the noise is drawn from the plain seed, and the same permutation would find every flip.
        "random": np.random.default_rng([base.seed, 1]).permutation(n),
    }
    summary = read(path_of(base)) or {
        "run_id": base.run_id,
        "base": base.model_dump(mode="json"),
        "fine_tuning": {"epochs": tune.epochs, "lr": tune.lr, "schedule": tune.schedule, "eta_min": tune.eta_min},
        "device": train.describe_device(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "threads": record["execution"]["threads"],
        "versions": train.versions(),
        "images": n,
        "wrong_before": problem.realized_rate,
        "test_top1_before": record["curves"]["test_top1"][-1],
        "rows": [],
    }
    done = {(row["chosen"], row["fraction"]) for row in summary["rows"]}
    before = torch.get_num_threads()
    torch.set_num_threads(record["execution"]["threads"])
    try:
        for chosen, fraction in [("nothing", 0.0), *((c, f) for f in FRACTIONS for c in orders)]:
            if (chosen, fraction) in done or should_stop():
                continue
            started = time.perf_counter()
            looked = orders[chosen][: round(fraction * n)] if fraction else np.array([], np.int64)
            labels = given.copy()
            labels[looked] = truth[looked]
            targets = outcome["targets"].clone()
            targets[looked] = torch.nn.functional.one_hot(torch.from_numpy(truth[looked]), targets.shape[1]).float()
            left = dataclasses.replace(problem, given=labels, realized_rate=float((labels != truth).mean()))
            curves = train.fine_tune(tune, dataset, left, outcome | {"targets": targets})
            summary["rows"].append({
                "chosen": chosen, "fraction": fraction, "looked_at": len(looked),
                "corrected": int((given != labels).sum()), "wrong_after": left.realized_rate,
                "test_top1": curves["test_top1"], "seconds": round(time.perf_counter() - started, 1),
            })  # fmt: skip
            write_json(summary, path_of(base))
    finally:
        torch.set_num_threads(before)
    return summary


def table(bases: Sequence[RunConfig]) -> pd.DataFrame:
    """One row per fine-tuning of these runs: seed, chosen, fraction, looked_at, corrected, wrong_after, test_top1 (at
    its end), before (the run's own), control (nothing corrected; NaN where missing); empty where there is none."""
    rows = []
    for summary in filter(None, (read(path_of(base)) for base in bases)):
        control = next((row["test_top1"][-1] for row in summary["rows"] if row["chosen"] == "nothing"), np.nan)
        for row in summary["rows"]:
            last = row | {"test_top1": row["test_top1"][-1]}
            rows.append(
                {"seed": summary["base"]["seed"], "before": summary["test_top1_before"], "control": control} | last
            )
    columns = ["seed", "before", "control", "chosen", "fraction", "looked_at", "corrected", "wrong_after", "test_top1"]
    return pd.DataFrame(rows, columns=[*columns, "seconds"])


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `table`: what correcting adds over the control of the same seed, and over the run before the
    fine-tuning, in points with a 95 % t interval."""
    found = []
    done = rows[rows["chosen"] != "nothing"]
    for (fraction, chosen), part in done.groupby(["fraction", "chosen"]):
        found.append({
            "labels looked at": f"{100 * fraction:g} %", "chosen by": chosen, "seeds": part["seed"].nunique(),
            "corrected": round(part["corrected"].mean()),
            "over the control": _points((part["test_top1"] - part["control"]).dropna()),
            "over before": _points(part["test_top1"] - part["before"]),
        })  # fmt: skip
    return pd.DataFrame(found)


def _points(values: pd.Series) -> str:
    return effects.text(effects.interval(100 * values), "{:+.1f}")
