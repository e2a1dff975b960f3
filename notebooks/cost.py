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
# # What it cost
#
# **So far:** {glue:text}`cost_so_far:s`.
#
# Operations, hours and, where the device tells it, energy of every run in the store, beside what
# {cite:t}`galatolo2021` state: an estimated 1,958,400 TFLOPs for the runs of Figure 5 and over 300 hours of computing
# for the two sweeps.
#
# Operations are counted, not measured: the convolutions and matrix products of the network (a multiply-add is two,
# {doc}`networks` lists them), three forward passes for an image trained, six with sharpness-aware minimization, one
# for an image evaluated. Hours are those of the runs, training and evaluation; two runs side by side for an hour are
# two hours, and each is slower than alone.

# %%
# %matplotlib inline
import pandas as pd
from elrkit import config, models, records
from elrkit.report import figures as plots
from elrkit.report import list_study as audit_study
from elrkit.report import made_shops as shop
from elrkit.report import networks as flops
from elrkit.report import paper, plans

# %% tags=["parameters"]
num_classes = 63  # the shop's subcategories
images_per_class = 1000  # nine tenths train, one tenth tests
epochs = 50  # of a run of Figure 5, as the published log has it
runs_per_cell = 4  # CE and ELR, each with SGD and with SAM

# %%
config.require("num_classes", num_classes, 2, whole=True)
config.require("images_per_class", images_per_class, 10, whole=True)
config.require("epochs", epochs, 1, whole=True)
config.require("runs_per_cell", runs_per_cell, 1, whole=True)
trained = round(0.9 * num_classes * images_per_class)
tested = num_classes * images_per_class - trained
cells = 4 * runs_per_cell
print(
    f"Figure 5: {cells} runs, {trained:,} training and {tested:,} test images, {epochs} epochs"
)

# %% [markdown]
# ## At a glance

# %% tags=["nbval-ignore-output", "remove-output"]
trained = records.read_all()
table = records.table(trained).join(flops.of_runs(trained))

# %% [markdown]
# First Figure 5's runs by our own count, with the paper's network:

# %%
parameters, forward, _ = flops.count(models.resnet34(num_classes), (3, 32, 32))
run = {
    "SGD": epochs * (3 * trained + tested) * forward / 1e15,
    "SAM": epochs * (6 * trained + tested) * forward / 1e15,
}
counted = 2 * runs_per_cell * sum(run.values())
published = paper.load_published().set_index("id")["mean"]
stated = published["galatolo2021-figure5-cost"] / 1e3
stated_hours = published["galatolo2021-text-sweep-hours"]
print(f"a run with SGD {run['SGD']:.1f} PFLOP, with SAM {run['SAM']:.1f}")
print(f"all {cells} runs {counted:.0f} PFLOP; the paper states {stated:,.1f}")
print(f"stated / counted = {stated / counted:.2f}")

# %% tags=["nbval-ignore-output", "remove-cell"]
from myst_nb import glue

total = flops.totals(table, ["scale"])[["PFLOP", "hours"]].sum()
so_far = (
    f"the {len(table)} trainings on record took {total['PFLOP']:,.0f} PFLOP and {total['hours']:,.0f} hours, studies and "
    f"fine-tunings not counted; the {cells} runs of Figure 5 are {counted:,.0f} PFLOP by our count, and the paper states "
    f"{stated / counted:.1f} times as many"
)
glue("cost_so_far", so_far, display=False)

# %% [markdown]
# That factor rests on two readings: "4 independent runs" as 4 of each of the 4 cells, and the 50 epochs of the authors' log,
# where Section 5.4 also speaks of 150. Stated over counted, for the others:

# %% tags=["nbval-ignore-output"]
readings = pd.DataFrame(
    {
        f"{n} epochs": {
            f"{cells} runs": stated / counted * epochs / n,
            f"{runs_per_cell} runs, all with SAM": stated
            / (runs_per_cell * run["SAM"] * n / epochs),
        }
        for n in (epochs, 3 * epochs)
    }
)
readings.style.format(precision=1)

# %% tags=["nbval-ignore-output"] mystnb={"image": {"alt": "Two panels of horizontal bars on logarithmic axes, operations and hours: our runs at each scale, Figure 5 by our count, and the two figures that the paper states."}}
names = {
    "paper": "ours, paper scale",
    "cpu": "ours, cpu scale",
    "digits": "ours, digits",
    "other": "ours, made shops and others",
}
ours = flops.totals(table, ["scale"]).set_index("scale")
bars = [
    {
        "name": name,
        "ours": True,
        "PFLOP": float(ours["PFLOP"].get(scale, 0)),
        "hours": float(ours["hours"].get(scale, 0)),
    }
    for scale, name in names.items()
]
bars += [
    {"name": "Figure 5, by our count", "ours": False, "PFLOP": counted},
    {"name": "Figure 5, as stated", "ours": False, "PFLOP": stated},
    {"name": "two sweeps, as stated", "ours": False, "hours": stated_hours},
]
plots.cost(pd.DataFrame(bars))

# %% [markdown]
# Blue bars are the runs of this report, which grow with it, without the studies and fine-tunings that the last table
# adds; grey ones are about the paper's. The paper gives no
# hours for Figure 5 and no operations for the sweeps, so those bars are missing.
#
# ## By scale and device
#
# `TFLOP/s` is what one run achieved over its whole length, evaluation included; runs that shared a device each got a
# part of it.

# %% tags=["nbval-ignore-output"]
by = flops.totals(table, ["scale", "device", "threads"]) if len(table) else ours
by = by.dropna(axis="columns", how="all")
by.style.hide(axis="index").format(precision=3, na_rep="not told", thousands=",")

# %% [markdown]
# ## By part of the report
#
# A run that two parts share is counted in both. The shops of {doc}`shop` are no plan; their runs are in the tables above.

# %% tags=["nbval-ignore-output"]
parts = []
for name in plans.PLANS:
    for scale in plans.SCALES:
        ids = {planned.run_id for planned in plans.plan(name, scale)}
        mine = table[table.run_id.isin(ids)]
        if len(mine):
            total = flops.totals(mine.assign(plan=name), ["plan", "scale"])
            parts.append(total.assign(planned=len(ids)))
# Trainings that are no runs of a plan: of the audit's studies, seven or eight each of the small net, and the
# fine-tunings on cleaned labels.
studies = list(filter(None, map(audit_study.find, audit_study.studies())))
others = [
    {
        "plan": "studies of the audit",
        "scale": "cpu",
        "runs": len(studies),
        "images": sum(sum(s["images_trained"].values()) for s in studies),
        "seconds": sum(sum(s["timing"]["seconds"].values()) for s in studies),
        "planned": len(audit_study.studies()),
    }
]
for scale in ("paper", "cpu"):
    bases = [shop.clean_base(scale, seed) for seed in plans.SEEDS]
    cleaned = list(filter(None, (shop.read(shop.clean_path(b)) for b in bases)))
    tuned = [(s["images"], row) for s in cleaned for row in s["rows"]]
    others.append(
        {
            "plan": "fine-tunings on cleaned labels",
            "scale": scale,
            "runs": len(tuned),
            "images": sum(shop.TUNE_EPOCHS * images for images, _ in tuned),
            "seconds": sum(row["seconds"] for _, row in tuned),
            "planned": len(bases) * (1 + 2 * len(shop.FRACTIONS)),
        }
    )
nets = {
    "cpu": models.build("small_resnet", 10, 3, 32, 2),
    "paper": models.resnet34(10),
}
for part in others:
    if part["runs"]:
        images, seconds = part.pop("images"), part.pop("seconds")
        operations = 3 * images * flops.count(nets[part["scale"]], (3, 32, 32))[1]
        part |= {"PFLOP": operations / 1e15, "hours": seconds / 3600}
        part["TFLOP/s"] = operations / 1e12 / seconds
        parts.append(pd.DataFrame([part]))
parts = pd.concat(parts) if parts else flops.totals(table, ["scale"])
parts.style.hide(axis="index").format(
    precision=3, thousands=","
)

# %% [markdown]
# ## What 1,958,400 TFLOPs can mean
#
# "TFLOPS" is read in two ways: operations per second, a *rate*, or operations, an *amount*. The caption speaks of
# "total computation", so an amount is meant; a rate would be that of this many of the authors' GPUs at once (their
# acknowledgments name them, NVIDIA's data sheets give the rates):

# %%
rates = pd.DataFrame(
    {
        "float32, TFLOP/s": {
            "Quadro RTX 6000": 16.3,
            "Tesla V100 (PCIe)": 14.0,
            "Tesla T4": 8.1,
        },
        "float16 tensor cores, TFLOP/s": {
            "Quadro RTX 6000": 130.5,
            "Tesla V100 (PCIe)": 112.0,
            "Tesla T4": 65.0,
        },
    }
)
single = rates["float32, TFLOP/s"]
as_rate = (1e3 * stated / single).round().astype(int)
print("; ".join(f"{n:,} of {name}" for name, n in as_rate.items()))

# %% [markdown]
# As an amount it can come from counting operations, as above, or from multiplying a nominal rate by the time that the
# runs took. The second is common, and overstates: no training reaches the rate of the data sheet. The time that each
# GPU would have taken *at its nominal rate*:

# %%
hours = 1e3 * stated / rates / 3600
hours.columns = [name.replace("TFLOP/s", "hours") for name in hours]
hours.round(1)

# %% [markdown]
# The authors' log notes "50 epochs taking 100 minutes" on the shop's images. At the nominal float32 rates the stated
# amount is this many runs of 100 minutes, where Figure 5 has 16:

# %%
minutes = 100
logged = (60 * hours["float32, hours"] / minutes).round(1)
print("; ".join(f"{name}: {n:g} runs" for name, n in logged.items()))
print(
    f"20 runs of {minutes} minutes: {1e3 * stated / (20 * 60 * minutes):g} TFLOP/s exactly"
)
print(
    f"by our count, a run with SGD in {minutes} minutes is {1e3 * run['SGD'] / (60 * minutes):.1f} TFLOP/s"
)

# %% [markdown]
# 16.32 TFLOP/s for 20 runs is, to three digits, the rated float32 speed of the Quadro RTX 6000, and a round number of
# runs. So rated speed times time is one reading; but the number of runs was free to choose, and 16 TFLOP/s for 34 hours fits
# exactly as well. How the estimate was made is not said, so no reading is proved.
# A multiply-add counted as one operation would double all factors.
