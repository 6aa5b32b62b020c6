"""How the nodes of a graph become the units of recurrent layers, and its edges the masks between them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

Inputs = Literal["sources", "all"]
Skips = Literal["input", "added"]
Outputs = Literal["sinks", "last", "all"]
INPUT = -1  # the module's input, among the layers that a layer reads


@dataclass(frozen=True)
class Layering:
    """Nodes by layer, and what each layer reads.

    A layer may have several parts, recurrent blocks of equal width that read different layers and whose outputs are
    added: then it has `parts` times as many hidden units as nodes, part after part.
    """

    nodes: tuple[tuple[Hashable, ...], ...]  # unit k of a layer's output is nodes[layer][k]
    sources: tuple[tuple[int, ...], ...]  # the layers that each layer reads, or INPUT
    parts: tuple[int, ...]
    readout: tuple[tuple[int, ...], ...]  # the units of each layer that are outputs of the module
    kept: tuple[tuple[int, ...], ...]  # hidden units of the layer as it was built that are still there

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(len(nodes) for nodes in self.nodes)

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        return tuple(width * parts for width, parts in zip(self.widths, self.parts))

    def input_size(self, layer: int, width: int) -> int:
        """Width of what `layer` reads, where the module's input has `width` columns."""
        return sum(width if source == INPUT else self.widths[source] for source in self.sources[layer])

    def narrowed(self, units: Sequence[Sequence[int]]) -> Layering:
        """With only these hidden units of each layer, given by their present numbers.

        Raises ValueError where the parts of a layer would lose different units.
        """
        for layer, (chosen, width, parts) in enumerate(zip(units, self.widths, self.parts)):
            first = [k for k in chosen if k < width]
            if not first or sorted(chosen) != [p * width + k for p in range(parts) for k in first]:
                raise ValueError(f"layer {layer}: the units {list(chosen)} are not the same in each part.")
        outputs = [[k for k in chosen if k < width] for chosen, width in zip(units, self.widths)]
        return replace(
            self,
            nodes=tuple(tuple(nodes[k] for k in left) for nodes, left in zip(self.nodes, outputs)),
            readout=tuple(tuple(left.index(k) for k in out if k in left) for out, left in zip(self.readout, outputs)),
            kept=tuple(tuple(before[k] for k in chosen) for before, chosen in zip(self.kept, units)),
        )


def directed(graph: Any) -> Any:
    """`graph` as a networkx DiGraph without cycles: edges of an undirected graph lead from the earlier node on.

    "Earlier" is the graph's own order of nodes. Self-loops are left out: what feeds back is said by `recurrent`.
    Raises TypeError for anything but a networkx graph, ValueError for an empty or cyclic one.
    """
    import networkx as nx

    if not isinstance(graph, nx.Graph):
        raise TypeError(f"graph is a {type(graph).__name__}; expected a networkx graph, nx.barabasi_albert_graph(...).")
    if not len(graph):
        raise ValueError("graph has no nodes; expected at least one, each becomes a recurrent unit.")
    place = {node: n for n, node in enumerate(graph)}
    found = nx.DiGraph()
    found.add_nodes_from(graph)
    for u, v in graph.edges():
        if u != v:
            backwards = not graph.is_directed() and place[u] > place[v]
            found.add_edge(*((v, u) if backwards else (u, v)))
    if not nx.is_directed_acyclic_graph(found):
        cycle = " -> ".join(str(u) for u, _ in nx.find_cycle(found))
        raise ValueError(
            f"graph has the cycle {cycle}, so its nodes have no layers; expected a directed graph without cycles.\n"
            "graph.to_undirected() is directed by the order of its nodes."
        )
    return found


def layers_of(graph: Any) -> list[list[Hashable]]:
    """The nodes by layer: a node's layer is the number of edges of the longest path that leads to it from a source."""
    import networkx as nx

    dag = directed(graph)
    place = {node: n for n, node in enumerate(dag)}
    return [sorted(layer, key=place.__getitem__) for layer in nx.topological_generations(dag)]


def lay_out(graph: Any, inputs: Inputs, skips: Skips, outputs: Outputs) -> Layering:
    """The layering of `graph`."""
    dag, layers = directed(graph), layers_of(graph)
    layer_of = {node: n for n, layer in enumerate(layers) for node in layer}
    reads = [sorted({layer_of[u] for v in layer for u in dag.predecessors(v)}, reverse=True) for layer in layers]
    reads = [found + [INPUT] * (not found or inputs == "all") for found in reads]
    parts = [len(found) if skips == "added" else 1 for found in reads]
    ends: dict[Outputs, Any] = {
        "sinks": lambda layer, v: dag.out_degree(v) == 0,
        "last": lambda layer, v: layer == len(layers) - 1,
        "all": lambda layer, v: True,
    }
    return Layering(
        nodes=tuple(tuple(layer) for layer in layers),
        sources=tuple(tuple(found) for found in reads),
        parts=tuple(parts),
        readout=tuple(tuple(k for k, v in enumerate(nodes) if ends[outputs](n, v)) for n, nodes in enumerate(layers)),
        kept=tuple(tuple(range(len(nodes) * count)) for nodes, count in zip(layers, parts)),
    )


def input_masks(graph: Any, plan: Layering, width: int) -> list[Tensor | None]:
    """The edges (units x columns; None: all) of each layer's input weights, where the input has `width` columns."""
    dag = directed(graph)

    def between(source: int, nodes: Sequence[Hashable]) -> Tensor:
        if source == INPUT:
            return torch.ones(len(nodes), width, dtype=torch.bool)
        return torch.tensor([[dag.has_edge(u, v) for u in plan.nodes[source]] for v in nodes], dtype=torch.bool)

    found = [[between(source, nodes) for source in reads] for nodes, reads in zip(plan.nodes, plan.sources)]
    return [_mask(torch.cat(b, 1) if parts == 1 else torch.block_diag(*b)) for b, parts in zip(found, plan.parts)]


def recurrent_masks(plan: Layering, recurrent: Any) -> list[Tensor | None]:
    """The same of the weights by which each layer's units feed back: units x units."""

    def of(nodes: Sequence[Hashable]) -> Tensor:
        if recurrent == "dense":
            return torch.ones(len(nodes), len(nodes), dtype=torch.bool)
        return torch.tensor([[recurrent.has_edge(u, v) for u in nodes] for v in nodes], dtype=torch.bool)

    return [_mask(torch.block_diag(*[of(nodes)] * parts)) for nodes, parts in zip(plan.nodes, plan.parts)]


def _mask(edges: Tensor) -> Tensor | None:
    return None if bool(edges.all()) else edges.bool()
