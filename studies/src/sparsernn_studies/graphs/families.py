"""Families of random graphs, each graph made again from a few numbers, and their null models.

Sizes as in Darji (arXiv 2407.20601): Barabási-Albert graphs with n/10 edges for each new node, Watts-Strogatz graphs
with n/5 neighbours, whose rewiring probability is a parameter here (1, as there, leaves no small world), and
Erdős-Rényi graphs with as many edges as a Watts-Strogatz graph would have.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import networkx as nx

from sparsernn.nn.layering import directed, layers_of

FAMILIES = ("ba", "ws", "er")
NULLS = ("none", "rewired", "shuffled")


@dataclass(frozen=True)
class GraphSpec:
    """One graph: `family` of FAMILIES, `nodes`, `rewiring` (of ws), `seed`; `null` of NULLS is made from that graph."""

    family: str
    nodes: int
    rewiring: float
    seed: int
    null: str = "none"

    def make(self) -> nx.Graph:
        """The connected graph; of a null model "shuffled" a directed one."""
        graph = _FAMILIES[self.family](self)
        if self.null == "rewired":
            return rewired(graph, self.seed)
        return shuffled(graph, self.seed) if self.null == "shuffled" else graph


def _barabasi_albert(spec: GraphSpec) -> nx.Graph:
    return nx.barabasi_albert_graph(spec.nodes, max(1, spec.nodes // 10), seed=spec.seed)


def _watts_strogatz(spec: GraphSpec) -> nx.Graph:
    return nx.connected_watts_strogatz_graph(
        spec.nodes, max(2, spec.nodes // 5), spec.rewiring, tries=100, seed=spec.seed
    )


def _erdos_renyi(spec: GraphSpec) -> nx.Graph:
    edges = max(spec.nodes, spec.nodes * (max(2, spec.nodes // 5) // 2))
    for attempt in range(1000):
        graph = nx.gnm_random_graph(spec.nodes, edges, seed=spec.seed * 1000 + attempt)
        if nx.is_connected(graph):
            return graph
    raise ValueError(f"no connected graph of {spec.nodes} nodes and {edges} edges was found; take more nodes.")


_FAMILIES = {"ba": _barabasi_albert, "ws": _watts_strogatz, "er": _erdos_renyi}


def specs(
    count: int, nulls: int, seed: int, nodes: tuple[int, int], rewirings: Sequence[float], families: Sequence[str]
) -> list[GraphSpec]:
    """`count` graphs, the families in turn, their number of nodes uniform in `nodes`; then both null models of the
    first `nulls` of them."""
    source = random.Random(seed)
    found = []
    for n in range(count):
        size = source.randint(*nodes)
        family, rewiring = families[n % len(families)], rewirings[n // len(families) % len(rewirings)]
        found.append(GraphSpec(family, size, rewiring if family == "ws" else 0.0, seed * 100_000 + n))
    twins = product(found[:nulls], NULLS[1:])
    return found + [GraphSpec(s.family, s.nodes, s.rewiring, s.seed, null) for s, null in twins]


def rewired(graph: nx.Graph, seed: int) -> nx.Graph:
    """Another connected graph in which each node has as many edges as before: edges swapped at random."""
    twin = graph.copy()
    nx.connected_double_edge_swap(twin, nswap=2 * graph.number_of_edges(), seed=seed)
    return twin


def shuffled(graph: nx.Graph, seed: int) -> nx.DiGraph:
    """The same layers and as many edges between each two of them, but which of their nodes they join is drawn anew.

    The number of weights stays the same. Every node keeps a predecessor in the layer before its own, and the graph
    is connected again; raises ValueError where a thousand drawings give no such graph.
    """
    source = random.Random(seed)
    dag, layers = directed(graph), layers_of(graph)
    layer_of = {node: n for n, layer in enumerate(layers) for node in layer}
    counts: dict[tuple[int, int], int] = {}
    for u, v in dag.edges():
        pair = layer_of[u], layer_of[v]
        counts[pair] = counts.get(pair, 0) + 1
    for _ in range(1000):
        twin = nx.DiGraph()
        twin.add_nodes_from(graph)
        for (a, b), count in sorted(counts.items()):
            needed = [(source.choice(layers[a]), v) for v in layers[b]] if b == a + 1 else []
            others = [pair for pair in product(layers[a], layers[b]) if pair not in needed]
            twin.add_edges_from(needed + source.sample(others, count - len(needed)))
        if nx.is_weakly_connected(twin):
            return twin
    raise ValueError(f"no connected graph with the layers of this one was found ({graph}); take one with more edges.")
