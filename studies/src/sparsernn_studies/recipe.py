"""The base of the studies that are not yet a `Study`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .runs import Run
from .settings import SettingsError
from .study import Judge, Loaded
from .tables import Column


@dataclass(frozen=True)
class Recipe:
    """One table. `scales` maps smoke, cpu and paper (where there is one) to settings, all of one dataclass.

    `run` makes the rows and shows the table; `load` brings back the models of a finished run; `bench` times them;
    `report` writes the report and returns its path; `listen`, where there is one, streams a WAV file through the row of
    that name (None: the recipe's choice); `answer`, where there is one, shows what a net of the run says to a question
    about the text in a file. `minutes` is what a scale takes on two cores; `columns` are the table's, `labels` what its
    rows are called, in their order. `judge` is what a sweep compares; without it the first metric of quality that the
    rows measure, over all rows.
    """

    name: str
    summary: str
    scales: Mapping[str, Any]
    minutes: Mapping[str, str]
    run: Callable[[Run], None]
    load: Callable[[Run], Loaded]
    bench: Callable[[Run], None]
    report: Callable[[Run], Path]
    columns: Sequence[Column]
    labels: Mapping[str, str] = field(default_factory=dict)
    listen: Callable[[Run, Path, str | None], None] | None = None
    answer: Callable[[Run, Path, str], None] | None = None
    judge: Judge | None = None

    def at(self, scale: str) -> Any:
        """The settings of `scale`. Raises SettingsError if the recipe has no such scale."""
        if scale not in self.scales:
            raise SettingsError(f"Recipe {self.name} has no scale {scale!r}, only {', '.join(self.scales)}.")
        return self.scales[scale]

    def __call__(self, run: Run) -> Any:
        """What a `Study` is at a run."""
        todo = {"complete": self.run, "loaded": self.load, "bench": self.bench, "report": self.report}
        todo |= {"listen": self.listen, "answer": self.answer}
        return SimpleNamespace(**{name: partial(call, run) for name, call in todo.items() if call})
