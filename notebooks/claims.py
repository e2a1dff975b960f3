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
# # The claims, one by one
#
# Each claim of the paper that a run can test, in each setting that has runs; below it the claims that no run here can test.

# %% tags=["remove-input"]
from elrkit.report import effects, explore, figures, parameters, tables
from IPython.display import HTML
from myst_nb import glue

# %matplotlib inline
# %config InlineBackend.figure_formats = ["svg"]

# %% tags=["parameters"]
claim = None  # show this one alone; None: all

# %% tags=["nbval-ignore-output"]
parameters.check(In)
runs = effects.evidence()
claims = effects.load_claims()
if claim is not None and claim not in set(claims["id"]):
    raise ValueError(f"claim={claim!r}: allowed are {', '.join(claims['id'])}")
found = effects.table(runs, claims)
print(
    f"{len(runs)} runs, {found['claim'].nunique()} claims with runs, none of them a ResNet-34"
    if "paper" not in set(found["setting"])
    else f"{len(runs)} runs"
)

# %% tags=["nbval-ignore-output", "full-width"]
shown = claims if claim is None else claims[claims["id"] == claim]
table = HTML(tables.claims_html(found, shown, ""))
table

# %% [markdown]
# Differences are in percentage points, within a seed, everything else equal: same images, same wrong labels, same initial
# weights and order. A share is in percent.
#
# ## What no run here can test

# %%
untestable = HTML(tables.untestable_html(claims))
untestable

# %% tags=["remove-cell", "nbval-ignore-output"]
glue("claims_table", HTML(tables.claims_html(found, claims)), display=False)
glue("untestable", untestable, display=False)
alt = "A row per setting: left the wrong labels memorized by cross-entropy and ELR, right the test accuracy of both."
glue("answer", HTML(figures.as_html(figures.answer(runs), alt)), display=False)
of_answer = dict(
    dataset="cifar10", noise="symmetric", noise_rate=0.2, schedule="multistep"
)
glue(
    "explore_answer",
    HTML(explore.link(runs, folder="../notebooks/", **of_answer)),
    display=False,
)


def said(name, *args, **options):
    glue(name, effects.say(found, *args, **options), display=False)


for setting, suffix in {
    "described": "",
    "frozen": "_frozen",
    "more": "_more",
    "more-frozen": "_more_frozen",
}.items():
    plain = effects.shared(setting) | {"schedule": "multistep", "noise_rate": 0.2}
    for loss in ("ce", "elr"):
        share = effects.level(runs, "batches_wrong_memorized", **plain, loss=loss)
        glue(f"{loss}_memorized{suffix}", f"{share.mean:.0f}", display=False)
marks = found[(found["claim"] == "elr-cifar10") & (found["cell"] == "0.2")]["mark"]
glue("gains_in", f"{(marks == '+').sum()} of {(marks != '').sum()}", display=False)
noisy = {"schedule": "multistep", "noise_rate": 0.2}
ce, elr = {"loss": "ce"}, {"loss": "elr"}
whole = effects.level(
    runs, "wrong_memorized", **effects.shared("frozen"), **noisy, **ce
)
glue("uncropped_frozen", f"{whole.mean:.0f}", display=False)
small = effects.shared("described") | noisy
longer = small | {"epochs": 200}
for arm in (ce, elr):
    right = effects.level(runs, "batches_right_correct", **small, **arm)
    glue(f"{arm['loss']}_right", f"{right.mean:.0f}", display=False)
    share = effects.level(runs, "batches_wrong_memorized", **longer, **arm)
    glue(f"{arm['loss']}_memorized_longer", f"{share.mean:.0f}", display=False)
gain_longer = effects.difference(runs, elr, ce, "test_top1", **longer)
glue("gain_longer", effects.text(gain_longer, "{:+.1f}"), display=False)
assert gain_longer.low > 0, "the chapters say that ELR still ends above"
said("gain_clean", "clean-no-impact", "all-images", "-", "cifar10")
effects.say(found, "elr-memorizes-less", "described", "+")  # as the report begins
said("gain", "elr-cifar10", "described", "+", "0.2")
said("gain_frozen", "elr-cifar10", "frozen", "~", "0.2")
said("gain_more", "elr-cifar10", "more", "-", "0.2")
said("gain_more_frozen", "elr-cifar10", "more-frozen", "+", "0.2")
said("over_held_out", "over-held-out", "described", "+")
said("sam_all", "sam-elr", "all-images", "+")
said("sam_cost", "sam-elr-cost", "described", "-")
