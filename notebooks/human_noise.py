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
# # Labels that people got wrong
#
# **So far:** {glue:text}`ledger.ipynb::found_human_noise:s`.
#
# The shop of the paper estimates that 10 to 20 % of its products are misfiled, and there were no clean labels to test on
# {cite:p}`galatolo2021`. CIFAR-10N {cite:p}`wei2022` has them, for other images: three people labelled
# each training image of CIFAR-10, whose true classes are known. *Aggregate* is their majority vote, *random1* the first
# person's label, *worst* a wrong label wherever one of the three gave one.
#
# This chapter trains on these labels, and on symmetric noise with the same share of wrong labels, and asks what helps,
# what human noise does differently, and how far a number that a shop can measure strays from the truth.

# %%
from elrkit import config, records, runner
from elrkit.report import figures as plots
from elrkit.report import findings, human_counts, paper, plans
from elrkit.report import people as human_noise
from IPython.display import display

# %matplotlib inline

# %% tags=["parameters"]
scales = ["paper", "cpu"]  # what to show: paper, cpu, digits
train = False  # also train the missing runs of these scales
levels = None  # of worst, random1, aggregate; None: all three
seeds = None  # None: the plan's
epochs = None  # shorten or lengthen every run to these; None: the scale's
jobs = None  # runs at a time; None: one per core, one on a GPU

# %%
config.check_training(train, jobs)
wanted = plans.at_scales(
    "human-noise", scales, seeds=seeds, levels=levels, epochs=epochs
)
for scale, configs in wanted.items():
    print(f"{scale} scale: {len(configs)} runs, first: {configs[0].describe()}")

# %% [markdown]
# At `paper` scale the network is the leaderboard's ResNet-34, trained as the paper trains it. At `cpu` scale a net of 0.3
# million parameters sees 20,000 of the images, with flips, for 40 epochs: levels of accuracy cannot be compared with the
# leaderboard, directions can. The digits have no labels by people; there, labels flipped within pairs of classes stand
# for them.

# %% tags=["nbval-ignore-output", "remove-output"]
trained = {}
for scale, configs in wanted.items():
    print(scale, end=": ")
    trained[scale] = runner.gather(configs, train, jobs)
tables = {scale: records.table(found) for scale, found in trained.items()}
shown = [scale for scale, found in trained.items() if found]
people = {"paper": "people", "cpu": "people", "digits": "flipped in pairs"}

# %% tags=["nbval-ignore-output"]
for scale, found in trained.items():
    if len(found) < len(wanted[scale]):
        print(
            f"{scale} scale: {len(found)} of {len(wanted[scale])} runs are there, the others are not run yet"
        )

# %% [markdown]
# ## Accuracy beside the leaderboard
#
# Test accuracy in percent, on CIFAR-10's clean test images. Wei et al. report each of 5 runs at the best of its 100 epochs, chosen
# on the test images, all 50,000 images trained on ([as they say](https://github.com/UCSC-REAL/cifar-10-100n/issues/5)); mean ±
# standard deviation. Ours at the last epoch and, chosen as theirs, at the best; with 95 % t intervals over seeds; a
# single seed has none and is no finding. *Averaged* is the same network with an exponential moving average of its
# weights over some 1,000 steps, batch-norm statistics averaged with them.

# %% tags=["nbval-ignore-output", "hide-input"]
human_noise.leaderboard(paper.load_published(), tables).style.hide(axis="index")

# %% [markdown]
# ### What each means adds
#
# A row changes what it names and holds the rest equal, seed by seed, in points of test accuracy. Averaged weights cost no
# training of their own: both networks come from one run.

# %% tags=["nbval-ignore-output", "hide-input"]
for scale in shown:
    print(f"{scale} scale")
    gains = human_noise.gains(tables[scale])
    missing = (gains[list(human_noise.LEVELS)] == "not run yet").all(axis="columns")
    display(gains[~missing].style.hide(axis="index"))
    if missing.any():
        print(f"not run yet: {'; '.join(gains.means[missing])}")

# %% [markdown]
# ## People's errors against as many redrawn labels
#
# The same images, initial weights and order; as many wrong labels as the level has over all 50,000 images, within 0.3 % of the
# labels, each drawn from the nine wrong classes. Test accuracy on people's labels less that on labels redrawn at the same rate, in points, and ELR's gain over
# cross-entropy on the first less that on the second, at the last epoch and at each run's best one:

# %% tags=["nbval-ignore-output", "hide-input"]
for scale in shown:
    differences = human_noise.against_redrawn(tables[scale])
    print(f"{scale} scale" + ("" if len(differences) else ": not run yet"))
    if len(differences):
        text = human_noise.against_redrawn_text(differences)
        display(text.style.hide(axis="index"))
if not shown:
    print("not run yet")

# %% [markdown]
# ## How people err
#
# Symmetric noise gives each wrong class the same chance and each true class the same rate. What people do is counted
# below, from all 50,000 labels of each level; nothing is trained. *One mistake* is the share of the wrong labels that
# make the commonest mistake of their true class; under symmetric noise it would be one in nine.

# %%
counts = human_counts.read_human_counts()
if counts is None:
    print("not counted yet: python -m elrkit human-labels")
else:
    print(
        f"{counts['source']}; {counts['images']:,} images, labels {counts['labels_sha256']}"
    )

# %% tags=["nbval-ignore-output", "hide-input"]
if counts is not None:
    facts = human_noise.confusion_facts(counts["counts"], counts["class_names"])
    display(facts.style.hide(axis="index"))

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Three matrices of true class by given label, diagonal left out: the percentage of each class that people give each wrong label, at the levels aggregate, random1 and worst."}}
if counts is not None:
    of_levels = {
        level: counts["counts"][level]
        for level in human_noise.LEVELS
        if level in counts["counts"]
    }
    display(plots.human_confusion(of_levels, counts["class_names"]))

# %% [markdown]
# ## How fast wrong labels are memorized
#
# The share of wrong labels that the network predicts as labelled, on the training images after the epoch. With symmetric
# noise such a prediction is memorized, or one of the network's own mistakes, one in nine of which falls on the label by
# chance. A mistake that people share can also be learned from other images, so the curves need not begin at the same
# height. Lines are means, bands from the lowest to the highest seed.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Share of wrong labels predicted as labelled over the epochs, a panel per level: cross-entropy and ELR, labels by people and symmetric noise."}}
for scale in shown:
    curves = records.curves(trained[scale])
    plain = curves[
        (curves.sam_rho == 0)
        & (curves.schedule == "multistep")
        & (curves.split == "all")
    ]
    rates = {
        level: config.HUMAN_NOISE_RATES[level]
        for level in human_noise.LEVELS
        if config.HUMAN_NOISE_RATES[level] in set(plain.noise_rate)
    }
    if rates:
        print(f"{scale} scale")
        display(plots.human_memorization(plain, rates, people[scale]))
if not shown:
    print("not run yet")

# %% [markdown]
# How much of what ELR predicts as labelled is memory? In the training batches of the last epoch, means over seeds. What a
# net predicts of images that it has not seen cannot be memory; {doc}`audit` trains such nets, with CE for 8 epochs on 12,000
# images:

# %% tags=["nbval-ignore-output"]
studies = findings.studies()
for scale in shown:
    audited = studies if scale == "cpu" else studies[:0]
    for sentence in human_noise.predicted_as_labelled(tables[scale], audited):
        print(f"{scale} scale, {sentence}")

# %% [markdown]
# ## What a shop can measure, and what is true
#
# A shop has only its own labels. It can count how often a network agrees with them, on the images it was trained on or,
# better, on images that were held out. Where the truth is known, both can be set beside the accuracy on true labels. The
# right labels are the ceiling for a network that knows every true class and cannot foresee which labels are wrong.
# CIFAR-10N labels the training images alone (people's labels of the test images exist, {cite:t}`peterson2019`, but are not used
# here), so agreement with test labels is shown for noise made by a program.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Agreement with given labels against accuracy on true labels, a panel per level, a mark per run: training, held-out and test labels, cross-entropy and ELR, labels by people and symmetric noise."}}
agreements = {scale: human_noise.agreement(tables[scale]) for scale in shown}
for scale, table in agreements.items():
    if len(table):
        print(f"{scale} scale")
        display(plots.agreement(table, people[scale]))
if not any(map(len, agreements.values())):
    print("not run yet")

# %% [markdown]
# On the diagonal agreement tells the truth. Right of it a network looks better than it is, left of it worse. Right of
# the dotted line it agrees with more labels than people got right.

# %% tags=["nbval-ignore-output", "hide-input", "full-width"]
for scale, table in agreements.items():
    print(f"{scale} scale")
    display(human_noise.agreement_text(table).style.hide(axis="index"))

# %% [markdown]
# Does the number that a shop can measure at least choose the better of two networks?

# %% tags=["nbval-ignore-output"]
for scale, table in agreements.items():
    for sentence in human_noise.ranking(table):
        print(f"{scale} scale: {sentence}")

# %% [markdown]
# ## 93.4 % agreement with labels of which 10 to 20 % are wrong
#
# The paper reports 93.4 % agreement with the shop's own test labels and quotes the estimate that 10 to 20 % of them are
# wrong. A network that agrees with all right labels and foresees $f$ percent of the wrong ones agrees with
# $100 - w + f w / 100$ percent of all, where $w$ is the percentage of wrong labels.

# %% tags=["nbval-ignore-output", "hide-input"]
published = paper.load_published()
number = published.set_index("id")["mean"]
shop = number["galatolo2021-text-cdon-sam"]
estimates = [number[f"galatolo2021-text-misfiled-{end}"] for end in ("low", "high")]
needed = human_noise.needed_foresight(shop, estimates)
needed.round(1).style.hide(axis="index").format("{:.1f} %")

# %%
claims = paper.load_claims()
bound = claims[claims.id == "cdon-agreement-bound"]
decided = paper.decide(bound, published, records.table([])).iloc[0]
print(f"{decided.verdict}: {decided.note}")

# %% [markdown]
# How much of people's errors can be foreseen? Of the wrong labels of images that a network was not trained on, the share
# that it predicts as labelled, in percent: of a tenth that was held out (columns CE and ELR, once such runs are there), and of
# the five nets of {doc}`audit`, each trained for a few epochs without the fifth that it is asked about:

# %% tags=["nbval-ignore-output", "hide-input"]
for scale, table in agreements.items():
    foreseen = human_noise.predictable(
        table, studies if scale == "cpu" else studies[:0]
    )
    print(f"{scale} scale" + ("" if len(foreseen) else ": not run yet"))
    if len(foreseen):
        display(foreseen)
if not agreements:
    print("not run yet")

# %% [markdown]
# The first table of this section says what share would be needed, the last one what nets as small as these, trained on few
# images, foresee of people's errors (one in nine of random errors hits the given label): far less, but no bound for a better
# net. Two other ways to 93.4 % remain: fewer labels are wrong than estimated, or test images have near-copies in the training
# set, so that their wrong labels are memorized along with the copies'.
