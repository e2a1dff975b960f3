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
# # Every published number, and how verdicts are made
#
# {doc}`The front page <../book/index>` lists the claims that the paper makes in words; below is every number that it or
# its sources publish, each with what our records say about it. No verdict is typed by hand: `elrkit.report.paper` decides each
# from the rule and the tolerance in `paper/claims.csv`, the numbers in `paper/published.csv` and the records in
# `results/runs`.
#
# A claim is called *reproduced* or *not reproduced* only with three seeds, as many as the plans have, and by its interval:
# Student's t over seeds, because so few are too few to resample. An interval that reaches across the bound decides nothing
# yet. Where a cell has runs under several settings the note gives them all, with *but* before those that say the opposite;
# where one of these decides it the other way, the verdict is *settings disagree*, and more seeds would not change that. A
# number is *reproduced* when our mean lies within the tolerance of it: the deviations of both sides added; where a single
# run was published, as far as 95 % of single runs of ours would lie from our mean, at least half a point; but more than a point
# away from a single run that decides nothing, since the noisier ours are the further that reaches. *Reproduced only with the code's
# recipe* means that the recipe which the paper describes does not give the number and the recipe which its code ran does.
# *Untestable* says why in its note. A verdict from small-scale runs says *small net*, and `cpu` under *Scale*: it speaks for
# that scale alone. *Tables*, *counted* and *linear model* are decided without training. Numbers of other papers stand here to
# compare with; *not planned* are those in settings that no plan of this report has, *other method* those of methods that
# it does not have.
#
# **So far:** {glue:text}`numbers:s`.

# %%
from pathlib import Path

import pandas as pd
from elrkit.report import findings, paper
from IPython.display import HTML

# %% tags=["parameters"]
source = None  # galatolo2021, liu2020 or wei2022; None: all

# %%
decided = findings.ledger()
# Two claims about the shop, beside what the simulated shops gave.
said = findings.sentences()
bound = decided.id == "cdon-agreement-bound"
decided.loc[bound, "note"] += f"; in our simulation: {dict(said)['shop']}"
biased = decided.id == "noisy-test-slight-bias"
decided.loc[biased, "note"] += f"; in our simulated shops, {findings.strays()}"
if source is not None:
    if source not in set(decided.source):
        raise ValueError(
            f"source={source!r}: allowed are {', '.join(sorted(set(decided.source)))}"
        )
    decided = decided[decided.source == source]
print(
    f"{(decided.kind == 'claim').sum()} claims in words, {(decided.kind == 'number').sum()} numbers"
)

# %% tags=["nbval-ignore-output"]
shown = [paper.shown_verdict(row) for row in decided.itertuples()]
shown = pd.Series(shown, decided.index, name="verdict")
decided.groupby(["kind", shown]).size().unstack(fill_value=0)

# %% tags=["nbval-ignore-output", "remove-cell"]
# The front page of the report shows this table.
from myst_nb import glue

chapters = {path.stem for path in Path().glob("*.py")}
order = ["reproduced", "not reproduced", paper.VERDICTS[2]]  # what is decided first
claim_rows = decided[decided.kind == "claim"].sort_values(
    "verdict",
    key=lambda v: v.map(lambda x: order.index(x) if x in order else len(order)),
    kind="stable",
)
glue(
    "claims",
    HTML(paper.ledger_html(claim_rows, chapters, "../notebooks/")),
    display=False,
)
HTML(paper.ledger_html(claim_rows, chapters))

# %% tags=["nbval-ignore-output", "remove-cell"]
# So does the front page: what each chapter's runs say so far. Each chapter repeats its own.
titles = {
    "early_learning": "Early learning",
    "table1": "Table 1",
    "forensics": "What the code did",
    "sam": "Sharpness-aware minimization",
    "related_losses": "The related losses",
    "human_noise": "Labels that people got wrong",
    "audit": "The list of labels to look at",
    "shop": "A shop whose truth is known",
}
glue(
    "findings",
    HTML(findings.as_html(said, titles, "../notebooks/")),
    display=False,
)
for name, text in said:
    glue(f"found_{name}", text, display=False)

# %% tags=["nbval-ignore-output", "remove-cell"]
# And these: how many are decided on what, and what ELR adds under each way to crop.
glue("numbers", findings.numbers(decided), display=False)
for name, text in findings.short_answer().items():
    glue(f"short_{name}", text, display=False)
for name, part in (
    ("verdicts", findings.verdicts(decided)),
    ("answer", findings.answer()),
):
    glue(name, part.style.hide(axis="index"), display=False)

# %% [markdown]
# ## Numbers

# %% tags=["nbval-ignore-output", "hide-input", "full-width"]
HTML(paper.ledger_html(decided[decided.kind == "number"], chapters))
