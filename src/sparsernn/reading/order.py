"""Nodes in an order in which each finds what it needs, without those that nothing needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import networkx as nx

from .graph import Node


def in_order(nodes: Sequence[Node], wanted: Iterable[str]) -> list[Node]:
    """Of `nodes` those that make what is `wanted`, or what those need; else in the order that they have."""
    makers = {name: n for n, node in enumerate(nodes) for name in node.outputs if name}
    graph = nx.DiGraph()
    open_names, needed = list(wanted), set()
    while open_names:
        number = makers.get(open_names.pop())
        if number is None or number in needed:
            continue
        needed.add(number)
        graph.add_node(number)
        for name in nodes[number].reads():
            if name in makers:
                graph.add_edge(makers[name], number)
                open_names.append(name)
    return [nodes[n] for n in nx.lexicographical_topological_sort(graph)]
