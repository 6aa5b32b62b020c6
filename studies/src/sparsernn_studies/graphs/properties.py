"""The 23 properties of Darji's study (arXiv 2407.20601), all by networkx, and a few that it lacks."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, pvariance
from typing import Any

import networkx as nx

from sparsernn.nn.layering import directed, layers_of

SPREADS = ("mean", "var", "std")
# Of every node, or of every edge.
MEASURES: dict[str, Callable[[nx.Graph], Any]] = {
    "eccentricity": nx.eccentricity,
    "degree": nx.degree_centrality,
    "closeness": nx.closeness_centrality,
    "node_betweenness": nx.betweenness_centrality,
    "edge_betweenness": nx.edge_betweenness_centrality,
}
PROPERTIES = (
    "layers",
    "nodes",
    "edges",
    "source_nodes",
    "sink_nodes",
    "diameter",
    "density",
    "average_path",
    *(f"{measure}_{spread}" for measure in MEASURES for spread in SPREADS),
)
EXTRAS = ("spectral_gap", "clustering", "skip_edges", "widest_layer")


def properties(graph: nx.Graph) -> dict[str, float]:
    """PROPERTIES and EXTRAS of a connected graph. Layers, sources and sinks are those of its directed form; all
    others are of the undirected graph. Variances are of the whole population of nodes or edges.

    `spectral_gap` is the second smallest eigenvalue of the normalised Laplacian, `skip_edges` the share of edges that
    pass over a layer.
    """
    plain, dag, layers = nx.Graph(graph), directed(graph), layers_of(graph)
    layer_of = {node: n for n, layer in enumerate(layers) for node in layer}
    found: dict[str, float] = {
        "layers": len(layers),
        "nodes": plain.number_of_nodes(),
        "edges": plain.number_of_edges(),
        "source_nodes": sum(1 for v in dag if dag.in_degree(v) == 0),
        "sink_nodes": sum(1 for v in dag if dag.out_degree(v) == 0),
        "diameter": nx.diameter(plain),
        "density": nx.density(plain),
        "average_path": nx.average_shortest_path_length(plain),
    }
    for name, measure in MEASURES.items():
        values = list(measure(plain).values())
        variance = pvariance(values)
        found |= {f"{name}_mean": fmean(values), f"{name}_var": variance, f"{name}_std": variance**0.5}
    found["spectral_gap"] = float(sorted(nx.normalized_laplacian_spectrum(plain))[1])
    found["clustering"] = nx.average_clustering(plain)
    found["skip_edges"] = fmean(layer_of[v] - layer_of[u] > 1 for u, v in dag.edges())
    found["widest_layer"] = max(len(layer) for layer in layers)
    return found
