"""Random graphs as the structure of RNN, LSTM and GRU classifiers of Reber strings: what goes with quality?

After Darji (arXiv 2407.20601) and Stier and Granitzer (arXiv 2107.12917), with every gate masked alike, padding never
read, strings that only the automaton tells apart, null models, and sizes controlled for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import networkx as nx
import torch
from torch import nn

from sparsernn.analysis.sparsity import inspect
from sparsernn.timing import benchmark

from ..graphs.families import FAMILIES, NULLS, GraphSpec, specs
from ..graphs.population import CELLS, GraphClassifier, fit
from ..graphs.properties import EXTRAS, PROPERTIES, properties
from ..graphs.study import SYMBOLS, Data, in_order, strings, train_all
from ..recipe import Judge, Loaded, Recipe
from ..results import Result, as_rows
from ..runs import Run
from ..settings import settings
from ..tables import figure, rich_table

# Test accuracy by family and Pearson's r with it, worked out again from the published measurements (Stier and
# Granitzer, arXiv 2107.12917); the gated nets' masks were scrambled there.
_PAPER_FIGURES = ("accuracy_ba", "accuracy_ws", "r_nodes", "r_edges", "r_source_nodes", "r_closeness_var")
PAPER: dict[str, dict[str, float]] = {
    "tanh": dict(zip(_PAPER_FIGURES, (0.842, 0.893, 0.40, 0.38, 0.35, -0.46))),
    "relu": dict(zip(_PAPER_FIGURES, (0.728, 0.829, 0.44, 0.43, 0.47, -0.39))),
    "lstm": dict(zip(_PAPER_FIGURES, (0.915, 0.976, 0.44, 0.42, 0.57, -0.51))),
    "gru": dict(zip(_PAPER_FIGURES, (0.928, 0.984, 0.49, 0.49, 0.74, -0.67))),
}


@settings
class Settings:
    """`graphs`: how many; both null models are made of the first `nulls`. `nodes`: fewest and most nodes of a graph.

    `rewirings`: the Watts-Strogatz probabilities, in turn. `strings`: how many are generated, of which those of up to
    `longest` letters are taken. `chunk`: how many graphs are trained side by side. `graph_seed`: the graphs and the
    strings are those of this number; the run's own seed is that of weights and batches.
    """

    cells: tuple[str, ...] = ("tanh", "relu", "lstm", "gru")
    families: tuple[str, ...] = FAMILIES
    graphs: int = 200
    nulls: int = 20
    nodes: tuple[int, int] = (10, 24)
    rewirings: tuple[float, ...] = (0.1, 0.5, 1.0)
    strings: int = 24_000
    longest: int = 20
    steps: int = 300
    batch: int = 32
    learning_rate: float = 0.02
    chunk: int = 10
    graph_seed: int = 1

    def check(self) -> None:
        for name, known in (("cells", tuple(CELLS)), ("families", FAMILIES)):
            if not getattr(self, name) or set(getattr(self, name)) - set(known):
                raise ValueError(f"{name} is {','.join(getattr(self, name))!r}, expected some of {', '.join(known)}.")
        if not 0 <= self.nulls <= self.graphs:
            raise ValueError(f"nulls is {self.nulls}, expected 0 to graphs ({self.graphs}).")
        if not 6 <= self.nodes[0] <= self.nodes[1]:
            raise ValueError(f"nodes is {self.nodes}, expected the fewest (at least 6) and the most nodes of a graph.")
        if min(self.graphs, self.steps, self.batch, self.chunk) < 1 or self.longest < 10:
            raise ValueError("graphs, steps, batch and chunk are at least 1, longest is at least 10.")

    def specs(self) -> list[GraphSpec]:
        return specs(self.graphs, self.nulls, self.graph_seed, self.nodes, self.rewirings, self.families)


class _Study:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.settings: Settings = run.settings

    @cached_property
    def specs(self) -> list[GraphSpec]:
        return self.settings.specs()

    @cached_property
    def graphs(self) -> list[nx.Graph]:
        return [spec.make() for spec in self.specs]

    @cached_property
    def data(self) -> Data:
        return strings(self.settings.strings, self.settings.longest, self.settings.graph_seed)

    def describe(self) -> Mapping[str, Any]:
        """What the graphs are, as lists: family and null model by their numbers, seed, and the properties."""
        found = [properties(graph) for graph in self.graphs]
        return {
            "family": [FAMILIES.index(spec.family) for spec in self.specs],
            "null": [NULLS.index(spec.null) for spec in self.specs],
            "rewiring": [spec.rewiring for spec in self.specs],
            "graph_seed": [spec.seed for spec in self.specs],
            **{name: [round(one[name], 6) for one in found] for name in (*PROPERTIES, *EXTRAS)},
        }

    def make(self, cell: str, described: Mapping[str, Any]) -> Mapping[str, Any]:
        s = self.settings
        parts = []
        for part in train_all(
            cell,
            self.graphs,
            self.data,
            chunk=s.chunk,
            steps=s.steps,
            batch=s.batch,
            learning_rate=s.learning_rate,
            seed=self.run.seed,
            folder=self.run.folder / "parts",
        ):
            parts.append(part)
            done = sum(len(p["graph"]) for p in parts)
            self.run.console.print(f"{cell}: {done} of {len(self.graphs)} graphs", highlight=False)
        lists = in_order(parts)
        return {**summary(lists["test_accuracy"], described), **lists}

    def results(self) -> dict[str, Result]:
        described = self.run.row("graphs", self.describe)
        rows = {"graphs": described}
        for cell in self.settings.cells:
            rows[cell] = self.run.row(cell, lambda c=cell: self.make(c, described.measured), paper=PAPER[cell])
        return rows

    def example(self) -> tuple[torch.Tensor, torch.Tensor]:
        x_TN, lengths_N, _ = self.data.test()
        longest = int(lengths_N[:8].max())
        return x_TN[:longest, :8], lengths_N[:8]

    def model(self, cell: str) -> GraphClassifier:
        """The net of the first graph, trained alone."""
        s = self.settings
        model = GraphClassifier(cell, self.graphs[:1], SYMBOLS, seed=self.run.seed)
        fit(model, self.data.objective(s.batch, self.run.seed), s.steps, s.learning_rate)
        return model


def summary(accuracy: list[float], described: Mapping[str, Any]) -> dict[str, float]:
    """Mean accuracy by family, and Pearson's r with the paper's properties, of the graphs that are no null model."""
    from ..graphs.analysis import pearson

    plain = [n for n, null in enumerate(described["null"]) if null == 0]
    found = {"accuracy": fmean(accuracy[n] for n in plain)}
    for number, family in enumerate(FAMILIES):
        own = [accuracy[n] for n in plain if described["family"][n] == number]
        if own:
            found[f"accuracy_{family}"] = fmean(own)
    if len(plain) > 3:
        for name in ("nodes", "edges", "source_nodes", "closeness_var"):
            values = [described[name][n] for n in plain]
            found[f"r_{name}"] = pearson(values, [accuracy[n] for n in plain]).r
    return {name: round(value, 6) for name, value in found.items()}


COLUMNS = (
    figure("accuracy", "accuracy", "{:.3f}"),
    *(figure(family.upper(), f"accuracy_{family}", "{:.3f}") for family in FAMILIES),
    figure("r nodes", "r_nodes", "{:.2f}"),
    figure("r edges", "r_edges", "{:.2f}"),
    figure("r sources", "r_source_nodes", "{:.2f}"),
    figure("r var. of closeness", "r_closeness_var", "{:.2f}"),
)


def run(run: Run) -> None:
    """Make the rows, show the table and write the report."""
    rows = _Study(run).results()
    shown = {name: row for name, row in rows.items() if name != "graphs"}
    run.console.print(rich_table("Random graphs: test accuracy on Reber strings", COLUMNS, shown))
    run.console.print(f"Report: {report(run)}")


def loaded(run: Run) -> Loaded:
    """The net of the first graph for each cell, trained again from its seed (seconds): the run keeps figures only."""
    study = _Study(run)
    models: dict[str, nn.Module] = {cell: study.model(cell) for cell in run.settings.cells}
    return Loaded(models, study.example(), run.settings.cells[0])


def bench(run: Run) -> None:
    """Time the first graph's nets on one batch."""
    found = loaded(run)
    torch.set_num_threads(1)
    benchmark(found.models, found.example_inputs, console=run.console)


def report(run: Run) -> Path:
    """Write report.html, on the first graph's net, in the run's folder."""
    study = _Study(run)
    cell = run.settings.cells[0]
    figures = as_rows([row for name, row in study.results().items() if name != "graphs"])
    for row in figures:
        row["measured"] = {name: value for name, value in row["measured"].items() if not isinstance(value, list)}
    path = run.folder / "report.html"
    inspect(study.model(cell), study.example()).html(
        path,
        title=f"Random graphs: {cell}, the first of {run.settings.graphs} graphs",
        command=run.command,
        runs=figures,
    )
    return path


RECIPE = Recipe(
    name="darji-graphs",
    summary="Random graphs as the structure of RNN, LSTM and GRU classifiers: which properties go with quality.",
    scales={
        "smoke": Settings(cells=("tanh", "lstm"), graphs=6, nulls=1, nodes=(8, 12), strings=1600, steps=4, chunk=4),
        "cpu": Settings(),
        "paper": Settings(
            graphs=600,
            nulls=100,
            nodes=(10, 50),
            strings=100_000,
            longest=30,
            steps=2200,
            batch=128,
            learning_rate=3e-3,
        ),
    },
    minutes={"smoke": "seconds", "cpu": "about 15 minutes", "paper": "a day on one GPU"},
    run=run,
    load=loaded,
    bench=bench,
    report=report,
    columns=COLUMNS,
    judge=Judge("accuracy", more=True, size="weights"),
    labels={"tanh": "tanh RNN", "relu": "relu RNN", "lstm": "LSTM", "gru": "GRU", "graphs": "graphs"},
)
