"""The commands that the studies bring to `sparsernn`: list | run | inspect | export-c | bench | report | ..."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from .progress import make_console
from .settings import SettingsError

if TYPE_CHECKING:
    from .runs import Run

RUNS = Path("runs")


def list_recipes() -> None:
    """Show the recipes, their scales and how long each takes on two cores."""
    from rich.console import Console
    from rich.table import Table

    from .recipes import RECIPES

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
    from .data import data_folder
    from .recipes import find
    from .runs import MOST_SEED, Run, run_folder
    from .settings import with_changes

    chosen = find(recipe)
    settings = with_changes(chosen.at(scale), set)
    if not 0 <= seed <= MOST_SEED:
        raise SettingsError(f"--seed {str(seed)[:40]}: a seed is a whole number from 0 to {MOST_SEED}.")
    before = dataclasses.asdict(chosen.at(scale))
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
        console=make_console(),
    )
    run.begin()
    chosen(run).complete()


def inspect_run(run: Annotated[str, "positional"], /) -> None:
    """Show what can be removed from the sparse model of a finished run, and why the rest can't.

    Args:
        run: a run's folder, or a recipe's name for its newest run.
    """
    from sparsernn.analysis.sparsity import inspect

    recipe, opened = _open(run)
    found = recipe(opened).loaded()
    opened.console.print(inspect(found.models[found.sparsified], found.example_inputs))


def export_c_run(
    run: Annotated[str, "positional"],
    /,
    folder: Path = Path("c"),
    name: str = "model",
    row: str | None = None,
    precision: Literal["float32", "int8"] = "float32",
    weights: Literal["source", "file"] = "source",
    wrappers: tuple[Literal["c++", "python", "rust", "arduino", "web"], ...] = (),
    measure: bool = False,
) -> None:
    """Write one time step of a model of a finished run as C that needs no library, with vectors to test it.

    Args:
        run: a run's folder, or a recipe's name for its newest run.
        folder: where NAME.h, NAME.c, NAME_test.c and NAME.json come to lie.
        name: what its C functions begin with.
        row: whose model; that of the sparse row otherwise.
        precision: of the products.
        weights: in the C file, or in NAME.bin, which the caller loads.
        wrappers: what else is written, for these languages and places.
        measure: count code, stack and instructions on emulated processors (pip install 'sparsernn[devices]').
    """
    from sparsernn.analysis.terminal import in_c
    from sparsernn.export.export_c import export_c

    recipe, opened = _open(run)
    found = recipe(opened).loaded()
    row = found.sparsified if row is None else row
    if row not in found.models:
        raise SettingsError(f"{run} has no row {row}; name one of {', '.join(found.models)}.")
    model = found.models[row].cpu().eval()
    try:
        report = export_c(
            model, folder, name, found.example_inputs, precision, weights, measure=measure, wrappers=wrappers
        )
    except RuntimeError as reason:  # a sentence: the model can't run step by step, or int8 spoils it
        raise ValueError(reason) from None
    opened.console.print(f"{folder / name}.c: {in_c(report)}", soft_wrap=True)


def bench_run(run: str, /) -> None:
    """Time the models of a finished run anew, side by side.

    Args:
        run: a run's folder, or a recipe's name for its newest run.
    """
    recipe, opened = _open(run)
    recipe(opened).bench()


def report_run(run: str, /) -> None:
    """Write the report of a finished run again and say where it is.

    Args:
        run: a run's folder, or a recipe's name for its newest run.
    """
    recipe, opened = _open(run)
    opened.console.print(f"Report: {recipe(opened).report()}")


def listen_run(run: str, file: Path, /, row: str | None = None) -> None:
    """Stream a WAV file frame by frame through the model of a finished run; show the label as it settles, and the time.

    Args:
        run: a run's folder, or a recipe's name for its newest run.
        file: a WAV file of linear PCM; another sample rate is converted, several channels become one.
        row: whose model listens, one of the rows that stream; the last one otherwise.
    """
    from .recipes import RECIPES

    recipe, opened = _open(run)
    if not getattr(recipe, "listen", None):
        able = " or ".join(each.name for each in RECIPES.values() if getattr(each, "listen", None))
        raise SettingsError(f"{run} is a run of {recipe.name}, which does not listen; name a run of {able}.")
    if not file.is_file():
        raise SettingsError(f"There is no file {file}; name a WAV file.")
    recipe(opened).listen(file, row)


def answer_run(run: str, /, context: Path, question: str) -> None:
    """Answer a question about a text by the smallest net of a finished run; show the answer, how sure it is, and where.

    Args:
        run: a run's folder, or a recipe's name for its newest run.
        context: a file with the text, in UTF-8.
        question: what is asked about it.
    """
    from .recipes import RECIPES

    recipe, opened = _open(run)
    if not getattr(recipe, "answer", None):
        able = " or ".join(each.name for each in RECIPES.values() if getattr(each, "answer", None))
        raise SettingsError(f"{run} is a run of {recipe.name}, which answers nothing; name a run of {able}.")
    if not context.is_file():
        raise SettingsError(f"There is no file {context}; name a text with --context.")
    recipe(opened).answer(context, question)


def make_gallery(name: str, /, data: Path | None = None, results: Path = Path("results")) -> None:
    """Make a model that ships trained in a package smaller; show its table, write RESULTS/gallery/MODEL.json.

    Args:
        name: of the package, one of those on the page "Models that ship trained"; it has to be installed.
        data: folder with data sets; SPARSERNN_DATA otherwise.
        results: folder of results.
    """
    from importlib import import_module

    from .data import data_folder
    from .gallery.frame import show
    from .gallery.packages import NAMES

    if name not in NAMES:
        raise SettingsError(f"There is no {name[:40]} in the gallery; name one of {', '.join(NAMES)}.")
    made = import_module(f"{__package__}.gallery.{NAMES[name]}")
    try:
        subjects = made.subjects(data_folder(data))
    except ImportError as error:
        how = Path(__file__).with_name("gallery") / "requirements.txt"
        raise SettingsError(f"{error}: {how} says how to install what {name} needs.") from error
    show(name, subjects, results / "gallery")


def _open(name: str) -> tuple[Any, Run]:
    from .opened import open_run

    return open_run(name, RUNS)
