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
# **So far:** {glue:text}`ledger.ipynb::found_table1:s`.
#
# The paper's Table 1 gives 32 test accuracies: CIFAR-10 and CIFAR-100, no noise and 10, 15 and 20 % symmetric noise,
# cross-entropy and ELR, a multi-step and a cosine schedule, one run per cell {cite:p}`galatolo2021`. Six of the cells
# have a counterpart in {cite:t}`liu2020`, whose method it is. This page sets our runs beside both.
#
# Ours come at two scales. *Paper scale* is the described recipe: ResNet-34, 120 or 150 epochs, fresh crops and flips.
# *CPU scale* asks a smaller question of the same 50,000 images: a net of 0.3 million parameters, 30 epochs, no
# augmentation, the paper's β and λ. Its level cannot be compared with the paper's. Its direction can, for a net that
# sees the same image in every epoch; under the described crops so small a net may memorize little, and then ELR has little
# to prevent ({doc}`forensics` has runs with them).

# %%
# %matplotlib inline
from elrkit import config, records, runner
from elrkit.report import figures as plots
from elrkit.report import paper, plans
from IPython.display import display

# %% tags=["parameters"]
scales = ["paper", "cpu"]  # what to show: paper, cpu, digits
train = False  # also train the missing runs of these scales; at paper scale this needs a GPU for about a day
noise_rates = None  # None: 0, 0.1, 0.15 and 0.2; the first one is also run with a tenth held out
seeds = None  # None: 0, 1, 2
epochs = None  # None: the scale's own
jobs = None  # runs at a time; None: one per core, one on a GPU

# %%
config.check_training(train, jobs)
wanted = plans.at_scales(
    "table1", scales, noise_rates=noise_rates, seeds=seeds, epochs=epochs
)
for scale, configs in wanted.items():
    print(f"{scale} scale: {len(configs)} runs")

# %% tags=["nbval-ignore-output", "remove-output"]
trained = [
    record
    for configs in wanted.values()
    for record in runner.gather(configs, train, jobs)
]
table = records.table(trained)
published = paper.load_published()
cells = paper.table1(published, table)

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


# %% tags=["nbval-ignore-output", "hide-input", "full-width"]
paper.table1_text(cells).style.hide(axis="index")

# %% [markdown]
# ## ELR against cross-entropy
#
# The difference within a seed: same images, same wrong labels, same initial weights and order, only the loss differs.
# Beside it the same difference in the paper's table, of one run each, and in that of Liu et al., where they have the cell. Theirs is no
# difference within one training: their cross-entropy is taken from {cite:t}`zhang2018`, their ELR from the best held-out epoch.

# %% tags=["nbval-ignore-output", "hide-input"]
paper.elr_minus_ce(published, table).style.hide(axis="index")

# %% [markdown]
# ## The last epoch, or the best one on noisy validation
#
# The paper trains on all 50,000 images and reports the last epoch. Liu et al. hold out 5,000 images, whose labels are as
# noisy as the others, and report the epoch that agrees best with them. For the cells that both have, the two readings
# side by side; a row appears when its runs are there.

# %% tags=["nbval-ignore-output", "hide-input", "full-width"]
selected = paper.selected_and_last(published, table)
if len(selected):
    display(selected.style.hide(axis="index"))
else:
    print("not run yet")
