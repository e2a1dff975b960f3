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
# # Early learning, then memorization
#
# **So far:** {glue:text}`ledger.ipynb::found_early_learning:s`.
#
# A network trained on partly wrong labels first learns what most labels agree on, and only later the wrong labels one
# by one. {cite:t}`liu2020` call the two phases *early learning* and *memorization*; {cite:t}`galatolo2021` show them in
# their Figure 2. This chapter makes labels wrong on purpose, trains with cross-entropy (CE) and with early-learning
# regularization (ELR), and asks after each epoch what became of the wrong labels.
#
# ELR adds to the cross-entropy a term that holds the network to its own early answers:
#
# $$
# \mathcal{L} = \mathcal{L}_\text{CE} + \frac{\lambda}{n} \sum_{i=1}^{n} \log\bigl(1 - \langle \mathbf{p}_i, \mathbf{t}_i \rangle\bigr),
# \qquad \mathbf{t}_i \leftarrow \beta\, \mathbf{t}_i + (1 - \beta)\, \mathbf{p}_i ,
# $$
#
# where $\mathbf{p}_i$ are the predicted probabilities of image $i$ and $\mathbf{t}_i$ is their moving average
# ({doc}`../book/elr` says how to use it).

# %%
from elrkit import config, data, records, runner
from elrkit.report import compare, findings, plans
from elrkit.report import figures as plots
from IPython.display import display
from myst_nb import glue

# %matplotlib inline

# %% [markdown]
# ## Parameters
#
# Any of these can be changed without touching the notebook:
# `papermill notebooks/early_learning.ipynb out.ipynb -p noise_rates "[0.3, 0.6]"`. As shipped, the images are
# scikit-learn's handwritten digits, 8 by 8 pixels, so that the training runs on any computer in about two minutes.

# %% tags=["parameters"]
dataset = (
    "digits"  # digits, cifar10, cifar100, an .npz file or a folder of class folders
)
noise_rates = [0.2, 0.4]  # share of labels redrawn uniformly over all classes
losses = ["ce", "elr"]  # ce, elr, sce, nce_rce
seeds = [0, 1, 2]
epochs = 60
model = "small_resnet"  # small_resnet, resnet18, resnet34
train_size = None  # use this many training images; None: all
lr = 0.03
batch_size = 64
schedule = "constant"  # constant, multistep, cosine
augmentation = "none"  # none, flip, fresh, frozen
precision = "float32"  # float32, bfloat16
beta, lam = None, None  # ELR; None: 0.7 and 3, on CIFAR-100 0.9 and 7
sam_rho = 0.0  # sharpness-aware minimization; 0: off
measured_on = "eval"  # eval: after each epoch; batches: on the training batches, as the paper counted
jobs = None  # runs at a time; None: one per core

# %%
config.check_training(jobs=jobs)
if measured_on not in ("eval", "batches"):
    raise config.ConfigError(
        f"measured_on={measured_on!r}: allowed are eval, batches"
    )
noise_rates = config.as_list("noise_rates", noise_rates)
configs = config.grid(
    noise_rates, losses, seeds, dataset=dataset, model=model, train_size=train_size, epochs=epochs, lr=lr,
    batch_size=batch_size, schedule=schedule, augmentation=augmentation, precision=precision, beta=beta, lam=lam,
    sam_rho=sam_rho,
)  # fmt: skip
print(
    f"{len(configs)} runs, noise rates {noise_rates}, losses {losses}, seeds {seeds}"
)
print("first:", configs[0].describe())
if runner.missing(configs):
    data.load(dataset)  # refuses one that is not there

# %% [markdown]
# ## Training
#
# A run that has a record is loaded, not trained again.

# %% tags=["nbval-ignore-output", "remove-output"]
trained = runner.load_or_train(configs, jobs=jobs)
table, curves = records.table(trained), records.curves(trained)
if not (table.status == "finished").any():
    raise config.ConfigError(
        f"lr={lr}: all {len(table)} runs diverged; a smaller lr helps"
    )

# %% [markdown]
# ## What became of the labels
#
# Means over the seeds at the last epoch, in percent, with the lowest and the highest seed in brackets. *Memorized* is the share of
# wrong labels that the network predicts as labelled, *seen through* the share predicted as the true class. A mistake of the
# network that has nothing to do with memory falls on the label too, one time in nine with ten classes.

# %% tags=["nbval-ignore-output"]
records.summary(table).rename(index=plots.LOSS_NAMES, level="loss")

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Shares of right and wrong labels by prediction, over the epochs, one column per loss."}}
for rate in noise_rates:
    display(plots.early_learning(curves[curves.noise_rate == rate], measured_on))

# %% [markdown]
# The lower left panel shows both phases: at first most wrong labels are seen through, then cross-entropy takes them in
# one by one. ELR holds that back. The test images, whose labels are right, show what memorizing costs:

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Test accuracy over the epochs, one panel per noise rate, one line per loss."}}
plots.test_accuracy(curves)

# %% tags=["nbval-ignore-output", "remove-cell"]
means = table.groupby(["noise_rate", "loss"])[
    ["test_top1", "wrong_memorized"]
].mean()
for (rate, loss), row in means.iterrows():
    place = noise_rates.index(rate)
    glue(
        f"{loss}_memorized_{place}", float(100 * row.wrong_memorized), display=False
    )
    glue(f"{loss}_test_{place}", float(100 * row.test_top1), display=False)
for place, rate in enumerate(noise_rates):
    glue(f"rate_{place}", float(100 * rate), display=False)

# %% [markdown]
# ## The same on CIFAR-10
#
# The paper's own figure is for CIFAR-10 at 20 % noise. The figures below show the runs of the plan `early-learning`
# whose records are in the store: at `cpu` scale a small net (`small_resnet`) trained for 30 epochs without augmentation,
# at `paper` scale the paper's ResNet-34 and 120 epochs. Curves count predictions on the training batches, as the
# paper's code did, and so does the sentence at the top; shares counted after the epoch, as those of the digits above, differ a little. The runs of {doc}`sam` with
# sharpness-aware minimization, as far as they are there, stand beside them. Uprights mark where the learning rate falls:
# the two phases of a curve and the two steps of the schedule come together, so that only what happens between the uprights
# is the network's own. The digits above have a constant rate.

# %% tags=["nbval-ignore-output", "full-width"] mystnb={"image": {"alt": "Shares of right and wrong CIFAR-10 labels by prediction, over the epochs, one column each for CE and ELR, with SGD and with SAM."}}
for scale in ("paper", "cpu"):
    print(f"{scale} scale: ", end="")
    sharp = [c for c in plans.plan("sam", scale) if c.sam_rho]
    found = runner.gather([*plans.plan("early-learning", scale), *sharp])
    cifar = records.curves(found)
    for rate in sorted(cifar.noise_rate.unique()) if found else []:
        part = cifar[cifar.noise_rate == rate]
        display(plots.early_learning(part, "batches"))
        for sentence in findings.around_the_falls(part):
            print(f"{scale} scale, {100 * rate:g} % noise: {sentence}")

# %% [markdown]
# ## What memorizing costs
#
# If ELR helps because it keeps wrong labels from being memorized, then it should help more where it keeps more of them.
# The store holds many pairs of runs that differ in the loss alone: labels redrawn at random, by people or in a made shop,
# at several rates; no augmentation, flips, crops drawn anew or once; SGD and SAM. Across: the wrong labels that
# cross-entropy memorized less those that ELR did, in percent of all training labels, in the batches of the last epoch. Up: what ELR
# gained, on true test labels, at the last epoch and, chosen for each run on the test images, at its best one. A mark is a setting, the mean of its seeds; bars run from the lowest seed to the highest.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "ELR's gain in test accuracy against the share of labels that it kept from being memorized, a mark per setting, at the last epoch and at the best ones."}}
pairs = findings.pairs()
if len(pairs):
    display(plots.kept_from_memory(pairs))
text = findings.memory(pairs)
print(text + ".")
for sentence in findings.memory_details(pairs):
    print(f"- {sentence}")

# %% tags=["nbval-ignore-output", "hide-input", "full-width"]
compare.kept_text(pairs).style.hide(axis="index").format(precision=1)

# %% tags=["nbval-ignore-output", "remove-cell"]
glue("memory_text", text, display=False)

# %% [markdown]
# A setting under which cross-entropy memorizes little shows little of what ELR prevents, whatever it could do elsewhere; the
# grey marks, where no label is wrong, are gains of another kind. This is an association and no proof: both coordinates of a mark come from the same two runs, the settings are no random sample, most
# differ in several things, and the kinds of labels differ in level. The left panel is what the paper reports. The right one is
# what is left for a person who stops each training in time, by the test images, which flatters both losses (choosing by
# noisy held-out labels is in the plan of {doc}`table1`).
