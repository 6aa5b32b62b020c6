"""Pruning on top of structure: dense stacks, pruned ones and graph nets at equal numbers of weights.

Darji's question (arXiv 2407.20601) whether a net that is sparse by structure can be pruned like a dense one, with the
pruned and the small dense net of the same size beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import networkx as nx
import torch
from torch import nn

from sparsernn.analysis.sparsity import inspect
from sparsernn.learn.prune import Prune
from sparsernn.learn.schedules import Gradual
from sparsernn.surgery.checkpoint import load, save
from sparsernn.timing import benchmark

from ..graphs.families import FAMILIES, specs
from ..graphs.population import CELLS, GraphClassifier, accuracies, fit
from ..graphs.study import SYMBOLS, Data, strings
from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows
from ..runs import Run
from ..settings import settings
from ..tables import figure, rich_table

METHODS = {
    "dense": "dense stack",
    "small": "small dense stack, as many weights as the graph",
    "pruned": "dense stack, pruned to as many weights",
    "graph": "graph",
    "fewer": "dense stack, pruned to half of them",
    "both": "graph, pruned to half of them",
}


@settings
class Settings:
    """`graphs`: how many, each a family in turn; `layers` and `hidden` of the dense stack. `keep`: share of the
    graph's weights that "both" and "fewer" have left. The rest as in darji-graphs."""

    cells: tuple[str, ...] = ("lstm", "gru")
    graphs: int = 6
    nodes: tuple[int, int] = (16, 24)
    layers: int = 3
    hidden: int = 16
    keep: float = 0.5
    strings: int = 24_000
    longest: int = 20
    steps: int = 300
    batch: int = 32
    learning_rate: float = 0.02
    graph_seed: int = 2

    def check(self) -> None:
        if not self.cells or set(self.cells) - set(CELLS):
            raise ValueError(f"cells is {','.join(self.cells)!r}, expected some of {', '.join(CELLS)}.")
        if not 0 < self.keep < 1:
            raise ValueError(f"keep is {self.keep}, expected a share between 0 and 1.")
        if min(self.graphs, self.layers, self.hidden, self.batch) < 1 or self.steps < 5:
            raise ValueError("graphs, layers, hidden and batch are at least 1, steps at least 5.")


def stack(layers: int, hidden: int) -> nx.DiGraph:
    """The graph of a dense stack: every node of a layer leads to every one of the next."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(layers * hidden))
    for layer in range(layers - 1):
        first = range(layer * hidden, (layer + 1) * hidden)
        graph.add_edges_from((u, v + hidden) for u in first for v in first)
    return graph


class _Study:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings

    @cached_property
    def graphs(self) -> list[nx.Graph]:
        s = self.settings
        return [spec.make() for spec in specs(s.graphs, 0, s.graph_seed, s.nodes, (0.1, 0.5, 1.0), FAMILIES)]

    @cached_property
    def data(self) -> Data:
        return strings(self.settings.strings, self.settings.longest, self.settings.graph_seed)

    @property
    def rows(self) -> list[str]:
        return [f"{cell}-{method}" for cell in self.settings.cells for method in METHODS]

    def example(self) -> tuple[torch.Tensor, torch.Tensor]:
        x_TN, lengths_N, _ = self.data.test()
        return x_TN[: int(lengths_N[:8].max()), :8], lengths_N[:8]

    def weights(self, cell: str, number: int) -> int:
        """How many weights the recurrent matrices of a graph's net have."""
        return GraphClassifier(cell, [self.graphs[number]], SYMBOLS).weights_of_each()[0]

    def model(self, row: str, number: int) -> GraphClassifier:
        """The net of `row` beside graph `number`, untrained."""
        cell, method = row.split("-")
        s = self.settings
        graph = self.graphs[number]
        if method in ("dense", "pruned", "fewer"):
            graph = stack(s.layers, s.hidden)
        elif method == "small":
            wanted = self.weights(cell, number)

            def distance(hidden: int) -> int:
                made = GraphClassifier(cell, [stack(s.layers, hidden)], SYMBOLS)
                return abs(made.weights_of_each()[0] - wanted)

            graph = stack(s.layers, min(range(1, s.hidden + 1), key=distance))
        return GraphClassifier(cell, [graph], SYMBOLS, seed=self.run.seed * 1009 + number)

    def train(self, row: str, number: int) -> tuple[float, int]:
        """Test accuracy and the number of weights that are not zero."""
        cell, method = row.split("-")
        s = self.settings
        model = self.model(row, number)
        matrices = [p for p in model.graph.parameters() if p.dim() == 2]
        left = self.weights(cell, number) if method == "pruned" else None
        if method in ("both", "fewer"):
            left = round(s.keep * self.weights(cell, number))
        total = sum(p.numel() for p in matrices)
        # What the graph lacks counts as pruned already: the smallest weights are its zeros.
        schedule = Gradual(begin=s.steps // 5, end=max(2, s.steps * 3 // 5), every=max(1, s.steps // 30))
        example, sparsity = self.example(), 1 - (total if left is None else min(left, total)) / total

        def prune(net: nn.Module) -> Prune:
            return Prune(net, example, sparsity=sparsity, scope="model", schedule=schedule)

        sparsify = prune if sparsity > 0 else None
        fit(model, self.data.objective(s.batch, self.run.seed), s.steps, s.learning_rate, sparsify=sparsify)
        if number == 0:
            save(model, self.file(row))
        return accuracies(model, *self.data.test())[0], sum(int(p.count_nonzero()) for p in matrices)

    def file(self, row: str) -> Path:
        return self.run.folder / f"{row}.safetensors"

    def make(self, row: str) -> Mapping[str, Any]:
        found = [self.train(row, number) for number in range(self.settings.graphs)]
        accuracy = [a for a, _ in found]
        self.run.console.print(f"{row}: {fmean(accuracy):.3f}", highlight=False)
        return {
            "test_accuracy": round(fmean(accuracy), 6),
            "deviation": round(pstdev(accuracy), 6),
            "nonzero": round(fmean(n for _, n in found)),
            "accuracies": accuracy,
        }

    def results(self) -> dict[str, Result]:
        return {row: self.run.row(row, lambda row=row: self.make(row)) for row in self.rows}


COLUMNS = (
    figure("test accuracy", "test_accuracy", "{:.3f}"),
    figure("deviation over graphs", "deviation", "{:.3f}"),
    figure("weights, mean", "nonzero", "{:,}"),
)


def run(run: Run) -> None:
    """Make the rows, show the table and write the report."""
    rows = _Study(run).results()
    run.console.print(
        rich_table("Pruning on top of structure", COLUMNS, {RECIPE.labels[n]: r for n, r in rows.items()})
    )
    run.console.print(f"Report: {report(run)}")


def loaded(run: Run) -> Loaded:
    study = _Study(run)
    study.results()
    models = {row: load(study.model(row, 0), study.file(row)).eval() for row in study.rows}
    return Loaded(models, study.example(), f"{run.settings.cells[0]}-both")


def bench(run: Run) -> None:
    """Time the first cell's nets on one batch."""
    found = loaded(run)
    torch.set_num_threads(1)
    mine = {row: model for row, model in found.models.items() if row.startswith(run.settings.cells[0] + "-")}
    benchmark(mine, found.example_inputs, console=run.console)


def report(run: Run) -> Path:
    """Write report.html, on the first cell's pruned graph net, in the run's folder."""
    found = loaded(run)
    path = run.folder / "report.html"
    inspect(found.models[found.sparsified], found.example_inputs).html(
        path,
        title="Pruning on top of structure",
        command=run.command,
        runs=as_rows(list(_Study(run).results().values())),
    )
    return path


RECIPE = Recipe(
    name="darji-prune-graphs",
    summary="Pruning on top of structure: dense stacks, pruned ones and graph nets with as many weights.",
    scales={
        "smoke": Settings(
            cells=("gru",), graphs=1, nodes=(8, 10), hidden=8, strings=1600, longest=14, steps=6, batch=4
        ),
        "cpu": Settings(),
        "paper": Settings(
            cells=tuple(CELLS), graphs=40, nodes=(30, 50), hidden=50, strings=100_000, longest=30, steps=2200, batch=128
        ),
    },
    minutes={"smoke": "seconds", "cpu": "about 8 minutes", "paper": "a day on one GPU"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    judge=Judge("test_accuracy", more=True, rows="*-both"),
    labels={
        f"{cell}-{method}": f"{name}: {text}"
        for cell, name in (("tanh", "tanh"), ("relu", "relu"), ("lstm", "LSTM"), ("gru", "GRU"))
        for method, text in METHODS.items()
    },
)
