"""What papermill hands a chapter: a name that the chapter does not know stops it, where papermill would only log it."""

import ast
from collections.abc import Sequence

from elrkit.config import ConfigError


def check(cells: Sequence[str]) -> None:
    """Raises ConfigError when the cell that papermill injected sets a name that the chapter's parameters lack.

    cells  IPython's `In`, in the cell behind the parameters: the texts of all cells so far, this one the last
    """
    injected = cells[-2] if len(cells) > 2 else ""
    if not injected.startswith("# Parameters"):  # how papermill begins it
        return
    known = _assigned(cells[-3])
    if unknown := [name for name in _assigned(injected) if name not in known]:
        raise ConfigError(f"{unknown[0]}: no parameter of this notebook; allowed are {', '.join(known)}")


def _assigned(cell: str) -> list[str]:
    """The names that a cell of assignments sets, in order."""
    nodes = (node for statement in ast.parse(cell).body for node in ast.walk(statement))
    return [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
