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
# In the small net with fresh crops, chosen because it shows the effect, cross-entropy ends with
# {glue:text}`claims.ipynb::ce_memorized:s` % of the wrong labels memorized, ELR with {glue:text}`claims.ipynb::elr_memorized:s` %.

# %% tags=["remove-input"]
# %matplotlib inline
# %config InlineBackend.figure_formats = ["svg"]
from elrkit import config, data, records, runner
from elrkit.report import effects, explore, figures, parameters
from IPython.display import HTML, display
from myst_nb import glue

# %% tags=["nbval-ignore-output", "full-width"] mystnb={"image": {"alt": "Shares of right and wrong CIFAR-10 labels by prediction, over the epochs, a column each for cross-entropy and ELR."}}
evidence = effects.evidence()


def cell(name):
    """Both losses of a setting at 20 % noise."""
    both = {"schedule": "multistep", "noise_rate": 0.2, "loss": ("ce", "elr")}
    return {**effects.shared(name), **both}


# The first setting, from the paper's own on, that has enough seeds for a finding.
seeds_of = {
    name: effects.select(evidence, cell(name))["seed"].nunique()
    for name in effects.SETTINGS
}
name = next(name for name, seeds in seeds_of.items() if seeds >= effects.ENOUGH)
chosen = set(effects.select(evidence, cell(name))["run_id"])
figures.early_learning(
    records.curves(r for r in records.read_all() if r["run_id"] in chosen),
    title=f"CIFAR-10, 20 % of the labels redrawn, {effects.SETTINGS[name].label}",
)

# %% tags=["nbval-ignore-output", "remove-input"]
plain = dict(epochs=effects.longest(cell(name)["epochs"]), sam_rho=0.0)
HTML(explore.link(evidence, name, noise_rate=0.2, schedule="multistep", **plain))

# %% [markdown]
# The lower row is about images whose label is wrong. Cross-entropy (CE) first predicts their true class. Then it takes in
# the wrong labels one by one: it *memorizes* them. {cite:t}`liu2020` call the two phases early learning and memorization;
# {cite:t}`galatolo2021` show them in their Figure 2. Shares are counted in the training batches, as their code counts.
# Upright lines mark where the learning rate falls. Memorization sets in there, so its onset is partly the schedule's.
# With ELR fewer of the right labels are learnt, too: {glue:text}`claims.ipynb::elr_right:s` %, not {glue:text}`claims.ipynb::ce_right:s` %.
#
# Early-learning regularization (ELR) holds the network to its own early answers:
#
# $$
# \mathcal{L} = \mathcal{L}_\text{CE} + \frac{\lambda}{n} \sum_{i=1}^{n} \log\bigl(1 - \langle \mathbf{p}_i, \mathbf{t}_i \rangle\bigr),
# \qquad \mathbf{t}_i \leftarrow \beta\, \mathbf{t}_i + (1 - \beta)\, \mathbf{p}_i ,
# $$
#
# where $\mathbf{p}_i$ are the predicted probabilities of image $i$ and $\mathbf{t}_i$ is their moving average ({doc}`../book/elr`).
#
# ## Try it here
#
# The rest of this page trains on scikit-learn's handwritten digits, 8 by 8 pixels: {glue:text}`minutes:s`. Any parameter can
# be changed without touching the notebook, so that it also runs CIFAR or images of your own:
#
# ```sh
# papermill notebooks/early_learning.ipynb out.ipynb -p noise_rates "[0.3, 0.6]"
# ```

# %% tags=["parameters", "show-input"]
dataset = (
    "digits"  # digits, cifar10, cifar100, an .npz file or a folder of class folders
)
noise_rates = [0.4]  # share of labels redrawn uniformly over all classes
losses = ["ce", "elr"]  # any of elrkit.losses.LOSSES
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
measured_on = "eval"  # eval: after each epoch; batches: on the training batches, as the paper counts
jobs = None  # runs at a time; None: one per core

# %%
parameters.check(In)
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
if runner.missing(configs):
    data.load(dataset)  # refuses one that is not there

# %% tags=["nbval-ignore-output", "remove-output"]
trained = runner.load_or_train(configs, jobs=jobs)
table, curves = records.table(trained), records.curves(trained)
if not (table.status == "finished").any():
    raise config.ConfigError(
        f"lr={lr}: all {len(table)} runs diverged; a smaller lr helps"
    )

# %% tags=["nbval-ignore-output", "remove-cell"]
glue(
    "minutes",
    f"{table.seconds.sum() / 60:.0f} minutes of one core for {len(table)} runs",
    display=False,
)

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Shares of right and wrong labels by prediction, over the epochs, a column per loss."}}
for rate in noise_rates:
    part = curves[curves.noise_rate == rate]
    display(
        figures.early_learning(
            part,
            measured_on,
            title=f"{dataset}, {100 * rate:g} % of the labels redrawn",
        )
    )

# %% [markdown]
# Percent at the last epoch, mean over the seeds, lowest and highest behind. A network's other mistakes fall on the given
# label too, one time in nine with ten classes.

# %% tags=["nbval-ignore-output"]
records.summary(table).rename(index=figures.LABELS, level="loss")

# %% [markdown]
# ## Beside stopping early
#
# Cross-entropy can be stopped before it memorizes. Without right labels, the epoch is chosen on images held out with noisy ones, a tenth
# of them here. ELR's last epoch, of a training on the same nine tenths, ends {glue:text}`claims.ipynb::over_held_out:s` points above
# the one so chosen ({doc}`claims` has the runs). No epoch was chosen for ELR. Trained for longer it falls from its best, too.
#
# ## Where does ELR help?
#
# Mostly as far as it keeps wrong labels from being memorized: with none wrong it still gains {glue:text}`claims.ipynb::gain_clean:s` points on
# all images. With {glue:text}`claims.ipynb::ce_memorized_more:s` % memorized by cross-entropy there is nothing
# to gain: {glue:text}`claims.ipynb::gain_more:s` points on 20,000 images with crops drawn anew. With crops drawn once cross-entropy memorizes them all,
# ELR {glue:text}`claims.ipynb::elr_memorized_more_frozen:s` %, and gains {glue:text}`claims.ipynb::gain_more_frozen:s`. On 5,000 images that never change ELR memorizes
# nearly all of them too, and no gain is found. ELR holds them off, not for good: trained for twice the epochs the small net memorizes
# {glue:text}`claims.ipynb::elr_memorized_longer:s` % of them with ELR, {glue:text}`claims.ipynb::ce_memorized_longer:s` % without. It still ends above cross-entropy,
# by {glue:text}`claims.ipynb::gain_longer:s`.
#
# Each pair of marks is a setting, numbered as in the table below, grey ones
# of a single seed. Those named by a width, images or epochs are the small net with fresh crops but for that. Both runs of a pair differ in
# the loss, and some in the processor.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "ELR's gain in test accuracy over cross-entropy's last epoch and over its best one, against the wrong labels that cross-entropy memorizes and against those that ELR keeps out: over the last epoch it mostly rises with the latter, over the best one less so."}}
where = effects.where(evidence).sort_values("kept_out", ignore_index=True)
where.index += 1  # the numbers of figure and table
figures.memorized_and_gained(where)

# %% tags=["nbval-ignore-output"]
words = {
    "memorized": "CE memorizes, %",
    "kept_out": "fewer by ELR, points",
    "gain": "ELR gains",
    "over_best": "over CE's best",
}
in_words = where.rename(columns=words)
in_words.insert(0, "", in_words.index)
in_words.style.format(precision=1).hide(axis="index")
