"""Reber strings: a classifier of each cell kind, dense, with weights pruned, and with units taken out by target.

After Darji (arXiv 2407.20601), on strings that only the automaton tells apart, and with padding that is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sparsernn.learn.prune import Prune
from sparsernn.learn.schedules import Gradual
from sparsernn.learn.shrink import Shrink
from sparsernn.learn.sparsifier import Sparsifier
from sparsernn.surgery.compact import compact

from ..models import Cell, SequenceClassifier
from ..results import sizes
from ..scores import as_recorded
from ..settings import Count, Part, Positive, Some, Whole, settings
from ..study import Judge, Loaded, Row, Study
from ..tables import figure
from ..tasks import reber
from ..tasks.sequences import Classification, accuracy, padded
from ..train import Training
from .claims import OF_REBER

Method = Literal["dense", "prune", "target"]
METHODS: tuple[Method, ...] = ("dense", "prune", "target")


@settings
class Settings:
    """`strings`: how many in all, of which a quarter is the test. `sparsity`: share of weights pruned.

    `target`: share of recurrent weights kept when units go. `embedded`: the embedded Reber grammar.
    """

    cells: Some[Cell] = ("lstm", "gru", "rnn")
    embedded: bool = False
    strings: reber.Fourfold = 8000
    embedding: Count = 16
    hidden: Count = 64
    sparsity: Part = 0.9
    target: Part = 0.1
    steps: Count = 2500
    batch: Count = 32
    learning_rate: Positive = 3e-3
    warm_up: Whole = 100


@dataclass(frozen=True)
class Net(Row):
    cell: Cell
    method: Method


class Reber(Study[Settings, Net]):
    name = "reber"
    summary = "LSTM, GRU and RNN classifiers of Reber strings: dense, pruned weights, units out by target."
    title = "Reber strings: valid or not"
    scales: ClassVar = {
        "smoke": Settings(cells=("gru",), strings=400, hidden=16, steps=40, warm_up=5),
        "cpu": Settings(),
        "paper": Settings(strings=25_000, hidden=50, steps=25_000, batch=32, learning_rate=1e-3),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "about 5 minutes", "paper": "about an hour"}
    columns = (
        figure("test accuracy", "test_accuracy", "{:.4f}"),
        figure("units", "units"),
        figure("weights", "weights", "{:,}"),
        figure("of them not zero", "nonzero", "{:,}"),
    )
    # Accuracy after training (dense) and after 90% of all recurrent weights were pruned and trained for 10 epochs.
    papers: ClassVar = {
        f"{cell}-{method}": {"test_accuracy": accuracy}
        for cell, accuracy in (("lstm", 1.0), ("gru", 1.0), ("rnn", 0.937))
        for method in ("dense", "prune")
    }
    judge = Judge("test_accuracy", more=True, rows="*-target")
    claims = OF_REBER

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Net]:
        return [Net(f"{cell}-{method}", cell, method) for cell in settings.cells for method in METHODS]

    @property
    def shown(self) -> Net:
        return self.rows[2]

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

    def model(self, row: Net) -> SequenceClassifier:
        torch.manual_seed(self.run.seed)
        return SequenceClassifier(row.cell, len(reber.LETTERS) + 1, self.settings.embedding, self.settings.hidden)

    def objective(self, row: Net) -> Classification:
        x_TN, lengths_N, classes_N, count = self.data
        return Classification(x_TN[:, :count], lengths_N[:count], classes_N[:count], self.settings.batch, self.run.seed)

    def training(self, row: Net) -> Training:
        return Training(self.settings.steps, self.settings.learning_rate, self.settings.warm_up)

    def sparsifier(self, row: Net) -> Callable[[nn.Module], Sparsifier] | None:
        s, x = self.settings, self.example_inputs
        if row.method == "prune":
            gradual = Gradual(begin=max(1, s.steps // 5), end=max(2, s.steps * 3 // 5), every=max(1, s.steps // 50))
            return lambda model: Prune(model, x, sparsity=s.sparsity, schedule=gradual)
        if row.method == "target":
            return lambda model: Shrink(model, x, to=s.target, steps=s.steps, score=as_recorded())
        return None

    def measure(self, row: Net, model: nn.Module) -> Mapping[str, Any]:
        x_TN, lengths_N, classes_N, count = self.data
        small: Any = compact(model, self.example_inputs) if row.method == "target" else model
        return {
            "test_accuracy": accuracy(small, x_TN[:, count:], lengths_N[count:], classes_N[count:]),
            "units": [int(small.recurrent.hidden_size)],
            **sizes(small),
        }

    def loaded(self) -> Loaded:
        found = super().loaded()
        small = compact(found.models[found.sparsified], self.example_inputs)
        return Loaded({**found.models, "compact": small}, self.example_inputs, found.sparsified)

    def forms(self) -> Mapping[str, nn.Module]:
        """The dense and the compact model of the first cell."""
        small = compact(self.load(self.shown), self.example_inputs)
        return {self.rows[0].name: self.load(self.rows[0]), f"{self.shown.cell}-compact": small}
