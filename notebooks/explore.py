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
# # Explore the runs
#
# Choose a kind of run; point at a mark for its values; click it for its settings and its record.

# %% tags=["remove-input"]
from elrkit import records
from elrkit.report import explore, parameters
from IPython.display import HTML

# %% tags=["parameters"]
dataset = None  # only the runs on this dataset; None: all

# %% tags=["nbval-ignore-output", "full-width"]
parameters.check(In)
shown = [r for r in records.read_all() if dataset in (None, r["config"]["dataset"])]
if not shown:
    raise ValueError(f"dataset={dataset!r}: no record is of it")
HTML(explore.page(shown))

# %% [markdown]
# ## How to read it
#
# Each mark of the first panel is a run. The others follow its wrong labels and its test accuracy. Memorized is counted in the
# training batches, as the paper's code counts.
