"""Labels that people made (CIFAR-10N) in tables: accuracy beside the leaderboard, what each means adds, how people err,
and how far agreement with given labels strays from the truth.

All functions take the result of `elrkit.runs.table` for runs of the plan `human-noise` at one scale, and return
DataFrames. On the digits, labels flipped within pairs of classes stand for people's; `people` tells them from symmetric
noise of the same nominal rate, by which levels are told apart.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from elrkit.config import HUMAN_NOISE_RATES
from elrkit.report import plans
from elrkit.report.compare import LOSS_NAMES
from elrkit.report.paper import interval_text

LEVELS = plans.LEVELS[::-1]  # from the cleanest on

# What was changed in ELR's multi-step training, and what it is compared with: one means a row, then all of them.
MEANS = (
    ("SAM", "ELR with SAM", "ELR"),
    ("SAM, on symmetric noise of the same rate", "ELR with SAM, symmetric", "ELR, symmetric"),
    ("cosine restarts", "ELR, cosine", "ELR"),
    ("averaged weights", "ELR, cosine, averaged", "ELR, cosine"),
    ("all three", "ELR with SAM, cosine, averaged", "ELR"),
)


def level_of(rate: float) -> str:
    """The level whose share of wrong labels is nearest: published shares differ from the counted ones in a digit."""
    return min(LEVELS, key=lambda level: abs(HUMAN_NOISE_RATES[level] - rate))


def finished(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs with the columns level and people: whether labels are people's, or what stands for them."""
    runs = runs[runs["status"] == "finished"]
    return runs.assign(level=runs["noise_rate"].map(level_of), people=runs["noise"] != "symmetric")


def methods(runs: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy of each training: level, seed, method, test_top1 (last epoch), test_top1_best (NaN if averaged).

    A run whose weights were averaged counts twice: its network as trained, and the averaged one. Methods on symmetric
    noise in place of people's labels end in ``, symmetric``.
    """
    kept = finished(runs)
    kept = kept[kept["split"] == "all"]
    rows = []
    for _, run in kept.iterrows():
        name = LOSS_NAMES[run["loss"]] + (" with SAM" if run["sam_rho"] else "")
        name += ", cosine" if run["schedule"] == "cosine" else ""
        name += "" if run["people"] else ", symmetric"
        cell = {"level": run["level"], "seed": run["seed"]}
        rows.append({**cell, "method": name, "test_top1": run["test_top1"], "test_top1_best": run["test_top1_best"]})
        if run["weight_average"]:
            rows.append({**cell, "method": f"{name}, averaged", "test_top1": run["test_top1_averaged"]})
    return pd.DataFrame(rows, columns=["level", "seed", "method", "test_top1", "test_top1_best"])


def leaderboard(published: pd.DataFrame, by_scale: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Test accuracy in percent: the published rows of Wei et al. (mean ± standard deviation), then ours by scale.

    published: `paper.load_published`; by_scale: scale -> runs. Columns: whose, method, epoch (last, or the best one by
    the test images, as theirs; unknown of averaged weights), and a text for each level: mean, 95 % t interval over
    seeds, seeds.
    """
    rows = []
    theirs = published[(published["source"] == "wei2022") & (published["quantity"] == "test_top1_best")]
    for method, part in theirs.groupby("method", sort=False):
        cells = {level_of(r.noise_rate): f"{r.mean:.2f} ± {r.std:.2f}" for r in part.itertuples(index=False)}
        rows.append({"whose": "Wei et al.", "method": method, "epoch": "best", **cells})
    order = ("CE", "CE with SAM", "ELR", *(better for _, better, _ in MEANS[:-1]), "ELR with SAM, cosine", MEANS[-1][1])
    for scale, runs in by_scale.items():
        ours = methods(runs)
        ours = ours[~ours["method"].str.endswith(", symmetric")]
        for method in sorted(set(ours["method"]), key=order.index):
            part = ours[ours["method"] == method]
            for epoch, measure in (("last", "test_top1"), ("best", "test_top1_best")):
                known = part.dropna(subset=[measure]).groupby("level")[measure]
                if cells := {level: _text(100 * values, "{:.2f}") for level, values in known}:
                    rows.append({"whose": f"ours, {scale} scale", "method": method, "epoch": epoch, **cells})
    return pd.DataFrame(rows, columns=["whose", "method", "epoch", *LEVELS], dtype=object).fillna("not run yet")


def gains(runs: pd.DataFrame) -> pd.DataFrame:
    """What each means of `MEANS` adds to ELR's test accuracy, in points, within a seed: a text per level."""
    table = methods(runs).pivot_table(index=["level", "seed"], columns="method", values="test_top1")
    rows = []
    for name, better, base in MEANS:
        cells = {}
        if {better, base} <= set(table.columns):
            points = (100 * (table[better] - table[base])).dropna()
            cells = {level: _text(group, "{:+.2f}") for level, group in points.groupby(level="level")}
        rows.append({"means": name, "compared": f"{better} against {base}", **cells})
    return pd.DataFrame(rows, columns=["means", "compared", *LEVELS], dtype=object).fillna("not run yet")


def against_redrawn(runs: pd.DataFrame) -> pd.DataFrame:
    """People's labels less as many redrawn ones, in points of test accuracy, within a seed: a row per level and seed
    that has all four plain runs. Columns: level, seed, CE, ELR (either loss on people's labels less on redrawn ones),
    ELR - CE (ELR's gain on people's labels less that on redrawn ones), at the last epoch; and the same at the best
    epochs, as ``CE, best epochs`` and so on.
    """
    plain = finished(runs)
    plain = plain[(plain["split"] == "all") & (plain["sam_rho"] == 0) & (plain["schedule"] == "multistep")]
    found: dict[str, pd.Series] = {}
    for measure, when in (("test_top1", ""), ("test_top1_best", ", best epochs")):
        arms = 100 * plain.pivot_table(index=["level", "seed"], columns=["loss", "people"], values=measure)
        arms = arms.reindex(columns=pd.MultiIndex.from_product([LOSS_NAMES, (True, False)]))
        for loss, name in LOSS_NAMES.items():
            found[f"{name}{when}"] = arms[loss, True] - arms[loss, False]
        found[f"ELR - CE{when}"] = found[f"ELR{when}"] - found[f"CE{when}"]
    return pd.DataFrame(found).dropna().rename_axis(index=["level", "seed"]).reset_index()


def against_redrawn_text(differences: pd.DataFrame) -> pd.DataFrame:
    """The result of `against_redrawn` as a person reads it: means and 95 % intervals over seeds, a row per level."""
    names = [name for name in differences.columns if name not in ("level", "seed")]
    rows = [
        {"level": level, **{name: _text(part[name], "{:+.1f}") for name in names}}
        for level, part in differences.groupby("level")
    ]
    return pd.DataFrame(rows, columns=["level", *names])


def confusion_facts(counts: dict[str, np.ndarray], class_names: Iterable[str]) -> pd.DataFrame:
    """How people's labels are wrong, from `human_counts.read_human_counts`: a row per level, in percent.

    wrong: of all labels; cleanest, dirtiest: the classes with the smallest and largest share of wrong labels; one
    mistake: the share of the wrong labels that make the commonest mistake of their true class (1 of 9 under symmetric
    noise); commonest: the three largest entries beside the diagonal.
    """
    names = list(class_names)
    rows = []
    for level in (level for level in LEVELS if level in counts):
        matrix = np.asarray(counts[level])
        off = matrix - np.diag(matrix.diagonal())
        shares = off.sum(axis=1) / matrix.sum(axis=1)
        low, high = int(shares.argmin()), int(shares.argmax())
        top = np.argsort(-off, axis=None, kind="stable")[:3]
        pairs = [(i, j, matrix[i, j] / matrix[i].sum()) for i, j in zip(*np.unravel_index(top, off.shape), strict=True)]
        rows.append(
            {
                "level": level,
                "wrong": f"{100 * off.sum() / matrix.sum():.1f} %",
                "cleanest class": f"{names[low]} {100 * shares[low]:.1f} %",
                "dirtiest class": f"{names[high]} {100 * shares[high]:.1f} %",
                "one mistake": f"{100 * off.max(axis=1).sum() / off.sum():.0f} %",
                "commonest mistakes": "; ".join(f"{names[i]} as {names[j]} {100 * s:.0f} %" for i, j, s in pairs),
            }
        )
    return pd.DataFrame(rows)


def agreement(runs: pd.DataFrame) -> pd.DataFrame:
    """Agreement with given labels beside accuracy on true ones, at the last epoch: a row per run and set of labels.

    Only plain trainings (multi-step, no SAM). Columns: level, people, loss, seed, labels (training; held-out, where a
    tenth was held out; test, where test labels were made wrong too), agreement, accuracy (fractions), test_accuracy: on
    the true labels of all test images, wrong: the share of wrong labels among the training images, and
    predicted_wrong: the share of wrong held-out labels that are predicted as labelled, though the network has not seen
    them.
    """
    kept = finished(runs)
    kept = kept[(kept["sam_rho"] == 0) & (kept["schedule"] == "multistep")]
    rows = []
    for run in kept.to_dict("records"):
        wrong = run["noise_realized"]
        cell = {"level": run["level"], "people": run["people"], "loss": run["loss"], "seed": run["seed"]}
        cell |= {"wrong": wrong, "predicted_wrong": np.nan, "test_accuracy": run["test_top1"]}
        right = (1 - wrong) * run["right_correct"]
        seen = {"agreement": right + wrong * run["wrong_memorized"], "accuracy": right + wrong * run["wrong_correct"]}
        if run["split"] == "held_out":
            held = {"agreement": run["held_out_top1_noisy"], "accuracy": run["held_out_top1"]}
            rows.append(cell | {"labels": "held-out", **held, "predicted_wrong": run["held_out_wrong_memorized"]})
            continue
        rows.append(cell | {"labels": "training", **seen})
        if run["noise"] != "human":  # CIFAR-10N labels no test images
            tested = {"agreement": run["test_top1_noisy"], "accuracy": run["test_top1"]}
            rows.append(cell | {"labels": "test", **tested})
    columns = ["level", "people", "loss", "seed", "labels", "agreement", "accuracy", "test_accuracy", "wrong"]
    return pd.DataFrame(rows, columns=[*columns, "predicted_wrong"])


def agreement_text(table: pd.DataFrame) -> pd.DataFrame:
    """The result of `agreement` as a person reads it: means and 95 % intervals over seeds, in percent and points."""
    rows = []
    for (people, level, labels, loss), part in table.groupby(["people", "level", "labels", "loss"]):
        rows.append(
            {
                "noise": "people" if people else "symmetric", "level": level, "labels": labels,
                "loss": LOSS_NAMES[loss],
                "agreement with given labels": _text(100 * part["agreement"], "{:.1f}"),
                "accuracy on true labels": _text(100 * part["accuracy"], "{:.1f}"),
                "agreement minus accuracy": _text(100 * (part["agreement"] - part["accuracy"]), "{:+.1f}"),
                "right training labels": f"{100 * (1 - part['wrong'].mean()):.1f}",
            }
        )  # fmt: skip
    columns = ["noise", "level", "labels", "loss", "agreement with given labels", "accuracy on true labels"]
    return pd.DataFrame(rows, columns=[*columns, "agreement minus accuracy", "right training labels"])


def _seeds(fewest: int, most: int) -> str:
    if most == 1:
        return "1 seed each"
    return f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"


def ranking(table: pd.DataFrame) -> list[str]:
    """Whether agreement ranks CE and ELR as their accuracy on true test labels does: a sentence per kind of noise and
    set of labels. Counted over levels, by the mean difference within seeds, from the result of `agreement`.
    """
    sentences: list[str] = []
    if not {"ce", "elr"} <= set(table["loss"]):
        return sentences
    wide = table.pivot_table(index=["people", "labels", "level", "seed"], columns="loss")
    ahead = pd.DataFrame({name: wide[name]["elr"] - wide[name]["ce"] for name in ("agreement", "test_accuracy")})
    for (people, labels), part in ahead.dropna().groupby(level=["people", "labels"]):
        levels = part.groupby(level="level")
        means, seeds = levels.mean(), levels.size()
        same = int((np.sign(means["agreement"]) == np.sign(means["test_accuracy"])).sum())
        sentences.append(
            f"{'people' if people else 'symmetric'}, {labels} labels: agreement puts CE and ELR in the order of their "
            f"test accuracy at {same} of {len(means)} levels" + f" ({_seeds(seeds.min(), seeds.max())})"
        )
    return sentences


def foreseen(studies: pd.DataFrame) -> list[tuple[str, pd.Series]]:
    """Of people's wrong labels, the shares that nets trained without the image predict as labelled, a value a study:
    (level, shares in [0, 1]). From the out-of-fold probabilities of `elrkit.report.list_study.rows`, of which the natural
    list holds every label that is not the most probable class."""
    if studies.empty:
        return []
    rows = studies[
        (studies["dataset"] == "cifar10") & (studies["source"] == "out_of_fold") & (studies["list"] == "natural")
    ]
    return [(level, 1 - rows.loc[rows["level"] == level, "recall"]) for level in LEVELS if level in set(rows["level"])]


def predicted_as_labelled(runs: pd.DataFrame, studies: pd.DataFrame) -> list[str]:
    """Of the wrong labels the share that ELR predicts as labelled in the batches of the last epoch, on people's labels
    and on as many redrawn ones, beside the share by nets that have not seen the images (`foreseen`): a sentence per
    level that has both kinds; means over seeds."""
    elr = finished(runs)
    elr = elr[(elr["loss"] == "elr") & (elr["sam_rho"] == 0) & (elr["schedule"] == "multistep")]
    elr = elr[elr["split"] == "all"]
    shares = 100 * elr.pivot_table(index="level", columns="people", values="batches_wrong_memorized")
    unseen = dict(foreseen(studies))
    sentences = []
    for level, row in shares.reindex(columns=[True, False]).dropna().iterrows():
        text = f"{level}: ELR predicts {row[True]:.0f} % of people's wrong labels, {row[False]:.0f} % of redrawn ones"
        if level in unseen:
            text += f"; nets trained without the images predict {100 * unseen[level].mean():.0f} % of people's"
        sentences.append(text)
    return sentences


def predictable(table: pd.DataFrame, studies: pd.DataFrame) -> pd.DataFrame:
    """Of wrong labels that a network has not seen, the share it predicts as labelled: errors that can be foreseen.

    From the result of `agreement` (a tenth held out, a column per loss) and from `foreseen` of the studies of the
    audit (five nets, each trained without a fifth), in percent: a row per level.
    """
    held = table[table["labels"] == "held-out"].dropna(subset=["predicted_wrong"])
    rows = {
        level: {LOSS_NAMES[loss]: _text(100 * p["predicted_wrong"], "{:.1f}") for loss, p in part.groupby("loss")}
        for level, part in held.groupby("level")
    }
    for level, shares in foreseen(studies):
        rows.setdefault(level, {})["CE, out-of-fold"] = _text(100 * shares, "{:.1f}")
    result = pd.DataFrame.from_dict(rows, orient="index").reindex([level for level in LEVELS if level in rows])
    return result.fillna("not run yet")


def needed_foresight(agreement: float, wrong: Iterable[float]) -> pd.DataFrame:
    """What an agreement with labels takes when some of them are wrong; all in percent.

    A network that agrees with every right label and foresees a share f of the wrong ones agrees with
    100 - wrong + f wrong / 100 percent of all labels, so f is at least (agreement - (100 - wrong)) / wrong.
    """
    rows = []
    for share in wrong:
        foreseen = max(0.0, 100 * (agreement - (100 - share)) / share)
        rows.append(
            {"labels wrong": share, "most without foresight": 100 - share, "agreement": agreement,
             "wrong labels to foresee, at least": foreseen}
        )  # fmt: skip
    return pd.DataFrame(rows)


def _text(values: Iterable[float], form: str) -> str:
    values = pd.Series(list(values), dtype=float).dropna()
    return interval_text(values, form) + (f", {len(values)} seeds" if len(values) > 1 else "")
