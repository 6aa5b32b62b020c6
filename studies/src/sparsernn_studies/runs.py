"""A run: one recipe at one scale and seed, in a folder of its own, resumable row by row."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sparsernn.files import write_atomically

from .errors import StudyError
from .results import Result, place, read, surroundings, write

Row = Callable[[], Mapping[str, Any]]
MOST_SEED = 2**32 - 1  # what every generator of random numbers takes


class RunError(StudyError):
    """A run folder that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Run:
    """What a recipe is given: its settings (a dataclass), where to write, where data lies, how to show things."""

    recipe: str
    scale: str
    seed: int
    settings: Any
    folder: Path
    results: Path
    data: Path | None = None
    command: str = ""
    console: Console = field(default_factory=Console)

    def row(self, name: str, make: Row, *, paper: Mapping[str, Any] | None = None) -> Result:
        """The result of row `name`: read if an earlier run of the same settings made it, otherwise made and written.

        `make` returns what was measured.
        """
        path = place(self.results, self.recipe, self.scale, name, self.seed)
        mine = json.loads(json.dumps(asdict(self.settings)))
        if path.is_file():
            old = read(path)
            if old.settings == mine:
                return old
        started = time.monotonic()
        measured = dict(make())
        result = Result(
            recipe=self.recipe,
            scale=self.scale,
            row=name,
            seed=self.seed,
            settings=mine,
            paper=dict(paper or {}),
            measured=measured,
            seconds=round(time.monotonic() - started, 1),
            **surroundings(),
        )
        write(self.results, result)
        return result

    def add(self, result: Result, measured: Mapping[str, Any]) -> Result:
        """Write `result` anew with these figures added (times, say, which are taken side by side at the end)."""
        more = replace(result, measured={**result.measured, **measured})
        write(self.results, more)
        return more

    def begin(self) -> None:
        """Make the folder and note in it what is run. Raises RunError if another run lies there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "run.json"
        content = {
            "recipe": self.recipe,
            "scale": self.scale,
            "seed": self.seed,
            "settings": asdict(self.settings),
            "command": self.command,
        }
        if path.is_file():
            old = describe(self.folder)
            same = ("recipe", "scale", "seed", "settings")
            if any(old[key] != json.loads(json.dumps(content[key])) for key in same):
                raise RunError(f"{self.folder} holds another run ({old['command']}); delete it or choose another seed.")
        write_atomically(path, json.dumps(content, indent=2) + "\n")


def run_folder(runs: Path, recipe: str, scale: str, seed: int, changed: Mapping[str, Any]) -> Path:
    """RECIPE/SCALE-seedN under `runs`; changed settings have a folder of their own, by their digest."""
    if not changed:
        return runs / recipe / f"{scale}-seed{seed}"
    digest = hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]
    return runs / recipe / f"{scale}-seed{seed}-{digest}"


def describe(folder: Path) -> dict[str, Any]:
    """What `begin` noted in `folder`. Raises RunError if it is not the folder of a run."""
    path = folder / "run.json"
    if not path.is_file():
        raise RunError(f"{folder} is not a run: there is no run.json in it. Name a folder that `sparsernn run` wrote.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({str(error)[:120]}); run the recipe again.") from error
    lacking = {"recipe", "scale", "seed", "settings", "command"} - set(content if isinstance(content, dict) else ())
    if lacking:
        raise RunError(f"{path} lacks {', '.join(sorted(lacking))}; run the recipe again.")
    for key, kind in {"recipe": str, "scale": str, "seed": int, "settings": dict, "command": str}.items():
        value = content[key]
        if type(value) is not kind or (key == "seed" and not 0 <= value <= MOST_SEED):
            expected = f"a whole number from 0 to {MOST_SEED}" if kind is int else f"of type {kind.__name__}"
            raise RunError(f"{path} has {key} = {repr(value)[:60]}, expected {expected}; run the recipe again.")
    return content


def all_runs(runs: Path) -> Iterator[Path]:
    """The run folders under `runs`, newest first."""
    yield from sorted((p.parent for p in runs.glob("*/*/run.json")), key=lambda p: p.stat().st_mtime, reverse=True)
