"""One trial of a sweep: a run of the recipe in a folder of its own, and what came of it, which is written once."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from filelock import FileLock
from rich.console import Console

from sparsernn.analysis.charts import QUALITY
from sparsernn.files import write_atomically

from ..errors import StudyError
from ..loop import Diverged
from ..recipes import find
from ..results import Result, collect
from ..runs import Run
from ..settings import with_changes
from ..study import Judge

Show = Callable[[Mapping[str, Any]], None]  # is given the figures of a training, ten times in its course
OWN_FAULT = (Diverged, ValueError)  # a trial that ends so would end so again


class SweepError(StudyError):
    """A sweep that cannot begin or go on; the message says why and what to do."""


@dataclass(frozen=True)
class Trial:
    """One point of a sweep. `set` holds for all trials, `point` (setting -> value as text) for this one."""

    number: int
    recipe: str
    scale: str
    seed: int
    set: tuple[str, ...]
    point: Mapping[str, str]
    folder: str
    data: str | None

    @property
    def changes(self) -> list[str]:
        return [*self.set, *(f"{key}={value}" for key, value in self.point.items())]

    def run(self) -> Run:
        """The run that this trial is. Raises SettingsError if its settings do not go together."""
        settings = with_changes(find(self.recipe).at(self.scale), self.changes)
        options = ["--scale", self.scale, "--set", *map(shlex.quote, self.changes), "--seed", str(self.seed)]
        folder = Path(self.folder)
        return Run(
            recipe=self.recipe,
            scale=self.scale,
            seed=self.seed,
            settings=settings,
            folder=folder,
            results=folder / "results",
            data=None if self.data is None else Path(self.data),
            command=" ".join(["sparsernn run", self.recipe, *options]),
            console=Console(width=140),
        )


@dataclass(frozen=True)
class Outcome:
    """What came of a trial. `state`: "done", "failed" (`reason` says why), or "stopped" early by a scheduler.

    `quality` and `size` are what the recipe is judged by (None where they were not measured); `metric` and `more` say
    what the quality is and whether more of it is better.
    """

    number: int
    point: Mapping[str, str]
    state: str
    metric: str = ""
    more: bool = False
    quality: float | None = None
    size_metric: str = ""
    size: float | None = None
    reason: str = ""

    @property
    def loss(self) -> float | None:
        """The quality as a number of which less is better."""
        return None if self.quality is None else -self.quality if self.more else self.quality


def outcome_file(folder: Path) -> Path:
    return folder / "outcome.json"


def read_outcome(folder: Path) -> Outcome | None:
    """What came of the trial in `folder`, None if it has not ended. Raises SweepError for a file of another form."""
    path = outcome_file(folder)
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise SweepError(f"{path} cannot be read ({error}); delete it to run the trial again.") from error


def write_outcome(folder: Path, outcome: Outcome) -> Outcome:
    """Write `outcome` unless there is one; the one that holds."""
    before = read_outcome(folder)
    if before is None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(outcome_file(folder), json.dumps(asdict(outcome), indent=2, allow_nan=False) + "\n")
    return before or outcome


def perform(trial: Trial, show: Show) -> Outcome:
    """Run `trial`, or go on with it where an earlier attempt was stopped; a trial that has ended is not run again.

    Only one process at a time works in the trial's folder: the lock is the operating system's, and gone with its
    process. One thread computes, so that figures do not depend on how many trials run side by side.
    """
    folder = Path(trial.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        ended = read_outcome(folder)
        if ended is not None:
            return ended
        torch.set_num_threads(1)
        try:
            run = trial.run()
            run.begin()
            with _Follower(show):
                find(trial.recipe)(run).complete()
            outcome = judged(trial, find(trial.recipe), collect(run.results))
        except OWN_FAULT as error:
            outcome = Outcome(trial.number, trial.point, "failed", reason=" ".join(str(error).split()))
        return write_outcome(folder, outcome)


def judged(trial: Trial, recipe: Any, rows: list[Result]) -> Outcome:
    """The outcome of a finished run. Raises SweepError if no row measured the recipe's metric."""
    judge = recipe.judge or _usual(rows)
    having = [row for row in rows if judge and judge.metric in row.measured]
    fitting = [row for row in having if judge and fnmatchcase(row.row, judge.rows)]
    nets = [row for row in having if judge and judge.size in row.measured]  # what needs no net has no size
    if not fitting and len(nets) == 1:
        fitting = nets
    if judge is None or not fitting:
        wanted = f"measured {judge.metric} in a row {judge.rows}" if judge else "measured a quality"
        raise SweepError(f"Recipe {recipe.name} cannot be swept with these settings: nothing {wanted}.")
    qualities, sizes = ([_mean(r.measured[m]) for r in fitting if m in r.measured] for m in (judge.metric, judge.size))
    return Outcome(
        trial.number,
        trial.point,
        "done",
        judge.metric,
        judge.more,
        fmean(qualities),
        judge.size,
        fmean(sizes) if sizes else None,
    )


def _usual(rows: list[Result]) -> Judge | None:
    metric = next((metric for metric in QUALITY if any(metric in row.measured for row in rows)), None)
    return None if metric is None else Judge(metric, QUALITY[metric][1])


def _mean(value: Any) -> float:
    return fmean(value) if isinstance(value, (list, tuple)) else float(value)


class _Follower(logging.Handler):
    """Context in which `show` is given the figures that trainings log."""

    def __init__(self, show: Show) -> None:
        super().__init__()
        self._show, self._log = show, logging.getLogger("sparsernn")

    def emit(self, record: logging.LogRecord) -> None:
        course = getattr(record, "course", None)
        if course is not None:
            self._show(course)

    def __enter__(self) -> None:
        self._before = self._log.level
        self._log.setLevel(logging.INFO)
        self._log.addHandler(self)

    def __exit__(self, *error: object) -> None:
        self._log.removeHandler(self)
        self._log.setLevel(self._before)
