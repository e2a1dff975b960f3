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
# # The list of labels to look at
#
# **So far:** {glue:text}`ledger.ipynb::found_audit:s`.
#
# The paper closes with an application: where the network's class differs from a product's, a person looks
# {cite:p}`galatolo2021`. {cite:t}`liu2020` list the training images whose ELR target disagrees with the label. How good
# is such a list, and does it need ELR? Labels that people made, with known truth {cite:p}`wei2022`, can tell.
#
# ```{admonition} For a catalogue of your own
# :class: tip
# `python -m elrkit audit shop.npz` trains a small net with ELR, minutes on a laptop for some thousand products, and writes
# `audit/labels.csv` (id, title, label, suggested_label, confidence, reason; the most suspicious first) and `audit/review.html`,
# a page to go through with the keyboard. {ref}`audit-saving` below says how many of the first products on such a list are
# wrong, and how far down one has to go, on photos of ten classes; {doc}`shop` measures it on an open feed of clothes, whose
# subcategories are harder to tell apart. Look at the first hundred: if few of them are wrong, your labels are
# right, or the net has not learned your classes; the command says how many held-out labels it agrees with. Test products
# are listed too: the network is surer of those than the targets are of the training products, so they are placed by their
# rank among themselves, and neither part fills the head of the list.
# ```
#
# Five ways to order the same labels, the most suspicious first:
#
# * **ELR targets**: from one ELR run, what the targets grant to other classes than the label's, after each class's were
#   divided by their mean over the images labelled so (*balanced*, below).
# * **cleanlab** {cite:p}`northcutt2021`: self-confidence of out-of-fold probabilities, five nets trained with
#   cross-entropy (CE), each on four fifths of the images. Its list is `find_label_issues` with `both`. The five nets together
#   train on exactly as many images as the ELR run, so each of them for a quarter of its epochs; what cleanlab does with five
#   nets trained in full, at five times the cost, was not tried.
# * **Both**: the geometric mean of ELR's targets and those probabilities, for twice the cost.
# * **CE loss**: of one net trained on all images for as long as ELR, taken at its best epoch. The epoch is chosen on clean
#   test images, which a shop does not have: a rival with an advantage.
# * **Chance**: any order.

# %%
from elrkit import config
from elrkit.report import figures as plots
from elrkit.report import list_study as audit_study
from IPython.display import Markdown, display

# %matplotlib inline

# %% tags=["parameters"]
scales = ["cpu"]  # what to show: cpu (CIFAR-10 with labels by people), digits
train = False  # also make the missing studies of these scales, on one thread
levels = ["worst", "random1", "aggregate"]  # of people's labels
seeds = [0, 1, 2]
images = 15000  # training images of a study
fold_epochs = 8  # epochs of each fold's net; ELR trains four times as many

# %%
config.check_training(train)
wanted = {
    scale: audit_study.studies(scale, seeds, levels, images, fold_epochs)
    for scale in config.as_list("scales", scales)
}
for scale, studies in wanted.items():
    one = studies[0]
    print(
        f"{scale} scale: {len(studies)} studies of {one.images:,} images, "
        f"{one.folds} folds of {one.fold_epochs} epochs, ELR {one.elr_epochs} epochs"
    )

# %% tags=["nbval-ignore-output", "remove-output"]
rows = {}
for scale, studies in wanted.items():
    print(scale, end=": ")
    rows[scale] = audit_study.gather(studies, train)
shown = {scale: table for scale, table in rows.items() if len(table)}

# %% tags=["nbval-ignore-output"]
for scale, studies in wanted.items():
    made = len(rows[scale].groupby(["level", "seed"])) if len(rows[scale]) else 0
    if made < len(studies):
        print(
            f"{scale} scale: {made} of {len(studies)} studies are there, the others are not run yet"
        )

# %% [markdown]
# ## How many of the wrong labels are found
#
# A person goes down the list. The further a curve lies above the diagonal, the less has to be looked at. On the digits,
# labels flipped within pairs of classes stand for people's.

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Share of wrong labels found against share of labels looked at, a panel per level of noise, a line for each of ELR targets, cleanlab, both combined, the loss of cross-entropy, and chance."}}
for scale, table in shown.items():
    print(f"{scale} scale")
    named = audit_study.named(table)
    display(plots.wrong_labels_found(named, audit_study.LOOKS))
if not shown:
    print("not run yet")

# %% [markdown]
# (audit-saving)=
# ## The saving in plain words

# %% tags=["nbval-ignore-output"]
sentences = [
    f"- {scale} scale, {sentence}"
    for scale, table in shown.items()
    for sentence in audit_study.saving(table)
]
Markdown("\n".join(sentences) or "not run yet")

# %% [markdown]
# ## In numbers
#
# Precision is the share of really wrong labels among the most suspicious 1, 5 and 10 %; F1 is of the list that each way
# would show (ours: a rival class more than twice as probable as the label; CE: another class more probable; chance: all
# labels). Means with 95 % t intervals over seeds, which draw the images, the folds and the trainings anew.

# %% tags=["nbval-ignore-output", "hide-input"]
for scale, table in shown.items():
    print(f"{scale} scale")
    display(audit_study.summary(table).style.hide(axis="index"))

# %% [markdown]
# The difference to each rival within a seed, so on the same images, labels and folds. *Above* and *below* mean that the
# whole interval lies on that side.

# %% tags=["nbval-ignore-output", "hide-input"]
for scale, table in shown.items():
    print(f"{scale} scale")
    difference = audit_study.differences(table)
    difference["measure"] = difference["measure"].str.replace("_", " ")
    display(difference.style.hide(axis="index").format(precision=3, na_rep=""))
    for sentence in audit_study.same_score(table):
        print(sentence)
    print(audit_study.test_accuracy(wanted[scale]))

# %% [markdown]
# Each way has the score that its tool would use; the first two printed lines take one score for both. Where an
# interval of the first line holds 0, these seeds show no difference between the probabilities: what ELR's list has there over the
# loss of CE at its best epoch may be the score's doing. To stop cross-entropy at that epoch one would have to know when it is.

# %% [markdown]
# ## Which list of ELR's
#
# Liu et al.'s list (*natural* in the table) takes each label that differs from the most probable class. Ours (*suspect*) asks that another class be
# more than twice as probable; the factor was settled on 20,000 images of *random1* and *worst* (one seed), which share images
# with the studies here, so that F1 at these two levels is a little flattered; *aggregate* had no part in it. F1, precision and recall of the lists from the same ELR targets,
# and of cleanlab's from them:

# %% tags=["nbval-ignore-output", "hide-input"]
for scale, table in shown.items():
    print(f"{scale} scale")
    display(audit_study.lists(table).style.hide(axis="index"))

# %% [markdown]
# The choice of score matters as well. With $p_y$ the probability of the label and $p_a$ of its strongest rival, *odds* is
# $p_a / (p_a + p_y)$, *self_confidence* $1 - p_y$, *margin* $(1 - p_y + p_a) / 2$, and *balanced* is
# self-confidence after each class's probability was divided by its mean over the images labelled so. Average precision of each
# score on each source of probabilities; `cleanlab` is its own self-confidence. The tool orders ELR's targets by *balanced* and
# the probabilities of any other model by *odds*. The former was chosen on these studies, so what it adds to the latter is a
# little flattered here.

# %% tags=["nbval-ignore-output", "hide-input"]
for scale, table in shown.items():
    print(f"{scale} scale")
    names = {"out_of_fold": "out-of-fold CE", "elr": "ELR targets"}
    display(audit_study.other_scores(table).rename(index=names))
    print(audit_study.score_gain(table))

# %% [markdown]
# `python -m elrkit audit` takes a finished run as well, or the out-of-fold probabilities of any model;
# `python -m elrkit audit-study` makes the studies of this chapter.
