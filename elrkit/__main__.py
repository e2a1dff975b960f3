"""The command line: ``python -m elrkit COMMAND --help``. The core's commands, and those of each wing that can be used.

A wing has a module `commands` with a dict `COMMANDS`, name -> function, and an extra of its own name.
"""

import importlib
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from elrkit.config import ConfigError

try:
    import tyro

    from elrkit import commands
except ModuleNotFoundError as error:
    sys.exit(f'error: the command line needs {error.name}: pip install "elrkit[train]"')

WINGS = ("catalogue", "report")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 if all went well, 1 if something failed on the way, 2 if the arguments or the data cannot
    be used, 130 if it was stopped by Ctrl-C or SIGTERM."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        app = tyro.extras.SubcommandApp()
        for name, function in _known(arguments[0] if arguments else "--help").items():
            app.command(name=name)(function)
        try:
            return app.cli(prog="python -m elrkit", args=arguments, use_underscores=False) or 0
        finally:
            sys.stdout.flush()  # a pipe that is closed is told here, and not when Python ends
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor does Python's last flush complain
        return 0
    except (ValueError, OSError) as error:  # each in one line that says how to mend it
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130


def _known(first: str) -> dict[str, Callable[..., Any]]:
    """The commands to choose from where `first` is the first argument; raises ConfigError when a wing that may have
    it is not installed."""
    known = dict(commands.COMMANDS)
    if first in known:  # it needs none of the wings' modules
        return known
    lacking = []
    for wing in WINGS:
        try:
            known |= importlib.import_module(f"elrkit.{wing}.commands").COMMANDS
        except ModuleNotFoundError as error:
            if (error.name or "elrkit").startswith("elrkit"):
                raise
            module = str(error.name).partition(".")[0]
            lacking.append(f'those of elrkit.{wing} need {module}: pip install "elrkit[{wing}]"')
    if lacking and not first.startswith("-") and first not in known:
        raise ConfigError(f"{first}: no such command among {', '.join(known)}; {'; '.join(lacking)}")
    return known


if __name__ == "__main__":
    sys.exit(main())
