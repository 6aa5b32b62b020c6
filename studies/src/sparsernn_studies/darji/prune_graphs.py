"""Pruning on top of structure: dense stacks, pruned ones and graph nets at equal numbers of weights.

Darji's question (arXiv 2407.20601) whether a net that is sparse by structure can be pruned like a dense one, with the
pruned and the small dense net of the same size beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, pstdev
from typing import Annotated, Any, ClassVar

import networkx as nx
from torch import Tensor, nn

from sparsernn.learn.prune import Prune
from sparsernn.learn.schedules import Gradual
from sparsernn.surgery.checkpoint import save

from ..graphs.claims import OF_PRUNED
from ..graphs.families import FAMILIES, specs
from ..graphs.paper import CELLS
from ..graphs.population import GraphCell, GraphClassifier, accuracies, fit
from ..graphs.study import SYMBOLS, Data, strings
from ..settings import Count, Is, Part, Positive, Some, settings
from ..study import Judge, Row, Study
from ..tables import figure

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

    cells: Some[GraphCell] = ("lstm", "gru")
    graphs: Count = 6
    nodes: tuple[int, int] = (16, 24)
    layers: Count = 3
    hidden: Count = 16
    keep: Part = 0.5
    strings: Count = 24_000
    longest: Count = 20
    steps: Annotated[int, Is("at least 5", lambda steps: steps >= 5)] = 300
    batch: Count = 32
    learning_rate: Positive = 0.02
    graph_seed: int = 2


@dataclass(frozen=True)
class Net(Row):
    cell: GraphCell
    method: str


class PrunedGraphs(Study[Settings, Net]):
    name = "darji-prune-graphs"
    summary = "Pruning on top of structure: dense stacks, pruned ones and graph nets with as many weights."
    title = "Pruning on top of structure"
    scales: ClassVar = {
        "smoke": Settings(
            cells=("gru",), graphs=1, nodes=(8, 10), hidden=8, strings=1600, longest=14, steps=6, batch=4
        ),
        "cpu": Settings(),
        "paper": Settings(
            cells=("tanh", "relu", "lstm", "gru"),
            graphs=40,
            nodes=(30, 50),
            hidden=50,
            strings=100_000,
            longest=30,
            steps=2200,
            batch=128,
        ),
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "about 8 minutes", "paper": "a day on one GPU"}
    columns = (
        figure("test accuracy", "test_accuracy", "{:.3f}"),
        figure("deviation over graphs", "deviation", "{:.3f}"),
        figure("weights, mean", "nonzero", "{:,}"),
    )
    labels: ClassVar = {
        f"{cell}-{method}": f"{name}: {text}" for cell, name in CELLS.items() for method, text in METHODS.items()
    }
    judge = Judge("test_accuracy", more=True, rows="*-both")
    claims = OF_PRUNED

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Net]:
        return [Net(f"{cell}-{method}", cell, method) for cell in settings.cells for method in METHODS]

    @property
    def shown(self) -> Net:
        return self.named(f"{self.settings.cells[0]}-both")

    @cached_property
    def graphs(self) -> list[nx.Graph]:
        s = self.settings
        return [spec.make() for spec in specs(s.graphs, 0, s.graph_seed, s.nodes, (0.1, 0.5, 1.0), FAMILIES)]

    @cached_property
    def data(self) -> Data:
        return strings(self.settings.strings, self.settings.longest, self.settings.graph_seed)

    @cached_property
    def example_inputs(self) -> tuple[Tensor, Tensor]:
        return self.data.examples()

    def weights(self, cell: str, number: int) -> int:
        """How many weights the recurrent matrices of a graph's net have."""
        return GraphClassifier(cell, [self.graphs[number]], SYMBOLS).weights_of_each()[0]

    def model(self, row: Net, number: int = 0) -> GraphClassifier:
        """The net of `row` beside graph `number`, untrained."""
        s, graph = self.settings, self.graphs[number]
        if row.method in ("dense", "pruned", "fewer"):
            graph = stack(s.layers, s.hidden)
        elif row.method == "small":
            wanted = self.weights(row.cell, number)

            def distance(hidden: int) -> int:
                made = GraphClassifier(row.cell, [stack(s.layers, hidden)], SYMBOLS)
                return abs(made.weights_of_each()[0] - wanted)

            graph = stack(s.layers, min(range(1, s.hidden + 1), key=distance))
        return GraphClassifier(row.cell, [graph], SYMBOLS, seed=self.run.seed * 1009 + number)

    def trained(self, row: Net, number: int) -> tuple[float, int]:
        """Test accuracy and the number of weights that are not zero."""
        s, model = self.settings, self.model(row, number)
        matrices = [p for p in model.graph.parameters() if p.dim() == 2]
        total = sum(p.numel() for p in matrices)
        share = {"pruned": 1.0, "both": s.keep, "fewer": s.keep}.get(row.method)
        left = total if share is None else min(total, round(share * self.weights(row.cell, number)))
        # What the graph lacks counts as pruned already: the smallest weights are its zeros.
        schedule = Gradual(begin=s.steps // 5, end=max(2, s.steps * 3 // 5), every=max(1, s.steps // 30))
        sparsity = 1 - left / total

        def prune(net: nn.Module) -> Prune:
            return Prune(net, self.example_inputs, sparsity=sparsity, scope="model", schedule=schedule)

        sparsify = prune if sparsity > 0 else None
        fit(model, self.data.objective(s.batch, self.run.seed), s.steps, s.learning_rate, sparsify=sparsify)
        if number == 0:
            save(model, self.file(row))
        return accuracies(model, *self.data.test())[0], sum(int(p.count_nonzero()) for p in matrices)

    def make(self, row: Net) -> Mapping[str, Any]:
        found = [self.trained(row, number) for number in range(self.settings.graphs)]
        accuracy = [a for a, _ in found]
        self.run.console.print(f"{row.name}: {fmean(accuracy):.3f}", highlight=False)
        return {
            "test_accuracy": round(fmean(accuracy), 6),
            "deviation": round(pstdev(accuracy), 6),
            "nonzero": round(fmean(n for _, n in found)),
            "accuracies": accuracy,
        }

    def forms(self) -> Mapping[str, nn.Module]:
        """The first cell's nets."""
        return {row.name: self.load(row) for row in self.rows if row.cell == self.shown.cell}


def stack(layers: int, hidden: int) -> nx.DiGraph:
    """The graph of a dense stack: every node of a layer leads to every one of the next."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(layers * hidden))
    for layer in range(layers - 1):
        first = range(layer * hidden, (layer + 1) * hidden)
        graph.add_edges_from((u, v + hidden) for u in first for v in first)
    return graph
