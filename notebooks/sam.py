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
# # SAM, everything else equal
#
# **So far:** {glue:text}`ledger.ipynb::found_sam:s`.
#
# The abstract of {cite:t}`galatolo2021` adds "a further 14.6 percentage points" from sharpness-aware minimization (SAM,
# {cite:t}`foret2021`): with ELR on the shop's images, 78.8 % after training with SGD, 93.4 % with SAM. Their Figure 5 shows
# cross-entropy (CE) and ELR with SGD and with SAM, four runs each. Along with SAM, though, the published code changed the
# learning rate, the weight decay and the schedule ({doc}`forensics`). Here nothing changes but SAM, on CIFAR-10 with
# symmetric noise in place of the shop's images, which are not public. (At CPU scale all images train, without augmentation.
# {doc}`forensics` has SAM added to 20,000 images under crops drawn anew, where the small net memorizes little and SAM does not help.)
#
# SAM takes the gradient not at the weights $w$ but at the worst point near them,
#
# $$
# w \leftarrow w - \eta \, \nabla \mathcal{L}(w + \hat{\epsilon}),
# \qquad \hat{\epsilon} = \rho \, \frac{\nabla \mathcal{L}(w)}{\lVert \nabla \mathcal{L}(w) \rVert_2} ,
# $$
#
# and so computes two gradients a step. It costs twice as much as SGD, and its fair rival is SGD with twice the epochs.
# Batch-norm statistics and ELR's targets move once a step here, from the unperturbed pass.

# %%
# %matplotlib inline
from elrkit import config, records, runner
from elrkit.report import compare, paper, plans
from elrkit.report import figures as plots
from IPython.display import display

# %% [markdown]
# ## Parameters
#
# At *paper scale* a run is ResNet-34 for 120 epochs, at *CPU scale* a small net for 30 epochs without augmentation; SGD at
# SAM's cost takes 240 and 60. A level at CPU scale is no comparison with the paper's, a difference shows a direction.
# `epochs` sets all runs to one length, so that the rival with twice the epochs drops out.

# %% tags=["parameters"]
scales = ["paper", "cpu"]  # what to show: paper, cpu, digits
train = False  # also train the missing runs of these scales
seeds = None  # None: the plan's, four
noise_rates = [0.2]  # symmetric
epochs = None  # None: the plan's, else of every run
jobs = None  # runs at a time; None: one per core, one on a GPU

# %%
config.check_training(train, jobs)
planned = plans.at_scales(
    "sam", scales, seeds=seeds, noise_rates=noise_rates, epochs=epochs
)
for scale, configs in planned.items():
    print(f"{scale} scale: {len(configs)} runs, first {configs[0].describe()}")

# %% tags=["nbval-ignore-output", "remove-output"]
trained = {scale: runner.gather(planned[scale], train, jobs) for scale in planned}
rows = {
    scale: compare.compare(planned[scale], trained[scale], compare.SAM_ARMS)
    for scale in planned
    if trained[scale]
}
curves = {}
for scale, configs in planned.items():
    length = configs[0].epochs  # the rival with twice as many has a table below
    found = [r for r in trained[scale] if r["config"]["epochs"] == length]
    table = records.curves(r for r in found if r["status"] == "finished")
    for rate, part in table.groupby("noise_rate") if len(table) else ():
        curves[scale, rate] = part

# %% [markdown]
# ## What remains of the 14.6 points
#
# The difference within a seed: same images, same wrong labels, same initial weights and order of the images; at the last
# epoch, and with each run at its best one, chosen on the test images. Intervals are
# 95 % t intervals over seeds, because a bootstrap of a few values is too short; one seed has no interval and is no finding.

# %% tags=["nbval-ignore-output"]
published = paper.load_published().set_index("id")["mean"]
gain = published["galatolo2021-text-cdon-sam-gain"]
print(f"published, on the shop's images: {gain:+.1f} points")
for scale in planned:
    print(f"{scale} scale: {len(trained[scale])} of {len(planned[scale])} runs")
for scale, table in rows.items():
    text = compare.sam_gain(table).style.hide(axis="index")
    display(text.set_caption(f"{scale} scale"))

# %% [markdown]
# Accuracy at the last epoch, and differences to the run before and to SGD. The run before SAM is SGD with twice the epochs.

# %% tags=["nbval-ignore-output", "hide-input"]
for scale, table in rows.items():
    text = compare.as_text(table).style.hide(axis="index")
    display(text.set_caption(f"{scale} scale"))
if not rows:
    print("not run yet")

# %% [markdown]
# ## Figure 5, redone on CIFAR-10
#
# Means over the seeds; bands are one standard deviation to either side, as in the paper. The paper measured its training
# loss with CE and its test loss with ELR. Here the training loss is what is minimized, so that ELR's, which can be negative,
# is not comparable with CE's; the test loss is the cross-entropy on true labels for all.

# %% tags=["nbval-ignore-output", "full-width"] mystnb={"image": {"alt": "Six panels over the epochs: training loss, test loss, wrong labels memorized, top-1 and top-5 test accuracy, wrong labels seen through; a line each for CE and ELR with SGD and SAM."}}
for (scale, _), table in curves.items():
    print(f"{scale} scale")
    display(plots.sam_curves(table))
if not curves:
    print("not run yet")

# %% [markdown]
# ## What becomes of wrong labels under SAM
#
# As in {doc}`early_learning`: shares of the training images by what the network makes of their label, counted on the
# training batches; means over the seeds, bands from the lowest to the highest.

# %% tags=["nbval-ignore-output", "full-width"] mystnb={"image": {"alt": "Shares of right and wrong labels by prediction, over the epochs, one column each for CE, ELR, CE with SAM and ELR with SAM."}}
for (scale, _), table in curves.items():
    print(f"{scale} scale")
    display(plots.early_learning(table, "batches"))
if not curves:
    print("not run yet")

# %% [markdown]
# ## What it costs
#
# Operations are counted from the network, evaluation left out: three forward passes an image and step for SGD and six for SAM; seconds are
# measured, and hold for the device and the load of the day: CPU-scale runs shared their machine with others, so that
# their seconds do not compare. Where the axis counts operations, two trainings
# above one another have cost the same.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Test accuracy against training operations and against seconds, for CE and ELR with SGD, SGD with twice the epochs, and SAM."}}
for scale, table in rows.items():
    for rate, part in table.groupby("noise_rate", sort=False):
        if part["seeds"].sum():
            print(f"{scale} scale, {100 * rate:g} % noise")
            display(plots.accuracy_by_cost(part))
if not rows:
    print("not run yet")

# %% tags=["nbval-ignore-output", "hide-input"]
for scale, table in rows.items():
    cost = compare.cost_text(table).style.hide(axis="index")
    display(cost.set_caption(f"{scale} scale, means over seeds"))
