"""Runs that are opened again: by their folder, or by a recipe's name for its newest run."""

from __future__ import annotations

from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from .data import data_folder
from .progress import make_console
from .recipes import RECIPES, find
from .runs import Run, RunError, all_runs, describe
from .settings import SettingsError


def open_run(name: str, runs: Path) -> tuple[Any, Run]:
    """The recipe and the run of a folder, or of a recipe's newest run under `runs`. Raises SettingsError if there is
    none, RunError for one that another version wrote."""
    folder = Path(name)
    if not folder.is_dir() and name in RECIPES:
        folder = next((f for f in all_runs(runs) if f.parent.name == name), folder)
    if not folder.is_dir():
        there = [str(f) for f in list(all_runs(runs))[:3]]
        known = f"the newest are {', '.join(there)}" if there else "`sparsernn run` makes one"
        raise SettingsError(f"There is no run {name}; {known}.")
    try:
        noted = describe(folder)
    except RunError as error:
        raise SettingsError(str(error)) from None
    recipe = find(noted["recipe"])
    usual = recipe.at(noted["scale"])
    lists: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in noted["settings"].items()
    }
    for key, value in lists.items():
        if not _like(value, getattr(usual, key, None)):
            raise RunError(f"{folder / 'run.json'} has {key} = {repr(value)[:60]}, which no run writes; run it again.")
    kinds = get_type_hints(type(usual))
    try:
        for key in [key for key in lists if is_dataclass(kinds.get(key)) and isinstance(lists[key], dict)]:
            lists[key] = kinds[key](**lists[key])
        settings = type(usual)(**lists)
    except (TypeError, ValueError) as error:
        raise RunError(f"{folder} was made by another version of sparsernn ({error}); run it again.") from None
    return recipe, Run(
        recipe=noted["recipe"],
        scale=noted["scale"],
        seed=noted["seed"],
        settings=settings,
        folder=folder,
        results=folder / "results",
        data=data_folder(None),
        command=noted["command"],
        console=make_console(),
    )


def _like(value: object, usual: object) -> bool:
    """Whether `value` has the type of a setting whose usual value is `usual`; those of many types pass."""
    if type(usual) not in (bool, int, float, str, tuple) or value is None:
        return True
    return type(value) is type(usual) or (type(usual) is float and type(value) is int)
