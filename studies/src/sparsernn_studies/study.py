"""A study: one table. It says what its rows are, how one is trained and what is measured; all else is written here.

A class with the table's texts as attributes; an object of it is the study at one run. It gives `rows_of`,
`example_inputs`, `model`, `objective`, `training` and `measure`, and `sparsifier` for the rows that become sparse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn

from sparsernn.analysis.sparsity import inspect
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.surgery.checkpoint import load, save
from sparsernn.timing import benchmark

from . import checkpoint
from .claims import Claim, Measured, Verdict, judged, lines, table
from .loop import History
from .results import Result, as_rows
from .rows import Judge, Loaded, Row
from .runs import Run, RunError
from .settings import SettingsError
from .tables import Column, rich_table
from .train import Objective, Training, train

S = TypeVar("S")
R = TypeVar("R", bound=Row)


class Study(Generic[S, R]):
    """`scales` maps smoke, cpu and paper (where there is one) to settings, all of one class; `minutes` says what a
    scale takes on two cores. `labels`: what rows are called in tables, in their order. `title` and `caption` may name
    settings in braces. `papers`: the published figures by row. `made_in_order`: rows that are made first, each after
    those that it needs. `hidden`: patterns of figures that the report leaves out. `timing`: the figure that says that a
    row's times were taken, where a study takes times by `timed`. `threads`: at most so many, 0 all that torch finds; a
    setting of that name goes before it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    title: ClassVar[str]
    caption: ClassVar[str] = ""
    scales: ClassVar[Mapping[str, Any]]
    minutes: ClassVar[Mapping[str, str]]
    columns: ClassVar[Sequence[Column]]
    labels: ClassVar[Mapping[str, str]] = {}
    papers: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    claims: ClassVar[Sequence[Claim]] = ()
    judge: ClassVar[Judge | None] = None
    made_in_order: ClassVar[tuple[str, ...]] = ()
    hidden: ClassVar[tuple[str, ...]] = ()
    timing: ClassVar[str] = ""
    threads: ClassVar[int] = 0

    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: S = run.settings
        self.rows: Sequence[R] = self.rows_of(run.settings)
        found = torch.get_num_threads()
        torch.set_num_threads(min(getattr(run.settings, "threads", self.threads) or found, found))

    @classmethod
    def at(cls, scale: str) -> Any:
        """The settings of `scale`. Raises SettingsError if the study has no such scale."""
        if scale not in cls.scales:
            raise SettingsError(f"Recipe {cls.name} has no scale {scale!r}, only {', '.join(cls.scales)}.")
        return cls.scales[scale]

    # What a study says of its rows

    @classmethod
    def rows_of(cls, settings: S) -> Sequence[R]:
        """The rows that `settings` ask for, in the order of the table."""
        raise NotImplementedError

    @cached_property
    def example_inputs(self) -> Any:
        """Something to trace and to time the models with."""
        raise NotImplementedError

    def model(self, row: R) -> Any:
        """The untrained net of `row`."""
        raise NotImplementedError

    def start(self, row: R) -> Any:
        """The net with which the training of `row` begins."""
        return self.model(row)

    def objective(self, row: R) -> Objective:
        """What the net of `row` learns."""
        raise NotImplementedError

    def training(self, row: R) -> Any:
        """How long and how fast."""
        raise NotImplementedError

    def sparsifier(self, row: R) -> Callable[[nn.Module], Sparsifier] | None:
        """What learns the sparsity of `row`; None for nets that are trained densely."""
        return None

    def measure(self, row: R, model: Any) -> Mapping[str, Any]:
        """The figures of the trained net, in eval mode."""
        raise NotImplementedError

    @property
    def order(self) -> Sequence[R]:
        """The rows as they are made: each after those that it needs."""
        first = self.made_in_order
        return sorted(self.rows, key=lambda row: first.index(row.name) if row.name in first else len(first))

    @property
    def saved(self) -> Sequence[R]:
        """The rows whose nets a finished run gives back."""
        return self.rows

    @property
    def shown(self) -> R:
        """The row that is inspected and reported on."""
        return self.rows[-1]

    def inspected(self) -> nn.Module:
        """The net of the row that is shown, as it is before anything is cut."""
        return self.load(self.shown)

    def forms(self) -> Mapping[str, nn.Module]:
        """The models that are timed side by side, the one compared with first."""
        return {row.name: self.load(row) for row in (self.rows[0], self.shown)}

    @property
    def timed_rows(self) -> Sequence[R]:
        """The rows that `timed` takes times of."""
        return self.rows

    def timed(self, rows: Mapping[str, Result]) -> dict[str, Result]:
        """The rows with their times added."""
        raise NotImplementedError

    def paper(self, row: R) -> Mapping[str, Any]:
        """The published figures of `row`."""
        return self.papers.get(row.name, {})

    def verdict(self, measured: Measured) -> str:
        """What is said under the table."""
        return ""

    @staticmethod
    def grouped(measured: Measured) -> Measured:
        """The rows as the claims take them."""
        return measured

    def sections(self, rows: Mapping[str, Result], found: Any) -> Mapping[str, Any]:
        """Further sections of the report, as `Report.html` takes them; `found`: what was seen in the shown net."""
        return {}

    # What is the same for all

    def make(self, row: R) -> Mapping[str, Any]:
        """Train `row` (or go on with it), save its net and measure."""
        model = self.start(row)
        history = self.train(row.name, model, self.objective(row), self.training(row), self.sparsifier(row))
        save(model, self.file(row))
        took = {"train_seconds": round(history.seconds, 1), "cpu_seconds": round(history.cpu_seconds, 1)}
        return {**self.measure(row, model), **took}

    def train(
        self,
        name: str,
        model: nn.Module,
        objective: Objective,
        training: Training,
        sparsify: Callable[[nn.Module], Sparsifier] | None = None,
        **more: Any,
    ) -> History:
        """Train `model`, which is then in eval mode; its checkpoints lie in the folder `name` of the run's."""
        folder = self.run.folder / name
        history = train(
            model, objective, training, name=name, seed=self.run.seed, sparsify=sparsify, folder=folder, **more
        )
        model.eval()
        return history

    def file(self, row: Row, kind: str = "") -> Path:
        return self.run.folder / f"{row.name}{kind}.safetensors"

    def load(self, row: R, kind: str = "") -> Any:
        """The net of a row that is done, in eval mode; `kind` tells several of one row apart."""
        if not self.file(row, kind).is_file():
            raise RunError(f"{self.file(row, kind)} is missing, so the run is not done: run it again, to its end.")
        return load(self.model(row), self.file(row, kind)).eval()

    def named(self, name: str) -> R:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    def label(self, name: str) -> str:
        """What the row of that name is called in tables."""
        return self.labels.get(name) or getattr(self.named(name), "label", name)

    def result(self, row: R) -> Result:
        """The row's result, made if it is not there."""
        return self.run.row(row.name, lambda: self.make(row), paper=self.paper(row))

    def results(self) -> dict[str, Result]:
        """All rows, in the order of the table, with their times where the study takes any."""
        made = {row.name: self.result(row) for row in self.order}
        rows = {row.name: made[row.name] for row in self.rows}
        lacking = self.timing and any(self.timing not in rows[row.name].measured for row in self.timed_rows)
        return self.timed(rows) if lacking else rows

    def judged(self, rows: Mapping[str, Result]) -> list[Verdict]:
        """The claims by the rows of this run alone."""
        return judged(self.claims, [self.grouped(_measured(rows))])

    def heading(self, text: str) -> str:
        """`text` with the settings that it names."""
        return text.format(**vars(self.settings))

    def show(self, rows: Mapping[str, Result]) -> None:
        """Show the table, and what follows from it."""
        shown = {
            self.label(name): result
            for name, result in rows.items()
            if any(column.cell(result.measured) != "-" for column in self.columns)
        }
        show = self.run.console.print
        show(rich_table(self.heading(self.title), self.columns, shown, self.heading(self.caption)))
        for said in (self.verdict(_measured(rows)), lines(self.judged(rows))):
            if said:
                show(said)

    def complete(self) -> None:
        """Make the rows that are not there, show the table and write the report."""
        self.show(self.results())
        self.run.console.print(f"Report: {self.report()}")

    def loaded(self) -> Loaded:
        """The models of a finished run."""
        self.results()
        models = {row.name: self.load(row) for row in self.saved} | {self.shown.name: self.inspected()}
        return Loaded(models, self.example_inputs, self.shown.name)

    def bench(self) -> None:
        """Take the times anew and show the table; without times of its own, time `forms` on one batch."""
        rows = self.results()
        if self.timing:
            self.show(self.timed(rows))
        else:
            torch.set_num_threads(1)
            benchmark(self.forms(), self.example_inputs, console=self.run.console)

    def report(self) -> Path:
        """Write report.html, on the row that is shown, in the run's folder and return its path."""
        rows = self.results()
        path = self.run.folder / "report.html"
        claims = table(self.judged(rows))
        found = inspect(self.inspected(), self.example_inputs)
        found.html(
            path,
            **{
                "title": self.heading(self.title),
                "verdict": self.verdict(_measured(rows)) or None,
                "command": self.run.command,
                "runs": [row for row in map(self._reported, as_rows(list(rows.values()))) if row["measured"]],
                "history": self.course(self.shown.name),
                **({"checks": claims} if claims else {}),
                **self.sections(rows, found),
            },
        )
        return path

    def _reported(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as the report shows it: without what is hidden and without long lists."""
        measured = {
            name: value
            for name, value in row["measured"].items()
            if not any(fnmatchcase(name, pattern) for pattern in self.hidden)
            and not (isinstance(value, list) and len(value) > 6)
        }
        return {**row, "row": self.label(row["row"]), "measured": measured}

    def course(self, name: str) -> dict[str, list[float]] | None:
        """The course of the training `name`, where it has left a checkpoint."""
        file = self.run.folder / name / "checkpoint.safetensors"
        found = checkpoint.read(file).get("history") if file.is_file() else None
        if not found or not found["step"]:
            return None
        return {"step": found["step"], "loss": found["loss"], "kept": found["density"], "rate": found["rate"]}


def _measured(rows: Mapping[str, Result]) -> dict[str, Mapping[str, Any]]:
    return {name: result.measured for name, result in rows.items()}
