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
# {glue:text}`said_list:s`

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["svg"]
import tempfile
from pathlib import Path

import pandas as pd
from elrkit import config, data
from elrkit.catalogue import importer
from elrkit.report import effects, figures, list_study, parameters
from myst_nb import glue

# %% tags=["parameters"]
scale = "cpu"  # cpu: CIFAR-10 with labels by people, an hour a study; digits: flipped labels, a minute a study
train = False  # also make the missing studies, on one thread
levels = ["worst", "random1", "aggregate"]  # of people's labels
seeds = [0, 1, 2]
images = 15000  # training images of a study
fold_epochs = 8  # epochs of each fold's net; ELR trains four times as many
feed = (
    "clothing"  # folder with feeds/ (XML or CSV) and the images that its paths name
)

# %% tags=["nbval-ignore-output", "remove-output"]
parameters.check(In)
config.check_training(train)
rows = list_study.gather(
    list_study.studies(scale, seeds, levels, images, fold_epochs), train
)

# %% tags=["nbval-ignore-output", "full-width"] mystnb={"image": {"alt": "Share of wrong labels found against share of labels looked at, a panel per level of noise, a line each for ELR targets, cleanlab, both combined, the loss of cross-entropy, and chance."}}
figures.wrong_labels_found(list_study.named(rows), list_study.LOOKS)

# %% [markdown]
# A person goes down the list. The paper closes with this application: where the network's class differs from a product's, a
# person looks {cite:p}`galatolo2021`. CIFAR-10's labels by people, whose truth is known {cite:p}`wei2022`, say how good such a
# list is.
#
# * **ELR targets**: what the targets of one ELR run grant to other classes than the label's.
# * **cleanlab** {cite:p}`northcutt2021`: self-confidence of out-of-fold probabilities, five nets, each on four fifths of the images.
#   Together they train on as many images as the ELR run.
# * **both**: the geometric mean of the two, for twice the cost.
# * **CE loss**: of one net at its best epoch, chosen on clean test images, which a shop does not have.
#
# *Looks for half*: labels to look at until half of the wrong ones are found, of looks in any order. Percent, mean and 95 %
# interval over seeds, which draw images, folds and trainings anew.

# %% tags=["nbval-ignore-output", "full-width"]
list_study.summary(rows).style.hide(axis="index")

# %% [markdown]
# Within a study, so on the same images and labels, average precision in percent:

# %% tags=["nbval-ignore-output"]
list_study.less_than(rows, "cleanlab, out-of-fold CE").merge(
    list_study.less_than(rows, "CE loss, best epoch"), on="level"
).style.hide(axis="index")

# %% [markdown]
# ## A real feed, imported
#
# The list starts from a shop's feed. Here is a sample of the open clothing dataset by A. Grigorev (CC0): 20 CSV files with what
# people photographed and how they filed it. Some products have no picture, and some sellers chose "Not sure". The import trusts
# nothing in a feed; what it drops it counts.

# %% tags=["nbval-ignore-output"]
folder = next(
    (path for path in (Path(feed), Path("notebooks") / feed) if path.exists()),
    Path(feed),
)
rules = importer.FeedRules(
    columns={"id": "product_id", "label": "subcategory", "image": "thumbnail"},
    drop_labels=("Not sure", "Other"),  # what sellers chose when they did not know
    min_images=6,
)
with tempfile.TemporaryDirectory() as work:
    out = Path(work) / "shop.npz"
    manifest = importer.import_feed(
        [folder / "feeds"], out, images=folder, rules=rules, workers=1
    )
    shop = data.load(str(out))
dropped = manifest["counts"]["dropped"].items()
print(
    f"{manifest['counts']['read']} products read, {manifest['counts']['kept']} kept in {len(manifest['classes'])} subcategories"
)
pd.DataFrame(
    [
        {"step": step, "reason": why, "products": n}
        for step, reasons in dropped
        for why, n in reasons.items()
    ]
).style.hide(axis="index")

# %% mystnb={"image": {"alt": "A contact sheet of imported product photos, one row per subcategory."}} tags=["nbval-ignore-output"]
figures.contact_sheet(
    shop.train_images.numpy(), shop.train_labels.numpy(), shop.class_names
)

# %% tags=["remove-cell", "nbval-ignore-output"]
random1 = list_study.named(rows).query(
    "level == 'random1' and finder == 'ELR targets'"
)
looks = effects.interval(
    100 * random1["effort_half"] / random1["effort_half_random"]
)
assert scale != "cpu" or looks.high < 50, (
    "the sentence at the top of this page was written for a list that halves the work"
)
share = f"{looks.mean:.0f}"
glue("looks_random1", share, display=False)
glue(
    "said_list",
    f"Half of people's wrong labels are found in {share} % of the looks that any order takes, where 17 % of the labels are wrong.",
    display=False,
)
