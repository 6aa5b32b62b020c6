"""Random graphs as the structure of RNN, LSTM and GRU classifiers of Reber strings: what goes with quality?

After Darji (arXiv 2407.20601) and Stier and Granitzer (arXiv 2107.12917), with every gate masked alike, padding never
read, strings that only the automaton tells apart, null models, sizes controlled for, and the same graphs again with all
nodes reading the input, so that it matters to none how many sources there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Annotated, Any, ClassVar, Literal

import networkx as nx
from torch import Tensor, nn

from sparsernn.files import write_atomically
from sparsernn.nn.layering import Inputs

from ..graphs.analysis import pearson
from ..graphs.claims import OF_GRAPHS
from ..graphs.families import FAMILIES, NULLS, GraphSpec, specs
from ..graphs.paper import ACCURACY, CELLS, CORRELATIONS
from ..graphs.population import GraphCell, GraphClassifier, accuracies, fit
from ..graphs.properties import EXTRAS, PROPERTIES, properties
from ..graphs.study import SYMBOLS, Data, chunks, in_order, strings
from ..settings import Count, Is, Positive, Some, Whole, settings
from ..study import Judge, Loaded, Row, Study
from ..tables import figure

SHOWN = {"nodes": "r nodes", "edges": "r edges", "source_nodes": "r sources", "closeness_var": "r var. of closeness"}


@settings
class Settings:
    """`inputs`: which nodes read the input, in rows of their own. `graphs`: how many; both null models are made of the
    first `nulls`. `nodes`: fewest and most nodes of a graph.

    `rewirings`: the Watts-Strogatz probabilities, in turn. `strings`: how many are generated, of which those of up to
    `longest` letters are taken. `chunk`: how many graphs are trained side by side. `graph_seed`: the graphs and the
    strings are those of this number; the run's own seed is that of weights and batches.
    """

    cells: Some[GraphCell] = ("gru", "lstm", "tanh", "relu")
    inputs: Some[Inputs] = ("sources", "all")
    families: Some[Literal["ba", "ws", "er"]] = FAMILIES
    graphs: Count = 60
    nulls: Whole = 20
    nodes: tuple[int, int] = (10, 24)
    rewirings: Some[float] = (0.1, 0.5, 1.0)
    strings: Count = 24_000
    longest: Annotated[int, Is("at least 10", lambda letters: letters >= 10)] = 20
    steps: Count = 2000
    batch: Count = 32
    learning_rate: Positive = 0.02
    chunk: Count = 25
    graph_seed: int = 1

    def check(self) -> None:
        if self.nulls > self.graphs:
            raise ValueError(f"nulls is {self.nulls}, expected 0 to graphs ({self.graphs}).")
        if not 6 <= self.nodes[0] <= self.nodes[1]:
            raise ValueError(f"nodes is {self.nodes}, expected the fewest (at least 6) and the most nodes of a graph.")


@dataclass(frozen=True)
class Nets(Row):
    """The nets of all graphs with this cell, where the nodes `inputs` read the input."""

    cell: str
    inputs: Inputs

    @classmethod
    def of(cls, cell: str, inputs: Inputs) -> Nets:
        return cls(cell if inputs == "sources" else f"{cell}-{inputs}", cell, inputs)


DESCRIBED = Nets("graphs", "", "sources")


class RandomGraphs(Study[Settings, Nets]):
    """The row "graphs" describes the graphs; the others are cells, each trained on all of them."""

    name = "darji-graphs"
    summary = "Random graphs as the structure of RNN, LSTM and GRU classifiers: which properties go with quality."
    title = "Random graphs: test accuracy on Reber strings"
    scales: ClassVar = {
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
    }
    minutes: ClassVar = {"smoke": "seconds", "cpu": "about 2 hours", "paper": "two days on one GPU"}
    columns = (
        figure("accuracy", "accuracy", "{:.3f}"),
        *(figure(family.upper(), f"accuracy_{family}", "{:.3f}") for family in FAMILIES),
        *(figure(title, f"r_{name}", "{:.2f}") for name, title in SHOWN.items()),
    )
    labels: ClassVar = {
        **CELLS,
        **{Nets.of(cell, "all").name: f"{name}, all nodes read the input" for cell, name in CELLS.items()},
        "graphs": "graphs",
    }
    papers: ClassVar = {
        cell: {
            **{f"accuracy_{family}": figures[n] for family, figures in ACCURACY.items()},
            **{f"r_{name}": CORRELATIONS[name][n] for name in SHOWN},
        }
        for n, cell in enumerate(CELLS)
    }
    judge = Judge("accuracy", more=True, size="weights")
    claims = OF_GRAPHS

    @classmethod
    def rows_of(cls, settings: Settings) -> list[Nets]:
        return [DESCRIBED, *(Nets.of(cell, inputs) for cell in settings.cells for inputs in settings.inputs)]

    @property
    def shown(self) -> Nets:
        return self.rows[1]

    @cached_property
    def specs(self) -> list[GraphSpec]:
        s = self.settings
        return specs(s.graphs, s.nulls, s.graph_seed, s.nodes, s.rewirings, s.families)

    @cached_property
    def graphs(self) -> list[nx.Graph]:
        return [spec.make() for spec in self.specs]

    @cached_property
    def data(self) -> Data:
        return strings(self.settings.strings, self.settings.longest, self.settings.graph_seed)

    @cached_property
    def example_inputs(self) -> tuple[Tensor, Tensor]:
        return self.data.examples()

    def make(self, row: Nets) -> Mapping[str, Any]:
        if row == DESCRIBED:
            return self.describe()
        parts = []
        for number, members in enumerate(chunks(self.graphs, self.settings.chunk)):
            parts.append(self.part(row, number, members))
            done = sum(len(part["graph"]) for part in parts)
            self.run.console.print(f"{row.name}: {done} of {len(self.graphs)} graphs", highlight=False)
        lists = in_order(parts)
        return {**summary(lists["test_accuracy"], self.result(self.rows[0]).measured), **lists}

    def part(self, row: Nets, number: int, members: list[int]) -> dict[str, list[Any]]:
        """The chunk of these graphs, trained: "graph", "test_accuracy" and "weights", from the run's folder if done."""
        path = self.run.folder / "parts" / f"{row.name}-{number}.json"
        if not path.is_file():
            model = self.trained(row, members, self.run.seed * 10_007 + number)
            accuracy = accuracies(model, *self.data.test())
            path.parent.mkdir(parents=True, exist_ok=True)
            found = {"graph": members, "test_accuracy": accuracy, "weights": model.weights_of_each()}
            write_atomically(path, json.dumps(found) + "\n")
        return json.loads(path.read_text(encoding="utf-8"))

    def trained(self, row: Nets, members: Sequence[int], seed: int) -> GraphClassifier:
        """The nets of these graphs, trained side by side."""
        s = self.settings
        model = GraphClassifier(row.cell, [self.graphs[n] for n in members], SYMBOLS, seed, row.inputs)
        fit(model, self.data.objective(s.batch, self.run.seed), s.steps, s.learning_rate)
        return model

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

    def load(self, row: Nets, kind: str = "") -> GraphClassifier:
        """The net of the first graph, trained again from its seed (seconds): the run keeps figures only."""
        return self.trained(row, [0], self.run.seed)

    def forms(self) -> Mapping[str, nn.Module]:
        return {row.name: self.load(row) for row in self.rows[1:]}

    def loaded(self) -> Loaded:
        return Loaded(self.forms(), self.example_inputs, self.shown.name)


def summary(accuracy: list[float], described: Mapping[str, Any]) -> dict[str, float]:
    """Mean accuracy by family, and Pearson's r with the paper's properties, of the graphs that are no null model."""
    plain = [n for n, null in enumerate(described["null"]) if null == 0]
    found = {"accuracy": fmean(accuracy[n] for n in plain)}
    for number, family in enumerate(FAMILIES):
        own = [accuracy[n] for n in plain if described["family"][n] == number]
        if own:
            found[f"accuracy_{family}"] = fmean(own)
    if len(plain) > 3:
        for name in SHOWN:
            values = [described[name][n] for n in plain]
            found[f"r_{name}"] = pearson(values, [accuracy[n] for n in plain]).r
    return {name: round(value, 6) for name, value in found.items()}
