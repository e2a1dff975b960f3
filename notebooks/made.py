# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How this was made
#
# Every training run that the report rests on has a record: one JSON file, named by the hash of its settings. This page lists them all.

# %% tags=["remove-input"]
# %matplotlib inline
# %config InlineBackend.figure_formats = ["svg"]
import pandas as pd
from elrkit import models, records, train
from elrkit.report import networks, parameters, plans, published

# %% tags=["parameters"]
dataset = None  # only the records of this dataset; None: all

# %% tags=["nbval-ignore-output"]
parameters.check(In)
trained = [
    r
    for r in records.read_all()
    if dataset is None or r["config"]["dataset"] == dataset
]
if not trained:
    raise ValueError(f"dataset={dataset!r}: no record is of it")
table = records.table(trained).join(networks.of_runs(trained))
print(f"{len(trained)} records")
print("this page was built with", train.versions())

# %% [markdown]
# ## Settings
#
# The first run of each plan. Others of a plan differ in loss, noise, seed or the chapter's own question. The learning rate is
# multiplied by *gamma* after each milestone.

# %% tags=["nbval-ignore-output", "full-width", "hide-input"]
fields = [
    "model",
    "width",
    "train_size",
    "epochs",
    "lr",
    "milestones",
    "gamma",
    "augmentation",
]
rows = [
    {
        "plan": name,
        "scale": scale,
        **plans.plan(name, scale)[0].model_dump(include=set(fields)),
    }
    for name in plans.PLANS
    for scale in (("cpu",) if name in plans.OWN_SCALE else ("paper", "cpu"))
]
pd.DataFrame(rows)[["plan", "scale", *fields]].style.hide(axis="index").format(
    {"lr": "{:g}", "gamma": "{:g}", "width": "{:g}", "train_size": "{:,.0f}"},
    na_rep="",
)

# %% [markdown]
# ## The networks
#
# "Six parts: an input layer, four residual blocks and an output layer." The paper draws ResNet-18 with an output per subcategory
# of the shop and trains ResNet-34. Both and the small net of this report, drawn from the modules that are trained:

# %% mystnb={"image": {"alt": "Three columns of boxes, one per residual block: ResNet-18, ResNet-34 and the small net, from the image at the bottom to the classes at the top."}} tags=["nbval-ignore-output", "full-width"]
small = models.build(
    "small_resnet", 10, 3, plans.CPU["width"], plans.CPU["stem_stride"]
)
nets = {
    "ResNet-18, 63 classes": models.resnet18(63),
    "ResNet-34, 63 classes": models.resnet34(63),
    "the small net, 10 classes": small,
}
networks.draw(nets, (3, 32, 32))

# %%
counted = {name: networks.count(net, (3, 32, 32)) for name, net in nets.items()}
pd.DataFrame(
    {
        "blocks per part": {
            name: ", ".join(str(len(part)) for part in networks.stages(net))
            for name, net in nets.items()
        },
        "million parameters": {
            name: round(parameters / 1e6, 2)
            for name, (parameters, _, _) in counted.items()
        },
        "GFLOP an image, forward": {
            name: round(work / 1e9, 2) for name, (_, work, _) in counted.items()
        },
    }
)

# %% [markdown]
# The paper's counts of blocks and layers are right. A multiply-add is two operations; a training step costs three forward passes, with
# SAM six.
#
# ## What it cost
#
# Operations and hours of the runs by device. Runs that shared a device each got a part of it.

# %% tags=["nbval-ignore-output", "full-width"]
table["arithmetic"] = [
    r["config"]["precision"]
    + ", rounded float32" * ("rounded float32" in r["execution"].values())
    for r in trained
]
networks.totals(table, ["dataset", "device", "threads", "arithmetic"]).style.hide(
    axis="index"
).format(precision=2, thousands=",")

# %% [markdown]
# The paper states 1,958,400 TFLOPS for the runs of Figure 5. By our count these 16 runs of 50 epochs are

# %%
forward = counted["ResNet-34, 63 classes"][1]
pflop = 2 * 4 * 50 * ((3 + 6) * 56_700 + 2 * 6_300) * forward / 1e15
stated = published.number("galatolo2021-figure5-cost") / 1e3
print(
    f"{pflop:,.0f} PFLOP; the paper states {stated:,.1f}, {stated / pflop:.1f} times as much"
)

# %% [markdown]
# How it was estimated is not said. Rated float32 speed of a Quadro RTX 6000, 16.32 TFLOP/s, times 20 runs of the 100 minutes that
# the authors' log notes gives the stated number to the digit, so a rated speed may have been multiplied by time.
#
# ## All runs
#
# Sorted by their settings, the seed last. `python -m elrkit runs --csv` prints this table with any column of a record.

# %% tags=["nbval-ignore-output", "full-width", "hide-input"]
columns = ["dataset", "train_images", "model", "width", "epochs", "augmentation", "arithmetic", "noise", "noise_rate",
           "noise_convention", "split", "loss", "beta", "lam", "sam_rho", "optimizer", "schedule", "lr", "seed"]  # fmt: skip
shown = table.reindex(
    columns=[
        "run_id",
        "test_top1",
        "batches_wrong_memorized",
        *columns,
        "device",
        "seconds",
    ]
)
shown = shown.sort_values([*columns, "run_id"]).rename(
    columns={"batches_wrong_memorized": "memorized"}
)
where = dict(
    zip(
        table["run_id"],
        table["dataset"].where(table["dataset"].str.startswith("cifar"), "other"),
        strict=True,
    )
)


def anchor(run_id):
    """What the claims link to, and itself a link to the record."""
    return f'<span id="run-{run_id}"><a href="../_static/records/{where[run_id]}/{run_id}.json">{run_id}</a></span>'


numbers = dict.fromkeys(
    ("noise rate", "sam rho", "lr", "lam", "beta", "width"), "{:g}"
)
shown.rename(columns=lambda name: name.replace("_", " ")).style.hide(
    axis="index"
).format(
    {"run id": anchor, "train images": "{:,}", "seconds": "{:,.0f}", **numbers},
    precision=3,
    na_rep="",
)
