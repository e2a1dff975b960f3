"""Every record in one interactive figure: choose a kind of run, point at a curve, click a run for its settings.

`page` is what the chapter shows; the script that brings it to life is built once into the book (`script`), so that
nothing is asked of another host. `link` is the address of a selection, for the chapters' figures.
"""

import base64
import html
import io
import json
import math
from collections.abc import Iterable
from importlib import resources
from typing import Any
from urllib.parse import urlencode

import altair as alt
import pandas as pd
import vl_convert
from PIL import Image

from elrkit import records
from elrkit.config import RunConfig
from elrkit.losses import LOSSES
from elrkit.report import effects

# What can be chosen: a field of the config and its name on the page.
CHOICES = {
    "dataset": "dataset",
    "setting": "setting",
    "noise": "noise",
    "noise_rate": "share of labels",
    "loss": "loss",
    "augmentation": "augmentation",
    "schedule": "schedule",
    "sam_rho": "SAM rho",
    "train_size": "images",
    "width": "width",
    "epochs": "epochs",
}
CURVES = {"batches_wrong_memorized": "memorized", "test_top1": "accuracy"}
TITLES = {"memorized": "wrong labels memorized, %", "accuracy": "test accuracy, %"}
OTHER = "other"  # the setting of a run that is of none


def _text(value: Any) -> str:
    """A value of a choice, as pages and addresses write it."""
    return "all" if value is None or value != value else f"{value:g}" if isinstance(value, float) else str(value)


def rows(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page knows of each finished record: its id, choices (text), seed, config, where its JSON lies in the
    book, its curves in percent (None where an epoch has no value), and the last value of each."""
    finished = [record for record in found if record["status"] == "finished"]
    table = records.table(finished)
    setting_of = {
        run_id: setting.label
        for name, setting in effects.SETTINGS.items()
        for run_id in (_of_setting(table, name)["run_id"] if len(table) else ())
    }
    result = []
    for record in finished:
        run = RunConfig(**record["config"])
        config = run.model_dump(mode="json")
        row = {"run": record["run_id"], "seed": config["seed"], "epoch": record["curves"]["epoch"]}
        row |= {name: _text(config[name]) for name in CHOICES if name in config}
        row["setting"] = setting_of.get(record["run_id"], OTHER)
        row["name"] = LOSSES[config["loss"]].label
        for column, name in CURVES.items():
            values = record["curves"].get(column) or [None] * len(row["epoch"])
            row[name] = [None if v is None else round(100 * v, 1) for v in values]
            row[f"last_{name}"] = row[name][-1]
        row["config"] = {name: value for name, value in config.items() if value is not None}
        row["file"] = records.place(run)
        result.append(row)
    return result


def _of_setting(runs: pd.DataFrame, name: str, **fields: Any) -> pd.DataFrame:
    """The runs of a setting, whatever their noise, loss, SAM and epochs, with these fields."""
    free = dict.fromkeys(("sam_rho", "epochs", "split", "noise_convention"), effects.ANY)
    datasets = [d for d in effects.SETTINGS[name].of if fields.get("dataset", d) == d]
    return pd.concat([effects.select(runs, effects.shared(name, d) | free | fields | {"dataset": d}) for d in datasets])


def chart(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The figure as a Vega-Lite specification, without its data ``runs``, which are `rows`: memorized against accuracy
    at the last epoch, and both over the epochs.

    Its parameters: `by_` and the name of each choice, and `picked`, the run clicked on.
    """
    settings = [setting.label for setting in effects.SETTINGS.values()]
    sized = {label: sum(row["setting"] == label for row in found) for label in settings}
    first = {"dataset": "cifar10", "setting": max(sized, key=sized.get), "noise_rate": "0.2"}
    if not any(all(row[name] == value for name, value in first.items()) for row in found):
        first = {}
    shown = [
        alt.param(
            name=f"by_{name}",  # Vega has a width of its own
            value=first.get(name),
            bind=alt.binding_select(options=[None, *values], labels=["any", *values], name=f"{label} "),
        )
        for name, label in CHOICES.items()
        if len(values := sorted({row[name] for row in found}, key=_in_order)) > 1
    ]
    picked = alt.selection_point(name="picked", fields=["run"], empty=True)
    names = [each.name.removeprefix("by_") for each in shown]
    kept = " && ".join(f"(!isValid(by_{name}) || datum.{name} === by_{name})" for name in names) or "true"
    labels = list(dict.fromkeys(row["name"] for row in found))
    colour = alt.Color("name:N", title="loss", scale=alt.Scale(
        domain=labels, range=[next(loss.colour for loss in LOSSES.values() if loss.label == each) for each in labels],
    ))  # fmt: skip
    told = [alt.Tooltip(f"{name}:N", title=title) for name, title in
            {"run": "run", "name": "loss", "augmentation": "augmentation", "seed": "seed"}.items()]  # fmt: skip
    base = alt.Chart(alt.Data(name="runs")).transform_filter(kept)
    faint = alt.condition(picked, alt.value(0.85), alt.value(0.07))
    ends = base.mark_point(filled=True, size=70).encode(
        x=alt.X("last_memorized:Q", title=TITLES["memorized"]),
        y=alt.Y("last_accuracy:Q", title=TITLES["accuracy"]).scale(zero=False),
        color=colour, shape=alt.Shape("augmentation:N"), opacity=faint,
        tooltip=[*told, *(alt.Tooltip(f"last_{name}:Q", title=title) for name, title in TITLES.items())],
    ).add_params(*shown, picked).properties(name="ends", title="at the last epoch")  # fmt: skip
    over = [
        base.transform_flatten(["epoch", name]).transform_filter(f"isValid(datum.{name})").mark_line(
            point={"size": 12}, strokeWidth=1.3
        ).encode(
            x=alt.X("epoch:Q"), y=alt.Y(f"{name}:Q", title=title, scale=alt.Scale(zero=name == "memorized")),
            color=colour, detail="run:N", opacity=faint,
            tooltip=[*told, alt.Tooltip("epoch:Q"), alt.Tooltip(f"{name}:Q", title=title)],
        ).properties(name=name, title=f"{title.partition(',')[0]} over the epochs")
        for name, title in TITLES.items()
    ]  # fmt: skip
    figure = alt.concat(ends, *over, columns=3, data=alt.Data(name="runs"))
    figure = figure.configure_legend(orient="bottom").configure_view(continuousWidth=250, continuousHeight=260)
    spec = figure.to_dict()
    next(each for each in spec["params"] if each["name"] == "picked")["views"] = ["ends", *CURVES.values()]
    return spec


def _in_order(value: str) -> tuple[float, str]:
    try:
        return float(value), ""
    except ValueError:
        return math.inf, value


def page(found: Iterable[dict[str, Any]]) -> str:
    """The explorer as HTML: a picture of the first selection, in whose place the book's script puts the figure."""
    runs = rows(found)
    spec = chart(runs)
    drawn = vl_convert.vegalite_to_png({**spec, "datasets": {"runs": runs}}, scale=2)
    still = io.BytesIO()
    Image.open(io.BytesIO(drawn)).convert("RGB").quantize(64).save(still, "PNG", optimize=True)  # a tenth of the bytes
    data = json.dumps({"spec": spec, "runs": runs}, separators=(",", ":")).replace("<", "\\u003c")
    alt_text = "Wrong labels memorized and test accuracy of the runs on CIFAR-10 with a fifth of the labels redrawn."
    return (
        "<div id='explore'><div id='explore-figure' tabindex='0' role='region' aria-label='All runs'>"
        f"<img class='figure' alt='{html.escape(alt_text)}' "
        f"src='data:image/png;base64,{base64.b64encode(still.getvalue()).decode()}'></div>"
        "<p id='explore-count' role='status'></p><div id='explore-run' role='status'></div>"
        "<details id='explore-list'><summary>The runs that are shown</summary><ul></ul></details>"
        f"<script type='application/json' id='explore-data'>{data}</script>"
        "<script src='../_static/explore.js' defer></script></div>"
    )


def script() -> str:
    """The page's script with Vega, Vega-Lite and vega-embed in it, for the book's `_static`."""
    own = resources.files(__package__).joinpath("explore.js").read_text(encoding="utf-8")
    return f"(() => {{{vl_convert.javascript_bundle(own)}}})();"  # its names are no other script's


def link(runs: pd.DataFrame, setting: str | None = None, folder: str = "", **fields: Any) -> str:
    """A link, as HTML, from a chapter to the explorer with this selection.

    runs     `records.table`; setting: one of `effects.SETTINGS`; folder: where the chapters are, from the page with the
             link; fields: values of `CHOICES`. Raises ValueError when a
             field is none of them, or when no run has these values, so that no link leads to an empty figure.
    """
    if unknown := [name for name in fields if name not in CHOICES]:
        raise ValueError(f"{unknown[0]}: allowed are {', '.join(CHOICES)}")
    if (_of_setting(runs, setting, **fields) if setting else effects.select(runs, fields)).empty:
        raise ValueError(f"{setting or 'any setting'}: no run has {fields}")
    asked = ({"setting": effects.SETTINGS[setting].label} if setting else {}) | fields
    query = urlencode({name: _text(value) for name, value in asked.items()})
    return f"<p class='explore'><a href='{folder}explore.html?{html.escape(query)}'>Explore these runs</a></p>"
