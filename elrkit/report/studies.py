"""Studies of the report that are no training runs: one JSON file each, named by what is asked, in a folder beside the
runs; pictures lie beside it in one sheet."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from elrkit import records
from elrkit.config import as_list, require

Record = dict[str, Any]


def checked_seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds of studies, each a whole number from 0. Raises ConfigError."""
    seeds = as_list("seeds", seeds)
    for seed in seeds:
        require("seeds", seed, 0, whole=True)
    return seeds


def share(flags: NDArray[np.bool_], digits: int) -> float | None:
    """The share of flags that are set, to so many decimals; None of none."""
    return round(float(flags.mean()), digits) if len(flags) else None


def gather(folder: str, wanted: Sequence[Any], make: Callable[[Any], Record] | None = None) -> list[Record]:
    """The records of these studies that are there; each has a name, that of its file.

    make  makes the record of a study that is missing, which is then written into one's own store and named, as is what
          is there already
    """
    for study in wanted if make else ():
        if (path := records.beside(folder, f"{study.name}.json")).exists():
            print(f"there: {path}", flush=True)
        else:
            save(folder, study.name, make(study))
            print(f"made {study.name}", flush=True)
    paths = (records.beside(folder, f"{study.name}.json") for study in wanted)
    return [json.loads(path.read_text("utf-8")) for path in paths if path.exists()]


def evidence(folder: str, pattern: str) -> list[Record]:
    """The records of a folder that are part of the report's evidence, in the order of their names."""
    paths = sorted((records.evidence_root().parent / folder).glob(pattern))
    return [json.loads(path.read_text("utf-8")) for path in paths]


def save(folder: str, name: str, record: Record) -> Path:
    path = records.results_root().parent / folder / f"{name}.json"
    records.write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return path


def save_sheet(folder: str, name: str, pictures: NDArray[np.uint8]) -> None:
    """Write pictures (n, side, side, 3) side by side as one file."""
    path = records.results_root().parent / folder / f"{name}.webp"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(list(pictures), axis=1)).save(path, quality=85, method=6)


def sheet(folder: str, name: str) -> NDArray[np.uint8]:
    """The pictures (n, side, side, 3) that `save_sheet` wrote."""
    with Image.open(records.beside(folder, f"{name}.webp")) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    return np.stack(np.split(pixels, pixels.shape[1] // pixels.shape[0], axis=1))
