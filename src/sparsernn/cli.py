"""The command line: sparsernn list | run | sweep | inspect | bench | report | listen | answer | tune,
or `python -m sparsernn`.

Exit codes: 0 done, 1 the run failed, 2 the command was wrong, 128 + signal if stopped from outside.
"""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ._extras import require
from .experiments.progress import a_console

if TYPE_CHECKING:
    from .experiments.runs import Run

USAGE, FAILED = 2, 1
RUNS = Path("runs")


class UsageError(Exception):
    """The command cannot be carried out as it was given."""


def list_recipes() -> None:
    """Show the recipes, their scales and how long each takes on two cores."""
    from rich.console import Console
    from rich.table import Table

    from .experiments.recipes import RECIPES

    table = Table("recipe", "what it shows", "scale: time on two cores")
    for recipe in RECIPES.values():
        times = "\n".join(f"{scale}: {recipe.minutes[scale]}" for scale in recipe.scales)
        table.add_row(recipe.name, recipe.summary, times)
    Console().print(table)


def run_recipe(
    recipe: str,
    /,
    scale: Literal["smoke", "cpu", "paper"] = "cpu",
    set: tuple[str, ...] = (),
    seed: int = 0,
    data: Path | None = None,
    runs: Path = RUNS,
    results: Path | None = None,
) -> None:
    """Run a recipe: train its rows, show its table, write its report. The same command resumes a run that was stopped.

    Args:
        recipe: name, as `sparsernn list` shows it.
        scale: smoke (seconds), cpu (minutes on a laptop) or paper (the published sizes).
        set: settings to change, each key=value (several after one --set, or one each).
        seed: the one number that decides all random choices.
        data: folder with data sets; SPARSERNN_DATA otherwise.
        runs: folder for what a run leaves: checkpoints, models, report.
        results: folder for the JSON files of the rows; inside the run's folder otherwise.
    """
    from .experiments.data import data_folder
    from .experiments.recipes import RecipeError, find, with_changes
    from .experiments.runs import MOST_SEED, Run, run_folder

    try:
        chosen = find(recipe)
        settings = with_changes(chosen.settings(scale), set)
    except RecipeError as error:
        raise UsageError(str(error)) from None
    if not 0 <= seed <= MOST_SEED:
        raise UsageError(f"--seed {str(seed)[:40]}: a seed is a whole number from 0 to {MOST_SEED}.")
    before = dataclasses.asdict(chosen.settings(scale))
    changed = {key: value for key, value in dataclasses.asdict(settings).items() if value != before[key]}
    folder = run_folder(runs, recipe, scale, seed, changed)
    options = [f"--scale {scale}", *(["--set", *map(shlex.quote, set)] if set else []), f"--seed {seed}"]
    run = Run(
        recipe=recipe,
        scale=scale,
        seed=seed,
        settings=settings,
        folder=folder,
        results=results or folder / "results",
        data=data_folder(data),
        command=" ".join(["sparsernn run", recipe, *options]),
        console=a_console(),
    )
    run.begin()
    chosen.run(run)


def inspect_run(run: Annotated[str, "positional"], /) -> None:
    """Show what can be removed from the sparse model of a finished run, and why the rest can't.

    Args:
        run: a run's folder, or a recipe's name for its newest run.
    """
    from .analysis.sparsity import inspect

    recipe, opened = _open(run)
    found = recipe.load(opened)
    opened.console.print(inspect(found.models[found.sparsified], found.example_inputs))


def bench_run(run: str, /) -> None:
    """Time the models of a finished run anew, side by side.

    Args:
        run: a run's folder, or a recipe's name for its newest run.
    """
    recipe, opened = _open(run)
    recipe.bench(opened)


def report_run(run: str, /) -> None:
    """Write the report of a finished run again and say where it is.

    Args:
        run: a run's folder, or a recipe's name for its newest run.
    """
    recipe, opened = _open(run)
    opened.console.print(f"Report: {recipe.report(opened)}")


def listen_run(run: str, file: Path, /, row: str | None = None) -> None:
    """Stream a WAV file frame by frame through the model of a finished run; show the label as it settles, and the time.

    Args:
        run: a run's folder, or a recipe's name for its newest run.
        file: a WAV file of linear PCM; another sample rate is converted, several channels become one.
        row: whose model listens, one of the rows that stream; the last one otherwise.
    """
    from .experiments.recipes import RECIPES, RecipeError

    recipe, opened = _open(run)
    if recipe.listen is None:
        able = " or ".join(each.name for each in RECIPES.values() if each.listen)
        raise UsageError(f"{run} is a run of {recipe.name}, which does not listen; name a run of {able}.")
    if not file.is_file():
        raise UsageError(f"There is no file {file}; name a WAV file.")
    try:
        recipe.listen(opened, file, row)
    except RecipeError as error:
        raise UsageError(str(error)) from None


def answer_run(run: str, /, context: Path, question: str) -> None:
    """Answer a question about a text by the smallest net of a finished run; show the answer, how sure it is, and where.

    Args:
        run: a run's folder, or a recipe's name for its newest run.
        context: a file with the text, in UTF-8.
        question: what is asked about it.
    """
    from .experiments.recipes import RECIPES

    recipe, opened = _open(run)
    if recipe.answer is None:
        able = " or ".join(each.name for each in RECIPES.values() if each.answer)
        raise UsageError(f"{run} is a run of {recipe.name}, which answers nothing; name a run of {able}.")
    if not context.is_file():
        raise UsageError(f"There is no file {context}; name a text with --context.")
    recipe.answer(opened, context, question)


def tune_kernels() -> None:
    """Measure what every layout of the kernels costs on this processor (seconds, one thread) and keep the figures.

    `accelerate` chooses layouts by them from then on, in this user's processes on this machine.
    """
    from .runtime.costs import Costs, tuned_file
    from .runtime.tune import as_table, keep_costs, tune

    measured = tune(keep=False)
    console = a_console()
    console.print(as_table(measured, Costs()))
    try:
        path = keep_costs(measured)
    except OSError as error:
        raise OSError(f"The costs can't be kept in {tuned_file()} ({error.strerror}): set SPARSERNN_CACHE.") from None
    if path is None:
        console.print("Nothing was written: there is no cache folder that is yours alone. SPARSERNN_CACHE names one.")
    else:
        console.print(f"Written to {path}; delete the file to go back to the built-in costs.", soft_wrap=True)


def _open(name: str) -> tuple[Any, Run]:
    from .experiments.opened import open_run

    return open_run(name, RUNS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        tyro = require("tyro", "the command line")
    except ImportError as error:
        print(error, file=sys.stderr)
        return FAILED
    from .experiments.sweeps.command import sweep_recipe

    commands = {
        "list": list_recipes,
        "run": run_recipe,
        "sweep": sweep_recipe,
        "inspect": inspect_run,
        "bench": bench_run,
        "report": report_run,
        "listen": listen_run,
        "answer": answer_run,
        "tune": tune_kernels,
    }
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("sparsernn").setLevel(logging.INFO)
    try:
        given = joined(sys.argv[1:] if arguments is None else arguments)
        tyro.extras.subcommand_cli_from_dict(
            commands, prog="sparsernn", description="Makes recurrent networks small and fast.", args=given
        )
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else (0 if leave.code is None else USAGE)
    except UsageError as error:
        print(error, file=sys.stderr)
        return USAGE
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
    from .experiments.checkpoint import CheckpointError
    from .experiments.data import DataError
    from .experiments.recipes import RecipeError
    from .experiments.results import ResultError
    from .experiments.runs import RunError
    from .experiments.signals import Stopped
    from .experiments.sweeps.trial import SweepError
    from .experiments.train import Diverged

    if isinstance(error, Stopped):
        print(error, file=sys.stderr)
        return 128 + error.signal
    if isinstance(error, RecipeError):
        print(error, file=sys.stderr)
        return USAGE
    # Every room of the package refuses what it cannot do by a ValueError that is a sentence.
    if isinstance(
        error,
        (CheckpointError, DataError, Diverged, ResultError, RunError, SweepError, ImportError, OSError, ValueError),
    ):
        print(error, file=sys.stderr)
        logging.getLogger("sparsernn").debug("Where it happened:", exc_info=error)
        return FAILED
    logging.getLogger("sparsernn").error("The run failed: %s: %s", type(error).__name__, error, exc_info=error)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
