"""The command line: `sparsernn tune`, and the commands that other packages bring (sparsernn-studies: list, run, ...).

A package brings a command as an entry point of the group `sparsernn.commands`: a function whose parameters become the
command's. An error that has an `exit_code` is shown as its sentence and ends the command with that code.

Exit codes: 0 done, 1 the command failed, 2 it was wrong, 128 + signal if stopped from outside.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from .extras import require

USAGE, FAILED = 2, 1
OF_STUDIES = ("list", "run", "sweep", "inspect", "export-c", "bench", "report", "listen", "answer", "gallery")


def tune_kernels() -> None:
    """Measure what every layout of the kernels costs on this processor (seconds, one thread) and keep the figures.

    `accelerate` chooses layouts by them from then on, in this user's processes on this machine.
    """
    from rich.console import Console

    from .runtime.costs import Costs, tuned_file
    from .runtime.tune import as_table, keep_costs, tune

    measured = tune(keep=False)
    console = Console()
    # A table that a pipe cuts to 80 columns could not be read.
    console = console if console.is_terminal else Console(width=140)
    console.print(as_table(measured, Costs()))
    try:
        path = keep_costs(measured)
    except OSError as error:
        raise OSError(f"The costs can't be kept in {tuned_file()} ({error.strerror}): set SPARSERNN_CACHE.") from None
    if path is None:
        console.print("Nothing was written: there is no cache folder that is yours alone. SPARSERNN_CACHE names one.")
    else:
        console.print(f"Written to {path}; delete the file to go back to the built-in costs.", soft_wrap=True)


def commands() -> dict[str, Callable[..., None]]:
    """All commands by name, those of other packages first."""
    brought = {entry.name: entry.load() for entry in entry_points(group="sparsernn.commands")}
    return {**brought, "tune": tune_kernels}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = joined(sys.argv[1:] if arguments is None else arguments)
    known = commands()
    if given and given[0] in OF_STUDIES and given[0] not in known:
        print(f"`sparsernn {given[0]}` is a command of the studies: pip install sparsernn-studies", file=sys.stderr)
        return FAILED
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("sparsernn").setLevel(logging.INFO)
    try:
        tyro: Any = require("tyro", "the command line")
        tyro.extras.subcommand_cli_from_dict(
            known, prog="sparsernn", description="Makes recurrent networks small and fast.", args=given
        )
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else (0 if leave.code is None else USAGE)
    except KeyboardInterrupt:
        print("Stopped; the same command resumes the run.", file=sys.stderr)
        return 130
    except Exception as error:
        return _failed(error)
    return 0


def joined(arguments: Sequence[str]) -> list[str]:
    """`--set a=1 ... --set b=2` as one `--set a=1 b=2`, `--over` likewise: of repeated options only the last counts."""
    several: dict[str, list[str]] = {"--set": [], "--over": []}
    others: list[str] = []
    inside: list[str] | None = None
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if option in several:
            inside = several[option]
            inside += [value] if equals else []
            inside = None if equals else inside
        elif inside is not None and not argument.startswith("-"):
            inside.append(argument)
        else:
            inside = None
            others.append(argument)
    return [*others, *(word for option, values in several.items() if values for word in (option, *values))]


def _failed(error: Exception) -> int:
    """Say what went wrong in a sentence if it is one that was foreseen, with a traceback otherwise."""
    code = getattr(error, "exit_code", None)
    # Every room of the package refuses what it cannot do by a ValueError that is a sentence.
    if code is not None or isinstance(error, (ImportError, OSError, ValueError)):
        print(error, file=sys.stderr)
        if code != USAGE:
            logging.getLogger("sparsernn").debug("Where it happened:", exc_info=error)
        return FAILED if code is None else code
    logging.getLogger("sparsernn").error("The run failed: %s: %s", type(error).__name__, error, exc_info=error)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
