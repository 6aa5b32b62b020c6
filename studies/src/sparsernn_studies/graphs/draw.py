"""Pictures of layered graphs."""

from __future__ import annotations

import io
from pathlib import Path

import networkx as nx

from sparsernn.files import write_atomically
from sparsernn.nn.layering import directed, layers_of


def positions(graph: nx.Graph) -> dict:
    """node -> (layer, height): layers from left to right, the nodes of each spread over the same height."""
    places = {}
    for x, nodes in enumerate(layers_of(graph)):
        for n, node in enumerate(nodes):
            places[node] = (float(x), (n + 0.5) / len(nodes))
    return places


def draw(graph: nx.Graph, path: str | Path, title: str = "") -> Path:
    """Write an SVG of the layered graph: sources green, sinks orange, edges over several layers as bows."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    dag, places = directed(graph), positions(graph)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    skips = [(u, v) for u, v in dag.edges() if places[v][0] - places[u][0] > 1]
    plain = [edge for edge in dag.edges() if edge not in set(skips)]
    colours = ["#2a9d8f" if dag.in_degree(v) == 0 else "#e9803a" if dag.out_degree(v) == 0 else "#5b7db1" for v in dag]
    options = {"ax": axes, "node_size": 90, "arrowsize": 6, "width": 0.7}
    nx.draw_networkx_nodes(dag, places, nodelist=list(dag), node_color=colours, ax=axes, node_size=90)
    nx.draw_networkx_edges(dag, places, edgelist=plain, edge_color="#8a8a8a", **options)
    nx.draw_networkx_edges(
        dag, places, edgelist=skips, edge_color="#c9a0a0", connectionstyle="arc3,rad=0.18", style="dashed", **options
    )
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
    buffer = io.StringIO()
    # The same bytes each time: no date, and names of elements by a fixed salt.
    with matplotlib.rc_context({"svg.hashsalt": "sparsernn", "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    path = Path(path)
    write_atomically(path, "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n")
    return path
