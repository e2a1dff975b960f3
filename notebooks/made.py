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
# Every number and figure comes from a record: one JSON file per training, named by the hash of its settings, with its
# seed, realized noise, curves, versions, device and time. Records of CIFAR are committed under `results/runs`; the
# digits' are made when the report is built, on the reader's machine. `make report` runs each notebook with papermill and
# renders the book; `requirements.lock` pins every package with its hash.

# %%
from elrkit import runs, train

# %% tags=["parameters"]
dataset = None  # only the records of this dataset; None: all

# %% tags=["nbval-ignore-output"]
records = [
    r
    for r in runs.read_all()
    if dataset is None or r["config"]["dataset"] == dataset
]
table = runs.table(records)
print(f"{len(records)} records")

# %% [markdown]
# ## Devices and versions

# %% tags=["nbval-ignore-output"]
for name in ("torch", "torchvision", "numpy", "python", "elrkit"):
    table[name] = [record["versions"][name] for record in records]
used = table.groupby(
    ["dataset", "scale", "device", "threads", "torch", "python"], dropna=False
)
used.agg(
    runs=("run_id", "size"), hours=("seconds", lambda s: round(s.sum() / 3600, 2))
).reset_index()

# %% [markdown]
# This page itself was built with

# %% tags=["nbval-ignore-output"]
train.versions()

# %% [markdown]
# ## All runs
#
# `python -m elrkit runs --csv` prints this table with any column of a record.

# %% tags=["nbval-ignore-output", "hide-output"]
columns = [
    "run_id",
    "dataset",
    "model",
    "noise",
    "noise_rate",
    "loss",
    "schedule",
    "sam_rho",
    "seed",
    "scale",
    "status",
]
shown = table[[*columns, "test_top1", "wrong_memorized", "seconds"]].sort_values(
    ["dataset", "scale", "noise_rate", "loss"]
)
anchor = '<span id="run-{0}">{0}</span>'.format  # what the ledger links to
shown.style.hide(axis="index").format(precision=3).format({"run_id": anchor})
