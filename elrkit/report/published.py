"""What the papers print: `published.csv`, one number a row, each with its source, table and page."""

from importlib import resources

import pandas as pd

CELL = ["dataset", "schedule", "noise_rate", "loss"]


def numbers() -> pd.DataFrame:
    """Columns id, source, table, dataset, quantity, unit, noise_kind, noise_rate, loss, schedule, method, mean, std
    (NaN where none is printed), runs, where, note; accuracies in percent."""
    with resources.files(__package__).joinpath("published.csv").open() as file:
        table = pd.read_csv(
            file, keep_default_na=False, na_values={c: [""] for c in ("noise_rate", "mean", "std", "runs")}
        )
    return table


def number(row_id: str) -> float:
    """One published number by its id; raises KeyError."""
    return float(numbers().set_index("id")["mean"][row_id])


def table1(source: str = "galatolo2021") -> pd.Series:
    """Table 1 of a source: test accuracy in percent by `CELL`, of CE and ELR under symmetric noise or none."""
    rows = numbers()
    rows = rows[(rows["source"] == source) & (rows["table"] == "Table 1") & rows["loss"].isin(["ce", "elr"])]
    return rows[rows["noise_kind"].isin(["none", "symmetric"])].set_index(CELL)["mean"]


def gains(source: str = "galatolo2021") -> pd.Series:
    """ELR less CE in points, by dataset, schedule and noise rate."""
    cells = table1(source).unstack("loss")
    return (cells["elr"] - cells["ce"]).dropna()
