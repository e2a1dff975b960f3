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
# # Table 1: test accuracy under label noise
#
# The paper's Table 1 gives 32 test accuracies: CIFAR-10 and CIFAR-100, no noise and 10, 15 and 20 % symmetric noise,
# cross-entropy and ELR, a multi-step and a cosine schedule, one run per cell {cite:p}`galatolo2021`. Four of the cells
# have a counterpart in {cite:t}`liu2020`, whose method it is. This page sets our runs beside both.
#
# Ours come at two scales. *Paper scale* is the described recipe: ResNet-34, 120 or 150 epochs, fresh crops and flips.
# *CPU scale* asks a smaller question of the same 50,000 images: a net of 0.3 million parameters, 30 epochs, no
# augmentation, the paper's β and λ. Its level cannot be compared with the paper's; the direction can.

# %%
# %matplotlib inline
from elrkit import paper, plans, plots, runs

# %% tags=["parameters"]
train = False  # also train the runs that are missing; at paper scale this needs a GPU for about a day
scale = "cpu"  # cpu or paper: what to train
jobs = None  # runs at a time; None: one per core, one on a GPU

# %% tags=["nbval-ignore-output", "remove-output"]
if train:
    runs.load_or_train(plans.plan("table1", scale), jobs=jobs)
table = runs.table(runs.read_all())
cells = paper.table1(paper.load_published(), table)

# %% tags=["nbval-ignore-output"]
for name in ("paper", "cpu"):
    print(
        f"{name} scale: {(cells[f'{name}_seeds'] > 0).sum()} of {len(cells)} cells run, {cells[f'{name}_seeds'].sum()} runs"
    )

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Four panels of test accuracy against label noise: published numbers of the paper and of Liu et al., and our runs at both scales."}}
plots.table1(cells)

# %% [markdown]
# Cells without a mark of ours are not run yet. Intervals are 95 % t intervals over seeds; t, because with three seeds
# nothing can be resampled. A single seed has no interval and is not a finding.


# %% tags=["nbval-ignore-output", "hide-input"]
paper.table1_text(cells).style.hide(axis="index")

# %% [markdown]
# ## ELR against cross-entropy
#
# The difference within a seed: same images, same wrong labels, same initial weights and order, only the loss differs.

# %% tags=["nbval-ignore-output", "hide-input"]
paper.elr_minus_ce(table).style.hide(axis="index")
