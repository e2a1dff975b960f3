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
# # The package, function by function
#
# What each wing offers, from the docstrings. The core stands alone: `pip install .` and `elrkit.losses`, `elrkit.sam` need torch only.

# %% tags=["remove-input"]
import html
import importlib
import inspect
import re

from elrkit import config
from elrkit.report import parameters
from IPython.display import HTML

# %% tags=["parameters"]
modules = ["losses", "elr", "sam", "noise", "data", "models", "config", "train", "records", "runner",
           "catalogue.importer", "catalogue.features", "catalogue.head", "catalogue.checking", "catalogue.audit",
           "catalogue.scores", "catalogue.review", "catalogue.decisions", "catalogue.corrections", "report.plans",
           "report.effects", "report.published", "report.tables", "report.figures", "report.explore"]  # fmt: skip

# %% [markdown]
# ## Modules

# %% tags=["nbval-ignore-output"]
parameters.check(In)


def entries(module):
    """Its public functions and classes, as HTML that opens."""
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if (
            own
            and not name.startswith("_")
            and (inspect.isfunction(value) or inspect.isclass(value))
            and value.__doc__
        ):
            head = (
                f"{name}{inspect.signature(value)}"
                if inspect.isfunction(value)
                else name
            )
            head = re.sub(
                r"\sat 0x[0-9a-f]+", "", head
            )  # of a function that is a default
            first = inspect.getdoc(value).partition("\n")[0]
            yield (
                f"<details><summary><code>{name}</code> {html.escape(first)}</summary>"
                f"<pre>{html.escape(head)}\n\n{html.escape(inspect.getdoc(value))}</pre></details>"
            )


def section(name):
    module = importlib.import_module(f"elrkit.{name}")
    return f"<h3>elrkit.{name}</h3><p>{html.escape(module.__doc__.partition(chr(10))[0])}</p>{''.join(entries(module))}"


HTML("".join(map(section, config.as_list("modules", modules))))
