"""Where things lie: data, the two stores of records, checkpoints. Each has a variable of the environment."""

import os
from pathlib import Path


def data_root(root: str | Path | None = None) -> Path:
    """Where datasets are kept: `root`, else the environment's ELRKIT_DATA, else ~/.cache/elrkit."""
    return Path(root or os.environ.get("ELRKIT_DATA") or _cache()).expanduser()


def state_root() -> Path:
    """Where checkpoints and outcomes are: the environment's ELRKIT_STATE, else `state` below the data root."""
    given = os.environ.get("ELRKIT_STATE")
    return Path(given).expanduser() if given else data_root() / "state"


def results_root() -> Path:
    """Where new records go: the environment's ELRKIT_RESULTS, else ~/.cache/elrkit/runs."""
    return Path(os.environ.get("ELRKIT_RESULTS") or _cache() / "runs").expanduser()


def evidence_root() -> Path | None:
    """The committed records, the report's evidence: results/runs in the current folder or one above it; or None."""
    here = Path.cwd()
    for folder in (here, *here.parents):  # notebooks run from their own folder
        if (folder / "results" / "runs").is_dir():
            return folder / "results" / "runs"
    return None


def _cache() -> Path:
    return Path.home() / ".cache" / "elrkit"
