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
# # A real feed, imported
#
# **In short:** {glue:text}`feed_in_short:s`.
#
# The paper filters a shop's products, keeps subcategories with enough of them, scales the thumbnails to 32 by 32 pixels and
# splits them 9:1 {cite:p}`galatolo2021`. Here the same is done to a real feed before the reader's eyes: a sample of
# the open clothing dataset by A. Grigorev (CC0), 20 CSV files with what people photographed and how they filed it. Nobody
# cleaned it; some products have no picture, and some sellers chose "Not sure".
#
# `import_feed` trusts nothing in a feed. What it drops it counts, by step and reason; what it writes is one `.npz` file and a
# manifest from which that file can be made again, byte by byte.

# %%
# %matplotlib inline
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from elrkit import config
from elrkit.catalogue import importer as catalogue
from elrkit.report import figures as plots
from IPython.display import display

# %% tags=["parameters"]
feed = "clothing"  # folder with feeds/ (XML or CSV) and the images its paths name
columns = {"id": "product_id", "label": "subcategory", "image": "thumbnail"}
drop_labels = ["Not sure", "Other"]  # what sellers chose when they did not know
min_images = 6  # subcategories with fewer usable products are dropped
split = "group"  # group: near-duplicates stay together; product: as the paper did
fit = "crop"  # crop: short side to 32 pixels (the paper); pad: nothing cut off
seed = 0

# %%
rules = catalogue.FeedRules(
    columns=json.loads(columns) if isinstance(columns, str) else columns,
    drop_labels=tuple(config.as_list("drop_labels", drop_labels))
    if drop_labels
    else (),
    min_images=min_images,
    split=split,
    fit=fit,
    seed=seed,
)
with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "shop.npz"
    manifest = catalogue.import_feed(
        [Path(feed) / "feeds"], out, images=feed, rules=rules, workers=1
    )
    with np.load(out) as archive:
        shop = dict(archive)
    full = json.loads(out.with_suffix(".manifest.json").read_text())
print(catalogue.summary(manifest))

# %% tags=["nbval-ignore-output", "remove-cell"]
from myst_nb import glue

counts = manifest["counts"]
in_short = (
    f"of {counts['read']} products in {len(manifest['source']['feeds'])} files {counts['kept']} in "
    f"{len(manifest['classes'])} subcategories can be trained on; of each of the others it is said why not"
)
glue("feed_in_short", in_short, display=False)

# %% [markdown]
# ## What was dropped, and why
#
# Each step sees what the one before it left. An example is named, so that the shop can look it up; beside the result
# `shop.dropped.csv` lists all of them, with file and row.

# %%
pd.set_option("display.max_colwidth", None)  # an id that is cut off names nothing
examples = manifest["counts"]["examples"]
pd.DataFrame(
    [
        {
            "step": step,
            "reason": reason,
            "products": count,
            "for example": examples.get(reason, [""])[0],
        }
        for step, reasons in manifest["counts"]["dropped"].items()
        for reason, count in reasons.items()
    ]
)

# %% [markdown]
# ## What is left
#
# Real subcategories are unequal. The paper meets that by drawing 1,000 products of each that has as many (`per_class`); a sample
# as small as this one keeps them all.

# %% mystnb={"image": {"alt": "Horizontal bars: products per subcategory, in training and test set, the largest first."}}
sizes = pd.DataFrame(manifest["classes"]).T.sort_values("train")
plots.class_sizes(sizes)

# %% [markdown]
# The pictures as a network gets them, 32 by 32 pixels: the first ones of each of the
# largest subcategories.

# %% mystnb={"image": {"alt": "A contact sheet of imported product photos, one row per subcategory."}}
plots.contact_sheet(
    shop["images"][shop["train_image"]], shop["train_labels"], shop["class_names"], rows=6
)

# %% [markdown]
# ## The manifest
#
# It holds the feed's files with their hashes, the rules, the counts, the versions of what decoded the images, and the
# hash of each image; `rebuild_feed` makes the dataset again and says what differs.

# %% tags=["nbval-ignore-output"]
print(f"{len(full['images'])} images hashed; decoded with {full['made_with']}")
print(f"the dataset's SHA-256 begins {full['npz_sha256'][:16]}")

# %% [markdown]
# ## How fast
#
# Measured on generated feeds of 80-pixel JPEG thumbnails (`benchmarks/feed_import.py`). The search for near-duplicates is
# measured by itself, on hashes of different pictures. The products of the larger feeds share 6,300 thumbnails, so that
# theirs is the time for everything but decoding. Memory is the process's peak.

# %% tags=["nbval-ignore-output", "hide-input"]
measured = sorted(Path("../benchmarks/records").glob("feed-import-*.json"))
for path in measured:
    record, speeds = json.loads(path.read_text()), []
    figures = {
        part: record[part]["figures"]
        for part in record
        if "figures" in record[part]
    }
    if thumbnails := figures.get("thumbnails"):
        whole = thumbnails["imported_per_second"]
        for processes, read in thumbnails["read_per_second"].items():
            speeds.append(
                (
                    f"{thumbnails['images']:,} thumbnails, {processes} process{'es' * (processes != '1')}",
                    f"{read:,} a second read, {whole[processes]:,} with all that follows",
                )
            )
    for row in figures.get("products", []):
        cost = f"{row['microseconds']:.0f} µs each, peak {row['peak_mb']:,} MB"
        speeds.append((f"import of {row['products']:,} products", cost))
    for row in figures.get("search", []):
        what = f"near-duplicates among {row['pictures']:,} different pictures"
        speeds.append((what, f"{row['seconds']:.1f} s"))
    if listed := figures.get("list"):
        what = f"list of {listed['labels']:,} labels, page of {listed['pictures']:,} pictures"
        speeds.append((what, f"{listed['seconds']:.1f} s"))
    device = f"{record['device']['name']}, {record['device']['cores']} cores"
    display(pd.DataFrame(speeds, columns=["what", device]).style.hide(axis="index"))
if not measured:
    print("not measured yet")
