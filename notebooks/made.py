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
# Every result of training comes from a record: one JSON file per run, named by the hash of its settings, with its
# seed, realized noise, curves, versions, device and time. Records of CIFAR are committed under `results/runs`, beside those of
# the studies of {doc}`audit` (`results/audit`) and of the shops (`results/shop`); the
# digits' are made when the report is built, on the reader's machine. `make report` runs each notebook with papermill and
# renders the book; `requirements.lock` pins every package with its hash.

# %%
import pandas as pd
from elrkit import records, train
from elrkit.config import BUILT_IN_TRAIN_SIZES
from elrkit.report import plans

# %% tags=["parameters"]
dataset = None  # only the records of this dataset; None: all

# %% tags=["nbval-ignore-output"]
trained = [
    r
    for r in records.read_all()
    if dataset is None or r["config"]["dataset"] == dataset
]
if dataset is not None and not trained and dataset not in BUILT_IN_TRAIN_SIZES:
    raise ValueError(
        f"dataset={dataset!r}: no record of it in {records.results_root()}"
    )
table = records.table(trained)
print(f"{len(trained)} records")

# %% [markdown]
# ## Devices and versions
#
# *Rounded float32*: the device lacks the arithmetic, so it computed in float32 and rounded every result and gradient.

# %% tags=["nbval-ignore-output", "full-width"]
for name in ("torch", "torchvision", "numpy", "python", "elrkit"):
    table[name] = [record["versions"][name] for record in trained]
table["dataset"] = table["dataset"].str.replace(
    r"^shop/(\w+)-.*", r"shops, \1", regex=True
)
table["arithmetic"] = [
    record["config"]["precision"]
    + ", rounded float32" * ("rounded float32" in record["execution"].values())
    for record in trained
]
used = table.groupby(
    ["dataset", "scale", "device", "threads", "arithmetic", "torch", "python"],
    dropna=False,
)
used.agg(
    runs=("run_id", "size"), hours=("seconds", lambda s: s.sum() / 3600)
).reset_index().style.hide(axis="index").format({"hours": "{:.2f}"})

# %% [markdown]
# This page itself was built with

# %% tags=["nbval-ignore-output"]
print(", ".join(f"{name} {version}" for name, version in train.versions().items()))

# %% [markdown]
# ## What the scales are
#
# The first run of each plan, whose others differ in loss, noise, seed or the chapter's own question. Milestones are the epochs
# after which the learning rate is multiplied by *factor*. The small net's first convolution has stride 2. The studies of
# {doc}`audit` train it on 15,000 images for 32 epochs, with flips; the shops of {doc}`shop` on 200 photos a subcategory.

# %% tags=["nbval-ignore-output", "full-width", "hide-input"]
names = {
    "model": "network",
    "train_size": "images",
    "epochs": "epochs",
    "lr": "learning rate",
    "milestones": "milestones",
    "gamma": "factor",
    "augmentation": "augmentation",
    "precision": "precision",
}
scales = [
    {"plan": plan, "scale": scale, **plans.plan(plan, scale)[0].model_dump()}
    for plan in plans.PLANS
    for scale in ("paper", "cpu")
]
frame = pd.DataFrame(scales)[["plan", "scale", *names]]
frame["train_size"] = [
    "all" if size is None or size != size else f"{size:,.0f}"
    for size in frame["train_size"]
]
frame["milestones"] = [
    ", ".join(map(str, m)) if isinstance(m, tuple) else ""
    for m in frame["milestones"]
]
frame.rename(columns=names).style.hide(axis="index").format(
    {"learning rate": "{:g}", "factor": "{:g}"}, na_rep=""
)

# %% [markdown]
# ## All runs
#
# Sorted by their settings, the seed last. `python -m elrkit runs --csv` prints this table with any column of a record. Labels of a shop and labels by people are wrong
# before the run sees them, so that the former's noise reads *none*.

# %% tags=["nbval-ignore-output", "full-width", "hide-input"]
columns = [
    "run_id",
    "dataset",
    "scale",
    "noise",
    "noise_rate",
    "noise_convention",
    "split",
    "loss",
    "beta",
    "lam",
    "sam_rho",
    "schedule",
    "lr",
    "weight_decay",
    "augmentation",
    "precision",
    "train_images",
    "epochs",
    "seed",
]
if (table["status"] != "finished").any():
    columns.append("status")
shown = table.reindex(
    columns=[
        "run_id",
        "test_top1",
        "batches_wrong_memorized",
        *columns[1:],
        "seconds",
    ]
).sort_values([*columns[1:], "run_id"])
shown = shown.rename(columns={"batches_wrong_memorized": "memorized"})
shown["train_images"] = shown["train_images"].map("{:,}".format)
shown["seconds"] = shown["seconds"].map("{:,.0f}".format)
anchor = '<span id="run-{0}">{0}</span>'.format  # what the ledger links to
shown.rename(columns=lambda name: name.replace("_", " ")).style.hide(
    axis="index"
).format(
    {
        "run id": anchor,
        "noise rate": "{:g}",
        "sam rho": "{:g}",
        "lr": "{:g}",
        "lam": "{:g}",
        "beta": "{:g}",
        "weight decay": "{:g}",
    },
    precision=3,
    na_rep="",
)
