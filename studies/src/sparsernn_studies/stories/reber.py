"""Reber strings: a classifier of each cell kind, dense, with weights pruned, and with units taken out by target.

After Darji (arXiv 2407.20601), on strings that only the automaton tells apart, and with padding that is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sparsernn.analysis.sparsity import inspect
from sparsernn.learn.lasso import GroupLasso
from sparsernn.learn.prune import Prune
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.surgery.checkpoint import load, save
from sparsernn.surgery.compact import compact
from sparsernn.timing import benchmark

from .. import checkpoint
from ..models import CELLS, Cell, SequenceClassifier
from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows, sizes
from ..runs import Run
from ..scores import as_recorded
from ..tables import figure, rich_table
from ..tasks import reber
from ..tasks.sequences import Classification, accuracy, padded
from ..train import Training, train

METHODS = ("dense", "prune", "target")
# Accuracy after training (dense) and after 90% of all recurrent weights were pruned and trained for 10 epochs.
PAPER = {
    "lstm-dense": {"test_accuracy": 1.0},
    "gru-dense": {"test_accuracy": 1.0},
    "rnn-dense": {"test_accuracy": 0.937},
    "lstm-prune": {"test_accuracy": 1.0},
    "gru-prune": {"test_accuracy": 1.0},
    "rnn-prune": {"test_accuracy": 0.937},
}


@dataclass(frozen=True)
class Settings:
    """`strings`: how many in all, of which a quarter is the test. `sparsity`: share of weights pruned.

    `target`: share of recurrent weights kept when units go. `embedded`: the embedded Reber grammar.
    """

    cells: tuple[str, ...] = ("lstm", "gru", "rnn")
    embedded: bool = False
    strings: int = 8000
    embedding: int = 16
    hidden: int = 64
    sparsity: float = 0.9
    target: float = 0.1
    steps: int = 2500
    batch: int = 32
    learning_rate: float = 3e-3
    warm_up: int = 100

    def __post_init__(self) -> None:
        unknown = [cell for cell in self.cells if cell not in CELLS]
        if unknown or not self.cells:
            raise ValueError(f"cells is {','.join(self.cells)!r}, expected some of {', '.join(CELLS)}.")
        self.training()
        if self.strings < 16 or self.strings % 4:
            raise ValueError(f"strings is {self.strings}, expected a multiple of 4, at least 16.")
        for name in ("sparsity", "target"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a share between 0 and 1.")
        for name in ("embedding", "hidden", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a whole number, at least 1.")

    def training(self) -> Training:
        return Training(self.steps, self.learning_rate, self.warm_up)


class _Reber:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings

    @property
    def rows(self) -> list[str]:
        return [f"{cell}-{method}" for cell in self.settings.cells for method in METHODS]

    @cached_property
    def data(self) -> tuple[Tensor, Tensor, Tensor, int]:
        """Strings x_TN, lengths_N, classes_N, and how many of them are for training."""
        s = self.settings
        made = reber.generate(s.strings, self.run.seed, embedded=s.embedded)
        x_TN, lengths_N = padded(made.strings, reber.LETTERS)
        return x_TN, lengths_N, torch.tensor(made.valid, dtype=torch.long), s.strings * 3 // 4

    @cached_property
    def example_inputs(self) -> tuple[Tensor, Tensor]:
        x_TN, lengths_N, _, train = self.data
        longest = int(lengths_N[train : train + 8].max())
        return x_TN[:longest, train : train + 8], lengths_N[train : train + 8]

    def model(self, cell: str) -> SequenceClassifier:
        torch.manual_seed(self.run.seed)
        s = self.settings
        return SequenceClassifier(cast(Cell, cell), len(reber.LETTERS) + 1, s.embedding, s.hidden)

    def sparsify(self, method: str) -> Callable[[nn.Module], Sparsifier] | None:
        s = self.settings
        if method == "prune":
            gradual = Gradual(begin=max(1, s.steps // 5), end=max(2, s.steps * 3 // 5), every=max(1, s.steps // 50))
            return lambda model: Prune(model, self.example_inputs, sparsity=s.sparsity, schedule=gradual)
        if method == "target":
            return lambda model: GroupLasso(
                model, self.example_inputs, target=s.target, steps=s.steps, score=as_recorded()
            )
        return None

    def make(self, row: str) -> Mapping[str, Any]:
        cell, method = row.split("-")
        s = self.settings
        x_TN, lengths_N, classes_N, count = self.data
        model = self.model(cell)
        objective = Classification(x_TN[:, :count], lengths_N[:count], classes_N[:count], s.batch, self.run.seed)
        history = train(
            model,
            objective,
            s.training(),
            name=row,
            seed=self.run.seed,
            sparsify=self.sparsify(method),
            folder=self.run.folder / row,
        )
        model.eval()
        save(model, self.file(row))
        small = compact(model, self.example_inputs) if method == "target" else model
        return {
            "test_accuracy": accuracy(small, x_TN[:, count:], lengths_N[count:], classes_N[count:]),
            "units": [int(small.recurrent.hidden_size)],  # type: ignore[union-attr, arg-type]
            **sizes(small),
            "train_seconds": round(history.seconds, 1),
        }

    def file(self, row: str) -> Path:
        return self.run.folder / f"{row}.safetensors"

    def load(self, row: str) -> nn.Module:
        return load(self.model(row.split("-")[0]), self.file(row)).eval()

    def results(self) -> dict[str, Result]:
        return {row: self.run.row(row, lambda row=row: self.make(row), paper=PAPER.get(row)) for row in self.rows}


COLUMNS = (
    figure("test accuracy", "test_accuracy", "{:.4f}"),
    figure("units", "units"),
    figure("weights", "weights", "{:,}"),
    figure("of them not zero", "nonzero", "{:,}"),
)


def run(run: Run) -> None:
    """Make the rows, show the table and write the report."""
    rows = _Reber(run).results()
    run.console.print(rich_table("Reber strings: valid or not", COLUMNS, rows))
    run.console.print(f"Report: {report(run)}")


def loaded(run: Run) -> Loaded:
    work = _Reber(run)
    work.results()
    first = f"{run.settings.cells[0]}-target"
    models = {row: work.load(row) for row in work.rows}
    return Loaded({**models, "compact": compact(models[first], work.example_inputs)}, work.example_inputs, first)


def bench(run: Run) -> None:
    """Time the dense and the compact model of the first cell on one batch."""
    found = loaded(run)
    first = run.settings.cells[0]
    pair = {f"{first}-dense": found.models[f"{first}-dense"], f"{first}-compact": found.models["compact"]}
    torch.set_num_threads(1)
    benchmark(pair, found.example_inputs, console=run.console)


def report(run: Run) -> Path:
    """Write report.html, on the first cell's sparse net, in the run's folder."""
    work = _Reber(run)
    rows = work.results()
    first = f"{run.settings.cells[0]}-target"
    course = checkpoint.read(run.folder / first / "checkpoint.safetensors")["history"]
    path = run.folder / "report.html"
    inspect(work.load(first), work.example_inputs).html(
        path,
        title="Reber strings",
        command=run.command,
        runs=as_rows(list(rows.values())),
        history={"step": course["step"], "loss": course["loss"], "kept": course["density"]},
    )
    return path


RECIPE = Recipe(
    name="reber",
    summary="LSTM, GRU and RNN classifiers of Reber strings: dense, pruned weights, units out by target.",
    scales={
        "smoke": Settings(cells=("gru",), strings=400, hidden=16, steps=40, warm_up=5),
        "cpu": Settings(),
        "paper": Settings(strings=25_000, hidden=50, steps=25_000, batch=32, learning_rate=1e-3),
    },
    minutes={"smoke": "seconds", "cpu": "about 5 minutes", "paper": "about an hour"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    judge=Judge("test_accuracy", more=True, rows="*-target"),
)
